"""What becomes of breaks from one run to the next, and by what people say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.reconciliation.carry_over import KeptBreak, Step, carry_over, work
from server.reconciliation.model import Break, BreakChange, BreakKind, BreakState, Figure, Measure
from server.reconciliation.receipt_numbers import parse
from tests.unit.reconciliation.builders import PLACE

DAY_1 = datetime(2026, 3, 2, 6, tzinfo=UTC)
DAY_2 = DAY_1 + timedelta(days=1)
DAY_3 = DAY_1 + timedelta(days=2)


def missing(numbers: str, turnover: int = 100, subject: str | None = None) -> Break:
    """Return a break of missing receipts."""
    figures = (Figure(Measure.TURNOVER, turnover, 0),)
    return Break(PLACE, BreakKind.MISSING, numbers if subject is None else subject, 1, parse(numbers), figures)


def kept(what: Break, state: BreakState = BreakState.OPEN) -> KeptBreak:
    """Return a break as the first day's run found it, with a person's word."""
    return KeptBreak(what, state, DAY_1, DAY_1, "olena", "seen", 2)


OLD = missing("3")


@pytest.mark.parametrize(
    ("before", "found", "change", "state", "opened_at"),
    [
        pytest.param([], [OLD], "FOUND", "OPEN", DAY_2, id="new"),
        pytest.param([kept(OLD)], [], "RESOLVED", "RESOLVED", DAY_1, id="an open one is gone"),
        pytest.param(
            [kept(OLD, BreakState.EXPLAINED)], [], "RESOLVED", "RESOLVED", DAY_1, id="an explained one is gone"
        ),
        pytest.param(
            [kept(OLD, BreakState.RESOLVED)], [OLD], "FOUND_AGAIN", "OPEN", DAY_2, id="a resolved one is back"
        ),
        pytest.param([kept(OLD)], [missing("3", 99)], "FIGURES_CHANGED", "OPEN", DAY_1, id="other figures"),
        pytest.param(
            [kept(OLD, BreakState.EXPLAINED)], [missing("3", 99)], "FIGURES_CHANGED", "OPEN", DAY_1,
            id="an explained one with other figures opens again",
        ),
        pytest.param(
            [kept(OLD, BreakState.WRITTEN_OFF)], [missing("3", 99)], "FIGURES_CHANGED", "OPEN", DAY_1,
            id="one written off with other figures opens again",
        ),
    ],
)  # fmt: skip
def test_step(before: list[KeptBreak], found: list[Break], change: str, state: str, opened_at: datetime) -> None:
    (step,) = carry_over(before, found, DAY_2)
    assert (step.change, step.after.state) == (BreakChange[change], BreakState[state])
    assert (step.after.opened_at, step.after.changed_at) == (opened_at, DAY_2)
    assert step.after.what == (found[0] if found else OLD)
    assert step.after.events == (3 if before else 1)
    assert (step.after.worked_by, step.after.note) == ("", "")


@pytest.mark.parametrize("state", [BreakState.OPEN, BreakState.EXPLAINED, BreakState.WRITTEN_OFF])
def test_same_figures_change_nothing(state: BreakState) -> None:
    assert carry_over([kept(OLD, state)], [replace(OLD, detail="told otherwise")], DAY_2) == []


def test_resolved_one_that_stays_away_is_left_alone() -> None:
    assert carry_over([kept(OLD, BreakState.RESOLVED)], [], DAY_2) == []


@pytest.mark.parametrize(
    ("whole", "part", "is_part"),
    [
        pytest.param(missing("3-6"), missing("5"), True, id="a range shrinks"),
        pytest.param(missing("3-6", subject=""), missing("5"), True, id="totals that receipts name now"),
        pytest.param(missing("", subject=""), missing("5"), True, id="totals without numbers"),
        pytest.param(missing("3-4"), missing("5"), False, id="other numbers"),
        pytest.param(replace(missing("3-6"), kind=BreakKind.GAP), missing("5"), False, id="another kind"),
    ],
)
def test_part_is_as_old_as_the_whole(whole: Break, part: Break, is_part: bool) -> None:
    steps = {step.after.what.break_id: step for step in carry_over([kept(whole)], [part], DAY_2)}
    assert steps[whole.break_id].change is BreakChange.RESOLVED
    assert steps[part.break_id].after.opened_at == (DAY_1 if is_part else DAY_2)
    assert steps[part.break_id].note == (f"part of {whole.break_id}" if is_part else "")


@pytest.mark.parametrize(
    ("state", "change"),
    [
        (BreakState.OPEN, BreakChange.REOPENED),
        (BreakState.EXPLAINED, BreakChange.EXPLAINED),
        (BreakState.WRITTEN_OFF, BreakChange.WRITTEN_OFF),
    ],
)
def test_word_of_a_person_counts_once(state: BreakState, change: BreakChange) -> None:
    step = work(kept(OLD), state, "a power cut", "petro", DAY_2)
    assert step is not None
    assert (step.change, step.note, step.after.events) == (change, "a power cut", 3)
    assert (step.after.state, step.after.worked_by, step.after.changed_at) == (state, "petro", DAY_2)
    assert work(step.after, state, "a power cut", "petro", DAY_3) is None


def apply(state: dict[str, KeptBreak], steps: list[Step]) -> dict[str, KeptBreak]:
    return {**state, **{step.after.what.break_id: step.after for step in steps}}


FOUND = st.lists(
    st.builds(missing, st.sampled_from(["1", "2", "3-5", "4"]), st.integers(1, 3)),
    unique_by=lambda one: one.break_id,
)


@given(st.lists(FOUND, min_size=1, max_size=6), st.data())
def test_after_any_history_the_list_says_what_the_last_run_found(runs: list[list[Break]], data: st.DataObject) -> None:
    state: dict[str, KeptBreak] = {}
    for number, found in enumerate(runs):
        now = DAY_1 + timedelta(days=number)
        state = apply(state, carry_over(state.values(), found, now))
        assert carry_over(state.values(), found, now) == [], "the same run again changes nothing"
        unresolved = {one.what.break_id: one.what for one in state.values() if one.state is not BreakState.RESOLVED}
        assert unresolved == {one.break_id: one for one in found}
        assert all(one.opened_at <= now for one in state.values())
        for one in list(state.values()):
            if one.state is BreakState.OPEN and data.draw(st.booleans()):
                step = work(one, BreakState.EXPLAINED, "why", "olena", now)
                state = apply(state, [step] if step else [])
