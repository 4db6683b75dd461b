"""Finding the member behind what a register read: the first thing that every checkout call does.

Look-ups that arrive while a query is in flight travel together in the next one. There is no timer: a lone look-up
goes at once, and under load the queries grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.books import book_of_member
from server.database import CONNECTION_LOST, ledger_unavailable
from server.errors import Refused
from server.members.identifiers import IdentifierReader, KeyedHash, NormalIdentifier, mask_name

if TYPE_CHECKING:
    from server.database import Connection

    Connect = Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]

MAX_QUERY_LOOKUPS: Final = 500
"""The most look-ups of one query; more wait for the next."""
MAX_WAITING: Final = 10_000
"""The most look-ups that wait; above this, registers are told to come again."""
QUERY_TIMEOUT_SECONDS: Final = 2.5
"""Registers wait 3 s for an answer: a query that takes longer helps nobody."""

UNKNOWN_TEXT: Final = "Nobody is registered with this. Try the phone number, or offer to register the shopper."
BLOCKED_TEXT: Final = "This member is blocked. Sell without the card and send the shopper to customer service."
REPLACED_TEXT: Final = "This card was replaced by a new one. Ask for the new card or the phone number."
CARD_BLOCKED_TEXT: Final = "This card was reported lost. Keep it, and ask for another card or the phone number."

# Members by the hashes of identifiers, and by book and id. The first part is materialised so that a cluster, too,
# reads the index by hash first and then goes to the members' own books.
FIND_MEMBERS: Final = """
WITH identifier AS MATERIALIZED (
    SELECT i.identifier_hash, i.status AS identifier_status, i.book, i.member_id
    FROM server.member_identifier i WHERE i.identifier_hash = ANY ($1::bytea[])
)
SELECT i.identifier_hash, i.identifier_status, m.book, m.member_id, m.status, m.name, m.birthday, m.language,
       m.registered_at
FROM identifier i JOIN server.member m ON m.book = i.book AND m.member_id = i.member_id
UNION ALL
SELECT NULL, 1::smallint, m.book, m.member_id, m.status, m.name, m.birthday, m.language, m.registered_at
FROM unnest($2::integer[], $3::uuid[]) AS wanted (book, member_id)
JOIN server.member m ON m.book = wanted.book AND m.member_id = wanted.member_id
"""


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What a checkout needs to know of a member; `status` is the API's MemberStatus."""

    member_id: UUID
    book: int
    status: api.MemberStatus
    masked_name: str
    birthday: date | None
    language: str
    registered_at: datetime

    @property
    def can_spend(self) -> bool:
        """Whether the member may pay with points."""
        return bool(self.status == api.MEMBER_STATUS_ACTIVE)

    def summary(self) -> api.MemberSummary:
        """Return what a cashier may see of the member."""
        return api.MemberSummary(member_id=str(self.member_id), masked_name=self.masked_name, status=self.status)


@dataclass(frozen=True, slots=True)
class Found:
    """The member behind an identifier, and by what kind of identifier they were found."""

    member: MemberRecord
    identified_by: api.IdentifierKind


class Lookup(NamedTuple):
    """All that is known of an identifier: whose it is, if anybody's, and why it is refused, if it is.

    Both are set for a blocked member and for a replaced or blocked card; receipts taken offline need both.
    """

    found: Found | None
    refusal: Refused | None


class _Waiting(NamedTuple):
    identifier: NormalIdentifier
    key: bytes
    answer: asyncio.Future[Lookup]


