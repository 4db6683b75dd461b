"""Conditions: whether they hold on a receipt, what they measure, and what they need to hold at all.

Conditions are asked of a `Moment`: the receipt as it stands when a step begins. Those about the member (birthday,
level, segment, club, age, visits, spend, offers) fail without a member; `NotThat` negates whatever its part answers,
so "not in the segment" holds for somebody without a card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from server.promotions.arithmetic import counted_units, in_birthday_window
from server.promotions.counter_names import visit_key
from server.promotions.criteria import (
    AllOf,
    AnyOf,
    AtTerminals,
    BasketCount,
    BirthdayWindow,
    Condition,
    CouponShown,
    InClub,
    InSegments,
    InStores,
    InTiers,
    MemberAge,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SpendSoFar,
    TimeWindow,
    VisitNumber,
)
from server.promotions.effects.club import club_key
from server.promotions.facts import CounterFact, MemberFacts, ReceiptFacts, ReceiptLine, Usage
from server.promotions.model import NearMiss, Tiers
from server.promotions.scope import LinesByName, category_prefixes
from server.promotions.tenders import counted_tenders
from server.promotions.tiers import standing

Positions = Callable[[], Sequence[int]]
"""The positions of the lines that a promotion may work on."""

_MINUTES_PER_HOUR = 60
_DAYS_PER_WEEK = 7
_NOTHING = CounterFact()
_NOTHING_USED = Usage()


class Facts:
    """What conditions may know of one receipt and its member; `consulted` notes the counters that were looked at."""

    __slots__ = (
        "_birthdays",
        "_by_name",
        "_selected",
        "_tier",
        "codes",
        "consulted",
        "day",
        "lines",
        "member",
        "receipt",
        "series",
        "usage",
    )

    def __init__(
        self, receipt: ReceiptFacts, lines: Sequence[ReceiptLine], member: MemberFacts | None, usage: Usage | None
    ) -> None:
        """Take the receipt with its lines in the order of their numbers."""
        self.receipt = receipt
        self.lines = lines
        self.member = member
        self.usage = usage or _NOTHING_USED
        self.day = receipt.local_at.date()
        self.series = frozenset(coupon.series for coupon in receipt.coupons if coupon.series)
        self.codes = frozenset(coupon.code for coupon in receipt.coupons)
        self.consulted: set[str] = set()
        self._tier: str | None = None
        self._birthdays: dict[tuple[int, int], bool] = {}
        self._by_name: LinesByName | None = None
        self._selected: dict[int, tuple[Selector, list[int]]] = {}

    def get(self, key: str, default: CounterFact = _NOTHING) -> CounterFact:
        """One of the member's counters."""
        self.consulted.add(key)
        return self.usage.member.get(key, default)

    def shared_left(self, key: str, whole: int) -> int:
        """What is left of a limit that members share."""
        self.consulted.add(key)
        return self.usage.shared.get(key, 0 if self.usage.only_shared_known else whole)

    def tier(self, tiers: Tiers | None) -> str:
        """The member's level; empty without one."""
        if self._tier is None:
            given = self.member.tier if self.member is not None else ""
            if given is None:
                given = standing(tiers, Consulting(self), self.day).tier if tiers is not None else ""
            self._tier = given
        return self._tier

    def has_birthday(self, days_before: int, days_after: int) -> bool:
        """Whether the day is in a window around the member's birthday."""
        window = (days_before, days_after)
        answer = self._birthdays.get(window)
        if answer is None:
            answer = self._birthdays[window] = self._is_in_window(window)
        return answer

    def _is_in_window(self, window: tuple[int, int]) -> bool:
        member = self.member
        if member is None:
            return False
        if member.birthday_windows is not None:
            return window in member.birthday_windows
        return member.birthday is not None and in_birthday_window(member.birthday, self.day, *window)

    def selected(self, goods: Selector) -> Sequence[int]:
        """The positions of the lines that a selector means; looked for once."""
        found = self._selected.get(id(goods))
        if found is None:
            if self._by_name is None:
                self._by_name = LinesByName(self.lines)
            found = (goods, self._by_name.positions(goods))
            self._selected[id(goods)] = found
        return found[1]


