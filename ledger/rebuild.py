"""Writing the caches anew from the journal, a book at a time, while the other books go on."""

from __future__ import annotations

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.store import LOCK_HEAD
from ledger.caches.points import BookCaches, lots_given_back
from ledger.caches.tables import CACHE_TABLES, CacheTable
from ledger.reading.journal import read_entries, read_heads, read_lot_terms
from ledger.verify.chain import CHUNK_ENTRIES, read_postings
from ledger.verify.report import Progress

# Let nobody give a part of a budget away.
LOCK_BUDGETS = "LOCK TABLE ledger.budget IN EXCLUSIVE MODE"

# Forget what was given of budgets.
FORGET_BUDGETS = "DELETE FROM ledger.budget"

# Sum up what books were given.
SUM_BUDGETS = """
INSERT INTO ledger.budget (key, leased)
SELECT key, sum(granted)::bigint FROM ledger.budget_slice GROUP BY key
"""


async def rebuild(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> int:
    """Rebuild the caches of all books over an owner's connection; return the number of entries read.

    Each book is rebuilt in one transaction under its own fence: writers of that book wait meanwhile. What was pruned
    stays forgotten, unless nothing of its table is left. Run `verify` first: a journal that is damaged cannot be added
    up.

    Raises:
        ledger.caches.points.JournalError: if an entry's postings cannot be true; the book's caches stay as they were.
    """
    entries = 0
    for book in sorted(await read_heads(conn)):
        async with conn.transaction():
            await conn.execute(LOCK_HEAD, book)
            caches, count = await _add_up(conn, book, progress)
            for table in CACHE_TABLES:
                await _replace(conn, caches, table)
        entries += count
    await _sum_budgets(conn)
    return entries


async def _sum_budgets(conn: asyncpg.Connection) -> None:
    """Write anew what was given of each budget. A book that is given a part meanwhile waits, or was there before."""
    async with conn.transaction():
        await conn.execute(LOCK_BUDGETS)
        await conn.execute(FORGET_BUDGETS)
        await conn.execute(SUM_BUDGETS)


async def _add_up(conn: asyncpg.Connection, book: int, progress: Progress) -> tuple[BookCaches, int]:
    caches, number = BookCaches(book), 0
    while chunk := await read_entries(conn, book, number, CHUNK_ENTRIES):
        rows = await read_postings(conn, book, number, chunk[-1].number)
        caches.terms = await read_lot_terms(conn, book, lots_given_back(row for each in rows.values() for row in each))
        for entry in chunk:
            caches.apply(entry, journal_pb2.Event.FromString(entry.payload), rows.get(entry.number, []))
        number = chunk[-1].number
        progress(len(chunk))
    caches.find_next_changes()
    return caches, number


async def _replace(conn: asyncpg.Connection, caches: BookCaches, table: CacheTable) -> None:
    rows = list(table.rows(caches))
    if table.prunable is not None and (there := await table.read(conn, caches.book)):
        rows = table.not_pruned(rows, there)
    await conn.execute(f"DELETE FROM ledger.{table.name} WHERE book = $1", caches.book)  # noqa: S608 - our own names
    await conn.copy_records_to_table(
        table.name,
        schema_name="ledger",
        columns=["book", *table.columns],
        records=[(caches.book, *row) for row in rows],
    )
