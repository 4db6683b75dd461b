"""Rows of CSV files that our commands send to the back office in batches, and the report of those that were refused.

The first line of a file names its columns, in any order. Columns that begin with `error_` are passed over, so that a
file of refused rows can be mended and loaded as it is. A file is read twice, and never kept in memory.

A refused row is told with all that is wrong with its form, each fault by its column as it stands in the file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Self, TypeVar

from google.protobuf.message import Message
from rich.console import Console
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.command import fail
from server.edge import check
from server.errors import Refused, reason_name
from server.progress import progress

ERROR_PREFIX: Final = "error_"
ERROR_COLUMNS: Final = ("error_line", "error_reason", "error_message")
ROWS_PER_CALL: Final = 5000
ERRORS_SHOWN: Final = 20
EXIT_ROWS_REFUSED: Final = 1
_MOST_DIGITS: Final = 9
_NUMBER: Final = re.compile(rf"[+-]?[0-9]{{1,{_MOST_DIGITS}}}")
_ROW_OF_BATCH: Final = re.compile(r"\brow (\d+) of this batch")
"""How the service names another row of a call; people count the lines of their file."""


class FileError(Exception):
    """A file that cannot be read as rows; the message says where and what to do."""


class Fault(NamedTuple):
    """What is wrong with a column, as it stands in the file; without a column, with the row as a whole."""

    column: str
    text: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.column}: {self.text}" if self.column else self.text


class Row(NamedTuple):
    """A row as it stands in the file; `line` is where it begins, counted from 1. With `faults` it cannot be sent."""

    line: int
    values: dict[str, str]
    faults: list[Fault]

    def text(self, column: str) -> str:
        """Return a value without spaces around it; empty if the file does not have the column."""
        return (self.values.get(column) or "").strip()

    def number(self, column: str, default: int) -> int:
        """Return a whole number, or the default for an empty value; note the fault of one that is none."""
        text = self.text(column)
        if _NUMBER.fullmatch(text):
            return int(text)
        if text:
            self.wrong(column, f"is not a whole number of at most {_MOST_DIGITS} digits, such as 5 (or leave it empty)")
        return default

    def wrong(self, column: str, text: str) -> None:
        """Note what is wrong with a column; an empty one stands for the whole row."""
        self.faults.append(Fault(column, text))


class Refusal(NamedTuple):
    """A row that was not carried out, and why."""

    row: Row
    reason: str
    text: str


class Table(NamedTuple):
    """A file of rows with these columns, of which some must be there.

    A field of the API is its column, unless `fields` says which columns it is read from. `options` are those of the
    command that stand for columns without a value.
    """

    path: Path
    columns: tuple[str, ...]
    required: tuple[str, ...]
    delimiter: str = ","
    fields: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    options: Mapping[str, str] = MappingProxyType({})

    def column_of(self, row: Row, field: str) -> str:
        """Return where a field of a row's message stands: its column, or its option; empty if it stands nowhere."""
        head, _, rest = field.partition(".")
        columns = self.fields.get(head, (head,))
        if rest in columns:
            return rest
        column = columns[0] if len(columns) == 1 else next(filter(row.text, columns), "")
        return column if row.text(column) else self.options.get(column, column)

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order; empty lines are passed over.

        Raises:
            FileError: it is not UTF-8, or its first line does not name our columns, or it is no CSV.
        """
        reader = None
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self.delimiter, strict=True)
                names = next(reader, [])
                self._check_columns(names)
                line = reader.line_num + 1
                for values in reader:
                    if values:
                        yield Row(line, dict(zip(names, values, strict=False)), _surplus(names, values))
                    line = reader.line_num + 1
        except UnicodeDecodeError as error:
            text = f"{self.path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            raise FileError(text) from None
        except csv.Error as error:
            raise FileError(f"{self.path}:{reader.line_num if reader else 1}: is not CSV: {error}") from None

    def _check_columns(self, names: Sequence[str]) -> None:
        listed = ", ".join(self.columns)
        if not names:
            raise FileError(f"{self.path}:1: is empty; its first line must name columns: {listed}")
        unknown = [name for name in names if name not in self.columns and not name.startswith(ERROR_PREFIX)]
        if unknown:
            raise FileError(f"{self.path}:1: unknown column {unknown[0]!r}; the columns are {listed}")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise FileError(f"{self.path}:1: column {twice[0]!r} stands twice")
        missing = [name for name in self.required if name not in names]
        if missing:
            raise FileError(f"{self.path}:1: column {missing[0]!r} is missing; the columns are {listed}")


def _surplus(names: Sequence[str], values: Sequence[str]) -> list[Fault]:
    more = len(values) - len(names)
    return [Fault("", f"has {more} values more than the first line has columns")] if more > 0 else []


M = TypeVar("M", bound=Message)


class Batch(NamedTuple, Generic[M]):
    """Rows that go in one call, with their messages."""

    table: Table
    rows: list[Row]
    messages: list[M]

    def refusals(self, answers: Iterable[rights_pb2.RefusedRow]) -> list[Refusal]:
        """Return the refusals of an answer, with the rows that they are of."""
        return [self._refusal(self.rows[answer.index], answer.refusal) for answer in answers]

    def _refusal(self, row: Row, refusal: api.Refusal) -> Refusal:
        faults = [
            Fault(self.table.column_of(row, fault.field), _ROW_OF_BATCH.sub(self._line, fault.description))
            for fault in refusal.violations
        ]
        return Refusal(row, reason_name(refusal.reason), _words(faults) or refusal.message)

    def _line(self, found: re.Match[str]) -> str:
        return f"line {self.rows[int(found[1])].line}"


class Sent(NamedTuple):
    """How many rows a file had, and how many of them were refused."""

    rows: int
    refused: int


def send_rows(
    table: Table,
    title: str,
    message_of: Callable[[Row], M],
    send: Callable[[Batch[M]], Iterable[Refusal]],
    errors: Path | None = None,
) -> Sent:
    """Send a file in batches, with progress; print the first refused rows, and write all of them to `errors`.

    While a batch is under way the next one is read. `message_of` makes a row's message, and notes in the row what is
    wrong with it; a message that breaks limits of the API is not sent either. `send` sends a batch and returns its
    refusals.

    Raises:
        typer.Exit: the file cannot be read, or the service cannot be reached.
    """
    try:
        total = sum(1 for _ in table.rows())
        with ThreadPoolExecutor(1) as pool, _Report(table, errors) as report:
            with progress(title, total, "rows") as advance:
                under_way: Future[Iterable[Refusal]] | None = None
                for batch, refused in _batches(table, message_of):
                    report.add(refused)
                    if under_way is not None:
                        report.add(under_way.result())
                    under_way = pool.submit(send, batch) if batch.rows else None
                    advance(len(batch.rows) + len(refused))
                if under_way is not None:
                    report.add(under_way.result())
            report.show()
            return Sent(total, report.count)
    except FileError as error:
        raise fail(str(error)) from None


class _Report:
    """Counts refused rows, keeps the first of them, and writes all to a file."""

    def __init__(self, table: Table, path: Path | None) -> None:
        self.count = 0
        self._first: list[Refusal] = []
        self._table = table
        self._path = path
        self._file = None if path is None else path.open("w", encoding="utf-8", newline="")
        self._writer = None
        if self._file is not None:
            self._writer = csv.DictWriter(self._file, [*table.columns, *ERROR_COLUMNS], extrasaction="ignore")
            self._writer.writeheader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, refusals: Iterable[Refusal]) -> None:
        for one in sorted(refusals, key=lambda refusal: refusal.row.line):
            self.count += 1
            if self.count <= ERRORS_SHOWN:
                self._first.append(one)
            if self._writer is not None:
                why = dict(zip(ERROR_COLUMNS, (one.row.line, one.reason, one.text), strict=True))
                self._writer.writerow({**one.row.values, **why})

    def show(self) -> None:
        console = Console(highlight=False)
        for one in self._first:
            text = f"{self._table.path}:{one.row.line}: {one.reason}: {one.text}"
            console.print(text, markup=False, soft_wrap=True)
        if self.count > ERRORS_SHOWN:
            hint = f"{self._path} has them all" if self._path else "--errors FILE writes them all"
            console.print(f"... and {self.count - ERRORS_SHOWN:,} more; {hint}", markup=False)


def _batches(table: Table, message_of: Callable[[Row], M]) -> Iterator[tuple[Batch[M], list[Refusal]]]:
    rows = table.rows()
    while chunk := list(islice(rows, ROWS_PER_CALL)):
        batch: Batch[M] = Batch(table, [], [])
        refused: list[Refusal] = []
        for row in chunk:
            message = _message(table, row, message_of)
            if message is None:
                refused.append(Refusal(row, reason_name(api.REFUSAL_REASON_INVALID_REQUEST), _words(row.faults)))
            else:
                batch.messages.append(message)
                batch.rows.append(row)
        yield batch, refused


def _message(table: Table, row: Row, message_of: Callable[[Row], M]) -> M | None:
    """Return a row's message, or None after noting all that is wrong with its form."""
    if row.faults:
        return None
    message = message_of(row)
    known = {fault.column for fault in row.faults}
    try:
        check(message)
    except Refused as refusal:
        faults = [Fault(table.column_of(row, field), text) for field, text in refusal.violations]
        row.faults.extend(fault for fault in faults if fault.column not in known)
    return None if row.faults else message


def _words(faults: Iterable[Fault]) -> str:
    return "; ".join(map(str, faults))
