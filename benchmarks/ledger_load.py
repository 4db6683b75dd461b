"""The committer alone: writer processes that book prepared receipts, without gRPC, look-ups and rules around them.

The commands are those that the checkout makes: the receipt with its effects line by line as payload, points spent on
every tenth, one lot granted by each, business key, message id and content hash. They are made before a turn; their
answers are checked after it.

Every book has one writer, as in the service: each writer makes commands for members of its own books.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import time
import uuid
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import psutil
import uvloop
from tallypoint.v1 import common_pb2, journal_pb2, store_pb2

from benchmarks import workload
from benchmarks.harness import ProcessorTime, Turn, narrator, with_children
from benchmarks.workload import Shopper
from ledger.booking.committer import CommitError, Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.books import book_of_member
from ledger.entry.keys import business_key, content_hash
from ledger.entry.model import Booked, Outcome, Purchase, Spend, Unit
from server.base.postgres import EmbeddedPostgres
from server.base.storage import LEDGER_MIGRATIONS, migrate_database
from server.process.child import GC_THRESHOLDS
from server.promotions import MemberFacts, ReceiptFacts, Rules, compile_rules, load_programme, lots_to_grant, quote
from server.rules.grants import grants_of
from server.rules.receipt_lines import add_line_effects, lines_of
from server.shop.catalogue import Product

MEMBERS: Final = 10_000
TEMPLATES: Final = 200
_NAMESPACE: Final = uuid.UUID("0f0a2b0c-7f0e-5a49-93a5-4f0d3b1c8a11")
_NUMBERS_OF_A_WRITER: Final = 10_000_000
_SHOWN_FAILURES: Final = 3
_spawn: Final = multiprocessing.get_context("spawn")

# How many entries there are.
READ_ENTRIES: Final = "SELECT sum(number)::bigint FROM ledger.book_head"


class LedgerShape(NamedTuple):
    """How a ledger is written: books, processes, and commands under way at once in all of them."""

    books: int
    writers: int
    in_flight: int
    lines: int = 10
    promotions: int = 200


class _Goods:
    """The catalogue as the checkout sees it."""

    def __init__(self, articles: Iterable[store_pb2.Product]) -> None:
        self._articles = {each.sku: Product(each.category, each.brand, tuple(each.tags)) for each in articles}

    def get(self, sku: str) -> Product | None:
        """Return an article, or None."""
        return self._articles.get(sku)


class _Orders(NamedTuple):
    commands: int
    in_flight: int


class _Report(NamedTuple):
    begun_nanoseconds: int
    ended_nanoseconds: int
    latencies_nanoseconds: array[int]
    failures: list[str]


class LedgerUnderLoad:
    """A ledger of its own and the processes that write it; made by `ledger_under_load`."""

    def __init__(
        self, postgres: EmbeddedPostgres, dsn: str, in_flight: int, pipes: Sequence[Connection], pids: Sequence[int]
    ) -> None:
        self._postgres = postgres
        self._dsn = dsn
        self._in_flight = in_flight
        self._pipes = pipes
        self._pids = pids
        self._booked = 0

    def book(self, commands: int) -> Turn:
        """Book that many new receipts; every answer is checked, and at the end their number."""
        share = commands // len(self._pipes)
        for pipe in self._pipes:
            pipe.send(_Orders(share, self._in_flight // len(self._pipes)))
        for pipe in self._pipes:
            pipe.recv()  # its commands are made
        clock = ProcessorTime(
            {
                "writers": lambda: [psutil.Process(pid) for pid in self._pids],
                "postgres": with_children(self._postgres.pid),
            }
        )
        for pipe in self._pipes:
            pipe.send("go")
        reports: list[_Report] = [pipe.recv() for pipe in self._pipes]
        spent = clock.spent()
        begun = min(report.begun_nanoseconds for report in reports)
        ended = max(report.ended_nanoseconds for report in reports)
        latencies = array("q")
        for report in reports:
            latencies.extend(report.latencies_nanoseconds)
            for failure in report.failures[:_SHOWN_FAILURES]:
                narrator.print(f"error: {failure}", style="red", markup=False)
        errors = sum(len(report.failures) for report in reports) + self._miscounted(share * len(self._pipes))
        return Turn(share * len(self._pipes), (ended - begun) / 1e9, errors, latencies, spent)

    def _miscounted(self, commands: int) -> int:
        """Return by how many the entries of the ledger differ from the commands given to it so far."""
        self._booked += commands
        return abs(asyncio.run(_entries(self._dsn)) - self._booked)


@contextmanager
def ledger_under_load(postgres: EmbeddedPostgres, database: str, shape: LedgerShape) -> Iterator[LedgerUnderLoad]:
    """Make a ledger in a database of that name and start its writers; end them, and drop it, afterwards."""
    postgres.ensure_database(database)
    dsn = postgres.dsn(database)
    unit = asyncio.run(_prepare(dsn, shape.books))
    processes, pipes = [], []
    try:
        for number in range(shape.writers):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(
                target=_run_writer, args=(theirs, dsn, unit, shape, number), name=f"writer-{number}", daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        yield LedgerUnderLoad(postgres, dsn, shape.in_flight, pipes, [process.pid or 0 for process in processes])
    finally:
        for pipe in pipes:
            pipe.close()  # which ends the writer
        for process in processes:
            process.join(10)
            process.kill()
        postgres.execute(f'DROP DATABASE "{database}" WITH (FORCE)')


async def _prepare(dsn: str, books: int) -> Unit:
    await migrate_database(dsn, LEDGER_MIGRATIONS)
    conn = await asyncpg.connect(dsn)
    try:
        await open_books(conn, books)
        return await ensure_unit(conn, "bonus", 2)
    finally:
        await conn.close()


async def _entries(dsn: str) -> int:
    conn = await asyncpg.connect(dsn)
    try:
        return int(await conn.fetchval(READ_ENTRIES))
    finally:
        await conn.close()


def _run_writer(parent: Connection, dsn: str, unit: Unit, shape: LedgerShape, number: int) -> None:
    """Do what the parent orders until it is gone. The entry point of a writer process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_writer(parent, dsn, unit, shape, number))


