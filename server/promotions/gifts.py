"""A gift never counts towards the threshold that gives it: what a promotion gives, and the receipt without that.

Gifts are what the `gift` of a promotion gives, and goods of its scope that its discount makes free. What has to be
reached (`at_least`) is measured without them, what must not be reached (`below`) with them; `not` swaps the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.promotions.arithmetic import UNIT_MILLI
from server.promotions.conditions import Moment, bounds, check
from server.promotions.criteria import AllOf, AnyOf, BasketCount, Condition, NotThat, ReceiptTotal, ScopeTotal
from server.promotions.deals import LineUnits, gift_units, most_gift_units, unit_prices
from server.promotions.model import FixedPrice, Gift, PercentOff, PriceList, Promotion
from server.promotions.parts import part_of


class Reach(NamedTuple):
    """A moment as the threshold of a promotion sees it, and how many units may be given there (None: any number)."""

    moment: Moment
    units: int | None


def gives_for_threshold(promotion: Promotion) -> bool:
    """Whether a promotion gives goods to whoever reaches a threshold of goods."""
    if not (isinstance(promotion.deal, Gift) or _makes_free(promotion)):
        return False
    return _has_threshold(promotion.when)


def _has_threshold(condition: Condition | None, *, negated: bool = False) -> bool:
    """Whether goods have to reach something; what they must not stay below has to be reached too."""
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return any(_has_threshold(part, negated=negated) for part in parts)
        case NotThat(part):
            return _has_threshold(part, negated=not negated)
        case ReceiptTotal() | ScopeTotal() | BasketCount():
            limits = bounds(condition)
            return limits is not None and (limits.below if negated else limits.at_least) is not None
    return False


def _makes_free(promotion: Promotion, sku: str | None = None) -> bool:
    """Whether a discount gives goods of its scope away (this article of it); on all goods, it is one like others."""
    effect = promotion.line_discount or promotion.basket_discount
    if effect is None:
        return False
    kind = effect.kind
    if isinstance(kind, PriceList):
        prices = kind.unit_prices_minor
        return 0 in prices.values() if sku is None else prices.get(sku) == 0
    is_free = kind == FixedPrice(0) or (isinstance(kind, PercentOff) and kind.share == 1)
    return is_free and promotion.scope is not None


def reach(
    promotion: Promotion, moment: Moment, scope: Sequence[int], gifts: Sequence[int], most_units: int | None
) -> Reach:
    """The moment without what the promotion gives: as many gifts as still leave the threshold reached.

    `scope` are the lines in scope, `gifts` those that a gift may be taken from. `most_units` is what limits leave of a
    line discount.
    """
    bought = _units(moment, scope)
    deal = promotion.deal
    if isinstance(deal, Gift):
        runs = gift_units(deal, _units(moment, gifts))
        most = most_gift_units(deal, _units(moment, gifts), bought)
    else:
        lines = moment.facts.lines
        runs = [run for run in unit_prices(bought) if _makes_free(promotion, lines[run[0]].sku)]
        most = sum(units for _, _, units in runs)
        if promotion.line_discount is not None and most_units is not None:
            most = min(most, max(0, most_units))
    if not most:
        return Reach(moment, None)

    def without(units: int) -> Moment:
        return moment._replace(towards=_moment_without(moment, runs, units))

    def is_reached(units: int) -> bool:
        condition = promotion.when
        return condition is None or check(condition, without(units), promotion.id, lambda: scope)

    if is_reached(most) or not isinstance(deal, Gift):
        return Reach(without(most), most)
    low, high = 0, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_reached(middle) else (low, middle - 1)
    return Reach(without(max(low, 1)), low)


def _units(moment: Moment, positions: Sequence[int]) -> list[LineUnits]:
    lines, amounts = moment.facts.lines, moment.amounts
    parts = [part_of(i, lines[i], amounts[i]) for i in positions]
    return [LineUnits(part.at, part.units_minor, part.units) for part in parts if part.units]


def _moment_without(moment: Moment, runs: Sequence[tuple[int, int, int]], units: int) -> Moment:
    """The moment without the first so many units of the runs."""
    lines, amounts = list(moment.facts.lines), list(moment.amounts)
    for i, price, count in runs:
        given = min(count, units)
        units -= given
        amounts[i] -= given * price
        milli = lines[i].quantity_milli if lines[i].is_weighed and given else given * UNIT_MILLI
        lines[i] = lines[i]._replace(quantity_milli=lines[i].quantity_milli - milli)
    return moment._replace(amounts=amounts, total_minor=sum(amounts), lines=lines)
