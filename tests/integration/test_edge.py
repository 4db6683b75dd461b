"""The edge, over real gRPC: each kind of error arrives with its named reason, and nothing unsound gets through."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused, refusal_message
from server.base.settings import Settings
from server.edge.caller import Caller, Identity, Role
from server.edge.handlers import Edge, service_handler
from server.edge.stream import Stream
from server.edge.validation import check
from server.process.hosting import Port
from tests.support.certificates import make_certificate
from tests.support.refusals import Details, details_of

SERVICE = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
TERMINAL = (("authorization", "Bearer terminal"),)
FINANCE = (("authorization", "Bearer finance"),)
MAX_CALLS = 3


class Keys:
    """Two callers."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Know them by simple keys."""
        return {
            "terminal": Identity(Role.TERMINAL, "register 1", "s1", "t1"),
            "finance": Identity(Role.FINANCE, "finance"),
        }.get(bearer_key)


class Servicer:
    """A small servicer: Identify does what the test sets, Quote waits, Session and CommitBatch check their items."""

    def __init__(self) -> None:
        self.identify_does: Callable[[Caller], Any] = lambda caller: None
        self.callers: list[Caller] = []
        self.may_end = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Semaphore(0)

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Do what the test wants."""
        self.callers.append(caller)
        self.identify_does(caller)
        return checkout_pb2.IdentifyResponse(member=api.MemberSummary(masked_name="O*** K."))

    async def quote(self, request: checkout_pb2.QuoteRequest, caller: Caller) -> checkout_pb2.QuoteResponse:
        """Wait until the test says so."""
        self.entered.release()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return checkout_pb2.QuoteResponse(programme_code="done")

    async def commit_batch(
        self, request: checkout_pb2.CommitBatchRequest, caller: Caller
    ) -> checkout_pb2.CommitBatchResponse:
        """Give each item its own result."""
        response = checkout_pb2.CommitBatchResponse()
        for commit in request.commits:
            try:
                check(commit)
                response.results.add(committed=checkout_pb2.CommitResponse(member_id="m"))
            except Refused as refused:
                response.results.add(refusal=refusal_message(refused))
        return response

    async def session(self, stream: Stream, caller: Caller) -> None:
        """Answer each request by its number."""
        while (request := await stream.read()) is not None:
            assert isinstance(request, checkout_pb2.SessionRequest)
            if request.correlation_id < 0:
                raise Refused(api.REFUSAL_REASON_HOLD_GONE, "the session ends here")
            await stream.write(checkout_pb2.SessionResponse(correlation_id=request.correlation_id).SerializeToString())
        await stream.write(checkout_pb2.SessionResponse(correlation_id=999).SerializeToString())


class Running:
    """A port with the servicer above, and a client."""

    def __init__(self, servicer: Servicer, edge: Edge, port: Port, channel: grpc.aio.Channel) -> None:
        self.servicer, self.edge, self.port, self.channel = servicer, edge, port, channel
        self.stub = checkout_pb2_grpc.CheckoutServiceStub(channel)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A running port."""
    servicer, edge = Servicer(), Edge(Keys(), max_concurrent_calls=MAX_CALLS, default_timeout_seconds=3.0)
    handlers = service_handler(SERVICE, servicer, frozenset({Role.TERMINAL}), edge, batch_methods={"CommitBatch"})
    settings = Settings(data_dir=tmp_path, max_message_bytes=64 * 1024, drain_timeout_seconds=5)
    port = Port("127.0.0.1:0", settings, edge, [(SERVICE, handlers)])
    await port.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as channel:
        yield Running(servicer, edge, port, channel)
    servicer.may_end.set()
    await port.drain()


def identify() -> checkout_pb2.IdentifyRequest:
    """Return a sound request."""
    return checkout_pb2.IdentifyRequest(identifier=api.Identifier(card_number="2000000000008"))


