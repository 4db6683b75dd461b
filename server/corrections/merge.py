"""Merging two records of one person: the duplicate's points, cards, phones and personal data become the survivor's.

All of it is one transaction, which takes its locks in the order of `registry`. The duplicate's row stays for the
record, without personal data. What is booked for the duplicate afterwards, for example by a lane that had found the
member a moment before, is moved on by `server.corrections.leftovers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tallypoint.v1 import common_pb2 as api

from ledger.booking.append import ChangedMember, append_member_changes
from ledger.booking.transfer import TransferOrder, transfer_everything
from server.base.errors import Refused
from server.members.days import known_birthday
from server.members.identifiers import KeyedHash, NormalIdentifier
from server.members.records import MemberRow, lock_present
from server.members.registry import AdminMessage, Registry
from server.rights.audience import move_audience
from server.rights.people import Person

if TYPE_CHECKING:
    from server.base.database import Connection

MERGE_REASON: Final = "merge"
"""The reason code of the transfers of a merge, in the journal."""

# Mark a member as merged and take all personal data out of the row, which is locked already.
MARK_MERGED: Final = """
UPDATE server.member
SET status = 4, status_reason = $4, merged_into = $3, name = '', birthday = NULL, language = '', phone = NULL,
    digital_token = NULL, card_numbers = '{}', card_statuses = '{}', further_phones = '{}', further_tokens = '{}',
    version = version + 1
WHERE book = $1 AND member_id = $2
"""

# Write the survivor's whole record; the row is locked already.
WRITE_SURVIVOR: Final = """
UPDATE server.member
SET name = $3, birthday = $4, language = $5, phone = $6, digital_token = $7, card_numbers = $8, card_statuses = $9,
    registered_at = $10, further_phones = $11, further_tokens = $12, merged_from = $13, version = version + 1
WHERE book = $1 AND member_id = $2
"""

# Lead identifiers of one member to another one.
MOVE_IDENTIFIERS: Final = """
UPDATE server.member_identifier SET book = $3, member_id = $4
WHERE identifier_hash = ANY ($1::bytea[]) AND member_id = $2
"""


class Merger:
    """Merges members of one ledger."""

    def __init__(self, registry: Registry, hashes: KeyedHash, books: int) -> None:
        """Take what changes members, and the ledger's number of books."""
        self._registry = registry
        self._hashes = hashes
        self._books = books

    async def merge(
        self, message: AdminMessage, duplicate_id: UUID, survivor_id: UUID, reason: str, by: str, now: datetime
    ) -> MemberRow:
        """Merge the duplicate into the survivor; return the survivor's record. `by` is who asks.

        Raises:
            Refused: NOT_FOUND, MEMBER_MERGED or MEMBER_BLOCKED of either side, INVALID_REQUEST if both are the same,
                MESSAGE_ID_REUSED.
        """
        if duplicate_id == survivor_id:
            raise Refused(
                api.REFUSAL_REASON_INVALID_REQUEST,
                "a member cannot be merged into themselves",
                violations=[("survivor_id", "must be another member than duplicate_id")],
            )

        async def work(conn: Connection) -> None:
            fields = {duplicate_id: "duplicate_id", survivor_id: "survivor_id"}
            rows = {one: await lock_present(conn, one, self._books, fields[one]) for one in sorted(fields)}
            for one, row in rows.items():
                _refuse_blocked(row, fields[one])
            duplicate, survivor = rows[duplicate_id], rows[survivor_id]
            await self._write(conn, duplicate, joined(duplicate, survivor), reason)
            await self._move_identifiers(conn, duplicate, survivor)
            await move_audience(conn, Person(duplicate.book, duplicate_id), Person(survivor.book, survivor_id))
            order = TransferOrder(message.message_id, duplicate_id, survivor_id, MERGE_REASON, by)
            await transfer_everything(conn, self._books, order, now)  # from here on both books are locked
            for row in (duplicate, survivor):
                await append_member_changes(conn, row.book, [ChangedMember(row.member_id, row.version + 1, now)], now)

        return await self._registry.carry_out(message, survivor_id, now, work)

    @staticmethod
    async def _write(conn: Connection, duplicate: MemberRow, survivor: MemberRow, reason: str) -> None:
        await conn.execute(MARK_MERGED, duplicate.book, duplicate.member_id, survivor.member_id, reason)
        await conn.execute(
            WRITE_SURVIVOR,
            survivor.book,
            survivor.member_id,
            survivor.name,
            survivor.birthday,
            survivor.language,
            survivor.phone,
            survivor.digital_token,
            [card.number for card in survivor.cards],
            [card.status for card in survivor.cards],
            survivor.registered_at,
            survivor.further_phones,
            survivor.further_tokens,
            survivor.merged_from,
        )

    async def _move_identifiers(self, conn: Connection, duplicate: MemberRow, survivor: MemberRow) -> None:
        hashes = [self._hashes.of_identifier(one) for one in _identifiers(duplicate)]
        done = await conn.execute(MOVE_IDENTIFIERS, hashes, duplicate.member_id, survivor.book, survivor.member_id)
        assert done == f"UPDATE {len(hashes)}", (
            f"the identifiers of member {duplicate.member_id} are incomplete: {done}"
        )


def joined(duplicate: MemberRow, survivor: MemberRow) -> MemberRow:
    """Return the survivor's record after the merge, but for its version.

    What the survivor has, it keeps; what is empty comes from the duplicate. All identifiers of both stay good: a
    second phone or digital card joins the further ones.
    """
    phones = _all_but_first(survivor.phone, (*survivor.further_phones, duplicate.phone, *duplicate.further_phones))
    tokens = _all_but_first(
        survivor.digital_token, (*survivor.further_tokens, duplicate.digital_token, *duplicate.further_tokens)
    )
    return replace(
        survivor,
        name=survivor.name or duplicate.name,
        birthday=known_birthday(survivor.birthday) or known_birthday(duplicate.birthday),
        language=survivor.language or duplicate.language,
        phone=survivor.phone or (phones.pop(0) if phones else None),
        digital_token=survivor.digital_token or (tokens.pop(0) if tokens else None),
        cards=(*survivor.cards, *duplicate.cards),
        registered_at=min(survivor.registered_at, duplicate.registered_at),
        further_phones=tuple(phones),
        further_tokens=tuple(tokens),
        merged_from=(*survivor.merged_from, duplicate.member_id, *duplicate.merged_from),
    )


def _all_but_first(first: str | None, candidates: Iterable[str | None]) -> list[str]:
    return [one for one in candidates if one is not None and one != first]


def _identifiers(row: MemberRow) -> list[NormalIdentifier]:
    cards = [NormalIdentifier(api.IDENTIFIER_KIND_CARD, card.number) for card in row.cards]
    phones = _all_but_first(None, (row.phone, *row.further_phones))
    tokens = _all_but_first(None, (row.digital_token, *row.further_tokens))
    return [
        *cards,
        *(NormalIdentifier(api.IDENTIFIER_KIND_PHONE, phone) for phone in phones),
        *(NormalIdentifier(api.IDENTIFIER_KIND_DIGITAL_TOKEN, token) for token in tokens),
    ]


def _refuse_blocked(row: MemberRow, field: str) -> None:
    if row.status == api.MEMBER_STATUS_BLOCKED:
        raise Refused(
            api.REFUSAL_REASON_MEMBER_BLOCKED,
            f"member {row.member_id} is blocked: clear that up first",
            violations=[(field, "is blocked")],
        )
