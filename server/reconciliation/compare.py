"""Finds the breaks of a terminal's day: a pure function of what the register said and what the ledger has.

There are three cases. With the register's single receipts, each break names its receipt. With a Z report alone,
counts and sums are compared, and holes in the numbers name what the counts miss. With neither, the ledger's receipts
stand alone.

One fault makes one break: what a missing receipt takes from the day's turnover is part of the break that says it is
missing, and not a difference of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

from server.reconciliation.model import (
    COUNT_OF,
    MEASURES_OF,
    Amounts,
    Break,
    BreakKind,
    Day,
    Figure,
    LedgerReceipt,
    Measure,
    ReceiptKind,
    ReceiptName,
    RegisterReceipt,
    Rules,
    ZReport,
)
from server.reconciliation.receipt_numbers import Run, Runs, has, holes, joined, runs_of, size, text_of

SIDES: Final = (ReceiptKind.SALE, ReceiptKind.RETURN)
REGISTER: Final = "register"
"""The subject of a break between a register's report and its own receipts."""
MAX_BREAKS_OF_A_KIND: Final = 50
"""More of one kind on one terminal's day have one cause, such as numbers that are not consecutive: they become one."""
_SECONDS_PER_HOUR: Final = 3600
_Receipt = TypeVar("_Receipt", LedgerReceipt, RegisterReceipt)
_MAIN: Final = Amounts(turnover_minor=0, points_earned_minor=0, points_spent_minor=0)
"""What is shown of receipts that the register does not have."""


def compare(day: Day, rules: Rules) -> list[Break]:
    """Return the breaks of a terminal's day."""
    doubles = _doubles(day)
    ledger = [receipt for receipt in day.ledger if receipt.key not in doubles]
    breaks = [_twin_break(day, receipt, day.twins[receipt.key]) for receipt in day.ledger if receipt.key in doubles]
    if day.receipts is not None:
        breaks += _by_receipt(day, ledger, doubles, rules)
    elif day.report is not None:
        breaks += _by_totals(day, day.report, ledger, doubles, rules)
    elif ledger:
        breaks += _without_register(day, ledger, doubles, rules)
    return [*_collapsed(_paired(breaks)), *_late_break(day, ledger, rules)]


def find_twins(receipts: Sequence[LedgerReceipt], within: timedelta | None) -> dict[LedgerReceipt, LedgerReceipt]:
    """Return, for receipts of one store, the receipt under another key that may be the same one.

    The two have the same number, kind, amounts and number of lines, at nearly the same time by the register's clock.
    """
    if within is None:
        return {}
    alike: dict[tuple[object, ...], list[LedgerReceipt]] = {}
    for receipt in receipts:
        alike.setdefault((receipt.number, receipt.kind, receipt.amounts, receipt.lines), []).append(receipt)
    twins: dict[LedgerReceipt, LedgerReceipt] = {}
    for group in alike.values():
        group.sort(key=lambda receipt: (receipt.event_at, receipt.booked_at))
        for earlier, later in pairwise(group):
            if later.event_at - earlier.event_at <= within:
                twins.setdefault(earlier, later)
                twins[later] = earlier
    return twins


# --- one receipt under two keys ----------------------------------------------------------------------------


def _doubles(day: Day) -> set[ReceiptName]:
    """Return those receipts with a twin that the register does not account for."""
    suspects = [receipt for receipt in day.ledger if receipt.key in day.twins]
    if not suspects:
        return set()
    if day.receipts is not None:
        known = {receipt.key for receipt in day.receipts}
        return {receipt.key for receipt in suspects if receipt.key not in known}
    if day.report is None:
        return {receipt.key for receipt in suspects if _is_later(receipt, day.twins[receipt.key])}
    inside, outside = _split(day.report, day.ledger)
    found = {receipt.key for receipt in outside if receipt.key in day.twins}
    for side in SIDES:
        rows = [receipt for receipt in inside if receipt.kind is side]
        counted = day.report.counted(side)
        surplus = 0 if counted is None else max(len(rows) - counted, 0)
        of_side = [receipt for receipt in rows if receipt.key in day.twins]
        of_side.sort(key=lambda receipt: (not _is_later(receipt, day.twins[receipt.key]), receipt.number))
        found |= {receipt.key for receipt in of_side[:surplus]}
    return found


