"""Points of several units in one receipt, and points of partners: each in its own unit, from and to its own account."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.model import AVAILABLE, HELD, ISSUED, REDEEMED, Booked, Grant, Spend, Unit, UnitSpend
from tests.support.commands import (
    BONUS,
    GIFT,
    NOON,
    PHARMACY,
    Line,
    adjust,
    checkout,
    goods_return,
    hold,
    member,
    purchase,
    transfer_out,
)
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
DAY = timedelta(days=1)
WITHIN = int(journal_pb2.CLAWBACK_MODE_WITHIN_BALANCE)
OWN_ONLY = int(journal_pb2.CLAWBACK_MODE_OWN_LOT_ONLY)
MODES = [int(journal_pb2.CLAWBACK_MODE_DEBT), WITHIN, OWN_ONLY]


def gift(points: int, lapses: int | None = None, account: int = ISSUED) -> Grant:
    """Gift points, lapsing after so many days."""
    return Grant(points, None, None if lapses is None else NOON + lapses * DAY, unit=GIFT, account=account)


def partners(points: int) -> Grant:
    """Bonus points at the pharmacy's expense."""
    return Grant(points, None, None, account=PHARMACY)


def moves(book: MemoryBook, booked: Booked) -> list[tuple[int, int, int, int]]:
    """The postings of an entry: unit, accounts, points."""
    return [(p.unit, p.debit, p.credit, p.points_minor) for p in book.settlement(booked).postings]


# --- receipts -----------------------------------------------------------------------------------------------------


def test_each_unit_has_a_balance_of_its_own() -> None:
    book = MemoryBook()
    settlement = book.settlement(book.book(purchase(1, ANNA, earn=[30, gift(5), gift(2, 9)]))).settlement
    assert (settlement.accrual_points_minor, settlement.balance.available_points_minor) == (30, 30)
    (told,) = settlement.units
    assert (told.balance.unit, told.balance.precision, told.accrual_points_minor) == ("gift", 0, 7)
    assert told.balance.available_points_minor == 7
    assert (book.account("Anna").available_minor, book.account("Anna", GIFT).available_minor) == (30, 7)
    assert (book.total(ISSUED), book.total(ISSUED, GIFT)) == (-30, -7)


@pytest.mark.parametrize(
    ("asked", "spent", "left_out"),
    [
        pytest.param(40, 40, 0, id="covered"),
        pytest.param(50, 50, 0, id="all of it"),
        pytest.param(80, 50, 30, id="more than there is"),
        pytest.param(0, 0, 0, id="nothing asked"),
    ],
)
def test_further_points_are_spent_as_far_as_they_go(asked: int, spent: int, left_out: int) -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[100, gift(50)]))
    booked = book.book(purchase(2, ANNA, spend=70, further_spends=[(GIFT, asked)]))
    settlement = book.settlement(booked).settlement
    assert (settlement.spent_points_minor, settlement.spent_money_minor) == (70, 70)
    (told,) = settlement.units
    assert (told.spent_points_minor, told.spent_money_minor, told.left_out_points_minor) == (spent, spent, left_out)
    assert told.balance.available_points_minor == 50 - spent
    assert moves(book, booked) == [
        (BONUS.number, AVAILABLE, REDEEMED, 70),
        *([(GIFT.number, AVAILABLE, REDEEMED, spent)] if spent else []),
    ]


def test_further_points_pay_at_their_own_rate_in_their_own_step() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[gift(57)]))
    command = purchase(2, ANNA)
    object.__setattr__(command, "further_spends", (UnitSpend(GIFT, Spend(57, 10, 250, 10)),))
    (told,) = book.settlement(book.book(command)).settlement.units
    assert (told.spent_points_minor, told.spent_money_minor, told.left_out_points_minor) == (50, 1250, 7)


def test_a_receipt_never_spends_what_it_earns_in_any_unit() -> None:
    book = MemoryBook()
    booked = book.book(purchase(1, ANNA, earn=[gift(50)], further_spends=[(GIFT, 20)]))
    (told,) = book.settlement(booked).settlement.units
    assert (told.spent_points_minor, told.left_out_points_minor, told.accrual_points_minor) == (0, 20, 50)


