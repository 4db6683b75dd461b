"""Appending from a transaction that belongs to somebody else, for changes that are not made at the till."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger import model
from ledger.decide import decide
from ledger.keys import content_hash
from ledger.store import lock_head, read_state, write_decision

_TIMEOUT_SECONDS = 10.0


class MemberChange(NamedTuple):
    """A member whose record has a new version."""

    member_id: uuid.UUID
    version: int
    event_at: datetime


async def append_member_changes(
    conn: asyncpg.Connection, book: int, changes: Sequence[MemberChange], now: datetime
) -> None:
    """Append one entry for each change, in the caller's transaction.

    Takes the book's fence until that transaction ends, so call it last. With several books in one transaction,
    take them in ascending order, or two callers may wait for each other.
    """
    assert conn.is_in_transaction(), "the entries must commit together with what they tell of"
    if not changes:
        return
    commands = [
        model.MemberChange(
            book=book,
            content_hash=content_hash(change.member_id, change.version.to_bytes(4, "big")),
            event_at=change.event_at,
            member_id=change.member_id,
            event=journal_pb2.Event(
                member_change=journal_pb2.MemberChange(member_id=str(change.member_id), version=change.version)
            ).SerializeToString(),
        )
        for change in changes
    ]
    await lock_head(conn, book, _TIMEOUT_SECONDS)
    state = await read_state(conn, book, commands, now, _TIMEOUT_SECONDS)
    head = state.head
    written = await write_decision(conn, head, state, decide(state, commands, now), _TIMEOUT_SECONDS)
    assert written, "a book's head moved under its own lock"
