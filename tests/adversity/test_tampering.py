"""Somebody with all rights changes the books: verification names the first bad entry, or the cache, or only a seal can.

Each change is made in a transaction that is rolled back, so that all share one ledger with entries of every kind.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked
from ledger.caches.tables import CACHE_TABLES
from ledger.entry.keys import content_hash
from ledger.entry.model import Close, Command, Grant
from ledger.finance.closing import DAY, close_books
from ledger.finance.scope import Programme
from ledger.rebuild import rebuild
from ledger.seal import Seal, check_seals, make_seal
from ledger.verify import Problem, record_checkpoints, verify
from server.base.storage import LEDGER_MIGRATIONS
from tests.support.books import open_test_books
from tests.support.commands import adjust, checkout, hold, member, transfer_in, transfer_out
from tests.support.database import DatabaseFactory
from tests.support.story import Story
from tests.support.tampering import (
    READ_COLUMNS,
    Change,
    append_without_caches,
    change_column,
    cut_tail,
    delete_row,
    forge_from,
    last_numbers,
    problems_of,
    rows_of,
    swap_rows,
    tampering,
    with_event,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LATER = datetime(2026, 4, 1, tzinfo=UTC)

COLUMNS = {
    "identity": "only_row ledger_id books created_at",
    "unit": "unit code precision",
    "book_head": "book number hash booked_at",
    "entry": "book number booked_at event_at kind member_id message_id business_key content_hash payload hash",
    "posting": (
        "book number ordinal unit debit credit lot_ordinal points_minor lot_number member_id active_at expires_at "
        "issued_at"
    ),
    "receipt_key": "business_key content_hash book number",
    "message_key": "message_id content_hash book number booked_on",
    "balance": "book member_id unit available_minor pending_minor held_minor debt_minor next_change_at",
    "lot": ("book member_id unit number ordinal pending granted_minor remaining_minor active_at expires_at held_minor"),
    "account_total": "book booked_on unit account debit_minor credit_minor",
    "hold": (
        "book number member_id unit checkout_key store_id terminal_id points_minor held_at expires_at how ended_number"
    ),
    "hold_part": "book hold_number lot_number lot_ordinal points_minor ordinal",
    "purchase_return": "book purchase_number last_number",
    "member_counters": "book member_id counters",
    "coupon_use": "code slot book number held",
    "hold_coupon": "book hold_number code slot",
    "coupon_issued": "code book number member_id series valid_from valid_until",
    "budget": "key leased",
    "budget_slice": "book key granted used",
    "partner": "partner code",
    "verified": "book number hash verified_at full_number full_at",
    "close": (
        "unit close_number programme_code period from_day last_day closed_at closed_by currency currency_digits "
        "point_value_version default_money_minor default_points_minor"
    ),
    "close_mark": "book number unit close_number hash",
    "close_total": "unit close_number totals digest book number",
    "finance_cursor": "book number hash",
    "finance_total": (
        "book period business_day unit store_id partner issue_month kind debit credit points_minor postings"
    ),
    "receipt_register": (
        "book number kind store_id terminal_id business_date receipt_number event_at booked_at member_id period "
        "purchase_number lines list_amount_minor discount_minor points_money_minor net_amount_minor "
        "points_earned_minor points_spent_minor programme_code"
    ),
    "point_value": (
        "unit version from_month value_money_minor value_points_minor breakage_ppm recorded_at recorded_by"
    ),
}
"""All tables of the ledger and their columns."""

CANNOT_BE_PROVED = {
    "identity.only_row": "has one possible value",
    "identity.created_at": "decides nothing",
    "verified.verified_at": "tells when somebody looked, which nothing else records",
    "verified.full_number": "tells how somebody looked, which nothing else records",
    "verified.full_at": "tells when somebody looked, which nothing else records",
    "close.closed_at": "the journal has the moment of the marks",
    "close.currency_digits": "says how money is printed; the totals frozen name the currency",
    "point_value": "is an estimate that people record; no entry follows from it",
}
"""Columns, or whole tables, that no recomputation can know, and why."""

JOURNAL = ("entry", "posting")
CLOSES = ("close", "close_mark", "close_total")
CHANGEABLE = [
    pytest.param(table, column, id=f"{table}.{column}")
    for table, columns in COLUMNS.items()
    for column in columns.split()
    if table not in CANNOT_BE_PROVED and f"{table}.{column}" not in CANNOT_BE_PROVED
]
TABLES = [table for table in COLUMNS if table not in CANNOT_BE_PROVED]


@pytest.fixture(scope="module")
def ledger(databases: DatabaseFactory) -> Iterator[str]:
    """A ledger with entries of all kinds, closed days, summaries, checkpoints and a seal. Nobody may change it."""
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        _run(_fill(dsn))
        yield dsn


def _run(work: Coroutine[Any, Any, None]) -> None:
    with ThreadPoolExecutor(1) as pool:  # a test's own event loop may be running in this thread
        pool.submit(asyncio.run, work).result()


class _OpenStory(Story):
    """A story whose marks are left to finance, which records them as well."""

    async def _closes(self) -> None:
        pass


async def _fill(dsn: str) -> None:
    async with open_test_books(dsn) as books:
        await _OpenStory(books).happen()
        await books.register(8)
        await books.buy(40)
        conn = await asyncpg.connect(dsn)
        programme = Programme("club", books.unit, "UAH", 2, Fraction(1, 10))
        for day in (9, 10):
            await close_books(conn, programme, DAY, date(2026, 3, day), "Olena", books.clock())
            await books.buy(20)
        for n, shopper in enumerate(await books.register(8)):
            for points_minor in (100, 50):
                await books.append([adjust(f"kind {n} {points_minor}", shopper, points_minor, books=books.count)])
            await books.append([hold(checkout(f"open {n}"), shopper, 110 + n, books=books.count)])
        await record_checkpoints(conn, await verify(conn), LATER, full=True)
        await books.buy(20)
        await conn.close()


async def sealed(dsn: str) -> Seal:
    """Return a seal of the ledger as it is."""
    conn = await asyncpg.connect(dsn)
    seal = await make_seal(conn, KEY, LATER, None)
    await conn.close()
    return seal


async def test_every_column_of_every_table_is_tried(ledger: str) -> None:
    """A new column or table must be listed here, so that its changes are found too."""
    conn = await asyncpg.connect(ledger)
    there: dict[str, list[str]] = {}
    for table, column in await conn.fetch(READ_COLUMNS):
        there.setdefault(table, []).append(column)
    await conn.close()
    assert there == {table: columns.split() for table, columns in COLUMNS.items()}


async def test_untouched_books_are_sound_and_have_entries_of_every_kind(ledger: str) -> None:
    async with tampering(ledger) as conn:
        assert await problems_of(conn) == []
        kinds = {kind for (kind,) in await conn.fetch("SELECT DISTINCT kind FROM ledger.entry")}
    assert kinds == {kind for kind in journal_pb2.EntryKind.values() if kind}


def assert_named(problems: list[Problem], changes: tuple[Change, ...]) -> None:
    """The first changed entry of each book, or the cache, is what the problems name."""
    assert problems, "nothing was found"
    table = changes[0].table
    if table in JOURNAL:
        expected: dict[int, int] = {}
        for change in changes:
            book, number = change.before["book"], change.before["number"]
            if change.after and table == "posting" and change.after["book"] == book and change.after["number"] > 0:
                number = min(number, change.after["number"])
            expected[book] = min(number, expected.get(book, number))
        named = {problem.book: problem.number for problem in problems}
        assert expected.items() <= named.items(), problems
    elif "book" in changes[0].before and table not in CLOSES and f"ledger.{table}" not in str(problems):
        books = {row["book"] for change in changes for row in (change.before, change.after) if row}
        assert books & {problem.book for problem in problems}, problems


@pytest.mark.parametrize(("table", "column"), CHANGEABLE)
async def test_a_changed_column_is_found(ledger: str, dice: random.Random, table: str, column: str) -> None:
    async with tampering(ledger) as conn:
        change = await change_column(conn, table, column, dice)
        print(f"{table}: {change.before} became {change.after}")
        problems = await problems_of(conn)
        assert_named(problems, (change,))
        if table in CACHES:
            assert any(problem.number == 0 and f"cache {table}" in problem.what for problem in problems), problems


CACHES = (*(table.name for table in CACHE_TABLES), "budget")


NOTHING_TO_SWAP = {"identity", "unit", "finance_cursor", "hold_coupon"}
"""Tables with one row, one row a book, or nothing beside their keys."""

NOTHING_LOST = {"verified"}
"""Rows that may go: without its checkpoint a book is verified from its first entry on (see test_ledger_cli.py)."""


@pytest.mark.parametrize("table", [table for table in TABLES if table not in NOTHING_LOST])
async def test_a_deleted_row_is_found(ledger: str, dice: random.Random, table: str) -> None:
    async with tampering(ledger) as conn:
        change = await delete_row(conn, table, dice)
        print(f"{table}: {change.before} was deleted")
        assert_named(await problems_of(conn), (change,))


@pytest.mark.parametrize("table", [table for table in TABLES if table not in NOTHING_TO_SWAP])
async def test_rows_that_changed_places_are_found(ledger: str, dice: random.Random, table: str) -> None:
    async with tampering(ledger) as conn:
        changes = await swap_rows(conn, table, dice)
        print(f"{table}: {changes[0].before} and {changes[1].before} were swapped")
        assert_named(await problems_of(conn), changes)


async def _random_place(conn: asyncpg.Connection[Any], dice: random.Random) -> tuple[int, int]:
    """Return a random book, and an entry of it that is neither the first nor the last."""
    book, last = dice.choice(sorted((await last_numbers(conn)).items()))
    return book, dice.randrange(2, last)


async def test_a_tail_that_is_cut_off_leaves_caches_that_know_more(ledger: str, dice: random.Random) -> None:
    async with tampering(ledger) as conn:
        book, number = await _random_place(conn, dice)
        await conn.execute("DELETE FROM ledger.verified")
        await cut_tail(conn, book, number)
        problems = await problems_of(conn)
        assert [problem.book for problem in problems] == [book]
        assert "cache" in problems[0].what


async def test_only_a_seal_knows_of_a_tail_that_was_cut_off_with_its_caches(ledger: str, dice: random.Random) -> None:
    seal = await sealed(ledger)
    async with tampering(ledger) as conn:
        # Purchases of strangers: nothing else in other books depends on them.
        book, number = 1, (await last_numbers(conn))[1] - 1
        tables = ("verified", "finance_cursor", "finance_total", "receipt_register", "close", "close_mark")
        await cut_tail(conn, book, number)
        for table in tables:
            await conn.execute(f"DELETE FROM ledger.{table}")
        await rebuild(conn)
        assert [report.problem for report in await verify(conn)] == [None] * 4
        (finding,) = await check_seals(conn, [seal], [])
        assert (finding.book, finding.number) == (book, number + 1)
        assert "cut off" in finding.what


async def test_only_a_seal_knows_of_a_chain_that_was_written_anew(ledger: str, dice: random.Random) -> None:
    seal = await sealed(ledger)
    async with tampering(ledger) as conn:
        row = dice.choice(await rows_of(conn, "entry", "kind = 1 AND number > 1"))

        def another_article(event: journal_pb2.Event) -> None:
            event.purchase.receipt.lines[0].sku = "caviar"

        await conn.execute("DELETE FROM ledger.verified")
        await forge_from(conn, row["book"], row["number"], {"payload": with_event(row["payload"], another_article)})
        assert [report.problem for report in await verify(conn)] == [None] * 4
        (finding,) = await check_seals(conn, [seal], [])
        assert (finding.book, finding.number) == (row["book"], (await last_numbers(conn))[row["book"]])
        assert "written anew" in finding.what


async def test_a_chain_that_was_written_anew_does_not_fit_the_last_verification(
    ledger: str, dice: random.Random
) -> None:
    async with tampering(ledger) as conn:
        verified = {row["book"]: row["number"] for row in await rows_of(conn, "verified")}
        book = dice.choice(sorted(verified))
        event_at = datetime(2026, 2, 1, tzinfo=UTC)
        row = dice.choice(await rows_of(conn, "entry", f"book = {book} AND kind = 2 AND number BETWEEN 2 AND 12"))
        await forge_from(conn, book, row["number"], {"event_at": event_at})
        problems = await problems_of(conn)
        assert [(problem.book, problem.number) for problem in problems] == [(book, verified[book])]


async def test_a_lost_book_is_found(ledger: str, dice: random.Random) -> None:
    seal = await sealed(ledger)
    async with tampering(ledger) as conn:
        book = dice.randrange(4)
        for (table,) in await conn.fetch(
            "SELECT DISTINCT table_name::text FROM information_schema.columns JOIN information_schema.tables "
            "USING (table_schema, table_name) WHERE table_schema = 'ledger' AND column_name = 'book' "
            "AND table_type = 'BASE TABLE'"
        ):
            await conn.execute(f"DELETE FROM ledger.{table} WHERE book = $1", book)
        assert [(problem.book, problem.number) for problem in await problems_of(conn)] == [(book, 0)]
        assert [(finding.book, finding.number) for finding in await check_seals(conn, [seal], [])] == [(book, 1)]


async def test_points_forged_at_the_end_are_missing_in_the_caches(ledger: str, dice: random.Random) -> None:
    async with tampering(ledger) as conn:
        forger = member(f"forger {dice.random()}")
        command = adjust("forged", forger, 1_000_000, books=4)
        await append_without_caches(conn, command, LATER + timedelta(days=1))
        problems = await problems_of(conn)
        assert [problem.book for problem in problems] == [command.book]
        assert f"cache balance {forger}/1 is missing" in problems[0].what


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        pytest.param(
            lambda event: event.settlement.balance.MergeFrom(type(event.settlement.balance)(debt_points_minor=1)),
            "tells a balance",
            id="another balance",
        ),
        pytest.param(
            lambda event: setattr(event.adjustment, "points_minor", 5), "adjusts by 5", id="another adjustment"
        ),
        pytest.param(
            lambda event: setattr(event.adjustment, "member_id", str(uuid.UUID(int=1))), "its member", id="member"
        ),
        pytest.param(
            lambda event: setattr(event.postings[0], "points_minor", 7), "postings differ", id="another posting"
        ),
        pytest.param(
            lambda event: setattr(event.settlement, "spent_points_minor", 7), "its settlement says", id="settlement"
        ),
        pytest.param(
            lambda event: event.hold_ends.add(hold_number=1, released_points_minor=0), "hold", id="a hold ends twice"
        ),
    ],
)
async def test_an_entry_forged_at_the_end_that_contradicts_itself_is_named(ledger: str, lie: Any, words: str) -> None:
    """The chain and the head are right; what the entry says is not."""
    async with tampering(ledger) as conn:
        command = adjust("forged", member("forger"), 1_000_000, books=4)
        decision = await append_without_caches(conn, command, LATER + timedelta(days=1))
        entry = decision.entries[-1]
        await forge_from(conn, command.book, entry.number, {"payload": with_event(entry.payload, lie)})
        problems = await problems_of(conn)
        assert [(problem.book, problem.number) for problem in problems] == [(command.book, entry.number)]
        assert words in problems[0].what


async def test_of_two_bad_entries_the_first_is_named(ledger: str, dice: random.Random) -> None:
    async with tampering(ledger) as conn:
        book, number = await _random_place(conn, dice)
        last = (await last_numbers(conn))[book]
        await conn.execute(
            "UPDATE ledger.entry SET event_at = event_at + interval '1 s' WHERE book = $1 AND number = ANY ($2)",
            *(book, [number, last]),
        )
        await conn.execute("UPDATE ledger.balance SET available_minor = available_minor + 1")
        assert (book, number) in [(problem.book, problem.number) for problem in await problems_of(conn)]


# --- what only all books together, or a purchase and its returns, can show -----------------------------------------


def close_mark(book: int, close_number: int, programme: str = "forged", digest: bytes = b"") -> Close:
    """Return a close for one book alone."""
    body = journal_pb2.Close(
        close_number=close_number,
        programme_code=programme,
        last_day="2026-03-31",
        period=journal_pb2.CLOSE_PERIOD_MONTH,
        closed_by="Olena",
        totals_digest=digest,
    )
    event = journal_pb2.Event(close=body).SerializeToString()
    return Close(book=book, content_hash=content_hash(None, event), event_at=LATER, member_id=None, event=event)


async def append(conn: asyncpg.Connection[Any], *commands: Command) -> list[tuple[int, int]]:
    """Append commands as the ledger itself does; return where they stand."""
    places = []
    for command in commands:
        decision = await append_locked(conn, command.book, [command], LATER)
        places += [(command.book, entry.number) for entry in decision.entries]
    return places


def named(problems: list[Problem]) -> list[tuple[int, int]]:
    """Return the places that problems name."""
    return [(problem.book, problem.number) for problem in problems]


async def test_a_transfer_with_one_side_only_is_found(ledger: str) -> None:
    async with tampering(ledger) as conn:
        giver, taker = member("giver"), member("taker")
        (_, side) = await append(
            conn, adjust("seed", giver, 100, books=4), transfer_out("lonely", giver, taker, 60, books=4)
        )
        problems = [report.problem for report in await verify(conn) if report.problem]
        assert side in named(problems)
        assert "no other side" in str(problems)


@pytest.mark.parametrize(
    ("arrives", "taker"),
    [
        pytest.param(60, "taker", id="as it left"),
        pytest.param(59, "taker", id="fewer points"),
        pytest.param(60, "thief", id="another member"),
    ],
)
async def test_both_sides_of_a_transfer_must_fit(ledger: str, arrives: int, taker: str) -> None:
    async with tampering(ledger) as conn:
        giver, grants = member("giver"), [Grant(arrives, None, None)]
        (_, out, into) = await append(
            conn,
            adjust("seed", giver, 100, books=4),
            transfer_out("fitting", giver, member("taker"), 60, books=4),
            transfer_in("fitting", giver, member(taker), grants, books=4),
        )
        fits = (arrives, taker) == (60, "taker")
        problems = [report.problem for report in await verify(conn) if report.problem]
        assert set(named(problems)) <= (set() if fits else {out, into})
        assert bool(problems) is not fits


@pytest.mark.parametrize(
    ("closes", "bad"),
    [
        pytest.param([close_mark(book, 1) for book in range(4)], None, id="in every book"),
        pytest.param([close_mark(book, 1) for book in (0, 1, 3)], 2, id="not in one book"),
        pytest.param([close_mark(book, 1 + (book == 2)) for book in range(4)], 2, id="another number in one book"),
        pytest.param([close_mark(book, 2) for book in range(4)], 0, id="a number left out"),
        pytest.param([close_mark(3, 1, digest=bytes(32))], 3, id="totals of no close"),
        pytest.param(
            [*(close_mark(book, 1) for book in range(4)), *([close_mark(0, 1, digest=bytes(32))] * 2)],
            0,
            id="totals frozen twice",
        ),
    ],
)
async def test_closes_stand_in_every_book_and_count_on(ledger: str, closes: list[Close], bad: int | None) -> None:
    async with tampering(ledger) as conn:
        await append(conn, *closes)
        books = {report.book for report in await verify(conn) if report.problem}
        assert bad in books if bad is not None else not books


def more_goods(body: journal_pb2.GoodsReturn) -> None:
    body.lines[0].quantity_milli += 1000
    body.so_far.lines[0].quantity_milli += 1000


def other_sum(body: journal_pb2.GoodsReturn) -> None:
    body.so_far.lines[0].quantity_milli += 1000


def more_money(body: journal_pb2.GoodsReturn) -> None:
    body.lines[0].list_amount_minor += 10_000
    body.refund_money_minor += 10_000


def other_money(body: journal_pb2.GoodsReturn) -> None:
    body.refund_money_minor += 1


def other_purchase(body: journal_pb2.GoodsReturn) -> None:
    body.purchase_number = 1


def not_complete(body: journal_pb2.GoodsReturn) -> None:
    body.so_far.complete = not body.so_far.complete


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        pytest.param(more_goods, "came back in all", id="more goods than were bought"),
        pytest.param(other_sum, "not those of all returns", id="another sum of goods"),
        pytest.param(more_money, "of money came back in all", id="more money than was paid"),
        pytest.param(other_money, "and its lines", id="other money than its lines"),
        pytest.param(other_purchase, "which is", id="another purchase"),
        pytest.param(not_complete, "wrongly", id="not all that is left"),
    ],
)
async def test_a_return_must_fit_its_purchase(ledger: str, lie: Any, words: str) -> None:
    """The last return of Cyril's only receipt, forged with a right chain."""
    async with tampering(ledger) as conn:
        returns = await rows_of(conn, "entry", "kind = 5 AND member_id IS NOT NULL")
        events = [(row, journal_pb2.Event.FromString(row["payload"])) for row in returns]
        (row,) = [row for row, event in events if event.goods_return.so_far.complete and not event.coupon_changes]
        payload = with_event(row["payload"], lambda event: lie(event.goods_return))
        await conn.execute("DELETE FROM ledger.verified")
        await forge_from(conn, row["book"], row["number"], {"payload": payload})
        problems = [report.problem for report in await verify(conn) if report.problem]
        assert named(problems) == [(row["book"], row["number"])]
        assert words in problems[0].what
