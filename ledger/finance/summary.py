"""The summaries that reports read: sums of postings, and the register of receipts, kept up to date from the journal.

Each book has a cursor. A stretch of entries, its sums and its receipts are written in one transaction with the cursor,
under the lock of the cursor's row: the work can stop and go on anywhere, and two may work at once. Entries must extend
the chain that the cursor ends in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.accounts import is_partner
from ledger.entry.books import genesis_hash
from ledger.entry.chain import EntryRecord
from ledger.entry.model import EXPIRED
from ledger.entry.returns import points_money_of
from ledger.finance.accounts import summed_account
from ledger.reading.journal import read_entries, read_heads, read_ledger_id
from ledger.reading.partners import read_partner_codes

CHUNK_ENTRIES: Final = 4000
"""Entries summed in one transaction."""

Progress = Callable[[int], None]
"""Told how many more entries were summed."""

_PURCHASE: Final = int(journal_pb2.ENTRY_KIND_PURCHASE)
_RETURN: Final = int(journal_pb2.ENTRY_KIND_RETURN)
_CLOSE: Final = int(journal_pb2.ENTRY_KIND_CLOSE)


class SummaryError(Exception):
    """The journal does not continue what was summed, or a summary is not what the journal says."""


class TotalKey(NamedTuple):
    """What a row of ``ledger.finance_total`` adds up, after its book."""

    period: int
    business_day: date
    unit: int
    store_id: str
    partner: str
    issue_month: date
    kind: int
    debit: int
    credit: int


class ReceiptRow(NamedTuple):
    """A row of ``ledger.receipt_register``. Points are of the programme's own unit, money paid by points of all."""

    book: int
    number: int
    kind: int
    store_id: str
    terminal_id: str
    business_date: date
    receipt_number: int
    event_at: datetime
    booked_at: datetime
    member_id: Any
    period: int
    purchase_number: int | None
    lines: int
    list_amount_minor: int
    discount_minor: int
    points_money_minor: int
    net_amount_minor: int
    points_earned_minor: int
    points_spent_minor: int
    programme_code: str


class Mark(NamedTuple):
    """Where a close ends in a book."""

    number: int
    unit: int
    close_number: int
    programme_code: str


@dataclass(slots=True)
class Periods:
    """How many closes came before a place in a book: by point unit for postings, by programme for receipts."""

    units: dict[int, int] = field(default_factory=dict)
    programmes: dict[str, int] = field(default_factory=dict)

    def pass_mark(self, mark: Mark) -> None:
        """Begin a new period."""
        self.units[mark.unit] = mark.close_number
        self.programmes[mark.programme_code] = mark.close_number


# Open a book's cursor at its beginning.
OPEN_CURSOR: Final = "INSERT INTO ledger.finance_cursor (book, number, hash) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING"

# Lock a book's cursor, alone in its statement, so that what is read afterwards is the newest.
LOCK_CURSOR: Final = "SELECT number, hash FROM ledger.finance_cursor WHERE book = $1 FOR UPDATE"

# Move a book's cursor.
MOVE_CURSOR: Final = "UPDATE ledger.finance_cursor SET number = $2, hash = $3 WHERE book = $1"

# Read the marks of closes in a book, up to an entry.
READ_MARKS: Final = """
SELECT m.number, m.unit, m.close_number, c.programme_code
FROM ledger.close_mark m JOIN ledger.close c ON c.unit = m.unit AND c.close_number = m.close_number
WHERE m.book = $1 AND m.number <= $2 ORDER BY m.number
"""

# Read when the points of lots were first granted.
READ_ISSUED_AT: Final = """
SELECT p.number, p.ordinal, coalesce(p.issued_at, e.booked_at)
FROM unnest($2::bigint[], $3::smallint[]) AS wanted (number, ordinal)
JOIN ledger.posting p ON p.book = $1 AND p.number = wanted.number AND p.ordinal = wanted.ordinal
JOIN ledger.entry e ON e.book = $1 AND e.number = wanted.number
"""

# Add to the sums; each row occurs once.
ADD_TOTALS: Final = """
INSERT INTO ledger.finance_total AS t (book, period, business_day, unit, store_id, partner, issue_month, kind, debit,
                                       credit, points_minor, postings)
SELECT $1, * FROM unnest($2::int[], $3::date[], $4::smallint[], $5::text[], $6::text[], $7::date[], $8::smallint[],
                         $9::smallint[], $10::smallint[], $11::bigint[], $12::bigint[])
ON CONFLICT (book, period, business_day, unit, store_id, partner, issue_month, kind, debit, credit) DO UPDATE
SET points_minor = t.points_minor + excluded.points_minor, postings = t.postings + excluded.postings
"""


