"""Sessions over real gRPC: many calls of one stream at once, whatever becomes of each, of the stream or of us."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused
from server.base.settings import Settings
from server.checkout import session
from server.checkout.session import MAX_UNDER_WAY, serve_session
from server.edge.caller import Caller, Identity, Role
from server.edge.handlers import Edge, service_handler
from server.edge.stream import Stream
from server.measuring.timeline import UNTIMED, SlowCalls, Timeline
from server.process.hosting import Port
from tests.support.crm import eventually
from tests.support.refusals import details_of

SERVICE = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
TERMINAL = (("authorization", "Bearer terminal"),)
WAIT_SECONDS = 10
Request, Response = checkout_pb2.SessionRequest, checkout_pb2.SessionResponse


class Keys:
    """One caller."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Know the terminal."""
        return Identity(Role.TERMINAL, "register 1", "s1", "t1") if bearer_key == "terminal" else None


class Servicer:
    """Identify answers at once, Cancel when the test lets it, and refuses when told to."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.entered = asyncio.Semaphore(0)
        self.cancelled = asyncio.Semaphore(0)
        self.identify_does: Callable[[Caller], Awaitable[None]] | None = None

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Answer with a message."""
        self.callers.append(caller)
        if self.identify_does is not None:
            await self.identify_does(caller)
        return checkout_pb2.IdentifyResponse(member=api.MemberSummary(masked_name="O*** K."))

    async def cancel(self, request: checkout_pb2.CancelRequest, caller: Caller) -> bytes:
        """Answer with bytes, once the test opens the gate of the checkout."""
        self.entered.release()
        try:
            await self.gates.setdefault(request.checkout_key.checkout_id, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return checkout_pb2.CancelResponse(released_points_minor=7).SerializeToString()

    async def session(self, stream: Stream, caller: Caller) -> None:
        """Serve both over a stream."""
        await serve_session(stream, caller, {"identify": self.identify, "cancel": self.cancel})

    def open(self, checkout_id: str) -> None:
        """Let a Cancel end."""
        self.gates.setdefault(checkout_id, asyncio.Event()).set()


class Running:
    """A port with the servicer above, and a client."""

    def __init__(self, servicer: Servicer, edge: Edge, port: Port, channel: grpc.aio.Channel) -> None:
        self.servicer, self.edge, self.port = servicer, edge, port
        self.stub = checkout_pb2_grpc.CheckoutServiceStub(channel)

    def open_stream(self) -> Any:
        """Open a session."""
        return self.stub.Session(metadata=TERMINAL)

    async def has_entered(self, count: int) -> None:
        """Wait until so many Cancels are under way."""
        for _ in range(count):
            await asyncio.wait_for(self.servicer.entered.acquire(), WAIT_SECONDS)


def make_edge(**changes: Any) -> Edge:
    """Return an edge, but for the changes."""
    return Edge(Keys(), **{"group_of": {"s1": "north"}.__getitem__, **changes})


@pytest.fixture
def edge() -> Edge:
    """What the calls share; a test may have its own."""
    return make_edge()


@pytest.fixture
async def running(tmp_path: Path, edge: Edge) -> AsyncIterator[Running]:
    """A running port."""
    servicer = Servicer()
    handlers = service_handler(SERVICE, servicer, frozenset({Role.TERMINAL}), edge)
    settings = Settings(data_dir=tmp_path, drain_timeout_seconds=5)
    port = Port("127.0.0.1:0", settings, edge, [(SERVICE, handlers)])
    await port.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as channel:
        yield Running(servicer, edge, port, channel)
    await port.drain()


def identify(correlation_id: int, **changes: Any) -> checkout_pb2.SessionRequest:
    """Return a sound Identify."""
    call = checkout_pb2.IdentifyRequest(identifier=api.Identifier(card_number="2000000000008"))
    return Request(**{"correlation_id": correlation_id, "identify": call, **changes})


def cancel(correlation_id: int) -> checkout_pb2.SessionRequest:
    """Return a Cancel whose checkout has the correlation id as its name."""
    key = checkout_pb2.CheckoutKey(store_id="s1", terminal_id="t1", checkout_id=str(correlation_id))
    return Request(
        correlation_id=correlation_id,
        cancel=checkout_pb2.CancelRequest(message_id=str(uuid.uuid4()), checkout_key=key),
    )


async def read(stream: Any) -> checkout_pb2.SessionResponse:
    """Read one answer."""
    answer: checkout_pb2.SessionResponse = await asyncio.wait_for(stream.read(), WAIT_SECONDS)
    return answer


@pytest.mark.parametrize("correlation_id", [0, 1, 127, 128, 16_384, 2**31, 2**63 - 1, -1, -(2**63)])
async def test_answers_bear_their_number(running: Running, correlation_id: int) -> None:
    """Whatever the number, and whether the servicer returns a message or bytes."""
    stream = running.open_stream()
    await stream.write(identify(correlation_id))
    expected = checkout_pb2.IdentifyResponse(member=api.MemberSummary(masked_name="O*** K."))
    assert await read(stream) == Response(correlation_id=correlation_id, identify=expected)
    running.servicer.open(str(correlation_id))
    await stream.write(cancel(correlation_id))
    released = checkout_pb2.CancelResponse(released_points_minor=7)
    assert await read(stream) == Response(correlation_id=correlation_id, cancel=released)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_large_answers_are_whole(running: Running) -> None:
    """Lengths of several bytes, and many answers at once."""
    text = "z" * 300

    async def refuse(caller: Caller) -> None:
        raise Refused(api.REFUSAL_REASON_MEMBER_BLOCKED, text)

    running.servicer.identify_does = refuse
    stream = running.open_stream()
    for number in range(200):
        await stream.write(identify(number))
    answers = [await read(stream) for _ in range(200)]
    assert sorted(answer.correlation_id for answer in answers) == list(range(200))
    assert {answer.refusal.message for answer in answers} == {text}


async def test_answers_overtake_each_other(running: Running) -> None:
    """A slow call keeps nobody waiting."""
    stream = running.open_stream()
    await stream.write(cancel(1))
    await stream.write(identify(2))
    assert (await read(stream)).correlation_id == 2
    running.servicer.open("1")
    assert (await read(stream)).correlation_id == 1


async def test_a_stream_cannot_flood_us(running: Running) -> None:
    """No more than so many are read; when one ends, the next is."""
    stream = running.open_stream()
    for number in range(MAX_UNDER_WAY + 3):
        await stream.write(cancel(number))
    await running.has_entered(MAX_UNDER_WAY)
    await running.stub.Identify(identify(0).identify, metadata=TERMINAL)  # the port goes on meanwhile
    assert running.servicer.entered.locked()
    for number in (5, 9):
        running.servicer.open(str(number))
        assert (await read(stream)).correlation_id == number
        await running.has_entered(1)
    assert running.servicer.entered.locked()


async def test_refusals_and_faults_are_answers(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """The others go on."""

    async def fail(caller: Caller) -> None:
        raise ValueError("phone +380501234567 is odd")

    stream = running.open_stream()
    await stream.write(Request(correlation_id=1))
    empty = await read(stream)
    assert (empty.refusal.reason, empty.refusal.code) == (api.REFUSAL_REASON_INVALID_REQUEST, 3)
    await stream.write(identify(2, timeout_milliseconds=-1))
    assert (await read(stream)).refusal.violations[0].field == "timeout_milliseconds"
    running.servicer.identify_does = fail
    await stream.write(identify(3))
    fault = (await read(stream)).refusal
    assert fault.reason == api.REFUSAL_REASON_INTERNAL
    incident = fault.message.split("incident ")[1].split(";")[0]
    assert incident in capsys.readouterr().out
    running.servicer.identify_does = None
    await stream.write(identify(4))
    assert (await read(stream)).identify.member.masked_name


async def test_bytes_that_are_no_request_end_the_stream(running: Running) -> None:
    """Nobody knows which call they were."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port.number}") as channel:
        stream: Any = channel.stream_stream(f"/{SERVICE.full_name}/Session")(metadata=TERMINAL)
        await stream.write(b"\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert details_of(caught.value).reason == "INVALID_REQUEST"


async def test_a_client_that_ends_gets_what_is_under_way(running: Running) -> None:
    """Half-closed, the stream still answers."""
    stream = running.open_stream()
    await stream.write(cancel(1))
    await stream.done_writing()
    await running.has_entered(1)
    running.servicer.open("1")
    assert (await read(stream)).correlation_id == 1
    assert await stream.read() is grpc.aio.EOF


async def test_a_client_that_vanishes_cancels_its_calls(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stays under way, and nothing is logged: it happens every day."""
    stream = running.open_stream()
    for number in range(3):
        await stream.write(cancel(number))
    await running.has_entered(3)
    stream.cancel()
    for _ in range(3):
        await asyncio.wait_for(running.servicer.cancelled.acquire(), WAIT_SECONDS)

    async def is_forgotten() -> bool:
        return running.edge.calls_under_way == 0 and not running.edge.streams

    await eventually(is_forgotten, "the stream is forgotten")
    assert REGISTRY.get_sample_value("tallypoint_calls_under_way") == 0
    assert not capsys.readouterr().out


async def test_a_client_that_vanishes_while_it_is_answered(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that nobody takes harm nobody."""
    for _ in range(5):
        stream = running.open_stream()
        for number in range(MAX_UNDER_WAY - 1):
            await stream.write(cancel(number))
        await running.has_entered(MAX_UNDER_WAY - 1)
        for number in range(MAX_UNDER_WAY - 1):
            running.servicer.open(str(number))
        await read(stream)
        stream.cancel()
        running.servicer.gates.clear()

    async def is_forgotten() -> bool:
        return running.edge.calls_under_way == 0

    await eventually(is_forgotten, "the streams are forgotten")
    assert not caplog.records


async def test_draining_answers_what_is_under_way(running: Running) -> None:
    """And reads no more."""
    stream = running.open_stream()
    await stream.write(cancel(1))
    await running.has_entered(1)
    draining = asyncio.create_task(running.port.drain())

    async def is_draining() -> bool:
        return running.edge.draining

    await eventually(is_draining, "it drains")
    running.servicer.open("1")
    assert (await read(stream)).correlation_id == 1
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await draining


@pytest.mark.parametrize("edge", [make_edge(stream_age_seconds=0.2)])
async def test_an_old_stream_ends_in_order(running: Running) -> None:
    """Its register opens another, perhaps at another worker."""
    stream = running.open_stream()
    await stream.write(cancel(1))
    await running.has_entered(1)

    async def is_ended() -> bool:
        return all(each._ended for each in running.edge.streams)

    await eventually(is_ended, "it is old")
    running.servicer.open("1")
    assert (await read(stream)).correlation_id == 1
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_each_call_has_its_caller(running: Running) -> None:
    """With a deadline of its own, and the request as it was sent."""
    loop = asyncio.get_running_loop()
    stream, sent = running.open_stream(), identify(1, timeout_milliseconds=60_000)
    before = loop.time()
    await stream.write(sent)
    await stream.write(identify(2))
    for _ in range(2):
        await read(stream)
    first, second = sorted(running.servicer.callers, key=lambda caller: -(caller.deadline or 0))
    assert first[:4] == second[:4] == (Role.TERMINAL, "register 1", "s1", "t1")
    assert first.deadline is not None
    assert second.deadline is not None
    assert before + 60 <= first.deadline <= loop.time() + 60
    assert before + session.DEFAULT_TIMEOUT_SECONDS <= second.deadline <= loop.time() + session.DEFAULT_TIMEOUT_SECONDS
    assert first.raw_request() == sent.identify.SerializeToString()
    assert [step for step, _ in first.timeline.steps] == ["admitted", "answered"]
    await running.stub.Identify(sent.identify, metadata=TERMINAL)
    assert running.servicer.callers[-1].raw_request() == sent.identify.SerializeToString()


async def test_calls_are_counted_by_store_group_and_refusals_by_name(running: Running) -> None:
    """On a stream as by themselves."""

    async def refuse(caller: Caller) -> None:
        raise Refused(api.REFUSAL_REASON_MEMBER_BLOCKED, "blocked")

    def calls(method: str) -> float:
        labels = {"method": method, "code": "FAILED_PRECONDITION", "store_group": "north"}
        return REGISTRY.get_sample_value("tallypoint_call_seconds_count", labels) or 0

    def refusals(method: str) -> float:
        labels = {"method": method, "reason": "MEMBER_BLOCKED"}
        return REGISTRY.get_sample_value("tallypoint_refusals_total", labels) or 0

    methods = ("CheckoutService/Session/identify", "CheckoutService/Identify")
    before = [(calls(method), refusals(method)) for method in methods]
    running.servicer.identify_does = refuse
    stream = running.open_stream()
    await stream.write(identify(1))
    await read(stream)
    with pytest.raises(grpc.aio.AioRpcError):
        await running.stub.Identify(identify(1).identify, metadata=TERMINAL)
    assert [(calls(method), refusals(method)) for method in methods] == [(a + 1, b + 1) for a, b in before]


@pytest.mark.parametrize("edge", [make_edge(slow_call_milliseconds=1)])
async def test_slow_calls_are_logged_with_where_the_time_went(
    running: Running,
) -> None:
    """On a stream as by themselves; and nothing of what they were about."""

    async def be_slow(caller: Caller) -> None:
        caller.timeline.mark("judged")
        await asyncio.sleep(0.002)
        caller.timeline.mark("written")

    running.servicer.identify_does = be_slow
    with capture_logs() as logs:
        stream = running.open_stream()
        await stream.write(identify(1))
        await read(stream)
        await running.stub.Identify(identify(1).identify, metadata=TERMINAL)
    events = [event for event in logs if event["event"] == "slow_call"]
    assert [event["method"] for event in events] == ["CheckoutService/Session/identify", "CheckoutService/Identify"]
    for event in events:
        assert list(event["milliseconds"]) == ["admitted", "judged", "written", "answered"]
        assert event["milliseconds"]["written"] >= 1
        assert sum(event["milliseconds"].values()) == pytest.approx(event["seconds"] * 1000, abs=0.5)
        assert (event["code"], event["store"], event["terminal"]) == ("OK", "s1", "t1")
    assert "2000000000008" not in str(logs)


def test_many_slow_calls_are_counted_instead() -> None:
    """Ten a second are logged; the next one says how many were not."""
    seconds = 5.0
    slow = SlowCalls(100, lambda: seconds)
    with capture_logs() as logs:
        for _ in range(25):
            slow.tell("CheckoutService/Commit", "OK", 0.2, None, Timeline())
        seconds = 6.0
        for _ in range(2):
            slow.tell("CheckoutService/Commit", "OK", 0.2, None, Timeline())
    assert len(logs) == 12
    assert [event.get("suppressed_before") for event in logs[-2:]] == [15, None]


def test_a_timeline_sums_up_steps_that_come_again_and_sorts_those_that_come_late() -> None:
    """A batch's steps are told when it is over, all at once."""
    timeline = Timeline()
    for step, after in (("judged", 0.25), ("read", 1.0), ("judged", 1.5), ("queued", 0.5)):
        timeline.mark_at(step, timeline.begun + after)
    assert timeline.breakdown_milliseconds() == {"judged": 750.0, "queued": 250.0, "read": 500.0}


@pytest.mark.parametrize("steps", [[], ["queued"], ["queued", "read", "decided", "written"]])
def test_steps_of_another_process_are_added(steps: list[str]) -> None:
    """As they were there; what follows them is the answer."""
    there, here = Timeline(), Timeline()
    here.mark("admitted")
    for step in steps:
        there.mark(step)
    assert here.take_packed(there.packed() + b"answer") == b"answer"
    assert here.steps[1:] == there.steps
    assert UNTIMED.take_packed(there.packed() + b"answer") == b"answer"
    assert not UNTIMED.steps
