"""Limits and control groups: what of a promotion is left for a receipt, what it uses, who gets nothing on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from hashlib import sha256
from typing import NamedTuple

from server.promotions.conditions import Facts
from server.promotions.counter_names import kept_until, shared_key, use_key
from server.promotions.counts import Count
from server.promotions.facts import Capped, SharedUse
from server.promotions.kinds import LimitScope, Measure
from server.promotions.model import Limit, Programme, Promotion

_MILLION = 10**6


# --- control groups ---------------------------------------------------------------------------------------

Control = tuple[str, Fraction]
"""The salt and the share of a control group."""


def control_salts(programme: Programme, promotion: Promotion) -> tuple[Control, ...]:
    """The control groups of a promotion: its campaign's and its own. The programme's keeps out of all promotions."""
    found = [
        (f"@{campaign.id}", campaign.control_share)
        for campaign in programme.campaigns
        if campaign.id == promotion.campaign
    ]
    found.append((promotion.id, promotion.control_share))
    return tuple((salt, share) for salt, share in found if share)


def is_in_control(member_id: str, salt: str, share: Fraction) -> bool:
    """Whether a member is in the control group of a share of all members: the same answer always and everywhere.

    The first 8 bytes of SHA-256 of "<salt>|<member id>", as a number modulo a million, below the share of a million.
    """
    digest = sha256(f"{salt}|{member_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _MILLION * share.denominator < share.numerator * _MILLION


# --- limits -----------------------------------------------------------------------------------------------


class BoundLimit(NamedTuple):
    """A limit with its owner: the promotion's id, or "@" and its campaign's."""

    owner: str
    limit: Limit


def bound_limits(programme: Programme, promotion: Promotion) -> tuple[BoundLimit, ...]:
    """The limits of a promotion: its own and its campaign's."""
    found = [BoundLimit(promotion.id, limit) for limit in promotion.limits]
    for campaign in programme.campaigns:
        if campaign.id == promotion.campaign:
            found += [BoundLimit(f"@{campaign.id}", limit) for limit in campaign.limits]
    return tuple(found)


def limit_text(limit: Limit) -> str:
    """A limit in words: "count 3 a member each day"."""
    scope = {LimitScope.ALL: "for all", LimitScope.RECEIPT: "a receipt"}.get(limit.scope, f"a {limit.scope.value}")
    each = "" if limit.period is None else f" each {limit.period.value}"
    return f"{limit.measure.value} {limit.at_most} {scope}{each}"


class _Uses:
    """What one promotion used on a receipt: units of goods, what counts once (deals, or the receipt), money, points."""

    __slots__ = ("money_minor", "once", "points", "units")

    def __init__(self, units: int = 0, once: int = 0, money_minor: int = 0, points: int = 0) -> None:
        self.units = units
        self.once = once
        self.money_minor = money_minor
        self.points = points

    @property
    def times(self) -> int:
        return self.units + self.once

    def copy(self) -> _Uses:
        return _Uses(self.units, self.once, self.money_minor, self.points)


class Used(NamedTuple):
    """What one promotion used on a receipt beside units and money of its lines, and for whose limits."""

    promotion_id: str
    owners: tuple[str, ...]
    once: int
    points: int


