"""Moments of requests as Python's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from server.edge.holdable import FIRST_SECOND, LAST_SECOND, NANOS_PER_SECOND

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
