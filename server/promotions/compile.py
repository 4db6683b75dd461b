"""Programme -> Rules: a programme compiled once a version, so that a quote costs what its receipt holds.

Promotions are sorted by priority and id; the position is the promotion's `rank`. An index by what scopes name finds
the few that may touch a line; what it finds is remembered per product, for each span of days on which the same
promotions are live. Promotions for all goods are kept by what their condition needs (a store, a segment, a birthday,
a receipt total), rights by their coupon or offer, so that those out of reach are not looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from server.promotions.arithmetic import add_days, expiry_date
from server.promotions.conditions import Facts, GateKey, present_keys, right_keys
from server.promotions.counter_names import kept_until, visit_key
from server.promotions.criteria import BirthdayWindow, CouponShown, InSegments, Selector, SpendSoFar, VisitNumber
from server.promotions.facts import LotDates, ReceiptLine
from server.promotions.formulas import (
    BasketRule,
    CompiledPromotion,
    DealRule,
    EarningBase,
    LineFormula,
    LineRule,
    PointsFormula,
    PointsRule,
    ReceiptPointsRule,
    earning_base,
)
from server.promotions.kinds import Period, RoundingPer, TierMeasure
from server.promotions.messages import Speech, style_of
from server.promotions.model import LotTerms, Programme, Promotion
from server.promotions.scope import ScopeIndex, selects
from server.promotions.walk import leaves_of

LIVE_SETS_KEPT = 8
"""Spans of days (and partners) whose indexes are kept; late receipts seldom reach further back."""
PRODUCTS_REMEMBERED = 100_000
"""Products remembered in one live set; then it starts anew, so memory is bounded."""

LOT_DATES_REMEMBERED = 1_000
"""Days, each with the dates of lots that are granted on it."""

ProductKey = tuple[str, str, str, str, tuple[str, ...]]
"""SKU, category, brand, supplier and tags: all that promotions may know of a product."""

PlainGoods = tuple[bool, frozenset[str], tuple[LineFormula, ...], tuple[PointsFormula, ...]]
"""What happens to a product whose promotions neither compete nor ask anything: whether points may not pay for it,
which of its promotions have something to say, its line discounts and its points."""


class Candidates(NamedTuple):
    """All that may happen to a product: what the index found, by step, in rank order.

    `*_contested` says that the rules stand in each other's way (a shared group, exclusivity, compounding).
    `*_formulas` are those of the rules if they are neither contested nor conditional, else None. `rights` are
    promotions that a coupon or an offer may help to, but that need none; `more` those with other effects or near
    misses. `ranks` are all promotions whose scope has the product. `is_metered` says that limits may cut a line rule.
    `speakers` are those with texts.
    """

    no_discount: bool
    no_earning: bool
    no_spending: bool
    line_rules: tuple[LineRule, ...]
    line_formulas: tuple[LineFormula, ...] | None
    line_contested: bool
    is_metered: bool
    deals: tuple[DealRule, ...]
    basket_rules: tuple[BasketRule, ...]
    points_rules: tuple[PointsRule, ...]
    points_formulas: tuple[PointsFormula, ...] | None
    points_contested: bool
    receipt_points_rules: tuple[ReceiptPointsRule, ...]
    rights: tuple[CompiledPromotion, ...]
    more: tuple[CompiledPromotion, ...]
    ranks: frozenset[int]
    speakers: frozenset[str]

    def plain(self) -> PlainGoods | None:
        """The same for goods of which there is no more to know; None for others."""
        if self.line_formulas is None or self.points_formulas is None:
            return None
        if self.deals or self.basket_rules or self.receipt_points_rules or self.rights or self.more:
            return None
        return self.no_spending, self.speakers, self.line_formulas, self.points_formulas


class Gated:
    """Promotions for all goods, by what a receipt needs for them, and by the receipt total they need."""

    __slots__ = ("_by_key", "gates")

    def __init__(self, promotions: Iterable[CompiledPromotion]) -> None:
        """File each promotion under the keys of its gate, or under none."""
        shelves: defaultdict[GateKey | None, list[tuple[int, int, CompiledPromotion]]] = defaultdict(list)
        for promotion in promotions:
            for key in (None,) if promotion.gate is None else promotion.gate:
                shelves[key].append((promotion.needed_total_minor, promotion.rank, promotion))
        self._by_key: dict[GateKey | None, tuple[list[int], list[CompiledPromotion]]] = {}
        for key, entries in shelves.items():
            entries.sort(key=lambda entry: entry[:2])
            self._by_key[key] = [total for total, _, _ in entries], [promotion for _, _, promotion in entries]
        self.gates: defaultdict[str, set[object]] = defaultdict(set)
        for key in shelves:
            if key is not None:
                self.gates[key[0]].add(key[1])

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_key)

    def within_reach(self, keys: Iterable[GateKey | None], list_total_minor: int) -> list[CompiledPromotion]:
        """The promotions that a receipt with these keys and this total may satisfy, by rank."""
        found: dict[int, CompiledPromotion] = {}
        for key in keys:
            shelf = self._by_key.get(key)
            if shelf is not None:
                for promotion in shelf[1][: bisect_right(shelf[0], list_total_minor)]:
                    found[promotion.rank] = promotion
        return [found[rank] for rank in sorted(found)]


class Rules:
    """A compiled programme version; its answers depend on nothing but its arguments.

    The only thing that changes inside is a bounded memory of index look-ups. Use one per event loop.
    """

    def __init__(self, programme: Programme, version: int) -> None:
        """Sort, index and translate the promotions. Use `compile_rules`."""
        self.programme = programme
        self.version = version
        self.promotions = tuple(sorted(programme.promotions, key=lambda p: (p.priority, p.id)))
        self.rank_of = {promotion.id: rank for rank, promotion in enumerate(self.promotions)}
        self.settings = _named_settings(programme)
        share = programme.spending.max_share
        self.max_share = (share.numerator, share.denominator)
        self.terms: dict[str, LotTerms] = {p.id: p.points.terms for p in self.promotions if p.points and p.points.terms}
        self._points_accepted_at = frozenset(one.code for one in programme.partners if one.accepts_points)
        self._mentions = _Mentions(self.promotions)
        style = style_of(programme)
        self.speakers = {p.id: Speech(p.id, p.messages, style) for p in self.promotions if p.messages}
        self._lot_dates: dict[tuple[date, str], LotDates] = {}
        self._bases: dict[str, EarningBase] = {}
        self._compiled: dict[tuple[int, str], CompiledPromotion] = {}
        own = [self.compiled(rank) for rank in range(len(self.promotions))]
        self._index = ScopeIndex((c.rank, c.scopes) for c in own if c.is_indexed)
        self._rights: defaultdict[GateKey, list[int]] = defaultdict(list)
        for one in own:
            if one.needs_right:
                for key in right_keys(one.condition, one.id):
                    self._rights[key].append(one.rank)
        self._boundaries = _boundaries(self.promotions)
        self._live_sets: OrderedDict[tuple[int, str], LiveSet] = OrderedDict()

    # --- what servers ask ---

    def promotion(self, promotion_id: str) -> Promotion | None:
        """A promotion of this version by its id."""
        rank = self.rank_of.get(promotion_id)
        return None if rank is None else self.promotions[rank]

    @property
    def generic_codes(self) -> frozenset[str]:
        """The coupon codes that anybody may present: they stand in the programme itself."""
        return frozenset(self._mentions.codes)

    @property
    def asks_for_coupons(self) -> bool:
        """Whether any promotion asks for a coupon of a series: if not, nobody's coupons are worth a look."""
        return any(kind == "series" for kind, _ in self._mentions.coupons)

    @property
    def segments(self) -> frozenset[str]:
        """The segments that conditions mention."""
        return self._mentions.segments

    @property
    def birthday_windows(self) -> frozenset[tuple[int, int]]:
        """The windows (days before, days after) that conditions mention."""
        return self._mentions.windows

    @property
    def visit_periods(self) -> frozenset[Period]:
        """The periods for which visits are counted, beside for ever: those of conditions and of levels."""
        return self._mentions.periods | _periods_of_tiers(self.programme)

    @property
    def offer_ids(self) -> frozenset[str]:
        """The promotions that can be assigned to members."""
        return frozenset(str(name) for kind, name in self._rights if kind == "offer")

    def coupon_titles(self, series_or_code: str) -> str:
        """The name of the first promotion that a series or a generic code is for; empty if there is none."""
        for kind in ("code", "series"):
            for rank in self._mentions.coupons.get((kind, series_or_code), ()):
                return self.promotions[rank].name
        return ""

    # --- what evaluation asks ---

    def lot_dates(self, on: date, promotion_id: str) -> LotDates:
        """Dates of a lot granted on a store-local day, by the promotion's own terms or the programme's."""
        key = on, promotion_id if promotion_id in self.terms else ""
        dates = self._lot_dates.get(key)
        if dates is None:
            if len(self._lot_dates) >= LOT_DATES_REMEMBERED:
                self._lot_dates.clear()
            terms = self.terms.get(promotion_id, self.programme.earning.terms)
            active_from = add_days(on, terms.pending_days) if terms.pending_days else None
            dates = self._lot_dates[key] = LotDates(active_from, expiry_date(on, terms.expiry))
        return dates

    def accepts_points(self, partner: str) -> bool:
        """Whether points pay in the stores of a partner; never with one that the programme does not know."""
        return partner in self._points_accepted_at

    def base(self, partner: str = "") -> EarningBase:
        """The base rate in the stores of a partner."""
        base = self._bases.get(partner)
        if base is None:
            base = self._bases[partner] = earning_base(self.programme, partner)
        return base

    def compiled(self, rank: int, partner: str = "") -> CompiledPromotion:
        """The compiled promotion of that rank, as it counts in the stores of a partner."""
        found = self._compiled.get((rank, partner))
        if found is None:
            found = CompiledPromotion(self.programme, rank, self.promotions[rank], self.base(partner))
            self._compiled[rank, partner] = found
        return found

    def live_on(self, day: date, partner: str = "") -> LiveSet:
        """The promotions valid on a store-local day, with their index."""
        key = bisect_right(self._boundaries, day), partner
        live = self._live_sets.get(key)
        if live is None:
            live = self._live_sets[key] = LiveSet(self, day, partner)
            if len(self._live_sets) > LIVE_SETS_KEPT:
                self._live_sets.popitem(last=False)
        else:
            self._live_sets.move_to_end(key)
        return live

    def ranks_for(self, line: ReceiptLine) -> list[int]:
        """Ranks of the indexed promotions whose scope has the line, live or not, ascending."""
        return self._index.ranks_for(line)

    def ranks_of_rights(self, keys: Iterable[GateKey]) -> set[int]:
        """Ranks of the promotions that need one of these coupons or offers, live or not."""
        return {rank for key in keys for rank in self._rights.get(key, ())}


