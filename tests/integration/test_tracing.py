"""Traces: a call over real gRPC into real books yields its tree of spans, and most calls yield nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc
from tallypoint.v1 import common_pb2 as api

from ledger.booking.committer import Committer
from server.base.errors import Refused
from server.base.settings import Settings
from server.base.storage import writer_connect
from server.checkout.session import serve_session
from server.checkout.submission import submit
from server.edge.caller import Caller, Identity, Role
from server.edge.handlers import Edge, service_handler
from server.edge.stream import Stream
from server.measuring.metrics import CommitterMetrics
from server.measuring.timeline import Timeline
from server.measuring.tracing import Tracing, open_tracing
from server.process.hosting import Port, tracing_of
from tests.support.books import open_test_books
from tests.support.commands import member, purchase

SERVICE = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
KEY = ("authorization", "Bearer terminal")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED, NOT_TRACED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Keys:
    """One caller."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Know the terminal."""
        return Identity(Role.TERMINAL, "register 1", "s1", "t1") if bearer_key == "terminal" else None


class Servicer:
    """Identify books a purchase; Cancel is refused; Return is at fault."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._receipts = iter(range(1, 1000))
        self.headers: list[str] = []

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Book something."""
        if caller.timeline.trace is not None:
            self.headers.append(caller.timeline.trace.header())
        command = purchase(next(self._receipts), member(1), earn=[100])
        await submit(self._committer, command, caller.deadline, marks=caller.timeline)
        return checkout_pb2.IdentifyResponse()

    async def cancel(self, request: checkout_pb2.CancelRequest, caller: Caller) -> checkout_pb2.CancelResponse:
        """Refuse."""
        raise Refused(api.REFUSAL_REASON_HOLD_GONE, "gone")

    async def return_(self, request: checkout_pb2.ReturnRequest, caller: Caller) -> checkout_pb2.ReturnResponse:
        """Make a mistake."""
        raise ValueError("a mistake")

    async def session(self, stream: Stream, caller: Caller) -> None:
        """Serve Identify over a stream."""
        await serve_session(stream, caller, {"identify": self.identify})


class Traced:
    """A port whose spans end up in a list."""

    def __init__(self, share: float) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)
        self.stub: Any = None
        self.servicer: Servicer | None = None

    def spans(self) -> dict[str, ReadableSpan]:
        """Return the spans that ended, by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def tree(self) -> list[str]:
        """Return the names of the spans in the order of their starts, each indented below its parent."""
        spans = sorted(
            self.exporter.get_finished_spans(), key=lambda span: (span.start_time or 0, -(span.end_time or 0))
        )
        below: dict[int | None, list[ReadableSpan]] = {}
        known = {span.context.span_id for span in spans}
        for span in spans:
            parent = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
            below.setdefault(parent, []).append(span)

        def lines(parent: int | None, depth: int) -> Iterator[str]:
            for span in below.get(parent, []):
                yield "  " * depth + span.name
                yield from lines(span.context.span_id, depth + 1)

        return list(lines(None, 0))


@pytest.fixture
def share() -> float:
    """The share of calls that are traced."""
    return 0.0


@pytest.fixture
async def traced(ledger_dsn: str, tmp_path: Path, share: float) -> AsyncIterator[Traced]:
    """A running port over one book."""
    traced = Traced(share)
    async with open_test_books(ledger_dsn, 1) as books:
        observer = CommitterMetrics(traced.tracing.batch)
        committer = Committer(writer_connect(books.dsn, "test"), 1, books.clock, observer=observer)
        traced.servicer = Servicer(committer)
        edge = Edge(Keys(), tracing=traced.tracing)
        handlers = service_handler(SERVICE, traced.servicer, frozenset({Role.TERMINAL}), edge)
        port = Port("127.0.0.1:0", Settings(data_dir=tmp_path, drain_timeout_seconds=5), edge, [(SERVICE, handlers)])
        await port.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as channel:
            traced.stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
            yield traced
        await port.drain()
        await committer.close()


def identify() -> checkout_pb2.IdentifyRequest:
    """Return a sound request."""
    return checkout_pb2.IdentifyRequest(identifier=api.Identifier(card_number="2000000000008"))


TREE = [
    "CheckoutService/Identify",
    *("  admitted", "  queued", "  committer batch", "    PostgreSQL read", "    decide", "    PostgreSQL write"),
    *("  read", "  decided", "  written", "  answered"),
]


async def test_a_call_yields_its_tree(traced: Traced) -> None:
    """Below the caller's own span: the steps, and the batch with its queries."""
    await traced.stub.Identify(identify(), metadata=(KEY, ("traceparent", TRACED)))
    assert sorted(traced.tree()) == sorted(TREE)
    spans = traced.spans()
    call = spans["CheckoutService/Identify"]
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == PARENT
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.response.status_code": "OK",
        "tallypoint.store": "s1",
        "tallypoint.terminal": "t1",
    }
    assert spans["PostgreSQL write"].kind is SpanKind.CLIENT
    assert (spans["PostgreSQL write"].attributes or {})["db.system.name"] == "postgresql"
    assert dict(spans["committer batch"].attributes or {}) == {"tallypoint.book": 0, "tallypoint.commands": 1}
    for span in spans.values():
        assert call.start_time is not None
        assert call.end_time is not None
        assert span.start_time is not None
        assert span.end_time is not None
        slack = 5_000_000  # the clocks of dates and of durations are read one after the other
        assert call.start_time - slack <= span.start_time <= span.end_time <= call.end_time + slack
    assert traced.servicer is not None
    assert traced.servicer.headers == [f"00-{TRACE}-{call.context.span_id:016x}-01"]
    assert "2000000000008" not in str([span.to_json() for span in spans.values()])


