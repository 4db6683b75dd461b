"""Returns against what was bought: by plain sums, another way than the one by which returns are worked out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tallypoint.v1 import journal_pb2

from ledger.verify.report import BadEntry


@dataclass(slots=True)
class _Returned:
    """What became of one purchase by its returns so far."""

    quantities_milli: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    money_minor: int = 0
    refund_points_minor: int = 0
    clawback_due_points_minor: int = 0
    clawback_taken_points_minor: int = 0
    clawback_debt_points_minor: int = 0


class ReturnChecks:
    """Follows the returns of purchases, in order, each from its first on."""

    def __init__(self) -> None:
        self._returned: dict[int, _Returned] = defaultdict(_Returned)

    def check(self, event: journal_pb2.Event, purchase: journal_pb2.Event | None) -> None:
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
        for line in body.lines:
            so_far.quantities_milli[line.line_number] += line.quantity_milli
        money = sum(line.list_amount_minor - line.discount_minor - line.points_money_minor for line in body.lines)
        if money != body.refund_money_minor:
            raise BadEntry(f"it gives back {body.refund_money_minor} of money, and its lines {money}")
        refund = sum(line.refund_points_minor for line in body.lines)
        if refund != settlement.refund_points_minor:
            raise BadEntry(f"it gives back {settlement.refund_points_minor} points, and its lines {refund}")
        so_far.money_minor += money
        so_far.refund_points_minor += refund
        so_far.clawback_due_points_minor += sum(line.clawback_points_minor for line in body.lines)
        so_far.clawback_taken_points_minor += settlement.clawback_points_minor
        so_far.clawback_debt_points_minor += settlement.clawback_debt_points_minor
        _check_sums(body.so_far, so_far)
        waived = (
            so_far.clawback_due_points_minor - so_far.clawback_taken_points_minor - so_far.clawback_debt_points_minor
        )
        if waived != settlement.clawback_waived_points_minor or waived < 0:
            raise BadEntry(f"it waives {settlement.clawback_waived_points_minor} points, and the sums say {waived}")
        _check_limits(body.so_far, so_far, purchase)


def _check_sums(told: journal_pb2.ReturnedSoFar, so_far: _Returned) -> None:
    """What a return says of all returns is what they add up to."""
    if {line.line_number: line.quantity_milli for line in told.lines} != so_far.quantities_milli:
        raise BadEntry("the quantities that it says came back so far are not those of all returns")
    for name in (
        "refund_points_minor",
        "clawback_due_points_minor",
        "clawback_taken_points_minor",
        "clawback_debt_points_minor",
    ):
        if getattr(told, name) != getattr(so_far, name):
            raise BadEntry(
                f"it says that {name} is {getattr(told, name)} so far, and all returns say {getattr(so_far, name)}"
            )


def _check_limits(told: journal_pb2.ReturnedSoFar, so_far: _Returned, purchase: journal_pb2.Event) -> None:
    """No more comes back than was bought, and exactly what was bought when all of it came back."""
    sold = [line for line in purchase.purchase.receipt.lines if line.quantity_milli]
    quantities = {line.line_number: line.quantity_milli for line in sold}
    for number, quantity_milli in so_far.quantities_milli.items():
        if not 0 < quantity_milli <= quantities.get(number, 0):
            raise BadEntry(
                f"{quantity_milli} thousandths of line {number} came back in all, "
                f"and {quantities.get(number, 0)} were bought"
            )
    paid = sum(line.list_amount_minor - line.discount_minor for line in sold) - purchase.settlement.spent_money_minor
    spent, earned = purchase.settlement.spent_points_minor, purchase.settlement.accrual_points_minor
    limits = (
        ("money", so_far.money_minor, paid),
        ("points spent", so_far.refund_points_minor, spent),
        ("points earned", so_far.clawback_due_points_minor, earned),
    )
    for name, returned, limit in limits:
        if not 0 <= returned <= limit:
            raise BadEntry(f"{returned} of {name} came back in all, and there were {limit}")
    complete = so_far.quantities_milli == quantities
    if complete != told.complete:
        raise BadEntry(f"it says that {'nothing' if told.complete else 'something'} is left to return, wrongly")
    if complete and (so_far.money_minor, so_far.refund_points_minor) != (paid, spent):
        raise BadEntry(
            f"all goods came back, for {so_far.money_minor} of {paid} money and {so_far.refund_points_minor} "
            f"of {spent} points"
        )
