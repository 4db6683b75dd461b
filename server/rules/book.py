"""The compiled rules of all versions, in a worker's memory, and which of them a receipt is judged by."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from ledger.books import read_units
from ledger.model import Unit
from ledger.partners import partner_account, read_partners
from server.promotions import Rules, compile_rules, load_programme
from server.rules.rollout import Mode, Rollout, in_force
from server.rules.versions import READ_NEW_TEXTS, read_rollouts

if TYPE_CHECKING:
    from server.database import Connection

_log = structlog.get_logger(__name__)


class _Version(NamedTuple):
    effective_at: datetime
    version: int
    rules: Rules
    rollouts: tuple[Rollout, ...] = ()


class RulesBook:
    """All versions of the programme, compiled and in memory; `load` adds those that were published since."""

    def __init__(self) -> None:
        """Start without any rules."""
        self._newest = 0
        self._versions: list[_Version] = []
        self._dates: list[tuple[datetime, int]] = []
        self._has_rollouts = False
        self._has_shadows = False
        self._units: dict[str, Unit] = {}
        self._partners: dict[str, int] = {}

    def unit(self, rules: Rules) -> Unit:
        """Return the point unit of rules that `at` gave, as the books number it."""
        return self._units[rules.programme.point.unit]

    def unit_named(self, code: str) -> Unit:
        """Return a point unit by its code in balances and settlements."""
        return self._units[code]

    def partner_account(self, code: str) -> int:
        """Return the settlement account of a coalition partner of the programme."""
        return partner_account(self._partners[code])

    def at(self, event_at: datetime, *, store_id: str = "", shopper: str = "") -> Rules | None:
        """Return the rules for a receipt of this (aware) time, or None before the first version is in effect.

        While a version counts for a share of stores or receipts only, it takes a store, and who buys on which day, to
        be in the share; who names none is judged by the version that counts for everybody.
        """
        index = bisect_right(self._dates, (event_at, self._newest))
        if not self._has_rollouts:
            return self._versions[index - 1].rules if index else None
        for place in range(index - 1, -1, -1):
            _, version, rules, rollouts = self._versions[place]
            if in_force(rollouts, event_at).counts_for(version, store_id, shopper):
                return rules
        return None

    def shadows(self, event_at: datetime) -> tuple[Rules, ...]:
        """Return the rules that are to be compared, and never applied, for a receipt of this (aware) time."""
        if not self._has_shadows:
            return ()
        index = bisect_right(self._dates, (event_at, self._newest))
        return tuple(
            one.rules for one in self._versions[:index] if in_force(one.rollouts, event_at).mode is Mode.SHADOW
        )

    def of_version(self, version: int) -> Rules | None:
        """Return the rules of a version, in effect or not."""
        return next((one.rules for one in self._versions if one.version == version), None)

    def of_unit(self, code: str, at: datetime) -> Rules | None:
        """Return the rules at a time if their points are of a unit, else the latest that are; empty means any unit."""
        candidates = [one.rules for one in self._versions if code in {"", one.rules.programme.point.unit}]
        current = self.at(at)
        return current if current in candidates else next(reversed(candidates), None)

    def of_further_unit(self, code: str, at: datetime) -> Rules | None:
        """Return the rules at a time if one of their further units is this one, else the latest of which one is."""
        candidates = [
            one.rules for one in self._versions if any(each.point.unit == code for each in one.rules.programme.units)
        ]
        current = self.at(at)
        return current if current in candidates else next(reversed(candidates), None)

    async def load(self, conn: Connection) -> None:
        """Compile the versions that were published since the last time, and read for whom each one counts.

        A version that this release cannot read is left out with a log line: the one before it stays in effect.
        """
        records = await conn.fetch(READ_NEW_TEXTS, self._newest)
        versions = list(self._versions)
        for record in records:
            rules = await asyncio.to_thread(_compile, record["text"], record["version"])
            if rules is None:
                _log.error("programme_unreadable", version=record["version"])
                continue
            versions.append(_Version(record["effective_at"], record["version"], rules))
        rollouts = await read_rollouts(conn)
        self._units = await read_units(conn)
        self._partners = await read_partners(conn)
        self._keep(versions, rollouts, records[-1]["version"] if records else self._newest)

    def _keep(self, versions: list[_Version], rollouts: dict[int, tuple[Rollout, ...]], newest: int) -> None:
        current = [one._replace(rollouts=rollouts.get(one.version, ())) for one in versions]
        self._newest = newest
        self._versions = sorted(current, key=lambda one: one[:2])
        self._dates = [one[:2] for one in self._versions]
        self._has_rollouts = bool(rollouts)
        self._has_shadows = any(said.mode is Mode.SHADOW for one in current for said in one.rollouts)


def _compile(text: str, version: int) -> Rules | None:
    loaded = load_programme(text)
    return None if isinstance(loaded, list) else compile_rules(loaded, version)
