"""What becomes of throughput and disk as the books grow: filled ledgers in turns with empty ones.

Run ``python -m benchmarks.growth``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich import box
from rich.table import Table

from benchmarks.filling import READ_ENTRIES, Disk, FilledLedger, LedgerPlan, filled_ledger
from benchmarks.harness import Contest, machine, narrator, print_json, results_console
from benchmarks.ledger_vs_pgbench import own_postgres
from benchmarks.shop import database_settings
from server.base.postgres import SUPERUSER, EmbeddedPostgres

RECEIPTS_OF_A_MEMBER: Final = 20
LEAST_MEMBERS: Final = 1_000
PROBE_COMMANDS: Final = 1_000
WARM_UP_SECONDS: Final = 2.0
TOLERANCE: Final = 1.2
"""A kept ledger that earlier runs made larger than this is made anew."""
_EMPTY: Final = "empty"


class Size(NamedTuple):
    """What was measured at one size."""

    entries: int
    """Before the first turn; the turns add to it."""
    fill_per_second: float | None
    """None if the ledger was kept from an earlier run."""
    disk: Disk
    contest: Contest

    def result(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        whole = self.contest.result({})
        del whole["settings"]
        return {
            "entries": self.entries,
            **whole,
            "fill_per_s": None if self.fill_per_second is None else round(self.fill_per_second, 1),
            "bytes_a_receipt": round(self.disk.receipt, 1),
            "payload_bytes": round(self.disk.payload, 1),
            "bytes_without_payload": round(self.disk.receipt - self.disk.payload, 1),
            "tables": {name: round(size, 1) for name, size in self.disk.tables.items()},
        }


class Databases:
    """The filled ledgers of one PostgreSQL, each in a database that is named by its size."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def name(self, entries: int) -> str:
        """Return the name of the database with that many entries."""
        return f"filled_{entries}"

    def entries(self, database: str) -> int:
        """Return how many entries the ledger in a database has."""
        return int(self._postgres.execute(READ_ENTRIES, database))

    def drop(self, database: str) -> None:
        """Drop a database if there is one."""
        self._postgres.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def begin(self, entries: int, smaller: int | None, *, keep: bool) -> None:
        """Let the database of a size, if there is none, begin as the next smaller one, or as a copy of it."""
        if smaller is None or self.exists(self.name(entries)):
            return
        old, new = self.name(smaller), self.name(entries)
        copy = f'CREATE DATABASE "{new}" TEMPLATE "{old}" STRATEGY file_copy'
        self._postgres.execute(copy if keep else f'ALTER DATABASE "{old}" RENAME TO "{new}"')

    def exists(self, database: str) -> bool:
        """Say whether there is a database of that name."""
        return self._postgres.execute(f"SELECT 1 FROM pg_database WHERE datname = '{database}'").strip() == "1"  # noqa: S608 - a name of ours


