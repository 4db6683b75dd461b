"""Registers sell while parts of a running server die: what was acknowledged is there, once, and the CRM is equal."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from server.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.faults import (
    batch_retries,
    books_locked,
    database_away,
    dsn_of,
    end_backends,
    open_shop,
    postgres_of,
    prove,
    prove_shop,
    restart_postgres,
    until_refused,
)
from tests.support.server_process import RunningServer, running_server

CRM_AWAY_SECONDS = 10


def restart_fast(server: RunningServer, cycle: int) -> None:
    restart_postgres(server, "fast")


def restart_at_once(server: RunningServer, cycle: int) -> None:
    restart_postgres(server, "immediate")


def kill(server: RunningServer, cycle: int) -> None:
    """Kill PostgreSQL; starting it again is the supervisor's work."""
    pid = postgres_of(server).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.wait_for_event("postgres_restarted", count=cycle)


@pytest.mark.parametrize("fault", [restart_fast, restart_at_once, kill])
async def test_postgresql_is_restarted(
    tmp_path: Path, dice: random.Random, fault: Callable[[RunningServer, int], None]
) -> None:
    with running_server(tmp_path, "--workers=2") as server:
        pids = {postgres_of(server).pid}
        async with open_shop(server, dice) as shop:
            for cycle in (1, 2):
                await shop.sell(dice.randint(50, 300))
                await asyncio.to_thread(fault, server, cycle)
                pids.add(postgres_of(server).pid)
            await shop.sell(100)
        assert len(pids) == 3
        assert await batch_retries(server, "connection") > 0
        proof = await prove_shop(shop, server, dice)
        assert proof.unacknowledged == 0


async def test_workers_are_killed(tmp_path: Path, dice: random.Random) -> None:
    with running_server(tmp_path, "--workers=2") as server:
        async with open_shop(server, dice) as shop:
            for worker in ("worker-1", "worker-2"):
                await shop.sell(dice.randint(50, 300))
                os.kill(server.wait_for_event("child_ready", child=worker)["pid"], signal.SIGKILL)
                await asyncio.to_thread(server.wait_for_event, "child_ready", 2, child=worker)
            await shop.sell(100)
        assert shop.tally.errors["UNAVAILABLE"] > 0
        for worker in ("worker-1", "worker-2"):
            assert server.wait_for_event("child_died", child=worker)["exit_code"] == -signal.SIGKILL
        await prove_shop(shop, server, dice)


async def test_single_backends_are_ended(tmp_path: Path, dice: random.Random) -> None:
    with running_server(tmp_path, "--workers=2") as server:
        killer = await asyncpg.connect(dsn_of(server, LEDGER_DATABASE))
        ended = 0
        async with open_shop(server, dice) as shop:
            for _ in range(40):
                await shop.sell(dice.randint(1, 60))
                ended += await end_backends(killer, dice, most=4)
        await killer.close()
        assert ended >= 40
        assert await batch_retries(server, "connection") > 0
        await prove_shop(shop, server, dice)


async def test_checkout_does_not_notice_that_the_crm_database_is_away(tmp_path: Path, dice: random.Random) -> None:
    with running_server(tmp_path, "--workers=2") as server:
        admin = await asyncpg.connect(dsn_of(server, LEDGER_DATABASE))
        async with open_shop(server, dice, read_timeout_seconds=30) as shop:
            await shop.sell(100)
            before = shop.tally.acknowledged
            async with database_away(admin, CRM_DATABASE):
                await asyncio.sleep(CRM_AWAY_SECONDS)  # the fault's length, not a wait for something
                await shop.sell(100)
                with pytest.raises(asyncpg.PostgresError):
                    await asyncpg.connect(dsn_of(server, CRM_DATABASE))
            sold_meanwhile = shop.tally.acknowledged - before
            await shop.sell(100)
        await admin.close()
        assert server.wait_for_event("crm_stream_interrupted", count=4)
        assert sold_meanwhile > 100
        assert not shop.tally.errors
        await prove_shop(shop, server, dice)


async def test_sigterm_lets_calls_under_way_finish(tmp_path: Path, dice: random.Random) -> None:
    """Not one receipt is booked whose register was not told, and the next server gives the same answers."""
    with running_server(tmp_path, "--workers=2") as server:
        async with open_shop(server, dice, read_timeout_seconds=30) as shop:
            await shop.sell(dice.randint(50, 300))
            async with books_locked(dsn_of(server, LEDGER_DATABASE)):
                shop.abandon_when_refused = True
                stopping = asyncio.create_task(asyncio.to_thread(server.stop))
                await until_refused(server.pos_address)
                told_before = shop.tally.acknowledged
            assert await stopping == 0
    assert shop.tally.acknowledged > told_before
    assert "UNAVAILABLE" in shop.tally.errors
    assert set(shop.tally.errors) <= {"UNAVAILABLE", "CANCELLED"}
    with running_server(tmp_path, "--workers=2") as again:
        proof = await prove(dsn_of(again, LEDGER_DATABASE), shop.tally)
        assert (proof.booked, proof.unacknowledged) == (shop.tally.acknowledged, 0)
        await prove_shop(shop, again, dice)
