"""What points really pay of a receipt, judged under the fence: by the rules, by what the goods cost, by what is there.

The register has asked for some points, and the shopper has paid the rest; so nothing is refused any more. What goes
beyond the maximum is left out, with the reason, and is to be paid in money. Points of further units pay what the
programme's own leave of the goods: share, step and the last minor unit are terms of the programme's own point.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final, NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.model import Spend, Spendable, UnitSpend
from server.checkout.context import CommitContext, further_unit
from server.checkout.notices import cashier_notice
from server.promotions import Effects, MemberFacts, Rules
from server.promotions.arithmetic import spread_largest_remainder
from server.promotions.messages import decimal_text

_FORBIDDEN: Final = int(common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN)
_TOO_FEW: Final = int(common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT)
_ABOVE_SHARE: Final = int(common_pb2.REFUSAL_REASON_SPENDING_ABOVE_SHARE)
_ABOVE_GOODS: Final = int(common_pb2.REFUSAL_REASON_SPENDING_ABOVE_GOODS)
_EXCLUDED: Final = int(common_pb2.REFUSAL_REASON_SPENDING_GOODS_EXCLUDED)
_BROKEN_STEP: Final = int(common_pb2.REFUSAL_REASON_SPENDING_BROKEN_STEP)

LEFT_OUT_CODE: Final = "POINTS_LEFT_OUT"
_LEFT_OUT_TEXTS: Final[Mapping[int, str]] = {
    _FORBIDDEN: "this member may not spend yet",
    _TOO_FEW: "the balance did not cover them",
    _ABOVE_SHARE: "points may pay only a part of this receipt",
    _ABOVE_GOODS: "they are worth more than the goods cost",
    _EXCLUDED: "some of these goods may not be paid with points, or not below their lowest price",
    _BROKEN_STEP: "they make no whole step in which points are spent",
}
_NOT_HERE: Final = "points are not accepted in this store"


class Limit(NamedTuple):
    """What points may pay of a receipt as it was charged, by one version of the rules, whatever was asked for.

    ``most_points_minor`` are of the programme's own; ``lines_minor`` is the money of each line that points of all units
    together may pay, ``payable_minor`` what each costs, both in the order of line numbers.
    """

    rules: Rules
    most_points_minor: int
    lines_minor: tuple[int, ...]
    payable_minor: tuple[int, ...]

    @property
    def money_minor(self) -> int:
        """The money that points of all units together may pay."""
        return sum(self.lines_minor)

    def message(self) -> journal_pb2.SpendingLimit:
        """Return the limit as an entry keeps it."""
        return journal_pb2.SpendingLimit(
            programme_version=self.rules.version,
            max_points_minor=self.most_points_minor,
            max_line_money_minor=self.lines_minor,
        )


class Limits(NamedTuple):
    """The limit by the rules of the receipt's own time, and by those with which its checkout's hold was quoted."""

    of_receipt: Limit
    of_hold: Limit | None


class Payment(NamedTuple):
    """What points pay: of the programme's own, of each further unit asked for, and of each line in money, by number."""

    limit: Limit
    own: Spend | None
    further: tuple[UnitSpend, ...]
    lines_minor: tuple[int, ...]

    def units_money(self) -> list[common_pb2.UnitPoints]:
        """Return the money that each further unit paid."""
        return [
            common_pb2.UnitPoints(unit=each.unit.code, points_minor=money_of(each.spend))
            for each in self.further
            if each.spend.points_minor
        ]


def limit_of(rules: Rules, effects: Effects) -> Limit:
    """Return what points may pay, from the effects that rules have on a receipt as charged, for who may spend."""
    return Limit(
        rules,
        effects.max_spend_points_minor,
        tuple([line.spendable_minor for line in effects.lines]),
        tuple([line.payable_minor for line in effects.lines]),
    )


def as_spender(member: MemberFacts | None) -> MemberFacts | None:
    """Return a member as one who may spend: what a hold has kept may be spent, whatever became of the member since."""
    return member if member is None or member.can_spend else member._replace(can_spend=True)


def payment_of(
    request: checkout_pb2.CommitRequest, context: CommitContext, limits: Limits, points: Mapping[str, Spendable]
) -> Payment:
    """Return what points pay of a receipt; ``points`` has what is there of each unit asked for, by its code."""
    own_there = points.get(context.unit.code, Spendable(0))
    is_quoted = context.quoted_hold is not None and context.quoted_hold.number == own_there.hold_number
    limit = limits.of_hold if limits.of_hold is not None and is_quoted else limits.of_receipt
    forbidden = _forbidden(context, limit.rules)
    own = _spend_of_own_unit(request.spend_points_minor, limit, own_there, forbidden)
    room = limit.money_minor - (0 if own is None else money_of(own))
    left = {code: 0 if forbidden else each.available_minor for code, each in points.items()}
    further = []
    for asked in request.spend_units:
        spend = _spend_of_further_unit(
            asked, _rate(asked.unit, limit.rules, context.rules), limit, room, left[asked.unit]
        )
        if forbidden and spend.left_out_minor:
            spend = spend._replace(left_out_reason=forbidden)
        room -= money_of(spend)
        left[asked.unit] -= spend.points_minor
        further.append(UnitSpend(context.books.unit_named(asked.unit), spend))
    lines = spread_largest_remainder(limit.money_minor - room, limit.payable_minor, limit.lines_minor)
    return Payment(limit, own, tuple(further), tuple(lines))


