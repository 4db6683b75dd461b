"""Pure evaluation of a receipt: line discounts, basket discounts, points as payment, earning, in this order.

Nothing here reads a clock or keeps state: the same rules, receipt and member give the same effects, whatever
the order of the lines. Within a step promotions go by rank (priority, then id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from fractions import Fraction
from operator import itemgetter
from typing import Any, TypeVar

from server.promotions.arithmetic import (
    add_days,
    counted_units,
    expiry_date,
    in_birthday_window,
    spread_largest_remainder,
)
from server.promotions.compile import (
    BASE_RANK,
    LIST_PRICE,
    MONEY_PAID,
    ONCE,
    PRICE_LEFT,
    BasketRule,
    Candidates,
    LineFormula,
    LineRule,
    PointsFormula,
    PointsRule,
    ReceiptPointsRule,
    Rules,
    messages_of,
    rate_terms,
)
from server.promotions.model import (
    AS_CHARGED_ID,
    Accrual,
    AllOf,
    AnyOf,
    BirthdayWindow,
    Condition,
    Discount,
    Effects,
    LineEffects,
    LotDates,
    LotGrant,
    LotTerms,
    MemberFacts,
    NotThat,
    PaidLine,
    ReceiptError,
    ReceiptFacts,
    ReceiptLine,
    ReceiptTotal,
    ScopeTotal,
    Variance,
)

NO_POINTS_PAID: tuple[int, ...] = ()
_by_number = itemgetter(0)
_new = tuple.__new__  # builds a named tuple in half the time of calling its class; used where every line pays


def quote(
    rules: Rules, receipt: ReceiptFacts, member: MemberFacts | None, spend_points_minor: int | None = None
) -> Effects:
    """What would happen at the register; changes nothing.

    `member` None tells what a member would get, promotions that need to know the member left out.
    `spend_points_minor` (None: nothing) is cut to the programme's limit and to whole steps; the balance is
    the caller's to check. Raises ReceiptError for a receipt that makes no sense.
    """
    work = _Work(rules, receipt, member)
    _discount_lines(work)
    _discount_basket(work)
    limits, max_steps = _spending_limits(work)
    spending = rules.programme.spending
    steps = min(max(spend_points_minor or 0, 0) // spending.step_points_minor, max_steps)
    points_money = _spread_payment(work, limits, steps * spending.step_money_minor)
    accruals = _earn(work, points_money)
    return _effects(work, limits, max_steps, points_money, accruals)


def earn_as_paid(rules: Rules, receipt: ReceiptFacts, member: MemberFacts | None, paid: Sequence[PaidLine]) -> Effects:
    """The effects of a receipt as the register charged it; lines missing from `paid` were charged in full.

    Earning is computed on the money really paid. A line that was charged another discount than the rules
    give carries one discount under AS_CHARGED_ID and is listed in `variances`. Equal to `quote` if the
    register applied the quote. Raises ReceiptError if the payment doesn't fit the receipt.
    """
    work = _Work(rules, receipt, member)
    _discount_lines(work)
    _discount_basket(work)
    points_money, variances = _charge(work, paid)
    limits, max_steps = _spending_limits(work)
    accruals = _earn(work, points_money)
    return _effects(work, limits, max_steps, points_money, accruals, variances)


def lot_terms(rules: Rules, on: date, promotion_id: str | None = None) -> LotDates:
    """Dates of a lot granted on a store-local day, by the promotion's own terms or the programme's."""
    terms = rules.terms.get(promotion_id or "", rules.programme.earning.terms)
    active_from = add_days(on, terms.pending_days) if terms.pending_days else None
    return LotDates(active_from, expiry_date(on, terms.expiry))


def lots_to_grant(rules: Rules, effects: Effects, on: date) -> tuple[LotGrant, ...]:
    """The accruals of a receipt gathered into lots with equal dates, ordered by first appearance."""
    points: dict[LotDates, int] = {}
    sources: dict[LotDates, list[str]] = {}
    dates_of: dict[str, LotDates] = {}
    dates_of_terms: dict[LotTerms | None, LotDates] = {}
    for line in effects.lines:
        for promotion_id, _, points_minor in line.accruals:
            dates = dates_of.get(promotion_id)
            if dates is None:
                terms = rules.terms.get(promotion_id)
                if terms not in dates_of_terms:
                    dates_of_terms[terms] = lot_terms(rules, on, promotion_id)
                dates = dates_of[promotion_id] = dates_of_terms[terms]
                points.setdefault(dates, 0)
                sources.setdefault(dates, []).append(promotion_id)
            points[dates] += points_minor
    return tuple(
        LotGrant(amount, dates.active_from, dates.expires_on, tuple(sources[dates])) for dates, amount in points.items()
    )


# --- the state of one evaluation --------------------------------------------------------------------------


class _Work:
    """One evaluation in progress: parallel columns, one entry a line, in the order of line numbers."""

    __slots__ = (
        "candidates",
        "cuts",
        "day",
        "discounts",
        "left",
        "lines",
        "live",
        "locked",
        "member",
        "rules",
    )

    def __init__(self, rules: Rules, receipt: ReceiptFacts, member: MemberFacts | None) -> None:
        if receipt.local_at.tzinfo is None:
            raise ReceiptError("local_at has no time zone; give the store's", "local_at")
        self.rules = rules
        self.member = member
        self.day = receipt.local_at.date()
        self.live = rules.live_on(self.day)
        self.lines = sorted(receipt.lines, key=_by_number)
        memory, find = self.live.memory, self.live.find
        self.candidates: list[Candidates] = []
        previous = None
        for line in self.lines:
            number, _, _, _, _, quantity_milli, list_minor, floor_minor, _ = line
            if number == previous or quantity_milli <= 0 or list_minor < 0 or floor_minor < 0:
                raise _unfit_line(line)
            previous = number
            self.candidates.append(memory.get(line[1:5]) or find(line))
        self.left = [line[6] for line in self.lines]
        self.discounts: list[Sequence[Discount]] = [()] * len(self.lines)
        self.cuts = [0] * len(self.lines)
        self.locked: set[int] = set()


def _unfit_line(line: ReceiptLine) -> ReceiptError:
    for field, value, least in (
        ("quantity_milli", line.quantity_milli, 1),
        ("list_amount_minor", line.list_amount_minor, 0),
        ("floor_amount_minor", line.floor_amount_minor, 0),
    ):
        if value < least:
            text = f"line {line.line_number}: {field} is {value}, must be at least {least}"
            return ReceiptError(text, field, line.line_number)
    text = f"line_number {line.line_number} stands twice on the receipt; number the lines uniquely"
    return ReceiptError(text, "line_number", line.line_number)


# --- conditions -------------------------------------------------------------------------------------------


class _Step:
    """Answers conditions for one step, with the amounts as they were when the step began."""

    __slots__ = ("_answers", "_scope_lines", "amounts", "total_minor", "work")

    def __init__(self, work: _Work, amounts: list[int], scope_lines: Callable[[_AnyRule], Iterable[int]]) -> None:
        self.work = work
        self.amounts = amounts
        self.total_minor = sum(amounts)
        self._scope_lines = scope_lines
        self._answers: dict[int, bool] = {}

    def holds(self, rule: _AnyRule) -> bool:
        """Whether the rule's condition holds; looked up once a receipt."""
        condition = rule.condition
        if condition is None:
            return True
        answer = self._answers.get(rule.rank)
        if answer is None:
            answer = self._answers[rule.rank] = _CHECKS[type(condition)](condition, self, rule)
        return answer

    def scope_total_minor(self, rule: _AnyRule) -> int:
        """What the lines that the rule may work on come to."""
        return sum(self.amounts[i] for i in self._scope_lines(rule))


