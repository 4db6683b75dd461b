"""Earning: accruals of each line on the money paid for it, then points once a receipt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from server.promotions.arithmetic import MOST_POINTS_MINOR, counted_units, spread_largest_remainder
from server.promotions.compile import are_contested
from server.promotions.facts import AccrualRow, ReceiptLine
from server.promotions.formulas import (
    BASE_RANK,
    MONEY_PAID,
    ONCE,
    UNITS,
    CompiledPromotion,
    EarningBase,
    PointsFormula,
    PointsRule,
    ReceiptPointsRule,
    rate_terms,
)
from server.promotions.kinds import Measure
from server.promotions.stacking import alternatives, resolve_group
from server.promotions.work import EARNING, Work

NO_RULES: list[PointsRule] = []


def earning_bases(work: Work, points_money: Sequence[int]) -> Sequence[int]:
    """The money that each line earns on, in minor units."""
    if points_money and not work.rules.programme.earning.earn_on_points_paid:
        return [left - paid for left, paid in zip(work.left, points_money, strict=True)]
    return work.left


def earn(work: Work, bases: Sequence[int]) -> list[list[AccrualRow]]:
    """Step 5: the accruals of each line."""
    work.begin(EARNING)
    if work.member is not None and not work.member.can_earn:
        return [[] for _ in work.lines]
    more = [one for one in work.gated if one.points and not one.is_indexed]
    more += [one for one in work.rights if one.points and one.needs_right]
    is_plain = not (work.is_in_control or more)
    extra = _extra_rules(work, more) if more else None
    accruals: list[list[AccrualRow]] = []
    ready: dict[tuple[int, int], _ReadyPoints] = {}  # by ids of what many lines share
    for i, (line, candidates, base) in enumerate(zip(work.lines, work.candidates, bases, strict=True)):
        if base <= 0 or (is_plain and not candidates.points_rules):
            accruals.append([])
            continue
        formulas = candidates.points_formulas
        if formulas is not None and is_plain:
            accruals.append(stack_points(formulas, base, line))
            continue
        mine = extra[i] if extra is not None else NO_RULES
        key = id(candidates), id(mine)
        found = ready.get(key)
        if found is None:
            found = ready[key] = _ready_points(work, i, mine)
        accruals.append(found.accruals(work, base, line))
    if any(found.is_metered for found in ready.values()):
        accruals = _cut_to_limits(work, accruals)
    if work.live.has_receipt_points:
        _earn_once(work, bases, accruals)
    return accruals if can_be_kept(accruals) else _cut_to_books(accruals)


class _ReadyPoints:
    """Points rules of a line whose conditions hold."""

    __slots__ = ("_formulas", "_is_contested", "_rules", "is_metered")

    def __init__(self, rules: list[PointsRule]) -> None:
        self._rules = rules
        self._is_contested = are_contested(rules)
        self.is_metered = any(rule.owner.limits for rule in rules)
        self._formulas = [rule.formula for rule in rules]

    def accruals(self, work: Work, base_minor: int, line: ReceiptLine) -> list[AccrualRow]:
        """What they grant on a line."""
        if self._is_contested:
            return _best_points(work, self._rules, base_minor, line)
        return stack_points(self._formulas, base_minor, line)


def _extra_rules(work: Work, more: Sequence[CompiledPromotion]) -> list[list[PointsRule]]:
    """For each line the rules of promotions that its product does not know; one list for lines with the same."""
    chosen = [one for one in more if work.step(EARNING).holds(one) and _may_count(work, one)]
    for_all = [one.points for one in chosen if one.points and one.scopes is None]
    extra = [for_all if not candidates.no_earning else NO_RULES for candidates in work.candidates]
    for one in chosen:
        if one.points and one.scopes is not None:
            for i in work.earning(one):
                extra[i] = [*extra[i], one.points]
    return extra


def _ready_points(work: Work, i: int, extra: Sequence[PointsRule]) -> _ReadyPoints:
    """The rules of the line's product, and further ones, by rank."""
    holds = work.step(EARNING).holds
    rules = [rule for rule in work.candidates[i].points_rules if holds(rule.owner) and _may_count(work, rule.owner)]
    if extra:
        rules = sorted([*rules, *extra], key=lambda rule: rule.rank)
    return _ReadyPoints(rules)


def _may_count(work: Work, owner: CompiledPromotion) -> bool:
    return not owner.limits or work.meter.may_apply_once(owner.id, owner.limits)


def _cut_to_limits(work: Work, accruals: Sequence[Sequence[AccrualRow]]) -> list[list[AccrualRow]]:
    """The accruals as far as the limits of their promotions go: promotion by promotion, in the order of lines."""
    rank_of = work.rules.rank_of
    found = [(rank_of.get(one[0], BASE_RANK), i, one) for i, line in enumerate(accruals) for one in line]
    kept: list[list[AccrualRow]] = [[] for _ in accruals]
    for rank, i, accrual in sorted(found, key=lambda entry: entry[:2]):
        promotion_id, base_minor, points, unit, partner = accrual
        if rank != BASE_RANK:
            points = _granted(work, work.rules.compiled(rank, work.live.partner), points)
        if points:
            kept[i].append((promotion_id, base_minor, points, unit, partner))
    return kept


