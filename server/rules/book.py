"""The rules of all versions, in a worker's memory, and which of them a receipt is judged by.

Those that may judge receipts of the last day or later are compiled when they are loaded. Of all others the text is
kept, compressed, until a late receipt, a return or finance asks for them.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from ledger.entry.accounts import partner_account
from ledger.entry.model import Unit
from ledger.reading.books import read_units
from ledger.reading.partners import read_partners
from server.base.clock import Clock, utc_now
from server.promotions import Rules, compile_rules, load_programme
from server.rules.rollout import Dated, Mode, Rollout, in_force, needed_since
from server.rules.versions import READ_NEW_TEXTS, read_rollouts

if TYPE_CHECKING:
    from server.base.database import Connection

LATE: Final = timedelta(days=1)
"""Receipts that are later than this find their version compiled only if others of its time came before."""
LATE_VERSIONS_KEPT: Final = 16
"""Versions of the past that stay compiled; each takes a megabyte and more."""
_FAST: Final = 1
"""zlib's level: its usual one takes four times as long for a seventh less."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Version:
    """A version with its text, and with its rules while they are compiled."""

    number: int
    effective_at: datetime
    semantics: int
    packed: bytes
    rollouts: tuple[Rollout, ...] = ()
    rules: Rules | None = None
    is_readable: bool = True

    @classmethod
    def of(cls, number: int, effective_at: datetime, semantics: int, text: str) -> _Version:
        """Make one that is not compiled."""
        return cls(number, effective_at, semantics, zlib.compress(text.encode(), _FAST))

    @property
    def text(self) -> str:
        return zlib.decompress(self.packed).decode()

    def may_name(self, code: str) -> bool:
        """Say, without compiling, whether a code may stand in it; a text with escapes may hide one."""
        text = self.text
        return code in text or "\\" in text

    @property
    def place(self) -> tuple[datetime, int]:
        """Return its place in the order of versions."""
        return self.effective_at, self.number

    def compile(self) -> Rules | None:
        """Return the rules, or None if this release cannot read them."""
        loaded = load_programme(self.text, semantics=self.semantics)
        return None if isinstance(loaded, list) else compile_rules(loaded, self.number)

    def take(self, rules: Rules | None) -> None:
        """Keep what compiling gave."""
        self.rules = rules
        self.is_readable = rules is not None
        if rules is None:
            _log.error("programme_unreadable", version=self.number)


