"""Goods, expiry dates and validity of a programme file."""

from __future__ import annotations

from datetime import date

from server.promotions.criteria import Selector
from server.promotions.load.context import Context
from server.promotions.model import Expiry, LotTerms
from server.promotions.schema.goods import DatesSection, ExpirySection, GoodsSection, ScopeSection
from server.promotions.yaml_text import Path

GOODS_FIELDS = ("skus", "categories", "brands", "suppliers", "tags")


def goods(section: GoodsSection | None, path: Path, context: Context) -> Selector | None:
    """A selector of goods; None stays None."""
    if section is None:
        return None
    given = [name for name in GOODS_FIELDS if getattr(section, name)]
    match_all, but_not = False, None
    if isinstance(section, ScopeSection):
        but_not = goods(section.but_not, (*path, "except"), context)
        match_all = section.match == "all"
        if len(given) > 1 and section.match is None:
            context.faults.add(
                path,
                f"has {' and '.join(given)}, but doesn't say how they combine",
                "add `match: all` (every list has to fit) or `match: any`",
            )
    if not given and but_not is None:
        context.faults.add(path, "names no goods", f"leave it out, or give {', '.join(GOODS_FIELDS[:-1])} or tags")
    return Selector(
        skus=frozenset(section.skus or ()),
        categories=frozenset(section.categories or ()),
        brands=frozenset(section.brands or ()),
        suppliers=frozenset(section.suppliers or ()),
        tags=frozenset(section.tags or ()),
        match_all=match_all,
        but_not=but_not,
    )


def expiry(section: ExpirySection | None, path: Path, context: Context) -> Expiry | None:
    """When points expire; None stays None."""
    if section is None:
        return None
    has_duration = section.after_months is not None or section.after_days is not None
    if (section.on is not None) == has_duration:
        context.faults.add(path, "needs either `on`, or `after_months` / `after_days`", "give one of them")
    if section.on is not None and section.round_up_to is not None:
        context.faults.add((*path, "round_up_to"), "a fixed day is not rounded", "remove it")
    return Expiry(section.on, section.after_months or 0, section.after_days or 0, section.round_up_to)


def lot_terms(pending_days: int | None, section: ExpirySection | None, path: Path, context: Context) -> LotTerms:
    """How long points are pending and when they expire; `path` is the section that both stand in."""
    return LotTerms(pending_days or 0, expiry(section, (*path, "expiry"), context))


def dates(section: DatesSection, path: Path, context: Context) -> tuple[date | None, date | None]:
    """First and last day."""
    first, last = section.first, section.last
    if first is not None and last is not None and last < first:
        context.faults.add((*path, "until"), f"{last} is before {first}", "swap the dates")
    return first, last
