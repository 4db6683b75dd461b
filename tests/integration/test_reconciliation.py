"""Reconciliation over a real ledger: files of registers, runs, and breaks that people work through."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from tallypoint.v1 import reconciliation_pb2 as pb

from server.backoffice.reconciliation_servicer import ReconciliationServicer
from server.base.errors import Refused
from server.edge.caller import Caller, Role
from server.reconciliation import reconciler
from server.rules.versions import ProgrammeStore
from tests.support.history import History, open_history

CLERK = Caller(Role.FINANCE, "olena", "", "", None)
DAY = "2026-01-05"
NET = 9_500
"""What a shopper pays for the one line of a receipt: 100.00 less 5.00."""


class Office:
    """The reconciliation's calls over a ledger in which things happen."""

    def __init__(self, history: History, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.history = history
        self.pool = pool
        self.service = ReconciliationServicer(pool, ProgrammeStore(pool), history.clock)

    async def load(
        self, *reports: pb.ZReport, name: str = "", part: int = 1, parts: int = 1
    ) -> pb.LoadZReportsResponse:
        """Load Z reports as one file, or as a part of a file with a name."""
        content = name.encode() or b"".join(one.SerializeToString(deterministic=True) for one in reports)
        file = pb.SourceFile(name=name or "z.csv", sha256=hashlib.sha256(content).digest(), part=part, parts=parts)
        return await self.service.load_zreports(pb.LoadZReportsRequest(file=file, reports=reports), CLERK)

    async def load_receipts(self, *receipts: pb.RegisterReceipt) -> pb.LoadRegisterReceiptsResponse:
        """Load single receipts as one file."""
        content = b"".join(one.SerializeToString(deterministic=True) for one in receipts)
        file = pb.SourceFile(name="r.csv", sha256=hashlib.sha256(content).digest(), part=1, parts=1)
        request = pb.LoadRegisterReceiptsRequest(file=file, receipts=receipts)
        return await self.service.load_register_receipts(request, CLERK)

    async def run(self, first: str = DAY, last: str = "", stores: Sequence[str] = ()) -> pb.ReconcileResponse:
        """Compare a day, or days."""
        request = pb.ReconcileRequest(from_day=first, to_day=last or first, store_ids=stores)
        return await self.service.reconcile(request, CLERK)

    async def breaks(self, *states: str, **fields: object) -> list[pb.Break]:
        """List breaks in these states; those not resolved if none is given."""
        wanted = [f"BREAK_STATE_{name.upper()}" for name in states or ("open", "explained", "written_off")]
        request = pb.ListBreaksRequest(states=wanted, **fields)  # type: ignore[arg-type]  # names of an enum
        return list((await self.service.list_breaks(request, CLERK)).breaks)

    async def kinds(self) -> list[tuple[str, str]]:
        """List kind and state of the breaks that are not resolved."""
        return [(name(one.kind, pb.BreakKind), name(one.state, pb.BreakState)) for one in await self.breaks()]

    async def work(self, item: pb.Break, state: str, note: str) -> pb.Break:
        """Say something about a break."""
        request = pb.WorkBreakRequest(break_id=item.break_id[:8], state=f"BREAK_STATE_{state}", note=note)
        return (await self.service.work_break(request, CLERK)).item

    async def story(self, item: pb.Break) -> list[tuple[str, str, str]]:
        """Return the history of a break: what happened, who did it, and the note."""
        answer = await self.service.get_break(pb.GetBreakRequest(break_id=item.break_id), CLERK)
        return [(name(event.change, pb.BreakChange), event.by, event.note) for event in answer.events]


def name(value: int, enum: Any) -> str:
    """Return an enum's value without the enum's own name."""
    return re.sub(r"^(BREAK_KIND|BREAK_STATE|BREAK_CHANGE|MEASURE)_", "", enum.Name(value)).lower()


def z(receipts: int, first: int | None = None, last: int | None = None, **fields: object) -> pb.ZReport:
    """Return the Z report of terminal 1 of store S1."""
    return pb.ZReport(
        **{"store_id": "S1", "terminal_id": "1", "business_date": DAY, "receipts": receipts, **fields},  # type: ignore[arg-type]  # fields of any type
        first_number=first,
        last_number=last,
    )


def own(number: int, kind: str = "SALE", **fields: object) -> pb.RegisterReceipt:
    """Return a receipt as the register has it."""
    return pb.RegisterReceipt(
        store_id="S1",
        terminal_id="1",
        business_date=DAY,
        receipt_number=number,
        kind=f"REGISTER_RECEIPT_KIND_{kind}",
        **fields,  # type: ignore[arg-type]  # fields of any type
    )


@pytest.fixture
async def office(ledger_dsn: str) -> AsyncIterator[Office]:
    async with (
        open_history(ledger_dsn) as history,
        asyncpg.create_pool(ledger_dsn, min_size=0, server_settings={"role": "tallypoint_writer"}) as pool,
    ):
        for store in ("S1", "S2"):
            await history.conn.execute("INSERT INTO server.store VALUES ($1, $1, 'Europe/Kyiv')", store)
        yield Office(history, pool)


async def test_sound_day_has_no_break(office: Office) -> None:
    history = office.history
    bought = await history.buy("olena", [95])
    await history.buy("olena", [94], spend=30)
    await history.buy(None)
    await history.bring_back(bought, 1000)
    totals = {
        "gross_minor": 30_000,
        "discounts_minor": 1_500,
        "turnover_minor": 3 * NET,
        "money_minor": 3 * NET - 3,
        "points_money_minor": 3,
        "points_earned_minor": 189,
        "points_spent_minor": 30,
    }
    await office.load(z(3, 1, 4, **totals, returns=1))
    receipts = [
        own(1, turnover_minor=NET, points_earned_minor=95, points_spent_minor=0),
        own(2, turnover_minor=NET, money_minor=NET - 3, points_earned_minor=94, points_spent_minor=30),
        own(3, gross_minor=10_000, discounts_minor=500, points_earned_minor=0),
        own(4, "RETURN"),
    ]
    for _ in range(2):
        run = await office.run()
        assert (run.terminal_days, run.found, run.opened, run.open, run.pending_entries) == (1, 0, 0, 0, 0)
        await office.load_receipts(*receipts)


async def test_life_of_a_break(office: Office) -> None:
    history = office.history
    for _ in range(3):
        await history.buy("olena", [95])
    await office.load(z(4, 1, 4, turnover_minor=4 * NET))
    run = await office.run()
    assert (run.found, run.opened, run.resolved, run.open) == (1, 1, 0, 1)
    (item,) = await office.breaks("open")
    assert (name(item.kind, pb.BreakKind), item.receipt_count, item.age_days) == ("missing", 1, 0)
    assert item.numbers == [pb.ReceiptNumbers(first=4, last=4)]
    assert [(name(one.measure, pb.Measure), one.expected, one.found) for one in item.figures] == [
        ("receipts", 4, 3),
        ("turnover", 4 * NET, 3 * NET),
    ]
    assert item.text == "the ledger lacks 1 receipt: 4"

    explained = await office.work(item, "EXPLAINED", "lane 1 was offline")
    assert (name(explained.state, pb.BreakState), explained.worked_by, explained.note) == (
        "explained",
        "olena",
        "lane 1 was offline",
    )
    assert await office.work(item, "EXPLAINED", "lane 1 was offline") == explained, "said twice is said once"
    run = await office.run()
    assert (run.found, run.opened, run.open) == (1, 0, 0)

    history.at("2026-01-08", 13)
    (item,) = await office.breaks()
    assert item.age_days == 3
    assert await office.breaks(min_age_days=4) == []
    assert len(await office.breaks(min_age_days=3)) == 1

    await history.buy("olena", [95], day=DAY)
    run = await office.run()
    assert (run.found, run.opened, run.resolved, run.open) == (0, 0, 1, 0)
    assert [one.break_id for one in await office.breaks("resolved")] == [item.break_id]
    assert await office.story(item) == [
        ("found", "olena", ""),
        ("explained", "olena", "lane 1 was offline"),
        ("resolved", "olena", ""),
    ]
    with pytest.raises(Refused, match="is resolved"):
        await office.work(item, "WRITTEN_OFF", "too late")


async def test_explanation_lasts_until_the_figures_change(office: Office) -> None:
    await office.history.buy("olena", [95])
    await office.load(z(1, 1, 1, turnover_minor=NET + 1))
    await office.run()
    (item,) = await office.breaks()
    await office.work(item, "WRITTEN_OFF", "a cent")
    assert (await office.run()).opened == 0
    await office.load(z(1, 1, 1, turnover_minor=NET + 2))
    run = await office.run()
    assert (run.found, run.opened, run.open) == (1, 1, 1)
    assert await office.kinds() == [("different", "open")]
    assert (await office.breaks())[0].break_id == item.break_id
    reopened = await office.work(item, "EXPLAINED", "two cents")
    await office.work(reopened, "OPEN", "no, look again")
    assert [change for change, _, _ in await office.story(item)] == [
        "found",
        "written_off",
        "figures_changed",
        "explained",
        "reopened",
    ]


async def test_corrected_report_takes_the_place_of_the_earlier_one(office: Office) -> None:
    await office.history.buy("olena", [95])
    wrong, right = z(2, 1, 2), z(1, 1, 1)
    assert not (await office.load(wrong)).unchanged
    assert (await office.run()).found == 1
    loaded = await office.load(right)
    assert (loaded.unchanged, loaded.complete, loaded.superseding) == (False, True, 1)
    assert (await office.run()).found == 0
    again = await office.load(wrong)
    assert (again.unchanged, again.complete) == (True, True)
    assert (await office.run()).found == 0, "an old file sent again does not come back to life"
    assert await office.pool.fetchval("SELECT count(*) FROM server.z_report") == 2, "both are kept"
    row = await office.pool.fetchrow("SELECT file_name, loaded_by, loaded_at FROM server.register_file LIMIT 1")
    assert row is not None
    assert (row["file_name"], row["loaded_by"]) == ("z.csv", "olena")
    assert row["loaded_at"] is not None


async def test_file_counts_when_all_its_parts_are_there(office: Office) -> None:
    first, second = z(5, 1, 5), z(7, 1, 7, terminal_id="2")
    assert not (await office.load(second, name="two.csv", part=2, parts=2)).complete
    assert (await office.load(second, name="two.csv", part=2, parts=2)).unchanged
    assert (await office.run()).terminal_days == 0
    with pytest.raises(Refused, match=r"file\.parts must be 2"):
        await office.load(first, name="two.csv", part=1, parts=3)
    with pytest.raises(Refused) as refused:
        await office.load(second, name="two.csv", part=1, parts=2)
    assert "stands twice in the file" in refused.value.violations[0][1]
    assert (await office.load(first, name="two.csv", part=1, parts=2)).complete
    run = await office.run()
    assert (run.terminal_days, run.found) == (2, 2)


@pytest.mark.parametrize(
    ("reports", "field", "text"),
    [
        pytest.param([z(1, 1, 1, store_id="S9", line=7)], "reports[0].store_id", "line 7: is not a store", id="store"),
        pytest.param([z(0), z(1, line=3)], "reports[1].first_number", "line 3: must be given", id="no numbers"),
        pytest.param([z(1, 5, 4)], "reports[0].last_number", "must be at least the first", id="backwards"),
        pytest.param([z(9, 1, 5)], "reports[0].last_number", "leaves room for 5 numbers", id="no room"),
        pytest.param(
            [z(0, business_date="2026-02-30")],
            "reports[0].business_date",
            "is 2026-02-30, which is not a day of the calendar written as YYYY-MM-DD",
            id="day",
        ),
        pytest.param(
            [z(0, business_date="2099-01-05", line=4)], "reports[0].business_date", "line 4: is 2099-01-05", id="ahead"
        ),
        pytest.param([z(0, business_date="0001-01-01")], "reports[0].business_date", "before 2000", id="empty date"),
        pytest.param(
            [z(1, 1, 5, void_numbers=[pb.ReceiptNumbers(first=5, last=6)])],
            "reports[0].void_numbers",
            "must be within 1 to 5",
            id="a void outside",
        ),
    ],
)
async def test_report_that_cannot_be_is_refused(
    office: Office, reports: list[pb.ZReport], field: str, text: str
) -> None:
    with pytest.raises(Refused) as refused:
        await office.load(*reports)
    assert refused.value.reason_name == "INVALID_REQUEST"
    assert refused.value.violations[0][0] == field
    assert text in refused.value.violations[0][1]
    assert await office.pool.fetchval("SELECT count(*) FROM server.register_file") == 0


async def test_receipts_that_came_after_the_close_or_the_limit_are_late(office: Office) -> None:
    history = office.history
    await history.buy("olena", [95])
    history.at("2026-01-06", 1)
    await history.close_day(DAY)
    await history.buy("olena", [95], day=DAY)
    await office.load(z(2, 1, 2))
    await office.run()
    (item,) = await office.breaks()
    assert name(item.kind, pb.BreakKind) == "late"
    assert item.numbers == [pb.ReceiptNumbers(first=2, last=2)]
    assert "1 of them after the day was closed" in item.text
    event_at = "UPDATE ledger.receipt_register SET event_at = booked_at - interval '25 hours' WHERE receipt_number = 1"
    owner = await asyncpg.connect(history.dsn)
    await owner.execute(event_at)
    await owner.close()
    await office.run()
    assert [(one.receipt_count, one.age_days) for one in await office.breaks()] == [(2, 0)]
    rules = pb.ReconciliationRules(store_id="S1", numbers_consecutive=True, late_after_hours=30)
    await office.service.put_reconciliation_rules(pb.PutReconciliationRulesRequest(rules=rules), CLERK)
    await office.run()
    assert [one.receipt_count for one in await office.breaks()] == [1], "the store's own rules count"


async def test_receipt_booked_under_two_dates_is_doubled(office: Office) -> None:
    history = office.history
    await history.buy("olena", [95])
    history.receipt_numbers = itertools.count(1)
    await history.buy("olena", [95], day="2026-01-06")
    await office.load(z(1, 1, 1))
    await office.run(DAY, "2026-01-06")
    (item,) = await office.breaks()
    assert (item.business_date, name(item.kind, pb.BreakKind)) == ("2026-01-06", "doubled")
    assert f"terminal 1 on {DAY}, number 1" in item.text
    await office.run("2026-01-06")
    assert await office.kinds() == [("doubled", "open")], "a run of that day alone sees the day before as well"


async def test_single_receipts_name_what_totals_count(office: Office) -> None:
    history = office.history
    for _ in range(4):
        await history.buy("olena", [95])
    await office.load(z(6, 1, 9))
    await office.run()
    (first, *gaps) = await office.breaks()
    assert {name(one.kind, pb.BreakKind) for one in (first, *gaps)} == {"missing", "gap"}
    history.at("2026-01-06", 13)
    receipts = [own(number, turnover_minor=NET) for number in range(1, 7)]
    await office.load_receipts(*receipts, *(own(number, "VOID") for number in (7, 8, 9)))
    await office.run()
    (item,) = await office.breaks()
    assert item.numbers == [pb.ReceiptNumbers(first=5, last=6)]
    assert (name(item.kind, pb.BreakKind), item.age_days) == ("missing", 1), "as old as the break that it was part of"


async def test_list_is_filtered_and_paged(office: Office) -> None:
    days = [f"2026-01-{day:02}" for day in range(5, 10)]
    office.history.at(days[-1])
    reports = [z(1, 1, 1, business_date=day, store_id=store) for day in days for store in ("S1", "S2")]
    await office.load(*reports)
    run = await office.run(days[0], days[-1])
    assert (run.terminal_days, run.found, run.open) == (10, 10, 10)
    assert (await office.run(days[0], days[-1], ["S2"])).open == 5
    found: list[pb.Break] = []
    request = pb.ListBreaksRequest(page_size=3)
    while True:
        page = await office.service.list_breaks(request, CLERK)
        assert page.total == 10
        found += page.breaks
        if not page.next_page_token:
            break
        assert len(page.breaks) == 3
        request.page_token = page.next_page_token
    assert [one.business_date for one in found] == sorted(day for day in days for _ in range(2))
    assert len({one.break_id for one in found}) == 10
    assert {one.store_id for one in await office.breaks(store_id="S2")} == {"S2"}
    assert len(await office.breaks(from_day=days[1], to_day=days[2])) == 4
    assert await office.breaks(kinds=["BREAK_KIND_EXTRA"]) == []
    assert len(await office.breaks("resolved", "open")) == 10


async def test_run_that_has_no_more_time_is_gone_on_with(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "CALL_SECONDS", -1.0)
    await office.history.buy("olena", [95])
    await office.load(z(2, 1, 2), z(1, 1, 1, store_id="S2"))
    request = pb.ReconcileRequest(from_day=DAY, to_day=DAY)
    found = []
    while True:
        answer = await office.service.reconcile(request, CLERK)
        found.append((answer.pending_entries, answer.found, answer.open, answer.next_page_token))
        if not answer.pending_entries and not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found[-2:] == [(0, 1, 1, "S1"), (0, 1, 2, "")]


async def test_runs_at_the_same_time_find_the_same(office: Office) -> None:
    await office.load(z(1, 1, 1), z(1, 1, 1, store_id="S2"))
    runs = await asyncio.gather(*(office.run() for _ in range(4)))
    assert sum(run.opened for run in runs) == 2
    assert {run.found for run in runs} == {2}
    assert await office.pool.fetchval("SELECT count(*) FROM server.reconciliation_event") == 2
    assert await office.pool.fetchval("SELECT count(*) FROM server.reconciliation_run") == 4


@pytest.mark.parametrize(
    ("break_id", "message"), [("0000", "there is no break 0000"), ("feed" * 4, "there is no break")]
)
async def test_unknown_break(office: Office, break_id: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        await office.service.get_break(pb.GetBreakRequest(break_id=break_id), CLERK)


async def test_beginning_of_an_id_names_a_break_only_if_it_is_the_only_one(office: Office) -> None:
    stores = {f"L{number}": z(1, 1, 1, store_id="S1", terminal_id=f"L{number}") for number in range(40)}
    await office.load(*stores.values())
    await office.run()
    ids = sorted(one.break_id for one in await office.breaks())
    twice = next(one[:1] for one in ids if sum(other.startswith(one[:1]) for other in ids) > 1)
    with pytest.raises(Refused, match="is the beginning of several ids"):
        await office.service.get_break(pb.GetBreakRequest(break_id=twice), CLERK)
    for break_id in (ids[0], ids[0][:12]):
        answer = await office.service.get_break(pb.GetBreakRequest(break_id=break_id), CLERK)
        assert answer.item.break_id == ids[0]


@pytest.mark.parametrize("table", ["z_report", "register_receipt", "reconciliation_event", "reconciliation_run"])
async def test_what_was_reported_and_done_stays(office: Office, table: str) -> None:
    await office.load(z(1, 1, 1))
    await office.load_receipts(own(1))
    await office.run()
    owner = await asyncpg.connect(office.history.dsn)
    try:
        for statement in (f"DELETE FROM server.{table}", f"UPDATE server.{table} SET ctid = ctid"):
            with pytest.raises((asyncpg.RestrictViolationError, asyncpg.FeatureNotSupportedError)):
                await owner.execute(statement)
    finally:
        await owner.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await office.pool.execute(f"DELETE FROM server.{table}")


async def test_days_are_checked(office: Office) -> None:
    for first, last in ((DAY, "2026-01-04"), (DAY, "2027-01-06"), ("2026-02-30", "2026-03-01")):
        with pytest.raises(Refused) as refused:
            await office.run(first, last)
        assert refused.value.reason_name == "INVALID_REQUEST"


async def test_age_counts_whole_days(office: Office) -> None:
    await office.load(z(1, 1, 1))
    await office.run()
    office.history.clock.now += timedelta(hours=23)
    assert [one.age_days for one in await office.breaks()] == [0]
    office.history.clock.now += timedelta(hours=2)
    assert [one.age_days for one in await office.breaks()] == [1]
