"""Texts for people: templates with placeholders in the reader's language, and how little a promotion missed.

A placeholder is a name of `PLACEHOLDERS` in braces: `{missing} more and the second cake is free`. Nothing else is
replaced: text in braces that is no placeholder stays as it is (the loader refuses it), a value that contains braces is
not looked at again, and a template has no way to reach anything but these values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from server.promotions.criteria import AllOf, AnyOf, BasketCount, Condition, NotThat, ReceiptTotal, ScopeTotal
from server.promotions.deals import LineUnits, units_to_next_deal, units_to_next_gift, units_to_next_set
from server.promotions.facts import Message
from server.promotions.kinds import TierMeasure
from server.promotions.model import Gift, MessageText, NearMiss, Programme, SetDeal, Steps, UnitDeal
from server.promotions.tiers import Standing

PLACEHOLDERS: Mapping[str, str] = {
    "discount": "money that the promotion took off the receipt",
    "points": "points that the promotion granted",
    "missing": "money that is missing for the promotion",
    "missing_quantity": "units that are missing for the promotion",
    "tier": "the name of the member's level",
    "next_tier": "the name of the next level",
    "missing_to_tier": "what is missing to the next level: money, visits or points",
    "uses_left": "how often the promotion can still be used",
    "name": "the promotion's name",
}
"""The names that texts may use, and what stands in their place."""

LANGUAGES_REMEMBERED = 50
"""Readers' languages for which a promotion's texts are kept; what members ask for is not under our control."""

_IN_BRACES = re.compile(r"\{([^{}]*)\}")


# --- templates --------------------------------------------------------------------------------------------


def placeholders_in(text: str) -> tuple[str, ...]:
    """What stands in braces in a text, in its order, each once; what is not in PLACEHOLDERS is a mistake."""
    return tuple(dict.fromkeys(_IN_BRACES.findall(text)))


def unknown_placeholders(text: str) -> tuple[str, ...]:
    """Those that have no value."""
    return tuple(name for name in placeholders_in(text) if name not in PLACEHOLDERS)


def render(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced; a known one without a value leaves nothing."""
    if "{" not in text:
        return text
    return _IN_BRACES.sub(lambda found: _value(found, values), text)


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    return values.get(found[1], "") if found[1] in PLACEHOLDERS else found[0]


def text_in(texts: Mapping[str, str], language: str, default: str = "") -> str:
    """The text for a reader of `language`: of the full tag, of its shorter forms, or the default one.

    The default is the text without a language, then the one in `default` (the programme's language), then the first.
    Tags are compared without regard to case, and `_` is as good as `-`.
    """
    if len(texts) == 1:
        return next(iter(texts.values()))
    by_tag = {_tag(tag): text for tag, text in texts.items()}
    for wanted in (*_shorter(_tag(language)), "", *_shorter(_tag(default))):
        if wanted in by_tag:
            return by_tag[wanted]
    return next(iter(texts.values()), "")


def _tag(language: str) -> str:
    return language.strip().lower().replace("_", "-")


def _shorter(tag: str) -> Iterator[str]:
    """`zh-hant-tw`, `zh-hant`, `zh`; nothing for no tag."""
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]


# --- values -----------------------------------------------------------------------------------------------


class Missing(NamedTuple):
    """What is missing for a promotion: minor units of money, and units of goods."""

    amount_minor: int = 0
    quantity: int = 0


class Style(NamedTuple):
    """How numbers of a programme are written, and the language of texts that name none."""

    currency_digits: int
    point_precision: int
    language: str = ""


class MessageFacts(NamedTuple):
    """What the texts of one promotion may say; `uses_left` is None without a limit.

    `point_precision` is that of its points, None for the programme's own.
    """

    name: str = ""
    discount_minor: int = 0
    points_minor: int = 0
    missing: Missing = Missing()
    standing: Standing | None = None
    uses_left: int | None = None
    point_precision: int | None = None


def style_of(programme: Programme) -> Style:
    """The programme's own."""
    return Style(programme.currency_digits, programme.point.precision, programme.language)


def decimal_text(minor: int, digits: int) -> str:
    """Minor units with their decimals: 520 with 2 is `5.20`, with 0 `520`."""
    if digits <= 0:
        return str(minor)
    whole, part = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole}.{part:0{digits}}"


def message_values(style: Style, facts: MessageFacts) -> dict[str, str]:
    """The value of each placeholder, as text."""
    standing = facts.standing
    precision = style.point_precision if facts.point_precision is None else facts.point_precision
    return {
        "discount": decimal_text(facts.discount_minor, style.currency_digits),
        "points": decimal_text(facts.points_minor, precision),
        "missing": decimal_text(facts.missing.amount_minor, style.currency_digits),
        "missing_quantity": str(facts.missing.quantity),
        "tier": standing.name if standing else "",
        "next_tier": standing.next_name if standing else "",
        "missing_to_tier": missing_to_tier(style, standing) if standing else "",
        "uses_left": "" if facts.uses_left is None else str(facts.uses_left),
        "name": facts.name,
    }


