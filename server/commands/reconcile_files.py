"""A store's files: Z reports, or single receipts, as CSV. docs/reconciliation.md describes the columns for people.

The first line names the columns, in any order. A file with a column `receipts` holds Z reports, one row a terminal's
day; a file with a column `number` holds single receipts. Money and points are decimal numbers, with a point or a
comma, without separators of thousands. An empty cell means that the register does not say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message
from tallypoint.v1 import reconciliation_pb2 as pb

from server.base.errors import Refused
from server.commands.csv_rows import ANYHOW, FileError, Kind, Reading, Row, Table, find_layout
from server.commands.csv_rows import Column as FileColumn
from server.edge.clocks import DAYS_AHEAD
from server.edge.validation import check
from server.reconciliation.files import receipt_faults, report_faults
from server.reconciliation.receipt_numbers import parse

_MAX_DIGITS: Final = 15
_NUMBER: Final = re.compile(r"(?P<whole>\d+)(?:[.,](?P<part>\d+))?")
_KINDS: Final[Mapping[str, pb.RegisterReceiptKind]] = {
    "": pb.REGISTER_RECEIPT_KIND_SALE,
    "sale": pb.REGISTER_RECEIPT_KIND_SALE,
    "return": pb.REGISTER_RECEIPT_KIND_RETURN,
    "void": pb.REGISTER_RECEIPT_KIND_VOID,
}


class RowFault(NamedTuple):
    """What is wrong with a row."""

    line: int
    column: str
    text: str


class Decimals(NamedTuple):
    """How many decimal places the programme's money and points have."""

    money: int
    points: int


class Column(NamedTuple):
    """A column: the message's field, and how its text is read. A column that is not `required` may be left out."""

    field: str
    read: Callable[[str, Decimals], Any]
    required: bool = False


def _text(text: str, _decimals: Decimals) -> str:
    return text


def _count(text: str, _decimals: Decimals) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS + 1:
        raise ValueError(f"must be a whole number such as 118, not {text!r}")
    return int(text)


def _money(text: str, decimals: Decimals) -> int:
    return _minor(text, decimals.money, "money")


def _points(text: str, decimals: Decimals) -> int:
    return _minor(text, decimals.points, "points")


def _minor(text: str, decimals: int, what: str) -> int:
    """Read a decimal number as an integer of minor units."""
    match = _NUMBER.fullmatch(text)
    right = "1234" if decimals == 0 else f"1234.{'5':0<{decimals}}"
    if match is None or len(match["whole"]) > _MAX_DIGITS:
        raise ValueError(f"must be a number such as {right}, without sign, blanks or thousands' separators")
    part = (match["part"] or "").rstrip("0")
    if len(part) > decimals:
        raise ValueError(f"has {len(match['part'])} decimal places, and {what} have {decimals}: write it as {right}")
    return int(match["whole"] + part.ljust(decimals, "0"))


def _numbers(text: str, _decimals: Decimals) -> list[pb.ReceiptNumbers]:
    return [pb.ReceiptNumbers(first=run.first, last=run.last) for run in parse(text)]


def _kind(text: str, _decimals: Decimals) -> pb.RegisterReceiptKind:
    if text.lower() not in _KINDS:
        raise ValueError(f"must be sale, return or void, or empty for a sale, not {text!r}")
    return _KINDS[text.lower()]


_PLACE: Final = {
    "store": Column("store_id", _text, required=True),
    "terminal": Column("terminal_id", _text, required=True),
    "business_date": Column("business_date", _text, required=True),
}
_CELLS: Final = {"store": Kind.CODE, "terminal": Kind.CODE, "business_date": Kind.DAY}
_AMOUNTS: Final = {
    "gross": Column("gross_minor", _money),
    "discounts": Column("discounts_minor", _money),
    "turnover": Column("turnover_minor", _money),
    "money": Column("money_minor", _money),
    "points_money": Column("points_money_minor", _money),
    "points_earned": Column("points_earned_minor", _points),
    "points_spent": Column("points_spent_minor", _points),
}
Z_COLUMNS: Final[Mapping[str, Column]] = {
    **_PLACE,
    "receipts": Column("receipts", _count, required=True),
    "first_number": Column("first_number", _count, required=True),
    "last_number": Column("last_number", _count, required=True),
    **_AMOUNTS,
    "returns": Column("returns", _count),
    "returns_turnover": Column("returns_turnover_minor", _money),
    "returns_money": Column("returns_money_minor", _money),
    "voids": Column("voids", _count),
    "void_numbers": Column("void_numbers", _numbers),
}
RECEIPT_COLUMNS: Final[Mapping[str, Column]] = {
    **_PLACE,
    "number": Column("receipt_number", _count, required=True),
    "kind": Column("kind", _kind),
    **_AMOUNTS,
}


