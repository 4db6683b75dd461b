"""What a backtest adds up: sums that are the same in whatever parts and order receipts come, and merge. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b
from typing import NamedTuple

from server.promotions import Effects
from server.rules.backtest.simulation import Case
from server.rules.comparing import differing_lines

TOP = 20
"""Receipts with the greatest differences that are kept."""


class Cost(NamedTuple):
    """What rules give: discounts and points of the programme's own unit, in minor units."""

    discount_minor: int = 0
    points_minor: int = 0

    def plus(self, other: Cost) -> Cost:
        """Return both added up."""
        return Cost(self.discount_minor + other.discount_minor, self.points_minor + other.points_minor)


class PromotionCost(NamedTuple):
    """What one promotion gives, over receipts: on how many, discounts, points, and points of further units."""

    receipts: int = 0
    discount_minor: int = 0
    points_minor: int = 0
    further_points_minor: int = 0


class Different(NamedTuple):
    """A receipt on which the two differ; `weight` is by how much, in minor units of money."""

    weight: int
    name: str
    live: Cost
    draft: Cost


_NOTHING = Cost()


_Sums = dict[str, list[int]]
"""The numbers of a `PromotionCost` by promotion; lists, since every line of every receipt adds to them."""


@dataclass(slots=True)
class Tally:
    """Sums over receipts. Members and articles are kept as short hashes, so memory does not grow with receipts.

    `old` are receipts of older semantics, `mended` those of them that today's judge otherwise, by what was mended.
    """

    money_per_points: Fraction
    receipts: int = 0
    with_member: int = 0
    old: int = 0
    mended: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    left_out: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    affected: int = 0
    booked: Cost = _NOTHING
    live: Cost = _NOTHING
    draft: Cost = _NOTHING
    members: set[int] = field(default_factory=set)
    skus: set[str] = field(default_factory=set)
    live_sums: _Sums = field(default_factory=dict)
    draft_sums: _Sums = field(default_factory=dict)
    top: list[Different] = field(default_factory=list)

    @property
    def live_promotions(self) -> dict[str, PromotionCost]:
        """Return what each promotion gives now."""
        return {name: PromotionCost(*sums) for name, sums in self.live_sums.items()}

    @property
    def draft_promotions(self) -> dict[str, PromotionCost]:
        """Return what each promotion of the draft gives."""
        return {name: PromotionCost(*sums) for name, sums in self.draft_sums.items()}

    def leave_out(self, why: str) -> None:
        """Count a receipt that could not be judged."""
        self.left_out[why] += 1

    def add(self, case: Case, live: Effects, draft: Effects) -> None:
        """Add a receipt, as both have judged it."""
        earns = case.member is not None
        before, after = _cost(live, earns=earns), _cost(draft, earns=earns)
        self.receipts += 1
        self.with_member += earns
        self.booked = self.booked.plus(Cost(case.discount_minor, case.points_minor))
        self.live, self.draft = self.live.plus(before), self.draft.plus(after)
        _add_promotions(self.live_sums, live, earns=earns)
        _add_promotions(self.draft_sums, draft, earns=earns)
        differing = differing_lines(live, draft, earns=earns)
        if not differing:
            return
        self.affected += 1
        if case.member is not None:
            self.members.add(_short(case.member.member_id))
        skus = {line.line_number: line.sku for line in case.receipt.lines}
        self.skus.update(skus[number] for number in differing)
        self._keep(Different(self._weight(before, after), case.name, before, after))

    def merge(self, other: Tally) -> None:
        """Add what was added up of other receipts."""
        self.receipts += other.receipts
        self.with_member += other.with_member
        self.affected += other.affected
        self.old += other.old
        for kinds, number in other.mended.items():
            self.mended[kinds] += number
        for why, number in other.left_out.items():
            self.left_out[why] += number
        self.booked = self.booked.plus(other.booked)
        self.live, self.draft = self.live.plus(other.live), self.draft.plus(other.draft)
        self.members |= other.members
        self.skus |= other.skus
        _merge(self.live_sums, other.live_sums)
        _merge(self.draft_sums, other.draft_sums)
        for one in other.top:
            self._keep(one)

    def value_minor(self, cost: Cost) -> int:
        """Return what something costs in money: discounts, and points at what they pay, rounded down."""
        return cost.discount_minor + int(cost.points_minor * self.money_per_points)

    def _weight(self, live: Cost, draft: Cost) -> int:
        return abs(self.value_minor(draft) - self.value_minor(live))

    def _keep(self, one: Different) -> None:
        if len(self.top) < TOP:
            heapq.heappush(self.top, one)
        else:
            heapq.heappushpop(self.top, one)


def _cost(effects: Effects, *, earns: bool) -> Cost:
    return Cost(effects.discount_minor, effects.accrual_points_minor if earns else 0)


def _add_promotions(sums: _Sums, effects: Effects, *, earns: bool) -> None:
    seen: set[str] = set()
    for line in effects.lines:
        for promotion_id, amount_minor in line.discounts:
            _sums_of_promotion(sums, promotion_id, seen)[1] += amount_minor
        for promotion_id, _, points_minor, unit, _ in line.accruals if earns else ():
            _sums_of_promotion(sums, promotion_id, seen)[3 if unit else 2] += points_minor


def _sums_of_promotion(sums: _Sums, promotion_id: str, seen: set[str]) -> list[int]:
    """Return a promotion's numbers; a receipt counts once."""
    numbers = sums.get(promotion_id)
    if numbers is None:
        numbers = sums[promotion_id] = [0, 0, 0, 0]
    if promotion_id not in seen:
        seen.add(promotion_id)
        numbers[0] += 1
    return numbers


def _merge(sums: _Sums, more: _Sums) -> None:
    for promotion_id, numbers in more.items():
        before = sums.get(promotion_id, [0, 0, 0, 0])
        sums[promotion_id] = [one + other for one, other in zip(before, numbers, strict=True)]


def _short(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
