"""Old message ids are forgotten, a piece at a time, and nothing else is."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial

import asyncpg
import pytest

from ledger.booking import retention
from ledger.booking.retention import first_kept
from ledger.entry.keys import checkout_key
from ledger.entry.model import Booked
from ledger.rebuild import rebuild
from ledger.verify import verify
from server.base.storage import writer_connect
from server.process.sweeper import Sweeper
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.commands import adjust, cancel, checkout, hold, member, pass_time, purchase

DAY = timedelta(days=1)


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """A ledger with a hundred days of receipts, three a day, and some entries that have no message."""
    async with open_test_books(ledger_dsn) as opened:
        await opened.register(4)
        for _ in range(100):
            opened.clock.now += DAY
            await opened.buy(3)
        await opened.register(4)
        yield opened


async def keys_by_day(dsn: str) -> dict[str, int]:
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch("SELECT booked_on::text AS day, count(*) AS keys FROM ledger.message_key GROUP BY 1")
    await conn.close()
    return {row["day"]: row["keys"] for row in rows}


def sweeper_of(books: BooksUnderTest, stop: asyncio.Event | None = None) -> Sweeper:
    return Sweeper(writer_connect(books.dsn, "tallypoint sweeper"), stop or asyncio.Event(), books.clock)


async def assert_sound(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    assert [report.problem for report in await verify(conn)] == [None] * 4
    await conn.close()


def midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


async def test_old_keys_go_and_young_ones_stay(books: BooksUnderTest) -> None:
    """The limit is a moment of booking; a second run finds nothing to do."""
    before = midnight(books.clock.now) - 30 * DAY
    kept = {day: keys for day, keys in (await keys_by_day(books.dsn)).items() if day >= str(before.date())}
    assert sum(kept.values()) == 93
    assert await sweeper_of(books).prune(before) == 300 - 93
    assert await keys_by_day(books.dsn) == kept
    assert await sweeper_of(books).prune(before) == 0
    await assert_sound(books.dsn)


async def test_small_pieces_and_an_end_in_the_middle(books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of any size come to the same end, and a run that was stopped is gone on with."""
    monkeypatch.setattr(retention, "PIECE_ENTRIES", 7)
    before = midnight(books.clock.now) - 30 * DAY
    conn = await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_writer"})
    forgotten, number = await retention.forget_message_ids(conn, 0, 1, before, 7)
    assert (forgotten <= 7, number) == (True, 8)
    assert await first_kept(conn, 0, 10**6) >= 8
    await conn.close()
    assert await sweeper_of(books).prune(before) == 300 - 93 - forgotten
    await assert_sound(books.dsn)


async def test_the_first_key_that_is_left_is_found(books: BooksUnderTest) -> None:
    """However many are gone: what the search says is what looking at every entry says."""
    conn = await asyncpg.connect(books.dsn)
    head = await conn.fetchval("SELECT number FROM ledger.book_head WHERE book = 1")
    for gone in (0, 1, 2, 17, 40, head):
        await conn.execute(
            "DELETE FROM ledger.message_key k USING ledger.entry e "
            "WHERE e.book = 1 AND e.number <= $1 AND k.message_id = e.message_id",
            gone,
        )
        oldest = await conn.fetchval("SELECT min(number) FROM ledger.message_key WHERE book = 1") or head + 1
        found = await first_kept(conn, 1, head)
        between = await conn.fetchval(
            "SELECT count(message_id) FROM ledger.entry WHERE book = 1 AND number >= $1 AND number < $2",
            *(found, oldest),
        )
        assert found <= oldest, gone
        assert between == 0, gone
    await conn.close()


async def test_a_rebuild_harms_nothing(books: BooksUnderTest) -> None:
    """What is forgotten stays so, and where nothing was left, all keys come back and go again."""
    before = midnight(books.clock.now) - 30 * DAY
    assert await sweeper_of(books).prune(before) == 300 - 93
    owner = await asyncpg.connect(books.dsn)
    await rebuild(owner)
    assert sum((await keys_by_day(books.dsn)).values()) == 93
    assert await sweeper_of(books).prune(books.clock.now) == 93
    await rebuild(owner)
    await owner.close()
    assert sum((await keys_by_day(books.dsn)).values()) == 300
    assert await sweeper_of(books).prune(before) == 300 - 93
    await assert_sound(books.dsn)


async def test_an_old_receipt_counts_once_even_without_its_message(books: BooksUnderTest) -> None:
    """The receipt's own key is never forgotten."""
    sale = purchase(900, member(1), books=4, earn=[5])
    (booked,) = await books.append([sale])
    books.clock.now += 100 * DAY
    assert await sweeper_of(books).prune(books.clock.now - 90 * DAY) == 301
    again = await books.committer.submit(sale)
    assert isinstance(again, Booked)
    assert (again.number, again.repeated) == (booked.number, True)
    await books.committer.submit(pass_time(member(1), books=4))
    await assert_sound(books.dsn)


async def test_messages_of_administrators_go_too(books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.process.sweeper.ADMIN_PIECE", 3)
    conn = await asyncpg.connect(books.dsn)
    await conn.executemany(
        "INSERT INTO server.admin_message (message_id, content_hash, book, member_id, received_at) "
        "VALUES ($1, $2, 0, $1, $3)",
        [(uuid.uuid4(), bytes(32), books.clock.now - days * DAY) for days in range(20)],
    )
    await sweeper_of(books).prune(books.clock.now - 9.5 * DAY)
    assert await conn.fetchval("SELECT count(*) FROM server.admin_message") == 10
    await conn.close()


async def test_holds_that_ended_long_ago_go(books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But none that is newer than one that is open still, so that a hole in the row is never taken for forgetting."""
    monkeypatch.setattr("server.process.sweeper.forget_holds", partial(retention.forget_holds, piece_rows=2))
    anna = member(1)
    await books.append([adjust("points", anna, 100, books=4)])
    for number in range(7):
        lane = checkout(number)
        await books.append([hold(lane, anna, 5, books=4, ttl_seconds=3600)])
        if number != 4:
            await books.append([cancel(lane, anna, books=4)])
        books.clock.now += timedelta(minutes=1)
    last = books.clock.now
    await sweeper_of(books).prune(last - timedelta(minutes=5, seconds=30))
    assert await held_lanes(books.dsn) == [2, 3, 4, 5, 6]
    await sweeper_of(books).prune(last)
    assert await held_lanes(books.dsn) == [4, 5, 6]
    await assert_sound(books.dsn)
    books.clock.now += timedelta(hours=2)
    await books.append([pass_time(anna, books=4)])
    await sweeper_of(books).prune(last)
    assert await held_lanes(books.dsn) == []
    await assert_sound(books.dsn)


async def held_lanes(dsn: str) -> list[int]:
    conn = await asyncpg.connect(dsn)
    keys = [row["checkout_key"] for row in await conn.fetch("SELECT checkout_key FROM ledger.hold ORDER BY number")]
    await conn.close()
    return [number for key in keys for number in range(7) if checkout_key(checkout(number)) == key]
