"""What verification finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ledger.entry.semantics import Mended

Progress = Callable[[int], None]
"""Told how many more entries were checked."""


class BadEntry(Exception):
    """An entry is not what it should be; the message goes on from "entry 17: "."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. ``number`` is the first bad entry; zero speaks of the book's caches or its head."""

    book: int
    number: int
    what: str

    def __str__(self) -> str:
        """Return a sentence for people."""
        place = f"book {self.book}, entry {self.number}" if self.number else f"book {self.book}"
        return f"{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Known:
    """An entry of an older release that shows a fault which was mended since: it stays as booked, and is no problem."""

    book: int
    number: int
    mended: Mended
    what: str

    def __str__(self) -> str:
        """Return a sentence for people."""
        return f"book {self.book}, entry {self.number}: {self.what} (mended since: {self.mended.kind})"


@dataclass(frozen=True, slots=True)
class BookReport:
    """What verification found in one book; ``problem`` is None for a sound one.

    ``entries`` and ``hash`` say how far its chain was followed, ``checked`` and ``postings`` how many of them this run
    looked at, ``members`` whose caches it recomputed from all their entries. ``known`` are faults of older releases
    among the entries looked at.
    """

    book: int
    entries: int
    checked: int
    postings: int
    members: int
    hash: bytes
    problem: Problem | None
    known: tuple[Known, ...] = ()

    def with_problem(self, problem: Problem) -> BookReport:
        """Return the same report of a book in which something was found later."""
        return replace(self, problem=problem)
