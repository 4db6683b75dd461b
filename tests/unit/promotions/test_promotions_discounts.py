"""Line and basket discounts: every number of the specification, one case a line."""

from __future__ import annotations

from datetime import date

import pytest

from server.promotions import Programme, ReceiptLine, compile_rules, load_programme, quote
from tests.unit.promotions.builders import A20, HEAD, POINT, SHOPPER, discounts, line, promotions, receipt, rules

WEIGHED = line(1, 1250, quantity_milli=1250, is_weighed=True)
THREE = line(1, 30000, quantity_milli=3000)


@pytest.mark.parametrize(
    ("effect", "on_line", "taken"),
    [
        pytest.param("percent: 10", line(1, 20000), 2000, id="percent"),
        pytest.param("percent: 12.5", line(1, 1004), 126, id="half a unit is rounded up"),
        pytest.param("amount: 0.50", THREE, 150, id="amount off each of three"),
        pytest.param("amount: 0.50", WEIGHED, 63, id="amount off each kilogram"),
        pytest.param("fixed_price: 80.00", THREE, 6000, id="fixed price of three"),
        pytest.param("fixed_price: 150.00", THREE, 0, id="a higher fixed price takes nothing"),
        pytest.param("percent: 100", line(1, 999), 999, id="free"),
        pytest.param("amount: 99.00", line(1, 999), 999, id="no more than the price"),
        pytest.param("percent: 10", line(1, 0), 0, id="goods without a price"),
    ],
)
def test_line_discount(effect: str, on_line: ReceiptLine, taken: int) -> None:
    effects = quote(rules(promotions(f"id: p, name: P, line_discount: {{{effect}}}")), receipt(on_line), None)
    assert effects.discount_minor == taken
    assert effects.lines[0].payable_minor == on_line.list_amount_minor - taken


@pytest.mark.parametrize(
    ("amounts", "effect", "parts"),
    [
        pytest.param((20000, 20000, 10000), "amount: 100.00", [4000, 4000, 2000], id="100 over 200+200+100"),
        pytest.param((100, 100, 100), "amount: 1.00", [34, 33, 33], id="the cent goes to the earlier line"),
        pytest.param((333, 333, 334), "percent: 10", [33, 33, 34], id="percent of the sum, spread"),
        pytest.param((300, 200), "amount: 50.00", [300, 200], id="no more than the basket"),
        pytest.param((0, 200), "amount: 1.00", [0, 100], id="a free line takes nothing"),
    ],
)
def test_basket_discount(amounts: tuple[int, ...], effect: str, parts: list[int]) -> None:
    compiled = rules(promotions(f"id: p, name: P, basket_discount: {{{effect}}}"))
    assert discounts(quote(compiled, receipt(*amounts), None)) == parts


TSHIRT = line(1, 5000, floor_amount_minor=4500)
MUG = line(2, 2000)
AT_ONCE = "set: {parts: [{skus: [sku-1]}, {skus: [sku-2]}], "


@pytest.mark.parametrize(
    ("effect", "taken"),
    [
        pytest.param("basket_discount: {amount: 20.00}", [500, 1500], id="an amount goes where there is room"),
        pytest.param("basket_discount: {amount: 20.00}, floor_rest: lost", [500, 571], id="unless it may be lost"),
        pytest.param("basket_discount: {percent: 20}", [500, 400], id="a percent is lost"),
        pytest.param("basket_discount: {percent: 20}, floor_rest: spread", [500, 900], id="unless it goes on"),
        pytest.param("basket_discount: {amount: 90.00}", [500, 2000], id="no more than there is room"),
        pytest.param(AT_ONCE + "price: 50.00}", [500, 1500], id="a set's price holds"),
        pytest.param(AT_ONCE + "price: 50.00}, floor_rest: lost", [500, 571], id="unless it is said"),
        pytest.param(AT_ONCE + "percent: 20}", [500, 400], id="a percent off a set is lost"),
        pytest.param(AT_ONCE + "amount: 20.00}", [500, 1500], id="an amount off a set is not"),
        pytest.param(
            "steps: {by: amount, steps: [{at_least: 1.00, amount: 20.00}]}", [500, 1500], id="an amount in steps"
        ),
        pytest.param("steps: {by: amount, steps: [{at_least: 1.00, percent: 20}]}", [500, 400], id="percents in steps"),
        pytest.param(
            "units: {every: 2, percent: 100, falls_on: whole_deal}", [500, 571], id="a percent off the whole deal"
        ),
        pytest.param(
            "units: {every: 2, price: 0, falls_on: whole_deal}", [500, 1500], id="a price spread over the whole deal"
        ),
    ],
)
def test_what_a_lowest_price_cuts_off_goes_to_other_goods_or_is_lost(effect: str, taken: list[int]) -> None:
    effects = quote(rules(promotions(f"id: p, name: P, {effect}")), receipt(TSHIRT, MUG), None)
    assert discounts(effects) == taken
    assert effects.lines[0].floor_cut_minor > 0, "reported either way"
    assert effects.lines[1].floor_cut_minor == 0 or effects.lines[1].payable_minor == 0


