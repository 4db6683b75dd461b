"""Closing days and months: in order, in two steps that survive a crash, and final for ever."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, timedelta
from fractions import Fraction
from typing import Any

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked
from ledger.booking.opening import ensure_unit
from ledger.finance import closing
from ledger.finance.breakage import breakage
from ledger.finance.closing import CloseRefused, close_books, read_closes
from ledger.finance.general_ledger import general_ledger
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.point_value import record_point_value
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.proof import verify_closes, verify_summary
from ledger.finance.redemption import redemption_rate
from ledger.finance.scope import Programme, Query
from ledger.finance.statement import member_statement
from ledger.verify import verify
from server.base.storage import LEDGER_MIGRATIONS
from tests.support.commands import member
from tests.support.database import DatabaseFactory
from tests.support.history import BOOKS, SHOPPERS, History, cells, open_history, random_history


@pytest.fixture
async def history(ledger_dsn: str) -> AsyncIterator[History]:
    async with open_history(ledger_dsn) as opened:
        yield opened


REPORTS: list[Callable[..., Any]] = [
    trial_balance,
    roll_forward,
    breakage,
    age_profile,
    expiry_profile,
    redemption_rate,
    general_ledger,
]


async def all_reports(history: History, as_of: int) -> dict[str, str]:
    """Return every report as of a close, to the last character."""
    await history.summarise()
    shown = {}
    for report in REPORTS:
        for by in ("day", "month", "store", "total") if report is roll_forward else ("month",):
            for measure in ("points", "money"):
                table = await report(history.conn, history.query(as_of=as_of, by=by, measure=measure))
                shown[f"{report.__name__} {by} {measure}"] = repr(table)
    for shopper in SHOPPERS:
        statement = await member_statement(history.conn, history.query(as_of=as_of), member(shopper))
        shown[f"statement {shopper}"] = repr(statement)
    return shown


# --- order --------------------------------------------------------------------------------------------------------

TODAY = "2026-03-10"


@pytest.mark.parametrize(
    ("closed", "wanted", "words"),
    [
        pytest.param([], "2026-02-03", None, id="first day of all"),
        pytest.param([], "2026-02", None, id="first month of all"),
        pytest.param(["2026-02-03"], "2026-02-04", None, id="next day"),
        pytest.param(["2026-02-03"], "2026-02-09", None, id="days in between are closed with it"),
        pytest.param(["2026-02-03"], "2026-02", None, id="month after some of its days"),
        pytest.param(["2026-02-28"], "2026-02", None, id="month after its last day"),
        pytest.param(["2026-01"], "2026-02", None, id="next month"),
        pytest.param([], TODAY, None, id="today"),
        pytest.param(["2026-02-03"], "2026-02-02", "close 1 .* everything up to 2026-02-03", id="earlier day"),
        pytest.param(["2026-02-03", "2026-02-04"], "2026-02-03", "first open day is 2026-02-05", id="day again"),
        pytest.param(["2026-02"], "2026-02-28", "2026-02-28 is closed", id="day of a closed month"),
        pytest.param(["2026-02", "2026-03-01"], "2026-02", "2026-02 is closed", id="month again"),
        pytest.param(["2026-03-01"], "2026-02", "2026-02 is closed: close 1", id="month before a closed day"),
        pytest.param([], "2026-03-11", "is not over", id="tomorrow"),
        pytest.param([], "2026-03", "is not over", id="this month"),
    ],
)
async def test_closes_go_forward_only(shared: History, closed: list[str], wanted: str, words: str | None) -> None:
    programme = await another_programme(shared)
    for period in closed:
        await close(shared, programme, period)
    if words is None:
        result = await close(shared, programme, wanted)
        assert result.row.close_number == len(closed) + 1
        assert result.frozen is not None
    else:
        with pytest.raises(CloseRefused, match=words):
            await close(shared, programme, wanted)
        assert len(await read_closes(shared.conn, programme.unit.number)) == len(closed)


@pytest.fixture(scope="module")
def shared_dsn(databases: DatabaseFactory) -> Iterator[str]:
    """One ledger with two closes, for tests that leave these as they are."""

    async def prepare(dsn: str) -> None:
        async with open_history(dsn) as opened:
            await opened.buy("olena", [10_00])
            await opened.close_day("2026-01-04")
            await opened.close_day("2026-01-05")

    with databases.fresh(LEDGER_MIGRATIONS) as dsn, ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, prepare(dsn)).result()
        yield dsn


@pytest.fixture
async def shared(shared_dsn: str) -> AsyncIterator[History]:
    """That ledger, at noon of `TODAY`."""
    async with open_history(shared_dsn, date.fromisoformat(TODAY)) as opened:
        yield opened


async def another_programme(history: History) -> Programme:
    """Return a programme with a point unit of its own, which nobody has closed."""
    name = uuid.uuid4().hex
    owner = await asyncpg.connect(history.dsn)
    unit = await ensure_unit(owner, name, 0)
    await owner.close()
    return Programme(name, unit, "UAH", 2, Fraction(1))


async def close(history: History, programme: Programme, period: str) -> closing.ClosedPeriod:
    """Close a day, or a month given without one."""
    is_month = len(period) == len("2026-01")
    day = closing.last_day_of_month(date.fromisoformat(f"{period}-01")) if is_month else date.fromisoformat(period)
    kind = closing.MONTH if is_month else closing.DAY
    return await close_books(history.conn, programme, kind, day, "olena", history.clock())


async def test_newest_close_asked_for_again_is_answered_again(history: History) -> None:
    history.at("2026-02-05")
    first = await history.close_day("2026-02-04")
    assert await history.close_day("2026-02-04") == first
    heads = await history.conn.fetch("SELECT number FROM ledger.book_head ORDER BY book")
    assert [row["number"] for row in heads] == [2, 1], "a mark each, and the totals' digest"


async def test_programme_keeps_its_code_and_its_unit(history: History) -> None:
    await history.close_day("2026-01-04")
    owner = await asyncpg.connect(history.dsn)
    other = await ensure_unit(owner, "miles", 0)
    await owner.close()
    for programme in (
        Programme("another-card", history.unit, "UAH", 2, Fraction(1)),
        Programme("bonus-card", other, "UAH", 2, Fraction(1)),
    ):
        with pytest.raises(CloseRefused, match="keeps its code and its unit"):
            await close_books(history.conn, programme, closing.DAY, date(2026, 1, 5), "olena", history.clock())
    second = Programme("miles-card", other, "UAH", 2, Fraction(1))
    closed = await close_books(history.conn, second, closing.DAY, date(2026, 1, 3), "olena", history.clock())
    assert closed.row.close_number == 1, "each programme counts its own closes"


# --- what belongs to a close --------------------------------------------------------------------------------------


async def test_late_receipt_goes_to_the_next_open_day_with_its_own_time(history: History) -> None:
    history.at("2026-01-31")
    await history.buy("olena", [10_00])
    history.at("2026-02-02")
    closed = await history.close_month("2026-01-31")
    late = await history.buy("olena", [5_00], day="2026-01-30")
    await history.buy("olena", [1_00])
    await history.buy("ivan", [2_00], day="2026-01-31", store="S2")
    await history.summarise()
    rows = cells(await roll_forward(history.conn, history.query(by="day")))
    assert {day: row["issued_points"] for day, row in rows.items()} == {
        date(2026, 1, 31): 10_00,
        date(2026, 2, 1): 7_00,
        date(2026, 2, 2): 1_00,
    }
    register = await history.conn.fetchrow(
        "SELECT business_date, accounting_day, period, event_at FROM ledger.accounting_receipt "
        "WHERE book = $1 AND number = $2",
        *(late.book, late.number),
    )
    assert register is not None
    assert tuple(register)[:3] == (date(2026, 1, 30), date(2026, 2, 1), 1)
    event = journal_pb2.Event.FromString(late.event)
    assert register["event_at"] == event.purchase.receipt.event_at.ToDatetime(tzinfo=UTC)
    as_of = await roll_forward(history.conn, history.query(as_of=closed.row.close_number, by="total"))
    assert as_of.rows == (("total", 0, 10_00, 0, 0, 0, 0, 10_00),)
    statement = await member_statement(history.conn, history.query(), member("olena"))
    assert [row[1] for row in statement.rows[1:-1]] == [date(2026, 1, 31), date(2026, 2, 1), date(2026, 2, 2)]


async def test_receipts_of_later_days_booked_before_the_close_stay_out_of_it(history: History) -> None:
    await history.buy("olena", [10_00])
    await history.buy("olena", [4_00], day="2026-01-06")  # a store that is ahead of us
    closed = await history.close_day("2026-01-05")
    table = await roll_forward(history.conn, history.query(as_of=1, by="day"))
    assert [row[0] for row in table.rows] == [date(2026, 1, 5)]
    assert closed.frozen is not None
    assert [row[-1] for row in json.loads(closed.frozen.text)["movements"]] == [10_00]


async def test_totals_are_canonical_and_their_digest_stands_in_the_journal(history: History) -> None:
    await history.buy("olena", [10_00])
    await history.buy("olena", [], spend=4_00, store="S2")
    closed = await history.close_day("2026-01-05")
    assert closed.frozen is not None
    totals = json.loads(closed.frozen.text)
    assert closed.frozen.text == json.dumps(totals, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert closed.frozen.digest == hashlib.sha256(closed.frozen.text.encode()).digest()
    assert totals["movements"] == [["2026-01-01", 1, 1, 12, 4_00], ["2026-01-01", 1, 11, 1, 10_00]]
    assert totals["receipts"] == [
        ["S1", 1, 1, 100_00, 5_00, 0, 95_00, 10_00, 0],
        ["S2", 1, 1, 100_00, 5_00, 40, 94_60, 0, 4_00],
    ]
    assert [mark[0] for mark in totals["marks"]] == list(range(BOOKS))
    payload = await history.conn.fetchval(
        "SELECT payload FROM ledger.entry WHERE book = $1 AND number = $2", closed.frozen.book, closed.frozen.number
    )
    entry = journal_pb2.Event.FromString(payload).close
    assert (entry.totals_digest, entry.close_number, entry.closed_by) == (closed.frozen.digest, 1, "olena")


async def test_month_has_the_receipts_of_all_its_days(history: History) -> None:
    for day in ("2026-01-05", "2026-01-06", "2026-01-07"):
        history.at(day)
        await history.buy("olena", [1_00])
        await history.close_day(day)
    history.at("2026-02-03")
    closed = await history.close_month("2026-01-05")
    assert closed.frozen is not None
    assert [row[2] for row in json.loads(closed.frozen.text)["receipts"]] == [3]
    days = [one.row.from_day for one in await read_closes(history.conn, 1)]
    assert days == [None, date(2026, 1, 6), date(2026, 1, 7), None]


# --- as of a close, for ever --------------------------------------------------------------------------------------


async def test_reports_as_of_a_close_never_change(history: History) -> None:
    chance = random.Random(11)
    await random_history(history, chance, 40)
    await price(history, 10, 50_000)
    first = await history.close_day(history.clock.now.date() - timedelta(days=2))
    before_first = await all_reports(history, 1)
    await random_history(history, chance, 25)
    second = await history.close_month(last_month(history))
    before_second = await all_reports(history, 2)
    totals = [first.frozen, second.frozen]

    await price(history, 99, 0)
    await random_history(history, chance, 60)
    history.at(history.clock.now.date() + timedelta(days=400))
    for shopper in SHOPPERS:
        await history.buy(shopper, [77_00], day=first.row.last_day - timedelta(days=1))  # late by more than a year
        await history.sweep(shopper)
    await history.close_day(history.clock.now.date())
    await history.buy("olena", [1], day=first.row.last_day)

    assert await all_reports(history, 1) == before_first
    assert await all_reports(history, 2) == before_second
    assert [closed.frozen for closed in await read_closes(history.conn, 1)][:2] == totals
    assert await verify_closes(history.conn, 1) == []
    assert await verify_summary(history.conn) == []
    assert [report.problem for report in await verify(history.conn)] == [None] * BOOKS
    now = await roll_forward(history.conn, history.query(by="total"))
    assert now.rows[0][-1] == await history.balances()


async def price(history: History, money_minor: int, breakage_ppm: int) -> None:
    """Record what all points are worth."""
    await record_point_value(
        history.conn,
        history.unit.number,
        from_month=date(2026, 1, 1),
        value_money_minor=money_minor,
        value_points_minor=70,
        breakage_ppm=breakage_ppm,
        recorded_at=history.clock(),
        recorded_by="olena",
    )


def last_month(history: History) -> date:
    """Return the last day of the month before the clock's."""
    return history.clock.now.date().replace(day=1) - timedelta(days=1)


