"""What comes back with goods, whole: points that lapsed are not asked for again, and no money comes back twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallypoint.v1 import journal_pb2

from ledger.entry.model import Booked, Grant
from tests.support.commands import GIFT, NOON, Line, adjust, goods_return, member, purchase, selling
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
DAY = timedelta(days=1)
DEBT, WITHIN, OWN_ONLY, OFF_THE_REFUND = range(1, 5)


def bring_back(
    book: MemoryBook, sold: Booked, number: int, asked: Sequence[tuple[int, int]] = (), **options: int
) -> journal_pb2.Event:
    """Bring goods back with receipt ``number``."""
    return book.settlement(book.book(goods_return(number, sold, asked, terms=book.terms, **options)))


def have(book: MemoryBook) -> int:
    """What Anna has of the programme's points, less what she owes."""
    account = book.account("Anna")
    return account.available_minor - account.debt_minor


# --- what lapsed is not taken again -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [DEBT, WITHIN, OWN_ONLY, OFF_THE_REFUND])
@pytest.mark.parametrize(
    ("spent", "by_hand", "asked"),
    [
        pytest.param(0, 0, {DEBT: 0, WITHIN: 0, OWN_ONLY: 0, OFF_THE_REFUND: 0}, id="all of it lapsed"),
        pytest.param(30, 0, {DEBT: 30, WITHIN: 30, OWN_ONLY: 0, OFF_THE_REFUND: 30}, id="some was spent before"),
        pytest.param(0, 40, {DEBT: 0, WITHIN: 0, OWN_ONLY: 0, OFF_THE_REFUND: 0}, id="some was taken by hand before"),
        pytest.param(100, 0, {DEBT: 100, WITHIN: 100, OWN_ONLY: 0, OFF_THE_REFUND: 100}, id="all was spent before"),
    ],
)
def test_what_lapsed_out_of_the_purchase_s_own_lot_is_not_taken_again(
    mode: int, spent: int, by_hand: int, asked: dict[int, int]
) -> None:
    """100 points earned on 1 January lapse; 100 more are earned; then the January goods come back."""
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(1000, 1000, 100)], earn=[Grant(100, None, NOON + 31 * DAY)]))
    if spent:
        book.book(purchase(2, ANNA, spend=spent))
    if by_hand:
        book.book(adjust("wrong", ANNA, -by_hand))
    book.now = NOON + 40 * DAY
    book.book(purchase(3, ANNA, earn=[100]))
    event = bring_back(book, sold, 4, clawback=mode)
    assert have(book) == 100 - asked[mode]
    assert event.settlement.clawback_lapsed_points_minor == 100 - spent
    assert event.goods_return.refund_money_minor == 1000


def test_a_lapse_between_two_parts_is_let_go_once() -> None:
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(2000, 1000, 100)], earn=[Grant(100, None, NOON + 31 * DAY)]))
    book.book(purchase(2, ANNA, spend=20))
    assert bring_back(book, sold, 3, [(1, 1000)]).settlement.clawback_points_minor == 50
    book.now = NOON + 40 * DAY
    settlement = bring_back(book, sold, 4).settlement
    assert (settlement.clawback_lapsed_points_minor, settlement.clawback_debt_points_minor) == (30, 20)


def test_a_lot_that_lapses_with_the_return_itself_has_lapsed() -> None:
    """Whether a sweeper came before makes no difference."""
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(1000, 1000, 100)], earn=[Grant(100, None, NOON + DAY)]))
    book.now = NOON + 2 * DAY
    assert bring_back(book, sold, 2).settlement.clawback_lapsed_points_minor == 100
    assert have(book) == 0


def test_two_returns_in_one_batch_see_what_the_first_let_lapse() -> None:
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(2000, 1000, 100)], earn=[Grant(100, None, NOON + DAY)]))
    book.now = NOON + 2 * DAY
    book.commit([goods_return(number, sold, [(1, 1000)], terms=book.terms) for number in (2, 3)])
    assert have(book) == 0
    assert book.events[3].settlement.clawback_lapsed_points_minor == 50


