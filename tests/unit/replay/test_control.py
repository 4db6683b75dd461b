"""Control totals, percentiles and words of the report."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from benchmarks.replay.control import Bought, differences, from_data_set, summed
from benchmarks.replay.latency import Latencies
from benchmarks.replay.report import money
from server.commands.output.progress import progress


def test_totals_of_chosen_baskets_by_member() -> None:
    table = pd.DataFrame(
        {
            "household_id": [1, 1, 1, 2, 2],
            "basket_id": [10, 10, 11, 20, 21],
            "sales_value": [0.1, 0.2, 19.99, 1.0, 5.0],
        }
    )
    assert from_data_set(table, [10, 11, 20], lambda household: f"member {household}") == {
        "member 1": Bought(receipts=2, lines=3, turnover_minor=2029),
        "member 2": Bought(receipts=1, lines=1, turnover_minor=100),
    }


@pytest.mark.parametrize(
    ("booked", "words"),
    [
        pytest.param({"a": Bought(1, 2, 300), "b": Bought(1, 1, 1)}, [], id="equal"),
        pytest.param({"a": Bought(1, 2, 300)}, ["member b"], id="a member is missing"),
        pytest.param({"a": Bought(2, 4, 600), "b": Bought(1, 1, 1)}, ["member a"], id="booked twice"),
        pytest.param({"a": Bought(1, 2, 299), "b": Bought(1, 1, 1)}, ["member a"], id="a cent is missing"),
        pytest.param(
            {"a": Bought(1, 2, 300), "b": Bought(1, 1, 1), "c": Bought(1, 1, 0)},
            ["member c"],
            id="a stranger",
        ),
    ],
)
def test_differences_name_the_member(booked: dict[str, Bought], words: list[str]) -> None:
    found = differences({"a": Bought(1, 2, 300), "b": Bought(1, 1, 1)}, booked)
    assert len(found) == len(words)
    assert all(text.startswith(word) for text, word in zip(found, words, strict=True))


def test_many_differences_are_summed_up() -> None:
    found = differences({str(number): Bought(1, 1, 1) for number in range(20)}, {})
    assert len(found) == 6
    assert found[-1] == "and 15 more members"


def test_sum_of_members() -> None:
    assert summed({"a": Bought(1, 2, 300), "b": Bought(1, 1, 1)}) == Bought(2, 3, 301)
    assert summed({}) == Bought(0, 0, 0)


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        pytest.param([], [0, 0, 0, 0], id="none"),
        pytest.param([7], [7, 7, 7, 7], id="one"),
        pytest.param(list(range(1, 1001)), [500, 900, 990, 999], id="a thousand"),
        pytest.param([3, 1, 2], [2, 3, 3, 3], id="unsorted"),
    ],
)
def test_percentiles(durations: list[int], expected: list[int]) -> None:
    latencies = Latencies()
    for duration in durations:
        latencies.add(duration)
    assert latencies.percentiles() == expected


@pytest.mark.parametrize(("minor", "text"), [(123_456, "1,234.56"), (5, "0.05"), (-250, "-2.50"), (0, "0.00")])
def test_money(minor: int, text: str) -> None:
    assert money(minor) == text


def test_progress_says_where_it_ended_when_there_is_no_terminal() -> None:
    output = io.StringIO()
    with progress("Baskets", 10, "baskets", Console(file=output)) as advance:
        for _ in range(10):
            advance(1)
    assert output.getvalue().startswith("Baskets: 10 of 10 baskets (100 %), ")
