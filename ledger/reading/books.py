"""How many books a ledger has, and which point units they count in."""

from __future__ import annotations

import asyncpg

from ledger.entry.model import Unit

# Read the identity.
READ_IDENTITY = "SELECT ledger_id, books FROM ledger.identity"

# Read all point units.
READ_UNITS = "SELECT unit, code, precision FROM ledger.unit"


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