def _is_later(receipt: LedgerReceipt, twin: LedgerReceipt) -> bool:
    return (receipt.booked_at, receipt.place) > (twin.booked_at, twin.place)


def _twin_break(day: Day, receipt: LedgerReceipt, twin: LedgerReceipt) -> Break:
    place = twin.place
    return Break(
        day.place,
        BreakKind.DOUBLED,
        str(receipt.number),
        1,
        runs_of([receipt.number]),
        tuple(_figures_of_extra([receipt], _MAIN)),
        f"the same receipt is booked at terminal {place.terminal_id} on {place.business_date}, number {twin.number}",
    )


# --- totals against the ledger -----------------------------------------------------------------------------


class _Side(NamedTuple):
    """Sales, or returns: by how many receipts the ledger falls short, and the figures that differ."""

    kind: ReceiptKind
    missing: int
    figures: tuple[Figure, ...]


def _by_totals(
    day: Day, report: ZReport, ledger: Sequence[LedgerReceipt], doubles: set[ReceiptName], rules: Rules
) -> Iterator[Break]:
    inside, outside = _split(report, ledger)
    sides = [_side(report, inside, kind) for kind in SIDES]
    missing = sum(side.missing for side in sides if side.missing > 0)
    gaps: Runs = ()
    if rules.numbers_consecutive and report.window is not None:
        used = [*runs_of(receipt.number for receipt in inside), *_numbers_of(doubles), *report.void_numbers]
        gaps = holes(report.window, used)
    unnamed_voids = max((report.voids or 0) - size(report.void_numbers), 0)
    is_named = missing > 0 and size(gaps) == missing and not unnamed_voids
    if missing:
        figures = _joined_figures(side.figures for side in sides if side.missing > 0)
        detail = "" if is_named or not gaps else f"among the numbers {text_of(gaps, ', ')}"
        yield Break(day.place, BreakKind.MISSING, "", missing, gaps if is_named else (), figures, detail)
    if size(gaps) != missing + unnamed_voids and not is_named:
        yield from (_gap(day, run) for run in gaps)
    yield from _extra_by_totals(day, report, sides, outside)
    different = _joined_figures(side.figures for side in sides if side.missing == 0)
    if different:
        yield Break(day.place, BreakKind.DIFFERENT, "", report.receipts + (report.returns or 0), (), different)


def _split(report: ZReport, ledger: Iterable[LedgerReceipt]) -> tuple[list[LedgerReceipt], list[LedgerReceipt]]:
    """Return the receipts whose numbers the register used for receipts, and the others."""
    inside: list[LedgerReceipt] = []
    outside: list[LedgerReceipt] = []
    for receipt in ledger:
        is_inside = report.window is not None and has((report.window,), receipt.number)
        (inside if is_inside and not has(report.void_numbers, receipt.number) else outside).append(receipt)
    return inside, outside


def _side(report: ZReport, inside: Sequence[LedgerReceipt], kind: ReceiptKind) -> _Side:
    rows = [receipt for receipt in inside if receipt.kind is kind]
    counted = report.counted(kind)
    missing = 0 if counted is None else counted - len(rows)
    figures = list(_differences(kind, report.summed(kind), _sum(rows)))
    if missing and counted is not None:
        figures.insert(0, Figure(COUNT_OF[kind], counted, len(rows)))
    return _Side(kind, missing, tuple(figures))


def _extra_by_totals(
    day: Day, report: ZReport, sides: Sequence[_Side], outside: Sequence[LedgerReceipt]
) -> Iterator[Break]:
    """Yield the break of receipts that the register did not count, or whose numbers it did not use."""
    surplus = sum(-side.missing for side in sides if side.missing < 0)
    if not surplus and not outside:
        return
    figures = [side.figures for side in sides if side.missing < 0]
    figures.append(tuple(_figures_of_extra(outside, _amounts_to_show(report))))
    detail = ""
    if outside and surplus:
        detail = f"{surplus} more that cannot be named"
    yield Break(
        day.place,
        BreakKind.EXTRA,
        "",
        surplus + len(outside),
        runs_of(receipt.number for receipt in outside),
        _joined_figures(figures),
        detail,
    )


