"""What all corrections share: point units, reason codes, and the calendar of what happens outside of stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2 as api

from ledger.entry.model import Unit
from ledger.reading.books import read_units
from server.base.errors import Refused
from server.rules.book import RulesBook

if TYPE_CHECKING:
    from server.base.database import Connection

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
