"""Line discounts with deals or limits: rank by rank over all lines, because both look at several of them.

Each line first chooses its stack of line discounts by itself. Without rivals, deals and line discounts then simply
apply one after the other, by rank, each on what is left. A deal that is exclusive, or shares a group or its lines with
an exclusive promotion, is tried: once it has its lines (all that it may work on) to itself, its rivals standing back
from them, and once without it. What gives the shopper more counts; of several such deals the best alone comes first,
ties by rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.promotions.arithmetic import counted_units
from server.promotions.compile import are_contested
from server.promotions.deals import DealOutcome, LineUnits, gift, set_deal, unit_deal
from server.promotions.facts import DiscountRow
from server.promotions.formulas import DealRule, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.line_stacks import choose_stack, stack_rules
from server.promotions.model import Gift, SetDeal, UnitDeal
from server.promotions.stacking import are_rivals
from server.promotions.work import Work


class DealLines(NamedTuple):
    """A deal with the positions of its lines: those in scope, and for a gift those that may be given."""

    rule: DealRule
    scope: Sequence[int]
    gifts: Sequence[int]

    def touched(self) -> set[int]:
        """All lines that the deal may work on."""
        return {*self.scope, *self.gifts}


def settle_by_rank(work: Work, rules: Sequence[Sequence[LineRule]], deals: Sequence[DealRule]) -> None:
    """Apply the line rules that hold (one list a line) and the deals that hold, and write the best outcome."""
    found = [deal_lines(work, deal) for deal in deals]
    contested = _contested(found, rules)
    plain = [deal for deal in found if not any(deal is other for other in contested)]
    metered = any(deal.owner.limits for deal in deals) or any(rule.owner.limits for line in rules for rule in line)
    meter = work.meter if metered else None
    best = _Trial(work, rules, plain, [], meter)
    if contested:
        alone = [(-_Trial(work, rules, plain, [deal], meter).gain_minor, n) for n, deal in enumerate(contested)]
        forced: list[DealLines] = []
        for _, n in sorted(alone):
            trial = _Trial(work, rules, plain, [*forced, contested[n]], meter)
            if trial.gain_minor > best.gain_minor:
                best = trial
                forced.append(contested[n])
    best.settle()


def deal_lines(work: Work, rule: DealRule) -> DealLines:
    """The lines that a deal may work on now."""
    scope: Sequence[int] = work.discountable(rule.owner)
    gifts: Sequence[int] = ()
    if isinstance(rule.deal, Gift):
        gifts = [i for i in work.facts.selected(rule.deal.goods) if not work.candidates[i].no_discount]
    if work.locked or rule.exclusive:
        scope, gifts = ([i for i in lines if work.is_open_to(rule, i)] for lines in (scope, gifts))
    return DealLines(rule, scope, gifts)


def _contested(deals: Sequence[DealLines], rules: Sequence[Sequence[LineRule]]) -> list[DealLines]:
    """The deals that can't just stack with everything that applies to their lines."""
    choosy = [[rule for rule in found if rule.exclusive or rule.group is not None] for found in rules]
    if not any(choosy) and not any(deal.rule.exclusive or deal.rule.group is not None for deal in deals):
        return []
    return [deal for deal in deals if _is_contested(deal, deals, choosy)]


def _is_contested(deal: DealLines, deals: Sequence[DealLines], choosy: Sequence[Sequence[LineRule]]) -> bool:
    if deal.rule.exclusive:
        return True
    touched = deal.touched()
    if any(are_rivals(deal.rule, rule) for i in touched for rule in choosy[i]):
        return True
    return any(
        other is not deal and are_rivals(deal.rule, other.rule) and not touched.isdisjoint(other.touched())
        for other in deals
    )


