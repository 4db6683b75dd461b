"""The ledger's plain data: what a batch reads, what it is asked, what it decides, what it writes.

Points are integers in the unit's smallest fraction (``points_minor``, ``*_minor``); times are aware datetimes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

AVAILABLE = int(journal_pb2.ACCOUNT_AVAILABLE)
PENDING = int(journal_pb2.ACCOUNT_PENDING)
HELD = int(journal_pb2.ACCOUNT_HELD)
DEBT = int(journal_pb2.ACCOUNT_DEBT)
ISSUED = int(journal_pb2.ACCOUNT_ISSUED)
REDEEMED = int(journal_pb2.ACCOUNT_REDEEMED)
EXPIRED = int(journal_pb2.ACCOUNT_EXPIRED)
ADJUSTED = int(journal_pb2.ACCOUNT_ADJUSTED)
CLEARING = int(journal_pb2.ACCOUNT_CLEARING)

FIRST_PARTNER_ACCOUNT = 1000
"""Coalition partner n (from 1) has settlement account 1000 + n."""

MEMBER_ACCOUNTS = frozenset({AVAILABLE, PENDING, HELD, DEBT})
"""The accounts that a member has; all others are the programme's."""

MAX_OPEN_HOLDS = 16
"""The most checkouts that may hold points of one member at once: a family at the tills, not a loop in a register."""


# --- what a batch reads -------------------------------------------------------------------------------------------


class Head(NamedTuple):
    """The newest entry of a book."""

    number: int
    hash: bytes
    booked_at: datetime


class KeyRecord(NamedTuple):
    """Where a key was booked, and with which content."""

    content_hash: bytes
    book: int
    number: int


@dataclass(slots=True)
class Lot:
    """A grant of which points are left. ``(number, ordinal)`` is the posting that granted it.

    ``remaining_minor`` is what can be spent (or will be, while it is pending); ``held_minor`` is what checkouts hold of
    it. ``cached`` says that the lot has a row in the cache.
    """

    number: int
    ordinal: int
    granted_minor: int
    remaining_minor: int
    pending: bool
    active_at: datetime | None
    expires_at: datetime | None
    held_minor: int = 0
    cached: bool = False


class LotTerms(NamedTuple):
    """What was fixed when a lot was granted."""

    granted_minor: int
    active_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime


class HoldPart(NamedTuple):
    """The points that a hold keeps of one lot."""

    lot_number: int
    lot_ordinal: int
    points_minor: int


class CouponSlot(NamedTuple):
    """One use of a coupon: its code, and which of its uses, counted from 0."""

    code: str
    slot: int


class SlotUse(NamedTuple):
    """Who has one use of a coupon: a hold that keeps it, or an entry that used it up."""

    book: int
    number: int
    held: bool


class Counter(NamedTuple):
    """What was counted for a member under one key; `until` is the day until which it is worth keeping."""

    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class BudgetSlice(NamedTuple):
    """This book's part of a shared budget: how much it was given, and how much of that it used."""

    granted: int
    used: int


@dataclass(slots=True)
class OpenHold:
    """Points that a checkout keeps. ``number`` is the entry that recorded it; ``parts`` stand in spending order."""

    number: int
    member_id: uuid.UUID
    unit: int
    checkout_key: bytes
    store_id: str
    terminal_id: str
    points_minor: int
    held_at: datetime
    expires_at: datetime
    parts: tuple[HoldPart, ...]
    coupons: tuple[CouponSlot, ...] = ()


class EndedHold(NamedTuple):
    """A hold that is over: how it ended, and with which entry."""

    number: int
    held_at: datetime
    how: int
    ended_number: int


@dataclass(slots=True)
class Account:
    """What a member has of one unit. ``lots`` and ``holds`` are None when the batch had no need to read them.

    ``next_change_at`` is the earliest moment at which a lot becomes active or lapses, or a hold expires.
    """

    available_minor: int = 0
    pending_minor: int = 0
    held_minor: int = 0
    debt_minor: int = 0
    next_change_at: datetime | None = None
    lots: list[Lot] | None = None
    holds: list[OpenHold] | None = None


