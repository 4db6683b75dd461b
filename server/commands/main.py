"""The command `tallypoint`. Each feature brings its own sub-commands; this module only mounts them."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from server.base.settings import check_production, variable_of
from server.commands.common import DataDir, Embedded, fail, load_settings, readable_errors


class Mounted(NamedTuple):
    """Sub-commands of a feature: the module whose `app` has them, and one line of help."""

    module: str
    help: str


MOUNTED: Final = {
    "corrections": Mounted(
        "server.commands.corrections", "Points granted, taken or moved by hand, and their approval."
    ),
    "coupons": Mounted("server.commands.coupons", "Load, generate, show and block coupons."),
    "crm": Mounted("server.commands.crm", "Show how far the CRM database is behind the ledger."),
    "demo": Mounted("benchmarks.replay.cli", "Start everything, replay a month of real receipts, print a report."),
    "finance": Mounted("server.commands.finance.app", "Reports, point values, closing days and months."),
    "keys": Mounted("server.commands.keys", "Issue and revoke keys of the back office."),
    "ledger": Mounted("server.commands.ledger", "Verify the books; rebuild what is computed from them."),
    "members": Mounted(
        "server.commands.members",
        "Show, find, block, change and import members; replace cards; merge two records of one person.",
    ),
    "offers": Mounted("server.commands.offers", "Assign promotions to members; show what a member has."),
    "products": Mounted("server.commands.products", "Load the catalogue from a CSV file; show an article."),
    "reconcile": Mounted("server.commands.reconcile", "Registers' day totals against the ledger, and the breaks."),
    "replay": Mounted("benchmarks.replay.cli", "Replay real receipts through the API and prove the result."),
    "rules": Mounted(
        "server.commands.programme.app",
        "The programme: check, try, publish and roll back its versions; explain receipts.",
    ),
    "segments": Mounted("server.commands.segments", "Put members into segments from a CSV file; count them."),
    "stores": Mounted("server.commands.stores", "Stores, and the keys of their terminals."),
}


ALIASES: Final = {"programme": "rules"}
"""Names that commands had before; they are not listed."""


class LazyGroup(TyperGroup):
    """Imports a feature's commands only when they are used: `serve` and `--help` need none of their libraries.

    The types of contexts and commands are not public in typer, so they stand as Any.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - see the class
        """Name our own commands and the mounted ones."""
        return sorted({*super().list_commands(ctx), *MOUNTED})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - see the class
        """Return a command for the help; a mounted one is a name with a line of text."""
        if cmd_name not in MOUNTED:
            return super().get_command(ctx, cmd_name)
        shown = typer.Typer()
        shown.command(cmd_name, help=MOUNTED[cmd_name].help)(lambda: None)
        return typer.main.get_command(shown)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - see the class
        """Return the command to run; a mounted one is imported now."""
        name = ALIASES.get(args[0], args[0]) if args else ""
        if name in MOUNTED:
            return name, _imported(name), args[1:]
        return super().resolve_command(ctx, args)


def _imported(name: str) -> Any:  # noqa: ANN401 - see LazyGroup
    try:
        feature = importlib.import_module(MOUNTED[name].module)
    except ModuleNotFoundError as error:
        raise fail(
            f"'tallypoint {name}' needs the package {error.name}, which is not installed; "
            f"'make setup' installs everything"
        ) from None
    group: Any = typer.main.get_group(feature.app)
    # A module may have several of our commands; one that has only sub-commands is mounted whole.
    return group.commands.get(name, group)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tallypoint: a grocery chain's loyalty processing.",
)


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    data_dir: DataDir = None,
    embedded: Embedded = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the POS port.")] = None,
    development: Annotated[
        bool | None,
        typer.Option("--development", help="Embedded databases, and a secret and keys of its own, for trying out."),
    ] = None,
    pos_listen: Annotated[str | None, typer.Option(help="Registers: host:port; port 0 takes a free one.")] = None,
    backoffice_listen: Annotated[str | None, typer.Option(help="The back office: host:port.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="Prometheus: host:port.")] = None,
    ledger_dsn: Annotated[str | None, typer.Option(help="The ledger database.")] = None,
    crm_dsn: Annotated[str | None, typer.Option(help="The CRM database.")] = None,
    books: Annotated[int | None, typer.Option(help="Books of a new ledger.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The server's certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Clients must have a certificate of this CA, PEM.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the service until SIGTERM. All other settings come from the environment or tallypoint.toml."""
    settings = load_settings(**locals())
    with readable_errors():
        check_production(settings)  # before anything is stored
    from server.measuring.directory import use_metrics_directory

    use_metrics_directory(settings.data_dir)  # before anything imports prometheus_client
    from server.process.supervisor import serve as run

    with readable_errors():
        raise typer.Exit(run(settings))


@app.command()
def migrate(
    data_dir: DataDir = None,
    embedded: Embedded = None,
    books: Annotated[int | None, typer.Option(help="Books of a new ledger.")] = None,
) -> None:
    """Bring both databases up to date and open the books of a new ledger."""
    settings = load_settings(data_dir=data_dir, embedded=embedded, books=books)
    from server.base.storage import open_databases
    from server.process.opening import bring_up_to_date

    with readable_errors(), open_databases(settings) as databases:
        applied = asyncio.run(bring_up_to_date(databases.dsns, settings))
    console = Console(highlight=False)
    for name in applied:
        console.print(f"applied {name}", markup=False)
    console.print("The databases are up to date.")


@app.command("settings")
def show_settings(data_dir: DataDir = None) -> None:
    """Show all settings with their environment variables; secrets are masked."""
    settings = load_settings(data_dir=data_dir)
    table = Table()
    for title in ("setting", "value", "environment variable", "meaning"):
        table.add_column(title, overflow="fold", no_wrap=title == "environment variable")  # to be copied, so uncut
    for name, value in settings.masked().items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        meaning = type(settings).model_fields[name].description or ""
        table.add_row(name, "" if value is None else text, variable_of(name), meaning)
    Console().print(table)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
