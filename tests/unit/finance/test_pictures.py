"""Pictures of reports: what is drawn is what the report says."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ledger.finance.table import Column, Table, Value
from server.commands.output.extra import CannotWriteError
from server.commands.output.pictures import Picture, by_month, months, write_picture

PROFILE = Table(
    "Outstanding points by expiry",
    (
        Column("expiry_month", "Lapses in", "day"),
        Column("part", "Part", "text"),
        Column("points", "Points", "points", 2),
    ),
    (
        (date(2026, 11, 1), "lots", 12_50),
        (date(2027, 2, 1), "lots", 100_00),
        (None, "lots", 7),
        (None, "owed", -50_00),
    ),
)
BARS = Picture("bars", "expiry_month", "points", no_month="never", only=("part", "lots"))
LIABILITY = Table(
    "Liability",
    (Column("day", "Day", "day"), Column("closing_money", "Closing", "money", 2)),
    ((date(2026, 3, 1), 100_00), (date(2026, 3, 2), 250_00), (date(2026, 3, 9), 200_00)),
)
LINE = Picture("line", "day", "closing_money")


def ids(svg: Path, prefix: str) -> list[str]:
    root = ET.fromstring(svg.read_text(encoding="utf-8"))  # noqa: S314 - written a line above
    return [element.get("id", "") for element in root.iter() if element.get("id", "").startswith(prefix)]


def heights(svg: Path) -> list[float]:
    """Return the heights of the bars as they are drawn: places on paper, so floats."""
    found = []
    for group in re.findall(r'<g id="bar [^"]+">\s*<path d="([^"]+)"', svg.read_text(encoding="utf-8")):
        ys = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", group)]
        found.append(max(ys) - min(ys))
    return found


def test_bars_stand_for_months_without_gaps(tmp_path: Path) -> None:
    svg = tmp_path / "profile.svg"
    write_picture(PROFILE, BARS, svg)
    assert ids(svg, "bar ") == [
        *("bar 2026-11 12.50", "bar 2026-12 0.00", "bar 2027-01 0.00", "bar 2027-02 100.00", "bar never 0.07")
    ]
    drawn = heights(svg)
    assert drawn[0] / drawn[3] == pytest.approx(0.125, rel=1e-3)
    assert drawn[1] == 0
    assert "Outstanding points by expiry" in svg.read_text(encoding="utf-8")


def labels(svg: Path) -> list[str]:
    """Return the texts beside the axes that are days or months."""
    return re.findall(r">(\d{4}-\d\d(?:-\d\d)?)<", svg.read_text(encoding="utf-8"))


def of_days(*figures: int) -> Table:
    """A report with these figures for days from 28 February on."""
    rows = tuple((date(2026, 2, 28) + timedelta(days=number), figure) for number, figure in enumerate(figures))
    return Table("Liability", LIABILITY.columns, rows)


@pytest.mark.parametrize("days", [1, 3, 14])
def test_few_days_are_named_each_once_and_no_hours(tmp_path: Path, days: int) -> None:
    svg = tmp_path / "liability.svg"
    write_picture(of_days(*range(100, 100 + days)), LINE, svg)
    assert labels(svg) == [f"{date(2026, 2, 28) + timedelta(days=number)}" for number in range(days)]


def test_one_day_is_a_line_as_wide_as_the_picture(tmp_path: Path) -> None:
    svg = tmp_path / "liability.svg"
    write_picture(of_days(500), LINE, svg)
    drawn = re.search(r'<g id="line of 1 days">\s*<path d="([^"]+)"', svg.read_text(encoding="utf-8"))
    assert drawn is not None
    xs = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", drawn[1])]
    assert max(xs) - min(xs) > 400


@pytest.mark.parametrize("count", [1, 8])
def test_few_bars_are_no_wider_than_an_eighth(tmp_path: Path, count: int) -> None:
    svg = tmp_path / "profile.svg"
    rows = tuple((month, "lots", 100) for month in months(date(2026, 1, 1), date(2026, count, 1)))
    write_picture(Table("Profile", PROFILE.columns, rows), BARS, svg)
    found = re.search(r'<g id="bar 2026-01 1.00">\s*<path d="([^"]+)"', svg.read_text(encoding="utf-8"))
    assert found is not None
    xs = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", found[1])]
    assert max(xs) - min(xs) < 720 / 8, "the picture is 720 points wide"


@pytest.mark.parametrize(("table", "picture"), [(of_days(0, 0), LINE), (Table("P", PROFILE.columns, ()), BARS)])
def test_an_empty_picture_is_not_left_without_a_word(tmp_path: Path, table: Table, picture: Picture) -> None:
    svg = tmp_path / "empty.svg"
    if table.rows:
        write_picture(table, picture, svg)
        assert "all figures are 0" in svg.read_text(encoding="utf-8")
    else:
        with pytest.raises(CannotWriteError, match="nothing to draw"):
            write_picture(table, picture, svg)


def test_a_line_needs_days(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match="no row of the report has a day"):
        write_picture(Table("Liability", LIABILITY.columns, ((None, 5),)), LINE, tmp_path / "liability.svg")


def test_a_line_goes_through_every_day(tmp_path: Path) -> None:
    svg = tmp_path / "liability.svg"
    write_picture(LIABILITY, LINE, svg)
    assert ids(svg, "line ") == ["line of 3 days"]


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_equal_reports_are_equal_pictures(ending: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{ending}" for name in ("first", "second")]
    for file in files:
        write_picture(PROFILE, BARS, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith({".svg": b"<?xml", ".png": b"\x89PNG"}[ending])


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match="nothing to draw"):
        write_picture(Table("t", PROFILE.columns, ()), BARS, tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("cells", "sums"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([(date(2026, 3, 9), 1), (date(2026, 3, 1), 2)], {date(2026, 3, 1): 3}, id="days of one month"),
        pytest.param([(None, 4)], {None: 4}, id="no month at all"),
        pytest.param(
            [(None, 4), (date(2027, 1, 1), 2), (date(2026, 11, 1), 1)],
            {date(2026, 11, 1): 1, date(2026, 12, 1): 0, date(2027, 1, 1): 2, None: 4},
            id="over a year's end, what has no month last",
        ),
    ],
)
def test_figures_are_summed_by_month(cells: list[tuple[Value, Value]], sums: dict[date | None, int]) -> None:
    assert list(by_month(cells).items()) == list(sums.items())
