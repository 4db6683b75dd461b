"""Changes of members: each writes its rows and the ledger's entry of the change in one transaction.

All transactions take their locks in the same order, so that they wait for each other and never in a circle: the
message id, members by id, identifiers by hash, and last of all the head of the book.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid4

import asyncpg
from google.protobuf.message import Message
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.booking.append import ChangedMember, append_member_changes
from ledger.entry.books import book_of_member
from server.base.database import connection, transaction
from server.base.errors import Refused
from server.base.scanned_text import visible_text
from server.edge.parts import do_in_parts
from server.edge.status import refused_of
from server.members.days import read_birthday, read_registration, unfit
from server.members.identifiers import IdentifierReader, KeyedHash, NormalIdentifier, read_member_id
from server.members.records import Card, MemberRow, living_id, lock_present, merged_refusal, read_members

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

ATTEMPTS: Final = 20
"""How often a change is decided anew because somebody else took an identifier at the same moment."""

IMPORT: Final = "MemberService/ImportMembers"
"""Under which call unexpected faults of a row are logged."""

_LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")

# Claim a message id; no row if it was claimed before.
CLAIM_MESSAGE: Final = """
INSERT INTO server.admin_message (message_id, content_hash, book, member_id, received_at)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING message_id
"""

# What a message id was used for.
READ_MESSAGE: Final = "SELECT content_hash, member_id FROM server.admin_message WHERE message_id = $1"

# Forget some of the messages that are too old to be sent again.
FORGET_MESSAGES: Final = """
DELETE FROM server.admin_message WHERE message_id IN (
    SELECT message_id FROM server.admin_message WHERE received_at < $1 LIMIT $2
)
"""

# Who owns identifiers.
READ_OWNERS: Final = """
SELECT identifier_hash, member_id, book FROM server.member_identifier WHERE identifier_hash = ANY ($1::bytea[])
"""

# Make members of one book, in the order of their ids; those returned are new. Cards are joined by commas.
INSERT_MEMBERS: Final = """
INSERT INTO server.member (book, member_id, status, name, birthday, language, phone, digital_token, card_numbers,
                           card_statuses, registered_at, version)
SELECT $1, n.member_id, n.status, n.name, n.birthday, n.language, n.phone, n.digital_token,
       string_to_array(n.cards, ','),
       array_fill(1::smallint, ARRAY[cardinality(string_to_array(n.cards, ','))]), n.registered_at, 1
