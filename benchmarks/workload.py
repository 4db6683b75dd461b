"""The receipts of the benchmarks: goods, a programme of any number of promotions, and baskets that it applies to.

Everything is made from numbers, the same in every run. Every article is in the scope of exactly three promotions
(one by SKU, one by brand, one by category), however many there are, so that the work of a line does not depend on
the size of the programme unless the evaluator makes it so.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from stdnum.ean import calc_check_digit
from tallypoint.v1 import checkout_pb2, common_pb2, member_pb2, store_pb2

STORE_ID: Final = "bench"
TIME_ZONE: Final = "Europe/Kyiv"
CURRENCY: Final = "UAH"
ARTICLES: Final = 3_000
BASKETS: Final = 400
SPENT_POINTS_MINOR: Final = 100
"""What a shopper who pays with points asks to spend: one point, which pays 1.00."""
SPEND_EVERY: Final = 10
"""Every so many receipts the shopper pays with points."""
LEAST_PROMOTIONS: Final = 3
_NAMESPACE: Final = uuid.UUID("a5ab9a39-93b8-5a0e-8f8c-3f6d1d4b7f10")
_PRICES_MINOR: Final = range(990, 30_000, 10)
_MESSAGE_EVERY: Final = 5
"""Every so many of the promotions by category print a line on the receipt."""


class Families(NamedTuple):
    """How many promotions go by SKU, by brand and by category."""

    by_sku: int
    by_brand: int
    by_category: int

    @classmethod
    def of(cls, promotions: int) -> Families:
        """Divide promotions evenly.

        Raises:
            ValueError: if there are fewer than three.
        """
        if promotions < LEAST_PROMOTIONS:
            raise ValueError(f"a programme of the benchmarks needs {LEAST_PROMOTIONS} promotions or more")
        third = promotions // 3
        return cls(promotions - 2 * third, third, third)


def programme_text(promotions: int) -> str:
    """Return a programme file with that many promotions."""
    families = Families.of(promotions)
    lines = [
        "programme: bench",
        "name: Programme of the benchmarks",
        "effective_from: 2020-01-01",
        f"currency: {CURRENCY}",
        "point: {unit: bonus, precision: 2, pays: 1.00}",
        "earning: {base_percent: 1, expiry: {after_months: 12, round_up_to: month}}",
        "spending: {max_share_percent: 50, step_points: 0.01}",
        "promotions:",
        *(f"  - {{{promotion}}}" for promotion in _promotions(families)),
    ]
    return "\n".join(lines) + "\n"


def _promotions(families: Families) -> Iterator[str]:
    """Write every promotion as the fields of a mapping."""
    for number in range(families.by_sku):
        skus = ", ".join(_sku(article) for article in range(number, ARTICLES, families.by_sku))
        effect = f"line_discount: {{percent: {3 + number % 10}}}"
        yield f"id: sku-{number}, name: Goods of the week, scope: {{skus: [{skus}]}}, {effect}"
    for number in range(families.by_brand):
        scope = f"scope: {{brands: [brand-{number}]}}"
        yield f"id: brand-{number}, name: Double points on a brand, {scope}, points: {{multiplier: 2}}"
    for number in range(families.by_category):
        scope = f"scope: {{categories: [grocery/section-{number}]}}"
        message = f", messages: {{receipt: You saved in section {number}}}" if number % _MESSAGE_EVERY == 0 else ""
        yield f"id: category-{number}, name: Ten kopecks off, {scope}, line_discount: {{amount: 0.10}}{message}"


def articles(promotions: int) -> list[store_pb2.Product]:
    """Return the goods of a programme with that many promotions."""
    families = Families.of(promotions)
    return [
        store_pb2.Product(
            sku=_sku(number),
            category=f"grocery/section-{(number * 13 + 5) % families.by_category}",
            brand=f"brand-{(number * 7 + 3) % families.by_brand}",
            name=f"Article {number}",
        )
        for number in range(ARTICLES)
    ]


def receipts(lines: int, event_at: datetime, baskets: int = BASKETS) -> list[common_pb2.Receipt]:
    """Return baskets of that many lines, without discounts and tenders."""
    chance = random.Random(7)  # noqa: S311  - goods, not secrets
    return [_receipt(chance, lines, event_at) for _ in range(baskets)]


def _receipt(chance: random.Random, lines: int, event_at: datetime) -> common_pb2.Receipt:
    receipt = common_pb2.Receipt(currency_code=CURRENCY, event_at=Timestamp(seconds=int(event_at.timestamp())))
    for number in range(1, lines + 1):
        pieces = chance.choice((1, 1, 1, 2, 3))
        receipt.lines.add(
            line_number=number,
            sku=_sku(chance.randrange(ARTICLES)),
            quantity_milli=1000 * pieces,
            list_amount_minor=pieces * chance.choice(_PRICES_MINOR),
        )
    return receipt


class Basket(NamedTuple):
    """A basket as paid, in one of two ways, and what it must earn."""

    receipt: common_pb2.Receipt
    asked_points_minor: int
    accrual_points_minor: int


def as_paid(receipt: common_pb2.Receipt, quote: checkout_pb2.QuoteResponse) -> Basket:
    """Return what the register books after a quote: its discounts, its points, the rest by card."""
    paid = common_pb2.Receipt()
    paid.CopyFrom(receipt)
    for line, effects in zip(paid.lines, quote.lines, strict=True):
        line.discount_minor = sum(part.amount_minor for part in effects.discounts)
    if quote.spend_money_minor:
        paid.tenders.add(kind=common_pb2.TENDER_KIND_POINTS, amount_minor=quote.spend_money_minor)
    money_minor = quote.payable_minor - quote.spend_money_minor
    paid.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=money_minor)
    return Basket(paid, quote.spend_points_minor, quote.accrual_points_minor)


class Shopper(NamedTuple):
    """A member of the benchmarks."""

    member_id: uuid.UUID
    card_number: str

    @classmethod
    def number(cls, number: int) -> Shopper:
        """Return the member of a number; the card is an EAN-13 of the chain's own prefix 2."""
        body = f"2{number:011d}"
        return cls(uuid.uuid5(_NAMESPACE, str(number)), body + calc_check_digit(body))

    def registration(self) -> member_pb2.NewMember:
        """Return what the back office is told of the member."""
        return member_pb2.NewMember(
            member_id=str(self.member_id),
            status=common_pb2.MEMBER_STATUS_ACTIVE,
            profile=member_pb2.Profile(name=f"Shopper {self.card_number}", language="uk"),
            card_numbers=[self.card_number],
            registered_at=Timestamp(seconds=int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())),
        )