async def test_as_of_a_close_keeps_what_points_were_said_to_pay(history: History) -> None:
    await history.buy("olena", [10_00])
    await history.close_day("2026-01-05")
    query = history.query(as_of=1, by="total", measure="money")
    before = await roll_forward(history.conn, query)
    dearer = Programme("bonus-card", history.unit, "UAH", 2, Fraction(7))
    assert await roll_forward(history.conn, closing_query(dearer, as_of=1)) == before
    assert (await roll_forward(history.conn, closing_query(dearer, as_of=None))).rows[0][-1] == 70_00


def closing_query(programme: Programme, as_of: int | None) -> Query:
    """Return a query of another programme than the history's."""
    return Query(programme=programme, as_of=as_of, by="total", measure="money")


# --- crashes and races --------------------------------------------------------------------------------------------


class Crash(Exception):
    """The process is gone."""


async def test_crash_between_the_steps_is_finished_with_the_same_totals(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    await random_history(history, chance, 30)
    day = history.clock.now.date()

    async def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(closing, "_freeze", crash)
    with pytest.raises(Crash):
        await history.close_day(day)
    monkeypatch.undo()
    halfway = (await read_closes(history.conn, 1))[0]
    assert halfway.frozen is None
    totals = closing.canonical(await closing.add_up(history.conn, halfway.row, closing.SUM_MOVEMENTS))
    assert await verify_closes(history.conn, 1) == []

    await history.buy("olena", [12_00], day=day)  # too late for the close
    await random_history(history, chance, 10)
    history.at(day + timedelta(days=30))
    later = await history.close_day(history.clock.now.date())
    finished = await read_closes(history.conn, 1)
    assert finished[0].frozen is not None
    assert finished[0].frozen.text == totals
    assert later.row.close_number == 2
    assert finished[1] == later
    assert await verify_closes(history.conn, 1) == []


async def test_crash_before_the_marks_are_committed_leaves_nothing(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history.buy("olena", [10_00])
    calls = 0

    async def crash_in_the_last_book(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == BOOKS:
            raise Crash
        return await append_locked(*arguments)

    heads = await history.conn.fetch("TABLE ledger.book_head")
    monkeypatch.setattr(closing, "append_locked", crash_in_the_last_book)
    with pytest.raises(Crash):
        await history.close_day("2026-01-05")
    assert await read_closes(history.conn, 1) == []
    assert await history.conn.fetch("TABLE ledger.book_head") == heads


async def test_many_close_the_same_day_while_the_tills_go_on(history: History) -> None:
    await history.buy("olena", [10_00])
    closers = [await asyncpg.connect(history.dsn, server_settings={"role": "tallypoint_writer"}) for _ in range(4)]

    async def sell(shopper: str) -> None:
        for _ in range(25):
            await history.buy(shopper, [1_00], spend=50)

    async def close_on(conn: asyncpg.Connection[asyncpg.Record]) -> closing.ClosedPeriod:
        day = date(2026, 1, 5)
        return await close_books(conn, history.programme, closing.DAY, day, "olena", history.clock())

    *_, first, second, third, fourth = await asyncio.gather(
        *(sell(shopper) for shopper in SHOPPERS), *(close_on(conn) for conn in closers)
    )
    for conn in closers:
        await conn.close()
    assert first == second == third == fourth
    assert first is not None
    await history.summarise()
    assert len(await read_closes(history.conn, 1)) == 1
    assert await verify_closes(history.conn, 1) == []
    assert await verify_summary(history.conn) == []
    as_of, now = [await roll_forward(history.conn, history.query(as_of=n, by="day")) for n in (1, None)]
    assert [row[0] for row in as_of.rows] == [date(2026, 1, 5)]
    assert now.rows[0] == as_of.rows[0]
    assert now.rows[-1][-1] == await history.balances()


# --- proof --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        pytest.param(
            "UPDATE ledger.close_total SET totals = replace(totals, '1000', '2000')",
            "do not have the digest",
            id="text",
        ),
        pytest.param(
            "UPDATE ledger.close_total SET totals = replace(totals, '1000', '2000'), "
            "digest = sha256(convert_to(replace(totals, '1000', '2000'), 'UTF8'))",
            "do not have the digest",
            id="text and digest",
        ),
        pytest.param("UPDATE ledger.close_total SET number = 1", "do not have the digest", id="another entry"),
        pytest.param("UPDATE ledger.close SET last_day = last_day + 1", "another day, period or person", id="day"),
        pytest.param("UPDATE ledger.close_mark SET number = number + 100", "marks are not those", id="mark moved"),
        pytest.param("DELETE FROM ledger.close_mark WHERE book = 1", "marks are not those", id="mark gone"),
        pytest.param("UPDATE ledger.posting SET points_minor = points_minor + 1", "differ from those", id="posting"),
        pytest.param("UPDATE ledger.close SET currency = 'EUR'", "differ from those", id="currency"),
        pytest.param("DELETE FROM ledger.close WHERE close_number = 2", "close 2 .* is not recorded", id="close gone"),
    ],
)
async def test_verification_finds_a_changed_close(shared: History, tamper: str, words: str) -> None:
    owner = await asyncpg.connect(shared.dsn)
    await owner.execute("SET session_replication_role = replica")  # a superuser who goes past the triggers
    assert await verify_closes(owner, shared.unit.number) == []
    attempt = owner.transaction(isolation="repeatable_read")
    await attempt.start()
    assert (await owner.execute(tamper)).split()[1] != "0"
    problems = await verify_closes(owner, shared.unit.number)
    await attempt.rollback()
    await owner.close()
    assert any(re.search(words, problem) for problem in problems), problems


@pytest.mark.parametrize("table", ["close", "close_mark", "close_total"])
async def test_writer_cannot_change_a_close(shared: History, table: str) -> None:
    for statement in (f"DELETE FROM ledger.{table}", f"UPDATE ledger.{table} SET close_number = 9"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shared.conn.execute(statement)
