"""Which promotions may meet on one occasion: on the same goods, at the same time, for the same shopper. Pure.

It errs towards not meeting: goods that are named in different ways (a brand here, a category there) are taken for
different ones, since only the catalogue knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from fractions import Fraction
from typing import Final, NamedTuple

from server.promotions.criteria import (
    AllOf,
    AtTerminals,
    Condition,
    InStores,
    InTiers,
    NotThat,
    OnChannels,
    ReceiptTotal,
    Selector,
    TimeWindow,
)
from server.promotions.model import Promotion

LOOKED_AT: Final = 40
"""Promotions for the same goods that are held against each other: those that give most."""

_ALL_GOODS: Final = ("", "")
_Goods = tuple[str, str]
"""One entry of a scope: what it names goods by, and the name."""


class Giver(NamedTuple):
    """A promotion's place in the file, and the share that it gives."""

    number: int
    promotion: Promotion
    share: Fraction


def together(
    promotions: Sequence[Promotion], share_of: Callable[[Promotion], Fraction], at_least: Fraction
) -> list[tuple[Giver, ...]]:
    """Return sets of two promotions and more that may meet and give so much together, in the order of the file."""
    given = {n: Giver(n, one, share) for n, one in enumerate(promotions) if (share := share_of(one)) > 0}
    # By numbers in their order from here on: promotions and fractions are slow to compare by the hundred thousand.
    order = {one.number: place for place, one in enumerate(sorted(given.values(), key=lambda one: -one.share))}
    known: dict[tuple[int, int], bool] = {}

    def meet(one: int, other: int) -> bool:
        pair = (one, other) if one < other else (other, one)
        if pair not in known:
            known[pair] = may_meet(given[one].promotion, given[other].promotion)
        return known[pair]

    found: set[frozenset[int]] = set()
    for anchors, wider in _of_same_goods(given.values(), order):
        ranked = sorted({*anchors, *wider}, key=order.__getitem__)[:LOOKED_AT]
        for anchor in anchors:
            chosen = [anchor]
            for one in ranked:
                if one != anchor and all(meet(one, other) for other in chosen):
                    chosen.append(one)
            if len(chosen) > 1 and sum(given[one].share for one in chosen) >= at_least:
                found.add(frozenset(chosen))
    return [tuple(given[number] for number in numbers) for numbers in sorted(map(sorted, _widest(found)))]


def _widest(found: Collection[frozenset[int]]) -> list[frozenset[int]]:
    """Return the sets that are no part of another one."""
    having: defaultdict[int, list[frozenset[int]]] = defaultdict(list)
    for each in found:
        for number in each:
            having[number].append(each)
    return [each for each in found if not any(each < other for other in min((having[n] for n in each), key=len))]


def may_meet(first: Promotion, second: Promotion) -> bool:
    """Say whether two promotions may apply to the same goods on one receipt."""
    if first.exclusive or second.exclusive or (first.group is not None and first.group == second.group):
        return False
    if not _overlap(first.valid_from, first.valid_until, second.valid_from, second.valid_until):
        return False
    wanted, other = list(_all_of(first.when)), list(_all_of(second.when))
    return not any(_contradict(one, two) or _contradict(two, one) for one in wanted for two in other)


def _of_same_goods(given: Iterable[Giver], order: Mapping[int, int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the numbers of promotions for some goods and of those for wider goods, each with the greatest first."""
    buckets: defaultdict[_Goods, list[int]] = defaultdict(list)
    for one in given:
        for goods in _entries(one.promotion.scope):
            buckets[goods].append(one.number)
    greatest = {goods: sorted(numbers, key=order.__getitem__)[:LOOKED_AT] for goods, numbers in buckets.items()}
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for goods, numbers in greatest.items():
        wider = [number for above in _wider_goods(goods) for number in greatest.get(above, ())]
        key = (tuple(numbers), tuple(wider))
        if key not in seen:
            seen.add(key)
            yield numbers, wider


def _entries(scope: Selector | None) -> Iterator[_Goods]:
    if scope is None:
        yield _ALL_GOODS
        return
    for kind in ("skus", "categories", "brands", "suppliers", "tags"):
        for name in getattr(scope, kind):
            yield kind, name


def _wider_goods(goods: _Goods) -> Iterator[_Goods]:
    """Yield what is wider: all goods, and the categories above a category."""
    kind, name = goods
    if goods != _ALL_GOODS:
        yield _ALL_GOODS
    if kind == "categories":
        parts = name.split("/")
        for length in range(1, len(parts)):
            yield kind, "/".join(parts[:length])


def _all_of(condition: Condition | None) -> Iterator[Condition]:
    """Yield what must hold: the condition itself, or all parts of a condition that asks for all."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from _all_of(part)
    elif condition is not None:
        yield condition


def _contradict(one: Condition, two: Condition) -> bool:
    """Say whether the first condition can never hold with the second; to be asked both ways."""
    apart = False
    match one, two:
        case (NotThat(part=part), _):
            apart = part == two
        case (InStores(), InStores()):
            apart = not (one.groups or two.groups or one.stores & two.stores)
        case (InTiers(), InTiers()):
            apart = not one.tiers & two.tiers
        case (OnChannels(), OnChannels()):
            apart = not one.channels & two.channels
        case (AtTerminals(), AtTerminals()):
            apart = not one.kinds & two.kinds
        case (ReceiptTotal(at_least_minor=int(least)), ReceiptTotal(below_minor=int(below))):
            apart = least >= below
        case (TimeWindow(), TimeWindow()):
            days = bool(one.weekdays and two.weekdays and not one.weekdays & two.weekdays)
            apart = days or not _overlap(one.first, one.last, two.first, two.last) or _hours_apart(one, two)
        case _:
            pass
    return apart


def _hours_apart(one: TimeWindow, two: TimeWindow) -> bool:
    """Say whether two windows of one day have no minute in common; windows over midnight are not looked at."""
    if any(window.from_minute >= window.until_minute for window in (one, two)):
        return False
    return one.until_minute <= two.from_minute or two.until_minute <= one.from_minute


def _overlap(first: date | None, last: date | None, other_first: date | None, other_last: date | None) -> bool:
    """Say whether two spans of days have a day in common; None is an open end."""
    begins_before = first is None or other_last is None or first <= other_last
    return begins_before and (last is None or other_first is None or other_first <= last)
