"""A return reverses whatever a receipt gave, used or sold: one table of effects, and parts that sum to the whole."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.entry.model import Booked
from tests.support.commands import member
from tests.support.counter import ANNA, NOON, Counter, Sold, gift

PIECE = 1000
BO = member("Bo")
TEA, CAKE = Sold("tea", 4 * PIECE, 4_000), Sold("cake", 2 * PIECE, 3_000)


def promotions(*items: str) -> str:
    return "promotions:\n" + "".join(f"  - {{{item}}}\n" for item in items)


def codes(response: checkout_pb2.ReturnResponse) -> list[str]:
    """The notices' names."""
    return [notice.code for notice in response.notices]


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "key", "parts", "left"),
    [
        pytest.param("{at_most: 9, for: member}", "use/t/ever", [(1, 4)], None, id="units: all of them"),
        pytest.param("{at_most: 9, for: member}", "use/t/ever", [(1, 1)], 3, id="units: one of four"),
        pytest.param("{at_most: 9, for: member}", "use/t/ever", [(2, 2)], 4, id="units: of other goods none"),
        pytest.param("{at_most: 2, for: member}", "use/t/ever", [(1, 2)], 1, id="units: half of the two that counted"),
        pytest.param("{at_most: 2, for: member}", "use/t/ever", [(1, 1)], 2, id="units: a begun one stays used"),
        pytest.param("{at_most: 9, for: member, each: month}", "use/t/month/2026-03-01", [(1, 3)], 1, id="a month's"),
    ],
)
def test_units_of_a_limit_come_back(limit: str, key: str, parts: list[tuple[int, int]], left: int | None) -> None:
    shop = Counter(
        promotions(f"id: t, name: T, scope: {{skus: [tea]}}, line_discount: {{percent: 50}}, limits: [{limit}]")
    )
    bought = shop.sell(TEA, CAKE)
    shop.bring_back(bought, *((line, pieces * PIECE) for line, pieces in parts))
    counter = shop.counters.get(key)
    assert (None if counter is None else counter.times) == left


@pytest.mark.parametrize(
    ("measure", "left"),
    [pytest.param("money", (1, 1_500, 0), id="money"), pytest.param("count", (1, 1_500, 0), id="count")],
)
def test_money_of_a_limit_comes_back_in_proportion(measure: str, left: tuple[int, int, int]) -> None:
    """2.00 off each of four; once a receipt, the use stays until all is back."""
    limit = f"{{of: {measure}, at_most: 100, for: member}}"
    text = f"id: b, name: B, basket_discount: {{amount: 20.00}}, limits: [{limit}]"
    shop = Counter(promotions(text))
    bought = shop.sell(Sold("tea", 4 * PIECE, 8_000))
    shop.bring_back(bought, (1, PIECE))
    assert shop.counters["use/b/ever"][:3] == left
    shop.bring_back(bought)
    assert "use/b/ever" not in shop.counters


def test_a_campaign_s_limit_and_a_budget_of_all_come_back() -> None:
    shop = Counter(
        "campaigns:\n  - {id: spring, name: Spring, limits: [{of: money, at_most: 100.00, for: all}, "
        "{at_most: 9, for: member}]}\n"
        + promotions("id: t, name: T, campaign: spring, scope: {skus: [tea]}, line_discount: {percent: 50}")
    )
    bought = shop.sell(TEA, CAKE)
    assert (shop.used("shared/@spring/money"), shop.counters["use/@spring/ever"].times) == (2_000, 4)
    shop.bring_back(bought, (1, PIECE), (2, PIECE))
    assert (shop.used("shared/@spring/money"), shop.counters["use/@spring/ever"].times) == (1_500, 3)
    shop.bring_back(bought)
    assert (shop.used("shared/@spring/money"), "use/@spring/ever" in shop.counters) == (0, False)