lines_strategy = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 400)).map(lambda p: Line(p[0] * 1000, p[0] * 500, p[1])),
    min_size=1,
    max_size=3,
)


def units_of(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Every unit of every line."""
    return [(number, 1000) for number, line in enumerate(lines, start=1) for _ in range(line.quantity_milli // 1000)]


@given(
    lines=lines_strategy,
    lives=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    spent=st.integers(0, 300),
    by_hand=st.integers(0, 100),
    others=st.integers(0, 300),
    mode=st.sampled_from([DEBT, WITHIN, OWN_ONLY, OFF_THE_REFUND]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_parts_in_any_order_and_at_any_time_end_where_one_whole_return_ends(
    lines: list[Line], lives: list[int], spent: int, by_hand: int, others: int, mode: int, data: st.DataObject
) -> None:
    """Lots of the purchase lapse between the parts; what is there otherwise does not."""
    order = data.draw(st.permutations(units_of(lines)))
    days = sorted(data.draw(st.lists(st.integers(0, 25), min_size=len(order), max_size=len(order))))
    earned = sum(line.earned_minor for line in lines)
    ends = []
    whole: list[tuple[int, list[tuple[int, int]]]] = [(25, [])]
    for parts in (whole, [(day, [part]) for day, part in zip(days, order, strict=True)]):
        book = MemoryBook()
        shares = [earned // len(lives)] * (len(lives) - 1)
        lots = [*shares, earned - sum(shares)]
        grants = [Grant(points, None, NOON + life * DAY) for points, life in zip(lots, lives, strict=True) if points]
        sold = book.book(purchase(1, ANNA, lines=lines, earn=grants))
        book.book(purchase(2, ANNA, spend=min(spent, earned) or None))
        if 0 < by_hand <= have(book):
            book.book(adjust("wrong", ANNA, -by_hand))
        if others:
            book.book(purchase(3, ANNA, earn=[others]))
        money = 0
        for number, (day, asked) in enumerate(parts, start=4):
            book.now = NOON + day * DAY
            money += bring_back(book, sold, number, asked, clawback=mode).goods_return.refund_money_minor
        book.now = NOON + 30 * DAY
        book.book(purchase(99, ANNA, earn=[1]))
        ends.append((have(book) + money, money if mode != OFF_THE_REFUND else 0))
    assert ends[0] == ends[1]


# --- money never comes back twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "asked", "money", "left", "owed"),
    [
        pytest.param(0, [], 500, 0, 0, id="unspent: the money, and nothing on the card"),
        pytest.param(300, [], 200, 0, 0, id="what was spent is kept back"),
        pytest.param(500, [], 0, 0, 0, id="all of it was spent"),
        pytest.param(0, [(1, 1000)], 250, 250, 0, id="one of two cards"),
        pytest.param(300, [(1, 1000)], 200, 0, 0, id="one of two cards, most of it spent"),
        pytest.param(300, [(2, 1000)], 80, 200, 0, id="other goods leave the card alone"),
    ],
)
def test_a_gift_card_that_comes_back_cannot_be_spent(
    spent: int, asked: list[tuple[int, int]], money: int, left: int, owed: int
) -> None:
    book = MemoryBook()
    lines = [Line(2000, 500), Line(1000, 80)]
    sold = book.book(selling(purchase(1, ANNA, lines=lines), [(1, 500)]))
    if spent:
        book.book(purchase(2, ANNA, amount_minor=spent, further_spends=[(GIFT, spent)]))
    asked = asked or [(1, 2000)]
    event = bring_back(book, sold, 3, asked)
    account = book.account("Anna", GIFT)
    assert event.goods_return.refund_money_minor == money
    assert (account.available_minor, account.debt_minor) == (left, owed)


def test_what_a_gift_card_was_worth_more_than_it_cost_stays_owed() -> None:
    book = MemoryBook()
    sold = book.book(selling(purchase(1, ANNA, lines=[Line(1000, 450)]), [(1, 500)]))
    book.book(purchase(2, ANNA, amount_minor=500, further_spends=[(GIFT, 500)]))
    event = bring_back(book, sold, 3)
    (told,) = event.settlement.units
    assert (event.goods_return.refund_money_minor, told.clawback_kept_back_points_minor) == (0, 450)
    assert book.account("Anna", GIFT).debt_minor == told.clawback_debt_points_minor == 50


def test_what_a_merged_member_had_bought_is_owed() -> None:
    """The points have gone on to the living member, and so does the debt."""
    book = MemoryBook()
    sold = book.book(selling(purchase(1, ANNA, lines=[Line(1000, 500)]), [(1, 500)]))
    book.book(purchase(2, ANNA, amount_minor=500, further_spends=[(GIFT, 500)]))
    event = book.settlement(book.book(replace(goods_return(3, sold, terms=book.terms), is_merged=True)))
    assert (event.goods_return.refund_money_minor, event.goods_return.kept_back_money_minor) == (500, 0)
    assert book.account("Anna", GIFT).debt_minor == 500


def test_a_sale_beside_which_nothing_was_charged_leaves_what_was_earned_alone() -> None:
    """Points of one unit that were bought and that were earned are two purses."""
    book = MemoryBook()
    earned = purchase(
        1,
        ANNA,
        lines=[Line(1000, 500), Line(1000, 100, further=((GIFT.code, "", 30),))],
        earn=[Grant(30, None, None, unit=GIFT)],
    )
    sold = book.book(selling(earned, [(1, 500)]))
    assert bring_back(book, sold, 2, [(2, 1000)]).goods_return.refund_money_minor == 100
    assert book.account("Anna", GIFT).available_minor == 500
    assert bring_back(book, sold, 3).goods_return.refund_money_minor == 500
    assert book.account("Anna", GIFT).available_minor == 0


cards = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 200)), min_size=1, max_size=3)
goods = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 200), st.integers(0, 100)), min_size=1, max_size=3)


@given(cards=cards, goods=goods, data=st.data())
@settings(max_examples=150, deadline=None)
def test_money_in_is_goods_out_and_what_is_on_the_card(
    cards: list[tuple[int, int]], goods: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """However cards and goods paid with them come back, in whatever parts and order."""
    book, cash, out = MemoryBook(), 0, 0
    booked: list[tuple[Booked, list[tuple[int, int]], bool]] = []
    number = 1
    for units, price in cards:
        command = selling(purchase(number, ANNA, lines=[Line(units * 1000, units * price)]), [(1, units * price)])
        booked.append((book.book(command), [(1, 1000)] * units, True))
        cash, number = cash + units * price, number + 1
    for units, price, share in goods:
        spend = min(units * price * share // 100, book.account("Anna", GIFT).available_minor)
        lines = [Line(units * 1000, units * price)]
        spends = [(GIFT, spend)] if spend else []
        booked.append(
            (book.book(purchase(number, ANNA, lines=lines, further_spends=spends)), [(1, 1000)] * units, False)
        )
        cash, out, number = cash + units * price - spend, out + units * price, number + 1
    back = [(sold, part, is_card) for sold, parts, is_card in booked for part in parts]
    for sold, part, is_card in data.draw(st.permutations(back))[: data.draw(st.integers(1, len(back)))]:
        event = bring_back(book, sold, number, [part])
        number += 1
        body, account = event.goods_return, book.account("Anna", GIFT)
        assert body.refund_money_minor >= 0
        cash -= body.refund_money_minor
        if not is_card:
            out -= sum(line.list_amount_minor for line in body.lines)
        assert cash == out + account.available_minor - account.debt_minor
    assert cash >= 0


# --- what is missing is kept back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "money", "debt"),
    [
        pytest.param(1000, 950, 0, id="the money of what is missing"),
        pytest.param(30, 0, 20, id="what the money does not cover is owed"),
    ],
)
def test_what_is_missing_is_kept_back_from_the_money(price: int, money: int, debt: int) -> None:
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(1000, price, 100)], earn=[100]))
    book.book(purchase(2, ANNA, spend=50))
    event = bring_back(book, sold, 3, clawback=OFF_THE_REFUND)
    assert event.goods_return.refund_money_minor == money
    assert event.goods_return.kept_back_money_minor == price - money
    assert (book.account("Anna").available_minor, book.account("Anna").debt_minor) == (0, debt)