async def _writer(parent: Connection, dsn: str, unit: Unit, shape: LedgerShape, number: int) -> None:
    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})

    own = range(number % shape.books, shape.books, shape.writers)
    committer = Committer(connect, shape.books, lambda: datetime.now(UTC), owned=own, max_queue=shape.in_flight)
    commands = _commands(_templates(shape, unit), shape.books, own, number * _NUMBERS_OF_A_WRITER)
    gc.set_threshold(*GC_THRESHOLDS)  # as a worker does
    parent.send("ready")
    while True:
        try:
            orders: _Orders = parent.recv()
        except EOFError:
            break
        made = list(itertools.islice(commands, orders.commands))
        gc.collect()
        gc.freeze()  # as a worker does when it is ready
        parent.send("made")
        parent.recv()
        parent.send(await _book_all(committer, made, orders.in_flight))
        gc.unfreeze()
    await committer.close()


async def _book_all(committer: Committer, commands: Sequence[Purchase], in_flight: int) -> _Report:
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
    failures = [
        f"{command.member_id} at {command.event_at}: {outcome}"[:500]
        for command, outcome in zip(commands, outcomes, strict=True)
        if not _right(command, outcome)
    ]
    return _Report(begun, ended, latencies, failures)


def _right(command: Purchase, outcome: Outcome | CommitError | None) -> bool:
    """Say whether an answer is a new entry of the command's book whose settlement has the right sums."""
    if not isinstance(outcome, Booked):
        return False
    settlement = journal_pb2.Event.FromString(outcome.event).settlement
    asked = command.spend.points_minor if command.spend else 0
    return (
        not outcome.repeated
        and outcome.book == command.book
        and settlement.spent_points_minor + settlement.left_out_points_minor == asked
        and settlement.accrual_points_minor == sum(grant.points_minor for grant in command.grants)
    )


def _commands(templates: Sequence[Purchase], books: int, own: Container[int], first: int) -> Iterator[Purchase]:
    """Make commands for some of the books without end, each with keys of its own."""
    everybody = [Shopper.number(number).member_id for number in range(MEMBERS)]
    members = [member_id for member_id in everybody if book_of_member(member_id, books) in own]
    event = journal_pb2.Event()
    for number in itertools.count(first + 1):
        spends = number % workload.SPEND_EVERY == 0
        half = TEMPLATES // 2
        template = templates[number * 31 % half + (half if spends else 0)]
        member_id = members[number * 7919 % len(members)]
        event.ParseFromString(template.event)
        event.purchase.member_id = str(member_id)
        event.purchase.receipt_key.receipt_number = number
        body = event.SerializeToString()
        yield replace(
            template,
            book=book_of_member(member_id, books),
            message_id=uuid.uuid5(_NAMESPACE, str(number)).bytes,
            business_key=business_key(event.purchase.receipt_key),
            content_hash=content_hash(member_id, body),
            member_id=member_id,
            event=body,
        )


def _templates(shape: LedgerShape, unit: Unit) -> list[Purchase]:
    """Return commands of baskets: the first half paid with money, the second partly with points."""
    programme = load_programme(workload.programme_text(shape.promotions))
    assert not isinstance(programme, list), programme
    rules = compile_rules(programme, 1)
    catalogue = _Goods(workload.articles(shape.promotions))
    event_at = datetime.now(UTC).replace(microsecond=0)  # as exact as the receipts' own
    some = workload.receipts(shape.lines, event_at)[: TEMPLATES // 2]
    return [
        _template(rules, unit, catalogue, receipt, event_at, points)
        for points in (0, workload.SPENT_POINTS_MINOR)
        for receipt in some
    ]


def _template(
    rules: Rules,
    unit: Unit,
    catalogue: _Goods,
    receipt: common_pb2.Receipt,
    event_at: datetime,
    points_minor: int,
) -> Purchase:
    zone = ZoneInfo(workload.TIME_ZONE)
    local_at = event_at.astimezone(zone)
    lines, _ = lines_of(receipt, catalogue)
    member = MemberFacts("template", None, can_earn=True, can_spend=True)
    effects = quote(rules, ReceiptFacts(workload.STORE_ID, local_at, lines), member, points_minor)
    purchase = journal_pb2.Purchase(
        receipt_key=common_pb2.ReceiptKey(
            store_id=workload.STORE_ID, terminal_id="lane-1", business_date=event_at.date().isoformat()
        ),
        identified_by=common_pb2.IDENTIFIER_KIND_CARD,
        receipt=receipt,
        programme_code=rules.programme.code,
        # No version: what these commands spend is not judged under the fence, as a checkout's is.
        asked_points_minor=points_minor,
        time_zone=zone.key,
    )
    add_line_effects(purchase.effects, receipt, effects)
    spending = rules.programme.spending
    spend = Spend(points_minor, spending.step_points_minor, spending.step_money_minor, spending.step_points_minor)
    return Purchase(
        book=0,
        message_id=b"",
        business_key=b"",
        content_hash=b"",
        event_at=event_at,
        member_id=None,
        unit=unit,
        event=journal_pb2.Event(purchase=purchase).SerializeToString(),
        spend=spend if points_minor else None,
        grants=grants_of(lots_to_grant(rules, effects, local_at.date()), zone),
    )
