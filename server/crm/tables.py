"""The tables of the CRM database: the columns of their rows, and what names a row.

Each row type names the columns of its table after ``book``, in order. Money and points are integers in minor units.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any, Final, NamedTuple


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
    partner: str | None


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
    issued_at: datetime | None
    kind: str


class ReturnRow(NamedTuple):
    """A row of ``crm.goods_return``."""

    number: int
    store_id: str
    terminal_id: str
    business_date: date
    receipt_number: int
    booked_at: datetime
    event_at: datetime
    time_zone: str
    member_id: uuid.UUID | None
    purchase_number: int
    purchase_store_id: str
    purchase_terminal_id: str
    purchase_business_date: date
    purchase_receipt_number: int
    programme_code: str
    programme_version: int
    line_count: int
    gross_amount_minor: int
    discount_minor: int
    points_money_minor: int
    refund_money_minor: int
    kept_back_money_minor: int
    points_unit: str | None
    points_precision: int | None
    points_given_back_minor: int
    points_taken_back_minor: int
    points_owed_minor: int
    points_waived_minor: int
    balance_after_minor: int | None
    clawback: str | None
    purchase_complete: bool
    coupon_codes: list[str]


class ReturnLineRow(NamedTuple):
    """A row of ``crm.goods_return_line``."""

    number: int
    line_number: int
    purchase_number: int
    quantity_milli: int
    list_amount_minor: int
    discount_minor: int
    points_money_minor: int
    refund_money_minor: int
    points_given_back_minor: int
    points_due_back_minor: int


class HoldRow(NamedTuple):
    """A row of ``crm.hold``."""

    number: int
    booked_at: datetime
    event_at: datetime
    expires_at: datetime
    member_id: uuid.UUID
    store_id: str
    terminal_id: str
    checkout_id: str
    programme_code: str
    programme_version: int
    points_minor: int
    money_minor: int
    points_unit: str | None
    points_precision: int | None
    takeover_reason: str | None
    coupon_codes: list[str]


class HoldEndRow(NamedTuple):
    """A row of ``crm.hold_end``."""

    number: int
    hold_number: int
    booked_at: datetime
    kind: str
    how: str
    captured_minor: int
    released_minor: int
    reason: str | None


class AdjustmentRow(NamedTuple):
    """A row of ``crm.adjustment``."""

    number: int
    booked_at: datetime
    event_at: datetime
    member_id: uuid.UUID
    points_minor: int
    points_unit: str | None
    points_precision: int | None
    balance_after_minor: int | None
    reason_code: str
    note: str
    requested_by: str
    approved_by: str | None
    request_id: str
    programme_code: str


class TransferRow(NamedTuple):
    """A row of ``crm.transfer``."""

    number: int
    booked_at: datetime
    event_at: datetime
    member_id: uuid.UUID
    other_member_id: uuid.UUID
    outgoing: bool
    transfer_id: str
    reason_code: str
    requested_by: str
    points_minor: int
    debt_minor: int
    points_unit: str | None
    points_precision: int | None
    balance_after_minor: int | None


class CloseRow(NamedTuple):
    """A row of ``crm.close``."""

    number: int
    booked_at: datetime
    programme_code: str
    close_number: int
    last_day: date
    period: str
    closed_by: str
    totals_digest: bytes | None


class UnitPointsRow(NamedTuple):
    """A row of ``crm.unit_points``."""

    number: int
    points_unit: str
    points_precision: int
    booked_at: datetime
    member_id: uuid.UUID | None
    kind: str
    earned_minor: int
    spent_minor: int
    spent_money_minor: int
    left_out_minor: int
    given_back_minor: int
    taken_back_minor: int
    balance_after_minor: int
    debt_after_minor: int


class CouponEventRow(NamedTuple):
    """A row of ``crm.coupon_event``."""

    number: int
    ordinal: int
    booked_at: datetime
    member_id: uuid.UUID | None
    kind: str
    code: str
    action: str
    slot: int | None
    series: str | None
    promotion_ids: list[str]
    valid_from: date | None
    valid_until: date | None


class TierChangeRow(NamedTuple):
    """A row of ``crm.tier_change``."""

    number: int
    booked_at: datetime
    event_at: datetime
    member_id: uuid.UUID
    tier_before: str | None
    tier_after: str | None
    good_until: date | None


class WithheldRow(NamedTuple):
    """A row of ``crm.withheld``."""

    number: int
    ordinal: int
    booked_at: datetime
    event_at: datetime
    member_id: uuid.UUID | None
    promotion_id: str
    reason: str


class DrawEntryRow(NamedTuple):
    """A row of ``crm.draw_entry``."""

    number: int
    ordinal: int
    booked_at: datetime
    event_at: datetime
    member_id: uuid.UUID | None
    draw: str
    entries: int
    promotion_id: str


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


class PointUnitRow(NamedTuple):
    """A row of ``crm.point_unit``."""

    unit: int
    code: str
    points_precision: int


class Table(NamedTuple):
    """A table whose rows come from entries; ``title`` says what they are, in the plural, for people.

    The first ``key_length`` columns after ``book`` name a row.
    """

    name: str
    title: str
    row: type[tuple[Any, ...]]
    columns: tuple[str, ...]
    key_length: int


def _table(name: str, title: str, row: Any, key_length: int = 1) -> Table:  # noqa: ANN401 - NamedTuple types have no common type
    return Table(name, title, row, row._fields, key_length)


TABLES: Final = (
    _table("receipt", "receipts", ReceiptRow),
    _table("receipt_line", "lines", LineRow, 2),
    _table("points_movement", "points movements", MovementRow, 2),
    _table("goods_return", "returns", ReturnRow),
    _table("goods_return_line", "returned lines", ReturnLineRow, 2),
    _table("hold", "holds", HoldRow),
    _table("hold_end", "ended holds", HoldEndRow, 2),
    _table("adjustment", "adjustments", AdjustmentRow),
    _table("transfer", "transfers", TransferRow),
    _table("close", "closes", CloseRow),
    _table("unit_points", "points of further units", UnitPointsRow, 2),
    _table("coupon_event", "coupon events", CouponEventRow, 2),
    _table("tier_change", "level changes", TierChangeRow),
    _table("withheld", "promotions withheld", WithheldRow, 2),
    _table("draw_entry", "draw entries", DrawEntryRow, 2),
)
"""All tables whose rows come from entries, in the order in which they are written and compared."""
