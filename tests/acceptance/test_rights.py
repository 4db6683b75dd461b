"""Coupons, offers, limits, budgets, levels and further points, against a running server, as a register meets them.

Everything happens in the year before the other tests' programme begins, under a version of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import grpc
import pytest
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    ledger_pb2,
    member_pb2,
    programme_pb2,
    programme_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
)

from ledger.verify import verify
from server.base.storage import LEDGER_DATABASE
from tests.support.faults import dsn_of
from tests.support.server_process import RunningServer
from tests.support.till import Answer, Till, answer_of, card

NOON = datetime(2025, 6, 14, 12, tzinfo=UTC)
CLIENTS = 32
CONNECTIONS = 8

PROGRAMME = """
programme: corner-shop
name: Corner shop, with rights
effective_from: 2025-01-01
currency: UAH
language: en
point: {unit: bonus, precision: 2, pays: 1.00}
units:
  - {unit: gift, name: Gift points, precision: 2, pays: 1.00, sold: true}
earning: {base_percent: 1}
tiers:
  by: spend
  window: {each: year}
  levels:
    - {code: silver, name: Silver, at_least: 200.00}
    - {code: gold, name: Gold, at_least: 1000.00}
promotions:
  - id: sorry
    name: 5.00 off, with our apologies
    when: {coupon: {series: [sorry]}}
    basket_discount: {amount: 5.00}
  - id: welcome
    name: 2.00 off for everybody who knows the word
    when: {coupon: {codes: [WELCOME]}}
    basket_discount: {amount: 2.00}
  - id: own-offer
    name: A fifth off bread, for you alone
    scope: {skus: [bread]}
    when: {offer: true}
    line_discount: {percent: 20}
  - id: families
    name: Milk at half price for families
    scope: {skus: [milk]}
    when: {segments: [families]}
    line_discount: {percent: 50}
  - id: thrice
    name: 10 points for brie, three times a month
    scope: {skus: [brie]}
    points: {fixed: 10.00}
    limits: [{at_most: 3, of: count, for: member, each: month}]
  - id: first-come
    name: 100 points for cigarettes, while the budget of 1000 lasts
    scope: {skus: [cigarettes]}
    points: {fixed: 100.00}
    limits: [{at_most: 1000.00, of: points, for: all}]
  - id: come-back
    name: A coupon for the next visit
    scope: {skus: [book]}
    issue_coupon: {series: sorry, starts_after_days: 0, valid_days: 30}
  - id: presents
    name: 3 gift points for a bottle
    scope: {skus: [bottle]}
    points: {fixed: 3.00, unit: gift}
  - id: control
    name: Half of the members get nothing, for comparison
    scope: {skus: [tea]}
    points: {fixed: 7.00}
    control_percent: 50
"""


@dataclass(frozen=True)
class Desk:
    """Marketing's desk in the back office."""

    till: Till
    rights: rights_pb2_grpc.RightsServiceAsyncStub

    async def load_coupon(self, **terms: object) -> str:
        """Store a coupon of the series `sorry`; return its code."""
        code = f"C{uuid.uuid4().hex[:12]}".upper()
        row = rights_pb2.CouponRow(code=code, **terms)  # type: ignore[arg-type]  # the message's own fields
        request = rights_pb2.LoadCouponsRequest(series="sorry", coupons=[row])
        answer = await self.rights.LoadCoupons(request, metadata=self.till.office("crm"))
        assert (answer.added, list(answer.refused)) == (1, [])
        return code

    async def state(self, code: str) -> tuple[str, int]:
        """Return a coupon's state and how many uses are taken."""
        request = rights_pb2.GetCouponRequest(code=code)
        coupon = (await self.rights.GetCoupon(request, metadata=self.till.office("crm"))).coupon
        return rights_pb2.CouponState.Name(coupon.state).removeprefix("COUPON_STATE_"), coupon.taken_count


@pytest.fixture(scope="module")
def published(tallypoint: RunningServer, stores: list[tuple[str, str]]) -> None:
    """The version of these tests, known to the office; `stores` has published the other one before."""

    async def publish() -> None:
        async with grpc.aio.insecure_channel(tallypoint.backoffice_address) as office:
            stub = programme_pb2_grpc.ProgrammeServiceStub(office)
            admin = (("authorization", f"Bearer {tallypoint.keys['admin']}"),)
            await stub.PublishProgramme(programme_pb2.PublishProgrammeRequest(text=PROGRAMME), metadata=admin)

    asyncio.run(publish())


