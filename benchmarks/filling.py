"""Ledgers of any size: writer processes that fill one quickly, and then book into it as fast as they can.

A ledger is filled by the committer itself, so that its books are as consistent as those of a service; only larger
batches and `synchronous_commit = off` make it faster. Each writer has books of its own, as a worker has. The members
who shop are spread over all there are, so that no page of the tables is warmer than another.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import time
import uuid
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection, wait
from typing import Final, NamedTuple

import asyncpg
import psutil
import uvloop
from tallypoint.v1 import common_pb2, journal_pb2

from benchmarks import ledger_load, workload
from benchmarks.harness import ProcessorTime, Turn, narrator, with_children
from benchmarks.workload import Shopper
from ledger.booking.committer import MAX_BATCH, CommitError, Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.books import book_of_member
from ledger.entry.keys import business_key, content_hash
from ledger.entry.model import Booked, Outcome, Purchase, Unit
from server.base.postgres import EmbeddedPostgres
from server.base.storage import LEDGER_MIGRATIONS, migrate_database
from server.process.child import GC_THRESHOLDS

FILLING_BATCH: Final = 1_000
FILLING_IN_FLIGHT: Final = 4_000
"""Commands under way at once in one writer that fills."""
FILLING_PATIENCE_SECONDS: Final = 600.0
"""A machine that does other things as well may take long for a batch; filling goes on all the same."""
FIRST_DAY: Final = date(2024, 1, 1)
RECEIPTS_OF_A_DAY: Final = 20_000
"""While a ledger is filled, the business date moves on after so many: a day's keys are neighbours in the index."""
_TELL_EVERY: Final = 2_000
_TELL_SECONDS: Final = 10.0
_SHOWN_FAILURES: Final = 3
_SAMPLE: Final = 2_000
_LARGE_TABLE: Final = 0.01
_spawn: Final = multiprocessing.get_context("spawn")

# How many entries there are.
READ_ENTRIES: Final = "SELECT coalesce(sum(number), 0)::bigint FROM ledger.book_head"

# What each table takes on disk, with its indexes and its oversized values.
READ_TABLES: Final = """
SELECT relname, pg_total_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = 'ledger' AND relkind = 'r' ORDER BY 2 DESC
"""

# What payloads take in their table, by some of the newest.
READ_PAYLOAD: Final = """
SELECT avg(pg_column_size(payload)) FROM (
    SELECT payload FROM ledger.entry WHERE book = 0 ORDER BY number DESC LIMIT $1
) AS newest
"""


class LedgerPlan(NamedTuple):
    """A ledger and how it is written."""

    database: str
    books: int
    writers: int
    in_flight: int
    """Commands under way at once in all writers, outside of filling."""
    members: int
    lines: int
    promotions: int


class Disk(NamedTuple):
    """What receipts take on disk, in bytes each."""

    receipt: float
    payload: float
    tables: dict[str, float]
    """By table, with its indexes; what all small ones take together is `others`."""


class _Fill(NamedTuple):
    first: int
    commands: int


class _Book(NamedTuple):
    commands: int


class _Report(NamedTuple):
    begun_nanoseconds: int
    ended_nanoseconds: int
    latencies_nanoseconds: array[int]
    failures: list[str]


class _WriterPlan(NamedTuple):
    dsn: str
    unit: Unit
    ledger: LedgerPlan
    number: int
    session: uuid.UUID
    """Makes keys and message ids that no earlier run has used."""

    def owns(self, book: int) -> bool:
        """Say whether a book is one of this writer's own."""
        return book % self.ledger.writers == self.number


