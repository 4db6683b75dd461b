"""Shared budgets at the till: a book gets its part of one before a receipt asks for more than it has.

What a book has is spent under its fence, so a budget is never exceeded; this only sees to it that there is something to
spend. A part is fetched when a receipt needs it: one transaction for some hundred receipts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import asyncpg

from ledger.booking.budgets import lease
from ledger.reading.budgets import read_parts_left, read_used
from server.base.database import CONNECTION_LOST, ledger_unavailable

if TYPE_CHECKING:
    from server.base.gather import Connect


class SharedUse(Protocol):
    """What a receipt would use of a shared limit."""

    @property
    def key(self) -> str:
        """The limit."""

    @property
    def amount(self) -> int:
        """How much of it."""

    @property
    def at_most(self) -> int:
        """The whole of it."""


class Budgets:
    """Sees to the books' parts of shared budgets, over one connection of its own."""

    def __init__(self, connect: Connect, clock: Callable[[], datetime]) -> None:
        """Take a function that opens a connection. Nothing is opened yet."""
        self._connect = connect
        self._clock = clock
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()

    async def ensure(self, book: int, uses: Sequence[SharedUse]) -> None:
        """See to it that a book has enough of these budgets, as far as they last.

        Raises:
            Refused: LEDGER_UNAVAILABLE if the database cannot be reached.
        """
        if not uses:
            return
        wanted: dict[str, tuple[int, int]] = {}
        for use in uses:
            wanted[use.key] = (wanted.get(use.key, (0, 0))[0] + use.amount, use.at_most)
        async with self._one_at_a_time:
            try:
                await self._ensure(book, wanted)
            except CONNECTION_LOST as error:
                raise ledger_unavailable(error) from error

    async def left(self, uses: Iterable[SharedUse]) -> dict[str, int]:
        """Return what is left of budgets over all books; for a quote, which uses nothing.

        Raises:
            Refused: LEDGER_UNAVAILABLE if the database cannot be reached.
        """
        most = {use.key: use.at_most for use in uses}
        async with self._one_at_a_time:
            try:
                conn = await self._connected()
                used = await read_used(conn, most)
            except CONNECTION_LOST as error:
                raise ledger_unavailable(error) from error
        return {key: max(0, at_most - used.get(key, 0)) for key, at_most in most.items()}

    async def _ensure(self, book: int, wanted: dict[str, tuple[int, int]]) -> None:
        conn = await self._connected()
        left = await read_parts_left(conn, book, wanted)
        for key, (amount, at_most) in wanted.items():
            if left.get(key, 0) < amount:
                await lease(conn, book, key, at_most, amount, self._clock())

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._conn is None or self._conn.is_closed():
            self._conn = await self._connect()
        return self._conn
