"""A few hundred real receipts through a real server, twice: the second time must change nothing."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.replay import run, schedule
from benchmarks.replay.cli import app
from benchmarks.replay.dataset import Dataset, load
from benchmarks.replay.lanes import Plan
from benchmarks.replay.own_server import Target, own_server
from benchmarks.replay.report import ReplayReport, show
from benchmarks.replay.run import Options, replay
from benchmarks.replay.schedule import Schedule

BASKETS = 300
MONTH = "2017-03"
RETURNS_PER_MILLION = 300_000
OPTIONS = Options(
    month=MONTH,
    limit=BASKETS,
    plan=Plan(redemption_per_million=500_000),
    returns_per_million=RETURNS_PER_MILLION,
    close_months=True,
)
CLOSE_ENTRIES = 4 + 1
"""A close's marks in the four books, and its totals."""


@pytest.fixture(autouse=True, scope="module")
def drawn_once() -> Iterator[None]:
    """The year's returns are the same in every replay, and drawing them takes longer than a small replay itself."""
    drawn: dict[int, Schedule] = {}

    def draw(dataset: Dataset, returns_per_million: int) -> Schedule:
        assert dataset is load()
        if returns_per_million not in drawn:
            drawn[returns_per_million] = schedule.schedule(dataset, returns_per_million)
        return drawn[returns_per_million]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "schedule", draw)
        yield


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server of this module's own, so that all its entries are the replay's."""
    with own_server(tmp_path_factory.mktemp("replay")) as target:
        yield target


@pytest.fixture(scope="module")
def journal_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the registers keep their journal from one test to the next."""
    return tmp_path_factory.mktemp("journal")


@pytest.fixture(scope="module")
def first(target: Target, journal_dir: Path) -> ReplayReport:
    """The first replay."""
    return _replay(target, OPTIONS, journal_dir)


def _replay(target: Target, options: Options, journal_dir: Path) -> ReplayReport:
    return asyncio.run(replay(target, options, journal_dir, Console(file=io.StringIO())))


def _events(report: ReplayReport) -> int:
    """Everything that a replay did for the first time."""
    tally = report.tally
    return tally.receipts + tally.returns + tally.holds + tally.cancels


def _text(report: ReplayReport) -> str:
    output = io.StringIO()
    show(report, Console(file=output, width=160))
    return output.getvalue()


def test_the_first_replay_books_every_receipt_and_proves_it(first: ReplayReport) -> None:
    assert first.clean, _text(first)
    assert all(check.passed for check in first.checks), _text(first)
    assert first.tally.receipts == first.bought.receipts == BASKETS
    assert first.new_entries == _events(first) + CLOSE_ENTRIES
    assert first.tally.returns > 0
    assert first.tally.holds > first.tally.cancels > 0
    assert first.closes == 1
    assert first.points.issued == first.tally.accrual_points_minor - first.tally.clawback_points_minor > 0
    assert first.points.redeemed == first.tally.spent_points_minor - first.tally.refund_points_minor > 0
    assert first.tally.discount_minor > 0
    assert "everything holds" in _text(first)


def test_the_second_replay_sends_all_again_and_adds_nothing(
    first: ReplayReport, target: Target, journal_dir: Path
) -> None:
    second = _replay(target, OPTIONS, journal_dir)
    assert second.clean, _text(second)
    assert second.new_entries == 0
    assert second.tally.resent == second.tally.receipts == BASKETS
    assert second.tally.different_answers == []
    assert second.points == first.points


def test_receipts_in_new_messages_add_nothing_either(first: ReplayReport, target: Target, journal_dir: Path) -> None:
    plan = Plan(redemption_per_million=500_000, new_message_ids=True)
    again = _replay(target, replace(OPTIONS, plan=plan), journal_dir)
    assert again.clean, _text(again)
    assert again.new_entries == 0
    assert again.points == first.points


def test_a_longer_replay_goes_on_where_the_last_one_stopped(
    first: ReplayReport, target: Target, journal_dir: Path
) -> None:
    longer = _replay(target, replace(OPTIONS, limit=BASKETS + 40), journal_dir)
    (late,) = [check for check in longer.checks if not check.passed]
    assert "came late" in late.detail, "the month was closed already"
    assert longer.tally.skipped == BASKETS
    assert longer.tally.receipts == 40
    assert longer.new_entries == _events(longer)


def test_an_answer_that_is_not_the_first_one_fails_the_replay(
    first: ReplayReport, target: Target, journal_dir: Path
) -> None:
    (path,) = journal_dir.glob("replay-*.sqlite")
    with sqlite3.connect(path) as journal:
        ((basket_id, digest),) = journal.execute("SELECT basket_id, answer_sha256 FROM receipt LIMIT 1")
        journal.execute("UPDATE receipt SET answer_sha256 = zeroblob(32) WHERE basket_id = ?", (basket_id,))
    options = replace(OPTIONS, prove=False)
    tampered = _replay(target, options, journal_dir)
    assert tampered.tally.different_answers == [basket_id]
    assert not tampered.clean
    assert "NOT EVERYTHING HOLDS" in _text(tampered)
    with sqlite3.connect(path) as journal:
        journal.execute("UPDATE receipt SET answer_sha256 = ? WHERE basket_id = ?", (digest, basket_id))


def test_an_interrupted_replay_is_finished_by_the_next(target: Target, journal_dir: Path) -> None:
    options, earlier = replace(OPTIONS, month="2017-06"), _answered(journal_dir)

    def answered() -> int:
        return _answered(journal_dir) - earlier

    async def interrupted() -> None:
        running = asyncio.create_task(replay(target, options, journal_dir, Console(file=io.StringIO())))
        while not running.done() and answered() < BASKETS // 4:
            await asyncio.sleep(0.01)
        assert not running.done(), "the replay ended before it could be interrupted"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(interrupted())
    before = answered()
    rest = _replay(target, options, journal_dir)
    assert BASKETS // 4 <= before < BASKETS
    assert rest.clean, _text(rest)
    assert rest.tally.skipped == before
    assert rest.tally.receipts == BASKETS - before


def _answered(journal_dir: Path) -> int:
    """How many receipts of all replays the registers have an answer to."""
    for path in journal_dir.glob("replay-*.sqlite"):
        with sqlite3.connect(path) as journal:
            if journal.execute("SELECT 1 FROM sqlite_schema WHERE name = 'receipt'").fetchone():
                ((answered,),) = journal.execute("SELECT count(answer_sha256) FROM receipt")
                return int(answered)
    return 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--pos", "127.0.0.1:1"], "belong together", id="half an address"),
        pytest.param(["--card-scheme", "crc32:1"], "is not of the form", id="unknown card scheme"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_words(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_a_month_without_receipts_is_said_in_words(target: Target, tmp_path: Path) -> None:
    addresses = ["--pos", target.pos_address, "--backoffice", target.backoffice_address]
    arguments = [*addresses, "--admin-key", target.admin_key, f"--data-dir={tmp_path}", "--month=2016-01", "--yes"]
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 2
    assert "no baskets in 2016-01" in result.output
