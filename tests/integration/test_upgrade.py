"""During an upgrade workers of two releases write the same books, and what has migrated stops nobody who runs."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from ledger.booking.opening import ensure_unit, open_books
from ledger.reading.journal import read_heads
from ledger.verify import verify
from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.integration.test_process import identify_reason
from tests.support.commands import BONUS
from tests.support.crm import eventually
from tests.support.release_before import BOOKS, RECEIPTS_A_ROUND, a_committer, book, commands_of, release_before
from tests.support.server_process import run_command, running_server, start_server

ROUNDS = 25
FUNCTIONS = ("read_batch", "write_batch", "read_batch_v1", "write_batch_v1", "write_more", "write_uses")

# Functions that were called, by connections that count it.
READ_CALLED = "SELECT funcname FROM pg_stat_user_functions WHERE schemaname = 'ledger' AND calls > 0"

# Say that a later release has migrated this database.
MIGRATE_LATER = """
INSERT INTO public.tallypoint_migration (migration_set, number, name, sha256)
SELECT migration_set, max(number) + 1, 'later', '' FROM public.tallypoint_migration GROUP BY migration_set
"""


def turns(entries: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return for each book how often the entries of one writer follow upon one of the other."""
    written = sorted([(*entry, 1) for entry in entries] + [(*entry, 2) for entry in others])
    changes = dict.fromkeys(range(BOOKS), 0)
    for (book_before, _, before), (book_number, _, after) in itertools.pairwise(written):
        changes[book_number] += book_before == book_number and before != after
    return changes


@pytest.mark.parametrize("owner", ["the release before", "today's"])
async def test_workers_of_two_releases_write_the_same_books(ledger_dsn: str, owner: str) -> None:
    """One keeps the books in memory, the other reads and takes turns with it; each captures what the other holds."""
    conn = await asyncpg.connect(ledger_dsn)
    await open_books(conn, BOOKS)
    await ensure_unit(conn, BONUS.code, BONUS.precision)
    every = range(BOOKS)
    ours: list[tuple[int, int]] = []
    theirs: list[tuple[int, int]] = []
    with release_before(ledger_dsn, every if owner == "the release before" else ()) as before:
        async with a_committer(ledger_dsn, every if owner == "today's" else ()) as committer:
            for number in range(1, ROUNDS + 1):
                before.send(number)
                ours += await book(committer, commands_of(number, writer=2))
                theirs += await asyncio.to_thread(before.recv)
    assert len(ours) == len(theirs) == ROUNDS * (RECEIPTS_A_ROUND + 2) - 1
    assert sum(head.number for head in (await read_heads(conn)).values()) == len(ours) + len(theirs)
    assert min(turns(ours, theirs).values()) >= ROUNDS, "they did not take turns in every book"
    assert [report.problem for report in await verify(conn) if report.problem] == []

    async def called() -> bool:
        return {row["funcname"] for row in await conn.fetch(READ_CALLED)} >= set(FUNCTIONS)

    await eventually(called, "both releases' functions are called")
    await conn.close()


async def _later(postgres: EmbeddedPostgres) -> None:
    for database in (LEDGER_DATABASE, CRM_DATABASE):
        conn = await asyncpg.connect(postgres.dsn(database))
        await conn.execute(MIGRATE_LATER)
        await conn.close()


async def test_a_later_migration_stops_nobody_who_runs(tmp_path: Path) -> None:
    """A running service starts its dead again; a new start is refused, unless it is told to leave migrations alone."""
    with running_server(tmp_path) as server:
        await _later(EmbeddedPostgres(tmp_path / "postgres"))
        for child in ("worker-1", "backoffice", "crm-stream", "sweeper"):
            killed = server.wait_for_event("child_ready", child=child)["pid"]
            os.kill(killed, signal.SIGKILL)
            server.wait_for_event("child_died", child=child, pid=killed)
            assert server.wait_for_event("child_ready", 2, child=child)["pid"] != killed
        assert await identify_reason(server.pos_address, server.keys["terminal"]) == "IDENTIFIER_UNKNOWN"
    refused = start_server(tmp_path)
    assert refused.process.wait(120) == 2
    refused.stop()
    assert "which this version of Tallypoint does not know: start a newer version" in refused.log_text()
    code = run_command("migrate", f"--data-dir={tmp_path}", environment={"TALLYPOINT_EMBEDDED": "true"}).returncode
    assert code == 2
    with running_server(tmp_path, environment={"TALLYPOINT_MIGRATE_ON_START": "false"}) as server:
        assert await identify_reason(server.pos_address, server.keys["terminal"]) == "IDENTIFIER_UNKNOWN"
