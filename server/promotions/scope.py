"""Which goods a selector means, and the index that finds promotions by what their scope names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from server.promotions.criteria import Selector
from server.promotions.facts import ReceiptLine

CATEGORIES_REMEMBERED = 20_000
"""Categories whose path is taken apart once; a chain has some thousand."""


@lru_cache(maxsize=CATEGORIES_REMEMBERED)
def category_prefixes(category: str) -> tuple[str, ...]:
    """A category and all above it: "a/b/c" gives "a", "a/b" and "a/b/c"."""
    parts = category.split("/")
    return tuple("/".join(parts[: i + 1]) for i in range(len(parts)))


def selects(selector: Selector, line: ReceiptLine) -> bool:
    """Whether the line belongs to the goods that the selector describes."""
    answers = []
    if selector.skus:
        answers.append(line.sku in selector.skus)
    if selector.categories:
        answers.append(not selector.categories.isdisjoint(category_prefixes(line.category)))
    if selector.brands:
        answers.append(line.brand in selector.brands)
    if selector.suppliers:
        answers.append(line.supplier in selector.suppliers)
    if selector.tags:
        answers.append(not selector.tags.isdisjoint(line.tags))
    named = not answers or (all(answers) if selector.match_all else any(answers))
    return named and not (selector.but_not is not None and selects(selector.but_not, line))


class LinesByName:
    """The lines of a receipt by what they are called: a selector looks its names up and tries no line."""

    def __init__(self, lines: Sequence[ReceiptLine]) -> None:
        """File every line under its SKU, brand, supplier, tags and all categories above it."""
        self._everything = range(len(lines))
        self._skus: defaultdict[str, list[int]] = defaultdict(list)
        self._categories: defaultdict[str, list[int]] = defaultdict(list)
        self._brands: defaultdict[str, list[int]] = defaultdict(list)
        self._suppliers: defaultdict[str, list[int]] = defaultdict(list)
        self._tags: defaultdict[str, list[int]] = defaultdict(list)
        for position, line in enumerate(lines):
            self._skus[line.sku].append(position)
            self._brands[line.brand].append(position)
            self._suppliers[line.supplier].append(position)
            for prefix in category_prefixes(line.category):
                self._categories[prefix].append(position)
            for tag in line.tags:
                self._tags[tag].append(position)

    def positions(self, selector: Selector) -> list[int]:
        """The positions of the lines that `selects` would choose one by one, ascending."""
        shelves = (
            (self._skus, selector.skus),
            (self._categories, selector.categories),
            (self._brands, selector.brands),
            (self._suppliers, selector.suppliers),
            (self._tags, selector.tags),
        )
        found = [_named(shelf, names) for shelf, names in shelves if names]
        if not found:
            chosen = set(self._everything)
        else:
            chosen = set.intersection(*found) if selector.match_all else set.union(*found)
        if selector.but_not is not None:
            chosen.difference_update(self.positions(selector.but_not))
        return sorted(chosen)


def _named(shelf: Mapping[str, list[int]], names: frozenset[str]) -> set[int]:
    return {position for name in shelf.keys() & names for position in shelf[name]}


class ScopeIndex:
    """Promotions by what their scopes name. A `match_all` selector is filed under one of its lists only."""

    def __init__(self, scopes: Iterable[tuple[int, Sequence[Selector] | None]]) -> None:
        """File promotions by rank; scopes None means all goods, several mean any of them."""
        self._scopes: dict[int, Sequence[Selector]] = {}
        self._everything: list[int] = []
        self._by_sku: defaultdict[str, list[int]] = defaultdict(list)
        self._by_brand: defaultdict[str, list[int]] = defaultdict(list)
        self._by_supplier: defaultdict[str, list[int]] = defaultdict(list)
        self._by_category: defaultdict[str, list[int]] = defaultdict(list)
        self._by_tag: defaultdict[str, list[int]] = defaultdict(list)
        for rank, selectors in scopes:
            if selectors is None:
                self._everything.append(rank)
                continue
            self._scopes[rank] = selectors
            for selector in selectors:
                self._file(rank, selector)

    def _file(self, rank: int, selector: Selector) -> None:
        shelves = (
            (self._by_sku, selector.skus),
            (self._by_brand, selector.brands),
            (self._by_supplier, selector.suppliers),
            (self._by_category, selector.categories),
            (self._by_tag, selector.tags),
        )
        named = [(shelf, names) for shelf, names in shelves if names]
        if not named:
            self._everything.append(rank)
            return
        for shelf, names in named[:1] if selector.match_all else named:
            for name in names:
                shelf[name].append(rank)

    def ranks_for(self, line: ReceiptLine) -> list[int]:
        """Ranks of the promotions whose scopes have the line, ascending."""
        ranks = set(self._everything)
        ranks.update(self._by_sku.get(line.sku, ()))
        ranks.update(self._by_brand.get(line.brand, ()))
        ranks.update(self._by_supplier.get(line.supplier, ()))
        for prefix in category_prefixes(line.category):
            ranks.update(self._by_category.get(prefix, ()))
        for tag in line.tags:
            ranks.update(self._by_tag.get(tag, ()))
        return sorted(rank for rank in ranks if self._covers(rank, line))

    def _covers(self, rank: int, line: ReceiptLine) -> bool:
        selectors = self._scopes.get(rank)
        return selectors is None or any(selects(selector, line) for selector in selectors)
