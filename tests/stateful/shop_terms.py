"""The shop of the histories: its programme in several terms, its goods, and what is drawn for each step."""

from __future__ import annotations

from typing import Final, NamedTuple

from hypothesis import strategies as st
from tallypoint.v1 import common_pb2

MEMBERS: Final = 3

PROGRAMME: Final = """
programme: shop
name: Shop
effective_from: 2026-01-01
currency: UAH
point: {{unit: bonus, precision: 2, pays: {pays}}}
earning: {{base_percent: 10, pending_days: {pending}, expiry: {{after_days: 3}}, rounding_per: {rounding}}}
spending: {{{spending}}}
returns: {{{returns}}}
exclusions:
  no_earning: {{tags: [tobacco], categories: [gift-cards]}}
  no_discount: {{tags: [tobacco], categories: [gift-cards]}}
  no_points_payment: {{tags: [tobacco], categories: [gift-cards]}}
units:
  - {{unit: gift, name: Gift points, precision: 0, pays: 0.10}}
  - {{unit: card, name: Gift card, precision: 2, pays: 1.00, sold: true, expiry: {{after_days: 5}}}}
tiers: {{by: {tiers}, window: {{months: 1}}, levels: [{{code: silver, name: Silver, at_least: {silver}}}]}}
promotions:
  - {{id: third, name: Every third free, scope: {{skus: [milk]}}, units: {{every: 3, percent: 100}}}}
  - {{id: half, name: Bread at half price, when: {{coupon: {{series: [sorry]}}}}, scope: {{skus: [bread]}},
     line_discount: {{percent: 50}}}}
  - {{id: twice, name: Cheese twice a month, scope: {{skus: [cheese]}}, line_discount: {{amount: 1.00}},
     limits: [{{at_most: 2, of: count, for: member, each: month}}]}}
  - {{id: few, name: Points while they last, scope: {{skus: [milk]}}, points: {{fixed: 3.00}},
     limits: [{{at_most: 60.00, of: points, for: all}}]}}
  - {{id: later, name: A coupon for later, when: {{receipt_total: {{at_least: 20.00}}}},
     issue_coupon: {{series: sorry, valid_days: 5}}}}
  - {{id: presents, name: Gift points, scope: {{skus: [bread]}}, points: {{fixed: 2, unit: gift}}}}
  - {{id: silver, name: Silver earns more, when: {{tiers: [silver]}}, points: {{percent: 5}}}}
  - {{id: club, name: The club, scope: {{skus: [club]}}, club: {{name: friends, days: 4}}}}
  - {{id: friends, name: Friends pay less, when: {{club: friends}}, scope: {{skus: [bread, cheese]}},
     line_discount: {{percent: 10}}}}
  - {{id: car, name: A car, scope: {{skus: [cheese]}}, draw: {{name: car, entries: 2}}}}
"""


class Terms(NamedTuple):
    """What differs between the ledgers of these histories."""

    pays: str = "1.00"
    pending: int = 0
    spending: str = ""
    returns: str = "clawback: debt"
    rounding: str = "line"
    tiers: str = "points"
    silver: str = "5.00"

    @property
    def programme(self) -> str:
        """The programme file."""
        return PROGRAMME.format(**self._asdict())


TERMS: Final = (
    Terms(),
    Terms(pending=1, spending="max_share_percent: 40, step_points: 0.50", returns="clawback: within_balance"),
    Terms(
        pays="0.50",
        spending="keep_one_minor_unit: false, respect_price_floor: false",
        returns="clawback: own_lot_only, expired_lots: {grace_days: 2}",
        tiers="spend",
        silver="30.00",
    ),
    Terms(
        pays="2.00",
        spending="max_share_percent: 70",
        returns="clawback: off_the_refund",
        rounding="receipt",
        tiers="visits",
        silver="2",
    ),
)


class Sold(NamedTuple):
    """A line that a lane sells: the article, how many thousandths, its price, and its lowest price."""

    sku: str
    quantity_milli: int
    price_minor: int
    floor_minor: int


ARTICLES: Final = {
    "bread": "bakery",
    "club": "clubs",
    "milk": "dairy",
    "cheese": "dairy",
    "tobacco": "tobacco",
    "gc": "gift-cards",
}
lines = st.lists(
    st.builds(
        Sold,
        st.sampled_from(sorted(ARTICLES)),
        st.sampled_from([1000, 1000, 2000, 3000, 7000, 333, 1500]),
        st.integers(0, 3000),
        st.sampled_from([0, 0, 0, 150]),
    ),
    min_size=1,
    max_size=4,
)
points = st.sampled_from([0, 0, 1, 50, 99, 333, 1000, 5000, 10**12])
who = st.integers(0, MEMBERS - 1)
shoppers = st.sampled_from([*range(MEMBERS)] * 4 + [MEMBERS, None])
"""A member, the one who was merged last, or nobody."""
unit_points = st.lists(
    st.tuples(st.sampled_from(["gift", "card"]), st.sampled_from([1, 7, 100, 2500, 10**12])), max_size=2
)
discounts = st.sampled_from(["quoted", "quoted", "quoted", "none", "a tenth", "all"])
office_actions = st.sampled_from(
    ["grant"] * 5 + ["take"] + ["transfer"] * 3 + ["merge"] + ["close"] + ["free"] * 2 + ["earn only", "block"]
)
unit_codes = st.sampled_from(["", "", "gift", "card"])
STATUSES: Final = {
    "free": common_pb2.MEMBER_STATUS_ACTIVE,
    "earn only": common_pb2.MEMBER_STATUS_EARN_ONLY,
    "block": common_pb2.MEMBER_STATUS_BLOCKED,
}
checkouts = st.sampled_from(["", "", "a", "b"])
coupon_choices = st.sets(st.integers(0, 5), max_size=2)
