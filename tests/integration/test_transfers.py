"""Points that move from member to member, within a book and across two: all or nothing, and never one too many."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.booking.transfer import TransferOrder, Transferred, transfer_everything, transfer_points
from ledger.entry.books import book_of_member
from ledger.entry.model import CLEARING, Booked, Command, Declined, Grant
from ledger.reading.balances import BalanceAt, read_balances
from ledger.verify import verify
from tests.support.commands import BONUS, Line, checkout, goods_return, hold, member, purchase

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

BOOKS = 4
START = datetime(2026, 3, 14, 12, tzinfo=UTC)
ANNA = member("Anna")


def someone(*, in_book_of: UUID | None = None, not_in_book_of: UUID | None = None) -> UUID:
    """Return a member whose book is the same as, or another than, somebody's."""
    names = (member(f"someone {number}") for number in range(1000))
    for one in names:
        book = book_of_member(one, BOOKS)
        if in_book_of is not None and book == book_of_member(in_book_of, BOOKS):
            return one
        if not_in_book_of is not None and book != book_of_member(not_in_book_of, BOOKS):
            return one
    raise AssertionError("nobody lives there")


NEIGHBOUR = someone(in_book_of=ANNA)
STRANGER = someone(not_in_book_of=ANNA)
BOTH_WAYS = pytest.mark.parametrize(
    "bo", [pytest.param(NEIGHBOUR, id="within a book"), pytest.param(STRANGER, id="across two")]
)


class Bank:
    """An open ledger: it books commands, moves points in transactions of its own, and looks at the result."""

    def __init__(self, dsn: str, owner: Connection) -> None:
        self.dsn = dsn
        self.owner = owner
        self.now = START

    async def book(self, *commands: Command) -> list[Booked]:
        """Book commands as a worker does."""

        async def connect() -> Connection:
            return await asyncpg.connect(self.dsn, server_settings={"role": "tallypoint_writer"})

        committer = Committer(connect, BOOKS, lambda: self.now)
        try:
            booked = []
            for command in commands:
                outcome = await committer.submit(command)
                assert isinstance(outcome, Booked), outcome
                booked.append(outcome)
            return booked
        finally:
            await committer.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction with the writer's rights."""
        conn = await asyncpg.connect(self.dsn, server_settings={"role": "tallypoint_writer"})
        try:
            async with conn.transaction():
                yield conn
        finally:
            await conn.close()

    async def give(
        self, giver: UUID, taker: UUID, points_minor: int, name: UUID | None = None
    ) -> Transferred | Declined:
        """Move points in a transaction of their own."""
        order = TransferOrder(name or uuid4(), giver, taker, "family", "Olena")
        async with self.transaction() as conn:
            return await transfer_points(conn, BOOKS, order, BONUS, points_minor, self.now)

    async def give_all(self, giver: UUID, taker: UUID, name: UUID | None = None) -> list[Transferred]:
        """Move everything in a transaction of its own."""
        order = TransferOrder(name or uuid4(), giver, taker, "merge", "Olena")
        async with self.transaction() as conn:
            return await transfer_everything(conn, BOOKS, order, self.now)

    async def balance(self, who: UUID) -> BalanceAt:
        """Return what somebody has now."""
        found = await read_balances(self.owner, [(book_of_member(who, BOOKS), who)], self.now)
        return found[who][0]

    async def has(self, who: UUID) -> tuple[int, int, int, int]:
        """Return available, pending, held and debt."""
        balance = await self.balance(who)
        return balance.available_minor, balance.pending_minor, balance.held_minor, balance.debt_minor

    async def entries(self) -> int:
        """Return how many entries there are."""
        return int(await self.owner.fetchval("SELECT count(*) FROM ledger.entry"))

    async def assert_sound(self) -> None:
        """Everything verifies, and clearing sums to zero for every unit."""
        problems = [str(report.problem) for report in await verify(self.owner) if report.problem]
        assert not problems
        clearing = "SELECT coalesce(sum(points_minor), 0) FROM ledger.posting_side WHERE account = $1"
        assert await self.owner.fetchval(clearing, CLEARING) == 0


