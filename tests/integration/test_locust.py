"""The load test with Locust: against a real server, every kind of call is made and every answer is right.

Locust itself runs in processes of its own: importing it changes the standard library for gevent.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from rich.console import Console
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.locust.baskets import Article, Sample
from benchmarks.locust.checks import Points, Wanted, WrongAnswer, check_committed, check_same
from benchmarks.locust.prepare import Reached, prepare
from benchmarks.locust.prepare import Wanted as Supplies
from benchmarks.locust.prepared import Line, NotPrepared, Prepared
from benchmarks.locust.register import Outcome
from benchmarks.locust.results import Limits, Tally, Total, judge
from benchmarks.locust.wire import NoAnswer
from benchmarks.replay.seed import SeedFailed
from tests.support.server_process import running_server

BASKETS = 20
ARTICLES = [Article(str(1000 + n), f"grocery/shelf-{n % 3}", "private", (), f"Article {n}") for n in range(30)]
LOCUSTFILE = "benchmarks/locust/locustfile.py"
KINDS = {"Connect", "Identify", "Identify refused", "Quote", "Hold", "Cancel", "Commit", "Commit again", "Return"}
FALSE_BALANCES = """
from benchmarks.locust import wire

def falsified(call):
    def answer(self, method, request):
        answer = call(self, method, request)
        if method == "Commit" and answer.message.member_id:
            answer.message.settlement.balance.available_points_minor += 1
        return answer
    return answer

for each in (wire.UnaryWire, wire.SessionWire):
    each.call = falsified(each.call)
"""
HOLDS_LEFT_BEHIND = """
from benchmarks.locust.register import GivenUp, Register

hold = Register.hold

def and_go_away(self, shopping):
    hold(self, shopping)
    raise GivenUp

Register.hold = and_go_away
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server of its own, since the programme is published, with few shoppers: each comes often."""
    folder = tmp_path_factory.mktemp("locust")
    baskets = [
        [Line(ARTICLES[(n * 7 + i * 3) % 30].sku, 1000 * (1 + i % 2), False, 199 + 150 * i) for i in range(1 + n % 6)]
        for n in range(BASKETS)
    ]
    (folder / f"baskets-{BASKETS}.json").write_text(json.dumps(Sample([*baskets], ARTICLES)))
    with running_server(tmp_path_factory.mktemp("server")) as server:
        reached = Reached(server.pos_address, server.backoffice_address, server.keys["admin"])
        supplies = Supplies(terminals=6, members=18, serial_coupons=40, baskets=BASKETS)
        path = folder / "prepared.json"
        asyncio.run(prepare(reached, supplies, folder, Console(quiet=True))).save(path)
        yield path


def run_locust(prepared: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run four lanes for some seconds; return exit code, summary and output."""
    summary = prepared.with_name("summary.json")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary"),
            *("--prepared", str(prepared), "--summary-json", str(summary), "--users", "4", "--spawn-rate", "40"),
            *("--pace-seconds", "0", "--ceiling-seconds", "0", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, json.loads(summary.read_text()) if summary.exists() else {}, done.stdout + done.stderr


def test_every_kind_of_call_is_answered_rightly(prepared: Path) -> None:
    exit_code, summary, output = run_locust(prepared, "--run-time", "6s", "--processes", "2", "--tour")
    seen = {(row["kind"], row["by"]) for row in summary["calls"]}
    assert exit_code == 0, output
    assert summary["passed"]
    assert not any(row["failures"] for row in summary["calls"]), output
    assert {kind for kind, _ in seen} >= KINDS
    assert {("Commit", "unary"), ("Commit", "session")} <= seen


def test_a_limit_that_nobody_can_keep_fails_the_run(prepared: Path) -> None:
    # Shorter than the time between two reports of Locust's processes: all calls come with the last one.
    exit_code, summary, output = run_locust(
        prepared, "--run-time", "1s", "--processes", "2", "--p99-ms", "Commit=0.001, 60000", "UnaryLane"
    )
    failed = [finding["text"] for finding in summary["findings"] if not finding["passed"]]
    assert exit_code == 1, output
    assert len(failed) == 1
    assert failed[0].startswith("p99 of Commit (unary) is")
    assert {row["by"] for row in summary["calls"]} == {"unary"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="one process"),
        pytest.param(("--processes", "2"), id="two processes"),
        pytest.param(("-f", "failover.py"), id="a shape"),
        pytest.param(("-f", "failover.py", "--processes", "2", "--html", "report.html"), id="a shape, two processes"),
    ],
)
def test_csv_files_have_all_calls_however_long_the_end_takes(
    arguments: tuple[str, ...], prepared: Path, tmp_path: Path
) -> None:
    # Locust's writer looks at its files once a second, also when they are closed.
    slow_end = tmp_path / "slow_end.py"
    slow_end.write_text("import atexit, time\natexit.register(time.sleep, 2.5)\n")
    files = [LOCUSTFILE, str(slow_end)]
    if "-f" in arguments:
        files.append("benchmarks/locust/failover.py")
        arguments = arguments[2:]
    arguments = tuple(str(tmp_path / each) if each.endswith(".html") else each for each in arguments)
    exit_code, summary, output = run_locust(
        prepared, "-f", ",".join(files), "--run-time", "3s", "--csv", str(tmp_path / "run"), *arguments
    )
    calls = sum(row["calls"] for row in summary["calls"] if row["kind"] != "Checkout")
    with (tmp_path / "run_stats.csv").open() as file:
        total = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    assert exit_code == 0, output
    assert "Traceback" not in output
    assert int(total["Request Count"]) == calls > 0
    assert {path.name for path in tmp_path.glob("run_*.csv")} == {
        *("run_stats.csv", "run_stats_history.csv", "run_failures.csv", "run_exceptions.csv")
    }
    assert (tmp_path / "report.html").exists() == ("--html" in arguments)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_is_judged_by_all_its_calls(stop: signal.Signals, prepared: Path, tmp_path: Path) -> None:
    """A terminal's Ctrl-C, and a pipeline that gives up, reach all processes at once."""
    summary, log = tmp_path / "summary.json", tmp_path / "log"
    command = [
        *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary", "--processes", "2"),
        *("--prepared", str(prepared), "--summary-json", str(summary), "--users", "4", "--spawn-rate", "40"),
        *("--pace-seconds", "0.1", "--ceiling-seconds", "0", "--run-time", "80s"),
    ]
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as locust,
    ):
        give_up_at = time.monotonic() + 60
        while "All users spawned" not in log.read_text() and time.monotonic() < give_up_at:
            time.sleep(0.2)  # between two looks at another process' log; the loop waits for the line
        time.sleep(1)  # of selling: less than the time between two reports of Locust's processes
        os.killpg(locust.pid, stop)
        exit_code = locust.wait(30)
    assert exit_code == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert {row["kind"] for row in json.loads(summary.read_text())["calls"]} >= {"Connect", "Quote", "Commit"}


