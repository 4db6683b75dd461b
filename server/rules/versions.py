"""What was published: programme files as they were, in order, and what was said about for whom each counts.

A version is in effect for receipts from its file's `effective_from` on, a day on their store's calendar, until one with
a later date is. Of two versions with the same date the newer counts, so publishing again corrects a mistake. Where
there is no store (which version is in effect "now"), and in the database, that day begins at midnight UTC.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
from google.protobuf import json_format, struct_pb2
from tallypoint.v1 import common_pb2 as api

from ledger.booking.opening import ensure_partner, ensure_unit
from server.base.database import connection, transaction
from server.base.errors import Refused
from server.promotions import CURRENT_SEMANTICS, Programme, ProgrammeError, load_programme
from server.rules.advice import warnings_of
from server.rules.names import Names, names_in
from server.rules.rollout import (
    PLAIN,
    Dated,
    Mode,
    Rollback,
    Rollout,
    ShareBy,
    in_effect,
    in_force,
    plan_rollback,
    replaces,
)
from server.rules.stranding import NOTHING, Losses, Named, check_named, read_losses
from server.shop.stores import raise_version

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

TOPIC: Final = "programme"
"""The topic in `server.config_version` that every write here raises."""

_COLUMNS: Final = "version, code, effective_at, published_at, text_sha256, semantics"

# All versions, newest first.
READ_VERSIONS: Final = f"SELECT {_COLUMNS} FROM server.programme_version ORDER BY version DESC"  # noqa: S608 - constant

# The text of a version, and the semantics that its defaults have.
READ_TEXT: Final = "SELECT text, semantics FROM server.programme_version WHERE version = $1"

# The versions after one, with their texts.
READ_NEW_TEXTS: Final = """
SELECT version, effective_at, semantics, text FROM server.programme_version WHERE version > $1 ORDER BY version
"""

# Keep a version.
INSERT_VERSION: Final = """
INSERT INTO server.programme_version (version, code, effective_at, published_at, text_sha256, semantics, text)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

# All that was said about for whom versions count, oldest first.
READ_ROLLOUTS: Final = """
SELECT version, mode, share_millionths, share_by, from_at, set_by FROM server.rules_rollout ORDER BY rollout
"""

# Say for whom a version counts.
INSERT_ROLLOUT: Final = """
INSERT INTO server.rules_rollout (version, mode, share_millionths, share_by, from_at, set_by)
VALUES ($1, $2, $3, $4, $5, $6)
"""


# Which names nothing has; articles, stores and groups only where there is a catalogue, and where there are stores.
READ_UNKNOWN: Final = """
SELECT n.kind, n.name FROM unnest($1::text[], $2::text[]) AS n (kind, name)
WHERE CASE n.kind
    WHEN 'sku' THEN EXISTS (SELECT FROM server.product)
        AND NOT EXISTS (SELECT FROM server.product p WHERE p.sku = n.name)
    WHEN 'store' THEN EXISTS (SELECT FROM server.store)
        AND NOT EXISTS (SELECT FROM server.store s WHERE s.store_id = n.name)
    WHEN 'group' THEN EXISTS (SELECT FROM server.store)
        AND NOT EXISTS (SELECT FROM server.store s WHERE n.name = ANY (s.groups))
    WHEN 'series' THEN NOT EXISTS (SELECT FROM server.coupon c WHERE c.series = n.name)
    WHEN 'segment' THEN NOT EXISTS (SELECT FROM server.member_audience a WHERE a.segments ? n.name)
    WHEN 'offer' THEN NOT EXISTS (SELECT FROM server.member_audience a WHERE a.offers ? n.name)
END
"""


@dataclass(frozen=True, slots=True)
class ProgrammeVersion:
    """One version of the programme, without its text. What was said about for whom it counts stands oldest first.

    ``semantics`` is the number of the defaults that it was published with, see `load_programme`.
    """

    version: int
    code: str
    effective_at: datetime
    published_at: datetime
    text_sha256: bytes
    semantics: int
    rollouts: tuple[Rollout, ...] = ()

    @property
    def dated(self) -> Dated:
        """Return its place in the order of versions."""
        return Dated(self.effective_at, self.version, self.rollouts)

    def with_rollout(self, said: Rollout) -> ProgrammeVersion:
        """Return it with one more rollout."""
        return replace(self, rollouts=(*self.rollouts, said))


