"""A member's statement: what they had, every movement with its receipt, promotions and lot, what they have."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.accounts import is_granting
from ledger.entry.books import book_of_member
from ledger.entry.model import Unit
from ledger.finance.accounts import KIND_NAMES, movement_of
from ledger.finance.scope import Query, Scope, open_scope
from ledger.finance.table import Column, Table, Value
from ledger.reading.books import read_book_count

PAGE_ENTRIES: Final = 500

# Read a member's entries in order.
READ_ENTRIES: Final = """
SELECT number, booked_at, kind, payload FROM ledger.entry
WHERE book = $1 AND member_id = $2 AND number > $3 ORDER BY number LIMIT $4
"""

# Read where the closes of a unit end in a book, and on which day.
READ_MARKS: Final = """
SELECT m.number, m.close_number, c.last_day
FROM ledger.close_mark m JOIN ledger.close c ON c.unit = m.unit AND c.close_number = m.close_number
WHERE m.book = $1 AND m.unit = $2 ORDER BY m.number
"""


class Line(NamedTuple):
    """One movement. ``change_minor`` is what it does to the balance: available, pending and held points less debt."""

    accounting_day: date
    number: int
    ordinal: int
    booked_at: datetime
    event: str
    receipt: str
    detail: str
    promotions: str
    lot: str
    from_account: str
    to_account: str
    points_minor: int
    change_minor: int


async def member_statement(conn: asyncpg.Connection, query: Query, member_id: uuid.UUID) -> Table:
    """Return a member's statement from ``query.from_day`` to the last day, in the order of accounting days.

    Raises:
        QueryError: there is no such close, or the days are in the wrong order.
    """
    scope = await open_scope(conn, query)
    book = book_of_member(member_id, await read_book_count(conn))
    lines = sorted([line async for line in _lines(conn, scope, book, member_id)])
    balance = sum(line.change_minor for line in lines if _is_before(line, query))
    rows: list[tuple[Value, ...]] = [_balance_row("opening balance", query.from_day, balance)]
    for line in lines:
        if not _is_before(line, query):
            balance += line.change_minor
            rows.append(_row(line, balance))
    rows.append(_balance_row("closing balance", None if scope.last_day == date.max else scope.last_day, balance))
    notes = (
        scope.note(),
        "Change and balance count available, pending and held points, less points owed.",
        f"The lots are numbered in book {book}.",
    )
    title = f"Statement of member {member_id} in {scope.programme.unit.code}"
    return Table(title, _columns(scope.programme.unit.precision), tuple(rows), notes)


def _is_before(line: Line, query: Query) -> bool:
    return query.from_day is not None and line.accounting_day < query.from_day


async def _lines(conn: asyncpg.Connection, scope: Scope, book: int, member_id: uuid.UUID) -> AsyncIterator[Line]:
    """Yield the movements that belong to a scope, in the order of entries."""
    marks = [tuple(row) for row in await conn.fetch(READ_MARKS, book, scope.programme.unit.number)]
    number, open_from = 0, date.min
    while entries := await conn.fetch(READ_ENTRIES, book, member_id, number, PAGE_ENTRIES):
        for number, booked_at, kind, payload in entries:
            while marks and marks[0][0] < number:
                _, close_number, last_day = marks.pop(0)
                if close_number >= scope.before_period:
                    return
                open_from = last_day + timedelta(days=1)
            event = journal_pb2.Event.FromString(payload)
            key = _receipt_key(event)
            business_day = date.fromisoformat(key.business_date) if key is not None else booked_at.date()
            day = max(business_day, open_from)
            if day <= scope.last_day:
                for line in _lines_of(event, scope, day, number, booked_at, kind):
                    yield line


def _lines_of(
    event: journal_pb2.Event, scope: Scope, day: date, number: int, booked_at: datetime, kind: int
) -> Iterator[Line]:
    unit = scope.programme.unit
    key = _receipt_key(event)
    receipt = "" if key is None else _shown_key(key)
    detail, promotions = _detail(event), _promotions(event, unit)
    for ordinal, posting in enumerate(event.postings, start=1):
        if posting.unit != unit.number:
            continue
        moved = movement_of(posting.debit, posting.credit, kind)
        yield Line(
            day,
            number,
            ordinal,
            booked_at,
            KIND_NAMES[kind],
            receipt,
            detail,
            promotions if is_granting(posting.debit) else "",
            f"{posting.lot_number or number}/{posting.lot_ordinal}",
            scope.account_name(posting.debit),
            scope.account_name(posting.credit),
            posting.points_minor,
            moved[1] * posting.points_minor if moved else 0,
        )


def _receipt_key(event: journal_pb2.Event) -> common_pb2.ReceiptKey | None:
    """Return the key of the entry's own receipt."""
    which = event.WhichOneof("event")
    if which == "purchase":
        return event.purchase.receipt_key
    return event.goods_return.receipt_key if which == "goods_return" else None


def _shown_key(key: common_pb2.ReceiptKey) -> str:
    return f"{key.store_id}/{key.terminal_id}/{key.business_date}/{key.receipt_number}"


def _detail(event: journal_pb2.Event) -> str:
    """Return what a person wants to know beside the kind of event."""
    which = event.WhichOneof("event")
    if which == "goods_return":
        return f"of {_shown_key(event.goods_return.purchase_key)}"
    if which == "hold":
        key = event.hold.checkout_key
        return f"{key.store_id}/{key.terminal_id}"
    if which == "adjustment":
        return event.adjustment.reason_code
    if which == "transfer":
        direction = "to" if event.transfer.outgoing else "from"
        return f"{event.transfer.reason_code} {direction} {event.transfer.other_member_id}"
    return ""


def _promotions(event: journal_pb2.Event, unit: Unit) -> str:
    """Return the promotions by which a purchase earned points of a unit, in order, with commas."""
    effects = event.purchase.effects if event.WhichOneof("event") == "purchase" else ()
    own = event.settlement.balance.unit
    accruals = (accrual for line in effects for accrual in line.accruals)
    return ", ".join(sorted({accrual.promotion_id for accrual in accruals if (accrual.unit or own) == unit.code}))


def _row(line: Line, balance: int) -> tuple[Value, ...]:
    return (
        line.booked_at,
        line.accounting_day,
        line.event,
        line.receipt,
        line.detail,
        line.promotions,
        line.lot,
        line.from_account,
        line.to_account,
        line.points_minor,
        line.change_minor,
        balance,
    )


def _balance_row(event: str, day: date | None, balance: int) -> tuple[Value, ...]:
    return (None, day, event, None, None, None, None, None, None, None, None, balance)


def _columns(precision: int) -> tuple[Column, ...]:
    return (
        Column("booked_at", "Booked", "moment"),
        Column("accounting_day", "Day", "day"),
        Column("event", "Event", "text"),
        Column("receipt", "Receipt", "text"),
        Column("detail", "Detail", "text"),
        Column("promotions", "Promotions", "text"),
        Column("lot", "Lot", "text"),
        Column("from_account", "From", "text"),
        Column("to_account", "To", "text"),
        Column("moved_points", "Points", "points", precision),
        Column("change_points", "Change", "points", precision),
        Column("balance_points", "Balance", "points", precision),
    )
