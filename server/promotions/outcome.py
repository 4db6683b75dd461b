"""The answer: lines and sums, what else promotions give, what is counted, and what people are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from server.promotions.arithmetic import MOST_POINTS_MINOR, spread_largest_remainder
from server.promotions.compile import LiveSet
from server.promotions.conditions import Consulting
from server.promotions.counter_names import counted, kept_until, tier_key
from server.promotions.counts import Count
from server.promotions.earning import points_on
from server.promotions.effects import counts_of
from server.promotions.effects.effect import Gave, Occasion
from server.promotions.facts import (
    AccrualRow,
    CouponUse,
    Effects,
    LineEffects,
    Message,
    ReceiptLine,
    Variance,
    Withheld,
)
from server.promotions.formulas import MONEY_PAID, CompiledPromotion, PointsRule
from server.promotions.given import Gift, given
from server.promotions.hints import near_misses
from server.promotions.kinds import Period, RoundingPer
from server.promotions.messages import MessageFacts, Missing, style_of, write_messages
from server.promotions.model import MessageText, Promotion
from server.promotions.tiers import Standing, standing, standing_changes
from server.promotions.work import EARNING, Work

_new = tuple.__new__  # builds a named tuple in half the time of calling its class; used where every line pays


class More:
    """What promotions give beside discounts and points on goods."""

    __slots__ = ("gave", "gifts", "given_by", "tier_points")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.gave: list[Gave] = []
        self.tier_points = 0
        self.given_by: list[CompiledPromotion] = []
        self.gifts: list[Gift] = []


NOTHING_MORE = More()


def give_more(work: Work, bases: Sequence[int]) -> More:
    """Further effects and tier points of the promotions that hold with something of theirs in the basket."""
    if not work.live.has_more or (work.member is not None and not work.member.can_earn):
        return NOTHING_MORE
    more = More()
    holds = work.step(EARNING).holds
    is_visit = has_prices(work.lines)
    for owner in _further_owners(work):
        if owner.scopes is None and not is_visit:
            continue  # who names goods may give for free ones, as a club does for its card
        if owner.has_more and work.goods(owner) and holds(owner):
            if owner.limits and not work.meter.may_apply_once(owner.id, owner.limits):
                continue
            if _give(work, owner, bases, more):
                more.given_by.append(owner)
                if owner.limits:
                    work.meter.use_once(owner.id, owner.limits)
    return more


def _further_owners(work: Work) -> list[CompiledPromotion]:
    """Promotions with further effects or near misses that have something to do with this receipt, by rank."""
    found = {owner.rank: owner for candidates in work.candidates for owner in candidates.more}
    found.update((owner.rank, owner) for owner in (*work.gated, *work.rights) if owner.has_more or owner.near_miss)
    return [found[rank] for rank in sorted(found)]


def _give(work: Work, owner: CompiledPromotion, bases: Sequence[int], more: More) -> bool:
    """Give what one promotion gives; whether it was anything."""
    positions = work.goods(owner)
    paid = {i: bases[i] for i in positions}
    gave = False
    if owner.further:
        facts = work.facts
        occasion = _new(Occasion, (owner.id, facts.day, sum(paid.values()), facts))
        for effect in owner.further:
            found = effect.give(occasion)
            if found is not None:
                more.gave.append(found)
                gave = True
    tier_points = _cut_to_books(_tier_points(work, owner, bases), MOST_POINTS_MINOR - more.tier_points)
    total = sum(tier_points.values())
    more.tier_points += total
    if not gave and total <= 0:
        return False
    more.gifts.append(Gift(owner, paid, tier_points))
    return True


def _tier_points(work: Work, owner: CompiledPromotion, bases: Sequence[int]) -> dict[int, int]:
    """The tier points of a promotion by the places of its lines; those of a receipt are spread by what was paid."""
    rule = owner.tier_points
    positions = [] if rule is None else [i for i in work.earning(owner) if bases[i] > 0]
    if rule is None or not positions:
        return {}
    paid = [bases[i] for i in positions]
    if not isinstance(rule, PointsRule):
        total = rule.grant(sum(paid))
    elif work.rules.programme.earning.rounding_per is RoundingPer.RECEIPT and rule.formula[1] == MONEY_PAID:
        total = points_on(rule.formula, sum(paid), work.lines[positions[0]])
    else:
        lines = work.earning_lines()
        return {i: points_on(rule.formula, bases[i], lines[i]) for i in positions}
    return dict(zip(positions, spread_largest_remainder(total, paid), strict=True))


def _cut_to_books(tier_points: Mapping[int, int], room: int) -> dict[int, int]:
    """The tier points as far as the books can hold them, in the order of lines, so that they sum to what counts."""
    kept: dict[int, int] = {}
    for i, points in tier_points.items():
        kept[i] = min(points, room)
        room -= kept[i]
    return kept


# --- the answer -------------------------------------------------------------------------------------------


class Payment(NamedTuple):
    """What points may pay of each line, in how many steps at most, and what they do pay (nothing: empty)."""

    limits: list[int]
    max_steps: int
    points_money: Sequence[int]


def effects_of(
    work: Work,
    payment: Payment,
    accruals: Sequence[Sequence[AccrualRow]],
    more: More = NOTHING_MORE,
    variances: tuple[Variance, ...] = (),
) -> Effects:
    """Put the answer together."""
    rules, left = work.rules, work.left
    spending = rules.programme.spending
    limits, max_steps, points_money = payment
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
    own_points = sum([accrual[2] for line in accruals for accrual in line if not accrual[3]])
    is_eventful = bool(work.withheld or work.is_metered or rules.speakers or work.rights or work.live.has_more)
    counts = _counts(work, payable_minor - spent_money, own_points, more)
    told = _Told(work, lines, more, counts) if is_eventful else None
    return Effects(
        programme_version=rules.version,
        lines=lines,
        discount_minor=sum([line[7] for line in work.lines]) - payable_minor,
        payable_minor=payable_minor,
        max_spend_points_minor=max_steps * spending.step_points_minor,
        max_spend_money_minor=max_steps * spending.step_money_minor,
        spent_points_minor=-(-spent_money * spending.step_points_minor // spending.step_money_minor),
        spent_money_minor=spent_money,
        accrual_points_minor=own_points,
        messages=told.messages() if told is not None else (),
        settings=rules.settings,
        variances=variances,
        counts=counts,
        shared=work.meter.shared_uses() if work.is_metered else (),
        capped=work.meter.capped() if work.is_metered else (),
        withheld=_withheld(work) if work.withheld else (),
        coupons=told.coupons() if told is not None and work.receipt.coupons else (),
        gave=tuple(more.gave),
        tier_points_minor=more.tier_points,
        consulted=work.consulted,
        given=given(work, lines, more.gifts) if work.is_metered or more.gifts else (),
    )


def _withheld(work: Work) -> tuple[Withheld, ...]:
    return tuple(Withheld(work.rules.promotions[rank].id, "control") for rank in sorted(work.withheld))


def _counts(work: Work, money_minor: int, points_minor: int, more: More) -> tuple[Count, ...]:
    """What the receipt adds to the member's counters."""
    if work.member is None:
        return ()
    day = work.receipt.local_at.date()
    counts = visit_counts(work.live, day, money_minor, points_minor) if has_prices(work.lines) else []
    if work.is_metered:
        counts += work.meter.counts()
    if more is not NOTHING_MORE:
        counts += counts_of(more.gave)
        if more.tier_points:
            until = kept_until(Period.MONTH, day)
            counts.append(Count(tier_key(day), times=1, points_minor=more.tier_points, until=until))
    tiers = work.rules.programme.tiers
    if tiers is not None:
        changes, _ = standing_changes(tiers, Consulting(work.facts), counts, day)
        counts += changes
    return tuple(counts)


