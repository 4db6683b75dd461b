"""What a batch does to a book, one case a line in the words of the till."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.books import BEFORE_ALL_ENTRIES
from ledger.entry.decide import decide
from ledger.entry.model import (
    AVAILABLE,
    DEBT,
    EXPIRED,
    ISSUED,
    PENDING,
    REDEEMED,
    Account,
    Booked,
    BookState,
    Decision,
    Declined,
    Grant,
    Head,
    Lot,
    Purchase,
    Repeat,
    Spend,
)
from tests.support.commands import BONUS, NOON, member, purchase

ANNA = member("Anna")
NOW = datetime(2026, 3, 14, 12, 0, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def lot(number: int, points: int, lapses: datetime | None = None, active: datetime | None = None) -> Lot:
    """A lot granted by entry ``number``; pending if it has a moment of activation."""
    return Lot(number, 1, points, points, active is not None, active, lapses)


def state_with(*lots: Lot, debt_minor: int = 0) -> BookState:
    """A book at entry 100 in which Anna has these lots."""
    moments = [each.active_at if each.pending else each.expires_at for each in lots]
    account = Account(
        available_minor=sum(each.remaining_minor for each in lots if not each.pending),
        pending_minor=sum(each.remaining_minor for each in lots if each.pending),
        debt_minor=debt_minor,
        next_change_at=min((moment for moment in moments if moment is not None), default=None),
        lots=list(lots),
    )
    return BookState(0, Head(100, bytes(32), BEFORE_ALL_ENTRIES), accounts={(ANNA, BONUS.number): account})


def settlement_of(decision: Decision, index: int = 0) -> checkout_pb2.Settlement:
    """The settlement that the caller of a booked command is told."""
    verdict = decision.verdicts[index]
    assert isinstance(verdict, Booked)
    return journal_pb2.Event.FromString(verdict.event).settlement


def moves(decision: Decision) -> list[tuple[int, int, int, int]]:
    """The postings as (debit, credit, points, entry that granted the lot)."""
    return [(row.debit, row.credit, row.points_minor, row.lot_number) for row in decision.postings]


@pytest.mark.parametrize(
    ("lots", "asked", "taken"),
    [
        pytest.param([lot(1, 500)], 300, [(1, 300)], id="part of one lot"),
        pytest.param([lot(1, 500)], 500, [(1, 500)], id="the whole lot"),
        pytest.param([lot(1, 500)], 900, [(1, 500)], id="no more than there is"),
        pytest.param(
            [lot(1, 5, NOW + 9 * DAY), lot(2, 5, NOW + DAY)], 7, [(2, 5), (1, 2)], id="soonest to lapse first"
        ),
        pytest.param([lot(1, 5), lot(2, 5, NOW + DAY)], 7, [(2, 5), (1, 2)], id="never-lapsing last"),
        pytest.param([lot(2, 5), lot(1, 5)], 7, [(1, 5), (2, 2)], id="older first among never-lapsing"),
        pytest.param([lot(2, 5, NOW + DAY), lot(1, 5, NOW + DAY)], 7, [(1, 5), (2, 2)], id="older first among equals"),
        pytest.param([lot(1, 5, active=NOW + DAY), lot(2, 3)], 7, [(2, 3)], id="pending points stay"),
        pytest.param([], 7, [], id="nothing there"),
    ],
)
def test_spending_takes_lots_in_order(lots: list[Lot], asked: int, taken: list[tuple[int, int]]) -> None:
    decision = decide(state_with(*lots), [purchase(1, ANNA, spend=asked)], NOW)
    assert [(m[3], m[2]) for m in moves(decision)] == taken
    assert all(m[:2] == (AVAILABLE, REDEEMED) for m in moves(decision))
    settlement = settlement_of(decision)
    assert settlement.spent_points_minor == sum(points for _, points in taken)
    assert settlement.left_out_points_minor == asked - settlement.spent_points_minor


@pytest.mark.parametrize(
    ("spend", "spent", "money", "reason"),
    [
        pytest.param(Spend(250, 100, 1, 1), 200, 200, "POINTS_INSUFFICIENT", id="whole steps only"),
        pytest.param(Spend(300, 1, 1, 10), 300, 30, "UNSPECIFIED", id="ten points pay one"),
        pytest.param(Spend(300, 1, 5, 1), 300, 1500, "UNSPECIFIED", id="one point pays five"),
        pytest.param(
            Spend(300, 1, 1, 1, int(common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN)),
            0,
            0,
            "SPENDING_FORBIDDEN",
            id="earn-only",
        ),
    ],
)
def test_spending_pays_at_the_rate_and_in_steps(spend: Spend, spent: int, money: int, reason: str) -> None:
    settlement = settlement_of(decide(state_with(lot(1, 1000)), [purchase(1, ANNA, spend=spend)], NOW))
    assert (settlement.spent_points_minor, settlement.spent_money_minor) == (spent, money)
    assert common_pb2.RefusalReason.Name(settlement.left_out_reason) == f"REFUSAL_REASON_{reason}"


@pytest.mark.parametrize(
    ("lots", "expected", "available", "pending"),
    [
        pytest.param([lot(1, 7, NOW)], [(AVAILABLE, EXPIRED, 7, 1)], 0, 0, id="lapses at its very moment"),
        pytest.param([lot(1, 7, NOW + DAY)], [], 7, 0, id="not before"),
        pytest.param([lot(1, 7, active=NOW)], [(PENDING, AVAILABLE, 7, 1)], 7, 0, id="becomes active"),
        pytest.param([lot(1, 7, active=NOW + DAY)], [], 0, 7, id="stays pending"),
        pytest.param(
            [lot(1, 7, NOW - DAY, active=NOW - 9 * DAY)],
            [(PENDING, AVAILABLE, 7, 1), (AVAILABLE, EXPIRED, 7, 1)],
            0,
            0,
            id="became active and lapsed unseen",
        ),
    ],
)
def test_time_passes_before_anything_else(
    lots: list[Lot], expected: list[tuple[int, int, int, int]], available: int, pending: int
) -> None:
    decision = decide(state_with(*lots), [purchase(1, ANNA)], NOW)
    assert moves(decision) == expected
    balance = settlement_of(decision).balance
    assert (balance.available_points_minor, balance.pending_points_minor) == (available, pending)


def test_a_receipt_never_spends_what_it_earns() -> None:
    settlement = settlement_of(decide(state_with(), [purchase(1, ANNA, spend=50, earn=[100])], NOW))
    assert (settlement.spent_points_minor, settlement.balance.available_points_minor) == (0, 100)


def test_grants_pay_a_debt_first() -> None:
    decision = decide(state_with(debt_minor=30), [purchase(1, ANNA, earn=[20, 25])], NOW)
    assert moves(decision) == [
        (ISSUED, AVAILABLE, 20, 101),
        (AVAILABLE, DEBT, 20, 101),
        (ISSUED, AVAILABLE, 25, 101),
        (AVAILABLE, DEBT, 10, 101),
    ]
    settlement = settlement_of(decision)
    assert (settlement.debt_paid_points_minor, settlement.balance.debt_points_minor) == (30, 0)
    assert settlement.balance.available_points_minor == 15


def test_pending_grants_do_not_pay_a_debt() -> None:
    pending = Grant(20, NOW + DAY, None)
    settlement = settlement_of(decide(state_with(debt_minor=30), [purchase(1, ANNA, earn=[pending])], NOW))
    assert (settlement.pending_points_minor, settlement.balance.debt_points_minor) == (20, 30)


def test_points_of_a_receipt_that_arrives_after_their_expiry_lapse_at_once() -> None:
    decision = decide(state_with(debt_minor=5), [purchase(1, ANNA, earn=[Grant(20, None, NOW - DAY)])], NOW)
    assert moves(decision) == [(ISSUED, AVAILABLE, 20, 101), (AVAILABLE, EXPIRED, 20, 101)]
    assert settlement_of(decision).balance.available_points_minor == 0


def test_later_commands_see_earlier_ones() -> None:
    batch = [purchase(1, ANNA, earn=[100]), purchase(2, ANNA, spend=80), purchase(3, ANNA, spend=80)]
    decision = decide(state_with(), batch, NOW)
    assert [settlement_of(decision, i).spent_points_minor for i in range(3)] == [0, 80, 20]
    assert [entry.number for entry in decision.entries] == [101, 102, 103]


MILK = purchase(1, ANNA, earn=[10])


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        pytest.param(purchase(1, ANNA, earn=[10]), "repeat", id="the same message"),
        pytest.param(purchase(1, ANNA, earn=[10], message="new"), "repeat", id="the same receipt in a new message"),
        pytest.param(purchase(2, ANNA, message="message 1", amount_minor=5), "MESSAGE_ID_REUSED", id="another receipt"),
        pytest.param(purchase(1, ANNA, amount_minor=5), "MESSAGE_ID_REUSED", id="another total, same message id"),
        pytest.param(purchase(1, ANNA, amount_minor=5, message="new"), "RECEIPT_KEY_REUSED", id="another total"),
        pytest.param(purchase(1, member("Bohdan"), message="new"), "RECEIPT_KEY_REUSED", id="another card"),
        pytest.param(purchase(2, ANNA), "booked", id="the next receipt"),
    ],
)
def test_a_key_has_one_answer(second: Purchase, verdict: str) -> None:
    decision = decide(state_with(), [MILK, second], NOW)
    answer = decision.verdicts[1]
    if verdict == "repeat":
        assert answer == Repeat(0, 101)
    elif verdict == "booked":
        assert isinstance(answer, Booked)
    else:
        assert isinstance(answer, Declined)
        assert common_pb2.RefusalReason.Name(answer.reason) == f"REFUSAL_REASON_{verdict}"
    assert len(decision.entries) == (2 if verdict == "booked" else 1)


def test_a_clock_that_stepped_back_does_not_turn_the_book_back() -> None:
    state = state_with()
    state.head = state.head._replace(booked_at=NOW + DAY)
    decision = decide(state, [purchase(1, ANNA), purchase(2, ANNA)], NOW)
    first, second = (entry.booked_at for entry in decision.entries)
    assert NOW + DAY < first < second


def test_a_receipt_without_a_member_moves_no_points() -> None:
    decision = decide(state_with(), [purchase(1, None)], NOW)
    assert not decision.postings
    assert not settlement_of(decision).HasField("balance")


def test_every_entry_sums_to_zero_and_chains() -> None:
    batch = [purchase(n, ANNA, earn=[10 * n], spend=n) for n in range(1, 9)]
    decision = decide(state_with(lot(1, 100, NOW + DAY)), batch, NOW)
    assert all(row.points_minor > 0 and row.debit != row.credit for row in decision.postings)
    assert len({entry.hash for entry in decision.entries}) == len(batch)
    assert all(entry.event_at == NOON for entry in decision.entries)
