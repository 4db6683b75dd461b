"""How far the CRM database is behind the ledger while commits saturate the machine, and how fast it catches up.

Run ``python -m benchmarks.crm_lag``. In each round, the CRM stream first follows commits that come as fast as they
can (the baseline): the lag of an entry is its age when it is first seen in the CRM database. Then the stream is
stopped by a signal, as many receipts are committed, and the stream goes on: how many entries a second it makes up for
is ours.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import asyncpg
import typer
from hdrh.histogram import HdrHistogram
from tallypoint.v1 import checkout_pb2

from benchmarks.harness import Contest, ProcessorTime, Turn, machine, narrator, show
from benchmarks.load import Clients, Target, clients
from benchmarks.shop import Shop, ShopSize, open_shop
from benchmarks.workload import answered
from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_DATABASE, LEDGER_DATABASE

WARM_UP_SECONDS: Final = 2.0
PROBE_REQUESTS: Final = 500
SAMPLE_SECONDS: Final = 0.05
"""How often the CRM database is looked at; an entry's lag is measured too long by this much at most."""
CATCH_UP_SECONDS: Final = 120.0
PERCENTILES: Final = (50.0, 90.0, 99.0)
_LONGEST_LAG_MILLISECONDS: Final = 3_600_000
_SHOWN_FAILURES: Final = 3

# How far each book is applied.
READ_POSITIONS: Final = "SELECT book, number FROM crm.cursor"

# When the entries of a stretch of one book were booked.
READ_BOOKED: Final = """
SELECT number, booked_at FROM ledger.entry WHERE book = $1 AND number > $2 AND number <= $3 ORDER BY number
"""


class Sight(NamedTuple):
    """How far each book was applied in the CRM database when somebody looked."""

    at: float
    """In seconds since 1970."""
    positions: dict[int, int]


class Sights:
    """What a watcher has seen, in order; one thread adds, another reads."""

    def __init__(self) -> None:
        self._all: list[Sight] = []
        self._changed = threading.Condition()

    def add(self, sight: Sight) -> None:
        """Add what was seen."""
        with self._changed:
            self._all.append(sight)
            self._changed.notify_all()

    def taken(self) -> list[Sight]:
        """Return what was seen so far."""
        with self._changed:
            return list(self._all)

    def wait_for(self, entries: int) -> Sight:
        """Wait until so many entries were seen applied; return when that was first seen.

        Raises:
            TimeoutError: if it takes longer than two minutes.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._reached(entries)), CATCH_UP_SECONDS):
                raise TimeoutError("the CRM stream does not catch up")
            return self._reached(entries)[0]

    def _reached(self, entries: int) -> list[Sight]:
        latest = self._all[-1:]
        if not latest or sum(latest[0].positions.values()) < entries:
            return []
        return [next(sight for sight in self._all if sum(sight.positions.values()) >= entries)]


@contextmanager
def watching(crm_dsn: str) -> Iterator[Sights]:
    """Look at the CRM database again and again until the end of the block."""
    sights, stop = Sights(), threading.Event()

    async def watch() -> None:
        conn = await asyncpg.connect(crm_dsn)
        while not stop.is_set():
            rows = await conn.fetch(READ_POSITIONS)
            sights.add(Sight(time.time(), {row["book"]: row["number"] for row in rows}))
            await asyncio.sleep(SAMPLE_SECONDS)
        await conn.close()

    thread = threading.Thread(target=lambda: asyncio.run(watch()), name="watcher")
    thread.start()
    try:
        yield sights
    finally:
        stop.set()
        thread.join()


def lags_seconds(sights: Sequence[Sight], booked: Mapping[int, Sequence[tuple[int, datetime]]]) -> list[float]:
    """Return how old entries were when they were first seen.

    Args:
        sights: What was seen, in order.
        booked: Number and booking time of the entries of each book, in order; all must have been seen at last.
    """
    lags = []
    for book, entries in booked.items():
        later = iter(sights)
        sight = next(later)
        for number, booked_at in entries:
            while sight.positions.get(book, 0) < number:
                sight = next(later)
            lags.append(max(0.0, sight.at - booked_at.timestamp()))
    return lags


@dataclass
class Stage:
    """A filled server, the clients that commit, and what was measured."""

    shop: Shop
    clients: Clients
    ledger_dsn: str
    crm_dsn: str
    in_flight: int
    booked: set[tuple[int, int]] = field(default_factory=set)
    lags_milliseconds: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, _LONGEST_LAG_MILLISECONDS, 3))
    commits_while_stopped: list[Turn] = field(default_factory=list)

    def followed(self, count: int) -> Turn:
        """Commit receipts that the stream follows, and measure how far it is behind."""
        before = self.shop.heads()
        with watching(self.crm_dsn) as sights:
            turn = self._commit(count)
            heads = self.shop.heads()
            sights.wait_for(sum(heads.values()))
        for seconds in lags_seconds(sights.taken(), asyncio.run(_booked(self.ledger_dsn, before, heads))):
            self.lags_milliseconds.record_value(max(1, round(seconds * 1000)))
        return turn

    def caught_up(self, count: int) -> Turn:
        """Commit receipts while the stream stands still, and measure how fast it makes up for them."""
        before = sum(self.shop.heads().values())
        # Which of the other children is the stream, nobody tells; the back office and the sweeper have nothing to do.
        others = self.shop.processor_parts()["other children"]()
        for process in others:
            process.suspend()
        try:
            self.commits_while_stopped.append(self._commit(count))
            entries = sum(self.shop.heads().values())
        finally:
            clock = ProcessorTime(self.shop.processor_parts())
            began = time.time()
            for process in others:
                process.resume()
        with watching(self.crm_dsn) as sights:
            seen = sights.wait_for(entries)
        return Turn(entries - before, seen.at - began, 0, cpu_seconds=clock.spent())

    def _commit(self, count: int) -> Turn:
        rung_up = list(self.shop.register.ring_up(count))
        clock = ProcessorTime({"clients": self.clients.processes, **self.shop.processor_parts()})
        sent = self.clients.send("ours", "unary", [request for request, _ in rung_up], self.in_flight)
        spent = clock.spent()
        failures = []
        for answer, (_, wanted) in zip(sent.answers, rung_up, strict=True):
            response = answer if isinstance(answer, str) else checkout_pb2.CommitResponse.FromString(answer)
            if isinstance(response, str) or not answered(response, wanted):
                failures.append(f"{wanted} was answered {response}")
                continue
            self.booked.add((response.entry.book, response.entry.number))
        for failure in failures[:_SHOWN_FAILURES]:
            narrator.print(f"error: {failure}", style="red", markup=False)
        return Turn(count, sent.seconds, len(failures), sent.latencies_nanoseconds, spent)


async def _booked(
    ledger_dsn: str, after: Mapping[int, int], upto: Mapping[int, int]
) -> dict[int, list[tuple[int, datetime]]]:
    conn = await asyncpg.connect(ledger_dsn)
    try:
        return {
            book: [(row["number"], row["booked_at"]) for row in await conn.fetch(READ_BOOKED, book, after[book], last)]
            for book, last in upto.items()
        }
    finally:
        await conn.close()


class LoadShape(NamedTuple):
    """How the server runs, and how it is called."""

    workers: int
    books: int
    clients: int
    connections: int
    concurrency: int


@contextmanager
def open_stage(size: ShopSize, shape: LoadShape) -> Iterator[Stage]:
    """Run a filled server and the clients in a temporary folder; end them afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallypoint-bench-")))
        shop = stack.enter_context(open_shop(folder, size, f"--workers={shape.workers}", f"--books={shape.books}"))
        targets = {"ours": Target(shop.address, shop.keys, shape.workers)}
        sending = stack.enter_context(clients(shape.clients, shape.connections, targets))
        postgres = EmbeddedPostgres(folder / "postgres")
        yield Stage(shop, sending, postgres.dsn(LEDGER_DATABASE), postgres.dsn(CRM_DATABASE), shape.concurrency)


