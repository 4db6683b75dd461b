"""Registers sell while the CRM database is away, or the service stops: what they notice of it, and what they must not.

Everything else that may strike a running service is in `test_cycles.py`.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import asyncpg
import pytest

from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.faults import (
    books_locked,
    database_away,
    dsn_of,
    until_refused,
)
from tests.support.proof import prove
from tests.support.server_process import running_server
from tests.support.shop import open_shop, prove_shop

INTERRUPTIONS = 6
"""So often the stream tries in vain: its pauses grow to their longest, and beyond what a register waits."""


async def test_checkout_does_not_notice_that_the_crm_database_is_away(tmp_path: Path, dice: random.Random) -> None:
    with running_server(tmp_path, "--workers=2") as server:
        admin = await asyncpg.connect(dsn_of(server, LEDGER_DATABASE))
        async with open_shop(server, dice, read_timeout_seconds=30) as shop:
            await shop.sell(100)
            before = shop.tally.acknowledged
            async with database_away(admin, CRM_DATABASE):
                await asyncio.to_thread(server.wait_for_event, "crm_stream_interrupted", count=INTERRUPTIONS, lane=0)
                await shop.sell(100)
                with pytest.raises(asyncpg.PostgresError):
                    await asyncpg.connect(dsn_of(server, CRM_DATABASE))
            sold_meanwhile = shop.tally.acknowledged - before
            await shop.sell(100)
        await admin.close()
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
        assert (proof.booked, proof.unacknowledged) == (shop.tally.receipts_acknowledged, 0)
        await prove_shop(shop, again, dice)