def quote(lines: int = 1) -> checkout_pb2.QuoteRequest:
    """Return a sound request."""
    request = checkout_pb2.QuoteRequest(receipt=api.Receipt(currency_code="UAH"))
    request.receipt.event_at.GetCurrentTime()
    for number in range(1, lines + 1):
        request.receipt.lines.add(line_number=number, sku="milk", quantity_milli=1000, list_amount_minor=100)
    return request


def commit(**changes: Any) -> checkout_pb2.CommitRequest:
    """Return a sound request, but for the changes."""
    return checkout_pb2.CommitRequest(
        **{
            "message_id": str(uuid.uuid4()),
            "receipt_key": api.ReceiptKey(
                store_id="s1", terminal_id="t1", business_date="2026-11-21", receipt_number=1
            ),
            "receipt": quote().receipt,
            **changes,
        }
    )


async def refused(call: Any, code: grpc.StatusCode) -> tuple[str, Details]:
    """Await a call that must fail with a code; return its message and details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value
    return caught.value.details() or "", details_of(caught.value)


async def test_a_sound_call_is_answered_and_its_caller_is_known(running: Running) -> None:
    """The servicer learns who calls and until when."""
    before = time.monotonic()
    response = await running.stub.Identify(identify(), metadata=TERMINAL, timeout=60)
    assert response.member.masked_name == "O*** K."
    [caller] = running.servicer.callers
    assert caller[:4] == (Role.TERMINAL, "register 1", "s1", "t1")
    assert caller.deadline is not None
    assert before + 50 < caller.deadline <= time.monotonic() + 61  # gRPC rounds time-outs up on their way


async def test_a_call_without_deadline_gets_the_default_one(running: Running) -> None:
    """Nothing waits for ever."""
    before = time.monotonic()
    await running.stub.Identify(identify(), metadata=TERMINAL)
    [caller] = running.servicer.callers
    assert caller.deadline is not None
    assert before + 3 <= caller.deadline <= time.monotonic() + 3


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        pytest.param((), "carries no access key", id="no-key"),
        pytest.param((("authorization", "Bearer nobody"),), "not known", id="unknown-key"),
        pytest.param((("authorization", "terminal"),), "not known", id="not-a-bearer-key"),
        pytest.param((("authorization", "Bearer "),), "not known", id="empty-key"),
    ],
)
async def test_unknown_callers_are_unauthenticated(
    running: Running, metadata: tuple[tuple[str, str], ...], words: str
) -> None:
    """The message says how to send a key; the servicer is not reached."""
    message, details = await refused(
        running.stub.Identify(identify(), metadata=metadata), grpc.StatusCode.UNAUTHENTICATED
    )
    assert words in message
    assert "authorization: Bearer" in message
    assert (details.reason, details.domain) == ("UNAUTHENTICATED", "tallypoint")
    assert details.cashier_text
    assert not running.servicer.callers


async def test_a_known_caller_of_another_role_is_forbidden(running: Running) -> None:
    """Finance cannot play a register."""
    message, details = await refused(
        running.stub.Identify(identify(), metadata=FINANCE), grpc.StatusCode.PERMISSION_DENIED
    )
    assert message == "this call needs the role terminal; the key has the role finance"
    assert details.reason == "ROLE_FORBIDDEN"
    assert not running.servicer.callers


def _with_line(**changes: Any) -> checkout_pb2.CommitRequest:
    request = commit()
    request.receipt.lines.add(
        **{"line_number": 2, "sku": "bread", "quantity_milli": 1000, "list_amount_minor": 100, **changes}
    )
    return request


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(commit(message_id="7"), "message_id", id="message-id-no-uuid"),
        pytest.param(_with_line(quantity_milli=-1), "receipt.lines[1].quantity_milli", id="negative-quantity"),
        pytest.param(_with_line(list_amount_minor=-5), "receipt.lines[1].list_amount_minor", id="negative-money"),
        pytest.param(_with_line(list_amount_minor=2**62), "receipt.lines[1].list_amount_minor", id="too-much-money"),
        pytest.param(_with_line(sku=""), "receipt.lines[1].sku", id="no-sku"),
        pytest.param(commit(receipt=None), "receipt", id="no-receipt"),
        pytest.param(commit(identifier=api.Identifier()), "identifier.kind", id="empty-identifier"),
        pytest.param(commit(coupon_codes=["x"] * 51), "coupon_codes", id="too-many-coupons"),
        pytest.param(commit(spend_points_minor=-1), "spend_points_minor", id="negative-points"),
    ],
)
async def test_a_violation_names_its_field(running: Running, request_: checkout_pb2.CommitRequest, field: str) -> None:
    """The limits of the proto files are kept, and the answer says which one was broken."""
    message, details = await refused(running.stub.Commit(request_, metadata=TERMINAL), grpc.StatusCode.INVALID_ARGUMENT)
    assert details.reason == "INVALID_REQUEST"
    assert field in details.violations
    assert details.violations[field] in message


async def test_all_violations_are_told_at_once(running: Running) -> None:
    """Nobody should have to mend a request field by field."""
    request = commit(message_id="7", spend_points_minor=-1)
    _, details = await refused(running.stub.Commit(request, metadata=TERMINAL), grpc.StatusCode.INVALID_ARGUMENT)
    assert {"message_id", "spend_points_minor"} <= set(details.violations)


async def test_bytes_that_are_no_message_are_refused(running: Running) -> None:
    """A malformed body is the caller's mistake, not ours."""
    call: Any = running.channel.unary_unary(f"/{SERVICE.full_name}/Identify")
    message, details = await refused(call(b"\xff\xff\xff", metadata=TERMINAL), grpc.StatusCode.INVALID_ARGUMENT)
    assert "not a message" in message
    assert details.reason == "INVALID_REQUEST"


