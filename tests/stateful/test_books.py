"""Random histories against a small model: what members have, lot by lot, however the commands fall into batches."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tallypoint.v1 import journal_pb2

from ledger.books import BEFORE_ALL_ENTRIES
from ledger.caches import BookCaches, postings_of
from ledger.decide import decide
from ledger.journal import EntryRecord
from ledger.model import Account, Booked, BookState, Grant, Head, Lot, Purchase, Repeat
from tests.support.commands import NOON, member, purchase

SHOPPERS = [member(n) for n in range(3)]


@dataclass
class ModelLot:
    """A grant in the model."""

    left: int
    active: datetime
    lapses: datetime | None


@dataclass
class Model:
    """What each shopper has, kept as simply as can be: lots in a list, judged at a moment."""

    lots: dict[int, list[ModelLot]] = field(default_factory=dict)

    def usable(self, shopper: int, now: datetime) -> list[ModelLot]:
        return [
            lot
            for lot in self.lots.get(shopper, [])
            if lot.left and lot.active <= now and (lot.lapses is None or lot.lapses > now)
        ]

    def spend(self, shopper: int, wanted: int, now: datetime) -> int:
        forever = datetime.max.replace(tzinfo=now.tzinfo)
        spent = 0
        for lot in sorted(self.usable(shopper, now), key=lambda each: each.lapses or forever):  # stable: older first
            taken = min(lot.left, wanted - spent)
            lot.left -= taken
            spent += taken
        return spent


class Books(RuleBasedStateMachine):
    """Purchases with grants, spends and resends, at moving times, decided in batches of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now = NOON
        self.head = Head(0, bytes(32), BEFORE_ALL_ENTRIES)
        self.caches = BookCaches(0)
        self.queue: list[tuple[int, Purchase]] = []
        self.sent: list[tuple[int, Purchase, int]] = []
        self.receipts = 0

    @initialize(batch=st.sampled_from([1, 2, 7, 512]))
    def choose_batch_size(self, batch: int) -> None:
        self.batch = batch

    @rule(
        shopper=st.integers(0, 2),
        earn=st.lists(st.tuples(st.integers(1, 500), st.integers(-2, 5), st.none() | st.integers(-1, 9)), max_size=3),
        spend=st.none() | st.integers(1, 900),
    )
    def buy(self, shopper: int, earn: list[tuple[int, int, int | None]], spend: int | None) -> None:
        grants = [
            Grant(points, self._in(pending) if pending > 0 else None, self._in(lapse) if lapse is not None else None)
            for points, pending, lapse in earn
        ]
        self.receipts += 1
        self.queue.append((shopper, purchase(self.receipts, SHOPPERS[shopper], earn=grants, spend=spend)))
        if len(self.queue) >= self.batch:
            self.commit()

    @rule(pick=st.integers(0))
    def resend(self, pick: int) -> None:
        if self.sent:
            _, command, number = self.sent[pick % len(self.sent)]
            decision = decide(self._state([command]), [command], self.now)
            assert decision.verdicts == [Repeat(0, number)]
            assert not decision.entries, "a resend writes nothing"

    @rule(hours=st.integers(-3, 60))
    def time_passes(self, hours: int) -> None:
        self.commit()
        self.now += timedelta(hours=hours)

    @rule()
    def commit(self) -> None:
        batch, self.queue = self.queue, []
        if not batch:
            return
        decision = decide(self._state([command for _, command in batch]), [command for _, command in batch], self.now)
        for (shopper, command), verdict, row in zip(batch, decision.verdicts, decision.entries, strict=True):
            assert isinstance(verdict, Booked)
            entry = EntryRecord(0, *row)
            assert entry.hash_after(self.head.hash) == entry.hash
            event = journal_pb2.Event.FromString(verdict.event)
            postings = postings_of(event, entry.number, entry.member_id)
            assert postings == [posting for posting in decision.postings if posting.number == entry.number]
            self.caches.apply(entry, postings)
            self.head = Head(entry.number, entry.hash, entry.booked_at)
            self._follow(shopper, command, event, entry.booked_at)
            self.sent.append((shopper, command, entry.number))

    def _follow(self, shopper: int, command: Purchase, event: journal_pb2.Event, booked_at: datetime) -> None:
        """Do the same to the model, and compare what the shopper was told."""
        spent = self.model.spend(shopper, command.spend.points_minor, booked_at) if command.spend else 0
        assert event.settlement.spent_points_minor == spent
        for grant in command.grants:
            active = grant.active_at or booked_at
            self.model.lots.setdefault(shopper, []).append(ModelLot(grant.points_minor, active, grant.expires_at))
        have = sum(lot.left for lot in self.model.usable(shopper, booked_at))
        assert event.settlement.balance.available_points_minor == have

    @invariant()
    def nobody_has_less_than_nothing(self) -> None:
        for account in self.caches.accounts.values():
            assert min(account.available_minor, account.pending_minor, account.held_minor, account.debt_minor) >= 0

    @invariant()
    def lots_and_balances_agree(self) -> None:
        for key, account in self.caches.accounts.items():
            lots = [lot for (owner, _, _), lot in self.caches.lots.items() if owner == key]
            assert account.available_minor == sum(lot.remaining_minor for lot in lots if not lot.pending)
            assert account.pending_minor == sum(lot.remaining_minor for lot in lots if lot.pending)

    @invariant()
    def the_books_balance(self) -> None:
        assert sum(credit - debit for debit, credit in self.caches.totals.values()) == 0

    def teardown(self) -> None:
        self.commit()

    def _in(self, days: int) -> datetime:
        return self.now + timedelta(days=days)

    def _state(self, commands: list[Purchase]) -> BookState:
        """What a batch reads: the caches as the journal has them, lots only where they are needed."""
        self.caches.settle()
        spenders = {c.member_id for c in commands if c.spend is not None}
        accounts: dict[tuple[object, int], Account] = {}
        for key, account in self.caches.accounts.items():
            due = account.next_change_at is not None and account.next_change_at <= max(
                self.now, self.head.booked_at
            ) + timedelta(seconds=1)
            copied = copy.copy(account)
            copied.lots = self._lots_of(key) if key[0] in spenders or due else None
            accounts[key] = copied
        return BookState(
            0,
            self.head,
            dict(self.caches.messages),
            dict(self.caches.receipts),
            accounts,  # type: ignore[arg-type]  # keys
        )

    def _lots_of(self, key: object) -> list[Lot]:
        return [copy.copy(lot) for (owner, _, _), lot in self.caches.lots.items() if owner == key]


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


def same_history(batch_size: int) -> tuple[object, ...]:
    """Run one fixed history in batches of a size; return the state it ends in, times aside."""
    machine = Books()
    machine.batch = batch_size
    for step in range(200):
        earn = [(step % 7 + 1, 0, step % 5 if step % 3 else None)]
        machine.buy(step % 3, earn, step % 11 if step % 4 == 0 and step % 11 else None)
    machine.commit()
    accounts = {key: (a.available_minor, a.pending_minor) for key, a in machine.caches.accounts.items()}
    lots = {key: lot.remaining_minor for key, lot in machine.caches.lots.items()}
    return accounts, lots, machine.head.number


def test_batch_sizes_do_not_matter() -> None:
    outcomes = [same_history(size) for size in (1, 2, 7, 512)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
