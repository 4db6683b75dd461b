"""What the rows of batches share: the days on which something counts, and the answer to a row that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.base.errors import Refused, invalid_request, refusal_message
from server.edge.validation import read_optional_day


class Days(NamedTuple):
    """The first and the last day on which something counts; None: at once, and for ever."""

    first: date | None
    last: date | None


def read_days(valid_from: str, valid_until: str) -> Days:
    """Return the days of a row; Refused INVALID_REQUEST if they are none, both at once, or in the wrong order."""
    read: list[date | None] = []
    faults: list[tuple[str, str]] = []
    for field, text in (("valid_from", valid_from), ("valid_until", valid_until)):
        try:
            read.append(read_optional_day(text, field))
        except Refused as refusal:
            faults += refusal.violations
    if faults:
        raise invalid_request(faults)
    days = Days(*read)
    if days.first and days.last and days.last < days.first:
        raise invalid_request([("valid_until", f"lies before valid_from, {days.first}")])
    return days


def text_of(day: date | None) -> str:
    """Return a day as the API writes it, none as an empty text."""
    return "" if day is None else day.isoformat()


def refused_rows(refused: Mapping[int, Refused]) -> list[rights_pb2.RefusedRow]:
    """Return the answers to refused rows in the order of their numbers."""
    return [rights_pb2.RefusedRow(index=index, refusal=refusal_message(refused[index])) for index in sorted(refused)]


def too_many(field: str, most: int, what: str) -> Refused:
    """Return the refusal of a row by which a member would have too many of something."""
    return Refused(
        api.REFUSAL_REASON_INVALID_REQUEST,
        f"the member has {most} {what} already; take some away first",
        violations=[(field, f"would have more than {most} {what}: take some away first")],
    )
