"""Which days can be somebody's birthday, and which the first as a member. Pure.

Other systems write a day for a birthday that they do not know: 1C the first one of all, spreadsheets their day nought.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

FIRST_BIRTHDAY: Final = date(1905, 1, 1)
"""Nobody alive was born before, and no empty date is later: that of old Macintoshes is 1904-01-01."""

FIRST_REGISTRATION: Final = datetime(1950, 1, 1, tzinfo=UTC)
"""No loyalty programme is older: an earlier time is an empty date as well."""


def birthday_fault(birthday: date, today: date) -> str | None:
    """Return what is wrong with a birthday, without the day itself, which is personal; None if it can be one."""
    if birthday < FIRST_BIRTHDAY:
        return (
            f"lies before {FIRST_BIRTHDAY}: it is the empty date of a spreadsheet or another system, such as "
            "0001-01-01, 1899-12-30 or 1900-01-01; leave it empty"
        )
    return "lies in the future" if birthday > today else None


def known_birthday(birthday: date | None) -> date | None:
    """Return a stored birthday; None for another system's empty date, which was taken for a birthday once."""
    return None if birthday is None or birthday < FIRST_BIRTHDAY else birthday