class Consulting(Mapping[str, CounterFact]):
    """A member's counters; which of them were looked at is noted in the facts."""

    def __init__(self, facts: Facts) -> None:
        """Look through to the counters of these facts."""
        self._facts = facts

    def __getitem__(self, key: str) -> CounterFact:
        """One counter."""
        self._facts.consulted.add(key)
        return self._facts.usage.member[key]

    def __iter__(self) -> Iterator[str]:
        """The names of all counters."""
        return iter(self._facts.usage.member)

    def __len__(self) -> int:
        """How many counters there are."""
        return len(self._facts.usage.member)


class Moment(NamedTuple):
    """The receipt when a step begins: what each line costs, and all of them.

    `towards` is the same without what the promotion gives, which does not count towards its threshold (None: it gives
    nothing); there `lines` are the lines without it.
    """

    facts: Facts
    tiers: Tiers | None
    amounts: Sequence[int]
    total_minor: int
    lines: Sequence[ReceiptLine] | None = None
    towards: Moment | None = None


class Asked(NamedTuple):
    """For which promotion a condition is asked, when, and the lines that it may work on."""

    moment: Moment
    promotion_id: str
    positions: Positions


def check(condition: Condition, moment: Moment, promotion_id: str, positions: Positions) -> bool:
    """Whether a condition of a promotion holds; `positions` are its lines at that moment."""
    return _ask(condition, Asked(moment, promotion_id, positions))


def _ask(condition: Condition, asked: Asked) -> bool:
    return _CHECKS[type(condition)](condition, asked)


# --- leaves that measure ----------------------------------------------------------------------------------


class Bounds(NamedTuple):
    """At least (included) and below (excluded) what a measured leaf holds; None: no bound."""

    at_least: int | None
    below: int | None


def bounds(leaf: Condition) -> Bounds | None:
    """Between which numbers a leaf holds; None for leaves that measure nothing."""
    match leaf:
        case ReceiptTotal(at_least, below) | ScopeTotal(at_least, below) | MemberAge(at_least, below):
            return Bounds(at_least, below)
        case BasketCount() | VisitNumber():
            return Bounds(leaf.at_least, leaf.below)
        case SpendSoFar():
            return Bounds(leaf.at_least_minor, leaf.below_minor)
        case PaidBy():
            return Bounds(1 if leaf.at_least_minor is None else leaf.at_least_minor, None)
    return None


def measured(leaf: Condition, moment: Moment, positions: Positions) -> int | None:
    """What a leaf with bounds measures: minor units of money, units, thousandths, days or visits.

    None if there is nothing to measure: no member, or a leaf without bounds.
    """
    facts = moment.facts
    number: int | None = None
    match leaf:
        case ReceiptTotal():
            number = moment.total_minor
        case ScopeTotal():
            number = sum(moment.amounts[i] for i in positions())
        case BasketCount():
            number = _basket_count(leaf, moment, positions)
        case PaidBy():
            number = _paid_by(leaf, moment)
        case VisitNumber(period) if facts.member is not None:
            number = facts.get(visit_key(period, facts.day)).times + 1
        case SpendSoFar(period) if facts.member is not None:
            number = facts.get(visit_key(period, facts.day)).money_minor
        case MemberAge() if facts.member is not None:
            number = member_age_days(facts.member, facts.day)
    return number


def towards(leaf: Condition, moment: Moment, positions: Positions) -> int:
    """What counts towards the threshold of a leaf: what it measures, without what the promotion gives."""
    return measured(leaf, moment if moment.towards is None else moment.towards, positions) or 0


def under_not(moment: Moment) -> Moment:
    """The moment as what must not be sees it: "not below" is a threshold, and "not at least" is none."""
    if moment.towards is None:
        return moment
    return moment.towards._replace(towards=moment._replace(towards=None))


