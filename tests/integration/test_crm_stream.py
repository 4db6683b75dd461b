"""The CRM stream applies every entry once and in order, and stops a book that does not hold together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2

from ledger.booking.opening import ensure_unit
from ledger.entry.books import book_of_member
from ledger.entry.model import Head
from server.base import clock
from server.base.storage import LEDGER_MIGRATIONS
from server.crm import source, store, streamer
from server.crm.store import Cursor
from server.crm.streamer import BUSY_ENTRIES, GATHER_SECONDS, IDLE_SECONDS, lag_of, pause_seconds
from server.crm.tables import TABLES
from tests.support.books import (
    START,
    BooksUnderTest,
    open_test_books,
    purchase_command,
    purchase_event,
)
from tests.support.crm import (
    caught_up,
    comparison,
    cursors_of,
    eventually,
    refused,
    streaming,
)
from tests.support.database import DatabaseFactory

if TYPE_CHECKING:
    from server.base.database import Connection

TABLE_NAMES = ("member", *(table.name for table in TABLES))


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    """An open ledger with eight members and no receipts."""
    async with open_test_books(ledger_dsn) as opened:
        await opened.register(8)
        yield opened


async def run_sql(dsn: str, sql: str, *values: object) -> list[asyncpg.Record]:
    """Run one statement as a superuser whom no trigger stops."""
    conn = await asyncpg.connect(dsn, server_settings={"session_replication_role": "replica"})
    try:
        return await conn.fetch(sql, *values)
    finally:
        await conn.close()


async def follow(books: BooksUnderTest, crm_dsn: str) -> None:
    """Let a stream apply everything, then end it."""
    async with streaming(books.dsn, crm_dsn):
        await caught_up(books.dsn, crm_dsn)


async def counts(crm_dsn: str) -> dict[str, int]:
    """Count the rows of every table."""
    return {t: (await run_sql(crm_dsn, f"SELECT count(*) FROM crm.{t}"))[0][0] for t in TABLE_NAMES}


async def test_a_purchase_becomes_a_receipt_its_lines_and_movements(books: BooksUnderTest, crm_dsn: str) -> None:
    buyer = books.members[0]
    earning = purchase_command(books.count, books.unit, purchase_event(buyer, 1, points_minor=500))
    event = purchase_event(buyer, 2, lines=2)
    event.purchase.variances.add(line_number=1, rules_discount_minor=90, given_discount_minor=100)
    event.purchase.coupon_codes.append("SPRING")
    spending = purchase_command(books.count, books.unit, event, spend_points_minor=30)
    first, second = await books.append([earning]) + await books.append([spending])
    await follow(books, crm_dsn)
    (receipt,) = await run_sql(crm_dsn, "SELECT * FROM crm.receipt WHERE number = $1", second.number)
    assert dict(receipt) == {
        "book": book_of_member(buyer, books.count),
        "number": second.number,
        "store_id": "S1",
        "terminal_id": "T1",
        "business_date": date(2026, 3, 1),
        "receipt_number": 2,
        "booked_at": second.booked_at,
        "event_at": START + timedelta(seconds=2),
        "time_zone": "Europe/Kyiv",
        "member_id": buyer,
        "identified_by": "card",
        "programme_code": "bonus-card",
        "programme_version": 1,
        "currency_code": "UAH",
        "line_count": 2,
        "gross_amount_minor": 2000,
        "discount_minor": 200,
        "points_money_minor": 30,
        "net_amount_minor": 1770,
        "points_unit": "bonus",
        "points_precision": 2,
        "points_earned_minor": 100,
        "points_spent_minor": 30,
        "points_left_out_minor": 0,
        "balance_after_minor": 570,
        "has_variance": True,
        "coupon_codes": ["SPRING"],
        "partner": None,
    }
    sql = "SELECT * FROM crm.receipt_line WHERE number = $1 ORDER BY line_number"
    lines = await run_sql(crm_dsn, sql, second.number)
    assert [tuple(line)[2:-1] for line in lines] == [
        (1, "sku-1", "grocery/dairy", "Cow", ["fresh"], 1000, False, 1000, 100, 15, 100),
        (2, "sku-2", "grocery/dairy", "Cow", ["fresh"], 2000, False, 1000, 100, 15, 0),
    ]
    parts = await run_sql(
        crm_dsn,
        "SELECT line_number, promotion_id, discount_minor, base_minor, points_minor FROM crm.line_promotion "
        "WHERE number = $1 ORDER BY line_number, ordinal",
        second.number,
    )
    assert [tuple(part) for part in parts] == [
        (1, "spring", 100, 0, 0),
        (1, "base", 0, 900, 100),
        (2, "spring", 100, 0, 0),
    ]
    movements = await run_sql(
        crm_dsn,
        "SELECT number, ordinal, member_id, debit, credit, points_minor, lot_number, lot_ordinal "
        "FROM crm.points_movement ORDER BY number, ordinal",
    )
    assert [tuple(movement) for movement in movements] == [
        (first.number, 1, buyer, "issued", "available", 500, first.number, 1),
        (second.number, 1, buyer, "available", "redeemed", 30, first.number, 1),
        (second.number, 2, buyer, "issued", "available", 100, second.number, 2),
    ]


async def test_a_receipt_without_a_member_earns_nothing(books: BooksUnderTest, crm_dsn: str) -> None:
    """What the rules would have granted to somebody is not counted as earned."""
    await books.append([purchase_command(books.count, books.unit, purchase_event(None, 1))])
    await follow(books, crm_dsn)
    (receipt,) = await run_sql(crm_dsn, "SELECT member_id, identified_by, points_earned_minor FROM crm.receipt")
    assert tuple(receipt) == (None, None, 0)
    (line,) = await run_sql(crm_dsn, "SELECT sum(points_earned_minor) FROM crm.receipt_line")
    assert line[0] == 0


async def test_text_that_postgresql_cannot_store_stops_nothing(books: BooksUnderTest, crm_dsn: str) -> None:
    """A NUL character in a register's text becomes a replacement character, in lines and promotions alike."""
    event = purchase_event(None, 1, lines=1)
    event.purchase.receipt.lines[0].sku = "a\0b"
    event.purchase.receipt.lines[0].tags[0] = "\0"
    event.purchase.effects[0].discounts[0].promotion_id = "spring\0"
    await books.append([purchase_command(books.count, books.unit, event)])
    await follow(books, crm_dsn)
    (line,) = await run_sql(crm_dsn, "SELECT sku, tags, promotions -> 0 ->> 0 FROM crm.receipt_line")
    assert tuple(line) == ("a\ufffdb", ["\ufffd"], "spring\ufffd")
    assert (await comparison(books.dsn, crm_dsn)).equal


