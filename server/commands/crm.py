"""`tallypoint crm`: how far the CRM database has come, and whether it tells the same as the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ledger.reading.books import read_identity
from ledger.reading.journal import read_heads, read_oldest_waiting
from server.base.clock import utc_now
from server.base.settings import Settings
from server.base.storage import Dsns, open_databases
from server.commands.common import DataDir, Embedded, load_settings, readable_errors
from server.commands.output.progress import progress
from server.crm import source, store
from server.crm.compare import PATIENCE_SECONDS, Comparison
from server.crm.compare import compare as compare_databases
from server.crm.reconcile import BookReconciliation
from server.crm.reconcile import reconcile as reconcile_databases
from server.crm.store import Cursor, ForeignLedgerError
from server.crm.tables import TABLES

if TYPE_CHECKING:
    from server.base.database import Connection

EXIT_DIFFERENT: Final = 1
NOT_STARTED: Final = "not started"
FOREIGN: Final = "foreign ledger"

app = typer.Typer(help="The CRM database: how far it has come, and whether it is right.", no_args_is_help=True)
T = TypeVar("T")

LedgerOption = Annotated[
    str | None, typer.Option("--ledger-dsn", help="The ledger database; by default the one of the settings.")
]
CrmOption = Annotated[
    str | None, typer.Option("--crm-dsn", help="The CRM database; by default the one of the settings.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@dataclass(frozen=True, slots=True)
class BookStatus:
    """How far one book has been applied."""

    book: int
    ledger_number: int
    crm_number: int
    lag_entries: int
    lag_seconds: float
    state: str
    reason: str


@app.command()
def status(
    ledger_dsn: LedgerOption = None,
    crm_dsn: CrmOption = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
) -> None:
    """Show the ledger's head, the CRM's cursor and the lag of every book. Exit code 1 if a book has stopped."""
    books = _with_both(_settings(ledger_dsn, crm_dsn, data_dir, embedded), read_status)
    healthy = all(book.state in (store.FOLLOWING, NOT_STARTED) for book in books)
    if as_json:
        summary = {
            "lag_entries": sum(book.lag_entries for book in books),
            "lag_seconds": max((book.lag_seconds for book in books), default=0.0),
            "healthy": healthy,
            "books": [asdict(book) for book in books],
        }
        typer.echo(json.dumps(summary))
    else:
        _print_status(books)
    if not healthy:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def compare(
    ledger_dsn: LedgerOption = None,
    crm_dsn: CrmOption = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait for the CRM database to catch up first.")
    ] = PATIENCE_SECONDS,
) -> None:
    """Compare every receipt, line, points movement and member with the ledger. Exit code 1 if anything differs."""

    async def work(ledger_conn: Connection, crm_conn: Connection) -> Comparison:
        heads = await read_heads(ledger_conn)
        with progress("Comparing", sum(head.number for head in heads.values()), "entries") as advance:
            done = 0

            def report(entries: int, _: int) -> None:
                nonlocal done
                advance(entries - done)
                done = entries

            return await compare_databases(ledger_conn, crm_conn, report, patience_seconds=wait_seconds)

    result = _with_both(_settings(ledger_dsn, crm_dsn, data_dir, embedded), work)
    if as_json:
        differences = [difference._asdict() for difference in result.differences]
        typer.echo(json.dumps({**asdict(result), "differences": differences, "equal": result.equal}))
    else:
        _print_comparison(result)
    if not result.equal:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command()
def reconcile(
    ledger_dsn: LedgerOption = None,
    crm_dsn: CrmOption = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
    as_json: JsonOption = False,
) -> None:
    """Hold counts, sums of points and chain heads of every book against the ledger. Exit code 1 if anything differs."""
    books = _with_both(_settings(ledger_dsn, crm_dsn, data_dir, embedded), reconcile_databases)
    equal = all(book.equal for book in books)
    if as_json:
        typer.echo(json.dumps({"equal": equal, "books": [_book_json(book) for book in books]}))
    else:
        _print_reconciliation(books)
    if not equal:
        raise typer.Exit(EXIT_DIFFERENT)


def _book_json(book: BookReconciliation) -> dict[str, object]:
    lines = [{**line._asdict(), "equal": line.equal} for line in book.lines]
    return {"book": book.book, "waiting": book.waiting, "equal": book.equal, "lines": lines}


async def read_status(ledger_conn: Connection, crm_conn: Connection) -> list[BookStatus]:
    """Return how far every book of the ledger has been applied, as of now."""
    identity = await read_identity(ledger_conn)
    cursors = await store.read_cursors(crm_conn)
    heads = await read_heads(ledger_conn)
    positions = {book: cursors[book].number if book in cursors else 0 for book in heads}
    oldest = await read_oldest_waiting(ledger_conn, positions)
    foreign = ""
    try:
        store.check_identity(cursors, identity)
    except ForeignLedgerError as error:
        foreign = str(error)
    now = utc_now()
    return [
        BookStatus(
            book=book,
            ledger_number=head.number,
            crm_number=positions[book],
            lag_entries=max(0, head.number - positions[book]),
            lag_seconds=max(0.0, (now - oldest[book]).total_seconds()) if book in oldest else 0.0,
            state=FOREIGN if foreign else _state(cursors.get(book)),
            reason=foreign or _reason(cursors.get(book)),
        )
        for book, head in heads.items()
    ]


def _state(cursor: Cursor | None) -> str:
    return cursor.state if cursor is not None else NOT_STARTED


def _reason(cursor: Cursor | None) -> str:
    return (cursor.reason or "") if cursor is not None else ""


def _print_status(books: list[BookStatus]) -> None:
    table = Table(title="CRM stream")
    for name in ("book", "ledger head", "CRM cursor", "lag in entries", "lag in seconds"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for book in books:
        numbers = (book.ledger_number, book.crm_number, book.lag_entries)
        style = None if book.state in (store.FOLLOWING, NOT_STARTED) else "red"
        table.add_row(str(book.book), *(f"{n:,}" for n in numbers), f"{book.lag_seconds:,.1f}", book.state, style=style)
    console = Console(highlight=False)
    console.print(table)
    for reason in dict.fromkeys(book.reason for book in books if book.reason):
        console.print(reason, style="red", soft_wrap=True, markup=False)


def _print_comparison(result: Comparison) -> None:
    console = Console(highlight=False)
    counted = [f"{result.rows[table.name]:,} {table.title}" for table in TABLES if result.rows[table.name]]
    counted.append(f"{result.members:,} members")
    counts = f"{result.entries:,} entries in {result.books} books: {', '.join(counted)}"
    if result.equal:
        console.print(f"CRM equal to ledger, line by line: {counts}.", soft_wrap=True)
        return
    table = Table("book", "entry", "field", "ledger", "CRM", title="Differences")
    for difference in result.differences:
        book, number, field, ledger, crm = difference
        table.add_row(str(book), str(number) if number else "-", escape(field), escape(ledger), escape(crm))
    console.print(table)
    more = result.difference_count - len(result.differences)
    rest = f" ({more:,} more than shown)" if more else ""
    console.print(f"CRM differs from ledger in {result.difference_count:,} places{rest}: {counts}.", soft_wrap=True)


def _print_reconciliation(books: list[BookReconciliation]) -> None:
    console = Console(highlight=False)
    for book in books:
        waiting = f", {book.waiting:,} entries still to come" if book.waiting else ""
        table = Table("figure", title=f"Book {book.book}{waiting}")
        for side in ("ledger", "CRM"):
            table.add_column(side, justify="right")
        table.add_column()
        for line in book.lines:
            verdict, style = ("", None) if line.equal else ("differs", "red")
            table.add_row(line.what, line.shown(line.ledger), line.shown(line.crm), verdict, style=style)
        console.print(table)
    differing = [str(book.book) for book in books if not book.equal]
    if differing:
        named = f"book {differing[0]}" if len(differing) == 1 else f"books {', '.join(differing)}"
        text = f"CRM and ledger differ in {named}; `tallypoint crm compare` names the rows."
        console.print(text, style="red", soft_wrap=True)
    else:
        console.print(f"CRM and ledger agree in {len(books)} books: counts, sums and chain heads.", soft_wrap=True)


def _settings(ledger_dsn: str | None, crm_dsn: str | None, data_dir: Path | None, embedded: bool | None) -> Settings:
    return load_settings(ledger_dsn=ledger_dsn, crm_dsn=crm_dsn, data_dir=data_dir, embedded=embedded)


def _with_both(settings: Settings, work: Callable[[Connection, Connection], Awaitable[T]]) -> T:
    """Run work over a connection to either database."""

    async def run(dsns: Dsns) -> T:
        ledger_conn = await source.connect_ledger(dsns.ledger)
        try:
            crm_conn = await store.connect_crm(dsns.crm)
            try:
                return await work(ledger_conn, crm_conn)
            finally:
                await crm_conn.close()
        finally:
            await ledger_conn.close()

    with readable_errors(), open_databases(settings) as databases:
        try:
            return asyncio.run(run(databases.dsns))
        except (ForeignLedgerError, LookupError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_DIFFERENT) from None
