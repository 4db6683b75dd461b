"""What a return does to a member's points: spent ones go back to their lots, earned and bought ones are taken back.

What a purchase granted of one unit is a **purse**: the points earned on its goods are one, those that it sold (a gift
card, a deposit) another. Of the points of a purse that are due

1. what is left in the purse's own lots is taken back first;
2. what has lapsed out of them, or was taken out of them by hand, is let go: nobody owes what is gone;
3. then come the member's other lots, and those that the purchase had spent;
4. what is still missing is kept back from the money to give back (always for points that were bought), becomes a debt,
   or is waived, as the clawback mode says.

All of it is a function of how much was due, lapsed and there in all, so the order of returns makes no difference.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.entry import returns, semantics
from ledger.entry.accounts import LOST
from ledger.entry.model import ISSUED, BookState, Declined, Grant, Lot, LotTerms, Return, Settlement, Unit
from ledger.entry.movement import Draft, Movement, spending_order, trial, write_balance
from ledger.entry.returns import OWN, LotPart, PlannedPoints

DEBT = int(journal_pb2.CLAWBACK_MODE_DEBT)
OWN_LOT_ONLY = int(journal_pb2.CLAWBACK_MODE_OWN_LOT_ONLY)
OFF_THE_REFUND = int(journal_pb2.CLAWBACK_MODE_OFF_THE_REFUND)

_LotPlace = tuple[int, int]
_SoFar = journal_pb2.UnitReturnedSoFar


@dataclass(slots=True)
class _Clawback:
    """What became of points that were to be taken back; ``money_minor`` was kept back for ``kept_back_minor``."""

    taken_minor: int = 0
    lapsed_minor: int = 0
    kept_back_minor: int = 0
    debt_minor: int = 0
    waived_minor: int = 0
    money_minor: int = 0

    def add(self, other: _Clawback) -> None:
        """Add what became of another purse's points."""
        self.taken_minor += other.taken_minor
        self.lapsed_minor += other.lapsed_minor
        self.kept_back_minor += other.kept_back_minor
        self.debt_minor += other.debt_minor
        self.waived_minor += other.waived_minor
        self.money_minor += other.money_minor


class _Purse(NamedTuple):
    """What a purchase granted of a unit in one way, and what becomes of it.

    ``own`` are its lots, ``others`` those that come after them; ``lost_minor`` has gone out of its own lots for good.
    ``shares`` are the accounts that are credited, with how much of what is due each.
    """

    mode: int
    own: Sequence[_LotPlace]
    others: Sequence[_LotPlace]
    lost_minor: int
    shares: Sequence[tuple[int, int]]
    rate: tuple[int, int]


class _Refund:
    """A return in the making: what is planned, and what was done so far by unit.

    ``earned`` and ``sold`` are what became of the purchase's points of each unit by all returns, this one included;
    ``room_minor`` is the money that can still be kept back.
    """

    def __init__(
        self, command: Return, purchase: journal_pb2.Event, before: journal_pb2.ReturnedSoFar, plan: returns.ReturnPlan
    ) -> None:
        self.command = command
        self.purchase = purchase
        self.planned = plan.points()
        self.earned, self.sold = _so_far(before)
        self.room_minor = plan.money_minor
        for code, points in self.planned.items():
            tally = self.earned.setdefault(code, _SoFar(unit=code))
            tally.refund_points_minor += points.refund_minor
            tally.clawback_due_points_minor += points.clawback_minor
        for code, points_minor in plan.deposits().items():
            self.sold.setdefault(code, _SoFar(unit=code)).clawback_due_points_minor += points_minor
            self.earned.setdefault(code, _SoFar(unit=code))
        self.clawbacks = {code: _Clawback() for code in self.codes}
        self.movements: dict[str, Movement] = {}
        self.lost: Mapping[_LotPlace, int] = {}

    @property
    def codes(self) -> list[str]:
        """The units concerned, by their codes."""
        return sorted(self.earned)

    def unit(self, code: str) -> Unit:
        """Return the unit with a code."""
        return self.command.units[code] if code else self.command.unit

    def points(self, code: str) -> PlannedPoints:
        """Return what this return reverses of a unit."""
        return self.planned.get(code, PlannedPoints(0, 0, {}))


