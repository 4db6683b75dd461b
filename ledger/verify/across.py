"""What only all books together show: transfers with both sides, closes in every book, nothing left in clearing.

And that no use of a coupon is taken in two books, and no more was given of a budget than there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry.chain import EntryRecord
from ledger.entry.model import CLEARING, DEBT, PostingRow
from ledger.entry.usage import COUPON_RELEASED
from ledger.verify.entries import BUDGET, CLOSE, TRANSFER
from ledger.verify.report import Problem

# Sum what is left in the clearing account, over all books and days.
READ_CLEARING = """
SELECT unit, sum(credit_minor - debit_minor)::bigint AS left_minor
FROM ledger.account_total WHERE account = $1 GROUP BY unit ORDER BY unit
"""


# What was given of budgets, beside what books say they were given, where the two differ.
READ_BUDGETS = """
SELECT coalesce(b.key, s.key) AS key, coalesce(b.leased, 0) AS leased, coalesce(s.granted, 0)::bigint AS granted
FROM ledger.budget b
FULL JOIN (SELECT key, sum(granted) AS granted FROM ledger.budget_slice GROUP BY key) s ON s.key = b.key
WHERE b.leased IS DISTINCT FROM s.granted
ORDER BY 1
"""


class _Side(NamedTuple):
    """One side of a transfer: the points and the debt that went through clearing, from one member to another.

    ``counted`` is what was counted for the sender, as it came or as it went.
    """

    book: int
    number: int
    outgoing: bool
    sender: str
    receiver: str
    points_minor: int
    debt_minor: int
    counted: tuple[tuple[str, int, int, int], ...]


class _Lease(NamedTuple):
    """A part of a budget that a book was given, and what all had been given by then, in the order of the latter."""

    leased: int
    amount: int
    book: int
    number: int


class _Mark(NamedTuple):
    """A close in one book; with a digest, the entry that freezes the totals of one."""

    number: int
    programme_code: str
    close_number: int
    last_day: str
    period: int
    closed_by: str
    totals_digest: bytes

    def __str__(self) -> str:
        """Return its name for people."""
        return f"close {self.close_number} of {self.programme_code!r} ({self.last_day})"


class AcrossBooks:
    """Gathers what books have to say about each other, entry by entry, in any order of books.

    ``from_start`` says that every book is read from its first entry on.
    """

    def __init__(self, *, from_start: bool) -> None:
        self._from_start = from_start
        self._sides: dict[tuple[str, int], list[_Side]] = defaultdict(list)
        self._closes: dict[int, list[_Mark]] = {}
        self._leases: dict[str, list[_Lease]] = defaultdict(list)
        self._coupons: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
        """The entries that have a use of a coupon, by book; in truth one at the most."""

    def begin(self, book: int) -> None:
        """Announce a book, even if it has no entries."""
        self._closes[book] = []

    def take(self, entry: EntryRecord, event: journal_pb2.Event, postings: Sequence[PostingRow]) -> None:
        """Take in an entry that is sound by itself."""
        if entry.kind == TRANSFER:
            self._take_transfer(entry, event, postings)
        elif entry.kind == CLOSE:
            close = event.close
            self._closes[entry.book].append(
                _Mark(
                    entry.number,
                    close.programme_code,
                    close.close_number,
                    close.last_day,
                    int(close.period),
                    close.closed_by,
                    close.totals_digest,
                )
            )
        elif entry.kind == BUDGET:
            lease = event.budget_lease
            self._leases[lease.key].append(_Lease(lease.leased, lease.amount, entry.book, entry.number))
        for change in event.coupon_changes:
            if change.action == COUPON_RELEASED:
                self._coupons[change.code, change.slot].pop(entry.book, None)
            else:
                self._coupons[change.code, change.slot][entry.book] = entry.number

    def _take_transfer(self, entry: EntryRecord, event: journal_pb2.Event, postings: Sequence[PostingRow]) -> None:
        transfer = event.transfer
        moved = [p for p in postings if CLEARING in (p.debit, p.credit)]
        sign = -1 if transfer.outgoing else 1
        counted = tuple(
            (each.key, sign * each.times, sign * each.money_minor, sign * each.points_minor)
            for each in event.counter_changes
            if each.times or each.money_minor or each.points_minor
        )
        if not moved and not counted and transfer.outgoing:
            return  # all that there was had lapsed: nothing left, so nothing arrives
        sender, receiver = transfer.member_id, transfer.other_member_id
        if not transfer.outgoing:
            sender, receiver = receiver, sender
        debt = sum(p.points_minor for p in moved if DEBT in (p.debit, p.credit))
        side = _Side(
            entry.book,
            entry.number,
            transfer.outgoing,
            sender,
            receiver,
            sum(p.points_minor for p in moved) - debt,
            debt,
            counted,
        )
        key = (transfer.transfer_id, moved[0].unit if moved else 0)
        sides = self._sides[key]
        sides.append(side)
        if len(sides) == 2 and sides[0].outgoing != sides[1].outgoing and sides[0][3:] == sides[1][3:]:  # noqa: PLR2004 - both
            del self._sides[key]

    def problems(self) -> list[Problem]:
        """Return what does not fit, once all books were read and are sound by themselves."""
        found = [
            Problem(side.book, side.number, f"its transfer {transfer_id} has no other side that fits it")
            for (transfer_id, _), sides in self._sides.items()
            for side in sides
        ]
        return found + self._close_problems() + self._lease_problems() + self._coupon_problems()

    def _lease_problems(self) -> list[Problem]:
        """Each part of a budget was given on top of all that were given before it."""
        found = []
        for key, leases in self._leases.items():
            given = None if not self._from_start else 0
            for lease in sorted(leases):
                before = lease.leased - lease.amount
                if given is not None and before != given:
                    what = f"it gives a part of budget {key!r} after {before} of it, and {given} had been given"
                    found.append(Problem(lease.book, lease.number, what))
                    break
                given = lease.leased
        return found

    def _coupon_problems(self) -> list[Problem]:
        """A use of a coupon is taken in one book at the most."""
        return [
            Problem(book, number, f"it has use {slot} of coupon {code}, which another book has too")
            for (code, slot), entries in self._coupons.items()
            if len(entries) > 1
            for book, number in entries.items()
        ]

    def _close_problems(self) -> list[Problem]:
        """Every close stands in every book, in the same order, and counts on from the one before it."""
        found = []
        marks = {book: [mark for mark in closes if not mark.totals_digest] for book, closes in self._closes.items()}
        most = max(marks, key=lambda book: (len(marks[book]), -book), default=0)
        for book, own in marks.items():
            for index, mark in enumerate(marks[most]):
                if index >= len(own):
                    found.append(Problem(book, 0, f"{mark} is missing; entry {mark.number} of book {most} has it"))
                    break
                if own[index][1:] != mark[1:]:
                    what = f"it is {own[index]}, and entry {mark.number} of book {most} is {mark}"
                    found.append(Problem(book, own[index].number, what))
                    break
        return found + [problem for book in self._closes for problem in self._order_problems(book)]

    def _order_problems(self, book: int) -> list[Problem]:
        """A programme's closes count from 1 without a gap; the totals of each are frozen once, after it."""
        next_number: dict[str, int] = {}
        frozen: set[tuple[str, int]] = set()
        for mark in self._closes[book]:
            code = mark.programme_code
            if code not in next_number:
                next_number[code] = 1 if self._from_start else mark.close_number + bool(mark.totals_digest)
            if mark.totals_digest:
                if mark.close_number >= next_number[code] or mark[1:3] in frozen:
                    return [Problem(book, mark.number, f"it freezes the totals of {mark} before it, or once more")]
                frozen.add(mark[1:3])
                continue
            if mark.close_number != next_number[code]:
                return [Problem(book, mark.number, f"it is {mark}, and close {next_number[code]} should come next")]
            next_number[code] += 1
        return []


async def clearing_problems(conn: asyncpg.Connection) -> list[Problem]:
    """Return a problem for each unit of which something is left in the clearing account."""
    return [
        Problem(0, 0, f"clearing holds {left} of unit {unit} over all books, and must hold nothing")
        for unit, left in await conn.fetch(READ_CLEARING, CLEARING)
        if left
    ]


async def budget_problems(conn: asyncpg.Connection) -> list[Problem]:
    """Return a problem for each budget of which other parts were given than books have."""
    return [
        Problem(
            0,
            0,
            f"cache budget {key} says that {leased} were given, and the books have {granted}; "
            "`tallypoint ledger rebuild` writes the caches anew",
        )
        for key, leased, granted in await conn.fetch(READ_BUDGETS)
    ]
