"""What an entry counts and uses up, by itself: only what its kind can, and what a return takes back of a visit."""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import is_partner
from ledger.entry.counters import changes_of, oldest_day
from ledger.entry.model import CounterChange, PostingRow
from ledger.entry.reversing import CLUBS, STANDINGS, VISITS
from ledger.entry.semantics import FIRST
from ledger.entry.usage import COUPON_HELD, COUPON_RELEASED, COUPON_REVOKED, COUPON_USED
from ledger.verify.entries import ADJUSTMENT, BUDGET, CANCEL, HOLD, PURCHASE, RETURN, TIME, TRANSFER
from ledger.verify.report import BadEntry

_COUNTING = (PURCHASE, RETURN, TRANSFER)
"""Kinds of entries that may change counters."""

_ACTIONS: Mapping[int, frozenset[int]] = {
    PURCHASE: frozenset({COUPON_USED, COUPON_RELEASED}),
    HOLD: frozenset({COUPON_HELD, COUPON_RELEASED}),
    RETURN: frozenset({COUPON_RELEASED, COUPON_REVOKED}),
    **dict.fromkeys((CANCEL, TIME, ADJUSTMENT, TRANSFER), frozenset({COUPON_RELEASED})),
}
"""What each kind of entry may do to uses of coupons."""


def check_usage(event: journal_pb2.Event, kind: int) -> None:
    """Check what an entry counts and uses up against its kind.

    Raises:
        BadEntry: if it cannot.
    """
    if event.counter_changes and (kind not in _COUNTING or not _member_of(event)):
        raise BadEntry("it counts for a member, which it cannot")
    allowed = _ACTIONS.get(kind, frozenset())
    for change in event.coupon_changes:
        if change.action not in allowed or change.slot < 0:
            raise BadEntry(f"it does {change.action} to use {change.slot} of coupon {change.code}, which it cannot")
    if event.budget_uses and kind not in (PURCHASE, RETURN):
        raise BadEntry("it uses budgets without being a purchase")
    if any(use.amount <= 0 if kind == PURCHASE else use.amount >= 0 for use in event.budget_uses):
        raise BadEntry("it uses nothing of a budget, or less; or it is a return and gives nothing back")
    if kind == BUDGET:
        lease = event.budget_lease
        if not 0 < lease.amount <= lease.leased <= lease.budget:
            raise BadEntry(
                f"it gives {lease.amount} of budget {lease.key!r}, which makes {lease.leased} of {lease.budget}"
            )


def _member_of(event: journal_pb2.Event) -> str:
    return event.purchase.member_id or event.goods_return.member_id or event.transfer.member_id


def check_partners(
    event: journal_pb2.Event, kind: int, postings: list[PostingRow], partners: Mapping[str, int]
) -> None:
    """Hold the partners that a purchase names against the accounts that it moved; ``partners`` are accounts by code.

    Raises:
        BadEntry: if it moved points on the account of another partner.
    """
    moved = {account for posting in postings for account in (posting.debit, posting.credit) if is_partner(account)}
    if kind != PURCHASE or not moved:
        return
    purchase = event.purchase
    named = {accrual.partner for effects in purchase.effects for accrual in effects.accruals}
    granted = {posting.debit for posting in postings if is_partner(posting.debit)}
    taken = {posting.credit for posting in postings if is_partner(posting.credit)}
    if not (granted <= {partners.get(code) for code in named} and taken <= {partners.get(purchase.partner)}):
        raise BadEntry(
            f"it moves points on accounts {sorted(moved)}, which are not those of the partners that it names"
        )


class _TakenBack(NamedTuple):
    """What the returns of a purchase took out of counters so far, by key, and gave back of budgets."""

    counters: dict[str, list[int]]
    budgets: dict[str, int]


class UsageChecks:
    """Follows what returns take back of what purchases counted and used, by plain sums, each from its first on."""

    def __init__(self) -> None:
        self._taken: dict[int, _TakenBack] = defaultdict(lambda: _TakenBack(defaultdict(lambda: [0, 0, 0]), Tally()))

    def check(self, event: journal_pb2.Event, purchase: journal_pb2.Event, as_of: datetime) -> None:
        """Hold the next return against its purchase; ``as_of`` is when it happened or was booked, the earlier.

        Raises:
            BadEntry: if it takes out of a counter or a budget what the purchase did not put there.
        """
        _check_visits(event, purchase)
        taken = self._taken[event.goods_return.purchase_number]
        counted = {change.key: change for change in changes_of(purchase)}
        for change in event.counter_changes:
            if change.key.startswith((VISITS, STANDINGS)):
                continue
            if change.key not in counted:
                raise BadEntry(f"it takes something out of counter {change.key} that the purchase did not put there")
            sums = taken.counters[change.key]
            for place, more in enumerate((change.times, change.money_minor, change.points_minor)):
                sums[place] -= more
            if not change.key.startswith(CLUBS):
                _check_within(change.key, sums, counted[change.key])
        used = {use.key: use.amount for use in purchase.budget_uses}
        for use in event.budget_uses:
            taken.budgets[use.key] -= use.amount
            if taken.budgets[use.key] > used.get(use.key, 0):
                raise BadEntry(f"it gives back more of budget {use.key} than the purchase used")
        so_far = event.goods_return.so_far
        if so_far.complete and so_far.semantics != FIRST:
            _check_all_back(taken, counted.values(), used, oldest_day(as_of))


def _check_within(key: str, sums: Sequence[int], counted: CounterChange) -> None:
    if any(not 0 <= taken <= put for taken, put in zip(sums, counted[1:4], strict=True)):
        raise BadEntry(f"it takes something out of counter {key} that the purchase did not put there")


def _check_all_back(taken: _TakenBack, counted: Iterable[CounterChange], used: Mapping[str, int], oldest: date) -> None:
    """All goods came back, so all that they counted and used did; counters of times long past are let alone."""
    for change in counted:
        if change.key.startswith((VISITS, STANDINGS, CLUBS)) or (change.until is not None and change.until < oldest):
            continue
        if tuple(taken.counters[change.key]) != change[1:4]:
            raise BadEntry(f"all goods came back, and something of them stays in counter {change.key}")
    for key, amount in used.items():
        if taken.budgets[key] != amount:
            raise BadEntry(f"all goods came back, and {amount - taken.budgets[key]} of budget {key} stay used")


def _check_visits(event: journal_pb2.Event, purchase: journal_pb2.Event) -> None:
    """Hold what a return takes out of visits against what it gives back."""
    body = event.goods_return
    visits = {change.key: change.times for change in purchase.counter_changes if change.key.startswith(VISITS)}
    money_minor = body.refund_money_minor + body.kept_back_money_minor
    points_minor = sum(line.clawback_points_minor for line in body.lines)
    for change in event.counter_changes:
        if not change.key.startswith(VISITS) and event.semantics != FIRST:
            continue
        times = -visits.get(change.key, 0) if body.so_far.complete else 0
        expected = (times, -money_minor, -points_minor)
        if change.key not in visits or (change.times, change.money_minor, change.points_minor) != expected:
            raise BadEntry(f"it takes something out of counter {change.key} that the purchase did not put there")