def test_points_of_a_limit_come_back_with_the_goods_that_earned_them() -> None:
    limit = "{of: points, at_most: 1000.00, for: member}"
    shop = Counter(promotions(f"id: p, name: P, scope: {{skus: [tea]}}, points: {{percent: 10}}, limits: [{limit}]"))
    bought = shop.sell(TEA, CAKE)
    assert shop.counters["use/p/ever"].points_minor == 400
    shop.bring_back(bought, (1, PIECE))
    assert shop.counters["use/p/ever"].points_minor == 300


def test_deals_come_back_when_their_goods_did() -> None:
    """Every second free, at most three times a member: two deals of four."""
    text = "id: d, name: D, scope: {skus: [tea]}, units: {every: 2, percent: 100}, limits: [{at_most: 3, for: member}]"
    shop = Counter(promotions(text))
    bought = shop.sell(TEA)
    counts = []
    for _ in range(4):
        shop.bring_back(bought, (1, PIECE))
        counts.append(shop.counters["use/d/ever"].times if "use/d/ever" in shop.counters else 0)
    assert counts == [2, 1, 1, 0]


def test_a_used_up_limit_can_be_used_again() -> None:
    text = "id: l, name: L, when: {coupon: {codes: [SPRING]}}, basket_discount: {amount: 5.00}"
    shop = Counter(promotions(f"{text}, limits: [{{at_most: 1, for: member}}]"))
    bought = shop.sell(TEA, coupons=["SPRING"])
    assert shop.bring_back(bought).coupon_codes == ["SPRING"]
    again = journal_pb2.Event.FromString(shop.sell(TEA, coupons=["SPRING"]).event)
    assert again.purchase.receipt.lines[0].discount_minor == 500


# --- coupons ------------------------------------------------------------------------------------------------------

THANKS = "issue_coupon: {series: thanks, valid_days: 30}"


@pytest.mark.parametrize(
    ("when", "part", "revoked"),
    [
        pytest.param("receipt_total: {at_least: 60.00}", (2, 1), True, id="below the receipt's total"),
        pytest.param("receipt_total: {at_least: 55.00}", (2, 1), False, id="still at the receipt's total"),
        pytest.param("scope_total: {at_least: 40.00}", (1, 1), True, id="below the goods' total"),
        pytest.param("scope_total: {at_least: 40.00}", (2, 2), False, id="other goods than the promotion's"),
        pytest.param("basket: {quantity: {at_least: 3}}", (1, 1), False, id="three are left"),
        pytest.param("basket: {quantity: {at_least: 3}}", (1, 2), True, id="two are left"),
        pytest.param("", (1, 3), False, id="some of the goods"),
        pytest.param("", (1, 4), True, id="all of its goods"),
        pytest.param("", (2, 2), False, id="all of other goods"),
    ],
)
def test_a_coupon_given_with_goods_is_revoked_with_them(when: str, part: tuple[int, int], revoked: bool) -> None:
    asked = f"when: {{{when}}}, " if when else ""
    shop = Counter(promotions(f"id: g, name: G, scope: {{skus: [tea]}}, {asked}{THANKS}"))
    bought = shop.sell(TEA, CAKE)
    (coupon,) = journal_pb2.Event.FromString(bought.event).purchase.issued_coupons
    response = shop.bring_back(bought, (part[0], part[1] * PIECE))
    assert list(response.revoked_coupon_codes) == ([coupon.code] if revoked else [])
    assert ("COUPONS_REVOKED" in codes(response)) == revoked
    assert bool(shop.book.caches.usage.coupons) == revoked


def test_a_coupon_that_was_used_since_is_told_once() -> None:
    use = "id: u, name: U, when: {coupon: {series: [thanks]}}, basket_discount: {amount: 1.00}"
    shop = Counter(promotions(f"id: g, name: G, when: {{receipt_total: {{at_least: 40.00}}}}, {THANKS}", use))
    bought = shop.sell(TEA)
    code = journal_pb2.Event.FromString(bought.event).purchase.issued_coupons[0].code
    shop.sell(Sold("jam", PIECE, 500), coupons=[code])
    first, second = (shop.bring_back(bought, (1, PIECE)) for _ in "ab")
    assert (list(first.revoked_coupon_codes), codes(first)) == ([], ["COUPONS_USED"])
    assert codes(second) == []


