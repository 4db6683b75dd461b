"""Calls for another worker's books, sent on to it over a socket of this machine.

Every book has one preferred worker, its owner (`owner_of`), which knows the book's newest state and writes it in few
large batches. A worker that is called for somebody else's book sends the request on, as the bytes that it got, and the
owner's answer back. It is a matter of speed only: any worker may write any book. So whenever an owner is away (not
there yet, dead, draining, or silent for `SILENCE_SECONDS`), its calls are done by whoever got them; a call that the
owner may have done already is done again with the same keys, and gets the stored answer.

Frames are a length (4 bytes), the number of the call (8), a kind (1) and a body. A link is watched only while calls
are under way on it. The sockets lie in a folder that only this service's user can enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, cast

from tallypoint.v1 import common_pb2

from server.base.errors import Refused, refusal_message, refused_of_message
from server.edge.caller import Caller, Role
from server.edge.status import refused_of
from server.measuring.timeline import Timeline

WATCH_SECONDS: Final = 0.25
"""How often a link with calls under way is asked for a sign of life, and a lost one is opened again."""
SILENCE_SECONDS: Final = 1.0
"""An owner whose event loop gives no sign of life for so long counts as away: registers wait 3 s in all."""

_HEAD: Final = struct.Struct("!IQB")
_CALLER: Final = struct.Struct("!dHH")
_REQUEST, _ANSWER, _REFUSAL, _PING, _PONG = range(5)
_SEPARATOR: Final = "\x1f"

Answer = Callable[[int, bytes, Caller], Awaitable[bytes]]
"""Does a call for a book as if it had come by gRPC: the serialised request in, the serialised answer out; may raise
Refused."""


class ForwardingObserver(Protocol):
    """What the process wants to hear, for its metrics."""

    def forwarded(self, outcome: str) -> None:
        """A call was ``answered`` by its owner, is done here at once (``local``), or after the owner ``failed``."""


def owner_of(book: int, workers: int) -> int:
    """Return the number, from 1, of the worker that owns a book."""
    return book % workers + 1


def owned_books(number: int, workers: int, books: int) -> range:
    """Return the books that a worker owns."""
    return range(number - 1, books, workers)


class Forwarder:
    """One worker's links to the others: it asks them, and answers them.

    Args:
        folder: Where the sockets of all workers are.
        number: This worker's, from 1.
        workers: How many there are.
        observer: Is told what became of calls for others' books.
    """

    def __init__(self, folder: Path, number: int, workers: int, observer: ForwardingObserver) -> None:
        self._folder = folder
        self._number = number
        self._workers = workers
        self._observer = observer
        self._peers = {other: _Peer(_socket(folder, other)) for other in range(1, workers + 1) if other != number}
        self._server: asyncio.AbstractServer | None = None
        self._links: set[_Served] = set()
        self._watch: asyncio.Task[None] | None = None

    async def start(self, answer: Answer) -> None:
        """Answer what others send from now on, and connect to them as they come."""
        if not self._peers:
            return
        path = _socket(self._folder, self._number)
        path.unlink(missing_ok=True)  # left by a worker that was killed
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Served(answer, self._links), str(path))
        self._watch = loop.create_task(self._keep_watch(), name="forwarding")

    async def stop(self) -> None:
        """Finish what others sent, then close all links; who still waits for an answer does the call itself."""
        if self._watch is None or self._server is None:
            return
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        self._server.close()
        for link in tuple(self._links):
            await link.finish()
        for peer in self._peers.values():
            peer.close()
        _socket(self._folder, self._number).unlink(missing_ok=True)

    async def ask(self, book: int, caller: Caller) -> bytes | None:
        """Let a book's owner do the caller's call; None if it is to be done here.

        Raises:
            Refused: as the owner refused it.
        """
        peer = self._peers.get(owner_of(book, self._workers))
        if peer is None:
            return None
        if not peer.is_there:
            self._observer.forwarded("local")
            return None
        answer = await peer.ask(book, caller)
        self._observer.forwarded("failed" if answer is None else "answered")
        if isinstance(answer, Refused):
            raise answer
        return None if answer is None else caller.timeline.take_packed(answer)

    async def _keep_watch(self) -> None:
        while True:
            for peer in self._peers.values():
                await peer.watch()
            await asyncio.sleep(WATCH_SECONDS)


def _socket(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.sock"


class _Link(asyncio.Protocol):
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        place, end = 0, len(data)
        while end - place >= _HEAD.size:
            length, call, kind = _HEAD.unpack_from(data, place)
            if end - place < length:
                break
            self.take(call, kind, data[place + _HEAD.size : place + length])
            place += length
        self._rest = data[place:]

    def send(self, call: int, kind: int, body: bytes = b"") -> None:
        """Send a frame, if the other side is still there."""
        if self.transport is not None:
            self.transport.write(_HEAD.pack(_HEAD.size + len(body), call, kind) + body)

    def take(self, call: int, kind: int, body: bytes) -> None:
        """Take a frame."""
        raise NotImplementedError  # each side has its own

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's shape
        self.transport = None


# --- the owner's side ---------------------------------------------------------------------------------------------


class _Served(_Link):
    """A link on which another worker sends us calls."""

    def __init__(self, answer: Answer, links: set[_Served]) -> None:
        super().__init__()
        self._answer = answer
        self._links = links
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._links.discard(self)

    def take(self, call: int, kind: int, body: bytes) -> None:
        if kind == _PING:
            self.send(call, _PONG)
            return
        task = asyncio.get_running_loop().create_task(self._do_call(call, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do_call(self, call: int, body: bytes) -> None:
        book, raw, caller = _unpacked(body)
        try:
            answer = await self._answer(book, raw, caller)
        except Exception as error:  # noqa: BLE001 - as at the edge: whatever it is, the caller gets an answer
            refusal = refusal_message(refused_of(error, "forwarded"))
            self.send(call, _REFUSAL, refusal.SerializeToString())
        else:
            self.send(call, _ANSWER, caller.timeline.packed() + answer)

    async def finish(self) -> None:
        """Answer what was taken, then close."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.transport is not None:
            self.transport.close()


