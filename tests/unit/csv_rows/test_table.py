"""Files as rows: how they are laid out, which lines are rows, and what is wrong with one."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.commands.csv_rows import Column, FileError, Kind, Reading, Table
from server.commands.csv_rows.cells import CHANGED, LOST_LETTER, ZEROS_CUT
from server.commands.csv_rows.records import NOT_CLOSED

COLUMNS = (
    Column("phone", Kind.DIGITS),
    Column("name", also=("full_name",)),
    Column("birthday", Kind.DAY),
    Column("sku", Kind.ARTICLE),
    Column("notes"),
)
HEAD = "phone,name,birthday\n"


def table(folder: Path, content: str | bytes, **reading: str | bool) -> Table:
    """Write a file and return it as a table."""
    path = folder / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Table(path, COLUMNS, reading=Reading(**reading))  # type: ignore[arg-type]  # fields of any type


def meant(file: Table) -> list[tuple[int, dict[str, str], list[str]]]:
    """Return line, values and faults of each row."""
    return [(row.line, row.meant, [str(fault) for fault in row.faults]) for row in file.rows()]


# --- layout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "names"),
    [
        pytest.param("phone,name", ["phone", "name"], id="as we call them"),
        pytest.param("Phone, NAME ", ["phone", "name"], id="capitals and blanks"),
        pytest.param('"phone","Full Name"', ["phone", "name"], id="marks, and another name"),
        pytest.param("\ufeffphone\xa0,full-name", ["phone", "name"], id="unseen characters"),
        pytest.param("phone,name,,", ["phone", "name"], id="delimiters at the end"),
        pytest.param("error_line,phone,error_message", ["phone"], id="file of refused rows"),
        pytest.param("\n\nphone,name", ["phone", "name"], id="blank lines before"),
        pytest.param('phone,name"', ["phone", "name"], id="stray mark after a name"),
        pytest.param('phone,"name', ["phone", "name"], id="stray mark before the last name"),
        pytest.param('"phone,name', ["phone", "name"], id="stray mark before the first name"),
        pytest.param('phone;" Full name;;', ["phone", "name"], id="stray mark, blanks and delimiters at the end"),
        pytest.param('error_line,"phone,error_message', ["phone"], id="stray mark in a file of refused rows"),
    ],
)
def test_columns_are_found(tmp_path: Path, head: str, names: list[str]) -> None:
    assert table(tmp_path, f"{head}\n").names == names


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1251"])
def test_delimiter_and_encoding_are_found_and_said(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [["phone", "name"], ["+380501110004", "Ганна; Семі, мол. | 1\t2"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    file = table(tmp_path, text.getvalue().encode(encoding))
    assert [row.values for row in file.rows()] == [dict(zip(*rows, strict=True))]
    usual = delimiter == "," and encoding.startswith("utf-8")
    name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper() if encoding.startswith("utf") else encoding
    shown = "tab" if delimiter == "\t" else f"'{delimiter}'"
    assert file.layout.found == ("" if usual else f"read as {name}, delimiter {shown}")


@pytest.mark.parametrize(
    ("text", "options", "values"),
    [
        pytest.param("sep=;\nphone;name\n1;a,b\n", {}, ["1", "a,b"], id="said in the file"),
        pytest.param("sep=|\nphone|name\n1|a,b\n", {}, ["1", "a,b"], id="said in the file, and unusual"),
        pytest.param("phone;name\n1;a\n", {"delimiter": ";"}, ["1", "a"], id="given"),
        pytest.param("phone:name\n1:a\n", {"delimiter": ":"}, ["1", "a"], id="one that is not looked for"),
        pytest.param("phone\n1;2,3\n", {"delimiter": "|"}, ["1;2,3"], id="one column with every delimiter"),
    ],
)
def test_delimiter_may_be_said(tmp_path: Path, text: str, options: dict[str, str], values: list[str]) -> None:
    assert [list(row.values.values()) for row in table(tmp_path, text, **options).rows()] == [values]


def test_line_is_counted_behind_the_line_that_says_the_delimiter(tmp_path: Path) -> None:
    file = table(tmp_path, "sep=;\nphone;name\n\n1;a\n")
    assert [row.line for row in file.rows()] == [4]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        pytest.param("", {}, ":1: is empty; its first line must name columns: phone, name", id="empty"),
        pytest.param("\ufeff\n\n", {}, ":1: is empty", id="blank"),
        pytest.param("mobile\n1\n", {}, ":1: unknown column 'mobile'; the columns are phone, name", id="unknown"),
        pytest.param("x;mobile\n1\n", {}, ":1: unknown column 'x'", id="unknown, in a file with another delimiter"),
        pytest.param("+380501110004;Ann\n", {}, "The first line must name them", id="no column names"),
        pytest.param('"phone,name"\n"1,a"\n', {}, "Each line stands in quotation marks", id="lines as single values"),
        pytest.param("phone,name,Phone\n", {}, "column 'phone' stands twice", id="twice"),
        pytest.param(
            "phone;name\n1;a\n", {"delimiter": ","}, "Is the delimiter really ','? The line looks like ';'", id="given"
        ),
        pytest.param('phone,"nick\n1,a\n', {}, "the column names cannot be read: a quotation mark", id="open mark"),
        pytest.param('phone,"\nname"\n', {}, "the column names cannot be read", id="name of two lines"),
        pytest.param("name\nŁukasz\n".encode("cp1250"), {}, "--encoding", id="encoding that cannot be told"),
        pytest.param("name\nx\n", {"encoding": "ansi"}, "there is no encoding 'ansi'", id="encoding that is none"),
        pytest.param(b"PK\x03\x04", {}, "save it as CSV", id="workbook"),
        pytest.param(HEAD + "x" * (1 << 22), {}, "no table of ours", id="one endless line"),
    ],
)
def test_file_that_is_none_says_why(tmp_path: Path, content: str | bytes, options: dict[str, str], words: str) -> None:
    with pytest.raises(FileError, match=r"rows\.csv") as error:
        list(table(tmp_path, content, **options).rows())
    assert words in str(error.value)


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param("", [], id="column names alone"),
        pytest.param("1,a,", [(2, {"phone": "1", "name": "a"}, [])], id="no end of the last line"),
        pytest.param("1,a\n", [(2, {"phone": "1", "name": "a"}, [])], id="empty values left out at the end"),
        pytest.param("1,a,,,\n", [(2, {"phone": "1", "name": "a"}, [])], id="delimiters at the end"),
        pytest.param("1,a,,,x\n", [(2, {}, ["has 2 values more than the first line has columns"])], id="more values"),
        pytest.param(
            '1,"a,\n2,b,\n',
            [
                (2, {}, [f"name: {NOT_CLOSED}"]),
                (3, {"phone": "2", "name": "b"}, []),
            ],
            id="stray mark",
        ),
        pytest.param("1,a\x00\x00,\n", [(2, {"phone": "1", "name": "a"}, [])], id="NUL"),
        pytest.param(f"1,{'x' * 200_000},\n", [(2, {"phone": "1", "name": "x" * 200_000}, [])], id="long value"),
        pytest.param("1,a,\r2,,\r", [(2, {"phone": "1", "name": "a"}, []), (3, {"phone": "2"}, [])], id="CR alone"),
        pytest.param("3.8E+11,a,\n", [(2, {"phone": "3.8E+11", "name": "a"}, [f"phone: {CHANGED}"])], id="damage"),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, text: str, rows: list[tuple[int, dict[str, str], list[str]]]) -> None:
    file = table(tmp_path, HEAD + text)
    assert [(line, {k: v for k, v in values.items() if v}, faults) for line, values, faults in meant(file)] == rows
    assert file.survey.rows == len(rows)


def test_value_without_a_column_name_is_a_fault(tmp_path: Path) -> None:
    file = table(tmp_path, "phone,,name,\n1,,a,\n2,x,b,\n")
    assert [faults for _, _, faults in meant(file)] == [
        [],
        ["has a value in a column without a name: name the column, or empty it"],
    ]


@pytest.mark.parametrize(
    ("text", "passed_over", "phones"),
    [
        pytest.param(f"1,a,\n{HEAD}2,b,\n", ":3: is a line of column names", ["1", "2"], id="files put together"),
        pytest.param(f"1,a,\n\ufeff{HEAD}2,b,\n", ":3: is a line of column names", ["1", "2"], id="marks and all"),
        pytest.param("1,a,\nTotal,,\n", ":3: sums the rows up", ["1"], id="total"),
        pytest.param("1,a,\nРазом: 1 234,5,,\n\n", ":3: sums the rows up", ["1"], id="Ukrainian, with its figure"),
        pytest.param("1,a,\n,ИТОГО:,17\n", ":3: sums the rows up", ["1"], id="Russian, further to the right"),
        pytest.param("Total,,\n1,a,\n", "", ["Total", "1"], id="not the last"),
        pytest.param("1,a,\nTotal,Milk,\n", "", ["1", "Total"], id="with words beside it"),
        pytest.param("1,a,\n(1 row)\n", ":3: sums the rows up", ["1"], id="of a database's client"),
        pytest.param("1,a,\nTotally,,\n", "", ["1", "Totally"], id="another word"),
        pytest.param("1,a,\nTOTAL-2026,,\n", "", ["1", "TOTAL-2026"], id="code"),
        pytest.param("1,a,\nРазом позицій: 12,,\n", ":3: sums the rows up", ["1"], id="with further words"),
    ],
)
def test_lines_that_are_no_rows_are_passed_over_and_told(
    tmp_path: Path, text: str, passed_over: str, phones: list[str]
) -> None:
    file = table(tmp_path, HEAD + text)
    assert [row.text("phone") for row in file.rows()] == phones
    assert [passed_over in told for told in file.survey.passed_over] == [True] * bool(passed_over)
    assert file.survey.rows == len(phones)


def test_bytes_of_another_encoding_cost_their_own_row(tmp_path: Path) -> None:
    content = (HEAD + "1,Олена,\n").encode() + "2,Ганна,\n".encode("cp1251") + "3,Ірина,\n".encode()
    assert [faults for _, _, faults in meant(table(tmp_path, content))] == [[], [f"name: {LOST_LETTER}"], []]


def test_codes_are_judged_beside_the_others(tmp_path: Path) -> None:
    text = "sku\n4820000000017\n4820000000024\n48200000018\n"
    sound: list[list[str]] = [[], [], []]
    assert [faults for _, _, faults in meant(table(tmp_path, text))] == sound, "its check digit does not fit"
    text = text.replace("48200000018", "48200000017")
    assert [faults for _, _, faults in meant(table(tmp_path, text))][2] == [f"sku: {ZEROS_CUT}"]
    assert [faults for _, _, faults in meant(table(tmp_path, text, verbatim=True))] == sound


VALUES = st.text(st.sampled_from("aЖїé7 ,;|.-'\"/"), max_size=8).map(str.strip)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example writes the file anew
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_table_of_any_form_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, encoding: str, line_end: str
) -> None:
    """Whatever a library writes, in any encoding and with any delimiter and line end."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("notes", "name", "full name 2")[:2], *((first, second) for first, second, _ in rows)])
    read = [(row.text("notes"), row.text("name")) for row in table(tmp_path, text.getvalue().encode(encoding)).rows()]
    assert read == [(first, second) for first, second, _ in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example writes the file anew
@given(count=st.integers(2, 8), broken=st.binary(max_size=30), data=st.data())
def test_damage_to_one_line_costs_no_other_row(tmp_path: Path, count: int, broken: bytes, data: st.DataObject) -> None:
    """Whatever bytes a line holds: a stray mark, another encoding, NUL, too many values."""
    lines = [f'{number},"Олена, {number}",1990-05-17'.encode() for number in range(count)]
    at = data.draw(st.integers(0, count - 1))
    lines[at] = broken.replace(b"\n", b"").replace(b"\r", b"")
    file = table(tmp_path, b"\n".join([HEAD.strip().encode(), *lines, b"9,Last,"]))
    rows = {row.line: row for row in file.rows()}
    expected = {number + 2: str(number) for number in range(count) if number != at}
    assert {line: row.text("phone") for line, row in rows.items() if line in expected} == expected
    assert [line for line in expected if rows[line].faults] == []
