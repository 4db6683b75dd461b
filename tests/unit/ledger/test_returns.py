"""Returns: parts sum to the whole, in any order, and points go back where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.model import Booked, Grant
from ledger.entry.returns import LotPart, next_parts, plan_return, spread
from tests.support.commands import NOON, Line, adjust, checkout, goods_return, hold, member, purchase
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
DAY = timedelta(days=1)
MOST_PARTS = 8
WITHIN = int(journal_pb2.CLAWBACK_MODE_WITHIN_BALANCE)
OWN_ONLY = int(journal_pb2.CLAWBACK_MODE_OWN_LOT_ONLY)


def event_of(lines: Sequence[Line], spent: int = 0) -> journal_pb2.Event:
    """A booked purchase of these lines, paid with so many points worth one minor unit each."""
    event = journal_pb2.Event.FromString(purchase(1, ANNA, lines=lines).event)
    event.settlement.spent_points_minor = event.settlement.spent_money_minor = spent
    return event


def planned(event: journal_pb2.Event, returned: dict[int, int], asked: Sequence[tuple[int, int]]) -> list[int]:
    """Money, points back and points taken of one return."""
    plan = plan_return(event, returned, asked)
    assert not isinstance(plan, tuple), plan
    returned.update({line.line_number: line.quantity_milli for line in plan.so_far})
    return [plan.money_minor, plan.refund_points_minor, plan.clawback_points_minor]


@pytest.mark.parametrize(
    ("line", "asked", "money", "taken"),
    [
        pytest.param(Line(3000, 100, 10), [1000, 1000, 1000], [34, 33, 33], [4, 3, 3], id="three for 1.00"),
        pytest.param(Line(3000, 100, 10), [2000, 1000], [67, 33], [7, 3], id="two, then one"),
        pytest.param(Line(3000, 100, 10), [3000], [100], [10], id="all at once"),
        pytest.param(Line(4000, 6, 0), [1000] * 4, [2, 2, 1, 1], [0] * 4, id="the larger parts come first"),
        pytest.param(Line(750, 999, 7, weighed=True), [250, 500], [333, 666], [2, 5], id="a third of a weighed line"),
        pytest.param(Line(1000, 5, 5, weighed=True), [1, 499, 500], [0, 3, 2], [0, 3, 2], id="a crumb, then halves"),
        pytest.param(Line(2000, 1000, 10, 100), [1000, 1000], [450, 450], [5, 5], id="as discounted"),
    ],
)
def test_parts_of_a_line(line: Line, asked: list[int], money: list[int], taken: list[int]) -> None:
    event, returned = event_of([line]), dict[int, int]()
    parts = [planned(event, returned, [(1, quantity)]) for quantity in asked]
    assert [part[0] for part in parts] == money
    assert [part[2] for part in parts] == taken


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        pytest.param([(1, 3000)], "RETURN_EXCEEDS_PURCHASE", id="more than was bought"),
        pytest.param([(9, 1000)], "INVALID_REQUEST", id="a line that was not bought"),
        pytest.param([(1, 500)], "INVALID_REQUEST", id="half a piece"),
        pytest.param([(1, 1000), (1, 1000)], "INVALID_REQUEST", id="one line named twice"),
    ],
)
def test_what_cannot_come_back(asked: list[tuple[int, int]], reason: str) -> None:
    refused = plan_return(event_of([Line(2000, 100)]), {}, asked)
    assert isinstance(refused, tuple)
    assert common_pb2.RefusalReason.Name(refused.reason) == f"REFUSAL_REASON_{reason}"


def test_nothing_is_left_to_return() -> None:
    refused = plan_return(event_of([Line(2000, 100)]), {1: 2000}, [])
    assert isinstance(refused, tuple)
    assert refused.reason == common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE


def lines_of(quantities: st.SearchStrategy[int], *, weighed: bool) -> st.SearchStrategy[Line]:
    """Lines with any price, discount and points."""
    parts = st.tuples(quantities, st.integers(0, 5000), st.integers(0, 300), st.integers(0, 100))
    return parts.map(lambda p: Line(p[0], p[1], p[2], p[1] * p[3] // 100, weighed=weighed))


lines_strategy = st.lists(
    lines_of(st.integers(1, 5).map(lambda units: units * 1000), weighed=False)
    | lines_of(st.integers(1, 4000), weighed=True),
    min_size=1,
    max_size=5,
)


def some_parts(draw: st.DataObject, lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Cut every line into parts and shuffle them."""
    parts: list[tuple[int, int]] = []
    for number, line in enumerate(lines, start=1):
        left = line.quantity_milli
        while left:
            units = line.quantity_milli % 1000 == 0 and not line.weighed
            part = draw.draw(st.integers(1, left // 1000)) * 1000 if units else draw.draw(st.integers(1, left))
            part = part if len(parts) < MOST_PARTS else left
            parts.append((number, part))
            left -= part
    return draw.draw(st.permutations(parts))


@given(lines=lines_strategy, data=st.data())
@settings(max_examples=150, deadline=None)
def test_parts_in_any_order_sum_to_the_whole(lines: list[Line], data: st.DataObject) -> None:
    total = sum(line.amount_minor - line.discount_minor for line in lines)
    event = event_of(lines, spent=data.draw(st.integers(0, total)))
    whole = planned(event, {}, [])
    returned: dict[int, int] = {}
    parts = [planned(event, returned, [part]) for part in some_parts(data, lines)]
    assert [sum(column) for column in zip(*parts, strict=True)] == whole
    assert whole == [
        total - event.settlement.spent_money_minor,
        event.settlement.spent_points_minor,
        sum(line.earned_minor for line in lines),
    ]
    assert all(value >= 0 for part in parts for value in part), "nothing is ever given back by the shopper"


@given(amount=st.integers(0, 10_000), weights=st.lists(st.integers(0, 500), min_size=1, max_size=8).filter(any))
def test_what_is_spread_sums_up(amount: int, weights: list[int]) -> None:
    parts = spread(amount, weights)
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        exact = amount * weight / sum(weights)
        assert abs(part - exact) < 1


def test_the_specification_s_own_example() -> None:
    assert spread(10000, [20000, 20000, 10000]) == [4000, 4000, 2000]


def test_a_sequence_of_lots_is_given_back_in_pieces() -> None:
    lots = [LotPart(1, 1, 10), LotPart(2, 1, 5)]
    assert next_parts(lots, 0, 4) == [LotPart(1, 1, 4)]
    assert next_parts(lots, 4, 8) == [LotPart(1, 1, 6), LotPart(2, 1, 2)]
    assert next_parts(lots, 12, 9) == [LotPart(2, 1, 3)]


# --- what it does to the member's points -------------------------------------------------------------------------


def state_of(book: MemoryBook) -> tuple[object, ...]:
    """What Anna has, lot by lot."""
    account = book.account("Anna")
    lots = [(lot.number, lot.ordinal, lot.remaining_minor, lot.held_minor, lot.pending) for lot in book.lots("Anna")]
    return account.available_minor, account.pending_minor, account.debt_minor, lots


def bought(book: MemoryBook, lines: Sequence[Line], spend: int, before: Sequence[Grant] = ()) -> Booked:
    """Anna has some lots, buys, and earns what the lines say."""
    for index, grant in enumerate(before):
        book.book(adjust(f"before {index}", ANNA, grant))
    earned = [line.earned_minor for line in lines if line.earned_minor]
    return book.book(purchase(1, ANNA, lines=lines, spend=spend or None, earn=[sum(earned)] if earned else []))


def bring_back(book: MemoryBook, sold: Booked, number: int, asked: Sequence[tuple[int, int]], **options: int) -> Booked:
    """Bring goods back with receipt ``number``."""
    return book.book(goods_return(number, sold, asked, terms=book.terms, **options))


@given(
    lines=lines_strategy,
    before=st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([None, NOON + 90 * DAY, NOON + 9 * DAY])).map(
            lambda lot: Grant(lot[0], None, lot[1])
        ),
        max_size=4,
    ),
    share=st.integers(0, 100),
    later=st.integers(0, 600),
    mode=st.sampled_from([1, WITHIN, OWN_ONLY]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_order_ends_where_one_full_return_ends(
    lines: list[Line], before: list[Grant], share: int, later: int, mode: int, data: st.DataObject
) -> None:
    """Lot by lot, with points spent on the purchase and earned points spent since."""
    total = sum(line.amount_minor - line.discount_minor for line in lines)
    spend = min(total, sum(grant.points_minor for grant in before) * share // 100)
    parts = some_parts(data, lines)
    ends = []
    ways: list[list[list[tuple[int, int]]]] = [[[]], [[part] for part in parts]]
    for returns in ways:
        book = MemoryBook()
        sold = bought(book, lines, spend, before)
        book.book(purchase(2, ANNA, spend=later or None, amount_minor=later))
        for number, asked in enumerate(returns, start=3):
            bring_back(book, sold, number, asked, clawback=mode)
        ends.append(state_of(book))
    assert ends[0] == ends[1]


def test_points_go_back_to_the_lot_they_came_from() -> None:
    book = MemoryBook()
    soon, late = NOON + 10 * DAY, NOON + 100 * DAY
    sold = bought(book, [Line(2000, 1000)], 150, [Grant(100, None, soon), Grant(100, None, late)])
    bring_back(book, sold, 2, [(1, 1000)])
    assert [(lot.expires_at, lot.remaining_minor) for lot in book.lots("Anna")] == [(soon, 25), (late, 100)]
    bring_back(book, sold, 3, [])
    assert [(lot.expires_at, lot.remaining_minor) for lot in book.lots("Anna")] == [(soon, 100), (late, 100)]


def test_points_that_lapsed_meanwhile_stay_lapsed() -> None:
    book = MemoryBook()
    sold = bought(book, [Line()], 100, [Grant(100, None, NOON + DAY)])
    book.now = NOON + 2 * DAY
    event = book.settlement(bring_back(book, sold, 2, []))
    assert event.settlement.refund_points_minor == 100
    assert state_of(book) == (0, 0, 0, [])


def test_points_that_lapsed_meanwhile_get_some_days_of_grace() -> None:
    book = MemoryBook()
    sold = bought(book, [Line()], 100, [Grant(100, None, NOON + DAY)])
    book.now = NOON + 2 * DAY
    back = bring_back(book, sold, 2, [], grace_days=14)
    (lot,) = book.lots("Anna")
    assert (lot.number, lot.remaining_minor, lot.expires_at) == (back.number, 100, NOON + 16 * DAY)
    assert book.terms[(lot.number, lot.ordinal)].issued_at == book.entries[0].booked_at


@pytest.mark.parametrize(
    ("mode", "taken", "debt", "waived", "left"),
    [
        pytest.param(1, 70, 30, 0, 0, id="the rest becomes a debt"),
        pytest.param(WITHIN, 70, 0, 30, 0, id="within the balance"),
        pytest.param(OWN_ONLY, 20, 0, 80, 50, id="from its own lot only"),
    ],
)
def test_earned_points_that_are_spent_already(mode: int, taken: int, debt: int, waived: int, left: int) -> None:
    book = MemoryBook()
    sold = bought(book, [Line(1000, 1000, 100)], 0)  # earns 100
    book.book(purchase(2, ANNA, spend=80))  # 20 are left of them
    book.book(adjust("others", ANNA, 50))
    settlement = book.settlement(bring_back(book, sold, 3, [], clawback=mode)).settlement
    assert settlement.clawback_points_minor == taken
    assert settlement.clawback_debt_points_minor == debt
    assert settlement.clawback_waived_points_minor == waived
    assert (settlement.balance.available_points_minor, settlement.balance.debt_points_minor) == (left, debt)


def test_later_grants_pay_the_debt_first() -> None:
    book = MemoryBook()
    sold = bought(book, [Line(1000, 1000, 100)], 0)
    book.book(purchase(2, ANNA, spend=100))
    bring_back(book, sold, 3, [])
    assert book.account("Anna").debt_minor == 100
    settlement = book.settlement(book.book(purchase(4, ANNA, earn=[130]))).settlement
    assert settlement.debt_paid_points_minor == 100
    assert settlement.balance.available_points_minor == 30


def test_pending_points_are_taken_back_before_they_become_active() -> None:
    book = MemoryBook()
    grant = Grant(100, NOON + 14 * DAY, None)
    sold = book.book(purchase(1, ANNA, lines=[Line(2000, 1000, 100)], earn=[grant]))
    bring_back(book, sold, 2, [(1, 1000)])
    assert (book.account("Anna").pending_minor, book.account("Anna").debt_minor) == (50, 0)
    bring_back(book, sold, 3, [])
    assert state_of(book) == (0, 0, 0, [])


def test_what_a_checkout_holds_is_not_taken_back() -> None:
    book = MemoryBook()
    sold = bought(book, [Line(1000, 1000, 100)], 0)
    book.book(hold(checkout(1), ANNA, 100))
    bring_back(book, sold, 2, [])
    account = book.account("Anna")
    assert (account.available_minor, account.held_minor, account.debt_minor) == (0, 100, 100)


def test_coupons_come_back_with_the_last_goods() -> None:
    book = MemoryBook()
    command = purchase(1, ANNA, lines=[Line(2000, 1000)])
    event = journal_pb2.Event.FromString(command.event)
    event.purchase.coupon_codes.append("CAKE-7")
    object.__setattr__(command, "event", event.SerializeToString())
    sold = book.book(command)
    assert not book.settlement(bring_back(book, sold, 2, [(1, 1000)])).goods_return.coupon_codes
    assert book.settlement(bring_back(book, sold, 3, [])).goods_return.coupon_codes == ["CAKE-7"]


def test_a_receipt_without_a_member_gives_money_back_only() -> None:
    book = MemoryBook()
    sold = book.book(purchase(1, None, lines=[Line(2000, 999)]))
    event = book.settlement(bring_back(book, sold, 2, [(1, 1000)]))
    assert event.goods_return.refund_money_minor == 500
    assert not event.postings


def test_two_returns_of_one_line_in_one_batch() -> None:
    book = MemoryBook()
    sold = bought(book, [Line(1000, 1000)], 0)
    batch = [goods_return(number, sold, [(1, 1000)], terms=book.terms) for number in (2, 3)]
    first, second = book.commit(batch).verdicts
    assert isinstance(first, Booked)
    assert getattr(second, "reason", None) == common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE
