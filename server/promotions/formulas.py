"""A promotion's effects, translated once a version into what is quick to compute on every receipt.

Most effects of a line are one integer formula. What a formula can't say (deals, steps) keeps its model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from server.promotions.arithmetic import UNIT_MILLI, half_up_div
from server.promotions.conditions import GateKey, gate_keys, is_right, near_total, needs_right
from server.promotions.criteria import Selector
from server.promotions.facts import ReceiptLine
from server.promotions.gifts import gives_for_threshold
from server.promotions.kinds import Base, FloorRest, Rounding
from server.promotions.limits import BoundLimit, bound_limits, control_salts
from server.promotions.model import (
    BASE_ID,
    AmountOff,
    BasketDiscount,
    Deal,
    FallsOn,
    FixedPrice,
    Gift,
    LineDiscount,
    PercentOff,
    Points,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsSteps,
    PriceList,
    Programme,
    Promotion,
    SetDeal,
    Steps,
    UnitDeal,
)
from server.promotions.scope import selects

BASE_RANK = -1

PRICE_LEFT, LIST_PRICE, QUANTITY = range(3)
"""What a line discount is computed from: price left or list price in minor units, or quantity_milli."""
MONEY_PAID, ONCE, UNITS, STEPS_PAID = range(4)
"""What points on a line are computed from: money paid in minor units, the number one, whole units, or full steps of
`denominator` minor units of money."""

BasketReduce = Callable[[int, int, int], int]
"""(base_minor, numerator, denominator) -> discount_minor of the whole basket."""


LineFormula = tuple[str, int, int, int, int, bool]
"""A line discount: (measure x numerator + addend) // denominator, in minor units of money.

Promotion id, measure, numerator, addend, denominator, is_price: then the formula gives the new price, and what is left
above it is the discount. No named tuple, since every line takes formulas apart: a plain one takes a third of the time.
"""

PointsFormula = tuple[str, int, int, int, int, str, str]
"""Points on a line: (measure x numerator + addend) // denominator, in minor units of points of a unit.

Promotion id, measure, numerator, addend, denominator, unit, partner; a plain tuple for the same reason.
"""


class LineRule(NamedTuple):
    """A compiled line discount; `prices` is set for lists of prices, whose formula depends on the article."""

    rank: int
    formula: LineFormula
    group: str | None
    exclusive: bool
    owner: CompiledPromotion
    prices: Mapping[str, int] | None

    @property
    def place(self) -> int:
        """Its place among the discounts of its step."""
        return 2 * self.rank

    def on(self, sku: str) -> LineRule:
        """The rule for an article."""
        if self.prices is None:
            return self
        return self._replace(formula=_price_formula(self.owner.id, self.prices[sku]))


class DealRule(NamedTuple):
    """A deal that is evaluated among line discounts; `spreads`: what a floor cuts off goes to its other goods."""

    rank: int
    deal: Deal
    group: str | None
    exclusive: bool
    owner: CompiledPromotion
    spreads: bool

    @property
    def place(self) -> int:
        """Its place among the discounts of its step: after its promotion's own line discount."""
        return 2 * self.rank + 1


class BasketRule(NamedTuple):
    """A compiled basket discount; `steps` is set for those that grow with the basket.

    `spreads`: what a floor cuts off goes to the other goods in scope.
    """

    rank: int
    promotion_id: str
    reduce: BasketReduce
    numerator: int
    denominator: int
    from_list: bool
    group: str | None
    exclusive: bool
    owner: CompiledPromotion
    steps: Steps | None
    spreads: bool


class PointsRule(NamedTuple):
    """Compiled points on a line; `factor` is set for multipliers, for the sake of those that compound."""

    rank: int
    formula: PointsFormula
    group: str | None
    exclusive: bool
    owner: CompiledPromotion
    factor: Fraction | None
    compound: bool


class ReceiptPointsRule(NamedTuple):
    """Compiled points once a receipt: `grant` says how many minor units, from the money paid in scope."""

    rank: int
    promotion_id: str
    grant: Callable[[int], int]
    unit: str
    partner: str
    group: str | None
    exclusive: bool
    owner: CompiledPromotion


