"""Every condition, one case a line: the receipt or the member on which it holds, and the ones beside."""

from __future__ import annotations

from datetime import date, time
from fractions import Fraction
from typing import Any

import pytest

from server.promotions import (
    AllOf,
    AnyOf,
    AtTerminals,
    BasketCount,
    BirthdayWindow,
    Condition,
    CounterFact,
    CouponFact,
    CouponShown,
    InClub,
    InSegments,
    InStores,
    InTiers,
    LineDiscount,
    MemberAge,
    MemberFacts,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    PaidLine,
    PercentOff,
    Period,
    Points,
    PointsFixed,
    ReceiptLine,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SpendSoFar,
    TenderFact,
    TenderKind,
    TerminalKind,
    Tier,
    TierMeasure,
    Tiers,
    TimeWindow,
    Usage,
    VisitNumber,
    earn_as_paid,
    quote,
)
from tests.unit.promotions.builders import (
    MONDAY,
    SHOPPER,
    TEN_OFF_BASKET,
    TEN_OFF_LINES,
    as_quoted,
    line,
    promo,
    promotions,
    receipt,
    rules,
    rules_of,
    skus,
)

CAKE = line(1, 1000, sku="cake", category="bakery/cakes")
TWO_CAKES = line(1, 2000, sku="cake", category="bakery/cakes", quantity_milli=2000)
BREAD = line(2, 500, sku="bread", category="bakery/bread", supplier="Mill")
CHEESE = line(3, 1250, sku="cheese", category="dairy/cheese/hard", quantity_milli=1250, is_weighed=True)
TOBACCO = line(4, 9000, sku="tobacco", category="tobacco", tags=("tobacco",))

A_HUNDRED_POINTS: dict[str, Any] = {"points": Points(PointsFixed(100, "receipt"))}
EFFECTS = [
    pytest.param({"line_discount": TEN_OFF_LINES}, id="line"),
    pytest.param({"basket_discount": TEN_OFF_BASKET}, id="basket"),
    pytest.param(A_HUNDRED_POINTS, id="points"),
]


def applies(when: Condition, effect: dict[str, Any], *lines: ReceiptLine | int, **asked: Any) -> bool:
    """Whether a promotion with this condition does anything."""
    member = asked.pop("member", SHOPPER)
    usage = asked.pop("usage", None)
    scope = asked.pop("scope", None)
    settings = asked.pop("settings", {})
    rules = rules_of(promo(when=when, scope=scope, **effect), **settings)
    effects = quote(rules, receipt(*lines, **asked), member, usage=usage)
    return bool(effects.discount_minor or effects.accrual_points_minor)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    ("what", "goods", "levels", "reached"),
    [
        pytest.param("quantity", None, 0, 4, id="units: two cakes, a bread, a piece of cheese"),
        pytest.param("quantity", skus("cake"), 0, 2, id="units of some goods"),
        pytest.param("quantity", Selector(suppliers=frozenset({"Mill"})), 0, 1, id="units by supplier"),
        pytest.param("amount", None, 0, 3750, id="money"),
        pytest.param("amount", Selector(categories=frozenset({"bakery"})), 0, 2500, id="money for a category tree"),
        pytest.param("weight", None, 0, 1250, id="weight of weighed goods only"),
        pytest.param("categories", None, 0, 3, id="different categories"),
        pytest.param("categories", None, 1, 2, id="different departments"),
        pytest.param("categories", None, 9, 3, id="more levels than there are"),
        pytest.param("categories", skus("cheese"), 2, 1, id="categories of some goods"),
    ],
)
def test_basket_count(what: str, goods: Selector | None, levels: int, reached: int, effect: dict[str, Any]) -> None:
    lines = (TWO_CAKES, BREAD, CHEESE)
    assert applies(BasketCount(what, goods, at_least=reached, category_levels=levels), effect, *lines)
    assert not applies(BasketCount(what, goods, at_least=reached + 1, category_levels=levels), effect, *lines)
    assert not applies(BasketCount(what, goods, below=reached, category_levels=levels), effect, *lines)
    assert applies(BasketCount(what, goods, below=reached + 1, category_levels=levels), effect, *lines)


@pytest.mark.parametrize("effect", EFFECTS)
def test_without_goods_a_count_is_of_the_scope(effect: dict[str, Any]) -> None:
    for at_least, holds in ((2, True), (3, False)):
        count = BasketCount("quantity", at_least=at_least)
        assert applies(count, effect, TWO_CAKES, BREAD, CHEESE, scope=skus("cake")) is holds