class Wanted(NamedTuple):
    """What the answer to a commit must say."""

    member_id: str
    asked_points_minor: int
    accrual_points_minor: int
    message_id: uuid.UUID
    """Under which the entry stands in the ledger."""


class Register:
    """Rings up baskets, each receipt with keys and a shopper of its own, never the same twice."""

    def __init__(self, plain: Sequence[Basket], spending: Sequence[Basket], shoppers: Sequence[Shopper]) -> None:
        """Take baskets paid with money, the same paid partly with points, and the members who buy them."""
        self._plain = [(_template(basket), basket) for basket in plain]
        self._spending = [(_template(basket), basket) for basket in spending]
        self._shoppers = shoppers
        self._numbers = itertools.count(1)
        self._business_date = datetime.now(UTC).date().isoformat()

    def ring_up(self, count: int) -> Iterator[tuple[bytes, Wanted]]:
        """Make that many serialised `CommitRequest`s, each with what its answer must say."""
        for number in itertools.islice(self._numbers, count):
            baskets = self._plain if number % SPEND_EVERY else self._spending
            template, basket = baskets[number * 31 % len(baskets)]
            shopper = self._shoppers[number * 7919 % len(self._shoppers)]
            message_id = uuid.uuid5(_NAMESPACE, f"message {number}")
            own = checkout_pb2.CommitRequest(
                message_id=str(message_id),
                receipt_key=common_pb2.ReceiptKey(
                    store_id=STORE_ID,
                    terminal_id=f"lane-{number % 16}",
                    business_date=self._business_date,
                    receipt_number=number,
                ),
                identifier=common_pb2.Identifier(card_number=shopper.card_number),
            )
            sums = (basket.asked_points_minor, basket.accrual_points_minor)
            wanted = Wanted(str(shopper.member_id), *sums, message_id)
            yield template + own.SerializeToString(), wanted  # serialised messages merge by joining them


def answered(response: checkout_pb2.CommitResponse, wanted: Wanted) -> bool:
    """Say whether an answer has an entry, and the sums that the receipt must give."""
    settlement = response.settlement
    return bool(
        response.entry.number > 0
        and response.entry.HasField("booked_at")
        and response.member_id == wanted.member_id
        and settlement.spent_points_minor + settlement.left_out_points_minor == wanted.asked_points_minor
        and (
            settlement.accrual_points_minor == wanted.accrual_points_minor
            # What was left out is paid in money, and earns.
            or (settlement.left_out_points_minor > 0 and settlement.accrual_points_minor > wanted.accrual_points_minor)
        )
    )


def _template(basket: Basket) -> bytes:
    return checkout_pb2.CommitRequest(
        receipt=basket.receipt, spend_points_minor=basket.asked_points_minor
    ).SerializeToString()


def _sku(article: int) -> str:
    return str(100_000 + article)
