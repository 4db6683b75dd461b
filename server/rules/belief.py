"""Warnings of what nobody would believe: rates, limits and rewards that are more than a shop gives away. Pure.

The thresholds are far beyond what grocers do, and near what a slipped decimal point makes. docs/rules.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from fractions import Fraction
from typing import Final

from server.promotions import Programme
from server.promotions.kinds import LimitScope, Measure
from server.promotions.model import (
    Limit,
    LotTerms,
    PercentOff,
    PointsFixed,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsSteps,
    Promotion,
    SetDeal,
    Steps,
    UnitDeal,
)
from server.promotions.yaml_text import Path
from server.rules.meeting import Giver, together

Doubt = tuple[Path, str, str]
"""Where, what, and what to do about it."""

MOST_EARNED: Final = Fraction(1, 2)
"""Of what was paid, back in points."""
MOST_FACTOR: Final = 20
"""By which points are multiplied."""
MOST_OFF: Final = Fraction(9, 10)
"""Of the price, by one promotion."""
MOST_OFF_TOGETHER: Final = Fraction(7, 10)
"""Of the price, by several promotions on one occasion: their percents added up."""
MOST_USES: Final = 10_000
"""In a limit for a receipt or a member."""
MOST_MONEY: Final = 1_000_000
"""In a limit for a receipt or a member, in whole units of money, or of points by what they pay."""
LONGEST_PENDING_DAYS: Final = 366
_SMALL_SCOPES: Final = frozenset({LimitScope.RECEIPT, LimitScope.MEMBER})
_SHOWN: Final = 5


def beyond_belief(programme: Programme, today: date) -> Iterator[Doubt]:
    """Yield warnings of rates and limits, and of rewards that add up."""
    yield from _about_base(programme, today)
    for number, promotion in enumerate(programme.promotions):
        path: Path = ("promotions", number)
        yield from _about_discounts(promotion, path)
        yield from _about_points(promotion, path, programme, today)
        yield from _about_limits(promotion.limits, path, programme)
    for number, campaign in enumerate(programme.campaigns):
        yield from _about_limits(campaign.limits, ("campaigns", number), programme)
    yield from _about_stacks(programme)


def percent(share: Fraction) -> str:
    """Write a share in per cent with at most two decimals: 1/8 is 12.5 %."""
    hundredths = round(share * 10_000)
    whole, rest = divmod(hundredths, 100)
    return f"{whole:,}.{rest:02d}".rstrip("0").rstrip(".") + " %"


# --- rates --------------------------------------------------------------------------------------------------------


def _about_base(programme: Programme, today: date) -> Iterator[Doubt]:
    earning = programme.earning
    if earning.base_share > MOST_EARNED:
        yield ("earning", "base_percent"), _rate_in_words(earning.base_share), "check the decimal point"
    yield from _about_terms(earning.terms, ("earning",), today)
    for number, partner in enumerate(programme.partners):
        if partner.base_share is not None and partner.base_share > MOST_EARNED:
            yield ("partners", number, "base_percent"), _rate_in_words(partner.base_share), "check the decimal point"


def _rate_in_words(share: Fraction) -> str:
    return f"gives {percent(share)} of what is paid back in points"


def _about_terms(terms: LotTerms, path: Path, today: date) -> Iterator[Doubt]:
    if terms.pending_days > LONGEST_PENDING_DAYS:
        yield (*path, "pending_days"), f"points wait {terms.pending_days:,} days until they can be used", "lower it"
    if terms.expiry is not None and terms.expiry.on is not None and terms.expiry.on < today:
        said = f"points lapse on {terms.expiry.on}, which is over: nobody gets any"
        yield (*path, "expiry"), said, "give a later day, or a duration"


def percent_off(promotion: Promotion) -> Fraction:
    """Return the share of the price that a promotion takes off all goods that it counts; 0 if it is no percent."""
    discounts = (promotion.line_discount, promotion.basket_discount)
    kinds = [discount.kind for discount in discounts if discount is not None]
    shares = [Fraction(0), *(kind.share for kind in kinds if isinstance(kind, PercentOff))]
    match promotion.deal:
        case UnitDeal(kind=PercentOff(share=share), every=every, discounted=discounted):
            shares.append(share * discounted / every)
        case SetDeal(kind=PercentOff(share=share), falls_on_part=None):
            shares.append(share)
        case Steps(steps=steps):
            shares += [step.kind.share for step in steps if isinstance(step.kind, PercentOff)]
        case _:
            pass
    return max(shares)


def _about_discounts(promotion: Promotion, path: Path) -> Iterator[Doubt]:
    share = percent_off(promotion)
    if share >= MOST_OFF:
        field = "line_discount" if promotion.line_discount else "basket_discount" if promotion.basket_discount else "id"
        yield (*path, field), f"takes {percent(share)} off the price", "check the percent"


def _about_points(promotion: Promotion, path: Path, programme: Programme, today: date) -> Iterator[Doubt]:
    points = promotion.points
    if points is None:
        return
    at: Path = (*path, "points")
    if isinstance(points.kind, PointsMultiplier) and points.kind.factor > MOST_FACTOR:
        said = (
            f"multiplies points by {points.kind.factor}: {percent(programme.earning.base_share * points.kind.factor)}"
        )
        yield at, f"{said} of what is paid", "check the factor"
        return
    share = earned(promotion, programme)
    if share > MOST_EARNED:
        yield at, _rate_in_words(share), "check the decimal point"
    if points.terms is not None:
        yield from _about_terms(points.terms, at, today)


def earned(promotion: Promotion, programme: Programme) -> Fraction:
    """Return the share of what is paid that a promotion gives back in points, by what points pay; 0 if it is none."""
    points = promotion.points
    if points is None:
        return Fraction(0)
    worth = _worth(programme, points.unit)
    match points.kind:
        case PointsPercent(share=share):
            return share
        case PointsMultiplier(factor=factor):
            return programme.earning.base_share * (factor - 1)
        case PointsPerAmount(points_minor=points_minor, step_minor=step_minor):
            return worth * points_minor / step_minor
        case PointsSteps(steps=steps):
            shares = [step.share for step in steps]
            shares += [worth * step.points_minor / step.at_least_minor for step in steps if step.at_least_minor]
            return max(shares)
        case PointsFixed():
            return Fraction(0)


def _worth(programme: Programme, unit: str | None) -> Fraction:
    points = {programme.point.unit: programme.point, **{each.point.unit: each.point for each in programme.units}}
    return points[unit or programme.point.unit].money_per_points


def _about_limits(limits: Iterable[Limit], path: Path, programme: Programme) -> Iterator[Doubt]:
    for number, limit in enumerate(limits):
        if limit.scope not in _SMALL_SCOPES:
            continue
        if limit.measure is Measure.COUNT:
            is_absurd = limit.at_most > MOST_USES
        else:
            worth = programme.point.money_per_points if limit.measure is Measure.POINTS else Fraction(1)
            is_absurd = limit.at_most * worth > MOST_MONEY * 10**programme.currency_digits
        if is_absurd:
            said = f"{limit.at_most:,} {limit.measure.value} for a {limit.scope.value} is as good as no limit"
            yield (*path, "limits", number), said, "check the figure, or remove it"


# --- rewards that add up ------------------------------------------------------------------------------------------


def _about_stacks(programme: Programme) -> Iterator[Doubt]:
    promotions = programme.promotions
    for found in together(promotions, percent_off, MOST_OFF_TOGETHER):
        said = f"takes {percent(_sum(found))} off the same goods together with {_other_givers(found)}"
        yield ("promotions", found[-1].number, "id"), said, _ONE_OF_THEM
    base = programme.earning.base_share
    beside_base = max(MOST_EARNED - base, Fraction(0))
    for found in together(promotions, lambda one: earned(one, programme), beside_base + Fraction(1, 10**6)):
        said = (
            f"gives {percent(_sum(found) + base)} of what is paid back in points together with {_other_givers(found)}"
        )
        yield ("promotions", found[-1].number, "id"), said, _ONE_OF_THEM
    for found in together(promotions, _more_times, Fraction(MOST_FACTOR)):
        said = f"multiplies points by {_sum(found) + 1} together with {_other_givers(found)}"
        yield ("promotions", found[-1].number, "id"), said, _ONE_OF_THEM


_ONE_OF_THEM: Final = "give them one `group`, or mark one `exclusive`, if only one is to apply"


def _more_times(promotion: Promotion) -> Fraction:
    points = promotion.points
    return points.kind.factor - 1 if points is not None and isinstance(points.kind, PointsMultiplier) else Fraction(0)


def _sum(found: Sequence[Giver]) -> Fraction:
    return sum((one.share for one in found), Fraction(0))


def _other_givers(found: Sequence[Giver]) -> str:
    names = [f"`{one.promotion.id}`" for one in found[:-1]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
