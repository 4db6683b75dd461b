"""The vocabulary of promotions: a programme as its author means it, and the plain data of one evaluation.

Money is in minor units of the programme's currency (`*_minor`), points in minor units of the point
(`points_minor`: with a point precision of 2, 100 is one point), quantities in thousandths
(`quantity_milli`). Percents and multipliers are exact fractions. Dates are the store's own.

The programme is made of frozen dataclasses. The data of an evaluation are named tuples: they are built by
the dozen for every receipt, and a named tuple is built in a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from fractions import Fraction

from server.promotions.criteria import Condition, Selector
from server.promotions.effects import FurtherEffects
from server.promotions.kinds import (
    Audience,
    Base,
    Clawback,
    FloorRest,
    LimitScope,
    Measure,
    OfflineAction,
    Period,
    Rounding,
    RoundingPer,
    TierMeasure,
)

BASE_ID = "base"
"""Promotion id of the programme's own base percent in accruals."""


AS_CHARGED_ID = "as_charged"
"""Promotion id of a discount that the register charged and the rules do not give."""


@dataclass(frozen=True, slots=True)
class PercentOff:
    """A share of the price off; `share` is 1/10 for 10 %."""

    share: Fraction


@dataclass(frozen=True, slots=True)
class AmountOff:
    """An amount off: of each unit on a line, once on a basket."""

    amount_minor: int


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """Each unit of a line at this price, if that is lower than what is left; it has no other base."""

    unit_price_minor: int


@dataclass(frozen=True, slots=True)
class PriceList:
    """Each unit of an article at its own price in the list, as for members of a club; the scope is the list's SKUs."""

    unit_prices_minor: Mapping[str, int]


LineDiscountKind = PercentOff | AmountOff | FixedPrice | PriceList


BasketDiscountKind = PercentOff | AmountOff


@dataclass(frozen=True, slots=True)
class LineDiscount:
    """A discount computed on each line by itself."""

    kind: LineDiscountKind
    base: Base = Base.REMAINING


@dataclass(frozen=True, slots=True)
class BasketDiscount:
    """A discount computed once over all lines in scope and spread over them by largest remainder."""

    kind: BasketDiscountKind
    base: Base = Base.REMAINING


class Choice(Enum):
    """Which units of a deal get its discount."""

    CHEAPEST = "cheapest"
    """The cheapest of all units in scope: what a grocer's finance department expects."""
    CHEAPEST_OF_EACH = "cheapest_of_each"
    """Units are sorted by price, dearest first, and cut into deals; the cheapest of each deal."""
    DEAREST = "dearest"
    """The dearest of all units in scope."""


class FallsOn(Enum):
    """Which lines carry the discount of a deal."""

    UNITS = "units"
    """The units that are cheaper or free."""
    WHOLE_DEAL = "whole_deal"
    """All units of the deal, in proportion to their prices."""


@dataclass(frozen=True, slots=True)
class UnitDeal:
    """Of every `every` units in scope, `discounted` get `kind`: n for m, the nth at a price, the cheapest free.

    3 for 2 is `every` 3, `discounted` 1 at 100 %; every second at half price is `every` 2, `discounted` 1 at 50 %.
    A fixed price is the price of one unit. Prices are what is left of each unit when the deal's turn comes.
    """

    every: int
    discounted: int
    kind: PercentOff | AmountOff | FixedPrice
    choose: Choice = Choice.CHEAPEST
    falls_on: FallsOn = FallsOn.UNITS
    most_deals: int | None = None


@dataclass(frozen=True, slots=True)
class SetPart:
    """So many units of any of these goods: one choice group of a set."""

    goods: Selector
    quantity: int


@dataclass(frozen=True, slots=True)
class SetDeal:
    """A unit of each part together get `kind`: a fixed price for the set, a percent or an amount off it.

    The dearest fitting units are taken first. `falls_on_part` None spreads the discount over the whole set, a number
    puts it on the units of that part (counted from 0).
    """

    parts: tuple[SetPart, ...]
    kind: PercentOff | AmountOff | FixedPrice
    falls_on_part: int | None = None
    most_deals: int | None = None


@dataclass(frozen=True, slots=True)
class Gift:
    """Up to `quantity` units of the goods at `unit_price_minor` (0: free), the cheapest first, once or for each deal.

    The promotion's condition is what must be bought; with `per_units` that many units in scope entitle to one gift
    quantity each. The gift's own units do not count for it.
    """

    goods: Selector
    quantity: int = 1
    unit_price_minor: int = 0
    per_units: int | None = None
    falls_on: FallsOn = FallsOn.UNITS


