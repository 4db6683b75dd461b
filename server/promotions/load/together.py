"""What promotions have in common: the effects they can have, and what those of one group or campaign share."""

from __future__ import annotations

from collections import defaultdict

from server.promotions.effects import WORDS
from server.promotions.kinds import Measure
from server.promotions.load.context import Context
from server.promotions.model import BASE_ID
from server.promotions.schema.conditions import WhenSection
from server.promotions.schema.sections import CampaignSection, PromotionSection
from server.promotions.yaml_text import Path

DISCOUNTS = ("line_discount", "basket_discount", "units", "set", "gift", "steps")
ALTERNATIVES = (("units", "set", "gift", "steps"), ("basket_discount", "steps"))
"""Effects of which a promotion has one."""
EFFECTS = (*DISCOUNTS, "points", "tier_points", *WORDS)

_FIELDS = {"set": "together", **WORDS}
"""Fields whose name in the file is another in the schema."""


def effects_of(section: PromotionSection) -> list[str]:
    """The effects that a promotion has, by their names in the file."""
    return [name for name in EFFECTS if getattr(section, _FIELDS.get(name, name)) is not None]


def check_measure(measure: Measure, sections: list[PromotionSection], path: Path, context: Context) -> None:
    """A limit measures what at least one of its promotions gives."""
    given = {name for section in sections for name in effects_of(section)}
    if measure is Measure.MONEY and not given & set(DISCOUNTS):
        context.faults.add(path, "no discount is given, so no money is ever counted", "limit count or points")
    if measure is Measure.POINTS and "points" not in given:
        context.faults.add(path, "no points are granted, so none are ever counted", "limit count or money")


def check_campaign(
    section: CampaignSection, promotions: list[PromotionSection], path: Path, context: Context
) -> str | None:
    """Check that a campaign's limits measure what its promotions give; return the unit of their points."""
    units = {entry.points.unit for entry in promotions if entry.points is not None}
    for number, limit in enumerate(section.limits):
        at: Path = (*path, "limits", number, "of")
        if promotions:
            check_measure(limit.measure, promotions, at, context)
        if limit.measure is Measure.POINTS and len(units) > 1:
            hint = "make it a campaign for each unit"
            context.faults.add(at, "its promotions grant points of different units", hint)
    return units.pop() if len(units) == 1 else None


def check_groups(sections: dict[int, PromotionSection], base_group: str | None, context: Context) -> None:
    """A group chooses among like effects, so its members must all work in the same step."""
    known: defaultdict[str, dict[str, str]] = defaultdict(dict)
    if base_group is not None:
        known[base_group]["points on lines"] = BASE_ID
    for number, section in sections.items():
        if section.group is None:
            continue
        path: Path = ("promotions", number, "group")
        steps = known[section.group]
        for step in _steps(section):
            steps.setdefault(step, section.id)
        if len(steps) > 1:
            names = " and ".join(f"{step} (`{code}`)" for step, code in steps.items())
            hint = "a group chooses among promotions of one kind: split the group or the promotion"
            context.faults.add(path, f"group `{section.group}` mixes {names}", hint)
        if section.group == base_group and section.points and section.points.multiplier is not None:
            hint = "take it out of the base percent's group"
            context.faults.add(path, "a multiplier can't compete with the base percent it multiplies", hint)


def _steps(section: PromotionSection) -> list[str]:
    """The steps of an evaluation in which a promotion competes with others."""
    steps = []
    of_right = " of coupons and offers" if asks_for_right(section.when) else ""
    if section.line_discount is not None or section.units or section.together or section.gift:
        steps.append(f"line discounts{of_right}")
    if section.basket_discount is not None or section.steps is not None:
        steps.append(f"basket discounts{of_right}")
    if section.points is not None:
        points = section.points
        once = (
            points.steps is not None
            or (points.fixed is not None and points.per in {None, "receipt"})
            or (points.per_amount is not None and points.per_amount.per == "receipt")
        )
        steps.append("points a receipt" if once else "points on lines")
    return steps


def asks_for_right(section: WhenSection | None) -> bool:
    """Say whether a coupon or an offer is among the conditions."""
    if section is None:
        return False
    return (
        section.coupon is not None
        or section.offer is not None
        or any(asks_for_right(part) for part in (*(section.every or ()), *(section.some or ())))
    )