def measure(size: ShopSize, shape: LoadShape, rounds: int, seconds: float) -> tuple[Contest, dict[str, Any]]:
    """Let the stream follow and catch up in turns; return the contest and what else was found out."""
    with open_stage(size, shape) as stage:
        entries_before = stage.shop.entries()
        speed = stage.followed(PROBE_REQUESTS).per_second
        speed = stage.followed(int(speed * WARM_UP_SECONDS) or 1).per_second
        stage.lags_milliseconds.reset()
        count = int(speed * seconds) or 1
        contest = Contest("CRM stream: entries made up for (ours) against commits that it follows (baseline)")
        contest.play(rounds, ours=lambda: stage.caught_up(count), baseline=lambda: stage.followed(count))
        lags = stage.lags_milliseconds
        found = {
            "lag_ms": {
                **{f"p{each:g}": lags.get_value_at_percentile(each) for each in PERCENTILES},
                "max": lags.get_max_value(),
                "entries": lags.get_total_count(),
            },
            "errors": sum(turn.errors for turn in stage.commits_while_stopped)
            + abs(stage.shop.entries() - entries_before - len(stage.booked)),
            "database": stage.shop.database_settings(),
        }
        return contest, found


def main(  # noqa: PLR0913, PLR0917 - the options of the command line
    rounds: Annotated[int, typer.Option(help="How often the stream follows and catches up.")] = 3,
    seconds: Annotated[float, typer.Option(help="About how long commits last in a turn.")] = 5.0,
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    concurrency: Annotated[int, typer.Option(help="Commits under way at once.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes of the server.")] = 2,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    members: Annotated[int, typer.Option(help="Members who shop.")] = 4_000,
    baskets: Annotated[int, typer.Option(help="Different baskets, which recur.")] = 400,
    clients_count: Annotated[int, typer.Option("--clients", help="Processes of the client.")] = 2,
    connections: Annotated[int, typer.Option(help="Connections of the clients.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure the CRM stream's lag at saturation, and how fast it makes up for a backlog."""
    size = ShopSize(lines, promotions, members, terminals=connections, baskets=baskets)
    shape = LoadShape(workers, books, clients_count, connections, concurrency)
    settings: dict[str, Any] = {**size._asdict(), **shape._asdict(), "seconds": seconds, "machine": machine()}
    contest, found = measure(size, shape, rounds, seconds)
    settings["database"] = found["database"]
    result = contest.result(settings)
    result["errors"] += found["errors"]
    result["lag_ms"] = found["lag_ms"]
    show([contest], {"lag_ms": found["lag_ms"], **settings}, result if json else None)


if __name__ == "__main__":
    typer.run(main)
