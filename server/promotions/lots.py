"""From accruals to lots: points of a receipt that share dates, unit and partner are one lot for the ledger."""

from __future__ import annotations

from datetime import date

from server.promotions.compile import Rules
from server.promotions.facts import Effects, LotDates, LotGrant


def lot_terms(rules: Rules, on: date, promotion_id: str | None = None) -> LotDates:
    """Dates of a lot granted on a store-local day, by the promotion's own terms or the programme's."""
    return rules.lot_dates(on, promotion_id or "")


def lots_to_grant(rules: Rules, effects: Effects, on: date) -> tuple[LotGrant, ...]:
    """The accruals of a receipt gathered into lots of equal dates, unit and partner, ordered by first appearance."""
    points: dict[str, int] = {}
    kinds: dict[str, tuple[str, str]] = {}  # a promotion grants points of one unit, at the expense of one partner
    for _, _, _, _, _, _, accruals in effects.lines:
        for promotion_id, _, points_minor, unit, partner in accruals:
            if promotion_id in points:
                points[promotion_id] += points_minor
            else:
                points[promotion_id] = points_minor
                if unit or partner:
                    kinds[promotion_id] = unit, partner
    if points and not kinds and rules.terms.keys().isdisjoint(points):
        dates = rules.lot_dates(on, "")
        return (LotGrant(sum(points.values()), dates.active_from, dates.expires_on, tuple(points)),)
    lots: dict[tuple[LotDates, str, str], list[str]] = {}
    for promotion_id in points:
        unit, partner = kinds.get(promotion_id, ("", ""))
        lots.setdefault((rules.lot_dates(on, promotion_id), unit, partner), []).append(promotion_id)
    return tuple(
        LotGrant(sum(points[one] for one in sources), *dates, tuple(sources), unit, partner)
        for (dates, unit, partner), sources in lots.items()
    )
