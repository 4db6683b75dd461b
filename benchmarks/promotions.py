"""What a quote costs in the evaluator alone: receipts of 1 to 1,000 lines under 10 to 10,000 live promotions.

Run ``python -m benchmarks.promotions``. Two mixes of promotions (see promotion_mixes): `equal` has three candidates a
line whatever their number, so that only the search grows; `realistic` has a real grocer's campaigns and baskets. All
cells take turns, round after round, since only cells of one run can be compared. Products have been seen before, and
what was there before the receipt is no garbage to look through, as in a worker that has been up for some minutes.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter_ns
from typing import Annotated, Final, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import harness
from benchmarks.promotion_mixes import Checkout, Mix, mixes
from server.promotions import Rules, quote

LINES: Final = (1, 10, 100, 1000)
PROMOTIONS: Final = (10, 200, 1000, 10_000)
_RECEIPTS: Final = 32
_LONG_RECEIPT: Final = 100
_LONG_RECEIPTS: Final = 4
_NANOSECONDS_PER_MICROSECOND: Final = 1000


class Case(NamedTuple):
    """One cell of the table: rules, and receipts of so many lines with who buys."""

    mix: str
    lines: int
    promotions: int
    rules: Rules
    checkouts: Sequence[Checkout]


def main(
    rounds: Annotated[int, typer.Option(help="How often every cell has its turn.")] = 15,
    milliseconds: Annotated[int, typer.Option(help="About how long a turn lasts.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects as the last line.")] = False,
) -> None:
    """Measure quotes of both mixes, every cell in turns with all others."""
    measured = mixes()
    for mix in measured:
        harness.narrator.print(f"{mix.name}: goods and baskets are {mix.goods}")
    goods = {f"goods of `{mix.name}`": mix.goods for mix in measured}
    settings = {"rounds": rounds, "milliseconds": milliseconds, **goods, **harness.machine()}
    cases = [case for mix in measured for case in _cases(mix)]
    gc.collect()
    gc.freeze()
    spans: dict[tuple[str, int, int], list[int]] = {case[:3]: [] for case in cases}
    for number in range(1, rounds + 1):
        for case in cases:
            spans[case[:3]] += _turn(case, milliseconds)
        harness.narrator.print(f"round {number} of {rounds}")
    results = [
        {
            "mix": name,
            "lines": lines,
            "promotions": promotions,
            "median_us": round(statistics.median(found) / _NANOSECONDS_PER_MICROSECOND, 1),
            "p99_us": round(statistics.quantiles(found, n=100)[98] / _NANOSECONDS_PER_MICROSECOND, 1),
        }
        for (name, lines, promotions), found in spans.items()
    ]
    console = Console(highlight=False, soft_wrap=True)
    for mix in measured:
        console.print(_table(mix.name, {(r["lines"], r["promotions"]): r for r in results if r["mix"] == mix.name}))
    for name, value in settings.items():
        console.print(f"{name}: {value}", markup=False)
    if as_json:
        sys.stdout.write(f"{json.dumps(results)}\n")


def _cases(mix: Mix) -> Iterator[Case]:
    for promotions in PROMOTIONS:
        harness.narrator.print(f"{mix.name}: compiling {promotions:,} promotions")
        rules = mix.rules(promotions)
        for lines in LINES:
            wanted = _RECEIPTS if lines <= _LONG_RECEIPT else _LONG_RECEIPTS
            checkouts = list(islice(mix.checkouts(lines, promotions), wanted))
            for receipt, member in checkouts:
                quote(rules, receipt, member)
            yield Case(mix.name, lines, promotions, rules, checkouts)


def _turn(case: Case, milliseconds: int) -> list[int]:
    """Quote for a while; nanoseconds of each quote, at least as many as there are receipts."""
    spans = []
    enough = perf_counter_ns() + milliseconds * 1_000_000
    for number, (receipt, member) in enumerate(cycle(case.checkouts), start=1):
        begun = perf_counter_ns()
        quote(case.rules, receipt, member)
        ended = perf_counter_ns()
        spans.append(ended - begun)
        if ended > enough and number >= len(case.checkouts):
            return spans
    return spans


def _table(mix: str, cells: dict[tuple[object, object], dict[str, object]]) -> Table:
    title = f"{mix}: microseconds a quote under so many promotions, median / 99th percentile"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("lines", justify="right")
    for promotions in PROMOTIONS:
        table.add_column(f"{promotions:,}", justify="right")
    for lines in LINES:
        row = [cells[lines, promotions] for promotions in PROMOTIONS]
        table.add_row(f"{lines:,}", *(f"{cell['median_us']:,.0f} / {cell['p99_us']:,.0f}" for cell in row))
    return table


if __name__ == "__main__":
    typer.run(main)
