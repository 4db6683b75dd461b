"""The measurements of all processes, for Prometheus: calls by the RED method, what they use by the USE method.

Every process writes its own files in a directory (prometheus_client's multiprocess mode), and the supervisor
answers /metrics for all of them. The mode is chosen when `prometheus_client` is imported: `use_directory` must run
before this module is imported by the supervisor, and its children inherit the environment. Without it, as in tests
of single parts, the numbers stay in memory.

Counts of a process that died stay; its gauges go, once the supervisor has called `forget_process`. What calls and
batches measure is buffered (`server/measuring/buffer.py`).

Labels carry method names, status codes, store groups, book numbers; never anything about a person.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, multiprocess, start_http_server

from server.measuring.buffer import (
    BufferedCounter,
    BufferedGauge,
    BufferedHistogram,
    CollectedCounter,
    CollectedGauge,
    CollectedHistogram,
)

SECONDS_BUCKETS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
)
"""For calls and batches: fine from half a millisecond to a tenth of a second, coarse up to ten seconds."""
STEP_BUCKETS: Final = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
"""For what is a part of a call or batch."""
NO_GROUP: Final = "none"
"""The store group of callers without one: stores outside of groups, the back office, callers that are not known."""

# --- calls: rate, errors, duration -------------------------------------------------------------------------------

CALL_SECONDS: Final = CollectedHistogram(
    "tallypoint_call_seconds",
    "Calls by method, status code and the first of the store's groups, with the time from arrival to the answer.",
    ["method", "code", "store_group"],
    buckets=SECONDS_BUCKETS,
)
CALLS_UNDER_WAY: Final = CollectedGauge(
    "tallypoint_calls_under_way",
    "Calls being answered now; each request of a Session counts as one, the stream itself does not.",
    multiprocess_mode="livesum",
)
REFUSALS: Final = CollectedCounter("tallypoint_refusals", "Calls refused, by the refusal's name.", ["method", "reason"])
CONTRADICTIONS: Final = Counter(
    "tallypoint_contradictions",
    "Receipts that were booked although they contradict themselves, by the code of the notice that says how.",
    ["code"],
)
STREAMS_OPEN: Final = Gauge(
    "tallypoint_streams_open", "Streams that are open now.", ["method"], multiprocess_mode="livesum"
)
STREAMS_ENDED: Final = Counter("tallypoint_streams_ended", "Streams that ended, by status code.", ["method", "code"])
SLOW_CALLS: Final = Counter(
    "tallypoint_slow_calls", "Calls that took longer than the setting slow_call_milliseconds.", ["method"]
)

# --- the way to the books: use, saturation, errors ---------------------------------------------------------------

QUEUE_COMMANDS: Final = CollectedGauge(
    "tallypoint_queue_commands", "Commands that wait for a book's next batch.", ["book"], multiprocess_mode="livesum"
)
QUEUE_WAIT_SECONDS: Final = CollectedHistogram(
    "tallypoint_queue_wait_seconds",
    "How long the oldest command of a batch had waited for it.",
    buckets=STEP_BUCKETS,
)
BATCH_ENTRIES: Final = CollectedHistogram(
    "tallypoint_batch_entries",
    "Commands in a committed batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_SECONDS: Final = CollectedHistogram(
    "tallypoint_batch_seconds", "Time from taking a batch to its COMMIT.", buckets=SECONDS_BUCKETS
)
BATCH_STEP_SECONDS: Final = CollectedHistogram(
    "tallypoint_batch_step_seconds",
    "Parts of the time of a batch: read (0 where the state is in memory), decide, write (with its COMMIT).",
    ["step"],
    buckets=STEP_BUCKETS,
)
FENCE_WAIT_SECONDS: Final = CollectedHistogram(
    "tallypoint_fence_wait_seconds",
    "Time to get the lock of a book's head, for batches that take it.",
    buckets=STEP_BUCKETS,
)
BATCH_RETRIES: Final = Counter(
    "tallypoint_batch_retries",
    "Batches that ran again: race (another writer came first), key (another book booked the key), connection, bisect.",
    ["reason"],
)
FORWARDED_CALLS: Final = CollectedCounter(
    "tallypoint_forwarded_calls",
    "Calls for a book of another worker: answered by it, booked locally instead, or failed.",
    ["outcome"],
)
CACHE_LOOKUPS: Final = CollectedCounter(
    "tallypoint_cache_lookups", "Look-ups in the memory of a worker.", ["cache", "outcome"]
)
EVALUATION_SECONDS: Final = CollectedHistogram(
    "tallypoint_evaluation_seconds", "Time to evaluate the promotions for a receipt.", buckets=STEP_BUCKETS
)

# --- processes: use and saturation -------------------------------------------------------------------------------

CHILD_RESTARTS: Final = Counter("tallypoint_child_restarts", "Child processes started again after a death.", ["child"])
CHILDREN_READY: Final = Gauge(
    "tallypoint_children_ready", "Child processes that are ready.", ["child"], multiprocess_mode="mostrecent"
)
LOOP_DELAY_SECONDS: Final = CollectedHistogram(
    "tallypoint_loop_delay_seconds",
    "How late the event loop runs what is due, looked at four times a second.",
    ["process"],
    buckets=STEP_BUCKETS,
)
LINE_SECONDS: Final = CollectedHistogram(
    "tallypoint_line_seconds",
    "How long a call waits until its process takes it, tried ten times a second.",
    ["process"],
    buckets=STEP_BUCKETS,
)
GC_SECONDS: Final = CollectedHistogram(
    "tallypoint_gc_seconds", "Pauses of the garbage collector.", ["process"], buckets=STEP_BUCKETS
)
PROCESS_CPU_SECONDS: Final = Counter(
    "tallypoint_process_cpu_seconds", "Processor time used, user and system.", ["process"]
)
PROCESS_RESIDENT_BYTES: Final = Gauge(
    "tallypoint_process_resident_bytes", "Memory in use.", ["process"], multiprocess_mode="livemostrecent"
)

# --- the ledger, by `server/measuring/ledger.py` -------------------------------------------------------------------

LEDGER_ENTRIES: Final = Gauge(
    "tallypoint_ledger_entries", "Entries of a book.", ["book"], multiprocess_mode="livemostrecent"
)
LEDGER_POINTS: Final = Gauge(
    "tallypoint_ledger_points",
    "Balance of an account over all books, in whole points with their fraction. Over all accounts of a unit it is 0; "
    "outstanding are available + pending + held + debt.",
    ["unit", "account"],
    multiprocess_mode="livemostrecent",
)
POSTGRES_CONNECTIONS: Final = Gauge(
    "tallypoint_postgres_connections", "Connections to the ledger's database.", multiprocess_mode="livemostrecent"
)
POSTGRES_BYTES: Final = Gauge(
    "tallypoint_postgres_bytes", "Size of the ledger's database.", multiprocess_mode="livemostrecent"
)

# --- the CRM stream ----------------------------------------------------------------------------------------------

CRM_LAG_ENTRIES: Final = Gauge(
    "tallypoint_crm_lag_entries",
    "Entries of a book that are not in the CRM database yet.",
    ["book"],
    multiprocess_mode="mostrecent",
)
CRM_LAG_SECONDS: Final = Gauge(
    "tallypoint_crm_lag_seconds",
    "Age of the oldest entry of a book that is not in the CRM database yet; 0 if there is none.",
    ["book"],
    multiprocess_mode="mostrecent",
)
CRM_ENTRIES: Final = Counter("tallypoint_crm_entries", "Entries written to the CRM database.", ["book"])
CRM_CONNECTED: Final = Gauge(
    "tallypoint_crm_connected", "1 while the CRM stream reaches both databases.", multiprocess_mode="mostrecent"
)

# --- the sweeper -------------------------------------------------------------------------------------------------

SWEEP_DUE: Final = Gauge(
    "tallypoint_sweep_due_accounts",
    "Accounts that time had changed, and nothing had been booked of it yet, as the last sweep began.",
    multiprocess_mode="mostrecent",
)
SWEPT_ENTRIES: Final = Counter("tallypoint_swept_entries", "Entries that the sweeper booked.", ["book"])
SWEEP_LAST_RUN: Final = Gauge(
    "tallypoint_sweep_last_run_seconds",
    "When the last sweep that came to its end began, in seconds since 1970.",
    multiprocess_mode="mostrecent",
)
FORGOTTEN_MESSAGES: Final = Counter("tallypoint_forgotten_messages", "Message ids forgotten because of their age.")


class CallMeter:
    """Counts, times and names the refusals of the calls of one method; a call costs it 0.5 µs."""

    def __init__(self, method: str) -> None:
        self.method = method
        self._by_code: dict[tuple[str, str], BufferedHistogram] = {}
        self._by_reason: dict[str, BufferedCounter] = {}

    def observe(self, code: str, seconds: float, store_group: str = NO_GROUP) -> None:
        """Count one call that ended with a status code, such as ``OK``."""
        histogram = self._by_code.get((code, store_group))
        if histogram is None:
            series = CALL_SECONDS.labels(self.method, code, store_group)
            histogram = self._by_code[code, store_group] = BufferedHistogram(series)
        histogram.observe(seconds)

    def refuse(self, reason: str) -> None:
        """Count one refusal by its name without prefix, such as ``MEMBER_BLOCKED``."""
        counter = self._by_reason.get(reason)
        if counter is None:
            counter = self._by_reason[reason] = BufferedCounter(REFUSALS.labels(self.method, reason))
        counter.inc()


class StreamMeter:
    """Counts the streams of one method."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._open = STREAMS_OPEN.labels(method)

    def begin(self) -> None:
        """Count a stream that opened."""
        self._open.inc()

    def end(self, code: str) -> None:
        """Count its end."""
        self._open.dec()
        STREAMS_ENDED.labels(self._method, code).inc()


