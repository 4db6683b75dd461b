"""Calls of a register against a real gRPC server that fails in prescribed ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc

from benchmarks.replay.client import CallFailed, Counters, Patience, bearing, call

Code = grpc.StatusCode
Script = Iterator[tuple[grpc.StatusCode, bytes] | None]


class _Scripted:
    """Answers Identify as its script says: a status to fail with, or None for an answer."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.keys: list[str] = []

    async def identify(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.keys.append(str(dict(context.invocation_metadata() or ())["authorization"]))
        fault = next(self._script)
        if fault is not None:
            code, details = fault
            await context.abort(code, "scripted", (("grpc-status-details-bin", details),) if details else ())
        return b""


@asynccontextmanager
async def _scripted(
    script: list[tuple[grpc.StatusCode, bytes] | None],
) -> AsyncIterator[
    tuple[_Scripted, Callable[[checkout_pb2.IdentifyRequest], Awaitable[checkout_pb2.IdentifyResponse]]]
]:
    servicer = _Scripted(iter(script))
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(servicer.identify)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tallypoint.v1.CheckoutService", {"Identify": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield servicer, bearing(checkout_pb2_grpc.CheckoutServiceStub(channel).Identify, "tp_key")
    finally:
        await server.stop(None)


def _details(reason: str, retry_seconds: float | None = None) -> bytes:
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="tallypoint")]
    if retry_seconds is not None:
        delay = Duration(nanos=int(retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return bytes(status_pb2.Status(code=1, details=packed).SerializeToString())


async def test_faults_that_pass_are_repeated_and_counted_by_reason() -> None:
    script = [
        (Code.UNAVAILABLE, b""),
        (Code.RESOURCE_EXHAUSTED, _details("OVERLOADED", 0.01)),
        (Code.DEADLINE_EXCEEDED, _details("DEADLINE_PASSED")),
        None,
    ]
    counters = Counters()
    async with _scripted(script) as (servicer, identify):
        await call(counters, identify, "Identify", checkout_pb2.IdentifyRequest())
    assert servicer.keys == ["Bearer tp_key"] * 4
    assert counters.repeats == {
        ("Identify", "UNAVAILABLE"): 1,
        ("Identify", "OVERLOADED"): 1,
        ("Identify", "DEADLINE_PASSED"): 1,
    }
    assert not counters.failures
    assert len(counters.latencies["Identify"]) == 1


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        pytest.param(Code.NOT_FOUND, _details("IDENTIFIER_UNKNOWN"), "IDENTIFIER_UNKNOWN", id="refused by name"),
        pytest.param(Code.UNAUTHENTICATED, b"", "UNAUTHENTICATED", id="without details"),
        pytest.param(Code.INTERNAL, b"\xff\xff", "INTERNAL", id="details that cannot be read"),
    ],
)
async def test_a_refusal_is_not_repeated(code: grpc.StatusCode, details: bytes, reason: str) -> None:
    counters = Counters()
    async with _scripted([(code, details), None]) as (servicer, identify):
        with pytest.raises(CallFailed, match=reason) as caught:
            await call(counters, identify, "Identify", checkout_pb2.IdentifyRequest())
    assert caught.value.failure.code is code
    assert len(servicer.keys) == 1
    assert counters.failures == {("Identify", reason): 1}
    assert not counters.latencies


async def test_patience_ends() -> None:
    counters = Counters()
    async with _scripted([(Code.UNAVAILABLE, _details("LEDGER_UNAVAILABLE", 0.9))] * 2) as (
        servicer,
        identify,
    ):
        with pytest.raises(CallFailed, match="LEDGER_UNAVAILABLE"):
            await call(counters, identify, "Identify", checkout_pb2.IdentifyRequest(), Patience(seconds=0.5))
    assert len(servicer.keys) == 1, "the server asked for a longer wait than there was time for"
