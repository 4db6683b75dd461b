"""Coalition partners: each has a number in the books, and by it a settlement account of its own."""

from __future__ import annotations

import asyncpg

from ledger.entry.accounts import partner_account

# Read all partners.
READ_PARTNERS = "SELECT code, partner FROM ledger.partner"


async def read_partners(conn: asyncpg.Connection) -> dict[str, int]:
    """Return the numbers of all partners by their codes."""
    return {row["code"]: row["partner"] for row in await conn.fetch(READ_PARTNERS)}


async def read_partner_codes(conn: asyncpg.Connection) -> dict[int, str]:
    """Return the codes of all partners by their accounts."""
    return {partner_account(number): code for code, number in (await read_partners(conn)).items()}
