"""Reports as files say exactly what the report says: every format is read back by its own library."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import openpyxl
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.finance.table import Column, Table, Value
from server.commands.output import xlsx
from server.commands.output.cells import for_people, plain
from server.commands.output.extra import CannotWriteError
from server.commands.output.files import WRITERS, csv_bytes, parquet_bytes, write_file
from server.commands.output.xlsx import xlsx_bytes

COLUMNS = (
    Column("day", "Day", "day"),
    Column("at", "At", "moment"),
    Column("who", "Who", "text"),
    Column("lots", "Lots", "integer"),
    Column("points", "Points", "points", 2),
    Column("money", "Money", "money", 3),
    Column("rate", "Rate", "ratio"),
)
NOON = datetime(2026, 3, 1, 12, 30, 15, 500_000, tzinfo=UTC)
ROWS: tuple[tuple[Value, ...], ...] = (
    (date(2026, 3, 1), NOON, "Store 1", 7, 123_456_789, -1_005, Fraction(1, 3)),
    (None, None, None, None, None, None, None),
    (date(2024, 2, 29), NOON, '=1+1,"Київ"\r\n', -1, -5, 0, Fraction(-2, 3)),
)
REPORT = Table("Liability", COLUMNS, ROWS, ("As of close 3.",))


def test_csv_is_rfc_4180() -> None:
    assert csv_bytes(REPORT).decode() == (
        "day,at,who,lots,points,money,rate\r\n"
        "2026-03-01,2026-03-01T12:30:15.500Z,Store 1,7,1234567.89,-1.005,0.333333\r\n"
        ",,,,,,\r\n"
        '2024-02-29,2026-03-01T12:30:15.500Z,"=1+1,""Київ""\r\n",-1,-0.05,0.000,-0.666667\r\n'
    )


def test_parquet_keeps_types_and_decimals() -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(REPORT)))
    assert [str(field.type) for field in table.schema] == [
        *("date32[day]", "timestamp[us, tz=UTC]", "string", "int64"),
        *("decimal128(38, 2)", "decimal128(38, 3)", "decimal128(38, 6)"),
    ]
    assert table.schema.metadata == {b"title": b"Liability", b"notes": b"As of close 3."}
    assert table.schema.field("money").metadata == {b"title": b"Money"}
    rows = [tuple(row.values()) for row in table.to_pylist()]
    figures = (Decimal("1234567.89"), Decimal("-1.005"), Decimal("0.333333"))
    assert rows[0] == (date(2026, 3, 1), NOON, "Store 1", 7, *figures)
    assert rows[1] == (None,) * 7


def test_a_report_without_rows_keeps_its_columns() -> None:
    empty = Table("Nothing", COLUMNS, ())
    assert pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(empty))).column_names == [c.name for c in COLUMNS]
    assert csv_bytes(empty) == b"day,at,who,lots,points,money,rate\r\n"
    assert openpyxl.load_workbook(io.BytesIO(xlsx_bytes(empty)))["Report"].max_row == 1


def test_xlsx_has_typed_cells_under_a_frozen_header() -> None:
    workbook = openpyxl.load_workbook(io.BytesIO(xlsx_bytes(REPORT)))
    sheet = workbook["Report"]
    assert sheet.freeze_panes == "A2"
    assert [cell.value for cell in sheet[1]] == ["Day", "At (UTC)", "Who", "Lots", "Points", "Money", "Rate"]
    cells = sheet[2]
    assert [cell.value for cell in cells[:4]] == [datetime(2026, 3, 1), NOON.replace(tzinfo=None), "Store 1", 7]
    assert [Decimal(str(cell.value)) for cell in cells[4:]] == [
        Decimal("1234567.89"),
        Decimal("-1.005"),
        Decimal("0.333333"),
    ]
    assert [cell.number_format for cell in cells] == [
        *("yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "General", "#,##0", "#,##0.00", "#,##0.000", "0.00%")
    ]
    assert [cell.value for cell in sheet[3]] == [None] * 7
    assert [row[0].value for row in workbook["About"]] == ["Liability", "As of close 3."]


@pytest.mark.parametrize("text", ["=1+1", "+49 30", "-x", "@SUM(A1)", "=cmd|'/c calc'!A1", "plain"])
def test_text_is_never_a_formula(text: str) -> None:
    report = Table(text, (Column("name", text, "text"),), ((text,),), (text,))
    workbook = openpyxl.load_workbook(io.BytesIO(xlsx_bytes(report)))
    cells = [workbook["Report"]["A1"], workbook["Report"]["A2"], *workbook["About"]["A"]]
    assert [(cell.value, cell.data_type) for cell in cells] == [(text, "s")] * 4


def test_xlsx_survives_characters_that_xml_cannot_hold() -> None:
    report = Table("t", (Column("name", "Name", "text"),), (("a\x00b\x0bc",),))
    assert openpyxl.load_workbook(io.BytesIO(xlsx_bytes(report)))["Report"]["A2"].value == "a�b�c"


def test_a_figure_too_long_for_a_spreadsheet_is_text_rather_than_wrong() -> None:
    report = Table("t", (Column("points", "Points", "points", 2),), ((1234567890123456789,), (123456789012345,)))
    sheet = openpyxl.load_workbook(io.BytesIO(xlsx_bytes(report)))["Report"]
    assert sheet["A2"].value == "12345678901234567.89"
    assert Decimal(str(sheet["A3"].value)) == Decimal("1234567890123.45")


def test_too_many_rows_for_a_worksheet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "MAX_ROWS", 2)
    with pytest.raises(CannotWriteError, match=r"3 rows, a worksheet holds 2: ask for fewer days"):
        xlsx_bytes(REPORT)


@pytest.mark.parametrize("ending", WRITERS)
def test_equal_reports_are_equal_bytes(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    write_file(REPORT, first)
    monkeypatch.setattr("time.localtime", lambda *_: (2031, 1, 2, 3, 4, 6, 0, 2, 0))  # what zip files are stamped with
    write_file(REPORT, second)
    assert first.read_bytes() == second.read_bytes()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.CSV"
    file.write_text("old")
    write_file(REPORT, file)
    assert file.read_bytes() == csv_bytes(REPORT)
    assert [path.name for path in tmp_path.iterdir()] == ["report.CSV"]


def test_an_unknown_ending_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match=r"report\.doc: .* ends in one of \.csv \.parquet \.xlsx"):
        write_file(REPORT, tmp_path / "report.doc")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("server.commands.output.extra.importlib.import_module", missing)
    with pytest.raises(CannotWriteError, match=r"XLSX needs the library openpyxl, .*: pip install openpyxl "):
        write_file(REPORT, tmp_path / "report.xlsx")


@pytest.mark.parametrize(
    ("kind", "decimals", "value", "program", "people"),
    [
        pytest.param("points", 2, 123456789, "1234567.89", "1,234,567.89", id="points with two decimals"),
        pytest.param("points", 0, -1234, "-1234", "-1,234", id="whole points, negative"),
        pytest.param("money", 2, 5, "0.05", "0.05", id="less than one"),
        pytest.param("money", 3, -5, "-0.005", "-0.005", id="three decimals, negative"),
        pytest.param("ratio", 0, Fraction(1, 8), "0.125000", "12.50 %", id="ratio"),
        pytest.param("ratio", 0, Fraction(1, 2_000_000), "0.000001", "0.00 %", id="ratio rounded half up"),
        pytest.param("ratio", 0, Fraction(-1, 2_000_000), "-0.000001", "0.00 %", id="away from zero"),
        pytest.param("text", 0, "a", "a", "a", id="text"),
        pytest.param("day", 0, date(2026, 3, 1), "2026-03-01", "2026-03-01", id="day"),
        pytest.param("integer", 0, None, "", "", id="nothing"),
    ],
)
def test_values_read(kind: str, decimals: int, value: Value, program: str, people: str) -> None:
    column = Column("x", "X", kind, decimals)  # type: ignore[arg-type]  # the table above
    assert (plain(column, value), for_people(column, value)) == (program, people)


def test_months_are_shown_without_a_day() -> None:
    table = Table("t", (Column("issue_month", "Issue month", "day"),), ((date(2026, 3, 1),),))
    assert for_people(table.columns[0], date(2026, 3, 1)) == "2026-03"
    cell = openpyxl.load_workbook(io.BytesIO(xlsx_bytes(table)))["Report"]["A2"]
    assert (cell.value, cell.number_format) == (datetime(2026, 3, 1), "yyyy-mm")
    assert csv_bytes(table).endswith(b"2026-03-01\r\n")


@given(st.integers(-(10**30), 10**30), st.integers(0, 6))
def test_plain_decimals_lose_nothing(minor: int, decimals: int) -> None:
    text = plain(Column("x", "X", "money", decimals), minor)
    assert int(text.replace(".", "")) == minor
    assert len(text.partition(".")[2]) == decimals
    assert list(csv.reader([text])) == [[text]]
