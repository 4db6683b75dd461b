"""A filled server, an echo server and the clients that call both: what the benchmarks of calls have in common."""

from __future__ import annotations

import statistics
import tempfile
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from tallypoint.v1 import checkout_pb2

from benchmarks.echo_server import EchoServer, echo_server
from benchmarks.harness import ProcessorTime, Turn, narrator
from benchmarks.load import TIMEOUT_SECONDS, Answer, Clients, Kind, Target, clients
from benchmarks.open_loop import REFUSALS, OpenTurn, schedule
from benchmarks.shop import Shop, ShopSize, open_shop
from benchmarks.workload import Wanted, answered

PROBE_REQUESTS: Final = 1_000
"""Sent first, to learn how many requests fill a warm-up."""
WARM_UP_SECONDS: Final = 2.0
SATURATION_TURNS: Final = 3
SATURATING_FACTOR: Final = 1.2
"""So many times the speed of a closed loop is asked for to measure saturation, and as long as it keeps up, more."""
KEEPING_UP: Final = 0.9
"""Who answers such a share of what arrives, while it arrives, keeps up."""
_SHOWN_FAILURES: Final = 3

Side = Literal["ours", "echo"]
Response = checkout_pb2.CommitResponse | str
"""An answer to a commit or, as text, its status and why there is none."""


class LoadShape(NamedTuple):
    """How the servers run, and how they are called."""

    workers: int
    books: int
    clients: int
    connections: int
    concurrency: int


@dataclass
class Arena:
    """Both servers, the clients, and what was found out on the way."""

    shop: Shop
    echo: EchoServer
    clients: Clients
    in_flight: int
    booked: dict[tuple[int, int], uuid.UUID] = field(default_factory=dict)
    """Book and number of every entry that an answer named, with the message that it answered."""
    drain_seconds: float = 0.0
    """The longest time that the CRM stream needed to catch up after a turn."""

    def ours(self, kind: Kind, count: int) -> Turn:
        """Commit new receipts and check every answer; then let the CRM stream catch up."""
        rung_up = list(self.shop.register.ring_up(count))
        turn, responses = self._send("ours", kind, [request for request, _ in rung_up])
        self._drain()
        return _with_errors(turn, self._failures(responses, [wanted for _, wanted in rung_up]))

    def baseline(self, kind: Kind, count: int) -> Turn:
        """Send receipts of the same make to the echo server."""
        turn, responses = self._send("echo", kind, [request for request, _ in self.shop.register.ring_up(count)])
        return _with_errors(turn, [response for response in responses if isinstance(response, str)])

    def warmed_up(self, turn: Callable[[Kind, int], Turn], kind: Kind, seconds: float = WARM_UP_SECONDS) -> float:
        """Warm a side up; return how many requests a second it answers."""
        speed = turn(kind, PROBE_REQUESTS).per_second
        return turn(kind, int(speed * seconds) or 1).per_second

    def on_schedule(
        self, side: Side, due_nanoseconds: array[int], timeout_seconds: float = TIMEOUT_SECONDS, *, lean: bool = False
    ) -> OpenTurn:
        """Send new receipts when they are due, whatever becomes of the earlier ones, and check every answer.

        ``lean`` sends by `benchmarks.lean_client`. What a server refuses because it has too much to do counts as
        refused; every other failure is an error.
        """
        rung_up = list(self.shop.register.ring_up(len(due_nanoseconds)))
        requests = [request for request, _ in rung_up]
        clock = self._clock(side)
        sent = self.clients.send_on_schedule(side, requests, due_nanoseconds, timeout_seconds, lean=lean)
        spent = {"clients": sent.cpu_seconds, **clock.spent()}
        if side == "ours":
            self._drain()
        responses = [_response("unary", answer) for answer in sent.answers]
        statuses = [each.partition(":")[0] if isinstance(each, str) else "OK" for each in responses]
        judged = [index for index, status in enumerate(statuses) if status not in REFUSALS]
        wanted = [rung_up[index][1] for index in judged]
        failures = self._failures([responses[index] for index in judged], wanted, check=side == "ours")
        _print_failures(failures)
        return OpenTurn(
            due_nanoseconds,
            sent.sent_nanoseconds,
            sent.answered_nanoseconds,
            statuses,
            Counter(each for each in responses if isinstance(each, str)),
            len(failures),
            spent,
        )

    def lost(self, entries_before: int) -> int:
        """Return by how many the new entries of the ledger differ from those that answers named."""
        return abs(self.shop.entries() - entries_before - len(self.booked))

    def _failures(self, responses: Sequence[Response], wanted: Sequence[Wanted], *, check: bool = True) -> list[str]:
        """Return what is wrong with answers; an answer of the echo need only be there."""
        failures = []
        for response, its_wanted in zip(responses, wanted, strict=True):
            if isinstance(response, str):
                failures.append(f"{its_wanted} was answered {response}")
            elif check:
                if not answered(response, its_wanted):
                    failures.append(f"{its_wanted} was answered {response}")
                entry = (response.entry.book, response.entry.number)
                if entry in self.booked:
                    failures.append(f"two receipts were answered with entry {entry}")
                self.booked[entry] = its_wanted.message_id
        return failures

    def _send(self, target: Side, kind: Kind, requests: Sequence[bytes]) -> tuple[Turn, list[Response]]:
        framed = requests if kind == "unary" else _on_stream(requests, self.clients.count)
        clock = self._clock(target)
        sent = self.clients.send(target, kind, framed, self.in_flight)
        spent = {"clients": sent.cpu_seconds, **clock.spent()}
        turn = Turn(len(requests), sent.seconds, 0, sent.latencies_nanoseconds, spent)
        return turn, [_response(kind, answer) for answer in sent.answers]

    def _clock(self, side: Side) -> ProcessorTime:
        parts = self.shop.processor_parts() if side == "ours" else {"workers": self.echo.processes}
        return ProcessorTime(parts)

    def _drain(self) -> None:
        self.drain_seconds = max(self.drain_seconds, self.shop.wait_for_crm())


