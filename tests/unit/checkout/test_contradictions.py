"""What a receipt says twice and differently is told; what only looks odd is not."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from tallypoint.v1 import checkout_pb2, common_pb2

from server.checkout import contradictions
from server.checkout.presented import NOTHING, Presented
from server.checkout.sale import Sale
from server.promotions import quote
from server.rules.evidence import receipt_facts
from server.rules.receipt_lines import lines_of
from tests.unit.promotions.builders import ONE_PERCENT, STORE_ZONE, promotions, rules

NOON = datetime(2026, 3, 2, 10, tzinfo=UTC)
RULES = rules(
    "spending: {max_share_percent: 100, step_points: 0.01}\n"
    + ONE_PERCENT
    + "units:\n  - {unit: deposit, name: Deposit, precision: 2, pays: 1.00, sold: true}\n"
    + promotions("id: tenth, name: T, scope: {skus: [cheap]}, line_discount: {percent: 10}")
)
KINDS = {
    "cash": common_pb2.TENDER_KIND_CASH,
    "card": common_pb2.TENDER_KIND_CARD,
    "points": common_pb2.TENDER_KIND_POINTS,
    "other": common_pb2.TENDER_KIND_OTHER,
}
SHORT, OVER, POINTS = contradictions.TENDERS_SHORT, contradictions.TENDERS_OVER, contradictions.TENDERS_POINTS
EMPTY, FAR = contradictions.EMPTY_RECEIPT, contradictions.BUSINESS_DATE_FAR


class NoCatalogue:
    """Knows no article."""

    def get(self, sku: str) -> None:
        return None


def request_of(
    price_minor: int = 30_000, *, off: int = 0, spend: int = 0, sold: int = 0, at: datetime = NOON, day: str = ""
) -> checkout_pb2.CommitRequest:
    """A receipt of one article for a price, with a discount given."""
    receipt = common_pb2.Receipt(currency_code="UAH")
    receipt.event_at.FromDatetime(at)
    receipt.lines.add(
        line_number=1, sku="a", quantity_milli=1000, list_amount_minor=price_minor, discount_minor=off, category="x"
    )
    request = checkout_pb2.CommitRequest(
        message_id=str(uuid.UUID(int=1)),
        receipt_key=common_pb2.ReceiptKey(
            store_id="1", terminal_id="1", business_date=day or "2026-03-02", receipt_number=1
        ),
        receipt=receipt,
        spend_points_minor=spend,
    )
    if sold:
        request.deposits.add(unit="deposit", points_minor=sold)
    return request


def sale_of(receipt: common_pb2.Receipt) -> Sale:
    lines, unknown = lines_of(receipt, NoCatalogue())
    return Sale(RULES, STORE_ZONE, receipt_facts(receipt, lines, "1", STORE_ZONE), unknown)


def told(request: checkout_pb2.CommitRequest, presented: Presented = NOTHING, *, is_member: bool = True) -> set[str]:
    notices = contradictions.of_commit(request, sale_of(request.receipt), presented, is_member=is_member)
    assert all(notice.audience == common_pb2.AUDIENCE_CASHIER and notice.text for notice in notices)
    return {notice.code for notice in notices}


@pytest.mark.parametrize(
    ("request_", "tenders", "codes"),
    [
        pytest.param(request_of(), [], set(), id="a register that says nothing of tenders"),
        pytest.param(request_of(), [("card", 30_000)], set(), id="to the penny"),
        pytest.param(request_of(), [("cash", 50_000)], set(), id="a note of 500.00 for 300.00: change"),
        pytest.param(request_of(), [("cash", 20_000), ("cash", 20_000)], set(), id="two notes"),
        pytest.param(request_of(), [("card", 10_000), ("card", 20_000)], set(), id="two cards"),
        pytest.param(request_of(), [("card", 29_000), ("cash", 5_000)], set(), id="the rest in cash, with change"),
        pytest.param(request_of(off=1_000), [("card", 29_000)], set(), id="what was charged counts"),
        pytest.param(request_of(), [("cash", 100)], {SHORT}, id="1.00 for 300.00"),
        pytest.param(request_of(), [("card", 29_999)], {SHORT}, id="a hundredth too little"),
        pytest.param(request_of(), [("cash", 0)], {SHORT}, id="nothing"),
        pytest.param(request_of(), [("card", 30_001)], {OVER}, id="by card nobody gets change"),
        pytest.param(request_of(), [("card", 20_000), ("other", 20_000)], {OVER}, id="card and voucher together"),
        pytest.param(request_of(), [("card", 40_000), ("cash", 1)], {OVER}, id="cash does not cure it"),
        pytest.param(request_of(off=1_000), [("card", 30_000)], {OVER}, id="the discount was not taken off"),
        pytest.param(request_of(), [("points", 10_000), ("cash", 20_000)], {POINTS}, id="points that are not spent"),
        pytest.param(request_of(spend=10_000), [("points", 10_000), ("cash", 20_000)], set(), id="that are spent"),
        pytest.param(request_of(spend=10_000), [("cash", 20_000)], {POINTS}, id="spent, and not tendered"),
        pytest.param(request_of(spend=10_000), [("cash", 50_000)], {POINTS}, id="the same with change"),
        pytest.param(request_of(spend=4_000), [("points", 10_000), ("card", 20_000)], {POINTS}, id="another amount"),
        pytest.param(request_of(spend=10_000), [("points", 10_000), ("card", 30_000)], {OVER}, id="paid twice"),
        pytest.param(request_of(spend=10_000), [("points", 10_000), ("card", 100)], {SHORT}, id="too little with them"),
        pytest.param(request_of(sold=1_270), [("cash", 31_270)], set(), id="change put on the card"),
        pytest.param(request_of(sold=30_000), [("card", 30_000)], set(), id="the article is the gift card itself"),
        pytest.param(request_of(sold=1_000), [("card", 31_001)], {OVER}, id="more than goods and points sold"),
    ],
)
def test_tenders_that_do_not_add_up(
    request_: checkout_pb2.CommitRequest, tenders: list[tuple[str, int]], codes: set[str]
) -> None:
    paid = checkout_pb2.CommitRequest()
    paid.CopyFrom(request_)
    for kind, amount in tenders:
        paid.receipt.tenders.add(kind=KINDS[kind], amount_minor=amount)
    assert told(paid) == codes


@pytest.mark.parametrize(
    ("tenders", "codes"),
    [
        pytest.param([("cash", 29_951)], set(), id="rounded in the shopper's favour"),
        pytest.param([("card", 20_000), ("cash", 9_951)], set(), id="the rest in cash"),
        pytest.param([("cash", 29_950)], {SHORT}, id="a whole step is missing"),
        pytest.param([("card", 29_999)], {SHORT}, id="cards are not rounded"),
    ],
)
def test_cash_may_be_rounded_where_the_programme_says_so(tenders: list[tuple[str, int]], codes: set[str]) -> None:
    rounding = rules("cash_rounding: 0.50\n").programme
    paid = [common_pb2.Tender(kind=KINDS[kind], amount_minor=amount) for kind, amount in tenders]
    due = contradictions.Due(30_000, 30_000, 0)
    assert {notice.code for notice in contradictions.of_tenders(paid, due, rounding)} == codes


@pytest.mark.parametrize(
    ("tenders", "spend", "codes"),
    [
        pytest.param([("card", 30_000)], 0, set(), id="the list price: who pays does not know the discount yet"),
        pytest.param([("card", 27_000)], 0, set(), id="the price"),
        pytest.param([("card", 30_001)], 0, {OVER}, id="more"),
        pytest.param([("card", 26_999)], 0, {SHORT}, id="less"),
        pytest.param([("points", 10_000), ("cash", 20_000)], 0, {POINTS}, id="points that are not to be spent"),
        pytest.param([("points", 10_000), ("cash", 20_000)], 10_000, set(), id="that are"),
    ],
)
def test_a_quote_tells_of_tenders_too(tenders: list[tuple[str, int]], spend: int, codes: set[str]) -> None:
    receipt = request_of().receipt
    receipt.lines[0].sku = "cheap"
    for kind, amount in tenders:
        receipt.tenders.add(kind=KINDS[kind], amount_minor=amount)
    sale = sale_of(receipt)
    effects = quote(RULES, sale.facts, None, spend)
    assert {notice.code for notice in contradictions.of_quote(receipt, sale, effects, NOTHING)} == codes


@pytest.mark.parametrize(
    ("day", "at", "codes"),
    [
        pytest.param("2026-03-02", NOON, set(), id="the same day"),
        pytest.param("2026-03-03", datetime(2026, 3, 2, 21, 59, tzinfo=UTC), set(), id="23:59, counted for tomorrow"),
        pytest.param("2026-03-01", datetime(2026, 3, 1, 23, 30, tzinfo=UTC), set(), id="01:30, counted for yesterday"),
        pytest.param("2026-03-04", NOON, {FAR}, id="two days on"),
        pytest.param("2026-02-23", NOON, {FAR}, id="a week back"),
        pytest.param("2025-03-02", NOON, {FAR}, id="last year's date"),
        pytest.param("2026-02-30", NOON, set(), id="no day at all is refused elsewhere"),
    ],
)
def test_a_business_date_far_from_the_registers_clock(day: str, at: datetime, codes: set[str]) -> None:
    assert told(request_of(day=day, at=at)) == codes


def test_nothing_with_a_price_is_told() -> None:
    assert told(request_of(0)) == {EMPTY}
    voided = request_of(0)
    voided.receipt.lines[0].quantity_milli = 0
    assert told(voided) == {EMPTY}
    assert told(request_of(500, off=500)) == set(), "given away is sold"


def test_a_coupon_presented_twice_is_told() -> None:
    assert told(request_of(), Presented(("A", "B"))) == set()
    assert told(request_of(), Presented(("A", "B"), repeated=("A",))) == {contradictions.COUPON_TWICE}


@pytest.mark.parametrize("change", ["spend", "spend_units", "deposits"])
def test_points_need_a_member(change: str) -> None:
    request = request_of(spend=100 if change == "spend" else 0)
    if change != "spend":
        getattr(request, change).add(unit="deposit", points_minor=100)
    assert told(request) == set()
    assert told(request, is_member=False) == {contradictions.POINTS_WITHOUT_MEMBER}


def test_a_clock_a_day_off_is_near_in_the_stores_zone_only() -> None:
    late = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)  # 3 March, 00:30 in Kyiv
    assert told(request_of(day="2026-03-04", at=late)) == set()
    assert told(request_of(day="2026-03-04", at=late - timedelta(hours=1))) == {FAR}