AccountKey = tuple[uuid.UUID, int]
"""A member and a unit."""


@dataclass(slots=True)
class BookState:
    """What is known of a book before a batch. ``decide`` takes it over and changes it as it goes."""

    book: int
    head: Head
    messages: dict[bytes, KeyRecord] = field(default_factory=dict)
    receipts: dict[bytes, KeyRecord] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    ended_holds: dict[bytes, EndedHold] = field(default_factory=dict)
    """The newest hold of each checkout key concerned, if it is over."""
    returned: dict[int, journal_pb2.ReturnedSoFar] = field(default_factory=dict)
    """What became of purchases by their returns, by the purchase's number."""
    lost: dict[int, dict[int, int]] = field(default_factory=dict)
    """What has lapsed out of the lots of purchases that come back, or was taken out of them by hand, by the purchase's
    number and the lot's ordinal."""
    counters: dict[uuid.UUID, dict[str, Counter]] = field(default_factory=dict)
    """The counters of the members concerned, by member and key."""
    coupons: dict[str, dict[int, SlotUse]] = field(default_factory=dict)
    """The uses of the coupons concerned, by code and slot."""
    budgets: dict[str, BudgetSlice] = field(default_factory=dict)
    """This book's parts of the shared budgets concerned."""


# --- what it is asked ---------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """A point unit: its number in the books, its code, and the decimal places of a point."""

    number: int
    code: str
    precision: int


class Grant(NamedTuple):
    """Points to be granted as one lot. ``issued_at`` is set for points that were granted before, in another lot.

    ``unit`` None is the command's own. ``account`` is at whose expense: the programme's, or a partner's.
    """

    points_minor: int
    active_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime | None = None
    unit: Unit | None = None
    account: int = ISSUED


class CounterChange(NamedTuple):
    """What an entry adds to a member's counter; ``until`` None leaves that as it is."""

    key: str
    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class Relevelled(NamedTuple):
    """What becomes of a member's level: the changes of its counters, and what the member is told; None if nothing."""

    changes: tuple[CounterChange, ...] = ()
    change: journal_pb2.TierChange | None = None
    standing: common_pb2.TierStanding | None = None


Relevel = Callable[[Mapping[str, Counter], Mapping[str, Counter]], Relevelled]
"""Judges a level by a member's counters before something was taken out of them, and after."""


class CouponClaim(NamedTuple):
    """A coupon that a command wants to use or keep, and how many uses it has in all."""

    code: str
    uses: int


class NewCoupon(NamedTuple):
    """A coupon that a receipt gives its member for later; days are the store's."""

    code: str
    series: str
    valid_from: date
    valid_until: date | None


class Spendable(NamedTuple):
    """What a purchase can spend of a unit: what its checkout's hold keeps, and what is available beside it.

    ``hold_number`` is the hold's entry; zero if the checkout holds nothing.
    """

    available_minor: int
    held_minor: int = 0
    hold_number: int = 0


class FoundUnderFence(NamedTuple):
    """What a purchase finds under the fence: its member's counters, its book's parts of budgets, its coupons, points.

    ``budgets`` has what is left, ``coupons`` zero for each claim that can have a use, or else the reason why not.
    ``points`` has each unit that the receipt wants to spend, by its code.
    """

    counters: Mapping[str, Counter]
    budgets: Mapping[str, int]
    coupons: Mapping[str, int]
    points: Mapping[str, Spendable] = {}


class Spend(NamedTuple):
    """Points to be spent, as far as the balance allows.

    ``money_minor`` of ``points_minor`` points is ``points_minor * rate_money_minor // rate_points_minor``.
    ``forbidden`` names why nothing may be spent, or is zero. ``left_out_minor`` is what was asked for beside them and
    is not to be spent, for ``left_out_reason``.
    """

    points_minor: int
    step_minor: int
    rate_money_minor: int
    rate_points_minor: int
    forbidden: int = 0
    left_out_minor: int = 0
    left_out_reason: int = 0


class UnitSpend(NamedTuple):
    """Points of a further unit to be spent."""

    unit: Unit
    spend: Spend