async def test_receipts_of_a_thousand_lines_come_in_smaller_batches(
    books: BooksUnderTest, crm_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has a limit in bytes as well; a single entry beyond it is applied alone."""
    monkeypatch.setattr(streamer, "BATCH_BYTES", 20_000)
    sizes: list[int] = []
    apply = store.apply

    async def noted(conn: Connection, before: Cursor, after: Cursor, *rest: Any) -> bool:
        sizes.append(after.number - before.number)
        return await apply(conn, before, after, *rest)

    monkeypatch.setattr(store, "apply", noted)
    await books.buy(6, lines=1000)
    await books.buy(30, lines=20)
    await follow(books, crm_dsn)
    assert max(sizes) < 15
    assert (await counts(crm_dsn))["receipt_line"] == 6600
    assert (await comparison(books.dsn, crm_dsn)).equal


async def test_running_again_adds_nothing(books: BooksUnderTest, crm_dsn: str) -> None:
    """A second run finds everything applied."""
    await books.buy(60)
    await follow(books, crm_dsn)
    before = await counts(crm_dsn)
    await follow(books, crm_dsn)
    assert await counts(crm_dsn) == before
    assert before["receipt"] == 60
    assert before["receipt_line"] == 180
    assert before["member"] == 8


async def test_two_streams_at_once_apply_everything_once(
    books: BooksUnderTest,
    crm_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streams that race for every batch do not double or lose any."""
    monkeypatch.setattr(streamer, "BATCH_ENTRIES", 5)
    async with streaming(books.dsn, crm_dsn), streaming(books.dsn, crm_dsn), streaming(books.dsn, crm_dsn):
        for _ in range(10):
            await books.buy(40)
        await caught_up(books.dsn, crm_dsn)
    result = await comparison(books.dsn, crm_dsn)
    assert result.equal, result.differences
    assert result.receipts == 400


async def test_members_are_as_they_are_now(books: BooksUnderTest, crm_dsn: str) -> None:
    """A changed record replaces the old one; an erased one leaves nothing behind, whatever old entries say."""
    changed, erased = books.members[:2]
    await follow(books, crm_dsn)
    await books.change_member(changed, "name = 'Ольга', status = 2, card_statuses = ARRAY[2::smallint]")
    await books.change_member(changed, "phone = NULL")
    await books.change_member(
        erased, "name = '', birthday = NULL, phone = NULL, card_numbers = '{}', card_statuses = '{}'"
    )
    await follow(books, crm_dsn)
    (row,) = await run_sql(crm_dsn, "SELECT * FROM crm.member WHERE member_id = $1", changed)
    assert dict(row) == {
        "book": book_of_member(changed, books.count),
        "member_id": changed,
        "version": 3,
        "status": "earn_only",
        "name": "Ольга",
        "phone": None,
        "birthday": date(1990, 2, 28),
        "language": "uk",
        "card_numbers": ["2900000000000"],
        "card_statuses": ["replaced"],
        "registered_at": START,
    }
    # A fresh CRM database, filled from the first entry on, never sees what was erased.
    await run_sql(crm_dsn, f"TRUNCATE crm.cursor, {', '.join(f'crm.{name}' for name in TABLE_NAMES)}")
    await follow(books, crm_dsn)
    (row,) = await run_sql(
        crm_dsn, "SELECT name, phone, birthday, card_numbers FROM crm.member WHERE member_id = $1", erased
    )
    assert tuple(row) == ("", None, None, [])


async def test_a_member_whose_row_is_gone_is_forgotten(books: BooksUnderTest, crm_dsn: str) -> None:
    """When even the row was deleted, the next entry about the member removes it from the CRM database."""
    gone = books.members[0]
    await follow(books, crm_dsn)
    await books.change_member(gone, "name = 'x'")
    await run_sql(books.dsn, "DELETE FROM server.member WHERE member_id = $1", gone)
    await follow(books, crm_dsn)
    assert (await counts(crm_dsn))["member"] == 7


async def fullest_book(dsn: str) -> tuple[int, int]:
    """Return the book with the most entries, and how many."""
    (row,) = await run_sql(dsn, "SELECT book, number FROM ledger.book_head ORDER BY number DESC LIMIT 1")
    return row["book"], row["number"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(
            "DELETE FROM ledger.entry WHERE book = $1 AND number = $2", "is missing from the ledger", id="gap"
        ),
        pytest.param(
            "UPDATE ledger.entry SET payload = payload || '\\x00' WHERE book = $1 AND number = $2",
            "does not extend the chain",
            id="payload-changed",
        ),
        pytest.param(
            "UPDATE ledger.entry SET booked_at = booked_at + interval '1 us' WHERE book = $1 AND number = $2",
            "does not extend the chain",
            id="time-changed",
        ),
        pytest.param(
            "UPDATE ledger.entry SET hash = sha256('x') WHERE book = $1 AND number = $2",
            "does not extend the chain",
            id="hash-changed",
        ),
    ],
)
async def test_a_damaged_book_stops_before_the_damage_and_the_others_go_on(
    books: BooksUnderTest,
    crm_dsn: str,
    damage: str,
    words: str,
) -> None:
    """The first bad entry is named, what stands before it is applied, and no other book suffers."""
    await books.buy(80)
    book, last = await fullest_book(books.dsn)
    bad = last // 2
    await run_sql(books.dsn, "CREATE TABLE saved AS SELECT * FROM ledger.entry")
    await run_sql(books.dsn, damage, book, bad)
    async with streaming(books.dsn, crm_dsn):
        reasons = await refused(crm_dsn)
        await eventually(lambda: others_done(books.dsn, crm_dsn, book), "the other books are applied")
    assert list(reasons) == [book]
    assert f"entry {bad} of book {book}" in reasons[book]
    assert words in reasons[book]
    assert (await cursors_of(crm_dsn))[book].number == bad - 1
    result = await comparison(books.dsn, crm_dsn)
    assert {difference.book for difference in result.differences} == {book}
    # Once the book is whole again, it goes on where it stopped.
    await run_sql(books.dsn, "DELETE FROM ledger.entry")
    await run_sql(books.dsn, "INSERT INTO ledger.entry SELECT * FROM saved")
    await follow(books, crm_dsn)
    assert (await cursors_of(crm_dsn))[book].state == "following"
    assert (await comparison(books.dsn, crm_dsn)).equal


