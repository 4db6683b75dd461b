"""Units are units: however goods are keyed, they cost the same, whatever promotions meet on them."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, time
from fractions import Fraction
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.promotions import (
    BasketCount,
    CouponFact,
    CouponShown,
    Effects,
    FloorRest,
    MemberFacts,
    OfferMade,
    PaidLine,
    Points,
    PointsFixed,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptLine,
    ReceiptTotal,
    ScopeTotal,
    Usage,
    compile_rules,
    earn_as_paid,
    quote,
)
from tests.unit.promotions.builders import (
    MONDAY,
    SHOPPER,
    STORE_ZONE,
    as_quoted,
    by_promotion,
    discounts,
    line,
    points,
    receipt,
    rules,
)
from tests.unit.promotions.builders import (
    promotions as listed,
)
from tests.unit.promotions.worlds import CONTROL, EFFECTS, PRODUCTS, PROGRAMMES, SCOPES, Product, usages

NOON = datetime.combine(MONDAY, time(12), STORE_ZONE)


def pieces(number: int, units: int, price_minor: int, sku: str = "S", floor_minor: int = 0) -> ReceiptLine:
    """So many pieces at this price each, not below that floor each."""
    return line(
        number,
        units * price_minor,
        sku=sku,
        quantity_milli=units * 1000,
        floor_amount_minor=units * floor_minor,
    )


def one_by_one(whole: ReceiptLine) -> list[ReceiptLine]:
    """The same pieces, each on a line of its own."""
    units = whole.quantity_milli // 1000
    return [
        pieces(number, 1, whole.list_amount_minor // units, whole.sku, whole.floor_amount_minor // units)
        for number in range(1, units + 1)
    ]


THIRD_FREE = "name: Third free, units: {every: 3, percent: 100}"
HALF_SECOND = "name: Second at half price, units: {every: 2, percent: 50}"
CARD_PRICE = "name: Card price, line_discount: {fixed_price: 5.00}"
ONCE = "limits: [{at_most: 1, for: receipt}]"


@pytest.mark.parametrize(
    ("items", "goods", "payable"),
    [
        pytest.param(
            [f"id: a, name: A, line_discount: {{amount: 3.00}}, {ONCE}"],
            pieces(1, 5, 200),
            800,
            id="an amount off one unit takes no more than it costs",
        ),
        pytest.param(
            [f"id: a, name: A, line_discount: {{amount: 3.00}}, {ONCE}"],
            pieces(1, 5, 500, floor_minor=400),
            2400,
            id="nor more than its lowest price permits",
        ),
        pytest.param(
            [f"id: a, name: A, line_discount: {{percent: 100}}, {ONCE}"],
            pieces(1, 5, 500, floor_minor=300),
            2300,
            id="one free unit of five costs its lowest price",
        ),
        pytest.param([f"id: a, {THIRD_FREE}", f"id: b, {CARD_PRICE}"], pieces(1, 3, 1000), 1000, id="deal, then price"),
        pytest.param([f"id: b, {THIRD_FREE}", f"id: a, {CARD_PRICE}"], pieces(1, 3, 1000), 1000, id="price, then deal"),
        pytest.param(
            [f"id: a, {THIRD_FREE}", f"id: b, {HALF_SECOND}"], pieces(1, 5, 1000), 3000, id="units in two deals"
        ),
        pytest.param(
            [f"id: b, {THIRD_FREE}", f"id: a, {HALF_SECOND}"], pieces(1, 5, 1000), 3500, id="the other way round"
        ),
        pytest.param(
            [f"id: a, {THIRD_FREE}", "id: b, name: B, line_discount: {amount: 4.00}"],
            pieces(1, 3, 1000),
            1200,
            id="an amount off each takes nothing off a free one",
        ),
        pytest.param(
            [f"id: a, {THIRD_FREE}", "id: b, name: B, line_discount: {percent: 50, base: list}"],
            pieces(1, 3, 1000),
            1000,
            id="nor does a percent of the list price",
        ),
        pytest.param(
            ["id: a, name: Third cheaper, units: {every: 3, price: 2.00}", f"id: b, {CARD_PRICE}"],
            pieces(1, 3, 1000),
            1200,
            id="a unit that is cheaper already stays so",
        ),
        pytest.param(
            [f"id: a, {THIRD_FREE}, exclusive: true", "id: b, name: B, basket_discount: {percent: 10}"],
            pieces(1, 3, 1000),
            1800,
            id="an exclusive deal has its free unit to itself, not the others",
        ),
        pytest.param(
            [
                "id: a, name: A, line_discount: {amount: 3.00}, exclusive: true, limits: [{at_most: 3, for: receipt}]",
                "id: b, name: B, line_discount: {amount: 1.00}",
            ],
            pieces(1, 5, 1000),
            3900,
            id="beyond the limit of the best one the next best applies",
        ),
        pytest.param(
            [
                "id: a, name: A, line_discount: {amount: 3.00}, group: g, limits: [{at_most: 2, for: receipt}]",
                "id: b, name: B, line_discount: {amount: 1.00}, group: g",
            ],
            pieces(1, 5, 1000),
            4100,
            id="in a group too",
        ),
        pytest.param(
            [f"id: a, {THIRD_FREE}, limits: [{{at_most: 1, for: receipt}}]", f"id: b, {HALF_SECOND}"],
            pieces(1, 6, 1000),
            4000,
            id="one deal of two, then the others",
        ),
        pytest.param(
            [f"id: a, {THIRD_FREE}, limits: [{{at_most: 15.00, of: money, for: receipt}}]"],
            pieces(1, 6, 1000),
            4500,
            id="deals cut to money",
        ),
        pytest.param(
            ["id: a, name: A, line_discount: {percent: 5}"], pieces(1, 20, 49), 931, id="a percent is rounded once"
        ),
        pytest.param(
            ["id: a, name: A, line_discount: {percent: 5}", f"id: b, {HALF_SECOND}"],
            pieces(1, 5, 99),
            376,
            id="whatever comes after it",
        ),
    ],
)
def test_one_line_or_a_line_for_each_piece(items: list[str], goods: ReceiptLine, payable: int) -> None:
    compiled = rules(listed(*items))
    at_once, apart = quote(compiled, receipt(goods), None), quote(compiled, receipt(*one_by_one(goods)), None)
    assert (at_once.payable_minor, apart.payable_minor) == (payable, payable)
    assert by_promotion(at_once) == by_promotion(apart)


EACH = "name: A point for each, points: {fixed: 1, per: unit}"


@pytest.mark.parametrize(
    ("items", "goods", "points_minor"),
    [
        pytest.param([f"id: p, {EACH}"], pieces(1, 5, 1000), 500, id="every piece earns"),
        pytest.param([f"id: p, {EACH}", f"id: a, {THIRD_FREE}"], pieces(1, 3, 1000), 200, id="a free one does not"),
        pytest.param(
            [f"id: p, {EACH}", "id: g, name: G, gift: {skus: [S], for_every: 2}"], pieces(1, 6, 1000), 400, id="gifts"
        ),
        pytest.param(
            [f"id: p, {EACH}", f"id: b, name: B, line_discount: {{percent: 100}}, {ONCE}"],
            pieces(1, 5, 1000),
            400,
            id="nor one that a limited discount makes free",
        ),
        pytest.param([f"id: p, {EACH}", f"id: b, {HALF_SECOND}"], pieces(1, 4, 1000), 400, id="a cheaper one does"),
        pytest.param(
            [f"id: p, {EACH}, limits: [{{at_most: 1.50, of: points, for: receipt}}]", f"id: a, {THIRD_FREE}"],
            pieces(1, 3, 1000),
            150,
            id="limits cut what is left",
        ),
    ],
)
def test_pieces_that_cost_nothing_earn_nothing_on_any_line(
    items: list[str], goods: ReceiptLine, points_minor: int
) -> None:
    compiled = rules(listed(*items))
    for lines in ([goods], one_by_one(goods)):
        assert quote(compiled, receipt(*lines), None).accrual_points_minor == points_minor


def test_a_piece_that_the_register_charged_earns_though_it_was_to_be_free() -> None:
    compiled = rules(listed(f"id: p, {EACH}", f"id: a, {THIRD_FREE}"))
    effects = earn_as_paid(compiled, receipt(pieces(1, 3, 1000)), None, [PaidLine(1, 0)])
    assert effects.accrual_points_minor == 300


def test_tier_points_of_pieces_count_those_that_cost_something() -> None:
    compiled = rules(listed("id: p, name: P, tier_points: {fixed: 1, per: unit}", f"id: a, {THIRD_FREE}"))
    goods = pieces(1, 3, 1000)
    for lines in ([goods], one_by_one(goods)):
        assert quote(compiled, receipt(*lines), MemberFacts("m")).tier_points_minor == 200


LOAF = line(1, 35000, sku="LOAF", quantity_milli=3500)
LOAVES = line(2, 20000, sku="LOAF", quantity_milli=2000)


@pytest.mark.parametrize(
    ("effect", "lines", "taken"),
    [
        pytest.param(
            "line_discount: {amount: 2.00}, limits: [{at_most: 3, for: receipt}]",
            [LOAF, LOAVES],
            [600, 0],
            id="three pieces are the first three",
        ),
        pytest.param(
            "line_discount: {amount: 2.00}, limits: [{at_most: 4, for: receipt}]",
            [LOAF, LOAVES],
            [700, 0],
            id="the half is the begun fourth",
        ),
        pytest.param(
            "line_discount: {amount: 2.00}, limits: [{at_most: 5, for: receipt}]",
            [LOAF, LOAVES],
            [700, 200],
            id="so that one is left",
        ),
        pytest.param("line_discount: {amount: 2.00}", [LOAF], [700], id="line discounts in proportion"),
        pytest.param("line_discount: {percent: 10}", [LOAF], [3500], id="percents of all"),
        pytest.param("line_discount: {fixed_price: 80.00}", [LOAF], [7000], id="prices of all"),
        pytest.param("units: {every: 4, percent: 100}", [LOAF], [0], id="the half makes no deal"),
        pytest.param("units: {every: 3, percent: 100}", [LOAF], [10000], id="nor does it share in one"),
        pytest.param(
            "when: {basket: {quantity: {at_least: 4}}}, line_discount: {percent: 10}",
            [LOAF],
            [0],
            id="nor is it a piece",
        ),
        pytest.param(
            "when: {basket: {quantity: {at_least: 3}}}, line_discount: {percent: 10}", [LOAF], [3500], id="three are"
        ),
        pytest.param(
            "units: {every: 2, percent: 50}",
            [line(1, 500, quantity_milli=500), line(2, 900, quantity_milli=1500)],
            [0, 0],
            id="halves do not add up",
        ),
        pytest.param(
            "line_discount: {amount: 2.00}, limits: [{at_most: 1, for: receipt}]",
            [line(1, 700, quantity_milli=350, is_weighed=True), line(2, 700, quantity_milli=2350, is_weighed=True)],
            [70, 0],
            id="a weighed line is one unit",
        ),
    ],
)
def test_what_is_not_whole_counts_by_its_whole_pieces(effect: str, lines: list[ReceiptLine], taken: list[int]) -> None:
    compiled = rules(listed(f"id: p, name: P, {effect}"))
    assert discounts(quote(compiled, receipt(*lines), None)) == taken


@pytest.mark.parametrize(
    ("when", "gift", "lines", "taken"),
    [
        pytest.param("receipt_total: {at_least: 500.00}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="total"),
        pytest.param("receipt_total: {at_least: 450.00}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 50_00, id="met"),
        pytest.param(
            "receipt_total: {at_least: 500.00}",
            "{skus: [CHOC]}",
            [(450_00, 1), (50_00, 2)],
            50_00,
            id="one of two counts",
        ),
        pytest.param(
            "receipt_total: {at_least: 500.00}",
            "{skus: [CHOC], quantity: 2}",
            [(450_00, 1), (50_00, 2)],
            50_00,
            id="so many as leave it reached",
        ),
        pytest.param(
            "receipt_total: {at_least: 450.00}",
            "{skus: [CHOC], quantity: 2}",
            [(450_00, 1), (50_00, 2)],
            100_00,
            id="or both",
        ),
        pytest.param(
            "receipt_total: {at_least: 500.00}",
            "{skus: [CHOC], price: 1.00}",
            [(450_00, 1), (50_00, 1)],
            0,
            id="a gift that costs something does not count either",
        ),
        pytest.param(
            "scope_total: {at_least: 500.00}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="total of the scope"
        ),
        pytest.param(
            "basket: {amount: {at_least: 500.00}}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="amount"
        ),
        pytest.param("basket: {quantity: {at_least: 3}}", "{skus: [CHOC]}", [(450_00, 2), (50_00, 1)], 0, id="pieces"),
        pytest.param(
            "basket: {quantity: {at_least: 3}}", "{skus: [CHOC]}", [(450_00, 3), (50_00, 1)], 50_00, id="enough pieces"
        ),
        pytest.param(
            "basket: {categories: {at_least: 2}}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="categories"
        ),
        pytest.param(
            "receipt_total: {below: 500.00}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="it counts for a bound"
        ),
        pytest.param(
            "all: [{receipt_total: {at_least: 500.00}}, {channels: [shop]}]",
            "{skus: [CHOC]}",
            [(450_00, 1), (50_00, 1)],
            0,
            id="among other conditions",
        ),
        pytest.param(
            "not: {receipt_total: {below: 500.00}}", "{skus: [CHOC]}", [(450_00, 1), (50_00, 1)], 0, id="not below"
        ),
        pytest.param(
            "not: {receipt_total: {below: 500.00}}",
            "{skus: [CHOC]}",
            [(450_00, 1), (50_00, 2)],
            50_00,
            id="not below, and reached",
        ),
        pytest.param(
            "not: {receipt_total: {at_least: 500.00}}",
            "{skus: [CHOC]}",
            [(450_00, 1), (50_00, 1)],
            0,
            id="not at least: it counts for a bound",
        ),
        pytest.param(
            "not: {not: {receipt_total: {at_least: 500.00}}}",
            "{skus: [CHOC]}",
            [(450_00, 1), (50_00, 1)],
            0,
            id="not not",
        ),
        pytest.param(
            "not: {any: [{basket: {quantity: {below: 3}}}, {channels: [app]}]}",
            "{skus: [CHOC]}",
            [(450_00, 2), (50_00, 1)],
            0,
            id="not below, among others",
        ),
    ],
)
def test_a_gift_does_not_count_towards_the_threshold_that_gives_it(
    when: str, gift: str, lines: list[tuple[int, int]], taken: int
) -> None:
    goods = [
        pieces(number, units, price, sku)._replace(category=sku)
        for number, ((price, units), sku) in enumerate(zip(lines, ("A", "CHOC"), strict=True), start=1)
    ]
    compiled = rules(listed(f"id: a, name: A, when: {{{when}}}, gift: {gift}"))
    assert quote(compiled, receipt(*goods, channel="shop"), None).discount_minor == taken


@pytest.mark.parametrize(
    "effect",
    [
        "scope: {skus: [CHOC]}, line_discount: {percent: 100}",
        "scope: {skus: [CHOC]}, line_discount: {fixed_price: 0}",
        "line_discount: {prices: {CHOC: 0, TEA: 1.00}}",
        "scope: {skus: [CHOC]}, basket_discount: {percent: 100}",
        "scope: {skus: [CHOC]}, basket_discount: {percent: 100}, limits: [{at_most: 1, for: receipt}]",
    ],
)
def test_goods_that_a_discount_gives_away_are_a_gift_too(effect: str) -> None:
    compiled = rules(listed(f"id: a, name: A, when: {{receipt_total: {{at_least: 500.00}}}}, {effect}"))
    goods = [pieces(1, 1, 450_00, "A"), pieces(2, 1, 50_00, "CHOC")]
    assert quote(compiled, receipt(*goods), None).discount_minor == 0
    goods.append(pieces(3, 1, 50_00, "B"))
    assert quote(compiled, receipt(*goods), None).discount_minor == 50_00


def test_goods_of_a_price_list_that_still_cost_something_count_towards_its_threshold() -> None:
    compiled = rules(
        listed(
            "id: a, name: A, when: {receipt_total: {at_least: 500.00}}, line_discount: {prices: {CHOC: 0, TEA: 1.00}}"
        )
    )
    goods = [pieces(1, 1, 450_00, "A"), pieces(2, 1, 50_00, "TEA"), pieces(3, 1, 50_00, "CHOC")]
    assert quote(compiled, receipt(*goods), None).discount_minor == 99_00


VOUCHER = [line(1, 12000), line(2, 23000), line(3, 30000)]


@pytest.mark.parametrize(
    ("effect", "at_most", "taken"),
    [
        pytest.param("basket_discount: {percent: 15}", "50.00", [923, 1769, 2308], id="a percent off the basket"),
        pytest.param("basket_discount: {amount: 97.50}", "50.00", [923, 1769, 2308], id="an amount off the basket"),
        pytest.param("line_discount: {percent: 15}", "50.00", [923, 1769, 2308], id="a percent off each line"),
        pytest.param("line_discount: {amount: 30.00}", "50.00", [1667, 1667, 1666], id="an amount off each line"),
        pytest.param("units: {every: 3, percent: 50}", "50.00", [5000, 0, 0], id="a deal"),
        pytest.param(
            "set: {parts: [{skus: [sku-1]}, {skus: [sku-2]}], percent: 15}", "35.00", [1200, 2300, 0], id="a set"
        ),
        pytest.param(
            "steps: {by: amount, steps: [{at_least: 1.00, percent: 15}]}", "50.00", [923, 1769, 2308], id="steps"
        ),
    ],
)
def test_money_is_cut_as_a_whole_and_then_spread(effect: str, at_most: str, taken: list[int]) -> None:
    limit = f"limits: [{{at_most: {at_most}, of: money, for: receipt}}]"
    effects = quote(rules(listed(f"id: a, name: A, {effect}, {limit}")), receipt(*VOUCHER), None)
    assert discounts(effects) == taken
    assert [cut.granted for cut in effects.capped] == [sum(taken)]


TWENTY = [line(number, 49, sku="S") for number in range(1, 21)]
AT_ONCE = [line(1, 980, sku="S", quantity_milli=20_000)]
PER_RECEIPT = "earning: {base_percent: 1, rounding_per: receipt}\n"


@pytest.mark.parametrize(
    ("lines", "head", "granted"),
    [
        pytest.param(AT_ONCE, PER_RECEIPT, 10, id="once a receipt, one line"),
        pytest.param(TWENTY, PER_RECEIPT, 10, id="once a receipt, twenty lines"),
        pytest.param(AT_ONCE, "earning: {base_percent: 1}\n", 10, id="once a line, one line"),
        pytest.param(TWENTY, "earning: {base_percent: 1}\n", 0, id="once a line, twenty lines"),
    ],
)
def test_points_are_rounded_once_a_line_or_once_a_receipt(lines: list[ReceiptLine], head: str, granted: int) -> None:
    effects = quote(rules(head), receipt(*lines), SHOPPER)
    assert effects.accrual_points_minor == granted
    assert earn_as_paid(rules(head), receipt(*lines), SHOPPER, as_quoted(effects)) == effects


def test_points_rounded_once_are_spread_by_largest_remainder() -> None:
    effects = quote(rules(PER_RECEIPT), receipt(*TWENTY), SHOPPER)
    assert points(effects) == [1] * 10 + [0] * 10


@pytest.mark.parametrize(
    ("rounding", "points_of_each"),
    [("half_up", [1, 1, 1]), ("down", [1, 1, 0]), ("up", [1, 1, 1])],
)
def test_each_promotion_is_rounded_by_itself(rounding: str, points_of_each: list[int]) -> None:
    head = f"earning: {{base_percent: 0, rounding: {rounding}, rounding_per: receipt}}\n"
    items = ("id: a, name: A, points: {percent: 1}", "id: b, name: B, points: {percent: 1}, tier_points: {percent: 1}")
    effects = quote(rules(head + listed(*items)), receipt(*[line(n, 85) for n in (1, 2, 3)]), SHOPPER)
    assert points(effects) == [2 * one for one in points_of_each], "2.55 points of each"
    assert effects.tier_points_minor == sum(points_of_each)


@pytest.mark.parametrize(
    ("kind", "limit", "granted"),
    [
        pytest.param("percent: 10", "at_most: 5, of: points", [92, 177, 231], id="a percent"),
        pytest.param("fixed: 20, per: receipt", "at_most: 5, of: points", [92, 177, 231], id="once a receipt"),
        pytest.param("fixed: 3, per: line", "at_most: 5, of: points", [167, 167, 166], id="a line"),
    ],
)
def test_points_are_cut_as_a_whole_and_then_spread(kind: str, limit: str, granted: list[int]) -> None:
    item = f"id: a, name: A, points: {{{kind}}}, limits: [{{{limit}, for: receipt}}]"
    assert points(quote(rules(listed(item)), receipt(*VOUCHER), SHOPPER)) == granted


def test_a_free_piece_earns_nothing_for_itself() -> None:
    compiled = rules(listed(f"id: a, {THIRD_FREE}", "id: b, name: B, points: {fixed: 5, per: unit}"))
    three = pieces(1, 3, 1000)
    for lines in ([three], one_by_one(three)):
        assert quote(compiled, receipt(*lines), SHOPPER).accrual_points_minor == 10_00


# --- however goods are keyed -----------------------------------------------------------------------------

EXAMPLES = int(os.environ.get("TALLYPOINT_UNIT_EXAMPLES", "200"))


class Goods(NamedTuple):
    """So many equal pieces of an article, or one weighed line."""

    product: Product
    units: int
    price_minor: int
    floor_minor: int
    is_weighed: bool

    def line(self, number: int, units: int) -> ReceiptLine:
        return ReceiptLine(
            number,
            *self.product,
            350 if self.is_weighed else units * 1000,
            self.price_minor * units,
            self.floor_minor * units,
            self.is_weighed,
        )


goods = st.builds(
    lambda product, units, price, floor, is_weighed: Goods(
        product, 1 if is_weighed else units, price, floor, is_weighed
    ),
    st.sampled_from(PRODUCTS),
    st.integers(1, 7),
    st.sampled_from([100, 1, 2, 33, 250, 999, 1000, 49]) | st.integers(0, 1500),
    st.sampled_from([0, 0, 0, 20, 200, 900]),
    st.sampled_from([False, False, False, False, True]),
)
baskets = st.lists(goods, min_size=1, max_size=4, unique_by=lambda one: one.product)


def keyed_at_once(basket: list[Goods]) -> list[ReceiptLine]:
    """Each article on one line."""
    return [one.line(number, one.units) for number, one in enumerate(basket, start=1)]


def keyed_apart(basket: list[Goods], random: Random) -> list[ReceiptLine]:
    """Each article on lines of some pieces each; the articles begin in the same order."""
    keyed: list[tuple[Goods, int]] = []
    for one in basket:
        begin, left = len(keyed), one.units
        while left:
            units = random.randint(1, left)
            keyed.insert(random.randint(begin + 1, len(keyed)) if left < one.units else begin, (one, units))
            left -= units
    return [one.line(number, units) for number, (one, units) in enumerate(keyed, start=1)]


_OF_DISCOUNTS = ("line_discount", "basket_discount", "deal")
DISCOUNTS = [kept for one in EFFECTS if (kept := {key: one[key] for key in _OF_DISCOUNTS if key in one})]
MANY_SCOPES = [*[None] * 20, *SCOPES[:30]]
THRESHOLDS = [
    *[None] * 24,
    ReceiptTotal(2000),
    ScopeTotal(1500),
    BasketCount("quantity", None, 3),
    BasketCount("amount", None, 1000, 6000),
    CouponShown(frozenset({"s"}), frozenset({"CODE"})),
    OfferMade(),
]
TIES = [{}, {}, *({key: one[key] for key in one if key != "control_share"} for one in CONTROL)]
COUPONS: list[dict[str, Any]] = [{"coupons": ()}, {"coupons": (CouponFact("CODE"),)}]


def _promotion(
    name: str, effect: Any, scope: Any, when: Any, ties: Any, priority: int, rest: FloorRest | None
) -> Promotion:
    return Promotion(name, name, scope, when=when, priority=priority, floor_rest=rest, **{**effect, **ties})


promotions = st.builds(
    _promotion,
    st.sampled_from("abcdef"),
    st.sampled_from(DISCOUNTS),
    st.sampled_from(MANY_SCOPES),
    st.sampled_from(THRESHOLDS),
    st.sampled_from(TIES),
    st.integers(1, 2),
    st.sampled_from([None, None, *FloorRest]),
)
FOR_EACH = Promotion("z", "z", points=Points(PointsFixed(100, "unit")))
programmes = st.builds(
    lambda programme, found: replace(programme, promotions=(*found, FOR_EACH), control_share=Fraction(0)),
    st.sampled_from(PROGRAMMES),
    st.lists(promotions, min_size=2, max_size=4, unique_by=lambda one: one.id),
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(programmes, st.sampled_from(COUPONS), baskets, usages, st.randoms(use_true_random=False))
def test_one_line_of_five_and_five_lines_of_one_cost_the_same(
    programme: Programme, head: dict[str, Any], basket: list[Goods], usage: Usage | None, random: Random
) -> None:
    compiled = compile_rules(programme, 1)
    member = MemberFacts("m", offers=frozenset("ab"))
    goods = ReceiptFacts("store-1", NOON, keyed_at_once(basket), **head)
    at_once = quote(compiled, goods, member, usage=usage)
    apart = quote(compiled, goods._replace(lines=keyed_apart(basket, random)), member, usage=usage)
    assert apart.payable_minor == at_once.payable_minor
    assert by_promotion(apart) == by_promotion(at_once)
    assert apart.shared == at_once.shared
    assert apart.capped == at_once.capped
    assert _for_each(apart) == _for_each(at_once)


def _for_each(effects: Effects) -> int:
    """The points that every piece that costs something earns."""
    return sum(row[2] for line in effects.lines for row in line.accruals if row[0] == FOR_EACH.id)
