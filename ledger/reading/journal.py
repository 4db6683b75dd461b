"""Reading the journal: heads, entries in order, a member's, postings, and stored answers."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import LOST
from ledger.entry.chain import EntryRecord
from ledger.entry.model import Booked, Head, LotTerms

# Read the head of every book.
READ_HEADS = "SELECT book, number, hash, booked_at FROM ledger.book_head ORDER BY book"

# Read a stretch of one book in order.
READ_ENTRIES = """
SELECT book, number, booked_at, event_at, kind, member_id, message_id, business_key, content_hash, payload, hash
FROM ledger.entry WHERE book = $1 AND number > $2 ORDER BY number LIMIT $3
"""

# Read a member's newest entries.
READ_MEMBER_ENTRIES = """
SELECT book, number, booked_at, event_at, kind, member_id, message_id, business_key, content_hash, payload, hash
FROM ledger.entry WHERE book = $1 AND member_id = $2 ORDER BY number DESC LIMIT $3
"""

# Read the hashes of entries, one of each book.
READ_HASHES = """
SELECT e.book, e.hash FROM unnest($1::integer[], $2::bigint[]) AS c (book, number)
JOIN ledger.entry e ON e.book = c.book AND e.number = c.number
"""

# Read when the entries after some were booked, one of each book.
READ_NEXT_BOOKED_AT = """
SELECT c.book, e.booked_at FROM unnest($1::integer[], $2::bigint[]) AS c (book, number)
JOIN ledger.entry e ON e.book = c.book AND e.number = c.number + 1
"""

# Read the answers of entries of one book.
READ_PAYLOADS = "SELECT number, booked_at, payload FROM ledger.entry WHERE book = $1 AND number = ANY ($2)"


async def read_ledger_id(conn: asyncpg.Connection) -> uuid.UUID:
    """Return the ledger's identity."""
    value = await conn.fetchval("SELECT ledger_id FROM ledger.identity")
    assert isinstance(value, uuid.UUID), "the ledger is not open: run `tallypoint migrate`"
    return value


async def read_heads(conn: asyncpg.Connection) -> dict[int, Head]:
    """Return the head of every book."""
    rows = await conn.fetch(READ_HEADS)
    return {row["book"]: Head(row["number"], row["hash"], row["booked_at"]) for row in rows}


async def read_entries(
    conn: asyncpg.Connection, book: int, after_number: int, limit: int, timeout_seconds: float = 60.0
) -> list[EntryRecord]:
    """Return up to ``limit`` entries of ``book`` with numbers above ``after_number``, in order and without gaps."""
    rows = await conn.fetch(READ_ENTRIES, book, after_number, limit, timeout=timeout_seconds)
    return [EntryRecord(*row) for row in rows]


async def read_member_entries(
    conn: asyncpg.Connection, book: int, member_id: uuid.UUID, limit: int
) -> list[EntryRecord]:
    """Return up to ``limit`` entries of a member, the newest first."""
    return [EntryRecord(*row) for row in await conn.fetch(READ_MEMBER_ENTRIES, book, member_id, limit)]


async def read_hashes(conn: asyncpg.Connection, positions: Mapping[int, int]) -> dict[int, bytes]:
    """Return the chain's hash at a position in each book (book to number); books without that entry are missing."""
    rows = await conn.fetch(READ_HASHES, list(positions), list(positions.values()))
    return {row["book"]: row["hash"] for row in rows}


async def read_oldest_waiting(conn: asyncpg.Connection, positions: Mapping[int, int]) -> dict[int, datetime]:
    """Return when the first entry after each position (book to number) was booked; books without one are missing."""
    rows = await conn.fetch(READ_NEXT_BOOKED_AT, list(positions), list(positions.values()))
    return {row["book"]: row["booked_at"] for row in rows}


async def read_payloads(
    conn: asyncpg.Connection, places: Iterable[tuple[int, int]], timeout_seconds: float = 10.0
) -> dict[tuple[int, int], Booked]:
    """Return what is stored at the given (book, number) places."""
    by_book: dict[int, list[int]] = defaultdict(list)
    for book, number in places:
        by_book[book].append(number)
    found: dict[tuple[int, int], Booked] = {}
    for book, numbers in by_book.items():
        for number, booked_at, payload in await conn.fetch(READ_PAYLOADS, book, numbers, timeout=timeout_seconds):
            found[(book, number)] = Booked(book, number, booked_at, payload, repeated=True)
    return found


# Read a stretch of one book's postings in order.
READ_POSTINGS = """
SELECT p.number, p.ordinal, e.booked_at, p.member_id, p.unit, p.debit, p.credit, p.points_minor, p.lot_number,
       p.lot_ordinal, p.active_at, p.expires_at, p.issued_at, e.kind
FROM ledger.posting p JOIN ledger.entry e USING (book, number)
WHERE p.book = $1 AND p.number > $2 AND p.number <= $3 ORDER BY p.number, p.ordinal
"""


