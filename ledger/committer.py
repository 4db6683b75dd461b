"""The committer: gathers concurrent commands into one batch a book, and answers them once they are durable.

While a book's batch is committing, the next one collects: no timer, so at low load a batch is one entry, and under
load it grows by itself. A batch is written optimistically: read without locks, decide in memory, then append in one
statement that does nothing if another writer appended since. A batch that lost that race, or met a key booked at the
same moment in another book, is decided again under the lock of the book's head; for a while the book's next batches
then begin under the lock.

What can go wrong, and what becomes of a command then:

* the queue is full: ``Overloaded``, nothing stored;
* its deadline passed before it was sent to the database: ``DeadlinePassed``, nothing stored;
* the database was lost: the batch runs again with the same keys until the command's deadline, since entries that
  were stored after all are found by their keys; then ``OutcomeUnknown``, and sending the same keys again settles it;
* the database or ``decide`` refuse the data, under the lock of the book too: the batch is halved until the guilty
  command stands alone, and it alone gets ``CommandFailed``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import asyncpg

from ledger.decide import decide
from ledger.journal import read_payloads
from ledger.model import Booked, Command, Outcome, Repeat, Verdict
from ledger.store import lock_head, read_state, write_decision

MAX_BATCH = 128
"""Commands in one transaction; beyond this a batch gains little and keeps the first caller waiting."""

MAX_QUEUE = 1024
"""Commands that wait for one book in one process; more are refused at once, so that waiting stays bounded."""

STATEMENT_TIMEOUT_SECONDS = 10.0
"""A statement that takes longer counts as a lost connection."""

DEFAULT_PATIENCE_SECONDS = 10.0
"""How long a command without a deadline of its own is tried."""

CONTENDED_BATCHES = 32
"""After a lost race a book's next batches begin under its lock: two busy writers of one book lose every second race
otherwise (39 to 59 % measured, 3 % with this), and each costs a read and a decision."""

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


class CommandFailed(CommitError):
    """The command cannot be booked because of a mistake in this service; nothing was stored."""


class Observer(Protocol):
    """What the process wants to hear of the committer, for its metrics."""

    def batch(self, book: int, commands: int, seconds: float) -> None:
        """A batch was committed: its size, and the time from its start to its durability."""

    def retry(self, reason: str) -> None:
        """A batch runs again: ``race``, ``connection`` or ``bisect``."""


class Silent:
    """An observer that does not listen."""

    def batch(self, book: int, commands: int, seconds: float) -> None:
        """Ignore it."""

    def retry(self, reason: str) -> None:
        """Ignore it."""


@dataclass(slots=True)
class _Waiting:
    command: Command
    deadline: float
    answer: asyncio.Future[Outcome]
    tried: bool = False


@dataclass(slots=True)
class _Lane:
    """One book: its queue, its connection, and the task that empties the one over the other."""

    book: int
    queue: deque[_Waiting] = field(default_factory=deque)
    conn: asyncpg.Connection | None = None
    task: asyncio.Task[None] | None = None
    contended_batches: int = 0


Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Committer:
    """Books commands durably. One in each process; any number of processes may write the same books."""

    def __init__(
        self,
        connect: Connect,
        books: int,
        clock: Callable[[], datetime],
        *,
        observer: Observer | None = None,
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        """Make a committer for a ledger of ``books`` books.

        ``connect`` opens a connection with the writer's rights, ``clock`` tells the time (aware).
        """
        self.books = books
        self._connect = connect
        self._clock = clock
        self._observer = Silent() if observer is None else observer
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._lanes = [_Lane(book) for book in range(books)]

    @property
    def waiting(self) -> int:
        """How many commands wait in all queues."""
        return sum(len(lane.queue) for lane in self._lanes)

    async def submit(self, command: Command, deadline: float | None = None) -> Outcome:
        """Book a command; return when it is durable, or refused by name, or when there was nothing to do.

        ``deadline`` is a value of the running loop's clock. A caller who goes away meanwhile does not stop a batch
        that is under way.

        Raises:
            Overloaded, DeadlinePassed, OutcomeUnknown, CommandFailed: see the module's text.
        """
        lane = self._lanes[command.book]
        if len(lane.queue) >= self._max_queue:
            raise Overloaded(retry_after_seconds=0.5)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(command, deadline or loop.time() + DEFAULT_PATIENCE_SECONDS, loop.create_future())
        lane.queue.append(waiting)
        if lane.task is None:
            lane.task = loop.create_task(self._empty(lane), name=f"book {lane.book}")
        return await waiting.answer

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
            while lane.queue:
                batch = [lane.queue.popleft() for _ in range(min(len(lane.queue), self._max_batch))]
                await self._settle(lane, batch)
        finally:
            lane.task = None

    async def _settle(self, lane: _Lane, batch: list[_Waiting]) -> None:
        """Bring every command of a batch to its answer."""
        loop = asyncio.get_running_loop()
        failures, under_lock = 0, lane.contended_batches > 0
        lane.contended_batches = max(0, lane.contended_batches - 1)
        while batch := self._still_wanted(batch, loop.time()):
            started = loop.time()
            try:
                outcomes = await self._attempt(lane, batch, under_lock=under_lock)
            except _LOST_RACE:
                outcomes = None
            except _LOST_CONNECTION:
                await self._drop_connection(lane)
                self._observer.retry("connection")
                await asyncio.sleep(_RETRY_DELAYS_SECONDS[min(failures, len(_RETRY_DELAYS_SECONDS) - 1)])
                failures += 1
                continue
            except Exception as error:  # noqa: BLE001 - one guilty command must not fail the batch
                await self._drop_connection(lane)
                if under_lock:
                    await self._isolate(lane, batch, error)
                    return
                # Without the lock the statements of a read see different moments, and what they give together may
                # make no sense. Under the lock it does, or the command is at fault.
                outcomes = None
            if outcomes is None:
                self._observer.retry("race")
                under_lock, lane.contended_batches = True, CONTENDED_BATCHES
                continue
            self._observer.batch(lane.book, len(batch), loop.time() - started)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(outcome)
            return

    async def _isolate(self, lane: _Lane, batch: list[_Waiting], error: Exception) -> None:
        """Halve a batch that cannot be booked, so that only the guilty command fails."""
        if len(batch) == 1:
            if not batch[0].answer.done():
                failure = CommandFailed(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                batch[0].answer.set_exception(failure)
            return
        self._observer.retry("bisect")
        middle = len(batch) // 2
        await self._settle(lane, batch[:middle])
        await self._settle(lane, batch[middle:])

    @staticmethod
    def _still_wanted(batch: list[_Waiting], now: float) -> list[_Waiting]:
        """Drop commands that nobody waits for, or whose time is over."""
        wanted = []
        for waiting in batch:
            if waiting.answer.done() and not waiting.tried:
                continue
            if waiting.deadline <= now:
                error: CommitError = OutcomeUnknown("the books could not be reached in time; send the same keys again")
                if not waiting.tried:
                    error = DeadlinePassed("the deadline passed before anything was stored")
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
                continue
            wanted.append(waiting)
        return wanted

    async def _attempt(self, lane: _Lane, batch: Sequence[_Waiting], *, under_lock: bool) -> list[Outcome] | None:
        """Read, decide and write once; None if another writer came first."""
        if lane.conn is None or lane.conn.is_closed():
            lane.conn = await asyncio.wait_for(self._connect(), STATEMENT_TIMEOUT_SECONDS)
        for waiting in batch:
            waiting.tried = True
        commands = [waiting.command for waiting in batch]
        if not under_lock:
            verdicts = await self._decide_and_write(lane.conn, lane.book, commands)
        else:
            async with lane.conn.transaction():
                await lock_head(lane.conn, lane.book, STATEMENT_TIMEOUT_SECONDS)
                verdicts = await self._decide_and_write(lane.conn, lane.book, commands)
        return None if verdicts is None else await _outcomes(lane.conn, verdicts)

    async def _decide_and_write(
        self, conn: asyncpg.Connection, book: int, commands: Sequence[Command]
    ) -> list[Verdict] | None:
        now = self._clock()
        state = await read_state(conn, book, commands, now, STATEMENT_TIMEOUT_SECONDS)
        head = state.head
        decision = decide(state, commands, now)
        if decision.entries and not await write_decision(conn, head, state, decision, STATEMENT_TIMEOUT_SECONDS):
            return None
        return decision.verdicts

    @staticmethod
    async def _drop_connection(lane: _Lane) -> None:
        if lane.conn is not None:
            lane.conn.terminate()
            lane.conn = None


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
