"""A gRPC client that does next to nothing: unary calls framed by hand, for loads that a full client cannot make.

A client of `grpc.aio` spends about as much processor time on a call as an echo server does. At three times a server's
saturation, on the same machine, it would take the very time that is to be measured. This one writes HTTP/2 frames that
were prepared for all calls alike and reads only what it needs: the message, and the status in the trailers. It knows
requests of up to one frame (16 kB), no compression and no header table, which it forbids the server to use.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
import urllib.parse
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
LARGEST_WINDOW: Final = 2**31 - 1
FIRST_WINDOW: Final = 65_535
LARGEST_FRAME: Final = 16_384
_CANCEL: Final = 8
_SWEEP_SECONDS: Final = 0.02
_STATUS_NAMES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
_STATUS_OF_RESET: Final = {7: "UNAVAILABLE", _CANCEL: "CANCELLED", 11: "RESOURCE_EXHAUSTED"}
"""What gRPC's own clients make of HTTP/2's REFUSED_STREAM, CANCEL and ENHANCE_YOUR_CALM."""
_STATUS: Final = re.compile(rb"grpc-status[\x01\x02](\d{1,2})")
_MESSAGE: Final = re.compile(rb"grpc-message([\x00-\x7e])", re.DOTALL)

Done = Callable[[int, bytes | str], None]
"""Takes the index of a call and its serialised answer; or, as text, its status and why there is none."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(path: str, authority: str, key: str, timeout_seconds: float) -> bytes:
    """Return the headers of a call in HPACK, every one as a literal that enters no table."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", f"{int(timeout_seconds * 1000)}m".encode()),
        (b"authorization", f"Bearer {key}".encode()),
    )
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(value: bytes) -> bytes:
    """Return a string literal of HPACK, not compressed."""
    if len(value) < 0x7F:  # noqa: PLR2004 - the largest length in one byte is one less
        return bytes((len(value),)) + value
    rest, coded = len(value) - 0x7F, bytearray(b"\x7f")
    while rest >= 0x80:  # noqa: PLR2004 - seven bits a byte
        coded.append(rest % 0x80 + 0x80)
        rest //= 0x80
    return bytes((*coded, rest)) + value


def status_of(trailers: bytes) -> str:
    """Read the status from a block of trailers: `OK`, or its name and its message."""
    found = _STATUS.search(trailers)
    if found is None:
        return "UNKNOWN: the trailers have no status that can be read"
    name = _STATUS_NAMES[min(int(found[1]), len(_STATUS_NAMES) - 1)]
    message = _MESSAGE.search(trailers)
    if name == "OK" or message is None:
        return name
    text = trailers[message.end() : message.end() + message[1][0]].decode("ascii", "replace")
    return f"{name}: {urllib.parse.unquote(text)}"


def _drop_answer(index: int, answer: bytes | str) -> None:
    """Take an answer that nobody waits for."""


class LeanConnection(asyncio.Protocol):
    """One connection on which calls of one method are made.

    Args:
        headers: The block of headers of every call.
    """

    def __init__(self, headers: bytes) -> None:
        self._headers = headers
        self.done: Done = _drop_answer
        """Is told of every call that ended."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.ready = self._loop.create_future()
        self._received = bytearray()
        self._out: list[bytes] = []
        self._calls: dict[int, int] = {}
        self._streams: dict[int, int] = {}
        self._bodies: dict[int, bytes] = {}
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._next_stream = 1
        self._window = FIRST_WINDOW
        self._most_streams = 100
        self._taken_bytes = 0

    @property
    def local_port(self) -> int:
        """The client's port."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def start(self, index: int, request: bytes) -> bool:
        """Send a call as soon as the server allows; say whether that is now."""
        if len(self._calls) >= self._most_streams or self._window < len(request) + 5:
            self._waiting.append((index, request))
            return False
        stream = self._next_stream
        self._next_stream += 2
        self._calls[stream] = index
        self._streams[index] = stream
        self._window -= len(request) + 5
        message = b"\x00" + struct.pack(">I", len(request)) + request
        self._write(frame(HEADERS, END_HEADERS, stream, self._headers) + frame(DATA, END_STREAM, stream, message))
        return True

    def give_up(self, index: int) -> None:
        """Cancel a call that took too long."""
        stream = self._streams.pop(index, None)
        if stream is None:
            self._waiting = deque(call for call in self._waiting if call[0] != index)
            return
        del self._calls[stream]
        self._bodies.pop(stream, None)
        self._write(frame(RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: no header table, no limit to what the server may send."""
        self._transport = cast("asyncio.Transport", transport)
        wanted = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
        settings = b"".join(struct.pack(">HI", *pair) for pair in wanted)
        widened = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self._write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, widened))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let all calls fail that are under way."""
        for index in (*self._calls.values(), *(index for index, _ in self._waiting)):
            self.done(index, f"UNAVAILABLE: the connection was lost ({exc})")
        self._calls.clear()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Take all frames that are complete."""
        self._received += data
        received, at = bytes(self._received), 0
        while len(received) - at >= 9:  # noqa: PLR2004 - the head of a frame
            length = int.from_bytes(received[at : at + 3], "big")
            if len(received) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, at + 3)
            self._take(kind, flags, stream, received[at + 9 : at + 9 + length])
            at += 9 + length
        del self._received[:at]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._take_data(stream, payload)
        elif kind == HEADERS and flags & END_STREAM:
            self._end(stream, status_of(payload))
        elif kind == RST_STREAM:
            code = int.from_bytes(payload, "big")
            self._end(stream, f"{_STATUS_OF_RESET.get(code, 'INTERNAL')}: the server reset the stream ({code})")
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._send_waiting()
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._acknowledge(kind, payload)
        elif kind == GOAWAY:
            self.close()

    def _take_data(self, stream: int, payload: bytes) -> None:
        self._taken_bytes += len(payload)
        if self._taken_bytes > LARGEST_WINDOW // 2:
            self._write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken_bytes)))
            self._taken_bytes = 0
        self._bodies[stream] = self._bodies.get(stream, b"") + payload

    def _acknowledge(self, kind: int, payload: bytes) -> None:
        if kind == PING:
            self._write(frame(PING, ACK, 0, payload))
            return
        settings = dict(struct.iter_unpack(">HI", payload))
        self._most_streams = settings.get(MAX_CONCURRENT_STREAMS, self._most_streams)
        self._write(frame(SETTINGS, ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)

    def _end(self, stream: int, status: str) -> None:
        body = self._bodies.pop(stream, b"")
        index = self._calls.pop(stream, None)
        if index is not None:
            del self._streams[index]
            self.done(index, body[5:] if status == "OK" else status)
        self._send_waiting()

    def _send_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            index, request = self._waiting.popleft()
            if not self.start(index, request):
                self._waiting.rotate(1)  # it keeps its turn
                return

    def _write(self, data: bytes) -> None:
        """Send it together with whatever else comes up in this turn of the event loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()


class _Call(NamedTuple):
    number: int
    gives_up_at: int


class LeanCalls:
    """Calls that are under way on some connections, and what came of all of them.

    Args:
        count: How many calls there will be.
        timeout_seconds: The deadline of each.
        begin: The moment that moments are counted from, of `time.monotonic_ns`.
    """

    def __init__(self, count: int, timeout_seconds: float, begin: int) -> None:
        self.answers: list[bytes | str] = [""] * count
        self.sent_nanoseconds, self.answered_nanoseconds = (array("q", bytes(8 * count)) for _ in range(2))
        self._left = count
        self._begin = begin
        self._timeout_nanoseconds = int(timeout_seconds * 1e9)
        self._under_way: deque[_Call] = deque()
        self._all_done = asyncio.Event()

    def start(self, connections: Sequence[LeanConnection], index: int, request: bytes) -> None:
        """Send a call on the connection that is next."""
        now = time.monotonic_ns()
        self.sent_nanoseconds[index] = now - self._begin
        connections[index % len(connections)].start(index, request)
        self._under_way.append(_Call(index, now + self._timeout_nanoseconds))

    def done(self, index: int, answer: bytes | str) -> None:
        """Take note of a call that ended."""
        self.answered_nanoseconds[index] = time.monotonic_ns() - self._begin
        self.answers[index] = answer
        self._left -= 1
        if not self._left:
            self._all_done.set()

    async def sweep(self, connections: Sequence[LeanConnection]) -> None:
        """Give up calls whose deadline has passed, until all calls have ended."""
        while self._left:
            now = time.monotonic_ns()
            while self._under_way and self._under_way[0].gives_up_at <= now:
                number = self._under_way.popleft().number
                if not self.answered_nanoseconds[number]:
                    connections[number % len(connections)].give_up(number)
                    self.done(number, "DEADLINE_EXCEEDED: the deadline passed at the client")
            try:
                await asyncio.wait_for(self._all_done.wait(), _SWEEP_SECONDS)
            except TimeoutError:
                continue
