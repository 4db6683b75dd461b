"""The conditions of a promotion: from the section `when` to the model's."""

from __future__ import annotations

from collections.abc import Iterator

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
    SpendSoFar,
    TimeWindow,
    VisitNumber,
)
from server.promotions.kinds import TenderKind
from server.promotions.load.context import WITHOUT_TIER, Context
from server.promotions.load.goods import dates, goods
from server.promotions.schema.conditions import (
    BasketSection,
    PaidBySection,
    SpentSection,
    TimeSection,
    VisitSection,
    WhenSection,
)
from server.promotions.schema.goods import AmountSection
from server.promotions.schema.values import MINUTES_PER_DAY
from server.promotions.yaml_text import Path

MAX_CONDITION_DEPTH = 8
"""Levels of `all`, `any` and `not` inside each other, `when` itself counted."""
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_EMPTY = ("states no condition", "leave it out, or give one")


def condition(section: WhenSection | None, path: Path, context: Context) -> Condition | None:
    """The condition of a promotion; None if it has none."""
    if section is None:
        return None
    built = _build(section, path, context, depth=1)
    if built is not None:
        _check_rights(built, path, context)
    return built


def _build(section: WhenSection, path: Path, context: Context, depth: int) -> Condition | None:
    if depth > MAX_CONDITION_DEPTH:
        context.faults.add(path, f"nested deeper than {MAX_CONDITION_DEPTH} conditions", "flatten it, or split it")
        return None
    parts: list[Condition] = [
        *_about_goods(section, path, context),
        *_about_place_and_time(section, path, context),
        *_about_member(section, path, context),
        *_about_rights(section, path, context),
        *_nested(section.every, (*path, "all"), context, depth),
    ]
    if section.some is not None:
        parts.append(AnyOf(tuple(_nested(section.some, (*path, "any"), context, depth))))
    if section.no is not None:
        refused = _build(section.no, (*path, "not"), context, depth + 1)
        parts.extend([NotThat(refused)] if refused is not None else [])
    if all(getattr(section, name) is None for name in WhenSection.model_fields):
        context.faults.add(path, *_EMPTY)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _nested(sections: list[WhenSection] | None, path: Path, context: Context, depth: int) -> Iterator[Condition]:
    for number, section in enumerate(sections or []):
        built = _build(section, (*path, number), context, depth + 1)
        if built is not None:
            yield built


def _about_goods(section: WhenSection, path: Path, context: Context) -> Iterator[Condition]:
    if section.receipt_total is not None:
        yield ReceiptTotal(*_amounts(section.receipt_total, (*path, "receipt_total"), context))
    if section.scope_total is not None:
        yield ScopeTotal(*_amounts(section.scope_total, (*path, "scope_total"), context))
    if section.basket is not None:
        yield from _basket(section.basket, (*path, "basket"), context)


def _amounts(section: AmountSection, path: Path, context: Context) -> tuple[int | None, int | None]:
    at_least = context.money(section.at_least, (*path, "at_least"))
    below = context.money(section.below, (*path, "below"))
    context.bounds(at_least, below, path)
    return at_least, below


def _basket(section: BasketSection, path: Path, context: Context) -> Iterator[Condition]:
    """A condition for each measure that is given."""
    selector = goods(section.of, (*path, "of"), context)
    measures = [name for name in ("quantity", "weight", "amount", "categories") if getattr(section, name) is not None]
    if not measures:
        context.faults.add(path, "measures nothing", "give quantity, weight, amount or categories")
    if section.category_levels is not None and section.categories is None:
        context.faults.add((*path, "category_levels"), "belongs to `categories`", "remove it")
    for name in measures:
        at, bounds = (*path, name), getattr(section, name)
        if name == "amount":
            at_least, below = _amounts(bounds, at, context)
        elif name == "weight":
            at_least = context.weight(bounds.at_least, (*at, "at_least"))
            below = context.weight(bounds.below, (*at, "below"))
            context.bounds(at_least, below, at)
        else:
            at_least, below = bounds.at_least, bounds.below
            context.bounds(at_least, below, at)
        levels = section.category_levels or 0 if name == "categories" else 0
        yield BasketCount(name, selector, at_least, below, levels)


def _about_place_and_time(section: WhenSection, path: Path, context: Context) -> Iterator[Condition]:
    if section.stores is not None:
        yield InStores(stores=frozenset(section.stores))
    if section.store_groups is not None:
        yield InStores(groups=frozenset(section.store_groups))
    if section.channels is not None:
        yield OnChannels(frozenset(section.channels))
    if section.terminals is not None:
        yield AtTerminals(frozenset(section.terminals))
    if section.time is not None:
        yield _time(section.time, (*path, "time"), context)