async def others_done(ledger_dsn: str, crm_dsn: str, book: int) -> bool:
    """Say whether all books but one are applied."""
    cursors = await cursors_of(crm_dsn)
    heads = await run_sql(ledger_dsn, "SELECT book, number FROM ledger.book_head")
    return all(cursors[head["book"]].number == head["number"] for head in heads if head["book"] != book)


async def test_a_ledger_that_was_rolled_back_is_refused(books: BooksUnderTest, crm_dsn: str) -> None:
    """Entries that were applied and are gone stop the book, even if others took their place later."""
    await books.buy(40)
    await follow(books, crm_dsn)
    book, last = await fullest_book(books.dsn)
    await run_sql(books.dsn, "DELETE FROM ledger.entry WHERE book = $1 AND number = $2", book, last)
    await run_sql(
        books.dsn,
        "UPDATE ledger.book_head h SET number = e.number, hash = e.hash FROM ledger.entry e "
        "WHERE h.book = $1 AND e.book = $1 AND e.number = $2",
        *(book, last - 1),
    )
    async with streaming(books.dsn, crm_dsn):
        assert "rolled back" in (await refused(crm_dsn))[book]
    assert (await cursors_of(crm_dsn))[book].number == last


async def test_an_entry_of_a_later_version_stops_its_book_and_is_named(books: BooksUnderTest, crm_dsn: str) -> None:
    """What this version cannot read is not skipped; what stands before it is applied."""
    member = books.members[0]
    commands = [purchase_command(books.count, books.unit, purchase_event(member, n)) for n in (901, 902, 903)]
    unknown = journal_pb2.Event.FromString(b"\xfa\x03\x00").SerializeToString()  # field 63, which nobody knows yet
    strange = purchase_command(books.count, books.unit, purchase_event(member, 904))
    booked = await books.append(commands)
    await books.append([replace(strange, event=unknown)])
    await books.buy(20)
    async with streaming(books.dsn, crm_dsn):
        reasons = await refused(crm_dsn)
        await eventually(lambda: others_done(books.dsn, crm_dsn, booked[0].book), "the other books are applied")
    assert f"entry {booked[-1].number + 1} of book {booked[0].book}" in reasons[booked[0].book]
    assert (await cursors_of(crm_dsn))[booked[0].book].number == booked[-1].number


