"""The clients of the benchmarks: processes that send prepared requests, as fast as answers come or by a schedule.

A client sends bytes and keeps bytes; requests are made before a turn and answers checked after it, so that the
client costs the same whoever answers. Its connections are spread evenly over the server's processes: the kernel
gives each new connection to a process at random, and an uneven draw would be measured as slowness.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import multiprocessing
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, NamedTuple

import grpc
import grpc.aio
import psutil
import uvloop
from tallypoint.v1 import checkout_pb2

from benchmarks.lean_client import LeanCalls, LeanConnection, header_block
from benchmarks.timer import PreciseTimer

COMMIT: Final = "/tallypoint.v1.CheckoutService/Commit"
SESSION: Final = "/tallypoint.v1.CheckoutService/Session"
TIMEOUT_SECONDS: Final = 30.0
_BEGIN_AFTER_NANOSECONDS: Final = 50_000_000
"""A schedule begins so long after it is ordered, so that all clients have heard of it."""
_ATTEMPTS_PER_CONNECTION: Final = 20
_YIELD_EVERY: Final = 16
_CHANNEL_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)  # a connection for each channel
_NANOSECONDS: Final = 1e-9
_spawn: Final = multiprocessing.get_context("spawn")

Kind = Literal["unary", "stream"]
Answer = bytes | str
"""A serialised response; or, as text, why there is none."""


class Target(NamedTuple):
    """A server: its address, the keys of its lanes, and how many processes share the address."""

    address: str
    keys: Sequence[str]
    workers: int


class Sent(NamedTuple):
    """What came of the requests of one turn, in their order."""

    seconds: float
    answers: list[Answer]
    latencies_nanoseconds: array[int]
    cpu_seconds: float
    """Processor time of the clients while they sent, without getting ready for it."""


class SentOnSchedule(NamedTuple):
    """What came of requests that were sent by a schedule, in their order; moments are counted from its beginning."""

    answers: list[Answer]
    sent_nanoseconds: array[int]
    """When the client really sent each; later than its schedule says if the client was busy."""
    answered_nanoseconds: array[int]
    cpu_seconds: float
    """Processor time of the clients while they sent, without getting ready for it."""


class _Orders(NamedTuple):
    target: str
    kind: Kind
    requests: list[bytes]
    in_flight: int


class _ScheduledOrders(NamedTuple):
    target: str
    requests: list[bytes]
    due_nanoseconds: array[int]
    timeout_seconds: float
    lean: bool

    @property
    def connection_kind(self) -> tuple[str, float]:
        """What lean connections are made for: the deadline is among the headers that all calls share."""
        return self.target, self.timeout_seconds


class _Report(NamedTuple):
    begun_nanoseconds: int
    ended_nanoseconds: int
    answers: list[Answer]
    latencies_nanoseconds: array[int]
    cpu_seconds: float


class Clients:
    """Client processes with open connections to some targets; made by `clients`."""

    def __init__(self, pipes: Sequence[Connection], pids: Sequence[int]) -> None:
        self._pipes = pipes
        self._pids = pids

    @property
    def count(self) -> int:
        """How many there are; request i of a turn is sent by client i modulo this."""
        return len(self._pipes)

    def processes(self) -> list[psutil.Process]:
        """Return the processes."""
        return [psutil.Process(pid) for pid in self._pids]

    def send(self, target: str, kind: Kind, requests: Sequence[bytes], in_flight: int) -> Sent:
        """Send all requests to a target, keeping that many under way in all; return when all are answered."""
        count = len(self._pipes)
        reports: list[_Report] = self._carried_out(
            _Orders(target, kind, list(requests[index::count]), max(1, in_flight // count)) for index in range(count)
        )
        answers: list[Answer] = [""] * len(requests)
        latencies = array("q", bytes(8 * len(requests)))
        for index, report in enumerate(reports):
            answers[index::count] = report.answers
            latencies[index::count] = report.latencies_nanoseconds
        begun = min(report.begun_nanoseconds for report in reports)
        ended = max(report.ended_nanoseconds for report in reports)
        spent = sum(report.cpu_seconds for report in reports)
        return Sent((ended - begun) * _NANOSECONDS, answers, latencies, spent)

    def send_on_schedule(
        self,
        target: str,
        requests: Sequence[bytes],
        due_nanoseconds: array[int],
        timeout_seconds: float,
        *,
        lean: bool = False,
    ) -> SentOnSchedule:
        """Send unary requests when they are due, however many are under way; return when all are answered.

        Args:
            target: The name of a target.
            requests: Serialised `CommitRequest`s.
            due_nanoseconds: When each is to be sent, counted from the beginning, in ascending order.
            timeout_seconds: The deadline of each call, from the moment at which it is really sent.
            lean: Whether by `benchmarks.lean_client` instead of gRPC's own client.
        """
        count = len(self._pipes)
        reports: list[SentOnSchedule] = self._carried_out(
            _ScheduledOrders(target, list(requests[index::count]), due_nanoseconds[index::count], timeout_seconds, lean)
            for index in range(count)
        )
        answers: list[Answer] = [""] * len(requests)
        sent, answered = (array("q", bytes(8 * len(requests))) for _ in range(2))
        for index, report in enumerate(reports):
            answers[index::count] = report.answers
            sent[index::count] = report.sent_nanoseconds
            answered[index::count] = report.answered_nanoseconds
        return SentOnSchedule(answers, sent, answered, sum(report.cpu_seconds for report in reports))

    def _carried_out(self, orders: Iterable[_Orders | _ScheduledOrders]) -> list[Any]:
        """Give each client its orders, let all begin at the same moment, and return their reports."""
        for pipe, its_orders in zip(self._pipes, orders, strict=True):
            pipe.send(its_orders)
        for pipe in self._pipes:
            pipe.recv()  # it has them
        begin = time.monotonic_ns() + _BEGIN_AFTER_NANOSECONDS
        for pipe in self._pipes:
            pipe.send(begin)
        return [pipe.recv() for pipe in self._pipes]


@contextmanager
def clients(count: int, connections: int, targets: Mapping[str, Target]) -> Iterator[Clients]:
    """Start client processes, each with its share of that many connections to each target; end them afterwards."""
    processes, pipes = [], []
    try:
        for _ in range(count):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(
                target=_run_client, args=(theirs, connections // count, dict(targets)), name="client", daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()  # connected
        yield Clients(pipes, [process.pid or 0 for process in processes])
    finally:
        for pipe in pipes:
            pipe.close()  # which ends the client
        for process in processes:
            process.join(10)
            process.kill()


class _Lane(NamedTuple):
    """One connection and the metadata of its calls."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]


