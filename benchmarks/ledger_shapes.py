"""How many books a ledger should have: the same receipts into ledgers of different shapes, in turns.

Run ``python -m benchmarks.ledger_shapes``. Few books make large batches; many spread over more connections and nodes.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Turn, histogram, narrator
from benchmarks.ledger_load import LedgerShape, ledger_under_load
from benchmarks.ledger_vs_pgbench import own_postgres, warmed_up

MAX_CONNECTIONS: Final = 180
"""Every writer has a connection to every book, and the embedded PostgreSQL takes 200."""


def main(
    books: Annotated[str, typer.Option(help="Numbers of books, separated by commas.")] = "1,2,4,8,16,32",
    writers: Annotated[int, typer.Option(help="Processes that write each ledger.")] = 2,
    concurrency: Annotated[int, typer.Option(help="Commands under way at once, in all writers.")] = 128,
    rounds: Annotated[int, typer.Option(help="How often every shape has its turn.")] = 5,
    seconds: Annotated[float, typer.Option(help="About how long a turn lasts.")] = 3.0,
) -> None:
    """Compare ledgers of different numbers of books, in turns within one run."""
    shapes = [LedgerShape(int(count), writers, concurrency) for count in books.split(",")]
    connections = sum(shape.books for shape in shapes) * writers
    if connections > MAX_CONNECTIONS:
        raise typer.BadParameter(f"{connections} connections would be open at once: name fewer books or writers")
    turns: dict[LedgerShape, list[Turn]] = {shape: [] for shape in shapes}
    with own_postgres() as postgres, ExitStack() as stack:
        ledgers = {
            shape: stack.enter_context(ledger_under_load(postgres, f"books_{shape.books}", shape)) for shape in shapes
        }
        commands = {shape: int(warmed_up(ledger) * seconds) for shape, ledger in ledgers.items()}
        for number in range(1, rounds + 1):
            for shape, ledger in ledgers.items():
                turns[shape].append(ledger.book(commands[shape]))
            speeds = ", ".join(f"{shape.books}: {done[-1].per_second:,.0f}/s" for shape, done in turns.items())
            narrator.print(f"round {number} of {rounds}, by books: {speeds}")
    Console(highlight=False, soft_wrap=True).print(_table(turns, writers, concurrency))


def _table(turns: dict[LedgerShape, list[Turn]], writers: int, concurrency: int) -> Table:
    title = f"Receipts booked by {writers} writers with {concurrency} under way; share of the round's fastest"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("books", "median/s", "lowest", "highest", "share", "p50 ms", "p99 ms", "µs writer", "µs database"):
        table.add_column(heading, justify="right")
    best = [max(each.per_second for each in same_round) for same_round in zip(*turns.values(), strict=True)]
    for shape, done in turns.items():
        speeds = [turn.per_second for turn in done]
        share = statistics.median(speed / fastest for speed, fastest in zip(speeds, best, strict=True))
        latencies = histogram(done)
        operations = sum(turn.operations for turn in done)
        table.add_row(
            str(shape.books),
            *(f"{speed:,.0f}" for speed in (statistics.median(speeds), min(speeds), max(speeds))),
            f"{share:.2f}",
            *(f"{latencies.get_value_at_percentile(percentile) / 1000:.1f}" for percentile in (50, 99)),
            *(
                f"{sum(turn.cpu_seconds[part] for turn in done) / operations * 1e6:.0f}"
                for part in ("writers", "postgres")
            ),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
