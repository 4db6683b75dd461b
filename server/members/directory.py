"""Finding the member behind what a register read: the first thing that every checkout call does.

Look-ups that arrive while a query is in flight travel together in the next one. A Commit may use a record that was
looked up before (`Directory.remembered`): the books say, under their fence, whether the member has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.booking.owned import NEVER_READ
from ledger.entry.books import book_of_member
from ledger.reading.counters import counters_of
from server.base.errors import Refused
from server.base.gather import Gatherer
from server.members.days import FIRST_REGISTRATION, known_birthday
from server.members.found import Found, Lookup, MemberRecord, OfferRow
from server.members.identifiers import IdentifierReader, KeyedHash, NormalIdentifier, mask_name

if TYPE_CHECKING:
    from server.base.database import Connection
    from server.base.gather import Connect

UNKNOWN_TEXT: Final = "Nobody is registered with this. Try the phone number, or offer to register the shopper."
BLOCKED_TEXT: Final = "This member is blocked. Sell without the card and send the shopper to customer service."
REPLACED_TEXT: Final = "This card was replaced by a new one. Ask for the new card or the phone number."
MERGED_TEXT: Final = "This membership was merged into another one. Ask for the card or the phone number."
CARD_BLOCKED_TEXT: Final = "This card was reported lost. Keep it, and ask for another card or the phone number."

# Members by the hashes of identifiers, and by book and id. The first part is materialised so that a cluster, too,
# reads the index by hash first and then goes to the members' own books.
FIND_MEMBERS: Final = f"""
WITH identifier AS MATERIALIZED (
    SELECT i.identifier_hash, i.status AS identifier_status, i.book, i.member_id
    FROM server.member_identifier i WHERE i.identifier_hash = ANY ($1::bytea[])
)
SELECT i.identifier_hash, i.identifier_status, m.book, m.member_id, m.status, m.name, m.birthday, m.language,
       m.registered_at, m.merged_into, m.merged_from, a.segments, a.offers, c.counters
FROM identifier i
JOIN server.member m ON m.book = i.book AND m.member_id = i.member_id
LEFT JOIN server.member_audience a ON a.book = m.book AND a.member_id = m.member_id
{counters_of("m", "c")}
UNION ALL
SELECT NULL, 1::smallint, m.book, m.member_id, m.status, m.name, m.birthday, m.language,
       m.registered_at, m.merged_into, m.merged_from, a.segments, a.offers, c.counters
