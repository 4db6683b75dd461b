"""Days in their form that the calendar does not have: what is told of them, and where."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import finance_pb2

from server.backoffice import finance_servicer, ledger_servicer, reconciliation_servicer
from server.base.errors import Refused
from server.checkout import explanations
from server.checkout.submission import receipt_key_bytes
from server.edge.validation import read_day, read_optional_day
from server.finance.messages import query_of
from server.members.days import read_birthday
from server.rights.rows import read_days

NOW: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
NO_DAY: Final = "is 2026-02-30, which is not a day of the calendar written as YYYY-MM-DD, such as 2026-05-17"
OR_EMPTY: Final = f"{NO_DAY} (or leave it empty)"
NO_BIRTHDAY: Final = "is not a day of the calendar written as YYYY-MM-DD, such as 2026-05-17 (or leave it empty)"
KEY: Final = api.ReceiptKey(store_id="s", terminal_id="1", business_date="2026-02-30", receipt_number=7)
QUERY: Final = finance_pb2.ReportQuery(unit="bonus", from_day="2026-02-30")
PROGRAMME: Final[Any] = None


@pytest.mark.parametrize(
    ("read", "violations"),
    [
        pytest.param(lambda: read_day("2026-02-30", "day"), {"day": NO_DAY}, id="day that must be given"),
        pytest.param(lambda: read_optional_day("2026-02-30", "to_day"), {"to_day": OR_EMPTY}, id="day that may be"),
        pytest.param(
            lambda: read_days("2026-02-30", "2026-02-30"),
            {"valid_from": OR_EMPTY, "valid_until": OR_EMPTY},
            id="both days of a coupon",
        ),
        pytest.param(
            lambda: read_days("2026-02-28", "2026-02-30"), {"valid_until": OR_EMPTY}, id="last day of a coupon"
        ),
        pytest.param(
            lambda: receipt_key_bytes(KEY, "receipt_key"), {"receipt_key.business_date": NO_DAY}, id="receipt of a till"
        ),
        pytest.param(
            lambda: ledger_servicer._receipt_keys(KEY), {"receipt_key.business_date": NO_DAY}, id="receipt to be found"
        ),
        pytest.param(
            lambda: explanations._keys(KEY), {"receipt_key.business_date": NO_DAY}, id="receipt to be explained"
        ),
        pytest.param(lambda: query_of(QUERY, PROGRAMME), {"query.from_day": OR_EMPTY}, id="report of a period"),
        pytest.param(
            lambda: finance_servicer._first_day_of_month("0000-01", "from_month"),
            {"from_month": "is 0000-01, which is no month of the calendar, such as 2026-05"},
            id="month of no year",
        ),
        pytest.param(
            lambda: reconciliation_servicer._place("2026-02-30/3f9a04c1d2e5b678"),
            {"page_token": "is not the next_page_token of the answer before, unchanged"},
            id="page that nobody gave",
        ),
        pytest.param(
            lambda: read_birthday("1990-02-30", NOW, "profile.birthday"),
            {"profile.birthday": NO_BIRTHDAY},
            id="birthday, which is not told",
        ),
    ],
)
def test_day_that_the_calendar_does_not_have_is_told_with_its_form(
    read: Callable[[], object], violations: dict[str, str]
) -> None:
    with pytest.raises(Refused) as refused:
        read()
    assert dict(refused.value.violations) == violations
    assert refused.value.reason == api.REFUSAL_REASON_INVALID_REQUEST


@pytest.mark.parametrize("text", ["", "2026-02-28"])
def test_days_that_there_are_are_read(text: str) -> None:
    assert [each.isoformat() if each else "" for each in read_days(text, text)] == [text, text]
