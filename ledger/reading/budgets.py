"""Budgets that all books share: what a book has left of its parts, and what all books have used."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

TIMEOUT_SECONDS = 5.0

# What a book has left of its parts of budgets.
READ_PARTS_LEFT = """
SELECT s.key, s.granted - s.used FROM ledger.budget_slice s
JOIN unnest($1::int[], $2::text[]) AS wanted (book, key) ON s.book = wanted.book AND s.key = wanted.key
"""

# What all books have used of budgets.
READ_USED = "SELECT key, sum(used)::bigint FROM ledger.budget_slice WHERE key = ANY ($1) GROUP BY key"


async def read_parts_left(conn: asyncpg.Connection, book: int, keys: Collection[str]) -> dict[str, int]:
    """Return what a book has left of its parts of budgets; those of which it was given none are missing."""
    rows = await conn.fetch(READ_PARTS_LEFT, [book] * len(keys), list(keys), timeout=TIMEOUT_SECONDS)
    return {row[0]: row[1] for row in rows}


async def read_used(conn: asyncpg.Connection, keys: Collection[str]) -> dict[str, int]:
    """Return what all books have used of budgets; those of which none was given are missing."""
    return {row[0]: row[1] for row in await conn.fetch(READ_USED, list(keys), timeout=TIMEOUT_SECONDS)}
