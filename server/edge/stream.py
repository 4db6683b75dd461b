"""A stream of requests and answers, read and written by whoever serves it, without iterators in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError, Message

from server.base.errors import Refused, invalid_request
from server.edge.caller import Caller
from server.measuring.metrics import CallMeter
from server.measuring.timeline import Timeline, Trace

_END: Final = grpc.aio.EOF


class Tracer(Protocol):
    """Traces some calls; see `server.measuring.tracing`."""

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Trace | None:
        """Begin the trace of a call; None if it is not traced."""


class Shared(Protocol):
    """What the calls of a process share; see `Edge`."""

    @property
    def tracing(self) -> Tracer | None:
        """Traces some calls."""

    def tell(self, meter: CallMeter, code: str, refused: Refused | None, caller: Caller | None, of: Timeline) -> None:
        """Measure a call that is over."""


class Stream:
    """One stream both ways. It belongs to the task that made it: only that one may read.

    Args:
        context: gRPC's.
        parse: Makes a message of a request's bytes.
        shared: Measures each of its calls.
    """

    def __init__(self, context: Any, parse: Callable[[bytes], Message], shared: Shared) -> None:  # noqa: ANN401 - no useful stub
        self.tell = shared.tell
        self._tracing = shared.tracing
        self._context = context
        self._parse = parse
        self._task = asyncio.current_task()
        self._is_reading = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: list[bytes] = []
        self._is_writing = False

    def timeline_of(self, method: str) -> Timeline:
        """Return the timeline of a call that begins, with its trace if it has one: its parent is the stream's."""
        timeline = Timeline()
        if self._tracing is not None:
            timeline.trace = self._tracing.begin(method, self._context.invocation_metadata())
        return timeline

    async def read(self) -> Message | None:
        """Return the next request; None when there are no more, or when the process drains.

        Raises:
            Refused: INVALID_REQUEST for bytes that are no request.
        """
        if self._ended:
            return None
        self._is_reading = True
        try:
            raw = await self._context.read()
        except asyncio.CancelledError:
            if self._was_ended() and self._task is not None and self._task.uncancel() == 0:
                return None
            raise
        finally:
            self._is_reading = False
        return None if raw is _END else parsed(self._parse, raw)

    async def write(self, answer: bytes) -> None:
        """Send a serialised answer. gRPC takes one at a time: whoever comes meanwhile leaves theirs to the first."""
        self._unwritten.append(answer)
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._unwritten:
                answers, self._unwritten = self._unwritten, []
                for each in answers:
                    await self._context.write(each)
        except grpc.aio.BaseError:  # the client is gone: gRPC ends the stream, and nobody takes these answers
            self._unwritten.clear()
        finally:
            self._is_writing = False

    def end(self) -> None:
        """Let `read` say that there are no more requests, now and from now on."""
        self._ended = True
        if self._is_reading and self._task is not None:
            self._task.cancel()

    def end_after(self, seconds: float) -> None:
        """End it after a time, if it lasts so long."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def close(self) -> None:
        """Forget it: it is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _was_ended(self) -> bool:
        return self._ended


def parsed(parse: Callable[[bytes], Message], raw: bytes) -> Message:
    """Return a request; Refused INVALID_REQUEST for bytes that are none."""
    try:
        return parse(raw)
    except DecodeError:
        raise invalid_request([("", "the bytes are not a message of this call's request type")]) from None
