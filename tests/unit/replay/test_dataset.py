"""The data set as the replay sees it, against the data set as it was published."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from benchmarks.replay import dataset
from benchmarks.replay.dataset import Dataset, slug, to_minor

BASKETS = 155_848
LINES = 1_469_307
HOUSEHOLDS = 2_469
STORES = 457
PRODUCTS = 92_331


@pytest.fixture(scope="module")
def published() -> tuple[pd.DataFrame, pd.DataFrame]:
    return dataset.frames()


@pytest.fixture(scope="module")
def data(published: tuple[pd.DataFrame, pd.DataFrame]) -> Dataset:
    return dataset.build(*published)


def test_the_whole_year_is_there(data: Dataset) -> None:
    everything = data.select()
    assert len(data) == len(everything) == BASKETS
    assert len(data.line_amount_minor) == LINES
    assert len(data.products) == PRODUCTS
    assert len(data.households(everything)) == HOUSEHOLDS
    assert len({store for store, _ in data.terminals(everything)}) == STORES


def test_every_line_is_in_one_basket_in_its_published_order(
    data: Dataset, published: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    transactions, _ = published
    ordered = transactions.sort_values(["transaction_timestamp", "basket_id"], kind="stable")
    assert np.array_equal(np.repeat(data.basket_id, np.diff(data.line_start)), ordered["basket_id"].to_numpy())
    assert np.array_equal(data.line_product, ordered["product_id"].to_numpy())
    assert np.array_equal(np.repeat(data.household_id, np.diff(data.line_start)), ordered["household_id"].to_numpy())


def test_turnover_equals_the_published_sum_to_the_cent(
    data: Dataset, published: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    transactions, _ = published
    by_basket = (transactions["sales_value"] * 100).round().astype("int64").groupby(transactions["basket_id"]).sum()
    ours = pd.Series(np.add.reduceat(data.line_amount_minor, data.line_start[:-1]), index=data.basket_id)
    assert by_basket.equals(ours.sort_index().rename_axis("basket_id").rename("sales_value"))
    assert int(data.line_amount_minor.sum()) == 459_603_958


def test_a_basket_is_of_one_household_store_and_moment(published: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    transactions, _ = published
    kinds = transactions.groupby("basket_id")[["household_id", "store_id", "transaction_timestamp"]].nunique()
    assert (kinds == 1).all().all()


def test_baskets_are_in_the_order_of_time(data: Dataset) -> None:
    assert (np.diff(data.event_seconds) >= 0).all()
    assert len(np.unique(data.basket_id)) == BASKETS


def test_published_weeks_begin_at_local_midnight_so_timestamps_are_utc(
    data: Dataset, published: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    transactions, _ = published
    week = transactions.groupby("basket_id")["week"].first().reindex(data.basket_id).to_numpy()
    first_monday = (datetime(2017, 1, 2, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    ours = (data.business_day - first_monday) // 7 + 2
    # One week of the published calendar begins a day late: 25 December, when the shops are closed.
    assert np.array_equal(ours, week)


@pytest.mark.parametrize("index", [0, 40_000, 80_000, BASKETS - 1])
def test_the_business_date_is_the_store_s_calendar_date(data: Dataset, index: int) -> None:
    basket = data.basket(index)
    local = datetime.fromtimestamp(basket.event_seconds, ZoneInfo(dataset.TIME_ZONE))
    assert basket.business_date == local.date().isoformat()
    assert local.year == 2017


def test_quantities_fit_the_api(data: Dataset) -> None:
    assert data.line_quantity_milli.min() == 0
    assert data.line_quantity_milli.max() <= 1_000_000_000
    voided = data.line_quantity_milli == 0
    assert (data.line_amount_minor[voided] == 0).all(), "a voided position must not carry money"
    assert int(voided.sum()) == 8_869 - 29


def test_petrol_is_measured_and_costs_what_petrol_costs(data: Dataset) -> None:
    gallons = data.line_quantity_milli[data.line_weighed] / 1000
    dollars = data.line_amount_minor[data.line_weighed] / 100
    assert int(data.line_weighed.sum()) == 13_520
    assert 2.0 < float(np.median(dollars / gallons)) < 3.0


def test_a_basket_as_plain_data(data: Dataset) -> None:
    basket = data.basket(0)
    assert basket.basket_id == 31198570044
    assert (basket.household_id, basket.store_id, basket.business_date) == (900, "330", "2017-01-01")
    assert basket.lines == [dataset.Line("1095275", 1000, weighed=False, list_amount_minor=50)]
    assert basket.terminal_id.startswith("T")


@pytest.mark.parametrize(
    ("month", "limit", "baskets"),
    [
        pytest.param(None, 10, 10, id="the first ten of the year"),
        pytest.param("2017-03", None, 12_958, id="March"),
        pytest.param("2017-12", 5, 5, id="the first five of December"),
    ],
)
def test_selection(data: Dataset, month: str | None, limit: int | None, baskets: int) -> None:
    chosen = data.select(month, limit)
    assert len(chosen) == baskets
    if month is not None:
        assert {data.basket(int(index)).business_date[:7] for index in chosen[:50]} == {month}


def test_months_add_up_to_the_year(data: Dataset) -> None:
    assert sum(len(data.select(f"2017-{month:02d}")) for month in range(1, 13)) == BASKETS


@pytest.mark.parametrize("month", ["2017-13", "2017-3", "March", "2018-01"])
def test_a_wrong_month_is_said_so(data: Dataset, month: str) -> None:
    with pytest.raises(ValueError, match=month):
        data.select(month)


@pytest.mark.parametrize("count", [1, 7, 32])
def test_lanes_share_all_baskets_and_keep_each_household_in_order(data: Dataset, count: int) -> None:
    selection = data.select("2017-03")
    lanes = data.lanes(selection, count)
    assert np.array_equal(np.sort(np.concatenate(lanes)), selection)
    homes = [set(data.household_id[lane].tolist()) for lane in lanes]
    assert sum(len(home) for home in homes) == len(set.union(*homes)), "a household is in two lanes"
    assert all((np.diff(lane) > 0).all() for lane in lanes)
    sizes = [len(lane) for lane in lanes]
    assert max(sizes) - min(sizes) <= max(np.unique(data.household_id[selection], return_counts=True)[1])


def test_products_fit_the_api(data: Dataset) -> None:
    for product in data.products:
        assert len(product.category) <= 200
        assert len(product.name) <= 200
        assert product.brand in {"national", "private"}
        assert all(1 <= len(tag) <= 32 for tag in product.tags)
    assert len({product.sku for product in data.products}) == PRODUCTS


@pytest.mark.parametrize(
    ("category", "tag"),
    [
        pytest.param("grocery/beers-ales/beeralemalt-liquors", "alcohol", id="beer"),
        pytest.param("spirits/liquor/traditional-vodka", "alcohol", id="vodka"),
        pytest.param("grocery/beers-ales/beerale-non-alcoholic", None, id="alcohol-free beer"),
        pytest.param("drug-gm/cigarettes/cigarettes", "tobacco", id="cigarettes"),
        pytest.param("miscellaneous/coupon-misc-items/mastercard-gift-card", "gift-card", id="gift card"),
        pytest.param("fuel/coupon-misc-items/gasoline-reg-unleaded", "fuel", id="petrol"),
        pytest.param("grocery/frzn-ice/ice-crushed-cubed", None, id="ice"),
    ],
)
def test_marks_of_goods(data: Dataset, category: str, tag: str | None) -> None:
    marks = {
        frozenset(tag for tag in product.tags if not tag.startswith("manufacturer-"))
        for product in data.products
        if product.category == category
    }
    assert marks == {frozenset({tag} if tag else ())}


def test_cents_are_exact_or_refused() -> None:
    assert to_minor(np.array([0.1 + 0.2, 19.99, 840.0])).tolist() == [30, 1999, 84_000]
    with pytest.raises(ValueError, match="whole number of cents"):
        to_minor(np.array([0.005]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ICE - CRUSHED/CUBED", "ice-crushed-cubed"), ("DRUG GM", "drug-gm"), ("  A&B ", "a-b"), ("", "")],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
