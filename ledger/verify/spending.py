"""What points paid against what the goods allowed: proved from the entry alone, by plain sums.

Since semantics 1 an entry keeps the limit by which its spending was judged under the fence. Entries before that were
booked as the register asked; those that paid more than the goods were worth are known, and stay as they are.
"""

from __future__ import annotations

from tallypoint.v1 import journal_pb2

from ledger.entry.chain import EntryRecord
from ledger.entry.returns import overspent_minor, points_money_of
from ledger.entry.semantics import FIRST, SPENDING_AT_THE_FENCE
from ledger.verify.report import BadEntry, Known


def check_spending(event: journal_pb2.Event) -> None:
    """Hold what points paid of a purchase against the limit that its entry keeps, and against its lines.

    Raises:
        BadEntry: if they paid more than the goods or the programme allowed, or other lines than the entry says.
    """
    purchase, settlement = event.purchase, event.settlement
    parts = {line.line_number: line.points_money_minor for line in purchase.effects}
    paid_minor = points_money_of(settlement)
    if event.semantics == FIRST or not purchase.programme_version:  # no rules judged an entry without a version
        return
    if not (paid_minor or settlement.spent_points_minor or any(parts.values())):
        return
    if not purchase.HasField("spending_limit"):
        raise BadEntry("it spends points, and does not say how many the goods and the programme allowed")
    limit = purchase.spending_limit
    if settlement.spent_points_minor > limit.max_points_minor:
        raise BadEntry(f"it spends {settlement.spent_points_minor} points, and {limit.max_points_minor} were allowed")
    if sum(parts.values()) != paid_minor:
        raise BadEntry(f"points paid {paid_minor} of money, and {sum(parts.values())} of its lines")
    sold = sorted(
        (line.line_number, line.list_amount_minor - line.discount_minor)
        for line in purchase.receipt.lines
        if line.quantity_milli
    )
    if len(sold) != len(limit.max_line_money_minor):
        raise BadEntry(f"it limits {len(limit.max_line_money_minor)} lines, and {len(sold)} were sold")
    for (number, cost_minor), most_minor in zip(sold, limit.max_line_money_minor, strict=True):
        if not parts.get(number, 0) <= most_minor <= cost_minor:
            raise BadEntry(
                f"points paid {parts.get(number, 0)} of line {number}, which cost {cost_minor}, and {most_minor} were "
                "allowed"
            )


def known_overspending(entry: EntryRecord, event: journal_pb2.Event) -> list[Known]:
    """Return that an old purchase let points pay more than its goods allowed, if it did."""
    over_minor = overspent_minor(event)
    if not over_minor:
        return []
    key, paid_minor = event.purchase.receipt_key, points_money_of(event.settlement)
    what = (
        f"receipt {key.receipt_number} of {key.business_date}, store {key.store_id}, terminal {key.terminal_id}, let "
        f"points pay {paid_minor} (minor units of money) where its goods allowed {paid_minor - over_minor}; it was "
        "booked before the maximum was judged under the fence, and stays as booked: its returns give back the points "
        "and what was paid in money"
    )
    return [Known(entry.book, entry.number, SPENDING_AT_THE_FENCE, what)]
