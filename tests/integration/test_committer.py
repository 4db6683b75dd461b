"""The committer on a real PostgreSQL: one answer a key, no overdraft, and each failure by its name."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from ledger.booking.committer import CommandFailed, Committer, DeadlinePassed, MemberChanged, Overloaded, Silent
from ledger.booking.opening import ensure_unit, open_books
from ledger.booking.owned import NEVER_READ
from ledger.entry.model import Booked, Declined, Grant, MemberChange, Outcome, Purchase, Unit
from ledger.reading.journal import read_heads
from ledger.verify import verify
from tests.support.commands import BONUS, member, purchase

BOOKS = 4
ANNA = member("Anna")
OWNED: set[int] = set()
"""The books of which every committer of a test believes to be the preferred writer."""

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture(autouse=True, params=["no book", "all books"], ids="owning {}".format)
def owned(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether committers keep what they wrote in memory, all of them: each answer must be the same."""
    OWNED.update(range(BOOKS) if request.param == "all books" else ())
    yield
    OWNED.clear()


@pytest.fixture
async def owner(ledger_dsn: str) -> AsyncIterator[Connection]:
    """A connection of the owner to an open, empty ledger."""
    conn = await asyncpg.connect(ledger_dsn)
    await open_books(conn, BOOKS)
    await ensure_unit(conn, BONUS.code, BONUS.precision)
    yield conn
    await conn.close()


@asynccontextmanager
async def a_committer(dsn: str, **options: Any) -> AsyncIterator[Committer]:
    """A committer as a worker has it, with the writer's rights only."""

    async def connect() -> Connection:
        return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})

    committer = Committer(connect, BOOKS, lambda: datetime.now(UTC), owned=OWNED, **options)
    try:
        yield committer
    finally:
        await committer.close()


def spent(outcomes: list[Outcome]) -> int:
    """The points that these answers say were spent."""
    from tallypoint.v1 import journal_pb2

    assert all(isinstance(outcome, Booked) for outcome in outcomes)
    return sum(
        journal_pb2.Event.FromString(outcome.event).settlement.spent_points_minor
        for outcome in outcomes
        if isinstance(outcome, Booked)
    )


async def assert_sound(conn: Connection, entries: int) -> None:
    """Everything verifies, there are this many entries, and all sides of all postings sum to zero."""
    problems = [report.problem for report in await verify(conn) if report.problem]
    assert not problems, problems
    assert sum(head.number for head in (await read_heads(conn)).values()) == entries
    assert not await conn.fetchval("SELECT sum(points_minor) FROM ledger.posting_side")


