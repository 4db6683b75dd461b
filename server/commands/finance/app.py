"""`tallypoint finance`: finance's questions, answered on the terminal, in files and in pictures; and closing.

All commands but `verify` and `rebuild` are clients of the back office: whoever has a key of the role finance needs
neither the databases nor the service's secret, and what they do bears the name of their key.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message
from tallypoint.v1 import finance_pb2 as pb

from server.commands.client import Address, Key, TlsCa
from server.commands.finance import closing, proof
from server.commands.finance.beancount import beancount_text
from server.commands.finance.office import (
    AsOf,
    DataDir,
    From,
    Output,
    Reach,
    To,
    UnitCode,
    check_ending,
    put,
    readable,
    say,
)
from server.commands.members import find_member
from server.commands.output.files import replace_file
from server.commands.output.pictures import Picture
from server.finance.account_map import load_account_map
from server.finance.general_ledger import journal_table
from server.finance.messages import export_of_message, table_of

app = typer.Typer(no_args_is_help=True, help="Finance: reports, point values, closing days and months.")
app.add_typer(closing.app)
app.add_typer(closing.point_value, name="point-value")
app.add_typer(proof.app)

BEANCOUNT: Final = ".beancount"


class Rows(Enum):
    """What stands in the rows of a roll-forward."""

    DAY = "day"
    MONTH = "month"
    STORE = "store"
    PARTNER = "partner"
    TOTAL = "total"


class Measured(Enum):
    """What a roll-forward counts."""

    POINTS = "points"
    MONEY = "money"


_BY: Final[Mapping[Rows, pb.ReportBy]] = {
    Rows.DAY: pb.REPORT_BY_DAY,
    Rows.MONTH: pb.REPORT_BY_MONTH,
    Rows.STORE: pb.REPORT_BY_STORE,
    Rows.PARTNER: pb.REPORT_BY_PARTNER,
    Rows.TOTAL: pb.REPORT_BY_TOTAL,
}
_MEASURE: Final[Mapping[Measured, pb.ReportMeasure]] = {
    Measured.POINTS: pb.REPORT_MEASURE_POINTS,
    Measured.MONEY: pb.REPORT_MEASURE_MONEY,
}


def _query(
    unit: str,
    as_of: int | None,
    from_day: date | None,
    to_day: date | None,
    **more: Any,  # noqa: ANN401 - fields
) -> pb.ReportQuery:
    return pb.ReportQuery(
        unit=unit,
        as_of_close=as_of or 0,
        from_day="" if from_day is None else from_day.isoformat(),
        to_day="" if to_day is None else to_day.isoformat(),
        **more,
    )


# --- reports ------------------------------------------------------------------------------------------------------


@app.command("trial-balance")
def trial_balance_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show every account with its debits, credits and balance; the balances sum to zero."""
    request = pb.TrialBalanceRequest(query=_query(unit, as_of, None, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output)


@app.command("roll-forward")
def roll_forward_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    by: Annotated[Rows, typer.Option(help="What stands in the rows.")] = Rows.MONTH,
    measure: Annotated[Measured, typer.Option("--in", help="What is counted.")] = Measured.POINTS,
    store: Annotated[str | None, typer.Option(help="One store only.")] = None,
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Roll the liability forward: opening + issued - redeemed - expired + adjusted = closing. .svg draws it."""
    over_time = by in {Rows.DAY, Rows.MONTH}
    picture = Picture("line", by.value, f"closing_{measure.value}") if over_time else None
    request = pb.RollForwardRequest(
        query=_query(unit, as_of, from_day, to_day, store_id=store or "", by=_BY[by], measure=_MEASURE[measure])
    )
    _report(Reach(address, key, tls_ca, data_dir), request, output, picture)


@app.command("statement")
def statement_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    member: Annotated[
        str, typer.Argument(help="The member's id (a UUID); with a key of the role admin, a card or phone too.")
    ],
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show a member's opening balance, every movement with receipt, promotions and lot, and the closing balance."""
    reach = Reach(address, key, tls_ca, data_dir)
    request = pb.MemberStatementRequest(
        query=_query(unit, as_of, from_day, to_day), member_id=_member_id(reach, member)
    )
    _report(reach, request, output)


def _member_id(reach: Reach, text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        with reach.office() as office:
            return find_member(office.client, text).member_id


@app.command("breakage")
def breakage_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by issue month, what became of points, and the revenue that is recognised and deferred (IFRS 15)."""
    request = pb.BreakageRequest(query=_query(unit, as_of, None, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output)


@app.command("age")
def age_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show what is outstanding by the month in which it was issued. .svg and .png draw it."""
    picture = Picture("bars", "issue_month", "points", only=("part", "lots"))
    request = pb.AgeProfileRequest(query=_query(unit, as_of, None, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output, picture)


@app.command("expiry")
def expiry_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show what is outstanding by the month in which it lapses. .svg and .png draw it."""
    picture = Picture("bars", "expiry_month", "points", no_month="never", only=("part", "lots"))
    request = pb.ExpiryProfileRequest(query=_query(unit, as_of, None, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output, picture)


@app.command("redemption-rate")
def redemption_rate_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by month, what was issued and redeemed in it, and how much of what was issued in it is redeemed."""
    request = pb.RedemptionRateRequest(query=_query(unit, as_of, from_day, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output)


@app.command("partners")
def partners_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by month and coalition partner, what was issued at its expense, redeemed in its stores, and is owed."""
    request = pb.PartnerSettlementRequest(query=_query(unit, as_of, from_day, to_day))
    _report(Reach(address, key, tls_ca, data_dir), request, output)


@app.command("general-ledger")
def general_ledger_command(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    accounts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Your account map (TOML), over the built-in one.")
    ] = None,
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make the general ledger's journal, a document for each day and kind of event. .beancount writes it as text."""
    with readable():
        account_map = load_account_map(accounts)
        is_text = output is not None and output.suffix.lower() == BEANCOUNT
        if not is_text:
            check_ending(output, None)
        request = pb.GeneralLedgerRequest(query=_query(unit, as_of, from_day, to_day), with_checkpoints=is_text)
        with Reach(address, key, tls_ca, data_dir).office() as office:
            export = export_of_message(office.call("GeneralLedger", request))
        if output is None or not is_text:
            put(journal_table(export, account_map), output)
            return
        written = beancount_text(export, account_map)
        replace_file(output, written.encode())
    say(f"Wrote {written.count(chr(10)):,} lines to {output}.")


def _report(reach: Reach, request: Message, output: Path | None, picture: Picture | None = None) -> None:
    """Ask for a report, and show it or write it to the file that was asked for."""
    with readable():
        check_ending(output, picture)
        with reach.office() as office:
            answer = office.call(request.DESCRIPTOR.name.removesuffix("Request"), request)
        put(table_of(answer.table), output, picture)
