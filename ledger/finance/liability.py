"""What the programme owes its members: the trial balance, and the liability rolled forward in points and in money.

The liability is what members have (available, pending and held points) less what they owe. Points are worth what their
issue month says. Money is rounded cumulatively: each figure is the difference of two rounded sums from the beginning,
so that opening + issued - redeemed - expired + adjusted + transferred = closing holds in every row exactly, and the
rows add up to the whole, whichever way it is cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from typing import Final, NamedTuple

import asyncpg

from ledger.finance.accounts import SUMMED_ACCOUNTS, Movement, movement_of
from ledger.finance.rounding import Cumulative
from ledger.finance.scope import By, Query, Scope, open_scope
from ledger.finance.table import Column, Kind, Table, Value

SHOWN: Final[Sequence[tuple[Movement, str, int]]] = (
    ("issued", "Issued", 1),
    ("redeemed", "Redeemed", -1),
    ("expired", "Expired", -1),
    ("adjusted", "Adjusted", 1),
    ("transferred", "Transferred", 1),
)
"""The columns of a roll-forward: a movement, its title, and the sign with which it is added to the opening balance."""

# Add up postings by pair of accounts.
SUM_PAIRS: Final = """
SELECT debit, credit, sum(points_minor)::bigint AS points_minor
FROM ledger.accounting_total WHERE unit = $1 AND period < $2 AND accounting_day <= $3
GROUP BY debit, credit
"""

LABELS: Final[Mapping[By, str]] = {
    "day": "accounting_day",
    "month": "date_trunc('month', accounting_day)::date",
    "store": "store_id",
    "partner": "partner",
    "total": "'total'",
}
"""What stands in the first column of a roll-forward, as SQL."""

# Add up postings by row, before ($4) or during the time asked for, by issue month and pair of accounts.
SUM_MOVEMENTS: Final = """
SELECT {label}, coalesce(accounting_day < $4, false), issue_month, kind, debit, credit, sum(points_minor)::bigint
FROM ledger.accounting_total
WHERE unit = $1 AND period < $2 AND accounting_day <= $3 AND ($5::text IS NULL OR store_id = $5)
GROUP BY 1, 2, 3, 4, 5, 6
"""


async def trial_balance(conn: asyncpg.Connection, query: Query) -> Table:
    """Return every account with what was debited and credited up to the last day; the balances sum to zero.

    A balance is credit less debit: what members have is positive, what the programme has issued negative. What
    checkouts hold is available (see ``SUMMED_ACCOUNTS``).

    Raises:
        QueryError: there is no such close.
    """
    scope = await open_scope(conn, query)
    debits: dict[int, int] = defaultdict(int)
    credits_: dict[int, int] = defaultdict(int)
    for debit, credit, points_minor in await conn.fetch(SUM_PAIRS, *scope.parameters):
        debits[debit] += points_minor
        credits_[credit] += points_minor
    rows: list[tuple[Value, ...]] = [
        (scope.account_name(account), debits[account], credits_[account], credits_[account] - debits[account])
        for account in (*SUMMED_ACCOUNTS, *sorted(scope.partners))
    ]
    debit_sum, credit_sum = sum(debits.values()), sum(credits_.values())
    rows.append(("total", debit_sum, credit_sum, credit_sum - debit_sum))
    digits = scope.programme.unit.precision
    columns = (
        Column("account", "Account", "text"),
        Column("debit_points", "Debit", "points", digits),
        Column("credit_points", "Credit", "points", digits),
        Column("balance_points", "Balance", "points", digits),
    )
    return Table(f"Trial balance of {scope.programme.unit.code}", columns, tuple(rows), (scope.note(),))


class Moved(NamedTuple):
    """What moved in one row of a roll-forward, or before all of them, with the issue month it is worth."""

    label: Value
    movement: Movement
    issue_month: date
    points_minor: int


async def roll_forward(conn: asyncpg.Connection, query: Query) -> Table:
    """Return the liability from opening to closing by day, month, store or partner or in one sum, in points or money.

    Days and months follow each other: a row's opening is the closing of the row before. Stores and partners stand
    side by side, each with what was moved there; points that lapsed belong to no store.

    Raises:
        QueryError: there is no such close, or the days are in the wrong order.
    """
    scope = await open_scope(conn, query)
    statement = SUM_MOVEMENTS.format(label=LABELS[query.by])
    before: list[Moved] = []
    during: list[Moved] = []
    for label, is_before, month, kind, debit, credit, points_minor in await conn.fetch(
        statement, *scope.parameters, query.from_day, query.store_id
    ):
        moved = movement_of(debit, credit, kind)
        if moved is not None:
            place = before if is_before else during
            place.append(Moved(label, moved[0], month, moved[1] * points_minor))
    worth = _worth(scope, query)
    roll = roll_over_time if query.by in {"day", "month"} else roll_side_by_side
    rows = roll(exact_sums(before, worth), exact_sums(during, worth))
    return Table(_title(scope, query), _columns(scope, query), tuple(rows), _notes(scope, query))


Sums = Mapping[Value, Mapping[Movement, Fraction]]
"""Exact sums by row and movement, in minor units of points or of money."""


def _worth(scope: Scope, query: Query) -> Mapping[date, Fraction] | None:
    """Return what a point minor unit of each issue month counts; None in points."""
    return None if query.measure == "points" else _Values(scope)


class _Values(dict[date, Fraction]):
    """Allocated values by issue month, worked out once."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._values = scope.values

    def __missing__(self, month: date) -> Fraction:
        self[month] = value = self._values.allocated(month)
        return value


