"""Records of physical lines: what CSV means, and what a stray quotation mark costs."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from server.commands.csv_rows.records import INSIDE, NOT_CLOSED, read_records

DELIMITERS = st.sampled_from(",;\t|")
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
LINES = st.text(st.sampled_from("aЖ7 \n'\""), max_size=8)
VALUES = st.text(st.sampled_from("aЖ7 ,;|'\""), max_size=6)


def read(text: str, delimiter: str = ",", width: int = 0) -> list[tuple[int, list[str], str]]:
    """Return line, values and fault of each record."""
    lines = io.StringIO(text, newline="")
    return [(one.line, one.values, one.fault) for one in read_records(lines, delimiter, width)]


@pytest.mark.parametrize(
    ("text", "records"),
    [
        pytest.param("1,a\n2,b", [(1, ["1", "a"]), (2, ["2", "b"])], id="no end of the last line"),
        pytest.param("1,a\r2,b\r", [(1, ["1", "a"]), (2, ["2", "b"])], id="lines that end as on old Macs"),
        pytest.param("1,a\r\r\n2,b\r\r\n", [(1, ["1", "a"]), (3, ["2", "b"])], id="line ends written twice over"),
        pytest.param("1,a\n\n \t\n2,b\n\x1a", [(1, ["1", "a"]), (4, ["2", "b"])], id="blank lines, and the end of DOS"),
        pytest.param('1,"a, b"\n', [(1, ["1", "a, b"])], id="delimiter in a value"),
        pytest.param('1, "a, b" ,c\n', [(1, ["1", "a, b", "c"])], id="blanks around marks"),
        pytest.param('1,"a ""b"""\n', [(1, ["1", 'a "b"'])], id="marks in a value"),
        pytest.param('1,TOV "Kvitka"\n', [(1, ["1", 'TOV "Kvitka"'])], id="marks in a value without marks"),
        pytest.param('1,Pipe 1/2"\n2,b\n', [(1, ["1", 'Pipe 1/2"']), (2, ["2", "b"])], id="inches"),
        pytest.param('1,"two\nlines"\n2,b\n', [(1, ["1", "two\nlines"]), (3, ["2", "b"])], id="line end in a value"),
        pytest.param('"two\nlines",1\n2,b\n', [(1, ["two\nlines", "1"]), (3, ["2", "b"])], id="in the first value"),
        pytest.param('1,"a\n\nb"\n2,b\n', [(1, ["1", "a\n\nb"]), (4, ["2", "b"])], id="blank line in a value"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_csv_is_read(text: str, records: list[tuple[int, list[str]]]) -> None:
    assert read(text, width=2) == [(line, values, "") for line, values in records]


@pytest.mark.parametrize(
    ("text", "line", "fault", "others"),
    [
        pytest.param('0,x,y\n1,"Open,y\n2,x,y\n3,x,y\n', 2, NOT_CLOSED, "023", id="opened, never closed"),
        pytest.param('0,x,y\n1,"Open,y\n2,"Q, q",y\n3,x,y\n', 2, NOT_CLOSED, "023", id="before a value with marks"),
        pytest.param('1,"Open,y\n2,Next",y\n3,x,y\n', 1, NOT_CLOSED, "23", id="closed in the next record"),
        pytest.param('1,x,"Open\n2,x,y\n3,x",y\n', 1, NOT_CLOSED, "23", id="closed two records on"),
        pytest.param('1,x,"Open\n2,x,"""\n3,x,y\n', 1, NOT_CLOSED, "3", id="two in a row"),
        pytest.param('"1,x,y\n2,x,y\n', 1, NOT_CLOSED, "2", id="before the first value"),
        pytest.param('0,x,y\n1,x,"', 2, NOT_CLOSED, "0", id="as the last of all"),
        pytest.param('1,"TOV "Kvitka"",y\n2,x,y\n', 1, INSIDE, "2", id="marks inside marks"),
        pytest.param('1,"Open,"Q, q"\n2,x,y\n', 1, INSIDE, "2", id="closed by the next value's"),
        pytest.param('1,"a\\"b",y\n2,x,y\n', 1, INSIDE, "2", id="backslashes"),
        pytest.param('1,"x"y,z\n2,x,y\n', 1, INSIDE, "2", id="more after the end"),
    ],
)
def test_stray_mark_is_told_where_it_was_opened_and_costs_its_own_record(
    text: str, line: int, fault: str, others: str
) -> None:
    records = read(text, width=3)
    assert next((at, text) for at, _, text in records if text) == (line, fault)
    assert "".join(values[0] for _, values, text in records if not text) == others


@pytest.mark.parametrize("lines", [49, 50, 51, 5000])
def test_value_of_many_lines_is_a_mark_that_was_not_closed(lines: int) -> None:
    """The bound: whoever forgets a mark in a long file loses one record, and not the file."""
    text = '1,"' + "word\n" * lines + 'end"\n2,x\n'
    records = read(text, width=2)
    assert bool(records[0][2]) == (lines > 50)
    assert records[-1] == (lines + 2, ["2", "x"], "")


def test_marks_left_open_in_every_line_are_read_in_one_pass() -> None:
    records = read('1,"open\n' * 20_000, width=2)
    assert len(records) == 20_000
    assert {fault for _, _, fault in records} == {NOT_CLOSED}


@given(
    table=st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=8),
    delimiter=DELIMITERS,
    line_end=LINE_ENDS,
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_what_a_library_writes_is_read_back(
    table: list[list[str]], delimiter: str, line_end: str, quoting: int
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]  # an int
    writer.writerows(table)
    sound = [(line, row, "") for line, row in enumerate(table, start=1)]
    if quoting == csv.QUOTE_MINIMAL:  # a line that is blank to the eye is no record
        assume(all(any(value.strip() for value in row) or delimiter != "\t" for row in table))
    assert read(file.getvalue(), delimiter, 3) == sound


@given(
    table=st.lists(st.lists(LINES, min_size=3, max_size=3), min_size=1, max_size=8),
    delimiter=DELIMITERS,
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_line_ends_inside_values_are_kept(table: list[list[str]], delimiter: str, line_end: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(table)
    assert [(values, fault) for _, values, fault in read(file.getvalue(), delimiter, 3)] == [(row, "") for row in table]


@given(
    table=st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=2, max_size=8),
    broken=st.text(st.sampled_from('aЖ7 ,;"'), max_size=20),
    data=st.data(),
)
def test_damage_to_one_line_costs_no_other_record(table: list[list[str]], broken: str, data: st.DataObject) -> None:
    """Whatever the line holds, every other record comes through."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(table)
    lines = file.getvalue().splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = broken
    records = read("\n".join(lines) + "\n", width=3)
    others = [(line, row, "") for line, row in enumerate(table, start=1) if line != at + 1]
    assert [record for record in records if record[0] != at + 1] == others
