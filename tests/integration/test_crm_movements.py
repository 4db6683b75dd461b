"""Every kind of entry becomes the rows of the CRM database that people ask for, and whatever differs is found."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2

from ledger.verify import verify
from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from server.crm.compare import compare
from server.crm.reconcile import reconcile
from server.crm.source import connect_ledger
from server.crm.store import connect_crm
from server.crm.tables import TABLES
from tests.support.books import open_test_books
from tests.support.crm import caught_up, comparison, streaming
from tests.support.database import DatabaseFactory
from tests.support.server_process import run_command
from tests.support.story import MARCH, Story


class Told(NamedTuple):
    """A story, as the ledger has it and as the CRM database tells it."""

    ledger_dsn: str
    crm_dsn: str
    story: Story


@pytest.fixture(scope="module")
def told(databases: DatabaseFactory) -> Iterator[Told]:
    """A ledger in which everything happened, applied to a CRM database; tests leave both as they are."""

    async def build(ledger_dsn: str, crm_dsn: str) -> Story:
        async with open_test_books(ledger_dsn) as books:
            story = Story(books)
            await story.happen()
            async with streaming(ledger_dsn, crm_dsn):
                await caught_up(ledger_dsn, crm_dsn)
            return story

    with databases.fresh(LEDGER_MIGRATIONS) as ledger_dsn, databases.fresh(CRM_MIGRATIONS) as crm_dsn:
        yield Told(ledger_dsn, crm_dsn, asyncio.run(build(ledger_dsn, crm_dsn)))


async def rows(told: Told, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask the CRM database."""
    conn = await asyncpg.connect(told.crm_dsn)
    try:
        return [tuple(row) for row in await conn.fetch(sql, *values)]
    finally:
        await conn.close()


def events(told: Told, which: str, book: int | None = None) -> list[journal_pb2.Event]:
    """The story's events of one kind, of all books or of one."""
    found = [told.story.event(name) for name, entry in told.story.booked.items() if book in (None, entry.book)]
    return [event for event in found if event.WhichOneof("event") == which]


async def test_the_crm_database_equals_the_ledger_and_the_ledger_is_sound(told: Told) -> None:
    conn = await asyncpg.connect(told.ledger_dsn)
    assert [report.problem for report in await verify(conn)] == [None] * 4
    assert {row["kind"] for row in await conn.fetch("SELECT DISTINCT kind FROM ledger.entry")} == set(range(1, 11))
    entries = await conn.fetchval("SELECT sum(number) FROM ledger.book_head")
    await conn.close()
    result = await comparison(told.ledger_dsn, told.crm_dsn)
    assert result.equal, result.differences
    assert result.entries == entries
    assert {name: result.rows[name] for name in ("receipt", "goods_return", "hold", "adjustment", "close")} == {
        "receipt": len(events(told, "purchase")),
        "goods_return": len(events(told, "goods_return")),
        "hold": len(events(told, "hold")),
        "adjustment": 2,
        "close": 5,
    }
    assert all(result.rows.values()), "every table has rows"


async def test_holds_tell_where_they_were_and_how_they_ended(told: Told) -> None:
    anna, booked = told.story.anna, told.story.booked
    found = await rows(
        told,
        "SELECT number, member_id, terminal_id, checkout_id, points_minor, expires_at - booked_at, takeover_reason, "
        "how, ended_number, captured_minor, released_minor, end_reason FROM crm.hold_outcome "
        "WHERE member_id = $1 ORDER BY number",
        anna,
    )
    ttl = timedelta(seconds=600)
    number = {name: entry.number for name, entry in booked.items()}
    down, left = "lane 1 is down", "the shopper left"
    assert found == [
        (number["held"], anna, "1", "one", 100, ttl, None, "replaced", number["held more"], 0, 100, None),
        (number["held more"], anna, "1", "one", 150, ttl, None, "taken_over", number["taken over"], 0, 150, down),
        (number["taken over"], anna, "2", "two", 120, ttl, down, "captured", number["captured"], 80, 40, None),
        (number["held again"], anna, "1", "three", 60, ttl, None, "cancelled", number["cancelled"], 0, 60, left),
        (number["left open"], anna, "1", "four", 30, ttl, None, "expired", number["granted"], 0, 30, None),
    ]  # fmt: skip


