"""Finding the members that the rows of a batch name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from tallypoint.v1 import common_pb2 as api

from ledger.entry.books import book_of_member
from server.base.errors import Refused
from server.edge.validation import check
from server.members.identifiers import IdentifierReader, KeyedHash

if TYPE_CHECKING:
    from server.base.database import Connection

# Who owns identifiers.
READ_OWNERS: Final = """
SELECT identifier_hash, book, member_id FROM server.member_identifier WHERE identifier_hash = ANY ($1::bytea[])
"""

# Which of these members there are, and into whom they were merged.
READ_MEMBERS: Final = """
SELECT m.member_id, m.merged_into
FROM unnest($1::integer[], $2::uuid[]) AS wanted (book, member_id)
JOIN server.member m ON m.book = wanted.book AND m.member_id = wanted.member_id
"""

# The same, and nobody merges them until the transaction ends. In the order in which a merge takes its two.
LOCK_MEMBERS: Final = READ_MEMBERS + "ORDER BY m.member_id FOR KEY SHARE OF m"


class Person(NamedTuple):
    """A member, as tables are keyed."""

    book: int
    member_id: UUID


class MemberFinder:
    """Finds members by any identifier, blocked ones too; whoever was merged into another one stands for that one."""

    def __init__(self, reader: IdentifierReader, hashes: KeyedHash, books: int) -> None:
        """Take what reads and hashes identifiers, and the ledger's number of books."""
        self._reader = reader
        self._hashes = hashes
        self._books = books

    async def find(
        self, conn: Connection, identifiers: Mapping[int, api.Identifier], *, field: str = "member", lock: bool = False
    ) -> tuple[dict[int, Person], dict[int, Refused]]:
        """Return who is named by each key, and why nobody is; with `lock`, nobody merges them meanwhile.

        The field at fault is named from the row on: `field` is the row's field with the identifier.
        """
        hashes: dict[int, list[bytes]] = {}
        ids: dict[int, UUID] = {}
        refused: dict[int, Refused] = {}
        for key, identifier in identifiers.items():
            try:
                check(identifier)
                normal, *former = self._reader.forms(identifier)
            except Refused as refusal:
                refused[key] = _with_row_fields(refusal, field)
                continue
            if normal.kind == api.IDENTIFIER_KIND_MEMBER_ID:
                ids[key] = UUID(normal.value)
            else:
                hashes[key] = [self._hashes.of_identifier(form) for form in (normal, *former)]
        owners = await self._owners(conn, chain.from_iterable(hashes.values())) if hashes else {}
        ids.update((key, owners[one]) for key, forms in hashes.items() for one in reversed(forms) if one in owners)
        present = await self._present(conn, set(ids.values()), lock=lock)
        people = {key: self._person(present[one]) for key, one in ids.items() if one in present}
        unknown = set(identifiers) - set(people) - set(refused)
        refused.update((key, _not_found(field)) for key in unknown)
        return people, refused

    async def find_one(self, conn: Connection, identifier: api.Identifier, field: str = "identifier") -> Person:
        """Return the member that an identifier names; Refused NOT_FOUND, or what is wrong with the identifier."""
        people, refused = await self.find(conn, {0: identifier}, field=field)
        if 0 in refused:
            raise refused[0]
        return people[0]

    async def _owners(self, conn: Connection, hashes: Iterable[bytes]) -> dict[bytes, UUID]:
        return {row["identifier_hash"]: row["member_id"] for row in await conn.fetch(READ_OWNERS, list(set(hashes)))}

    async def _present(self, conn: Connection, ids: set[UUID], *, lock: bool) -> dict[UUID, UUID]:
        """Return by each member's id the id that it stands for."""
        present: dict[UUID, UUID] = {}
        query = LOCK_MEMBERS if lock else READ_MEMBERS
        wanted: Sequence[UUID] = sorted(ids)
        stands_for = {one: one for one in wanted}
        while wanted:
            rows = await conn.fetch(query, [book_of_member(one, self._books) for one in wanted], wanted)
            into = {row["member_id"]: row["merged_into"] for row in rows}
            present.update((one, end) for one, end in stands_for.items() if end in into and into[end] is None)
            stands_for = {one: into[end] for one, end in stands_for.items() if into.get(end) is not None}
            wanted = sorted(set(stands_for.values()))
        return present

    def _person(self, member_id: UUID) -> Person:
        return Person(book_of_member(member_id, self._books), member_id)


def _not_found(field: str) -> Refused:
    fault = "is nobody's: correct it, or register the member first"
    return Refused(api.REFUSAL_REASON_NOT_FOUND, "no member has this identifier", violations=[(field, fault)])


def _with_row_fields(refusal: Refused, field: str) -> Refused:
    """Name the fields of a refused identifier from the row on."""
    named = [(name.replace("identifier", field, 1), text) for name, text in refusal.violations]
    whole = [(name if name.startswith(field) else f"{field}.{name}" if name else field, text) for name, text in named]
    return Refused(refusal.reason, refusal.message, violations=whole)
