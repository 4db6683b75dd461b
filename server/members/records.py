"""A member's row, as it is read and shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.entry.books import book_of_member
from server.base.errors import Refused

if TYPE_CHECKING:
    from server.base.database import Connection


class Card(NamedTuple):
    """A plastic card: its digits, and what it is worth as the API's CardStatus."""

    number: str
    status: member_pb2.CardStatus


@dataclass(frozen=True, slots=True)
class MemberRow:
    """The whole record of a member, personal data included; cards newest first, phone in E.164 or None.

    `further_phones` and `further_tokens` came with the members `merged_from`, directly or by way of others.
    `merged_into` is set for a merged member only, who may have been merged further since: see `living_id`.
    """

    book: int
    member_id: UUID
    status: api.MemberStatus
    name: str
    birthday: date | None
    language: str
    phone: str | None
    digital_token: str | None
    cards: tuple[Card, ...]
    registered_at: datetime
    version: int
    further_phones: tuple[str, ...] = ()
    further_tokens: tuple[str, ...] = ()
    merged_into: UUID | None = None
    merged_from: tuple[UUID, ...] = ()

    def message(self, balances: Iterable[api.Balance] = ()) -> member_pb2.Member:
        """Return the record as the API shows it."""
        member = member_pb2.Member(
            member_id=str(self.member_id),
            status=self.status,
            profile=member_pb2.Profile(
                name=self.name,
                birthday=self.birthday.isoformat() if self.birthday else "",
                language=self.language,
            ),
            phone=self.phone or "",
            cards=[member_pb2.Card(card_number=card.number, status=card.status) for card in self.cards],
            version=self.version,
            book=self.book,
            balances=balances,
            further_phones=self.further_phones,
            merged_into=str(self.merged_into) if self.merged_into else "",
        )
        member.registered_at.FromDatetime(self.registered_at)
        return member


# Whole records of members, by book and id.
_READ_MEMBERS: Final = """
SELECT m.book, m.member_id, m.status, m.name, m.birthday, m.language, m.phone, m.digital_token,
       m.card_numbers, m.card_statuses, m.registered_at, m.version, m.further_phones, m.further_tokens,
       m.merged_into, m.merged_from
FROM server.member m
JOIN unnest($1::integer[], $2::uuid[]) AS wanted (book, member_id) USING (book, member_id)
"""

# Whole records of members, kept from being changed by others until the transaction ends.
_LOCK_MEMBER: Final = """
SELECT m.book, m.member_id, m.status, m.name, m.birthday, m.language, m.phone, m.digital_token,
       m.card_numbers, m.card_statuses, m.registered_at, m.version, m.further_phones, m.further_tokens,
       m.merged_into, m.merged_from
FROM server.member m
WHERE book = $1 AND member_id = $2
FOR UPDATE
"""


async def read_members(conn: Connection, member_ids: Sequence[UUID], books: int) -> dict[UUID, MemberRow]:
    """Return the records of those members that there are; `books` is the ledger's number of books."""
    found = await conn.fetch(_READ_MEMBERS, [book_of_member(one, books) for one in member_ids], list(member_ids))
    return {record["member_id"]: _row(record) for record in found}


async def lock_member(conn: Connection, member_id: UUID, books: int) -> MemberRow | None:
    """Return a member's record and keep others from changing it until the transaction ends."""
    record = await conn.fetchrow(_LOCK_MEMBER, book_of_member(member_id, books), member_id)
    return None if record is None else _row(record)


# Into whom a member was merged.
_READ_MERGED_INTO: Final = "SELECT merged_into FROM server.member WHERE book = $1 AND member_id = $2"


async def living_id(conn: Connection, member_id: UUID, books: int) -> UUID:
    """Return the id of whoever a member was merged into, at the end of all merges; the member's own without any."""
    while into := await conn.fetchval(_READ_MERGED_INTO, book_of_member(member_id, books), member_id):
        member_id = into
    return member_id


async def all_ids(conn: Connection, member_id: UUID, books: int) -> list[UUID]:
    """Return the ids under which something may stand for a member: the living one's, and all merged into that one."""
    living = await living_id(conn, member_id, books)
    row = (await read_members(conn, [living], books)).get(living)
    return [living, *(row.merged_from if row else ())]


async def lock_present(conn: Connection, member_id: UUID, books: int, field: str = "member_id") -> MemberRow:
    """Return and lock the record of a member who can be changed; `field` is the request's field with the id.

    Raises:
        Refused: NOT_FOUND if there is none, MEMBER_MERGED if it was merged into another one.
    """
    row = await lock_member(conn, member_id, books)
    if row is None:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            f"there is no member {member_id}",
            violations=[(field, "is not a member")],
        )
    if row.merged_into is not None:
        raise merged_refusal(member_id, await living_id(conn, row.merged_into, books), field)
    return row


def merged_refusal(member_id: UUID, living: UUID, field: str) -> Refused:
    """Return the refusal of a merged member's id in a request's field, which names the member who lives on."""
    return Refused(
        api.REFUSAL_REASON_MEMBER_MERGED,
        f"member {member_id} was merged into {living}: use that id",
        violations=[(field, f"was merged into {living}")],
        living_member_id=str(living),
    )


def _row(record: asyncpg.Record) -> MemberRow:
    values = dict(record)
    cards = zip(values.pop("card_numbers"), values.pop("card_statuses"), strict=True)
    for name in ("further_phones", "further_tokens", "merged_from"):
        values[name] = tuple(values[name])
    return MemberRow(cards=tuple(Card(number, status) for number, status in cards), **values)
