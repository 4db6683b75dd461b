"""How far a register's clock and business date may be from the service's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2

from server.edge.clocks import business_date_refusal, clock_refusal

NOW = datetime(2026, 11, 30, 9, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("away", "told"),
    [
        pytest.param(timedelta(), None, id="now"),
        pytest.param(timedelta(days=2), None, id="two days ahead"),
        pytest.param(timedelta(days=2, seconds=1), "more than 2 days", id="a second more"),
        pytest.param(timedelta(days=3, seconds=-1), "more than 2 days", id="almost three days"),
        pytest.param(timedelta(days=3), "more than 2 days", id="three days"),
        pytest.param(timedelta(days=3, seconds=1), "more than 3 days", id="more than three"),
        pytest.param(timedelta(days=365, hours=1), "more than 365 days", id="a year mistyped"),
        pytest.param(timedelta(days=73 * 365, hours=1), "more than 26,645 days", id="a clock gone wrong"),
        pytest.param(timedelta(days=-9 * 365), None, id="a receipt of nine years ago, as a replay sends"),
    ],
)
def test_only_a_clock_that_is_ahead_is_refused(away: timedelta, told: str | None) -> None:
    """What it is told never reads as something that is allowed."""
    event_at = Timestamp()
    event_at.FromDatetime(NOW + away)
    refusal = clock_refusal(event_at, "receipt.event_at", NOW)
    assert (refusal is not None) == (told is not None)
    if refusal is not None:
        assert refusal.reason == common_pb2.REFUSAL_REASON_CLOCK_AHEAD
        assert [field for field, _ in refusal.violations] == ["receipt.event_at"]
        assert f"lies {told} ahead of this service's clock (2026-11-30 09:15 UTC)" in refusal.message
        assert refusal.cashier_text


@pytest.mark.parametrize(
    ("business_date", "reason"),
    [
        pytest.param("2026-11-30", None, id="today"),
        pytest.param("2026-12-02", None, id="two days ahead"),
        pytest.param("2026-12-03", common_pb2.REFUSAL_REASON_CLOCK_AHEAD, id="three"),
        pytest.param("2027-11-06", common_pb2.REFUSAL_REASON_CLOCK_AHEAD, id="a year mistyped"),
        pytest.param("9999-12-31", common_pb2.REFUSAL_REASON_CLOCK_AHEAD, id="the last day of all"),
        pytest.param("2017-01-01", None, id="years ago"),
        pytest.param("2000-01-01", None, id="the first day"),
        pytest.param("1999-12-31", common_pb2.REFUSAL_REASON_INVALID_REQUEST, id="the day before"),
        pytest.param("0001-01-01", common_pb2.REFUSAL_REASON_INVALID_REQUEST, id="another system's empty date"),
    ],
)
def test_a_business_date_is_of_days_that_can_be(business_date: str, reason: common_pb2.RefusalReason | None) -> None:
    refusal = business_date_refusal(common_pb2.ReceiptKey(business_date=business_date), "receipt_key", NOW)
    assert (None if refusal is None else refusal.reason) == reason
    if refusal is not None:
        assert [field for field, _ in refusal.violations] == ["receipt_key.business_date"]
