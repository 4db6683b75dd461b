"""What was mended since an old receipt was booked, told from the promotions that differ; a new one must not differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from tallypoint.v1 import journal_pb2

from ledger.entry import semantics
from ledger.entry.semantics import MENDED, Area, mended_since
from server.promotions import MemberFacts, Rules, quote
from server.promotions.facts import Usage
from server.rules.evidence import facts_of, receipt_of, reexplained
from server.rules.mended import as_booked, judged
from server.rules.receipt_lines import add_line_effects
from tests.unit.promotions.builders import ONE_PERCENT, promotions, rules


class Case(NamedTuple):
    """A promotion, the goods on which an old entry has another discount of it, and what was mended since."""

    promotion: str
    kinds: set[str]
    goods: dict[str, Any]


MEMBER = MemberFacts("6f1c1f0e-5d0b-4c53-9a9e-0d2a3f7f7c11")
FIVE = {"quantity_milli": 5000, "list_amount_minor": 5000}
ONE = {"quantity_milli": 1000, "list_amount_minor": 5000}
CASES = {
    "a limit in units": Case(
        "id: p, name: P, line_discount: {amount: 3.00}, limits: [{at_most: 1, for: receipt}]", {"limits-by-unit"}, FIVE
    ),
    "a deal over units of a line": Case("id: p, name: P, units: {every: 3, percent: 100}", {"units-apart"}, FIVE),
    "a price of several units": Case("id: p, name: P, line_discount: {fixed_price: 5.00}", {"units-apart"}, FIVE),
    "a gift": Case("id: p, name: P, when: {receipt_total: {at_least: 50.00}}, gift: {skus: [s]}", set(), ONE),
    "a capped basket": Case(
        "id: p, name: P, basket_discount: {percent: 50}, limits: [{at_most: 5.00, of: money, for: receipt}]",
        {"caps-as-a-whole"},
        ONE,
    ),
    "an amount over a floor": Case(
        "id: p, name: P, basket_discount: {amount: 5.00}", {"floor-rest-spread"}, {**ONE, "floor_amount_minor": 4600}
    ),
    "a part of a piece": Case(
        "id: p, name: P, line_discount: {percent: 10}",
        {"parts-of-a-piece", "units-apart"},
        {**FIVE, "quantity_milli": 3500},
    ),
    "one piece, which no kind explains": Case("id: p, name: P, line_discount: {percent: 10}", set(), ONE),
}


def booked(by: Rules, goods: dict[str, Any], judged_by: int) -> journal_pb2.Event:
    """Return a receipt with what the rules give on it."""
    event = journal_pb2.Event(semantics=judged_by)
    purchase = event.purchase
    purchase.receipt.currency_code, purchase.time_zone = "UAH", "Europe/Kyiv"
    purchase.receipt.event_at.FromDatetime(datetime(2026, 3, 2, 10, tzinfo=UTC))
    purchase.programme_version = by.version
    purchase.receipt.lines.add(line_number=1, sku="s", **goods)
    purchase.member_id = "6f1c1f0e-5d0b-4c53-9a9e-0d2a3f7f7c11"
    purchase.facts.CopyFrom(
        facts_of(by, receipt_of(purchase), MEMBER, Usage(), quote(by, receipt_of(purchase), MEMBER))
    )
    purchase.receipt.lines[0].discount_minor = quote(by, receipt_of(purchase), MEMBER).discount_minor
    effects = reexplained(purchase, by)
    for one in effects.capped:
        purchase.capped.add(promotion_id=one.promotion_id, wanted=one.wanted, granted=one.granted, limit=one.limit)
    add_line_effects(purchase.effects, purchase.receipt, effects)
    return event


def differing(by: Rules, goods: dict[str, Any], judged_by: int = semantics.FIRST) -> journal_pb2.Event:
    """Return a receipt on which the promotion took off one minor unit less than it does today."""
    event = booked(by, goods, judged_by)
    discounts = event.purchase.effects[0].discounts
    if discounts:
        discounts[0].amount_minor -= 1
    else:
        discounts.add(promotion_id="p", amount_minor=1)
    return event


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_mended_follows_from_the_promotion_that_differs(case: Case) -> None:
    by = rules(ONE_PERCENT + promotions(case.promotion))
    found = judged(differing(by, case.goods), by)
    assert found.difference
    every = {one.kind for one in mended_since(semantics.FIRST, Area.PRICES, Area.POINTS)}
    expected = case.kinds or ({"gift-own-threshold"} if "gift" in case.promotion else every)
    assert {one.kind for one in found.kinds} == expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_difference_of_a_new_entry_is_a_fault_and_equal_ones_are_none(case: Case) -> None:
    by = rules(ONE_PERCENT + promotions(case.promotion))
    found = judged(differing(by, case.goods, semantics.CURRENT), by)
    assert found.difference
    assert not found.kinds
    for number in (semantics.FIRST, semantics.CURRENT):
        assert judged(booked(by, case.goods, number), by) == ("", ())


def test_what_points_paid_is_judged_by_the_settlement() -> None:
    by = rules(ONE_PERCENT)
    event = booked(by, ONE, semantics.FIRST)
    event.purchase.effects[0].points_money_minor = 500
    event.settlement.spent_money_minor = 500
    event.purchase.effects[0].accruals[0].base_minor = 4500
    event.purchase.effects[0].accruals[0].points_minor = 45
    assert judged(event, by) == ("", ())
    event.settlement.spent_money_minor = 0
    assert [one.kind for one in judged(event, by).kinds] == ["real-payment-earns"]
    event.settlement.spent_money_minor = 6000
    assert [one.kind for one in judged(event, by).kinds] == ["spending-at-the-fence"]


def test_points_for_a_tender_may_have_counted_change() -> None:
    by = rules(ONE_PERCENT + promotions("id: p, name: P, when: {paid_by: {tenders: [cash]}}, points: {fixed: 7}"))
    event = booked(by, ONE, semantics.FIRST)
    event.purchase.effects[0].accruals.add(promotion_id="p", base_minor=5000, points_minor=700)
    assert [one.kind for one in judged(event, by).kinds] == ["change-is-not-paid"]


def test_a_receipt_without_prices_was_a_visit_once() -> None:
    by = rules(promotions("id: p, name: P, draw: {name: car, entries: 1}"))
    event = booked(by, {"quantity_milli": 1000}, semantics.FIRST)
    event.purchase.draws.add(promotion_id="p", draw="car", entries=1)
    assert [one.kind for one in judged(event, by).kinds] == ["no-visit"]
    event.semantics = semantics.CURRENT
    assert judged(event, by).kinds == ()


def test_as_booked_has_what_the_entry_stores() -> None:
    by = rules(ONE_PERCENT + promotions(CASES["a capped basket"].promotion))
    event = differing(by, ONE)
    (line,) = event.purchase.effects
    kept = as_booked(event.purchase, reexplained(event.purchase, by))
    assert kept.lines[0].discounts[0].amount_minor == line.discounts[0].amount_minor
    assert kept.discount_minor == line.discounts[0].amount_minor
    assert kept.accrual_points_minor == sum(part.points_minor for part in line.accruals)


def test_kinds_have_names_of_their_own_and_a_sentence() -> None:
    assert len({one.kind for one in MENDED}) == len(MENDED)
    assert all(semantics.FIRST < one.since <= semantics.CURRENT and one.text for one in MENDED)
    assert mended_since(semantics.CURRENT) == ()
