"""What an entry counts and uses up beside points: members' counters, uses of coupons, and parts of shared budgets.

A coupon with n uses has the slots 0 to n - 1; a slot is free, kept by a hold, or used up by an entry. When a hold ends
its slots come free, unless the receipt that captured it used them. A slot that another checkout keeps is free no sooner
than that hold's end is booked, even if its time is over: the sweeper books it within its interval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.counters import apply_changes, changes_of, oldest_day, write_changes
from ledger.entry.model import (
    BookState,
    BudgetSlice,
    Command,
    Counter,
    CounterChange,
    CouponClaim,
    CouponSlot,
    Decision,
    Declined,
    FoundUnderFence,
    Hold,
    LeaseBudget,
    Purchase,
    Relevelled,
    Return,
    SlotUse,
    Spendable,
    TransferIn,
    TransferOut,
)
from ledger.entry.movement import DamagedCaches, Draft, open_hold, trial
from ledger.entry.reversing import CLUBS, VISITS, Reversed, reversed_of

COUPON_HELD = int(journal_pb2.COUPON_ACTION_HELD)
COUPON_USED = int(journal_pb2.COUPON_ACTION_USED)
COUPON_RELEASED = int(journal_pb2.COUPON_ACTION_RELEASED)
COUPON_REVOKED = int(journal_pb2.COUPON_ACTION_REVOKED)

_NO_CHANGE = CounterChange("")[1:]

MAX_USES = 32_767
"""The most uses of one coupon that are counted one by one."""

_USES_OF_ISSUED = 1
"""How often a coupon that a receipt gave may be used. Revoked while that use is taken, it has one use more taken."""


class BudgetExceeded(Exception):
    """A receipt was to use more of a shared budget than its book has of it: a mistake in whoever planned it."""


# --- what a batch must read ---------------------------------------------------------------------------------------


def codes_concerned(command: Command) -> list[str]:
    """Return the coupons whose uses a command may change, those of holds aside."""
    if isinstance(command, (Purchase, Hold)):
        return [claim.code for claim in command.claims]
    if isinstance(command, Return):
        purchase = journal_pb2.Event.FromString(command.purchase)
        return [slot.code for slot in used_slots(purchase)] + issued_codes(purchase)
    return []


def budgets_concerned(command: Command) -> Sequence[str]:
    """Return the shared budgets of which a command needs its book's part."""
    if isinstance(command, Purchase):
        return command.budget_keys
    if isinstance(command, Return):
        return [use.key for use in journal_pb2.Event.FromString(command.purchase).budget_uses]
    return (command.key,) if isinstance(command, LeaseBudget) else ()


def is_counted(command: Command) -> bool:
    """Say whether a command may look at its member's counters, or change them."""
    if isinstance(command, Purchase):
        return command.plan is not None or bool(command.counts)
    if isinstance(command, TransferOut):
        return command.counters
    return isinstance(command, Return) or (isinstance(command, TransferIn) and bool(command.counts))


def used_slots(purchase: journal_pb2.Event) -> list[CouponSlot]:
    """Return the uses of coupons that a purchase took."""
    return [CouponSlot(each.code, each.slot) for each in purchase.coupon_changes if each.action == COUPON_USED]


def issued_codes(purchase: journal_pb2.Event) -> list[str]:
    """Return the coupons that a purchase gave for later ones."""
    return [coupon.code for coupon in purchase.purchase.issued_coupons if coupon.code]


# --- before an entry ----------------------------------------------------------------------------------------------


def planned(state: BookState, command: Command, draft: Draft) -> Command:
    """Return the command as it is to be booked: a purchase with a plan is made whole by what stands in the books."""
    if not isinstance(command, Purchase) or command.plan is None:
        return command
    ending = _ending_with(state, command, draft)
    counters = {} if command.member_id is None else state.counters.get(command.member_id, {})
    found = FoundUnderFence(
        counters,
        {key: _budget_left(state.budgets.get(key)) for key in command.budget_keys},
        {claim.code: _reason(_slot_for(state, claim, ending, command)) for claim in command.claims},
        _spendable(state, command, draft),
    )
    plan = command.plan(found)
    same = ("book", "member_id", "content_hash", "message_id", "business_key", "checkout_key", "unit")
    assert all(getattr(plan, name) == getattr(command, name) for name in same), "a plan keeps whose receipt it is"
    return plan


def _spendable(state: BookState, command: Purchase, draft: Draft) -> dict[str, Spendable]:
    """Return what a purchase can spend of each unit that it wants to: time passes first, on a throw-away copy."""
    if command.member_id is None:
        return {}
    units = [] if command.spend is None else [command.unit]
    units += [each.unit for each in command.further_spends]
    found = {}
    for unit in dict.fromkeys(units):
        aside = Draft(draft.number, draft.at, draft.earlier_lots)
        account = trial(state, aside, (command.member_id, unit.number)).account
        has_hold = command.checkout_key is not None and unit == command.unit
        hold = open_hold(account, command.checkout_key) if has_hold and command.checkout_key else None
        kept = (0, 0) if hold is None else (hold.points_minor, hold.number)
        found[unit.code] = Spendable(account.available_minor, *kept)
    return found


