"""How far each book has been verified: the heads of the last clean verification, kept in ``ledger.verified``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from ledger.verify.report import BookReport, Problem

# Read how far the books have been verified, with the hashes that stand at those places now.
READ_CHECKPOINTS = """
SELECT v.book, v.number, v.hash, v.verified_at, v.full_number, v.full_at, e.booked_at, e.hash AS stands
FROM ledger.verified v LEFT JOIN ledger.entry e ON e.book = v.book AND e.number = v.number ORDER BY v.book
"""

# Note how far the books have been verified. A verification that began earlier and ended later takes nothing back.
WRITE_CHECKPOINTS = """
INSERT INTO ledger.verified AS v (book, number, hash, verified_at, full_number, full_at)
SELECT u.book, u.number, u.hash, $4, u.number, $4
FROM unnest($1::int[], $2::bigint[], $3::bytea[]) AS u (book, number, hash)
ON CONFLICT (book) DO UPDATE SET number = excluded.number, hash = excluded.hash, verified_at = excluded.verified_at,
    full_number = CASE WHEN $5 THEN excluded.full_number ELSE v.full_number END,
    full_at = CASE WHEN $5 THEN excluded.full_at ELSE v.full_at END
WHERE v.number <= excluded.number
"""


class Checkpoint(NamedTuple):
    """How far a book has been verified; up to ``full_number`` from its first entry on.

    ``booked_at`` and ``stands`` are the time and the hash of the entry that has this number now, or None.
    """

    book: int
    number: int
    hash: bytes
    verified_at: datetime
    full_number: int
    full_at: datetime
    booked_at: datetime | None
    stands: bytes | None

    @property
    def problem(self) -> Problem | None:
        """What is wrong, if the entry is not the one that was verified."""
        if self.number == 0 or self.stands == self.hash:
            return None
        fate = "is missing, and stood here" if self.stands is None else "was another one"
        when = f"{self.verified_at:%Y-%m-%d %H:%M:%S} UTC"
        return Problem(self.book, self.number, f"the entry {fate} when the book was verified at {when}")


async def read_checkpoints(conn: asyncpg.Connection) -> dict[int, Checkpoint]:
    """Return how far each book has been verified; nothing for books that never were."""
    return {row["book"]: Checkpoint(*row) for row in await conn.fetch(READ_CHECKPOINTS)}


async def record_checkpoints(
    conn: asyncpg.Connection, reports: Sequence[BookReport], verified_at: datetime, *, full: bool
) -> None:
    """Note that all books are sound up to where ``reports`` followed them, over a connection with the owner's rights.

    With ``full`` they were followed from their first entries on.

    Raises:
        ValueError: if a report has a problem; a checkpoint behind it would hide it from the next run.
    """
    if any(report.problem is not None for report in reports):
        raise ValueError("books with a problem get no checkpoint")
    await conn.execute(
        WRITE_CHECKPOINTS,
        [report.book for report in reports],
        [report.entries for report in reports],
        [report.hash for report in reports],
        verified_at,
        full,
    )


async def checkpoint_problems(conn: asyncpg.Connection, count: int) -> list[Problem]:
    """Return checkpoints that do not fit the books: entries verified earlier that were replaced or are gone."""
    checkpoints = await read_checkpoints(conn)
    found = [problem for checkpoint in checkpoints.values() if (problem := checkpoint.problem) is not None]
    if checkpoints and set(checkpoints) != set(range(count)):
        missing = min(set(range(count)) ^ set(checkpoints))
        found.append(Problem(missing, 0, "ledger.verified has rows for other books than this ledger has"))
    return found
