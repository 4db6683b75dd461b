"""What receipts and returns do to a member's points, unit by unit.

A receipt may earn and spend points of several units: the programme's own, and further ones with balances of their own.
Time passes first for every account concerned, then points are spent, then granted, so that a receipt never spends what
it earns. Points of partners are granted from, and redeemed to, the partners' settlement accounts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from tallypoint.v1 import common_pb2, journal_pb2

from ledger import returns, semantics
from ledger.model import (
    ISSUED,
    Account,
    BookState,
    Grant,
    Lot,
    LotTerms,
    OpenHold,
    Purchase,
    Refused,
    Return,
    Settlement,
    Spend,
    Unit,
)
from ledger.movement import END_CAPTURED, Draft, Movement, open_hold, spending_order, trial, write_balance
from ledger.returns import OWN, LotPart, PlannedPoints

# --- receipts -----------------------------------------------------------------------------------------------------


class _Spent(NamedTuple):
    """What was spent of one unit, and what was left out of what the shopper asked for."""

    captured_minor: int
    points_minor: int
    money_minor: int
    left_out_minor: int
    left_out_reason: int


def settle_purchase(
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
    """Spend what the hold kept, then what is there. What the hold kept is settled: no status can forbid it any more."""
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


# --- returns ------------------------------------------------------------------------------------------------------


class _Clawback(NamedTuple):
    """What became of points that were to be taken back."""

    taken_minor: int
    debt_minor: int
    waived_minor: int


def settle_return(
    state: BookState, command: Return, draft: Draft, purchase: journal_pb2.Event
) -> journal_pb2.Event | Refused:
    """Reverse what the goods had spent and earned, each unit's points in their own unit."""
    before = state.returned.get(command.purchase_number) or journal_pb2.ReturnedSoFar()
    began = before.semantics if before.lines else semantics.CURRENT
    plan = returns.plan_return(
        purchase, {line.line_number: line.quantity_milli for line in before.lines}, command.asked, began
    )
    if isinstance(plan, Refused):
        return plan
    settlement = Settlement(refund_points_minor=plan.refund_points_minor)
    planned, so_far = plan.points(), _so_far(before)
    for code in sorted({*planned, *so_far}):
        points, tally = planned.get(code, PlannedPoints(0, 0, {})), so_far.setdefault(code, _no_returns(code))
        tally.refund_points_minor += points.refund_minor
        tally.clawback_due_points_minor += points.clawback_minor
        if command.member_id is None:
            continue
        unit = command.units[code] if code else command.unit
        movement = trial(state, draft, (command.member_id, unit.number))
        _give_back_points(command, movement, purchase, points.refund_minor, tally)
        clawback = _claw_back(command, movement, purchase, points.partners, tally)
        movement.close()
        _tell_returned(settlement, unit, code, points.refund_minor, clawback, movement.account)
    told = _told(so_far, plan, began)
    draft.returned = (command.purchase_number, told)
    body = journal_pb2.GoodsReturn(
        lines=plan.lines,
        so_far=told,
        refund_money_minor=plan.refund_money_minor,
        coupon_codes=purchase.purchase.coupon_codes if plan.complete else (),
    )
    return journal_pb2.Event(goods_return=body, settlement=settlement)


def _no_returns(code: str) -> journal_pb2.UnitReturnedSoFar:
    return journal_pb2.UnitReturnedSoFar(unit=code)


def _so_far(before: journal_pb2.ReturnedSoFar) -> dict[str, journal_pb2.UnitReturnedSoFar]:
    """Return what earlier returns did by unit; the programme's own is always there."""
    own = journal_pb2.UnitReturnedSoFar(
        unit=OWN,
        refund_points_minor=before.refund_points_minor,
        clawback_due_points_minor=before.clawback_due_points_minor,
        clawback_taken_points_minor=before.clawback_taken_points_minor,
        clawback_debt_points_minor=before.clawback_debt_points_minor,
    )
    found = {OWN: own}
    for each in before.units:
        found[each.unit] = journal_pb2.UnitReturnedSoFar()
        found[each.unit].CopyFrom(each)
    return found


def _told(
    so_far: dict[str, journal_pb2.UnitReturnedSoFar], plan: returns.ReturnPlan, began: int
) -> journal_pb2.ReturnedSoFar:
    own = so_far[OWN]
    return journal_pb2.ReturnedSoFar(
        lines=plan.so_far,
        refund_points_minor=own.refund_points_minor,
        clawback_due_points_minor=own.clawback_due_points_minor,
        clawback_taken_points_minor=own.clawback_taken_points_minor,
        clawback_debt_points_minor=own.clawback_debt_points_minor,
        complete=plan.complete,
        units=[so_far[code] for code in sorted(so_far) if code],
        semantics=began,
    )


