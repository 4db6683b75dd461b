"""Proof of the summaries and of the closes: both worked out a second time, from postings and payloads.

The summaries are made from payloads, an entry at a time; here the sums come from the postings' rows, by SQL. Run the
ledger's own `verify` first: it proves that payloads and postings say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.finance.closing import ClosedPeriod, add_up, canonical, digest_of, read_closes
from ledger.finance.summary import ReceiptRow, TotalKey
from ledger.reading.journal import read_heads
from ledger.verify import Problem

PAGE_ENTRIES: Final = 2000
Progress = Callable[[int], None]
"""Told how many more entries were checked."""

# Read the sums of a book.
READ_TOTALS: Final = f"""
SELECT {", ".join(TotalKey._fields)}, points_minor, postings FROM ledger.finance_total WHERE book = $1
"""  # noqa: S608 - our own columns

# A posting's accounts as finance adds them up: what is held counts as available (see `accounts.SUMMED_ACCOUNTS`).
SUMMED_PAIR: Final = """
SELECT a.*, CASE WHEN a.debit = 3 THEN 1 ELSE a.debit END AS summed_debit,
       CASE WHEN a.credit = 3 THEN 1 ELSE a.credit END AS summed_credit
FROM ledger.accounting_posting a WHERE NOT (a.debit IN (1, 3) AND a.credit IN (1, 3))
"""

# Add up the postings of a book up to its cursor; account 1000 + n is that of partner n.
SUM_POSTINGS: Final = f"""
SELECT p.period, p.business_day, p.unit, p.store_id, coalesce(partner.code, '') AS partner,
       date_trunc('month', coalesce(o.issued_at, e.booked_at) AT TIME ZONE 'UTC')::date AS issue_month,
       p.kind, p.summed_debit, p.summed_credit, sum(p.points_minor)::bigint, count(*)
FROM ({SUMMED_PAIR}) p
JOIN ledger.posting o ON o.book = p.book AND o.number = p.lot_number AND o.ordinal = p.lot_ordinal
JOIN ledger.entry e ON e.book = o.book AND e.number = o.number
LEFT JOIN ledger.partner ON partner.partner IN (p.debit - 1000, p.credit - 1000)
WHERE p.book = $1 AND p.number <= $2
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""  # noqa: S608 - our own words

# Add up what moved up to a close from the postings; it takes the place of `closing.SUM_MOVEMENTS`.
SUM_MOVEMENTS: Final = f"""
SELECT date_trunc('month', coalesce(o.issued_at, e.booked_at) AT TIME ZONE 'UTC')::date AS issue_month,
       p.kind, p.summed_debit, p.summed_credit, sum(p.points_minor)::bigint AS points_minor
FROM ({SUMMED_PAIR}) p
JOIN ledger.posting o ON o.book = p.book AND o.number = p.lot_number AND o.ordinal = p.lot_ordinal
JOIN ledger.entry e ON e.book = o.book AND e.number = o.number
WHERE p.unit = $1 AND p.period < $2 AND p.accounting_day <= $3
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""  # noqa: S608 - our own words

# Read a stretch of the register.
READ_REGISTER: Final = f"""
SELECT {", ".join(ReceiptRow._fields)} FROM ledger.receipt_register
WHERE book = $1 AND number > $2 AND number <= $3
"""  # noqa: S608 - our own columns

# Read a stretch of the entries that are receipts or closes.
READ_ENTRIES: Final = """
SELECT number, kind, event_at, booked_at, member_id, payload FROM ledger.entry
WHERE book = $1 AND number > $2 AND number <= $3 AND kind IN (1, 5, 9) ORDER BY number
"""

# Add up what moved between members and the programme or partners with the receipts in a stretch: into members'
# accounts, and out of them.
SUM_RECEIPT_POINTS: Final = """
SELECT p.number, u.code,
       coalesce(sum(p.points_minor) FILTER (WHERE p.debit IN (11, 12) OR p.debit > 1000), 0)::bigint AS points_in,
       coalesce(sum(p.points_minor) FILTER (WHERE p.credit IN (11, 12) OR p.credit > 1000), 0)::bigint AS points_out
FROM ledger.posting p JOIN ledger.unit u ON u.unit = p.unit
WHERE p.book = $1 AND p.number > $2 AND p.number <= $3
  AND (p.debit IN (1, 2, 3, 4) OR p.credit IN (1, 2, 3, 4))
