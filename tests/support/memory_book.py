"""One book without a database: commands go through `decide`, and its caches are added up from what was decided.

So each test that uses it compares two ways to every balance: `decide` moves points forward, the caches add postings up.
And every entry goes through the checks of `verify`.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from datetime import datetime

from tallypoint.v1 import journal_pb2

from ledger.books import BEFORE_ALL_ENTRIES
from ledger.caches import lots_given_back
from ledger.decide import decide
from ledger.journal import EntryRecord
from ledger.model import (
    Account,
    AccountKey,
    Booked,
    BookState,
    Cancel,
    Command,
    Decision,
    EndedHold,
    Head,
    Hold,
    Lot,
    LotTerms,
    Purchase,
    Refused,
    Return,
    Unchanged,
)
from ledger.verify.chain import Checked, Recomputation, check_entry
from tests.support.commands import BONUS, NOON, member


class MemoryBook:
    """Book 0 of a ledger of one book."""

    def __init__(self) -> None:
        self.head = Head(0, bytes(32), BEFORE_ALL_ENTRIES)
        self.proof = Recomputation(0, {}, {BONUS.code: BONUS})
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

    def refuse(self, command: Command, at: datetime | None = None) -> Refused:
        """Commit one command that must be refused, and must leave no trace."""
        decision = self.commit([command], at)
        (verdict,) = decision.verdicts
        assert isinstance(verdict, Refused), verdict
        assert not decision.entries
        return verdict

    def commit(self, commands: Sequence[Command], at: datetime | None = None) -> Decision:
        """Decide a batch, and add up what was decided."""
        self.now = self.now if at is None else at
        decision = decide(self._state(commands), commands, self.now)
        for row in decision.entries:
            entry = EntryRecord(0, *row)
            assert entry.hash_after(self.head.hash) == entry.hash
            postings = [posting for posting in decision.postings if posting.number == entry.number]
            event = check_entry(entry, postings, 1)
            self.caches.terms = {place: self.terms[place] for place in lots_given_back(postings)}
            purchase = self.events.get(event.goods_return.purchase_number)
            self.proof.take(Checked(entry, event, postings, purchase))
            for posting in postings:
                issued_at = posting.issued_at or entry.booked_at
                terms = LotTerms(posting.points_minor, posting.active_at, posting.expires_at, issued_at)
                self.terms[(posting.number, posting.ordinal)] = terms
            self.events[entry.number] = event
            self.entries.append(entry)
            self.head = Head(entry.number, entry.hash, entry.booked_at)
        self.caches.settle()
        self._compare(decision)
        return decision

    def account(self, name: int | str) -> Account:
        """Return what a member has of the bonus unit."""
        return self.caches.accounts.get((member(name), BONUS.number), Account())

    def lots(self, name: int | str) -> list[Lot]:
        """Return a member's lots, oldest first."""
        key = (member(name), BONUS.number)
        return [copy.copy(lot) for (owner, _, _), lot in sorted(self.caches.lots.items()) if owner == key]

    def settlement(self, booked: Booked) -> journal_pb2.Event:
        """Return the event of a booked command."""
        return journal_pb2.Event.FromString(booked.event)

    def _state(self, commands: Sequence[Command]) -> BookState:
        """Return what a batch reads: lots and holds only where they are needed."""
        spenders = {c.member_id for c in commands if not isinstance(c, Purchase) or c.spend or c.checkout_key}
        accounts: dict[AccountKey, Account] = {}
        for key, account in self.caches.accounts.items():
            copied = accounts[key] = copy.copy(account)
            due = account.next_change_at is not None and account.next_change_at <= max(self.now, self.head.booked_at)
            needed = key[0] in spenders or due
            copied.lots = self._cached_lots(key) if needed else None
            holds = [hold for hold in self.caches.holds.values() if (hold.member_id, hold.unit) == key]
            copied.holds = holds if needed else None
        state = BookState(0, self.head, dict(self.caches.messages), dict(self.caches.receipts), accounts)
        asked = {c.checkout_key for c in commands if isinstance(c, (Hold, Cancel))}
        for hold, ended in self.caches.ended_holds.values():
            newest = state.ended_holds.get(hold.checkout_key, EndedHold(0, self.now, 0, 0))
            if hold.checkout_key in asked and hold.number > newest.number:
                state.ended_holds[hold.checkout_key] = ended
        for purchase_number in {c.purchase_number for c in commands if isinstance(c, Return)}:
            if purchase_number in self.caches.returns:
                last = self.events[self.caches.returns[purchase_number]]
                state.returned[purchase_number] = last.goods_return.so_far
        return state

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
        for unchanged in decision.verdicts:
            assert not isinstance(unchanged, Unchanged) or not decision.entries or len(decision.verdicts) > 1