def _budget_left(part: BudgetSlice | None) -> int:
    return 0 if part is None else part.granted - part.used


def _ending_with(state: BookState, command: Purchase, draft: Draft) -> set[int]:
    """Return the holds that will end with a purchase: its checkout's, and those whose time is over."""
    if command.member_id is None:
        return set()
    account = state.accounts.get((command.member_id, command.unit.number))
    holds = () if account is None else account.holds or ()
    return {hold.number for hold in holds if hold.expires_at <= draft.at or hold.checkout_key == command.checkout_key}


def claim_for_hold(state: BookState, command: Hold, draft: Draft) -> tuple[CouponSlot, ...] | Declined:
    """Return a use of each coupon that a hold wants to keep, or why one cannot be kept."""
    ending = {hold.number for hold, _ in draft.ended}
    slots = []
    for claim in command.claims:
        slot = _slot_for(state, claim, ending, command)
        if isinstance(slot, CouponSlot):
            slots.append(slot)
        elif slot == common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE:
            return Declined(
                slot,
                f"coupon {claim.code} is kept for another checkout; it comes free soon after that is cancelled or "
                "its time is over",
            )
        else:
            return Declined(slot, f"coupon {claim.code} was used as often as it may be")
    return tuple(sorted(slots))


def _slot_for(
    state: BookState, claim: CouponClaim, ending: Collection[int], command: Command
) -> CouponSlot | common_pb2.RefusalReason:
    """Return a use that a command can have, or why there is none; what holds keep that end with it is free for it.

    Of many free uses the command's content picks one: so two books that use one coupon at once seldom meet.
    """
    uses = state.coupons.get(claim.code, {})
    numbers = range(min(claim.uses, MAX_USES))
    for number in numbers if ending else ():
        use = uses.get(number)
        if use is not None and use.held and use.book == state.book and use.number in ending:
            return CouponSlot(claim.code, number)
    free = [number for number in numbers if number not in uses]
    if free and len(uses) < claim.uses:
        return CouponSlot(claim.code, free[int.from_bytes(command.content_hash[:4], "big") % len(free)])
    if any(use.held for use in uses.values()):
        return common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE
    return common_pb2.REFUSAL_REASON_COUPON_USED


def _reason(found: CouponSlot | common_pb2.RefusalReason) -> int:
    return 0 if isinstance(found, CouponSlot) else int(found)


# --- with an entry ------------------------------------------------------------------------------------------------


def apply_usage(state: BookState, decision: Decision, command: Command, draft: Draft, made: journal_pb2.Event) -> None:
    """Book what an entry counts and uses up: into its event, the state and the decision.

    Called once the entry is certain, when its points were moved and the holds that it ends are known.

    Raises:
        BudgetExceeded: if more of a shared budget is to be used than is left of the book's part.
        DamagedCaches: if a coupon's use is not where it must be.
    """
    back = _comes_back(state, command, made) if isinstance(command, Return) else None
    _count(state, decision, command, draft, made, back)
    used: set[CouponSlot] = set()
    if isinstance(command, Purchase):
        if not (draft.ended or command.coupons or command.budgets or command.issued):
            return
        used = _used_by(state, command, draft)
        _use_budgets(state, decision, command, made)
        if command.member_id is not None:
            decision.issued += [(draft.number, command.member_id, coupon) for coupon in command.issued]
    elif isinstance(command, LeaseBudget):
        part = state.budgets.get(command.key, BudgetSlice(0, 0))
        _put_slice(state, decision, command.key, part._replace(granted=part.granted + command.amount))
    slots = _Slots(state, decision, draft.number, made)
    slots.let_go(draft, used)
    slots.take(used, COUPON_USED)
    if draft.began is not None:
        slots.take(draft.began.coupons, COUPON_HELD)
    if isinstance(command, Return) and back is not None:
        _free_budgets(state, decision, back, made)
        slots.give_back(command, back)


class _ComesBack(NamedTuple):
    """What a purchase used and gave, and what of that had come back before a return and has come back with it."""

    purchase: journal_pb2.Event
    before: Reversed
    after: Reversed


def _comes_back(state: BookState, command: Return, made: journal_pb2.Event) -> _ComesBack:
    purchase = journal_pb2.Event.FromString(command.purchase)
    so_far = state.returned.get(command.purchase_number) or journal_pb2.ReturnedSoFar()
    before, after = (
        {line.line_number: line.quantity_milli for line in each.lines} for each in (so_far, made.goods_return.so_far)
    )
    return _ComesBack(purchase, reversed_of(purchase, before), reversed_of(purchase, after))


