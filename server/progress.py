"""Progress of long work: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL_SECONDS: Final = 5.0
"""How often a log file hears of the progress."""

Advance = Callable[[int], None]


@contextmanager
def progress(title: str, total: int, unit: str, console: Console | None = None) -> Iterator[Advance]:
    """Show that ``total`` units of work are being done; yields a function to be told how many more are."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, advance=done)
        return
    finished, said_at = 0, time.monotonic()

    def advance(done: int) -> None:
        nonlocal finished, said_at
        finished += done
        if time.monotonic() - said_at >= PLAIN_INTERVAL_SECONDS:
            said_at = time.monotonic()
            console.print(f"{title}: {finished:,} of {total:,} {unit}", highlight=False)

    yield advance
    console.print(f"{title}: {finished:,} of {total:,} {unit}, done", highlight=False)
