"""`tallypoint rules backtest`: what a draft would have cost over stored receipts."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import typer
from rich.console import Console

from ledger.reading.journal import read_heads
from server.base.clock import utc_now
from server.base.storage import open_ledger
from server.commands.common import DataDir, Embedded, fail, load_settings, read_text, readable_errors
from server.commands.output.extra import CannotWriteError
from server.commands.output.files import write_file
from server.commands.output.progress import progress
from server.commands.output.terminal import report_console
from server.commands.output.terminal import show as show_table
from server.commands.programme.backtest_report import as_json as report_json
from server.commands.programme.backtest_report import headline, promotion_table, summary_lines, summary_table, top_table
from server.promotions import Programme, load_programme
from server.rules.backtest.journal import Stretch
from server.rules.backtest.run import BacktestError, DatasetPart, Plan, run
from server.rules.backtest.tally import TOP, Tally
from server.rules.rollout import Dated, in_effect
from server.rules.versions import READ_VERSIONS, ProgrammeText, read_rollouts, read_version_text

EXIT_FILE_WRONG: Final = 1
BOOKED: Final = "booked"
LIVE: Final = "live"


def add_to(app: typer.Typer) -> None:
    """Mount the command."""
    app.command()(backtest)


def backtest(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: Annotated[Path, typer.Argument(help="The draft.", exists=True, dir_okay=False)],
    against: Annotated[
        str,
        typer.Option(
            help="live: the version in effect; booked: what booked each receipt; a version's number; or a file."
        ),
    ] = LIVE,
    first: Annotated[str | None, typer.Option("--from", help="Receipts from this day on, YYYY-MM-DD (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Receipts until this day, YYYY-MM-DD (UTC).")] = None,
    undated: Annotated[
        bool, typer.Option("--undated", help="Let the draft's promotions apply on all days: `valid` is ignored.")
    ] = False,
    dsn: Annotated[str | None, typer.Option(help="The ledger database; by default that of the settings.")] = None,
    data_dir: DataDir = None,
    embedded: Embedded = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Not the journal, but the replay's receipts: a month of 2017 such as 2017-03, or `year`."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="With --dataset: so many receipts only.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a processor.")] = None,
    top: Annotated[int, typer.Option(min=0, max=TOP, help="How many of the greatest differences to show.")] = 10,
    output: Annotated[
        Path | None, typer.Option(help="Write the rows by promotion to this .csv, .parquet, .xlsx or .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Run a draft over stored receipts: what it would have cost, whom it would have affected, promotion by promotion.

    Both versions judge every receipt as a quote, one after the other, with what they themselves have counted before, so
    that limits and levels work. Nothing is written. Returns are not taken off.
    """
    programme = _loaded(file)
    days = _moment(first, "--from"), _moment(last, "--to")
    stretch_days = (days[0], None if days[1] is None else days[1] + timedelta(days=1))
    count = processes or os.cpu_count() or 1
    draft = read_text(file)
    with readable_errors():
        if dataset is not None:
            if against in {LIVE, BOOKED}:
                raise fail("these receipts were booked by no version: give --against FILE to compare the draft with")
            part = DatasetPart(None if dataset == "year" else dataset, limit)
            plan = Plan(draft, _file_text(against), None, Stretch({}), part, undated, count)
            tally, seconds = _run(plan)
        else:
            settings = load_settings(ledger_dsn=dsn, data_dir=data_dir, embedded=embedded)
            with open_ledger(settings) as resolved:
                live, books = asyncio.run(_prepare(resolved, against))
                stretch = Stretch(books, *stretch_days)
                plan = Plan(draft, live, resolved, stretch, None, undated, count)
                tally, seconds = _run(plan)
    _show(tally, programme, seconds, top=top, output=output, as_json=as_json)


def _run(plan: Plan) -> tuple[Tally, float]:
    started = time.monotonic()
    try:
        tally = run(plan, lambda total: progress("Backtest", total, "entries" if plan.dataset is None else "receipts"))
    except BacktestError as error:
        raise fail(str(error)) from None
    return tally, time.monotonic() - started


async def _prepare(dsn: str, against: str) -> tuple[ProgrammeText | None, dict[int, int]]:
    """Return the text to compare with (None: that of each receipt's version), and the newest entry of each book."""
    conn = await asyncpg.connect(dsn, server_settings={"role": "tallypoint_reader"})
    try:
        books = {book: head.number for book, head in (await read_heads(conn)).items()}
        if against == BOOKED:
            return None, books
        if not against.isdecimal() and against != LIVE:
            return _file_text(against), books
        version = int(against) if against.isdecimal() else await _in_effect(conn)
        text = await read_version_text(conn, version)
        if text is None:
            no_version = f"there is no version {against}"
            raise fail("no version of the programme is in effect" if against == LIVE else no_version)
        return text, books
    finally:
        await conn.close()


async def _in_effect(conn: asyncpg.Connection[asyncpg.Record]) -> int | None:
    rollouts = await read_rollouts(conn)
    versions = await conn.fetch(READ_VERSIONS)
    dated = (Dated(one["effective_at"], one["version"], rollouts.get(one["version"], ())) for one in versions)
    return in_effect(dated, utc_now())


def _show(tally: Tally, programme: Programme, seconds: float, *, top: int, output: Path | None, as_json: bool) -> None:
    data = report_json(tally, programme, seconds, top)
    if output is not None:
        try:
            if output.suffix.lower() == ".json":
                output.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
            else:
                write_file(promotion_table(tally, programme), output)
        except (CannotWriteError, OSError) as error:
            raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
        return
    console = report_console()
    for line in summary_lines(tally, seconds):
        console.print(line, markup=False, soft_wrap=True)
    console.print(summary_table(tally, programme))
    show_table(promotion_table(tally, programme), console)
    if tally.top and top:
        console.print(top_table(tally, programme, top))
    console.print(headline(tally, programme), markup=False, style="bold", soft_wrap=True)


def _loaded(file: Path) -> Programme:
    loaded = load_programme(file.read_bytes(), str(file))
    if isinstance(loaded, Programme):
        return loaded
    errors = Console(stderr=True, highlight=False)
    for error in loaded:
        errors.print(str(error), markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_FILE_WRONG)


def _file_text(name: str) -> ProgrammeText:
    path = Path(name)
    if not path.is_file():
        raise fail(f"{name} is no file: --against takes live, booked, the number of a version, or a file")
    return ProgrammeText(read_text(path))


def _moment(day: str | None, option: str) -> datetime | None:
    if day is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=UTC)
    except ValueError:
        raise fail(f"{option}: {day} is no day such as 2026-11-22") from None
