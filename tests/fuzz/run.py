"""`make fuzz`: call every method with whatever anybody could send, and prove that nothing gave way."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from server.commands.output.progress import progress
from tests.fuzz.campaign import Campaign, Fault, Report
from tests.fuzz.proof import problems_of
from tests.fuzz.shop import open_shop
from tests.support.server_process import RunningServer, running_server

ENVIRONMENT: Final = {"TALLYPOINT_CONNECTION_AGE_SECONDS": "0", "TALLYPOINT_SLOW_CALL_MILLISECONDS": "0"}
SECONDS_A_MINUTE: Final = 60
FAULTS_SHOWN: Final = 20
FILE_WIDTH: Final = 160

console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(
    calls: Annotated[int, typer.Option(min=1, help="How many calls.")] = 20_000,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no call after this time.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draw as this run did; random if not given.")] = None,
    faults: Annotated[Path | None, typer.Option(help="Write the requests of all faults to this file.")] = None,
) -> None:
    """Call every method with random requests. Exit code 1: an answer was INTERNAL, or the books are unsound."""
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    console.print(f"seed {seed}: {calls:,} calls")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # leave no service behind
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder,
        running_server(Path(folder) / "data", "--workers=1", environment=ENVIRONMENT) as server,
    ):
        with progress("fuzz", calls, "calls", console) as advance:
            report = asyncio.run(run_campaign(server, seed, calls, advance, minutes))
        tell(report, time.monotonic() - began)
        said = Counter(f"{event.get('level')} {event.get('event')}" for event in list(server.log))
        console.print("the service said: " + ", ".join(f"{what} {count:,}" for what, count in said.most_common(12)))
        problems = asyncio.run(problems_of(server))
    for problem in problems:
        console.print(f"PROBLEM {problem}", markup=False)
    if faults is not None:
        faults.write_text("".join(f"{one.method} {one.request.hex()}\n" for one in report.faults), encoding="utf-8")
    if report.faults or problems:
        console.print(f"FAILED; to draw the same again: --seed {seed}", style="bold red")
        sys.exit(1)
    console.print("no answer was INTERNAL, UNKNOWN or UNAVAILABLE; the books are sound, and the CRM database has them")


async def run_campaign(
    server: RunningServer, seed: int, calls: int, advance: Callable[[int], None], minutes: float | None = None
) -> Report:
    """Set up a shop, and make so many calls, or those for which there is time."""
    known, terminal_key = await open_shop(server, random.Random(seed))
    seconds = math.inf if minutes is None else minutes * SECONDS_A_MINUTE
    return await Campaign(server, known, terminal_key, seed, calls, seconds).run(advance)


def tell(report: Report, seconds: float) -> None:
    """Print what was answered, and each kind of fault once."""
    out = Console(highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = FILE_WIDTH
    table = Table("method", "calls", "answers", title=f"Fuzz, seed {report.seed}")
    for method, codes in sorted(report.by_method.items()):
        table.add_row(method, f"{codes.total():,}", ", ".join(f"{code} {n:,}" for code, n in codes.most_common()))
    out.print(table)
    answers = ", ".join(f"{code} {count:,}" for code, count in report.codes.most_common())
    out.print(f"{report.calls:,} calls in {seconds:,.0f} s: {answers}; {len(report.faults):,} faults")
    kinds: dict[str, list[Fault]] = {}
    for fault in report.faults:
        kinds.setdefault(fault.kind(), []).append(fault)
    for kind, found in sorted(kinds.items(), key=lambda one: -len(one[1]))[:FAULTS_SHOWN]:
        first = found[0]
        out.print(
            f"\n{len(found):,} x {kind}\n{first.logged[:3000]}\nrequest {first.request[:400].hex()}", markup=False
        )


if __name__ == "__main__":
    typer.run(main)