class Declined(NamedTuple):
    """The command was not carried out, and nothing was stored."""

    reason: common_pb2.RefusalReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What every command says. ``event`` is a serialised ``journal_pb2.Event`` with what happened and nothing else.

    What the books decide (settlement, postings, ended holds) is appended to it when it is booked. ``same_contents``
    are further content hashes under which the same command may have been booked before, for example when its card
    stood for somebody else. With ``refusal`` the command gets its stored answer if it has one, and is refused
    otherwise. Keys are 16 bytes; only what has a receipt of its own has a ``business_key``.
    """

    book: int
    content_hash: bytes
    event_at: datetime
    member_id: uuid.UUID | None
    event: bytes
    message_id: bytes | None = None
    business_key: bytes | None = None
    same_contents: tuple[bytes, ...] = ()
    refusal: Declined | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase(Command):
    """Book a receipt as paid. With ``checkout_key`` it captures that checkout's hold, if it is still open.

    ``claims`` are the coupons that were presented, ``budget_keys`` the shared budgets that may be used: what stands in
    the books of them is read for ``plan``, a pure function that makes of what it finds the command as it is to be
    booked: with ``event``, ``spend``, ``further_spends``, ``grants``, ``counts``, ``coupons`` (codes among the claims),
    ``budgets`` and ``issued`` filled in. Without ``plan`` these stand as they are. What points pay is taken by
    ``redeemed_account``. Without a member nothing is spent, whatever ``spend`` asks for.
    """

    unit: Unit
    spend: Spend | None = None
    grants: tuple[Grant, ...] = ()
    checkout_key: bytes | None = None
    further_spends: tuple[UnitSpend, ...] = ()
    redeemed_account: int = REDEEMED
    claims: tuple[CouponClaim, ...] = ()
    budget_keys: tuple[str, ...] = ()
    plan: Callable[[FoundUnderFence], Purchase] | None = None
    counts: tuple[CounterChange, ...] = ()
    coupons: tuple[str, ...] = ()
    budgets: tuple[tuple[str, int], ...] = ()
    issued: tuple[NewCoupon, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Command):
    """Keep points for a checkout, for ``ttl_seconds`` from its booking, in place of what the checkout held before.

    With ``takeover`` all other holds of the member end first. Declined POINTS_INSUFFICIENT or HELD_ELSEWHERE if the
    balance does not cover ``points_minor``, HOLD_GONE if the checkout was paid within the last day, COUPON_USED or
    COUPON_HELD_ELSEWHERE if a coupon of ``claims`` has no use left.
    """

    member_id: uuid.UUID
    unit: Unit
    checkout_key: bytes
    store_id: str
    terminal_id: str
    points_minor: int
    ttl_seconds: int
    takeover: bool = False
    claims: tuple[CouponClaim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Command):
    """Release a checkout's hold. One that is over already repeats the entry that ended it.

    Declined HOLD_GONE if it was captured, or if the member has no hold of that checkout.
    """

    member_id: uuid.UUID
    unit: Unit
    checkout_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Return(Command):
    """Bring goods back. ``purchase`` is the payload of entry ``purchase_number``, in the same book.

    ``asked`` are (line number, quantity in thousandths); empty returns all that is left. ``lots`` has the terms of
    every lot from which the purchase spent points. ``clawback`` is a ``journal_pb2.ClawbackMode``. ``units`` and
    ``partners`` have the further units, and the accounts of the partners, that the purchase names by their codes.
    ``rates`` are (money, points) by the unit's code, empty for the programme's own: what is kept back for points that
    cannot be taken back. ``day`` is the store's; ``is_merged`` says that the member was merged into another one, to
    whom what the member leaves goes on. ``relevel`` is a pure function of the member's counters before and after, which
    says what becomes of the level. Declined RETURN_EXCEEDS_PURCHASE, or INVALID_REQUEST for lines that the purchase
    does not have.
    """

    unit: Unit
    purchase_number: int
    purchase: bytes
    asked: tuple[tuple[int, int], ...]
    lots: Mapping[tuple[int, int], LotTerms]
    clawback: int
    expired_grace_days: int = 0
    units: Mapping[str, Unit] = field(default_factory=dict)
    partners: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    day: date | None = None
    is_merged: bool = False
    relevel: Relevel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseBudget(Command):
    """Give this book ``amount`` more of the shared budget ``key``; it has no member."""

    key: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTime(Command):
    """Activate and lapse what is due of a member; ``Unchanged`` if nothing is."""

    member_id: uuid.UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust(Command):
    """Grant points by hand, or take ``deduct_points_minor``. Declined POINTS_INSUFFICIENT if there are fewer."""

    member_id: uuid.UUID
    unit: Unit
    grant: Grant | None = None
    deduct_points_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOut(Command):
    """Send points to another member, through the clearing account; see ``ledger.booking.transfer``.

    ``points_minor`` None sends everything: pending points and debt too, and ends the holds. With ``counters`` all that
    was counted for the member goes along. Declined POINTS_INSUFFICIENT if there are fewer available.
    """

    member_id: uuid.UUID
    unit: Unit
    points_minor: int | None
    counters: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferIn(Command):
    """Receive the points, the debt and the counters that another member's ``TransferOut`` sent.

    ``relevel`` is that of a `Return`, for what was taken out of the counters of a merged member.
    """

    member_id: uuid.UUID
    unit: Unit
    grants: tuple[Grant, ...]
    debt_minor: int = 0
    counts: tuple[CounterChange, ...] = ()
    relevel: Relevel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange(Command):
    """Record that a member has a new version of their record."""

    member_id: uuid.UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Command):
    """Mark where a closed day or month ends in this book; it has no member."""


# --- what it decides ----------------------------------------------------------------------------------------------


class Booked(NamedTuple):
    """The command is in the books, now or since an earlier sending. ``event`` is the entry's payload."""

    book: int
    number: int
    booked_at: datetime
    event: bytes
    repeated: bool


