"""Calls as a register makes them: three seconds to read, repeats after failures, everything counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from benchmarks.replay.latency import Latencies

READ_TIMEOUT_SECONDS: Final = 3.0
_STATUS_DETAILS: Final = "grpc-status-details-bin"
_FIRST_DELAY_SECONDS: Final = 0.05
_LONGEST_DELAY_SECONDS: Final = 5.0
_WORTH_REPEATING: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)

RequestT_contra = TypeVar("RequestT_contra", bound=Message, contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", bound=Message, covariant=True)


class UnaryCall(Protocol[RequestT_contra, ResponseT_co]):
    """A method of a generated asynchronous stub."""

    def __call__(
        self, request: RequestT_contra, /, *, timeout: float, metadata: tuple[tuple[str, str], ...]
    ) -> Awaitable[ResponseT_co]:
        """Call the server."""
        ...


class Failure(NamedTuple):
    """Why a call ended without an answer, as the server's status says it."""

    code: grpc.StatusCode
    reason: str
    message: str
    retry_after_seconds: float | None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Failure:
        """Read a call's status and its details; a status without details has its code's name as reason."""
        reason, delay = error.code().name, None
        for detail in _details(error):
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                delay = retry.retry_delay.ToNanoseconds() / 1e9
        return cls(error.code(), reason, error.details() or "", delay)


class CallFailed(Exception):
    """A call that the server refused, or that got no answer in the time that there was."""

    def __init__(self, method: str, failure: Failure) -> None:
        """Say which call and why."""
        super().__init__(f"{method} failed: {failure.code.name} {failure.reason}: {failure.message}")
        self.method = method
        self.failure = failure


@dataclass
class Counters:
    """What became of calls: latencies by method, repeats and failures by method and reason."""

    latencies: dict[str, Latencies] = field(default_factory=dict)
    repeats: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    def answered(self, method: str, nanoseconds: int) -> None:
        """Count an answer."""
        if method not in self.latencies:
            self.latencies[method] = Latencies()
        self.latencies[method].add(nanoseconds)


class Patience(NamedTuple):
    """For how long a call is repeated, and which codes are worth it."""

    seconds: float = 120.0
    codes: frozenset[grpc.StatusCode] = _WORTH_REPEATING


async def call(
    counters: Counters,
    method: Callable[[RequestT_contra], Awaitable[ResponseT_co]],
    name: str,
    request: RequestT_contra,
    patience: Patience = Patience(),  # noqa: B008  - immutable
) -> ResponseT_co:
    """Call until there is an answer, with back-off and the delays that the server asks for.

    Only the answered attempt counts as latency.

    Raises:
        CallFailed: refused for a reason that repeating cannot change, or no answer within the patience.
    """
    give_up_at = time.monotonic() + patience.seconds
    delay = _FIRST_DELAY_SECONDS
    while True:
        started = time.perf_counter_ns()
        try:
            response = await method(request)
        except grpc.aio.AioRpcError as error:
            failure = Failure.of(error)
        else:
            counters.answered(name, time.perf_counter_ns() - started)
            return response
        wait = failure.retry_after_seconds or delay * random.uniform(0.5, 1.0)  # noqa: S311  - jitter
        if failure.code not in patience.codes or time.monotonic() + wait > give_up_at:
            counters.failures[name, failure.reason] += 1
            raise CallFailed(name, failure)
        counters.repeats[name, failure.reason] += 1
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
        await asyncio.sleep(wait)


def bearing(
    method: UnaryCall[RequestT_contra, ResponseT_co], key: str, timeout_seconds: float = READ_TIMEOUT_SECONDS
) -> Callable[[RequestT_contra], Awaitable[ResponseT_co]]:
    """A stub's method with the caller's key and a time limit."""
    metadata = (("authorization", f"Bearer {key}"),)
    return lambda request: method(request, timeout=timeout_seconds, metadata=metadata)


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    trailers = error.trailing_metadata() or ()
    for name, value in trailers:
        if name == _STATUS_DETAILS and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
