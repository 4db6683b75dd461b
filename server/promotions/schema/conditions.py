"""The conditions of a promotion: the section `when`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.promotions.kinds import Period, TenderKind, TerminalKind
from server.promotions.schema.goods import (
    AmountSection,
    CountSection,
    DatesSection,
    DaysSection,
    ScopeSection,
    Section,
    WeightSection,
)
from server.promotions.schema.values import (
    CardPrefixes,
    Code,
    Codes,
    Count,
    CouponCodes,
    Labels,
    Minute,
    Names,
    Positive,
    Yes,
    wholes,
)

MAX_PARTS = 50
"""Conditions in one `all` or `any`."""

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
HalfYear = Annotated[int, wholes(at_most=180)]


class BirthdaySection(Section):
    """Days around the member's birthday; 29 February is kept on 28 in common years."""

    days_before: HalfYear = 0
    """The window begins so many days before the birthday."""
    days_after: HalfYear = 0
    """The window ends so many days after the birthday."""


class BasketSection(Section):
    """What certain goods in the basket come to; `of` names them (the promotion's scope if left out)."""

    quantity: CountSection | None = None
    """Pieces; a weighed line counts as one."""
    weight: WeightSection | None = None
    """The weight of weighed lines."""
    amount: AmountSection | None = None
    """What they cost when the step begins."""
    categories: CountSection | None = None
    """Different categories."""
    category_levels: Annotated[int, wholes(at_least=1, at_most=20)] | None = None
    """Compare categories by so many levels of their path only: 1 tells dairy from bakery."""
    of: ScopeSection | None = None
    """The goods that count."""


class TimeSection(Section):
    """Days of the week, times of day and dates in the store's time zone; all that are given have to fit."""

    weekdays: Annotated[list[Weekday], Field(min_length=1, max_length=7)] | None = None
    """Days of the week; all if left out."""
    start: Minute | None = Field(default=None, alias="from")
    """From this time of day on."""
    end: Minute | None = Field(default=None, alias="until")
    """Until just before this time of day; earlier than `from` means over midnight."""
    dates: DatesSection | None = None
    """First and last day, both included."""


class VisitSection(Section):
    """The number of this receipt among the member's of a period, this one counted."""

    number: Count | None = None
    """Exactly the nth."""
    every: Annotated[int, wholes(at_least=2)] | None = None
    """Each nth: 5 means the 5th, 10th, 15th."""
    at_least: Count | None = None
    """The nth and later ones."""
    below: Annotated[int, wholes(at_least=2)] | None = None
    """Those before the nth."""
    each: Period | None = None
    """Count anew in each such calendar period; ever, if left out."""


class SpentSection(Section):
    """What the member paid before this receipt."""

    at_least: Positive | None = None
    """This much or more."""
    below: Positive | None = None
    """Less than this."""
    each: Period | None = None
    """In the current calendar period; ever, if left out."""


class PaidBySection(Section):
    """How the receipt is paid."""

    tenders: Annotated[list[TenderKind], Field(min_length=1, max_length=10)] | None = None
    """Any of these kinds together; card if only `bins` are given."""
    bins: CardPrefixes | None = None
    """Cards count only if their number begins with one of these digits."""
    at_least: Positive | None = None
    """They pay this much or more; anything above zero if left out."""


class CouponSection(Section):
    """A coupon is presented that can be used: of one of the series, or one of the generic codes."""

    series: Names | None = None
    """Series of coupons that were loaded or issued."""
    codes: CouponCodes | None = None
    """Generic codes that anybody may present, in any letter case."""


class WhenSection(Section):
    """Conditions; all that are given have to hold. `all`, `any` and `not` nest."""

    receipt_total: AmountSection | None = None
    """What the whole receipt comes to when the step begins."""
    scope_total: AmountSection | None = None
    """What the goods in scope come to when the step begins, without excluded ones."""
    basket: BasketSection | None = None
    """What certain goods in the basket come to."""
    stores: Labels | None = None
    """In one of these stores."""
    store_groups: Labels | None = None
    """In a store of one of these groups."""
    channels: Labels | None = None
    """On one of these sales channels, by the register's own names."""
    terminals: Annotated[list[TerminalKind], Field(min_length=1, max_length=3)] | None = None
    """At one of these kinds of terminals."""
    time: TimeSection | None = None
    """At these times."""
    birthday: BirthdaySection | None = None
    """Near the member's birthday."""
    tiers: Codes | None = None
    """Members of one of these levels; `none` stands for members without a level."""
    segments: Labels | None = None
    """Members of at least one of these segments."""
    club: Code | None = None
    """Members whose paid membership of this club lasts."""
    member_days: DaysSection | None = None
    """Days since registration; the day itself is 0."""
    first_purchase: Yes | None = None
    """The member's first receipt."""
    visit: VisitSection | None = None
    """The number of the member's receipt."""
    spent: SpentSection | None = None
    """What the member paid before."""
    paid_by: PaidBySection | None = None
    """How the receipt is paid; a quote that does not say fails it."""
    coupon: CouponSection | None = None
    """A coupon is presented; it makes the promotion a right."""
    offer: Yes | None = None
    """The promotion was assigned to the member; it makes the promotion a right."""
    every: Annotated[list[WhenSection], Field(min_length=1, max_length=MAX_PARTS)] | None = Field(
        default=None, alias="all"
    )
    """All of these hold."""
    some: Annotated[list[WhenSection], Field(min_length=1, max_length=MAX_PARTS)] | None = Field(
        default=None, alias="any"
    )
    """One of these holds."""
    no: WhenSection | None = Field(default=None, alias="not")
    """This does not hold."""


WhenSection.model_rebuild()