@pytest.mark.parametrize("given_first", [True, False])
def test_a_coupon_goes_with_the_goods_that_gave_it_whichever_come_back_first(*, given_first: bool) -> None:
    use = "id: u, name: U, when: {coupon: {series: [thanks]}}, basket_discount: {amount: 1.00}"
    shop = Counter(promotions(f"id: g, name: G, scope: {{skus: [tea]}}, {THANKS}", use))
    giving = shop.sell(TEA)
    code = journal_pb2.Event.FromString(giving.event).purchase.issued_coupons[0].code
    using = shop.sell(Sold("jam", PIECE, 500), coupons=[code])
    answers = [shop.bring_back(bought) for bought in ((giving, using) if given_first else (using, giving))]
    assert [list(answer.coupon_codes) for answer in answers] == ([[], []] if given_first else [[code], []])
    assert [codes(answer) for answer in answers][not given_first] == (
        ["COUPONS_USED"] if given_first else ["COUPONS_REVOKED"]
    )
    again = journal_pb2.Event.FromString(shop.sell(Sold("jam", PIECE, 500), coupons=[code]).event)
    assert [outcome.used for outcome in again.purchase.coupons] == [False]


def test_a_coupon_comes_back_with_the_last_of_what_it_was_good_for() -> None:
    text = "id: t, name: T, scope: {skus: [tea]}, when: {coupon: {series: [single]}}, line_discount: {percent: 50}"
    shop = Counter(promotions(text))
    bought = shop.sell(TEA, CAKE, coupons=["ONE-1"])
    answers = [shop.bring_back(bought, part) for part in ((1, 3 * PIECE), (2, 2 * PIECE), (1, PIECE))]
    assert [list(answer.coupon_codes) for answer in answers] == [[], [], ["ONE-1"]]
    assert shop.book.caches.usage.coupons == {}


def test_a_coupon_without_effect_was_never_used() -> None:
    shop = Counter(
        promotions(
            "id: t, name: T, scope: {skus: [jam]}, when: {coupon: {codes: [AUTUMN]}}, line_discount: {percent: 5}"
        )
    )
    assert not shop.bring_back(shop.sell(TEA, coupons=["AUTUMN"])).coupon_codes


# --- draws, clubs, levels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "parts", "left"),
    [
        pytest.param("{name: car, per_amount: 10.00}", [(1, 1)], 3, id="by money: 30.00 left of 40.00"),
        pytest.param("{name: car, per_amount: 15.00}", [(1, 1)], 2, id="by money: 30.00 left, two steps still"),
        pytest.param("{name: car, per_amount: 10.00}", [(2, 2)], 4, id="by money: other goods"),
        pytest.param("{name: car, entries: 5}", [(1, 3)], 5, id="a receipt: some goods are left"),
        pytest.param("{name: car, entries: 5}", [(1, 4)], None, id="a receipt: none are left"),
    ],
)
def test_entries_into_a_draw_come_back(draw: str, parts: list[tuple[int, int]], left: int | None) -> None:
    shop = Counter(promotions(f"id: d, name: D, scope: {{skus: [tea]}}, draw: {draw}"))
    bought = shop.sell(TEA, CAKE)
    shop.bring_back(bought, *((line, pieces * PIECE) for line, pieces in parts))
    counter = shop.counters.get("draw/car")
    assert (None if counter is None else counter.times) == left


CLUB = promotions("id: c, name: C, scope: {skus: [card]}, club: {name: green, days: 100}")
CARD = Sold("card", PIECE, 20_000)
TODAY = NOON.date()