BIRTHDAY = date(2026, 6, 15)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    ("when", "holds", "asked"),
    [
        pytest.param(InStores(frozenset({"store-1"})), True, {}, id="this store"),
        pytest.param(InStores(frozenset({"store-2"})), False, {}, id="another store"),
        pytest.param(
            InStores(groups=frozenset({"city"})), True, {"store_groups": frozenset({"city", "big"})}, id="store group"
        ),
        pytest.param(InStores(groups=frozenset({"city"})), False, {}, id="not in the group"),
        pytest.param(
            InStores(frozenset({"store-2"}), frozenset({"city"})),
            True,
            {"store_groups": frozenset({"city"})},
            id="stores or groups",
        ),
        pytest.param(OnChannels(frozenset({"app"})), True, {"channel": "app"}, id="channel"),
        pytest.param(OnChannels(frozenset({"app"})), False, {"channel": "shop"}, id="another channel"),
        pytest.param(OnChannels(frozenset({"app"})), False, {}, id="channel unknown"),
        pytest.param(
            AtTerminals(frozenset({TerminalKind.SELF_CHECKOUT})),
            True,
            {"terminal_kind": TerminalKind.SELF_CHECKOUT},
            id="self-checkout",
        ),
        pytest.param(
            AtTerminals(frozenset({TerminalKind.SELF_CHECKOUT})),
            False,
            {"terminal_kind": TerminalKind.LANE},
            id="a lane is no self-checkout",
        ),
        pytest.param(AtTerminals(frozenset({TerminalKind.ONLINE})), False, {}, id="terminal unknown"),
        pytest.param(BirthdayWindow(7, 0), True, {"on": date(2026, 6, 8)}, id="a week before the birthday"),
        pytest.param(BirthdayWindow(7, 0), False, {"on": date(2026, 6, 7)}, id="eight days before"),
        pytest.param(BirthdayWindow(0, 2), True, {"on": date(2026, 6, 17)}, id="two days after"),
        pytest.param(BirthdayWindow(0, 2), False, {"on": date(2026, 6, 18)}, id="three days after"),
        pytest.param(BirthdayWindow(7, 7), False, {"member": MemberFacts("m"), "on": BIRTHDAY}, id="birthday unknown"),
        pytest.param(
            BirthdayWindow(2, 2),
            True,
            {"member": MemberFacts("m", birthday_windows=frozenset({(2, 2)}))},
            id="a past receipt: the window that held",
        ),
        pytest.param(
            BirthdayWindow(2, 2),
            False,
            {"member": MemberFacts("m", BIRTHDAY, birthday_windows=frozenset()), "on": BIRTHDAY},
            id="a past receipt: no window held",
        ),
        pytest.param(
            BirthdayWindow(0, 0),
            True,
            {"member": MemberFacts("m", date(1992, 2, 29)), "on": date(2027, 2, 28)},
            id="29 February is kept on 28 February",
        ),
        pytest.param(
            BirthdayWindow(0, 0),
            False,
            {"member": MemberFacts("m", date(1992, 2, 29)), "on": date(2028, 2, 28)},
            id="but not in leap years",
        ),
        pytest.param(InTiers(frozenset({"gold"})), True, {"member": SHOPPER._replace(tier="gold")}, id="level"),
        pytest.param(InTiers(frozenset({"gold"})), False, {"member": SHOPPER._replace(tier="silver")}, id="lower"),
        pytest.param(InTiers(frozenset({""})), True, {}, id="a member without a level"),
        pytest.param(
            InSegments(frozenset({"young", "pets"})),
            True,
            {"member": SHOPPER._replace(segments=frozenset({"pets"}))},
            id="one of the segments",
        ),
        pytest.param(InSegments(frozenset({"young"})), False, {}, id="no segment"),
        pytest.param(
            MemberAge(at_least_days=0, below_days=1),
            True,
            {"member": SHOPPER._replace(registered_on=MONDAY)},
            id="registered today",
        ),
        pytest.param(
            MemberAge(at_least_days=30),
            True,
            {"member": SHOPPER._replace(registered_on=date(2026, 1, 31))},
            id="for 30 days",
        ),
        pytest.param(
            MemberAge(at_least_days=31),
            False,
            {"member": SHOPPER._replace(registered_on=date(2026, 1, 31))},
            id="not for 31",
        ),
        pytest.param(MemberAge(at_least_days=0), False, {}, id="registration unknown"),
        pytest.param(
            MemberAge(at_least_days=7), True, {"member": SHOPPER._replace(age_days=7)}, id="a past receipt: age then"
        ),
        pytest.param(OfferMade(), True, {"member": SHOPPER._replace(offers=frozenset({"p"}))}, id="personal offer"),
        pytest.param(OfferMade(), False, {"member": SHOPPER._replace(offers=frozenset({"q"}))}, id="another offer"),
        pytest.param(
            CouponShown(series=frozenset({"spring"})), True, {"coupons": [CouponFact("A1", "spring")]}, id="serial"
        ),
        pytest.param(
            CouponShown(series=frozenset({"spring"})), False, {"coupons": [CouponFact("spring", "")]}, id="no series"
        ),
        pytest.param(CouponShown(codes=frozenset({"HELLO"})), True, {"coupons": [CouponFact("HELLO")]}, id="generic"),
        pytest.param(CouponShown(codes=frozenset({"HELLO"})), False, {}, id="no coupon"),
    ],
)
def test_receipt_and_member(when: Condition, holds: bool, asked: dict[str, Any], effect: dict[str, Any]) -> None:
    assert applies(when, effect, CAKE, **asked) is holds


