"""Counters, coupons and budgets in the database: many writers and books at once, and what is read for a batch."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter as Tally
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.booking.budgets import lease, next_part
from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_partner
from ledger.booking.transfer import TransferOrder, transfer_everything
from ledger.entry.accounts import partner_account
from ledger.entry.books import book_of_member
from ledger.entry.counters import parse_counters
from ledger.entry.model import (
    Booked,
    Command,
    Counter,
    CounterChange,
    Declined,
    FoundUnderFence,
    NewCoupon,
    Outcome,
    Purchase,
)
from ledger.reading.partners import read_partners
from ledger.rebuild import rebuild
from ledger.verify import record_checkpoints, verify, verify_since
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.commands import (
    NOON,
    cancel,
    checkout,
    goods_return,
    hold,
    keeping,
    member,
    pass_time,
    planned,
    promoted,
    purchase,
)

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

BOOKS = 4
WRITERS = 4
CLIENTS = 64
COUPON_USED = common_pb2.REFUSAL_REASON_COUPON_USED
SPRING = "spring/money"
TODAY = NOON.date()


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """A ledger of four books."""
    async with open_test_books(ledger_dsn, BOOKS) as books:
        books.clock.now = NOON
        yield books


@pytest.fixture
async def owner(ledger_dsn: str) -> AsyncIterator[Connection]:
    conn = await asyncpg.connect(ledger_dsn)
    yield conn
    await conn.close()


async def connect(books: BooksUnderTest) -> Connection:
    return await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_writer"})


async def race(books: BooksUnderTest, commands: Sequence[Command]) -> list[Outcome]:
    """Send commands through several writers at once, each in its turn."""
    writers = [Committer(lambda: connect(books), BOOKS, books.clock) for _ in range(WRITERS)]
    try:
        return await asyncio.gather(*(writers[n % WRITERS].submit(each) for n, each in enumerate(commands)))
    finally:
        await asyncio.gather(*(writer.close() for writer in writers))


async def assert_sound(conn: Connection) -> None:
    """Everything verifies, and the caches are what the journal adds up to."""
    assert [report.problem for report in await verify(conn) if report.problem] == []
    before = await usage_rows(conn)
    await rebuild(conn)
    assert await usage_rows(conn) == before


async def usage_rows(conn: Connection) -> dict[str, list[str]]:
    tables = ("member_counters", "coupon_use", "hold_coupon", "coupon_issued", "budget", "budget_slice")
    return {name: sorted(map(repr, await conn.fetch(f"SELECT * FROM ledger.{name}"))) for name in tables}


def if_free(number: int, coupons: Mapping[str, int]) -> Purchase:
    """A receipt of a member of its own that uses those of some coupons that can be used."""
    bought = purchase(number, member(number), books=BOOKS)

    def plan(found: FoundUnderFence) -> Purchase:
        free = {code: uses for code, uses in coupons.items() if not found.coupons[code]}
        return replace(promoted(bought, coupons=free), claims=planned(bought, plan, coupons=coupons).claims)

    return planned(bought, plan, coupons=coupons)


def coupons_used(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Booked), outcome
    return [each.code for each in journal_pb2.Event.FromString(outcome.event).coupon_changes]


@pytest.mark.parametrize(("uses", "winners"), [pytest.param(1, 1, id="one use"), pytest.param(20, 20, id="20 uses")])
async def test_lanes_that_race_for_a_coupon_get_its_uses_and_no_more(
    books: BooksUnderTest, owner: Connection, uses: int, winners: int
) -> None:
    """64 members of four books, over four writers."""
    outcomes = await race(books, [if_free(n, {"CAKE": uses}) for n in range(CLIENTS)])
    assert len({outcome.book for outcome in outcomes if isinstance(outcome, Booked)}) == BOOKS
    assert sum(len(coupons_used(outcome)) for outcome in outcomes) == winners
    assert await owner.fetchval("SELECT count(*) FROM ledger.coupon_use") == winners
    await assert_sound(owner)


async def test_receipts_that_want_the_same_coupons_in_different_orders_are_all_booked(
    books: BooksUnderTest, owner: Connection
) -> None:
    codes = [f"C{n}" for n in range(12)]
    wanted = [dict.fromkeys(codes[n % 12 :] + codes[: n % 12], 1) for n in range(CLIENTS)]
    outcomes = await race(books, [if_free(n, each) for n, each in enumerate(wanted)])
    assert Tally(code for outcome in outcomes for code in coupons_used(outcome)) == dict.fromkeys(codes, 1)
    await assert_sound(owner)


async def test_holds_race_for_a_coupon_with_receipts_and_cancels(books: BooksUnderTest, owner: Connection) -> None:
    """Whatever comes first: at the end as many uses are taken as holds are open and receipts used one."""
    coupons = {"CAKE": 3}
    commands: list[Command] = []
    for n in range(20):
        held = hold(checkout(n, str(n)), member(n), 0, books=BOOKS, message=f"hold {n}")
        commands += [keeping(held, coupons), if_free(100 + n, coupons)]
        commands.append(cancel(checkout(n, str(n)), member(n), books=BOOKS, message=f"cancel {n}"))
    outcomes = await race(books, commands)
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, Declined)]
    assert set(refused) <= {
        COUPON_USED,
        common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE,
        common_pb2.REFUSAL_REASON_HOLD_GONE,
    }
    taken = await owner.fetch("SELECT held, count(*) FROM ledger.coupon_use GROUP BY held")
    open_holds = await owner.fetchval("SELECT count(*) FROM ledger.hold WHERE how IS NULL")
    receipts = [each for each, command in zip(outcomes, commands, strict=True) if isinstance(command, Purchase)]
    used = sum(len(coupons_used(each)) for each in receipts)
    expected = {kind: count for kind, count in ((True, open_holds), (False, used)) if count}
    assert {row["held"]: row["count"] for row in taken} == expected
    await assert_sound(owner)


async def test_a_lane_that_lost_the_race_is_told_who_has_the_coupon(books: BooksUnderTest) -> None:
    await books.append([promoted(purchase(1, member(1), books=BOOKS), coupons={"CAKE": 1})])
    other = next(n for n in range(2, 99) if book_of_member(member(n), BOOKS) != book_of_member(member(1), BOOKS))
    held = keeping(hold(checkout("b"), member(other), 0, books=BOOKS), {"CAKE": 1})
    outcome = await books.committer.submit(held)
    assert isinstance(outcome, Declined)
    assert outcome.reason == COUPON_USED


async def test_a_hold_and_its_coupons_survive_in_the_database(books: BooksUnderTest, owner: Connection) -> None:
    """Each step in a batch of its own, with nothing left in memory."""
    anna = member("Anna")
    two = {"CAKE": 1, "TEA": 5}
    kept = keeping(hold(checkout("bag"), anna, 0, books=BOOKS, ttl_seconds=60), two)
    await books.append([kept])
    assert len(await owner.fetch("SELECT FROM ledger.hold_coupon")) == 2
    paid = promoted(purchase(1, anna, books=BOOKS, captures=checkout("bag")), coupons={"CAKE": 1})
    (used,) = await books.append([paid])
    rows = await owner.fetch("SELECT code, number, held FROM ledger.coupon_use")
    assert [tuple(row) for row in rows] == [("CAKE", used.number, False)]
    assert await owner.fetch("SELECT FROM ledger.hold_coupon") == []
    await books.append([goods_return(2, used, terms={})])
    assert await owner.fetch("SELECT FROM ledger.coupon_use") == []
    again = keeping(hold(checkout("bag2"), anna, 0, books=BOOKS, ttl_seconds=60), two)
    await books.append([again])
    books.clock.now += timedelta(hours=1)
    await books.append([pass_time(anna, books=BOOKS)])
    assert await owner.fetch("SELECT FROM ledger.coupon_use") == []
    await assert_sound(owner)


async def test_a_hold_that_begins_and_ends_in_one_batch_leaves_nothing(
    books: BooksUnderTest, owner: Connection
) -> None:
    kept = keeping(hold(checkout("bag"), member(1), 0, books=BOOKS), {"CAKE": 1})
    await books.append([kept, cancel(checkout("bag"), member(1), books=BOOKS)])
    assert await owner.fetch("SELECT FROM ledger.hold_coupon UNION ALL SELECT FROM ledger.coupon_use") == []
    await assert_sound(owner)


async def test_a_coupon_that_the_cache_lost_is_not_taken_silently(books: BooksUnderTest, owner: Connection) -> None:
    await books.append([keeping(hold(checkout("bag"), member(1), 0, books=BOOKS), {"CAKE": 1})])
    await owner.execute("DELETE FROM ledger.coupon_use")
    with pytest.raises(Exception, match="tallypoint ledger rebuild"):
        await books.append([cancel(checkout("bag"), member(1), books=BOOKS)])
    await rebuild(owner)
    await books.append([cancel(checkout("bag"), member(1), books=BOOKS)])
    await assert_sound(owner)


# --- counters -----------------------------------------------------------------------------------------------------


async def counters(conn: Connection, who: uuid.UUID) -> dict[str, Counter]:
    row = await conn.fetchval("SELECT counters FROM ledger.member_counters WHERE member_id = $1", who)
    return parse_counters(row or b"")


async def test_every_visit_counts_once_over_all_writers(books: BooksUnderTest, owner: Connection) -> None:
    seen: list[int] = []

    def visit(number: int) -> Purchase:
        bought = purchase(number, member("Anna"), books=BOOKS)

        def plan(found: FoundUnderFence) -> Purchase:
            seen.append(found.counters.get("visit/ever", Counter()).times)
            return promoted(bought, counts=[CounterChange("visit/ever", 1, 10)])

        return planned(bought, plan)

    await race(books, [visit(n) for n in range(CLIENTS)] * 2)
    assert await counters(owner, member("Anna")) == {"visit/ever": Counter(CLIENTS, 10 * CLIENTS)}
    assert set(seen) == set(range(CLIENTS)), "each number of earlier visits is seen by the one that is booked"
    await assert_sound(owner)


async def test_receipts_that_count_nothing_write_no_counters(books: BooksUnderTest, owner: Connection) -> None:
    await books.append([purchase(1, member(1), books=BOOKS), promoted(purchase(2, member(2), books=BOOKS))])
    assert await usage_rows(owner) == {name: [] for name in await usage_rows(owner)}


async def test_a_merge_moves_what_is_counted_between_books(books: BooksUnderTest, owner: Connection) -> None:
    """Also for a member who has no points at all."""
    anna, bo, cyril = await books.register(3)
    counted = [CounterChange("visit/ever", 2, 700, 7), CounterChange("club/gold", 1, until=TODAY + timedelta(days=9))]
    for n, who in enumerate((anna, bo, cyril)):
        earn: list[Any] = [50] if who == anna else []
        await books.append([promoted(purchase(n, who, books=BOOKS, earn=earn), counts=counted)])
    for n, who in enumerate((anna, bo)):
        async with owner.transaction():
            order = TransferOrder(uuid.UUID(int=n), who, cyril, "merge", "Olena")
            (moved,) = await transfer_everything(owner, BOOKS, order, books.clock())
        assert moved.arrived is not None
        assert await counters(owner, who) == {}
        async with owner.transaction():
            order = TransferOrder(uuid.UUID(int=10 + n), who, cyril, "merge", "Olena")
            assert await transfer_everything(owner, BOOKS, order, books.clock()) == []
    expected = {"visit/ever": Counter(6, 2100, 21), "club/gold": Counter(3, until=TODAY + timedelta(days=9))}
    assert await counters(owner, cyril) == expected
    await assert_sound(owner)


# --- issued coupons and partners ----------------------------------------------------------------------------------


async def test_issued_coupons_are_found_by_their_code(books: BooksUnderTest, owner: Connection) -> None:
    until = TODAY + timedelta(days=14)
    given = [NewCoupon("THANKS-2", "thanks", TODAY, None), NewCoupon("THANKS-1", "thanks", TODAY, until)]
    (booked,) = await books.append([promoted(purchase(1, member(1), books=BOOKS), issued=given)])
    rows = await owner.fetch("SELECT * FROM ledger.coupon_issued ORDER BY code")
    assert [tuple(row) for row in rows] == [
        ("THANKS-1", booked.book, booked.number, member(1), "thanks", TODAY, until),
        ("THANKS-2", booked.book, booked.number, member(1), "thanks", TODAY, None),
    ]
    await assert_sound(owner)


async def test_partners_keep_their_numbers(books: BooksUnderTest) -> None:
    connections = [await connect(books) for _ in range(4)]
    codes = ["pharmacy", "fuel", "pharmacy", "cinema"]
    numbers = await asyncio.gather(*(ensure_partner(conn, code) for conn, code in zip(connections, codes, strict=True)))
    assert numbers[0] == numbers[2]
    assert sorted(set(numbers)) == [1, 2, 3]
    assert await read_partners(connections[0]) == dict(zip(codes, numbers, strict=True))
    assert partner_account(1) == 1001
    with pytest.raises(ValueError, match="needs a code"):
        await ensure_partner(connections[0], "")
    await asyncio.gather(*(conn.close() for conn in connections))


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unleased", "missing", "part"),
    [
        pytest.param(8000, 10, 1000, id="an eighth of what is left, of four books"),
        pytest.param(8000, 3000, 3000, id="what is missing, if that is more"),
        pytest.param(50, 10, 10, id="small towards the end"),
        pytest.param(7, 10, 7, id="the rest"),
        pytest.param(0, 10, 0, id="nothing"),
        pytest.param(-500, 10, 0, id="nothing of a budget that was lowered"),
    ],
)
def test_parts_shrink_as_a_budget_runs_out(unleased: int, missing: int, part: int) -> None:
    assert next_part(unleased, missing, BOOKS) == part


async def test_a_book_is_given_what_it_misses_once(books: BooksUnderTest, owner: Connection) -> None:
    """Several processes of one book ask at once; the second finds what the first was given."""
    connections = [await connect(books) for _ in range(4)]
    left = await asyncio.gather(*(lease(conn, 0, SPRING, 8000, 10, books.clock()) for conn in connections))
    assert left == [1000] * 4
    assert await lease(connections[0], 1, SPRING, 8000, 5000, books.clock()) == 5000
    assert await lease(connections[0], 2, SPRING, 8000, 5000, books.clock()) == 2000
    assert await lease(connections[0], 3, SPRING, 8000, 1, books.clock()) == 0
    assert await lease(connections[0], 3, SPRING, 4000, 1, books.clock()) == 0, "it was lowered"
    assert await lease(connections[0], 3, "nothing", 0, 1, books.clock()) == 0
    assert [tuple(row) for row in await owner.fetch("SELECT * FROM ledger.budget")] == [(SPRING, 8000)]
    await asyncio.gather(*(conn.close() for conn in connections))
    await assert_sound(owner)


async def test_a_budget_is_never_exceeded_and_is_used_up(books: BooksUnderTest, owner: Connection) -> None:
    """Eight writers in four books want 7 each of 1,000, and lease as a till does: before a receipt that wants more."""
    budget, wanted = 1000, 7
    granted: list[int] = []

    def spending(number: int) -> Purchase:
        bought = purchase(number, member(number), books=BOOKS)

        def plan(found: FoundUnderFence) -> Purchase:
            return promoted(bought, budgets={SPRING: min(wanted, found.budgets[SPRING])})

        return planned(bought, plan, budgets=[SPRING])

    async def writer(first: int) -> None:
        conn = await connect(books)
        committer = Committer(lambda: connect(books), BOOKS, books.clock)
        for number in range(first, first + 25):
            command = spending(number)
            await lease(conn, command.book, SPRING, budget, wanted, books.clock())
            outcome = await committer.submit(command)
            assert isinstance(outcome, Booked)
            granted.append(sum(use.amount for use in journal_pb2.Event.FromString(outcome.event).budget_uses))
        await committer.close()
        await conn.close()

    await asyncio.gather(*(writer(100 * n) for n in range(8)))
    leased = await owner.fetchval("SELECT leased FROM ledger.budget WHERE key = $1", SPRING)
    given, used = tuple(await owner.fetchrow("SELECT sum(granted), sum(used) FROM ledger.budget_slice") or ())
    assert leased == given == budget, "200 receipts wanted 1,400"
    assert used == sum(granted) == budget
    await assert_sound(owner)


# --- verification -------------------------------------------------------------------------------------------------


async def test_what_is_new_verifies_without_what_was_before(books: BooksUnderTest, owner: Connection) -> None:
    """Budgets that were given, coupons that were held and counters that were counted before the last verification."""
    anna = member("Anna")
    await lease(owner, book_of_member(anna, BOOKS), SPRING, 100, 50, books.clock())
    counts = [CounterChange("visit/ever", 1, 10)]
    await books.append(
        [
            keeping(hold(checkout("bag"), anna, 0, books=BOOKS), {"CAKE": 1}),
            promoted(purchase(1, anna, books=BOOKS), counts=counts, budgets={SPRING: 5}),
        ]
    )
    await record_checkpoints(owner, await verify(owner), books.clock(), full=True)
    paid = purchase(2, anna, books=BOOKS, captures=checkout("bag"))
    await books.append([promoted(paid, coupons={"CAKE": 1}, counts=counts, budgets={SPRING: 45})])
    await lease(owner, book_of_member(anna, BOOKS), SPRING, 100, 10, books.clock())
    assert [report.problem for report in await verify_since(owner) if report.problem] == []
    await owner.execute("UPDATE ledger.member_counters SET counters = 'x'")
    (problem,) = [report.problem for report in await verify_since(owner) if report.problem]
    assert "cache member_counters" in problem.what
