"""Commands for the books, with payloads that verification accepts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from tallypoint.v1 import common_pb2, journal_pb2

from ledger.books import book_of_member, book_of_receipt
from ledger.keys import business_key, content_hash
from ledger.model import Grant, Purchase, Spend, Unit

BONUS = Unit(1, "bonus", 2)
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


def member(name: int | str) -> uuid.UUID:
    """Return the same id for the same name."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"member {name}")


def purchase(
    receipt_number: int,
    shopper: uuid.UUID | None,
    *,
    books: int = 1,
    earn: Sequence[Grant | int] = (),
    spend: Spend | int | None = None,
    message: str = "",
    amount_minor: int = 1000,
    event_at: datetime = NOON,
) -> Purchase:
    """Return a purchase; plain integers earn never-lapsing points, and spend one for one."""
    key = common_pb2.ReceiptKey(
        store_id="1", terminal_id="1", business_date="2026-03-14", receipt_number=receipt_number
    )
    receipt = common_pb2.Receipt(currency_code="UAH")
    receipt.event_at.FromDatetime(event_at)
    receipt.lines.add(line_number=1, sku="milk", quantity_milli=1000, list_amount_minor=amount_minor)
    body = journal_pb2.Purchase(receipt_key=key, member_id=str(shopper) if shopper else "", receipt=receipt)
    keyed = business_key(key)
    return Purchase(
        book=book_of_member(shopper, books) if shopper else book_of_receipt(keyed, books),
        message_id=uuid.uuid5(uuid.NAMESPACE_OID, message or f"message {receipt_number}").bytes,
        business_key=keyed,
        content_hash=content_hash(shopper, receipt.SerializeToString(deterministic=True), repr(spend).encode()),
        event_at=event_at,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(purchase=body).SerializeToString(),
        spend=Spend(spend, 1, 1, 1) if isinstance(spend, int) else spend,
        grants=tuple(Grant(points, None, None) if isinstance(points, int) else points for points in earn),
    )
