"""What a promotion does: from its sections to the model's discounts, deals, points and other effects."""

from __future__ import annotations

from fractions import Fraction

from server.promotions.criteria import Selector
from server.promotions.kinds import Base
from server.promotions.load.context import Context, share_of
from server.promotions.load.goods import goods, lot_terms
from server.promotions.model import (
    AmountOff,
    BasketDiscount,
    FixedPrice,
    Gift,
    LineDiscount,
    LineDiscountKind,
    PercentOff,
    Points,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsStep,
    PointsSteps,
    PriceList,
    SetDeal,
    SetPart,
    Step,
    Steps,
    UnitDeal,
)
from server.promotions.schema.effects import (
    BasketDiscountSection,
    GiftSection,
    LineDiscountSection,
    PointsKindSection,
    PointsSection,
    PointsStepSection,
    SetSection,
    StepSection,
    StepsSection,
    TierPointsSection,
    UnitsSection,
)
from server.promotions.schema.goods import ScopeSection
from server.promotions.schema.sections import PromotionSection
from server.promotions.yaml_text import Path

_NOTHING = 1
"""Stands for an amount that is at fault, so that the rest can be checked."""


def line_discount(section: LineDiscountSection | None, path: Path, context: Context) -> LineDiscount | None:
    """A discount on each line."""
    if section is None:
        return None
    context.one_of(section, ("percent", "amount", "fixed_price", "prices"), path)
    kind: LineDiscountKind
    if section.percent is not None:
        kind = PercentOff(share_of(section.percent))
    elif section.amount is not None:
        kind = AmountOff(context.money(section.amount, (*path, "amount")) or 0)
    else:
        if section.base is Base.LIST:
            context.faults.add((*path, "base"), "a fixed price has no base", "remove it")
        if section.prices is not None:
            prices = {sku: context.money(price, (*path, "prices", sku)) or 0 for sku, price in section.prices.items()}
            kind = PriceList(prices)
        else:
            kind = FixedPrice(context.money(section.fixed_price, (*path, "fixed_price")) or 0)
    return LineDiscount(kind, section.base)


def basket_discount(section: BasketDiscountSection | None, path: Path, context: Context) -> BasketDiscount | None:
    """A discount over all goods in scope."""
    if section is None:
        return None
    context.one_of(section, ("percent", "amount"), path)
    return BasketDiscount(_cut_of(section, path, context), section.base)


def _cut_of(section: BasketDiscountSection | StepSection, path: Path, context: Context) -> PercentOff | AmountOff:
    if section.percent is not None:
        return PercentOff(share_of(section.percent))
    return AmountOff(context.money(section.amount, (*path, "amount")) or _NOTHING)


def _off_or_price(
    section: UnitsSection | SetSection, path: Path, context: Context
) -> PercentOff | AmountOff | FixedPrice:
    context.one_of(section, ("percent", "amount", "price"), path)
    if section.percent is not None:
        return PercentOff(share_of(section.percent))
    if section.amount is not None:
        return AmountOff(context.money(section.amount, (*path, "amount")) or 0)
    return FixedPrice(context.money(section.price, (*path, "price")) or 0)


def unit_deal(section: UnitsSection, path: Path, context: Context) -> UnitDeal:
    """Of every so many units, some are cheaper."""
    if section.discounted > section.every:
        context.faults.add(
            (*path, "discounted"), "is more than `every`", "a deal has fewer discounted units than units"
        )
    kind = _off_or_price(section, path, context)
    return UnitDeal(section.every, section.discounted, kind, section.choose, section.falls_on, section.most)


def set_deal(section: SetSection, path: Path, context: Context) -> SetDeal:
    """Goods that are cheaper together."""
    parts = []
    for number, part in enumerate(section.parts):
        selector = goods(part, (*path, "parts", number), context) or Selector()
        parts.append(SetPart(selector, part.quantity))
    if sum(part.quantity for part in parts) < 2:  # noqa: PLR2004 - a set has two things
        context.faults.add((*path, "parts"), "a set of one unit is no set", "add a part, or use line_discount")
    falls_on = section.falls_on_part
    if falls_on is not None and falls_on > len(parts):
        message = f"there are {len(parts)} parts only"
        context.faults.add((*path, "falls_on_part"), message, "count them from 1")
    kind = _off_or_price(section, path, context)
    return SetDeal(tuple(parts), kind, None if falls_on is None else falls_on - 1, section.most)


def gift(section: GiftSection, path: Path, context: Context) -> Gift:
    """Goods that are free, or cost little."""
    return Gift(
        goods=goods(section, path, context) or Selector(),
        quantity=section.quantity,
        unit_price_minor=context.money(section.price, (*path, "price")) or 0,
        per_units=section.for_every,
        falls_on=section.falls_on,
    )


