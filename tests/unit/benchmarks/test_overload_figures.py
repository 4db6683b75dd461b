"""How goodput and recovery are read from a turn."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest

from benchmarks.open_loop import OpenTurn, schedule
from benchmarks.overload import Window, recovery_seconds, stretch, timeline

SECOND = 1_000_000_000


def answered_after(due: array[int], took_ms: list[int], statuses: list[str]) -> OpenTurn:
    answered = array("q", (moment + ms * 1_000_000 for moment, ms in zip(due, took_ms, strict=True)))
    return OpenTurn(due, due, answered, statuses, Counter(), 0)


def test_goodput_counts_what_was_answered_in_the_time_of_the_overload() -> None:
    due = schedule("constant", 10, 2, seed=0)
    took = [10] * 8 + [500] * 12  # of the first second the last two come after it
    turn = answered_after(due, took, ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] + ["OK"] * 15)
    first = stretch(turn, 3, 1)
    assert (first.offered, first.sent, first.answered, first.refused) == (10, 10, 7, 1)
    assert len(first.latencies_nanoseconds) == 9
    assert first.result()["answered_per_s"] == 7.0


def test_the_timeline_begins_when_the_overload_ends() -> None:
    due = schedule("constant", 8, 2, seed=0)
    turn = answered_after(due, [1] * 8 + [900, 700, 20, 20, 20, 20, 20, 20], ["OK"] * 15 + ["UNAVAILABLE"])
    windows = timeline(turn, 1)
    assert [window.seconds_after for window in windows] == [0, 0.25, 0.5, 0.75]
    assert [round(window.p99_ms) for window in windows] == [900, 20, 20, 20]
    assert [window.failed for window in windows] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("p99s", "failed", "expected"),
    [
        pytest.param([900, 400, 30, 20, 20], [0] * 5, 0.5, id="normal from the third window on"),
        pytest.param([30, 30, 30], [0] * 3, 0.0, id="at once"),
        pytest.param([30, 900, 30, 30], [0] * 4, 0.5, id="one good window is not enough"),
        pytest.param([30, 30, 30, 30], [5, 0, 0, 0], 0.25, id="failures are not normal"),
        pytest.param([900, 800, 30], [0] * 3, None, id="too late to tell"),
        pytest.param([], [], None, id="nothing"),
    ],
)
def test_recovery(p99s: list[float], failed: list[int], expected: float | None) -> None:
    windows = [Window(0.25 * n, p99, bad) for n, (p99, bad) in enumerate(zip(p99s, failed, strict=True))]
    assert recovery_seconds(windows, normal_p99_ms=20) == expected
