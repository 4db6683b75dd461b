"""FinanceService: closing the books, what points are worth, and finance's reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import finance_pb2

from ledger.finance.breakage import breakage
from ledger.finance.checkpoints import read_checkpoints
from ledger.finance.closing import (
    MONTH,
    ClosedPeriod,
    CloseRefused,
    check_day,
    check_order,
    close_books,
    first_open_day,
    last_day_of_month,
    read_closes,
)
from ledger.finance.general_ledger import read_journal
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.partners import partner_settlement
from ledger.finance.point_value import read_point_values, record_point_value
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.redemption import redemption_rate
from ledger.finance.statement import member_statement
from ledger.reading.books import read_book_count
from server.base.clock import Clock, utc_now
from server.base.database import connection, transaction
from server.base.errors import Refused, invalid_request
from server.edge.caller import Caller, Role
from server.edge.validation import read_day
from server.finance.general_ledger import Terms
from server.finance.messages import (
    close_message,
    general_ledger_message,
    point_value_message,
    terms_message,
)
from server.finance.open_matters import Matter, OpenMatter, read_open_matters
from server.finance.reports import ReportDesk
from server.members.identifiers import read_member_id
from server.members.records import living_id

if TYPE_CHECKING:
    from ledger.finance.scope import Programme, Query
    from ledger.finance.table import Table
    from server.base.database import Connection, Pool
    from server.rules.book import RulesBook

_FINANCE: Final = frozenset({Role.FINANCE, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    method.name: _FINANCE for method in finance_pb2.DESCRIPTOR.services_by_name["FinanceService"].methods
}


class _Looked(NamedTuple):
    """What a close would take (None: everything), the newest one so far, and what is open."""

    first_day: date | None
    newest: ClosedPeriod | None
    open_matters: list[OpenMatter]


class FinanceServicer:
    """Answers the calls of FinanceService."""

    def __init__(self, pool: Pool, rules: RulesBook, clock: Clock = utc_now) -> None:
        """Work over a pool of the writer's connections; the rules say what a point unit's programme is."""
        self._pool = pool
        self._desk = ReportDesk(pool, rules, clock)
        self._clock = clock

    async def close_books(
        self, request: finance_pb2.CloseBooksRequest, caller: Caller
    ) -> finance_pb2.CloseBooksResponse:
        """Close a day or a month."""
        programme, last_day = self._desk.programme(request.unit), _last_day(request)
        open_matters = (await self._look(programme, request.period, last_day)).open_matters
        _check_accepted(open_matters, request.despite)
        async with connection(self._pool) as conn:
            with _order_refused():
                closed = await close_books(conn, programme, request.period, last_day, caller.name, self._clock())
        return finance_pb2.CloseBooksResponse(close=close_message(closed, programme.unit.code, with_totals=True))

    async def check_close(
        self, request: finance_pb2.CheckCloseRequest, caller: Caller
    ) -> finance_pb2.CheckCloseResponse:
        """Say what would be closed, and what is still open in it."""
        programme, last_day = self._desk.programme(request.unit), _last_day(request)
        looked = await self._look(programme, request.period, last_day)
        response = finance_pb2.CheckCloseResponse(
            terms=terms_message(Terms.of(programme)),
            from_day=looked.first_day.isoformat() if looked.first_day else "",
            last_day=last_day.isoformat(),
            open_matters=[
                finance_pb2.OpenMatter(kind=int(one.kind), count=one.many, text=one.text)  # type: ignore[arg-type]  # the same numbers
                for one in looked.open_matters
            ],
        )
        if looked.newest is not None:
            response.newest.CopyFrom(close_message(looked.newest, programme.unit.code, with_totals=False))
        return response

    async def _look(self, programme: Programme, period: int, last_day: date) -> _Looked:
        """Look at what would be closed; the newest close asked for again has nothing open."""
        now = self._clock()
        await self._desk.catch_up()
        async with connection(self._pool) as conn:
            closes = await read_closes(conn, programme.unit.number)
            rows = [closed.row for closed in closes]
            newest = closes[-1] if closes else None
            if newest is not None and (newest.row.period, newest.row.last_day) == (period, last_day):
                return _Looked(newest.row.from_day, newest, [])
            with _order_refused():
                check_day(period, last_day, now)
                check_order(rows, period, last_day)
            first = first_open_day(rows, period)
            return _Looked(first, newest, await read_open_matters(conn, programme.unit.code, first, last_day, now))

    async def list_closes(
        self, request: finance_pb2.ListClosesRequest, caller: Caller
    ) -> finance_pb2.ListClosesResponse:
        """List the closes of a unit."""
        programme = self._desk.programme(request.unit)
        async with connection(self._pool) as conn:
            closes = await read_closes(conn, programme.unit.number)
        return finance_pb2.ListClosesResponse(
            closes=[close_message(closed, programme.unit.code, with_totals=False) for closed in closes],
            terms=terms_message(Terms.of(programme)),
        )

    async def record_point_value(
        self, request: finance_pb2.RecordPointValueRequest, caller: Caller
    ) -> finance_pb2.RecordPointValueResponse:
        """Record what points are worth."""
        programme = self._desk.programme(request.unit)
        async with transaction(self._pool) as conn:
            value = await record_point_value(
                conn,
                programme.unit.number,
                from_month=_first_day_of_month(request.from_month, "from_month"),
                value_money_minor=request.value_money_minor,
                value_points_minor=request.value_points_minor,
                breakage_ppm=request.breakage_ppm,
                recorded_at=self._clock(),
                recorded_by=caller.name,
            )
        return finance_pb2.RecordPointValueResponse(
            value=point_value_message(value), terms=terms_message(Terms.of(programme))
        )

    async def list_point_values(
        self, request: finance_pb2.ListPointValuesRequest, caller: Caller
    ) -> finance_pb2.ListPointValuesResponse:
        """List the versions of a unit."""
        programme = self._desk.programme(request.unit)
        async with connection(self._pool) as conn:
            values = await read_point_values(conn, programme.unit.number)
        return finance_pb2.ListPointValuesResponse(
            values=[point_value_message(value) for value in values], terms=terms_message(Terms.of(programme))
        )

    async def trial_balance(
        self, request: finance_pb2.TrialBalanceRequest, caller: Caller
    ) -> finance_pb2.TrialBalanceResponse:
        """Show every account."""
        return finance_pb2.TrialBalanceResponse(table=await self._desk.run(trial_balance, request.query))

    async def roll_forward(
        self, request: finance_pb2.RollForwardRequest, caller: Caller
    ) -> finance_pb2.RollForwardResponse:
        """Show the liability from opening to closing."""
        return finance_pb2.RollForwardResponse(table=await self._desk.run(roll_forward, request.query))

    async def member_statement(
        self, request: finance_pb2.MemberStatementRequest, caller: Caller
    ) -> finance_pb2.MemberStatementResponse:
        """Show a member's movements."""
        member_id = read_member_id(request.member_id, "member_id")

        async def report(conn: Connection, query: Query) -> Table:
            table = await member_statement(conn, query, member_id)
            living = await living_id(conn, member_id, await read_book_count(conn))
            if living == member_id:
                return table
            note = f"This member was merged into {living}, whose statement goes on with the points moved there."
            return replace(table, notes=(*table.notes, note))

        return finance_pb2.MemberStatementResponse(table=await self._desk.run(report, request.query))

    async def breakage(self, request: finance_pb2.BreakageRequest, caller: Caller) -> finance_pb2.BreakageResponse:
        """Show what is expected never to be redeemed."""
        return finance_pb2.BreakageResponse(table=await self._desk.run(breakage, request.query))

    async def age_profile(
        self, request: finance_pb2.AgeProfileRequest, caller: Caller
    ) -> finance_pb2.AgeProfileResponse:
        """Show what is outstanding by its age."""
        return finance_pb2.AgeProfileResponse(table=await self._desk.run(age_profile, request.query))

    async def expiry_profile(
        self, request: finance_pb2.ExpiryProfileRequest, caller: Caller
    ) -> finance_pb2.ExpiryProfileResponse:
        """Show when what is outstanding lapses."""
        return finance_pb2.ExpiryProfileResponse(table=await self._desk.run(expiry_profile, request.query))

    async def redemption_rate(
        self, request: finance_pb2.RedemptionRateRequest, caller: Caller
    ) -> finance_pb2.RedemptionRateResponse:
        """Show the share of points that is redeemed."""
        return finance_pb2.RedemptionRateResponse(table=await self._desk.run(redemption_rate, request.query))

    async def general_ledger(
        self, request: finance_pb2.GeneralLedgerRequest, caller: Caller
    ) -> finance_pb2.GeneralLedgerResponse:
        """Show what moved between accounts on each day."""

        async def question(conn: Connection, query: Query) -> finance_pb2.GeneralLedgerResponse:
            journal = await read_journal(conn, query)
            checkpoints = await read_checkpoints(conn, query, journal) if request.with_checkpoints else None
            return general_ledger_message(journal, checkpoints)

        return await self._desk.ask(question, request.query)

    async def partner_settlement(
        self, request: finance_pb2.PartnerSettlementRequest, caller: Caller
    ) -> finance_pb2.PartnerSettlementResponse:
        """Show what partners owe and are owed."""
        return finance_pb2.PartnerSettlementResponse(table=await self._desk.run(partner_settlement, request.query))


