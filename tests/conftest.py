"""Fixtures that every test may use: real PostgreSQL databases and a real running server."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from tests.support.database import DatabaseFactory
from tests.support.server_process import RunningServer, running_server

ROOM_FOR_DATABASES_BYTES = 8 * 1024**3

_OWN_TEMP = pytest.StashKey[str]()

# A slow machine is no defect: how long an example takes is nothing that these tests prove.
hypothesis.settings.register_profile("tallypoint", deadline=None)
hypothesis.settings.load_profile("tallypoint")


def pytest_configure(config: pytest.Config) -> None:
    """Give every run a folder of its own: PostgreSQL's account must keep its way in when another run starts.

    A run in several processes (`pytest -n 2`) makes folders for them in it.
    """
    if not config.option.basetemp:
        folder = tempfile.mkdtemp(prefix="tallypoint-tests-", dir=_in_memory())
        config.option.basetemp = config.stash[_OWN_TEMP] = folder
    _keep_bytecode(config)


def _in_memory() -> Path | None:
    """Return a file system in memory with enough room for databases, or None for the usual place.

    The tests make and drop hundreds of databases. Nothing here loses its power: what a killed process had written is
    there afterwards on either.
    """
    shared_memory = Path("/dev/shm")  # noqa: S108 - a fresh directory in it is our own
    try:
        roomy = shutil.disk_usage(shared_memory).free >= ROOM_FOR_DATABASES_BYTES
    except OSError:
        return None
    return shared_memory if roomy and os.access(shared_memory, os.W_OK) else None


def _keep_bytecode(config: pytest.Config) -> None:
    """Where no bytecode may stand beside the sources, keep it in pytest's cache.

    The tests start hundreds of processes, and each would spend most of its start compiling what it imports.
    """
    if sys.dont_write_bytecode and config.cache is not None:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(config.cache.mkdir("bytecode"))
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder."""
    if _OWN_TEMP in config.stash:
        shutil.rmtree(config.stash[_OWN_TEMP], ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL server for the session. A test that stops or restarts a server makes its own."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "postgres", {"shared_buffers": "128MB"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Iterator[DatabaseFactory]:
    """Make databases of any migration sets: ``with databases.fresh(LEDGER_MIGRATIONS) as dsn``."""
    factory = DatabaseFactory(postgres)
    yield factory
    factory.close()


@pytest.fixture
def empty_dsn(databases: DatabaseFactory) -> Iterator[str]:
    """An empty database."""
    with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
def ledger_dsn(databases: DatabaseFactory) -> Iterator[str]:
    """A fresh ledger database with all migrations."""
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        yield dsn


@pytest.fixture
def crm_dsn(databases: DatabaseFactory) -> Iterator[str]:
    """A fresh CRM database with all migrations."""
    with databases.fresh(CRM_MIGRATIONS) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def tallypoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One running `tallypoint serve` in development mode for the session; tests that harm it start their own."""
    with running_server(tmp_path_factory.mktemp("tallypoint")) as server:
        yield server
