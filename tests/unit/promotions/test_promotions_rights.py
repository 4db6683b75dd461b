"""Coupons and personal offers: they come after the promotions for everybody, and who has none pays nothing for them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from server.promotions import (
    AllOf,
    AmountOff,
    AnyOf,
    BasketDiscount,
    CouponFact,
    CouponShown,
    CouponUse,
    InStores,
    LineDiscount,
    OfferMade,
    PaidLine,
    PercentOff,
    Period,
    Points,
    PointsFixed,
    Promotion,
    ReceiptTotal,
    UnitDeal,
    VisitNumber,
    earn_as_paid,
    quote,
)
from tests.unit.promotions.builders import (
    SHOPPER,
    TEN_OFF_BASKET,
    TEN_OFF_LINES,
    as_quoted,
    by_promotion,
    line,
    points_by_promotion,
    promo,
    receipt,
    rules_of,
    skus,
)

SPRING = CouponShown(series=frozenset({"spring"}))
HELLO = CouponShown(codes=frozenset({"HELLO"}))
A1, A2, GENERIC = CouponFact("A1", "spring"), CouponFact("A2", "spring"), CouponFact("HELLO")
HALF = LineDiscount(PercentOff(Fraction(1, 2)))
FIVE_OFF = BasketDiscount(AmountOff(500))
CAKE, TEA = line(1, 10000, sku="cake"), line(2, 2000, sku="tea")


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        pytest.param(
            (promo("a", when=SPRING, line_discount=HALF), promo("z", line_discount=TEN_OFF_LINES)),
            {"z": 1200, "a": 5400},
            id="after line discounts for everybody, whatever the order of ids",
        ),
        pytest.param(
            (promo("a", when=SPRING, line_discount=HALF), promo("z", basket_discount=TEN_OFF_BASKET)),
            {"z": 1200, "a": 5400},
            id="after basket discounts too",
        ),
        pytest.param(
            (promo("a", when=SPRING, basket_discount=TEN_OFF_BASKET), promo("b", when=OfferMade(), line_discount=HALF)),
            {"b": 6000, "a": 600},
            id="among rights line discounts come before baskets",
        ),
        pytest.param(
            (
                promo("b", when=SPRING, line_discount=TEN_OFF_LINES, priority=1),
                promo("a", when=SPRING, line_discount=HALF),
            ),
            {"b": 1200, "a": 5400},
            id="among equals by priority",
        ),
        pytest.param(
            (
                promo("a", when=SPRING, line_discount=TEN_OFF_LINES, group="g"),
                promo("b", when=SPRING, line_discount=HALF, group="g"),
            ),
            {"b": 6000},
            id="the best of a group",
        ),
        pytest.param(
            (promo("a", when=SPRING, line_discount=HALF), promo("z", line_discount=TEN_OFF_LINES, exclusive=True)),
            {"z": 1200},
            id="goods of an exclusive promotion are left alone",
        ),
        pytest.param(
            (
                promo("a", when=SPRING, line_discount=HALF, exclusive=True),
                promo("z", line_discount=TEN_OFF_LINES, scope=skus("cake")),
            ),
            {"z": 1000, "a": 1000},
            id="an exclusive right takes only bare goods",
        ),
        pytest.param((promo("a", when=SPRING, scope=skus("tea"), line_discount=HALF),), {"a": 1000}, id="its scope"),
        pytest.param((promo("a", when=SPRING, scope=skus("none"), line_discount=HALF),), {}, id="nothing in scope"),
        pytest.param(
            (promo("a", when=SPRING, deal=UnitDeal(2, 1, PercentOff(Fraction(1)))),),
            {"a": 2000},
            id="deals are rights too",
        ),
        pytest.param(
            (promo("a", when=AllOf((SPRING, ReceiptTotal(at_least_minor=20000))), line_discount=HALF),),
            {},
            id="further conditions",
        ),
        pytest.param(
            (
                promo("a", when=AllOf((SPRING, ReceiptTotal(at_least_minor=12000))), line_discount=HALF),
                promo("z", line_discount=TEN_OFF_LINES),
            ),
            {"z": 1200},
            id="totals are those when rights have their turn",
        ),
    ],
)
def test_rights_after_promotions_for_everybody(items: tuple[Promotion, ...], taken: dict[str, int]) -> None:
    member = SHOPPER._replace(offers=frozenset({"b"}))
    asked = receipt(CAKE, TEA, coupons=[A1])
    effects = quote(rules_of(*items), asked, member)
    assert by_promotion(effects) == taken
    assert earn_as_paid(rules_of(*items), asked, member, as_quoted(effects)) == effects


EITHER = AnyOf((SPRING, HELLO))


@pytest.mark.parametrize(
    ("when", "coupons", "used"),
    [
        pytest.param(SPRING, [A1], ["A1"], id="a serial coupon"),
        pytest.param(SPRING, [A2, A1], ["A2"], id="one of two of a series: the first presented"),
        pytest.param(HELLO, [GENERIC, A1], ["HELLO"], id="a generic one, the other stays"),
        pytest.param(EITHER, [A1, GENERIC], ["A1"], id="either: the first alternative"),
        pytest.param(EITHER, [GENERIC], ["HELLO"], id="either: the other"),
        pytest.param(AllOf((SPRING, HELLO)), [GENERIC, A1], ["HELLO", "A1"], id="both are needed"),
        pytest.param(AllOf((SPRING, HELLO)), [A1], [], id="one of both"),
        pytest.param(AllOf((SPRING, ReceiptTotal(at_least_minor=99999))), [A1], [], id="the condition fails"),
        pytest.param(
            AnyOf((SPRING, InStores(frozenset({"store-1"})))), [A1], ["A1"], id="not needed, but it comes first"
        ),
        pytest.param(
            AnyOf((InStores(frozenset({"store-1"})), SPRING)), [A1], [], id="not needed: the other alternative holds"
        ),
        pytest.param(SPRING, [A1, A1], ["A1"], id="presented twice"),
    ],
)
@pytest.mark.parametrize(
    "effect",
    [
        pytest.param({"line_discount": HALF}, id="line"),
        pytest.param({"basket_discount": FIVE_OFF}, id="basket"),
        pytest.param({"points": Points(PointsFixed(100, "line"))}, id="points on lines"),
        pytest.param({"points": Points(PointsFixed(100, "receipt"))}, id="points once"),
    ],
)
def test_the_coupons_that_are_used(
    when: Any, coupons: list[CouponFact], used: list[str], effect: dict[str, Any]
) -> None:
    effects = quote(rules_of(promo(when=when, **effect)), receipt(CAKE, coupons=coupons), SHOPPER)
    assert effects.coupons == tuple(CouponUse(code, ("p",)) for code in used)


def test_a_coupon_that_took_nothing_off_is_not_used() -> None:
    rules = rules_of(promo(when=SPRING, scope=skus("none"), line_discount=HALF))
    assert quote(rules, receipt(CAKE, coupons=[A1]), SHOPPER).coupons == ()


def test_a_coupon_may_serve_several_promotions() -> None:
    rules = rules_of(promo("a", when=SPRING, line_discount=HALF), promo("b", when=SPRING, basket_discount=FIVE_OFF))
    assert quote(rules, receipt(CAKE, coupons=[A1]), SHOPPER).coupons == (CouponUse("A1", ("a", "b")),)


def test_a_coupon_is_not_used_if_the_register_did_not_take_it_off() -> None:
    rules = rules_of(promo(when=SPRING, line_discount=HALF))
    effects = earn_as_paid(rules, receipt(CAKE, coupons=[A1]), SHOPPER, [PaidLine(1, 0)])
    assert effects.coupons == ()
    assert [variance.expected_discount_minor for variance in effects.variances] == [5000]


def test_coupons_work_without_a_member() -> None:
    rules = rules_of(promo(when=HELLO, line_discount=HALF))
    assert quote(rules, receipt(CAKE, coupons=[GENERIC]), None).discount_minor == 5000


def test_points_of_rights() -> None:
    offer = promo("offer", when=OfferMade(), scope=skus("tea"), points=Points(PointsFixed(300, "line")))
    coupon = promo("coupon", when=SPRING, points=Points(PointsFixed(200, "receipt")))
    rules = rules_of(offer, coupon)
    member = SHOPPER._replace(offers=frozenset({"offer"}))
    assert points_by_promotion(quote(rules, receipt(CAKE, TEA, coupons=[A1]), member)) == {"offer": 300, "coupon": 200}
    assert points_by_promotion(quote(rules, receipt(CAKE, TEA), SHOPPER)) == {}


def test_an_offer_for_another_member_is_none() -> None:
    rules = rules_of(promo("mine", when=OfferMade(), line_discount=HALF))
    assert quote(rules, receipt(CAKE), SHOPPER._replace(offers=frozenset({"mine", "gone"}))).discount_minor == 5000
    assert quote(rules, receipt(CAKE), SHOPPER).discount_minor == 0


def test_what_servers_ask_of_rules() -> None:
    rules = rules_of(
        promo("a", when=AllOf((SPRING, VisitNumber(Period.WEEK, at_least=2))), line_discount=HALF),
        promo("b", when=HELLO, line_discount=HALF),
        promo("c", when=OfferMade(), line_discount=HALF),
    )
    assert rules.generic_codes == {"HELLO"}
    assert rules.offer_ids == {"c"}
    assert rules.visit_periods == {Period.WEEK}
    assert [rules.coupon_titles(name) for name in ("spring", "HELLO", "other")] == ["A", "B", ""]
    found = rules.promotion("b")
    assert found is not None
    assert found.name == "B"
    assert rules.promotion("nobody") is None


def test_a_million_rights_cost_nothing_to_who_has_none() -> None:
    rights = [promo(f"r{n}", when=CouponShown(series=frozenset({f"s{n}"})), line_discount=HALF) for n in range(500)]
    rules = rules_of(*rights)
    live = rules.live_on(receipt().local_at.date())
    effects = quote(rules, receipt(CAKE), SHOPPER)
    assert effects.discount_minor == 0
    assert all(not candidates.ranks for candidates in live.memory.values())
    assert live.is_gateless