def exact_sums(moved: Iterable[Moved], worth: Mapping[date, Fraction] | None) -> Sums:
    """Add up movements by row; ``worth`` is what a point counts by issue month, None counts points."""
    sums: dict[Value, dict[Movement, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for label, movement, month, points_minor in moved:
        sums[label][movement] += points_minor if worth is None else points_minor * worth[month]
    return sums


def roll_over_time(before: Sums, during: Sums) -> list[tuple[Value, ...]]:
    """Roll forward over time: `before` is all that came before the first row."""
    series = {name: Cumulative(sum((row[name] for row in before.values()), Fraction(0))) for name, _, _ in SHOWN}
    opening = sum(each.rounded for each in series.values())
    rows: list[tuple[Value, ...]] = []
    for label in sorted(during, key=str):
        parts = [series[name].add(during[label][name]) for name, _, _ in SHOWN]
        rows.append((label, *_row(opening, parts)))
        opening += sum(parts)
    return rows


def roll_side_by_side(before: Sums, during: Sums) -> list[tuple[Value, ...]]:
    """Roll forward several at once: their openings, movements and closings add up to those of all together."""
    openings = {name: Cumulative() for name, _, _ in SHOWN}
    closings = {name: Cumulative() for name, _, _ in SHOWN}
    rows: list[tuple[Value, ...]] = []
    for label in sorted(before.keys() | during.keys(), key=str):
        at_opening = [openings[name].add(_sum_of(before, label, name)) for name, _, _ in SHOWN]
        at_closing = [
            closings[name].add(_sum_of(before, label, name) + _sum_of(during, label, name)) for name, _, _ in SHOWN
        ]
        parts = [after - earlier for earlier, after in zip(at_opening, at_closing, strict=True)]
        rows.append((label, *_row(sum(at_opening), parts)))
    return rows


def _sum_of(sums: Sums, label: Value, movement: Movement) -> Fraction:
    return sums[label][movement] if label in sums else Fraction(0)


def _row(opening: int, parts: Sequence[int]) -> tuple[int, ...]:
    shown = [sign * part for part, (_, _, sign) in zip(parts, SHOWN, strict=True)]
    return (opening, *shown, opening + sum(parts))


def _title(scope: Scope, query: Query) -> str:
    measure = scope.programme.unit.code if query.measure == "points" else scope.programme.currency
    return f"Liability roll-forward by {query.by} in {measure}"


def _columns(scope: Scope, query: Query) -> tuple[Column, ...]:
    kind: Kind = query.measure
    digits = scope.programme.unit.precision if kind == "points" else scope.programme.currency_digits
    label = Column(query.by, query.by.capitalize(), "day" if query.by in {"day", "month"} else "text")
    figures = [("opening", "Opening"), *[(name, title) for name, title, _ in SHOWN], ("closing", "Closing")]
    return (label, *[Column(f"{name}_{kind}", title, kind, digits) for name, title in figures])


def _notes(scope: Scope, query: Query) -> tuple[str, ...]:
    notes = [scope.note(), "Opening + issued - redeemed - expired + adjusted + transferred = closing."]
    if query.measure == "money":
        notes.append(
            "Points are worth the value recorded for their issue month, less expected breakage; each figure is the "
            "difference of two rounded sums from the beginning."
        )
    if query.by == "store":
        notes.append("A movement belongs to the store of its receipt; lapses and corrections belong to none.")
    if query.by == "partner":
        notes.append("A movement belongs to the partner with whom it is settled; all others are the programme's own.")
    return tuple(notes)