async def test_an_oversized_message_is_refused_and_the_connection_lives_on(running: Running) -> None:
    """The limit protects memory: the message is not even read."""
    large = commit(coupon_codes=["x" * 60_000, "y" * 60_000])
    message, _ = await refused(running.stub.Commit(large, metadata=TERMINAL), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "larger than max" in message
    response = await running.stub.Identify(identify(), metadata=TERMINAL)
    assert response.member.masked_name == "O*** K."


async def test_a_refusal_arrives_with_all_its_details(running: Running) -> None:
    """A servicer raises, a client reads."""

    def refuse(caller: Caller) -> None:
        raise Refused(
            api.REFUSAL_REASON_MEMBER_BLOCKED,
            "the member is blocked",
            cashier_text="Кличте адміністратора.",
            violations=[("identifier", "is blocked")],
            retry_after_seconds=0.25,
        )

    running.servicer.identify_does = refuse
    message, details = await refused(
        running.stub.Identify(identify(), metadata=TERMINAL), grpc.StatusCode.FAILED_PRECONDITION
    )
    assert message == "the member is blocked"
    assert details == Details(
        "MEMBER_BLOCKED", "tallypoint", {"identifier": "is blocked"}, 0.25, "Кличте адміністратора."
    )


async def test_a_mistake_of_ours_has_an_incident_and_tells_nothing(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller gets a number; the log has the same number and the place, and neither has the error's text."""

    def fail(caller: Caller) -> None:
        raise ValueError("phone +380501234567 is odd")

    running.servicer.identify_does = fail
    message, details = await refused(running.stub.Identify(identify(), metadata=TERMINAL), grpc.StatusCode.INTERNAL)
    assert details.reason == "INTERNAL"
    incident = message.split("incident ")[1].split(";")[0]
    log = capsys.readouterr().out
    assert incident in log
    assert "ValueError" in log
    assert "+380501234567" not in message + log


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(asyncpg.ConnectionDoesNotExistError("gone"), id="connection-lost"),
        pytest.param(asyncpg.CannotConnectNowError("starting up"), id="starting"),
        pytest.param(asyncpg.AdminShutdownError("terminated"), id="shut-down"),
        pytest.param(asyncpg.InterfaceError("connection is closed"), id="closed"),
        pytest.param(ConnectionRefusedError(111, "refused"), id="refused"),
    ],
)
async def test_a_database_that_is_away_is_unavailable(running: Running, error: Exception) -> None:
    """Nobody reports an incident for a restart; callers come again after the delay."""

    def fail(caller: Caller) -> None:
        raise error

    running.servicer.identify_does = fail
    _, details = await refused(running.stub.Identify(identify(), metadata=TERMINAL), grpc.StatusCode.UNAVAILABLE)
    assert details.reason == "LEDGER_UNAVAILABLE"
    assert details.retry_seconds


