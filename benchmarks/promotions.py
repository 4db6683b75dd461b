"""What a quote costs in the evaluator alone: receipts of 1 to 1,000 lines under 10 to 10,000 live promotions.

Run ``python -m benchmarks.promotions``. Two mixes of promotions: `equal` has three candidates a line whatever their
number, so that only the search grows; `realistic` has what a grocer runs, so that there is more to do as well. All
cells take turns, round after round, since only cells of one run can be compared. Products have been seen before, as
they are in a worker that has been up for some minutes.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from itertools import cycle, islice
from random import Random
from time import perf_counter_ns
from typing import Annotated, Final, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import harness
from server.promotions import (
    AllOf,
    AmountOff,
    BasketDiscount,
    BirthdayWindow,
    CouponFact,
    CouponShown,
    Earning,
    FixedPrice,
    InSegments,
    InStores,
    LineDiscount,
    MemberFacts,
    OfferMade,
    PercentOff,
    Points,
    PointsFixed,
    PointsMultiplier,
    PointUnit,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptLine,
    ReceiptTotal,
    Rules,
    Selector,
    Spending,
    UnitDeal,
    compile_rules,
    quote,
)

LINES: Final = (1, 10, 100, 1000)
PROMOTIONS: Final = (10, 200, 1000, 10_000)
ARTICLES: Final = 30_000
EVENT_AT: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
MEMBER: Final = MemberFacts("member-1", birthday=date(1990, 6, 15), registered_on=date(2024, 1, 1))
_RECEIPTS: Final = 32
_LONG_RECEIPT: Final = 100
_KINDS: Final = 3
_NANOSECONDS_PER_MICROSECOND: Final = 1000


class Case(NamedTuple):
    """One cell of the table: rules, and receipts of so many lines with who buys."""

    mix: str
    lines: int
    promotions: int
    rules: Rules
    receipts: Sequence[tuple[ReceiptFacts, MemberFacts]]


def main(
    rounds: Annotated[int, typer.Option(help="How often every cell has its turn.")] = 15,
    milliseconds: Annotated[int, typer.Option(help="About how long a turn lasts.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects as the last line.")] = False,
) -> None:
    """Measure quotes of both mixes, every cell in turns with all others."""
    settings = {"rounds": rounds, "milliseconds": milliseconds, **harness.machine()}
    cases = [case for mix, rules_of in MIXES.items() for case in _cases(mix, rules_of)]
    spans: dict[tuple[str, int, int], list[int]] = {case[:3]: [] for case in cases}
    for number in range(1, rounds + 1):
        for case in cases:
            spans[case[:3]] += _turn(case, milliseconds)
        harness.narrator.print(f"round {number} of {rounds}")
    results = [
        {
            "mix": mix,
            "lines": lines,
            "promotions": promotions,
            "median_us": round(statistics.median(found) / _NANOSECONDS_PER_MICROSECOND, 1),
            "p99_us": round(statistics.quantiles(found, n=100)[98] / _NANOSECONDS_PER_MICROSECOND, 1),
        }
        for (mix, lines, promotions), found in spans.items()
    ]
    console = Console(highlight=False, soft_wrap=True)
    for mix in MIXES:
        console.print(_table(mix, {(r["lines"], r["promotions"]): r for r in results if r["mix"] == mix}))
    for name, value in settings.items():
        console.print(f"{name}: {value}", markup=False)
    if as_json:
        sys.stdout.write(f"{json.dumps(results)}\n")


def _cases(mix: str, rules_of: Callable[[int], Rules]) -> Iterator[Case]:
    for promotions in PROMOTIONS:
        harness.narrator.print(f"{mix}: compiling {promotions:,} promotions")
        rules = rules_of(promotions)
        for lines in LINES:
            receipts = list(islice(_receipts(mix, lines, promotions), _RECEIPTS if lines <= _LONG_RECEIPT else 4))
            for receipt, member in receipts:
                quote(rules, receipt, member)
            yield Case(mix, lines, promotions, rules, receipts)


def _turn(case: Case, milliseconds: int) -> list[int]:
    """Quote for a while; nanoseconds of each quote, at least as many as there are receipts."""
    spans = []
    enough = perf_counter_ns() + milliseconds * 1_000_000
    for number, (receipt, member) in enumerate(cycle(case.receipts), start=1):
        begun = perf_counter_ns()
        quote(case.rules, receipt, member)
        ended = perf_counter_ns()
        spans.append(ended - begun)
        if ended > enough and number >= len(case.receipts):
            return spans
    return spans


def _table(mix: str, cells: dict[tuple[object, object], dict[str, object]]) -> Table:
    title = f"{mix}: microseconds a quote, median / 99th percentile"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("lines", justify="right")
    for promotions in PROMOTIONS:
        table.add_column(f"{promotions:,} promotions", justify="right")
    for lines in LINES:
        row = [cells[lines, promotions] for promotions in PROMOTIONS]
        table.add_row(f"{lines:,}", *(f"{cell['median_us']:,} / {cell['p99_us']:,}" for cell in row))
    return table


# --- goods and receipts -----------------------------------------------------------------------------------


class Families(NamedTuple):
    """Into how many SKU lists, brands and categories the goods fall: a promotion for each."""

    by_sku: int
    by_brand: int
    by_category: int

    @classmethod
    def of(cls, promotions: int) -> Families:
        """Divide promotions evenly among the three kinds."""
        by_sku, by_brand = promotions // _KINDS, promotions // _KINDS
        return cls(by_sku, by_brand, promotions - by_sku - by_brand)


def _article(number: int, families: Families, line_number: int, quantity: int, amount_minor: int) -> ReceiptLine:
    return ReceiptLine(
        line_number,
        f"sku-{number}",
        f"grocery/section-{(number * 13 + 5) % families.by_category}/shelf",
        f"brand-{(number * 7 + 3) % families.by_brand}",
        "",
        (),
        quantity * 1000,
        amount_minor * quantity,
    )


def _receipts(mix: str, lines: int, promotions: int) -> Iterator[tuple[ReceiptFacts, MemberFacts]]:
    random = Random(f"{mix} {lines} {promotions}")  # noqa: S311 -- reproducible on purpose
    families = Families.of(promotions)
    while True:
        goods = [
            _article(
                random.randrange(ARTICLES), families, number, random.choice((1, 1, 1, 2, 3)), random.randint(500, 9000)
            )
            for number in range(1, lines + 1)
        ]
        receipt = ReceiptFacts(f"store-{random.randrange(50)}", EVENT_AT, goods)
        if mix == "equal":
            yield receipt, MEMBER
            continue
        coupons = [CouponFact(f"code-{n}", f"series-{n}") for n in random.sample(range(promotions // 5 + 3), 2)]
        offers = frozenset(f"offer-{n}" for n in random.sample(range(promotions // 5 + 3), 3))
        segments = frozenset(f"segment-{n}" for n in random.sample(range(100), 3))
        yield receipt._replace(coupons=coupons), MEMBER._replace(offers=offers, segments=segments)


# --- rules ------------------------------------------------------------------------------------------------


def _programme(promotions: Sequence[Promotion]) -> Programme:
    return Programme(
        code="bench",
        name="Bench",
        effective_from=date(2020, 1, 1),
        currency="UAH",
        currency_digits=2,
        point=PointUnit("bonus", 2, Fraction(1)),
        earning=Earning(Fraction(1, 100)),
        spending=Spending(Fraction(1, 2), 1, 1),
        promotions=tuple(promotions),
    )


def equal_rules(promotions: int) -> Rules:
    """Three candidates a line: percent off by SKU, double points by brand, an amount off by category."""
    families = Families.of(promotions)
    made = [
        Promotion(
            f"sku-{n}",
            "Goods of the week",
            Selector(skus=frozenset(f"sku-{article}" for article in range(n, ARTICLES, families.by_sku))),
            line_discount=LineDiscount(PercentOff(Fraction(3 + n % 10, 100))),
        )
        for n in range(families.by_sku)
    ]
    made += [
        Promotion(
            f"brand-{n}",
            "Double points on a brand",
            Selector(brands=frozenset([f"brand-{n}"])),
            points=Points(PointsMultiplier(Fraction(2))),
        )
        for n in range(families.by_brand)
    ]
    made += [
        Promotion(
            f"category-{n}",
            "Ten kopecks off",
            Selector(categories=frozenset([f"grocery/section-{n}"])),
            line_discount=LineDiscount(AmountOff(10)),
        )
        for n in range(families.by_category)
    ]
    return compile_rules(_programme(made), 1)


def realistic_rules(promotions: int) -> Rules:
    """What a grocer runs: goods on offer, deals, baskets, birthdays, segments, coupons and personal offers."""
    random = Random(promotions)  # noqa: S311 -- reproducible on purpose
    families = Families.of(promotions)
    return compile_rules(_programme([_realistic(n, random, families) for n in range(promotions)]), 1)


def _realistic(number: int, random: Random, families: Families) -> Promotion:
    """The promotion of a number: kinds take turns, so that every size has the same mix."""
    turn, index = number % 10, number // 10
    promotion = Promotion(f"p-{number}", f"Promotion {number}", priority=random.choice((50, 100)))
    articles = frozenset(f"sku-{random.randrange(ARTICLES)}" for _ in range(20))
    category = Selector(categories=frozenset([f"grocery/section-{random.randrange(families.by_category)}"]))
    brand = Selector(brands=frozenset([f"brand-{random.randrange(families.by_brand)}"]))
    ten_percent = LineDiscount(PercentOff(Fraction(1, 10)))
    total = ReceiptTotal(at_least_minor=random.randint(50, 300) * 1000)
    fields: list[dict[str, object]] = [
        {"scope": category, "line_discount": LineDiscount(PercentOff(Fraction(random.randint(5, 30), 100)))},
        {"scope": Selector(skus=articles), "line_discount": LineDiscount(FixedPrice(random.randint(300, 3000)))},
        {"scope": brand, "deal": UnitDeal(3, 1, PercentOff(Fraction(1)))},
        {"scope": category, "points": Points(PointsMultiplier(Fraction(random.randint(2, 5))))},
        {
            "when": AllOf((total, InStores(frozenset([f"store-{random.randrange(50)}"])))),
            "basket_discount": BasketDiscount(AmountOff(5000)),
        },
        {
            "when": AllOf((BirthdayWindow(7, 0), InSegments(frozenset([f"segment-{random.randrange(100)}"])))),
            "points": Points(PointsMultiplier(Fraction(5))),
        },
        {
            "scope": Selector(skus=articles),
            "when": CouponShown(frozenset([f"series-{index}"])),
            "line_discount": ten_percent,
        },
        {"id": f"offer-{index}", "scope": category, "when": OfferMade(), "line_discount": ten_percent},
        {
            "when": AllOf((total, InSegments(frozenset([f"segment-{random.randrange(100)}"])))),
            "points": Points(PointsFixed(1000, "receipt")),
        },
        {"scope": Selector(skus=articles), "line_discount": LineDiscount(AmountOff(random.randint(50, 500)))},
    ]
    return _with(promotion, fields[turn])


def _with(promotion: Promotion, fields: dict[str, object]) -> Promotion:
    values = {name: getattr(promotion, name) for name in Promotion.__dataclass_fields__}
    return Promotion(**(values | fields))


MIXES: Final = {"equal": equal_rules, "realistic": realistic_rules}


if __name__ == "__main__":
    typer.run(main)
