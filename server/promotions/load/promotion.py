"""One promotion: its effects, its texts, and what of it has to fit together."""

from __future__ import annotations

from collections.abc import Mapping

from server.promotions import effects as further
from server.promotions.criteria import BasketCount, Condition, ReceiptTotal, ScopeTotal
from server.promotions.kinds import Audience
from server.promotions.load import effects
from server.promotions.load.conditions import condition, leaves
from server.promotions.load.context import Context, share_of
from server.promotions.load.faults import closest
from server.promotions.load.goods import dates
from server.promotions.load.settings import limits
from server.promotions.load.together import ALTERNATIVES, EFFECTS, check_measure, effects_of
from server.promotions.messages import PLACEHOLDERS, unknown_placeholders
from server.promotions.model import Deal, MessageText, NearMiss, Promotion
from server.promotions.schema.sections import DEFAULT_LANGUAGE, NearMissSection, PromotionSection
from server.promotions.yaml_text import Path

NEAR_MISS_ONLY = frozenset({"missing", "missing_quantity"})


def promotion(section: PromotionSection, path: Path, context: Context) -> Promotion:
    """One promotion; `path` is where it stands."""
    given = effects_of(section)
    if not given:
        context.faults.add(path, "has no effect", f"add {', '.join(EFFECTS[:-1])} or {EFFECTS[-1]}")
    for names in ALTERNATIVES:
        both = [name for name in given if name in names]
        if len(both) > 1:
            hint = "make it two promotions, perhaps in one `group`"
            context.faults.add((*path, both[1]), f"stands beside `{both[0]}`", hint)
    if section.campaign is not None:
        known = context.known.campaigns
        context.refer(section.campaign, known, (*path, "campaign"), "campaign", "under `campaigns`")
    first, last = dates(section.valid, (*path, "valid"), context)
    when = condition(section.when, (*path, "when"), context)
    unit = section.points.unit if section.points is not None else None
    built_limits = limits(section.limits, (*path, "limits"), context, unit)
    for number, limit in enumerate(built_limits):
        check_measure(limit.measure, [section], (*path, "limits", number, "of"), context)
    return Promotion(
        id=section.id,
        name=section.name,
        scope=effects.scope(section, path, context),
        valid_from=first,
        valid_until=last,
        when=when,
        priority=section.priority,
        group=section.group,
        exclusive=section.exclusive,
        floor_rest=section.floor_rest,
        messages=messages(section.messages, (*path, "messages"), context, is_near_miss=False),
        near_miss=_near_miss(section, when, path, context),
        limits=built_limits,
        campaign=section.campaign,
        control_share=share_of(section.control_percent),
        line_discount=effects.line_discount(section.line_discount, (*path, "line_discount"), context),
        basket_discount=effects.basket_discount(section.basket_discount, (*path, "basket_discount"), context),
        deal=_deal(section, path, context),
        points=effects.points(section.points, (*path, "points"), context),
        tier_points=effects.tier_points(section.tier_points, (*path, "tier_points"), context),
        **further.checked(section, path, context),
    )


def _deal(section: PromotionSection, path: Path, context: Context) -> Deal | None:
    deal: Deal | None = None
    if section.steps is not None:
        deal = effects.steps_discount(section.steps, (*path, "steps"), context)
    if section.gift is not None:
        deal = effects.gift(section.gift, (*path, "gift"), context)
    if section.together is not None:
        deal = effects.set_deal(section.together, (*path, "set"), context)
    if section.units is not None:
        deal = effects.unit_deal(section.units, (*path, "units"), context)
    return deal


# --- messages ---------------------------------------------------------------------------------------------


def messages(
    given: Mapping[Audience, Mapping[str, str]], path: Path, context: Context, *, is_near_miss: bool
) -> tuple[MessageText, ...]:
    """Texts in a fixed order of audiences; the text in the programme's language stands for readers of others."""
    built = []
    for audience, texts in sorted(given.items(), key=lambda item: item[0].value):
        at: Path = (*path, audience.value)
        for language, text in texts.items():
            where = at if language == DEFAULT_LANGUAGE else (*at, language)
            _check_placeholders(text, where, context, is_near_miss)
        built.append(MessageText(audience, _with_default(texts, at, context)))
    return tuple(built)


def _with_default(texts: Mapping[str, str], path: Path, context: Context) -> Mapping[str, str]:
    language = context.known.language
    if DEFAULT_LANGUAGE in texts:
        return dict(texts)
    if not language:
        context.faults.add(path, "has languages, but the programme has none", "set `language` at the top of the file")
        return dict(texts)
    if language not in texts:
        context.faults.add(path, f"has no text in the programme's language, `{language}`", "add it")
        return dict(texts)
    return {DEFAULT_LANGUAGE: texts[language], **texts}


def _check_placeholders(text: str, path: Path, context: Context, is_near_miss: bool) -> None:
    for name in unknown_placeholders(text):
        hint = closest(name, list(PLACEHOLDERS), f"known are {', '.join(PLACEHOLDERS)}")
        context.faults.add(path, f"`{{{name[:40]}}}` is no placeholder", hint)
    if not is_near_miss:
        for name in sorted(NEAR_MISS_ONLY):
            if f"{{{name}}}" in text:
                hint = "use it under `near_miss`"
                context.faults.add(path, f"nothing is missing when a promotion applies, so `{{{name}}}` is empty", hint)


def _near_miss(section: PromotionSection, when: Condition | None, path: Path, context: Context) -> NearMiss | None:
    if section.near_miss is None:
        return None
    at: Path = (*path, "near_miss")
    near = section.near_miss
    if near.within_amount is None and near.within_quantity is None:
        context.faults.add(at, "does not say what is near", "give within_amount or within_quantity")
    amount, quantity = _thresholds(section, when)
    _check_threshold(near, (amount, quantity), at, context)
    return NearMiss(
        messages=messages(near.messages, (*at, "messages"), context, is_near_miss=True),
        within_minor=context.money(near.within_amount, (*at, "within_amount")),
        within_quantity=near.within_quantity,
    )


def _check_threshold(near: NearMissSection, thresholds: tuple[bool, bool], path: Path, context: Context) -> None:
    amount, quantity = thresholds
    if near.within_amount is not None and not amount:
        hint = "add a receipt_total, scope_total or basket amount with at_least, steps by amount, or points in steps"
        context.faults.add((*path, "within_amount"), "the promotion has no threshold of money", hint)
    if near.within_quantity is not None and not quantity:
        hint = "add a basket quantity with at_least, or units, set, gift with for_every, or steps by quantity"
        context.faults.add((*path, "within_quantity"), "the promotion has no threshold of pieces", hint)


def _thresholds(section: PromotionSection, when: Condition | None) -> tuple[bool, bool]:
    """Whether a promotion can be missed by money, and by pieces (or categories)."""
    amount = (section.steps is not None and section.steps.by == "amount") or (
        section.points is not None and section.points.steps is not None
    )
    quantity = (
        section.units is not None
        or section.together is not None
        or (section.gift is not None and section.gift.for_every is not None)
        or (section.steps is not None and section.steps.by == "quantity")
    )
    for leaf in leaves(when):
        if isinstance(leaf, ReceiptTotal | ScopeTotal):
            amount = amount or leaf.at_least_minor is not None
        elif isinstance(leaf, BasketCount) and leaf.at_least is not None:
            amount = amount or leaf.what == "amount"
            quantity = quantity or leaf.what in {"quantity", "categories"}
    return amount, quantity
