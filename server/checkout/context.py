"""What a commit is judged by: the rules, the shopper, what is known of both, and what further units are worth."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2

from ledger.entry.counters import parse_counters
from ledger.entry.model import Unit
from server.base.errors import Refused
from server.checkout.presented import Presented
from server.members.found import Found, MemberRecord
from server.promotions import (
    CounterFact,
    FurtherUnit,
    MemberFacts,
    ReceiptFacts,
    Rules,
    Usage,
)
from server.rules.grants import PointBooks

_NO_OFFERS: Final[frozenset[str]] = frozenset()


class Shopper(NamedTuple):
    """Whom a receipt is for.

    ``found`` is the member for whom it is booked; ``shown`` is the member behind the identifier, who differs from
    ``found`` when the identifier does not count; ``refusal`` says why it does not. ``booked_without`` means that the
    programme books such a receipt without a member, as it may for those taken offline.
    """

    found: Found | None = None
    shown: Found | None = None
    refusal: Refused | None = None
    booked_without: bool = False


class QuotedHold(NamedTuple):
    """The hold that a commit captures, by its entry's number, and the rules with which it was quoted."""

    number: int
    rules: Rules


class CommitContext(NamedTuple):
    """What a commit is judged by. ``member`` is what promotions may know of the member for whom it is booked.

    ``quoted_hold`` is its checkout's hold, as last seen, if the receipt wants to pay with points.
    """

    rules: Rules
    unit: Unit
    zone: ZoneInfo
    facts: ReceiptFacts
    member: MemberFacts | None
    notices: list[common_pb2.Notice]
    shopper: Shopper
    presented: Presented
    books: PointBooks
    quoted_hold: QuotedHold | None = None

    @property
    def found(self) -> Found | None:
        """The member for whom the receipt is booked."""
        return self.shopper.found

    @property
    def day(self) -> date:
        """The day on the store's calendar."""
        return self.facts.local_at.date()


def member_facts(found: Found | None, local_at: datetime) -> MemberFacts | None:
    """Return what promotions may know of a member at a moment on the store's clock."""
    if found is None:
        return None
    member = found.member
    return MemberFacts(
        str(member.member_id),
        member.birthday,
        can_earn=True,
        can_spend=member.can_spend,
        registered_on=member.registered_at.astimezone(local_at.tzinfo).date(),
        segments=member.segments,
        offers=_offers_on(local_at.date(), member) if member.offers else _NO_OFFERS,
        language=member.language,
    )


def _offers_on(day: date, member: MemberRecord) -> frozenset[str]:
    return frozenset(
        offer.promotion_id
        for offer in member.offers
        if (offer.first is None or offer.first <= day) and (offer.last is None or day <= offer.last)
    )


def cached_usage(found: Found | None) -> Usage:
    """Return what was counted for a member, as last read: enough for a quote; a commit looks again under the fence."""
    if found is None or not found.member.counters:
        return Usage()
    return Usage(_Unread(found.member.counters))


class _Unread(Mapping[str, CounterFact]):
    """A member's counters as the books keep them, parsed when the first is looked at: for most receipts none is."""

    def __init__(self, row: bytes) -> None:
        self._row = row
        self._read: dict[str, CounterFact] | None = None

    @property
    def _counters(self) -> dict[str, CounterFact]:
        if self._read is None:
            self._read = counters_of(parse_counters(self._row))
        return self._read

    def __getitem__(self, key: str) -> CounterFact:
        return self._counters[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counters)

    def __len__(self) -> int:
        return len(self._counters)


def counters_of(found: Mapping[str, tuple[int, int, int, date | None]]) -> dict[str, CounterFact]:
    """Return counters of the books as promotions see them."""
    return {key: CounterFact(*counter) for key, counter in found.items()}


def ids_of(found: Found) -> tuple[uuid.UUID, ...]:
    """Return the ids under which something may be booked for a member: their own, and those of members merged in."""
    return (found.member.member_id, *found.member.merged_from)


def further_unit(rules: Rules, code: str) -> FurtherUnit | None:
    """Return a unit of the programme beside its own point."""
    return next((unit for unit in rules.programme.units if unit.point.unit == code), None)


def unit_money(rules: Rules, points: common_pb2.UnitPoints) -> int:
    """Return the money that points of a further unit pay, rounded down; zero for a unit that the programme lacks."""
    unit = further_unit(rules, points.unit)
    return 0 if unit is None else int(points.points_minor * unit.point.money_per_points)


def money_of_points(points_minor: int, rules: Rules) -> int:
    """Return the money that points of the programme pay."""
    spending = rules.programme.spending
    return points_minor * spending.step_money_minor // spending.step_points_minor
