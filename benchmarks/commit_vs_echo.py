"""How much of a bare gRPC call a durable checkout costs: `Commit` against an echo of the same messages.

Run ``python -m benchmarks.commit_vs_echo``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from tallypoint.v1 import checkout_pb2

from benchmarks.echo_server import EchoServer, echo_server
from benchmarks.harness import Contest, ProcessorTime, Turn, machine, narrator, show
from benchmarks.load import Answer, Clients, Kind, Target, clients
from benchmarks.shop import Shop, ShopSize, open_shop
from benchmarks.workload import answered

PROBE_REQUESTS: Final = 1_000
"""Sent first, to learn how many requests fill a warm-up."""
WARM_UP_SECONDS: Final = 2.0
_SHOWN_FAILURES: Final = 3

Response = checkout_pb2.CommitResponse | str
"""An answer to a commit or, as text, why there is none."""


@dataclass
class Arena:
    """Both servers, the clients, and what was found out on the way."""

    shop: Shop
    echo: EchoServer
    clients: Clients
    in_flight: int
    booked: set[tuple[int, int]] = field(default_factory=set)
    """Book and number of every entry that an answer named."""
    drain_seconds: float = 0.0
    """The longest time that the CRM stream needed to catch up after a turn."""

    def ours(self, kind: Kind, count: int) -> Turn:
        """Commit new receipts and check every answer; then let the CRM stream catch up."""
        rung_up = list(self.shop.register.ring_up(count))
        turn, responses = self._send("ours", kind, [request for request, _ in rung_up])
        self.drain_seconds = max(self.drain_seconds, self.shop.wait_for_crm())
        failures = []
        for response, (_, wanted) in zip(responses, rung_up, strict=True):
            if isinstance(response, str) or not answered(response, wanted):
                failures.append(f"{wanted} was answered {response}")
                continue
            entry = (response.entry.book, response.entry.number)
            if entry in self.booked:
                failures.append(f"two receipts were answered with entry {entry}")
            self.booked.add(entry)
        return _with_errors(turn, failures)

    def baseline(self, kind: Kind, count: int) -> Turn:
        """Send receipts of the same make to the echo server."""
        turn, responses = self._send("echo", kind, [request for request, _ in self.shop.register.ring_up(count)])
        return _with_errors(turn, [response for response in responses if isinstance(response, str)])

    def warmed_up(self, turn: Callable[[Kind, int], Turn], kind: Kind) -> float:
        """Warm a side up; return how many requests a second it answers."""
        speed = turn(kind, PROBE_REQUESTS).per_second
        return turn(kind, int(speed * WARM_UP_SECONDS)).per_second

    def _send(self, target: str, kind: Kind, requests: Sequence[bytes]) -> tuple[Turn, list[Response]]:
        parts = self.shop.processor_parts() if target == "ours" else {"workers": self.echo.processes}
        framed = requests if kind == "unary" else _on_stream(requests, self.clients.count)
        clock = ProcessorTime({"clients": self.clients.processes, **parts})
        sent = self.clients.send(target, kind, framed, self.in_flight)
        turn = Turn(len(requests), sent.seconds, 0, sent.latencies_nanoseconds, clock.spent())
        return turn, [_response(kind, answer) for answer in sent.answers]


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
    for failure in failures[:_SHOWN_FAILURES]:
        narrator.print(f"error: {failure}", style="red", markup=False)
    return Turn(turn.operations, turn.seconds, len(failures), turn.latencies_nanoseconds, turn.cpu_seconds)


def _contest(arena: Arena, kind: Kind, rounds: int, seconds: float) -> Contest:
    ours_count = int(arena.warmed_up(arena.ours, kind) * seconds)
    echo_count = int(arena.warmed_up(arena.baseline, kind) * seconds)
    contest = Contest(f"Commit, {kind}: tallypoint (ours) against an echo server (baseline)")
    contest.play(rounds, ours=lambda: arena.ours(kind, ours_count), baseline=lambda: arena.baseline(kind, echo_count))
    return contest


class LoadShape(NamedTuple):
    """How the servers run, and how they are called."""

    workers: int
    books: int
    clients: int
    connections: int
    concurrency: int


class Outcome(NamedTuple):
    """The contests by kind of call, and what else was found out."""

    contests: dict[Kind, Contest]
    lost: int
    """Entries more or fewer than answers."""
    facts: dict[str, Any]


def measure(kinds: Sequence[Kind], size: ShopSize, shape: LoadShape, rounds: int, seconds: float) -> Outcome:
    """Run both servers and let them take turns, one kind of call after the other."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallypoint-bench-")))
        shop = stack.enter_context(open_shop(folder, size, f"--workers={shape.workers}", f"--books={shape.books}"))
        echo = stack.enter_context(echo_server(shape.workers, shop.sample_answer))
        targets = {
            name: Target(each.address, shop.keys, shape.workers) for name, each in (("ours", shop), ("echo", echo))
        }
        arena = Arena(
            shop, echo, stack.enter_context(clients(shape.clients, shape.connections, targets)), shape.concurrency
        )
        entries_before = shop.entries()
        contests = {kind: _contest(arena, kind, rounds, seconds) for kind in kinds}
        lost = abs(shop.entries() - entries_before - len(arena.booked))
        facts = {"database": shop.database_settings(), "crm_drain_seconds": round(arena.drain_seconds, 2)}
    return Outcome(contests, lost, facts)


def main(  # noqa: PLR0913, PLR0917  - the options of the command line
    rounds: Annotated[int, typer.Option(help="How often both sides take turns.")] = 3,
    seconds: Annotated[float, typer.Option(help="About how long a turn lasts.")] = 5.0,
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    concurrency: Annotated[int, typer.Option(help="Commits under way at once, on both sides.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes of each server.")] = 2,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    members: Annotated[int, typer.Option(help="Members who shop.")] = 4_000,
    clients_count: Annotated[int, typer.Option("--clients", help="Processes of the client.")] = 2,
    connections: Annotated[int, typer.Option(help="Connections of the clients to each server.")] = 8,
    kinds: Annotated[Literal["unary", "stream", "both"], typer.Option(help="How commits are sent.")] = "both",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure `Commit` against an echo of the same messages, in turns within one run."""
    size = ShopSize(lines, promotions, members, terminals=connections)
    shape = LoadShape(workers, books, clients_count, connections, concurrency)
    settings: dict[str, Any] = {**size._asdict(), **shape._asdict(), "seconds": seconds, "machine": machine()}
    wanted: Sequence[Kind] = ("unary", "stream") if kinds == "both" else (kinds,)
    outcome = measure(wanted, size, shape, rounds, seconds)
    settings |= outcome.facts
    results = {kind: contest.result(settings) for kind, contest in outcome.contests.items()}
    for result in results.values():
        result["errors"] += outcome.lost
    whole = results[wanted[0]]
    if kinds == "both":
        whole["stream"] = results["stream"]
    show(list(outcome.contests.values()), settings, whole if json else None)


if __name__ == "__main__":
    typer.run(main)
