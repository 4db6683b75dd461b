"""Finance's reports over a ledger in which everything happened: they agree with each other, and closes keep them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

import asyncpg
import pytest

from ledger.finance.breakage import breakage
from ledger.finance.checkpoints import read_checkpoints
from ledger.finance.general_ledger import general_ledger, read_journal
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.point_value import record_point_value
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.redemption import redemption_rate
from ledger.finance.rounding import half_up
from ledger.finance.scope import Query
from ledger.finance.table import Table, Value
from server.base.storage import LEDGER_MIGRATIONS
from server.commands.finance.beancount import beancount_text
from server.commands.output.files import csv_bytes
from server.finance.account_map import AccountMap, load_account_map
from server.finance.general_ledger import export_of, journal_table
from tests.support.database import DatabaseFactory
from tests.support.history import History, cells, grant, open_history

Report = Callable[[asyncpg.Connection, Query], Awaitable[Table]]
REPORTS: list[Report] = [
    *(breakage, age_profile, expiry_profile, redemption_rate, general_ledger, trial_balance, roll_forward)
]
DEFAULT_MAP = load_account_map()
MEMBERS = {"available", "pending", "debt"}
MARCH_END = datetime(2026, 3, 31, 22, tzinfo=UTC)
MAY_BEGINS = datetime(2026, 5, 1, tzinfo=UTC)


class Told:
    """A history that was told once, and what its reports were when each close was made."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.closed: dict[int, dict[str, bytes]] = {}

    async def tell(self) -> None:
        """January to April: grants, spending, lapses, a debt, a late receipt, a transfer, estimates, closes."""
        async with open_history(self.dsn) as history:
            await self._january(history)
            await self._february(history)
            await self._march(history)
            history.at("2026-04-03")
            await history.buy("borys", [333], store="S2")
            await history.hold("borys", 120)
            await history.buy("anna", [grant(50, expires=MAY_BEGINS)], spend=10)

    async def _january(self, history: History) -> None:
        await history.buy("anna", [grant(1000, expires=MARCH_END)])
        await history.buy("anna", [grant(500, active=datetime(2026, 1, 20, tzinfo=UTC), expires=MAY_BEGINS)])
        await history.buy("borys", [707], store="S2")
        history.at("2026-01-10")
        await history.buy("anna", spend=400)
        await self._close(history, "2026-01-31", "2026-02-01")

    async def _february(self, history: History) -> None:
        await history.buy("borys", [101], day="2026-01-30", store="S2")  # late: it counts for 1 February
        await _value(history, 1, 9, 100, 100_000)
        history.at("2026-02-14")
        bought = await history.buy("cyril", [100])
        await history.buy("cyril", spend=100)
        await history.bring_back(bought)
        await history.buy("cyril", [60])  # pays 0.60 of the debt of 1.00
        await history.close_day("2026-02-13")
        await self._close(history, "2026-02-28", "2026-03-01")

    async def _march(self, history: History) -> None:
        await _value(history, 1, 1, 13, 250_000)
        history.at("2026-03-10")
        await history.adjust("dina", grant(200))
        await history.adjust("borys", -7)
        await history.transfer("anna", "borys", 50)
        key = await history.hold("anna", 30)
        await history.buy("anna", [11], spend=20, captures=key)
        history.at("2026-04-01")
        await history.sweep("anna")  # what is left of the 10.00 has lapsed at the end of March, and is booked now
        await self._close(history, "2026-03-31", "2026-04-02")

    async def _close(self, history: History, last_day: str, at: str) -> None:
        history.at(at)
        closed = await history.close_month(last_day)
        self.closed[closed.row.close_number] = {
            report.__name__: csv_bytes(await report(history.conn, history.query(as_of=closed.row.close_number)))
            for report in REPORTS
        }