@pytest.fixture
async def bank(ledger_dsn: str) -> AsyncIterator[Bank]:
    """An open, empty ledger with one point unit."""
    owner = await asyncpg.connect(ledger_dsn)
    await open_books(owner, BOOKS)
    assert await ensure_unit(owner, BONUS.code, BONUS.precision) == BONUS
    yield Bank(ledger_dsn, owner)
    await owner.close()


def moved(outcome: Transferred | Declined) -> Transferred:
    """Return what was moved, which was not refused."""
    assert isinstance(outcome, Transferred), outcome
    return outcome


@BOTH_WAYS
async def test_points_keep_their_terms_and_their_age(bank: Bank, bo: UUID) -> None:
    soon, late = START + timedelta(days=30), START + timedelta(days=60)
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[Grant(300, None, late), Grant(200, None, soon)]))
    first_granted = await bank.owner.fetchval("SELECT booked_at FROM ledger.entry")
    bank.now += timedelta(days=1)
    outcome = moved(await bank.give(ANNA, bo, 250))
    assert (outcome.available_minor, outcome.pending_minor, outcome.debt_minor) == (250, 0, 0)
    assert (await bank.has(ANNA), await bank.has(bo)) == ((250, 0, 0, 0), (250, 0, 0, 0))
    lots = await bank.owner.fetch(
        "SELECT l.remaining_minor, l.expires_at, p.issued_at FROM ledger.lot l JOIN ledger.posting p "
        "ON p.book = l.book AND p.number = l.number AND p.ordinal = l.ordinal WHERE l.member_id = $1 "
        "ORDER BY l.expires_at",
        bo,
    )
    assert [tuple(lot) for lot in lots] == [(200, soon, first_granted), (50, late, first_granted)]
    await bank.assert_sound()


async def test_age_survives_a_second_move(bank: Bank) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[100]))
    first_granted = await bank.owner.fetchval("SELECT booked_at FROM ledger.entry")
    for giver, taker in ((ANNA, STRANGER), (STRANGER, NEIGHBOUR), (NEIGHBOUR, ANNA)):
        bank.now += timedelta(days=10)
        moved(await bank.give(giver, taker, 100))
    issued = await bank.owner.fetch("SELECT issued_at FROM ledger.posting WHERE issued_at IS NOT NULL")
    assert [row["issued_at"] for row in issued] == [first_granted] * 3
    assert await bank.has(ANNA) == (100, 0, 0, 0)
    await bank.assert_sound()


@BOTH_WAYS
async def test_same_transfer_again_moves_nothing(bank: Bank, bo: UUID) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[100]))
    name = uuid4()
    first, again = [moved(await bank.give(ANNA, bo, 40, name)) for _ in range(2)]
    assert first.arrived is not None
    assert again.arrived is not None
    assert (again.left.number, again.arrived.number) == (first.left.number, first.arrived.number)
    assert again[:4] == first[:4]
    assert await bank.has(bo) == (40, 0, 0, 0)
    other = await bank.give(ANNA, bo, 41, name)
    assert isinstance(other, Declined)
    assert other.reason == common_pb2.REFUSAL_REASON_MESSAGE_ID_REUSED
    await bank.assert_sound()


async def test_more_than_there_is_moves_nothing(bank: Bank) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[100]), hold(checkout(1), ANNA, 30, books=BOOKS))
    before = await bank.entries()
    for points in (71, 100, 10**9):
        outcome = await bank.give(ANNA, STRANGER, points)
        assert isinstance(outcome, Declined)
        assert outcome.reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT
    assert await bank.entries() == before


@BOTH_WAYS
async def test_everything_is_moved_pending_points_holds_and_debt_too(bank: Bank, bo: UUID) -> None:
    tomorrow = START + timedelta(days=1)
    bought, *_ = await bank.book(
        purchase(1, ANNA, books=BOOKS, earn=[500], lines=[Line(earned_minor=500)]),
        purchase(2, ANNA, books=BOOKS, spend=500),
    )
    await bank.book(goods_return(3, bought, terms={}), purchase(4, bo, books=BOOKS, earn=[120]))
    assert (await bank.has(ANNA))[3] == 500
    await bank.book(purchase(5, ANNA, books=BOOKS, earn=[Grant(70, tomorrow, None)]))
    (outcome,) = await bank.give_all(ANNA, bo)
    assert (outcome.available_minor, outcome.pending_minor, outcome.debt_minor) == (0, 70, 500)
    assert await bank.has(ANNA) == (0, 0, 0, 0)
    assert await bank.has(bo) == (0, 70, 0, 380), "what they had pays the debt that came"
    await bank.assert_sound()
    assert await bank.give_all(ANNA, bo) == [], "nothing is left to move"


