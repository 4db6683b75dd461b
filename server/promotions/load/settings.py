"""The settings of a programme file: earning, spending, returns, exclusions, levels, partners, units, campaigns."""

from __future__ import annotations

from decimal import Decimal

from server.promotions.kinds import LimitScope, Measure, OfflineAction, Period, TierMeasure
from server.promotions.load.context import Context, share_of
from server.promotions.load.goods import goods, lot_terms
from server.promotions.model import (
    Campaign,
    Earning,
    Exclusions,
    FurtherUnit,
    Limit,
    Offline,
    Partner,
    PointUnit,
    Returns,
    Spending,
    Tier,
    Tiers,
)
from server.promotions.schema.sections import (
    CampaignSection,
    EarningSection,
    ExclusionsSection,
    FurtherUnitSection,
    LevelSection,
    LimitSection,
    OfflineSection,
    PartnerSection,
    PointSection,
    ReturnsSection,
    SpendingSection,
    TiersSection,
)
from server.promotions.yaml_text import Path

DEFAULT_WINDOW_MONTHS = 12


def point_unit(section: PointSection, context: Context) -> PointUnit:
    """The programme's own point."""
    return PointUnit(section.unit, section.precision, context.money_per_points(section.pays, section.precision))


def further_unit(section: FurtherUnitSection, path: Path, context: Context) -> FurtherUnit:
    """A point of another kind."""
    point = PointUnit(section.unit, section.precision, context.money_per_points(section.pays, section.precision))
    return FurtherUnit(
        point, section.name, section.sold, lot_terms(section.pending_days, section.expiry, path, context)
    )


def earning(section: EarningSection, context: Context) -> Earning:
    """How the programme grants points by itself."""
    return Earning(
        base_share=share_of(section.base_percent),
        base_group=section.base_group,
        rounding=section.rounding,
        rounding_per=section.rounding_per,
        earn_on_points_paid=section.earn_on_points_paid,
        terms=lot_terms(section.pending_days, section.expiry, ("earning",), context),
    )


def spending(section: SpendingSection, point: PointSection, context: Context) -> Spending:
    """How points pay: in steps that pay whole minor units."""
    path: Path = ("spending", "step_points")
    per_points = context.money_per_points(point.pays, point.precision)
    step_points = context.points(section.step_points, path)
    if step_points is None:
        step_points = per_points.denominator
    step_money = per_points * step_points
    if step_money.denominator != 1:
        least = Decimal(per_points.denominator).scaleb(-point.precision)
        message = f"a step of {section.step_points} points does not pay a whole number of minor units"
        context.faults.add(path, message, f"use a multiple of {least:f}, or leave it out")
    return Spending(
        max_share=share_of(section.max_share_percent),
        step_points_minor=step_points,
        step_money_minor=int(step_money),
        keep_one_minor_unit=section.keep_one_minor_unit,
        respect_price_floor=section.respect_price_floor,
        hold_ttl_seconds=section.hold_ttl_seconds,
    )


def returns(section: ReturnsSection) -> Returns:
    """What becomes of points when goods come back."""
    return Returns(section.clawback, section.expired_lots.grace_days if section.expired_lots else 0)


def exclusions(section: ExclusionsSection, context: Context) -> Exclusions:
    """Three separate sets of goods."""
    return Exclusions(
        no_earning=goods(section.no_earning, ("exclusions", "no_earning"), context),
        no_discount=goods(section.no_discount, ("exclusions", "no_discount"), context),
        no_points_payment=goods(section.no_points_payment, ("exclusions", "no_points_payment"), context),
    )


def offline(section: OfflineSection) -> Offline:
    """What to do with receipts taken offline."""
    return Offline(**{name: OfflineAction(value) for name, value in section})


def partner(section: PartnerSection) -> Partner:
    """A coalition partner."""
    base = None if section.base_percent is None else share_of(section.base_percent)
    return Partner(section.code, section.name, base, section.accepts_points)


def tiers(section: TiersSection, context: Context) -> Tiers:
    """Levels, their window, and for how long they are certain."""
    path: Path = ("tiers",)
    levels = tuple(
        Tier(level.code, level.name, _level(section.by, level, (*path, "levels", number, "at_least"), context))
        for number, level in enumerate(section.levels)
    )
    context.ascending([level.threshold for level in levels], (*path, "levels"), "at_least")
    window, kept = section.window, section.kept
    if window.each is not None and window.months is not None:
        context.faults.add((*path, "window"), "has each and months", "give one of them")
    for period, at in ((window.each, (*path, "window", "each")), (kept.until_end_of, (*path, "kept", "until_end_of"))):
        if period in {Period.DAY, Period.WEEK}:
            context.faults.add(at, "levels are counted in months", "use month, quarter, half_year or year")
    return Tiers(
        measure=section.by,
        levels=levels,
        period=window.each,
        months=window.months or DEFAULT_WINDOW_MONTHS,
        kept_until_end_of=kept.until_end_of,
        kept_periods=kept.periods_later,
    )


def _level(measure: TierMeasure, section: LevelSection, path: Path, context: Context) -> int:
    if measure is TierMeasure.SPEND:
        return context.money(section.at_least, path) or 0
    if measure is TierMeasure.POINTS:
        return context.points(section.at_least, path) or 0
    return context.whole(section.at_least, path)


def limits(sections: list[LimitSection], path: Path, context: Context, unit: str | None) -> tuple[Limit, ...]:
    """Limits of a promotion or campaign, whose points are of this unit (None: the programme's own)."""
    built: list[Limit] = []
    for number, section in enumerate(sections):
        at: Path = (*path, number)
        limit = Limit(section.measure, section.scope, _at_most(section, at, context, unit), section.each)
        if section.scope is LimitScope.RECEIPT and section.each is not None:
            context.faults.add((*at, "each"), "a receipt has no period", "remove it, or say `for: member`")
        if any((limit.measure, limit.scope, limit.period) == (o.measure, o.scope, o.period) for o in built):
            context.faults.add(at, "limits the same as one before", "keep the smaller one")
        built.append(limit)
    return tuple(built)


def _at_most(section: LimitSection, path: Path, context: Context, unit: str | None) -> int:
    at: Path = (*path, "at_most")
    if section.measure is Measure.MONEY:
        return context.money(section.at_most, at) or 0
    if section.measure is Measure.POINTS:
        return context.points(section.at_most, at, unit) or 0
    return context.whole(section.at_most, at)


def campaign(section: CampaignSection, path: Path, context: Context, unit: str | None) -> Campaign:
    """Promotions that share limits and a control group; their points are of this unit."""
    built = limits(section.limits, (*path, "limits"), context, unit)
    return Campaign(section.id, section.name, built, share_of(section.control_percent))
