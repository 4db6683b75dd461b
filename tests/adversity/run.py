"""`make adversity`: harm a running service hundreds of times, and prove that no promise to a register was broken."""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server.commands.output.progress import progress
from tests.adversity.campaign import CampaignFailed, Plan, Report, Watcher, run_campaign
from tests.adversity.strikes import KINDS
from tests.support.proof import Proof

SECONDS_A_MINUTE = 60
SLOW_CYCLE_SECONDS = 15.0
FILE_WIDTH = 160

console = Console(stderr=True, highlight=False, soft_wrap=True)


class _Screen(Watcher):
    """Tells people how it goes."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self._plan = plan
        self._advance = stack.enter_context(progress("adversity", plan.cycles, "cycles", console))

    def skipped(self, kind: str, reason: str) -> None:
        console.print(f"left out: {kind}: {reason}")

    def cycle(self, number: int, kind: str, seconds: float) -> None:
        self._advance(1)
        if seconds > SLOW_CYCLE_SECONDS:
            console.print(f"cycle {number}, {kind}: {seconds:.0f} s")

    def proved(self, number: int, proof: Proof, seconds: float) -> None:
        console.print(
            f"cycle {number}: proved, {proof.entries:,} entries, {proof.booked:,} receipts, "
            f"{proof.answers_lost:,} answers lost on their way, in {seconds:.1f} s"
        )


def main(
    cycles: Annotated[int, typer.Option(min=1, help="How many cycles.")] = 500,
    seed: Annotated[int | None, typer.Option(help="Repeat the choices of this run; random if not given.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no cycle after this time.")] = None,
    prove_every: Annotated[int, typer.Option(min=1, help="Cycles between proofs.")] = 25,
    only: Annotated[list[str] | None, typer.Option(help="Only kinds with this in their name; repeatable.")] = None,
) -> None:
    """Harm a running service again and again under load, and prove that what was acknowledged is there, once."""
    kinds = [kind for kind in KINDS if not only or any(part in kind.name for part in only)]
    if not kinds:
        names = "\n  ".join(kind.name for kind in KINDS)
        raise typer.BadParameter(f"no kind has that in its name; there are\n  {names}", param_hint="--only")
    plan = Plan(
        seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
        cycles=cycles,
        seconds=math.inf if minutes is None else minutes * SECONDS_A_MINUTE,
        prove_every=prove_every,
        kinds=kinds,
    )
    console.print(f"seed {plan.seed}: up to {plan.cycles} cycles of {len(kinds)} kinds")
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # leave no service and no disk behind
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="adversity-", ignore_cleanup_errors=True))
            report = asyncio.run(run_campaign(plan, Path(folder), _Screen(plan, stack)))
    except KeyboardInterrupt:
        console.print(f"stopped; to begin again: --seed {plan.seed}")
        sys.exit(130)
    except CampaignFailed as failed:
        _tell(failed.report, time.monotonic() - began)
        _tell_failure(failed)
        sys.exit(1)
    _tell(report, time.monotonic() - began)


def _tell(report: Report, seconds: float) -> None:
    """Print the tally."""
    out = Console(highlight=False, soft_wrap=True)
    if not out.is_terminal:
        out.width = FILE_WIDTH
    table = Table("cycles of", "count", "median s", "longest s", title=f"Adversity, seed {report.seed}")
    for name, times in sorted(report.seconds.items()):
        table.add_row(name, str(len(times)), f"{statistics.median(times):.1f}", f"{max(times):.1f}")
    for name in report.skipped:
        table.add_row(name, "left out", "", "")
    out.print(table)
    columns = ("operation", "begun", "sent", "acknowledged", "refused by name", "outcome unknown", "then settled")
    table = Table(*columns, "repeated word for word")
    for operation, count in report.tally.counts().items():
        refused = ", ".join(f"{number} {name}" for name, number in count.refused.most_common())
        figures = (count.begun, count.sendings, count.acknowledged)
        after = (count.unknown, count.settled_by_repeating, count.repeated)
        table.add_row(operation.value, *(f"{n:,}" for n in figures), refused, *(f"{n:,}" for n in after))
    out.print(table)
    errors = ", ".join(f"{number:,} {name}" for name, number in report.tally.errors.most_common())
    reader, last = report.reader, report.proofs[-1] if report.proofs else None
    out.print(
        f"{report.cycles} cycles, {len(report.proofs)} proofs, {report.tally.acknowledged:,} acknowledgements, "
        f"lost {report.lost}, doubled {report.doubled}, {seconds / SECONDS_A_MINUTE:.1f} minutes\n"
        f"{last.entries if last else 0:,} entries, verified; {last.answers_lost if last else 0:,} operations were "
        f"booked by a sending whose answer never arrived\n"
        f"sendings without an answer: {errors or 'none'}\n"
        f"bank-style reader: {reader.snapshots:,} snapshots of {reader.moments:,} different moments, all sums right; "
        f"{reader.interrupted:,} could not be read while PostgreSQL was away"
    )


def _tell_failure(failed: CampaignFailed) -> None:
    """Print what went wrong, and keep the service's log."""
    report = failed.report
    with tempfile.NamedTemporaryFile("w", prefix=f"adversity-{report.seed}-", suffix=".log", delete=False) as file:
        file.writelines(json.dumps(event) + "\n" for event in report.log)
    if failed.__cause__ is not None:
        console.print("".join(traceback.format_exception(failed.__cause__)), markup=False)
    console.print(f"FAILED in {failed}", style="bold red")
    console.print(f"the service's log: {file.name}\nto repeat: --seed {report.seed} --cycles {failed.cycle}")


if __name__ == "__main__":
    typer.run(main)