GROUP BY p.number, u.code
"""


async def verify_summary(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> list[Problem]:
    """Return the first difference of each book between its summaries and what its entries say; nothing if sound.

    What was booked after the summaries' cursor is no difference. ``conn`` has the reader's rights and no transaction.
    """
    problems = []
    for book in await read_heads(conn):
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            problem = await _verify_book(conn, book, progress)
        if problem is not None:
            problems.append(problem)
    return problems


async def _verify_book(conn: asyncpg.Connection, book: int, progress: Progress) -> Problem | None:
    cursor = await conn.fetchrow("SELECT number, hash FROM ledger.finance_cursor WHERE book = $1", book)
    number = cursor["number"] if cursor is not None else 0
    if cursor is not None and number:
        chain_hash = await conn.fetchval("SELECT hash FROM ledger.entry WHERE book = $1 AND number = $2", book, number)
        if chain_hash != cursor["hash"]:
            return Problem(book, number, "the summaries were made from another journal")
    pages = range(0, number, PAGE_ENTRIES)
    register = _Register(book)
    for start in pages:
        end = min(start + PAGE_ENTRIES, number)
        problem = await register.check(conn, start, end)
        if problem is not None:
            return problem
        progress(end - start)
    beyond = await conn.fetchval(
        "SELECT min(number) FROM ledger.receipt_register WHERE book = $1 AND number > $2", book, number
    )
    if beyond is not None:
        return Problem(book, beyond, "it stands in the receipt register before it was summed")
    width = len(TotalKey._fields)
    actual = {tuple(row)[:width]: tuple(row)[width:] for row in await conn.fetch(READ_TOTALS, book)}
    expected = {tuple(row)[:width]: tuple(row)[width:] for row in await conn.fetch(SUM_POSTINGS, book, number)}
    return _first_difference(book, expected, actual)


def _first_difference(
    book: int, expected: Mapping[tuple[Any, ...], Any], actual: Mapping[tuple[Any, ...], Any]
) -> Problem | None:
    for key in sorted(expected.keys() | actual.keys()):
        if expected.get(key) != actual.get(key):
            named = ", ".join(f"{name} {value}" for name, value in zip(TotalKey._fields, key, strict=True))
            return Problem(
                book,
                0,
                f"the total of {named} is {_sums(actual.get(key))}, and the postings say {_sums(expected.get(key))}; "
                "`tallypoint finance rebuild` writes the summaries anew",
            )
    return None


def _sums(pair: tuple[int, int] | None) -> str:
    return "missing" if pair is None else f"{pair[0]} in {pair[1]} postings"


class _Register:
    """A walk over the receipts of a book."""

    def __init__(self, book: int) -> None:
        self._book = book
        self._periods: dict[str, int] = {}

    async def check(self, conn: asyncpg.Connection, after: int, until: int) -> Problem | None:
        """Compare a stretch of the register with its entries."""
        stretch = (self._book, after, until)
        rows = {row["number"]: ReceiptRow(*row) for row in await conn.fetch(READ_REGISTER, *stretch)}
        points: dict[tuple[int, str], tuple[int, int]] = {}
        for number, unit, points_in, points_out in await conn.fetch(SUM_RECEIPT_POINTS, *stretch):
            points[number, unit] = (points_in, points_out)
        for entry in await conn.fetch(READ_ENTRIES, *stretch):
            event = journal_pb2.Event.FromString(entry["payload"])
            if event.HasField("close"):
                if not event.close.totals_digest:
                    self._periods[event.close.programme_code] = event.close.close_number
                continue
            own = event.settlement.balance.unit
            expected = self._row(entry, event, points.get((entry["number"], own), (0, 0)))
            actual = rows.pop(entry["number"], None)
            if actual != expected:
                return Problem(self._book, entry["number"], f"the register says {actual}, and the entry {expected}")
        for number in sorted(rows):
            return Problem(self._book, number, "it stands in the receipt register and is no receipt")
        return None

    def _row(self, entry: asyncpg.Record, event: journal_pb2.Event, points: tuple[int, int]) -> ReceiptRow:
        is_return = event.HasField("goods_return")
        body: Any = event.goods_return if is_return else event.purchase
        if is_return:
            amounts = [(each.list_amount_minor, each.discount_minor) for each in body.lines]
            points_money = sum(each.points_money_minor for each in body.lines) + body.kept_back_money_minor
        else:
            amounts = [(each.list_amount_minor, each.discount_minor) for each in body.receipt.lines]
            points_money = event.settlement.spent_money_minor
            points_money += sum(each.spent_money_minor for each in event.settlement.units)
        list_amount, discount = sum(a for a, _ in amounts), sum(d for _, d in amounts)
        earned, spent = reversed(points) if is_return else points
        key = body.receipt_key
        return ReceiptRow(
            self._book,
            entry["number"],
            entry["kind"],
            key.store_id,
            key.terminal_id,
            date.fromisoformat(key.business_date),
            key.receipt_number,
            entry["event_at"],
            entry["booked_at"],
            entry["member_id"],
            self._periods.get(body.programme_code, 0),
            body.purchase_number if is_return else None,
            len(amounts),
            list_amount,
            discount,
            points_money,
            list_amount - discount - points_money,
            earned,
            spent,
            body.programme_code,
        )


async def verify_closes(conn: asyncpg.Connection, unit: int) -> list[str]:
    """Return what is wrong with the closes of a point unit, each in a sentence; nothing if all are sound.

    Each close's marks must stand in every book of the journal, and its totals, added up again from the postings, must
    have the digest that stands in the journal. ``conn`` has the reader's rights and no transaction.
    """
    problems = []
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        recorded = await read_closes(conn, unit)
        journal = await _journal_closes(conn)
        for closed in recorded:
            problem = await _verify_close(conn, closed, journal)
            if problem is not None:
                problems.append(f"close {closed.row.close_number} of {closed.row.programme_code!r}: {problem}")
        known = {(closed.row.programme_code, closed.row.close_number) for closed in recorded}
        codes = {closed.row.programme_code for closed in recorded}
        problems += [
            f"close {number} of {code!r} stands in the journal, but is not recorded"
            for code, number in sorted(journal)
            if code in codes and (code, number) not in known
        ]
    return problems


Found = dict[tuple[int, int], tuple[journal_pb2.Close, bytes]]
"""Close entries by book and number, with the chain's hash there."""


