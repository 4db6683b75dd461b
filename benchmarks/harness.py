"""What all benchmarks share: turns of two sides within one run, their medians and spread, tables and JSON.

Both sides of a comparison take turns on the same machine, one after the other, round after round. Only the ratio of
two neighbouring turns means something: a machine that is shared or throttled changes both.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from hdrh.histogram import HdrHistogram
from rich import box
from rich.console import Console
from rich.table import Table

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_LONGEST_LATENCY_MICROSECONDS: Final = 600_000_000
_SIGNIFICANT_DIGITS: Final = 3
_NANOSECONDS_PER_MICROSECOND: Final = 1000
_MEBIBYTE: Final = 1024 * 1024
_WIDTH_OF_FILES: Final = 150

narrator: Final = Console(stderr=True, highlight=False, soft_wrap=True)
"""Tells the person at the terminal what goes on; results go to the standard output."""


@dataclass(frozen=True)
class Turn:
    """What one side did in one round."""

    operations: int
    seconds: float
    errors: int
    latencies_nanoseconds: array[int] = field(default_factory=lambda: array("q"))
    """One for each operation; empty for a side that does not tell them."""
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    """Processor time spent in the turn, by part of the system."""

    @property
    def per_second(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


@dataclass
class Contest:
    """Two sides that take turns: ours, and the baseline that it is measured by."""

    name: str
    ours: list[Turn] = field(default_factory=list)
    baseline: list[Turn] = field(default_factory=list)

    def play(self, rounds: int, *, ours: Callable[[], Turn], baseline: Callable[[], Turn]) -> None:
        """Let the sides take turns, the baseline first, telling each result."""
        for number in range(1, rounds + 1):
            self.baseline.append(baseline())
            self.ours.append(ours())
            mine, theirs = self.ours[-1], self.baseline[-1]
            narrator.print(
                f"{self.name}, round {number} of {rounds}: baseline {theirs.per_second:,.0f}/s, "
                f"ours {mine.per_second:,.0f}/s, ratio {mine.per_second / theirs.per_second:.3f}, "
                f"errors {mine.errors + theirs.errors}"
            )

    def ratios(self) -> list[float]:
        """Ours over baseline, one for each round."""
        pairs = zip(self.ours, self.baseline, strict=True)
        return [mine.per_second / theirs.per_second for mine, theirs in pairs]

    def result(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that `--json` prints: medians over the rounds, errors of all of them."""
        ratios = self.ratios()
        return {
            "ours_per_s": round(statistics.median(turn.per_second for turn in self.ours), 1),
            "baseline_per_s": round(statistics.median(turn.per_second for turn in self.baseline), 1),
            "ratio": round(statistics.median(ratios), 4),
            "ratio_min": round(min(ratios), 4),
            "ratio_max": round(max(ratios), 4),
            "errors": sum(turn.errors for turn in (*self.ours, *self.baseline)),
            "rounds": len(ratios),
            "processor_us": {
                "ours": processor_microseconds(self.ours),
                "baseline": processor_microseconds(self.baseline),
            },
            "settings": dict(settings),
        }

    def table(self) -> Table:
        """Return the figures of both sides for people."""
        table = Table(title=self.name, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "median/s", "lowest", "highest"):
            table.add_column(heading, justify="right" if heading else "left")
        for percentile in PERCENTILES:
            table.add_column(f"p{percentile:g} ms", justify="right")
        for side, turns in (("baseline", self.baseline), ("ours", self.ours)):
            table.add_row(side, *_speeds(turns), *_latencies(turns))
        ratios = self.ratios()
        figures = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row("ratio", *(f"{figure:.3f}" for figure in figures))
        return table

    def processor_lines(self) -> list[str]:
        """Return where the processor time of one operation went, in microseconds."""
        sides = (("baseline", self.baseline), ("ours", self.ours))
        return [f"{side}, processor µs each: {_processor_time(turns)}" for side, turns in sides]


def new_histogram() -> HdrHistogram:
    """Return an empty histogram for microseconds."""
    return HdrHistogram(1, _LONGEST_LATENCY_MICROSECONDS, _SIGNIFICANT_DIGITS)


def histogram(turns: Iterable[Turn]) -> HdrHistogram:
    """Return the latencies of turns in microseconds."""
    merged = new_histogram()
    for turn in turns:
        for nanoseconds in turn.latencies_nanoseconds:
            merged.record_value(max(1, nanoseconds // _NANOSECONDS_PER_MICROSECOND))
    return merged


def _speeds(turns: Sequence[Turn]) -> list[str]:
    speeds = [turn.per_second for turn in turns]
    return [f"{speed:,.0f}" for speed in (statistics.median(speeds), min(speeds), max(speeds))]


def _latencies(turns: Sequence[Turn]) -> list[str]:
    merged = histogram(turns)
    if merged.get_total_count() == 0:
        return ["-"] * len(PERCENTILES)
    return [f"{merged.get_value_at_percentile(percentile) / 1000:.1f}" for percentile in PERCENTILES]


def processor_microseconds(turns: Sequence[Turn]) -> dict[str, float]:
    """Return the processor time of one operation by part of the system, in microseconds."""
    operations = sum(turn.operations for turn in turns)
    parts = {part: sum(turn.cpu_seconds[part] for turn in turns) for part in turns[0].cpu_seconds}
    return {part: round(seconds / operations * 1e6, 1) for part, seconds in parts.items()}


def _processor_time(turns: Sequence[Turn]) -> str:
    return ", ".join(f"{part} {microseconds:.0f}" for part, microseconds in processor_microseconds(turns).items())


class ProcessorTime:
    """Processor time by part of the system, from its creation to `spent`.

    Args:
        parts: For each part a function that returns its processes now. The time of a process that ended counts if
            its parent is among them.
    """

    def __init__(self, parts: Mapping[str, Callable[[], Iterable[psutil.Process]]]) -> None:
        self._parts = parts
        self._before = self._processor_seconds_by_part()

    def spent(self) -> dict[str, float]:
        """Return the seconds of each part since the beginning."""
        return {part: seconds - self._before[part] for part, seconds in self._processor_seconds_by_part().items()}

    def _processor_seconds_by_part(self) -> dict[str, float]:
        return {part: sum(map(_processor_seconds, processes())) for part, processes in self._parts.items()}


def _processor_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def with_children(pid: int | None) -> Callable[[], list[psutil.Process]]:
    """Return a function that lists a process and all that descend from it."""

    def processes() -> list[psutil.Process]:
        if pid is None or not psutil.pid_exists(pid):
            return []
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]

    return processes


def machine() -> dict[str, Any]:
    """Describe the machine and its load at this moment."""
    return {
        "processor": _processor_name(),
        "cores": psutil.cpu_count() or 0,
        "memory_mib": psutil.virtual_memory().total // _MEBIBYTE,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def results_console() -> Console:
    """Return the standard output, wide enough for a table even if it goes to a file."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=_WIDTH_OF_FILES)


def show(contests: Sequence[Contest], settings: Mapping[str, Any], result: Mapping[str, Any] | None) -> None:
    """Print tables and settings for people and, if there is a result, as the last line its JSON."""
    console = results_console()
    for contest in contests:
        console.print(contest.table())
        for line in contest.processor_lines():
            console.print(line)
        console.print()
    for name, value in settings.items():
        console.print(f"{name}: {value}", markup=False)
    if result is not None:
        print_json(result)


def print_json(result: Mapping[str, Any]) -> None:
    """Print the result as one line, the last one of the standard output."""
    sys.stdout.write(f"{json.dumps(result)}\n")