def has_prices(lines: Iterable[ReceiptLine]) -> bool:
    """Whether anything on a receipt has a price, be it that discounts make it free: else it is no visit."""
    return any(line[7] for line in lines)


def visit_counts(live: LiveSet, day: date, money_minor: int, points_minor: int) -> list[Count]:
    """What every receipt of a member on which something has a price adds to the counters of visits."""
    return [_new(Count, (key, 1, money_minor, points_minor, until)) for key, until in live.visit_keys(day)]


def promotions_on(lines: Iterable[LineEffects]) -> set[str]:
    """The promotions that took something off a line or granted points for it."""
    found: set[str] = set()
    for _, discounts, _, _, _, _, accruals in lines:
        found.update([row[0] for row in discounts], [row[0] for row in accruals])
    return found


def message_facts(promotion: Promotion, lines: Iterable[LineEffects]) -> MessageFacts:
    """What a promotion did on the lines, for its texts."""
    discount_minor = points_minor = 0
    for _, discounts, _, _, _, _, accruals in lines:
        discount_minor += sum(row[1] for row in discounts if row[0] == promotion.id)
        points_minor += sum(row[2] for row in accruals if row[0] == promotion.id)
    return MessageFacts(promotion.name, discount_minor, points_minor)


class _Told:
    """Which promotions had an effect, by how much, and what is said about it."""

    def __init__(self, work: Work, lines: Sequence[LineEffects], more: More, counts: Sequence[Count]) -> None:
        self._work = work
        self._counts = counts
        self._lines = lines
        self._language = work.member.language if work.member is not None else ""
        self._more = more
        self._given_by: set[str] | None = None

    def _ids(self) -> set[str]:
        """The promotions that had an effect."""
        if self._given_by is None:
            self._given_by = promotions_on(self._lines)
            self._given_by.update(owner.id for owner in self._more.given_by)
        return self._given_by

    def coupons(self) -> tuple[CouponUse, ...]:
        """The coupons because of which promotions had an effect, in the order in which they were presented."""
        work = self._work
        promotions: dict[str, list[str]] = {}
        for right in work.rights:
            if right.id in self._ids():
                for code in work.coupons.get(right.rank, ()):
                    promotions.setdefault(code, []).append(right.id)
        presented = dict.fromkeys(coupon.code for coupon in work.receipt.coupons)
        return tuple(CouponUse(code, tuple(promotions[code])) for code in presented if code in promotions)

    def messages(self) -> tuple[Message, ...]:
        """Texts of promotions that had an effect, then of those that nearly had one, each by rank."""
        work, rules = self._work, self._work.rules
        found: list[Message] = []
        speaking = rules.speakers.keys() & self._ids() if rules.speakers else ()
        for rank in sorted(rules.rank_of[i] for i in speaking):
            owner = rules.compiled(rank, work.live.partner)
            said = rules.speakers[owner.id].fixed(self._language)
            found += self._written(owner, owner.promotion.messages, Missing()) if said is None else said
        if work.live.has_more:
            owners = [owner for owner in _further_owners(work) if owner.near_miss is not None]
            for owner, missing in near_misses(work, owners):
                if owner.near_miss is not None:
                    found += self._written(owner, owner.near_miss.messages, missing)
        return tuple(found)

    def _written(self, owner: CompiledPromotion, texts: Sequence[MessageText], missing: Missing) -> list[Message]:
        work = self._work
        facts = message_facts(owner.promotion, self._lines)._replace(
            missing=missing,
            standing=self._standing() if any("tier}" in one for text in texts for one in text.texts.values()) else None,
            uses_left=work.meter.uses_left(owner.limits) if owner.limits else None,
        )
        return write_messages(texts, owner.id, self._language, style_of(work.rules.programme), facts)

    def _standing(self) -> Standing | None:
        """The member's level after this receipt."""
        work, tiers = self._work, self._work.rules.programme.tiers
        if tiers is None or work.member is None:
            return None
        return standing(tiers, counted(work.usage.member if work.usage else {}, self._counts), work.facts.day)
