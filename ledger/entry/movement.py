"""The points that one entry moves for one member and unit: time, spending, granting, holding, taking back.

Every posting is made here, and every posting names the lot concerned. Two rules hold after each entry:

* points that can be spent pay the member's debt first, so nobody has both;
* what a checkout holds belongs to its lots still, but neither lapses nor is spent by others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.entry.model import (
    AVAILABLE,
    DEBT,
    EXPIRED,
    HELD,
    PENDING,
    REDEEMED,
    Account,
    AccountKey,
    BookState,
    Grant,
    HoldPart,
    Lot,
    OpenHold,
    PostingRow,
    Settlement,
    Unit,
)

LotsByPlace = dict[tuple[AccountKey, int, int], Lot]

END_EXPIRED = int(journal_pb2.HOLD_END_KIND_EXPIRED)
END_CAPTURED = int(journal_pb2.HOLD_END_KIND_CAPTURED)


class DamagedCaches(Exception):
    """The caches of a member cannot be true; the message says what is wrong and how to mend it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; run `tallypoint ledger rebuild`")


class Draft:
    """An entry in the making: its place, its moment, and what it has moved so far."""

    __slots__ = (
        "at",
        "began",
        "earlier_lots",
        "ended",
        "event",
        "lots",
        "number",
        "postings",
        "returned",
        "touched",
    )

    def __init__(self, number: int, at: datetime, earlier_lots: LotsByPlace) -> None:
        """Begin entry ``number`` at a moment; ``earlier_lots`` are those that earlier entries of the batch moved."""
        self.number = number
        self.at = at
        self.earlier_lots = earlier_lots
        self.event = journal_pb2.Event()
        """The body that the entry will get, and in any case its postings."""
        self.postings: list[PostingRow] = []
        self.touched: dict[AccountKey, Account] = {}
        self.lots: LotsByPlace = {}
        self.began: OpenHold | None = None
        self.ended: list[tuple[OpenHold, journal_pb2.HoldEnd]] = []
        self.returned: tuple[int, journal_pb2.ReturnedSoFar] | None = None

    @property
    def is_empty(self) -> bool:
        """Nothing was moved, and no hold ended."""
        return not self.postings and not self.ended


