"""Writing to the CRM database: the rows of a stretch of entries and the cursor, in one transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from ledger.entry.books import BEFORE_ALL_ENTRIES, genesis_hash
from server.crm.copying import text_of
from server.crm.rows import Rows
from server.crm.source import COMMAND_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS
from server.crm.tables import TABLES, LineRow, MemberRow, PointUnitRow, Table

if TYPE_CHECKING:
    from ledger.reading.books import Identity
    from server.base.database import Connection

FOLLOWING: Final = "following"
REFUSED: Final = "refused"

# Read how far every book has been applied.
READ_CURSORS: Final = """
SELECT book, ledger_id, number, hash, booked_at, state, reason FROM crm.cursor ORDER BY book
"""

# Keep other streams from moving or opening cursors until the transaction ends.
LOCK_CURSORS: Final = "LOCK TABLE crm.cursor IN SHARE ROW EXCLUSIVE MODE"

# Open the cursors of books that have none.
OPEN_CURSORS: Final = """
INSERT INTO crm.cursor (book, ledger_id, number, hash, booked_at, applied_at)
SELECT book, $1, 0, hash, $2, clock_timestamp() FROM unnest($3::integer[], $4::bytea[]) AS u (book, hash)
ON CONFLICT DO NOTHING
"""

# Move a cursor, if it still stands where the reader took it from. It comes first in its transaction, so that a
# second stream waits here and then finds the cursor gone on.
MOVE_CURSOR: Final = """
UPDATE crm.cursor
SET number = $4, hash = $5, booked_at = $6, applied_at = clock_timestamp(), state = 'following', reason = NULL
WHERE book = $1 AND number = $2 AND hash = $3
"""

# Write down why a book has stopped, if nobody has moved it meanwhile.
REFUSE_BOOK: Final = """
UPDATE crm.cursor SET state = 'refused', reason = $4 WHERE book = $1 AND number = $2 AND hash = $3
"""

# Write down that a book goes on.
RESUME_BOOK: Final = """
UPDATE crm.cursor SET state = 'following', reason = NULL WHERE book = $1 AND number = $2 AND hash = $3
"""

# Put members' records in, newer versions over older ones only.
PUT_MEMBERS: Final = """
INSERT INTO crm.member AS m (book, member_id, version, status, name, phone, birthday, language, card_numbers,
                             card_statuses, registered_at)
SELECT $1, r.* FROM jsonb_to_recordset($2::jsonb) AS r (
    member_id uuid, version integer, status text, name text, phone text, birthday date, language text,
    card_numbers text[], card_statuses text[], registered_at timestamptz)
ON CONFLICT (book, member_id) DO UPDATE
SET version = excluded.version, status = excluded.status, name = excluded.name, phone = excluded.phone,
    birthday = excluded.birthday, language = excluded.language, card_numbers = excluded.card_numbers,
    card_statuses = excluded.card_statuses, registered_at = excluded.registered_at
