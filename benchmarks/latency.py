"""How long a `Commit` takes at a given load, beside an echo: an open loop, percentiles up to p99.9.

Run ``python -m benchmarks.latency``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from rich import box
from rich.table import Table

from benchmarks.arena import Arena, LoadShape, Side, facts, open_arena, saturation
from benchmarks.harness import machine, narrator, print_json, results_console
from benchmarks.open_loop import Arrivals, OpenTurn, milliseconds_at, schedule, summary
from benchmarks.shop import ShopSize

RATIO_AT_PERCENT: Final = 50
"""The load at which the targets compare ours with the echo."""

MAX_SATURATION_SECONDS: Final = 1.5
"""More would pile up more calls than a server takes at once."""


@dataclass
class Level:
    """One share of saturation, and the turns of each side at it."""

    load_percent: int
    ours: list[OpenTurn] = field(default_factory=list)
    echo: list[OpenTurn] = field(default_factory=list)
    """At the same share of its own saturation."""
    echo_at_same_rate: list[OpenTurn] = field(default_factory=list)
    """At as many requests a second as ours."""

    def ratios(self) -> list[float]:
        """Return p99 of ours over p99 of the echo, at the same share each of its own, one for each round."""
        pairs = zip(self.ours, self.echo, strict=True)
        return [p99_milliseconds(mine) / max(0.001, p99_milliseconds(theirs)) for mine, theirs in pairs]

    def turns(self) -> list[OpenTurn]:
        """Return the turns of all sides."""
        return [*self.ours, *self.echo, *self.echo_at_same_rate]

    def result(self) -> dict[str, Any]:
        """Return the level as JSON has it."""
        ratios = self.ratios()
        return {
            "load_percent": self.load_percent,
            "ours": summary(self.ours),
            "echo": summary(self.echo),
            "echo_at_same_rate": summary(self.echo_at_same_rate),
            "ratio_p99": round(statistics.median(ratios), 3),
            "ratio_p99_min": round(min(ratios), 3),
            "ratio_p99_max": round(max(ratios), 3),
        }


def p99_milliseconds(turn: OpenTurn) -> float:
    """Return the 99th percentile of a turn."""
    return milliseconds_at(turn.histogram(), 99.0)


class Sending(NamedTuple):
    """How requests are sent in a turn."""

    seconds: float
    arrivals: Arrivals
    lean: bool
    """By `benchmarks.lean_client`, not by gRPC's own client."""

    def turn(self, arena: Arena, side: Side, per_second: float, seed: int) -> OpenTurn:
        """Send that many requests a second."""
        due = schedule(self.arrivals, per_second, self.seconds, seed)
        return arena.on_schedule(side, due, lean=self.lean)


def measure(
    arena: Arena, saturated: Mapping[Side, float], loads: Sequence[int], rounds: int, sending: Sending
) -> list[Level]:
    """Let the sides take turns at every load, round after round."""
    levels = [Level(load) for load in loads]
    for number in range(rounds):
        for level in levels:
            share = level.load_percent / 100
            seed = 1_000 * number + level.load_percent
            rate = saturated["ours"] * share
            level.echo.append(sending.turn(arena, "echo", saturated["echo"] * share, seed))
            level.ours.append(sending.turn(arena, "ours", rate, seed))
            level.echo_at_same_rate.append(sending.turn(arena, "echo", rate, seed))
            mine, theirs = p99_milliseconds(level.ours[-1]), p99_milliseconds(level.echo[-1])
            narrator.print(
                f"{level.load_percent} % of saturation ({rate:,.0f}/s), round {number + 1} of {rounds}: p99 ours "
                f"{mine:.1f} ms, echo {theirs:.1f} ms, ratio {level.ratios()[-1]:.2f}, "
                f"errors {sum(turn.errors + turn.refused for turn in level.turns())}"
            )
    return levels


