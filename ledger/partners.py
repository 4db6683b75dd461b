"""Coalition partners: each has a number in the books, and by it a settlement account of its own."""

from __future__ import annotations

import asyncpg

from ledger.model import FIRST_PARTNER_ACCOUNT

# Give a partner the next number, unless it has one.
PUT_PARTNER = """
INSERT INTO ledger.partner (partner, code)
SELECT coalesce(max(partner), 0) + 1, $1 FROM ledger.partner ON CONFLICT DO NOTHING
"""

# Read all partners.
READ_PARTNERS = "SELECT code, partner FROM ledger.partner"


def partner_account(number: int) -> int:
    """Return the settlement account of a partner, given its number."""
    return FIRST_PARTNER_ACCOUNT + number


async def read_partners(conn: asyncpg.Connection) -> dict[str, int]:
    """Return the numbers of all partners by their codes."""
    return {row["code"]: row["partner"] for row in await conn.fetch(READ_PARTNERS)}


async def read_partner_codes(conn: asyncpg.Connection) -> dict[int, str]:
    """Return the codes of all partners by their accounts."""
    return {partner_account(number): code for code, number in (await read_partners(conn)).items()}


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
