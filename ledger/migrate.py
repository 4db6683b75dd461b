"""Apply numbered SQL files to a database, once each and in order.

A migration set is a folder of files ``NNNN_name.sql``, numbered from 0001 without gaps. What was applied stands
in ``public.tallypoint_migration``; a file never changes after it was applied anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MIGRATION_LOCK_ID: Final = 0x7461_6C6C_7970_7431
"""The advisory lock under which migrations run: two servers that start together do not both apply them."""

_FILE_NAME: Final = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")

# The record of what was applied. It exists before any migration does, so no migration creates it.
CREATE_RECORD: Final = """
CREATE TABLE IF NOT EXISTS public.tallypoint_migration (
    migration_set text NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration_set, number)
)
"""

# The migrations of one set that this database has, oldest first.
SELECT_APPLIED: Final = """
SELECT number, name, sha256 FROM public.tallypoint_migration WHERE migration_set = $1 ORDER BY number
"""

# Remember one applied migration.
INSERT_APPLIED: Final = """
INSERT INTO public.tallypoint_migration (migration_set, number, name, sha256) VALUES ($1, $2, $3, $4)
"""


class MigrationError(Exception):
    """The files and the database do not fit together; the message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash of the text, in hexadecimal, which shows that an applied file was changed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return f"{self.number:04d}_{self.name}.sql"


def read_migrations(folder: Path) -> list[Migration]:
    """Read a folder's migrations in order.

    Raises:
        MigrationError: A name is not ``NNNN_name.sql``, or the numbers are not 1, 2, 3 and so on.
    """
    migrations: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: a migration is named NNNN_name.sql, such as 0001_books.sql")
        migrations.append(Migration(int(match["number"]), match["name"], path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(f"{folder / migration.file_name}: the next number must be {expected:04d}")
    return migrations


async def migrate(conn: Connection, migration_set: str, folder: Path) -> list[str]:
    """Apply what the database lacks of one migration set, each file in a transaction of its own.

    Args:
        conn: A connection of the owner, outside a transaction.
        migration_set: The set's name, such as ``ledger``.
        folder: Where its files are.

    Returns:
        The names of the files that were applied now, in order; empty if the database was up to date.

    Raises:
        MigrationError: An applied file was changed, the database is newer than the files, or a file fails.
    """
    migrations = read_migrations(folder)
    await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK_ID)
    try:
        await conn.execute(CREATE_RECORD)
        applied = await conn.fetch(SELECT_APPLIED, migration_set)
        _check_applied(migration_set, migrations, applied)
        missing = migrations[len(applied) :]
        for migration in missing:
            await _apply(conn, migration_set, migration)
    finally:
        await conn.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK_ID)
    return [migration.file_name for migration in missing]


def _check_applied(migration_set: str, migrations: Sequence[Migration], applied: Sequence[asyncpg.Record]) -> None:
    """Refuse a database that does not have exactly the first of our migrations."""
    if len(applied) > len(migrations):
        newest = applied[-1]
        raise MigrationError(
            f"the database has migration {newest['number']:04d}_{newest['name']} of '{migration_set}', "
            f"which this version of Tallypoint does not know: start a newer version"
        )
    for row, migration in zip(applied, migrations, strict=False):
        if (row["number"], row["sha256"]) != (migration.number, migration.sha256):
            raise MigrationError(
                f"migration {migration.file_name} of '{migration_set}' was changed after it was applied to this "
                f"database: restore the file and put the change into a new migration"
            )


async def _apply(conn: Connection, migration_set: str, migration: Migration) -> None:
    try:
        async with conn.transaction():
            await conn.execute(migration.sql)
            await conn.execute(INSERT_APPLIED, migration_set, migration.number, migration.name, migration.sha256)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"migration {migration.file_name} of '{migration_set}' failed: {error}") from error