FROM unnest($2::uuid[], $3::smallint[], $4::text[], $5::date[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::timestamptz[])
     AS n (member_id, status, name, birthday, language, phone, digital_token, cards, registered_at)
ORDER BY n.member_id
ON CONFLICT DO NOTHING
RETURNING member_id
"""

# Give identifiers to members, in the order of their hashes; those returned were free.
INSERT_IDENTIFIERS: Final = """
INSERT INTO server.member_identifier (identifier_hash, kind, status, book, member_id)
SELECT n.identifier_hash, n.kind, 1, $1, n.member_id
FROM unnest($2::bytea[], $3::smallint[], $4::uuid[]) AS n (identifier_hash, kind, member_id)
ORDER BY n.identifier_hash
ON CONFLICT DO NOTHING
RETURNING identifier_hash
"""

# Change a member's status; the row is locked already.
UPDATE_STATUS: Final = """
UPDATE server.member SET status = $3, status_reason = $4, version = version + 1 WHERE book = $1 AND member_id = $2
"""

# Change a member's cards; the row is locked already.
UPDATE_CARDS: Final = """
UPDATE server.member SET card_numbers = $3, card_statuses = $4, version = version + 1
WHERE book = $1 AND member_id = $2
"""

# Change what an identifier is worth.
UPDATE_IDENTIFIER: Final = "UPDATE server.member_identifier SET status = $2 WHERE identifier_hash = $1"


class AdminMessage(NamedTuple):
    """A message that changes a member: its id, its type, and its body in a form that is the same every time."""

    message_id: UUID
    method: str
    content: bytes

    @classmethod
    def of(cls, message_id: str, request: Message) -> AdminMessage:
        """Return the message of a request."""
        return cls(
            read_member_id(message_id, "message_id"),
            request.DESCRIPTOR.full_name,
            request.SerializeToString(deterministic=True),
        )


class Claim(NamedTuple):
    """An identifier that somebody wants to be recognised by, and the request's field that said so."""

    field: str
    kind: api.IdentifierKind
    hash: bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who is to become a member. `id_given`: another system made the id, so it may exist already.

    `id_field` is the request's field with the id. `said` are attributes of the row that the request gives a value, with
    its fields: one that does not say them does not contradict the record.
    """

    row: MemberRow
    claims: tuple[Claim, ...]
    id_given: bool
    id_field: str
    said: Mapping[str, str]


class Placed(NamedTuple):
    """A member that a row of an import stands for, and whether it was there before."""

    member_id: UUID
    already_there: bool


class Raced(Exception):
    """Somebody else took an identifier or a member id meanwhile: decide again, with what they wrote."""


class Registry:
    """The members of one ledger. All times are given, all refusals named."""

    def __init__(self, pool: Pool, reader: IdentifierReader, hashes: KeyedHash, books: int) -> None:
        """Work over a pool whose connections have the writer's role; `books` is the ledger's number of books."""
        self._pool = pool
        self._reader = reader
        self._hashes = hashes
        self._books = books

    async def find(self, identifier: api.Identifier) -> MemberRow:
        """Return a member's record by any identifier, blocked ones too; Refused NOT_FOUND if there is none."""
        wanted, *former = self._reader.forms(identifier)
        async with connection(self._pool) as conn:
            if wanted.kind == api.IDENTIFIER_KIND_MEMBER_ID:
                member_id: UUID | None = UUID(wanted.value)
            else:
                hashes = [self._hashes.of_identifier(one) for one in (wanted, *former)]
                owners = await conn.fetch(READ_OWNERS, hashes)
                member_id = owners[0]["member_id"] if owners else None
            found = await read_members(conn, [member_id], self._books) if member_id else {}
        if member_id is None or member_id not in found:
            raise Refused(api.REFUSAL_REASON_NOT_FOUND, "no member has this identifier")
        return found[member_id]

    async def register(self, message: AdminMessage, person: member_pb2.NewMember, now: datetime) -> MemberRow:
        """Make a member; the same message again has the same member.

        Raises:
            Refused: IDENTIFIER_TAKEN, ALREADY_EXISTS for a given id, MESSAGE_ID_REUSED, or what is wrong with the
                person's data.
        """
        candidate = self.candidate(person, now, "member.")

        async def work(conn: Connection) -> ChangedMember:
            outcome = (await self._place(conn, [candidate]))[0]
            if isinstance(outcome, Refused):
                raise outcome
            if outcome is not candidate:
                raise identifier_taken(candidate.claims[0].field) if candidate.claims else _id_taken("member.member_id")
            await self._insert(conn, candidate.row.book, [candidate])
            return ChangedMember(candidate.row.member_id, 1, candidate.row.registered_at)

        return await self.carry_out(message, candidate.row.member_id, now, work)

    async def set_status(
        self, message: AdminMessage, member_id: UUID, status: api.MemberStatus, reason: str, now: datetime
    ) -> MemberRow:
        """Change what a member may do; Refused NOT_FOUND if there is none."""

        async def work(conn: Connection) -> ChangedMember | None:
            row = await self._locked(conn, member_id)
            if row.status == status:
                return None
            await conn.execute(UPDATE_STATUS, row.book, member_id, status, reason)
            return ChangedMember(member_id, row.version + 1, now)

        return await self.carry_out(message, member_id, now, work)

    async def replace_card(
        self, message: AdminMessage, member_id: UUID, old_number: str, new_number: str, now: datetime
    ) -> MemberRow:
        """Give a member a new card for an old one, or a further card if `old_number` is empty.

        Raises:
            Refused: NOT_FOUND if there is no such member or old card, CARD_REPLACED if it was replaced before,
                IDENTIFIER_TAKEN if the new card is somebody's already.
        """
        new = self._reader.card(new_number, "new_card_number")
        old = self._reader.card(old_number, "old_card_number") if old_number else None
        if new == old:
            raise identifier_taken("new_card_number")

        async def work(conn: Connection) -> ChangedMember:
            row = await self._locked(conn, member_id)
            cards = (Card(new.value, member_pb2.CARD_STATUS_ACTIVE), *_without_old(row.cards, old))
            await self._swap_identifiers(conn, row, new, old)
            await conn.execute(UPDATE_CARDS, row.book, member_id, [c.number for c in cards], [c.status for c in cards])
            return ChangedMember(member_id, row.version + 1, now)

        return await self.carry_out(message, member_id, now, work)

    async def set_card_status(
        self, message: AdminMessage, member_id: UUID, number: str, status: member_pb2.CardStatus, now: datetime
    ) -> MemberRow:
        """Block a card or make it count again.

        Raises:
            Refused: NOT_FOUND if there is no such member or card, CARD_REPLACED if it was replaced.
        """
        card = self._reader.card(number, "card_number")

        async def work(conn: Connection) -> ChangedMember | None:
            row = await self._locked(conn, member_id)
            cards = _with_status(row.cards, card, status, "card_number")
            if cards == list(row.cards):
                return None
            await conn.execute(UPDATE_IDENTIFIER, self._hashes.of_identifier(card), status)
            await conn.execute(UPDATE_CARDS, row.book, member_id, [c.number for c in cards], [c.status for c in cards])
            return ChangedMember(member_id, row.version + 1, now)

        return await self.carry_out(message, member_id, now, work)

    async def import_members(self, people: Sequence[member_pb2.NewMember], now: datetime) -> list[Placed | Refused]:
        """Register many people, each by itself; return who is registered or a refusal for each, in order.

        Refusals name their fields from the person on, such as "phone".
        Somebody whose identifiers all belong to one member already is that member, and nothing changes; ALREADY_EXISTS
        if the member's record contradicts what the row says. Rows of one book are written in one transaction. A row
        that shares an identifier with an earlier one waits for it.

        Raises:
            Refused: LEDGER_UNAVAILABLE; some rows may be stored, and sending all again is safe.
        """
        results: dict[int, Placed | Refused] = {}
        waiting: dict[int, Candidate] = {}
        for index, person in enumerate(people):
            try:
                waiting[index] = self._importable(self.candidate(person, now))
            except Exception as error:  # noqa: BLE001 - the row is refused, and the others go on
                results[index] = refused_of(error, IMPORT)
        while waiting:
            round_ = _without_shared_identifiers(waiting)
            for book in sorted({candidate.row.book for candidate in round_.values()}):
                group = {index: candidate for index, candidate in round_.items() if candidate.row.book == book}
                parts = await do_in_parts(list(group.values()), partial(self._import_group, book, now), IMPORT)
                for part in parts:
                    outcomes = [part.outcome] if isinstance(part.outcome, Refused) else part.outcome
                    results.update(zip(list(group)[part.first :], outcomes, strict=False))
            waiting = {index: candidate for index, candidate in waiting.items() if index not in round_}
        return [results[index] for index in range(len(people))]

    async def carry_out(
        self,
        message: AdminMessage,
        member_id: UUID,
        now: datetime,
        work: Callable[[Connection], Awaitable[ChangedMember | None]],
    ) -> MemberRow:
        """Carry out a message's work if it is the first with its id, and return the member's record.

        `work` runs in a transaction, perhaps several times; the change that it returns gets its entry in the ledger.
        """
        for _ in range(ATTEMPTS):
            try:
                async with connection(self._pool) as conn:
                    async with conn.transaction():
                        known = await self._claim(conn, message, member_id, now)
                        change = None if known else await work(conn)
                        if change:
                            await append_member_changes(conn, book_of_member(member_id, self._books), [change], now)
                    concerned = known or member_id
                    return (await read_members(conn, [concerned], self._books))[concerned]
            except (Raced, asyncpg.DeadlockDetectedError):
                continue
        raise _raced_too_often()

    def candidate(self, person: member_pb2.NewMember, now: datetime, path: str = "") -> Candidate:
        """Check and normalise somebody's data; `path` leads to the person in the request, such as "member.".

        Raises:
            Refused: what is wrong with the first identifier at fault, or all that is wrong with the rest.
        """
        registered_at = read_registration(person, now, path)
        birthday = read_birthday(person.profile.birthday, now, f"{path}profile.birthday")
        language = _language(person.profile.language, f"{path}profile.language")
        phone = self._reader.phone(person.phone, f"{path}phone") if person.phone else None
        token_field, card_field = f"{path}digital_token", f"{path}card_numbers"
        token = self._reader.digital_token(person.digital_token, token_field) if person.digital_token else None
        cards = [self._reader.card(text, f"{card_field}[{i}]") for i, text in enumerate(person.card_numbers)]
        member_id = read_member_id(person.member_id, f"{path}member_id") if person.member_id else uuid4()
        row = MemberRow(
            book=book_of_member(member_id, self._books),
            member_id=member_id,
            status=person.status or api.MEMBER_STATUS_ACTIVE,
            name=" ".join(visible_text(person.profile.name).split()),
            birthday=birthday,
            language=language,
            phone=phone.value if phone else None,
            digital_token=token.value if token else None,
            cards=tuple(Card(card.value, member_pb2.CARD_STATUS_ACTIVE) for card in dict.fromkeys(cards)),
            registered_at=registered_at,
            version=1,
        )
        named = [(f"{card_field}[{i}]", card) for i, card in enumerate(cards)]
        named += [(f"{path}phone", phone)] if phone else []
        named += [(token_field, token)] if token else []
        claims = {one: Claim(field, one.kind, self._hashes.of_identifier(one)) for field, one in named}
        return Candidate(
            row, tuple(claims.values()), bool(person.member_id), f"{path}member_id", _attributes_given(person, path)
        )

    @staticmethod
    def _importable(candidate: Candidate) -> Candidate:
        if candidate.claims or candidate.id_given:
            return candidate
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            "a row needs a card, a phone, a digital token or a member id: without one it cannot be told from the next",
        )

    async def _import_group(self, book: int, now: datetime, candidates: Sequence[Candidate]) -> list[Placed | Refused]:
        for _ in range(ATTEMPTS):
            try:
                async with transaction(self._pool) as conn:
                    outcomes = await self._compared(conn, candidates, await self._place(conn, candidates))
                    new = [
                        candidate
                        for candidate, outcome in zip(candidates, outcomes, strict=True)
                        if outcome is candidate
                    ]
                    if new:
                        await self._insert(conn, book, new)
                        changes = [ChangedMember(d.row.member_id, 1, d.row.registered_at) for d in new]
                        await append_member_changes(conn, book, changes, now)
                return [
                    Placed(o.row.member_id, already_there=False) if isinstance(o, Candidate) else o for o in outcomes
                ]
            except (Raced, asyncpg.DeadlockDetectedError):
                continue
        return [_raced_too_often()] * len(candidates)

    async def _claim(self, conn: Connection, message: AdminMessage, member_id: UUID, now: datetime) -> UUID | None:
        """Claim the message's id; return the member of the same message if it was carried out before."""
        content_hash = self._hashes.of_message(message.method, message.content)
        book = book_of_member(member_id, self._books)
        if await conn.fetchrow(CLAIM_MESSAGE, message.message_id, content_hash, book, member_id, now):
            return None
        # A statement of its own: the row of somebody we waited for is invisible to the one above.
        earlier = await conn.fetchrow(READ_MESSAGE, message.message_id)
        if earlier is None:
            raise Raced
        if earlier["content_hash"] != content_hash:
            raise Refused(
                api.REFUSAL_REASON_MESSAGE_ID_REUSED,
                f"message_id {message.message_id} was used for another message: make a new id for a new message",
                violations=[("message_id", "was used for a message with another body")],
            )
        return UUID(str(earlier["member_id"]))

    async def _place(self, conn: Connection, candidates: Sequence[Candidate]) -> list[Candidate | UUID | Refused]:
        hashes = sorted({claim.hash for candidate in candidates for claim in candidate.claims})
        owners = {record["identifier_hash"]: record["member_id"] for record in await conn.fetch(READ_OWNERS, hashes)}
        given = [candidate.row.member_id for candidate in candidates if candidate.id_given]
        present = await read_members(conn, given, self._books) if given else {}
        merged = {
            one: await living_id(conn, row.merged_into, self._books) for one, row in present.items() if row.merged_into
        }
        return [
            merged_refusal(candidate.row.member_id, merged[candidate.row.member_id], candidate.id_field)
            if candidate.row.member_id in merged
            else place(candidate, owners, candidate.row.member_id in present)
            for candidate in candidates
        ]

    async def _compared(
        self, conn: Connection, candidates: Sequence[Candidate], outcomes: Sequence[Candidate | UUID | Refused]
    ) -> list[Candidate | Placed | Refused]:
        """Look up the members that candidates already are, and refuse those whose record contradicts them."""
        known = list({outcome for outcome in outcomes if isinstance(outcome, UUID)})
        records = await read_members(conn, known, self._books) if known else {}
        if len(records) != len(known):
            raise Raced
        return [
            compare(candidate, records[outcome]) if isinstance(outcome, UUID) else outcome
            for candidate, outcome in zip(candidates, outcomes, strict=True)
        ]

    async def _insert(self, conn: Connection, book: int, candidates: Sequence[Candidate]) -> None:
        """Insert members and identifiers of one book; Raced if one of them is there by now."""
        rows = [candidate.row for candidate in candidates]
        made = await conn.fetch(
            INSERT_MEMBERS,
            book,
            [row.member_id for row in rows],
            [row.status for row in rows],
            [row.name for row in rows],
            [row.birthday for row in rows],
            [row.language for row in rows],
            [row.phone for row in rows],
            [row.digital_token for row in rows],
            [",".join(card.number for card in row.cards) for row in rows],
            [row.registered_at for row in rows],
        )
        claims = [(claim, candidate.row.member_id) for candidate in candidates for claim in candidate.claims]
        taken = await conn.fetch(
            INSERT_IDENTIFIERS,
            book,
            [claim.hash for claim, _ in claims],
            [claim.kind for claim, _ in claims],
            [member_id for _, member_id in claims],
        )
        if len(made) != len(rows) or len(taken) != len(claims):
            raise Raced

    async def _locked(self, conn: Connection, member_id: UUID) -> MemberRow:
        return await lock_present(conn, member_id, self._books)

    async def _swap_identifiers(
        self, conn: Connection, row: MemberRow, new: NormalIdentifier, old: NormalIdentifier | None
    ) -> None:
        """Give the new card to the member and mark the old one, in the order of their hashes."""
        new_hash = self._hashes.of_identifier(new)

        async def give() -> None:
            if await conn.fetch(INSERT_IDENTIFIERS, row.book, [new_hash], [new.kind], [row.member_id]):
                return
            if await conn.fetchrow(READ_OWNERS, [new_hash]):
                raise identifier_taken("new_card_number")
            raise Raced

        steps: dict[bytes, Callable[[], Awaitable[object]]] = {new_hash: give}
        if old:
            old_hash = self._hashes.of_identifier(old)
            steps[old_hash] = lambda: conn.execute(UPDATE_IDENTIFIER, old_hash, member_pb2.CARD_STATUS_REPLACED)
        for _, step in sorted(steps.items()):
            await step()


