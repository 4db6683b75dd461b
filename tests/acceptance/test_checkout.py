"""What happens at the till, against a running server: a shopper is recognised, quoted, booked; and what goes wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import pytest
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc, common_pb2, ledger_pb2, member_pb2

from tests.support.server_process import RunningServer
from tests.support.till import NOON, Till, answer_of, card, new_card, open_till, set_up_store


@pytest.fixture(scope="module")
def store(tallypoint: RunningServer) -> tuple[str, str]:
    """A store, and the key of its terminal."""
    store_id = f"s{uuid.uuid4().hex[:8]}"
    return store_id, asyncio.run(set_up_store(tallypoint, store_id))


@pytest.fixture
async def till(tallypoint: RunningServer, store: tuple[str, str]) -> AsyncIterator[Till]:
    """The store's till."""
    async with open_till(tallypoint, *store) as opened:
        yield opened


async def balance_of(till: Till, shopper: common_pb2.Identifier) -> int:
    """The points that the shopper could spend now."""
    request = checkout_pb2.IdentifyRequest(identifier=shopper)
    answer = await till.pos.Identify(request, metadata=till.auth)
    return sum(balance.available_points_minor for balance in answer.balances)


async def entries_of(till: Till, member_id: str) -> int:
    """How many entries the ledger has of a member."""
    request = ledger_pb2.GetAccountRequest(member_id=member_id, newest_entries=1000)
    return len((await till.ledger.GetAccount(request, metadata=till.office("finance"))).entries)


async def test_a_shopper_is_recognised_quoted_and_booked(till: Till) -> None:
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    seen = await till.pos.Identify(checkout_pb2.IdentifyRequest(identifier=shopper), metadata=till.auth)
    assert (seen.member.member_id, seen.member.masked_name) == (member.member_id, "O*** K.")

    basket = [("milk", 4000), ("brie", 12000), ("cigarettes", 9000)]
    quote = await till.pos.Quote(
        checkout_pb2.QuoteRequest(identifier=shopper, receipt=till.receipt(basket)), metadata=till.auth
    )
    assert [sum(part.amount_minor for part in line.discounts) for line in quote.lines] == [0, 1200, 0]
    assert (quote.payable_minor, quote.accrual_points_minor) == (23800, 148)

    request = till.commit_request(basket, shopper)
    for line, quoted in zip(request.receipt.lines, quote.lines, strict=True):
        line.discount_minor = sum(part.amount_minor for part in quoted.discounts)
    booked = await till.commit(request)
    assert booked.settlement.accrual_points_minor == quote.accrual_points_minor
    assert booked.settlement.balance.available_points_minor == 148
    assert await balance_of(till, shopper) == 148


