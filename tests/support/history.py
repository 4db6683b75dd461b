"""Histories in a real ledger for tests of finance: things happen on the day, in the store and at the time one says."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction

import asyncpg
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_partner, ensure_unit, open_books
from ledger.booking.transfer import TransferOrder, transfer_everything, transfer_points
from ledger.entry.accounts import partner_account
from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.keys import business_key, checkout_key, content_hash, return_key
from ledger.entry.model import REDEEMED, Booked, Command, Grant, Purchase, Return, Spend, Unit, UnitSpend
from ledger.finance.closing import DAY, MONTH, ClosedPeriod, close_books, last_day_of_month
from ledger.finance.scope import Programme, Query
from ledger.finance.summary import bring_up_to_date
from ledger.finance.table import Table, Value
from ledger.reading.balances import read_balances
from ledger.reading.lookups import read_receipts
from tests.support import commands
from tests.support.commands import member
from tests.support.judged import judged

BOOKS = 2
CODE = "bonus-card"


@dataclass
class HandClock:
    """A clock that somebody sets; it goes on by a millisecond whenever it is asked."""

    now: datetime

    def __call__(self) -> datetime:
        """Tell the time."""
        self.now += timedelta(milliseconds=1)
        return self.now


@dataclass
class History:
    """An open ledger in which things happen. Shoppers are named by any text or number."""

    dsn: str
    unit: Unit
    committer: Committer
    clock: HandClock
    conn: asyncpg.Connection[asyncpg.Record]
    receipt_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    names: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    partners: dict[int, str] = field(default_factory=dict)
    """Partners' codes by their accounts, once there are any."""

    async def further_unit(self, code: str) -> Unit:
        """Open a further point unit without decimals."""
        return await ensure_unit(self.conn, code, 0)

    async def partner(self, code: str) -> int:
        """Open a coalition partner's account."""
        account = partner_account(await ensure_partner(self.conn, code))
        self.partners[account] = code
        return account

    @property
    def programme(self) -> Programme:
        """The programme as finance sees it: a point (of two decimals) pays 0.10."""
        return Programme(CODE, self.unit, "UAH", 2, Fraction(1, 10))

    def query(self, **fields: object) -> Query:
        """Return a query of this programme."""
        return Query(programme=self.programme, **fields)  # type: ignore[arg-type]  # fields of any type

    def at(self, day: date | str, hour: int = 12) -> None:
        """Set the clock to an hour (UTC) of a day; it never goes back."""
        wanted = date.fromisoformat(day) if isinstance(day, str) else day
        self.clock.now = max(self.clock.now, datetime.combine(wanted, time(hour), UTC))

    async def submit(self, command: Command) -> Booked:
        """Book a command."""
        outcome = await self.committer.submit(command)
        assert isinstance(outcome, Booked), outcome
        return outcome

    async def buy(
        self,
        shopper: int | str | None,
        earn: Sequence[Grant | int] = (),
        *,
        spend: int = 0,
        day: date | str | None = None,
        store: str = "S1",
        amount_minor: int = 10_000,
        captures: checkout_pb2.CheckoutKey | None = None,
        further: Sequence[UnitSpend] = (),
        redeemed: int = REDEEMED,
    ) -> Booked:
        """Book a purchase of one line in two units, on the clock's day unless another is given.

        ``further`` are points of further units to be spent, ``redeemed`` the account that takes what points pay.
        """
        member_id = None if shopper is None else member(shopper)
        key = self._key(day, store)
        grants = tuple(Grant(points, None, None) if isinstance(points, int) else points for points in earn)
        body = journal_pb2.Purchase(
            receipt_key=key, member_id=str(member_id or ""), programme_code=CODE, programme_version=1
        )
        body.partner = self.partners.get(redeemed, "")
        body.receipt.currency_code = "UAH"
        body.receipt.event_at.FromDatetime(self.clock.now)
        body.receipt.lines.add(
            line_number=1, sku="milk", quantity_milli=2000, list_amount_minor=amount_minor, discount_minor=500
        )
        effects = body.effects.add(line_number=1, payable_minor=amount_minor - 500)
        if member_id is not None:
            for index, grant in enumerate(grants):
                name = "base" if index == 0 else f"promotion-{index}"
                effects.accruals.add(
                    promotion_id=name,
                    base_minor=amount_minor,
                    points_minor=grant.points_minor,
                    unit=grant.unit.code if grant.unit else "",
                    partner=self.partners.get(grant.account, ""),
                )
        keyed, payload = business_key(key), journal_pb2.Event(purchase=body).SerializeToString()
        return await self.submit(
            judged(
                Purchase(
                    book=book_of_member(member_id, BOOKS) if member_id else book_of_receipt(keyed, BOOKS),
                    message_id=uuid.uuid5(uuid.NAMESPACE_OID, keyed.hex()).bytes,
                    business_key=keyed,
                    content_hash=content_hash(member_id, payload),
                    event_at=body.receipt.event_at.ToDatetime(tzinfo=UTC),
                    member_id=member_id,
                    unit=self.unit,
                    event=payload,
                    spend=Spend(spend, 1, 1, 10) if spend else None,
                    grants=grants if member_id else (),
                    checkout_key=checkout_key(captures) if captures is not None else None,
                    further_spends=tuple(further),
                    redeemed_account=redeemed,
                )
            )
        )

    async def bring_back(
        self, bought: Booked, quantity_milli: int = 2000, *, day: date | str | None = None, store: str = "S1"
    ) -> Booked:
        """Return units of a purchase's line."""
        purchase = journal_pb2.Event.FromString(bought.event).purchase
        keyed = business_key(purchase.receipt_key)
        receipt = (await read_receipts(self.conn, [keyed]))[keyed]
        member_id = uuid.UUID(purchase.member_id) if purchase.member_id else None
        key, asked = self._key(day, store), ((1, quantity_milli),)
        body = journal_pb2.GoodsReturn(
            receipt_key=key,
            member_id=purchase.member_id,
            purchase_key=purchase.receipt_key,
            purchase_number=bought.number,
            programme_code=CODE,
            clawback=journal_pb2.CLAWBACK_MODE_DEBT,
        )
        body.event_at.FromDatetime(self.clock.now)
        body.asked.add(line_number=1, quantity_milli=quantity_milli)
        payload = journal_pb2.Event(goods_return=body).SerializeToString()
        return await self.submit(
            Return(
                book=bought.book,
                message_id=uuid.uuid5(uuid.NAMESPACE_OID, business_key(key).hex()).bytes,
                business_key=return_key(key),
                content_hash=content_hash(member_id, payload),
                event_at=body.event_at.ToDatetime(tzinfo=UTC),
                member_id=member_id,
                unit=self.unit,
                event=payload,
                purchase_number=bought.number,
                purchase=receipt.payload,
                asked=asked,
                lots=receipt.lots,
                clawback=int(journal_pb2.CLAWBACK_MODE_DEBT),
                units=receipt.units,
                partners=receipt.partners,
            )
        )

    async def adjust(self, shopper: int | str, points: Grant | int) -> Booked:
        """Grant points by hand, or take them."""
        return await self.submit(
            commands.adjust(f"adjustment {next(self.names)}", member(shopper), points, books=BOOKS)
        )

    async def hold(self, shopper: int | str, points_minor: int, *, ttl_seconds: int = 600) -> checkout_pb2.CheckoutKey:
        """Hold points for a new checkout; return its key."""
        key = commands.checkout(next(self.names))
        await self.submit(commands.hold(key, member(shopper), points_minor, books=BOOKS, ttl_seconds=ttl_seconds))
        return key

    async def cancel(self, key: checkout_pb2.CheckoutKey, shopper: int | str) -> Booked:
        """Release a hold."""
        return await self.submit(commands.cancel(key, member(shopper), books=BOOKS))

    async def sweep(self, shopper: int | str) -> None:
        """Let time pass for somebody."""
        await self.committer.submit(commands.pass_time(member(shopper), books=BOOKS))

    async def transfer(self, sender: int | str, receiver: int | str, points_minor: int | None = None) -> None:
        """Move points from one shopper to another; None moves everything."""
        order = TransferOrder(uuid.uuid4(), member(sender), member(receiver), "family", "olena")
        async with self.conn.transaction():
            if points_minor is None:
                await transfer_everything(self.conn, BOOKS, order, self.clock())
            else:
                await transfer_points(self.conn, BOOKS, order, self.unit, points_minor, self.clock())

    async def close_day(self, day: date | str) -> ClosedPeriod:
        """Close a day."""
        wanted = date.fromisoformat(day) if isinstance(day, str) else day
        return await close_books(self.conn, self.programme, DAY, wanted, "olena", self.clock())

    async def close_month(self, day: date | str) -> ClosedPeriod:
        """Close the month of a day."""
        wanted = date.fromisoformat(day) if isinstance(day, str) else day
        last_day = last_day_of_month(wanted)
        return await close_books(self.conn, self.programme, MONTH, last_day, "olena", self.clock())

    async def summarise(self) -> int:
        """Bring the summaries up to date."""
        return await bring_up_to_date(self.conn)

    async def available(self, shopper: int | str) -> int:
        """Return the points that somebody can spend now."""
        member_id = member(shopper)
        found = await read_balances(self.conn, [(book_of_member(member_id, BOOKS), member_id)], self.clock())
        return sum(each.available_minor for each in found.get(member_id, ()) if each.unit == self.unit)

    async def balances(self) -> int:
        """Return what all members have, less what they owe, by the caches."""
        statement = "SELECT sum(available_minor + pending_minor + held_minor - debt_minor) FROM ledger.balance"
        return int(await self.conn.fetchval(statement) or 0)

    def _key(self, day: date | str | None, store: str) -> common_pb2.ReceiptKey:
        return common_pb2.ReceiptKey(
            store_id=store,
            terminal_id="1",
            business_date=str(day or self.clock.now.date()),
            receipt_number=next(self.receipt_numbers),
        )


