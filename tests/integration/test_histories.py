"""One history, booked in many ways: it ends alike through any number of writers and in batches of any size.

A history is made from its seed before anything is booked: phases, between which time passes, and in each of them
lanes, which go on at once. A lane is one member or two, and their steps stand in their order. Whatever depends on the
books (which purchase comes back, what a transfer moves) is named by the member's own order, never by entry numbers.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import asyncpg
import pytest
from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.booking.committer import BatchTimes, Committer, Silent
from ledger.booking.opening import ensure_unit, open_books
from ledger.booking.transfer import TransferOrder, transfer_everything, transfer_points
from ledger.caches.tables import CACHE_TABLES, Row
from ledger.entry.keys import business_key
from ledger.entry.model import (
    ADJUSTED,
    AVAILABLE,
    CLEARING,
    DEBT,
    EXPIRED,
    HELD,
    ISSUED,
    PENDING,
    REDEEMED,
    Account,
    Booked,
    Command,
    Declined,
    Grant,
    Head,
    LotTerms,
    Outcome,
    Purchase,
    Repeat,
    Spend,
    Verdict,
)
from ledger.reading.journal import read_entries, read_heads
from ledger.reading.lookups import read_receipts
from ledger.rebuild import rebuild
from ledger.verify import verify
from server.base.storage import LEDGER_MIGRATIONS
from tests.support import commands
from tests.support.commands import BONUS, NOON, Line, member
from tests.support.database import DatabaseFactory
from tests.support.memory_book import MemoryBook

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MEMBERS = 12
PHASES = 8
STEPS_OF_A_MEMBER = 6
BOOKS = 2
SEEDS = (1, 2)

# No two moments of a history are equal but for the few microseconds by which entries are booked apart: phases are
# minutes and 7 seconds apart, and everything that they plan is due 30 seconds after a whole minute of theirs.
PAUSES = tuple(timedelta(minutes=minutes, seconds=7) for minutes in (1, 13, 55, 600, 1441, 4000))
TIMES_TO_LIVE = (5 * 60 + 30, 90 * 60 + 30, 48 * 3600 + 30)


# --- what is to happen --------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Something that a member does; ``details`` are the arguments of the method of ``Teller`` of that name."""

    what: str
    who: int
    details: tuple[Any, ...]


class Phase(NamedTuple):
    """What happens at one moment, lane by lane."""

    now: datetime
    lanes: list[list[Step]]


def make_history(seed: int) -> list[Phase]:
    """Plan a history of all that can happen to points."""
    dice = random.Random(seed)
    phases, now = [], NOON
    for _ in range(PHASES):
        shoppers = list(range(MEMBERS))
        dice.shuffle(shoppers)
        lanes = []
        while shoppers:
            of_lane = [shoppers.pop() for _ in range(min(len(shoppers), dice.choice((1, 1, 2))))]
            lanes.append([_plan(dice, of_lane, now) for _ in range(STEPS_OF_A_MEMBER * len(of_lane))])
        strangers = [Step("buy", -1, ([Line(2000, 900)], (), None, None)) for _ in range(3)]
        lanes.append([*strangers, Step("bring_back", -1, (dice.random(), ((1, 1000),), 1, 0))])
        phases.append(Phase(now, lanes))
        now += dice.choice(PAUSES)
    return phases


