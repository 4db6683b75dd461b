"""The benchmarks on a real server and a real PostgreSQL, for a moment: they measure, and count no errors."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from benchmarks.arena import LoadShape, open_arena
from benchmarks.filling import LedgerPlan, filled_ledger
from benchmarks.latency import Sending, measure, result
from benchmarks.open_loop import schedule
from benchmarks.overload import unproven
from benchmarks.shop import ShopSize
from ledger.verify import BookReport, verify
from server.base.postgres import EmbeddedPostgres


def test_an_open_loop_on_a_real_server() -> None:
    size = ShopSize(lines=2, promotions=3, members=20, terminals=2, baskets=3)
    with open_arena(size, LoadShape(workers=1, books=2, clients=1, connections=1, concurrency=4)) as arena:
        heads, entries = arena.shop.heads(), arena.shop.entries()
        levels = measure(arena, {"ours": 60, "echo": 60}, [50], 2, Sending(0.3, "poisson", lean=False))
        lean = arena.on_schedule("ours", schedule("constant", 40, 0.5, seed=1), timeout_seconds=10, lean=True)
        whole = result(levels, {"ours": 60, "echo": 60}, arena.lost(entries), {})
        assert lean.answered == 20
        assert lean.errors == lean.refused == 0
        assert unproven(arena, heads) == 0
        deadline = time.monotonic() + 30
        while arena.shop.batch_sizes().entries < len(arena.booked):  # workers tell of their batches a little later
            assert time.monotonic() < deadline
        assert arena.shop.resident_mebibytes()["workers"] > 1
    assert whole["errors"] == 0
    assert whole["ratio_min"] <= whole["ratio"] <= whole["ratio_max"]
    level = whole["levels"][0]
    for side in ("ours", "echo", "echo_at_same_rate"):
        assert level[side]["answered"] > 0
        assert level[side]["p50_ms"] <= level[side]["p99_ms"] <= level[side]["max_ms"]


def test_a_filled_ledger_can_be_verified(postgres: EmbeddedPostgres) -> None:
    plan = LedgerPlan("filled_test", 2, writers=2, in_flight=8, members=40, lines=2, promotions=3)
    try:
        with filled_ledger(postgres, plan) as ledger:
            assert ledger.fill(300) > 0
            assert ledger.entries() == 300
            turn = ledger.book(40)
            ledger.vacuum()
            disk = ledger.disk()
        assert (turn.operations, turn.errors) == (40, 0)
        assert 0 < disk.payload < disk.receipt == pytest.approx(sum(disk.tables.values()))
        reports = asyncio.run(_verified(postgres.dsn(plan.database)))
        assert [report.problem for report in reports] == [None] * len(reports)
        assert sum(report.entries for report in reports) == 340
    finally:
        postgres.execute(f'DROP DATABASE IF EXISTS "{plan.database}" WITH (FORCE)')


async def _verified(dsn: str) -> list[BookReport]:
    conn = await asyncpg.connect(dsn)
    try:
        return await verify(conn)
    finally:
        await conn.close()
