"""What the general ledger books: a line for each accounting day, kind of event and pair of accounts.

The lines of a closed day never change. Each period is valued with the terms of the close that took it; when these
differ from those before, what was outstanding is revalued by a line of its own. So the lines as of a close are the
first lines as of every later one, and at the end of every period they add up to the liability as of its close.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from itertools import groupby
from types import MappingProxyType
from typing import Final, NamedTuple

import asyncpg

from ledger.entry.model import AVAILABLE
from ledger.finance.accounts import ACCOUNT_NAMES, KIND_NAMES, account_name, movement_of
from ledger.finance.closing import read_closes
from ledger.finance.point_value import PointValues
from ledger.finance.rounding import Cumulative
from ledger.finance.scope import Query, Scope, open_scope, scope_of_close
from ledger.finance.table import Column, Table

REVALUATION: Final = "revaluation"
"""The kind of the lines that revalue what is outstanding."""
REVALUED: Final = "revalued"
"""The account that a revaluation is booked against; the books know no such account."""

# Sum what postings moved by accounting day, kind of event, pair of accounts and issue month.
READ_DAYS: Final = """
SELECT accounting_day, kind, debit, credit, issue_month, sum(points_minor)::bigint
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3
GROUP BY accounting_day, kind, debit, credit, issue_month
ORDER BY accounting_day, kind, debit, credit, issue_month
"""


class DaySum(NamedTuple):
    """Points that moved from one account to another on an accounting day, of one issue month."""

    day: date
    kind: int
    debit: int
    credit: int
    issue_month: date
    points_minor: int


class Period(NamedTuple):
    """Days that one close took (None: not closed yet), and the values they are booked with.

    A period begins on the day after the one before; a month that is closed after its last day was has no days.
    """

    close_number: int | None
    last_day: date
    values: PointValues


class Line(NamedTuple):
    """Points and money that the general ledger debits one account with, and credits another.

    Accounts and kinds are names, as `accounts.account_name` gives them, and `REVALUED`, `REVALUATION`.
    """

    day: date
    close_number: int | None
    kind: str
    debit: str
    credit: str
    points_minor: int
    money_minor: int


class Journal(NamedTuple):
    """The lines of a report, in order, and all lines before its first day."""

    scope: Scope
    before: Sequence[Line]
    lines: Sequence[Line]


async def general_ledger(conn: asyncpg.Connection, query: Query) -> Table:
    """Return a row for each accounting day, kind of event and pair of accounts, in points and money.

    Raises:
        QueryError: there is no such close, or the days are in the wrong order.
    """
    journal = await read_journal(conn, query)
    return lines_table(journal.scope, journal.lines)


def lines_table(scope: Scope, lines: Sequence[Line]) -> Table:
    """Return lines as a report."""
    programme = scope.programme
    columns = (
        Column("day", "Day", "day"),
        Column("close", "Close", "integer"),
        Column("kind", "Kind", "text"),
        Column("debit", "Debit", "text"),
        Column("credit", "Credit", "text"),
        Column("points", "Points", "points", programme.unit.precision),
        Column("money", f"Money, {programme.currency}", "money", programme.currency_digits),
    )
    return Table("General ledger", columns, tuple(lines), (scope.note(), VALUED))


VALUED: Final = "Money: points at the allocated value of their issue month, rounded so that all lines add up."


async def read_journal(conn: asyncpg.Connection, query: Query) -> Journal:
    """Read and value the lines; for the errors see `general_ledger`."""
    scope = await open_scope(conn, query)
    sums = [DaySum(*row) for row in await conn.fetch(READ_DAYS, *scope.parameters)]
    lines = list(book(sums, await _read_periods(conn, scope), scope.partners))
    lines = [line for line in lines if line.day <= scope.last_day]
    if query.from_day is None:
        return Journal(scope, (), lines)
    first = query.from_day
    return Journal(scope, [line for line in lines if line.day < first], [line for line in lines if line.day >= first])


async def _read_periods(conn: asyncpg.Connection, scope: Scope) -> list[Period]:
    unit = scope.programme.unit
    periods = []
    for close in await read_closes(conn, unit.number):
        if close.row.close_number <= scope.before_period:
            values = (await scope_of_close(conn, close.row, unit)).values
            periods.append(Period(close.row.close_number, close.row.last_day, values))
    if scope.as_of is None:
        periods.append(Period(None, date.max, scope.values))
    return periods


def book(
    sums: Iterable[DaySum], periods: Sequence[Period], partners: Mapping[int, str] = MappingProxyType({})
) -> Iterator[Line]:
    """Yield the lines of all periods.

    Args:
        sums: What moved, in the order of days; every day belongs to a period.
        periods: In order; their days follow each other.
        partners: The partners' codes by their accounts.
    """
    valued = _Valued(periods[0].values) if periods else None
    days = [(day, list(of_day)) for day, of_day in groupby(sums, key=lambda each: each.day)]
    first_day, index = date.min, 0
    for period in periods:
        assert valued is not None
        if period.values != valued.values:
            amount = valued.revalue(period.values)
            if amount:
                accounts = (REVALUED, ACCOUNT_NAMES[AVAILABLE])
                debit, credit = accounts if amount > 0 else reversed(accounts)
                day = min(first_day, period.last_day)
                yield Line(day, period.close_number, REVALUATION, debit, credit, 0, abs(amount))
        while index < len(days) and days[index][0] <= period.last_day:
            yield from _book_day(days[index][1], period, valued, partners)
            index += 1
        first_day = period.last_day + timedelta(days=1) if period.last_day < date.max else date.max


def _book_day(of_day: Sequence[DaySum], period: Period, valued: _Valued, partners: Mapping[int, str]) -> Iterator[Line]:
    for (kind, debit, credit), each in groupby(of_day, key=lambda one: (one.kind, one.debit, one.credit)):
        points = {one.issue_month: one.points_minor for one in each}
        money_minor = valued.add(debit, credit, kind, points)
        names = (KIND_NAMES[kind], account_name(debit, partners), account_name(credit, partners))
        yield Line(of_day[0].day, period.close_number, *names, sum(points.values()), money_minor)


@dataclass
class _Valued:
    """Money sums from the beginning, one for each movement of the liability, rounded as the roll-forward rounds them.

    Postings within members' accounts have sums of their own: they change no liability.
    """

    values: PointValues
    moved: dict[object, dict[date, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    sums: dict[object, Cumulative] = field(default_factory=lambda: defaultdict(Cumulative))

    def add(self, debit: int, credit: int, kind: int, points_by_month: Mapping[date, int]) -> int:
        """Count a movement and return its money, which is never negative."""
        movement = movement_of(debit, credit, kind)
        name, sign = movement or ((min(debit, credit), max(debit, credit)), 1 if debit < credit else -1)
        for month, points_minor in points_by_month.items():
            self.moved[name][month] += sign * points_minor
        return sign * self.sums[name].add(sign * self._worth(points_by_month))

    def revalue(self, values: PointValues) -> int:
        """Go on with other values; return by how much they raise the liability."""
        before = self._liability()
        self.values = values
        self.sums = defaultdict(Cumulative, {name: Cumulative(self._worth(of)) for name, of in self.moved.items()})
        return self._liability() - before

    def _worth(self, points_by_month: Mapping[date, int]) -> Fraction:
        allocated = self.values.allocated
        return sum((points * allocated(month) for month, points in points_by_month.items()), Fraction(0))

    def _liability(self) -> int:
        return sum(each.rounded for name, each in self.sums.items() if isinstance(name, str))