def money_of(spend: Spend) -> int:
    """Return the money that points pay, in minor units."""
    return spend.points_minor * spend.rate_money_minor // spend.rate_points_minor


def _forbidden(context: CommitContext, rules: Rules) -> int:
    """Return why nothing beyond a hold may be spent, or zero."""
    member, partner = context.member, context.facts.partner
    may_spend = member is not None and member.can_spend
    return 0 if may_spend and (not partner or rules.accepts_points(partner)) else _FORBIDDEN


def _spend_of_own_unit(asked_minor: int, limit: Limit, there: Spendable, forbidden: int) -> Spend | None:
    """Return what is spent of the programme's own points: of those that a hold keeps first, in whole steps."""
    if not asked_minor:
        return None
    spending = limit.rules.programme.spending
    step = spending.step_points_minor
    wanted = min(asked_minor, limit.most_points_minor)
    wanted -= wanted % step
    points = min(wanted, there.held_minor + (0 if forbidden else there.available_minor))
    points -= points % step
    reason = 0
    if points < asked_minor and forbidden and asked_minor > there.held_minor:
        reason = forbidden
    elif points < wanted:
        reason = _TOO_FEW
    elif points < asked_minor:
        reason = _own_reason(asked_minor, limit)
    return Spend(
        points, step, spending.step_money_minor, step, left_out_minor=asked_minor - points, left_out_reason=reason
    )


def _own_reason(asked_minor: int, limit: Limit) -> int:
    """Return what keeps points that are there from being spent."""
    spending = limit.rules.programme.spending
    step_points, step_money = spending.step_points_minor, spending.step_money_minor
    most = limit.most_points_minor
    if asked_minor - asked_minor % step_points <= most:
        return _BROKEN_STEP
    total = sum(limit.payable_minor)
    goods = min(limit.money_minor, total - 1 if spending.keep_one_minor_unit else total)
    if most < max(goods, 0) // step_money * step_points:
        return _ABOVE_SHARE
    if limit.money_minor < total:
        return _EXCLUDED
    return _ABOVE_GOODS if asked_minor * step_money > total * step_points else _ABOVE_SHARE


def _spend_of_further_unit(
    asked: common_pb2.UnitPoints, rate: Fraction, limit: Limit, room_minor: int, there_minor: int
) -> Spend:
    """Return what is spent of a further unit: the fewest points that pay the money that they can."""
    points, money = units_that_pay(min(asked.points_minor, there_minor), rate, room_minor)
    reason = 0
    if points < asked.points_minor:
        wanted, _ = units_that_pay(asked.points_minor, rate, room_minor)
        reason = _TOO_FEW if points < wanted else _BROKEN_STEP
        if points == wanted and int(asked.points_minor * rate) > money:
            reason = _EXCLUDED if limit.money_minor < sum(limit.payable_minor) else _ABOVE_GOODS
    return Spend(
        points,
        1,
        rate.numerator,
        rate.denominator,
        left_out_minor=asked.points_minor - points,
        left_out_reason=reason,
    )


def units_that_pay(points_minor: int, rate: Fraction, room_minor: int) -> tuple[int, int]:
    """Return how many of so many points pay into a room, and the money: whole minor units, with no point to spare."""
    money = int(min(points_minor, int(room_minor / rate)) * rate)
    return -int(-money // rate), money


def _rate(code: str, judging: Rules, rules: Rules) -> Fraction:
    unit = further_unit(judging, code) or further_unit(rules, code)
    assert unit is not None, "units that the programme lacks are refused before"
    return unit.point.money_per_points


def left_out_notices(event: journal_pb2.Event) -> list[common_pb2.Notice]:
    """Return, for the cashier, which points asked for were not spent, and why.

    Without a member none were moved, which is said as a contradiction. Entries of older semantics get the texts that
    they always had.
    """
    settlement = event.settlement
    if not event.purchase.member_id:
        return []
    found = []
    told: list[checkout_pb2.Settlement | checkout_pb2.UnitSettlement] = [settlement]
    told += [unit for unit in settlement.units if unit.left_out_reason]
    for one in told:
        if one.left_out_points_minor:
            points = decimal_text(one.left_out_points_minor, one.balance.precision)
            name = "points" if one is settlement else f"{one.balance.unit} points"
            why = _reason_text(one.left_out_reason, event)
            text = f"{points} {name} were not spent: {why}. The receipt is booked; tell the shopper."
            found.append(cashier_notice(LEFT_OUT_CODE, text))
    return found


def _reason_text(reason: int, event: journal_pb2.Event) -> str:
    if reason == _FORBIDDEN and event.semantics and event.purchase.facts.can_spend:
        return _NOT_HERE
    return _LEFT_OUT_TEXTS.get(reason, _LEFT_OUT_TEXTS[_FORBIDDEN])
