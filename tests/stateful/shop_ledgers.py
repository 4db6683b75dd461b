"""The ledgers on which histories of a shop run, and what is proved of them after each step and at the end."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import asyncpg

from ledger.caches.tables import CACHE_TABLES
from ledger.rebuild import rebuild
from ledger.verify import record_checkpoints, verify, verify_since
from server.base.storage import LEDGER_MIGRATIONS
from tests.stateful.shop_terms import TERMS
from tests.support.database import DatabaseFactory
from tests.support.one_process import BOOKS, Service, running_service

T = TypeVar("T")

START: Final = datetime(2026, 1, 30, 21, 50, tzinfo=UTC)
"""Ten minutes before a day, and a day before a month, begins in Kyiv."""
HISTORIES_A_LEDGER: Final = 20


@dataclasses.dataclass
class Ledger:
    """A ledger that serves some histories, one after the other, and a connection that verifies it."""

    service: Service
    owner: asyncpg.Connection[asyncpg.Record]
    histories: int = 0

    async def prove_step(self) -> list[str]:
        """Verify what is new, and note how far."""
        reports = await verify_since(self.owner)
        found = [str(report.problem) for report in reports if report.problem]
        if not found:
            await record_checkpoints(self.owner, reports, self.service.clock(), full=False)
        return found

    async def prove(self) -> list[str]:
        """Verify everything."""
        return [str(report.problem) for report in await verify(self.owner) if report.problem]

    async def rebuilt(self) -> list[str]:
        """Write the caches anew; return those that differ from what the service kept."""
        before = [await _rows(self.owner, table) for table in CACHE_TABLES]
        await rebuild(self.owner)
        after = [await _rows(self.owner, table) for table in CACHE_TABLES]
        return [t.name for t, old, new in zip(CACHE_TABLES, before, after, strict=True) if old != new]


async def _rows(conn: asyncpg.Connection[asyncpg.Record], table: Any) -> list[list[str]]:
    return [sorted(map(repr, await table.read(conn, book))) for book in range(BOOKS)]


class Bench:
    """Opens ledgers on one PostgreSQL, and runs what the histories do in one event loop."""

    def __init__(self, databases: DatabaseFactory, tell: Callable[[int], None]) -> None:
        self._databases = databases
        self._tell = tell
        self._runner = asyncio.Runner()
        self._stack: AsyncExitStack | None = None
        self._ledger: Ledger | None = None
        self._terms = itertools.cycle(TERMS)
        self.histories = self.steps = 0
        self.answers: Counter[str] = Counter()
        """How often each call was answered, or refused by which name."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the event loop of the service."""
        return self._runner.run(work)

    def ledger(self) -> Ledger:
        """Return the ledger for the next history: a new one after every so many."""
        if self._ledger is None or self._ledger.histories >= HISTORIES_A_LEDGER:
            self.end_ledger()
            self._ledger = self.run(self._open())
        self._ledger.histories += 1
        self.histories += 1
        self._tell(1)
        return self._ledger

    async def _open(self) -> Ledger:
        self._stack = AsyncExitStack()
        dsn = self._stack.enter_context(self._databases.fresh(LEDGER_MIGRATIONS))
        service = await self._stack.enter_async_context(running_service(dsn, next(self._terms).programme, START))
        owner = await asyncpg.connect(dsn)
        self._stack.push_async_callback(owner.close)
        await record_checkpoints(owner, await verify(owner), service.clock(), full=True)
        return Ledger(service, owner)

    def end_ledger(self) -> None:
        """Prove the ledger that was used so far, and rebuild it, then drop it."""
        if self._ledger is None or self._stack is None:
            return
        ledger, self._ledger = self._ledger, None
        try:
            assert self.run(ledger.prove()) == []
            assert self.run(ledger.rebuilt()) == [], "rebuilt caches differ"
            assert self.run(ledger.prove()) == []
        finally:
            self.run(self._stack.aclose())

    def forget_ledger(self) -> None:
        """Drop a ledger in which something went wrong."""
        if self._stack is not None and self._ledger is not None:
            self._ledger = None
            self.run(self._stack.aclose())

    def close(self) -> None:
        """End the last ledger."""
        self.end_ledger()
        self._runner.close()