def member_age_days(member: MemberFacts, day: date) -> int | None:
    """For how many days somebody has been a member; None if it is not known."""
    if member.age_days is not None or member.registered_on is None:
        return member.age_days
    return (day - member.registered_on).days


def _basket_count(leaf: BasketCount, moment: Moment, positions: Positions) -> int:
    lines = moment.facts.lines if moment.lines is None else moment.lines
    goods = positions() if leaf.goods is None else moment.facts.selected(leaf.goods)
    return count_goods(leaf.what, [lines[i] for i in goods], [moment.amounts[i] for i in goods], leaf.category_levels)


def count_goods(what: str, lines: Sequence[ReceiptLine], amounts: Iterable[int], category_levels: int = 0) -> int:
    """What goods come to: `amount`, `quantity`, `weight` or `categories`, as in BasketCount."""
    if what == "amount":
        return sum(amounts)
    if what == "quantity":
        return sum(counted_units(line.quantity_milli, line.is_weighed) for line in lines)
    if what == "weight":
        return sum(line.quantity_milli for line in lines if line.is_weighed)
    return len({_cut_category(line.category, category_levels) for line in lines if line.quantity_milli})


def _cut_category(category: str, levels: int) -> str:
    prefixes = category_prefixes(category)
    return prefixes[min(levels, len(prefixes)) - 1] if levels else category


def _paid_by(leaf: PaidBy, moment: Moment) -> int:
    return sum(
        tender.amount_minor
        for tender in counted_tenders(moment.facts.receipt.tenders, moment.total_minor)
        if tender.kind in leaf.kinds and (not leaf.bin_prefixes or tender.card_bin.startswith(leaf.bin_prefixes))
    )


def _check_measured(leaf: Condition, asked: Asked) -> bool:
    number, limits = measured(leaf, asked.moment, asked.positions), bounds(leaf)
    if number is None or limits is None:
        return False
    if isinstance(leaf, VisitNumber) and leaf.every is not None and number % leaf.every:
        return False
    if limits.below is not None and number >= limits.below:
        return False
    return limits.at_least is None or towards(leaf, asked.moment, asked.positions) >= limits.at_least


# --- leaves that ask --------------------------------------------------------------------------------------


def _check_birthday(leaf: BirthdayWindow, asked: Asked) -> bool:
    return asked.moment.facts.has_birthday(leaf.days_before, leaf.days_after)


def _check_stores(leaf: InStores, asked: Asked) -> bool:
    receipt = asked.moment.facts.receipt
    return receipt.store_id in leaf.stores or not leaf.groups.isdisjoint(receipt.store_groups)


def _check_channels(leaf: OnChannels, asked: Asked) -> bool:
    return asked.moment.facts.receipt.channel in leaf.channels


def _check_terminals(leaf: AtTerminals, asked: Asked) -> bool:
    return asked.moment.facts.receipt.terminal_kind in leaf.kinds


def _check_time(leaf: TimeWindow, asked: Asked) -> bool:
    local_at, day = asked.moment.facts.receipt.local_at, asked.moment.facts.day
    minute = local_at.hour * _MINUTES_PER_HOUR + local_at.minute
    if leaf.from_minute < leaf.until_minute:
        if not leaf.from_minute <= minute < leaf.until_minute:
            return False
    elif minute < leaf.until_minute:
        day -= timedelta(days=1)  # after midnight, in the window that began the day before
    elif minute < leaf.from_minute:
        return False
    return (
        (not leaf.weekdays or day.weekday() in leaf.weekdays)
        and (leaf.first is None or leaf.first <= day)
        and (leaf.last is None or day <= leaf.last)
    )


def _check_tiers(leaf: InTiers, asked: Asked) -> bool:
    return asked.moment.facts.member is not None and asked.moment.facts.tier(asked.moment.tiers) in leaf.tiers


