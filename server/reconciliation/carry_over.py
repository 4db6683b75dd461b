"""Carries breaks from one run to the next: what is new, what has changed, what is gone. A pure function.

A break keeps its id, its history and its age as long as it is found. Its state is a person's word on its figures, so
it opens again when they change. When a break of several receipts shrinks or falls into parts, the parts are as old as
the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from server.reconciliation.model import Break, BreakChange, BreakState
from server.reconciliation.receipt_numbers import covers


@dataclass(frozen=True, slots=True)
class KeptBreak:
    """A break as it is kept: what it is, and how far people have come with it."""

    what: Break
    state: BreakState
    opened_at: datetime
    changed_at: datetime
    worked_by: str = ""
    note: str = ""
    events: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a break, to be kept with an event in its history. `note` is the event's."""

    after: KeptBreak
    change: BreakChange
    note: str = ""
    before: BreakState | None = None

    @property
    def opens(self) -> bool:
        """Say whether the break is open now and was not before."""
        return self.after.state is BreakState.OPEN and self.before is not BreakState.OPEN


def carry_over(kept: Iterable[KeptBreak], found: Sequence[Break], now: datetime) -> list[Step]:
    """Return what a run changes.

    Args:
        kept: All breaks of the days and stores of the run, whatever their state.
        found: The breaks that the run has found.
        now: The time of the run.
    """
    before = {one.what.break_id: one for one in kept}
    ids = {one.break_id for one in found}
    gone = [one for one in before.values() if one.what.break_id not in ids and one.state is not BreakState.RESOLVED]
    steps = [_step_for_found(before.get(one.break_id), one, gone, now) for one in found]
    return [step for step in steps if step is not None] + [_resolved(one, now) for one in gone]


def work(one: KeptBreak, state: BreakState, note: str, by: str, now: datetime) -> Step | None:
    """Return what a person's word changes; None if it was said before."""
    if (one.state, one.note, one.worked_by) == (state, note, by):
        return None
    change = {
        BreakState.OPEN: BreakChange.REOPENED,
        BreakState.EXPLAINED: BreakChange.EXPLAINED,
        BreakState.WRITTEN_OFF: BreakChange.WRITTEN_OFF,
    }[state]
    return Step(
        replace(one, state=state, note=note, worked_by=by, changed_at=now, events=one.events + 1),
        change,
        note,
        one.state,
    )


def _step_for_found(before: KeptBreak | None, what: Break, gone: Sequence[KeptBreak], now: datetime) -> Step | None:
    if before is None:
        whole = _whole_of(what, gone)
        opened_at = now if whole is None else whole.opened_at
        note = "" if whole is None else f"part of {whole.what.break_id}"
        return Step(KeptBreak(what, BreakState.OPEN, opened_at, now, events=1), BreakChange.FOUND, note)
    after = replace(before, what=what, changed_at=now, events=before.events + 1)
    if before.state is BreakState.RESOLVED:
        after = replace(after, state=BreakState.OPEN, opened_at=now, worked_by="", note="")
        return Step(after, BreakChange.FOUND_AGAIN, before=before.state)
    if before.what.facts != what.facts:
        after = replace(after, state=BreakState.OPEN, worked_by="", note="")
        return Step(after, BreakChange.FIGURES_CHANGED, before=before.state)
    return None


def _whole_of(what: Break, gone: Sequence[KeptBreak]) -> KeptBreak | None:
    """Return the oldest break that is no longer found and of which this one is a part."""
    wholes = [
        one
        for one in gone
        if (one.what.place, one.what.kind) == (what.place, what.kind)
        and (not one.what.numbers or (what.numbers and covers(one.what.numbers, what.numbers)))
    ]
    return min(wholes, key=lambda one: one.opened_at, default=None)


def _resolved(one: KeptBreak, now: datetime) -> Step:
    after = replace(one, state=BreakState.RESOLVED, changed_at=now, worked_by="", note="", events=one.events + 1)
    return Step(after, BreakChange.RESOLVED, before=one.state)
