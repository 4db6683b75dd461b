"""Points kept for a checkout, against a running server: held, seen elsewhere, taken over, paid with, let go."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import pytest
from google.protobuf.message import Message
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2, ledger_pb2, member_pb2

from tests.support.till import Till, card

START = 499
"""The points of a new shopper, in hundredths."""


async def new_shopper(till: Till) -> tuple[member_pb2.Member, common_pb2.Identifier]:
    """A member with points, and the card."""
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    await till.commit(till.commit_request([("bread", START * 100)], shopper))
    return member, shopper


async def entry_of(till: Till, ref: common_pb2.EntryRef) -> ledger_pb2.Entry:
    """An entry as the back office sees it."""
    request = ledger_pb2.ListEntriesRequest(book=ref.book, after_number=ref.number - 1, page_size=1)
    return (await till.ledger.ListEntries(request, metadata=till.office("finance"))).entries[0]


def figures(balance: common_pb2.Balance) -> tuple[int, int]:
    """What can be spent, and what is held."""
    return balance.available_points_minor, balance.held_points_minor


def same(first: Message, second: Message) -> bool:
    """Whether two answers are the same, byte for byte."""
    return first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("used", "captured"),
    [pytest.param(300, 300, id="whole"), pytest.param(120, 120, id="part"), pytest.param(0, 0, id="none")],
)
async def test_a_commit_captures_what_it_needs_and_releases_the_rest(till: Till, used: int, captured: int) -> None:
    _, shopper = await new_shopper(till)
    held = await till.hold(till.hold_request(shopper, 300, checkout=(checkout := till.checkout())))
    assert (held.held_points_minor, held.held_money_minor) == (300, 300)
    assert figures(held.balances[0]) == figures(await till.balance(shopper)) == (START - 300, 300)

    request = till.commit_request([("bread", 10000)], shopper, spend=used)
    request.checkout_id = checkout.checkout_id
    booked = await till.commit(request)
    earned = (10000 - used + 50) // 100  # 1 % of the money, half up
    assert booked.settlement.captured_points_minor == captured
    assert booked.settlement.spent_points_minor == used
    assert booked.settlement.left_out_points_minor == 0
    assert figures(booked.settlement.balance) == (START - used + earned, 0)
    (end,) = (await entry_of(till, booked.entry)).event.hold_ends
    assert (end.hold_number, end.how) == (held.entry.number, journal_pb2.HOLD_END_KIND_CAPTURED)
    assert (end.captured_points_minor, end.released_points_minor) == (captured, 300 - captured)


async def test_a_commit_may_spend_more_than_was_held(till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 100, checkout=(checkout := till.checkout())))
    request = till.commit_request([("bread", 10000)], shopper, spend=250)
    request.checkout_id = checkout.checkout_id
    settlement = (await till.commit(request)).settlement
    assert (settlement.captured_points_minor, settlement.spent_points_minor) == (100, 250)


async def test_a_commit_of_another_checkout_leaves_the_hold_alone(till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 400))
    booked = await till.commit(till.commit_request([("bread", 100)], shopper, spend=100))
    assert (booked.settlement.spent_points_minor, booked.settlement.left_out_points_minor) == (99, 1)
    assert figures(booked.settlement.balance) == (0, 400)


async def test_a_hold_lasts_as_long_as_asked_or_as_the_programme_says(till: Till) -> None:
    _, shopper = await new_shopper(till)
    for asked, seconds in ((45, 45), (0, 600)):
        request = till.hold_request(shopper, 10)
        request.ttl_seconds = asked
        held = await till.hold(request)
        booked_at, expires_at = held.entry.booked_at.ToDatetime(), held.expires_at.ToDatetime()
        assert expires_at - booked_at == timedelta(seconds=seconds)


async def test_a_second_hold_of_a_checkout_takes_the_place_of_the_first(till: Till) -> None:
    _, shopper = await new_shopper(till)
    checkout = till.checkout()
    await till.hold(till.hold_request(shopper, 400, checkout=checkout))
    second = await till.hold(till.hold_request(shopper, 450, checkout=checkout))
    assert figures(second.balances[0]) == figures(await till.balance(shopper)) == (START - 450, 450)
    assert not second.held_elsewhere
    cancelled = await till.cancel(till.cancel_request(checkout))
    assert cancelled.released_points_minor == 450


async def test_points_are_cut_to_what_the_receipt_allows(till: Till) -> None:
    _, shopper = await new_shopper(till)
    held = await till.hold(till.hold_request(shopper, 300, basket=[("bread", 150)]))
    assert held.held_points_minor == 149, "a minor unit stays to be paid in money"
    assert held.quote.spend_points_minor == held.quote.max_spend_points_minor == 149
    tobacco = await till.hold(till.hold_request(shopper, 300, basket=[("cigarettes", 9000)]))
    assert tobacco.held_points_minor == 0


async def test_the_quote_of_a_hold_counts_what_is_held_as_spendable(till: Till) -> None:
    _, shopper = await new_shopper(till)
    held = await till.hold(till.hold_request(shopper, 300))
    assert (held.quote.spend_points_minor, held.quote.max_spend_points_minor) == (300, START)
    assert figures(held.quote.balances[0]) == (START - 300, 300)


# --- other lanes -----------------------------------------------------------------------------------------------------


async def test_another_lane_sees_what_is_held_where_and_since_when(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 400))
    identify = checkout_pb2.IdentifyRequest(identifier=shopper)
    quote = checkout_pb2.QuoteRequest(identifier=shopper, receipt=other_till.receipt([("bread", 10000)]))
    answers: list[checkout_pb2.IdentifyResponse | checkout_pb2.QuoteResponse] = [
        await other_till.pos.Identify(identify, metadata=other_till.auth),
        await other_till.pos.Quote(quote, metadata=other_till.auth),
    ]
    for answer in answers:
        (held,) = answer.held_elsewhere
        assert (held.store_id, held.terminal_id, held.points_minor) == (till.store_id, "t1", 400)
        assert 0 <= held.age_seconds < 600
        (notice,) = answer.notices
        assert (notice.audience, notice.code) == (common_pb2.AUDIENCE_CASHIER, "HELD_ELSEWHERE")
        assert f"Held at store {till.store_id}, lane t1, " in notice.text
        assert "ago: 4.00 points" in notice.text
    own = await till.pos.Identify(identify, metadata=till.auth)
    assert not own.held_elsewhere, "at the lane itself it is not elsewhere"


async def test_what_another_lane_holds_is_refused_by_name(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 400))
    answer = await other_till.refused(other_till.hold_request(shopper, 100), "Hold")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HELD_ELSEWHERE")
    assert answer.cashier_text.startswith(f"Held at store {till.store_id}, lane t1, ")
    assert "take them over" in answer.cashier_text
    fewer = await other_till.hold(other_till.hold_request(shopper, 99))
    assert [held.points_minor for held in fewer.held_elsewhere] == [400]
    assert [notice.code for notice in fewer.quote.notices] == ["HELD_ELSEWHERE"]


async def test_a_second_hold_that_is_refused_leaves_the_first_in_place(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till)
    checkout = other_till.checkout()
    await till.hold(till.hold_request(shopper, 300))
    await other_till.hold(other_till.hold_request(shopper, 150, checkout=checkout))
    answer = await other_till.refused(other_till.hold_request(shopper, 250, checkout=checkout), "Hold")
    assert answer.reason == "HELD_ELSEWHERE"
    assert other_till.store_id not in answer.cashier_text, "one's own points are not elsewhere"
    assert figures(await till.balance(shopper)) == (START - 450, 450)


async def test_a_cashier_takes_over_with_a_reason(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 400, checkout=(checkout := till.checkout())))
    taken = await other_till.hold(other_till.hold_request(shopper, 450, takeover="the shopper changed lanes"))
    assert (taken.held_points_minor, len(taken.held_elsewhere)) == (450, 0)
    event = (await entry_of(till, taken.entry)).event
    assert event.hold.takeover_reason == "the shopper changed lanes"
    assert [end.how for end in event.hold_ends] == [journal_pb2.HOLD_END_KIND_TAKEN_OVER]

    late = till.commit_request([("bread", 10000)], shopper, spend=400)
    late.checkout_id = checkout.checkout_id
    settlement = (await till.commit(late)).settlement
    assert (settlement.captured_points_minor, settlement.spent_points_minor) == (0, START - 450)
    assert settlement.left_out_reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT
    assert settlement.balance.held_points_minor == 450


async def test_cancelling_what_was_taken_over_tells_how_it_ended(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 400, checkout=(checkout := till.checkout())))
    taken = await other_till.hold(other_till.hold_request(shopper, 450, takeover="the shopper changed lanes"))
    cancelled = await till.cancel(till.cancel_request(checkout))
    assert (cancelled.released_points_minor, cancelled.entry) == (400, taken.entry)
    assert figures(await till.balance(shopper)) == (START - 450, 450)


# --- letting go ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_message", [False, True], ids=["same message id", "new message id"])
async def test_cancelling_twice_gets_the_same_answer(till: Till, new_message: bool) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 300, checkout=(checkout := till.checkout())))
    request = till.cancel_request(checkout, "no receipt")
    first = await till.cancel(request)
    assert first.released_points_minor == 300
    assert figures(first.balances[0]) == (START, 0)
    await till.commit(till.commit_request([("bread", 10000)], shopper))
    if new_message:
        request.message_id = str(uuid.uuid4())
    assert same(await till.cancel(request), first)
    assert (await entry_of(till, first.entry)).event.cancel.reason == "no receipt"


async def test_a_message_id_cancels_once_however_the_checkout_went_on(till: Till) -> None:
    (_, anna), (_, bohdan) = await new_shopper(till), await new_shopper(till)
    checkout = till.checkout()
    await till.hold(till.hold_request(anna, 300, checkout=checkout))
    request = till.cancel_request(checkout)
    first = await till.cancel(request)
    await till.hold(till.hold_request(bohdan, 200, checkout=checkout))
    assert same(await till.cancel(request), first)
    assert figures(await till.balance(bohdan)) == (START - 200, 200)


async def test_there_is_nothing_to_cancel(till: Till) -> None:
    answer = await till.refused(till.cancel_request(till.checkout()), "Cancel")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_GONE")
    assert answer.cashier_text


async def test_a_paid_checkout_is_neither_cancelled_nor_held_again(till: Till) -> None:
    _, shopper = await new_shopper(till)
    checkout = till.checkout()
    await till.hold(till.hold_request(shopper, 300, checkout=checkout))
    request = till.commit_request([("bread", 10000)], shopper, spend=300)
    request.checkout_id = checkout.checkout_id
    await till.commit(request)
    before = figures(await till.balance(shopper))
    for call, late in (
        ("Cancel", till.cancel_request(checkout)),
        ("Hold", till.hold_request(shopper, 10, checkout=checkout)),
    ):
        answer = await till.refused(late, call)
        assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_GONE")
        assert "paid" in answer.cashier_text
    assert figures(await till.balance(shopper)) == before


async def test_another_card_at_the_same_checkout_lets_go_of_the_first_ones_points(till: Till) -> None:
    (_, anna), (_, bohdan) = await new_shopper(till), await new_shopper(till)
    checkout = till.checkout()
    request = till.hold_request(anna, 300, checkout=checkout)
    first = await till.hold(request)
    await till.hold(till.hold_request(bohdan, 200, checkout=checkout))
    assert figures(await till.balance(anna)) == (START, 0)
    assert figures(await till.balance(bohdan)) == (START - 200, 200)
    again = await till.hold(request)
    assert again.entry == first.entry, "a message that comes once more repeats its answer"
    assert figures(await till.balance(bohdan)) == (START - 200, 200), "and takes nothing from who came after it"


async def test_a_receipt_that_shows_another_card_than_the_hold_says_so_and_lets_go_of_it(till: Till) -> None:
    (_, anna), (_, bohdan) = await new_shopper(till), await new_shopper(till)
    checkout = till.checkout()
    await till.hold(till.hold_request(anna, 300, checkout=checkout))
    request = till.commit_request([("bread", 10000)], bohdan, spend=100)
    request.checkout_id = checkout.checkout_id
    booked = await till.commit(request)
    assert [notice.code for notice in booked.notices] == ["HOLD_NOT_USED"]
    assert booked.settlement.spent_points_minor == 100, "from what is there"
    assert figures(await till.balance(anna)) == (START, 0)
    assert same(await till.commit(request), booked)


async def test_a_checkout_that_never_held_anything_is_told(till: Till) -> None:
    _, shopper = await new_shopper(till)
    request = till.commit_request([("bread", 10000)], shopper)
    request.checkout_id = till.checkout().checkout_id
    assert [notice.code for notice in (await till.commit(request)).notices] == ["HOLD_NOT_USED"]


# --- sending again ---------------------------------------------------------------------------------------------------


async def test_a_resent_hold_gets_the_same_answer(till: Till) -> None:
    _, shopper = await new_shopper(till)
    request = till.hold_request(shopper, 300)
    first = await till.hold(request)
    await till.commit(till.commit_request([("bread", 10000)], shopper))
    assert same(await till.hold(request), first)
    assert (await till.balance(shopper)).held_points_minor == 300


Change = Callable[[checkout_pb2.HoldRequest], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: setattr(r, "spend_points_minor", 299), id="other points"),
        pytest.param(lambda r: setattr(r, "ttl_seconds", 60), id="another time to live"),
        pytest.param(lambda r: setattr(r, "takeover_reason", "why not"), id="a take-over"),
        pytest.param(lambda r: setattr(r.checkout_key, "checkout_id", "another"), id="another checkout"),
        pytest.param(lambda r: setattr(r.receipt.lines[0], "list_amount_minor", 90000), id="another receipt"),
        pytest.param(lambda r: r.coupon_codes.append("TEN"), id="a coupon more"),
    ],
)
async def test_a_message_id_holds_once(till: Till, change: Change) -> None:
    _, shopper = await new_shopper(till)
    request = till.hold_request(shopper, 300)
    await till.hold(request)
    change(request)
    answer = await till.refused(request, "Hold")
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MESSAGE_ID_REUSED")


async def test_a_resent_commit_captures_once(till: Till) -> None:
    _, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 300, checkout=(checkout := till.checkout())))
    request = till.commit_request([("bread", 10000)], shopper, spend=300)
    request.checkout_id = checkout.checkout_id
    first = await till.commit(request)
    request.message_id = str(uuid.uuid4())
    assert same(await till.commit(request), first)
    assert figures(await till.balance(shopper)) == (START - 300 + 97, 0)


# --- who may hold ----------------------------------------------------------------------------------------------------


async def test_more_than_there_is_is_refused_by_name(till: Till) -> None:
    _, shopper = await new_shopper(till)
    answer = await till.refused(till.hold_request(shopper, START + 1), "Hold")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "POINTS_INSUFFICIENT")
    assert answer.cashier_text
    assert figures(await till.balance(shopper)) == (START, 0)


async def set_status(till: Till, member: member_pb2.Member, status: common_pb2.MemberStatus) -> None:
    change = member_pb2.SetMemberStatusRequest(
        message_id=str(uuid.uuid4()), member_id=member.member_id, status=status, reason="a test"
    )
    await till.members.SetMemberStatus(change, metadata=till.office("crm"))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(common_pb2.MEMBER_STATUS_EARN_ONLY, "SPENDING_FORBIDDEN", id="may only earn"),
        pytest.param(common_pb2.MEMBER_STATUS_BLOCKED, "MEMBER_BLOCKED", id="blocked"),
    ],
)
async def test_who_may_not_spend_holds_nothing(till: Till, status: common_pb2.MemberStatus, reason: str) -> None:
    member, shopper = await new_shopper(till)
    request = till.hold_request(shopper, 100)
    first = await till.hold(request)
    await set_status(till, member, status)
    assert (await till.hold(request)).entry == first.entry, "what was held before keeps its answer"
    answer = await till.refused(till.hold_request(shopper, 100), "Hold")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert answer.cashier_text


@pytest.mark.parametrize("offline", [False, True], ids=["at the till", "from the journal"])
@pytest.mark.parametrize(
    "status", [common_pb2.MEMBER_STATUS_EARN_ONLY, common_pb2.MEMBER_STATUS_BLOCKED], ids=["may only earn", "blocked"]
)
async def test_what_was_held_pays_whatever_becomes_of_the_member_meanwhile(
    till: Till, status: common_pb2.MemberStatus, offline: bool
) -> None:
    member, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 300, checkout=(checkout := till.checkout())))
    await set_status(till, member, status)
    request = till.commit_request([("bread", 10000)], shopper, spend=350)
    request.checkout_id = checkout.checkout_id

    async def commit() -> checkout_pb2.CommitResponse:
        if not offline:
            return await till.commit(request)
        journal = checkout_pb2.CommitBatchRequest(commits=[request])
        return (await till.pos.CommitBatch(journal, metadata=till.auth)).results[0].committed

    booked = await commit()
    assert booked.member_id == member.member_id
    assert (booked.settlement.captured_points_minor, booked.settlement.spent_points_minor) == (300, 300)
    assert booked.settlement.left_out_reason == common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN
    request.message_id = str(uuid.uuid4())
    assert same(await commit(), booked)


async def test_what_was_held_pays_even_if_the_card_cannot_be_read_any_more(till: Till) -> None:
    member, shopper = await new_shopper(till)
    await till.hold(till.hold_request(shopper, 300, checkout=(checkout := till.checkout())))
    request = till.commit_request([("bread", 10000)], card("2000000000000"), spend=300)
    request.checkout_id = checkout.checkout_id
    booked = await till.commit(request)
    assert (booked.member_id, booked.settlement.captured_points_minor) == (member.member_id, 300)
    request.message_id = str(uuid.uuid4())
    assert same(await till.commit(request), booked)


@pytest.mark.parametrize("call", ["Hold", "Cancel"])
async def test_a_checkout_of_another_store_is_refused(till: Till, other_till: Till, call: str) -> None:
    _, shopper = await new_shopper(till)
    foreign = other_till.checkout()
    request = till.hold_request(shopper, 1, checkout=foreign) if call == "Hold" else till.cancel_request(foreign)
    answer = await till.refused(request, call)
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FOREIGN_STORE")
    assert answer.fields == ("checkout_key.store_id",)


async def test_a_stream_carries_holds_cancels_and_returns(till: Till) -> None:
    _, shopper = await new_shopper(till)
    purchase = till.commit_request([("bread", 1000)], shopper)
    checkout = till.checkout()
    calls = [
        checkout_pb2.SessionRequest(commit=purchase),
        checkout_pb2.SessionRequest(hold=till.hold_request(shopper, 100, checkout=checkout)),
        checkout_pb2.SessionRequest(cancel=till.cancel_request(checkout)),
        checkout_pb2.SessionRequest(),
    ]
    getattr(calls[-1], "return").CopyFrom(till.return_request(purchase.receipt_key))
    for number, call in enumerate(calls):
        call.correlation_id = number

        async def one(call: checkout_pb2.SessionRequest = call) -> AsyncIterator[checkout_pb2.SessionRequest]:
            yield call

        (answer,) = [each async for each in till.pos.Session(one(), metadata=till.auth)]
        assert (answer.correlation_id, answer.WhichOneof("answer")) == (number, call.WhichOneof("call")), answer
