"""A start with another secret or another number of books than the database has is refused, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from ledger.booking.opening import open_books
from server.base.settings import Settings, StartRefusedError
from server.base.storage import LEDGER_MIGRATIONS, Dsns, migrate_database, read_books, writer_connect
from server.edge.caller import Role
from server.members.identifiers import KeyedHash
from server.process.opening import KEEP_FINGERPRINT, bring_up_to_date, fingerprint_of, open_hashes
from server.shop.stores import KeyRing, StoreRegistry, new_key
from tests.integration.back_office import NOW
from tests.support.crm import eventually
from tests.support.database import DatabaseFactory
from tests.support.server_process import RunningServer, run_command, running_server, start_server

RIGHT = "the secret of this chain, of 32 characters and more"
WRONG = "the secret of another chain, or of a mistyped setting"
OTHER_SECRET = "the secret is not the one with which this ledger database was opened first"
MIGRATIONS_BEFORE = 6
BOOKS = 8
DEFAULT_BOOKS = Settings.model_fields["books"].default
START_SECONDS = 120


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where no tallypoint.toml lies
    monkeypatch.delenv("TALLYPOINT_BOOKS", raising=False)


@pytest.fixture
def dsns(ledger_dsn: str, crm_dsn: str) -> Dsns:
    """Two databases with all migrations, which nobody has opened yet."""
    return Dsns(ledger_dsn, crm_dsn)


def settings_with(secret: str, **more: Any) -> Settings:
    return Settings(secret_key=SecretStr(secret), **more)


async def start(dsns: Dsns, settings: Settings) -> KeyedHash:
    """Do what a start does with the databases before there are children."""
    await bring_up_to_date(dsns, settings)
    return await open_hashes(writer_connect(dsns.ledger, "test"), settings)


async def contents(dsn: str) -> dict[str, list[str]]:
    """Return all rows of the ledger database, table by table."""
    conn = await asyncpg.connect(dsn)
    try:
        names = await conn.fetch(
            "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables "
            "WHERE table_schema IN ('server', 'ledger', 'public') AND table_type = 'BASE TABLE'"
        )
        tables = [name["name"] for name in names]
        return {name: [row[0] for row in await conn.fetch(f"SELECT t::text FROM {name} t")] for name in tables}
    finally:
        await conn.close()


def migrations_before(folder: Path) -> tuple[tuple[str, Path], ...]:
    """Return the migrations as they were, those of the server copied into a new folder."""
    ledger_set, (name, new_folder) = LEDGER_MIGRATIONS
    folder.mkdir()
    for path in sorted(new_folder.glob("*.sql"))[:MIGRATIONS_BEFORE]:
        shutil.copy(path, folder)
    return ledger_set, (name, folder)


async def make_database_of_before(dsns: Dsns, folder: Path) -> str:
    """Make the ledger database as it was before it had a place for a fingerprint; return an access key of it."""
    await migrate_database(dsns.ledger, migrations_before(folder))
    owner = await asyncpg.connect(dsns.ledger)
    await open_books(owner, BOOKS)
    await owner.close()
    key = new_key()
    async with asyncpg.create_pool(dsns.ledger, min_size=1, max_size=1) as pool:
        await StoreRegistry(pool, KeyedHash(RIGHT.encode())).put_backoffice_key(key, Role.ADMIN, "anna", NOW)
    return key


async def knows_key(dsn: str, hashes: KeyedHash, key: str) -> bool:
    ring = KeyRing(hashes)
    conn = await asyncpg.connect(dsn)
    await ring.load(conn)
    await conn.close()
    return ring.authenticate(key) is not None


# --- the secret -------------------------------------------------------------------------------------------


async def test_the_right_secret_opens_again_and_again(dsns: Dsns) -> None:
    """The first start keeps the fingerprint, the next finds it, and the secret stands nowhere."""
    hashes = await start(dsns, settings_with(RIGHT))
    first = await contents(dsns.ledger)
    assert hashes.of_text("card", "1") == KeyedHash(RIGHT.encode()).of_text("card", "1")
    await start(dsns, settings_with(RIGHT))
    assert await contents(dsns.ledger) == first
    (line,) = first["server.secret_fingerprint"]
    assert fingerprint_of(hashes).hex() in line
    assert RIGHT not in line
    assert RIGHT.encode().hex() not in line


async def test_another_secret_is_refused_and_changes_nothing(dsns: Dsns) -> None:
    """By the migrations and by whoever opens the ledger without them; the right one still opens it."""
    await start(dsns, settings_with(RIGHT))
    before = await contents(dsns.ledger)
    wrong = settings_with(WRONG)
    for opening in (bring_up_to_date(dsns, wrong), open_hashes(writer_connect(dsns.ledger, "test"), wrong)):
        with pytest.raises(StartRefusedError, match=OTHER_SECRET) as refused:
            await opening
        assert "TALLYPOINT_SECRET_KEY" in str(refused.value)
        assert WRONG not in str(refused.value)
    assert await contents(dsns.ledger) == before
    await start(dsns, settings_with(RIGHT))


async def test_migrating_needs_no_secret_and_keeps_none(dsns: Dsns) -> None:
    await bring_up_to_date(dsns, Settings())
    assert (await contents(dsns.ledger))["server.secret_fingerprint"] == []
    await start(dsns, settings_with(RIGHT))
    await bring_up_to_date(dsns, Settings())


async def test_only_the_owner_can_remove_a_fingerprint(dsns: Dsns) -> None:
    """As docs/operations.md tells for one that was kept by mistake; the next start keeps its own."""
    await start(dsns, settings_with(RIGHT))
    conn = await writer_connect(dsns.ledger, "test")()
    for change in ("UPDATE server.secret_fingerprint SET kept_at = now()", "DELETE FROM server.secret_fingerprint"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(change)
    await conn.close()
    owner = await asyncpg.connect(dsns.ledger)
    await owner.execute("DELETE FROM server.secret_fingerprint")
    await owner.close()
    await start(dsns, settings_with(WRONG))


async def test_a_database_of_before_keeps_the_secret_of_its_next_start(
    empty_dsn: str, crm_dsn: str, tmp_path: Path
) -> None:
    """Its keys stay good; a command that comes before the migration is told to wait for it."""
    dsns = Dsns(empty_dsn, crm_dsn)
    key = await make_database_of_before(dsns, tmp_path / "before")
    with pytest.raises(StartRefusedError, match="lacks migrations of this version: run `tallypoint migrate`"):
        await open_hashes(writer_connect(dsns.ledger, "test"), settings_with(RIGHT))
    assert "server/0007_secret_fingerprint.sql" in await bring_up_to_date(dsns, settings_with(RIGHT))
    hashes = await open_hashes(writer_connect(dsns.ledger, "test"), settings_with(RIGHT))
    assert await knows_key(dsns.ledger, hashes, key)
    with pytest.raises(StartRefusedError, match=OTHER_SECRET):
        await start(dsns, settings_with(WRONG))


async def test_a_ledger_without_books_is_refused_by_name(dsns: Dsns) -> None:
    with pytest.raises(StartRefusedError, match="no books yet: run `tallypoint migrate`"):
        await open_hashes(writer_connect(dsns.ledger, "test"), settings_with(RIGHT))


# --- two at once ------------------------------------------------------------------------------------------


async def test_of_many_starts_at_once_one_secret_wins(dsns: Dsns) -> None:
    """All who have it start, all others do not."""
    await bring_up_to_date(dsns, Settings())
    secrets = [RIGHT, WRONG] * 8
    outcomes = await asyncio.gather(
        *(open_hashes(writer_connect(dsns.ledger, "test"), settings_with(secret)) for secret in secrets),
        return_exceptions=True,
    )
    winners = {secret for secret, outcome in zip(secrets, outcomes, strict=True) if isinstance(outcome, KeyedHash)}
    assert len(winners) == 1
    assert sum(isinstance(outcome, StartRefusedError) for outcome in outcomes) == len(secrets) / 2


@pytest.mark.parametrize("first_one_commits", [True, False])
async def test_a_start_waits_for_one_that_is_keeping_its_fingerprint(dsns: Dsns, first_one_commits: bool) -> None:
    """And takes its word; if that one dies in between, the database is the next one's."""
    await bring_up_to_date(dsns, Settings())
    watcher = await asyncpg.connect(dsns.ledger)
    first = await writer_connect(dsns.ledger, "test")()
    keeping = first.transaction()
    await keeping.start()
    await first.execute(KEEP_FINGERPRINT, fingerprint_of(KeyedHash(RIGHT.encode())))
    second = asyncio.create_task(open_hashes(writer_connect(dsns.ledger, "second"), settings_with(WRONG)))

    async def second_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'second' AND wait_event_type = 'Lock'"
        return bool(await watcher.fetchval(waiting))

    await eventually(second_waits, "the second start waits for the first")
    await (keeping.commit() if first_one_commits else keeping.rollback())
    await first.close()
    await watcher.close()
    if first_one_commits:
        with pytest.raises(StartRefusedError, match=OTHER_SECRET):
            await second
    else:
        assert isinstance(await second, KeyedHash)


