"""A batch may read while another writer books: what it read does not fit together, and its command is fine."""

from __future__ import annotations

import asyncio

import asyncpg

from ledger.booking.append import append_locked, lock_books
from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.model import Booked
from tests.support.commands import BONUS, NOON, member, purchase
from tests.support.crm import eventually
from tests.support.proof import prove
from tests.support.tally import Answer, Operation, Tally, settlement_of

# Keep everybody from reading lots: a batch that reads has seen the balances by then.
LOCK_LOTS = "LOCK TABLE ledger.lot IN ACCESS EXCLUSIVE MODE"

# Count those who wait for that.
COUNT_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ledger.lot'::regclass"


async def test_lots_come_between_reading_balances_and_reading_lots(ledger_dsn: str) -> None:
    """Another writer's first grant to a member falls between: the spender sees lots of one who has no balance."""
    other = await asyncpg.connect(ledger_dsn)
    await open_books(other, 1)
    await ensure_unit(other, BONUS.code, BONUS.precision)
    committer = Committer(lambda: asyncpg.connect(ledger_dsn), 1, lambda: NOON)
    grant = purchase(1, member("Anna"), earn=[50])
    spend = purchase(2, member("Anna"), earn=[10], spend=30)
    await committer.submit(purchase(3, None))  # opens the connection
    try:
        async with other.transaction():
            await lock_books(other, [0])
            await other.execute(LOCK_LOTS)
            spending = asyncio.create_task(committer.submit(spend))

            async def waits() -> bool:
                return bool(await other.fetchval(COUNT_WAITING))

            await eventually(waits, "the spender has read the balances and waits for the lots")
            await append_locked(other, 0, [grant], NOON)
        booked = await spending
    finally:
        await committer.close()
        await other.close()

    assert isinstance(booked, Booked)
    tally = Tally()
    for command in (grant, spend, purchase(3, None)):
        assert command.business_key is not None
        assert command.message_id is not None
        tally.sent(command.business_key, command.message_id, Operation.PURCHASE)
    assert spend.business_key is not None
    tally.answered(spend.business_key, Answer(booked.book, booked.number, settlement_of(booked.event)))
    assert (await prove(ledger_dsn, tally)).booked == 3
