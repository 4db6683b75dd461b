"""The redemption rate: of the points issued, how many are spent."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from fractions import Fraction
from typing import Final

import asyncpg

from ledger.finance.accounts import movement_of
from ledger.finance.issue_month import Moved, read_issue_months
from ledger.finance.scope import Query, Scope, open_scope
from ledger.finance.table import Column, Table, Value

# Sum what postings moved in each accounting month.
READ_MONTHS: Final = """
SELECT date_trunc('month', accounting_day)::date, kind, debit, credit, sum(points_minor)::bigint
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3
GROUP BY 1, kind, debit, credit ORDER BY 1, kind, debit, credit
"""


async def redemption_rate(conn: asyncpg.Connection, query: Query) -> Table:
    """Return, by month, what was issued and redeemed in it, and what was redeemed since of what was issued in it.

    A row is an accounting month for the first figures, and an issue month for the others. ``query.from_day`` and
    ``to_day`` choose months.
    """
    scope = await open_scope(conn, query)
    moved: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for month, kind, debit, credit, points_minor in await conn.fetch(READ_MONTHS, *scope.parameters):
        if movement := movement_of(debit, credit, kind):
            name, sign = movement
            moved[month][name] += sign * points_minor
    lots = (await read_issue_months(conn, scope)).lots
    rows = [
        _row(month, moved[month], lots.get(month) or Moved())
        for month in sorted({*moved, *lots})
        if query.from_day is None or month >= query.from_day.replace(day=1)
    ]
    return Table("Redemption rate", _columns(scope), tuple(rows), (scope.note(), *_NOTES))


_NOTES: Final = (
    "issued, redeemed and rate count what was booked in an accounting month: points redeemed may be older ones.",
    "granted and what follows count the points first issued in a calendar month (UTC), wherever they are now.",
    "redemption rate = (redeemed since + debt paid with them) / granted.",
)


def _row(month: date, moved: dict[str, int], lots: Moved) -> tuple[Value, ...]:
    issued, redeemed = moved["issued"], -moved["redeemed"]
    return (
        *(month, issued, redeemed, _rate(redeemed, issued)),
        *(lots.granted_minor, lots.used_minor, _rate(lots.used_minor, lots.granted_minor)),
        *(-lots.flows["expired"], lots.outstanding_minor),
    )


def _rate(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole > 0 else None


def _columns(scope: Scope) -> tuple[Column, ...]:
    points = scope.programme.unit.precision
    return (
        Column("month", "Month", "day"),
        Column("issued", "Issued", "points", points),
        Column("redeemed", "Redeemed", "points", points),
        Column("rate", "Rate", "ratio"),
        Column("granted", "Of this month: granted", "points", points),
        Column("redeemed_since", "Redeemed since", "points", points),
        Column("redemption_rate", "Redemption rate", "ratio"),
        Column("expired_since", "Expired since", "points", points),
        Column("outstanding", "Outstanding", "points", points),
    )
