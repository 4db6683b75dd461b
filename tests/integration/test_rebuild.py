"""Rebuilding: every cache written from the journal equals the cache that was kept up to date, pruned or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from ledger.booking.retention import forget_message_ids
from ledger.caches.tables import CACHE_TABLES
from ledger.rebuild import rebuild
from ledger.verify import verify
from server.base.storage import LEDGER_MIGRATIONS
from tests.support.books import open_test_books
from tests.support.commands import cancel, checkout, hold
from tests.support.database import DatabaseFactory
from tests.support.story import Story
from tests.support.tampering import tampering

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

TABLES = [table.name for table in CACHE_TABLES]


@pytest.fixture(scope="module")
def ledger(databases: DatabaseFactory) -> Iterator[str]:
    """A ledger in which everything happened once, with holds that are still open. What tests do is undone."""

    async def fill(dsn: str) -> None:
        async with open_test_books(dsn) as books:
            await Story(books).happen()
            members = await books.register(6)
            await books.buy(60)
            open_holds = [hold(checkout(f"open {n}"), m, 5 * n, books=books.count) for n, m in enumerate(members)]
            await books.append(open_holds)
            (newcomer,) = await books.register(1)
            for key in (checkout("nothing"), checkout("nothing at all")):
                await books.append([hold(key, newcomer, 0, books=books.count)])
            await books.append([cancel(checkout("nothing"), newcomer, books=books.count)])

    with databases.fresh(LEDGER_MIGRATIONS) as dsn, ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, fill(dsn)).result()
        yield dsn


@pytest.fixture
async def owner(ledger: str) -> AsyncIterator[Connection]:
    """A connection with all rights, in a transaction that is rolled back."""
    async with tampering(ledger) as conn:
        yield conn


async def contents(conn: Connection) -> dict[str, list[str]]:
    """Return all rows of all caches, comparable."""
    return {
        table: sorted(repr(dict(row)) for row in await conn.fetch(f"SELECT * FROM ledger.{table}")) for table in TABLES
    }


async def assert_sound(conn: Connection) -> None:
    assert [report.problem for report in await verify(conn) if report.problem] == []


async def test_every_cache_has_rows_to_compare(owner: Connection) -> None:
    assert all((await contents(owner)).values())


@pytest.mark.parametrize(
    "damage",
    [
        "SELECT",
        *(f"DELETE FROM ledger.{table}" for table in TABLES),
        "UPDATE ledger.balance SET available_minor = 1, next_change_at = now()",
        "UPDATE ledger.lot SET remaining_minor = 1, held_minor = 0",
        "UPDATE ledger.hold SET how = 3, ended_number = 1 WHERE how IS NULL",
        "INSERT INTO ledger.purchase_return VALUES (1, 1, 2)",
    ],
)
async def test_rebuilt_caches_equal_the_ones_that_were_kept(owner: Connection, damage: str) -> None:
    before = await contents(owner)
    await owner.execute(damage)
    assert await rebuild(owner) == await owner.fetchval("SELECT count(*) FROM ledger.entry")
    assert await contents(owner) == before
    await assert_sound(owner)


async def test_what_was_pruned_stays_forgotten(owner: Connection) -> None:
    """Message ids go in the order of entries; so do the rows of holds that are over."""
    for book in range(4):
        await forget_message_ids(owner, book, 1, datetime(2027, 1, 1, tzinfo=UTC), piece_entries=7)
        await owner.execute("DELETE FROM ledger.hold WHERE book = $1 AND how IS NOT NULL AND number <= 6", book)
    await assert_sound(owner)
    pruned = await contents(owner)
    assert len(pruned["message_key"]) < await owner.fetchval("SELECT count(message_id) FROM ledger.entry")
    await owner.execute("UPDATE ledger.balance SET debt_minor = debt_minor + 1")
    await rebuild(owner)
    assert await contents(owner) == pruned
    await assert_sound(owner)


async def test_a_hole_between_pruned_rows_is_found(owner: Connection) -> None:
    book, number = tuple(
        await owner.fetchrow("SELECT book, max(number) FROM ledger.message_key GROUP BY book ORDER BY 2 DESC LIMIT 1")
        or ()
    )
    await owner.execute("DELETE FROM ledger.message_key WHERE book = $1 AND number = $2", book, number)
    (problem,) = [report.problem for report in await verify(owner) if report.problem]
    assert (problem.book, problem.number) == (book, 0)
    assert "cache message_key" in problem.what