def _tell_returned(
    settlement: Settlement, unit: Unit, code: str, refund_minor: int, clawback: _Clawback, account: Account
) -> None:
    if code == OWN:
        settlement.clawback_points_minor = clawback.taken_minor
        settlement.clawback_debt_points_minor = clawback.debt_minor
        settlement.clawback_waived_points_minor = clawback.waived_minor
        write_balance(settlement, unit, account)
        return
    told = settlement.units.add(refund_points_minor=refund_minor, clawback_points_minor=clawback.taken_minor)
    write_balance(told, unit, account)


def _give_back_points(
    command: Return,
    movement: Movement,
    purchase: journal_pb2.Event,
    points_minor: int,
    so_far: journal_pb2.UnitReturnedSoFar,
) -> None:
    """Put points back to the lots that they were spent from, those that live longest first."""
    spent = returns.spent_lots(purchase, movement.key[1])
    for part in returns.next_parts(spent, so_far.refund_points_minor - points_minor, points_minor):
        terms = command.lots[(part.number, part.ordinal)]
        where = (movement.key, part.number, part.ordinal)
        emptied = movement.draft.lots.get(where) or movement.draft.earlier_lots.get(where)
        lot = Lot(
            part.number,
            part.ordinal,
            terms.granted_minor,
            0,
            pending=False,
            active_at=terms.active_at,
            expires_at=terms.expires_at,
            cached=emptied is not None and emptied.cached,
        )
        reopened = _reopened(command, movement, part, terms)
        movement.give_back(lot, part.points_minor, part.account, reopened=reopened)


def _reopened(command: Return, movement: Movement, part: LotPart, terms: LotTerms) -> Grant | None:
    if command.expired_grace_days == 0:
        return None
    expires_at = movement.draft.at + timedelta(days=command.expired_grace_days)
    return Grant(part.points_minor, None, expires_at, terms.issued_at)


def _claw_back(
    command: Return,
    movement: Movement,
    purchase: journal_pb2.Event,
    partners: Mapping[str, int],
    so_far: journal_pb2.UnitReturnedSoFar,
) -> _Clawback:
    """Take back what the goods had earned: from the purchase's own lots, then from others, then as a debt.

    What earlier returns of the purchase could not take is still due. The lots that the purchase spent come last, in
    the order in which returns fill them: so it makes no difference whether points are given back first or taken back.

    A partner is credited with all that it had granted for the goods, whatever the member still has: what is waived is
    the programme's loss. So partners' accounts do not depend on the order of returns either.
    """
    due = so_far.clawback_due_points_minor - so_far.clawback_taken_points_minor - so_far.clawback_debt_points_minor
    lots = _lots_to_take(command, movement, purchase)
    owes = command.clawback == journal_pb2.CLAWBACK_MODE_DEBT
    taken = debt = 0
    shares = sorted((command.partners[partner], points) for partner, points in partners.items())
    for account, share in (*shares, (ISSUED, due - sum(points for _, points in shares))):
        part = movement.take_back(lots, share, account)
        taken += part
        if part < share and owes:
            movement.owe(share - part, account)
            debt += share - part
        elif part < share and account != ISSUED:
            movement.make_good(share - part, ISSUED, account)
    so_far.clawback_taken_points_minor += taken
    so_far.clawback_debt_points_minor += debt
    return _Clawback(taken, debt, due - taken - debt)


def _lots_to_take(command: Return, movement: Movement, purchase: journal_pb2.Event) -> Sequence[tuple[int, int]]:
    """Return the lots from which points may be taken back, in order."""
    unit = movement.key[1]
    granted = set(returns.granted_lots(purchase, command.purchase_number, unit))
    lots = spending_order(movement.account.lots or ())
    own = [(lot.number, lot.ordinal) for lot in lots if (lot.number, lot.ordinal) in granted]
    if command.clawback == journal_pb2.CLAWBACK_MODE_OWN_LOT_ONLY:
        return own
    spent = [(part.number, part.ordinal) for part in returns.spent_lots(purchase, unit)]
    barred = {*own, *spent}
    others = [(lot.number, lot.ordinal) for lot in lots if not lot.pending and (lot.number, lot.ordinal) not in barred]
    return [*own, *others, *spent]
