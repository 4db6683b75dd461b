"""Whatever happens to either database, the CRM database ends equal to the ledger, with nothing lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS, migrate_database
from server.crm import source, store, streamer
from server.measuring.metrics import CRM_LAG_ENTRIES
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.crm import caught_up, comparison, eventually, streaming

if TYPE_CHECKING:
    from server.base.database import Connection

RECEIPTS_MEANWHILE = 200
Connect = Callable[[str], Awaitable["Connection"]]


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """An open ledger with some members and receipts."""
    async with open_test_books(ledger_dsn) as opened:
        await opened.register(6)
        await opened.buy(60)
        yield opened


async def assert_equal(ledger_dsn: str, crm_dsn: str, receipts: int) -> None:
    """Assert that both databases tell the same, and that every receipt is there."""
    result = await comparison(ledger_dsn, crm_dsn)
    assert result.equal, result.differences
    assert result.receipts == receipts


class Scissors:
    """Cuts connections: the one in use when a given number of statements has been sent, counted over all of them."""

    def __init__(self, connect: Connect, after_statements: int) -> None:
        self._connect = connect
        self.statements_left = after_statements

    async def __call__(self, dsn: str) -> Connection:
        """Open a connection that may be cut."""
        conn = await self._connect(dsn)

        def count(_: object) -> None:
            self.statements_left -= 1
            if self.statements_left == 0:
                conn.terminate()

        conn.add_query_logger(count)
        return conn

    async def has_cut(self) -> bool:
        """Say whether the connection has been cut."""
        return self.statements_left <= 0


@pytest.mark.parametrize("side", ["ledger", "crm"])
async def test_a_connection_lost_after_any_statement_changes_nothing(
    books: BooksUnderTest, crm_dsn: str, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """The stream is cut after its first, second, third ... statement, while the next one is under way."""
    module, name = (source, "connect_ledger") if side == "ledger" else (store, "connect_crm")
    connect = getattr(module, name)
    monkeypatch.setattr(streamer, "BATCH_ENTRIES", 4)
    for after_statements in range(1, 16):
        scissors = Scissors(connect, after_statements)
        monkeypatch.setattr(module, name, scissors)
        await books.buy(12)
        async with streaming(books.dsn, crm_dsn):
            await caught_up(books.dsn, crm_dsn)
            await eventually(scissors.has_cut, f"the connection was cut after {after_statements} statements")
            await books.buy(12)
            await caught_up(books.dsn, crm_dsn)
        await assert_equal(books.dsn, crm_dsn, 60 + 24 * after_statements)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_backends_killed_at_random_moments_while_receipts_come(
    books: BooksUnderTest,
    crm_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Both databases lose the stream's backends again and again; two streams even work side by side."""
    monkeypatch.setattr(streamer, "BATCH_ENTRIES", 20)
    dice = random.Random(seed)
    killers = [await asyncpg.connect(dsn) for dsn in (books.dsn, crm_dsn)]
    killed = 0
    async with streaming(books.dsn, crm_dsn), streaming(books.dsn, crm_dsn):
        for _ in range(25):
            await books.buy(20)
            await asyncio.sleep(dice.uniform(0, 0.05))
            killed += await dice.choice(killers).fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'tallypoint crm stream'",
            )
        await caught_up(books.dsn, crm_dsn)
    assert killed > 0
    await assert_equal(books.dsn, crm_dsn, 560)
    for killer in killers:
        await killer.close()


async def test_the_crm_database_away_for_a_while(books: BooksUnderTest, crm_dsn: str) -> None:
    """Meanwhile the lag is measured; then everything that came is applied."""
    admin = await asyncpg.connect(books.dsn)
    name = crm_dsn.split("/")[3].split("?", maxsplit=1)[0]
    async with streaming(books.dsn, crm_dsn):
        await caught_up(books.dsn, crm_dsn)
        while True:  # a new connection may slip in between both statements
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            try:
                await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_away"')
                break
            except asyncpg.ObjectInUseError:
                continue
        await books.buy(RECEIPTS_MEANWHILE)

        async def lag_is_seen() -> bool:
            values: list[float] = [CRM_LAG_ENTRIES.labels(str(book))._value.get() for book in range(books.count)]
            return sum(values) == RECEIPTS_MEANWHILE

        await eventually(lag_is_seen, "the lag is in the metrics")
        await admin.execute(f'ALTER DATABASE "{name}_away" RENAME TO "{name}"')
        await caught_up(books.dsn, crm_dsn)
    await admin.close()
    await assert_equal(books.dsn, crm_dsn, 60 + RECEIPTS_MEANWHILE)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_postgresql_restarted_under_the_stream(tmp_path: Path, mode: str) -> None:
    """A restart, even a crash that takes the latest CRM commits with it, loses and doubles nothing."""
    server = EmbeddedPostgres(tmp_path / "postgres", {"shared_buffers": "32MB"})
    await asyncio.to_thread(server.start)
    try:
        for name in ("ledger", "crm"):
            server.ensure_database(name)
        ledger_dsn, crm_dsn = server.dsn("ledger"), server.dsn("crm")
        await migrate_database(ledger_dsn, LEDGER_MIGRATIONS)
        await migrate_database(crm_dsn, CRM_MIGRATIONS)
        async with open_test_books(ledger_dsn) as books:
            await books.register(5)
            await books.buy(500)
            async with streaming(ledger_dsn, crm_dsn):

                async def begun() -> bool:
                    conn = await store.connect_crm(crm_dsn)
                    try:
                        return bool(await conn.fetchval("SELECT sum(number) > 50 FROM crm.cursor"))
                    finally:
                        await conn.close()

                await eventually(begun, "the stream has begun")
                for _ in range(2):
                    await asyncio.to_thread(server.restart, mode)
                    await books.buy(100)
                await caught_up(ledger_dsn, crm_dsn)
            await assert_equal(ledger_dsn, crm_dsn, 700)
    finally:
        await asyncio.to_thread(server.stop)
