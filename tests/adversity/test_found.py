"""What the adversity command found, each with the moment forced that it met by chance."""

from __future__ import annotations

import uuid
from datetime import timedelta

import asyncpg

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.model import Booked, Grant
from ledger.verify import verify
from tests.support.commands import BONUS, NOON, adjust, checkout, hold, member, transfer_in, transfer_out

HOLD_SECONDS = 10
GIFT = str(uuid.UUID(int=1))


async def test_a_hold_expires_with_the_transfer_that_its_member_receives(ledger_dsn: str) -> None:
    conn = await asyncpg.connect(ledger_dsn)
    await open_books(conn, 1)
    await ensure_unit(conn, BONUS.code, BONUS.precision)
    now = NOON
    committer = Committer(lambda: asyncpg.connect(ledger_dsn), 1, lambda: now)
    anna, boris = member("Anna"), member("Boris")
    for command in (
        adjust("2", boris, 5),
        adjust("1", anna, 100),
        hold(checkout(1), anna, 69, ttl_seconds=HOLD_SECONDS),
    ):
        assert isinstance(await committer.submit(command), Booked)
    now += timedelta(seconds=HOLD_SECONDS + 1)
    for side in (
        transfer_out(GIFT, boris, anna, 5),
        transfer_in(GIFT, boris, anna, [Grant(5, None, None, now)]),
    ):
        assert isinstance(await committer.submit(side), Booked)
    await committer.close()

    assert [report.problem for report in await verify(conn)] == [None]
    await conn.close()
