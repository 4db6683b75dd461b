"""Many calls over one stream: each runs by itself, and answers overtake each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final

from google.protobuf.message import Message
from tallypoint.v1 import checkout_pb2

from server.base.errors import refusal_message
from server.edge.caller import Caller
from server.edge.status import refused_of
from server.edge.stream import Stream
from server.edge.validation import check
from server.measuring.metrics import UNDER_WAY, CallMeter

MAX_UNDER_WAY: Final = 64
"""Calls of one stream that run at once; the next is not read before one ends, so a stream cannot flood us."""
DEFAULT_TIMEOUT_SECONDS: Final = 3.0
"""Registers wait this long for an answer."""

_METERS: Final = {
    name: CallMeter(f"CheckoutService/Session/{name}")
    for name in ("identify", "quote", "hold", "commit", "cancel", "return", "none")
}

Call = Callable[[Any, Caller], Awaitable["Message | bytes"]]


async def serve_session(stream: Stream, caller: Caller, calls: Mapping[str, Call]) -> None:
    """Answer every request of a stream, in the order in which the answers are ready.

    ``calls`` maps the names of the request's ``call`` fields, which are those of the answer's, to handlers.
    """
    await _Session(stream, caller, calls).serve()


class _Session:
    """One stream and its calls under way."""

    def __init__(self, stream: Stream, caller: Caller, calls: Mapping[str, Call]) -> None:
        self._stream = stream
        self._identity = caller[:4]
        self._calls = calls
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._room: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        loop, number = asyncio.get_running_loop(), 0
        try:
            while (request := await self._stream.read()) is not None:
                number += 1
                self._tasks[number] = loop.create_task(self._run(number, request))
                if len(self._tasks) >= MAX_UNDER_WAY:
                    self._room = loop.create_future()
                    await self._room
            if self._tasks:
                await asyncio.wait(self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _run(self, number: int, request: Message) -> None:
        """Answer one request."""
        assert isinstance(request, checkout_pb2.SessionRequest)
        UNDER_WAY.add(1)
        try:
            await self._stream.write(await self._answer(request))
        finally:
            UNDER_WAY.add(-1)
            del self._tasks[number]
            if self._room is not None and not self._room.done():
                self._room.set_result(None)

    async def _answer(self, request: checkout_pb2.SessionRequest) -> bytes:
        """Run one call; a refusal is an answer like any other."""
        name = request.WhichOneof("call") or "none"
        meter = _METERS[name]
        timeline = self._stream.timeline_of(meter.method)
        timeout_seconds = request.timeout_milliseconds / 1000 or DEFAULT_TIMEOUT_SECONDS
        caller = Caller(*self._identity, monotonic() + timeout_seconds, timeline, getattr(request, name, b""))
        code, refused = "CANCELLED", None
        try:
            check(request)
            timeline.mark("admitted")
            answer = await self._calls[name](caller.sent, caller)
            code = "OK"
            return _response(request.correlation_id, name, answer)
        except Exception as error:  # noqa: BLE001 - the outermost wrapper of a call on a stream; the others go on
            refused = refused_of(error, meter.method)
            code = refused.code.name
        finally:
            timeline.mark("answered")
            self._stream.tell(meter, code, refused, caller, timeline)
        return _response(request.correlation_id, "refusal", refusal_message(refused))


def _response(correlation_id: int, field: str, answer: Message | bytes) -> bytes:
    """Return a serialised `SessionResponse` with an answer in one of its fields, without building the message."""
    body = answer if isinstance(answer, bytes) else answer.SerializeToString()
    number = _CORRELATION_TAG + _varint(correlation_id) if correlation_id else b""
    return b"".join((number, _ANSWER_TAGS[field], _varint(len(body)), body))


def _varint(value: int) -> bytes:
    """Return an integer as protobuf writes it: seven bits a byte, the least first; negative ones as 64 bits."""
    if 0 <= value < _ONE_BYTE:
        return _BYTES[value]
    value &= _MAX_UINT64
    out = bytearray()
    while value >= _ONE_BYTE:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE: Final = 0x80
_BYTES: Final = tuple(bytes((value,)) for value in range(_ONE_BYTE))
_MAX_UINT64: Final = 2**64 - 1
_VARINT, _DELIMITED = 0, 2  # wire types
_FIELDS: Final = checkout_pb2.SessionResponse.DESCRIPTOR.fields_by_name
_CORRELATION_TAG: Final = _varint(_FIELDS["correlation_id"].number << 3 | _VARINT)
_ANSWER_TAGS: Final = {
    field.name: _varint(field.number << 3 | _DELIMITED)
    for field in checkout_pb2.SessionResponse.DESCRIPTOR.oneofs_by_name["answer"].fields
}
