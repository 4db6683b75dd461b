"""What the hotline sees: a coupon with its uses, and all that a member has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, rights_pb2

from ledger.entry.books import book_of_member
from ledger.entry.model import Booked
from ledger.reading.coupons import ISSUED_COUPONS, is_kept, read_use_places, uses_taken
from ledger.reading.journal import read_payloads
from server.base.database import connection
from server.members.records import living_id, read_members
from server.rights.audience import read_audience
from server.rights.codes import normal_code
from server.rights.coupon_desk import coupon_unknown
from server.rights.coupons import find_coupons
from server.rights.people import MemberFinder
from server.rights.rows import text_of

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

MOST_SHOWN: Final = 200
"""The most coupons of a member that are listed."""

_COLUMNS: Final = f"""
       c.code, c.series, c.member_id, c.uses, c.valid_from, c.valid_until, c.issued,
       b.code IS NOT NULL OR s.series IS NOT NULL AS blocked,
       {uses_taken("c.code")} AS taken, {is_kept("c.code")} AS held
"""

# A coupon with how many of its uses are taken; one that was loaded comes before one that a receipt gave.
READ_COUPON: Final = f"""
SELECT {_COLUMNS}
FROM (
    SELECT l.code, l.series, l.member_id, l.uses, l.valid_from, l.valid_until, false AS issued
    FROM server.coupon l WHERE l.code = $1
    UNION ALL
    SELECT i.code, i.series, i.member_id, i.uses, i.valid_from, i.valid_until, true
    FROM {ISSUED_COUPONS} i WHERE i.code = $1
) AS c
LEFT JOIN server.coupon_block b ON b.code = c.code
LEFT JOIN server.coupon_series_block s ON s.series = c.series
ORDER BY c.issued LIMIT 1
"""  # noqa: S608 - joined of constants

# The coupons of a member's ids, those that lapse last first.
READ_COUPONS_OF: Final = f"""
SELECT {_COLUMNS}
FROM (
    SELECT l.code, l.series, l.member_id, l.uses, l.valid_from, l.valid_until, false AS issued
    FROM server.coupon l WHERE l.member_id = ANY ($2::uuid[])
    UNION ALL
    SELECT i.code, i.series, i.member_id, i.uses, i.valid_from, i.valid_until, true
    FROM unnest($1::integer[], $2::uuid[]) AS k (book, member_id)
    JOIN {ISSUED_COUPONS} i ON i.book = k.book AND i.member_id = k.member_id
    ORDER BY 6 DESC NULLS FIRST, 1 LIMIT $3
) AS c
LEFT JOIN server.coupon_block b ON b.code = c.code
LEFT JOIN server.coupon_series_block s ON s.series = c.series
ORDER BY c.valid_until DESC NULLS FIRST, c.code
"""  # noqa: S608 - joined of constants


class RightsViewer:
    """Reads coupons and members' rights of one ledger."""

    def __init__(self, pool: Pool, finder: MemberFinder, books: int) -> None:
        """Work over a pool; `books` is the ledger's number of books."""
        self._pool = pool
        self._finder = finder
        self._books = books

    async def coupon(self, text: str) -> rights_pb2.Coupon:
        """Return a coupon with its uses; Refused COUPON_UNKNOWN if there is none."""
        code = normal_code(text)
        async with connection(self._pool) as conn:
            kept = (await find_coupons(conn, [text])).get(code)
            row = await conn.fetchrow(READ_COUPON, kept.code) if kept is not None else None
            if kept is None or row is None:
                raise coupon_unknown(code, "code")
            owner = await living_id(conn, row["member_id"], self._books) if row["member_id"] else None
            coupon = _coupon(row, owner)
            coupon.taken.extend(await _uses(conn, kept.code))
        return coupon

    async def of_member(self, identifier: api.Identifier) -> rights_pb2.ListMemberRightsResponse:
        """Return what a member has; Refused NOT_FOUND if there is no such member."""
        async with connection(self._pool) as conn:
            person = await self._finder.find_one(conn, identifier)
            record = (await read_members(conn, [person.member_id], self._books))[person.member_id]
            ids = (person.member_id, *record.merged_from)
            segments, offers = await read_audience(conn, person)
            rows = await conn.fetch(READ_COUPONS_OF, self._books_of(ids), ids, MOST_SHOWN)
        return rights_pb2.ListMemberRightsResponse(
            member_id=str(person.member_id),
            segments=segments,
            offers=[
                rights_pb2.MemberOffer(
                    promotion_id=offer.promotion_id, valid_from=text_of(offer.first), valid_until=text_of(offer.last)
                )
                for offer in offers
            ],
            coupons=[_coupon(row, person.member_id) for row in rows],
        )

    def _books_of(self, ids: Sequence[UUID]) -> list[int]:
        return [book_of_member(one, self._books) for one in ids]


def _coupon(row: asyncpg.Record, owner: UUID | None) -> rights_pb2.Coupon:
    return rights_pb2.Coupon(
        code=row["code"],
        series=row["series"],
        member_id=str(owner or ""),
        uses=row["uses"],
        valid_from=text_of(row["valid_from"]),
        valid_until=text_of(row["valid_until"]),
        state=_state(row),
        taken_count=min(row["taken"], row["uses"]),
        issued=row["issued"],
    )


def _state(row: asyncpg.Record) -> rights_pb2.CouponState:
    if row["blocked"]:
        return rights_pb2.COUPON_STATE_BLOCKED
    if row["taken"] < row["uses"]:
        return rights_pb2.COUPON_STATE_OPEN
    return rights_pb2.COUPON_STATE_HELD if row["held"] else rights_pb2.COUPON_STATE_USED


async def _uses(conn: Connection, code: str) -> list[rights_pb2.TakenUse]:
    """Return the uses of a coupon that are taken, oldest first."""
    held = await read_use_places(conn, code)
    entries = await read_payloads(conn, held)
    oldest_first = sorted(entries.values(), key=lambda booked: booked.booked_at)
    return [_use(booked, held=held[booked.book, booked.number]) for booked in oldest_first]


def _use(booked: Booked, *, held: bool) -> rights_pb2.TakenUse:
    use = rights_pb2.TakenUse(held=held)
    use.entry.book, use.entry.number = booked.book, booked.number
    use.entry.booked_at.FromDatetime(booked.booked_at)
    event = journal_pb2.Event.FromString(booked.event)
    if event.HasField("purchase"):
        use.receipt_key.CopyFrom(event.purchase.receipt_key)
        use.store_id, use.terminal_id = use.receipt_key.store_id, use.receipt_key.terminal_id
        use.member_id = event.purchase.member_id
    elif event.HasField("hold"):
        use.store_id, use.terminal_id = event.hold.checkout_key.store_id, event.hold.checkout_key.terminal_id
        use.member_id = event.hold.member_id
    return use
