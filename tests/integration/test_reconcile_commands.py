"""`tallypoint reconcile` against a running service: what a finance clerk does in a month."""

from __future__ import annotations

import asyncio
import csv
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from tallypoint.v1 import reconciliation_pb2 as pb
from tallypoint.v1 import reconciliation_pb2_grpc
from typer.testing import CliRunner, Result

from server.commands.main import app
from tests.support.server_process import RunningServer
from tests.support.till import Till, card, open_till, set_up_store

DAY = "2026-03-14"
OTHER_DAY = "2026-03-20"
HEAD = "store,terminal,business_date,receipts,first_number,last_number,turnover,points_earned,points_spent"


@pytest.fixture(scope="module")
def terminal_key(tallypoint: RunningServer, store_id: str) -> str:
    return asyncio.run(set_up_store(tallypoint, store_id))


@pytest.fixture(scope="module")
def store_id() -> str:
    return f"rec-{uuid4().hex[:6]}"


def run(server: RunningServer, *arguments: str) -> Result:
    """Run `tallypoint reconcile` with a finance clerk's key; in this process, because a clerk runs it often."""
    environment = {
        **dict.fromkeys(name for name in os.environ if name.startswith("TALLYPOINT_")),
        "TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address,
        "TALLYPOINT_ADMIN_KEY": server.keys["finance"],
    }
    return CliRunner().invoke(app, ["reconcile", *arguments], env=environment, catch_exceptions=False)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def sell(till: Till, number: int, amount_minor: int, card_number: str = "") -> None:
    """Sell a loaf of bread, of which a member earns a hundredth."""
    shopper = card(card_number) if card_number else None
    request = till.commit_request([("bread", amount_minor)], shopper)
    request.receipt_key.receipt_number = number
    await till.commit(request)


async def test_a_clerks_day(tallypoint: RunningServer, store_id: str, terminal_key: str, tmp_path: Path) -> None:
    async with open_till(tallypoint, store_id, terminal_key) as till:
        member = await till.enrol()
        for number in (1, 2, 3):
            await sell(till, number, 1000, member.cards[0].card_number)
        missing = clerk_finds_a_missing_receipt(tallypoint, store_id, tmp_path)
        assert (missing["kind"], missing["numbers"]) == ("missing", "4")
        await sell(till, 4, 1250)
    settled = clerk_writes_its_points_off(tallypoint, store_id, tmp_path)
    assert settled.exit_code == 0, settled.stdout


def clerk_finds_a_missing_receipt(tallypoint: RunningServer, store_id: str, tmp_path: Path) -> dict[str, str]:
    """Load the Z report, find what the ledger lacks and explain it; return the break as the file has it."""
    file, output = tmp_path / "z-0314.csv", tmp_path / "breaks.csv"
    file.write_text(f"{HEAD}\n{store_id},t1,{DAY},4,1,4,42.50,0.40,0\n")
    done = run(tallypoint, "rules", "--store", store_id, "--late-after-hours", "0")
    assert done.exit_code == 0, done.stderr
    loaded = [run(tallypoint, "load", str(file)) for _ in range(2)]
    assert not [done.stderr for done in loaded if done.exit_code]
    assert [(done.exit_code, done.stdout) for done in loaded] == [
        (0, "z-0314.csv: 1 Z reports are loaded\n"),
        (0, "z-0314.csv: was loaded before; nothing changed\n"),
    ]

    done = run(tallypoint, "run", DAY, "--store", store_id, "--output", str(output))
    assert done.exit_code == 1, done.stderr
    assert "the ledger lacks 1 receipt: 4" in done.stdout
    assert "1 terminals' days compared: 1 breaks opened, 0 resolved, 1 open" in done.stdout
    (row,) = read(output)
    assert (row["store"], row["terminal"], row["business_date"], row["kind"]) == (store_id, "t1", DAY, "missing")
    assert (row["numbers"], row["turnover_register"], row["turnover_ledger"]) == ("4", "42.50", "30.00")
    assert (row["points_earned_register"], row["points_earned_ledger"]) == ("0.40", "0.30")

    done = run(tallypoint, "explain", row["break_id"][:8], "--note", "lane 1 was offline")
    assert (done.exit_code, "is explained now" in done.stdout) == (0, True), done.stderr
    done = run(tallypoint, "run", DAY, "--store", store_id)
    assert (done.exit_code, "0 breaks opened, 0 resolved, 0 open" in done.stdout) == (0, True), done.stdout
    done = run(tallypoint, "breaks", "--state", "explained", "--store", store_id)
    assert (done.exit_code, row["break_id"][:8] in done.stdout) == (0, True), done.stdout
    return row