def _run_client(parent: Connection, connections: int, targets: Mapping[str, Target]) -> None:
    """Do what the parent orders until it is gone. The entry point of a client process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_client(parent, connections, targets))


async def _client(parent: Connection, connections: int, targets: Mapping[str, Target]) -> None:
    lanes = {name: await _open_lanes(target, connections) for name, target in targets.items()}
    lean: dict[tuple[str, float], list[LeanConnection]] = {}
    parent.send("connected")
    while True:
        try:
            orders: _Orders | _ScheduledOrders = parent.recv()
        except EOFError:
            break
        if isinstance(orders, _ScheduledOrders) and orders.lean and orders.connection_kind not in lean:
            lean[orders.connection_kind] = await _open_lean(targets[orders.target], connections, orders.timeout_seconds)
        gc.collect()
        gc.disable()
        parent.send("loaded")
        begin: int = parent.recv()
        if isinstance(orders, _Orders):
            drive = _drive_unary if orders.kind == "unary" else _drive_streams
            parent.send(await drive(lanes[orders.target], orders.requests, orders.in_flight))
        elif orders.lean:
            parent.send(await _drive_lean(lean[orders.connection_kind], orders, begin))
        else:
            parent.send(await _drive_on_schedule(lanes[orders.target], orders, begin))
        gc.enable()
    for lane in itertools.chain.from_iterable(lanes.values()):
        await lane.channel.close()


async def _open_lean(target: Target, connections: int, timeout_seconds: float) -> list[LeanConnection]:
    """Open lean connections, spread evenly over the processes of the target."""
    host, _, port = target.address.rpartition(":")
    share = -(-connections // target.workers)
    taken: Counter[int] = Counter()
    opened: list[LeanConnection] = []
    for _ in range(_ATTEMPTS_PER_CONNECTION * connections):
        if len(opened) == connections:
            return opened
        key = target.keys[len(opened) % len(target.keys)]
        headers = header_block(COMMIT, target.address, key, timeout_seconds)
        make = functools.partial(LeanConnection, headers)
        _, connection = await asyncio.get_running_loop().create_connection(make, host, int(port))
        await asyncio.wait_for(connection.ready, TIMEOUT_SECONDS)
        worker = _process_behind(target.address, {connection.local_port})
        if taken[worker] >= share:
            connection.close()
            continue
        taken[worker] += 1
        opened.append(connection)
    raise RuntimeError(f"{target.address} has fewer than {target.workers} processes that take connections: {taken}")


async def _drive_lean(connections: Sequence[LeanConnection], orders: _ScheduledOrders, begin: int) -> SentOnSchedule:
    calls = LeanCalls(len(orders.requests), orders.timeout_seconds, begin)
    for connection in connections:
        connection.done = calls.done
    timer, cpu_before = PreciseTimer(), time.process_time()
    sweeping = asyncio.create_task(calls.sweep(connections))
    try:
        for index, due in enumerate(orders.due_nanoseconds):
            if time.monotonic_ns() < begin + due:
                await timer.wait_until(begin + due)
            elif index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)  # a client that is late must read answers, too
            calls.start(connections, index, orders.requests[index])
        await sweeping
    finally:
        timer.close()
    spent = time.process_time() - cpu_before
    return SentOnSchedule(calls.answers, calls.sent_nanoseconds, calls.answered_nanoseconds, spent)


async def _open_lanes(target: Target, connections: int) -> list[_Lane]:
    """Open connections until every process of the target has its share; surplus ones are closed."""
    share = -(-connections // target.workers)
    taken: Counter[int] = Counter()
    lanes: list[_Lane] = []
    for _ in range(_ATTEMPTS_PER_CONNECTION * connections):
        if len(lanes) == connections:
            return lanes
        before = _local_ports()
        channel = grpc.aio.insecure_channel(target.address, options=_CHANNEL_OPTIONS)
        await asyncio.wait_for(channel.channel_ready(), TIMEOUT_SECONDS)
        worker = _process_behind(target.address, _local_ports() - before)
        if taken[worker] >= share:
            await channel.close()
            continue
        taken[worker] += 1
        key = target.keys[len(lanes) % len(target.keys)]
        lanes.append(_Lane(channel, (("authorization", f"Bearer {key}"),)))
    raise RuntimeError(f"{target.address} has fewer than {target.workers} processes that take connections: {taken}")


def _local_ports() -> set[int]:
    return {port for port, _ in _connected(psutil.Process().net_connections("tcp"))}


def _process_behind(address: str, client_ports: set[int]) -> int:
    """Return the process that took the connection from one of these ports."""
    port = int(address.rpartition(":")[2])
    for each in psutil.net_connections("tcp"):
        if any(ports[0] == port and ports[1] in client_ports for ports in _connected([each])):
            return each.pid or 0
    return 0


def _connected(connections: Iterable[Any]) -> Iterator[tuple[int, int]]:
    """Return the local and the remote port of each connection that has both."""
    return ((each.laddr.port, each.raddr.port) for each in connections if each.laddr and each.raddr)


async def _drive_unary(lanes: Sequence[_Lane], requests: Sequence[bytes], in_flight: int) -> _Report:
    answers: list[Answer] = [""] * len(requests)
    latencies = array("q", bytes(8 * len(requests)))
    feed = enumerate(requests)
    now = time.perf_counter_ns

    async def repeat(lane: _Lane) -> None:
        call: Callable[..., Any] = lane.channel.unary_unary(COMMIT)
        for index, request in feed:
            begun = now()
            try:
                answers[index] = await call(request, timeout=TIMEOUT_SECONDS, metadata=lane.metadata)
            except grpc.aio.AioRpcError as error:
                answers[index] = f"{error.code().name}: {error.details()}"
            latencies[index] = now() - begun

    begun, cpu_before = time.monotonic_ns(), time.process_time()
    await asyncio.gather(*(repeat(lanes[number % len(lanes)]) for number in range(in_flight)))
    return _Report(begun, time.monotonic_ns(), answers, latencies, time.process_time() - cpu_before)


async def _drive_streams(lanes: Sequence[_Lane], requests: Sequence[bytes], in_flight: int) -> _Report:
    answers: list[Answer] = [""] * len(requests)
    latencies = array("q", bytes(8 * len(requests)))
    feed = iter(enumerate(requests))
    now = time.perf_counter_ns
    identify = checkout_pb2.SessionResponse.FromString

    async def converse(lane: _Lane, window: int) -> None:
        call: Any = lane.channel.stream_stream(SESSION)(metadata=lane.metadata)
        begun: dict[int, int] = {}
        try:
            for index, request in itertools.islice(feed, window):
                begun[index] = now()
                await call.write(request)
            while begun:
                raw = await call.read()
                if raw is grpc.aio.EOF:
                    break
                index = identify(raw).correlation_id
                latencies[index] = now() - begun.pop(index)
                answers[index] = raw
                for index, request in itertools.islice(feed, 1):
                    begun[index] = now()
                    await call.write(request)
            await call.done_writing()
            await call.read()
        except grpc.aio.AioRpcError as error:
            for index in begun:
                answers[index] = f"{error.code().name}: {error.details()}"

    begun, cpu_before = time.monotonic_ns(), time.process_time()
    await asyncio.gather(*(converse(lane, max(1, in_flight // len(lanes))) for lane in lanes))
    return _Report(begun, time.monotonic_ns(), answers, latencies, time.process_time() - cpu_before)


async def _drive_on_schedule(lanes: Sequence[_Lane], orders: _ScheduledOrders, begin: int) -> SentOnSchedule:
    requests = orders.requests
    answers: list[Answer] = [""] * len(requests)
    sent, answered = (array("q", bytes(8 * len(requests))) for _ in range(2))
    calls: list[Callable[..., Any]] = [lane.channel.unary_unary(COMMIT) for lane in lanes]
    now, timeout = time.monotonic_ns, orders.timeout_seconds

    async def send(index: int, lane: int) -> None:
        sent[index] = now() - begin
        try:
            answers[index] = await calls[lane](requests[index], timeout=timeout, metadata=lanes[lane].metadata)
        except grpc.aio.AioRpcError as error:
            answers[index] = f"{error.code().name}: {error.details()}"
        answered[index] = now() - begin

    timer, cpu_before = PreciseTimer(), time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            for index, due in enumerate(orders.due_nanoseconds):
                if now() < begin + due:
                    await timer.wait_until(begin + due)
                elif index % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)  # a client that is late must read answers, too
                group.create_task(send(index, index % len(lanes)))
    finally:
        timer.close()
    return SentOnSchedule(answers, sent, answered, time.process_time() - cpu_before)
