"""Calls wait until a process takes them, over real gRPC: it finds out how long, and who waits too long is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from prometheus_client import REGISTRY
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc
from tallypoint.v1 import common_pb2 as api

from server.base.settings import Settings
from server.edge.caller import Caller, Identity, Role
from server.edge.handlers import Edge, service_handler
from server.edge.line import METHOD, Line
from server.process.hosting import Port

SERVICE = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
TERMINAL = (("authorization", "Bearer any"),)
REQUEST = checkout_pb2.IdentifyRequest(identifier=api.Identifier(card_number="2000000000008"))
REGISTERS: Final = 100
WORK_SECONDS: Final = 0.02
"""All registers together have 2 s of work: a line of more than a second."""
PATIENCE_SECONDS: Final = 60


class Keys:
    """Lets everybody in."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Know everybody."""
        return Identity(Role.TERMINAL, bearer_key, "s1", "t1")


class Busy:
    """A servicer whose calls need all of the process, while it is told to."""

    is_busy = False
    answered = 0

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Work, without letting others work."""
        self.answered += 1
        if self.is_busy:
            time.sleep(WORK_SECONDS)  # noqa: ASYNC251 - a processor that is busy, as with real work
        return checkout_pb2.IdentifyResponse()


class Running:
    """A port that stands in its own line, and its only client."""

    def __init__(self, servicer: Busy, channel: grpc.aio.Channel) -> None:
        self.servicer, self.channel = servicer, channel
        self.stub = checkout_pb2_grpc.CheckoutServiceStub(channel)

    async def call(self) -> grpc.StatusCode:
        """Call once, and return the status."""
        try:
            await self.stub.Identify(REQUEST, metadata=TERMINAL, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A running port."""
    servicer, edge = Busy(), Edge(Keys())
    handlers = service_handler(SERVICE, servicer, frozenset({Role.TERMINAL}), edge)
    settings = Settings(data_dir=tmp_path, drain_timeout_seconds=5)
    port = Port("127.0.0.1:0", settings, edge, [(SERVICE, handlers)], tmp_path / "some-worker.line")
    await port.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as channel:
        yield Running(servicer, channel)
    await port.drain()


def lines(at_least_seconds: float = 0) -> float:
    """Return how often the line was measured, and took so long."""
    name, process = "tallypoint_line_seconds", {"process": "some-worker"}
    count = REGISTRY.get_sample_value(f"{name}_count", process) or 0
    if not at_least_seconds:
        return count
    return count - (REGISTRY.get_sample_value(f"{name}_bucket", {**process, "le": str(at_least_seconds)}) or 0)


async def test_who_waits_too_long_is_dropped_and_nothing_is_done_for_it(running: Running) -> None:
    """A call that came too late to be answered in time costs next to nothing; the line tells how long it was."""
    long_lines = lines(at_least_seconds=0.5)
    running.servicer.is_busy = True
    codes: list[grpc.StatusCode] = []

    async def register() -> None:
        while grpc.StatusCode.CANCELLED not in codes or lines(at_least_seconds=0.5) == long_lines:
            codes.append(await running.call())

    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(register() for _ in range(REGISTERS)))
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
    assert running.servicer.answered == codes.count(grpc.StatusCode.OK), "what was dropped was not done"
    running.servicer.is_busy = False
    assert await running.call() is grpc.StatusCode.OK


async def test_a_process_at_rest_measures_its_line_too(running: Running) -> None:
    """So that whoever looks at the figures knows what is usual."""
    before = lines()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while lines() < before + 3:
            assert await running.call() is grpc.StatusCode.OK


async def test_strangers_may_stand_in_the_line_and_learn_nothing(running: Running) -> None:
    """The call of the process to itself needs no key, says nothing, and counts nobody else."""
    stand_in_line: Any = running.channel.unary_unary(METHOD)
    assert await stand_in_line(b"of somebody else", timeout=PATIENCE_SECONDS) == b""
    told: list[float] = []
    take: Any = Line("unix:of nobody", told.append).handler().unary_unary
    assert await take(b"of somebody else", None) == b""
    assert told == []