_AnyRule = LineRule | BasketRule | PointsRule | ReceiptPointsRule
_Check = Callable[[Any, _Step, _AnyRule], bool]
"""Any: the key in the table says which condition the function takes."""


def _within(amount_minor: int, bounds: ReceiptTotal | ScopeTotal) -> bool:
    return (bounds.at_least_minor is None or amount_minor >= bounds.at_least_minor) and (
        bounds.below_minor is None or amount_minor < bounds.below_minor
    )


def _check(condition: Condition, step: _Step, rule: _AnyRule) -> bool:
    return _CHECKS[type(condition)](condition, step, rule)


def _check_receipt_total(condition: ReceiptTotal, step: _Step, rule: _AnyRule) -> bool:
    return _within(step.total_minor, condition)


def _check_scope_total(condition: ScopeTotal, step: _Step, rule: _AnyRule) -> bool:
    return _within(step.scope_total_minor(rule), condition)


def _check_birthday(condition: BirthdayWindow, step: _Step, rule: _AnyRule) -> bool:
    member = step.work.member
    if member is None or member.birthday is None:
        return False
    return in_birthday_window(member.birthday, step.work.day, condition.days_before, condition.days_after)


def _check_all(condition: AllOf, step: _Step, rule: _AnyRule) -> bool:
    return all(_check(part, step, rule) for part in condition.parts)


