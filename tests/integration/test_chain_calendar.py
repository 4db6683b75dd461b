"""Dates outside of a store are those of the chain's calendar, and versions of the programme count by the store's.

One o'clock at night in Kyiv is the day before in UTC: what was judged by that lapsed two hours after it was granted.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import grpc
import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, correction_pb2

from server.base.storage import LEDGER_MIGRATIONS
from server.shop.stores import StoreRegistry
from tests.support.database import DatabaseFactory
from tests.support.one_process import HASHES, Service, running_service
from tests.support.till import answer_of

KYIV = ZoneInfo("Europe/Kyiv")
FEBRUARY = datetime(2026, 2, 1, 0, 30, tzinfo=KYIV)
PROGRAMME = """
programme: shop
name: Shop
effective_from: {effective_from}
currency: UAH
point: {{unit: bonus, precision: 2, pays: 1.00}}
earning: {{base_percent: 1, expiry: {{after_days: 0, round_up_to: month}}}}
"""


@pytest.fixture
async def service(databases: DatabaseFactory) -> AsyncIterator[Service]:
    """A service with one store, in Kyiv, half an hour after February began there."""
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        async with running_service(dsn, PROGRAMME.format(effective_from="2026-01-01"), FEBRUARY) as service:
            yield service


async def adjust(
    service: Service, member_id: str, points_minor: int = 500, expires_on: str = ""
) -> correction_pb2.ManualAdjustment:
    request = correction_pb2.RequestAdjustmentRequest(
        request_id=str(uuid.uuid4()),
        member_id=member_id,
        points_minor=points_minor,
        reason_code="goodwill",
        note="given",
        expires_on=expires_on,
    )
    answer: correction_pb2.RequestAdjustmentResponse = await service.ask_office(
        "corrections", "RequestAdjustment", request
    )
    return answer.adjustment


async def lapses_at(service: Service, member_id: str) -> datetime:
    request = checkout_pb2.IdentifyRequest(identifier=common_pb2.Identifier(member_id=member_id))
    (balance,) = (await service.call("Identify", request)).balances
    moment: datetime = balance.expiring_next.expires_at.ToDatetime(UTC)
    return moment


async def test_points_given_as_a_month_begins_lapse_as_it_ends(service: Service) -> None:
    member_id = await service.enrol()
    await adjust(service, member_id)
    assert await lapses_at(service, member_id) == datetime(2026, 3, 1, tzinfo=KYIV)


@pytest.mark.parametrize(
    ("last_day", "lapses"),
    [
        pytest.param("2026-02-01", datetime(2026, 2, 2, tzinfo=KYIV), id="today"),
        pytest.param("2026-03-28", datetime(2026, 3, 29, tzinfo=KYIV), id="before the clocks change"),
        pytest.param("2026-03-29", datetime(2026, 3, 30, tzinfo=KYIV), id="as they change"),
        pytest.param("2026-01-31", None, id="yesterday, though not in UTC"),
    ],
)
async def test_a_last_day_is_one_of_the_chain_s_calendar(
    service: Service, last_day: str, lapses: datetime | None
) -> None:
    member_id = await service.enrol()
    if lapses is None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await adjust(service, member_id, expires_on=last_day)
        assert answer_of(refused.value).fields == ("expires_on",)
        return
    await adjust(service, member_id, expires_on=last_day)
    assert await lapses_at(service, member_id) == lapses


async def test_a_person_s_day_begins_at_the_chain_s_midnight(service: Service) -> None:
    member_id = await service.enrol()
    service.now[0] = FEBRUARY - timedelta(hours=1)
    assert (await adjust(service, member_id, 600)).used_points_minor == 0
    assert (await adjust(service, member_id, 600)).used_points_minor == 600
    service.now[0] = FEBRUARY
    assert (await adjust(service, member_id, 600)).used_points_minor == 0


async def test_the_calendar_is_that_of_most_stores(service: Service) -> None:
    for store_id in ("tokyo-1", "tokyo-2"):
        await StoreRegistry(service.pool, HASHES).put_store(store_id, store_id, "Asia/Tokyo")
    member_id = await service.enrol()
    await adjust(service, member_id, expires_on="2026-02-01")
    assert await lapses_at(service, member_id) == datetime(2026, 2, 2, tzinfo=ZoneInfo("Asia/Tokyo"))


@pytest.mark.parametrize(
    ("at", "version"),
    [
        pytest.param(FEBRUARY - timedelta(minutes=31), 1, id="the last minute of January"),
        pytest.param(FEBRUARY - timedelta(minutes=30), 2, id="the first of February"),
        pytest.param(FEBRUARY, 2, id="February in Kyiv, January in UTC"),
    ],
)
async def test_a_version_counts_from_the_midnight_of_its_store(service: Service, at: datetime, version: int) -> None:
    await service.publish(PROGRAMME.format(effective_from="2026-02-01"))
    receipt = common_pb2.Receipt(currency_code="UAH")
    receipt.event_at.FromDatetime(at)
    receipt.lines.add(line_number=1, sku="bread", quantity_milli=1000, list_amount_minor=100)
    quoted = await service.call("Quote", checkout_pb2.QuoteRequest(receipt=receipt))
    assert quoted.programme_version == version