@asynccontextmanager
async def open_history(dsn: str, start: date = date(2026, 1, 5)) -> AsyncIterator[History]:
    """Open a fresh ledger's books at noon of a day."""
    owner = await asyncpg.connect(dsn)
    try:
        await open_books(owner, BOOKS)
        unit = await ensure_unit(owner, "bonus", 2)
    finally:
        await owner.close()
    clock = HandClock(datetime.combine(start, time(12), UTC))

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})

    committer, conn = Committer(connect, BOOKS, clock), await connect()
    try:
        yield History(dsn, unit, committer, clock, conn)
    finally:
        await conn.close()
        await committer.close()


SHOPPERS = ("olena", "ivan", "marta")


async def random_history(
    history: History,
    chance: random.Random,
    steps: int,
    some_grant: Callable[[History, random.Random], Grant] | None = None,
) -> None:
    """Let anything happen: purchases that earn and spend, late receipts, returns, holds, corrections, time."""
    bought: list[Booked] = []
    held: list[tuple[checkout_pb2.CheckoutKey, str]] = []
    for _ in range(steps):
        if chance.random() < 0.4:
            history.at(history.clock.now.date() + timedelta(days=chance.randint(1, 6)))
        shopper = chance.choice(SHOPPERS)
        what = chance.choice(("buy", "buy", "buy", "buy", "back", "hold", "cancel", "adjust", "transfer", "sweep"))
        if what == "buy":
            capture = held.pop(chance.randrange(len(held))) if held and chance.random() < 0.5 else None
            shopper = capture[1] if capture else shopper
            late = timedelta(days=chance.choice((0, 0, 0, 1, 3, 40)))
            bought.append(
                await history.buy(
                    chance.choice((shopper, shopper, shopper, None)) if capture is None else shopper,
                    [(some_grant or any_grant)(history, chance) for _ in range(chance.randint(0, 2))],
                    spend=chance.choice((0, 0, 7, 333, 5000)),
                    day=history.clock.now.date() - late,
                    store=chance.choice(("S1", "S2", "S3")),
                    captures=capture[0] if capture else None,
                )
            )
        elif what == "back" and bought:
            await history.bring_back(bought.pop(chance.randrange(len(bought))), chance.choice((1000, 2000)))
        elif what == "cancel" and held:
            await history.cancel(*held.pop())
        else:
            await _otherwise(history, chance, what, shopper, held)