class FilledLedger:
    """A ledger in a database of its own, and the processes that write it; made by `filled_ledger`."""

    def __init__(
        self, postgres: EmbeddedPostgres, plan: LedgerPlan, pipes: Sequence[Connection], pids: Sequence[int]
    ) -> None:
        self._postgres = postgres
        self._plan = plan
        self._dsn = postgres.dsn(plan.database)
        self._pipes = pipes
        self._pids = pids

    def entries(self) -> int:
        """Return how many entries there are."""
        return int(asyncio.run(_rows(self._dsn, READ_ENTRIES))[0][0])

    def fill(self, entries: int) -> float:
        """Fill the ledger until it has that many entries; return how many a second were booked.

        Raises:
            RuntimeError: if a receipt was not booked.
        """
        first = self.entries()
        wanted = max(0, entries - first)
        share = -(-wanted // len(self._pipes))
        began = told = time.monotonic()
        for pipe in self._pipes:
            pipe.send(_Fill(first, share))
        done = 0
        busy = set(self._pipes)
        while busy:
            ready = wait(list(busy), timeout=1)
            for pipe in [each for each in busy if each in ready]:
                message: int | _Report = pipe.recv()
                if isinstance(message, int):
                    done += message
                    continue
                if message.failures:
                    raise RuntimeError(f"the ledger cannot be filled: {message.failures[0]}")
                busy.discard(pipe)
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                narrator.print(f"filled {first + done:,} of {entries:,}, {done / (told - began):,.0f}/s")
        return wanted / (time.monotonic() - began)

    def book(self, commands: int) -> Turn:
        """Book that many new receipts durably; every answer is checked, and at the end their number."""
        share = max(1, commands // len(self._pipes))
        before = self.entries()
        for pipe in self._pipes:
            pipe.send(_Book(share))
        for pipe in self._pipes:
            pipe.recv()  # its commands are made
        writers = [psutil.Process(pid) for pid in self._pids]
        clock = ProcessorTime({"writers": lambda: writers, "postgres": with_children(self._postgres.pid)})
        for pipe in self._pipes:
            pipe.send("go")
        reports: list[_Report] = [pipe.recv() for pipe in self._pipes]
        spent = clock.spent()
        latencies = array("q")
        for report in reports:
            latencies.extend(report.latencies_nanoseconds)
            for failure in report.failures[:_SHOWN_FAILURES]:
                narrator.print(f"error: {failure}", style="red", markup=False)
        booked = share * len(self._pipes)
        lost = abs(self.entries() - before - booked)
        begun = min(report.begun_nanoseconds for report in reports)
        ended = max(report.ended_nanoseconds for report in reports)
        errors = sum(len(report.failures) for report in reports) + lost
        return Turn(booked, (ended - begun) / 1e9, errors, latencies, spent)

    def disk(self) -> Disk:
        """Return what its receipts take on disk."""
        entries = self.entries()
        tables = {str(name): int(size) / entries for name, size in asyncio.run(_rows(self._dsn, READ_TABLES))}
        payload = float(asyncio.run(_rows(self._dsn, READ_PAYLOAD, _SAMPLE))[0][0])
        whole = sum(tables.values())
        large = {name: size for name, size in tables.items() if size >= _LARGE_TABLE * whole}
        return Disk(whole, payload, large | {"others": whole - sum(large.values())})

    def vacuum(self) -> None:
        """Let PostgreSQL do now what it would otherwise do in the middle of a measurement."""
        self._postgres.execute("VACUUM (ANALYZE); CHECKPOINT", self._plan.database)


@contextmanager
def filled_ledger(postgres: EmbeddedPostgres, plan: LedgerPlan) -> Iterator[FilledLedger]:
    """Open a ledger in a database, made if need be, and start its writers; end them afterwards."""
    postgres.ensure_database(plan.database)
    dsn = postgres.dsn(plan.database)
    unit = asyncio.run(_prepare(dsn, plan.books))
    session = uuid.uuid4()
    processes, pipes = [], []
    try:
        for number in range(plan.writers):
            ours, theirs = _spawn.Pipe()
            its_plan = _WriterPlan(dsn, unit, plan, number, session)
            process = _spawn.Process(target=_run_writer, args=(theirs, its_plan), name=f"writer-{number}", daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        yield FilledLedger(postgres, plan, pipes, [process.pid or 0 for process in processes])
    finally:
        for pipe in pipes:
            pipe.close()  # which ends the writer
        for process in processes:
            process.join(10)
            process.kill()


async def _prepare(dsn: str, books: int) -> Unit:
    await migrate_database(dsn, LEDGER_MIGRATIONS)
    conn = await asyncpg.connect(dsn)
    try:
        await open_books(conn, books)
        return await ensure_unit(conn, "bonus", 2)
    finally:
        await conn.close()


async def _rows(dsn: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    conn = await asyncpg.connect(dsn)
    try:
        return list(await conn.fetch(query, *arguments))
    finally:
        await conn.close()


def _run_writer(parent: Connection, plan: _WriterPlan) -> None:
    """Do what the parent orders until it is gone. The entry point of a writer process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_writer(parent, plan))


def _committer(plan: _WriterPlan, *, filling: bool) -> Committer:
    durability = {"synchronous_commit": "off"} if filling else {}

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(plan.dsn, server_settings={"role": "tallypoint_writer", **durability})

    books = plan.ledger.books
    return Committer(
        connect,
        books,
        lambda: datetime.now(UTC),
        owned=[book for book in range(books) if plan.owns(book)],
        max_batch=FILLING_BATCH if filling else MAX_BATCH,
        max_queue=FILLING_IN_FLIGHT if filling else plan.ledger.in_flight,
    )


async def _writer(parent: Connection, plan: _WriterPlan) -> None:
    commands = Commands(plan)
    committer = _committer(plan, filling=False)
    gc.set_threshold(*GC_THRESHOLDS)  # as a worker does
    parent.send("ready")
    while True:
        try:
            orders: _Fill | _Book = parent.recv()
        except EOFError:
            break
        if isinstance(orders, _Fill):
            parent.send(await _fill(parent, plan, commands.of_the_past(orders.first, orders.commands)))
            continue
        made = list(itertools.islice(commands.of_today(), orders.commands))
        gc.collect()
        gc.freeze()  # as a worker does when it is ready
        parent.send("made")
        parent.recv()
        parent.send(await _book(committer, made, plan.ledger.in_flight // plan.ledger.writers))
        gc.unfreeze()
    await committer.close()


async def _fill(parent: Connection, plan: _WriterPlan, commands: Iterator[Purchase]) -> _Report:
    failures: list[str] = []
    committer, loop = _committer(plan, filling=True), asyncio.get_running_loop()
    done = 0

    async def repeat() -> None:
        nonlocal done
        for command in commands:
            if failures:
                return
            try:
                outcome = await committer.submit(command, loop.time() + FILLING_PATIENCE_SECONDS)
            except CommitError as error:
                failures.append(f"{type(error).__name__}: {error}")
                return
            if not isinstance(outcome, Booked) or outcome.repeated:
                failures.append(str(outcome)[:500])
            done += 1
            if done % _TELL_EVERY == 0:
                parent.send(_TELL_EVERY)

    begun = time.monotonic_ns()
    await asyncio.gather(*(repeat() for _ in range(FILLING_IN_FLIGHT)))
    await committer.close()
    return _Report(begun, time.monotonic_ns(), array("q"), failures)


async def _book(committer: Committer, commands: Sequence[Purchase], in_flight: int) -> _Report:
    outcomes: list[Outcome | CommitError | None] = [None] * len(commands)
    latencies = array("q", bytes(8 * len(commands)))
    feed = enumerate(commands)
    now = time.perf_counter_ns

    async def repeat() -> None:
        for index, command in feed:
            begun = now()
            try:
                outcomes[index] = await committer.submit(command)
            except CommitError as error:
                outcomes[index] = error
            latencies[index] = now() - begun

    begun = time.monotonic_ns()
    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    ended = time.monotonic_ns()
    pairs = zip(commands, outcomes, strict=True)
    failures = [f"{command.member_id}: {outcome}"[:500] for command, outcome in pairs if not _right(command, outcome)]
    return _Report(begun, ended, latencies, failures)


def _right(command: Purchase, outcome: Outcome | CommitError | None) -> bool:
    """Say whether an answer is a new entry of the command's book."""
    return isinstance(outcome, Booked) and not outcome.repeated and outcome.book == command.book


class Commands:
    """Receipts for one writer: of members of its own books, in an order that leaves nobody out."""

    def __init__(self, plan: _WriterPlan) -> None:
        self._plan = plan
        ledger = plan.ledger
        shape = ledger_load.LedgerShape(ledger.books, ledger.writers, ledger.in_flight, ledger.lines, ledger.promotions)
        made = ledger_load._templates(shape, plan.unit)  # noqa: SLF001 - the same receipts as there
        self._templates = [_without_own_fields(each) for each in made]
        everybody = (Shopper.number(number).member_id for number in range(ledger.members))
        placed = ((member, book_of_member(member, ledger.books)) for member in everybody)
        self._members = [(member, book) for member, book in placed if plan.owns(book)]
        if not self._members:
            raise ValueError(f"{ledger.members} members are too few: a writer has none")
        self._today = datetime.now(UTC).date()
        self._numbers = itertools.count(1)

    def of_the_past(self, entries_before: int, count: int) -> Iterator[Purchase]:
        """Make receipts to fill a ledger with; their days follow on from those of the entries before."""
        for index in range(count):
            entries = entries_before + index * self._plan.ledger.writers
            yield self._make(FIRST_DAY + timedelta(days=entries // RECEIPTS_OF_A_DAY))

    def of_today(self) -> Iterator[Purchase]:
        """Make receipts of today without end."""
        while True:
            yield self._make(self._today)

    def _make(self, day: date) -> Purchase:
        number = next(self._numbers)
        half = len(self._templates) // 2
        spends = number % workload.SPEND_EVERY == 0
        template = self._templates[number * 31 % half + (half if spends else 0)]
        member, book = self._members[number * 7919 % len(self._members)]
        key = common_pb2.ReceiptKey(
            store_id=workload.STORE_ID,
            terminal_id=f"{self._plan.session.hex[:12]}-{self._plan.number}",
            business_date=day.isoformat(),
            receipt_number=number,
        )
        own = journal_pb2.Event(purchase=journal_pb2.Purchase(receipt_key=key, member_id=str(member)))
        body = template.event + own.SerializeToString()  # serialised messages merge by joining them
        return replace(
            template,
            book=book,
            message_id=uuid.uuid5(self._plan.session, f"{self._plan.number} {number}").bytes,
            business_key=business_key(key),
            content_hash=content_hash(member, body),
            member_id=member,
            event=body,
        )


def _without_own_fields(template: Purchase) -> Purchase:
    """Return a template without what every receipt has of its own, and with the moment that its receipt names."""
    event = journal_pb2.Event.FromString(template.event)
    event.purchase.ClearField("receipt_key")
    event.purchase.ClearField("member_id")
    event_at = event.purchase.receipt.event_at.ToDatetime(UTC)
    return replace(template, event=event.SerializeToString(), event_at=event_at)