def test_time_passes_first_for_every_unit_concerned() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[gift(50, 3), Grant(40, NOON + DAY, None)]))
    booked = book.book(purchase(2, ANNA, further_spends=[(GIFT, 20)]), NOON + 5 * DAY)
    settlement = book.settlement(booked).settlement
    assert settlement.balance.available_points_minor == 40, "became active"
    assert settlement.units[0].left_out_points_minor == 20, "lapsed"


def test_a_receipt_with_further_units_only_leaves_the_own_one_alone() -> None:
    book = MemoryBook()
    decision = book.commit([purchase(1, ANNA, earn=[gift(5)])])
    assert decision.touched == {(ANNA, GIFT.number)}


def test_a_partner_s_points_are_the_partner_s_expense() -> None:
    book = MemoryBook()
    lines = [Line(earned_minor=10, further=(("", "pharmacy", 25), ("gift", "pharmacy", 3)))]
    booked = book.book(purchase(1, ANNA, earn=[10, partners(25), gift(3, account=PHARMACY)], lines=lines))
    settlement = book.settlement(booked).settlement
    assert settlement.accrual_points_minor == 35
    assert (book.total(ISSUED), book.total(PHARMACY), book.total(PHARMACY, GIFT)) == (-10, -25, -3)


def test_what_points_pay_at_a_partner_s_is_settled_with_it() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[100, gift(50)]))
    key = checkout(1)
    book.book(hold(key, ANNA, 60))
    command = purchase(2, ANNA, spend=80, captures=key, further_spends=[(GIFT, 20)], redeemed_account=PHARMACY)
    booked = book.book(command)
    assert moves(book, booked) == [
        (BONUS.number, HELD, PHARMACY, 60),
        (BONUS.number, AVAILABLE, PHARMACY, 20),
        (GIFT.number, AVAILABLE, PHARMACY, 20),
    ]
    assert book.settlement(booked).settlement.captured_points_minor == 60
    assert (book.total(REDEEMED), book.total(PHARMACY), book.total(PHARMACY, GIFT)) == (0, 80, 20)


def test_what_is_held_of_one_unit_leaves_another_one_free() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[100, gift(50)]))
    book.book(hold(checkout(1), ANNA, 100))
    booked = book.book(purchase(2, ANNA, spend=10, further_spends=[(GIFT, 50)]))
    settlement = book.settlement(booked).settlement
    assert (settlement.left_out_points_minor, settlement.units[0].spent_points_minor) == (10, 50)
    assert settlement.left_out_reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT


def test_two_receipts_of_one_batch_share_every_balance() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[gift(50)]))
    batch = [purchase(number, ANNA, further_spends=[(GIFT, 30)]) for number in (2, 3)]
    first, second = book.commit(batch).verdicts
    assert isinstance(first, Booked)
    assert isinstance(second, Booked)
    assert [book.settlement(each).settlement.units[0].spent_points_minor for each in (first, second)] == [30, 20]


# --- returns ------------------------------------------------------------------------------------------------------


def bring_back(book: MemoryBook, sold: Booked, number: int, asked: Sequence[tuple[int, int]], **options: int) -> Booked:
    """Bring goods back with receipt ``number``."""
    return book.book(goods_return(number, sold, asked, terms=book.terms, **options))


def test_each_unit_comes_back_in_the_proportion_in_which_it_paid() -> None:
    """Two lines of 6.00 and 4.00; bonus pays 5.00, gift 3.00, money the rest."""
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[500, gift(300)]))
    lines = [Line(2000, 600), Line(1000, 400)]
    sold = book.book(purchase(2, ANNA, lines=lines, spend=500, further_spends=[(GIFT, 300)]))
    event = book.settlement(bring_back(book, sold, 3, [(1, 1000)]))
    (line,) = event.goods_return.lines
    assert (line.points_money_minor, line.refund_points_minor) == (240, 150)
    assert [(part.unit, part.refund_points_minor) for part in line.units] == [("gift", 90)]
    assert event.goods_return.refund_money_minor == 60
    assert [
        (u.balance.unit, u.refund_points_minor, u.balance.available_points_minor) for u in event.settlement.units
    ] == [("gift", 90, 90)]
    rest = book.settlement(bring_back(book, sold, 4, []))
    assert rest.goods_return.refund_money_minor == 140
    assert (book.account("Anna").available_minor, book.account("Anna", GIFT).available_minor) == (500, 300)
    assert book.total(REDEEMED) == book.total(REDEEMED, GIFT) == 0
    (so_far,) = rest.goods_return.so_far.units
    assert (so_far.unit, so_far.refund_points_minor) == ("gift", 300)


