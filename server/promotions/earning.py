"""Earning: accruals of each line on the money paid for it, then points once a receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import lcm

from server.promotions.arithmetic import MOST_POINTS_MINOR, counted_units, spread_largest_remainder
from server.promotions.compile import are_contested
from server.promotions.facts import AccrualRow, ReceiptLine
from server.promotions.formulas import (
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
from server.promotions.kinds import Measure, Rounding, RoundingPer
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
    per_receipt = work.rules.programme.earning.rounding_per is RoundingPer.RECEIPT
    chosen: list[Iterable[PointsFormula]] = []
    ready: dict[tuple[int, int], _ReadyPoints] = {}  # by ids of what many lines share
    lines = work.earning_lines()
    for i, (line, candidates, base) in enumerate(zip(lines, work.candidates, bases, strict=True)):
        if base <= 0 or (is_plain and not candidates.points_rules):
            chosen.append(())
            continue
        formulas = candidates.points_formulas
        if formulas is not None and is_plain:
            chosen.append(formulas)
            continue
        mine = extra[i] if extra is not None else NO_RULES
        key = id(candidates), id(mine)
        found = ready.get(key)
        if found is None:
            found = ready[key] = _ready_points(work, i, mine)
        chosen.append(found.formulas(work, base, line, is_exact=per_receipt))
    if per_receipt:
        accruals = _points_per_receipt(work, chosen, bases)
    else:
        accruals = [stack_points(*found) for found in zip(chosen, bases, lines, strict=True)]
    if any(found.is_metered for found in ready.values()):
        _cut_to_limits(work, accruals)
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

    def formulas(self, work: Work, base_minor: int, line: ReceiptLine, *, is_exact: bool) -> Sequence[PointsFormula]:
        """What they grant on a line; of rivals, what is most by points, exact or as rounded."""
        if self._is_contested:
            return _best_formulas(work, self._rules, lambda found: _worth(found, base_minor, line, is_exact=is_exact))
        return self._formulas


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


def _cut_to_limits(work: Work, accruals: Sequence[list[AccrualRow]]) -> None:
    """Cut the points of each promotion to what its limits leave: as a whole, and spread as the points are."""
    places: dict[str, list[tuple[int, int]]] = {}
    for i, line in enumerate(accruals):
        for n, row in enumerate(line):
            places.setdefault(row[0], []).append((i, n))
    rank_of = work.rules.rank_of
    for promotion_id in sorted(places.keys() & rank_of.keys(), key=lambda one: rank_of[one]):
        owner = work.rules.compiled(rank_of[promotion_id], work.live.partner)
        points = [accruals[i][n][2] for i, n in places[promotion_id]]
        granted = _granted(work, owner, sum(points))
        if granted == sum(points):
            continue
        parts = spread_largest_remainder(granted, points, points)
        for (i, n), part in zip(places[promotion_id], parts, strict=True):
            row = accruals[i][n]
            accruals[i][n] = (*row[:2], part, *row[3:])
    for i, line in enumerate(accruals):
        if not all(row[2] for row in line):
            accruals[i][:] = [row for row in line if row[2]]


def _points_per_receipt(
    work: Work, chosen: Sequence[Iterable[PointsFormula]], bases: Sequence[int]
) -> list[list[AccrualRow]]:
    """The accruals of all lines, those by money rounded once for each promotion and spread by largest remainder."""
    shares: dict[str, list[Fraction]] = {}
    for i, formulas in enumerate(chosen):
        for promotion_id, measure, numerator, _, denominator, _, _ in formulas:
            if measure == MONEY_PAID:
                of_all = shares.setdefault(promotion_id, [Fraction(0)] * len(bases))
                of_all[i] = Fraction(bases[i] * numerator, denominator)
    rounding = work.rules.programme.earning.rounding
    parts = {promotion_id: _spread_exactly(of_all, rounding) for promotion_id, of_all in shares.items()}
    accruals: list[list[AccrualRow]] = []
    for i, (formulas, base, line) in enumerate(zip(chosen, bases, work.earning_lines(), strict=True)):
        rows: list[AccrualRow] = []
        for formula in formulas:
            promotion_id, measure, _, _, _, unit, partner = formula
            points = parts[promotion_id][i] if measure == MONEY_PAID else points_on(formula, base, line)
            if points:
                rows.append((promotion_id, base, points, unit, partner))
        accruals.append(rows)
    return accruals


def _spread_exactly(shares: Sequence[Fraction], rounding: Rounding) -> list[int]:
    """The sum of exact shares, rounded once and spread in proportion to them."""
    numerator, addend, denominator = rate_terms(sum(shares, Fraction(0)), rounding)
    common = lcm(*(share.denominator for share in shares))
    return spread_largest_remainder((numerator + addend) // denominator, [int(share * common) for share in shares])


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
            points = numerator * min(counted_units(line.quantity_milli, line.is_weighed), base_minor)
        else:
            points = base_minor // denominator * numerator
        if points:
            accruals.append((promotion_id, base_minor, points, unit, partner))
    return accruals


def points_on(formula: PointsFormula, base_minor: int, line: ReceiptLine) -> int:
    """What one promotion grants on a line, rounded by itself."""
    return sum(row[2] for row in stack_points([formula], base_minor, line))


def _worth(formulas: Iterable[PointsFormula], base_minor: int, line: ReceiptLine, *, is_exact: bool) -> Fraction:
    """What promotions grant on a line in all, each rounded by itself or not at all."""
    return sum(
        (
            Fraction(base_minor * formula[2], formula[4])
            if is_exact and formula[1] == MONEY_PAID
            else Fraction(points_on(formula, base_minor, line))
            for formula in formulas
        ),
        Fraction(0),
    )


def _best_formulas(
    work: Work, rules: Sequence[PointsRule], worth: Callable[[Sequence[PointsFormula]], Fraction]
) -> Sequence[PointsFormula]:
    """The stack of promotions that is worth most on a line."""
    best: Sequence[PointsFormula] = ()
    best_worth = Fraction(0)
    base = work.rules.base(work.live.partner)
    for stack in alternatives(rules):
        decided: set[str] = set()
        kept = [resolve_group(rule, stack, decided, lambda one: worth([one.formula])) for rule in stack]
        formulas = _compounded(base, [rule for rule in kept if rule is not None])
        found = worth(formulas)
        if found > best_worth:
            best, best_worth = formulas, found
    return best


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
        granted = _granted(work, rule.owner, points[rule.rank])
        parts = spread_largest_remainder(granted, [bases[i] for i in scope])
        for i, part in zip(scope, parts, strict=True):
            if part:
                accruals[i].append((rule.promotion_id, bases[i], part, rule.unit, rule.partner))


def _granted(work: Work, owner: CompiledPromotion, points: int) -> int:
    """What limits leave of points, booked."""
    if not owner.limits or not points:
        return points
    if not _may_count(work, owner):
        return 0
    granted = work.meter.grant(owner.id, owner.limits, Measure.POINTS, points)
    if granted > 0:
        work.meter.use_once(owner.id, owner.limits, granted)
    return max(0, granted)
