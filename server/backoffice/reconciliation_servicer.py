"""ReconciliationService: the registers' day totals against the ledger, for finance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import reconciliation_pb2 as pb

from server.base.clock import Clock, utc_now
from server.base.database import connection, transaction
from server.base.errors import Refused
from server.edge.caller import Caller, Role
from server.edge.validation import read_day, read_optional_day
from server.promotions import Programme, load_programme
from server.reconciliation import breaks, carry_over, files, reconciler
from server.reconciliation.model import BreakKind, BreakState, Figure, Rules
from server.reconciliation.wording import describe
from server.rules.versions import ProgrammeStore

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

DEFAULT_PAGE_SIZE: Final = 100
MAX_DAYS: Final = 366
_FINANCE: Final = frozenset({Role.FINANCE, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "LoadZReports": _FINANCE,
    "LoadRegisterReceipts": _FINANCE,
    "Reconcile": _FINANCE,
    "ListBreaks": _FINANCE,
    "GetBreak": _FINANCE,
    "WorkBreak": _FINANCE,
    "PutReconciliationRules": _FINANCE,
    "GetReconciliationRules": _FINANCE,
}


class ReconciliationServicer:
    """Answers the calls of ReconciliationService."""

    def __init__(self, pool: Pool, programmes: ProgrammeStore, clock: Clock = utc_now) -> None:
        """Work over a pool of the writer's connections; the programme says how money and points are written."""
        self._pool = pool
        self._programmes = programmes
        self._clock = clock

    async def load_zreports(self, request: pb.LoadZReportsRequest, caller: Caller) -> pb.LoadZReportsResponse:
        """Store a part of a file of Z reports."""
        async with transaction(self._pool) as conn:
            loaded = await files.load_reports(conn, request.file, request.reports, caller.name, self._clock())
            warnings = await files.unknown_terminals(conn, request.reports)
        return pb.LoadZReportsResponse(
            unchanged=loaded.unchanged, complete=loaded.complete, superseding=loaded.superseding, warnings=warnings
        )

    async def load_register_receipts(
        self, request: pb.LoadRegisterReceiptsRequest, caller: Caller
    ) -> pb.LoadRegisterReceiptsResponse:
        """Store a part of a file of single receipts."""
        async with transaction(self._pool) as conn:
            loaded = await files.load_receipts(conn, request.file, request.receipts, caller.name, self._clock())
            warnings = await files.unknown_terminals(conn, request.receipts)
        return pb.LoadRegisterReceiptsResponse(
            unchanged=loaded.unchanged, complete=loaded.complete, superseding=loaded.superseding, warnings=warnings
        )

    async def reconcile(self, request: pb.ReconcileRequest, caller: Caller) -> pb.ReconcileResponse:
        """Compare days of stores."""
        first, last = read_day(request.from_day, "from_day"), read_day(request.to_day, "to_day")
        if not first <= last < first + timedelta(days=MAX_DAYS):
            raise _invalid("to_day", f"must be from_day or later, and at most {MAX_DAYS} days in all")
        pending = await reconciler.catch_up(self._pool)
        if pending:
            return pb.ReconcileResponse(pending_entries=pending)
        stores, after = list(request.store_ids), request.page_token
        run = await reconciler.reconcile(self._pool, first, last, stores, caller.name, self._clock, after=after)
        return pb.ReconcileResponse(
            run_id=str(run.run_id),
            terminal_days=run.terminal_days,
            found=run.found,
            opened=run.opened,
            resolved=run.resolved,
            open=run.open,
            next_page_token=run.stopped_after,
        )

    async def list_breaks(self, request: pb.ListBreaksRequest, caller: Caller) -> pb.ListBreaksResponse:
        """List breaks, a page at a time."""
        now, limit = self._clock(), request.page_size or DEFAULT_PAGE_SIZE
        wanted = breaks.Wanted(
            [BreakState(state) for state in request.states] or [BreakState.OPEN],
            [BreakKind(kind) for kind in request.kinds] or list(BreakKind),
            request.store_id,
            read_optional_day(request.from_day, "from_day"),
            read_optional_day(request.to_day, "to_day"),
            now - timedelta(days=request.min_age_days),
        )
        async with connection(self._pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            page, total = await breaks.read_page(conn, wanted, _place(request.page_token), limit + 1)
        more = len(page) > limit
        return pb.ListBreaksResponse(
            breaks=[_message(one, now) for one in page[:limit]],
            next_page_token=_token(page[limit - 1]) if more else "",
            total=total,
        )

    async def get_break(self, request: pb.GetBreakRequest, caller: Caller) -> pb.GetBreakResponse:
        """Show a break with its history."""
        async with transaction(self._pool) as conn:
            one = await _break_by_prefix(conn, request.break_id)
            events = await breaks.read_events(conn, one.what.break_id)
        return pb.GetBreakResponse(
            item=_message(one, self._clock()), events=[_event_message(event) for event in events]
        )

    async def work_break(self, request: pb.WorkBreakRequest, caller: Caller) -> pb.WorkBreakResponse:
        """Explain a break, write it off, or open it again."""
        now = self._clock()
        async with transaction(self._pool) as conn:
            one = await _break_by_prefix(conn, request.break_id)
            if one.state is BreakState.RESOLVED:
                raise _invalid("break_id", "is resolved: the last run no longer found it, so there is nothing to say")
            step = carry_over.work(one, BreakState(request.state), request.note, caller.name, now)
            if step is not None:
                await breaks.write(conn, [step], caller.name)
                one = step.after
        return pb.WorkBreakResponse(item=_message(one, now))

    async def put_reconciliation_rules(
        self, request: pb.PutReconciliationRulesRequest, caller: Caller
    ) -> pb.PutReconciliationRulesResponse:
        """Set by what rules a store's days are compared."""
        rules = request.rules
        async with transaction(self._pool) as conn:
            if rules.store_id and not await conn.fetch(files.KNOWN_STORES, [rules.store_id]):
                raise Refused(
                    api.REFUSAL_REASON_NOT_FOUND,
                    f"there is no store {rules.store_id}",
                    violations=[("rules.store_id", "is not a store")],
                )
            await reconciler.put_rules(conn, rules.store_id, _rules(rules))
        return pb.PutReconciliationRulesResponse(rules=rules)

    async def get_reconciliation_rules(
        self, request: pb.GetReconciliationRulesRequest, caller: Caller
    ) -> pb.GetReconciliationRulesResponse:
        """Show the rules, and how money and points are written."""
        async with connection(self._pool) as conn:
            rules = await reconciler.read_rules(conn)
        _, text = await self._programmes.get(0)
        programme = await asyncio.to_thread(load_programme, text, "the newest version")
        assert isinstance(programme, Programme), "only valid programmes are published"
        return pb.GetReconciliationRulesResponse(
            rules=[_rules_message(store_id, one) for store_id, one in rules.items()],
            currency_code=programme.currency,
            money_decimals=programme.currency_digits,
            points_decimals=programme.point.precision,
        )


async def _break_by_prefix(conn: Connection, break_id: str) -> carry_over.KeptBreak:
    """Return the one break whose id is, or begins with, what the caller wrote."""
    found = await breaks.read_by_id(conn, break_id)
    if len(found) > 1:
        raise _invalid("break_id", f"is the beginning of several ids, such as {found[0].what.break_id}: write more")
    if not found:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            f"there is no break {break_id}",
            violations=[("break_id", "is not the id of a break")],
        )
    return found[0]


