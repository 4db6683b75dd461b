"""A proxy that cuts connections to PostgreSQL after a number of bytes, best of all between COMMIT and its answer."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = ".s.PGSQL.5432"


@dataclass(slots=True)
class _Cut:
    """Where to cut one connection: after so many requests, when so many bytes of the last one's answer came."""

    requests_left: int
    bytes_left: int

    @property
    def now(self) -> bool:
        """Whether the last request went through."""
        return self.requests_left < 0


class CuttingProxy:
    """Stands between a client and PostgreSQL on Unix sockets, and cuts every connection sooner or later.

    The last request of a connection reaches PostgreSQL, which carries it out in full; of its answer the client gets
    the first few bytes or none. If that request is a COMMIT, this is the moment of which a client can never tell on
    which side of it the connection was lost.

    Args:
        upstream: The real server's socket.
        dice: Chooses where to cut.
        most_requests: Every connection is cut after at most so many requests, those of its start among them.
        most_bytes: So much of the last answer comes through at most; the answer to a COMMIT has some 40 bytes.
    """

    def __init__(self, upstream: Path, dice: random.Random, most_requests: int = 24, most_bytes: int = 50) -> None:
        self.cuts = 0
        self._upstream = upstream
        self._dice = dice
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._calls: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen on a socket of its own; yield the directory that stands for the host in a connection string."""
        with tempfile.TemporaryDirectory(prefix="cutting-") as folder:
            server = await asyncio.start_unix_server(self._serve, Path(folder) / SOCKET_NAME)
            async with server:
                yield folder
            await asyncio.gather(*self._calls)

    @asynccontextmanager
    async def in_place(self) -> AsyncIterator[None]:
        """Take the place of the server's own socket during the block; at its end all connections through here end."""
        place, behind = self._upstream, self._upstream.with_name(f"{SOCKET_NAME}.behind")
        place.rename(behind)
        self._upstream = behind
        try:
            server = await asyncio.start_unix_server(self._serve, place)
            try:
                yield
            finally:
                server.close()
        finally:
            behind.replace(place)
            self._upstream = place
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._upstream)
            try:
                await self._carry(from_client, to_client, from_server, to_server)
            finally:
                to_server.close()
        except (OSError, asyncio.CancelledError):
            pass  # either side may go away by itself, and the place of the real server is given back
        finally:
            to_client.close()
            self._calls.discard(task)

    async def _carry(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Carry both ways until the cut; then let PostgreSQL finish what it was sent, and answer into the void."""
        cut = _Cut(self._dice.randint(0, self._most_requests), self._dice.randint(0, self._most_bytes))
        ways = [
            asyncio.ensure_future(self._requests(from_client, to_server, cut)),
            asyncio.ensure_future(self._answers(from_server, to_client, cut)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        to_client.close()
        self.cuts += cut.now
        to_server.write_eof()
        while await from_server.read(65536):
            pass

    async def _requests(self, from_client: asyncio.StreamReader, to_server: asyncio.StreamWriter, cut: _Cut) -> None:
        while chunk := await from_client.read(65536):
            cut.requests_left -= 1
            to_server.write(chunk)
            await to_server.drain()
            if cut.now and cut.bytes_left == 0:
                return

    async def _answers(self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter, cut: _Cut) -> None:
        while chunk := await from_server.read(65536):
            if not cut.now:
                to_client.write(chunk)
                await to_client.drain()
                continue
            to_client.write(chunk[: cut.bytes_left])
            cut.bytes_left -= len(chunk)
            if cut.bytes_left <= 0:
                return
