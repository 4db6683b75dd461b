"""Fixtures that every test may use: real PostgreSQL databases and a real running server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from server.postgres import EmbeddedPostgres
from server.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from tests.support.database import DatabaseFactory
from tests.support.server_process import RunningServer, running_server

_OWN_TEMP = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give every run a folder of its own: PostgreSQL's account must keep its way in when another run starts."""
    if not config.option.basetemp:
        config.option.basetemp = config.stash[_OWN_TEMP] = tempfile.mkdtemp(prefix="tallypoint-tests-")


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
def databases(postgres: EmbeddedPostgres) -> DatabaseFactory:
    """Make databases of any migration sets: ``with databases.fresh(LEDGER_MIGRATIONS) as dsn``."""
    return DatabaseFactory(postgres)


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
