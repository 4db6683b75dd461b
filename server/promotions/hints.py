"""Near misses: promotions that a little more money or another unit would bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from server.promotions.conditions import check, count_goods, towards
from server.promotions.dealing import line_units, set_fits
from server.promotions.formulas import CompiledPromotion
from server.promotions.kinds import Measure
from server.promotions.messages import Missing, is_near, missing_for_condition, missing_for_deal, missing_for_steps
from server.promotions.model import Gift, PointsSteps, SetDeal, UnitDeal
from server.promotions.work import BASKET, EARNING, LINES, RIGHTS, RIGHTS_BASKET, Step, Work


def step_of(owner: CompiledPromotion) -> str:
    """The step of a promotion's main effect, for which a near miss is looked at."""
    if owner.line or owner.deal:
        return RIGHTS if owner.is_right else LINES
    if owner.basket:
        return RIGHTS_BASKET if owner.is_right else BASKET
    return EARNING


def near_misses(work: Work, owners: Iterable[CompiledPromotion]) -> Iterator[tuple[CompiledPromotion, Missing]]:
    """Promotions whose near miss is to be told, with what is missing."""
    for owner in owners:
        near_miss = owner.near_miss
        step = work.step(step_of(owner))
        if near_miss is None or step.is_withheld(owner) or _is_used_up(work, owner):
            continue
        missing = _missing_for_more(work, owner, step) if step.satisfies(owner) else _missing(owner, step)
        if missing is not None and is_near(near_miss, missing):
            yield owner, missing


def _is_used_up(work: Work, owner: CompiledPromotion) -> bool:
    if not owner.limits:
        return False
    left = work.meter.left(owner.limits, Measure.COUNT)
    return left is not None and left < 1


def _missing(owner: CompiledPromotion, step: Step) -> Missing | None:
    """What is missing for the condition."""
    moment = step.moment_for(owner)
    return missing_for_condition(
        owner.condition,
        lambda part: check(part, moment, owner.id, lambda: step.positions(owner)),
        lambda leaf: towards(leaf, moment, lambda: step.positions(owner)),
    )


def _missing_for_more(work: Work, owner: CompiledPromotion, step: Step) -> Missing | None:
    """What is missing for one more deal, or for the next step."""
    amounts = step.moment.amounts
    if owner.deal is not None:
        deal = owner.deal.deal
        goods = line_units(work, work.discountable(owner), amounts)
        if isinstance(deal, SetDeal):
            return missing_for_deal(deal, goods, set_fits(work, deal))
        gifts = line_units(work, work.givable(owner), amounts)
        return missing_for_deal(deal, goods, gifts=gifts) if isinstance(deal, UnitDeal | Gift) else None
    positions = step.positions(owner)
    if owner.basket is not None and owner.basket.steps is not None:
        steps = owner.basket.steps
        lines = [work.lines[i] for i in positions]
        return missing_for_steps(steps, count_goods(steps.what, lines, [amounts[i] for i in positions]))
    points = owner.promotion.points
    if points is not None and isinstance(points.kind, PointsSteps):
        paid = sum(amounts[i] for i in positions)
        ahead = [one.at_least_minor for one in points.kind.steps if one.at_least_minor > paid]
        return Missing(amount_minor=min(ahead) - paid) if ahead else None
    return None