async def test_a_hold_that_is_open_says_so(told: Told) -> None:
    """Its end comes with a later entry, so the newest hold of a member may have none."""
    crm = await asyncpg.connect(told.crm_dsn)
    transaction = crm.transaction()
    await transaction.start()
    await crm.execute("DELETE FROM crm.hold_end WHERE how = 'expired'")
    open_ones = await crm.fetch("SELECT checkout_id, released_minor FROM crm.hold_outcome WHERE how = 'open'")
    await transaction.rollback()
    await crm.close()
    assert ("four", None) in [tuple(row) for row in open_ones]


async def test_a_return_names_its_purchase_and_what_became_of_points(told: Told) -> None:
    story, day = told.story, date(2026, 3, 14)
    found = await rows(
        told,
        "SELECT number, member_id, business_date, receipt_number, purchase_number, purchase_receipt_number, "
        "gross_amount_minor, discount_minor, points_money_minor, refund_money_minor, points_given_back_minor, "
        "points_taken_back_minor, points_owed_minor, points_waived_minor, balance_after_minor, clawback, "
        "purchase_complete FROM crm.goods_return WHERE receipt_number < 10 ORDER BY receipt_number",
    )
    number = {name: entry.number for name, entry in story.booked.items()}
    anna, cyril = story.anna, story.cyril
    bought, captured, nobodys = number["bought"], number["captured"], number["bought by nobody"]
    assert found == [
        (number["returned"], anna, day, 3, captured, 2, 400, 0, 32, 368, 32, 20, 0, 0, 302, "debt", False),
        (number["returned by weight"], anna, day, 4, bought, 1, 250, 17, 0, 233, 0, 67, 0, 0, 235, "debt", False),
        (number["returned by nobody"], None, day, 6, nobodys, 5, 1000, 0, 0, 1000, 0, 0, 0, 0, None, "debt", False),
        (number["owed"], cyril, day, 9, number["earned"], 7, 1000, 0, 0, 1000, 0, 0, 100, 0, 0, "debt", True),
    ]


async def test_lines_after_returns(told: Told) -> None:
    """The lines of a return are those of the purchase, and what is left of it is a view away."""
    number = told.story.booked["bought"].number
    book = told.story.booked["bought"].book
    lines = await rows(
        told,
        "SELECT line_number, quantity_milli, list_amount_minor, discount_minor, refund_money_minor, "
        "points_given_back_minor, points_due_back_minor FROM crm.goods_return_line "
        "WHERE book = $1 AND purchase_number = $2",
        *(book, number),
    )
    assert lines == [(2, 500, 250, 17, 233, 0, 67)]
    left = await rows(
        told,
        "SELECT line_number, quantity_milli, list_amount_minor, discount_minor, points_earned_minor "
        "FROM crm.line_after_returns WHERE book = $1 AND number = $2 ORDER BY line_number",
        *(book, number),
    )
    assert left == [(1, 1000, 1000, 0, 300), (2, 1000, 500, 33, 133)]


async def test_corrections(told: Told) -> None:
    found = await rows(
        told,
        "SELECT points_minor, points_unit, balance_after_minor, reason_code, requested_by, approved_by, request_id "
        "FROM crm.adjustment ORDER BY number",
    )
    assert found == [
        (25, "bonus", 295, "goodwill", "Olena", None, "kind"),
        (-5, "bonus", 290, "goodwill", "Olena", None, "wrong"),
    ]


async def test_transfers_have_two_sides_with_one_id(told: Told) -> None:
    story = told.story
    found = await rows(
        told,
        "SELECT member_id, other_member_id, outgoing, reason_code, points_minor, debt_minor, balance_after_minor "
        "FROM crm.transfer ORDER BY reason_code, transfer_id, outgoing DESC",
    )
    anna, borys, cyril = story.anna, story.borys, story.cyril
    assert found == [
        (anna, borys, True, "family", 20, 0, 215),
        (borys, anna, False, "family", 20, 0, 20),
        (cyril, borys, True, "merge", 0, 100, 0),
        (borys, cyril, False, "merge", 0, 100, 0),
    ]
    ids = await rows(told, "SELECT transfer_id, count(*) FROM crm.transfer GROUP BY transfer_id")
    assert [count for _, count in ids] == [2, 2]


