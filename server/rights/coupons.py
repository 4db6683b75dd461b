"""Finding coupons: those that were loaded or generated, and those that receipts gave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import asyncpg

from ledger.entry.books import book_of_member
from ledger.reading.coupons import ISSUED_COUPONS, uses_taken
from server.base.gather import Gatherer
from server.rights.codes import code_of, former_code, normal_code

if TYPE_CHECKING:
    from server.base.database import Connection
    from server.base.gather import Connect

__all__ = ["MOST_USABLE", "CouponReader", "CouponRecord", "code_of", "normal_code", "read_coupons"]

MOST_USABLE: Final = 50
"""The most coupons of a member that are listed: those that lapse first."""

# Coupons by their codes. A code that was loaded comes before one that a receipt gave.
READ_COUPONS: Final = f"""
SELECT c.code, c.series, c.member_id, c.uses, c.valid_from, c.valid_until,
       b.code IS NOT NULL OR s.series IS NOT NULL AS blocked
FROM (
    SELECT l.code, l.series, l.member_id, l.uses, l.valid_from, l.valid_until, 1 AS place
    FROM server.coupon l WHERE l.code = ANY ($1::text[])
    UNION ALL
    SELECT i.code, i.series, i.member_id, i.uses, i.valid_from, i.valid_until, 2
    FROM {ISSUED_COUPONS} i WHERE i.code = ANY ($1::text[])
) AS c
LEFT JOIN server.coupon_block b ON b.code = c.code
LEFT JOIN server.coupon_series_block s ON s.series = c.series
ORDER BY c.place DESC
"""  # noqa: S608 - the ledger's own table

# Coupons that members can use on a day, by any of their ids: known by the place of the question, those that lapse
# first, and no more than the limit of each.
READ_USABLE: Final = f"""
SELECT w.place, c.code, c.series, c.member_id, c.uses, c.valid_from, c.valid_until, false AS blocked
FROM unnest($1::integer[], $2::date[]) AS w (place, day)
CROSS JOIN LATERAL (
    SELECT o.code, o.series, o.member_id, o.uses, o.valid_from, o.valid_until
    FROM (
        SELECT l.code, l.series, l.member_id, l.uses, l.valid_from, l.valid_until
        FROM unnest($3::integer[], $4::integer[], $5::uuid[]) AS k (place, book, member_id)
        JOIN server.coupon l ON l.member_id = k.member_id WHERE k.place = w.place
        UNION ALL
        SELECT i.code, i.series, i.member_id, i.uses, i.valid_from, i.valid_until
        FROM unnest($3::integer[], $4::integer[], $5::uuid[]) AS k (place, book, member_id)
        JOIN {ISSUED_COUPONS} i ON i.book = k.book AND i.member_id = k.member_id WHERE k.place = w.place
    ) AS o
    WHERE (o.valid_from IS NULL OR o.valid_from <= w.day) AND (o.valid_until IS NULL OR o.valid_until >= w.day)
      AND NOT EXISTS (SELECT FROM server.coupon_block b WHERE b.code = o.code)
      AND NOT EXISTS (SELECT FROM server.coupon_series_block s WHERE s.series = o.series)
      AND {uses_taken("o.code")} < o.uses
    ORDER BY o.valid_until NULLS LAST, o.code LIMIT $6
) AS c
ORDER BY w.place, c.valid_until NULLS LAST, c.code
"""  # noqa: S608 - the ledger's own table and expression


class CouponRecord(NamedTuple):
    """A coupon as it was given out: whose it is (None: the bearer's), how often it can be used, and on which days.

    `member_id` is the id that it was given to: after a merge one of the survivor's `MemberRecord.all_ids`.
    """

    code: str
    series: str
    member_id: UUID | None
    uses: int
    valid_from: date | None
    valid_until: date | None
    blocked: bool


class _OfMember(NamedTuple):
    """The question for what a member can use on a day, by all ids of the member, each with its book."""

    ids: tuple[tuple[int, UUID], ...]
    day: date


_Key = str | _OfMember


class CouponReader:
    """Finds coupons for the checkout calls of one process, over one connection of its own.

    Look-ups that arrive while a query is in flight travel together in the next one.
    """

    def __init__(self, connect: Connect, books: int) -> None:
        """Take a function that opens a connection, and the ledger's number of books. Nothing is opened yet."""
        self._books = books
        self._records: Gatherer[_Key, tuple[CouponRecord, ...]] = Gatherer("coupons", connect, self._load)

    async def close(self) -> None:
        """Answer what waits, then close the connection."""
        await self._records.close()

    async def look_up(self, codes: Iterable[str]) -> Mapping[str, CouponRecord]:
        """Return the coupons that have these codes, by their normal form; unknown ones are left out.

        A coupon of releases up to 0.4 may have another code than the form that it is found by, see `former_code`.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED.
        """
        forms = {normal_code(code): former_code(code) for code in codes}
        wanted = list(dict.fromkeys((*forms, *forms.values())))
        records = await asyncio.gather(*map(self._records.get, wanted))
        return _by_normal_form(forms, {code: one[0] for code, one in zip(wanted, records, strict=True) if one})

    async def usable_of(
        self, book: int, member_id: UUID, day: date, merged_from: Sequence[UUID] = ()
    ) -> tuple[CouponRecord, ...]:
        """Return a member's own coupons that have a use left on a day, at most `MOST_USABLE`, those that lapse first.

        A use that a checkout keeps is none left. `merged_from` are the further ids of the member.

        Raises:
            Refused: LEDGER_UNAVAILABLE, OVERLOADED.
        """
        ids = [(book, member_id), *((book_of_member(one, self._books), one) for one in merged_from)]
        return await self._records.get(_OfMember(tuple(ids), day)) or ()

    @staticmethod
    async def _load(conn: Connection, keys: Sequence[_Key]) -> dict[_Key, tuple[CouponRecord, ...]]:
        codes = [key for key in keys if isinstance(key, str)]
        of_members = [key for key in keys if not isinstance(key, str)]
        found: dict[_Key, tuple[CouponRecord, ...]] = {}
        if codes:
            found.update((code, (record,)) for code, record in (await read_coupons(conn, codes)).items())
        if of_members:
            found.update((await _read_usable(conn, of_members)).items())
        return found


async def _read_usable(conn: Connection, questions: Sequence[_OfMember]) -> dict[_OfMember, tuple[CouponRecord, ...]]:
    ids = [(place, *one) for place, question in enumerate(questions) for one in question.ids]
    rows = await conn.fetch(
        READ_USABLE,
        list(range(len(questions))),
        [question.day for question in questions],
        [place for place, _, _ in ids],
        [book for _, book, _ in ids],
        [member_id for _, _, member_id in ids],
        MOST_USABLE,
    )
    found: dict[_OfMember, list[CouponRecord]] = {}
    for row in rows:
        found.setdefault(questions[row["place"]], []).append(_record(row))
    return {question: tuple(records) for question, records in found.items()}


def _by_normal_form(forms: Mapping[str, str], found: Mapping[str, CouponRecord]) -> dict[str, CouponRecord]:
    return {code: found.get(code) or found[old] for code, old in forms.items() if code in found or old in found}


async def find_coupons(conn: Connection, codes: Iterable[str]) -> dict[str, CouponRecord]:
    """Return the coupons that have these codes, as `CouponReader.look_up` does."""
    forms = {normal_code(code): former_code(code) for code in codes}
    return _by_normal_form(forms, await read_coupons(conn, list({*forms, *forms.values()})))


async def read_coupons(conn: Connection, codes: Sequence[str]) -> dict[str, CouponRecord]:
    """Return the coupons that have these codes, which are in their normal form."""
    possible = [code for code in codes if code.isprintable()]  # PostgreSQL takes no zero bytes
    return {row["code"]: _record(row) for row in await conn.fetch(READ_COUPONS, possible)}


def _record(row: asyncpg.Record) -> CouponRecord:
    return CouponRecord(*(row[name] for name in CouponRecord._fields))