FROM unnest($2::integer[], $3::uuid[]) AS wanted (book, member_id)
JOIN server.member m ON m.book = wanted.book AND m.member_id = wanted.member_id
LEFT JOIN server.member_audience a ON a.book = m.book AND a.member_id = m.member_id
{counters_of("m", "c")}
"""  # noqa: S608 - the ledger's own join


class Remembered(NamedTuple):
    """A look-up that was kept. It holds if the member has not changed since entry ``as_of`` of the book."""

    lookup: Lookup
    as_of: int


MAX_REMEMBERED: Final = 50_000
"""Identifiers whose members are kept, about 1 kB each; those looked up longest ago are forgotten first."""

_Key = tuple[bool, bytes]
"""Whether it is a member id, and the id's 16 bytes or the identifier's 32 of its keyed hash."""


class Directory:
    """Finds members for the checkout calls of one process, over one connection of its own.

    A lost connection is opened again by the next look-up; meanwhile look-ups are refused LEDGER_UNAVAILABLE.
    """

    def __init__(
        self,
        connect: Connect,
        reader: IdentifierReader,
        hashes: KeyedHash,
        books: int,
        known_number: Callable[[int], int] | None = None,
        observe: Callable[[bool], object] = bool,
    ) -> None:
        """Take a function that opens a connection, and the ledger's number of books. Nothing is opened yet.

        ``known_number`` says up to which entry this process follows a book (-1 if it does not); without it nothing is
        remembered but which book an identifier's member is in. ``observe`` is told whether a commit found its member
        in memory.
        """
        self._observe = observe
        self._reader = reader
        self._hashes = hashes
        self._books = books
        self._records: Gatherer[_Key, asyncpg.Record] = Gatherer("members", connect, self._load)
        self._known_number = known_number
        self._remembered: dict[tuple[str, str], Remembered] = {}
        self._forgotten = 0

    async def close(self) -> None:
        """Answer what waits, then close the connection."""
        await self._records.close()

    async def find(self, identifier: api.Identifier) -> Found | Refused:
        """Return the member who may use this identifier, or why nobody may. Refusals are returned, not raised."""
        lookup = await self.look_up(identifier)
        if lookup.refusal is not None:
            return lookup.refusal
        assert lookup.found is not None, "a look-up without a refusal has a member"
        return lookup.found

    async def look_up(self, identifier: api.Identifier) -> Lookup:
        """Return whose identifier this is and why it is refused; both for one that is blocked or replaced."""
        follows, forgotten = self._known_number, self._forgotten
        before = [] if follows is None else [follows(book) for book in range(self._books)]
        try:
            normal, *former = self._reader.forms(identifier)
            record = await self._records.get(self._key(normal))
            if record is None and former:
                record = await self._records.get(self._key(former[0]))
        except Refused as refusal:
            return Lookup(None, refusal)
        lookup = _judge(normal, record)
        if before and lookup.refusal is None and lookup.found is not None and forgotten == self._forgotten:
            self._remember(identifier, Remembered(lookup, before[lookup.found.member.book]))
        return lookup

    def remembered(self, identifier: api.Identifier) -> Remembered | None:
        """Return what an earlier look-up found, if it found a member without a reason to refuse.

        Whoever uses it must let the books judge whether it still holds; where it was looked up by a process that does
        not follow the member's book, it says no more than which book that is (``as_of`` is -1).
        """
        kind = identifier.WhichOneof("kind")
        return None if kind is None else self._remembered.get((kind, getattr(identifier, kind)))

    def followed(self, identifier: api.Identifier) -> Remembered | None:
        """Return what was found earlier, if this process follows the book of the member, as a commit needs it."""
        known = self.remembered(identifier)
        is_followed = known is not None and known.as_of != NEVER_READ
        self._observe(is_followed)
        return known if is_followed else None

    async def forget_all(self, _: Connection) -> None:
        """Forget what was remembered: segments or offers have changed, of which the books do not tell."""
        self._remembered.clear()
        self._forgotten += 1

    def _remember(self, identifier: api.Identifier, remembered: Remembered) -> None:
        kind = identifier.WhichOneof("kind")
        assert kind is not None, "an identifier of no kind finds nobody"
        key = (kind, getattr(identifier, kind))
        self._remembered.pop(key, None)
        self._remembered[key] = remembered
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _key(self, identifier: NormalIdentifier) -> _Key:
        if identifier.kind == api.IDENTIFIER_KIND_MEMBER_ID:
            return True, UUID(identifier.value).bytes
        return False, self._hashes.of_identifier(identifier)

    async def _load(self, conn: Connection, keys: Sequence[_Key]) -> dict[_Key, asyncpg.Record]:
        ids = [UUID(bytes=key) for is_id, key in keys if is_id]
        hashes = [key for is_id, key in keys if not is_id]
        found: dict[_Key, asyncpg.Record] = {}
        for record in await conn.fetch(FIND_MEMBERS, hashes, self._books_of(ids), ids):
            identifier_hash = record["identifier_hash"]
            found[(True, record["member_id"].bytes) if identifier_hash is None else (False, identifier_hash)] = record
        return await self._with_survivors(conn, found)

    def _books_of(self, ids: Sequence[UUID]) -> list[int]:
        return [book_of_member(one, self._books) for one in ids]

    async def _with_survivors(self, conn: Connection, found: dict[_Key, asyncpg.Record]) -> dict[_Key, asyncpg.Record]:
        """Put the survivors in the place of merged members, whose records say so by another id than was asked for."""
        while merged := {key: record["merged_into"] for key, record in found.items() if record["merged_into"]}:
            ids = list(set(merged.values()))
            records = await conn.fetch(FIND_MEMBERS, [], self._books_of(ids), ids)
            survivors = {record["member_id"]: record for record in records}
            found |= {key: survivors[survivor] for key, survivor in merged.items()}
        return found


def _judge(identifier: NormalIdentifier, record: asyncpg.Record | None) -> Lookup:
    """Say whether a known identifier may be used: first the card's own state, then the member's."""
    if record is None:
        return Lookup(None, _unknown())
    merged = identifier.kind == api.IDENTIFIER_KIND_MEMBER_ID and record["member_id"] != UUID(identifier.value)
    member = MemberRecord(
        member_id=record["member_id"],
        book=record["book"],
        status=record["status"],
        masked_name=mask_name(record["name"]),
        birthday=known_birthday(record["birthday"]),
        language=record["language"],
        registered_at=max(record["registered_at"], FIRST_REGISTRATION),
        merged_from=tuple(record["merged_from"]),
        segments=_segments(record["segments"]),
        offers=_offers(record["offers"]),
        counters=record["counters"] or b"",
    )
    refusal = _refusal(record["identifier_status"], member.status)
    if refusal is None and merged:
        refusal = Refused(
            api.REFUSAL_REASON_MEMBER_MERGED,
            f"the member was merged into {member.member_id}: use that id, or a card or phone",
            cashier_text=MERGED_TEXT,
            living_member_id=str(member.member_id),
        )
    return Lookup(Found(member, identifier.kind), refusal)


def _segments(stored: str | None) -> frozenset[str]:
    return frozenset(json.loads(stored)) if stored else frozenset()


def _offers(stored: str | None) -> tuple[OfferRow, ...]:
    if not stored:
        return ()
    return tuple(OfferRow(one, _day(first), _day(last)) for one, (first, last) in json.loads(stored).items())


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _refusal(identifier_status: member_pb2.CardStatus, status: api.MemberStatus) -> Refused | None:
    if identifier_status == member_pb2.CARD_STATUS_REPLACED:
        return Refused(
            api.REFUSAL_REASON_CARD_REPLACED, "the card was replaced by another one", cashier_text=REPLACED_TEXT
        )
    if identifier_status == member_pb2.CARD_STATUS_BLOCKED:
        return Refused(api.REFUSAL_REASON_CARD_BLOCKED, "the card is blocked", cashier_text=CARD_BLOCKED_TEXT)
    if status == api.MEMBER_STATUS_BLOCKED:
        return Refused(api.REFUSAL_REASON_MEMBER_BLOCKED, "the member is blocked", cashier_text=BLOCKED_TEXT)
    return None


def _unknown() -> Refused:
    return Refused(api.REFUSAL_REASON_IDENTIFIER_UNKNOWN, "no member has this identifier", cashier_text=UNKNOWN_TEXT)