@dataclass(frozen=True, slots=True)
class Step:
    """From a threshold on: so much. The threshold is money, units or thousandths, as the steps measure."""

    at_least: int
    kind: PercentOff | AmountOff


@dataclass(frozen=True, slots=True)
class Steps:
    """A discount that grows with what the goods in scope come to (`what` as in BasketCount: amount, quantity, weight).

    Not `marginal`: the highest step reached counts for everything in scope. Marginal: each step's percent counts for
    the part of the amount between its threshold and the next, and the amounts of all steps reached add up.
    """

    what: str
    steps: tuple[Step, ...]
    marginal: bool = False


Deal = UnitDeal | SetDeal | Gift | Steps
"""What looks at several lines at once; evaluated among line discounts by rank. Steps: among basket discounts."""


@dataclass(frozen=True, slots=True)
class PointsPercent:
    """Points for a share of the money paid for a line, in addition to the base percent."""

    share: Fraction


@dataclass(frozen=True, slots=True)
class PointsMultiplier:
    """The base percent times `factor`, of which `factor` - 1 is this promotion's own accrual.

    `compound`: multiply what the multipliers before it (by priority, then id) have made of the base rate.
    """

    factor: Fraction
    compound: bool = False


@dataclass(frozen=True, slots=True)
class PointsFixed:
    """A fixed number of points for each unit, for each line, or once a receipt."""

    points_minor: int
    per: str
    """`unit`, `line` or `receipt`."""


@dataclass(frozen=True, slots=True)
class PointsPerAmount:
    """So many points for every full `step_minor` of money paid, a line (`per` is `line`) or in scope (`receipt`)."""

    points_minor: int
    step_minor: int
    per: str


@dataclass(frozen=True, slots=True)
class PointsStep:
    """From a threshold of money paid in scope on: so many points, or a percent of value of what was paid."""

    at_least_minor: int
    points_minor: int = 0
    share: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class PointsSteps:
    """Points once a receipt, by what was paid for the goods in scope; `marginal` as in Steps."""

    steps: tuple[PointsStep, ...]
    marginal: bool = False


PointsKind = PointsPercent | PointsMultiplier | PointsFixed | PointsPerAmount | PointsSteps


@dataclass(frozen=True, slots=True)
class Expiry:
    """When granted points expire: at the end of a fixed day, or after a duration, perhaps rounded up."""

    on: date | None = None
    after_months: int = 0
    after_days: int = 0
    round_up_to: Period | None = None