async def _value(history: History, month: int, money: int, points: int, breakage_ppm: int) -> None:
    await record_point_value(
        history.conn,
        history.unit.number,
        from_month=date(2026, month, 1),
        value_money_minor=money,
        value_points_minor=points,
        breakage_ppm=breakage_ppm,
        recorded_at=history.clock(),
        recorded_by="olena",
    )


@pytest.fixture(scope="module")
def told(databases: DatabaseFactory) -> Iterator[Told]:
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        story = Told(dsn)
        with ThreadPoolExecutor(1) as pool:  # a test's own event loop may be running in this thread
            pool.submit(asyncio.run, story.tell()).result()
        yield story


async def ask(told: Told, report: Report, **fields: object) -> Table:
    """Run a report as the commands do: over up-to-date summaries."""
    async with open_history(told.dsn) as history:
        await history.summarise()
        return await report(history.conn, history.query(**fields))


def total(table: Table, column: str) -> int:
    index = [each.name for each in table.columns].index(column)
    return sum(value for row in table.rows if isinstance(value := row[index], int))


async def members_have(told: Told, **fields: object) -> int:
    """Return what the trial balance says of all members' accounts."""
    rows = cells(await ask(told, trial_balance, **fields))
    return sum(int(str(rows[account]["balance_points"])) for account in MEMBERS)


@pytest.mark.parametrize("as_of", [None, 1, 3, 4], ids=lambda number: f"as of {number}")
async def test_profiles_add_up_to_the_trial_balance(told: Told, as_of: int | None) -> None:
    expected = await members_have(told, as_of=as_of)
    assert expected > 0
    for report in (age_profile, expiry_profile):
        assert total(await ask(told, report, as_of=as_of), "points") == expected, report.__name__
    assert total(await ask(told, breakage, as_of=as_of), "outstanding") == expected


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.__name__)
async def test_what_happens_later_changes_nothing_as_of_a_close(told: Told, report: Report) -> None:
    for number, frozen in told.closed.items():
        again = csv_bytes(await ask(told, report, as_of=number))
        assert again == frozen[report.__name__], f"as of close {number}"
    assert len(set(map(str, told.closed.values()))) == 3


async def test_outstanding_by_age_and_by_expiry(told: Told) -> None:
    age = await ask(told, age_profile)
    assert [row[:3] for row in age.rows] == [
        (date(2026, 1, 1), "lots", 1190),  # anna 5.00 - 0.10, borys 7.07 - 0.07; the others were spent or lapsed
        (date(2026, 2, 1), "lots", 101),
        (date(2026, 3, 1), "lots", 211),
        (date(2026, 4, 1), "lots", 383),
        (None, "owed", -40),
    ]
    expiry = await ask(told, expiry_profile)
    assert [row[:4] for row in expiry.rows] == [
        (date(2026, 4, 1), "lots", 2, 540),
        (None, "lots", 5, 1345),
        (None, "owed", None, -40),
    ]


async def test_a_day_that_is_closed_is_the_same_asked_by_day(told: Told) -> None:
    for report in (age_profile, expiry_profile):
        by_close, by_day = await ask(told, report, as_of=3), await ask(told, report, to_day=date(2026, 2, 28))
        points = [[row[:-1] for row in table.rows] for table in (by_close, by_day)]
        assert points[0] == points[1], "money differs: it is valued as of now"


@pytest.mark.parametrize("report", [age_profile, expiry_profile], ids=lambda report: report.__name__)
async def test_money_of_the_rows_is_the_rounded_whole(told: Told, report: Report) -> None:
    table = await ask(told, report, as_of=4)
    assert total(table, "money") == half_up(total(table, "points") * Fraction(1, 13) * Fraction(3, 4))


