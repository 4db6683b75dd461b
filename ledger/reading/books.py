"""Which ledger a database holds, how many books it has, and which point units they count in."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import asyncpg

from ledger.entry.model import Unit

# Read the identity.
READ_IDENTITY = "SELECT ledger_id, books FROM ledger.identity"

# Say whether the database has a ledger's tables yet.
HAS_IDENTITY = "SELECT to_regclass('ledger.identity') IS NOT NULL"

# Read all point units.
READ_UNITS = "SELECT unit, code, precision FROM ledger.unit"


class Identity(NamedTuple):
    """Which ledger this is, and how many books it has."""

    ledger_id: uuid.UUID
    books: int


async def read_identity(conn: asyncpg.Connection) -> Identity:
    """Return the ledger's identity.

    Raises:
        LookupError: if the ledger has not been opened; ``tallypoint migrate`` opens it.
    """
    row = await conn.fetchrow(READ_IDENTITY)
    if row is None:
        raise LookupError("this ledger has no books yet: run `tallypoint migrate`")
    return Identity(*row)


async def read_book_count(conn: asyncpg.Connection) -> int:
    """Return the number of books of this ledger.

    Raises:
        LookupError: if the ledger has not been opened; ``tallypoint migrate`` opens it.
    """
    return (await read_identity(conn)).books


async def find_book_count(conn: asyncpg.Connection) -> int | None:
    """Return the number of books of the ledger in a database that may be empty or not opened; then None."""
    if not await conn.fetchval(HAS_IDENTITY):
        return None
    row = await conn.fetchrow(READ_IDENTITY)
    return None if row is None else Identity(*row).books


async def read_units(conn: asyncpg.Connection) -> dict[str, Unit]:
    """Return all point units by their codes."""
    return {row["code"]: Unit(row["unit"], row["code"], row["precision"]) for row in await conn.fetch(READ_UNITS)}
