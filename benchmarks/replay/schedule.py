"""What the data set does not say: which goods come back, which checkouts hold points, and how registers count.

Everything is drawn from the baskets' own ids, so it is the same in every run and on every machine. Goods come back
on the household's next visit of the same month, just before that visit's own receipt and at its till, in whatever
store that is; or, if there is no such visit, just after they were bought. Registers number what they print from 1
on each business date, returns included, in the order of time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Final, NamedTuple

import numpy as np

from benchmarks.replay.dataset import Dataset, IntColumn, Line
from benchmarks.replay.people import digest_number

_PER_MILLION: Final = 1_000_000
_SECONDS_APART: Final = 60
_UNIT_MILLI: Final = 1000
_EPOCH: Final = date(1970, 1, 1)


class Spending(Enum):
    """How a shopper who wants to pay with points does it."""

    HELD = "held"
    """The points are held while the shopper pays, then captured."""
    HELD_FOR_MORE = "held for more"
    """Half of what was held is used; the rest is released."""
    CHANGED_MIND = "changed mind"
    """The hold is cancelled, and everything is paid in money."""
    UNHELD = "unheld"
    """An old register: it commits without a hold."""


_SPENDINGS: Final = (*[Spending.HELD] * 7, Spending.HELD_FOR_MORE, Spending.CHANGED_MIND, Spending.UNHELD)


def spending_of(basket_id: int) -> Spending:
    """How this basket's shopper pays with points."""
    return _SPENDINGS[digest_number(f"hold:{basket_id}") % len(_SPENDINGS)]


class GoodsBack(NamedTuple):
    """A return: of which basket, at which till, and with which number. ``lines`` empty returns everything."""

    basket: int
    """The index of the basket whose goods come back."""
    till: int
    """The index of the basket at whose till, and on whose date, they do."""
    event_seconds: int
    receipt_number: int
    lines: tuple[tuple[int, int], ...]
    """Line numbers and thousandths."""


@dataclass(frozen=True)
class Schedule:
    """Every basket's receipt number, and the returns before and after baskets, by the baskets' indexes."""

    receipt_number: IntColumn
    before: Mapping[int, GoodsBack]
    """The return that a household brings along to this visit."""
    after: Mapping[int, GoodsBack]
    """The return that follows at once."""

    def returns(self, selection: IntColumn) -> list[GoodsBack]:
        """The returns at the tills of the selected baskets."""
        found = []
        for index in selection.tolist():
            found += [each for each in (self.before.get(index), self.after.get(index)) if each is not None]
        return found


def schedule(dataset: Dataset, returns_per_million: int) -> Schedule:
    """Draw the returns of a year and number all receipts; some seconds of work."""
    next_visit = _next_visits(dataset)
    numbered: list[tuple[int, int, int, int]] = []  # seconds, place among those of one second, till, basket
    drawn: dict[int, tuple[tuple[int, int], ...]] = {}
    for index, basket_id in enumerate(dataset.basket_id.tolist()):
        numbered.append((int(dataset.event_seconds[index]), 1, index, index))
        if digest_number(f"return:{basket_id}") % _PER_MILLION >= returns_per_million:
            continue
        lines = dataset.basket(index).lines
        if not any(line.quantity_milli for line in lines):
            continue
        drawn[index] = _part(basket_id, lines)
        till = int(next_visit[index])
        if till < 0:
            numbered.append((int(dataset.event_seconds[index]) + _SECONDS_APART, 2, index, index))
        else:
            numbered.append((int(dataset.event_seconds[till]) - _SECONDS_APART, 0, till, index))
    # By the till's own time: what comes back stands right beside the visit, so that every first part of a day's
    # baskets has numbers without gaps.
    numbered.sort(key=lambda each: (int(dataset.event_seconds[each[2]]), each[2], each[1]))
    counted: dict[tuple[int, int, int], int] = defaultdict(int)
    receipt_number = np.zeros(len(dataset), dtype=np.int64)
    before: dict[int, GoodsBack] = {}
    after: dict[int, GoodsBack] = {}
    for seconds, place, till, index in numbered:
        day = (int(dataset.store_id[till]), int(dataset.terminal_number[till]), int(dataset.business_day[till]))
        counted[day] += 1
        if place == 1:
            receipt_number[index] = counted[day]
        else:
            back = GoodsBack(index, till, seconds, counted[day], drawn[index])
            (after if place else before)[till] = back
    return Schedule(receipt_number, before, after)


def _next_visits(dataset: Dataset) -> IntColumn:
    """The index of the same household's next basket in the same month; -1 if there is none."""
    months = (dataset.business_day.astype("datetime64[D]").astype("datetime64[M]")).astype(np.int64)
    next_visit = np.full(len(dataset), -1, dtype=np.int64)
    latest: dict[tuple[int, int], int] = {}
    for index, visit in enumerate(zip(dataset.household_id.tolist(), months.tolist(), strict=True)):
        if visit in latest:
            next_visit[latest[visit]] = index
        latest[visit] = index
    return next_visit


def _part(basket_id: int, lines: list[Line]) -> tuple[tuple[int, int], ...]:
    """What comes back: everything, a line, or a part of a line."""
    draw = digest_number(f"goods:{basket_id}")
    kind, draw = draw % 3, draw // 3
    if kind == 0:
        return ()
    sold = [(number, line) for number, line in enumerate(lines, start=1) if line.quantity_milli]
    number, line = sold[draw % len(sold)]
    if kind == 1:
        return ((number, line.quantity_milli),)
    return ((number, max(1, line.quantity_milli // 2) if line.weighed else _UNIT_MILLI),)


def business_date(dataset: Dataset, index: int) -> str:
    """A basket's business date as YYYY-MM-DD."""
    return (_EPOCH + timedelta(days=int(dataset.business_day[index]))).isoformat()


def months_of(dataset: Dataset, selection: IntColumn) -> list[tuple[str, IntColumn]]:
    """The selected baskets by the month (YYYY-MM) of their business date, months in order."""
    months = dataset.business_day[selection].astype("datetime64[D]").astype("datetime64[M]")
    return [(str(month), selection[months == month]) for month in np.unique(months)]