@pytest.fixture
async def desk(till: Till, published: None) -> AsyncIterator[Desk]:
    """Marketing's desk, once every worker of the till knows the programme."""
    async with grpc.aio.insecure_channel(till.server.backoffice_address) as office:
        async with lanes_of(till) as lanes:
            for lane in lanes:
                while not await _knows(lane):
                    await asyncio.sleep(0.05)
        yield Desk(till, rights_pb2_grpc.RightsServiceStub(office))


async def _knows(lane: Till) -> bool:
    try:
        quoted = await quote(lane, [("bread", 1000)], coupons=["welcome"])
    except grpc.aio.AioRpcError as error:
        assert answer_of(error).reason == "NO_PROGRAMME"
        return False
    return quoted.discount_minor == 200


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


Basket = Sequence[tuple[str, int]]


async def quote(
    till: Till,
    basket: Basket,
    shopper: common_pb2.Identifier | None = None,
    *,
    coupons: Sequence[str] = (),
    **more: object,
) -> checkout_pb2.QuoteResponse:
    """Ask what a basket gives."""
    request = checkout_pb2.QuoteRequest(
        identifier=shopper,
        receipt=till.receipt(basket, NOON),
        coupon_codes=coupons,
        **more,  # type: ignore[arg-type]  # the message's own fields
    )
    return await till.pos.Quote(request, metadata=till.auth, timeout=10)


def paid(
    till: Till,
    basket: Basket,
    shopper: common_pb2.Identifier | None = None,
    *,
    coupons: Sequence[str] = (),
    discounts: Sequence[int] = (),
) -> checkout_pb2.CommitRequest:
    """A receipt as paid, with the discounts that the register gave."""
    request = till.commit_request(basket, shopper, event_at=NOON)
    request.receipt_key.business_date = "2025-06-14"
    request.coupon_codes.extend(coupons)
    for line, discount in zip(request.receipt.lines, discounts, strict=False):
        line.discount_minor = discount
    return request


async def new_shopper(till: Till) -> tuple[member_pb2.Member, common_pb2.Identifier]:
    """A member and the card."""
    member = await till.enrol()
    return member, card(member.cards[0].card_number)


def outcomes(
    answer: checkout_pb2.QuoteResponse | checkout_pb2.CommitResponse,
) -> list[str]:
    """What became of each coupon: `used`, or why not."""
    return [
        "used" if one.used else common_pb2.RefusalReason.Name(one.reason).removeprefix("REFUSAL_REASON_COUPON_")
        for one in answer.coupons
    ]


async def entry_of(till: Till, ref: common_pb2.EntryRef) -> ledger_pb2.Entry:
    """An entry as the back office sees it."""
    request = ledger_pb2.ListEntriesRequest(book=ref.book, after_number=ref.number - 1, page_size=1)
    return (await till.ledger.ListEntries(request, metadata=till.office("finance"))).entries[0]


async def check_books(till: Till) -> None:
    """Prove the whole ledger."""
    conn = await asyncpg.connect(dsn_of(till.server, LEDGER_DATABASE))
    try:
        assert [report.problem for report in await verify(conn)] == [None] * len(await verify(conn))
    finally:
        await conn.close()


# --- coupons ---------------------------------------------------------------------------------------------------------


async def test_a_coupon_is_used_once(till: Till, desk: Desk) -> None:
    _, shopper = await new_shopper(till)
    code = await desk.load_coupon()
    quoted = await quote(till, [("bread", 2000)], shopper, coupons=[f" {code.lower()} "])
    assert (outcomes(quoted), quoted.discount_minor) == (["used"], 500)
    assert list(quoted.coupons[0].promotion_ids) == ["sorry"]

    request = paid(till, [("bread", 2000)], shopper, coupons=[code], discounts=[500])
    first = await till.commit(request)
    assert outcomes(first) == ["used"]
    assert await desk.state(code) == ("USED", 1)
    assert await till.commit(request) == first, "the same receipt has the same answer, its coupon used"

    assert outcomes(await quote(till, [("bread", 2000)], shopper, coupons=[code])) == ["USED"]
    second = await till.commit(paid(till, [("bread", 2000)], shopper, coupons=[code], discounts=[500]))
    assert outcomes(second) == ["USED"]
    (variance,) = (await entry_of(till, second.entry)).event.purchase.variances
    assert (variance.rules_discount_minor, variance.given_discount_minor) == (0, 500)