class CompiledPromotion:
    """A promotion with all that is known of it before a receipt comes, for the stores of one partner.

    `scopes` are the goods, any of them (None: all). `is_indexed` says that its line effects are found by product.
    `gate` names what a receipt needs so that the condition can hold at all, `needed_total_minor` the least list total.
    `is_managed` says that limits or control groups may keep it from applying, `gives_for_threshold` that its threshold
    is measured without what it gives. `further` are its further effects, `has_more` says that there are any
    effects beside discounts and points.
    """

    __slots__ = (
        "basket",
        "condition",
        "controls",
        "deal",
        "further",
        "gate",
        "gives_for_threshold",
        "has_more",
        "id",
        "is_conditional",
        "is_indexed",
        "is_managed",
        "is_right",
        "limits",
        "line",
        "near_miss",
        "needed_total_minor",
        "needs_right",
        "points",
        "promotion",
        "rank",
        "receipt_points",
        "scopes",
        "tier_points",
    )

    def __init__(self, programme: Programme, rank: int, promotion: Promotion, base: EarningBase) -> None:
        """Translate everything."""
        self.rank, self.id, self.promotion = rank, promotion.id, promotion
        self.condition = promotion.when
        self.scopes = effective_scopes(promotion)
        self.is_right = is_right(self.condition)
        self.needs_right = needs_right(self.condition)
        self.gate: frozenset[GateKey] | None = gate_keys(self.condition)
        self.needed_total_minor = near_total(self.condition, promotion.near_miss)
        self.limits: tuple[BoundLimit, ...] = bound_limits(programme, promotion)
        self.controls = control_salts(programme, promotion)
        self.gives_for_threshold = gives_for_threshold(promotion)
        self.is_managed = bool(self.limits or self.controls)
        self.is_conditional = self.is_managed or self.condition is not None
        self.near_miss = promotion.near_miss
        self.line = _line_rule(self, promotion.line_discount)
        deal = promotion.deal
        self.deal = None
        self.basket = _basket_rule(self, promotion.basket_discount, programme)
        if isinstance(deal, Steps):
            self.basket = _steps_rule(self, deal, programme)
        elif deal is not None:
            spreads = _deal_spreads(programme, promotion, deal)
            self.deal = DealRule(rank, deal, promotion.group, promotion.exclusive, self, spreads)
        self.points, self.receipt_points = _points_rules(self, promotion.points, base)
        self.tier_points: PointsRule | ReceiptPointsRule | None = None
        if promotion.tier_points is not None:
            line, receipt = _points_rules(self, Points(promotion.tier_points), base)
            self.tier_points = line or receipt
        self.further = promotion.further()
        self.has_more = bool(self.further or promotion.tier_points)
        per_line = bool(self.line or self.deal or self.points)
        is_open = self.gate is None and not self.needed_total_minor and per_line
        self.is_indexed = not self.needs_right and (self.scopes is not None or is_open)

    def covers(self, line: ReceiptLine) -> bool:
        """Whether the line belongs to the promotion's goods."""
        return self.scopes is None or any(selects(scope, line) for scope in self.scopes)


class EarningBase(NamedTuple):
    """At which rate the stores of a partner (empty: the chain's own) grant, and how points are rounded."""

    programme: Programme
    share: Fraction
    partner: str

    def rate(self, unit: str | None = None) -> Fraction:
        """Minor units of points for one minor unit of money at the base percent."""
        return self.share * self.points_per_money(unit)

    def points_per_money(self, unit: str | None = None) -> Fraction:
        """Minor units of points that pay one minor unit of money: percents are of value, 1 % is 1 % back."""
        point = self.programme.point
        for further in self.programme.units:
            if further.point.unit == unit:
                point = further.point
        return 1 / point.money_per_points

    @property
    def rounding(self) -> Rounding:
        """How one accrual is rounded."""
        return self.programme.earning.rounding

    def rule(self) -> PointsRule | None:
        """The base percent as a rule of its own, before all promotions; None if nothing is granted."""
        if not self.share:
            return None
        terms = rate_terms(self.rate(), self.rounding)
        formula = (BASE_ID, MONEY_PAID, *terms, "", self.partner)
        nobody = CompiledPromotion(self.programme, BASE_RANK, Promotion(BASE_ID, ""), self)
        return PointsRule(BASE_RANK, formula, self.programme.earning.base_group, False, nobody, None, False)


