"""What line discounts take off goods: one after the other, within limits, the best of rivals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from server.promotions.arithmetic import spread_largest_remainder
from server.promotions.compile import are_contested
from server.promotions.facts import DiscountRow
from server.promotions.formulas import LIST_PRICE, PRICE_LEFT, CompiledPromotion, LineFormula, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.parts import Part
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


def wanted_minor(rule: LineRule, part: Part) -> int:
    """What a line discount takes off a part, its lowest price not looked at."""
    _, measure, numerator, addend, denominator, is_price = rule.formula
    left = part.left_minor
    price = left if measure == PRICE_LEFT else part.list_minor if measure == LIST_PRICE else part.quantity_milli
    amount = (price * numerator + addend) // denominator
    return max(0, left - amount) if is_price else amount


# --- limits -----------------------------------------------------------------------------------------------


def apply_rule(rule: LineRule, part: Part, meter: Meter | None) -> list[Part]:
    """Apply a line discount to a part as if it were all there is; a limit of units that runs out cuts it in two."""
    owner = rule.owner
    wanted = wanted_minor(rule, part)
    if meter is None or not owner.limits:
        return [part.reduced(rule.place, owner.id, wanted, min(wanted, part.room_minor), claims=rule.exclusive)]
    if not min(wanted, part.room_minor):
        return [part.reduced(rule.place, owner.id, wanted, 0)]
    units = meter.grant(owner.id, owner.limits, Measure.COUNT, part.begun_units)
    if units <= 0:
        return [part]
    limited, rest = part.front(units)
    wanted = wanted_minor(rule, limited)
    kept = min(meter.grant(owner.id, owner.limits, Measure.MONEY, wanted), limited.room_minor)
    if kept:
        meter.use(owner.id, owner.limits, times=limited.begun_units, money_minor=kept)
        limited = limited.reduced(rule.place, owner.id, wanted, kept, limited.begun_units, claims=rule.exclusive)
    return [limited] if rest is None else [limited, rest]


def apply_limited(owner: CompiledPromotion, found: Sequence[tuple[LineRule, Part]], meter: Meter) -> list[list[Part]]:
    """Apply a limited promotion to parts; what becomes of each.

    Units are granted to the first parts. Money is cut as a whole and then spread as the discount would be.
    """
    takers = [min(wanted_minor(rule, part), part.room_minor) > 0 for rule, part in found]
    units = sum(part.begun_units for (_, part), takes in zip(found, takers, strict=True) if takes)
    left = meter.grant(owner.id, owner.limits, Measure.COUNT, units) if units else 0
    cut: list[list[Part]] = []
    wanted: list[int] = []
    for (rule, part), takes in zip(found, takers, strict=True):
        if not takes or left <= 0:
            cut.append([part])
            wanted.append(0)
            continue
        limited, rest = part.front(left)
        left -= limited.begun_units
        cut.append([limited] if rest is None else [limited, rest])
        wanted.append(wanted_minor(rule, limited))
    shares = cut_money(owner, wanted, meter)
    for (rule, _), takes, parts, share in zip(found, takers, cut, shares, strict=True):
        limited = parts[0]
        kept = min(share, limited.room_minor)
        if kept:
            meter.use(owner.id, owner.limits, times=limited.begun_units, money_minor=kept)
        wished = share if takes else wanted_minor(rule, limited)
        parts[0] = limited.reduced(rule.place, owner.id, wished, kept, limited.begun_units, claims=rule.exclusive)
    return cut


def cut_money(owner: CompiledPromotion, wanted: Sequence[int], meter: Meter | None) -> Sequence[int]:
    """The parts of a discount as far as limits of money permit: cut as a whole, then spread in proportion."""
    if meter is None or not owner.limits:
        return wanted
    whole = sum(wanted)
    granted = meter.grant(owner.id, owner.limits, Measure.MONEY, whole) if whole else 0
    return wanted if granted == whole else spread_largest_remainder(granted, wanted, wanted)


# --- rivals -----------------------------------------------------------------------------------------------


def shares_of(rules: Sequence[LineRule], part: Part, meter: Meter | None) -> Iterator[tuple[Part, Sequence[LineRule]]]:
    """A part, cut where limits run out, each piece with the stack that is best for it.

    The meter is used for what was chosen, so that the next part knows what is left.
    """
    is_contested = are_contested(rules)
    if meter is None:
        yield part, choose_stack(rules, part, None)[0] if is_contested else rules
        return
    rest: Part | None = part
    while rest is not None:
        head, stack, others = rest, rules, None
        if is_contested:
            head, _ = rest.front(_alike_units(rules, rest, meter))
            stack, _ = choose_stack(rules, head, meter)
            head, others = rest.front(_alike_units(stack, rest, meter))
        before = _lefts(stack, meter)
        stack_rules(stack, head, meter)
        if before == _lefts(stack, meter):
            head, others = rest, None  # nothing ran out, so the others would choose the same
        yield head, stack
        rest = others


def _alike_units(rules: Iterable[LineRule], part: Part, meter: Meter) -> int:
    """How many units of a part the limits of these rules treat alike."""
    return min([left for left in _lefts(rules, meter) if left > 0], default=part.begun_units)


def _lefts(rules: Iterable[LineRule], meter: Meter) -> list[int]:
    found = [meter.left(rule.owner.limits, Measure.COUNT) for rule in rules if rule.owner.limits]
    return [left for left in found if left is not None]


def stack_rules(rules: Iterable[LineRule], part: Part, meter: Meter | None) -> int:
    """Apply line discounts one after the other, and book what they use; returns what is left."""
    parts = [part]
    for rule in rules:
        parts = [done for one in parts for done in apply_rule(rule, one, meter)]
    return sum(one.left_minor for one in parts)


def choose_stack(rules: Sequence[LineRule], part: Part, meter: Meter | None) -> tuple[Sequence[LineRule], bool]:
    """The stack that takes most off a part, groups reduced to their winners; and whether it is an exclusive one."""
    best: Sequence[LineRule] = ()
    best_left: int | None = None
    for stack in alternatives(rules):
        kept = _without_rivals(stack, part, meter)
        left = stack_rules(kept, part, meter.fork() if meter else None)
        if best_left is None or left < best_left:
            best, best_left = kept, left
    return best, any(rule.exclusive for rule in best)


def _without_rivals(stack: Sequence[LineRule], part: Part, meter: Meter | None) -> list[LineRule]:
    """The stack with each group reduced to its winner, at the place of the group's first member."""
    kept: list[LineRule] = []
    decided: set[str] = set()

    def gain(rival: LineRule) -> int:
        return -stack_rules([*kept, rival], part, meter.fork() if meter else None)

    for rule in stack:
        winner = resolve_group(rule, stack, decided, gain)
        if winner is not None:
            kept.append(winner)
    return kept
