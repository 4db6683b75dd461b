"""Many registers want the same points at the same moment, over connections that different processes answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import asyncpg
import grpc
import pytest
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc, common_pb2, journal_pb2, ledger_pb2, member_pb2

from ledger.verify import verify
from server.base.storage import LEDGER_DATABASE
from tests.support.faults import dsn_of
from tests.support.server_process import RunningServer
from tests.support.till import Answer, Till, answer_of, card

CLIENTS = 64
CONNECTIONS = 8
ROUNDS = 5


@asynccontextmanager
async def lanes_of(till: Till) -> AsyncIterator[list[Till]]:
    """The same till many times, over connections of their own, so that several processes answer."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(
                    till.server.pos_address, options=[("grpc.use_local_subchannel_pool", 1), ("lane", number)]
                )
            )
            for number in range(CONNECTIONS)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield [replace(till, pos=checkout_pb2_grpc.CheckoutServiceStub(channel)) for channel in channels]


async def at_once(calls: Sequence[Awaitable[object]]) -> list[object]:
    """Make calls at the same moment; refusals are answers."""

    async def one(call: Awaitable[object]) -> object:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            return answer_of(error)

    return await asyncio.gather(*(one(call) for call in calls))


async def new_shopper(till: Till, points_minor: int) -> tuple[member_pb2.Member, common_pb2.Identifier]:
    """A member with points, and the card. What is bought for less than 0.50 in money earns nothing more."""
    member = await till.enrol()
    shopper = card(member.cards[0].card_number)
    await till.commit(till.commit_request([("cigarettes", 1), ("bread", points_minor * 100)], shopper))
    return member, shopper


async def entries_of(till: Till, member: member_pb2.Member) -> list[ledger_pb2.Entry]:
    """All entries of a member, the oldest first."""
    request = ledger_pb2.GetAccountRequest(member_id=member.member_id, newest_entries=1000)
    answer = await till.ledger.GetAccount(request, metadata=till.office("finance"))
    return list(reversed(answer.entries))


async def test_64_clients_spend_the_last_points_of_one_member(till: Till) -> None:
    have, want = 170, 40
    member, shopper = await new_shopper(till, have)
    requests = [till.commit_request([("cigarettes", 1), ("bread", want)], shopper, spend=want) for _ in range(CLIENTS)]
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].commit(request) for n, request in enumerate(requests)])
    booked = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
    assert len(booked) == CLIENTS, "a paid receipt is never refused"
    spent = Counter(answer.settlement.spent_points_minor for answer in booked)
    assert spent == {40: 4, 10: 1, 0: CLIENTS - 5}
    left = have
    for answer in sorted(booked, key=lambda answer: answer.entry.number):
        settlement = answer.settlement
        left -= settlement.spent_points_minor
        assert settlement.spent_points_minor + settlement.left_out_points_minor == want
        assert settlement.balance.available_points_minor == left >= 0
    assert left == 0
    assert len(await entries_of(till, member)) >= CLIENTS + 1


