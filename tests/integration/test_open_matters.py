"""What is still open in days that are to be closed: found in the database, and wanted by name from any client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import finance_pb2, journal_pb2

from server.backoffice.finance_servicer import FinanceServicer
from server.base.clock import utc_now
from server.base.errors import Refused
from server.base.storage import writer_pool
from server.edge.caller import Caller, Role
from server.finance.open_matters import Matter, read_open_matters, running
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from tests.support.history import History, open_history

ZONES: Final = ["Pacific/Honolulu", "America/New_York", "Europe/Kyiv", "Asia/Tokyo", "Pacific/Kiritimati", "UTC"]
DAY: Final = date(2026, 1, 6)
NEXT: Final = datetime(2026, 1, 8, 12, tzinfo=UTC)
"""When that day is over everywhere."""
FINANCE: Final = Caller(Role.FINANCE, "olena", "", "", None)
PROGRAMME: Final = """
programme: bonus-card
name: Bonus Card
effective_from: 2024-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 0.10}
earning: {base_percent: 1}
"""

PUT_BREAK: Final = """
INSERT INTO server.reconciliation_break
VALUES ($1, 'S1', '1', $2, $3, '', 1, '', '[]', '', $4, now(), now(), 'olena', '', 1)
"""
PUT_REQUEST: Final = """
INSERT INTO server.adjustment_request (request_id, content_hash, book, member_id, unit, points_minor, reason_code, note,
    state, requested_by, requested_at, limit_points_minor, used_points_minor, decided_by, decided_at)
