"""Finance's reports over real ledgers: they add up, in points and in money, and agree with what members have."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2
from typer.testing import CliRunner

from ledger.finance import summary
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.point_value import PointValue, read_point_values, record_point_value
from ledger.finance.proof import verify_summary
from ledger.finance.scope import Measure, QueryError
from ledger.finance.statement import member_statement
from ledger.finance.summary import SummaryError, bring_up_to_date, rebuild_summary
from ledger.finance.table import Table
from server.base.storage import LEDGER_MIGRATIONS
from server.commands.finance.app import app
from tests.support.commands import member
from tests.support.database import DatabaseFactory
from tests.support.history import History, cells, grant, open_history, random_history


@pytest.fixture
async def history(ledger_dsn: str) -> AsyncIterator[History]:
    """A fresh ledger."""
    async with open_history(ledger_dsn) as opened:
        yield opened


@pytest.fixture(scope="module")
def quarter_dsn(databases: DatabaseFactory) -> Iterator[str]:
    """One ledger after a quarter, for all tests that leave it as it is."""

    async def prepare(dsn: str) -> None:
        async with open_history(dsn) as opened:
            await a_quarter(opened)

    with databases.fresh(LEDGER_MIGRATIONS) as dsn, ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, prepare(dsn)).result()
        yield dsn


@pytest.fixture
async def quarter(quarter_dsn: str) -> AsyncIterator[History]:
    """That ledger, to be read."""
    async with open_history(quarter_dsn) as opened:
        yield opened


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def record(
    history: History,
    month: int,
    money_minor: int,
    points_minor: int,
    breakage_ppm: int,
    conn: asyncpg.Connection[asyncpg.Record] | None = None,
    day: int = 1,
) -> PointValue:
    """Record what points are worth from a month of 2026 on."""
    return await record_point_value(
        conn or history.conn,
        history.unit.number,
        from_month=date(2026, month, day),
        value_money_minor=money_minor,
        value_points_minor=points_minor,
        breakage_ppm=breakage_ppm,
        recorded_at=history.clock(),
        recorded_by="olena",
    )


async def a_quarter(history: History) -> None:
    """Three months in which everything happens once. All points are in hundredths."""
    bought = await history.buy("olena", [100_00], store="S1")
    await history.buy("ivan", [grant(50_00, expires=utc("2026-02-10"))], store="S2")
    history.at("2026-02-03")
    await history.buy("olena", [10_00], spend=40_00, store="S2")
    history.at("2026-02-12")
    await history.sweep("ivan")  # 50.00 have lapsed
    await history.adjust("ivan", 5_00)
    history.at("2026-03-04")
    await history.bring_back(bought, 1000, store="S1")  # takes 50.00 of 100.00 back
    await history.transfer("olena", "ivan", 15_00)
    await history.hold("olena", 2_00)
    await history.buy(None)
    await history.summarise()


# --- trial balance ------------------------------------------------------------------------------------------------


async def test_trial_balance_has_every_account_and_sums_to_zero(quarter: History) -> None:
    rows = cells(await trial_balance(quarter.conn, quarter.query()))
    figures = {name: tuple(row.values())[1:] for name, row in rows.items()}
    assert figures == {
        "available": (40_00 + 50_00 + 50_00 + 15_00, 100_00 + 50_00 + 10_00 + 5_00 + 15_00, 25_00),
        "pending": (0, 0, 0),
        "debt": (0, 0, 0),
        "issued": (160_00, 50_00, -110_00),
        "redeemed": (0, 40_00, 40_00),
        "expired": (0, 50_00, 50_00),
        "adjusted": (5_00, 0, -5_00),
        "clearing": (15_00, 15_00, 0),
        "total": (335_00, 335_00, 0),
    }
    assert await quarter.balances() == 25_00


async def test_trial_balance_up_to_a_day_counts_nothing_later(quarter: History) -> None:
    rows = cells(await trial_balance(quarter.conn, quarter.query(to_day=date(2026, 1, 31))))
    assert [rows[name]["balance_points"] for name in ("available", "issued", "expired")] == [150_00, -150_00, 0]


# --- roll-forward -------------------------------------------------------------------------------------------------


async def roll(history: History, **fields: object) -> list[tuple[object, ...]]:
    return list((await roll_forward(history.conn, history.query(**fields))).rows)


async def test_roll_forward_by_month_follows_the_points(quarter: History) -> None:
    assert await roll(quarter, by="month") == [
        (date(2026, 1, 1), 0, 150_00, 0, 0, 0, 0, 150_00),
        (date(2026, 2, 1), 150_00, 10_00, 40_00, 50_00, 5_00, 0, 75_00),
        (date(2026, 3, 1), 75_00, -50_00, 0, 0, 0, 0, 25_00),
    ]


async def test_roll_forward_by_day_from_a_day_opens_with_what_was_before(quarter: History) -> None:
    assert await roll(quarter, by="day", from_day=date(2026, 2, 4)) == [
        (date(2026, 2, 12), 120_00, 0, 0, 50_00, 5_00, 0, 75_00),
        (date(2026, 3, 4), 75_00, -50_00, 0, 0, 0, 0, 25_00),
    ]


async def test_roll_forward_by_store_counts_movements_where_they_were_made(quarter: History) -> None:
    assert await roll(quarter, by="store", from_day=date(2026, 2, 1), to_day=date(2026, 3, 31)) == [
        ("", 0, 0, 0, 50_00, 5_00, 0, -45_00),
        ("S1", 100_00, -50_00, 0, 0, 0, 0, 50_00),
        ("S2", 50_00, 10_00, 40_00, 0, 0, 0, 20_00),
    ]
    assert await roll(quarter, by="store", store_id="S2") == [("S2", 0, 60_00, 40_00, 0, 0, 0, 20_00)]


async def test_roll_forward_in_money_values_points_by_their_issue_month(history: History) -> None:
    await a_quarter(history)
    await record(history, 1, 10, 100, 100_000)
    await record(history, 2, 20, 100, 0)
    # January: 0.09 a point; February: 0.20 a point; what is spent and moved are January's points.
    assert await roll(history, by="month", measure="money") == [
        (date(2026, 1, 1), 0, 13_50, 0, 0, 0, 0, 13_50),
        (date(2026, 2, 1), 13_50, 2_00, 3_60, 4_50, 1_00, 0, 8_40),
        (date(2026, 3, 1), 8_40, -4_50, 0, 0, 0, 0, 3_90),
    ]
    # What is left: January 10.00 - 0.90 = 10 points, February 15 points.
    assert 10 * 9 + 15 * 20 == 3_90


async def test_without_a_recorded_value_points_are_worth_what_they_pay(history: History) -> None:
    await history.buy("olena", [33_33])
    await history.summarise()
    assert await roll(history, by="total", measure="money") == [("total", 0, 3_33, 0, 0, 0, 0, 3_33)]


async def test_pending_and_held_points_are_owed_and_debt_is_not(history: History) -> None:
    bought = await history.buy("olena", [20_00])
    await history.buy("olena", [grant(7_00, active=utc("2026-06-01"))], spend=20_00)
    await history.bring_back(bought)  # the 20.00 that it earned are spent: a debt
    await history.buy("ivan", [9_00])
    await history.hold("ivan", 9_00)
    await history.summarise()
    rows = cells(await trial_balance(history.conn, history.query()))
    balances = [rows[name]["balance_points"] for name in ("available", "pending", "debt")]
    assert balances == [9_00, 7_00, -20_00]
    assert await roll(history, by="total") == [("total", 0, 16_00, 20_00, 0, 0, 0, -4_00)]
    await history.buy("olena", [30_00])  # pays the debt first
    await history.summarise()
    assert (await roll(history, by="total"))[0][-1] == 26_00 == await history.balances()


async def test_a_hold_after_midnight_is_captured_for_the_business_date_before(history: History) -> None:
    """West of Greenwich a store's evening is the next day in UTC."""
    history.at("2026-03-01")
    await history.buy("olena", [20_00])
    history.at("2026-03-03", hour=1)
    checkout = await history.hold("olena", 8_00)
    await history.buy("olena", [], spend=8_00, day="2026-03-02", captures=checkout)
    await history.summarise()
    rows = cells(await trial_balance(history.conn, history.query(to_day=date(2026, 3, 2))))
    assert {name: row["balance_points"] for name, row in rows.items() if row["balance_points"]} == {
        "available": 12_00,
        "issued": -20_00,
        "redeemed": 8_00,
    }


