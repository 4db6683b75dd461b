"""What receipts and returns do to a member's points, unit by unit.

A receipt may earn and spend points of several units: the programme's own, and further ones with balances of their own.
Time passes first for every account concerned, then points are spent, then granted, so that a receipt never spends what
it earns. Points of partners are granted from, and redeemed to, the partners' settlement accounts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import NamedTuple

from tallypoint.v1 import common_pb2

from ledger.entry.model import (
    Account,
    BookState,
    Grant,
    OpenHold,
    Purchase,
    Settlement,
    Spend,
    Unit,
)
from ledger.entry.movement import END_CAPTURED, Draft, Movement, open_hold, write_balance

# --- receipts -----------------------------------------------------------------------------------------------------


class _Spent(NamedTuple):
    """What was spent of one unit, and what was left out of what the shopper asked for."""

    captured_minor: int
    points_minor: int
    money_minor: int
    left_out_minor: int
    left_out_reason: int


def apply_purchase(
    state: BookState, command: Purchase, member_id: uuid.UUID, draft: Draft, settlement: Settlement
) -> None:
    """Spend and grant what a paid receipt says; it is never refused. Write into ``settlement`` what was done."""
    own = _begin(state, draft, member_id, command.unit)
    movements = {
        unit: _begin(state, draft, member_id, unit) for unit in _further_units(command) if unit != command.unit
    }
    further = {unit: settlement.units.add() for unit in movements}
    hold = None if command.checkout_key is None else open_hold(own.account, command.checkout_key)
    if command.spend is not None or hold is not None:
        _tell_spent(settlement, _spend(own, command.spend, hold, command.redeemed_account))
    for unit, spend in command.further_spends:
        spent = _spend(movements[unit], spend, None, command.redeemed_account)
        further[unit].spent_points_minor += spent.points_minor
        further[unit].spent_money_minor += spent.money_minor
        further[unit].left_out_points_minor += spent.left_out_minor
        if spent.left_out_reason:
            further[unit].left_out_reason = spent.left_out_reason  # type: ignore[assignment]  # an int
    for grant in command.grants:
        if grant.unit is None or grant.unit == command.unit:
            _grant(own, settlement, grant)
        else:
            movements[grant.unit].grant(grant, grant.account)
            further[grant.unit].accrual_points_minor += grant.points_minor
    own.close()
    write_balance(settlement, command.unit, own.account)
    for unit, movement in movements.items():
        movement.close()
        write_balance(further[unit], unit, movement.account)


def leave_out(command: Purchase, settlement: Settlement) -> None:
    """Write into ``settlement`` that a receipt without a member spends nothing of what was asked for."""
    if command.spend is not None:
        settlement.left_out_points_minor = command.spend.points_minor
        settlement.left_out_reason = command.spend.forbidden  # type: ignore[assignment]  # an int


def _further_units(command: Purchase) -> Iterable[Unit]:
    """Return the units that a receipt names, the programme's own perhaps among them, in order and each once."""
    units = [each.unit for each in command.further_spends]
    units += [grant.unit for grant in command.grants if grant.unit is not None]
    return dict.fromkeys(units)


def _begin(state: BookState, draft: Draft, member_id: uuid.UUID, unit: Unit) -> Movement:
    """Begin to move a member's points of a unit: time passes first."""
    key = (member_id, unit.number)
    account = state.accounts.get(key)
    if account is None:
        account = state.accounts[key] = Account(lots=[], holds=[])
    movement = Movement(draft, key, account)
    movement.pass_time()
    return movement


def _spend(movement: Movement, spend: Spend | None, hold: OpenHold | None, credit: int) -> _Spent:
    """Spend what the hold kept, then what is there. What the hold kept was promised: no status forbids it any more."""
    asked = 0 if spend is None else spend.points_minor
    step = 1 if spend is None else spend.step_minor
    wanted = asked - asked % step
    captured = 0 if hold is None else min(wanted, hold.points_minor)
    if hold is not None:
        movement.end_hold(hold, END_CAPTURED, captured, credit)
    forbidden = 0 if spend is None else spend.forbidden
    rest = 0 if forbidden else min(wanted - captured, movement.account.available_minor)
    rest -= (captured + rest) % step  # what a hold keeps is a multiple of the step already
    rest = max(rest, 0)
    movement.spend(rest, credit)
    spent = captured + rest
    money = 0 if spend is None else spent * spend.rate_money_minor // spend.rate_points_minor
    left_out, reason = (0, 0) if spend is None else (spend.left_out_minor, spend.left_out_reason)
    if spent < asked:
        reason = forbidden or int(common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT)
    return _Spent(captured, spent, money, left_out + asked - spent, reason)


def _tell_spent(settlement: Settlement, spent: _Spent) -> None:
    settlement.captured_points_minor = spent.captured_minor
    settlement.spent_points_minor = spent.points_minor
    settlement.spent_money_minor = spent.money_minor
    settlement.left_out_points_minor = spent.left_out_minor
    settlement.left_out_reason = spent.left_out_reason  # type: ignore[assignment]  # an int


def _grant(own: Movement, settlement: Settlement, grant: Grant) -> None:
    """Grant points of the programme's own unit."""
    paid = own.grant(grant, grant.account)
    settlement.accrual_points_minor += grant.points_minor
    if grant.active_at is not None and grant.active_at > own.draft.at:
        settlement.pending_points_minor += grant.points_minor
    if paid:
        settlement.debt_paid_points_minor += paid
