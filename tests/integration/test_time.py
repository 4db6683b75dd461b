"""Time: reads are right however long no sweeper ran, and the sweeper books the same, once, whatever befalls it."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import urllib.request
import uuid
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2, ledger_pb2

from ledger.entry.books import book_of_member
from ledger.entry.model import Grant
from ledger.reading.balances import AccountAt, read_accounts, read_balances
from ledger.reading.journal import read_heads
from ledger.rebuild import rebuild
from ledger.verify import verify
from server.backoffice.ledger_servicer import LedgerServicer
from server.base.clock import utc_now
from server.base.storage import writer_connect, writer_pool
from server.edge.caller import Caller, Role
from server.measuring import metrics
from server.process import sweeper
from server.process.sweeper import Sweeper, Swept
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.commands import Line, checkout, goods_return, hold, purchase
from tests.support.crm import caught_up, comparison, eventually, streaming
from tests.support.server_process import RunningServer

if TYPE_CHECKING:
    from server.base.database import Connection

DAY = timedelta(days=1)
YEAR = 365 * DAY
HOLD_SECONDS = (60, 86400, 100 * 86400)
FINANCE = Caller(Role.FINANCE, "Olena", "", "", None)


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """An open ledger without entries."""
    async with open_test_books(ledger_dsn) as opened:
        yield opened


def sweeper_of(books: BooksUnderTest, stop: asyncio.Event | None = None) -> Sweeper:
    """A sweeper with the clock of the test."""
    return Sweeper(writer_connect(books.dsn, "tallypoint sweeper"), stop or asyncio.Event(), books.clock)


async def reader(books: BooksUnderTest) -> Connection:
    return await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_reader"})


async def accounts_of_all(books: BooksUnderTest, members: Sequence[uuid.UUID]) -> list[list[AccountAt]]:
    """Read members as of now, by both ways, which must agree."""
    conn, now, found = await reader(books), books.clock.now, []
    places = [(book_of_member(member, books.count), member) for member in members]
    balances = await read_balances(conn, places, now)
    for book, member in places:
        accounts = await read_accounts(conn, book, member, now)
        assert balances.get(member, []) == [account.balance for account in accounts]
        found.append(accounts)
    await conn.close()
    return found


async def accounts_of(books: BooksUnderTest, member: uuid.UUID) -> list[AccountAt]:
    """Read one of them."""
    (accounts,) = await accounts_of_all(books, [member])
    return accounts


async def figures(books: BooksUnderTest, member: uuid.UUID) -> tuple[int, int, int, int, int]:
    """Available, pending, held, owed, and what lapses next."""
    (account,) = await accounts_of(books, member)
    return account.balance[1:6]


async def assert_sound(books: BooksUnderTest) -> None:
    """The books verify, and nothing is due any more."""
    conn = await reader(books)
    assert [report.problem for report in await verify(conn)] == [None] * books.count
    await conn.close()
    assert await sweeper_of(books).count_due() == 0


async def entries_of(books: BooksUnderTest) -> int:
    conn = await reader(books)
    heads = await read_heads(conn)
    await conn.close()
    return sum(head.number for head in heads.values())


async def test_a_year_of_nothing(books: BooksUnderTest) -> None:
    """Grants that became active, lapsed or did both, holds that expired: reads see it all, and the sweeper agrees."""
    start = books.clock.now
    (member,) = await books.register(1)
    grants = [
        Grant(100, None, start + 30 * DAY),
        Grant(200, start + 10 * DAY, start + 400 * DAY),
        Grant(400, start + 20 * DAY, start + 40 * DAY),
        Grant(800, start + 500 * DAY, None),
        Grant(1600, None, None),
    ]
    await books.append([purchase(1, member, books=books.count, earn=grants)])
    lapses = hold(checkout("lapses"), member, 30, books=books.count, ttl_seconds=600)
    outlives = hold(checkout("outlives"), member, 50, books=books.count, ttl_seconds=60 * 86400)
    await books.append([lapses, outlives])
    assert await figures(books, member) == (1620, 1400, 80, 0, 20)

    expected = {  # days after the start: available, pending, held, owed, lapsing next
        0.5: (1650, 1400, 50, 0, 50),  # the first hold expired
        10.5: (1850, 1200, 50, 0, 50),  # 200 became active
        20.5: (2250, 800, 50, 0, 50),  # 400 became active
        30.5: (2200, 800, 50, 0, 400),  # 50 lapsed; what is held of that lot has not
        40.5: (1800, 800, 50, 0, 200),  # 400 lapsed
        60.5: (1800, 800, 0, 0, 200),  # the second hold expired, and its points lapsed at once
        365.0: (1800, 800, 0, 0, 200),
        400.5: (1600, 800, 0, 0, 0),
        500.5: (2400, 0, 0, 0, 0),
    }
    for days, wanted in expected.items():
        books.clock.now = start + days * DAY
        assert await figures(books, member) == wanted, days
    books.clock.now = start + YEAR
    before = await accounts_of(books, member)
    assert await sweeper_of(books).sweep() == Swept(booked=1)
    assert await accounts_of(books, member) == before
    await assert_sound(books)


async def test_held_points_of_each_lot_and_open_holds(books: BooksUnderTest) -> None:
    """What stands in a lot, what is held of it, and by whom; holds whose time is over are gone."""
    start = books.clock.now
    (member,) = await books.register(1)
    grants = [Grant(100, None, start + 30 * DAY), Grant(200, None, None)]
    await books.append([purchase(1, member, books=books.count, earn=grants)])
    (first,) = await books.append([hold(checkout("a"), member, 120, books=books.count, ttl_seconds=600)])
    (second,) = await books.append([hold(checkout("b", "2"), member, 30, books=books.count, ttl_seconds=7200)])
    (account,) = await accounts_of(books, member)
    assert [(lot.remaining_minor, lot.held_minor) for lot in account.lots] == [(0, 100), (150, 50)]
    assert [(each.number, each.terminal_id, each.points_minor) for each in account.holds] == [
        (first.number, "1", 120),
        (second.number, "2", 30),
    ]
    books.clock.now += timedelta(hours=1)
    (account,) = await accounts_of(books, member)
    assert [(lot.remaining_minor, lot.held_minor) for lot in account.lots] == [(100, 0), (170, 30)]
    assert [each.number for each in account.holds] == [second.number]


async def test_the_back_office_shows_lots_and_holds_as_they_are_now(books: BooksUnderTest) -> None:
    """GetAccount judges at its own moment, too."""
    start = books.clock.now
    (member,) = await books.register(1)
    grants = [Grant(100, None, start + 30 * DAY), Grant(200, start + DAY, None)]
    await books.append([purchase(1, member, books=books.count, earn=grants)])
    await books.append([hold(checkout("a"), member, 60, books=books.count, ttl_seconds=7 * 86400)])
    books.clock.now = start + 2 * DAY
    async with writer_pool(books.dsn, "tallypoint back office") as pool:
        servicer = LedgerServicer(pool, books.count, lambda: books.clock.now)
        request = ledger_pb2.GetAccountRequest(member_id=str(member), newest_entries=1)
        shown = await servicer.get_account(request, FINANCE)
        books.clock.now = start + 31 * DAY
        later = await servicer.get_account(request, FINANCE)
    lots = [
        (lot.unit, lot.granted_points_minor, lot.remaining_points_minor, lot.held_points_minor) for lot in shown.lots
    ]
    assert lots == [("bonus", 100, 40, 60), ("bonus", 200, 200, 0)]
    (kept,) = shown.holds
    assert (kept.unit, kept.store_id, kept.terminal_id, kept.points_minor) == ("bonus", "1", "1", 60)
    assert kept.expires_at.seconds - kept.held_at.seconds == 7 * 86400
    assert [balance.available_points_minor for balance in (*shown.balances, *later.balances)] == [240, 200]
    assert [lot.granted_points_minor for lot in later.lots] == [200]
    assert not later.holds


async def test_points_that_become_active_pay_what_is_owed(books: BooksUnderTest) -> None:
    """A read sees the debt paid before it is booked."""
    start = books.clock.now
    (member,) = await books.register(1)
    earning = purchase(1, member, books=books.count, earn=[100], lines=[Line(earned_minor=100)])
    (earned,) = await books.append([earning])
    await books.append([purchase(2, member, books=books.count, spend=100, earn=[Grant(70, start + 10 * DAY, None)])])
    await books.append([goods_return(3, earned, terms={})])
    assert await figures(books, member) == (0, 70, 0, 100, 0)
    books.clock.now = start + 11 * DAY
    assert await figures(books, member) == (0, 0, 0, 30, 0)
    await sweeper_of(books).sweep()
    assert await figures(books, member) == (0, 0, 0, 30, 0)
    await assert_sound(books)


async def test_the_next_entry_begins_with_what_was_read(books: BooksUnderTest) -> None:
    """A spender gets what the read promised, without a sweeper in between."""
    start = books.clock.now
    (member,) = await books.register(1)
    grants = [Grant(100, None, start + DAY), Grant(70, start + DAY, None)]
    await books.append([purchase(1, member, books=books.count, earn=grants)])
    books.clock.now = start + YEAR
    available = (await figures(books, member))[0]
    (booked,) = await books.append([purchase(2, member, books=books.count, spend=available + 1)])
    settlement = journal_pb2.Event.FromString(booked.event).settlement
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (70, 1)
    assert await sweeper_of(books).sweep() == Swept()


@pytest.mark.parametrize("seed", range(2))
async def test_reads_are_what_the_sweeper_books(books: BooksUnderTest, seed: int) -> None:
    """Random grants, holds and debts, looked at over two years: a sweep never changes what was read before it."""
    dice, start = random.Random(seed), books.clock.now
    members = [member_number(number) for number in range(16)]

    def moment() -> datetime | None:
        return None if dice.random() < 0.2 else start + timedelta(hours=dice.randrange(1, 600 * 24))

    bought = await books.append(
        [
            purchase(
                number,
                member,
                books=books.count,
                earn=[*(Grant(dice.randrange(1, 500), *_in_order(moment(), moment())) for _ in range(4)), 100],
                lines=[Line(earned_minor=100)],
            )
            for number, member in enumerate(members, start=1)
        ]
    )
    holds = [
        hold(
            checkout(f"{number} {lane}", lane),
            member,
            dice.randrange(40),
            books=books.count,
            ttl_seconds=dice.choice(HOLD_SECONDS),
        )
        for number, member in enumerate(members)
        for lane in ("1", "2")
    ]
    await books.append(dice.sample(holds, len(holds)))
    for number, member in enumerate(members[::2]):  # spend all, then bring back what earned some of it
        spend = purchase(100 + number, member, books=books.count, spend=10**6)
        await books.append([spend, goods_return(200 + number, bought[2 * number], terms={})])
    booked = 0
    for hours in sorted(dice.sample(range(1, 730 * 24), 10)):
        books.clock.now = start + timedelta(hours=hours)
        before = await accounts_of_all(books, members)
        booked += (await sweeper_of(books).sweep()).booked
        assert await accounts_of_all(books, members) == before
    assert booked > len(members)
    await assert_sound(books)


def _in_order(active_at: datetime | None, expires_at: datetime | None) -> tuple[datetime | None, datetime | None]:
    """A lot becomes active before it lapses."""
    if active_at is not None and expires_at is not None and expires_at < active_at:
        return expires_at, active_at
    return active_at, expires_at


def member_number(number: int) -> uuid.UUID:
    return uuid.UUID(int=number, version=4)


async def many_due(books: BooksUnderTest, count: int) -> None:
    """Members with points that lapse and become active tomorrow, next month and in a year; then a month passes."""
    start = books.clock.now
    ends = itertools.cycle([start + DAY, start + 30 * DAY, start + YEAR])
    await books.append(
        [
            purchase(
                number + 1,
                member_number(number),
                books=books.count,
                earn=[Grant(100, None, next(ends)), Grant(50, start + DAY, None)],
            )
            for number in range(count)
        ]
    )
    books.clock.now = start + 31 * DAY


async def test_sweeping_twice_books_once(books: BooksUnderTest, crm_dsn: str) -> None:
    """The second run finds nothing due; the entries reach the CRM database like all others."""
    await many_due(books, 300)
    seen: list[int] = []
    due = await sweeper_of(books).count_due()
    assert await sweeper_of(books).sweep(seen.append) == Swept(booked=300)
    assert (due, sum(seen), max(seen) <= sweeper.CONCURRENT) == (300, 300, True)
    entries = await entries_of(books)
    assert entries == 600
    assert await sweeper_of(books).sweep() == Swept()
    assert await entries_of(books) == entries
    await assert_sound(books)
    async with streaming(books.dsn, crm_dsn):
        await caught_up(books.dsn, crm_dsn)
    assert (await comparison(books.dsn, crm_dsn)).equal
    conn = await asyncpg.connect(crm_dsn)
    lapsed = "SELECT count(*) FROM crm.points_movement WHERE kind = 'time' AND credit = 'expired'"
    assert await conn.fetchval(lapsed) == 200
    await conn.close()


async def test_two_sweepers_at_once(books: BooksUnderTest) -> None:
    """Each member gets one entry, whoever was first."""
    await many_due(books, 400)
    outcomes = await asyncio.gather(*(sweeper_of(books).sweep() for _ in range(3)))
    assert sum(swept.booked for swept in outcomes) == 400
    assert await entries_of(books) == 800
    await assert_sound(books)


async def test_members_with_several_pages(books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages come to the same end."""
    monkeypatch.setattr(sweeper, "PAGE_MEMBERS", 7)
    monkeypatch.setattr(sweeper, "CONCURRENT", 3)
    await many_due(books, 100)
    assert (await sweeper_of(books).sweep()).booked == 100
    await assert_sound(books)