async def test_breakage_by_issue_month(told: Told) -> None:
    rows = cells(await ask(told, breakage))
    january, owed = rows[date(2026, 1, 1)], rows[None]
    assert {name: january[name] for name in ("granted", "redeemed", "expired", "debt_paid", "outstanding")} == {
        "granted": 2200,  # 10.00 + 5.00 + 7.07 - 0.07
        "redeemed": 430,
        "expired": 580,
        "debt_paid": 0,
        "outstanding": 1190,
    }
    assert january["breakage_so_far"] == Fraction(580, 2200)
    assert (january["breakage_expected"], january["estimate_version"]) == (Fraction(1, 4), 2)
    # Nothing was recorded in January, so the first version holds: 22.00 points x 0.09 x 90 %. Of the 75 % that were to
    # be spent by now's estimate, 16.20 are left to be: 4.30 was spent and 11.90 is outstanding.
    assert january["allocated"] == 178
    assert january["recognised"] == round(Fraction(178_20, 100) * Fraction(430, 1620))
    assert january["deferred"] == 178 - 47
    assert january["liability"] == round(1190 * Fraction(1, 13) * Fraction(3, 4))
    assert {name: owed[name] for name in ("granted", "debt_paid", "outstanding", "allocated")} == {
        "granted": -100,
        "debt_paid": -60,
        "outstanding": -40,
        "allocated": None,
    }


async def test_every_row_of_breakage_adds_up(told: Told) -> None:
    for as_of in (None, 1, 3, 4):
        table = await ask(told, breakage, as_of=as_of)
        for row in (dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows):
            flows = [int(str(row[name])) for name in ("granted", "redeemed", "expired", "debt_paid")]
            assert flows[0] - sum(flows[1:]) == row["outstanding"]
            if row["part"] == "lots":
                assert int(str(row["allocated"])) - int(str(row["recognised"])) == row["deferred"]


async def test_the_liability_of_breakage_is_that_of_the_roll_forward(told: Told) -> None:
    for as_of in (None, 1, 3, 4):
        age = await ask(told, age_profile, as_of=as_of)
        closing = (await ask(told, roll_forward, as_of=as_of, measure="money")).rows[-1][-1]
        assert abs(total(age, "money") - int(str(closing))) <= 3, "each movement is rounded once"


async def test_redemption_by_accounting_and_by_issue_month(told: Told) -> None:
    rows = cells(await ask(told, redemption_rate, as_of=4))
    names = ("issued", "redeemed", "rate", "granted", "redeemed_since", "redemption_rate")
    assert [rows[date(2026, 1, 1)][name] for name in names] == [
        *(2207, 400, Fraction(400, 2207), 2200, 420, Fraction(420, 2200))
    ]
    assert [rows[date(2026, 2, 1)][name] for name in names] == [
        *(161, 100, Fraction(100, 161), 261, 160, Fraction(160, 261))
    ]
    since_march = await ask(told, redemption_rate, as_of=4, from_day=date(2026, 3, 15))
    assert [row[0] for row in since_march.rows] == [date(2026, 3, 1)]


# --- the general ledger -------------------------------------------------------------------------------------------


async def test_lines_as_of_a_close_stay_the_first_ones(told: Told) -> None:
    now = (await ask(told, general_ledger)).rows
    for as_of in (1, 2, 3, 4):
        lines = (await ask(told, general_ledger, as_of=as_of)).rows
        assert lines == now[: len(lines)]


async def test_the_general_ledger_ends_in_the_liability(told: Told) -> None:
    for as_of in (None, 1, 2, 3, 4):
        lines = cell_rows(await ask(told, general_ledger, as_of=as_of))
        points = sum(int(str(line["points"])) * _effect(line) for line in lines)
        money = sum(int(str(line["money"])) * _effect(line) for line in lines)
        assert points == (await ask(told, roll_forward, as_of=as_of)).rows[-1][-1]
        assert money == (await ask(told, roll_forward, as_of=as_of, measure="money")).rows[-1][-1]


def cell_rows(table: Table) -> list[dict[str, Value]]:
    return [dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows]


def _effect(line: dict[str, Value]) -> int:
    return (line["credit"] in MEMBERS) - (line["debit"] in MEMBERS)


