"""Campaigns of a small made-up data set: what coupons are worth, where they are presented, and what they take off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import pandas as pd
import pytest

from benchmarks.replay import dataset
from benchmarks.replay.campaigns import UNKNOWN_AMOUNT_MINOR, Campaigns, Redemption, build_campaigns
from server.promotions import (
    CouponFact,
    MemberFacts,
    Programme,
    ReceiptFacts,
    ReceiptLine,
    compile_rules,
    load_programme,
    quote,
)

COUPON, OTHER_COUPON = 500, 501
BREAD, MILK, TEA = 1, 2, 3
ANNA, BORIS = 100, 200
NOON = "2017-03-02 17:00"  # on the data set's clock, UTC
DAY = "2017-03-02"


class Sold(NamedTuple):
    """A line of a basket; what the coupon took off is in dollars."""

    basket: int
    article: int
    coupon_disc: float = 0.0
    household: int = ANNA
    at: str = NOON


class Redeemed(NamedTuple):
    household: int = ANNA
    day: str = DAY
    coupon: int = COUPON
    campaign: int = 8


def campaigns(
    sold: Sequence[Sold],
    redeemed: Sequence[Redeemed] = (),
    coupons: Sequence[tuple[int, int, int]] = ((8, COUPON, BREAD),),
) -> Campaigns:
    """Build from tables like the published ones; `coupons` are campaign, coupon and article."""
    transactions = pd.DataFrame(
        {
            "household_id": [line.household for line in sold],
            "store_id": 300,
            "basket_id": [line.basket for line in sold],
            "product_id": [line.article for line in sold],
            "quantity": 1,
            "sales_value": 2.5,
            "coupon_disc": [line.coupon_disc for line in sold],
            "transaction_timestamp": pd.to_datetime([line.at for line in sold]),
        }
    )
    products = pd.DataFrame(
        {
            "product_id": [BREAD, MILK, TEA],
            "manufacturer_id": 7,
            "department": "GROCERY",
            "brand": "National",
            "product_category": "FOOD",
            "product_type": ["BREAD", "MILK", "TEA"],
            "package_size": "1 LB",
        }
    )
    numbers = sorted({campaign for campaign, _, _ in coupons})
    descriptions = pd.DataFrame(
        {
            "campaign_id": numbers,
            "start_date": pd.to_datetime(["2017-02-27"] * len(numbers)),
            "end_date": pd.to_datetime(["2017-04-02"] * len(numbers)),
        }
    )
    members = pd.DataFrame(
        [(number, who) for number in numbers for who in (BORIS, ANNA)], columns=["campaign_id", "household_id"]
    )
    redemptions = pd.DataFrame(
        {
            "household_id": [one.household for one in redeemed],
            "coupon_upc": [one.coupon for one in redeemed],
            "campaign_id": [one.campaign for one in redeemed],
            "redemption_date": pd.to_datetime([one.day for one in redeemed]),
        }
    )
    return build_campaigns(
        dataset.build(transactions, products),
        transactions,
        members,
        descriptions,
        pd.DataFrame(coupons, columns=["campaign_id", "coupon_upc", "product_id"]),
        redemptions,
    )


@pytest.mark.parametrize(
    ("coupon_discounts", "amount_minor"),
    [
        pytest.param([], UNKNOWN_AMOUNT_MINOR, id="nobody redeemed it: one dollar"),
        pytest.param([0.0], UNKNOWN_AMOUNT_MINOR, id="redeemed where nothing was taken off: one dollar"),
        pytest.param([0.75], 75, id="redeemed once"),
        pytest.param([2.0, 0.55, 0.75], 75, id="the median"),
        pytest.param([2.0, 0.55], 55, id="the lower of the two in the middle"),
    ],
)
def test_what_a_coupon_is_worth(coupon_discounts: list[float], amount_minor: int) -> None:
    days = [f"2017-03-{day:02d}" for day in range(1, len(coupon_discounts) + 1)]
    baskets = [
        Sold(number, BREAD, coupon_disc=discount, at=f"{day} 17:00")
        for number, (discount, day) in enumerate(zip(coupon_discounts, days, strict=True))
    ]
    made = campaigns([*baskets, Sold(99, MILK)], [Redeemed(day=day) for day in days])
    assert [offer.amount_minor for offer in made.offers] == [amount_minor]


def test_what_other_coupons_took_off_does_not_count() -> None:
    made = campaigns([Sold(1, BREAD, coupon_disc=0.4), Sold(1, MILK, coupon_disc=5)], [Redeemed()])
    assert [offer.amount_minor for offer in made.offers] == [40]


@pytest.mark.parametrize(
    ("sold", "basket"),
    [
        pytest.param([Sold(10, BREAD), Sold(11, BREAD, coupon_disc=0.5)], 11, id="where an article of it was reduced"),
        pytest.param([Sold(10, MILK, coupon_disc=0.5), Sold(11, BREAD)], 11, id="else where one was bought"),
        pytest.param([Sold(10, MILK), Sold(11, TEA, coupon_disc=0.5)], 11, id="else where any coupon counted"),
        pytest.param([Sold(10, MILK), Sold(11, TEA)], 10, id="else the first"),
        pytest.param([Sold(10, BREAD), Sold(11, BREAD)], 10, id="the first of two as likely"),
        pytest.param(
            [Sold(10, BREAD, coupon_disc=0.5, at="2017-03-01 17:00"), Sold(11, TEA)], 11, id="no basket of another day"
        ),
        pytest.param(
            [Sold(10, BREAD, coupon_disc=0.5, household=BORIS), Sold(11, TEA)], 11, id="no basket of somebody else"
        ),
        pytest.param(
            [Sold(10, BREAD, at="2017-03-02 04:00"), Sold(11, TEA, at="2017-03-03 04:00")],
            11,
            id="the day is the store's, not UTC's",
        ),
    ],
)
def test_the_basket_at_which_a_coupon_is_presented(sold: list[Sold], basket: int) -> None:
    assert campaigns(sold, [Redeemed()]).redemptions == (Redemption(f"CJ8-{COUPON}-{ANNA}", basket),)


def test_a_basket_presents_each_of_its_coupons_once() -> None:
    redeemed = [Redeemed(), Redeemed(), Redeemed(coupon=OTHER_COUPON)]
    made = campaigns([Sold(10, BREAD), Sold(10, MILK)], redeemed, [(8, COUPON, BREAD), (8, OTHER_COUPON, MILK)])
    assert len(made.redemptions) == 3
    assert made.presented() == {10: (f"CJ8-{COUPON}-{ANNA}", f"CJ8-{OTHER_COUPON}-{ANNA}")}


def test_a_coupon_of_two_campaigns_is_two_offers_and_every_household_gets_each() -> None:
    made = campaigns([Sold(10, BREAD)], coupons=[(9, COUPON, MILK), (8, COUPON, MILK), (8, COUPON, BREAD)])
    assert [(offer.series, offer.skus) for offer in made.offers] == [
        (f"cj-8-{COUPON}", (str(BREAD), str(MILK))),
        (f"cj-9-{COUPON}", (str(MILK),)),
    ]
    assert [codes for _, codes in made.personal_coupons()] == [
        [(f"CJ8-{COUPON}-{ANNA}", ANNA), (f"CJ8-{COUPON}-{BORIS}", BORIS)],
        [(f"CJ9-{COUPON}-{ANNA}", ANNA), (f"CJ9-{COUPON}-{BORIS}", BORIS)],
    ]


# --- the programme ----------------------------------------------------------------------------------------

BASE = """
programme: fresh
name: Fresh „Rewards“
effective_from: 2016-01-01
currency: USD
point: {unit: points, precision: 0, pays: 0.01}
campaigns: [{id: spring, name: Spring}]
promotions:
  - {id: tea-1, name: 10 cents off tea, scope: {skus: ["3"]}, line_discount: {amount: 0.10}, campaign: spring}
