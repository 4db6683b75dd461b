"""The two databases of a deployment: where they are, and their migrations."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

import ledger
from ledger.booking.opening import open_books
from ledger.migrate import migrate
from ledger.reading.books import read_book_count
from server.base.postgres import EmbeddedPostgres
from server.base.settings import Settings, check_databases

LEDGER_DATABASE: Final = "tallypoint_ledger"
CRM_DATABASE: Final = "tallypoint_crm"
CONNECT_TIMEOUT_SECONDS: Final = 5.0
COMMAND_TIMEOUT_SECONDS: Final = 30.0
POOL_SIZE: Final = 10
_SERVER_FOLDER: Final = Path(__file__).parents[1]

LEDGER_MIGRATIONS: Final = (
    ("ledger", Path(ledger.__file__).parent / "migrations"),
    ("server", _SERVER_FOLDER / "migrations"),
)
"""The migration sets of the ledger database, in the order in which they are applied."""
CRM_MIGRATIONS: Final = (("crm", _SERVER_FOLDER / "crm" / "migrations"),)
"""The migration sets of the CRM database."""

Connect = Callable[[], Coroutine[Any, Any, "asyncpg.Connection[asyncpg.Record]"]]


@dataclass(frozen=True, slots=True)
class Dsns:
    """The connection strings of both databases; they may hold passwords, so they do not print."""

    ledger: str
    crm: str

    def __repr__(self) -> str:
        """Hide the passwords."""
        return "Dsns(...)"


@dataclass(frozen=True, slots=True)
class Databases:
    """The databases while they are open; `embedded` is None when both are somebody else's servers."""

    dsns: Dsns
    embedded: EmbeddedPostgres | None


@contextlib.contextmanager
def open_databases(settings: Settings) -> Iterator[Databases]:
    """Resolve the databases; the embedded server runs at least until the block ends.

    A command may open them while `tallypoint serve` runs on the same data directory.

    Raises:
        StartRefusedError: One has no DSN, and the embedded one was not asked for.
        PostgresError: The embedded server cannot start.
    """
    check_databases(settings, "ledger_dsn", "crm_dsn")
    ledger_dsn, crm_dsn = _dsn_given(settings.ledger_dsn), _dsn_given(settings.crm_dsn)
    if ledger_dsn is not None and crm_dsn is not None:
        yield Databases(Dsns(ledger_dsn, crm_dsn), None)
        return
    with _embedded(settings) as embedded:
        yield Databases(
            Dsns(
                ledger_dsn or _embedded_dsn(embedded, LEDGER_DATABASE),
                crm_dsn or _embedded_dsn(embedded, CRM_DATABASE),
            ),
            embedded,
        )


@contextlib.contextmanager
def open_ledger(settings: Settings) -> Iterator[str]:
    """Resolve the ledger database alone, like `open_databases`; return its DSN.

    Raises:
        StartRefusedError: It has no DSN, and the embedded one was not asked for.
        PostgresError: The embedded server cannot start.
    """
    check_databases(settings, "ledger_dsn")
    given = _dsn_given(settings.ledger_dsn)
    if given is not None:
        yield given
        return
    with _embedded(settings) as embedded:
        yield _embedded_dsn(embedded, LEDGER_DATABASE)


@contextlib.contextmanager
def _embedded(settings: Settings) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(settings.data_dir / "postgres")
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.stop()


async def migrate_all(dsns: Dsns, books: int) -> list[str]:
    """Bring both databases up to date, and open the books of a new ledger.

    Args:
        dsns: Both databases, with their owner's rights.
        books: The number of books; a ledger that has books keeps its own number.

    Returns:
        The names of the files applied, such as ``ledger/0001_ledger.sql``.

    Raises:
        MigrationError: The files and a database do not fit together.
    """
    applied = await migrate_database(dsns.ledger, LEDGER_MIGRATIONS)
    applied += await migrate_database(dsns.crm, CRM_MIGRATIONS)
    conn = await asyncpg.connect(dsns.ledger)
    try:
        await open_books(conn, books)
    finally:
        await conn.close()
    return applied


async def migrate_database(dsn: str, migration_sets: tuple[tuple[str, Path], ...]) -> list[str]:
    """Apply the migration sets to one database."""
    conn = await asyncpg.connect(dsn)
    try:
        applied: list[str] = []
        for name, folder in migration_sets:
            applied += [f"{name}/{file}" for file in await migrate(conn, name, folder)]
        return applied
    finally:
        await conn.close()


def writer_connect(dsn: str, application_name: str) -> Connect:
    """Return a function that opens a connection with the writer's rights, and no more."""
    return functools.partial(asyncpg.connect, dsn, **_as_writer(application_name))


def writer_pool(
    dsn: str, application_name: str, command_timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
) -> asyncpg.Pool[asyncpg.Record]:
    """Return a pool, to be entered, of connections with the writer's rights."""
    options = _as_writer(application_name) | {"command_timeout": command_timeout_seconds}
    return asyncpg.create_pool(dsn, min_size=1, max_size=POOL_SIZE, **options)


async def read_books(connect: Connect) -> int:
    """Return the number of books of the ledger.

    Raises:
        LookupError: The ledger has not been opened; `tallypoint migrate` opens it.
    """
    conn = await connect()
    try:
        return await read_book_count(conn)
    finally:
        await conn.close()


def _as_writer(application_name: str) -> dict[str, Any]:
    return {
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": COMMAND_TIMEOUT_SECONDS,
        "server_settings": {"role": "tallypoint_writer", "application_name": application_name},
    }


def _dsn_given(dsn: SecretStr | None) -> str | None:
    return None if dsn is None else dsn.get_secret_value()


def _embedded_dsn(embedded: EmbeddedPostgres, database: str) -> str:
    embedded.ensure_database(database)
    return embedded.dsn(database)
