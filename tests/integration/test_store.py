"""What only the store can get wrong: rows of caches that a batch changes more than once, lost races, damaged caches."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.booking.committer import BatchTimes, CommandFailed, Committer, Silent
from ledger.booking.opening import ensure_unit, open_books
from ledger.booking.store import read_state, read_tail, write_decision
from ledger.caches.tables import CACHE_TABLES
from ledger.entry.decide import decide
from ledger.entry.model import (
    MAX_OPEN_HOLDS,
    Booked,
    Command,
    Declined,
    Grant,
    Hold,
    LotTerms,
    Outcome,
    Purchase,
    Repeat,
)
from ledger.reading.lookups import read_receipts
from ledger.rebuild import rebuild
from ledger.verify import verify
from tests.support import commands
from tests.support.commands import BONUS, NOON, Line, adjust, cancel, checkout, hold, member, pass_time, purchase

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

ANNA = member("Anna")
ALL = "9b2f3c1e-6f0a-4d8e-9c39-5a1d6a7f0b11"
HOUR = timedelta(hours=1)
HELD_ELSEWHERE = common_pb2.REFUSAL_REASON_HELD_ELSEWHERE
RETURN_EXCEEDS = common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE
CAPTURED = int(journal_pb2.HOLD_END_KIND_CAPTURED)
CANCELLED = int(journal_pb2.HOLD_END_KIND_CANCELLED)
REPLACED = int(journal_pb2.HOLD_END_KIND_REPLACED)
TAKEN_OVER = int(journal_pb2.HOLD_END_KIND_TAKEN_OVER)
MERGED = int(journal_pb2.HOLD_END_KIND_MERGED)


class Watch(Silent):
    """Notes the sizes of batches and why they ran again."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.retries: list[str] = []

    def batch(self, book: int, commands: int, waited_seconds: float, times: BatchTimes) -> None:
        self.batches.append(commands)

    def retry(self, reason: str) -> None:
        self.retries.append(reason)


class Book:
    """A ledger of one book, at a time that a test sets."""

    def __init__(self, dsn: str, owner: Connection) -> None:
        self.owner = owner
        self.now = NOON
        self.watch = Watch()
        self.owned: Collection[int] = ()
        self._dsn = dsn
        self.writers: list[Committer] = []

    def writer(self) -> Committer:
        """Begin one more writer."""
        self.writers.append(Committer(self.connect, 1, lambda: self.now, owned=self.owned, observer=self.watch))
        return self.writers[-1]

    async def connect(self) -> Connection:
        """Connect as a writer does."""
        return await asyncpg.connect(self._dsn, server_settings={"role": "tallypoint_writer"})

    async def answer(self, *batch: Command) -> list[Outcome]:
        """Send commands as one batch."""
        writer = self.writers[0] if self.writers else self.writer()
        outcomes = await asyncio.gather(*(writer.submit(command) for command in batch))
        assert self.watch.batches[-1] == len(batch), "they were to be one batch"
        return outcomes

    async def book(self, *batch: Command) -> list[Booked]:
        """Send commands, which must be booked, as one batch."""
        booked = [outcome for outcome in await self.answer(*batch) if isinstance(outcome, Booked)]
        assert len(booked) == len(batch)
        return booked

    async def terms(self, command: Purchase) -> dict[tuple[int, int], LotTerms]:
        """Return the terms of the lots that a purchase spent from."""
        assert command.business_key is not None
        return (await read_receipts(self.owner, [command.business_key]))[command.business_key].lots

    async def lots(self) -> list[tuple[int, ...]]:
        """Return all lots: entry number, what is left, and what is held."""
        query = "SELECT number, remaining_minor, held_minor FROM ledger.lot ORDER BY unit, number, ordinal"
        return [tuple(row) for row in await self.owner.fetch(query)]

    async def holds(self) -> list[tuple[int, int | None]]:
        """Return all holds: entry number, and how they ended."""
        return [tuple(row) for row in await self.owner.fetch("SELECT number, how FROM ledger.hold ORDER BY number")]

    async def parts(self) -> list[tuple[int, ...]]:
        """Return all parts of open holds: the numbers of hold and lot, and points."""
        query = "SELECT hold_number, lot_number, points_minor FROM ledger.hold_part ORDER BY hold_number, ordinal"
        return [tuple(row) for row in await self.owner.fetch(query)]

    async def caches(self) -> dict[str, list[str]]:
        """Return all rows of all caches."""
        tables = [table.name for table in CACHE_TABLES]
        return {name: sorted(map(repr, await self.owner.fetch(f"SELECT * FROM ledger.{name}"))) for name in tables}

    async def assert_sound(self) -> None:
        """Everything verifies, and adding the journal up gives the caches that were kept."""
        assert [report.problem for report in await verify(self.owner) if report.problem] == []
        kept = await self.caches()
        await rebuild(self.owner)
        assert await self.caches() == kept


