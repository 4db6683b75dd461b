"""A file of rows with columns that we know.

Each row is told with all that is wrong with its form, each fault by its column as it stands in the file. Columns that
begin with `error_` are passed over, so that a file of refused rows can be mended and loaded as it is. A file is read
twice, and never kept in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from server.base.scanned_text import visible_text
from server.commands.csv_rows.cells import Codes, Kind, read_cell
from server.commands.csv_rows.layout import ANYHOW, ERROR_PREFIX, Column, FileError, Layout, Reading, find_layout
from server.commands.csv_rows.records import Record

_MOST_DIGITS: Final = 9
_NUMBER: Final = re.compile(rf"[+-]?[0-9]{{1,{_MOST_DIGITS}}}")
_TOTALS: Final = frozenset({
    *("total", "totals", "sum", "summary", "subtotal", "разом", "всього", "усього", "загалом", "підсумок"),
    *("итого", "всего", "сумма", "барлығы", "жиыны"),
})  # fmt: skip
"""How the last row of a file begins if it sums the others up."""
_FIRST_WORD: Final = re.compile(r"[^\W\d_]+(?=[\s:]|$)")
_COUNT: Final = re.compile(r"\(\d+ rows?\)")
"""How a database's client ends a table."""
_NO_WORDS: Final = re.compile(r"[\d\s.,:+-]*")


class Fault(NamedTuple):
    """What is wrong with a column, as it stands in the file; without a column, with the row as a whole."""

    column: str
    text: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.column}: {self.text}" if self.column else self.text


class Row(NamedTuple):
    """A row; `line` is where it begins, counted from 1. With `faults` it cannot be sent.

    `values` are what stands in the file, `meant` what they mean, or nothing if they cannot be told apart; `raw` is the
    text of the row.
    """

    line: int
    values: dict[str, str]
    meant: dict[str, str]
    faults: list[Fault]
    raw: str

    def text(self, column: str) -> str:
        """Return a value without spaces around it; empty if the file does not have the column."""
        return self.meant.get(column, "")

    def number(self, column: str, default: int) -> int:
        """Return a whole number, or the default for an empty value; note the fault of one that is none."""
        text = self.text(column)
        if _NUMBER.fullmatch(text):
            return int(text)
        if text:
            self.wrong(column, f"is not a whole number of at most {_MOST_DIGITS} digits, such as 5 (or leave it empty)")
        return default

    def wrong(self, column: str, text: str) -> None:
        """Note what is wrong with a column, unless it is wrong already; an empty one stands for the whole row."""
        if not column or all(fault.column != column for fault in self.faults):
            self.faults.append(Fault(column, text))


class Survey(NamedTuple):
    """What the first reading of a file finds: the number of rows, lines that are none, and its columns of codes."""

    rows: int
    passed_over: tuple[str, ...]
    codes: Mapping[str, Codes]


@dataclass(frozen=True)
class Table:
    """A file of rows with these columns, of which some must be there.

    A field of the API is its column, unless `fields` says which columns it is read from. `options` are those of the
    command that stand for columns without a value.
    """

    path: Path
    columns: tuple[Column, ...]
    required: tuple[str, ...] = ()
    reading: Reading = ANYHOW
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def layout(self) -> Layout:
        """The file's encoding, delimiter and columns; FileError if they cannot be told."""
        layout = find_layout(self.path, self.columns, self.reading)
        missing = [name for name in self.required if name not in layout.names]
        if missing:
            listed = ", ".join(column.name for column in self.columns)
            place = f"{self.path}:{layout.header.line}"
            raise FileError(f"{place}: column {missing[0]!r} is missing; the columns are {listed}")
        return layout

    @cached_property
    def survey(self) -> Survey:
        """What the first reading finds; FileError if the file cannot be read."""
        codes = {name: Codes() for name, kind in self._kinds.items() if kind in {Kind.CODE, Kind.ARTICLE}}
        places = [(at, codes[name]) for at, name in enumerate(self.layout.names) if name in codes]
        rows = 0
        passed_over: list[str] = []
        for record, reason in self._records():
            if reason:
                passed_over.append(f"{self.path}:{record.line}: {reason}: passed over")
                continue
            rows += 1
            for at, seen in places:
                if at < len(record.values):
                    seen.add(visible_text(record.values[at]))
        return Survey(rows, tuple(passed_over), codes)

    @property
    def names(self) -> list[str]:
        """The columns of the file, in its order."""
        return [name for name in self.layout.names if name and not name.startswith(ERROR_PREFIX)]

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order; blank lines, further lines of column names, and a last one with sums are none.

        Raises:
            FileError: the file cannot be read, or its first line does not name our columns.
        """
        codes = {} if self.reading.verbatim else self.survey.codes
        for record, reason in self._records():
            if not reason:
                yield self._row(record, codes)

    def column_of(self, row: Row, field: str) -> str:
        """Return where a field of a row's message stands: its column, or its option; empty if it stands nowhere."""
        head, _, rest = field.partition(".")
        columns = self.fields.get(head, (head,))
        if rest in columns:
            return rest
        column = columns[0] if len(columns) == 1 else next(filter(row.text, columns), "")
        return column if row.text(column) else self.options.get(column, column)

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {column.name: column.kind for column in self.columns}

    def _records(self) -> Iterator[tuple[Record, str]]:
        """Yield the records, each with the reason for which it is no row, if there is one."""
        held: Record | None = None
        for record in self.layout.records():
            if held is not None:
                yield held, ""
                held = None
            if self._names_columns(record):
                yield record, "is a line of column names"
            elif _sums_up(record):
                held = record
            else:
                yield record, ""
        if held is not None:
            yield held, "sums the rows up"

    def _names_columns(self, record: Record) -> bool:
        return record.values[0] in self._firsts and _folded(record) == _folded(self.layout.header)

    @cached_property
    def _firsts(self) -> set[str]:
        """How a line of column names may begin."""
        first = self.layout.header.values[0]
        return {first, f"\ufeff{first}", *_folded(self.layout.header)[:1]}

    def _row(self, record: Record, codes: Mapping[str, Codes]) -> Row:
        names = self.layout.names
        row = Row(record.line, dict(zip(names, record.values, strict=False)), {}, [], record.text)
        if record.fault:
            row.wrong(names[record.fault_at] if record.fault_at < len(names) else "", record.fault)
            return row
        more = len(record.values) - len(names)
        while more > 0 and not visible_text(record.values[len(names) + more - 1]):
            more -= 1
        if more > 0:
            row.wrong("", f"has {more} values more than the first line has columns")
            return row
        for name, text in zip(names, record.values, strict=False):
            if not text or name.startswith(ERROR_PREFIX):
                continue
            kind = self._kinds.get(name, Kind.TEXT)
            value, fault = read_cell(text, kind, verbatim=self.reading.verbatim)
            if not fault and name in codes:
                fault = codes[name].fault(value, kind)
            row.meant[name] = value
            if fault:
                row.wrong(name, fault)
            elif not name and value:
                row.wrong("", "has a value in a column without a name: name the column, or empty it")
        return row


def _folded(record: Record) -> list[str]:
    return [visible_text(value).casefold() for value in record.values]


def _sums_up(record: Record) -> bool:
    """Say whether a record looks like the sums that end a table: a word for it, and otherwise nothing but figures."""
    first = next((value for value in record.values if value and not value.isspace()), "")
    word = _FIRST_WORD.match(first)
    if (word is None or word[0].casefold() not in _TOTALS) and not _COUNT.fullmatch(first):
        return False
    return all(value is first or _NO_WORDS.fullmatch(value) for value in record.values)
