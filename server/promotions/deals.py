"""The arithmetic of deals over several lines: n for m, sets, gifts, and discounts that grow in steps.

Pure functions over plain columns. A line stands for units that have been treated alike (a part, see parts): its
number, what is left of its price, and its units (a weighed line is one). What is left is split over the units by
largest remainder, the earlier units first, so a line of 10.00 with 3 units has units of 3.34, 3.33 and 3.33. Units that
cost nothing any more do not take part in a deal: neither as bought nor as discounted.

Units are kept in runs of equal price, two a line at most: a line of a million units costs as much as one of three.
Units are ordered dearest first, equals by line; "the cheapest" are taken from the end of that order, so that of three
equals the third is the free one. Floors and limits of money are the caller's: nothing here knows of them. No discount
is negative or above what is left of its line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from server.promotions.arithmetic import half_up_div, spread_largest_remainder
from server.promotions.model import AmountOff, Choice, FallsOn, FixedPrice, Gift, PercentOff, SetDeal, Steps, UnitDeal

MAX_SET_PARTS = 6
"""The most parts of a set: choosing units costs up to 2^parts steps for each line. The loader refuses more."""


class LineUnits(NamedTuple):
    """A line as deals see it: its number, what is left of its price in minor units, and its units (at least 1)."""

    line: int
    left_minor: int
    units: int


class DealOutcome(NamedTuple):
    """What a deal takes off.

    `deals` is how many were made (0 if nothing is taken off), `wanted_deals` how many there would be without `most`.
    `discounts` are (line, amount above 0 in minor units), `units` (line, units that belong to a deal, the discounted
    ones and those paid in full); both in the order of lines. `carriers` are the units on which the discount falls:
    (line, price of a unit, how many).
    """

    deals: int = 0
    wanted_deals: int = 0
    discounts: tuple[tuple[int, int], ...] = ()
    units: tuple[tuple[int, int], ...] = ()
    carriers: tuple[tuple[int, int, int], ...] = ()

    @property
    def discount_minor(self) -> int:
        """The whole discount."""
        return sum(amount for _, amount in self.discounts)


def unit_deal(deal: UnitDeal, goods: Iterable[LineUnits], most: int | None = None) -> DealOutcome:
    """Of every `every` units, `discounted` get the deal's kind; `most` is what limits leave (None: no limit).

    Each discounted unit is rounded by itself, half up. The units that are paid in full are the dearest of the others.
    With FallsOn.WHOLE_DEAL the discount is spread over the units of all deals together.
    """
    runs = _dearest_first(goods)
    units = sum(run.units for run in runs)
    wanted = _at_most(units // deal.every, deal.most_deals)
    deals = _at_most(wanted, most)
    if not deals:
        return DealOutcome(wanted_deals=wanted)
    cheaper: _Taken = []
    members: _Taken = []
    position = 0
    for run in runs:
        end = position + run.units
        here = _discounted_below(deal, units, deals, end) - _discounted_below(deal, units, deals, position)
        cheaper.append((run, here))
        here = _members_below(deal, units, deals, end) - _members_below(deal, units, deals, position)
        members.append((run, here))
        position = end
    taken = _by_line((run.line, count * _saving(deal.kind, run.price_minor)) for run, count in cheaper)
    if deal.falls_on is FallsOn.WHOLE_DEAL:
        return _outcome(deals, wanted, _spread(sum(taken.values()), members), members, members)
    return _outcome(deals, wanted, taken, members, cheaper)


def set_deal(
    deal: SetDeal, goods: Iterable[LineUnits], fits: Sequence[Collection[int]], most: int | None = None
) -> DealOutcome:
    """As many sets as the goods give, of the dearest units that permit so many; no unit stands in two.

    `fits` names for each part the lines that fit it; a line may fit several. A fixed price makes only sets that it
    makes cheaper. An amount is taken off each set, a percent off all of them together, rounded once, half up. With
    `falls_on_part` a percent is of that part's units, and an amount or what a fixed price leaves off is held at what
    they cost; of units that fit several parts, the earlier part takes the dearer ones.
    """
    runs, masks = _runs_by_part(goods, fits)
    matcher = _SetMatcher(deal, runs, masks)
    wanted = _at_most(matcher.possible_sets(), deal.most_deals)
    if isinstance(deal.kind, FixedPrice):
        wanted = matcher.cheaper_sets(wanted, deal.kind.unit_price_minor)
    deals = _at_most(wanted, most)
    if not deals:
        return DealOutcome(wanted_deals=wanted)
    members = matcher.choose(deals)
    carriers = members if deal.falls_on_part is None else matcher.assign(members, deals, deal.falls_on_part)
    price = _price(carriers)
    if isinstance(deal.kind, PercentOff):
        total = half_up_div(price * deal.kind.share.numerator, deal.kind.share.denominator)
    elif isinstance(deal.kind, AmountOff):
        total = deals * deal.kind.amount_minor
    else:
        total = _price(members) - deals * deal.kind.unit_price_minor
    return _outcome(deals, wanted, _spread(max(0, min(total, price)), carriers), members, carriers)


def gift(
    deal: Gift,
    gifts: Iterable[LineUnits],
    bought: Iterable[LineUnits] = (),
    most: int | None = None,
    most_units: int | None = None,
) -> DealOutcome:
    """Up to `quantity` units of the gift's goods at its price, the cheapest first; a deal is one gift quantity.

    `most_units` is how many units may be given so that the threshold is reached without them (None: any number).

    `gifts` are the lines that may be given, `bought` those in the promotion's scope; a line may be in both. With
    `per_units`, units that are given do not count as bought: four equal units are three bought and one free. A unit
    that costs no more than the gift's price is no gift. With FallsOn.WHOLE_DEAL the discount is spread over the gifts
    and what was bought for them: the dearest units in scope, or without `per_units` all of them.
    """
    chooser = _gift_chooser(deal, gifts, bought)
    wanted_units = _at_most(chooser.most_units(), most_units)
    wanted = -(-wanted_units // deal.quantity)
    deals = _at_most(wanted, most)
    if not deals:
        return DealOutcome(wanted_deals=wanted)
    units = wanted_units if deals == wanted else deals * deal.quantity
    given = chooser.first(units)
    members = given + chooser.paid_for(deals, given)
    taken = _by_line((run.line, count * (run.price_minor - deal.unit_price_minor)) for run, count in given)
    if deal.falls_on is FallsOn.WHOLE_DEAL:
        return _outcome(deals, wanted, _spread(sum(taken.values()), members), members, members)
    return _outcome(deals, wanted, taken, members, given)


def _gift_chooser(deal: Gift, gifts: Iterable[LineUnits], bought: Iterable[LineUnits]) -> _GiftChooser:
    cheapest = [run for run in reversed(_dearest_first(gifts)) if run.price_minor > deal.unit_price_minor]
    return _GiftChooser(deal, cheapest, _dearest_first(bought))


def gift_units(deal: Gift, gifts: Iterable[LineUnits]) -> list[tuple[int, int, int]]:
    """What may be given, in the order in which it is: (line, price of a unit, how many)."""
    return [(run.line, run.price_minor, run.units) for run in _gift_chooser(deal, gifts, ()).cheapest]


def most_gift_units(deal: Gift, gifts: Iterable[LineUnits], bought: Iterable[LineUnits]) -> int:
    """How many units may be given if every threshold is reached."""
    return _gift_chooser(deal, gifts, bought).most_units()


def unit_prices(goods: Iterable[LineUnits]) -> list[tuple[int, int, int]]:
    """Units in the order of lines: (line, price of a unit, how many)."""
    runs = sorted(_dearest_first(goods), key=lambda run: run.line)
    return [(run.line, run.price_minor, run.units) for run in runs]


def steps_discount_minor(deal: Steps, reached: int, payable_minor: int) -> int:
    """What the steps take off the goods in scope, never more than `payable_minor`, what they cost.

    `reached` is what the goods come to in the steps' own measure: `payable_minor` for `amount`, else units or
    thousandths. Whole: the highest step reached counts for all. Marginal: the percent of each step counts for the part
    between its threshold and the next (of units or weight: for that share of the money), amounts add up. All is
    rounded once, half up.
    """
    steps = sorted((step for step in deal.steps if step.at_least <= reached), key=lambda step: step.at_least)
    if not steps or payable_minor <= 0:
        return 0
    if not deal.marginal:
        return min(payable_minor, _saving(steps[-1].kind, payable_minor))
    total = Fraction(0)
    ends = [step.at_least for step in steps[1:]] + [reached]
    for step, end in zip(steps, ends, strict=True):
        if isinstance(step.kind, AmountOff):
            total += step.kind.amount_minor
        else:
            total += step.kind.share * payable_minor * (end - step.at_least) / max(reached, 1)
    return min(payable_minor, half_up_div(total.numerator, total.denominator))


def units_to_next_deal(deal: UnitDeal, goods: Iterable[LineUnits]) -> int | None:
    """How many more units would make one more deal; None if `most_deals` are made. For near misses."""
    units = sum(run.units for run in _dearest_first(goods))
    if deal.most_deals is not None and units // deal.every >= deal.most_deals:
        return None
    return deal.every - units % deal.every


def units_to_next_set(deal: SetDeal, goods: Iterable[LineUnits], fits: Sequence[Collection[int]]) -> int | None:
    """How many more units, of the right parts, would make one more set; None if `most_deals` are made."""
    matcher = _SetMatcher(deal, *_runs_by_part(goods, fits))
    sets = matcher.possible_sets()
    if deal.most_deals is not None and sets >= deal.most_deals:
        return None
    return matcher.units_missing(sets + 1)


def units_to_next_gift(deal: Gift, gifts: Iterable[LineUnits], bought: Iterable[LineUnits]) -> int | None:
    """How many more units would bring one more gift; None for a gift once that is there.

    Those are units of the gift's goods if what was bought entitles to more than are there, or else units in scope; if a
    line is both, units of such goods.
    """
    paid, cheapest = _dearest_first(bought), list(reversed(_dearest_first(gifts)))
    units, available = sum(run.units for run in paid), sum(run.units for run in cheapest)
    if deal.per_units is None:
        return deal.quantity - available if available < deal.quantity else None
    if {run.line for run in paid} & {run.line for run in cheapest}:
        following = _GiftChooser(deal, cheapest, paid).most_units() + 1
        return deal.per_units * -(-following // deal.quantity) + following - units
    entitled = deal.quantity * (units // deal.per_units)
    return entitled - available if available < entitled else deal.per_units - units % deal.per_units


# --- units ------------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """Units of one line that cost the same."""

    line: int
    price_minor: int
    units: int


_Taken = list[tuple[_Run, int]]
"""Runs with how many of their units are meant."""


def _dearest_first(goods: Iterable[LineUnits]) -> list[_Run]:
    runs = []
    for line, left_minor, units in goods:
        price, dearer = divmod(left_minor, units)
        if dearer:
            runs.append(_Run(line, price + 1, dearer))
        if price:
            runs.append(_Run(line, price, units - dearer))
    runs.sort(key=lambda run: (-run.price_minor, run.line))
    return runs


def _at_most(count: int, most: int | None) -> int:
    return count if most is None else max(0, min(count, most))


def _price(taken: _Taken) -> int:
    return sum(count * run.price_minor for run, count in taken)


def _saving(kind: PercentOff | AmountOff | FixedPrice, price_minor: int) -> int:
    """What is taken off a unit of this price."""
    if isinstance(kind, PercentOff):
        return half_up_div(price_minor * kind.share.numerator, kind.share.denominator)
    if isinstance(kind, AmountOff):
        return min(kind.amount_minor, price_minor)
    return max(0, price_minor - kind.unit_price_minor)


def _by_line(amounts: Iterable[tuple[int, int]]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for line, amount in amounts:
        sums[line] = sums.get(line, 0) + amount
    return sums


def _spread(total: int, carriers: _Taken) -> dict[int, int]:
    """`total` over the lines in proportion to what the units that carry it cost; no line carries more than that."""
    weights = sorted(_by_line((run.line, count * run.price_minor) for run, count in carriers).items())
    parts = spread_largest_remainder(total, [weight for _, weight in weights])
    return {line: part for (line, _), part in zip(weights, parts, strict=True)}


def _outcome(deals: int, wanted: int, taken: dict[int, int], members: _Taken, carriers: _Taken) -> DealOutcome:
    discounts = tuple(sorted((line, amount) for line, amount in taken.items() if amount))
    if not discounts:
        return DealOutcome(wanted_deals=wanted)
    units = _by_line((run.line, count) for run, count in members if count)
    carrying = tuple((run.line, run.price_minor, count) for run, count in carriers if count)
    return DealOutcome(deals, wanted, discounts, tuple(sorted(units.items())), carrying)


# --- n for m ----------------------------------------------------------------------------------------------


def _discounted_below(deal: UnitDeal, units: int, deals: int, position: int) -> int:
    """How many of the first `position` units, dearest first, are discounted."""
    discounted = deals * deal.discounted
    if deal.choose is Choice.CHEAPEST:
        return max(0, position - (units - discounted))
    if deal.choose is Choice.DEAREST:
        return min(position, discounted)
    whole, rest = divmod(min(position, deals * deal.every), deal.every)
    return whole * deal.discounted + max(0, rest - (deal.every - deal.discounted))


def _members_below(deal: UnitDeal, units: int, deals: int, position: int) -> int:
    """How many of the first `position` units, dearest first, belong to a deal."""
    if deal.choose is Choice.CHEAPEST:
        paid = deals * (deal.every - deal.discounted)
        return min(position, paid) + _discounted_below(deal, units, deals, position)
    return min(position, deals * deal.every)


# --- sets -------------------------------------------------------------------------------------------------


def _runs_by_part(goods: Iterable[LineUnits], fits: Sequence[Collection[int]]) -> tuple[list[_Run], list[int]]:
    """The units that fit some part, dearest first, and for each run the parts it fits as bits."""
    masks: dict[int, int] = {}
    for part, lines in enumerate(fits):
        for line in lines:
            masks[line] = masks.get(line, 0) | 1 << part
    runs = [run for run in _dearest_first(goods) if run.line in masks]
    return runs, [masks[run.line] for run in runs]


class _SetMatcher:
    """Which units can stand in the parts of how many sets.

    By Hall's theorem units can be placed in the parts if, for every set of parts, those that fit nothing else are no
    more than the places there. Such sets of units are a matroid (transversal), so taking the dearest unit that still
    can be placed gives the dearest choice of the largest number.
    """

    def __init__(self, deal: SetDeal, runs: list[_Run], masks: list[int]) -> None:
        parts = len(deal.parts)
        if parts > MAX_SET_PARTS:
            raise ValueError(f"a set has {parts} parts, at most {MAX_SET_PARTS} can be matched")
        self._runs = runs
        self._masks = masks
        self._subsets = 1 << parts
        self._places = [0] * self._subsets
        self._confined = [0] * self._subsets
        self._supersets: dict[int, list[int]] = {}
        for run, mask in zip(runs, masks, strict=True):
            self._confined[mask] += run.units
        for part in range(parts):
            bit = 1 << part
            for subset in range(self._subsets):
                if subset & bit:
                    self._places[subset] += deal.parts[part].quantity
                    self._confined[subset] += self._confined[subset ^ bit]

    def _fitting(self, subset: int) -> int:
        """Units that fit at least one of these parts."""
        everything = self._subsets - 1
        return self._confined[everything] - self._confined[everything ^ subset]

    def possible_sets(self) -> int:
        """How many sets the units can fill."""
        return min(self._fitting(subset) // self._places[subset] for subset in range(1, self._subsets))

    def units_missing(self, sets: int) -> int:
        """How many more units so many sets would need."""
        return max(0, *(sets * self._places[subset] - self._fitting(subset) for subset in range(1, self._subsets)))

    def cheaper_sets(self, sets: int, price_minor: int) -> int:
        """Of so many sets those that are dearer than the price; what each further set adds never rises."""
        low, high = 0, sets
        middle = high
        while low < high:
            if _price(self.choose(middle)) - _price(self.choose(middle - 1)) > price_minor:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    def choose(self, sets: int) -> _Taken:
        """The dearest units that fill so many sets."""
        slack = [sets * places for places in self._places]
        full: set[int] = set()
        chosen: _Taken = []
        for run, mask in zip(self._runs, self._masks, strict=True):
            if mask in full:
                continue
            around = self._supersets_of(mask)
            count = min(run.units, *[slack[subset] for subset in around])
            if count < run.units:
                full.add(mask)
            if count:
                for subset in around:
                    slack[subset] -= count
                chosen.append((run, count))
        return chosen

    def assign(self, chosen: _Taken, sets: int, wanted_part: int) -> _Taken:
        """Those of the units chosen for so many sets that stand in one part.

        The parts take their units in order, each the dearest that fit and leave enough for the parts after it.
        """
        mask_of = dict(zip(self._runs, self._masks, strict=True))
        slack = [sets * places for places in self._places]
        for run, count in chosen:
            for subset in self._supersets_of(mask_of[run]):
                slack[subset] -= count
        rest, taken = chosen, chosen
        for part in range(wanted_part + 1):
            bit = 1 << part
            taken, left = [], []
            for run, count in rest:
                here = self._confine(slack, mask_of[run], bit, count)
                taken.append((run, here))
                left.append((run, count - here))
                mask_of[run] &= ~bit
            slack = [slack[subset | bit] for subset in range(self._subsets)]
            rest = [(run, count) for run, count in left if count]
        return [(run, count) for run, count in taken if count]

    def _confine(self, slack: list[int], mask: int, bit: int, count: int) -> int:
        """Keep up to `count` units that fit `mask` for the part of `bit` alone; how many can be spared."""
        if not mask & bit:
            return 0
        tighter = [subset for subset in self._supersets_of(bit) if subset & mask != mask]
        here = min([count, *[slack[subset] for subset in tighter]])
        for subset in tighter:
            slack[subset] -= here
        return here

    def _supersets_of(self, mask: int) -> list[int]:
        """All sets of parts that contain these."""
        subsets = self._supersets.get(mask)
        if subsets is None:
            subsets = self._supersets[mask] = [s for s in range(mask, self._subsets) if s & mask == mask]
        return subsets


# --- gifts ------------------------------------------------------------------------------------------------


class _GiftChooser:
    """How many units may be given, the cheapest first, when those that are given do not count as bought."""

    def __init__(self, deal: Gift, cheapest: list[_Run], paid: list[_Run]) -> None:
        self._deal = deal
        self.cheapest = cheapest
        self._paid = paid
        self._bought_units = sum(run.units for run in paid)
        self._in_scope = {run.line for run in paid}

    def first(self, units: int) -> _Taken:
        """The cheapest `units` units of the goods."""
        given: _Taken = []
        for run in self.cheapest:
            count = min(run.units, units)
            if not count:
                break
            given.append((run, count))
            units -= count
        return given

    def most_units(self) -> int:
        """How many units may be given: the more are given, the fewer were bought, so the border is searched for."""
        quantity, per_units = self._deal.quantity, self._deal.per_units
        available = sum(run.units for run in self.cheapest)
        if per_units is None:
            return min(available, quantity)
        low, high = 0, available
        while low < high:
            middle = (low + high + 1) // 2
            given_in_scope = sum(count for run, count in self.first(middle) if run.line in self._in_scope)
            if middle <= quantity * ((self._bought_units - given_in_scope) // per_units):
                low = middle
            else:
                high = middle - 1
        return low

    def paid_for(self, deals: int, given: _Taken) -> _Taken:
        """The units that were bought for the gifts."""
        gone = dict(given)
        wanted = self._bought_units if self._deal.per_units is None else deals * self._deal.per_units
        paid: _Taken = []
        for run in self._paid:
            count = min(run.units - gone.get(run, 0), wanted)
            if count > 0:
                paid.append((run, count))
                wanted -= count
        return paid
