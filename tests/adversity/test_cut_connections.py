"""Connections to PostgreSQL are cut between COMMIT and its answer: every receipt is answered, and booked once."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import uuid
from datetime import UTC, datetime

import asyncpg

from ledger.booking.committer import Committer, DeadlinePassed, OutcomeUnknown, Silent
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.model import Booked
from server.base.postgres import EmbeddedPostgres
from tests.support.commands import BONUS, member, purchase
from tests.support.cutting_proxy import SOCKET_NAME, CuttingProxy
from tests.support.proof import prove
from tests.support.tally import Answer, Tally, settlement_of

BOOKS = 2
LANES = 12
RECEIPTS_OF_A_LANE = 60
MEMBERS = 6
MOST_SENDINGS = 100


class Retries(Silent):
    """Counts the batches that ran again because a connection was lost."""

    def __init__(self) -> None:
        self.count = 0

    def retry(self, reason: str) -> None:
        self.count += reason == "connection"


async def sell(committers: list[Committer], tally: Tally, first_number: int, dice: random.Random) -> int:
    """Sell a lane's receipts; return how many were found booked already, though nobody had been told so."""
    loop = asyncio.get_running_loop()
    untold = 0
    for number in range(first_number, first_number + RECEIPTS_OF_A_LANE):
        shopper, earn = member(dice.randint(1, MEMBERS)), dice.randint(1, 50)
        spend = dice.randint(1, 80) if dice.random() < 0.5 else None
        command = purchase(number, shopper, books=BOOKS, earn=[earn], spend=spend)
        key = command.business_key
        assert key is not None
        for _ in range(MOST_SENDINGS):
            message_id = uuid.UUID(int=dice.getrandbits(128)).bytes
            sending = dataclasses.replace(command, message_id=message_id)
            tally.sent(key, message_id)
            try:
                outcome = await dice.choice(committers).submit(sending, loop.time() + dice.uniform(0.01, 1))
            except (OutcomeUnknown, DeadlinePassed) as error:
                stored_nothing = isinstance(error, DeadlinePassed)
                tally.failed(key, type(error).__name__, stored_nothing=stored_nothing)
                continue
            assert isinstance(outcome, Booked), outcome
            untold += outcome.repeated
            tally.answered(key, Answer(outcome.book, outcome.number, settlement_of(outcome.event)))
            break
    return untold


async def test_connections_cut_between_commit_and_its_answer(
    ledger_dsn: str, postgres: EmbeddedPostgres, dice: random.Random
) -> None:
    owner = await asyncpg.connect(ledger_dsn)
    await open_books(owner, BOOKS)
    await ensure_unit(owner, BONUS.code, BONUS.precision)
    await owner.close()
    proxy, tally, retries = CuttingProxy(postgres.socket_dir / SOCKET_NAME, dice), Tally(), Retries()
    async with proxy.listening() as host:

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            return await asyncpg.connect(ledger_dsn, host=host, server_settings={"role": "tallypoint_writer"})

        committers = [Committer(connect, BOOKS, lambda: datetime.now(UTC), observer=retries) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(sell(committers, tally, 1 + lane * RECEIPTS_OF_A_LANE, random.Random(dice.random())))
                for lane in range(LANES)
            ]
        for committer in committers:
            await committer.close()
    untold = sum(lane.result() for lane in lanes)
    print(f"{tally}, {proxy.cuts} connections cut, {retries.count} batches again, {untold} COMMITs without answer")
    assert tally.acknowledged == LANES * RECEIPTS_OF_A_LANE
    assert proxy.cuts > 50
    assert retries.count > 50
    assert untold > 10, "no cut fell between COMMIT and its answer"
    proof = await prove(ledger_dsn, tally)
    assert (proof.booked, proof.unacknowledged) == (tally.acknowledged, 0)
