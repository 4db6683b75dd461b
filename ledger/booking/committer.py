"""The committer: gathers concurrent commands into one batch a book, and answers them once they are durable.

While a book's batch is committing, the next one collects: no timer, so at low load a batch is one entry, and under
load it grows by itself. Callers may wait for their book's turn before they make a command (`Committer.turn`), so that
all commands of a batch are made one after the other, just before it is decided. A batch is written optimistically:
read without locks, decide in memory, then append in one statement that does nothing if another writer appended since.
A batch that lost that race, or met a key booked at the same moment in another book, is decided again under the lock
of the book's head; for a while the book's next batches then begin under the lock.

Each book may have a preferred writer, which *owns* it: it keeps in memory what it wrote (`ledger.booking.owned`),
and then a batch is one round trip. Any other process may write the book as well; the fence sees to it that neither
errs.

What can go wrong, and what becomes of a command then:

* too many wait, or for too long: ``Overloaded``, nothing stored;
* its deadline passed before it was sent to the database: ``DeadlinePassed``, nothing stored;
* the database was lost: the batch runs again with the same keys until the command's deadline, since entries that
  were stored after all are found by their keys; then ``OutcomeUnknown``, and sending the same keys again tells;
* the database or ``decide`` refuse the data, under the lock of the book too: the batch is halved until the guilty
  command stands alone, and it alone gets ``CommandFailed``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg

from ledger.booking.owned import MAX_TAIL, NEVER_READ, OwnedBook
from ledger.booking.store import lock_head, read_state, read_tail, write_decision
from ledger.entry.decide import decide
from ledger.entry.model import Booked, BookState, Command, Decision, Outcome, Repeat, Verdict
from ledger.reading.journal import read_payloads

MAX_BATCH = 128
"""Commands in one transaction; beyond this a batch gains little and keeps the first caller waiting."""

MAX_QUEUE = 1024
"""Commands that wait for one book in one process; more are refused at once, so that waiting stays bounded."""

MAX_WAIT_SECONDS = 1.0
"""When whoever waits longest for a book's turn has waited so long, more are refused. A register waits 3 s in all, so
who would wait longer than this costs work that nobody is there for when it is done."""

STATEMENT_TIMEOUT_SECONDS = 10.0
"""A statement that takes longer counts as a lost connection."""

DEFAULT_PATIENCE_SECONDS = 10.0
"""How long a command without a deadline of its own is tried."""

CONTENDED_BATCHES = 32
"""After a lost race a book's next batches begin under its lock: two busy writers of one book lose every second race
otherwise (39 to 59 % measured, 3 % with this), and each costs a read and a decision."""

OPTIMISTIC_ATTEMPTS = 2
"""How often an owner tries without the lock: a lost race tells it what others appended, and the next try knows it."""

READ_KEYS_BATCHES = 32
"""After a key turned out to be booked already, the owner's next batches read keys first: a journal is being resent."""

_RETRY_DELAYS_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5)

_LOST_CONNECTION = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that dies in the middle of a statement can leave this behind
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
_LOST_RACE = (
    asyncpg.UniqueViolationError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)


class CommitError(Exception):
    """A command got no answer from the books."""


class Overloaded(CommitError):
    """The book's queue is full; nothing was stored."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(f"too many commands are waiting; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class DeadlinePassed(CommitError):
    """The caller's deadline passed while the command waited; nothing was stored."""


class OutcomeUnknown(CommitError):
    """The books could not be reached in time. Sending the same keys again gives the answer."""


class MemberChanged(CommitError):
    """The member has changed since the record was read with which the command was made. Make it again, and submit."""


class CommandFailed(CommitError):
    """The command cannot be booked because of a mistake in this service; nothing was stored."""


class BatchTimes(NamedTuple):
    """When a batch was where, in seconds of `time.perf_counter`."""

    begun: float
    read: float
    decided: float
    written: float


