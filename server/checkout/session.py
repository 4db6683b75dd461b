"""Many calls over one stream: each runs by itself, and answers overtake each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from tallypoint.v1 import checkout_pb2

from server.edge import Caller, check
from server.edge.status import refused_of
from server.errors import refusal_message
from server.metrics import CallMeter

MAX_UNDER_WAY: Final = 64
"""Calls of one stream that run at once; the next is not read before one ends, so a stream cannot flood us."""
DEFAULT_TIMEOUT_SECONDS: Final = 3.0
"""Registers wait this long for an answer."""

_METERS: Final = {
    name: CallMeter(f"CheckoutService/Session/{name}")
    for name in ("identify", "quote", "hold", "commit", "cancel", "return", "none")
}

Call = Callable[[Any, Caller], Awaitable[Any]]


async def serve_session(
    requests: AsyncIterator[checkout_pb2.SessionRequest], caller: Caller, calls: Mapping[str, Call]
) -> AsyncIterator[checkout_pb2.SessionResponse]:
    """Answer every request of a stream, in the order in which the answers are ready.

    ``calls`` maps the names of the request's ``call`` fields, which are those of the answer's, to handlers.
    """
    answers: asyncio.Queue[checkout_pb2.SessionResponse | None] = asyncio.Queue()
    under_way = asyncio.Semaphore(MAX_UNDER_WAY)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(request: checkout_pb2.SessionRequest) -> None:
        try:
            answers.put_nowait(await _answer(request, caller, calls))
        finally:
            under_way.release()

    async def read() -> None:
        try:
            async for request in requests:
                await under_way.acquire()
                task = asyncio.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (response := await answers.get()) is not None:
            yield response
        await reader  # raises what broke the reading
    finally:
        reader.cancel()
        for task in tasks:
            task.cancel()


async def _answer(
    request: checkout_pb2.SessionRequest, caller: Caller, calls: Mapping[str, Call]
) -> checkout_pb2.SessionResponse:
    """Run one call; a refusal is an answer like any other."""
    response = checkout_pb2.SessionResponse(correlation_id=request.correlation_id)
    started = asyncio.get_running_loop().time()
    name = request.WhichOneof("call") or "none"
    timeout_seconds = request.timeout_milliseconds / 1000 or DEFAULT_TIMEOUT_SECONDS
    code = "OK"
    try:
        check(request)
        result = await calls[name](getattr(request, name), caller._replace(deadline=started + timeout_seconds))
        getattr(response, name).CopyFrom(result)
    except Exception as error:  # noqa: BLE001 - the outermost wrapper of a call on a stream; the others go on
        refused = refused_of(error, f"Session/{name}")
        code = refused.code.name
        response.refusal.CopyFrom(refusal_message(refused))
    finally:
        _METERS[name].observe(code, asyncio.get_running_loop().time() - started)
    return response
