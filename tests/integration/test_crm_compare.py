"""`tallypoint crm`: the comparison finds whatever differs, and the status says how far each book is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import NamedTuple

import asyncpg
import pytest

from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from server.crm import compare as compare_module
from server.crm.compare import Comparison, compare
from server.crm.source import connect_ledger
from server.crm.store import ForeignLedgerError, connect_crm
from tests.support.books import BooksUnderTest, open_test_books
from tests.support.crm import caught_up, comparison, streaming
from tests.support.database import DatabaseFactory
from tests.support.server_process import run_command


@dataclass
class Pair:
    """A ledger and the CRM database that follows it."""

    books: BooksUnderTest
    crm_dsn: str


async def fill(books: BooksUnderTest, crm_dsn: str) -> None:
    """Append members and receipts, and let a stream apply them all."""
    await books.register(9)
    await books.buy(60)
    async with streaming(books.dsn, crm_dsn):
        await caught_up(books.dsn, crm_dsn)


@pytest.fixture
async def pair(ledger_dsn: str, crm_dsn: str) -> AsyncIterator[Pair]:
    """A ledger with members and receipts, all applied, for one test."""
    async with open_test_books(ledger_dsn) as books:
        await fill(books, crm_dsn)
        yield Pair(books, crm_dsn)


class SharedPair(NamedTuple):
    """The databases of ``shared_pair``, and the ledger's members."""

    ledger_dsn: str
    crm_dsn: str
    members: list[uuid.UUID]


@pytest.fixture(scope="module")
def shared_pair(databases: DatabaseFactory) -> Iterator[SharedPair]:
    """The same for tests that leave it as it is."""

    async def build(ledger_dsn: str, crm_dsn: str) -> SharedPair:
        async with open_test_books(ledger_dsn) as books:
            await fill(books, crm_dsn)
            return SharedPair(ledger_dsn, crm_dsn, books.members)

    with databases.fresh(LEDGER_MIGRATIONS) as ledger_dsn, databases.fresh(CRM_MIGRATIONS) as crm_dsn:
        yield asyncio.run(build(ledger_dsn, crm_dsn))


class _UndoError(Exception):
    """Rolls a transaction back."""


async def comparison_with(pair: SharedPair, damage: str, *values: object) -> Comparison:
    """Compare while something is wrong in the CRM database, then undo it."""
    ledger, crm = await connect_ledger(pair.ledger_dsn), await connect_crm(pair.crm_dsn)
    result = Comparison()
    with contextlib.suppress(_UndoError):
        async with crm.transaction(isolation="repeatable_read"):
            assert await crm.execute(damage, *values) not in ("UPDATE 0", "DELETE 0", "INSERT 0 0")
            result = await compare(ledger, crm, patience_seconds=0)
            raise _UndoError
    await ledger.close()
    await crm.close()
    return result


async def execute(dsn: str, sql: str) -> None:
    """Run one statement as a superuser whom no trigger stops."""
    conn = await asyncpg.connect(dsn, server_settings={"session_replication_role": "replica"})
    await conn.execute(sql)
    await conn.close()


