"""Limits and control groups: what is left, what is cut and reported, what a receipt uses and counts."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from server.promotions import (
    AmountOff,
    BasketDiscount,
    Campaign,
    Capped,
    Count,
    CounterFact,
    CouponIssue,
    DrawEntry,
    Earning,
    FixedPrice,
    Limit,
    LimitScope,
    LineDiscount,
    Measure,
    MemberFacts,
    PaidLine,
    PercentOff,
    Period,
    Points,
    PointsFixed,
    PointsPercent,
    Promotion,
    ReceiptTotal,
    SharedUse,
    UnitDeal,
    Usage,
    Withheld,
    earn_as_paid,
    quote,
)
from server.promotions.limits import is_in_control
from tests.unit.promotions.builders import (
    MONDAY,
    SHOPPER,
    as_quoted,
    by_promotion,
    discounts,
    line,
    points,
    promo,
    receipt,
    rules_of,
    skus,
)

COUNT, MONEY, POINTS = Measure.COUNT, Measure.MONEY, Measure.POINTS
RECEIPT, MEMBER, STORE, ALL = LimitScope.RECEIPT, LimitScope.MEMBER, LimitScope.STORE, LimitScope.ALL
HALF = LineDiscount(PercentOff(Fraction(1, 2)))
ONE_OFF = BasketDiscount(AmountOff(100))
FREE_THIRD = UnitDeal(3, 1, PercentOff(Fraction(1)))
FIVE = line(1, 5000, sku="tea", quantity_milli=5000)
THREE = line(2, 3000, sku="milk", quantity_milli=3000)
TEA_POINTS = Points(PointsFixed(500, "line"))


@pytest.mark.parametrize(
    ("fields", "limit", "taken"),
    [
        pytest.param({"line_discount": HALF}, Limit(COUNT, RECEIPT, 3), [1500, 0], id="the first 3 units"),
        pytest.param({"line_discount": HALF}, Limit(COUNT, RECEIPT, 6), [2500, 500], id="6 units over two lines"),
        pytest.param({"line_discount": HALF}, Limit(COUNT, RECEIPT, 8), [2500, 1500], id="all units"),
        pytest.param({"line_discount": HALF}, Limit(MONEY, RECEIPT, 2000), [1250, 750], id="money cut as a whole"),
        pytest.param(
            {"line_discount": HALF}, Limit(MONEY, RECEIPT, 2601), [1626, 975], id="and spread by largest remainder"
        ),
        pytest.param(
            {"line_discount": LineDiscount(AmountOff(99))}, Limit(COUNT, RECEIPT, 6), [495, 99], id="amount off 6 units"
        ),
        pytest.param(
            {"line_discount": LineDiscount(FixedPrice(400))}, Limit(COUNT, RECEIPT, 2), [1200, 0], id="2 units at 4.00"
        ),
        pytest.param({"deal": FREE_THIRD}, Limit(COUNT, RECEIPT, 1), [0, 1000], id="one deal"),
        pytest.param({"deal": FREE_THIRD}, Limit(MONEY, RECEIPT, 1200), [0, 1200], id="money of deals"),
        pytest.param({"basket_discount": ONE_OFF}, Limit(COUNT, RECEIPT, 1), [63, 37], id="a basket counts once"),
        pytest.param({"basket_discount": ONE_OFF}, Limit(MONEY, RECEIPT, 80), [50, 30], id="money of a basket"),
        pytest.param({"basket_discount": ONE_OFF}, Limit(POINTS, RECEIPT, 0), [63, 37], id="points do not matter"),
        pytest.param({"line_discount": HALF}, Limit(COUNT, ALL, 0), [0, 0], id="nothing at all"),
    ],
)
def test_limits_of_a_receipt(fields: dict[str, Any], limit: Limit, taken: list[int]) -> None:
    rules = rules_of(promo(limits=(limit,), **fields))
    effects = quote(rules, receipt(FIVE, THREE), SHOPPER)
    assert discounts(effects) == taken
    assert earn_as_paid(rules, receipt(FIVE, THREE), SHOPPER, as_quoted(effects)) == effects


def test_a_weighed_line_counts_as_one_unit() -> None:
    rules = rules_of(promo(line_discount=HALF, limits=(Limit(COUNT, RECEIPT, 1),)))
    cheese = line(1, 1250, quantity_milli=1250, is_weighed=True)
    assert discounts(quote(rules, receipt(cheese, FIVE._replace(line_number=2)), SHOPPER)) == [625, 0]


@pytest.mark.parametrize(
    ("fields", "limit", "granted"),
    [
        pytest.param({"points": TEA_POINTS}, Limit(POINTS, RECEIPT, 700), [350, 350], id="points cut as a whole"),
        pytest.param({"points": TEA_POINTS}, Limit(COUNT, RECEIPT, 1), [500, 500], id="count 1 a receipt"),
        pytest.param({"points": TEA_POINTS}, Limit(COUNT, RECEIPT, 0), [0, 0], id="no receipt"),
        pytest.param(
            {"points": Points(PointsFixed(800, "receipt"))},
            Limit(POINTS, RECEIPT, 600),
            [375, 225],
            id="once a receipt",
        ),
        pytest.param(
            {"points": Points(PointsPercent(Fraction(1, 10)))},
            Limit(MONEY, RECEIPT, 1),
            [500, 300],
            id="money is other",
        ),
    ],
)
def test_limits_of_points(fields: dict[str, Any], limit: Limit, granted: list[int]) -> None:
    effects = quote(rules_of(promo(limits=(limit,), **fields)), receipt(FIVE, THREE), SHOPPER)
    assert points(effects) == granted


def test_the_base_percent_is_never_cut() -> None:
    rules = rules_of(promo(points=TEA_POINTS, limits=(Limit(POINTS, RECEIPT, 0),)), earning=Earning(Fraction(1, 100)))
    assert points(quote(rules, receipt(FIVE, THREE), SHOPPER)) == [50, 30]


@pytest.mark.parametrize(
    ("limit", "usage", "taken"),
    [
        pytest.param(Limit(COUNT, MEMBER, 4), None, 2000, id="nothing used yet"),
        pytest.param(Limit(COUNT, MEMBER, 4), Usage({"use/p/ever": CounterFact(3)}), 500, id="one left for ever"),
        pytest.param(Limit(COUNT, MEMBER, 4), Usage({"use/p/ever": CounterFact(9)}), 0, id="more than that used"),
        pytest.param(
            Limit(COUNT, MEMBER, 4, Period.DAY), Usage({"use/p/day/2026-03-02": CounterFact(4)}), 0, id="used today"
        ),
        pytest.param(
            Limit(COUNT, MEMBER, 4, Period.DAY), Usage({"use/p/day/2026-03-01": CounterFact(4)}), 2000, id="yesterday"
        ),
        pytest.param(
            Limit(COUNT, MEMBER, 4, Period.WEEK), Usage({"use/p/week/2026-03-02": CounterFact(2)}), 1000, id="this week"
        ),
        pytest.param(
            Limit(MONEY, MEMBER, 900, Period.MONTH),
            Usage({"use/p/month/2026-03-01": CounterFact(1, 600)}),
            300,
            id="money this month",
        ),
        pytest.param(
            Limit(MONEY, MEMBER, 900, Period.QUARTER),
            Usage({"use/p/quarter/2026-01-01": CounterFact(1, 900)}),
            0,
            id="money this quarter",
        ),
        pytest.param(
            Limit(MONEY, MEMBER, 900, Period.HALF_YEAR),
            Usage({"use/p/half_year/2026-01-01": CounterFact(1, 1)}),
            899,
            id="money this half-year",
        ),
        pytest.param(
            Limit(MONEY, MEMBER, 900, Period.YEAR),
            Usage({"use/p/year/2025-01-01": CounterFact(1, 900)}),
            900,
            id="last year",
        ),
        pytest.param(Limit(MONEY, ALL, 10000), Usage(shared={"shared/p/money": 700}), 700, id="what is left"),
        pytest.param(Limit(MONEY, ALL, 10000), Usage(shared={"shared/p/money": 0}), 0, id="the budget is used up"),
        pytest.param(Limit(MONEY, ALL, 1000), Usage(), 1000, id="an untouched budget"),
        pytest.param(
            Limit(MONEY, ALL, 1000), Usage(only_shared_known=True), 0, id="a budget of which the book has none"
        ),
        pytest.param(
            Limit(MONEY, STORE, 1000, Period.DAY),
            Usage(shared={"shared/p/money/store/store-1/day/2026-03-02": 300}),
            300,
            id="what is left in the store today",
        ),
        pytest.param(
            Limit(MONEY, STORE, 1000), Usage(shared={"shared/p/money/store/store-2": 300}), 1000, id="another store's"
        ),
        pytest.param(Limit(COUNT, ALL, 10), Usage(shared={"shared/p/count": 3}), 1500, id="units left of all"),
    ],
)
def test_what_was_used_before_is_gone(limit: Limit, usage: Usage | None, taken: int) -> None:
    rules = rules_of(promo(line_discount=HALF, limits=(limit,)))
    assert quote(rules, receipt(FIVE), SHOPPER, usage=usage).discount_minor == min(taken, 2500)


def test_without_a_member_there_is_no_member_limit_and_nothing_is_counted() -> None:
    rules = rules_of(promo(line_discount=HALF, limits=(Limit(COUNT, MEMBER, 9), Limit(MONEY, ALL, 2000))))
    effects = quote(rules, receipt(FIVE), None, usage=Usage({"use/p/ever": CounterFact(9)}))
    assert effects.discount_minor == 2000
    assert effects.counts == ()
    assert effects.shared == (SharedUse("shared/p/money", 2000, 2000),)


@pytest.mark.parametrize(
    ("limit", "cap"),
    [
        pytest.param(Limit(COUNT, MEMBER, 3, Period.DAY), (COUNT, 8, 3, "count 3 a member each day"), id="units"),
        pytest.param(Limit(MONEY, ALL, 2600), (MONEY, 4000, 2600, "money 2600 for all"), id="money"),
        pytest.param(Limit(MONEY, RECEIPT, 5000), None, id="not cut, not reported"),
    ],
)
def test_a_cut_is_reported_with_both_values(limit: Limit, cap: tuple[Any, ...] | None) -> None:
    effects = quote(rules_of(promo(line_discount=HALF, limits=(limit,))), receipt(FIVE, THREE), SHOPPER)
    assert effects.capped == (() if cap is None else (Capped("p", *cap),))


def test_deals_beyond_the_limit_are_reported() -> None:
    rules = rules_of(promo(deal=UnitDeal(2, 1, PercentOff(Fraction(1))), limits=(Limit(COUNT, RECEIPT, 1),)))
    assert quote(rules, receipt(FIVE, THREE), SHOPPER).capped == (Capped("p", COUNT, 4, 1, "count 1 a receipt"),)


def uses(effects: Any) -> dict[str, tuple[int, int, int]]:
    """What is counted of uses: times, money, points."""
    return {count.key: count[1:4] for count in effects.counts if count.key.startswith("use/")}


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        pytest.param({"line_discount": HALF}, (8, 4000, 0), id="units of line discounts"),
        pytest.param({"deal": FREE_THIRD}, (2, 2000, 0), id="deals"),
        pytest.param({"basket_discount": ONE_OFF}, (1, 100, 0), id="a basket"),
        pytest.param({"points": TEA_POINTS}, (1, 0, 1000), id="points"),
        pytest.param({"line_discount": HALF, "points": TEA_POINTS}, (8, 4000, 1000), id="units also with points"),
        pytest.param({"coupon": CouponIssue("later")}, (1, 0, 0), id="a coupon"),
        pytest.param({"draw": DrawEntry("car", 5)}, (1, 0, 0), id="a draw"),
        pytest.param({"line_discount": HALF, "scope": skus("none")}, None, id="no effect"),
        pytest.param({"line_discount": HALF, "when": ReceiptTotal(at_least_minor=99999)}, None, id="no condition"),
    ],
)
def test_uses_are_counted(fields: dict[str, Any], counted: tuple[int, int, int] | None) -> None:
    rules = rules_of(promo(limits=(Limit(COUNT, MEMBER, 99, Period.WEEK),), **fields))
    key = "use/p/week/2026-03-02"
    assert uses(quote(rules, receipt(FIVE, THREE), SHOPPER)) == ({} if counted is None else {key: counted})


def test_a_counter_is_kept_beyond_its_period() -> None:
    limits = (Limit(COUNT, MEMBER, 9, Period.DAY), Limit(COUNT, MEMBER, 9, Period.MONTH), Limit(COUNT, MEMBER, 9))
    effects = quote(rules_of(promo(line_discount=HALF, limits=limits)), receipt(FIVE), SHOPPER)
    assert effects.counts == (
        Count("visit/ever", 1, 2500, 0, None),
        Count("use/p/day/2026-03-02", 5, 2500, 0, date(2026, 4, 6)),
        Count("use/p/ever", 5, 2500, 0, None),
        Count("use/p/month/2026-03-01", 5, 2500, 0, date(2027, 5, 5)),
    )


def test_a_campaign_shares_its_limits() -> None:
    first = promo("a", scope=skus("tea"), line_discount=HALF, campaign="spring")
    second = promo("b", scope=skus("milk"), line_discount=HALF, campaign="spring")
    campaign = Campaign("spring", "Spring", (Limit(MONEY, MEMBER, 3000, Period.MONTH), Limit(COUNT, ALL, 100)))
    rules = rules_of(first, second, campaigns=(campaign,))
    effects = quote(rules, receipt(FIVE, THREE), SHOPPER)
    assert by_promotion(effects) == {"a": 2500, "b": 500}
    assert uses(effects) == {"use/@spring/month/2026-03-01": (8, 3000, 0)}
    assert effects.shared == (SharedUse("shared/@spring/count", 8, 100),)
    assert effects.consulted == {"use/@spring/month/2026-03-01", "shared/@spring/count"}


def test_the_promotion_and_its_campaign_both_cut() -> None:
    campaign = Campaign("spring", "Spring", (Limit(MONEY, ALL, 1000),))
    mine = promo(line_discount=HALF, campaign="spring", limits=(Limit(COUNT, MEMBER, 3),))
    effects = quote(rules_of(mine, campaigns=(campaign,)), receipt(FIVE), SHOPPER)
    assert effects.discount_minor == 1000
    assert [(cap.measure, cap.wanted, cap.granted) for cap in effects.capped] == [(COUNT, 5, 3), (MONEY, 1500, 1000)]


def test_within_a_group_what_is_left_counts() -> None:
    poor = promo("a", group="g", line_discount=LineDiscount(PercentOff(Fraction(1, 5))))
    rich = promo("b", group="g", line_discount=HALF, limits=(Limit(COUNT, MEMBER, 5),))
    rules = rules_of(poor, rich)
    assert by_promotion(quote(rules, receipt(FIVE, THREE), SHOPPER)) == {"b": 2500, "a": 600}
    used_up = Usage({"use/b/ever": CounterFact(5)})
    assert by_promotion(quote(rules, receipt(FIVE, THREE), SHOPPER, usage=used_up)) == {"a": 1600}


def test_what_the_register_did_not_apply_does_not_count() -> None:
    rules = rules_of(promo(line_discount=HALF, limits=(Limit(COUNT, MEMBER, 9), Limit(MONEY, ALL, 9000))))
    paid = [PaidLine(1, 2500), PaidLine(2, 1)]
    effects = earn_as_paid(rules, receipt(FIVE, THREE), SHOPPER, paid)
    assert uses(effects) == {"use/p/ever": (5, 2500, 0)}
    assert effects.shared == (SharedUse("shared/p/money", 2500, 9000),)


@pytest.mark.parametrize(
    ("paid", "counted"),
    [
        pytest.param([PaidLine(1, 0), PaidLine(2, 2000)], {"use/p/ever": (2, 2000, 0)}, id="as the deal gives"),
        pytest.param([PaidLine(1, 0), PaidLine(2, 0)], {}, id="not applied"),
        pytest.param([PaidLine(1, 7), PaidLine(2, 2000)], {"use/p/ever": (2, 2000, 0)}, id="another line is otherwise"),
    ],
)
def test_deals_count_if_a_line_of_theirs_was_charged_so(paid: list[PaidLine], counted: dict[str, Any]) -> None:
    rules = rules_of(promo(deal=FREE_THIRD, limits=(Limit(COUNT, MEMBER, 9),)))
    assert uses(earn_as_paid(rules, receipt(FIVE, THREE), SHOPPER, paid)) == counted


# --- visits -----------------------------------------------------------------------------------------------


def test_every_receipt_of_a_member_is_a_visit() -> None:
    rules = rules_of(promo(line_discount=HALF), earning=Earning(Fraction(1, 100)))
    effects = quote(rules, receipt(FIVE), SHOPPER, 500)
    assert effects.counts == (Count("visit/ever", 1, 2000, 20, None),)
    assert quote(rules, receipt(FIVE), None).counts == ()


# --- control groups ---------------------------------------------------------------------------------------


def test_the_share_of_a_control_group() -> None:
    members = [f"member-{n}" for n in range(5000)]
    tenth = [member for member in members if is_in_control(member, "novus", Fraction(1, 10))]
    assert 400 < len(tenth) < 600
    assert [member for member in members if is_in_control(member, "novus", Fraction(1, 10))] == tenth
    other = {member for member in members if is_in_control(member, "other", Fraction(1, 10))}
    assert len(other & set(tenth)) < 100
    assert not any(is_in_control(member, "novus", Fraction(0)) for member in members)
    assert all(is_in_control(member, "novus", Fraction(1)) for member in members)


def test_the_hash_is_fixed_for_ever() -> None:
    assert is_in_control("m-1", "p", Fraction(740907, 10**6))
    assert not is_in_control("m-1", "p", Fraction(740906, 10**6))


EVERYBODY = Fraction(1)


@pytest.mark.parametrize(
    ("promotion", "settings"),
    [
        pytest.param(promo(line_discount=HALF, control_share=EVERYBODY), {}, id="of the promotion"),
        pytest.param(
            promo(line_discount=HALF, campaign="c"),
            {"campaigns": (Campaign("c", "C", (), EVERYBODY),)},
            id="of a campaign",
        ),
        pytest.param(promo(line_discount=HALF), {"control_share": EVERYBODY}, id="of the programme"),
        pytest.param(promo(basket_discount=ONE_OFF, control_share=EVERYBODY), {}, id="basket"),
        pytest.param(promo(deal=FREE_THIRD, control_share=EVERYBODY), {}, id="deal"),
        pytest.param(promo(points=TEA_POINTS), {"control_share": EVERYBODY}, id="points"),
        pytest.param(
            promo(points=Points(PointsFixed(1, "receipt")), control_share=EVERYBODY), {}, id="points once a receipt"
        ),
        pytest.param(promo(coupon=CouponIssue("later"), control_share=EVERYBODY), {}, id="coupons"),
    ],
)
def test_the_control_group_gets_nothing_and_is_recorded(promotion: Promotion, settings: dict[str, Any]) -> None:
    rules = rules_of(promotion, earning=Earning(Fraction(1, 100)), **settings)
    effects = quote(rules, receipt(FIVE, THREE), SHOPPER)
    assert effects.discount_minor == 0
    assert points(effects) == [50, 30]
    assert effects.issued == ()
    assert effects.withheld == (Withheld("p", "control"),)
    assert earn_as_paid(rules, receipt(FIVE, THREE), SHOPPER, as_quoted(effects)) == effects
    assert quote(rules, receipt(FIVE, THREE), None).withheld == ()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"when": ReceiptTotal(at_least_minor=99999)}, id="the condition fails"),
        pytest.param({"scope": skus("none")}, id="nothing in scope"),
        pytest.param({"valid_until": date(2026, 3, 1)}, id="it is over"),
    ],
)
def test_what_would_not_have_applied_is_not_withheld(fields: dict[str, Any]) -> None:
    rules = rules_of(promo(line_discount=HALF, control_share=EVERYBODY, **fields))
    assert quote(rules, receipt(FIVE), SHOPPER).withheld == ()


def test_who_is_not_in_the_control_group_gets_everything() -> None:
    rules = rules_of(promo(line_discount=HALF, control_share=Fraction(1, 2)))
    outcomes = {n: quote(rules, receipt(FIVE), MemberFacts(f"m-{n}")) for n in range(40)}
    for n, effects in outcomes.items():
        withheld = is_in_control(f"m-{n}", "p", Fraction(1, 2))
        assert bool(effects.withheld) is withheld
        assert effects.discount_minor == (0 if withheld else 2500)
    assert len({bool(effects.withheld) for effects in outcomes.values()}) == 2


def test_nobody_in_control_uses_a_limit() -> None:
    rules = rules_of(promo(line_discount=HALF, control_share=EVERYBODY, limits=(Limit(MONEY, ALL, 100),)))
    effects = quote(rules, receipt(FIVE, on=MONDAY), SHOPPER)
    assert (effects.shared, effects.capped) == ((), ())
