"""Proof that the CRM database tells the same as the ledger, line by line.

Everything that comes from entries is compared with what the journal's events say, points movements with the ledger's
postings, members with their current records. Both databases may be in use meanwhile: the ledger is read as of one
moment, and the CRM database as of a later one, at which it has applied all that the ledger had.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ledger.reading.books import read_identity
from ledger.reading.journal import BookedPosting, read_entries, read_heads, read_postings
from server.crm import source
from server.crm.rows import ENTRY_KINDS, UnreadableEntryError, known_name, rows_of
from server.crm.source import Names
from server.crm.store import FOLLOWING, READ_UNITS, Cursor, check_identity, read_cursors
from server.crm.tables import TABLES, LineRow, MemberRow, MovementRow, PointUnitRow, Table

if TYPE_CHECKING:
    from ledger.entry.chain import EntryRecord
    from ledger.entry.model import Head
    from server.base.database import Connection

WINDOW_ENTRIES: Final = 500
PAGE_MEMBERS: Final = 1000
MAX_DIFFERENCES: Final = 100
"""How many differences are kept and named; all are counted."""
PATIENCE_SECONDS: Final = 10.0
"""How long to wait for the CRM database to apply what the ledger has."""
_POLL_SECONDS: Final = 0.05
_RECHECKS: Final = 3
_PERSONAL: Final = frozenset(("name", "phone", "birthday", "card_numbers"))


def _select(table: Table) -> str:
    columns, key = ", ".join(table.columns), ", ".join(table.columns[: table.key_length])
    return f"SELECT {columns} FROM crm.{table.name} WHERE book = $1 AND number > $2 AND number <= $3 ORDER BY {key}"  # noqa: S608 - our own names


# Read a stretch of one book's rows from the CRM database, in order.
READ_ROWS: Final = {table: _select(table) for table in TABLES}

# Find a row that no entry up to the cursor can have made.
STRAY_ROW: Final = """
SELECT book, number FROM crm.{table}
WHERE book = $1 AND (number > $2 OR number < 1) OR book < 0 OR book >= $3 ORDER BY book, number LIMIT 1
"""

# Read a page of one book's members, in order, from either side.
PAGE_OF_LEDGER: Final = """
SELECT member_id, version, status, name, phone, birthday, language, card_numbers, card_statuses, registered_at
FROM server.member WHERE book = $1 AND member_id > $2 ORDER BY member_id LIMIT $3
"""
PAGE_OF_CRM: Final = """
SELECT member_id, version, status, name, phone, birthday, language, card_numbers, card_statuses, registered_at
FROM crm.member WHERE book = $1 AND member_id > $2 AND member_id <= $3 ORDER BY member_id
"""

# Read some of one book's members from the CRM database.
MEMBERS_OF_CRM: Final = """
SELECT member_id, version, status, name, phone, birthday, language, card_numbers, card_statuses, registered_at
FROM crm.member WHERE book = $1 AND member_id = ANY ($2::uuid[])
"""

_FIRST_ID: Final = uuid.UUID(int=0)
_LAST_ID: Final = uuid.UUID(int=2**128 - 1)

Progress = Callable[[int, int], None]
"""Told how many entries have been compared, and how many there are."""


class Difference(NamedTuple):
    """One thing that both databases tell differently; ``number`` is 0 for members."""

    book: int
    number: int
    field: str
    ledger: str
    crm: str


@dataclass(slots=True)
class Comparison:
    """What was compared, and the first differences. ``rows`` counts the rows of each table of entries."""

    books: int = 0
    entries: int = 0
    members: int = 0
    rows: dict[str, int] = field(default_factory=lambda: {table.name: 0 for table in TABLES})
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def receipts(self) -> int:
        """How many receipts were compared."""
        return self.rows["receipt"]

    @property
    def lines(self) -> int:
        """How many lines of receipts were compared."""
        return self.rows["receipt_line"]

    @property
    def movements(self) -> int:
        """How many points movements were compared."""
        return self.rows["points_movement"]

    @property
    def equal(self) -> bool:
        """Whether both databases tell the same."""
        return self.difference_count == 0

    def differs(self, book: int, number: int, field: str, ledger: object, crm: object) -> None:
        """Note a difference."""
        self.difference_count += 1
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(Difference(book, number, field, str(ledger), str(crm)))


async def compare(
    ledger_conn: Connection,
    crm_conn: Connection,
    progress: Progress | None = None,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Comparison:
    """Compare everything, in memory that does not grow with the databases.

    Args:
        ledger_conn: The ledger database; a reader's rights are enough.
        crm_conn: The CRM database.
        progress: Told now and then how far it has come.
        patience_seconds: How long to wait for the CRM database to apply what the ledger has; what it lacks then
            is a difference.

    Raises:
        ForeignLedgerError: The CRM database follows another ledger.
    """
    result = Comparison()
    suspects: dict[int, list[uuid.UUID]] = {}
    async with ledger_conn.transaction(isolation="repeatable_read", readonly=True):
        identity = await read_identity(ledger_conn)
        heads = await read_heads(ledger_conn)
        check_identity(await read_cursors(crm_conn), identity)
        await _wait_for(crm_conn, {book: head.number for book, head in heads.items()}, patience_seconds)
        async with crm_conn.transaction(isolation="repeatable_read", readonly=True):
            cursors = await read_cursors(crm_conn)
            names = await source.read_names(ledger_conn)
            await _compare_units(result, names, crm_conn)
            total = sum(head.number for head in heads.values())
            for book, head in heads.items():
                result.books += 1
                upto = _compare_cursor(result, book, head, cursors.get(book))
                for after in range(0, upto, WINDOW_ENTRIES):
                    window = (book, after, min(after + WINDOW_ENTRIES, upto))
                    await _compare_window(result, ledger_conn, crm_conn, window, cursors[book], names)
                    if progress is not None:
                        progress(result.entries, total)
                await _find_strays(result, crm_conn, book, cursors.get(book), identity.books)
                suspects[book] = await _compare_members(result, ledger_conn, crm_conn, book)
    patience_left = patience_seconds if result.equal else 0.0
    await _recheck_members(result, ledger_conn, crm_conn, suspects, patience_left)
    return result


async def _compare_units(result: Comparison, names: Names, crm_conn: Connection) -> None:
    """Compare the point units that the CRM database has; one that is new comes with the next entry."""
    known = {row.unit: row for row in names.units}
    for record in await crm_conn.fetch(READ_UNITS):
        row = PointUnitRow(*record)
        if known.get(row.unit) != row:
            result.differs(0, 0, f"point_unit[{row.unit}]", known.get(row.unit, "missing"), row)


async def _wait_for(crm_conn: Connection, numbers: Mapping[int, int], patience_seconds: float) -> None:
    """Wait until the cursors have come to these numbers, or have stopped, or patience is at its end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_seconds
    while loop.time() < deadline:
        cursors = await read_cursors(crm_conn)
        behind = [
            book
            for book, number in numbers.items()
            if book in cursors and cursors[book].number < number and cursors[book].state == FOLLOWING
        ]
        if not behind and cursors:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _compare_cursor(result: Comparison, book: int, head: Head, cursor: Cursor | None) -> int:
    """Compare a cursor with its head; return the last entry that both sides have."""
    if cursor is None:
        result.differs(book, head.number, "cursor", f"entry {head.number}", "no cursor")
        return 0
    if cursor.number < head.number:
        result.differs(book, cursor.number + 1, "cursor.number", head.number, cursor.number)
    if cursor.number == head.number and cursor.hash != head.hash:
        result.differs(book, cursor.number, "cursor.hash", head.hash.hex(), cursor.hash.hex())
    if cursor.state != FOLLOWING:
        result.differs(book, cursor.number, "cursor.state", FOLLOWING, f"{cursor.state}: {cursor.reason}")
    return min(head.number, cursor.number)


