"""Verification of what came after the last clean one, and of what that touched.

What it looks at, in every book:

* the checkpoint's entry still has the hash that was verified;
* every entry since: chain, columns, payload, settlement, postings, the head, transfers and closes across books;
* balances, lots, holds, returns, counters and coupons of every member with an entry since, recomputed from all entries
  of that member;
* the keys of the entries since, and the totals of the days since (the day of the first of them as a whole);
* that nothing is left in the clearing account, and that books have of each budget what was given of it.

What it does not look at, and a full verification does: chains before the checkpoint (entries of touched members are
held against their postings, but not against the chain), entries and caches of members without an entry since, totals of
earlier days, keys of earlier entries, coupons used without a member, what books used of budgets, and rows of books or
entries that there are not.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

import asyncpg

from ledger.caches.points import JournalError
from ledger.caches.tables import BY_NAME, Row
from ledger.entry.model import Head
from ledger.verify.across import AcrossBooks, budget_problems, clearing_problems
from ledger.verify.books import Ledger, cache_problem, end_problem, read_ledger, tell, with_problems
from ledger.verify.chain import Chain, Checked, Recomputation
from ledger.verify.checkpoints import Checkpoint, read_checkpoints
from ledger.verify.entries import RETURN
from ledger.verify.report import BadEntry, BookReport, Known, Problem, Progress
from ledger.verify.spending import known_overspending

Track = Callable[[str, int, str], AbstractContextManager[Progress]]
"""Shows progress: a title, how many steps there are, and the name of a step."""

MEMBERS_AT_ONCE = 200
"""Members whose entries are read together."""

# What of each cache belongs to some members.
_OF_MEMBERS = {
    "balance": "member_id = ANY ($2)",
    "lot": "member_id = ANY ($2)",
    "hold": "member_id = ANY ($2)",
    "hold_part": "hold_number IN (SELECT number FROM ledger.hold WHERE book = $1 AND member_id = ANY ($2))",
    "hold_coupon": "hold_number IN (SELECT number FROM ledger.hold WHERE book = $1 AND member_id = ANY ($2))",
    "member_counters": "member_id = ANY ($2)",
    "coupon_issued": "member_id = ANY ($2)",
    "coupon_use": "number IN (SELECT number FROM ledger.entry WHERE book = $1 AND member_id = ANY ($2))",
}

# Read when an entry was booked.
READ_BOOKED_AT = "SELECT booked_at FROM ledger.entry WHERE book = $1 AND number = $2"

# Add up the postings of a book's newest entries by UTC day, unit and account.
SUM_TOTALS = """
SELECT (e.booked_at AT TIME ZONE 'UTC')::date, p.unit, side.account,
       sum(side.debit_minor)::bigint, sum(side.credit_minor)::bigint
FROM ledger.entry e JOIN ledger.posting p USING (book, number)
CROSS JOIN LATERAL (VALUES (p.debit, p.points_minor, 0), (p.credit, 0, p.points_minor))
    AS side (account, debit_minor, credit_minor)
WHERE e.book = $1 AND e.number >= $2 GROUP BY 1, 2, 3
"""


@dataclass(slots=True)
class _Since:
    """What the entries since the checkpoint touched in one book."""

    chain: Chain
    began: Head
    postings: int = 0
    members: set[uuid.UUID] = field(default_factory=set)
    receipts: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    returns: dict[int, int] = field(default_factory=dict)
    first_day: date | None = None
    problem: Problem | None = None
    known: list[Known] = field(default_factory=list)

    def take(self, checked: Checked) -> None:
        """Note what an entry touched."""
        entry, event, postings, *_ = checked
        day = entry.booked_at.astimezone(UTC).date()
        self.first_day = self.first_day or day
        self.postings += len(postings)
        self.known += known_overspending(entry, event)
        if entry.member_id is not None:
            self.members.add(entry.member_id)
        if entry.business_key is not None:
            self.receipts.append((entry.business_key, entry.content_hash, entry.number))
        if entry.message_id is not None:
            self.messages.append((entry.message_id, entry.content_hash, entry.number, day))
        if entry.kind == RETURN:
            self.returns[event.goods_return.purchase_number] = entry.number

    def report(self) -> BookReport:
        """Return what was found."""
        at = self.chain.at
        checked = at.number - self.began.number
        figures = (at.number, checked, self.postings, len(self.members))
        return BookReport(self.chain.book, *figures, at.hash, self.problem, tuple(self.known))


async def verify_since(
    conn: asyncpg.Connection, track: Track = lambda _title, _total, _unit: nullcontext(lambda _steps: None)
) -> list[BookReport]:
    """Verify what came after the last clean verification, as of one moment; one report a book, in order.

    Raises:
        LookupError: if some book was never verified as a whole, or the ledger was never opened.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        ledger = await read_ledger(conn)
        checkpoints = await read_checkpoints(conn)
        if set(checkpoints) != set(range(ledger.count)):
            raise LookupError("there is no earlier verification of all of them to start from")
        across = AcrossBooks(from_start=False)
        total = sum(ledger.heads[book].number - c.number for book, c in checkpoints.items() if book in ledger.heads)
        with track("Verifying", total, "entries") as progress:
            books = [await _follow(conn, ledger, each, across, progress) for each in checkpoints.values()]
        with track("Recomputing", sum(len(book.members) for book in books), "members") as progress:
            for book in books:
                if book.problem is None:
                    book.problem = await _member_problem(conn, ledger, book, progress)
                if book.problem is None:
                    book.problem = await _cache_problem(conn, book)
        reports = [book.report() for book in books]
        if all(report.problem is None for report in reports):
            reports = with_problems(
                reports, [*across.problems(), *await clearing_problems(conn), *await budget_problems(conn)]
            )
        return reports


