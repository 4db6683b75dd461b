"""A worker of the release before in a process of its own: it calls the database's functions by the names of then."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import asyncpg

from ledger.booking import store
from ledger.booking.committer import Committer
from ledger.entry.model import Booked, Command
from tests.support.commands import checkout, hold, member, promoted, purchase

BOOKS = 2
SHOPPERS = [member(n) for n in range(8)]
RECEIPTS_A_ROUND = 8
_ROUND = 100
_WRITER = 100_000
_spawn = multiprocessing.get_context("spawn")

_VERSION = "_v1("
"""How the name of a function of today ends; the release before called it without a version."""


def commands_of(round_number: int, writer: int) -> Iterator[list[Command]]:
    """Yield what a writer (1 or 2) submits in a round: receipts, and a hold that the other captures in the next."""
    first = writer * _WRITER + round_number * _ROUND
    yield [
        promoted(
            purchase(first + n, SHOPPERS[n], books=BOOKS, earn=[100 + n], spend=30, lines=()),
            coupons={f"coupon-{first}": 1} if n == 0 else {},
        )
        for n in range(RECEIPTS_A_ROUND)
    ]
    shopper = SHOPPERS[round_number % len(SHOPPERS)]
    yield [hold(checkout(f"{writer} in {round_number}"), shopper, 20, books=BOOKS)]
    if round_number > 1:
        held = checkout(f"{3 - writer} in {round_number - 1}")
        shopper = SHOPPERS[(round_number - 1) % len(SHOPPERS)]
        yield [purchase(first + _ROUND - 1, shopper, books=BOOKS, spend=20, captures=held)]


async def book(committer: Committer, steps: Iterable[list[Command]]) -> list[tuple[int, int]]:
    """Submit commands, step by step; return book and number of each entry."""
    entries = []
    for commands in steps:
        for outcome in await asyncio.gather(*map(committer.submit, commands)):
            assert isinstance(outcome, Booked), outcome
            entries.append((outcome.book, outcome.number))
    return entries


@asynccontextmanager
async def a_committer(dsn: str, owned: Collection[int]) -> AsyncIterator[Committer]:
    """A committer as a worker has it, with the writer's rights only; its calls of functions are counted."""

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        settings = {"role": "tallypoint_writer", "track_functions": "pl"}
        return await asyncpg.connect(dsn, server_settings=settings)

    committer = Committer(connect, BOOKS, lambda: datetime.now(UTC), owned=owned)
    try:
        yield committer
    finally:
        await committer.close()


@contextmanager
def release_before(dsn: str, owned: Collection[int]) -> Iterator[Connection]:
    """Run the worker; it books the round whose number it is sent, and sends back book and number of each entry."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_work, args=(dsn, list(owned), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
        ours.send(0)
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
        ours.close()


def _work(dsn: str, owned: Collection[int], parent: Connection) -> None:
    """Book rounds until a 0 comes."""
    for name in ("READ_BATCH", "WRITE_BATCH"):
        today = getattr(store, name)
        assert _VERSION in today
        setattr(store, name, today.replace(_VERSION, "("))
    asyncio.run(_book_rounds(dsn, owned, parent))


async def _book_rounds(dsn: str, owned: Collection[int], parent: Connection) -> None:
    async with a_committer(dsn, owned) as committer:
        while number := await asyncio.to_thread(parent.recv):
            parent.send(await book(committer, commands_of(number, writer=1)))
