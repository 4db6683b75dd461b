"""Reports as files: CSV, Parquet and XLSX, each with exact decimals, the same bytes for the same report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from ledger.finance.table import Column, Table, Value
from server.commands.output.cells import RATIO_DECIMALS, decimal, plain
from server.commands.output.extra import CannotWriteError, library
from server.commands.output.xlsx import xlsx_bytes

DECIMAL_DIGITS: Final = 38
"""Digits of a figure in Parquet, before and after the point: the most that decimal128 has."""


def write_file(table: Table, path: Path) -> None:
    """Write a report in the format that the file's ending names; an existing file is replaced at once, whole.

    Raises:
        CannotWriteError: The ending is unknown, a library is missing, the format cannot hold the report, or the
            folder takes no file.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise CannotWriteError(f"{path.name}: the file of this report ends in one of {' '.join(WRITERS)}")
    replace_file(path, write(table))


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in its place whole: who reads it meanwhile sees the old one.

    Raises:
        CannotWriteError: The folder is missing, full, or not ours.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise CannotWriteError(f"{path} cannot be written: {error.strerror or error}") from error


def csv_bytes(table: Table) -> bytes:
    """Return a report as CSV (RFC 4180) in UTF-8: a header of column names, plain decimals, days as YYYY-MM-DD."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(column.name for column in table.columns)
    writer.writerows([plain(*cell) for cell in zip(table.columns, row, strict=True)] for row in table.rows)
    return text.getvalue().encode()


def parquet_bytes(table: Table) -> bytes:
    """Return a report as Parquet: figures as decimal128, moments in UTC; title and notes are in the schema."""
    pa, parquet = library("pyarrow", "Parquet"), library("pyarrow.parquet", "Parquet")
    fields = [
        pa.field(column.name, _arrow_type(pa, column), metadata={"title": column.title}) for column in table.columns
    ]
    schema = pa.schema(fields, metadata={"title": table.title, "notes": "\n".join(table.notes)})
    arrays = [
        pa.array([_arrow_value(column, row[index]) for row in table.rows], type=field.type)
        for index, (column, field) in enumerate(zip(table.columns, fields, strict=True))
    ]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _arrow_type(pa: Any, column: Column) -> Any:  # noqa: ANN401 - a module without types
    match column.kind:
        case "text":
            return pa.string()
        case "day":
            return pa.date32()
        case "moment":
            return pa.timestamp("us", tz="UTC")
        case "integer":
            return pa.int64()
        case "ratio":
            return pa.decimal128(DECIMAL_DIGITS, RATIO_DECIMALS)
        case "points" | "money":
            return pa.decimal128(DECIMAL_DIGITS, column.decimals)


def _arrow_value(column: Column, value: Value) -> Value | Decimal:
    if isinstance(value, int | Fraction) and column.kind != "integer":
        return decimal(column, value)
    return value


WRITERS: Final[dict[str, Callable[[Table], bytes]]] = {
    ".csv": csv_bytes,
    ".parquet": parquet_bytes,
    ".xlsx": xlsx_bytes,
}
"""What writes a file, by its ending."""
