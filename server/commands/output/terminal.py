"""Reports on a terminal: figures to the right with their decimals, notes below."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ledger.finance.table import Table
from server.commands.output.cells import for_people, is_number

PIPED_WIDTH: Final = 1000
"""Columns when the output is no terminal: wide enough that nothing is cut for whoever reads the pipe."""


def report_console() -> Console:
    """Return the console for reports."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def show(table: Table, console: Console, whole: Collection[str] = ()) -> None:
    """Print a report; lines of the columns named in ``whole`` are not broken, so that an id can be copied."""
    shown = RichTable(title=escape(table.title), box=rich.box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns:
        figures = is_number(column)
        shown.add_column(
            escape(column.title), justify="right" if figures else "left", no_wrap=figures or column.name in whole
        )
    for row in table.rows:
        shown.add_row(*(escape(for_people(*cell)) for cell in zip(table.columns, row, strict=True)))
    console.print(shown)
    if not table.rows:
        console.print("Nothing to show for these days and units.", markup=False)
    for note in table.notes:
        console.print(note, markup=False, style="dim")