async def _otherwise(
    history: History,
    chance: random.Random,
    what: str,
    shopper: str,
    held: list[tuple[checkout_pb2.CheckoutKey, str]],
) -> None:
    """Do something for which the shopper may need points, if they have them."""
    if what == "hold" and await history.available(shopper) > 100:
        held.append((await history.hold(shopper, chance.randint(1, 100), ttl_seconds=86_400), shopper))
    elif what == "adjust":
        few = await history.available(shopper) > 250
        await history.adjust(shopper, chance.choice((123, 4567, -250 if few else 1)))
    elif what == "transfer" and await history.available(shopper) > 50:
        await history.transfer(shopper, chance.choice([other for other in SHOPPERS if other != shopper]), 50)
    else:
        await history.sweep(shopper)


def any_grant(history: History, chance: random.Random) -> Grant:
    """Return points of any terms."""
    now = history.clock.now
    active = chance.choice((None, None, now + timedelta(days=5)))
    expires = chance.choice((None, now + timedelta(days=chance.randint(7, 60))))
    return Grant(chance.randint(1, 5000), active, expires)


def cells(table: Table) -> dict[Value, dict[str, Value]]:
    """Return a report's rows by their first cell, each by the names of its columns."""
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, row, strict=True)) for row in table.rows}


def grant(points_minor: int, *, active: datetime | None = None, expires: datetime | None = None) -> Grant:
    """Return points to be granted."""
    return Grant(points_minor, active, expires)
