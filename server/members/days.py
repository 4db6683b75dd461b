"""Which days can be somebody's birthday, and which the first as a member. Pure.

Other systems write a day for a birthday that they do not know: 1C the first one of all, spreadsheets their day nought.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from tallypoint.v1 import common_pb2, member_pb2

from server.base.errors import Refused
from server.edge.moments import no_day

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


def read_birthday(text: str, now: datetime, field: str) -> date | None:
    """Return a birthday, None for an empty text; INVALID_REQUEST if it cannot be one."""
    if not text:
        return None
    try:
        birthday = date.fromisoformat(text)
    except ValueError:
        raise unfit(field, no_day(optional=True)) from None
    fault = birthday_fault(birthday, now.date())
    if fault is not None:
        raise unfit(field, fault)
    return birthday


def read_registration(person: member_pb2.NewMember, now: datetime, path: str) -> datetime:
    """Return when a person became a member, by default ``now``; INVALID_REQUEST if that cannot be.

    ``path`` leads to the person in the request, such as "member.".
    """
    if not person.HasField("registered_at"):
        return now
    field = f"{path}registered_at"
    try:
        registered_at = person.registered_at.ToDatetime(tzinfo=UTC)
    except ValueError:
        raise unfit(field, "is not a time between the years 1 and 9999") from None
    if registered_at < FIRST_REGISTRATION:
        raise unfit(field, f"lies before {FIRST_REGISTRATION:%Y-%m-%d}; leave it out for now")
    if registered_at > now:
        raise unfit(field, "lies in the future; leave it out for now")
    return registered_at


def unfit(field: str, description: str) -> Refused:
    """Return the refusal of one field of a person's data."""
    return Refused(
        common_pb2.REFUSAL_REASON_INVALID_REQUEST, f"{field} {description}", violations=[(field, description)]
    )
