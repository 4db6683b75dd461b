"""Reports as pictures, SVG or PNG: bars by month, and a line over days; the same bytes for the same report.

They need the extra `finance`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ledger.finance.table import Column, Table, Value
from server.finance.cells import decimal, plain
from server.finance.extra import CannotWriteError, library
from server.finance.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS: Final = (".svg", ".png")
MAX_LABELS: Final = 24
"""Months that are named below the axis; of more, every second or third."""
BAR_COLOUR: Final = "#2f6f8f"
NO_MONTH: Final = "none"
_STYLE: Final[dict[str, object]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text: small files, which can be searched
    "svg.hashsalt": "tallypoint",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """How a report is drawn: the column along the axis (days), the column drawn, and what an empty day means.

    Bars stand for months, in which the values of a column are summed; a line goes through the last value of each day.
    ``only`` chooses rows, by a column and its value.
    """

    shape: Literal["bars", "line"]
    along: str
    drawn: str
    no_month: str = NO_MONTH
    only: tuple[str, str] | None = None


def write_picture(table: Table, picture: Picture, path: Path) -> None:
    """Draw a report into a file, SVG or PNG by its ending.

    Raises:
        CannotWriteError: The library is missing, there is nothing to draw, or the folder takes no file.
    """
    library("matplotlib", "a picture")
    from matplotlib import rc_context  # noqa: PLC0415 - only where a picture is drawn
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only where a picture is drawn
    from matplotlib.figure import Figure  # noqa: PLC0415 - only where a picture is drawn

    along, drawn = _column(table, picture.along), _column(table, picture.drawn)
    rows = table.rows
    if picture.only is not None:
        rows = tuple(row for row in rows if row[_column(table, picture.only[0])] == picture.only[1])
    cells = [(row[along], row[drawn]) for row in rows]
    if not cells:
        raise CannotWriteError("there is nothing to draw: the report has no rows")
    with rc_context(_STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(table.title, loc="left")
        axes.set_ylabel(table.columns[drawn].title)
        axes.grid(axis="y", linewidth=0.4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        if picture.shape == "bars":
            _draw_bars(axes, table.columns[drawn], by_month(cells), picture.no_month)
        else:
            _draw_line(axes, table.columns[drawn], cells)
        content = io.BytesIO()
        kind = path.suffix.lower().removeprefix(".")
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    replace_file(path, content.getvalue())


def by_month(cells: Iterable[tuple[Value, Value]]) -> dict[date | None, int]:
    """Sum figures by month, the months in order and without gaps, what has no month last.

    Args:
        cells: A day or None, and an integer figure in minor units.
    """
    sums: dict[date | None, int] = {}
    for day, figure in cells:
        month = day.replace(day=1) if isinstance(day, date) else None
        sums[month] = sums.get(month, 0) + (figure if isinstance(figure, int) else 0)
    known = sorted(month for month in sums if month is not None)
    if not known:
        return sums
    filled: dict[date | None, int] = {month: sums.get(month, 0) for month in months(known[0], known[-1])}
    return filled | ({None: sums[None]} if None in sums else {})


def months(first: date, last: date) -> list[date]:
    """Return the first days of all months from one to another."""
    count = 12 * (last.year - first.year) + last.month - first.month + 1
    return [date(first.year + (first.month - 1 + n) // 12, (first.month - 1 + n) % 12 + 1, 1) for n in range(count)]


def _column(table: Table, name: str) -> int:
    return next(index for index, column in enumerate(table.columns) if column.name == name)


def _height(column: Column, minor: int) -> float:
    """Return where a figure is drawn: a place on paper, from which nobody reads figures back."""
    return float(decimal(column, minor))


def _draw_bars(axes: Axes, column: Column, sums: dict[date | None, int], no_month: str) -> None:
    labels = [no_month if month is None else f"{month:%Y-%m}" for month in sums]
    bars = axes.bar(range(len(sums)), [_height(column, total) for total in sums.values()], color=BAR_COLOUR)
    for bar, label, total in zip(bars, labels, sums.values(), strict=True):
        bar.set_gid(f"bar {label} {plain(column, total)}")  # what a bar stands for can be read in the SVG
    step = -(-len(labels) // MAX_LABELS)
    axes.set_xticks(range(0, len(labels), step), labels[::step], rotation=45, ha="right")


def _draw_line(axes: Axes, column: Column, cells: Sequence[tuple[Value, Value]]) -> None:
    points = {day: figure for day, figure in cells if isinstance(day, date) and isinstance(figure, int)}
    days: list[Any] = sorted(points)
    heights = [_height(column, points[day]) for day in days]
    line = axes.plot(days, heights, color=BAR_COLOUR, drawstyle="steps-post")
    line[0].set_gid(f"line of {len(days)} days")
    axes.tick_params(axis="x", rotation=45)
    axes.set_ylim(bottom=min(0, *axes.get_ylim()))
