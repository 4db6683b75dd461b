"""The answer to a quote, and what the cashier reads about points that other lanes hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache

from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.reading.balances import BalanceAt
from ledger.reading.lookups import HeldPoints
from server.checkout import contradictions
from server.checkout.notices import cashier_notice, notices_of
from server.checkout.presented import Presented
from server.checkout.promises import capped_messages, coupon_notices
from server.checkout.sale import Sale
from server.members.found import Found
from server.promotions import Effects, Rules
from server.promotions.messages import decimal_text
from server.rules.effects import ROOMS
from server.rules.receipt_lines import line_numbers
from server.rules.wire import LinesField

TAKE_OVER_TEXT = "Finish or cancel there, ask for fewer points, or take them over and give a reason."
"""What a cashier can do about points that another lane holds."""

_LINES = LinesField(checkout_pb2.QuoteResponse.LINES_FIELD_NUMBER)
_KEPT_SETTINGS = 64
_SHOWN_LANES = 3
_SECONDS_SHOWN = 120


def quote_response(
    receipt: common_pb2.Receipt,
    sale: Sale,
    effects: Effects,
    found: Found | None,
    balances: Sequence[common_pb2.Balance],
    available_minor: int,
    presented: Presented,
) -> checkout_pb2.QuoteResponse:
    """Return what the rules make of a receipt; a member can spend ``available_minor`` of the programme's points."""
    outcomes = presented.outcomes(effects)
    spending = sale.rules.programme.spending
    most_points = effects.max_spend_points_minor
    if found is not None:
        most_points = min(most_points, available_minor - available_minor % spending.step_points_minor)
    response = checkout_pb2.QuoteResponse(
        member=found.member.summary() if found else None,
        discount_minor=effects.discount_minor,
        payable_minor=effects.payable_minor,
        max_spend_points_minor=most_points,
        max_spend_money_minor=most_points // spending.step_points_minor * spending.step_money_minor,
        spend_points_minor=effects.spent_points_minor,
        spend_money_minor=effects.spent_money_minor,
        accrual_points_minor=effects.accrual_points_minor,
        balances=balances,
        notices=[
            *notices_of(effects.messages),
            *sale.shortcomings(),
            *contradictions.of_quote(receipt, sale, effects, presented),
            *coupon_notices(outcomes),
        ],
        programme_code=sale.rules.programme.code,
        programme_version=effects.programme_version,
        settings=_settings(effects.settings),
        coupons=outcomes,
        capped=capped_messages(effects),
        accrual_units=accruals_of_further_units(effects),
    )
    if found and effects.gave:
        for room in ROOMS.values():
            room.promise(response, effects)
    response.MergeFromString(_LINES.write(line_numbers(receipt, sale.facts), effects))
    return response


@lru_cache(_KEPT_SETTINGS)
def _settings(settings: tuple[tuple[str, str], ...]) -> tuple[common_pb2.NamedSetting, ...]:
    """Return the named settings of a version of the rules, which are the same in all its quotes."""
    return tuple(common_pb2.NamedSetting(name=name, value=value) for name, value in settings)


def accruals_of_further_units(effects: Effects) -> list[common_pb2.UnitPoints]:
    """Return the points of further units that a receipt would earn."""
    points: dict[str, int] = {}
    for line in effects.lines:
        for _, _, points_minor, unit, _ in line[6]:  # the accruals as rows, without names
            if unit:
                points[unit] = points.get(unit, 0) + points_minor
    return [common_pb2.UnitPoints(unit=unit, points_minor=amount) for unit, amount in points.items()]


def available_of(balances: Iterable[BalanceAt], rules: Rules) -> int:
    """Return what a member can spend of the programme's unit."""
    for balance in balances:
        if balance.unit.code == rules.programme.point.unit:
            return balance.available_minor
    return 0


def of_other_lanes(holds: Iterable[HeldPoints], store_id: str, terminal_id: str) -> list[HeldPoints]:
    """Return the holds of other lanes than this one."""
    return [hold for hold in holds if (hold.store_id, hold.terminal_id) != (store_id, terminal_id)]


def of_other_checkouts(holds: Iterable[HeldPoints], checkout_key: bytes) -> list[HeldPoints]:
    """Return the holds of other checkouts than this one, be they of the same lane."""
    return [hold for hold in holds if hold.checkout_key != checkout_key]


def held_elsewhere(holds: Iterable[HeldPoints], now: datetime) -> list[checkout_pb2.HeldElsewhere]:
    """Return holds as other lanes are told of them."""
    return [
        checkout_pb2.HeldElsewhere(
            store_id=hold.store_id,
            terminal_id=hold.terminal_id,
            points_minor=hold.points_minor,
            age_seconds=max(0, int((now - hold.held_at).total_seconds())),
        )
        for hold in holds
    ]


def held_elsewhere_text(elsewhere: Sequence[checkout_pb2.HeldElsewhere], precision: int) -> str:
    """Return where points are held, for a cashier: "Held at store 12, lane 3, 40 s ago: 5.00 points."."""
    places = [
        f"at store {hold.store_id}, lane {hold.terminal_id}, {_age(hold.age_seconds)} ago: "
        f"{decimal_text(hold.points_minor, precision)} points"
        for hold in elsewhere[:_SHOWN_LANES]
    ]
    more = f"; and at {len(elsewhere) - _SHOWN_LANES} more" if len(elsewhere) > _SHOWN_LANES else ""
    return f"Held {'; '.join(places)}{more}."


def held_elsewhere_notice(elsewhere: Sequence[checkout_pb2.HeldElsewhere], precision: int) -> list[common_pb2.Notice]:
    """Return the notice for the cashier about points that others hold, if they hold any."""
    if not elsewhere:
        return []
    text = held_elsewhere_text(elsewhere, precision)
    return [cashier_notice("HELD_ELSEWHERE", text)]


def _age(seconds: int) -> str:
    return f"{seconds} s" if seconds < _SECONDS_SHOWN else f"{seconds // 60} min"
