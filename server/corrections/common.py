"""What all corrections share: transactions that are tried again, point units, reason codes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

import asyncpg
from tallypoint.v1 import common_pb2 as api

from ledger.books import read_units
from ledger.model import Unit
from server.database import transaction
from server.errors import Refused
from server.rules import RulesBook

if TYPE_CHECKING:
    from server.database import Connection, Pool

ATTEMPTS: Final = 20
"""How often a correction is decided anew because somebody else wrote the same request at the same moment."""

T = TypeVar("T")


class Raced(Exception):
    """Somebody else wrote the same request meanwhile: decide again, with what they wrote."""


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do work in one transaction, again if it met others in the middle of theirs; what it refuses is rolled back.

    Raises:
        Refused: what the work refuses; LEDGER_UNAVAILABLE, after which sending the same request again is safe.
    """
    for _ in range(ATTEMPTS):
        try:
            async with transaction(pool) as conn:
                return await work(conn)
        except (Raced, asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            continue
    raise Refused(
        api.REFUSAL_REASON_OVERLOADED,
        f"others were at the same correction {ATTEMPTS} times in a row; send the request again",
        retry_after_seconds=1.0,
    )


# The time zone of most stores.
READ_CALENDAR: Final = """
SELECT time_zone FROM server.store GROUP BY time_zone ORDER BY count(*) DESC, time_zone LIMIT 1
"""


async def chain_zone(conn: Connection) -> ZoneInfo:
    """Return the calendar of what happens outside of a store: that of most stores, and UTC while there are none."""
    return ZoneInfo(await conn.fetchval(READ_CALENDAR) or "UTC")


async def unit_of(conn: Connection, rules: RulesBook, code: str, now: datetime) -> Unit:
    """Return the point unit with a code, or that of the programme in effect if the code is empty.

    Raises:
        Refused: NOT_FOUND for an unknown unit, NO_PROGRAMME if no programme is in effect.
    """
    if not code:
        in_effect = rules.at(now)
        if in_effect is None:
            raise Refused(
                api.REFUSAL_REASON_NO_PROGRAMME,
                "no programme is in effect, so there is no point unit to take for granted: name one",
                violations=[("unit", "must be given while no programme is in effect")],
            )
        return rules.unit(in_effect)
    units = await read_units(conn)
    if code not in units:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            f"there is no point unit {code!r}; there are: {', '.join(sorted(units)) or 'none'}",
            violations=[("unit", "is not a point unit")],
        )
    return units[code]


def check_reason(code: str, reasons: Sequence[str], setting: str) -> None:
    """Refuse a reason code that the setting of this name does not list: INVALID_REQUEST."""
    if code not in reasons:
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            f"{code!r} is no reason of the setting {setting}: {', '.join(reasons)}",
            violations=[("reason_code", f"must be one of {', '.join(reasons)}")],
        )
