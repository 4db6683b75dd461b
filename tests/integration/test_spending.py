"""What points may pay is judged when the receipt is booked, whatever the register asked for: a table in words.

Every case is sold by a lane over gRPC, and brought back: earning and returns follow what was really paid.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import asyncpg
import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, correction_pb2, member_pb2

from ledger.verify import verify
from server.base.storage import LEDGER_MIGRATIONS
from tests.support.database import DatabaseFactory
from tests.support.one_process import LANE, STORE, Service, running_service

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
PROGRAMME = """
programme: held
name: Held
effective_from: 2026-01-01
currency: UAH
point: {{unit: bonus, precision: 2, pays: {pays}}}
earning: {{base_percent: 10}}
spending: {{{spending}}}
exclusions: {{no_points_payment: {{tags: [tobacco]}}}}
units:
  - {{unit: gift, name: Gift, precision: 0, pays: 0.10, sold: true}}
  - {{unit: card, name: Gift card, precision: 2, pays: 1.00, sold: true}}
  - {{unit: crumbs, name: Crumbs, precision: 2, pays: 0.30, sold: true}}
"""
_numbers = itertools.count(1)


class Goods(NamedTuple):
    """A line: its price and lowest permitted price in minor units, and its tags."""

    price: int
    floor: int = 0
    tags: tuple[str, ...] = ()


BREAD, TOBACCO = Goods(1000), Goods(1000, 0, ("tobacco",))


@dataclass(frozen=True)
class Case:
    """Points asked for, what is there, and what is right; `units` are asked, there and spent by the unit's code."""

    asked: int
    right: int
    why: str = ""
    there: int = 50_000
    goods: Sequence[Goods] = (BREAD,)
    spending: str = ""
    pays: str = "1.00"
    units: tuple[tuple[str, int, int, int], ...] = ()
    money: int | None = None
    """What points of all units pay; the points spent if not given."""


SHARE, GOODS, EXCLUDED, STEP = (
    "SPENDING_ABOVE_SHARE",
    "SPENDING_ABOVE_GOODS",
    "SPENDING_GOODS_EXCLUDED",
    "SPENDING_BROKEN_STEP",
)
FEW = "POINTS_INSUFFICIENT"
CASES = {
    "a fifth of the receipt": Case(10_000, 200, SHARE, spending="max_share_percent: 20"),
    "as much as may be": Case(200, 200, spending="max_share_percent: 20"),
    "the share of a broken amount is rounded down": Case(
        10_000, 66, SHARE, goods=[Goods(333)], spending="max_share_percent: 20"
    ),
    "one minor unit is left for money": Case(1000, 999, SHARE),
    "unless it need not be": Case(1000, 1000, spending="keep_one_minor_unit: false"),
    "never more than the goods cost": Case(5000, 1000, GOODS, spending="keep_one_minor_unit: false"),
    "nothing of excluded goods": Case(500, 0, EXCLUDED, goods=[TOBACCO]),
    "only of goods that are not excluded": Case(1500, 1000, EXCLUDED, goods=[BREAD, TOBACCO]),
    "a fifth of what is not excluded": Case(1500, 200, SHARE, goods=[BREAD, TOBACCO], spending="max_share_percent: 20"),
    "not below the lowest price": Case(900, 300, EXCLUDED, goods=[Goods(1000, 700)]),
    "below it, if the programme says so": Case(
        900, 900, goods=[Goods(1000, 700)], spending="respect_price_floor: false"
    ),
    "in whole steps": Case(555, 550, STEP, spending="step_points: 0.50"),
    "in whole steps of the share": Case(555, 150, SHARE, spending="step_points: 0.50, max_share_percent: 19"),
    "as far as the balance goes": Case(500, 50, FEW, there=50),
    "in whole steps of the balance": Case(500, 50, FEW, there=74, spending="step_points: 0.50"),
    "nothing is there": Case(5000, 0, FEW, there=0, goods=[Goods(10_000)]),
    "the share, and less is there": Case(500, 150, FEW, there=150, spending="max_share_percent: 20"),
    "ten points pay one": Case(9000, 2000, SHARE, pays="0.10", spending="max_share_percent: 20", money=200),
    "lines of nothing": Case(500, 0, GOODS, goods=[Goods(0)], spending="keep_one_minor_unit: false"),
    "further units never pay more than the goods cost": Case(0, 0, units=(("card", 5000, 5000, 1000),), money=1000),
    "further units pay what the own points leave": Case(
        500, 200, SHARE, spending="max_share_percent: 20", units=(("card", 5000, 5000, 800),), money=1000
    ),
    "a gift card pays all": Case(0, 0, units=(("card", 1000, 1000, 1000),), money=1000),
    "two further units pay one after the other": Case(
        0, 0, units=(("gift", 30, 50, 30), ("card", 5000, 5000, 700)), money=1000
    ),
    "one unit named twice": Case(0, 0, units=(("card", 400, 600, 400), ("card", 400, 600, 200)), money=600),
    "further units and excluded goods": Case(
        0, 0, goods=[BREAD, TOBACCO], units=(("card", 5000, 5000, 1000),), money=1000
    ),
    "no point is spent for nothing": Case(0, 0, units=(("crumbs", 105, 500, 104),), money=31),
    "a unit of which nothing is there": Case(0, 0, units=(("gift", 30, 0, 0),), money=0),
}