WHERE m.version < excluded.version
"""

# Put point units in; they never change.
PUT_UNITS: Final = """
INSERT INTO crm.point_unit (unit, code, points_precision)
SELECT * FROM unnest($1::smallint[], $2::text[], $3::smallint[]) ON CONFLICT DO NOTHING
"""

# Read the point units.
READ_UNITS: Final = "SELECT unit, code, points_precision FROM crm.point_unit ORDER BY unit"

# Forget members that the ledger's side does not have any more.
DROP_MEMBERS: Final = "DELETE FROM crm.member WHERE book = $1 AND member_id = ANY ($2::uuid[])"


class Cursor(NamedTuple):
    """How far a book has been applied."""

    book: int
    ledger_id: uuid.UUID
    number: int
    hash: bytes
    booked_at: datetime
    state: str
    reason: str | None


class ForeignLedgerError(Exception):
    """This CRM database follows another ledger."""


async def connect_crm(dsn: str) -> Connection:
    """Open a connection to the CRM database.

    Its commits do not wait for the disk: rows and cursor come and go together, so what a crash takes away is simply
    applied again.
    """
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings={"application_name": "tallypoint crm stream", "synchronous_commit": "off"},
    )


async def read_cursors(conn: Connection) -> dict[int, Cursor]:
    """Return the cursor of every book that has one."""
    return {row["book"]: Cursor(*row) for row in await conn.fetch(READ_CURSORS)}


async def open_cursors(conn: Connection, identity: Identity) -> dict[int, Cursor]:
    """Return the cursor of every book of the ledger, opening those that are missing.

    Raises:
        ForeignLedgerError: if this CRM database follows another ledger; nothing is written.
    """
    cursors = await read_cursors(conn)
    if len(cursors) < identity.books:
        async with conn.transaction():
            await conn.execute(LOCK_CURSORS)
            check_identity(await read_cursors(conn), identity)
            books = list(range(identity.books))
            hashes = [genesis_hash(identity.ledger_id, book) for book in books]
            await conn.execute(OPEN_CURSORS, identity.ledger_id, BEFORE_ALL_ENTRIES, books, hashes)
        cursors = await read_cursors(conn)
    check_identity(cursors, identity)
    return cursors


def check_identity(cursors: dict[int, Cursor], identity: Identity) -> None:
    """Refuse a ledger that is not the one whose entries were applied.

    Raises:
        ForeignLedgerError: with the identities of both.
    """
    for cursor in cursors.values():
        if cursor.ledger_id != identity.ledger_id:
            raise ForeignLedgerError(
                f"this CRM database follows the ledger {cursor.ledger_id}, not {identity.ledger_id}: point the "
                f"stream at that ledger, or give this one an empty CRM database"
            )
        if cursor.book >= identity.books:
            raise ForeignLedgerError(
                f"this CRM database has book {cursor.book}, but the ledger has {identity.books} books only"
            )


async def apply(conn: Connection, before: Cursor, after: Cursor, rows: Rows, members: Sequence[MemberRow]) -> bool:
    """Write rows and move the cursor in one transaction.

    Args:
        conn: A connection to the CRM database.
        before: Where the cursor must stand.
        after: Where it goes.
        rows: What the entries between them become.
        members: The current records of ``rows.members``; a member without one is forgotten.

    Returns:
        False, with nothing written, if the cursor does not stand at ``before``: another stream was faster, or the
        database lost its latest commits in a crash.
    """
    async with conn.transaction():
        if not await _move(conn, MOVE_CURSOR, before, after.number, after.hash, after.booked_at):
            return False
        for table in TABLES:
            if table.row is LineRow:
                lines = [line.text(before.book) for line in rows.lines]
            else:
                lines = [f"{before.book}\t{text_of(row)}\n" for row in rows.of[table.row]]
            if lines:
                await _copy(conn, table, lines)
        if rows.members:
            await conn.execute(PUT_MEMBERS, before.book, _members_json(members))
            gone = rows.members.keys() - {member.member_id for member in members}
            if gone:
                await conn.execute(DROP_MEMBERS, before.book, list(gone))
    return True


async def put_units(conn: Connection, units: Sequence[PointUnitRow]) -> None:
    """Write down the point units that are new."""
    await conn.execute(PUT_UNITS, *zip(*units, strict=True))


async def refuse(conn: Connection, cursor: Cursor, reason: str) -> None:
    """Write down why a book has stopped, unless another stream has moved it."""
    await _move(conn, REFUSE_BOOK, cursor, reason)


async def resume(conn: Connection, cursor: Cursor) -> None:
    """Write down that a book goes on."""
    await _move(conn, RESUME_BOOK, cursor)


async def _move(conn: Connection, statement: str, cursor: Cursor, *values: object) -> bool:
    tag = await conn.execute(statement, cursor.book, cursor.number, cursor.hash, *values)
    return tag == "UPDATE 1"


async def _copy(conn: Connection, table: Table, lines: Iterable[str]) -> None:
    async def data() -> AsyncIterator[bytes]:
        yield "".join(lines).encode()

    await conn.copy_to_table(table.name, schema_name="crm", columns=("book", *table.columns), source=data())


def _members_json(members: Iterable[MemberRow]) -> str:
    return json.dumps([member._asdict() for member in members], default=str)
