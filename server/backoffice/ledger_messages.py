"""The ledger's rows as the API's messages."""

from __future__ import annotations

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, ledger_pb2

from ledger.entry.chain import EntryRecord
from ledger.entry.model import Head, Lot, OpenHold, Unit


def head_message(book: int, head: Head) -> ledger_pb2.BookHead:
    """Return the head of a book; an empty book has no time."""
    message = ledger_pb2.BookHead(book=book, number=head.number, hash=head.hash)
    if head.number:
        message.booked_at.FromDatetime(head.booked_at)
    return message


def entry_message(record: EntryRecord) -> ledger_pb2.Entry:
    """Return an entry with its event."""
    entry = ledger_pb2.Entry(
        ref=api.EntryRef(book=record.book, number=record.number),
        kind=journal_pb2.EntryKind.Name(record.kind),
        member_id=str(record.member_id) if record.member_id else "",
        event=journal_pb2.Event.FromString(record.payload),
        hash=record.hash,
    )
    entry.ref.booked_at.FromDatetime(record.booked_at)
    entry.event_at.FromDatetime(record.event_at)
    return entry


def lot_message(unit: Unit, lot: Lot) -> ledger_pb2.Lot:
    """Return a lot with what is left of it."""
    message = ledger_pb2.Lot(
        number=lot.number,
        ordinal=lot.ordinal,
        unit=unit.code,
        granted_points_minor=lot.granted_minor,
        remaining_points_minor=lot.remaining_minor,
        held_points_minor=lot.held_minor,
    )
    if lot.active_at is not None:
        message.active_at.FromDatetime(lot.active_at)
    if lot.expires_at is not None:
        message.expires_at.FromDatetime(lot.expires_at)
    return message


def hold_message(unit: Unit, hold: OpenHold) -> ledger_pb2.OpenHold:
    """Return what a checkout holds."""
    message = ledger_pb2.OpenHold(
        number=hold.number,
        unit=unit.code,
        store_id=hold.store_id,
        terminal_id=hold.terminal_id,
        points_minor=hold.points_minor,
    )
    message.held_at.FromDatetime(hold.held_at)
    message.expires_at.FromDatetime(hold.expires_at)
    return message
