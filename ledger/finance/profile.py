"""What is outstanding: how old it is, and when it lapses."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from fractions import Fraction
from typing import Final

import asyncpg

from ledger.finance.issue_month import LOTS, OWED, read_issue_months
from ledger.finance.rounding import Cumulative
from ledger.finance.scope import Query, Scope, open_scope
from ledger.finance.table import Column, Table, Value

# Sum what is left of lots by the months in which they were issued and lapse, counting the postings of a report.
# Postings up to an accounting day are those before the mark of the first close that takes this day, with business days
# up to it. A lot's terms are those of the posting that opened it; it is good until just before `expires_at`.
READ_LOTS: Final = """
WITH mark AS (
    SELECT book, number FROM ledger.close_mark
    WHERE unit = $1 AND close_number = (
        SELECT min(close_number) FROM ledger.close WHERE unit = $1 AND close_number <= $2 AND last_day >= $3)
), lot AS (
    SELECT p.book, p.lot_number, p.lot_ordinal,
           sum(CASE WHEN p.credit IN (1, 2, 3) THEN p.points_minor ELSE 0 END
             - CASE WHEN p.debit IN (1, 2, 3) THEN p.points_minor ELSE 0 END) AS points_minor
    FROM ledger.posting p
    JOIN ledger.entry e ON e.book = p.book AND e.number = p.number
    LEFT JOIN ledger.receipt_register r ON r.book = p.book AND r.number = p.number
    LEFT JOIN mark m ON m.book = p.book
    WHERE p.unit = $1 AND (m.number IS NULL OR p.number < m.number)
      AND coalesce(r.business_date, (e.booked_at AT TIME ZONE 'UTC')::date) <= $3
    GROUP BY p.book, p.lot_number, p.lot_ordinal
)
SELECT date_trunc('month', (o.expires_at - interval '1 microsecond') AT TIME ZONE 'UTC')::date AS expiry_month,
       date_trunc('month', coalesce(o.issued_at, e.booked_at) AT TIME ZONE 'UTC')::date AS issue_month,
       count(*)::bigint, sum(lot.points_minor)::bigint
FROM lot
JOIN ledger.posting o ON o.book = lot.book AND o.number = lot.lot_number AND o.ordinal = lot.lot_ordinal
JOIN ledger.entry e ON e.book = o.book AND e.number = o.number
WHERE lot.points_minor <> 0
GROUP BY 1, 2 ORDER BY 1, 2
"""

# The same for now, from the cache of lots.
READ_LOTS_NOW: Final = """
SELECT date_trunc('month', (l.expires_at - interval '1 microsecond') AT TIME ZONE 'UTC')::date AS expiry_month,
       date_trunc('month', coalesce(o.issued_at, e.booked_at) AT TIME ZONE 'UTC')::date AS issue_month,
       count(*)::bigint, sum(l.remaining_minor + l.held_minor)::bigint
FROM ledger.lot l
JOIN ledger.posting o ON o.book = l.book AND o.number = l.number AND o.ordinal = l.ordinal
JOIN ledger.entry e ON e.book = o.book AND e.number = o.number
WHERE l.unit = $1 AND l.remaining_minor + l.held_minor > 0
GROUP BY 1, 2 ORDER BY 1, 2
"""


async def age_profile(conn: asyncpg.Connection, query: Query) -> Table:
    """Return the points outstanding by the month in which they were issued, and what members owe."""
    scope = await open_scope(conn, query)
    found = await read_issue_months(conn, scope)
    total = sum(moved.outstanding_minor for moved in found.lots.values())
    money = Cumulative()
    rows: list[tuple[Value, ...]] = [
        (
            month,
            LOTS,
            moved.outstanding_minor,
            _share(moved.outstanding_minor, total),
            money.add(moved.outstanding_minor * scope.values.allocated(month)),
        )
        for month, moved in found.lots.items()
        if moved.outstanding_minor
    ]
    if found.owed.outstanding_minor:
        rows.append((None, OWED, found.owed.outstanding_minor, None, money.add(found.owed_money(scope))))
    columns = (Column("issue_month", "Issue month", "day"), Column("part", "Part", "text"), *_figures(scope))
    return Table("Outstanding points by age", columns, tuple(rows), (scope.note(), *_NOTES))


async def expiry_profile(conn: asyncpg.Connection, query: Query) -> Table:
    """Return the points outstanding by the month (UTC) in which they lapse; an empty month is never."""
    scope = await open_scope(conn, query)
    now = query.as_of is None and query.to_day is None
    statement = (READ_LOTS_NOW, scope.programme.unit.number) if now else (READ_LOTS, *scope.parameters)
    found = await conn.fetch(*statement)
    points, lots = defaultdict[date | None, int](int), defaultdict[date | None, int](int)
    worth = defaultdict[date | None, Fraction](Fraction)
    for expiry_month, issue_month, count, points_minor in found:
        points[expiry_month] += points_minor
        lots[expiry_month] += count
        worth[expiry_month] += points_minor * scope.values.allocated(issue_month)
    total, money = sum(points.values()), Cumulative()
    rows: list[tuple[Value, ...]] = [
        (month, LOTS, lots[month], points[month], _share(points[month], total), money.add(worth[month]))
        for month in points
    ]
    owed = await read_issue_months(conn, scope)
    if owed.owed.outstanding_minor:
        rows.append((None, OWED, None, owed.owed.outstanding_minor, None, money.add(owed.owed_money(scope))))
    columns = (
        Column("expiry_month", "Lapses in", "day"),
        Column("part", "Part", "text"),
        Column("lots", "Lots", "integer"),
        *_figures(scope),
    )
    return Table("Outstanding points by expiry", columns, tuple(rows), (scope.note(), *_NOTES, _LAPSED))


_NOTES: Final = (
    "The points of the parts 'lots' and 'owed' together are what the trial balance shows for members' accounts.",
    "share: of all points in lots. money: each point at its newest allocated value.",
)
_LAPSED: Final = "A month that is over holds points that have lapsed, but have not been booked as lapsed yet."


def _figures(scope: Scope) -> tuple[Column, ...]:
    return (
        Column("points", "Points", "points", scope.programme.unit.precision),
        Column("share", "Share", "ratio"),
        Column("money", f"Money, {scope.programme.currency}", "money", scope.programme.currency_digits),
    )


def _share(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole > 0 else None
