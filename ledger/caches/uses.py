"""What a book's caches of counters, coupons and budgets must hold, worked out from its journal alone."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from tallypoint.v1 import journal_pb2

from ledger.entry.chain import EntryRecord
from ledger.entry.counters import apply_changes, changes_of
from ledger.entry.model import BudgetSlice, Counter, CounterChange, CouponSlot, OpenHold, SlotUse
from ledger.entry.reversing import CLUBS, STANDINGS
from ledger.entry.semantics import FIRST
from ledger.entry.usage import COUPON_HELD, COUPON_RELEASED, COUPON_REVOKED, COUPON_USED


class UsageError(Exception):
    """An entry counts or uses what it cannot."""


class Issued(NamedTuple):
    """A coupon that a receipt gave for later ones."""

    number: int
    member_id: uuid.UUID
    series: str
    valid_from: date
    valid_until: date | None


@dataclass(slots=True)
class UsageCaches:
    """The counters, uses of coupons and parts of budgets of one book, as of the entries applied so far, in order.

    Without ``whole`` only some members' entries are applied, so what they use of the book's budgets cannot be judged.
    """

    book: int
    whole: bool = True
    counters: dict[uuid.UUID, dict[str, Counter]] = field(default_factory=dict)
    coupons: dict[CouponSlot, SlotUse] = field(default_factory=dict)
    issued: dict[str, Issued] = field(default_factory=dict)
    slices: dict[str, BudgetSlice] = field(default_factory=dict)
    used_by: dict[int, set[CouponSlot]] = field(default_factory=lambda: defaultdict(set))
    """The uses that purchases have, by the purchase's number."""

    def apply(self, entry: EntryRecord, event: journal_pb2.Event, ended: Collection[OpenHold]) -> None:
        """Take in the next entry; ``ended`` are the holds that end with it.

        Raises:
            UsageError: if a coupon is used that is not free, a hold that ends keeps one, or a budget is overdrawn.
            ValueError: if a day is not one of the calendar.
        """
        if event.counter_changes and entry.member_id is not None:
            before, changes = self.counters.get(entry.member_id, {}), changes_of(event)
            if event.HasField("goods_return"):
                _check_lowers(before, changes)
            self.counters[entry.member_id] = apply_changes(before, changes, min(entry.booked_at, entry.event_at))
        if event.HasField("purchase"):
            self._issue(entry, event)
        if event.coupon_changes or any(hold.coupons for hold in ended):
            self._follow_coupons(entry, event, ended)
        if event.HasField("goods_return") and event.goods_return.so_far.complete:
            left = self.used_by.pop(event.goods_return.purchase_number, None)
            if left:
                raise UsageError(f"all goods came back, and coupon {min(left).code} stays used")
        if event.HasField("budget_lease"):
            self._add(event.budget_lease.key, event.budget_lease.amount, 0)
        for use in event.budget_uses:
            self._add(use.key, 0, use.amount)

    def _issue(self, entry: EntryRecord, event: journal_pb2.Event) -> None:
        for coupon in event.purchase.issued_coupons:
            if not coupon.code or entry.member_id is None:
                continue
            if coupon.code in self.issued:
                raise UsageError(f"it gives coupon {coupon.code}, which was given before")
            until = date.fromisoformat(coupon.valid_until) if coupon.valid_until else None
            first = date.fromisoformat(coupon.valid_from)
            self.issued[coupon.code] = Issued(entry.number, entry.member_id, coupon.series, first, until)

    def _follow_coupons(self, entry: EntryRecord, event: journal_pb2.Event, ended: Collection[OpenHold]) -> None:
        let_go = {SlotUse(self.book, hold.number, held=True) for hold in ended}
        # The first semantics gave coupons back with the last goods only.
        may_release = event.goods_return.so_far.complete or event.semantics != FIRST
        back = event.goods_return.purchase_number if may_release else 0
        bought = SlotUse(self.book, back, held=False)
        for change in event.coupon_changes:
            slot, action = CouponSlot(change.code, change.slot), int(change.action)
            use = self.coupons.get(slot)
            place = f"use {slot.slot} of coupon {slot.code}"
            if action == COUPON_RELEASED:
                if use is None or (use not in let_go and use != bought):
                    raise UsageError(f"it lets go of {place}, which it does not have")
                self._drop(slot, use)
            elif use is not None and not (action == COUPON_USED and use in let_go):
                raise UsageError(f"it takes {place}, which entry {use.number} has")
            elif action == COUPON_REVOKED and (slot.code not in self.issued or self.issued[slot.code].number != back):
                raise UsageError(f"it revokes {place}, which the goods that came back did not give")
            else:
                self._take(
                    slot, SlotUse(self.book, entry.number, held=action == COUPON_HELD), counts=action == COUPON_USED
                )
        for hold in ended:
            for slot in hold.coupons:
                if self.coupons.get(slot) in let_go:
                    raise UsageError(f"it ends hold {hold.number}, and coupon {slot.code} stays kept")

    def _take(self, slot: CouponSlot, use: SlotUse, *, counts: bool) -> None:
        self.coupons[slot] = use
        if counts:
            self.used_by[use.number].add(slot)

    def _drop(self, slot: CouponSlot, use: SlotUse) -> None:
        del self.coupons[slot]
        if not use.held:
            self.used_by[use.number].discard(slot)

    def _add(self, key: str, granted: int, used: int) -> None:
        before = self.slices.get(key, BudgetSlice(0, 0))
        after = self.slices[key] = BudgetSlice(before.granted + granted, before.used + used)
        if self.whole and after.used < 0:
            raise UsageError(f"it gives back more of budget {key!r} than the book has used")
        if self.whole and after.used > after.granted:
            raise UsageError(f"it uses more of budget {key!r} than the book was given: {after.used} of {after.granted}")


def _check_lowers(before: Mapping[str, Counter], changes: Iterable[CounterChange]) -> None:
    """A return ends memberships and levels, or moves their last day back; it gives none."""
    for change in changes:
        if not change.key.startswith((CLUBS, STANDINGS)):
            continue
        counter = before.get(change.key, Counter())
        if change.times > 0 or (change.until and counter.until and change.until > counter.until):
            raise UsageError(f"it takes goods back, and raises {change.key}")


def slots_kept(event: journal_pb2.Event) -> tuple[CouponSlot, ...]:
    """Return the uses of coupons that a hold keeps, sorted."""
    return tuple(
        sorted(CouponSlot(each.code, each.slot) for each in event.coupon_changes if each.action == COUPON_HELD)
    )
