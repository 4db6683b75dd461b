"""Points that a shopper buys: which line of the receipt sells them, so that they come back with it."""

from __future__ import annotations

from collections.abc import Sequence

from tallypoint.v1 import checkout_pb2, common_pb2

from server.base.errors import invalid_field
from server.checkout.context import unit_money
from server.promotions import Effects, LineEffects, Rules
from server.promotions.arithmetic import spread_largest_remainder


def check_deposit_lines(request: checkout_pb2.CommitRequest) -> None:
    """Check that the lines that are said to sell points are the receipt's.

    Raises:
        Refused: INVALID_REQUEST, naming the deposit.
    """
    sold = {line.line_number for line in request.receipt.lines if line.quantity_milli}
    for index, deposit in enumerate(request.deposits):
        if deposit.line_number and deposit.line_number not in sold:
            raise invalid_field(
                f"deposits[{index}].line_number", f"the receipt sells nothing on a line {deposit.line_number}"
            )


def deposit_lines(request: checkout_pb2.CommitRequest, rules: Rules, effects: Effects) -> list[common_pb2.UnitPoints]:
    """Return which points of a receipt's deposits which line sold.

    The register may name the line. Otherwise, if the tenders come to more than the lines by the deposit's money, that
    money came in beside the goods (change put on a card), and no line sold it. Otherwise the lines sold it that cannot
    be paid with points, as gift cards cannot; if there are none, all, in proportion to what they cost.
    """
    beside_minor = sum(tender.amount_minor for tender in request.receipt.tenders) - effects.payable_minor
    sellers = _sellers(effects.lines)
    found = []
    for deposit in request.deposits:
        money_minor = unit_money(rules, deposit)
        if deposit.line_number:
            found.append(deposit)
        elif request.receipt.tenders and 0 < money_minor <= beside_minor:
            beside_minor -= money_minor
        else:
            found += _spread(deposit, sellers)
    return found


def _sellers(lines: Sequence[LineEffects]) -> list[LineEffects]:
    paid = [line for line in lines if line.payable_minor]
    return [line for line in paid if not line.spendable_minor] or paid or list(lines)


def _spread(deposit: common_pb2.UnitPoints, lines: Sequence[LineEffects]) -> list[common_pb2.UnitPoints]:
    weights = [line.payable_minor or 1 for line in lines]
    parts = spread_largest_remainder(deposit.points_minor, weights)
    return [
        common_pb2.UnitPoints(unit=deposit.unit, points_minor=part, line_number=line.line_number)
        for line, part in zip(lines, parts, strict=True)
        if part
    ]
