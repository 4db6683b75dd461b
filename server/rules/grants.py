"""The lots that rules grant as the ledger's: dates of a store's calendar become moments, units and partners numbers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from ledger.entry.model import ISSUED, Grant, Unit
from server.promotions import LotGrant

_KEPT_MIDNIGHTS = 4096


class PointBooks(Protocol):
    """How the books number point units and partners."""

    def unit_named(self, code: str) -> Unit:
        """Return a unit by its code."""

    def partner_account(self, code: str, own: int) -> int:
        """Return a partner's settlement account; ``own`` for one that the programme does not know."""


def grants_of(lots: Iterable[LotGrant], zone: ZoneInfo, books: PointBooks | None = None) -> tuple[Grant, ...]:
    """Return the lots to grant, each of its unit and at its partner's expense; without either, no ``books`` are needed.

    Dates become moments, midnights of the store's calendar: points become active as their first day begins and lapse
    as their last day ends.
    """
    return tuple(
        Grant(
            lot.points_minor,
            None if lot.active_from is None else _midnight(lot.active_from, zone),
            None if lot.expires_on is None else end_of_day(lot.expires_on, zone),
            unit=books.unit_named(lot.unit) if books and lot.unit else None,
            account=books.partner_account(lot.partner, ISSUED) if books and lot.partner else ISSUED,
        )
        for lot in lots
        if lot.points_minor > 0
    )


def end_of_day(day: date, zone: tzinfo) -> datetime | None:
    """Return when a day ends; None for the last one of the calendar, by which other systems mean for ever."""
    return None if day == date.max else _midnight(day + timedelta(days=1), zone)


@lru_cache(_KEPT_MIDNIGHTS)
def _midnight(day: date, zone: tzinfo) -> datetime:
    """Return when a day begins; all receipts of a day and store ask for the same few."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