def missing_to_tier(style: Style, standing: Standing) -> str:
    """What is missing to the next level as text; empty at the highest."""
    if not standing.next_tier:
        return ""
    if standing.measure is TierMeasure.SPEND:
        return decimal_text(standing.missing, style.currency_digits)
    if standing.measure is TierMeasure.POINTS:
        return decimal_text(standing.missing, style.point_precision)
    return str(standing.missing)


def write_messages(
    texts: Iterable[MessageText], promotion_id: str, language: str, style: Style, facts: MessageFacts
) -> list[Message]:
    """The promotion's texts for a reader of `language`, placeholders filled in."""
    chosen = [(text.audience, text_in(text.texts, language, style.language)) for text in texts]
    values = message_values(style, facts) if any("{" in template for _, template in chosen) else {}
    return [Message(audience, promotion_id, render(template, values)) for audience, template in chosen]


class Speech:
    """The texts of a promotion that has an effect; without placeholders they are written once a language."""

    __slots__ = ("_fixed", "_has_placeholders", "_promotion_id", "_style", "_texts")

    def __init__(self, promotion_id: str, texts: Sequence[MessageText], style: Style) -> None:
        """Look for placeholders."""
        self._promotion_id, self._texts, self._style = promotion_id, texts, style
        self._has_placeholders = any("{" in template for text in texts for template in text.texts.values())
        self._fixed: dict[str, Sequence[Message]] = {}

    def fixed(self, language: str) -> Sequence[Message] | None:
        """The texts for a reader of `language`; None if they have placeholders."""
        if self._has_placeholders:
            return None
        found = self._fixed.get(language)
        if found is None:
            found = write_messages(self._texts, self._promotion_id, language, self._style, MessageFacts())
            if len(self._fixed) < LANGUAGES_REMEMBERED:
                self._fixed[language] = found
        return found


# --- near misses ------------------------------------------------------------------------------------------


def is_near(near_miss: NearMiss, missing: Missing | None) -> bool:
    """Whether so little is missing that it should be said; nothing missing is no near miss."""
    if missing is None or missing == Missing():
        return False
    return _near_enough(missing.amount_minor, near_miss.within_minor) and _near_enough(
        missing.quantity, near_miss.within_quantity
    )


def _near_enough(missing: int, limit: int | None) -> bool:
    return missing == 0 or (limit is not None and missing <= limit)


def missing_for_condition(
    condition: Condition | None, holds: Callable[[Condition], bool], actual: Callable[[Condition], int]
) -> Missing | None:
    """What money or units are missing until a condition holds; None if neither would help.

    `holds` answers any condition, `actual` what the goods of a ReceiptTotal, ScopeTotal or BasketCount come to. Of
    several parts that must hold the largest gap of each kind counts (what is added may serve them all), of alternatives
    the smallest.
    """
    if condition is None or holds(condition):
        return Missing()
    if isinstance(condition, AllOf):
        gaps = [missing_for_condition(part, holds, actual) for part in condition.parts]
        known = [gap for gap in gaps if gap is not None]
        if len(known) < len(gaps):
            return None
        return Missing(max(gap.amount_minor for gap in known), max(gap.quantity for gap in known))
    if isinstance(condition, AnyOf):
        options = [missing_for_condition(part, holds, actual) for part in condition.parts]
        return min((gap for gap in options if gap is not None), default=None)
    if isinstance(condition, NotThat):
        return None
    return _missing_for_leaf(condition, actual)


def _missing_for_leaf(condition: Condition, actual: Callable[[Condition], int]) -> Missing | None:
    if isinstance(condition, ReceiptTotal | ScopeTotal):
        at_least, is_money = condition.at_least_minor, True
    elif isinstance(condition, BasketCount) and condition.what != "weight":
        at_least, is_money = condition.at_least, condition.what == "amount"
    else:
        return None
    gap = (at_least or 0) - actual(condition)
    if gap <= 0:  # it fails by being too much
        return None
    return Missing(amount_minor=gap) if is_money else Missing(quantity=gap)


def missing_for_deal(
    deal: UnitDeal | SetDeal | Gift,
    goods: Sequence[LineUnits],
    fits: Sequence[Collection[int]] = (),
    gifts: Sequence[LineUnits] = (),
) -> Missing | None:
    """How many units more would make one more deal; None if none of its goods is there, or no more are made.

    `goods` are the lines in scope (of a set: those of all parts, `fits` naming the lines of each), `gifts` those that a
    gift may be taken from.
    """
    if not goods:
        return None
    if isinstance(deal, UnitDeal):
        units = units_to_next_deal(deal, goods)
    elif isinstance(deal, SetDeal):
        units = units_to_next_set(deal, goods, fits)
    else:
        units = units_to_next_gift(deal, gifts, goods)
    return None if units is None else Missing(quantity=units)


def missing_for_steps(deal: Steps, reached: int) -> Missing | None:
    """What is missing to the next step, in money or units; None at the last step, or if weight is measured."""
    ahead = [step.at_least for step in deal.steps if step.at_least > reached]
    if not ahead or deal.what == "weight":
        return None
    gap = min(ahead) - reached
    return Missing(amount_minor=gap) if deal.what == "amount" else Missing(quantity=gap)
