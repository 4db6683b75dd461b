"""Reports as workbooks: typed cells below a frozen header, and a second sheet with the notes.

The library has no types of use, so its objects stand as Any.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from ledger.finance.table import Column, Table, Value
from server.commands.output.cells import decimal, for_people, is_month, is_number
from server.commands.output.extra import CannotWriteError, library

MAX_ROWS: Final = 1_048_575
"""Rows of a worksheet below its header."""
MAX_TEXT: Final = 32_767
MAX_DIGITS: Final = 15
"""Digits that a spreadsheet keeps; a longer figure is written as text rather than wrong."""
MAX_WIDTH: Final = 60
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_NOT_IN_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MOMENTS_OF_MAKING: Final = re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*")


def xlsx_bytes(table: Table) -> bytes:
    """Return a report as a workbook. Text is always text: a name that begins with `=` is no formula.

    Raises:
        CannotWriteError: The library is missing, or the report has more rows than a worksheet.
    """
    workbook = library("openpyxl", "XLSX").Workbook(write_only=True)
    if len(table.rows) > MAX_ROWS:
        raise CannotWriteError(
            f"the report has {len(table.rows):,} rows, a worksheet holds {MAX_ROWS:,}: "
            "ask for fewer days, or write .csv or .parquet"
        )
    workbook.properties.creator, workbook.properties.title = "tallypoint", table.title
    _write_rows(_Sheet(workbook.create_sheet("Report")), table)
    about = _Sheet(workbook.create_sheet("About"))
    about.set_width(1, 2 * MAX_WIDTH)
    for text in (table.title, *table.notes):
        about.append([about.text(text)])
    written = io.BytesIO()
    workbook.save(written)
    return _without_clock(written.getvalue())


class _Sheet:
    """A worksheet, and the cells that belong to it."""

    def __init__(self, sheet: Any) -> None:  # noqa: ANN401 - the library's object
        self.sheet = sheet
        self.append: Callable[[list[Any]], None] = sheet.append
        self._cell = library("openpyxl.cell", "XLSX").WriteOnlyCell
        self._letter = library("openpyxl.utils", "XLSX").get_column_letter
        styles = library("openpyxl.styles", "XLSX")
        self._bold = styles.Font(bold=True)
        self._right = styles.Alignment(horizontal="right")

    def set_width(self, index: int, width: int) -> None:
        self.sheet.column_dimensions[self._letter(index)].width = min(width, 2 * MAX_WIDTH)

    def text(self, text: str) -> Any:  # noqa: ANN401 - the library's object
        cell = self._cell(self.sheet, _NOT_IN_XML.sub("\ufffd", text)[:MAX_TEXT])
        cell.data_type = "s"  # the library takes a text that begins with = for a formula,
        if text.startswith(("=", "+", "-", "@")):
            cell.quotePrefix = True  # and so would a spreadsheet, once somebody edits the cell
        return cell

    def header(self, column: Column) -> Any:  # noqa: ANN401 - the library's object
        cell = self.text(f"{column.title} (UTC)" if column.kind == "moment" else column.title)
        cell.font = self._bold
        if is_number(column):
            cell.alignment = self._right
        return cell

    def value(self, column: Column, value: Value) -> Any:  # noqa: ANN401 - the library's object
        if value is None:
            return None
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | Fraction):
            figure = decimal(column, value)
            if len(figure.as_tuple().digits) > MAX_DIGITS:
                return self.text(f"{figure:f}")
            cell = self._cell(self.sheet, figure)
        else:
            day = value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
            cell = self._cell(self.sheet, day)
        cell.number_format = number_format(column)
        return cell


def number_format(column: Column) -> str:
    """Return a spreadsheet's number format for a column's values."""
    match column.kind:
        case "day":
            return "yyyy-mm" if is_month(column) else "yyyy-mm-dd"
        case "moment":
            return "yyyy-mm-dd hh:mm:ss"
        case "ratio":
            return "0.00%"
        case "text":
            return "@"
        case "integer" | "points" | "money":
            return "#,##0" + ("." + "0" * column.decimals if column.decimals else "")


def _write_rows(sheet: _Sheet, table: Table) -> None:
    sheet.sheet.freeze_panes = "A2"
    for index, column in enumerate(table.columns):
        longest = max((len(for_people(column, row[index])) for row in table.rows), default=0)
        sheet.set_width(index + 1, min(max(len(column.title), longest) + 2, MAX_WIDTH))
    sheet.append([sheet.header(column) for column in table.columns])
    for row in table.rows:
        sheet.append([sheet.value(*cell) for cell in zip(table.columns, row, strict=True)])


def _without_clock(workbook: bytes) -> bytes:
    """Return a workbook without the moments of its making, which would make equal reports differ."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook)) as source, zipfile.ZipFile(written, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = _MOMENTS_OF_MAKING.sub(rb"\g<1>1980-01-01T00:00:00Z", content)
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, content)
    return written.getvalue()
