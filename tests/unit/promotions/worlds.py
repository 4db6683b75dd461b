"""Programmes, receipts, members and usage for properties: drawn from pools, so that drawing is quick and shrinks well.

A pool is a list of ready parts, the simplest first, made once with fixed randomness; an example draws positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import strategies as st

from server.promotions import (
    AllOf,
    AmountOff,
    AnyOf,
    AtTerminals,
    Audience,
    Base,
    BasketCount,
    BasketDiscount,
    BirthdayWindow,
    Campaign,
    Choice,
    ClubJoin,
    Condition,
    CounterFact,
    CouponFact,
    CouponIssue,
    CouponShown,
    DrawEntry,
    Earning,
    Exclusions,
    FallsOn,
    FixedPrice,
    FurtherUnit,
    Gift,
    InClub,
    InSegments,
    InStores,
    InTiers,
    Limit,
    LimitScope,
    LineDiscount,
    Measure,
    MemberAge,
    MemberFacts,
    MessageText,
    NearMiss,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    Partner,
    PercentOff,
    Period,
    Points,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsStep,
    PointsSteps,
    PointUnit,
    PriceList,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptLine,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SetDeal,
    SetPart,
    Spending,
    SpendSoFar,
    Step,
    Steps,
    TenderFact,
    TenderKind,
    TerminalKind,
    Tier,
    TierMeasure,
    Tiers,
    TimeWindow,
    UnitDeal,
    Usage,
    VisitNumber,
)
from tests.unit.promotions.builders import MONDAY, STORE_ZONE

POOL = 150
SKUS = ("cake", "milk", "beer", "tea")
CATEGORIES = ("food", "food/sweet", "food/sweet/cakes", "drink", "drink/beer")
BRANDS = ("Acme", "Own")
SUPPLIERS = ("", "Farm")
TAGS = ("alcohol", "local", "fresh")
_random = Random(20260302)
_pick = _random.choice
_int = _random.randint


def _pool(*makers: Callable[[], Any], size: int = POOL) -> list[Any]:
    return [makers[n % len(makers)]() for n in range(size)]


def _some(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(_random.sample(names, _pick([0, 0, 1, 1, 2])))


def _maybe(least: int, most: int) -> int | None:
    return _pick([None, _int(least, most)])


def _share() -> Fraction:
    return Fraction(_int(1, 400), _pick([400, 1000]))


def _goods() -> Selector:
    return Selector(_some(SKUS), _some(CATEGORIES), _some(BRANDS), _some(SUPPLIERS), _some(TAGS), _pick([False, True]))


def _tagged() -> Selector:
    return Selector(tags=frozenset([_pick(TAGS)]))


SCOPES = [None, *_pool(lambda: None, _goods, lambda: dataclasses.replace(_goods(), but_not=_tagged()))]


# --- conditions -------------------------------------------------------------------------------------------


def _leaf() -> Condition:
    makers: list[Callable[[], Condition]] = [
        lambda: ReceiptTotal(_maybe(1, 6000), _maybe(1, 9000)),
        lambda: ScopeTotal(_maybe(1, 6000), _maybe(1, 9000)),
        lambda: BasketCount(_pick(["quantity", "categories"]), _pick([None, _goods()]), _maybe(1, 4), None, _int(0, 2)),
        lambda: BasketCount(_pick(["amount", "weight"]), _pick([None, _goods()]), _maybe(1, 3000), _maybe(1, 9000)),
        lambda: BirthdayWindow(_int(0, 7), _int(0, 7)),
        lambda: InStores(_pick([frozenset({"store-1"}), frozenset()]), frozenset({"city"})),
        lambda: OnChannels(frozenset([_pick(["shop", "app"])])),
        lambda: AtTerminals(frozenset([_pick(list(TerminalKind))])),
        lambda: TimeWindow(
            frozenset(_random.sample(range(7), _int(0, 4))),
            _pick([0, 600, 1320]),
            _pick([120, 780, 1440]),
            _pick([None, MONDAY]),
            _pick([None, MONDAY]),
        ),
        lambda: InTiers(frozenset([_pick(["", "gold"])])),
        lambda: InSegments(frozenset([_pick(["young", "pets"])])),
        lambda: InClub("wine"),
        lambda: MemberAge(_maybe(1, 4), _maybe(1, 4)),
        lambda: VisitNumber(_period(), _maybe(1, 4), _maybe(2, 5), _pick([None, 2])),
        lambda: SpendSoFar(_period(), _maybe(1, 600), _maybe(1, 1200)),
        lambda: PaidBy(
            frozenset(_random.sample(list(TenderKind), _int(1, 3))), _pick([(), ("5168",)]), _maybe(1, 3000)
        ),
        lambda: CouponShown(frozenset({"s"}), frozenset({"CODE"})),
        OfferMade,
    ]
    return _pick(makers)()


def _period() -> Period | None:
    return _pick([None, Period.DAY, Period.MONTH])


CONDITIONS = [None, *_pool(
    *[lambda: None] * 6,
    _leaf,
    _leaf,
    lambda: AllOf((_leaf(), _leaf())),
    lambda: AnyOf((_leaf(), _leaf())),
    lambda: NotThat(_leaf()),
    lambda: AllOf((AnyOf((_leaf(), NotThat(_leaf()))), _leaf())),
    size=400,
)]  # fmt: skip


# --- effects ----------------------------------------------------------------------------------------------


def _off() -> PercentOff | AmountOff:
    return PercentOff(_share()) if _int(0, 1) else AmountOff(_int(1, 900))


def _any_off() -> PercentOff | AmountOff | FixedPrice:
    return _off() if _int(0, 1) else FixedPrice(_int(0, 500))


def _line_discount() -> dict[str, Any]:
    kind = _pick(
        [_off(), _off(), FixedPrice(_int(0, 900)), PriceList({sku: _int(0, 900) for sku in SKUS[: _int(1, 4)]})]
    )
    return {"line_discount": LineDiscount(kind, _pick(list(Base)))}


def _basket_discount() -> dict[str, Any]:
    return {"basket_discount": BasketDiscount(_off(), _pick(list(Base)))}


def _unit_deal() -> dict[str, Any]:
    every = _int(1, 3)
    kind, choose, falls_on = _any_off(), _pick(list(Choice)), _pick(list(FallsOn))
    return {"deal": UnitDeal(every, _int(1, every), kind, choose, falls_on, _maybe(1, 2))}


def _set_deal() -> dict[str, Any]:
    parts = tuple(SetPart(_goods(), _int(1, 2)) for _ in range(_int(1, 2)))
    return {"deal": SetDeal(parts, _any_off(), _pick([None, 0]), _maybe(1, 2))}


def _gift() -> dict[str, Any]:
    return {"deal": Gift(_goods(), _int(1, 2), _int(0, 300), _maybe(1, 3), _pick(list(FallsOn)))}


def _steps() -> dict[str, Any]:
    steps = tuple(Step(_int(1, 4000), _off()) for _ in range(_int(1, 3)))
    return {"deal": Steps(_pick(["amount", "quantity", "weight"]), steps, _pick([False, True]))}


def _points() -> dict[str, Any]:
    starts = sorted(_random.sample(range(5000), _int(1, 3)))
    kinds: list[PointsKind] = [
        PointsPercent(_share()),
        PointsMultiplier(Fraction(_int(11, 90), 10)),
        PointsFixed(_int(1, 999), _pick(["unit", "line", "receipt"])),
        PointsPerAmount(_int(1, 50), _int(100, 900), _pick(["line", "receipt"])),
        PointsSteps(
            tuple(PointsStep(start, _int(0, 500), _pick([Fraction(0), _share()])) for start in starts),
            _pick([False, True]),
        ),
    ]
    return {"points": Points(_pick(kinds), None, _pick([None, None, "gift"]), _pick([None, None, "fuel"]))}


def _further() -> dict[str, Any]:
    return {
        "coupon": _pick([None, CouponIssue("later")]),
        "draw": _pick([None, DrawEntry("car", 1, 500)]),
        "club": _pick([None, ClubJoin("wine", 30)]),
        "tier_points": _pick([None, PointsFixed(100, "receipt"), PointsPercent(_share())]),
    }


EFFECTS = _pool(
    _line_discount,
    _basket_discount,
    _points,
    _unit_deal,
    lambda: _line_discount() | _points(),
    _set_deal,
    _gift,
    _steps,
    lambda: _points() | _further(),
    lambda: _unit_deal() | _line_discount(),
    lambda: _basket_discount() | _points() | _further(),
    size=400,
)


# --- limits, groups, control groups -----------------------------------------------------------------------


def _limits() -> tuple[Limit, ...]:
    found = {}
    for _ in range(_pick([1, 1, 2])):
        measure = _pick(list(Measure))
        scope, period = _pick(list(LimitScope)), _period()
        found[measure, scope, period] = Limit(measure, scope, _int(1, 3 if measure is Measure.COUNT else 900), period)
    return tuple(found.values())


def _near_miss() -> NearMiss:
    return NearMiss((MessageText(Audience.CASHIER, {"": "{missing} {missing_quantity}"}),), 900, 2)


PLAIN_CONTROL = [{}, *_pool(
    dict,
    lambda: {"limits": _limits()},
    lambda: {"campaign": "spring"},
    lambda: {"campaign": "spring", "limits": _limits()},
    lambda: {"near_miss": _near_miss()},
    lambda: {"control_share": Fraction(1, 2)},
)]  # fmt: skip
CONTROL = [{}, *_pool(
    lambda: _pick(PLAIN_CONTROL),
    lambda: {"group": _pick(["g", "h"])},
    lambda: {"exclusive": True},
    lambda: {"group": "g", "limits": _limits()},
    lambda: {"exclusive": True, "group": "g"},
)]  # fmt: skip
VALID = [(None, None)] * 12 + [
    (MONDAY + timedelta(first), MONDAY + timedelta(last)) for first, last in ((-2, 0), (0, 2), (1, 2), (-2, -1))
]


def _promotion(
    promotion_id: str, effect: Any, scope: Any, when: Any, control: Any, valid: Any, priority: int
) -> Promotion:
    first, last = valid
    return Promotion(promotion_id, "P", scope, first, last, when, priority=priority, **effect, **control)


def promotions(*, is_plain: bool) -> st.SearchStrategy[Promotion]:
    """One promotion; a plain one has no rivals."""
    return st.builds(
        _promotion,
        st.sampled_from("abcdef"),
        st.sampled_from(EFFECTS),
        st.sampled_from(SCOPES),
        st.sampled_from(CONDITIONS),
        st.sampled_from(PLAIN_CONTROL if is_plain else CONTROL),
        st.sampled_from(VALID),
        st.integers(1, 2),
    )


PROGRAMMES = _pool(
    lambda: Programme(
        code="test",
        name="Test",
        effective_from=MONDAY,
        currency="UAH",
        currency_digits=2,
        point=PointUnit("bonus", 2, Fraction(1)),
        earning=Earning(_share()),
        spending=Spending(_share(), 1, 1, _pick([False, True])),
        exclusions=Exclusions(*(_pick([None, _tagged()]) for _ in range(3))),
        campaigns=(Campaign("spring", "Spring", _pick([(), _limits()]), _pick([Fraction(0), Fraction(1, 2)])),),
        units=(FurtherUnit(PointUnit("gift", 0, Fraction(100)), "Gift"),),
        partners=(Partner("fuel", "Fuel", _pick([None, _share()]), _pick([False, True])),),
        tiers=_pick([None, Tiers(TierMeasure.SPEND, (Tier("gold", "Gold", 5000),))]),
        control_share=_pick([Fraction(0), Fraction(0), Fraction(1, 3)]),
    ),
    size=60,
)


def programmes(*, is_plain: bool) -> st.SearchStrategy[Programme]:
    """A programme of a few promotions."""
    several = st.lists(promotions(is_plain=is_plain), min_size=1, max_size=5, unique_by=lambda one: one.id)
    return st.builds(
        lambda programme, items: dataclasses.replace(programme, promotions=tuple(items)),
        st.sampled_from(PROGRAMMES),
        several,
    )


# --- receipts, members, usage -----------------------------------------------------------------------------

Product = tuple[str, str, str, str, tuple[str, ...]]
PRODUCTS: list[Product] = _pool(
    lambda: (
        _pick(SKUS),
        _pick(CATEGORIES),
        _pick(BRANDS),
        _pick(SUPPLIERS),
        tuple(_random.sample(TAGS, _pick([0, 0, 1, 2]))),
    )
)


def _line(
    number: int, product: Product, quantity: tuple[int, bool], amount_minor: int, floor_minor: int
) -> ReceiptLine:
    quantity_milli, is_weighed = quantity
    return ReceiptLine(number, *product, quantity_milli, amount_minor, floor_minor, is_weighed)


_lines = st.builds(
    _line,
    st.integers(1, 20),
    st.sampled_from(PRODUCTS),
    st.sampled_from([(1000, False), (2000, False), (3000, False), (350, True), (1500, False), (2000, True)]),
    st.sampled_from([100, 1, 33, 250, 999, 1000, 1001, 2500, 4999, 0]) | st.integers(0, 5000),
    st.sampled_from([0, 0, 0, 100, 1000, 4000]),
)
HEADS = _pool(
    lambda: {
        "local_at": datetime(2026, 3, 2, _pick([1, 12, 12, 23]), tzinfo=STORE_ZONE),
        "store_groups": _pick([frozenset(), frozenset({"city"})]),
        "channel": _pick(["", "shop"]),
        "terminal_kind": _pick([None, *TerminalKind]),
        "tenders": tuple(
            TenderFact(_pick(list(TenderKind)), _int(0, 5000), _pick(["", "516800"])) for _ in range(_int(0, 2))
        ),
        "coupons": tuple(
            _random.sample([CouponFact("CODE"), CouponFact("x1", "s"), CouponFact("x2", "s")], _int(0, 2))
        ),
        "partner": _pick(["", "", "", "fuel"]),
    }
)


def _receipt(head: dict[str, Any], lines: list[ReceiptLine], again: list[int]) -> ReceiptFacts:
    """A receipt of these lines, some of which were keyed once more."""
    more = [lines[n % len(lines)]._replace(line_number=21 + place) for place, n in enumerate(again)]
    return ReceiptFacts("store-1", lines=lines + more, **head)


receipts = st.builds(
    _receipt,
    st.sampled_from(HEADS),
    st.lists(_lines, min_size=1, max_size=5, unique_by=lambda line: line.line_number),
    st.lists(st.integers(0, 4), max_size=2),
)
members = st.sampled_from([None, MemberFacts("m"), *_pool(
    lambda: MemberFacts(
        _pick(["m", "n", "o"]),
        _pick([None, date(1990, 3, _int(1, 9)), date(1992, 2, 29)]),
        _pick([True, True, True, False]),
        _pick([True, True, False]),
        _pick([None, MONDAY - timedelta(days=2)]),
        _pick([frozenset(), frozenset({"young"})]),
        frozenset(_random.sample("abcdef", _int(0, 3))),
        tier=_pick(["", "gold"]),
    )
)])  # fmt: skip
COUNTERS = (
    "visit/ever",
    "visit/day/2026-03-02",
    "visit/month/2026-03-01",
    "club/wine",
    "use/@spring/ever",
    "use/@spring/day/2026-03-02",
    "use/a/ever",
    "use/b/day/2026-03-02",
    "use/c/month/2026-03-01",
)
SHARED = (
    "shared/@spring/money",
    "shared/@spring/count",
    "shared/a/count",
    "shared/b/money/store/store-1",
    "shared/c/points/month/2026-03-01",
)
usages = st.sampled_from([None, Usage(), *_pool(
    lambda: Usage(
        {
            key: CounterFact(_int(0, 3), _int(0, 900), _int(0, 900), _pick([None, MONDAY, MONDAY - timedelta(days=1)]))
            for key in _random.sample(COUNTERS, _int(0, 5))
        },
        {key: _int(0, 2) if "count" in key else _int(0, 900) for key in _random.sample(SHARED, _int(0, 3))},
    )
)])  # fmt: skip
wishes = st.sampled_from([None, 0, 1, 250, 999, 5000, 20000])
