"""What a promotion does: discounts, deals, points and other effects."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from server.promotions.deals import MAX_SET_PARTS
from server.promotions.kinds import Base
from server.promotions.model import Choice, FallsOn
from server.promotions.schema.goods import ExpirySection, ScopeSection, Section
from server.promotions.schema.values import (
    MAX_GOODS,
    Code,
    Count,
    Number,
    Off,
    Positive,
    Rate,
    Text,
    Truth,
    decimals,
    wholes,
)

MAX_STEPS = 50
MAX_PENDING_DAYS = 3650

Units = Annotated[int, wholes(at_least=1, at_most=1000)]
PendingDays = Annotated[int, wholes(at_most=MAX_PENDING_DAYS)]
Mode = Literal["whole", "marginal"]


class LineDiscountSection(Section):
    """One of percent, amount, fixed_price and prices, on each line by itself."""

    percent: Off | None = None
    """A percent off."""
    amount: Positive | None = None
    """An amount off each piece, kilogram or litre."""
    fixed_price: Number | None = None
    """Each piece, kilogram or litre at this price, if that is lower."""
    prices: Annotated[dict[Text, Number], Field(min_length=1, max_length=MAX_GOODS)] | None = None
    """A price list, `SKU: price`; these articles are the promotion's scope."""
    base: Base = Base.REMAINING
    """The price that a percent is taken from: what is left after earlier discounts, or the list price."""


class BasketDiscountSection(Section):
    """One of percent and amount, spread over the goods in scope."""

    percent: Off | None = None
    """A percent off all goods in scope."""
    amount: Positive | None = None
    """An amount off, once."""
    base: Base = Base.REMAINING
    """The price that a percent is taken from: what is left after earlier discounts, or the list price."""


class UnitsSection(Section):
    """Of every so many units in scope, some are cheaper: n for m, the nth at a price, the cheapest free."""

    every: Annotated[int, wholes(at_least=2, at_most=1000)]
    """Units that make one deal."""
    discounted: Units = 1
    """How many units of each deal get the discount."""
    percent: Off | None = None
    """A percent off each of them; 100 makes them free."""
    amount: Positive | None = None
    """An amount off each of them."""
    price: Number | None = None
    """Each of them at this price."""
    choose: Choice = Choice.CHEAPEST
    """Which units get it: the cheapest of all in scope, the cheapest of each deal, or the dearest of all."""
    falls_on: FallsOn = FallsOn.UNITS
    """Which lines carry the discount: those units, or all units of the deal in proportion to their prices."""
    most: Count | None = None
    """At most so many deals a receipt."""


class SetPartSection(ScopeSection):
    """So many units of any of these goods."""

    quantity: Units = 1
    """Units of these goods in one set."""


class SetSection(Section):
    """Goods that are cheaper together: one unit (or several) of each part."""

    parts: Annotated[list[SetPartSection], Field(min_length=1, max_length=MAX_SET_PARTS)]
    """What belongs to a set; a part with many goods leaves the choice to the shopper."""
    price: Number | None = None
    """The whole set at this price."""
    percent: Off | None = None
    """A percent off the set, or off the part that `falls_on_part` names."""
    amount: Positive | None = None
    """An amount off the set, or off the part that `falls_on_part` names."""
    falls_on_part: Annotated[int, wholes(at_least=1, at_most=MAX_SET_PARTS)] | None = None
    """The part that carries the discount, counted from 1; the whole set in proportion to prices if left out."""
    most: Count | None = None
    """At most so many sets a receipt."""


class GiftSection(ScopeSection):
    """Goods that are free, or cost little, for whoever meets the condition."""

    quantity: Units = 1
    """Units of the gift, the cheapest first."""
    price: Number = Decimal(0)
    """The price of each unit of the gift; 0 makes it free."""
    for_every: Units | None = None
    """So many units in scope entitle to the gift, twice as many to two of it; once a receipt if left out."""
    falls_on: FallsOn = FallsOn.UNITS
    """Which lines carry the discount: the gift, or everything in scope in proportion to prices."""


class StepSection(Section):
    """From a threshold on: a percent or an amount off."""

    at_least: Positive
    """The threshold, in what `by` measures."""
    percent: Off | None = None
    """A percent off."""
    amount: Positive | None = None
    """An amount off."""


class StepsSection(Section):
    """A discount that grows with what the goods in scope come to."""

    by: Literal["amount", "quantity", "weight"]
    """What the thresholds measure: money, pieces or kilograms (litres)."""
    mode: Mode = "whole"
    """The highest step reached counts for everything in scope, or each step for its part of the amount."""
    steps: Annotated[list[StepSection], Field(min_length=1, max_length=MAX_STEPS)]
    """The steps, lowest first."""


class PerAmountSection(Section):
    """So many points for every full step of money paid."""

    points: Positive
    """Points for each step."""
    step: Positive
    """The step of money."""
    per: Literal["receipt", "line"] = "receipt"
    """Count steps over everything in scope, or in each line."""


class PointsStepSection(Section):
    """From a threshold of money paid on: points, or a percent of what was paid."""

    at_least: Positive
    """The threshold of money paid for goods in scope."""
    points: Positive | None = None
    """So many points."""
    percent: Rate | None = None
    """A percent of what was paid."""


class PointsKindSection(Section):
    """One of percent, fixed, per_amount and steps."""

    percent: Rate | None = None
    """A percent of the money paid for each line."""
    fixed: Positive | None = None
    """So many points, as `per` says."""
    per: Literal["receipt", "line", "unit"] | None = None
    """`fixed` counts once a receipt (if left out), for each line, or for each piece, kilogram or litre."""
    per_amount: PerAmountSection | None = None
    """So many points for every full step of money paid."""
    steps: Annotated[list[PointsStepSection], Field(min_length=1, max_length=MAX_STEPS)] | None = None
    """Points that grow with what was paid for goods in scope, lowest step first."""
    mode: Mode | None = None
    """With steps: the highest one reached counts alone (whole, if left out), or each for its part (marginal)."""


class TierPointsSection(PointsKindSection):
    """Points that count towards levels only: one of percent, fixed, per_amount and steps."""


class PointsSection(PointsKindSection):
    """One of percent, multiplier, fixed, per_amount and steps; perhaps with dates, a unit or a payer of its own."""

    multiplier: Annotated[Decimal, decimals(above=1, at_most=1000)] | None = None
    """The base percent this many times; 5 adds four times the base to the base."""
    compound: Truth | None = None
    """Multiply what the multipliers before have made of the base, not the base itself."""
    unit: Text | None = None
    """A further unit of the programme; its own point if left out."""
    partner: Code | None = None
    """At whose expense; the programme (or the partner in whose store it is) if left out."""
    pending_days: PendingDays | None = None
    """The points become available so many days later."""
    expiry: ExpirySection | None = None
    """When the points expire; if neither this nor `pending_days` is given, as the programme's points do."""