@pytest.mark.parametrize(
    ("buys", "back", "lasts"),
    [
        pytest.param([0], [0], None, id="the only one"),
        pytest.param([0, 10], [0], 99, id="renewed since: the first"),
        pytest.param([0, 10], [1], 99, id="renewed since: the renewal"),
        pytest.param([0, 10], [0, 1], None, id="both, the first first"),
        pytest.param([0, 10], [1, 0], None, id="both, the renewal first"),
        pytest.param([0, 150], [0], 249, id="one that had run out is not taken from the next"),
        pytest.param([0, 90], [1], 99, id="the renewal shortly before the end"),
    ],
)
def test_a_paid_membership_is_shortened_by_the_days_that_came_back(
    buys: list[int], back: list[int], lasts: int | None
) -> None:
    shop = Counter(CLUB)
    bought: list[Booked] = []
    for before, day in itertools.pairwise([0, *buys]):
        shop.wait(day - before)
        bought.append(shop.sell(CARD))
    answers = [shop.bring_back(bought[index]) for index in back]
    counter = shop.counters.get("club/green")
    assert (None if counter is None else counter.until) == (None if lasts is None else TODAY + timedelta(days=lasts))
    had_run_out = buys == [0, 150]
    assert all(bool(codes(answer)) != had_run_out for answer in answers)


def test_what_a_merged_member_s_goods_had_brought_is_taken_from_the_living_one() -> None:
    """A club, uses, tier points, and the level that they had made."""
    tea = "id: t, name: T, scope: {skus: [tea]}, line_discount: {percent: 5}, limits: [{at_most: 9, for: member}]"
    shop = Counter(tiers("points", "50.00").replace("promotions:\n", CLUB) + f"  - {{{tea}}}\n")
    bought = shop.sell(CARD, Sold("tea", PIECE, 50_000))
    shop.merge(BO)
    living = shop.book.caches.usage.counters
    assert living[BO].keys() >= {"club/green", "use/t/ever", "standing/gold", "tier/month/2026-03-01"}
    answer = shop.bring_back(bought, living_id=str(BO))
    assert "CLUB_ENDED" in codes(answer)
    shop.merge(BO)
    assert living[ANNA] == {}
    assert living[BO].keys() == {"standing/gold"}
    assert living[BO]["standing/gold"].until == TODAY - timedelta(days=1), "it has ended, and is remembered"


def tiers(by: str, threshold: str, **more: str) -> str:
    settings = "".join(f", {name}: {value}" for name, value in more.items())
    levels = f"[{{code: gold, name: Gold, at_least: {threshold}}}]"
    points = promotions("id: tp, name: TP, tier_points: {percent: 10}") if by == "points" else ""
    return f"tiers: {{by: {by}, levels: {levels}{settings}}}\n{points}"


@pytest.mark.parametrize(
    ("programme", "sales", "back", "level"),
    [
        pytest.param(tiers("points", "50.00"), [50_000], [0], "", id="points: all came back"),
        pytest.param(tiers("spend", "500.00"), [50_000], [0], "", id="spend: all came back"),
        pytest.param(tiers("visits", "2"), [100, 100], [0], "", id="visits: one less"),
        pytest.param(tiers("points", "50.00"), [30_000, 25_000], [0], "", id="points: an earlier receipt came back"),
        pytest.param(tiers("points", "50.00"), [60_000, 10_000], [1], "gold", id="points: enough are left"),
        pytest.param(tiers("spend", "500.00"), [30_000, 50_000], [0], "gold", id="spend: enough is left"),
    ],
)
def test_a_level_goes_with_what_had_brought_it(programme: str, sales: list[int], back: list[int], level: str) -> None:
    shop = Counter(programme)
    bought = [shop.sell(Sold("tea", PIECE, amount)) for amount in sales]
    assert "standing/gold" in shop.counters
    answers = [shop.bring_back(bought[index]) for index in back]
    assert ("standing/gold" in shop.counters) == bool(level)
    assert ("LEVEL_LOWERED" in codes(answers[-1])) != bool(level)
    if level:
        shop.bring_back(bought[1 - back[0]])
        assert "standing/gold" not in shop.counters