class BookedPosting(NamedTuple):
    """A posting with its entry's time and kind; its place is its entry's number and its ordinal there."""

    number: int
    ordinal: int
    booked_at: datetime
    member_id: uuid.UUID | None
    unit: int
    debit: int
    credit: int
    points_minor: int
    lot_number: int
    lot_ordinal: int
    active_at: datetime | None
    expires_at: datetime | None
    issued_at: datetime | None
    kind: int


async def read_postings(
    conn: asyncpg.Connection, book: int, after_number: int, last_number: int
) -> list[BookedPosting]:
    """Return the postings of one book's entries ``after_number < number <= last_number``, in order."""
    return [BookedPosting(*row) for row in await conn.fetch(READ_POSTINGS, book, after_number, last_number)]


# Read a stretch of one part of a book's purchases: a member's are all in one part.
READ_PURCHASES = """
SELECT number, member_id, payload FROM ledger.entry
WHERE book = $1 AND number > $2 AND number <= $3 AND kind = $4
  AND CASE WHEN member_id IS NULL THEN number
           ELSE ('x' || right(member_id::text, 8))::bit(32)::bigint & 2147483647 END % $5 = $6
  AND ($7::timestamptz IS NULL OR event_at >= $7) AND ($8::timestamptz IS NULL OR event_at < $8)
ORDER BY number LIMIT $9
"""


class BookedPurchase(NamedTuple):
    """The entry of a purchase: its number in its book, whose it is, and its payload."""

    number: int
    member_id: uuid.UUID | None
    payload: bytes


class PurchasePart(NamedTuple):
    """Which purchases are asked for: those of one of ``parts`` equal parts, bought within two moments (None: any).

    All of a member's purchases are in one part.
    """

    part: int
    parts: int
    first: datetime | None = None
    end: datetime | None = None


async def read_purchases(
    conn: asyncpg.Connection, book: int, after_number: int, last_number: int, wanted: PurchasePart, limit: int
) -> list[BookedPurchase]:
    """Return up to ``limit`` purchases of a book with ``after_number < number <= last_number``, in order."""
    rows = await conn.fetch(
        READ_PURCHASES,
        book,
        after_number,
        last_number,
        int(journal_pb2.ENTRY_KIND_PURCHASE),
        wanted.parts,
        wanted.part,
        wanted.first,
        wanted.end,
        limit,
    )
    return [BookedPurchase(*row) for row in rows]


# Read what was fixed when lots of one book were granted.
READ_LOT_TERMS = """
SELECT p.number, p.ordinal, p.points_minor, p.active_at, p.expires_at, coalesce(p.issued_at, e.booked_at)
FROM unnest($2::bigint[], $3::smallint[]) AS wanted (number, ordinal)
JOIN ledger.posting p ON p.book = $1 AND p.number = wanted.number AND p.ordinal = wanted.ordinal
JOIN ledger.entry e ON e.book = p.book AND e.number = p.number
"""


async def read_lot_terms(
    conn: asyncpg.Connection, book: int, lots: Iterable[tuple[int, int]], timeout_seconds: float = 10.0
) -> dict[tuple[int, int], LotTerms]:
    """Return the terms of lots of one book, each given by the number and ordinal of its granting posting.

    The terms never change, so they may be read before a batch.
    """
    wanted = sorted(set(lots))
    if not wanted:
        return {}
    numbers, ordinals = zip(*wanted, strict=True)
    rows = await conn.fetch(READ_LOT_TERMS, book, numbers, ordinals, timeout=timeout_seconds)
    return {(number, ordinal): LotTerms(*terms) for number, ordinal, *terms in rows}


# Read what has left the lots that purchases granted for good. $2 are their members, $3 their numbers.
READ_LOST = """
SELECT p.lot_number, p.number, p.lot_ordinal, p.points_minor
FROM unnest($2::uuid[], $3::bigint[]) AS wanted (member_id, purchase_number)
JOIN ledger.entry e ON e.book = $1 AND e.member_id = wanted.member_id AND e.number >= wanted.purchase_number
JOIN ledger.posting p ON p.book = e.book AND p.number = e.number AND p.lot_number = wanted.purchase_number
WHERE p.credit = ANY ($4)
"""


class Loss(NamedTuple):
    """Points that left a purchase's lot for good: by which entry, of which lot of that purchase, how many."""

    number: int
    ordinal: int
    points_minor: int


async def read_lost(
    conn: asyncpg.Connection, book: int, purchases: Mapping[int, uuid.UUID], timeout_seconds: float = 10.0
) -> dict[int, list[Loss]]:
    """Return what lapsed out of the lots of purchases, or was taken out of them by hand, by the purchases' numbers.

    ``purchases`` has the members by the numbers.
    """
    found: dict[int, list[Loss]] = {number: [] for number in purchases}
    if purchases:
        members, numbers = list(purchases.values()), list(purchases)
        for lot_number, *loss in await conn.fetch(
            READ_LOST, book, members, numbers, list(LOST), timeout=timeout_seconds
        ):
            found[lot_number].append(Loss(*loss))
    return found


def lost_by_lot(losses: Iterable[Loss]) -> dict[int, int]:
    """Add losses of one purchase's lots up by the lots' ordinals."""
    lost: dict[int, int] = defaultdict(int)
    for loss in losses:
        lost[loss.ordinal] += loss.points_minor
    return lost
