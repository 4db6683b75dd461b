"""Every kind of points, further units, partners, and what promotions give beside discounts and points."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from server.promotions import (
    Accrual,
    Audience,
    BasketCount,
    ClubJoin,
    Count,
    CounterFact,
    CouponIssue,
    DrawEntry,
    Drawn,
    Earning,
    Effects,
    Exclusions,
    Expiry,
    FurtherUnit,
    IssuedCoupon,
    Limit,
    LimitScope,
    LotGrant,
    LotTerms,
    Measure,
    MemberFacts,
    Message,
    MessageText,
    NearMiss,
    Partner,
    PercentOff,
    Period,
    Points,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsStep,
    PointsSteps,
    PointUnit,
    ReceiptTotal,
    Selector,
    Step,
    Steps,
    Tier,
    TierMeasure,
    Tiers,
    UnitDeal,
    Usage,
    earn_as_paid,
    lots_to_grant,
    quote,
)
from tests.unit.promotions.builders import (
    MONDAY,
    SHOPPER,
    TEN_OFF_LINES,
    as_quoted,
    line,
    points,
    promo,
    receipt,
    rules_of,
    skus,
)

ONE_PERCENT = Earning(Fraction(1, 100))
STAGES = (PointsStep(10000, 100), PointsStep(20000, 300), PointsStep(50000, 0, Fraction(1, 50)))
TWO_TEAS = line(1, 10000, sku="tea", quantity_milli=2000)
CHEESE = line(2, 5050, sku="cheese", quantity_milli=1500, is_weighed=True)


@pytest.mark.parametrize(
    ("kind", "granted"),
    [
        pytest.param(PointsPercent(Fraction(1, 20)), [500, 253], id="percent, half up a line"),
        pytest.param(PointsMultiplier(Fraction(5)), [400, 202], id="five-fold: four more"),
        pytest.param(PointsFixed(70, "unit"), [140, 70], id="per unit; weighed goods are one"),
        pytest.param(PointsFixed(70, "line"), [70, 70], id="per line"),
        pytest.param(PointsFixed(70, "receipt"), [47, 23], id="once a receipt, spread over what was paid"),
        pytest.param(PointsPerAmount(10, 1000, "line"), [100, 50], id="10 for every full 10.00 of a line"),
        pytest.param(PointsPerAmount(10, 5100, "line"), [10, 0], id="only full steps"),
        pytest.param(PointsPerAmount(10, 15050, "receipt"), [7, 3], id="for every full 150.50 of the receipt"),
        pytest.param(PointsPerAmount(10, 15051, "receipt"), [0, 0], id="not quite"),
        pytest.param(PointsSteps(STAGES), [66, 34], id="the step of 100.00"),
    ],
)
def test_kinds_of_points(kind: PointsKind, granted: list[int]) -> None:
    base = [100, 51]
    effects = quote(rules_of(promo(points=Points(kind)), earning=ONE_PERCENT), receipt(TWO_TEAS, CHEESE), SHOPPER)
    assert points(effects) == [a + b for a, b in zip(base, granted, strict=True)]


@pytest.mark.parametrize(
    ("paid", "whole", "marginal"),
    [
        pytest.param(9999, 0, 0, id="below the first step"),
        pytest.param(10000, 100, 100, id="the first"),
        pytest.param(20000, 300, 400, id="the second; marginal ones add up"),
        pytest.param(49999, 300, 400, id="just below the third"),
        pytest.param(60000, 1200, 600, id="2 % of all, or of what is above 500.00"),
    ],
)
def test_steps_of_points(paid: int, whole: int, marginal: int) -> None:
    for is_marginal, granted in ((False, whole), (True, marginal)):
        rules = rules_of(promo(points=Points(PointsSteps(STAGES, is_marginal))))
        assert quote(rules, receipt(paid - 1, 1), SHOPPER).accrual_points_minor == granted


def test_points_are_on_what_was_paid_for_goods_in_scope() -> None:
    rules = rules_of(
        promo(points=Points(PointsPerAmount(1, 900, "receipt")), scope=skus("sku-1")),
        promo("z", line_discount=TEN_OFF_LINES),
    )
    assert points(quote(rules, receipt(1000, 99999), SHOPPER)) == [1, 0]
    assert points(quote(rules, receipt(999, 99999), SHOPPER)) == [0, 0]


GIFT = FurtherUnit(PointUnit("gift", 0, Fraction(100)), "Gift points")


@pytest.mark.parametrize(
    ("kind", "granted"),
    [
        pytest.param(PointsPercent(Fraction(1, 10)), 10, id="percents are of value: 10 % of 100.00 is 10 of 1.00"),
        pytest.param(PointsMultiplier(Fraction(3)), 2, id="multiples of the base percent's value"),
        pytest.param(PointsFixed(7, "receipt"), 7, id="fixed"),
    ],
)
def test_a_further_unit_has_a_balance_of_its_own(kind: PointsKind, granted: int) -> None:
    rules = rules_of(promo(points=Points(kind, unit="gift")), earning=ONE_PERCENT, units=(GIFT,))
    effects = quote(rules, receipt(10000), SHOPPER)
    assert effects.lines[0].accruals == (Accrual("base", 10000, 100), Accrual("p", 10000, granted, "gift"))
    assert effects.accrual_points_minor == 100
    assert effects.counts == (Count("visit/ever", 1, 10000, 100, None),)


def test_lots_are_kept_apart_by_unit_and_partner() -> None:
    terms = LotTerms(expiry=Expiry(after_days=10))
    rules = rules_of(
        promo("a", points=Points(PointsFixed(5, "receipt"), terms, "gift")),
        promo("b", points=Points(PointsFixed(6, "receipt"), None, None, "bank")),
        promo("c", points=Points(PointsFixed(7, "receipt"))),
        earning=ONE_PERCENT,
        units=(GIFT,),
    )
    effects = quote(rules, receipt(10000), SHOPPER)
    assert lots_to_grant(rules, effects, MONDAY) == (
        LotGrant(107, None, None, ("base", "c")),
        LotGrant(5, None, date(2026, 3, 12), ("a",), "gift"),
        LotGrant(6, None, None, ("b",), "", "bank"),
    )


FUEL = Partner("fuel", "Fuel", Fraction(1, 50))
BANK = Partner("bank", "Bank", None, accepts_points=False)


@pytest.mark.parametrize(
    ("partner", "granted", "payable"),
    [
        pytest.param("", [("base", 100, ""), ("bonus", 70, ""), ("five", 400, "")], 9999, id="the chain's own store"),
        pytest.param(
            "fuel", [("base", 200, "fuel"), ("bonus", 70, "fuel"), ("five", 800, "fuel")], 9999, id="own rate"
        ),
        pytest.param("bank", [("bonus", 70, "bank")], 0, id="no base points, no payment with points"),
        pytest.param("nobody", [("bonus", 70, "nobody")], 0, id="a partner that the programme does not know"),
    ],
)
def test_the_stores_of_partners(partner: str, granted: list[tuple[str, int, str]], payable: int) -> None:
    rules = rules_of(
        promo("bonus", points=Points(PointsFixed(70, "line"))),
        promo("five", points=Points(PointsMultiplier(Fraction(5)))),
        earning=ONE_PERCENT,
        partners=(FUEL, BANK),
    )
    effects = quote(rules, receipt(10000, partner=partner), SHOPPER)
    assert [(a.promotion_id, a.points_minor, a.partner) for a in effects.lines[0].accruals] == granted
    assert effects.max_spend_money_minor == payable


def test_a_promotion_at_a_partners_expense() -> None:
    rules = rules_of(promo(points=Points(PointsFixed(70, "line"), partner="bank")), partners=(FUEL, BANK))
    for store in ("", "fuel"):
        effects = quote(rules, receipt(10000, partner=store), SHOPPER)
        assert [a.partner for a in effects.lines[0].accruals if a.promotion_id == "p"] == ["bank"]


# --- beside points ----------------------------------------------------------------------------------------


def gives(effects: Effects) -> tuple[Any, ...]:
    """All that is given beside discounts and points, without visits."""
    counts = tuple(count for count in effects.counts if not count.key.startswith("visit/"))
    return effects.issued, effects.draws, effects.tier_points_minor, counts


TIER_UNTIL = date(2027, 5, 5)
"""Counters of March are kept for 400 days after it."""


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        pytest.param(
            {"coupon": CouponIssue("later", 2, starts_after_days=1, valid_days=14)},
            ((IssuedCoupon("p", "later", 2, date(2026, 3, 3), date(2026, 3, 16)),), (), 0, ()),
            id="coupons for later",
        ),
        pytest.param(
            {"coupon": CouponIssue("later")},
            ((IssuedCoupon("p", "later", 1, MONDAY, None),), (), 0, ()),
            id="a coupon without an end",
        ),
        pytest.param(
            {"draw": DrawEntry("car")}, ((), (Drawn("p", "car", 1),), 0, (Count("draw/car", 1),)), id="a draw, once"
        ),
        pytest.param(
            {"draw": DrawEntry("car", 2, 4000)},
            ((), (Drawn("p", "car", 6),), 0, (Count("draw/car", 6),)),
            id="2 entries for every full 40.00",
        ),
        pytest.param({"draw": DrawEntry("car", 1, 99999)}, ((), (), 0, ()), id="too little for a draw"),
        pytest.param(
            {"club": ClubJoin("wine", 30)},
            ((), (), 0, (Count("club/wine", 1, until=date(2026, 3, 31)),)),
            id="a club from today on",
        ),
        pytest.param(
            {"tier_points": PointsFixed(500, "receipt")},
            ((), (), 500, (Count("tier/month/2026-03-01", 1, points_minor=500, until=TIER_UNTIL),)),
            id="tier points once a receipt",
        ),
        pytest.param(
            {"tier_points": PointsPercent(Fraction(1, 10))},
            ((), (), 1500, (Count("tier/month/2026-03-01", 1, points_minor=1500, until=TIER_UNTIL),)),
            id="tier points by percent",
        ),
        pytest.param(
            {"tier_points": PointsFixed(5, "unit"), "scope": skus("tea")},
            ((), (), 10, (Count("tier/month/2026-03-01", 1, points_minor=10, until=TIER_UNTIL),)),
            id="tier points per unit in scope",
        ),
        pytest.param({"coupon": CouponIssue("later"), "scope": skus("beer")}, ((), (), 0, ()), id="nothing in scope"),
        pytest.param(
            {"club": ClubJoin("wine", 30), "when": ReceiptTotal(at_least_minor=15001)},
            ((), (), 0, ()),
            id="no condition",
        ),
    ],
)
def test_what_else_promotions_give(fields: dict[str, Any], given: tuple[Any, ...]) -> None:
    rules, asked = rules_of(promo(**fields)), receipt(TWO_TEAS, CHEESE._replace(list_amount_minor=5000))
    effects = quote(rules, asked, SHOPPER)
    assert gives(effects) == given
    assert earn_as_paid(rules, asked, SHOPPER, as_quoted(effects)) == effects
    assert quote(rules, asked, None).counts == ()
    assert gives(quote(rules, asked, MemberFacts("m", can_earn=False))) == ((), (), 0, ())


@pytest.mark.parametrize(
    ("until", "new"),
    [
        pytest.param(date(2026, 3, 10), date(2026, 4, 9), id="longer by 30 days"),
        pytest.param(date(2026, 3, 2), date(2026, 4, 1), id="ends today"),
        pytest.param(date(2026, 2, 1), date(2026, 3, 31), id="ended: from today"),
    ],
)
def test_a_membership_is_prolonged(until: date, new: date) -> None:
    rules = rules_of(promo(club=ClubJoin("wine", 30)))
    effects = quote(rules, receipt(1000), SHOPPER, usage=Usage({"club/wine": CounterFact(1, until=until)}))
    assert Count("club/wine", 1, until=new) in effects.counts
    assert "club/wine" in effects.consulted


def test_reaching_a_level_is_counted() -> None:
    tiers = Tiers(TierMeasure.SPEND, (Tier("gold", "Gold", 10000),), period=Period.YEAR)
    rules = rules_of(tiers=tiers)
    before = Usage({"visit/year/2026-01-01": CounterFact(1, 9500)})
    keys = {count.key for count in quote(rules, receipt(400), SHOPPER, usage=before).counts}
    assert keys == {"visit/ever", "visit/year/2026-01-01"}
    effects = quote(rules, receipt(500), SHOPPER, usage=before)
    standing = [count for count in effects.counts if count.key == "standing/gold"]
    assert [count.until for count in standing] == [date(2026, 12, 31)]
    assert {"visit/year/2026-01-01", "standing/gold"} <= effects.consulted


# --- messages ---------------------------------------------------------------------------------------------


def text(template: str, audience: Audience = Audience.CASHIER, **languages: str) -> tuple[MessageText, ...]:
    """One text, perhaps in further languages."""
    return (MessageText(audience, {"": template, **languages}),)


def told(effects: Effects) -> list[str]:
    """The texts."""
    return [message.text for message in effects.messages]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"line_discount": TEN_OFF_LINES}, "P: 1.00 off", id="discount"),
        pytest.param({"line_discount": TEN_OFF_LINES, "scope": skus("none")}, None, id="no effect, no word"),
        pytest.param({"coupon": CouponIssue("later")}, "P: 0.00 off", id="a coupon is an effect"),
    ],
)
def test_a_promotion_speaks_if_it_had_an_effect(fields: dict[str, Any], expected: str | None) -> None:
    rules = rules_of(promo(messages=text("{name}: {discount} off"), **fields))
    effects = quote(rules, receipt(1000), SHOPPER)
    assert effects.messages == (() if expected is None else (Message(Audience.CASHIER, "p", expected),))


def test_points_and_uses_left_in_the_members_language() -> None:
    rules = rules_of(
        promo(
            points=Points(PointsFixed(2050, "receipt")),
            limits=(Limit(Measure.COUNT, LimitScope.MEMBER, 5),),
            messages=text("{points} points, {uses_left} left", uk="{points} балів, ще {uses_left}"),
        )
    )
    usage = Usage({"use/p/ever": CounterFact(2)})
    assert told(quote(rules, receipt(1000), SHOPPER, usage=usage)) == ["20.50 points, 2 left"]
    ukrainian = SHOPPER._replace(language="uk-UA")
    assert told(quote(rules, receipt(1000), ukrainian, usage=usage)) == ["20.50 балів, ще 2"]


def test_levels_in_messages_are_those_after_the_receipt() -> None:
    tiers = Tiers(TierMeasure.SPEND, (Tier("silver", "Silver", 1000), Tier("gold", "Gold", 5000)), period=Period.YEAR)
    rules = rules_of(
        promo(line_discount=TEN_OFF_LINES, messages=text("{tier}, {missing_to_tier} to {next_tier}")), tiers=tiers
    )
    assert told(quote(rules, receipt(2000), SHOPPER)) == ["Silver, 32.00 to Gold"]


NEAR = NearMiss(text("{missing} or {missing_quantity} more"), within_minor=1000, within_quantity=1)
SECOND_FREE = UnitDeal(2, 1, PercentOff(Fraction(1)))


@pytest.mark.parametrize(
    ("fields", "amounts", "expected"),
    [
        pytest.param(
            {"when": ReceiptTotal(at_least_minor=5000), "basket_discount": None, "line_discount": TEN_OFF_LINES},
            (4480,),
            ["5.20 or 0 more"],
            id="5.20 more",
        ),
        pytest.param(
            {"when": ReceiptTotal(at_least_minor=5000), "line_discount": TEN_OFF_LINES}, (3999,), [], id="too far"
        ),
        pytest.param(
            {"when": ReceiptTotal(at_least_minor=5000), "line_discount": TEN_OFF_LINES}, (5000,), [], id="reached"
        ),
        pytest.param(
            {"when": BasketCount("quantity", at_least=3), "line_discount": TEN_OFF_LINES},
            (100, 100),
            ["0.00 or 1 more"],
            id="one unit more",
        ),
        pytest.param(
            {"when": BasketCount("quantity", at_least=4), "line_discount": TEN_OFF_LINES},
            (100, 100),
            [],
            id="two units",
        ),
        pytest.param({"deal": SECOND_FREE}, (100,), ["0.00 or 1 more"], id="the second one is free"),
        pytest.param({"deal": SECOND_FREE, "scope": skus("none")}, (100,), [], id="none of its goods"),
        pytest.param(
            {
                "deal": Steps(
                    "amount", (Step(1000, PercentOff(Fraction(1, 10))), Step(3000, PercentOff(Fraction(1, 5))))
                )
            },
            (2500,),
            ["5.00 or 0 more"],
            id="the next step",
        ),
        pytest.param(
            {"when": ReceiptTotal(at_least_minor=5000), "points": Points(PointsFixed(5, "receipt"))},
            (4000,),
            ["10.00 or 0 more"],
            id="points",
        ),
        pytest.param(
            {"when": ReceiptTotal(at_least_minor=5000), "line_discount": TEN_OFF_LINES, "control_share": Fraction(1)},
            (4480,),
            [],
            id="not to the control group",
        ),
        pytest.param(
            {
                "when": ReceiptTotal(at_least_minor=5000),
                "line_discount": TEN_OFF_LINES,
                "limits": (Limit(Measure.COUNT, LimitScope.MEMBER, 0),),
            },
            (4480,),
            [],
            id="not if it is used up",
        ),
    ],
)
def test_near_misses(fields: dict[str, Any], amounts: tuple[int, ...], expected: list[str]) -> None:
    assert told(quote(rules_of(promo(near_miss=NEAR, **fields)), receipt(*amounts), SHOPPER)) == expected


def test_excluded_goods_give_no_tier_points() -> None:
    rules = rules_of(
        promo(tier_points=PointsPercent(Fraction(1, 10))),
        exclusions=Exclusions(no_earning=Selector(tags=frozenset({"tobacco"}))),
    )
    assert quote(rules, receipt(1000, line(2, 9000, tags=("tobacco",))), SHOPPER).tier_points_minor == 100
