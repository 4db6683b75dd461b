"""Which goods a promotion's uses and gifts rest on: what a return of some of them needs to take its part back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from server.promotions.arithmetic import spread_largest_remainder
from server.promotions.conditions import count_goods
from server.promotions.criteria import AllOf, BasketCount, Condition, ReceiptTotal, ScopeTotal
from server.promotions.facts import Given, GivenLine, LeastGoods, LineEffects
from server.promotions.formulas import CompiledPromotion
from server.promotions.limits import Used
from server.promotions.work import EARNING, Work

_ADDING_UP = ("amount", "quantity", "weight")
"""What goods come to line by line; categories do not add up."""


class Gift(NamedTuple):
    """What one promotion gave for goods together: what was paid for them and their tier points, by place."""

    owner: CompiledPromotion
    bases: Mapping[int, int]
    tier_points: Mapping[int, int]


def given(work: Work, lines: Sequence[LineEffects], gifts: Sequence[Gift]) -> tuple[Given, ...]:
    """Say for each promotion that used a limit or gave something which goods that rests on."""
    used = {uses.promotion_id: uses for uses in work.meter.used()} if work.is_metered else {}
    by_gift = {gift.owner.id: gift for gift in gifts}
    return tuple(
        _given_by_promotion(work, promotion_id, lines, used.get(promotion_id), by_gift.get(promotion_id))
        for promotion_id in dict.fromkeys((*used, *by_gift))
    )


def _given_by_promotion(
    work: Work, promotion_id: str, lines: Sequence[LineEffects], used: Used | None, gift: Gift | None
) -> Given:
    points = _points_by_line(promotion_id, lines, used.points) if used is not None else {}
    money = _money_by_line(work, promotion_id) if used is not None else {}
    units = {i: uses for (i, user), uses in work.units_used.items() if user == promotion_id} if used is not None else {}
    bases, tier_points = (gift.bases, gift.tier_points) if gift is not None else ({}, {})
    places = sorted({*units, *money, *points, *bases, *tier_points})
    found = Given(
        promotion_id,
        () if used is None else used.owners,
        tuple(
            GivenLine(
                work.lines[i].line_number,
                units.get(i, 0),
                money.get(i, 0),
                points.get(i, 0),
                tier_points.get(i, 0),
                bases.get(i, 0),
            )
            for i in places
        ),
        once=0 if used is None else used.once,
    )
    if gift is None:
        return found
    owner = gift.owner
    least = tuple(_least(work, owner, owner.condition))
    return found._replace(least=least, effects=owner.further)


def _money_by_line(work: Work, promotion_id: str) -> dict[int, int]:
    """What a promotion took off the lines on which the register charged what it gives."""
    taken = {i: sum(row[1] for row in rows if row[0] == promotion_id) for i, rows in enumerate(work.discounts)}
    return {i: money for i, money in taken.items() if money}


def _points_by_line(promotion_id: str, lines: Sequence[LineEffects], points: int) -> dict[int, int]:
    """Spread what a limit counted of a promotion's points over the lines that earned them."""
    earned = [sum(row[2] for row in line[6] if row[0] == promotion_id) for line in lines]
    if not points or not any(earned):
        return {}
    return {i: part for i, part in enumerate(spread_largest_remainder(points, earned)) if earned[i]}


def _least(work: Work, owner: CompiledPromotion, condition: Condition | None) -> Iterator[LeastGoods]:
    """What goods must come to at least, as far as every way to hold the condition asks for it."""
    step = work.step(EARNING)
    amounts = step.moment.amounts
    match condition:
        case AllOf(parts):
            for part in parts:
                yield from _least(work, owner, part)
        case ReceiptTotal(at_least_minor=int(at_least)):
            yield _least_goods(work, at_least, dict(enumerate(amounts)))
        case ScopeTotal(at_least_minor=int(at_least)):
            yield _least_goods(work, at_least, {i: amounts[i] for i in step.positions(owner)})
        case BasketCount(what, goods, int(at_least)) if what in _ADDING_UP:
            places = step.positions(owner) if goods is None else work.facts.selected(goods)
            counted = {i: count_goods(what, [work.lines[i]], [amounts[i]]) for i in places}
            yield _least_goods(work, at_least, counted)


def _least_goods(work: Work, at_least: int, amounts: Mapping[int, int]) -> LeastGoods:
    return LeastGoods(at_least, tuple((work.lines[i].line_number, amounts[i]) for i in sorted(amounts)))