async def test_a_hold_ends_with_the_move(bank: Bank) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[100]), hold(checkout(1), ANNA, 30, books=BOOKS))
    (outcome,) = await bank.give_all(ANNA, STRANGER)
    assert outcome.available_minor == 100
    (end,) = journal_pb2.Event.FromString(outcome.left.event).hold_ends
    assert (end.how, end.released_points_minor) == (journal_pb2.HOLD_END_KIND_MERGED, 30)
    assert await bank.has(STRANGER) == (100, 0, 0, 0)
    await bank.assert_sound()


async def test_points_that_lapsed_meanwhile_do_not_move(bank: Bank) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[Grant(100, None, START + timedelta(days=1))]))
    bank.now += timedelta(days=2)
    (outcome,) = await bank.give_all(ANNA, STRANGER)
    assert (outcome.available_minor, outcome.arrived) == (0, None)
    assert await bank.has(ANNA) == (0, 0, 0, 0)
    await bank.assert_sound()
    assert await bank.give_all(ANNA, STRANGER) == []


FAIL_ARRIVALS = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON ledger.entry FOR EACH ROW WHEN (NEW.member_id = '{taker}') EXECUTE FUNCTION fail();
"""


@BOTH_WAYS
async def test_if_points_cannot_arrive_they_have_not_left(bank: Bank, bo: UUID) -> None:
    await bank.book(purchase(1, ANNA, books=BOOKS, earn=[100]))
    name, before = uuid4(), await bank.entries()
    await bank.owner.execute(FAIL_ARRIVALS.format(taker=bo))
    with pytest.raises(asyncpg.RaiseError, match="the disk is full"):
        await bank.give(ANNA, bo, 40, name)
    assert (await bank.entries(), await bank.has(ANNA)) == (before, (100, 0, 0, 0))
    await bank.assert_sound()
    await bank.owner.execute("DROP TRIGGER fail ON ledger.entry")
    assert not moved(await bank.give(ANNA, bo, 40, name)).left.repeated
    assert await bank.has(bo) == (40, 0, 0, 0)
    await bank.assert_sound()


async def test_a_reader_sees_both_sides_or_neither_while_members_give_in_circles(bank: Bank) -> None:
    family = [member(f"family {number}") for number in range(6)]
    await bank.book(*(purchase(n, one, books=BOOKS, earn=[1000]) for n, one in enumerate(family, start=1)))
    reader = await asyncpg.connect(bank.dsn)
    sums: list[tuple[int, int]] = []
    done = asyncio.Event()

    async def read() -> None:
        """Add up what all have, and what is under way, in one snapshot each."""
        total = "SELECT sum(available_minor + pending_minor + held_minor)::bigint FROM ledger.balance"
        clearing = "SELECT coalesce(sum(credit_minor - debit_minor), 0)::bigint FROM ledger.account_total"
        while not done.is_set():
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                under_way = await reader.fetchval(f"{clearing} WHERE account = $1", CLEARING)
                sums.append((await reader.fetchval(total), under_way))

    async def give_around(seed: int) -> Counter[str]:
        dice, told = random.Random(seed), Counter[str]()
        for _ in range(15):
            giver, taker = dice.sample(family, 2)
            outcome = await bank.give(giver, taker, dice.randint(1, 400))
            told[type(outcome).__name__] += 1
        return told

    reading = asyncio.create_task(read())
    try:
        told = await asyncio.gather(*(give_around(seed) for seed in range(4)))
    finally:
        done.set()
        await reading
        await reader.close()
    assert sum(one["Transferred"] for one in told) > 20, told
    assert set(sums) == {(6000, 0)}
    await bank.assert_sound()
