"""Members in a CSV file: rows as messages, and what is wrong with a row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from server.commands.csv_rows import Row, Table
from server.commands.members_import import COLUMNS, FIELDS, member_of


def row_of(folder: Path, text: str) -> Row:
    """Return the only row of a file."""
    path = folder / "members.csv"
    path.write_text(text)
    (row,) = Table(path, COLUMNS, fields=FIELDS).rows()
    return row


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
            "card_numbers\n2200000000019; 2200000000026 2200000000033\n",
            member_pb2.NewMember(card_numbers=["2200000000019", "2200000000026", "2200000000033"]),
            id="several cards",
        ),
        pytest.param(
            'card_number\n"2200 0000 0001 9,220 0000000026"\n',
            member_pb2.NewMember(card_numbers=["2200 0000 0001 9", "220 0000000026"]),
            id="cards written in groups",
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
    row = row_of(tmp_path, text)
    assert (member_of(row), row.faults) == (member, [])


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        pytest.param("phone,status\n1,gold\n", "status", "active, earn_only or blocked", id="status"),
        pytest.param("phone,registered_at\n1,yesterday\n", "registered_at", "YYYY-MM-DD", id="no time"),
        pytest.param("phone,registered_at\n1,2024-05-01T10:00\n", "registered_at", "without its zone", id="no zone"),
        pytest.param("phone,registered_at\n1,45000\n", "registered_at", "as a spreadsheet counts it", id="day number"),
        pytest.param(
            "phone,registered_at\n1,0001-01-01T00:00:00+03:00\n", "registered_at", "YYYY-MM-DD", id="empty date of 1C"
        ),
    ],
)
def test_bad_row_says_which_column(tmp_path: Path, text: str, column: str, words: str) -> None:
    row = row_of(tmp_path, text)
    member_of(row)
    (fault,) = row.faults
    assert (fault.column, words in fault.text) == (column, True)
