"""Line and basket discounts: first for everybody, then for those whose coupons and offers help to more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from server.promotions.arithmetic import spread_largest_remainder
from server.promotions.compile import Candidates, rules_for_article
from server.promotions.conditions import count_goods
from server.promotions.dealing import settle_by_rank
from server.promotions.deals import steps_discount_minor
from server.promotions.formulas import BasketRule, CompiledPromotion, DealRule, LineFormula, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.line_stacks import ReadyRules, choose_stack, ready_rules, stack_formulas
from server.promotions.stacking import alternatives, resolve_group
from server.promotions.work import BASKET, LINES, RIGHTS, RIGHTS_BASKET, Work


def discount_all(work: Work) -> None:
    """Steps 1 to 3: line promotions, basket promotions, then rights in the same order."""
    work.begin(LINES)
    _discount_lines(work)
    work.begin(BASKET)
    if work.live.has_baskets:
        _discount_basket(work, BASKET, _basket_rules(work))
    if not work.rights:
        return
    work.begin(RIGHTS)
    chosen = [right for right in work.rights if (right.line or right.deal) and work.step(RIGHTS).holds(right)]
    _settle_lines(work, _rules_of_rights(work, chosen), [right.deal for right in chosen if right.deal])
    work.begin(RIGHTS_BASKET)
    _discount_basket(work, RIGHTS_BASKET, [right.basket for right in work.rights if right.basket])


# --- line discounts ---------------------------------------------------------------------------------------


def _discount_lines(work: Work) -> None:
    """Step 1: every line by itself, if no promotion for all goods and no deal comes in."""
    more = [one for one in work.gated if not one.is_indexed and not one.is_right and (one.line or one.deal)]
    live = work.live
    if more or (live.has_deals_or_limits and any(one.deals or one.is_metered for one in work.candidates)):
        _discount_lines_with(work, more)
        return
    left, discounts, cuts, lines = work.left, work.discounts, work.cuts, work.lines
    is_plain = not work.is_in_control
    ready: dict[int, ReadyRules] = {}  # by id of the candidates, which many lines share
    for i, candidates in enumerate(work.candidates):
        if not candidates.line_rules:
            continue
        formulas: Iterable[LineFormula] | None = candidates.line_formulas
        if formulas is not None and is_plain:
            discounts[i], left[i], cuts[i] = stack_formulas(formulas, left[i], *lines[i][6:9])
            continue
        found = ready.get(id(candidates))
        if found is None:
            holds = work.step(LINES).holds
            found = ready_rules([rule for rule in candidates.line_rules if holds(rule.owner)])
            ready[id(candidates)] = found
        if found.rules:
            _settle_line(work, i, found)


def _discount_lines_with(work: Work, more: Sequence[CompiledPromotion]) -> None:
    """The same with deals, and with promotions for all goods that the product index does not know."""
    holds = work.step(LINES).holds
    more_rules = [one.line for one in more if one.line and holds(one)]
    deals = {one.rank: one.deal for one in more if one.deal and holds(one)}
    known: dict[int, list[LineRule]] = {}  # by id of the candidates, which many lines share
    rules: list[Sequence[LineRule]] = []
    for candidates in work.candidates:
        found = known.get(id(candidates))
        if found is None:
            found = _chosen_rules(candidates, more_rules, holds)
            known[id(candidates)] = found
            for deal in candidates.deals:
                if deal.rank not in deals and holds(deal.owner):
                    deals[deal.rank] = deal
        rules.append(found)
    _settle_lines(work, rules, [deals[rank] for rank in sorted(deals)])


def _chosen_rules(
    candidates: Candidates, more: Sequence[LineRule], holds: Callable[[CompiledPromotion], bool]
) -> list[LineRule]:
    found = [rule for rule in candidates.line_rules if holds(rule.owner)]
    if more and not candidates.no_discount:
        found = sorted([*found, *more], key=lambda rule: rule.rank)
    return found


def _rules_of_rights(work: Work, rights: Sequence[CompiledPromotion]) -> list[list[LineRule]]:
    """The line rules of rights for each line."""
    rules: list[list[LineRule]] = [[] for _ in work.lines]
    for right in rights:
        if right.line is not None:
            for i in work.discountable(right):
                if work.is_open_to(right.line, i):
                    rules[i] += rules_for_article([right.line], work.lines[i].sku)
    return rules


def _settle_lines(work: Work, rules: Sequence[Sequence[LineRule]], deals: Sequence[DealRule]) -> None:
    """Apply to each line its rules, and the deals among them by rank."""
    if deals or any(rule.owner.limits for found in rules for rule in found):
        settle_by_rank(work, rules, deals)
        return
    for i, found in enumerate(rules):
        if found:
            _settle_line(work, i, ready_rules(found))


def _settle_line(work: Work, i: int, ready: ReadyRules) -> None:
    """Apply the best stack of the rules that hold; a line that an exclusive promotion won is locked."""
    line, left = work.lines[i], work.left[i]
    is_exclusive = False
    formulas = ready.formulas
    if formulas is None:
        stack, is_exclusive = choose_stack(ready.rules, i, line, left, None)
        formulas = [rule.formula for rule in stack]
    taken, work.left[i], cut = stack_formulas(formulas, left, *line[6:9])
    work.cuts[i] += cut
    if taken:
        work.discounts[i] = [*work.discounts[i], *taken]
        if is_exclusive:
            work.locked.add(i)


# --- basket discounts -------------------------------------------------------------------------------------


def _basket_rules(work: Work) -> list[BasketRule]:
    """Basket discounts that the receipt may get, rights left out, by rank."""
    found = {one.rank: one.basket for one in work.gated if one.basket and not one.is_right}
    for candidates in work.candidates:
        for rule in candidates.basket_rules:
            found[rule.rank] = rule
    return [found[rank] for rank in sorted(found)]


def _discount_basket(work: Work, name: str, rules: Sequence[BasketRule]) -> None:
    """Discounts over the basket, spread over its lines."""
    if not rules:
        return
    step = work.step(name)
    chosen = [rule for rule in rules if step.holds(rule.owner)]
    if not chosen:
        return
    scopes = {rule.rank: _basket_scope(work, rule) for rule in chosen}
    metered = any(rule.owner.limits for rule in chosen)
    best: _BasketStack | None = None
    for alternative in alternatives(chosen):
        stack = _BasketStack(work, scopes, work.meter.fork() if metered else None)
        stack.apply_all(alternative)
        if best is None or stack.gain_minor > best.gain_minor:
            best = stack
    if best is not None:
        best.settle()


def _basket_scope(work: Work, rule: BasketRule) -> list[int]:
    """Positions of the lines that a basket discount may fall on."""
    scope = work.discountable(rule.owner)
    if work.locked or rule.exclusive:
        scope = [i for i in scope if work.is_open_to(rule, i)]
    return scope


class _BasketStack:
    """One way to stack basket discounts, tried on a copy of the amounts until it is settled."""

    def __init__(self, work: Work, scopes: Mapping[int, list[int]], meter: Meter | None) -> None:
        self._work = work
        self._scopes = scopes
        self._meter = meter
        self._left = list(work.left)
        self._cuts = [0] * len(work.left)
        self._applied: list[tuple[str, list[int], list[int]]] = []
        self.gain_minor = 0

    def apply_all(self, rules: Sequence[BasketRule]) -> None:
        decided: set[str] = set()
        for rule in rules:
            winner = resolve_group(rule, rules, decided, lambda rival: sum(self._trial_parts(rival)))
            if winner is None:
                continue
            parts, cuts = self._parts(winner, self._meter)
            scope = self._scopes[winner.rank]
            for i, part, cut in zip(scope, parts, cuts, strict=True):
                self._left[i] -= part
                self._cuts[i] += cut
            self._applied.append((winner.promotion_id, scope, parts))
            self.gain_minor += sum(parts)
            if winner.owner.limits and self._meter is not None:
                self._book(winner, scope, parts, self._meter)

    def _trial_parts(self, rule: BasketRule) -> list[int]:
        return self._parts(rule, self._meter.fork() if self._meter else None)[0]

    def _parts(self, rule: BasketRule, meter: Meter | None) -> tuple[list[int], list[int]]:
        """The discount of each line in scope, and what its price floor cuts off (moved nowhere else)."""
        lines, scope = self._work.lines, self._scopes[rule.rank]
        weights = [self._left[i] for i in scope]
        total = self._total(rule, scope, weights)
        owner = rule.owner
        if total and meter is not None and owner.limits and not meter.may_apply_once(owner.id, owner.limits):
            total = 0
        wanted = spread_largest_remainder(total, weights)
        parts, cuts = [], []
        for i, weight, part in zip(scope, weights, wanted, strict=True):
            room = weight - lines[i].floor_amount_minor
            kept = part if part <= room else max(0, room)
            parts.append(kept)
            cuts.append(part - kept)
        if meter is not None and owner.limits:
            parts = _cut_in_order(parts, meter.grant(owner.id, owner.limits, Measure.MONEY, sum(parts)))
        return parts, cuts

    def _total(self, rule: BasketRule, scope: Sequence[int], weights: Sequence[int]) -> int:
        lines, payable = self._work.lines, sum(weights)
        if rule.steps is not None:
            reached = count_goods(rule.steps.what, [lines[i] for i in scope], weights)
            return steps_discount_minor(rule.steps, reached, payable)
        base = sum(lines[i].list_amount_minor for i in scope) if rule.from_list else payable
        return min(rule.reduce(base, rule.numerator, rule.denominator), payable)

    @staticmethod
    def _book(rule: BasketRule, scope: Sequence[int], parts: Sequence[int], meter: Meter) -> None:
        owner = rule.owner
        if any(parts):
            meter.use_once(owner.id, owner.limits)
            for i, part in zip(scope, parts, strict=True):
                meter.use(owner.id, owner.limits, line=i, money_minor=part)

    def settle(self) -> None:
        """Write the outcome into the evaluation."""
        work = self._work
        work.left = self._left
        if self._meter is not None:
            work.meter = self._meter
        for i, cut in enumerate(self._cuts):
            work.cuts[i] += cut
        for promotion_id, scope, parts in self._applied:
            for i, part in zip(scope, parts, strict=True):
                if part:
                    work.discounts[i] = [*work.discounts[i], (promotion_id, part)]


def _cut_in_order(parts: Sequence[int], left: int) -> list[int]:
    """The parts as far as `left` goes, the first ones whole."""
    kept = []
    for part in parts:
        kept.append(min(part, left))
        left -= kept[-1]
    return kept
