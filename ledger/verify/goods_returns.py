"""Returns against what was bought: by plain sums, another way than the one by which returns are worked out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.model import DEBT, Unit
from ledger.returns import points_money_returned
from ledger.semantics import FIRST
from ledger.verify.report import BadEntry
from ledger.verify.spending import overspent_minor

_OWN: Final = ""
"""Stands for the programme's own point among units."""


@dataclass(slots=True)
class _Points:
    """What became of a purchase's points of one unit by its returns so far."""

    refund_points_minor: int = 0
    clawback_due_points_minor: int = 0
    clawback_taken_points_minor: int = 0
    clawback_debt_points_minor: int = 0

    @property
    def waived_minor(self) -> int:
        """What should have been taken back, and was not."""
        return self.clawback_due_points_minor - self.clawback_taken_points_minor - self.clawback_debt_points_minor


_FIGURES: Final = tuple(_Points.__dataclass_fields__)


@dataclass(slots=True)
class _Returned:
    """What became of one purchase by its returns so far; ``points`` by the unit's code.

    ``semantics`` is that of the first return, by which all others split the purchase.
    """

    semantics: int | None = None
    quantities_milli: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    money_minor: int = 0
    points: dict[str, _Points] = field(default_factory=lambda: defaultdict(_Points, {_OWN: _Points()}))


class ReturnChecks:
    """Follows the returns of purchases, in order, each from its first on."""

    def __init__(self) -> None:
        self._returned: dict[int, _Returned] = defaultdict(_Returned)

    def check(self, event: journal_pb2.Event, purchase: journal_pb2.Event | None, units: Mapping[str, Unit]) -> None:
        """Check the next return, given the payload of the entry that it names as its purchase.

        Raises:
            BadEntry: if it does not belong to that purchase, its sums are wrong, or more comes back than was bought.
        """
        body, settlement = event.goods_return, event.settlement
        if purchase is None or not purchase.HasField("purchase"):
            raise BadEntry(f"it returns goods of entry {body.purchase_number}, which is no purchase before it")
        bought = purchase.purchase
        if (bought.receipt_key, bought.member_id) != (body.purchase_key, body.member_id):
            raise BadEntry(f"it returns goods of entry {body.purchase_number}, which is another receipt or member")
        so_far = self._returned[body.purchase_number]
        if so_far.semantics is None:
            so_far.semantics = event.semantics
        if body.so_far.semantics != so_far.semantics:
            raise BadEntry(
                f"it splits the purchase by semantics {body.so_far.semantics}, and the first return by "
                f"{so_far.semantics}"
            )
        for line in body.lines:
            so_far.quantities_milli[line.line_number] += line.quantity_milli
        money = sum(line.list_amount_minor - line.discount_minor - line.points_money_minor for line in body.lines)
        if money != body.refund_money_minor:
            raise BadEntry(f"it gives back {body.refund_money_minor} of money, and its lines {money}")
        so_far.money_minor += money
        told: dict[str, checkout_pb2.Settlement | checkout_pb2.UnitSettlement] = {_OWN: settlement}
        told |= {each.balance.unit: each for each in settlement.units}
        codes = {part.unit for line in body.lines for part in line.units}
        for code in sorted(codes | told.keys()):
            if code not in told:
                raise BadEntry(f"its lines move points {code!r}, and its settlement does not")
            unit = units.get(code or settlement.balance.unit)
            _add(event, code, unit.number if unit else 0, told[code], so_far.points[code])
        _check_sums(body.so_far, so_far)
        waived = so_far.points[_OWN].waived_minor
        if waived != settlement.clawback_waived_points_minor:
            raise BadEntry(f"it waives {settlement.clawback_waived_points_minor} points, and the sums say {waived}")
        _check_limits(body.so_far, so_far, purchase)


def _add(
    event: journal_pb2.Event,
    code: str,
    unit: int,
    told: checkout_pb2.Settlement | checkout_pb2.UnitSettlement,
    points: _Points,
) -> None:
    """Add what a return did to the points of one unit."""
    refund = due = 0
    for line in event.goods_return.lines:
        parts: list[journal_pb2.LineReturn | journal_pb2.UnitReturn] = [line]
        if code != _OWN:
            parts = [part for part in line.units if part.unit == code]
        refund += sum(part.refund_points_minor for part in parts)
        due += sum(part.clawback_points_minor for part in parts)
    if refund != told.refund_points_minor:
        raise BadEntry(f"it gives back {told.refund_points_minor} points, and its lines {refund}")
    points.refund_points_minor += refund
    points.clawback_due_points_minor += due
    points.clawback_taken_points_minor += told.clawback_points_minor
    points.clawback_debt_points_minor += sum(
        posting.points_minor for posting in event.postings if posting.debit == DEBT and posting.unit == unit
    )


