"""Which goods a promotion means, and under which conditions it applies: plain data, as the author wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from server.promotions.kinds import Period, TenderKind, TerminalKind


@dataclass(frozen=True, slots=True)
class Selector:
    """Goods by SKU, category tree, brand, supplier and tag.

    Within one list any entry will do. Between the lists, `match_all` says whether a line has to be found in
    every list that is given, or in one of them. `but_not` takes lines out again.
    """

    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    brands: frozenset[str] = frozenset()
    suppliers: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    match_all: bool = False
    but_not: Selector | None = None


@dataclass(frozen=True, slots=True)
class ReceiptTotal:
    """Holds if the whole receipt comes to at least / to less than an amount when the step begins."""

    at_least_minor: int | None = None
    below_minor: int | None = None


@dataclass(frozen=True, slots=True)
class ScopeTotal:
    """The same for the lines that the promotion may work on: in its scope and not excluded."""

    at_least_minor: int | None = None
    below_minor: int | None = None


@dataclass(frozen=True, slots=True)
class BirthdayWindow:
    """Holds from `days_before` the member's birthday to `days_after` it; never without a known birthday."""

    days_before: int = 0
    days_after: int = 0


@dataclass(frozen=True, slots=True)
class BasketCount:
    """Holds if the goods named (None: the promotion's scope) come to so much when the step begins.

    `what` is `quantity` (units, in whole numbers; a weighed line is one), `weight` (of weighed lines, in
    thousandths), `amount` (minor units of money) or `categories` (different categories, to `category_levels` of
    their path, or as they are for 0).
    """

    what: str
    goods: Selector | None = None
    at_least: int | None = None
    below: int | None = None
    category_levels: int = 0


@dataclass(frozen=True, slots=True)
class InStores:
    """Holds in these stores, and in all stores of these groups."""

    stores: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OnChannels:
    """Holds on these sales channels, by the register's own names."""

    channels: frozenset[str]


@dataclass(frozen=True, slots=True)
class AtTerminals:
    """Holds at terminals of these kinds."""

    kinds: frozenset[TerminalKind]


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Holds on these days of the week (0 is Monday), at these times of day, within these dates; store-local.

    `from_minute` (included) and `until_minute` (excluded) count from midnight; a window over midnight has the smaller
    one second and belongs to the day on which it begins. Empty `weekdays` are all.
    """

    weekdays: frozenset[int] = frozenset()
    from_minute: int = 0
    until_minute: int = 1440
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True, slots=True)
class InTiers:
    """Holds for members of these levels; `""` stands for members without one."""

    tiers: frozenset[str]


@dataclass(frozen=True, slots=True)
class InSegments:
    """Holds for members of at least one of these segments."""

    segments: frozenset[str]


@dataclass(frozen=True, slots=True)
class InClub:
    """Holds while the member's paid membership lasts."""

    club: str


@dataclass(frozen=True, slots=True)
class MemberAge:
    """Holds if somebody has been a member for so many days; the day of registration is day 0."""

    at_least_days: int | None = None
    below_days: int | None = None


@dataclass(frozen=True, slots=True)
class VisitNumber:
    """Holds if this receipt is the member's nth of the period (None: ever), this one counted.

    With `every`, each nth: `every` 5 holds for the 5th, 10th, 15th. A first purchase is `at_least` 1, `below` 2 ever.
    """

    period: Period | None = None
    at_least: int | None = None
    below: int | None = None
    every: int | None = None


@dataclass(frozen=True, slots=True)
class SpendSoFar:
    """Holds if the member paid so much in the period (None: ever) before this receipt."""

    period: Period | None = None
    at_least_minor: int | None = None
    below_minor: int | None = None


@dataclass(frozen=True, slots=True)
class PaidBy:
    """Holds if tenders of these kinds (cards: whose BIN begins with one of the prefixes) pay at least so much.

    `at_least_minor` None asks for any amount above zero. A quote that does not say how it will be paid fails it.
    """

    kinds: frozenset[TenderKind]
    bin_prefixes: tuple[str, ...] = ()
    at_least_minor: int | None = None


@dataclass(frozen=True, slots=True)
class CouponShown:
    """Holds if a usable coupon of one of these series, or one of these generic codes, was presented.

    A promotion with it among its conditions is a right: it is evaluated after all promotions for everybody.
    """

    series: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OfferMade:
    """Holds if the promotion was assigned to the member (a personal offer); it is a right as well."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds if every part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds if one of the parts holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class NotThat:
    """Holds if the part does not."""

    part: Condition


Condition = (
    ReceiptTotal
    | ScopeTotal
    | BirthdayWindow
    | BasketCount
    | InStores
    | OnChannels
    | AtTerminals
    | TimeWindow
    | InTiers
    | InSegments
    | InClub
    | MemberAge
    | VisitNumber
    | SpendSoFar
    | PaidBy
    | CouponShown
    | OfferMade
    | AllOf
    | AnyOf
    | NotThat
)
