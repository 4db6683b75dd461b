"""Proving the books: chains, sums and caches recomputed from the first entry, and the first bad entry named.

A book is read in one snapshot, so verification runs while the service books on.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import asyncpg
from google.protobuf.message import DecodeError
from tallypoint.v1 import journal_pb2

from ledger.books import BEFORE_ALL_ENTRIES, genesis_hash
from ledger.caches import BookCaches, JournalError, postings_of
from ledger.journal import EntryRecord, read_entries, read_heads, read_ledger_id
from ledger.keys import business_key
from ledger.model import ISSUED, REDEEMED, Head, PostingRow

CHUNK_ENTRIES = 2000
"""Entries read at once; a chunk of large receipts takes some tens of megabytes."""

_KINDS: Mapping[str | None, int] = {
    "purchase": int(journal_pb2.ENTRY_KIND_PURCHASE),
    "member_change": int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE),
}

# Read the postings of a stretch of one book.
READ_POSTINGS = """
SELECT number, ordinal, unit, debit, credit, points_minor, lot_number, lot_ordinal, member_id, active_at, expires_at
FROM ledger.posting WHERE book = $1 AND number > $2 AND number <= $3 ORDER BY number, ordinal
"""

# Read postings beyond the head: there must be none.
READ_STRAY_POSTING = "SELECT min(number) FROM ledger.posting WHERE book = $1 AND (number > $2 OR number < 1)"

# Read a book's cached balances.
READ_BALANCES = """
SELECT member_id, unit, available_minor, pending_minor, held_minor, debt_minor, next_change_at
FROM ledger.balance WHERE book = $1
"""

# Read a book's cached lots.
READ_LOTS = """
SELECT member_id, unit, number, ordinal, granted_minor, remaining_minor, pending, active_at, expires_at
FROM ledger.lot WHERE book = $1
"""

# Read a book's cached totals.
READ_TOTALS = "SELECT booked_on, unit, account, debit_minor, credit_minor FROM ledger.account_total WHERE book = $1"

# Read the receipt keys booked in a book.
READ_RECEIPT_KEYS = "SELECT business_key, content_hash, number FROM ledger.receipt_key WHERE book = $1"

# Read the message ids booked in a book; old ones may be gone.
READ_MESSAGE_KEYS = "SELECT message_id, content_hash, number FROM ledger.message_key WHERE book = $1"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. ``number`` is the first bad entry; zero speaks of the book's caches."""

    book: int
    number: int
    what: str

    def __str__(self) -> str:
        """Return a sentence for people."""
        place = f"book {self.book}, entry {self.number}" if self.number else f"book {self.book}, caches"
        return f"{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class BookReport:
    """What verification found in one book; ``problem`` is None for a sound one."""

    book: int
    entries: int
    postings: int
    hash: bytes
    problem: Problem | None


Progress = Callable[[int], None]
"""Told how many more entries were checked."""

Connect = Callable[[], Awaitable[asyncpg.Connection]]


async def verify(conn: asyncpg.Connection, progress: Progress = lambda _entries: None) -> list[BookReport]:
    """Verify all books over a connection with the reader's rights; one report a book, in order."""
    ledger_id = await read_ledger_id(conn)
    books = sorted(await read_heads(conn))
    return [await verify_book(conn, ledger_id, book, progress) for book in books]


