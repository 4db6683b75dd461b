"""The connection of one register: unary calls, or one `Session` stream, by gRPC's blocking API under gevent.

`start_gevent` must have been called in the process before the first connection is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import gevent
import grpc
import grpc.experimental.gevent
from gevent.event import AsyncResult
from gevent.lock import RLock
from gevent.queue import SimpleQueue
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from tallypoint.v1 import checkout_pb2, common_pb2

CONNECT_TIMEOUT_SECONDS: Final = 1.0
READ_TIMEOUT_SECONDS: Final = 3.0
"""How long a register waits, as proto/README.md advises."""
_STATUS_DETAILS: Final = "grpc-status-details-bin"
_OWN_CONNECTION: Final = ("grpc.use_local_subchannel_pool", 1)  # channels to one address share one otherwise
_SERVICE: Final = "/tallypoint.v1.CheckoutService/"
_MILLISECONDS: Final = 1000
_MOST_THREADS: Final = 4096

_RESPONSES: Final[dict[str, type[Message]]] = {
    "Identify": checkout_pb2.IdentifyResponse,
    "Quote": checkout_pb2.QuoteResponse,
    "Hold": checkout_pb2.HoldResponse,
    "Commit": checkout_pb2.CommitResponse,
    "Cancel": checkout_pb2.CancelResponse,
    "Return": checkout_pb2.ReturnResponse,
}
WORTH_SENDING_AGAIN: Final = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    )
)


class NoAnswer(Exception):
    """A call that was refused, or that nobody answered.

    Args:
        code: The number of the gRPC status.
        reason: The named reason, or the status' name where the server named none.
        message: What went wrong, for engineers.
        retry_after_seconds: How long the server asks to wait, if it does.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Answer(NamedTuple):
    """An answer, with its bytes as they came (on a stream: as they would have come alone)."""

    message: Any
    raw: bytes


class Wire(Protocol):
    """A register's connection."""

    kind: str
    """What it is called in the tables: "unary" or "session"."""

    def connect(self) -> None:
        """Connect, or connect anew; raises `NoAnswer` if that takes longer than a second."""
        ...

    def call(self, method: str, request: Message) -> Answer:
        """Call a method such as "Quote" and wait for the answer; raises `NoAnswer`."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Server(NamedTuple):
    """Where a register connects, and with what key."""

    address: str
    key: str
    tls_ca_pem: str = ""

    def channel(self) -> grpc.Channel:
        """Open a connection that nobody else uses."""
        if self.tls_ca_pem:
            credentials = grpc.ssl_channel_credentials(self.tls_ca_pem.encode())
            return grpc.secure_channel(self.address, credentials, options=[_OWN_CONNECTION])
        return grpc.insecure_channel(self.address, options=[_OWN_CONNECTION])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.key}"),)


def start_gevent() -> None:
    """Let gRPC wait as gevent does; once in each process, after it was forked."""
    # gRPC waits in threads of gevent's pool, one for each call under way and each open stream. A pool of the usual
    # size is soon full of streams, and then no call ever ends.
    gevent.get_hub().threadpool.maxsize = _MOST_THREADS
    grpc.experimental.gevent.init_gevent()


class UnaryWire:
    """One call after the other on one connection."""

    kind = "unary"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = RLock()  # a failover reconnects between two calls, never in the middle of one
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Callable[..., Any]] = {}

    def connect(self) -> None:
        """See `Wire`."""
        with self._lock:
            self.close()
            self._channel = channel = _connected(self._server)
            self._calls = {
                method: channel.unary_unary(_SERVICE + method, _to_bytes, _as_they_come) for method in _RESPONSES
            }

    def call(self, method: str, request: Message) -> Answer:
        """See `Wire`."""
        with self._lock:
            if self._channel is None:
                self.connect()
            try:
                raw: bytes = self._calls[method](request, timeout=READ_TIMEOUT_SECONDS, metadata=self._server.metadata)
            except grpc.RpcError as error:
                raise _no_answer(error) from None
        return Answer(_RESPONSES[method].FromString(raw), raw)

    def close(self) -> None:
        """See `Wire`."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            self._channel = None