def result(
    levels: Sequence[Level], saturated: Mapping[Side, float], lost: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the object that `--json` prints; a refused call is an error here, since the load is below saturation."""
    at = next((level for level in levels if level.load_percent == RATIO_AT_PERCENT), levels[0])
    ratios = at.ratios()
    return {
        "ours_per_s": round(saturated["ours"], 1),
        "baseline_per_s": round(saturated["echo"], 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "ratio_is": f"p99 of ours over p99 of the echo at {at.load_percent} % of the saturation of each",
        "errors": lost + sum(turn.errors + turn.refused for level in levels for turn in level.turns()),
        "rounds": len(ratios),
        "levels": [level.result() for level in levels],
        "settings": dict(settings),
    }


def table(levels: Sequence[Mapping[str, Any]]) -> Table:
    """Return the levels of a result for people."""
    whole = Table(title="Commit, unary, open loop: latency in ms", title_justify="left", box=box.SIMPLE_HEAD)
    whole.add_column("load")
    for heading in ("side", "offered/s", "p50", "p90", "p99", "p99.9", "highest", "client late p99", "refused"):
        whole.add_column(heading, justify="right")
    names = {"ours": "ours", "echo": "echo, same share", "echo_at_same_rate": "echo, same rate"}
    keys = ("offered_per_s", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms", "client_late_p99_ms", "refused")
    for level in levels:
        for side, name in names.items():
            load = f"{level['load_percent']} %" if side == "ours" else ""
            whole.add_row(load, name, *(f"{level[side].get(key, 0):,}" for key in keys))
        whole.add_row(
            "", "ratio of p99", f"{level['ratio_p99']} ({level['ratio_p99_min']} to {level['ratio_p99_max']})"
        )
    return whole


def main(  # noqa: PLR0913, PLR0917  - the options of the command line
    rounds: Annotated[int, typer.Option(help="How often the sides take turns at every load.")] = 3,
    seconds: Annotated[float, typer.Option(help="How long requests arrive in a turn.")] = 5.0,
    client: Annotated[
        Literal["grpc", "lean"], typer.Option(help="gRPC's own client, or one that costs the machine less.")
    ] = "grpc",
    loads: Annotated[str, typer.Option(help="Loads in percent of saturation.")] = "25,50,75,90",
    arrivals: Annotated[Arrivals, typer.Option(help="How requests arrive.")] = "poisson",
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    concurrency: Annotated[int, typer.Option(help="Commits under way while saturation is measured.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes of each server.")] = 2,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    members: Annotated[int, typer.Option(help="Members who shop.")] = 4_000,
    clients_count: Annotated[int, typer.Option("--clients", help="Processes of the client.")] = 2,
    connections: Annotated[int, typer.Option(help="Connections of the clients to each server.")] = 8,
    warm_up_seconds: Annotated[float, typer.Option(help="How long each side is warmed up.")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure the latency of `Commit` at shares of saturation, in turns with an echo of the same messages."""
    size = ShopSize(lines, promotions, members, terminals=connections)
    shape = LoadShape(workers, books, clients_count, connections, concurrency)
    settings: dict[str, Any] = {
        **size._asdict(),
        **shape._asdict(),
        "seconds": seconds,
        "arrivals": arrivals,
        "client": client,
        "machine": machine(),
    }
    lean = client == "lean"
    with open_arena(size, shape) as arena:
        entries_before = arena.shop.entries()
        saturated = saturation(
            arena, ("ours", "echo"), min(seconds, MAX_SATURATION_SECONDS), warm_up_seconds, lean=lean
        )
        narrator.print(f"saturation: ours {saturated['ours']:,.0f}/s, echo {saturated['echo']:,.0f}/s")
        wanted = [int(load) for load in loads.split(",")]
        levels = measure(arena, saturated, wanted, rounds, Sending(seconds, arrivals, lean))
        settings |= facts(arena)
        whole = result(levels, saturated, arena.lost(entries_before), settings)
    console = results_console()
    console.print(table(whole["levels"]))
    for name in ("ratio_is", "ratio", "ratio_min", "ratio_max", "ours_per_s", "baseline_per_s", "errors", "settings"):
        console.print(f"{name}: {whole[name]}", markup=False)
    if json:
        print_json(whole)


if __name__ == "__main__":
    typer.run(main)
