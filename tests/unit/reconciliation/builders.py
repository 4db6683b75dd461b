"""Receipts, Z reports and breaks in few words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from server.reconciliation.compare import compare, find_twins
from server.reconciliation.model import (
    Amounts,
    Break,
    Day,
    LedgerReceipt,
    ReceiptKind,
    RegisterReceipt,
    Rules,
    TerminalDay,
    ZReport,
)
from server.reconciliation.receipt_numbers import Run, parse, text_of

PLACE = TerminalDay("S1", "T1", date(2026, 3, 1))
TOMORROW = TerminalDay("S1", "T1", date(2026, 3, 2))
OPENING = datetime(2026, 3, 1, 9, tzinfo=UTC)


def amounts(turnover: int, earned: int = 10, spent: int = 0) -> Amounts:
    """Return what a receipt comes to: a tenth off the list price, points worth one minor unit each."""
    discount = turnover // 9
    return Amounts(turnover + discount, discount, turnover, turnover - spent, spent, earned, spent)


def sale(number: int, turnover: int = 1000, *, earned: int = 10, spent: int = 0) -> LedgerReceipt:
    """Return a sale as the ledger has it: one every minute, booked a second later."""
    event_at = OPENING + timedelta(minutes=number)
    booked_at = event_at + timedelta(seconds=1)
    return LedgerReceipt(PLACE, number, ReceiptKind.SALE, amounts(turnover, earned, spent), 3, event_at, booked_at)


def sales(first: int, last: int, *, without: Iterable[int] = ()) -> list[LedgerReceipt]:
    """Return sales with these numbers, each with a turnover of its own."""
    return [sale(number, 1000 + number) for number in range(first, last + 1) if number not in without]


def return_(number: int, turnover: int = 500) -> LedgerReceipt:
    """Return a return of goods as the ledger has it."""
    return sale(number, turnover)._replace(kind=ReceiptKind.RETURN)


def report(receipts: Iterable[LedgerReceipt], numbers: str = "", *, voids: str = "", returns: bool = True) -> ZReport:
    """Return the Z report of a register that has exactly these receipts.

    Args:
        receipts: The receipts.
        numbers: The numbers used, if they are more than those of the receipts.
        voids: The numbers used for nothing.
        returns: Whether the register counts returns at all.
    """
    receipts = list(receipts)
    sold = [one for one in receipts if one.kind is ReceiptKind.SALE]
    back = [one for one in receipts if one.kind is ReceiptKind.RETURN]
    used = [one.number for one in receipts] + [
        number for run in parse(voids) for number in range(run.first, run.last + 1)
    ]
    window = parse(numbers)[0] if numbers else Run(min(used), max(used)) if used else None
    return ZReport(
        len(sold),
        window,
        total(sold),
        len(back) if returns else None,
        Amounts(turnover_minor=total(back).turnover_minor, money_minor=total(back).money_minor)
        if returns
        else Amounts(),
        void_numbers=parse(voids),
    )


def total(receipts: Sequence[LedgerReceipt]) -> Amounts:
    """Add receipts up."""
    rows = [one.amounts for one in receipts]
    return Amounts(*(sum(row[index] or 0 for row in rows) for index in range(len(Amounts._fields))))


def register(receipts: Iterable[LedgerReceipt]) -> list[RegisterReceipt]:
    """Return receipts as the register's own file has them."""
    return [RegisterReceipt(one.number, one.kind, one.amounts) for one in receipts]


def breaks(
    ledger: Sequence[LedgerReceipt],
    z_report: ZReport | None,
    receipts: Sequence[RegisterReceipt] | None = None,
    *,
    others: Sequence[LedgerReceipt] = (),
    rules: Rules | None = None,
    place: TerminalDay = PLACE,
) -> list[Break]:
    """Compare a terminal's day; `others` are receipts of the store's other days and terminals."""
    rules = rules or Rules()
    twins = find_twins([*ledger, *others], rules.doubled_within)
    return compare(
        Day(place, z_report, receipts, ledger, {one.key: twins[one] for one in ledger if one in twins}), rules
    )


def told(found: Iterable[Break]) -> list[str]:
    """Return breaks as short texts: kind, count, numbers, and the figures as register and ledger have them."""
    texts = []
    for one in found:
        figures = "".join(f", {figure.measure.name.lower()} {figure.expected}/{figure.found}" for figure in one.figures)
        texts.append(f"{one.kind.name.lower()} {one.receipt_count}: {text_of(one.numbers)}{figures}")
    return texts