def compile_rules(programme: Programme, version: int) -> Rules:
    """Compile a validated programme; `version` is stamped on every answer."""
    return Rules(programme, version)


class LiveSet:
    """The promotions of one span of days between two changes of validity, as they count for one partner."""

    def __init__(self, rules: Rules, day: date, partner: str) -> None:
        """Pick the promotions that are valid on `day`."""
        self._rules = rules
        self.partner = partner
        self.base_rule = rules.base(partner).rule()
        self._live = frozenset(rank for rank, p in enumerate(rules.promotions) if is_valid_on(p, day))
        found = [rules.compiled(rank, partner) for rank in sorted(self._live)]
        unscoped = [c for c in found if c.scopes is None and not c.needs_right]
        self._gated = Gated(c for c in unscoped if not c.is_indexed or acts_beyond_lines(c))
        self.is_gateless = not self._gated
        self.has_free_rights = any(c.is_right and not c.needs_right for c in found)
        self.has_more = any(c.has_more or c.near_miss for c in found)
        self.has_receipt_points = any(c.receipt_points for c in found)
        self.has_further_points = any(c.points is not None and c.points.formula[5] for c in found)
        self.has_baskets = any(c.basket for c in found)
        self.has_deals_or_limits = any(c.deal or c.limits for c in found)
        self.may_be_plain = (
            not rules.programme.control_share and rules.programme.earning.rounding_per is RoundingPer.LINE
        )
        self._visit_keys: tuple[date | None, list[tuple[str, date | None]]] = (None, [])
        self.offer_ids = frozenset(c.id for c in found if c.needs_right) & rules.offer_ids
        self.memory: dict[ProductKey, Candidates] = {}
        self.plain: dict[ProductKey, PlainGoods | None] = {}
        self._shared: dict[_Found, Candidates] = {}

    def gated(self, facts: Facts, list_total_minor: int) -> list[CompiledPromotion]:
        """Promotions for all goods within reach of a receipt, other than those that the product index finds."""
        keys = present_keys(facts, self._rules.programme.tiers, self._gated.gates)
        return self._gated.within_reach([None, *keys], list_total_minor)

    def rights(self, facts: Facts) -> list[CompiledPromotion]:
        """Promotions that need a coupon or an offer which is there, by rank."""
        keys: list[GateKey] = [("series", series) for series in facts.series]
        keys += [("code", code) for code in facts.codes]
        if facts.member is not None:
            keys += [("offer", offer) for offer in facts.member.offers]
        if not keys:
            return []
        ranks = self._rules.ranks_of_rights(keys)
        return [self._rules.compiled(rank, self.partner) for rank in sorted(ranks) if rank in self._live]

    def visit_keys(self, day: date) -> list[tuple[str, date | None]]:
        """The counters of visits that every receipt of a day adds to, and until when they are worth keeping."""
        if self._visit_keys[0] != day:
            periods = sorted(self._rules.visit_periods, key=lambda period: period.value)
            keys = [(visit_key(period, day), kept_until(period, day)) for period in (None, *periods)]
            self._visit_keys = day, keys
        return self._visit_keys[1]

    def find(self, line: ReceiptLine) -> Candidates:
        """What may happen to the line's product; remembered by all that promotions may know of it."""
        exclusions = self._rules.programme.exclusions
        ranks = tuple(rank for rank in self._rules.ranks_for(line) if rank in self._live)
        priced = any((rule := self._rules.compiled(rank).line) is not None and rule.prices for rank in ranks)
        found = _Found(
            no_discount=_is_excluded(exclusions.no_discount, line),
            no_earning=_is_excluded(exclusions.no_earning, line),
            no_spending=_is_excluded(exclusions.no_points_payment, line),
            ranks=ranks,
            sku=line.sku if priced else "",
        )
        if len(self.memory) >= PRODUCTS_REMEMBERED:
            self.memory.clear()
            self.plain.clear()
            self._shared.clear()
        candidates = self._shared.get(found)
        if candidates is None:
            candidates = self._shared[found] = self._candidates(found)
        product = line[1:6]
        self.memory[product] = candidates
        self.plain[product] = candidates.plain()
        return candidates

    def plain_goods(self, line: ReceiptLine) -> PlainGoods | None:
        """What happens to the line's product if its promotions neither compete nor ask anything; else None."""
        product = line[1:6]
        if product not in self.plain:
            self.find(line)
        return self.plain[product]

    def _candidates(self, found: _Found) -> Candidates:
        everyone = [self._rules.compiled(rank, self.partner) for rank in found.ranks]
        promotions = [c for c in everyone if not c.is_right]
        line_rules: tuple[LineRule, ...] = ()
        deals: tuple[DealRule, ...] = ()
        basket_rules: tuple[BasketRule, ...] = ()
        points_rules: tuple[PointsRule, ...] = ()
        receipt_points: tuple[ReceiptPointsRule, ...] = ()
        if not found.no_discount:
            line_rules = rules_for_article((c.line for c in promotions), found.sku)
            deals = tuple(c.deal for c in promotions if c.deal)
            basket_rules = tuple(c.basket for c in promotions if c.basket and c.scopes is not None)
        if not found.no_earning:
            points_rules = tuple(c.points for c in everyone if c.points)
            if self.base_rule is not None:
                points_rules = (self.base_rule, *points_rules)
            receipt_points = tuple(c.receipt_points for c in everyone if c.receipt_points and c.scopes is not None)
        line_contested, points_contested = are_contested(line_rules), are_contested(points_rules)
        line_fixed = not line_contested and not any(r.owner.is_conditional for r in line_rules)
        points_fixed = not points_contested and not any(r.owner.is_conditional for r in points_rules)
        return Candidates(
            no_discount=found.no_discount,
            no_earning=found.no_earning,
            no_spending=found.no_spending,
            line_rules=line_rules,
            line_formulas=tuple(r.formula for r in line_rules) if line_fixed else None,
            line_contested=line_contested,
            is_metered=any(rule.owner.limits for rule in line_rules),
            deals=deals,
            basket_rules=basket_rules,
            points_rules=points_rules,
            points_formulas=tuple(r.formula for r in points_rules) if points_fixed else None,
            points_contested=points_contested,
            receipt_points_rules=receipt_points,
            rights=tuple(c for c in everyone if c.is_right),
            more=tuple(c for c in everyone if (c.has_more or c.near_miss) and c.scopes is not None),
            ranks=frozenset(found.ranks),
            speakers=frozenset(owner.id for owner in everyone if owner.promotion.messages),
        )


