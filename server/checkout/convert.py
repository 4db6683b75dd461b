"""Between the API's messages and the plain data of promotions and ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.balances import BalanceAt
from ledger.model import ISSUED, Grant, Unit
from server.edge.holdable import FIRST_SECOND, LAST_SECOND, NANOS_PER_SECOND
from server.errors import Refused
from server.promotions import Effects, LotGrant, Message, ReceiptFacts, ReceiptLine
from server.promotions.kinds import Audience

MAX_RECEIPT_MINOR = 10**13
"""The most that the lines of a receipt may come to, in minor units: a hundred billion of any currency."""

_SHOWN_SKUS = 5
_KEPT_MIDNIGHTS = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AUDIENCES: Mapping[Audience, common_pb2.Audience] = {
    Audience.CASHIER: common_pb2.AUDIENCE_CASHIER,
    Audience.SHOPPER: common_pb2.AUDIENCE_SHOPPER,
    Audience.RECEIPT: common_pb2.AUDIENCE_RECEIPT,
    Audience.VOICE: common_pb2.AUDIENCE_VOICE,
}

_new = tuple.__new__  # builds a named tuple in half the time of calling its class; used for every line


class ProductLike(Protocol):
    """What the catalogue knows of an article."""

    @property
    def category(self) -> str:
        """The category as a path."""

    @property
    def brand(self) -> str:
        """The brand."""

    @property
    def supplier(self) -> str:
        """The supplier."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Marks such as "alcohol"."""


class CatalogueLike(Protocol):
    """The catalogue: articles by SKU."""

    def get(self, sku: str) -> ProductLike | None:
        """Return an article; None if it is unknown."""


class PointBooks(Protocol):
    """How the books number point units and partners."""

    def unit_named(self, code: str) -> Unit:
        """Return a unit by its code."""

    def partner_account(self, code: str, own: int) -> int:
        """Return a partner's settlement account; ``own`` for one that the programme does not know."""


def invalid(field: str, description: str) -> Refused:
    """Return the refusal of a request with one wrong field."""
    return Refused(
        common_pb2.REFUSAL_REASON_INVALID_REQUEST, f"{field}: {description}", violations=[(field, description)]
    )


