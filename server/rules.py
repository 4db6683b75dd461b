"""Programme versions: published files as they were, and the rules that they were compiled to.

A version is in effect for receipts from midnight UTC of its file's `effective_from` on, until one with a later
date is. Of two versions with the same date the newer counts, so publishing again corrects a mistake.
"""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog
from tallypoint.v1 import common_pb2 as api

from ledger.books import ensure_unit, read_units
from ledger.model import Unit
from server.database import connection, transaction
from server.errors import Refused
from server.promotions import Programme, ProgrammeError, Rules, compile_rules, load_programme
from server.stores import raise_version

if TYPE_CHECKING:
    from server.database import Connection, Pool

TOPIC: Final = "programme"
"""The topic in `server.config_version` that every write here raises."""

_COLUMNS: Final = "version, code, effective_at, published_at, text_sha256"

# The newest version.
READ_NEWEST: Final = f"SELECT {_COLUMNS} FROM server.programme_version ORDER BY version DESC LIMIT 1"  # noqa: S608 - constant

# All versions, newest first.
READ_VERSIONS: Final = f"SELECT {_COLUMNS} FROM server.programme_version ORDER BY version DESC"  # noqa: S608 - constant

# One version with its text; 0 means the newest.
READ_TEXT: Final = f"""
SELECT {_COLUMNS}, text FROM server.programme_version WHERE version = $1 OR $1 = 0 ORDER BY version DESC LIMIT 1
"""  # noqa: S608 - constant

# Versions that are not compiled yet.
READ_NEW_TEXTS: Final = """
SELECT version, effective_at, text FROM server.programme_version WHERE version > $1 ORDER BY version
"""

# Keep a version.
INSERT_VERSION: Final = """
INSERT INTO server.programme_version (version, code, effective_at, published_at, text_sha256, text)
VALUES ($1, $2, $3, $4, $5, $6)
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProgrammeVersion:
    """One version of the programme, without its text; it is never changed."""

    version: int
    code: str
    effective_at: datetime
    published_at: datetime
    text_sha256: bytes


def effective_at(programme: Programme) -> datetime:
    """Return the moment from which receipts are judged by a programme: midnight UTC of its date."""
    return datetime.combine(programme.effective_from, time(), tzinfo=UTC)


class ProgrammeStore:
    """Publishes programme files and shows those that were published."""

    def __init__(self, pool: Pool) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool

    async def check(self, text: str, file_name: str) -> list[ProgrammeError]:
        """Return what is wrong with a file; nothing if it is valid."""
        loaded = await asyncio.to_thread(load_programme, text, file_name)
        return loaded if isinstance(loaded, list) else []

    async def publish(self, text: str, file_name: str, now: datetime) -> tuple[ProgrammeVersion, bool]:
        """Store a file as the next version; return it, and whether it is new.

        The text of the newest version is not stored again.

        Raises:
            Refused: PROGRAMME_INVALID with one violation an error, or for a point whose precision has changed.
        """
        loaded = await asyncio.to_thread(load_programme, text, file_name)
        if isinstance(loaded, list):
            raise _invalid(loaded, file_name)
        sha256 = hashlib.sha256(text.encode()).digest()
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            newest = _version(await conn.fetchrow(READ_NEWEST))
            if newest and newest.text_sha256 == sha256:
                return newest, False
            await _ensure_unit(conn, loaded)
            number = newest.version + 1 if newest else 1
            version = ProgrammeVersion(number, loaded.code, effective_at(loaded), now, sha256)
            await conn.execute(INSERT_VERSION, number, version.code, version.effective_at, now, sha256, text)
        return version, True

    async def list_versions(self) -> list[ProgrammeVersion]:
        """Return all versions, newest first."""
        async with connection(self._pool) as conn:
            return [ProgrammeVersion(**dict(record)) for record in await conn.fetch(READ_VERSIONS)]

    async def get(self, version: int) -> tuple[ProgrammeVersion, str]:
        """Return a version and its text, the newest for 0; Refused NOT_FOUND if there is none."""
        async with connection(self._pool) as conn:
            record = await conn.fetchrow(READ_TEXT, version)
        if record is None:
            raise Refused(
                api.REFUSAL_REASON_NOT_FOUND,
                f"there is no version {version} of the programme" if version else "no programme was published yet",
                violations=[("version", "is not a version of the programme")],
            )
        values = dict(record)
        text: str = values.pop("text")
        return ProgrammeVersion(**values), text


class RulesBook:
    """All versions of the programme, compiled and in memory; `load` adds those that were published since."""

    def __init__(self) -> None:
        """Start without any rules."""
        self._newest = 0
        self._effective: list[tuple[datetime, int]] = []
        self._rules: list[Rules] = []
        self._units: dict[str, Unit] = {}

    def unit(self, rules: Rules) -> Unit:
        """Return the point unit of rules that `at` gave, as the books number it."""
        return self._units[rules.programme.point.unit]

    def unit_named(self, code: str) -> Unit:
        """Return a point unit by its code in balances and settlements."""
        return self._units[code]

    def at(self, event_at: datetime) -> Rules | None:
        """Return the rules for a receipt of this (aware) time, or None before the first version is in effect."""
        index = bisect_right(self._effective, (event_at, self._newest))
        return self._rules[index - 1] if index else None

    def of_unit(self, code: str, at: datetime) -> Rules | None:
        """Return the rules at a time if their points are of a unit, else the latest that are; empty means any unit."""
        candidates = [rules for rules in self._rules if code in {"", rules.programme.point.unit}]
        current = self.at(at)
        return current if current in candidates else next(reversed(candidates), None)

    async def load(self, conn: Connection) -> None:
        """Compile the versions that were published since the last time.

        A version that this release cannot read is left out with a log line: the one before it stays in effect.
        """
        records = await conn.fetch(READ_NEW_TEXTS, self._newest)
        compiled = list(zip(self._effective, self._rules, strict=True))
        for record in records:
            rules = await asyncio.to_thread(_compile, record["text"], record["version"])
            if rules is None:
                _log.error("programme_unreadable", version=record["version"])
                continue
            compiled.append(((record["effective_at"], record["version"]), rules))
        self._units = await read_units(conn)
        self._keep(compiled, records[-1]["version"] if records else self._newest)

    def _keep(self, compiled: Iterable[tuple[tuple[datetime, int], Rules]], newest: int) -> None:
        in_order = sorted(compiled, key=lambda pair: pair[0])
        self._newest = newest
        self._effective = [key for key, _ in in_order]
        self._rules = [rules for _, rules in in_order]


async def _ensure_unit(conn: Connection, programme: Programme) -> None:
    """Number the programme's point unit in the books; its precision can never change."""
    try:
        await ensure_unit(conn, programme.point.unit, programme.point.precision)
    except ValueError as error:
        raise Refused(
            api.REFUSAL_REASON_PROGRAMME_INVALID,
            f"{error}; give the point another name",
            violations=[("point.precision", str(error))],
        ) from error


def _compile(text: str, version: int) -> Rules | None:
    loaded = load_programme(text)
    return None if isinstance(loaded, list) else compile_rules(loaded, version)


def _version(record: asyncpg.Record | None) -> ProgrammeVersion | None:
    return None if record is None else ProgrammeVersion(**dict(record))


def _invalid(errors: list[ProgrammeError], file_name: str) -> Refused:
    return Refused(
        api.REFUSAL_REASON_PROGRAMME_INVALID,
        f"{file_name or 'the programme'} has {len(errors)} errors; nothing was stored",
        violations=[(error.field or "text", str(error)) for error in errors],
    )
