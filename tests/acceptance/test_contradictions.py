"""Receipts that contradict themselves, at a running server: booked as paid, told to the cashier, kept in the entry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, ledger_pb2

from tests.support.till import NOON, Till, card

CASH, POINTS = common_pb2.TENDER_KIND_CASH, common_pb2.TENDER_KIND_POINTS
Tenders = Sequence[tuple[common_pb2.TenderKind, int]]


@pytest.mark.parametrize(
    ("price", "tenders", "codes"),
    [
        pytest.param(30_000, [(CASH, 50_000)], [], id="a note of 500.00 for 300.00: change"),
        pytest.param(30_000, [(CASH, 100)], ["TENDERS_SHORT"], id="1.00 for 300.00"),
        pytest.param(30_000, [(POINTS, 10_000), (CASH, 20_000)], ["TENDERS_POINTS"], id="points that are not spent"),
        pytest.param(0, [], ["EMPTY_RECEIPT"], id="nothing with a price"),
    ],
)
async def test_it_is_booked_and_told(till: Till, price: int, tenders: Tenders, codes: list[str]) -> None:
    member = await till.enrol()
    request = till.commit_request([("bread", price)], card(member.cards[0].card_number))
    for kind, amount in tenders:
        request.receipt.tenders.add(kind=kind, amount_minor=amount)
    quote = checkout_pb2.QuoteRequest(identifier=request.identifier, receipt=request.receipt)
    assert [notice.code for notice in (await till.pos.Quote(quote, metadata=till.auth)).notices] == codes
    booked = await till.commit(request)
    assert [notice.code for notice in booked.notices] == codes
    assert booked.settlement.accrual_points_minor == price // 100
    assert await till.commit(request) == booked, "the same answer whenever it is asked for"

    wanted = ledger_pb2.ListEntriesRequest(book=booked.entry.book, after_number=booked.entry.number - 1, page_size=1)
    entries = (await till.ledger.ListEntries(wanted, metadata=till.office("finance"))).entries
    assert [notice.code for notice in entries[0].event.purchase.notices] == codes, "for finance"


async def test_a_week_between_clock_and_business_date_is_told(till: Till) -> None:
    request = till.commit_request([("bread", 100)], event_at=NOON - timedelta(days=7))
    assert [notice.code for notice in (await till.commit(request)).notices] == ["BUSINESS_DATE_FAR"]


async def test_a_return_tells_of_its_business_date_too(till: Till) -> None:
    bought = till.commit_request([("bread", 100)])
    await till.commit(bought)
    near = till.return_request(bought.receipt_key)
    near.receipt_key.business_date = "2026-03-14"
    assert [notice.code for notice in (await till.give_back(near)).notices] == []
    other = till.commit_request([("bread", 100)])
    await till.commit(other)
    far = till.return_request(other.receipt_key)
    far.receipt_key.business_date = "2026-03-07"
    assert [notice.code for notice in (await till.give_back(far)).notices] == ["BUSINESS_DATE_FAR"]


async def test_a_coupon_presented_twice_is_told_and_has_one_outcome(till: Till) -> None:
    request = till.commit_request([("bread", 10_000)])
    request.coupon_codes.extend(["no-such-coupon", "NO-SUCH-coupon "])
    booked = await till.commit(request)
    assert [notice.code for notice in booked.notices].count("COUPON_TWICE") == 1
    assert len(booked.coupons) == 1


async def test_points_spent_by_nobody_are_told(till: Till) -> None:
    booked = await till.commit(till.commit_request([("bread", 10_000)], spend=500))
    assert [notice.code for notice in booked.notices] == ["POINTS_WITHOUT_MEMBER"]
    assert booked.settlement.spent_points_minor == 0
