"""`tallypoint ledger`: prove the books, write their caches anew, show their heads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ledger.caches.points import JournalError
from ledger.reading.journal import read_heads
from ledger.rebuild import rebuild as rebuild_caches
from ledger.seal import (
    Finding,
    Seal,
    SealError,
    check_seals,
    create_key,
    fingerprint,
    make_seal,
    read_private_key,
    read_public_key,
)
from ledger.verify import BookReport, Problem, record_checkpoints, verify_since
from ledger.verify import verify as verify_books
from server.base.clock import utc_now
from server.base.seals import keep_seal, not_kept, read_crm_seals, read_seal_file
from server.base.settings import Settings
from server.base.storage import open_databases, open_ledger, writer_connect
from server.commands.common import DataDir, Embedded, Yes, confirm, fail, load_settings, readable_errors
from server.commands.output.progress import progress
from server.process.sweeper import Sweeper, Swept

app = typer.Typer(help="Prove the books, write their caches anew, show their heads.", no_args_is_help=True)
T = TypeVar("T")
KNOWN_SHOWN = 20
"""So many entries of older releases with a known fault are named; of more, how many there are."""

CrmDsnOption = Annotated[
    str | None,
    typer.Option("--crm-dsn", help="The CRM database, which keeps seals; by default the one of the settings."),
]

DsnOption = Annotated[
    str | None,
    typer.Option("--dsn", help="The ledger database; by default the one of the settings."),
]


@app.command()
def verify(
    dsn: DsnOption = None,
    crm_dsn: CrmDsnOption = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
    since_last: Annotated[
        bool,
        typer.Option(
            "--since-last",
            help="Look only at what came after the last clean verification, and at what that touched: chains, columns "
            "and postings from there on, and the caches of members, keys and days concerned. It does not look at "
            "older entries, nor at caches of members without a new entry.",
        ),
    ] = False,
    seals: Annotated[
        list[Path] | None, typer.Option("--seal", help="A seal file to hold against the books; may be given again.")
    ] = None,
    public_keys: Annotated[
        list[Path] | None,
        typer.Option("--public-key", help="The public key (PEM) that seals must be signed with; may be given again."),
    ] = None,
) -> None:
    """Recompute every chain, sum and cache; name the first bad entry of each book. Exit code 1 if there is one.

    Seals are checked too: those given here, and those in the CRM database. They show what the books alone cannot: that
    a tail was cut off, or a book was written anew.
    """
    with readable_errors(), _databases(dsn, crm_dsn, _settings(dsn, data_dir, embedded, crm_dsn)) as (ledger_dsn, crm):
        try:
            files = [read_seal_file(path) for path in seals or ()]
            trusted = [read_public_key(path) for path in public_keys or ()]
            outcome = asyncio.run(_verify_all(ledger_dsn, crm, files, trusted, since_last=since_last))
        except (SealError, LookupError) as error:
            raise fail(str(error)) from None
    _print_reports(outcome)
    _print_verdict(outcome, trusted)


@dataclass(slots=True)
class _Outcome:
    """What verification found."""

    reports: list[BookReport]
    full: bool
    findings: list[Finding]
    seals: list[Seal]
    notes: list[str]


async def _verify_all(
    ledger_dsn: str, crm_dsn: str | None, files: list[Seal], trusted: list[bytes], *, since_last: bool
) -> _Outcome:
    conn = await _connect(ledger_dsn, "tallypoint_reader")
    try:
        kept, notes = await _crm_seals(crm_dsn)
        full, reports = not since_last, list[BookReport]()
        if since_last:
            try:
                reports = await verify_since(conn, progress)
            except LookupError as error:
                full = True
                notes.append(f"All books were verified as a whole: {error}.")
        if full:
            reports = await _verify_full(conn)
        findings = await check_seals(conn, [*(kept or ()), *files], trusted, complete=bool(kept))
        if kept is not None and not findings:
            findings = not_kept(files, kept)
    finally:
        await conn.close()
    outcome = _Outcome(reports, full, findings, [*(kept or ()), *files], notes)
    if not findings and all(report.problem is None for report in reports):
        await _record(ledger_dsn, outcome)
    return outcome


async def _verify_full(conn: asyncpg.Connection) -> list[BookReport]:
    total = sum(head.number for head in (await read_heads(conn)).values())
    with progress("Verifying", total, "entries") as advance:
        return await verify_books(conn, advance)


async def _crm_seals(crm_dsn: str | None) -> tuple[list[Seal] | None, list[str]]:
    """Return the seals in the CRM database, or None and a note that says why they could not be read."""
    if crm_dsn is None:
        return None, []
    try:
        crm = await _connect(crm_dsn, "tallypoint_reader")
        try:
            return await read_crm_seals(crm), []
        finally:
            await crm.close()
    except (SealError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return None, [f"Seals in the CRM database were not checked: {error}"]


async def _record(ledger_dsn: str, outcome: _Outcome) -> None:
    """Note how far the books are sound, for the next `--since-last`; where that cannot be written, say so."""
    try:
        owner = await _connect(ledger_dsn, "tallypoint_owner")
        try:
            await record_checkpoints(owner, outcome.reports, utc_now(), full=outcome.full)
        finally:
            await owner.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        outcome.notes.append(f"The next --since-last begins where this one did: nothing could be noted ({error}).")


def _print_reports(outcome: _Outcome) -> None:
    table = Table(title="Ledger" if outcome.full else "Ledger, since the last verification")
    for name in ("book", "entries", "checked", "postings", "members"):
        table.add_column(name, justify="right")
    table.add_column("head")
    table.add_column("verdict")
    for report in outcome.reports:
        figures = (report.entries, report.checked, report.postings, report.members)
        verdict = "[green]sound[/]" if report.problem is None else f"[red]{escape(report.problem.what)}[/]"
        table.add_row(str(report.book), *(f"{figure:,}" for figure in figures), report.hash.hex()[:16], verdict)
    Console().print(table)


def _print_verdict(outcome: _Outcome, trusted: list[bytes]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for note in outcome.notes:
        console.print(note, style="yellow", markup=False)
    signers = {fingerprint(seal.public_key) for seal in outcome.seals}
    if signers and not trusted:
        console.print(
            f"Seals are signed with key {', '.join(sorted(signers))}. Compare that with the key that you keep, or give "
            "it with --public-key: whoever replaces the books can sign new seals with another key.",
            style="yellow",
        )
    known = [one for report in outcome.reports for one in report.known]
    for one in known[:KNOWN_SHOWN]:
        console.print(f"known: {one}", style="yellow", markup=False)
    if len(known) > KNOWN_SHOWN:
        console.print(f"known: {len(known) - KNOWN_SHOWN:,} more like these", style="yellow")
    problems: list[Problem | Finding] = [report.problem for report in outcome.reports if report.problem is not None]
    problems += outcome.findings
    for problem in problems:
        console.print(f"BAD: {problem}", style="red", markup=False)
    if problems:
        raise typer.Exit(1)
    checked = sum(report.checked for report in outcome.reports)
    numbers = {seal.read().number for seal in outcome.seals}
    sealed = f" {len(numbers):,} {'seal fits' if len(numbers) == 1 else 'seals fit'}." if numbers else ""
    what = "chains, sums and caches are sound" if outcome.full else "new ones and what they touched are sound"
    console.print(f"Verified: {checked:,} entries in {len(outcome.reports)} books, {what}.{sealed}")


@app.command("seal-key")
def seal_key(
    path: Annotated[Path, typer.Argument(help="Where the private key goes; the public one goes to PATH.pub.")],
) -> None:
    """Make a key for seals. Keep it where nobody who can write the ledger's database can read it."""
    try:
        public_key = create_key(path)
    except SealError as error:
        raise fail(str(error)) from None
    typer.echo(f"Wrote {path} (keep it secret) and {path}.pub (give it to your auditors).")
    typer.echo(f"Fingerprint: {fingerprint(public_key)}")