async def forget_messages(conn: Connection, before: datetime, limit: int) -> int:
    """Forget up to ``limit`` messages that came before a moment; return how many were forgotten."""
    return int((await conn.execute(FORGET_MESSAGES, before, limit)).split()[1])


def place(candidate: Candidate, owners: Mapping[bytes, UUID], is_present: bool) -> Candidate | UUID | Refused:
    """Decide what becomes of a candidate: itself if it is new, the id of the member that it already is, or a refusal.

    Args:
        candidate: Somebody who is to become a member.
        owners: The owner of each identifier that has one, by hash.
        is_present: Whether there is a member with the candidate's own id.
    """
    held = [owners.get(claim.hash) for claim in candidate.claims]
    holders = {owner for owner in held if owner is not None}
    if candidate.id_given:
        foreign = holders - {candidate.row.member_id}
        if foreign:
            return identifier_taken(next(c.field for c in candidate.claims if owners.get(c.hash) in foreign))
        if not is_present:
            return candidate
        free = [claim.field for claim, owner in zip(candidate.claims, held, strict=True) if owner is None]
        return _id_taken(free[0]) if free else candidate.row.member_id
    if not holders:
        return candidate
    if len(holders) == 1 and None not in held:
        return holders.pop()
    return identifier_taken(next(claim.field for claim in candidate.claims if claim.hash in owners))


