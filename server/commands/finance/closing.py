"""`tallypoint finance close`, `closes` and `point-value`: what finance decides, under the name of its key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date
from enum import Enum, StrEnum
from fractions import Fraction
from typing import Annotated, Final

import typer
from tallypoint.v1 import finance_pb2 as pb
from tallypoint.v1 import journal_pb2

from ledger.finance.closing import last_day_of_month
from ledger.finance.point_value import MILLION
from ledger.finance.rounding import half_up
from ledger.finance.table import Column, Table
from server.commands.client import Address, Key, TlsCa
from server.commands.common import Yes, confirm, fail
from server.commands.finance.office import (
    DataDir,
    Output,
    Reach,
    UnitCode,
    check_ending,
    first_day_of,
    last_day_of,
    put,
    readable,
    say,
)
from server.commands.output.terminal import report_console, show
from server.finance.general_ledger import Terms
from server.finance.messages import terms_of

EXIT_REFUSED: Final = 1

app = typer.Typer()
point_value = typer.Typer(no_args_is_help=True, help="What a point is worth, and how many are never redeemed.")


def _share(text: str) -> Fraction:
    """Read a share such as 12.5% or 0.125."""
    try:
        return Fraction(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not a share such as 12.5% or 0.125") from None


def _amount(text: str) -> Fraction:
    """Read a decimal number."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not an amount such as 0.10") from None


class Period(Enum):
    """How long a closed period is."""

    DAY = "day"
    MONTH = "month"


class Despite(StrEnum):
    """What a close accepts to be open still."""

    RUNNING = "running"
    BREAKS = "breaks"
    APPROVALS = "approvals"
    REPORTS = "reports"


_KIND: Final = {
    Despite.RUNNING: pb.OPEN_MATTER_KIND_RUNNING,
    Despite.BREAKS: pb.OPEN_MATTER_KIND_BREAKS,
    Despite.APPROVALS: pb.OPEN_MATTER_KIND_APPROVALS,
    Despite.REPORTS: pb.OPEN_MATTER_KIND_REPORTS,
}
_DESPITE: Final = {kind: despite for despite, kind in _KIND.items()}


