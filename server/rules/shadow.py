"""Shadows: versions that are computed for every booked receipt and never applied, and sums of what they would change.

A receipt is compared after it is booked, so a shadow can neither change nor refuse one. Version in effect and shadow
answer the same question, a quote with what was counted for the member before, so what registers charged differently is
not taken for a change. Limits that members share count as untouched in both. Sums stay in memory for a second at the
most; a process that dies takes that second's with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from server.base.database import connection
from server.promotions import MemberFacts, ReceiptError, ReceiptFacts, Rules, quote
from server.promotions.facts import Usage
from server.rules.book import RulesBook
from server.rules.comparing import differing_lines

if TYPE_CHECKING:
    from server.base.database import Connection, Pool
    from server.base.storage import Connect

INTERVAL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 10.0

# Add to what shadows would have changed.
ADD_SUMS: Final = """
INSERT INTO server.rules_shadow AS s (version, day, store_id, receipts, differing, live_discount_minor, discount_minor,
                                      live_points_minor, points_minor, failed)
SELECT * FROM unnest($1::int[], $2::date[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::bigint[], $10::bigint[])
ON CONFLICT (version, day, store_id) DO UPDATE
SET receipts = s.receipts + excluded.receipts, differing = s.differing + excluded.differing,
    live_discount_minor = s.live_discount_minor + excluded.live_discount_minor,
    discount_minor = s.discount_minor + excluded.discount_minor,
    live_points_minor = s.live_points_minor + excluded.live_points_minor,
    points_minor = s.points_minor + excluded.points_minor, failed = s.failed + excluded.failed
"""

# What a shadow would have changed.
READ_SUMS: Final = """
SELECT version, day, store_id, receipts, differing, live_discount_minor, discount_minor, live_points_minor,
       points_minor, failed
FROM server.rules_shadow WHERE version = $1 ORDER BY day, store_id
"""

_log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """What sums are kept by; the day is the store's own."""

    version: int
    day: date
    store_id: str


class Sums(NamedTuple):
    """Sums over receipts; `failed` ones are among no other sum."""

    receipts: int = 0
    differing: int = 0
    live_discount_minor: int = 0
    discount_minor: int = 0
    live_points_minor: int = 0
    points_minor: int = 0
    failed: int = 0

    def plus(self, other: Sums) -> Sums:
        """Return both added up."""
        return Sums(*map(sum, zip(self, other, strict=True)))


def compared(
    live: Rules, shadow: Rules, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None, points: int
) -> Sums:
    """Return one receipt's part of the sums; `points` are those that the shopper wants to spend. Pure."""
    before = quote(live, receipt, member, points, usage)
    after = quote(shadow, receipt, member, points, usage)
    earned = (before.accrual_points_minor, after.accrual_points_minor) if member is not None else (0, 0)
    differs = bool(differing_lines(before, after, earns=member is not None))
    return Sums(1, int(differs), before.discount_minor, after.discount_minor, *earned)


class Shadows:
    """Compares what was booked with the shadows of that moment, and adds up what they would have changed."""

    def __init__(self, rules: RulesBook, connect: Connect) -> None:
        """Take the versions, and a function that opens a connection with the writer's role."""
        self._rules = rules
        self._connect = connect
        self._sums: dict[Place, Sums] = {}
        self._conn: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def compare(
        self,
        live: Rules,
        receipt: ReceiptFacts,
        member: MemberFacts | None,
        usage: Usage | None,
        spend_points_minor: int = 0,
    ) -> None:
        """Take one receipt that was just booked; a shadow that cannot judge it is counted, and harms nobody."""
        for shadow in self._rules.shadows(receipt.local_at):
            place = Place(shadow.version, receipt.local_at.date(), receipt.store_id)
            try:
                sums = compared(live, shadow, receipt, member, usage, spend_points_minor)
            except (ReceiptError, ArithmeticError, LookupError, TypeError, ValueError, AssertionError) as error:
                _log.warning("shadow_failed", version=shadow.version, error=f"{type(error).__name__}: {error}")
                sums = Sums(failed=1)
            self._sums[place] = self._sums.get(place, Sums()).plus(sums)

    def start(self) -> None:
        """Write down once a second what was added up, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="shadows")

    async def stop(self) -> None:
        """Write down what is left, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._try_flush()
        if self._conn is not None:
            conn, self._conn = self._conn, None
            with contextlib.suppress(Exception):
                await conn.close(timeout=1.0)

    async def flush(self) -> None:
        """Write down what was added up since the last time. Errors of the database are raised, and nothing is lost."""
        if not self._sums:
            return
        sums, self._sums = self._sums, {}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if self._conn is None or self._conn.is_closed():
                    self._conn = await self._connect()
                await add_sums(self._conn, sums.items())
        except BaseException:
            for place, part in sums.items():
                self._sums[place] = part.plus(self._sums.get(place, Sums()))
            raise

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is, the sums wait for the next time, and tills go on
            _log.warning("shadow_sums_not_written", error=f"{type(error).__name__}: {error}")
            if self._conn is not None:
                self._conn.terminate()
                self._conn = None


async def add_sums(conn: Connection, sums: Iterable[tuple[Place, Sums]]) -> None:
    """Add to the table of sums, in one order, so that workers never wait for each other in a circle."""
    rows = [(*place, *part) for place, part in sorted(sums)]
    await conn.execute(ADD_SUMS, *(list(column) for column in zip(*rows, strict=True)))


async def read_sums(pool: Pool, version: int) -> Sequence[tuple[Place, Sums]]:
    """Return what a version would have changed as a shadow, by day and store."""
    async with connection(pool) as conn:
        records = await conn.fetch(READ_SUMS, version)
    return [(Place(*record[:3]), Sums(*record[3:])) for record in map(tuple, records)]