def clerk_writes_its_points_off(tallypoint: RunningServer, store_id: str, tmp_path: Path) -> Result:
    """The receipt came without its points: write them off; return the day's last run."""
    output = tmp_path / "breaks.csv"
    (found,) = read(output)
    done = run(tallypoint, "run", DAY, "--store", store_id)
    assert done.exit_code == 1, "the receipt came, but without its points"
    assert "the day has other totals: points earned" in done.stdout
    assert "points earned -0.10" in done.stdout
    done = run(tallypoint, "show", found["break_id"])
    assert [word in done.stdout for word in ("found", "explained", "resolved", "lane 1 was offline")] == [True] * 4
    done = run(tallypoint, "breaks", "--store", store_id, "--output", str(output))
    done = run(tallypoint, "write-off", read(output)[0]["break_id"], "--note", "the shopper had no card")
    assert done.exit_code == 0, done.stderr
    return run(tallypoint, "run", DAY, "--store", store_id)


def test_bad_file_loads_nothing(tallypoint: RunningServer, store_id: str, terminal_key: str, tmp_path: Path) -> None:
    file = tmp_path / "z.csv"
    good = f"{store_id},t7,{OTHER_DAY},1,1,1,5.00,,"
    file.write_text(
        f"{HEAD}\n{good}\n{store_id},t8,{OTHER_DAY},lots,1,4,42.50,0.40,0\n{store_id},t9,{OTHER_DAY},1,1,1,4.505,,\n"
    )
    done = run(tallypoint, "load", str(file))
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"{file}:3: receipts: must be a whole number such as 118, not 'lots'",
        f"{file}:4: turnover: has 3 decimal places, and money have 2: write it as 1234.50",
        "2 of 3 rows are wrong; nothing was loaded",
    ]
    file.write_text(f"{HEAD}\n{good}\nnowhere,t1,{OTHER_DAY},1,1,1,5.00,,\n")
    done = run(tallypoint, "load", str(file))
    assert done.exit_code == 2
    assert "reports[1].store_id: line 3: is not a store: there is no nowhere" in done.stderr
    done = run(tallypoint, "run", OTHER_DAY, "--store", store_id)
    assert "0 terminals' days compared" in done.stdout, "t7 was not loaded"


def test_other_figures_of_a_day_are_told(
    tallypoint: RunningServer, store_id: str, terminal_key: str, tmp_path: Path
) -> None:
    """A day that is there already with other figures is never taken for the same."""
    place = f"{store_id},t9,2026-03-22"
    reports, receipts = tmp_path / "z.csv", tmp_path / "r.csv"
    told = []
    for amount in ("5.00", "6.00"):
        reports.write_text(f"{HEAD}\n{place},2,1,2,{amount},,\n")
        receipts.write_text(f"store,terminal,business_date,number,turnover\n{place},1,{amount}\n{place},2,0\n")
        told += [run(tallypoint, "load", str(file)).stdout.strip() for file in (reports, receipts)]
    assert told == [
        "z.csv: 1 Z reports are loaded",
        "r.csv: 2 receipts are loaded",
        "z.csv: 1 Z reports are loaded; 1 take the place of earlier ones",
        "r.csv: 2 receipts are loaded; 1 terminals' days take the place of earlier ones",
    ]


def test_receipts_of_a_register(tallypoint: RunningServer, store_id: str, terminal_key: str, tmp_path: Path) -> None:
    file = tmp_path / "receipts.csv"
    lines = [f"{store_id};t1;{OTHER_DAY};{number};;10,00" for number in (1, 2, 3)]
    file.write_text("\n".join(["store;terminal;business_date;number;kind;turnover", *lines, ""]))
    done = run(tallypoint, "load", str(file), "--delimiter", ";")
    assert (done.exit_code, done.stdout) == (0, "receipts.csv: 3 receipts are loaded\n"), done.stderr
    done = run(tallypoint, "breaks", "--kind", "nonsense")
    assert (done.exit_code, "must be one of missing, extra" in done.stderr) == (2, True)
    done = run(tallypoint, "run", "14.03.2026")
    assert (done.exit_code, "write it as YYYY-MM-DD" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("role", "may"),
    [pytest.param("finance", True, id="finance"), pytest.param("admin", True, id="admin"), ("crm", False)],
)
def test_roles(tallypoint: RunningServer, role: str, may: bool) -> None:
    metadata = (("authorization", f"Bearer {tallypoint.keys[role]}"),)
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        stub: Any = reconciliation_pb2_grpc.ReconciliationServiceStub(channel)
        code = grpc.StatusCode.OK
        try:
            stub.ListBreaks(pb.ListBreaksRequest(), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            code = error.code()
    assert code is (grpc.StatusCode.OK if may else grpc.StatusCode.PERMISSION_DENIED)