def compare(candidate: Candidate, record: MemberRow) -> Placed | Refused:
    """Return the member that a candidate already is, or the refusal of one that contradicts the member's record."""
    differing = [name for name in candidate.said if getattr(candidate.row, name) != getattr(record, name)]
    if not differing:
        return Placed(record.member_id, already_there=True)
    words = ", ".join(_WORDS[name] for name in differing)
    return Refused(
        api.REFUSAL_REASON_ALREADY_EXISTS,
        f"this member is there already with {words}: nothing was changed",
        violations=[
            (candidate.said[name], f"is there already with {_WORDS[name]}: correct the row, or change the member")
            for name in differing
        ],
    )


_WORDS: Final = {
    "name": "another name",
    "birthday": "another birthday",
    "language": "another language",
    "status": "another status",
    "registered_at": "another time of registration",
}
"""How a member's record contradicts a row, without telling what it has."""


def _attributes_given(person: member_pb2.NewMember, path: str) -> dict[str, str]:
    """Return the attributes of a row that a person's data give a value, with their fields."""
    said = {name: f"{path}profile.{name}" for name in ("name", "birthday", "language") if getattr(person.profile, name)}
    if person.status:
        said["status"] = f"{path}status"
    if person.HasField("registered_at"):
        said["registered_at"] = f"{path}registered_at"
    return said


