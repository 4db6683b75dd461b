"""A ledger in which everything happens once: entries of every kind, holds that end in every way, returns."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.append import append_locked, lock_books
from ledger.keys import business_key, content_hash
from ledger.lookups import read_receipts
from ledger.model import Booked, Close, Command, Grant, Refused
from ledger.transfer import TransferOrder, Transferred, transfer_everything, transfer_points
from tests.support.books import BooksUnderTest
from tests.support.commands import Line, adjust, cancel, checkout, goods_return, hold, pass_time, purchase

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Story:
    """What happened, by name. Anna has holds and returns, Borys gets points, Cyril owed some and was merged."""

    books: BooksUnderTest
    anna: uuid.UUID = field(default_factory=uuid.uuid4)
    borys: uuid.UUID = field(default_factory=uuid.uuid4)
    cyril: uuid.UUID = field(default_factory=uuid.uuid4)
    booked: dict[str, Booked] = field(default_factory=dict)
    transfers: list[Transferred] = field(default_factory=list)

    async def happen(self) -> None:
        """Append it all."""
        self.anna, self.borys, self.cyril = await self.books.register(3)
        await self._holds_at_the_till()
        await self._corrections()
        await self._returns()
        await self._moves()
        await self._closes()

    def event(self, name: str) -> journal_pb2.Event:
        """Return what an entry records."""
        return journal_pb2.Event.FromString(self.booked[name].event)

    async def _book(self, name: str, command: Command) -> None:
        (self.booked[name],) = await self.books.append([command])

    async def _holds_at_the_till(self) -> None:
        anna, count = self.anna, self.books.count
        grants = [
            Grant(300, None, MARCH + timedelta(days=30)),
            Grant(200, MARCH + timedelta(days=5), MARCH + timedelta(days=400)),
        ]
        lines = [Line(earned_minor=300), Line(1500, 750, 200, 50, weighed=True)]
        await self._book("bought", purchase(1, anna, books=count, earn=grants, lines=lines))
        await self._book("held", hold(checkout("one"), anna, 100, books=count))
        await self._book("held more", hold(checkout("one"), anna, 150, books=count))
        takeover = hold(checkout("two", "2"), anna, 120, books=count, takeover="lane 1 is down")
        await self._book("taken over", takeover)
        captures = purchase(
            2,
            anna,
            books=count,
            spend=80,
            earn=[50],
            lines=[Line(5000, earned_minor=50)],
            captures=checkout("two", "2"),
        )
        await self._book("captured", captures)
        await self._book("held again", hold(checkout("three"), anna, 60, books=count))
        release = cancel(checkout("three"), anna, books=count)
        event = journal_pb2.Event.FromString(release.event)
        event.cancel.reason = "the shopper left"
        await self._book("cancelled", replace(release, event=event.SerializeToString()))
        await self._book("left open", hold(checkout("four"), anna, 30, books=count, ttl_seconds=600))
        self.books.clock.now += timedelta(hours=1)

    async def _corrections(self) -> None:
        await self._book("granted", adjust("kind", self.anna, 25, books=self.books.count))
        await self._book("taken", adjust("wrong", self.anna, -5, books=self.books.count))

    async def _returns(self) -> None:
        count = self.books.count
        await self._return("returned", 3, "captured", [(1, 2000)])
        await self._return("returned by weight", 4, "bought", [(2, 500)])
        await self._book("bought by nobody", purchase(5, None, books=count, lines=[Line(), Line()]))
        await self._return("returned by nobody", 6, "bought by nobody", [(1, 1000)])
        await self._book("earned", purchase(7, self.cyril, books=count, earn=[100], lines=[Line(earned_minor=100)]))
        await self._book("spent", purchase(8, self.cyril, books=count, spend=100))
        await self._return("owed", 9, "earned", [])

    async def _return(self, name: str, receipt_number: int, bought: str, asked: list[tuple[int, int]]) -> None:
        conn = await asyncpg.connect(self.books.dsn)
        key = self.event(bought).purchase.receipt_key
        (receipt,) = (await read_receipts(conn, [business_key(key)])).values()
        await conn.close()
        await self._book(name, goods_return(receipt_number, self.booked[bought], asked, terms=receipt.lots))

    async def _moves(self) -> None:
        books, clock = self.books, self.books.clock
        conn = await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_writer"})
        async with conn.transaction():
            order = TransferOrder(uuid.UUID(int=1), self.anna, self.borys, "family", "Olena")
            moved = await transfer_points(conn, books.count, order, books.unit, 20, clock())
            assert not isinstance(moved, Refused), moved
            self.transfers.append(moved)
        async with conn.transaction():
            order = TransferOrder(uuid.UUID(int=2), self.cyril, self.borys, "merge", "Olena")
            self.transfers += await transfer_everything(conn, books.count, order, clock())
        await conn.close()
        clock.now = MARCH + timedelta(days=10)
        await self._book("time passed", pass_time(self.anna, books=books.count))

    async def _closes(self) -> None:
        books, clock = self.books, self.books.clock
        conn = await asyncpg.connect(books.dsn, server_settings={"role": "tallypoint_writer"})
        async with conn.transaction():
            await lock_books(conn, range(books.count))
            for book in range(books.count):
                await append_locked(conn, book, [_close(book, b"", clock())], clock())
            await append_locked(conn, 0, [_close(0, bytes(32), clock())], clock())
        await conn.close()


def _close(book: int, totals_digest: bytes, now: datetime) -> Close:
    event = journal_pb2.Event(
        close=journal_pb2.Close(
            close_number=1,
            programme_code="bonus-card",
            last_day="2026-03-31",
            period=journal_pb2.CLOSE_PERIOD_MONTH,
            closed_by="Olena",
            totals_digest=totals_digest,
        )
    ).SerializeToString()
    return Close(book=book, content_hash=content_hash(None, event), event_at=now, member_id=None, event=event)
