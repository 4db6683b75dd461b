"""Reading the ledger for the CRM stream, and proving that what was read extends what was applied."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from ledger.reading.books import read_units
from ledger.reading.partners import read_partner_codes
from server.crm.rows import CARD_STATUSES, MEMBER_STATUSES
from server.crm.tables import MemberRow, PointUnitRow

if TYPE_CHECKING:
    from ledger.entry.chain import EntryRecord
    from ledger.entry.model import Head
    from server.base.database import Connection
    from server.crm.store import Cursor

READER_ROLE: Final = "tallypoint_reader"
COMMAND_TIMEOUT_SECONDS: Final = 30.0
"""A statement that takes longer counts as a lost connection, so that a dead peer stalls nothing for ever."""
CONNECT_TIMEOUT_SECONDS: Final = 5.0

# Whole records of members of one book.
READ_MEMBERS: Final = """
SELECT member_id, version, status, name, phone, birthday, language, card_numbers, card_statuses, registered_at
FROM server.member WHERE book = $1 AND member_id = ANY ($2::uuid[])
"""


class SourceRefusedError(Exception):
    """The ledger does not extend what was applied; nothing of it is taken until somebody has looked."""


class Names(NamedTuple):
    """What numbers in postings stand for: the point units, and the partners' codes by their accounts."""

    units: list[PointUnitRow]
    partners: dict[int, str]


async def connect_ledger(dsn: str) -> Connection:
    """Open a connection to the ledger with a reader's rights only."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings={"role": READER_ROLE, "application_name": "tallypoint crm stream"},
    )


async def read_members(conn: Connection, book: int, member_ids: Collection[uuid.UUID]) -> list[MemberRow]:
    """Return the current records of those members of a book that there are."""
    return [member_row(record) for record in await conn.fetch(READ_MEMBERS, book, list(member_ids))]


async def read_names(conn: Connection) -> Names:
    """Return what the numbers in entries read before stand for."""
    units = sorted(PointUnitRow(*unit) for unit in (await read_units(conn)).values())
    return Names(units, await read_partner_codes(conn))


def member_row(record: asyncpg.Record) -> MemberRow:
    """Return a row of ``server.member`` as the CRM database has it."""
    return MemberRow(
        record["member_id"],
        record["version"],
        MEMBER_STATUSES[record["status"]],
        record["name"],
        record["phone"],
        record["birthday"],
        record["language"],
        record["card_numbers"],
        [CARD_STATUSES[status] for status in record["card_statuses"]],
        record["registered_at"],
    )


def check_head(cursor: Cursor, head: Head) -> None:
    """Refuse a book whose head is behind the cursor, or beside it. ``head`` must be read after ``cursor``.

    Raises:
        SourceRefusedError: The ledger was rolled back or replaced.
    """
    if head.number < cursor.number:
        raise SourceRefusedError(
            f"book {cursor.book} of the ledger ends at entry {head.number}, but entry {cursor.number} has been "
            f"applied: the ledger was rolled back"
        )
    if head.number == cursor.number and head.hash != cursor.hash:
        raise SourceRefusedError(
            f"entry {cursor.number} of book {cursor.book} is not the one that was applied: its hash differs"
        )


def check_chain(cursor: Cursor, entries: Sequence[EntryRecord], expected: bool) -> Cursor:
    """Prove that entries follow the cursor without a gap, each by its recomputed hash.

    Args:
        cursor: What has been applied.
        entries: What the ledger has after it, in order.
        expected: Whether the ledger's head promised at least one entry.

    Returns:
        The cursor after the entries.

    Raises:
        SourceRefusedError: with the book and number of the first entry that is missing or does not fit.
    """
    if expected and not entries:
        raise SourceRefusedError(f"entry {cursor.number + 1} of book {cursor.book} is missing from the ledger")
    number, digest, booked_at = cursor.number, cursor.hash, cursor.booked_at
    for entry in entries:
        number += 1
        if entry.number != number:
            raise SourceRefusedError(
                f"entry {number} of book {cursor.book} is missing from the ledger: {entry.number} follows {number - 1}"
            )
        digest = entry.hash_after(digest)
        if digest != entry.hash:
            raise SourceRefusedError(
                f"entry {number} of book {cursor.book} does not extend the chain: its stored hash is not the one that "
                f"its content and the entry before it give"
            )
        booked_at = entry.booked_at
    return cursor._replace(number=number, hash=digest, booked_at=booked_at)
