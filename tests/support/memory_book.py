"""One book without a database: commands go through `decide`, and its caches are added up from what was decided.

So each test that uses it compares two ways to every balance: `decide` moves points forward, the caches add postings up.
And every entry goes through the checks of `verify`.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from tallypoint.v1 import journal_pb2

from ledger.caches.points import lots_given_back, postings_of
from ledger.entry import usage
from ledger.entry.accounts import LOST
from ledger.entry.books import BEFORE_ALL_ENTRIES
from ledger.entry.chain import EntryRecord
from ledger.entry.decide import decide
from ledger.entry.model import (
    Account,
    AccountKey,
    Booked,
    BookState,
    Cancel,
    Command,
    CouponSlot,
    Decision,
    Declined,
    EndedHold,
    Head,
    Hold,
    Lot,
    LotTerms,
    PostingRow,
    Purchase,
    Return,
    SlotUse,
    Unchanged,
    Unit,
)
from ledger.reading.journal import Loss, lost_by_lot
from ledger.verify.chain import Checked, Recomputation, check_entry
from tests.support.commands import BONUS, NOON, PARTNERS, UNITS, member


class MemoryBook:
    """Book 0 of a ledger of one book."""

    def __init__(self) -> None:
        self.head = Head(0, bytes(32), BEFORE_ALL_ENTRIES)
        self.proof = Recomputation(0, {}, UNITS, PARTNERS)
        self.caches = self.proof.caches
        self.events: dict[int, journal_pb2.Event] = {}
        self.entries: list[EntryRecord] = []
        self.terms: dict[tuple[int, int], LotTerms] = {}
        self.now = NOON

    def book(self, command: Command, at: datetime | None = None) -> Booked:
        """Commit one command that must be booked."""
        (verdict,) = self.commit([command], at).verdicts
        assert isinstance(verdict, Booked), verdict
        return verdict

    def refuse(self, command: Command, at: datetime | None = None) -> Declined:
        """Commit one command that must be refused, and must leave no trace."""
        decision = self.commit([command], at)
        (verdict,) = decision.verdicts
        assert isinstance(verdict, Declined), verdict
        assert not decision.entries
        return verdict

    def commit(self, commands: Sequence[Command], at: datetime | None = None) -> Decision:
        """Decide a batch, and add up what was decided."""
        self.now = self.now if at is None else at
        state = self._state(commands)
        before = dict(self.caches.usage.coupons)
        decision = decide(state, commands, self.now)
        for row in decision.entries:
            entry = EntryRecord(0, *row)
            assert entry.hash_after(self.head.hash) == entry.hash
            postings = [posting for posting in decision.postings if posting.number == entry.number]
            event = check_entry(entry, postings, 1)
            self.caches.terms = {place: self.terms[place] for place in lots_given_back(postings)}
            purchase = self.events.get(event.goods_return.purchase_number)
            lost = self._lost(event.goods_return.purchase_number, postings)
            self.proof.take(Checked(entry, event, postings, purchase, lost))
            for posting in postings:
                issued_at = posting.issued_at or entry.booked_at
                terms = LotTerms(posting.points_minor, posting.active_at, posting.expires_at, issued_at)
                self.terms[(posting.number, posting.ordinal)] = terms
            self.events[entry.number] = event
            self.entries.append(entry)
            self.head = Head(entry.number, entry.hash, entry.booked_at)
        self.caches.find_next_changes()
        self._compare(decision)
        self._compare_usage(state, decision, before)
        return decision

    def account(self, name: int | str, unit: Unit = BONUS) -> Account:
        """Return what a member has of a unit."""
        return self.caches.accounts.get((member(name), unit.number), Account())

    def total(self, account: int, unit: Unit = BONUS) -> int:
        """Return what an account was credited, less what it was debited."""
        totals = self.caches.totals.items()
        return sum(credit - debit for (_, of, at), (debit, credit) in totals if (of, at) == (unit.number, account))

    def lots(self, name: int | str, unit: Unit = BONUS) -> list[Lot]:
        """Return a member's lots, oldest first."""
        key = (member(name), unit.number)
        return [copy.copy(lot) for (owner, _, _), lot in sorted(self.caches.lots.items()) if owner == key]

    def settlement(self, booked: Booked) -> journal_pb2.Event:
        """Return the event of a booked command."""
        return journal_pb2.Event.FromString(booked.event)

    def _state(self, commands: Sequence[Command]) -> BookState:
        """Return what a batch reads: lots and holds only where they are needed."""
        spenders = {
            c.member_id
            for c in commands
            if not isinstance(c, Purchase) or c.spend or c.checkout_key or c.further_spends
        }
        accounts: dict[AccountKey, Account] = {}
        for key, account in self.caches.accounts.items():
            copied = accounts[key] = copy.copy(account)
            due = account.next_change_at is not None and account.next_change_at <= max(self.now, self.head.booked_at)
            needed = key[0] in spenders or due
            copied.lots = self._cached_lots(key) if needed else None
            holds = [hold for hold in self.caches.holds.values() if (hold.member_id, hold.unit) == key]
            copied.holds = holds if needed else None
        state = BookState(0, self.head, dict(self.caches.messages), dict(self.caches.receipts), accounts)
        self._read_usage(state, commands)
        asked = {c.checkout_key for c in commands if isinstance(c, (Hold, Cancel))}
        for hold, ended in self.caches.ended_holds.values():
            newest = state.ended_holds.get(hold.checkout_key, EndedHold(0, self.now, 0, 0))
            if hold.checkout_key in asked and hold.number > newest.number:
                state.ended_holds[hold.checkout_key] = ended
        for purchase_number in {c.purchase_number for c in commands if isinstance(c, Return)}:
            state.lost[purchase_number] = self._lost(purchase_number)
            if purchase_number in self.caches.returns:
                last = self.events[self.caches.returns[purchase_number]]
                state.returned[purchase_number] = last.goods_return.so_far
        return state

    def _lost(self, purchase_number: int, more: Sequence[PostingRow] = ()) -> dict[int, int]:
        """Return what lapsed out of a purchase's lots, or was taken by hand, by the lot's ordinal."""
        booked = [each for entry in self.entries for each in postings_of(self.events[entry.number], entry.number, None)]
        losses = [
            Loss(posting.number, posting.lot_ordinal, posting.points_minor)
            for posting in (*booked, *more)
            if posting.lot_number == purchase_number and posting.credit in LOST
        ]
        return lost_by_lot(losses)

    def _read_usage(self, state: BookState, commands: Sequence[Command]) -> None:
        """Read counters, coupons and budgets, each only where it is needed."""
        used = self.caches.usage
        for command in commands:
            if command.member_id in used.counters and usage.is_counted(command):
                state.counters[command.member_id] = dict(used.counters[command.member_id])
        codes = {code for command in commands for code in usage.codes_concerned(command)}
        holds = [hold for account in state.accounts.values() for hold in account.holds or ()]
        codes |= {slot.code for hold in holds for slot in hold.coupons}
        for slot, use in used.coupons.items():
            if slot.code in codes:
                state.coupons.setdefault(slot.code, {})[slot.slot] = use
        keys = {key for command in commands for key in usage.budgets_concerned(command)}
        state.budgets = {key: part for key, part in used.slices.items() if key in keys}

    def _cached_lots(self, key: tuple[uuid.UUID, int]) -> list[Lot]:
        lots = [copy.copy(lot) for (owner, _, _), lot in self.caches.lots.items() if owner == key]
        for lot in lots:
            lot.cached = True
        return lots

    def _compare(self, decision: Decision) -> None:
        """What the batch would write into the caches is what the journal adds up to."""
        for (key, number, ordinal), lot in decision.lots.items():
            left = self.caches.lots.get((key, number, ordinal))
            have = (left.remaining_minor, left.held_minor, left.pending) if left else (0, 0, lot.pending)
            assert (lot.remaining_minor, lot.held_minor, lot.pending) == have
        open_now = {hold.number for hold in decision.holds} - {ended.number for ended in decision.ended}
        assert open_now <= self.caches.holds.keys()
        for ended in decision.ended:
            assert self.caches.ended_holds[ended.number][1] == ended
        for purchase_number, last_number in decision.returns.items():
            assert self.caches.returns[purchase_number] == last_number
        self._compare_verdicts(decision)

    def _compare_usage(self, state: BookState, decision: Decision, before: Mapping[CouponSlot, SlotUse]) -> None:
        """The same for counters, coupons and budgets."""
        used = self.caches.usage
        for member_id in decision.counted:
            assert state.counters[member_id] == used.counters[member_id]
        after = {slot: use for slot, use in before.items() if slot not in decision.given_up}
        for slot, use in decision.slots.items():
            if use is not None:
                assert slot not in after, "two have one use of a coupon"
                after[slot] = use
        assert after == used.coupons
        for key in decision.slices:
            assert state.budgets[key] == used.slices[key]
        for number, member_id, coupon in decision.issued:
            assert used.issued[coupon.code] == (number, member_id, *coupon[1:])

    @staticmethod
    def _compare_verdicts(decision: Decision) -> None:
        for unchanged in decision.verdicts:
            assert not isinstance(unchanged, Unchanged) or not decision.entries or len(decision.verdicts) > 1
