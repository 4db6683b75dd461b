"""Running the CRM stream in tests, and waiting for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from ledger.reading.journal import read_heads
from server.crm import streamer
from server.crm.compare import Comparison, compare
from server.crm.source import connect_ledger
from server.crm.store import Cursor, connect_crm, read_cursors

TIMEOUT_SECONDS = 60.0


@asynccontextmanager
async def streaming(ledger_dsn: str, crm_dsn: str) -> AsyncIterator[None]:
    """Run a stream until the end of the block; it must not have ended by itself."""
    stop = asyncio.Event()
    task = asyncio.create_task(streamer.run(ledger_dsn, crm_dsn, stop))
    try:
        yield
        assert not task.done()
    finally:
        stop.set()
        await task


async def eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until a condition gives something true, and return it; databases may come and go meanwhile."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TIMEOUT_SECONDS
    while loop.time() < deadline:
        try:
            if value := await condition():
                return value
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {TIMEOUT_SECONDS} s: {what}")


async def cursors_of(crm_dsn: str) -> dict[int, Cursor]:
    """Return the cursors."""
    conn = await connect_crm(crm_dsn)
    try:
        return await read_cursors(conn)
    finally:
        await conn.close()


async def caught_up(ledger_dsn: str, crm_dsn: str) -> None:
    """Wait until the CRM database has applied all that the ledger has now."""
    conn = await connect_ledger(ledger_dsn)
    heads = await read_heads(conn)
    await conn.close()

    async def applied() -> bool:
        cursors = await cursors_of(crm_dsn)
        return all(book in cursors and cursors[book].number >= head.number for book, head in heads.items())

    await eventually(applied, "the CRM database has applied everything")


async def refused(crm_dsn: str) -> dict[int, str]:
    """Wait until books have stopped; return why, by book."""

    async def reasons() -> dict[int, str]:
        cursors = await cursors_of(crm_dsn)
        return {book: cursor.reason for book, cursor in cursors.items() if cursor.reason is not None}

    found: dict[int, str] = await eventually(reasons, "a book was refused")
    return found


async def comparison(ledger_dsn: str, crm_dsn: str) -> Comparison:
    """Compare both databases as they are now."""
    ledger, crm = await connect_ledger(ledger_dsn), await connect_crm(crm_dsn)
    try:
        return await compare(ledger, crm, patience_seconds=0)
    finally:
        await ledger.close()
        await crm.close()
