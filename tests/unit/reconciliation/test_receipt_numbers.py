"""Sets of receipt numbers against plain sets."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.reconciliation.receipt_numbers import Run, covers, has, holes, joined, parse, runs_of, size, text_of

NUMBERS = st.sets(st.integers(1, 40))


def members(runs: tuple[Run, ...]) -> set[int]:
    return {number for run in runs for number in range(run.first, run.last + 1)}


@given(NUMBERS, NUMBERS, st.integers(1, 20), st.integers(0, 20))
def test_runs_are_sets(numbers: set[int], others: set[int], first: int, length: int) -> None:
    runs, window = runs_of(numbers), Run(first, first + length)
    assert members(runs) == numbers
    assert all(one.last + 1 < next_.first for one, next_ in itertools.pairwise(runs))
    assert size(runs) == len(numbers)
    assert {number for number in range(60) if has(runs, number)} == numbers
    assert members(holes(window, runs)) == set(range(window.first, window.last + 1)) - numbers
    assert members(joined([*runs, *runs_of(others)])) == numbers | others
    assert covers(runs, runs_of(others)) == (others <= numbers)
    assert parse(text_of(runs)) == parse(text_of(runs, ", ")) == runs


def test_a_window_of_any_size_is_not_enumerated() -> None:
    assert holes(Run(1, 10**15), [Run(5, 6)]) == (Run(1, 4), Run(7, 10**15))


@pytest.mark.parametrize(
    ("text", "runs"),
    [("", ()), ("17", (Run(17, 17),)), ("25-27;17, 26-30", (Run(17, 17), Run(25, 30))), ("1 2", (Run(1, 2),))],
)
def test_parse(text: str, runs: tuple[Run, ...]) -> None:
    assert parse(text) == runs


@pytest.mark.parametrize("text", ["x", "1-", "5-3", "0", "1..3", "-4", "1-2-3", "9999999999999999"])
def test_what_is_no_set(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse(text)
