"""`tallypoint finance`: finance's questions, answered on the terminal, in files and in pictures; and closing."""

from __future__ import annotations

import calendar
import getpass
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.console import Console

from ledger.finance.breakage import breakage
from ledger.finance.closing import DAY, MONTH, ClosedPeriod, CloseRefused, close_books, last_day_of_month, read_closes
from ledger.finance.general_ledger import read_journal
from ledger.finance.liability import roll_forward, trial_balance
from ledger.finance.partners import partner_settlement
from ledger.finance.point_value import MILLION, PointValue, read_point_values, record_point_value
from ledger.finance.profile import age_profile, expiry_profile
from ledger.finance.redemption import redemption_rate
from ledger.finance.rounding import half_up
from ledger.finance.scope import Programme, Query, QueryError
from ledger.finance.statement import member_statement
from ledger.finance.summary import SummaryError, count_pending
from ledger.finance.table import Column, Table
from server.clock import utc_now
from server.command import Yes, confirm, fail
from server.finance import proof
from server.finance.account_map import AccountMapError, load_account_map
from server.finance.beancount import beancount_text, read_checks
from server.finance.desk import (
    READER,
    WRITER,
    NotFoundError,
    connected,
    on_ledger,
    read_programme,
    snapshot,
    summing,
)
from server.finance.extra import CannotWriteError
from server.finance.files import WRITERS, replace_file, write_file
from server.finance.general_ledger import journal_table
from server.finance.pictures import ENDINGS, Picture, write_picture
from server.finance.terminal import report_console, show

if TYPE_CHECKING:
    from server.database import Connection

app = typer.Typer(no_args_is_help=True, help="Finance: reports, point values, closing days and months.")
point_value = typer.Typer(no_args_is_help=True, help="What a point is worth, and how many are never redeemed.")
app.add_typer(point_value, name="point-value")
app.add_typer(proof.app)

BEANCOUNT: Final = ".beancount"
EXIT_REFUSED: Final = 1


def _first_day(text: str) -> date:
    """Read a day, or a month as its first day."""
    return _day(text, last=False)


def _last_day(text: str) -> date:
    """Read a day, or a month as its last day."""
    return _day(text, last=True)


def _day(text: str, *, last: bool) -> date:
    try:
        if text.count("-") == 1:
            month = date.fromisoformat(f"{text}-01")
            return month.replace(day=calendar.monthrange(month.year, month.month)[1]) if last else month
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a day such as 2026-03-31 nor a month such as 2026-03") from None


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


class Period(Enum):
    """How long a closed period is."""

    DAY = "day"
    MONTH = "month"