async def test_calls_of_one_batch_share_its_span(traced: Traced) -> None:
    """It stands below one of them, and the others link to it."""
    metadata = (KEY, ("traceparent", TRACED))
    await asyncio.gather(*(traced.stub.Identify(identify(), metadata=metadata) for _ in range(12)))
    finished = traced.exporter.get_finished_spans()
    calls = [span for span in finished if span.name == "CheckoutService/Identify"]
    batches = [span for span in finished if span.name == "committer batch"]
    assert len(calls) == 12
    of_call = {call.context.span_id: {link.context.span_id for link in call.links} for call in calls}
    for batch in batches:
        assert batch.parent is not None
        of_call[batch.parent.span_id].add(batch.context.span_id)
    sizes = {batch.context.span_id: (batch.attributes or {})["tallypoint.commands"] for batch in batches}
    found = [of for ids in of_call.values() for of in ids]
    assert {each: found.count(each) for each in found} == sizes
    assert len(found) == len(calls)


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_the_caller_decides(traced: Traced, share: float) -> None:
    """A caller that does not trace its call is not traced here; without a word of the caller the share decides."""
    await traced.stub.Identify(identify(), metadata=(KEY, ("traceparent", NOT_TRACED)))
    assert not traced.exporter.get_finished_spans()
    await traced.stub.Identify(identify(), metadata=(KEY,))
    await traced.stub.Identify(identify(), metadata=(KEY, ("traceparent", "nonsense")))
    assert traced.tree().count("CheckoutService/Identify") == (2 if share else 0)


@pytest.mark.parametrize("share", [1.0])
async def test_refusals_are_no_faults(traced: Traced) -> None:
    """Only what is our fault is an error; calls that were not admitted are traced, too."""
    key = api.ReceiptKey(store_id="12", terminal_id="1", business_date="2026-11-22", receipt_number=7)
    checkout = checkout_pb2.CheckoutKey(store_id="12", terminal_id="1", checkout_id="c")
    cancel = checkout_pb2.CancelRequest(message_id=str(uuid.uuid4()), checkout_key=checkout)
    back = checkout_pb2.ReturnRequest(message_id=str(uuid.uuid4()), receipt_key=key, purchase_key=key)
    back.event_at.GetCurrentTime()
    for call in (traced.stub.Cancel(cancel, metadata=(KEY,)), traced.stub.Return(back, metadata=(KEY,))):
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.stub.Identify(identify())
    spans = traced.spans()
    found = {
        name.split("/")[1]: (
            str((spans[name].attributes or {})["rpc.response.status_code"]),
            spans[name].status.status_code,
        )
        for name in ("CheckoutService/Cancel", "CheckoutService/Return", "CheckoutService/Identify")
    }
    assert found == {
        "Cancel": ("FAILED_PRECONDITION", StatusCode.UNSET),
        "Return": ("INTERNAL", StatusCode.ERROR),
        "Identify": ("UNAUTHENTICATED", StatusCode.UNSET),
    }


async def test_calls_of_a_session_are_below_its_stream(traced: Traced) -> None:
    """By the trace that the stream was opened with."""
    stream = traced.stub.Session(metadata=(KEY, ("traceparent", TRACED)))
    for number in (1, 2):
        await stream.write(checkout_pb2.SessionRequest(correlation_id=number, identify=identify()))
        assert (await stream.read()).HasField("identify")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    calls = [s for s in traced.exporter.get_finished_spans() if s.name == "CheckoutService/Session/identify"]
    assert [f"{call.parent.span_id:016x}" for call in calls if call.parent is not None] == [PARENT, PARENT]


def test_a_batch_of_another_worker_is_shown_by_its_moments() -> None:
    """It told them with its answer; both have one clock of durations."""
    traced = Traced(1.0)
    trace = traced.tracing.begin("CheckoutService/Commit", [])
    assert trace is not None
    timeline = Timeline()
    for step in ("admitted", "queued", "read", "decided", "written", "answered"):
        timeline.mark(step)
    trace.end("OK", None, timeline)
    assert {"committer batch", "PostgreSQL read", "decide", "PostgreSQL write"} <= traced.spans().keys()
    assert not traced.spans()["committer batch"].attributes


def test_spans_arrive_at_a_collector() -> None:
    """As OTLP over HTTP, with the names of service and process."""
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            assert self.path == "/v1/traces"
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Be silent."""

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        tracing = open_tracing(f"http://127.0.0.1:{collector.server_port}/", 1.0, "worker-1")
        trace = tracing.begin("CheckoutService/Commit", [])
        assert trace is not None
        timeline = Timeline()
        timeline.mark("answered")
        trace.end("OK", None, timeline)
        tracing.close()
        collector.shutdown()
        thread.join()
    [resource] = [spans for request in received for spans in request.resource_spans]
    facts = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (facts["service.name"], facts["service.instance.id"]) == ("tallypoint", "worker-1")
    assert {span.name for scope in resource.scope_spans for span in scope.spans} == {
        "CheckoutService/Commit",
        "answered",
    }


def test_off_means_not_loaded(tmp_path: Path) -> None:
    """The server runs without the packages, and says which are missing when they are wanted."""
    assert tracing_of(Settings(data_dir=tmp_path), "worker-1") is None
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import server.process.worker\n"
        "from server.process.hosting import tracing_of\n"
        "from server.base.settings import Settings, StartRefusedError\n"
        "try: tracing_of(Settings(trace_endpoint='http://127.0.0.1:1'), 'worker-1')\n"
        "except StartRefusedError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tallypoint[tracing]" in told.stdout