"""


@pytest.fixture
def programme() -> Programme:
    made = campaigns([Sold(10, BREAD, coupon_disc=0.75)], [Redeemed()], [(8, COUPON, BREAD), (8, COUPON, MILK)])
    loaded = load_programme(made.programme(BASE))
    assert isinstance(loaded, Programme), loaded
    return loaded


def test_the_campaigns_are_added_to_what_was_there(programme: Programme) -> None:
    assert (programme.name, programme.point.precision) == ("Fresh „Rewards“", 0)
    assert [campaign.id for campaign in programme.campaigns] == ["spring", "campaign-8"]
    own, coupon = programme.promotions
    assert (own.id, own.campaign) == ("tea-1", "spring")
    assert (coupon.id, coupon.campaign) == (f"cj-8-{COUPON}", "campaign-8")
    assert (coupon.valid_from, coupon.valid_until) == (date(2017, 2, 27), date(2017, 4, 2))


@pytest.mark.parametrize(
    ("coupons", "day", "discounts_minor"),
    [
        pytest.param([f"cj-8-{COUPON}"], "2017-03-02", [50, 25, 0], id="spread over the coupon's articles"),
        pytest.param([], "2017-03-02", [0, 0, 0], id="nothing without a coupon"),
        pytest.param([f"cj-9-{COUPON}"], "2017-03-02", [0, 0, 0], id="nothing for a coupon of another campaign"),
        pytest.param([f"cj-8-{COUPON}"], "2017-04-02", [50, 25, 0], id="on the campaign's last day"),
        pytest.param([f"cj-8-{COUPON}"], "2017-04-03", [0, 0, 0], id="nothing after it"),
    ],
)
def test_what_a_presented_coupon_takes_off(
    programme: Programme, coupons: list[str], day: str, discounts_minor: list[int]
) -> None:
    at = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    lines = [
        ReceiptLine(number, str(article), "", "", "", (), 1000, amount)
        for number, (article, amount) in enumerate([(BREAD, 200), (MILK, 100), (9, 100)], start=1)
    ]
    presented = [CouponFact(f"code of {series}", series) for series in coupons]
    effects = quote(compile_rules(programme, 1), ReceiptFacts("300", at, lines, coupons=presented), MemberFacts("anna"))
    assert [sum(part.amount_minor for part in line.discounts) for line in effects.lines] == discounts_minor


@pytest.mark.parametrize("text", ["", "- a list", "programme: [unclosed"])
def test_a_programme_that_cannot_be_read_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="not readable"):
        campaigns([Sold(10, BREAD)]).programme(text)