WEEKEND_NIGHT = TimeWindow(frozenset({4, 5}), from_minute=22 * 60, until_minute=2 * 60)
LUNCH = TimeWindow(from_minute=12 * 60, until_minute=14 * 60)
FIRST_WEEK = TimeWindow(first=date(2026, 3, 2), last=date(2026, 3, 8), until_minute=24 * 60)


@pytest.mark.parametrize(
    ("window", "on", "at", "holds"),
    [
        pytest.param(LUNCH, "2026-03-02", "12:00", True, id="the first minute"),
        pytest.param(LUNCH, "2026-03-02", "13:59", True, id="the last minute"),
        pytest.param(LUNCH, "2026-03-02", "14:00", False, id="the end is excluded"),
        pytest.param(LUNCH, "2026-03-02", "11:59", False, id="before"),
        pytest.param(TimeWindow(frozenset({0})), "2026-03-02", "00:00", True, id="Monday from midnight"),
        pytest.param(TimeWindow(frozenset({0})), "2026-03-02", "23:59", True, id="to midnight"),
        pytest.param(TimeWindow(frozenset({0})), "2026-03-03", "00:00", False, id="not on Tuesday"),
        pytest.param(WEEKEND_NIGHT, "2026-03-06", "22:00", True, id="Friday night"),
        pytest.param(WEEKEND_NIGHT, "2026-03-07", "01:59", True, id="after midnight it is still Friday's"),
        pytest.param(WEEKEND_NIGHT, "2026-03-08", "01:00", True, id="Saturday's"),
        pytest.param(WEEKEND_NIGHT, "2026-03-06", "01:00", False, id="Thursday's is not meant"),
        pytest.param(WEEKEND_NIGHT, "2026-03-08", "22:00", False, id="nor Sunday's"),
        pytest.param(WEEKEND_NIGHT, "2026-03-07", "02:00", False, id="over"),
        pytest.param(FIRST_WEEK, "2026-03-02", "00:00", True, id="first day"),
        pytest.param(FIRST_WEEK, "2026-03-08", "23:59", True, id="last day"),
        pytest.param(FIRST_WEEK, "2026-03-09", "00:00", False, id="the day after"),
        pytest.param(FIRST_WEEK, "2026-03-01", "23:59", False, id="the day before"),
    ],
)
def test_time_window(window: TimeWindow, on: str, at: str, holds: bool) -> None:
    moment = {"on": date.fromisoformat(on), "at": time.fromisoformat(at)}
    assert applies(window, {"line_discount": TEN_OFF_LINES}, CAKE, **moment) is holds