def moment_of(timestamp: Timestamp) -> datetime:
    """Return a timestamp as an aware moment in UTC: `Timestamp.ToDatetime` for a third of its time.

    Raises:
        ValueError: if it is outside of the calendar.
    """
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not (FIRST_SECOND <= seconds <= LAST_SECOND and 0 <= nanos < NANOS_PER_SECOND):
        return timestamp.ToDatetime(tzinfo=UTC)  # says what is wrong with it
    return _EPOCH + timedelta(0, seconds, nanos // 1000)


def lines_of(receipt: common_pb2.Receipt, catalogue: CatalogueLike) -> tuple[list[ReceiptLine], list[str]]:
    """Return the lines that take part in promotions, completed from the catalogue, and the SKUs unknown to it.

    Raises:
        Refused: if line numbers repeat, a discount exceeds its line, a voided line costs something, or the
            receipt comes to more than ``MAX_RECEIPT_MINOR``.
    """
    lines: list[ReceiptLine] = []
    unknown: list[str] = []
    seen: set[int] = set()
    total = 0
    for index, line in enumerate(receipt.lines):
        number, amount, quantity = line.line_number, line.list_amount_minor, line.quantity_milli
        if number in seen:
            raise invalid(f"receipt.lines[{index}].line_number", f"{number} stands on the receipt twice")
        seen.add(number)
        if line.discount_minor > amount:
            raise invalid(f"receipt.lines[{index}].discount_minor", "must not exceed list_amount_minor")
        if quantity == 0:
            if amount:
                raise invalid(f"receipt.lines[{index}].list_amount_minor", "must be 0 where quantity_milli is 0")
            continue
        total += amount
        sku, category, brand, supplier, tags = line.sku, line.category, line.brand, line.supplier, line.tags
        product = catalogue.get(sku)
        all_tags = tuple(tags) if tags else ()
        if product is not None:
            category, brand = category or product.category, brand or product.brand
            supplier, all_tags = supplier or product.supplier, product.tags + all_tags
        elif not category:
            unknown.append(sku)
        goods = (sku, category, brand, supplier, all_tags)
        lines.append(_new(ReceiptLine, (number, *goods, quantity, amount, line.floor_amount_minor, line.weighed)))
    if total > MAX_RECEIPT_MINOR:
        raise invalid("receipt.lines", f"the list prices come to {total}, more than {MAX_RECEIPT_MINOR}")
    return lines, unknown


def judged_lines(receipt: common_pb2.Receipt, facts: ReceiptFacts) -> Iterable[common_pb2.ReceiptLine]:
    """Return the lines of the facts, in their order, as the register sent them: all but the voided ones."""
    if len(receipt.lines) == len(facts.lines):
        return receipt.lines
    return [line for line in receipt.lines if line.quantity_milli]


def line_numbers(receipt: common_pb2.Receipt, facts: ReceiptFacts) -> list[int]:
    """Return the numbers of all lines, in the receipt's order; where none is voided the facts have them at hand."""
    if len(receipt.lines) == len(facts.lines):
        return [line[0] for line in facts.lines]
    return [line.line_number for line in receipt.lines]


def unknown_sku_notice(unknown: Sequence[str]) -> list[common_pb2.Notice]:
    """Return the notice about articles that the catalogue lacks, if there are any."""
    if not unknown:
        return []
    more = f" and {len(unknown) - _SHOWN_SKUS} more" if len(unknown) > _SHOWN_SKUS else ""
    text = f"Not in the catalogue, sold without category promotions: {', '.join(unknown[:_SHOWN_SKUS])}{more}."
    return [cashier_notice("UNKNOWN_SKU", text)]


def cashier_notice(code: str, text: str) -> common_pb2.Notice:
    """Return a notice for the cashier."""
    return common_pb2.Notice(audience=common_pb2.AUDIENCE_CASHIER, code=code, text=text)


def notices_of(messages: Iterable[Message]) -> list[common_pb2.Notice]:
    """Return the promotions' own texts."""
    return [
        common_pb2.Notice(audience=_AUDIENCES[m.audience], promotion_id=m.promotion_id, text=m.text) for m in messages
    ]


def add_line_effects(
    target: RepeatedCompositeFieldContainer[common_pb2.LineEffects], receipt: common_pb2.Receipt, effects: Effects
) -> None:
    """Write what happens to every line into a message's field, in the receipt's order; voided ones by number only.

    Where every receipt passes, `wire.LinesField` writes the same in a quarter of the time; `explain` compares with it.
    """
    by_number = {line.line_number: line for line in effects.lines}
    for receipt_line in receipt.lines:
        number = receipt_line.line_number
        line = by_number.get(number)
        if line is None:
            target.add(line_number=number)
            continue
        message = target.add(line_number=number, payable_minor=line.payable_minor, spendable_minor=line.spendable_minor)
        if line.floor_cut_minor:
            message.floor_cut_minor = line.floor_cut_minor
        if line.points_money_minor:
            message.points_money_minor = line.points_money_minor
        for promotion_id, amount_minor in line.discounts:
            message.discounts.add(promotion_id=promotion_id, amount_minor=amount_minor)
        for promotion_id, base_minor, points_minor, unit, partner in line.accruals:
            accrual = message.accruals.add(promotion_id=promotion_id, base_minor=base_minor, points_minor=points_minor)
            if unit:
                accrual.unit = unit
            if partner:
                accrual.partner = partner


def variance_messages(effects: Effects) -> list[journal_pb2.Variance]:
    """Return the lines on which the register gave another discount than the rules."""
    return [
        journal_pb2.Variance(
            line_number=v.line_number,
            rules_discount_minor=v.expected_discount_minor,
            given_discount_minor=v.charged_discount_minor,
        )
        for v in effects.variances
    ]


def balance_message(balance: BalanceAt) -> common_pb2.Balance:
    """Return a balance as a message."""
    message = common_pb2.Balance(
        unit=balance.unit.code,
        precision=balance.unit.precision,
        available_points_minor=balance.available_minor,
        pending_points_minor=balance.pending_minor,
        held_points_minor=balance.held_minor,
        debt_points_minor=balance.debt_minor,
    )
    if balance.expires_at is not None:
        message.expiring_next.points_minor = balance.expiring_minor
        message.expiring_next.expires_at.FromDatetime(balance.expires_at)
    return message


def grants_of(lots: Iterable[LotGrant], zone: ZoneInfo, books: PointBooks | None = None) -> tuple[Grant, ...]:
    """Return the lots to grant, each of its unit and at its partner's expense; without either, no ``books`` are needed.

    Dates become moments, midnights of the store's calendar: points become active as their first day begins and lapse
    as their last day ends.
    """
    return tuple(
        Grant(
            lot.points_minor,
            None if lot.active_from is None else _midnight(lot.active_from, zone),
            None if lot.expires_on is None else end_of_day(lot.expires_on, zone),
            unit=books.unit_named(lot.unit) if books and lot.unit else None,
            account=books.partner_account(lot.partner, ISSUED) if books and lot.partner else ISSUED,
        )
        for lot in lots
        if lot.points_minor > 0
    )


def end_of_day(day: date, zone: tzinfo) -> datetime | None:
    """Return when a day ends; None for the last one of the calendar, by which other systems mean for ever."""
    return None if day == date.max else _midnight(day + timedelta(days=1), zone)


@lru_cache(_KEPT_MIDNIGHTS)
def _midnight(day: date, zone: tzinfo) -> datetime:
    """Return when a day begins; all receipts of a day and store ask for the same few."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
