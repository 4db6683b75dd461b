"""What the ledger alone can book, against `pgbench` TPC-B on the same PostgreSQL.

Run ``python -m benchmarks.ledger_vs_pgbench``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.harness import Contest, ProcessorTime, Turn, machine, narrator, show, with_children
from benchmarks.ledger_load import LedgerShape, LedgerUnderLoad, ledger_under_load
from benchmarks.shop import database_settings
from server.base.postgres import SUPERUSER, EmbeddedPostgres

PGBENCH_DATABASE: Final = "pgbench"
PGBENCH_CLIENTS: Final = 8
PGBENCH_THREADS: Final = 2
PGBENCH_SCALE: Final = 10
PROBE_COMMANDS: Final = 4_000
"""Booked first, to learn how many commands fill a warm-up."""
WARM_UP_SECONDS: Final = 3.0
_TRANSACTIONS: Final = re.compile(r"number of transactions actually processed: (\d+)")
_FAILED: Final = re.compile(r"number of failed transactions: (\d+)")
_SPEED: Final = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")


class PgbenchError(Exception):
    """`pgbench` did not do its work; the message has its output."""


class Pgbench:
    """TPC-B like transactions of `pgbench` in a database of its own."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        """Make the database and fill its tables."""
        self._postgres = postgres
        postgres.ensure_database(PGBENCH_DATABASE)
        self._run("--initialize", "--quiet", f"--scale={PGBENCH_SCALE}")

    def turn(self, seconds: float) -> Turn:
        """Run transactions for that long."""
        clock = ProcessorTime({"postgres": with_children(self._postgres.pid)})
        output = self._run(
            *("--no-vacuum", "--protocol=prepared", "--builtin=tpcb-like"),
            *(f"--client={PGBENCH_CLIENTS}", f"--jobs={PGBENCH_THREADS}", f"--time={max(1, round(seconds))}"),
        )
        transactions = int(_figure(_TRANSACTIONS, output))
        speed = float(_figure(_SPEED, output))
        return Turn(transactions, transactions / speed, int(_figure(_FAILED, output)), cpu_seconds=clock.spent())

    def _run(self, *arguments: str) -> str:
        command = [
            str(self._postgres.bin_dir / "pgbench"),
            *(f"--host={self._postgres.socket_dir}", f"--username={SUPERUSER}"),
            *arguments,
            PGBENCH_DATABASE,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  - our own command
        if done.returncode != 0:
            raise PgbenchError(f"pgbench ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def _figure(pattern: re.Pattern[str], output: str) -> str:
    match = pattern.search(output)
    if match is None:
        raise PgbenchError(f"pgbench did not print {pattern.pattern!r}:\n{output}")
    return match[1]


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """Run the embedded PostgreSQL, with the settings that `tallypoint serve` gives it, in a folder for this run."""
    with tempfile.TemporaryDirectory(prefix="tallypoint-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()


def warmed_up(ledger: LedgerUnderLoad) -> float:
    """Warm a ledger up; return how many commands a second it books."""
    speed = ledger.book(PROBE_COMMANDS).per_second
    return ledger.book(int(speed * WARM_UP_SECONDS)).per_second


def main(
    rounds: Annotated[int, typer.Option(help="How often both sides take turns.")] = 3,
    seconds: Annotated[float, typer.Option(help="About how long a turn lasts.")] = 6.0,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    writers: Annotated[int, typer.Option(help="Processes that write the ledger.")] = 2,
    concurrency: Annotated[int, typer.Option(help="Commands under way at once, in all writers.")] = 512,
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure the committer alone against pgbench on the same PostgreSQL, in turns within one run."""
    shape = LedgerShape(books, writers, concurrency, lines)
    settings: dict[str, Any] = {
        "books": books,
        "writers": writers,
        "concurrency": concurrency,
        "lines": lines,
        "seconds": seconds,
        "pgbench": f"tpcb-like, prepared, {PGBENCH_CLIENTS} clients, {PGBENCH_THREADS} threads, scale {PGBENCH_SCALE}",
        "machine": machine(),
    }
    with own_postgres() as postgres:
        narrator.print("preparing pgbench and the ledger")
        settings["database"] = asyncio.run(database_settings(postgres.dsn(SUPERUSER)))
        pgbench = Pgbench(postgres)
        with ledger_under_load(postgres, "ledger", shape) as ledger:
            pgbench.turn(WARM_UP_SECONDS)
            commands = int(warmed_up(ledger) * seconds)
            contest = Contest("Ledger: receipts booked (ours) against pgbench transactions (baseline)")
            contest.play(rounds, ours=lambda: ledger.book(commands), baseline=lambda: pgbench.turn(seconds))
    show([contest], settings, contest.result(settings) if json else None)


if __name__ == "__main__":
    typer.run(main)
