"""Fresh databases for tests, as quick copies of a migrated one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from server.postgres import EmbeddedPostgres
from server.storage import migrate_database


class DatabaseFactory:
    """Makes databases on one PostgreSQL server."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._numbers = itertools.count(1)
        self._templates: dict[tuple[tuple[str, Path], ...], str] = {}

    @contextmanager
    def fresh(self, migration_sets: tuple[tuple[str, Path], ...] = ()) -> Iterator[str]:
        """Make a database with these migrations applied; yield its DSN and drop it afterwards."""
        name = f"test_{next(self._numbers)}"
        template = self._template(migration_sets) if migration_sets else "template0"
        self.postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.postgres.dsn(name)
        finally:
            self.postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _template(self, migration_sets: tuple[tuple[str, Path], ...]) -> str:
        if migration_sets not in self._templates:
            name = f"template_{len(self._templates) + 1}"
            self.postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
            dsn = self.postgres.dsn(name)
            with ThreadPoolExecutor(1) as pool:  # a test's own event loop may be running in this thread
                pool.submit(asyncio.run, migrate_database(dsn, migration_sets)).result()
            self._templates[migration_sets] = name
        return self._templates[migration_sets]