class Marks(Protocol):
    """Takes down when a command was where, for the log of slow calls."""

    def mark_at(self, step: str, at: float) -> None:
        """Note that ``step`` was over at a moment of `time.perf_counter`."""


class Observer(Protocol):
    """What the process wants to hear of the committer, for its metrics."""

    def batch(self, book: int, commands: int, waited_seconds: float, times: BatchTimes) -> None:
        """A batch was committed: its size, how long its first command had waited, and when it was where."""

    def retry(self, reason: str) -> None:
        """A batch runs again: ``race``, ``key``, ``connection`` or ``bisect``."""

    def fence(self, seconds: float) -> None:
        """A book's lock was taken; it took so long."""

    def depth(self, book: int, waiting: int) -> None:
        """A batch of a book was taken; so many callers wait for the next."""

    def known(self, commands: int, unknown: int) -> None:
        """An owner knew what some commands of a batch need, and had to read it for others."""


class Silent:
    """An observer that does not listen."""

    def batch(self, book: int, commands: int, waited_seconds: float, times: BatchTimes) -> None:
        """Ignore it."""

    def retry(self, reason: str) -> None:
        """Ignore it."""

    def fence(self, seconds: float) -> None:
        """Ignore it."""

    def depth(self, book: int, waiting: int) -> None:
        """Ignore it."""

    def known(self, commands: int, unknown: int) -> None:
        """Ignore it."""


@dataclass(slots=True)
class _Waiting:
    command: Command
    deadline: float
    answer: asyncio.Future[Outcome]
    as_of: int
    marks: Marks | None
    since: float
    tried: bool = False


class _Caller(NamedTuple):
    """Who waits for a book's turn, and makes a command then."""

    turn: asyncio.Future[None]
    deadline: float
    since: float


