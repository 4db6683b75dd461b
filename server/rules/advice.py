"""Warnings: what a programme file may say, and its author probably did not mean. Pure.

A warning never stops anything. Those made here are about a promotion that can never apply, a limit that can never be
reached, or a name that nothing else knows; `belief` has those about figures that nobody would believe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import date

from server.promotions import Programme, ProgrammeError
from server.promotions.criteria import TimeWindow
from server.promotions.kinds import LimitScope, Measure
from server.promotions.model import Campaign, Limit, Promotion
from server.promotions.walk import leaves_of
from server.promotions.yaml_text import Path, read_yaml
from server.rules.belief import Doubt, beyond_belief
from server.rules.names import Names, names_in, unknown_names

_WIDTH = {LimitScope.RECEIPT: 0, LimitScope.MEMBER: 1, LimitScope.STORE: 2, LimitScope.ALL: 3}


def warnings_of(
    programme: Programme,
    text: str | bytes,
    file: str,
    today: date,
    unknown: Collection[tuple[Names, str]] = (),
) -> list[ProgrammeError]:
    """Return warnings about a valid programme in file order; `text` is what it was read from.

    `unknown` are names that nothing else knows, of `names_in`.
    """
    found = [*_about_promotions(programme, today), *_about_groups(programme), *_about_campaigns(programme)]
    found += unknown_names(names_in(programme), unknown)
    found += beyond_belief(programme, today)
    positions = read_yaml(text).positions if found else {}
    warnings = []
    for path, message, hint in found:
        place = path
        while place and place not in positions:
            place = place[:-1]
        line, column = positions.get(place, (1, 1))
        warnings.append(ProgrammeError(file, line, column, _dotted(path), message, hint))
    return sorted(set(warnings), key=lambda one: (one.line, one.column, one.field, one.message))


def _about_promotions(programme: Programme, today: date) -> Iterator[Doubt]:
    campaigns = {campaign.id: campaign for campaign in programme.campaigns}
    for number, promotion in enumerate(programme.promotions):
        path: Path = ("promotions", number)
        last = promotion.valid_until
        if last is not None and last < programme.effective_from:
            said = f"ended on {last}, before the programme begins on {programme.effective_from}: it never applies"
            yield (*path, "valid"), said, "correct the date, or remove the promotion"
        elif last is not None and last < today:
            yield (*path, "valid"), f"ended on {last}", "remove it, or give it a later date"
        if any(isinstance(leaf, TimeWindow) and _misses(leaf, promotion) for leaf in leaves_of(promotion.when)):
            yield (*path, "when"), "its dates lie outside those of `valid`: it never applies", "correct one"
        yield from _about_limits(promotion, campaigns.get(promotion.campaign or ""), path)


def _misses(window: TimeWindow, promotion: Promotion) -> bool:
    ends_before = window.last is not None and promotion.valid_from is not None and window.last < promotion.valid_from
    begins_after = (
        window.first is not None and promotion.valid_until is not None and window.first > promotion.valid_until
    )
    return ends_before or begins_after


def _about_limits(promotion: Promotion, campaign: Campaign | None, path: Path) -> Iterator[Doubt]:
    budgets = [("its campaign's", limit) for limit in (campaign.limits if campaign else ())]
    budgets += [("its", limit) for limit in promotion.limits]
    for number, limit in enumerate(promotion.limits):
        for whose, wider in budgets:
            if wider is not limit and _is_wider(wider, limit) and limit.at_most > wider.at_most:
                said = f"{_words(limit)} can never be reached: {whose} limit is {_words(wider)}"
                yield (*path, "limits", number), said, "lower it, or remove it"
                break


def _is_wider(wider: Limit, limit: Limit) -> bool:
    """Say whether all uses that a limit counts are counted by the wider one as well."""
    return (
        wider.measure is limit.measure
        and _WIDTH[wider.scope] >= _WIDTH[limit.scope]
        and (wider.period is None or wider.period is limit.period or limit.scope is LimitScope.RECEIPT)
    )


def _words(limit: Limit) -> str:
    whom = {LimitScope.RECEIPT: "a receipt", LimitScope.MEMBER: "a member", LimitScope.STORE: "a store"}
    unit = "" if limit.measure is Measure.COUNT else f" minor units of {limit.measure.value}"
    period = f" each {limit.period.value.replace('_', ' ')}" if limit.period else ""
    return f"{limit.at_most}{unit} for {whom.get(limit.scope, 'all')}{period}"


def _about_groups(programme: Programme) -> Iterator[Doubt]:
    sizes = Counter(promotion.group for promotion in programme.promotions if promotion.group is not None)
    base_group = programme.earning.base_group
    if base_group is not None:
        sizes[base_group] += 1
    for number, promotion in enumerate(programme.promotions):
        if promotion.group is not None and sizes[promotion.group] == 1:
            said = f"group `{promotion.group}` has this one member, so there is nothing to choose"
            yield ("promotions", number, "group"), said, "name the group in another promotion too, or remove it"


def _about_campaigns(programme: Programme) -> Iterator[Doubt]:
    used = {promotion.campaign for promotion in programme.promotions}
    for number, campaign in enumerate(programme.campaigns):
        if campaign.id not in used:
            said = f"no promotion names campaign `{campaign.id}`"
            yield ("campaigns", number), said, "write `campaign:` into its promotions, or remove it"


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
