"""Levels that a return lowers: by the rules of tiers alone, from what stands in the member's counters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from tallypoint.v1 import journal_pb2

from ledger.entry.model import Counter as LedgerCounter
from ledger.entry.model import CounterChange, Relevel, Relevelled
from server.checkout.context import counters_of
from server.checkout.promises import standing_message
from server.promotions import Rules, lowered, standing
from server.promotions.counter_names import counted


def relevel_of(rules: Rules | None, day: date) -> Relevel | None:
    """Return the function that says what becomes of a member's level on a day; None without rules or levels."""
    tiers = None if rules is None else rules.programme.tiers
    if tiers is None:
        return None

    def judge(before: Mapping[str, LedgerCounter], after: Mapping[str, LedgerCounter]) -> Relevelled:
        had, has = counters_of(before), counters_of(after)
        counts, change = lowered(tiers, had, has, day)
        changes = tuple(CounterChange(*count) for count in counts)
        if change is None:
            return Relevelled(changes)
        told = journal_pb2.TierChange(before=change.before, after=change.after)
        if change.after:
            told.good_until = change.good_until.isoformat()
        return Relevelled(changes, told, standing_message(standing(tiers, counted(has, counts), day)))

    return judge