@dataclass(slots=True)
class _Lane:
    """One book: its queue, its connection, and the task that empties the one over the other."""

    book: int
    callers: deque[_Caller] = field(default_factory=deque)
    queue: deque[_Waiting] = field(default_factory=deque)
    conn: asyncpg.Connection | None = None
    task: asyncio.Task[None] | None = None
    owned: OwnedBook | None = None
    contended_batches: int = 0
    read_keys_batches: int = 0
    is_away: bool = False
    """Whether the database was lost, and has not answered since."""

    @property
    def waiting(self) -> int:
        """How many commands and callers wait."""
        return len(self.queue) + len(self.callers)


Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Committer:
    """Books commands durably. One in each process; any number of processes may write the same books."""

    def __init__(
        self,
        connect: Connect,
        books: int,
        clock: Callable[[], datetime],
        *,
        owned: Collection[int] = (),
        observer: Observer | None = None,
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        """Make a committer for a ledger of ``books`` books.

        ``connect`` opens a connection with the writer's rights, ``clock`` tells the time (aware). ``owned`` are the
        books of which this process is the preferred writer: it may be wrong, which costs time and nothing else.
        """
        self.books = books
        self._connect = connect
        self._clock = clock
        self._observer = Silent() if observer is None else observer
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._lanes = [_Lane(book, owned=OwnedBook(book) if book in owned else None) for book in range(books)]

    @property
    def waiting(self) -> int:
        """How many commands and callers wait for all books."""
        return sum(lane.waiting for lane in self._lanes)

    def known_number(self, book: int) -> int:
        """Return as of which entry of a book a member's record counts that is read now; see ``submit``.

        `NEVER_READ` if this process does not follow the book: then records must not be kept.
        """
        owned = self._lanes[book].owned
        return NEVER_READ if owned is None else owned.known_number

    async def turn(self, book: int, deadline: float | None = None) -> None:
        """Wait until a book takes its next batch; whoever makes a command and submits it at once is part of it.

        What is made then is made with the newest that this process knows, and one after the other, which is faster
        than as the calls come. Who waits in vain has cost nothing yet. ``deadline`` is that of `submit`.

        Raises:
            Overloaded: if too many wait already, or the first of them has waited for `MAX_WAIT_SECONDS`.
            DeadlinePassed: if the deadline passes before.
        """
        lane = self._lanes[book]
        if lane.task is None:
            return
        now = time.perf_counter()
        is_slow = bool(lane.callers) and now - lane.callers[0].since > MAX_WAIT_SECONDS and not lane.is_away
        if is_slow or lane.waiting >= self._max_queue:
            raise Overloaded(retry_after_seconds=0.5)
        loop = asyncio.get_running_loop()
        caller = _Caller(loop.create_future(), deadline or loop.time() + DEFAULT_PATIENCE_SECONDS, now)
        lane.callers.append(caller)
        await caller.turn

    async def submit(
        self, command: Command, deadline: float | None = None, *, as_of: int = NEVER_READ, marks: Marks | None = None
    ) -> Outcome:
        """Book a command; return when it is durable, or refused by name, or when there was nothing to do.

        ``deadline`` is a value of the running loop's clock. A caller who goes away meanwhile does not stop a batch
        that is under way. ``as_of`` says as of which entry (`known_number`) the member's record is that the command
        was made with, if it is one that was kept; ``marks`` are told where the time went.

        Raises:
            Overloaded, DeadlinePassed, OutcomeUnknown, CommandFailed: see the module's text.
            MemberChanged: if the member has changed since ``as_of``.
        """
        lane = self._lanes[command.book]
        if len(lane.queue) >= self._max_queue:
            raise Overloaded(retry_after_seconds=0.5)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        patience = deadline or loop.time() + DEFAULT_PATIENCE_SECONDS
        lane.queue.append(_Waiting(command, patience, answer, as_of, marks, time.perf_counter()))
        if lane.task is None:
            lane.task = loop.create_task(self._empty(lane), name=f"book {lane.book}")
        return await answer

    async def close(self) -> None:
        """Finish what is queued, then close the connections."""
        await asyncio.gather(*(lane.task for lane in self._lanes if lane.task is not None))
        for lane in self._lanes:
            if lane.conn is not None:
                await lane.conn.close(timeout=2)
                lane.conn = None

    async def _empty(self, lane: _Lane) -> None:
        """Commit batch after batch until the queue is empty."""
        try:
            while lane.waiting:
                since = self._let_in(lane)
                if since is not None:
                    await asyncio.sleep(0)  # now they make their commands, and submit them
                batch = [lane.queue.popleft() for _ in range(min(len(lane.queue), self._max_batch))]
                if batch:
                    self._observer.depth(lane.book, lane.waiting)
                    await self._settle(lane, batch, min(batch[0].since, since or batch[0].since))
        finally:
            lane.task = None

    def _let_in(self, lane: _Lane) -> float | None:
        """Give as many callers their turn as the next batch has room for; return since when the first has waited."""
        room, since, now = self._max_batch - len(lane.queue), None, asyncio.get_running_loop().time()
        while lane.callers and room > 0:
            caller = lane.callers.popleft()
            if caller.turn.done():
                continue
            if caller.deadline <= now:
                caller.turn.set_exception(DeadlinePassed("the deadline passed before anything was stored"))
                continue
            caller.turn.set_result(None)
            since, room = since or caller.since, room - 1
        return since

    async def _settle(self, lane: _Lane, batch: list[_Waiting], since: float) -> None:
        """Bring every command of a batch to its answer; its first caller came at ``since``."""
        loop = asyncio.get_running_loop()
        failures, races, under_lock = 0, 0, lane.contended_batches > 0
        lane.contended_batches = max(0, lane.contended_batches - 1)
        lane.read_keys_batches = max(0, lane.read_keys_batches - 1)
        waited_seconds = time.perf_counter() - since
        while batch := self._still_wanted(lane, batch, loop.time()):
            try:
                done = await self._attempt(lane, batch, under_lock=under_lock)
            except asyncpg.UniqueViolationError:  # a key that an owner did not look for, or that was booked just now
                self._forget(lane, batch)
                self._observer.retry("key")
                under_lock = under_lock or lane.owned is None or lane.read_keys_batches == READ_KEYS_BATCHES
                lane.read_keys_batches = READ_KEYS_BATCHES
                continue
            except _LOST_RACE:
                done = None
            except _LOST_CONNECTION:
                lane.is_away = True
                self._forget(lane, batch)
                await self._drop_connection(lane)
                self._observer.retry("connection")
                await asyncio.sleep(_RETRY_DELAYS_SECONDS[min(failures, len(_RETRY_DELAYS_SECONDS) - 1)])
                failures += 1
                continue
            except Exception as error:  # noqa: BLE001 - one guilty command must not fail the batch
                self._reset(lane)
                await self._drop_connection(lane)
                if under_lock:
                    await self._isolate(lane, batch, since, error)
                    return
                # Without the lock the statements of a read see different moments, and what they give together may
                # make no sense. Under the lock it does, or the command is at fault.
                done = None
            if done is None:
                self._forget(lane, batch)
                self._observer.retry("race")
                races += 1
                if lane.owned is None or races >= OPTIMISTIC_ATTEMPTS:
                    under_lock, lane.contended_batches = True, CONTENDED_BATCHES
                continue
            lane.is_away = False
            self._answer(lane, batch, waited_seconds, done)
            return

    def _answer(self, lane: _Lane, batch: list[_Waiting], waited_seconds: float, done: _Done) -> None:
        times = done.times
        self._observer.batch(lane.book, len(batch), waited_seconds, times)
        for waiting, outcome in zip(batch, done.outcomes, strict=True):
            if waiting.answer.done():
                continue
            if waiting.marks is not None:
                waiting.marks.mark_at("queued", times.begun)
                waiting.marks.mark_at("read", times.read)
                waiting.marks.mark_at("decided", times.decided)
                waiting.marks.mark_at("written", times.written)
            waiting.answer.set_result(outcome)

    @staticmethod
    def _forget(lane: _Lane, batch: Sequence[_Waiting]) -> None:
        if lane.owned is not None:
            lane.owned.forget(waiting.command for waiting in batch)

    @staticmethod
    def _reset(lane: _Lane) -> None:
        if lane.owned is not None:
            lane.owned.reset()

    async def _isolate(self, lane: _Lane, batch: list[_Waiting], since: float, error: Exception) -> None:
        """Halve a batch that cannot be booked, so that only the guilty command fails."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                failure = CommandFailed(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                batch[0].answer.set_exception(failure)
            return
        self._observer.retry("bisect")
        middle = len(batch) // 2
        await self._settle(lane, batch[:middle], since)
        await self._settle(lane, batch[middle:], since)

    @staticmethod
    def _still_wanted(lane: _Lane, batch: list[_Waiting], now: float) -> list[_Waiting]:
        """Drop commands that nobody waits for, whose time is over, or whose member has changed."""
        owned = lane.owned
        wanted = []
        for waiting in batch:
            if waiting.answer.done() and not waiting.tried:
                continue
            error: CommitError | None = None
            if waiting.deadline <= now:
                error = OutcomeUnknown("the books could not be reached in time; send the same keys again")
                if not waiting.tried:
                    error = DeadlinePassed("the deadline passed before anything was stored")
            elif waiting.as_of != NEVER_READ and (owned is None or owned.stale(waiting.command, waiting.as_of)):
                error = MemberChanged("the member has changed since the record was read")
            if error is None:
                wanted.append(waiting)
            elif not waiting.answer.done():
                waiting.answer.set_exception(error)
        return wanted

    async def _attempt(self, lane: _Lane, batch: Sequence[_Waiting], *, under_lock: bool) -> _Done | None:
        """Read, decide and write once; None if another writer came first."""
        if lane.conn is None or lane.conn.is_closed():
            lane.conn = await asyncio.wait_for(self._connect(), STATEMENT_TIMEOUT_SECONDS)
        begun = time.perf_counter()
        for waiting in batch:
            waiting.tried = True
        commands = [waiting.command for waiting in batch]
        if not under_lock:
            work = await self._decide_and_write(lane, lane.conn, commands, read_all=lane.read_keys_batches > 0)
        else:
            async with lane.conn.transaction():
                await lock_head(lane.conn, lane.book, STATEMENT_TIMEOUT_SECONDS)
                self._observer.fence(time.perf_counter() - begun)
                work = await self._decide_and_write(lane, lane.conn, commands, read_all=True)
        if work is None:
            return None
        if lane.owned is not None and work.decision.entries:  # now it is durable, under the lock as well
            lane.owned.absorb(work.state, work.decision, commands)
        outcomes = await _outcomes(lane.conn, work.decision.verdicts)
        return _Done(outcomes, BatchTimes(begun, work.read_at, work.decided_at, time.perf_counter()))

    async def _decide_and_write(
        self, lane: _Lane, conn: asyncpg.Connection, commands: Sequence[Command], *, read_all: bool
    ) -> _Work | None:
        now = self._clock()
        state = await self._state(lane, conn, commands, now, read_all=read_all)
        if state is None:
            return None
        read_at, head = time.perf_counter(), state.head
        decision = decide(state, commands, now)
        decided_at = time.perf_counter()
        if decision.entries and not await write_decision(conn, head, state, decision, STATEMENT_TIMEOUT_SECONDS):
            if lane.owned is not None:
                await self._catch_up(lane.owned, conn)
            return None
        return _Work(state, decision, read_at, decided_at)

    async def _state(
        self, lane: _Lane, conn: asyncpg.Connection, commands: Sequence[Command], now: datetime, *, read_all: bool
    ) -> BookState | None:
        """Return what a batch must know; None if the book has moved on from what its owner knew."""
        owned = lane.owned
        if owned is None:
            return await read_state(conn, lane.book, commands, now, STATEMENT_TIMEOUT_SECONDS)
        unknown = commands if read_all else owned.unknown(commands, now)
        self._observer.known(len(commands), len(unknown))
        if not unknown and owned.head is not None:
            state = BookState(lane.book, owned.head)
        else:
            state = await read_state(conn, lane.book, unknown, now, STATEMENT_TIMEOUT_SECONDS)
            if owned.head is None:
                owned.begin(state.head)
            elif owned.head.number != state.head.number:
                await self._catch_up(owned, conn)
                return None
        owned.complete(state, commands, unknown)
        return state

    @staticmethod
    async def _catch_up(owned: OwnedBook, conn: asyncpg.Connection) -> None:
        """Follow what others appended."""
        if owned.head is not None:
            head, tail = await read_tail(conn, owned.book, owned.head.number, MAX_TAIL, STATEMENT_TIMEOUT_SECONDS)
            owned.follow(head, tail)

    @staticmethod
    async def _drop_connection(lane: _Lane) -> None:
        if lane.conn is not None:
            lane.conn.terminate()
            lane.conn = None


class _Work(NamedTuple):
    """A batch that was decided and written, though perhaps not committed yet."""

    state: BookState
    decision: Decision
    read_at: float
    decided_at: float


class _Done(NamedTuple):
    """What became of a batch, and when."""

    outcomes: list[Outcome]
    times: BatchTimes


async def _outcomes(conn: asyncpg.Connection, verdicts: Sequence[Verdict]) -> list[Outcome]:
    """Give each repeat the answer that its entry stores."""
    fresh = {(v.book, v.number): v for v in verdicts if isinstance(v, Booked)}
    repeats = {(v.book, v.number) for v in verdicts if isinstance(v, Repeat)}
    stored = await read_payloads(conn, sorted(repeats - fresh.keys()), STATEMENT_TIMEOUT_SECONDS)
    known = fresh | stored
    outcomes: list[Outcome] = []
    for verdict in verdicts:
        if isinstance(verdict, Repeat):
            outcomes.append(known[(verdict.book, verdict.number)]._replace(repeated=True))
        else:
            outcomes.append(verdict)
    return outcomes
