"""For whom a version of the programme counts: for everybody, for a share, for nobody, or as a shadow. Pure.

A share is drawn by SHA-256, so every worker draws the same without asking anybody, and who is drawn for 10 % is also
drawn for 20 %. What holds for a receipt is what was said by its own time, so that resending it changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Final, NamedTuple

EVERYBODY: Final = 1_000_000
"""The whole, in millionths."""
NOBODY: Final = 0


class Mode(IntEnum):
    """What a version does; the numbers are the API's RolloutMode."""

    LIVE = 1
    """It decides receipts."""
    SHADOW = 2
    """It is computed and compared, and never applied."""


class ShareBy(IntEnum):
    """What a share is drawn from; the numbers are the API's RolloutBy."""

    STORES = 1
    RECEIPTS = 2


class Rollout(NamedTuple):
    """For whom a version counts from a moment on; `from_at` None stands for what it begins with."""

    mode: Mode = Mode.LIVE
    share_millionths: int = EVERYBODY
    share_by: ShareBy = ShareBy.STORES
    from_at: datetime | None = None
    set_by: str = ""

    @property
    def is_for_all(self) -> bool:
        """Say whether it counts for everybody."""
        return self.mode is Mode.LIVE and self.share_millionths >= EVERYBODY

    @property
    def is_off(self) -> bool:
        """Say whether it counts for nobody and is not compared either."""
        return self.mode is Mode.LIVE and self.share_millionths <= NOBODY

    def same_as(self, other: Rollout) -> bool:
        """Say whether it counts for the same people as another."""
        if self.mode is not other.mode:
            return False
        if self.mode is Mode.SHADOW:
            return True
        is_partial = NOBODY < self.share_millionths < EVERYBODY
        return self.share_millionths == other.share_millionths and (not is_partial or self.share_by is other.share_by)

    def counts_for(self, version: int, store_id: str, shopper: str) -> bool:
        """Say whether a version decides a receipt; who is not named is in no share but the whole."""
        if self.mode is not Mode.LIVE or self.share_millionths <= NOBODY:
            return False
        if self.share_millionths >= EVERYBODY:
            return True
        name = store_id if self.share_by is ShareBy.STORES else shopper
        return bool(name) and drawn(version, name) < self.share_millionths


PLAIN: Final = Rollout()
"""What holds for a version of which nothing else was said."""


def drawn(version: int, name: str) -> int:
    """Return the place of a store or shopper in a version's draw: 0 to 999,999, the same everywhere and always."""
    digest = hashlib.sha256(f"rollout|{version}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % EVERYBODY


def in_force(rollouts: Sequence[Rollout], at: datetime) -> Rollout:
    """Return what holds at a moment, of all that was said about a version, oldest first."""
    for rollout in reversed(rollouts):
        if rollout.from_at is None or rollout.from_at <= at:
            return rollout
    return PLAIN


class Dated(NamedTuple):
    """A version's place in the order of versions, and what was said about it."""

    effective_at: datetime
    version: int
    rollouts: tuple[Rollout, ...]


def due(versions: Iterable[Dated], at: datetime) -> list[Dated]:
    """Return the versions whose date has come, the one that is asked first in front."""
    return sorted((one for one in versions if one.effective_at <= at), key=lambda one: one[:2], reverse=True)


def in_effect(versions: Iterable[Dated], at: datetime) -> int | None:
    """Return the version that decides receipts of a moment which no smaller share takes out; None if there is none."""
    return next((one.version for one in due(versions, at) if in_force(one.rollouts, at).is_for_all), None)


def replaces(versions: Iterable[Dated], version: int, at: datetime) -> int | None:
    """Return the version that decides receipts of a moment where a version does not; None if that takes nobody away.

    That is the next one behind it that counts for everybody. A version that is a shadow, that counts for nobody, or
    that stands behind one that counts for everybody, takes nobody away.
    """
    is_behind = False
    for one in due(versions, at):
        held = in_force(one.rollouts, at)
        if one.version == version:
            if held.mode is Mode.SHADOW or held.is_off:
                return None
            is_behind = True
        elif held.is_for_all:
            return one.version if is_behind else None
    return None


def needed_since(versions: Iterable[Dated], since: datetime) -> set[int]:
    """Return the versions that decide some receipt of a moment or later, or are compared with it as shadows."""
    known = list(versions)
    said = {rollout.from_at for one in known for rollout in one.rollouts if rollout.from_at}
    moments = {since} | {moment for moment in {one.effective_at for one in known} | said if moment > since}
    return {number for moment in moments for number in _versions_concerned(known, moment)}


def _versions_concerned(versions: Iterable[Dated], at: datetime) -> Iterator[int]:
    is_decided = False
    for one in due(versions, at):
        held = in_force(one.rollouts, at)
        if held.mode is Mode.SHADOW or not (is_decided or held.is_off):
            yield one.version
        is_decided = is_decided or held.is_for_all


class Rollback(NamedTuple):
    """What going back needs: the version that will count, whether it has to be switched on, and those to switch off."""

    version: int
    switch_on: bool
    switch_off: tuple[int, ...]


def plan_rollback(versions: Iterable[Dated], at: datetime, to_version: int | None = None) -> Rollback | None:
    """Return how the version before counts again (or a named one that is due); None if there is none to go back to.

    Everything that is asked before it and counts for anybody is switched off. Without a name, the newest version that
    counts for anybody goes, and the next that counts for everybody stays.
    """
    order = due(versions, at)
    passed: list[int] = []
    for one in order:
        held = in_force(one.rollouts, at)
        is_live = held.mode is Mode.LIVE and not held.is_off
        if one.version == to_version or (to_version is None and passed and held.is_for_all):
            return Rollback(one.version, not held.is_for_all, tuple(passed))
        if is_live:
            passed.append(one.version)
    return None
