"""What the inside cannot hold is refused by name at the edge, by each call; and nothing else is touched by it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, store_pb2, store_pb2_grpc

from tests.support.server_process import RunningServer
from tests.support.till import Till, card, new_card, open_till, set_up_store, until_all_have_read_it

Spoil = Callable[[common_pb2.Receipt], object]

BAD_RECEIPTS: dict[str, tuple[Spoil, str]] = {
    "milliseconds": (lambda receipt: setattr(receipt.event_at, "seconds", 1_764_489_600_000), "receipt.event_at"),
    "the largest number": (lambda receipt: setattr(receipt.event_at, "seconds", 2**63 - 1), "receipt.event_at"),
    "before the year 1": (lambda receipt: setattr(receipt.event_at, "seconds", -(2**63)), "receipt.event_at"),
    "the year 1": (lambda receipt: setattr(receipt.event_at, "seconds", -62_135_596_800), "receipt.event_at"),
    "the end of 9999": (lambda receipt: setattr(receipt.event_at, "seconds", 253_402_300_799), "receipt.event_at"),
    "1970": (lambda receipt: setattr(receipt.event_at, "seconds", 0), "receipt.event_at"),
    "nanos below 0": (lambda receipt: setattr(receipt.event_at, "nanos", -1), "receipt.event_at"),
    "nanos of a second": (lambda receipt: setattr(receipt.event_at, "nanos", 10**9), "receipt.event_at"),
    "2099": (lambda receipt: setattr(receipt.event_at, "seconds", 4_070_908_800), "receipt.event_at"),
    "NUL in an article": (lambda receipt: setattr(receipt.lines[0], "sku", "milk\x00"), "receipt.lines[0].sku"),
    "NUL in a mark": (lambda receipt: receipt.lines[0].tags.append("\x00"), "receipt.lines[0].tags[0]"),
}


@pytest.mark.parametrize("what", BAD_RECEIPTS)
async def test_a_bad_receipt_is_refused_by_its_field_and_touches_no_other(till: Till, what: str) -> None:
    spoil, field = BAD_RECEIPTS[what]
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    bad = till.commit_request([("milk", 1000)], shopper)
    spoil(bad.receipt)

    hold = till.hold_request(shopper, 0)
    spoil(hold.receipt)
    quote = checkout_pb2.QuoteRequest(identifier=shopper, receipt=bad.receipt)
    for call, request in {"Quote": quote, "Hold": hold, "Commit": bad}.items():
        refused = await till.refused(request, call)
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,)), call

    good = [till.commit_request([("milk", 1000)], shopper) for _ in range(2)]
    batch = checkout_pb2.CommitBatchRequest(commits=[good[0], bad, good[1]])
    results = (await till.pos.CommitBatch(batch, metadata=till.auth, timeout=30)).results
    assert [result.WhichOneof("outcome") for result in results] == ["committed", "refusal", "committed"]
    assert results[1].refusal.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [violation.field for violation in results[1].refusal.violations] == [field]


@pytest.mark.parametrize("seconds", [1_764_489_600_000, 0, -62_135_596_800, 253_402_300_799, 4_070_908_800])
async def test_times_beside_receipts_have_the_same_bounds(till: Till, seconds: int) -> None:
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    purchase = till.commit_request([("milk", 1000)], shopper)
    await till.commit(purchase)
    back = till.return_request(purchase.receipt_key)
    identify = checkout_pb2.IdentifyRequest(identifier=shopper, event_at=back.event_at)
    back.event_at.seconds = identify.event_at.seconds = seconds
    for call, request in {"Return": back, "Identify": identify}.items():
        refused = await till.refused(request, call)
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("event_at",)), call


@pytest.mark.parametrize("business_date", ["0001-01-01", "1999-12-31", "9999-12-31"])
async def test_a_business_date_that_cannot_be_is_refused(till: Till, business_date: str) -> None:
    purchase = till.commit_request([("milk", 1000)])
    await till.commit(purchase)
    back, sale = till.return_request(purchase.receipt_key), till.commit_request([("milk", 1000)])
    back.receipt_key.business_date = sale.receipt_key.business_date = business_date
    for call, request in {"Return": back, "Commit": sale}.items():
        refused = await till.refused(request, call)
        assert refused.code == grpc.StatusCode.INVALID_ARGUMENT, call
        assert refused.fields == ("receipt_key.business_date",), call


async def test_a_clock_that_is_ahead_is_told_before_anybody_pays(till: Till) -> None:
    """And a paid receipt is not lost: nothing is stored under its key, so it is booked once its time is right."""
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    ahead, almost = (datetime.now(UTC) + timedelta(days=2, minutes=minutes) for minutes in (5, -5))
    sale = till.commit_request([("milk", 1000)], shopper, event_at=ahead)
    quote = checkout_pb2.QuoteRequest(identifier=shopper, receipt=sale.receipt)
    for call, request in {"Quote": quote, "Commit": sale}.items():
        refused = await till.refused(request, call)
        assert (refused.reason, refused.fields) == ("CLOCK_AHEAD", ("receipt.event_at",))
        assert "clock" in refused.cashier_text
    sale.receipt.event_at.FromDatetime(almost)
    booked = await till.commit(sale)
    assert booked.member_id == member.member_id


async def test_a_bad_request_does_not_end_a_stream(till: Till) -> None:
    stream = till.pos.Session(metadata=till.auth)
    good, bad = till.commit_request([("milk", 1000)]), till.commit_request([("milk\x00", 1000)])
    bad_time = checkout_pb2.QuoteRequest(receipt=till.receipt([("milk", 1000)]))
    bad_time.receipt.event_at.seconds = 1_764_489_600_000
    requests = [
        checkout_pb2.SessionRequest(correlation_id=1, commit=bad),
        checkout_pb2.SessionRequest(correlation_id=2, quote=bad_time),
        checkout_pb2.SessionRequest(correlation_id=3, commit=good),
    ]
    for request in requests:
        await stream.write(request)
    await stream.done_writing()
    answers = {answer.correlation_id: answer async for answer in stream}
    assert {number: answer.WhichOneof("answer") for number, answer in answers.items()} == {
        1: "refusal",
        2: "refusal",
        3: "commit",
    }
    assert answers[1].refusal.violations[0].field == "commit.receipt.lines[0].sku"
    assert answers[2].refusal.violations[0].field == "quote.receipt.event_at"


@pytest.mark.parametrize(
    "read",
    [
        pytest.param("{}\r", id="Enter"),
        pytest.param("{}\r\n", id="a line end"),
        pytest.param("\t{}\t", id="tabs"),
        pytest.param("\x02{}\x03", id="a frame"),
        pytest.param("]E0{}", id="the kind of code"),
        pytest.param("\ufeff{}\u200b", id="without a shape"),
    ],
)
async def test_whatever_a_scanner_adds_finds_the_same_member(till: Till, read: str) -> None:
    number = new_card()
    phone = f"+38067{number[1:8]}"
    member = await till.enrol(card_numbers=[read.format(number)], phone=read.format(phone))
    assert [one.card_number for one in member.cards] == [number]
    for shown in (
        common_pb2.Identifier(card_number=read.format(number)),
        common_pb2.Identifier(card_number=number),
        common_pb2.Identifier(phone=read.format(phone)),
        common_pb2.Identifier(phone=phone),
        common_pb2.Identifier(member_id=read.format(member.member_id)),
    ):
        seen = await till.pos.Identify(checkout_pb2.IdentifyRequest(identifier=shown), metadata=till.auth)
        assert seen.member.member_id == member.member_id


async def test_what_nobody_sees_in_the_middle_finds_the_same_member(till: Till) -> None:
    number = new_card()
    member = await till.enrol(card_numbers=[number])
    for unseen in ("\ufe0d", "\u200b", "\u00ad", "\u2060", "\u202a", "\u00a0", "\u200d"):
        shown = card(number[:4] + unseen + number[4:])
        seen = await till.pos.Identify(checkout_pb2.IdentifyRequest(identifier=shown), metadata=till.auth)
        assert seen.member.member_id == member.member_id, repr(unseen)


async def test_a_store_of_a_partner_that_no_programme_names_sells_on(tallypoint: RunningServer) -> None:
    """A mistyped partner costs nobody a receipt: points do not pay there, and nothing else is different."""
    store_id = f"s{uuid.uuid4().hex[:8]}"
    key = await set_up_store(tallypoint, store_id)
    async with grpc.aio.insecure_channel(tallypoint.backoffice_address) as office:
        store = store_pb2.Store(store_id=store_id, name=store_id, time_zone="Europe/Kyiv", partner="feul")
        admin = (("authorization", f"Bearer {tallypoint.keys['admin']}"),)
        await store_pb2_grpc.StoreServiceStub(office).PutStore(store_pb2.PutStoreRequest(store=store), metadata=admin)
    await until_all_have_read_it(tallypoint)
    async with open_till(tallypoint, store_id, key) as till:
        member = await till.enrol()
        shopper = card(member.cards[0].card_number)
        booked = await till.commit(till.commit_request([("milk", 1000)], shopper, spend=10))
        assert booked.member_id == member.member_id
        assert booked.settlement.spent_points_minor == 0
