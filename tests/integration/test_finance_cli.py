"""`tallypoint finance` as a clerk uses it: tables on the terminal, files, pictures, closes, and mistakes in words."""

from __future__ import annotations

import asyncio
import csv
import io
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import grpc
import openpyxl
import pyarrow.parquet
import pytest
from tallypoint.v1 import member_pb2, member_pb2_grpc
from typer.testing import CliRunner, Result

from server.base.clock import utc_now
from server.base.storage import LEDGER_MIGRATIONS, writer_pool
from server.commands import common
from server.commands.finance.app import app
from server.commands.finance.office import last_day_of
from server.rules.versions import ProgrammeStore
from tests.support.commands import member
from tests.support.database import DatabaseFactory
from tests.support.history import grant, open_history
from tests.support.office_port import OfficePort, office_port

PROGRAMME = """
programme: bonus-card
name: Bonus Card
effective_from: 2024-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 0.10}
earning: {base_percent: 1}
"""
CARD, PHONE = "2900000000001", "+380501112233"
Run = Callable[..., Result]


async def tell(dsn: str) -> None:
    """A month with purchases, and a second one with spending; long ago, since closing goes by this machine's clock."""
    async with open_history(dsn, date(2024, 1, 5)) as history:
        await history.buy("anna", [grant(1000, expires=datetime(2031, 1, 1, tzinfo=UTC))])
        await history.buy("borys", [250], store="S2")
        history.at("2024-02-03")
        await history.buy("anna", spend=300)
    async with writer_pool(dsn, "test") as pool:
        await ProgrammeStore(pool).publish(PROGRAMME, "bonus.yaml", utc_now())


def register_anna(port: OfficePort) -> None:
    """Give her a card and a phone."""
    anna = member_pb2.NewMember(member_id=str(member("anna")), phone=PHONE, card_numbers=[CARD])
    with grpc.insecure_channel(port.address) as channel:
        member_pb2_grpc.MemberServiceStub(channel).RegisterMember(
            member_pb2.RegisterMemberRequest(message_id=str(uuid.uuid4()), member=anna),
            metadata=(("authorization", f"Bearer {port.keys['admin']}"),),
        )


@contextmanager
def on_a_ledger(databases: DatabaseFactory) -> Iterator[Run]:
    with databases.fresh(LEDGER_MIGRATIONS) as dsn:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, tell(dsn)).result()
        with office_port(dsn) as port:
            register_anna(port)

            def invoke(*words: str, code: int = 0, answer: str | None = None, who: str = "olena") -> Result:
                result = CliRunner().invoke(app, words, input=answer, env=port.environment(who))
                assert result.exit_code == code, (result.output, result.exception)
                return result

            yield invoke


@pytest.fixture(scope="module")
def run(databases: DatabaseFactory) -> Iterator[Run]:
    """Run `tallypoint finance` on a ledger that nobody changes."""
    with on_a_ledger(databases) as invoke:
        yield invoke


@pytest.fixture
def run_alone(databases: DatabaseFactory) -> Iterator[Run]:
    """Run `tallypoint finance` on a ledger of one's own."""
    with on_a_ledger(databases) as invoke:
        yield invoke


