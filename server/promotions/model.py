"""The vocabulary of promotions: a programme as its author means it, and the plain data of one evaluation.

Money is in minor units of the programme's currency (`*_minor`), points in minor units of the point
(`points_minor`: with a point precision of 2, 100 is one point), quantities in thousandths
(`quantity_milli`). Percents and multipliers are exact fractions. Dates are the store's own.

The programme is made of frozen dataclasses. The data of an evaluation are named tuples: they are built by
the dozen for every receipt, and a named tuple is built in a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

BASE_ID = "base"
"""Promotion id of the programme's own base percent in accruals."""

AS_CHARGED_ID = "as_charged"
"""Promotion id of a discount that the register charged and the rules do not give."""


class Base(Enum):
    """The price that a discount is computed from."""

    LIST = "list"
    REMAINING = "remaining"


class Period(Enum):
    """Calendar periods: of limits, of counted visits, and that an expiry date may be rounded up to the end of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    HALF_YEAR = "half_year"
    YEAR = "year"


class TerminalKind(Enum):
    """Who stands at a terminal."""

    LANE = "lane"
    SELF_CHECKOUT = "self_checkout"
    ONLINE = "online"


class TenderKind(Enum):
    """A way of paying."""

    CASH = "cash"
    CARD = "card"
    OTHER = "other"
    POINTS = "points"


class Measure(Enum):
    """What a limit counts: how often (units, deals or receipts), money taken off, or points granted."""

    COUNT = "count"
    MONEY = "money"
    POINTS = "points"


class LimitScope(Enum):
    """Whose uses a limit adds up."""

    RECEIPT = "receipt"
    MEMBER = "member"
    STORE = "store"
    ALL = "all"


class TierMeasure(Enum):
    """By what a level is reached within its window."""

    SPEND = "spend"
    VISITS = "visits"
    POINTS = "points"


class Rounding(Enum):
    """How one accrual is rounded to the point precision."""

    HALF_UP = "half_up"
    DOWN = "down"
    UP = "up"


class Audience(Enum):
    """Where a message is shown or said."""

    CASHIER = "cashier"
    SHOPPER = "shopper"
    RECEIPT = "receipt"
    VOICE = "voice"


class OfflineAction(Enum):
    """What becomes of a receipt taken offline whose identifier is no longer what it was."""

    BOOK_WITHOUT_MEMBER = "book_without_member"
    BOOK_FOR_MEMBER = "book_for_member"
    BOOK_FOR_SUCCESSOR = "book_for_successor"
    REFUSE = "refuse"


class Clawback(Enum):
    """From where points earned on goods that come back are taken."""

    DEBT = "debt"
    WITHIN_BALANCE = "within_balance"
    OWN_LOT_ONLY = "own_lot_only"


# --- the programme ----------------------------------------------------------------------------------------


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
class CouponIssue:
    """Coupons for a later receipt: `quantity` of a series, for the member alone."""

    series: str
    quantity: int = 1
    starts_after_days: int = 0
    valid_days: int | None = None


@dataclass(frozen=True, slots=True)
class DrawEntry:
    """Entries into a prize draw: `entries` once a receipt, or for every full `step_minor` paid in scope."""

    draw: str
    entries: int = 1
    step_minor: int | None = None


@dataclass(frozen=True, slots=True)
class ClubJoin:
    """Paid membership: whoever buys goods in scope is in the club for `days`, today counted, or longer by them."""

    club: str
    days: int


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so much: uses, minor units of money or of points, for whom, in which calendar period (None: ever)."""

    measure: Measure
    scope: LimitScope
    at_most: int
    period: Period | None = None


class Message(NamedTuple):
    """A text for one audience, from a promotion that had an effect or nearly had one."""

    audience: Audience
    promotion_id: str
    text: str


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
class Promotion:
    """Scope + validity + condition + effects + control. Scope None: all goods. Dates are inclusive.

    Promotions of one step apply by `priority` (smaller first), then by id. Of a `group` the best for the
    shopper applies alone; an `exclusive` one shares a line (or receipt) with no other of its step. Its limits are
    its own and those of its `campaign`. `tier_points` count towards levels only.
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
    coupon: CouponIssue | None = None
    draw: DrawEntry | None = None
    club: ClubJoin | None = None
    near_miss: NearMiss | None = None
    limits: tuple[Limit, ...] = ()
    campaign: str | None = None
    control_share: Fraction = Fraction(0)


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


# --- the data of one evaluation ---------------------------------------------------------------------------


class ReceiptLine(NamedTuple):
    """One line of a receipt.

    `category` is a path such as "grocery/frozen/ice". `list_amount_minor` is the list price of the whole
    line, `floor_amount_minor` the lowest permitted price of the whole line.
    """

    line_number: int
    sku: str
    category: str
    brand: str
    supplier: str
    tags: tuple[str, ...]
    quantity_milli: int
    list_amount_minor: int
    floor_amount_minor: int = 0
    is_weighed: bool = False


class TenderFact(NamedTuple):
    """One payment; `card_bin` is the first digits of a bank card, if they are known."""

    kind: TenderKind
    amount_minor: int
    card_bin: str = ""


class CouponFact(NamedTuple):
    """A coupon that was presented and can be used: `series` is empty for a generic one."""

    code: str
    series: str = ""


class ReceiptFacts(NamedTuple):
    """A receipt at its store; `local_at` is aware and in the store's time zone. Lines in any order.

    `partner` is the coalition partner whose store it is; empty for the chain's own.
    """

    store_id: str
    local_at: datetime
    lines: Sequence[ReceiptLine]
    store_groups: frozenset[str] = frozenset()
    channel: str = ""
    terminal_kind: TerminalKind | None = None
    tenders: Sequence[TenderFact] = ()
    coupons: Sequence[CouponFact] = ()
    partner: str = ""


class MemberFacts(NamedTuple):
    """What promotions may know of a member.

    `offers` are the promotions assigned to the member that count on the receipt's day. When a past receipt is
    explained, `birthday_windows` (days before and after) stand in the place of the birthday, `tier` in the place of
    the one that the counters give, and `age_days` in the place of `registered_on`.
    """

    member_id: str
    birthday: date | None = None
    can_earn: bool = True
    can_spend: bool = True
    registered_on: date | None = None
    segments: frozenset[str] = frozenset()
    offers: frozenset[str] = frozenset()
    language: str = ""
    birthday_windows: frozenset[tuple[int, int]] | None = None
    tier: str | None = None
    age_days: int | None = None


class Counter(NamedTuple):
    """What was counted for a member under one key: how often, money and points in minor units, until when it counts."""

    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class Usage(NamedTuple):
    """What was used before this receipt.

    `member` has the member's counters by key (see usage.py); a key that is missing counts zero. `shared` has what is
    left of shared limits by key; a key that is missing is not known, and counts as untouched.
    """

    member: Mapping[str, Counter] = {}
    shared: Mapping[str, int] = {}


class PaidLine(NamedTuple):
    """What the register really charged: the line's whole discount, and the part paid with points."""

    line_number: int
    discount_minor: int
    points_money_minor: int = 0