def _used_by(state: BookState, command: Purchase, draft: Draft) -> set[CouponSlot]:
    """Return the uses that a purchase takes of its coupons."""
    ending = {hold.number for hold, _ in draft.ended}
    claims = {claim.code: claim for claim in command.claims} if command.coupons else {}
    used: set[CouponSlot] = set()
    for code in command.coupons:
        slot = _slot_for(state, claims[code], ending, command)
        assert isinstance(slot, CouponSlot), f"coupon {code} has no use left, and the plan was told so"
        used.add(slot)
    return used


class _Slots:
    """Changes uses of coupons on behalf of one entry."""

    def __init__(self, state: BookState, decision: Decision, number: int, made: journal_pb2.Event) -> None:
        self._state = state
        self._decision = decision
        self._number = number
        self._made = made

    def check(self, slot: CouponSlot, expected: SlotUse) -> None:
        """Raise DamagedCaches if a use is not whose it must be."""
        if self._state.coupons.get(slot.code, {}).get(slot.slot) != expected:
            raise DamagedCaches(
                f"use {slot.slot} of coupon {slot.code} is not with entry {expected.number} of book {expected.book}"
            )

    def let_go(self, draft: Draft, used: Collection[CouponSlot]) -> None:
        """Let go of what ended holds kept, unless the entry itself uses it."""
        for hold, _ in draft.ended:
            for slot in hold.coupons:
                self.check(slot, SlotUse(self._state.book, hold.number, held=True))
                if slot not in used:
                    self.put(slot, None, COUPON_RELEASED)

    def take(self, slots: Iterable[CouponSlot], action: int) -> None:
        """Take uses for the entry."""
        for slot in sorted(slots):
            self.put(slot, SlotUse(self._state.book, self._number, held=action == COUPON_HELD), action)

    def put(self, slot: CouponSlot, use: SlotUse | None, action: int) -> None:
        """Note whose a use is now."""
        uses = self._state.coupons.setdefault(slot.code, {})
        if slot not in self._decision.slots and slot.slot in uses:
            self._decision.given_up.add(slot)
        if use is None:
            del uses[slot.slot]
        else:
            uses[slot.slot] = use
        self._decision.slots[slot] = use
        self._made.coupon_changes.add(code=slot.code, slot=slot.slot, action=action)

    def give_back(self, command: Return, back: _ComesBack) -> None:
        """Give back the coupons that were good for what came back, and revoke those that it would not have given."""
        body, whole = self._made.goods_return, self._made.goods_return.so_far.complete
        codes = [code for code in back.after.coupons if code not in back.before.coupons and not self._is_revoked(code)]
        if whole and not back.purchase.purchase.coupons:  # older than outcomes: all that were presented
            codes = list(back.purchase.purchase.coupon_codes)
        body.coupon_codes.extend(codes)
        bought = SlotUse(self._state.book, command.purchase_number, held=False)
        for slot in used_slots(back.purchase):
            if slot.code in codes or (whole and self._state.coupons.get(slot.code, {}).get(slot.slot) == bought):
                self.check(slot, bought)
                self.put(slot, None, COUPON_RELEASED)
        revoked = SlotUse(self._state.book, self._number, held=False)
        for code in back.after.revoked:
            if not self._state.coupons.get(code):
                self.put(CouponSlot(code, 0), revoked, COUPON_REVOKED)
                body.revoked_coupon_codes.append(code)
            elif code not in back.before.revoked:
                # Whoever brings back what it was used for does not get it back.
                self.put(
                    CouponSlot(code, _USES_OF_ISSUED),
                    SlotUse(self._state.book, self._number, held=False),
                    COUPON_REVOKED,
                )
                body.used_coupon_codes.append(code)

    def _is_revoked(self, code: str) -> bool:
        return _USES_OF_ISSUED in self._state.coupons.get(code, {})


# --- counters and budgets -----------------------------------------------------------------------------------------


def _count(
    state: BookState,
    decision: Decision,
    command: Command,
    draft: Draft,
    made: journal_pb2.Event,
    back: _ComesBack | None,
) -> None:
    counters = {} if command.member_id is None else state.counters.get(command.member_id, {})
    wanted = _changes(command, counters) if back is None else _taken_back(command, counters, back, draft, made)
    changes = [change for change in wanted if change[1:] != _NO_CHANGE]
    if not changes:
        return
    assert command.member_id is not None, "only members have counters"
    as_of = min(draft.at, command.event_at)
    after = apply_changes(counters, changes, as_of)
    if isinstance(command, (Return, TransferIn)) and command.relevel is not None:
        level = command.relevel(counters, after)
        lowered = level.changes
        if isinstance(command, TransferIn):  # both sides of a transfer count the same: a level only ends
            lowered = tuple(change._replace(times=0) for change in lowered)
        changes += lowered
        after = apply_changes(after, lowered, as_of)
        _tell_level(made, level)
    state.counters[command.member_id] = after
    decision.counted.add(command.member_id)
    write_changes(made, changes)


