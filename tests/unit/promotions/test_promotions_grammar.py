"""Every condition, effect and control of a programme file: what it is read as, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest

from server.promotions import Programme, ProgrammeError, load_programme
from server.promotions.criteria import (
    AllOf,
    AnyOf,
    AtTerminals,
    BasketCount,
    BirthdayWindow,
    Condition,
    CouponShown,
    InClub,
    InSegments,
    InStores,
    InTiers,
    MemberAge,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SpendSoFar,
    TimeWindow,
    VisitNumber,
)
from server.promotions.effects.club import ClubJoin
from server.promotions.effects.coupon import CouponIssue
from server.promotions.effects.draw import DrawEntry
from server.promotions.kinds import Audience, LimitScope, Measure, Period, TenderKind, TerminalKind, TierMeasure
from server.promotions.model import (
    AmountOff,
    Campaign,
    Choice,
    Expiry,
    FallsOn,
    FixedPrice,
    FurtherUnit,
    Gift,
    Limit,
    LineDiscount,
    LotTerms,
    MessageText,
    NearMiss,
    Partner,
    PercentOff,
    Points,
    PointsFixed,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsStep,
    PointsSteps,
    PointUnit,
    PriceList,
    Promotion,
    SetDeal,
    SetPart,
    Step,
    Steps,
    Tier,
    Tiers,
    UnitDeal,
)
from tests.unit.promotions.builders import HEAD, POINT, programme, promotions

OFF = "line_discount: {percent: 5}"
DEFINED = """\
language: uk
units: [{unit: gift, name: Gift points, precision: 0, pays: 0.10}]
partners: [{code: fuel, name: Fuel, base_percent: 0.5, accepts_points: false}]
campaigns: [{id: spring, name: Spring}]
tiers: {by: visits, levels: [{code: silver, name: Silver, at_least: 3}, {code: gold, name: Gold, at_least: 9}]}
"""
CLUB = "id: sold, name: Sold, club: {name: green, days: 365}"


def read(fields: str) -> Promotion:
    """The promotion with these fields, in a programme that defines what it may refer to."""
    return programme(DEFINED + promotions(f"id: p, name: P, {fields}", CLUB)).promotions[0]


def faults(body: str) -> list[str]:
    """`field: message (hint)` of each fault of a programme with this body."""
    loaded = load_programme((HEAD + POINT).lstrip("\n") + body)
    assert not isinstance(loaded, Programme), "expected faults"
    return [f"{error.field}: {error.message} ({error.hint})" for error in loaded]


def promotion_faults(fields: str) -> list[str]:
    """The same of a promotion, without the path of the promotion."""
    return [
        fault.removeprefix("promotions[0].").removeprefix("promotions[0]: ")
        for fault in faults(DEFINED + promotions(f"id: p, name: P, {fields}", CLUB))
    ]


# --- conditions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("receipt_total: {at_least: 10.50}", ReceiptTotal(1050, None)),
        ("scope_total: {below: 10}", ScopeTotal(None, 1000)),
        ("birthday: {days_before: 2}", BirthdayWindow(2, 0)),
        ("birthday: {}", BirthdayWindow(0, 0)),
        ("basket: {quantity: {at_least: 3}}", BasketCount("quantity", None, 3, None)),
        ("basket: {weight: {at_least: 1.5, below: 2.001}}", BasketCount("weight", None, 1500, 2001)),
        (
            "basket: {amount: {below: 50}, of: {tags: [local]}}",
            BasketCount("amount", Selector(tags=frozenset({"local"})), None, 5000),
        ),
        ("basket: {categories: {at_least: 4}, category_levels: 1}", BasketCount("categories", None, 4, None, 1)),
        ("stores: [a, b]", InStores(stores=frozenset({"a", "b"}))),
        ("stores: a", InStores(stores=frozenset({"a"}))),
        ("store_groups: [city]", InStores(groups=frozenset({"city"}))),
        ("channels: [app]", OnChannels(frozenset({"app"}))),
        ("terminals: [self_checkout]", AtTerminals(frozenset({TerminalKind.SELF_CHECKOUT}))),
        ("time: {weekdays: [mon, sun]}", TimeWindow(frozenset({0, 6}))),
        ('time: {from: "17:00", until: "20:30"}', TimeWindow(frozenset(), 1020, 1230)),
        ("time: {from: 22:00, until: 06:00}", TimeWindow(frozenset(), 1320, 360)),
        ("time: {until: 24:00}", TimeWindow()),
        (
            "time: {dates: {from: 2026-02-01, until: 2026-02-03}}",
            TimeWindow(first=date(2026, 2, 1), last=date(2026, 2, 3)),
        ),
        ("tiers: [gold, none]", InTiers(frozenset({"gold", ""}))),
        ("segments: [sleeping, VIP]", InSegments(frozenset({"sleeping", "VIP"}))),
        ("club: green", InClub("green")),
        ("member_days: {at_least: 0, below: 30}", MemberAge(0, 30)),
        ("first_purchase: true", VisitNumber(None, 1, 2)),
        ("visit: {number: 3, each: week}", VisitNumber(Period.WEEK, 3, 4)),
        ("visit: {every: 5}", VisitNumber(None, None, None, 5)),
        ("visit: {every: 5, below: 20, each: year}", VisitNumber(Period.YEAR, None, 20, 5)),
        ("visit: {at_least: 2, below: 4}", VisitNumber(None, 2, 4)),
        ("spent: {at_least: 100, each: month}", SpendSoFar(Period.MONTH, 10000, None)),
        ("paid_by: {tenders: [cash, points]}", PaidBy(frozenset({TenderKind.CASH, TenderKind.POINTS}))),
        ('paid_by: {bins: ["5168"], at_least: 5}', PaidBy(frozenset({TenderKind.CARD}), ("5168",), 500)),
        (
            "coupon: {series: [sorry], codes: [ welcome10 ]}",
            CouponShown(frozenset({"sorry"}), frozenset({"WELCOME10"})),
        ),
        ("offer: true", OfferMade()),
    ],
)
def test_a_condition(when: str, expected: Condition) -> None:
    assert read(f"when: {{{when}}}, {OFF}").when == expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        pytest.param(
            "stores: [a], store_groups: [g]",
            AllOf((InStores(stores=frozenset("a")), InStores(groups=frozenset("g")))),
            id="all that stand side by side",
        ),
        pytest.param(
            "basket: {quantity: {at_least: 2}, amount: {at_least: 9}}",
            AllOf((BasketCount("quantity", None, 2), BasketCount("amount", None, 900))),
            id="a basket by two measures",
        ),
        pytest.param(
            "any: [{first_purchase: true}, {tiers: [gold]}], not: {channels: [app]}",
            AllOf(
                (
                    AnyOf((VisitNumber(None, 1, 2), InTiers(frozenset({"gold"})))),
                    NotThat(OnChannels(frozenset({"app"}))),
                )
            ),
            id="any and not",
        ),
        pytest.param("all: [{all: [{offer: true}]}]", OfferMade(), id="one in brackets is the one"),
        pytest.param(
            "any: [{first_purchase: true}, {coupon: {series: s}, birthday: {}}]",
            AnyOf((VisitNumber(None, 1, 2), AllOf((BirthdayWindow(), CouponShown(frozenset("s")))))),
            id="a right in one part of any",
        ),
    ],
)
def test_conditions_together(when: str, expected: Condition) -> None:
    assert read(f"when: {{{when}}}, {OFF}").when == expected


def test_eight_levels_of_conditions_and_no_more() -> None:
    def nested(levels: int) -> str:
        return "not: {" * (levels - 1) + "channels: [app]" + "}" * (levels - 1)

    assert read(f"when: {{{nested(8)}}}, {OFF}").when
    (fault,) = promotion_faults(f"when: {{{nested(9)}}}, {OFF}")
    assert fault.endswith("nested deeper than 8 conditions (flatten it, or split it)")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("basket: {}", "when.basket: measures nothing (give quantity, weight, amount or categories)"),
        (
            "basket: {quantity: {at_least: 1}, category_levels: 1}",
            "when.basket.category_levels: belongs to `categories` (remove it)",
        ),
        ("basket: {quantity: {}}", "when.basket.quantity: states no bound (give at_least or below)"),
        (
            "basket: {quantity: {at_least: 1.5}}",
            "when.basket.quantity.at_least: `1.5` is no whole number from 1 (correct the value)",
        ),
        (
            "basket: {weight: {at_least: 1.0005}}",
            "when.basket.weight.at_least: 1.0005 has more decimals than a weight has (3) (use at most 3 decimals)",
        ),
        ("stores: []", "when.stores: is empty (name something, or leave the field out)"),
        (
            "terminals: [lanes]",
            "when.terminals[0]: `lanes` is none of lane, self_checkout, online (did you mean `lane`?)",
        ),
        ("time: {}", "when.time: states no condition (leave it out, or give one)"),
        (
            "time: {from: 9:00}",
            "when.time.from: `9:00` is no time of day like 17:30 (write hours and minutes, 00:00 to 24:00)",
        ),
        (
            'time: {from: "17:00", until: "17:00"}',
            "when.time.until: leaves no time (`from` is included, `until` is not; correct one of them)",
        ),
        (
            "time: {weekdays: [monday]}",
            "when.time.weekdays[0]: `monday` is none of mon, tue, wed, thu, fri, sat, sun (did you mean `mon`?)",
        ),
        (
            "time: {dates: {from: 2026-02-02, until: 2026-02-01}}",
            "when.time.dates.until: 2026-02-01 is before 2026-02-02 (swap the dates)",
        ),
        ("tiers: [glod]", "when.tiers[0]: there is no level `glod` (did you mean `gold`?)"),
        (
            "tiers: [x]",
            "when.tiers[0]: there is no level `x` (define it under `tiers: {levels: ...}`, or correct the name)",
        ),
        (
            "club: blue",
            (
                "when.club: there is no club `blue`"
                " (define it by a promotion with `club: {name: ...}` that sells it, or correct the name)"
            ),
        ),
        ("member_days: {}", "when.member_days: states no bound (give at_least or below)"),
        ("first_purchase: false", "when.first_purchase: `false` says nothing (write true, or leave the field out)"),
        ("visit: {each: week}", "when.visit: states no bound (give at_least or below)"),
        ("visit: {every: 1}", "when.visit.every: should be greater than or equal to 2 (correct the value)"),
        (
            "visit: {number: 3, every: 5}",
            "when.visit.number: already says exactly which visit (remove every, at_least and below)",
        ),
        ("spent: {each: fortnight, at_least: 1}", "when.spent.each: `fortnight` is none of"),
        ("paid_by: {at_least: 5}", "when.paid_by: names no tender (give tenders or bins)"),
        (
            'paid_by: {tenders: [cash], bins: ["5168"]}',
            "when.paid_by.bins: only cards have numbers (add card to tenders, or remove bins)",
        ),
        (
            "paid_by: {bins: [51a]}",
            "when.paid_by.bins[0]: '51a' does not fit (write the first digits of a card number, at most 8)",
        ),
        ("coupon: {}", "when.coupon: names no coupon (give series or codes)"),
        (
            "not: {coupon: {codes: [x]}}",
            (
                "when: has a coupon or an offer under `not`"
                " (make it two promotions, and the one with the coupon or offer `exclusive`)"
            ),
        ),
        (
            "not: {any: [{offer: true}]}",
            (
                "when: has a coupon or an offer under `not`"
                " (make it two promotions, and the one with the coupon or offer `exclusive`)"
            ),
        ),
        ("any: []", "when.any: is empty (name something, or leave the field out)"),
        ("any: [{}]", "when.any[0]: states no condition (leave it out, or give one)"),
    ],
)
def test_a_condition_is_refused(when: str, expected: str) -> None:
    found = promotion_faults(f"when: {{{when}}}, {OFF}")
    assert len(found) == 1
    assert found[0].startswith(expected)


# --- effects ----------------------------------------------------------------------------------------------

HALF = PercentOff(Fraction(1, 2))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("units: {every: 3, percent: 100}", UnitDeal(3, 1, PercentOff(Fraction(1)))),
        (
            "units: {every: 4, discounted: 2, amount: 5, choose: cheapest_of_each, falls_on: whole_deal, most: 3}",
            UnitDeal(4, 2, AmountOff(500), Choice.CHEAPEST_OF_EACH, FallsOn.WHOLE_DEAL, 3),
        ),
        ("units: {every: 2, price: 0, choose: dearest}", UnitDeal(2, 1, FixedPrice(0), Choice.DEAREST)),
        (
            "set: {parts: [{skus: a}, {tags: [b], quantity: 2}], price: 9.90, most: 1}",
            SetDeal(
                (SetPart(Selector(skus=frozenset("a")), 1), SetPart(Selector(tags=frozenset("b")), 2)),
                FixedPrice(990),
                None,
                1,
            ),
        ),
        (
            "set: {parts: [{skus: [a]}, {skus: [b]}], percent: 50, falls_on_part: 2}",
            SetDeal((SetPart(Selector(skus=frozenset("a")), 1), SetPart(Selector(skus=frozenset("b")), 1)), HALF, 1),
        ),
        ("gift: {skus: [cup]}", Gift(Selector(skus=frozenset({"cup"})))),
        (
            "gift: {skus: [cup], quantity: 2, price: 1, for_every: 3, falls_on: whole_deal}",
            Gift(Selector(skus=frozenset({"cup"})), 2, 100, 3, FallsOn.WHOLE_DEAL),
        ),
        (
            "steps: {by: amount, mode: marginal, steps: [{at_least: 5, percent: 50}, {at_least: 9.5, amount: 1}]}",
            Steps("amount", (Step(500, HALF), Step(950, AmountOff(100))), marginal=True),
        ),
        (
            "steps: {by: quantity, steps: [{at_least: 6, amount: 1}]}",
            Steps("quantity", (Step(6, AmountOff(100)),)),
        ),
        ("steps: {by: weight, steps: [{at_least: 1.5, percent: 50}]}", Steps("weight", (Step(1500, HALF),))),
    ],
)
def test_a_deal(fields: str, expected: object) -> None:
    assert read(fields).deal == expected


def test_the_goods_of_a_price_list_are_its_scope() -> None:
    listed = read('line_discount: {prices: {"1": 9.90, b: 0}}')
    assert listed.line_discount == LineDiscount(PriceList({"1": 990, "b": 0}))
    assert listed.scope == Selector(skus=frozenset({"1", "b"}))
    fewer = read("line_discount: {prices: {a: 1}}, scope: {except: {tags: [clearance]}}")
    assert fewer.scope == Selector(skus=frozenset("a"), but_not=Selector(tags=frozenset({"clearance"})))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("percent: 14", Points(PointsPercent(Fraction(14, 100)))),
        ("multiplier: 5", Points(PointsMultiplier(Fraction(5)))),
        ("multiplier: 2.5, compound: true", Points(PointsMultiplier(Fraction(5, 2), compound=True))),
        ("fixed: 20", Points(PointsFixed(2000, "receipt"))),
        ("fixed: 0.5, per: unit", Points(PointsFixed(50, "unit"))),
        ("fixed: 100, unit: gift", Points(PointsFixed(100, "receipt"), unit="gift")),
        ("per_amount: {points: 1, step: 50}", Points(PointsPerAmount(100, 5000, "receipt"))),
        ("per_amount: {points: 1, step: 50, per: line}", Points(PointsPerAmount(100, 5000, "line"))),
        (
            "steps: [{at_least: 10, points: 5}, {at_least: 20, percent: 2}], mode: marginal",
            Points(PointsSteps((PointsStep(1000, 500), PointsStep(2000, 0, Fraction(1, 50))), marginal=True)),
        ),
        ("percent: 1, partner: fuel", Points(PointsPercent(Fraction(1, 100)), partner="fuel")),
        ("percent: 1, pending_days: 3", Points(PointsPercent(Fraction(1, 100)), LotTerms(3))),
        (
            "percent: 1, expiry: {after_days: 14}",
            Points(PointsPercent(Fraction(1, 100)), LotTerms(0, Expiry(after_days=14))),
        ),
    ],
)
def test_points(fields: str, expected: Points) -> None:
    assert read(f"points: {{{fields}}}").points == expected


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ("tier_points: {percent: 1}", "tier_points", PointsPercent(Fraction(1, 100))),
        ("tier_points: {fixed: 10, per: line}", "tier_points", PointsFixed(1000, "line")),
        ("issue_coupon: {series: Sorry-5}", "coupon", CouponIssue("Sorry-5")),
        (
            "issue_coupon: {series: s, quantity: 2, starts_after_days: 1, valid_days: 7}",
            "coupon",
            CouponIssue("s", 2, 1, 7),
        ),
        ("draw: {name: car}", "draw", DrawEntry("car")),
        ("draw: {name: car, entries: 3, per_amount: 100}", "draw", DrawEntry("car", 3, 10000)),
        ("club: {name: green, days: 365}", "club", ClubJoin("green", 365)),
    ],
)
def test_other_effects(fields: str, name: str, expected: object) -> None:
    assert getattr(read(fields), name) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("units: {every: 3}", "units: says nothing (give exactly one of percent, amount, price)"),
        ("units: {percent: 5}", "units.every: is missing (add it)"),
        (
            "units: {every: 2, discounted: 3, percent: 5}",
            "units.discounted: is more than `every` (a deal has fewer discounted units than units)",
        ),
        ("units: {every: 3, percent: 5, choose: any}", "units.choose: `any` is none of cheapest, cheapest_of_each"),
        ("set: {parts: [{skus: [a]}], price: 1}", "set.parts: a set of one unit is no set (add a part"),
        ("set: {parts: [{quantity: 2}], price: 1}", "set.parts[0]: names no goods (leave it out, or give skus"),
        (
            "set: {parts: [{skus: [a]}, {skus: [b]}], price: 1, falls_on_part: 3}",
            "set.falls_on_part: there are 2 parts only (count them from 1)",
        ),
        ("gift: {quantity: 1}", "gift: names no goods (leave it out, or give skus"),
        (
            "gift: {skus: [a]}, units: {every: 2, percent: 5}",
            "gift: stands beside `units` (make it two promotions, perhaps in one `group`)",
        ),
        (
            "basket_discount: {amount: 1}, steps: {by: amount, steps: [{at_least: 5, percent: 1}]}",
            "steps: stands beside `basket_discount` (make it two promotions, perhaps in one `group`)",
        ),
        (
            "steps: {by: amount, steps: [{at_least: 5, percent: 1}, {at_least: 5, percent: 2}]}",
            "steps.steps[1].at_least: is not above the one before (order them lowest first, each once)",
        ),
        (
            "steps: {by: quantity, steps: [{at_least: 1.5, percent: 1}]}",
            "steps.steps[0].at_least: 1.5 has more decimals than a count has (0)",
        ),
        ("steps: {by: amount, steps: []}", "steps.steps: is empty"),
        (
            "line_discount: {prices: {a: 1}}, scope: {skus: [a]}",
            "scope: the price list says which goods (remove it; `except` may take goods out again)",
        ),
        ("line_discount: {prices: {a: 1.001}}", "line_discount.prices.a: 1.001 has more decimals than UAH has (2)"),
        (
            "points: {percent: 1, fixed: 1}",
            "points: has percent and fixed (give exactly one of percent, multiplier, fixed, per_amount, steps)",
        ),
        ("points: {percent: 1, mode: whole}", "points.mode: belongs to `steps` (remove it)"),
        ("points: {percent: 1, unit: gitf}", "points.unit: there is no unit `gitf` (did you mean `gift`?)"),
        ("points: {fixed: 0.5, unit: gift}", "points.fixed: 0.5 has more decimals than a point of `gift` has (0)"),
        ("points: {multiplier: 2, unit: gift}", "points.unit: a multiplier works on the base percent, which has its"),
        (
            "points: {percent: 1, partner: x}",
            "points.partner: there is no partner `x` (define it under `partners`, or correct the name)",
        ),
        (
            "points: {steps: [{at_least: 5}]}",
            "points.steps[0]: says nothing (give exactly one of points, percent)",
        ),
        ("tier_points: {multiplier: 2}", "tier_points.multiplier: `multiplier` is no field known here"),
        ("issue_coupon: {series: a b}", "issue_coupon.series: 'a b' does not fit (write letters, digits, . _ - (at"),
        ("issue_coupon: {series: a, quantity: 21}", "issue_coupon.quantity: should be less than or equal to 20"),
        ("club: {name: green}", "club.days: is missing (add it)"),
    ],
)
def test_an_effect_is_refused(fields: str, expected: str) -> None:
    found = promotion_faults(fields)
    assert len(found) == 1
    assert found[0].startswith(expected)


# --- control ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("at_most: 3, for: member", Limit(Measure.COUNT, LimitScope.MEMBER, 3)),
        ("at_most: 3, of: count, for: receipt", Limit(Measure.COUNT, LimitScope.RECEIPT, 3)),
        ("at_most: 99.90, of: money, for: store, each: day", Limit(Measure.MONEY, LimitScope.STORE, 9990, Period.DAY)),
        (
            "at_most: 5, of: points, for: all, each: half_year",
            Limit(Measure.POINTS, LimitScope.ALL, 500, Period.HALF_YEAR),
        ),
        ("at_most: 0, for: all", Limit(Measure.COUNT, LimitScope.ALL, 0)),
    ],
)
def test_a_limit(limit: str, expected: Limit) -> None:
    assert read(f"points: {{fixed: 1}}, {OFF}, limits: [{{{limit}}}]").limits == (expected,)


def test_points_limits_are_in_the_promotions_own_unit() -> None:
    of_gift = read("points: {fixed: 10, unit: gift}, limits: [{at_most: 5, of: points, for: all}]")
    assert of_gift.limits == (Limit(Measure.POINTS, LimitScope.ALL, 5),)


def test_control_of_a_promotion() -> None:
    built = read(f"{OFF}, priority: 7, group: g, exclusive: yes, campaign: spring, control_percent: 12.5")
    plain = Promotion("p", "P", line_discount=LineDiscount(PercentOff(Fraction(5, 100))))
    expected = replace(plain, priority=7, group="g", exclusive=True, campaign="spring", control_share=Fraction(1, 8))
    assert built == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (f"{OFF}, limits: [{{at_most: 1}}]", "limits[0].for: is missing (add it)"),
        (
            f"{OFF}, limits: [{{at_most: 1.5, for: all}}]",
            "limits[0].at_most: 1.5 has more decimals than a count has (0) (use at most 0 decimals)",
        ),
        (
            f"{OFF}, limits: [{{at_most: 1, for: receipt, each: day}}]",
            "limits[0].each: a receipt has no period (remove it, or say `for: member`)",
        ),
        (
            f"{OFF}, limits: [{{at_most: 1, for: all}}, {{at_most: 2, for: all}}]",
            "limits[1]: limits the same as one before (keep the smaller one)",
        ),
        (
            f"{OFF}, limits: [{{at_most: 1, of: points, for: all}}]",
            "limits[0].of: no points are granted, so none are ever counted (limit count or money)",
        ),
        (
            "points: {fixed: 1}, limits: [{at_most: 1, of: money, for: all}]",
            "limits[0].of: no discount is given, so no money is ever counted (limit count or points)",
        ),
        (f"{OFF}, campaign: sprign", "campaign: there is no campaign `sprign` (did you mean `spring`?)"),
        (f"{OFF}, control_percent: 101", "control_percent: should be less than or equal to 100 (correct the value)"),
    ],
)
def test_control_is_refused(fields: str, expected: str) -> None:
    assert promotion_faults(fields) == [expected]


# --- messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("receipt: text", {"": "text"}),
        ("receipt: {uk: текст}", {"": "текст", "uk": "текст"}),
        ('receipt: {uk: текст, en: "{discount} off"}', {"": "текст", "uk": "текст", "en": "{discount} off"}),
        ("receipt: {uk: a, kk-Cyrl: b}", {"": "a", "uk": "a", "kk-Cyrl": "b"}),
    ],
)
def test_a_message(messages: str, expected: dict[str, str]) -> None:
    assert read(f"{OFF}, messages: {{{messages}}}").messages == (MessageText(Audience.RECEIPT, expected),)


def test_a_near_miss() -> None:
    built = read(
        "when: {scope_total: {at_least: 100}}, units: {every: 2, percent: 5},"
        ' near_miss: {within_amount: 5.20, within_quantity: 1, messages: {voice: "{missing} more"}}'
    )
    assert built.near_miss == NearMiss((MessageText(Audience.VOICE, {"": "{missing} more"}),), 520, 1)


@pytest.mark.parametrize(
    "fields",
    [
        "when: {receipt_total: {at_least: 5}}, line_discount: {percent: 5}",
        "when: {any: [{all: [{scope_total: {at_least: 5}}]}]}, line_discount: {percent: 5}",
        "when: {basket: {amount: {at_least: 5}}}, line_discount: {percent: 5}",
        "steps: {by: amount, steps: [{at_least: 5, percent: 1}]}",
        "points: {steps: [{at_least: 5, points: 1}]}",
    ],
)
def test_what_is_missed_by_money(fields: str) -> None:
    assert read(f"{fields}, {NEAR}").near_miss


@pytest.mark.parametrize(
    "fields",
    [
        "when: {basket: {quantity: {at_least: 5}}}, line_discount: {percent: 5}",
        "when: {basket: {categories: {at_least: 5}}}, line_discount: {percent: 5}",
        "units: {every: 2, percent: 5}",
        "set: {parts: [{skus: [a]}, {skus: [b]}], price: 1}",
        "gift: {skus: [a], for_every: 2}",
        "steps: {by: quantity, steps: [{at_least: 5, percent: 1}]}",
    ],
)
def test_what_is_missed_by_pieces(fields: str) -> None:
    assert read(f"{fields}, {NEAR_PIECES}").near_miss


NEAR = "near_miss: {within_amount: 5, messages: {voice: v}}"
NEAR_PIECES = "near_miss: {within_quantity: 1, messages: {voice: v}}"
NO_MONEY = (
    "near_miss.within_amount: the promotion has no threshold of money"
    " (add a receipt_total, scope_total or basket amount with at_least, steps by amount, or points in steps)"
)
NO_PIECES = (
    "near_miss.within_quantity: the promotion has no threshold of pieces"
    " (add a basket quantity with at_least, or units, set, gift with for_every, or steps by quantity)"
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (f"{OFF}, messages: {{voice: '{{discuont}}'}}", "messages.voice: `{discuont}` is no placeholder (did you mean"),
        (f"{OFF}, messages: {{voice: '{{}}'}}", "messages.voice: `{}` is no placeholder (known are discount, points,"),
        (
            f"{OFF}, messages: {{voice: '{{missing}} more'}}",
            "messages.voice: nothing is missing when a promotion applies, so `{missing}` is empty (use it under",
        ),
        (f"{OFF}, messages: {{voice: {{en: v}}}}", "messages.voice: has no text in the programme's language, `uk`"),
        (f"{OFF}, messages: {{voice: {{UK: v}}}}", "messages.voice.UK: 'UK' does not fit (write a language tag like"),
        (f"{OFF}, messages: {{voice: {{}}}}", "messages.voice: is empty"),
        (f'{OFF}, messages: {{voice: "a\\tb"}}', "messages.voice: has a character that can't be printed (U+0009)"),
        (f"{OFF}, messages: {{voice: {'v' * 1001}}}", "messages.voice: is too long (shorten the text to 1000"),
        (f"{OFF}, near_miss: {{messages: {{voice: v}}}}", "near_miss: does not say what is near (give within_amount"),
        (f"{OFF}, near_miss: {{within_quantity: 1, messages: {{}}}}", "near_miss.messages: is empty"),
        (f"{OFF}, {NEAR}", NO_MONEY),
        (f"when: {{receipt_total: {{below: 5}}}}, {OFF}, {NEAR}", NO_MONEY),
        (f"when: {{not: {{receipt_total: {{at_least: 5}}}}}}, {OFF}, {NEAR}", NO_MONEY),
        (f"when: {{basket: {{quantity: {{at_least: 5}}}}}}, {OFF}, {NEAR}", NO_MONEY),
        (f"when: {{receipt_total: {{at_least: 5}}}}, {OFF}, {NEAR_PIECES}", NO_PIECES),
        (f"gift: {{skus: [a]}}, {NEAR_PIECES}", NO_PIECES),
    ],
)
def test_a_message_is_refused(fields: str, expected: str) -> None:
    found = promotion_faults(fields)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_texts_in_languages_want_a_language_of_the_programme() -> None:
    body = promotions(f"id: p, name: P, {OFF}, messages: {{voice: {{en: v}}}}")
    assert faults(body) == [
        (
            "promotions[0].messages.voice: has languages, but the programme has none"
            " (set `language` at the top of the file)"
        )
    ]


# --- the programme ----------------------------------------------------------------------------------------


def test_settings_of_the_whole_programme() -> None:
    loaded = programme(DEFINED + "control_percent: 10\n")
    assert loaded.language == "uk"
    assert loaded.control_share == Fraction(1, 10)
    assert loaded.units == (FurtherUnit(PointUnit("gift", 0, Fraction(10)), "Gift points"),)
    assert loaded.partners == (Partner("fuel", "Fuel", Fraction(5, 1000), accepts_points=False),)
    assert loaded.campaigns == (Campaign("spring", "Spring"),)
    assert loaded.tiers == Tiers(TierMeasure.VISITS, (Tier("silver", "Silver", 3), Tier("gold", "Gold", 9)))


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        (
            "by: spend, window: {each: year}, kept: {until_end_of: year, periods_later: 1}",
            Tiers(TierMeasure.SPEND, (Tier("a", "A", 950),), Period.YEAR, 12, Period.YEAR, 1),
        ),
        ("by: points, window: {months: 3}", Tiers(TierMeasure.POINTS, (Tier("a", "A", 950),), None, 3)),
    ],
)
def test_levels(tiers: str, expected: Tiers) -> None:
    assert programme(f"tiers: {{{tiers}, levels: [{{code: a, name: A, at_least: 9.50}}]}}").tiers == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "tiers: {by: visits, levels: [{code: a, name: A, at_least: 1.5}]}",
            "tiers.levels[0].at_least: 1.5 has more decimals than a count has (0) (use at most 0 decimals)",
        ),
        (
            "tiers: {by: spend, levels: [{code: a, name: A, at_least: 5}, {code: b, name: B, at_least: 5}]}",
            "tiers.levels[1].at_least: is not above the one before (order them lowest first, each once)",
        ),
        (
            "tiers: {by: spend, levels: [{code: a, name: A, at_least: 5}, {code: a, name: B, at_least: 6}]}",
            "tiers.levels[1].code: level `a` is defined twice, first in line 6 (rename one of them)",
        ),
        (
            "tiers: {by: spend, levels: [{code: none, name: A, at_least: 5}]}",
            "tiers.levels[0].code: `none` is reserved (choose another code)",
        ),
        (
            "tiers: {by: spend, window: {each: week}, levels: [{code: a, name: A, at_least: 5}]}",
            "tiers.window.each: levels are counted in months (use month, quarter, half_year or year)",
        ),
        (
            "tiers: {by: spend, window: {each: year, months: 3}, levels: [{code: a, name: A, at_least: 5}]}",
            "tiers.window: has each and months (give one of them)",
        ),
        ("tiers: {by: spend, levels: []}", "tiers.levels: is empty (name something, or leave the field out)"),
        ("tiers: {levels: [{code: a, name: A, at_least: 5}]}", "tiers.by: is missing (add it)"),
        (
            "units: [{unit: bonus, name: B, pays: 1}]",
            "units[0].unit: `bonus` is reserved (choose another unit)",
        ),
        (
            "units: [{unit: a, name: A, pays: 1, precision: 7}]",
            "units[0].precision: should be less than or equal to 6 (correct the value)",
        ),
        (
            "partners: [{code: a, name: A}, {code: a, name: B}]",
            "partners[1].code: partner `a` is defined twice, first in line 6 (rename one of them)",
        ),
        ("control_percent: 100.1", "control_percent: should be less than or equal to 100 (correct the value)"),
        ("language: Ukrainian", "language: 'Ukrainian' does not fit (write a language tag like uk, en or kk-Cyrl)"),
        (
            "campaigns: [{id: a, name: A, limits: [{at_most: 1, of: points, for: all}]}]\n"
            + promotions(f"id: p, name: P, campaign: a, {OFF}"),
            "campaigns[0].limits[0].of: no points are granted, so none are ever counted (limit count or money)",
        ),
        (
            "units: [{unit: g, name: G, pays: 1}]\n"
            "campaigns: [{id: a, name: A, limits: [{at_most: 1, of: points, for: all}]}]\n"
            + promotions(
                "id: p, name: P, campaign: a, points: {fixed: 1}",
                "id: q, name: Q, campaign: a, points: {fixed: 1, unit: g}",
            ),
            (
                "campaigns[0].limits[0].of: its promotions grant points of different units (make it a campaign for each"
                " unit)"
            ),
        ),
        (
            promotions(f"id: p, name: P, group: g, {OFF}", f"id: q, name: Q, group: g, when: {{offer: true}}, {OFF}"),
            (
                "promotions[1].group: group `g` mixes line discounts (`p`) and line discounts of coupons and offers"
                " (`q`) (a group chooses among promotions of one kind: split the group or the promotion)"
            ),
        ),
        (
            "point: {unit: p, pays: 1}\nearning: {base_percent: 1, expiry: {after_months: 1201}}",
            ": `point` stands twice, first in line 5 (keep one of them)",
        ),
        (
            promotions("id: p, name: P, points: {fixed: 1000000000000.01}"),
            "promotions[0].points.fixed: should be less than or equal to 1000000000000 (correct the value)",
        ),
    ],
)
def test_a_programme_is_refused(body: str, expected: str) -> None:
    assert expected in faults(body)


def test_faults_between_fields_show_beside_faults_of_fields() -> None:
    body = (
        "currency: UAH\nearning: {rounding: up}\ntiers: {by: visit, levels: []}\n"
        "units: [{unit: a, name: A, pays: 1, expiry: {}}]\n"
        + promotions("id: p, name: P, when: {tiers: [x]}, " + OFF, "id: q, name: Q, draw: {}")
    )
    loaded = load_programme(HEAD.replace("currency: UAH\n", "") + POINT + body)
    assert isinstance(loaded, list)
    assert [(error.field, error.message) for error in loaded] == [
        ("tiers.by", "`visit` is none of spend, visits, points"),
        ("tiers.levels", "is empty"),
        ("units[0].expiry", "needs either `on`, or `after_months` / `after_days`"),
        ("promotions[0].when.tiers[0]", "there is no level `x`"),
        ("promotions[1].draw.name", "is missing"),
    ]


def test_an_error_says_where_a_language_stands() -> None:
    body = "language: uk\n" + promotions(f"id: p, name: P, {OFF}, messages: {{voice: {{uk: v, en: '{{x}}'}}}}")
    loaded = load_programme((HEAD + POINT).lstrip("\n") + body)
    assert isinstance(loaded, list)
    (error,) = loaded
    assert isinstance(error, ProgrammeError)
    assert (error.line, error.field) == (8, "promotions[0].messages.voice.en")