@app.command()
def seal(
    key: Annotated[Path, typer.Option("--key", help="The private key (PEM), from `tallypoint ledger seal-key`.")],
    output: Annotated[Path, typer.Option("--output", help="The seal file to write; it must not exist.")],
    previous: Annotated[
        Path | None,
        typer.Option("--previous", help="The newest seal file, where there is no CRM database that has the seals."),
    ] = None,
    dsn: DsnOption = None,
    crm_dsn: CrmDsnOption = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
) -> None:
    """Sign the newest entry of every book, into a file and into the CRM database.

    A seal proves later that these entries and all before them are still the same: keep the file away from the database.
    It does not look at the books itself; run `tallypoint ledger verify` first.
    """
    with readable_errors(), _databases(dsn, crm_dsn, _settings(dsn, data_dir, embedded, crm_dsn)) as (ledger_dsn, crm):
        try:
            made = asyncio.run(_seal(ledger_dsn, crm, key, output, previous))
        except (SealError, LookupError) as error:
            raise fail(str(error)) from None
    statement = made.read()
    table = Table("book", "entry", "hash", title=f"Seal {statement.number}")
    for book, head in sorted(statement.books.items()):
        table.add_row(str(book), f"{head.number:,}", head.hash.hex()[:16])
    Console().print(table)
    kept = "" if crm is None else ", also in the CRM database"
    typer.echo(f"Wrote {output}{kept}. Signed with key {fingerprint(made.public_key)}.")


