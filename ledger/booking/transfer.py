"""Moving points from one member to another, in one all-or-nothing step, within one book or across two.

Each transfer is two entries that share its id: one with which points leave a member for the clearing account, and one
with which they arrive. Both are written in the caller's transaction under the locks of both books, so that nobody
ever sees the one without the other, and the clearing account sums to zero over all books whenever it is read.

Lots keep what was fixed when they were first granted: their activation, their expiry and their age. A repeat with the
same transfer id finds both entries and moves nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.entry.books import book_of_member
from ledger.entry.counters import changes_of
from ledger.entry.keys import content_hash
from ledger.entry.model import (
    AVAILABLE,
    CLEARING,
    DEBT,
    PENDING,
    Booked,
    CounterChange,
    Declined,
    Grant,
    Relevel,
    Repeat,
    TransferIn,
    TransferOut,
    Unchanged,
    Unit,
)
from ledger.reading.journal import read_lot_terms, read_payloads

# Units of which a member has or owes something. Written as it stands in the caches: what has lapsed since counts too.
READ_UNITS = """
SELECT u.unit, u.code, u.precision FROM ledger.balance b JOIN ledger.unit u ON u.unit = b.unit
WHERE b.book = $1 AND b.member_id = $2
  AND (b.available_minor > 0 OR b.pending_minor > 0 OR b.held_minor > 0 OR b.debt_minor > 0)