def test_earned_points_are_taken_back_in_their_unit_and_to_their_account() -> None:
    book = MemoryBook()
    line = Line(2000, 1000, 20, further=(("", "pharmacy", 10), ("gift", "", 4), ("gift", "pharmacy", 6)))
    sold = book.book(purchase(1, ANNA, lines=[line], earn=[20, partners(10), gift(4), gift(6, account=PHARMACY)]))
    event = book.settlement(bring_back(book, sold, 2, [(1, 1000)]))
    assert (event.settlement.clawback_points_minor, event.settlement.units[0].clawback_points_minor) == (15, 5)
    totals = [book.total(account, unit) for unit in (BONUS, GIFT) for account in (ISSUED, PHARMACY)]
    assert totals == [-10, -5, -2, -3]
    bring_back(book, sold, 3, [])
    assert [book.total(account, unit) for unit in (BONUS, GIFT) for account in (ISSUED, PHARMACY)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("mode", "debt", "issued", "pharmacy"),
    [
        pytest.param(MODES[0], 30, 0, 0, id="a debt makes both whole"),
        pytest.param(WITHIN, 0, -30, 0, id="what is waived is the programme's loss"),
        pytest.param(OWN_ONLY, 0, -30, 0, id="own lots only: the same"),
    ],
)
def test_a_partner_is_credited_whatever_the_member_still_has(mode: int, debt: int, issued: int, pharmacy: int) -> None:
    book = MemoryBook()
    line = Line(1000, 1000, 20, further=(("", "pharmacy", 10),))
    sold = book.book(purchase(1, ANNA, lines=[line], earn=[20, partners(10)]))
    book.book(purchase(2, ANNA, spend=30))
    settlement = book.settlement(bring_back(book, sold, 3, [], clawback=mode)).settlement
    assert (settlement.clawback_points_minor, settlement.clawback_debt_points_minor) == (0, debt)
    assert settlement.clawback_waived_points_minor == 30 - debt
    assert (book.total(ISSUED), book.total(PHARMACY)) == (issued, pharmacy)


def test_what_was_paid_at_a_partner_s_comes_back_from_its_account() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[100]))
    sold = book.book(purchase(2, ANNA, lines=[Line(2000, 1000)], spend=100, redeemed_account=PHARMACY))
    bring_back(book, sold, 3, [(1, 1000)])
    assert (book.total(PHARMACY), book.total(REDEEMED), book.account("Anna").available_minor) == (50, 0, 50)


def test_points_that_were_bought_do_not_come_back_with_goods() -> None:
    book = MemoryBook()
    sold = book.book(purchase(1, ANNA, lines=[Line(1000, 1000, 10)], earn=[10, gift(500)]))
    event = book.settlement(bring_back(book, sold, 2, []))
    assert not event.settlement.units
    assert book.account("Anna", GIFT).available_minor == 500


def test_lapsed_points_of_a_further_unit_get_their_days_of_grace() -> None:
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[gift(50, 1)]))
    sold = book.book(purchase(2, ANNA, lines=[Line(1000, 1000)], further_spends=[(GIFT, 50)]))
    book.now = NOON + 2 * DAY
    bring_back(book, sold, 3, [], grace_days=14)
    (lot,) = book.lots("Anna", GIFT)
    assert (lot.remaining_minor, lot.expires_at) == (50, NOON + 16 * DAY)


# --- order does not matter -----------------------------------------------------------------------------------------

