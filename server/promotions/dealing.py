"""Line discounts with deals or limits: rank by rank over all parts of the receipt, because both look at several.

Each part first chooses its stack of line discounts by itself. Without rivals, deals and line discounts then simply
apply one after the other, by rank, each on what is left. A deal that is exclusive, or shares a group or its lines with
an exclusive promotion, is tried: once it has its lines (all that it may work on) to itself, its rivals standing back
from them, and once without it. What gives the shopper more counts; of several such deals the best alone comes first,
ties by rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from server.promotions.deals import DealOutcome, LineUnits, gift, set_deal, unit_deal
from server.promotions.formulas import DealRule, LineRule
from server.promotions.kinds import Measure
from server.promotions.limits import Meter
from server.promotions.line_stacks import apply_limited, apply_rule, cut_money, shares_of
from server.promotions.model import Gift, SetDeal, UnitDeal
from server.promotions.parts import Part, part_of, within_rooms
from server.promotions.stacking import are_rivals
from server.promotions.work import Work, is_open_to


class DealLines(NamedTuple):
    """A deal with the goods it may work on, by number: those in scope, and for a gift those that may be given."""

    rule: DealRule
    scope: Sequence[int]
    gifts: Sequence[int]

    def touched(self) -> set[int]:
        """All that the deal may work on."""
        return {*self.scope, *self.gifts}


def apply_by_rank(work: Work, rules: Sequence[Sequence[LineRule]], deals: Sequence[DealRule]) -> None:
    """Apply the line rules that hold (one list a part) and the deals that hold, and write the best outcome."""
    numbers: dict[int, list[int]] = {}
    for n, part in enumerate(work.parts):
        numbers.setdefault(part.at, []).append(n)
    found = [_deal_parts(work, deal, numbers) for deal in deals]
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
    best.write()


def _deal_parts(work: Work, rule: DealRule, numbers: Mapping[int, Sequence[int]]) -> DealLines:
    """The parts that a deal may work on now; `numbers` are those of the parts that stand on a line."""
    parts = work.parts
    scope, gifts = (
        [n for i in lines for n in numbers.get(i, ()) if is_open_to(rule, parts[n])]
        for lines in (work.discountable(rule.owner), work.givable(rule.owner))
    )
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


class _Slot:
    """Parts that were one when the step began, and share their line rules."""

    __slots__ = ("parts", "stack")

    def __init__(self, part: Part, stack: Sequence[LineRule]) -> None:
        self.parts = [part]
        self.stack = stack


class _Trial:
    """One outcome: the plain deals, the forced ones with their goods to themselves, and the line rules around them."""

    def __init__(
        self,
        work: Work,
        rules: Sequence[Sequence[LineRule]],
        plain: Sequence[DealLines],
        forced: Sequence[DealLines],
        meter: Meter | None,
    ) -> None:
        self._work = work
        self._meter = meter.fork() if meter is not None else None
        self._slots: list[list[_Slot]] = self._chosen(rules, forced)
        by_rank: dict[int, list[_Slot]] = {}
        for slots in self._slots:
            for slot in slots:
                for rule in slot.stack:
                    by_rank.setdefault(rule.rank, []).append(slot)
        deals = {deal.rule.rank: deal for deal in self._in_order(plain, forced)}
        for rank in sorted({*by_rank, *deals}):
            if rank in by_rank:
                self._apply_rules(rank, by_rank[rank])
            if rank in deals:
                self._apply_deal(deals[rank])
        self.gain_minor = sum(part.left_minor for part in work.parts) - sum(
            part.left_minor for slots in self._slots for slot in slots for part in slot.parts
        )

    @staticmethod
    def _in_order(plain: Sequence[DealLines], forced: Sequence[DealLines]) -> list[DealLines]:
        """All deals, each without the goods that a rival forced before it has to itself."""
        kept: list[DealLines] = []
        claimed: list[DealLines] = []
        if not forced:
            return list(plain)
        for deal in [*forced, *plain]:
            gone = {i for other in claimed if are_rivals(deal.rule, other.rule) for i in other.touched()}
            kept.append(
                DealLines(deal.rule, [i for i in deal.scope if i not in gone], [i for i in deal.gifts if i not in gone])
            )
            claimed.append(kept[-1])
        return kept

    def _chosen(self, rules: Sequence[Sequence[LineRule]], forced: Sequence[DealLines]) -> list[list[_Slot]]:
        """The stacks of each part, rivals of the deals that have it to themselves left out.

        Parts choose one after the other, each knowing what those before it leave of the limits.
        """
        scratch = self._meter.fork() if self._meter is not None else None
        claims = [(deal.rule, deal.touched()) for deal in forced]
        slots: list[list[_Slot]] = []
        for n, part in enumerate(self._work.parts):
            found = rules[n]
            for claim, claimed in claims:
                if n in claimed:
                    found = [rule for rule in found if not are_rivals(claim, rule)]
            if not found:
                slots.append([_Slot(part, ())])
                continue
            slots.append([_Slot(share, stack) for share, stack in shares_of(found, part, scratch)])
        return slots

    def _apply_rules(self, rank: int, slots: Sequence[_Slot]) -> None:
        """Apply one promotion's line discount wherever it was chosen."""
        rules = [next(rule for rule in slot.stack if rule.rank == rank) for slot in slots]
        owner, meter = rules[0].owner, self._meter
        if meter is None or not owner.limits:
            for slot, rule in zip(slots, rules, strict=True):
                slot.parts = [done for part in slot.parts for done in apply_rule(rule, part, None)]
            return
        found = [(rule, part) for slot, rule in zip(slots, rules, strict=True) for part in slot.parts]
        cut = iter(apply_limited(owner, found, meter))
        for slot in slots:
            slot.parts = [done for _ in slot.parts for done in next(cut)]

    def _apply_deal(self, deal: DealLines) -> None:
        """Make a deal; the units on which its discount falls go their own way from now on."""
        rule, meter = deal.rule, self._meter
        owner = rule.owner
        limits = owner.limits if meter is not None else ()
        goods = _Goods(self._slots, deal.touched())
        most = meter.left(limits, Measure.COUNT) if meter is not None else None
        outcome = _make(self._work, deal, goods, most)
        if meter is not None and limits:
            meter.grant(owner.id, limits, Measure.COUNT, outcome.wanted_deals)
        taken = 0
        for carrier in _carriers(rule, goods, outcome, meter):
            taken += carrier.kept_minor
            goods.reduce(carrier, rule)
        if taken and meter is not None and limits:
            meter.use(owner.id, limits, once=outcome.deals, money_minor=taken)

    def write(self) -> None:
        """Write the outcome into the evaluation."""
        work = self._work
        work.parts = [part for slots in self._slots for slot in slots for part in slot.parts]
        if self._meter is not None:
            work.meter = self._meter


