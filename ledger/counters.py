"""A member's counters: what entries counted for the member, added up, and the one row in which the sums are kept.

A counter is dropped when the day until which it is worth keeping has passed, judged by the entry that changes one of
the member's counters, or when there is nothing left of it (a level or a paid membership counts as one time). So the row
follows from the journal alone, and stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

from tallypoint.v1 import journal_pb2

from ledger.model import Counter, CounterChange

DAYS_OF_GRACE = timedelta(days=1)
"""A counter's last day is a store's, entries have UTC's: somewhere it is still the day before."""


def parse_counters(row: bytes) -> dict[str, Counter]:
    """Return the counters of a serialised ``journal_pb2.Counters``, by key.

    Raises:
        google.protobuf.message.DecodeError, ValueError: if it is none.
    """
    return {
        each.key: Counter(each.times, each.money_minor, each.points_minor, _day(each.until))
        for each in journal_pb2.Counters.FromString(row).counters
    }


def serialise_counters(counters: Mapping[str, Counter]) -> bytes:
    """Return counters as the row in which they are kept, sorted by key."""
    message = journal_pb2.Counters()
    for key in sorted(counters):
        counter = counters[key]
        message.counters.append(change_message(CounterChange(key, *counter)))
    return message.SerializeToString(deterministic=True)


def apply_changes(
    counters: Mapping[str, Counter], changes: Iterable[CounterChange], as_of: datetime
) -> dict[str, Counter]:
    """Return counters after an entry's changes, without those that are not worth keeping.

    ``as_of`` is when the entry happened or was booked, whichever is earlier: receipts that come late count in their own
    time, and a register's clock that runs ahead makes nothing forgotten.
    """
    changed = dict(counters)
    for change in changes:
        before = changed.get(change.key, _NOTHING)
        changed[change.key] = Counter(
            before.times + change.times,
            before.money_minor + change.money_minor,
            before.points_minor + change.points_minor,
            before.until if change.until is None else change.until,
        )
    oldest = oldest_day(as_of)
    return {key: counter for key, counter in changed.items() if _is_kept(counter, oldest)}


_NOTHING = Counter()


def oldest_day(as_of: datetime) -> date:
    """Return the earliest last day of which a counter is still kept by an entry."""
    return as_of.astimezone(UTC).date() - DAYS_OF_GRACE


def _is_kept(counter: Counter, oldest: date) -> bool:
    if counter.until is not None and counter.until < oldest:
        return False
    return any((counter.times, counter.money_minor, counter.points_minor))


def change_message(change: CounterChange) -> journal_pb2.CounterChange:
    """Return a change as the journal has it."""
    return journal_pb2.CounterChange(
        key=change.key,
        times=change.times,
        money_minor=change.money_minor,
        points_minor=change.points_minor,
        until="" if change.until is None else change.until.isoformat(),
    )


def changes_of(event: journal_pb2.Event) -> list[CounterChange]:
    """Return what an entry counted.

    Raises:
        ValueError: if a day is not one of the calendar.
    """
    return [
        CounterChange(each.key, each.times, each.money_minor, each.points_minor, _day(each.until))
        for each in event.counter_changes
    ]


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None
