"""Closing days and months of a programme: marks in all books, totals frozen, their digest in the journal.

A close takes two steps. First one transaction appends a mark to every book and records the close: from here on, what
is booked belongs to the next open day. Then the totals up to the marks are added up, kept, and their digest is appended
to book 0. They follow from entries that can no longer change, so whoever finds the first step done alone, after a
crash, does the second with the same result.
"""

from __future__ import annotations

import calendar
import hashlib
import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.entry import model
from ledger.entry.keys import content_hash
from ledger.finance.point_value import NEWEST, read_point_values
from ledger.finance.scope import CLOSE_COLUMNS, CloseRow, Programme
from ledger.finance.summary import Progress, bring_up_to_date
from ledger.reading.books import read_book_count

DAY: Final = int(journal_pb2.CLOSE_PERIOD_DAY)
MONTH: Final = int(journal_pb2.CLOSE_PERIOD_MONTH)
TOTALS_BOOK: Final = 0
"""The book in which the digests of totals stand."""


class CloseRefused(Exception):
    """The day or month cannot be closed; the message says why and what can."""


class FrozenTotals(NamedTuple):
    """The totals of a close: canonical JSON, its SHA-256, and the entry that has it."""

    text: str
    digest: bytes
    book: int
    number: int


class ClosedPeriod(NamedTuple):
    """A close. ``frozen`` is None between its two steps."""

    row: CloseRow
    frozen: FrozenTotals | None


# Read the closes of a unit, oldest first.
READ_CLOSES: Final = f"""
SELECT {CLOSE_COLUMNS}, t.totals, t.digest, t.book, t.number
FROM ledger.close c LEFT JOIN ledger.close_total t USING (unit, close_number)
WHERE unit = $1 ORDER BY close_number
"""  # noqa: S608 - our own columns

# Whether a programme was closed with another unit, or the unit for another programme.
READ_OTHER_PAIR: Final = """
SELECT c.programme_code, u.code FROM ledger.close c JOIN ledger.unit u ON u.unit = c.unit
WHERE (c.programme_code = $1) <> (c.unit = $2) LIMIT 1
"""

# Record a close.
INSERT_CLOSE: Final = f"""
INSERT INTO ledger.close ({CLOSE_COLUMNS}) VALUES ({", ".join(f"${n}" for n in range(1, len(CloseRow._fields) + 1))})
"""  # noqa: S608 - our own columns

# Record where a close ends in a book.
INSERT_MARK: Final = (
    "INSERT INTO ledger.close_mark (book, number, unit, close_number, hash) VALUES ($1, $2, $3, $4, $5)"
)

# Read where a close ends.
READ_MARKS: Final = """
SELECT book, number, hash FROM ledger.close_mark WHERE unit = $1 AND close_number = $2 ORDER BY book
"""

# Keep the totals of a close.
INSERT_TOTALS: Final = """
INSERT INTO ledger.close_total (unit, close_number, totals, digest, book, number) VALUES ($1, $2, $3, $4, $5, $6)
"""

# Add up what moved up to a close, from the summaries.
SUM_MOVEMENTS: Final = """
SELECT issue_month, kind, debit, credit, sum(points_minor)::bigint AS points_minor
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3
GROUP BY issue_month, kind, debit, credit ORDER BY issue_month, kind, debit, credit
"""

# Add up the receipts of the days that a close covers, by store.
SUM_RECEIPTS: Final = """
SELECT store_id, kind, count(*) AS receipts, sum(list_amount_minor)::bigint AS list_amount_minor,
       sum(discount_minor)::bigint AS discount_minor, sum(points_money_minor)::bigint AS points_money_minor,
       sum(net_amount_minor)::bigint AS net_amount_minor, sum(points_earned_minor)::bigint AS points_earned_minor,
       sum(points_spent_minor)::bigint AS points_spent_minor
FROM ledger.accounting_receipt
WHERE programme_code = $1 AND period < $2 AND accounting_day <= $3 AND ($4::date IS NULL OR accounting_day >= $4)
GROUP BY store_id, kind ORDER BY store_id, kind
"""