@app.command("close")
def close_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    period: Annotated[Period, typer.Argument(help="What is closed.")],
    last_day: Annotated[
        date, typer.Argument(parser=last_day_of, metavar="DAY", help="2026-03-31, or the month 2026-03.")
    ],
    unit: UnitCode = "",
    despite: Annotated[
        list[Despite] | None,
        typer.Option(help="Close although this is still open, as the command names it; may be given again."),
    ] = None,
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Close a day or a month with everything before it. What is booked later counts for the next open day.

    It cannot be undone, so the command asks first. What is still open in the days is named, and stops it until it is
    accepted with --despite: a day that is not over in some store, open breaks, adjustments that wait for approval,
    terminals that have not reported.
    """
    number = journal_pb2.CLOSE_PERIOD_MONTH if period is Period.MONTH else journal_pb2.CLOSE_PERIOD_DAY
    day = (last_day_of_month(last_day) if period is Period.MONTH else last_day).isoformat()
    accepted = [_KIND[one] for one in despite or ()]
    with Reach(address, key, tls_ca, data_dir).office() as office:
        looked = office.call("CheckClose", pb.CheckCloseRequest(unit=unit, period=number, day=day))
        say(_to_be_closed(looked, period))
        missing = [one for one in looked.open_matters if one.kind not in accepted]
        if missing:
            names = " ".join(f"--despite {_DESPITE[one.kind]}" for one in missing)
            fail(f"Nothing was closed. If it is to be closed nevertheless, say so: {names}")
            raise typer.Exit(EXIT_REFUSED)
        confirm("Close for good?", yes=yes)
        # The unit that people agree to, even if another programme takes effect meanwhile.
        request = pb.CloseBooksRequest(unit=looked.terms.unit, period=number, day=day, despite=accepted)
        closed = office.call("CloseBooks", request).close
    show(_closes_table([closed], looked.terms.unit), report_console())


def _to_be_closed(looked: pb.CheckCloseResponse, period: Period) -> str:
    what = f"the month {looked.last_day[:7]}" if period is Period.MONTH else f"the day {looked.last_day}"
    newest = looked.newest
    so_far = f"close {newest.close_number}, up to {newest.last_day}" if newest.close_number else "none"
    terms = looked.terms
    whose = f"points of {terms.unit} (programme {terms.programme_code})"
    lines = [
        f"to be closed: {what} and every earlier day that is still open, for {whose}",
        f"last close:   {so_far}",
        *(f"still open:   {one.text}" for one in looked.open_matters),
    ]
    return "\n".join(lines)


@app.command("closes")
def closes_command(
    unit: UnitCode = "",
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """List the closes, oldest first; reports take their numbers as --as-of."""
    with readable():
        check_ending(output, None)
        with Reach(address, key, tls_ca, data_dir).office() as office:
            response = office.call("ListCloses", pb.ListClosesRequest(unit=unit))
        put(_closes_table(response.closes, response.terms.unit), output)


def _closes_table(closes: Iterable[pb.PeriodClose], unit: str) -> Table:
    columns = (
        Column("close", "Close", "integer"),
        Column("period", "Period", "text"),
        Column("from_day", "From", "day"),
        Column("last_day", "Last day", "day"),
        Column("closed_at", "Closed at", "moment"),
        Column("closed_by", "Closed by", "text"),
        Column("point_value_version", "Estimate", "integer"),
        Column("digest", "Digest of the totals", "text"),
        Column("entry", "Entry", "text"),
    )
    rows = [
        (
            one.close_number,
            Period.MONTH.value if one.period == journal_pb2.CLOSE_PERIOD_MONTH else Period.DAY.value,
            date.fromisoformat(one.from_day) if one.from_day else None,
            date.fromisoformat(one.last_day),
            one.closed_at.ToDatetime(UTC),
            one.closed_by,
            one.point_value_version or None,
            one.totals_digest.hex() or "not frozen yet",
            f"{one.totals_entry.book}:{one.totals_entry.number}" if one.totals_digest else None,
        )
        for one in closes
    ]
    return Table(f"Closes of {unit}", columns, tuple(rows))


# --- what a point is worth ----------------------------------------------------------------------------------------


@point_value.command("list")
def list_point_values(
    unit: UnitCode = "",
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """List all versions, oldest first."""
    with readable():
        check_ending(output, None)
        with Reach(address, key, tls_ca, data_dir).office() as office:
            response = office.call("ListPointValues", pb.ListPointValuesRequest(unit=unit))
        put(_values_table(response.values, terms_of(response.terms)), output)


@point_value.command("set")
def set_point_value(
    value: Annotated[Fraction, typer.Option(parser=_amount, metavar="AMOUNT", help="What one point pays, in money.")],
    breakage_share: Annotated[
        Fraction, typer.Option("--breakage", parser=_share, metavar="SHARE", help="Never redeemed: 12.5% or 0.125.")
    ],
    from_month: Annotated[
        date,
        typer.Option(parser=first_day_of, metavar="MONTH", help="For points issued from this month on."),
    ],
    unit: UnitCode = "",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Record a further version. Reports as of earlier closes keep the versions that they had."""
    ppm = breakage_share * MILLION
    if ppm.denominator != 1 or not 0 <= ppm <= MILLION:
        raise typer.BadParameter("breakage is a share from 0% to 100% with at most four decimal places of a per cent")
    with Reach(address, key, tls_ca, data_dir).office() as office:
        terms = terms_of(office.call("ListPointValues", pb.ListPointValuesRequest(unit=unit)).terms)
        money = value * Fraction(10**terms.currency_decimals, 10**terms.unit_decimals)
        request = pb.RecordPointValueRequest(
            unit=terms.unit,
            from_month=f"{from_month:%Y-%m}",
            value_money_minor=money.numerator,
            value_points_minor=money.denominator,
            breakage_ppm=int(ppm),
        )
        recorded = office.call("RecordPointValue", request).value
    show(_values_table([recorded], terms), report_console())


VALUE_DECIMALS: Final = 6
"""Decimal places in which the value of one point is shown; what is recorded is exact."""


def _values_table(versions: Iterable[pb.PointValue], terms: Terms) -> Table:
    per_point = Fraction(10**terms.unit_decimals, 10**terms.currency_decimals) * 10**VALUE_DECIMALS
    columns = (
        Column("version", "Version", "integer"),
        Column("from_month", "From month", "day"),
        Column("value", f"Value of a point, {terms.currency}", "money", VALUE_DECIMALS),
        Column("breakage", "Breakage", "ratio"),
        Column("recorded_at", "Recorded at", "moment"),
        Column("recorded_by", "Recorded by", "text"),
    )
    rows = [
        (
            each.version,
            date.fromisoformat(f"{each.from_month}-01"),
            half_up(Fraction(each.value_money_minor, each.value_points_minor) * per_point),
            Fraction(each.breakage_ppm, MILLION),
            each.recorded_at.ToDatetime(UTC),
            each.recorded_by,
        )
        for each in versions
    ]
    note = f"Months that no version covers: what the programme pays, without breakage ({terms.programme_code})."
    return Table(f"Value of points of {terms.unit}", columns, tuple(rows), (note,))
