"""Spreading, rounding and calendar rules, in tables; and that parts always sum to the whole."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions.arithmetic import (
    counted_units,
    expiry_date,
    half_up_div,
    in_birthday_window,
    spread_largest_remainder,
)
from server.promotions.kinds import Period
from server.promotions.model import Expiry


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        pytest.param(10000, [20000, 20000, 10000], [4000, 4000, 2000], id="100 over 200+200+100"),
        pytest.param(100, [1, 1, 1], [34, 33, 33], id="a tie goes to the earlier line"),
        pytest.param(1, [1, 2], [0, 1], id="the largest remainder wins"),
        pytest.param(5, [0, 7], [0, 5], id="weight zero takes nothing"),
        pytest.param(5, [0, 0], [0, 0], id="nothing to spread over"),
        pytest.param(0, [3, 4], [0, 0], id="nothing to spread"),
        pytest.param(7, [], [], id="no lines"),
    ],
)
def test_spread(total: int, weights: list[int], parts: list[int]) -> None:
    assert spread_largest_remainder(total, weights) == parts


@pytest.mark.parametrize(
    ("total", "weights", "limits", "parts"),
    [
        pytest.param(100, [50, 50], [10, 90], [10, 90], id="what a limit turns away goes to the other"),
        pytest.param(100, [50, 50], [10, 20], [10, 20], id="limits permit less than the whole"),
        pytest.param(90, [30, 30, 30], [0, 50, 50], [0, 45, 45], id="limit zero"),
        pytest.param(100, [70, 20, 10], [40, 39, 100], [40, 39, 21], id="a second limit is met in turn"),
    ],
)
def test_spread_within_limits(total: int, weights: list[int], limits: list[int], parts: list[int]) -> None:
    assert spread_largest_remainder(total, weights, limits) == parts


_amounts = st.integers(0, 10**9)


@given(total=_amounts, pairs=st.lists(st.tuples(_amounts, _amounts), max_size=12))
def test_parts_sum_to_the_whole_or_to_what_limits_permit(total: int, pairs: list[tuple[int, int]]) -> None:
    weights = [weight for weight, _ in pairs]
    limits = [limit for _, limit in pairs]
    parts = spread_largest_remainder(total, weights, limits)
    assert sum(parts) == min(total, sum(limit for weight, limit in pairs if weight))
    assert all(0 <= part <= limit for part, limit in zip(parts, limits, strict=True))
    if any(weights):
        free = spread_largest_remainder(total, weights)
        assert sum(free) == total
        share = [(part * sum(weights) - total * weight) for part, weight in zip(free, weights, strict=True)]
        assert all(abs(error) < sum(weights) for error in share), "no part is a whole unit off its share"


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(5, 2, 3), (4, 2, 2), (7, 5, 1), (20158, 1000, 20), (205, 10, 21), (0, 3, 0)],
)
def test_half_up(numerator: int, denominator: int, rounded: int) -> None:
    assert half_up_div(numerator, denominator) == rounded


@pytest.mark.parametrize(
    ("quantity_milli", "is_weighed", "units"),
    [
        pytest.param(3000, False, 3, id="three pieces"),
        pytest.param(1250, False, 1, id="a fraction is weighed"),
        pytest.param(2000, True, 1, id="exactly two kilograms"),
    ],
)
def test_units(quantity_milli: int, is_weighed: bool, units: int) -> None:
    assert counted_units(quantity_milli, is_weighed) == units


@pytest.mark.parametrize(
    ("granted", "rule", "expires"),
    [
        pytest.param("2026-01-31", Expiry(after_months=1), "2026-02-28", id="31 January plus a month"),
        pytest.param("2028-01-31", Expiry(after_months=1), "2028-02-29", id="the same in a leap year"),
        pytest.param("2026-03-05", Expiry(after_days=10), "2026-03-15", id="days"),
        pytest.param("2026-12-15", Expiry(after_months=12), "2027-12-15", id="a year"),
        pytest.param("2026-03-04", Expiry(round_up_to=Period.DAY), "2026-03-04", id="to the end of the day"),
        pytest.param("2026-03-04", Expiry(round_up_to=Period.WEEK), "2026-03-08", id="of the week"),
        pytest.param("2026-02-04", Expiry(round_up_to=Period.MONTH), "2026-02-28", id="of the month"),
        pytest.param("2026-05-04", Expiry(round_up_to=Period.QUARTER), "2026-06-30", id="of the quarter"),
        pytest.param("2026-05-04", Expiry(round_up_to=Period.HALF_YEAR), "2026-06-30", id="of the half-year"),
        pytest.param("2026-07-01", Expiry(round_up_to=Period.HALF_YEAR), "2026-12-31", id="second half-year"),
        pytest.param("2026-05-04", Expiry(round_up_to=Period.YEAR), "2026-12-31", id="of the year"),
        pytest.param("2026-05-04", Expiry(on=date(2026, 9, 1)), "2026-09-01", id="a fixed day"),
        pytest.param("2026-01-31", Expiry(None, 1, 1, Period.MONTH), "2026-03-31", id="month, day, round up"),
        pytest.param("9999-12-01", Expiry(after_months=12), "9999-12-31", id="the calendar's end"),
    ],
)
def test_expiry(granted: str, rule: Expiry, expires: str) -> None:
    assert expiry_date(date.fromisoformat(granted), rule) == date.fromisoformat(expires)


def test_no_rule_never_expires() -> None:
    assert expiry_date(date(2026, 1, 1), None) is None


@pytest.mark.parametrize(
    ("birthday", "on", "before", "after", "is_within"),
    [
        pytest.param("1990-06-15", "2026-06-15", 0, 0, True, id="on the day"),
        pytest.param("1990-06-15", "2026-06-08", 7, 0, True, id="first day of the week before"),
        pytest.param("1990-06-15", "2026-06-07", 7, 0, False, id="a day too early"),
        pytest.param("1990-06-15", "2026-06-16", 7, 0, False, id="a day too late"),
        pytest.param("1990-06-15", "2026-06-17", 0, 2, True, id="days after"),
        pytest.param("1990-01-02", "2025-12-29", 7, 0, True, id="window begins in the old year"),
        pytest.param("1990-12-30", "2026-01-02", 0, 3, True, id="window ends in the new year"),
        pytest.param("1990-12-30", "2026-01-03", 0, 3, False, id="and no later"),
        pytest.param("1992-02-29", "2026-02-28", 0, 0, True, id="29 February on 28 in common years"),
        pytest.param("1992-02-29", "2026-03-01", 0, 0, False, id="not on 1 March"),
        pytest.param("1992-02-29", "2028-02-29", 0, 0, True, id="on 29 in leap years"),
        pytest.param("1992-02-29", "2028-02-28", 0, 0, False, id="and not on 28 then"),
        pytest.param("1992-12-31", "9999-12-31", 1, 1, True, id="the calendar's last day"),
    ],
)
def test_birthday_window(birthday: str, on: str, before: int, after: int, is_within: bool) -> None:
    assert in_birthday_window(date.fromisoformat(birthday), date.fromisoformat(on), before, after) is is_within
