"""Line and basket discounts: first for everybody, then for those whose coupons and offers help to more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from server.promotions.arithmetic import spread_largest_remainder
from server.promotions.compile import Candidates, rules_for_article
from server.promotions.conditions import count_goods
from server.promotions.dealing import apply_by_rank
from server.promotions.deals import steps_discount_minor
from server.promotions.facts import ReceiptLine
from server.promotions.formulas import BasketRule, CompiledPromotion, DealRule, LineFormula, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.line_stacks import ReadyRules, apply_rule, choose_stack, ready_rules, stack_formulas
from server.promotions.parts import Part, part_of, within_rooms
from server.promotions.stacking import alternatives, resolve_group
from server.promotions.work import BASKET, LINES, RIGHTS, RIGHTS_BASKET, Work, is_open_to


def discount_all(work: Work) -> None:
    """Steps 1 to 3: line promotions, basket promotions, then rights in the same order."""
    work.gather()
    work.begin(LINES)
    _discount_lines(work)
    work.begin(BASKET)
    if work.live.has_baskets:
        _discount_basket(work, BASKET, _basket_rules(work))
    if work.rights:
        work.begin(RIGHTS)
        chosen = [right for right in work.rights if (right.line or right.deal) and work.step(RIGHTS).holds(right)]
        _settle_rights(work, chosen)
        work.begin(RIGHTS_BASKET)
        _discount_basket(work, RIGHTS_BASKET, [right.basket for right in work.rights if right.basket])
    if work.parts or work.gathered:
        work.put_together()


# --- line discounts ---------------------------------------------------------------------------------------


def _discount_lines(work: Work) -> None:
    """Step 1: every line by itself, if no promotion for all goods and no deal comes in."""
    more = [one for one in work.gated if not one.is_indexed and not one.is_right and (one.line or one.deal)]
    live = work.live
    if more or (live.has_deals_or_limits and any(one.deals or one.is_metered for one in work.candidates)):
        _discount_lines_with(work, more)
        return
    left, discounts, cuts, lines = work.left, work.discounts, work.cuts, work.lines
    is_plain, apart = not work.is_in_control, {*work.gathered, *work.followers}
    ready: dict[int, ReadyRules] = {}  # by id of the candidates, which many lines share
    for i, candidates in enumerate(work.candidates):
        if not candidates.line_rules:
            continue
        formulas: Iterable[LineFormula] | None = candidates.line_formulas
        if formulas is not None and is_plain and i not in apart:
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


def _settle_rights(work: Work, rights: Sequence[CompiledPromotion]) -> None:
    """Step 3, on lines: the line rules of rights, and deals."""
    if not rights:
        return
    work.go_on()
    deals = [right.deal for right in rights if right.deal]
    rules: list[list[LineRule]] = [[] for _ in work.lines]
    for right in rights:
        if right.line is not None:
            for i in work.discountable(right):
                rules[i] += rules_for_article([right.line], work.lines[i].sku)
    if not work.parts and not deals and not any(right.limits for right in rights):
        for i, found in enumerate(rules):
            kept = [rule for rule in found if _is_line_open_to(work, rule, i)]
            if kept:
                _settle_line(work, i, ready_rules(kept))
        return
    work.take_apart()
    apply_by_rank(work, [[rule for rule in rules[part.at] if is_open_to(rule, part)] for part in work.parts], deals)


def _is_line_open_to(work: Work, rule: LineRule | BasketRule, i: int) -> bool:
    """The same as `is_open_to` of a whole line."""
    if i in work.gathered:
        return is_open_to(rule, work.gathered[i])
    return i not in work.locked and not (rule.exclusive and work.discounts[i])


def _settle_lines(work: Work, rules: Sequence[Sequence[LineRule]], deals: Sequence[DealRule]) -> None:
    """Apply to each line its rules, and the deals among them by rank."""
    if work.parts or deals or any(rule.owner.limits for found in rules for rule in found):
        work.take_apart()
        apply_by_rank(work, [rules[part.at] for part in work.parts], deals)
        return
    for i, found in enumerate(rules):
        if found:
            _settle_line(work, i, ready_rules(found))


def _settle_line(work: Work, i: int, ready: ReadyRules) -> None:
    """Apply the best stack of the rules that hold; a line that an exclusive promotion won is locked."""
    if i in work.followers:
        return
    if i in work.gathered:
        part = work.gathered[i]
        for rule in ready.rules if ready.formulas is not None else choose_stack(ready.rules, part, None)[0]:
            (part,) = apply_rule(rule, part, None)
        work.gathered[i] = part
        return
    line, left = work.lines[i], work.left[i]
    is_exclusive = False
    formulas = ready.formulas
    if formulas is None:
        stack, is_exclusive = choose_stack(ready.rules, part_of(i, line, left), None)
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
    work.go_on()
    scopes = {rule.rank: _basket_scope(work, rule) for rule in chosen}
    metered = any(rule.owner.limits for rule in chosen)
    best: _BasketStack | None = None
    for alternative in alternatives(chosen):
        stack = _BasketStack(work, scopes, work.meter.fork() if metered else None)
        stack.apply_all(alternative)
        if best is None or stack.gain_minor > best.gain_minor:
            best = stack
    if best is not None:
        best.write()


def _basket_scope(work: Work, rule: BasketRule) -> list[int]:
    """The lines, or parts of lines, that a basket discount may fall on, by number."""
    lines = work.discountable(rule.owner)
    if work.parts:
        chosen = set(lines)
        return [n for n, part in enumerate(work.parts) if part.at in chosen and is_open_to(rule, part)]
    if work.locked or work.gathered or rule.exclusive:
        return [i for i in lines if i not in work.followers and _is_line_open_to(work, rule, i)]
    return lines


class _BasketStack:
    """One way to stack basket discounts, tried on a copy of the amounts until nothing better is found.

    Its goods are lines, or parts of them if there are any.
    """

    def __init__(self, work: Work, scopes: Mapping[int, list[int]], meter: Meter | None) -> None:
        self._work = work
        self._scopes = scopes
        self._meter = meter
        self._goods: Sequence[Part | ReceiptLine] = work.parts or work.lines
        self._left = [part.left_minor for part in work.parts] or list(work.left)
        if work.gathered and not work.parts:
            self._goods = [work.gathered.get(i, line) for i, line in enumerate(work.lines)]
            for i, part in work.gathered.items():
                self._left[i] = part.left_minor
        self._applied: list[tuple[BasketRule, list[int], list[int], list[int]]] = []
        self.gain_minor = 0

    def apply_all(self, rules: Sequence[BasketRule]) -> None:
        decided: set[str] = set()
        for rule in rules:
            winner = resolve_group(rule, rules, decided, lambda rival: sum(self._trial_parts(rival)))
            if winner is None:
                continue
            wanted, parts = self._parts(winner, self._meter)
            scope = self._scopes[winner.rank]
            for i, part in zip(scope, parts, strict=True):
                self._left[i] -= part
            self._applied.append((winner, scope, wanted, parts))
            taken = sum(parts)
            self.gain_minor += taken
            owner = winner.owner
            if taken and owner.limits and self._meter is not None:
                self._meter.use_once(owner.id, owner.limits)
                self._meter.use(owner.id, owner.limits, money_minor=taken)

    def _trial_parts(self, rule: BasketRule) -> list[int]:
        return self._parts(rule, self._meter.fork() if self._meter else None)[1]

    def _parts(self, rule: BasketRule, meter: Meter | None) -> tuple[list[int], list[int]]:
        """The share of all in scope of the discount, as far as limits go, and as far as their price floors go too."""
        scope, owner = self._scopes[rule.rank], rule.owner
        weights = [self._left[i] for i in scope]
        total = self._total(rule, scope, weights)
        if total and meter is not None and owner.limits:
            if not meter.may_apply_once(owner.id, owner.limits):
                total = 0
            else:
                total = meter.grant(owner.id, owner.limits, Measure.MONEY, total)
        wanted = spread_largest_remainder(total, weights)
        rooms = [max(0, weight - _floor_minor(self._goods[i])) for i, weight in zip(scope, weights, strict=True)]
        return wanted, within_rooms(wanted, weights, rooms, spreads=rule.spreads)

    def _total(self, rule: BasketRule, scope: Sequence[int], weights: Sequence[int]) -> int:
        payable = sum(weights)
        if rule.steps is not None:
            return steps_discount_minor(rule.steps, self._reached(rule.steps.what, scope, payable), payable)
        base = sum(_list_minor(self._goods[i]) for i in scope) if rule.from_list else payable
        return min(rule.reduce(base, rule.numerator, rule.denominator), payable)

    def _reached(self, what: str, scope: Sequence[int], payable: int) -> int:
        """What the goods in scope come to, as steps measure it."""
        if what == "amount":
            return payable
        goods = [self._goods[n] for n in scope]
        lines = [one for one in goods if not isinstance(one, Part)]
        parts = [one for one in goods if isinstance(one, Part)]
        if what == "quantity":
            return count_goods(what, lines, ()) + sum(part.units for part in parts)
        weighed = (part.quantity_milli for part in parts if self._work.lines[part.at].is_weighed)
        return count_goods(what, lines, ()) + sum(weighed)

    def write(self) -> None:
        """Write the outcome into the evaluation."""
        work = self._work
        if self._meter is not None:
            work.meter = self._meter
        for rule, scope, wanted, parts in self._applied:
            for n, wish, part in zip(scope, wanted, parts, strict=True):
                if wish or part:
                    self._take(rule, n, wish, part)

    def _take(self, rule: BasketRule, n: int, wanted_minor: int, kept_minor: int) -> None:
        work = self._work
        discount = rule.rank, rule.promotion_id, wanted_minor, kept_minor
        if work.parts:
            work.parts[n] = work.parts[n].reduced(*discount)
        elif n in work.gathered:
            work.gathered[n] = work.gathered[n].reduced(*discount)
        else:
            work.left[n] -= kept_minor
            work.cuts[n] += max(0, wanted_minor - kept_minor)
            if kept_minor:
                work.discounts[n] = [*work.discounts[n], (rule.promotion_id, kept_minor)]


def _floor_minor(goods: Part | ReceiptLine) -> int:
    return goods.floor_minor if isinstance(goods, Part) else goods.floor_amount_minor


def _list_minor(goods: Part | ReceiptLine) -> int:
    return goods.list_minor if isinstance(goods, Part) else goods.list_amount_minor