async def test_new_estimates_are_booked_on_the_first_open_day(told: Told) -> None:
    lines = cell_rows(await ask(told, general_ledger))
    found = [(line["day"], line["close"]) for line in lines if line["kind"] == "revaluation"]
    assert found == [(date(2026, 2, 1), 2), (date(2026, 3, 1), 4)]


async def test_every_document_of_the_journal_is_balanced(told: Told) -> None:
    async with open_history(told.dsn) as history:
        table = journal_table(export_of(await read_journal(history.conn, history.query())), load_account_map())
    documents: dict[Value, list[int]] = {}
    for row in cell_rows(table):
        sums = documents.setdefault(row["document"], [0, 0])
        for index, measure in enumerate(("points", "money")):
            sums[index] += int(str(row[f"debit_{measure}"])) - int(str(row[f"credit_{measure}"]))
    assert len(documents) > 8
    assert set(map(tuple, documents.values())) == {(0, 0)}


# --- beancount ----------------------------------------------------------------------------------------------------


async def beancount(told: Told, account_map: AccountMap, **fields: object) -> str:
    async with open_history(told.dsn) as history:
        await history.summarise()
        query = history.query(**fields)
        journal = await read_journal(history.conn, query)
        return beancount_text(export_of(journal, await read_checkpoints(history.conn, query, journal)), account_map)


def bean_check(text: str, folder: Path) -> tuple[int, str]:
    """Run `bean-check` as a user does; return its exit code and what it says."""
    file = folder / "points.beancount"
    file.write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [Path(sys.executable).with_name("bean-check"), file], capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="as of now"),
        pytest.param({"as_of": 1}, id="as of the first close"),
        pytest.param({"as_of": 3}, id="as of a month closed after one of its days"),
        pytest.param({"as_of": 4}, id="as of the last close"),
        pytest.param({"from_day": date(2026, 2, 10)}, id="from the middle of a month"),
        pytest.param({"from_day": date(2026, 2, 1), "to_day": date(2026, 2, 28), "as_of": 4}, id="one month"),
        pytest.param({"to_day": date(2025, 12, 31)}, id="before anything happened"),
    ],
)
async def test_bean_check_accepts(told: Told, fields: dict[str, object], tmp_path: Path) -> None:
    assert bean_check(await beancount(told, DEFAULT_MAP, **fields), tmp_path) == (0, "")


async def test_the_text_asserts_balances_of_every_month_and_of_the_end(told: Told) -> None:
    text = await beancount(told, DEFAULT_MAP)
    asserted = {line.split()[0] for line in text.splitlines() if " balance " in line}
    assert asserted == {"2026-02-01", "2026-03-01", "2026-04-01", "2026-04-04"}
    money = [line.split() for line in text.splitlines() if " balance Liabilities:Loyalty:Points" in line]
    assert [(line[0], line[-1]) for line in money if line[-1] == "UAH"] == [(day, "UAH") for day in sorted(asserted)]


async def test_bean_check_finds_a_changed_figure(told: Told, tmp_path: Path) -> None:
    text = await beancount(told, DEFAULT_MAP)
    changed = text.replace(" -22.07 BONUS", " -22.08 BONUS", 1).replace(" 22.07 BONUS", " 22.08 BONUS", 1)
    assert changed != text
    code, said = bean_check(changed, tmp_path)
    assert code != 0
    assert "Balance failed" in said


async def test_an_own_map_with_debts_among_the_liabilities(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text(
        '[accounts]\ndebt = {name = "Liabilities:Loyalty:Points"}\npending = {name = "Liabilities:Loyalty:Pending"}\n'
        '[commodities]\nbonus = "BALY"\n',
        encoding="utf-8",
    )
    text = await beancount(told, load_account_map(file))
    assert "Liabilities:Loyalty:Pending" in text
    assert " BALY" in text
    assert "MembersDebt" not in text
    assert bean_check(text, tmp_path) == (0, "")