class Repeat(NamedTuple):
    """The command was booked before; its answer stands at this entry."""

    book: int
    number: int


class Unchanged(NamedTuple):
    """There was nothing to do, and nothing was stored."""


Outcome = Booked | Declined | Unchanged
Verdict = Booked | Declined | Repeat | Unchanged


# --- what it writes -----------------------------------------------------------------------------------------------


class EntryRow(NamedTuple):
    """A row of ``ledger.entry``, without its book."""

    number: int
    booked_at: datetime
    event_at: datetime
    kind: int
    member_id: uuid.UUID | None
    message_id: bytes | None
    business_key: bytes | None
    content_hash: bytes
    payload: bytes
    hash: bytes


class PostingRow(NamedTuple):
    """A row of ``ledger.posting``, without its book."""

    number: int
    ordinal: int
    unit: int
    debit: int
    credit: int
    points_minor: int
    lot_number: int
    lot_ordinal: int
    member_id: uuid.UUID | None
    active_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime | None


@dataclass(slots=True)
class Decision:
    """What a batch decided: a verdict for each command, in order, and the rows to write."""

    verdicts: list[Verdict] = field(default_factory=list)
    entries: list[EntryRow] = field(default_factory=list)
    postings: list[PostingRow] = field(default_factory=list)
    touched: set[AccountKey] = field(default_factory=set)
    lots: dict[tuple[AccountKey, int, int], Lot] = field(default_factory=dict)
    holds: list[OpenHold] = field(default_factory=list)
    ended: list[EndedHold] = field(default_factory=list)
    """Holds that ended, whether they began in this batch or before."""
    returns: dict[int, int] = field(default_factory=dict)
    """The newest return's number, by the purchase's number."""
    counted: set[uuid.UUID] = field(default_factory=set)
    """Members whose counters changed."""
    slots: dict[CouponSlot, SlotUse | None] = field(default_factory=dict)
    """Uses of coupons that were taken, changed hands (from a hold to a purchase), or came free (None)."""
    given_up: set[CouponSlot] = field(default_factory=set)
    """Those of them that the book had before the batch."""
    issued: list[tuple[int, uuid.UUID, NewCoupon]] = field(default_factory=list)
    """Coupons given for later, with the entry and the member."""
    slices: set[str] = field(default_factory=set)
    """Budgets of which this book's part changed."""


Settlement = checkout_pb2.Settlement
