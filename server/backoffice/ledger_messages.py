"""The ledger's rows as the API's messages."""

from __future__ import annotations

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, ledger_pb2

from ledger.journal import EntryRecord
from ledger.model import Head


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


def lot_message(row: asyncpg.Record) -> ledger_pb2.Lot:
    """Return a lot with what is left of it."""
    lot = ledger_pb2.Lot(
        number=row["number"],
        ordinal=row["ordinal"],
        unit=row["code"],
        granted_points_minor=row["granted_minor"],
        remaining_points_minor=row["remaining_minor"],
    )
    if row["active_at"] is not None:
        lot.active_at.FromDatetime(row["active_at"])
    if row["expires_at"] is not None:
        lot.expires_at.FromDatetime(row["expires_at"])
    return lot