def apply_return(
    state: BookState, command: Return, draft: Draft, purchase: journal_pb2.Event
) -> journal_pb2.Event | Declined:
    """Reverse what the goods had spent, earned and sold, each unit's points in their own unit."""
    before = state.returned.get(command.purchase_number) or journal_pb2.ReturnedSoFar()
    returned = {line.line_number: line.quantity_milli for line in before.lines}
    began = before.semantics if before.lines else semantics.CURRENT
    plan = returns.plan_return(purchase, returned, command.asked, began)
    if isinstance(plan, Declined):
        return plan
    refund = _Refund(command, purchase, before, plan)
    settlement = Settlement(refund_points_minor=plan.refund_points_minor)
    if command.member_id is not None:
        _move_points(state, command.member_id, draft, refund)
        for code in refund.codes:
            refund.movements[code].close()
            _tell_returned(settlement, refund, code)
    told = _returned_so_far(refund, plan, began)
    draft.returned = (command.purchase_number, told)
    kept_back = sum(clawback.money_minor for clawback in refund.clawbacks.values())
    body = journal_pb2.GoodsReturn(
        lines=plan.lines,
        so_far=told,
        refund_money_minor=plan.money_minor - kept_back,
        kept_back_money_minor=kept_back,
    )
    return journal_pb2.Event(goods_return=body, settlement=settlement)


def _move_points(state: BookState, member_id: uuid.UUID, draft: Draft, refund: _Refund) -> None:
    """Give back what was spent, then take back what was sold and what was earned, in this order for all units.

    What was sold comes first, since money that somebody paid for points goes before what a programme lets earn.
    """
    for code in refund.codes:
        movement = trial(state, draft, (member_id, refund.unit(code).number))
        refund.movements[code] = movement
        _give_back_points(refund, code)
    refund.lost = _lost(state, refund.command, draft)
    for code in sorted(refund.sold):
        _claw_back(refund, code, _sold_purse(refund, code), refund.sold[code])
    for code in refund.codes:
        _claw_back(refund, code, _earned_purse(refund, code), refund.earned[code])


# --- what earlier returns did ---------------------------------------------------------------------------------------


def _so_far(before: journal_pb2.ReturnedSoFar) -> tuple[dict[str, _SoFar], dict[str, _SoFar]]:
    """Return what earlier returns did by unit, to points earned (the programme's own are always there) and sold."""
    own = _SoFar(
        unit=OWN,
        refund_points_minor=before.refund_points_minor,
        clawback_due_points_minor=before.clawback_due_points_minor,
        clawback_taken_points_minor=before.clawback_taken_points_minor,
        clawback_debt_points_minor=before.clawback_debt_points_minor,
        clawback_lapsed_points_minor=before.clawback_lapsed_points_minor,
        clawback_kept_back_points_minor=before.clawback_kept_back_points_minor,
    )
    return {OWN: own} | _copied(before.units), _copied(before.deposits)


def _copied(units: Iterable[_SoFar]) -> dict[str, _SoFar]:
    found = {}
    for each in units:
        found[each.unit] = _SoFar()
        found[each.unit].CopyFrom(each)
    return found


def _returned_so_far(refund: _Refund, plan: returns.ReturnPlan, began: int) -> journal_pb2.ReturnedSoFar:
    own = refund.earned[OWN]
    return journal_pb2.ReturnedSoFar(
        lines=plan.so_far,
        refund_points_minor=own.refund_points_minor,
        clawback_due_points_minor=own.clawback_due_points_minor,
        clawback_taken_points_minor=own.clawback_taken_points_minor,
        clawback_debt_points_minor=own.clawback_debt_points_minor,
        clawback_lapsed_points_minor=own.clawback_lapsed_points_minor,
        clawback_kept_back_points_minor=own.clawback_kept_back_points_minor,
        complete=plan.complete,
        units=[refund.earned[code] for code in refund.codes if code],
        deposits=[refund.sold[code] for code in sorted(refund.sold)],
        semantics=began,
    )