async def test_coupons_that_do_not_count_say_why(till: Till, desk: Desk) -> None:
    _, shopper = await new_shopper(till)
    stranger, _ = await new_shopper(till)
    codes = [
        "NOBODY-KNOWS-IT",
        await desk.load_coupon(valid_until="2025-06-13"),
        await desk.load_coupon(valid_from="2025-06-15"),
        await desk.load_coupon(member=common_pb2.Identifier(member_id=stranger.member_id)),
        await desk.load_coupon(valid_from="2025-06-14", valid_until="2025-06-14"),
    ]
    quoted = await quote(till, [("bread", 2000)], shopper, coupons=codes)
    assert outcomes(quoted) == ["UNKNOWN", "NOT_VALID", "NOT_VALID", "FOREIGN", "used"]
    assert {notice.code for notice in quoted.notices} >= {"COUPON_UNKNOWN", "COUPON_NOT_VALID", "COUPON_FOREIGN"}
    booked = await till.commit(paid(till, [("bread", 2000)], shopper, coupons=codes, discounts=[500]))
    assert outcomes(booked) == outcomes(quoted)
    for code, reason in zip(codes, outcomes(quoted), strict=True):
        if reason == "used":
            continue
        request = till.hold_request(shopper, 0, basket=[("bread", 2000)])
        request.receipt.event_at.FromDatetime(NOON)
        request.coupon_codes.append(code)
        assert (await till.refused(request, "Hold")).reason == f"COUPON_{reason}"


async def test_a_coupon_until_the_last_day_of_all_does_not_lapse(till: Till, desk: Desk) -> None:
    """9999-12-31 is how other systems say that there is no end."""
    member, shopper = await new_shopper(till)
    code = await desk.load_coupon(
        member=common_pb2.Identifier(member_id=member.member_id), valid_from="0001-01-01", valid_until="9999-12-31"
    )
    identify = checkout_pb2.IdentifyRequest(identifier=shopper)
    identify.event_at.FromDatetime(NOON)
    known = await till.pos.Identify(identify, metadata=till.auth)
    assert [(one.code, one.HasField("expires_at")) for one in known.coupons] == [(code, False)]
    assert outcomes(await quote(till, [("bread", 2000)], shopper, coupons=[code.lower() + "\r\n"])) == ["used"]


async def test_a_coupon_without_effect_stays_with_the_shopper(till: Till, desk: Desk) -> None:
    code = await desk.load_coupon()
    _, shopper = await new_shopper(till)
    booked = await till.commit(paid(till, [("bread", 0)], shopper, coupons=[code]))
    assert outcomes(booked) == ["WITHOUT_EFFECT"]
    assert await desk.state(code) == ("OPEN", 0)


async def test_one_of_many_lanes_gets_a_coupon(till: Till, desk: Desk) -> None:
    code = await desk.load_coupon()
    shoppers = [(await new_shopper(till))[1] for _ in range(CLIENTS)]
    requests = [paid(till, [("bread", 2000)], one, coupons=[code], discounts=[500]) for one in shoppers]
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].commit(request) for n, request in enumerate(requests)])
    booked = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
    assert len(booked) == CLIENTS, "a paid receipt is never refused"
    assert Counter(outcomes(answer)[0] for answer in booked) == {"used": 1, "USED": CLIENTS - 1}
    assert await desk.state(code) == ("USED", 1)
    await check_books(till)


async def test_one_of_many_lanes_holds_a_coupon(till: Till, desk: Desk) -> None:
    code = await desk.load_coupon()
    requests = []
    for _ in range(CLIENTS):
        _, shopper = await new_shopper(till)
        request = till.hold_request(shopper, 0, basket=[("bread", 2000)], checkout=till.checkout())
        request.receipt.event_at.FromDatetime(NOON)
        request.coupon_codes.append(code)
        requests.append(request)
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].hold(request) for n, request in enumerate(requests)])
    held = [answer for answer in answers if isinstance(answer, checkout_pb2.HoldResponse)]
    assert [list(answer.held_coupon_codes) for answer in held] == [[code]]
    refused = Counter(answer.reason for answer in answers if isinstance(answer, Answer))
    assert refused == {"COUPON_HELD_ELSEWHERE": CLIENTS - 1}


