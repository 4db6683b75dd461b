"""A load test in one command: `python -m benchmarks.locust` starts a server, prepares it, and runs Locust.

Options that it does not know are Locust's own, such as `--p99-ms 250` or `--processes 2`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console

from benchmarks.locust.baskets import CACHE
from benchmarks.locust.prepare import Reached, Wanted, prepare
from benchmarks.replay.client import CallFailed
from benchmarks.replay.dataset import DatasetMissing
from benchmarks.replay.own_server import ServerFailed, Target, own_server
from benchmarks.replay.seed import SeedFailed

FOLDER: Final = Path(__file__).parent
_EXIT_CANNOT_RUN: Final = 2
_EXIT_TERMINATED: Final = 143
_SPARE_TERMINALS: Final = 16


class Shape(StrEnum):
    """How the load goes up and down."""

    STEADY = "steady"
    DECEMBER_SATURDAY = "december-saturday"
    FAILOVER = "failover"


app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(
    context: typer.Context,
    users: Annotated[int, typer.Option("--users", "-u", min=1, help="Lanes at once, or at the peak.")] = 16,
    seconds: Annotated[int, typer.Option(min=1, help="How long the run takes.")] = 60,
    pace_seconds: Annotated[float, typer.Option(min=0, help="A lane begins a checkout every so many seconds.")] = 1.0,
    shape: Annotated[Shape, typer.Option(help="How the load goes up and down.")] = Shape.STEADY,
    kill_worker: Annotated[
        bool, typer.Option(help="With `failover`: kill a worker process of the server, which is this command's own.")
    ] = False,
    members: Annotated[int, typer.Option(min=1, help="Shoppers with a card.")] = 2_000,
    data_dir: Annotated[
        Path | None, typer.Option(help="The server's databases; by default a temporary folder.")
    ] = None,
) -> None:
    """Start a server, prepare it, let lanes sell, print the summary. Other options go to Locust, as `--p99-ms 250`."""
    if kill_worker and shape is not Shape.FAILOVER:
        raise typer.BadParameter("only with --shape failover", param_hint="--kill-worker")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_EXIT_TERMINATED))  # so that the server is stopped as well
    try:
        with ExitStack() as stack:
            folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallypoint-locust-")))
            console.print(f"Starting tallypoint in {folder}")
            target = stack.enter_context(own_server(folder))
            server = Reached(target.pos_address, target.backoffice_address, target.admin_key)
            wanted = Wanted(terminals=users + _SPARE_TERMINALS, members=members)
            prepared_path = folder / "locust-prepared.json"
            asyncio.run(prepare(server, wanted, CACHE, console)).save(prepared_path)
            command = [
                *(sys.executable, "-m", "locust", "-f", _locustfiles(shape), "--headless", "--only-summary"),
                *("--prepared", str(prepared_path), "--pace-seconds", str(pace_seconds)),
                *("--users", str(users), "--spawn-rate", str(users)),
                *_length(shape, seconds),
                *(("--kill-worker-pid", str(_a_worker(target))) if kill_worker else ()),
                *context.args,
            ]
            signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches Locust as well, which then ends by itself
            exit_code = subprocess.run(command, check=False).returncode  # noqa: S603  - our own command
    except (ServerFailed, SeedFailed, CallFailed, DatasetMissing) as error:
        console.print(f"[red]No run.[/red] {error}")
        raise typer.Exit(_EXIT_CANNOT_RUN) from error
    raise typer.Exit(exit_code)


def _locustfiles(shape: Shape) -> str:
    files = {Shape.DECEMBER_SATURDAY: ["december_saturday.py"], Shape.FAILOVER: ["failover.py"]}.get(shape, [])
    return ",".join(str(FOLDER / name) for name in ["locustfile.py", *files])


def _length(shape: Shape, seconds: int) -> list[str]:
    if shape is Shape.DECEMBER_SATURDAY:
        return ["--day-minutes", str(seconds / 60)]
    return ["--run-time", f"{seconds}s"]


def _a_worker(target: Target) -> int:
    """Return a process of this command's own server that listens on its POS port."""
    port = int(target.pos_address.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        for each in process.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port:
                return process.pid
    raise ServerFailed(f"no process of the server listens on {target.pos_address}")


if __name__ == "__main__":
    app()
