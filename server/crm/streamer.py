"""The CRM stream: follows every book of the ledger and applies each entry once, in order.

A few lanes share the books; each lane has a connection to either database and works through its books in turn. What
can go wrong, and what becomes of it:

* either database is lost, at any statement: the lane connects again with growing pauses and goes on from the cursor
  that the CRM database really has; nothing is skipped, since rows and cursor move in one transaction;
* a second stream works at the same time: one of both finds the cursor moved, writes nothing, and reads it again;
* an entry is missing, does not extend the chain, or cannot be read: everything before it is applied, then the book
  stops and says why, in the log, in the metrics and in ``crm.cursor``; other books go on. The book is looked at again
  every few seconds and goes on by itself once the ledger is whole;
* the ledger is another one than the CRM database follows: nothing is written at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog
from prometheus_client import Gauge

from ledger.entry.chain import EntryRecord
from ledger.reading.books import read_identity
from ledger.reading.journal import read_entries, read_heads, read_oldest_waiting
from server.base.clock import Clock, pause, utc_now
from server.crm import source, store
from server.crm.rows import Rows, UnreadableEntryError, rows_of
from server.crm.source import Names, SourceRefusedError
from server.crm.store import Cursor, ForeignLedgerError
from server.measuring.logs import describe_error
from server.measuring.metrics import CRM_CONNECTED, CRM_ENTRIES, set_crm_lag

if TYPE_CHECKING:
    from ledger.entry.model import Head
    from server.base.database import Connection

LANES: Final = 2
"""Books are shared by this many lanes: while one waits for PostgreSQL, the other computes."""
BATCH_ENTRIES: Final = 500
"""Entries in one transaction; more gain nothing."""
BATCH_BYTES: Final = 2 * 1024 * 1024
"""Events in one transaction, unless a single one is larger; receipts of a thousand lines come in smaller batches."""
IDLE_SECONDS: Final = 0.15
"""From one look at the ledger to the next while little comes: how late a lone receipt is at most."""
GATHER_SECONDS: Final = 0.3
"""The same while much comes. A transaction costs as much as some thirty receipts, so few large ones leave more of the
processor to the tills; a receipt is still there well within a second."""
BUSY_ENTRIES: Final = 20
"""So many entries at one look are much."""
RECHECK_SECONDS: Final = 10.0
"""How often a book that stopped is looked at again."""
MEASURE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to reach the databases."""
DRAIN_SECONDS: Final = 5.0
"""How long a batch under way may take at shutdown; cutting it off harms nothing."""

REFUSED: Final = Gauge(
    "tallypoint_crm_refused",
    "1 while a book is stopped because the ledger does not extend what was applied.",
    ["book"],
    multiprocess_mode="mostrecent",
)
_DOES_NOT_FIT: Final = (
    SourceRefusedError,
    UnreadableEntryError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)

_log = structlog.get_logger()


@dataclass
class Progress:
    """What the stream knows of the books, shared by its lanes."""

    cursors: dict[int, Cursor] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    connected: set[int] = field(default_factory=set)

    def connect(self, lane: int, *, connected: bool) -> None:
        """Note whether a lane reaches both databases."""
        (self.connected.add if connected else self.connected.discard)(lane)
        CRM_CONNECTED.set(len(self.connected) == LANES)


async def run(ledger_dsn: str, crm_dsn: str, stop: asyncio.Event, *, clock: Clock = utc_now) -> None:
    """Follow the ledger until ``stop`` is set; losing either database never ends it.

    Args:
        ledger_dsn: The ledger database; read as ``tallypoint_reader``.
        crm_dsn: The CRM database, migrated.
        stop: Ends the stream; a batch under way is finished.
        clock: Tells the time for the measure of lag in seconds.
    """
    progress = Progress()
    async with asyncio.TaskGroup() as group:
        lanes = [Lane(number, ledger_dsn, crm_dsn, stop, progress).run() for number in range(LANES)]
        tasks = [group.create_task(one) for one in (*lanes, _measure(ledger_dsn, stop, progress, clock))]
        await stop.wait()
        await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in tasks:
            task.cancel()


