"""Short words for the tables: programmes from YAML, receipts from a few amounts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from server.promotions import (
    BasketDiscount,
    CounterFact,
    Earning,
    Effects,
    LineDiscount,
    MemberFacts,
    PaidLine,
    PercentOff,
    PointUnit,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptLine,
    Rules,
    Selector,
    Spending,
    Usage,
    compile_rules,
    load_programme,
)

STORE_ZONE = ZoneInfo("Europe/Kyiv")
MONDAY = date(2026, 3, 2)
SHOPPER = MemberFacts("m-1", birthday=date(1990, 6, 15))

HEAD = """
programme: test
name: Test
effective_from: 2026-01-01
currency: UAH
"""
POINT = "point: {unit: bonus, precision: 2, pays: 1.00}\n"
ONE_PERCENT = "earning: {base_percent: 1}\n"


A20 = "id: a, name: A, line_discount: {percent: 20}"
"""A plain promotion: 20 % off everything."""


def promotions(*items: str) -> str:
    """The `promotions` section with these items in flow style."""
    return "promotions:\n" + "".join(f"  - {{{item}}}\n" for item in items)


def programme(body: str = "", head: str = HEAD + POINT) -> Programme:
    """A programme with these further lines of YAML; fails with the errors if it has any."""
    loaded = load_programme(head + body)
    assert isinstance(loaded, Programme), "\n".join(map(str, loaded))
    return loaded


def rules(body: str = "", head: str = HEAD + POINT) -> Rules:
    """The same, compiled as version 7."""
    return compile_rules(programme(body, head), 7)


PLAIN = Programme(
    code="test",
    name="Test",
    effective_from=date(2026, 1, 1),
    currency="UAH",
    currency_digits=2,
    point=PointUnit("bonus", 2, Fraction(1)),
    earning=Earning(Fraction(0)),
    spending=Spending(Fraction(1), 1, 1),
)
"""A programme without promotions and without a base percent; one point pays 1.00."""

TEN_PERCENT = PercentOff(Fraction(1, 10))
TEN_OFF_LINES = LineDiscount(TEN_PERCENT)
TEN_OFF_BASKET = BasketDiscount(TEN_PERCENT)


def promo(promotion_id: str = "p", **fields: Any) -> Promotion:
    """A promotion from model objects."""
    return Promotion(promotion_id, promotion_id.upper(), **fields)


def rules_of(*items: Promotion, **settings: Any) -> Rules:
    """Compiled rules from model objects."""
    return compile_rules(replace(PLAIN, promotions=items, **settings), 7)


def skus(*names: str) -> Selector:
    """Goods by SKU."""
    return Selector(skus=frozenset(names))


def used(**counters: Any) -> Usage:
    """What a member used before, by key; slashes of the key are written `__`, numbers mean times."""
    return Usage(
        {
            key.replace("__", "/"): value if isinstance(value, CounterFact) else CounterFact(times=value)
            for key, value in counters.items()
        }
    )


def by_promotion(effects: Effects) -> dict[str, int]:
    """What each promotion took off."""
    sums: dict[str, int] = {}
    for entry in effects.lines:
        for promotion_id, amount in entry.discounts:
            sums[promotion_id] = sums.get(promotion_id, 0) + amount
    return sums


def points_by_promotion(effects: Effects) -> dict[str, int]:
    """What each promotion granted."""
    sums: dict[str, int] = {}
    for entry in effects.lines:
        for accrual in entry.accruals:
            sums[accrual.promotion_id] = sums.get(accrual.promotion_id, 0) + accrual.points_minor
    return sums


def line(number: int, amount_minor: int, **changes: Any) -> ReceiptLine:
    """One piece of plain goods at this price."""
    plain = ReceiptLine(number, f"sku-{number}", "grocery/dry", "acme", "", (), 1000, amount_minor)
    return plain._replace(**changes)


def receipt(*lines: ReceiptLine | int, on: date = MONDAY, at: time = time(12), **head: Any) -> ReceiptFacts:
    """A receipt at noon; bare amounts become plain lines numbered from 1."""
    made = [line(n, entry) if isinstance(entry, int) else entry for n, entry in enumerate(lines, start=1)]
    return ReceiptFacts("store-1", datetime.combine(on, at, STORE_ZONE), made)._replace(**head)


def discounts(effects: Effects) -> list[int]:
    """Discount of each line."""
    return [sum(d.amount_minor for d in entry.discounts) for entry in effects.lines]


def points(effects: Effects) -> list[int]:
    """Points of each line."""
    return [sum(a.points_minor for a in entry.accruals) for entry in effects.lines]


def points_money(effects: Effects) -> list[int]:
    """Money of each line that points pay."""
    return [entry.points_money_minor for entry in effects.lines]


def as_quoted(effects: Effects) -> list[PaidLine]:
    """What a register charges that applies the quote."""
    return [
        PaidLine(entry.line_number, taken, entry.points_money_minor)
        for entry, taken in zip(effects.lines, discounts(effects), strict=True)
    ]
