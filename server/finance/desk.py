"""Running finance's work straight on the ledger database: the summaries up to date, then one snapshot to read.

Who runs it has the database, and needs no service and no key; a report over a year is long work, which a call with a
deadline is not made for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from ledger.finance.scope import Programme
from ledger.finance.summary import Progress, bring_up_to_date, count_pending
from server.clock import Clock, utc_now
from server.command import load_settings, readable_errors
from server.finance.programme import programme_of
from server.progress import progress
from server.rules import RulesBook
from server.storage import open_ledger

if TYPE_CHECKING:
    from server.database import Connection

READER: Final = "tallypoint_reader"
WRITER: Final = "tallypoint_writer"
LONG_WORK_ENTRIES: Final = 5_000
"""Entries to be summed from which on progress is shown: it takes more than a moment."""

T = TypeVar("T")


class NotFoundError(Exception):
    """The ledger does not have what was asked for; the message says what."""


def on_ledger(dsn: str | None, data_dir: Path | None, work: Callable[[str], Awaitable[T]]) -> T:
    """Run work on the ledger database: the given one, or that of the settings.

    Raises:
        typer.Exit: The database cannot be reached, or refuses; the reason was printed.
    """

    async def run(resolved: str) -> T:
        return await work(resolved)

    with readable_errors(), open_ledger(load_settings(ledger_dsn=dsn, data_dir=data_dir)) as resolved:
        return asyncio.run(run(resolved))


@asynccontextmanager
async def connected(dsn: str, role: str) -> AsyncIterator[Connection]:
    """Open a connection that has a role's rights, and no more."""
    settings = {"role": role, "application_name": "tallypoint finance"}
    conn = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[Connection]:
    """Bring the summaries up to date, then open a connection on which every report sees the same ledger."""
    async with connected(dsn, WRITER) as conn:
        with summing(await count_pending(conn)) as advance:
            await bring_up_to_date(conn, advance)
    async with connected(dsn, READER) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        yield conn


@contextmanager
def summing(entries: int) -> Iterator[Progress]:
    """Show how far the summing of entries has come, if there are many."""
    shown = progress("Adding up", entries, "entries") if entries >= LONG_WORK_ENTRIES else nullcontext(_in_silence)
    with shown as advance:
        yield advance


def _in_silence(_entries: int) -> None:
    """Show nothing."""


async def read_programme(conn: Connection, unit: str, clock: Clock = utc_now) -> Programme:
    """Return the programme of a point unit as finance sees it; the one in effect for an empty code.

    Raises:
        NotFoundError: There is none.
    """
    book = RulesBook()
    await book.load(conn)
    programme = programme_of(book, unit, clock())
    if programme is None:
        raise NotFoundError(
            f"no programme has the point unit {unit!r}"
            if unit
            else "no programme was published yet: `tallypoint programme publish` does it"
        )
    return programme