class Lane:
    """Applies the books whose number leaves ``number`` when divided by ``LANES``."""

    def __init__(self, number: int, ledger_dsn: str, crm_dsn: str, stop: asyncio.Event, progress: Progress) -> None:
        self.number = number
        self._dsns = (ledger_dsn, crm_dsn)
        self._stop = stop
        self._progress = progress
        self._books: list[int] = []
        self._limits: dict[int, int] = {}
        self._rechecks: dict[int, float] = {}
        self._failures = 0
        self._names = Names([], {})

    async def run(self) -> None:
        """Work until told to stop, whatever becomes of the databases."""
        while not self._stop.is_set():
            try:
                await self._connect_and_follow()
            except ForeignLedgerError as error:
                _log.error("crm_foreign_ledger", lane=self.number, reason=str(error))
                REFUSED.labels("all").set(1)
                await pause(self._stop, RECHECK_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it was, nothing is lost by starting at the cursor again
                _log.warning("crm_stream_interrupted", lane=self.number, **describe_error(error))
                await pause(self._stop, RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
                self._failures += 1
            finally:
                self._progress.connect(self.number, connected=False)

    async def _connect_and_follow(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            ledger = await source.connect_ledger(self._dsns[0])
            stack.callback(ledger.terminate)
            crm = await store.connect_crm(self._dsns[1])
            stack.callback(crm.terminate)
            self._names = Names([], {})
            cursors = await store.open_cursors(crm, await read_identity(ledger))
            self._books = [book for book in sorted(cursors) if book % LANES == self.number]
            self._progress.cursors.update((book, cursors[book]) for book in self._books)
            REFUSED.labels("all").set(0)
            self._progress.connect(self.number, connected=True)
            _log.info("crm_stream_connected", lane=self.number)
            await self._follow(ledger, crm)
            await ledger.close(timeout=1)
            await crm.close(timeout=1)

    async def _follow(self, ledger: Connection, crm: Connection) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            heads = await read_heads(ledger)
            applied, more = 0, False
            for book in self._books:
                count, full = await self._advance(ledger, crm, book, heads.get(book))
                applied += count
                more = more or full
            self._failures = 0
            if not more:
                await pause(self._stop, pause_seconds(applied, loop.time() - began))

    async def _advance(self, ledger: Connection, crm: Connection, book: int, head: Head | None) -> tuple[int, bool]:
        """Apply one batch of a book; return how many entries it had, and whether more may be waiting."""
        now = asyncio.get_running_loop().time()
        if self._rechecks.get(book, now) > now:
            return 0, False
        cursor, entries = self._progress.cursors[book], list[EntryRecord]()
        limit = self._limits.get(book, BATCH_ENTRIES)
        try:
            if head is None:
                raise SourceRefusedError(f"the ledger has no book {book}")
            source.check_head(cursor, head)
            if head.number > cursor.number:
                entries = within_bytes(await read_entries(ledger, book, cursor.number, limit))
                after = source.check_chain(cursor, entries, expected=True)
                applied = await self._apply(ledger, crm, cursor, after, entries)
            else:
                applied = True
        except _DOES_NOT_FIT as error:
            if len(entries) > 1:  # apply what comes before the entry at fault, by halves
                self._limits[book] = len(entries) // 2
                return 0, True
            await self._refuse(crm, cursor, entries, error)
            return 0, False
        if not applied:
            self._progress.cursors[book] = (await store.read_cursors(crm))[book]
            return 0, True
        await self._go_on(crm, book)
        self._limits[book] = min(2 * limit, BATCH_ENTRIES)
        return len(entries), self._progress.cursors[book].number < head.number

    async def _apply(
        self, ledger: Connection, crm: Connection, before: Cursor, after: Cursor, entries: list[EntryRecord]
    ) -> bool:
        rows = await self._rows_of(ledger, crm, entries)
        # Read after the entries, so a record is at least as new as the entry that tells of it.
        members = await source.read_members(ledger, before.book, rows.members) if rows.members else []
        if any(member.version < rows.members[member.member_id] for member in members):
            raise SourceRefusedError(
                f"book {before.book} tells of a newer version of a member than the ledger database has "
                f"(entries {before.number + 1} to {after.number})"
            )
        if not await store.apply(crm, before, after, rows, members):
            return False
        self._progress.cursors[before.book] = after._replace(state=store.FOLLOWING, reason=None)
        CRM_ENTRIES.labels(str(before.book)).inc(len(entries))
        return True

    async def _rows_of(self, ledger: Connection, crm: Connection, entries: list[EntryRecord]) -> Rows:
        """Make rows, after reading the names of units and partners if the entries have new ones."""
        names = self._names
        with contextlib.suppress(UnreadableEntryError):
            rows = rows_of(entries, names.partners)
            if rows.units() <= {row.unit for row in names.units}:
                return rows
        # Read after the entries, so every unit and partner that they name is there.
        names = await source.read_names(ledger)
        rows = rows_of(entries, names.partners)
        if names.units:
            await store.put_units(crm, names.units)
        self._names = names
        return rows

    async def _refuse(self, crm: Connection, cursor: Cursor, entries: list[EntryRecord], error: Exception) -> None:
        """Stop a book and say why."""
        reason = str(error)
        if isinstance(error, asyncpg.PostgresError):  # its text may quote a row
            constraint = getattr(error, "constraint_name", None) or "none"
            reason = (
                f"entry {entries[0].number if entries else cursor.number + 1} of book {cursor.book} does not fit the "
                f"CRM database: {type(error).__name__}, constraint {constraint}"
            )
        self._rechecks[cursor.book] = asyncio.get_running_loop().time() + RECHECK_SECONDS
        if self._progress.refused.get(cursor.book) != reason:
            self._progress.refused[cursor.book] = reason
            _log.error("crm_book_refused", book=cursor.book, number=cursor.number, reason=reason)
        REFUSED.labels(str(cursor.book)).set(1)
        self._progress.cursors[cursor.book] = cursor._replace(state=store.REFUSED, reason=reason)
        await store.refuse(crm, cursor, reason)

    async def _go_on(self, crm: Connection, book: int) -> None:
        """Note that a book that had stopped is whole again."""
        cursor = self._progress.cursors[book]
        self._rechecks.pop(book, None)
        if cursor.state == store.REFUSED:
            await store.resume(crm, cursor)
            self._progress.cursors[book] = cursor._replace(state=store.FOLLOWING, reason=None)
        if self._progress.refused.pop(book, None) is not None:
            _log.info("crm_book_resumed", book=book, number=cursor.number)
            REFUSED.labels(str(book)).set(0)


def pause_seconds(applied: int, spent_seconds: float) -> float:
    """Return how long to gather entries, after a look at the ledger that applied some and took so many seconds.

    The busier the stream, the longer a look takes, and the shorter the pause: lag does not add up.
    """
    return max(0.0, (GATHER_SECONDS if applied >= BUSY_ENTRIES else IDLE_SECONDS) - spent_seconds)


def within_bytes(entries: list[EntryRecord]) -> list[EntryRecord]:
    """Return as many of the first entries as one batch may have by their size, and one at least."""
    total = 0
    for index, entry in enumerate(entries):
        total += len(entry.payload)
        if total > BATCH_BYTES:
            return entries[: max(1, index)]
    return entries


async def _measure(ledger_dsn: str, stop: asyncio.Event, progress: Progress, clock: Clock) -> None:
    """Keep the lag in the metrics up to date, also while the CRM database is away."""
    conn: Connection | None = None
    while not stop.is_set():
        try:
            if conn is None or conn.is_closed():
                conn = await source.connect_ledger(ledger_dsn)
            positions = {book: cursor.number for book, cursor in progress.cursors.items()}
            heads = await read_heads(conn)
            oldest = await read_oldest_waiting(conn, positions)
            set_crm_lag(*lag_of(positions, heads, oldest, clock()))
        except Exception as error:  # noqa: BLE001 - measuring again matters more than why it failed
            _log.debug("crm_lag_unknown", **describe_error(error))
        await pause(stop, MEASURE_SECONDS)
    if conn is not None:
        conn.terminate()


def lag_of(
    positions: dict[int, int], heads: dict[int, Head], oldest: dict[int, datetime], now: datetime
) -> tuple[dict[int, int], dict[int, float]]:
    """Return the lag of each book: entries that wait, and the age in seconds of the oldest of them (0 if none)."""
    entries = {book: max(0, heads[book].number - number) for book, number in positions.items() if book in heads}
    seconds = {book: max(0.0, (now - oldest[book]).total_seconds()) if book in oldest else 0.0 for book in positions}
    return entries, seconds
