"""Balances that the general ledger must have at the end of some days, added up another way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Final, NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.finance.closing import read_closes
from ledger.finance.general_ledger import Journal
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.scope import Query

MONTH: Final = int(journal_pb2.CLOSE_PERIOD_MONTH)


class Checkpoint(NamedTuple):
    """What must stand on the accounts at the end of a day.

    ``points_minor`` are credits less debits by account, from the trial balance; ``closing_money_minor`` is the
    liability by the roll-forward.
    """

    day: date
    points_minor: Mapping[str, int]
    closing_money_minor: int


async def read_checkpoints(conn: asyncpg.Connection, query: Query, journal: Journal) -> list[Checkpoint]:
    """Read the balances after every closed month of a journal, after the newest close, and at its end."""
    checkpoints = []
    for day, as_of in sorted((await _ends(conn, query, journal)).items()):
        at_end = replace(query, as_of=as_of, from_day=None, to_day=None if as_of else query.to_day)
        rows = (await trial_balance(conn, at_end)).rows
        points = {str(name): balance for name, _, _, balance in rows if name != "total" and isinstance(balance, int)}
        checkpoints.append(Checkpoint(day, points, await _closing_money(conn, at_end)))
    return checkpoints


async def _ends(conn: asyncpg.Connection, query: Query, journal: Journal) -> dict[date, int | None]:
    """Return the days after which balances are asserted, with the close that they are as of."""
    scope = journal.scope
    closes = [closed.row for closed in await read_closes(conn, scope.programme.unit.number)]
    taken = [row for row in closes if row.close_number <= scope.before_period and row.last_day <= scope.last_day]
    ends: dict[date, int | None] = {row.last_day: row.close_number for row in taken if row.period == MONTH}
    if taken:
        ends[taken[-1].last_day] = taken[-1].close_number
    if query.as_of is None and journal.lines and journal.lines[-1].day not in ends:
        ends[journal.lines[-1].day] = None
    return ends


async def _closing_money(conn: asyncpg.Connection, at_end: Query) -> int:
    rows = (await roll_forward(conn, replace(at_end, by="month", measure="money"))).rows
    closing = rows[-1][-1] if rows else 0
    assert isinstance(closing, int)
    return closing