@pytest.fixture(params=[(), (0,)], ids=["written by anybody", "written by its owner"])
async def book(ledger_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Book]:
    """An empty book."""
    owner = await asyncpg.connect(ledger_dsn)
    await open_books(owner, 1)
    await ensure_unit(owner, BONUS.code, BONUS.precision)
    book = Book(ledger_dsn, owner)
    book.owned = request.param
    yield book
    await asyncio.gather(*(writer.close() for writer in book.writers))
    await owner.close()


def lane(number: int, points: int, *, takeover: str = "") -> Hold:
    """Return a hold of Anna's points at a lane."""
    return hold(checkout("bag", str(number)), ANNA, points, takeover=takeover, message=f"hold {number} {points}")


def at_lane(number: int) -> Command:
    return cancel(checkout("bag", str(number)), ANNA)


# --- more than one change in a batch ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "how", "left"),
    [
        pytest.param(at_lane(1), CANCELLED, [(1, 100, 0)], id="cancelled"),
        pytest.param(
            purchase(9, ANNA, spend=40, captures=checkout("bag", "1")), CAPTURED, [(1, 60, 0)], id="captured in part"
        ),
        pytest.param(purchase(9, ANNA, spend=70, captures=checkout("bag", "1")), CAPTURED, [(1, 30, 0)], id="captured"),
        pytest.param(lane(1, 100), REPLACED, [(1, 0, 100)], id="replaced"),
        pytest.param(lane(2, 90, takeover="broken"), TAKEN_OVER, [(1, 10, 90)], id="taken over"),
        pytest.param(commands.transfer_out(ALL, ANNA, member("Bo"), None), MERGED, [], id="merged"),
    ],
)
@pytest.mark.parametrize(
    ("known", "apart"),
    [
        pytest.param(False, False, id="in one batch with its lot"),
        pytest.param(True, False, id="in one batch"),
        pytest.param(True, True, id="in two batches"),
    ],
)
async def test_a_hold_begins_and_ends(
    book: Book, ending: Command, how: int, left: list[tuple[int, ...]], known: bool, apart: bool
) -> None:
    issued_at = book.now
    everything: list[Command] = [purchase(1, ANNA, earn=[100]), lane(1, 70), ending]
    if known:
        await book.book(everything.pop(0))
    if apart:
        await book.book(*everything[:-1])
        everything = everything[-1:]
    await book.book(*everything)
    assert (await book.holds())[0] == (2, how)
    assert await book.lots() == left
    assert [part for part in await book.parts() if part[0] == 2] == []
    if how == MERGED:  # the other half of the transfer, without which the books would not verify
        await book.book(commands.transfer_in(ALL, ANNA, member("Bo"), [Grant(100, None, None, issued_at)]))
    await book.assert_sound()