def _check_segments(leaf: InSegments, asked: Asked) -> bool:
    member = asked.moment.facts.member
    return member is not None and not member.segments.isdisjoint(leaf.segments)


def _check_club(leaf: InClub, asked: Asked) -> bool:
    facts = asked.moment.facts
    if facts.member is None:
        return False
    until = facts.get(club_key(leaf.club)).until
    return until is not None and facts.day <= until


def _check_coupon(leaf: CouponShown, asked: Asked) -> bool:
    facts = asked.moment.facts
    return not (leaf.series.isdisjoint(facts.series) and leaf.codes.isdisjoint(facts.codes))


def _check_offer(_leaf: OfferMade, asked: Asked) -> bool:
    member = asked.moment.facts.member
    return member is not None and asked.promotion_id in member.offers


def _check_all(condition: AllOf, asked: Asked) -> bool:
    return all(_ask(part, asked) for part in condition.parts)


def _check_any(condition: AnyOf, asked: Asked) -> bool:
    return any(_ask(part, asked) for part in condition.parts)


def _check_not(condition: NotThat, asked: Asked) -> bool:
    return not _ask(condition.part, asked._replace(moment=under_not(asked.moment)))


_CHECKS: dict[type, Callable[[Any, Asked], bool]] = {
    ReceiptTotal: _check_measured,
    ScopeTotal: _check_measured,
    BasketCount: _check_measured,
    VisitNumber: _check_measured,
    SpendSoFar: _check_measured,
    MemberAge: _check_measured,
    PaidBy: _check_measured,
    BirthdayWindow: _check_birthday,
    InStores: _check_stores,
    OnChannels: _check_channels,
    AtTerminals: _check_terminals,
    TimeWindow: _check_time,
    InTiers: _check_tiers,
    InSegments: _check_segments,
    InClub: _check_club,
    CouponShown: _check_coupon,
    OfferMade: _check_offer,
    AllOf: _check_all,
    AnyOf: _check_any,
    NotThat: _check_not,
}
"""Any: the key says which condition the function takes."""


# --- what is known before a receipt comes -----------------------------------------------------------------

GateKey = tuple[str, object]
"""What a receipt or its member must have, such as ("store", "store-1")."""

_GATES = ("store", "segment", "club", "birthday", "tier", "channel", "terminal", "weekday")
"""Kinds of gates, the one that lets fewest through first."""


def gate_keys(condition: Condition | None) -> frozenset[GateKey] | None:
    """Keys of which a receipt needs one for the condition to hold; None if it may hold without any."""
    match condition:
        case AllOf(parts):
            return min((keys for part in parts if (keys := gate_keys(part)) is not None), key=_gate_order, default=None)
        case AnyOf(parts):
            alternatives = [gate_keys(part) for part in parts]
            known = [keys for keys in alternatives if keys is not None]
            return frozenset().union(*known) if len(known) == len(alternatives) else None
    own = _gate_of_leaf(condition)
    return frozenset(own) if own is not None else None


def _gate_of_leaf(leaf: Condition | None) -> list[GateKey] | None:
    keys: list[GateKey] | None = None
    match leaf:
        case InStores(stores, groups):
            keys = [*(("store", store) for store in stores), *(("group", group) for group in groups)]
        case InSegments(segments):
            keys = [("segment", segment) for segment in segments]
        case InClub(club):
            keys = [("club", club)]
        case BirthdayWindow(before, after):
            keys = [("birthday", (before, after))]
        case InTiers(tiers):
            keys = [("tier", tier) for tier in tiers]
        case OnChannels(channels):
            keys = [("channel", channel) for channel in channels]
        case AtTerminals(kinds):
            keys = [("terminal", kind) for kind in kinds]
        case TimeWindow(weekdays) if weekdays:
            over_midnight = leaf.from_minute >= leaf.until_minute
            late = {(day + 1) % _DAYS_PER_WEEK for day in weekdays} if over_midnight else set()
            keys = [("weekday", day) for day in weekdays | late]
    return keys