async def test_a_member_that_fails_stops_nobody_else(
    books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Caches that contradict themselves keep one member from being swept; the run comes to its end."""
    monkeypatch.setattr(sweeper, "PAGE_MEMBERS", 5)
    await many_due(books, 40)
    conn = await asyncpg.connect(books.dsn)
    # Member 0's 100 points lapse, and the cached balance has fewer.
    await conn.execute("UPDATE ledger.balance SET available_minor = 1 WHERE member_id = $1", member_number(0))
    assert await sweeper_of(books).sweep() == Swept(booked=39, failed=1)
    assert "sweep_failed" in capsys.readouterr().out
    await rebuild(conn)
    await conn.close()
    assert await sweeper_of(books).sweep() == Swept(booked=1)
    await assert_sound(books)


async def test_stopped_in_the_middle_and_run_again(books: BooksUnderTest) -> None:
    """A sweeper that is told to stop finishes its batch, and the next one does the rest."""
    await many_due(books, 600)
    stop = asyncio.Event()
    swept = await sweeper_of(books, stop).sweep(lambda _members: stop.set())
    assert 0 < swept.booked < 600
    assert (await sweeper_of(books).sweep()).booked == 600 - swept.booked
    assert await entries_of(books) == 1200
    await assert_sound(books)


async def test_killed_in_the_middle_and_run_again(books: BooksUnderTest) -> None:
    """`tallypoint ledger sweep` dies while it waits for a book; the next one finishes, and nothing is twice."""
    books.clock.now = utc_now() - 40 * DAY
    await many_due(books, 300)
    blocker = await asyncpg.connect(books.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT FROM ledger.book_head WHERE book = 2 FOR UPDATE")
    command = [sys.executable, "-m", "server.commands.main", "ledger", "sweep", "--dsn", books.dsn]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)

    watcher = await asyncpg.connect(books.dsn)

    async def waits_for_book_2() -> bool:
        found = await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND application_name = 'tallypoint ledger sweep'"
        )
        return bool(found)

    await eventually(waits_for_book_2, "the sweeper waits for book 2")
    process.kill()
    await process.communicate()
    swept = await entries_of(books) - 300
    assert 0 < swept < 300
    await transaction.rollback()  # whatever the dead sweeper has sent is booked now, or is not
    await blocker.close()
    await watcher.close()

    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert b"entries booked" in out
    assert b"Sweeping: " in err
    assert await entries_of(books) == 600
    books.clock.now = utc_now()
    await assert_sound(books)


async def test_goes_on_after_the_database_was_lost(books: BooksUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections are cut as statements are sent; what is due is booked once, and the metrics say how it went."""
    monkeypatch.setattr(sweeper, "RETRY_SECONDS", (0.01,))
    await many_due(books, 400)
    connect, cuts, sent = writer_connect(books.dsn, "tallypoint sweeper"), [1, 3, 6, 10, 13, 15, 17, 20, 24], 0

    async def cut_now_and_then() -> Connection:
        conn = await connect()

        def count(_: object) -> None:
            nonlocal sent
            sent += 1
            if cuts and sent >= cuts[0]:
                cuts.pop(0)
                conn.terminate()

        conn.add_query_logger(count)
        return conn

    stop = asyncio.Event()
    running = asyncio.create_task(Sweeper(cut_now_and_then, stop, books.clock).run(1, keep_messages=YEAR))

    async def all_booked() -> bool:
        return not cuts and await entries_of(books) == 800

    await eventually(all_booked, "everything is swept")
    stop.set()
    await running
    assert await sweeper_of(books).sweep() == Swept()
    await assert_sound(books)
    assert metrics.SWEEP_LAST_RUN._value.get() == pytest.approx(books.clock.now.timestamp(), abs=60)
    assert metrics.SWEEP_DUE._value.get() == 0


async def test_the_service_sweeps_by_itself(tallypoint: RunningServer) -> None:
    """`tallypoint serve` keeps a sweeper, and the metrics say when it came to its end."""
    assert tallypoint.wait_for_event("child_ready", child="sweeper")

    async def has_swept() -> bool:
        with urllib.request.urlopen(f"http://{tallypoint.metrics_address}/metrics", timeout=5) as answer:  # noqa: ASYNC210 - nothing else to do meanwhile
            return "\ntallypoint_sweep_last_run_seconds " in answer.read().decode()

    await eventually(has_swept, "the sweeper has swept")
