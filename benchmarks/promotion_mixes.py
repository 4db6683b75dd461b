"""The promotions and receipts of `benchmarks.promotions`, in mixes; all random choices are the same in every run.

* `equal`: three candidates a line whatever the number of promotions. Goods are made up.
* `realistic`: the replay's programme, the coupons of the Complete Journey's campaigns, and what the example files
  have, over the data set's articles; its baskets are the receipts. Without the data set everything is made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from itertools import chain, count, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

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
    Limit,
    LimitScope,
    LineDiscount,
    Measure,
    MemberFacts,
    OfferMade,
    PercentOff,
    Period,
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
    SetDeal,
    SetPart,
    Spending,
    Step,
    Steps,
    UnitDeal,
    compile_rules,
    load_programme,
)

if TYPE_CHECKING:
    from benchmarks.replay.campaigns import Campaigns
    from benchmarks.replay.dataset import Dataset, Product

ARTICLES: Final = 30_000
EVENT_AT: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
MEMBER: Final = MemberFacts("member-1", birthday=date(1990, 6, 15), registered_on=date(2024, 1, 1))
_KINDS: Final = 3
_STORES: Final = 457
_PROMOTIONS_PER_SEGMENT: Final = 10
"""Who runs more promotions for segments has more segments."""
_COUPON_EVERY: Final = 4
"""Of so many receipts one is of a basket at which a coupon was really redeemed."""

Checkout = tuple[ReceiptFacts, MemberFacts]


class Mix(Protocol):
    """Rules of any number of promotions, and who buys what under them."""

    name: str
    goods: str
    """What the goods are, in words."""

    def rules(self, promotions: int) -> Rules:
        """Compile so many promotions."""

    def checkouts(self, lines: int, promotions: int) -> Iterator[Checkout]:
        """Receipts of so many lines, without end."""


def mixes() -> tuple[Mix, ...]:
    """All mixes; `goods` tells whether the data set is there."""
    return (EqualMix(), realistic())


def realistic() -> Mix:
    """The realistic mix: of the data set if it is installed."""
    try:
        from benchmarks.replay.campaigns import load_campaigns  # noqa: PLC0415 - needs an optional package
        from benchmarks.replay.dataset import DatasetMissing, load  # noqa: PLC0415 - needs an optional package
    except ImportError:
        return MadeUpMix()
    try:
        return JourneyMix(load(), load_campaigns())
    except DatasetMissing:
        return MadeUpMix()


# --- made-up goods ----------------------------------------------------------------------------------------


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


def _made_up_receipts(random: Random, lines: int, promotions: int) -> Iterator[ReceiptFacts]:
    families = Families.of(promotions)
    while True:
        goods = [
            _article(
                random.randrange(ARTICLES), families, number, random.choice((1, 1, 1, 2, 3)), random.randint(500, 9000)
            )
            for number in range(1, lines + 1)
        ]
        yield ReceiptFacts(f"store-{random.randrange(_STORES)}", EVENT_AT, goods)


def _programme(promotions: Sequence[Promotion]) -> Programme:
    return Programme(
        code="bench",
        name="Bench",
        effective_from=date(2016, 1, 1),
        currency="USD",
        currency_digits=2,
        point=PointUnit("bonus", 2, Fraction(1)),
        earning=Earning(Fraction(1, 100)),
        spending=Spending(Fraction(1, 2), 1, 1),
        promotions=tuple(promotions),
    )


class EqualMix:
    """Three candidates a line: percent off by SKU, double points by brand, an amount off by category."""

    name = "equal"
    goods = "made up"

    def rules(self, promotions: int) -> Rules:
        """A promotion for every family of goods."""
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

    def checkouts(self, lines: int, promotions: int) -> Iterator[Checkout]:
        """A member without any rights buys made-up goods."""
        random = Random(f"equal {lines} {promotions}")  # noqa: S311 -- reproducible on purpose
        return ((receipt, MEMBER) for receipt in _made_up_receipts(random, lines, promotions))


# --- what grocers run -------------------------------------------------------------------------------------


class Shelves(NamedTuple):
    """The goods that promotions may name: SKUs, category paths, and what a brand's or maker's goods have in common."""

    skus: Sequence[str]
    categories: Sequence[str]
    makers: Sequence[Selector]


def _promotion_like_the_examples(number: int, random: Random, shelves: Shelves, segments: int) -> Promotion:
    """A promotion of a kind that the example files have; kinds take turns, so that every size has the same mix."""
    articles = Selector(skus=frozenset(random.choices(shelves.skus, k=20)))
    category = Selector(categories=frozenset([random.choice(shelves.categories)]))
    other = Selector(categories=frozenset([random.choice(shelves.categories)]))
    maker = random.choice(shelves.makers)
    total = ReceiptTotal(at_least_minor=random.randint(50, 300) * 100)
    segment = InSegments(frozenset([f"segment-{random.randrange(segments)}"]))
    ten_percent = LineDiscount(PercentOff(Fraction(1, 10)))
    once_a_day = (Limit(Measure.COUNT, LimitScope.MEMBER, 1, Period.DAY),)
    plain = Promotion(f"p-{number}", f"Promotion {number}", priority=random.choice((50, 100)))
    kinds = (
        replace(plain, scope=category, line_discount=LineDiscount(PercentOff(Fraction(random.randint(5, 30), 100)))),
        replace(plain, scope=articles, line_discount=LineDiscount(FixedPrice(random.randint(100, 900)))),
        replace(plain, scope=maker, deal=UnitDeal(3, 1, PercentOff(Fraction(1))), limits=once_a_day),
        replace(plain, scope=category, points=Points(PointsMultiplier(Fraction(random.randint(2, 5))))),
        replace(
            plain,
            when=AllOf((total, InStores(frozenset([f"store-{random.randrange(_STORES)}"])))),
            basket_discount=BasketDiscount(AmountOff(500)),
        ),
        replace(plain, when=AllOf((BirthdayWindow(7, 0), segment)), points=Points(PointsMultiplier(Fraction(5)))),
        replace(plain, scope=articles, when=CouponShown(frozenset([f"series-{number}"])), line_discount=ten_percent),
        replace(plain, id=f"offer-{number}", scope=category, when=OfferMade(), line_discount=ten_percent),
        replace(plain, when=AllOf((total, segment)), points=Points(PointsFixed(1000, "receipt"))),
        replace(plain, scope=articles, line_discount=LineDiscount(AmountOff(random.randint(10, 100)))),
        replace(plain, deal=SetDeal((SetPart(category, 1), SetPart(other, 1)), PercentOff(Fraction(1, 5)))),
        replace(plain, scope=category, deal=Steps("quantity", (Step(3, AmountOff(50)), Step(6, AmountOff(150))))),
    )
    return kinds[number % len(kinds)]


def _segments(promotions: int) -> int:
    """How many segments there are."""
    return max(promotions // _PROMOTIONS_PER_SEGMENT, 10)


def _rights(random: Random, rules: int) -> tuple[list[CouponFact], frozenset[str], frozenset[str]]:
    """Two coupons, three offers and three segments; of the coupons and offers few are of a live promotion."""
    coupons = [CouponFact(f"code-{n}", f"series-{n}") for n in random.sample(range(rules), 2)]
    offers = frozenset(f"offer-{n}" for n in random.sample(range(rules), 3))
    return coupons, offers, frozenset(f"segment-{n}" for n in random.sample(range(_segments(rules)), 3))


class MadeUpMix:
    """What the examples have, over made-up goods."""

    name = "realistic"
    goods = "made up, since the data set (the extra `replay`) is not installed"

    def rules(self, promotions: int) -> Rules:
        """Promotions of all kinds in turn."""
        random = Random(promotions)  # noqa: S311 -- reproducible on purpose
        families = Families.of(promotions)
        shelves = Shelves(
            [f"sku-{n}" for n in range(ARTICLES)],
            [f"grocery/section-{n}" for n in range(families.by_category)],
            [Selector(brands=frozenset([f"brand-{n}"])) for n in range(families.by_brand)],
        )
        made = [_promotion_like_the_examples(n, random, shelves, _segments(promotions)) for n in range(promotions)]
        return compile_rules(_programme(made), 1)

    def checkouts(self, lines: int, promotions: int) -> Iterator[Checkout]:
        """Members with segments, offers and coupons buy made-up goods."""
        random = Random(f"realistic {lines} {promotions}")  # noqa: S311 -- reproducible on purpose
        for receipt in _made_up_receipts(random, lines, promotions):
            coupons, offers, segments = _rights(random, promotions)
            yield receipt._replace(coupons=coupons), MEMBER._replace(offers=offers, segments=segments)


# --- the data set's goods, campaigns and baskets ----------------------------------------------------------


class JourneyMix:
    """The replay's programme, then coupons of real campaigns and promotions like the examples' in turn.

    Campaigns run at all times, so that all promotions are live; those redeemed most come first. Every fourth receipt
    begins with a basket at which coupons were really redeemed, and presents them. A receipt of more lines than its
    basket has goes on with the lines of the next ones.
    """

    name = "realistic"
    goods = "those of The Complete Journey"

    def __init__(self, dataset: Dataset, campaigns: Campaigns) -> None:
        """Look up what rules and receipts of any size have in common."""
        self._dataset = dataset
        self._campaigns = campaigns
        self._catalogue = {product.sku: product for product in dataset.products}
        self._shelves = _shelves(dataset.products)
        self._presented = campaigns.presented()
        index_of = {basket: index for index, basket in enumerate(dataset.basket_id.tolist())}
        self._redeeming = sorted(index_of[basket] for basket in self._presented)

    def rules(self, promotions: int) -> Rules:
        """The replay's programme with so many promotions in all."""
        base = load_programme((Path(__file__).parent / "replay" / "programme.yaml").read_bytes())
        if isinstance(base, list):
            raise ValueError(f"the replay's programme has faults: {base}")  # noqa: TRY004 - of a text, not a type
        random = Random(promotions)  # noqa: S311 -- reproducible on purpose
        coupons = iter(self._coupon_promotions())
        in_turn = chain.from_iterable(
            (*islice(coupons, 1), _promotion_like_the_examples(number, random, self._shelves, _segments(promotions)))
            for number in count()
        )
        made = tuple(islice(chain(base.promotions, in_turn), promotions))
        return compile_rules(replace(base, promotions=made), 1)

    def checkouts(self, lines: int, promotions: int) -> Iterator[Checkout]:
        """Receipts of real baskets; households have birthdays, and segments and offers that are drawn."""
        random = Random(f"journey {lines} {promotions}")  # noqa: S311 -- reproducible on purpose
        for number in count():
            is_redeeming = number % _COUPON_EVERY == 0
            index = random.choice(self._redeeming) if is_redeeming else random.randrange(len(self._dataset))
            yield self._checkout(random, index, lines, promotions)

    def _checkout(self, random: Random, index: int, lines: int, promotions: int) -> Checkout:
        from benchmarks.replay.dataset import TIME_ZONE  # noqa: PLC0415 - needs an optional package
        from benchmarks.replay.people import CardShape, person  # noqa: PLC0415 - like the data set

        basket = self._dataset.basket(index)
        _, offers, segments = _rights(random, promotions)
        who = person(basket.household_id, CardShape())
        receipt = ReceiptFacts(
            f"store-{int(basket.store_id) % _STORES}",
            datetime.fromtimestamp(basket.event_seconds, ZoneInfo(TIME_ZONE)),
            list(islice(self._lines_from(index), lines)),
            coupons=[CouponFact(code, _series(code)) for code in self._presented.get(basket.basket_id, ())],
        )
        member = MemberFacts(
            str(who.member_id), who.birthday, registered_on=date(2016, 12, 1), segments=segments, offers=offers
        )
        return receipt, member

    def _lines_from(self, index: int) -> Iterator[ReceiptLine]:
        """The lines of a basket and of those after it that sell something, numbered from 1."""
        number = 0
        while True:
            for line in self._dataset.basket(index % len(self._dataset)).lines:
                if line.quantity_milli == 0:
                    continue
                number += 1
                known = self._catalogue.get(line.sku)
                marks = (known.category, known.brand, "", known.tags) if known else ("", "", "", ())
                amounts = (line.quantity_milli, line.list_amount_minor)
                yield ReceiptLine(number, line.sku, *marks, *amounts, is_weighed=line.weighed)
            index += 1

    def _coupon_promotions(self) -> list[Promotion]:
        redeemed = Counter(_series(redemption.code) for redemption in self._campaigns.redemptions)
        return [
            Promotion(
                offer.series,
                f"Campaign {offer.campaign}",
                Selector(skus=frozenset(offer.skus)),
                when=CouponShown(frozenset([offer.series])),
                basket_discount=BasketDiscount(AmountOff(offer.amount_minor)),
            )
            for offer in sorted(self._campaigns.offers, key=lambda offer: -redeemed[offer.series])
        ]


def _series(code: str) -> str:
    """The series of a household's coupon: its code without the household."""
    return f"cj-{code.removeprefix('CJ').rpartition('-')[0]}"


def _shelves(products: Sequence[Product]) -> Shelves:
    makers = sorted({tag for product in products for tag in product.tags if tag.startswith("manufacturer-")})
    return Shelves(
        [product.sku for product in products],
        sorted({product.category for product in products if product.category}),
        [Selector(tags=frozenset([maker])) for maker in makers],
    )
