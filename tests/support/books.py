"""Ledgers with real entries for tests: open the books, and append purchases and changes of members to them."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import asyncpg
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.booking.append import ChangedMember, append_member_changes
from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.keys import business_key, content_hash
from ledger.entry.model import Booked, Command, Grant, Purchase, Spend, Unit
from tests.support.judged import judged

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


class SteppingClock:
    """A clock that goes on by a millisecond whenever it is asked."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """Tell the time."""
        self.now += timedelta(milliseconds=1)
        return self.now


def purchase_event(
    member_id: uuid.UUID | None,
    receipt_number: int,
    lines: int = 3,
    *,
    points_minor: int = 100,
) -> journal_pb2.Event:
    """Return an event as the checkout makes it: lines of 10.00 with a discount of 1.00 each, points on the first."""
    event = journal_pb2.Event()
    purchase = event.purchase
    key = purchase.receipt_key
    key.store_id, key.terminal_id, key.business_date, key.receipt_number = "S1", "T1", "2026-03-01", receipt_number
    if member_id is not None:
        purchase.member_id = str(member_id)
        purchase.identified_by = common_pb2.IDENTIFIER_KIND_CARD
    purchase.programme_code, purchase.programme_version, purchase.time_zone = "bonus-card", 1, "Europe/Kyiv"
    purchase.receipt.event_at.FromDatetime(START + timedelta(seconds=receipt_number))
    purchase.receipt.currency_code = "UAH"
    for number in range(1, lines + 1):
        purchase.receipt.lines.add(
            line_number=number,
            sku=f"sku-{number}",
            category="grocery/dairy",
            brand="Cow",
            tags=["fresh"],
            quantity_milli=1000 * number,
            list_amount_minor=1000,
            discount_minor=100,
        )
        effects = purchase.effects.add(line_number=number, payable_minor=900)
        effects.discounts.add(promotion_id="spring", amount_minor=100)
        if number == 1:
            effects.accruals.add(promotion_id="base", base_minor=900, points_minor=points_minor)
    return event


def purchase_command(
    books: int,
    unit: Unit,
    event: journal_pb2.Event,
    *,
    spend_points_minor: int = 0,
) -> Purchase:
    """Return the ledger's command for an event of `purchase_event`, granting what its accruals say."""
    purchase = event.purchase
    member_id = uuid.UUID(purchase.member_id) if purchase.member_id else None
    key = business_key(purchase.receipt_key)
    points_minor = sum(accrual.points_minor for effects in purchase.effects for accrual in effects.accruals)
    payload = event.SerializeToString(deterministic=True)
    command = Purchase(
        book=book_of_member(member_id, books) if member_id else book_of_receipt(key, books),
        message_id=uuid.uuid5(uuid.NAMESPACE_OID, key.hex()).bytes,
        business_key=key,
        content_hash=content_hash(member_id, payload),
        event_at=purchase.receipt.event_at.ToDatetime(tzinfo=UTC),
        member_id=member_id,
        unit=unit,
        event=payload,
        spend=Spend(spend_points_minor, 1, 1, 1) if spend_points_minor else None,
        grants=(Grant(points_minor, None, None),) if member_id and points_minor else (),
    )
    return judged(command)


@dataclass
class BooksUnderTest:
    """An open ledger that a test appends to."""

    dsn: str
    count: int
    unit: Unit
    committer: Committer
    clock: SteppingClock
    random: random.Random
    members: list[uuid.UUID] = field(default_factory=list)
    receipt_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def register(self, count: int) -> list[uuid.UUID]:
        """Make members with a name, a phone and a card, each with its entry; return their ids."""
        ids = [uuid.UUID(int=self.random.getrandbits(128), version=4) for _ in range(count)]
        first = len(self.members)
        self.members += ids
        conn = await asyncpg.connect(self.dsn)
        try:
            for index, member_id in enumerate(ids, start=first):
                async with conn.transaction():
                    book = book_of_member(member_id, self.count)
                    await conn.execute(
                        "INSERT INTO server.member (book, member_id, status, name, birthday, language, phone, "
                        "card_numbers, card_statuses, registered_at, version) "
                        "VALUES ($1, $2, 1, $3, $4, 'uk', $5, ARRAY[$6], ARRAY[1::smallint], $7, 1)",
                        *(book, member_id, f"Olena {index}", date(1990, 2, 28), f"+3805000{index:05}"),
                        *(f"29000000{index:05}", START),
                    )
                    await append_member_changes(conn, book, [ChangedMember(member_id, 1, START)], self.clock())
        finally:
            await conn.close()
        return ids

    async def change_member(self, member_id: uuid.UUID, assignments: str) -> None:
        """Change a member's record by the text of an UPDATE's assignments, and append the entry that tells of it."""
        book = book_of_member(member_id, self.count)
        conn = await asyncpg.connect(self.dsn)
        try:
            async with conn.transaction():
                version = await conn.fetchval(
                    f"UPDATE server.member SET {assignments}, version = version + 1 "
                    "WHERE book = $1 AND member_id = $2 RETURNING version",
                    *(book, member_id),
                )
                change = ChangedMember(member_id, version, self.clock())
                await append_member_changes(conn, book, [change], self.clock())
        finally:
            await conn.close()

    async def buy(self, count: int, *, lines: int = 3, spend_every: int = 4, stranger_every: int = 7) -> list[Booked]:
        """Append purchases of random members, some of which spend points, some without a member."""
        commands = []
        for number in itertools.islice(self.receipt_numbers, count):
            stranger = not self.members or number % stranger_every == 0
            member_id = None if stranger else self.random.choice(self.members)
            event = purchase_event(member_id, number, lines)
            spend = 30 if member_id is not None and number % spend_every == 0 else 0
            commands.append(purchase_command(self.count, self.unit, event, spend_points_minor=spend))
        return await self.append(commands)

    async def append(self, commands: Sequence[Command]) -> list[Booked]:
        """Append commands, which must be booked, some hundreds at a time."""
        booked: list[Booked] = []
        for start in range(0, len(commands), 500):
            chunk = commands[start : start + 500]
            for outcome in await asyncio.gather(*(self.committer.submit(command) for command in chunk)):
                assert isinstance(outcome, Booked), outcome
                booked.append(outcome)
        return booked


@asynccontextmanager
async def open_test_books(dsn: str, count: int = 4, seed: int = 1) -> AsyncIterator[BooksUnderTest]:
    """Open a fresh ledger's books; close the committer at the end."""
    owner = await asyncpg.connect(dsn)
    try:
        await open_books(owner, count)
        unit = await ensure_unit(owner, "bonus", 2)
    finally:
        await owner.close()
    clock = SteppingClock()

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})

    committer = Committer(connect, count, clock)
    try:
        yield BooksUnderTest(dsn, count, unit, committer, clock, random.Random(seed))
    finally:
        await committer.close()