async def test_points_that_moved_keep_when_they_were_granted(told: Told) -> None:
    """And every movement names the kind of its entry, also those that time made on the way."""
    granted = told.story.booked["bought"].booked_at
    moved = await rows(
        told,
        "SELECT issued_at, expires_at FROM crm.points_movement WHERE debit = 'clearing' AND credit = 'available'",
    )
    assert moved == [(granted, MARCH + timedelta(days=30))]
    kinds = await rows(
        told,
        "SELECT kind, debit, credit, sum(points_minor)::bigint FROM crm.points_movement "
        "WHERE member_id = $1 AND kind IN ('adjustment', 'time', 'cancel') GROUP BY 1, 2, 3 ORDER BY 1, 2",
        told.story.anna,
    )
    assert kinds == [
        ("adjustment", "adjusted", "available", 25),
        ("adjustment", "available", "adjusted", 5),
        ("adjustment", "held", "available", 30),
        ("cancel", "held", "available", 60),
        ("time", "pending", "available", 200),
    ]


async def test_every_book_has_the_mark_of_a_close(told: Told) -> None:
    found = await rows(
        told,
        "SELECT book, close_number, programme_code, last_day, period, closed_by, totals_digest FROM crm.close "
        "ORDER BY book, number",
    )
    mark = (1, "bonus-card", date(2026, 3, 31), "month", "Olena")
    assert found == [(0, *mark, None), (0, *mark, bytes(32)), (1, *mark, None), (2, *mark, None), (3, *mark, None)]


async def test_points_of_further_units_and_partners(told: Told) -> None:
    """Receipts and returns tell what they did to each unit; movements name the partner who settles them."""
    found = await rows(
        told,
        "SELECT kind, points_unit, earned_minor, spent_minor, spent_money_minor, left_out_minor, given_back_minor, "
        "taken_back_minor, balance_after_minor, debt_after_minor FROM crm.unit_points ORDER BY book, number",
    )
    assert found == [
        ("purchase", "gift", 4, 0, 0, 0, 0, 0, 4, 0),
        ("purchase", "gift", 0, 3, 3, 0, 0, 0, 1, 0),
        ("return", "gift", 0, 0, 0, 0, 0, 1, 0, 1),
    ]
    settled = await rows(
        told,
        "SELECT m.kind, u.code, debit, credit, points_minor FROM crm.points_movement m "
        "JOIN crm.point_unit u USING (unit) JOIN crm.receipt r USING (book, number) "
        "WHERE r.partner = 'pharmacy' AND receipt_number = 31 AND 'partner:pharmacy' IN (debit, credit)",
    )
    assert settled == [("purchase", "bonus", "partner:pharmacy", "available", 10)]
    line = await rows(told, "SELECT points_earned_minor FROM crm.receipt_line WHERE promotions::jsonb @> $1", MORE)
    assert line[0][0] == 20 + 10, "points of the own unit only"
    parts = await rows(
        told,
        "SELECT p.points_minor, further_unit, p.partner FROM crm.line_promotion p "
        "JOIN crm.receipt USING (book, number) WHERE receipt_number = 31 ORDER BY ordinal",
    )
    assert parts == [(20, None, None), (10, None, "pharmacy"), (4, "gift", None)]
    spent = await rows(told, "SELECT points_money_minor, net_amount_minor FROM crm.receipt WHERE receipt_number = 32")
    assert spent == [(7 + 3, 990)]


MORE = '[[10, null, "pharmacy"], [4, "gift", null]]'


async def test_coupons_tell_what_became_of_them(told: Told) -> None:
    story = told.story
    soap = await rows(told, "SELECT action, slot, series, promotion_ids FROM crm.coupon_event WHERE code = 'SOAP'")
    assert soap == [("used", 0, "clean", ["soap-week"])]
    cake = await rows(
        told,
        "SELECT number, kind, action FROM crm.coupon_event WHERE code = 'CAKE' AND member_id = $1 ORDER BY number",
        story.dana,
    )
    number = {name: entry.number for name, entry in story.booked.items()}
    assert cake == [
        (number["bought with coupons"], "purchase", "used"),
        (number["returned with coupons"], "return", "released"),
        (number["kept"], "hold", "held"),
        (number["used"], "purchase", "used"),
    ]
    thanks = await rows(
        told,
        "SELECT action, slot, series, promotion_ids, valid_from, valid_until FROM crm.coupon_event "
        "WHERE code = 'THANKS-2' ORDER BY number",
    )
    assert thanks[0] == ("issued", None, "thanks", ["thanks"], MARCH.date(), None)
    assert [action for action, *_ in thanks] == ["issued", "revoked"]