def saturation(
    arena: Arena, sides: Sequence[Side], seconds: float, warm_up_seconds: float, *, lean: bool = False
) -> dict[Side, float]:
    """Return how many unary commits a second sides answer in an open loop that asks for more than they can.

    Not in a closed loop: an open one costs the clients another time, and they share the machine; and a server that
    gathers its work does more of it the more there is.

    Raises:
        RuntimeError: if commits fail, other than by being refused for having too much to do.
    """

    def ask(side: Side, per_second: float, seed: int) -> float:
        turn = arena.on_schedule(side, schedule("poisson", per_second, seconds, seed), lean=lean)
        if turn.errors > turn.statuses.count("CANCELLED"):  # what gRPC drops itself of a long backlog
            raise RuntimeError(f"{turn.errors} commits failed while saturation was measured: {turn.reasons}")
        return turn.answered / turn.seconds

    found: dict[Side, float] = {}
    for side in sides:
        closed = arena.warmed_up(arena.ours if side == "ours" else arena.baseline, "unary", warm_up_seconds)
        asked = SATURATING_FACTOR * closed
        speeds = [ask(side, asked, seed=0)]
        while speeds[-1] >= KEEPING_UP * asked:
            asked *= SATURATING_FACTOR
            speeds.append(ask(side, asked, len(speeds)))
        speeds += [ask(side, asked, len(speeds) + more) for more in range(SATURATION_TURNS - 1)]
        found[side] = statistics.median(speeds[-SATURATION_TURNS:])
    return found


@contextmanager
def open_arena(size: ShopSize, shape: LoadShape, echo_workers: int | None = None) -> Iterator[Arena]:
    """Run both servers and the clients in a temporary folder; end them afterwards.

    Args:
        size: What the server is filled with.
        shape: The processes of both servers, and of the clients.
        echo_workers: The echo's processes, if they are to be others than the server's.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallypoint-bench-")))
        shop = stack.enter_context(open_shop(folder, size, f"--workers={shape.workers}", f"--books={shape.books}"))
        workers = {"ours": shape.workers, "echo": echo_workers or shape.workers}
        echo = stack.enter_context(echo_server(workers["echo"], shop.sample_answer))
        addresses = {"ours": shop.address, "echo": echo.address}
        targets = {name: Target(address, shop.keys, workers[name]) for name, address in addresses.items()}
        sending = stack.enter_context(clients(shape.clients, shape.connections, targets))
        yield Arena(shop, echo, sending, shape.concurrency)


def facts(arena: Arena) -> dict[str, Any]:
    """Return what the settings of a result tell of the servers."""
    return {"database": arena.shop.database_settings(), "crm_drain_seconds": round(arena.drain_seconds, 2)}


def _on_stream(requests: Sequence[bytes], clients_count: int) -> list[bytes]:
    """Return commits as messages of a stream; a client numbers its own share from zero."""
    parse = checkout_pb2.CommitRequest.FromString
    return [
        checkout_pb2.SessionRequest(
            correlation_id=index // clients_count, timeout_milliseconds=30_000, commit=parse(request)
        ).SerializeToString()
        for index, request in enumerate(requests)
    ]


def _response(kind: Kind, answer: Answer) -> Response:
    if isinstance(answer, str):
        return answer or "nothing"
    if kind == "unary":
        return checkout_pb2.CommitResponse.FromString(answer)
    response = checkout_pb2.SessionResponse.FromString(answer)
    return response.commit if response.HasField("commit") else response.refusal.message


def _with_errors(turn: Turn, failures: Sequence[str]) -> Turn:
    _print_failures(failures)
    return Turn(turn.operations, turn.seconds, len(failures), turn.latencies_nanoseconds, turn.cpu_seconds)


def _print_failures(failures: Sequence[str]) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        narrator.print(f"error: {failure}", style="red", markup=False)