def _time(section: TimeSection, path: Path, context: Context) -> TimeWindow:
    start = 0 if section.start is None else section.start
    end = MINUTES_PER_DAY if section.end is None else section.end
    if not section.model_fields_set:
        context.faults.add(path, *_EMPTY)
    if start in {end, MINUTES_PER_DAY}:
        at = "until" if section.end is not None else "from"
        context.faults.add((*path, at), "leaves no time", "`from` is included, `until` is not; correct one of them")
    first, last = dates(section.dates, (*path, "dates"), context) if section.dates is not None else (None, None)
    weekdays = frozenset(WEEKDAYS.index(name) for name in section.weekdays or ())
    return TimeWindow(weekdays, start, end, first, last)


def _about_member(section: WhenSection, path: Path, context: Context) -> Iterator[Condition]:
    known = context.known
    if section.birthday is not None:
        yield BirthdayWindow(section.birthday.days_before, section.birthday.days_after)
    if section.tiers is not None:
        for number, code in enumerate(section.tiers):
            where = "under `tiers: {levels: ...}`"
            context.refer(code, known.tiers | {WITHOUT_TIER}, (*path, "tiers", number), "level", where)
        yield InTiers(frozenset("" if code == WITHOUT_TIER else code for code in section.tiers))
    if section.segments is not None:
        yield InSegments(frozenset(section.segments))
    if section.club is not None:
        where = "by a promotion with `club: {name: ...}` that sells it"
        context.refer(section.club, known.clubs, (*path, "club"), "club", where)
        yield InClub(section.club)
    if section.member_days is not None:
        bounds = section.member_days
        context.bounds(bounds.at_least, bounds.below, (*path, "member_days"))
        yield MemberAge(bounds.at_least, bounds.below)
    if section.first_purchase:
        yield VisitNumber(at_least=1, below=2)
    if section.visit is not None:
        yield _visit(section.visit, (*path, "visit"), context)
    if section.spent is not None:
        yield _spent(section.spent, (*path, "spent"), context)


def _visit(section: VisitSection, path: Path, context: Context) -> VisitNumber:
    at_least, below = section.at_least, section.below
    if section.number is not None:
        if at_least is not None or below is not None or section.every is not None:
            context.faults.add(
                (*path, "number"), "already says exactly which visit", "remove every, at_least and below"
            )
        return VisitNumber(section.each, section.number, section.number + 1)
    if section.every is None or (at_least is not None and below is not None):
        context.bounds(at_least, below, path)
    return VisitNumber(section.each, at_least, below, section.every)


def _spent(section: SpentSection, path: Path, context: Context) -> SpendSoFar:
    at_least = context.money(section.at_least, (*path, "at_least"))
    below = context.money(section.below, (*path, "below"))
    context.bounds(at_least, below, path)
    return SpendSoFar(section.each, at_least, below)


def _about_rights(section: WhenSection, path: Path, context: Context) -> Iterator[Condition]:
    if section.paid_by is not None:
        yield _paid_by(section.paid_by, (*path, "paid_by"), context)
    if section.coupon is not None:
        series, codes = frozenset(section.coupon.series or ()), frozenset(section.coupon.codes or ())
        if not series and not codes:
            context.faults.add((*path, "coupon"), "names no coupon", "give series or codes")
        yield CouponShown(series, codes)
    if section.offer:
        yield OfferMade()


def _paid_by(section: PaidBySection, path: Path, context: Context) -> PaidBy:
    if section.tenders is None and section.bins is None:
        context.faults.add(path, "names no tender", "give tenders or bins")
    kinds = frozenset(section.tenders or (TenderKind.CARD,))
    if section.bins is not None and TenderKind.CARD not in kinds:
        context.faults.add((*path, "bins"), "only cards have numbers", "add card to tenders, or remove bins")
    return PaidBy(kinds, tuple(section.bins or ()), context.money(section.at_least, (*path, "at_least")))


def _check_rights(built: Condition, path: Path, context: Context) -> None:
    """A right is presented or assigned; what holds because it was not is no right."""
    if isinstance(built, AllOf | AnyOf):
        for part in built.parts:
            _check_rights(part, path, context)
    elif isinstance(built, NotThat) and _mentions_right(built.part):
        hint = "make it two promotions, and the one with the coupon or offer `exclusive`"
        context.faults.add(path, "has a coupon or an offer under `not`", hint)


def _mentions_right(built: Condition) -> bool:
    if isinstance(built, AllOf | AnyOf):
        return any(map(_mentions_right, built.parts))
    if isinstance(built, NotThat):
        return _mentions_right(built.part)
    return isinstance(built, CouponShown | OfferMade)


def leaves(built: Condition | None) -> Iterator[Condition]:
    """The conditions inside `all` and `any`, without those under `not`."""
    if isinstance(built, AllOf | AnyOf):
        for part in built.parts:
            yield from leaves(part)
    elif built is not None and not isinstance(built, NotThat):
        yield built