async def test_a_held_coupon_is_captured_released_and_comes_back(till: Till, desk: Desk) -> None:
    code = await desk.load_coupon()
    _, shopper = await new_shopper(till)
    _, other = await new_shopper(till)

    async def hold() -> checkout_pb2.CheckoutKey:
        request = till.hold_request(shopper, 0, basket=[("bread", 2000)], checkout=(checkout := till.checkout()))
        request.receipt.event_at.FromDatetime(NOON)
        request.coupon_codes.append(code)
        assert list((await till.hold(request)).held_coupon_codes) == [code]
        return checkout

    checkout = await hold()
    assert await desk.state(code) == ("HELD", 1)
    assert outcomes(await quote(till, [("bread", 2000)], other, coupons=[code])) == ["HELD_ELSEWHERE"]
    await till.cancel(till.cancel_request(checkout))
    assert await desk.state(code) == ("OPEN", 0)

    checkout = await hold()
    request = paid(till, [("bread", 2000)], shopper, coupons=[code], discounts=[500])
    request.checkout_id = checkout.checkout_id
    assert outcomes(await till.commit(request)) == ["used"]
    assert await desk.state(code) == ("USED", 1)

    returned = await till.give_back(till.return_request(request.receipt_key, event_at=NOON))
    assert (returned.refund_money_minor, list(returned.coupon_codes)) == (1500, [code])
    assert await desk.state(code) == ("OPEN", 0)


async def test_a_receipt_gives_a_coupon_for_the_next_one(till: Till, desk: Desk) -> None:
    member, shopper = await new_shopper(till)
    assert [one.series for one in (await quote(till, [("book", 3000)], shopper)).issued_coupons] == ["sorry"]
    request = paid(till, [("book", 3000)], shopper)
    booked = await till.commit(request)
    (issued,) = booked.issued_coupons
    assert (issued.promotion_id, issued.valid_from, issued.valid_until) == ("come-back", "2025-06-14", "2025-07-13")
    assert await till.commit(request) == booked

    identify = checkout_pb2.IdentifyRequest(identifier=shopper)
    identify.event_at.FromDatetime(NOON)
    known = await till.pos.Identify(identify, metadata=till.auth)
    assert [coupon.code for coupon in known.coupons] == [issued.code]
    _, stranger = await new_shopper(till)
    assert outcomes(await quote(till, [("bread", 2000)], stranger, coupons=[issued.code])) == ["FOREIGN"]
    used = await till.commit(paid(till, [("bread", 2000)], shopper, coupons=[issued.code], discounts=[500]))
    assert outcomes(used) == ["used"]

    spare = (await till.commit(second := paid(till, [("book", 3000)], shopper))).issued_coupons[0]
    await till.give_back(till.return_request(second.receipt_key, event_at=NOON))
    assert outcomes(await quote(till, [("bread", 2000)], shopper, coupons=[spare.code])) == ["USED"], member.member_id


# --- offers and segments ---------------------------------------------------------------------------------------------


async def test_offers_and_segments_count_at_once(till: Till, desk: Desk) -> None:
    member, shopper = await new_shopper(till)
    basket = [("bread", 1000), ("milk", 400)]
    assert (await quote(till, basket, shopper)).discount_minor == 0
    one = common_pb2.Identifier(member_id=member.member_id)
    offer = rights_pb2.OfferAssignment(promotion_id="own-offer", member=one, valid_until="2025-06-14")
    await desk.rights.PutOffers(rights_pb2.PutOffersRequest(offers=[offer]), metadata=till.office("crm"))
    put = rights_pb2.PutSegmentRequest(segment="families", action=rights_pb2.SEGMENT_ACTION_ADD, members=[one])
    await desk.rights.PutSegment(put, metadata=till.office("crm"))
    quoted = await quote(till, basket, shopper)
    assert [sum(part.amount_minor for part in line.discounts) for line in quoted.lines] == [200, 200]
    identify = checkout_pb2.IdentifyRequest(identifier=shopper)
    identify.event_at.FromDatetime(NOON)
    (shown,) = (await till.pos.Identify(identify, metadata=till.auth)).offers
    assert (shown.promotion_id, shown.valid_until) == ("own-offer", "2025-06-14")


# --- limits and budgets ----------------------------------------------------------------------------------------------


async def test_a_limit_is_never_overshot_by_lanes_at_once(till: Till, desk: Desk) -> None:
    _, shopper = await new_shopper(till)
    requests = [paid(till, [("brie", 100)], shopper) for _ in range(CLIENTS)]
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].commit(request) for n, request in enumerate(requests)])
    booked = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
    assert len(booked) == CLIENTS
    assert Counter(answer.settlement.accrual_points_minor for answer in booked) == {1001: 3, 1: CLIENTS - 3}
    (cut,) = next(answer.capped for answer in booked if answer.capped)
    assert (cut.promotion_id, cut.wanted, cut.granted) == ("thrice", 1, 0)
    quoted = await quote(till, [("brie", 100)], shopper)
    assert (quoted.accrual_points_minor, len(quoted.capped)) == (1, 1)


