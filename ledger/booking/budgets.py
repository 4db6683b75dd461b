"""Budgets that all books share, such as a campaign's: each book is given a part of one, and uses that under its fence.

A part is given by an entry of the book and, in the same transaction, by the one row that says how much of the budget
was given away. So all parts together never exceed the budget, whatever books and processes do at once, and the row is
locked for one statement among some hundreds of receipts. Parts shrink as the budget runs out, so that little is left
over in books that need no more.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.entry.keys import content_hash
from ledger.entry.model import Booked, LeaseBudget

TIMEOUT_SECONDS = 10.0

# Read what a book has left of a budget.
READ_LEFT = "SELECT granted - used FROM ledger.budget_slice WHERE book = $1 AND key = $2"

# Begin a budget of which nothing was given yet.
BEGIN_BUDGET = "INSERT INTO ledger.budget (key, leased) VALUES ($1, 0) ON CONFLICT DO NOTHING"

# Lock what was given of a budget, alone in its statement.
LOCK_BUDGET = "SELECT leased FROM ledger.budget WHERE key = $1 FOR UPDATE"

# Note what was given of a budget.
WRITE_LEASED = "UPDATE ledger.budget SET leased = $2 WHERE key = $1"

# Read how many books there are.
READ_COUNT = "SELECT books FROM ledger.identity"


async def lease(conn: asyncpg.Connection, book: int, key: str, budget: int, wanted: int, now: datetime) -> int:
    """See to it that a book has ``wanted`` left of the budget ``key``, of ``budget`` in all, as far as it lasts.

    ``conn`` has the writer's rights; the transaction is of its own, or nested in the caller's. The amounts are what the
    budget counts: receipts, or money or points in minor units. A budget that was lowered below what was given gives
    nothing more; what books have of it they keep.

    Returns:
        What the book has left of the budget now; less than ``wanted`` if the budget is used up.
    """
    async with conn.transaction():
        await lock_books(conn, [book])
        left = await conn.fetchval(READ_LEFT, book, key, timeout=TIMEOUT_SECONDS) or 0
        if left >= wanted or budget <= 0:
            return int(left)  # another receipt of this book was faster, or there is nothing to give
        await conn.execute(BEGIN_BUDGET, key, timeout=TIMEOUT_SECONDS)
        leased = await conn.fetchval(LOCK_BUDGET, key, timeout=TIMEOUT_SECONDS)
        books = await conn.fetchval(READ_COUNT, timeout=TIMEOUT_SECONDS)
        part = next_part(budget - leased, wanted - left, books)
        if part == 0:
            return int(left)
        await conn.execute(WRITE_LEASED, key, leased + part, timeout=TIMEOUT_SECONDS)
        command = _command(book, key, part, budget, leased + part, now)
        verdict = (await append_locked(conn, book, [command], now)).verdicts[0]
        assert isinstance(verdict, Booked), f"a part of a budget is always booked: {verdict}"
        return int(left + part)


def next_part(unleased: int, missing: int, books: int) -> int:
    """Return how much a book is given that misses ``missing``, if ``unleased`` of the budget was not given yet."""
    return max(0, min(unleased, max(missing, unleased // (2 * books))))


def _command(book: int, key: str, amount: int, budget: int, leased: int, now: datetime) -> LeaseBudget:
    event = journal_pb2.Event(
        budget_lease=journal_pb2.BudgetLease(key=key, amount=amount, budget=budget, leased=leased)
    ).SerializeToString()
    return LeaseBudget(
        book=book,
        content_hash=content_hash(None, event),
        event_at=now,
        member_id=None,
        event=event,
        key=key,
        amount=amount,
    )
