"""`tallypoint ledger`: verify since the last time, seal, and what seals show that the books alone cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from ledger.reading.journal import read_heads
from ledger.rebuild import rebuild
from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from server.commands.ledger import app
from tests.support.books import open_test_books
from tests.support.database import DatabaseFactory
from tests.support.tampering import cut_tail

SOUND, BAD, CANNOT_RUN = 0, 1, 2


@dataclass
class Place:
    """Two databases, and a folder for keys and seals."""

    ledger_dsn: str
    crm_dsn: str
    folder: Path

    def run(self, *words: str, with_crm: bool = True) -> tuple[int, str]:
        """Run a command of `tallypoint ledger`; return its exit code and all that it wrote."""
        databases = ["--dsn", self.ledger_dsn, *(["--crm-dsn", self.crm_dsn] if with_crm else [])]
        result = CliRunner().invoke(app, [*words, *databases], env={"COLUMNS": "200"})
        return result.exit_code, result.output

    def seal(self, name: str, *words: str, key: str = "key.pem", with_crm: bool = True) -> tuple[int, str]:
        """Make a seal file."""
        return self.run("seal", f"--key={self.at(key)}", f"--output={self.at(name)}", *words, with_crm=with_crm)

    def verify(self, *words: str, with_crm: bool = True) -> tuple[int, str]:
        """Verify the books and seals."""
        return self.run("verify", *words, with_crm=with_crm)

    def make_key(self, name: str = "key.pem") -> str:
        """Make a key; return what was written."""
        result = CliRunner().invoke(app, ["seal-key", str(self.at(name))])
        assert result.exit_code == SOUND, result.output
        return str(result.output)

    def at(self, name: str) -> Path:
        """Return where a key or a seal lies."""
        return self.folder / name

    def buy(self, count: int) -> None:
        """Append purchases."""

        async def append() -> None:
            async with open_test_books(self.ledger_dsn, 2) as books:
                books.receipt_numbers = iter(range(self.bought + 1, 10**6))  # type: ignore[assignment]  # goes on
                await books.buy(count)

        asyncio.run(append())
        self.bought += count

    bought: int = 0

    def change(self, work: Callable[[asyncpg.Connection[Any]], Coroutine[Any, Any, Any]], crm: bool = False) -> Any:
        """Do something to a database with all rights, past its triggers."""

        async def run() -> Any:
            conn = await asyncpg.connect(self.crm_dsn if crm else self.ledger_dsn)
            await conn.execute("SET session_replication_role = replica")
            try:
                return await work(conn)
            finally:
                await conn.close()

        return asyncio.run(run())


@pytest.fixture
def place(databases: DatabaseFactory, tmp_path: Path) -> Iterator[Place]:
    """A ledger with twenty receipts of strangers, an empty CRM database, and a key."""
    with databases.fresh(LEDGER_MIGRATIONS) as ledger_dsn, databases.fresh(CRM_MIGRATIONS) as crm_dsn:
        place = Place(ledger_dsn, crm_dsn, tmp_path)
        place.buy(20)
        place.make_key()
        yield place


async def cut(conn: asyncpg.Connection[Any]) -> tuple[int, int]:
    """Take away the newest entry of a book with all its traces; return its place."""
    book, head = max((await read_heads(conn)).items(), key=lambda item: item[1].number)
    await cut_tail(conn, book, head.number - 1)
    await conn.execute("DELETE FROM ledger.verified")
    await rebuild(conn)
    return book, head.number


def test_the_first_verification_since_the_last_is_a_full_one(place: Place) -> None:
    code, output = place.verify("--since-last", with_crm=False)
    assert (code, "were verified as a whole" in output, "20 entries" in output) == (SOUND, True, True)
    place.buy(5)
    code, output = place.verify("--since-last", with_crm=False)
    assert (code, "Verified: 5 entries in 2 books" in output) == (SOUND, True), output


def test_damage_is_named_and_leaves_the_checkpoint_where_it_was(place: Place) -> None:
    assert place.verify()[0] == SOUND
    place.buy(4)
    place.change(lambda conn: conn.execute("UPDATE ledger.entry SET event_at = now() WHERE book = 1 AND number = 2"))
    before = place.change(lambda conn: conn.fetch("SELECT * FROM ledger.verified ORDER BY book"))
    code, output = place.verify()
    assert code == BAD
    assert (
        "BAD: book 1, entry 2: its time is not that of the receipt" in output or "book 1, entry 2: its hash" in output
    )
    assert place.change(lambda conn: conn.fetch("SELECT * FROM ledger.verified ORDER BY book")) == before


def test_seals_are_kept_in_a_file_and_in_the_crm_database_and_fit(place: Place) -> None:
    assert place.seal("1.json")[0] == SOUND
    place.buy(3)
    code, output = place.seal("2.json")
    assert (code, "Seal 2" in output) == (SOUND, True)
    code, output = place.verify(
        f"--seal={place.at('1.json')}", f"--seal={place.at('2.json')}", f"--public-key={place.at('key.pem.pub')}"
    )
    assert (code, "2 seals fit" in output, "Compare" in output) == (SOUND, True, False), output
    rows = place.change(lambda conn: conn.fetch("SELECT seal_number FROM crm.seal ORDER BY 1"), crm=True)
    assert [row["seal_number"] for row in rows] == [1, 2]


def test_a_verification_without_the_public_key_says_what_to_compare(place: Place) -> None:
    place.seal("1.json")
    code, output = place.verify()
    assert (code, "Seals are signed with key" in output) == (SOUND, True)


@pytest.mark.parametrize("with_crm", [True, False], ids=["seal in the CRM database", "seal in a file"])
def test_a_tail_that_was_cut_off_is_found_by_its_seal(place: Place, with_crm: bool) -> None:
    place.seal("1.json", with_crm=with_crm)
    seals = [] if with_crm else [f"--seal={place.at('1.json')}"]
    book, number = place.change(cut)
    code, output = place.verify(*seals, with_crm=with_crm)
    assert (code, f"BAD: book {book}, entry {number}: the tail is cut off" in output) == (BAD, True), output
    assert place.verify(with_crm=False)[0] == SOUND, "the books alone do not show it"
    code, output = place.seal("2.json", *([] if with_crm else [f"--previous={place.at('1.json')}"]), with_crm=with_crm)
    assert (code, "not sealed" in output) == (CANNOT_RUN, True), "no seal on top of one that does not fit"
    assert not place.at("2.json").exists()


def test_a_seal_signed_with_another_key_is_found(place: Place) -> None:
    place.make_key("thief.pem")
    place.seal("1.json", key="thief.pem")
    code, output = place.verify(f"--public-key={place.at('key.pem.pub')}")
    assert (code, "seal 1 is signed by another key" in output) == (BAD, True)


def test_seals_that_were_taken_away_are_found(place: Place) -> None:
    for name in ("1.json", "2.json", "3.json"):
        place.seal(name)
    place.change(lambda conn: conn.execute("DELETE FROM crm.seal WHERE seal_number = 2"), crm=True)
    code, output = place.verify()
    assert (code, "BAD: seal 2 is missing" in output) == (BAD, True)
    place.change(lambda conn: conn.execute("DELETE FROM crm.seal WHERE seal_number = 3"), crm=True)
    code, output = place.verify(f"--seal={place.at('3.json')}", f"--seal={place.at('2.json')}")
    assert (code, "stands in a file, and is missing in the CRM database" in output) == (BAD, True), output


def test_a_changed_seal_is_found(place: Place) -> None:
    place.seal("1.json")
    text = place.at("1.json").read_text()
    place.at("1.json").write_text(text.replace('\\"number\\":1,', '\\"number\\":2,', 1))
    assert text != place.at("1.json").read_text()
    code, output = place.verify(f"--seal={place.at('1.json')}")
    assert (code, "a seal is not genuine" in output) == (BAD, True), output


def test_a_seal_of_another_ledger_is_found(place: Place, databases: DatabaseFactory, tmp_path: Path) -> None:
    place.seal("1.json", with_crm=False)
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        other = Place(dsn, "", tmp_path)
        other.buy(1)
        code, output = other.verify(f"--seal={place.at('1.json')}", with_crm=False)
    assert (code, "is of ledger" in output) == (BAD, True)


def test_nothing_is_overwritten(place: Place) -> None:
    place.seal("1.json")
    before = place.at("1.json").read_text()
    code, output = place.seal("1.json")
    assert (code, "exists already" in output) == (CANNOT_RUN, True)
    assert place.at("1.json").read_text() == before
    assert place.change(lambda conn: conn.fetchval("SELECT count(*) FROM crm.seal"), crm=True) == 1
    assert CliRunner().invoke(app, ["seal-key", str(place.at("key.pem"))]).exit_code == CANNOT_RUN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--seal=/nowhere/1.json"], "cannot be read", id="no seal file"),
        pytest.param(["--public-key=/nowhere/key"], "cannot be read", id="no public key"),
    ],
)
def test_what_cannot_be_read_is_said(place: Place, words: list[str], message: str) -> None:
    code, output = place.verify(*words)
    assert (code, message in output) == (CANNOT_RUN, True)


def test_a_crm_database_without_seals_is_no_obstacle(place: Place) -> None:
    place.change(lambda conn: conn.execute("DROP TABLE crm.seal"), crm=True)
    code, output = place.verify()
    assert (code, "were not checked" in output) == (SOUND, True)


def test_rebuild_says_what_it_did(place: Place) -> None:
    place.change(lambda conn: conn.execute("DELETE FROM ledger.receipt_key"))
    assert place.verify(with_crm=False)[0] == BAD
    code, output = place.run("rebuild", "--yes", with_crm=False)
    assert (code, "Rebuilt the caches of 20 entries" in output) == (SOUND, True), output
    assert place.verify(with_crm=False)[0] == SOUND