def _tell_level(made: journal_pb2.Event, level: Relevelled) -> None:
    if made.HasField("goods_return") and level.change is not None and level.standing is not None:
        made.goods_return.tier_change.CopyFrom(level.change)
        made.goods_return.standing.CopyFrom(level.standing)


def _changes(command: Command, counters: Mapping[str, Counter]) -> Iterable[CounterChange]:
    """Return what an entry changes in its member's counters; see `_taken_back` for a return."""
    if command.member_id is None:
        return ()
    if isinstance(command, Purchase):
        return command.counts
    if isinstance(command, TransferOut) and command.counters:
        return [
            CounterChange(key, -each.times, -each.money_minor, -each.points_minor, each.until)
            for key, each in sorted(counters.items())
        ]
    if isinstance(command, TransferIn):
        return [change._replace(until=_later_day(change, counters.get(change.key))) for change in command.counts]
    return ()


def _later_day(change: CounterChange, counter: Counter | None) -> date | None:
    """Return the later of two last days; a counter without one keeps that."""
    if counter is None or change.until is None:
        return change.until
    return None if counter.until is None else max(change.until, counter.until)


def _taken_back(
    command: Command, counters: Mapping[str, Counter], back: _ComesBack, draft: Draft, made: journal_pb2.Event
) -> Iterator[CounterChange]:
    """Take what came back out of counters: of the visit that the purchase was, of limits, draws, tiers and clubs."""
    assert isinstance(command, Return), "only returns take back"
    if command.member_id is None:
        return
    body = made.goods_return
    money_minor = body.refund_money_minor + body.kept_back_money_minor
    points_minor = sum(line.clawback_points_minor for line in body.lines)
    oldest = oldest_day(min(draft.at, command.event_at))
    for change in changes_of(back.purchase):
        key = change.key
        if key.startswith(CLUBS):
            yield from _membership_back(command, change, counters.get(key), back)
        elif change.until is not None and change.until < oldest:
            continue
        elif key.startswith(VISITS):
            times = change.times if body.so_far.complete else 0
            yield CounterChange(key, -times, -money_minor, -points_minor, change.until)
        elif key in back.after.counters:
            pairs = zip(back.before.counters[key], back.after.counters[key], strict=True)
            times, money, points = (before - after for before, after in pairs)
            yield CounterChange(key, times, money, points, change.until)


def _membership_back(
    command: Return, change: CounterChange, counter: Counter | None, back: _ComesBack
) -> Iterator[CounterChange]:
    """Shorten a membership by the days that came back, and end it if none are left; one that has run out stays.

    What a merged member leaves is one membership less, to whoever has it now.
    """
    before, after = back.before.clubs[change.key], back.after.clubs[change.key]
    days = after.days - before.days
    has_run_out = change.until is None or command.day is None or change.until < command.day
    if days <= 0 or has_run_out or (counter is None and not command.is_merged):
        return
    if counter is None or counter.until is None:
        yield CounterChange(change.key, -1)
        return
    until = counter.until - timedelta(days=days)
    is_over = command.day is not None and until < command.day
    yield CounterChange(change.key, -counter.times if is_over else -int(after.is_over), until=until)


def _use_budgets(state: BookState, decision: Decision, command: Purchase, made: journal_pb2.Event) -> None:
    for key, amount in command.budgets:
        part = state.budgets.get(key, BudgetSlice(0, 0))
        if not 0 <= amount <= part.granted - part.used:
            raise BudgetExceeded(f"{amount} of budget {key!r} were to be used, and book {state.book} has {part}")
        if amount:
            _put_slice(state, decision, key, part._replace(used=part.used + amount))
            made.budget_uses.add(key=key, amount=amount)


def _free_budgets(state: BookState, decision: Decision, back: _ComesBack, made: journal_pb2.Event) -> None:
    """Give uses of shared budgets back to the part of the book that had used them."""
    for key, amount in back.after.budgets.items():
        freed = amount - back.before.budgets.get(key, 0)
        if freed:
            part = state.budgets.get(key, BudgetSlice(0, 0))
            _put_slice(state, decision, key, part._replace(used=part.used - freed))
            made.budget_uses.add(key=key, amount=-freed)


def _put_slice(state: BookState, decision: Decision, key: str, part: BudgetSlice) -> None:
    state.budgets[key] = part
    decision.slices.add(key)