def earning_base(programme: Programme, partner: str) -> EarningBase:
    """The rate in the stores of a partner; one that the programme does not know grants no base points."""
    if not partner:
        return EarningBase(programme, programme.earning.base_share, "")
    shares = {one.code: one.base_share for one in programme.partners}
    return EarningBase(programme, shares.get(partner) or Fraction(0), partner)


def effective_scopes(promotion: Promotion) -> tuple[Selector, ...] | None:
    """The goods of a promotion: its scope, or those that its list of prices or the parts of its set name."""
    if promotion.scope is not None:
        return (promotion.scope,)
    if promotion.line_discount is not None and isinstance(promotion.line_discount.kind, PriceList):
        return (Selector(skus=frozenset(promotion.line_discount.kind.unit_prices_minor)),)
    if isinstance(promotion.deal, SetDeal):
        return tuple(part.goods for part in promotion.deal.parts)
    return None


# --- discounts --------------------------------------------------------------------------------------------


def _percent_off(effect: LineDiscount, kind: PercentOff) -> tuple[int, int, int, int, bool]:
    measure = LIST_PRICE if effect.base is Base.LIST else PRICE_LEFT
    return measure, *rate_terms(kind.share, Rounding.HALF_UP), False


def _amount_off(_effect: LineDiscount, kind: AmountOff) -> tuple[int, int, int, int, bool]:
    return QUANTITY, *rate_terms(Fraction(kind.amount_minor, UNIT_MILLI), Rounding.HALF_UP), False


def _fixed_price(_effect: LineDiscount, kind: FixedPrice) -> tuple[int, int, int, int, bool]:
    return QUANTITY, *rate_terms(Fraction(kind.unit_price_minor, UNIT_MILLI), Rounding.HALF_UP), True


def _price_formula(promotion_id: str, unit_price_minor: int) -> LineFormula:
    terms = rate_terms(Fraction(unit_price_minor, UNIT_MILLI), Rounding.HALF_UP)
    return promotion_id, QUANTITY, *terms, True


def _of_the_article(_effect: LineDiscount, _kind: PriceList) -> tuple[int, int, int, int, bool]:
    return QUANTITY, 0, 0, 1, True  # takes its place until the article is known: see LineRule.on


def _basket_percent_off(base_minor: int, numerator: int, denominator: int) -> int:
    return half_up_div(base_minor * numerator, denominator)


def _basket_amount_off(_base_minor: int, numerator: int, _denominator: int) -> int:
    return numerator


LINE_FORMULAS: dict[type, Callable[[LineDiscount, Any], tuple[int, int, int, int, bool]]] = {
    PercentOff: _percent_off,
    AmountOff: _amount_off,
    FixedPrice: _fixed_price,
    PriceList: _of_the_article,
}
BASKET_REDUCERS: dict[type, BasketReduce] = {
    PercentOff: _basket_percent_off,
    AmountOff: _basket_amount_off,
}


def rate_terms(rate: Fraction, rounding: Rounding) -> tuple[int, int, int]:
    """Numerator, addend and denominator so that one floor division multiplies by `rate` and rounds."""
    numerator, denominator = rate.numerator, rate.denominator
    if rounding is Rounding.DOWN:
        return numerator, 0, denominator
    if rounding is Rounding.UP:
        return numerator, denominator - 1, denominator
    return 2 * numerator, denominator, 2 * denominator


def _line_rule(owner: CompiledPromotion, effect: LineDiscount | None) -> LineRule | None:
    if effect is None:
        return None
    kind = effect.kind
    formula = (owner.id, *LINE_FORMULAS[type(kind)](effect, kind))
    prices = kind.unit_prices_minor if isinstance(kind, PriceList) else None
    return LineRule(owner.rank, formula, owner.promotion.group, owner.promotion.exclusive, owner, prices)


def _spreads(programme: Programme, promotion: Promotion, kinds: Iterable[object]) -> bool:
    """Whether what a floor cuts off goes to other goods; if nothing is said, of amounts it may, of percents never."""
    said = promotion.floor_rest
    if said is not None:
        return said is FloorRest.SPREAD
    return programme.floor_rest is FloorRest.SPREAD and not any(isinstance(kind, PercentOff) for kind in kinds)


def _deal_spreads(programme: Programme, promotion: Promotion, deal: UnitDeal | SetDeal | Gift) -> bool:
    """The same of a deal; what is taken off single units is no discount over several."""
    if isinstance(deal, SetDeal):
        return _spreads(programme, promotion, [deal.kind])
    kinds = [deal.kind] if isinstance(deal, UnitDeal) else []
    return deal.falls_on is FallsOn.WHOLE_DEAL and _spreads(programme, promotion, kinds)