async def _journal_closes(conn: asyncpg.Connection) -> dict[tuple[str, int], Found]:
    """Return the journal's close entries by programme and close number."""
    found: dict[tuple[str, int], Found] = {}
    rows = await conn.fetch("SELECT book, number, hash, payload FROM ledger.entry WHERE kind = 9")
    for book, number, chain_hash, payload in rows:
        close = journal_pb2.Event.FromString(payload).close
        found.setdefault((close.programme_code, close.close_number), {})[(book, number)] = (close, chain_hash)
    return found


async def _verify_close(
    conn: asyncpg.Connection, closed: ClosedPeriod, journal: Mapping[tuple[str, int], Found]
) -> str | None:
    row, frozen = closed
    entries = dict(journal.get((row.programme_code, row.close_number), {}))
    told = (row.last_day.isoformat(), row.period, row.closed_by)
    if any((close.last_day, close.period, close.closed_by) != told for close, _ in entries.values()):
        return "the journal has another day, period or person for it"
    marks = {(book, number): h for (book, number), (close, h) in entries.items() if not close.totals_digest}
    recorded = {
        (r["book"], r["number"]): r["hash"]
        for r in await conn.fetch(
            "SELECT book, number, hash FROM ledger.close_mark WHERE unit = $1 AND close_number = $2",
            row.unit,
            row.close_number,
        )
    }
    if marks != recorded or {book for book, _ in marks} != set(await read_heads(conn)):
        return "its marks are not those of the journal"
    if frozen is None:
        digested = any(close.totals_digest for close, _ in entries.values())
        return "the journal has the digest of its totals, and they are gone" if digested else None
    totals_entry = entries.get((frozen.book, frozen.number))
    if totals_entry is None or not totals_entry[0].totals_digest == frozen.digest == digest_of(frozen.text):
        return "its totals do not have the digest that stands in the journal"
    if canonical(await add_up(conn, row, SUM_MOVEMENTS)) != frozen.text:
        return "its totals, added up again from the postings, differ from those that were frozen"
    return None