class Directory:
    """Finds members for the checkout calls of one process, over one connection of its own.

    A lost connection is opened again by the next look-up; meanwhile look-ups are refused LEDGER_UNAVAILABLE.
    """

    def __init__(self, connect: Connect, reader: IdentifierReader, hashes: KeyedHash, books: int) -> None:
        """Take a function that opens a connection, and the ledger's number of books. Nothing is opened yet."""
        self._connect = connect
        self._reader = reader
        self._hashes = hashes
        self._books = books
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Answer what waits, then close the connection."""
        if self._worker is not None:
            await self._worker
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()

    async def find(self, identifier: api.Identifier) -> Found | Refused:
        """Return the member who may use this identifier, or why nobody may. Refusals are returned, not raised."""
        lookup = await self.look_up(identifier)
        if lookup.refusal is not None:
            return lookup.refusal
        assert lookup.found is not None, "a look-up without a refusal has a member"
        return lookup.found

    async def find_many(self, identifiers: Sequence[api.Identifier]) -> list[Found | Refused]:
        """Return the answers for many identifiers, in order."""
        return list(await asyncio.gather(*(self.find(identifier) for identifier in identifiers)))

    async def look_up(self, identifier: api.Identifier) -> Lookup:
        """Return whose identifier this is and why it is refused; both for one that is blocked or replaced."""
        try:
            normal = self._reader.read(identifier)
        except Refused as refusal:
            return Lookup(None, refusal)
        if len(self._waiting) >= MAX_WAITING:
            return Lookup(None, _overloaded())
        answer: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(normal, self._key(normal), answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="directory")
        return await answer

    def _key(self, identifier: NormalIdentifier) -> bytes:
        if identifier.kind == api.IDENTIFIER_KIND_MEMBER_ID:
            return UUID(identifier.value).bytes
        return self._hashes.of_identifier(identifier)

    async def _work(self) -> None:
        """Answer look-ups until none waits."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_QUERY_LOOKUPS], self._waiting[MAX_QUERY_LOOKUPS:]
                await self._answer(batch)
        finally:
            self._worker = None

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        failure: Lookup | None = None
        known: dict[bytes, asyncpg.Record] = {}
        try:
            known = await self._query(batch)
        except CONNECTION_LOST as error:
            failure = Lookup(None, ledger_unavailable(error))
        except Exception as error:
            # A defect of ours: those who wait must hear of it, and those who come later get their own query.
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting in batch:
            if not waiting.answer.done():  # the caller may have gone away
                waiting.answer.set_result(failure or _judge(waiting.identifier, known.get(waiting.key)))

    async def _query(self, batch: Sequence[_Waiting]) -> dict[bytes, asyncpg.Record]:
        """Read what is known of a batch. A connection that was lost since the last query is opened anew, once."""
        was_open = self._conn is not None and not self._conn.is_closed()
        try:
            return await self._query_once(batch)
        except CONNECTION_LOST as error:
            self._drop_connection()
            if not was_open or isinstance(error, TimeoutError):
                raise
        try:
            return await self._query_once(batch)
        except CONNECTION_LOST:
            self._drop_connection()
            raise

    async def _query_once(self, batch: Sequence[_Waiting]) -> dict[bytes, asyncpg.Record]:
        conn = await self._connection()
        hashes = {w.key for w in batch if w.identifier.kind != api.IDENTIFIER_KIND_MEMBER_ID}
        ids = [UUID(bytes=key) for key in {w.key for w in batch} - hashes]
        books = [book_of_member(member_id, self._books) for member_id in ids]
        found = await conn.fetch(FIND_MEMBERS, list(hashes), books, ids, timeout=QUERY_TIMEOUT_SECONDS)
        return {record["identifier_hash"] or record["member_id"].bytes: record for record in found}

    async def _connection(self) -> Connection:
        if self._conn is None or self._conn.is_closed():
            self._conn = await asyncio.wait_for(self._connect(), QUERY_TIMEOUT_SECONDS)
        return self._conn

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


def _judge(identifier: NormalIdentifier, record: asyncpg.Record | None) -> Lookup:
    """Say whether a known identifier may be used: first the card's own state, then the member's."""
    if record is None:
        return Lookup(None, _unknown())
    member = MemberRecord(
        member_id=record["member_id"],
        book=record["book"],
        status=record["status"],
        masked_name=mask_name(record["name"]),
        birthday=record["birthday"],
        language=record["language"],
        registered_at=record["registered_at"],
    )
    return Lookup(Found(member, identifier.kind), _refusal(record["identifier_status"], member.status))


def _refusal(
    identifier_status: member_pb2.CardStatus, status: api.MemberStatus
) -> Refused | None:
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
    return Refused(
        api.REFUSAL_REASON_IDENTIFIER_UNKNOWN, "no member has this identifier", cashier_text=UNKNOWN_TEXT
    )


def _overloaded() -> Refused:
    return Refused(
        api.REFUSAL_REASON_OVERLOADED,
        f"{MAX_WAITING} look-ups of members wait already; send the call again",
        retry_after_seconds=1.0,
    )