def _amounts_to_show(report: ZReport) -> Amounts:
    """Return the amounts to show of receipts that the register does not have: those that it reports at all."""
    return report.amounts if report.amounts != Amounts() else _MAIN


# --- receipt by receipt ------------------------------------------------------------------------------------


def _by_receipt(day: Day, ledger: Sequence[LedgerReceipt], doubles: set[ReceiptName], rules: Rules) -> Iterator[Break]:
    receipts = day.receipts or ()
    register: dict[ReceiptName, RegisterReceipt] = {}
    for receipt in receipts:
        register.setdefault(receipt.key, receipt)
    goods = {key: receipt for key, receipt in register.items() if receipt.kind is not ReceiptKind.VOID}
    booked = {receipt.key: receipt for receipt in ledger}
    pairs = [(goods[key], booked[key]) for key in goods.keys() & booked.keys()]
    missing = {key: receipt for key, receipt in goods.items() if key not in booked}
    extra = {key: receipt for key, receipt in booked.items() if key not in goods}
    pairs += list(_of_another_kind(missing, extra))

    yield from _doubled_in_register(day, receipts)
    for run, rows in _in_runs(missing.values()):
        yield Break(day.place, BreakKind.MISSING, str(run), len(rows), (run,), tuple(_figures_of_missing(rows)))
    for run, own in _in_runs(extra.values()):
        given = next(iter(goods.values())).amounts if goods else _MAIN
        figures = tuple(_figures_of_extra(own, given if given != Amounts() else _MAIN))
        yield Break(day.place, BreakKind.EXTRA, str(run), len(own), (run,), figures)
    yield from _different(day, pairs)
    if rules.numbers_consecutive:
        yield from _gaps_by_receipt(day, [*_numbers_of(register), *_numbers_of(booked), *_numbers_of(doubles)])
    yield from _register_against_itself(day, list(goods.values()))


def _numbers_of(keys: Iterable[ReceiptName]) -> Runs:
    return runs_of(number for number, _ in keys)


def _in_runs(receipts: Iterable[_Receipt]) -> Iterator[tuple[Run, list[_Receipt]]]:
    """Yield receipts by runs of their numbers; an exchange has two receipts with one."""
    rows = sorted(receipts, key=lambda receipt: receipt.key)
    for run in runs_of(receipt.number for receipt in rows):
        yield run, [receipt for receipt in rows if run.first <= receipt.number <= run.last]


def _of_another_kind(
    missing: dict[ReceiptName, RegisterReceipt], extra: dict[ReceiptName, LedgerReceipt]
) -> Iterator[tuple[RegisterReceipt, LedgerReceipt]]:
    """Take out, in pairs, receipts that are a sale on one side and a return on the other."""
    for number, kind in sorted(missing):
        other = ReceiptKind.RETURN if kind is ReceiptKind.SALE else ReceiptKind.SALE
        if (number, other) in extra:
            yield missing.pop((number, kind)), extra.pop((number, other))


def _different(day: Day, pairs: Iterable[tuple[RegisterReceipt, LedgerReceipt]]) -> Iterator[Break]:
    """Yield a break for each number of which the figures differ."""
    figures: dict[int, list[Figure]] = {}
    for register, ledger in sorted(pairs, key=lambda pair: pair[0].key):
        figures.setdefault(register.number, []).extend(_receipt_differences(register, ledger))
    for number, found in figures.items():
        if found:
            yield Break(day.place, BreakKind.DIFFERENT, str(number), 1, runs_of([number]), tuple(found))


def _doubled_in_register(day: Day, receipts: Sequence[RegisterReceipt]) -> Iterator[Break]:
    """Yield a break for each number that stands more than once for a sale, or more than once for a return."""
    copies: dict[int, list[RegisterReceipt]] = {}
    for receipt in receipts:
        if receipt.kind is not ReceiptKind.VOID:
            copies.setdefault(receipt.number, []).append(receipt)
    for number, rows in sorted(copies.items()):
        once = len({receipt.kind for receipt in rows})
        if len(rows) == once:
            continue
        content = "the same content" if len(set(rows)) == once else "different contents"
        yield Break(
            day.place,
            BreakKind.DOUBLED,
            f"{REGISTER} {number}",
            len(rows) - once,
            runs_of([number]),
            (Figure(Measure.RECEIPTS, len(rows), once),),
            f"the register's file has it {len(rows)} times, with {content}",
        )