async def test_sixty_four_tills_spend_one_members_last_points(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as first, a_committer(ledger_dsn) as second:
        await first.submit(purchase(1, ANNA, books=BOOKS, earn=[1000]))
        tills = [
            (first, second)[till % 2].submit(purchase(10 + till, ANNA, books=BOOKS, spend=50)) for till in range(64)
        ]
        assert spent(list(await asyncio.gather(*tills))) == 1000
    await assert_sound(owner, 65)


async def test_many_writers_of_the_same_books_leave_no_gap(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as a, a_committer(ledger_dsn) as b, a_committer(ledger_dsn) as c:
        shoppers = [member(n) for n in range(30)]
        writers = (a, b, c)
        calls = [
            writers[n % 3].submit(purchase(n, shoppers[n % 30], books=BOOKS, earn=[n], spend=n // 3 or None))
            for n in range(1, 901)
        ]
        outcomes = await asyncio.gather(*calls)
    assert len({(o.book, o.number) for o in outcomes if isinstance(o, Booked)}) == 900
    await assert_sound(owner, 900)


async def test_a_receipt_for_two_cards_at_once_is_booked_for_one(ledger_dsn: str, owner: Connection) -> None:
    rivals = [member(n) for n in range(8)]
    async with a_committer(ledger_dsn) as a, a_committer(ledger_dsn) as b:
        for number in range(1, 21):
            tries = [
                (a, b)[n % 2].submit(purchase(number, shopper, books=BOOKS, message=f"{number}/{n}", earn=[10]))
                for n, shopper in enumerate(rivals)
            ]
            outcomes = await asyncio.gather(*tries)
            assert [isinstance(outcome, Booked) for outcome in outcomes].count(True) == 1
            assert [isinstance(outcome, Declined) for outcome in outcomes].count(True) == 7
    await assert_sound(owner, 20)


async def test_a_resend_gets_the_stored_answer_to_the_byte(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as committer:
        command = purchase(1, ANNA, books=BOOKS, earn=[70])
        answers = [await committer.submit(command) for _ in range(3)]
        resent = [purchase(1, ANNA, books=BOOKS, earn=[70], message=f"{n}") for n in range(5)]
        answers += await asyncio.gather(*(committer.submit(command) for command in resent))
    assert {(a.book, a.number, a.booked_at, a.event) for a in answers if isinstance(a, Booked)} == {
        (answers[0].book, 1, answers[0].booked_at, answers[0].event)  # type: ignore[union-attr]  # the first is booked
    }
    await assert_sound(owner, 1)


async def test_a_full_queue_refuses_before_anything_is_stored(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn, max_queue=5, max_batch=1) as committer:
        calls = [committer.submit(purchase(n, ANNA, books=BOOKS)) for n in range(1, 41)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        booked = sum(isinstance(outcome, Booked) for outcome in outcomes)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        assert booked + len(refused) == 40
        assert refused
        assert all(error.retry_after_seconds > 0 for error in refused)
    await assert_sound(owner, booked)


@asynccontextmanager
async def books_locked(owner: Connection) -> AsyncIterator[None]:
    """Every batch has to wait for us until the end of the block."""
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger.book_head FOR UPDATE")
        yield


async def a_batch_waits(owner: Connection) -> None:
    """Return once a batch waits for the books."""
    async with asyncio.timeout(20):
        while not await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await owner.execute("SELECT pg_stat_clear_snapshot()")  # a transaction sees the same activity for ever


async def stuck(committer: Committer, owner: Connection) -> asyncio.Task[Outcome]:
    """The first receipt of Anna's book, once its batch waits for the books."""
    first = asyncio.create_task(committer.submit(purchase(1, ANNA, books=BOOKS, earn=[1])))
    await a_batch_waits(owner)
    return first


async def test_who_waits_for_a_turn_shares_one_batch(ledger_dsn: str, owner: Connection) -> None:
    sizes: list[int] = []

    class Sizes(Silent):
        def batch(self, book: int, commands: int, waited_seconds: float, times: object) -> None:
            sizes.append(commands)

    made: list[int] = []

    async def call(number: int) -> Outcome:
        await committer.turn(purchase(1, ANNA, books=BOOKS).book)
        made.append(number)
        return await committer.submit(purchase(number, ANNA, books=BOOKS, earn=[1]))

    async with a_committer(ledger_dsn, observer=Sizes()) as committer:
        async with books_locked(owner):
            first = await stuck(committer, owner)
            calls = [asyncio.create_task(call(number)) for number in range(2, 22)]
            await asyncio.sleep(0)
            assert not made, "nothing is made before the batch that it is for"
            calls.append(asyncio.create_task(committer.submit(purchase(22, ANNA, books=BOOKS, earn=[1]))))
            await asyncio.sleep(0)
            assert committer.waiting == 21
            calls[5].cancel()
        outcomes = await asyncio.gather(first, *calls, return_exceptions=True)
        assert sizes == [1, 20], "together with what waits as a command"
        assert len(made) == 19
        assert await call(30), "an idle book lets everybody in at once"
    assert [isinstance(outcome, Booked) for outcome in outcomes].count(True) == 21
    await assert_sound(owner, 22)


async def test_a_turn_in_vain_costs_nothing(ledger_dsn: str, owner: Connection) -> None:
    book = purchase(1, ANNA, books=BOOKS).book
    async with a_committer(ledger_dsn, max_queue=3) as committer:
        async with books_locked(owner):
            first = await stuck(committer, owner)
            soon = asyncio.get_running_loop().time() + 0.01
            late = asyncio.create_task(committer.turn(book, soon))
            others = [asyncio.create_task(committer.turn(book)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await committer.turn(book)
            while asyncio.get_running_loop().time() <= soon:
                await asyncio.sleep(0)
        with pytest.raises(DeadlinePassed):
            await late
        await asyncio.gather(first, *others)
    await assert_sound(owner, 1)


async def test_who_would_wait_too_long_is_refused(
    ledger_dsn: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.booking.committer.MAX_WAIT_SECONDS", 0.0)
    book = purchase(1, ANNA, books=BOOKS).book
    async with a_committer(ledger_dsn) as committer:
        async with books_locked(owner):
            first = await stuck(committer, owner)
            waiting = asyncio.create_task(committer.turn(book))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await committer.turn(book)
        await asyncio.gather(first, waiting)
    await assert_sound(owner, 1)


async def test_a_database_that_is_away_is_no_overload(
    ledger_dsn: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover may take longer than a line may be: whoever comes meanwhile waits, as long as a register does."""
    monkeypatch.setattr("ledger.booking.committer.MAX_WAIT_SECONDS", 0.0)
    is_away, noticed = True, asyncio.Event()

    class Noticing(Silent):
        def retry(self, reason: str) -> None:
            noticed.set()

    async def connect() -> Connection:
        if is_away:
            raise ConnectionRefusedError
        return await asyncpg.connect(ledger_dsn, server_settings={"role": "tallypoint_writer"})

    committer = Committer(connect, BOOKS, lambda: datetime.now(UTC), owned=OWNED, observer=Noticing())
    command = purchase(1, ANNA, books=BOOKS, earn=[1])
    first = asyncio.create_task(committer.submit(command))
    await noticed.wait()
    lane = [asyncio.create_task(committer.turn(command.book)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiting.done() for waiting in lane)
    is_away = False
    await asyncio.gather(first, *lane)
    await committer.close()
    await assert_sound(owner, 1)


async def test_a_passed_deadline_stores_nothing(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as committer:
        with pytest.raises(DeadlinePassed):
            await committer.submit(purchase(1, ANNA, books=BOOKS), asyncio.get_running_loop().time() - 0.001)
    await assert_sound(owner, 0)


async def test_a_caller_who_goes_away_does_not_stop_the_batch(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as committer:
        async with books_locked(owner):
            submits = [committer.submit(purchase(n, ANNA, books=BOOKS, earn=[1])) for n in range(1, 4)]
            calls = [asyncio.create_task(submit) for submit in submits]
            await a_batch_waits(owner)
            calls[0].cancel()
        rest = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(rest[0], asyncio.CancelledError)
    assert all(isinstance(outcome, Booked) for outcome in rest[1:])
    await assert_sound(owner, 3)


async def test_only_the_guilty_command_of_a_batch_fails(ledger_dsn: str, owner: Connection) -> None:
    async with a_committer(ledger_dsn) as committer:
        good = [purchase(n, ANNA, books=BOOKS, earn=[1]) for n in range(1, 30)]
        unit, grants = Unit(99999, "no such", 2), (Grant(5, None, None),)
        bad = dataclasses.replace(purchase(99, ANNA, books=BOOKS), unit=unit, grants=grants)
        batch = [*good[:11], bad, *good[11:]]
        outcomes = await asyncio.gather(*(committer.submit(command) for command in batch), return_exceptions=True)
    assert isinstance(outcomes[11], CommandFailed)
    assert sum(isinstance(outcome, Booked) for outcome in outcomes) == len(good)
    await assert_sound(owner, len(good))


class Retries(Silent):
    """Counts why batches ran again."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def retry(self, reason: str) -> None:
        self.reasons.append(reason)


async def test_lost_connections_lose_and_double_nothing(ledger_dsn: str, owner: Connection) -> None:
    """Backends are killed while a round of receipts is on its way, however fast or slow the machine is."""
    rounds, a_round, dice, retries = 40, 50, random.Random(7), Retries()
    killed, outcomes, patience = 0, list[Outcome](), asyncio.get_running_loop().time() + 60
    async with a_committer(ledger_dsn, observer=retries, max_queue=5000, max_batch=8) as committer:
        for first in range(1, rounds * a_round, a_round):
            commands = (
                purchase(n, member(n % 7), books=BOOKS, earn=[n], spend=3) for n in range(first, first + a_round)
            )
            calls = [asyncio.create_task(committer.submit(command, patience)) for command in commands]
            for _ in range(dice.randint(1, 3)):  # the second and third strike what reconnects
                killed += await kill_one_of(owner, calls)
                await asyncio.sleep(dice.uniform(0, 0.004))  # at any moment of a batch
            outcomes += await asyncio.gather(*calls)
    assert killed >= rounds, f"only {killed} connections were killed: the test shows little"
    assert retries.reasons.count("connection") >= killed // 2, "few batches were struck: the test shows little"
    assert all(isinstance(outcome, Booked) for outcome in outcomes)
    await assert_sound(owner, rounds * a_round)


async def kill_one_of(owner: Connection, calls: list[asyncio.Task[Outcome]]) -> bool:
    """Kill the backend of a committer as soon as it has one; return whether that was before the last answer."""
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
    )
    while not all(call.done() for call in calls):
        if await owner.fetchval(kill):
            return True
    return False


@pytest.mark.parametrize("table", ["entry", "posting", "receipt_key", "verified"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET book = book", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_writer_may_not_change_the_journal(
    ledger_dsn: str, owner: Connection, table: str, statement: str
) -> None:
    conn = await asyncpg.connect(ledger_dsn, server_settings={"role": "tallypoint_writer"})
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(statement.format(f"ledger.{table}"))
    finally:
        await conn.close()


class Reading(Silent):
    """Counts the commands for which an owner had to read something."""

    def __init__(self) -> None:
        self.unknown: list[int] = []

    def known(self, commands: int, unknown: int) -> None:
        self.unknown.append(unknown)


async def test_an_owner_reads_a_member_once_and_who_spends_each_time(owner: Connection, ledger_dsn: str) -> None:
    reading = Reading()
    async with a_committer(ledger_dsn, observer=reading) as committer:
        for number in range(1, 4):
            await committer.submit(purchase(number, ANNA, books=BOOKS, earn=[10]))
        await committer.submit(purchase(4, ANNA, books=BOOKS, spend=5))
        await committer.submit(purchase(5, ANNA, books=BOOKS, earn=[10]))
        assert reading.unknown == ([1, 0, 0, 1, 0] if OWNED else [])
    await assert_sound(owner, 5)


async def test_an_owner_finds_what_it_booked_and_what_it_forgot(owner: Connection, ledger_dsn: str) -> None:
    """A resent receipt gets its answer from memory; after a restart the database says that its key is taken."""
    retries, sale = Retries(), purchase(1, ANNA, books=BOOKS, earn=[10])
    async with a_committer(ledger_dsn, observer=retries) as committer:
        booked = await committer.submit(sale)
        assert isinstance(booked, Booked)
        assert await committer.submit(sale) == booked._replace(repeated=True)
        assert retries.reasons == []
    async with a_committer(ledger_dsn, observer=retries) as committer:
        await committer.submit(purchase(2, ANNA, books=BOOKS, earn=[10]))
        assert await committer.submit(sale) == booked._replace(repeated=True)
        assert retries.reasons == (["key"] if OWNED else [])
    await assert_sound(owner, 2)


async def test_a_record_that_was_kept_does_not_outlive_a_change_of_the_member(
    owner: Connection, ledger_dsn: str
) -> None:
    async with a_committer(ledger_dsn) as committer:
        first = purchase(1, ANNA, books=BOOKS, earn=[10])
        await committer.submit(first)
        as_of = committer.known_number(first.book)
        if not OWNED:
            assert as_of == NEVER_READ, "who does not follow a book says that no record may be kept"
            return
        assert isinstance(await committer.submit(purchase(2, ANNA, books=BOOKS), as_of=as_of), Booked)
        async with another_writer(ledger_dsn) as other:
            await other.submit(member_change(first))
        with pytest.raises(MemberChanged):
            await committer.submit(purchase(3, ANNA, books=BOOKS), as_of=as_of)
        as_of = committer.known_number(first.book)
        await committer.submit(member_change(first))
        with pytest.raises(MemberChanged):
            await committer.submit(purchase(3, ANNA, books=BOOKS), as_of=as_of)
        assert isinstance(await committer.submit(purchase(3, ANNA, books=BOOKS)), Booked)
        as_of = committer.known_number(first.book)
        assert isinstance(await committer.submit(purchase(4, ANNA, books=BOOKS), as_of=as_of), Booked)
    async with a_committer(ledger_dsn) as restarted:
        assert restarted.known_number(first.book) == NEVER_READ
        with pytest.raises(MemberChanged):
            await restarted.submit(purchase(5, ANNA, books=BOOKS), as_of=as_of)


@asynccontextmanager
async def another_writer(dsn: str) -> AsyncIterator[Committer]:
    """Somebody who owns no book, such as the back office."""

    async def connect() -> Connection:
        return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})

    committer = Committer(connect, BOOKS, lambda: datetime.now(UTC))
    try:
        yield committer
    finally:
        await committer.close()


def member_change(like: Purchase) -> MemberChange:
    """A change of the member of a purchase."""
    assert like.member_id is not None
    return MemberChange(
        book=like.book, content_hash=bytes(32), event_at=like.event_at, member_id=like.member_id, event=b""
    )