def visits(key: str, times: int = 0, money_minor: int = 0) -> Usage:
    """What the member bought before."""
    return Usage({key: CounterFact(times, money_minor)})


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    ("when", "usage", "holds"),
    [
        pytest.param(VisitNumber(at_least=1, below=2), None, True, id="first purchase"),
        pytest.param(VisitNumber(at_least=1, below=2), visits("visit/ever", 1), False, id="second purchase"),
        pytest.param(
            VisitNumber(Period.WEEK, at_least=3), visits("visit/week/2026-03-02", 2), True, id="third this week"
        ),
        pytest.param(VisitNumber(Period.WEEK, at_least=3), visits("visit/week/2026-02-23", 9), False, id="last week"),
        pytest.param(VisitNumber(every=5), visits("visit/ever", 4), True, id="every fifth: the fifth"),
        pytest.param(VisitNumber(every=5), visits("visit/ever", 14), True, id="the fifteenth"),
        pytest.param(VisitNumber(every=5), visits("visit/ever", 5), False, id="the sixth"),
        pytest.param(VisitNumber(Period.DAY, every=2), visits("visit/day/2026-03-02", 1), True, id="second of the day"),
        pytest.param(
            SpendSoFar(Period.MONTH, at_least_minor=10000), visits("visit/month/2026-03-01", 2, 10000), True, id="spent"
        ),
        pytest.param(
            SpendSoFar(Period.MONTH, at_least_minor=10000), visits("visit/month/2026-03-01", 2, 9999), False, id="short"
        ),
        pytest.param(
            SpendSoFar(Period.QUARTER, below_minor=1), visits("visit/quarter/2026-01-01", 1, 1), False, id="below"
        ),
        pytest.param(SpendSoFar(below_minor=1), None, True, id="nothing yet"),
        pytest.param(InClub("wine"), Usage({"club/wine": CounterFact(until=MONDAY)}), True, id="the club's last day"),
        pytest.param(
            InClub("wine"), Usage({"club/wine": CounterFact(until=date(2026, 3, 1))}), False, id="it has ended"
        ),
        pytest.param(InClub("wine"), Usage({"club/tea": CounterFact(until=MONDAY)}), False, id="another club"),
    ],
)
def test_what_the_member_did_before(when: Condition, usage: Usage | None, holds: bool, effect: dict[str, Any]) -> None:
    assert applies(when, effect, CAKE, usage=usage) is holds


CARD, CASH, OTHER, POINTS = TenderKind.CARD, TenderKind.CASH, TenderKind.OTHER, TenderKind.POINTS


@pytest.mark.parametrize(
    ("when", "tenders", "holds"),
    [
        pytest.param(PaidBy(frozenset({CARD})), [TenderFact(CARD, 1)], True, id="card"),
        pytest.param(PaidBy(frozenset({CARD})), [TenderFact(CASH, 1000)], False, id="cash is no card"),
        pytest.param(PaidBy(frozenset({CARD})), [], False, id="not known how"),
        pytest.param(PaidBy(frozenset({CARD})), [TenderFact(CARD, 0)], False, id="nothing by card"),
        pytest.param(PaidBy(frozenset({CARD}), ("5168",)), [TenderFact(CARD, 1, "516874")], True, id="BIN"),
        pytest.param(PaidBy(frozenset({CARD}), ("5168",)), [TenderFact(CARD, 1, "411111")], False, id="another BIN"),
        pytest.param(PaidBy(frozenset({CARD}), ("5168",)), [TenderFact(CARD, 1)], False, id="BIN unknown"),
        pytest.param(PaidBy(frozenset({CARD}), ("4", "51")), [TenderFact(CARD, 1, "511")], True, id="one of the BINs"),
        pytest.param(PaidBy(frozenset({POINTS})), [TenderFact(POINTS, 5)], False, id="points that are not spent"),
        pytest.param(
            PaidBy(frozenset({CARD, CASH}), at_least_minor=1000),
            [TenderFact(CARD, 600), TenderFact(CASH, 400)],
            True,
            id="together enough",
        ),
        pytest.param(
            PaidBy(frozenset({CARD}), at_least_minor=1000),
            [TenderFact(CARD, 600), TenderFact(CASH, 400)],
            False,
            id="not enough by card",
        ),
    ],
)
def test_paid_by(when: PaidBy, tenders: list[TenderFact], holds: bool) -> None:
    assert applies(when, {"line_discount": TEN_OFF_LINES}, CAKE, tenders=tenders) is holds


