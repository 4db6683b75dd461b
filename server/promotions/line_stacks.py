"""What the line discounts of one line take off it: one after the other, within limits, the best of rivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from server.promotions.arithmetic import counted_units, half_up_div
from server.promotions.compile import are_contested
from server.promotions.facts import DiscountRow, ReceiptLine
from server.promotions.formulas import LIST_PRICE, PRICE_LEFT, LineFormula, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.stacking import alternatives, resolve_group

LineOutcome = tuple[list[DiscountRow], int, int]
"""Discounts, price left, and what the price floor cut off, in minor units."""


class ReadyRules(NamedTuple):
    """Line rules whose conditions hold and that no limits cut; `formulas` None: they are rivals."""

    rules: Sequence[LineRule]
    formulas: Sequence[LineFormula] | None


def ready_rules(rules: Sequence[LineRule]) -> ReadyRules:
    """Look once whether they are rivals."""
    return ReadyRules(rules, None if are_contested(rules) else [rule.formula for rule in rules])


def stack_formulas(
    formulas: Iterable[LineFormula], left: int, quantity_milli: int, list_minor: int, floor_minor: int
) -> LineOutcome:
    """Apply line discounts without limits one after the other."""
    room = left - floor_minor if left > floor_minor else 0
    cut = 0
    discounts: list[DiscountRow] = []
    for promotion_id, measure, numerator, addend, denominator, is_price in formulas:
        price = left if measure == PRICE_LEFT else list_minor if measure == LIST_PRICE else quantity_milli
        amount = (price * numerator + addend) // denominator
        if is_price:
            amount = max(0, left - amount)
        if amount > room:
            cut += amount - room
            amount = room
        if amount:
            discounts.append((promotion_id, amount))
            left -= amount
            room -= amount
    return discounts, left, cut


def stack_rules(rules: Iterable[LineRule], i: int, line: ReceiptLine, left: int, meter: Meter | None) -> LineOutcome:
    """The same with limits; what is used is booked in the meter (None: there are no limits)."""
    if meter is None:
        return stack_formulas([rule.formula for rule in rules], left, *line[6:9])
    discounts: list[DiscountRow] = []
    cut = 0
    for rule in rules:
        owner = rule.owner
        if not owner.limits:
            taken, left, more = stack_formulas([rule.formula], left, *line[6:9])
            discounts += taken
            cut += more
            continue
        amount, units = _limited_amount(rule, line, left, meter)
        kept = min(amount, max(0, left - line.floor_amount_minor))
        cut += amount - kept
        if kept:
            meter.use(owner.id, owner.limits, line=i, times=units, money_minor=kept)
            discounts.append((owner.id, kept))
            left -= kept
    return discounts, left, cut


def _limited_amount(rule: LineRule, line: ReceiptLine, left: int, meter: Meter) -> tuple[int, int]:
    """What a line discount takes off the units that its limits leave, and how many these are."""
    owner = rule.owner
    units = counted_units(line.quantity_milli, line.is_weighed)
    granted = meter.grant(owner.id, owner.limits, Measure.COUNT, units)
    if granted <= 0:
        return 0, 0
    _, measure, numerator, addend, denominator, is_price = rule.formula
    price = left if measure == PRICE_LEFT else line.list_amount_minor if measure == LIST_PRICE else line.quantity_milli
    amount = (price * numerator * granted + addend * units) // (denominator * units)
    if is_price:
        amount = max(0, half_up_div(left * granted, units) - amount)
    return meter.grant(owner.id, owner.limits, Measure.MONEY, amount), granted


def choose_stack(
    rules: Sequence[LineRule], i: int, line: ReceiptLine, left: int, meter: Meter | None
) -> tuple[Sequence[LineRule], bool]:
    """The stack that takes most off a line, groups reduced to their winners; and whether it is an exclusive one."""
    best: Sequence[LineRule] = ()
    best_left: int | None = None
    for stack in alternatives(rules):
        kept = _without_rivals(stack, i, line, left, meter)
        outcome = stack_rules(kept, i, line, left, meter.fork() if meter else None)
        if best_left is None or outcome[1] < best_left:
            best, best_left = kept, outcome[1]
    return best, any(rule.exclusive for rule in best)


def _without_rivals(
    stack: Sequence[LineRule], i: int, line: ReceiptLine, left: int, meter: Meter | None
) -> list[LineRule]:
    """The stack with each group reduced to its winner, at the place of the group's first member."""
    kept: list[LineRule] = []
    decided: set[str] = set()

    def gain(rival: LineRule) -> int:
        return -stack_rules([*kept, rival], i, line, left, meter.fork() if meter else None)[1]

    for rule in stack:
        winner = resolve_group(rule, stack, decided, gain)
        if winner is not None:
            kept.append(winner)
    return kept
