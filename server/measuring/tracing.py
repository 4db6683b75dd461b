"""OpenTelemetry traces, off by default: a call, its steps, and the committer's batch with its trips to PostgreSQL.

With the setting ``trace_endpoint`` spans go there by OTLP over HTTP. A call whose caller sent a W3C ``traceparent`` is
traced if the caller traces it; of the others, ``trace_share`` are. Without the setting this module is not even loaded:
its packages are the extra ``tracing`` (see `server.process.hosting.tracing_of`).

Spans are made when a call ends, from the marks of its `Timeline`. A batch belongs to many calls: its span stands in the
trace of the first of them that is traced, and the others link to it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.measuring.metrics import BatchTimes
from server.measuring.timeline import Terminal, Timeline

REMEMBERED_BATCHES: Final = 256
"""A call ends shortly after its batch."""
TRACEPARENT: Final = "traceparent"
_NANOSECONDS: Final = 1_000_000_000
_POSTGRES: Final = {"db.system.name": "postgresql", "db.namespace": "ledger"}
_FAULTS: Final = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"})


class Moments(NamedTuple):
    """When a batch was where, in seconds of `time.perf_counter`."""

    begun: float
    read: float
    decided: float
    written: float


class Batch(NamedTuple):
    """A batch that was committed, known by the moment at which it was durable; another worker's has no facts."""

    book: int | None
    commands: int | None
    times: BatchTimes


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tallypoint")
        self._propagator = TraceContextTextMapPropagator()
        self._batches: deque[Batch] = deque(maxlen=REMEMBERED_BATCHES)
        self._batch_spans: deque[tuple[float, SpanContext]] = deque(maxlen=REMEMBERED_BATCHES)

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallTrace | None:
        """Begin the trace of a call with gRPC metadata; None if it is not traced."""
        carrier = {name: value for name, value in metadata if name in (TRACEPARENT, "tracestate")}
        context = self._propagator.extract(carrier)
        span = self._tracer.start_span(method, context, kind=SpanKind.SERVER)
        return CallTrace(self, span) if span.is_recording() else None

    def batch(self, book: int, commands: int, times: BatchTimes) -> None:
        """Take note of a batch; to be told by the committer's observer before the calls are answered."""
        self._batches.append(Batch(book, commands, times))

    def close(self) -> None:
        """Send what is left; this may take some seconds."""
        self._provider.shutdown()

    def end(self, span: Span, code: str, caller: Terminal | None, timeline: Timeline) -> None:
        """End the span of a call, with one below it for each of its steps."""
        context = trace.set_span_in_context(span)
        epoch = time.time_ns() - int(time.perf_counter() * _NANOSECONDS)
        begun = timeline.begun
        for step, at in sorted(timeline.steps, key=lambda pair: pair[1]):
            part = self._tracer.start_span(step, context, start_time=_moment(epoch, begun))
            part.end(_moment(epoch, at))
            begun = at
            if step == "written":
                self._link_to_batch(span, context, timeline, at, epoch)
        span.set_attributes({"rpc.system.name": "grpc", "rpc.response.status_code": code})
        if caller is not None and caller.store_id:
            span.set_attributes({"tallypoint.store": caller.store_id, "tallypoint.terminal": caller.terminal_id})
        if code in _FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end()

    def header(self, span: Span) -> str:
        """Return the ``traceparent`` with which a span is passed on."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return carrier[TRACEPARENT]

    def _link_to_batch(self, span: Span, context: Context, timeline: Timeline, written: float, epoch: int) -> None:
        for at, of_batch in self._batch_spans:
            if at == written:
                span.add_link(of_batch)
                return
        batch = next((batch for batch in self._batches if batch.times.written == written), None)
        if batch is None:  # of another worker, that did the call for this one and told the moments
            moments = dict(timeline.steps)
            if not moments.keys() >= {"queued", "read", "decided"}:
                return
            batch = Batch(None, None, Moments(moments["queued"], moments["read"], moments["decided"], written))
        self._batch_spans.append((written, self._batch_span(batch, context, epoch)))

    def _batch_span(self, batch: Batch, context: Context, epoch: int) -> SpanContext:
        """Make the span of a batch below a call's, with its parts."""
        times = batch.times
        begun, read, decided, written = (
            _moment(epoch, at) for at in (times.begun, times.read, times.decided, times.written)
        )
        facts: dict[str, int] = {}
        if batch.book is not None and batch.commands is not None:
            facts = {"tallypoint.book": batch.book, "tallypoint.commands": batch.commands}
        span = self._tracer.start_span("committer batch", context, attributes=facts, start_time=begun)
        inside = trace.set_span_in_context(span)
        for name, start, end, is_query in (
            ("PostgreSQL read", begun, read, True),
            ("decide", read, decided, False),
            ("PostgreSQL write", decided, written, True),
        ):
            kind = SpanKind.CLIENT if is_query else SpanKind.INTERNAL
            attributes = _POSTGRES if is_query else {}
            self._tracer.start_span(name, inside, kind, attributes=attributes, start_time=start).end(end)
        span.end(written)
        return span.get_span_context()


class CallTrace:
    """One call that is traced."""

    __slots__ = ("_span", "_tracing")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span

    def end(self, code: str, caller: Terminal | None, timeline: Timeline) -> None:
        """End it with a status code, such as ``OK``."""
        self._tracing.end(self._span, code, caller, timeline)

    def header(self) -> str:
        """Return the ``traceparent`` for whoever goes on with the call."""
        return self._tracing.header(self._span)


def open_tracing(endpoint: str, share: float, process: str) -> Tracing:
    """Return the tracing of a process: to an OTLP collector's address, of a share of the calls that nobody traces."""
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create({"service.name": "tallypoint", "service.instance.id": process}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    return Tracing(provider)


def _moment(epoch: int, at: float) -> int:
    """Return a moment of `time.perf_counter` in nanoseconds since 1970."""
    return epoch + int(at * _NANOSECONDS)
