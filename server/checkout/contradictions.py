"""What a receipt says twice and differently: told to the cashier and kept in the entry, never a reason to refuse.

A paid receipt is booked as it was paid. Whoever looks for mistakes of registers finds the notices of this module in the
journal by their codes, and their number in the metric `tallypoint_contradictions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Final, NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2

from server.checkout.context import money_of_points, unit_money
from server.checkout.notices import cashier_notice
from server.checkout.presented import Presented
from server.checkout.sale import Sale
from server.measuring.metrics import CONTRADICTIONS
from server.promotions import Effects, Programme, has_prices
from server.promotions.messages import decimal_text

TENDERS_SHORT: Final = "TENDERS_SHORT"
TENDERS_OVER: Final = "TENDERS_OVER"
TENDERS_POINTS: Final = "TENDERS_POINTS"
EMPTY_RECEIPT: Final = "EMPTY_RECEIPT"
BUSINESS_DATE_FAR: Final = "BUSINESS_DATE_FAR"
POINTS_WITHOUT_MEMBER: Final = "POINTS_WITHOUT_MEMBER"
HOLD_NOT_USED: Final = "HOLD_NOT_USED"
COUPON_TWICE: Final = "COUPON_TWICE"
CODES: Final = frozenset(
    {
        *(TENDERS_SHORT, TENDERS_OVER, TENDERS_POINTS, EMPTY_RECEIPT, BUSINESS_DATE_FAR),
        *(POINTS_WITHOUT_MEMBER, HOLD_NOT_USED, COUPON_TWICE),
    }
)
"""The codes of this module's notices."""

_EMPTY_TEXT: Final = "Nothing on this receipt has a price: it does not count as a visit."
_WITHOUT_MEMBER_TEXT: Final = (
    "Points were to be spent or sold, but the receipt has no member: no points were moved. Tell the shopper."
)
_NEAR_DAYS: Final = 1
"""How far a business date may be from the register's clock: shops are open over midnight, and close their day later."""


class Due(NamedTuple):
    """What a receipt has to be paid with, in minor units of money.

    ``at_most_minor`` is more than ``at_least_minor`` where the shopper also buys points, which the goods on the receipt
    may or may not stand for. ``points_minor`` is the part that points are to pay.
    """

    at_least_minor: int
    at_most_minor: int
    points_minor: int


def due_of(request: checkout_pb2.CommitRequest, sale: Sale) -> Due:
    """Return what a receipt as it was charged has to be paid with."""
    rules = sale.rules
    charged_minor = sum([line[7] for line in sale.facts.lines])
    charged_minor -= sum([line.discount_minor for line in request.receipt.lines])
    points_minor = money_of_points(request.spend_points_minor, rules)
    if request.spend_units:
        points_minor += sum([unit_money(rules, unit) for unit in request.spend_units])
    bought_minor = sum([unit_money(rules, unit) for unit in request.deposits]) if request.deposits else 0
    return Due(charged_minor, charged_minor + bought_minor, points_minor)


def of_quote(
    receipt: common_pb2.Receipt, sale: Sale, effects: Effects, presented: Presented
) -> list[common_pb2.Notice]:
    """Return the notices about a receipt that is to be paid. Tenders may still be those of the list prices."""
    told = _of_goods_and_coupons(sale, presented)
    if receipt.tenders:
        points_minor = sum([line[5] for line in effects.lines])
        due = Due(effects.payable_minor, effects.payable_minor + effects.discount_minor, points_minor)
        told += of_tenders(receipt.tenders, due, sale.rules.programme)
    return told


def of_commit(
    request: checkout_pb2.CommitRequest, sale: Sale, presented: Presented, *, is_member: bool
) -> list[common_pb2.Notice]:
    """Return the notices about a receipt as it was paid."""
    told = _of_goods_and_coupons(sale, presented)
    if request.receipt.tenders:
        due = due_of(request, sale)
        told += of_tenders(request.receipt.tenders, due, sale.rules.programme)
    told += far_dates(request.receipt_key.business_date, sale.facts.local_at)
    if not is_member and (request.spend_points_minor or request.spend_units or request.deposits):
        told.append(cashier_notice(POINTS_WITHOUT_MEMBER, _WITHOUT_MEMBER_TEXT))
    return told


def _of_goods_and_coupons(sale: Sale, presented: Presented) -> list[common_pb2.Notice]:
    told = [] if has_prices(sale.facts.lines) else [cashier_notice(EMPTY_RECEIPT, _EMPTY_TEXT)]
    if presented.repeated:
        told.append(cashier_notice(COUPON_TWICE, f"Presented twice, counted once: {', '.join(presented.repeated)}."))
    return told


def hold_not_used(checkout_id: str) -> common_pb2.Notice:
    """Return the notice about a receipt that names a checkout which holds nothing for its member."""
    text = (
        f"Checkout {checkout_id} held nothing for this card: its hold lapsed, was cancelled, or was made for another"
        " card, which has its points back."
    )
    return cashier_notice(HOLD_NOT_USED, text)


def count(notices: Iterable[common_pb2.Notice]) -> None:
    """Count those notices of a booked receipt that tell of a contradiction."""
    for notice in notices:
        if notice.code in CODES:
            CONTRADICTIONS.labels(notice.code).inc()


def of_tenders(tenders: Iterable[common_pb2.Tender], due: Due, terms: Programme) -> list[common_pb2.Notice]:
    """Return the notices about tenders that do not add up. More cash than is due is no contradiction, but change."""
    return [cashier_notice(code, text) for code, text in _contradicting(tenders, due, terms)]


def _contradicting(tenders: Iterable[common_pb2.Tender], due: Due, terms: Programme) -> Iterator[tuple[str, str]]:
    cash_minor = points_minor = others_minor = 0
    for tender in tenders:
        if tender.kind == common_pb2.TENDER_KIND_CASH:
            cash_minor += tender.amount_minor
        elif tender.kind == common_pb2.TENDER_KIND_POINTS:
            points_minor += tender.amount_minor
        else:
            others_minor += tender.amount_minor

    def text_of(minor: int) -> str:
        return decimal_text(minor, terms.currency_digits)

    if points_minor != due.points_minor:
        spent = f"points for {text_of(due.points_minor)} are to be spent" if due.points_minor else "no points are spent"
        yield TENDERS_POINTS, f"{text_of(points_minor)} is tendered in points, but {spent}. Check the payment."
    by_points_minor = max(points_minor, due.points_minor)
    without_change_minor = by_points_minor + others_minor
    missing_minor = due.at_least_minor - without_change_minor - cash_minor
    if missing_minor > 0 and not (cash_minor and missing_minor < terms.cash_rounding_minor):
        tendered = text_of(without_change_minor + cash_minor)
        yield TENDERS_SHORT, f"{tendered} is tendered for {text_of(due.at_least_minor)}. Check the payment."
    if without_change_minor > due.at_most_minor:
        tendered = text_of(without_change_minor)
        yield TENDERS_OVER, f"{tendered} is tendered without cash for {text_of(due.at_most_minor)}. Check the payment."


def far_dates(business_date: str, local_at: datetime) -> list[common_pb2.Notice]:
    """Return the notice about a business date far from the register's clock, which is given in the store's zone."""
    try:
        day = date.fromisoformat(business_date)
    except ValueError:
        return []  # the receipt is refused for it
    if abs((day - local_at.date()).days) <= _NEAR_DAYS:
        return []
    text = (
        f"The receipt's time is {local_at:%Y-%m-%d %H:%M}, its business date {business_date}."
        " Check the register's clock and date."
    )
    return [cashier_notice(BUSINESS_DATE_FAR, text)]
