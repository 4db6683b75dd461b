"""Rows of CSV files that our commands send to the back office in batches, and the report of those that were refused.

The first line of a file names its columns, in any order. Columns that begin with `error_` are passed over, so that a
file of refused rows can be mended and loaded as it is. A file is read twice, and never kept in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, Generic, NamedTuple, Self, TypeVar

from google.protobuf.message import Message
from rich.console import Console
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.command import fail
from server.errors import reason_name
from server.progress import progress

ERROR_PREFIX: Final = "error_"
ERROR_COLUMNS: Final = ("error_line", "error_reason", "error_message")
ROWS_PER_CALL: Final = 5000
ERRORS_SHOWN: Final = 20
EXIT_ROWS_REFUSED: Final = 1


class FileError(Exception):
    """A file that cannot be read as rows; the message says where and what to do."""


class RowError(Exception):
    """A row that cannot be sent; `column` is the one at fault."""

    def __init__(self, column: str, message: str) -> None:
        """Say what is wrong with a column."""
        super().__init__(message)
        self.column = column


class Row(NamedTuple):
    """A row as it stands in the file; `line` is where it begins, counted from 1."""

    line: int
    values: dict[str, str]

    def text(self, column: str) -> str:
        """Return a value without spaces around it; empty if the file does not have the column."""
        return (self.values.get(column) or "").strip()

    def number(self, column: str, default: int) -> int:
        """Return a whole number, or the default for an empty value."""
        text = self.text(column)
        try:
            return int(text) if text else default
        except ValueError:
            raise RowError(column, "must be a whole number") from None


class Refusal(NamedTuple):
    """A row that was not carried out, and why."""

    row: Row
    reason: str
    text: str


class Table(NamedTuple):
    """A file of rows with these columns, of which some must be there."""

    path: Path
    columns: tuple[str, ...]
    required: tuple[str, ...]
    delimiter: str = ","

    def rows(self) -> Iterator[Row]:
        """Yield the rows in order; empty lines are passed over.

        Raises:
            FileError: it is not UTF-8, or its first line does not name our columns, or it is no CSV.
        """
        reader = None
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter=self.delimiter, restkey=ERROR_PREFIX, strict=True)
                self._check_columns(reader.fieldnames)
                line = reader.line_num + 1
                for values in reader:
                    yield Row(line, values)
                    line = reader.line_num + 1
        except UnicodeDecodeError as error:
            text = f"{self.path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
            raise FileError(text) from None
        except csv.Error as error:
            raise FileError(f"{self.path}:{reader.line_num if reader else 1}: is not CSV: {error}") from None

    def _check_columns(self, names: Sequence[str] | None) -> None:
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


M = TypeVar("M", bound=Message)


class Batch(NamedTuple, Generic[M]):
    """Rows that go in one call, with their messages."""

    rows: list[Row]
    messages: list[M]

    def refusals(self, answers: Iterable[rights_pb2.RefusedRow]) -> list[Refusal]:
        """Return the refusals of an answer, with the rows that they are of."""
        return [_refusal(self.rows[answer.index], answer.refusal) for answer in answers]


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

    While a batch is under way the next one is read. `message_of` makes a row's message or raises RowError, `send` sends
    a batch and returns its refusals.

    Raises:
        typer.Exit: the file cannot be read, or the service cannot be reached.
    """
    try:
        total = sum(1 for _ in table.rows())
        with ThreadPoolExecutor(1) as pool, _Report(table, errors) as report:
            with progress(title, total, "rows") as advance:
                under_way: Future[Iterable[Refusal]] | None = None
                for batch, refused in _batches(table.rows(), message_of):
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


def _batches(rows: Iterator[Row], message_of: Callable[[Row], M]) -> Iterator[tuple[Batch[M], list[Refusal]]]:
    while chunk := list(islice(rows, ROWS_PER_CALL)):
        batch: Batch[M] = Batch([], [])
        refused: list[Refusal] = []
        for row in chunk:
            try:
                if ERROR_PREFIX in row.values:
                    raise RowError("", "has more values than the first line has columns")
                batch.messages.append(message_of(row))
                batch.rows.append(row)
            except RowError as error:
                refused.append(_row_refusal(row, error))
        yield batch, refused


def _row_refusal(row: Row, error: RowError) -> Refusal:
    text = f"{error.column}: {error}" if error.column else str(error)
    return Refusal(row, reason_name(api.REFUSAL_REASON_INVALID_REQUEST), text)


def _refusal(row: Row, refusal: api.Refusal) -> Refusal:
    text = refusal.message
    if refusal.violations:
        text = f"{refusal.violations[0].field}: {refusal.violations[0].description}"
    return Refusal(row, reason_name(refusal.reason), text)
