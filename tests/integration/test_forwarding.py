"""Workers that send each other calls: over real sockets, with owners that answer, refuse, leave, and fall silent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tallypoint.v1 import common_pb2

from server.base.errors import Refused
from server.edge.caller import Caller, Role
from server.edge.forwarding import Forwarder, owned_books, owner_of

WORKERS = 2
MINE, THEIRS = 0, 1
"""Books of the first and of the second worker."""
PATIENCE_SECONDS = 30.0


class Outcomes(Counter[str]):
    """Counts what became of calls."""

    def forwarded(self, outcome: str) -> None:
        self[outcome] += 1


def a_call(request: bytes) -> Caller:
    return Caller(Role.TERMINAL, "Kasse 3 ü", "store-1", "lane-3", time.monotonic() + PATIENCE_SECONDS, sent=request)


async def echo(book: int, request: bytes, caller: Caller) -> bytes:
    assert caller.deadline is not None
    left = caller.deadline - time.monotonic()
    assert 0 < left <= PATIENCE_SECONDS
    who = (caller.name.encode(), caller.store_id.encode(), caller.terminal_id.encode())
    return b"|".join((request, b"%d" % book, *who))


async def ask_until(forwarder: Forwarder, book: int, wanted: Callable[[bytes | None], bool]) -> bytes | None:
    """Ask again until the answer is as wanted: links come and go by themselves."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not wanted(answer := await forwarder.ask(book, a_call(b"receipt"))):
            await asyncio.sleep(0)
    return answer


@asynccontextmanager
async def a_worker(
    folder: Path, number: int, answer: Callable[[int, bytes, Caller], Awaitable[bytes]] = echo
) -> AsyncIterator[tuple[Forwarder, Outcomes]]:
    outcomes = Outcomes()
    forwarder = Forwarder(folder, number, WORKERS, outcomes)
    await forwarder.start(answer)
    try:
        yield forwarder, outcomes
    finally:
        await forwarder.stop()


def test_every_book_has_one_owner() -> None:
    for workers in range(1, 6):
        for books in range(1, 9):
            owners = [number for number in range(1, workers + 1) for _ in owned_books(number, workers, books)]
            assert len(owners) == books
            assert all(
                owner_of(book, workers) == number
                for number in range(1, workers + 1)
                for book in owned_books(number, workers, books)
            )


async def test_an_owner_answers_for_whom_the_call_is(tmp_path: Path) -> None:
    async with a_worker(tmp_path, 1) as (first, outcomes), a_worker(tmp_path, 2):
        answer = await ask_until(first, THEIRS, lambda each: each is not None)
        assert answer == f"receipt|{THEIRS}|Kasse 3 ü|store-1|lane-3".encode()
        large = b"\0\xff" * 700_000
        echoed = await asyncio.gather(*(first.ask(THEIRS, a_call(large)) for _ in range(8)))
        assert all(each is not None and each.startswith(large) for each in echoed)
        assert await first.ask(MINE, a_call(b"mine")) is None
        assert outcomes["answered"] == 9


async def test_a_refusal_comes_back_whole(tmp_path: Path) -> None:
    refused = Refused(
        common_pb2.REFUSAL_REASON_OVERLOADED,
        "too many",
        cashier_text="Try again.",
        violations=[("receipt.lines[0].sku", "is empty")],
        retry_after_seconds=0.25,
    )

    async def refuse(book: int, request: bytes, caller: Caller) -> bytes:
        raise refused

    async with a_worker(tmp_path, 1) as (first, _), a_worker(tmp_path, 2, refuse):
        with pytest.raises(Refused) as caught:
            await ask_until(first, THEIRS, lambda each: each is not None)
        for name in ("reason", "message", "cashier_text", "violations", "retry_after_seconds"):
            assert getattr(caught.value, name) == getattr(refused, name)


async def test_a_mistake_of_the_owner_is_an_internal_error_and_the_link_goes_on(tmp_path: Path) -> None:
    async def stumble(book: int, request: bytes, caller: Caller) -> bytes:
        if request == b"receipt":
            raise ZeroDivisionError
        return b"fine"

    async with a_worker(tmp_path, 1) as (first, _), a_worker(tmp_path, 2, stumble):
        with pytest.raises(Refused) as caught:
            await ask_until(first, THEIRS, lambda each: each is not None)
        assert caught.value.reason == common_pb2.REFUSAL_REASON_INTERNAL
        assert await first.ask(THEIRS, a_call(b"another")) == b"fine"


async def test_without_its_owner_a_call_is_done_here_and_the_owner_is_found_again(tmp_path: Path) -> None:
    async with a_worker(tmp_path, 1) as (first, outcomes):
        assert await first.ask(THEIRS, a_call(b"receipt")) is None
        assert outcomes == {"local": 1}
        async with a_worker(tmp_path, 2):
            assert await ask_until(first, THEIRS, lambda each: each is not None) is not None
        assert await ask_until(first, THEIRS, lambda each: each is None) is None
        async with a_worker(tmp_path, 2):
            assert await ask_until(first, THEIRS, lambda each: each is not None) is not None


async def test_a_draining_owner_finishes_what_it_took(tmp_path: Path) -> None:
    taken, go = asyncio.Event(), asyncio.Event()

    async def slowly(book: int, request: bytes, caller: Caller) -> bytes:
        taken.set()
        await go.wait()
        return b"done"

    async with a_worker(tmp_path, 1) as (first, _):
        async with a_worker(tmp_path, 2, slowly):
            asking = asyncio.create_task(ask_until(first, THEIRS, lambda each: each is not None))
            await taken.wait()
            asyncio.get_running_loop().call_soon(go.set)
        assert await asking == b"done"


async def test_whoever_waits_for_a_silent_owner_does_the_call(tmp_path: Path) -> None:
    """A process that was stopped takes connections and bytes, and answers nothing."""
    arrived = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            arrived.set()
        writer.close()

    silent = await asyncio.start_unix_server(say_nothing, str(tmp_path / "worker-2.sock"))
    async with a_worker(tmp_path, 1) as (first, outcomes):
        asking = asyncio.create_task(ask_until(first, THEIRS, lambda _: arrived.is_set()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asking is None
        assert outcomes["failed"] == 1
        assert await first.ask(THEIRS, a_call(b"receipt")) is None, "it is known to be away"
        assert outcomes["failed"] == 1
        silent.close()
