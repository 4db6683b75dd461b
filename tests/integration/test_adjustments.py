"""Adjustments by hand: a person's limit, the second person, repeats, and rows that never part from their entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2, journal_pb2, member_pb2

from ledger.reading.balances import read_balances
from ledger.verify import verify
from server.base.database import connection
from server.base.errors import Refused
from server.corrections.adjustments import (
    BOOKED,
    REJECTED,
    WAITING,
    Adjustment,
    AdjustmentDesk,
    AdjustmentOrder,
    Filter,
)
from server.members.registry import AdminMessage
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from tests.integration.back_office import BOOKS, HASHES, NOW, OLENA, BackOffice, back_office_over

PROGRAMME = """
programme: corner-shop
name: Corner shop
effective_from: 2026-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1.00}
earning: {base_percent: 1, pending_days: 14, expiry: {after_months: 1, round_up_to: month}}
spending: {max_share_percent: 100}
"""
LIMIT = 1000_00
"""What one person may book alone in a day, in hundredths of a point."""


@dataclass
class Desk:
    """An adjustment desk over a ledger with one member, and the time that it is there."""

    office: BackOffice
    desk: AdjustmentDesk
    member_id: UUID
    now: datetime = NOW
    requests: dict[str, UUID] = field(default_factory=dict)

    async def ask(self, name: str, points_minor: int, *, by: str = "Iryna", **changes: Any) -> Adjustment:
        """Request an adjustment; the same name is the same request id."""
        request_id = self.requests.setdefault(name, uuid4())
        order = AdjustmentOrder(self.member_id, points_minor, "", "goodwill", "the ice cream had melted", None)
        order = order._replace(**changes)
        message = AdminMessage(request_id, "RequestAdjustment", repr(order).encode())
        return await self.desk.request(message, order, by, self.now)

    async def approve(self, name: str, by: str = "Petro") -> Adjustment:
        """Approve a request by name."""
        return await self.desk.approve(self.requests[name], by, "seen", self.now)

    async def reject(self, name: str, by: str = "Petro") -> Adjustment:
        """Reject a request by name."""
        return await self.desk.reject(self.requests[name], by, "no proof", self.now)

    async def has(self) -> int:
        """Return what the member can spend."""
        row = await self.office.registry.find(api.Identifier(member_id=str(self.member_id)))
        async with connection(self.office.pool) as conn:
            balances = await read_balances(conn, [(row.book, row.member_id)], self.now)
        return sum(balance.available_minor for balance in balances.get(self.member_id, ()))

    async def booked(self) -> list[journal_pb2.Adjustment]:
        """Return the adjustments in the books, in order."""
        kind = int(journal_pb2.ENTRY_KIND_ADJUSTMENT)
        rows = await self.office.pool.fetch("SELECT payload FROM ledger.entry WHERE kind = $1 ORDER BY number", kind)
        return [journal_pb2.Event.FromString(row["payload"]).adjustment for row in rows]

    async def assert_sound(self) -> None:
        """The books verify, and every booked row has its entry and every entry its row."""
        async with connection(self.office.pool) as conn:
            problems = [str(report.problem) for report in await verify(conn) if report.problem]
        assert not problems
        rows = await self.office.pool.fetch("SELECT * FROM server.adjustment_request WHERE state = 2")
        assert sorted(str(row["request_id"]) for row in rows) == sorted(one.request_id for one in await self.booked())


@pytest.fixture
async def desk(ledger_dsn: str) -> AsyncIterator[Desk]:
    async with back_office_over(ledger_dsn) as office:
        await ProgrammeStore(office.pool).publish(PROGRAMME, "", NOW)
        rules = RulesBook()
        async with connection(office.pool) as conn:
            await rules.load(conn)
        reasons = ("goodwill", "missing_receipt", "fraud")
        member = await office.register(OLENA)
        adjustments = AdjustmentDesk(office.pool, rules, HASHES, BOOKS, reasons=reasons, limit_points=1000)
        yield Desk(office, adjustments, member.member_id)


async def refused(call: Awaitable[object]) -> Refused:
    """Return how a call is refused."""
    with pytest.raises(Refused) as error:
        await call
    return error.value


# --- the limit and the second person ------------------------------------------------------------------------------


async def test_goodwill_within_the_limit_is_booked_at_once(desk: Desk) -> None:
    adjustment = await desk.ask("ice cream", 50_00)
    assert (adjustment.state, adjustment.decided_by, adjustment.used_points_minor) == (BOOKED, "", 0)
    (entry,) = await desk.booked()
    assert (entry.points_minor, entry.reason_code, entry.note) == (50_00, "goodwill", "the ice cream had melted")
    assert (entry.requested_by, entry.approved_by, entry.programme_code) == ("Iryna", "", "corner-shop")
    assert await desk.has() == 50_00
    lot = await desk.office.pool.fetchrow("SELECT active_at, expires_at, pending FROM ledger.lot")
    assert lot is not None
    assert (lot["pending"], lot["active_at"]) == (False, None)
    assert str(lot["expires_at"]) == "2027-01-01 00:00:00+00:00", "a month after 21 November, to the end of December"
    await desk.assert_sound()


@pytest.mark.parametrize(
    ("asked", "states"),
    [
        pytest.param([LIMIT], [BOOKED], id="exactly the limit"),
        pytest.param([LIMIT + 1], [WAITING], id="a hundredth above it"),
        pytest.param([600_00, 400_00, 1], [BOOKED, BOOKED, WAITING], id="parts add up over the day"),
        pytest.param([600_00, 500_00, 400_00], [BOOKED, WAITING, BOOKED], id="what waits uses up nothing"),
        pytest.param([600_00, -400_00, 1], [BOOKED, BOOKED, WAITING], id="points taken count as well"),
    ],
)
async def test_a_person_books_alone_up_to_the_limit_of_the_day(
    desk: Desk, asked: list[int], states: list[correction_pb2.AdjustmentState]
) -> None:
    made = [await desk.ask(f"request {number}", points) for number, points in enumerate(asked)]
    assert [adjustment.state for adjustment in made] == states
    await desk.assert_sound()


async def test_every_person_and_every_day_has_a_limit_of_its_own(desk: Desk) -> None:
    assert (await desk.ask("first", LIMIT)).state == BOOKED
    assert (await desk.ask("too much", 1)).state == WAITING
    assert (await desk.ask("of another", LIMIT, by="Petro")).state == BOOKED
    desk.now += timedelta(days=1)
    assert (await desk.ask("tomorrow", LIMIT)).state == BOOKED
    await desk.approve("too much")
    assert (await desk.ask("after approval", 1)).used_points_minor == LIMIT, "what was approved is not counted"


async def test_requests_at_once_do_not_both_fit_under_the_limit(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.ask(f"request {number}", 300_00) for number in range(8)))
    assert sorted(adjustment.state for adjustment in made) == [WAITING] * 5 + [BOOKED] * 3
    assert await desk.has() == 900_00
    await desk.assert_sound()


async def test_a_second_person_approves_what_is_above_the_limit(desk: Desk) -> None:
    waiting = await desk.ask("big", 5000_00)
    assert (waiting.state, waiting.entry_number, await desk.has()) == (WAITING, None, 0)
    assert (await refused(desk.approve("big", by="Iryna"))).reason_name == "APPROVAL_NEEDED"
    assert (await desk.booked(), await desk.has()) == ([], 0)
    approved = await desk.approve("big")
    assert (approved.state, approved.decided_by, approved.decision_note) == (BOOKED, "Petro", "seen")
    (entry,) = await desk.booked()
    assert (entry.requested_by, entry.approved_by) == ("Iryna", "Petro")
    assert await desk.approve("big", by="Hanna") == approved, "it is approved already"
    assert await desk.has() == 5000_00
    await desk.assert_sound()


async def test_of_many_who_approve_at_once_one_books(desk: Desk) -> None:
    await desk.ask("big", 5000_00)
    made = await asyncio.gather(*(desk.approve("big", by=f"person {number}") for number in range(8)))
    assert len({adjustment.decided_by for adjustment in made}) == 1
    assert await desk.has() == 5000_00
    await desk.assert_sound()


async def test_rejected_is_over(desk: Desk) -> None:
    await desk.ask("big", 5000_00)
    rejected = await desk.reject("big")
    assert (rejected.state, rejected.decided_by, rejected.decision_note) == (REJECTED, "Petro", "no proof")
    assert await desk.reject("big", by="Hanna") == rejected
    assert (await refused(desk.approve("big"))).reason_name == "ALREADY_EXISTS"
    await desk.ask("small", 1)
    assert (await refused(desk.reject("small"))).reason_name == "ALREADY_EXISTS"
    await desk.ask("mine", 5000_00)
    assert (await desk.reject("mine", by="Iryna")).state == REJECTED, "one's own request may be withdrawn"
    assert await desk.has() == 1
    await desk.assert_sound()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "changes", "reason", "field_"),
    [
        pytest.param(1, {"reason_code": "because"}, "INVALID_REQUEST", "reason_code", id="reason that is not listed"),
        pytest.param(1, {"unit": "miles"}, "NOT_FOUND", "unit", id="no such unit"),
        pytest.param(1, {"member_id": uuid4()}, "NOT_FOUND", "member_id", id="no such member"),
        pytest.param(1, {"expires_on": date(2026, 11, 20)}, "INVALID_REQUEST", "expires_on", id="expired yesterday"),
        pytest.param(
            -1, {"expires_on": date(2026, 12, 31)}, "INVALID_REQUEST", "expires_on", id="expiry of a deduction"
        ),
        pytest.param(-1, {}, "POINTS_INSUFFICIENT", "points_minor", id="points that are not there"),
    ],
)
async def test_bad_request_is_refused_by_name_and_stores_nothing(
    desk: Desk, points: int, changes: dict[str, Any], reason: str, field_: str
) -> None:
    refusal = await refused(desk.ask("bad", points, **changes))
    assert (refusal.reason_name, refusal.violations[0][0]) == (reason, field_)
    assert (await desk.booked(), await desk.office.count("server.adjustment_request")) == ([], 0)


async def test_points_that_are_gone_at_approval_leave_the_request_waiting(desk: Desk) -> None:
    await desk.ask("grant", 1500_00)
    await desk.approve("grant")
    await desk.ask("take all", -1500_00)
    await desk.ask("take a part", -1, by="Maria")
    assert (await refused(desk.approve("take all"))).reason_name == "POINTS_INSUFFICIENT"
    (waiting,) = await desk.desk.list(Filter(state=WAITING), 10)
    assert (waiting.points_minor, waiting.decided_by) == (-1500_00, "")
    await desk.ask("give it back", 1, by="Maria")
    assert (await desk.approve("take all")).state == BOOKED
    assert await desk.has() == 0
    await desk.assert_sound()


async def test_a_blocked_member_may_be_corrected(desk: Desk) -> None:
    await desk.ask("grant", 10_00)
    row = await desk.office.registry.find(api.Identifier(member_id=str(desk.member_id)))
    await desk.office.set_status(row, api.MEMBER_STATUS_BLOCKED)
    assert (await desk.ask("fraud", -10_00, reason_code="fraud")).state == BOOKED
    assert await desk.has() == 0


async def test_an_expiry_may_be_given(desk: Desk) -> None:
    await desk.ask("short", 10_00, expires_on=date(2026, 11, 21))
    assert await desk.has() == 10_00
    desk.now = datetime.fromisoformat("2026-11-22T00:00:00+00:00")
    assert await desk.has() == 0


async def test_points_until_the_last_day_of_all_never_lapse(desk: Desk) -> None:
    """9999-12-31 is how other systems say that there is no end."""
    await desk.ask("for ever", 10_00, expires_on=date.max)
    desk.now += timedelta(days=36_500)
    assert await desk.has() == 10_00
    await desk.assert_sound()


# --- repeats and crashes ------------------------------------------------------------------------------------------


async def test_same_request_again_has_the_same_answer(desk: Desk) -> None:
    first = await desk.ask("ice cream", 50_00)
    assert await desk.ask("ice cream", 50_00, by="Petro") == first
    assert (await refused(desk.ask("ice cream", 51_00))).reason_name == "MESSAGE_ID_REUSED"
    waiting = await desk.ask("big", 5000_00)
    assert await desk.ask("big", 5000_00) == waiting
    assert await desk.has() == 50_00
    await desk.assert_sound()


async def test_one_request_sent_many_times_at_once_counts_once(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.ask("ice cream", 50_00, by=f"lane {number}") for number in range(10)))
    assert len({adjustment.entry_number for adjustment in made}) == 1
    assert await desk.has() == 50_00
    await desk.assert_sound()


BREAK_AFTER = {
    "the row": "BEFORE INSERT ON ledger.entry",
    "the entry": "BEFORE UPDATE ON server.adjustment_request",
    "both": "AFTER UPDATE ON server.adjustment_request",
}
"""Where the connection breaks, by what was written last."""


@pytest.mark.parametrize("written_last", BREAK_AFTER)
@pytest.mark.parametrize("call", ["request", "approve"])
async def test_after_a_crash_at_any_point_the_repeat_finishes_it(
    desk: Desk, ledger_dsn: str, written_last: str, call: str
) -> None:
    async def approve() -> Adjustment:
        await desk.ask("big", 5000_00)
        return await desk.approve("big")

    calls: dict[str, Callable[[], Awaitable[Adjustment]]] = {
        "request": lambda: desk.ask("small", 50_00),
        "approve": approve,
    }
    owner = await asyncpg.connect(ledger_dsn)
    await owner.execute(
        "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$; "
        f"CREATE TRIGGER crash {BREAK_AFTER[written_last]} FOR EACH ROW EXECUTE FUNCTION crash()"
    )
    assert (await refused(calls[call]())).reason_name == "LEDGER_UNAVAILABLE"
    assert await desk.booked() == []
    await desk.assert_sound()
    table = BREAK_AFTER[written_last].rsplit(" ", 1)[1]
    await owner.execute(f"DROP TRIGGER crash ON {table}")
    await owner.close()
    assert (await calls[call]()).state == BOOKED
    assert len(await desk.booked()) == 1
    await desk.assert_sound()


# --- the list -----------------------------------------------------------------------------------------------------


async def test_the_list_is_chosen_by_state_member_and_age(desk: Desk) -> None:
    other = await desk.office.register(member_pb2.NewMember(card_numbers=["51000009"]))
    for number in range(3):
        await desk.ask(f"small {number}", 1)
        await desk.ask(f"big {number}", 5000_00)
        desk.now += timedelta(days=1)
    await desk.ask("other", 1, member_id=other.member_id)

    async def names(**chosen: Any) -> list[str]:
        ids = {request_id: name for name, request_id in desk.requests.items()}
        return [ids[adjustment.request_id] for adjustment in await desk.desk.list(Filter(**chosen), 100)]

    assert await names(state=WAITING) == ["big 0", "big 1", "big 2"]
    assert await names(member_id=other.member_id) == ["other"]
    day = timedelta(days=1)
    assert await names(state=WAITING, requested_before=NOW + day) == ["big 0"]
    assert await names(state=BOOKED, requested_from=NOW + 2 * day) == ["small 2", "other"]
    first = await desk.desk.list(Filter(), 3)
    rest = await desk.desk.list(Filter(after=(first[-1].requested_at, first[-1].request_id)), 100)
    assert [*first, *rest] == await desk.desk.list(Filter(), 100)
    assert len(rest) == 4