def _without_shared_identifiers(waiting: Mapping[int, Candidate]) -> dict[int, Candidate]:
    """Return the candidates that share neither an identifier nor an id with an earlier one."""
    seen: set[bytes] = set()
    alone: dict[int, Candidate] = {}
    for index, candidate in waiting.items():
        marks = {candidate.row.member_id.bytes, *(claim.hash for claim in candidate.claims)}
        if seen.isdisjoint(marks):
            alone[index] = candidate
        seen |= marks
    return alone


def _without_old(cards: Iterable[Card], old: NormalIdentifier | None) -> list[Card]:
    """Return the cards with the old one marked as replaced; Refused if it is not there or was replaced before."""
    if old is None:
        return list(cards)
    return _with_status(cards, old, member_pb2.CARD_STATUS_REPLACED, "old_card_number")


def _with_status(
    cards: Iterable[Card], wanted: NormalIdentifier, status: member_pb2.CardStatus, field: str
) -> list[Card]:
    """Return the cards with one of them changed; Refused if it is not there or was replaced before."""
    kept = {card.number: card for card in cards}
    card = kept.get(wanted.value)
    if card is None:
        raise Refused(
            api.REFUSAL_REASON_NOT_FOUND,
            f"{field} is not a card of this member",
            violations=[(field, "is not a card of this member")],
        )
    if card.status == member_pb2.CARD_STATUS_REPLACED:
        raise Refused(
            api.REFUSAL_REASON_CARD_REPLACED,
            f"{field} was replaced before; give the member a further card with ReplaceCard",
            violations=[(field, "was replaced before")],
        )
    kept[wanted.value] = card._replace(status=status)
    return list(kept.values())


def _language(text: str, field: str) -> str:
    if text and not _LANGUAGE_TAG.fullmatch(text):
        raise unfit(field, 'is not a language tag such as "uk" or "kk-KZ"')
    return text


def identifier_taken(field: str) -> Refused:
    """Return the refusal of an identifier, in a request's field, that somebody else has."""
    return Refused(
        api.REFUSAL_REASON_IDENTIFIER_TAKEN,
        f"{field} already belongs to a member: find that member by it, or give another one",
        violations=[(field, "already belongs to a member")],
    )


def _id_taken(field: str) -> Refused:
    return Refused(
        api.REFUSAL_REASON_ALREADY_EXISTS,
        f"a member with this id is registered already, and not with {field}: change the member instead",
        violations=[(field, "is not what the registered member of this id has")],
    )


def _raced_too_often() -> Refused:
    return Refused(
        api.REFUSAL_REASON_OVERLOADED,
        f"other changes took the same identifiers {ATTEMPTS} times in a row; send the message again",
        retry_after_seconds=1.0,
    )
