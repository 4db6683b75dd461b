"""Reconciles days of stores: reads both sides, compares them, and carries the breaks on."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import journal_pb2

from ledger.finance import register
from ledger.finance.summary import bring_up_to_date, count_pending
from server.base.database import connection, transaction
from server.reconciliation import breaks, files
from server.reconciliation.carry_over import carry_over
from server.reconciliation.compare import compare, find_twins
from server.reconciliation.model import (
    Amounts,
    Break,
    BreakState,
    Day,
    LedgerReceipt,
    ReceiptKind,
    Rules,
    TerminalDay,
)

if TYPE_CHECKING:
    from server.base.clock import Clock
    from server.base.database import Connection, Pool

CALL_SECONDS: Final = 8.0
"""How long one call may sum up the journal, or compare stores; the caller comes again for the rest."""
_KINDS: Final[Mapping[int, ReceiptKind]] = {
    int(journal_pb2.ENTRY_KIND_PURCHASE): ReceiptKind.SALE,
    int(journal_pb2.ENTRY_KIND_RETURN): ReceiptKind.RETURN,
}

# Let one run at a time work on a store.
LOCK_STORE: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tallypoint reconciliation ' || $1, 0))"

# Stores of which anything was reported, or found, on these days.
READ_STORES: Final = """
SELECT store_id FROM server.z_report WHERE business_date BETWEEN $1 AND $2
UNION SELECT store_id FROM server.register_receipt WHERE business_date BETWEEN $1 AND $2
UNION SELECT store_id FROM server.reconciliation_break WHERE business_date BETWEEN $1 AND $2 AND state <> 4
"""

# All rules; those for all other stores come first.
READ_RULES: Final = """
SELECT store_id, numbers_consecutive, late_after_hours, doubled_within_minutes
FROM server.reconciliation_rules ORDER BY store_id
"""

# Set a store's rules.
PUT_RULES: Final = """
INSERT INTO server.reconciliation_rules (store_id, numbers_consecutive, late_after_hours, doubled_within_minutes)
VALUES ($1, $2, $3, $4)
ON CONFLICT (store_id) DO UPDATE
SET numbers_consecutive = excluded.numbers_consecutive, late_after_hours = excluded.late_after_hours,
    doubled_within_minutes = excluded.doubled_within_minutes
"""

# Keep what a run did.
PUT_RUN: Final = """
INSERT INTO server.reconciliation_run (run_id, started_at, finished_at, run_by, from_day, to_day, store_ids,
                                       terminal_days, found, opened, resolved)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


@dataclass
class RunResult:
    """What a run has done. `stopped_after` is the last store that it had time for; empty if it had time for all."""

    run_id: uuid.UUID = field(default_factory=uuid.uuid4)
    terminal_days: int = 0
    found: int = 0
    opened: int = 0
    resolved: int = 0
    open: int = 0
    stopped_after: str = ""


class _TimeIsOver(Exception):
    pass


async def catch_up(pool: Pool) -> int:
    """Bring the ledger's register of receipts up to date, for a while; return how many entries are left."""
    stop_at = time.monotonic() + CALL_SECONDS

    def check_time(_entries: int) -> None:
        if time.monotonic() > stop_at:
            raise _TimeIsOver

    async with connection(pool) as conn:
        try:
            await bring_up_to_date(conn, check_time)
        except _TimeIsOver:
            return await count_pending(conn)
    return 0


