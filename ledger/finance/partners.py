"""Settlement with coalition partners: what was issued at their expense, and what points paid in their stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from fractions import Fraction
from typing import Final, NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import is_partner
from ledger.finance.rounding import Cumulative
from ledger.finance.scope import Query, Scope, open_scope
from ledger.finance.table import Column, Table, Value

_RETURN: Final = int(journal_pb2.ENTRY_KIND_RETURN)

# Add up what moved on partners' accounts by month, before ($4) or during the time asked for, and by issue month.
SUM_PARTNERS: Final = """
SELECT partner, date_trunc('month', accounting_day)::date, coalesce(accounting_day < $4, false), issue_month, kind,
       debit, credit, sum(points_minor)::bigint
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3 AND partner <> ''
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


class PartnerMovement(NamedTuple):
    """Points issued at a partner's expense, less what returns took back, or redeemed there, less what they gave back.

    ``month`` is that of the accounting day; None for what came before the time asked for.
    """

    partner: str
    month: date | None
    redeemed: bool
    issue_month: date
    points_minor: int


async def partner_settlement(conn: asyncpg.Connection, query: Query) -> Table:
    """Return, by month and partner, what the partner owed before, what was issued and redeemed, and what it owes.

    Raises:
        QueryError: there is no such close, or the days are in the wrong order.
    """
    scope = await open_scope(conn, query)
    found = []
    for partner, month, is_before, *posted in await conn.fetch(SUM_PARTNERS, *scope.parameters, query.from_day):
        issue_month, kind, debit, _, points_minor = posted
        # A partner's account is debited with what it issues, and credited with what points pay: in returns the other
        # way round.
        redeemed = is_partner(debit) == (kind == _RETURN)
        sign = -1 if kind == _RETURN else 1
        found.append(PartnerMovement(partner, None if is_before else month, redeemed, issue_month, sign * points_minor))
    values = {each.issue_month: scope.values.full(each.issue_month) for each in found}
    return Table(
        "Settlement with partners", _columns(scope), tuple(settlement_rows(found, values)), (scope.note(), *_NOTES)
    )


_NOTES: Final = (
    "Opening + issued - redeemed = closing: positive is what the partner owes, negative what it is owed.",
    "Issued is less what returns took back: all that the partner had issued for the goods, whatever the member still",
    "had of it. Redeemed is less what returns gave back.",
    "Money: points at the full value of their issue month, without breakage, rounded so that all rows add up.",
)


def _columns(scope: Scope) -> tuple[Column, ...]:
    points, money = scope.programme.unit.precision, scope.programme.currency_digits
    figures = (("opening", "Opening"), ("issued", "Issued"), ("redeemed", "Redeemed"), ("closing", "Closing"))
    return (
        Column("month", "Month", "day"),
        Column("partner", "Partner", "text"),
        *(Column(f"{name}_points", title, "points", points) for name, title in figures),
        *(Column(f"{name}_money", f"{title}, {scope.programme.currency}", "money", money) for name, title in figures),
    )


class _Account:
    """What a partner owes, in points and in money, from the beginning on."""

    def __init__(self) -> None:
        self._points = [0, 0]
        self._money = [Cumulative(), Cumulative()]

    def move(self, moved: Sequence[PartnerMovement], values: Mapping[date, Fraction]) -> tuple[int, ...]:
        """Add what moved; return opening, issued, redeemed and closing, in points and then in money."""
        parts = [[each for each in moved if each.redeemed == redeemed] for redeemed in (False, True)]
        points = [sum(each.points_minor for each in part) for part in parts]
        worth = [sum((each.points_minor * values[each.issue_month] for each in part), Fraction(0)) for part in parts]
        opening = (self._points[0] - self._points[1], self._money[0].rounded - self._money[1].rounded)
        money = [series.add(value) for series, value in zip(self._money, worth, strict=True)]
        self._points = [before + more for before, more in zip(self._points, points, strict=True)]
        return (
            *(opening[0], *points, opening[0] + points[0] - points[1]),
            *(opening[1], *money, opening[1] + money[0] - money[1]),
        )


def settlement_rows(found: Sequence[PartnerMovement], values: Mapping[date, Fraction]) -> list[tuple[Value, ...]]:
    """Return a row for each month and partner with movements, in order; partners without any have one at the end.

    ``values`` is the money, in minor units, that a point minor unit of each issue month is worth.
    """
    accounts: dict[str, _Account] = defaultdict(_Account)
    rows: list[tuple[Value, ...]] = []
    earlier = [each for each in found if each.month is None]
    for partner in sorted({each.partner for each in found}):
        accounts[partner].move([each for each in earlier if each.partner == partner], values)
    months = sorted({(each.month, each.partner) for each in found if each.month is not None})
    for month, partner in months:
        moved = [each for each in found if (each.month, each.partner) == (month, partner)]
        rows.append((month, partner, *accounts[partner].move(moved, values)))
    for partner in sorted(accounts.keys() - {partner for _, partner in months}):
        row = accounts[partner].move((), values)
        if any(row):
            rows.append((None, partner, *row))
    return rows