class _Found(NamedTuple):
    """What tells one product's candidates from another's; most products share theirs with many.

    `sku` is only set if a list of prices is among the promotions.
    """

    no_discount: bool
    no_earning: bool
    no_spending: bool
    ranks: tuple[int, ...]
    sku: str


def acts_beyond_lines(promotion: CompiledPromotion) -> bool:
    """Whether a promotion has effects, or near misses, that are not found line by line."""
    return bool(promotion.basket or promotion.receipt_points or promotion.has_more or promotion.near_miss)


def rules_for_article(rules: Iterable[LineRule | None], sku: str) -> tuple[LineRule, ...]:
    """Line rules as they count for an article; lists of prices that lack it drop out."""
    return tuple(rule.on(sku) for rule in rules if rule is not None and (rule.prices is None or sku in rule.prices))


def are_contested(rules: Sequence[LineRule] | Sequence[PointsRule]) -> bool:
    """Whether rules stand in each other's way, so that not all of them simply apply one after the other."""
    groups = [rule.group for rule in rules if rule.group is not None]
    if len(groups) != len(set(groups)):
        return True
    return any(rule.exclusive or (isinstance(rule, PointsRule) and rule.compound) for rule in rules)


def _is_excluded(selector: Selector | None, line: ReceiptLine) -> bool:
    return selector is not None and selects(selector, line)


