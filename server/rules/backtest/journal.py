"""Stored receipts from the journal: read as a stream, one part of every book for each process."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import journal_pb2

from ledger.entry import semantics
from ledger.reading.journal import BookedPurchase, PurchasePart, read_purchases
from server.members.days import known_birthday
from server.promotions import MemberFacts
from server.rules.backtest.simulation import Case
from server.rules.evidence import member_of, receipt_of, usage_of

if TYPE_CHECKING:
    from server.base.database import Connection

ENTRIES_PER_READ: Final = 1000

# What the records of members say today.
READ_MEMBERS: Final = """
SELECT m.member_id, m.birthday, ARRAY(SELECT jsonb_object_keys(coalesce(a.segments, '{}'))) AS segments
FROM server.member m LEFT JOIN server.member_audience a ON a.book = m.book AND a.member_id = m.member_id
WHERE m.book = $1 AND m.member_id = ANY ($2)
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which receipts are to be read: of each book up to a number, and bought within two moments (None: any)."""

    books: Mapping[int, int]
    first: datetime | None = None
    end: datetime | None = None


async def stored_cases(
    conn: Connection, stretch: Stretch, part: int, parts: int
) -> AsyncIterator[tuple[int, list[Case | str]]]:
    """Yield the receipts of one part of every book, a batch at a time, with how many entries have been passed.

    The first batch is empty, and comes with how many entries there are. Instead of a receipt stands why it cannot be
    judged. Members are as their entries describe them; birthdays, and segments that the rules of that time did not ask
    for, are those of today.
    """
    yield sum(stretch.books.values()), []
    wanted = PurchasePart(part, parts, stretch.first, stretch.end)
    for book, last in sorted(stretch.books.items()):
        at = 0
        while at < last:
            purchases = await read_purchases(conn, book, at, last, wanted, ENTRIES_PER_READ)
            reached = purchases[-1].number if len(purchases) == ENTRIES_PER_READ else last
            yield reached - at, await _cases(conn, book, purchases)
            at = reached


async def _cases(conn: Connection, book: int, purchases: Sequence[BookedPurchase]) -> list[Case | str]:
    ids = {one.member_id for one in purchases if one.member_id is not None}
    records = await conn.fetch(READ_MEMBERS, book, list(ids)) if ids else []
    today: dict[uuid.UUID, tuple[date | None, frozenset[str]]] = {
        record["member_id"]: (known_birthday(record["birthday"]), frozenset(record["segments"])) for record in records
    }
    return [
        _case(book, number, payload, None if member_id is None else today.get(member_id))
        for number, member_id, payload in purchases
    ]


def _case(
    book: int,
    number: int,
    payload: bytes,
    today: tuple[date | None, frozenset[str]] | None,
) -> Case | str:
    event = journal_pb2.Event.FromString(payload)
    purchase = event.purchase
    key = purchase.receipt_key
    member = member_of(purchase)
    if member is not None and today is not None:
        member = _of_today(member, *today)
    return Case(
        name=f"{key.store_id}/{key.terminal_id}/{key.business_date}/{key.receipt_number} ({book}:{number})",
        currency=purchase.receipt.currency_code,
        receipt=receipt_of(purchase),
        member=member,
        spend_points_minor=event.settlement.spent_points_minor,
        seen=usage_of(purchase).member,
        version=purchase.programme_version,
        discount_minor=sum(part.amount_minor for line in purchase.effects for part in line.discounts),
        points_minor=sum(part.points_minor for line in purchase.effects for part in line.accruals if not part.unit),
        old=event if event.semantics < semantics.CURRENT else None,
    )


def _of_today(member: MemberFacts, birthday: date | None, segments: frozenset[str]) -> MemberFacts:
    """Add what a draft may ask for and the rules of that time did not; levels are simulated."""
    windows = member.birthday_windows if birthday is None else None
    return member._replace(birthday=birthday, birthday_windows=windows, segments=member.segments | segments, tier=None)