async def verify_book(
    conn: asyncpg.Connection, ledger_id: uuid.UUID, book: int, progress: Progress = lambda _entries: None
) -> BookReport:
    """Verify one book in one snapshot."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        walk = _Walk(book, Head(0, genesis_hash(ledger_id, book), BEFORE_ALL_ENTRIES))
        problem = await walk.entries(conn, progress)
        if problem is None:
            problem = await walk.compare(conn)
        return BookReport(book, walk.at.number, walk.postings, walk.at.hash, problem)


class _Bad(Exception):
    """An entry is not what it should be."""


class _Walk:
    """One pass over a book, from the genesis hash to the head."""

    def __init__(self, book: int, genesis: Head) -> None:
        self.book = book
        self.at = genesis
        self.postings = 0
        self.caches = BookCaches(book)

    async def entries(self, conn: asyncpg.Connection, progress: Progress) -> Problem | None:
        """Check every entry; stop at the first bad one."""
        while chunk := await read_entries(conn, self.book, self.at.number, CHUNK_ENTRIES):
            rows = postings_by_number(await conn.fetch(READ_POSTINGS, self.book, self.at.number, chunk[-1].number))
            for entry in chunk:
                try:
                    self._entry(entry, rows.pop(entry.number, []))
                except (_Bad, JournalError, ValueError) as error:
                    return Problem(self.book, self.at.number + 1, str(error))
            for number in sorted(rows):
                return Problem(self.book, number, "there are postings, but no such entry")
            progress(len(chunk))
        return None

    def _entry(self, entry: EntryRecord, rows: list[PostingRow]) -> None:
        if entry.number != self.at.number + 1:
            raise _Bad(f"the entry is missing: after {self.at.number} comes {entry.number}")
        if entry.booked_at <= self.at.booked_at:
            raise _Bad("it is not later than the entry before it")
        if entry.hash_after(self.at.hash) != entry.hash:
            raise _Bad("its hash does not follow from the entry before it and its own content")
        event = _event_of(entry)
        recorded = postings_of(event, entry.number, entry.member_id)
        if rows != recorded:
            raise _Bad(f"its {len(rows)} postings differ from the {len(recorded)} that it records")
        self.caches.apply(entry, rows)
        self.postings += len(rows)
        self.at = Head(entry.number, entry.hash, entry.booked_at)

    async def compare(self, conn: asyncpg.Connection) -> Problem | None:
        """Compare head and caches with what the entries say."""
        head = (await read_heads(conn))[self.book]
        if head != self.at:
            first = min(head.number, self.at.number) + 1
            return Problem(self.book, first, f"the head says {head.number} entries, the journal has {self.at.number}")
        stray = await conn.fetchval(READ_STRAY_POSTING, self.book, head.number)
        if stray is not None:
            return Problem(self.book, stray, "there are postings, but no such entry")
        self.caches.settle()
        for name, expected, actual in await self._pairs(conn):
            difference = _first_difference(name, expected, actual)
            if difference is not None:
                return Problem(self.book, 0, f"{difference}; `tallypoint ledger rebuild` writes the caches anew")
        return None

    async def _pairs(self, conn: asyncpg.Connection) -> list[tuple[str, dict[Any, Any], dict[Any, Any]]]:
        """Return each cache as it should be and as it is."""
        caches = self.caches
        messages = {row[0]: (row[1], row[2]) for row in await conn.fetch(READ_MESSAGE_KEYS, self.book)}
        return [
            (
                "balance",
                {
                    key: (a.available_minor, a.pending_minor, a.held_minor, a.debt_minor, a.next_change_at)
                    for key, a in caches.accounts.items()
                },
                {(row[0], row[1]): tuple(row)[2:] for row in await conn.fetch(READ_BALANCES, self.book)},
            ),
            (
                "lot",
                {
                    (*key, lot.number, lot.ordinal): (
                        lot.granted_minor,
                        lot.remaining_minor,
                        lot.pending,
                        lot.active_at,
                        lot.expires_at,
                    )
                    for (key, _, _), lot in caches.lots.items()
                },
                {tuple(row)[:4]: tuple(row)[4:] for row in await conn.fetch(READ_LOTS, self.book)},
            ),
            (
                "total",
                {key: tuple(pair) for key, pair in caches.totals.items()},
                {tuple(row)[:3]: tuple(row)[3:] for row in await conn.fetch(READ_TOTALS, self.book)},
            ),
            (
                "receipt key",
                {key: (record.content_hash, record.number) for key, record in caches.receipts.items()},
                {row[0]: (row[1], row[2]) for row in await conn.fetch(READ_RECEIPT_KEYS, self.book)},
            ),
            (
                "message id",
                {
                    key: (record.content_hash, record.number)
                    for key, record in caches.messages.items()
                    if key in messages
                },
                messages,
            ),
        ]


def postings_by_number(rows: list[asyncpg.Record]) -> dict[int, list[PostingRow]]:
    """Sort posting rows by the entries that they belong to."""
    found: dict[int, list[PostingRow]] = {}
    for row in rows:
        found.setdefault(row["number"], []).append(PostingRow(*row))
    return found


def _event_of(entry: EntryRecord) -> journal_pb2.Event:
    """Parse an entry's payload and hold its columns against it."""
    try:
        event = journal_pb2.Event.FromString(entry.payload)
    except DecodeError as error:
        raise _Bad("its payload cannot be read") from error
    which = event.WhichOneof("event")
    if entry.kind != _KINDS.get(which):
        raise _Bad(f"its kind is {entry.kind}, and its payload is of {which}")
    body: Any = getattr(event, which or "purchase")
    if (str(entry.member_id) if entry.member_id else "") != body.member_id:
        raise _Bad("its member is not the one in its payload")
    if which == "purchase":
        purchase = event.purchase
        if entry.business_key != business_key(purchase.receipt_key):
            raise _Bad("its key is not that of the receipt in its payload")
        if entry.event_at != purchase.receipt.event_at.ToDatetime(tzinfo=UTC):
            raise _Bad("its time is not that of the receipt in its payload")
        spent = sum(p.points_minor for p in event.postings if p.credit == REDEEMED)
        earned = sum(p.points_minor for p in event.postings if p.debit == ISSUED)
        if (spent, earned) != (event.settlement.spent_points_minor, event.settlement.accrual_points_minor):
            raise _Bad("its settlement does not say what its postings do")
    return event


def _first_difference(name: str, expected: dict[Any, Any], actual: dict[Any, Any]) -> str | None:
    for key in expected.keys() | actual.keys():
        if expected.get(key) != actual.get(key):
            label = "/".join(part.hex() if isinstance(part, bytes) else str(part) for part in _parts(key))
            return f"{name} {label} is {actual.get(key)}, and the journal says {expected.get(key)}"
    return None


def _parts(key: object) -> Iterator[object]:
    if isinstance(key, tuple):
        yield from key
    else:
        yield key
