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
                kinds[promotion_id] = unit, partner
    lots: dict[tuple[LotDates, str, str], tuple[list[int], list[str]]] = {}
    by_terms: dict[tuple[str, str, str], tuple[list[int], list[str]]] = {}  # dates take long to hash
    for promotion_id, kind in kinds.items():
        terms = (promotion_id if promotion_id in rules.terms else "", *kind)
        lot = by_terms.get(terms)
        if lot is None:
            dates = rules.lot_dates(on, promotion_id)
            lot = by_terms[terms] = lots.setdefault((dates, *kind), ([], []))
        lot[0].append(points[promotion_id])
        lot[1].append(promotion_id)
    return tuple(
        [
            LotGrant(sum(amounts), dates.active_from, dates.expires_on, tuple(sources), unit, partner)
            for (dates, unit, partner), (amounts, sources) in lots.items()
        ]
    )
