"""All benchmarks one after the other, and a report of them: tables, plots, and whether the targets were met.

Run ``python -m benchmarks.report``, or with ``--long``; README.md in this folder says how to read the report.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import psutil
import typer
from rich import box
from rich.table import Table

from benchmarks.harness import machine, narrator, results_console
from benchmarks.report_content import SECTIONS, errors_of, markdown, measures
from benchmarks.report_plots import draw
from server.base.postgres import MAJOR_VERSION

RESULTS: Final = Path(__file__).parent / "results"
_OUTPUT_LINES: Final = 30
_GIBIBYTE: Final = 1024**3


class Run(NamedTuple):
    """How one benchmark is run."""

    module: str
    short: str
    long: str

    def command(self, *, long: bool, more: Sequence[str] = ()) -> list[str]:
        """Return its arguments after the name of the Python program."""
        return ["-m", f"benchmarks.{self.module}", *shlex.split(self.long if long else self.short), *more, "--json"]


RUNS: Final = (
    Run("commit_vs_echo", "--rounds 3 --seconds 2", "--rounds 3 --seconds 4 --matrix"),
    Run("ledger_vs_pgbench", "--rounds 3 --seconds 2", "--rounds 5 --seconds 3"),
    Run("latency", "--rounds 3 --seconds 1.2 --warm-up-seconds 1", "--rounds 3 --seconds 4"),
    Run("overload", "--rounds 3 --seconds 2 --recovery-seconds 3 --offered 3", "--rounds 3 --seconds 4"),
    Run("growth", "--rounds 3 --seconds 1.5 --entries 10000,100000", "--rounds 3 --seconds 3"),
    Run("workers", "--rounds 3 --seconds 1.2 --workers 1,2,4 --members 500", "--rounds 3 --seconds 2"),
    Run("crm_lag", "--rounds 3 --seconds 2", "--rounds 3 --seconds 4"),
    Run("promotions", "--rounds 3", "--rounds 8"),
)


def main(
    long: Annotated[bool, typer.Option("--long", help="A long round, 20 minutes; else a short one, eight.")] = (False),
    out: Annotated[Path | None, typer.Option(help="The report's folder; by default one named by the time.")] = None,
    only: Annotated[str, typer.Option(help="Only these benchmarks, separated by commas.")] = "",
    entries: Annotated[str, typer.Option(help="Of growth: the sizes of the ledger; by default up to a million.")] = "",
    keep: Annotated[Path | None, typer.Option(help="Of growth: a folder that keeps the filled ledgers.")] = None,
    from_results: Annotated[Path | None, typer.Option(help="Run nothing: report from this results.json.")] = None,
) -> None:
    """Run the benchmarks, write the report; the exit code is 1 if one of them failed."""
    began = datetime.now(UTC)
    folder = out or RESULTS / f"{began:%Y-%m-%d-%H%M}-{'long' if long else 'short'}"
    if from_results is not None:
        results = json.loads(from_results.read_text(encoding="utf-8"))
    else:
        wanted = [each for each in only.split(",") if each] or [run.module for run in RUNS]
        unknown = set(wanted) - set(SECTIONS)
        if unknown:
            raise typer.BadParameter(f"there is no benchmark {', '.join(sorted(unknown))}; there are {list(SECTIONS)}")
        growth = [*(("--entries", entries) if entries else ()), *(("--keep", str(keep)) if keep else ())]
        results = run_all([run for run in RUNS if run.module in wanted], began, long=long, growth=growth)
    write(results, folder)
    failed = show(results)
    narrator.print(f"the report: {folder / 'report.md'}")
    raise typer.Exit(1 if failed else 0)


def run_all(runs: Sequence[Run], began: datetime, *, long: bool, growth: Sequence[str] = ()) -> dict[str, Any]:
    """Run benchmarks one after the other; return what `results.json` holds."""
    clock = time.monotonic()
    described = description()
    benchmarks = {}
    for number, run in enumerate(runs, start=1):
        narrator.rule(f"{run.module} ({number} of {len(runs)}, {(time.monotonic() - clock) / 60:.1f} min so far)")
        benchmarks[run.module] = run_one(run.command(long=long, more=growth if run.module == "growth" else ()))
    return {
        "began_at": f"{began:%Y-%m-%d %H:%M} UTC",
        "length": "long" if long else "short",
        "seconds": round(time.monotonic() - clock, 1),
        "machine": described,
        "benchmarks": benchmarks,
    }


def run_one(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark in a process of its own, which tells its progress; return how it ended and its result."""
    clock = time.monotonic()
    told: deque[str] = deque(maxlen=_OUTPUT_LINES)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as results:
        process = subprocess.Popen(  # noqa: S603  - our own benchmark
            [sys.executable, *arguments], stdout=results, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                told.append(line.rstrip("\n"))
            exit_code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        results.seek(0)
        output = results.read()
    result = _last_json(output) if exit_code == 0 else None
    status = "ok" if result is not None else f"failed with exit code {exit_code}" if exit_code else "gave no result"
    return {
        "command": shlex.join(["python", *arguments]),
        "status": status,
        "seconds": round(time.monotonic() - clock, 1),
        "result": result,
        "output_end": [] if status == "ok" else [*told, *output.splitlines()][-_OUTPUT_LINES:],
    }


def _last_json(output: str) -> Any:  # noqa: ANN401  - as the benchmark makes it
    lines = output.rstrip("\n").splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write the results, the plots if there is matplotlib, and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pictures: list[str] = []
    if importlib.util.find_spec("matplotlib") is None:
        narrator.print("no plots: they need matplotlib, of the extra 'bench'", style="yellow")
    else:
        pictures = draw(results, folder)
    (folder / "report.md").write_text(markdown(results, pictures), encoding="utf-8")


def show(results: Mapping[str, Any]) -> bool:
    """Print the targets for people; say whether a benchmark failed or counted errors."""
    table = Table(title="Targets", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("benchmark", "what", "target", "measured", "spread", ""):
        table.add_column(heading)
    for each in measures(results):
        table.add_row(*each[:5], {True: "met", False: "missed", None: ""}[each.met])
    results_console().print(table)
    runs = results["benchmarks"].values()
    return any(run["status"] != "ok" or errors_of(run["result"]) for run in runs)


def description() -> dict[str, Any]:
    """Describe the machine, its disk and the programs that run on it."""
    folder = Path(tempfile.gettempdir())
    disk = psutil.disk_usage(str(folder))
    mounts = {each.mountpoint: each for each in psutil.disk_partitions(all=True)}
    mount = next((mounts[str(path)] for path in (folder, *folder.parents) if str(path) in mounts), None)
    kind = "" if mount is None else f"{mount.fstype} on {mount.device}, "
    return {
        **machine(),
        "disk": f"{kind}{disk.total / _GIBIBYTE:.0f} GiB, {disk.free / _GIBIBYTE:.0f} GiB of them free",
        "postgresql": f"{MAJOR_VERSION}, embedded, durable",
        "host": "virtual" if "hypervisor" in _processor_flags() else "real, or does not say",
        "affinity": f"{len(os.sched_getaffinity(0))} cores to be used",
    }


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


if __name__ == "__main__":
    typer.run(main)