async def test_a_foreign_ledger_is_refused_as_a_whole(
    books: BooksUnderTest,
    crm_dsn: str,
    databases: DatabaseFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing of another ledger is written, and the cursors stay as they were."""
    await books.buy(10)
    await follow(books, crm_dsn)
    before = await counts(crm_dsn), await cursors_of(crm_dsn)
    with databases.fresh(LEDGER_MIGRATIONS) as other_dsn:
        async with open_test_books(other_dsn) as other:
            await other.register(3)
            await other.buy(100)
            async with streaming(other_dsn, crm_dsn):

                async def reported() -> bool:
                    return "crm_foreign_ledger" in capsys.readouterr().out

                await eventually(reported, "the foreign ledger is reported")
    assert (await counts(crm_dsn), await cursors_of(crm_dsn)) == before


async def test_a_row_that_is_there_already_stops_the_book(books: BooksUnderTest, crm_dsn: str) -> None:
    """Somebody who writes into the CRM database is found out, and nothing is overwritten."""
    await books.buy(40)
    book, last = await fullest_book(books.dsn)
    await run_sql(
        crm_dsn,
        "INSERT INTO crm.points_movement (book, number, ordinal, booked_at, unit, debit, credit, points_minor, "
        "lot_number, lot_ordinal, kind) VALUES ($1, $2, 1, now(), 1, 'issued', 'available', 1, $2, 1, 'purchase')",
        *(book, last),
    )
    async with streaming(books.dsn, crm_dsn):
        reasons = await refused(crm_dsn)
    assert f"entry {last} of book {book}" in reasons[book]
    assert "points_movement_pkey" in reasons[book]
    assert (await cursors_of(crm_dsn))[book].number == last - 1


async def test_readers_read_and_do_not_write(crm_dsn: str) -> None:
    """People who query the CRM database cannot change it."""
    conn = await asyncpg.connect(crm_dsn, server_settings={"role": "tallypoint_reader"})
    for name in (*TABLE_NAMES, "cursor", "seal", "line_promotion", "hold_outcome", "line_after_returns"):
        await conn.fetch(f"SELECT * FROM crm.{name}")
    for name in (*TABLE_NAMES, "cursor", "seal"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(f"DELETE FROM crm.{name}")
    await conn.close()


def test_every_primary_key_starts_with_the_book(crm_dsn: str) -> None:
    """The CRM database can be distributed by book, like the ledger; only seals and point units speak of all books."""
    keys = asyncio.run(
        run_sql(
            crm_dsn,
            "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] "
            "WHERE i.indisprimary AND c.relnamespace = 'crm'::regnamespace AND c.relname NOT IN ('seal', 'point_unit')",
        ),
    )
    assert {row["relname"]: row["attname"] for row in keys} == dict.fromkeys((*TABLE_NAMES, "cursor"), "book")


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("position", "head", "oldest_age_seconds", "entries", "seconds"),
    [
        pytest.param(7, 7, None, 0, 0.0, id="all-applied"),
        pytest.param(5, 7, 90, 2, 90.0, id="two-wait"),
        pytest.param(0, 3, 0.5, 3, 0.5, id="nothing-applied"),
        pytest.param(8, 7, None, 0, 0.0, id="head-read-earlier"),
        pytest.param(5, 7, -3, 2, 0.0, id="ledger-clock-ahead"),
    ],
)
def test_lag(position: int, head: int, oldest_age_seconds: float | None, entries: int, seconds: float) -> None:
    """Lag counts entries that wait, and the age of the oldest of them."""
    oldest = {} if oldest_age_seconds is None else {3: NOW - timedelta(seconds=oldest_age_seconds)}
    assert lag_of({3: position}, {3: Head(head, b"", NOW)}, oldest, NOW) == ({3: entries}, {3: seconds})


@pytest.mark.parametrize(
    ("applied", "spent_seconds", "seconds"),
    [
        pytest.param(0, 0.0, IDLE_SECONDS, id="nothing-came"),
        pytest.param(1, 0.05, IDLE_SECONDS - 0.05, id="a-lone-receipt"),
        pytest.param(BUSY_ENTRIES - 1, 0.0, IDLE_SECONDS, id="little-came"),
        pytest.param(BUSY_ENTRIES, 0.0, GATHER_SECONDS, id="much-came"),
        pytest.param(5000, 0.1, GATHER_SECONDS - 0.1, id="applying-took-a-part-of-the-time"),
        pytest.param(5000, GATHER_SECONDS + 1, 0.0, id="applying-took-longer"),
    ],
)
def test_a_busy_stream_gathers(applied: int, spent_seconds: float, seconds: float) -> None:
    """The time from one look to the next does not depend on how long a look takes, unless it takes longer."""
    assert pause_seconds(applied, spent_seconds) == pytest.approx(seconds)


async def test_entries_that_come_while_the_stream_gathers_are_one_batch(
    books: BooksUnderTest, crm_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the stream pauses it applies nothing; then it applies what came in one transaction for each book."""
    batches: list[int] = []
    apply, really_pause, paused, go_on = store.apply, clock.pause, asyncio.Event(), asyncio.Event()

    async def noted(conn: Connection, before: Cursor, after: Cursor, *rest: Any) -> bool:
        batches.append(after.number - before.number)
        return await apply(conn, before, after, *rest)

    async def pause(stop: asyncio.Event, seconds: float) -> None:
        if seconds == streamer.MEASURE_SECONDS:  # the lag is measured meanwhile
            await really_pause(stop, seconds)
        else:
            paused.set()
            await go_on.wait()

    monkeypatch.setattr(store, "apply", noted)
    monkeypatch.setattr(streamer, "pause", pause)
    stop = asyncio.Event()
    task = asyncio.create_task(streamer.run(books.dsn, crm_dsn, stop))
    await paused.wait()
    while len(batches) < books.count:
        await asyncio.sleep(0)
    batches.clear()
    for _ in range(8):
        await books.buy(10)
    assert batches == []
    go_on.set()
    await caught_up(books.dsn, crm_dsn)
    stop.set()
    await task
    assert sum(batches) == 80
    assert len(batches) == books.count


async def test_names_are_read_again_when_entries_have_new_ones(
    books: BooksUnderTest, crm_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point unit that is new while the stream runs is there with the first movement that names it."""
    reads = 0
    read_names = source.read_names

    async def counted(conn: Connection) -> source.Names:
        nonlocal reads
        reads += 1
        return await read_names(conn)

    monkeypatch.setattr(source, "read_names", counted)
    buyer = books.members[0]
    async with streaming(books.dsn, crm_dsn):
        for number in range(1, 6):
            await books.append([purchase_command(books.count, books.unit, purchase_event(buyer, number))])
            await caught_up(books.dsn, crm_dsn)
        assert reads <= streamer.LANES
        owner = await asyncpg.connect(books.dsn)
        gift = await ensure_unit(owner, "gift", 0)
        await owner.close()
        await books.append([purchase_command(books.count, gift, purchase_event(buyer, 6))])
        await caught_up(books.dsn, crm_dsn)
    found = await run_sql(
        crm_dsn, "SELECT code FROM crm.points_movement JOIN crm.point_unit USING (unit) ORDER BY number"
    )
    assert [row["code"] for row in found] == ["bonus"] * 5 + ["gift"]
    assert (await comparison(books.dsn, crm_dsn)).equal
