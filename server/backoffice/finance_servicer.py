"""FinanceService: closing the books, what points are worth, and finance's reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import finance_pb2

from ledger.books import read_book_count
from ledger.finance.breakage import breakage
from ledger.finance.closing import MONTH, CloseRefused, close_books, last_day_of_month, read_closes
from ledger.finance.general_ledger import general_ledger
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.partners import partner_settlement
from ledger.finance.point_value import read_point_values, record_point_value
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.redemption import redemption_rate
from ledger.finance.statement import member_statement
from server.backoffice.finance_messages import close_message, point_value_message
from server.backoffice.finance_reports import ReportDesk
from server.clock import Clock, utc_now
from server.database import connection, transaction
from server.edge import Caller, Role, read_day
from server.errors import Refused
from server.members.identifiers import read_member_id
from server.members.records import living_id

if TYPE_CHECKING:
    from ledger.finance.scope import Query
    from ledger.finance.table import Table
    from server.database import Connection, Pool
    from server.rules import RulesBook

_FINANCE: Final = frozenset({Role.FINANCE, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    method.name: _FINANCE for method in finance_pb2.DESCRIPTOR.services_by_name["FinanceService"].methods
}


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
        programme = self._desk.programme(request.unit)
        day = read_day(request.day, "day")
        last_day = last_day_of_month(day) if request.period == MONTH else day
        async with connection(self._pool) as conn:
            try:
                closed = await close_books(conn, programme, request.period, last_day, caller.name, self._clock())
            except CloseRefused as error:
                raise Refused(api.REFUSAL_REASON_CLOSE_ORDER, str(error), violations=[("day", str(error))]) from error
        return finance_pb2.CloseBooksResponse(close=close_message(closed, programme.unit.code, with_totals=True))

    async def list_closes(
        self, request: finance_pb2.ListClosesRequest, caller: Caller
    ) -> finance_pb2.ListClosesResponse:
        """List the closes of a unit."""
        unit = self._desk.programme(request.unit).unit
        async with connection(self._pool) as conn:
            closes = await read_closes(conn, unit.number)
        return finance_pb2.ListClosesResponse(
            closes=[close_message(closed, unit.code, with_totals=False) for closed in closes]
        )

    async def record_point_value(
        self, request: finance_pb2.RecordPointValueRequest, caller: Caller
    ) -> finance_pb2.RecordPointValueResponse:
        """Record what points are worth."""
        unit = self._desk.programme(request.unit).unit
        async with transaction(self._pool) as conn:
            value = await record_point_value(
                conn,
                unit.number,
                from_month=date.fromisoformat(f"{request.from_month}-01"),
                value_money_minor=request.value_money_minor,
                value_points_minor=request.value_points_minor,
                breakage_ppm=request.breakage_ppm,
                recorded_at=self._clock(),
                recorded_by=caller.name,
            )
        return finance_pb2.RecordPointValueResponse(value=point_value_message(value))

    async def list_point_values(
        self, request: finance_pb2.ListPointValuesRequest, caller: Caller
    ) -> finance_pb2.ListPointValuesResponse:
        """List the versions of a unit."""
        unit = self._desk.programme(request.unit).unit
        async with connection(self._pool) as conn:
            values = await read_point_values(conn, unit.number)
        return finance_pb2.ListPointValuesResponse(values=[point_value_message(value) for value in values])

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
        return finance_pb2.GeneralLedgerResponse(table=await self._desk.run(general_ledger, request.query))

    async def partner_settlement(
        self, request: finance_pb2.PartnerSettlementRequest, caller: Caller
    ) -> finance_pb2.PartnerSettlementResponse:
        """Show what partners owe and are owed."""
        return finance_pb2.PartnerSettlementResponse(table=await self._desk.run(partner_settlement, request.query))
