"""Doing a batch of rows together, so that one that nobody foresaw to fail does not touch the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from server.base.database import CONNECTION_LOST
from server.base.errors import Refused
from server.edge.status import refused_of

R = TypeVar("R")
A = TypeVar("A")


class Part(NamedTuple, Generic[A]):
    """Rows of a batch that were done together: where they begin, and what became of them.

    A refusal stands for one row, with the id of an incident.
    """

    first: int
    outcome: A | Refused


async def do_in_parts(
    rows: Sequence[R], work: Callable[[Sequence[R]], Awaitable[A]], method: str, first: int = 0
) -> list[Part[A]]:
    """Do all rows in one part; if that fails unexpectedly, in halves, until the guilty row stands alone.

    ``work`` changes all of its rows or none. Errors are logged under ``method``; ``first`` is the first row's place.

    Raises:
        Refused: what ``work`` refuses; LEDGER_UNAVAILABLE, after which some parts may be done.
    """
    try:
        return [Part(first, await work(rows))]
    except (Refused, *CONNECTION_LOST):
        raise
    except Exception as error:  # noqa: BLE001 - the row is refused with the incident's id, and the others go on
        if len(rows) <= 1:
            return [Part(first, refused_of(error, method))]
    half = len(rows) // 2
    before = await do_in_parts(rows[:half], work, method, first)
    return before + await do_in_parts(rows[half:], work, method, first + half)
