"""Conditions in words, and what a receipt and its member had when they were asked. English, for authors and finance.

What is said of a member is no more than the condition asks: not the birthday, not the other segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from server.promotions.conditions import Moment, Positions, bounds, check, measured, towards, under_not
from server.promotions.criteria import (
    AllOf,
    AnyOf,
    AtTerminals,
    BasketCount,
    BirthdayWindow,
    Condition,
    CouponShown,
    InClub,
    InSegments,
    InStores,
    InTiers,
    MemberAge,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SpendSoFar,
    TimeWindow,
    VisitNumber,
)
from server.promotions.messages import Style, decimal_text

SHOWN_NAMES = 5
"""So many names of a list are told, then how many more there are."""

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MINUTES_PER_HOUR = 60
_WHOLE_DAY = (0, 24 * _MINUTES_PER_HOUR)
_WEIGHT_DIGITS = 3
_NO_MEMBER = "of nobody (no member)"


class ConditionAnswer(NamedTuple):
    """Whether a condition held: what it looks at, what it needs, what was found; or how its parts are joined.

    `subject` of a condition with parts is `all of`, `one of` or `not`; it needs and finds nothing by itself.
    """

    subject: str
    holds: bool
    needs: str = ""
    found: str = ""
    parts: tuple[ConditionAnswer, ...] = ()

    @property
    def text(self) -> str:
        """The condition itself: `receipt total at least 50.00`."""
        return f"{self.subject} {self.needs}" if self.needs else self.subject

    def failures(self) -> list[ConditionAnswer]:
        """The leaves because of which it does not hold; of a negation the negation itself."""
        if self.holds:
            return []
        return [leaf for part in self.parts for leaf in part.failures()] or [self]

    def __str__(self) -> str:
        """What was found and what is needed: `receipt total 42.00, needs at least 50.00`."""
        if self.parts:
            return f"{self.subject} ({'; '.join(str(part) for part in self.parts)})"
        return f"{self.subject} {self.found}, needs {self.needs}"


class Asked(NamedTuple):
    """Whom a promotion's condition is asked of: the receipt at a moment, and the promotion's lines then."""

    moment: Moment
    promotion_id: str
    positions: Positions
    style: Style


def answer(condition: Condition, asked: Asked) -> ConditionAnswer:
    """The condition with its parts, each with what it needs and what it found."""
    holds = check(condition, asked.moment, asked.promotion_id, asked.positions)
    match condition:
        case AllOf(parts):
            return ConditionAnswer("all of", holds, parts=tuple(answer(part, asked) for part in parts))
        case AnyOf(parts):
            return ConditionAnswer("one of", holds, parts=tuple(answer(part, asked) for part in parts))
        case NotThat(part):
            return ConditionAnswer("not", holds, parts=(answer(part, asked._replace(moment=under_not(asked.moment))),))
    if bounds(condition) is not None:
        return ConditionAnswer(
            _subject(condition), holds, _bounds_text(condition, asked), _measured_text(condition, asked)
        )
    return ConditionAnswer(
        _subject(condition), holds, _needs(condition), _finding_in_words(condition, asked.moment, holds)
    )


def _subject(leaf: Condition) -> str:
    """What a condition looks at."""
    subject = _SUBJECTS.get(type(leaf), "")
    match leaf:
        case BasketCount(what, goods):
            subject = f"{what} of {'goods in scope' if goods is None else goods_text(goods)}"
        case VisitNumber(period) | SpendSoFar(period) if period is not None:
            subject += f" of the {period.value.replace('_', ' ')}"
        case PaidBy(kinds, prefixes):
            subject = f"paid by {_first_names(kind.value for kind in kinds)}" + (
                f" {_first_names(prefixes)}" if prefixes else ""
            )
        case InClub(club):
            subject = f"membership of {club}"
    return subject


_SUBJECTS: dict[type, str] = {
    ReceiptTotal: "receipt total",
    ScopeTotal: "total of goods in scope",
    VisitNumber: "visit",
    SpendSoFar: "spent before",
    MemberAge: "days as a member",
    BirthdayWindow: "birthday",
    InStores: "store",
    OnChannels: "channel",
    AtTerminals: "terminal",
    TimeWindow: "time",
    InTiers: "level",
    InSegments: "segment",
    CouponShown: "coupon",
    OfferMade: "personal offer",
}


# --- leaves that measure ----------------------------------------------------------------------------------


def _bounds_text(leaf: Condition, asked: Asked) -> str:
    limits = bounds(leaf)
    texts = []
    if isinstance(leaf, VisitNumber) and leaf.every is not None:
        texts.append(f"every {leaf.every}th")
    if limits is not None and limits.at_least is not None:
        texts.append(f"at least {_amount(leaf, limits.at_least, asked)}")
    if limits is not None and limits.below is not None:
        texts.append(f"less than {_amount(leaf, limits.below, asked)}")
    return " and ".join(texts)


def _measured_text(leaf: Condition, asked: Asked) -> str:
    number = measured(leaf, asked.moment, asked.positions)
    if number is None:
        return _NO_MEMBER if asked.moment.facts.member is None else "not known"
    if isinstance(leaf, PaidBy) and not asked.moment.facts.receipt.tenders:
        return "not said yet"
    without, whole = sorted((number, towards(leaf, asked.moment, asked.positions)))
    text = _amount(leaf, whole, asked)
    return text if without == whole else f"{text} ({_amount(leaf, without, asked)} without the gift)"


def _amount(leaf: Condition, number: int, asked: Asked) -> str:
    if isinstance(leaf, BasketCount) and leaf.what == "weight":
        return decimal_text(number, _WEIGHT_DIGITS)
    is_count = isinstance(leaf, VisitNumber | MemberAge) or (isinstance(leaf, BasketCount) and leaf.what != "amount")
    return str(number) if is_count else decimal_text(number, asked.style.currency_digits)


# --- leaves that ask --------------------------------------------------------------------------------------


def _alternatives(*lists: tuple[str, Iterable[str]]) -> str:
    return " or ".join(f"{word}{_first_names(names)}" for word, names in lists if names)


def _window_text(window: TimeWindow) -> str:
    texts = []
    if window.weekdays:
        texts.append(", ".join(DAYS[day] for day in sorted(window.weekdays)))
    if (window.from_minute, window.until_minute) != _WHOLE_DAY:
        texts.append(f"{_clock(window.from_minute)} to {_clock(window.until_minute)}")
    if window.first is not None:
        texts.append(f"from {window.first}")
    if window.last is not None:
        texts.append(f"until {window.last}")
    return " ".join(texts) or "any"


def _clock(minute: int) -> str:
    return f"{minute // _MINUTES_PER_HOUR:02}:{minute % _MINUTES_PER_HOUR:02}"


def _needs(leaf: Condition) -> str:
    """What a leaf without bounds asks for."""
    needs = "one"  # of a club, of an offer
    match leaf:
        case BirthdayWindow(before, after):
            needs = f"from {before} days before to {after} days after it"
        case InStores(stores, groups):
            needs = _alternatives(("", stores), ("group ", groups))
        case OnChannels(names) | InSegments(names):
            needs = _first_names(names)
        case AtTerminals(kinds):
            needs = _first_names(kind.value for kind in kinds)
        case TimeWindow():
            needs = _window_text(leaf)
        case InTiers(tiers):
            needs = _first_names(tier or "none" for tier in tiers)
        case CouponShown(series, codes):
            needs = _alternatives(("series ", series), ("code ", codes))
    return needs


def _finding_in_words(leaf: Condition, moment: Moment, holds: bool) -> str:
    """What a leaf without bounds found on the receipt."""
    receipt = moment.facts.receipt
    match leaf:
        case InStores():
            return receipt.store_id + (f" (group {_first_names(receipt.store_groups)})" if receipt.store_groups else "")
        case OnChannels():
            return receipt.channel or "unknown"
        case AtTerminals():
            return receipt.terminal_kind.value if receipt.terminal_kind else "unknown"
        case TimeWindow():
            return f"{DAYS[receipt.local_at.weekday()]} {receipt.local_at:%Y-%m-%d %H:%M}"
        case CouponShown():
            return _first_names(coupon.code for coupon in receipt.coupons) or "none"
    return _found_of_member(leaf, moment, holds)


def _found_of_member(leaf: Condition, moment: Moment, holds: bool) -> str:
    member = moment.facts.member
    if member is None:
        return _NO_MEMBER
    match leaf:
        case BirthdayWindow():
            is_known = member.birthday is not None or member.birthday_windows is not None
            return ("within it" if holds else "at another time") if is_known else "not known"
        case InTiers():
            return moment.facts.tier(moment.tiers) or "none"
        case InSegments(segments):
            return _first_names(segments & member.segments) or "none of them"
    return "one" if holds else "none"


# --- goods ------------------------------------------------------------------------------------------------


def goods_text(goods: Selector) -> str:
    """A selector in words: `category dairy or brand Own, but not SKU 17`."""
    lists = (
        ("SKU", goods.skus),
        ("category", goods.categories),
        ("brand", goods.brands),
        ("supplier", goods.suppliers),
        ("tag", goods.tags),
    )
    named = [f"{word} {_first_names(names)}" for word, names in lists if names]
    text = (" and " if goods.match_all else " or ").join(named) or "all goods"
    return text if goods.but_not is None else f"{text}, but not {goods_text(goods.but_not)}"


def _first_names(names: Iterable[str]) -> str:
    found = sorted(names)
    more = len(found) - SHOWN_NAMES
    return ", ".join(found[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