async def _follow(
    conn: asyncpg.Connection, ledger: Ledger, checkpoint: Checkpoint, across: AcrossBooks, progress: Progress
) -> _Since:
    """Follow a book's chain from its checkpoint to its head."""
    start = ledger.geneses[checkpoint.book]
    if checkpoint.booked_at is not None:
        start = Head(checkpoint.number, checkpoint.hash, checkpoint.booked_at)
    chain = Chain(conn, checkpoint.book, ledger.count, start)
    since = _Since(chain, start, problem=checkpoint.problem)
    across.begin(chain.book)
    if since.problem is not None:
        return since
    told = start.number
    try:
        async for checked in chain.entries():
            since.take(checked)
            across.take(*checked[:3])
            told = tell(progress, checked, told)
    except (BadEntry, JournalError, ValueError) as error:
        since.problem = Problem(chain.book, chain.at_hand, str(error))
    progress(chain.at.number - told)
    since.problem = since.problem or await end_problem(conn, ledger, chain.at, chain.book)
    return since


async def _member_problem(
    conn: asyncpg.Connection, ledger: Ledger, since: _Since, progress: Progress
) -> Problem | None:
    """Recompute what the touched members have from all their entries, some members at a time."""
    members = sorted(since.members)
    for start in range(0, len(members), MEMBERS_AT_ONCE):
        some = members[start : start + MEMBERS_AT_ONCE]
        recomputation = Recomputation(since.chain.book, since.chain.terms, ledger.units, ledger.partners, whole=False)
        try:
            async for checked in since.chain.entries_of(some, since.chain.at.number):
                recomputation.take(checked)
        except (BadEntry, JournalError, ValueError) as error:
            return Problem(since.chain.book, since.chain.at_hand, str(error))
        recomputation.caches.find_next_changes()
        for name, condition in _OF_MEMBERS.items():
            table = BY_NAME[name]
            actual = await table.read(conn, since.chain.book, condition, some)
            difference = table.difference(table.rows(recomputation.caches), actual)
            if difference is not None:
                return cache_problem(since.chain.book, difference)
        progress(len(some))
    return None


async def _cache_problem(conn: asyncpg.Connection, since: _Since) -> Problem | None:
    """Check the keys, returns and totals that the entries since the checkpoint must have left behind."""
    book = since.chain.book
    if since.first_day is None:
        return None
    first = await _first_number_of(conn, book, since.first_day, since.began.number + 1)
    totals = [tuple(row) for row in await conn.fetch(SUM_TOTALS, book, first)]
    checks: Sequence[tuple[str, Iterable[Row], str, object]] = (
        ("receipt_key", since.receipts, "business_key = ANY ($2)", [row[0] for row in since.receipts]),
        ("message_key", since.messages, "message_id = ANY ($2)", [row[0] for row in since.messages]),
        ("purchase_return", since.returns.items(), "purchase_number = ANY ($2)", list(since.returns)),
        ("account_total", totals, "booked_on >= $2", since.first_day),
    )
    for name, expected, condition, argument in checks:
        difference = BY_NAME[name].difference(expected, await BY_NAME[name].read(conn, book, condition, argument))
        if difference is not None:
            return cache_problem(book, difference)
    return None


async def _first_number_of(conn: asyncpg.Connection, book: int, day: date, last: int) -> int:
    """Return the first entry of a UTC day, of which ``last`` is one: times rise with numbers, so halve the range."""
    midnight = datetime.combine(day, time(), UTC)
    low, high = 1, last
    while low < high:
        middle = (low + high) // 2
        if await conn.fetchval(READ_BOOKED_AT, book, middle) >= midnight:
            high = middle
        else:
            low = middle + 1
    return low