def _message(one: carry_over.KeptBreak, now: datetime) -> pb.Break:
    what = one.what
    message = pb.Break(
        break_id=what.break_id,
        store_id=what.place.store_id,
        terminal_id=what.place.terminal_id,
        business_date=what.place.business_date.isoformat(),
        kind=pb.BreakKind.Name(what.kind),
        state=pb.BreakState.Name(one.state),
        receipt_count=what.receipt_count,
        numbers=[pb.ReceiptNumbers(first=run.first, last=run.last) for run in what.numbers],
        figures=[_figure_message(figure) for figure in what.figures],
        text=describe(what),
        age_days=max((now - one.opened_at).days, 0),
        worked_by=one.worked_by,
        note=one.note,
    )
    message.opened_at.FromDatetime(one.opened_at)
    message.changed_at.FromDatetime(one.changed_at)
    return message


def _event_message(event: breaks.Event) -> pb.BreakEvent:
    message = pb.BreakEvent(
        change=pb.BreakChange.Name(event.change),
        by=event.by,
        state=pb.BreakState.Name(event.state),
        note=event.note,
        receipt_count=event.receipt_count,
        figures=[_figure_message(figure) for figure in event.figures],
    )
    message.at.FromDatetime(event.at)
    return message


def _figure_message(figure: Figure) -> pb.Figure:
    return pb.Figure(measure=pb.Measure.Name(figure.measure), expected=figure.expected, found=figure.found)


def _rules(message: pb.ReconciliationRules) -> Rules:
    return Rules(
        message.numbers_consecutive,
        timedelta(hours=message.late_after_hours) or None,
        timedelta(minutes=message.doubled_within_minutes) or None,
    )


def _rules_message(store_id: str, rules: Rules) -> pb.ReconciliationRules:
    return pb.ReconciliationRules(
        store_id=store_id,
        numbers_consecutive=rules.numbers_consecutive,
        late_after_hours=(rules.late_after or timedelta()) // timedelta(hours=1),
        doubled_within_minutes=(rules.doubled_within or timedelta()) // timedelta(minutes=1),
    )


def _token(one: carry_over.KeptBreak) -> str:
    return f"{one.what.place.business_date.isoformat()}/{one.what.break_id}"


def _place(token: str) -> tuple[date, str]:
    if not token:
        return date.min, ""
    day, break_id = token.split("/")
    try:
        return date.fromisoformat(day), break_id
    except ValueError:
        raise _invalid("page_token", "is not the next_page_token of the answer before, unchanged") from None


def _invalid(field: str, text: str) -> Refused:
    return Refused(api.REFUSAL_REASON_INVALID_REQUEST, f"{field} {text}", violations=[(field, text)])
