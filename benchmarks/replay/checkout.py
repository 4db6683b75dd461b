"""One basket as a checkout: what the register asks, and the receipt that it prints from the answers."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID, uuid4, uuid5

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.replay.dataset import CURRENCY, Basket
from benchmarks.replay.people import NAMESPACE, Person, digest_number, shows_phone
from benchmarks.replay.schedule import Spending

_PER_MILLION = 1_000_000
_ROUND_POINTS = 100
"""A number of points that is a multiple of any programme's step."""


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


def quote_request(basket: Basket, who: Person, coupons: Sequence[str] = ()) -> checkout_pb2.QuoteRequest:
    """The question what the receipt gives, with the coupons that the shopper presents."""
    return checkout_pb2.QuoteRequest(identifier=identifier(basket, who), receipt=_receipt(basket), coupon_codes=coupons)


def receipt_key(basket: Basket, receipt_number: int) -> common_pb2.ReceiptKey:
    """The key of a receipt of this basket's till and date."""
    return common_pb2.ReceiptKey(
        store_id=basket.store_id,
        terminal_id=basket.terminal_id,
        business_date=basket.business_date,
        receipt_number=receipt_number,
    )


def hold_request(
    basket: Basket, who: Person, points_minor: int, coupons: Sequence[str] = ()
) -> checkout_pb2.HoldRequest:
    """The wish to keep points and coupons while the shopper pays."""
    return checkout_pb2.HoldRequest(
        message_id=str(uuid4()),
        checkout_key=_checkout_key(basket),
        identifier=identifier(basket, who),
        receipt=_receipt(basket),
        spend_points_minor=points_minor,
        coupon_codes=coupons,
    )


def cancel_request(basket: Basket) -> checkout_pb2.CancelRequest:
    """The shopper changed their mind."""
    return checkout_pb2.CancelRequest(
        message_id=str(uuid4()), checkout_key=_checkout_key(basket), reason="the shopper pays in money"
    )


def _checkout_key(basket: Basket) -> checkout_pb2.CheckoutKey:
    return checkout_pb2.CheckoutKey(
        store_id=basket.store_id, terminal_id=basket.terminal_id, checkout_id=f"basket-{basket.basket_id}"
    )


def points_to_pay(quote: checkout_pb2.QuoteResponse, spending: Spending | None) -> tuple[int, int]:
    """The points that a shopper pays with, and the money that they pay: the most, about half of it, or none."""
    points, money = quote.max_spend_points_minor, quote.max_spend_money_minor
    if spending is None or spending is Spending.CHANGED_MIND or points == 0:
        return 0, 0
    if spending is Spending.HELD_FOR_MORE:
        half = points // (2 * _ROUND_POINTS) * _ROUND_POINTS
        return half, money * half // points
    return points, money


def commit_request(
    basket: Basket,
    who: Person,
    quote: checkout_pb2.QuoteResponse,
    receipt_number: int,
    spending: Spending | None,
    coupons: Sequence[str] = (),
) -> checkout_pb2.CommitRequest:
    """The receipt as paid: the quote's discounts, points if the shopper spends any, the rest by card."""
    receipt = _receipt(basket)
    for line, effects in zip(receipt.lines, quote.lines, strict=True):
        line.discount_minor = sum(part.amount_minor for part in effects.discounts)
    points, points_money = points_to_pay(quote, spending)
    if points_money:
        receipt.tenders.add(kind=common_pb2.TENDER_KIND_POINTS, amount_minor=points_money)
    receipt.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=quote.payable_minor - points_money)
    held = spending in {Spending.HELD, Spending.HELD_FOR_MORE} and quote.max_spend_points_minor > 0
    return checkout_pb2.CommitRequest(
        message_id=str(message_id(basket.basket_id)),
        receipt_key=receipt_key(basket, receipt_number),
        identifier=identifier(basket, who),
        receipt=receipt,
        spend_points_minor=points,
        checkout_id=_checkout_key(basket).checkout_id if held else "",
        quoted_programme_version=quote.programme_version,
        coupon_codes=coupons,
    )


def return_request(
    bought: checkout_pb2.CommitRequest,
    till: Basket,
    receipt_number: int,
    event_seconds: int,
    lines: Sequence[tuple[int, int]],
) -> checkout_pb2.ReturnRequest:
    """Goods of a receipt come back at a till; no lines stand for all of them."""
    key = bought.receipt_key
    return checkout_pb2.ReturnRequest(
        message_id=str(uuid5(NAMESPACE, f"return:{key.SerializeToString(deterministic=True).hex()}")),
        receipt_key=receipt_key(till, receipt_number),
        purchase_key=key,
        event_at=Timestamp(seconds=event_seconds),
        lines=[checkout_pb2.ReturnedLine(line_number=line, quantity_milli=quantity) for line, quantity in lines],
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


def usable_coupons(quote: checkout_pb2.QuoteResponse) -> list[str]:
    """The coupons of a quote that have an effect: a register holds no others."""
    return [coupon.code for coupon in quote.coupons if coupon.used]


def answer_digest(response: checkout_pb2.CommitResponse | checkout_pb2.ReturnResponse) -> bytes:
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