def _tell_returned(settlement: Settlement, refund: _Refund, code: str) -> None:
    told: Settlement | checkout_pb2.UnitSettlement = settlement
    clawback = refund.clawbacks[code]
    if code == OWN:
        settlement.clawback_waived_points_minor = clawback.waived_minor
    else:
        told = settlement.units.add(refund_points_minor=refund.points(code).refund_minor)
    told.clawback_points_minor = clawback.taken_minor
    told.clawback_debt_points_minor = clawback.debt_minor
    told.clawback_lapsed_points_minor = clawback.lapsed_minor
    told.clawback_kept_back_points_minor = clawback.kept_back_minor
    write_balance(told, refund.unit(code), refund.movements[code].account)


# --- points that were spent -----------------------------------------------------------------------------------------


def _give_back_points(refund: _Refund, code: str) -> None:
    """Put points back to the lots that they were spent from, those that live longest first."""
    command, movement, points_minor = refund.command, refund.movements[code], refund.points(code).refund_minor
    spent = returns.spent_lots(refund.purchase, movement.key[1])
    for part in returns.next_parts(spent, refund.earned[code].refund_points_minor - points_minor, points_minor):
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


# --- points that were earned or bought ------------------------------------------------------------------------------


def _lost(state: BookState, command: Return, draft: Draft) -> dict[_LotPlace, int]:
    """Return what has lapsed out of the purchase's lots, or was taken out of them by hand, up to this moment."""
    number = command.purchase_number
    lost = {(number, ordinal): points for ordinal, points in state.lost.get(number, {}).items()}
    for posting in draft.postings:
        if posting.lot_number == number and posting.credit in LOST:
            place = (number, posting.lot_ordinal)
            lost[place] = lost.get(place, 0) + posting.points_minor
    return lost


def _earned_purse(refund: _Refund, code: str) -> _Purse:
    """Return the purse of the points that a purchase's goods had earned.

    A partner is credited with all that it had granted for the goods, whatever the member still has: what is let go is
    the programme's loss. So partners' accounts do not depend on the order of returns either. What was granted in a
    store whose partner no programme names was the programme's own.
    """
    command, unit = refund.command, refund.movements[code].key[1]
    granted = refund.points(code).partners.items()
    shares = sorted((command.partners[partner], points) for partner, points in granted if partner in command.partners)
    shares.append((ISSUED, _due(refund.earned[code]) - sum(points for _, points in shares)))
    own = returns.granted_lots(refund.purchase, command.purchase_number, unit)
    others = [] if command.clawback == OWN_LOT_ONLY else _other_lots(refund, code)
    return _purse(refund, code, command.clawback, own, others, shares)


def _sold_purse(refund: _Refund, code: str) -> _Purse:
    """Return the purse of the points that a purchase had sold: what of it was spent is kept back from the money."""
    unit = refund.movements[code].key[1]
    own = returns.deposit_lots(refund.purchase, refund.command.purchase_number, unit)
    shares = [(ISSUED, _due(refund.sold[code]))]
    return _purse(refund, code, OFF_THE_REFUND, own, _other_lots(refund, code), shares)


def _purse(
    refund: _Refund,
    code: str,
    mode: int,
    own: Sequence[_LotPlace],
    others: Sequence[_LotPlace],
    shares: Sequence[tuple[int, int]],
) -> _Purse:
    if refund.command.is_merged and mode == OFF_THE_REFUND:
        mode = DEBT  # what the purchase granted has gone on to the living member, and so does the debt
    in_order = [place for place in _places(refund.movements[code]) if place in own]
    lost = sum(refund.lost.get(place, 0) for place in own)
    return _Purse(mode, in_order, others, lost, shares, refund.command.rates.get(code, (0, 1)))


def _places(movement: Movement) -> list[_LotPlace]:
    return [(lot.number, lot.ordinal) for lot in spending_order(movement.account.lots or ())]


