"""Appending from a transaction that belongs to somebody else, for what is not booked at the till.

Take the fences of all books concerned with `lock_books`, once and last in the transaction; then append.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.store import lock_head, read_state, write_decision
from ledger.entry import model
from ledger.entry.decide import decide
from ledger.entry.keys import content_hash
from ledger.entry.model import Command, Decision

_TIMEOUT_SECONDS = 10.0


class ChangedMember(NamedTuple):
    """A member whose record has a new version."""

    member_id: uuid.UUID
    version: int
    event_at: datetime


async def lock_books(conn: asyncpg.Connection, books: Iterable[int]) -> None:
    """Take the fences of books until the caller's transaction ends, in ascending order.

    Two callers that each take theirs at once and in this order never wait for each other in a circle.
    """
    assert conn.is_in_transaction(), "a fence is held as long as its transaction"
    for book in sorted(set(books)):
        await lock_head(conn, book, _TIMEOUT_SECONDS)


async def append_locked(conn: asyncpg.Connection, book: int, commands: Sequence[Command], now: datetime) -> Decision:
    """Decide commands and append what is booked, in the caller's transaction, under a fence taken before.

    The verdicts stand in the order of the commands; a refused command stores nothing. A repeated one names its entry.

    Raises:
        asyncpg.UniqueViolationError: if a key is booked in another book.
    """
    state = await read_state(conn, book, commands, now, _TIMEOUT_SECONDS)
    head = state.head
    decision = decide(state, commands, now)
    if decision.entries:
        written = await write_decision(conn, head, state, decision, _TIMEOUT_SECONDS)
        assert written, "a book's head moved under its own lock"
    return decision


async def append_member_changes(
    conn: asyncpg.Connection, book: int, changes: Sequence[ChangedMember], now: datetime
) -> None:
    """Append one entry for each change, in the caller's transaction.

    Takes the book's fence until that transaction ends, so call it last. With several books in one transaction,
    take them with `lock_books` first, or two callers may wait for each other.
    """
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
    await lock_books(conn, [book])
    await append_locked(conn, book, commands, now)