@dataclass(frozen=True, slots=True)
class Examined:
    """What is wrong with a file; or else what is probably not meant, and what members would lose."""

    errors: Sequence[ProgrammeError] = ()
    warnings: Sequence[ProgrammeError] = ()
    losses: Losses = NOTHING


class ProgrammeText(NamedTuple):
    """A programme as text, and the number of the semantics that its defaults have."""

    text: str
    semantics: int = CURRENT_SEMANTICS

    def load(self) -> Programme | list[ProgrammeError]:
        """Read the programme, see `load_programme`."""
        return load_programme(self.text, semantics=self.semantics)


async def read_version_text(conn: Connection, version: int | None) -> ProgrammeText | None:
    """Return the text of a version; None if there is no such version."""
    record = await conn.fetchrow(READ_TEXT, version)
    return None if record is None else ProgrammeText(*record)


def effective_at(programme: Programme) -> datetime:
    """Return the moment by which versions are put in order: midnight UTC of a programme's date."""
    return datetime.combine(programme.effective_from, time(), tzinfo=UTC)


def text_of(document: struct_pb2.Struct) -> str:
    """Return a document as the JSON text that is stored for it; the same document gives the same text."""
    return json.dumps(_whole_numbers(json_format.MessageToDict(document)), ensure_ascii=False, indent=1, sort_keys=True)


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a document
    """Return a document with 2 for 2.0: it knows no whole numbers, and files do."""
    if isinstance(value, dict):
        return {name: _whole_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ProgrammeStore:
    """Publishes programme files, says for whom they count, and shows those that were published."""

    def __init__(self, pool: Pool) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool

    async def check(self, text: str, file_name: str) -> list[ProgrammeError]:
        """Return what is wrong with a file; nothing if it is valid."""
        loaded = await asyncio.to_thread(load_programme, text, file_name)
        return loaded if isinstance(loaded, list) else []

    async def examine(self, text: str, file_name: str, now: datetime) -> Examined:
        """Return what is wrong with a file, or what is probably not meant, and what members would lose by it."""
        loaded = await asyncio.to_thread(load_programme, text, file_name)
        if isinstance(loaded, list):
            return Examined(errors=loaded)
        warnings = await self.warnings(loaded, text, file_name, now)
        async with connection(self._pool) as conn:
            versions = await _read_versions(conn)
            losses = await _losses(conn, versions, _next(versions, loaded, text, now), loaded, now)
        return Examined(warnings=warnings, losses=losses)

    async def warnings(self, programme: Programme, text: str, file_name: str, now: datetime) -> list[ProgrammeError]:
        """Return what is probably not meant in a valid file; the names in it are looked up."""
        named = sorted({(one.kind.value, one.name) for one in names_in(programme)})
        async with connection(self._pool) as conn:
            records = await conn.fetch(READ_UNKNOWN, [kind for kind, _ in named], [name for _, name in named])
        unknown = {(Names(kind), name) for kind, name in records}
        return await asyncio.to_thread(warnings_of, programme, text, file_name, now.date(), unknown)

    async def publish(
        self,
        text: str,
        file_name: str,
        now: datetime,
        rollout: Rollout | None = None,
        named: Sequence[Named] = (),
    ) -> tuple[ProgrammeVersion, bool]:
        """Store a file as the next version; return it, and whether it is new.

        The text of the newest version is not stored again, unless its defaults were others than today's; ``rollout``
        counts for it from now on, if it is given.

        Raises:
            Refused: PROGRAMME_INVALID with one violation an error, or for a point whose precision has changed;
                POINTS_STRANDED for points that it strands and ``named`` does not name.
        """
        loaded = await asyncio.to_thread(load_programme, text, file_name)
        if isinstance(loaded, list):
            raise _invalid(loaded, file_name)
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            versions = await _read_versions(conn)
            version = _next(versions, loaded, text, now, rollout)
            await _check_losses(conn, versions, version, loaded, named, now)
            if versions and version.version == versions[0].version:
                return await _roll_out(conn, versions[0], rollout, now), False
            await _ensure_units(conn, loaded)
            await _ensure_partners(conn, loaded)
            await conn.execute(
                INSERT_VERSION,
                version.version,
                version.code,
                version.effective_at,
                now,
                version.text_sha256,
                version.semantics,
                text,
            )
            for said in version.rollouts:
                await conn.execute(INSERT_ROLLOUT, version.version, *said)
        return version, True

    async def set_rollout(
        self, number: int, rollout: Rollout, now: datetime, named: Sequence[Named] = ()
    ) -> ProgrammeVersion:
        """Say for whom a version counts from now on.

        Raises:
            Refused: NOT_FOUND if there is no such version; POINTS_STRANDED as `publish`.
        """
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            versions = await _read_versions(conn)
            version = _version_with_number(versions, number)
            changed = version.with_rollout(rollout._replace(from_at=now))
            loaded = await _load(conn, number)
            if loaded is not None:
                await _check_losses(conn, versions, changed, loaded, named, now)
            return await _roll_out(conn, version, rollout, now)

    async def roll_back(self, to_version: int | None, now: datetime, set_by: str) -> Rollback:
        """Let the version before, or a named one, count again for everybody from now on; say what that took.

        Raises:
            Refused: NO_PROGRAMME if there is none to go back to, NOT_FOUND if there is no such version.
        """
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            versions = await _read_versions(conn)
            if to_version is not None:
                _version_with_number(versions, to_version)
            plan = plan_rollback((one.dated for one in versions), now, to_version)
            if plan is None:
                raise _nothing_to_go_back_to(to_version)
            by_number = {one.version: one for one in versions}
            for number in plan.switch_off:
                await _roll_out(conn, by_number[number], Rollout(share_millionths=0, set_by=set_by), now)
            if plan.switch_on:
                await _roll_out(conn, by_number[plan.version], Rollout(set_by=set_by), now)
        return plan

    async def list_versions(self) -> list[ProgrammeVersion]:
        """Return all versions, newest first."""
        async with connection(self._pool) as conn:
            return await _read_versions(conn)

    async def get(self, version: int) -> tuple[ProgrammeVersion, str]:
        """Return a version and its text, the newest for 0; Refused NOT_FOUND if there is none."""
        async with connection(self._pool) as conn:
            versions = await _read_versions(conn)
            found = versions[0] if versions and version == 0 else _version_with_number(versions, version)
            return found, str(await conn.fetchval(READ_TEXT, found.version))


async def read_rollouts(conn: Connection) -> dict[int, tuple[Rollout, ...]]:
    """Return all that was said about for whom versions count, by version and oldest first."""
    said: defaultdict[int, list[Rollout]] = defaultdict(list)
    for version, mode, share, share_by, from_at, set_by in await conn.fetch(READ_ROLLOUTS):
        said[version].append(Rollout(Mode(mode), share, ShareBy(share_by), from_at, set_by))
    return {version: tuple(rollouts) for version, rollouts in said.items()}


def version_in_effect(versions: list[ProgrammeVersion], at: datetime) -> int | None:
    """Return the version that decides receipts of a moment, but for those that a share takes out; None before any."""
    return in_effect((one.dated for one in versions), at)


async def _read_versions(conn: Connection) -> list[ProgrammeVersion]:
    rollouts = await read_rollouts(conn)
    records: list[asyncpg.Record] = await conn.fetch(READ_VERSIONS)
    return [ProgrammeVersion(**dict(one), rollouts=rollouts.get(one["version"], ())) for one in records]


async def _roll_out(
    conn: Connection, version: ProgrammeVersion, rollout: Rollout | None, now: datetime
) -> ProgrammeVersion:
    """Say for whom a version counts from now on, unless that holds already; None says nothing."""
    if rollout is None or in_force(version.rollouts, now).same_as(rollout):
        return version
    said = rollout._replace(from_at=now)
    await conn.execute(INSERT_ROLLOUT, version.version, *said)
    return version.with_rollout(said)


def _next(
    versions: Sequence[ProgrammeVersion], programme: Programme, text: str, now: datetime, rollout: Rollout | None = None
) -> ProgrammeVersion:
    """Return the version that a text would be: the newest one, if it is its text, with the same defaults."""
    sha256 = hashlib.sha256(text.encode()).digest()
    newest = next(iter(versions), None)
    if newest is not None and (newest.text_sha256, newest.semantics) == (sha256, CURRENT_SEMANTICS):
        return newest if rollout is None else newest.with_rollout(rollout._replace(from_at=now))
    begins = () if rollout is None or rollout.same_as(PLAIN) else (rollout._replace(from_at=None),)
    number = newest.version + 1 if newest is not None else 1
    return ProgrammeVersion(number, programme.code, effective_at(programme), now, sha256, CURRENT_SEMANTICS, begins)


async def _losses(
    conn: Connection, versions: Sequence[ProgrammeVersion], changed: ProgrammeVersion, after: Programme, now: datetime
) -> Losses:
    """Return what members lose when a version is added, or counts for others than before."""
    at = max(now, changed.effective_at)
    others = [one.dated for one in versions if one.version != changed.version]
    replaced = replaces([*others, changed.dated], changed.version, at)
    if replaced is None or in_effect((one.dated for one in versions), at) == changed.version:
        return NOTHING
    before = await _load(conn, replaced)
    return NOTHING if before is None else await read_losses(conn, before, after, now.date())


async def _check_losses(
    conn: Connection,
    versions: Sequence[ProgrammeVersion],
    changed: ProgrammeVersion,
    after: Programme,
    named: Sequence[Named],
    now: datetime,
) -> None:
    check_named((await _losses(conn, versions, changed, after, now)).strands, named)


async def _load(conn: Connection, version: int) -> Programme | None:
    """Return a version's programme; None if this release cannot read it."""
    text = await read_version_text(conn, version)
    loaded = None if text is None else await asyncio.to_thread(text.load)
    return loaded if isinstance(loaded, Programme) else None


async def _ensure_units(conn: Connection, programme: Programme) -> None:
    """Number the programme's point units in the books; their precision can never change."""
    points = [("point.precision", programme.point)]
    points += [(f"units[{index}].precision", unit.point) for index, unit in enumerate(programme.units)]
    for field, point in points:
        try:
            await ensure_unit(conn, point.unit, point.precision)
        except ValueError as error:
            raise Refused(
                api.REFUSAL_REASON_PROGRAMME_INVALID,
                f"{error}; give the point another name",
                violations=[(field, str(error))],
            ) from error


async def _ensure_partners(conn: Connection, programme: Programme) -> None:
    """Give the programme's partners their accounts in the books."""
    for partner in programme.partners:
        await ensure_partner(conn, partner.code)


def _version_with_number(versions: list[ProgrammeVersion], number: int) -> ProgrammeVersion:
    for version in versions:
        if version.version == number:
            return version
    raise Refused(
        api.REFUSAL_REASON_NOT_FOUND,
        f"there is no version {number} of the programme" if number else "no programme was published yet",
        violations=[("version", "is not a version of the programme")],
    )


def _nothing_to_go_back_to(to_version: int | None) -> Refused:
    if to_version is None:
        message = "no version before this one counts for everybody: there is nothing to go back to"
    else:
        message = f"version {to_version} is not due yet: publish it with an earlier date to use it now"
    return Refused(api.REFUSAL_REASON_NO_PROGRAMME, message)


def _invalid(errors: list[ProgrammeError], file_name: str) -> Refused:
    return Refused(
        api.REFUSAL_REASON_PROGRAMME_INVALID,
        f"{file_name or 'the programme'} has {len(errors)} errors; nothing was stored",
        violations=[(error.field or "text", str(error)) for error in errors],
    )
