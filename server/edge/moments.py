"""Moments and days of requests: as Python's, and in words where they are none. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from server.edge.holdable import FIRST_SECOND, LAST_SECOND, NANOS_PER_SECOND

DAY_FORM: Final = "a day of the calendar written as YYYY-MM-DD"
DAY_EXAMPLE: Final = "2026-05-17"
OR_EMPTY: Final = " (or leave it empty)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_of(timestamp: Timestamp) -> datetime:
    """Return a timestamp as an aware moment in UTC: `Timestamp.ToDatetime` for a third of its time.

    Raises:
        ValueError: if it is outside of the calendar.
    """
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not (FIRST_SECOND <= seconds <= LAST_SECOND and 0 <= nanos < NANOS_PER_SECOND):
        return timestamp.ToDatetime(tzinfo=UTC)  # says what is wrong with it
    return _EPOCH + timedelta(0, seconds, nanos // 1000)


def no_day(text: str = "", *, optional: bool) -> str:
    """Return what is wrong with a day that has its form but is not in the calendar, such as 2026-02-30.

    A birthday is personal: leave its text out.
    """
    which = f" {text}, which is" if text else ""
    return f"is{which} not {DAY_FORM}, such as {DAY_EXAMPLE}{OR_EMPTY if optional else ''}"