# --- the number of books ----------------------------------------------------------------------------------


@pytest.fixture(params=["command line", "environment", "file"])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], Settings]:
    """Say how many books there are, in each of the places that settings come from."""

    def say(books: int) -> Settings:
        if request.param == "environment":
            monkeypatch.setenv("TALLYPOINT_BOOKS", str(books))
        elif request.param == "file":
            (tmp_path / "tallypoint.toml").write_text(f"books = {books}\n")
        return settings_with(RIGHT, **({"books": books} if request.param == "command line" else {}))

    return say


async def test_another_number_of_books_is_refused(dsns: Dsns, said: Callable[[int], Settings]) -> None:
    """Wherever it was set, also to what is the default; the ledger's own number is welcome."""
    await start(dsns, settings_with(RIGHT, books=BOOKS))
    before = await contents(dsns.ledger)
    for opening in (
        bring_up_to_date(dsns, said(DEFAULT_BOOKS)),
        open_hashes(writer_connect(dsns.ledger, "test"), said(DEFAULT_BOOKS)),
    ):
        with pytest.raises(StartRefusedError, match=f"is {DEFAULT_BOOKS}, but this ledger has {BOOKS},") as refused:
            await opening
        assert f"remove the setting, or set it to {BOOKS};" in str(refused.value)
    assert await contents(dsns.ledger) == before
    await start(dsns, said(BOOKS))


