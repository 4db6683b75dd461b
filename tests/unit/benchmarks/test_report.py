"""The report from stored results: verdicts, tables and plots."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report_content import SECTIONS, errors_of, markdown, measures
from benchmarks.report_plots import ENDINGS, draw

STORED = Path(__file__).parent / "results.json"


CRM = {
    "ours_per_s": 9_000.0,
    "baseline_per_s": 2_000.0,
    "ratio": 4.5,
    "ratio_min": 4.0,
    "ratio_max": 5.0,
    "errors": 0,
    "lag_ms": {"p50": 120, "p90": 300, "p99": 1_400, "max": 1_500, "entries": 12_000},
}


@pytest.fixture
def results() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return stored


def verdicts(results: dict[str, Any]) -> dict[tuple[str, str], bool | None]:
    return {(each.benchmark, each.what): each.met for each in measures(results)}


@pytest.mark.parametrize(
    ("benchmark", "result"),
    [
        ("commit_vs_echo", {"batches": {"up_to": {}}, "matrix": []}),
        ("latency", {"levels": []}),
        ("overload", {"offered": [], "timeline": []}),
        ("growth", {"sizes": []}),
        ("workers", {"workers": []}),
        ("crm_lag", {"lag_ms": {"entries": 0}}),
        ("promotions", []),
    ],
)
def test_what_has_no_figures_is_not_drawn(tmp_path: Path, benchmark: str, result: Any) -> None:
    assert draw({"benchmarks": {benchmark: {"status": "ok", "result": result}}}, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_plot_of_one_bar_leaves_room_beside_it(tmp_path: Path) -> None:
    bar = {"workers": [{"workers": 1, "ours_per_s": 600, "baseline_per_s": 2000}], "settings": {"echo_workers": 1}}
    assert draw({"benchmarks": {"workers": {"status": "ok", "result": bar}}}, tmp_path) == ["workers"]
    svg = (tmp_path / "workers.svg").read_text(encoding="utf-8")
    found = re.search(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: #2f6f8f"/>', svg)
    assert found is not None, "the bar is there"
    xs = [float(x) for x, _ in re.findall(r"[ML] ([\d.]+) ([\d.]+)", found[1])]
    assert max(xs) - min(xs) < 576 / 8, "the plot is 576 points wide"


def test_every_benchmark_that_is_run_has_a_section() -> None:
    assert [run.module for run in report.RUNS] == list(SECTIONS)


def test_targets_are_met_or_missed(results: dict[str, Any]) -> None:
    found = verdicts(results)
    assert found["commit_vs_echo", "`Commit`, unary, of a bare echo"] is True
    assert found["commit_vs_echo", "`Session` streams, of a bare echo"] is False
    assert found["ledger_vs_pgbench", "the ledger alone, of pgbench TPC-B"] is False
    assert found["latency", "p99 at half the saturation, of the echo's"] is True
    assert found["growth", "throughput with 100,000 entries, of an empty ledger"] is True
    assert found["growth", "disk a receipt without its payload, 100,000 entries"] is True
    assert found["overload", "p99 is normal again after"] is None
    assert found["promotions", "a quote of 100 lines, of one of 10"] is False
    assert found["crm_lag", "The CRM stream"] is None


def test_the_streams_lag_and_its_speed(results: dict[str, Any]) -> None:
    results["benchmarks"]["crm_lag"] |= {"status": "ok", "result": CRM}
    found = verdicts(results)
    assert found["crm_lag", "lag at saturation, p99"] is False
    assert found["crm_lag", "speed of draining a backlog, of the commits'"] is True
    assert "| 120 | 300 | 1,400 | 1,500 | 12,000 |" in markdown(results)


def test_errors_are_a_missed_target(results: dict[str, Any]) -> None:
    results["benchmarks"]["growth"]["result"]["sizes"][0]["errors"] = 3
    assert verdicts(results)["growth", "errors"] is False
    assert errors_of(results["benchmarks"]["growth"]["result"]) == 3


def test_the_report_tells_all(results: dict[str, Any]) -> None:
    text = markdown(results, ["growth"])
    assert "| latency | p99 at half the saturation, of the echo's | ≤ 4 | 3.88 | 2.816 to 4.946 | met |" in text
    assert "**missed**" in text
    assert "![growth](growth.svg)" in text
    assert "(workers.svg)" not in text
    assert "**failed with exit code 1**" in text
    assert "OSError: no disk" in text
    assert "| processor | Some processor |" in text
    for section in SECTIONS.values():
        assert f"## {section.title}" in text


def test_rows_have_as_many_cells_as_their_heading(results: dict[str, Any]) -> None:
    width = 0
    for line in markdown(results).splitlines():
        cells = line.count("|")
        assert cells in (0, width) or width == 0, line
        width = cells


@pytest.mark.parametrize("name", list(SECTIONS))
def test_a_result_of_another_form_is_said_and_does_not_stop_the_report(name: str, results: dict[str, Any]) -> None:
    run = results["benchmarks"][name]
    results["benchmarks"] = {name: {**deepcopy(run), "status": "ok", "result": {"levels": [{}], "sizes": [{}]}}}
    assert "its result lacks" in markdown(results)


def test_a_report_is_written_anew_from_its_results(results: dict[str, Any], tmp_path: Path) -> None:
    results["benchmarks"]["crm_lag"] |= {"status": "ok", "result": CRM}
    folder = tmp_path / "again"
    report.write(results, folder)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == results
    text = (folder / "report.md").read_text(encoding="utf-8")
    for section in SECTIONS.values():
        for picture in section.pictures:
            assert f"({picture}.svg)" in text
            for ending in ENDINGS:
                assert (folder / f"{picture}.{ending}").stat().st_size > 1_000


def test_a_benchmark_that_fails_is_shown_and_counts() -> None:
    run = report.run_one(["-c", "import sys; sys.exit('there is no disk')"])
    assert run["status"] == "failed with exit code 1"
    assert run["output_end"] == ["there is no disk"]
    assert report.show({"benchmarks": {"growth": run}})
    assert not report.show({"benchmarks": {}})


def test_a_result_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = report.run_one(
        ["-c", "import sys; print('a table'); print('told', file=sys.stderr); print('{\"ratio\": 1}')"]
    )
    assert (run["status"], run["result"]) == ("ok", {"ratio": 1})
    assert "told" in capsys.readouterr().err
    assert report.run_one(["-c", "print('no figures')"])["status"] == "gave no result"


def test_short_and_long_rounds_are_commands() -> None:
    growth = next(run for run in report.RUNS if run.module == "growth")
    assert growth.command(long=False)[:2] == ["-m", "benchmarks.growth"]
    assert growth.command(long=True, more=("--keep", "x"))[-3:] == ["--keep", "x", "--json"]
    assert report.description()["cores"] >= 1
