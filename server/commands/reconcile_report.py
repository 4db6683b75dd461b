"""Breaks as a report: few columns for a terminal, all figures for a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final

from tallypoint.v1 import reconciliation_pb2 as pb

from ledger.finance.table import Column, Table, Value
from server.commands.reconcile_files import Decimals
from server.reconciliation.model import Measure

_COUNTS: Final = frozenset({Measure.RECEIPTS, Measure.RETURNS})
_POINTS: Final = frozenset(
    {
        Measure.POINTS_EARNED,
        Measure.POINTS_SPENT,
        Measure.RETURNS_POINTS_EARNED,
        Measure.RETURNS_POINTS_SPENT,
    }
)
_PLACE_COLUMNS: Final = (
    Column("break_id", "break", "text"),
    Column("business_date", "day", "day"),
    Column("store", "store", "text"),
    Column("terminal", "terminal", "text"),
    Column("kind", "kind", "text"),
    Column("state", "state", "text"),
    Column("age_days", "age, days", "integer"),
    Column("receipts", "receipts", "integer"),
)
SHORT_ID: Final = 8
"""Digits of an id that a terminal shows; they name a break as the whole id does."""
TITLE: Final = "Breaks between registers and ledger"


def terminal_table(breaks: Iterable[pb.Break], decimals: Decimals) -> Table:
    """Return breaks with a short id, a text, and the differences in one column."""
    columns = (
        *(column for column in _PLACE_COLUMNS if column.name != "receipts"),
        Column("text", "what", "text"),
        Column("difference", "ledger less register", "text"),
    )
    rows = tuple(
        (one.break_id[:SHORT_ID], *_place(one)[1:-1], one.text, differences(one.figures, decimals)) for one in breaks
    )
    return Table(TITLE, columns, rows)


def file_table(breaks: Iterable[pb.Break], decimals: Decimals) -> Table:
    """Return breaks with both sides of every figure in columns of their own; the columns are always the same."""
    figures = tuple(column for measure in Measure for column in _figure_columns(measure, decimals))
    more = (
        Column("numbers", "numbers", "text"),
        Column("what", "what", "text"),
        Column("worked_by", "worked by", "text"),
        Column("note", "note", "text"),
    )
    rows = tuple((*_place(one), _numbers(one), one.text, one.worked_by, one.note, *_figures(one)) for one in breaks)
    return Table(TITLE, (*_PLACE_COLUMNS, *more, *figures), rows)


def differences(figures: Iterable[pb.Figure], decimals: Decimals) -> str:
    """Return what the ledger has more than the register (with a plus), or less (with a minus)."""
    texts = []
    for figure in figures:
        measure = Measure(figure.measure)
        difference = figure.found - figure.expected
        if difference:
            texts.append(f"{_name(measure)} {_signed(difference, _decimals(measure, decimals))}")
    return ", ".join(texts)


def kind_name(kind: pb.BreakKind) -> str:
    """Return a kind as people write it."""
    return pb.BreakKind.Name(kind).removeprefix("BREAK_KIND_").lower()


def state_name(state: pb.BreakState) -> str:
    """Return a state as people write it."""
    return pb.BreakState.Name(state).removeprefix("BREAK_STATE_").lower()


def change_name(change: pb.BreakChange) -> str:
    """Return what happened to a break as people say it."""
    return pb.BreakChange.Name(change).removeprefix("BREAK_CHANGE_").lower().replace("_", " ")


def _place(one: pb.Break) -> tuple[Value, ...]:
    day = date.fromisoformat(one.business_date)
    names = (kind_name(one.kind), state_name(one.state))
    return one.break_id, day, one.store_id, one.terminal_id, *names, one.age_days, one.receipt_count


def _numbers(one: pb.Break) -> str:
    return " ".join(str(run.first) if run.first == run.last else f"{run.first}-{run.last}" for run in one.numbers)


def _figures(one: pb.Break) -> Iterator[Value]:
    by_measure = {Measure(figure.measure): figure for figure in one.figures}
    for measure in Measure:
        figure = by_measure.get(measure)
        yield None if figure is None else figure.expected
        yield None if figure is None else figure.found


def _figure_columns(measure: Measure, decimals: Decimals) -> Iterator[Column]:
    for side in ("register", "ledger"):
        name, title = f"{measure.name.lower()}_{side}", f"{_name(measure)}, {side}"
        if measure in _COUNTS:
            yield Column(name, title, "integer")
        elif measure in _POINTS:
            yield Column(name, title, "points", decimals.points)
        else:
            yield Column(name, title, "money", decimals.money)


def _name(measure: Measure) -> str:
    return measure.name.lower().replace("_", " ")


def _decimals(measure: Measure, decimals: Decimals) -> int:
    if measure in _COUNTS:
        return 0
    return decimals.points if measure in _POINTS else decimals.money


def _signed(minor: int, decimals: int) -> str:
    whole, part = divmod(abs(minor), 10**decimals)
    sign = "+" if minor > 0 else "-"
    return f"{sign}{whole:,}.{part:0{decimals}}" if decimals else f"{sign}{whole:,}"