# --- the goods of one deal --------------------------------------------------------------------------------


class _Carrier(NamedTuple):
    """Units of a part on which a deal's discount falls, what it would take off them, and what their floor permits."""

    number: int
    units: Part
    others: Part | None
    wanted_minor: int
    kept_minor: int


class _Goods:
    """What has become of the parts that one deal may work on, numbered in order."""

    def __init__(self, slots: Sequence[Sequence[_Slot]], touched: Iterable[int]) -> None:
        self.parts: list[Part] = []
        self._slots: list[_Slot] = []
        self._numbers: dict[int, list[int]] = {}
        for n in sorted(touched):
            numbers = self._numbers[n] = []
            for slot in slots[n]:
                for part in slot.parts:
                    numbers.append(len(self.parts))
                    self.parts.append(part)
                    self._slots.append(slot)

    def units(self, chosen: Sequence[int]) -> list[LineUnits]:
        """Some of them, as deals see them."""
        numbers = [number for n in chosen for number in self._numbers[n]]
        parts = self.parts
        return [LineUnits(n, parts[n].units_minor, parts[n].units) for n in numbers if parts[n].units]

    def cut_out(self, number: int, runs: Sequence[tuple[int, int]]) -> tuple[Part, Part | None]:
        """Some units of a part, given as (price, how many), and the others; of equals the last ones."""
        part = self.parts[number]
        price, dearer = divmod(part.units_minor, part.units)
        counts = dict.fromkeys((price, price + 1), 0)
        for run_price, count in runs:
            counts[run_price] += count
        ranges = [(dearer - counts[price + 1], dearer), (part.units - counts[price], part.units)]
        if sum(counts.values()) == part.begun_units:
            return part, None
        return part.split([(begin, end) for begin, end in ranges if begin < end])

    def reduce(self, carrier: _Carrier, rule: DealRule) -> None:
        """Take a discount off some units."""
        number, units, others, wanted, kept = carrier
        slot, old = self._slots[number], self.parts[number]
        if kept:
            new = [units.reduced(rule.place, rule.owner.id, wanted, kept, claims=rule.exclusive)]
            new = new if others is None else [others, *new]
        else:
            new = [old.reduced(rule.place, rule.owner.id, wanted, 0)]
        slot.parts = [done for part in slot.parts for done in (new if part is old else [part])]


def _make(work: Work, deal: DealLines, goods: _Goods, most: int | None) -> DealOutcome:
    """What a deal takes off; `most` is how many deals limits leave."""
    kind = deal.rule.deal
    scope = goods.units(deal.scope)
    if isinstance(kind, UnitDeal):
        return unit_deal(kind, scope, most)
    if isinstance(kind, SetDeal):
        fits = [set(lines) for lines in set_fits(work, kind)]
        numbers = [[one.line for one in scope if goods.parts[one.line].at in lines] for lines in fits]
        return set_deal(kind, scope, numbers, most)
    if isinstance(kind, Gift):
        return gift(kind, goods.units(deal.gifts), scope, most, work.givable_units.get(deal.rule.rank))
    raise TypeError(f"{kind} is no deal of lines")


def _carriers(rule: DealRule, goods: _Goods, outcome: DealOutcome, meter: Meter | None) -> list[_Carrier]:
    """Where the discount of a deal falls, after limits of money and lowest prices."""
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, price, count in outcome.carriers:
        runs.setdefault(number, []).append((price, count))
    wanted = cut_money(rule.owner, [amount for _, amount in outcome.discounts], meter)
    found = [goods.cut_out(number, runs[number]) for number, _ in outcome.discounts]
    parts = [units for units, _ in found]
    rooms = [part.room_minor for part in parts]
    kept = within_rooms(wanted, [part.left_minor for part in parts], rooms, spreads=rule.spreads)
    return [
        _Carrier(number, units, others, amount, part)
        for (number, _), (units, others), amount, part in zip(outcome.discounts, found, wanted, kept, strict=True)
    ]


# --- lines as deals see them ------------------------------------------------------------------------------


def line_units(work: Work, positions: Sequence[int], left: Sequence[int]) -> list[LineUnits]:
    """Lines as deals see them, at other prices than they have by now."""
    parts = [part_of(i, work.lines[i], left[i]) for i in positions]
    return [LineUnits(part.at, part.units_minor, part.units) for part in parts if part.units]


def set_fits(work: Work, deal: SetDeal) -> list[Sequence[int]]:
    """For each part of a set the lines that fit it."""
    return [work.facts.selected(part.goods) for part in deal.parts]
