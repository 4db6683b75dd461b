"""Conditions and goods in words."""

from __future__ import annotations

from datetime import date

import pytest

from server.promotions import MemberFacts
from server.promotions.conditions import Facts, Moment
from server.promotions.criteria import (
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
from server.promotions.facts import CounterFact, CouponFact, TenderFact, Usage
from server.promotions.kinds import Period, TenderKind, TerminalKind
from server.promotions.messages import Style
from server.promotions.wording import Asked, answer, goods_text
from tests.unit.promotions.builders import MONDAY, SHOPPER, line, receipt

MEMBER = MemberFacts("m-1", registered_on=date(2026, 2, 1), segments=frozenset(["tea", "new"]), tier="gold")
WORDED = receipt(1000, 2000, line(3, 700, quantity_milli=1250, is_weighed=True))._replace(
    store_groups=frozenset(["city"]),
    channel="web",
    terminal_kind=TerminalKind.ONLINE,
    tenders=(TenderFact(TenderKind.CARD, 3000, "516812"),),
    coupons=(CouponFact("HELLO"),),
)
USED = Usage(
    {
        "visit/ever": CounterFact(4, 12345),
        "visit/month/2026-03-01": CounterFact(2, 500),
        "club/tea": CounterFact(until=MONDAY),
    }
)


@pytest.mark.parametrize(
    ("condition", "member", "text"),
    [
        pytest.param(ReceiptTotal(5000), MEMBER, "receipt total 37.00, needs at least 50.00", id="receipt total"),
        pytest.param(
            ScopeTotal(100, 200),
            MEMBER,
            "total of goods in scope 10.00, needs at least 1.00 and less than 2.00",
            id="scope total",
        ),
        pytest.param(
            BasketCount("quantity", at_least=3), MEMBER, "quantity of goods in scope 1, needs at least 3", id="units"
        ),
        pytest.param(
            BasketCount("weight", Selector(), 2000),
            MEMBER,
            "weight of all goods 1.250, needs at least 2.000",
            id="weight",
        ),
        pytest.param(
            BasketCount("amount", Selector(tags=frozenset("x")), 2000),
            MEMBER,
            "amount of tag x 0.00, needs at least 20.00",
            id="amount",
        ),
        pytest.param(VisitNumber(Period.MONTH, every=5), MEMBER, "visit of the month 3, needs every 5th", id="visit"),
        pytest.param(
            SpendSoFar(at_least_minor=20000), MEMBER, "spent before 123.45, needs at least 200.00", id="spent"
        ),
        pytest.param(
            SpendSoFar(at_least_minor=20000),
            None,
            "spent before of nobody (no member), needs at least 200.00",
            id="spent by nobody",
        ),
        pytest.param(MemberAge(below_days=10), MEMBER, "days as a member 29, needs less than 10", id="member age"),
        pytest.param(
            MemberAge(below_days=10), SHOPPER, "days as a member not known, needs less than 10", id="age not known"
        ),
        pytest.param(
            PaidBy(frozenset([TenderKind.CARD]), ("4",)), MEMBER, "paid by card 4 0.00, needs at least 0.01", id="card"
        ),
        pytest.param(
            BirthdayWindow(2, 1),
            SHOPPER,
            "birthday at another time, needs from 2 days before to 1 days after it",
            id="birthday",
        ),
        pytest.param(
            BirthdayWindow(2, 1),
            MEMBER,
            "birthday not known, needs from 2 days before to 1 days after it",
            id="birthday not known",
        ),
        pytest.param(
            InStores(frozenset("78"), frozenset(["rural"])),
            MEMBER,
            "store store-1 (group city), needs 7, 8 or group rural",
            id="store",
        ),
        pytest.param(OnChannels(frozenset(["app"])), MEMBER, "channel web, needs app", id="channel"),
        pytest.param(AtTerminals(frozenset([TerminalKind.LANE])), MEMBER, "terminal online, needs lane", id="terminal"),
        pytest.param(
            TimeWindow(frozenset([5, 6]), 480, 600),
            MEMBER,
            "time Mon 2026-03-02 12:00, needs Sat, Sun 08:00 to 10:00",
            id="hours",
        ),
        pytest.param(
            TimeWindow(last=date(2026, 3, 1)), MEMBER, "time Mon 2026-03-02 12:00, needs until 2026-03-01", id="dates"
        ),
        pytest.param(InTiers(frozenset(["", "silver"])), MEMBER, "level gold, needs none, silver", id="level"),
        pytest.param(InSegments(frozenset(["coffee"])), MEMBER, "segment none of them, needs coffee", id="segment"),
        pytest.param(
            InSegments(frozenset(["coffee"])),
            None,
            "segment of nobody (no member), needs coffee",
            id="segment of nobody",
        ),
        pytest.param(InClub("wine"), MEMBER, "membership of wine none, needs one", id="club"),
        pytest.param(
            CouponShown(frozenset("s"), frozenset("c")), MEMBER, "coupon HELLO, needs series s or code c", id="coupon"
        ),
        pytest.param(OfferMade(), MEMBER, "personal offer none, needs one", id="offer"),
        pytest.param(NotThat(InClub("tea")), MEMBER, "not (membership of tea one, needs one)", id="not"),
        pytest.param(
            AnyOf((OfferMade(), InClub("wine"))),
            MEMBER,
            "one of (personal offer none, needs one; membership of wine none, needs one)",
            id="any",
        ),
    ],
)
def test_conditions_in_words(condition: Condition, member: MemberFacts | None, text: str) -> None:
    facts = Facts(WORDED, WORDED.lines, member, USED)
    moment = Moment(facts, None, [1000, 2000, 700], 3700)
    found = answer(condition, Asked(moment, "a", lambda: [0], Style(2, 2)))
    assert (str(found), found.holds) == (text, False)


@pytest.mark.parametrize(
    ("goods", "text"),
    [
        pytest.param(Selector(), "all goods", id="all"),
        pytest.param(Selector(skus=frozenset("12"), brands=frozenset("B")), "SKU 1, 2 or brand B", id="either"),
        pytest.param(
            Selector(categories=frozenset("c"), suppliers=frozenset("s"), match_all=True),
            "category c and supplier s",
            id="both",
        ),
        pytest.param(
            Selector(tags=frozenset("t"), but_not=Selector(skus=frozenset("9"))), "tag t, but not SKU 9", id="but not"
        ),
        pytest.param(Selector(skus=frozenset("1234567")), "SKU 1, 2, 3, 4, 5 and 2 more", id="many"),
    ],
)
def test_goods_in_words(goods: Selector, text: str) -> None:
    assert goods_text(goods) == text