def test_a_wrong_answer_fails_the_run_and_says_which_call_it_was(prepared: Path, tmp_path: Path) -> None:
    false = tmp_path / "false.py"
    false.write_text(FALSE_BALANCES)
    exit_code, summary, output = run_locust(
        prepared, "-f", f"{LOCUSTFILE},{false}", "--run-time", "3s", "--error-budget", "1", "--tags", "member"
    )
    assert exit_code == 1, output
    failed = [finding["text"] for finding in summary["findings"] if not finding["passed"]]
    assert len(failed) == 1
    assert failed[0].endswith(" wrong answers")
    assert re.search(
        r"wrong answer, balance: .*; store locust-\d, terminal lane-\d, receipt \d+ of [\d-]+, entry \d+ of book \d, m",
        output,
    )


def test_holds_that_a_broken_off_run_left_behind_are_no_wrong_answers(prepared: Path, tmp_path: Path) -> None:
    leaving = tmp_path / "leaving.py"
    leaving.write_text(HOLDS_LEFT_BEHIND)
    run_locust(prepared, "-f", f"{LOCUSTFILE},{leaving}", "--run-time", "3s", "--tour", "--tags", "points", "member")
    exit_code, summary, output = run_locust(prepared, "--run-time", "4s", "--tour", "--tags", "points", "member")
    assert exit_code == 0, output
    assert {"Hold", "Cancel", "Commit"} <= {row["kind"] for row in summary["calls"]}
    assert not any(row["failures"] for row in summary["calls"]), output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--host", "127.0.0.1:1"), "no connection to 127.0.0.1:1 in 1 s", id="no server"),
        pytest.param(("--prepared", "false key"), "UNAUTHENTICATED", id="a key that nobody knows"),
        pytest.param(("--users", "7"), "has 6 terminals. Prepare more", id="more users than terminals"),
        pytest.param(("--p99-ms", "Comit=100"), "there are no calls named 'Comit'", id="a limit for nothing"),
    ],
)
def test_a_run_that_cannot_be_says_so_at_the_start(
    arguments: tuple[str, str], said: str, prepared: Path, tmp_path: Path
) -> None:
    if arguments == ("--prepared", "false key"):
        known = Prepared.load(prepared)
        terminals = [terminal._replace(key="nobody's") for terminal in known.terminals]
        replace(known, terminals=terminals).save(tmp_path / "prepared.json")
        arguments = ("--prepared", str(tmp_path / "prepared.json"))
    exit_code, _, output = run_locust(prepared, "--run-time", "60s", *arguments)
    assert exit_code == 2, output
    assert said in output
    assert "Traceback" not in output