class _Trial:
    """One outcome: the plain deals, the forced ones with their lines to themselves, and the line rules around them."""

    def __init__(
        self,
        work: Work,
        rules: Sequence[Sequence[LineRule]],
        plain: Sequence[DealLines],
        forced: Sequence[DealLines],
        meter: Meter | None,
    ) -> None:
        self._work = work
        self._left = list(work.left)
        self._cuts = [0] * len(work.left)
        self._taken: list[list[DiscountRow]] = [[] for _ in work.left]
        self._locked: set[int] = set()
        self._meter = meter.fork() if meter is not None else None
        events: list[tuple[int, int, LineRule | DealLines]] = [
            (rule.rank, i, rule) for i, stack in enumerate(self._stacks(rules, forced)) for rule in stack
        ]
        events += [(deal.rule.rank, len(rules), deal) for deal in self._in_order(plain, forced)]
        for _, i, event in sorted(events, key=lambda found: found[:2]):
            if isinstance(event, DealLines):
                self._apply_deal(event)
            else:
                self._apply_rule(i, event)
        self.gain_minor = sum(work.left) - sum(self._left)

    @staticmethod
    def _in_order(plain: Sequence[DealLines], forced: Sequence[DealLines]) -> list[DealLines]:
        """All deals by rank, each without the lines that a rival forced before it has to itself."""
        kept: list[DealLines] = []
        claimed: list[DealLines] = []
        if not forced:
            return sorted(plain, key=lambda deal: deal.rule.rank)
        for deal in [*forced, *plain]:
            gone = {i for other in claimed if are_rivals(deal.rule, other.rule) for i in other.touched()}
            kept.append(
                DealLines(deal.rule, [i for i in deal.scope if i not in gone], [i for i in deal.gifts if i not in gone])
            )
            claimed.append(kept[-1])
        return sorted(kept, key=lambda deal: deal.rule.rank)

    def _stacks(self, rules: Sequence[Sequence[LineRule]], forced: Sequence[DealLines]) -> list[Sequence[LineRule]]:
        """The stack of each line, rivals of the deals that have the line left out.

        Lines choose one after the other, each knowing what those before it leave of the limits.
        """
        scratch = self._meter.fork() if self._meter is not None else None
        claims = [(deal.rule, deal.touched()) for deal in forced]
        return [self._stack(i, found, claims, scratch) if found else () for i, found in enumerate(rules)]

    def _stack(
        self, i: int, rules: Sequence[LineRule], claims: Sequence[tuple[DealRule, set[int]]], scratch: Meter | None
    ) -> Sequence[LineRule]:
        for claim, lines in claims:
            if i in lines:
                rules = [rule for rule in rules if not are_rivals(claim, rule)]
        line, left = self._work.lines[i], self._work.left[i]
        if are_contested(rules):
            rules, is_exclusive = choose_stack(rules, i, line, left, scratch)
            if is_exclusive:
                self._locked.add(i)
        if scratch is not None:
            stack_rules(rules, i, line, left, scratch)
        return rules

    def _apply_rule(self, i: int, rule: LineRule) -> None:
        line = self._work.lines[i]
        taken, self._left[i], cut = stack_rules([rule], i, line, self._left[i], self._meter)
        self._taken[i] += taken
        self._cuts[i] += cut

    def _apply_deal(self, deal: DealLines) -> None:
        rule, meter = deal.rule, self._meter
        owner = rule.owner
        limits = owner.limits if meter is not None else ()
        most = meter.left(limits, Measure.COUNT) if meter is not None else None
        outcome = make_deal(self._work, deal, self._left, most)
        if meter is not None and limits:
            meter.grant(owner.id, limits, Measure.COUNT, outcome.wanted_deals)
        taken = 0
        for i, wanted in outcome.discounts:
            amount = meter.grant(owner.id, limits, Measure.MONEY, wanted) if meter is not None else wanted
            kept = min(amount, max(0, self._left[i] - self._work.lines[i].floor_amount_minor))
            self._cuts[i] += amount - kept
            if kept:
                self._left[i] -= kept
                self._taken[i].append((owner.id, kept))
                taken += kept
                if rule.exclusive:
                    self._locked.add(i)
                if meter is not None and limits:
                    meter.use(owner.id, limits, line=i, money_minor=kept)
        if taken and meter is not None and limits:
            meter.use(owner.id, limits, times=outcome.deals)

    def settle(self) -> None:
        """Write the outcome into the evaluation."""
        work = self._work
        work.left = self._left
        if self._meter is not None:
            work.meter = self._meter
        for i, taken in enumerate(self._taken):
            work.cuts[i] += self._cuts[i]
            if taken:
                work.discounts[i] = [*work.discounts[i], *taken]
                if i in self._locked:
                    work.locked.add(i)


def make_deal(work: Work, deal: DealLines, left: Sequence[int], most: int | None = None) -> DealOutcome:
    """What a deal takes off at these prices; `most` is how many deals limits leave."""
    kind = deal.rule.deal
    goods = line_units(work, deal.scope, left)
    if isinstance(kind, UnitDeal):
        return unit_deal(kind, goods, most)
    if isinstance(kind, SetDeal):
        return set_deal(kind, goods, set_fits(work, kind), most)
    if isinstance(kind, Gift):
        return gift(kind, line_units(work, deal.gifts, left), goods, most)
    raise TypeError(f"{kind} is no deal of lines")


def line_units(work: Work, positions: Sequence[int], left: Sequence[int]) -> list[LineUnits]:
    """Lines as deals see them."""
    lines = work.lines
    return [LineUnits(i, left[i], counted_units(lines[i].quantity_milli, lines[i].is_weighed)) for i in positions]


def set_fits(work: Work, deal: SetDeal) -> list[Sequence[int]]:
    """For each part of a set the lines that fit it."""
    return [work.facts.selected(part.goods) for part in deal.parts]