# --- all of it ------------------------------------------------------------------------------------------------------

EVERYTHING = (
    "tiers: {by: points, levels: [{code: gold, name: Gold, at_least: 5.00}]}\n"
    "campaigns:\n  - {id: spring, name: Spring, limits: [{of: money, at_most: 900.00, for: all}]}\n"
    + promotions(
        "id: t, name: T, campaign: spring, scope: {skus: [tea]}, line_discount: {percent: 30}, "
        "limits: [{at_most: 5, for: member}]",
        "id: d, name: D, scope: {skus: [cake]}, units: {every: 2, percent: 50}, limits: [{at_most: 4, for: member}]",
        "id: b, name: B, basket_discount: {amount: 7.77}, limits: [{of: money, at_most: 50.00, for: member}]",
        "id: p, name: P, points: {percent: 5}, limits: [{of: points, at_most: 90.00, for: member}]",
        "id: tp, name: TP, tier_points: {percent: 10}",
        "id: dr, name: Dr, draw: {name: car, per_amount: 9.00}",
        "id: g, name: G, when: {receipt_total: {at_least: 30.00}}, issue_coupon: {series: thanks, valid_days: 30}",
        "id: c, name: C, scope: {skus: [card]}, club: {name: green, days: 100}",
        "id: o, name: O, scope: {skus: [jam]}, when: {coupon: {series: [single]}}, line_discount: {percent: 50}",
    )
)
goods_strategy = st.lists(
    st.builds(
        lambda sku, pieces, price: Sold(sku, pieces * PIECE, pieces * price),
        st.sampled_from(["tea", "cake", "jam", "card"]),
        st.integers(1, 3),
        st.integers(1, 2_000),
    ),
    min_size=1,
    max_size=4,
)


def test_a_piece_whose_part_of_the_discount_rounds_to_nothing_gives_its_use_back() -> None:
    limit = "{at_most: 5, for: member}"
    shop = Counter(
        promotions(f"id: t, name: T, scope: {{skus: [tea]}}, line_discount: {{percent: 30}}, limits: [{limit}]")
    )
    began = shop.counters
    bought = shop.sell(Sold("tea", PIECE, 1), Sold("tea", PIECE, 1))  # 0.01 off in all, rounded once for both pieces
    assert shop.counters["use/t/ever"].times == 2
    shop.bring_back(bought, (2, PIECE))
    assert shop.counters["use/t/ever"].times == 1
    shop.bring_back(bought, (1, PIECE))
    assert shop.counters == began


@given(goods=goods_strategy, before=goods_strategy, data=st.data())
@settings(max_examples=60, deadline=None)
def test_parts_in_any_order_end_where_one_whole_return_ends_and_where_it_began(
    goods: list[Sold], before: list[Sold], data: st.DataObject
) -> None:
    units = [(number, PIECE) for number, line in enumerate(goods, start=1) for _ in range(line.quantity_milli // PIECE)]
    ends = []
    for parts in ([()], [(unit,) for unit in data.draw(st.permutations(units))]):
        shop = Counter("units: [{unit: gift, name: Gift, precision: 0, pays: 1.00, sold: true}]\n" + EVERYTHING)
        shop.sell(*before)
        began = (shop.counters, {key: part.used for key, part in shop.book.caches.usage.slices.items()})
        bought = shop.sell(*goods, coupons=["ONE-1"], deposits=[gift(10)])
        for part in parts:
            shop.bring_back(bought, *part)
        usage = shop.book.caches.usage
        used = {key: part.used for key, part in usage.slices.items() if part.used}
        ends.append((shop.counters, used, sorted(slot.code for slot in usage.coupons)))
        assert shop.counters == began[0]
        assert used == {key: amount for key, amount in began[1].items() if amount}
    assert ends[0] == ends[1]
