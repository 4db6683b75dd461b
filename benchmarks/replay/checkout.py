"""One basket as a checkout: what the register asks, and the receipt that it prints from the answers."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID, uuid4, uuid5

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.replay.dataset import CURRENCY, Basket
from benchmarks.replay.people import NAMESPACE, Person, digest_number, shows_phone

_PER_MILLION = 1_000_000


def identifier(basket: Basket, who: Person) -> common_pb2.Identifier:
    """What the shopper shows at this checkout: the card, or now and then the phone number."""
    if shows_phone(basket.basket_id, who):
        return common_pb2.Identifier(phone=who.phone)
    return common_pb2.Identifier(card_number=who.card_number)


def wants_to_spend(basket: Basket, rate_per_million: int) -> bool:
    """Whether the shopper pays this basket with points: `rate_per_million` of all, always the same ones."""
    return digest_number(f"spend:{basket.basket_id}") % _PER_MILLION < rate_per_million


def identify_request(basket: Basket, who: Person) -> checkout_pb2.IdentifyRequest:
    """The question who the shopper is."""
    return checkout_pb2.IdentifyRequest(
        identifier=identifier(basket, who), event_at=Timestamp(seconds=basket.event_seconds)
    )


def quote_request(basket: Basket, who: Person) -> checkout_pb2.QuoteRequest:
    """The question what the receipt gives."""
    return checkout_pb2.QuoteRequest(identifier=identifier(basket, who), receipt=_receipt(basket))


def commit_request(
    basket: Basket, who: Person, quote: checkout_pb2.QuoteResponse, *, spend: bool
) -> checkout_pb2.CommitRequest:
    """The receipt as paid: the quote's discounts, its maximum of points if `spend`, the rest by card."""
    receipt = _receipt(basket)
    for line, effects in zip(receipt.lines, quote.lines, strict=True):
        line.discount_minor = sum(part.amount_minor for part in effects.discounts)
    points_money = quote.max_spend_money_minor if spend else 0
    if points_money:
        receipt.tenders.add(kind=common_pb2.TENDER_KIND_POINTS, amount_minor=points_money)
    receipt.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=quote.payable_minor - points_money)
    return checkout_pb2.CommitRequest(
        message_id=str(message_id(basket.basket_id)),
        receipt_key=common_pb2.ReceiptKey(
            store_id=basket.store_id,
            terminal_id=basket.terminal_id,
            business_date=basket.business_date,
            receipt_number=basket.basket_id,
        ),
        identifier=identifier(basket, who),
        receipt=receipt,
        spend_points_minor=quote.max_spend_points_minor if spend else 0,
        quoted_programme_version=quote.programme_version,
    )


def message_id(basket_id: int) -> UUID:
    """The id of the message that commits a basket: the same whenever it is sent."""
    return uuid5(NAMESPACE, f"commit:{basket_id}")


def with_new_message_id(request: checkout_pb2.CommitRequest) -> checkout_pb2.CommitRequest:
    """The same receipt in a new message, as registers resend it."""
    renewed = checkout_pb2.CommitRequest()
    renewed.CopyFrom(request)
    renewed.message_id = str(uuid4())
    return renewed


def answer_digest(response: checkout_pb2.CommitResponse) -> bytes:
    """SHA-256 of an answer: equal answers have equal digests."""
    return sha256(response.SerializeToString(deterministic=True)).digest()


def _receipt(basket: Basket) -> common_pb2.Receipt:
    return common_pb2.Receipt(
        event_at=Timestamp(seconds=basket.event_seconds),
        currency_code=CURRENCY,
        lines=[
            common_pb2.ReceiptLine(
                line_number=number,
                sku=line.sku,
                quantity_milli=line.quantity_milli,
                weighed=line.weighed,
                list_amount_minor=line.list_amount_minor,
            )
            for number, line in enumerate(basket.lines, start=1)
        ],
    )
