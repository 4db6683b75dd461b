"""A member's counters: what entries counted for the member, added up, and the one row in which the sums are kept.

A counter is dropped when the day until which it is worth keeping has passed, judged by the entry that changes one of
the member's counters, or when there is nothing left of it (a level or a paid membership counts as one time). So the row
follows from the journal alone, and stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from tallypoint.v1 import journal_pb2

from ledger.entry.model import Counter, CounterChange

DAYS_OF_GRACE = timedelta(days=1)
"""A counter's last day is a store's, entries have UTC's: somewhere it is still the day before."""

STANDING = "standing/"
"""How the names of counters begin in which members' levels stand."""

DAYS_AFTER_STANDING = timedelta(days=400)
"""For how long a level is remembered after its last certain day, when what it was kept by decides anew."""


def parse_counters(row: bytes) -> dict[str, Counter]:
    """Return the counters of a serialised ``journal_pb2.Counters``, by key.

    Raises:
        google.protobuf.message.DecodeError, ValueError: if it is none.
    """
    counters = {}
    for each in journal_pb2.Counters.FromString(row).counters:
        counters[each.key] = Counter(each.times, each.money_minor, each.points_minor, _day(each.until))
    return counters


def serialise_counters(counters: Mapping[str, Counter]) -> bytes:
    """Return counters as the row in which they are kept, sorted by key."""
    message = journal_pb2.Counters()
    for key in sorted(counters):
        _write(message.counters.add(), key, *counters[key])
    return message.SerializeToString(deterministic=True)


def _write(
    message: journal_pb2.CounterChange, key: str, times: int, money_minor: int, points_minor: int, until: date | None
) -> None:
    # Built in place, field by field: a member has some ten counters, and keyword arguments take four times as long.
    message.key = key
    if times:
        message.times = times
    if money_minor:
        message.money_minor = money_minor
    if points_minor:
        message.points_minor = points_minor
    if until is not None:
        message.until = _text(until)


def apply_changes(
    counters: Mapping[str, Counter], changes: Iterable[CounterChange], as_of: datetime
) -> dict[str, Counter]:
    """Return counters after an entry's changes, without those that are not worth keeping.

    ``as_of`` is when the entry happened or was booked, whichever is earlier: receipts that come late count in their own
    time, and a register's clock that runs ahead makes nothing forgotten.
    """
    changed = dict(counters)
    for key, times, money_minor, points_minor, until in changes:
        before = changed.get(key, _NOTHING)
        changed[key] = Counter(
            before.times + times,
            before.money_minor + money_minor,
            before.points_minor + points_minor,
            before.until if until is None else until,
        )
    oldest = oldest_day(as_of)
    for key in [key for key, counter in changed.items() if not _is_kept(key, counter, oldest)]:
        del changed[key]
    return changed


_NOTHING = Counter()


def oldest_day(as_of: datetime) -> date:
    """Return the earliest last day of which a counter is still kept by an entry."""
    return (as_of if as_of.tzinfo is UTC else as_of.astimezone(UTC)).date() - DAYS_OF_GRACE


def _still_decides(key: str, until: date, oldest: date) -> bool:
    """Say whether it is the level that a member had: it decides, on the day it ends, what comes after it."""
    return key.startswith(STANDING) and until >= oldest - DAYS_AFTER_STANDING


def _is_kept(key: str, counter: Counter, oldest: date) -> bool:
    times, money_minor, points_minor, until = counter
    if until is not None and until < oldest and not _still_decides(key, until, oldest):
        return False
    return times != 0 or money_minor != 0 or points_minor != 0


def write_changes(event: journal_pb2.Event, changes: Iterable[CounterChange]) -> None:
    """Write into an entry's event what it counts."""
    for change in changes:
        _write(event.counter_changes.add(), *change)


def changes_of(event: journal_pb2.Event) -> list[CounterChange]:
    """Return what an entry counted.

    Raises:
        ValueError: if a day is not one of the calendar.
    """
    return [
        CounterChange(each.key, each.times, each.money_minor, each.points_minor, _day(each.until))
        for each in event.counter_changes
    ]


@lru_cache(maxsize=4096)
def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


@lru_cache(maxsize=4096)
def _text(day: date) -> str:
    return day.isoformat()
