"""Purchases of tests that spend points, settled under the fence as the checkout settles them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tallypoint.v1 import journal_pb2

from ledger.entry.model import FoundUnderFence, Purchase, Spend, Spendable
from server.promotions.arithmetic import spread_largest_remainder


def judged(command: Purchase) -> Purchase:
    """Return a purchase whose entry will say what points paid of each line; they may pay for all of the goods."""

    def plan(found: FoundUnderFence) -> Purchase:
        spends = [(command.unit.code, command.spend)] if command.spend else []
        spends += [(each.unit.code, each.spend) for each in command.further_spends]
        money_minor = sum(_money_of(spend, found.points[code]) for code, spend in spends)
        return replace(command, event=_paid_with(command.event, money_minor), plan=None)

    spends = command.member_id is not None and bool(command.spend or command.further_spends)
    return replace(command, plan=plan) if spends else command


def _money_of(spend: Spend, there: Spendable) -> int:
    points = min(spend.points_minor, there.held_minor + (0 if spend.forbidden else there.available_minor))
    return (points - points % spend.step_minor) * spend.rate_money_minor // spend.rate_points_minor


def _paid_with(payload: bytes, money_minor: int) -> bytes:
    """Spread what points paid over the lines of an event."""
    event = journal_pb2.Event.FromString(payload)
    costs: Mapping[int, int] = {
        line.line_number: line.list_amount_minor - line.discount_minor
        for line in event.purchase.receipt.lines
        if line.quantity_milli
    }
    numbers = sorted(costs)
    limits = [costs[number] for number in numbers]
    parts = dict(zip(numbers, spread_largest_remainder(money_minor, limits, limits), strict=True))
    for line in event.purchase.effects:
        line.points_money_minor = parts.get(line.line_number, 0)
    limit = event.purchase.spending_limit
    limit.programme_version, limit.max_points_minor = event.purchase.programme_version, 1 << 40
    limit.max_line_money_minor.extend(limits)
    return event.SerializeToString()
