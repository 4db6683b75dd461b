"""The ledger's plain data: what a batch reads, what it is asked, what it decides, what it writes.

Points are integers in the unit's smallest fraction (``points_minor``, ``*_minor``); times are aware datetimes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

AVAILABLE = int(journal_pb2.ACCOUNT_AVAILABLE)
PENDING = int(journal_pb2.ACCOUNT_PENDING)
HELD = int(journal_pb2.ACCOUNT_HELD)
DEBT = int(journal_pb2.ACCOUNT_DEBT)
ISSUED = int(journal_pb2.ACCOUNT_ISSUED)
REDEEMED = int(journal_pb2.ACCOUNT_REDEEMED)
EXPIRED = int(journal_pb2.ACCOUNT_EXPIRED)

MAX_POINTS_MINOR = 10**15
"""The most points one grant or one balance may have; far below 2^63, so that sums never overflow."""


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
    """A grant of which points are left. ``(number, ordinal)`` is the posting that granted it."""

    number: int
    ordinal: int
    granted_minor: int
    remaining_minor: int
    pending: bool
    active_at: datetime | None
    expires_at: datetime | None


@dataclass(slots=True)
class Account:
    """What a member has of one unit. ``lots`` is None when the batch had no need to read them."""

    available_minor: int = 0
    pending_minor: int = 0
    held_minor: int = 0
    debt_minor: int = 0
    next_change_at: datetime | None = None
    lots: list[Lot] | None = None


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


# --- what it is asked ---------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """A point unit: its number in the books, its code, and the decimal places of a point."""

    number: int
    code: str
    precision: int


class Grant(NamedTuple):
    """Points to be granted as one lot."""

    points_minor: int
    active_at: datetime | None
    expires_at: datetime | None


class Spend(NamedTuple):
    """Points to be spent, as far as the balance allows.

    ``money_minor`` of ``points_minor`` points is ``points_minor * rate_money_minor // rate_points_minor``.
    ``forbidden`` names why nothing may be spent, or is zero.
    """

    points_minor: int
    step_minor: int
    rate_money_minor: int
    rate_points_minor: int
    forbidden: int = 0


class Refused(NamedTuple):
    """The command was not carried out, and nothing was stored."""

    reason: common_pb2.RefusalReason
    message: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """Book a receipt as paid.

    ``event`` is a serialised ``journal_pb2.Event`` with the purchase and nothing else; the settlement and the
    postings are appended to it when it is booked. ``same_contents`` are further content hashes under which the
    receipt may have been booked before, when its card stood for somebody else or for nobody. With ``refusal`` the
    receipt gets its stored answer if it has one, and is refused otherwise.
    """

    book: int
    message_id: bytes
    business_key: bytes
    content_hash: bytes
    event_at: datetime
    member_id: uuid.UUID | None
    unit: Unit
    event: bytes
    spend: Spend | None = None
    grants: tuple[Grant, ...] = ()
    same_contents: tuple[bytes, ...] = ()
    refusal: Refused | None = None


@dataclass(frozen=True, slots=True)
class MemberChange:
    """Record that a member has a new version of their record."""

    book: int
    content_hash: bytes
    event_at: datetime
    member_id: uuid.UUID
    event: bytes
    message_id: None = None
    business_key: None = None
    same_contents: tuple[bytes, ...] = ()
    refusal: None = None


Command = Purchase | MemberChange


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


Outcome = Booked | Refused
Verdict = Booked | Refused | Repeat


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


@dataclass(slots=True)
class Decision:
    """What a batch decided: a verdict for each command, in order, and the rows to write."""

    verdicts: list[Verdict] = field(default_factory=list)
    entries: list[EntryRow] = field(default_factory=list)
    postings: list[PostingRow] = field(default_factory=list)
    touched: set[AccountKey] = field(default_factory=set)
    lots: dict[tuple[AccountKey, int, int], Lot] = field(default_factory=dict)


Settlement = checkout_pb2.Settlement
