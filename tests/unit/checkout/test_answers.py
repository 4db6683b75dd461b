"""What cashiers and registers are told about holds and returns: texts, notices, and what a message stands for."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.model import Booked, Unit
from ledger.reading.lookups import CheckoutHold, HeldPoints
from server.checkout.goods_return import return_response
from server.checkout.hold import HoldContext, cancel_command, cancel_response, hold_command
from server.checkout.presented import NOTHING
from server.checkout.quote import (
    held_elsewhere,
    held_elsewhere_notice,
    held_elsewhere_text,
    of_other_checkouts,
    of_other_lanes,
)
from server.checkout.sale import Sale
from server.members.found import Found, MemberRecord
from server.promotions import ReceiptFacts, quote
from tests.unit.promotions.builders import STORE_ZONE, receipt, rules

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
BONUS = Unit(1, "bonus", 2)


def held(lane: str, points_minor: int, seconds: int) -> HeldPoints:
    """Points that a lane of store 12 has held for so long."""
    return HeldPoints(b"checkout of " + lane.encode(), 1, "12", lane, points_minor, NOON - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("holds", "precision", "text"),
    [
        pytest.param(
            [held("3", 1250, 40)], 2, "Held at store 12, lane 3, 40 s ago: 12.50 points.", id="at one other lane"
        ),
        pytest.param([held("3", 12, 7)], 0, "Held at store 12, lane 3, 7 s ago: 12 points.", id="whole points"),
        pytest.param(
            [held("3", 5, 3600), held("4", 100, 0)],
            2,
            "Held at store 12, lane 3, 60 min ago: 0.05 points; at store 12, lane 4, 0 s ago: 1.00 points.",
            id="at two",
        ),
        pytest.param(
            [held(str(lane), 100, 1) for lane in range(2, 7)],
            2,
            "Held at store 12, lane 2, 1 s ago: 1.00 points; at store 12, lane 3, 1 s ago: 1.00 points; "
            "at store 12, lane 4, 1 s ago: 1.00 points; and at 2 more.",
            id="at many: the screen is small",
        ),
        pytest.param(
            [held("3", 100, -5)],
            2,
            "Held at store 12, lane 3, 0 s ago: 1.00 points.",
            id="by a process whose clock is ahead",
        ),
    ],
)
def test_where_points_are_held(holds: list[HeldPoints], precision: int, text: str) -> None:
    elsewhere = held_elsewhere(holds, NOON)
    assert held_elsewhere_text(elsewhere, precision) == text
    (notice,) = held_elsewhere_notice(elsewhere, precision)
    assert (notice.code, notice.text) == ("HELD_ELSEWHERE", text)


def test_what_a_lane_holds_itself_is_not_elsewhere() -> None:
    holds = [held("1", 100, 5), held("2", 100, 5)]
    assert of_other_lanes(holds, "12", "1") == of_other_checkouts(holds, b"checkout of 1") == holds[1:]
    assert held_elsewhere_notice([], 2) == []


MEMBER = Found(
    MemberRecord(
        uuid.uuid5(uuid.NAMESPACE_OID, "olena"),
        0,
        common_pb2.MEMBER_STATUS_ACTIVE,
        "O*** K.",
        date(1990, 2, 28),
        "uk",
        NOON,
        (uuid.uuid5(uuid.NAMESPACE_OID, "an older card's member"),),
    ),
    common_pb2.IDENTIFIER_KIND_CARD,
)


def hold_of(**changes: object) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the content hashes of a hold with some fields changed."""
    fields: dict[str, object] = {
        "message_id": str(uuid.UUID(int=1)),
        "checkout_key": checkout_pb2.CheckoutKey(store_id="12", terminal_id="1", checkout_id="c"),
        "identifier": common_pb2.Identifier(card_number="123"),
        "receipt": common_pb2.Receipt(currency_code="UAH", lines=[common_pb2.ReceiptLine(line_number=1, sku="x")]),
        "spend_points_minor": 100,
        **changes,
    }
    request = checkout_pb2.HoldRequest(**fields)  # type: ignore[arg-type]  # the message's own fields
    programme = rules()
    facts: ReceiptFacts = receipt(10_000)
    sale = Sale(programme, STORE_ZONE, facts, [])
    context = HoldContext(sale, BONUS, MEMBER, None, quote(programme, facts, None, 100), NOTHING)
    command = hold_command(request, context, books=4)
    return command.content_hash, command.same_contents


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"message_id": str(uuid.UUID(int=2))}, id="another message id"),
        pytest.param({"identifier": common_pb2.Identifier(phone="0501234567")}, id="the same member by phone"),
        pytest.param({"spending_proof": "1234"}, id="a PIN, which could be guessed from the hash"),
    ],
)
def test_a_hold_with_this_change_asks_for_the_same(change: dict[str, object]) -> None:
    assert hold_of(**change) == hold_of()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spend_points_minor": 101}, id="points"),
        pytest.param({"ttl_seconds": 60}, id="time to live"),
        pytest.param({"takeover_reason": "changed lanes"}, id="take-over"),
        pytest.param({"coupon_codes": ["TEN"]}, id="coupons"),
        pytest.param({"checkout_key": checkout_pb2.CheckoutKey(store_id="12", checkout_id="c")}, id="lane"),
        pytest.param({"receipt": common_pb2.Receipt(currency_code="UAH")}, id="receipt"),
    ],
)
def test_a_hold_with_this_change_asks_for_something_else(change: dict[str, object]) -> None:
    assert hold_of(**change)[0] != hold_of()[0]