ORDER BY u.unit
"""

# Whether anything is counted for a member.
READ_COUNTED = "SELECT FROM ledger.member_counters WHERE book = $1 AND member_id = $2 AND length(counters) > 0"

# The first point unit of the ledger: that of a transfer which moves no points.
READ_FIRST_UNIT = "SELECT unit, code, precision FROM ledger.unit ORDER BY unit LIMIT 1"

# Where a message is booked.
READ_MESSAGE = "SELECT book, number FROM ledger.message_key WHERE message_id = $1"


class TransferOrder(NamedTuple):
    """What is to be moved, from whom to whom and why. ``requested_by`` is the name of a back-office key."""

    transfer_id: uuid.UUID
    sender: uuid.UUID
    receiver: uuid.UUID
    reason_code: str
    requested_by: str


class Transferred(NamedTuple):
    """What moved of one unit. ``arrived`` is None if all that the first entry found was that nothing is left."""

    unit: Unit
    available_minor: int
    pending_minor: int
    debt_minor: int
    left: Booked
    arrived: Booked | None


async def transfer_points(
    conn: asyncpg.Connection, books: int, order: TransferOrder, unit: Unit, points_minor: int, now: datetime
) -> Transferred | Declined:
    """Move available points; ``books`` is the ledger's number of books.

    Returns:
        What moved, now or with an earlier sending; or POINTS_INSUFFICIENT, or MESSAGE_ID_REUSED for a transfer id
        that stands for something else. The caller should roll back on a refusal.

    Raises:
        asyncpg.UniqueViolationError: if the id is booked in other books at this moment; roll back and try again.
    """
    if points_minor <= 0:
        raise ValueError(f"points to be moved must be positive, not {points_minor}")
    await _lock(conn, books, order)
    return await _Step(conn, books, order, order.transfer_id, unit, now).move(points_minor)


async def transfer_everything(
    conn: asyncpg.Connection, books: int, order: TransferOrder, now: datetime, relevel: Relevel | None = None
) -> list[Transferred]:
    """Move all that a member has and owes of every unit, pending points too; their holds end.

    What is counted for the member goes along with the first unit: visits and uses of promotions add up, of two last
    days the later one counts. Nothing to move is an empty list. Each unit's transfer has an id of its own, made from
    the order's, which must not have been used for anything else. ``relevel`` says what becomes of the receiver's level
    if what arrives takes something out of counters, as after a return of goods that a merged member had bought.
    """
    await _lock(conn, books, order)
    book = book_of_member(order.sender, books)
    units = [Unit(*row) for row in await conn.fetch(READ_UNITS, book, order.sender)]
    counted = await conn.fetchrow(READ_COUNTED, book, order.sender) is not None
    if counted and not units:
        units = [Unit(*row) for row in await conn.fetch(READ_FIRST_UNIT)]
    moved = []
    for index, unit in enumerate(units):
        transfer_id, counters = uuid.uuid5(order.transfer_id, unit.code), counted and index == 0
        step = _Step(conn, books, order, transfer_id, unit, now, counters, relevel if counters else None)
        outcome = await step.move(None)
        assert not isinstance(outcome, Declined), f"all that there is can be moved: {outcome.message}"
        moved.append(outcome)
    return moved


async def was_transferred(conn: asyncpg.Connection, transfer_id: uuid.UUID) -> bool:
    """Say whether points were moved under this id."""
    return await conn.fetchrow(READ_MESSAGE, _message_id(transfer_id, "out")) is not None


async def _lock(conn: asyncpg.Connection, books: int, order: TransferOrder) -> None:
    assert conn.is_in_transaction(), "both entries must commit together"
    if order.sender == order.receiver:
        raise ValueError("a member cannot send points to themselves")
    await lock_books(conn, {book_of_member(order.sender, books), book_of_member(order.receiver, books)})


@dataclass(frozen=True, slots=True)
class _Step:
    """The move of one unit; the books are locked."""

    conn: asyncpg.Connection
    books: int
    order: TransferOrder
    transfer_id: uuid.UUID
    unit: Unit
    now: datetime
    counters: bool = False
    relevel: Relevel | None = None

    async def move(self, points_minor: int | None) -> Transferred | Declined:
        """Write both entries, or find them; None moves everything."""
        left = await self._leave(points_minor)
        if isinstance(left, Declined):
            return left
        event = journal_pb2.Event.FromString(left.event)
        sent = [p for p in event.postings if CLEARING in (p.debit, p.credit)]
        counts = tuple(_arriving(change) for change in changes_of(event))
        if left.repeated:
            arrived = await self._find(_message_id(self.transfer_id, "in"))
        else:
            arrived = await self._arrive(left, sent, counts) if sent or counts else None
        return Transferred(
            self.unit,
            sum(p.points_minor for p in sent if p.debit == AVAILABLE),
            sum(p.points_minor for p in sent if p.debit == PENDING),
            sum(p.points_minor for p in sent if p.credit == DEBT),
            left,
            arrived,
        )

    async def _leave(self, points_minor: int | None) -> Booked | Declined:
        amount = b"everything" if points_minor is None else points_minor.to_bytes(8, "big")
        sender = self.order.sender
        command = TransferOut(
            book=book_of_member(sender, self.books),
            message_id=_message_id(self.transfer_id, "out"),
            content_hash=content_hash(sender, *self._content(), amount),
            event_at=self.now,
            member_id=sender,
            event=self._event(outgoing=True),
            unit=self.unit,
            points_minor=points_minor,
            counters=self.counters,
        )
        return await self._append(command)

    async def _arrive(self, left: Booked, sent: list[journal_pb2.Posting], counts: tuple[CounterChange, ...]) -> Booked:
        """Write the entry with which points arrive, in a lot like each that they left."""
        gave = [(p, (p.lot_number or left.number, p.lot_ordinal)) for p in sent if p.credit == CLEARING]
        terms = await read_lot_terms(self.conn, left.book, [lot for _, lot in gave])
        receiver = self.order.receiver
        command = TransferIn(
            book=book_of_member(receiver, self.books),
            message_id=_message_id(self.transfer_id, "in"),
            content_hash=content_hash(receiver, *self._content()),
            event_at=self.now,
            member_id=receiver,
            event=self._event(outgoing=False),
            unit=self.unit,
            grants=tuple(
                Grant(p.points_minor, terms[lot].active_at, terms[lot].expires_at, terms[lot].issued_at)
                for p, lot in gave
            ),
            debt_minor=sum(p.points_minor for p in sent if p.credit == DEBT),
            counts=counts,
            relevel=self.relevel,
        )
        arrived = await self._append(command)
        assert isinstance(arrived, Booked), f"points that have left arrive: {arrived}"
        return arrived

    async def _append(self, command: TransferOut | TransferIn) -> Booked | Declined:
        verdict = (await append_locked(self.conn, command.book, [command], self.now)).verdicts[0]
        if isinstance(verdict, Repeat):
            stored = await read_payloads(self.conn, [(verdict.book, verdict.number)])
            return stored[(verdict.book, verdict.number)]
        assert not isinstance(verdict, Unchanged), "a transfer is booked or refused"
        return verdict

    async def _find(self, message_id: bytes) -> Booked | None:
        place = await self.conn.fetchrow(READ_MESSAGE, message_id)
        if place is None:
            return None
        stored = await read_payloads(self.conn, [(place["book"], place["number"])])
        return stored[(place["book"], place["number"])]

    def _content(self) -> tuple[bytes, ...]:
        """Return what a repeat must say again; who asks is no part of it."""
        order = self.order
        return order.sender.bytes, order.receiver.bytes, order.reason_code.encode(), self.unit.code.encode()

    def _event(self, *, outgoing: bool) -> bytes:
        order = self.order
        here, there = (order.sender, order.receiver) if outgoing else (order.receiver, order.sender)
        return journal_pb2.Event(
            transfer=journal_pb2.Transfer(
                member_id=str(here),
                other_member_id=str(there),
                transfer_id=str(self.transfer_id),
                reason_code=order.reason_code,
                requested_by=order.requested_by,
                outgoing=outgoing,
            )
        ).SerializeToString()


def _arriving(change: CounterChange) -> CounterChange:
    """Return what is counted for the receiver of what is no longer counted for the sender."""
    return CounterChange(change.key, -change.times, -change.money_minor, -change.points_minor, change.until)


def _message_id(transfer_id: uuid.UUID, side: str) -> bytes:
    return uuid.uuid5(transfer_id, side).bytes
