"""Why a promotion did or did not apply: one case for each answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.promotions import (
    MemberFacts,
    PaidLine,
    Programme,
    ReceiptFacts,
    ReceiptLine,
    compile_rules,
    load_programme,
    quote,
)
from server.promotions.counter_names import use_key
from server.promotions.explain import LineAmounts, PromotionAnswer, Status, explain
from server.promotions.facts import CounterFact, CouponFact, Usage
from server.promotions.kinds import Period
from server.promotions.model import BASE_ID
from tests.unit.promotions.builders import MONDAY, SHOPPER, STORE_ZONE, line, promotions, receipt, rules

TEA = line(1, 1000, category="drinks/tea")
CAKE = line(2, 2000, category="sweet/cake")
BEER = line(3, 500, category="drinks/beer", tags=("alcohol",))
EXCLUDED = "exclusions: {no_discount: {tags: [alcohol]}, no_earning: {tags: [alcohol]}}\n"
OFF = "line_discount: {percent: 10}"
CAKES = "scope: {categories: [sweet]}"
BEERS = "scope: {categories: [drinks/beer]}"
ANYTHING: dict[str, Any] = {}


def asked(
    *items: str,
    lines: Sequence[Any] = (TEA, CAKE, BEER),
    member: MemberFacts | None = SHOPPER,
    usage: Usage | None = None,
    paid: Sequence[PaidLine] | None = None,
    head: str = EXCLUDED,
    **changes: Any,
) -> PromotionAnswer:
    """What is said of promotion `a` of a programme with these promotions, on a receipt of tea, cake and beer."""
    facts = receipt(*lines)._replace(**changes)
    found = explain(rules(head + promotions(*items)), facts, member, usage, paid)
    return next(one for one in found.promotions if one.promotion_id == "a")


@pytest.mark.parametrize(
    ("items", "changes", "status", "text"),
    [
        pytest.param(
            [f"id: a, name: A, {CAKES}, {OFF}"], ANYTHING, Status.APPLIED, "it applied", id="ten percent off cakes"
        ),
        pytest.param(
            [f"id: a, name: A, valid: {{from: 2026-03-03}}, {OFF}"],
            ANYTHING,
            Status.NOT_VALID_YET,
            "it is valid from 2026-03-03",
            id="from tomorrow",
        ),
        pytest.param(
            [f"id: a, name: A, valid: {{until: 2026-03-01}}, {OFF}"],
            ANYTHING,
            Status.NO_LONGER_VALID,
            "it was valid until 2026-03-01",
            id="until yesterday",
        ),
        pytest.param(
            [f"id: a, name: A, scope: {{categories: [fish]}}, {OFF}"],
            ANYTHING,
            Status.NO_GOODS_IN_SCOPE,
            "nothing on the receipt is category fish",
            id="no fish",
        ),
        pytest.param(
            [f"id: a, name: A, {BEERS}, {OFF}"],
            ANYTHING,
            Status.GOODS_EXCLUDED,
            "the goods in its scope get no discount: the programme excludes them",
            id="no discount on beer",
        ),
        pytest.param(
            [f"id: a, name: A, {BEERS}, points: {{percent: 5}}"],
            ANYTHING,
            Status.GOODS_EXCLUDED,
            "the goods in its scope earn nothing: the programme excludes them",
            id="no points on beer",
        ),
        pytest.param(
            [f"id: a, name: A, when: {{coupon: {{series: [spring]}}}}, {OFF}"],
            {"coupons": (CouponFact("X-1", "autumn"),)},
            Status.COUPON_NOT_PRESENTED,
            "coupon X-1, needs series spring",
            id="a coupon of another series",
        ),
        pytest.param(
            [f"id: a, name: A, when: {{coupon: {{series: [spring]}}, receipt_total: {{at_least: 99.00}}}}, {OFF}"],
            ANYTHING,
            Status.COUPON_NOT_PRESENTED,
            "coupon none, needs series spring",
            id="no coupon, whatever else fails",
        ),
        pytest.param(
            [f"id: a, name: A, when: {{offer: true}}, {OFF}"],
            ANYTHING,
            Status.NO_OFFER,
            "it was not assigned to the member",
            id="an offer for others",
        ),
        pytest.param(
            [f"id: a, name: A, when: {{offer: true}}, {OFF}"],
            {"member": None},
            Status.NO_OFFER,
            "no member",
            id="an offer without a member",
        ),
        pytest.param(
            ["id: a, name: A, when: {receipt_total: {at_least: 50.00}}, basket_discount: {percent: 10}"],
            ANYTHING,
            Status.CONDITION_FAILED,
            "receipt total 35.00, needs at least 50.00",
            id="15.00 short",
        ),
        pytest.param(
            [
                "id: a, name: A, when: {receipt_total: {at_least: 34.00}}, basket_discount: {percent: 10}",
                f"id: b, name: B, {CAKES}, {OFF}",
            ],
            ANYTHING,
            Status.CONDITION_FAILED,
            "receipt total 33.00, needs at least 34.00",
            id="the total as the step began",
        ),
        pytest.param(
            [f"id: a, name: A, control_percent: 100, {OFF}"],
            ANYTHING,
            Status.CONTROL_GROUP,
            "the member is in a control group, which gets nothing",
            id="a control group of all",
        ),
        pytest.param(
            ["id: a, name: A, points: {percent: 5}"],
            {"member": SHOPPER._replace(can_earn=False)},
            Status.CANNOT_EARN,
            "the member earns nothing now",
            id="a blocked member",
        ),
        pytest.param(
            [f"id: a, name: A, {CAKES}, units: {{every: 3, percent: 100}}"],
            ANYTHING,
            Status.DEAL_INCOMPLETE,
            "the goods are too few for one deal or the first step",
            id="one cake of three",
        ),
        pytest.param(
            ["id: a, name: A, steps: {by: amount, steps: [{at_least: 50.00, percent: 5}]}"],
            ANYTHING,
            Status.DEAL_INCOMPLETE,
            "the goods are too few for one deal or the first step",
            id="below the first step",
        ),
        pytest.param(
            [f"id: a, name: A, limits: [{{at_most: 2, of: count, for: member, each: day}}], {OFF}"],
            {"usage": Usage({use_key("a", Period.DAY, MONDAY): CounterFact(times=2)})},
            Status.LIMIT_REACHED,
            "nothing is left of its limit: count 2 a member each day",
            id="used twice today",
        ),
        pytest.param(
            [f"id: a, name: A, {CAKES}, {OFF}"],
            {"paid": [PaidLine(2, 150)]},
            Status.REGISTER_CHARGED_OTHERWISE,
            "line 2: the register took 1.50 off, the rules give 2.00",
            id="another discount at the register",
        ),
        pytest.param(
            [
                f"id: a, name: A, group: g, {CAKES}, {OFF}",
                f"id: b, name: B, group: g, {CAKES}, line_discount: {{percent: 20}}",
            ],
            ANYTHING,
            Status.LOST_TO,
            "b, of its group g, gives more or comes first",
            id="a better one of its group",
        ),
        pytest.param(
            [
                f"id: a, name: A, {CAKES}, {OFF}",
                f"id: b, name: B, exclusive: true, {CAKES}, line_discount: {{percent: 20}}",
            ],
            ANYTHING,
            Status.LOST_TO,
            "b is exclusive and gives more or comes first",
            id="an exclusive one",
        ),
        pytest.param(
            [
                f"id: a, name: A, exclusive: true, {CAKES}, {OFF}",
                f"id: b, name: B, {CAKES}, line_discount: {{percent: 20}}",
            ],
            ANYTHING,
            Status.LOST_TO,
            "it is exclusive, and what b and others give is more or comes first",
            id="exclusive itself, and not worth it",
        ),
        pytest.param(
            [
                f"id: a, name: A, priority: 200, {CAKES}, {OFF}",
                f"id: b, name: B, {CAKES}, line_discount: {{percent: 100}}",
            ],
            ANYTHING,
            Status.NOTHING_LEFT,
            "earlier promotions or the lowest prices left nothing for it",
            id="the cake is free already",
        ),
        pytest.param(
            [f"id: a, name: A, {CAKES}, {OFF}"],
            {"lines": (CAKE._replace(floor_amount_minor=2000),)},
            Status.NOTHING_LEFT,
            "earlier promotions or the lowest prices left nothing for it",
            id="the lowest permitted price",
        ),
        pytest.param(
            [f"id: a, name: A, {CAKES}, line_discount: {{fixed_price: 25.00}}"],
            ANYTHING,
            Status.NOTHING_LEFT,
            "earlier promotions or the lowest prices left nothing for it",
            id="cheaper than the fixed price",
        ),
        pytest.param(
            [f"id: a, name: A, {CAKES}, {OFF}"],
            {"lines": (CAKE._replace(list_amount_minor=4),)},
            Status.ROUNDED_TO_NOTHING,
            "what it gives is less than the smallest unit or step",
            id="ten percent of four cents",
        ),
        pytest.param(
            ["id: a, name: A, points: {per_amount: {points: 1, step: 50.00, per: receipt}}"],
            ANYTHING,
            Status.ROUNDED_TO_NOTHING,
            "what it gives is less than the smallest unit or step",
            id="a point for every full 50.00",
        ),
    ],
)
def test_answers(items: list[str], changes: dict[str, Any], status: Status, text: str) -> None:
    found = asked(*items, **changes)
    assert (found.status, found.text) == (status, text)


def test_points_that_lose_to_the_base_percent_say_so() -> None:
    head = "earning: {base_percent: 5, base_group: g}\n"
    found = asked("id: a, name: A, group: g, points: {percent: 1}", head=head)
    assert (found.status, found.winner) == (Status.LOST_TO, BASE_ID)


def test_a_winner_is_named() -> None:
    rival = f"id: b, name: B, group: g, {CAKES}, line_discount: {{percent: 20}}"
    assert asked(f"id: a, name: A, group: g, {CAKES}, {OFF}", rival).winner == "b"


def test_what_applied_is_told_by_line_with_the_limits_that_cut_it() -> None:
    found = asked(f"id: a, name: A, limits: [{{at_most: 2.50, of: money, for: receipt}}], {OFF}")
    assert (found.status, found.lines) == (Status.APPLIED, (LineAmounts(1, 83, 0), LineAmounts(2, 167, 0)))
    assert [(cut.wanted, cut.granted) for cut in found.capped] == [(300, 250)]
    assert found.text == "it applied; cut to 2.50 of 3.00 by its limit: money 250 a receipt"


def test_points_are_told_as_paid() -> None:
    found = asked(f"id: a, name: A, {CAKES}, points: {{percent: 5}}", paid=[PaidLine(2, 1000)])
    assert found.lines == (LineAmounts(2, 0, 50),)


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param("issue_coupon: {series: next, valid_days: 30}", id="a coupon for later"),
        pytest.param("draw: {name: car}", id="an entry into a draw"),
        pytest.param("club: {name: tea, days: 30}", id="a membership"),
        pytest.param("tier_points: {fixed: 5, per: unit}", id="tier points"),
    ],
)
def test_what_promotions_give_beside_money_is_an_effect(effect: str) -> None:
    assert asked(f"id: a, name: A, {CAKES}, {effect}").status is Status.APPLIED
    failing = f"id: a, name: A, {CAKES}, when: {{receipt_total: {{at_least: 99.00}}}}, {effect}"
    assert asked(failing).status is Status.CONDITION_FAILED


def test_a_failed_condition_is_told_part_by_part() -> None:
    when = "{any: [{receipt_total: {at_least: 99.00}}, {not: {stores: [store-1]}}], scope_total: {at_least: 10.00}}"
    found = asked(f"id: a, name: A, {CAKES}, when: {when}, {OFF}")
    assert found.status is Status.CONDITION_FAILED
    condition = found.condition
    assert condition is not None
    assert (condition.subject, condition.holds) == ("all of", False)
    told = {str(leaf) for leaf in condition.failures()}
    assert told == {"receipt total 35.00, needs at least 99.00", "not (store store-1, needs store-1)"}
    assert [(part.subject, part.holds) for part in condition.parts].count(("total of goods in scope", True)) == 1


@pytest.mark.parametrize(
    ("when", "told"),
    [
        pytest.param(
            "receipt_total: {at_least: 35.00}",
            "receipt total 35.00 (15.00 without the gift), needs at least 35.00",
            id="at least",
        ),
        pytest.param(
            "not: {receipt_total: {below: 35.00}}",
            "not (receipt total 35.00 (15.00 without the gift), needs less than 35.00)",
            id="not below",
        ),
    ],
)
def test_a_threshold_that_only_the_gift_reaches_is_told_with_both_sums(when: str, told: str) -> None:
    found = asked(f"id: a, name: A, {CAKES}, when: {{{when}}}, line_discount: {{percent: 100}}")
    assert found.condition is not None
    assert [str(leaf) for leaf in found.condition.failures()] == [told]


# --- what always holds ------------------------------------------------------------------------------------

EXAMPLES = sorted(
    (entry for entry in files("server.promotions").joinpath("examples").iterdir() if entry.name.endswith(".yaml")),
    key=lambda entry: entry.name,
)
_goods = st.sampled_from(["sweet/cake", "grocery/frozen", "drinks/wine", "household", "dairy", "pastry", "produce"])
_lines = st.builds(
    lambda number, category, units, price: line(number, units * price, category=category, quantity_milli=units * 1000),
    st.integers(1, 10**6),
    _goods,
    st.integers(1, 12),
    st.integers(0, 50000),
)

_members = st.none() | st.just(SHOPPER)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda entry: entry.name)
def test_every_promotion_has_an_answer_and_nothing_else_changes(example: Any) -> None:
    loaded = load_programme(example.read_text(encoding="utf-8"))
    assert isinstance(loaded, Programme)
    checked = compile_rules(loaded, 1)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(_lines, min_size=1, max_size=4, unique_by=lambda one: one.line_number), _members)
    def check(lines: list[ReceiptLine], member: MemberFacts | None) -> None:
        facts = ReceiptFacts("store-1", datetime.combine(date(2026, 10, 5), time(12), STORE_ZONE), lines)
        found = explain(checked, facts, member)
        assert found.effects == quote(checked, facts, member)
        assert [one.promotion_id for one in found.promotions] == [promotion.id for promotion in checked.promotions]
        on_lines = {by for entry in found.effects.lines for by, _ in entry.discounts}
        on_lines |= {accrual.promotion_id for entry in found.effects.lines for accrual in entry.accruals}
        for one in found.promotions:
            assert bool(one.lines) == (one.promotion_id in on_lines)
            assert one.status is Status.APPLIED or not one.lines
            assert one.text

    check()
