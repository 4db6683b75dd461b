"""Running a report: the summaries up to date, then one snapshot of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import finance_pb2

from ledger.finance.scope import Programme, QueryError
from ledger.finance.summary import bring_up_to_date
from server.base.clock import Clock
from server.base.database import connection
from server.base.errors import Refused
from server.finance.messages import query_of, table_message
from server.finance.programme import programme_of

if TYPE_CHECKING:
    from ledger.finance.scope import Query
    from ledger.finance.table import Table
    from server.base.database import Connection, Pool
    from server.rules.book import RulesBook

Report = Callable[["Connection", "Query"], Awaitable["Table"]]
"""A report as every module of `ledger.finance` writes it."""

T = TypeVar("T")

_NOT_FOUND: Final = frozenset({"as_of_close"})


class ReportDesk:
    """Runs reports, one catching-up at a time."""

    def __init__(self, pool: Pool, rules: RulesBook, clock: Clock) -> None:
        """Read over a pool; the rules say what a point unit's programme is."""
        self._pool = pool
        self._rules = rules
        self._clock = clock
        self._catching_up = asyncio.Lock()

    def programme(self, unit: str) -> Programme:
        """Return the programme of a point unit; the current one for an empty code.

        Raises:
            Refused: NOT_FOUND if no programme has the unit.
        """
        programme = programme_of(self._rules, unit, self._clock())
        if programme is None:
            raise Refused(
                api.REFUSAL_REASON_NOT_FOUND,
                f"no programme has the point unit {unit!r}" if unit else "no programme was published yet",
                violations=[("unit", "is not the point unit of a programme")],
            )
        return programme

    async def run(self, report: Report, message: finance_pb2.ReportQuery) -> finance_pb2.ReportTable:
        """Return a report; for the errors see `ask`."""
        return table_message(await self.ask(report, message))

    async def ask(self, question: Callable[[Connection, Query], Awaitable[T]], message: finance_pb2.ReportQuery) -> T:
        """Answer a question in one snapshot of the ledger.

        Raises:
            Refused: NOT_FOUND for a unit or a close that there is not, INVALID_REQUEST for days that make no sense.
        """
        query = query_of(message, self.programme(message.unit))
        await self.catch_up()
        async with connection(self._pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            try:
                return await question(conn, query)
            except QueryError as error:
                raise _refused(error) from error

    async def catch_up(self) -> None:
        """Add up what was booked since the last time."""
        async with self._catching_up, connection(self._pool) as conn:  # who waits for their turn holds no connection
            await bring_up_to_date(conn)


def _refused(error: QueryError) -> Refused:
    field = f"query.{error.field}"
    reason = api.REFUSAL_REASON_NOT_FOUND if error.field in _NOT_FOUND else api.REFUSAL_REASON_INVALID_REQUEST
    return Refused(reason, str(error), violations=[(field, str(error))])