def _gate_order(keys: frozenset[GateKey]) -> int:
    kinds = {"store" if kind == "group" else kind for kind, _ in keys}
    return max((_GATES.index(kind) for kind in kinds), default=-1)


def present_keys(facts: Facts, tiers: Tiers | None, gates: Mapping[str, Iterable[Any]]) -> list[GateKey]:
    """The gate keys that a receipt has; `gates` are the values that are asked for, by kind."""
    receipt, member = facts.receipt, facts.member
    known: dict[str, Callable[[], Iterable[object]]] = {
        "store": lambda: [receipt.store_id],
        "group": lambda: receipt.store_groups,
        "channel": lambda: [receipt.channel],
        "terminal": lambda: [receipt.terminal_kind],
        "weekday": lambda: [facts.day.weekday()],
    }
    if member is not None:
        known |= {
            "birthday": lambda: [window for window in gates["birthday"] if facts.has_birthday(*window)],
            "segment": lambda: member.segments,
            "tier": lambda: [facts.tier(tiers)],
            "club": lambda: [club for club in gates["club"] if facts.get(club_key(club)).until is not None],
        }
    return [(kind, value) for kind in gates if kind in known for value in known[kind]()]


def needed_total(condition: Condition | None) -> int:
    """The least receipt total, in minor units, without which `condition` certainly fails."""
    match condition:
        case ReceiptTotal(at_least_minor=int(at_least)):
            return at_least
        case AllOf(parts):
            return max(map(needed_total, parts), default=0)
    return 0


def near_total(condition: Condition | None, near_miss: NearMiss | None) -> int:
    """The same, lowered by what a near miss may lack."""
    total = needed_total(condition)
    return total if near_miss is None else max(0, total - (near_miss.within_minor or 0))


def is_right(condition: Condition | None) -> bool:
    """Whether a coupon or an offer stands in the condition, other than as what must not be."""
    match condition:
        case CouponShown() | OfferMade():
            return True
        case AllOf(parts) | AnyOf(parts):
            return any(map(is_right, parts))
        case NotThat(NotThat(part)):
            return is_right(part)
    return False


def needs_right(condition: Condition | None) -> bool:
    """Whether the condition certainly fails without a coupon or an offer."""
    match condition:
        case CouponShown() | OfferMade():
            return True
        case AllOf(parts):
            return any(map(needs_right, parts))
        case AnyOf(parts):
            return all(map(needs_right, parts))
    return False


def right_keys(condition: Condition | None, promotion_id: str) -> frozenset[GateKey]:
    """Coupons and offers of which one is needed, for a condition that needs a right."""
    match condition:
        case CouponShown(series, codes):
            return frozenset([*(("series", s) for s in series), *(("code", c) for c in codes)])
        case OfferMade():
            return frozenset([("offer", promotion_id)])
        case AllOf(parts):
            needed = [part for part in parts if needs_right(part)]
            return min((right_keys(part, promotion_id) for part in needed), key=len, default=frozenset())
        case AnyOf(parts):
            return frozenset().union(*(right_keys(part, promotion_id) for part in parts))
    return frozenset()


def coupons_behind(condition: Condition, moment: Moment, promotion_id: str, positions: Positions) -> list[str]:
    """The codes of the coupons because of which a condition holds: one for each leaf that asks for one.

    Of alternatives the first that holds counts; of several fitting coupons the one presented first.
    """
    match condition:
        case CouponShown(series, codes):
            for coupon in moment.facts.receipt.coupons:
                if coupon.series in series or coupon.code in codes:
                    return [coupon.code]
        case AllOf(parts):
            return [code for part in parts for code in coupons_behind(part, moment, promotion_id, positions)]
        case AnyOf(parts):
            for part in parts:
                if check(part, moment, promotion_id, positions):
                    return coupons_behind(part, moment, promotion_id, positions)
    return []
