"""What one receipt adds to a member's counters."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple


class Count(NamedTuple):
    """What a receipt adds to one of the member's counters; `until` sets the day until which it is worth keeping."""

    key: str
    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None
