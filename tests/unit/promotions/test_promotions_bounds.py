"""Whatever a programme file may say and a receipt may hold, the effects fit the 64 bits of the API and of the books."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.promotions import Effects, ReceiptLine, earn_as_paid, quote
from server.promotions.arithmetic import MOST_POINTS_MINOR
from server.promotions.effects.draw import MOST_ENTRIES
from tests.unit.promotions.builders import HEAD, SHOPPER, as_quoted, line, promotions, receipt, rules

MOST_MONEY = 10**12
"""The most that the API takes for a line, in minor units."""
MOST_PIECES_MILLI = 10**9
POINT = "point: {unit: bonus, precision: 6, pays: 0.01}\nspending: {max_share_percent: 100, step_points: 1}\n"
GIFT = "units: [{unit: gift, name: Gift, precision: 6, pays: 0.01}]\n"
TIERS = (
    "tiers: {by: points, window: {months: 12}, kept: {until_end_of: year, periods_later: 1}, "
    "levels: [{code: a, name: A, at_least: 0}, {code: b, name: B, at_least: 1000000000}]}\n"
)
BIG = {
    "base": "",
    "multiplied": "id: a, name: A, points: {multiplier: 1000, compound: true}",
    "multiplied again": "id: b, name: B, points: {multiplier: 1000, compound: true}",
    "fixed": "id: c, name: C, points: {fixed: 1000000000, per: unit}",
    "fixed gift": "id: d, name: D, points: {fixed: 1000000000, per: unit, unit: gift}",
    "for every amount": "id: e, name: E, points: {per_amount: {points: 1000000000, step: 0.01}}",
    "percent of gift points": "id: f, name: F, points: {percent: 1000, unit: gift}",
    "towards the level": "id: g, name: G, tier_points: {percent: 1000}",
    "entries": "id: h, name: H, draw: {name: car, per_amount: 0.01, entries: 10000}",
    "discount": "id: i, name: I, line_discount: {percent: 50}",
}
LINES = st.builds(
    lambda amount, quantity, weighed: line(1, amount, quantity_milli=quantity, is_weighed=weighed),
    st.sampled_from((0, 1, 99, MOST_MONEY - 1, MOST_MONEY)),
    st.sampled_from((1, 999, 1000, MOST_PIECES_MILLI)),
    st.booleans(),
)


def all_numbers(value: object) -> Iterator[int]:
    """Yield every number in effects, however deep."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from all_numbers(part)


def assert_holdable(effects: Effects) -> None:
    assert max(map(abs, all_numbers(effects))) < 2**63
    given: dict[str, int] = {}
    for one in effects.lines:
        for accrual in one.accruals:
            given[accrual.unit] = given.get(accrual.unit, 0) + accrual.points_minor
    assert all(0 < points <= MOST_POINTS_MINOR for points in given.values())
    assert given.get("", 0) == effects.accrual_points_minor
    assert effects.max_spend_points_minor <= MOST_POINTS_MINOR
    assert effects.tier_points_minor <= MOST_POINTS_MINOR
    assert sum(part.tier_points for one in effects.given for part in one.lines) == effects.tier_points_minor
    assert all(drawn.entries <= MOST_ENTRIES for drawn in effects.draws)


@example({"towards the level"}, [line(1, MOST_MONEY), line(2, MOST_MONEY)])
@given(st.sets(st.sampled_from(sorted(BIG))), st.lists(LINES, min_size=1, max_size=10))
def test_effects_fit_the_books(chosen: set[str], lines: list[ReceiptLine]) -> None:
    body = "earning: {base_percent: 1000}\n" + GIFT + TIERS
    items = [BIG[name] for name in sorted(chosen) if BIG[name]]
    ours = rules(body + (promotions(*items) if items else ""), HEAD + POINT)
    sold = receipt(*(one._replace(line_number=number) for number, one in enumerate(lines, start=1)))
    quoted = quote(ours, sold, SHOPPER, 10**12)
    assert_holdable(quoted)
    assert_holdable(earn_as_paid(ours, sold, SHOPPER, as_quoted(quoted)))


@pytest.mark.parametrize("promotion", ["", BIG["fixed gift"], BIG["for every amount"]])
def test_what_is_more_than_the_books_hold_is_cut_in_the_order_of_lines(promotion: str) -> None:
    """However the receipt is evaluated: on the plain way or step by step."""
    body = GIFT + "earning: {base_percent: 1000}\n" + (promotions(promotion) if promotion else "")
    effects = quote(rules(body, HEAD + POINT), receipt(100, MOST_MONEY, MOST_MONEY), SHOPPER)
    sums: dict[str, int] = {}
    for one in effects.lines:
        for accrual in one.accruals:
            sums[accrual.unit] = sums.get(accrual.unit, 0) + accrual.points_minor
    assert sums[""] == MOST_POINTS_MINOR
    assert max(sums.values()) == MOST_POINTS_MINOR
    assert effects.lines[0].accruals
