"""Exact fractions as whole minor units, so that parts add up to the whole."""

from __future__ import annotations

from fractions import Fraction


def half_up(value: Fraction) -> int:
    """Round to the nearest integer, halves away from zero."""
    magnitude = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return magnitude if value >= 0 else -magnitude


class Cumulative:
    """Rounds a series so that every sum from its beginning is the rounded exact sum.

    A part is the difference of two rounded sums, so it may differ by one minor unit from its own rounding, and all
    parts together never do.
    """

    def __init__(self, start: Fraction | int = 0) -> None:
        self._exact = Fraction(start)
        self.rounded = half_up(self._exact)

    def add(self, value: Fraction | int) -> int:
        """Return the next part."""
        self._exact += value
        before, self.rounded = self.rounded, half_up(self._exact)
        return self.rounded - before