@dataclass(frozen=True, slots=True)
class LotTerms:
    """How long points are pending, and when they expire (None: never)."""

    pending_days: int = 0
    expiry: Expiry | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Points granted by a promotion; `terms` None means the programme's own, `unit` None its own point.

    `partner` is at whose expense they are granted; None for the programme (or the partner in whose store it is).
    """

    kind: PointsKind
    terms: LotTerms | None = None
    unit: str | None = None
    partner: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much: uses, minor units of money or of points, for whom, in which calendar period (None: ever)."""

    measure: Measure
    scope: LimitScope
    at_most: int
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class MessageText:
    """A text with placeholders such as `{points}`, in languages by their tag; `""` is the default language."""

    audience: Audience
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Texts for a promotion that fails by little: by money (`within_minor`) or by units (`within_quantity`)."""

    messages: tuple[MessageText, ...]
    within_minor: int | None = None
    within_quantity: int | None = None


@dataclass(frozen=True, slots=True)
class Promotion(FurtherEffects):
    """Scope + validity + condition + effects + control. Scope None: all goods. Dates are inclusive.

    Promotions of one step apply by `priority` (smaller first), then by id. Of a `group` the best for the
    shopper applies alone; an `exclusive` one shares a line (or receipt) with no other of its step. Its limits are
    its own and those of its `campaign`. `tier_points` count towards levels only. `floor_rest` is what becomes of the
    part of a discount over several lines that a price floor cuts off; None: lost of a percent, of an amount as the
    programme says.
    """

    id: str
    name: str
    scope: Selector | None = None
    valid_from: date | None = None
    valid_until: date | None = None
    when: Condition | None = None
    line_discount: LineDiscount | None = None
    basket_discount: BasketDiscount | None = None
    points: Points | None = None
    priority: int = 100
    group: str | None = None
    exclusive: bool = False
    messages: tuple[MessageText, ...] = ()
    deal: Deal | None = None
    tier_points: PointsKind | None = None
    near_miss: NearMiss | None = None
    limits: tuple[Limit, ...] = ()
    campaign: str | None = None
    control_share: Fraction = Fraction(0)
    floor_rest: FloorRest | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """Promotions that share limits, and perhaps a control group."""

    id: str
    name: str
    limits: tuple[Limit, ...] = ()
    control_share: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class PointUnit:
    """The programme's point: its name, its decimals, and what it pays as an exact fraction.

    `money_per_points` is minor units of money for one minor unit of points.
    """

    unit: str
    precision: int
    money_per_points: Fraction


@dataclass(frozen=True, slots=True)
class FurtherUnit:
    """A point of another kind with a balance of its own, such as gift or deposit points.

    `sold` lets registers sell it (deposits); `terms` are those of points that are sold.
    """

    point: PointUnit
    name: str
    sold: bool = False
    terms: LotTerms = field(default_factory=LotTerms)


@dataclass(frozen=True, slots=True)
class Partner:
    """A coalition partner: in its stores it grants at its own rate and expense (`base_share`; None: no base points).

    `accepts_points` says whether points pay there; what they pay is settled with the partner.
    """

    code: str
    name: str
    base_share: Fraction | None = None
    accepts_points: bool = True


@dataclass(frozen=True, slots=True)
class Tier:
    """A level: reached with `threshold` of the measure within the window. `threshold` 0: everybody has it."""

    code: str
    name: str
    threshold: int


@dataclass(frozen=True, slots=True)
class Tiers:
    """Levels, lowest first, reached by `measure` within a window.

    The window is a calendar `period`, or the current and the `months` - 1 calendar months before. Who reaches a level
    has it at once, for the next receipt. It is certain until the end of `kept_until_end_of` (None: of the window's own
    period, or the month for rolling windows) `kept_periods` periods later; then the window as it is on that last day
    decides anew.
    """

    measure: TierMeasure
    levels: tuple[Tier, ...]
    period: Period | None = None
    months: int = 12
    kept_until_end_of: Period | None = None
    kept_periods: int = 0


@dataclass(frozen=True, slots=True)
class Earning:
    """How the programme grants points by itself. `base_share` is 1/100 for 1 %."""

    base_share: Fraction
    base_group: str | None = None
    rounding: Rounding = Rounding.HALF_UP
    rounding_per: RoundingPer = RoundingPer.LINE
    earn_on_points_paid: bool = False
    terms: LotTerms = field(default_factory=LotTerms)


@dataclass(frozen=True, slots=True)
class Spending:
    """How points pay: a step of `step_points_minor` pays `step_money_minor`, both exact."""

    max_share: Fraction
    step_points_minor: int
    step_money_minor: int
    keep_one_minor_unit: bool = True
    respect_price_floor: bool = True
    hold_ttl_seconds: int = 600


@dataclass(frozen=True, slots=True)
class Returns:
    """What becomes of points when goods come back.

    `expired_grace_days` is for how long points given back are good that have lapsed since they were spent;
    0 means that they stay lapsed.
    """

    clawback: Clawback = Clawback.DEBT
    expired_grace_days: int = 0


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Goods that earn nothing, get no discount, cannot be paid with points: three separate sets."""

    no_earning: Selector | None = None
    no_discount: Selector | None = None
    no_points_payment: Selector | None = None


@dataclass(frozen=True, slots=True)
class Offline:
    """What to do with a receipt taken offline, a case each."""

    unknown_identifier: OfflineAction = OfflineAction.BOOK_WITHOUT_MEMBER
    blocked_member: OfflineAction = OfflineAction.BOOK_WITHOUT_MEMBER
    replaced_card: OfflineAction = OfflineAction.BOOK_FOR_SUCCESSOR
    merged_member: OfflineAction = OfflineAction.BOOK_FOR_SUCCESSOR
    erased_member: OfflineAction = OfflineAction.BOOK_WITHOUT_MEMBER


@dataclass(frozen=True, slots=True)
class Programme:
    """One version of a loyalty programme: its settings and its promotions."""

    code: str
    name: str
    effective_from: date
    currency: str
    currency_digits: int
    point: PointUnit
    earning: Earning
    spending: Spending
    returns: Returns = field(default_factory=Returns)
    exclusions: Exclusions = field(default_factory=Exclusions)
    offline: Offline = field(default_factory=Offline)
    promotions: tuple[Promotion, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    units: tuple[FurtherUnit, ...] = ()
    partners: tuple[Partner, ...] = ()
    tiers: Tiers | None = None
    control_share: Fraction = Fraction(0)
    """The share of members who get no promotion at all (the base percent they get)."""
    language: str = ""
    """The language of texts that name none."""
    cash_rounding_minor: int = 0
    """The step to which registers round what is paid in cash: less than that may be missing; 0: they do not round."""
    floor_rest: FloorRest = FloorRest.SPREAD
    """What becomes of what price floors cut off amounts over several lines, where the promotion does not say."""
