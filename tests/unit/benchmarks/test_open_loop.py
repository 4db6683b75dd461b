"""Schedules of open loops, latencies counted from them, and what they are summed up to."""

from __future__ import annotations

import itertools
import statistics
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.open_loop import (
    Arrivals,
    OpenTurn,
    curve,
    histogram_of,
    latencies,
    merged,
    percentiles,
    schedule,
    summary,
)

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND


def turn(due_ms: list[float], sent_ms: list[float], answered_ms: list[float], statuses: list[str]) -> OpenTurn:
    def moments(each: list[float]) -> array[int]:
        return array("q", (int(ms * MILLISECOND) for ms in each))

    return OpenTurn(moments(due_ms), moments(sent_ms), moments(answered_ms), statuses, Counter(), 0)


class TestSchedule:
    def test_constant_arrivals_have_equal_gaps(self) -> None:
        assert list(schedule("constant", 4, 1, seed=0)) == [0, SECOND // 4, SECOND // 2, SECOND * 3 // 4]

    def test_a_schedule_can_begin_later(self) -> None:
        assert list(schedule("constant", 2, 1, seed=0, from_second=3)) == [3 * SECOND, 3 * SECOND + SECOND // 2]

    @given(
        arrivals=st.sampled_from(("poisson", "constant")),
        per_second=st.floats(1, 5_000),
        seconds=st.floats(0.01, 2),
        seed=st.integers(0, 100),
    )
    def test_arrivals_ascend_within_their_time_and_come_again(
        self, arrivals: Arrivals, per_second: float, seconds: float, seed: int
    ) -> None:
        due = list(schedule(arrivals, per_second, seconds, seed))
        assert due == sorted(due)
        assert all(0 <= moment <= seconds * SECOND for moment in due)
        assert due == list(schedule(arrivals, per_second, seconds, seed))

    def test_poisson_arrivals_have_the_rate_and_the_spread_of_chance(self) -> None:
        due = schedule("poisson", 2_000, 20, seed=1)
        gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
        assert len(due) == pytest.approx(40_000, rel=0.02)
        assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.03)  # of the exponential law

    @pytest.mark.parametrize(("per_second", "seconds"), [(0, 1), (-1, 1), (1, 0)])
    def test_no_load_is_refused(self, per_second: float, seconds: float) -> None:
        with pytest.raises(ValueError, match="is no load"):
            schedule("poisson", per_second, seconds, seed=0)


class TestCoordinatedOmission:
    def test_latency_counts_from_the_moment_that_was_due(self) -> None:
        """A stall of 100 ms falls on all that were due in it, not only on the one that was under way."""
        due = array("q", (number * 10 * MILLISECOND for number in range(10)))
        answered = array("q", [100 * MILLISECOND] * 10)  # each was sent when the stall was over, and answered at once
        assert [each // MILLISECOND for each in latencies(due, answered)] == [100 - 10 * n for n in range(10)]

    def test_the_clients_own_lateness_is_told(self) -> None:
        late = turn([0, 10], [0, 25], [1, 26], ["OK", "OK"]).lateness()
        assert late.get_max_value() == pytest.approx(15_000, rel=0.01)

    def test_only_what_was_answered_counts_into_the_latencies(self) -> None:
        mixed = turn([0, 0, 0], [0, 0, 0], [5, 3_000, 7], ["OK", "DEADLINE_EXCEEDED", "OK"])
        assert mixed.histogram().get_total_count() == 2
        assert (mixed.answered, mixed.refused) == (2, 1)
        assert mixed.histogram().get_max_value() == pytest.approx(7_000, rel=0.01)


class TestPercentiles:
    def test_a_known_spread(self) -> None:
        spread = histogram_of(number * MILLISECOND for number in range(1, 1001))
        found = percentiles(spread)
        assert found == pytest.approx(
            {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "p99_9_ms": 999, "max_ms": 1000}, rel=0.002
        )

    def test_nothing_gives_zeros(self) -> None:
        assert set(percentiles(histogram_of([])).values()) == {0.0}

    def test_histograms_merge(self) -> None:
        parts = [histogram_of([MILLISECOND] * 99), histogram_of([50 * MILLISECOND])]
        assert merged(parts).get_total_count() == 100
        assert percentiles(merged(parts))["max_ms"] == pytest.approx(50, rel=0.01)

    def test_a_curve_ends_where_there_is_nothing_beyond(self) -> None:
        assert max(percentile for percentile, _ in curve(histogram_of([MILLISECOND] * 100))) == 99.0
        assert max(percentile for percentile, _ in curve(histogram_of([MILLISECOND] * 1_000))) == 99.9

    def test_turns_are_summed_up(self) -> None:
        one = turn([0, 500, 1_000], [0, 500, 1_000], [2, 502, 1_000], ["OK", "OK", "UNAVAILABLE"])
        found = summary([one, one])
        assert (found["answered"], found["refused"], found["errors"]) == (4, 2, 0)
        assert found["answered_per_s"] == pytest.approx(2.0)

    def test_no_turns_are_summed_up_to_nothing(self) -> None:
        assert summary([])["answered"] == 0
