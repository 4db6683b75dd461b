"""The sweeper: books what time has done to the points of members who do not buy.

Reads are right without it (``ledger.reading.balances`` passes time on what it reads); it is there so that the books,
the reports and the CRM database say so too. What is due is a question to the balances, so there is no state to lose:

* killed in the middle, it goes on where it was: what is booked is no longer due;
* several of them, or a till that is faster, do no harm: a member for whom nothing is due gets no entry;
* the database is lost: what was not booked is still due, and it comes again.

The same process forgets message ids that are too old to be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog
from tallypoint.v1 import journal_pb2

from ledger.booking.committer import CommandFailed, Committer
from ledger.booking.retention import first_kept, forget_holds, forget_message_ids
from ledger.entry.keys import content_hash
from ledger.entry.model import Booked, PassTime
from ledger.reading.balances import count_due, read_due_members
from ledger.reading.journal import read_heads
from server.base.clock import Clock, pause, utc_now
from server.base.storage import Connect, writer_connect
from server.measuring import metrics
from server.measuring.logs import describe_error
from server.members.registry import forget_messages
from server.process.child import ChildTask

if TYPE_CHECKING:
    from server.base.database import Connection

PAGE_MEMBERS: Final = 10_000
"""Members read at once: a month's end lets a million lots lapse at one moment."""
CONCURRENT: Final = 128
"""Members booked at once: one batch of the committer, so that tills wait for one batch at the most."""
PRUNE_INTERVAL_SECONDS: Final = 3600.0
ADMIN_PIECE: Final = 5000
RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
"""Pauses after a failure; no longer than the interval."""

_log = structlog.get_logger("tallypoint.sweeper")


@dataclass(slots=True)
class Swept:
    """What one run did: entries booked, members for whom nothing was due any more, members that failed."""

    booked: int = 0
    unchanged: int = 0
    failed: int = 0


Progress = Callable[[int], None]
"""Told how many more members were looked at."""


async def sweeper_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Sweep until told to stop. It is ready at once: a database that is away only makes it late."""
    settings = task.settings
    ready()
    sweeper = Sweeper(writer_connect(task.dsns.ledger, "tallypoint sweeper"), stop)
    await sweeper.run(settings.sweep_interval_seconds, timedelta(days=settings.message_key_days))


class Sweeper:
    """Sweeps and prunes a ledger; it keeps no connection while it waits."""

    def __init__(self, connect: Connect, stop: asyncio.Event, clock: Clock = utc_now) -> None:
        """Work over connections with the writer's rights; ``stop`` ends a run between two batches."""
        self._connect = connect
        self._stop = stop
        self._clock = clock

    async def run(self, interval_seconds: float, keep_messages: timedelta) -> None:
        """Sweep every so many seconds until told to stop, whatever becomes of the database."""
        loop = asyncio.get_running_loop()
        failures, next_prune = 0, loop.time()
        while not self._stop.is_set():
            wait_seconds = interval_seconds
            try:
                await self.sweep()
                if loop.time() >= next_prune:
                    await self.prune(self._clock() - keep_messages)
                    next_prune = loop.time() + PRUNE_INTERVAL_SECONDS
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it was, what is due stays due
                _log.warning("sweep_interrupted", **describe_error(error))
                wait_seconds = min(interval_seconds, RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            await pause(self._stop, wait_seconds)

    async def count_due(self) -> int:
        """Return how many accounts time has changed since their newest entry."""
        conn = await self._connect()
        try:
            return sum((await count_due(conn, self._clock())).values())
        finally:
            await conn.close()

    async def sweep(self, progress: Progress = lambda _members: None) -> Swept:
        """Book what is due now, book by book.

        Raises:
            CommitError: The database was lost; what is not booked stays due.
        """
        conn = await self._connect()
        try:
            now, swept = self._clock(), Swept()
            books = len(await read_heads(conn))
            due = await count_due(conn, now)
            metrics.SWEEP_DUE.set(sum(due.values()))
            committer = Committer(self._connect, books, self._clock)
            try:
                for book in sorted(due):
                    await self._sweep_book(conn, committer, book, now, swept, progress)
            finally:
                await committer.close()
        finally:
            conn.terminate()
        if not self._stop.is_set():
            metrics.SWEEP_LAST_RUN.set(now.timestamp())
        if swept.booked or swept.failed:
            _log.info("swept", entries=swept.booked, unchanged=swept.unchanged, failed=swept.failed)
        return swept

    async def _sweep_book(
        self, conn: Connection, committer: Committer, book: int, now: datetime, swept: Swept, progress: Progress
    ) -> None:
        seen: set[UUID] = set()
        while True:
            due = await read_due_members(conn, book, now, PAGE_MEMBERS)
            members = [member for member in due if member not in seen]
            if not members:
                return
            for start in range(0, len(members), CONCURRENT):
                if self._stop.is_set():
                    return
                some = members[start : start + CONCURRENT]
                outcomes = await asyncio.gather(*(self._pass_time(committer, book, member, now) for member in some))
                swept.booked += outcomes.count("booked")
                swept.unchanged += outcomes.count("unchanged")
                swept.failed += outcomes.count("failed")
                metrics.SWEPT_ENTRIES.labels(str(book)).inc(outcomes.count("booked"))
                # Whoever is still due after this, for whatever reason, is not tried again in this run.
                seen.update(member for member, how in zip(some, outcomes, strict=True) if how != "booked")
                progress(len(some))

    async def _pass_time(self, committer: Committer, book: int, member_id: UUID, now: datetime) -> str:
        try:
            outcome = await committer.submit(pass_time_command(book, member_id, now))
        except CommandFailed as error:
            _log.error("sweep_failed", book=book, member_id=str(member_id), **describe_error(error))
            return "failed"
        return "booked" if isinstance(outcome, Booked) else "unchanged"

    async def prune(self, before: datetime) -> int:
        """Forget message ids and ended holds from before a moment; return how many message ids."""
        conn = await self._connect()
        try:
            forgotten = 0
            for book, head in (await read_heads(conn)).items():
                number: int | None = await first_kept(conn, book, head.number)
                while number is not None and not self._stop.is_set():
                    count, number = await forget_message_ids(conn, book, number, before)
                    forgotten += count
                more = True
                while more and not self._stop.is_set():
                    _, more = await forget_holds(conn, book, before)
            while not self._stop.is_set():
                count = await forget_messages(conn, before, ADMIN_PIECE)
                forgotten += count
                if count < ADMIN_PIECE:
                    break
        finally:
            conn.terminate()
        metrics.FORGOTTEN_MESSAGES.inc(forgotten)
        if forgotten:
            _log.info("messages_forgotten", messages=forgotten, before=before.isoformat())
        return forgotten


def pass_time_command(book: int, member_id: UUID, at: datetime) -> PassTime:
    """Return the command that books what time has done to a member's points. It has no key: it counts by itself."""
    return PassTime(
        book=book,
        content_hash=content_hash(member_id, b"time"),
        event_at=at,
        member_id=member_id,
        event=journal_pb2.Event(time_passed=journal_pb2.TimePassed(member_id=str(member_id))).SerializeToString(),
    )
