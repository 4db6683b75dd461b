"""How far a register's clock and business date may be from this service's: points, visits and limits count by them.

A clock that is ahead would count them in a day, month or year that has not come. Past days are bounded once for all,
since receipts taken offline, and whole years of them, may arrive late.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2

from server.base.errors import Refused, invalid_field

DAYS_AHEAD: Final = 2
"""A day is over in the time zones furthest behind when the next one is half over, and stores work past midnight."""
FIRST_BUSINESS_DATE: Final = "2000-01-01"
CASHIER_TEXT: Final = "The clock of this register is wrong. Set it right, and send the receipt again."

_SECONDS_AHEAD: Final = timedelta(days=DAYS_AHEAD).total_seconds()


def clock_refusal(event_at: Timestamp, field: str, now: datetime) -> Refused | None:
    """Return why the time of a receipt cannot be, or None; ``now`` is this service's (aware) clock."""
    seconds_ahead = event_at.seconds - now.timestamp()
    if seconds_ahead <= _SECONDS_AHEAD:
        return None
    days = math.ceil(seconds_ahead / timedelta(days=1).total_seconds()) - 1
    return _clock_ahead(field, f"more than {days:,} days", now)


def business_date_refusal(key: common_pb2.ReceiptKey, field: str, now: datetime) -> Refused | None:
    """Return why the business date of a receipt cannot be, or None; ``field`` is the key's place in the request."""
    day, field = key.business_date, f"{field}.business_date"
    if FIRST_BUSINESS_DATE <= day <= _last_day(now.date()):  # texts of one length compare as days do
        return None
    if day < FIRST_BUSINESS_DATE:
        return invalid_field(
            field, f"is {day}, before {FIRST_BUSINESS_DATE}: set the register's date, and send it again"
        )
    return _clock_ahead(field, f"more than {DAYS_AHEAD} days", now)


@lru_cache(maxsize=4)
def _last_day(today: date) -> str:
    return (today + timedelta(days=DAYS_AHEAD)).isoformat()


def _clock_ahead(field: str, how_far: str, now: datetime) -> Refused:
    cure = "set the register's clock right, correct this, and send it again"
    fault = f"lies {how_far} ahead of this service's clock ({now:%Y-%m-%d %H:%M} UTC): {cure}"
    return Refused(
        common_pb2.REFUSAL_REASON_CLOCK_AHEAD,
        f"{field} {fault}",
        cashier_text=CASHIER_TEXT,
        violations=[(field, fault)],
    )