class RegisterFile(NamedTuple):
    """A file whose first line was read: what its rows are, and the SHA-256 of all of it."""

    table: Table
    columns: Mapping[str, Column]
    sha256: bytes

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.table.path

    @property
    def has_reports(self) -> bool:
        """Say whether the rows are Z reports; otherwise they are single receipts."""
        return self.columns is Z_COLUMNS

    def rows(self, decimals: Decimals, today: date) -> Iterator[Message | list[RowFault]]:
        """Yield each row as a message, or what is wrong with it; rows without any value are passed over.

        A business date that lies ahead of `today` by more than `DAYS_AHEAD` is wrong: the day that was meant would seem
        to have no report.

        Raises:
            FileError: the file cannot be read.
        """
        places: dict[tuple[str, ...], int] = {}
        for row in self.table.rows():
            if not row.faults and not any(row.meant.values()):
                continue
            if row.faults and not row.meant:
                yield [RowFault(row.line, fault.column, fault.text) for fault in row.faults]
                continue
            message, faults = self._read(row, decimals, str(today + timedelta(days=DAYS_AHEAD)))
            if self.has_reports and not faults:
                place = tuple(row.text(name) for name in _PLACE)
                if place in places:
                    text = f"this terminal's day stands in line {places[place]} already: one row each, please"
                    faults.append(RowFault(row.line, "terminal", text))
                places.setdefault(place, row.line)
            yield faults or message

    def _read(self, row: Row, decimals: Decimals, last_day: str) -> tuple[Message, list[RowFault]]:
        message = pb.ZReport(line=row.line) if self.has_reports else pb.RegisterReceipt(line=row.line)
        for name, column in self.columns.items():
            text = row.text(name)
            if not text and column.read is not _kind:
                if column.required and name not in {"first_number", "last_number"}:
                    row.wrong(name, "must not be empty")
                continue
            try:
                _set_field(message, column.field, column.read(text, decimals))
            except ValueError as error:
                row.wrong(name, str(error))
        if not row.faults:
            for field, text in _faults(message):
                row.wrong(self._column(field), text)
            if row.text("business_date") > last_day:  # days of this form compare as texts do
                row.wrong("business_date", f"lies ahead of the clock: {last_day} is the last day that can be")
        return message, [RowFault(row.line, fault.column, fault.text) for fault in row.faults]

    def _column(self, field: str) -> str:
        return next((name for name, column in self.columns.items() if field.startswith(column.field)), field)


def open_file(path: Path, reading: Reading = ANYHOW) -> RegisterFile:
    """Read the first line of a file, and the SHA-256 of all of it.

    Raises:
        FileError: its first line does not name the columns of Z reports or of receipts.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    either = {**Z_COLUMNS, **RECEIPT_COLUMNS}
    names = find_layout(path, _file_columns(either), reading).names
    if "receipts" not in names and "number" not in names:
        raise FileError(
            f"{path}:1: the first line must name the columns. Z reports have {_required(Z_COLUMNS)}; "
            f"receipts have {_required(RECEIPT_COLUMNS)}"
        )
    columns = Z_COLUMNS if "receipts" in names else RECEIPT_COLUMNS
    required = tuple(name for name, column in columns.items() if column.required)
    table = Table(path, _file_columns(columns), required, reading)
    _ = table.layout
    return RegisterFile(table, columns, sha256)


def _file_columns(columns: Mapping[str, Column]) -> tuple[FileColumn, ...]:
    return tuple(
        FileColumn(name, _CELLS.get(name, Kind.FIGURE), _names_in_api(column)) for name, column in columns.items()
    )


def _names_in_api(column: Column) -> tuple[str, ...]:
    """Return the field's name in the API, unless the API counts it in minor units."""
    return () if column.field.endswith("_minor") else (column.field,)


def _required(columns: Mapping[str, Column]) -> str:
    return ", ".join(name for name, column in columns.items() if column.required)


def _set_field(message: Message, field: str, value: Any) -> None:  # noqa: ANN401 - whatever the field holds
    if isinstance(value, list):
        getattr(message, field).extend(value)
    else:
        setattr(message, field, value)


def _faults(message: Message) -> list[tuple[str, str]]:
    """Return what the API would say to a row, before it is sent."""
    try:
        check(message)
    except Refused as refused:
        return list(refused.violations)
    if isinstance(message, pb.ZReport):
        return list(report_faults(message))
    assert isinstance(message, pb.RegisterReceipt)
    return list(receipt_faults(message))
