"""One process of `ceiling.py`: lanes that do nothing but book receipts at an echo server.

Run with: prepared file, address, transport, lanes, seconds. It says "ready" once it is connected, waits for a line, and
at the end says how many calls a second it made.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Final

import gevent
from locust.env import Environment
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.locust import checks
from benchmarks.locust.checks import Wanted
from benchmarks.locust.lane import Lane
from benchmarks.locust.prepared import Prepared
from benchmarks.locust.register import Outcome
from benchmarks.locust.results import Tally
from benchmarks.locust.wire import Server, SessionWire, UnaryWire, Wire, start_gevent

WIRES: Final[dict[str, type[UnaryWire | SessionWire]]] = {wire.kind: wire for wire in (UnaryWire, SessionWire)}


class _EchoLane:
    """Does with each receipt what a lane of a run does: makes it, sends it, checks the answer, reports it."""

    def __init__(self, wire: Wire, lane: Lane, tally: Tally, environment: Environment) -> None:
        self._wire = wire
        self._lane = lane
        self._tally = tally
        self._fire: Any = environment.events.request.fire
        self.calls = 0

    def sell(self, until: float) -> None:
        while time.perf_counter() < until:
            request, wanted = self._receipt()
            begun = time.perf_counter_ns()
            answer = self._wire.call("Commit", request)
            nanoseconds = time.perf_counter_ns() - begun
            with contextlib.suppress(checks.WrongAnswer):  # the echo's answer is another receipt's
                checks.check_committed(answer.message, request, wanted)
            self._tally.record(self._wire.kind, Outcome("Commit", nanoseconds, len(answer.raw), None))
            self._fire(
                request_type=self._wire.kind,
                name="Commit",
                response_time=nanoseconds / 1e6,
                response_length=len(answer.raw),
                exception=None,
                context={},
            )
            self.calls += 1

    def close(self) -> None:
        self._wire.close()

    def _receipt(self) -> tuple[checkout_pb2.CommitRequest, Wanted]:
        shopper, receipt = self._lane.next_shopper(), self._lane.basket()
        effects = (common_pb2.LineEffects(line_number=line.line_number) for line in receipt.lines)
        quote = checkout_pb2.QuoteResponse(lines=effects)
        request = self._lane.commit(self._lane.identifier(shopper), receipt, quote)
        return request, Wanted(shopper.member_id, quote, None)


def main(prepared_path: Path, address: str, transport: str, lanes: int, seconds: float) -> None:
    """Connect, wait for the start, and make calls for so long."""
    start_gevent()
    prepared, environment, tally = Prepared.load(prepared_path), Environment(), Tally()
    environment.create_local_runner()  # which keeps Locust's own statistics
    workers = []
    for number in range(lanes):
        wire = WIRES[transport](Server(address, "none"))
        wire.connect()
        workers.append(_EchoLane(wire, Lane(prepared, number % len(prepared.terminals)), tally, environment))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    begun = time.perf_counter()
    gevent.joinall([gevent.spawn(worker.sell, begun + seconds) for worker in workers], raise_error=True)
    sys.stdout.write(f"{sum(worker.calls for worker in workers) / (time.perf_counter() - begun)}\n")
    sys.stdout.flush()
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