@pytest.mark.parametrize(
    ("due", "spent", "tenders", "counted"),
    [
        pytest.param(300, 0, {CASH: 500}, {CASH: 300}, id="a note of 500 for 300: the rest is change"),
        pytest.param(300, 0, {CASH: 300}, {CASH: 300}, id="to the penny"),
        pytest.param(300, 0, {CASH: 100}, {CASH: 100}, id="too little counts as it is"),
        pytest.param(300, 0, {CASH: 500, CARD: 200}, {CASH: 100, CARD: 200}, id="change comes out of the cash"),
        pytest.param(300, 0, {CASH: 500, OTHER: 300}, {CASH: 0, OTHER: 300}, id="a note shown beside a voucher"),
        pytest.param(300, 0, {CARD: 500}, {CARD: 300}, id="nobody pays more than the receipt by card"),
        pytest.param(300, 0, {CARD: 200, OTHER: 200}, {CARD: 200, OTHER: 100}, id="nor by card and voucher together"),
        pytest.param(300, 0, {POINTS: 100, CASH: 200}, {POINTS: 0, CASH: 200}, id="points that were not spent"),
        pytest.param(300, 100, {POINTS: 100, CASH: 200}, {POINTS: 100, CASH: 200}, id="points that were spent"),
        pytest.param(300, 100, {POINTS: 250, CASH: 200}, {POINTS: 100, CASH: 200}, id="more tendered than spent"),
        pytest.param(300, 100, {CASH: 500}, {POINTS: 100, CASH: 200}, id="spent, and not tendered"),
        pytest.param(300, 300, {CARD: 300}, {POINTS: 300, CARD: 0}, id="points pay all"),
    ],
)
def test_tenders_count_for_what_they_pay_of_the_receipt(
    due: int, spent: int, tenders: dict[TenderKind, int], counted: dict[TenderKind, int]
) -> None:
    tendered = tuple(TenderFact(kind, amount) for kind, amount in tenders.items())
    for kind in TenderKind:
        reached = counted.get(kind, 0)
        for at_least in {max(1, reached), reached + 1}:
            asking = rules_of(promo(when=PaidBy(frozenset({kind}), at_least_minor=at_least), **A_HUNDRED_POINTS))
            paid = [PaidLine(1, 0, spent)]
            effects = earn_as_paid(asking, receipt(due, tenders=tendered), SHOPPER, paid)
            # points are earned on money, of which something has to be left
            assert bool(effects.accrual_points_minor) is (at_least <= reached and spent < due), (kind, at_least)


@pytest.mark.parametrize("effect", ["line_discount: {amount: 10.00}", "points: {fixed: 7}"])
@pytest.mark.parametrize(
    ("asked_minor", "tenders"),
    [
        pytest.param(100_00, {CASH: 100_00}, id="all points, and cash for all"),
        pytest.param(100_00, {CASH: 80_00, POINTS: 20_00}, id="all points, and cash for what they leave"),
        pytest.param(20_00, {CASH: 80_00}, id="as many as may pay"),
    ],
)
def test_a_quote_sees_cash_beside_the_points_that_may_really_pay(
    effect: str, asked_minor: int, tenders: dict[TenderKind, int]
) -> None:
    compiled = rules(
        "spending: {max_share_percent: 20}\n"
        + promotions(f"id: c, name: C, when: {{paid_by: {{tenders: [cash], at_least: 50.00}}}}, {effect}")
    )
    bought = receipt(100_00, tenders=tuple(TenderFact(kind, amount) for kind, amount in tenders.items()))
    quoted = quote(compiled, bought, SHOPPER, asked_minor)
    assert quoted.discount_minor + quoted.accrual_points_minor > 0
    assert earn_as_paid(compiled, bought, SHOPPER, as_quoted(quoted)) == quoted


def test_a_quote_and_its_receipt_count_a_note_alike() -> None:
    promotion = promo(when=PaidBy(frozenset({CASH}), at_least_minor=1000), line_discount=TEN_OFF_LINES)
    for price, holds in ((999, False), (1000, True)):
        bought = receipt(price, tenders=(TenderFact(CASH, 5000),))
        quoted = quote(rules_of(promotion), bought, SHOPPER)
        assert bool(quoted.discount_minor) is holds
        assert not earn_as_paid(rules_of(promotion), bought, SHOPPER, as_quoted(quoted)).variances


LEVELS = Tiers(TierMeasure.SPEND, (Tier("silver", "Silver", 50000), Tier("gold", "Gold", 100000)), period=Period.YEAR)


@pytest.mark.parametrize(
    ("spent", "tier"),
    [(0, ""), (49999, ""), (50000, "silver"), (99999, "silver"), (100000, "gold")],
)
def test_the_level_follows_from_what_was_counted(spent: int, tier: str) -> None:
    usage = visits("visit/year/2026-01-01", 5, spent)
    for asked in ("", "silver", "gold"):
        found = applies(
            InTiers(frozenset({asked})), {"line_discount": TEN_OFF_LINES}, CAKE, usage=usage, settings={"tiers": LEVELS}
        )
        assert found is (asked == tier)


