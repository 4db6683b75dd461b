"""Open loops: requests that arrive by a schedule, whether or not the earlier ones were answered.

A client that waits for an answer before it sends again sends less when the server is slow, and measures least of what
is worst (coordinated omission). Shoppers do not wait for each other: here every request has its moment beforehand,
and its latency counts from that moment to the answer, with whatever time it spent waiting to be sent. No correction
afterwards is needed then.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hdrh.histogram import HdrHistogram

from benchmarks.harness import new_histogram

Arrivals = Literal["poisson", "constant"]

CURVE_PERCENTILES: Final = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99)
"""What a curve of latencies is drawn from."""
REFUSALS: Final = frozenset(("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"))
"""Statuses of a server that has too much to do; a register sends again, or later from its journal."""
_NANOSECONDS: Final = 1_000_000_000
_NANOSECONDS_PER_MICROSECOND: Final = 1_000
_MICROSECONDS_PER_MILLISECOND: Final = 1_000


def schedule(arrivals: Arrivals, per_second: float, seconds: float, seed: int, from_second: float = 0.0) -> array[int]:
    """Return when requests are due, in nanoseconds from the beginning, ascending.

    Args:
        arrivals: `poisson`, as people arrive who know nothing of each other, or `constant`.
        per_second: The mean rate of arrivals.
        seconds: How long they arrive.
        seed: Of the dice; the same seed gives the same schedule.
        from_second: When the first may arrive.

    Raises:
        ValueError: if rate or duration are not above zero.
    """
    if per_second <= 0 or seconds <= 0:
        raise ValueError(f"{per_second} arrivals a second for {seconds} s is no load")
    due: Iterable[float]
    if arrivals == "constant":
        due = (number / per_second for number in range(int(per_second * seconds)))
    else:
        dice = random.Random(seed)  # noqa: S311  - a load, not a secret
        gaps = (dice.expovariate(per_second) for _ in itertools.count())
        due = itertools.takewhile(lambda moment: moment < seconds, itertools.accumulate(gaps))
    return array("q", (int((from_second + moment) * _NANOSECONDS) for moment in due))


def latencies(due_nanoseconds: array[int], answered_nanoseconds: array[int]) -> array[int]:
    """Return how long each request took from the moment at which it was due: corrected for coordinated omission."""
    pairs = zip(due_nanoseconds, answered_nanoseconds, strict=True)
    return array("q", (answered - due for due, answered in pairs))


@dataclass(frozen=True)
class OpenTurn:
    """What one side did with requests that came by a schedule, in their order."""

    due_nanoseconds: array[int]
    sent_nanoseconds: array[int]
    answered_nanoseconds: array[int]
    statuses: Sequence[str]
    """The status of each call: `OK`, or another one."""
    reasons: Counter[str]
    """How many were not answered with OK, by status and message."""
    errors: int
    """Failures that are no refusals, and wrong answers."""
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many were answered with OK."""
        return sum(status == "OK" for status in self.statuses)

    @property
    def refused(self) -> int:
        """How many were refused because the server had too much to do."""
        return sum(status in REFUSALS for status in self.statuses)

    @property
    def seconds(self) -> float:
        """How long requests arrived, or were answered if that took longer."""
        if not self.due_nanoseconds:
            return 0.0
        last = max((self.due_nanoseconds[-1], *self.answered_nanoseconds))
        return (last - self.due_nanoseconds[0]) / _NANOSECONDS

    def histogram(self) -> HdrHistogram:
        """Return the latencies of what was answered with OK, in microseconds from when each was due."""
        took = latencies(self.due_nanoseconds, self.answered_nanoseconds)
        return histogram_of(each for each, status in zip(took, self.statuses, strict=True) if status == "OK")

    def lateness(self) -> HdrHistogram:
        """Return how late the client sent, in microseconds: what it adds to the latencies by being busy itself."""
        return histogram_of(latencies(self.due_nanoseconds, self.sent_nanoseconds))


def histogram_of(nanoseconds: Iterable[int]) -> HdrHistogram:
    """Return durations as a histogram in microseconds."""
    histogram = new_histogram()
    for each in nanoseconds:
        histogram.record_value(max(1, each // _NANOSECONDS_PER_MICROSECOND))
    return histogram


def merged(histograms: Iterable[HdrHistogram]) -> HdrHistogram:
    """Return several histograms as one."""
    whole = new_histogram()
    for histogram in histograms:
        whole.add(histogram)
    return whole


def percentiles(histogram: HdrHistogram) -> dict[str, float]:
    """Return p50, p90, p99, p99.9 and the highest of a histogram of microseconds, in milliseconds."""
    wanted = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99_9_ms": 99.9, "max_ms": 100.0}
    return {name: milliseconds_at(histogram, percentile) for name, percentile in wanted.items()}


def curve(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """Return percentiles and their latencies in milliseconds, as far as there are enough latencies for them."""
    count = histogram.get_total_count()
    known = (each for each in CURVE_PERCENTILES if round(count * (100.0 - each) / 100.0) >= 1)
    return [(percentile, milliseconds_at(histogram, percentile)) for percentile in known]


def milliseconds_at(histogram: HdrHistogram, percentile: float) -> float:
    """Return a percentile of a histogram of microseconds in milliseconds; 0 of an empty one."""
    if histogram.get_total_count() == 0:
        return 0.0
    return round(float(histogram.get_value_at_percentile(percentile)) / _MICROSECONDS_PER_MILLISECOND, 3)


def summary(turns: Sequence[OpenTurn]) -> dict[str, Any]:
    """Return what turns at the same load gave together, as JSON has it."""
    seconds = sum(turn.seconds for turn in turns)
    if not seconds:
        return {"offered_per_s": 0.0, "answered_per_s": 0.0, "answered": 0, "refused": 0, "errors": 0}
    all_latencies = merged(turn.histogram() for turn in turns)
    arriving = sum((turn.due_nanoseconds[-1] - turn.due_nanoseconds[0]) / _NANOSECONDS for turn in turns)
    return {
        "offered_per_s": round(sum(len(turn.statuses) for turn in turns) / (arriving or seconds), 1),
        "answered_per_s": round(sum(turn.answered for turn in turns) / seconds, 1),
        "answered": sum(turn.answered for turn in turns),
        "refused": sum(turn.refused for turn in turns),
        "errors": sum(turn.errors for turn in turns),
        **percentiles(all_latencies),
        "client_late_p99_ms": milliseconds_at(merged(turn.lateness() for turn in turns), 99.0),
        "curve": curve(all_latencies),
    }