@pytest.mark.parametrize(
    ("batches", "left"),
    [
        pytest.param(["B", "A"], [(1, 40, 0)], id="emptied, and filled in the next"),
        pytest.param(["BA"], [(1, 40, 0)], id="emptied and filled"),
        pytest.param(["BAC"], [], id="emptied, filled and emptied"),
        pytest.param(["B", "AC"], [], id="emptied; filled and emptied in the next"),
        pytest.param(["B", "AC", "X"], [(1, 60, 0)], id="emptied; filled and emptied; filled"),
        pytest.param(["B", "ACX"], [(1, 60, 0)], id="emptied; filled, emptied and filled"),
        pytest.param(["BAC", "X"], [(1, 60, 0)], id="emptied, filled and emptied; filled"),
        pytest.param(["B", "AH"], [(1, 0, 40)], id="emptied; filled and held"),
        pytest.param(["BAH", "h"], [(1, 40, 0)], id="emptied, filled and held; released"),
        pytest.param(["B", "AHh"], [(1, 40, 0)], id="emptied; filled, held and released"),
    ],
)
async def test_a_lot_is_emptied_and_filled_again(book: Book, batches: list[str], left: list[tuple[int, ...]]) -> None:
    """Of 160 points, A had spent 40, X 60; B spends the last 60. A and X come back, C spends 40, H holds them."""
    spent_a, spent_x = purchase(2, ANNA, spend=40), purchase(3, ANNA, spend=60)
    _, bought_a, bought_x = await book.book(purchase(1, ANNA, earn=[160]), spent_a, spent_x)
    what: dict[str, Command] = {
        "A": commands.goods_return(12, bought_a, terms=await book.terms(spent_a)),
        "X": commands.goods_return(13, bought_x, terms=await book.terms(spent_x)),
        "B": purchase(4, ANNA, spend=60),
        "C": purchase(5, ANNA, spend=40),
        "H": lane(1, 40),
        "h": at_lane(1),
    }
    for batch in batches:
        await book.book(*(what[letter] for letter in batch))
    assert await book.lots() == left
    await book.assert_sound()


async def test_a_return_gives_back_to_lots_that_are_all_gone(book: Book) -> None:
    """Three lots were emptied; one of them lapsed since, and what was earned is spent too."""
    terms = [NOON + HOUR, NOON + 48 * HOUR, None]
    spending = purchase(2, ANNA, spend=300, earn=[50], lines=[Line(earned_minor=50)])
    earning = purchase(1, ANNA, earn=[Grant(100, None, expires_at) for expires_at in terms])
    _, bought, _ = await book.book(earning, spending, purchase(3, ANNA, spend=50))
    assert await book.lots() == []
    book.now += 2 * HOUR
    (back,) = await book.book(commands.goods_return(4, bought, terms=await book.terms(spending)))
    settlement = journal_pb2.Event.FromString(back.event).settlement
    assert (settlement.refund_points_minor, settlement.clawback_points_minor) == (300, 50)
    assert sorted(left for _, left, _ in await book.lots()) in ([50, 100], [100, 50])
    balance = await book.owner.fetchrow("SELECT available_minor, debt_minor FROM ledger.balance")
    assert tuple(balance or ()) == (150, 0)
    await book.assert_sound()


async def test_a_hold_over_several_lots_is_captured_from_the_first(book: Book) -> None:
    expiries: list[datetime | None] = [None, NOON + 3 * HOUR, NOON + 2 * HOUR]
    await book.book(*(purchase(n, ANNA, earn=[Grant(100, None, at)]) for n, at in enumerate(expiries, start=1)))
    await book.book(lane(1, 250))
    assert await book.lots() == [(1, 50, 50), (2, 0, 100), (3, 0, 100)]
    assert await book.parts() == [(4, 3, 100), (4, 2, 100), (4, 1, 50)]
    await book.book(purchase(9, ANNA, spend=130, captures=checkout("bag", "1")))
    assert await book.lots() == [(1, 100, 0), (2, 70, 0)]
    assert await book.parts() == []
    await book.assert_sound()


