"""Receipts judged one after the other by rules as if they had been live: what they count, the next receipt finds. Pure.

Every receipt is quoted: what registers charged differently is not taken for a difference between rules. Members'
counters begin with what the journal says was counted before, where it says so, and go on with what the simulated rules
count. Limits that members share are known exactly only to somebody who sees all receipts; a simulation that sees a part
of them keeps to the same part of each limit, so that all parts together never exceed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from typing import NamedTuple

from tallypoint.v1 import journal_pb2

from server.promotions import Effects, MemberFacts, ReceiptFacts, Rules, quote
from server.promotions.counter_names import counted
from server.promotions.facts import CounterFact, Usage
from server.promotions.tiers import standing_changes

PRUNE_FROM = 64
"""Counters of a member from which on those that no longer count are looked for."""


class Case(NamedTuple):
    """A stored receipt.

    `name` is for people. `seen` are the member's counters before it, as far as its entry says. `version` booked it,
    and gave `discount_minor` and `points_minor` (of the programme's own unit); 0 for receipts from elsewhere. `old` is
    its entry, if that was judged by older semantics than today's.
    """

    name: str
    currency: str
    receipt: ReceiptFacts
    member: MemberFacts | None
    spend_points_minor: int = 0
    seen: Mapping[str, CounterFact] = {}
    version: int = 0
    discount_minor: int = 0
    points_minor: int = 0
    old: journal_pb2.Event | None = None


class Simulation:
    """Judges receipts of one member after the other's in the order in which they were booked."""

    def __init__(self, share: Fraction = Fraction(1)) -> None:
        """Begin with nothing counted; `share` is the part of all receipts that this simulation sees."""
        self._share = share
        self._counters: dict[str, dict[str, CounterFact]] = {}
        self._left: dict[str, int] = {}

    def judge(self, rules: Rules, case: Case) -> Effects:
        """Return what rules give for a receipt, and remember what they count.

        Raises:
            ReceiptError: the receipt makes no sense.
        """
        member_id = case.member.member_id if case.member else ""
        counters = self._counters.get(member_id, {}) if member_id else {}
        for key, counter in case.seen.items():
            counters.setdefault(key, counter)
        effects = self._quoted(rules, case, counters)
        for use in effects.shared:
            self._left[use.key] -= use.amount
        if member_id:
            day = case.receipt.local_at.date()
            counts = effects.counts
            tiers = rules.programme.tiers
            if tiers is not None:
                counts = (*counts, *standing_changes(tiers, counters, counts, day)[0])
            if counts or counters:
                self._counters[member_id] = _pruned(counted(counters, counts), day)
        return effects

    def _quoted(self, rules: Rules, case: Case, counters: Mapping[str, CounterFact]) -> Effects:
        """Quote with what is left of shared limits; those met for the first time begin with this part of them."""
        while True:
            usage = Usage(counters, self._left)
            effects = quote(rules, case.receipt, case.member, case.spend_points_minor, usage)
            new = [use for use in effects.shared if use.key not in self._left]
            if not new:
                return effects
            for use in new:
                self._left[use.key] = int(use.at_most * self._share)


def _pruned(counters: dict[str, CounterFact], day: date) -> dict[str, CounterFact]:
    if len(counters) < PRUNE_FROM:
        return counters
    return {key: counter for key, counter in counters.items() if counter.until is None or counter.until >= day}