async def test_levels_draws_and_control_groups(told: Told) -> None:
    dana = told.story.dana
    tiers = await rows(told, "SELECT member_id, tier_before, tier_after, good_until FROM crm.tier_change")
    assert tiers == [(dana, None, "gold", date(2027, 3, 31))]
    assert await rows(told, "SELECT member_id, promotion_id, reason FROM crm.withheld") == [(dana, "summer", "control")]
    draws = await rows(told, "SELECT member_id, draw, entries, promotion_id FROM crm.draw_entry ORDER BY entries DESC")
    assert draws == [(dana, "car", 2, "autumn"), (told.story.cyril, "car", -2, "")], "the second came back with goods"


CHANGED = {
    "bigint": "-7",
    "integer": "-7",
    "smallint": "6",
    "text": "'x'",
    "boolean": "NOT {column}",
    "timestamp with time zone": "'2001-01-01'",
    "date": "'2001-01-01'",
    "uuid": "'00000000-0000-0000-0000-000000000009'",
    "ARRAY": "ARRAY['x']",
    "bytea": "sha256('x')",
    "json": "'[7]'",
}
"""Another value for a column of a type."""
COLUMNS = [(table, column) for table in TABLES for column in table.columns[table.key_length :]]


async def test_a_change_of_any_column_of_any_table_is_found(told: Told) -> None:
    """Every column of every table is compared, each with a change of its own."""
    ledger, crm = await connect_ledger(told.ledger_dsn), await connect_crm(told.crm_dsn)
    missed = []
    for table, column in COLUMNS:
        row = await crm.fetchrow(
            f"SELECT ctid::text, book, {column} FROM crm.{table.name} ORDER BY {column}::text LIMIT 1"
        )
        assert row is not None
        kind = await crm.fetchval(
            "SELECT data_type FROM information_schema.columns "
            "WHERE table_schema = 'crm' AND table_name = $1 AND column_name = $2",
            *(table.name, column),
        )
        transaction = crm.transaction(isolation="repeatable_read")
        await transaction.start()
        await crm.execute(
            f"UPDATE crm.{table.name} SET {column} = {CHANGED[kind].format(column=column)} WHERE ctid = $1::text::tid",
            row["ctid"],
        )
        result = await compare(ledger, crm, patience_seconds=0)
        if [difference.field.partition(".")[2] for difference in result.differences] != [column]:
            missed.append((table.name, column, result.differences))
        await transaction.rollback()
    assert not missed
    await ledger.close()
    await crm.close()


async def test_a_row_that_is_missing_is_found_in_any_table(told: Told) -> None:
    ledger, crm = await connect_ledger(told.ledger_dsn), await connect_crm(told.crm_dsn)
    for table in TABLES:
        transaction = crm.transaction(isolation="repeatable_read")
        await transaction.start()
        await crm.execute(f"DELETE FROM crm.{table.name} WHERE ctid = (SELECT max(ctid) FROM crm.{table.name})")
        result = await compare(ledger, crm, patience_seconds=0)
        assert [difference.crm for difference in result.differences] == ["missing"]
        assert result.differences[0].field.startswith(table.name)
        await transaction.rollback()
    await ledger.close()
    await crm.close()


# --- reconciliation -----------------------------------------------------------------------------------------------


async def test_reconciliation_adds_up_both_sides(told: Told) -> None:
    ledger, crm = await connect_ledger(told.ledger_dsn), await connect_crm(told.crm_dsn)
    books = await reconcile(ledger, crm)
    await ledger.close()
    await crm.close()
    assert all(book.equal for book in books)
    assert [book.waiting for book in books] == [0, 0, 0, 0]
    (annas,) = [book for book in books if book.book == told.story.booked["bought"].book]
    figures = {line.what: line.ledger for line in annas.lines}
    counts = [len(events(told, which, annas.book)) for which in ("purchase", "goods_return", "hold", "adjustment")]
    assert [figures[name] for name in ("receipts", "returns", "holds", "adjustments")] == counts
    assert figures["bonus issued, debited"] == issued_in(told, annas.book)
    assert figures["bonus partner:pharmacy, debited"] != 0
    debited = sum(n for what, n in figures.items() if what.endswith(", debited") and isinstance(n, int))
    credited = sum(n for what, n in figures.items() if what.endswith(", credited") and isinstance(n, int))
    assert debited == credited


def issued_in(told: Told, book: int) -> int:
    """What the programme issued of its own points in a book, by the story's events."""
    postings = [posting for event in events(told, "purchase", book) for posting in event.postings]
    return sum(p.points_minor for p in postings if (p.unit, p.debit) == (1, journal_pb2.ACCOUNT_ISSUED))


