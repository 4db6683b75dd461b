"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES: Final = 5.0


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self._unit}/s", style="cyan")


@contextmanager
def progress(title: str, total: int, unit: str, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """Show how far work of `total` steps has come; yields a function to be told how many steps were just done."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), _RateColumn(unit))
        with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=5) as bar:
            task = bar.add_task(title, total=total)
            yield lambda steps: bar.advance(task, steps)
        return
    lines = _Lines(console, title, total, unit)
    yield lines.advance
    lines.say()


class _Lines:
    def __init__(self, console: Console, title: str, total: int, unit: str) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._started = self._said = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES and self._done < self._total:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        seconds = max(self._said - self._started, 1e-3)
        share = 100 * self._done // max(self._total, 1)
        self._console.print(
            f"{self._title}: {self._done:,} of {self._total:,} {self._unit} ({share} %), "
            f"{self._done / seconds:,.0f}/s, {seconds:,.0f} s",
            highlight=False,
        )
