"""Which days can be somebody's birthday."""

from __future__ import annotations

from datetime import date

import pytest

from server.members.days import birthday_fault, known_birthday

TODAY = date(2026, 11, 30)


@pytest.mark.parametrize(
    ("birthday", "fault"),
    [
        pytest.param("1990-05-17", "", id="a birthday"),
        pytest.param("1905-01-01", "", id="the first that can be one"),
        pytest.param("2026-11-30", "", id="born today"),
        pytest.param("1904-12-31", "empty date", id="the day before"),
        pytest.param("0001-01-01", "empty date", id="the empty date of 1C"),
        pytest.param("1753-01-01", "empty date", id="of SQL Server"),
        pytest.param("1899-12-30", "empty date", id="day nought of a spreadsheet"),
        pytest.param("1899-12-31", "empty date", id="of another one"),
        pytest.param("1900-01-01", "empty date", id="day one of a spreadsheet"),
        pytest.param("1904-01-01", "empty date", id="of a Macintosh"),
        pytest.param("2026-12-01", "future", id="tomorrow"),
        pytest.param("9999-12-31", "future", id="the last day of all"),
    ],
)
def test_a_birthday_is_of_somebody_alive(birthday: str, fault: str) -> None:
    told = birthday_fault(date.fromisoformat(birthday), TODAY)
    assert (told is None) == (not fault)
    assert fault in (told or "")


def test_a_stored_empty_date_is_no_birthday() -> None:
    assert known_birthday(date(1900, 1, 1)) is None
    assert known_birthday(None) is None
    assert known_birthday(date(1905, 1, 1)) == date(1905, 1, 1)
