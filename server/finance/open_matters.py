"""What is still open in days that finance is about to close: it is said, and has to be accepted by name.

A close is for good. A day that goes on, a break that nobody has explained, an adjustment that waits for its approval, a
register that has not reported: all of them would change the days closed, and end up in the next open one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from ledger.finance.register import terminal_days

if TYPE_CHECKING:
    import asyncpg

    from server.base.database import Connection

BOOKS_ZONE: Final = "UTC"
"""Whose days count for what has no receipt."""


class Matter(IntEnum):
    """A kind of open matter; the numbers are the API's OpenMatterKind."""

    RUNNING = 1
    BREAKS = 2
    APPROVALS = 3
    REPORTS = 4


class OpenMatter(NamedTuple):
    """How much of a kind is open: zones in which a day goes on, breaks, adjustments, days of terminals."""

    kind: Matter
    many: int
    text: str


# The stores' time zones.
READ_ZONES: Final = "SELECT time_zone, count(*) AS stores FROM server.store GROUP BY time_zone"

# Breaks of the days that nobody has said anything about.
READ_BREAKS: Final = """
SELECT count(*), min(business_date) AS oldest FROM server.reconciliation_break
WHERE state = 1 AND business_date BETWEEN coalesce($1::date, '-infinity') AND $2
"""

# Adjustments of a unit that somebody asked for until the end of the days, and that wait for a second person.
READ_APPROVALS: Final = """
SELECT count(*), min(requested_at)::date AS oldest FROM server.adjustment_request
WHERE state = 1 AND unit = $1 AND requested_at < $2
"""

# Terminals' days with receipts of which no report came, and that no break tells of; none where registers never report.
READ_UNREPORTED: Final = f"""
SELECT count(*), min(t.business_date) AS oldest FROM ({terminal_days("$1::date", "$2")}) t
WHERE EXISTS (SELECT FROM server.register_file WHERE number IS NOT NULL)
  AND NOT EXISTS (
    SELECT FROM server.z_report z JOIN server.register_file f ON f.file_id = z.file_id AND f.number IS NOT NULL
    WHERE (z.store_id, z.terminal_id, z.business_date) = (t.store_id, t.terminal_id, t.business_date))
  AND NOT EXISTS (
    SELECT FROM server.register_receipt r JOIN server.register_file f ON f.file_id = r.file_id AND f.number IS NOT NULL
    WHERE (r.store_id, r.terminal_id, r.business_date) = (t.store_id, t.terminal_id, t.business_date))
  AND NOT EXISTS (
    SELECT FROM server.reconciliation_break b
    WHERE (b.store_id, b.terminal_id, b.business_date, b.kind) = (t.store_id, t.terminal_id, t.business_date, 7))
"""  # noqa: S608 - the ledger's own query


async def read_open_matters(
    conn: Connection, unit: str, first_day: date | None, last_day: date, now: datetime
) -> list[OpenMatter]:
    """Return what is open in days, both included, of a point unit; the register of receipts is up to date.

    Args:
        conn: The ledger database.
        unit: The point unit's code: adjustments belong to one.
        first_day: None for all days until the last.
        last_day: The last day.
        now: The moment at which days are over or not.
    """
    zones = {row["time_zone"]: row["stores"] for row in await conn.fetch(READ_ZONES)}
    breaks = await conn.fetchrow(READ_BREAKS, first_day, last_day)
    approvals = await conn.fetchrow(READ_APPROVALS, unit, _end_of(last_day, BOOKS_ZONE))
    unreported = await conn.fetchrow(READ_UNREPORTED, first_day, last_day)
    return [
        *running(zones, last_day, now),
        *_counted(Matter.BREAKS, breaks, "break(s) between registers and ledger are open", "reconcile breaks"),
        *_counted(Matter.APPROVALS, approvals, "adjustment(s) wait for approval", "corrections list"),
        *_counted(Matter.REPORTS, unreported, "day(s) of terminals have receipts and no report", "reconcile load"),
    ]


def running(zones: dict[str, int], last_day: date, now: datetime) -> Iterable[OpenMatter]:
    """Say where a day still goes on, by the number of stores in each time zone."""
    ends = {zone: _end_of(last_day, zone) for zone in (*zones, BOOKS_ZONE)}
    open_zones = [zone for zone, end in ends.items() if end > now]
    if open_zones:
        last = max(open_zones, key=lambda zone: ends[zone])
        where = f"in {last} ({zones[last]:,} stores)" if last in zones else "in the books (UTC)"
        ends_at = f"{ends[last].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield OpenMatter(Matter.RUNNING, len(open_zones), f"{last_day} is not over: it ends at {ends_at} {where}")


def _end_of(day: date, zone: str) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=ZoneInfo(zone))


def _counted(kind: Matter, row: asyncpg.Record | None, what: str, command: str) -> Iterable[OpenMatter]:
    if row is not None and row["count"]:
        said = f"{row['count']:,} {what}, the oldest of {row['oldest']} (tallypoint {command})"
        yield OpenMatter(kind, row["count"], said)
