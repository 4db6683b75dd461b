"""What an entry counts and uses up, by itself: only what its kind can, and what a return takes back of a visit."""

from __future__ import annotations

from collections.abc import Mapping

from tallypoint.v1 import journal_pb2

from ledger.accounts import is_partner
from ledger.model import PostingRow
from ledger.usage import VISITS
from ledger.usage_caches import HELD, RELEASED, REVOKED, USED
from ledger.verify.entries import ADJUSTMENT, BUDGET, CANCEL, HOLD, PURCHASE, RETURN, TIME, TRANSFER
from ledger.verify.report import BadEntry

_COUNTING = (PURCHASE, RETURN, TRANSFER)
"""Kinds of entries that may change counters."""

_ACTIONS: Mapping[int, frozenset[int]] = {
    PURCHASE: frozenset({USED, RELEASED}),
    HOLD: frozenset({HELD, RELEASED}),
    RETURN: frozenset({RELEASED, REVOKED}),
    **dict.fromkeys((CANCEL, TIME, ADJUSTMENT, TRANSFER), frozenset({RELEASED})),
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
    if event.budget_uses and kind != PURCHASE:
        raise BadEntry("it uses budgets without being a purchase")
    if any(use.amount <= 0 for use in event.budget_uses):
        raise BadEntry("it uses nothing of a budget, or less")
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


def check_taken_back(event: journal_pb2.Event, purchase: journal_pb2.Event) -> None:
    """Hold what a return takes out of counters against what it gives back and what the purchase counted.

    Raises:
        BadEntry: if it takes out anything else.
    """
    body = event.goods_return
    visits = {change.key: change.times for change in purchase.counter_changes if change.key.startswith(VISITS)}
    points_minor = sum(line.clawback_points_minor for line in body.lines)
    for change in event.counter_changes:
        times = -visits.get(change.key, 0) if body.so_far.complete else 0
        expected = (times, -body.refund_money_minor - body.kept_back_money_minor, -points_minor)
        if change.key not in visits or (change.times, change.money_minor, change.points_minor) != expected:
            raise BadEntry(f"it takes something out of counter {change.key} that the purchase did not put there")
