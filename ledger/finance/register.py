"""What the register of receipts has, for whoever compares it with what registers report.

``summary`` writes it from the journal: it has what was summed, so callers bring it up to date first.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

# Stores that have receipts on these days.
READ_STORES: Final = "SELECT DISTINCT store_id FROM ledger.receipt_register WHERE business_date BETWEEN $1 AND $2"

# A store's receipts on these days; of the days before and after only those that may be the same receipts.
READ_RECEIPTS: Final = """
WITH own AS (
    SELECT * FROM ledger.receipt_register WHERE store_id = $1 AND business_date BETWEEN $2 AND $3
), near AS (
    SELECT * FROM ledger.receipt_register n
    WHERE n.store_id = $1 AND n.business_date IN ($2::date - 1, $3::date + 1) AND EXISTS (
        SELECT FROM own
        WHERE own.receipt_number = n.receipt_number AND own.kind = n.kind
          AND own.list_amount_minor = n.list_amount_minor
          AND own.event_at BETWEEN n.event_at - $4::interval AND n.event_at + $4)
)
SELECT r.terminal_id, r.business_date, r.receipt_number, r.kind, r.list_amount_minor, r.discount_minor,
       r.net_amount_minor + r.points_money_minor AS turnover_minor, r.net_amount_minor, r.points_money_minor,
       r.points_earned_minor, r.points_spent_minor, r.lines, r.event_at, r.booked_at,
       r.period > 0 AND EXISTS (
           SELECT FROM ledger.close c
           WHERE c.programme_code = r.programme_code AND c.close_number = r.period
             AND c.last_day >= r.business_date) AS after_close
FROM (SELECT * FROM own UNION ALL SELECT * FROM near) r
ORDER BY r.business_date, r.terminal_id, r.receipt_number
"""


class RegisteredReceipt(NamedTuple):
    """A receipt of a store as the register has it. ``kind`` is an ``EntryKind``, turnover is money and points' money.

    ``after_close`` is set if it was booked after a close that its business date belongs to.
    """

    terminal_id: str
    business_date: date
    receipt_number: int
    kind: int
    list_amount_minor: int
    discount_minor: int
    turnover_minor: int
    net_amount_minor: int
    points_money_minor: int
    points_earned_minor: int
    points_spent_minor: int
    lines: int
    event_at: datetime
    booked_at: datetime
    after_close: bool


async def read_stores(conn: asyncpg.Connection, first: date, last: date) -> set[str]:
    """Return the stores that have receipts on business dates, both included."""
    return {row["store_id"] for row in await conn.fetch(READ_STORES, first, last)}


async def read_receipts(
    conn: asyncpg.Connection, store_id: str, first: date, last: date, doubled_within: timedelta
) -> list[RegisteredReceipt]:
    """Return a store's receipts on business dates, both included, by date, terminal and number.

    Of the dates before and after come those that may be one of them once more: the same number, kind and amount,
    no further apart than ``doubled_within``.
    """
    rows = await conn.fetch(READ_RECEIPTS, store_id, first, last, doubled_within)
    return [RegisteredReceipt(*row) for row in rows]


def terminal_days(first: str, last: str) -> str:
    """Return the query for terminals' days with receipts: ``store_id``, ``terminal_id`` and ``business_date``.

    ``first`` and ``last`` are expressions for the days, both included; a first day that is null is the very first.
    """
    return f"""
    SELECT DISTINCT store_id, terminal_id, business_date FROM ledger.receipt_register
    WHERE business_date BETWEEN coalesce({first}, '-infinity') AND {last}
    """  # noqa: S608 - expressions that our own code gives
