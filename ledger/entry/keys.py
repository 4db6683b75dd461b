"""Keys by which a command counts once: the receipt's business key and the message id."""

from __future__ import annotations

import hashlib
import uuid
from datetime import date

from tallypoint.v1 import checkout_pb2, common_pb2

KEY_LENGTH_BYTES = 16


def business_key(key: common_pb2.ReceiptKey) -> bytes:
    """Return the 16 bytes under which a sale counts once in the whole system.

    The first two bytes are the business day (days since 1970-01-01), so that a day's keys are neighbours in the
    index; the other 14 are SHA-256 of the whole key, so that two keys never meet. Returns of `semantics.FIRST` stand
    under this form, too.

    Raises:
        ValueError: if ``business_date`` is not a date of the calendar, such as 2026-02-30.
    """
    return _day_and_digest(key, "")


def return_key(key: common_pb2.ReceiptKey) -> bytes:
    """Return the 16 bytes under which a return counts once: other ones than those of a sale with the same number.

    Raises:
        ValueError: as `business_key`.
    """
    return _day_and_digest(key, "\nreturn")


def _day_and_digest(key: common_pb2.ReceiptKey, kind: str) -> bytes:
    day = (date.fromisoformat(key.business_date) - date(1970, 1, 1)).days
    text = f"{key.store_id}\n{key.terminal_id}\n{key.business_date}\n{key.receipt_number}{kind}"
    return (day & 0xFFFF).to_bytes(2, "big") + hashlib.sha256(text.encode()).digest()[:14]


def message_key(message_id: str) -> bytes:
    """Return the 16 bytes of a message id.

    Raises:
        ValueError: if it is not a UUID.
    """
    return uuid.UUID(message_id).bytes


def content_hash(member_id: uuid.UUID | None, *parts: bytes) -> bytes:
    """Return the 32 bytes that say whether two commands ask for the same.

    ``parts`` are the command's fields in a fixed order. The member stands for the identifier that was shown: the
    same shopper by card or phone is the same content, and no personal data enters the hash.
    """
    return framed_content_hash(member_id, framed(*parts))


def framed(*parts: bytes) -> bytes:
    """Return the fields of a command one after the other, each after its length: no two commands' are the same."""
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])


def framed_content_hash(member_id: uuid.UUID | None, content: bytes) -> bytes:
    """Return the `content_hash` of ``framed`` fields: for whom several members may stand, who frame them once."""
    return hashlib.sha256((member_id.bytes if member_id else bytes(16)) + content).digest()


def checkout_key(key: checkout_pb2.CheckoutKey) -> bytes:
    """Return the 16 bytes that stand for a checkout in progress at a terminal."""
    text = f"{key.store_id}\n{key.terminal_id}\n{key.checkout_id}"
    return hashlib.sha256(text.encode()).digest()[:KEY_LENGTH_BYTES]