async def bring_up_to_date(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> int:
    """Sum what was booked since the last time, up to the heads as they are now; return the number of entries.

    ``conn`` has the writer's rights and no transaction.

    Raises:
        SummaryError: a book does not continue what was summed; the journal was changed.
    """
    assert not conn.is_in_transaction(), "each stretch is a transaction of its own"
    ledger_id = await read_ledger_id(conn)
    entries = 0
    for book, head in (await read_heads(conn)).items():
        await conn.execute(OPEN_CURSOR, book, genesis_hash(ledger_id, book))
        number = 0
        while number < head.number:
            async with conn.transaction():
                number, summed = await _sum_next(conn, book)
            entries += summed
            progress(summed)
    return entries


async def count_pending(conn: asyncpg.Connection) -> int:
    """Return how many entries ``bring_up_to_date`` would sum."""
    heads = await read_heads(conn)
    return sum(head.number for head in heads.values()) - await count_summed(conn)


async def count_summed(conn: asyncpg.Connection) -> int:
    """Return how many entries are summed."""
    return int(await conn.fetchval("SELECT coalesce(sum(number), 0) FROM ledger.finance_cursor"))


async def rebuild_summary(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> int:
    """Sum everything anew over an owner's connection; return the number of entries."""
    async with conn.transaction():
        await conn.execute("TRUNCATE ledger.finance_cursor, ledger.finance_total, ledger.receipt_register")
    return await bring_up_to_date(conn, progress)


async def _sum_next(conn: asyncpg.Connection, book: int) -> tuple[int, int]:
    """Sum the next stretch of a book; return where the cursor stands then, and how many entries were summed."""
    cursor = await conn.fetchrow(LOCK_CURSOR, book)
    assert cursor is not None, "the cursor was opened"
    entries = await read_entries(conn, book, cursor["number"], CHUNK_ENTRIES)
    if not entries:
        return cursor["number"], 0
    _check_chain(entries, cursor["number"], cursor["hash"])
    marks = [Mark(*row) for row in await conn.fetch(READ_MARKS, book, entries[-1].number)]
    stretch = Stretch(book, marks, await read_partner_codes(conn))
    for entry in entries:
        stretch.take(entry)
    earlier = await _issue_months(conn, book, stretch.lots_wanted())
    totals = stretch.totals(earlier)
    if totals:
        columns = zip(*[(*key, *sums) for key, sums in totals.items()], strict=True)
        await conn.execute(ADD_TOTALS, book, *columns)
    await conn.copy_records_to_table(
        "receipt_register", schema_name="ledger", columns=ReceiptRow._fields, records=stretch.receipts
    )
    await conn.execute(MOVE_CURSOR, book, entries[-1].number, entries[-1].hash)
    return entries[-1].number, len(entries)


def _check_chain(entries: Sequence[EntryRecord], number: int, chain_hash: bytes) -> None:
    for entry in entries:
        if entry.number != number + 1 or entry.hash_after(chain_hash) != entry.hash:
            raise SummaryError(
                f"book {entry.book}, entry {number + 1}: it does not continue the chain that was summed; "
                "run `tallypoint ledger verify`"
            )
        number, chain_hash = entry.number, entry.hash


async def _issue_months(
    conn: asyncpg.Connection, book: int, lots: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], date]:
    """Return the months in which lots of earlier entries were first granted."""
    if not lots:
        return {}
    numbers, ordinals = zip(*lots, strict=True)
    found = {(n, o): month_of(at) for n, o, at in await conn.fetch(READ_ISSUED_AT, book, numbers, ordinals)}
    for lot in lots:
        if lot not in found:
            raise SummaryError(f"book {book}: a posting names lot {lot[0]}/{lot[1]}, which nothing granted")
    return found


class _Moved(NamedTuple):
    """A posting, its lot, and what is known of it from its entry."""

    period: int
    business_day: date
    unit: int
    store_id: str
    partner: str
    lot: tuple[int, int]
    kind: int
    debit: int
    credit: int
    points_minor: int


class Stretch:
    """What a stretch of a book's entries adds up to. Each payload is parsed once.

    ``marks`` are the book's marks up to the end of the stretch, ``partners`` the partners' codes by their accounts.
    """

    def __init__(self, book: int, marks: Sequence[Mark], partners: Mapping[int, str]) -> None:
        self.receipts: list[ReceiptRow] = []
        self._book = book
        self._partners = partners
        self._marks = {mark.number: mark for mark in marks}
        self._earlier_marks = list(marks)
        self._periods = Periods()
        self._moved: list[_Moved] = []
        self._issue_months: dict[tuple[int, int], date] = {}
        self._started = False

    def take(self, entry: EntryRecord) -> None:
        """Take in the next entry."""
        if not self._started:
            self._started = True
            for mark in self._earlier_marks:
                if mark.number < entry.number:
                    self._periods.pass_mark(mark)
        event = journal_pb2.Event.FromString(entry.payload)
        business_day, store_id = entry.booked_at.date(), ""
        if entry.kind == _PURCHASE:
            receipt = self._purchase(entry, event)
        elif entry.kind == _RETURN:
            receipt = self._return(entry, event)
        else:
            receipt = None
            if entry.kind == _CLOSE:
                self._close(entry, event.close)
        if receipt is not None:
            self.receipts.append(receipt)
            business_day, store_id = receipt.business_date, receipt.store_id
        if event.postings:
            self._postings(entry, event, business_day, store_id)

    def lots_wanted(self) -> list[tuple[int, int]]:
        """Return the lots that earlier entries granted."""
        return list({moved.lot for moved in self._moved if moved.lot not in self._issue_months})

    def totals(self, earlier: dict[tuple[int, int], date]) -> dict[TotalKey, list[int]]:
        """Return points and number of postings by key; ``earlier`` has the issue months of ``lots_wanted``."""
        months = {**earlier, **self._issue_months}
        sums: dict[TotalKey, list[int]] = defaultdict(lambda: [0, 0])
        for period, day, unit, store_id, partner, lot, kind, debit, credit, points_minor in self._moved:
            pair = sums[TotalKey(period, day, unit, store_id, partner, months[lot], kind, debit, credit)]
            pair[0] += points_minor
            pair[1] += 1
        return sums

    def _close(self, entry: EntryRecord, close: journal_pb2.Close) -> None:
        mark = self._marks.get(entry.number)
        if close.totals_digest:
            return
        if mark is None or (mark.close_number, mark.programme_code) != (close.close_number, close.programme_code):
            raise SummaryError(f"book {entry.book}, entry {entry.number}: it marks a close that is not recorded")
        self._periods.pass_mark(mark)

    def _postings(self, entry: EntryRecord, event: journal_pb2.Event, business_day: date, store_id: str) -> None:
        number, units, booked_month = entry.number, self._periods.units, month_of(entry.booked_at)
        for ordinal, posting in enumerate(event.postings, start=1):
            lot = (posting.lot_number or number, posting.lot_ordinal)
            if lot == (number, ordinal):
                first = posting.HasField("issued_at")
                self._issue_months[lot] = month_of(_moment(posting.issued_at)) if first else booked_month
            debit, credit = summed_account(posting.debit), summed_account(posting.credit)
            if debit == credit:
                continue
            self._moved.append(
                _Moved(
                    units.get(posting.unit, 0),
                    business_day,
                    posting.unit,
                    "" if credit == EXPIRED else store_id,
                    self._partner(entry, debit, credit),
                    lot,
                    entry.kind,
                    debit,
                    credit,
                    posting.points_minor,
                )
            )

    def _partner(self, entry: EntryRecord, debit: int, credit: int) -> str:
        """Return the code of the partner with whom a posting is settled; empty if it is none."""
        for account in (debit, credit):
            if is_partner(account):
                if account not in self._partners:
                    raise SummaryError(f"book {entry.book}, entry {entry.number}: no partner has account {account}")
                return self._partners[account]
        return ""

    def _purchase(self, entry: EntryRecord, event: journal_pb2.Event) -> ReceiptRow:
        purchase = event.purchase
        lines = purchase.receipt.lines
        list_amount = sum([line.list_amount_minor for line in lines])
        discount = sum([line.discount_minor for line in lines])
        points_money = points_money_of(event.settlement)
        return self._row(
            entry,
            purchase.receipt_key,
            purchase.programme_code,
            None,
            (len(lines), list_amount, discount, points_money, list_amount - discount - points_money),
            event.settlement.accrual_points_minor,
            event.settlement.spent_points_minor,
        )

    def _return(self, entry: EntryRecord, event: journal_pb2.Event) -> ReceiptRow:
        body = event.goods_return
        lines = body.lines
        return self._row(
            entry,
            body.receipt_key,
            body.programme_code,
            body.purchase_number,
            (
                len(lines),
                sum([line.list_amount_minor for line in lines]),
                sum([line.discount_minor for line in lines]),
                sum([line.points_money_minor for line in lines]) + body.kept_back_money_minor,
                body.refund_money_minor,
            ),
            event.settlement.clawback_points_minor + event.settlement.clawback_debt_points_minor,
            event.settlement.refund_points_minor,
        )

    def _row(
        self,
        entry: EntryRecord,
        key: common_pb2.ReceiptKey,
        programme_code: str,
        purchase_number: int | None,
        money: tuple[int, int, int, int, int],
        earned: int,
        spent: int,
    ) -> ReceiptRow:
        return ReceiptRow(
            self._book,
            entry.number,
            entry.kind,
            key.store_id,
            key.terminal_id,
            date.fromisoformat(key.business_date),
            key.receipt_number,
            entry.event_at,
            entry.booked_at,
            entry.member_id,
            self._periods.programmes.get(programme_code, 0),
            purchase_number,
            *money,
            earned,
            spent,
            programme_code,
        )


def month_of(moment: datetime) -> date:
    """Return the first day of the month (UTC) of a moment that is in UTC."""
    return date(moment.year, moment.month, 1)


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
