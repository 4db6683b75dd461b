"""Rows that were not carried out: told to people, and written to a file that can be mended and loaded."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self

from rich.console import Console

from server.commands.csv_rows.encoding import UTF8
from server.commands.csv_rows.layout import FileError
from server.commands.csv_rows.table import Row, Table

ERROR_COLUMNS: Final = ("error_line", "error_reason", "error_message", "error_row")
ERRORS_SHOWN: Final = 20


class Refusal(NamedTuple):
    """A row that was not carried out, and why."""

    row: Row
    reason: str
    text: str


class Report:
    """Counts refused rows and those that were not sent, keeps the first of them, and writes all to a file."""

    def __init__(self, table: Table, path: Path | None) -> None:
        """Write to `path`, if there is one; FileError if it cannot be written, or is the file that is loaded."""
        self.refused = 0
        self.unsent = 0
        self._first: list[Refusal] = []
        self._lines: list[int] = []
        self._table = table
        self._path = path
        self._file = None
        if path is None:
            return
        if path.exists() and path.samefile(table.path):
            raise FileError(f"{path}: is the file to be loaded: write the refused rows to another one")
        # A spreadsheet takes UTF-8 for what it is by its mark only; programs want none.
        encoding = UTF8 if table.layout.encoding == UTF8 else "utf-8-sig"
        try:
            self._file = path.open("w", encoding=encoding, newline="", errors="replace")
        except OSError as error:
            raise FileError(f"{path}: the refused rows cannot be written here: {error.strerror}") from None
        columns = [*table.names, *ERROR_COLUMNS]
        self._writer = csv.DictWriter(self._file, columns, extrasaction="ignore", delimiter=table.layout.delimiter)
        self._writer.writeheader()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, refusals: Iterable[Refusal]) -> None:
        """Note refused rows."""
        for one in sorted(refusals, key=lambda refusal: refusal.row.line):
            self.refused += 1
            if len(self._first) < ERRORS_SHOWN:
                self._first.append(one)
            self._write(one)

    def add_unsent(self, rows: Iterable[Row], why: str) -> None:
        """Note rows that were not carried out because the service was not there for them."""
        for row in rows:
            self.unsent += 1
            self._lines = [*self._lines[:1], row.line]
            self._write(Refusal(row, "NOT_SENT", why))

    def show(self) -> None:
        """Print the first refused rows, and which lines were not sent."""
        console = Console(highlight=False)
        for one in self._first:
            text = f"{self._table.path}:{one.row.line}: {one.reason}: {one.text}"
            console.print(text, markup=False, soft_wrap=True)
        if self.refused > len(self._first):
            hint = f"{self._path} has them all" if self._path else "--errors FILE writes them all"
            console.print(f"... and {self.refused - len(self._first):,} more; {hint}", markup=False)
        if self._lines:
            first, last = self._lines[0], self._lines[-1]
            lines = f"line {first:,} was" if first == last else f"lines {first:,} to {last:,} were"
            console.print(f"{self._table.path}: {lines} not loaded", markup=False, soft_wrap=True)

    def _write(self, one: Refusal) -> None:
        if self._file is not None:
            why = (one.row.line, one.reason, one.text, one.row.raw)
            self._writer.writerow({**one.row.values, **dict(zip(ERROR_COLUMNS, why, strict=True))})
