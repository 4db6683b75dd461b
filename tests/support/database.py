"""Fresh databases for tests, as quick copies of a migrated one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from server.base.postgres import EmbeddedPostgres
from server.base.storage import migrate_database


class DatabaseFactory:
    """Makes databases on one PostgreSQL server, over one connection, until it is closed."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._numbers = itertools.count(1)
        self._templates: dict[tuple[tuple[str, Path], ...], str] = {}
        self._thread = ThreadPoolExecutor(1)  # a test's own event loop may be running in this thread
        self._runner = asyncio.Runner()
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None

    @contextmanager
    def fresh(self, migration_sets: tuple[tuple[str, Path], ...] = ()) -> Iterator[str]:
        """Make a database with these migrations applied; yield its DSN and drop it afterwards."""
        name = f"test_{next(self._numbers)}"
        template = self._template(migration_sets) if migration_sets else "template0"
        self._run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        try:
            yield self.postgres.dsn(name)
        finally:
            self._run(self._execute(f'DROP DATABASE "{name}" WITH (FORCE)'))

    def close(self) -> None:
        """Close the connection; the databases are gone already."""
        if self._conn is not None:
            self._run(self._conn.close())
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _template(self, migration_sets: tuple[tuple[str, Path], ...]) -> str:
        if migration_sets not in self._templates:
            name = f"template_{len(self._templates) + 1}"
            self._run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0'))
            self._run(migrate_database(self.postgres.dsn(name), migration_sets))
            self._templates[migration_sets] = name
        return self._templates[migration_sets]

    async def _execute(self, sql: str) -> None:
        if self._conn is None:
            self._conn = await asyncpg.connect(self.postgres.dsn("postgres"))
        await self._conn.execute(sql)

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        self._thread.submit(self._runner.run, work).result()
