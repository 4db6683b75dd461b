"""Verification of everything, from the first entry of every book on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from ledger.caches.points import JournalError
from ledger.caches.tables import CACHE_TABLES
from ledger.entry.accounts import partner_account
from ledger.entry.books import BEFORE_ALL_ENTRIES, genesis_hash
from ledger.entry.model import Head, Unit
from ledger.reading.books import read_book_count, read_units
from ledger.reading.journal import read_heads, read_ledger_id
from ledger.reading.partners import read_partners
from ledger.verify.across import AcrossBooks, budget_problems, clearing_problems
from ledger.verify.chain import Chain, Checked, Recomputation
from ledger.verify.checkpoints import checkpoint_problems
from ledger.verify.report import BadEntry, BookReport, Known, Problem, Progress
from ledger.verify.spending import known_overspending

# Read the first entry before the first, and the first posting beyond the last entry or before the first.
READ_STRAYS = """
SELECT (SELECT min(number) FROM ledger.entry WHERE book = $1 AND number < 1) AS entry,
       coalesce((SELECT min(number) FROM ledger.posting WHERE book = $1 AND number < 1),
                (SELECT min(number) FROM ledger.posting WHERE book = $1 AND number > $2)) AS posting
"""

# Read which tables of the ledger have a column `book`.
READ_TABLES_WITH_BOOKS = """
SELECT c.table_name::text FROM information_schema.columns c
JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = 'ledger' AND c.column_name = 'book' AND t.table_type = 'BASE TABLE' ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What all books have in common, and how they begin and end in this snapshot."""

    count: int
    geneses: Mapping[int, Head]
    heads: Mapping[int, Head]
    units: Mapping[str, Unit]
    partners: Mapping[str, int]
    """The settlement accounts of partners by their codes."""


async def read_ledger(conn: asyncpg.Connection) -> Ledger:
    """Read what verification needs to know before it begins.

    Raises:
        LookupError: if the ledger was never opened, or its identity is gone.
    """
    count = await read_book_count(conn)
    ledger_id = await read_ledger_id(conn)
    heads = await read_heads(conn)
    geneses = {book: Head(0, genesis_hash(ledger_id, book), BEFORE_ALL_ENTRIES) for book in range(count)}
    partners = {code: partner_account(number) for code, number in (await read_partners(conn)).items()}
    return Ledger(count, geneses, heads, await read_units(conn), partners)


async def verify(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> list[BookReport]:
    """Verify all books over a connection with the reader's rights, as of one moment; one report a book, in order.

    ``conn`` may be inside a repeatable-read transaction; then that is the moment.

    Raises:
        LookupError: if the ledger was never opened, or its identity is gone.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        ledger = await read_ledger(conn)
        across = AcrossBooks(from_start=True)
        reports = [await _verify_book(conn, ledger, book, across, progress) for book in range(ledger.count)]
        if all(report.problem is None for report in reports):
            problems = await stray_rows(conn, ledger.count)
            problems += across.problems()
            problems += await clearing_problems(conn)
            problems += await budget_problems(conn)
            problems += await checkpoint_problems(conn, ledger.count)
            reports = with_problems(reports, problems)
        return reports


def with_problems(reports: list[BookReport], problems: list[Problem]) -> list[BookReport]:
    """Return reports in which each book has the first of the problems found in it later."""
    first: dict[int, Problem] = {}
    for problem in problems:
        book = problem.book if 0 <= problem.book < len(reports) else 0
        if book not in first or 0 < problem.number < first[book].number:
            first[book] = problem
    return [
        report if report.problem is not None or report.book not in first else report.with_problem(first[report.book])
        for report in reports
    ]


async def _verify_book(
    conn: asyncpg.Connection, ledger: Ledger, book: int, across: AcrossBooks, progress: Progress
) -> BookReport:
    chain = Chain(conn, book, ledger.count, ledger.geneses[book])
    recomputation = Recomputation(book, chain.terms, ledger.units, ledger.partners)
    across.begin(book)
    postings, told = 0, 0
    problem: Problem | None = None
    known: list[Known] = []
    try:
        async for checked in chain.entries():
            recomputation.take(checked)
            across.take(*checked[:3])
            known += known_overspending(checked.entry, checked.event)
            postings += len(checked.postings)
            told = tell(progress, checked, told)
    except (BadEntry, JournalError, ValueError) as error:
        problem = Problem(book, chain.at_hand, str(error))
    progress(chain.at.number - told)
    if problem is None:
        problem = await end_problem(conn, ledger, chain.at, book) or await _cache_problem(conn, recomputation)
    members = len({member_id for member_id, _ in recomputation.caches.accounts})
    return BookReport(book, chain.at.number, chain.at.number, postings, members, chain.at.hash, problem, tuple(known))


_TELL_EVERY = 500


def tell(progress: Progress, checked: Checked, told: int) -> int:
    """Tell of progress now and then; return up to which number it was told."""
    if checked.entry.number - told < _TELL_EVERY:
        return told
    progress(checked.entry.number - told)
    return checked.entry.number


async def end_problem(conn: asyncpg.Connection, ledger: Ledger, at: Head, book: int) -> Problem | None:
    """Check that the book ends where its head says, and that no postings stand outside of it."""
    head = ledger.heads.get(book)
    if head is None:
        return Problem(book, 0, "the book has no head: the row of ledger.book_head is gone")
    if head.number != at.number:
        first = min(head.number, at.number) + 1
        return Problem(book, first, f"the head says {head.number} entries, the journal has {at.number}")
    if head != at:
        return Problem(book, at.number, "the head tells another hash or time than this, the last entry")
    strays = await conn.fetchrow(READ_STRAYS, book, head.number)
    assert strays is not None
    if strays["entry"] is not None:
        return Problem(book, strays["entry"], "entries count from 1")
    if strays["posting"] is not None:
        return Problem(book, strays["posting"], "there are postings, but no such entry")
    return None


async def _cache_problem(conn: asyncpg.Connection, recomputation: Recomputation) -> Problem | None:
    """Compare every cache of the book with what the entries add up to."""
    caches = recomputation.caches
    caches.find_next_changes()
    for table in CACHE_TABLES:
        difference = table.difference(table.rows(caches), await table.read(conn, caches.book))
        if difference is not None:
            return cache_problem(caches.book, difference)
    return None


def cache_problem(book: int, difference: str) -> Problem:
    """Return the problem of a cache that is not as it should be."""
    return Problem(book, 0, f"cache {difference}; `tallypoint ledger rebuild` writes the caches anew")


async def stray_rows(conn: asyncpg.Connection, count: int) -> list[Problem]:
    """Return rows of books that this ledger does not have, in any table."""
    problems: list[Problem] = []
    for (table,) in await conn.fetch(READ_TABLES_WITH_BOOKS):
        books = await conn.fetchrow(f"SELECT min(book), max(book) FROM ledger.{table}")  # noqa: S608 - the catalogue's names
        assert books is not None
        problems += [
            Problem(book, 0, f"ledger.{table} has rows of book {book}, which there is not")
            for book in books
            if book is not None and not 0 <= book < count
        ]
    return problems
