"""What is compared, and what comes of it: plain data, no database, no clock.

Money and points are in minor units. **Turnover** is what shoppers paid for goods after discounts, in money and points
together, before returns: gross (list prices) less discounts, and equal to money plus points paid. Returns are counted
and summed separately, as positive figures: what had been paid for the goods that came back, and the money given back.
Points earned and spent are those of sales; those that returns take or give back count with the returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple

from server.reconciliation.receipt_numbers import Run, Runs

BREAK_ID_LENGTH: Final = 16


class BreakKind(IntEnum):
    """In what way register and ledger disagree; numbered as the API's."""

    MISSING = 1
    EXTRA = 2
    DOUBLED = 3
    DIFFERENT = 4
    LATE = 5
    GAP = 6
    NO_REPORT = 7


class BreakState(IntEnum):
    """How far people have come with a break; numbered as the API's."""

    OPEN = 1
    EXPLAINED = 2
    WRITTEN_OFF = 3
    RESOLVED = 4


class BreakChange(IntEnum):
    """What happened to a break; numbered as the API's."""

    FOUND = 1
    FOUND_AGAIN = 2
    FIGURES_CHANGED = 3
    REOPENED = 4
    EXPLAINED = 5
    WRITTEN_OFF = 6
    RESOLVED = 7


class Measure(IntEnum):
    """What a figure counts or sums; numbered as the API's."""

    RECEIPTS = 1
    GROSS = 2
    DISCOUNTS = 3
    TURNOVER = 4
    MONEY = 5
    POINTS_MONEY = 6
    POINTS_EARNED = 7
    POINTS_SPENT = 8
    RETURNS = 9
    RETURNS_TURNOVER = 10
    RETURNS_MONEY = 11
    RETURNS_POINTS_EARNED = 12
    RETURNS_POINTS_SPENT = 13


class ReceiptKind(IntEnum):
    """What a number of a register was used for; numbered as the API's."""

    SALE = 1
    RETURN = 2
    VOID = 3


class Amounts(NamedTuple):
    """Money and points of one receipt or of many; None where a register does not say."""

    gross_minor: int | None = None
    discounts_minor: int | None = None
    turnover_minor: int | None = None
    money_minor: int | None = None
    points_money_minor: int | None = None
    points_earned_minor: int | None = None
    points_spent_minor: int | None = None


COUNT_OF: Final[Mapping[ReceiptKind, Measure]] = {
    ReceiptKind.SALE: Measure.RECEIPTS,
    ReceiptKind.RETURN: Measure.RETURNS,
}
MEASURES_OF: Final[Mapping[ReceiptKind, tuple[Measure | None, ...]]] = {
    ReceiptKind.SALE: (
        Measure.GROSS,
        Measure.DISCOUNTS,
        Measure.TURNOVER,
        Measure.MONEY,
        Measure.POINTS_MONEY,
        Measure.POINTS_EARNED,
        Measure.POINTS_SPENT,
    ),
    ReceiptKind.RETURN: (
        None,
        None,
        Measure.RETURNS_TURNOVER,
        Measure.RETURNS_MONEY,
        None,
        Measure.RETURNS_POINTS_EARNED,
        Measure.RETURNS_POINTS_SPENT,
    ),
}
"""The measure of each field of `Amounts`; None where a return's is not compared."""


class TerminalDay(NamedTuple):
    """A terminal's business date: what one Z report is about."""

    store_id: str
    terminal_id: str
    business_date: date


ReceiptName = tuple[int, ReceiptKind]
"""What tells a receipt from others of its terminal's day: goods back and goods sold may share a number."""


class LedgerReceipt(NamedTuple):
    """A receipt as the ledger has it; all its amounts are known."""

    place: TerminalDay
    number: int
    kind: ReceiptKind
    amounts: Amounts
    lines: int
    event_at: datetime
    booked_at: datetime
    after_close: bool = False

    @property
    def key(self) -> ReceiptName:
        """Return what tells it from others of the day."""
        return self.number, self.kind


class RegisterReceipt(NamedTuple):
    """A receipt as the register has it."""

    number: int
    kind: ReceiptKind
    amounts: Amounts

    @property
    def key(self) -> ReceiptName:
        """Return what tells it from others of the day."""
        return self.number, self.kind


class ZReport(NamedTuple):
    """A terminal's totals of a day. `window` has all numbers used that day, None if none was."""

    receipts: int
    window: Run | None
    amounts: Amounts = Amounts()
    returns: int | None = None
    returns_amounts: Amounts = Amounts()
    voids: int | None = None
    void_numbers: Runs = ()

    def counted(self, kind: ReceiptKind) -> int | None:
        """Return how many receipts of a kind the register counted."""
        return self.receipts if kind is ReceiptKind.SALE else self.returns

    def summed(self, kind: ReceiptKind) -> Amounts:
        """Return what those receipts came to."""
        return self.amounts if kind is ReceiptKind.SALE else self.returns_amounts


class Rules(NamedTuple):
    """How a store's days are compared; None switches a comparison off."""

    numbers_consecutive: bool = True
    late_after: timedelta | None = timedelta(hours=24)
    doubled_within: timedelta | None = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Day:
    """All that is known of a terminal's day.

    Args:
        place: The terminal's day.
        report: The Z report; None if none came.
        receipts: The register's single receipts; None if it sent none.
        ledger: The ledger's receipts.
        twins: For receipts of `ledger`: one under another key that may be the same one.
    """

    place: TerminalDay
    report: ZReport | None
    receipts: Sequence[RegisterReceipt] | None
    ledger: Sequence[LedgerReceipt]
    twins: Mapping[ReceiptName, LedgerReceipt]


class Figure(NamedTuple):
    """A measure on both sides: what the register says, and what the ledger has."""

    measure: Measure
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Break:
    """One disagreement.

    Args:
        place: The terminal's day.
        kind: In what way register and ledger disagree.
        subject: What tells it from other breaks of this kind and day: numbers, or nothing for a day's totals.
        receipt_count: How many receipts, or numbers, it is about.
        numbers: Their numbers, as far as they are known.
        figures: The figures in which the two disagree.
        detail: What else helps a person; it is not part of the facts.
    """

    place: TerminalDay
    kind: BreakKind
    subject: str
    receipt_count: int
    numbers: Runs = ()
    figures: tuple[Figure, ...] = ()
    detail: str = ""

    @property
    def break_id(self) -> str:
        """Return the id, which is the same in every run: it names place, kind and subject."""
        name = "\0".join(map(str, (*self.place, self.kind.name, self.subject)))
        return hashlib.sha256(name.encode()).hexdigest()[:BREAK_ID_LENGTH]

    @property
    def facts(self) -> tuple[int, Runs, tuple[Figure, ...]]:
        """Return what a person's explanation rests on."""
        return self.receipt_count, self.numbers, self.figures
