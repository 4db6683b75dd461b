"""What became of points, by the month in which they were issued: the ground of breakage, age and redemption."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Final, Literal

import asyncpg

from ledger.entry.accounts import own_pair
from ledger.entry.model import AVAILABLE, DEBT, PENDING
from ledger.finance.accounts import MOVEMENTS, Movement
from ledger.finance.scope import Scope

LOT_ACCOUNTS: Final = frozenset({AVAILABLE, PENDING})
"""The accounts whose points are in lots; what members owe is in none."""

LOTS: Final = "lots"
OWED: Final = "owed"
"""Values of the column that tells points in lots from points that members owe."""

Flow = Movement | Literal["debt_paid"]

_GRANTED: Final[tuple[Flow, ...]] = ("issued", "adjusted", "transferred")

# Sum what postings moved, by the month in which their points were issued.
READ_MOVED: Final = """
SELECT issue_month, kind, debit, credit, sum(points_minor)::bigint
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3
GROUP BY issue_month, kind, debit, credit ORDER BY issue_month, kind, debit, credit
"""


@dataclass(slots=True)
class Moved:
    """Points that came in (positive) and went out (negative), in minor units.

    ``debt_paid`` are points of lots that paid a debt; of debts, what was paid of them.
    """

    flows: dict[Flow, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def granted_minor(self) -> int:
        """Points issued, less those taken back, with corrections by hand and what came from other members."""
        return sum(self.flows[flow] for flow in _GRANTED)

    @property
    def used_minor(self) -> int:
        """Points spent, less those given back, and points that paid debts: those had been spent before."""
        return -self.flows["redeemed"] - self.flows["debt_paid"]

    @property
    def outstanding_minor(self) -> int:
        """Points that are left; of debts, the points owed as a negative figure."""
        return sum(self.flows.values())


@dataclass(slots=True)
class IssueMonths:
    """Lots by issue month, in order, and what members owe: in all, and by issue month for its value."""

    lots: dict[date, Moved]
    owed: Moved
    owed_by_month: dict[date, int]

    def owed_money(self, scope: Scope) -> Fraction:
        """Return what the points owed are worth, a negative figure in minor units of money."""
        months = self.owed_by_month.items()
        return sum((points * scope.values.allocated(month) for month, points in months), Fraction(0))


async def read_issue_months(conn: asyncpg.Connection, scope: Scope) -> IssueMonths:
    """Add up what belongs to a report."""
    rows = await conn.fetch(READ_MOVED, *scope.parameters)
    return add_up([(row[0], row[1], row[2], row[3], row[4]) for row in rows])


def add_up(rows: list[tuple[date, int, int, int, int]]) -> IssueMonths:
    """Sort sums of postings into lots and debts, and those by what they mean.

    ``rows`` are issue month, kind of entry, debit, credit and points.
    """
    lots: dict[date, Moved] = defaultdict(Moved)
    owed, owed_by_month = Moved(), defaultdict[date, int](int)
    for month, kind, posted_debit, posted_credit, points_minor in rows:
        debit, credit = own_pair(kind, posted_debit, posted_credit)
        for account, other, sign in ((credit, debit, 1), (debit, credit, -1)):
            if account in LOT_ACCOUNTS and other not in LOT_ACCOUNTS:
                lots[month].flows[_flow(other)] += sign * points_minor
            elif account == DEBT:
                owed.flows[_flow(other)] += sign * points_minor
                owed_by_month[month] += sign * points_minor
    return IssueMonths(dict(sorted(lots.items())), owed, dict(owed_by_month))


def _flow(other: int) -> Flow:
    return "debt_paid" if other == DEBT or other in LOT_ACCOUNTS else MOVEMENTS[other]