@pytest.mark.parametrize(("semantics", "taken"), [(0, [500, 571]), (1, [500, 1500])], ids=["old", "new"])
def test_versions_published_long_ago_keep_what_they_did_with_floors(semantics: int, taken: list[int]) -> None:
    text = HEAD + POINT + promotions("id: p, name: P, basket_discount: {amount: 20.00}")
    loaded = load_programme(text, semantics=semantics)
    assert isinstance(loaded, Programme)
    effects = quote(compile_rules(loaded, 1), receipt(TSHIRT, MUG), None)
    assert discounts(effects) == taken
    assert dict(effects.settings)["floor_rest"] == ("spread" if semantics else "lost")


@pytest.mark.parametrize(
    ("floor", "taken", "cut"),
    [
        pytest.param(0, 5000, 0, id="no floor"),
        pytest.param(8000, 2000, 3000, id="floor cuts"),
        pytest.param(12000, 0, 5000, id="a floor above the price takes the whole discount"),
    ],
)
def test_price_floor_on_a_line(floor: int, taken: int, cut: int) -> None:
    compiled = rules(promotions("id: p, name: P, line_discount: {percent: 50}"))
    effects = quote(compiled, receipt(line(1, 10000, floor_amount_minor=floor)), None)
    assert (effects.discount_minor, effects.lines[0].floor_cut_minor) == (taken, cut)


B10 = "id: b, name: B, line_discount: {percent: 10}"


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        pytest.param((A20, B10), {"a": 2000, "b": 800}, id="stack on what remains, by id"),
        pytest.param((B10 + ", priority: 1", A20), {"b": 1000, "a": 1800}, id="the smaller priority first"),
        pytest.param(
            (A20, "id: b, name: B, line_discount: {percent: 10, base: list}"),
            {"a": 2000, "b": 1000},
            id="base list",
        ),
        pytest.param((A20 + ", group: g", B10 + ", group: g"), {"a": 2000}, id="the best of a group"),
        pytest.param((B10 + ", group: g, priority: 1", A20 + ", group: g"), {"a": 2000}, id="best beats priority"),
        pytest.param(
            ("id: c, name: C, group: g, line_discount: {amount: 20.00}", A20 + ", group: g"),
            {"a": 2000},
            id="a tie in a group goes by id",
        ),
        pytest.param(
            ("id: c, name: C, group: g, priority: 1, line_discount: {amount: 20.00}", A20 + ", group: g"),
            {"c": 2000},
            id="a tie in a group goes by priority first",
        ),
        pytest.param((A20 + ", exclusive: true", B10), {"a": 2000}, id="exclusive stands alone"),
        pytest.param((A20, B10 + ", exclusive: true"), {"a": 2000}, id="unless the others give more"),
        pytest.param(
            ("id: c, name: C, exclusive: true, line_discount: {amount: 28.00}", A20, B10),
            {"a": 2000, "b": 800},
            id="a tie with an exclusive goes by rank",
        ),
        pytest.param(
            (A20 + ", group: g", B10 + ", group: g", "id: c, name: C, line_discount: {percent: 50}"),
            {"a": 2000, "c": 4000},
            id="a group stacks with others",
        ),
    ],
)
def test_stacking_on_a_line(items: tuple[str, ...], taken: dict[str, int]) -> None:
    effects = quote(rules(promotions(*items)), receipt(10000), None)
    assert {d.promotion_id: d.amount_minor for d in effects.lines[0].discounts} == taken