def _check_any(condition: AnyOf, step: _Step, rule: _AnyRule) -> bool:
    return any(_check(part, step, rule) for part in condition.parts)


def _check_not(condition: NotThat, step: _Step, rule: _AnyRule) -> bool:
    return not _check(condition.part, step, rule)


_CHECKS: dict[type, _Check] = {
    ReceiptTotal: _check_receipt_total,
    ScopeTotal: _check_scope_total,
    BirthdayWindow: _check_birthday,
    AllOf: _check_all,
    AnyOf: _check_any,
    NotThat: _check_not,
}


# --- stacking: groups and exclusivity ---------------------------------------------------------------------

_R = TypeVar("_R", LineRule, BasketRule, PointsRule, ReceiptPointsRule)


def _alternatives(rules: Sequence[_R]) -> list[list[_R]]:
    """The stacks to compare: all that are not exclusive together, and each exclusive one alone.

    Ordered by the rank of their first promotion, so that the first of equals is the right one. The base
    percent is no promotion in this sense: it stays in every stack.
    """
    if not any(rule.exclusive for rule in rules):
        return [list(rules)]
    base = [rule for rule in rules if rule.rank == BASE_RANK]
    promotions = [rule for rule in rules if rule.rank != BASE_RANK]
    shared = [rule for rule in promotions if not rule.exclusive]
    stacks = [shared] if shared else []
    stacks += [[rule] for rule in promotions if rule.exclusive]
    stacks.sort(key=lambda stack: stack[0].rank)
    return [base + stack for stack in stacks] or [base]


def _resolve_group(rule: _R, rules: Sequence[_R], decided: set[str], gain: Callable[[_R], int]) -> _R | None:
    """The member of the rule's group that gives the shopper most; None if the group had its turn."""
    if rule.group is None:
        return rule
    if rule.group in decided:
        return None
    decided.add(rule.group)
    return max((rival for rival in rules if rival.group == rule.group), key=gain)


# --- discounts --------------------------------------------------------------------------------------------


def _discount_lines(work: _Work) -> None:
    """Step 1: every line by itself."""
    step: _Step | None = None
    left, discounts, cuts = work.left, work.discounts, work.cuts
    for i, candidates in enumerate(work.candidates):
        rules = candidates.line_rules
        if not rules:
            continue
        formulas: Iterable[LineFormula] | None = candidates.line_formulas
        if formulas is None:
            if step is None:
                step = _Step(work, list(left), lambda rule: _lines_naming(work, rule))
            chosen = [rule for rule in rules if rule.condition is None or step.holds(rule)]
            if candidates.line_contested:
                discounts[i], left[i], cuts[i] = _best_on_line(work, i, chosen)
                continue
            formulas = [rule.formula for rule in chosen]
        discounts[i], left[i], cuts[i] = _stack_line(formulas, work.lines[i])