async def test_a_number_that_nobody_has_set_is_the_ledgers(dsns: Dsns) -> None:
    await start(dsns, settings_with(RIGHT, books=BOOKS))
    await start(dsns, settings_with(RIGHT))
    assert await read_books(writer_connect(dsns.ledger, "test")) == BOOKS != DEFAULT_BOOKS


async def test_settings_that_do_not_fit_are_refused_before_any_migration(
    empty_dsn: str, crm_dsn: str, tmp_path: Path
) -> None:
    """So the version before can still be started."""
    dsns = Dsns(empty_dsn, crm_dsn)
    await make_database_of_before(dsns, tmp_path / "before")
    before = await contents(dsns.ledger)
    with pytest.raises(StartRefusedError, match=f"this ledger has {BOOKS}"):
        await bring_up_to_date(dsns, settings_with(RIGHT, books=DEFAULT_BOOKS))
    assert await contents(dsns.ledger) == before


# --- as processes -----------------------------------------------------------------------------------------


def environment_of(dsns: Dsns, secret: str, **more: str) -> dict[str, str]:
    return {
        "TALLYPOINT_LEDGER_DSN": dsns.ledger,
        "TALLYPOINT_CRM_DSN": dsns.crm,
        "TALLYPOINT_SECRET_KEY": secret,
        **more,
    }


def assert_refused(server: RunningServer, words: str) -> None:
    """Exit code 2, one message in words, and no child has lived."""
    exit_code = server.process.wait(START_SECONDS)
    server.stop()
    text = " ".join(str(event.get("text", "")) for event in server.log)
    assert (exit_code, words in text, "Traceback" in text) == (2, True, False), server.log_text()
    assert not [event for event in server.log if event.get("event") == "child_started"]