async def reconcile(
    pool: Pool, first: date, last: date, store_ids: Sequence[str], by: str, clock: Clock, *, after: str = ""
) -> RunResult:
    """Compare days of stores, all that have anything if none is named; each store is a transaction of its own.

    Args:
        pool: Connections with the writer's rights.
        first: The first business date.
        last: The last one, included.
        store_ids: The stores; empty stands for all.
        by: Who asked for it.
        clock: Tells when breaks are found.
        after: Where an earlier call stopped: only stores after it are compared.
    """
    result, started_at, stop_at = RunResult(), clock(), time.monotonic() + CALL_SECONDS
    async with connection(pool) as conn:
        stores = store_ids or await _stores(conn, first, last)
        rules = await read_rules(conn)
    left = sorted({store_id for store_id in stores if store_id > after})
    for store_id in left:
        async with transaction(pool) as conn:
            await conn.execute(LOCK_STORE, store_id)
            await _reconcile_store(conn, store_id, first, last, rules.get(store_id, rules[""]), by, clock(), result)
        if time.monotonic() > stop_at and store_id != left[-1]:
            result.stopped_after = store_id
            break
    async with transaction(pool) as conn:
        result.open = await breaks.count_open(conn, first, last, store_ids)
        tallies = (result.terminal_days, result.found, result.opened, result.resolved)
        await conn.execute(PUT_RUN, result.run_id, started_at, clock(), by, first, last, store_ids, *tallies)
    return result


async def _stores(conn: Connection, first: date, last: date) -> set[str]:
    """Return the stores that have anything on these days, on either side."""
    reported = {row["store_id"] for row in await conn.fetch(READ_STORES, first, last)}
    return reported | await register.read_stores(conn, first, last)


async def read_rules(conn: Connection) -> dict[str, Rules]:
    """Return the rules by store; those under the empty name are for all other stores."""
    return {
        row["store_id"]: Rules(
            row["numbers_consecutive"],
            timedelta(hours=row["late_after_hours"]) or None,
            timedelta(minutes=row["doubled_within_minutes"]) or None,
        )
        for row in await conn.fetch(READ_RULES)
    }


async def put_rules(conn: Connection, store_id: str, rules: Rules) -> None:
    """Set a store's rules; the empty name stands for all stores without rules of their own."""
    hours = (rules.late_after or timedelta()) // timedelta(hours=1)
    minutes = (rules.doubled_within or timedelta()) // timedelta(minutes=1)
    await conn.execute(PUT_RULES, store_id, rules.numbers_consecutive, hours, minutes)


async def _reconcile_store(
    conn: Connection,
    store_id: str,
    first: date,
    last: date,
    rules: Rules,
    by: str,
    now: datetime,
    result: RunResult,
) -> None:
    found: list[Break] = []
    for day in await _days(conn, store_id, first, last, rules):
        result.terminal_days += 1
        found += compare(day, rules)
    kept = await breaks.read_of_days(conn, store_id, first, last)
    steps = carry_over(kept, found, now)
    await breaks.write(conn, steps, by, result.run_id)
    result.found += len(found)
    result.opened += sum(step.opens for step in steps)
    result.resolved += sum(step.after.state is BreakState.RESOLVED for step in steps)


async def _days(conn: Connection, store_id: str, first: date, last: date, rules: Rules) -> Iterator[Day]:
    reports = await files.read_reports(conn, store_id, first, last)
    receipts = await files.read_receipts(conn, store_id, first, last)
    booked = await _read_ledger(conn, store_id, first, last, rules)
    twins = find_twins(booked, rules.doubled_within)
    ledger: dict[TerminalDay, list[LedgerReceipt]] = {}
    for receipt in booked:
        if first <= receipt.place.business_date <= last:
            ledger.setdefault(receipt.place, []).append(receipt)
    return (
        Day(
            place,
            reports.get(place),
            receipts.get(place),
            ledger.get(place, ()),
            {one.key: twins[one] for one in ledger.get(place, ()) if one in twins},
        )
        for place in sorted({*reports, *receipts, *ledger})
    )


async def _read_ledger(conn: Connection, store_id: str, first: date, last: date, rules: Rules) -> list[LedgerReceipt]:
    within = rules.doubled_within or timedelta()
    return [
        LedgerReceipt(
            TerminalDay(store_id, one.terminal_id, one.business_date),
            one.receipt_number,
            _KINDS[one.kind],
            Amounts(
                one.list_amount_minor,
                one.discount_minor,
                one.turnover_minor,
                one.net_amount_minor,
                one.points_money_minor,
                one.points_earned_minor,
                one.points_spent_minor,
            ),
            one.lines,
            one.event_at,
            one.booked_at,
            one.after_close,
        )
        for one in await register.read_receipts(conn, store_id, first, last, within)
    ]