HARM = {
    "a movement's points": ("UPDATE crm.points_movement SET points_minor = points_minor + 1 WHERE kind = 'time'", 2),
    "a movement's account": ("UPDATE crm.points_movement SET credit = 'expired' WHERE kind = 'time'", 2),
    "a movement lost": ("DELETE FROM crm.points_movement WHERE kind = 'time'", 3),
    "a return lost": ("DELETE FROM crm.goods_return WHERE receipt_number = 3", 1),
    "a hold's end lost": ("DELETE FROM crm.hold_end WHERE how = 'expired' AND released_minor = 30", 1),
    "a close lost": ("DELETE FROM crm.close WHERE book = 2", 1),
    "a cursor's hash": ("UPDATE crm.cursor SET hash = sha256('x') WHERE book = 2", 1),
    "a cursor's number": ("UPDATE crm.cursor SET number = number - 1 WHERE book = 2", 2),
    "a book stopped": ("UPDATE crm.cursor SET state = 'refused', reason = 'x' WHERE book = 2", 1),
    "a cursor lost": ("DELETE FROM crm.cursor WHERE book = 2", 3),
    "a partner's account": (
        "UPDATE crm.points_movement SET credit = 'redeemed' WHERE credit = 'partner:pharmacy' AND unit = 2",
        2,
    ),
}


@pytest.mark.parametrize("harm", HARM)
async def test_reconciliation_finds(told: Told, harm: str) -> None:
    damage, differing = HARM[harm]
    ledger, crm = await connect_ledger(told.ledger_dsn), await connect_crm(told.crm_dsn)
    transaction = crm.transaction(isolation="repeatable_read")
    await transaction.start()
    assert await crm.execute(damage) in ("UPDATE 1", "DELETE 1")
    books = await reconcile(ledger, crm)
    await transaction.rollback()
    await ledger.close()
    await crm.close()
    lines = [line for book in books for line in book.lines if not line.equal]
    assert len(lines) == differing, lines


async def test_reconciliation_counts_holds_that_the_ledger_has_forgotten(told: Told) -> None:
    ledger, crm = await asyncpg.connect(told.ledger_dsn), await connect_crm(told.crm_dsn)
    transaction = ledger.transaction(isolation="repeatable_read")
    await transaction.start()
    assert await ledger.execute("DELETE FROM ledger.hold WHERE how IS NOT NULL") != "DELETE 0"
    books = await reconcile(ledger, crm)
    await transaction.rollback()
    assert all(line.equal for book in books for line in book.lines)
    await ledger.close()
    await crm.close()


def reconcile_command(told: Told, *arguments: str) -> CompletedProcess[str]:
    """Run ``tallypoint crm reconcile`` as people do."""
    environment = {"TALLYPOINT_LEDGER_DSN": told.ledger_dsn, "TALLYPOINT_CRM_DSN": told.crm_dsn, "COLUMNS": "120"}
    return run_command("crm", "reconcile", *arguments, environment=environment)


async def test_reconcile_command(told: Told) -> None:
    """A table for each book, and an exit code that a script can ask."""
    fine = reconcile_command(told)
    assert fine.returncode == 0, fine.stderr
    assert "CRM and ledger agree in 4 books: counts, sums and chain heads." in fine.stdout
    assert f"{Decimal(issued_in(told, told.story.booked['bought'].book)).scaleb(-2):,}" in fine.stdout
    conn = await asyncpg.connect(told.crm_dsn)
    await conn.execute("UPDATE crm.points_movement SET points_minor = points_minor + 1 WHERE kind = 'time'")
    bad = reconcile_command(told, "--json")
    await conn.execute("UPDATE crm.points_movement SET points_minor = points_minor - 1 WHERE kind = 'time'")
    await conn.close()
    assert bad.returncode == 1
    books = json.loads(bad.stdout)["books"]
    assert [book["equal"] for book in books] == [True, False, True, True]


async def test_seals_are_added_and_never_changed(crm_dsn: str) -> None:
    conn = await asyncpg.connect(crm_dsn)
    await conn.execute("INSERT INTO crm.seal VALUES (1, $1, now(), 'heads', 'x', 'y')", uuid.UUID(int=1))
    for change in ("UPDATE crm.seal SET document = ''", "DELETE FROM crm.seal", "TRUNCATE crm.seal"):
        with pytest.raises(asyncpg.PostgresError, match=r"rows of crm\.seal are added and never changed"):
            await conn.execute(change)
    await conn.close()
