"""Verification since the last one, verification under load, and what it honestly does not see."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import pytest

from ledger.booking.transfer import TransferOrder, transfer_points
from ledger.entry.model import Declined
from ledger.verify import Problem, read_checkpoints, record_checkpoints, verify, verify_since
from server.base.storage import LEDGER_MIGRATIONS
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.commands import adjust, checkout, hold
from tests.support.database import DatabaseFactory
from tests.support.story import Story
from tests.support.tampering import tampering

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """A ledger in which everything happened once."""
    async with open_test_books(ledger_dsn) as books:
        await Story(books).happen()
        await books.register(6)
        await books.buy(30)
        yield books


@pytest.fixture
async def owner(books: BooksUnderTest) -> AsyncIterator[Connection]:
    """A connection with all rights, past the triggers."""
    conn = await asyncpg.connect(books.dsn)
    await conn.execute("SET session_replication_role = replica")
    yield conn
    await conn.close()


async def checked(conn: Connection) -> None:
    """Verify everything, and note it."""
    reports = await verify(conn)
    assert [report.problem for report in reports if report.problem] == []
    await record_checkpoints(conn, reports, NOON, full=True)


async def problems_since(conn: Connection) -> list[Problem]:
    return [report.problem for report in await verify_since(conn) if report.problem]


async def test_only_what_came_later_is_looked_at(books: BooksUnderTest, owner: Connection) -> None:
    with pytest.raises(LookupError, match="no earlier verification"):
        await verify_since(owner)
    await checked(owner)
    await books.buy(40)
    reports = await verify_since(owner)
    assert [report.problem for report in reports if report.problem] == []
    assert sum(report.checked for report in reports) == 40
    assert 0 < sum(report.members for report in reports) <= len(books.members)
    await record_checkpoints(owner, reports, NOON, full=False)
    assert sum(report.checked for report in await verify_since(owner)) == 0
    for checkpoint in (await read_checkpoints(owner)).values():
        assert checkpoint.full_number < checkpoint.number


async def test_everything_that_can_happen_is_sound_since_the_last_time(ledger_dsn: str) -> None:
    """From a checkpoint on empty books, so that entries of every kind come after it."""
    async with open_test_books(ledger_dsn) as books:
        conn = await asyncpg.connect(ledger_dsn)
        await checked(conn)
        await Story(books).happen()
        reports = await verify_since(conn)
        await conn.close()
    assert [report.problem for report in reports if report.problem] == []
    assert sum(report.checked for report in reports) >= 30


async def test_a_checkpoint_is_written_for_sound_books_only_and_never_goes_back(
    books: BooksUnderTest, owner: Connection
) -> None:
    early = await verify(owner)
    await books.buy(10)
    await checked(owner)
    newest = await read_checkpoints(owner)
    await record_checkpoints(owner, early, NOON, full=True)
    assert {book: c.number for book, c in (await read_checkpoints(owner)).items()} == {
        book: c.number for book, c in newest.items()
    }
    bad = [early[0].with_problem(Problem(0, 3, "bad")), *early[1:]]
    with pytest.raises(ValueError, match="no checkpoint"):
        await record_checkpoints(owner, bad, NOON, full=True)


class Late(NamedTuple):
    """A ledger that was verified before its last entries, and the last of them."""

    dsn: str
    book: int
    number: int


@pytest.fixture(scope="module")
def late(databases: DatabaseFactory) -> Iterator[Late]:
    """Shared by tests that roll back what they do."""

    async def fill(dsn: str) -> Late:
        async with open_test_books(dsn) as books:
            await Story(books).happen()
            await books.register(6)
            conn = await asyncpg.connect(dsn)
            await checked(conn)
            await conn.close()
            await books.append([adjust("late", books.members[3], 50, books=books.count)])
            last = (await books.buy(8, stranger_every=1000))[-1]
        return Late(dsn, last.book, last.number)

    with databases.fresh(LEDGER_MIGRATIONS) as dsn, ThreadPoolExecutor(1) as pool:
        yield pool.submit(asyncio.run, fill(dsn)).result()


LAST = "book = $1 AND number = $2"
DAMAGE = [
    pytest.param(f"UPDATE ledger.entry SET event_at = now() WHERE {LAST}", True, id="entry changed"),
    pytest.param(f"DELETE FROM ledger.entry WHERE {LAST}", True, id="entry deleted"),
    pytest.param(f"UPDATE ledger.posting SET points_minor = points_minor + 1 WHERE {LAST}", True, id="posting"),
    pytest.param(f"DELETE FROM ledger.receipt_key WHERE {LAST}", False, id="receipt key"),
    pytest.param(f"UPDATE ledger.message_key SET content_hash = '' WHERE {LAST}", False, id="message key"),
    pytest.param("UPDATE ledger.book_head SET hash = sha256('') WHERE book = $1 AND number >= $2", True, id="head"),
    pytest.param(
        "UPDATE ledger.balance b SET available_minor = b.available_minor + 1 FROM ledger.entry e "
        "WHERE b.book = e.book AND b.member_id = e.member_id AND e.book = $1 AND e.number = $2",
        False,
        id="balance",
    ),
    pytest.param(
        "UPDATE ledger.lot l SET active_at = now() FROM ledger.entry e "
        "WHERE l.book = e.book AND l.member_id = e.member_id AND e.book = $1 AND e.number = $2",
        False,
        id="lot",
    ),
    pytest.param(
        "UPDATE ledger.account_total SET debit_minor = debit_minor + 1 WHERE book = $1 AND $2 > 0", False, id="total"
    ),
]


@pytest.mark.parametrize(("damage", "is_entry"), DAMAGE)
async def test_damage_to_what_came_later_is_named(late: Late, damage: str, is_entry: bool) -> None:
    async with tampering(late.dsn) as conn:
        assert await problems_since(conn) == []
        assert await conn.execute(damage, late.book, late.number) != "UPDATE 0"
        (problem,) = await problems_since(conn)
    assert (problem.book, problem.number) == (late.book, late.number if is_entry else 0)


async def test_an_old_entry_of_a_member_with_a_new_one_is_held_against_its_postings(
    books: BooksUnderTest, owner: Connection
) -> None:
    await checked(owner)
    await owner.execute("UPDATE ledger.posting SET points_minor = points_minor - 1 WHERE number = 4")
    book, member_id = tuple(
        await owner.fetchrow("SELECT book, member_id FROM ledger.posting WHERE number = 4 ORDER BY book LIMIT 1") or ()
    )
    await books.append([adjust("late", member_id, 50, books=books.count)])
    assert [(problem.book, problem.number) for problem in await problems_since(owner)] == [(book, 4)]


async def test_a_checkpoint_that_does_not_fit_is_named(books: BooksUnderTest, owner: Connection) -> None:
    await checked(owner)
    number = (await read_checkpoints(owner))[1].number
    await books.buy(10)
    await owner.execute("UPDATE ledger.entry SET hash = sha256(hash) WHERE book = 1 AND number = $1", number)
    assert [(p.book, p.number) for p in await problems_since(owner)] == [(1, number)]
    await owner.execute("DELETE FROM ledger.entry WHERE book = 1 AND number = $1", number)
    assert [(p.book, p.number) for p in await problems_since(owner)] == [(1, number)]


async def test_the_books_are_only_looked_at_from_the_checkpoint_on(books: BooksUnderTest, owner: Connection) -> None:
    """Damage to the old caches of members without new entries is what a full verification is for."""
    await checked(owner)
    await owner.execute("UPDATE ledger.balance SET available_minor = available_minor + 1")
    assert await problems_since(owner) == []
    assert {report.problem.number for report in await verify(owner) if report.problem} == {0}


async def test_points_that_are_left_in_clearing_are_found(books: BooksUnderTest, owner: Connection) -> None:
    """One side of a transfer alone: each book is sound by itself."""
    await owner.execute(
        "UPDATE ledger.account_total SET credit_minor = credit_minor + 5 "
        "WHERE (book, booked_on) = (SELECT book, booked_on FROM ledger.account_total WHERE account = 16 LIMIT 1) "
        "AND account = 16"
    )
    await record_checkpoints(owner, [r.with_problem(None) for r in await verify(owner)], NOON, full=True)  # type: ignore[arg-type]  # on purpose
    assert "clearing holds 5" in str(await problems_since(owner))


async def test_books_are_sound_whenever_they_are_read(books: BooksUnderTest, owner: Connection) -> None:
    """Points move between books, holds come and go and receipts are booked while verification reads."""
    await books.append([adjust(f"seed {n}", m, 10_000, books=books.count) for n, m in enumerate(books.members)])
    await checked(owner)
    moved, stop = 0, asyncio.Event()

    async def move() -> None:
        nonlocal moved
        conn = await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_writer"})
        while not stop.is_set():
            giver, taker = books.random.sample(books.members, 2)
            order = TransferOrder(uuid.uuid4(), giver, taker, "family", "Olena")
            async with conn.transaction():
                outcome = await transfer_points(conn, books.count, order, books.unit, 10, books.clock())
            moved += not isinstance(outcome, Declined)
        await conn.close()

    async def sell() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            await books.buy(5)
            shopper = books.random.choice(books.members)
            await books.append([hold(checkout(f"busy {number}"), shopper, 3, books=books.count, ttl_seconds=10)])

    async def look() -> None:
        try:
            while moved < 20:
                full, since = await verify(owner), await verify_since(owner)
                assert [report.problem for report in [*full, *since] if report.problem] == []
        finally:
            stop.set()

    await asyncio.gather(move(), sell(), look())
    assert moved >= 20


@pytest.mark.parametrize("table", ["entry", "posting", "point_value", "close", "close_mark", "close_total"])
async def test_even_the_owner_may_not_change_the_journal(ledger_dsn: str, table: str) -> None:
    conn = await asyncpg.connect(ledger_dsn, server_settings={"role": "tallypoint_owner"})
    column = await conn.fetchval("SELECT column_name FROM information_schema.columns WHERE table_name = $1", table)
    for statement in ("UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(asyncpg.RestrictViolationError, match=f"rows of ledger.{table} are added and never changed"):
            await conn.execute(statement.format(f"ledger.{table}", column, column))
    await conn.close()