async def test_counts_what_it_compared(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is counted, in windows of any size, and the progress ends at the whole."""
    seen: list[tuple[int, int]] = []
    ledger, crm = await connect_ledger(pair.books.dsn), await connect_crm(pair.crm_dsn)
    for window in (1, 7, 500):
        monkeypatch.setattr(compare_module, "WINDOW_ENTRIES", window)
        monkeypatch.setattr(compare_module, "PAGE_MEMBERS", window)
        result = await compare(ledger, crm, lambda done, total: seen.append((done, total)))
        assert result.equal, result.differences
        assert (result.books, result.entries, result.receipts, result.lines, result.members) == (4, 69, 60, 180, 9)
        assert result.movements > 40
        assert seen[-1] == (69, 69)
    await ledger.close()
    await crm.close()


IN_BOOK_1 = "book = 1 AND number = (SELECT min(number) FROM crm.receipt WHERE book = 1 AND points_earned_minor > 0)"
PLANTED = {
    "receipt-amount": (f"UPDATE crm.receipt SET net_amount_minor = 1 WHERE {IN_BOOK_1}", "receipt.net_amount_minor"),
    "receipt-member": (f"UPDATE crm.receipt SET member_id = NULL WHERE {IN_BOOK_1}", "receipt.member_id"),
    "receipt-coupons": (f"UPDATE crm.receipt SET coupon_codes = '{{X}}' WHERE {IN_BOOK_1}", "receipt.coupon_codes"),
    "receipt-time": (f"UPDATE crm.receipt SET event_at = event_at + '1 us' WHERE {IN_BOOK_1}", "receipt.event_at"),
    "receipt-missing": (f"DELETE FROM crm.receipt WHERE {IN_BOOK_1}", "receipt"),
    "receipt-moved-away": (f"UPDATE crm.receipt SET number = 9999 WHERE {IN_BOOK_1}", "receipt"),
    "line-quantity": (
        f"UPDATE crm.receipt_line SET quantity_milli = 7 WHERE line_number = 2 AND {IN_BOOK_1}",
        "receipt_line[2].quantity_milli",
    ),
    "line-tags": (
        f"UPDATE crm.receipt_line SET tags = '{{}}' WHERE line_number = 2 AND {IN_BOOK_1}",
        "receipt_line[2].tags",
    ),
    "line-promotions": (
        f"UPDATE crm.receipt_line SET promotions = (promotions::jsonb - 0)::json WHERE line_number = 1 AND {IN_BOOK_1}",
        "receipt_line[1].promotions",
    ),
    "line-missing": (f"DELETE FROM crm.receipt_line WHERE line_number = 3 AND {IN_BOOK_1}", "receipt_line[3]"),
    "line-invented": (
        f"UPDATE crm.receipt_line SET line_number = 4 WHERE line_number = 3 AND {IN_BOOK_1}",
        "receipt_line[4]",
    ),
    "movement-points": (
        f"UPDATE crm.points_movement SET points_minor = points_minor + 1 WHERE ordinal = 1 AND {IN_BOOK_1}",
        "points_movement[1].points_minor",
    ),
    "movement-account": (
        f"UPDATE crm.points_movement SET credit = 'pending' WHERE ordinal = 1 AND {IN_BOOK_1}",
        "points_movement[1].credit",
    ),
    "movement-kind": (
        f"UPDATE crm.points_movement SET kind = 'time' WHERE ordinal = 1 AND {IN_BOOK_1}",
        "points_movement[1].kind",
    ),
    "movement-missing": (f"DELETE FROM crm.points_movement WHERE {IN_BOOK_1}", "points_movement[1]"),
    "cursor-behind": ("UPDATE crm.cursor SET number = number - 1 WHERE book = 1", "cursor.number"),
    "cursor-hash": ("UPDATE crm.cursor SET hash = sha256('x') WHERE book = 1", "cursor.hash"),
    "cursor-refused": ("UPDATE crm.cursor SET state = 'refused', reason = 'x' WHERE book = 1", "cursor.state"),
    "cursor-missing": ("DELETE FROM crm.cursor WHERE book = 1", "cursor"),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_names_a_planted_difference(shared_pair: SharedPair, planted: str) -> None:
    """The difference is named by book, entry and field."""
    damage, field = PLANTED[planted]
    result = await comparison_with(shared_pair, damage)
    assert field in [difference.field for difference in result.differences]
    assert {difference.book for difference in result.differences} == {1}


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        pytest.param("UPDATE crm.member SET name = 'Somebody' WHERE member_id = $1", ".name", id="name"),
        pytest.param("UPDATE crm.member SET status = 'blocked' WHERE member_id = $1", ".status", id="status"),
        pytest.param("UPDATE crm.member SET card_numbers = '{}' WHERE member_id = $1", ".card_numbers", id="cards"),
        pytest.param("UPDATE crm.member SET version = 7 WHERE member_id = $1", ".version", id="version-too-high"),
        pytest.param("DELETE FROM crm.member WHERE member_id = $1", "", id="missing"),
    ],
)
async def test_names_a_difference_in_a_member_without_personal_data(
    shared_pair: SharedPair, damage: str, field: str
) -> None:
    """The member's id and field are named, what stands in the field is not shown."""
    member_id = shared_pair.members[3]
    result = await comparison_with(shared_pair, damage, member_id)
    assert [difference.field for difference in result.differences] == [f"member[{member_id}]{field}"]
    assert "Olena" not in str(result)
    assert "Somebody" not in str(result)


async def test_finds_a_member_that_the_ledger_side_does_not_know(shared_pair: SharedPair) -> None:
    """An invented member is found, also after the last of the ledger's members."""
    invented = uuid.UUID(int=2**128 - 2)
    result = await comparison_with(
        shared_pair,
        "INSERT INTO crm.member SELECT book, $1, version, status, name, phone, birthday, language, "
        "card_numbers, card_statuses, registered_at FROM crm.member LIMIT 1",
        invented,
    )
    assert [difference.field for difference in result.differences] == [f"member[{invented}]"]


async def test_finds_rows_of_books_that_do_not_exist(shared_pair: SharedPair) -> None:
    """Rows outside the ledger's books are found."""
    result = await comparison_with(
        shared_pair,
        "INSERT INTO crm.points_movement SELECT 77, number, ordinal, booked_at, member_id, unit, debit, credit, "
        "points_minor, lot_number, lot_ordinal, active_at, expires_at, issued_at, kind "
        "FROM crm.points_movement LIMIT 1",
    )
    assert [(difference.book, difference.field) for difference in result.differences] == [(77, "points_movement")]


async def test_finds_a_posting_that_the_event_does_not_have(pair: Pair) -> None:
    """Movements are compared with the ledger's postings, which are stored apart from the events."""
    await execute(pair.books.dsn, "UPDATE ledger.posting SET points_minor = points_minor + 1 WHERE book = 2")
    result = await comparison(pair.books.dsn, pair.crm_dsn)
    assert {difference.field for difference in result.differences} >= {"points_movement[1].points_minor"}
    assert {difference.book for difference in result.differences} == {2}


async def test_is_right_while_both_databases_are_in_use(pair: Pair) -> None:
    """Receipts and changes of members that come meanwhile are no differences."""
    books = pair.books
    ledger, crm = await connect_ledger(books.dsn), await connect_crm(pair.crm_dsn)
    async with streaming(books.dsn, pair.crm_dsn):
        for round_number in range(6):
            await books.buy(50)
            await books.change_member(books.members[round_number], "name = name || 'x'")
            result = await compare(ledger, crm)
            assert result.equal, result.differences
    await ledger.close()
    await crm.close()


async def test_a_foreign_ledger_is_an_error(pair: Pair, databases: DatabaseFactory) -> None:
    """Two databases that do not belong together are not compared."""
    with databases.fresh(LEDGER_MIGRATIONS) as other_dsn:
        async with open_test_books(other_dsn):
            with pytest.raises(ForeignLedgerError, match="follows the ledger"):
                await comparison(other_dsn, pair.crm_dsn)


def crm_command(pair: Pair, *arguments: str, own_process: bool = False) -> CompletedProcess[str]:
    """Run ``tallypoint crm`` as people do."""
    environment = {"TALLYPOINT_LEDGER_DSN": pair.books.dsn, "TALLYPOINT_CRM_DSN": pair.crm_dsn}
    return run_command("crm", *arguments, environment=environment, own_process=own_process)


async def test_status_command(pair: Pair) -> None:
    """The table has a row for each book; the exit code says whether all are followed."""
    fine = crm_command(pair, "status", "--json", own_process=True)
    assert fine.returncode == 0, fine.stderr
    summary = json.loads(fine.stdout)
    assert (summary["healthy"], summary["lag_entries"], summary["lag_seconds"]) == (True, 0, 0.0)
    assert sum(book["crm_number"] for book in summary["books"]) == 69
    await execute(pair.crm_dsn, "UPDATE crm.cursor SET state = 'refused', reason = 'entry 5 is odd' WHERE book = 1")
    await pair.books.buy(10)
    stopped = crm_command(pair, "status")
    assert stopped.returncode == 1
    assert "refused" in stopped.stdout
    assert "entry 5 is odd" in stopped.stdout
    behind = json.loads(crm_command(pair, "status", "--json").stdout)
    assert behind["lag_entries"] == 10
    assert behind["lag_seconds"] > 0


async def test_compare_command(pair: Pair) -> None:
    """It prints what it compared, and exits with 1 and the differences if there are any."""
    fine = crm_command(pair, "compare")
    assert fine.returncode == 0, fine.stderr
    assert "CRM equal to ledger, line by line: 69 entries in 4 books: 60 receipts, 180 lines" in fine.stdout
    assert "Comparing: 69 of 69 entries" in fine.stderr
    damage, field = PLANTED["line-quantity"]
    await execute(pair.crm_dsn, damage)
    bad = crm_command(pair, "compare", "--json", "--wait-seconds", "0")
    assert bad.returncode == 1
    assert [difference["field"] for difference in json.loads(bad.stdout)["differences"]] == [field]
