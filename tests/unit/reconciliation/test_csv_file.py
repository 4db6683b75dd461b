"""Files of registers: rows as messages, and what is wrong with a file or a row."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from tallypoint.v1 import reconciliation_pb2 as pb

from server.commands.csv_rows import FileError
from server.commands.reconcile_files import Decimals, RowFault, open_file

DECIMALS = Decimals(money=2, points=1)
TODAY = date(2026, 3, 2)
Z_HEAD = "store,terminal,business_date,receipts,first_number,last_number"
R_HEAD = "store,terminal,business_date,number"


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a file and return its path."""
    path = folder / "z.csv"
    path.write_bytes(text.encode(encoding))
    return path


def rows(folder: Path, text: str) -> list[Message | list[RowFault]]:
    """Return the rows of a file."""
    return list(open_file(write(folder, text)).rows(DECIMALS, TODAY))


PLACE: dict[str, Any] = {"store_id": "12", "terminal_id": "3", "business_date": "2026-03-01"}


@pytest.mark.parametrize(
    ("text", "row"),
    [
        pytest.param(
            f"{Z_HEAD}\n12,3,2026-03-01,118,1,118\n",
            pb.ZReport(**PLACE, line=2, receipts=118, first_number=1, last_number=118), id="counts alone",
        ),
        pytest.param(
            f"{Z_HEAD}\n12,3,2026-03-01,0,,\n", pb.ZReport(**PLACE, line=2, receipts=0), id="a closed lane"
        ),
        pytest.param(
            f"{Z_HEAD},turnover,points_earned,points_spent\n12,3,2026-03-01,2,1,2,1234.5,7,0.1\n",
            pb.ZReport(
                **PLACE, line=2, receipts=2, first_number=1, last_number=2, turnover_minor=123450,
                points_earned_minor=70, points_spent_minor=1,
            ),
            id="money and points",
        ),
        pytest.param(
            f"\ufeff{Z_HEAD.replace(',', ';')};turnover;void_numbers\r\n12;3;2026-03-01;1;1;9;1234,50;2-3, 9\r\n",
            pb.ZReport(
                **PLACE, line=2, receipts=1, first_number=1, last_number=9, turnover_minor=123450,
                void_numbers=[pb.ReceiptNumbers(first=2, last=3), pb.ReceiptNumbers(first=9, last=9)],
            ),
            id="from a spreadsheet, with decimal commas",
        ),
        pytest.param(
            f"{Z_HEAD},turnover\n12,3,2026-03-01,1,1,1,0\n",
            pb.ZReport(**PLACE, line=2, receipts=1, first_number=1, last_number=1, turnover_minor=0),
            id="nothing is not the same as not given",
        ),
        pytest.param(
            f"{R_HEAD}\n12,3,2026-03-01,7\n",
            pb.RegisterReceipt(**PLACE, line=2, receipt_number=7, kind=pb.REGISTER_RECEIPT_KIND_SALE), id="a sale",
        ),
        pytest.param(
            f"{R_HEAD},kind,turnover\n\n12,3,2026-03-01,7,Return,10.00\n",
            pb.RegisterReceipt(
                **PLACE, line=3, receipt_number=7, kind=pb.REGISTER_RECEIPT_KIND_RETURN, turnover_minor=1000
            ),
            id="a return, after an empty line",
        ),
    ],
)  # fmt: skip
def test_row(tmp_path: Path, text: str, row: Message) -> None:
    assert rows(tmp_path, text) == [row]