def is_valid_on(promotion: Promotion, day: date) -> bool:
    """Whether a store-local day lies within the promotion's inclusive dates."""
    return (promotion.valid_from is None or promotion.valid_from <= day) and (
        promotion.valid_until is None or day <= promotion.valid_until
    )


def _boundaries(promotions: Sequence[Promotion]) -> list[date]:
    days = {p.valid_from for p in promotions if p.valid_from is not None}
    for promotion in promotions:
        if promotion.valid_until is not None and promotion.valid_until < date.max:
            days.add(promotion.valid_until + timedelta(days=1))
    return sorted(days)


class _Mentions:
    """What the conditions of all promotions mention."""

    def __init__(self, promotions: Sequence[Promotion]) -> None:
        segments: set[str] = set()
        windows: set[tuple[int, int]] = set()
        periods: set[Period] = set()
        self.coupons: dict[tuple[str, str], list[int]] = {}
        for rank, promotion in enumerate(promotions):
            for leaf in leaves_of(promotion.when):
                match leaf:
                    case InSegments(names):
                        segments |= names
                    case BirthdayWindow(before, after):
                        windows.add((before, after))
                    case VisitNumber(Period() as period) | SpendSoFar(Period() as period):
                        periods.add(period)
                    case CouponShown(series, codes):
                        for key in [("series", s) for s in series] + [("code", c) for c in codes]:
                            self.coupons.setdefault(key, []).append(rank)
        self.segments = frozenset(segments)
        self.windows = frozenset(windows)
        self.periods = frozenset(periods)
        self.codes = [name for kind, name in self.coupons if kind == "code"]


