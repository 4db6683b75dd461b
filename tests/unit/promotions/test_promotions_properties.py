"""What holds for every programme and every receipt."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta
from fractions import Fraction
from random import Random

from hypothesis import given
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
    Counter,
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
    compile_rules,
    earn_as_paid,
    quote,
)
from server.promotions.usage import use_key
from tests.unit.promotions.builders import MONDAY, STORE_ZONE, as_quoted, points
from tests.unit.promotions.naive import Naive

SKUS = ("cake", "milk", "beer", "tea")
CATEGORIES = ("food", "food/sweet", "food/sweet/cakes", "drink", "drink/beer")
BRANDS = ("Acme", "Own")
SUPPLIERS = ("", "Farm")
TAGS = ("alcohol", "local", "fresh")


def _some(names: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names), max_size=2)


_goods = st.builds(
    Selector, _some(SKUS), _some(CATEGORIES), _some(BRANDS), _some(SUPPLIERS), _some(TAGS), st.booleans(), st.none()
)
_tagged = st.builds(Selector, tags=st.frozensets(st.sampled_from(TAGS), min_size=1, max_size=1))
_scopes = st.none() | _goods | st.builds(dataclasses.replace, _goods, but_not=_tagged)
_shares = st.fractions(Fraction(1, 100), 1, max_denominator=1000)
_bases = st.sampled_from(Base)
_off = st.builds(PercentOff, _shares) | st.builds(AmountOff, st.integers(1, 3000))
_prices = st.builds(PriceList, st.dictionaries(st.sampled_from(SKUS), st.integers(0, 900), min_size=1))
_line_discounts = st.builds(LineDiscount, _off, _bases) | st.builds(
    LineDiscount, st.builds(FixedPrice, st.integers(0, 900)) | _prices
)
_unit_off = _off | st.builds(FixedPrice, st.integers(0, 500))
_unit_deals = st.builds(
    lambda every, discounted, *more: UnitDeal(every, min(every, discounted), *more),
    st.integers(1, 3),
    st.integers(1, 3),
    _unit_off,
    st.sampled_from(Choice),
    st.sampled_from(FallsOn),
    st.none() | st.integers(1, 2),
)
_set_deals = st.builds(
    SetDeal,
    st.lists(st.builds(SetPart, _goods, st.integers(1, 2)), min_size=1, max_size=2).map(tuple),
    _unit_off,
    st.none() | st.just(0),
    st.none() | st.integers(1, 2),
)
_gifts = st.builds(
    Gift, _goods, st.integers(1, 2), st.integers(0, 300), st.none() | st.integers(1, 3), st.sampled_from(FallsOn)
)
_measures = st.sampled_from(["amount", "quantity", "weight"])
_steps = st.builds(
    Steps,
    _measures,
    st.lists(st.builds(Step, st.integers(1, 4000), _off), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)
_points_steps = st.builds(
    PointsSteps,
    st.lists(
        st.builds(PointsStep, st.integers(0, 5000), st.integers(0, 500), st.just(Fraction(0)) | _shares),
        min_size=1,
        max_size=3,
        unique_by=lambda step: step.at_least_minor,
    ).map(tuple),
    st.booleans(),
)
_points = st.builds(
    Points,
    st.builds(PointsPercent, _shares)
    | st.builds(PointsMultiplier, st.fractions(Fraction(3, 2), 9, max_denominator=10))
    | st.builds(PointsFixed, st.integers(1, 999), st.sampled_from(["unit", "line", "receipt"]))
    | st.builds(PointsPerAmount, st.integers(1, 50), st.integers(100, 900), st.sampled_from(["line", "receipt"]))
    | _points_steps,
    st.none(),
    st.none() | st.just("gift"),
    st.none() | st.just("fuel"),
)
_bound = st.none() | st.integers(1, 6000)
_few = st.none() | st.integers(1, 4)
_periods = st.none() | st.sampled_from([Period.DAY, Period.MONTH])
_leaves = (
    st.builds(ReceiptTotal, _bound, _bound)
    | st.builds(ScopeTotal, _bound, _bound)
    | st.builds(
        BasketCount,
        st.sampled_from(["amount", "quantity", "weight", "categories"]),
        st.none() | _goods,
        _few,
        _bound,
        st.integers(0, 2),
    )
    | st.builds(BirthdayWindow, st.integers(0, 7), st.integers(0, 7))
    | st.builds(InStores, st.just(frozenset({"store-1"})) | st.just(frozenset()), st.just(frozenset({"city"})))
    | st.builds(OnChannels, st.sampled_from(["shop", "app"]).map(lambda name: frozenset({name})))
    | st.builds(AtTerminals, st.sampled_from(TerminalKind).map(lambda kind: frozenset({kind})))
    | st.builds(
        TimeWindow,
        st.frozensets(st.integers(0, 6), max_size=4),
        st.sampled_from([0, 600, 1320]),
        st.sampled_from([120, 780, 1440]),
        st.none() | st.just(MONDAY),
        st.none() | st.just(MONDAY),
    )
    | st.builds(InTiers, st.sampled_from(["", "gold"]).map(lambda name: frozenset({name})))
    | st.builds(InSegments, st.sampled_from(["young", "pets"]).map(lambda name: frozenset({name})))
    | st.builds(InClub, st.just("wine"))
    | st.builds(MemberAge, _few, _bound)
    | st.builds(VisitNumber, _periods, _few, _few, st.none() | st.just(2))
    | st.builds(SpendSoFar, _periods, _bound, _bound)
    | st.builds(
        PaidBy,
        st.frozensets(st.sampled_from(TenderKind), min_size=1, max_size=2),
        st.just(()) | st.just(("5168",)),
        _bound,
    )
    | st.builds(CouponShown, st.just(frozenset({"s"})), st.just(frozenset({"CODE"})))
    | st.builds(OfferMade)
)
_conditions = st.none() | st.recursive(
    _leaves,
    lambda parts: (
        st.builds(AllOf, st.lists(parts, min_size=1, max_size=2).map(tuple))
        | st.builds(AnyOf, st.lists(parts, min_size=1, max_size=2).map(tuple))
        | st.builds(NotThat, _leaves)
    ),
    max_leaves=3,
)
_limits = st.lists(
    st.builds(Limit, st.sampled_from(Measure), st.sampled_from(LimitScope), st.integers(1, 900), _periods)
    | st.builds(Limit, st.just(Measure.COUNT), st.sampled_from(LimitScope), st.integers(1, 3), _periods),
    max_size=2,
    unique_by=lambda limit: (limit.measure, limit.scope, limit.period),
).map(tuple)
_no_limits = st.just(())
_some_limits = _no_limits | _no_limits | _limits
_some_control = st.just(Fraction(0)) | st.just(Fraction(0)) | st.just(Fraction(1, 2))
_days = st.none() | st.integers(-2, 2).map(lambda days: MONDAY + timedelta(days))


def _promotions(is_plain: bool) -> st.SearchStrategy[Promotion]:
    return st.builds(
        Promotion,
        id=st.text("abcdef", min_size=1, max_size=3),
        name=st.just("P"),
        scope=_scopes,
        valid_from=_days,
        valid_until=_days,
        when=_conditions,
        line_discount=st.none() | _line_discounts,
        basket_discount=st.none() | st.builds(BasketDiscount, _off, _bases),
        points=st.none() | _points,
        priority=st.integers(1, 3),
        group=st.none() if is_plain else st.none() | st.sampled_from(["g", "h"]),
        exclusive=st.just(False) if is_plain else st.booleans(),
        messages=st.just(()),
        deal=st.none() | st.none() | _unit_deals | _set_deals | _gifts | _steps,
        tier_points=st.none() | st.just(PointsFixed(100, "receipt")),
        coupon=st.none() | st.just(CouponIssue("later")),
        draw=st.none() | st.just(DrawEntry("car", 1, 500)),
        club=st.none() | st.just(ClubJoin("wine", 30)),
        near_miss=st.none()
        | st.just(NearMiss((MessageText(Audience.CASHIER, {"": "{missing} {missing_quantity}"}),), 900, 2)),
        limits=_some_limits,
        campaign=st.none() | st.just("spring"),
        control_share=_some_control,
    ).map(lambda one: dataclasses.replace(one, basket_discount=None) if isinstance(one.deal, Steps) else one)


_fuel = st.builds(Partner, st.just("fuel"), st.just("Fuel"), st.none() | _shares, st.booleans())


def _programmes(is_plain: bool) -> st.SearchStrategy[Programme]:
    return st.builds(
        Programme,
        code=st.just("test"),
        name=st.just("Test"),
        effective_from=st.just(MONDAY),
        currency=st.just("UAH"),
        currency_digits=st.just(2),
        point=st.just(PointUnit("bonus", 2, Fraction(1))),
        earning=st.builds(Earning, _shares),
        spending=st.builds(Spending, _shares, st.just(1), st.just(1), st.booleans()),
        exclusions=st.builds(Exclusions, st.none() | _tagged, st.none() | _tagged, st.none() | _tagged),
        promotions=st.lists(_promotions(is_plain), max_size=6, unique_by=lambda p: p.id).map(tuple),
        campaigns=st.builds(Campaign, st.just("spring"), st.just("S"), _some_limits, _some_control).map(lambda c: (c,)),
        units=st.just((FurtherUnit(PointUnit("gift", 0, Fraction(100)), "Gift"),)),
        partners=_fuel.map(lambda partner: (partner,)),
        tiers=st.none() | st.just(Tiers(TierMeasure.SPEND, (Tier("gold", "Gold", 5000),))),
        control_share=st.just(Fraction(0)),
    )


_lines = st.lists(
    st.builds(
        ReceiptLine,
        st.integers(1, 30),
        st.sampled_from(SKUS),
        st.sampled_from(CATEGORIES),
        st.sampled_from(BRANDS),
        st.sampled_from(SUPPLIERS),
        st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple),
        st.sampled_from([1000, 2000, 3000, 350]),
        st.integers(0, 5000),
        st.just(0) | st.integers(0, 2000),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda line: line.line_number,
)
_receipts = st.builds(
    ReceiptFacts,
    st.just("store-1"),
    st.sampled_from([1, 12, 23]).map(lambda hour: datetime(2026, 3, 2, hour, tzinfo=STORE_ZONE)),
    _lines,
    store_groups=st.frozensets(st.just("city")),
    channel=st.sampled_from(["", "shop"]),
    terminal_kind=st.none() | st.sampled_from(TerminalKind),
    tenders=st.lists(
        st.builds(TenderFact, st.sampled_from(TenderKind), st.integers(0, 5000), st.sampled_from(["", "516800"])),
        max_size=2,
    ),
    coupons=st.lists(st.sampled_from([CouponFact("CODE"), CouponFact("x1", "s")]), max_size=2),
    partner=st.sampled_from(["", "", "fuel"]),
)
_members = st.none() | st.builds(
    MemberFacts,
    st.sampled_from(["m", "n", "o"]),
    st.none() | st.dates(date(1990, 2, 20), date(1990, 3, 10)),
    st.booleans(),
    st.booleans(),
    st.none() | st.just(MONDAY - timedelta(days=2)),
    st.frozensets(st.just("young")),
    st.frozensets(st.text("abcdef", min_size=1, max_size=1)),
    st.just(""),
    st.none(),
    st.sampled_from(["", "gold"]),
    st.none(),
)
_counters = st.builds(Counter, st.integers(0, 3), st.integers(0, 900), st.integers(0, 900), st.none() | st.just(MONDAY))
KEYS = (
    "visit/ever",
    "visit/day/2026-03-02",
    "visit/month/2026-03-01",
    "club/wine",
    "use/@spring/ever",
    "use/a/ever",
    "use/b/day/2026-03-02",
    "use/c/month/2026-03-01",
)
_keys = st.sampled_from(KEYS)
_usages = st.none() | st.builds(
    Usage,
    st.dictionaries(_keys, _counters, max_size=4),
    st.dictionaries(st.sampled_from(["@spring/money", "a/count", "b/money/store/store-1"]), st.integers(0, 2)),
)
_wishes = st.none() | st.integers(0, 20000)


@given(_programmes(is_plain=True), _receipts, _members, _usages)
def test_the_index_finds_what_trying_everything_finds(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, usage=usage)
    naive = Naive(programme, receipt, member, usage)
    assert [entry.payable_minor for entry in effects.lines] == naive.left
    assert points(effects) == naive.points
    assert {one.promotion_id for one in effects.withheld} <= naive.withheld


@given(_programmes(is_plain=False), _receipts, _members, _wishes, _usages)
def test_sums_and_floors(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, wish, usage)
    bought = {line.line_number: line for line in receipt.lines}
    for entry in effects.lines:
        line = bought[entry.line_number]
        taken = sum(discount.amount_minor for discount in entry.discounts)
        assert taken + entry.payable_minor == line.list_amount_minor
        assert entry.payable_minor >= min(line.floor_amount_minor, line.list_amount_minor)
        assert 0 <= entry.points_money_minor <= entry.spendable_minor
        assert all(discount.amount_minor > 0 for discount in entry.discounts)
        assert all(accrual.points_minor > 0 for accrual in entry.accruals)
        kept = entry.payable_minor - entry.points_money_minor
        assert kept >= min(line.floor_amount_minor, line.list_amount_minor)
    assert effects.payable_minor == sum(entry.payable_minor for entry in effects.lines)
    assert effects.payable_minor + effects.discount_minor == sum(line.list_amount_minor for line in receipt.lines)
    assert effects.spent_money_minor == sum(entry.points_money_minor for entry in effects.lines)
    assert effects.spent_points_minor == min(wish or 0, effects.max_spend_points_minor)
    assert effects.accrual_points_minor == sum(
        accrual.points_minor for entry in effects.lines for accrual in entry.accruals if not accrual.unit
    )


@given(_programmes(is_plain=False), _receipts, _members, _wishes, _usages, st.randoms(use_true_random=False))
def test_order_of_lines_and_promotions_does_not_matter(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    wish: int | None,
    usage: Usage | None,
    random: Random,
) -> None:
    lines, promotions = list(receipt.lines), list(programme.promotions)
    random.shuffle(lines)
    random.shuffle(promotions)
    mixed = dataclasses.replace(programme, promotions=tuple(promotions))
    expected = quote(compile_rules(programme, 1), receipt, member, wish, usage)
    assert quote(compile_rules(mixed, 1), receipt._replace(lines=lines), member, wish, usage) == expected


@given(_programmes(is_plain=False), _receipts, _members, _wishes, _usages, _promotions(is_plain=False))
def test_a_promotion_that_does_not_apply_changes_nothing(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    wish: int | None,
    usage: Usage | None,
    extra: Promotion,
) -> None:
    nowhere = Selector(skus=frozenset({"no-such-sku"}))
    elsewhere = dataclasses.replace(
        extra, id="elsewhere", scope=nowhere, deal=None if isinstance(extra.deal, Gift) else extra.deal
    )
    over = dataclasses.replace(extra, id="over", valid_until=MONDAY - timedelta(days=1))
    out_of_reach = dataclasses.replace(extra, id="unreached", when=ReceiptTotal(at_least_minor=10**9))
    no_right = dataclasses.replace(extra, id="unheld", when=CouponShown(series=frozenset({"other"})))
    other_store = dataclasses.replace(extra, id="away", when=InStores(frozenset({"store-2"})))
    others = (elsewhere, over, out_of_reach, no_right, other_store)
    more = dataclasses.replace(programme, promotions=(*programme.promotions, *others))
    found = [quote(compile_rules(one, 1), receipt, member, wish, usage) for one in (programme, more)]
    without, beside = (  # which visits are counted is a matter of what conditions mention
        one._replace(consulted=frozenset(), counts=[c for c in one.counts if not c.key.startswith("visit/")])
        for one in found
    )
    assert beside == without


@given(_programmes(is_plain=False), _receipts, _members, _wishes, _usages)
def test_quote_and_commit_agree(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None, usage: Usage | None
) -> None:
    rules = compile_rules(programme, 1)
    quoted = quote(rules, receipt, member, wish, usage)
    assert earn_as_paid(rules, receipt, member, as_quoted(quoted), usage) == quoted


@given(_programmes(is_plain=False), _receipts, _members, _usages)
def test_what_was_not_consulted_changes_nothing(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    rules = compile_rules(programme, 1)
    effects = quote(rules, receipt, member, usage=usage)
    counters = usage.member if usage is not None else {}
    shared = usage.shared if usage is not None else {}
    other = Usage(
        {key: counters.get(key, Counter()) if key in effects.consulted else Counter(9, 9, 9) for key in KEYS},
        {key: left for key, left in shared.items() if key in effects.consulted} | {"unknown": 0},
    )
    assert quote(rules, receipt, member, usage=other) == effects


@given(_programmes(is_plain=False), _receipts, _members, _usages)
def test_no_limit_is_overshot(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, usage=usage)
    shared = usage.shared if usage is not None else {}
    for use in effects.shared:
        assert 0 < use.amount <= shared.get(use.key, use.at_most)
    assert all(cap.granted < cap.wanted for cap in effects.capped)
    counted = {count.key: count for count in effects.counts}
    before = usage.member if usage is not None else {}
    for promotion in programme.promotions:
        for limit in promotion.limits:
            key = use_key(promotion.id, limit.period, MONDAY)
            if limit.scope is LimitScope.MEMBER and key in counted:
                used, new = before.get(key, Counter()), counted[key]
                for measure, old, more in zip(Measure, used[:3], new[1:4], strict=True):
                    assert limit.measure is not measure or not more or old + more <= limit.at_most


@given(_programmes(is_plain=False), _receipts, _members)
def test_the_memory_of_products_changes_no_answer(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None
) -> None:
    rules = compile_rules(programme, 1)
    first = quote(rules, receipt, member)
    for days in range(-20, 20, 3):
        later = receipt._replace(local_at=receipt.local_at + timedelta(days))
        assert quote(rules, later, member) == quote(compile_rules(programme, 1), later, member)
    assert quote(rules, receipt, member) == first