def _plan(dice: random.Random, of_lane: list[int], now: datetime) -> Step:
    who = dice.choice(of_lane)
    what = dice.choice(
        (*["buy"] * 6, *["hold"] * 4, "cancel", *["bring_back"] * 3, "correct", "sweep", "say_again", "send")
    )
    register = dice.randint(1, 3)
    details: tuple[Any, ...] = ()
    if what == "buy":
        lines = [
            Line(1000 * dice.randint(1, 3), amount, amount // 10)
            for amount in (dice.randint(10, 900) for _ in range(dice.randint(1, 3)))
        ]
        price = sum(line.amount_minor for line in lines)
        earned = sum(line.earned_minor for line in lines)
        first = dice.randint(1, earned)
        earn = tuple(_grant(dice, points, now) for points in (first, earned - first) if points)
        spend = dice.choice((None, Spend(dice.randint(1, price), dice.choice((1, 10)), 1, 1)))
        details = (lines, earn, spend, dice.choice((None, register)))
    elif what == "hold":
        takeover = dice.choice(("", "", "broken"))
        details = (register, dice.choice((0, 5, 40, 100, 300)), dice.choice(TIMES_TO_LIVE), takeover)
    elif what == "cancel":
        details = (register,)
    elif what == "bring_back":
        asked = tuple((line, 1000) for line in range(1, dice.randint(1, 3)))
        details = (dice.random(), asked, dice.choice((1, 2, 3)), dice.choice((0, 0, 3)))
    elif what == "correct":
        details = (dice.choice((-50, -7, _grant(dice, dice.randint(1, 500), now))),)
    elif what == "send":
        others = [other for other in of_lane if other != who]
        if not others:
            return Step("sweep", who, ())
        details = (others[0], dice.choice((1, 20, 60, None)), uuid.UUID(int=dice.getrandbits(128), version=4))
    return Step(what, who, details)


def _grant(dice: random.Random, points_minor: int, now: datetime) -> Grant:
    def due(*minutes: int | None) -> datetime | None:
        chosen = dice.choice(minutes)
        return None if chosen is None else now + timedelta(minutes=chosen, seconds=30)

    return Grant(points_minor, due(None, None, None, -5, 20, 2000), due(None, None, -3, 50, 1500, 9000))


# --- who does it --------------------------------------------------------------------------------------------------


class Books(Protocol):
    """What a history is booked in."""

    def at(self, now: datetime) -> None:
        """Set the time."""

    async def submit(self, batch: Sequence[Command]) -> Sequence[Outcome]:
        """Book commands at once, in order."""

    async def terms(self, bought: Booked) -> dict[tuple[int, int], LotTerms]:
        """Return the terms of the lots that a purchase spent from."""

    async def move(self, order: TransferOrder, points_minor: int | None) -> object:
        """Move points between members; return what is the same however they are booked."""


@dataclass
class Teller:
    """Does the steps of a history in order, and notes what each was answered."""

    books: Books
    count: int
    numbers: Iterator[int]
    answers: list[object] = field(default_factory=list)
    bought: list[Booked] = field(default_factory=list)
    waiting: list[Command] = field(default_factory=list)
    last: Command | None = None

    async def do(self, steps: Sequence[Step]) -> None:
        """Do the steps of one lane; what needs no earlier answer is sent together."""
        for step in steps:
            number = next(self.numbers)
            if step.what == "send":
                await self._flush()
                await self._send(step)
            elif step.what == "bring_back":
                await self._flush()
                await self._bring_back(step, number)
            else:
                self._queue(step, number)
        await self._flush()

    def _queue(self, step: Step, number: int) -> None:
        who, books = member(step.who), self.count
        command: Command | None = None
        if step.what == "buy":
            lines, earn, spend, register = step.details
            shopper = who if step.who >= 0 else None
            captures = self._checkout(step, register) if register else None
            command = commands.purchase(
                number, shopper, books=books, lines=lines, earn=earn, spend=spend, captures=captures
            )
        elif step.what == "hold":
            register, points, ttl, takeover = step.details
            key, message = self._checkout(step, register), f"hold {number}"
            command = commands.hold(key, who, points, books=books, ttl_seconds=ttl, takeover=takeover, message=message)
        elif step.what == "cancel":
            key = self._checkout(step, step.details[0])
            command = commands.cancel(key, who, books=books, message=f"cancel {number}")
        elif step.what == "correct":
            command = commands.adjust(str(number), who, step.details[0], books=books)
        elif step.what == "sweep":
            command = commands.pass_time(who, books=books)
        elif step.what == "say_again":
            command = self.last
        if command is not None:
            self.last = command
            self.waiting.append(command)

    async def _flush(self) -> None:
        batch, self.waiting = self.waiting, []
        for command, outcome in zip(batch, await self.books.submit(batch), strict=True):
            self._note(outcome)
            if isinstance(command, Purchase) and isinstance(outcome, Booked) and not outcome.repeated:
                self.bought.append(outcome)

    async def _bring_back(self, step: Step, number: int) -> None:
        if not self.bought:
            return
        pick, asked, clawback, grace_days = step.details
        bought = self.bought[int(pick * len(self.bought))]
        terms = await self.books.terms(bought)
        self.waiting.append(
            commands.goods_return(number, bought, asked, terms=terms, clawback=clawback, grace_days=grace_days)
        )
        await self._flush()

    async def _send(self, step: Step) -> None:
        receiver, points_minor, transfer_id = step.details
        order = TransferOrder(transfer_id, member(step.who), member(receiver), "merge", "")
        self.answers.append(await self.books.move(order, points_minor))

    @staticmethod
    def _checkout(step: Step, register: int) -> checkout_pb2.CheckoutKey:
        return commands.checkout(f"{step.who}-{register}", str(register))

    def _note(self, outcome: Outcome) -> None:
        """Keep what does not depend on entry numbers, nor on microseconds."""
        if isinstance(outcome, Booked):
            settlement = journal_pb2.Event.FromString(outcome.event).settlement
            self.answers.append((outcome.repeated, settlement.SerializeToString(deterministic=True)))
        else:
            self.answers.append(outcome.reason if isinstance(outcome, Declined) else "unchanged")


async def play(history: list[Phase], books: Books, count: int, *, at_once: bool) -> list[object]:
    """Book a history in ``count`` books, its lanes at once or one after the other; return all answers, by lane."""
    answers: list[object] = []
    bought: dict[int, list[Booked]] = {}
    for index, phase in enumerate(history):
        books.at(phase.now)
        tellers = []
        for lane, steps in enumerate(phase.lanes):
            first = 1_000_000 * (index + 1) + 1_000 * lane
            owners = {step.who for step in steps}
            known = [one for who in sorted(owners) for one in bought.get(who, [])]
            tellers.append(Teller(books, count, iter(range(first, first + 1_000)), bought=known))
        doings = [teller.do(steps) for teller, steps in zip(tellers, phase.lanes, strict=True)]
        if at_once:
            await asyncio.gather(*doings)
        else:
            for doing in doings:
                await doing
        for teller, steps in zip(tellers, phase.lanes, strict=True):
            _remember(bought, teller.bought, {step.who for step in steps})
        answers.append([teller.answers for teller in tellers])
    return answers


def _remember(bought: dict[int, list[Booked]], now_bought: list[Booked], owners: set[int]) -> None:
    """Keep each member's purchases in their own order."""
    for who in owners:
        mine = str(member(who)) if who >= 0 else ""
        bought[who] = [
            each for each in now_bought if journal_pb2.Event.FromString(each.event).purchase.member_id == mine
        ]


# --- where it is booked -------------------------------------------------------------------------------------------


class Races(Silent):
    """Counts lost races, and the commands of the largest batch."""

    def __init__(self) -> None:
        self.lost = 0
        self.largest = 0

    def batch(self, book: int, commands: int, waited_seconds: float, times: BatchTimes) -> None:
        self.largest = max(self.largest, commands)

    def retry(self, reason: str) -> None:
        assert reason in {"race", "key"}
        self.lost += reason == "race"


class Database:
    """Books in PostgreSQL, written by several committers; the commands of a lane go through one after the other."""

    def __init__(self, dsn: str, conn: Connection, count: int, writers: int, max_batch: int, *, owners: int) -> None:
        self.conn = conn
        self.count = count
        self.now = NOON
        self.races = Races()
        self._moving = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._dice = random.Random(writers)
        self._dsn = dsn
        self.writers = [
            Committer(
                self._connect,
                count,
                lambda: self.now,
                owned=range(count) if number < owners else (),
                observer=self.races,
                max_batch=max_batch,
            )
            for number in range(writers)
        ]

    async def _connect(self) -> Connection:
        return await asyncpg.connect(self._dsn, server_settings={"role": "tallypoint_writer"})

    def at(self, now: datetime) -> None:
        self.now = now

    async def submit(self, batch: Sequence[Command]) -> list[Outcome]:
        writer, deadline = self._dice.choice(self.writers), asyncio.get_running_loop().time() + 120
        return await asyncio.gather(*(writer.submit(command, deadline) for command in batch))

    async def terms(self, bought: Booked) -> dict[tuple[int, int], LotTerms]:
        key = business_key(journal_pb2.Event.FromString(bought.event).purchase.receipt_key)
        async with self._reading:
            return (await read_receipts(self.conn, [key]))[key].lots

    async def move(self, order: TransferOrder, points_minor: int | None) -> object:
        async with self._moving:
            conn = await self._connect()
            try:
                async with conn.transaction():
                    if points_minor is not None:
                        moved = await transfer_points(conn, self.count, order, BONUS, points_minor, self.now)
                        return moved.reason if isinstance(moved, Declined) else moved[1:4]
                    return [each[1:4] for each in await transfer_everything(conn, self.count, order, self.now)]
            finally:
                await conn.close()


class Memory:
    """The only book of a ledger without a database."""

    def __init__(self, genesis: Head) -> None:
        self.book = MemoryBook()
        self.book.head = genesis
        self.now = NOON

    def at(self, now: datetime) -> None:
        self.now = now

    async def submit(self, batch: Sequence[Command]) -> list[Outcome]:
        return [self._outcome(verdict) for verdict in self.book.commit(batch, self.now).verdicts] if batch else []

    def _outcome(self, verdict: Verdict) -> Outcome:
        if not isinstance(verdict, Repeat):
            return verdict
        entry = self.book.entries[verdict.number - 1]
        return Booked(0, entry.number, entry.booked_at, entry.payload, repeated=True)

    async def terms(self, bought: Booked) -> dict[tuple[int, int], LotTerms]:
        return self.book.terms

    async def move(self, order: TransferOrder, points_minor: int | None) -> object:
        account = self.book.caches.accounts.get((order.sender, BONUS.number), Account())
        has_any = account.available_minor or account.pending_minor or account.held_minor or account.debt_minor
        if points_minor is None and not has_any:
            return []
        transfer_id = order.transfer_id if points_minor else uuid.uuid5(order.transfer_id, BONUS.code)
        between = (str(transfer_id), order.sender, order.receiver)
        (left,) = self.book.commit([commands.transfer_out(*between, points_minor)], self.now).verdicts
        if isinstance(left, Declined):
            return left.reason
        assert isinstance(left, Booked)
        sent = [p for p in journal_pb2.Event.FromString(left.event).postings if CLEARING in (p.debit, p.credit)]
        grants = []
        for posting in [p for p in sent if p.credit == CLEARING]:
            terms = self.book.terms[(posting.lot_number or left.number, posting.lot_ordinal)]
            grants.append(Grant(posting.points_minor, terms.active_at, terms.expires_at, terms.issued_at))
        debt_minor = sum(p.points_minor for p in sent if p.credit == DEBT)
        if sent:
            self.book.commit([commands.transfer_in(*between, grants, debt_minor)], self.now)
        moved = (
            sum(p.points_minor for p in sent if p.debit == AVAILABLE),
            sum(p.points_minor for p in sent if p.debit == PENDING),
            debt_minor,
        )
        return moved if points_minor else [moved]


# --- how it ended -------------------------------------------------------------------------------------------------


@dataclass
class Outcomes:
    """What a history left behind, without entry numbers and microseconds."""

    answers: list[object]
    balances: list[Row]
    lots: dict[uuid.UUID, list[Row]]
    holds: dict[uuid.UUID, list[Row]]
    returned: dict[bytes, bytes]
    totals: list[Row]


def _row(row: Iterable[Any]) -> Row:
    return tuple(value.replace(microsecond=0) if isinstance(value, datetime) else value for value in row)


async def read_outcomes(conn: Connection, answers: list[object]) -> Outcomes:
    """Read how a history ended from the caches."""
    lots: dict[uuid.UUID, list[Row]] = {}
    places: dict[tuple[int, int, int], int] = {}
    for book, number, ordinal, who, *lot in await conn.fetch(
        "SELECT book, number, ordinal, member_id, unit, pending, granted_minor, remaining_minor, held_minor, "
        "active_at, expires_at FROM ledger.lot ORDER BY book, number, ordinal"
    ):
        mine = lots.setdefault(who, [])
        places[(book, number, ordinal)] = len(mine)
        mine.append(_row(lot))
    parts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for book, hold_number, lot_number, lot_ordinal, points in await conn.fetch(
        "SELECT book, hold_number, lot_number, lot_ordinal, points_minor FROM ledger.hold_part ORDER BY book, ordinal"
    ):
        parts.setdefault((book, hold_number), []).append((places[(book, lot_number, lot_ordinal)], points))
    holds: dict[uuid.UUID, list[Row]] = {}
    for book, number, who, *hold in await conn.fetch(
        "SELECT book, number, member_id, unit, checkout_key, store_id, terminal_id, points_minor, held_at, expires_at, "
        "how FROM ledger.hold ORDER BY book, number"
    ):
        holds.setdefault(who, []).append((*_row(hold), tuple(parts.get((book, number), ()))))
    returned = {
        key: journal_pb2.Event.FromString(payload).goods_return.so_far.SerializeToString(deterministic=True)
        for key, payload in await conn.fetch(
            "SELECT p.business_key, e.payload FROM ledger.purchase_return r "
            "JOIN ledger.entry p ON p.book = r.book AND p.number = r.purchase_number "
            "JOIN ledger.entry e ON e.book = r.book AND e.number = r.last_number"
        )
    }
    balances = await conn.fetch(
        "SELECT member_id, unit, available_minor, pending_minor, held_minor, debt_minor, next_change_at "
        "FROM ledger.balance ORDER BY member_id, unit"
    )
    totals = await conn.fetch(
        "SELECT booked_on, unit, account, sum(debit_minor), sum(credit_minor) FROM ledger.account_total "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return Outcomes(answers, [_row(b) for b in balances], lots, holds, returned, [tuple(total) for total in totals])


async def assert_sound(conn: Connection) -> None:
    """Everything verifies, and adding the journal up gives the caches that were kept."""
    assert [report.problem for report in await verify(conn) if report.problem] == []
    names = [table.name for table in CACHE_TABLES]
    kept = {name: sorted(map(repr, await conn.fetch(f"SELECT * FROM ledger.{name}"))) for name in names}
    await rebuild(conn)
    assert kept == {name: sorted(map(repr, await conn.fetch(f"SELECT * FROM ledger.{name}"))) for name in names}


@asynccontextmanager
async def opened(
    databases: DatabaseFactory, count: int, writers: int, max_batch: int, *, owners: int = 0
) -> AsyncIterator[Database]:
    """Open a fresh ledger."""
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        conn = await asyncpg.connect(dsn)
        await open_books(conn, count)
        await ensure_unit(conn, BONUS.code, BONUS.precision)
        books = Database(dsn, conn, count, writers, max_batch, owners=owners)
        try:
            yield books
        finally:
            await asyncio.gather(*(writer.close() for writer in books.writers))
            await conn.close()


async def booked(
    databases: DatabaseFactory, seed: int, *, writers: int, max_batch: int, owners: int = 0
) -> tuple[Outcomes, Races]:
    """Book the history of a seed; return how it ended, which must be sound."""
    async with opened(databases, BOOKS, writers, max_batch, owners=owners) as books:
        answers = await play(make_history(seed), books, BOOKS, at_once=True)
        outcomes = await read_outcomes(books.conn, answers)
        await assert_sound(books.conn)
        return outcomes, books.races


@pytest.fixture(scope="module", params=SEEDS, ids="seed {}".format)
def one_by_one(request: pytest.FixtureRequest, databases: DatabaseFactory) -> tuple[int, Outcomes]:
    """A seed, and how its history ends when one writer books each command by itself."""
    with ThreadPoolExecutor(1) as pool:
        outcomes, _ = pool.submit(asyncio.run, booked(databases, request.param, writers=1, max_batch=1)).result()
    return request.param, outcomes


def test_everything_happens_in_these_histories(one_by_one: tuple[int, Outcomes]) -> None:
    _, outcomes = one_by_one
    kinds = {account for _, _, account, _, _ in outcomes.totals}
    assert kinds == {AVAILABLE, PENDING, HELD, DEBT, ISSUED, REDEEMED, EXPIRED, ADJUSTED, CLEARING}
    ends = {hold[-2] for holds in outcomes.holds.values() for hold in holds}
    assert ends >= {None, *(int(how) for how in journal_pb2.HoldEndKind.values() if how)}
    assert len(outcomes.returned) > MEMBERS


@pytest.mark.parametrize(
    ("writers", "max_batch", "owners"),
    [
        pytest.param(1, 2, 0, id="batches of 2"),
        pytest.param(1, 7, 1, id="batches of 7 by an owner"),
        pytest.param(1, 512, 0, id="batches of 512"),
        pytest.param(1, 512, 1, id="batches of 512 by an owner"),
        pytest.param(2, 512, 1, id="an owner and another writer"),
        pytest.param(8, 7, 0, id="8 writers"),
        pytest.param(8, 7, 8, id="8 who believe to be owners"),
    ],
)
async def test_a_history_ends_alike_however_it_is_booked(
    databases: DatabaseFactory, one_by_one: tuple[int, Outcomes], writers: int, max_batch: int, owners: int
) -> None:
    seed, wanted = one_by_one
    outcomes, races = await booked(databases, seed, writers=writers, max_batch=max_batch, owners=owners)
    for name in vars(wanted):
        assert vars(outcomes)[name] == vars(wanted)[name], f"{name} of seed {seed}"
    assert races.largest > min(max_batch, 10) // 2, "the batches were not as large as this test is about"
    assert races.lost or writers == 1, "the writers did not meet"


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_database_books_what_the_pure_functions_decide(databases: DatabaseFactory, seed: int) -> None:
    async with opened(databases, 1, writers=1, max_batch=512) as books:
        memory = Memory((await read_heads(books.conn))[0])
        wanted = await play(make_history(seed), memory, 1, at_once=False)
        assert await play(make_history(seed), books, 1, at_once=False) == wanted
        entries = await read_entries(books.conn, 0, 0, 100_000)
        assert len(entries) == len(memory.book.entries) > 300
        for entry, decided in zip(entries, memory.book.entries, strict=True):
            assert (entry.number, entry.kind, entry.booked_at) == (decided.number, decided.kind, decided.booked_at)
            assert entry.payload == decided.payload
        await assert_sound(books.conn)
