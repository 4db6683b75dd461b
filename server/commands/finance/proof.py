"""`tallypoint finance verify` and `rebuild`: the summaries and the closes worked out a second time, or written anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console

from ledger.finance.proof import verify_closes, verify_summary
from ledger.finance.summary import count_summed, rebuild_summary
from ledger.reading.books import read_units
from ledger.reading.journal import read_heads
from server.base.settings import Settings
from server.base.storage import open_ledger
from server.commands.common import DataDir, Embedded, Yes, confirm, load_settings, readable_errors
from server.commands.output.progress import progress
from server.finance.desk import READER, connected

T = TypeVar("T")

app = typer.Typer()

OWNER: Final = "tallypoint_owner"

Dsn = Annotated[str | None, typer.Option("--dsn", help="The ledger database; by default that of the settings.")]


def on_ledger(settings: Settings, work: Callable[[str], Awaitable[T]]) -> T:
    """Run work on the ledger database.

    Raises:
        typer.Exit: The database cannot be reached, or refuses; the reason was printed.
    """

    async def run(resolved: str) -> T:
        return await work(resolved)

    with readable_errors(), open_ledger(settings) as dsn:
        return asyncio.run(run(dsn))


@app.command("verify")
def verify_command(dsn: Dsn = None, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Add up summaries and closes a second time, from postings and receipts. Exit code 1 if anything differs."""

    async def work(dsn: str) -> list[str]:
        async with connected(dsn, READER) as conn:
            with progress("Verifying", await count_summed(conn), "entries") as advance:
                problems = [str(problem) for problem in await verify_summary(conn, advance)]
            for unit in (await read_units(conn)).values():
                problems += await verify_closes(conn, unit.number)
            return problems

    console = Console()
    problems = on_ledger(load_settings(ledger_dsn=dsn, data_dir=data_dir, embedded=embedded), work)
    for problem in problems:
        console.print(f"BAD: {problem}", style="red", highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    console.print("Verified: summaries and closes are what postings and receipts say.")


@app.command("rebuild")
def rebuild_command(dsn: Dsn = None, yes: Yes = False, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Write the summaries anew from the journal. Reports wait or see them grow meanwhile; closes stay as they are.

    The command asks first.
    """
    confirm("Write the summaries of all entries anew? Reports wait meanwhile, or see them grow.", yes=yes)

    async def work(dsn: str) -> int:
        async with connected(dsn, OWNER) as conn:
            total = sum(head.number for head in (await read_heads(conn)).values())
            with progress("Adding up", total, "entries") as advance:
                return await rebuild_summary(conn, advance)

    entries = on_ledger(load_settings(ledger_dsn=dsn, data_dir=data_dir, embedded=embedded), work)
    Console().print(f"Wrote the summaries of {entries:,} entries anew.", highlight=False)
