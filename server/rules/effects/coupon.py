"""Coupons for later, in messages. Their codes follow from receipt and promotion."""

from __future__ import annotations

import hashlib
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from datetime import date
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from server.promotions import Effects
from server.promotions.effects.coupon import CouponIssue, IssuedCoupon
from server.rights.codes import code_of
from server.rules.effects.room import Messages


class Issued(NamedTuple):
    """A coupon that a receipt gives, with its code."""

    code: str
    promotion_id: str
    series: str
    valid_from: date
    valid_until: date | None


class CouponMessages(Messages[CouponIssue]):
    """The coupons that a receipt gives, each with its promotion; the journal has them with their codes."""

    def promise(self, quote: checkout_pb2.QuoteResponse, effects: Effects) -> None:
        """Write the coupons: they have no codes yet."""
        for one in effects.of(IssuedCoupon):
            issued = Issued("", one.promotion_id, one.series, one.valid_from, one.valid_until)
            quote.issued_coupons.extend(issued_messages([issued] * one.quantity))

    def answer(self, response: checkout_pb2.CommitResponse, purchase: journal_pb2.Purchase) -> None:
        """Copy the coupons."""
        if purchase.issued_coupons:
            response.issued_coupons.extend(purchase.issued_coupons)

    def compared(self, purchase: journal_pb2.Purchase, effects: Effects) -> Iterator[tuple[str, object, object]]:
        """Yield how many coupons there are by promotion, series, first and last day; codes are no rules' matter."""
        stored = Tally(
            (one.promotion_id, one.series, one.valid_from, one.valid_until) for one in purchase.issued_coupons
        )
        computed: Tally[tuple[str, str, str, str]] = Tally()
        for one in effects.of(IssuedCoupon):
            last = "" if one.valid_until is None else one.valid_until.isoformat()
            computed[one.promotion_id, one.series, one.valid_from.isoformat(), last] += one.quantity
        yield "coupons issued", stored, computed


def issued_coupons(effects: Effects, receipt_key: bytes) -> tuple[Issued, ...]:
    """Return the coupons that a receipt gives its member: their codes follow from receipt and promotion.

    So a receipt that is planned twice gives the same coupons. They count for their member alone, which is why nobody
    gains by guessing them.
    """
    return tuple(
        Issued(
            _issued_code(receipt_key, one.promotion_id, number),
            one.promotion_id,
            one.series,
            one.valid_from,
            one.valid_until,
        )
        for one in effects.of(IssuedCoupon)
        for number in range(one.quantity)
    )


def _issued_code(receipt_key: bytes, promotion_id: str, number: int) -> str:
    """Return 16 characters: with the 12 of a common code, two of some hundred million receipts would share one."""
    digest = hashlib.sha256(b"%s|%s|%d" % (receipt_key, promotion_id.encode(), number)).digest()
    return code_of(int.from_bytes(digest[:16], "big")) + code_of(int.from_bytes(digest[16:], "big"))[:4]


def issued_messages(issued: Iterable[Issued]) -> Iterator[common_pb2.IssuedCoupon]:
    """Return coupons for later receipts."""
    for one in issued:
        yield common_pb2.IssuedCoupon(
            code=one.code,
            series=one.series,
            promotion_id=one.promotion_id,
            valid_from=one.valid_from.isoformat(),
            valid_until=one.valid_until.isoformat() if one.valid_until else "",
        )
