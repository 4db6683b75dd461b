"""Programme -> Rules: a programme compiled once a version, so that a quote costs what its receipt holds.

Promotions are sorted by priority and id; the position is the promotion's `rank`. An index by SKU, category,
brand and tag finds the few that may touch a line. What it finds is remembered per product, for each span of
days on which the same promotions are live. Promotions for all goods that depend on a receipt total are kept
sorted by that total, so that those out of reach are not looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from server.promotions.arithmetic import UNIT_MILLI, half_up_div
from server.promotions.model import (
    BASE_ID,
    AllOf,
    AmountOff,
    Base,
    BasketDiscount,
    BirthdayWindow,
    Condition,
    FixedPrice,
    LineDiscount,
    LotTerms,
    Message,
    PercentOff,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPercent,
    Programme,
    Promotion,
    ReceiptLine,
    ReceiptTotal,
    Rounding,
    Selector,
)

BASE_RANK = -1
LIVE_SETS_KEPT = 4
"""Spans of days whose indexes are kept; late receipts seldom reach further back."""
PRODUCTS_REMEMBERED = 100_000
"""Products remembered in one live set; then it starts anew, so memory is bounded."""

PRICE_LEFT, LIST_PRICE, QUANTITY = range(3)
"""What a line discount is computed from: price left or list price in minor units, or quantity_milli."""
MONEY_PAID, ONCE, UNITS = range(3)
"""What points on a line are computed from: money paid in minor units, the number one, or whole units."""

BasketReduce = Callable[[int, int, int], int]
"""(base_minor, numerator, denominator) -> discount_minor of the whole basket."""


class LineFormula(NamedTuple):
    """A line discount: (measure x numerator + addend) // denominator, in minor units of money.

    With `is_price` the formula gives the new price, and what is left above it is the discount.
    """

    promotion_id: str
    measure: int
    numerator: int
    addend: int
    denominator: int
    is_price: bool


class PointsFormula(NamedTuple):
    """Points on a line: (measure x numerator + addend) // denominator, in minor units of points."""

    promotion_id: str
    measure: int
    numerator: int
    addend: int
    denominator: int


class LineRule(NamedTuple):
    """A compiled line discount."""

    rank: int
    formula: LineFormula
    group: str | None
    exclusive: bool
    condition: Condition | None


class BasketRule(NamedTuple):
    """A compiled basket discount; `is_scoped` False means all goods."""

    rank: int
    promotion_id: str
    reduce: BasketReduce
    numerator: int
    denominator: int
    from_list: bool
    group: str | None
    exclusive: bool
    condition: Condition | None
    is_scoped: bool


class PointsRule(NamedTuple):
    """Compiled points on a line; `factor` is set for multipliers, for the sake of those that compound."""

    rank: int
    formula: PointsFormula
    group: str | None
    exclusive: bool
    condition: Condition | None
    factor: Fraction | None
    compound: bool


class ReceiptPointsRule(NamedTuple):
    """Compiled points once a receipt."""

    rank: int
    promotion_id: str
    points_minor: int
    group: str | None
    exclusive: bool
    condition: Condition | None
    is_scoped: bool


class Candidates(NamedTuple):
    """All that may happen to a product: what the index found, by step, in rank order.

    `*_contested` says that the rules stand in each other's way (a shared group, exclusivity, compounding).
    `*_formulas` are those of the rules if they are neither contested nor conditional, else None.
    """

    no_discount: bool
    no_earning: bool
    no_spending: bool
    line_rules: tuple[LineRule, ...]
    line_formulas: tuple[LineFormula, ...] | None
    line_contested: bool
    basket_rules: tuple[BasketRule, ...]
    points_rules: tuple[PointsRule, ...]
    points_formulas: tuple[PointsFormula, ...] | None
    points_contested: bool
    receipt_points_rules: tuple[ReceiptPointsRule, ...]


class _HasCondition(Protocol):
    @property
    def rank(self) -> int: ...

    @property
    def condition(self) -> Condition | None: ...


_Rule = TypeVar("_Rule", bound=_HasCondition)