def plan_of(database: str, entries: int, shape: LedgerPlan) -> LedgerPlan:
    """Return the plan of a ledger of that size: the more entries, the more members."""
    return shape._replace(database=database, members=max(LEAST_MEMBERS, entries // RECEIPTS_OF_A_MEMBER))


def measure_size(postgres: EmbeddedPostgres, entries: int, shape: LedgerPlan, rounds: int, seconds: float) -> Size:
    """Fill a ledger, or take the kept one, and let it take turns with an empty one."""
    databases = Databases(postgres)
    with filled_ledger(postgres, plan_of(databases.name(entries), entries, shape)) as filled:
        found = filled.entries()
        fill_per_second = None if found >= entries else filled.fill(entries)
        if fill_per_second is not None:
            narrator.print(f"{entries:,} entries: filled {entries - found:,} at {fill_per_second:,.0f}/s")
        filled.vacuum()
        before, disk = filled.entries(), filled.disk()
        databases.drop(_EMPTY)
        try:
            with filled_ledger(postgres, plan_of(_EMPTY, entries, shape)) as empty:
                contest = _contest(before, filled, empty, rounds, seconds)
        finally:
            databases.drop(_EMPTY)
    return Size(before, fill_per_second, disk, contest)


def _contest(entries: int, filled: FilledLedger, empty: FilledLedger, rounds: int, seconds: float) -> Contest:
    commands = [int(_warmed_up(ledger) * seconds) for ledger in (filled, empty)]
    contest = Contest(f"{entries:,} entries (ours) against an empty ledger (baseline)")
    contest.play(rounds, ours=lambda: filled.book(commands[0]), baseline=lambda: empty.book(commands[1]))
    return contest


def _warmed_up(ledger: FilledLedger) -> float:
    speed = ledger.book(PROBE_COMMANDS).per_second
    return ledger.book(int(speed * WARM_UP_SECONDS)).per_second


@contextmanager
def kept_postgres(folder: Path | None) -> Iterator[EmbeddedPostgres]:
    """Run PostgreSQL with the settings of `tallypoint serve`, in a folder that stays or in one for this run."""
    if folder is None:
        with own_postgres() as postgres:
            yield postgres
        return
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


def measure(
    postgres: EmbeddedPostgres, sizes: Sequence[int], shape: LedgerPlan, rounds: int, seconds: float, *, keep: bool
) -> list[Size]:
    """Measure at every size, the smallest first; a ledger that is not kept grows to the next size."""
    databases = Databases(postgres)
    measured: list[Size] = []
    smaller: int | None = None
    for entries in sorted(sizes):
        name = databases.name(entries)
        if databases.exists(name) and databases.entries(name) > entries * TOLERANCE:
            databases.drop(name)
        databases.begin(entries, smaller, keep=keep)
        measured.append(measure_size(postgres, entries, shape, rounds, seconds))
        smaller = entries
    return measured


def result(sizes: Sequence[Size], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that `--json` prints: the figures of the largest ledger, and all sizes."""
    parts = [size.result() for size in sizes]
    return {
        **parts[-1],
        "errors": sum(part["errors"] for part in parts),
        "sizes": parts,
        "settings": dict(settings),
    }


def table(parts: Sequence[Mapping[str, Any]]) -> Table:
    """Return the sizes of a result for people."""
    whole = Table(title="Receipts a second, and bytes a receipt", title_justify="left", box=box.SIMPLE_HEAD)
    keys = ("entries", "fill_per_s", "ours_per_s", "baseline_per_s", "ratio", "ratio_min", "ratio_max", "errors")
    disk = ("bytes_a_receipt", "payload_bytes", "bytes_without_payload")
    for heading in (*keys, *disk):
        whole.add_column(heading.replace("_", " "), justify="right")
    for part in parts:
        whole.add_row(*("-" if part[key] is None else f"{part[key]:,}" for key in (*keys, *disk)))
    return whole


def main(  # noqa: PLR0913, PLR0917  - the options of the command line
    entries: Annotated[str, typer.Option(help="Sizes of the ledger, separated by commas.")] = "10000,100000,1000000",
    rounds: Annotated[int, typer.Option(help="How often both sides take turns at every size.")] = 3,
    seconds: Annotated[float, typer.Option(help="About how long a turn lasts.")] = 3.0,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    writers: Annotated[int, typer.Option(help="Processes that write each ledger.")] = 2,
    concurrency: Annotated[int, typer.Option(help="Commands under way at once, in all writers.")] = 512,
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    keep: Annotated[Path | None, typer.Option(help="A folder that keeps the filled ledgers for later runs.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure throughput and disk at several sizes, in turns with an empty ledger on the same PostgreSQL."""
    sizes = [int(each) for each in entries.split(",")]
    shape = LedgerPlan("", books, writers, concurrency, LEAST_MEMBERS, lines, promotions)
    settings: dict[str, Any] = {
        "books": books,
        "writers": writers,
        "concurrency": concurrency,
        "lines": lines,
        "promotions": promotions,
        "members": f"one for every {RECEIPTS_OF_A_MEMBER} entries, at least {LEAST_MEMBERS:,}",
        "seconds": seconds,
        "machine": machine(),
    }
    with kept_postgres(keep) as postgres:
        settings["database"] = asyncio.run(database_settings(postgres.dsn(SUPERUSER)))
        whole = result(measure(postgres, sizes, shape, rounds, seconds, keep=keep is not None), settings)
    console = results_console()
    console.print(table(whole["sizes"]))
    for name, value in settings.items():
        console.print(f"{name}: {value}", markup=False)
    if json:
        print_json(whole)


if __name__ == "__main__":
    typer.run(main)
