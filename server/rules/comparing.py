"""Whether two versions give different things on a line: money, or points of any unit. Pure."""

from __future__ import annotations

from server.promotions import Effects, LineEffects


def differing_lines(live: Effects, other: Effects, *, earns: bool) -> list[int]:
    """Return the numbers of the lines of one receipt on which two versions differ; without `earns` points don't count.

    Which promotions give it makes no difference.
    """
    pairs = zip(live.lines, other.lines, strict=True)
    return [was.line_number for was, now in pairs if _differ(was, now, earns=earns)]


def _differ(was: LineEffects, now: LineEffects, *, earns: bool) -> bool:
    if was.payable_minor != now.payable_minor:
        return True
    return earns and was.accruals != now.accruals and _points(was) != _points(now)


def _points(line: LineEffects) -> dict[tuple[str, str], int]:
    """Return what a line grants, by unit and by at whose expense."""
    points: dict[tuple[str, str], int] = {}
    for accrual in line.accruals:
        key = (accrual.unit, accrual.partner)
        points[key] = points.get(key, 0) + accrual.points_minor
    return points
