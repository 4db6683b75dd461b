"""How much of a bare gRPC call a durable checkout costs: `Commit` against an echo of the same messages.

Run ``python -m benchmarks.commit_vs_echo``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from rich import box
from rich.table import Table

from benchmarks.arena import WARM_UP_SECONDS, Arena, LoadShape, facts, open_arena
from benchmarks.harness import Contest, machine, results_console, show
from benchmarks.load import Kind
from benchmarks.shop import BatchSizes, ShopSize

MATRIX_LINES: Final = (1, 10, 100)
MATRIX_PROMOTIONS: Final = (10, 200, 1_000)
MATRIX_WARM_UP_SECONDS: Final = 0.5
MATRIX_ROUNDS: Final = 3


def _contest(
    arena: Arena, kind: Kind, rounds: int, seconds: float, warm_up_seconds: float = WARM_UP_SECONDS, name: str = ""
) -> Contest:
    ours_count = int(arena.warmed_up(arena.ours, kind, warm_up_seconds) * seconds) or 1
    echo_count = int(arena.warmed_up(arena.baseline, kind, warm_up_seconds) * seconds) or 1
    contest = Contest(name or f"Commit, {kind}: tallypoint (ours) against an echo server (baseline)")
    contest.play(rounds, ours=lambda: arena.ours(kind, ours_count), baseline=lambda: arena.baseline(kind, echo_count))
    return contest


class Outcome(NamedTuple):
    """The contests by kind of call, and what else was found out."""

    contests: dict[Kind, Contest]
    lost: int
    """Entries more or fewer than answers."""
    batches: dict[Kind, BatchSizes]
    facts: dict[str, Any]


def measure(kinds: Sequence[Kind], size: ShopSize, shape: LoadShape, rounds: int, seconds: float) -> Outcome:
    """Run both servers and let them take turns, one kind of call after the other."""
    with open_arena(size, shape) as arena:
        entries_before = arena.shop.entries()
        contests: dict[Kind, Contest] = {}
        batches: dict[Kind, BatchSizes] = {}
        for kind in kinds:
            before = arena.shop.batch_sizes()
            contests[kind] = _contest(arena, kind, rounds, seconds)
            batches[kind] = arena.shop.batch_sizes().since(before)
        return Outcome(contests, arena.lost(entries_before), batches, facts(arena))


def matrix(size: ShopSize, shape: LoadShape, seconds: float) -> list[dict[str, Any]]:
    """Measure unary commits for each number of lines under each number of promotions, in short turns."""
    cells = []
    for promotions, lines in itertools.product(MATRIX_PROMOTIONS, MATRIX_LINES):
        with open_arena(size._replace(promotions=promotions, lines=lines), shape) as arena:
            entries_before = arena.shop.entries()
            name = f"{lines} lines under {promotions} promotions"
            contest = _contest(arena, "unary", MATRIX_ROUNDS, seconds, MATRIX_WARM_UP_SECONDS, name)
            cell = contest.result({})
            del cell["settings"]
            cell["errors"] += arena.lost(entries_before)
            cells.append({"lines": lines, "promotions": promotions, **cell})
    return cells


def show_matrix(cells: Sequence[Mapping[str, Any]]) -> None:
    """Print the cells for people."""
    table = Table(title="Commit, unary, by lines and promotions", title_justify="left", box=box.SIMPLE_HEAD)
    keys = ("lines", "promotions", "ours_per_s", "baseline_per_s", "ratio", "ratio_min", "ratio_max", "errors")
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    for cell in cells:
        table.add_row(*(f"{cell[key]:,}" for key in keys))
    results_console().print(table)


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
    with_matrix: Annotated[
        bool, typer.Option("--matrix", help="Also 1, 10 and 100 lines under 10, 200 and 1,000 promotions, unary.")
    ] = False,
    matrix_seconds: Annotated[float, typer.Option(help="About how long a turn of the matrix lasts.")] = 1.0,
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
    for kind, result in results.items():
        result["errors"] += outcome.lost
        result["batches"] = outcome.batches[kind].summary()
    whole = results[wanted[0]]
    if kinds == "both":
        whole["stream"] = results["stream"]
    if with_matrix:
        whole["matrix"] = matrix(size, shape, matrix_seconds)
        show_matrix(whole["matrix"])
    show(list(outcome.contests.values()), settings, whole if json else None)


if __name__ == "__main__":
    typer.run(main)
