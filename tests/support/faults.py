"""What strikes a running server under load: small functions that harm one part of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import psutil

from server.base.postgres import EmbeddedPostgres
from server.base.storage import LEDGER_DATABASE
from tests.support.crm import eventually
from tests.support.server_process import RunningServer

# End some of the clients' connections to this server, whatever they are doing.
END_BACKENDS = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest($1::integer[]) AS victim (pid)"

# Find the service's own connections.
READ_BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name LIKE 'tallypoint%' ORDER BY pid
"""

# Count the service's commits that wait for a lock.
COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'tallypoint%'
"""


def postgres_of(server: RunningServer) -> EmbeddedPostgres:
    """Return a server's embedded PostgreSQL, to harm it."""
    return EmbeddedPostgres(server.data_dir / "postgres")


def dsn_of(server: RunningServer, database: str) -> str:
    """Return the connection string of a database of a server's embedded PostgreSQL."""
    return postgres_of(server).dsn(database)


async def end_backends(conn: asyncpg.Connection[asyncpg.Record], dice: random.Random, most: int) -> int:
    """End up to `most` of the service's connections, chosen at random; return how many were ended."""
    pids = [row["pid"] for row in await conn.fetch(READ_BACKENDS)]
    victims = dice.sample(pids, min(most, len(pids)))
    return int(await conn.fetchval(END_BACKENDS, victims))


@asynccontextmanager
async def database_away(conn: asyncpg.Connection[asyncpg.Record], database: str) -> AsyncIterator[None]:
    """Close a database to everybody, end its connections, and open it again after the block."""
    await conn.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false')
    await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    try:
        yield
    finally:
        await conn.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS true')


@asynccontextmanager
async def books_locked(ledger_dsn: str) -> AsyncIterator[None]:
    """Hold the heads of all books, so that commits wait; the block begins when some do."""
    conn, watcher = await asyncpg.connect(ledger_dsn), await asyncpg.connect(ledger_dsn)
    try:
        async with conn.transaction():
            await conn.execute("SELECT FROM ledger.book_head FOR UPDATE")

            async def commits_wait() -> bool:
                return bool(await watcher.fetchval(COUNT_WAITING))

            await eventually(commits_wait, "commits wait for the books")
            yield
    finally:
        await watcher.close()
        await conn.close()


async def until_refused(address: str) -> None:
    """Wait until nobody listens at an address any more."""
    host, port = address.rsplit(":", 1)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await eventually(refused, f"{address} refuses connections")


# --- processes ----------------------------------------------------------------------------------------------------


async def child_of(server: RunningServer, name: str) -> psutil.Process:
    """Return a child of the supervisor by its name, such as ``worker-1``, once it lives."""

    async def living() -> psutil.Process | None:
        started = [event for event in server.log if event.get("event") == "child_started"]
        pids = [event["pid"] for event in started if event["child"] == name]
        return _living(pids[-1]) if pids else None

    found: psutil.Process = await eventually(living, f"{name} lives")
    return found


def _living(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


async def until_gone(process: psutil.Process) -> None:
    """Wait until a process is dead."""

    async def gone() -> bool:
        return _living(process.pid) != process

    await eventually(gone, f"process {process.pid} is gone")


async def until_whole(server: RunningServer) -> None:
    """Wait until every child of the supervisor is ready, and PostgreSQL answers."""

    async def whole() -> bool:
        states: dict[str, str] = {}
        for event in list(server.log):
            if event.get("event") in ("child_started", "child_ready", "child_died"):
                states[event["child"]] = event["event"]
        await (await asyncpg.connect(dsn_of(server, LEDGER_DATABASE), timeout=5)).close()
        return set(states.values()) == {"child_ready"}

    await eventually(whole, "every part of the service is ready")


async def until_another_postmaster(server: RunningServer, old_pid: int) -> None:
    """Wait until the supervisor has started PostgreSQL again, and it answers."""

    async def answers() -> bool:
        if postgres_of(server).pid in (None, old_pid):
            return False
        await (await asyncpg.connect(dsn_of(server, LEDGER_DATABASE), timeout=5)).close()
        return True

    await eventually(answers, "PostgreSQL is started again")
