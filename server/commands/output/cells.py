"""How one value of a report reads: exact decimals for programs, grouped figures for people."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

from ledger.finance.rounding import half_up
from ledger.finance.table import Column, Value

RATIO_DECIMALS: Final = 6
"""Decimal places of a ratio in files: 0.123457 is 12.3457 %."""
PERCENT_DECIMALS: Final = 2
_EXACT: Final = Context(prec=60)
_NUMBERS: Final = frozenset({"integer", "points", "money", "ratio"})


def is_number(column: Column) -> bool:
    """Say whether a column's values are figures, which stand to the right."""
    return column.kind in _NUMBERS


def decimal(column: Column, value: int | Fraction) -> Decimal:
    """Return a figure in main units: points and money exactly, a ratio rounded half up to `RATIO_DECIMALS`."""
    if isinstance(value, Fraction):
        return rounded(value, RATIO_DECIMALS)
    return Decimal(value).scaleb(-column.decimals, _EXACT)


def rounded(value: Fraction, decimals: int) -> Decimal:
    """Return a fraction rounded half up, away from zero, to so many decimal places."""
    return Decimal(half_up(value * 10**decimals)).scaleb(-decimals, _EXACT)


def is_month(column: Column) -> bool:
    """Say whether a column's days stand for their months, as its name says: ``issue_month``."""
    return column.kind == "day" and column.name.endswith("month")


def plain(column: Column, value: Value) -> str:
    """Return a value as programs read it: no grouping, ISO days, moments in UTC, nothing for an empty cell."""
    match value:
        case None:
            return ""
        case int() | Fraction():
            return f"{decimal(column, value):f}"
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case str():
            return value
        case _:
            return value.isoformat()


def for_people(column: Column, value: Value) -> str:
    """Return a value as people read it: grouped, ratios in per cent, months as such, moments to the second in UTC."""
    match value:
        case Fraction():
            return f"{rounded(value * 100, PERCENT_DECIMALS):,f} %"
        case int():
            return f"{decimal(column, value):,f}"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case date() if is_month(column):
            return f"{value:%Y-%m}"
        case _:
            return plain(column, value)