class Gated(Generic[_Rule]):
    """Rules for all goods, sorted by the receipt total they need; birthday rules are kept apart."""

    __slots__ = ("_for_birthdays", "_for_everyone")

    def __init__(self, rules: Iterable[_Rule]) -> None:
        """Sort the rules by the total that their condition demands."""
        gates: tuple[list[tuple[int, int, _Rule]], list[tuple[int, int, _Rule]]] = ([], [])
        for rule in rules:
            gates[needs_birthday(rule.condition)].append((needed_total(rule.condition), rule.rank, rule))
        self._for_everyone, self._for_birthdays = (
            ([total for total, _, _ in part], [rule for _, _, rule in part])
            for part in (sorted(gates[False], key=_gate), sorted(gates[True], key=_gate))
        )

    def within_reach(self, receipt_total_minor: int, has_birthday: bool) -> list[_Rule]:
        """The rules that a receipt of this total may satisfy, in no particular order."""
        totals, rules = self._for_everyone
        found = rules[: bisect_right(totals, receipt_total_minor)]
        if has_birthday:
            totals, rules = self._for_birthdays
            found = found + rules[: bisect_right(totals, receipt_total_minor)]
        return found


def _gate(entry: tuple[int, int, _Rule]) -> tuple[int, int]:
    return entry[:2]


def needed_total(condition: Condition | None) -> int:
    """The least receipt total, in minor units, without which `condition` certainly fails."""
    match condition:
        case ReceiptTotal(at_least_minor=int(at_least)):
            return at_least
        case AllOf(parts):
            return max(map(needed_total, parts), default=0)
    return 0


def needs_birthday(condition: Condition | None) -> bool:
    """Whether `condition` certainly fails for a member without a known birthday."""
    match condition:
        case BirthdayWindow():
            return True
        case AllOf(parts):
            return any(map(needs_birthday, parts))
    return False


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
        self.messages = {p.id: p.messages for p in self.promotions if p.messages}
        self.terms: dict[str, LotTerms] = {p.id: p.points.terms for p in self.promotions if p.points and p.points.terms}
        self.settings = _named_settings(programme)
        share = programme.spending.max_share
        self.max_share = (share.numerator, share.denominator)
        rate = programme.earning.base_share * _points_per_money(programme)
        self.base_rate = rate
        self.base_rule = _base_rule(programme, rate)
        self._compiled = [_Compiled(self, rank, p) for rank, p in enumerate(self.promotions)]
        self._index = _Index(self.promotions)
        self._boundaries = _boundaries(self.promotions)
        self._live_sets: OrderedDict[int, LiveSet] = OrderedDict()

    def live_on(self, day: date) -> LiveSet:
        """The promotions valid on a store-local day, with their index."""
        span = bisect_right(self._boundaries, day)
        live = self._live_sets.get(span)
        if live is None:
            live = self._live_sets[span] = LiveSet(self, day)
            if len(self._live_sets) > LIVE_SETS_KEPT:
                self._live_sets.popitem(last=False)
        else:
            self._live_sets.move_to_end(span)
        return live

    def compiled(self, rank: int) -> _Compiled:
        """The compiled promotion of that rank."""
        return self._compiled[rank]

    def ranks_for(self, line: ReceiptLine) -> list[int]:
        """Ranks of the promotions whose scope names the line, live or not, ascending."""
        return self._index.ranks_for(line)


def compile_rules(programme: Programme, version: int) -> Rules:
    """Compile a validated programme; `version` is stamped on every answer."""
    return Rules(programme, version)


