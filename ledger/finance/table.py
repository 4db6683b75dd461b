"""The one shape of all reports: columns with kinds, and rows of plain values.

A report is computed once, as a ``Table``; the back office sends it, and the exporters write it, without knowing which
report it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Literal

Kind = Literal["text", "day", "moment", "integer", "points", "money", "ratio"]
"""What the values of a column are: str, date, aware datetime, int; ``points`` and ``money`` are int minor units;
``ratio`` is an exact Fraction, such as 1/4 for 25 %."""

Value = str | date | datetime | int | Fraction | None
"""A cell; None is an empty one."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``name`` is for programs, ``title`` for people.

    ``decimals`` belongs to points and money: 2 means that the integer 1234 is shown as 12.34.
    """

    name: str
    title: str
    kind: Kind
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A report. ``notes`` are sentences for people: what it is as of, and how figures were come by."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a row that does not have exactly one value a column."""
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.title}: {row} does not fit {len(self.columns)} columns"