def _basket_rule(owner: CompiledPromotion, effect: BasketDiscount | None, programme: Programme) -> BasketRule | None:
    if effect is None:
        return None
    kind = effect.kind
    amount = kind.share if isinstance(kind, PercentOff) else Fraction(kind.amount_minor)
    return BasketRule(
        owner.rank,
        owner.id,
        BASKET_REDUCERS[type(kind)],
        amount.numerator,
        amount.denominator,
        effect.base is Base.LIST,
        owner.promotion.group,
        owner.promotion.exclusive,
        owner,
        None,
        _spreads(programme, owner.promotion, [kind]),
    )


def _steps_rule(owner: CompiledPromotion, steps: Steps, programme: Programme) -> BasketRule:
    promotion = owner.promotion
    spreads = _spreads(programme, promotion, [step.kind for step in steps.steps])
    return BasketRule(
        owner.rank,
        owner.id,
        _basket_amount_off,
        0,
        1,
        False,
        promotion.group,
        promotion.exclusive,
        owner,
        steps,
        spreads,
    )


# --- points -----------------------------------------------------------------------------------------------

_POINTS_MEASURES = {"line": ONCE, "unit": UNITS}


def _points_rules(
    owner: CompiledPromotion, points: Points | None, base: EarningBase
) -> tuple[PointsRule | None, ReceiptPointsRule | None]:
    """Points a line, or points once a receipt."""
    if points is None:
        return None, None
    kind, promotion = points.kind, owner.promotion
    unit = "" if points.unit in (None, base.programme.point.unit) else points.unit or ""
    partner = base.partner if points.partner is None else points.partner
    grant = _receipt_grant(kind, base, points.unit)
    if grant is not None:
        return None, ReceiptPointsRule(
            owner.rank, owner.id, grant, unit, partner, promotion.group, promotion.exclusive, owner
        )
    factor, compound = None, False
    measure, terms = MONEY_PAID, (0, 0, 1)
    match kind:
        case PointsPercent(share):
            terms = rate_terms(share * base.points_per_money(points.unit), base.rounding)
        case PointsMultiplier(times, compounds):
            terms = rate_terms(base.rate(points.unit) * (times - 1), base.rounding)
            if not unit:
                factor, compound = times, compounds
        case PointsPerAmount(points_minor, step_minor):
            measure, terms = STEPS_PAID, (points_minor, 0, step_minor)
        case PointsFixed(points_minor, per):
            measure, terms = _POINTS_MEASURES[per], (points_minor, 0, 1)
    formula = (owner.id, measure, *terms, unit, partner)
    return PointsRule(owner.rank, formula, promotion.group, promotion.exclusive, owner, factor, compound), None


def _receipt_grant(kind: PointsKind, base: EarningBase, unit: str | None) -> Callable[[int], int] | None:
    """(money paid in scope) -> points, for kinds that grant once a receipt."""
    match kind:
        case PointsFixed(points_minor, per="receipt"):
            return lambda _paid_minor: points_minor
        case PointsPerAmount(points_minor, step_minor, per="receipt"):
            return lambda paid_minor: paid_minor // step_minor * points_minor
        case PointsSteps():
            per_money = base.points_per_money(unit)
            return lambda paid_minor: _points_of_steps(kind, paid_minor, per_money, base.rounding)
    return None


def _points_of_steps(kind: PointsSteps, paid_minor: int, per_money: Fraction, rounding: Rounding) -> int:
    """Whole: the highest step reached counts for all. Marginal: points add up, percents count between thresholds."""
    reached = sorted((s for s in kind.steps if s.at_least_minor <= paid_minor), key=lambda s: s.at_least_minor)
    if not reached:
        return 0
    if not kind.marginal:
        exact = reached[-1].points_minor + reached[-1].share * paid_minor * per_money
    else:
        ends = [step.at_least_minor for step in reached[1:]] + [paid_minor]
        exact = Fraction(0)
        for step, end in zip(reached, ends, strict=True):
            exact += step.points_minor + step.share * (end - step.at_least_minor) * per_money
    numerator, addend, denominator = rate_terms(Fraction(exact), rounding)
    return (numerator + addend) // denominator