async def test_as_many_holds_as_one_may_have_end_with_one_entry(book: Book) -> None:
    await book.book(*(purchase(n, ANNA, earn=[100]) for n in range(1, 4)))
    lanes = range(1, MAX_OPEN_HOLDS + 1)
    await book.book(*(lane(number, number) for number in lanes[:5]))
    await book.book(*(lane(number, number) for number in lanes[5:]))
    (refused,) = await book.answer(lane(99, 1))
    assert isinstance(refused, Declined)
    assert refused.reason == HELD_ELSEWHERE
    assert sum(points for _, _, points in await book.parts()) == sum(lanes)
    await book.assert_sound()
    (taken,) = await book.book(lane(99, 250, takeover="lane 1 is down"))
    assert [how for _, how in await book.holds()] == [TAKEN_OVER] * MAX_OPEN_HOLDS + [None]
    assert [part[1:] for part in await book.parts()] == [(1, 100), (2, 100), (3, 50)]
    assert len(journal_pb2.Event.FromString(taken.event).hold_ends) == MAX_OPEN_HOLDS
    await book.assert_sound()


async def test_two_units_of_one_member_keep_apart(book: Book) -> None:
    miles = await ensure_unit(book.owner, "miles", 0)

    def of_miles(command: Purchase | Hold) -> Command:
        return dataclasses.replace(command, unit=miles)

    lapsing = Grant(30, None, NOON + 2 * HOUR)
    await book.book(
        purchase(1, ANNA, earn=[100]),
        of_miles(purchase(2, ANNA, earn=[7, lapsing])),
        lane(1, 60),
        of_miles(lane(2, 35)),
    )
    assert await book.lots() == [(1, 40, 60), (2, 2, 5), (2, 0, 30)]
    taken, others = lane(3, 100, takeover="broken"), of_miles(purchase(3, ANNA, spend=2))
    await book.book(taken, others)
    assert await book.holds() == [(3, TAKEN_OVER), (4, None), (5, None)]
    await book.assert_sound()
    book.now += 3 * HOUR
    await book.book(pass_time(ANNA))
    query = "SELECT unit, available_minor, held_minor FROM ledger.balance ORDER BY unit"
    assert [tuple(row) for row in await book.owner.fetch(query)] == [(BONUS.number, 100, 0), (miles.number, 5, 0)]
    await book.assert_sound()


# --- lost races ---------------------------------------------------------------------------------------------------

BREAD, MILK = purchase(20, ANNA, spend=40), purchase(21, ANNA, spend=50, captures=checkout("bag", "1"))
Rival = Command | Callable[[Booked, dict[tuple[int, int], LotTerms]], Command]


def bring_back(number: int) -> Rival:
    """Return the bread."""
    return lambda bought, terms: commands.goods_return(number, bought, terms=terms)


RIVALS = pytest.mark.parametrize(
    ("first", "second", "loser", "left"),
    [
        pytest.param(lane(2, 60), lane(3, 60), HELD_ELSEWHERE, [(1, 0, 120)], id="two lanes hold the last points"),
        pytest.param(lane(2, 60), lane(2, 60), "repeated", [(1, 0, 120)], id="one hold, sent twice"),
        pytest.param(at_lane(1), MILK, "booked", [(1, 70, 0)], id="cancelled, then paid"),
        pytest.param(MILK, at_lane(1), common_pb2.REFUSAL_REASON_HOLD_GONE, [(1, 70, 0)], id="paid, then cancelled"),
        pytest.param(bring_back(30), bring_back(31), RETURN_EXCEEDS, [(1, 100, 60)], id="two returns of one line"),
        pytest.param(bring_back(30), bring_back(30), "repeated", [(1, 100, 60)], id="one return, sent twice"),
        pytest.param(lane(1, 30), lane(1, 90), "booked", [(1, 30, 90)], id="one checkout holds anew, twice"),
    ],
)