VALUES ($1, decode(repeat('00', 32), 'hex'), 0, $1, $2, 5, 'test', '', $3, 'olena', $4, 0, 0, $5, $6)
"""
PUT_FILE: Final = """
INSERT INTO server.register_file VALUES ($1, $2, 1, 'z.csv', 1, 'olena', now(), $3, $4)
"""
PUT_REPORT: Final = """
INSERT INTO server.z_report (file_id, line, store_id, terminal_id, business_date, receipts, void_numbers)
VALUES ($1, 1, 'S1', '1', $2, 1, '')
"""


@pytest.fixture
async def history(ledger_dsn: str) -> AsyncIterator[History]:
    """A receipt of S1 on each of three days, summed up."""
    async with open_history(ledger_dsn, date(2026, 1, 5)) as opened:
        for day in ("2026-01-05", "2026-01-06", "2026-01-07"):
            opened.at(day)
            await opened.buy("anna", [1000])
        await opened.summarise()
        yield opened


async def found(
    history: History, first: date | None = None, last: date = DAY, now: datetime = NEXT
) -> dict[Matter, int]:
    matters = await read_open_matters(history.conn, "bonus", first, last, now)
    return {one.kind: one.many for one in matters}


# --- a day that goes on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zones", "now", "said"),
    [
        ({"Europe/Kyiv": 3}, "2026-01-06T23:59", "it ends at 2026-01-07 00:00 UTC in the books (UTC)"),
        ({"Europe/Kyiv": 3}, "2026-01-07T00:00", None),
        ({"America/New_York": 2}, "2026-01-07T04:59", "it ends at 2026-01-07 05:00 UTC in America/New_York (2 stores)"),
        ({"America/New_York": 2}, "2026-01-07T05:00", None),
        ({"Pacific/Honolulu": 1, "Asia/Tokyo": 5}, "2026-01-07T09:00", "UTC in Pacific/Honolulu (1 stores)"),
        ({}, "2026-01-06T12:00", "in the books (UTC)"),
        ({}, "2026-01-07T00:00", None),
    ],
)
def test_a_day_is_over_when_it_is_over_everywhere(zones: dict[str, int], now: str, said: str | None) -> None:
    texts = [one.text for one in running(zones, DAY, datetime.fromisoformat(now).replace(tzinfo=UTC))]
    assert (said is None) == (texts == [])
    assert said is None or said in texts[0]


@given(
    st.sets(st.sampled_from(ZONES)),
    st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    st.datetimes(datetime(2025, 12, 31), datetime(2027, 1, 2)),
)
def test_a_day_goes_on_while_it_is_some_days_evening_in_some_zone(zones: set[str], day: date, now: datetime) -> None:
    at = now.replace(tzinfo=UTC)
    goes_on = any(at.astimezone(ZoneInfo(zone)).date() <= day for zone in (*zones, "UTC"))
    assert bool(list(running(dict.fromkeys(zones, 1), day, at))) == goes_on


# --- what stands in the database ----------------------------------------------------------------------------------


async def test_nothing_is_open_where_registers_never_report(history: History) -> None:
    assert await found(history) == {}


@pytest.mark.parametrize(
    ("day", "state", "first", "counts"),
    [
        (DAY, 1, None, True),
        (date(2025, 12, 1), 1, None, True),
        (date(2025, 12, 1), 1, date(2026, 1, 5), False),  # of days that are closed
        (DAY + timedelta(days=1), 1, None, False),
        (DAY, 2, None, False),  # explained
        (DAY, 3, None, False),  # written off
        (DAY, 4, None, False),  # resolved
    ],
)
async def test_breaks_that_nobody_has_explained(
    history: History, day: date, state: int, first: date | None, counts: bool
) -> None:
    await history.conn.execute("RESET ROLE")
    await history.conn.execute(PUT_BREAK, "0123456789abcdef", day, 1, state)
    assert await found(history, first) == ({Matter.BREAKS: 1} if counts else {})


@pytest.mark.parametrize(
    ("unit", "state", "at", "counts"),
    [
        ("bonus", 1, datetime(2026, 1, 6, 23, 59, tzinfo=UTC), True),
        ("bonus", 1, datetime(2025, 6, 1, tzinfo=UTC), True),
        ("bonus", 1, datetime(2026, 1, 7, tzinfo=UTC), False),
        ("gift", 1, datetime(2026, 1, 6, tzinfo=UTC), False),  # a unit of its own, with closes of its own
        ("bonus", 3, datetime(2026, 1, 6, tzinfo=UTC), False),  # rejected
    ],
)
async def test_adjustments_that_wait(history: History, unit: str, state: int, at: datetime, counts: bool) -> None:
    decided = ("borys", at) if state == 3 else ("", None)
    await history.conn.execute("RESET ROLE")
    await history.conn.execute(PUT_REQUEST, uuid.uuid4(), unit, state, at, *decided)
    assert await found(history) == ({Matter.APPROVALS: 1} if counts else {})


async def test_terminals_that_have_not_reported(history: History) -> None:
    """Nothing is said before the first file; a file counts when all of it is there."""
    whole, part = uuid.uuid4(), uuid.uuid4()
    await history.conn.execute("RESET ROLE")
    await history.conn.execute(PUT_FILE, part, bytes(32), None, None)
    await history.conn.execute(PUT_REPORT, part, DAY)
    assert await found(history) == {}
    await history.conn.execute(PUT_FILE, whole, bytes([1] * 32), 1, utc_now())
    assert await found(history) == {Matter.REPORTS: 2}
    await history.conn.execute(PUT_REPORT, whole, DAY)
    assert await found(history) == {Matter.REPORTS: 1}
    assert await found(history, first=DAY) == {}
    await history.conn.execute(PUT_BREAK, "0123456789abcdef", date(2026, 1, 5), 7, 2)
    assert await found(history) == {}, "somebody has said why there is no report"


# --- from any client ----------------------------------------------------------------------------------------------


async def test_a_close_is_refused_until_each_open_matter_is_accepted_by_name(history: History) -> None:
    await history.conn.execute("RESET ROLE")
    await history.conn.execute(PUT_BREAK, "0123456789abcdef", DAY, 1, 1)
    now = datetime.combine(DAY, time(20), UTC)
    async with writer_pool(history.dsn, "test") as pool:
        await ProgrammeStore(pool).publish(PROGRAMME, "", now)
        rules = RulesBook(lambda: now)
        await rules.load(history.conn)
        desk = FinanceServicer(pool, rules, lambda: now)
        looked = await desk.check_close(
            finance_pb2.CheckCloseRequest(period=journal_pb2.CLOSE_PERIOD_DAY, day=str(DAY)), FINANCE
        )
        kinds = [finance_pb2.OPEN_MATTER_KIND_RUNNING, finance_pb2.OPEN_MATTER_KIND_BREAKS]
        assert [one.kind for one in looked.open_matters] == kinds
        for accepted, missing in (([], 2), (kinds[:1], 1), (kinds[1:], 1)):
            with pytest.raises(Refused) as refused:
                await desk.close_books(closing_of(DAY, accepted), FINANCE)
            assert (refused.value.reason_name, len(refused.value.violations)) == ("CLOSE_INCOMPLETE", missing)
        closed = await desk.close_books(closing_of(DAY, kinds), FINANCE)
        assert (closed.close.last_day, closed.close.closed_by) == (str(DAY), "olena")
        assert (await desk.close_books(closing_of(DAY, []), FINANCE)).close == closed.close, "asked for again"
        assert not (
            await desk.check_close(
                finance_pb2.CheckCloseRequest(period=journal_pb2.CLOSE_PERIOD_DAY, day=str(DAY)), FINANCE
            )
        ).open_matters


def closing_of(day: date, despite: list[finance_pb2.OpenMatterKind]) -> finance_pb2.CloseBooksRequest:
    return finance_pb2.CloseBooksRequest(period=journal_pb2.CLOSE_PERIOD_DAY, day=str(day), despite=despite)
