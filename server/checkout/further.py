"""Further units in a quote: what gift or deposit points would pay, after the programme's own points."""

from __future__ import annotations

from collections.abc import Sequence

from tallypoint.v1 import common_pb2

from ledger.reading.balances import BalanceAt
from server.base.errors import invalid_field
from server.checkout.context import further_unit
from server.checkout.spending import units_that_pay
from server.promotions import Effects, PaidLine, Rules
from server.promotions.arithmetic import spread_largest_remainder


def further_payment(
    asked_units: Sequence[common_pb2.UnitPoints],
    rules: Rules,
    effects: Effects,
    balances: Sequence[BalanceAt] | None,
) -> tuple[list[common_pb2.UnitPoints], list[PaidLine]]:
    """Return how many points of each further unit would be spent, and how every line is then paid.

    They pay what is left of the payable lines after the programme's own points, in the order of the request, as far as
    the balance covers; ``balances`` None stands for a quote without a member.

    Raises:
        Refused: INVALID_REQUEST for a unit that the programme does not have.
    """
    room = sum(line.spendable_minor - line.points_money_minor for line in effects.lines)
    available = {balance.unit.code: balance.available_minor for balance in balances or ()}
    spent, money_minor = [], 0
    for index, asked in enumerate(asked_units):
        unit = further_unit(rules, asked.unit)
        if unit is None:
            known = ", ".join(one.point.unit for one in rules.programme.units) or "none"
            raise invalid_field(
                f"spend_units[{index}].unit", f"{asked.unit} is no further unit; the programme has {known}"
            )
        there = asked.points_minor if balances is None else min(asked.points_minor, available.get(asked.unit, 0))
        points, money = units_that_pay(there, unit.point.money_per_points, room - money_minor)
        if points > 0:
            spent.append(common_pb2.UnitPoints(unit=asked.unit, points_minor=points))
            available[asked.unit] = available.get(asked.unit, 0) - points
            money_minor += money
    return spent, _paid_lines(effects, effects.spent_money_minor + money_minor)


def _paid_lines(effects: Effects, money_minor: int) -> list[PaidLine]:
    """Spread what points of all units pay over the lines, as a Commit does."""
    payable = [line.payable_minor for line in effects.lines]
    parts = spread_largest_remainder(money_minor, payable, [line.spendable_minor for line in effects.lines])
    return [
        PaidLine(line.line_number, sum(part.amount_minor for part in line.discounts), part)
        for line, part in zip(effects.lines, parts, strict=True)
    ]
