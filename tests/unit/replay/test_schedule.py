"""Returns and receipt numbers are drawn from the baskets alone, and every till counts without gaps."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from benchmarks.replay.dataset import Dataset
from benchmarks.replay.schedule import Schedule, months_of, schedule

RATE = 400_000
DAY = 86_400


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Sixty baskets of five households in two stores over forty days, a line or two each."""
    count = 60
    index = np.arange(count)
    lines = 1 + index % 2
    start = np.r_[0, np.cumsum(lines)]
    total = int(start[-1])
    return Dataset(
        products=[],
        basket_id=1000 + index,
        household_id=index % 5,
        store_id=1 + index % 2,
        event_seconds=17_200 * DAY + index * DAY * 2 // 3,
        business_day=17_200 + index * 2 // 3,
        terminal_number=1 + index % 3 // 2,
        line_start=start,
        line_product=np.ones(total, dtype=np.int64),
        line_quantity_milli=np.full(total, 3000),
        line_weighed=np.zeros(total, dtype=np.bool_),
        line_amount_minor=np.full(total, 500),
    )


@pytest.fixture(scope="module")
def drawn(dataset: Dataset) -> Schedule:
    """Its schedule with many returns."""
    return schedule(dataset, RATE)


def numbers(dataset: Dataset, drawn: Schedule, count: int) -> dict[tuple[int, int, int], list[int]]:
    """The numbers that each till printed on each day, in the order of time, for the first baskets."""
    printed: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for index in range(count):
        till = (int(dataset.store_id[index]), int(dataset.terminal_number[index]), int(dataset.business_day[index]))
        for number in (drawn.before.get(index), index, drawn.after.get(index)):
            if number is not None:
                at = int(drawn.receipt_number[number]) if isinstance(number, int) else number.receipt_number
                printed[till].append(at)
    return printed


@pytest.mark.parametrize("count", [1, 13, 60], ids=["the first basket", "some baskets", "all baskets"])
def test_every_till_counts_without_gaps_however_many_baskets_are_replayed(
    dataset: Dataset, drawn: Schedule, count: int
) -> None:
    for printed in numbers(dataset, drawn, count).values():
        assert printed == list(range(1, len(printed) + 1))


def test_goods_come_back_after_they_were_bought_in_the_same_month(dataset: Dataset, drawn: Schedule) -> None:
    backs = drawn.returns(np.arange(len(dataset)))
    months = dataset.business_day.astype("datetime64[D]").astype("datetime64[M]")
    assert len(backs) == len({back.basket for back in backs}) > len(dataset) // 5
    for back in backs:
        assert dataset.household_id[back.basket] == dataset.household_id[back.till]
        assert months[back.basket] == months[back.till]
        assert back.event_seconds > dataset.event_seconds[back.basket]


def test_no_more_comes_back_than_was_bought(dataset: Dataset, drawn: Schedule) -> None:
    for back in drawn.returns(np.arange(len(dataset))):
        lines = dataset.basket(back.basket).lines
        assert all(0 < quantity <= lines[number - 1].quantity_milli for number, quantity in back.lines)


def test_without_returns_a_till_numbers_its_receipts(dataset: Dataset) -> None:
    without = schedule(dataset, 0)
    assert not without.before
    assert not without.after
    assert without.receipt_number.min() == 1


def test_months_are_those_of_the_business_date(dataset: Dataset) -> None:
    months = months_of(dataset, np.arange(len(dataset)))
    assert [month for month, _ in months] == ["2017-02", "2017-03"]
    assert sum(len(selection) for _, selection in months) == len(dataset)
