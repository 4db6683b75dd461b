"""Sets of receipt numbers as runs without holes: their arithmetic, and how people write them.

A terminal counts to some thousands a day, but a mistyped number may be a million off, so sets are never enumerated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MAX_NUMBER: Final = 10**15
"""The largest receipt number of the API."""
_PART: Final = re.compile(r"(\d{1,16})(?:-(\d{1,16}))?")


class Run(NamedTuple):
    """The numbers from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        """Write it as people do."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


Runs = tuple[Run, ...]
"""Runs in ascending order that do not touch each other."""


def runs_of(numbers: Iterable[int]) -> Runs:
    """Return a set of numbers as runs."""
    return joined(Run(number, number) for number in numbers)


def joined(runs: Iterable[Run]) -> Runs:
    """Return runs in any order, which may overlap, as ones that do not touch."""
    result: list[Run] = []
    for run in sorted(runs):
        if result and run.first <= result[-1].last + 1:
            result[-1] = Run(result[-1].first, max(result[-1].last, run.last))
        else:
            result.append(run)
    return tuple(result)


def holes(window: Run, used: Iterable[Run]) -> Runs:
    """Return the numbers of a window that are not used."""
    result: list[Run] = []
    expected = window.first
    for run in joined(used):
        if run.last < window.first or run.first > window.last:
            continue
        if run.first > expected:
            result.append(Run(expected, run.first - 1))
        expected = run.last + 1
    if expected <= window.last:
        result.append(Run(expected, window.last))
    return tuple(result)


def has(runs: Sequence[Run], number: int) -> bool:
    """Say whether a number is in a set."""
    return any(run.first <= number <= run.last for run in runs)


def covers(outer: Sequence[Run], inner: Sequence[Run]) -> bool:
    """Say whether all numbers of a set are in another one."""
    return all(any(run.first >= o.first and run.last <= o.last for o in outer) for run in inner)


def size(runs: Iterable[Run]) -> int:
    """Count the numbers of a set."""
    return sum(run.last - run.first + 1 for run in runs)


def text_of(runs: Iterable[Run], separator: str = " ") -> str:
    """Write a set as people do: ``17 25-27``."""
    return separator.join(map(str, runs))


def parse(text: str) -> Runs:
    """Read a set such as ``17 25-27``; commas and semicolons separate as spaces do.

    Raises:
        ValueError: it is not of that form; the message names the part at fault.
    """
    runs = []
    for part in re.split(r"[\s,;]+", text.strip()):
        if not part:
            continue
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is neither a number nor a range such as 25-27")
        run = Run(int(match[1]), int(match[2] or match[1]))
        if not 1 <= run.first <= run.last <= MAX_NUMBER:
            raise ValueError(f"{part!r} must count upwards, from 1 on")
        runs.append(run)
    return joined(runs)