def test_the_web_page_has_the_summary(prepared: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--autostart", "--users", "2"),
        *("--web-host", "127.0.0.1", "--web-port", str(port), "--prepared", str(prepared), "--ceiling-seconds", "0"),
        *("--pace-seconds", "0.2", "--p99-ms", "60000"),
    ]
    page = ""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as locust:
        give_up_at = time.monotonic() + 60
        while "Commit" not in page and time.monotonic() < give_up_at:
            time.sleep(0.2)  # between two looks at another process, which tells of nothing; the loop waits for the page
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/summary", timeout=10) as answer:
                page = answer.read().decode()
        locust.terminate()
    assert "Commit" in page
    assert "pass 0 wrong answers" in page
    assert page.rstrip().endswith("PASS")


def test_a_server_that_is_not_there_is_not_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.locust.prepare._REACH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SeedFailed, match=rf"no connection to the POS port, {address}.*if it speaks TLS"):
            asyncio.run(prepare(Reached(address, address, "key"), Supplies(), tmp_path, Console(quiet=True)))


def test_a_file_that_is_missing_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(NotPrepared, match=r"python -m benchmarks\.locust\.prepare"):
        Prepared.load(tmp_path / "none.json")


# --- what is judged, and how ---


def committed(*, earned: int = 30, available: int = 130) -> checkout_pb2.CommitResponse:
    balance = common_pb2.Balance(unit="points", available_points_minor=available)
    answer = checkout_pb2.CommitResponse(
        entry=common_pb2.EntryRef(book=1, number=7),
        member_id="m",
        settlement=checkout_pb2.Settlement(accrual_points_minor=earned, balance=balance),
    )
    answer.entry.booked_at.GetCurrentTime()
    return answer


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        pytest.param(committed(earned=31), "points earned", id="other points than quoted"),
        pytest.param(committed(available=131), "balance", id="a point too many in the balance"),
        pytest.param(checkout_pb2.CommitResponse(member_id="m"), "entry", id="no entry"),
    ],
)
def test_a_wrong_answer_to_commit_is_found(answer: checkout_pb2.CommitResponse, what: str) -> None:
    wanted = Wanted("m", checkout_pb2.QuoteResponse(accrual_points_minor=30), Points(available=100))
    check_committed(committed(), checkout_pb2.CommitRequest(), wanted)
    with pytest.raises(WrongAnswer) as wrong:
        check_committed(answer, checkout_pb2.CommitRequest(), wanted)
    assert wrong.value.what == what


def test_an_answer_that_changes_when_the_receipt_is_sent_again_is_found() -> None:
    first = committed().SerializeToString()
    check_same(first, first)
    with pytest.raises(WrongAnswer, match="sent again"):
        check_same(first, committed(earned=29).SerializeToString())


def news(*outcomes: Outcome) -> Total:
    tally, total = Tally(), Total()
    for outcome in outcomes:
        tally.record("unary", outcome)
    total.add(json.loads(json.dumps(tally.news(), default=lambda raw: raw.decode())))  # as it travels
    return total


def good(kind: str = "Commit", milliseconds: int = 10, number: int = 0) -> Outcome:
    entry = common_pb2.EntryRef(book=2, number=number) if number else None
    return Outcome(kind, milliseconds * 1_000_000, 100, None, entry)


@pytest.mark.parametrize(
    ("outcomes", "limits", "failed"),
    [
        pytest.param([good()], Limits({"": 20}), "", id="all well"),
        pytest.param([], Limits(), "no call was made", id="nothing done"),
        pytest.param([good(milliseconds=30)], Limits({"": 20}), "p99 of Commit (unary) is 30.0", id="too slow"),
        pytest.param([good()], Limits({"Hold": 20}), "p99 of Hold: no such call", id="nothing to judge"),
        pytest.param(
            [good()] * 9 + [Outcome("Commit", 1, 0, NoAnswer(14, "UNAVAILABLE", "gone"))],
            Limits(error_budget=0.05),
            "1 of 10 calls failed: 10.000 %",
            id="over the error budget",
        ),
        pytest.param(
            [good()] * 9 + [Outcome("Commit", 1, 0, WrongAnswer("balance", "1, not 2"))],
            Limits(error_budget=0.5),
            "1 wrong answers",
            id="a wrong answer is in no budget",
        ),
        pytest.param(
            [good(number=5), good(number=4), good(number=5)], Limits(), "the first is 5 of book 2", id="twice"
        ),
    ],
)
def test_a_run_is_judged(outcomes: list[Outcome], limits: Limits, failed: str) -> None:
    findings = [finding.text for finding in judge(news(*outcomes), limits) if not finding.passed]
    assert len(findings) == bool(failed)
    assert not failed or failed in findings[0]


def test_limits_are_read_by_kind() -> None:
    assert Limits.parse("Commit=250, Commit again=300, 500", 0).p99_milliseconds == {
        "Commit": 250,
        "Commit again": 300,
        "": 500,
    }
    with pytest.raises(ValueError, match="no calls named 'Comit', but Connect, Identify"):
        Limits.parse("Comit=250", 0)
    with pytest.raises(ValueError, match="Commit=250"):
        Limits.parse("Commit=fast", 0)
