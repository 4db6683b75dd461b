"""Breakage by issue month: what became of points, what was expected, and what that means for revenue (IFRS 15).

Points granted with a sale are an option to buy more (B39-B43). A part of the price is allocated to them: their value
less the points that will never be redeemed, as estimated when they were granted. It is recognised as revenue in
proportion to what has been redeemed of all that is expected to be (B44-B47); the newest estimate says how much that
is, so that a new one catches up on the past. What was allocated stays.
"""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Final, NamedTuple

import asyncpg

from ledger.finance.issue_month import LOTS, OWED, Moved, read_issue_months
from ledger.finance.point_value import PointValues
from ledger.finance.rounding import Cumulative, half_up
from ledger.finance.scope import Query, Scope, open_scope
from ledger.finance.table import Column, Table, Value

MATURE_OUTSTANDING: Final = Fraction(1, 100)
"""An issue month is mature once no more than this share of its points is left."""
MATURE_MONTHS: Final = 12
"""The newest mature months that a proposed estimate rests on: a year, whose seasons level out."""

HUNDREDTHS_OF_PERCENT: Final = 10_000


class Recognition(NamedTuple):
    """Revenue of the points of one issue month, in exact minor units of money."""

    allocated: Fraction
    recognised: Fraction


class Proposal(NamedTuple):
    """An estimate of breakage, and the mature issue months that it rests on."""

    breakage: Fraction
    months: tuple[date, ...]


async def breakage(conn: asyncpg.Connection, query: Query) -> Table:
    """Return what became of the points of each issue month, and the revenue deferred for them."""
    scope = await open_scope(conn, query)
    found = await read_issue_months(conn, scope)
    rows = _rows(found.lots, scope.values)
    if any(found.owed.flows.values()):
        rows.append((None, OWED, *_points(found.owed), *(None,) * 7))
    proposal = propose(found.lots)
    return Table(
        "Breakage by issue month", _columns(scope), tuple(rows), (scope.note(), *_NOTES, _proposal_text(proposal))
    )


_NOTES: Final = (
    "outstanding = granted - redeemed - expired - debt paid. granted: issued less taken back, adjusted, transferred.",
    "allocated = granted x value of a point x (1 - breakage expected when granted).",
    "recognised = allocated x used / expected to be used, where used = redeemed + debt paid,",
    "and expected = granted x (1 - breakage expected now), at most used + outstanding. deferred = the rest.",
    "liability is what the roll-forward shows: outstanding points, each at its newest allocated value.",
)


def _columns(scope: Scope) -> tuple[Column, ...]:
    points = scope.programme.unit.precision
    money = scope.programme.currency_digits
    return (
        Column("issue_month", "Issue month", "day"),
        Column("part", "Part", "text"),
        Column("granted", "Granted", "points", points),
        Column("redeemed", "Redeemed", "points", points),
        Column("expired", "Expired", "points", points),
        Column("debt_paid", "Debt paid", "points", points),
        Column("outstanding", "Outstanding", "points", points),
        Column("breakage_so_far", "Breakage so far", "ratio"),
        Column("breakage_expected", "Expected", "ratio"),
        Column("estimate_version", "Estimate", "integer"),
        Column("allocated", "Allocated", "money", money),
        Column("recognised", "Recognised", "money", money),
        Column("deferred", "Deferred", "money", money),
        Column("liability", "Liability", "money", money),
    )


def _rows(lots: dict[date, Moved], values: PointValues) -> list[tuple[Value, ...]]:
    allocated, recognised, liability = Cumulative(), Cumulative(), Cumulative()
    rows: list[tuple[Value, ...]] = []
    for month, moved in lots.items():
        revenue = recognise(month, moved, values)
        version = values.version_of(month)
        given, earned = allocated.add(revenue.allocated), recognised.add(revenue.recognised)
        rows.append(
            (
                *(month, LOTS, *_points(moved)),
                Fraction(-moved.flows["expired"], moved.granted_minor) if moved.granted_minor > 0 else None,
                values.breakage(month),
                version.version if version else None,
                *(given, earned, given - earned),
                liability.add(moved.outstanding_minor * values.allocated(month)),
            )
        )
    return rows


def _points(moved: Moved) -> tuple[int, int, int, int, int]:
    flows = moved.flows
    gone = (-flows["redeemed"], -flows["expired"], -flows["debt_paid"])
    return (moved.granted_minor, *gone, moved.outstanding_minor)


def recognise(month: date, moved: Moved, values: PointValues) -> Recognition:
    """Return the revenue allocated to the points of an issue month, and the part of it recognised so far.

    No more can still be used than is outstanding, so once nothing is, all of it is recognised.
    """
    value, expected_breakage = at_grant(values, month)
    allocated = max(moved.granted_minor, 0) * value * (1 - expected_breakage)
    used, left = max(moved.used_minor, 0), max(moved.outstanding_minor, 0)
    to_be_used = min(moved.granted_minor * (1 - values.breakage(month)), Fraction(used + left))
    if to_be_used <= used:
        return Recognition(allocated, allocated)
    return Recognition(allocated, allocated * used / to_be_used)


def at_grant(values: PointValues, month: date) -> tuple[Fraction, Fraction]:
    """Return the value of a point and the breakage that were expected when points of an issue month were granted.

    They are those of the newest version recorded before the month was over; if there was none, of the first one
    recorded later.
    """
    covering = [version for version in values.versions if version.from_month <= month]
    if not covering:
        return values.full(month), values.breakage(month)
    in_time = [v for v in covering if v.recorded_at.date().replace(day=1) <= month]
    version = in_time[-1] if in_time else covering[0]
    known = PointValues((version,), values.default)
    return known.full(month), known.breakage(month)


def propose(lots: dict[date, Moved]) -> Proposal | None:
    """Propose a breakage estimate: of all points granted in the newest mature months, the share that expired.

    A month is mature when at most `MATURE_OUTSTANDING` of its points are left. None if no month is.
    """
    mature = [
        month
        for month, moved in lots.items()
        if moved.granted_minor > 0 and moved.outstanding_minor <= MATURE_OUTSTANDING * moved.granted_minor
    ][-MATURE_MONTHS:]
    if not mature:
        return None
    granted = sum(lots[month].granted_minor for month in mature)
    expired = -sum(lots[month].flows["expired"] for month in mature)
    return Proposal(Fraction(expired, granted), tuple(mature))


def _proposal_text(proposal: Proposal | None) -> str:
    share = f"{MATURE_OUTSTANDING.numerator * 100 // MATURE_OUTSTANDING.denominator} %"
    if proposal is None:
        return f"No estimate can be proposed: of every issue month, more than {share} of the points are left."
    percent = half_up(proposal.breakage * HUNDREDTHS_OF_PERCENT)
    months = f"{proposal.months[0]:%Y-%m} to {proposal.months[-1]:%Y-%m}"
    figure = f"{percent // 100}.{percent % 100:02} %"
    return f"Proposed breakage: {figure}, the share expired of {len(proposal.months)} mature months, {months}."
