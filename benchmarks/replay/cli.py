"""The commands `tallypoint replay` and `tallypoint demo`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from benchmarks.replay.client import CallFailed
from benchmarks.replay.dataset import DatasetMissing, load
from benchmarks.replay.lanes import Plan
from benchmarks.replay.own_server import ServerFailed, Target, own_server
from benchmarks.replay.people import CardShape
from benchmarks.replay.report import show
from benchmarks.replay.run import PROGRAMME, Options, replay
from benchmarks.replay.seed import SeedFailed
from server.commands.common import Yes, confirm

DEMO_MONTH: Final = "2017-03"
DATA_DIR: Final = Path(".data")
EXIT_NOT_CLEAN: Final = 1
EXIT_CANNOT_RUN: Final = 2
EXIT_INTERRUPTED: Final = 130
_PER_UNIT: Final = 1_000_000

app = typer.Typer()


Month = Annotated[str, typer.Option(help="The month to replay, as YYYY-MM.")]


@app.command("replay")
def replay_command(  # noqa: PLR0913, PLR0917 - one parameter is one option of the command
    month: Month = DEMO_MONTH,
    whole_year: Annotated[bool, typer.Option("--all", help="Replay the whole year 2017.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many baskets, the oldest first.")] = None,
    lanes: Annotated[int, typer.Option(min=1, max=1000, help="Checkouts at once.")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=64, help="Connections that the lanes share.")] = 16,
    redemption_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of baskets paid with points.")] = 0.1,
    resend: Annotated[bool, typer.Option(help="Send again what was answered in an earlier run.")] = False,
    new_message_ids: Annotated[bool, typer.Option(help="Send again in new messages, as registers do.")] = False,
    pos: Annotated[str | None, typer.Option(help="POS port of a running server; none starts one.")] = None,
    backoffice: Annotated[str | None, typer.Option(help="Back-office port of that server.")] = None,
    admin_key: Annotated[str | None, typer.Option(envvar="TALLYPOINT_ADMIN_KEY", help="A key of role admin.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(exists=True, help="The server's certificate authority, PEM.")] = None,
    data_dir: Annotated[
        Path, typer.Option(help="For the own server's databases and the registers' journal.")
    ] = DATA_DIR,
    programme: Annotated[Path, typer.Option(exists=True, help="The programme file to publish first.")] = PROGRAMME,
    return_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of the baskets of which goods come back.")] = (
        0.03
    ),
    close: Annotated[
        bool | None, typer.Option(help="Close the books after each month; by default if all of it is replayed.")
    ] = None,
    campaigns: Annotated[
        bool, typer.Option(help="Add the data set's own campaigns, and present the coupons that were redeemed.")
    ] = False,
    card_scheme: Annotated[str, typer.Option(help="Cards to make: check and digits, colon, prefix.")] = "ean13:2",
    prove: Annotated[bool, typer.Option(help="Compare data set, ledger and CRM afterwards.")] = True,
    yes: Yes = False,
) -> None:
    """Replay a real grocer's receipts through the API and prove what came of them.

    Can be interrupted and started again; run twice, the second run sends every receipt again and must change
    nothing.
    """
    with _readable_errors():
        server = _server(pos, backoffice, admin_key, data_dir)
        if pos is not None:
            confirm(
                f"Publish {programme.name} on the server at {backoffice}, and book receipts of made-up members in its "
                "ledger, for good?",
                yes=yes,
            )
        options = Options(
            month=None if whole_year else month,
            limit=limit,
            lanes=lanes,
            channels=channels,
            plan=Plan(redemption_per_million=round(redemption_rate * _PER_UNIT), new_message_ids=new_message_ids),
            returns_per_million=round(return_rate * _PER_UNIT),
            close_months=close,
            campaigns=campaigns,
            resend=resend,
            programme_text=programme.read_text(encoding="utf-8"),
            programme_file=programme.name,
            card_shape=CardShape.parse(card_scheme),
            prove=prove,
            root_certificates=tls_ca.read_bytes() if tls_ca else None,
        )
        _run(server, options, data_dir)


@app.command("demo")
def demo_command(
    month: Month = DEMO_MONTH,
    data_dir: Annotated[Path, typer.Option(help="For databases and the registers' journal.")] = DATA_DIR / "demo",
) -> None:
    """Start everything on an embedded database, replay a month of real receipts, and print a report."""
    with _readable_errors():
        _run(own_server(data_dir), Options(month=month), data_dir)


def _server(
    pos: str | None, backoffice: str | None, admin_key: str | None, data_dir: Path
) -> AbstractContextManager[Target]:
    """The running server that the options name, or one of our own."""
    if pos is None and backoffice is None:
        return own_server(data_dir)
    if not (pos and backoffice and admin_key):
        raise typer.BadParameter("--pos, --backoffice and --admin-key (or TALLYPOINT_ADMIN_KEY) belong together")
    return nullcontext(Target(pos, backoffice, admin_key))


def _run(server: AbstractContextManager[Target], options: Options, data_dir: Path) -> None:
    """Replay while the server's context lasts, print the report, and exit with 1 if not everything holds."""
    console = Console()
    console.print("Reading a year of receipts ...")
    load().select(options.month, options.limit)  # what refuses does so before anything is stored
    console.print("Starting ...")
    with server as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        console.print(f"POS port {target.pos_address}, back-office port {target.backoffice_address}")
        report = runner.run(replay(target, options, data_dir / "replay", console))
    show(report, console)
    raise typer.Exit(0 if report.clean else EXIT_NOT_CLEAN)


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Say in words why there is no replay."""
    console = Console(stderr=True)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        console.print("\nStopped. The same command goes on where this one was interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt
    except (DatasetMissing, ServerFailed, SeedFailed, CallFailed, ValueError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_CANNOT_RUN) from error
