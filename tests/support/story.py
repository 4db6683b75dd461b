"""A ledger in which everything happens once: entries of every kind, holds that end in every way, returns."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.append import append_locked, lock_books
from ledger.booking.budgets import lease
from ledger.booking.opening import ensure_partner, ensure_unit
from ledger.booking.transfer import TransferOrder, Transferred, transfer_everything, transfer_points
from ledger.entry.accounts import partner_account
from ledger.entry.keys import business_key, content_hash
from ledger.entry.model import Booked, Close, Command, CounterChange, Declined, Grant, NewCoupon
from ledger.reading.lookups import read_receipts
from tests.support.books import BooksUnderTest
from tests.support.commands import (
    GIFT,
    PHARMACY,
    Line,
    adjust,
    cancel,
    checkout,
    goods_return,
    hold,
    keeping,
    pass_time,
    promoted,
    purchase,
)

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Story:
    """What happened, by name.

    Anna has holds and returns, Borys gets points, Cyril owed some and was merged, Dana has coupons.
    """

    books: BooksUnderTest
    anna: uuid.UUID = field(default_factory=uuid.uuid4)
    borys: uuid.UUID = field(default_factory=uuid.uuid4)
    cyril: uuid.UUID = field(default_factory=uuid.uuid4)
    dana: uuid.UUID = field(default_factory=uuid.uuid4)
    booked: dict[str, Booked] = field(default_factory=dict)
    transfers: list[Transferred] = field(default_factory=list)

    async def happen(self) -> None:
        """Append it all."""
        self.anna, self.borys, self.cyril, self.dana = await self.books.register(4)
        await self._holds_at_the_till()
        await self._corrections()
        await self._returns()
        await self._moves()
        await self._promotions()
        await self._coalition()
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
        earned = purchase(7, self.cyril, books=count, earn=[100], lines=[Line(earned_minor=100)])
        counts = [CounterChange("visit/ever", 1, 1000, 100), CounterChange("draw/car", 2)]
        await self._book("earned", promoted(earned, counts=counts))
        spent = promoted(purchase(8, self.cyril, books=count, spend=100), counts=[CounterChange("draw/bike", 1)])
        await self._book("spent", spent)
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
            assert not isinstance(moved, Declined), moved
            self.transfers.append(moved)
        async with conn.transaction():
            order = TransferOrder(uuid.UUID(int=2), self.cyril, self.borys, "merge", "Olena")
            self.transfers += await transfer_everything(conn, books.count, order, clock())
        await conn.close()
        clock.now = MARCH + timedelta(days=10)
        await self._book("time passed", pass_time(self.anna, books=books.count))

    async def _promotions(self) -> None:
        """Coupons that are used, kept, given, given back and revoked; counters; and budgets that books share.

        And points at the expense of two partners.
        """
        dana, count = self.dana, self.books.count
        conn = await asyncpg.connect(self.books.dsn, server_settings={"role": "tallypoint_writer"})
        for number, code in enumerate(("pharmacy", "fuel")):
            account = partner_account(await ensure_partner(conn, code))
            partners = [Line(further=(("", code, 5 + number),))]
            grants = [Grant(5 + number, None, None, account=account)]
            await self._book(f"earned at {code}", purchase(25 + number, dana, books=count, earn=grants, lines=partners))
        for book in range(count):
            for key, budget in (("spring/money", 1000), ("autumn/count", 100)):
                await lease(conn, book, key, budget, 3 + book, self.books.clock())
        await conn.close()
        until = MARCH.date() + timedelta(days=400)
        visit = [CounterChange("visit/ever", 1, 1000), CounterChange("visit/month/2026-03-01", 1, 1000, until=until)]
        given = [NewCoupon(f"THANKS-{n}", "thanks", MARCH.date(), None if n == 2 else until) for n in range(1, 5)]
        bought = promoted(
            purchase(21, dana, books=count),
            coupons={"CAKE": 1, "TEA": 9},
            counts=[*visit, CounterChange("use/cake/ever", 1, 100)],
            budgets={"spring/money": 2, "autumn/count": 1},
            issued=given[:2],
        )
        await self._book("bought with coupons", bought)
        await self._return("returned with coupons", 22, "bought with coupons", [])
        await self._book("kept", keeping(hold(checkout("d"), dana, 0, books=count), {"CAKE": 1, "TEA": 9}))
        captures = purchase(23, dana, books=count, captures=checkout("d"))
        await self._book("used", promoted(captures, coupons={"CAKE": 1}, counts=visit, issued=given[2:]))
        await self._book("used by nobody", promoted(purchase(24, None, books=count), coupons={"BUN": 5}))
        for n in (1, 2):
            kept = hold(checkout(f"open d{n}"), dana, 0, books=count, ttl_seconds=10**8)
            await self._book(f"left open with coupons {n}", keeping(kept, {"TEA": 9, "BUN": 5}))

    async def _coalition(self) -> None:
        """Points of a further unit and of a partner; a level, a draw, and what a control group did not get."""
        dana, count = self.dana, self.books.count
        conn = await asyncpg.connect(self.books.dsn, server_settings={"role": "tallypoint_writer"})
        assert await ensure_unit(conn, GIFT.code, GIFT.precision) == GIFT
        assert partner_account(await ensure_partner(conn, "pharmacy")) == PHARMACY
        await conn.close()
        line = Line(2000, earned_minor=20, further=(("", "pharmacy", 10), ("gift", "", 4)))
        grants = [Grant(20, None, None), Grant(10, None, None, account=PHARMACY), Grant(4, None, None, unit=GIFT)]
        bought = promoted(purchase(31, dana, books=count, earn=grants, lines=[line]), coupons={"SOAP": 1})
        event = journal_pb2.Event.FromString(bought.event)
        body = event.purchase
        body.partner = "pharmacy"
        body.coupons.add(code=" soap", used=True, promotion_ids=["soap-week"])
        body.facts.coupons.add(code="SOAP", series="clean")
        body.withheld.add(promotion_id="summer", reason="control")
        body.draws.add(draw="car", entries=2, promotion_id="autumn")
        body.tier_change.after = "gold"
        body.tier_change.good_until = "2027-03-31"
        await self._book("bought at a partner's", replace(bought, event=event.SerializeToString()))
        spends = purchase(32, dana, books=count, spend=7, further_spends=[(GIFT, 3)], redeemed_account=PHARMACY)
        await self._book("spent at a partner's", spends)
        await self._return("returned to a partner", 33, "bought at a partner's", [(1, 1000)])

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
