"""Baskets of real shoppers for load tests: a sample of the Complete Journey, kept beside the prepared file.

Reading the data set takes seconds and some 600 MB, so it is read when a sample is first drawn, and neither by the
processes that make the load nor again.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console

from benchmarks.locust.prepared import Basket, Line

CACHE: Final = Path(".data/locust")
"""Where samples are kept."""
_SEED: Final = 20171223


class Article(NamedTuple):
    """What the server's catalogue has to know of an article that is in some basket."""

    sku: str
    category: str
    brand: str
    tags: tuple[str, ...]
    name: str


class Sample(NamedTuple):
    """Baskets, and the articles in them."""

    baskets: list[Basket]
    articles: list[Article]


def sample(count: int, folder: Path, console: Console) -> Sample:
    """Return `count` baskets drawn at random: always the same ones, from the folder if they were drawn before.

    Raises:
        benchmarks.replay.dataset.DatasetMissing: the extra `replay` is not installed.
    """
    path = folder / f"baskets-{count}.json"
    if path.exists():
        return _read(path)
    console.print(f"Drawing {count:,} baskets from the Complete Journey; they are kept in {path}")
    drawn = _draw(count)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(drawn), encoding="utf-8")
    unfinished.replace(path)
    return drawn


def _draw(count: int) -> Sample:
    # Here, since pandas and the data cost seconds and memory that only the first run has to pay.
    from benchmarks.replay import dataset  # noqa: PLC0415  - see above

    data = dataset.load()
    chance = random.Random(_SEED)  # noqa: S311  - goods, not secrets
    baskets: list[Basket] = []
    for index in chance.sample(range(len(data)), len(data)):
        lines = [Line(*line) for line in data.basket(index).lines if line.quantity_milli]  # no voided positions
        if lines:
            baskets.append(lines)
        if len(baskets) == count:
            break
    skus = {line.sku for basket in baskets for line in basket}
    return Sample(baskets, [Article(*product) for product in data.products if product.sku in skus])


def _read(path: Path) -> Sample:
    baskets, articles = json.loads(path.read_text(encoding="utf-8"))
    return Sample(
        [[Line(*line) for line in basket] for basket in baskets],
        [Article(sku, category, brand, tuple(tags), name) for sku, category, brand, tags, name in articles],
    )