async def test_a_budget_of_all_books_is_used_up_and_not_exceeded(till: Till, desk: Desk) -> None:
    shoppers = [(await new_shopper(till))[1] for _ in range(CLIENTS)]
    requests = [paid(till, [("cigarettes", 100)], one) for one in shoppers]
    async with lanes_of(till) as lanes:
        answers = await at_once([lanes[n % CONNECTIONS].commit(request) for n, request in enumerate(requests)])
        booked = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
        assert len(booked) == CLIENTS
        given = sum(answer.settlement.accrual_points_minor - 1 for answer in booked)
        assert 0 < given <= 100_000
        rest = [await lanes[0].commit(paid(till, [("cigarettes", 100)], one)) for one in shoppers]
    given += sum(answer.settlement.accrual_points_minor - 1 for answer in rest)
    assert given <= 100_000, "a budget is never exceeded"
    assert given >= 90_000, "what is left over is less than one grant"
    await check_books(till)


async def test_a_control_group_gets_nothing_and_is_recorded(till: Till, desk: Desk) -> None:
    earned: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for _ in range(24):
        _, shopper = await new_shopper(till)
        booked = await till.commit(paid(till, [("tea", 100)], shopper))
        withheld = (await entry_of(till, booked.entry)).event.purchase.withheld
        earned[booked.settlement.accrual_points_minor, tuple(one.promotion_id for one in withheld)] += 1
    assert set(earned) == {(701, ()), (1, ("control",))}, "one of two in 24 members: both occur all but surely"


# --- levels ----------------------------------------------------------------------------------------------------------


async def test_every_answer_says_the_level_and_what_is_missing(till: Till, desk: Desk) -> None:
    _, shopper = await new_shopper(till)

    def said(standing: common_pb2.TierStanding) -> tuple[str, str, int]:
        return standing.tier, standing.next_tier, standing.missing

    assert said((await quote(till, [("bread", 100)], shopper)).member.standing) == ("", "silver", 20_000)
    assert said((await till.commit(paid(till, [("bread", 15_000)], shopper))).standing) == ("", "silver", 5_000)
    booked = await till.commit(paid(till, [("bread", 5_000)], shopper))
    assert said(booked.standing) == ("silver", "gold", 80_000)
    assert booked.standing.good_until == "2025-12-31"
    event = (await entry_of(till, booked.entry)).event
    assert (event.purchase.tier_change.before, event.purchase.tier_change.after) == ("", "silver")
    assert [one.times for one in event.counter_changes if one.key == "standing/silver"] == [1]
    identify = checkout_pb2.IdentifyRequest(identifier=shopper)
    identify.event_at.FromDatetime(NOON)
    known = await till.pos.Identify(identify, metadata=till.auth)
    assert (known.member.tier, said(known.member.standing)) == ("silver", ("silver", "gold", 80_000))


# --- further points --------------------------------------------------------------------------------------------------


async def test_gift_points_have_a_balance_of_their_own(till: Till, desk: Desk) -> None:
    _, shopper = await new_shopper(till)
    booked = await till.commit(paid(till, [("bottle", 1000)], shopper))
    assert booked.settlement.accrual_points_minor == 10
    (gift,) = booked.settlement.units
    assert (gift.balance.unit, gift.accrual_points_minor, gift.balance.available_points_minor) == ("gift", 300, 300)

    change = paid(till, [("bread", 100)], shopper)
    change.deposits.add(unit="gift", points_minor=50)
    (gift,) = (await till.commit(change)).settlement.units
    assert gift.balance.available_points_minor == 350

    quoted = await quote(
        till, [("bread", 1000)], shopper, spend_units=[common_pb2.UnitPoints(unit="gift", points_minor=500)]
    )
    assert [unit.points_minor for unit in quoted.spend_units] == [350]
    spend = paid(till, [("bread", 1000)], shopper)
    spend.spend_units.add(unit="gift", points_minor=350)
    answer = await till.commit(spend)
    (gift,) = answer.settlement.units
    assert (gift.spent_points_minor, gift.spent_money_minor, gift.balance.available_points_minor) == (350, 350, 0)
    assert answer.settlement.accrual_points_minor == quoted.accrual_points_minor == 7, "on 6.50 paid in money"

    returned = await till.give_back(till.return_request(spend.receipt_key, event_at=NOON))
    assert returned.refund_money_minor == 650
    balances = {balance.unit: balance.available_points_minor for balance in returned.balances}
    assert balances["gift"] == 350

    wrong = paid(till, [("bread", 100)], shopper)
    wrong.deposits.add(unit="miles", points_minor=50)
    refused = await till.refused(wrong)
    assert (refused.reason, refused.fields) == ("INVALID_REQUEST", ("deposits[0].unit",))
