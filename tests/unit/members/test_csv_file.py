"""Members in a CSV file: rows as messages, and what is wrong with a file or a row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from server.members.csv_file import FileError, RowError, read_rows


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a file and return its path."""
    path = folder / "members.csv"
    path.write_bytes(text.encode(encoding))
    return path


def registered(moment: datetime) -> member_pb2.NewMember:
    """Return somebody with nothing but a time."""
    member = member_pb2.NewMember(phone="1")
    member.registered_at.FromDatetime(moment)
    return member


@pytest.mark.parametrize(
    ("text", "member"),
    [
        pytest.param("phone\n0501234567\n", member_pb2.NewMember(phone="0501234567"), id="one column"),
        pytest.param(
            "\ufeffphone\r\n0501234567\r\n", member_pb2.NewMember(phone="0501234567"), id="from a spreadsheet"
        ),
        pytest.param(
            "card_numbers\n1111; 2222 3333\n", member_pb2.NewMember(card_numbers=["1111", "2222", "3333"]), id="cards"
        ),
        pytest.param(
            'name,birthday,language\n"Коваль, Олена",1990-02-28,uk\n',
            member_pb2.NewMember(
                profile=member_pb2.Profile(name="Коваль, Олена", birthday="1990-02-28", language="uk")
            ),
            id="profile, quoted",
        ),
        pytest.param(
            "status,phone\n Earn_Only ,1\n",
            member_pb2.NewMember(status=api.MEMBER_STATUS_EARN_ONLY, phone="1"),
            id="status",
        ),
        pytest.param(
            "phone,registered_at\n1,2024-05-01\n",
            registered(datetime(2024, 5, 1, tzinfo=UTC)),
            id="registered on a day",
        ),
        pytest.param(
            "phone,registered_at\n1,2024-05-01T10:00:00+03:00\n",
            registered(datetime(2024, 5, 1, 7, tzinfo=UTC)),
            id="registered at a time",
        ),
        pytest.param("phone,error_line\n1,77\n", member_pb2.NewMember(phone="1"), id="a mended file of refused rows"),
        pytest.param("phone,name\n1\n", member_pb2.NewMember(phone="1"), id="a short row"),
    ],
)
def test_row_is_read(tmp_path: Path, text: str, member: member_pb2.NewMember) -> None:
    member.profile.SetInParent()
    assert [row.member() for row in read_rows(write(tmp_path, text))] == [member]


def test_rows_know_where_they_begin(tmp_path: Path) -> None:
    path = write(tmp_path, 'phone,name\n1,"two\nlines"\n2,\n\n3,\n')
    assert [(row.line, row.values["phone"]) for row in read_rows(path)] == [(2, "1"), (4, "2"), (6, "3")]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        pytest.param("phone,status\n1,gold\n", "status", "active, earn_only or blocked", id="status"),
        pytest.param("phone,registered_at\n1,yesterday\n", "registered_at", "YYYY-MM-DD", id="no time"),
        pytest.param("phone,registered_at\n1,2024-05-01T10:00\n", "registered_at", "without its zone", id="no zone"),
        pytest.param("phone\n1,2,3\n", "", "2 values more", id="too many values"),
    ],
)
def test_bad_row_says_which_column(tmp_path: Path, text: str, column: str, message: str) -> None:
    (row,) = read_rows(write(tmp_path, text))
    with pytest.raises(RowError, match=message) as error:
        row.member()
    assert error.value.column == column


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        pytest.param("", "utf-8", ":1: is empty", id="empty"),
        pytest.param("phone,mobile\n", "utf-8", "unknown column 'mobile'; the columns are card_numbers", id="column"),
        pytest.param("phone,phone\n", "utf-8", "'phone' stands twice", id="column twice"),
        pytest.param("name\nОлена\n", "cp1251", "is not UTF-8", id="encoding"),
        pytest.param('name\n"open\n', "utf-8", "is not CSV", id="quote never closed"),
    ],
)
def test_bad_file_is_refused_as_a_whole(tmp_path: Path, text: str, encoding: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        list(read_rows(write(tmp_path, text, encoding)))