class LiveSet:
    """The promotions of one span of days between two changes of validity."""

    def __init__(self, rules: Rules, day: date) -> None:
        """Pick the promotions that are valid on `day`."""
        self._rules = rules
        self._live = frozenset(r for r, p in enumerate(rules.promotions) if is_valid_on(p, day))
        unscoped = [rules.compiled(r) for r in sorted(self._live) if rules.promotions[r].scope is None]
        self.baskets = Gated(c.basket for c in unscoped if c.basket is not None)
        self.receipt_points = Gated(c.receipt_points for c in unscoped if c.receipt_points is not None)
        self.memory: dict[tuple[str, str, str, tuple[str, ...]], Candidates] = {}
        self._shared: dict[_Found, Candidates] = {}

    def find(self, line: ReceiptLine) -> Candidates:
        """What may happen to the line's product; remembered by SKU, category, brand and tags."""
        exclusions = self._rules.programme.exclusions
        found = _Found(
            no_discount=_is_excluded(exclusions.no_discount, line),
            no_earning=_is_excluded(exclusions.no_earning, line),
            no_spending=_is_excluded(exclusions.no_points_payment, line),
            ranks=tuple(rank for rank in self._rules.ranks_for(line) if rank in self._live),
        )
        if len(self.memory) >= PRODUCTS_REMEMBERED:
            self.memory.clear()
            self._shared.clear()
        candidates = self._shared.get(found)
        if candidates is None:
            candidates = self._shared[found] = self._candidates(found)
        self.memory[line.sku, line.category, line.brand, line.tags] = candidates
        return candidates

    def _candidates(self, found: _Found) -> Candidates:
        promotions = [self._rules.compiled(rank) for rank in found.ranks]
        line_rules: tuple[LineRule, ...] = ()
        basket_rules: tuple[BasketRule, ...] = ()
        points_rules: tuple[PointsRule, ...] = ()
        receipt_points: tuple[ReceiptPointsRule, ...] = ()
        if not found.no_discount:
            line_rules = tuple(c.line for c in promotions if c.line)
            basket_rules = tuple(c.basket for c in promotions if c.basket and c.basket.is_scoped)
        if not found.no_earning:
            base = (self._rules.base_rule,) if self._rules.base_rule else ()
            points_rules = base + tuple(c.points for c in promotions if c.points)
            receipt_points = tuple(
                c.receipt_points for c in promotions if c.receipt_points and c.receipt_points.is_scoped
            )
        line_contested = _share_a_group(line_rules) or any(r.exclusive for r in line_rules)
        points_contested = _share_a_group(points_rules) or any(r.exclusive or r.compound for r in points_rules)
        line_fixed = not line_contested and all(r.condition is None for r in line_rules)
        points_fixed = not points_contested and all(r.condition is None for r in points_rules)
        return Candidates(
            no_discount=found.no_discount,
            no_earning=found.no_earning,
            no_spending=found.no_spending,
            line_rules=line_rules,
            line_formulas=tuple(r.formula for r in line_rules) if line_fixed else None,
            line_contested=line_contested,
            basket_rules=basket_rules,
            points_rules=points_rules,
            points_formulas=tuple(r.formula for r in points_rules) if points_fixed else None,
            points_contested=points_contested,
            receipt_points_rules=receipt_points,
        )


class _Found(NamedTuple):
    """What tells one product's candidates from another's; most products share theirs with many."""

    no_discount: bool
    no_earning: bool
    no_spending: bool
    ranks: tuple[int, ...]


def _is_excluded(selector: Selector | None, line: ReceiptLine) -> bool:
    return selector is not None and selects(selector, line)


def _share_a_group(rules: Sequence[LineRule] | Sequence[PointsRule]) -> bool:
    groups = [rule.group for rule in rules if rule.group is not None]
    return len(groups) != len(set(groups))


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


# --- scope ------------------------------------------------------------------------------------------------


def category_prefixes(category: str) -> list[str]:
    """A category and all above it: "a/b/c" gives "a", "a/b" and "a/b/c"."""
    parts = category.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def selects(selector: Selector, line: ReceiptLine) -> bool:
    """Whether the line belongs to the goods that the selector describes."""
    answers = []
    if selector.skus:
        answers.append(line.sku in selector.skus)
    if selector.categories:
        answers.append(not selector.categories.isdisjoint(category_prefixes(line.category)))
    if selector.brands:
        answers.append(line.brand in selector.brands)
    if selector.tags:
        answers.append(not selector.tags.isdisjoint(line.tags))
    named = not answers or (all(answers) if selector.match_all else any(answers))
    return named and not (selector.but_not is not None and selects(selector.but_not, line))


