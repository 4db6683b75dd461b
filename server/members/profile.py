"""Changing what is known of a person: name, birthday, language and phone. Cards have calls of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.booking.append import ChangedMember
from server.base.errors import Refused
from server.members.identifiers import KeyedHash, NormalIdentifier
from server.members.records import MemberRow, lock_present
from server.members.registry import INSERT_IDENTIFIERS, READ_OWNERS, AdminMessage, Raced, Registry, identifier_taken

if TYPE_CHECKING:
    from server.base.database import Connection

# Write what is known of a member; the row is locked already.
UPDATE_PROFILE: Final = """
UPDATE server.member
SET name = $3, birthday = $4, language = $5, phone = $6, further_phones = $7, version = version + 1
WHERE book = $1 AND member_id = $2
"""

# Let a member's identifier lead to nobody, so that others may have it.
DELETE_IDENTIFIER: Final = "DELETE FROM server.member_identifier WHERE identifier_hash = $1 AND member_id = $2"


class ProfileDesk:
    """Changes the personal data of members of one ledger."""

    def __init__(self, registry: Registry, hashes: KeyedHash, books: int) -> None:
        """Take what changes members, and the ledger's number of books."""
        self._registry = registry
        self._hashes = hashes
        self._books = books

    async def change(
        self, message: AdminMessage, member_id: UUID, wanted: member_pb2.ChangeMemberRequest, now: datetime
    ) -> MemberRow:
        """Change those fields that are set in ``wanted``; return the record.

        Raises:
            Refused: NOT_FOUND, MEMBER_MERGED, IDENTIFIER_TAKEN for a phone of somebody else, MESSAGE_ID_REUSED, or
                what is wrong with a field.
        """
        checked = self._checked(wanted, now)

        async def work(conn: Connection) -> ChangedMember | None:
            row = await lock_present(conn, member_id, self._books)
            changed = _changed(row, wanted, checked)
            if changed == row:
                return None
            if changed.phone != row.phone:
                await self._move_phone(conn, row, changed.phone)
            await conn.execute(
                UPDATE_PROFILE,
                *(row.book, member_id, changed.name, changed.birthday, changed.language),
                *(changed.phone, changed.further_phones),
            )
            return ChangedMember(member_id, row.version + 1, now)

        return await self._registry.carry_out(message, member_id, now, work)

    def _checked(self, wanted: member_pb2.ChangeMemberRequest, now: datetime) -> MemberRow:
        """Return the wanted data as that of a new member would be kept."""
        profile = member_pb2.Profile(name=wanted.name, birthday=wanted.birthday, language=wanted.language)
        try:
            return self._registry.candidate(member_pb2.NewMember(profile=profile, phone=wanted.phone), now).row
        except Refused as refused:
            fields = [(field.removeprefix("profile."), text) for field, text in refused.violations]
            message = refused.message.removeprefix("profile.")
            raise Refused(refused.reason, message, violations=fields) from None

    async def _move_phone(self, conn: Connection, row: MemberRow, phone: str | None) -> None:
        """Let the new phone lead to the member, and the old one to nobody, in the order of their hashes."""
        steps: list[tuple[bytes, bool]] = []
        if phone is not None and phone not in row.further_phones:
            steps.append((self._hash(phone), True))
        if row.phone is not None:
            steps.append((self._hash(row.phone), False))
        for identifier_hash, is_new in sorted(steps):
            if not is_new:
                await conn.execute(DELETE_IDENTIFIER, identifier_hash, row.member_id)
                continue
            kind = api.IDENTIFIER_KIND_PHONE
            if await conn.fetch(INSERT_IDENTIFIERS, row.book, [identifier_hash], [kind], [row.member_id]):
                continue
            raise identifier_taken("phone") if await conn.fetchrow(READ_OWNERS, [identifier_hash]) else Raced

    def _hash(self, phone: str) -> bytes:
        return self._hashes.of_identifier(NormalIdentifier(api.IDENTIFIER_KIND_PHONE, phone))


def _changed(row: MemberRow, wanted: member_pb2.ChangeMemberRequest, checked: MemberRow) -> MemberRow:
    """Return the record with the fields that are set in the request."""
    phone = checked.phone if wanted.HasField("phone") else row.phone
    return replace(
        row,
        name=checked.name if wanted.HasField("name") else row.name,
        birthday=checked.birthday if wanted.HasField("birthday") else row.birthday,
        language=checked.language if wanted.HasField("language") else row.language,
        phone=phone,
        further_phones=tuple(one for one in row.further_phones if one != phone),
    )
