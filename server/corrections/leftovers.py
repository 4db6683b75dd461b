"""Moving on what comes back to members who were merged into others.

A purchase stays booked for whom it was made. So a return of it is booked for the merged member, as is a receipt of a
lane that had found the member a moment before the merge. What they leave there belongs to the survivor, and is moved
on within a minute. Of a chain of merges each round moves points one step on, until a round finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from ledger.booking.transfer import TransferOrder, transfer_everything
from ledger.entry.model import Relevel
from ledger.reading.balances import has_points
from ledger.reading.counters import has_counters
from server.base.clock import Clock
from server.base.database import connection, in_transaction
from server.base.errors import Refused
from server.corrections.merge import MERGE_REASON
from server.measuring.logs import describe_error

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

INTERVAL_SECONDS: Final = 60.0
MEMBERS_PER_ROUND: Final = 500
MOVED_BY: Final = "tallypoint"
"""Who asked for these transfers, in the journal."""

# Merged members who have or owe something, and those into whom they were merged.
READ_LEFTOVERS: Final = f"""
SELECT m.member_id, m.merged_into FROM server.member m
WHERE m.status = 4 AND ({has_points("m")} OR {has_counters("m")})
LIMIT $1
"""  # noqa: S608 - the ledger's own conditions

_log = structlog.get_logger(__name__)


RelevelAt = Callable[[datetime], Relevel | None]
"""Returns what judges the levels of those from whom something is taken at a moment."""


async def move_leftovers(pool: Pool, books: int, now: datetime, relevel_at: RelevelAt = lambda _: None) -> int:
    """Move on what merged members have and owe, each member in a transaction; return how many transfers it took.

    What returns took out of their counters goes on, too, and ``relevel_at`` judges what becomes of the survivors'
    levels. Doing it twice at once is safe: who comes second finds nothing. A member whose points cannot be moved is
    logged and does not keep the others waiting.

    Raises:
        Refused: LEDGER_UNAVAILABLE.
    """
    transfers, moved = 0, 1
    while moved:
        async with connection(pool) as conn:
            leftovers = await conn.fetch(READ_LEFTOVERS, MEMBERS_PER_ROUND)
        moved = 0
        for row in leftovers:
            order = TransferOrder(uuid4(), row["member_id"], row["merged_into"], MERGE_REASON, MOVED_BY)
            moved += await _move(pool, books, order, now, relevel_at(now))
        transfers += moved
    return transfers


async def _move(pool: Pool, books: int, order: TransferOrder, now: datetime, relevel: Relevel | None) -> int:
    async def work(conn: Connection) -> int:
        return len(await transfer_everything(conn, books, order, now, relevel))

    try:
        return await in_transaction(pool, work)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this member, the others go on
        _log.error("leftovers_not_moved", member_id=str(order.sender), **describe_error(error))
        return 0


class LeftoversMover:
    """Moves leftovers once a minute until it is stopped. While the database is away it tries on."""

    def __init__(
        self,
        pool: Pool,
        books: int,
        clock: Clock,
        relevel_at: RelevelAt = lambda _: None,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """Work over a pool whose connections have the writer's role; ``relevel_at`` is that of `move_leftovers`."""
        self._pool = pool
        self._books = books
        self._clock = clock
        self._relevel_at = relevel_at
        self._interval_seconds = interval_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="move leftovers of merged members")

    async def stop(self) -> None:
        """Stop; a transaction under way is rolled back."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                transfers = await move_leftovers(self._pool, self._books, self._clock(), self._relevel_at)
            except Refused as refused:
                _log.warning("leftovers_put_off", reason=refused.reason_name)
            else:
                if transfers:
                    _log.info("merged_members_settled", transfers=transfers)
            await asyncio.sleep(self._interval_seconds)
