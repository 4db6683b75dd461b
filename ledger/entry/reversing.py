"""What of a purchase's uses of limits, gifts and coupons comes back with goods: from what the purchase stored.

As with money and points, everything is a function of how much of each line has come back in all, and a return books the
difference between that function after it and before it: so parts sum to the whole, and their order does not matter.

* Uses of limits come back with the units, the money and the points that they counted; a use that belongs to no line (a
  deal, a use a receipt) in proportion to what it gave, rounded down, so that the last goods bring back the last use.
* Tier points come back with the lines that earned them. Entries into draws that what is left would not have given.
* A coupon that the purchase gave for later is revoked when all of its promotion's goods came back, or when what is left
  is less than the promotion asked for. A coupon that was used comes back when all that it was good for came back.
* Of a purchase that does not say which goods its uses and gifts rest on (of `semantics.FIRST`), they come back with the
  last goods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.counters import changes_of
from ledger.entry.model import CounterChange
from ledger.entry.returns import Goods, goods_of

USES, DRAWS, TIER_POINTS, CLUBS, STANDINGS, VISITS = "use/", "draw/", "tier/", "club/", "standing/", "visit/"
"""How the names of counters begin; see server/promotions/counter_names.py."""

SHARED = "shared/"
"""How the names of budgets begin; the promotion or campaign and the measure follow."""

_BY_OTHER_RULES = (VISITS, CLUBS, STANDINGS)
"""Counters that come back otherwise than in proportion."""


class Membership(NamedTuple):
    """For how many days a membership of a club came back, and whether nothing of it is left."""

    days: int
    is_over: bool


@dataclass(frozen=True, slots=True)
class Reversed:
    """What has come back of a purchase in all.

    ``counters`` are (times, money, points) by key, ``budgets`` amounts by key, ``clubs`` memberships by key.
    ``coupons`` are used ones that come back, ``revoked`` those that the purchase gave and that do not count any more.
    """

    counters: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)
    clubs: dict[str, Membership] = field(default_factory=dict)
    coupons: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)


def reversed_of(event: journal_pb2.Event, returned: Mapping[int, int]) -> Reversed:
    """Return what has come back of a purchase, given the thousandths of each line that came back in all."""
    state = _State(event.purchase, returned)
    result = Reversed()
    for change in changes_of(event):
        if not change.key.startswith(_BY_OTHER_RULES):
            result.counters[change.key] = state.counted(change)
        elif change.key.startswith(CLUBS):
            result.clubs[change.key] = state.membership(change)
    for use in event.budget_uses:
        result.budgets[use.key] = result.budgets.get(use.key, 0) + state.budget(use.key, use.amount)
    result.coupons.extend(outcome.code for outcome in event.purchase.coupons if outcome.used and state.is_back(outcome))
    result.revoked.extend(
        coupon.code for coupon in event.purchase.issued_coupons if coupon.code and state.is_undone(coupon.promotion_id)
    )
    return result


class _State:
    """A purchase of which some goods have come back."""

    def __init__(self, purchase: journal_pb2.Purchase, returned: Mapping[int, int]) -> None:
        self._purchase = purchase
        self._returned = returned
        self._goods = goods_of(purchase)
        self._given = {given.promotion_id: given for given in purchase.given}
        self.is_whole = self._are_back(self._goods)

    def _are_back(self, lines: Iterable[int]) -> bool:
        """Say whether all goods of some lines came back; what rests on no line rests on all."""
        numbers = [number for number in lines if number in self._goods] or list(self._goods)
        return all(self._returned.get(number, 0) == self._goods[number].quantity_milli for number in numbers)

    def _part(self, line_number: int, amount: int) -> int:
        """Return the part of a line's amount that came back."""
        goods = self._goods.get(line_number)
        return 0 if goods is None else goods.part(amount, self._returned.get(line_number, 0))

    def _units(self, line_number: int, units: int) -> int:
        """Return how many uses came back, rounded down: one is only free when all that it gave is back."""
        goods = self._goods.get(line_number, Goods(1, in_units=False))
        return units * self._returned.get(line_number, 0) // goods.quantity_milli

    # --- limits ---

    def counted(self, change: CounterChange) -> tuple[int, int, int]:
        """Return what of a counter's change came back."""
        if change.key.startswith(USES):
            given = [each for each in self._given.values() if _is_owners(change.key, USES, each)]
            if given:
                return self._at_most(change, [self._uses(each) for each in given])
        elif change.key.startswith(TIER_POINTS) and self._given:
            points = sum(
                self._part(line.line_number, line.tier_points_minor)
                for given in self._given.values()
                for line in given.lines
            )
            return change.times if points == change.points_minor else 0, 0, points
        elif change.key.startswith(DRAWS) and self._given:
            return self._entries(change.key.removeprefix(DRAWS)), 0, 0
        return (change.times, change.money_minor, change.points_minor) if self.is_whole else (0, 0, 0)

    def budget(self, key: str, amount: int) -> int:
        """Return what of a shared budget's use came back; the measure follows the owner in the key."""
        given = [each for each in self._given.values() if _is_owners(key, SHARED, each)]
        if not given:
            return amount if self.is_whole else 0
        measure = next(key.removeprefix(f"{SHARED}{o}/") for o in given[0].owners if key.startswith(f"{SHARED}{o}/"))
        place = ("count", "money", "points").index(measure.split("/")[0])
        return min(amount, sum(self._uses(each)[place] for each in given))

    def _at_most(self, change: CounterChange, uses: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
        times, money, points = (sum(column) for column in zip(*uses, strict=True))
        return min(times, change.times), min(money, change.money_minor), min(points, change.points_minor)

    def _uses(self, given: journal_pb2.Given) -> tuple[int, int, int]:
        """Return the uses, the money and the points of a promotion that came back."""
        money = sum(self._part(line.line_number, line.money_minor) for line in given.lines)
        points = sum(self._part(line.line_number, line.points_minor) for line in given.lines)
        times = sum(self._units(line.line_number, line.units) for line in given.lines)
        return times + self._uses_of_no_line(given, money, points), money, points

    def _uses_of_no_line(self, given: journal_pb2.Given, money: int, points: int) -> int:
        """Return the uses that belong to no line and came back: in proportion to the money or the points given."""
        for back, total in (
            (money, sum(line.money_minor for line in given.lines)),
            (points, sum(line.points_minor for line in given.lines)),
        ):
            if total:
                return given.once * back // total
        return given.once if self._are_back(line.line_number for line in given.lines) else 0

    # --- gifts ---

    def is_undone(self, promotion_id: str) -> bool:
        """Say whether what is left of the goods would not have given what a promotion gave."""
        given = self._given.get(promotion_id)
        if given is None:
            return self.is_whole
        if self._are_back(line.line_number for line in given.lines):
            return True
        return any(
            sum(line.amount - self._part(line.line_number, line.amount) for line in least.lines) < least.at_least
            for least in given.least
            if any(self._returned.get(line.line_number) for line in least.lines)
        )

    def _entries(self, draw: str) -> int:
        """Return the entries into a draw that what is left would not have given."""
        back = 0
        for drawn in self._purchase.draws:
            if drawn.draw != draw:
                continue
            given = self._given.get(drawn.promotion_id)
            if given is None or not given.draw_step_minor or self.is_undone(drawn.promotion_id):
                back += drawn.entries if self.is_undone(drawn.promotion_id) else 0
                continue
            paid = sum(line.base_minor for line in given.lines)
            left = sum(line.base_minor - self._part(line.line_number, line.base_minor) for line in given.lines)
            steps = paid // given.draw_step_minor
            back += drawn.entries - drawn.entries * (left // given.draw_step_minor) // max(steps, 1)
        return back

    def membership(self, change: CounterChange) -> Membership:
        """Return how much of a membership came back: the longest that was given, less the longest that stays."""
        club = change.key.removeprefix(CLUBS)
        giving = [given for given in self._given.values() if given.club == club]
        staying = [given.club_days for given in giving if not self.is_undone(given.promotion_id)]
        if giving:
            return Membership(max(given.club_days for given in giving) - max(staying, default=0), not staying)
        if not self.is_whole or change.until is None:
            return Membership(0, is_over=False)
        return Membership(_days_bought(self._purchase, club, change.until), is_over=True)

    # --- coupons ---

    def is_back(self, outcome: common_pb2.CouponOutcome) -> bool:
        """Say whether all that a coupon was good for came back."""
        wanted, lines = set(outcome.promotion_ids), set()
        for effects in self._purchase.effects:
            promotions = {part.promotion_id for part in effects.discounts}
            promotions.update([part.promotion_id for part in effects.accruals])
            if promotions & wanted:
                lines.add(effects.line_number)
        for promotion_id in wanted & self._given.keys():
            lines.update([line.line_number for line in self._given[promotion_id].lines])
        return self._are_back(lines)


def _days_bought(purchase: journal_pb2.Purchase, club: str, until: date) -> int:
    """Return for how many days a purchase of the first semantics gave a membership.

    It was told until when the membership had lasted, if it had one, and began on that day or on its own.
    """
    key = CLUBS + club
    day = purchase.receipt.event_at.ToDatetime(tzinfo=UTC).astimezone(ZoneInfo(purchase.time_zone or "UTC")).date()
    seen = next((date.fromisoformat(each.until) for each in purchase.facts.counters if each.key == key), day)
    return (until - max(seen, day - timedelta(days=1))).days


def _is_owners(key: str, prefix: str, given: journal_pb2.Given) -> bool:
    return any(key.startswith(f"{prefix}{owner}/") for owner in given.owners)