BASKET_A = "id: a, name: A, basket_discount: {percent: 20}"
BASKET_B = "id: b, name: B, basket_discount: {amount: 10.00}"


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        pytest.param((BASKET_A, BASKET_B), 3000, id="stack"),
        pytest.param((BASKET_A + ", group: g", BASKET_B + ", group: g"), 2000, id="best of a group"),
        pytest.param((BASKET_A, BASKET_B + ", exclusive: true"), 2000, id="the others give more"),
        pytest.param((BASKET_A + ", exclusive: true", BASKET_B), 2000, id="exclusive gives more"),
        pytest.param((B10, BASKET_A), 1000 + 1800, id="on what remains after line discounts"),
        pytest.param((B10, "id: a, name: A, basket_discount: {percent: 20, base: list}"), 3000, id="on list prices"),
        pytest.param((B10 + ", exclusive: true", BASKET_A), 1000, id="an exclusive line is left alone"),
        pytest.param((B10, BASKET_A + ", exclusive: true"), 1000, id="an exclusive basket takes only bare lines"),
    ],
)
def test_stacking_on_the_basket(items: tuple[str, ...], taken: int) -> None:
    assert quote(rules(promotions(*items)), receipt(10000), None).discount_minor == taken


@pytest.mark.parametrize(
    ("when", "amounts", "applies"),
    [
        pytest.param("receipt_total: {at_least: 100.00}", (5000, 5000), True, id="reached"),
        pytest.param("receipt_total: {at_least: 100.00}", (5000, 4999), False, id="one unit short"),
        pytest.param("receipt_total: {below: 100.00}", (5000, 4999), True, id="below"),
        pytest.param("receipt_total: {below: 100.00}", (5000, 5000), False, id="not below"),
        pytest.param("any: [{receipt_total: {below: 1.00}}, {receipt_total: {at_least: 50.00}}]", (6000,), True),
        pytest.param("not: {receipt_total: {at_least: 50.00}}", (6000,), False, id="not"),
        pytest.param("receipt_total: {at_least: 50.00}, birthday: {days_before: 7}", (6000,), False, id="all of two"),
        pytest.param("all: [{receipt_total: {at_least: 50.00}}]", (6000,), True, id="all"),
    ],
)
@pytest.mark.parametrize("effect", ["line_discount: {percent: 10}", "basket_discount: {percent: 10}"])
def test_conditions(effect: str, when: str, amounts: tuple[int, ...], applies: bool) -> None:
    compiled = rules(promotions(f"id: p, name: P, when: {{{when}}}, {effect}"))
    assert bool(quote(compiled, receipt(*amounts), SHOPPER).discount_minor) is applies


def test_a_basket_threshold_looks_at_the_total_after_line_discounts() -> None:
    compiled = rules(
        promotions(B10, "id: p, name: P, when: {receipt_total: {at_least: 100.00}}, basket_discount: {amount: 5}")
    )
    assert quote(compiled, receipt(11111), None).discount_minor == 1111 + 500
    assert quote(compiled, receipt(11110), None).discount_minor == 1111


def test_scope_total_counts_goods_in_scope_that_are_not_excluded() -> None:
    compiled = rules(
        "exclusions: {no_discount: {tags: [regulated]}}\n"
        + promotions(
            "id: p, name: P, scope: {categories: [dairy]}, when: {scope_total: {at_least: 10.00}},"
            " basket_discount: {amount: 1.00}"
        )
    )
    cheese, milk = line(1, 900, category="dairy/cheese"), line(2, 200, category="dairy/milk")
    regulated = milk._replace(tags=("regulated",))
    assert discounts(quote(compiled, receipt(cheese, milk, line(3, 5000)), None)) == [82, 18, 0]
    assert quote(compiled, receipt(cheese, regulated, line(3, 5000)), None).discount_minor == 0