async def read_closes(conn: asyncpg.Connection, unit: int) -> list[ClosedPeriod]:
    """Return the closes of a point unit, oldest first."""
    width = len(CloseRow._fields)
    closes = []
    for row in await conn.fetch(READ_CLOSES, unit):
        columns = tuple(row)
        frozen = None if row["totals"] is None else FrozenTotals(*columns[width:])
        closes.append(ClosedPeriod(CloseRow(*columns[:width]), frozen))
    return closes


async def close_books(
    conn: asyncpg.Connection,
    programme: Programme,
    period: int,
    last_day: date,
    closed_by: str,
    now: datetime,
    progress: Progress = lambda _entries: None,
) -> ClosedPeriod:
    """Close a day, or the month that ``last_day`` ends, with everything before it that is still open.

    ``conn`` has the writer's rights and no transaction. The newest close asked for again is answered again; one that
    stopped between its steps is finished first.

    Raises:
        CloseRefused: it is closed already, comes before what is closed, or is not over.
    """
    check_day(period, last_day, now)
    await finish_closes(conn, programme, now, progress)
    async with conn.transaction():
        await lock_books(conn, range(await read_book_count(conn)))
        closes = [closed.row for closed in await read_closes(conn, programme.unit.number)]
        if not closes or (closes[-1].period, closes[-1].last_day) != (period, last_day):
            await _check_pair(conn, programme)
            check_order(closes, period, last_day)
            await _mark(conn, await _new_close(conn, programme, closes, period, last_day, closed_by, now), now)
    await finish_closes(conn, programme, now, progress)
    return (await read_closes(conn, programme.unit.number))[-1]


async def finish_closes(
    conn: asyncpg.Connection, programme: Programme, now: datetime, progress: Progress = lambda _entries: None
) -> None:
    """Freeze the totals of closes that stopped after their first step."""
    for closed in await read_closes(conn, programme.unit.number):
        if closed.frozen is None:
            await bring_up_to_date(conn, progress)
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                totals = canonical(await add_up(conn, closed.row, SUM_MOVEMENTS))
            await _freeze(conn, closed.row, totals, now)


def last_day_of_month(month: date) -> date:
    """Return the last day of the month of a day."""
    return month.replace(day=calendar.monthrange(month.year, month.month)[1])


