"""The measurements of all processes, for Prometheus.

Every process writes its own files in a directory (prometheus_client's multiprocess mode), and the supervisor
answers /metrics for all of them. The mode is chosen when `prometheus_client` is imported: `use_directory` must run
before this module is imported by the supervisor, and its children inherit the environment. Without it, as in tests
of single parts, the numbers stay in memory.

Labels carry method names, status codes and book numbers; never anything about a person.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, start_http_server

SECONDS_BUCKETS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.04, 0.06, 0.1),
    *(0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Fine from half a millisecond to a tenth of a second, where checkout calls are; coarse up to ten seconds."""

CALL_SECONDS: Final = Histogram(
    "tallypoint_call_seconds",
    "Calls by method and status code, with the time from parsing to the answer.",
    ["method", "code"],
    buckets=SECONDS_BUCKETS,
)
STREAMS_OPEN: Final = Gauge(
    "tallypoint_streams_open", "Streams that are open now.", ["method"], multiprocess_mode="livesum"
)
STREAMS_ENDED: Final = Counter("tallypoint_streams_ended", "Streams that ended, by status code.", ["method", "code"])
CHILD_RESTARTS: Final = Counter("tallypoint_child_restarts", "Child processes started again after a death.", ["child"])
CHILDREN_READY: Final = Gauge(
    "tallypoint_children_ready", "Child processes that are ready.", ["child"], multiprocess_mode="mostrecent"
)
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
BATCH_ENTRIES: Final = Histogram(
    "tallypoint_batch_entries",
    "Entries in a committed batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
BATCH_SECONDS: Final = Histogram(
    "tallypoint_batch_seconds", "Time from taking a batch to its COMMIT.", buckets=SECONDS_BUCKETS
)

BATCH_RETRIES: Final = Counter("tallypoint_batch_retries", "Batches that ran again, by reason.", ["reason"])


class CallMeter:
    """Counts and times the calls of one method; `observe` costs some 3 µs."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._by_code: dict[str, Histogram] = {}

    def observe(self, code: str, seconds: float) -> None:
        """Count one call that ended with a status code, such as ``OK``."""
        histogram = self._by_code.get(code)
        if histogram is None:
            histogram = self._by_code[code] = CALL_SECONDS.labels(self._method, code)
        histogram.observe(seconds)


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
