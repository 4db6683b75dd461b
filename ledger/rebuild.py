"""Writing the caches anew from the journal, a book at a time, while the other books go on."""

from __future__ import annotations

import asyncpg

from ledger.caches import BookCaches
from ledger.journal import read_entries, read_heads
from ledger.store import LOCK_HEAD
from ledger.verify import CHUNK_ENTRIES, READ_POSTINGS, Progress, postings_by_number

_CACHE_TABLES = ("balance", "lot", "account_total", "receipt_key", "message_key")


async def rebuild(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> int:
    """Rebuild the caches of all books over an owner's connection; return the number of entries read.

    Each book is rebuilt in one transaction under its own fence: writers of that book wait meanwhile. Run
    `verify` first: a journal that is damaged cannot be added up.

    Raises:
        ledger.caches.JournalError: if an entry's postings cannot be true; the book's caches stay as they were.
    """
    entries = 0
    for book in sorted(await read_heads(conn)):
        async with conn.transaction():
            await conn.execute(LOCK_HEAD, book)
            caches, count = await _add_up(conn, book, progress)
            await _replace(conn, caches)
        entries += count
    return entries


async def _add_up(conn: asyncpg.Connection, book: int, progress: Progress) -> tuple[BookCaches, int]:
    caches, number = BookCaches(book), 0
    while chunk := await read_entries(conn, book, number, CHUNK_ENTRIES):
        rows = postings_by_number(await conn.fetch(READ_POSTINGS, book, number, chunk[-1].number))
        for entry in chunk:
            caches.apply(entry, rows.get(entry.number, []))
        number = chunk[-1].number
        progress(len(chunk))
    caches.settle()
    return caches, number


async def _replace(conn: asyncpg.Connection, caches: BookCaches) -> None:
    book = caches.book
    for table in _CACHE_TABLES:
        await conn.execute(f"DELETE FROM ledger.{table} WHERE book = $1", book)  # noqa: S608 - the tables above
    await _copy(
        conn,
        "balance",
        "book member_id unit available_minor pending_minor held_minor debt_minor next_change_at",
        [
            (book, *key, a.available_minor, a.pending_minor, a.held_minor, a.debt_minor, a.next_change_at)
            for key, a in caches.accounts.items()
        ],
    )
    await _copy(
        conn,
        "lot",
        "book member_id unit number ordinal pending granted_minor remaining_minor active_at expires_at",
        [
            (
                book,
                *key,
                lot.number,
                lot.ordinal,
                lot.pending,
                lot.granted_minor,
                lot.remaining_minor,
                lot.active_at,
                lot.expires_at,
            )
            for (key, _, _), lot in caches.lots.items()
        ],
    )
    await _copy(
        conn,
        "account_total",
        "book booked_on unit account debit_minor credit_minor",
        [(book, *key, *pair) for key, pair in caches.totals.items()],
    )
    await _copy(
        conn,
        "receipt_key",
        "business_key content_hash book number",
        [(key, *record) for key, record in caches.receipts.items()],
    )
    await _copy(
        conn,
        "message_key",
        "message_id content_hash book number booked_on",
        [(key, *record, caches.message_days[key]) for key, record in caches.messages.items()],
    )


async def _copy(conn: asyncpg.Connection, table: str, columns: str, rows: list[tuple[object, ...]]) -> None:
    await conn.copy_records_to_table(table, schema_name="ledger", columns=columns.split(), records=rows)
