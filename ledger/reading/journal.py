"""Reading the journal: heads, entries in order, and stored answers."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import asyncpg

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