def _gaps_by_receipt(day: Day, used: Sequence[Run]) -> Iterator[Break]:
    report = day.report
    if report is not None and report.window is not None:
        window = report.window
    elif used:
        window = Run(min(run.first for run in used), max(run.last for run in used))
    else:
        return
    void_numbers = report.void_numbers if report else ()
    gaps = holes(window, [*used, *void_numbers])
    if size(gaps) != max(((report.voids if report else 0) or 0) - size(void_numbers), 0):
        yield from (_gap(day, run) for run in gaps)


def _register_against_itself(day: Day, receipts: Sequence[RegisterReceipt]) -> Iterator[Break]:
    report = day.report
    if report is None:
        return
    figures: list[Figure] = []
    for kind in SIDES:
        rows = [receipt for receipt in receipts if receipt.kind is kind]
        counted = report.counted(kind)
        if counted is not None and counted != len(rows):
            figures.append(Figure(COUNT_OF[kind], counted, len(rows)))
        figures += _differences(kind, report.summed(kind), _sum(rows))
    if figures:
        detail = "the register's Z report against the register's own receipts"
        yield Break(day.place, BreakKind.DIFFERENT, REGISTER, len(receipts), (), tuple(figures), detail)


def _receipt_differences(register: RegisterReceipt, ledger: LedgerReceipt) -> Iterator[Figure]:
    if register.kind is not ledger.kind:
        yield Figure(COUNT_OF[register.kind], 1, 0)
        yield Figure(COUNT_OF[ledger.kind], 0, 1)
        return
    yield from _differences(ledger.kind, register.amounts, ledger.amounts)


# --- the ledger alone --------------------------------------------------------------------------------------


def _without_register(
    day: Day, ledger: Sequence[LedgerReceipt], doubles: set[ReceiptName], rules: Rules
) -> Iterator[Break]:
    numbers = runs_of(receipt.number for receipt in ledger)
    figures = tuple(_figures_of_extra(ledger, _MAIN))
    yield Break(day.place, BreakKind.NO_REPORT, "", len(ledger), numbers, figures)
    if rules.numbers_consecutive:
        for run in holes(Run(numbers[0].first, numbers[-1].last), [*numbers, *_numbers_of(doubles)]):
            yield _gap(day, run)


def _late_break(day: Day, ledger: Sequence[LedgerReceipt], rules: Rules) -> list[Break]:
    """Return the break of receipts booked after their day was closed, or long after the sale."""
    after = rules.late_after
    late = [
        receipt
        for receipt in ledger
        if receipt.after_close or (after is not None and receipt.booked_at - receipt.event_at > after)
    ]
    if not late:
        return []
    closed = sum(receipt.after_close for receipt in late)
    hours = max(_hours(receipt.event_at, receipt.booked_at) for receipt in late)
    details = [f"booked up to {hours} h after the sale"]
    if closed:
        details.append(f"{closed} of them after the day was closed")
    figures = _joined_figures([tuple(_figures_of_extra(late, _MAIN, known=True))])
    numbers = runs_of(receipt.number for receipt in late)
    return [Break(day.place, BreakKind.LATE, "", len(late), numbers, figures, ", ".join(details))]


def _hours(event_at: datetime, booked_at: datetime) -> int:
    return int((booked_at - event_at).total_seconds()) // _SECONDS_PER_HOUR


def _gap(day: Day, run: Run) -> Break:
    return Break(day.place, BreakKind.GAP, str(run), size((run,)), (run,))


