"""What a programme takes from members when it takes the place of another: points, their worth, levels, clubs.

Points lie in balances of their unit, whatever programme is in effect; a programme that does not know the unit makes
them unreachable. Nothing is lost from the books, and publishing the unit again brings the points back: but members
stand at the till without them. So whoever publishes is told how many, and has to name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

from tallypoint.v1 import common_pb2 as api

from ledger.reading.balances import Owned, sum_owned
from ledger.reading.counters import counters_with_any
from server.base.errors import Refused
from server.promotions import Programme
from server.promotions.counter_names import standing_key
from server.promotions.effects.club import club_key
from server.promotions.messages import decimal_text
from server.promotions.model import PointUnit

if TYPE_CHECKING:
    from server.base.database import Connection

TOLERANCE: Final = 10
"""What is named may differ by a tenth from what there is: shops go on selling while somebody reads and types."""


class Stranded(NamedTuple):
    """Points of a unit that members have, in minor units, and why they are out of reach or somebody else's."""

    unit: str
    precision: int
    points_minor: int
    members: int
    reason: str

    def __str__(self) -> str:
        """Return the name by which they are named: `12,345.60 bonus of 1,234 members`."""
        people = f"{self.members:,} member{'' if self.members == 1 else 's'}"
        return f"{grouped(self.points_minor, self.precision)} {self.unit} of {people}"


class Named(NamedTuple):
    """What somebody knows will be stranded."""

    unit: str
    points_minor: int
    members: int


class Losses(NamedTuple):
    """What changes for members: points to be named, and what is said beside them."""

    strands: tuple[Stranded, ...]
    others: tuple[str, ...]


NOTHING: Final = Losses((), ())


def grouped(minor: int, digits: int) -> str:
    """Write minor units in main units: 123456 with 2 digits is 1,234.56."""
    whole, dot, rest = decimal_text(minor, digits).partition(".")
    return f"{int(whole):,}{dot}{rest}"


def check_named(strands: Iterable[Stranded], named: Iterable[Named]) -> None:
    """Refuse what strands points that nobody has named.

    Raises:
        Refused: POINTS_STRANDED, with one violation for each unit.
    """
    missing = not_named(strands, named)
    if missing:
        raise Refused(
            api.REFUSAL_REASON_POINTS_STRANDED,
            f"this strands {' and '.join(map(str, missing))}; if that is meant, name them in `strands` (tallypoint "
            f"rules publish: --strand). Nothing was changed",
            violations=[("strands", f"lacks {one}: {one.reason}") for one in missing],
        )


def not_named(strands: Iterable[Stranded], named: Iterable[Named]) -> list[Stranded]:
    """Return what is stranded and was not named, or with figures that are more than a tenth off."""
    said = {each.unit: each for each in named}
    return [
        one
        for one in strands
        if (known := said.get(one.unit)) is None
        or not (_about_equal(known.points_minor, one.points_minor) and _about_equal(known.members, one.members))
    ]


def _about_equal(named: int, actual: int) -> bool:
    return abs(named - actual) * TOLERANCE <= actual


async def read_losses(conn: Connection, before: Programme, after: Programme, today: date) -> Losses:
    """Return what members lose when one programme takes the place of another; only what differs is looked up.

    Their balances are summed, which takes about a second for some million members, and is left out where both know the
    same units at the same worth.
    """
    stranding, losing = _stranding(before, after), list(_losing_units(before, after))
    units = {point.unit for point, _ in (*stranding, *losing)}
    owned = await sum_owned(conn, units) if units else {}
    strands = [_stranded(point, owned[point.unit], reason) for point, reason in stranding if point.unit in owned]
    others = [
        f"{one}: {one.reason}"
        for one in (_stranded(point, owned[point.unit], reason) for point, reason in losing if point.unit in owned)
    ]
    return Losses(tuple(strands), (*others, *(await _read_standings(conn, before, after, today))))


def _stranded(point: PointUnit, owned: Owned, reason: str) -> Stranded:
    return Stranded(point.unit, point.precision, owned.points_minor, owned.members, reason)


def _points(programme: Programme) -> dict[str, PointUnit]:
    return {point.unit: point for point in (programme.point, *(each.point for each in programme.units))}


def _stranding(before: Programme, after: Programme) -> list[tuple[PointUnit, str]]:
    """Return the point that is stranded with why; its own unit is gone, or the programme is another one."""
    if before.point.unit not in _points(after):
        reason = (
            f"programme {after.code} has the point unit {after.point.unit}, so that they can neither be spent nor seen"
        )
        return [(before.point, reason)]
    if before.code != after.code:
        reason = f"they were earned in programme {before.code}, whose closes cannot be gone on with in {after.code}"
        return [(before.point, reason)]
    return []


def _losing_units(before: Programme, after: Programme) -> Iterator[tuple[PointUnit, str]]:
    """Yield further units that are gone, and units whose points are worth something else."""
    kept = _points(after)
    for point in _points(before).values():
        now = kept.get(point.unit)
        if now is None:
            if point is not before.point:
                yield point, "the further unit is gone, so that they can neither be spent nor seen"
        elif now.money_per_points != point.money_per_points or before.currency != after.currency:
            yield point, f"a point pays {_worth(before, point)} now, and then {_worth(after, now)}"


def _worth(programme: Programme, point: PointUnit) -> str:
    """Say what a point pays, as the file does."""
    money = point.money_per_points * 10**point.precision / 10**programme.currency_digits
    whole = money.numerator if money.denominator == 1 else f"{money.numerator}/{money.denominator}"
    decimal = money * 10**6
    if money.denominator != 1 and decimal.denominator == 1:
        whole = decimal_text(decimal.numerator, 6).rstrip("0")
    return f"{whole} {programme.currency}"


async def _read_standings(conn: Connection, before: Programme, after: Programme, today: date) -> list[str]:
    """Say how many members have a level or are in a club that is gone."""
    gone = {standing_key(level): f"have the level {level}" for level in sorted(_levels(before) - _levels(after))}
    gone |= {club_key(club): f"are in the club {club}" for club in sorted(_clubs(before) - _clubs(after))}
    if not gone:
        return []
    members = dict.fromkeys(gone, 0)
    async with conn.transaction():
        async for counters in counters_with_any(conn, gone):
            for key in gone.keys() & counters.keys():
                until = counters[key].until
                members[key] += until is None or until >= today
    return [f"{count:,} members {gone[key]}, which is gone" for key, count in members.items() if count]


def _levels(programme: Programme) -> set[str]:
    return set() if programme.tiers is None else {level.code for level in programme.tiers.levels}


def _clubs(programme: Programme) -> set[str]:
    """Return the clubs that a programme sells; it can ask for no other."""
    return {one.club.club for one in programme.promotions if one.club is not None}
