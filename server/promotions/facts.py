"""The plain data of one evaluation: the receipt and what is known of its shopper, and what the rules make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple, TypeVar

from server.promotions.counts import Count
from server.promotions.effects.coupon import IssuedCoupon
from server.promotions.effects.draw import Drawn
from server.promotions.effects.effect import FurtherEffect, Gave
from server.promotions.kinds import Audience, Measure, TenderKind, TerminalKind

_G = TypeVar("_G")


class Message(NamedTuple):
    """A text for one audience, from a promotion that had an effect or nearly had one."""

    audience: Audience
    promotion_id: str
    text: str


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


class CounterFact(NamedTuple):
    """What was counted for a member under one key: how often, money and points in minor units, until when it counts."""

    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class Usage(NamedTuple):
    """What was used before this receipt.

    `member` has the member's counters by key (see usage.py); a key that is missing counts zero. `shared` has what is
    left of shared limits by key; of a key that is missing everything is left, or nothing with `only_shared_known`.
    """

    member: Mapping[str, CounterFact] = {}
    shared: Mapping[str, int] = {}
    only_shared_known: bool = False


class PaidLine(NamedTuple):
    """What the register really charged: the line's whole discount, and the part paid with points."""

    line_number: int
    discount_minor: int
    points_money_minor: int = 0


ChargedLine = tuple[int, int, int]
"""A PaidLine, with or without names."""


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


DiscountRow = tuple[str, int]
"""A `Discount` without names, as one evaluation makes twenty of them: promotion id and amount_minor."""

AccrualRow = tuple[str, int, int, str, str]
"""An `Accrual` without names: promotion id, base_minor, points_minor, unit and partner."""


class _LineRow(NamedTuple):
    """The fields of LineEffects; discounts and accruals are rows, which take a tenth of the time to build."""

    line_number: int
    discounts: tuple[DiscountRow, ...]
    floor_cut_minor: int
    payable_minor: int
    spendable_minor: int
    points_money_minor: int
    accruals: tuple[AccrualRow, ...]


class LineEffects(_LineRow):
    """What happens to one line.

    `payable_minor` is the price after discounts, before points pay. `spendable_minor` is the most of it that
    points could pay, `points_money_minor` what they do pay. `floor_cut_minor` is the discount that the lowest
    permitted price cut off. Who unpacks it gets discounts and accruals as plain rows; as attributes they have names.
    """

    __slots__ = ()

    @property
    def discounts(self) -> tuple[Discount, ...]:
        """What promotions took off, in the order in which they did."""
        return tuple([Discount._make(row) for row in self[1]])

    @property
    def accruals(self) -> tuple[Accrual, ...]:
        """The points that promotions grant."""
        return tuple([Accrual._make(row) for row in self[6]])


class Variance(NamedTuple):
    """A line on which the register charged another discount than the rules give."""

    line_number: int
    expected_discount_minor: int
    charged_discount_minor: int


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


class GivenLine(NamedTuple):
    """What of a promotion's uses and gifts belongs to one line; points and money as limits count them.

    `base_minor` is what was paid for the line, if the promotion gave something for the goods together.
    """

    line_number: int
    units: int = 0
    money_minor: int = 0
    points: int = 0
    tier_points: int = 0
    base_minor: int = 0


class LeastGoods(NamedTuple):
    """A condition that goods come to `at_least` so much, and what the lines come to: (line number, amount)."""

    at_least: int
    lines: tuple[tuple[int, int], ...]


class Given(NamedTuple):
    """What a promotion used or gave beside discounts and points on goods, and which goods that rests on.

    It is what a return needs to take it back without running rules again. `owners` are those for whose limits the uses
    count, `once` are uses that belong to no line. `effects` are the further effects of a promotion that gave something.
    """

    promotion_id: str
    owners: tuple[str, ...]
    lines: tuple[GivenLine, ...]
    once: int = 0
    least: tuple[LeastGoods, ...] = ()
    effects: tuple[FurtherEffect, ...] = ()


class Effects(NamedTuple):
    """What the rules make of a receipt; lines in the order of their numbers.

    `max_spend_*` is the programme's limit for this receipt; the member's balance is not known here and may
    be lower. `settings` are the named settings that shaped the result. `accrual_points_minor` counts the programme's
    own points only. `counts` are what the receipt adds to the member's counters, `shared` what it uses of limits that
    members share; `consulted` names the counters and shared limits that were looked at: with other values of
    theirs the result may differ, with equal ones it cannot. `gave` is what further effects gave,
    `given` says which goods uses and gifts rest on.
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
    gave: tuple[Gave, ...] = ()
    tier_points_minor: int = 0
    consulted: frozenset[str] = frozenset()
    given: tuple[Given, ...] = ()

    @property
    def issued(self) -> tuple[IssuedCoupon, ...]:
        """The coupons for later."""
        return self.of(IssuedCoupon)

    @property
    def draws(self) -> tuple[Drawn, ...]:
        """The entries into prize draws."""
        return self.of(Drawn)

    def of(self, kind: type[_G]) -> tuple[_G, ...]:
        """What further effects gave, of one kind."""
        return tuple(one for one in self.gave if isinstance(one, kind))


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
