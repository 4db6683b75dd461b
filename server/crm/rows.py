"""What an entry of the ledger becomes in the CRM database: pure, and the same for writing and for comparing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2, member_pb2

from ledger.entry.returns import points_money_of
from ledger.finance.accounts import account_name
from server.crm.lines import Line, UnreadLines, lines_of
from server.crm.promotion_rows import promotion_rows
from server.crm.tables import (
    TABLES,
    AdjustmentRow,
    CloseRow,
    HoldEndRow,
    HoldRow,
    MovementRow,
    ReceiptRow,
    ReturnLineRow,
    ReturnRow,
    TransferRow,
)
from server.crm.text import stored

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as EnumTypeWrapper
    from google.protobuf.timestamp_pb2 import Timestamp

    from ledger.entry.chain import EntryRecord


_UNIT: Final = MovementRow._fields.index("unit")


@dataclass(slots=True)
class Rows:
    """What a stretch of entries becomes: rows by their type, and the lines of purchases.

    ``members`` has the newest version told of each member.
    """

    of: dict[type, list[tuple[Any, ...]]] = field(default_factory=lambda: {table.row: [] for table in TABLES})
    lines: list[Line] = field(default_factory=list)
    members: dict[uuid.UUID, int] = field(default_factory=dict)

    def add(self, row: tuple[Any, ...]) -> None:
        """Add a row to the table of its type."""
        self.of[type(row)].append(row)

    def units(self) -> set[int]:
        """Return the numbers of the point units that movements name."""
        return {row[_UNIT] for row in self.of[MovementRow]}


class UnreadableEntryError(ValueError):
    """An entry says something that this version cannot put into the CRM database."""


def _names(enum: EnumTypeWrapper[Any], prefix: str) -> dict[int, str]:
    """Return the values of an enum with their names in the CRM database; what is not set has none."""
    return {int(value): name.removeprefix(prefix).lower() for name, value in enum.items() if value}


_IDENTIFIED_BY: Final[dict[int, str | None]] = {0: None, **_names(common_pb2.IdentifierKind, "IDENTIFIER_KIND_")}
ENTRY_KINDS: Final = _names(journal_pb2.EntryKind, "ENTRY_KIND_")
"""Names of the kinds of entries by their number in the journal."""
MEMBER_STATUSES: Final = _names(common_pb2.MemberStatus, "MEMBER_STATUS_")
"""Names of what members may do."""
CARD_STATUSES: Final = _names(member_pb2.CardStatus, "CARD_STATUS_")
"""Names of what cards are worth."""
_HOLD_ENDS: Final = _names(journal_pb2.HoldEndKind, "HOLD_END_KIND_")
_CLAWBACKS: Final[dict[int, str | None]] = {0: None, **_names(journal_pb2.ClawbackMode, "CLAWBACK_MODE_")}
_PERIODS: Final = _names(journal_pb2.ClosePeriod, "CLOSE_PERIOD_")


def rows_of(entries: Iterable[EntryRecord], partners: Mapping[int, str]) -> Rows:
    """Return the rows of entries; ``partners`` are the coalition partners' codes by their accounts.

    Raises:
        UnreadableEntryError: with the book and number of the first entry that this version cannot read.
    """
    rows = Rows()
    for entry in entries:
        try:
            _add(rows, entry, partners)
        except (ValueError, LookupError, DecodeError) as error:
            raise UnreadableEntryError(
                f"entry {entry.number} of book {entry.book} (kind {entry.kind}) cannot be read by this version: "
                f"{type(error).__name__} of {error}"
            ) from error
    return rows


def _add(rows: Rows, entry: EntryRecord, partners: Mapping[int, str]) -> None:
    event = UnreadLines.FromString(entry.payload)
    which = event.WhichOneof("event")
    expected_kind, add = _BODIES.get(which or "", (0, _add_nothing))
    if expected_kind != entry.kind:
        raise ValueError(f"event {which}")
    add(rows, entry, event)
    kind = ENTRY_KINDS[entry.kind]
    for ordinal, posting in enumerate(event.postings, start=1):
        rows.add(_movement(entry, kind, ordinal, posting, partners))
    for end in event.hold_ends:
        rows.add(_hold_end(entry, kind, event, end))
    for row in promotion_rows(entry, event, kind):
        rows.add(row)


def _movement(
    entry: EntryRecord, kind: str, ordinal: int, posting: journal_pb2.Posting, partners: Mapping[int, str]
) -> MovementRow:
    return MovementRow(
        entry.number,
        ordinal,
        entry.booked_at,
        entry.member_id,
        posting.unit,
        account_name(posting.debit, partners),
        account_name(posting.credit, partners),
        posting.points_minor,
        posting.lot_number or entry.number,
        posting.lot_ordinal,
        _moment(posting.active_at) if posting.HasField("active_at") else None,
        _moment(posting.expires_at) if posting.HasField("expires_at") else None,
        _moment(posting.issued_at) if posting.HasField("issued_at") else None,
        kind,
    )


def known_name(account: int, partners: Mapping[int, str]) -> str:
    """Return an account's name, or its number if it has none."""
    try:
        return account_name(account, partners)
    except KeyError:
        return str(account)