YES, NO = ReceiptTotal(at_least_minor=1), ReceiptTotal(below_minor=1)
IN_STORE = InStores(frozenset({"store-1"}))
ELSEWHERE = InStores(frozenset({"store-2"}))


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    ("when", "holds"),
    [
        pytest.param(AllOf((YES, IN_STORE)), True, id="all"),
        pytest.param(AllOf((YES, ELSEWHERE)), False, id="all but one"),
        pytest.param(AnyOf((NO, IN_STORE)), True, id="any"),
        pytest.param(AnyOf((ELSEWHERE, IN_STORE)), True, id="any of two stores"),
        pytest.param(AnyOf((NO, ELSEWHERE)), False, id="none"),
        pytest.param(NotThat(ELSEWHERE), True, id="not"),
        pytest.param(NotThat(IN_STORE), False, id="not this one"),
        pytest.param(AllOf((NotThat(AnyOf((NO, ELSEWHERE))), YES)), True, id="not any"),
        pytest.param(AllOf((AnyOf((NO, AllOf((YES, IN_STORE)))), NotThat(NO))), True, id="nested"),
        pytest.param(AnyOf((CouponShown(codes=frozenset({"X"})), IN_STORE)), True, id="a coupon or this store"),
        pytest.param(NotThat(CouponShown(codes=frozenset({"X"}))), True, id="without a coupon"),
        pytest.param(NotThat(NotThat(IN_STORE)), True, id="not not"),
    ],
)
def test_combinations(when: Condition, holds: bool, effect: dict[str, Any]) -> None:
    assert applies(when, effect, CAKE) is holds


@pytest.mark.parametrize(
    "when",
    [
        BirthdayWindow(366, 366),
        InTiers(frozenset({"", "gold"})),
        InSegments(frozenset({"young"})),
        InClub("wine"),
        MemberAge(at_least_days=0),
        VisitNumber(at_least=1),
        SpendSoFar(at_least_minor=0),
        OfferMade(),
    ],
)
def test_conditions_about_a_member_need_one(when: Condition) -> None:
    effect = {"line_discount": TEN_OFF_LINES}
    assert not applies(when, effect, CAKE, member=None)
    assert applies(NotThat(when), effect, CAKE, member=None)


def test_totals_are_those_when_the_step_begins() -> None:
    half = promo("a", scope=skus("cake"), line_discount=LineDiscount(PercentOff(Fraction(1, 2))))
    on_lines = promo("b", when=ScopeTotal(at_least_minor=1500), line_discount=TEN_OFF_LINES)
    on_basket = promo("c", when=BasketCount("amount", at_least=1001), basket_discount=TEN_OFF_BASKET)
    effects = quote(rules_of(half, on_lines, on_basket), receipt(CAKE, BREAD), SHOPPER)
    taken = [[d.promotion_id for d in entry.discounts] for entry in effects.lines]
    assert taken == [["a", "b"], ["b"]]
    assert effects.payable_minor == 450 + 450


def test_excluded_goods_do_not_count_in_the_scope_but_on_the_receipt() -> None:
    from server.promotions import Exclusions

    exclusions = {"exclusions": Exclusions(no_discount=Selector(tags=frozenset({"tobacco"})))}
    effect = {"line_discount": TEN_OFF_LINES}
    assert not applies(ScopeTotal(at_least_minor=5000), effect, CAKE, TOBACCO, settings=exclusions)
    assert applies(ReceiptTotal(at_least_minor=5000), effect, CAKE, TOBACCO, settings=exclusions)


@pytest.mark.parametrize(
    ("when", "consulted"),
    [
        pytest.param(InStores(frozenset({"store-1"})), set(), id="nothing"),
        pytest.param(VisitNumber(Period.WEEK, at_least=1), {"visit/week/2026-03-02"}, id="visits"),
        pytest.param(InClub("wine"), {"club/wine"}, id="club"),
    ],
)
def test_counters_that_were_looked_at_are_named(when: Condition, consulted: set[str]) -> None:
    rules = rules_of(promo(when=when, scope=skus("cake"), line_discount=TEN_OFF_LINES))
    assert quote(rules, receipt(CAKE), SHOPPER).consulted == consulted