AsOf = Annotated[int | None, typer.Option("--as-of", min=1, help="As of this close: the same figures for ever.")]
UnitCode = Annotated[str, typer.Option("--unit", help="The point unit; by default the programme's in effect.")]
From = Annotated[
    date | None, typer.Option("--from", parser=_first_day, metavar="DAY", help="First accounting day, or its month.")
]
To = Annotated[
    date | None, typer.Option("--to", parser=_last_day, metavar="DAY", help="Last accounting day, or its month.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="Write a file; its ending names the format.")
]
Dsn = Annotated[str | None, typer.Option("--dsn", help="The ledger database; by default that of the settings.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded databases are, when no DSN is set.")]
Who = Annotated[str, typer.Option("--by", help="Who does it, for the record; by default this machine's user.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that all reports have."""

    as_of: int | None
    unit: str
    from_day: date | None
    to_day: date | None
    output: Path | None
    dsn: str | None
    data_dir: Path | None

    def query(self, programme: Programme) -> Query:
        """Return the query of a report."""
        return Query(programme=programme, as_of=self.as_of, from_day=self.from_day, to_day=self.to_day)


Report = Callable[["Connection", Query], Awaitable[Table]]
T = TypeVar("T")


# --- reports ------------------------------------------------------------------------------------------------------


@app.command("trial-balance")
def trial_balance_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show every account with its debits, credits and balance; the balances sum to zero."""
    _report(Asked(as_of, unit, None, to_day, output, dsn, data_dir), trial_balance)


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
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Roll the liability forward: opening + issued - redeemed - expired + adjusted = closing. .svg draws it."""
    asked = Asked(as_of, unit, from_day, to_day, output, dsn, data_dir)

    async def report(conn: Connection, query: Query) -> Table:
        chosen = Query(
            programme=query.programme,
            as_of=query.as_of,
            from_day=query.from_day,
            to_day=query.to_day,
            store_id=store,
            by=by.value,
            measure=measure.value,
        )
        return await roll_forward(conn, chosen)

    over_time = by in {Rows.DAY, Rows.MONTH}
    picture = Picture("line", by.value, f"closing_{measure.value}") if over_time else None
    _report(asked, report, picture)


@app.command("statement")
def statement_command(
    member: Annotated[str, typer.Argument(help="The member's id (a UUID), card number or phone number.")],
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show a member's opening balance, every movement with receipt, promotions and lot, and the closing balance."""

    async def report(conn: Connection, query: Query) -> Table:
        return await member_statement(conn, query, await _member_id(conn, member))

    _report(Asked(as_of, unit, from_day, to_day, output, dsn, data_dir), report)


@app.command("breakage")
def breakage_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by issue month, what became of points, and the revenue that is recognised and deferred (IFRS 15)."""
    _report(Asked(as_of, unit, None, to_day, output, dsn, data_dir), breakage)


@app.command("age")
def age_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show what is outstanding by the month in which it was issued. .svg and .png draw it."""
    picture = Picture("bars", "issue_month", "points", only=("part", "lots"))
    _report(Asked(as_of, unit, None, to_day, output, dsn, data_dir), age_profile, picture)


@app.command("expiry")
def expiry_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show what is outstanding by the month in which it lapses. .svg and .png draw it."""
    picture = Picture("bars", "expiry_month", "points", no_month="never", only=("part", "lots"))
    _report(Asked(as_of, unit, None, to_day, output, dsn, data_dir), expiry_profile, picture)


@app.command("redemption-rate")
def redemption_rate_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by month, what was issued and redeemed in it, and how much of what was issued in it is redeemed."""
    _report(Asked(as_of, unit, from_day, to_day, output, dsn, data_dir), redemption_rate)


@app.command("partners")
def partners_command(
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Show, by month and coalition partner, what was issued at its expense, redeemed in its stores, and is owed."""
    _report(Asked(as_of, unit, from_day, to_day, output, dsn, data_dir), partner_settlement)


@app.command("general-ledger")
def general_ledger_command(
    accounts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Your account map (TOML), over the built-in one.")
    ] = None,
    as_of: AsOf = None,
    unit: UnitCode = "",
    from_day: From = None,
    to_day: To = None,
    output: Output = None,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Make the general ledger's journal, a document for each day and kind of event. .beancount writes it as text."""
    asked = Asked(as_of, unit, from_day, to_day, output, dsn, data_dir)
    with _readable():
        account_map = load_account_map(accounts)
    if output is None or output.suffix.lower() != BEANCOUNT:

        async def report(conn: Connection, query: Query) -> Table:
            return journal_table(await read_journal(conn, query), account_map)

        _report(asked, report)
        return

    async def text(conn: Connection, query: Query) -> str:
        journal = await read_journal(conn, query)
        return beancount_text(journal, await read_checks(conn, query, journal, account_map), account_map)

    with _readable():
        written = _answer(asked, text)
        replace_file(output, written.encode())
    _say(f"Wrote {written.count(chr(10)):,} lines to {output}.")


def _report(asked: Asked, report: Report, picture: Picture | None = None) -> None:
    """Run a report, and show it or write it to the file that was asked for."""
    with _readable():
        _check_ending(asked.output, picture)
        table = _answer(asked, report)
        if asked.output is None:
            show(table, report_console())
            return
        if picture is not None and asked.output.suffix.lower() in ENDINGS:
            write_picture(table, picture, asked.output)
        else:
            write_file(table, asked.output)
    _say(f"Wrote {len(table.rows):,} rows to {asked.output}.")


def _check_ending(output: Path | None, picture: Picture | None) -> None:
    """Refuse a file that cannot be written before the work is done for it."""
    endings = (*WRITERS, *(ENDINGS if picture is not None else ()))
    if output is not None and output.suffix.lower() not in endings:
        raise CannotWriteError(f"{output.name}: the file of this report ends in one of {' '.join(endings)}")


def _answer(asked: Asked, question: Callable[[Connection, Query], Awaitable[T]]) -> T:
    async def work(dsn: str) -> T:
        async with snapshot(dsn) as conn:
            return await question(conn, asked.query(await read_programme(conn, asked.unit)))

    return on_ledger(asked.dsn, asked.data_dir, work)


# Find a member by a card number or a phone number, as they stand in the member's record.
FIND_MEMBER: Final = "SELECT member_id FROM server.member WHERE $1 = ANY (card_numbers) OR phone = $1 LIMIT 2"


async def _member_id(conn: Connection, text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        found: list[uuid.UUID] = [row["member_id"] for row in await conn.fetch(FIND_MEMBER, text)]
    if len(found) != 1:
        raise NotFoundError(f"{text!r} is neither a member's id nor the card or phone number of one member")
    return found[0]


# --- closing ------------------------------------------------------------------------------------------------------


@app.command("close")
def close_command(
    period: Annotated[Period, typer.Argument(help="What is closed.")],
    last_day: Annotated[
        date, typer.Argument(parser=_last_day, metavar="DAY", help="2026-03-31, or the month 2026-03.")
    ],
    unit: UnitCode = "",
    closed_by: Who = "",
    yes: Yes = False,
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Close a day or a month with everything before it. What is booked later counts for the next open day.

    It cannot be undone, so the command asks first.
    """
    chosen = last_day_of_month(last_day) if period is Period.MONTH else last_day
    number = MONTH if period is Period.MONTH else DAY

    async def look(dsn: str) -> tuple[Programme, list[ClosedPeriod]]:
        async with connected(dsn, READER) as conn:
            programme = await read_programme(conn, unit)
            return programme, await read_closes(conn, programme.unit.number)

    async def work(dsn: str) -> tuple[ClosedPeriod, Programme]:
        async with connected(dsn, WRITER) as conn:
            programme = await read_programme(conn, unit)
            with summing(await count_pending(conn)) as advance:
                closed = await close_books(conn, programme, number, chosen, closed_by or _user(), utc_now(), advance)
            return closed, programme

    with _readable():
        if not yes:
            programme, closes = on_ledger(dsn, data_dir, look)
            _say(_to_be_closed(programme, number, chosen, closes))
            unit = programme.unit.code  # what people agree to, even if another programme takes effect meanwhile
        confirm("Close for good?", yes=yes)
        closed, programme = on_ledger(dsn, data_dir, work)
        show(_closes_table([closed], programme), report_console())


def _to_be_closed(programme: Programme, period: int, last_day: date, closes: list[ClosedPeriod]) -> str:
    what = f"the month {last_day:%Y-%m}" if period == MONTH else f"the day {last_day}"
    newest = closes[-1].row if closes else None
    so_far = f"close {newest.close_number}, up to {newest.last_day}" if newest else "none"
    return (
        f"to be closed: {what} and every earlier day that is still open, for points of {programme.unit.code} "
        f"(programme {programme.code})\nlast close:   {so_far}"
    )


@app.command("closes")
def closes_command(unit: UnitCode = "", output: Output = None, dsn: Dsn = None, data_dir: DataDir = None) -> None:
    """List the closes, oldest first; reports take their numbers as --as-of."""

    async def closes(conn: Connection, query: Query) -> Table:
        return _closes_table(await read_closes(conn, query.programme.unit.number), query.programme)

    _report(Asked(None, unit, None, None, output, dsn, data_dir), closes)


def _closes_table(closes: list[ClosedPeriod], programme: Programme) -> Table:
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
            row.close_number,
            Period.MONTH.value if row.period == MONTH else Period.DAY.value,
            row.from_day,
            row.last_day,
            row.closed_at,
            row.closed_by,
            row.point_value_version or None,
            frozen.digest.hex() if frozen else "not frozen yet",
            f"{frozen.book}:{frozen.number}" if frozen else None,
        )
        for row, frozen in closes
    ]
    return Table(f"Closes of {programme.unit.code}", columns, tuple(rows))


# --- what a point is worth ----------------------------------------------------------------------------------------


@point_value.command("list")
def list_point_values(unit: UnitCode = "", output: Output = None, dsn: Dsn = None, data_dir: DataDir = None) -> None:
    """List all versions, oldest first."""

    async def values(conn: Connection, query: Query) -> Table:
        versions = await read_point_values(conn, query.programme.unit.number)
        return _values_table(versions, query.programme)

    _report(Asked(None, unit, None, None, output, dsn, data_dir), values)


@point_value.command("set")
def set_point_value(
    value: Annotated[Fraction, typer.Option(parser=_amount, metavar="AMOUNT", help="What one point pays, in money.")],
    breakage_share: Annotated[
        Fraction, typer.Option("--breakage", parser=_share, metavar="SHARE", help="Never redeemed: 12.5% or 0.125.")
    ],
    from_month: Annotated[
        date,
        typer.Option(parser=_first_day, metavar="MONTH", help="For points issued from this month on."),
    ],
    unit: UnitCode = "",
    recorded_by: Who = "",
    dsn: Dsn = None,
    data_dir: DataDir = None,
) -> None:
    """Record a further version. Reports as of earlier closes keep the versions that they had."""
    ppm = breakage_share * MILLION
    if ppm.denominator != 1 or not 0 <= ppm <= MILLION:
        raise typer.BadParameter("breakage is a share from 0% to 100% with at most four decimal places of a per cent")

    async def work(dsn: str) -> tuple[PointValue, Programme]:
        async with connected(dsn, WRITER) as conn:
            programme = await read_programme(conn, unit)
            money = value * Fraction(10**programme.currency_digits, 10**programme.unit.precision)
            recorded = await record_point_value(
                conn,
                programme.unit.number,
                from_month=from_month,
                value_money_minor=money.numerator,
                value_points_minor=money.denominator,
                breakage_ppm=int(ppm),
                recorded_at=utc_now(),
                recorded_by=recorded_by or _user(),
            )
            return recorded, programme

    with _readable():
        recorded, programme = on_ledger(dsn, data_dir, work)
        show(_values_table([recorded], programme), report_console())


VALUE_DECIMALS: Final = 6
"""Decimal places in which the value of one point is shown; what is recorded is exact."""


def _values_table(versions: list[PointValue], programme: Programme) -> Table:
    per_point = Fraction(10**programme.unit.precision, 10**programme.currency_digits) * 10**VALUE_DECIMALS
    columns = (
        Column("version", "Version", "integer"),
        Column("from_month", "From month", "day"),
        Column("value", f"Value of a point, {programme.currency}", "money", VALUE_DECIMALS),
        Column("breakage", "Breakage", "ratio"),
        Column("recorded_at", "Recorded at", "moment"),
        Column("recorded_by", "Recorded by", "text"),
    )
    rows = [
        (
            each.version,
            each.from_month,
            half_up(Fraction(each.value_money_minor, each.value_points_minor) * per_point),
            Fraction(each.breakage_ppm, MILLION),
            each.recorded_at,
            each.recorded_by,
        )
        for each in versions
    ]
    note = f"Months that no version covers: what the programme pays, without breakage ({programme.code})."
    return Table(f"Value of points of {programme.unit.code}", columns, tuple(rows), (note,))


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what people can do something about into a message and an exit code."""
    try:
        yield
    except (CannotWriteError, AccountMapError, NotFoundError) as error:
        raise fail(str(error)) from None
    except QueryError as error:
        raise fail(f"{_OPTIONS.get(error.field, error.field)}: {error}") from None
    except SummaryError as error:
        raise fail(f"{error}. Run `tallypoint ledger verify`.") from None
    except CloseRefused as error:
        fail(str(error))
        raise typer.Exit(EXIT_REFUSED) from None


_OPTIONS: Final = {"as_of_close": "--as-of", "from_day": "--from", "to_day": "--to"}
"""What the fields of a query are called here."""


def _user() -> str:
    """Return the name of this machine's user, for the record."""
    return getpass.getuser()


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
