"""`tallypoint ledger`: prove the books, write their caches anew, show their heads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from ledger.caches import JournalError
from ledger.journal import read_heads
from ledger.rebuild import rebuild as rebuild_caches
from ledger.verify import BookReport
from ledger.verify import verify as verify_books
from server.progress import progress
from server.settings import Settings
from server.storage import open_databases

app = typer.Typer(help="Prove the books, write their caches anew, show their heads.", no_args_is_help=True)
T = TypeVar("T")

DsnOption = Annotated[
    str | None,
    typer.Option("--dsn", help="The ledger database; by default the one of the settings, embedded if none is given."),
]


@app.command()
def verify(dsn: DsnOption = None) -> None:
    """Recompute every chain, sum and cache; name the first bad entry of each book. Exit code 1 if there is one."""
    reports = _with_ledger(dsn, "tallypoint_reader", _verify)
    console = Console()
    table = Table("book", "entries", "postings", "head", "verdict", title="Ledger")
    for report in reports:
        verdict = "[green]sound[/]" if report.problem is None else f"[red]{report.problem.what}[/]"
        number = f"{report.entries:,}"
        table.add_row(str(report.book), number, f"{report.postings:,}", report.hash.hex()[:16], verdict)
    console.print(table)
    bad = [report.problem for report in reports if report.problem is not None]
    for problem in bad:
        console.print(f"BAD: {problem}", style="red", highlight=False, soft_wrap=True)
    if bad:
        raise typer.Exit(1)
    entries = sum(report.entries for report in reports)
    console.print(f"Verified: {entries:,} entries in {len(reports)} books, chains, sums and caches are sound.")


async def _verify(conn: asyncpg.Connection) -> list[BookReport]:
    total = sum(head.number for head in (await read_heads(conn)).values())
    with progress("Verifying", total, "entries") as advance:
        return await verify_books(conn, advance)


@app.command()
def rebuild(dsn: DsnOption = None) -> None:
    """Write balances, lots, totals and keys anew from the journal. Each book waits while its own caches are written."""
    try:
        entries = _with_ledger(dsn, "tallypoint_owner", _rebuild)
    except JournalError as error:
        typer.echo(f"The journal cannot be added up: {error}. Run `tallypoint ledger verify` first.", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Rebuilt the caches of {entries:,} entries.")


async def _rebuild(conn: asyncpg.Connection) -> int:
    total = sum(head.number for head in (await read_heads(conn)).values())
    with progress("Rebuilding", total, "entries") as advance:
        return await rebuild_caches(conn, advance)


@app.command()
def heads(dsn: DsnOption = None) -> None:
    """Show the newest entry of every book."""
    table = Table("book", "entries", "booked at", "hash", title="Heads")
    for book, head in _with_ledger(dsn, "tallypoint_reader", read_heads).items():
        booked_at = head.booked_at.isoformat() if head.number else "-"
        table.add_row(str(book), f"{head.number:,}", booked_at, head.hash.hex())
    Console().print(table)


def _with_ledger(dsn: str | None, role: str, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
    """Run work over one connection that has a role's rights."""

    async def run(resolved: str) -> T:
        conn = await asyncpg.connect(resolved, server_settings={"role": role})
        try:
            return await work(conn)
        finally:
            await conn.close()

    if dsn is not None:
        return asyncio.run(run(dsn))
    with open_databases(Settings()) as databases:
        return asyncio.run(run(databases.dsns.ledger))
