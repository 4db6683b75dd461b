"""The commands `tallypoint replay` and `tallypoint demo`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from benchmarks.replay.client import CallFailed
from benchmarks.replay.dataset import DatasetMissing
from benchmarks.replay.lanes import Plan
from benchmarks.replay.own_server import ServerFailed, Target, own_server
from benchmarks.replay.people import CardShape
from benchmarks.replay.report import ReplayReport, show
from benchmarks.replay.run import PROGRAMME, Options, replay
from benchmarks.replay.seed import SeedFailed

DEMO_MONTH: Final = "2017-03"
EXIT_NOT_CLEAN: Final = 1
EXIT_CANNOT_RUN: Final = 2
EXIT_INTERRUPTED: Final = 130
_PER_UNIT: Final = 1_000_000

app = typer.Typer()


@app.command("replay")
def replay_command(  # noqa: PLR0913, PLR0917  - one parameter is one option of the command
    month: Annotated[str, typer.Option(help="The month to replay, as YYYY-MM.")] = DEMO_MONTH,
    whole_year: Annotated[bool, typer.Option("--all", help="Replay the whole year 2017.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many baskets, the oldest first.")
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, max=1000, help="Checkouts at once.")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=64, help="Connections that the lanes share.")] = 16,
    redemption_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The share of baskets that spend all the points they may.")
    ] = 0.1,
    resend: Annotated[
        bool, typer.Option(help="Send receipts again that were answered in an earlier run.")
    ] = False,
    new_message_ids: Annotated[
        bool, typer.Option(help="Send stored receipts in new messages, as registers do.")
    ] = False,
    pos: Annotated[
        str | None,
        typer.Option(help="The POS port of a running server, host:port. None starts one of its own."),
    ] = None,
    backoffice: Annotated[
        str | None, typer.Option(help="The back-office port of that server, host:port.")
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(envvar="TALLYPOINT_ADMIN_KEY", help="A key of that server with the role admin."),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The server's certificate authority, PEM."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where the own server keeps its databases, and the registers their journal.")
    ] = Path(".data"),
    programme: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The programme file to publish first.")
    ] = PROGRAMME,
    card_scheme: Annotated[
        str, typer.Option(help="Card numbers to make: check digit and length, colon, prefix.")
    ] = "ean13:2",
    prove: Annotated[bool, typer.Option(help="Compare data set, ledger and CRM afterwards.")] = True,
) -> None:
    """Replay a real grocer's receipts through the API and prove what came of them.

    Can be interrupted and started again; run twice, the second run sends every receipt again and must change
    nothing.
    """
    console = Console()
    if (pos is None) != (backoffice is None) or (pos is not None and admin_key is None):
        raise typer.BadParameter(
            "--pos, --backoffice and --admin-key (or TALLYPOINT_ADMIN_KEY) belong together"
        )
    try:
        options = Options(
            month=None if whole_year else month,
            limit=limit,
            lanes=lanes,
            channels=channels,
            plan=Plan(
                redemption_per_million=round(redemption_rate * _PER_UNIT), new_message_ids=new_message_ids
            ),
            resend=resend,
            programme_text=programme.read_text(encoding="utf-8"),
            programme_file=programme.name,
            card_shape=CardShape.parse(card_scheme),
            prove=prove,
            root_certificates=tls_ca.read_bytes() if tls_ca else None,
        )
        server: AbstractContextManager[Target]
        if pos and backoffice and admin_key:
            server = nullcontext(Target(pos, backoffice, admin_key))
        else:
            server = own_server(data_dir)
        report = run(server, options, data_dir, console)
    except KeyboardInterrupt as interrupt:
        console.print("\nStopped. The same command goes on where this one was interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt
    except (DatasetMissing, ServerFailed, SeedFailed, CallFailed, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(EXIT_CANNOT_RUN) from error
    show(report, console)
    raise typer.Exit(0 if report.clean else EXIT_NOT_CLEAN)


@app.command("demo")
def demo_command(
    month: Annotated[str, typer.Option(help="The month to replay, as YYYY-MM.")] = DEMO_MONTH,
    data_dir: Annotated[Path, typer.Option(help="Where databases and journal are kept.")] = Path(
        ".data/demo"
    ),
) -> None:
    """Start everything on an embedded database, replay a month of real receipts, and print a report."""
    replay_command(month=month, data_dir=data_dir)


def run(
    server: AbstractContextManager[Target], options: Options, data_dir: Path, console: Console
) -> ReplayReport:
    """Replay against a server that runs as long as its context."""
    console.print("Starting ...")
    with server as target:
        console.print(f"POS port {target.pos_address}, back-office port {target.backoffice_address}")
        return _on_uvloop(replay(target, options, data_dir / "replay", console))


def _on_uvloop(work: Coroutine[None, None, ReplayReport]) -> ReplayReport:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
