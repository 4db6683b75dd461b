"""Finance with several point units and coalition partners: each unit apart, each partner settled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import date, timedelta
from fractions import Fraction

import pytest
from tallypoint.v1 import journal_pb2, ledger_pb2
from typer.testing import CliRunner

from ledger.booking.transfer import TransferOrder, transfer_everything
from ledger.entry.model import ISSUED, Grant, Spend, Unit, UnitSpend
from ledger.finance.breakage import breakage
from ledger.finance.checkpoints import read_checkpoints
from ledger.finance.general_ledger import read_journal
from ledger.finance.issue_month import read_issue_months
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.partners import partner_settlement
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.proof import verify_closes, verify_summary
from ledger.finance.redemption import redemption_rate
from ledger.finance.scope import Programme, Query, open_scope
from ledger.finance.statement import member_statement
from ledger.reading.lookups import read_receipts
from ledger.verify import verify
from server.backoffice.ledger_servicer import LedgerServicer
from server.base.clock import utc_now
from server.base.storage import writer_pool
from server.commands.finance.app import app
from server.commands.finance.beancount import beancount_text
from server.edge.caller import Caller, Role
from server.finance.account_map import load_account_map
from server.finance.general_ledger import export_of
from server.rules.versions import ProgrammeStore
from tests.support.commands import member
from tests.support.history import BOOKS, History, any_grant, cells, open_history, random_history
from tests.support.office_port import office_port

JANUARY, FEBRUARY, MARCH = (date(2026, month, 1) for month in (1, 2, 3))


@pytest.fixture
async def history(ledger_dsn: str) -> AsyncIterator[History]:
    """A fresh ledger."""
    async with open_history(ledger_dsn) as opened:
        yield opened


def gift_query(unit: Unit, **fields: object) -> Query:
    """A query of the further unit: to finance a programme of its own, whose point pays 1.00."""
    programme = Programme("bonus-card/gift", unit, "UAH", 2, Fraction(100))
    return Query(programme=programme, **fields)  # type: ignore[arg-type]  # fields of any type


async def a_quarter(history: History) -> tuple[Unit, int]:
    """The pharmacy issues 60.00 in January, redeems 25.00 in February, and gets 30.00 back in March."""
    gift, pharmacy = await history.further_unit("gift"), await history.partner("pharmacy")
    bought = await history.buy(
        "olena", [10_00, Grant(60_00, None, None, account=pharmacy), Grant(8, None, None, unit=gift)], store="P1"
    )
    history.at("2026-02-03")
    await history.buy(
        "olena",
        [Grant(2, None, None, unit=gift, account=pharmacy)],
        spend=25_00,
        further=[UnitSpend(gift, Spend(3, 1, 100, 1))],
        redeemed=pharmacy,
        store="P1",
    )
    history.at("2026-03-04")
    await history.bring_back(bought, 1000, store="P1")
    await history.summarise()
    return gift, pharmacy


async def test_totals_tell_accounts_of_partners_by_their_numbers(history: History) -> None:
    _, pharmacy = await a_quarter(history)
    async with writer_pool(history.dsn, "test") as pool:
        servicer = LedgerServicer(pool, BOOKS)
        caller = Caller(Role.FINANCE, "olena", "", "", None)
        totals = (await servicer.list_totals(ledger_pb2.ListTotalsRequest(), caller)).totals
    assert 25_00 in [
        total.credit_points_minor + total.debit_points_minor for total in totals if total.account == pharmacy
    ]


async def test_partners_have_accounts_of_their_own_and_all_sums_to_zero(history: History) -> None:
    gift, _ = await a_quarter(history)
    rows = cells(await trial_balance(history.conn, history.query()))
    balances = {name: row["balance_points"] for name, row in rows.items() if row["balance_points"]}
    assert balances == {"available": 10_00, "issued": -5_00, "partner:pharmacy": -5_00}
    rows = cells(await trial_balance(history.conn, gift_query(gift)))
    balances = {name: row["balance_points"] for name, row in rows.items() if row["balance_points"]}
    assert balances == {"available": 3, "issued": -4, "partner:pharmacy": 1}
    assert rows["total"]["balance_points"] == 0
    assert [report.problem for report in await verify(history.conn)] == [None] * BOOKS
    assert await verify_summary(history.conn) == []


async def test_settlement_leads_from_opening_to_closing(history: History) -> None:
    gift, _ = await a_quarter(history)
    table = await partner_settlement(history.conn, history.query())
    assert table.rows == (
        (JANUARY, "pharmacy", 0, 60_00, 0, 60_00, 0, 6_00, 0, 6_00),
        (FEBRUARY, "pharmacy", 60_00, 0, 25_00, 35_00, 6_00, 0, 2_50, 3_50),
        (MARCH, "pharmacy", 35_00, -30_00, 0, 5_00, 3_50, -3_00, 0, 50),
    )
    part = await partner_settlement(history.conn, history.query(from_day=FEBRUARY, to_day=date(2026, 2, 28)))
    assert part.rows == table.rows[1:2]
    idle = await partner_settlement(history.conn, history.query(from_day=date(2026, 4, 1)))
    assert idle.rows == ((None, "pharmacy", 5_00, 0, 0, 5_00, 50, 0, 0, 50),)
    of_gift = await partner_settlement(history.conn, gift_query(gift))
    assert of_gift.rows == ((FEBRUARY, "pharmacy", 0, 2, 3, -1, 0, 2_00, 3_00, -1_00),)


async def test_the_liability_counts_what_partners_issue_and_redeem(history: History) -> None:
    await a_quarter(history)
    rows = (await roll_forward(history.conn, history.query())).rows
    assert rows == (
        (JANUARY, 0, 70_00, 0, 0, 0, 0, 70_00),
        (FEBRUARY, 70_00, 0, 25_00, 0, 0, 0, 45_00),
        (MARCH, 45_00, -35_00, 0, 0, 0, 0, 10_00),
    )
    by_partner = (await roll_forward(history.conn, history.query(by="partner"))).rows
    assert by_partner == (("", 0, 5_00, 0, 0, 0, 0, 5_00), ("pharmacy", 0, 30_00, 25_00, 0, 0, 0, 5_00))
    rates = cells(await redemption_rate(history.conn, history.query()))
    assert (rates[JANUARY]["issued"], rates[FEBRUARY]["redeemed"]) == (70_00, 25_00)
    months = await read_issue_months(history.conn, await open_scope(history.conn, history.query()))
    assert dict(months.lots[JANUARY].flows) == {"issued": 35_00, "redeemed": -25_00}


async def test_every_report_answers_for_a_further_unit(history: History) -> None:
    gift, _ = await a_quarter(history)
    for report in (breakage, age_profile, expiry_profile, redemption_rate, roll_forward):
        table = await report(history.conn, gift_query(gift))
        assert len(table.rows) > 0
    assert (await roll_forward(history.conn, gift_query(gift, by="total"))).rows == (("total", 0, 6, 3, 0, 0, 0, 3),)
    statement = await member_statement(history.conn, gift_query(gift), member("olena"))
    names = [column.name for column in statement.columns]
    shown = [dict(zip(names, row, strict=True)) for row in statement.rows[1:-1]]
    assert [(row["promotions"], row["from_account"], row["to_account"], row["change_points"]) for row in shown] == [
        ("promotion-2", "issued", "available", 8),
        ("", "available", "partner:pharmacy", -3),
        ("base", "partner:pharmacy", "available", 2),
        ("", "available", "issued", -4),
    ]


async def test_the_register_has_own_points_and_the_money_of_all(history: History) -> None:
    await a_quarter(history)
    rows = await history.conn.fetch(
        "SELECT points_money_minor, net_amount_minor, points_earned_minor, points_spent_minor "
        "FROM ledger.receipt_register ORDER BY receipt_number"
    )
    assert [tuple(row) for row in rows] == [
        (0, 95_00, 70_00, 0),
        (2_50 + 3_00, 89_50, 0, 25_00),
        (0, 47_50, 35_00, 0),
    ]


async def test_each_unit_is_closed_for_itself(history: History) -> None:
    gift, _ = await a_quarter(history)
    await history.close_month(JANUARY)
    before = (await partner_settlement(history.conn, history.query(as_of=1))).rows
    pharmacy = await history.partner("pharmacy")
    await history.buy("ivan", [Grant(7_00, None, None, account=pharmacy)], day="2026-01-30")
    await history.summarise()
    assert (await partner_settlement(history.conn, history.query(as_of=1))).rows == before
    now = (await partner_settlement(history.conn, history.query())).rows
    assert [row[3] for row in now] == [60_00, 7_00, -30_00], "a late receipt counts for the first open month"
    assert await verify_closes(history.conn, history.unit.number) == []
    assert (await roll_forward(history.conn, gift_query(gift, by="total"))).rows[0][-1] == 3


async def test_the_general_ledger_books_partners_and_beancount_agrees(history: History) -> None:
    await a_quarter(history)
    await history.close_month(FEBRUARY)
    account_map, query = load_account_map(), history.query()
    journal = await read_journal(history.conn, query)
    text = beancount_text(export_of(journal, await read_checkpoints(history.conn, query, journal)), account_map)
    assert "open Assets:Partners:Pharmacy" in text
    asserted = [line.split()[2:5] for line in text.splitlines() if " balance Assets:Partners:Pharmacy" in line]
    assert asserted == [["Assets:Partners:Pharmacy", "35.00", "~"], ["Assets:Partners:Pharmacy", "5.00", "~"]]


async def test_a_return_is_looked_up_with_the_units_and_partners_it_needs(history: History) -> None:
    gift, pharmacy = await history.further_unit("gift"), await history.partner("pharmacy")
    plain = await history.buy("ivan", [5])
    mixed = await history.buy("olena", [Grant(2, None, None, unit=gift, account=pharmacy)])
    keys = {}
    for name, booked in (("plain", plain), ("mixed", mixed)):
        sql = "SELECT business_key FROM ledger.entry WHERE book = $1 AND number = $2"
        keys[name] = await history.conn.fetchval(sql, booked.book, booked.number)
    found = await read_receipts(history.conn, [keys["mixed"]])
    assert (found[keys["mixed"]].units["gift"], found[keys["mixed"]].partners) == (gift, {"pharmacy": pharmacy})
    assert journal_pb2.Event.FromString(found[keys["mixed"]].payload).settlement.units[0].accrual_points_minor == 2
    found = await read_receipts(history.conn, [keys["plain"]])
    assert (found[keys["plain"]].units, found[keys["plain"]].partners) == ({}, {})


async def test_a_merge_moves_every_unit(history: History) -> None:
    gift = await history.further_unit("gift")
    await history.buy("olena", [10_00, Grant(8, None, None, unit=gift)])
    order = TransferOrder(member("order"), member("olena"), member("ivan"), "merge", "olena")
    async with history.conn.transaction():
        moved = await transfer_everything(history.conn, BOOKS, order, history.clock())
    assert [(each.unit.code, each.available_minor) for each in moved] == [("bonus", 10_00), ("gift", 8)]
    left = await history.conn.fetch(
        "SELECT member_id, unit, available_minor FROM ledger.balance WHERE available_minor > 0 ORDER BY unit"
    )
    assert [tuple(row) for row in left] == [(member("ivan"), 1, 10_00), (member("ivan"), gift.number, 8)]
    assert [report.problem for report in await verify(history.conn)] == [None] * BOOKS


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_history_with_partners_adds_up(history: History, seed: int) -> None:
    """The programme's own account and the partners' together are what the liability says."""
    gift, pharmacy = await history.further_unit("gift"), await history.partner("pharmacy")

    def some_grant(opened: History, chance: random.Random) -> Grant:
        unit, account = chance.choice((None, None, gift)), chance.choice((ISSUED, pharmacy))
        return any_grant(opened, chance)._replace(account=account, unit=unit)

    await random_history(history, random.Random(seed), 60, some_grant)
    await history.summarise()
    assert await verify_summary(history.conn) == []
    assert [report.problem for report in await verify(history.conn)] == [None] * BOOKS
    for query in (history.query(), gift_query(gift)):
        accounts = cells(await trial_balance(history.conn, query))
        assert accounts["total"]["balance_points"] == 0
        closing = (await partner_settlement(history.conn, query)).rows[-1][5]
        assert closing == -int(str(accounts["partner:pharmacy"]["balance_points"]))
        members = sum(int(str(accounts[name]["balance_points"])) for name in ("available", "pending", "debt"))
        assert (await roll_forward(history.conn, Query(programme=query.programme, by="total"))).rows[0][-1] == members
    await history.close_month(history.clock.now.date().replace(day=1) - timedelta(days=1))
    assert await verify_closes(history.conn, history.unit.number) == []


PROGRAMME = """
programme: bonus-card
name: Bonus Card
effective_from: 2024-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 0.10}
earning: {base_percent: 1}
units: [{unit: gift, name: Gift points, precision: 0, pays: 1.00}]
partners: [{code: pharmacy, name: City Pharmacy, base_percent: 2}]
"""


async def test_the_commands_answer_for_partners_and_further_units(history: History) -> None:
    """And each unit is closed for itself, under a name of its own."""
    await a_quarter(history)
    async with writer_pool(history.dsn, "test") as pool:
        await ProgrammeStore(pool).publish(PROGRAMME, "bonus.yaml", utc_now())

    with office_port(history.dsn) as port:

        async def run(*words: str) -> str:
            result = await asyncio.to_thread(CliRunner().invoke, app, words, env=port.environment())
            assert result.exit_code == 0, (result.output, result.exception)
            return " ".join(result.stdout.split())

        assert "2026-02 pharmacy 60.00 0.00 25.00 35.00 6.00 0.00 2.50 3.50" in await run("partners")
        assert "2026-02 pharmacy 0 2 3 -1 0.00 2.00 3.00 -1.00" in await run("partners", "--unit", "gift")
        assert "partner:pharmacy 2 3 1" in await run("trial-balance", "--unit", "gift")
        assert "Closes of gift" in await run("close", "month", "2026-02", "--unit", "gift", "--yes")
        assert "2026-02 pharmacy 0 2 3 -1" in await run("partners", "--unit", "gift", "--as-of", "1")
        assert "Closes of bonus" in await run("close", "month", "2026-02", "--yes")
        assert "Assets:Partners:Pharmacy" in await run("general-ledger", "--unit", "gift", "--as-of", "1")
    closed = await history.conn.fetch("SELECT programme_code, close_number FROM ledger.close ORDER BY 1")
    assert [tuple(row) for row in closed] == [("bonus-card", 1), ("bonus-card/gift", 1)]
