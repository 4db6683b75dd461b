"""The time at which the back office writes, as an argument of whoever needs it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)