def _lines_naming(work: _Work, rule: _AnyRule) -> list[int]:
    return [
        i
        for i, candidates in enumerate(work.candidates)
        if any(rule is other for other in candidates.line_rules)
        or any(rule is other for other in candidates.points_rules)
    ]


_LineOutcome = tuple[list[Discount], int, int]
"""Discounts, price left, and what the price floor cut off, in minor units."""


def _stack_line(formulas: Iterable[LineFormula], line: ReceiptLine) -> _LineOutcome:
    """Apply line discounts one after the other."""
    _, _, _, _, _, quantity_milli, left, floor_minor, _ = line
    list_minor = left
    room = left - floor_minor if left > floor_minor else 0
    cut = 0
    discounts = []
    for promotion_id, measure, numerator, addend, denominator, is_price in formulas:
        price = left if measure == PRICE_LEFT else list_minor if measure == LIST_PRICE else quantity_milli
        amount = (price * numerator + addend) // denominator
        if is_price:
            amount = max(0, left - amount)
        if amount > room:
            cut += amount - room
            amount = room
        if amount:
            discounts.append(_new(Discount, (promotion_id, amount)))
            left -= amount
            room -= amount
    return discounts, left, cut


def _best_on_line(work: _Work, i: int, rules: Sequence[LineRule]) -> _LineOutcome:
    """The stack that takes most off; a line that an exclusive promotion won is locked for later steps."""
    line = work.lines[i]
    best: _LineOutcome = ([], line.list_amount_minor, 0)
    found = best_is_exclusive = False
    for stack in _alternatives(rules):
        outcome = _stack_line(_without_rivals(stack, line), line)
        if not found or outcome[1] < best[1]:
            best, found = outcome, True
            best_is_exclusive = any(rule.exclusive for rule in stack)
    if best_is_exclusive and best[0]:
        work.locked.add(i)
    return best


def _without_rivals(stack: Sequence[LineRule], line: ReceiptLine) -> list[LineFormula]:
    """The stack with each group reduced to its winner, at the place of the group's first member."""
    kept: list[LineFormula] = []
    decided: set[str] = set()

    def gain(rival: LineRule) -> int:
        return -_stack_line([*kept, rival.formula], line)[1]

    for rule in stack:
        winner = _resolve_group(rule, stack, decided, gain)
        if winner is not None:
            kept.append(winner.formula)
    return kept


def _discount_basket(work: _Work) -> None:
    """Step 2: discounts over the basket, spread over its lines."""
    total_minor = sum(work.left)
    rules = _reachable_baskets(work, total_minor)
    if not rules:
        return
    scopes = {rule.rank: _basket_scope(work, rule) for rule in rules}
    step = _Step(work, list(work.left), lambda rule: scopes[rule.rank])
    chosen = [rule for rule in rules if rule.condition is None or step.holds(rule)]
    best: _BasketStack | None = None
    for alternative in _alternatives(chosen):
        stack = _BasketStack(work, scopes)
        stack.apply_all(alternative)
        if best is None or stack.gain_minor > best.gain_minor:
            best = stack
    if best is not None:
        best.settle()


def _reachable_baskets(work: _Work, total_minor: int) -> list[BasketRule]:
    has_birthday = work.member is not None and work.member.birthday is not None
    found = {rule.rank: rule for rule in work.live.baskets.within_reach(total_minor, has_birthday)}
    for candidates in work.candidates:
        for rule in candidates.basket_rules:
            found[rule.rank] = rule
    return [found[rank] for rank in sorted(found)]


def _basket_scope(work: _Work, rule: BasketRule) -> list[int]:
    """Positions of the lines that a basket discount may fall on."""
    scope = [
        i
        for i, candidates in enumerate(work.candidates)
        if (rule in candidates.basket_rules if rule.is_scoped else not candidates.no_discount)
    ]
    if work.locked:
        scope = [i for i in scope if i not in work.locked]
    if rule.exclusive:
        scope = [i for i in scope if not work.discounts[i]]
    return scope