async def test_moved_points_keep_their_issue_month(history: History) -> None:
    await history.buy("olena", [10_00])
    history.at("2026-03-01")
    await history.transfer("olena", "ivan")
    history.at("2026-05-01")
    await history.buy("ivan", [], spend=4_00)
    await history.summarise()
    months = await history.conn.fetch("SELECT DISTINCT issue_month FROM ledger.finance_total")
    assert [row[0] for row in months] == [date(2026, 1, 1)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_any_history_adds_up_in_points_and_money(history: History, seed: int) -> None:
    await random_history(history, random.Random(seed), 70)
    await history.summarise()
    for terms in [(1, 7, 30, 123_456), (3, 11, 70, 0), (2, 1, 3, 999_999)]:
        await record(history, *terms)
    assert await verify_summary(history.conn) == []
    assert cells(await trial_balance(history.conn, history.query()))["total"]["balance_points"] == 0
    measures: tuple[Measure, ...] = ("points", "money")
    for measure in measures:
        whole = await roll(history, by="total", measure=measure, from_day=date(2026, 2, 10))
        for by in ("day", "month"):
            table = await roll_forward(history.conn, history.query(by=by, measure=measure, from_day=date(2026, 2, 10)))
            assert_rolls(table)
            assert [table.rows[0][1], table.rows[-1][-1]] == [whole[0][1], whole[0][-1]]
        stores = await roll(history, by="store", measure=measure, from_day=date(2026, 2, 10))
        assert [sum(column) for column in list(zip(*stores, strict=True))[1:]] == [*whole[0][1:]]
    assert (await roll(history, by="total"))[0][-1] == await history.balances()


def assert_rolls(table: Table) -> None:
    """Assert that each row leads from its opening to its closing, and to the next row."""
    figures: list[list[int]] = [list(row[1:]) for row in table.rows]  # type: ignore[arg-type]  # figures are ints
    for opening, issued, redeemed, expired, adjusted, transferred, closing in figures:
        assert opening + issued - redeemed - expired + adjusted + transferred == closing
    assert all(earlier[-1] == later[0] for earlier, later in itertools.pairwise(figures))


# --- statement ----------------------------------------------------------------------------------------------------


async def test_statement_leads_from_opening_to_closing(history: History) -> None:
    await a_quarter(history)
    whole = await member_statement(history.conn, history.query(), member("olena"))
    names = [column.name for column in whole.columns]
    rows = [dict(zip(names, row, strict=True)) for row in whole.rows]
    shown = [(r["event"], r["receipt"], r["promotions"], r["change_points"], r["balance_points"]) for r in rows]
    assert shown == [
        ("opening balance", None, None, None, 0),
        ("purchase", "S1/1/2026-01-05/1", "base", 100_00, 100_00),
        ("purchase", "S2/1/2026-02-03/3", "", -40_00, 60_00),
        ("purchase", "S2/1/2026-02-03/3", "base", 10_00, 70_00),
        ("return", "S1/1/2026-03-04/4", "", -50_00, 20_00),
        ("transfer", "", "", -10_00, 10_00),
        ("transfer", "", "", -5_00, 5_00),
        ("hold", "", "", 0, 5_00),
        ("closing balance", None, None, None, 5_00),
    ]
    first = rows[1]["lot"]
    assert [r["lot"] for r in rows[1:-1]].count(first) == 4, "spent, taken back and moved from the lot of the purchase"
    assert rows[4]["detail"] == "of S1/1/2026-01-05/1"
    part = await member_statement(
        history.conn, history.query(from_day=date(2026, 2, 1), to_day=date(2026, 2, 28)), member("olena")
    )
    assert [row[-1] for row in part.rows] == [100_00, 60_00, 70_00, 70_00]
    assert part.rows[-1][1] == date(2026, 2, 28)


async def test_statement_of_somebody_without_entries_is_empty(history: History) -> None:
    table = await member_statement(history.conn, history.query(), member("nobody"))
    assert [row[-1] for row in table.rows] == [0, 0]


# --- the summaries ------------------------------------------------------------------------------------------------


async def test_summaries_are_the_same_in_any_steps(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "CHUNK_ENTRIES", 3)
    chance = random.Random(5)
    for _ in range(4):
        await random_history(history, chance, 12)
        await history.summarise()
    assert await history.summarise() == 0
    assert await verify_summary(history.conn) == []
    stepwise = await contents(history)
    monkeypatch.undo()
    owner = await asyncpg.connect(history.dsn)
    assert await rebuild_summary(owner) == sum([row["number"] for row in await owner.fetch("TABLE ledger.book_head")])
    await owner.close()
    assert await contents(history) == stepwise


async def contents(history: History) -> list[list[asyncpg.Record]]:
    return [
        await history.conn.fetch(f"SELECT * FROM ledger.{table} t ORDER BY t")
        for table in ("finance_total", "receipt_register", "finance_cursor")
    ]


async def test_two_may_sum_at_once(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "CHUNK_ENTRIES", 2)
    await random_history(history, random.Random(6), 40)
    others = [await asyncpg.connect(history.dsn, server_settings={"role": "tallypoint_writer"}) for _ in range(3)]
    counts = await asyncio.gather(*(bring_up_to_date(conn) for conn in others))
    for conn in others:
        await conn.close()
    heads = await history.conn.fetch("TABLE ledger.book_head")
    assert sum(counts) == sum(row["number"] for row in heads)
    assert await verify_summary(history.conn) == []


async def test_register_has_purchases_and_returns(history: History) -> None:
    await a_quarter(history)
    rows = await history.conn.fetch(
        "SELECT kind, store_id, business_date, lines, list_amount_minor, discount_minor, points_money_minor, "
        "net_amount_minor, points_earned_minor, points_spent_minor FROM ledger.receipt_register ORDER BY receipt_number"
    )
    purchase, returned = int(journal_pb2.ENTRY_KIND_PURCHASE), int(journal_pb2.ENTRY_KIND_RETURN)
    assert [tuple(row) for row in rows] == [
        (purchase, "S1", date(2026, 1, 5), 1, 100_00, 5_00, 0, 95_00, 100_00, 0),
        (purchase, "S2", date(2026, 1, 5), 1, 100_00, 5_00, 0, 95_00, 50_00, 0),
        (purchase, "S2", date(2026, 2, 3), 1, 100_00, 5_00, 4_00, 91_00, 10_00, 40_00),
        (returned, "S1", date(2026, 3, 4), 1, 50_00, 2_50, 0, 47_50, 50_00, 0),
        (purchase, "S1", date(2026, 3, 4), 1, 100_00, 5_00, 0, 95_00, 0, 0),
    ]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        pytest.param(
            "UPDATE ledger.finance_total SET points_minor = points_minor + 1 WHERE kind = 7",
            "and the postings say",
            id="a sum",
        ),
        pytest.param(
            "DELETE FROM ledger.finance_total WHERE kind = 6", "is missing, and the postings", id="a sum gone"
        ),
        pytest.param(
            "UPDATE ledger.receipt_register SET net_amount_minor = 0 WHERE kind = 5",
            "the register says",
            id="a receipt",
        ),
        pytest.param("DELETE FROM ledger.receipt_register WHERE kind = 5", "the register says None", id="no receipt"),
        pytest.param(
            "UPDATE ledger.receipt_register SET number = (SELECT number FROM ledger.entry e WHERE kind = 7 AND "
            "e.book = receipt_register.book) WHERE member_id = (SELECT member_id FROM ledger.entry WHERE kind = 7) "
            "AND store_id = 'S2'",
            "the register says None",
            id="a receipt elsewhere",
        ),
        pytest.param(
            "UPDATE ledger.finance_cursor SET hash = decode(repeat('00', 32), 'hex')",
            "another journal",
            id="the cursor",
        ),
    ],
)
async def test_verification_names_the_first_difference(history: History, tamper: str, words: str) -> None:
    await a_quarter(history)
    owner = await asyncpg.connect(history.dsn)
    assert (await owner.execute(tamper)).split()[1] != "0"
    await owner.close()
    problems = await verify_summary(history.conn)
    assert problems
    assert words in problems[0].what


