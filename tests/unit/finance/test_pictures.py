"""Pictures of reports: what is drawn is what the report says."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ledger.finance.table import Column, Table, Value
from server.finance.extra import CannotWriteError
from server.finance.pictures import Picture, by_month, write_picture

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