class SessionWire:
    """All calls on one stream. One that broke is opened again by the next call."""

    kind = "session"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = RLock()
        self._numbers = itertools.count(1)
        self._channel: grpc.Channel | None = None
        self._stream: _Stream | None = None

    def connect(self) -> None:
        """See `Wire`."""
        with self._lock:
            self.close()
            self._channel = _connected(self._server)
            self._stream = _Stream(self._channel, self._server.metadata)

    def call(self, method: str, request: Message) -> Answer:
        """See `Wire`."""
        with self._lock:
            if self._stream is None or self._stream.broken:
                self.connect()
            stream = self._stream
            assert stream is not None
            number = next(self._numbers)
            timeout = int(READ_TIMEOUT_SECONDS * _MILLISECONDS)
            fields: dict[str, Any] = {method.lower(): request}
            response = stream.ask(
                checkout_pb2.SessionRequest(correlation_id=number, timeout_milliseconds=timeout, **fields)
            )
        if response.WhichOneof("answer") == "refusal":
            raise _refusal(response.refusal)
        answer: Message = getattr(response, method.lower())
        return Answer(answer, answer.SerializeToString())

    def close(self) -> None:
        """See `Wire`."""
        with self._lock:
            if self._stream is not None:
                self._stream.end()
            if self._channel is not None:
                self._channel.close()
            self._channel = self._stream = None


class _Stream:
    """One `Session` call: requests go out as they come, a greenlet hands answers to those who wait."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.broken = False
        self._outgoing: SimpleQueue[checkout_pb2.SessionRequest | None] = SimpleQueue()
        self._waiting: dict[int, AsyncResult[checkout_pb2.SessionResponse]] = {}
        method = channel.stream_stream(_SERVICE + "Session", _to_bytes, checkout_pb2.SessionResponse.FromString)
        self._call: Any = method(iter(self._outgoing.get, None), metadata=metadata)
        self._reader = gevent.spawn(self._read, self._call)

    def ask(self, request: checkout_pb2.SessionRequest) -> checkout_pb2.SessionResponse:
        answer: AsyncResult[checkout_pb2.SessionResponse] = AsyncResult()
        self._waiting[request.correlation_id] = answer
        self._outgoing.put(request)
        try:
            response = answer.get(timeout=READ_TIMEOUT_SECONDS)
        except gevent.Timeout:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise NoAnswer(code.value[0], code.name, f"no answer in {READ_TIMEOUT_SECONDS:g} s") from None
        finally:
            self._waiting.pop(request.correlation_id, None)
        assert response is not None
        return response

    def end(self) -> None:
        self.broken = True
        self._outgoing.put(None)
        self._call.cancel()

    def _read(self, responses: Iterator[checkout_pb2.SessionResponse]) -> None:
        try:
            for response in responses:
                waiting = self._waiting.get(response.correlation_id)
                if waiting is not None:  # else it came too late
                    waiting.set(response)
            error = NoAnswer(grpc.StatusCode.UNAVAILABLE.value[0], "UNAVAILABLE", "the server ended the stream")
        except grpc.RpcError as broken:
            error = _no_answer(broken)
        self.broken = True
        for waiting in list(self._waiting.values()):
            waiting.set_exception(error)


def _connected(server: Server) -> grpc.Channel:
    channel = server.channel()
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_SECONDS)
    except grpc.FutureTimeoutError:
        channel.close()
        code = grpc.StatusCode.UNAVAILABLE
        message = f"no connection to {server.address} in {CONNECT_TIMEOUT_SECONDS:g} s"
        raise NoAnswer(code.value[0], "NOT_CONNECTED", message) from None
    except BaseException:
        channel.close()
        raise
    return channel


def _to_bytes(request: Message) -> bytes:
    return request.SerializeToString()


def _as_they_come(raw: bytes) -> bytes:
    return raw


def _no_answer(error: grpc.RpcError) -> NoAnswer:
    """Read a status: with its named reason, if the server gave it one."""
    call: Any = error  # what the blocking API raises is also the call that ended
    code: grpc.StatusCode = call.code()
    reason, delay = code.name, None
    for name, value in call.trailing_metadata() or ():
        if name != _STATUS_DETAILS or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
        except DecodeError:
            continue
        for detail in details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                delay = retry.retry_delay.ToNanoseconds() / 1e9
    return NoAnswer(code.value[0], reason, call.details() or "", delay)


def _refusal(refusal: common_pb2.Refusal) -> NoAnswer:
    """Read a refusal that came on a stream."""
    reason = common_pb2.RefusalReason.Name(refusal.reason).removeprefix("REFUSAL_REASON_")
    delay = refusal.retry_after.ToNanoseconds() / 1e9 if refusal.HasField("retry_after") else None
    return NoAnswer(refusal.code, reason, refusal.message, delay)
