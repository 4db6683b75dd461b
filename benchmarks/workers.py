"""What more worker processes give: unary commits with one to four workers, in turns with an echo.

Run ``python -m benchmarks.workers``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from benchmarks.arena import WARM_UP_SECONDS, LoadShape, facts, open_arena
from benchmarks.harness import Contest, machine, print_json, results_console
from benchmarks.shop import ShopSize


def measure(
    size: ShopSize, shape: LoadShape, echo_workers: int, rounds: int, seconds: float, warm_up_seconds: float
) -> dict[str, Any]:
    """Run a server with so many workers and let it take turns with the echo."""
    with open_arena(size, shape, echo_workers) as arena:
        entries_before = arena.shop.entries()
        batches = arena.shop.batch_sizes()
        counts = [
            int(arena.warmed_up(side, "unary", warm_up_seconds) * seconds) or 1 for side in (arena.ours, arena.baseline)
        ]
        contest = Contest(f"Commit, unary, {shape.workers} workers (ours), echo with {echo_workers} (baseline)")
        contest.play(
            rounds, ours=lambda: arena.ours("unary", counts[0]), baseline=lambda: arena.baseline("unary", counts[1])
        )
        part = contest.result(facts(arena))
        part["errors"] += arena.lost(entries_before)
        return {"workers": shape.workers, **part, "batches": arena.shop.batch_sizes().since(batches).summary()}


def result(parts: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that `--json` prints: the figures of the best number of workers, and all of them."""
    best = max(parts, key=lambda part: part["ratio"])
    kept = [{key: value for key, value in part.items() if key != "settings"} for part in parts]
    return {
        **{key: value for key, value in best.items() if key not in {"settings", "workers"}},
        "best_workers": best["workers"],
        "errors": sum(part["errors"] for part in parts),
        "workers": kept,
        "settings": {**settings, **best["settings"]},
    }


def table(whole: Mapping[str, Any]) -> Table:
    """Return a result for people."""
    shown = Table(title="Commit, unary, by worker processes", title_justify="left", box=box.SIMPLE_HEAD)
    keys = ("workers", "ours_per_s", "baseline_per_s", "ratio", "ratio_min", "ratio_max", "errors")
    for key in keys:
        shown.add_column(key.replace("_", " "), justify="right")
    for part in whole["workers"]:
        shown.add_row(*(f"{part[key]:,}" for key in keys))
    return shown


def main(  # noqa: PLR0913, PLR0917  - the options of the command line
    rounds: Annotated[int, typer.Option(help="How often both sides take turns.")] = 3,
    seconds: Annotated[float, typer.Option(help="About how long a turn lasts.")] = 4.0,
    workers: Annotated[str, typer.Option(help="Numbers of worker processes, separated by commas.")] = "1,2,3,4",
    echo_workers: Annotated[int, typer.Option(help="Processes of the echo server.")] = 2,
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    concurrency: Annotated[int, typer.Option(help="Commits under way at once, on both sides.")] = 128,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    members: Annotated[int, typer.Option(help="Members who shop.")] = 4_000,
    clients_count: Annotated[int, typer.Option("--clients", help="Processes of the client.")] = 2,
    connections: Annotated[
        int, typer.Option(help="Connections of the clients; at least two a worker and client.")
    ] = 24,
    warm_up_seconds: Annotated[float, typer.Option(help="How long each side is warmed up.")] = WARM_UP_SECONDS,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure `Commit` with different numbers of worker processes, in turns with an echo of the same messages."""
    size = ShopSize(lines, promotions, members, terminals=connections)
    parts = [
        measure(
            size,
            LoadShape(int(count), books, clients_count, connections, concurrency),
            echo_workers,
            rounds,
            seconds,
            warm_up_seconds,
        )
        for count in workers.split(",")
    ]
    settings: dict[str, Any] = {
        **size._asdict(),
        "books": books,
        "clients": clients_count,
        "connections": connections,
        "concurrency": concurrency,
        "echo_workers": echo_workers,
        "seconds": seconds,
        "machine": machine(),
    }
    whole = result(parts, settings)
    console = results_console()
    console.print(table(whole))
    for name, value in whole["settings"].items():
        console.print(f"{name}: {value}", markup=False)
    if json:
        print_json(whole)


if __name__ == "__main__":
    typer.run(main)