@pytest.mark.parametrize(
    ("values", "column", "text"),
    [
        pytest.param("12,3,2026-03-01,many,1,2,,", "receipts", "must be a whole number such as 118", id="word"),
        pytest.param("12,3,2026-03-01,-1,1,2,,", "receipts", "must be a whole number", id="below zero"),
        pytest.param("12,3,2026-03-01,,1,2,,", "receipts", "must not be empty", id="empty"),
        pytest.param("12,3,01.03.2026,1,1,2,,", "business_date", "", id="a date in another form"),
        pytest.param("12,3,2026-02-30,1,1,2,,", "business_date", "is 2026-02-30, which is not a day", id="no such day"),
        pytest.param("12,3,2026-03-05,1,1,2,,", "business_date", "lies ahead of the clock", id="a day to come"),
        pytest.param(
            "12,3,2027-03-01,1,1,2,,", "business_date", "2026-03-04 is the last day that can be", id="another year"
        ),
        pytest.param("Київ,3,2026-03-01,1,1,2,,", "store", "", id="a store that cannot be"),
        pytest.param("12,3,2026-03-01,1,1,2,12.345,", "turnover", "write it as 1234.50", id="decimals of money"),
        pytest.param("12,3,2026-03-01,1,1,2,,0.25", "points_earned", "write it as 1234.5", id="decimals of points"),
        pytest.param("12,3,2026-03-01,1,1,2,1 234.00,", "turnover", "without sign, blanks", id="thousands"),
        pytest.param("12,3,2026-03-01,1,1,2,-5.00,", "turnover", "without sign", id="sign"),
        pytest.param("12,3,2026-03-01,1,1,2,1e3,", "turnover", "must be a number such as 1234.50", id="exponent"),
        pytest.param("12,3,2026-03-01,9,1,2,,", "last_number", "leaves room for 2 numbers", id="no room"),
        pytest.param("12,3,2026-03-01,9,,,,", "first_number", "must be given", id="no numbers"),
        pytest.param("12,3,2026-03-01,1,5,2,,", "last_number", "must be at least the first number, 5", id="backwards"),
        pytest.param("12,3,2026-03-01,1,1,2,,,x", "", "values more than", id="more values than columns"),
    ],
)
def test_fault_names_line_and_column(tmp_path: Path, values: str, column: str, text: str) -> None:
    good = "12,4,2026-03-01,1,1,1,5,5"
    _, (fault, *_) = rows(tmp_path, f"{Z_HEAD},turnover,points_earned\n{good}\n{values}\n")  # type: ignore[misc]  # a list
    assert isinstance(fault, RowFault)
    assert (fault.line, fault.column) == (3, column)
    assert text in fault.text


def test_kind_that_is_none(tmp_path: Path) -> None:
    assert rows(tmp_path, f"{R_HEAD},kind\n12,3,2026-03-01,7,refund\n") == [
        [RowFault(2, "kind", "must be sale, return or void, or empty for a sale, not 'refund'")]
    ]


def test_terminal_that_stands_twice(tmp_path: Path) -> None:
    row = "12,3,2026-03-01,0,,"
    _, fault = rows(tmp_path, f"{Z_HEAD}\n{row}\n{row}\n")
    assert fault == [RowFault(3, "terminal", "this terminal's day stands in line 2 already: one row each, please")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", ":1: is empty; its first line must name columns", id="empty"),
        pytest.param("store,terminal", ":1: the first line must name the columns", id="neither reports nor receipts"),
        pytest.param(f"{Z_HEAD};x", "unknown column 'last_number;x'", id="two delimiters"),
        pytest.param(f"{Z_HEAD},turnovr", "unknown column 'turnovr'", id="misspelt"),
        pytest.param(f"{Z_HEAD},receipts", "column 'receipts' stands twice", id="twice"),
        pytest.param("store,receipts", "column 'terminal' is missing", id="incomplete"),
    ],
)
def test_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileError, match=r"z\.csv") as error:
        open_file(write(tmp_path, text))
    assert message in str(error.value)


def test_file_knows_its_hash_and_content(tmp_path: Path) -> None:
    path = write(tmp_path, f"{Z_HEAD}\n")
    file = open_file(path)
    assert (file.sha256, file.has_reports) == (hashlib.sha256(path.read_bytes()).digest(), True)
    assert not open_file(write(tmp_path, f"{R_HEAD}\n")).has_reports