def _last_day(request: finance_pb2.CloseBooksRequest | finance_pb2.CheckCloseRequest) -> date:
    day = read_day(request.day, "day")
    return last_day_of_month(day) if request.period == MONTH else day


def _first_day_of_month(month: str, field: str) -> date:
    """Return the first day of a month in its form; Refused INVALID_REQUEST for that of a year 0."""
    try:
        return date.fromisoformat(f"{month}-01")
    except ValueError:
        raise invalid_request([(field, f"is {month}, which is no month of the calendar, such as 2026-05")]) from None


@contextmanager
def _order_refused() -> Iterator[None]:
    """Turn what cannot be closed into the API's refusal."""
    try:
        yield
    except CloseRefused as error:
        raise Refused(api.REFUSAL_REASON_CLOSE_ORDER, str(error), violations=[("day", str(error))]) from error


def _check_accepted(open_matters: Sequence[OpenMatter], accepted: Sequence[int]) -> None:
    """Refuse a close in which something is open that the caller has not named."""
    missing = [one for one in open_matters if one.kind not in accepted]
    if missing:
        names = " ".join(f"--despite {Matter(one.kind).name.lower()}" for one in missing)
        raise Refused(
            api.REFUSAL_REASON_CLOSE_INCOMPLETE,
            f"{'; '.join(one.text for one in missing)}. If it is to be closed nevertheless, name that in `despite` "
            f"(tallypoint finance close: {names})",
            violations=[("despite", f"lacks {Matter(one.kind).name}: {one.text}") for one in missing],
        )