class _Index:
    """Promotions by what their scope names. A `match_all` scope is filed under its rarest list only."""

    def __init__(self, promotions: Sequence[Promotion]) -> None:
        self._scopes = [p.scope for p in promotions]
        self._everything: list[int] = []
        self._by_sku: defaultdict[str, list[int]] = defaultdict(list)
        self._by_brand: defaultdict[str, list[int]] = defaultdict(list)
        self._by_category: defaultdict[str, list[int]] = defaultdict(list)
        self._by_tag: defaultdict[str, list[int]] = defaultdict(list)
        for rank, promotion in enumerate(promotions):
            self._file(rank, promotion.scope)

    def _file(self, rank: int, scope: Selector | None) -> None:
        shelves = (
            (self._by_sku, scope.skus if scope else ()),
            (self._by_brand, scope.brands if scope else ()),
            (self._by_category, scope.categories if scope else ()),
            (self._by_tag, scope.tags if scope else ()),
        )
        named = [(shelf, names) for shelf, names in shelves if names]
        if scope is None or not named:
            self._everything.append(rank)
            return
        for shelf, names in named[:1] if scope.match_all else named:
            for name in names:
                shelf[name].append(rank)

    def ranks_for(self, line: ReceiptLine) -> list[int]:
        ranks = set(self._everything)
        ranks.update(self._by_sku.get(line.sku, ()))
        ranks.update(self._by_brand.get(line.brand, ()))
        for prefix in category_prefixes(line.category):
            ranks.update(self._by_category.get(prefix, ()))
        for tag in line.tags:
            ranks.update(self._by_tag.get(tag, ()))
        return sorted(rank for rank in ranks if self._covers(self._scopes[rank], line))

    @staticmethod
    def _covers(scope: Selector | None, line: ReceiptLine) -> bool:
        return scope is None or selects(scope, line)


# --- effects: one table a kind ----------------------------------------------------------------------------


def _percent_off(effect: LineDiscount, kind: PercentOff) -> tuple[int, int, int, int, bool]:
    measure = LIST_PRICE if effect.base is Base.LIST else PRICE_LEFT
    return measure, *rate_terms(kind.share, Rounding.HALF_UP), False


def _amount_off(effect: LineDiscount, kind: AmountOff) -> tuple[int, int, int, int, bool]:
    return QUANTITY, *rate_terms(Fraction(kind.amount_minor, UNIT_MILLI), Rounding.HALF_UP), False


def _fixed_price(effect: LineDiscount, kind: FixedPrice) -> tuple[int, int, int, int, bool]:
    return QUANTITY, *rate_terms(Fraction(kind.unit_price_minor, UNIT_MILLI), Rounding.HALF_UP), True


def _basket_percent_off(base_minor: int, numerator: int, denominator: int) -> int:
    return half_up_div(base_minor * numerator, denominator)


def _basket_amount_off(base_minor: int, numerator: int, denominator: int) -> int:
    return numerator


LINE_FORMULAS: dict[type, Callable[[LineDiscount, Any], tuple[int, int, int, int, bool]]] = {
    PercentOff: _percent_off,
    AmountOff: _amount_off,
    FixedPrice: _fixed_price,
}
BASKET_REDUCERS: dict[type, BasketReduce] = {
    PercentOff: _basket_percent_off,
    AmountOff: _basket_amount_off,
}
FIXED_MEASURES = {"line": ONCE, "unit": UNITS}


def rate_terms(rate: Fraction, rounding: Rounding) -> tuple[int, int, int]:
    """Numerator, addend and denominator so that one floor division multiplies by `rate` and rounds."""
    numerator, denominator = rate.numerator, rate.denominator
    if rounding is Rounding.DOWN:
        return numerator, 0, denominator
    if rounding is Rounding.UP:
        return numerator, denominator - 1, denominator
    return 2 * numerator, denominator, 2 * denominator


def _points_per_money(programme: Programme) -> Fraction:
    """Minor units of points that pay one minor unit of money: percents are of value, 1 % is 1 % back."""
    return 1 / programme.point.money_per_points


def _base_rule(programme: Programme, rate: Fraction) -> PointsRule | None:
    if not rate:
        return None
    numerator, addend, denominator = rate_terms(rate, programme.earning.rounding)
    group = programme.earning.base_group
    formula = PointsFormula(BASE_ID, MONEY_PAID, numerator, addend, denominator)
    return PointsRule(BASE_RANK, formula, group, False, None, None, False)


