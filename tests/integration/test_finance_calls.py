"""Finance's calls on a running server: closing, point values, every report, and who may ask."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import grpc
import pytest
from tallypoint.v1 import finance_pb2, finance_pb2_grpc, journal_pb2, programme_pb2

from ledger.finance.table import Column, Table
from server.finance.messages import table_message, table_of
from tests.integration.test_back_office import Client
from tests.support.server_process import RunningServer

REPORTS = [
    "TrialBalance",
    "RollForward",
    "MemberStatement",
    "Breakage",
    "AgeProfile",
    "ExpiryProfile",
    "RedemptionRate",
    "GeneralLedger",
    "PartnerSettlement",
]
DAY, MONTH = journal_pb2.CLOSE_PERIOD_DAY, journal_pb2.CLOSE_PERIOD_MONTH


class Finance(Client):
    """Calls finance's service with one key."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        super().__init__(channel, key)
        self.finance = finance_pb2_grpc.FinanceServiceStub(channel)

    def report(self, name: str, **query: Any) -> Table:
        """Ask for a report."""
        asked = finance_pb2.ReportQuery(**query)
        request = getattr(finance_pb2, f"{name}Request")(query=asked)
        if name == "MemberStatement":
            request.member_id = str(uuid.UUID(int=7))
        return table_of(self.call(getattr(self.finance, name), request).table)


@pytest.fixture(scope="module")
def channel(tallypoint: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        yield channel


@pytest.fixture(scope="module")
def unit(channel: grpc.Channel, tallypoint: RunningServer) -> str:
    """A point unit of a programme that this module alone closes; it was replaced long ago."""
    name = f"finance-{uuid.uuid4().hex[:8]}"
    text = (
        f"programme: {name}\nname: Finance\neffective_from: 1971-01-01\ncurrency: EUR\n"
        f"point: {{unit: {name}, precision: 2, pays: 0.05}}\nearning: {{base_percent: 1}}\n"
    )
    admin = Finance(channel, tallypoint.keys["admin"])
    admin.call(admin.programmes.PublishProgramme, programme_pb2.PublishProgrammeRequest(text=text))
    deadline = time.monotonic() + 20
    while True:  # until the back office has read it
        try:
            admin.call(admin.finance.ListCloses, finance_pb2.ListClosesRequest(unit=name))
        except grpc.RpcError:
            assert time.monotonic() < deadline
        else:
            return name


@pytest.fixture
def finance(channel: grpc.Channel, tallypoint: RunningServer) -> Finance:
    return Finance(channel, tallypoint.keys["finance"])


def test_months_and_days_are_closed_and_listed(finance: Finance, unit: str) -> None:
    month = finance_pb2.CloseBooksRequest(unit=unit, period=MONTH, day="2020-02-07")
    closed = finance.call(finance.finance.CloseBooks, month).close
    assert (closed.close_number, closed.last_day, closed.from_day) == (1, "2020-02-29", "")
    assert (closed.unit, closed.programme_code, closed.closed_by) == (unit, unit, "development-finance")
    assert json.loads(closed.totals)["last_day"] == "2020-02-29"
    assert finance.call(finance.finance.CloseBooks, month).close == closed
    day = finance_pb2.CloseBooksRequest(unit=unit, period=DAY, day="2020-03-01")
    second = finance.call(finance.finance.CloseBooks, day).close
    assert finance.refusal(finance.finance.CloseBooks, month) == ("FAILED_PRECONDITION", "CLOSE_ORDER", ["day"])
    listed = finance.call(finance.finance.ListCloses, finance_pb2.ListClosesRequest(unit=unit)).closes
    for each in (closed, second):
        each.totals = ""
    assert list(listed) == [closed, second]
    as_of = finance.report("TrialBalance", unit=unit, as_of_close=2)
    assert as_of.notes == ("As of close 2 (up to 2020-03-01).",)


def test_point_values_are_recorded_by_name(finance: Finance, unit: str) -> None:
    request = finance_pb2.RecordPointValueRequest(
        unit=unit, from_month="2020-01", value_money_minor=4, value_points_minor=100, breakage_ppm=125_000
    )
    first = finance.call(finance.finance.RecordPointValue, request).value
    assert finance.call(finance.finance.RecordPointValue, request).value == first
    assert (first.version, first.from_month, first.recorded_by) == (1, "2020-01", "development-finance")
    listed = finance.call(finance.finance.ListPointValues, finance_pb2.ListPointValuesRequest(unit=unit)).values
    assert list(listed) == [first]


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_answered(finance: Finance, unit: str, name: str) -> None:
    table = finance.report(name, unit=unit, by=finance_pb2.REPORT_BY_DAY, measure=finance_pb2.REPORT_MEASURE_MONEY)
    assert table.columns
    assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        pytest.param({"unit": "no-such"}, ("NOT_FOUND", "NOT_FOUND", ["unit"]), id="unit"),
        pytest.param({"as_of_close": 99}, ("NOT_FOUND", "NOT_FOUND", ["query.as_of_close"]), id="close"),
        pytest.param(
            {"from_day": "2026-02-30"}, ("INVALID_ARGUMENT", "INVALID_REQUEST", ["query.from_day"]), id="no such day"
        ),
        pytest.param(
            {"from_day": "2026-02-03", "to_day": "2026-02-02"},
            ("INVALID_ARGUMENT", "INVALID_REQUEST", ["query.from_day"]),
            id="days the wrong way",
        ),
    ],
)
def test_wrong_query_names_its_field(
    finance: Finance, unit: str, query: dict[str, Any], answer: tuple[str, str, list[str]]
) -> None:
    asked = finance_pb2.ReportQuery(**{"unit": unit, **query})
    assert finance.refusal(finance.finance.RollForward, finance_pb2.RollForwardRequest(query=asked)) == answer


@pytest.mark.parametrize("role", ["crm", "terminal"])
def test_others_reach_nothing(channel: grpc.Channel, tallypoint: RunningServer, role: str) -> None:
    stranger = Finance(channel, tallypoint.keys[role])
    service = finance_pb2.DESCRIPTOR.services_by_name["FinanceService"]
    for method in service.methods:
        request = getattr(finance_pb2, method.input_type.name)()
        code, reason, _ = stranger.refusal(getattr(stranger.finance, method.name), request)
        assert (code, reason) == ("PERMISSION_DENIED", "ROLE_FORBIDDEN"), method.name


def test_table_survives_the_way_through_a_message() -> None:
    columns = (
        Column("text", "Text", "text"),
        Column("day", "Day", "day"),
        Column("moment", "Moment", "moment"),
        Column("count", "Count", "integer"),
        Column("points", "Points", "points", 2),
        Column("money", "Money", "money", 2),
        Column("ratio", "Ratio", "ratio"),
    )
    full = ("S1", date(2026, 1, 5), datetime(2026, 1, 5, 12, 0, 0, 5, UTC), 7, -100, 10**15, Fraction(-1, 3))
    table = Table("Everything", columns, (full, (None,) * len(columns)), ("A note.", "Another."))
    assert table_of(table_message(table)) == table