class Movement:
    """The part of an entry that concerns one account. The account is changed in place."""

    def __init__(self, draft: Draft, key: AccountKey, account: Account) -> None:
        self.draft = draft
        self.key = key
        self.account = account
        self.moment = draft.at
        self._changed = False

    # --- postings --------------------------------------------------------------------------------------------------

    def _post(self, debit: int, credit: int, points_minor: int, lot: Lot, opening: Grant | None = None) -> None:
        """Add a posting and change the account accordingly. ``opening`` has the terms of a lot that it opens."""
        self._changed = True
        draft = self.draft
        postings = draft.postings
        member_id, unit = self.key
        number, ordinal = lot.number, lot.ordinal
        message = draft.event.postings.add()  # field by field: keyword arguments take four times as long
        message.unit = unit
        message.debit = debit  # type: ignore[assignment]  # enum values are ints on the hot path
        message.credit = credit  # type: ignore[assignment]  # the same
        message.points_minor = points_minor
        if number != draft.number:
            message.lot_number = number
        message.lot_ordinal = ordinal
        active_at = expires_at = issued_at = None
        if opening is not None:
            active_at, expires_at, issued_at = opening.active_at, opening.expires_at, opening.issued_at
            if active_at is not None:
                message.active_at.CopyFrom(_timestamp(active_at))
            if expires_at is not None:
                message.expires_at.CopyFrom(_timestamp(expires_at))
            if issued_at is not None:
                message.issued_at.CopyFrom(_timestamp(issued_at))
        postings.append(
            PostingRow(
                draft.number,
                len(postings) + 1,
                unit,
                debit,
                credit,
                points_minor,
                number,
                ordinal,
                member_id,
                active_at,
                expires_at,
                issued_at,
            )
        )
        self._add(debit, -points_minor)
        self._add(credit, points_minor)
        draft.lots[(self.key, number, ordinal)] = lot

    def _add(self, account: int, points_minor: int) -> None:
        if account == AVAILABLE:
            self.account.available_minor += points_minor
        elif account == PENDING:
            self.account.pending_minor += points_minor
        elif account == HELD:
            self.account.held_minor += points_minor
        elif account == DEBT:
            self.account.debt_minor -= points_minor

    def take(self, lot: Lot, points_minor: int, credit: int) -> None:
        """Move points that are left in a lot, available or pending, to another account."""
        lot.remaining_minor -= points_minor
        self._post(PENDING if lot.pending else AVAILABLE, credit, points_minor, lot)
        self._drop_if_empty(lot)

    def _drop_if_empty(self, lot: Lot) -> None:
        if lot.remaining_minor == 0 and lot.held_minor == 0 and self.account.lots is not None:
            self.account.lots = [each for each in self.account.lots if each is not lot]

    def _lots(self) -> list[Lot]:
        assert self.account.lots is not None, "the lots of who spends must be read with the batch"
        return self.account.lots

    def _holds(self) -> list[OpenHold]:
        if self.account.holds is None:
            self.account.holds = []
        return self.account.holds

    # --- time ------------------------------------------------------------------------------------------------------

    def pass_time(self) -> None:
        """End holds, activate and lapse lots whose moment has come. The sweeper does it for members who do not buy.

        One moment after the other, as if somebody had looked at each: points that became active and lapsed since have
        paid a debt in between. So it makes no difference when, or whether, a sweeper came.
        """
        due = self.account.next_change_at
        if due is None or due > self.draft.at:
            return
        while (moment := self._next_change()) is not None and moment <= self.draft.at:
            self.moment = moment
            self._pass_moment(moment)
        self.moment = self.draft.at

    def _next_change(self) -> datetime | None:
        """Return when time changes something next."""
        moments = [lot.active_at if lot.pending else lot.expires_at for lot in self._lots() if lot.remaining_minor > 0]
        moments += [hold.expires_at for hold in self._holds()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _pass_moment(self, moment: datetime) -> None:
        for hold in [each for each in self._holds() if each.expires_at <= moment]:
            self.end_hold(hold, END_EXPIRED)
        for lot in spending_order(self._lots()):  # in an order that does not depend on how they were read
            if lot.pending and lot.active_at is not None and lot.active_at <= moment:
                lot.pending = False
                self._post(PENDING, AVAILABLE, lot.remaining_minor, lot)
            if not lot.pending and lot.remaining_minor > 0 and self._has_lapsed(lot.expires_at):
                self.take(lot, lot.remaining_minor, EXPIRED)
        self.pay_debt()

    def _has_lapsed(self, expires_at: datetime | None) -> bool:
        return expires_at is not None and expires_at <= self.moment

    def pay_debt(self) -> int:
        """Pay the member's debt with what they have, in spending order; return the points paid."""
        paid = 0
        if self.account.debt_minor > 0 and self.account.available_minor > 0:
            for lot in spending_order(self._lots()):
                paid += self._pay_debt_from(lot)
        return paid

    def _pay_debt_from(self, lot: Lot) -> int:
        paid = min(self.account.debt_minor, 0 if lot.pending else lot.remaining_minor)
        if paid > 0:
            self.take(lot, paid, DEBT)
        return paid

    # --- granting --------------------------------------------------------------------------------------------------

    def grant(self, grant: Grant, debit: int) -> int:
        """Open a lot from a programme's account; return what of it paid a debt.

        If it is active, it pays the member's debt first; if it has lapsed already, it lapses at once.
        """
        pending = grant.active_at is not None and grant.active_at > self.draft.at
        lot = Lot(
            self.draft.number,
            len(self.draft.postings) + 1,
            grant.points_minor,
            grant.points_minor,
            pending,
            grant.active_at,
            grant.expires_at,
        )
        if self.account.lots is not None:
            self.account.lots.append(lot)
        self._post(debit, PENDING if pending else AVAILABLE, grant.points_minor, lot, grant)
        paid = 0
        if not pending and self._has_lapsed(grant.expires_at):  # a receipt that arrives long after its sale
            self.take(lot, lot.remaining_minor, EXPIRED)
        else:
            paid = self._pay_debt_from(lot)
        if lot.remaining_minor > 0:
            self._notice(lot.active_at if lot.pending else lot.expires_at)
        return paid

    def owe(self, points_minor: int, credit: int) -> None:
        """Book a debt to a programme's account."""
        self._post(DEBT, credit, points_minor, self._no_lot())

    def forgive(self, points_minor: int, debit: int) -> None:
        """Let a programme's account pay a debt."""
        self._post(debit, DEBT, points_minor, self._no_lot())

    def make_good(self, points_minor: int, debit: int, credit: int) -> None:
        """Let one account of the programme bear what another one is due; the member's points stay as they are."""
        self._post(debit, credit, points_minor, self._no_lot())

    def _no_lot(self) -> Lot:
        """Return what stands for the lot in a posting that concerns none: the posting itself."""
        return Lot(
            self.draft.number, len(self.draft.postings) + 1, 0, 0, pending=False, active_at=None, expires_at=None
        )

    # --- spending and holding --------------------------------------------------------------------------------------

    def spend(self, points_minor: int, credit: int) -> tuple[HoldPart, ...]:
        """Move available points to another account, in spending order; return what each lot gave."""
        parts: list[HoldPart] = []
        wanted = points_minor
        for lot in spending_order(self._lots()) if wanted else ():
            if lot.pending or lot.remaining_minor == 0:
                continue
            taken = min(wanted, lot.remaining_minor)
            if credit == HELD:
                lot.held_minor += taken
            self.take(lot, taken, credit)
            parts.append(HoldPart(lot.number, lot.ordinal, taken))
            wanted -= taken
            if wanted == 0:
                break
        if wanted:
            raise DamagedCaches(f"the lots of member {self.key[0]} have fewer points than the balance")
        return tuple(parts)

    def begin_hold(self, hold: OpenHold) -> None:
        """Note that a checkout holds what ``hold`` says; its parts were moved by ``spend``."""
        self._changed = True
        self._holds().append(hold)
        self.draft.began = hold

    def end_hold(self, hold: OpenHold, how: int, captured_minor: int = 0, credit: int = REDEEMED) -> None:
        """End a hold: the first points of it are spent, the others go back to their lots, or lapse with them.

        ``credit`` is the account that takes what is spent.
        """
        self._changed = True
        self.account.holds = [each for each in self._holds() if each is not hold]
        left, released = captured_minor, 0
        for part in hold.parts:
            lot = self._find(part.lot_number, part.lot_ordinal)
            if lot is None or lot.held_minor < part.points_minor:
                raise DamagedCaches(
                    f"the points that hold {hold.number} of member {self.key[0]} keeps are not in its lots"
                )
            captured = min(left, part.points_minor)
            left -= captured
            if captured:
                lot.held_minor -= captured
                self._post(HELD, credit, captured, lot)
            if back := part.points_minor - captured:
                lot.held_minor -= back
                lot.remaining_minor += back
                released += back
                self._post(HELD, AVAILABLE, back, lot)
                if self._has_lapsed(lot.expires_at):
                    self.take(lot, lot.remaining_minor, EXPIRED)
                else:
                    self._pay_debt_from(lot)
            self._drop_if_empty(lot)
        if captured_minor + released != hold.points_minor or left:
            raise DamagedCaches(f"the parts of hold {hold.number} of member {self.key[0]} are not what it keeps")
        end = journal_pb2.HoldEnd(
            hold_number=hold.number,
            how=how,  # type: ignore[arg-type]  # an int
            captured_points_minor=captured_minor,
            released_points_minor=released,
        )
        self.draft.ended.append((hold, end))

    def _find(self, number: int, ordinal: int) -> Lot | None:
        for lot in self._lots():
            if lot.number == number and lot.ordinal == ordinal:
                return lot
        return None

    # --- returns ---------------------------------------------------------------------------------------------------

    def give_back(self, lot: Lot, points_minor: int, debit: int, *, reopened: Grant | None = None) -> None:
        """Put spent points back to their lot, where they pay a debt first, or lapse at once if the lot has lapsed.

        ``debit`` is the account that took them. ``lot`` is one of the account's, or a new one with the old terms and
        nothing left. With ``reopened`` points of a lapsed lot open a new one instead, on those terms.
        """
        if self._has_lapsed(lot.expires_at) and reopened is not None:
            self.grant(reopened, debit)
            return
        known = self._find(lot.number, lot.ordinal)
        if known is None:
            self._lots().append(lot)
        else:
            lot = known
        lot.remaining_minor += points_minor
        self._post(debit, AVAILABLE, points_minor, lot)
        if self._has_lapsed(lot.expires_at):
            self.take(lot, points_minor, EXPIRED)
        else:
            self._pay_debt_from(lot)

    def take_back(self, lots: Iterable[tuple[int, int]], points_minor: int, credit: int) -> int:
        """Take up to so many points from lots in a given order, pending ones too; return the points taken."""
        taken = 0
        for number, ordinal in lots:
            lot = self._find(number, ordinal)
            part = 0 if lot is None else min(points_minor - taken, lot.remaining_minor)
            if lot is not None and part > 0:
                self.take(lot, part, credit)
                taken += part
        return taken

    # --- the end ---------------------------------------------------------------------------------------------------

    def _notice(self, change: datetime | None) -> None:
        earliest = self.account.next_change_at
        if change is not None and (earliest is None or change < earliest):
            self.account.next_change_at = change

    def close(self) -> None:
        """Note when the account changes next, if anything of it was moved."""
        account = self.account
        if not self._changed:
            return
        self.draft.touched[self.key] = account
        if account.lots is not None:
            account.next_change_at = None
            for lot in account.lots:
                if lot.remaining_minor > 0:
                    self._notice(lot.active_at if lot.pending else lot.expires_at)
            for hold in account.holds or ():
                self._notice(hold.expires_at)


def spending_order(lots: Iterable[Lot]) -> list[Lot]:
    """Return lots in the order in which they are spent: soonest lapsing, never-lapsing last, older first."""
    return sorted(lots, key=_spending_key)


def _spending_key(lot: Lot) -> tuple[bool, datetime | None, int, int]:
    # Never-lapsing lots compare True and are last; among them the None is never compared, since numbers differ
    # only after equal second parts, and None == None.
    return lot.expires_at is None, lot.expires_at, lot.number, lot.ordinal


def open_hold(account: Account, checkout_key: bytes) -> OpenHold | None:
    """Return a checkout's open hold, if it has one."""
    for hold in account.holds or ():
        if hold.checkout_key == checkout_key:
            return hold
    return None


def trial(state: BookState, draft: Draft, key: AccountKey) -> Movement:
    """Begin a movement that may still be refused: on a copy, which replaces the account when the entry is booked."""
    account = state.accounts.get(key)
    copied = Account(lots=[], holds=[]) if account is None else copy.copy(account)
    copied.lots = [copy.copy(lot) for lot in copied.lots or ()]
    copied.holds = list(copied.holds or ())
    movement = Movement(draft, key, copied)
    movement.pass_time()
    return movement


def write_balance(settlement: Settlement | checkout_pb2.UnitSettlement, unit: Unit, account: Account) -> None:
    """Write the balance after an entry into its settlement."""
    balance = settlement.balance
    balance.unit = unit.code
    balance.precision = unit.precision
    balance.available_points_minor = account.available_minor
    balance.pending_points_minor = account.pending_minor
    balance.held_points_minor = account.held_minor
    balance.debt_points_minor = account.debt_minor


@lru_cache(maxsize=4096)
def _timestamp(moment: datetime) -> Timestamp:
    """Return a moment as a message that nobody may change; the lots of a month share theirs."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