def can_be_kept(accruals: Iterable[Iterable[AccrualRow]]) -> bool:
    """Whether the books can hold what a receipt gives, whatever its units."""
    return sum([row[2] for line in accruals for row in line]) <= MOST_POINTS_MINOR


def _cut_to_books(accruals: Sequence[Sequence[AccrualRow]]) -> list[list[AccrualRow]]:
    """The accruals as far as the books can hold them, unit by unit, in the order of lines."""
    room: dict[str, int] = {}
    kept: list[list[AccrualRow]] = []
    for line in accruals:
        mine: list[AccrualRow] = []
        for promotion_id, base_minor, points, unit, partner in line:
            left = room.setdefault(unit, MOST_POINTS_MINOR)
            granted = min(points, left)
            room[unit] = left - granted
            if granted:
                mine.append((promotion_id, base_minor, granted, unit, partner))
        kept.append(mine)
    return kept


def stack_points(formulas: Iterable[PointsFormula], base_minor: int, line: ReceiptLine) -> list[AccrualRow]:
    """The accruals of a line, each rounded by itself."""
    accruals: list[AccrualRow] = []
    for promotion_id, measure, numerator, addend, denominator, unit, partner in formulas:
        if measure == MONEY_PAID:
            points = (base_minor * numerator + addend) // denominator
        elif measure == ONCE:
            points = numerator
        elif measure == UNITS:
            points = numerator * counted_units(line.quantity_milli, line.is_weighed)
        else:
            points = base_minor // denominator * numerator
        if points:
            accruals.append((promotion_id, base_minor, points, unit, partner))
    return accruals


def _best_points(work: Work, rules: Sequence[PointsRule], base_minor: int, line: ReceiptLine) -> list[AccrualRow]:
    """The stack of promotions that grants most on a line."""
    best: list[AccrualRow] = []
    best_gain = 0
    base = work.rules.base(work.live.partner)

    def gain_alone(rule: PointsRule) -> int:
        return _total(stack_points([rule.formula], base_minor, line))

    for stack in alternatives(rules):
        decided: set[str] = set()
        kept = [resolve_group(rule, stack, decided, gain_alone) for rule in stack]
        formulas = _compounded(base, [rule for rule in kept if rule is not None])
        accruals = stack_points(formulas, base_minor, line)
        if _total(accruals) > best_gain:
            best, best_gain = accruals, _total(accruals)
    return best


def _total(accruals: Iterable[AccrualRow]) -> int:
    return sum(accrual[2] for accrual in accruals)


def _compounded(base: EarningBase, stack: Sequence[PointsRule]) -> list[PointsFormula]:
    """Give compounding multipliers the rate that those before them have made of the base rate."""
    running = base.rate()
    formulas = []
    for rule in stack:
        promotion_id, measure, numerator, addend, denominator, unit, partner = rule.formula
        if rule.factor is not None:
            extra: Fraction = (rule.factor - 1) * (running if rule.compound else base.rate())
            running += extra
            numerator, addend, denominator = rate_terms(extra, base.rounding)
        formulas.append((promotion_id, measure, numerator, addend, denominator, unit, partner))
    return formulas


# --- once a receipt ---------------------------------------------------------------------------------------


def _earn_once(work: Work, bases: Sequence[int], accruals: list[list[AccrualRow]]) -> None:
    """Points once a receipt, spread over the lines in scope by the money paid for them."""
    found = {one.rank: one.receipt_points for one in (*work.gated, *work.rights) if one.receipt_points}
    for candidates in work.candidates:
        for rule in candidates.receipt_points_rules:
            found[rule.rank] = rule
    if not found:
        return
    step = work.step(EARNING)
    scopes = {rank: work.earning(rule.owner) for rank, rule in found.items()}
    if min(bases, default=0) <= 0:
        scopes = {rank: [i for i in scope if bases[i] > 0] for rank, scope in scopes.items()}
    chosen = [found[rank] for rank in sorted(found) if scopes[rank] and step.holds(found[rank].owner)]
    chosen = [rule for rule in chosen if _may_count(work, rule.owner)]
    points = {rule.rank: rule.grant(sum(bases[i] for i in scopes[rule.rank])) for rule in chosen}
    best: list[ReceiptPointsRule] = []
    best_gain = 0
    for stack in alternatives(chosen):
        decided: set[str] = set()
        kept = [resolve_group(rule, stack, decided, lambda one: points[one.rank]) for rule in stack]
        winners = [rule for rule in kept if rule is not None]
        gain = sum(points[rule.rank] for rule in winners)
        if gain > best_gain:
            best, best_gain = winners, gain
    for rule in best:
        scope = scopes[rule.rank]
        parts = spread_largest_remainder(points[rule.rank], [bases[i] for i in scope])
        for i, part in zip(scope, parts, strict=True):
            kept_points = _granted(work, rule.owner, part)
            if kept_points:
                accruals[i].append((rule.promotion_id, bases[i], kept_points, rule.unit, rule.partner))


def _granted(work: Work, owner: CompiledPromotion, points: int) -> int:
    """What limits leave of points on a line, booked."""
    if not owner.limits or not points:
        return points
    if not _may_count(work, owner):
        return 0
    granted = work.meter.grant(owner.id, owner.limits, Measure.POINTS, points)
    if granted > 0:
        work.meter.use_once(owner.id, owner.limits, granted)
    return max(0, granted)