def table_rows(output: str) -> list[list[str]]:
    """Return what a table on the terminal says, cell by cell."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.splitlines() if line.strip()]


def test_reports_on_the_terminal(run: Run) -> None:
    assert ["total", "15.50", "15.50", "0.00"] in table_rows(run("trial-balance").stdout)
    rolled = table_rows(run("roll-forward", "--in", "money").stdout)
    assert ["2024-01", "0.00", "1.25", "0.00", "0.00", "0.00", "0.00", "1.25"] in rolled
    assert ["2024-02", "1.25", "0.00", "0.30", "0.00", "0.00", "0.00", "0.95"] in rolled
    assert ["2030-12", "lots", "1", "7.00", "73.68 %", "0.70"] in table_rows(run("expiry").stdout)
    assert ["2024-01", "lots", "9.50", "100.00 %", "0.95"] in table_rows(run("age").stdout)
    assert "As of now" in run("breakage").stdout
    january = ["2024-01", "12.50", "0.00", "0.00 %", "12.50", "3.00", "24.00 %", "0.00", "9.50"]
    assert january in table_rows(run("redemption-rate", "--to", "2024-02").stdout)


def test_days_may_be_named_by_their_month(run: Run) -> None:
    rows = table_rows(run("roll-forward", "--by", "day", "--from", "2024-02", "--to", "2024-02").stdout)
    assert [row[0] for row in rows if row[0].startswith("2024")] == ["2024-02-03"]


def test_a_statement_by_id_card_and_phone(run: Run) -> None:
    stated = run("statement", str(member("anna")), "--from", "2024-02").stdout
    assert "opening balance" in stated
    assert "7.00" in stated
    for name in (CARD, PHONE):
        assert run("statement", name, "--from", "2024-02", who="admin").stdout == stated
        assert "ROLE_FORBIDDEN" in run("statement", name, code=2).stderr  # finance does not look people up
    assert "no member has this identifier" in run("statement", "+380501112234", code=2, who="admin").stderr


def test_files_say_what_the_terminal_says(run: Run, tmp_path: Path) -> None:
    files = {ending: tmp_path / f"age{ending}" for ending in (".csv", ".parquet", ".xlsx", ".svg", ".png")}
    for file in files.values():
        assert "Wrote 1 rows" in " ".join(run("age", "--output", str(file)).stderr.split())
    in_csv = list(csv.reader(io.StringIO(files[".csv"].read_text(encoding="utf-8"))))
    assert in_csv[1] == ["2024-01-01", "lots", "9.50", "1.000000", "0.95"]
    in_parquet = pyarrow.parquet.read_table(files[".parquet"]).to_pylist()[0]
    assert [str(value) for value in in_parquet.values()] == in_csv[1]
    sheet = openpyxl.load_workbook(files[".xlsx"])["Report"]
    assert [cell.value for cell in sheet[2]] == [datetime(2024, 1, 1), "lots", 9.5, 1, 0.95]
    assert 'id="bar 2024-01 9.50"' in files[".svg"].read_text(encoding="utf-8")


def test_the_general_ledger_as_csv_and_as_beancount(run: Run, tmp_path: Path) -> None:
    journal, text, own = tmp_path / "journal.csv", tmp_path / "points.beancount", tmp_path / "accounts.toml"
    own.write_text('[accounts]\nredeemed = {number = "701", name = "Income:Spent"}\n', encoding="utf-8")
    run("general-ledger", "--output", str(journal), "--accounts", str(own))
    rows = list(csv.DictReader(io.StringIO(journal.read_text(encoding="utf-8"))))
    assert [(row["document"], row["account"], row["debit_money"], row["credit_money"]) for row in rows] == [
        ("2024-01-05/purchase", "7410", "1.25", "0.00"),
        ("2024-01-05/purchase", "2410", "0.00", "1.25"),
        ("2024-02-03/purchase", "2410", "0.30", "0.00"),
        ("2024-02-03/purchase", "701", "0.00", "0.30"),
    ]
    run("general-ledger", "--output", str(text))
    assert "2024-02-04 balance Liabilities:Loyalty:Points" in text.read_text(encoding="utf-8")


def test_closing_and_asking_again(run_alone: Run) -> None:
    closed = run_alone("close", "month", "2024-01", "--yes").stdout
    assert table_rows(closed)[3][:3] == ["1", "month", "2024-01-31"]
    again = run_alone("close", "month", "2024-01", "--yes", who="borys").stdout
    assert table_rows(again)[3] == table_rows(closed)[3]
    refused = run_alone("close", "day", "2024-01-15", "--yes", code=2).stderr
    assert "the first open day is 2024-02-01" in refused
    assert "olena" in run_alone("closes").stdout
    before = run_alone("age", "--as-of", "1").stdout
    assert ["2024-01", "lots", "12.50", "100.00 %", "1.25"] in table_rows(before)
    setting = ("point-value", "set", "--value", "0.05", "--breakage", "12.5%", "--from-month", "2024-01")
    assert "borys" in run_alone(*setting, who="borys").stdout
    assert run_alone("age", "--as-of", "1").stdout == before


def test_a_close_is_asked_about_first(run_alone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run_alone("close", "month", "2024-01", code=2).stderr
    assert "the month 2024-01 and every earlier day that is still open, for points of bonus" in refused
    assert "Nobody can be asked here, so nothing was done: give --yes" in refused
    monkeypatch.setattr(common, "at_terminal", lambda: True)
    assert "last close:   none" in run_alone("close", "month", "2024-01", answer="n", code=1).stderr
    assert "Nothing to show" in run_alone("closes").stdout
    assert "2024-01-31" in run_alone("close", "month", "2024-01", answer="y").stdout
    asked = run_alone("close", "day", "2024-02-01", answer="y").stderr
    assert "the day 2024-02-01 and every earlier day" in asked
    assert "last close:   close 1, up to 2024-01-31" in asked


def test_what_is_still_open_is_named_before_a_close(run_alone: Run) -> None:
    """Today goes on, whatever the time."""
    today = utc_now().date()
    refused = run_alone("close", "day", str(today), "--yes", code=1).stderr
    assert f"still open:   {today} is not over: it ends at" in refused
    assert "Nothing was closed. If it is to be closed nevertheless, say so: --despite running" in refused
    assert "Nothing to show" in run_alone("closes").stdout
    closed = run_alone("close", "day", str(today), "--despite", "running", "--yes").stdout
    assert (table_rows(closed)[3][2], "olena" in closed) == (str(today), True)
    assert run_alone("close", "day", str(today), "--yes").stdout == closed, "asked for again it is answered again"


def test_point_values(run_alone: Run) -> None:
    shown = run_alone("point-value", "set", "--value", "0.095", "--breakage", "0.1", "--from-month", "2024-03").stdout
    version = ["1", "2024-03", "0.095000", "10.00 %"]
    assert version == table_rows(shown)[3][:4]
    assert version == table_rows(run_alone("point-value", "list").stdout)[3][:4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param("age --as-of 7", "query.as_of_close: point unit 'bonus' has no close 7", id="no such close"),
        pytest.param("age --unit miles", "no programme has the point unit 'miles'", id="no such unit"),
        pytest.param("age --output age.doc", "ends in one of .csv .parquet .xlsx .svg .png", id="no such format"),
        pytest.param("breakage --output b.svg", "ends in one of .csv .parquet .xlsx", id="no picture of it"),
        pytest.param("age --output no/such/folder.csv", "folder.csv cannot be written: No such", id="no folder"),
        pytest.param(
            "roll-forward --from 2024-03 --to 2024-01", "query.from_day: the first day, 2024-03-01,", id="days"
        ),
        pytest.param("roll-forward --from March", "'March' is neither a day such as", id="no day"),
        pytest.param("point-value set --value 1 --breakage 101% --from-month 2024-01", "0% to 100%", id="a share"),
    ],
)
def test_mistakes_are_said_in_words(run: Run, words: str, said: str) -> None:
    output = run(*words.split(), code=2).output
    assert said in " ".join(output.replace("│", " ").split())


def test_a_back_office_that_is_not_there_is_said_in_words() -> None:
    result = CliRunner().invoke(app, ["age", "--address", "127.0.0.1:1", "--key", "tp_nobody"])
    assert (result.exit_code, "UNAVAILABLE" in result.output) == (2, True)


@pytest.mark.parametrize("day", [date(2024, 2, 29), date(2023, 12, 31)])
def test_a_month_ends_on_its_last_day(day: date) -> None:
    assert last_day_of(f"{day:%Y-%m}") == day