def _packed(book: int, caller: Caller) -> bytes:
    identity = _SEPARATOR.join((caller.name, caller.store_id, caller.terminal_id)).encode()
    return _CALLER.pack(caller.deadline or 0.0, book, len(identity)) + identity + caller.raw_request()


def _unpacked(body: bytes) -> tuple[int, bytes, Caller]:
    deadline, book, length = _CALLER.unpack_from(body)
    end = _CALLER.size + length
    name, store_id, terminal_id = body[_CALLER.size : end].decode().split(_SEPARATOR)
    return book, body[end:], Caller(Role.TERMINAL, name, store_id, terminal_id, deadline or None, Timeline())


# --- the asking side ----------------------------------------------------------------------------------------------


class _Asking(_Link):
    """A link on which we send calls to an owner."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, asyncio.Future[bytes | Refused | None]] = {}
        self.heard_at = time.monotonic()

    def take(self, call: int, kind: int, body: bytes) -> None:
        self.heard_at = time.monotonic()
        answer = self.waiting.pop(call, None)
        if answer is None or answer.done():
            return
        if kind == _ANSWER:
            answer.set_result(body)
        else:
            answer.set_result(refused_of_message(common_pb2.Refusal.FromString(body)))

    def give_up(self) -> None:
        """Let everybody who waits do the call themselves."""
        waiting, self.waiting = self.waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.give_up()


class _Peer:
    """Another worker, as seen from this one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: _Asking | None = None
        self._calls = 0
        self._asked_at: float | None = None
        self._gives_signs = False

    @property
    def is_there(self) -> bool:
        """Whether a call that is sent now will probably be answered."""
        return self._gives_signs and self._link is not None and self._link.transport is not None

    async def ask(self, book: int, caller: Caller) -> bytes | Refused | None:
        """Send a call; return the answer, or None if none will come."""
        link = self._link
        assert link is not None, "a peer that is there has a link"
        self._calls += 1
        call = self._calls
        answer: asyncio.Future[bytes | Refused | None] = asyncio.get_running_loop().create_future()
        link.waiting[call] = answer
        link.send(call, _REQUEST, _packed(book, caller))
        try:
            return await answer
        finally:
            link.waiting.pop(call, None)  # whoever gave up waits no more

    async def watch(self) -> None:
        """Open the link if there is none; ask for a sign of life if anybody waits, and notice when none comes."""
        link = self._link
        if link is None or link.transport is None:
            await self._connect()
            return
        now = time.monotonic()
        if self._asked_at is not None and link.heard_at >= self._asked_at:
            self._asked_at, self._gives_signs = None, True
        if self._asked_at is None:
            if link.waiting or not self.is_there:
                self._asked_at = now
                link.send(0, _PING)
        elif now - self._asked_at > SILENCE_SECONDS and self.is_there:
            self._gives_signs = False
            link.give_up()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._link, self._asked_at = None, None
        with contextlib.suppress(OSError):
            _, self._link = await loop.create_unix_connection(_Asking, str(self._path))
            self._gives_signs = True

    def close(self) -> None:
        """Close the link."""
        if self._link is not None and self._link.transport is not None:
            self._link.transport.close()