def _paired(breaks: Sequence[Break]) -> list[Break]:
    """Point out what a wrong number looks like: as many receipts are missing as are extra, with the same figures."""
    missing = [one for one in breaks if one.kind is BreakKind.MISSING]
    extra = [one for one in breaks if one.kind is BreakKind.EXTRA]
    hints: dict[str, str] = {}
    for absent in missing:
        alike = [one for one in extra if _difference_by_measure(one.figures) == _differing(absent.figures)]
        if len(alike) == 1 and alike[0].numbers:
            hints[absent.break_id] = f"perhaps booked under the wrong number: {text_of(alike[0].numbers, ', ')}"
            if absent.numbers:
                hints[alike[0].break_id] = f"perhaps the wrong number for {text_of(absent.numbers, ', ')}"
    return [
        Break(one.place, one.kind, one.subject, one.receipt_count, one.numbers, one.figures, hints[one.break_id])
        if one.break_id in hints
        else one
        for one in breaks
    ]


def _difference_by_measure(figures: Iterable[Figure]) -> dict[Measure, int]:
    return {figure.measure: figure.found - figure.expected for figure in figures if figure.found != figure.expected}


def _differing(figures: Iterable[Figure]) -> dict[Measure, int]:
    return {figure.measure: figure.expected - figure.found for figure in figures if figure.found != figure.expected}


def _collapsed(breaks: Sequence[Break]) -> list[Break]:
    """Make one break of those of a kind that are too many to be worked one by one."""
    counts = Counter(one.kind for one in breaks)
    result = [one for one in breaks if counts[one.kind] <= MAX_BREAKS_OF_A_KIND]
    for kind in (kind for kind, count in counts.items() if count > MAX_BREAKS_OF_A_KIND):
        parts = [one for one in breaks if one.kind is kind]
        result.append(
            Break(
                parts[0].place,
                kind,
                "",
                sum(one.receipt_count for one in parts),
                joined(run for one in parts for run in one.numbers),
                _joined_figures(one.figures for one in parts),
                f"{len(parts)} breaks of one kind, kept as one",
            )
        )
    return result


# --- figures -----------------------------------------------------------------------------------------------


def _sum(receipts: Sequence[LedgerReceipt] | Sequence[RegisterReceipt]) -> Amounts:
    """Return the sums of receipts; None for what not all of them give."""
    columns = zip(*(receipt.amounts for receipt in receipts), strict=True) if receipts else ((0,),) * len(_MAIN)
    return Amounts(*(None if None in column else sum(column) for column in map(tuple, columns)))


def _differences(kind: ReceiptKind, expected: Amounts, found: Amounts) -> Iterator[Figure]:
    """Yield the figures that both sides give and that differ."""
    for measure, one, other in zip(MEASURES_OF[kind], expected, found, strict=True):
        if measure is not None and one is not None and other is not None and one != other:
            yield Figure(measure, one, other)


def _figures_of_missing(receipts: Sequence[RegisterReceipt]) -> Iterator[Figure]:
    """Yield what receipts that only the register has come to."""
    for kind in SIDES:
        rows = [receipt for receipt in receipts if receipt.kind is kind]
        if rows:
            yield Figure(COUNT_OF[kind], len(rows), 0)
            yield from _differences(kind, _sum(rows), Amounts(*[0] * len(_MAIN)))


def _figures_of_extra(receipts: Sequence[LedgerReceipt], given: Amounts, *, known: bool = False) -> Iterator[Figure]:
    """Yield what receipts that only the ledger has come to, of the measures that are given.

    `known` receipts stand on the register's side as well.
    """
    for kind in SIDES:
        rows = [receipt for receipt in receipts if receipt.kind is kind]
        if not rows:
            continue
        yield Figure(COUNT_OF[kind], len(rows) if known else 0, len(rows))
        for measure, wanted, amount in zip(MEASURES_OF[kind], given, _sum(rows), strict=True):
            if measure is not None and wanted is not None and amount:
                yield Figure(measure, amount if known else 0, amount)


def _joined_figures(parts: Iterable[tuple[Figure, ...]]) -> tuple[Figure, ...]:
    """Add figures up by measure, in the order of the measures."""
    sums: dict[Measure, tuple[int, int]] = {}
    for figures in parts:
        for measure, expected, found in figures:
            before = sums.get(measure, (0, 0))
            sums[measure] = (before[0] + expected, before[1] + found)
    return tuple(Figure(measure, *sums[measure]) for measure in sorted(sums))
