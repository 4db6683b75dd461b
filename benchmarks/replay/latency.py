"""Latencies kept whole, so that percentiles are exact."""

from __future__ import annotations

from array import array

SHOWN_PER_MILLE = (500, 900, 990, 999)
"""The percentiles that reports show: p50, p90, p99, p99.9."""


class Latencies:
    """Durations of one kind of call, in nanoseconds: eight bytes each."""

    def __init__(self) -> None:
        """Begin empty."""
        self._durations = array("q")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._durations)

    def add(self, nanoseconds: int) -> None:
        """Keep one."""
        self._durations.append(nanoseconds)

    def percentiles(self, per_mille: tuple[int, ...] = SHOWN_PER_MILLE) -> list[int]:
        """The least durations not exceeded by that share of all, in nanoseconds; zeros if there are none."""
        ordered = sorted(self._durations)
        if not ordered:
            return [0] * len(per_mille)
        return [ordered[max(0, -(-len(ordered) * share // 1000) - 1)] for share in per_mille]