class RulesBook:
    """All versions of the programme, in memory; `load` adds those that were published since."""

    def __init__(self, clock: Clock = utc_now) -> None:
        """Start without any rules."""
        self._clock = clock
        self._newest = 0
        self._versions: list[_Version] = []
        self._dates: list[tuple[datetime, int]] = []
        self._late: list[_Version] = []
        self._has_shadows = False
        self._units: dict[str, Unit] = {}
        self._partners: dict[str, int] = {}

    def unit(self, rules: Rules) -> Unit:
        """Return the point unit of rules that `at` gave, as the books number it."""
        return self._units[rules.programme.point.unit]

    def unit_named(self, code: str) -> Unit:
        """Return a point unit by its code in balances and settlements."""
        return self._units[code]

    def partner_account(self, code: str, own: int) -> int:
        """Return the settlement account of a coalition partner.

        One that no version of the programme has named yet, as a store may have a mistyped one, has none: then ``own``,
        the programme's account for the same.
        """
        number = self._partners.get(code)
        return own if number is None else partner_account(number)

    def at(self, event_at: datetime, *, store_id: str = "", shopper: str = "") -> Rules | None:
        """Return the rules for a receipt of this (aware) time, or None before the first version is in effect.

        A version counts from the beginning of its day on the calendar of the time's zone: a store's, or the chain's.
        While a version counts for a share of stores or receipts only, it takes a store, and who buys on which day, to
        be in the share; who names none is judged by the version that counts for everybody.
        """
        index = bisect_right(self._dates, (event_at.replace(tzinfo=UTC), self._newest))
        versions = self._versions
        while index:
            index -= 1
            one = versions[index]
            said = one.rollouts
            if said and not in_force(said, event_at).counts_for(one.number, store_id, shopper):
                continue
            rules = one.rules or self._rules_of(one)
            if rules is not None:
                return rules
        return None

    def shadows(self, event_at: datetime) -> tuple[Rules, ...]:
        """Return the rules that are to be compared, and never applied, for a receipt of this (aware) time."""
        if not self._has_shadows:
            return ()
        index = bisect_right(self._dates, (event_at.replace(tzinfo=UTC), self._newest))
        said = [one for one in self._versions[:index] if in_force(one.rollouts, event_at).mode is Mode.SHADOW]
        return tuple(rules for one in said if (rules := self._rules_of(one)) is not None)

    def of_version(self, version: int) -> Rules | None:
        """Return the rules of a version, in effect or not."""
        return next((self._rules_of(one) for one in self._versions if one.number == version), None)

    def from_now_on(self, at: datetime) -> list[Rules]:
        """Return the rules that may decide receipts of a time or later, as far as they are published; no shadows."""
        dated = [Dated(*one.place, one.rollouts) for one in self._versions]
        needed = needed_since(dated, at)
        live = [one for one in self._versions if one.number in needed and in_force(one.rollouts, at).mode is Mode.LIVE]
        return [rules for one in live if (rules := self._rules_of(one)) is not None]

    def with_unit(self, code: str, at: datetime) -> Rules | None:
        """Return the rules at a time if they have points of a unit, their own or further ones, else the latest that do.

        An empty code means any unit.
        """
        current = self.at(at)
        if current is not None and _has_unit(current, code):
            return current
        if code and code not in self._units:
            return None
        candidates = (one for one in reversed(self._versions) if one.may_name(code))
        found = (rules for one in candidates if (rules := self._rules_of(one)) is not None)
        return next((rules for rules in found if _has_unit(rules, code)), None)

    def _rules_of(self, one: _Version) -> Rules | None:
        """Return the rules of a version, compiled if they are not; None, and it is left out, if it cannot be read."""
        if one.rules is not None:
            return one.rules
        began = time.perf_counter()
        rules = one.compile()
        one.take(rules)
        if rules is None:
            self._hold([each for each in self._versions if each is not one])
            return None
        milliseconds = round((time.perf_counter() - began) * 1000, 1)
        _log.info("programme_compiled_late", version=one.number, milliseconds=milliseconds)
        self._keep_late([*self._late, one])
        return rules

    async def load(self, conn: Connection) -> None:
        """Add the versions that were published since the last time, and read for whom each one counts.

        A version that this release cannot read is left out with a log line: the one before it stays in effect.
        """
        fresh = await _read_new(conn, self._newest)
        rollouts = await read_rollouts(conn)
        units, partners = await read_units(conn), await read_partners(conn)
        versions = sorted([*self._versions, *fresh], key=lambda one: one.place)
        needed = await self._compile_needed(versions, rollouts)
        self._newest = fresh[-1].number if fresh else self._newest
        self._units, self._partners = units, partners
        for one in versions:
            one.rollouts = rollouts.get(one.number, ())
        self._hold([one for one in versions if one.is_readable])
        self._keep_late([one for one in self._versions if one.rules is not None and one.number not in needed])

    async def _compile_needed(self, versions: list[_Version], rollouts: Mapping[int, tuple[Rollout, ...]]) -> set[int]:
        """Compile what may judge receipts from yesterday on, in a thread; return the numbers of those versions."""
        since = self._clock() - LATE
        while True:
            # Whatever turned out to be unreadable makes others count in its place.
            readable = [one for one in versions if one.is_readable]
            needed = needed_since((Dated(*one.place, rollouts.get(one.number, ())) for one in readable), since)
            missing = [one for one in readable if one.rules is None and one.number in needed]
            if not missing:
                return needed
            for one in missing:
                one.take(await asyncio.to_thread(one.compile))

    def _hold(self, versions: list[_Version]) -> None:
        self._versions = versions
        self._dates = [one.place for one in versions]
        self._has_shadows = any(said.mode is Mode.SHADOW for one in versions for said in one.rollouts)

    def _keep_late(self, compiled: list[_Version]) -> None:
        """Keep the last of these compiled, as many as are kept of versions that no receipt of today needs."""
        for one in compiled[:-LATE_VERSIONS_KEPT]:
            one.rules = None
        self._late = compiled[-LATE_VERSIONS_KEPT:]


async def _read_new(conn: Connection, after: int) -> list[_Version]:
    """Read the versions after one, a few at a time: years of texts are much at once."""
    async with conn.transaction():
        return [_Version.of(*record) async for record in conn.cursor(READ_NEW_TEXTS, after)]


def _has_unit(rules: Rules, code: str) -> bool:
    programme = rules.programme
    return code in {"", programme.point.unit} or any(each.point.unit == code for each in programme.units)
