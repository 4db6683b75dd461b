"""What a till asks of the books besides balances: who holds points, which checkout holds what, and booked receipts."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import is_taking, partner_account
from ledger.entry.model import LotTerms, Unit
from ledger.reading.books import read_units
from ledger.reading.journal import read_lot_terms
from ledger.reading.partners import read_partners

TIMEOUT_SECONDS = 5.0
LotKey = tuple[int, int]
"""The posting that granted a lot: its entry's number, and its ordinal there."""


class HeldPoints(NamedTuple):
    """What an open hold keeps, and where. ``held_at`` is when it was booked."""

    checkout_key: bytes
    unit: int
    store_id: str
    terminal_id: str
    points_minor: int
    held_at: datetime


class CheckoutHold(NamedTuple):
    """The newest hold of a checkout. ``how`` is None until an entry ends it, even if its time is over.

    ``programme_version`` is the version of the rules by which it was quoted.
    """

    book: int
    number: int
    member_id: uuid.UUID
    unit: Unit
    expires_at: datetime
    how: int | None
    programme_version: int

    def is_open(self, at: datetime) -> bool:
        """Say whether it keeps points at a moment."""
        return self.how is None and at < self.expires_at


class BookedReceipt(NamedTuple):
    """The entry of a receipt: its place, its ``EntryKind`` and payload, and the terms of the lots it spent from.

    ``units`` and ``partners`` are the point units, and the partners' accounts, by the codes that the payload names
    them by; the programme's own unit is among them only if there are further ones.
    """

    book: int
    number: int
    kind: int
    event: journal_pb2.Event
    payload: bytes
    lots: dict[LotKey, LotTerms]
    units: Mapping[str, Unit] = {}
    partners: Mapping[str, int] = {}


# Holds of members that keep points at $3, in the order in which they began.
READ_OPEN_HOLDS = """
SELECT h.book, h.member_id, h.checkout_key, h.unit, h.store_id, h.terminal_id, h.points_minor, h.held_at
FROM unnest($1::int[], $2::uuid[]) AS wanted (book, member_id)
JOIN ledger.hold h ON h.book = wanted.book AND h.member_id = wanted.member_id AND h.how IS NULL
WHERE h.expires_at > $3
ORDER BY h.held_at, h.number
"""

# The newest hold of each checkout, in whichever book: a checkout that shows another card moves to that member's book.
READ_CHECKOUT_HOLDS = """
SELECT DISTINCT ON (h.checkout_key) h.checkout_key, h.book, h.number, h.member_id, h.expires_at, h.how,
       e.payload, u.unit, u.code, u.precision
FROM ledger.hold h JOIN ledger.unit u ON u.unit = h.unit
JOIN ledger.entry e ON e.book = h.book AND e.number = h.number
WHERE h.checkout_key = ANY ($1)
ORDER BY h.checkout_key, h.held_at DESC
"""

# Where receipts are booked.
READ_RECEIPT_KEYS = "SELECT business_key, book, number FROM ledger.receipt_key WHERE business_key = ANY ($1)"

# The entries of receipts.
READ_RECEIPTS = """
SELECT e.book, e.number, e.kind, e.payload
FROM unnest($1::int[], $2::bigint[]) AS wanted (book, number)
JOIN ledger.entry e ON e.book = wanted.book AND e.number = wanted.number
"""

# Which message ids were used.
READ_USED_MESSAGES = "SELECT message_id FROM ledger.message_key WHERE message_id = ANY ($1)"


async def read_open_holds(
    conn: asyncpg.Connection, members: Sequence[tuple[int, uuid.UUID]], at: datetime
) -> dict[tuple[int, uuid.UUID], list[HeldPoints]]:
    """Return the open holds of members, given as (book, member id), judged at ``at``; none for those without."""
    books, ids = [book for book, _ in members], [member_id for _, member_id in members]
    found: dict[tuple[int, uuid.UUID], list[HeldPoints]] = defaultdict(list)
    for book, member_id, *hold in await conn.fetch(READ_OPEN_HOLDS, books, ids, at, timeout=TIMEOUT_SECONDS):
        found[(book, member_id)].append(HeldPoints(*hold))
    return found


async def read_checkout_holds(conn: asyncpg.Connection, checkout_keys: Sequence[bytes]) -> dict[bytes, CheckoutHold]:
    """Return the newest hold of each checkout that ever had one, by the checkout's key."""
    rows = await conn.fetch(READ_CHECKOUT_HOLDS, checkout_keys, timeout=TIMEOUT_SECONDS)
    return {
        key: CheckoutHold(book, number, member_id, Unit(*unit), expires_at, how, _programme_version(payload))
        for key, book, number, member_id, expires_at, how, payload, *unit in rows
    }


def _programme_version(payload: bytes) -> int:
    return journal_pb2.Event.FromString(payload).hold.programme_version


async def find_receipts(conn: asyncpg.Connection, business_keys: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Return where the receipts are booked, as (book, number), by their business keys; others are left out."""
    rows = await conn.fetch(READ_RECEIPT_KEYS, business_keys, timeout=TIMEOUT_SECONDS)
    return {row["business_key"]: (row["book"], row["number"]) for row in rows}


async def read_receipts(conn: asyncpg.Connection, business_keys: Sequence[bytes]) -> dict[bytes, BookedReceipt]:
    """Return the entries of the receipts that are booked, by their business keys."""
    places = await find_receipts(conn, business_keys)
    rows = await conn.fetch(
        READ_RECEIPTS,
        [book for book, _ in places.values()],
        [number for _, number in places.values()],
        timeout=TIMEOUT_SECONDS,
    )
    entries = {
        (book, number): (kind, journal_pb2.Event.FromString(payload), payload) for book, number, kind, payload in rows
    }
    further = any(event.settlement.units or _partners_of(event) for _, event, _ in entries.values())
    units = await read_units(conn) if further else {}
    partners = {code: partner_account(n) for code, n in (await read_partners(conn)).items()} if further else {}
    found: dict[bytes, BookedReceipt] = {}
    for key, (book, number) in places.items():
        kind, event, payload = entries[(book, number)]
        spent = [(p.lot_number, p.lot_ordinal) for p in event.postings if is_taking(p.credit)]
        lots = await read_lot_terms(conn, book, spent, TIMEOUT_SECONDS)
        found[key] = BookedReceipt(book, number, kind, event, payload, lots, units, partners)
    return found


def _partners_of(event: journal_pb2.Event) -> set[str]:
    """Return the partners that granted points with a purchase."""
    return {each.partner for line in event.purchase.effects for each in line.accruals if each.partner}


async def read_used_messages(conn: asyncpg.Connection, message_ids: Sequence[bytes]) -> set[bytes]:
    """Return those message ids under which something is booked."""
    rows = await conn.fetch(READ_USED_MESSAGES, message_ids, timeout=TIMEOUT_SECONDS)
    return {row["message_id"] for row in rows}