class BatchTimes(Protocol):
    """When a batch was where, in seconds of `time.perf_counter`; as `ledger.booking.committer.BatchTimes`."""

    @property
    def begun(self) -> float:
        """It was taken from the queue."""

    @property
    def read(self) -> float:
        """What it needs was known."""

    @property
    def decided(self) -> float:
        """Every command had its verdict."""

    @property
    def written(self) -> float:
        """It was durable."""


class CommitterMetrics:
    """Tells Prometheus what the committer, its caches and the forwarding of a worker do.

    A batch costs 3 µs, everything else less than 0.5 µs.

    Args:
        tell: Is told of each batch as well: its book, its commands, and when it was where.
    """

    def __init__(self, tell: Callable[[int, int, BatchTimes], None] | None = None) -> None:
        self._tell = tell
        self._entries = BufferedHistogram(BATCH_ENTRIES)
        self._seconds = BufferedHistogram(BATCH_SECONDS)
        self._waited = BufferedHistogram(QUEUE_WAIT_SECONDS)
        self._read, self._decide, self._write = (
            BufferedHistogram(BATCH_STEP_SECONDS.labels(step)) for step in ("read", "decide", "write")
        )
        self._fence = BufferedHistogram(FENCE_WAIT_SECONDS)
        self._depths: dict[int, BufferedGauge] = {}
        self._lookups: dict[str, tuple[BufferedCounter, BufferedCounter]] = {}
        self._forwarded = {
            outcome: BufferedCounter(FORWARDED_CALLS.labels(outcome)) for outcome in ("answered", "local", "failed")
        }

    def batch(self, book: int, commands: int, waited_seconds: float, times: BatchTimes) -> None:
        """Count a committed batch: its commands, how long the oldest had waited, and when the batch was where."""
        self._entries.observe(commands)
        self._waited.observe(waited_seconds)
        self._read.observe(times.read - times.begun)
        self._decide.observe(times.decided - times.read)
        self._write.observe(times.written - times.decided)
        self._seconds.observe(times.written - times.begun)
        if self._tell is not None:
            self._tell(book, commands, times)

    def retry(self, reason: str) -> None:
        """Count a batch that runs again: ``race``, ``key``, ``connection`` or ``bisect``."""
        BATCH_RETRIES.labels(reason).inc()

    def fence(self, seconds: float) -> None:
        """Time the wait for the lock of a book's head."""
        self._fence.observe(seconds)

    def known(self, commands: int, unknown: int) -> None:
        """Count for how many commands of a batch the state was in memory; it had to be read for `unknown` of them."""
        self.lookup("account", commands - unknown, unknown)

    def depth(self, book: int, waiting: int) -> None:
        """Say how many commands wait for a book."""
        gauge = self._depths.get(book)
        if gauge is None:
            gauge = self._depths[book] = BufferedGauge(QUEUE_COMMANDS.labels(str(book)))
        gauge.set(waiting)

    def lookup(self, cache: str, hit: int, missed: int) -> None:
        """Count look-ups in a cache: ``member`` or ``account``."""
        counters = self._lookups.get(cache)
        if counters is None:
            hits, misses = (BufferedCounter(CACHE_LOOKUPS.labels(cache, outcome)) for outcome in ("hit", "miss"))
            counters = self._lookups[cache] = hits, misses
        if hit:
            counters[0].inc(hit)
        if missed:
            counters[1].inc(missed)

    def forwarded(self, outcome: str) -> None:
        """Count a call for another worker's book: ``answered`` by it, booked ``local`` instead, or ``failed``."""
        self._forwarded[outcome].inc()


EVALUATION: Final = BufferedHistogram(EVALUATION_SECONDS)
"""`EVALUATION.observe(seconds)` after each evaluation of a receipt."""
UNDER_WAY: Final = BufferedGauge(CALLS_UNDER_WAY)
"""`UNDER_WAY.add(1)` when a call begins, -1 when it ends."""


def set_crm_lag(lag_entries: Mapping[int, int], lag_seconds: Mapping[int, float]) -> None:
    """Set the CRM stream's lag of each book."""
    for book, entries in lag_entries.items():
        CRM_LAG_ENTRIES.labels(str(book)).set(entries)
    for book, seconds in lag_seconds.items():
        CRM_LAG_SECONDS.labels(str(book)).set(seconds)


class MetricsEndpoint:
    """Answers /metrics over HTTP for all processes; port 0 takes a free one."""

    def __init__(self, host: str, port: int) -> None:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # has no annotations
        self._server, self._thread = start_http_server(port, host, registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def forget_process(pid: int) -> None:
    """Drop the gauges of a process that ended; its counts stay."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # has no annotations