def _check_sums(told: journal_pb2.ReturnedSoFar, so_far: _Returned) -> None:
    """What a return says of all returns is what they add up to."""
    if {line.line_number: line.quantity_milli for line in told.lines} != so_far.quantities_milli:
        raise BadEntry("the quantities that it says came back so far are not those of all returns")
    by_unit: dict[str, journal_pb2.ReturnedSoFar | journal_pb2.UnitReturnedSoFar] = {_OWN: told}
    by_unit |= {each.unit: each for each in told.units}
    if by_unit.keys() != so_far.points.keys():
        raise BadEntry(f"it tells of points {sorted(by_unit)}, and all returns moved points {sorted(so_far.points)}")
    for code, points in so_far.points.items():
        for name in _FIGURES:
            figure, expected = getattr(by_unit[code], name), getattr(points, name)
            if figure != expected:
                raise BadEntry(f"it says that {name} is {figure} so far, and all returns say {expected}")


def _check_limits(told: journal_pb2.ReturnedSoFar, so_far: _Returned, purchase: journal_pb2.Event) -> None:
    """No more comes back than was bought, and exactly what was bought when all of it came back."""
    settlement = purchase.settlement
    sold = [line for line in purchase.purchase.receipt.lines if line.quantity_milli]
    quantities = {line.line_number: line.quantity_milli for line in sold}
    for number, quantity_milli in so_far.quantities_milli.items():
        if not 0 < quantity_milli <= quantities.get(number, 0):
            raise BadEntry(
                f"{quantity_milli} thousandths of line {number} came back in all, "
                f"and {quantities.get(number, 0)} were bought"
            )
    goods = sum(line.list_amount_minor - line.discount_minor for line in sold)
    paid = goods - _paid_with_points(purchase, goods, so_far.semantics or 0)
    by_unit = {unit.balance.unit: (unit.spent_points_minor, unit.accrual_points_minor) for unit in settlement.units}
    by_unit[_OWN] = (settlement.spent_points_minor, settlement.accrual_points_minor)
    limits = [("money", so_far.money_minor, paid)]
    for code, points in so_far.points.items():
        spent, earned = by_unit.get(code, (0, 0))
        limits += [
            ("points spent", points.refund_points_minor, spent),
            ("points earned", points.clawback_due_points_minor, earned),
            ("points due", points.clawback_due_points_minor - points.waived_minor, points.clawback_due_points_minor),
        ]
    for name, returned, limit in limits:
        if not 0 <= returned <= limit:
            raise BadEntry(f"{returned} of {name} came back in all, and there were {limit}")
    complete = so_far.quantities_milli == quantities
    if complete != told.complete:
        raise BadEntry(f"it says that {'nothing' if told.complete else 'something'} is left to return, wrongly")
    if complete:
        _check_whole(so_far, paid, {code: spent for code, (spent, _) in by_unit.items()})


def _paid_with_points(purchase: journal_pb2.Event, goods_minor: int, semantics: int) -> int:
    """Return the money of the goods that points paid: more than they cost only before spending was judged.

    Returns of the first semantics gave back what points had paid beyond the lines that they were meant for; where they
    did, they are held against what they reversed then.
    """
    settlement = purchase.settlement
    paid = settlement.spent_money_minor + sum(unit.spent_money_minor for unit in settlement.units)
    if purchase.semantics == FIRST and semantics == FIRST and overspent_minor(purchase):
        return points_money_returned(purchase, FIRST)
    return min(paid, goods_minor) if purchase.semantics == FIRST else paid


def _check_whole(so_far: _Returned, paid_minor: int, spent_minor: Mapping[str, int]) -> None:
    """All goods came back, so all that was paid for them did."""
    refunds = {code: so_far.points[code].refund_points_minor if code in so_far.points else 0 for code in spent_minor}
    if so_far.money_minor != paid_minor or refunds != spent_minor:
        raise BadEntry(
            f"all goods came back, for {so_far.money_minor} of {paid_minor} money and "
            + ", ".join(f"{refunds[code]} of {spent_minor[code]} points" for code in sorted(spent_minor))
        )
