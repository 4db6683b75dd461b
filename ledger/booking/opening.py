"""Opening a ledger: its identity, its empty books, and the numbers of point units and coalition partners."""

from __future__ import annotations

import uuid

import asyncpg

from ledger.entry.books import BEFORE_ALL_ENTRIES, MAX_BOOKS, genesis_hash
from ledger.entry.model import Unit
from ledger.reading.books import READ_IDENTITY, read_units
from ledger.reading.partners import read_partners

# Open the ledger: give it an identity, once.
OPEN_IDENTITY = """
INSERT INTO ledger.identity (ledger_id, books) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""

# Open the heads of all books that are missing.
OPEN_HEADS = """
INSERT INTO ledger.book_head (book, number, hash, booked_at)
SELECT book, 0, hash, $3 FROM unnest($1::int[], $2::bytea[]) AS u (book, hash)
ON CONFLICT DO NOTHING
"""

# Give a point unit the next number, unless it has one.
PUT_UNIT = """
INSERT INTO ledger.unit (unit, code, precision)
SELECT coalesce(max(unit), 0) + 1, $1, $2 FROM ledger.unit ON CONFLICT DO NOTHING
"""

# Give a partner the next number, unless it has one.
PUT_PARTNER = """
INSERT INTO ledger.partner (partner, code)
SELECT coalesce(max(partner), 0) + 1, $1 FROM ledger.partner ON CONFLICT DO NOTHING
"""


async def open_books(conn: asyncpg.Connection, books: int) -> int:
    """Give a fresh ledger its identity and ``books`` empty books; return how many books it has.

    A ledger that is already open keeps its number of books, whatever is asked for. ``conn`` must be the owner's.

    Raises:
        ValueError: if ``books`` is not within 1 to ``MAX_BOOKS``.
    """
    if not 1 <= books <= MAX_BOOKS:
        raise ValueError(f"books must be between 1 and {MAX_BOOKS}, not {books}")
    async with conn.transaction():
        await conn.execute(OPEN_IDENTITY, uuid.uuid4(), books)
        row = await conn.fetchrow(READ_IDENTITY)
        assert row is not None
        ledger_id, count = row["ledger_id"], row["books"]
        numbers = list(range(count))
        await conn.execute(OPEN_HEADS, numbers, [genesis_hash(ledger_id, n) for n in numbers], BEFORE_ALL_ENTRIES)
    return int(count)


async def ensure_unit(conn: asyncpg.Connection, code: str, precision: int) -> Unit:
    """Return the point unit ``code``, giving it a number if it is new.

    Raises:
        ValueError: if the unit exists with another precision, which can never change.
    """
    unit = None
    while unit is None:  # another new unit may take the number at this moment
        await conn.execute(PUT_UNIT, code, precision)
        unit = (await read_units(conn)).get(code)
    if unit.precision != precision:
        raise ValueError(f"point unit {code!r} has precision {unit.precision}, which cannot become {precision}")
    return unit


async def ensure_partner(conn: asyncpg.Connection, code: str) -> int:
    """Return the number of partner ``code``, giving it one if it is new. ``conn`` has the writer's rights.

    Raises:
        ValueError: if the code is empty.
    """
    if not code:
        raise ValueError("a partner needs a code")
    while (number := (await read_partners(conn)).get(code)) is None:  # another new partner may take the number
        await conn.execute(PUT_PARTNER, code)
    return number
