"""What a replay did, proved and cost, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.replay.client import Counters
from benchmarks.replay.control import Bought, CouponTotals, PointTotals
from benchmarks.replay.lanes import Tally

_NANOSECONDS_PER_MILLISECOND: Final = 1_000_000


class Check(NamedTuple):
    """One thing that must hold; `passed` is None if it could not be checked from here."""

    name: str
    passed: bool | None
    detail: str


@dataclass
class ReplayReport:
    """The outcome of one replay. Money is in cents, points in minor units, time in seconds."""

    title: str
    tally: Tally
    counters: Counters
    bought: Bought
    """What the data set says of the replayed baskets."""
    members: int
    stores: int
    points: PointTotals
    new_entries: int
    closes: int
    """Months closed in this run."""
    seconds: float
    checks: list[Check] = field(default_factory=list)
    coupons: CouponTotals | None = None
    """The coupons of the data set's campaigns, if they were presented."""

    @property
    def clean(self) -> bool:
        """No basket failed and no check did."""
        return not self.tally.failed and all(check.passed is not False for check in self.checks)


def show(report: ReplayReport, console: Console) -> None:
    """Print the whole report."""
    console.print()
    coupons = [_coupons(report.coupons)] if report.coupons else []
    for table in (_receipts(report), _points(report), *coupons, _speed(report), _checks(report.checks)):
        console.print(table)
    _show_failures(report, console)
    verdict = "[bold green]everything holds[/]" if report.clean else "[bold red]NOT EVERYTHING HOLDS[/]"
    console.print(f"{report.title}: {verdict}")


def _receipts(report: ReplayReport) -> Table:
    tally, bought = report.tally, report.bought
    rows = [
        ("receipts", f"{bought.receipts:,}"),
        ("lines", f"{bought.lines:,}"),
        ("members", f"{report.members:,}"),
        ("stores", f"{report.stores:,}"),
        ("turnover before discounts", money(bought.turnover_minor)),
        ("discounts given in this run", money(tally.discount_minor)),
        ("answered in this run", f"{tally.receipts:,}"),
        ("  of them sent again", f"{tally.resent:,}"),
        ("  of them interrupted in an earlier run", f"{tally.unsettled:,}"),
        ("skipped, answered in an earlier run", f"{tally.skipped:,}"),
        ("failed", f"{len(tally.failed):,}"),
        ("returns answered in this run", f"{tally.returns:,}"),
        ("money given back", money(tally.refund_money_minor)),
        ("holds placed in this run", f"{tally.holds:,}"),
        ("  of them cancelled", f"{tally.cancels:,}"),
        ("months closed in this run", f"{report.closes:,}"),
        ("new entries in the ledger", f"{report.new_entries:,}"),
    ]
    return _pairs(f"Receipts: {report.title}", rows)


def _points(report: ReplayReport) -> Table:
    tally, points = report.tally, report.points
    rows = [
        ("earned", f"{points.issued:,}"),
        ("spent", f"{points.redeemed:,}"),
        ("expired", f"{points.expired:,}"),
        ("outstanding", f"{points.outstanding:,}"),
        ("earned, as answered in this run", f"{tally.accrual_points_minor:,}"),
        ("spent, as answered in this run", f"{tally.spent_points_minor:,}"),
        ("receipts paid with points in this run", f"{tally.spending_receipts:,}"),
        ("  of them kept by a hold before", f"{tally.captured_points_minor:,}"),
        ("given back by returns in this run", f"{tally.refund_points_minor:,}"),
        ("taken back by returns in this run", f"{tally.clawback_points_minor:,}"),
        ("  of them owed, since they were spent", f"{tally.debt_points_minor:,}"),
        ("asked for and left out in this run", f"{tally.left_out_points_minor:,}"),
    ]
    return _pairs("Points in the ledger", rows)


def _coupons(coupons: CouponTotals) -> Table:
    rows = [
        ("redeemed in the data set, and presented", f"{coupons.redeemed:,}"),
        *((f"  {outcome}", f"{times:,}") for outcome, times in sorted(coupons.outcomes.items(), key=_most_first)),
        ("taken off because of them", money(coupons.discount_minor)),
    ]
    return _pairs("Coupons of the campaigns, as booked", rows)


def _most_first(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, min_width=60)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _speed(report: ReplayReport) -> Table:
    tally = report.tally
    rate = tally.receipts / report.seconds if report.seconds else 0.0
    title = f"Speed: {tally.receipts:,} receipts in {report.seconds:,.1f} s, {rate:,.0f}/s; latency in ms"
    table = Table(title=title, title_justify="left", min_width=60)
    table.add_column("call")
    for heading in ("calls", "calls/s", "p50", "p90", "p99", "p99.9"):
        table.add_column(heading, justify="right")
    for method, latencies in report.counters.latencies.items():
        calls_per_second = len(latencies) / report.seconds if report.seconds else 0.0
        shown = (f"{duration / _NANOSECONDS_PER_MILLISECOND:,.1f}" for duration in latencies.percentiles())
        table.add_row(method, f"{len(latencies):,}", f"{calls_per_second:,.0f}", *shown)
    return table


def _checks(checks: Sequence[Check]) -> Table:
    table = Table(title="Proof", title_justify="left", show_header=False, min_width=60)
    signs = {True: "[green]holds[/]", False: "[bold red]FAILS[/]", None: "[yellow]not checked[/]"}
    for check in checks:
        table.add_row(signs[check.passed], check.name, check.detail)
    return table


def _show_failures(report: ReplayReport, console: Console) -> None:
    for title, counts in (
        ("Repeated calls", report.counters.repeats),
        ("Failed calls", report.counters.failures),
    ):
        if not counts:
            continue
        table = Table("call", "reason", "times", title=title, title_justify="left", min_width=60)
        for (method, reason), times in counts.most_common():
            table.add_row(method, reason, f"{times:,}")
        console.print(table)
    for problem in report.tally.problems:
        console.print(f"  {problem}", style="red", markup=False)


def money(amount_minor: int) -> str:
    """Cents as dollars: 123456 is "1,234.56"."""
    units, cents = divmod(abs(amount_minor), 100)
    return f"{'-' if amount_minor < 0 else ''}{units:,}.{cents:02d}"
