"""What members have at a moment, whether or not anything was booked since their points changed with time."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from ledger.model import Unit


class BalanceAt(NamedTuple):
    """A member's points of one unit, judged at one moment. ``expiring_*`` is what lapses next, if anything does."""

    unit: Unit
    available_minor: int
    pending_minor: int
    held_minor: int
    debt_minor: int
    expiring_minor: int
    expires_at: datetime | None


# Balances of many members as of $3: the cached figures, corrected by the lots that have become active or lapsed
# since they were written.
READ_BALANCES = """
SELECT b.member_id, b.unit, u.code, u.precision,
       b.available_minor + coalesce(due.activated, 0) - coalesce(due.lapsed, 0),
       b.pending_minor - coalesce(due.no_longer_pending, 0),
       b.held_minor, b.debt_minor, coalesce(next.points_minor, 0), next.expires_at
FROM unnest($1::int[], $2::uuid[]) AS wanted (book, member_id)
JOIN ledger.balance b ON b.book = wanted.book AND b.member_id = wanted.member_id
JOIN ledger.unit u ON u.unit = b.unit
LEFT JOIN LATERAL (
    SELECT sum(l.remaining_minor) FILTER (WHERE l.pending AND l.active_at <= $3
                                          AND (l.expires_at IS NULL OR l.expires_at > $3)) AS activated,
           sum(l.remaining_minor) FILTER (WHERE l.pending AND l.active_at <= $3) AS no_longer_pending,
           sum(l.remaining_minor) FILTER (WHERE NOT l.pending AND l.expires_at <= $3) AS lapsed
    FROM ledger.lot l
    WHERE l.book = b.book AND l.member_id = b.member_id AND l.unit = b.unit
) due ON b.next_change_at <= $3
LEFT JOIN LATERAL (
    SELECT l.expires_at, sum(l.remaining_minor) AS points_minor
    FROM ledger.lot l
    WHERE l.book = b.book AND l.member_id = b.member_id AND l.unit = b.unit AND l.expires_at > $3
    GROUP BY l.expires_at ORDER BY l.expires_at LIMIT 1
) next ON b.next_change_at IS NOT NULL
ORDER BY b.unit
"""


async def read_balances(
    conn: asyncpg.Connection, members: Sequence[tuple[int, uuid.UUID]], at: datetime, timeout_seconds: float = 5.0
) -> dict[uuid.UUID, list[BalanceAt]]:
    """Return the balances of members, given as (book, member id), judged at ``at``; none for those without entries."""
    books = [book for book, _ in members]
    ids = [member_id for _, member_id in members]
    found: dict[uuid.UUID, list[BalanceAt]] = defaultdict(list)
    for member_id, unit, code, precision, *figures in await conn.fetch(
        READ_BALANCES, books, ids, at, timeout=timeout_seconds
    ):
        available, pending, held, debt, expiring, expires_at = figures
        found[member_id].append(
            BalanceAt(Unit(unit, code, precision), int(available), int(pending), held, debt, int(expiring), expires_at)
        )
    return found