def test_a_hold_of_a_member_who_was_merged_in_since_is_known_again() -> None:
    _, same_contents = hold_of()
    assert len(same_contents) == 1


def test_a_cancel_is_the_same_whomever_the_checkout_holds_for_by_now() -> None:
    request = checkout_pb2.CancelRequest(
        message_id=str(uuid.UUID(int=1)), checkout_key=checkout_pb2.CheckoutKey(store_id="12", checkout_id="c")
    )
    holds = [CheckoutHold(book, 7, uuid.uuid4(), BONUS, NOON, None, 1) for book in (0, 1)]
    first, second = (cancel_command(request, hold, NOON) for hold in holds)
    assert first.content_hash == second.content_hash
    assert (first.book, second.book) == (0, 1)


CANCELLED, EXPIRED = journal_pb2.HOLD_END_KIND_CANCELLED, journal_pb2.HOLD_END_KIND_EXPIRED


@pytest.mark.parametrize(
    ("ends", "released"),
    [
        pytest.param([(7, CANCELLED, 300)], 300, id="its own"),
        pytest.param([(5, EXPIRED, 40), (7, CANCELLED, 300)], 300, id="beside another that expired"),
        pytest.param([(5, CANCELLED, 40), (7, EXPIRED, 300)], 300, id="expired with another's cancel"),
        pytest.param([(5, CANCELLED, 40)], 40, id="of a checkout that holds again since"),
    ],
)
def test_what_a_cancel_released(ends: list[tuple[int, journal_pb2.HoldEndKind, int]], released: int) -> None:
    event = journal_pb2.Event(
        hold_ends=[
            journal_pb2.HoldEnd(hold_number=number, how=how, released_points_minor=points)
            for number, how, points in ends
        ]
    )
    answer = cancel_response(Booked(0, 9, NOON, event.SerializeToString(), repeated=False), 7)
    assert answer.released_points_minor == released


def posting(debit: int, credit: int, points_minor: int, lot_number: int) -> journal_pb2.Posting:
    return journal_pb2.Posting(
        unit=1,
        debit=debit,  # type: ignore[arg-type]  # an int
        credit=credit,  # type: ignore[arg-type]  # an int
        points_minor=points_minor,
        lot_number=lot_number,
        lot_ordinal=1,
    )


AVAILABLE, REDEEMED, LAPSED = (
    journal_pb2.ACCOUNT_AVAILABLE,
    journal_pb2.ACCOUNT_REDEEMED,
    journal_pb2.ACCOUNT_EXPIRED,
)


@pytest.mark.parametrize(
    ("settlement", "postings", "told"),
    [
        pytest.param({}, [], {}, id="nothing to explain"),
        pytest.param({"clawback_debt_points_minor": 150}, [], {"POINTS_OWED": "1.50"}, id="points are owed"),
        pytest.param({"clawback_waived_points_minor": 5}, [], {"POINTS_WAIVED": "0.05"}, id="points are waived"),
        pytest.param(
            {"refund_points_minor": 300},
            [posting(REDEEMED, AVAILABLE, 300, 4), posting(AVAILABLE, LAPSED, 300, 4)],
            {"POINTS_LAPSED": "3.00"},
            id="points came back and had lapsed",
        ),
        pytest.param(
            {"refund_points_minor": 300},
            [posting(AVAILABLE, LAPSED, 70, 3), posting(REDEEMED, AVAILABLE, 300, 4)],
            {},
            id="other points lapsed at that moment",
        ),
    ],
)
def test_what_a_cashier_is_told_of_a_return(
    settlement: dict[str, int], postings: list[journal_pb2.Posting], told: dict[str, str]
) -> None:
    event = journal_pb2.Event(
        settlement=checkout_pb2.Settlement(balance=common_pb2.Balance(unit="bonus", precision=2), **settlement),  # type: ignore[arg-type]  # its own fields
        postings=postings,
    )
    answer = return_response(Booked(0, 9, NOON, event.SerializeToString(), repeated=False))
    assert [notice.code for notice in answer.notices] == list(told)
    for notice in answer.notices:
        assert told[notice.code] in notice.text


def test_points_taken_back_and_owed_are_told_together() -> None:
    event = journal_pb2.Event(
        settlement=checkout_pb2.Settlement(clawback_points_minor=250, clawback_debt_points_minor=150)
    )
    answer = return_response(Booked(0, 9, NOON, event.SerializeToString(), repeated=False))
    assert (answer.clawback_points_minor, answer.debt_points_minor) == (400, 150)
