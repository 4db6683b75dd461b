"""The whole file: from plain data to a programme, or to all of its faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from server.promotions.kinds import FloorRest
from server.promotions.load import settings
from server.promotions.load.context import DEFAULT_PRECISION, Context, check_codes, known_in, share_of
from server.promotions.load.faults import Faults, validated
from server.promotions.load.promotion import promotion
from server.promotions.load.together import check_campaign, check_groups
from server.promotions.model import Campaign, Programme
from server.promotions.schema.sections import (
    CampaignSection,
    EarningSection,
    ExclusionsSection,
    FurtherUnitSection,
    PointSection,
    ProgrammeSection,
    PromotionSection,
    SpendingSection,
    TiersSection,
)
from server.promotions.yaml_text import Plain

_M = TypeVar("_M", bound=BaseModel)

FLOORS_SPREAD_SINCE = 1
"""The semantics from which on what a floor cuts off an amount goes to the lines that have room."""


def default_floor_rest(semantics: int) -> FloorRest:
    """Return what becomes of what floors cut off amounts, in files that do not say."""
    return FloorRest.SPREAD if semantics >= FLOORS_SPREAD_SINCE else FloorRest.LOST


def changed_defaults(semantics: int) -> dict[str, str]:
    """Return what a file means by what it leaves out, of those defaults that have changed: by fields, in words."""
    return {"floor_rest of amounts, where a promotion does not say": default_floor_rest(semantics).value}


def programme_from(data: Plain, faults: Faults, semantics: int) -> Programme | None:
    """A programme, or None after noting its faults. What is returned is sound only if none were noted.

    `semantics` is the number of the defaults: see `load_programme`.
    """
    if not isinstance(data, dict):
        faults.add((), "the file has to be a mapping of fields", "begin with `programme: a-code`")
        return None
    whole = validated(ProgrammeSection, data, (), faults)
    check_codes(data, faults)
    if whole is None:
        _build_parts(data, faults)
        return None
    return _build(whole, Context(whole.currency, whole.point.precision, known_in(data), faults), semantics)


def _build(section: ProgrammeSection, context: Context, semantics: int) -> Programme:
    sections = dict(enumerate(section.promotions))
    check_groups(sections, section.earning.base_group, context)
    return Programme(
        code=section.programme,
        name=section.name,
        effective_from=section.effective_from,
        currency=section.currency,
        currency_digits=context.digits,
        language=section.language or "",
        point=settings.point_unit(section.point, context),
        earning=settings.earning(section.earning, context),
        spending=settings.spending(section.spending, section.point, context),
        returns=settings.returns(section.returns),
        exclusions=settings.exclusions(section.exclusions, context),
        offline=settings.offline(section.offline),
        tiers=settings.tiers(section.tiers, context) if section.tiers is not None else None,
        partners=tuple(settings.partner(partner) for partner in section.partners),
        units=tuple(
            settings.further_unit(unit, ("units", number), context) for number, unit in enumerate(section.units)
        ),
        cash_rounding_minor=context.money(section.cash_rounding, ("cash_rounding",)) or 0,
        control_share=share_of(section.control_percent),
        floor_rest=default_floor_rest(semantics),
        campaigns=_campaigns(dict(enumerate(section.campaigns)), sections, context),
        promotions=tuple(promotion(entry, ("promotions", number), context) for number, entry in sections.items()),
    )


def _campaigns(
    sections: Mapping[int, CampaignSection], promotions: Mapping[int, PromotionSection], context: Context
) -> tuple[Campaign, ...]:
    members: dict[str, list[PromotionSection]] = {section.id: [] for section in sections.values()}
    for entry in promotions.values():
        if entry.campaign in members:
            members[entry.campaign].append(entry)
    built = []
    for number, section in sections.items():
        of_it = members[section.id]
        unit = check_campaign(section, of_it, ("campaigns", number), context)
        built.append(settings.campaign(section, ("campaigns", number), context, unit))
    return tuple(built)


def _build_parts(data: dict[str, Plain], faults: Faults) -> None:
    """Look for faults between fields in those sections that are sound by themselves."""
    unheard = Faults(faults.document)
    currency = data.get("currency")
    point = validated(PointSection, data.get("point"), ("point",), unheard)
    precision = point.precision if point is not None else DEFAULT_PRECISION
    context = Context(currency if isinstance(currency, str) else "", precision, known_in(data), faults)
    earning = validated(EarningSection, data.get("earning", {}), ("earning",), unheard)
    if earning is not None:
        settings.earning(earning, context)
    spending = validated(SpendingSection, data.get("spending", {}), ("spending",), unheard)
    if spending is not None and point is not None:
        settings.spending(spending, point, context)
    exclusions = validated(ExclusionsSection, data.get("exclusions", {}), ("exclusions",), unheard)
    if exclusions is not None:
        settings.exclusions(exclusions, context)
    tiers = validated(TiersSection, data.get("tiers"), ("tiers",), unheard)
    if tiers is not None:
        settings.tiers(tiers, context)
    for number, unit in _sound(FurtherUnitSection, data, "units", unheard).items():
        settings.further_unit(unit, ("units", number), context)
    sections = _sound(PromotionSection, data, "promotions", unheard)
    for number, section in sections.items():
        promotion(section, ("promotions", number), context)
    _campaigns(_sound(CampaignSection, data, "campaigns", unheard), sections, context)
    check_groups(sections, earning.base_group if earning else None, context)


def _sound(model: type[_M], data: dict[str, Plain], name: str, unheard: Faults) -> dict[int, _M]:
    """Those entries of a list that are sound by themselves, by their number."""
    items = data.get(name)
    found = {}
    for number, item in enumerate(items if isinstance(items, list) else []):
        section = validated(model, item, (name, number), unheard)
        if section is not None:
            found[number] = section
    return found