CAKE = line(1, 1000, sku="cake", category="bakery/cakes", brand="Sweet", tags=("fresh", "local"))


@pytest.mark.parametrize(
    ("scope", "covers"),
    [
        pytest.param("skus: [cake]", True, id="sku"),
        pytest.param("skus: [pie]", False, id="another sku"),
        pytest.param("categories: [bakery]", True, id="a category covers everything below"),
        pytest.param("categories: [bakery/cakes]", True, id="the category itself"),
        pytest.param("categories: [bak]", False, id="not by spelling"),
        pytest.param("categories: [bakery/cakes/cream]", False, id="not upwards"),
        pytest.param("brands: Sweet", True, id="one word instead of a list"),
        pytest.param("tags: [local, imported]", True, id="any entry of a list"),
        pytest.param("categories: [bakery], brands: [Sour], match: all", False, id="all lists"),
        pytest.param("categories: [bakery], brands: [Sweet], match: all", True, id="all lists fit"),
        pytest.param("skus: [pie], tags: [fresh], match: any", True, id="any list"),
        pytest.param("categories: [bakery], except: {tags: [local]}", False, id="except"),
        pytest.param("except: {skus: [pie]}", True, id="everything except"),
        pytest.param("except: {skus: [cake]}", False, id="everything except this"),
    ],
)
@pytest.mark.parametrize("effect", ["line_discount: {percent: 10}", "basket_discount: {percent: 10}"])
def test_scope(effect: str, scope: str, covers: bool) -> None:
    compiled = rules(promotions(f"id: p, name: P, scope: {{{scope}}}, {effect}"))
    assert bool(quote(compiled, receipt(CAKE), None).discount_minor) is covers


@pytest.mark.parametrize(
    ("on", "applies"),
    [("2026-02-28", False), ("2026-03-01", True), ("2026-03-31", True), ("2026-04-01", False)],
)
def test_dates_are_inclusive(on: str, applies: bool) -> None:
    compiled = rules(
        promotions("id: p, name: P, valid: {from: 2026-03-01, until: 2026-03-31}, line_discount: {percent: 1}")
    )
    effects = quote(compiled, receipt(10000, on=date.fromisoformat(on)), None)
    assert bool(effects.discount_minor) is applies


def test_one_compiled_version_follows_the_calendar() -> None:
    compiled = rules(
        promotions("id: p, name: P, valid: {from: 2026-03-02, until: 2026-03-02}, line_discount: {percent: 1}")
    )
    taken = [quote(compiled, receipt(100, on=date(2026, 3, day)), None).discount_minor for day in (1, 2, 3, 2, 1)]
    assert taken == [0, 1, 0, 1, 0]


def test_excluded_goods_get_no_discount_and_take_no_part_of_the_baskets() -> None:
    compiled = rules(
        "exclusions: {no_discount: {tags: [tobacco]}}\n"
        + promotions(A20, "id: p, name: P, basket_discount: {amount: 10.00}")
    )
    effects = quote(compiled, receipt(line(1, 10000, tags=("tobacco",)), 10000), None)
    assert discounts(effects) == [0, 3000]


def test_messages_come_from_promotions_that_had_an_effect() -> None:
    compiled = rules(
        promotions(
            B10 + ", priority: 2, messages: {receipt: b, cashier: hello}",
            "id: z, name: Z, line_discount: {percent: 1}, messages: {voice: z}, priority: 1",
            "id: q, name: Q, scope: {skus: [none]}, line_discount: {percent: 1}, messages: {voice: q}",
        )
    )
    effects = quote(compiled, receipt(10000), None)
    assert [(m.audience.value, m.promotion_id, m.text) for m in effects.messages] == [
        ("voice", "z", "z"),
        ("cashier", "b", "hello"),
        ("receipt", "b", "b"),
    ]