async def test_points_pay_and_the_base_is_the_money_paid(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    await till.commit(till.commit_request([("bread", 49900)], shopper))
    assert await balance_of(till, shopper) == 499
    booked = await till.commit(till.commit_request([("bread", 10000)], shopper, spend=300))
    assert (booked.settlement.spent_points_minor, booked.settlement.spent_money_minor) == (300, 300)
    assert booked.settlement.accrual_points_minor == 97  # 1 % of the 97.00 that were paid in money
    assert await balance_of(till, shopper) == 499 - 300 + 97


async def test_what_the_balance_does_not_cover_is_left_out_and_said(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    await till.commit(till.commit_request([("bread", 10000)], shopper))
    booked = await till.commit(till.commit_request([("bread", 10000)], shopper, spend=250))
    assert booked.settlement.spent_points_minor == 100
    assert booked.settlement.left_out_points_minor == 150
    assert booked.settlement.left_out_reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT
    assert "1.50 points were not spent" in booked.notices[0].text


async def test_a_quote_never_offers_more_than_the_balance(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    await till.commit(till.commit_request([("bread", 30000)], shopper))
    request = checkout_pb2.QuoteRequest(
        identifier=shopper, receipt=till.receipt([("bread", 10000)]), spend_points_minor=5000
    )
    quote = await till.pos.Quote(request, metadata=till.auth)
    assert (quote.max_spend_points_minor, quote.spend_points_minor) == (300, 300)


async def test_a_birthday_is_five_fold(till: Till) -> None:
    shopper = card((await till.enrol(birthday="1990-03-16")).cards[0].card_number)
    booked = await till.commit(till.commit_request([("milk", 10000)], shopper))
    assert booked.settlement.accrual_points_minor == 500


async def test_an_earn_only_member_earns_but_does_not_spend(till: Till) -> None:
    shopper = card((await till.enrol(status=common_pb2.MEMBER_STATUS_EARN_ONLY)).cards[0].card_number)
    await till.commit(till.commit_request([("bread", 10000)], shopper))
    booked = await till.commit(till.commit_request([("bread", 10000)], shopper, spend=50))
    assert booked.settlement.spent_points_minor == 0
    assert booked.settlement.left_out_reason == common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN


async def test_a_receipt_without_a_member_is_booked(till: Till) -> None:
    booked = await till.commit(till.commit_request([("milk", 10000)]))
    assert booked.entry.number > 0
    assert not booked.settlement.HasField("balance")


async def test_an_unknown_article_is_sold_and_noticed(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    booked = await till.commit(till.commit_request([("moon-rock", 10000), ("milk", 100)], shopper))
    assert booked.settlement.accrual_points_minor == 101
    assert [notice.code for notice in booked.notices] == ["UNKNOWN_SKU"]
    assert "moon-rock" in booked.notices[0].text


async def test_the_journal_keeps_what_the_rules_saw(till: Till) -> None:
    request = till.commit_request([("cigarettes", 9000), ("milk", 100)])
    request.receipt.lines[1].category = "own/category"
    await till.commit(request)
    found = await till.ledger.FindReceipt(
        ledger_pb2.FindReceiptRequest(receipt_key=request.receipt_key), metadata=till.office("finance")
    )
    lines = found.entry.event.purchase.receipt.lines
    assert [(line.category, list(line.tags)) for line in lines] == [("tobacco", ["tobacco"]), ("own/category", [])]


async def test_a_receipt_of_two_thousand_lines(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    basket = [("brie" if n % 2 else "bread", 1000) for n in range(2000)]
    booked = await till.commit(till.commit_request(basket, shopper))
    assert booked.settlement.accrual_points_minor == 2000 * 10


@pytest.mark.parametrize("new_message", [False, True], ids=["same message id", "new message id"])
async def test_a_resent_receipt_gets_the_same_answer_and_no_entry(till: Till, new_message: bool) -> None:
    member = await till.enrol()
    request = till.commit_request([("milk", 10000)], card(member.cards[0].card_number))
    first = await till.commit(request)
    entries = await entries_of(till, member.member_id)
    await till.commit(till.commit_request([("milk", 500)], card(member.cards[0].card_number)))
    if new_message:
        request.message_id = str(uuid.uuid4())
    assert (await till.commit(request)).SerializeToString(deterministic=True) == first.SerializeToString(
        deterministic=True
    )
    assert await entries_of(till, member.member_id) == entries + 1  # the receipt in between


async def test_a_resend_by_phone_of_a_receipt_by_card_is_the_same_receipt(till: Till) -> None:
    phone = f"+38050{uuid.uuid4().int % 10**7:07d}"
    member = await till.enrol(phone=phone)
    request = till.commit_request([("milk", 10000)], card(member.cards[0].card_number))
    first = await till.commit(request)
    request.identifier.phone = phone
    request.message_id = str(uuid.uuid4())
    assert (await till.commit(request)).entry == first.entry


Change = Callable[[checkout_pb2.CommitRequest], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: r.receipt.lines.add(line_number=9, sku="milk", quantity_milli=1), id="a line more"),
        pytest.param(lambda r: setattr(r.receipt.lines[0], "list_amount_minor", 1), id="another total"),
        pytest.param(lambda r: setattr(r, "spend_points_minor", 7), id="other points spent"),
        pytest.param(lambda r: r.ClearField("identifier"), id="without the card"),
    ],
)
async def test_a_receipt_resent_with_other_content_is_refused(till: Till, change: Change) -> None:
    request = till.commit_request([("milk", 10000)], card((await till.enrol()).cards[0].card_number))
    await till.commit(request)
    change(request)
    assert (await till.refused(request)).reason == "MESSAGE_ID_REUSED"
    request.message_id = str(uuid.uuid4())
    answer = await till.refused(request)
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RECEIPT_KEY_REUSED")
    assert answer.cashier_text


async def test_a_receipt_resent_for_another_card_is_refused(till: Till) -> None:
    anna, bohdan = [(await till.enrol()).cards[0].card_number for _ in range(2)]
    request = till.commit_request([("milk", 10000)], card(anna))
    await till.commit(request)
    request.identifier.card_number = bohdan
    request.message_id = str(uuid.uuid4())
    assert (await till.refused(request)).reason == "RECEIPT_KEY_REUSED"
    assert await balance_of(till, card(bohdan)) == 0


def _wrong_check_digit() -> str:
    number = new_card()
    return number[:-1] + str((int(number[-1]) + 1) % 10)


def phone(number: str) -> common_pb2.Identifier:
    return common_pb2.Identifier(phone=number)


def member_id(uid: uuid.UUID) -> common_pb2.Identifier:
    return common_pb2.Identifier(member_id=str(uid))


@pytest.mark.parametrize(
    ("identifier", "code", "reason"),
    [
        pytest.param(card(new_card()), "NOT_FOUND", "IDENTIFIER_UNKNOWN", id="a card that nobody has"),
        pytest.param(card(_wrong_check_digit()), "INVALID_ARGUMENT", "CARD_CHECK_DIGIT_WRONG", id="a misread card"),
        pytest.param(card("9781234567897"), "INVALID_ARGUMENT", "CARD_FOREIGN", id="another company's card"),
        pytest.param(phone("12345"), "INVALID_ARGUMENT", "PHONE_INVALID", id="no phone number"),
        pytest.param(phone("0501112233"), "NOT_FOUND", "IDENTIFIER_UNKNOWN", id="a stranger's phone"),
        pytest.param(member_id(uuid.uuid4()), "NOT_FOUND", "IDENTIFIER_UNKNOWN", id="an unknown id"),
    ],
)
@pytest.mark.parametrize("call", ["Identify", "Commit"])
async def test_identifiers_are_refused_by_name(
    till: Till, identifier: common_pb2.Identifier, code: str, reason: str, call: str
) -> None:
    identify = checkout_pb2.IdentifyRequest(identifier=identifier)
    request = identify if call == "Identify" else till.commit_request([("milk", 100)], identifier)
    answer = await till.refused(request, call)
    assert (answer.code.name, answer.reason) == (code, reason)
    assert answer.cashier_text, "the cashier must be told what to do"


async def test_a_blocked_member_is_refused_by_name(till: Till) -> None:
    member = await till.enrol()
    await till.block(member)
    answer = await till.refused(till.commit_request([("milk", 100)], card(member.cards[0].card_number)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MEMBER_BLOCKED")


async def test_a_lost_card_is_refused_until_it_is_found(till: Till) -> None:
    member = await till.enrol()
    number = member.cards[0].card_number
    for status, reason in ((member_pb2.CARD_STATUS_BLOCKED, "CARD_BLOCKED"), (member_pb2.CARD_STATUS_ACTIVE, "")):
        change = member_pb2.SetCardStatusRequest(
            message_id=str(uuid.uuid4()), member_id=member.member_id, card_number=number, status=status
        )
        changed = (await till.members.SetCardStatus(change, metadata=till.office("crm"))).member
        assert changed.cards[0].status == status
        request = till.commit_request([("milk", 100)], card(number))
        if reason:
            assert (await till.refused(request)).reason == reason
        else:
            assert (await till.commit(request)).member_id == member.member_id


async def test_a_replaced_card_is_refused_and_the_new_one_works(till: Till) -> None:
    member, new = await till.enrol(), new_card()
    old = member.cards[0].card_number
    change = member_pb2.ReplaceCardRequest(
        message_id=str(uuid.uuid4()), member_id=member.member_id, old_card_number=old, new_card_number=new
    )
    await till.members.ReplaceCard(change, metadata=till.office("crm"))
    assert (await till.refused(till.commit_request([("milk", 100)], card(old)))).reason == "CARD_REPLACED"
    assert (await till.commit(till.commit_request([("milk", 100)], card(new)))).member_id == member.member_id


Spoil = Callable[[checkout_pb2.CommitRequest], object]


def first_line(field: str, value: int) -> Spoil:
    return lambda request: setattr(request.receipt.lines[0], field, value)


MALFORMED: list[tuple[str, Spoil, str]] = [
    ("no message id", lambda r: r.ClearField("message_id"), "message_id"),
    ("no receipt key", lambda r: r.ClearField("receipt_key"), "receipt_key"),
    ("30 February", lambda r: setattr(r.receipt_key, "business_date", "2026-02-30"), "receipt_key.business_date"),
    ("receipt number 0", lambda r: setattr(r.receipt_key, "receipt_number", 0), "receipt_key.receipt_number"),
    ("no lines", lambda r: r.receipt.ClearField("lines"), "receipt.lines"),
    ("2,001 lines", lambda r: r.receipt.lines.extend([r.receipt.lines[0]] * 2000), "receipt.lines"),
    ("negative money", first_line("list_amount_minor", -1), "receipt.lines[0].list_amount_minor"),
    ("overflowing money", first_line("list_amount_minor", 2**62), "receipt.lines[0].list_amount_minor"),
    ("negative quantity", first_line("quantity_milli", -1), "receipt.lines[0].quantity_milli"),
    ("discount above the price", first_line("discount_minor", 101), "receipt.lines[0].discount_minor"),
    ("voided, but costs", first_line("quantity_milli", 0), "receipt.lines[0].list_amount_minor"),
    ("a line twice", lambda r: r.receipt.lines.append(r.receipt.lines[0]), "receipt.lines[1].line_number"),
    ("foreign currency", lambda r: setattr(r.receipt, "currency_code", "USD"), "receipt.currency_code"),
    ("negative points", lambda r: setattr(r, "spend_points_minor", -5), "spend_points_minor"),
    ("no time", lambda r: r.receipt.ClearField("event_at"), "receipt.event_at"),
    ("another store", lambda r: setattr(r.receipt_key, "store_id", "elsewhere"), "receipt_key.store_id"),
]


@pytest.mark.parametrize(("spoil", "field"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
async def test_a_malformed_receipt_names_its_field_and_stores_nothing(till: Till, spoil: Spoil, field: str) -> None:
    member = await till.enrol()
    entries = await entries_of(till, member.member_id)
    request = till.commit_request([("milk", 100)], card(member.cards[0].card_number))
    spoil(request)
    answer = await till.refused(request)
    assert answer.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)
    assert field in answer.fields
    assert await entries_of(till, member.member_id) == entries


async def test_a_receipt_before_the_programme_began_is_refused(till: Till) -> None:
    answer = await till.refused(till.commit_request([("milk", 100)], event_at=NOON - timedelta(days=365)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PROGRAMME")


UnaryCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


async def test_bytes_that_are_no_message_are_refused(till: Till) -> None:
    async with grpc.aio.insecure_channel(till.server.pos_address) as channel:
        call: UnaryCall = channel.unary_unary("/tallypoint.v1.CheckoutService/Commit")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff\xff", metadata=till.auth)
    assert answer_of(caught.value).reason == "INVALID_REQUEST"


async def test_an_oversized_message_is_refused(till: Till) -> None:
    async with grpc.aio.insecure_channel(till.server.pos_address) as channel:
        call: UnaryCall = channel.unary_unary("/tallypoint.v1.CheckoutService/Commit")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(bytes(9 * 1024 * 1024), metadata=till.auth)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("key", ["", "Bearer tp_wrong", "Basic abc"])
async def test_a_caller_without_a_key_is_refused(till: Till, key: str) -> None:
    metadata = (("authorization", key),) if key else ()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await till.pos.Commit(till.commit_request([("milk", 100)]), metadata=metadata)
    assert answer_of(caught.value).reason == "UNAUTHENTICATED"


async def test_a_deadline_of_a_millisecond_books_once_or_not_at_all(till: Till) -> None:
    member = await till.enrol()
    entries = await entries_of(till, member.member_id)
    requests = [till.commit_request([("milk", 10000)], card(member.cards[0].card_number)) for _ in range(20)]
    for request in requests:
        try:
            await till.pos.Commit(request, metadata=till.auth, timeout=0.001)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for request in requests:
        await till.commit(request)
    assert await entries_of(till, member.member_id) == entries + 20
    assert await balance_of(till, card(member.cards[0].card_number)) == 20 * 100


async def test_a_client_that_vanishes_harms_nobody(till: Till) -> None:
    member = await till.enrol()
    entries = await entries_of(till, member.member_id)
    requests = [till.commit_request([("milk", 10000)], card(member.cards[0].card_number)) for _ in range(30)]
    async with grpc.aio.insecure_channel(till.server.pos_address) as channel:
        stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
        calls = [stub.Commit(request, metadata=till.auth) for request in requests]
        await calls[0]  # the others are under way when the channel is closed
    await asyncio.gather(*(till.commit(request) for request in requests))
    assert await entries_of(till, member.member_id) == entries + 30


async def test_a_journal_is_booked_item_by_item_and_again_without_effect(till: Till) -> None:
    known = card((await till.enrol()).cards[0].card_number)
    bad = till.commit_request([("milk", 100)], known)
    bad.receipt.lines[0].list_amount_minor = -1
    foreign = till.commit_request([("milk", 100)], known)
    foreign.receipt_key.store_id = "elsewhere"
    journal = checkout_pb2.CommitBatchRequest(
        commits=[
            till.commit_request([("milk", 10000)], known),
            bad,
            till.commit_request([("milk", 10000)], card(new_card())),  # a card that nobody has: booked without a member
            foreign,
            till.commit_request([("milk", 10000)]),
        ]
    )
    first = await till.pos.CommitBatch(journal, metadata=till.auth)
    assert [result.WhichOneof("outcome") for result in first.results] == [
        "committed",
        "refusal",
        "committed",
        "refusal",
        "committed",
    ]
    assert [r.refusal.reason for r in first.results if r.HasField("refusal")] == [
        common_pb2.REFUSAL_REASON_INVALID_REQUEST,
        common_pb2.REFUSAL_REASON_FOREIGN_STORE,
    ]
    assert first.results[2].committed.member_id == ""
    for commit in journal.commits:
        commit.message_id = str(uuid.uuid4())
    again = await till.pos.CommitBatch(journal, metadata=till.auth)
    assert [r.committed for r in again.results] == [r.committed for r in first.results]


async def test_an_offline_receipt_of_an_unknown_card_keeps_its_answer_when_the_card_becomes_known(till: Till) -> None:
    number = new_card()
    request = till.commit_request([("milk", 10000)], card(number))
    journal = checkout_pb2.CommitBatchRequest(commits=[request])
    first = (await till.pos.CommitBatch(journal, metadata=till.auth)).results[0].committed
    member = await till.enrol(card_numbers=[number])
    again = (await till.pos.CommitBatch(journal, metadata=till.auth)).results[0]
    assert again.committed == first
    assert await till.commit(request) == first
    request.ClearField("identifier")
    assert (await till.refused(request)).reason == "MESSAGE_ID_REUSED"
    assert await balance_of(till, common_pb2.Identifier(member_id=member.member_id)) == 0


@pytest.mark.parametrize("misread", [_wrong_check_digit(), "9781234567897"], ids=["a wrong digit", "a foreign card"])
async def test_an_offline_receipt_of_a_misread_card_is_booked_without_a_member(till: Till, misread: str) -> None:
    journal = checkout_pb2.CommitBatchRequest(commits=[till.commit_request([("milk", 100)], card(misread))])
    first, again = [(await till.pos.CommitBatch(journal, metadata=till.auth)).results[0] for _ in range(2)]
    assert first.committed.entry.number > 0
    assert first.committed.member_id == ""
    assert again == first


async def test_a_coupon_that_nobody_knows_gives_nothing_and_the_cashier_is_told(till: Till) -> None:
    request = till.commit_request([("milk", 100)])
    request.coupon_codes.append("SORRY-1")
    request.quoted_programme_version = 1
    booked = await till.commit(request)
    assert [notice.code for notice in booked.notices] == ["COUPON_UNKNOWN"]
    found = await till.ledger.FindReceipt(
        ledger_pb2.FindReceiptRequest(receipt_key=request.receipt_key), metadata=till.office("finance")
    )
    purchase = found.entry.event.purchase
    assert (list(purchase.coupon_codes), purchase.quoted_programme_version) == (["SORRY-1"], 1)


async def test_a_booked_receipt_keeps_its_answer_when_its_member_is_blocked(till: Till) -> None:
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    request = till.commit_request([("milk", 10000)], shopper)
    first = await till.commit(request)
    await till.block(member)
    request.message_id = str(uuid.uuid4())
    assert await till.commit(request) == first
    journal = checkout_pb2.CommitBatchRequest(commits=[request, till.commit_request([("milk", 100)], shopper)])
    again, new = (await till.pos.CommitBatch(journal, metadata=till.auth)).results
    assert again.committed == first
    assert new.committed.member_id == "", "booked without the member, as the programme says by default"
    assert (await till.refused(till.commit_request([("milk", 100)], shopper))).reason == "MEMBER_BLOCKED"


async def test_a_session_answers_every_call_by_its_number(till: Till) -> None:
    shopper = card((await till.enrol()).cards[0].card_number)
    calls = {
        1: checkout_pb2.SessionRequest(identify=checkout_pb2.IdentifyRequest(identifier=shopper)),
        2: checkout_pb2.SessionRequest(commit=till.commit_request([("milk", 10000)], shopper)),
        3: checkout_pb2.SessionRequest(identify=checkout_pb2.IdentifyRequest(identifier=card(new_card()))),
        4: checkout_pb2.SessionRequest(quote=checkout_pb2.QuoteRequest(receipt=till.receipt([("brie", 1000)]))),
        5: checkout_pb2.SessionRequest(),
    }

    async def requests() -> AsyncIterator[checkout_pb2.SessionRequest]:
        for number, call in calls.items():
            call.correlation_id = number
            yield call

    answers = {answer.correlation_id: answer async for answer in till.pos.Session(requests(), metadata=till.auth)}
    assert {number: answer.WhichOneof("answer") for number, answer in answers.items()} == {
        1: "identify",
        2: "commit",
        3: "refusal",
        4: "quote",
        5: "refusal",
    }
    assert answers[3].refusal.reason == common_pb2.REFUSAL_REASON_IDENTIFIER_UNKNOWN
    assert answers[5].refusal.reason == common_pb2.REFUSAL_REASON_INVALID_REQUEST