def _other_lots(refund: _Refund, code: str) -> list[_LotPlace]:
    """Return the lots that come after a purchase's own, in order.

    Those that the purchase spent come last, in the order in which returns fill them: so it makes no difference whether
    points are given back first or taken back.
    """
    movement = refund.movements[code]
    unit, number = movement.key[1], refund.command.purchase_number
    spent = [(part.number, part.ordinal) for part in returns.spent_lots(refund.purchase, unit)]
    own = returns.granted_lots(refund.purchase, number, unit) + returns.deposit_lots(refund.purchase, number, unit)
    barred = {*own, *spent}
    lots = spending_order(movement.account.lots or ())
    others = [(lot.number, lot.ordinal) for lot in lots if not lot.pending and (lot.number, lot.ordinal) not in barred]
    return [*others, *spent]


def _due(so_far: _SoFar) -> int:
    """Return what is still to be taken back: earlier returns may have waived what they could not take."""
    return (
        so_far.clawback_due_points_minor
        - so_far.clawback_taken_points_minor
        - so_far.clawback_debt_points_minor
        - so_far.clawback_lapsed_points_minor
        - so_far.clawback_kept_back_points_minor
    )


def _claw_back(refund: _Refund, code: str, purse: _Purse, so_far: _SoFar) -> None:
    """Take back what is due of a purse; note in ``so_far`` and in the refund what became of it."""
    movement, clawback = refund.movements[code], _Clawback()
    left = _take(movement, purse.own, list(purse.shares), clawback)
    lapsed = min(_sum(left), purse.lost_minor - so_far.clawback_lapsed_points_minor)
    clawback.lapsed_minor = max(lapsed, 0)
    left = _let_go(movement, left, clawback.lapsed_minor)
    left = _take(movement, purse.others, left, clawback)
    if purse.mode == OFF_THE_REFUND:
        left = _keep_back(refund, movement, purse, left, so_far, clawback)
    if purse.mode in (DEBT, OFF_THE_REFUND):
        for account, points_minor in left:
            if points_minor:
                movement.owe(points_minor, account)
        clawback.debt_minor = _sum(left)
    else:
        clawback.waived_minor = _sum(left)
        _let_go(movement, left, clawback.waived_minor)
    so_far.clawback_taken_points_minor += clawback.taken_minor
    so_far.clawback_lapsed_points_minor += clawback.lapsed_minor
    so_far.clawback_kept_back_points_minor += clawback.kept_back_minor
    so_far.clawback_debt_points_minor += clawback.debt_minor
    refund.clawbacks[code].add(clawback)


_Shares = list[tuple[int, int]]
"""Accounts to be credited, with how much each."""


def _sum(shares: _Shares) -> int:
    return sum(points for _, points in shares)


def _take(movement: Movement, lots: Sequence[_LotPlace], shares: _Shares, clawback: _Clawback) -> _Shares:
    """Take points from lots, for one account after the other; return what is left to be taken."""
    left = []
    for account, points_minor in shares:
        taken = movement.take_back(lots, points_minor, account) if points_minor else 0
        clawback.taken_minor += taken
        left.append((account, points_minor - taken))
    return left


def _let_go(movement: Movement, shares: _Shares, points_minor: int) -> _Shares:
    """Ask the member for so many points no more; the programme bears what partners are due of them."""
    left = []
    for account, wanted in shares:
        gone = min(wanted, points_minor)
        points_minor -= gone
        if gone and account != ISSUED:
            movement.make_good(gone, ISSUED, account)
        left.append((account, wanted - gone))
    return left


def _keep_back(
    refund: _Refund, movement: Movement, purse: _Purse, left: _Shares, so_far: _SoFar, clawback: _Clawback
) -> _Shares:
    """Keep back the money of points that are missing, as far as there is money to give back.

    The money is rounded down over all returns together, so that their order makes no difference.
    """
    money, points = purse.rate
    if money == 0:
        return left
    kept = min(_sum(left), refund.room_minor * points // money)
    before = so_far.clawback_kept_back_points_minor
    clawback.kept_back_minor = kept
    clawback.money_minor = (before + kept) * money // points - before * money // points
    refund.room_minor -= clawback.money_minor
    return _let_go(movement, left, kept)
