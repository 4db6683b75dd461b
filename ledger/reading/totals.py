"""What moved, added up: by day and account, or over all entries up to a place in each book.

Positions are given as the last entry's number by book.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

LONG_SECONDS = 3600.0
"""A sum over years of entries takes its time."""

# What moved through each account on each day, over all books.
READ_DAY_TOTALS = """
SELECT t.booked_on, u.code, t.account, sum(t.debit_minor)::bigint AS debit_minor,
       sum(t.credit_minor)::bigint AS credit_minor
FROM ledger.account_total t JOIN ledger.unit u ON u.unit = t.unit
WHERE ($1::date IS NULL OR t.booked_on >= $1) AND ($2::date IS NULL OR t.booked_on <= $2)
GROUP BY t.booked_on, u.code, t.account ORDER BY t.booked_on, u.code, t.account
"""

# What came to stand on each account on the days from one on, and before another.
READ_CHANGES = """
SELECT unit, account, sum(credit_minor - debit_minor)::bigint AS balance_minor FROM ledger.account_total
WHERE booked_on >= $1 AND booked_on < $2 GROUP BY unit, account
"""

# Count entries up to positions, by kind.
COUNT_ENTRIES = """
SELECT e.book, e.kind, count(*) AS rows FROM unnest($1::integer[], $2::bigint[]) AS c (book, number)
JOIN ledger.entry e ON e.book = c.book AND e.number <= c.number
GROUP BY e.book, e.kind
"""

# Add up postings up to positions, by unit and accounts.
SUM_POSTINGS = """
SELECT p.book, p.unit, p.debit, p.credit, count(*) AS rows, sum(p.points_minor)::bigint AS points_minor
FROM unnest($1::integer[], $2::bigint[]) AS c (book, number)
JOIN ledger.posting p ON p.book = c.book AND p.number <= c.number
GROUP BY p.book, p.unit, p.debit, p.credit
"""

# Count the holds that ended up to positions: all that began, less those that were open there. Rows of holds that
# ended long ago are forgotten, entries and open holds are not.
COUNT_HOLD_ENDS = """
SELECT c.book, (SELECT count(*) FROM ledger.entry e WHERE e.book = c.book AND e.number <= c.number AND e.kind = $3)
             - (SELECT count(*) FROM ledger.hold h WHERE h.book = c.book AND h.number <= c.number
                AND (h.how IS NULL OR h.ended_number > c.number)) AS rows
FROM unnest($1::integer[], $2::bigint[]) AS c (book, number)
"""


class DayTotal(NamedTuple):
    """What moved through an account on a day (UTC), over all books. ``unit`` is the point unit's code."""

    booked_on: date
    unit: str
    account: int
    debit_minor: int
    credit_minor: int


class EntryCount(NamedTuple):
    """How many entries of a kind a book has."""

    book: int
    kind: int
    entries: int


class PostingSum(NamedTuple):
    """How many postings of a book move points from one account to another, and how many points."""

    book: int
    unit: int
    debit: int
    credit: int
    postings: int
    points_minor: int


async def read_day_totals(conn: asyncpg.Connection, first: date | None, last: date | None) -> list[DayTotal]:
    """Return the totals of days, both included (None: from the first, to the last), by day, unit and account."""
    return [DayTotal(*row) for row in await conn.fetch(READ_DAY_TOTALS, first, last)]


async def read_changes(conn: asyncpg.Connection, first: date, until: date) -> dict[tuple[int, int], int]:
    """Return by how much days have changed what stands on each (unit, account), in the unit's smallest fraction.

    ``first`` is the first day, ``until`` the day after the last one.
    """
    rows = await conn.fetch(READ_CHANGES, first, until)
    return {(row["unit"], row["account"]): row["balance_minor"] for row in rows}


async def count_entries(conn: asyncpg.Connection, positions: Mapping[int, int]) -> list[EntryCount]:
    """Count the entries of books up to positions; this reads them all."""
    return [EntryCount(*row) for row in await _fetch(conn, COUNT_ENTRIES, positions)]


async def sum_postings(conn: asyncpg.Connection, positions: Mapping[int, int]) -> list[PostingSum]:
    """Add up the postings of books up to positions; this reads them all."""
    return [PostingSum(*row) for row in await _fetch(conn, SUM_POSTINGS, positions)]


async def count_ended_holds(conn: asyncpg.Connection, positions: Mapping[int, int]) -> dict[int, int]:
    """Count the holds that ended in books up to positions."""
    rows = await _fetch(conn, COUNT_HOLD_ENDS, positions, int(journal_pb2.ENTRY_KIND_HOLD))
    return {row["book"]: row["rows"] for row in rows}


async def _fetch(
    conn: asyncpg.Connection, statement: str, positions: Mapping[int, int], *further: int
) -> list[asyncpg.Record]:
    return await conn.fetch(statement, list(positions), list(positions.values()), *further, timeout=LONG_SECONDS)