class _Compiled:
    """One promotion's effects, each translated for its step."""

    __slots__ = ("basket", "line", "points", "receipt_points")

    def __init__(self, rules: Rules, rank: int, promotion: Promotion) -> None:
        self.line = _line_rule(rank, promotion, promotion.line_discount)
        self.basket = _basket_rule(rank, promotion, promotion.basket_discount)
        self.points: PointsRule | None = None
        self.receipt_points: ReceiptPointsRule | None = None
        if promotion.points is None:
            return
        kind = promotion.points.kind
        if isinstance(kind, PointsFixed) and kind.per == "receipt":
            self.receipt_points = _receipt_points_rule(rank, promotion, kind)
        else:
            self.points = _points_rule(rules, rank, promotion, kind)


def _receipt_points_rule(rank: int, promotion: Promotion, kind: PointsFixed) -> ReceiptPointsRule:
    return ReceiptPointsRule(
        rank,
        promotion.id,
        kind.points_minor,
        promotion.group,
        promotion.exclusive,
        promotion.when,
        promotion.scope is not None,
    )


def _line_rule(rank: int, promotion: Promotion, effect: LineDiscount | None) -> LineRule | None:
    if effect is None:
        return None
    formula = LineFormula(promotion.id, *LINE_FORMULAS[type(effect.kind)](effect, effect.kind))
    return LineRule(rank, formula, promotion.group, promotion.exclusive, promotion.when)


def _basket_rule(rank: int, promotion: Promotion, effect: BasketDiscount | None) -> BasketRule | None:
    if effect is None:
        return None
    kind = effect.kind
    amount = kind.share if isinstance(kind, PercentOff) else Fraction(kind.amount_minor)
    return BasketRule(
        rank,
        promotion.id,
        BASKET_REDUCERS[type(kind)],
        amount.numerator,
        amount.denominator,
        effect.base is Base.LIST,
        promotion.group,
        promotion.exclusive,
        promotion.when,
        promotion.scope is not None,
    )


def _points_rule(rules: Rules, rank: int, promotion: Promotion, kind: PointsKind) -> PointsRule:
    rounding = rules.programme.earning.rounding
    measure, factor, compound = MONEY_PAID, None, False
    if isinstance(kind, PointsPercent):
        terms = rate_terms(kind.share * _points_per_money(rules.programme), rounding)
    elif isinstance(kind, PointsMultiplier):
        factor, compound = kind.factor, kind.compound
        terms = rate_terms(rules.base_rate * (factor - 1), rounding)
    else:
        measure, terms = FIXED_MEASURES[kind.per], (kind.points_minor, 0, 1)
    formula = PointsFormula(promotion.id, measure, *terms)
    return PointsRule(rank, formula, promotion.group, promotion.exclusive, promotion.when, factor, compound)


def _named_settings(programme: Programme) -> tuple[tuple[str, str], ...]:
    earning, spending = programme.earning, programme.spending
    return (
        ("base_percent", _percent_text(earning.base_share)),
        ("rounding", earning.rounding.value),
        ("point_precision", str(programme.point.precision)),
        ("earn_on_points_paid", _yes_no(earning.earn_on_points_paid)),
        ("max_share_percent", _percent_text(spending.max_share)),
        ("step_points_minor", str(spending.step_points_minor)),
        ("step_money_minor", str(spending.step_money_minor)),
        ("keep_one_minor_unit", _yes_no(spending.keep_one_minor_unit)),
        ("respect_price_floor", _yes_no(spending.respect_price_floor)),
    )


def _percent_text(share: Fraction) -> str:
    return f"{Decimal(share.numerator * 100) / Decimal(share.denominator):f}"


def _yes_no(value: bool) -> str:
    return "true" if value else "false"


def messages_of(rules: Rules, promotion_ids: Iterable[str]) -> tuple[Message, ...]:
    """Messages of the promotions that had an effect, in rank order."""
    speaking = sorted((i for i in promotion_ids if i in rules.messages), key=rules.rank_of.__getitem__)
    return tuple(message for promotion_id in speaking for message in rules.messages[promotion_id])
