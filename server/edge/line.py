"""How long calls wait until their process takes them: gRPC keeps them in a line of its own, into which nobody can look.

So the process stands in that line itself: ten times a second it calls itself over a socket of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import grpc

INTERVAL_SECONDS: Final = 0.1
METHOD: Final = "/tallypoint.Line/Wait"
"""The call of the process to itself. From anybody else it changes nothing, and says nothing."""
_TOKEN_BYTES: Final = 16


class Line:
    """The calls that wait for a process, as one of them sees it.

    Args:
        address: An address of the process's server that nobody else uses.
        tell: Hears how long the line was, in seconds.
    """

    def __init__(self, address: str, tell: Callable[[float], None]) -> None:
        self.address = address
        self._tell = tell
        self._watch: asyncio.Task[None] | None = None
        self._token: bytes | None = None
        self._since = 0.0

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Return what answers `METHOD`."""

        async def take(token: bytes, _: object) -> bytes:
            self._end_of_call(token)
            return b""

        return grpc.unary_unary_rpc_method_handler(take)

    def start(self) -> None:
        """Stand in the line again and again, until `stop`."""
        self._watch = asyncio.create_task(self._stand(), name="line")

    async def stop(self) -> None:
        """Leave the line."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def _stand(self) -> None:
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            wait: Any = channel.unary_unary(METHOD)
            while True:
                token = secrets.token_bytes(_TOKEN_BYTES)
                self._token, self._since = token, time.perf_counter()
                try:
                    await wait(token)
                except grpc.aio.AioRpcError:  # gRPC drops whoever has waited for too long, us too
                    self._end_of_call(token)
                await asyncio.sleep(INTERVAL_SECONDS)

    def _end_of_call(self, token: bytes) -> None:
        if token == self._token:
            self._token = None
            self._tell(time.perf_counter() - self._since)