class Discount(NamedTuple):
    """Money that one promotion took off one line."""

    promotion_id: str
    amount_minor: int


class Accrual(NamedTuple):
    """Points that one promotion grants for one line, and the money they were computed from.

    `unit` is empty for the programme's own point, `partner` for points at its own expense.
    """

    promotion_id: str
    base_minor: int
    points_minor: int
    unit: str = ""
    partner: str = ""


class LineEffects(NamedTuple):
    """What happens to one line.

    `payable_minor` is the price after discounts, before points pay. `spendable_minor` is the most of it that
    points could pay, `points_money_minor` what they do pay. `floor_cut_minor` is the discount that the lowest
    permitted price cut off.
    """

    line_number: int
    discounts: tuple[Discount, ...]
    floor_cut_minor: int
    payable_minor: int
    spendable_minor: int
    points_money_minor: int
    accruals: tuple[Accrual, ...]


class Variance(NamedTuple):
    """A line on which the register charged another discount than the rules give."""

    line_number: int
    expected_discount_minor: int
    charged_discount_minor: int


class Count(NamedTuple):
    """What a receipt adds to one of the member's counters; `until` sets the day until which it is worth keeping."""

    key: str
    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class SharedUse(NamedTuple):
    """What a receipt uses of a limit that members share: `at_most` is the whole of it."""

    key: str
    amount: int
    at_most: int


class Capped(NamedTuple):
    """A limit cut what a promotion gives; `limit` says it in words."""

    promotion_id: str
    measure: Measure
    wanted: int
    granted: int
    limit: str


class Withheld(NamedTuple):
    """A promotion whose conditions held and that was not applied: `reason` is `control`."""

    promotion_id: str
    reason: str


class CouponUse(NamedTuple):
    """A coupon because of which promotions applied."""

    code: str
    promotion_ids: tuple[str, ...]


class IssuedCoupon(NamedTuple):
    """Coupons that a promotion gives for later."""

    promotion_id: str
    series: str
    quantity: int
    valid_from: date
    valid_until: date | None


class Drawn(NamedTuple):
    """Entries into a prize draw."""

    promotion_id: str
    draw: str
    entries: int


class Effects(NamedTuple):
    """What the rules make of a receipt; lines in the order of their numbers.

    `max_spend_*` is the programme's limit for this receipt; the member's balance is not known here and may
    be lower. `settings` are the named settings that shaped the result. `accrual_points_minor` counts the programme's
    own points only. `counts` are what the receipt adds to the member's counters, `shared` what it uses of limits that
    members share; `consulted` names the counters and shared limits that were looked at: with other values of
    theirs the result may differ, with equal ones it cannot.
    """

    programme_version: int
    lines: tuple[LineEffects, ...]
    discount_minor: int
    payable_minor: int
    max_spend_points_minor: int
    max_spend_money_minor: int
    spent_points_minor: int
    spent_money_minor: int
    accrual_points_minor: int
    messages: tuple[Message, ...]
    settings: tuple[tuple[str, str], ...]
    variances: tuple[Variance, ...] = ()
    counts: tuple[Count, ...] = ()
    shared: tuple[SharedUse, ...] = ()
    capped: tuple[Capped, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    coupons: tuple[CouponUse, ...] = ()
    issued: tuple[IssuedCoupon, ...] = ()
    draws: tuple[Drawn, ...] = ()
    tier_points_minor: int = 0
    consulted: frozenset[str] = frozenset()


class LotDates(NamedTuple):
    """When a lot becomes available (None: at once), and its last good day (None: it never expires)."""

    active_from: date | None
    expires_on: date | None


class LotGrant(NamedTuple):
    """Points of one receipt that share their dates, unit and partner: one lot for the ledger."""

    points_minor: int
    active_from: date | None
    expires_on: date | None
    promotion_ids: tuple[str, ...]
    unit: str = ""
    partner: str = ""


class ReceiptError(ValueError):
    """A receipt that can't be evaluated: `field` and `line_number` say where, the text says why."""

    def __init__(self, message: str, field: str, line_number: int | None = None) -> None:
        """Name the offending field and, if there is one, the line."""
        super().__init__(message)
        self.field = field
        self.line_number = line_number
