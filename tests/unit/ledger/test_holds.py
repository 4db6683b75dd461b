"""Holds: kept at once, captured or released once, judged in the order of the ledger."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.model import MAX_OPEN_HOLDS, Booked, Grant, Repeat, Spend, Unchanged
from tests.support.commands import NOON, adjust, cancel, checkout, hold, member, pass_time, purchase
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LANE_1, LANE_2 = checkout("a", "1"), checkout("b", "2")


def book_with(*points: Grant | int) -> MemoryBook:
    """A book in which Anna has these lots."""
    book = MemoryBook()
    for index, each in enumerate(points):
        book.book(adjust(f"lot {index}", ANNA, each))
    return book


def have(book: MemoryBook) -> tuple[int, int]:
    """What Anna can spend, and what is held."""
    account = book.account("Anna")
    return account.available_minor, account.held_minor


def ends(booked: Booked) -> list[tuple[str, int, int]]:
    """How holds ended with an entry: how, captured, released."""
    event = journal_pb2.Event.FromString(booked.event)
    return [
        (
            journal_pb2.HoldEndKind.Name(end.how).removeprefix("HOLD_END_KIND_"),
            end.captured_points_minor,
            end.released_points_minor,
        )
        for end in event.hold_ends
    ]


def test_a_hold_counts_at_once() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    assert have(book) == (30, 70)


@pytest.mark.parametrize(
    ("paid", "ended", "spent", "left"),
    [
        pytest.param(70, ("CAPTURED", 70, 0), 70, 30, id="the whole"),
        pytest.param(40, ("CAPTURED", 40, 30), 40, 60, id="a part; the rest is released"),
        pytest.param(None, ("CAPTURED", 0, 70), 0, 100, id="paid in money after all"),
        pytest.param(90, ("CAPTURED", 70, 0), 90, 10, id="more than was held, as far as the balance goes"),
        pytest.param(150, ("CAPTURED", 70, 0), 100, 0, id="more than there is"),
    ],
)
def test_a_receipt_captures_its_hold(paid: int | None, ended: tuple[str, int, int], spent: int, left: int) -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    booked = book.book(purchase(1, ANNA, spend=paid, captures=LANE_1))
    settlement = book.settlement(booked).settlement
    assert ends(booked) == [ended]
    assert (settlement.captured_points_minor, settlement.spent_points_minor) == (ended[1], spent)
    assert settlement.left_out_points_minor == (paid or 0) - spent
    assert have(book) == (left, 0)


def test_what_was_held_is_settled_whatever_forbids_spending_now() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    forbidden = Spend(80, 1, 1, 1, forbidden=common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN)
    settlement = book.settlement(book.book(purchase(1, ANNA, spend=forbidden, captures=LANE_1))).settlement
    assert settlement.spent_points_minor == 70
    assert settlement.left_out_reason == common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN


def test_points_are_spent_in_steps() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 40))
    settlement = book.settlement(book.book(purchase(1, ANNA, spend=Spend(95, 20, 1, 1), captures=LANE_1))).settlement
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (80, 15)


def test_a_second_hold_of_a_checkout_replaces_the_first() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    booked = book.book(hold(LANE_1, ANNA, 90))
    assert ends(booked) == [("REPLACED", 0, 70)]
    assert have(book) == (10, 90)


def test_another_lane_is_told_where_the_points_are() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    refused = book.refuse(hold(LANE_2, ANNA, 60), NOON + timedelta(seconds=40))
    assert refused.reason == common_pb2.REFUSAL_REASON_HELD_ELSEWHERE
    assert "store 1, lane 1, 39 s ago" in refused.message


def test_another_lane_may_hold_the_rest() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    event = book.settlement(book.book(hold(LANE_2, ANNA, 30)))
    assert [(each.terminal_id, each.points_minor) for each in event.hold.held_elsewhere] == [("1", 70)]
    assert have(book) == (0, 100)


def test_too_few_points_are_too_few_wherever_they_are() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    assert book.refuse(hold(LANE_2, ANNA, 101)).reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT
    assert have(book) == (30, 70)


def test_a_cashier_takes_over() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    booked = book.book(hold(LANE_2, ANNA, 100, takeover="the first lane broke down"))
    assert ends(booked) == [("TAKEN_OVER", 0, 70)]
    paid_at_the_first_lane = book.settlement(book.book(purchase(1, ANNA, spend=70, captures=LANE_1))).settlement
    assert paid_at_the_first_lane.spent_points_minor == 0
    assert paid_at_the_first_lane.left_out_points_minor == 70


def test_cancelling_releases_and_repeats_its_answer() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    released = book.book(cancel(LANE_1, ANNA))
    assert ends(released) == [("CANCELLED", 0, 70)]
    for message in ("the same message", "another message"):
        again = cancel(LANE_1, ANNA, message="" if message == "the same message" else message)
        assert book.commit([again]).verdicts == [Repeat(0, released.number)]
    assert have(book) == (100, 0)


@pytest.mark.parametrize("paid", [True, False], ids=["paid already", "never held"])
def test_there_is_nothing_to_cancel(paid: bool) -> None:
    book = book_with(100)
    if paid:
        book.book(hold(LANE_1, ANNA, 70))
        book.book(purchase(1, ANNA, spend=70, captures=LANE_1))
    assert book.refuse(cancel(LANE_1, ANNA)).reason == common_pb2.REFUSAL_REASON_HOLD_GONE


def test_a_hold_that_comes_after_its_receipt_is_refused() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 40))
    book.book(purchase(1, ANNA, spend=40, captures=LANE_1))
    assert book.refuse(hold(LANE_1, ANNA, 30)).reason == common_pb2.REFUSAL_REASON_HOLD_GONE
    book.book(hold(LANE_1, ANNA, 30, message="next day"), NOON + 2 * DAY)


def test_the_same_hold_again_is_the_same_hold() -> None:
    book = book_with(100)
    first = book.book(hold(LANE_1, ANNA, 70))
    assert book.commit([hold(LANE_1, ANNA, 70)]).verdicts == [Repeat(0, first.number)]


@pytest.mark.parametrize(
    ("seconds", "ended", "spent"),
    [
        pytest.param(599, ("CAPTURED", 70, 0), 70, id="just in time"),
        pytest.param(601, ("EXPIRED", 0, 70), 70, id="too late, but the points are there still"),
    ],
)
def test_a_hold_is_captured_or_expired(seconds: int, ended: tuple[str, int, int], spent: int) -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70, ttl_seconds=600))
    booked = book.book(purchase(1, ANNA, spend=70, captures=LANE_1), NOON + timedelta(seconds=seconds))
    assert ends(booked) == [ended]
    assert book.settlement(booked).settlement.spent_points_minor == spent


def test_points_of_an_expired_hold_can_be_gone() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70, ttl_seconds=600))
    book.book(purchase(1, ANNA, spend=100), NOON + 11 * MINUTE)
    settlement = book.settlement(book.book(purchase(2, ANNA, spend=70, captures=LANE_1))).settlement
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (0, 70)


def test_held_points_outlive_their_lot_until_the_hold_ends() -> None:
    book = book_with(Grant(100, None, NOON + 5 * MINUTE))
    book.book(hold(LANE_1, ANNA, 60, ttl_seconds=600))
    lapsed = book.book(pass_time(ANNA), NOON + 6 * MINUTE)
    assert have(book) == (0, 60)
    assert [posting.points_minor for posting in book.settlement(lapsed).postings] == [40]
    settlement = book.settlement(book.book(purchase(1, ANNA, spend=50, captures=LANE_1))).settlement
    assert settlement.spent_points_minor == 50
    assert have(book) == (0, 0), "what was released lapsed with its lot"


def test_released_points_pay_a_debt_first() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 100))
    account = book.account("Anna")
    account.debt_minor = 30  # as a return made it meanwhile
    book.book(cancel(LANE_1, ANNA))
    assert have(book) == (70, 0)


def test_time_passes_once() -> None:
    book = book_with(Grant(10, NOON + DAY, None), Grant(20, None, NOON + DAY))
    book.book(hold(LANE_1, ANNA, 5, ttl_seconds=60))
    assert book.commit([pass_time(ANNA)]).verdicts == [Unchanged()]
    booked = book.book(pass_time(ANNA), NOON + 2 * DAY)
    assert ends(booked) == [("EXPIRED", 0, 5)]
    assert have(book) == (10, 0)
    assert book.commit([pass_time(ANNA)]).verdicts == [Unchanged()]


def test_a_register_in_a_loop_is_stopped() -> None:
    book = book_with(1000)
    for number in range(MAX_OPEN_HOLDS):
        book.book(hold(checkout(number), ANNA, 1))
    assert book.refuse(hold(checkout("one more"), ANNA, 1)).reason == common_pb2.REFUSAL_REASON_HELD_ELSEWHERE


def test_commit_and_cancel_in_one_batch() -> None:
    book = book_with(100)
    book.book(hold(LANE_1, ANNA, 70))
    verdicts = book.commit([cancel(LANE_1, ANNA), purchase(1, ANNA, spend=70, captures=LANE_1)]).verdicts
    assert all(isinstance(verdict, Booked) for verdict in verdicts)
    assert have(book) == (30, 0), "the receipt found its points where the cancel had put them"