async def test_the_service_and_its_commands_refuse_and_the_right_secret_goes_on(
    empty_dsn: str, crm_dsn: str, tmp_path: Path
) -> None:
    """`serve`, with and without migrations, `migrate` and `keys`; the key of before opens the back office after it."""
    dsns = Dsns(empty_dsn, crm_dsn)
    right, wrong = environment_of(dsns, RIGHT), environment_of(dsns, WRONG)
    with running_server(tmp_path / "first", "--workers=1", environment=right, development=False):
        issued = run_command("keys", "issue", "anna", "--role=admin", environment=right)
    assert issued.returncode == 0, issued.stderr
    before = await contents(dsns.ledger)
    for environment in (wrong, {**wrong, "TALLYPOINT_MIGRATE_ON_START": "false"}):
        assert_refused(start_server(tmp_path / "wrong", environment=environment, development=False), OTHER_SECRET)
    books = {**right, "TALLYPOINT_BOOKS": str(BOOKS)}
    assert_refused(start_server(tmp_path / "wrong", environment=books, development=False), f"is {BOOKS}, but this")
    for command in (("keys", "issue", "bo", "--role=admin"), ("keys", "revoke", "anna", "--yes"), ("migrate",)):
        for environment, words in ((wrong, OTHER_SECRET), (books, f"this ledger has {DEFAULT_BOOKS}")):
            refused = run_command(*command, environment=environment)
            assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert await contents(dsns.ledger) == before
    with running_server(tmp_path / "again", "--workers=1", environment=right, development=False) as server:
        reach = {"TALLYPOINT_ADMIN_ADDRESS": server.backoffice_address, "TALLYPOINT_ADMIN_KEY": issued.stdout.strip()}
        listed = run_command("stores", "list", environment=reach)
        assert listed.returncode == 0, listed.stderr
    unknown = run_command("keys", "revoke", "ana", "--yes", environment=right)
    assert (unknown.returncode, "nobody called ana has a key; did you mean anna?" in unknown.stderr) == (2, True)
    asked = run_command("keys", "revoke", "anna", environment=right)
    assert (asked.returncode, "Take the key of anna away, so that nothing" in asked.stderr) == (2, True)
    revoked = [run_command("keys", "revoke", "anna", "--yes", environment=right).returncode for _ in range(2)]
    assert revoked == [0, 2], "once it is gone, nobody of that name has one"


def test_of_two_services_that_start_at_once_on_a_new_database_one_goes_on(
    databases: DatabaseFactory, tmp_path: Path
) -> None:
    with databases.fresh() as ledger, databases.fresh() as crm:
        servers = [
            start_server(
                tmp_path / name, "--workers=1", environment=environment_of(Dsns(ledger, crm), secret), development=False
            )
            for name, secret in (("right", RIGHT), ("wrong", WRONG))
        ]
        try:
            refused = _first_to_end(servers)
            assert_refused(refused, OTHER_SECRET)
            (other,) = (server for server in servers if server is not refused)
            other.wait_for_event("ready")
        finally:
            for server in servers:
                server.stop()


def _first_to_end(servers: Sequence[RunningServer]) -> RunningServer:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        for server in servers:
            if server.process.poll() is not None:
                return server
        time.sleep(0.05)  # between two looks at other processes, which tell nobody when they end
    raise AssertionError("none of them was refused")


def test_development_mode_keeps_its_secret_when_another_one_is_refused(tmp_path: Path) -> None:
    """The file of keys is not written over, so the next start finds it as it was."""
    with running_server(tmp_path, "--workers=1") as server:
        keys = server.keys
    refused = start_server(tmp_path, environment={"TALLYPOINT_SECRET_KEY": WRONG})
    assert_refused(refused, f"in development mode: secret_key in {tmp_path / 'development-keys.json'}")
    assert json.loads((tmp_path / "development-keys.json").read_text()) == keys
    with running_server(tmp_path, "--workers=1") as again:
        assert again.keys == keys
