"""Migrations are applied once, in order, and never over a database that does not fit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from ledger.migrate import MigrationError, migrate


def _write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, sql in files.items():
        (folder / f"{name.removeprefix('f')}.sql").write_text(sql)
    return folder


async def test_applies_each_file_once_and_in_order(empty_dsn: str, tmp_path: Path) -> None:
    """What is applied stays applied; a new file is applied alone."""
    folder = _write(tmp_path, f0001_first="CREATE TABLE a (x int)", f0002_second="ALTER TABLE a ADD y int")
    conn = await asyncpg.connect(empty_dsn)
    assert await migrate(conn, "things", folder) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate(conn, "things", folder) == []
    _write(folder, f0003_third="CREATE TABLE b (x int); INSERT INTO b VALUES (7)")
    assert await migrate(conn, "things", folder) == ["0003_third.sql"]
    assert await conn.fetchval("SELECT x FROM b") == 7
    await conn.close()


async def test_servers_that_start_together_apply_it_once(empty_dsn: str, tmp_path: Path) -> None:
    """The advisory lock lets one of them through at a time."""
    folder = _write(tmp_path, f0001_slow="SELECT pg_sleep(0.2); CREATE TABLE a (x int)")
    connections = [await asyncpg.connect(empty_dsn) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(conn, "things", folder) for conn in connections))
    assert sorted(applied) == [[], [], [], ["0001_slow.sql"]]
    for conn in connections:
        await conn.close()


async def test_a_file_that_fails_leaves_nothing_behind(empty_dsn: str, tmp_path: Path) -> None:
    """The failing file is named, what it began is undone, and the lock is free again."""
    folder = _write(tmp_path, f0001_good="CREATE TABLE a (x int)", f0002_bad="CREATE TABLE b (x int); SELECT 1/0")
    conn = await asyncpg.connect(empty_dsn)
    with pytest.raises(MigrationError, match=r"0002_bad\.sql of 'things' failed: division by zero"):
        await migrate(conn, "things", folder)
    assert await conn.fetchval("SELECT to_regclass('b')") is None
    _write(folder, f0002_bad="CREATE TABLE b (x int)")
    assert await migrate(conn, "things", folder) == ["0002_bad.sql"]
    await conn.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda f: _write(f, f0001_first="SELECT 2"), "was changed after it was applied", id="edited"),
        pytest.param(lambda f: (f / "0002_second.sql").unlink(), "start a newer version", id="database-newer"),
        pytest.param(lambda f: _write(f, f0004_gap="SELECT 1"), "the next number must be 0003", id="gap"),
        pytest.param(lambda f: _write(f, fx="SELECT 1"), "NNNN_name.sql", id="bad-name"),
    ],
)
async def test_files_that_do_not_fit_are_refused(empty_dsn: str, tmp_path: Path, change, words) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - table of lambdas
    """The message says what is wrong and nothing is applied."""
    folder = _write(tmp_path, f0001_first="SELECT 1", f0002_second="SELECT 1")
    conn = await asyncpg.connect(empty_dsn)
    await migrate(conn, "things", folder)
    change(folder)
    with pytest.raises(MigrationError, match=words):
        await migrate(conn, "things", folder)
    assert await conn.fetchval("SELECT count(*) FROM tallypoint_migration") == 2
    await conn.close()


async def test_sets_are_numbered_apart(empty_dsn: str, tmp_path: Path) -> None:
    """Two sets live in one database."""
    one = _write(tmp_path / "one", f0001_first="CREATE TABLE a (x int)")
    two = _write(tmp_path / "two", f0001_first="CREATE TABLE b (x int)")
    conn = await asyncpg.connect(empty_dsn)
    assert await migrate(conn, "one", one) == ["0001_first.sql"]
    assert await migrate(conn, "two", two) == ["0001_first.sql"]
    await conn.close()
