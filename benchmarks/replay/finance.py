"""What finance does with a replay: closes every month, reconciles the registers' totals, and proves the reports."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from calendar import monthrange
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from rich.console import Console
from tallypoint.v1 import (
    checkout_pb2,
    finance_pb2,
    finance_pb2_grpc,
    journal_pb2,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
)

from benchmarks.replay.client import bearing, call
from benchmarks.replay.dataset import TIME_ZONE, Dataset, IntColumn
from benchmarks.replay.journal import RegisterJournal
from benchmarks.replay.report import Check
from benchmarks.replay.schedule import Schedule, business_date
from benchmarks.replay.seed import BackOffice, batches
from ledger.finance.checkpoints import read_checkpoints
from ledger.finance.general_ledger import read_journal
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.scope import Query
from ledger.finance.table import Table
from server.commands.finance.beancount import beancount_text
from server.commands.output.progress import progress
from server.finance.account_map import load_account_map
from server.finance.desk import read_programme, snapshot
from server.finance.general_ledger import export_of

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_SECONDS: Final = 120.0
_REPORTS_PER_CALL: Final = 5_000
_SHOWN_BREAKS: Final = 3
_NO_LIMIT_HOURS: Final = 0


# --- closing ------------------------------------------------------------------------------------------------------


@dataclass
class Closes:
    """The months closed in this run, and those that were closed before."""

    made: int = 0
    known: int = 0


async def close_month(office: BackOffice, month: str, closes: Closes) -> None:
    """Close a month (YYYY-MM), unless it is closed already.

    Raises:
        CallFailed: the service refuses, for example since a later month is closed.
    """
    last_day = f"{month}-{monthrange(int(month[:4]), int(month[5:]))[1]:02d}"
    stub = finance_pb2_grpc.FinanceServiceStub(office.channel)
    list_closes = bearing(stub.ListCloses, office.key, TIMEOUT_SECONDS)
    listed = await call(office.counters, list_closes, "ListCloses", finance_pb2.ListClosesRequest())
    if any(close.last_day >= last_day for close in listed.closes):
        closes.known += 1
        return
    close_books = bearing(stub.CloseBooks, office.key, TIMEOUT_SECONDS)
    request = finance_pb2.CloseBooksRequest(
        period=journal_pb2.CLOSE_PERIOD_MONTH,
        day=last_day,
        despite=[finance_pb2.OPEN_MATTER_KIND_REPORTS],  # the registers report when all is booked
    )
    await call(office.counters, close_books, "CloseBooks", request)
    closes.made += 1


# --- reconciliation -----------------------------------------------------------------------------------------------


class TerminalDay(NamedTuple):
    """A terminal's business date."""

    store_id: str
    terminal_id: str
    business_date: str


class Compared(NamedTuple):
    """How many terminals' days were compared, and the breaks that were found in them."""

    days: int
    breaks: int