async def test_a_call_without_a_method_is_not_yet_available(running: Running) -> None:
    """The message of a later release is understood, and refused by name."""
    request = checkout_pb2.CancelRequest(
        message_id=str(uuid.uuid4()),
        checkout_key=checkout_pb2.CheckoutKey(store_id="s1", terminal_id="t1", checkout_id="c"),
    )
    message, details = await refused(running.stub.Cancel(request, metadata=TERMINAL), grpc.StatusCode.UNIMPLEMENTED)
    assert "Cancel" in message
    assert details.reason == "NOT_YET_AVAILABLE"


async def test_a_deadline_ends_the_call_on_both_sides(running: Running) -> None:
    """The client hears DEADLINE_EXCEEDED and the servicer is cancelled."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Quote(quote(), metadata=TERMINAL, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.servicer.cancelled.wait(), 10)


async def test_a_client_that_vanishes_cancels_its_call(running: Running) -> None:
    """And it no longer counts among the calls under way."""
    call = running.stub.Quote(quote(), metadata=TERMINAL)
    await asyncio.wait_for(running.servicer.entered.acquire(), 10)
    assert running.edge.calls_under_way == 1
    call.cancel()
    await asyncio.wait_for(running.servicer.cancelled.wait(), 10)
    await running.stub.Identify(identify(), metadata=TERMINAL)
    assert running.edge.calls_under_way == 0


async def test_too_many_calls_are_told_to_come_again(running: Running) -> None:
    """The limit counts calls under way, and they are not harmed."""
    calls = [running.stub.Quote(quote(), metadata=TERMINAL) for _ in range(MAX_CALLS)]
    for _ in calls:
        await asyncio.wait_for(running.servicer.entered.acquire(), 10)
    _, details = await refused(running.stub.Identify(identify(), metadata=TERMINAL), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert details.reason == "OVERLOADED"
    assert details.retry_seconds
    running.servicer.may_end.set()
    assert [(await call).programme_code for call in calls] == ["done"] * MAX_CALLS


async def test_a_bad_item_of_a_batch_does_not_touch_the_others(running: Running) -> None:
    """Only the envelope is checked for all of them."""
    batch = checkout_pb2.CommitBatchRequest(commits=[commit(), commit(message_id="7"), commit()])
    response = await running.stub.CommitBatch(batch, metadata=TERMINAL)
    assert [result.WhichOneof("outcome") for result in response.results] == ["committed", "refusal", "committed"]
    assert response.results[1].refusal.violations[0].field == "message_id"
    assert response.results[1].refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_of_the_wrong_size_is_refused_whole(running: Running, count: int) -> None:
    """The envelope has limits, too."""
    batch = checkout_pb2.CommitBatchRequest(commits=[checkout_pb2.CommitRequest()] * count)
    _, details = await refused(running.stub.CommitBatch(batch, metadata=TERMINAL), grpc.StatusCode.INVALID_ARGUMENT)
    assert set(details.violations) == {"commits"}


async def test_a_stream_answers_its_requests_and_ends_with_its_client(running: Running) -> None:
    """Requests in, answers out; the servicer sees the end."""
    stream: Any = running.stub.Session(metadata=TERMINAL)
    for number in (1, 2):
        await stream.write(checkout_pb2.SessionRequest(correlation_id=number))
        assert (await stream.read()).correlation_id == number
    await stream.done_writing()
    assert (await stream.read()).correlation_id == 999
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_refusal_ends_a_stream_with_details(running: Running) -> None:
    """What a servicer raises on a stream reads as on a unary call."""
    stream: Any = running.stub.Session(metadata=TERMINAL)
    await stream.write(checkout_pb2.SessionRequest(correlation_id=-1))
    _, details = await refused(stream.read(), grpc.StatusCode.FAILED_PRECONDITION)
    assert details.reason == "HOLD_GONE"


async def test_a_stream_needs_a_key_too(running: Running) -> None:
    """Nobody gets in through the side door."""
    _, details = await refused(running.stub.Session().read(), grpc.StatusCode.UNAUTHENTICATED)
    assert details.reason == "UNAUTHENTICATED"


async def test_draining_ends_idle_streams_and_lets_calls_finish(running: Running) -> None:
    """NOT_SERVING first; the waiting stream ends in order, the call under way is answered, new ones are not taken."""
    health = health_pb2_grpc.HealthStub(running.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    stream: Any = running.stub.Session(metadata=TERMINAL)
    await stream.write(checkout_pb2.SessionRequest(correlation_id=1))
    assert (await stream.read()).correlation_id == 1
    call = running.stub.Quote(quote(), metadata=TERMINAL)
    await asyncio.wait_for(running.servicer.entered.acquire(), 10)
    draining = asyncio.create_task(running.port.drain())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await stream.read()).correlation_id == 999
    assert await stream.code() is grpc.StatusCode.OK
    assert not draining.done()
    running.servicer.may_end.set()
    assert (await call).programme_code == "done"
    await draining
    watch.cancel()


async def test_health_and_reflection_are_standard(running: Running) -> None:
    """Orchestrators and grpcurl find what they expect, without a key."""
    health = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", SERVICE.full_name):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo()
    await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    services = {service.name for service in (await reflection.read()).list_services_response.service}
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= services
    await reflection.done_writing()


async def test_calls_are_counted_by_method_and_code(running: Running) -> None:
    """Each outcome has its own series, and streams do not spoil the latencies."""

    def count(code: str) -> float:
        labels = {"method": "CheckoutService/Identify", "code": code, "store_group": "none"}
        return REGISTRY.get_sample_value("tallypoint_call_seconds_count", labels) or 0.0

    before = {code: count(code) for code in ("OK", "UNAUTHENTICATED")}
    await running.stub.Identify(identify(), metadata=TERMINAL)
    await running.stub.Identify(identify(), metadata=TERMINAL)
    await refused(running.stub.Identify(identify()), grpc.StatusCode.UNAUTHENTICATED)
    assert count("OK") - before["OK"] == 2
    assert count("UNAUTHENTICATED") - before["UNAUTHENTICATED"] == 1


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    """And does no harm."""
    call: Any = running.channel.unary_unary(f"/{SERVICE.full_name}/Steal")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=TERMINAL)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_tls_and_client_certificates(tmp_path: Path) -> None:
    """With a client authority, only clients with its certificate get in; others get no connection."""
    authority = make_certificate(tmp_path, "authority")
    server, client = (make_certificate(tmp_path, name, authority) for name in ("server", "client"))
    stranger = make_certificate(tmp_path, "stranger", make_certificate(tmp_path, "other-authority"))
    settings = Settings(
        tls_cert=server.cert_path, tls_key=server.key_path, tls_client_ca=authority.cert_path, drain_timeout_seconds=0
    )
    edge = Edge(Keys())
    handlers = service_handler(SERVICE, Servicer(), frozenset({Role.TERMINAL}), edge)
    port = Port("127.0.0.1:0", settings, edge, [(SERVICE, handlers)])
    await port.start()

    async def call(key: bytes | None, cert: bytes | None) -> checkout_pb2.IdentifyResponse:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem, key, cert)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port.number}", credentials) as channel:
            stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
            response: checkout_pb2.IdentifyResponse = await stub.Identify(identify(), metadata=TERMINAL, timeout=10)
            return response

    assert (await call(client.key_pem, client.cert_pem)).member.masked_name == "O*** K."
    for key, cert in ((None, None), (stranger.key_pem, stranger.cert_pem)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(key, cert)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await port.drain()