def steps_discount(section: StepsSection, path: Path, context: Context) -> Steps:
    """A discount that grows in steps."""
    steps = []
    for number, step in enumerate(section.steps):
        at: Path = (*path, "steps", number)
        context.one_of(step, ("percent", "amount"), at)
        steps.append(Step(_threshold(section, step, at, context), _cut_of(step, at, context)))
    context.ascending([step.at_least for step in steps], (*path, "steps"), "at_least")
    return Steps(section.by, tuple(steps), section.mode == "marginal")


def _threshold(section: StepsSection, step: StepSection, path: Path, context: Context) -> int:
    at: Path = (*path, "at_least")
    if section.by == "amount":
        return context.money(step.at_least, at) or _NOTHING
    if section.by == "weight":
        return context.weight(step.at_least, at) or _NOTHING
    return context.whole(step.at_least, at)


def points(section: PointsSection | None, path: Path, context: Context) -> Points | None:
    """Points of a promotion, in their unit and at their payer's expense."""
    if section is None:
        return None
    if section.unit is not None:
        known = frozenset(context.known.precisions)
        context.refer(section.unit, known, (*path, "unit"), "unit", "under `units`")
    if section.partner is not None:
        context.refer(section.partner, context.known.partners, (*path, "partner"), "partner", "under `partners`")
    context.one_of(section, ("percent", "multiplier", "fixed", "per_amount", "steps"), path)
    if section.compound is not None and section.multiplier is None:
        context.faults.add((*path, "compound"), "only a multiplier compounds", "remove it")
    kind: PointsKind
    if section.multiplier is not None:
        if section.unit is not None:
            hint = "use percent, fixed or per_amount"
            context.faults.add((*path, "unit"), "a multiplier works on the base percent, which has its own", hint)
        kind = PointsMultiplier(Fraction(section.multiplier), bool(section.compound))
    else:
        kind = _points_kind(section, path, context, section.unit)
    terms = None
    if section.pending_days is not None or section.expiry is not None:
        terms = lot_terms(section.pending_days, section.expiry, path, context)
    return Points(kind, terms, section.unit, section.partner)


def tier_points(section: TierPointsSection | None, path: Path, context: Context) -> PointsKind | None:
    """Points that count towards levels only."""
    if section is None:
        return None
    context.one_of(section, ("percent", "fixed", "per_amount", "steps"), path)
    return _points_kind(section, path, context, None)


def _points_kind(section: PointsKindSection, path: Path, context: Context, unit: str | None) -> PointsKind:
    if section.per is not None and section.fixed is None:
        context.faults.add((*path, "per"), "belongs to `fixed`", "remove it")
    if section.mode is not None and section.steps is None:
        context.faults.add((*path, "mode"), "belongs to `steps`", "remove it")
    if section.percent is not None:
        return PointsPercent(share_of(section.percent))
    if section.per_amount is not None:
        at: Path = (*path, "per_amount")
        granted = context.points(section.per_amount.points, (*at, "points"), unit) or 0
        step = context.money(section.per_amount.step, (*at, "step")) or _NOTHING
        return PointsPerAmount(granted, step, section.per_amount.per)
    if section.steps is not None:
        steps = tuple(_points_step(step, (*path, "steps", n), context, unit) for n, step in enumerate(section.steps))
        context.ascending([step.at_least_minor for step in steps], (*path, "steps"), "at_least")
        return PointsSteps(steps, section.mode == "marginal")
    granted = context.points(section.fixed, (*path, "fixed"), unit) or 0
    return PointsFixed(granted, section.per or "receipt")


def _points_step(section: PointsStepSection, path: Path, context: Context, unit: str | None) -> PointsStep:
    context.one_of(section, ("points", "percent"), path)
    at_least = context.money(section.at_least, (*path, "at_least")) or _NOTHING
    if section.percent is not None:
        return PointsStep(at_least, share=share_of(section.percent))
    return PointsStep(at_least, context.points(section.points, (*path, "points"), unit) or 0)


def scope(section: PromotionSection, path: Path, context: Context) -> Selector | None:
    """The goods of a promotion; those of a price list are its scope."""
    discount = section.line_discount
    if discount is None or discount.prices is None:
        return goods(section.scope, (*path, "scope"), context)
    listed = frozenset(discount.prices)
    if section.scope is None:
        return Selector(skus=listed)
    if _names_goods(section.scope):
        hint = "remove it; `except` may take goods out again"
        context.faults.add((*path, "scope"), "the price list says which goods", hint)
    return Selector(skus=listed, but_not=goods(section.scope.but_not, (*path, "scope", "except"), context))


def _names_goods(section: ScopeSection) -> bool:
    return any((section.skus, section.categories, section.brands, section.suppliers, section.tags))
