"""What an entry of the ledger becomes in the CRM database: pure, and the same for writing and for comparing.

Each row type names the columns of its table after ``book``, in order. Money and points are integers in minor units.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2, member_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from ledger.journal import EntryRecord


class ReceiptRow(NamedTuple):
    """A row of ``crm.receipt``."""

    number: int
    store_id: str
    terminal_id: str
    business_date: date
    receipt_number: int
    booked_at: datetime
    event_at: datetime
    time_zone: str
    member_id: uuid.UUID | None
    identified_by: str | None
    programme_code: str
    programme_version: int
    currency_code: str
    line_count: int
    gross_amount_minor: int
    discount_minor: int
    points_money_minor: int
    net_amount_minor: int
    points_unit: str | None
    points_precision: int | None
    points_earned_minor: int
    points_spent_minor: int
    points_left_out_minor: int
    balance_after_minor: int | None
    has_variance: bool
    coupon_codes: list[str]


class LineRow(NamedTuple):
    """A row of ``crm.receipt_line``. ``promotions`` is JSON text."""

    number: int
    line_number: int
    sku: str
    category: str
    brand: str
    tags: list[str]
    quantity_milli: int
    weighed: bool
    list_amount_minor: int
    discount_minor: int
    points_money_minor: int
    points_earned_minor: int
    promotions: str


class MovementRow(NamedTuple):
    """A row of ``crm.points_movement``."""

    number: int
    ordinal: int
    booked_at: datetime
    member_id: uuid.UUID | None
    unit: int
    debit: str
    credit: str
    points_minor: int
    lot_number: int
    lot_ordinal: int
    active_at: datetime | None
    expires_at: datetime | None


class MemberRow(NamedTuple):
    """A row of ``crm.member``."""

    member_id: uuid.UUID
    version: int
    status: str
    name: str
    phone: str | None
    birthday: date | None
    language: str
    card_numbers: list[str]
    card_statuses: list[str]
    registered_at: datetime


@dataclass(slots=True)
class Rows:
    """What a stretch of entries becomes. ``members`` has the newest version told of each member."""

    receipts: list[ReceiptRow] = field(default_factory=list)
    lines: list[LineRow] = field(default_factory=list)
    movements: list[MovementRow] = field(default_factory=list)
    members: dict[uuid.UUID, int] = field(default_factory=dict)


class UnreadableEntryError(ValueError):
    """An entry says something that this version cannot put into the CRM database."""


_IDENTIFIED_BY: Final[dict[int, str | None]] = {
    0: None,
    **{
        value: name.removeprefix("IDENTIFIER_KIND_").lower()
        for name, value in common_pb2.IdentifierKind.items()
        if value
    },
}
ACCOUNTS: Final[dict[int, str]] = {
    value: name.removeprefix("ACCOUNT_").lower() for name, value in journal_pb2.Account.items() if value
}
"""Names of the accounts by their number in the journal."""
MEMBER_STATUSES: Final[dict[int, str]] = {
    value: name.removeprefix("MEMBER_STATUS_").lower() for name, value in common_pb2.MemberStatus.items() if value
}
"""Names of what members may do."""
CARD_STATUSES: Final[dict[int, str]] = {
    value: name.removeprefix("CARD_STATUS_").lower() for name, value in member_pb2.CardStatus.items() if value
}
"""Names of what cards are worth."""

_NO_EFFECTS: Final = common_pb2.LineEffects()


def rows_of(entries: Iterable[EntryRecord]) -> Rows:
    """Return the rows of entries.

    Raises:
        UnreadableEntryError: with the book and number of the first entry that this version cannot read.
    """
    rows = Rows()
    for entry in entries:
        try:
            _add(rows, entry)
        except (ValueError, KeyError, DecodeError) as error:
            raise UnreadableEntryError(
                f"entry {entry.number} of book {entry.book} (kind {entry.kind}) cannot be read by this version: "
                f"{type(error).__name__} of {error}"
            ) from error
    return rows


def _add(rows: Rows, entry: EntryRecord) -> None:
    event = journal_pb2.Event.FromString(entry.payload)
    kind = event.WhichOneof("event")
    if kind == "purchase":
        _add_purchase(rows, entry, event.purchase, event.settlement)
    elif kind == "member_change":
        if entry.member_id is None:
            raise ValueError("a member change without a member")
        version = event.member_change.version
        rows.members[entry.member_id] = max(version, rows.members.get(entry.member_id, 0))
    else:
        raise ValueError(f"event {kind}")
    for ordinal, posting in enumerate(event.postings, start=1):
        rows.movements.append(
            MovementRow(
                entry.number,
                ordinal,
                entry.booked_at,
                entry.member_id,
                posting.unit,
                ACCOUNTS[posting.debit],
                ACCOUNTS[posting.credit],
                posting.points_minor,
                posting.lot_number or entry.number,
                posting.lot_ordinal,
                _moment(posting.active_at) if posting.HasField("active_at") else None,
                _moment(posting.expires_at) if posting.HasField("expires_at") else None,
            )
        )


def _add_purchase(
    rows: Rows, entry: EntryRecord, purchase: journal_pb2.Purchase, settlement: checkout_pb2.Settlement
) -> None:
    key, receipt = purchase.receipt_key, purchase.receipt
    has_member = entry.member_id is not None
    effects = {one.line_number: one for one in purchase.effects}
    lines = [
        _line(entry.number, line, effects.get(line.line_number, _NO_EFFECTS), has_member) for line in receipt.lines
    ]
    rows.lines += lines
    gross = sum(line.list_amount_minor for line in lines)
    discount = sum(line.discount_minor for line in lines)
    balance = settlement.balance if settlement.HasField("balance") else None
    rows.receipts.append(
        ReceiptRow(
            number=entry.number,
            store_id=key.store_id,
            terminal_id=key.terminal_id,
            business_date=date.fromisoformat(key.business_date),
            receipt_number=key.receipt_number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            time_zone=_text(purchase.time_zone),
            member_id=entry.member_id,
            identified_by=_IDENTIFIED_BY[purchase.identified_by] if has_member else None,
            programme_code=_text(purchase.programme_code),
            programme_version=purchase.programme_version,
            currency_code=receipt.currency_code,
            line_count=len(lines),
            gross_amount_minor=gross,
            discount_minor=discount,
            points_money_minor=settlement.spent_money_minor,
            net_amount_minor=gross - discount - settlement.spent_money_minor,
            points_unit=balance.unit if balance else None,
            points_precision=balance.precision if balance else None,
            points_earned_minor=settlement.accrual_points_minor,
            points_spent_minor=settlement.spent_points_minor,
            points_left_out_minor=settlement.left_out_points_minor,
            balance_after_minor=balance.available_points_minor if balance else None,
            has_variance=bool(purchase.variances),
            coupon_codes=[_text(code) for code in purchase.coupon_codes],
        )
    )


def _line(number: int, line: common_pb2.ReceiptLine, effects: common_pb2.LineEffects, has_member: bool) -> LineRow:
    """Return a line's row. Without a member nobody earned what the rules would have granted."""
    # Written by hand, ten times as fast as a general encoder; the keys stand in the order that PostgreSQL gives them,
    # so that a text read back is mostly the same text.
    parts = [
        f'{{"promotion_id": {_quoted(part.promotion_id)}, "discount_minor": {part.amount_minor}}}'
        for part in effects.discounts
    ]
    earned = 0
    for accrual in effects.accruals if has_member else ():
        earned += accrual.points_minor
        parts.append(
            f'{{"base_minor": {accrual.base_minor}, "points_minor": {accrual.points_minor}, '
            f'"promotion_id": {_quoted(accrual.promotion_id)}}}'
        )
    tags = line.tags
    return LineRow(
        number,
        line.line_number,
        _text(line.sku),
        _text(line.category),
        _text(line.brand),
        [_text(tag) for tag in tags] if tags else [],
        line.quantity_milli,
        line.weighed,
        line.list_amount_minor,
        line.discount_minor,
        effects.points_money_minor,
        earned,
        f"[{', '.join(parts)}]",
    )


@lru_cache(maxsize=10_000)
def _quoted(promotion_id: str) -> str:
    return json.dumps(_text(promotion_id), ensure_ascii=False)


def _text(text: str) -> str:
    """Return text that PostgreSQL can store: it refuses the NUL character, which a register may well send."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
