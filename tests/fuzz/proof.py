"""What must hold after a campaign: the service runs, its books are sound, and the CRM database has all of them."""

from __future__ import annotations

from ledger.verify import verify
from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from server.crm.source import connect_ledger
from tests.support.crm import caught_up, comparison
from tests.support.faults import dsn_of
from tests.support.server_process import RunningServer

_EXPECTED = frozenset(("unexpected_error",))
"""Events of the level error that answers tell of as well."""


async def problems_of(server: RunningServer) -> list[str]:
    """Return all that is wrong."""
    if server.process.poll() is not None:
        return [f"the service ended with exit code {server.process.returncode}"]
    ledger_dsn, crm_dsn = dsn_of(server, LEDGER_DATABASE), dsn_of(server, CRM_DATABASE)
    conn = await connect_ledger(ledger_dsn)
    try:
        problems = [str(report.problem) for report in await verify(conn) if report.problem is not None]
    finally:
        await conn.close()
    await caught_up(ledger_dsn, crm_dsn)
    found = await comparison(ledger_dsn, crm_dsn)
    problems += [str(one) for one in found.differences]
    problems += [
        str(event)
        for event in list(server.log)
        if event.get("event") == "child_died" or (event.get("level") == "error" and event["event"] not in _EXPECTED)
    ]
    return problems
