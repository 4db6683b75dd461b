"""Rounded parts add up to the rounded whole, however a liability is cut into rows."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import journal_pb2

from ledger.entry.model import AVAILABLE, CLEARING, DEBT, EXPIRED, HELD, ISSUED, PENDING, REDEEMED
from ledger.finance.accounts import MOVEMENTS, movement_of
from ledger.finance.liability import SHOWN, Moved, exact_sums, roll_over_time, roll_side_by_side
from ledger.finance.point_value import PointValue, PointValues
from ledger.finance.rounding import Cumulative, half_up

PURCHASE = int(journal_pb2.ENTRY_KIND_PURCHASE)
RETURN = int(journal_pb2.ENTRY_KIND_RETURN)
MONTHS = [date(2026, month, 1) for month in (1, 2, 3)]
NAMES = [name for name, _, _ in SHOWN]
fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)
movements = st.lists(
    st.builds(
        Moved,
        label=st.integers(0, 6).map(lambda days: date(2026, 3, 29) + timedelta(days=days)),
        movement=st.sampled_from(NAMES),
        issue_month=st.sampled_from(MONTHS),
        points_minor=st.integers(-10_000, 10_000),
    ),
    max_size=40,
)
worths = st.none() | st.fixed_dictionaries(
    {month: st.fractions(min_value=0, max_value=3, max_denominator=997) for month in MONTHS}
)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        pytest.param(Fraction(1, 2), 1, id="half"),
        pytest.param(Fraction(-1, 2), -1, id="half below zero"),
        pytest.param(Fraction(3, 2), 2, id="half above an odd number"),
        pytest.param(Fraction(5, 2), 3, id="half above an even number"),
        pytest.param(Fraction(249, 100), 2, id="less than half"),
        pytest.param(Fraction(-251, 100), -3, id="more than half below zero"),
        pytest.param(Fraction(7), 7, id="whole"),
        pytest.param(Fraction(10**18, 3), 333333333333333333, id="large"),
    ],
)
def test_halves_go_away_from_zero(value: Fraction, rounded: int) -> None:
    assert half_up(value) == rounded


@given(fractions, st.lists(fractions))
def test_parts_of_a_series_add_up_to_the_rounded_sum(start: Fraction, values: list[Fraction]) -> None:
    series = Cumulative(start)
    opening = series.rounded
    parts = [series.add(value) for value in values]
    assert opening + sum(parts) == half_up(start + sum(values)) == series.rounded
    assert all(abs(part - value) <= 1 for part, value in zip(parts, values, strict=True))


def adds_up(row: tuple[int, ...]) -> bool:
    """Say whether opening + movements = closing in a row of figures."""
    opening, *moved, closing = row
    return opening + sum(sign * part for part, (_, _, sign) in zip(moved, SHOWN, strict=True)) == closing


@given(movements, movements, worths)
def test_days_roll_forward_from_opening_to_closing(
    before: list[Moved], during: list[Moved], worth: dict[date, Fraction] | None
) -> None:
    rows = roll_over_time(exact_sums(before, worth), exact_sums(during, worth))
    figures = [row[1:] for row in rows]
    assert all(adds_up(row) for row in figures)  # type: ignore[arg-type]  # figures are ints
    assert all(earlier[-1] == later[0] for earlier, later in itertools.pairwise(figures))
    assert [row[0] for row in rows] == sorted({moved.label for moved in during}, key=str)
    if rows:
        whole = total(before + during, worth)
        assert figures[-1][-1] == sum(half_up(whole[name]) for name in NAMES)


@given(movements, movements, worths)
def test_stores_add_up_to_all_of_them(
    before: list[Moved], during: list[Moved], worth: dict[date, Fraction] | None
) -> None:
    rows = roll_side_by_side(exact_sums(before, worth), exact_sums(during, worth))
    figures = [row[1:] for row in rows]
    assert all(adds_up(row) for row in figures)  # type: ignore[arg-type]  # figures are ints
    together = [moved._replace(label="all") for moved in before], [moved._replace(label="all") for moved in during]
    one = roll_side_by_side(*(exact_sums(part, worth) for part in together))
    columns = [sum(column) for column in zip(*figures, strict=True)]
    assert columns == ([*one[0][1:]] if one else [])


def total(moved: list[Moved], worth: dict[date, Fraction] | None) -> dict[str, Fraction]:
    """Add up movements in the simplest way."""
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for each in moved:
        sums[each.movement] += each.points_minor * (Fraction(1) if worth is None else worth[each.issue_month])
    return sums


@pytest.mark.parametrize(
    ("debit", "credit", "movement"),
    [
        pytest.param(1001, AVAILABLE, ("issued", 1), id="grant of a partner"),
        pytest.param(HELD, 1001, ("redeemed", -1), id="captured at a partner's"),
        pytest.param(ISSUED, AVAILABLE, ("issued", 1), id="grant"),
        pytest.param(ISSUED, PENDING, ("issued", 1), id="pending grant"),
        pytest.param(AVAILABLE, ISSUED, ("issued", -1), id="taken back"),
        pytest.param(DEBT, ISSUED, ("issued", -1), id="taken back as a debt"),
        pytest.param(AVAILABLE, REDEEMED, ("redeemed", -1), id="spent"),
        pytest.param(HELD, REDEEMED, ("redeemed", -1), id="captured"),
        pytest.param(REDEEMED, AVAILABLE, ("redeemed", 1), id="given back"),
        pytest.param(AVAILABLE, EXPIRED, ("expired", -1), id="lapsed"),
        pytest.param(CLEARING, DEBT, ("transferred", 1), id="debt moved away"),
        pytest.param(AVAILABLE, HELD, None, id="held"),
        pytest.param(PENDING, AVAILABLE, None, id="activated"),
        pytest.param(AVAILABLE, DEBT, None, id="debt paid"),
    ],
)
def test_what_a_posting_does_to_the_liability(debit: int, credit: int, movement: tuple[str, int] | None) -> None:
    assert movement_of(debit, credit, PURCHASE) == movement


@pytest.mark.parametrize(
    ("debit", "credit", "movement"),
    [
        pytest.param(AVAILABLE, 1001, ("issued", -1), id="taken back"),
        pytest.param(DEBT, 1001, ("issued", -1), id="taken back as a debt"),
        pytest.param(1001, AVAILABLE, ("redeemed", 1), id="given back"),
        pytest.param(ISSUED, 1001, None, id="made good"),
    ],
)
def test_what_a_return_does_with_a_partner(debit: int, credit: int, movement: tuple[str, int] | None) -> None:
    assert movement_of(debit, credit, RETURN) == movement


def test_every_movement_is_shown() -> None:
    assert set(MOVEMENTS.values()) == set(NAMES)


VERSIONS = PointValues(
    tuple(
        PointValue(number, date(2026, month, 1), money, 100, ppm, None, "")  # type: ignore[arg-type]  # no time
        for number, (month, money, ppm) in enumerate([(2, 10, 0), (4, 20, 250_000), (3, 5, 500_000)], start=1)
    ),
    Fraction(1, 3),
)


@pytest.mark.parametrize(
    ("month", "full", "allocated"),
    [
        pytest.param(1, Fraction(1, 3), Fraction(1, 3), id="before any version: what a point pays"),
        pytest.param(2, Fraction(1, 10), Fraction(1, 10), id="first version"),
        pytest.param(3, Fraction(1, 20), Fraction(1, 40), id="a newer version, less half of it"),
        pytest.param(4, Fraction(1, 20), Fraction(1, 40), id="the newest version that covers it, not the latest month"),
        pytest.param(12, Fraction(1, 20), Fraction(1, 40), id="long after"),
    ],
)
def test_newest_version_that_covers_a_month_values_it(month: int, full: Fraction, allocated: Fraction) -> None:
    assert (VERSIONS.full(date(2026, month, 1)), VERSIONS.allocated(date(2026, month, 1))) == (full, allocated)
