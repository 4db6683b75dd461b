"""Reports as pictures, SVG or PNG: bars by month, and a line over days; the same bytes for the same report.

They need the extra `finance`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ledger.finance.table import Column, Table, Value
from server.commands.output.cells import decimal, plain
from server.commands.output.extra import CannotWriteError, library
from server.commands.output.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS: Final = (".svg", ".png")
MAX_LABELS: Final = 24
"""Months that are named below the axis; of more, every second or third."""
FEWEST_PLACES: Final = 8
"""A bar is as wide as if there were so many, be it the only one."""
ROOM_BEYOND: Final = 1.05
MAX_NAMED_DAYS: Final = 14
"""Days that are named below the axis, each of them."""
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
        axes.yaxis.set_major_formatter(_figure_text)
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
    heights = [_height(column, total) for total in sums.values()]
    bars = axes.bar(range(len(sums)), heights, color=BAR_COLOUR)
    for bar, label, total in zip(bars, labels, sums.values(), strict=True):
        bar.set_gid(f"bar {label} {plain(column, total)}")  # what a bar stands for can be read in the SVG
    step = -(-len(labels) // MAX_LABELS)
    axes.set_xticks(range(0, len(labels), step), labels[::step], rotation=45, ha="right")
    room = max(len(labels), FEWEST_PLACES) / 2
    middle = (len(labels) - 1) / 2
    axes.set_xlim(middle - room, middle + room)
    _from_zero(axes, heights)


def _draw_line(axes: Axes, column: Column, cells: Sequence[tuple[Value, Value]]) -> None:
    points = {day: figure for day, figure in cells if isinstance(day, date) and isinstance(figure, int)}
    if not points:
        raise CannotWriteError("there is nothing to draw: no row of the report has a day")
    days: list[Any] = sorted(points)
    heights = [_height(column, points[day]) for day in days]
    ends = days[-1] + timedelta(days=1)  # a day's figure stands until the next one begins, and so does the last
    line = axes.plot([*days, ends], [*heights, heights[-1]], color=BAR_COLOUR, drawstyle="steps-post")
    line[0].set_gid(f"line of {len(days)} days")
    axes.set_xlim(days[0], ends)
    span_days = (ends - days[0]).days
    if span_days <= MAX_NAMED_DAYS:  # of more, matplotlib names some; of fewer it would name hours
        named = [days[0] + timedelta(days=number) for number in range(span_days)]
        axes.set_xticks(named, [f"{day:%Y-%m-%d}" for day in named])
    axes.tick_params(axis="x", rotation=45)
    _from_zero(axes, heights)


def _from_zero(axes: Axes, heights: Sequence[float]) -> None:
    """Let the axis hold zero, with some room beyond the figures; where there is nothing but zeros, say so."""
    if not any(heights):
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "all figures are 0", transform=axes.transAxes, ha="center")
        return
    axes.set_ylim(min(0.0, *heights) * ROOM_BEYOND, max(0.0, *heights) * ROOM_BEYOND)


def _figure_text(value: float, _: float) -> str:
    """Return a figure beside the axis: whole ones with all their digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.10g}"
