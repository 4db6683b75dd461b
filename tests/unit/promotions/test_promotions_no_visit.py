"""A receipt on which nothing has a price is no visit: nothing is counted or given for its mere being there."""

from __future__ import annotations

import pytest

from server.promotions import Effects, PaidLine, ReceiptLine, earn_as_paid, quote
from tests.unit.promotions.builders import SHOPPER, line, promotions, receipt, rules

GENEROUS = promotions(
    "id: drawn, name: D, draw: {name: car, entries: 1}",
    "id: coupon, name: C, issue_coupon: {series: s}",
    "id: tier, name: T, tier_points: {fixed: 5}",
    "id: once, name: O, points: {fixed: 7, per: receipt}",
    "id: joined, name: J, scope: {skus: [club-card]}, club: {name: green, days: 30}",
    "id: fifth, name: F, when: {visit: {number: 5}}, points: {fixed: 1}",
)


def given(effects: Effects) -> set[str]:
    """What a receipt gives and counts, in words."""
    found = {count.key.split("/")[0] for count in effects.counts}
    found.update("coupon" for _ in effects.issued)
    found.update("points" for _ in range(effects.accrual_points_minor))
    return found


@pytest.mark.parametrize(
    ("lines", "gives"),
    [
        pytest.param([], set(), id="all positions voided"),
        pytest.param([line(1, 0)], set(), id="goods without a price"),
        pytest.param([line(1, 0), line(2, 0)], set(), id="several"),
        pytest.param([line(1, 0, sku="club-card")], {"club"}, id="a free club card"),
        pytest.param([line(1, 1)], {"visit", "draw", "coupon", "points", "tier"}, id="a penny"),
        pytest.param([line(1, 0), line(2, 1)], {"visit", "draw", "coupon", "points", "tier"}, id="a bag for nothing"),
    ],
)
def test_what_a_receipt_gives(lines: list[ReceiptLine], gives: set[str]) -> None:
    bought = receipt(*lines)
    assert given(quote(rules(GENEROUS), bought, SHOPPER)) == gives
    paid = [PaidLine(one.line_number, 0) for one in lines]
    assert given(earn_as_paid(rules(GENEROUS), bought, SHOPPER, paid)) == gives


def test_goods_that_a_discount_makes_free_are_a_visit() -> None:
    effects = earn_as_paid(rules(GENEROUS), receipt(500), SHOPPER, [PaidLine(1, 500)])
    assert {"visit", "draw", "coupon"} <= given(effects)


def test_a_plain_receipt_without_prices_is_no_visit_either() -> None:
    plain = rules(promotions("id: fifth, name: F, when: {visit: {number: 5}}, scope: {skus: [x]}, points: {fixed: 1}"))
    assert quote(plain, receipt(0), SHOPPER).counts == ()
    assert [count.key for count in quote(plain, receipt(1), SHOPPER).counts] == ["visit/ever"]
