"""Breaks in the database: as they are now, and their history, which is only ever added to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from server.reconciliation.carry_over import KeptBreak, Step
from server.reconciliation.model import (
    Break,
    BreakChange,
    BreakKind,
    BreakState,
    Figure,
    Measure,
    TerminalDay,
)
from server.reconciliation.receipt_numbers import parse, text_of

if TYPE_CHECKING:
    from server.base.database import Connection

_COLUMNS: Final = (
    "break_id, store_id, terminal_id, business_date, kind, subject, receipt_count, numbers, figures, detail, state, "
    "opened_at, changed_at, worked_by, note, events"
)

# All breaks of a store's days.
READ_OF_DAYS: Final = f"""
SELECT {_COLUMNS} FROM server.reconciliation_break WHERE store_id = $1 AND business_date BETWEEN $2 AND $3
"""  # noqa: S608 - constant

# A break and others whose ids begin alike, under lock.
READ_BY_ID: Final = f"""
SELECT {_COLUMNS} FROM server.reconciliation_break WHERE break_id BETWEEN $1 AND $1 || 'g'
ORDER BY break_id LIMIT 2 FOR UPDATE
"""  # noqa: S608 - constant

# The history of a break.
READ_EVENTS: Final = """
SELECT change, at, by, state, note, receipt_count, figures FROM server.reconciliation_event
WHERE break_id = $1 ORDER BY number
"""

_WHERE: Final = """
WHERE state = ANY ($1::smallint[]) AND kind = ANY ($2::smallint[]) AND ($3 = '' OR store_id = $3)
  AND ($4::date IS NULL OR business_date >= $4) AND ($5::date IS NULL OR business_date <= $5)
  AND opened_at <= $6
"""

# A page of breaks.
READ_PAGE: Final = f"""
SELECT {_COLUMNS} FROM server.reconciliation_break {_WHERE} AND (business_date, break_id) > ($7::date, $8)
ORDER BY business_date, break_id LIMIT $9
"""  # noqa: S608 - constant

# How many breaks all pages have.
COUNT_ALL: Final = f"SELECT count(*) FROM server.reconciliation_break {_WHERE}"  # noqa: S608 - constant

# How many breaks of days are open; no stores stand for all.
COUNT_OPEN: Final = """
SELECT count(*) FROM server.reconciliation_break
WHERE state = 1 AND business_date BETWEEN $1 AND $2 AND (cardinality($3::text[]) = 0 OR store_id = ANY ($3))
"""

# Keep a break as it is now.
PUT_BREAK: Final = f"""
INSERT INTO server.reconciliation_break ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (break_id) DO UPDATE
SET receipt_count = excluded.receipt_count, numbers = excluded.numbers, figures = excluded.figures,
    detail = excluded.detail, state = excluded.state, opened_at = excluded.opened_at,
    changed_at = excluded.changed_at, worked_by = excluded.worked_by, note = excluded.note, events = excluded.events
"""  # noqa: S608 - constant

# Add to a break's history.
PUT_EVENT: Final = """
INSERT INTO server.reconciliation_event (break_id, number, at, by, run_id, change, state, note, receipt_count, figures)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


class Wanted(NamedTuple):
    """Which breaks a list has; an empty store and missing days stand for all."""

    states: Sequence[BreakState]
    kinds: Sequence[BreakKind]
    store_id: str
    first: date | None
    last: date | None
    opened_by: datetime


class Event(NamedTuple):
    """One step of a break's history."""

    change: BreakChange
    at: datetime
    by: str
    state: BreakState
    note: str
    receipt_count: int
    figures: tuple[Figure, ...]


async def read_of_days(conn: Connection, store_id: str, first: date, last: date) -> list[KeptBreak]:
    """Return all breaks of a store's days, whatever their state."""
    return [_kept_break(row) for row in await conn.fetch(READ_OF_DAYS, store_id, first, last)]


async def read_by_id(conn: Connection, break_id: str) -> list[KeptBreak]:
    """Return the break with this id, or two whose ids begin like it; lock them for the caller's transaction."""
    return [_kept_break(row) for row in await conn.fetch(READ_BY_ID, break_id)]


async def read_events(conn: Connection, break_id: str) -> list[Event]:
    """Return the history of a break, oldest first."""
    return [
        Event(
            BreakChange(row["change"]),
            row["at"],
            row["by"],
            BreakState(row["state"]),
            row["note"],
            row["receipt_count"],
            _figures(row["figures"]),
        )
        for row in await conn.fetch(READ_EVENTS, break_id)
    ]


async def read_page(
    conn: Connection, wanted: Wanted, after: tuple[date, str], limit: int
) -> tuple[list[KeptBreak], int]:
    """Return the breaks after a place in the list, and how many the whole list has."""
    rows = await conn.fetch(READ_PAGE, *wanted, *after, limit)
    return [_kept_break(row) for row in rows], int(await conn.fetchval(COUNT_ALL, *wanted))


async def count_open(conn: Connection, first: date, last: date, store_ids: Sequence[str]) -> int:
    """Return how many breaks of these days and stores are open; no stores stand for all."""
    return int(await conn.fetchval(COUNT_OPEN, first, last, store_ids))


async def write(conn: Connection, steps: Iterable[Step], by: str, run_id: uuid.UUID | None = None) -> None:
    """Keep what a run, or a person, has changed, inside the caller's transaction."""
    steps = list(steps)
    await conn.executemany(PUT_BREAK, [_break_row(step.after) for step in steps])
    await conn.executemany(PUT_EVENT, [_event_row(step, by, run_id) for step in steps])


def _break_row(one: KeptBreak) -> tuple[object, ...]:
    what = one.what
    return (
        *(what.break_id, *what.place, what.kind, what.subject, what.receipt_count, text_of(what.numbers)),
        *(json.dumps(what.figures), what.detail, one.state, one.opened_at, one.changed_at),
        *(one.worked_by, one.note, one.events),
    )


def _event_row(step: Step, by: str, run_id: uuid.UUID | None) -> tuple[object, ...]:
    one = step.after
    return (
        *(one.what.break_id, one.events, one.changed_at, by, run_id, step.change, one.state),
        *(step.note, one.what.receipt_count, json.dumps(one.what.figures)),
    )


def _kept_break(row: asyncpg.Record) -> KeptBreak:
    what = Break(
        TerminalDay(row["store_id"], row["terminal_id"], row["business_date"]),
        BreakKind(row["kind"]),
        row["subject"],
        row["receipt_count"],
        parse(row["numbers"]),
        _figures(row["figures"]),
        row["detail"],
    )
    return KeptBreak(
        what,
        BreakState(row["state"]),
        row["opened_at"],
        row["changed_at"],
        row["worked_by"],
        row["note"],
        row["events"],
    )


def _figures(text: str) -> tuple[Figure, ...]:
    return tuple(Figure(Measure(measure), expected, found) for measure, expected, found in json.loads(text))
