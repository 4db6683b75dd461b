"""Names by which a programme and the back office's data know each other: series, offers, segments, stores, groups.

Neither side can be wrong by itself: a series may be loaded before the programme asks for it, or after. So a name that
the other side does not have is a warning on both, and never more. Pure.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from server.promotions import CouponShown, InSegments, InStores, OfferMade, Programme
from server.promotions.criteria import Selector
from server.promotions.walk import leaves_of
from server.promotions.yaml_text import Path


class Names(Enum):
    """A kind of names."""

    SKU = "sku"
    SERIES = "series"
    OFFER = "offer"
    SEGMENT = "segment"
    STORE = "store"
    GROUP = "group"


class Named(NamedTuple):
    """A name, and where the file has it."""

    kind: Names
    name: str
    path: Path


_UNKNOWN: Final = {
    Names.SKU: ("the catalogue does not have {}", "correct the number, or load the catalogue first"),
    Names.SERIES: (
        "no coupon of series {} was loaded, and no promotion gives one",
        "correct the name, or load them: tallypoint coupons load",
    ),
    Names.OFFER: ("nobody was made the offer {}", "load who has it: tallypoint offers load"),
    Names.SEGMENT: ("nobody is in segment {}", "correct the name, or load it: tallypoint segments load"),
    Names.STORE: ("there is no store {}", "correct the id, or make the store: tallypoint stores put"),
    Names.GROUP: ("no store is in group {}", "correct the name, or put stores into it: tallypoint stores put"),
}
_SHOWN: Final = 5


def names_in(programme: Programme) -> list[Named]:
    """Return all names in a programme that something else has to know; its own coupons' series are known."""
    issued = {one.coupon.series for one in programme.promotions if one.coupon is not None}
    found: dict[Named, None] = {}
    for number, promotion in enumerate(programme.promotions):
        path: Path = ("promotions", number)
        for sku in sorted(_skus(promotion.scope)):
            found[Named(Names.SKU, sku, (*path, "scope"))] = None
        for leaf in leaves_of(promotion.when):
            for kind, name in _named_by(leaf, promotion.id):
                if kind is not Names.SERIES or name not in issued:
                    found[Named(kind, name, (*path, "when"))] = None
    return list(found)


def unknown_names(named: Iterable[Named], unknown: Collection[tuple[Names, str]]) -> Iterator[tuple[Path, str, str]]:
    """Yield a warning for each place and kind of names that the other side does not have."""
    missing: defaultdict[tuple[Path, Names], list[str]] = defaultdict(list)
    for kind, name, path in named:
        if (kind, name) in unknown:
            missing[path, kind].append(name)
    for (path, kind), names in missing.items():
        said, hint = _UNKNOWN[kind]
        quoted = names if kind is Names.SKU else [f"`{name}`" for name in names]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield path, said.format(", ".join(quoted[:_SHOWN]) + more), hint


def nobody_asks(kind: Names, names: Iterable[str], programmes: Collection[Programme]) -> list[str]:
    """Say of names that are loaded which no promotion, in effect or to come, asks for; nothing without programmes."""
    if not programmes:
        return []
    asked = {name for one in programmes for found, name in _names_asked_for(one) if found is kind}
    others = {one.id for programme in programmes for one in programme.promotions} if kind is Names.OFFER else set()
    return [_nobody_asks_text(kind, name, asked, others) for name in sorted(set(names) - asked)]


def _nobody_asks_text(kind: Names, name: str, asked: Collection[str], others: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(asked), n=1)
    meant = f"; did you mean `{near[0]}`?" if near else ""
    if kind is Names.OFFER:
        if name in others:
            return f"promotion `{name}` asks for no offer: it is for whoever meets its conditions"
        return f"no promotion in effect or to come is called `{name}`{meant}"
    return f"no promotion in effect or to come asks for {kind.value} `{name}`{meant}"


def _names_asked_for(programme: Programme) -> Iterator[tuple[Names, str]]:
    for promotion in programme.promotions:
        for leaf in leaves_of(promotion.when):
            yield from _named_by(leaf, promotion.id)


def _named_by(leaf: object, promotion_id: str) -> Iterator[tuple[Names, str]]:
    match leaf:
        case CouponShown(series=series):
            yield from ((Names.SERIES, name) for name in sorted(series))
        case OfferMade():
            yield Names.OFFER, promotion_id
        case InSegments(segments=segments):
            yield from ((Names.SEGMENT, name) for name in sorted(segments))
        case InStores(stores=stores, groups=groups):
            yield from ((Names.STORE, name) for name in sorted(stores))
            yield from ((Names.GROUP, name) for name in sorted(groups))
        case _:
            return


def _skus(goods: Selector | None) -> frozenset[str]:
    return frozenset() if goods is None else goods.skus