async def _compare_window(
    result: Comparison,
    ledger_conn: Connection,
    crm_conn: Connection,
    window: tuple[int, int, int],
    cursor: Cursor,
    names: Names,
) -> None:
    """Compare the entries ``after < number <= last`` of a book."""
    book, after, last = window
    (entries, postings), found = await asyncio.gather(_read_ledger(ledger_conn, window), _read_crm(crm_conn, window))
    for number, entry in enumerate(entries, start=after + 1):
        if entry.number != number:
            result.differs(book, number, "entry", "missing", "applied")
            break
        if number == cursor.number and entry.hash != cursor.hash:
            result.differs(book, number, "cursor.hash", entry.hash.hex(), cursor.hash.hex())
    if len(entries) < last - after:
        result.differs(book, after + 1, "entry", f"{len(entries)} entries", f"{last - after} applied")
    try:
        expected = rows_of(entries, names.partners)
    except UnreadableEntryError as error:
        result.differs(book, after + 1, "entry", error, "applied")
        return
    expected.of[LineRow] = [line.row() for line in expected.lines]
    expected.of[MovementRow] = [_movement(posting, names.partners) for posting in postings]
    result.entries += len(entries)
    for table in TABLES:
        result.rows[table.name] += len(found[table])
        _compare_rows(result, book, table, expected.of[table.row], found[table])


async def _read_ledger(conn: Connection, window: tuple[int, int, int]) -> tuple[list[EntryRecord], list[BookedPosting]]:
    book, after, last = window
    return await read_entries(conn, book, after, last - after), await read_postings(conn, *window)


def _movement(posting: BookedPosting, partners: Mapping[int, str]) -> tuple[Any, ...]:
    """Return a posting as the CRM database has it; what has no name there shows its number."""
    named: dict[str, Any] = {
        "debit": known_name(posting.debit, partners),
        "credit": known_name(posting.credit, partners),
        "kind": ENTRY_KINDS.get(posting.kind, posting.kind),
    }
    return MovementRow(**posting._asdict() | named)