def canonical(totals: dict[str, Any]) -> str:
    """Return totals as JSON that has one form only: keys in order, no spaces."""
    return json.dumps(totals, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(totals: str) -> bytes:
    """Return the SHA-256 of totals."""
    return hashlib.sha256(totals.encode()).digest()


async def add_up(conn: asyncpg.Connection, close: CloseRow, sum_movements: str) -> dict[str, Any]:
    """Return the totals of a close as they stand in its JSON; ``sum_movements`` is SQL as ``SUM_MOVEMENTS``.

    Points and money are integers in minor units, accounts and kinds are the journal's numbers, movements run from the
    first entry on, receipts are those of the days closed.
    """
    scope = (close.close_number, close.last_day)
    unit = await conn.fetchrow("SELECT code, precision FROM ledger.unit WHERE unit = $1", close.unit)
    assert unit is not None, "a close names a unit"
    movements = await conn.fetch(sum_movements, close.unit, *scope)
    receipts = await conn.fetch(SUM_RECEIPTS, close.programme_code, *scope, close.from_day)
    marks = await conn.fetch(READ_MARKS, close.unit, close.close_number)
    return {
        "programme": close.programme_code,
        "unit": unit["code"],
        "precision": unit["precision"],
        "close_number": close.close_number,
        "period": journal_pb2.ClosePeriod.Name(close.period).removeprefix("CLOSE_PERIOD_").lower(),
        "from_day": close.from_day.isoformat() if close.from_day else None,
        "last_day": close.last_day.isoformat(),
        "marks": [[book, number, chain_hash.hex()] for book, number, chain_hash in marks],
        "currency": close.currency,
        "point_value_version": close.point_value_version,
        "default_point_value": [close.default_money_minor, close.default_points_minor],
        "movements": [[row["issue_month"].isoformat(), *tuple(row)[1:]] for row in movements],
        "receipts": [list(row) for row in receipts],
    }


async def _check_pair(conn: asyncpg.Connection, programme: Programme) -> None:
    other = await conn.fetchrow(READ_OTHER_PAIR, programme.code, programme.unit.number)
    if other is not None:
        raise CloseRefused(
            f"programme {other[0]!r} was closed with point unit {other[1]!r}: a programme keeps its code and its unit, "
            f"so {programme.code!r} cannot be closed with {programme.unit.code!r}"
        )


def first_open_day(closes: Sequence[CloseRow], period: int) -> date | None:
    """Return the first day that the next close of a period takes; None if it takes everything before its last."""
    before = [row for row in closes if period == DAY or row.period == MONTH]
    return before[-1].last_day + timedelta(days=1) if before else None


def check_day(period: int, last_day: date, now: datetime) -> None:
    """Raise CloseRefused for a day that has not begun, or is not the last of its month."""
    if period == MONTH and last_day != last_day_of_month(last_day):
        raise CloseRefused(f"{last_day} is not the last day of its month")
    if last_day > now.date():
        raise CloseRefused(f"{last_day} is not over: it is {now.date()}, and a future day cannot be closed")


def check_order(closes: Sequence[CloseRow], period: int, last_day: date) -> None:
    """Raise CloseRefused for what is closed: days up to the last one closed, months up to the last one closed."""
    for row in reversed(closes):
        if row.last_day > last_day or (row.last_day == last_day and (period == DAY or row.period == MONTH)):
            newest = closes[-1].last_day
            raise CloseRefused(
                f"{_name(period, last_day)} is closed: close {row.close_number} of {row.closed_at:%Y-%m-%d %H:%M} UTC "
                f"closed everything up to {row.last_day}; the first open day is {newest + timedelta(days=1)}"
            )


def _name(period: int, last_day: date) -> str:
    return f"{last_day:%Y-%m}" if period == MONTH else str(last_day)


async def _new_close(
    conn: asyncpg.Connection,
    programme: Programme,
    closes: Sequence[CloseRow],
    period: int,
    last_day: date,
    closed_by: str,
    now: datetime,
) -> CloseRow:
    """Return the next close, with the terms as they are now."""
    versions = await read_point_values(conn, programme.unit.number, NEWEST)
    return CloseRow(
        unit=programme.unit.number,
        close_number=len(closes) + 1,
        programme_code=programme.code,
        period=period,
        from_day=first_open_day(closes, period),
        last_day=last_day,
        closed_at=now,
        closed_by=closed_by,
        currency=programme.currency,
        currency_digits=programme.currency_digits,
        point_value_version=versions[-1].version if versions else 0,
        default_money_minor=programme.pays.numerator,
        default_points_minor=programme.pays.denominator,
    )


async def _mark(conn: asyncpg.Connection, close: CloseRow, now: datetime) -> None:
    """Record a close and append its mark to every book, under the fences that the caller holds."""
    await conn.execute(INSERT_CLOSE, *close)
    for book in range(await read_book_count(conn)):
        decision = await append_locked(conn, book, [_command(book, close, b"", now)], now)
        mark = decision.entries[-1]
        await conn.execute(INSERT_MARK, book, mark.number, close.unit, close.close_number, mark.hash)


async def _freeze(conn: asyncpg.Connection, close: CloseRow, totals: str, now: datetime) -> None:
    """Keep the totals, and append their digest, unless somebody else did so meanwhile."""
    async with conn.transaction():
        await lock_books(conn, [TOTALS_BOOK])
        frozen = [closed.row for closed in await read_closes(conn, close.unit) if closed.frozen is not None]
        if close not in frozen:
            digest = digest_of(totals)
            decision = await append_locked(conn, TOTALS_BOOK, [_command(TOTALS_BOOK, close, digest, now)], now)
            number = decision.entries[-1].number
            await conn.execute(INSERT_TOTALS, close.unit, close.close_number, totals, digest, TOTALS_BOOK, number)


def _command(book: int, close: CloseRow, totals_digest: bytes, now: datetime) -> model.Close:
    event = journal_pb2.Event(
        close=journal_pb2.Close(
            close_number=close.close_number,
            programme_code=close.programme_code,
            last_day=close.last_day.isoformat(),
            period=close.period,  # type: ignore[arg-type]  # an int
            closed_by=close.closed_by,
            totals_digest=totals_digest,
        )
    ).SerializeToString()
    return model.Close(book=book, content_hash=content_hash(None, event), event_at=now, member_id=None, event=event)
