"""Finance's work straight on the ledger database: the proofs, which trust no service, and what proves a replay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from ledger.finance.scope import Programme
from ledger.finance.summary import bring_up_to_date
from server.base.clock import Clock, utc_now
from server.finance.programme import programme_of
from server.rules.book import RulesBook

if TYPE_CHECKING:
    from server.base.database import Connection

READER: Final = "tallypoint_reader"
WRITER: Final = "tallypoint_writer"

T = TypeVar("T")


class NotFoundError(Exception):
    """The ledger does not have what was asked for; the message says what."""


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
        await bring_up_to_date(conn)
    async with connected(dsn, READER) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        yield conn


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