async def test_64_lanes_hold_the_last_points_of_one_member(till: Till) -> None:
    have, want = 450, 100
    _, shopper = await new_shopper(till, have)
    requests = [till.hold_request(shopper, want, checkout=till.checkout()) for _ in range(CLIENTS)]
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].hold(request) for n, request in enumerate(requests)])
    held = [answer for answer in answers if isinstance(answer, checkout_pb2.HoldResponse)]
    refused = Counter(answer.reason for answer in answers if isinstance(answer, Answer))
    assert len(held) == have // want
    assert refused == {"HELD_ELSEWHERE": CLIENTS - len(held)}
    for number, answer in enumerate(sorted(held, key=lambda answer: answer.entry.number), start=1):
        assert answer.balances[0].held_points_minor == number * want
        assert len(answer.held_elsewhere) == number - 1
    balance = await till.balance(shopper)
    assert (balance.available_points_minor, balance.held_points_minor) == (50, 400)


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_one_hold_is_paid_with_or_let_go_never_both(till: Till, round_: int) -> None:
    have = 30
    member, shopper = await new_shopper(till, have)
    checkout = till.checkout()
    held = await till.hold(till.hold_request(shopper, have, checkout=checkout))
    commits = [till.commit_request([("cigarettes", 1), ("bread", have)], shopper, spend=have) for _ in range(2)]
    for commit in commits:
        commit.checkout_id = checkout.checkout_id
    async with lanes_of(till) as lanes:
        calls: list[Awaitable[object]] = [lane.commit(commit) for lane, commit in zip(lanes, commits, strict=False)]
        calls.insert(round_ % 3, lanes[2].cancel(till.cancel_request(checkout)))
        answers = await at_once(calls)
    booked = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
    assert sorted(answer.settlement.spent_points_minor for answer in booked) == [0, have], "spent once, by one of them"
    ends = [end for entry in await entries_of(till, member) for end in entry.event.hold_ends]
    (end,) = [end for end in ends if end.hold_number == held.entry.number]
    captured = sum(answer.settlement.captured_points_minor for answer in booked)
    (cancelled,) = [answer for answer in answers if not isinstance(answer, checkout_pb2.CommitResponse)]
    if end.how == journal_pb2.HOLD_END_KIND_CAPTURED:
        assert (captured, end.captured_points_minor) == (have, have)
        assert isinstance(cancelled, Answer)
        assert cancelled.reason == "HOLD_GONE"
    else:
        assert (captured, end.how) == (0, journal_pb2.HOLD_END_KIND_CANCELLED)
        assert isinstance(cancelled, checkout_pb2.CancelResponse)
        assert cancelled.released_points_minor == have
    balance = await till.balance(shopper)
    assert (balance.available_points_minor, balance.held_points_minor) == (0, 0)


@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_two_returns_of_one_line_at_once(till: Till, other_till: Till, round_: int) -> None:
    _, shopper = await new_shopper(till, 300)
    purchase = till.commit_request([("bread", 10000), ("milk", 500)], shopper, spend=200)
    await till.commit(purchase)
    calls = [each.give_back(each.return_request(purchase.receipt_key, (1, 1000))) for each in (till, other_till)]
    answers = await at_once(calls if round_ % 2 else calls[::-1])
    (won,) = [answer for answer in answers if isinstance(answer, checkout_pb2.ReturnResponse)]
    (lost,) = [answer for answer in answers if isinstance(answer, Answer)]
    assert lost.reason == "RETURN_EXCEEDS_PURCHASE"
    assert won.refund_points_minor + won.refund_money_minor == 10000
    assert (await till.balance(shopper)) == won.balances[0]


async def test_64_clients_bring_back_the_same_goods_piece_by_piece(till: Till) -> None:
    pieces = 20
    _, shopper = await new_shopper(till, 300)
    purchase = till.commit_request([("bread", 9999)], shopper, spend=250)
    purchase.receipt.lines[0].quantity_milli = pieces * 1000
    await till.commit(purchase)
    async with lanes_of(till) as lanes:
        calls = [
            lanes[n % CONNECTIONS].give_back(till.return_request(purchase.receipt_key, (1, 1000)))
            for n in range(CLIENTS)
        ]
        answers = await at_once(calls)
    won = [answer for answer in answers if isinstance(answer, checkout_pb2.ReturnResponse)]
    assert len(won) == pieces
    assert sum(answer.refund_money_minor for answer in won) == 9999 - 250
    assert sum(answer.refund_points_minor for answer in won) == 250
    assert (await till.balance(shopper)).available_points_minor == 300


async def test_the_books_are_sound_after_all_that(tallypoint: RunningServer) -> None:
    conn = await asyncpg.connect(dsn_of(tallypoint, LEDGER_DATABASE))
    try:
        reports = await verify(conn)
    finally:
        await conn.close()
    assert reports
    assert [report.problem for report in reports if report.problem] == []