async def _seal(ledger_dsn: str, crm_dsn: str | None, key: Path, output: Path, previous: Path | None) -> Seal:
    private_key = read_private_key(key)
    before = [] if previous is None else [read_seal_file(previous)]
    conn = await _connect(ledger_dsn, "tallypoint_reader")
    crm = None if crm_dsn is None else await _connect(crm_dsn, None)
    try:
        before += [] if crm is None else await read_crm_seals(crm)
        newest = max(before, key=lambda each: each.read().number, default=None)
        made = await make_seal(conn, private_key, utc_now(), newest)
        await keep_seal(made, output, crm)
    finally:
        await conn.close()
        if crm is not None:
            await crm.close()
    return made


@app.command()
def rebuild(dsn: DsnOption = None, yes: Yes = False, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Write balances, lots, totals and keys anew from the journal. Each book waits while its own caches are written.

    Tills wait with it, so the command asks first.
    """
    confirm("Write the caches of all books anew? Each book waits meanwhile, and the tills with it.", yes=yes)
    try:
        entries = _with_ledger(_settings(dsn, data_dir, embedded), "tallypoint_owner", _rebuild)
    except JournalError as error:
        typer.echo(f"The journal cannot be added up: {error}. Run `tallypoint ledger verify` first.", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Rebuilt the caches of {entries:,} entries.")


async def _rebuild(conn: asyncpg.Connection) -> int:
    total = sum(head.number for head in (await read_heads(conn)).values())
    with progress("Rebuilding", total, "entries") as advance:
        return await rebuild_caches(conn, advance)


@app.command()
def sweep(dsn: DsnOption = None, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Book what time has done to points, once. `tallypoint serve` does it by itself."""
    swept = _with_dsn(_settings(dsn, data_dir, embedded), _sweep)
    typer.echo(f"Swept: {swept.booked:,} entries booked.")
    if swept.failed:
        typer.echo(f"{swept.failed:,} members failed; the log above says why.", err=True)
        raise typer.Exit(1)


async def _sweep(dsn: str) -> Swept:
    sweeper = Sweeper(writer_connect(dsn, "tallypoint ledger sweep"), asyncio.Event())
    with progress("Sweeping", await sweeper.count_due(), "accounts") as advance:
        return await sweeper.sweep(advance)


@app.command()
def heads(dsn: DsnOption = None, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Show the newest entry of every book."""
    table = Table("book", "entries", "booked at", "hash", title="Heads")
    for book, head in _with_ledger(_settings(dsn, data_dir, embedded), "tallypoint_reader", read_heads).items():
        booked_at = head.booked_at.isoformat() if head.number else "-"
        table.add_row(str(book), f"{head.number:,}", booked_at, head.hash.hex())
    Console().print(table)


def _with_ledger(settings: Settings, role: str, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
    """Run work over one connection that has a role's rights."""

    async def run(resolved: str) -> T:
        conn = await asyncpg.connect(resolved, server_settings={"role": role})
        try:
            return await work(conn)
        finally:
            await conn.close()

    return _with_dsn(settings, run)


async def _connect(dsn: str, role: str | None) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(dsn, server_settings={} if role is None else {"role": role})


def _settings(dsn: str | None, data_dir: Path | None, embedded: bool | None, crm_dsn: str | None = None) -> Settings:
    return load_settings(ledger_dsn=dsn, crm_dsn=crm_dsn, data_dir=data_dir, embedded=embedded)


@contextmanager
def _databases(dsn: str | None, crm_dsn: str | None, settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Resolve both databases; a ledger that is given by its DSN has no CRM database unless that is given too."""
    if dsn is not None:
        yield dsn, crm_dsn
        return
    with open_databases(settings) as databases:
        yield databases.dsns.ledger, databases.dsns.crm


def _with_dsn(settings: Settings, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Run work on the ledger database."""
    with readable_errors(), open_ledger(settings) as dsn:
        return asyncio.run(work(dsn))
