"""What an answer says of limits, coupons, gifts and levels, as messages; the same in a quote and in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tallypoint.v1 import common_pb2, journal_pb2

from server.base.errors import reason_name
from server.checkout.notices import cashier_notice
from server.promotions import Effects, Standing
from server.promotions.facts import Given
from server.promotions.kinds import Measure, TierMeasure
from server.rules.effects import ROOMS

_MEASURES: Final[Mapping[Measure, common_pb2.LimitMeasure]] = {
    Measure.COUNT: common_pb2.LIMIT_MEASURE_COUNT,
    Measure.MONEY: common_pb2.LIMIT_MEASURE_MONEY,
    Measure.POINTS: common_pb2.LIMIT_MEASURE_POINTS,
}
_TIER_MEASURES: Final[Mapping[TierMeasure, common_pb2.TierMeasure]] = {
    TierMeasure.SPEND: common_pb2.TIER_MEASURE_SPEND,
    TierMeasure.VISITS: common_pb2.TIER_MEASURE_VISITS,
    TierMeasure.POINTS: common_pb2.TIER_MEASURE_POINTS,
}


def capped_messages(effects: Effects) -> Iterator[common_pb2.Capped]:
    """Return what limits cut."""
    for cut in effects.capped:
        yield common_pb2.Capped(
            promotion_id=cut.promotion_id,
            measure=_MEASURES[cut.measure],
            wanted=cut.wanted,
            granted=cut.granted,
            limit=cut.limit,
        )


def coupon_notices(outcomes: Iterable[common_pb2.CouponOutcome]) -> list[common_pb2.Notice]:
    """Return what the cashier has to be told of coupons that were not used."""
    return [
        cashier_notice(reason_name(outcome.reason), f"{outcome.code}: {outcome.text}")
        for outcome in outcomes
        if not outcome.used
    ]


def standing_message(standing: Standing) -> common_pb2.TierStanding:
    """Return a member's level and what is missing to the next."""
    return common_pb2.TierStanding(
        tier=standing.tier,
        name=standing.name,
        good_until=standing.good_until.isoformat() if standing.good_until else "",
        next_tier=standing.next_tier,
        next_name=standing.next_name,
        missing=standing.missing,
        measure=_TIER_MEASURES[standing.measure],
    )


def given_messages(effects: Effects) -> list[journal_pb2.Given]:
    """Return which goods a receipt's uses of limits and gifts rest on, as an entry keeps it."""
    return [_given_message(one) for one in effects.given]


def _given_message(one: Given) -> journal_pb2.Given:
    message = journal_pb2.Given(
        promotion_id=one.promotion_id,
        owners=one.owners,
        lines=[
            journal_pb2.GivenLine(
                line_number=line.line_number,
                units=line.units,
                money_minor=line.money_minor,
                points_minor=line.points,
                tier_points_minor=line.tier_points,
                base_minor=line.base_minor,
            )
            for line in one.lines
        ],
        once=one.once,
        least=[
            journal_pb2.LeastGoods(
                at_least=least.at_least,
                lines=[journal_pb2.LinePart(line_number=number, amount=amount) for number, amount in least.lines],
            )
            for least in one.least
        ],
    )
    for effect in one.effects:
        if type(effect) in ROOMS:
            ROOMS[type(effect)].rest(message, effect)
    return message