class _BasketStack:
    """One way to stack basket discounts, tried on a copy of the amounts until it is settled."""

    def __init__(self, work: _Work, scopes: dict[int, list[int]]) -> None:
        self._work = work
        self._scopes = scopes
        self._left = list(work.left)
        self._cuts = [0] * len(work.left)
        self._applied: list[tuple[str, list[int], list[int]]] = []
        self.gain_minor = 0

    def apply_all(self, rules: Sequence[BasketRule]) -> None:
        decided: set[str] = set()
        for rule in rules:
            winner = _resolve_group(rule, rules, decided, lambda rival: sum(self._parts(rival)[0]))
            if winner is None:
                continue
            parts, cuts = self._parts(winner)
            scope = self._scopes[winner.rank]
            for i, part, cut in zip(scope, parts, cuts, strict=True):
                self._left[i] -= part
                self._cuts[i] += cut
            self._applied.append((winner.promotion_id, scope, parts))
            self.gain_minor += sum(parts)

    def _parts(self, rule: BasketRule) -> tuple[list[int], list[int]]:
        """The discount of each line in scope, and what its price floor cuts off (moved nowhere else)."""
        lines, scope = self._work.lines, self._scopes[rule.rank]
        weights = [self._left[i] for i in scope]
        payable = sum(weights)
        base = sum(lines[i].list_amount_minor for i in scope) if rule.from_list else payable
        total = min(rule.reduce(base, rule.numerator, rule.denominator), payable)
        wanted = spread_largest_remainder(total, weights)
        parts, cuts = [], []
        for i, weight, part in zip(scope, weights, wanted, strict=True):
            room = weight - lines[i].floor_amount_minor
            kept = part if part <= room else max(0, room)
            parts.append(kept)
            cuts.append(part - kept)
        return parts, cuts

    def settle(self) -> None:
        """Write the outcome into the evaluation."""
        work = self._work
        work.left = self._left
        for i, cut in enumerate(self._cuts):
            work.cuts[i] += cut
        for promotion_id, scope, parts in self._applied:
            for i, part in zip(scope, parts, strict=True):
                if part:
                    work.discounts[i] = [*work.discounts[i], Discount(promotion_id, part)]


# --- points as payment ------------------------------------------------------------------------------------


