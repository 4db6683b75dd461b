"""What points pay, whatever is asked, there and allowed: never more, and a reason for all that is left out."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.entry.model import Spendable
from server.checkout.spending import Limit, Limits, money_of, payment_of, units_that_pay
from tests.unit.checkout.test_booking import MEMBER, Case, context_of
from tests.unit.promotions.builders import ONE_PERCENT, rules

UNITS = (
    "units:\n"
    "  - {unit: gift, name: Gifts, precision: 0, pays: 0.10}\n"
    "  - {unit: crumbs, name: Crumbs, precision: 2, pays: 0.30}\n"
)
RULES = rules(ONE_PERCENT + UNITS)
amounts = st.integers(0, 5_000)
line = st.tuples(amounts, amounts).map(lambda pair: (max(pair), min(pair)))
"""What a line costs, and what of it points may pay."""


@given(points=st.integers(0, 200), room=st.integers(0, 300), rate=st.fractions(Fraction(1, 20), 20, max_denominator=20))
def test_the_fewest_points_that_pay_what_can_be_paid(points: int, room: int, rate: Fraction) -> None:
    """Compared with trying every number of points whose worth has room."""
    pays = [int(each * rate) for each in range(points + 1) if each * rate <= room]
    assert units_that_pay(points, rate, room) == (pays.index(max(pays)), max(pays))


@given(
    asked=amounts,
    lines=st.lists(line, min_size=1, max_size=4),
    most=amounts,
    own=st.tuples(amounts, amounts),
    units=st.lists(st.tuples(st.sampled_from(["gift", "crumbs"]), st.integers(1, 5_000)), max_size=3),
    there=st.fixed_dictionaries({"gift": amounts, "crumbs": amounts}),
)
def test_all_units_together_stay_within_the_limit(
    asked: int,
    lines: list[tuple[int, int]],
    most: int,
    own: tuple[int, int],
    units: list[tuple[str, int]],
    there: dict[str, int],
) -> None:
    request = checkout_pb2.CommitRequest(
        spend_points_minor=asked,
        spend_units=[common_pb2.UnitPoints(unit=unit, points_minor=points) for unit, points in units],
    )
    payable, limits = (tuple(column) for column in zip(*lines, strict=True))
    limit = Limit(RULES, min(most, sum(limits)), limits, payable)
    points = {"bonus": Spendable(*own), **{unit: Spendable(left) for unit, left in there.items()}}
    context = context_of(Case(UNITS, shopper=MEMBER), request, RULES)
    payment = payment_of(request, context, Limits(limit, None), points)
    spends = [*([payment.own] if payment.own else []), *(each.spend for each in payment.further)]
    assert sum(payment.lines_minor) == sum(map(money_of, spends)) <= sum(limits)
    assert all(0 <= part <= most_minor for part, most_minor in zip(payment.lines_minor, limits, strict=True))
    wanted = [*([asked] if asked else []), *(points for _, points in units)]
    for spend, each in zip(spends, wanted, strict=True):
        assert spend.points_minor + spend.left_out_minor == each
        assert bool(spend.left_out_minor) == bool(spend.left_out_reason)
    if payment.own is not None:
        assert payment.own.points_minor <= min(limit.most_points_minor, sum(own))
    for unit, left in there.items():
        spent = sum(each.spend.points_minor for each in payment.further if each.unit.code == unit)
        assert spent <= left
