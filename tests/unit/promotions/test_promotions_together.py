"""Deals among line discounts, steps among basket discounts, lists of prices, and what happens when they are rivals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from server.promotions import (
    AmountOff,
    BasketCount,
    Exclusions,
    FixedPrice,
    Gift,
    LineDiscount,
    PercentOff,
    PriceList,
    Promotion,
    ReceiptLine,
    ReceiptTotal,
    Selector,
    SetDeal,
    SetPart,
    Step,
    Steps,
    UnitDeal,
    earn_as_paid,
    quote,
)
from tests.unit.promotions.builders import (
    SHOPPER,
    TEN_OFF_BASKET,
    TEN_OFF_LINES,
    as_quoted,
    by_promotion,
    discounts,
    line,
    promo,
    receipt,
    rules_of,
    skus,
)

FREE = PercentOff(Fraction(1))
HALF = PercentOff(Fraction(1, 2))
HALF_OFF_LINES = LineDiscount(HALF)
TWO_FOR_ONE = UnitDeal(2, 1, FREE)
CAKE, TEA, MILK = line(1, 1000, sku="cake"), line(2, 600, sku="tea"), line(3, 400, sku="milk")
TAGGED = line(4, 900, sku="tobacco", tags=("tobacco",))
ALL_THREE = (CAKE, TEA, MILK)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        pytest.param({"deal": UnitDeal(3, 1, FREE)}, [0, 0, 400], id="3 for 2"),
        pytest.param({"deal": UnitDeal(2, 1, HALF)}, [0, 0, 200], id="every second at half price, the cheapest of all"),
        pytest.param({"deal": UnitDeal(3, 1, FixedPrice(1))}, [0, 0, 399], id="the third for 0.01"),
        pytest.param({"deal": UnitDeal(3, 1, FREE), "scope": skus("cake", "tea")}, [0, 0, 0], id="too few in scope"),
        pytest.param(
            {"deal": SetDeal((SetPart(skus("cake"), 1), SetPart(skus("tea", "milk"), 1)), FixedPrice(1200))},
            [250, 150, 0],
            id="a cake and a drink for 12.00",
        ),
        pytest.param(
            {"deal": SetDeal((SetPart(skus("cake"), 1), SetPart(skus("beer"), 1)), FixedPrice(1))},
            [0, 0, 0],
            id="half a set",
        ),
        pytest.param({"deal": Gift(skus("milk")), "scope": skus("cake")}, [0, 0, 400], id="milk free with a cake"),
        pytest.param({"deal": Gift(skus("milk")), "scope": skus("beer")}, [0, 0, 0], id="no gift without the goods"),
        pytest.param(
            {"deal": Gift(skus("milk"), unit_price_minor=100), "when": ReceiptTotal(at_least_minor=1600)},
            [0, 0, 300],
            id="milk for 1.00 from 16.00 on, which the milk is not part of",
        ),
        pytest.param(
            {"deal": Gift(skus("milk")), "when": ReceiptTotal(at_least_minor=1601)}, [0, 0, 0], id="one short"
        ),
        pytest.param(
            {"deal": Steps("amount", (Step(1000, AmountOff(100)), Step(2000, AmountOff(300))))},
            [150, 90, 60],
            id="whole steps by amount",
        ),
        pytest.param(
            {"deal": Steps("quantity", (Step(3, PercentOff(Fraction(1, 10))),))}, [100, 60, 40], id="steps by quantity"
        ),
        pytest.param(
            {
                "deal": Steps(
                    "amount", (Step(0, PercentOff(Fraction(0))), Step(1000, PercentOff(Fraction(1, 10)))), marginal=True
                )
            },
            [50, 30, 20],
            id="marginal: 10 % of what is above 10.00",
        ),
        pytest.param(
            {"line_discount": LineDiscount(PriceList({"cake": 800, "tea": 700, "beer": 1}))}, [200, 0, 0], id="prices"
        ),
    ],
)
def test_deals_and_lists(fields: dict[str, Any], taken: list[int]) -> None:
    rules = rules_of(promo(**fields))
    effects = quote(rules, receipt(*ALL_THREE), SHOPPER)
    assert discounts(effects) == taken
    assert earn_as_paid(rules, receipt(*ALL_THREE), SHOPPER, as_quoted(effects)) == effects


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        pytest.param(
            (promo("a", line_discount=HALF_OFF_LINES, scope=skus("cake")), promo("b", deal=UnitDeal(3, 1, FREE))),
            {"a": 500, "b": 400},
            id="a deal sees prices after the line discounts before it",
        ),
        pytest.param(
            (promo("a", line_discount=HALF_OFF_LINES, scope=skus("tea")), promo("b", deal=UnitDeal(3, 1, FREE))),
            {"a": 300, "b": 300},
            id="so another unit may be the cheapest",
        ),
        pytest.param(
            (promo("b", line_discount=HALF_OFF_LINES), promo("a", deal=UnitDeal(3, 1, FREE))),
            {"a": 400, "b": 800},
            id="a line discount after a deal takes its part of what remains",
        ),
        pytest.param(
            (promo("a", deal=TWO_FOR_ONE), promo("b", deal=UnitDeal(3, 1, FREE))),
            {"a": 400},
            id="free units do not take part in the next deal",
        ),
        pytest.param(
            (promo("a", deal=UnitDeal(3, 1, FREE)), promo("b", basket_discount=TEN_OFF_BASKET)),
            {"a": 400, "b": 160},
            id="baskets come after deals",
        ),
        pytest.param(
            (
                promo("a", basket_discount=TEN_OFF_BASKET),
                promo("b", deal=Steps("amount", (Step(1801, AmountOff(500)), Step(1800, AmountOff(300))))),
            ),
            {"a": 200, "b": 300},
            id="steps look at what the baskets before them left",
        ),
    ],
)
def test_by_rank(items: tuple[Promotion, ...], taken: dict[str, int]) -> None:
    assert by_promotion(quote(rules_of(*items), receipt(*ALL_THREE), SHOPPER)) == taken


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        pytest.param(
            (promo("a", deal=UnitDeal(3, 1, FREE), group="g"), promo("b", line_discount=TEN_OFF_LINES, group="g")),
            {"a": 400},
            id="of a group the deal gives more",
        ),
        pytest.param(
            (promo("a", deal=UnitDeal(3, 1, FREE), group="g"), promo("b", line_discount=HALF_OFF_LINES, group="g")),
            {"b": 1000},
            id="of a group the lines give more",
        ),
        pytest.param(
            (
                promo("a", deal=TWO_FOR_ONE, group="g", scope=skus("tea", "milk")),
                promo("b", line_discount=TEN_OFF_LINES, group="g"),
            ),
            {"a": 400, "b": 100},
            id="the deal has its lines, the rival the others",
        ),
        pytest.param(
            (promo("a", deal=TWO_FOR_ONE, group="g"), promo("b", deal=UnitDeal(3, 2, FREE), group="g")),
            {"b": 1000},
            id="the better of two deals",
        ),
        pytest.param(
            (promo("a", deal=UnitDeal(3, 1, FREE), exclusive=True), promo("b", line_discount=TEN_OFF_LINES)),
            {"a": 400},
            id="an exclusive deal alone",
        ),
        pytest.param(
            (promo("a", deal=UnitDeal(3, 1, FREE), exclusive=True), promo("b", line_discount=HALF_OFF_LINES)),
            {"b": 1000},
            id="unless the others give more",
        ),
        pytest.param(
            (
                promo("a", deal=UnitDeal(3, 1, FREE)),
                promo("b", line_discount=HALF_OFF_LINES, exclusive=True, scope=skus("cake")),
            ),
            {"b": 500},
            id="an exclusive line keeps the deal away",
        ),
        pytest.param(
            (
                promo("a", deal=UnitDeal(3, 1, FREE), exclusive=True),
                promo("b", basket_discount=TEN_OFF_BASKET),
            ),
            {"a": 400, "b": 160},
            id="the lines that an exclusive deal discounted are left alone",
        ),
        pytest.param(
            (
                promo("a", deal=UnitDeal(3, 1, FREE), group="g"),
                promo("b", line_discount=LineDiscount(AmountOff(400)), group="g", scope=skus("cake")),
            ),
            {"b": 400},
            id="a tie goes to the line discounts",
        ),
    ],
)
def test_rivals(items: tuple[Promotion, ...], taken: dict[str, int]) -> None:
    effects = quote(rules_of(*items), receipt(*ALL_THREE), SHOPPER)
    assert by_promotion(effects) == taken
    assert quote(rules_of(*reversed(items)), receipt(*reversed(ALL_THREE)), SHOPPER) == effects


@pytest.mark.parametrize(
    ("lines", "taken", "cuts"),
    [
        pytest.param((CAKE, TEA, MILK._replace(floor_amount_minor=300)), [0, 0, 100], [0, 0, 300], id="the floor cuts"),
        pytest.param((CAKE, TEA, MILK._replace(floor_amount_minor=900)), [0, 0, 0], [0, 0, 400], id="floor above it"),
    ],
)
def test_no_deal_goes_below_a_floor(lines: tuple[ReceiptLine, ...], taken: list[int], cuts: list[int]) -> None:
    effects = quote(rules_of(promo(deal=UnitDeal(3, 1, FREE))), receipt(*lines), SHOPPER)
    assert discounts(effects) == taken
    assert [entry.floor_cut_minor for entry in effects.lines] == cuts


def test_excluded_goods_are_no_part_of_deals() -> None:
    exclusions = Exclusions(no_discount=Selector(tags=frozenset({"tobacco"})))
    rules = rules_of(
        promo("a", deal=TWO_FOR_ONE),
        promo("b", deal=Gift(skus("tobacco"))),
        promo("c", when=BasketCount("quantity", at_least=2), line_discount=TEN_OFF_LINES),
        exclusions=exclusions,
    )
    assert quote(rules, receipt(CAKE, TAGGED), SHOPPER).discount_minor == 0


def test_weighed_goods_are_one_unit_of_a_deal() -> None:
    cheese = line(2, 3000, quantity_milli=3000, is_weighed=True)
    assert discounts(quote(rules_of(promo(deal=TWO_FOR_ONE)), receipt(CAKE, cheese), SHOPPER)) == [1000, 0]


def test_units_of_one_line_are_treated_differently() -> None:
    five = line(1, 1000, quantity_milli=5000)
    assert discounts(quote(rules_of(promo(deal=TWO_FOR_ONE)), receipt(five), SHOPPER)) == [400]


def test_a_list_of_prices_finds_each_article() -> None:
    rules = rules_of(
        promo("club", line_discount=LineDiscount(PriceList({f"sku-{n}": 100 * n for n in range(1, 50)}))),
        promo("z", line_discount=TEN_OFF_LINES),
    )
    effects = quote(rules, receipt(1000, 1000, 1000), SHOPPER)
    assert [entry.payable_minor for entry in effects.lines] == [90, 180, 270]