def _spending_limits(work: _Work) -> tuple[list[int], int]:
    """What points may pay: the most of each line in minor units of money, and of the receipt in steps."""
    spending = work.rules.programme.spending
    respect_floor = spending.respect_price_floor
    limits = []
    payable = 0
    for line, candidates, left in zip(work.lines, work.candidates, work.left, strict=True):
        if candidates.no_spending:
            limits.append(0)
            continue
        payable += left
        limit = left - line[7] if respect_floor else left
        limits.append(max(0, limit))
    if work.member is not None and not work.member.can_spend:
        return limits, 0
    numerator, denominator = work.rules.max_share
    most = min(payable * numerator // denominator, sum(limits))
    if spending.keep_one_minor_unit:
        most = min(most, sum(work.left) - 1)
    return limits, max(most, 0) // spending.step_money_minor


def _spread_payment(work: _Work, limits: list[int], money_minor: int) -> Sequence[int]:
    if not money_minor:
        return NO_POINTS_PAID
    return spread_largest_remainder(money_minor, work.left, limits)


def _charge(work: _Work, paid: Sequence[PaidLine]) -> tuple[Sequence[int], tuple[Variance, ...]]:
    """Replace the computed discounts by the charged ones; returns points money a line, and variances."""
    by_number = {entry.line_number: entry for entry in paid}
    unknown = by_number.keys() - {line.line_number for line in work.lines}
    if unknown or len(by_number) != len(paid):
        numbers = sorted(unknown) or [entry.line_number for entry in paid]
        raise ReceiptError(f"paid lines {numbers}: each has to name a line of the receipt, once", "paid", numbers[0])
    variances = []
    points_money = []
    for i, line in enumerate(work.lines):
        entry = by_number.get(line.line_number) or PaidLine(line.line_number, 0, 0)
        if min(entry.discount_minor, entry.points_money_minor) < 0 or (
            entry.discount_minor + entry.points_money_minor > line.list_amount_minor
        ):
            raise ReceiptError(
                f"line {line.line_number}: discount_minor and points_money_minor must not be negative, nor"
                f" come to more than the list price of {line.list_amount_minor}",
                "paid",
                line.line_number,
            )
        expected = line.list_amount_minor - work.left[i]
        if expected != entry.discount_minor:
            charged = entry.discount_minor
            variances.append(Variance(line.line_number, expected, charged))
            work.discounts[i] = [Discount(AS_CHARGED_ID, charged)] if charged else []
            work.cuts[i] = 0
            work.left[i] = line.list_amount_minor - charged
        points_money.append(entry.points_money_minor)
    return points_money if any(points_money) else NO_POINTS_PAID, tuple(variances)


# --- earning ----------------------------------------------------------------------------------------------


def _earn(work: _Work, points_money: Sequence[int]) -> list[list[Accrual]]:
    """Step 5: the accruals of each line, on what was paid for it in money."""
    if work.member is not None and not work.member.can_earn:
        return [[] for _ in work.lines]
    bases = work.left
    if points_money and not work.rules.programme.earning.earn_on_points_paid:
        bases = [left - paid for left, paid in zip(bases, points_money, strict=True)]
    accruals: list[list[Accrual]] = []
    step: _Step | None = None
    in_force: dict[int, list[PointsFormula]] = {}  # by id of the candidates, which many lines share
    for line, candidates, base in zip(work.lines, work.candidates, bases, strict=True):
        formulas = candidates.points_formulas or in_force.get(id(candidates))
        if base <= 0 or not candidates.points_rules:
            accruals.append([])
            continue
        if formulas is None:
            step = step or _Step(work, work.left, lambda rule: _lines_naming(work, rule))
            chosen = [rule for rule in candidates.points_rules if step.holds(rule)]
            if candidates.points_contested:
                accruals.append(_best_points(work, chosen, base, line))
                continue
            formulas = in_force[id(candidates)] = [rule.formula for rule in chosen]
        accruals.append(_stack_points(formulas, base, line))
    _earn_once(work, bases, accruals)
    return accruals


def _stack_points(formulas: Iterable[PointsFormula], base_minor: int, line: ReceiptLine) -> list[Accrual]:
    """The accruals of a line, each rounded by itself."""
    accruals = []
    for promotion_id, measure, numerator, addend, denominator in formulas:
        if measure == MONEY_PAID:
            points = (base_minor * numerator + addend) // denominator
        else:
            points = numerator if measure == ONCE else numerator * _units(line)
        if points:
            accruals.append(_new(Accrual, (promotion_id, base_minor, points)))
    return accruals


def _units(line: ReceiptLine) -> int:
    return counted_units(line.quantity_milli, line.is_weighed)


def _best_points(work: _Work, rules: Sequence[PointsRule], base_minor: int, line: ReceiptLine) -> list[Accrual]:
    """The stack of promotions that grants most on a line."""
    best: list[Accrual] = []
    best_gain = 0

    def gain_alone(rule: PointsRule) -> int:
        return _total(_stack_points([rule.formula], base_minor, line))

    for stack in _alternatives(rules):
        decided: set[str] = set()
        kept = [_resolve_group(rule, stack, decided, gain_alone) for rule in stack]
        formulas = _compounded(work.rules, [rule for rule in kept if rule is not None])
        accruals = _stack_points(formulas, base_minor, line)
        if _total(accruals) > best_gain:
            best, best_gain = accruals, _total(accruals)
    return best


def _total(accruals: Iterable[Accrual]) -> int:
    return sum(accrual.points_minor for accrual in accruals)


def _compounded(rules: Rules, stack: Sequence[PointsRule]) -> list[PointsFormula]:
    """Give compounding multipliers the rate that those before them have made of the base rate."""
    running = rules.base_rate
    formulas = []
    for rule in stack:
        formula = rule.formula
        if rule.factor is not None:
            extra: Fraction = (rule.factor - 1) * (running if rule.compound else rules.base_rate)
            running += extra
            terms = rate_terms(extra, rules.programme.earning.rounding)
            formula = PointsFormula(formula.promotion_id, MONEY_PAID, *terms)
        formulas.append(formula)
    return formulas


def _earn_once(work: _Work, bases: Sequence[int], accruals: list[list[Accrual]]) -> None:
    """Step 6: points once a receipt, spread over the lines in scope by the money paid for them."""
    has_birthday = work.member is not None and work.member.birthday is not None
    found = {rule.rank: rule for rule in work.live.receipt_points.within_reach(sum(work.left), has_birthday)}
    for candidates in work.candidates:
        for rule in candidates.receipt_points_rules:
            found[rule.rank] = rule
    if not found:
        return
    scopes = {rank: _points_scope(work, rule, bases) for rank, rule in found.items()}
    step = _Step(work, work.left, lambda rule: scopes[rule.rank])
    chosen = [found[rank] for rank in sorted(found) if scopes[rank] and step.holds(found[rank])]
    best: list[ReceiptPointsRule] = []
    best_gain = 0
    for stack in _alternatives(chosen):
        decided: set[str] = set()
        kept = [_resolve_group(rule, stack, decided, lambda r: r.points_minor) for rule in stack]
        winners = [rule for rule in kept if rule is not None]
        gain = sum(rule.points_minor for rule in winners)
        if gain > best_gain:
            best, best_gain = winners, gain
    for rule in best:
        scope = scopes[rule.rank]
        parts = spread_largest_remainder(rule.points_minor, [bases[i] for i in scope])
        for i, part in zip(scope, parts, strict=True):
            if part:
                accruals[i].append(Accrual(rule.promotion_id, bases[i], part))


def _points_scope(work: _Work, rule: ReceiptPointsRule, bases: Sequence[int]) -> list[int]:
    return [
        i
        for i, candidates in enumerate(work.candidates)
        if bases[i] > 0
        and not candidates.no_earning
        and (not rule.is_scoped or rule in candidates.receipt_points_rules)
    ]


# --- the answer -------------------------------------------------------------------------------------------


def _effects(
    work: _Work,
    limits: list[int],
    max_steps: int,
    points_money: Sequence[int],
    accruals: list[list[Accrual]],
    variances: tuple[Variance, ...] = (),
) -> Effects:
    rules, left = work.rules, work.left
    spending = rules.programme.spending
    spent_money = sum(points_money)
    columns = zip(
        work.lines,
        work.discounts,
        work.cuts,
        left,
        limits,
        points_money or [0] * len(left),
        accruals,
        strict=True,
    )
    lines = tuple(
        [
            _new(LineEffects, (line[0], tuple(taken), cut, payable, limit, paid, tuple(earned)))
            for line, taken, cut, payable, limit, paid, earned in columns
        ]
    )
    payable_minor = sum(left)
    return Effects(
        programme_version=rules.version,
        lines=lines,
        discount_minor=sum([line[6] for line in work.lines]) - payable_minor,
        payable_minor=payable_minor,
        max_spend_points_minor=max_steps * spending.step_points_minor,
        max_spend_money_minor=max_steps * spending.step_money_minor,
        spent_points_minor=-(-spent_money * spending.step_points_minor // spending.step_money_minor),
        spent_money_minor=spent_money,
        accrual_points_minor=sum([accrual[2] for line in accruals for accrual in line]),
        messages=messages_of(rules, _effective_ids(lines)) if rules.messages else (),
        settings=rules.settings,
        variances=variances,
    )


def _effective_ids(lines: tuple[LineEffects, ...]) -> set[str]:
    ids = {discount.promotion_id for line in lines for discount in line.discounts}
    ids.update(accrual.promotion_id for line in lines for accrual in line.accruals)
    return ids