@pytest.fixture
async def service(databases: DatabaseFactory, request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """A service with the case's programme; the books are sound at its end."""
    case = request.node.callspec.params.get("case", Case(0, 0)) if hasattr(request.node, "callspec") else Case(0, 0)
    async with AsyncExitStack() as stack:
        dsn = stack.enter_context(databases.fresh(LEDGER_MIGRATIONS))
        text = PROGRAMME.format(pays=case.pays, spending=case.spending)
        yield await stack.enter_async_context(running_service(dsn, text, NOW))
        assert await problems(dsn) == []


async def problems(dsn: str) -> list[str]:
    conn = await asyncpg.connect(dsn)
    try:
        return [str(report.problem) for report in await verify(conn) if report.problem]
    finally:
        await conn.close()


def key() -> common_pb2.ReceiptKey:
    return common_pb2.ReceiptKey(
        store_id=STORE, terminal_id=LANE, business_date="2026-03-14", receipt_number=next(_numbers)
    )


def receipt(goods: Sequence[Goods]) -> common_pb2.Receipt:
    made = common_pb2.Receipt(currency_code="UAH")
    made.event_at.FromDatetime(NOW)
    for number, one in enumerate(goods, start=1):
        made.lines.add(
            line_number=number,
            sku=f"sku-{number}",
            category="goods",
            quantity_milli=1000,
            list_amount_minor=one.price,
            floor_amount_minor=one.floor,
            tags=one.tags,
        )
    return made


def purchase(goods: Sequence[Goods], member_id: str = "", spend: int = 0, **more: object) -> checkout_pb2.CommitRequest:
    return checkout_pb2.CommitRequest(
        message_id=str(uuid.uuid4()),
        receipt_key=key(),
        identifier=common_pb2.Identifier(member_id=member_id) if member_id else None,
        receipt=receipt(goods),
        spend_points_minor=spend,
        **more,  # type: ignore[arg-type]  # the message's own fields
    )


async def give(service: Service, member_id: str, points: int, unit: str = "") -> None:
    """Give points by hand, good for ever so long."""
    request = correction_pb2.RequestAdjustmentRequest(
        request_id=str(uuid.uuid4()),
        member_id=member_id,
        points_minor=points,
        unit=unit,
        reason_code="goodwill",
        note="given",
        expires_on="2030-01-01",
    )
    await service.ask_office("corrections", "RequestAdjustment", request)


async def shopper(service: Service, points: int, units: Sequence[tuple[str, int]] = ()) -> str:
    member_id = await service.enrol()
    for unit, there in (("", points), *dict(units).items()):
        if there:
            await give(service, member_id, there, unit)
    return member_id


async def bring_back(service: Service, bought: checkout_pb2.CommitRequest) -> checkout_pb2.ReturnResponse:
    request = checkout_pb2.ReturnRequest(
        message_id=str(uuid.uuid4()), receipt_key=key(), purchase_key=bought.receipt_key
    )
    request.event_at.FromDatetime(NOW)
    answer: checkout_pb2.ReturnResponse = await service.call("Return", request)
    return answer


def reason(number: int) -> str:
    return common_pb2.RefusalReason.Name(number).removeprefix("REFUSAL_REASON_").replace("UNSPECIFIED", "")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("offline", [False, True], ids=["at the till", "in a batch"])
async def test_what_points_may_pay(service: Service, case: Case, offline: bool) -> None:
    member_id = await shopper(service, case.there, [(unit, there) for unit, _, there, _ in case.units])
    units = [common_pb2.UnitPoints(unit=unit, points_minor=asked) for unit, asked, _, _ in case.units]
    bought = purchase(case.goods, member_id, case.asked, spend_units=units)
    if offline:
        batch = await service.call("CommitBatch", checkout_pb2.CommitBatchRequest(commits=[bought]))
        booked = batch.results[0].committed
    else:
        booked = await service.call("Commit", bought)
    settlement, spent = booked.settlement, dict.fromkeys([unit for unit, *_ in case.units], 0)
    for unit, _, _, right in case.units:
        spent[unit] += right
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (case.right, case.asked - case.right)
    assert reason(settlement.left_out_reason) == case.why
    assert {one.balance.unit: one.spent_points_minor for one in settlement.units} == spent
    left_out = [one for one in (settlement, *settlement.units) if one.left_out_points_minor]
    assert all(one.left_out_reason for one in left_out)
    assert len([one for one in booked.notices if one.code == "POINTS_LEFT_OUT"]) == len(left_out), "each is said"
    cost = sum(one.price for one in case.goods)
    paid_with_points = case.right if case.money is None else case.money
    money = settlement.spent_money_minor + sum(one.spent_money_minor for one in settlement.units)
    assert money == paid_with_points <= cost
    worth = Decimal(case.pays)
    assert abs(settlement.accrual_points_minor - Decimal(cost - money) / 10 / worth) <= Decimal(len(case.goods)) / 2
    back = await bring_back(service, bought)
    assert (back.refund_money_minor, back.refund_points_minor) == (cost - money, case.right), "as it was paid"


async def test_what_was_asked_and_not_there_is_paid_in_money_and_earns(service: Service) -> None:
    member_id = await service.enrol()
    bought = purchase([Goods(10_000)], member_id, 5000)
    settlement = (await service.call("Commit", bought)).settlement
    assert (settlement.spent_money_minor, settlement.accrual_points_minor) == (0, 1000), "ten percent of 100.00"
    assert (await bring_back(service, bought)).refund_money_minor == 10_000


async def test_who_may_not_spend_pays_in_money(service: Service) -> None:
    member_id = await shopper(service, 500, [("card", 500)])
    await service.ask_office(
        "members",
        "SetMemberStatus",
        member_pb2.SetMemberStatusRequest(
            message_id=str(uuid.uuid4()),
            member_id=member_id,
            status=common_pb2.MEMBER_STATUS_EARN_ONLY,
            reason="under age",
        ),
    )
    card = [common_pb2.UnitPoints(unit="card", points_minor=100)]
    booked = await service.call("Commit", purchase([BREAD], member_id, 100, spend_units=card))
    told = booked.settlement
    assert [told.spent_points_minor, told.units[0].spent_points_minor] == [0, 0]
    assert {reason(told.left_out_reason), reason(told.units[0].left_out_reason)} == {"SPENDING_FORBIDDEN"}
    quoted = await service.call(
        "Quote",
        checkout_pb2.QuoteRequest(
            identifier=common_pb2.Identifier(member_id=member_id), receipt=receipt([BREAD]), spend_units=card
        ),
    )
    assert list(quoted.spend_units) == []


async def test_points_without_a_member_are_left_out(service: Service) -> None:
    settlement = (await service.call("Commit", purchase([BREAD], spend=300))).settlement
    assert (settlement.left_out_points_minor, reason(settlement.left_out_reason)) == (300, "IDENTIFIER_UNKNOWN")


# --- holds -----------------------------------------------------------------------------------------------------------


def hold_request(member_id: str, goods: Sequence[Goods], points: int) -> checkout_pb2.HoldRequest:
    return checkout_pb2.HoldRequest(
        message_id=str(uuid.uuid4()),
        checkout_key=checkout_pb2.CheckoutKey(store_id=STORE, terminal_id=LANE, checkout_id="c"),
        identifier=common_pb2.Identifier(member_id=member_id),
        receipt=receipt(goods),
        spend_points_minor=points,
    )


async def test_a_hold_larger_than_the_receipt_is_captured_as_far_as_the_goods_allow(service: Service) -> None:
    member_id = await shopper(service, 5000)
    await service.call("Hold", hold_request(member_id, [Goods(100_000)], 5000))
    settlement = (await service.call("Commit", purchase([BREAD], member_id, 5000, checkout_id="c"))).settlement
    assert (settlement.captured_points_minor, settlement.spent_points_minor) == (999, 999)
    assert (settlement.released_points_minor, settlement.left_out_points_minor) == (4001, 4001)
    assert settlement.balance.available_points_minor == 4001
    assert settlement.balance.held_points_minor == 0


@pytest.mark.parametrize(
    ("hold_first", "expires", "right"),
    [
        pytest.param(True, False, 800, id="the version that quoted the hold"),
        pytest.param(False, False, 200, id="without a hold the version at the receipt's time"),
        pytest.param(True, True, 200, id="a hold that lapsed quotes nothing any more"),
    ],
)
async def test_the_version_that_judges(service: Service, hold_first: bool, expires: bool, right: int) -> None:
    """The share goes down from 80 to 20 percent, and a point pays half, while the shopper is paying."""
    member_id = await shopper(service, 5000)
    first, second = ("max_share_percent: 80", "1.00"), ("max_share_percent: 20", "0.50")
    for number, (spending, pays) in enumerate((first, second)):
        text = PROGRAMME.format(pays=pays, spending=spending)
        await service.publish(text.replace("2026-01-01", "2026-02-01"))
        if number == 0 and hold_first:
            await service.call("Hold", hold_request(member_id, [BREAD], 800))
    if expires:
        service.move_clock(hours=1)
    bought = purchase([BREAD], member_id, 800, checkout_id="c")
    settlement = (await service.call("Commit", bought)).settlement
    assert settlement.spent_money_minor == right
    back = await bring_back(service, bought)
    assert (back.refund_money_minor, back.refund_points_minor) == (1000 - right, settlement.spent_points_minor)


async def test_what_a_hold_kept_is_spent_whatever_forbids_spending_now(service: Service) -> None:
    member_id = await shopper(service, 5000)
    await service.call("Hold", hold_request(member_id, [BREAD], 300))
    await service.ask_office(
        "members",
        "SetMemberStatus",
        member_pb2.SetMemberStatusRequest(
            message_id=str(uuid.uuid4()),
            member_id=member_id,
            status=common_pb2.MEMBER_STATUS_EARN_ONLY,
            reason="under age",
        ),
    )
    settlement = (await service.call("Commit", purchase([BREAD], member_id, 500, checkout_id="c"))).settlement
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (300, 200)
    assert reason(settlement.left_out_reason) == "SPENDING_FORBIDDEN"


async def test_a_quote_promises_what_the_commit_does(service: Service) -> None:
    member_id = await shopper(service, 450, [("gift", 37), ("card", 300)])
    units = [common_pb2.UnitPoints(unit=unit, points_minor=99_999) for unit in ("gift", "card")]
    goods = [Goods(777), Goods(333), TOBACCO]
    asked = checkout_pb2.QuoteRequest(
        identifier=common_pb2.Identifier(member_id=member_id),
        receipt=receipt(goods),
        spend_points_minor=99_999,
        spend_units=units,
    )
    quoted = await service.call("Quote", asked)
    booked = (await service.call("Commit", purchase(goods, member_id, 99_999, spend_units=units))).settlement
    assert quoted.spend_points_minor == booked.spent_points_minor == 450
    assert {one.unit: one.points_minor for one in quoted.spend_units} == {
        one.balance.unit: one.spent_points_minor for one in booked.units
    }
    assert quoted.accrual_points_minor == booked.accrual_points_minor