async def rivals(book: Book, *contenders: Rival) -> list[Command]:
    """Let Anna have 120 points, of which lane 1 holds 60, and bread that she may bring back for 40."""
    _, bread, _ = await book.book(purchase(1, ANNA, earn=[160]), BREAD, lane(1, 60))
    terms = await book.terms(BREAD)
    return [rival if isinstance(rival, Command) else rival(bread, terms) for rival in contenders]


def outcome_of(verdict: object) -> object:
    """Return a refusal's reason, or whether it was booked or repeated."""
    if isinstance(verdict, Declined):
        return verdict.reason
    repeated = isinstance(verdict, Repeat) or (isinstance(verdict, Booked) and verdict.repeated)
    return "repeated" if repeated else "booked"


@RIVALS
async def test_who_decided_on_an_old_head_writes_nothing_and_decides_again(
    book: Book, first: Rival, second: Rival, loser: object, left: list[tuple[int, int, int]]
) -> None:
    both = await rivals(book, first, second)
    conns = [await book.connect(), await book.connect()]
    try:
        states = [await read_state(conn, 0, [command], book.now, 10) for conn, command in zip(conns, both, strict=True)]
        heads = [state.head for state in states]
        decisions = [decide(state, [command], book.now) for state, command in zip(states, both, strict=True)]
        assert await write_decision(conns[0], heads[0], states[0], decisions[0], 10)
        before = await book.caches()
        assert not decisions[1].entries or not await write_decision(conns[1], heads[1], states[1], decisions[1], 10)
        assert await book.caches() == before
        again = await read_state(conns[1], 0, both[1:], book.now, 10)
        head = again.head
        decided = decide(again, both[1:], book.now)
        assert outcome_of(decided.verdicts[0]) == loser
        assert not decided.entries or await write_decision(conns[1], head, again, decided, 10)
    finally:
        for conn in conns:
            await conn.close()
    assert await book.lots() == left
    await book.assert_sound()


@RIVALS
async def test_of_two_writers_who_read_one_head_the_loser_repeats(
    book: Book, first: Rival, second: Rival, loser: object, left: list[tuple[int, int, int]]
) -> None:
    """Both decide while a third connection keeps the head; then one of them, we do not know which, comes first."""
    both = await rivals(book, first, second)
    writers = [book.writer(), book.writer()]
    await book.owner.execute("BEGIN")
    await book.owner.execute("SELECT FROM ledger.book_head FOR UPDATE")
    calls = [asyncio.create_task(writer.submit(command)) for writer, command in zip(writers, both, strict=True)]
    async with asyncio.timeout(20):
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while await book.owner.fetchval(waiting) < len(calls):
            await book.owner.execute("SELECT pg_stat_clear_snapshot()")  # a transaction sees the same activity for ever
    await book.owner.execute("COMMIT")
    ended = [outcome_of(outcome) for outcome in await asyncio.gather(*calls)]
    assert book.watch.retries == ["race"]
    assert "booked" in ended
    if both[0].message_id == both[1].message_id or loser in (HELD_ELSEWHERE, RETURN_EXCEEDS):
        assert sorted(map(str, ended)) == sorted(["booked", str(loser)])
        assert await book.lots() == left
    await book.assert_sound()


