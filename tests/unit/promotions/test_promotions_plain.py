"""Receipts that need one look at each line: the answer is the one that all steps give."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.promotions import (
    AmountOff,
    Audience,
    BasketDiscount,
    CouponFact,
    LineDiscount,
    MemberFacts,
    MessageText,
    OfferMade,
    PaidLine,
    PercentOff,
    Points,
    PointsFixed,
    PointsMultiplier,
    Programme,
    Promotion,
    ReceiptError,
    ReceiptFacts,
    ReceiptTotal,
    Usage,
    compile_rules,
    earn_as_paid,
)
from server.promotions.evaluate import rehearse, steps_as_paid
from server.promotions.plain import evaluate_plainly
from server.promotions.work import query_of
from tests.unit.promotions.builders import SHOPPER, line, promo, receipt, rules_of
from tests.unit.promotions.worlds import members, programmes, receipts, usages

TEN_OFF = promo("ten", line_discount=LineDiscount(PercentOff(Fraction(1, 10))))
TWICE = promo("twice", points=Points(PointsMultiplier(Fraction(2))))
BASKET = promo("big", basket_discount=BasketDiscount(AmountOff(5)))
TEXTS = (
    (),
    (MessageText(Audience.RECEIPT, {"": "You saved", "uk": "Ви заощадили"}),),
    (MessageText(Audience.VOICE, {"": "{name}: {discount} off, {points} points, level {tier}"}),),
)


# --- the same as all steps ---


def _without_rivals(promotion: Promotion, texts: tuple[MessageText, ...]) -> Promotion:
    """The line discount and the points of a promotion, for everybody and without limits."""
    return Promotion(
        promotion.id,
        promotion.name,
        promotion.scope,
        promotion.valid_from,
        promotion.valid_until,
        line_discount=promotion.line_discount,
        points=promotion.points,
        priority=promotion.priority,
        messages=texts,
    )


@st.composite
def _plain_programmes(draw: st.DrawFn) -> Programme:
    programme = draw(programmes(is_plain=True))
    promotions = [_without_rivals(one, draw(st.sampled_from(TEXTS))) for one in programme.promotions]
    earn_on_points, respect_floor = draw(st.booleans()), draw(st.booleans())
    return dataclasses.replace(
        programme,
        promotions=tuple(promotions),
        earning=dataclasses.replace(programme.earning, earn_on_points_paid=earn_on_points),
        spending=dataclasses.replace(programme.spending, respect_price_floor=respect_floor),
        control_share=Fraction(0),
    )


plain_receipts = receipts.map(
    lambda one: one._replace(lines=sorted(one.lines), coupons=(), local_at=one.local_at.replace(hour=12))
)
charges = st.lists(
    st.none() | st.tuples(st.integers(0, 900), st.sampled_from([0, 0, 1, 250])), min_size=5, max_size=5
)  # discount and points money of each line; None: the discount of the rules


@settings(deadline=None, max_examples=120)
@given(_plain_programmes(), plain_receipts, members, usages)
def test_a_plain_quote_is_what_all_steps_give(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    rules = compile_rules(programme, 1)
    plainly = evaluate_plainly(query_of(rules, receipt, member, usage))
    assume(plainly is not None)
    assert plainly == rehearse(rules, receipt, member, None, usage)[1]


@settings(deadline=None, max_examples=120)
@given(_plain_programmes(), plain_receipts, members, usages, charges)
def test_a_plain_receipt_as_paid_is_what_all_steps_give(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    usage: Usage | None,
    charged: list[tuple[int, int] | None],
) -> None:
    rules = compile_rules(programme, 1)
    quoted = rehearse(rules, receipt, member, None, usage)[1]
    paid = []
    for bought, effects, charge in zip(receipt.lines, quoted.lines, charged, strict=False):
        discount, points_money = charge or (bought.list_amount_minor - effects.payable_minor, 0)
        discount = min(discount, bought.list_amount_minor)
        points_money = min(points_money, bought.list_amount_minor - discount)
        paid.append(PaidLine(bought.line_number, discount, points_money))
    plainly = evaluate_plainly(query_of(rules, receipt, member, usage), paid)
    assume(plainly is not None)
    assert plainly == steps_as_paid(query_of(rules, receipt, member, usage), paid)
    assert plainly == earn_as_paid(rules, receipt, member, [tuple(one) for one in paid], usage)  # type: ignore[misc]  # of three


# --- which receipts are plain ---


@pytest.mark.parametrize(
    ("promotions", "member"),
    [
        pytest.param((TEN_OFF, TWICE), SHOPPER, id="discounts and points for all"),
        pytest.param((), None, id="no promotion, no member"),
        pytest.param((TEN_OFF,), SHOPPER._replace(can_earn=False, can_spend=False), id="may do nothing"),
        pytest.param(
            (TEN_OFF, dataclasses.replace(BASKET, when=ReceiptTotal(at_least_minor=10**6))),
            SHOPPER,
            id="a basket discount out of reach",
        ),
        pytest.param(
            (TEN_OFF, promo("mine", when=OfferMade(), line_discount=LineDiscount(AmountOff(5)))),
            SHOPPER._replace(offers=frozenset({"ended"})),
            id="an offer of nothing that is live",
        ),
    ],
)
def test_plain(promotions: tuple[Promotion, ...], member: MemberFacts | None) -> None:
    rules, bought = rules_of(*promotions), receipt(1000, 2000)
    plainly = evaluate_plainly(query_of(rules, bought, member, None))
    assert plainly is not None
    assert plainly == rehearse(rules, bought, member)[1]


@pytest.mark.parametrize(
    ("promotions", "head", "member"),
    [
        pytest.param((TEN_OFF,), {"lines": [line(2, 100), line(1, 100)]}, None, id="lines out of order"),
        pytest.param((TEN_OFF,), {"lines": [line(1, 100), line(1, 100)]}, None, id="a line twice"),
        pytest.param((TEN_OFF,), {"lines": [line(1, 100, quantity_milli=0)]}, None, id="no quantity"),
        pytest.param((TEN_OFF,), {"lines": [line(1, -1)]}, None, id="a negative price"),
        pytest.param((TEN_OFF,), {"coupons": (CouponFact("CODE"),)}, SHOPPER, id="a coupon"),
        pytest.param(
            (promo("mine", when=OfferMade(), line_discount=LineDiscount(AmountOff(5))),),
            {},
            SHOPPER._replace(offers=frozenset({"mine"})),
            id="an offer",
        ),
        pytest.param((dataclasses.replace(TEN_OFF, exclusive=True),), {}, SHOPPER, id="rivals"),
        pytest.param((promo("gift", points=Points(PointsFixed(9, "receipt"))),), {}, SHOPPER, id="points a receipt"),
        pytest.param((BASKET,), {}, SHOPPER, id="a basket discount"),
        pytest.param((dataclasses.replace(TEN_OFF, control_share=Fraction(1)),), {}, SHOPPER, id="a control group"),
    ],
)
def test_not_plain(promotions: tuple[Promotion, ...], head: dict[str, Any], member: MemberFacts | None) -> None:
    query = query_of(rules_of(*promotions), receipt(1000, 2000, **head), member, None)
    assert evaluate_plainly(query) is None


@pytest.mark.parametrize(
    "paid",
    [
        pytest.param([(1, 100, 0)], id="a line left out"),
        pytest.param([(2, 0, 0), (1, 0, 0)], id="in another order"),
        pytest.param([(1, -1, 0), (2, 0, 0)], id="a negative discount"),
        pytest.param([(1, 0, -1), (2, 0, 0)], id="negative points"),
        pytest.param([(1, 900, 101), (2, 0, 0)], id="more than the line costs"),
        pytest.param([(1, 0, 0), (3, 0, 0)], id="a line that is not there"),
    ],
)
def test_a_payment_that_does_not_fit_is_left_to_the_steps(paid: list[tuple[int, int, int]]) -> None:
    rules, bought = rules_of(TEN_OFF), receipt(1000, 2000)
    query = query_of(rules, bought, SHOPPER, None)
    assert evaluate_plainly(query, paid) is None
    try:
        expected = steps_as_paid(query, paid)
    except ReceiptError as error:
        with pytest.raises(ReceiptError, match=re.escape(str(error))):
            earn_as_paid(rules, bought, SHOPPER, paid)
    else:
        assert earn_as_paid(rules, bought, SHOPPER, paid) == expected


def test_a_variance_is_charged() -> None:
    query = query_of(rules_of(TEN_OFF, TWICE), receipt(1000, 2000), SHOPPER, None)
    paid = [(1, 100, 0), (2, 0, 300)]
    plainly = evaluate_plainly(query, paid)
    assert plainly == steps_as_paid(query, paid)
    assert plainly is not None
    assert plainly.variances == ((2, 200, 0),)