async def test_changed_journal_is_not_summed_on(history: History) -> None:
    await a_quarter(history)
    await history.adjust("olena", 1)
    owner = await asyncpg.connect(history.dsn)
    await owner.execute("SET session_replication_role = replica")  # a superuser who goes past the triggers
    await owner.execute(
        "UPDATE ledger.entry SET booked_at = booked_at + interval '1 day' WHERE (book, number) IN "
        "(SELECT book, number FROM ledger.book_head)"
    )
    await owner.close()
    with pytest.raises(SummaryError, match="does not continue the chain"):
        await history.summarise()


# --- point values and queries -------------------------------------------------------------------------------------


async def test_point_values_are_added_and_never_changed(history: History) -> None:
    first = await record(history, 1, 10, 100, 0)
    assert await record(history, 1, 10, 100, 0) == first
    others = [await asyncpg.connect(history.dsn, server_settings={"role": "tallypoint_writer"}) for _ in range(4)]
    await asyncio.gather(*(record(history, 1, 10, 100, ppm, conn) for ppm, conn in enumerate(others, start=1)))
    for conn in others:
        await conn.close()
    values = await read_point_values(history.conn, 1)
    assert [value.version for value in values] == [1, 2, 3, 4, 5]
    assert {value.breakage_ppm for value in values} == {0, 1, 2, 3, 4}
    with pytest.raises(ValueError, match="first day of a month"):
        await record(history, 1, 10, 100, 0, day=2)
    for statement in ("UPDATE ledger.point_value SET breakage_ppm = 7", "DELETE FROM ledger.point_value"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await history.conn.execute(statement)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        pytest.param({"as_of": 7}, "as_of_close", id="no such close"),
        pytest.param({"from_day": date(2026, 2, 2), "to_day": date(2026, 2, 1)}, "from_day", id="days the wrong way"),
    ],
)
async def test_wrong_query_names_its_field(history: History, fields: dict[str, object], field: str) -> None:
    with pytest.raises(QueryError) as error:
        await trial_balance(history.conn, history.query(**fields))
    assert error.value.field == field


# --- commands -----------------------------------------------------------------------------------------------------


def test_commands_verify_and_rebuild(databases: DatabaseFactory) -> None:
    async def prepare(dsn: str) -> None:
        async with open_history(dsn) as opened:
            await a_quarter(opened)
            await opened.close_month("2026-01-01")

    async def tamper(dsn: str) -> None:
        owner = await asyncpg.connect(dsn)
        await owner.execute("UPDATE ledger.finance_total SET points_minor = 1")
        await owner.close()

    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        asyncio.run(prepare(dsn))
        sound = CliRunner().invoke(app, ["verify", "--dsn", dsn])
        assert (sound.exit_code, "Verified" in sound.stdout) == (0, True), sound.output
        asyncio.run(tamper(dsn))
        broken = CliRunner().invoke(app, ["verify", "--dsn", dsn])
        assert (broken.exit_code, "BAD: book" in broken.stdout) == (1, True), broken.output
        rebuilt = CliRunner().invoke(app, ["rebuild", "--yes", "--dsn", dsn])
        assert (rebuilt.exit_code, "anew" in rebuilt.stdout) == (0, True), rebuilt.output
        assert CliRunner().invoke(app, ["verify", "--dsn", dsn]).exit_code == 0
