"""Metrics of many processes: what they count adds up, also after one was killed, and buffering changes no number."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from tallypoint.v1 import journal_pb2

from ledger.entry.model import Unit
from ledger.reading.journal import read_heads
from server.measuring import ledger, metrics
from server.measuring.buffer import BufferedHistogram, CollectedHistogram
from server.measuring.ledger import LedgerWatch
from server.measuring.process import process_measured
from tests.support.books import START, open_test_books
from tests.support.crm import eventually

WORKER = """
import asyncio, sys
from server.measuring import metrics

async def work():
    meter, committer = metrics.CallMeter("CheckoutService/Commit"), metrics.CommitterMetrics()
    for seconds in (0.0004, 0.004, 40.0):
        meter.observe("OK", seconds, "big")
    meter.observe("NOT_FOUND", 0.001)
    meter.refuse("IDENTIFIER_UNKNOWN")
    committer.depth(0, 7)
    committer.lookup("member", 3, 1)
    metrics.UNDER_WAY.add(2)
    metrics.STREAMS_OPEN.labels("CheckoutService/Session").inc()
    await asyncio.sleep(0.3)  # the loop flushes by itself
    print("counted", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(work())
"""
CALLS = 'tallypoint_call_seconds_count{code="OK",method="CheckoutService/Commit",store_group="big"}'
GAUGES = (
    "tallypoint_calls_under_way",
    'tallypoint_queue_commands{book="0"}',
    'tallypoint_streams_open{method="CheckoutService/Session"}',
)


class Page:
    """The page of metrics, read anew each time."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __getitem__(self, series: str) -> float | None:
        """Return the value of a series; None if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(f"^{re.escape(series)} (.+)$", text, re.MULTILINE)
        return None if found is None else float(found[1])


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page over a directory of its own."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    endpoint = metrics.MetricsEndpoint("127.0.0.1", 0)
    yield Page(endpoint.port)
    endpoint.close()


def start_worker() -> subprocess.Popen[bytes]:
    """Start a process that measures, and wait until it has."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"counted\n"
    return process


def test_counts_of_a_killed_worker_stay_and_its_gauges_go(page: Page) -> None:
    """Sums never go back: a rate over a death shows no dip, and no queue of the dead stays on the page."""
    first, second = start_worker(), start_worker()
    try:
        assert page[CALLS] == 6
        assert [page[name] for name in GAUGES] == [4, 14, 2]
        first.kill()
        first.wait()
        metrics.forget_process(first.pid)
        assert page[CALLS] == 6
        assert page['tallypoint_cache_lookups_total{cache="member",outcome="hit"}'] == 6
        assert page['tallypoint_refusals_total{method="CheckoutService/Commit",reason="IDENTIFIER_UNKNOWN"}'] == 2
        assert [page[name] for name in GAUGES] == [2, 7, 1]
        third = start_worker()
        assert page[CALLS] == 9
        third.kill()
        third.communicate()
    finally:
        second.kill()
        second.communicate()
        first.communicate()


def test_buckets_of_all_processes_add_up(page: Page) -> None:
    """Each observation is in one bucket, and above all bounds only in the last."""
    for process in (start_worker(), start_worker()):
        process.communicate()
    series = 'tallypoint_call_seconds_bucket{{code="OK",le="{}",method="CheckoutService/Commit",store_group="big"}}'
    assert [page[series.format(bound)] for bound in ("0.0005", "0.003", "0.005", "10.0", "+Inf")] == [2, 2, 4, 4, 6]
    assert page[CALLS.replace("_count", "_sum")] == pytest.approx(2 * 40.0044)


@given(st.lists(st.floats(0, 20) | st.sampled_from(metrics.SECONDS_BUCKETS)))
def test_a_buffered_histogram_counts_what_the_library_counts(amounts: list[float]) -> None:
    """At the bounds, too."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    buffered = CollectedHistogram("h", "h", registry=registries[0], buckets=metrics.SECONDS_BUCKETS)
    direct = Histogram("h", "h", registry=registries[1], buckets=metrics.SECONDS_BUCKETS)
    observe = BufferedHistogram(buffered).observe

    async def in_a_loop() -> None:
        for amount in amounts:
            observe(amount)

    asyncio.run(in_a_loop())
    for amount in amounts:
        direct.observe(amount)
    samples = [[sample for metric in registry.collect() for sample in metric.samples] for registry in registries]
    ours, theirs = (
        {(s.name, s.labels.get("le")): s.value for s in found if not s.name.endswith("_created")} for found in samples
    )
    assert ours == pytest.approx(theirs)


def test_without_a_loop_nothing_waits() -> None:
    """Commands and tests of single parts measure at once."""
    before = REGISTRY.get_sample_value("tallypoint_evaluation_seconds_count") or 0
    metrics.EVALUATION.observe(0.001)
    assert metrics.EVALUATION_SECONDS._sum.get() > 0
    assert REGISTRY.get_sample_value("tallypoint_evaluation_seconds_count") == before + 1


async def test_a_loop_that_stands_still_is_late() -> None:
    """What keeps the loop busy shows as its delay; processor and memory are told."""

    def value(name: str) -> float:
        return REGISTRY.get_sample_value(f"tallypoint_{name}", {"process": "tried"}) or 0.0

    async with process_measured("tried"):
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - the very thing
        await asyncio.sleep(0.01)
    assert value("loop_delay_seconds_count") >= 1
    assert value("loop_delay_seconds_sum") >= 0.2
    assert value("process_cpu_seconds_total") > 0
    assert value("process_resident_bytes") > 2**20


async def by_postings(dsn: str, unit: Unit) -> dict[str, float]:
    """Return the balance of each account from the journal's postings alone."""
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch("SELECT account, sum(points_minor) AS sum FROM ledger.posting_side GROUP BY account")
    await conn.close()
    names = {number: name.removeprefix("ACCOUNT_").lower() for name, number in journal_pb2.Account.items()}
    return {names[row["account"]]: float(row["sum"]) / 10**unit.precision for row in rows}


async def test_the_ledgers_sums_are_those_of_its_postings(ledger_dsn: str) -> None:
    """Over days: those that are over are summed up once, and still count. All accounts together are zero."""
    async with open_test_books(ledger_dsn, 2) as books:
        await books.register(3)
        watch, conn = LedgerWatch(), await asyncpg.connect(books.dsn)
        for days in (0, 1, 2, 40):
            books.clock.now = START + timedelta(days=days, hours=1)
            await books.buy(8)
            await watch.read(conn, books.clock.now.date())
            expected = await by_postings(books.dsn, books.unit)
            labels = {"unit": books.unit.code}
            found = {
                account: REGISTRY.get_sample_value("tallypoint_ledger_points", labels | {"account": account})
                for account in expected
            }
            assert found == pytest.approx(expected)
            assert {"available", "issued", "redeemed"} <= expected.keys()
            assert sum(expected.values()) == pytest.approx(0)
        heads = await read_heads(conn)
        for book, head in heads.items():
            assert REGISTRY.get_sample_value("tallypoint_ledger_entries", {"book": str(book)}) == head.number
        assert (REGISTRY.get_sample_value("tallypoint_postgres_connections") or 0) >= 1
        assert (REGISTRY.get_sample_value("tallypoint_postgres_bytes") or 0) > 2**20
        await conn.close()


async def test_the_ledger_is_measured_again_after_its_connection_was_lost(
    ledger_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that comes and goes only makes the numbers late."""
    monkeypatch.setattr(ledger, "INTERVAL_SECONDS", 0.01)
    opened: list[asyncpg.Connection[asyncpg.Record]] = []

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        if len(opened) == 1:
            opened.append(opened[0])
            raise OSError("away")
        opened.append(await asyncpg.connect(ledger_dsn))
        return opened[-1]

    stop = asyncio.Event()
    async with open_test_books(ledger_dsn, 1) as books:
        watching = asyncio.create_task(ledger.watch_ledger(connect, stop, books.clock))
        await eventually(lambda: as_awaitable(len(opened) == 1), "it reads")
        opened[0].terminate()
        await books.buy(5)

        async def sees_them() -> bool:
            return REGISTRY.get_sample_value("tallypoint_ledger_entries", {"book": "0"}) == 5

        await eventually(sees_them, "it reads again")
    stop.set()
    await watching


async def as_awaitable(value: bool) -> bool:
    """Return the value."""
    return value
