"""Books: which one a member or a receipt belongs to, and how they are opened.

A book is a gap-free, hash-chained sequence of entries. The number of books is fixed when a ledger is opened, since
it decides where every member's entries stand.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime

import asyncpg

from ledger.model import Unit

MAX_BOOKS = 4096
"""The most books a ledger may have; a member is placed by the first 32 bits of a hash, so this stays fair."""

BEFORE_ALL_ENTRIES = datetime(1970, 1, 1, tzinfo=UTC)
"""The ``booked_at`` of an empty book's head: any entry is later."""


def book_of_member(member_id: uuid.UUID, books: int) -> int:
    """Return the book of a member: the first 32 bits of SHA-256 of the id's 16 bytes, modulo ``books``."""
    return int.from_bytes(hashlib.sha256(member_id.bytes).digest()[:4], "big") % books


def book_of_receipt(business_key: bytes, books: int) -> int:
    """Return the book of a receipt without a member: its key's last 32 bits, which are a hash's, modulo ``books``."""
    return int.from_bytes(business_key[-4:], "big") % books


def genesis_hash(ledger_id: uuid.UUID, book: int) -> bytes:
    """Return the hash before a book's first entry; it differs between any two ledgers and any two books."""
    return hashlib.sha256(b"tallypoint genesis" + ledger_id.bytes + book.to_bytes(4, "big")).digest()


# Open the ledger: give it an identity, once.
OPEN_IDENTITY = """
INSERT INTO ledger.identity (ledger_id, books) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""

# Read the identity.
READ_IDENTITY = "SELECT ledger_id, books FROM ledger.identity"

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

# Read all point units.
READ_UNITS = "SELECT unit, code, precision FROM ledger.unit"


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


async def read_book_count(conn: asyncpg.Connection) -> int:
    """Return the number of books of this ledger.

    Raises:
        LookupError: if the ledger has not been opened; ``tallypoint migrate`` opens it.
    """
    row = await conn.fetchrow(READ_IDENTITY)
    if row is None:
        raise LookupError("this ledger has no books yet: run `tallypoint migrate`")
    return int(row["books"])


async def read_units(conn: asyncpg.Connection) -> dict[str, Unit]:
    """Return all point units by their codes."""
    return {row["code"]: Unit(row["unit"], row["code"], row["precision"]) for row in await conn.fetch(READ_UNITS)}


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
