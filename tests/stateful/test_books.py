"""Random histories against a small model: what members have, lot by lot, however the commands fall into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.entry.model import (
    ADJUSTED,
    CLEARING,
    DEBT,
    EXPIRED,
    ISSUED,
    REDEEMED,
    Booked,
    BudgetSlice,
    Command,
    CounterChange,
    Declined,
    FoundUnderFence,
    Grant,
    Purchase,
    Repeat,
)
from ledger.entry.model import Counter as Counted
from ledger.entry.usage import COUPON_USED
from tests.stateful.model import FOREVER, ModelLot, ModelMember, ModelSale, split
from tests.support.commands import (
    BONUS,
    NOON,
    Line,
    adjust,
    cancel,
    checkout,
    goods_return,
    hold,
    keeping,
    lease_budget,
    member,
    pass_time,
    planned,
    promoted,
    purchase,
    transfer_in,
    transfer_out,
)
from tests.support.memory_book import MemoryBook

Follow = Callable[[Booked | Declined | Repeat | None, datetime], None]
MEMBERS = 3
COUPONS = {"": 0, "CAKE": 1, "TEA": 2}
"""Coupons and how often each can be used; the empty one stands for none."""
SPRING, VISITS, GIVEN = "spring/money", "visit/ever", "use/spring/ever"
NONE = Counted()
BUDGET, OFF, MOST = 400, 30, 100
"""A budget of all, what a receipt gets of it, and the most that a member gets."""
lot_terms = st.tuples(st.integers(1, 500), st.integers(-2, 5), st.none() | st.integers(-1, 9))


class Books(RuleBasedStateMachine):
    """All that can happen to points, at moving times, decided in batches of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.book = MemoryBook()
        self.members = [ModelMember() for _ in range(MEMBERS)]
        self.now = NOON
        self.batch = 1
        self.queue: list[tuple[Command, Follow]] = []
        self.booked: list[tuple[Command, int]] = []
        self.sales: dict[int, tuple[int, ModelSale, Booked]] = {}
        self.numbers = 0
        self.orders = 0
        self.used: Counter[str] = Counter()
        self.leased = 0
        self.budget_left = 0

    @initialize(batch=st.sampled_from([1, 2, 7, 512]))
    def choose_batch_size(self, batch: int) -> None:
        self.batch = batch

    # --- what happens ----------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, MEMBERS - 1),
        lines=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 900)), min_size=1, max_size=3),
        terms=lot_terms,
        spend=st.none() | st.integers(1, 900),
        lane=st.none() | st.integers(1, 3),
        coupon=st.sampled_from(sorted(COUPONS)),
    )
    def buy(
        self,
        who: int,
        lines: list[tuple[int, int]],
        terms: tuple[int, int, int | None],
        spend: int | None,
        lane: int | None,
        coupon: str,
    ) -> None:
        """A receipt: each line earns a tenth; points pay whatever the shopper likes; a hold is captured if open.

        It uses a coupon that can be used, and gets what a member's limit and the shared budget leave.
        """
        number = self.number()
        bought = [Line(units * 1000, amount, amount // 10) for units, amount in lines]
        earned = sum(line.earned_minor for line in bought)
        spend = None if spend is None else min(spend, sum(line.amount_minor for line in bought))
        earn = [self.grant(earned, terms)] if earned else []
        key = None if lane is None else self.checkout_of(who, lane)
        unplanned = purchase(number, member(who), lines=bought, spend=spend, earn=earn, captures=key)
        visit = CounterChange(VISITS, 1, sum(line.amount_minor for line in bought), earned)

        def plan(found: FoundUnderFence) -> Purchase:
            left = MOST - found.counters.get(GIVEN, NONE).money_minor
            off = max(0, min(OFF, left, found.budgets[SPRING]))
            used = {coupon: COUPONS[coupon]} if coupon and not found.coupons[coupon] else {}
            counts = [visit, CounterChange(GIVEN, money_minor=off)]
            return promoted(unplanned, coupons=used, counts=counts, budgets={SPRING: off})

        claimed = {coupon: COUPONS[coupon]} if coupon else {}
        command = planned(unplanned, plan, coupons=claimed, budgets=[SPRING])

        def follow(outcome: object, now: datetime) -> None:
            assert isinstance(outcome, Booked)
            used, off = self.promoted(outcome, now, who, visit, coupon, f"{who}-{lane}")
            self.bought(outcome, now, who, number, bought, earn, spend or 0, lane)
            sale = self.sales[number][1]
            sale.coupon, sale.off = used, off

        self.send(command, follow)

    def promoted(
        self, outcome: Booked, now: datetime, who: int, visit: CounterChange, coupon: str, checkout_name: str
    ) -> tuple[str, int]:
        """Follow what a receipt counts and uses up; return the coupon that it used, and what its promotion gave."""
        shopper, event = self.members[who], self.book.settlement(outcome)
        shopper.pass_time(now)
        own = shopper.kept.get(checkout_name) == coupon
        used = coupon if coupon and (own or self.free(coupon) > 0) else ""
        assert [each.code for each in event.coupon_changes if each.action == COUPON_USED] == ([used] if used else [])
        self.used[used] += 1
        off = max(0, min(OFF, MOST - shopper.given, self.budget_left))
        assert sum(use.amount for use in event.budget_uses) == off
        shopper.given += off
        self.budget_left -= off
        for index, figure in enumerate(visit[1:4]):
            shopper.counted[index] += figure
        return used, off

    def free(self, coupon: str, *, but_for: ModelMember | None = None, instead: ModelMember | None = None) -> int:
        """How many uses of a coupon nobody has; one member may be looked at as another."""
        members = [instead if instead and each is but_for else each for each in self.members]
        return COUPONS[coupon] - self.used[coupon] - self.kept(coupon, members)

    @staticmethod
    def kept(coupon: str, members: Sequence[ModelMember]) -> int:
        return sum(list(shopper.kept.values()).count(coupon) for shopper in members)

    @rule(part=st.integers(1, 150))
    def give_the_book_a_part_of_the_budget(self, part: int) -> None:
        part = min(part, BUDGET - self.leased)
        if part == 0:
            return
        self.leased += part

        def given(outcome: object, _now: datetime) -> None:
            assert isinstance(outcome, Booked)
            self.budget_left += part

        self.send(lease_budget(SPRING, part, leased=self.leased, budget=BUDGET), given)

    def bought(
        self,
        outcome: object,
        now: datetime,
        who: int,
        number: int,
        lines: list[Line],
        earn: list[Grant],
        spend: int,
        lane: int | None,
    ) -> None:
        assert isinstance(outcome, Booked)
        shopper, event = self.members[who], self.book.settlement(outcome)
        shopper.pass_time(now)
        parts: list[tuple[ModelLot, int]] = []
        if f"{who}-{lane}" in shopper.holds:
            parts = shopper.release(f"{who}-{lane}", now, keep=spend)
        parts += shopper.take(spend - sum(points for _, points in parts), now)
        spent = sum(points for _, points in parts)
        assert event.settlement.spent_points_minor == spent
        shopper.totals["redeemed"] += spent
        for grant in earn:
            shopper.totals["issued"] += grant.points_minor
            shopper.grant(self.lot(grant, now, outcome.number), now)
        amounts = [line.amount_minor for line in lines]
        paid = self.largest_remainder(spent, amounts)
        units = [line.quantity_milli // 1000 for line in lines]
        pairs = [
            list(zip(split(points, n), split(line.earned_minor, n), split(line.amount_minor - points, n), strict=True))
            for line, points, n in zip(lines, paid, units, strict=True)
        ]
        self.sales[number] = (who, ModelSale(pairs, [0] * len(lines), parts), outcome)

    @rule(pick=st.integers(0), part=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def bring_back(self, pick: int, part: list[int]) -> None:
        """Some units of a receipt come back, or more than there are."""
        self.commit()
        if not self.sales:
            return
        sold = sorted(self.sales)[pick % len(self.sales)]
        who, sale, booked = self.sales[sold]
        asked = [(line, units * 1000) for line, units in enumerate(part[: len(sale.units)], start=1) if units]
        lines = [units for _, units in zip(sale.units, part, strict=False)]
        if not asked:
            lines = [len(units) - back for units, back in zip(sale.units, sale.back, strict=True)]
        fits = all(
            back + units <= len(all_units) for back, units, all_units in zip(sale.back, lines, sale.units, strict=True)
        ) and any(lines)

        def returned(outcome: object, now: datetime) -> None:
            if not fits:
                assert isinstance(outcome, Declined)
                assert outcome.reason == common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE
                return
            assert isinstance(outcome, Booked)
            shopper = self.members[who]
            shopper.pass_time(now)
            shopper.give_back(sale, booked.number, lines, now)
            if sale.complete:
                self.used[sale.coupon] -= 1
                self.budget_left += sale.off

        self.send(goods_return(self.number(), booked, asked, terms=self.book.terms), returned)

    @rule(
        who=st.integers(0, MEMBERS - 1),
        lane=st.integers(1, 3),
        points=st.integers(0, 600),
        takes_over=st.booleans(),
        coupon=st.sampled_from(sorted(COUPONS)),
    )
    def hold(self, who: int, lane: int, points: int, takes_over: bool, coupon: str) -> None:
        """A checkout keeps points and a coupon, perhaps in place of others."""
        key, name = self.checkout_of(who, lane), f"{who}-{lane}"
        message = f"hold {self.number()}"
        command = hold(
            key, member(who), points, ttl_seconds=3600, takeover="broken lane" if takes_over else "", message=message
        )
        if coupon:
            command = keeping(command, {coupon: COUPONS[coupon]})

        def held(outcome: object, now: datetime) -> None:
            shopper = self.members[who]
            if isinstance(outcome, Declined):
                self.refused_hold(shopper, outcome, name, points, takes_over, coupon, now)
                return
            assert isinstance(outcome, Booked)
            shopper.pass_time(now)
            for other in [other for other in shopper.holds if takes_over or other == name]:
                shopper.release(other, now)
            assert not coupon or self.free(coupon) > 0
            shopper.kept |= {name: coupon} if coupon else {}
            shopper.holds[name] = (now + timedelta(hours=1), shopper.take(points, now))
            assert sum(part for _, part in shopper.holds[name][1]) == points

        self.send(command, held)

    def refused_hold(
        self,
        shopper: ModelMember,
        refused: Declined,
        name: str,
        points: int,
        takes_over: bool,
        coupon: str,
        now: datetime,
    ) -> None:
        if refused.reason == common_pb2.REFUSAL_REASON_HOLD_GONE:
            assert name not in shopper.holds, "its checkout was paid before"
            return
        trial = deepcopy(shopper)  # a refusal changes nothing, so its time does not pass either
        trial.pass_time(now)
        for other in [other for other in trial.holds if takes_over or other == name]:
            trial.release(other, now)
        if points <= trial.have(now):
            assert coupon
            assert self.free(coupon, but_for=shopper, instead=trial) <= 0
            others = [trial if each is shopper else each for each in self.members]
            kept = self.kept(coupon, others) > 0
            assert (refused.reason == common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE) == kept
            assert (refused.reason == common_pb2.REFUSAL_REASON_COUPON_USED) != kept
            return
        elsewhere = bool(trial.holds) and points <= trial.have(now) + trial.held()
        assert (refused.reason == common_pb2.REFUSAL_REASON_HELD_ELSEWHERE) == elsewhere

    @rule(who=st.integers(0, MEMBERS - 1), lane=st.integers(1, 3))
    def cancel(self, who: int, lane: int) -> None:
        """A register releases what it holds."""
        name = f"{who}-{lane}"
        command = cancel(self.checkout_of(who, lane), member(who), message=f"cancel {self.number()}")

        def cancelled(outcome: object, now: datetime) -> None:
            shopper = self.members[who]
            assert isinstance(outcome, Booked) == (name in shopper.holds)
            if isinstance(outcome, Booked):
                shopper.pass_time(now)
                if name in shopper.holds:
                    shopper.release(name, now)

        self.send(command, cancelled)

    @rule(who=st.integers(0, MEMBERS - 1), terms=lot_terms, takes=st.booleans())
    def correct(self, who: int, terms: tuple[int, int, int | None], takes: bool) -> None:
        """Finance grants or takes points by hand."""
        name = f"correction {self.number()}"
        points = -terms[0] if takes else self.grant(terms[0], terms)

        def corrected(outcome: object, now: datetime) -> None:
            shopper = self.members[who]
            if isinstance(outcome, Declined):
                return
            assert isinstance(outcome, Booked)
            shopper.pass_time(now)
            if isinstance(points, Grant):
                shopper.grant(self.lot(points, now), now)
            else:
                for lot, part in shopper.take(-points, now):
                    lot.lost += part
            shopper.totals["adjusted"] += points.points_minor if isinstance(points, Grant) else points

        self.send(adjust(name, member(who), points), corrected)

    @rule(giver=st.integers(0, MEMBERS - 1), step=st.integers(1, MEMBERS - 1))
    def merge(self, giver: int, step: int) -> None:
        """All that a member has goes to another one."""
        self.commit()
        taker, name = (giver + step) % MEMBERS, f"merge {self.number()}"
        debt = self.book.account(giver).debt_minor
        sent: list[Grant] = []
        counted, given = self.members[giver].counted, self.members[giver].given
        counts = [CounterChange(GIVEN, money_minor=given), CounterChange(VISITS, counted[0], counted[1], counted[2])]

        def gone(outcome: object, now: datetime) -> None:
            nonlocal debt
            assert isinstance(outcome, Booked)
            shopper = self.members[giver]
            shopper.pass_time(now)
            for other in list(shopper.holds):
                shopper.release(other, now)
            debt = shopper.debt
            for lot in sorted(shopper.lots, key=lambda lot: (lot.lapses, lot.order)):
                if lot.left:
                    active = lot.active if lot.active > now else None
                    lapses = None if lot.lapses >= NOON + FOREVER / 2 else lot.lapses
                    sent.append(Grant(lot.left, active, lapses, issued_at=NOON))
                    lot.left = 0
            shopper.debt = 0
            shopper.counted, shopper.given = [0, 0, 0], 0
            moved = [p for p in self.book.settlement(outcome).postings if p.credit == CLEARING]
            assert sorted(p.points_minor for p in moved) == sorted(grant.points_minor for grant in sent)

        def come(outcome: object, now: datetime) -> None:
            assert isinstance(outcome, Booked)
            shopper = self.members[taker]
            shopper.pass_time(now)
            shopper.debt += debt
            for lot in shopper.usable(now):
                shopper.pay_debt(lot)
            for grant in sent:
                shopper.grant(self.lot(grant, now), now)
            shopper.counted = [mine + theirs for mine, theirs in zip(shopper.counted, counted, strict=True)]
            shopper.given += given

        self.send(transfer_out(name, member(giver), member(taker), None, counters=True), gone)
        self.commit()
        self.send(transfer_in(name, member(giver), member(taker), sent, debt, counts=counts), come)
        self.commit()

    @rule(who=st.integers(0, MEMBERS - 1))
    def sweep(self, who: int) -> None:
        """The sweeper finds a member whose time has passed, or not."""
        self.send(pass_time(member(who)), lambda _outcome, now: self.members[who].pass_time(now))

    @rule(pick=st.integers(0))
    def resend(self, pick: int) -> None:
        """A register that did not hear the answer sends the same again."""
        self.commit()
        if self.booked:
            command, number = self.booked[pick % len(self.booked)]
            decision = self.book.commit([command], self.now)
            assert decision.verdicts == [Repeat(0, number)]
            assert not decision.entries, "a resend writes nothing"

    @rule(minutes=st.integers(-180, 6000))
    def time_passes(self, minutes: int) -> None:
        """The clock goes on, or is set back."""
        self.commit()
        self.now += timedelta(minutes=minutes)

    @rule()
    def commit(self) -> None:
        """The batch is decided, and the model does the same, entry by entry."""
        batch, self.queue = self.queue, []
        if not batch:
            return
        before = self.book.head
        decision = self.book.commit([command for command, _ in batch], self.now)
        at = max(self.now, before.booked_at + timedelta(microseconds=1))
        for (command, follow), verdict in zip(batch, decision.verdicts, strict=True):
            if isinstance(verdict, Booked):
                at = verdict.booked_at
                if command.message_id is not None:
                    self.booked.append((command, verdict.number))
                at_next = at + timedelta(microseconds=1)
            else:
                at_next = at
            follow(verdict if isinstance(verdict, (Booked, Declined, Repeat)) else None, at)
            at = max(self.now, at_next)

    # --- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        if self.queue:
            return
        for who, shopper in enumerate(self.members):
            account = self.book.account(who)
            assert account.held_minor == shopper.held()
            assert account.debt_minor == shopper.debt
            assert account.available_minor + account.pending_minor == sum(lot.left for lot in shopper.lots)
            assert [lot.remaining_minor for lot in self.book.lots(who) if lot.remaining_minor] == [
                lot.left for lot in sorted(shopper.lots, key=lambda lot: lot.order) if lot.left
            ]

    @invariant()
    def what_is_counted_and_used_is_that_of_the_model(self) -> None:
        if self.queue:
            return
        usage = self.book.caches.usage
        for who, shopper in enumerate(self.members):
            counters = usage.counters.get(member(who), {})
            assert list(counters.get(VISITS, NONE)[:3]) == shopper.counted
            assert counters.get(GIVEN, NONE).money_minor == shopper.given <= MOST * MEMBERS
        taken = Counter((slot.code, use.held) for slot, use in usage.coupons.items())
        for coupon in filter(None, COUPONS):
            assert taken[coupon, False] == self.used[coupon]
            assert taken[coupon, True] == self.kept(coupon, self.members)
            assert self.free(coupon) >= 0
        part = usage.slices.get(SPRING, BudgetSlice(0, 0))
        assert (part.granted, part.granted - part.used) == (self.leased, self.budget_left)

    @invariant()
    def nobody_has_less_than_nothing_nor_points_beside_a_debt(self) -> None:
        for account in self.book.caches.accounts.values():
            assert min(account.available_minor, account.pending_minor, account.held_minor, account.debt_minor) >= 0
            assert account.available_minor == 0 or account.debt_minor == 0

    @invariant()
    def lots_and_balances_agree(self) -> None:
        for key, account in self.book.caches.accounts.items():
            lots = [lot for (owner, _, _), lot in self.book.caches.lots.items() if owner == key]
            assert account.available_minor == sum(lot.remaining_minor for lot in lots if not lot.pending)
            assert account.pending_minor == sum(lot.remaining_minor for lot in lots if lot.pending)
            assert account.held_minor == sum(lot.held_minor for lot in lots)

    @invariant()
    def the_programme_s_totals_are_those_of_the_model(self) -> None:
        totals: Counter[int] = Counter()
        for (_, _, account), (debit, credit) in self.book.caches.totals.items():
            totals[account] += credit - debit
        assert sum(totals.values()) == 0
        assert totals[CLEARING] == 0 or self.queue
        if self.queue:
            return
        model: Counter[str] = Counter()
        for shopper in self.members:
            model.update(shopper.totals)
        assert totals[ISSUED] == model["clawed back"] - model["issued"]
        assert totals[REDEEMED] == model["redeemed"] - model["refunded"]
        assert totals[EXPIRED] == model["expired"]
        assert totals[ADJUSTED] == -model["adjusted"]
        assert totals[DEBT] == -sum(shopper.debt for shopper in self.members)

    def teardown(self) -> None:
        self.commit()

    # --- tools -----------------------------------------------------------------------------------------------------

    def send(self, command: Command, follow: Follow) -> None:
        self.queue.append((command, follow))
        if len(self.queue) >= self.batch:
            self.commit()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def grant(self, points: int, terms: tuple[int, int, int | None]) -> Grant:
        _, pending, lapse = terms
        active = self.now + timedelta(days=pending) if pending > 0 else None
        return Grant(points, active, None if lapse is None else self.now + timedelta(days=lapse))

    def lot(self, grant: Grant, now: datetime, sale: int = 0) -> ModelLot:
        self.orders += 1
        return ModelLot(
            self.orders, grant.points_minor, grant.active_at or now, grant.expires_at or NOON + FOREVER, sale
        )

    def checkout_of(self, who: int, lane: int) -> checkout_pb2.CheckoutKey:
        return checkout(f"{who}-{lane}", str(lane))

    @staticmethod
    def largest_remainder(amount: int, weights: list[int]) -> list[int]:
        parts = [amount * weight // sum(weights) for weight in weights]
        order = sorted(range(len(weights)), key=lambda index: -(amount * weights[index] % sum(weights)))
        for index in order[: amount - sum(parts)]:
            parts[index] += 1
        return parts


Books.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


def same_history(batch_size: int) -> tuple[object, ...]:
    """Run one fixed history in batches of a size; return the state it ends in, times aside."""
    machine = Books()
    machine.batch = batch_size
    for step in range(300):
        who, lapse = step % 3, step % 5 if step % 3 else None
        match step % 7:
            case 0 | 1 | 2:
                spend = step % 11 * 9 if step % 2 else None
                lines, coupon = [(step % 3 + 1, step * 7 % 900 + 1)], sorted(COUPONS)[step % 3]
                machine.buy(who, lines, (1, 0, lapse), spend, step % 4 or None, coupon)
            case 3:
                coupon = sorted(COUPONS)[step % 2]
                machine.hold(who, step % 3 + 1, step % 50, takes_over=step % 2 == 0, coupon=coupon)
            case 4:
                machine.cancel(who, step % 3 + 1)
            case 5:
                machine.correct(who, (step % 90 + 1, 0, lapse), takes=step % 4 == 0)
            case 6:
                machine.sweep(who)
                machine.give_the_book_a_part_of_the_budget(step)
    machine.commit()
    accounts = {
        key: (a.available_minor, a.pending_minor, a.held_minor, a.debt_minor)
        for key, a in machine.book.caches.accounts.items()
    }
    lots = [(key[0], lot.remaining_minor, lot.held_minor) for key, lot in sorted(machine.book.caches.lots.items())]
    return accounts, lots, machine.book.head.number, BONUS.number


def test_batch_sizes_do_not_matter() -> None:
    outcomes = [same_history(size) for size in (1, 2, 7, 512)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