class Meter:
    """What the limits of the promotions on one receipt leave, and what was used of them.

    `fork` gives a copy to try something on; the fork whose outcome is kept takes the meter's place.
    """

    __slots__ = ("_cuts", "_facts", "_left", "_limits", "_uses")

    def __init__(self, facts: Facts) -> None:
        """Begin with what was used before this receipt."""
        self._facts = facts
        self._left: dict[BoundLimit, int] = {}
        self._limits: dict[str, tuple[BoundLimit, ...]] = {}
        self._uses: dict[str, _Uses] = {}
        self._cuts: dict[tuple[str, BoundLimit], tuple[int, int]] = {}

    def fork(self) -> Meter:
        """A copy that can be tried and thrown away."""
        other = Meter(self._facts)
        other._left, other._limits = dict(self._left), self._limits
        other._uses = {key: uses.copy() for key, uses in self._uses.items()}
        other._cuts = dict(self._cuts)
        return other

    def left(self, limits: Iterable[BoundLimit], measure: Measure) -> int | None:
        """What the limits of a measure leave; None if there is none."""
        amounts = [self._left_of(bound) for bound in limits if bound.limit.measure is measure]
        return min(amounts, default=None)

    def grant(self, promotion_id: str, limits: Iterable[BoundLimit], measure: Measure, wanted: int) -> int:
        """Cut `wanted` to what the limits leave, and note the cut; nothing is used yet."""
        granted = wanted
        for bound in limits:
            if bound.limit.measure is measure:
                before, granted = granted, min(granted, self._left_of(bound))
                key = (promotion_id, bound)
                so_far = self._cuts.get(key, (0, 0))
                self._cuts[key] = (so_far[0] + before, so_far[1] + granted)
        return granted

    def use(
        self,
        promotion_id: str,
        limits: tuple[BoundLimit, ...],
        *,
        times: int = 0,
        once: int = 0,
        money_minor: int = 0,
        points: int = 0,
    ) -> None:
        """Book uses: `times` are units of goods, `once` what belongs to no line."""
        self._limits[promotion_id] = limits
        uses = self._uses.setdefault(promotion_id, _Uses())
        uses.units += times
        uses.once += once
        uses.money_minor += money_minor
        uses.points += points
        self._take(limits, times + once, money_minor, points)

    def may_apply_once(self, promotion_id: str, limits: tuple[BoundLimit, ...]) -> bool:
        """Whether a promotion may do what it does once a receipt: it is in use already, or its count is not up."""
        if self.is_used(promotion_id):
            return True
        used_up = [b for b in limits if b.limit.measure is Measure.COUNT and self._left_of(b) < 1]
        for bound in used_up:
            self._cuts[promotion_id, bound] = (1, 0)
        return not used_up

    def use_once(self, promotion_id: str, limits: tuple[BoundLimit, ...], points: int = 0) -> None:
        """Book a use that counts once a receipt, whatever else the promotion does on it."""
        self.use(promotion_id, limits, once=0 if self.is_used(promotion_id) else 1, points=points)

    def is_used(self, promotion_id: str) -> bool:
        """Whether a use has been counted on this receipt."""
        uses = self._uses.get(promotion_id)
        return uses is not None and uses.times > 0

    def forget(self, promotion_id: str, units: int, money_minor: int) -> None:
        """The register did not apply a discount that used so much: it doesn't count."""
        uses = self._uses.get(promotion_id)
        if uses is None:
            return
        uses.units -= units
        uses.money_minor -= money_minor
        once = uses.once if money_minor and not uses.money_minor else 0
        uses.once -= once
        self._take(self._limits[promotion_id], -units - once, -money_minor, 0)

    # --- what comes of it ---

    def used(self) -> Iterator[Used]:
        """What each promotion used that counts for a limit of a member, a store or all."""
        for promotion_id, uses in self._uses.items():
            bounds = [b for b in self._limits[promotion_id] if b.limit.scope is not LimitScope.RECEIPT]
            if bounds and (uses.times or uses.money_minor or uses.points):
                owners = tuple(dict.fromkeys(bound.owner for bound in bounds))
                yield Used(promotion_id, owners, uses.once, uses.points)

    def counts(self) -> Iterator[Count]:
        """What the receipt adds to the member's counters of uses, one for each owner and period of its limits."""
        sums: dict[tuple[str, str], Count] = {}
        day = self._facts.day
        for promotion_id, uses in self._uses.items():
            wanted = {
                (bound.owner, bound.limit.period)
                for bound in self._limits[promotion_id]
                if bound.limit.scope is LimitScope.MEMBER
            }
            for owner, period in wanted:
                key = use_key(owner, period, day)
                old = sums.get((owner, key), Count(key, until=kept_until(period, day)))
                sums[owner, key] = old._replace(
                    times=old.times + uses.times,
                    money_minor=old.money_minor + uses.money_minor,
                    points_minor=old.points_minor + uses.points,
                )
        return (count for _, count in sorted(sums.items()) if count.times or count.money_minor or count.points_minor)

    def shared_uses(self) -> tuple[SharedUse, ...]:
        """What the receipt uses of limits that members share."""
        sums: dict[BoundLimit, int] = {}
        for promotion_id, uses in self._uses.items():
            for bound in self._limits[promotion_id]:
                if bound.limit.scope in (LimitScope.STORE, LimitScope.ALL):
                    sums[bound] = sums.get(bound, 0) + _measured(bound, uses.times, uses.money_minor, uses.points)
        found = [SharedUse(self._shared_key(bound), amount, bound.limit.at_most) for bound, amount in sums.items()]
        return tuple(sorted(use for use in found if use.amount > 0))

    def capped(self) -> tuple[Capped, ...]:
        """What limits cut, by promotion and limit."""
        return tuple(
            Capped(promotion_id, bound.limit.measure, wanted, granted, limit_text(bound.limit))
            for (promotion_id, bound), (wanted, granted) in self._cuts.items()
            if granted < wanted
        )

    def uses_left(self, limits: Iterable[BoundLimit]) -> int | None:
        """How often the member may still use a promotion after this receipt; None without such a limit."""
        lefts = [
            self._left_of(bound)
            for bound in limits
            if bound.limit.measure is Measure.COUNT and bound.limit.scope is LimitScope.MEMBER
        ]
        return min(lefts, default=None)

    # --- inside ---

    def _shared_key(self, bound: BoundLimit) -> str:
        return shared_key(bound.owner, bound.limit, self._facts.receipt.store_id, self._facts.day)

    def _left_of(self, bound: BoundLimit) -> int:
        left = self._left.get(bound)
        if left is None:
            left = self._left[bound] = max(0, self._left_before(bound))
        return left

    def _left_before(self, bound: BoundLimit) -> int:
        limit, facts = bound.limit, self._facts
        if limit.scope in (LimitScope.STORE, LimitScope.ALL):
            return facts.shared_left(self._shared_key(bound), limit.at_most)
        if limit.scope is LimitScope.RECEIPT or facts.member is None:
            return limit.at_most
        used = facts.get(use_key(bound.owner, limit.period, facts.day))
        return limit.at_most - _measured(bound, used.times, used.money_minor, used.points_minor)

    def _take(self, limits: Iterable[BoundLimit], times: int, money_minor: int, points: int) -> None:
        for bound in limits:
            amount = _measured(bound, times, money_minor, points)
            if amount:
                self._left[bound] = self._left_of(bound) - amount


def _measured(bound: BoundLimit, times: int, money_minor: int, points: int) -> int:
    measure = bound.limit.measure
    return times if measure is Measure.COUNT else money_minor if measure is Measure.MONEY else points
