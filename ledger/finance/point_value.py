"""What a point is worth: versions that finance records, by the month in which points were issued.

Estimates change, records do not: a new version is added, the old ones stay, and reports as of a close keep the version
that was the newest when it was closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Final, NamedTuple

import asyncpg

MILLION: Final = 1_000_000


class PointValue(NamedTuple):
    """One version: ``value_money_minor`` is what ``value_points_minor`` points pay, both in minor units.

    ``breakage_ppm`` is the share, in millionths, of issued points that is expected never to be redeemed. The version
    counts for points issued in ``from_month`` (its first day) or later.
    """

    version: int
    from_month: date
    value_money_minor: int
    value_points_minor: int
    breakage_ppm: int
    recorded_at: datetime
    recorded_by: str


@dataclass(frozen=True, slots=True)
class PointValues:
    """The versions that a report counts with, oldest first, and the value of months that none of them covers."""

    versions: tuple[PointValue, ...]
    default: Fraction

    def version_of(self, issue_month: date) -> PointValue | None:
        """Return the newest version that covers an issue month."""
        for version in reversed(self.versions):
            if version.from_month <= issue_month:
                return version
        return None

    def full(self, issue_month: date) -> Fraction:
        """Return the money, in minor units, that one minor unit of points pays."""
        version = self.version_of(issue_month)
        return Fraction(version.value_money_minor, version.value_points_minor) if version else self.default

    def breakage(self, issue_month: date) -> Fraction:
        """Return the share of issued points that is expected never to be redeemed."""
        version = self.version_of(issue_month)
        return Fraction(version.breakage_ppm, MILLION) if version else Fraction(0)

    def allocated(self, issue_month: date) -> Fraction:
        """Return the money allocated to one minor unit of points at its grant (IFRS 15): its value after breakage."""
        return self.full(issue_month) * (1 - self.breakage(issue_month))


# Read the versions of a unit up to one of them.
READ_VERSIONS: Final = """
SELECT version, from_month, value_money_minor, value_points_minor, breakage_ppm, recorded_at, recorded_by
FROM ledger.point_value WHERE unit = $1 AND version <= $2 ORDER BY version
"""

# Add the next version; another one that is added at this moment makes it fail, and it is tried again.
INSERT_VERSION: Final = """
INSERT INTO ledger.point_value (unit, version, from_month, value_money_minor, value_points_minor, breakage_ppm,
                                recorded_at, recorded_by)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6, $7 FROM ledger.point_value WHERE unit = $1
ON CONFLICT DO NOTHING
RETURNING version
"""

NEWEST: Final = 2**31 - 1
"""Stands for the newest version, and for the newest close, in comparisons."""


async def read_point_values(conn: asyncpg.Connection, unit: int, up_to_version: int = NEWEST) -> list[PointValue]:
    """Return the versions of a point unit, oldest first."""
    return [PointValue(*row) for row in await conn.fetch(READ_VERSIONS, unit, up_to_version)]


async def record_point_value(
    conn: asyncpg.Connection,
    unit: int,
    *,
    from_month: date,
    value_money_minor: int,
    value_points_minor: int,
    breakage_ppm: int,
    recorded_at: datetime,
    recorded_by: str,
) -> PointValue:
    """Add a version and return it; the same figures as the newest version's are not added again.

    Raises:
        ValueError: ``from_month`` is not the first of a month, or a figure is out of range.
    """
    if from_month.day != 1:
        raise ValueError(f"from_month must be the first day of a month, not {from_month}")
    if value_money_minor < 0 or value_points_minor <= 0 or not 0 <= breakage_ppm <= MILLION:
        raise ValueError("a value is money of at least 0 for at least one point, with breakage of 0 to 1,000,000 ppm")
    terms = (from_month, value_money_minor, value_points_minor, breakage_ppm)
    newest = (await read_point_values(conn, unit))[-1:]
    if newest and newest[0][1:5] == terms:
        return newest[0]
    figures = (*terms, recorded_at, recorded_by)
    version = None
    while version is None:
        version = await conn.fetchval(INSERT_VERSION, unit, *figures)
    return PointValue(version, *figures)