amounts = st.integers(0, 200)
some_lines = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3000), amounts, amounts, amounts, amounts).map(
        lambda p: Line(
            p[0] * 1000,
            p[1],
            p[2],
            further=tuple(
                part for part in (("", "pharmacy", p[3]), ("gift", "", p[4]), ("gift", "pharmacy", p[5])) if part[2]
            ),
        )
    ),
    min_size=1,
    max_size=4,
)
some_lots = st.lists(st.tuples(st.integers(1, 300), st.sampled_from([None, 9, 90])), max_size=3)


def grants_of(lines: Sequence[Line]) -> list[Grant]:
    """One lot for each unit and account that the lines earn from."""
    found: dict[tuple[str, str], int] = {}
    for line in lines:
        for unit, partner, points in (("", "", line.earned_minor), *line.further):
            found[unit, partner] = found.get((unit, partner), 0) + points
    return [
        Grant(points, None, None, unit=GIFT if unit else None, account=PHARMACY if partner else ISSUED)
        for (unit, partner), points in found.items()
        if points
    ]


def state_of(book: MemoryBook, unit: Unit) -> tuple[object, ...]:
    """What Anna has of a unit, lot by lot, and what accounts say."""
    account = book.account("Anna", unit)
    lots = [(lot.number, lot.ordinal, lot.remaining_minor, lot.pending) for lot in book.lots("Anna", unit)]
    totals = [book.total(account, unit) for account in (ISSUED, REDEEMED, PHARMACY)]
    return account.available_minor, account.pending_minor, account.debt_minor, lots, totals


def units_of(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Every unit of every line."""
    return [(number, 1000) for number, line in enumerate(lines, start=1) for _ in range(line.quantity_milli // 1000)]


@given(
    lines=some_lines,
    own_lots=some_lots,
    gift_lots=some_lots,
    shares=st.tuples(*[st.integers(0, 100)] * 2),
    later=st.tuples(amounts, amounts),
    mode=st.sampled_from(MODES),
    partner_s=st.booleans(),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_order_ends_where_one_full_return_ends(
    lines: list[Line],
    own_lots: list[tuple[int, int | None]],
    gift_lots: list[tuple[int, int | None]],
    shares: tuple[int, int],
    later: tuple[int, int],
    mode: int,
    partner_s: bool,
    data: st.DataObject,
) -> None:
    """In two units and with a partner: lot by lot, and account by account."""
    total = sum(line.amount_minor for line in lines)
    own = min(total, sum(points for points, _ in own_lots) * shares[0] // 100)
    gifts = min(total - own, sum(points for points, _ in gift_lots) * shares[1] // 100)
    parts = data.draw(st.permutations(units_of(lines)))
    ends = []
    ways: list[list[list[tuple[int, int]]]] = [[[]], [[part] for part in parts]]
    for way in ways:
        book = MemoryBook()
        for index, (points, lapses) in enumerate(own_lots):
            grant = Grant(points, None, None if lapses is None else NOON + lapses * DAY)
            book.book(adjust(f"before {index}", ANNA, grant))
        earned = [gift(points, lapses) for points, lapses in gift_lots]
        book.book(purchase(90, ANNA, earn=earned))
        sold = book.book(
            purchase(
                1,
                ANNA,
                lines=lines,
                spend=own or None,
                further_spends=[(GIFT, gifts)] if gifts else [],
                earn=grants_of(lines),
                redeemed_account=PHARMACY if partner_s else REDEEMED,
            )
        )
        book.book(purchase(2, ANNA, spend=later[0] or None, further_spends=[(GIFT, later[1])] if later[1] else []))
        money = 0
        for number, asked in enumerate(way, start=3):
            money += book.settlement(
                bring_back(book, sold, number, asked, clawback=mode)
            ).goods_return.refund_money_minor
        ends.append((money, state_of(book, BONUS), state_of(book, GIFT)))
    assert ends[0] == ends[1]
    assert ends[0][0] == total - own - gifts


def test_all_units_of_a_merged_member_move() -> None:
    """Each unit's transfer is its own; the other units stay as they are meanwhile."""
    book = MemoryBook()
    book.book(purchase(1, ANNA, earn=[100, gift(50)]))
    book.book(transfer_out("merge", ANNA, member("Borys"), None))
    assert (book.account("Anna").available_minor, book.account("Anna", GIFT).available_minor) == (0, 50)