async def _read_crm(conn: Connection, window: tuple[int, int, int]) -> dict[Table, list[tuple[Any, ...]]]:
    return {table: [tuple(row) for row in await conn.fetch(READ_ROWS[table], *window)] for table in TABLES}


def _compare_rows(
    result: Comparison,
    book: int,
    table: Table,
    expected: Sequence[tuple[Any, ...]],
    found: Sequence[tuple[Any, ...]],
) -> None:
    """Compare rows; the first column is the entry's number."""
    key_length = table.key_length
    expected = sorted(expected, key=lambda row: row[:key_length])
    if expected == found:
        return
    ours = {row[:key_length]: row for row in expected}
    theirs = {row[:key_length]: row for row in found}
    for key in sorted(ours.keys() | theirs.keys()):
        name = table.name if key_length == 1 else f"{table.name}[{key[-1]}]"
        ledger, crm = ours.get(key), theirs.get(key)
        if ledger is None or crm is None:
            result.differs(book, key[0], name, *("missing" if row is None else "present" for row in (ledger, crm)))
            continue
        for column, a, b in zip(table.columns, ledger, crm, strict=True):
            # PostgreSQL may write the same JSON as another text.
            if a != b and not (column == "promotions" and json.loads(a) == json.loads(b)):
                result.differs(book, key[0], f"{name}.{column}", a, b)


async def _find_strays(result: Comparison, crm_conn: Connection, book: int, cursor: Cursor | None, books: int) -> None:
    """Find rows that no entry has made."""
    number = cursor.number if cursor is not None else 0
    for table in TABLES:
        row = await crm_conn.fetchrow(STRAY_ROW.format(table=table.name), book, number, books)
        if row is not None and (row["book"] == book or book == 0):
            result.differs(row["book"], row["number"], table.name, "missing", "present")


async def _compare_members(
    result: Comparison, ledger_conn: Connection, crm_conn: Connection, book: int
) -> list[uuid.UUID]:
    """Compare a book's members; return those that differ, perhaps only because they changed meanwhile."""
    suspects: list[uuid.UUID] = []
    after = _FIRST_ID
    while True:
        page = await ledger_conn.fetch(PAGE_OF_LEDGER, book, after, PAGE_MEMBERS)
        last = page[-1]["member_id"] if len(page) == PAGE_MEMBERS else _LAST_ID
        ledger = [source.member_row(record) for record in page]
        crm = [MemberRow(*record) for record in await crm_conn.fetch(PAGE_OF_CRM, book, after, last)]
        result.members += len(ledger)
        if ledger != crm:
            suspects += [member_id for member_id, a, b in _pairs(ledger, crm) if a != b]
        if last == _LAST_ID:
            return suspects
        after = last


def _pairs(
    ledger: Iterable[MemberRow], crm: Iterable[MemberRow]
) -> list[tuple[uuid.UUID, MemberRow | None, MemberRow | None]]:
    ours = {row.member_id: row for row in ledger}
    theirs = {row.member_id: row for row in crm}
    ids = sorted(ours.keys() | theirs.keys())
    return [(member_id, ours.get(member_id), theirs.get(member_id)) for member_id in ids]


async def _recheck_members(
    result: Comparison,
    ledger_conn: Connection,
    crm_conn: Connection,
    suspects: Mapping[int, list[uuid.UUID]],
    patience_seconds: float,
) -> None:
    """Look again at members that differed: a record that changed between the two readings is no difference.

    The ledger's record is read first, then its head, then the CRM's record once that head is applied: so the CRM must
    have at least that version. Where it has a newer one, the record changed once more, and is looked at again.
    """
    for book, differing in suspects.items():
        ids = differing
        for attempt in range(1, _RECHECKS + 1):
            if not ids:
                break
            ledger = await source.read_members(ledger_conn, book, ids)
            head = (await read_heads(ledger_conn))[book]
            await _wait_for(crm_conn, {book: head.number}, patience_seconds)
            crm = [MemberRow(*record) for record in await crm_conn.fetch(MEMBERS_OF_CRM, book, ids)]
            ids = []
            for member_id, ours, theirs in _pairs(ledger, crm):
                newer = theirs is not None and (ours is None or theirs.version > ours.version)
                if newer and attempt < _RECHECKS:
                    ids.append(member_id)
                elif ours != theirs:
                    _name_member_differences(result, book, member_id, ours, theirs)


def _name_member_differences(
    result: Comparison, book: int, member_id: uuid.UUID, ledger: MemberRow | None, crm: MemberRow | None
) -> None:
    """Name a member's differences without showing personal data."""
    name = f"member[{member_id}]"
    if ledger is None or crm is None:
        result.differs(book, 0, name, *("missing" if row is None else "present" for row in (ledger, crm)))
        return
    for column, a, b in zip(MemberRow._fields, ledger, crm, strict=True):
        if a != b:
            shown = ("(personal)", "(personal)") if column in _PERSONAL else (a, b)
            result.differs(book, 0, f"{name}.{column}", *shown)
