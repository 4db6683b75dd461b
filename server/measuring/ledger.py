"""What the books hold, for Prometheus: entries, balances of accounts, and how PostgreSQL is used.

One process of a deployment reads it, the one of the CRM stream: it always runs, and is not on the path of any call.
Several deployments over one ledger report the same values, so queries take the maximum, not the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import is_partner
from ledger.entry.model import Unit
from ledger.reading.books import read_units
from ledger.reading.journal import read_heads
from ledger.reading.totals import read_changes
from server.base.clock import Clock, pause
from server.measuring import metrics
from server.measuring.logs import describe_error

if TYPE_CHECKING:
    from server.base.database import Connection
    from server.base.storage import Connect

INTERVAL_SECONDS: Final = 15.0
SIZE_EVERY: Final = 20
"""Every so many readings the size is taken, which looks at each of the database's files."""

# Connections to this database.
READ_CONNECTIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"

# Its size on disk.
READ_BYTES: Final = "SELECT pg_database_size(current_database())"

_log = structlog.get_logger("tallypoint.metrics")

Balances = Mapping[tuple[int, int], int]
"""What stands on (unit, account), in the unit's smallest fraction."""


async def watch_ledger(connect: Connect, stop: asyncio.Event, clock: Clock) -> None:
    """Measure until the event, also while the database comes and goes."""
    watch = LedgerWatch()
    conn: Connection | None = None
    while not stop.is_set():
        try:
            if conn is None or conn.is_closed():
                conn = await connect()
            await watch.read(conn, clock().date())
        except Exception as error:  # noqa: BLE001 - measuring again matters more than why it failed
            _log.debug("ledger_not_measured", **describe_error(error))
        await pause(stop, INTERVAL_SECONDS)
    if conn is not None:
        conn.terminate()


class LedgerWatch:
    """Reads what the books hold. Days that are over are summed up once: an entry books on its own day."""

    def __init__(self) -> None:
        self._settled_until = date.min
        self._settled: Balances = {}
        self._readings = 0

    async def read(self, conn: Connection, today: date) -> None:
        """Read everything once and set the gauges; ``today`` is the day in UTC."""
        for book, head in (await read_heads(conn)).items():
            metrics.LEDGER_ENTRIES.labels(str(book)).set(head.number)
        balances = await self._balances(conn, today)
        _set_points(balances, (await read_units(conn)).values())
        metrics.POSTGRES_CONNECTIONS.set(await conn.fetchval(READ_CONNECTIONS))
        if self._readings % SIZE_EVERY == 0:
            metrics.POSTGRES_BYTES.set(await conn.fetchval(READ_BYTES))
        self._readings += 1

    async def _balances(self, conn: Connection, today: date) -> Balances:
        over = today - timedelta(days=1)  # clocks may differ a little, so yesterday may still be under way
        if over > self._settled_until:
            self._settled = _sum(self._settled, await read_changes(conn, self._settled_until, over))
            self._settled_until = over
        return _sum(self._settled, await read_changes(conn, over, date.max))


def _sum(one: Balances, other: Balances) -> Balances:
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}


def _set_points(balances: Balances, units: Iterable[Unit]) -> None:
    """Set the balance of each account; those of all partners are one."""
    by_number = {unit.number: unit for unit in units}
    named: dict[tuple[Unit, str], int] = {}
    for (number, account), balance_minor in balances.items():
        key = by_number[number], _account_name(account)
        named[key] = named.get(key, 0) + balance_minor
    for (unit, name), balance_minor in named.items():
        # For a picture only: a float is near enough, and Prometheus has nothing else.
        metrics.LEDGER_POINTS.labels(unit.code, name).set(balance_minor / 10**unit.precision)


def _account_name(account: int) -> str:
    number = journal_pb2.ACCOUNT_PARTNER if is_partner(account) else account
    return journal_pb2.Account.Name(journal_pb2.Account.ValueType(number)).removeprefix("ACCOUNT_").lower()
