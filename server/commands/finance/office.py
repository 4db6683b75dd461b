"""What the commands of finance share: the back office, the options, and how a report is put out."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.message import Message
from rich.console import Console
from tallypoint.v1 import finance_pb2_grpc

from ledger.finance.table import Table
from server.commands.client import BackOfficeClient, back_office
from server.commands.common import errors, fail, load_settings
from server.commands.output.extra import CannotWriteError
from server.commands.output.files import WRITERS, write_file
from server.commands.output.pictures import ENDINGS, Picture, write_picture
from server.commands.output.terminal import report_console, show
from server.finance.account_map import AccountMapError

REPORT_TIMEOUT_SECONDS: Final = 1800.0
"""The first report after a year adds up the year."""


def first_day_of(text: str) -> date:
    """Read a day, or a month as its first day."""
    return _day(text, last=False)


def last_day_of(text: str) -> date:
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


AsOf = Annotated[int | None, typer.Option("--as-of", min=1, help="As of this close: the same figures for ever.")]
UnitCode = Annotated[str, typer.Option("--unit", help="The point unit; by default the programme's in effect.")]
From = Annotated[
    date | None, typer.Option("--from", parser=first_day_of, metavar="DAY", help="First accounting day, or its month.")
]
To = Annotated[
    date | None, typer.Option("--to", parser=last_day_of, metavar="DAY", help="Last accounting day, or its month.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="Write a file; its ending names the format.")
]
DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]


class Office:
    """The back office's FinanceService."""

    def __init__(self, client: BackOfficeClient) -> None:
        """Work over an open channel."""
        self.client = client
        self._stub = finance_pb2_grpc.FinanceServiceStub(client.channel)

    def call(self, method: str, request: Message) -> Any:  # noqa: ANN401 - the response type of the method named
        """Call a method by its name; a refusal is printed and ends the command."""
        call: Callable[..., Any] = getattr(self._stub, method)
        with errors.status("The back office adds up …"):
            return self.client.call(call, request, REPORT_TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True)
class Reach:
    """The options that say how the back office is reached."""

    address: str | None
    key: str | None
    tls_ca: Path | None
    data_dir: Path | None

    @contextmanager
    def office(self) -> Iterator[Office]:
        """Open the back office."""
        settings = load_settings(data_dir=self.data_dir)
        with back_office(settings, self.address, self.key, self.tls_ca) as client:
            yield Office(client)


def put(table: Table, output: Path | None, picture: Picture | None = None) -> None:
    """Show a report, or write it to the file that was asked for."""
    if output is None:
        show(table, report_console())
        return
    if picture is not None and output.suffix.lower() in ENDINGS:
        write_picture(table, picture, output)
    else:
        write_file(table, output)
    say(f"Wrote {len(table.rows):,} rows to {output}.")


def check_ending(output: Path | None, picture: Picture | None) -> None:
    """Refuse a file that cannot be written before the work is done for it."""
    endings = (*WRITERS, *(ENDINGS if picture is not None else ()))
    if output is not None and output.suffix.lower() not in endings:
        raise CannotWriteError(f"{output.name}: the file of this report ends in one of {' '.join(endings)}")


@contextmanager
def readable() -> Iterator[None]:
    """Turn what people can do something about into a message and an exit code."""
    try:
        yield
    except (CannotWriteError, AccountMapError) as error:
        raise fail(str(error)) from None


def say(text: str) -> None:
    """Tell people, beside what the command answers."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
