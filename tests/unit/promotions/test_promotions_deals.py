"""The arithmetic of n for m, sets, gifts and steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions.criteria import Selector
from server.promotions.deals import (
    MAX_SET_PARTS,
    DealOutcome,
    LineUnits,
    gift,
    set_deal,
    steps_discount_minor,
    unit_deal,
    units_to_next_deal,
    units_to_next_gift,
    units_to_next_set,
)
from server.promotions.model import (
    AmountOff,
    Choice,
    FallsOn,
    FixedPrice,
    Gift,
    PercentOff,
    SetDeal,
    SetPart,
    Step,
    Steps,
    UnitDeal,
)

ANY = Selector()
FREE = PercentOff(Fraction(1))
HALF = PercentOff(Fraction(1, 2))
TENTH = PercentOff(Fraction(1, 10))
THREE_FOR_TWO = UnitDeal(3, 1, FREE)


def goods(*lines: int | tuple[int, int]) -> list[LineUnits]:
    """Lines in order: one unit of a price, or (price of the whole line, units)."""
    return [LineUnits(i, *(line if isinstance(line, tuple) else (line, 1))) for i, line in enumerate(lines)]


def parts(*quantities: int) -> tuple[SetPart, ...]:
    """So many units of each part; which lines fit is said apart."""
    return tuple(SetPart(ANY, quantity) for quantity in quantities)


# --- n for m ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deal", "lines", "deals", "discounts"),
    [
        pytest.param(THREE_FOR_TWO, [500, 500], 0, {}, id="two of three are not enough"),
        pytest.param(THREE_FOR_TWO, [700, 500, 600], 1, {1: 500}, id="the cheapest of three is free"),
        pytest.param(THREE_FOR_TWO, [(3000, 3)], 1, {0: 1000}, id="three of one line"),
        pytest.param(THREE_FOR_TWO, [(1000, 3)], 1, {0: 333}, id="10.00 for three units is 3.34 3.33 3.33"),
        pytest.param(THREE_FOR_TWO, [500, 500, 500], 1, {2: 500}, id="of equals the last is free"),
        pytest.param(THREE_FOR_TWO, [(3000, 3), 500, 500], 1, {2: 500}, id="five units make one deal"),
        pytest.param(THREE_FOR_TWO, [(3000, 3), 500, 500, 400], 2, {2: 500, 3: 400}, id="the two cheapest of six"),
        pytest.param(
            UnitDeal(3, 1, FREE, Choice.CHEAPEST_OF_EACH),
            [(3000, 3), 500, 500, 400],
            2,
            {0: 1000, 3: 400},
            id="the cheapest of each three of six",
        ),
        pytest.param(
            UnitDeal(3, 1, FREE, Choice.DEAREST), [(3000, 3), 500, 500, 400], 2, {0: 2000}, id="the dearest two of six"
        ),
        pytest.param(UnitDeal(2, 1, HALF), [1000, 301], 1, {1: 151}, id="the second at half price, half up"),
        pytest.param(UnitDeal(2, 1, HALF), [(1001, 2)], 1, {0: 250}, id="half of 5.00, the cheaper unit of 10.01"),
        pytest.param(UnitDeal(5, 2, FREE), [100, 200, 300, 400, 500], 1, {0: 100, 1: 200}, id="five for three"),
        pytest.param(UnitDeal(2, 1, FixedPrice(99)), [1000, 500], 1, {1: 401}, id="the second for 0.99"),
        pytest.param(UnitDeal(2, 1, FixedPrice(600)), [1000, 500], 0, {}, id="a price above its own is no deal"),
        pytest.param(UnitDeal(2, 1, AmountOff(200)), [1000, 500], 1, {1: 200}, id="2.00 off the second"),
        pytest.param(UnitDeal(2, 1, AmountOff(200)), [1000, 150], 1, {1: 150}, id="never more than it costs"),
        pytest.param(UnitDeal(2, 1, FREE, most_deals=1), [(4000, 4)], 1, {0: 1000}, id="one deal at most"),
        pytest.param(UnitDeal(1, 1, TENTH), [1000, (999, 3)], 4, {0: 100, 1: 99}, id="each unit is rounded by itself"),
        pytest.param(THREE_FOR_TWO, [0, 500, 600], 0, {}, id="what costs nothing is no unit"),
        pytest.param(THREE_FOR_TWO, [(1, 3), 500, 600], 1, {0: 1}, id="a cent for three units is one unit"),
        pytest.param(
            UnitDeal(3, 1, FREE, falls_on=FallsOn.WHOLE_DEAL),
            [20000, 20000, 10000],
            1,
            {0: 4000, 1: 4000, 2: 2000},
            id="100.00 over 200.00 + 200.00 + 100.00",
        ),
        pytest.param(
            UnitDeal(3, 1, FREE, falls_on=FallsOn.WHOLE_DEAL),
            [500, 500, 500, 100],
            1,
            {0: 46, 1: 45, 3: 9},
            id="a unit left over carries nothing",
        ),
    ],
)
def test_units_of_a_deal(
    deal: UnitDeal, lines: Sequence[int | tuple[int, int]], deals: int, discounts: dict[int, int]
) -> None:
    made = unit_deal(deal, goods(*lines))
    assert (made.deals, dict(made.discounts)) == (deals, discounts)


def test_a_limit_leaves_fewer_deals_and_says_what_there_would_be() -> None:
    made = unit_deal(UnitDeal(2, 1, FREE, Choice.CHEAPEST_OF_EACH), goods(900, 800, 500, 400), most=1)
    assert (made.deals, made.wanted_deals, dict(made.discounts), dict(made.units)) == (1, 2, {1: 800}, {0: 1, 1: 1})
    assert unit_deal(UnitDeal(2, 1, FREE), goods(900, 800), most=0) == DealOutcome(wanted_deals=1)


# --- sets -------------------------------------------------------------------------------------------------

SOUP, MAIN, DRINK = {0, 1}, {2, 3}, {4}


@pytest.mark.parametrize(
    ("deal", "lines", "fits", "deals", "discounts"),
    [
        pytest.param(
            SetDeal(parts(1, 1), FixedPrice(1000)), [900, 500], [{0}, {1}], 1, {0: 257, 1: 143}, id="two for 10.00"
        ),
        pytest.param(SetDeal(parts(1, 1), FixedPrice(1000)), [400, 500], [{0}, {1}], 0, {}, id="dearer than its parts"),
        pytest.param(SetDeal(parts(1, 1), FixedPrice(900)), [400, 500], [{0}, {1}], 0, {}, id="as dear as its parts"),
        pytest.param(SetDeal(parts(1, 1), HALF), [400], [{0}, set()], 0, {}, id="a part is missing"),
        pytest.param(
            SetDeal(parts(1, 1), FixedPrice(1000)),
            [(1800, 2), 500, 300],
            [{0}, {1, 2}],
            2,
            {0: 416, 1: 115, 2: 69},
            id="two sets",
        ),
        pytest.param(
            SetDeal(parts(1, 1), FixedPrice(1000)),
            [(1800, 2), 500, 50],
            [{0}, {1, 2}],
            1,
            {0: 257, 1: 143},
            id="a second set that would be dearer is not made",
        ),
        pytest.param(
            SetDeal(parts(1, 1, 1), AmountOff(300)),
            [400, 500, 900, 800, 200],
            [SOUP, MAIN, DRINK],
            1,
            {1: 94, 2: 169, 4: 37},
            id="choice groups: the dearest soup and main dish",
        ),
        pytest.param(
            SetDeal(parts(1, 1), TENTH),
            [900, 500],
            [{0, 1}, {0}],
            1,
            {0: 90, 1: 50},
            id="the only unit of a part is kept for it",
        ),
        pytest.param(
            SetDeal(parts(2, 1), FREE), [(900, 3), 100], [{0, 1}, {0}], 1, {0: 900}, id="the dearest, if they may"
        ),
        pytest.param(
            SetDeal(parts(1, 1), HALF, falls_on_part=1),
            [900, 500, (500, 5)],
            [{0, 1, 2}, {0, 1, 2}],
            3,
            {2: 150},
            id="the part that comes first takes the dearer ones",
        ),
        pytest.param(
            SetDeal(parts(1, 1), HALF, falls_on_part=1),
            [900, 500],
            [{0, 1}, {0}],
            1,
            {0: 450},
            id="unless only they fit the other part",
        ),
        pytest.param(
            SetDeal(parts(1, 1), FixedPrice(500), falls_on_part=1),
            [900, 300],
            [{0}, {1}],
            1,
            {1: 300},
            id="a part carries no more than it costs",
        ),
        pytest.param(
            SetDeal(parts(1, 1), AmountOff(100), most_deals=2),
            [(900, 3), 900, (900, 3)],
            [{0}, {1, 2}],
            2,
            {0: 67, 1: 100, 2: 33},
            id="two sets at most",
        ),
        pytest.param(
            SetDeal(parts(2), PercentOff(Fraction(1, 3))),
            [100, 100, 100],
            [{0, 1, 2}],
            1,
            {0: 34, 1: 33},
            id="rounded once",
        ),
    ],
)
def test_sets(
    deal: SetDeal,
    lines: Sequence[int | tuple[int, int]],
    fits: Sequence[set[int]],
    deals: int,
    discounts: dict[int, int],
) -> None:
    made = set_deal(deal, goods(*lines), fits)
    assert (made.deals, dict(made.discounts)) == (deals, discounts)


def test_a_set_of_too_many_parts_is_refused() -> None:
    count = MAX_SET_PARTS + 1
    with pytest.raises(ValueError, match=f"has {count} parts"):
        set_deal(SetDeal(parts(*[1] * count), HALF), goods(100), [{0}] * count)


# --- gifts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deal", "gifts", "bought", "deals", "discounts"),
    [
        pytest.param(Gift(ANY), [700, 500], [], 1, {1: 500}, id="the cheapest is the gift"),
        pytest.param(Gift(ANY, quantity=2), [700, 500, 600], [], 1, {1: 500, 2: 600}, id="two gifts"),
        pytest.param(Gift(ANY, quantity=2), [700], [], 1, {0: 700}, id="up to two gifts"),
        pytest.param(Gift(ANY, unit_price_minor=1), [700], [], 1, {0: 699}, id="a gift for one cent"),
        pytest.param(Gift(ANY, unit_price_minor=100), [100, 90, 150], [], 1, {2: 50}, id="cheaper goods are no gift"),
        pytest.param(Gift(ANY), [], [(900, 9)], 0, {}, id="no gift in the basket"),
        pytest.param(
            Gift(ANY, per_units=3), [(4000, 4)], [(4000, 4)], 1, {0: 1000}, id="three bought, the fourth free"
        ),
        pytest.param(Gift(ANY, per_units=3), [(3000, 3)], [(3000, 3)], 0, {}, id="the gift does not count as bought"),
        pytest.param(
            Gift(ANY, per_units=3), [(8000, 8)], [(8000, 8)], 2, {0: 2000}, id="eight are twice three and one"
        ),
        pytest.param(Gift(ANY, 2, per_units=3), [(4000, 4)], [(4000, 4)], 1, {0: 1000}, id="one of two gifts is there"),
        pytest.param(
            Gift(ANY, per_units=3, falls_on=FallsOn.WHOLE_DEAL),
            [(4000, 4)],
            [(4000, 4)],
            1,
            {0: 1000},
            id="spread over the deal",
        ),
    ],
)
def test_gifts(
    deal: Gift,
    gifts: Sequence[int | tuple[int, int]],
    bought: Sequence[int | tuple[int, int]],
    deals: int,
    discounts: dict[int, int],
) -> None:
    made = gift(deal, goods(*gifts), goods(*bought))
    assert (made.deals, dict(made.discounts)) == (deals, discounts)


def test_gifts_for_other_goods_are_limited_and_spread() -> None:
    coffee, cups = LineUnits(0, 5000, 5), LineUnits(1, 600, 3)
    deal = Gift(ANY, per_units=2)
    assert gift(deal, [cups], [coffee]).discounts == ((1, 400),)
    assert gift(deal, [cups], [coffee], most=1)[:3] == (1, 2, ((1, 200),))
    whole = gift(Gift(ANY, per_units=2, falls_on=FallsOn.WHOLE_DEAL), [cups], [coffee])
    assert whole[:4] == (2, 2, ((0, 364), (1, 36)), ((0, 4), (1, 2)))


# --- steps ------------------------------------------------------------------------------------------------

BY_AMOUNT = (Step(1000, TENTH), Step(2000, PercentOff(Fraction(1, 5))))
BY_UNITS = (Step(3, TENTH), Step(6, PercentOff(Fraction(1, 5))))


@pytest.mark.parametrize(
    ("deal", "reached", "payable", "discount"),
    [
        pytest.param(Steps("amount", BY_AMOUNT), 999, 999, 0, id="below the first step"),
        pytest.param(Steps("amount", BY_AMOUNT), 1000, 1000, 100, id="on the first step"),
        pytest.param(Steps("amount", BY_AMOUNT), 3000, 3000, 600, id="whole: the highest step counts for all"),
        pytest.param(Steps("amount", BY_AMOUNT, marginal=True), 3000, 3000, 300, id="marginal: 10 % of 10, 20 % of 10"),
        pytest.param(Steps("amount", BY_AMOUNT, marginal=True), 1500, 1500, 50, id="marginal: 10 % of 5"),
        pytest.param(Steps("amount", BY_AMOUNT[::-1], marginal=True), 3000, 3000, 300, id="steps in any order"),
        pytest.param(Steps("quantity", BY_UNITS), 6, 999, 200, id="units: 20 % of 9.99, half up"),
        pytest.param(Steps("quantity", BY_UNITS, marginal=True), 8, 800, 70, id="units: 10 % of 3, 20 % of 2 of 8"),
        pytest.param(Steps("weight", BY_UNITS, marginal=True), 0, 800, 0, id="nothing weighed"),
        pytest.param(
            Steps("amount", (Step(1000, AmountOff(100)), Step(2000, AmountOff(300)))),
            2500,
            2500,
            300,
            id="whole amounts",
        ),
        pytest.param(
            Steps("amount", (Step(1000, AmountOff(100)), Step(2000, AmountOff(300))), True),
            2500,
            2500,
            400,
            id="marginal amounts add up",
        ),
        pytest.param(Steps("quantity", (Step(2, AmountOff(900)),)), 3, 500, 500, id="never more than the goods cost"),
    ],
)
def test_steps(deal: Steps, reached: int, payable: int, discount: int) -> None:
    assert steps_discount_minor(deal, reached, payable) == discount


# --- what is missing --------------------------------------------------------------------------------------


def test_units_that_are_missing() -> None:
    assert units_to_next_deal(THREE_FOR_TWO, goods(500, 400)) == 1
    assert units_to_next_deal(THREE_FOR_TWO, goods((1500, 3))) == 3
    assert units_to_next_deal(UnitDeal(3, 1, FREE, most_deals=1), goods((1500, 3))) is None
    assert units_to_next_set(SetDeal(parts(1, 2), FREE), goods(500, 400), [{0}, {1}]) == 1
    assert units_to_next_set(SetDeal(parts(1, 1), FREE), goods(500, 400), [{0, 1}, {0, 1}]) == 2
    assert units_to_next_set(SetDeal(parts(1, 1), FREE, most_deals=1), goods(500, 400), [{0}, {1}]) is None


COFFEE = [LineUnits(0, 2500, 5)]


@pytest.mark.parametrize(
    ("deal", "gifts", "bought", "missing"),
    [
        pytest.param(Gift(ANY), [], COFFEE, 1, id="the gift is not there"),
        pytest.param(Gift(ANY), COFFEE, COFFEE, None, id="the gift is there"),
        pytest.param(Gift(ANY, 2, per_units=2), [LineUnits(1, 600, 3)], COFFEE, 1, id="four gifts are earned"),
        pytest.param(Gift(ANY, per_units=3), [LineUnits(1, 600, 3)], COFFEE, 1, id="one more coffee"),
        pytest.param(
            Gift(ANY, per_units=3), [LineUnits(0, 900, 3)], [LineUnits(0, 900, 3)], 1, id="the fourth is free"
        ),
        pytest.param(Gift(ANY, per_units=3), COFFEE, COFFEE, 3, id="five, the eighth is the second free one"),
        pytest.param(Gift(ANY, 2, per_units=3), COFFEE, COFFEE, 4, id="three and two, then three more and one"),
    ],
)
def test_units_missing_to_a_gift(
    deal: Gift, gifts: list[LineUnits], bought: list[LineUnits], missing: int | None
) -> None:
    assert units_to_next_gift(deal, gifts, bought) == missing


# --- what always holds ------------------------------------------------------------------------------------

_lines = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=5)
_kinds = st.one_of(
    st.builds(PercentOff, st.fractions(0, 1, max_denominator=20)),
    st.builds(AmountOff, st.integers(1, 50)),
    st.builds(FixedPrice, st.integers(0, 50)),
)
_unit_deals = st.integers(1, 4).flatmap(
    lambda every: st.builds(
        UnitDeal,
        st.just(every),
        st.integers(1, every),
        _kinds,
        st.sampled_from(Choice),
        st.sampled_from(FallsOn),
        st.none() | st.integers(0, 3),
    )
)
_most = st.none() | st.integers(0, 3)


def _prices(lines: Iterable[LineUnits]) -> list[tuple[int, int]]:
    """(price, line) of every unit that costs something, dearest first."""
    units = []
    for line, left_minor, count in lines:
        for i in range(count):
            price = left_minor // count + (i < left_minor % count)
            units.append((price, line))
    return sorted((unit for unit in units if unit[0]), key=lambda unit: (-unit[0], unit[1]))


def _kept_within(made: DealOutcome, lines: Sequence[LineUnits]) -> None:
    for line, amount in made.discounts:
        assert 0 < amount <= lines[line].left_minor
    for line, units in made.units:
        assert 0 < units <= lines[line].units
    assert {line for line, _ in made.discounts} <= {line for line, _ in made.units}
    assert made.deals <= made.wanted_deals


@given(_unit_deals, _lines, _most)
def test_a_unit_deal_equals_one_counted_unit_by_unit(
    deal: UnitDeal, lines: list[tuple[int, int]], most: int | None
) -> None:
    basket = goods(*lines)
    made = unit_deal(deal, basket, most)
    _kept_within(made, basket)
    units = _prices(basket)
    deals = min([len(units) // deal.every, *(n for n in (deal.most_deals, most) if n is not None)])
    if deal.choose is Choice.CHEAPEST_OF_EACH:
        groups = [units[i * deal.every : (i + 1) * deal.every] for i in range(deals)]
        cheaper = [unit for group in groups for unit in group[deal.every - deal.discounted :]]
    else:
        order = units[::-1] if deal.choose is Choice.CHEAPEST else units
        cheaper = order[: deals * deal.discounted]
    savings: dict[int, int] = {}
    for price, line in cheaper:
        savings[line] = savings.get(line, 0) + _off(deal.kind, price)
    assert made.discount_minor == sum(savings.values())
    if deal.falls_on is FallsOn.UNITS:
        assert dict(made.discounts) == {line: amount for line, amount in savings.items() if amount}
    if made.deals:
        assert sum(count for _, count in made.units) == deals * deal.every


def _off(kind: PercentOff | AmountOff | FixedPrice, price: int) -> int:
    if isinstance(kind, PercentOff):
        return int(price * kind.share + Fraction(1, 2))
    return min(price, kind.amount_minor) if isinstance(kind, AmountOff) else max(0, price - kind.unit_price_minor)


_part_lines = st.frozensets(st.integers(0, 3), max_size=4)


@given(
    st.lists(st.tuples(st.integers(1, 2), _part_lines), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 2)), min_size=4, max_size=4),
)
def test_sets_are_as_many_and_as_dear_as_the_goods_give(
    asked: list[tuple[int, frozenset[int]]], lines: list[tuple[int, int]]
) -> None:
    basket = goods(*lines)
    fits = [part for _, part in asked]
    made = set_deal(SetDeal(parts(*(quantity for quantity, _ in asked)), FREE), basket, fits)
    _kept_within(made, basket)
    assert (made.deals, made.discount_minor) == _best_sets([q for q, _ in asked], fits, _prices(basket))


def _best_sets(
    quantities: Sequence[int], fits: Sequence[frozenset[int]], units: list[tuple[int, int]]
) -> tuple[int, int]:
    """The most sets, and the dearest choice of them, by putting every unit into every part or aside."""
    dearest = {(0,) * len(quantities): 0}
    for price, line in units:
        for filled, total in list(dearest.items()):
            for part, fitting in enumerate(fits):
                if line in fitting:
                    more = tuple(count + (i == part) for i, count in enumerate(filled))
                    dearest[more] = max(dearest.get(more, 0), total + price)
    found = (
        (sets, dearest.get(tuple(sets * quantity for quantity in quantities), -1)) for sets in range(len(units) + 1)
    )
    return max((sets, total) for sets, total in found if total >= 0)


@given(
    st.lists(st.tuples(st.integers(1, 2), _part_lines), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=4, max_size=4),
    _kinds,
    _most,
    st.data(),
)
def test_a_set_falls_on_units_of_its_part(
    asked: list[tuple[int, frozenset[int]]],
    lines: list[tuple[int, int]],
    kind: PercentOff | AmountOff | FixedPrice,
    most: int | None,
    data: st.DataObject,
) -> None:
    basket = goods(*lines)
    part = data.draw(st.integers(0, len(asked) - 1))
    deal = SetDeal(parts(*(quantity for quantity, _ in asked)), kind, falls_on_part=part)
    made = set_deal(deal, basket, [fitting for _, fitting in asked], most)
    _kept_within(made, basket)
    assert {line for line, _ in made.discounts} <= asked[part][1]


@given(st.integers(1, 3), st.none() | st.integers(1, 3), _lines, st.integers(0, 3), _most)
def test_gifts_never_count_as_bought(
    quantity: int, per_units: int | None, lines: list[tuple[int, int]], price: int, most: int | None
) -> None:
    basket = goods(*lines)
    made = gift(Gift(ANY, quantity, price, per_units), basket, basket, most)
    _kept_within(made, basket)
    if made.deals and per_units is not None:
        given_units = sum(count for _, count in made.units) - made.deals * per_units
        assert (made.deals - 1) * quantity < given_units <= made.deals * quantity
        assert given_units + made.deals * per_units <= len(_prices(basket))


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 30))
def test_the_units_that_are_missing_bring_one_more_gift(quantity: int, per_units: int, units: int) -> None:
    deal = Gift(ANY, quantity, per_units=per_units)

    def free(count: int) -> int:
        return gift(deal, goods((100 * count, count)), goods((100 * count, count))).discount_minor // 100

    missing = units_to_next_gift(deal, goods((100 * units, units)), goods((100 * units, units)))
    assert missing is not None
    assert (free(units + missing - 1), free(units + missing)) == (free(units), free(units) + 1)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.fractions(0, Fraction(1, 2), max_denominator=10)), min_size=1, max_size=4
    ),
    st.integers(0, 200),
)
def test_marginal_steps_give_no_more_than_their_highest_percent(
    steps: list[tuple[int, Fraction]], payable: int
) -> None:
    deal = Steps("amount", tuple(Step(at_least, PercentOff(share)) for at_least, share in steps), marginal=True)
    assert 0 <= steps_discount_minor(deal, payable, payable) <= payable * max(share for _, share in steps) + 1


def test_a_million_units_cost_no_more_than_three() -> None:
    """The lines are so long that a unit at a time would not end."""
    basket = goods(*[(10**12 + i, 10**6) for i in range(1000)])
    made = unit_deal(UnitDeal(3, 1, FREE, Choice.CHEAPEST_OF_EACH, FallsOn.WHOLE_DEAL), basket)
    assert (made.deals, len(made.discounts)) == (10**9 // 3, 1000)
    fits = [range(1000), range(500, 1000)]
    assert set_deal(SetDeal(parts(1, 1), FixedPrice(1)), basket, fits).deals == 5 * 10**8
    assert gift(Gift(ANY, per_units=3), basket, basket).deals == 10**9 // 4
