"""The vocabulary of promotions: a programme as its author means it, and the plain data of one evaluation.

Money is in minor units of the programme's currency (`*_minor`), points in minor units of the point
(`points_minor`: with a point precision of 2, 100 is one point), quantities in thousandths
(`quantity_milli`). Percents and multipliers are exact fractions. Dates are the store's own.

The programme is made of frozen dataclasses. The data of an evaluation are named tuples: they are built by
the dozen for every receipt, and a named tuple is built in a third of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Calendar periods that an expiry date may be rounded up to the end of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    HALF_YEAR = "half_year"
    YEAR = "year"


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
    """Goods by SKU, category tree, brand and tag.

    Within one list any entry will do. Between the lists, `match_all` says whether a line has to be found in
    every list that is given, or in one of them. `but_not` takes lines out again.
    """

    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    brands: frozenset[str] = frozenset()
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


Condition = ReceiptTotal | ScopeTotal | BirthdayWindow | AllOf | AnyOf | NotThat


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


LineDiscountKind = PercentOff | AmountOff | FixedPrice
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


PointsKind = PointsPercent | PointsMultiplier | PointsFixed


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
    """Points granted by a promotion; `terms` None means the programme's own."""

    kind: PointsKind
    terms: LotTerms | None = None


class Message(NamedTuple):
    """A text for one audience, from a promotion that had an effect."""

    audience: Audience
    promotion_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """Scope + validity + condition + effects + control. Scope None: all goods. Dates are inclusive.

    Promotions of one step apply by `priority` (smaller first), then by id. Of a `group` the best for the
    shopper applies alone; an `exclusive` one shares a line (or receipt) with no other of its step.
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
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class PointUnit:
    """The programme's point: its name, its decimals, and what it pays as an exact fraction.

    `money_per_points` is minor units of money for one minor unit of points.
    """

    unit: str
    precision: int
    money_per_points: Fraction


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
    tags: tuple[str, ...]
    quantity_milli: int
    list_amount_minor: int
    floor_amount_minor: int = 0
    is_weighed: bool = False


class ReceiptFacts(NamedTuple):
    """A receipt at its store; `local_at` is aware and in the store's time zone. Lines in any order."""

    store_id: str
    local_at: datetime
    lines: Sequence[ReceiptLine]


class MemberFacts(NamedTuple):
    """What promotions may know of a member."""

    member_id: str
    birthday: date | None = None
    can_earn: bool = True
    can_spend: bool = True


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
    """Points that one promotion grants for one line, and the money they were computed from."""

    promotion_id: str
    base_minor: int
    points_minor: int


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


class Effects(NamedTuple):
    """What the rules make of a receipt; lines in the order of their numbers.

    `max_spend_*` is the programme's limit for this receipt; the member's balance is not known here and may
    be lower. `settings` are the named settings that shaped the result.
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


class LotDates(NamedTuple):
    """When a lot becomes available (None: at once), and its last good day (None: it never expires)."""

    active_from: date | None
    expires_on: date | None


class LotGrant(NamedTuple):
    """Points of one receipt that share their dates: one lot for the ledger."""

    points_minor: int
    active_from: date | None
    expires_on: date | None
    promotion_ids: tuple[str, ...]


class ReceiptError(ValueError):
    """A receipt that can't be evaluated: `field` and `line_number` say where, the text says why."""

    def __init__(self, message: str, field: str, line_number: int | None = None) -> None:
        """Name the offending field and, if there is one, the line."""
        super().__init__(message)
        self.field = field
        self.line_number = line_number