def z_reports(
    transactions: pd.DataFrame, dataset: Dataset, schedule: Schedule, selection: IntColumn, journal: RegisterJournal
) -> list[reconciliation_pb2.ZReport]:
    """What the registers print at the end of each day.

    Receipts and their turnover come straight from the published table, past everything that the replay and the
    service did with it; discounts and points from the registers' own journal.
    """
    terminals = dict(zip(dataset.basket_id.tolist(), dataset.terminal_number.tolist(), strict=True))
    chosen = transactions[transactions["basket_id"].isin(dataset.basket_id[selection].tolist())]
    local = chosen["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert(TIME_ZONE)
    table = (
        chosen.assign(
            cents=(chosen["sales_value"] * 100).round().astype("int64"),
            day=local.dt.strftime("%Y-%m-%d"),
            terminal=chosen["basket_id"].map(terminals),
        )
        .groupby(["store_id", "terminal", "day"])
        .agg(receipts=("basket_id", "nunique"), gross=("cents", "sum"))
    )
    printed = _printed(journal, dataset, selection)
    returns = Counter(
        TerminalDay(
            str(dataset.store_id[b.till]), f"T{dataset.terminal_number[b.till]}", business_date(dataset, b.till)
        )
        for b in schedule.returns(selection)
    )
    reports = []
    for row in table.itertuples():
        store, terminal, day = cast(tuple[int, int, str], row.Index)
        key = TerminalDay(str(store), f"T{terminal}", str(day))
        count, gross, back = int(str(row.receipts)), int(str(row.gross)), returns[key]
        discounts, points = printed[key]
        reports.append(
            reconciliation_pb2.ZReport(
                store_id=key.store_id,
                terminal_id=key.terminal_id,
                business_date=key.business_date,
                receipts=count,
                first_number=1,
                last_number=count + back,
                gross_minor=gross,
                discounts_minor=discounts,
                turnover_minor=gross - discounts,
                points_spent_minor=points,
                returns=back,
            )
        )
    for number, report in enumerate(reports, start=1):
        report.line = number
    return reports


def _printed(journal: RegisterJournal, dataset: Dataset, selection: IntColumn) -> dict[TerminalDay, tuple[int, int]]:
    """Discounts given and points taken by terminal and day, as the registers printed them."""
    sums: dict[TerminalDay, tuple[int, int]] = {}
    for basket_id in dataset.basket_id[selection].tolist():
        stored = journal.find(basket_id)
        if stored is None:
            continue
        request = checkout_pb2.CommitRequest.FromString(stored.request)
        key = request.receipt_key
        where = TerminalDay(key.store_id, key.terminal_id, key.business_date)
        discounts, points = sums.get(where, (0, 0))
        given = sum(line.discount_minor for line in request.receipt.lines)
        sums[where] = (discounts + given, points + request.spend_points_minor)
    return sums


async def reconcile(
    office: BackOffice, reports: Sequence[reconciliation_pb2.ZReport], months: Sequence[str], console: Console
) -> Check:
    """Load the registers' reports and compare them with the ledger."""
    stub = reconciliation_pb2_grpc.ReconciliationServiceStub(office.channel)
    put_rules = bearing(stub.PutReconciliationRules, office.key, TIMEOUT_SECONDS)
    # The receipts are of 2017 and are booked today: by the clock all would be late.
    rules = reconciliation_pb2.ReconciliationRules(
        numbers_consecutive=True, late_after_hours=_NO_LIMIT_HOURS, doubled_within_minutes=0
    )
    request = reconciliation_pb2.PutReconciliationRulesRequest(rules=rules)
    await call(office.counters, put_rules, "PutReconciliationRules", request)
    await _load(office, stub, reports, console)
    days = found = 0
    with progress("Reconciling", len(months), "months", console) as advance:
        for month in months:
            compared = await _reconcile_month(office, stub, month)
            days, found = days + compared.days, found + compared.breaks
            advance(1)
    detail = f"{len(reports):,} Z reports, {days:,} terminals' days, {found:,} breaks"
    if found:
        detail += f": {await _first_breaks(office, stub)}"
    return Check("registers' totals = ledger, till by till", not found and days >= len(reports), detail)


async def _load(
    office: BackOffice,
    stub: reconciliation_pb2_grpc.ReconciliationServiceAsyncStub,
    reports: Sequence[reconciliation_pb2.ZReport],
    console: Console,
) -> None:
    load = bearing(stub.LoadZReports, office.key, TIMEOUT_SECONDS)
    digest = sha256(b"".join(report.SerializeToString(deterministic=True) for report in reports)).digest()
    parts = list(batches(reports, _REPORTS_PER_CALL))
    with progress("Z reports", len(reports), "reports", console) as advance:
        for number, part in enumerate(parts, start=1):
            file = reconciliation_pb2.SourceFile(name="replay", sha256=digest, part=number, parts=len(parts))
            request = reconciliation_pb2.LoadZReportsRequest(file=file, reports=part)
            await call(office.counters, load, "LoadZReports", request)
            advance(len(part))


async def _reconcile_month(
    office: BackOffice, stub: reconciliation_pb2_grpc.ReconciliationServiceAsyncStub, month: str
) -> Compared:
    """Compare a month, part by part; first the service sums up what was booked since the last time."""
    compare = bearing(stub.Reconcile, office.key, TIMEOUT_SECONDS)
    last = monthrange(int(month[:4]), int(month[5:]))[1]
    request = reconciliation_pb2.ReconcileRequest(from_day=f"{month}-01", to_day=f"{month}-{last:02d}")
    days = found = 0
    while True:
        response = await call(office.counters, compare, "Reconcile", request)
        days, found = days + response.terminal_days, found + response.found
        if response.pending_entries == 0 and not response.next_page_token:
            return Compared(days, found)
        request.page_token = response.next_page_token


async def _first_breaks(office: BackOffice, stub: reconciliation_pb2_grpc.ReconciliationServiceAsyncStub) -> str:
    list_breaks = bearing(stub.ListBreaks, office.key, TIMEOUT_SECONDS)
    response = await call(office.counters, list_breaks, "ListBreaks", reconciliation_pb2.ListBreaksRequest())
    return "; ".join(
        f"{each.store_id}/{each.terminal_id} {each.business_date}: {each.text}"
        for each in response.breaks[:_SHOWN_BREAKS]
    )


# --- reports ------------------------------------------------------------------------------------------------------


async def prove_reports(dsn: str, outstanding_points_minor: int) -> list[Check]:
    """Roll the liability forward in points and in money, and give the general ledger to beancount."""
    async with snapshot(dsn) as conn:
        programme = await read_programme(conn, "")
        balance = await trial_balance(conn, Query(programme=programme))
        by_month = Query(programme=programme, by="month")
        tables = [
            await roll_forward(conn, by_month),
            await roll_forward(conn, Query(programme=programme, by="month", measure="money")),
        ]
        journal = await read_journal(conn, by_month)
        export = export_of(journal, await read_checkpoints(conn, by_month, journal))
        text = beancount_text(export, load_account_map(None))
    return [
        Check("trial balance sums to zero", _last(balance, "balance_points") == 0, f"{len(balance.rows) - 1} accounts"),
        _rolls(tables[0], "points", outstanding_points_minor),
        _rolls(tables[1], "money", None),
        await _bean_checked(text),
    ]


def _last(table: Table, column: str) -> object:
    return table.rows[-1][[each.name for each in table.columns].index(column)]


def _rolls(table: Table, measure: str, closing: int | None) -> Check:
    """Every month adds up, begins where the one before ended, and the last one ends with what is outstanding."""
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]

    def figure(row: Mapping[str, object], name: str) -> int:
        value = row[f"{name}_{measure}"]
        assert isinstance(value, int)
        return value

    signs = {"opening": 1, "issued": 1, "redeemed": -1, "expired": -1, "adjusted": 1, "transferred": 1}
    wrong = [
        str(row[names[0]])
        for row in rows
        if sum(sign * figure(row, name) for name, sign in signs.items()) != figure(row, "closing")
    ]
    wrong += [
        str(later[names[0]]) for row, later in pairwise(rows) if figure(row, "closing") != figure(later, "opening")
    ]
    last = figure(rows[-1], "closing") if rows else 0
    if closing is not None and last != closing:
        wrong.append(f"the end: {last:,} and not {closing:,} outstanding")
    detail = f"{len(rows)} months, closing with {last:,}" if not wrong else f"not in {', '.join(wrong)}"
    return Check(f"liability rolls forward in {measure}", not wrong, detail)


async def _bean_checked(text: str) -> Check:
    name = "general ledger accepted by beancount"
    program = shutil.which("bean-check", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if program is None:
        return Check(name, None, "bean-check is not installed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.beancount"
        file.write_text(text, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            program, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
    detail = f"{text.count(chr(10)):,} lines" if process.returncode == 0 else output.decode()[:200]
    return Check(name, process.returncode == 0, detail)