def _periods_of_tiers(programme: Programme) -> frozenset[Period]:
    tiers = programme.tiers
    if tiers is None or tiers.measure is TierMeasure.POINTS:
        return frozenset()
    return frozenset([tiers.period or Period.MONTH])


def _named_settings(programme: Programme) -> tuple[tuple[str, str], ...]:
    earning, spending = programme.earning, programme.spending
    return (
        ("base_percent", _percent_text(earning.base_share)),
        ("rounding", earning.rounding.value),
        ("rounding_per", earning.rounding_per.value),
        ("point_precision", str(programme.point.precision)),
        ("earn_on_points_paid", _yes_no(earning.earn_on_points_paid)),
        ("max_share_percent", _percent_text(spending.max_share)),
        ("step_points_minor", str(spending.step_points_minor)),
        ("step_money_minor", str(spending.step_money_minor)),
        ("keep_one_minor_unit", _yes_no(spending.keep_one_minor_unit)),
        ("respect_price_floor", _yes_no(spending.respect_price_floor)),
        ("floor_rest", programme.floor_rest.value),
    )


def _percent_text(share: Fraction) -> str:
    return f"{Decimal(share.numerator * 100) / Decimal(share.denominator):f}"


def _yes_no(value: bool) -> str:
    return "true" if value else "false"