def _hold_end(entry: EntryRecord, kind: str, event: journal_pb2.Event, end: journal_pb2.HoldEnd) -> HoldEndRow:
    reason = ""
    if end.how == journal_pb2.HOLD_END_KIND_CANCELLED:
        reason = event.cancel.reason
    elif end.how == journal_pb2.HOLD_END_KIND_TAKEN_OVER:
        reason = event.hold.takeover_reason
    return HoldEndRow(
        number=entry.number,
        hold_number=end.hold_number,
        booked_at=entry.booked_at,
        kind=kind,
        how=_HOLD_ENDS[end.how],
        captured_minor=end.captured_points_minor,
        released_minor=end.released_points_minor,
        reason=stored(reason) or None,
    )


def _add_purchase(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    purchase, settlement = event.purchase, event.settlement
    key, receipt = purchase.receipt_key, purchase.receipt
    has_member = entry.member_id is not None
    lines = lines_of(entry.number, purchase, has_member=has_member)
    rows.lines += lines
    gross = sum([line.sold.list_amount_minor for line in lines])
    discount = sum([line.sold.discount_minor for line in lines])
    points_money = points_money_of(settlement)
    unit, precision, balance_after = _balance_of(settlement)
    rows.add(
        ReceiptRow(
            number=entry.number,
            store_id=key.store_id,
            terminal_id=key.terminal_id,
            business_date=date.fromisoformat(key.business_date),
            receipt_number=key.receipt_number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            time_zone=stored(purchase.time_zone),
            member_id=entry.member_id,
            identified_by=_IDENTIFIED_BY[purchase.identified_by] if has_member else None,
            programme_code=stored(purchase.programme_code),
            programme_version=purchase.programme_version,
            currency_code=receipt.currency_code,
            line_count=len(lines),
            gross_amount_minor=gross,
            discount_minor=discount,
            points_money_minor=points_money,
            net_amount_minor=gross - discount - points_money,
            points_unit=unit,
            points_precision=precision,
            points_earned_minor=settlement.accrual_points_minor,
            points_spent_minor=settlement.spent_points_minor,
            points_left_out_minor=settlement.left_out_points_minor,
            balance_after_minor=balance_after,
            has_variance=bool(purchase.variances),
            coupon_codes=[stored(code) for code in purchase.coupon_codes],
            partner=stored(purchase.partner) or None,
        )
    )


def _add_member_change(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    member_id = _member_of(entry)
    rows.members[member_id] = max(event.member_change.version, rows.members.get(member_id, 0))


def _add_return(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    returned, settlement = event.goods_return, event.settlement
    key, purchase_key = returned.receipt_key, returned.purchase_key
    lines = [_return_line(entry.number, returned.purchase_number, line) for line in returned.lines]
    rows.of[ReturnLineRow] += lines
    unit, precision, balance_after = _balance_of(settlement)
    rows.add(
        ReturnRow(
            number=entry.number,
            store_id=key.store_id,
            terminal_id=key.terminal_id,
            business_date=date.fromisoformat(key.business_date),
            receipt_number=key.receipt_number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            time_zone=stored(returned.time_zone),
            member_id=entry.member_id,
            purchase_number=returned.purchase_number,
            purchase_store_id=purchase_key.store_id,
            purchase_terminal_id=purchase_key.terminal_id,
            purchase_business_date=date.fromisoformat(purchase_key.business_date),
            purchase_receipt_number=purchase_key.receipt_number,
            programme_code=stored(returned.programme_code),
            programme_version=returned.programme_version,
            line_count=len(lines),
            gross_amount_minor=sum(line.list_amount_minor for line in lines),
            discount_minor=sum(line.discount_minor for line in lines),
            points_money_minor=sum(line.points_money_minor for line in lines),
            refund_money_minor=returned.refund_money_minor,
            kept_back_money_minor=returned.kept_back_money_minor,
            points_unit=unit,
            points_precision=precision,
            points_given_back_minor=settlement.refund_points_minor,
            points_taken_back_minor=settlement.clawback_points_minor,
            points_owed_minor=settlement.clawback_debt_points_minor,
            points_waived_minor=settlement.clawback_waived_points_minor,
            balance_after_minor=balance_after,
            clawback=_CLAWBACKS[returned.clawback],
            purchase_complete=returned.so_far.complete,
            coupon_codes=[stored(code) for code in returned.coupon_codes],
        )
    )


def _return_line(number: int, purchase_number: int, line: journal_pb2.LineReturn) -> ReturnLineRow:
    return ReturnLineRow(
        number=number,
        line_number=line.line_number,
        purchase_number=purchase_number,
        quantity_milli=line.quantity_milli,
        list_amount_minor=line.list_amount_minor,
        discount_minor=line.discount_minor,
        points_money_minor=line.points_money_minor,
        refund_money_minor=line.list_amount_minor - line.discount_minor - line.points_money_minor,
        points_given_back_minor=line.refund_points_minor,
        points_due_back_minor=line.clawback_points_minor,
    )


def _add_hold(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    hold, key = event.hold, event.hold.checkout_key
    unit, precision, _ = _balance_of(event.settlement)
    rows.add(
        HoldRow(
            number=entry.number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            expires_at=entry.booked_at + timedelta(seconds=hold.ttl_seconds),
            member_id=_member_of(entry),
            store_id=key.store_id,
            terminal_id=key.terminal_id,
            checkout_id=stored(key.checkout_id),
            programme_code=stored(hold.programme_code),
            programme_version=hold.programme_version,
            points_minor=event.settlement.held_points_minor,
            money_minor=hold.held_money_minor,
            points_unit=unit,
            points_precision=precision,
            takeover_reason=stored(hold.takeover_reason) or None,
            coupon_codes=[stored(code) for code in hold.coupon_codes],
        )
    )


def _add_adjustment(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    adjustment = event.adjustment
    unit, precision, balance_after = _balance_of(event.settlement)
    rows.add(
        AdjustmentRow(
            number=entry.number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            member_id=_member_of(entry),
            points_minor=adjustment.points_minor,
            points_unit=unit,
            points_precision=precision,
            balance_after_minor=balance_after,
            reason_code=stored(adjustment.reason_code),
            note=stored(adjustment.note),
            requested_by=stored(adjustment.requested_by),
            approved_by=stored(adjustment.approved_by) or None,
            request_id=stored(adjustment.request_id),
            programme_code=stored(adjustment.programme_code),
        )
    )


def _add_transfer(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    transfer = event.transfer
    unit, precision, balance_after = _balance_of(event.settlement)
    points_minor = debt_minor = 0
    for posting in event.postings:
        sides = (posting.debit, posting.credit)
        if journal_pb2.ACCOUNT_CLEARING not in sides:
            continue  # time passed first
        if journal_pb2.ACCOUNT_DEBT in sides:
            debt_minor += posting.points_minor
        else:
            points_minor += posting.points_minor
    rows.add(
        TransferRow(
            number=entry.number,
            booked_at=entry.booked_at,
            event_at=entry.event_at,
            member_id=_member_of(entry),
            other_member_id=uuid.UUID(transfer.other_member_id),
            outgoing=transfer.outgoing,
            transfer_id=stored(transfer.transfer_id),
            reason_code=stored(transfer.reason_code),
            requested_by=stored(transfer.requested_by),
            points_minor=points_minor,
            debt_minor=debt_minor,
            points_unit=unit,
            points_precision=precision,
            balance_after_minor=balance_after,
        )
    )


def _add_close(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    close = event.close
    rows.add(
        CloseRow(
            number=entry.number,
            booked_at=entry.booked_at,
            programme_code=stored(close.programme_code),
            close_number=close.close_number,
            last_day=date.fromisoformat(close.last_day),
            period=_PERIODS[close.period],
            closed_by=stored(close.closed_by),
            totals_digest=close.totals_digest or None,
        )
    )


def _add_nothing(rows: Rows, entry: EntryRecord, event: journal_pb2.Event) -> None:
    """A cancel and the passing of time are told by movements and ended holds; a part of a budget is nobody's."""


_Adder = Callable[[Rows, "EntryRecord", journal_pb2.Event], None]
_BODIES: Final[dict[str, tuple[int, _Adder]]] = {
    "purchase": (journal_pb2.ENTRY_KIND_PURCHASE, _add_purchase),
    "member_change": (journal_pb2.ENTRY_KIND_MEMBER_CHANGE, _add_member_change),
    "hold": (journal_pb2.ENTRY_KIND_HOLD, _add_hold),
    "cancel": (journal_pb2.ENTRY_KIND_CANCEL, _add_nothing),
    "goods_return": (journal_pb2.ENTRY_KIND_RETURN, _add_return),
    "time_passed": (journal_pb2.ENTRY_KIND_TIME, _add_nothing),
    "adjustment": (journal_pb2.ENTRY_KIND_ADJUSTMENT, _add_adjustment),
    "transfer": (journal_pb2.ENTRY_KIND_TRANSFER, _add_transfer),
    "close": (journal_pb2.ENTRY_KIND_CLOSE, _add_close),
    "budget_lease": (journal_pb2.ENTRY_KIND_BUDGET, _add_nothing),
}
"""What the events are called in the journal's messages: the kind of their entries, and what they become."""


def _member_of(entry: EntryRecord) -> uuid.UUID:
    if entry.member_id is None:
        raise ValueError("an entry of this kind without a member")
    return entry.member_id


def _balance_of(settlement: checkout_pb2.Settlement) -> tuple[str | None, int | None, int | None]:
    """Return unit, precision and spendable points after an entry; nothing for an entry that tells no balance."""
    if not settlement.HasField("balance"):
        return None, None, None
    balance = settlement.balance
    return balance.unit, balance.precision, balance.available_points_minor


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
