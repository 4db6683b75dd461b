"""Goods that come back, against a running server: money, points spent and points earned, in whole and in parts."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import asyncpg
import grpc
import pytest
from google.protobuf.message import Message
from tallypoint.v1 import checkout_pb2, common_pb2, ledger_pb2, member_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.entry import semantics
from ledger.entry.keys import business_key
from ledger.entry.model import Booked, Unit
from ledger.reading.lookups import read_receipts
from server.base.storage import LEDGER_DATABASE
from server.checkout.goods_return import ReturnContext, return_command
from server.promotions import Programme, compile_rules, load_programme
from tests.support.faults import dsn_of
from tests.support.till import PROGRAMME, Till, card

BASKET = [("bread", 9990), ("milk", 3333), ("brie", 1234), ("cigarettes", 9000)]
QUANTITIES = [3000, 7000, 1357, 2000]
WEIGHED = [False, False, True, False]


async def new_shopper(till: Till, points_minor: int = 0) -> tuple[member_pb2.Member, common_pb2.Identifier]:
    """A member, with points in two lots if asked for, and the card."""
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    for part in (points_minor // 2, points_minor - points_minor // 2):
        if part:
            await till.commit(till.commit_request([("bread", part * 100)], shopper))
    return member, shopper


def purchase_of(till: Till, shopper: common_pb2.Identifier | None, spend: int = 0) -> checkout_pb2.CommitRequest:
    """Several pieces of one thing, something weighed, something that neither earns nor is paid with points."""
    request = till.commit_request(BASKET, shopper, spend=spend)
    for line, quantity, weighed in zip(request.receipt.lines, QUANTITIES, WEIGHED, strict=True):
        line.quantity_milli, line.weighed = quantity, weighed
    request.receipt.lines[0].discount_minor = 1001
    request.receipt.lines[2].discount_minor = 123
    return request


async def account_of(till: Till, member: member_pb2.Member) -> ledger_pb2.GetAccountResponse:
    """What the ledger has of a member."""
    request = ledger_pb2.GetAccountRequest(member_id=member.member_id)
    return await till.ledger.GetAccount(request, metadata=till.office("finance"))


def same(first: Message, second: Message) -> bool:
    """Whether two answers are the same, byte for byte."""
    return first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


async def test_a_whole_return_leaves_what_was_there_before(till: Till) -> None:
    member, shopper = await new_shopper(till, 400)
    before = await account_of(till, member)
    request = purchase_of(till, shopper, spend=350)
    booked = await till.commit(request)
    answer = await till.give_back(till.return_request(request.receipt_key))
    paid = sum(line.list_amount_minor - line.discount_minor for line in request.receipt.lines) - 350
    assert answer.refund_money_minor == sum(line.refund_money_minor for line in answer.lines) == paid
    assert answer.refund_points_minor == sum(line.refund_points_minor for line in answer.lines) == 350
    assert answer.clawback_points_minor == booked.settlement.accrual_points_minor > 0
    assert (answer.debt_points_minor, list(answer.notices)) == (0, [])
    assert [line.quantity_milli for line in answer.lines] == QUANTITIES
    assert answer.lines[3].refund_points_minor == answer.lines[3].clawback_points_minor == 0, "tobacco has no points"
    after = await account_of(till, member)
    assert (list(after.balances), list(after.lots)) == (list(before.balances), list(before.lots))


def small_parts(seed: int) -> list[list[tuple[int, int]]]:
    """Piece by piece and slice by slice, in any order, now and then several lines at once."""
    order = random.Random(seed)
    slices = [(1, 1000)] * 3 + [(2, 2000)] * 3 + [(2, 1000), (3, 357), (3, 600), (3, 400), (4, 1000), (4, 1000)]
    order.shuffle(slices)
    parts: list[list[tuple[int, int]]] = []
    for line, quantity in slices:
        if parts and line not in dict(parts[-1]) and order.random() < 0.4:
            parts[-1].append((line, quantity))
        else:
            parts.append([(line, quantity)])
    return parts


@pytest.mark.parametrize("spent_before", [False, True], ids=["points still there", "points spent already"])
@pytest.mark.parametrize("seed", range(3))
async def test_parts_in_any_order_sum_to_the_whole(till: Till, seed: int, spent_before: bool) -> None:
    answers, accounts = [], []
    ways: tuple[list[list[tuple[int, int]]], ...] = ([[]], small_parts(seed))
    for parts in ways:
        member, shopper = await new_shopper(till, 400)
        request = purchase_of(till, shopper, spend=350)
        await till.commit(request)
        if spent_before:
            await till.commit(till.commit_request([("bread", 10000)], shopper, spend=180))
        answers.append([await till.give_back(till.return_request(request.receipt_key, *part)) for part in parts])
        accounts.append(await account_of(till, member))
    whole, many = answers
    assert len(many) > 4
    for figure in ("refund_money_minor", "refund_points_minor"):
        assert sum(getattr(answer, figure) for answer in many) == getattr(whole[0], figure) > 0
    for number, line in enumerate(whole[0].lines, start=1):
        backs = [back for answer in many for back in answer.lines if back.line_number == number]
        assert sum(back.quantity_milli for back in backs) == line.quantity_milli
        assert sum(back.refund_money_minor for back in backs) == line.refund_money_minor
        assert sum(back.clawback_points_minor for back in backs) == line.clawback_points_minor
    assert list(accounts[0].balances) == list(accounts[1].balances)
    assert [lot.remaining_points_minor for lot in accounts[0].lots] == [
        lot.remaining_points_minor for lot in accounts[1].lots
    ]


async def test_goods_come_back_at_another_store(till: Till, other_till: Till) -> None:
    _, shopper = await new_shopper(till, 400)
    request = purchase_of(till, shopper, spend=100)
    await till.commit(request)
    answer = await other_till.give_back(other_till.return_request(request.receipt_key, (1, 1000)))
    assert [line.line_number for line in answer.lines] == [1]
    rest = await till.give_back(till.return_request(request.receipt_key))
    assert [line.quantity_milli for line in rest.lines] == [2000, *QUANTITIES[1:]]


async def test_earned_points_that_were_spent_become_a_debt_that_the_next_ones_pay(till: Till) -> None:
    _, shopper = await new_shopper(till)
    request = till.commit_request([("bread", 40000)], shopper)
    await till.commit(request)
    await till.commit(till.commit_request([("cigarettes", 1), ("bread", 350)], shopper, spend=350))
    answer = await till.give_back(till.return_request(request.receipt_key))
    assert (answer.clawback_points_minor, answer.debt_points_minor) == (400, 350)
    (balance,) = answer.balances
    assert (balance.available_points_minor, balance.debt_points_minor) == (0, 350)
    (notice,) = answer.notices
    assert (notice.audience, notice.code) == (common_pb2.AUDIENCE_CASHIER, "POINTS_OWED")
    assert notice.text.startswith("3.50 points")

    later = await till.commit(till.commit_request([("bread", 20000)], shopper))
    assert (later.settlement.accrual_points_minor, later.settlement.debt_paid_points_minor) == (200, 200)
    assert later.settlement.balance.available_points_minor == 0
    last = await till.commit(till.commit_request([("bread", 20000)], shopper))
    assert last.settlement.debt_paid_points_minor == 150
    assert (await till.balance(shopper)).available_points_minor == 50


async def test_points_that_come_back_pay_the_debt_of_the_same_return(till: Till) -> None:
    _, shopper = await new_shopper(till, 400)
    request = till.commit_request([("bread", 40000)], shopper, spend=400)
    booked = await till.commit(request)
    earned = booked.settlement.accrual_points_minor
    await till.commit(till.commit_request([("cigarettes", 1), ("bread", earned)], shopper, spend=earned))
    answer = await till.give_back(till.return_request(request.receipt_key))
    assert (answer.refund_points_minor, answer.clawback_points_minor, answer.debt_points_minor) == (400, earned, 0)
    assert answer.balances[0].available_points_minor == 400 - earned


async def test_a_receipt_without_a_member_comes_back_for_money(till: Till) -> None:
    request = purchase_of(till, None)
    await till.commit(request)
    part = await till.give_back(till.return_request(request.receipt_key, (3, 357)))
    rest = await till.give_back(till.return_request(request.receipt_key))
    net = sum(line.list_amount_minor - line.discount_minor for line in request.receipt.lines)
    assert part.refund_money_minor + rest.refund_money_minor == net
    assert (part.refund_points_minor, part.clawback_points_minor, list(part.balances)) == (0, 0, [])


async def test_a_coupon_that_gave_nothing_does_not_come_back(till: Till) -> None:
    request = till.commit_request([("bread", 1000), ("milk", 500)])
    request.coupon_codes.append("TEN-OFF")
    await till.commit(request)
    assert not (await till.give_back(till.return_request(request.receipt_key))).coupon_codes


@pytest.mark.parametrize("new_message", [False, True], ids=["same message id", "new message id"])
async def test_a_resent_return_gets_the_same_answer(till: Till, new_message: bool) -> None:
    _, shopper = await new_shopper(till)
    purchase = till.commit_request([("bread", 10000)], shopper)
    await till.commit(purchase)
    await till.commit(till.commit_request([("cigarettes", 1), ("bread", 60)], shopper, spend=60))
    request = till.return_request(purchase.receipt_key)
    first = await till.give_back(request)
    assert first.debt_points_minor == 60
    await till.commit(till.commit_request([("bread", 20000)], shopper))
    if new_message:
        request.message_id = str(uuid.uuid4())
    assert same(await till.give_back(request), first)
    assert (await till.balance(shopper)).available_points_minor == 140


Change = Callable[[checkout_pb2.ReturnRequest], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: r.lines.pop(), id="another line"),
        pytest.param(lambda r: setattr(r.event_at, "seconds", r.event_at.seconds + 1), id="another time"),
    ],
)
async def test_a_return_resent_with_other_content_is_refused(till: Till, change: Change) -> None:
    purchase = till.commit_request([("bread", 10000), ("milk", 500)])
    await till.commit(purchase)
    request = till.return_request(purchase.receipt_key, (1, 1000), (2, 1000))
    await till.give_back(request)
    change(request)
    assert (await till.refused(request, "Return")).reason == "MESSAGE_ID_REUSED"
    request.message_id = str(uuid.uuid4())
    answer = await till.refused(request, "Return")
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RECEIPT_KEY_REUSED")


@pytest.mark.parametrize("sold_first", [False, True], ids=["goods back first", "goods sold first"])
async def test_an_exchange_books_both_halves_under_one_number(till: Till, sold_first: bool) -> None:
    _, shopper = await new_shopper(till)
    purchase = till.commit_request([("brie", 10000), ("brie", 40000)], shopper)
    await till.commit(purchase)
    back, sold = till.return_request(purchase.receipt_key, (1, 1000)), till.commit_request([("brie", 10000)], shopper)
    sold.receipt_key.CopyFrom(back.receipt_key)
    if sold_first:
        await till.commit(sold)
    returned, booked = await till.give_back(back), await till.commit(sold)
    assert returned.entry != booked.entry
    for request in (back, sold):
        request.message_id = str(uuid.uuid4())
    assert same(await till.give_back(back), returned), "each half is found under the number"
    assert same(await till.commit(sold), booked)

    found = await till.ledger.FindReceipt(
        ledger_pb2.FindReceiptRequest(receipt_key=sold.receipt_key), metadata=till.office("finance")
    )
    assert (found.entry.ref.number, found.goods_return.ref.number) == (booked.entry.number, returned.entry.number)
    whole = await till.give_back(till.return_request(sold.receipt_key))
    assert whole.refund_money_minor == 10000, "the number of an exchange names what was sold"


async def test_each_half_of_an_exchange_counts_once(till: Till) -> None:
    purchase = till.commit_request([("bread", 10000), ("milk", 500)])
    await till.commit(purchase)
    back, sold = till.return_request(purchase.receipt_key, (1, 1000)), till.commit_request([("bread", 700)])
    sold.receipt_key.CopyFrom(back.receipt_key)
    await till.give_back(back)
    await till.commit(sold)
    back.lines[0].line_number = 2
    sold.receipt.lines[0].list_amount_minor = 800
    for call, request in (("Return", back), ("Commit", sold)):
        request.message_id = str(uuid.uuid4())
        assert (await till.refused(request, call)).reason == "RECEIPT_KEY_REUSED"


async def test_a_return_that_the_last_release_booked_is_found_when_it_is_sent_again(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase = till.commit_request([("bread", 10000), ("milk", 500)])
    booked = await till.commit(purchase)
    request = till.return_request(purchase.receipt_key, (1, 1000))
    monkeypatch.setattr(semantics, "CURRENT", semantics.FIRST)
    conn = await asyncpg.connect(dsn_of(till.server, LEDGER_DATABASE), server_settings={"role": "tallypoint_writer"})
    try:
        sale_key = business_key(purchase.receipt_key)
        found = (await read_receipts(conn, [sale_key]))[sale_key]
        programme = load_programme(PROGRAMME)
        assert isinstance(programme, Programme)
        rules, zone = compile_rules(programme, 1), ZoneInfo("Europe/Kyiv")
        context = ReturnContext(business_key(request.receipt_key), found, rules, Unit(1, "bonus", 2), zone)
        async with conn.transaction():
            await lock_books(conn, [found.book])
            decision = await append_locked(conn, found.book, [return_command(request, context)], datetime.now(UTC))
    finally:
        await conn.close()
    (verdict,) = decision.verdicts
    assert isinstance(verdict, Booked)
    request.message_id = str(uuid.uuid4())
    answer = await till.give_back(request)
    assert (answer.entry.number, answer.refund_money_minor) == (verdict.number, 10000)
    request.lines[0].line_number = 2
    request.message_id = str(uuid.uuid4())
    assert (await till.refused(request, "Return")).reason == "RECEIPT_KEY_REUSED"
    assert booked.entry.number < verdict.number


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="everything once more"),
        pytest.param([(1, 1000)], id="a line that came back"),
        pytest.param([(2, 6000)], id="more than is left of a line"),
        pytest.param([(2, 5000), (1, 1000)], id="one line too much among others"),
    ],
)
async def test_more_than_was_bought_cannot_come_back(till: Till, lines: list[tuple[int, int]]) -> None:
    member, shopper = await new_shopper(till)
    purchase = purchase_of(till, shopper)
    await till.commit(purchase)
    first = [(1, 3000), (2, 2000), (3, 1357), (4, 2000)]
    await till.give_back(till.return_request(purchase.receipt_key, *first))
    if not lines:
        await till.give_back(till.return_request(purchase.receipt_key, (2, 5000)))
    before = await account_of(till, member)
    answer = await till.refused(till.return_request(purchase.receipt_key, *lines), "Return")
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RETURN_EXCEEDS_PURCHASE")
    assert answer.cashier_text
    assert same(await account_of(till, member), before)


async def test_a_return_without_a_booked_purchase_is_refused(till: Till) -> None:
    never_sent = till.commit_request([("bread", 10000)])
    answer = await till.refused(till.return_request(never_sent.receipt_key), "Return")
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "PURCHASE_UNKNOWN")
    assert "not booked" in answer.cashier_text


async def test_a_return_cannot_be_returned(till: Till) -> None:
    purchase = till.commit_request([("bread", 10000)])
    await till.commit(purchase)
    request = till.return_request(purchase.receipt_key)
    await till.give_back(request)
    answer = await till.refused(till.return_request(request.receipt_key), "Return")
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "PURCHASE_UNKNOWN")
    assert "receipt of a return" in answer.cashier_text


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        pytest.param([(1, 1000), (9, 1000)], "lines[1].line_number", id="a line that was not bought"),
        pytest.param([(1, 1000), (1, 1000)], "lines[1].line_number", id="a line twice"),
        pytest.param([(2, 1500)], "lines[0].quantity_milli", id="half a piece"),
        pytest.param([(2, 0)], "lines[0].quantity_milli", id="nothing"),
    ],
)
async def test_a_malformed_return_names_its_field(till: Till, lines: list[tuple[int, int]], field: str) -> None:
    purchase = purchase_of(till, None)
    await till.commit(purchase)
    answer = await till.refused(till.return_request(purchase.receipt_key, *lines), "Return")
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


async def test_a_terminal_returns_at_its_own_store_only(till: Till, other_till: Till) -> None:
    purchase = till.commit_request([("bread", 10000)])
    await till.commit(purchase)
    answer = await till.refused(other_till.return_request(purchase.receipt_key), "Return")
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FOREIGN_STORE")


async def test_goods_of_a_blocked_member_come_back(till: Till) -> None:
    member, shopper = await new_shopper(till)
    purchase = till.commit_request([("bread", 10000)], shopper)
    await till.commit(purchase)
    await till.block(member)
    answer = await till.give_back(till.return_request(purchase.receipt_key))
    assert (answer.refund_money_minor, answer.clawback_points_minor) == (10000, 100)


async def test_what_a_hold_captured_comes_back(till: Till) -> None:
    member, shopper = await new_shopper(till, 400)
    before = await account_of(till, member)
    await till.hold(till.hold_request(shopper, 350, checkout=(checkout := till.checkout())))
    request = till.commit_request([("bread", 10000)], shopper, spend=300)
    request.checkout_id = checkout.checkout_id
    await till.commit(request)
    answer = await till.give_back(till.return_request(request.receipt_key))
    assert answer.refund_points_minor == 300
    after = await account_of(till, member)
    assert (list(after.balances), list(after.lots)) == (list(before.balances), list(before.lots))