# --- caches that somebody damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "command"),
    [
        pytest.param("DELETE FROM ledger.lot", purchase(9, ANNA, spend=10), id="no lots, spending"),
        pytest.param("DELETE FROM ledger.lot", at_lane(1), id="no lots, releasing"),
        pytest.param("UPDATE ledger.lot SET held_minor = 1", at_lane(1), id="less held, releasing"),
        pytest.param("UPDATE ledger.lot SET remaining_minor = 1", adjust("a", ANNA, -30), id="less left, taking"),
        pytest.param("DELETE FROM ledger.hold_part", at_lane(1), id="no parts, releasing"),
        pytest.param(
            "DELETE FROM ledger.hold_part",
            purchase(9, ANNA, spend=60, captures=checkout("bag", "1")),
            id="no parts, capturing",
        ),
        pytest.param("UPDATE ledger.hold_part SET points_minor = 59", at_lane(1), id="smaller parts, releasing"),
        pytest.param("DELETE FROM ledger.balance", lane(1, 30), id="no balance, holding"),
        pytest.param("DELETE FROM ledger.balance", purchase(9, ANNA, spend=10), id="no balance, spending"),
    ],
)
async def test_a_damaged_cache_stops_who_needs_it_until_it_is_rebuilt(
    book: Book, damage: str, command: Command
) -> None:
    await book.book(purchase(1, ANNA, earn=[100]), lane(1, 60))
    whole = await book.caches()
    await book.owner.execute(damage)
    broken = await book.caches()
    with pytest.raises(CommandFailed, match="`tallypoint ledger rebuild`"):
        await book.answer(command)
    assert await book.caches() == broken
    await book.book(purchase(5, member("Bo"), earn=[5]))
    await rebuild(book.owner)
    assert set(whole["lot"]) <= set((await book.caches())["lot"])
    await book.book(command)
    await book.assert_sound()


@pytest.mark.parametrize(
    ("damage", "command"),
    [
        pytest.param("DELETE FROM ledger.lot", purchase(9, ANNA, spend=10), id="a lot"),
        pytest.param("DELETE FROM ledger.hold", at_lane(1), id="a hold"),
        pytest.param("UPDATE ledger.hold SET how = 3, ended_number = 2", at_lane(1), id="an open hold"),
    ],
)
async def test_a_row_that_goes_between_reading_and_writing_is_missed(book: Book, damage: str, command: Command) -> None:
    await book.book(purchase(1, ANNA, earn=[100]), lane(1, 60))
    state = await read_state(book.owner, 0, [command], book.now, 10)
    head = state.head
    decision = decide(state, [command], book.now)
    await book.owner.execute(damage)
    broken = await book.caches()
    with pytest.raises(asyncpg.DataCorruptedError, match="`tallypoint ledger rebuild`"):
        await write_decision(book.owner, head, state, decision, 10)
    assert await book.caches() == broken
    await rebuild(book.owner)
    await book.book(command)
    await book.assert_sound()


async def test_a_tail_has_the_head_and_who_was_concerned_after_an_entry(book: Book) -> None:
    await book.book(purchase(1, ANNA, earn=[100]), purchase(2, None), lane(1, 60))
    bought, held = int(journal_pb2.ENTRY_KIND_PURCHASE), int(journal_pb2.ENTRY_KIND_HOLD)
    everything = [(1, bought, ANNA), (2, bought, None), (3, held, ANNA)]
    state = await read_state(book.owner, 0, [], book.now, 10)
    for after in range(4):
        assert await read_tail(book.owner, 0, after, 10) == (state.head, everything[after:])
    assert await read_tail(book.owner, 0, 0, 2) == (state.head, everything[:2])
    with pytest.raises(LookupError, match="no book 1"):
        await read_tail(book.owner, 1, 0, 10)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param({"available_minor": -1}, "account", id="a balance below zero"),
        pytest.param({"debt_minor": -1}, "account", id="a debt below zero"),
        pytest.param({"remaining_minor": -1}, "lot", id="a lot below zero"),
    ],
)
async def test_the_database_refuses_points_that_cannot_be(book: Book, change: dict[str, int], kind: str) -> None:
    command = purchase(1, ANNA, earn=[100])
    state = await read_state(book.owner, 0, [command], book.now, 10)
    head = state.head
    decision = decide(state, [command], book.now)
    [damaged] = state.accounts.values() if kind == "account" else decision.lots.values()
    for name, value in change.items():
        setattr(damaged, name, value)
    before = await book.caches()
    with pytest.raises(asyncpg.CheckViolationError):
        await write_decision(book.owner, head, state, decision, 10)
    assert await book.caches() == before
