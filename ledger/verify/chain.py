"""Following a book's chain: every entry checked by itself, and the journal of some members followed apart from it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg
from google.protobuf.message import DecodeError
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.caches.points import BookCaches, lots_given_back, postings_of
from ledger.entry.chain import EntryRecord
from ledger.entry.model import Head, LotTerms, PostingRow, Unit
from ledger.reading.journal import Loss, lost_by_lot, read_entries, read_lost, read_lot_terms, read_payloads
from ledger.verify.entries import PURCHASE, RETURN, check_settlement, check_units, event_of, unit_of
from ledger.verify.goods_returns import ReturnChecks
from ledger.verify.report import BadEntry
from ledger.verify.spending import check_spending
from ledger.verify.uses import UsageChecks, check_partners, check_usage

CHUNK_ENTRIES = 2000
"""Entries read at once; a chunk of large receipts takes some tens of megabytes."""

_POSTING_COLUMNS = ", ".join(PostingRow._fields)

# Read the postings of a stretch of one book.
READ_POSTINGS = f"""
SELECT {_POSTING_COLUMNS} FROM ledger.posting WHERE book = $1 AND number > $2 AND number <= $3 ORDER BY number, ordinal
"""  # noqa: S608 - our own names

# Read the postings of some entries of one book.
READ_POSTINGS_OF = f"""
SELECT {_POSTING_COLUMNS} FROM ledger.posting WHERE book = $1 AND number = ANY ($2) ORDER BY number, ordinal
"""  # noqa: S608 - our own names

# Read the entries of some members of one book, in order.
READ_ENTRIES_OF = f"""
SELECT {", ".join(EntryRecord._fields)} FROM ledger.entry
WHERE book = $1 AND member_id = ANY ($2) AND number > $3 AND number <= $4 ORDER BY number LIMIT $5
"""  # noqa: S608 - our own names


async def read_postings(
    conn: asyncpg.Connection, book: int, after_number: int, last_number: int
) -> dict[int, list[PostingRow]]:
    """Return the postings of a stretch of one book, in order, by the numbers of their entries."""
    return _by_number(await conn.fetch(READ_POSTINGS, book, after_number, last_number))


def _by_number(rows: Iterable[asyncpg.Record]) -> dict[int, list[PostingRow]]:
    found: dict[int, list[PostingRow]] = {}
    for row in rows:
        found.setdefault(row["number"], []).append(PostingRow(*row))
    return found


class Checked(NamedTuple):
    """An entry that is sound by itself; for a return with the payload of the entry that it names as its purchase.

    And with what has lapsed out of that purchase's lots, or was taken by hand, up to the return, by the lot's ordinal.
    """

    entry: EntryRecord
    event: journal_pb2.Event
    postings: list[PostingRow]
    purchase: journal_pb2.Event | None = None
    lost: Mapping[int, int] = {}


@dataclass(slots=True)
class _Chunk:
    """Entries with what stands beside them and what they point to."""

    entries: Sequence[EntryRecord]
    postings: Mapping[int, list[PostingRow]]
    terms: Mapping[tuple[int, int], LotTerms]
    purchases: Mapping[int, journal_pb2.Event]
    lost: Mapping[int, list[Loss]]


class Chain:
    """Follows one book, entry by entry, from ``at`` on.

    ``at`` is the last entry that was found sound, ``at_hand`` the number of the one that is looked at.
    """

    def __init__(self, conn: asyncpg.Connection, book: int, books: int, at: Head) -> None:
        self.book = book
        self.at = at
        self.at_hand = at.number
        self.terms: dict[tuple[int, int], LotTerms] = {}
        """The terms of lots to which the entries at hand give points back."""
        self._conn = conn
        self._books = books

    async def entries(self) -> AsyncIterator[Checked]:
        """Yield every entry after ``at``, checked by itself; ``at`` moves on once the consumer asks for the next.

        Raises:
            BadEntry: at the first that is not what it should be.
        """
        while entries := await read_entries(self._conn, self.book, self.at.number, CHUNK_ENTRIES):
            rows = await read_postings(self._conn, self.book, self.at.number, entries[-1].number)
            for checked in self._checked(await _chunk_with_context(self._conn, self.book, entries, rows), chained=True):
                yield checked
                entry = checked.entry
                self.at = Head(entry.number, entry.hash, entry.booked_at)

    async def entries_of(self, members: Collection[uuid.UUID], last_number: int) -> AsyncIterator[Checked]:
        """Yield the entries of some members up to ``last_number``, each checked by itself, but not the chain.

        Raises:
            BadEntry: at the first that is not what it should be.
        """
        number = 0
        while rows := await self._conn.fetch(
            READ_ENTRIES_OF, self.book, list(members), number, last_number, CHUNK_ENTRIES
        ):
            entries = [EntryRecord(*row) for row in rows]
            numbers = [entry.number for entry in entries]
            postings = _by_number(await self._conn.fetch(READ_POSTINGS_OF, self.book, numbers))
            for checked in self._checked(
                await _chunk_with_context(self._conn, self.book, entries, postings), chained=False
            ):
                yield checked
            number = entries[-1].number

    def _checked(self, chunk: _Chunk, *, chained: bool) -> Iterable[Checked]:
        self.terms.clear()
        self.terms.update(chunk.terms)
        for entry in chunk.entries:
            self.at_hand = self.at.number + 1 if chained else entry.number
            if chained:
                self._check_place(entry)
            rows = chunk.postings.get(entry.number, [])
            event = check_entry(entry, rows, self._books)
            if entry.kind != RETURN:
                yield Checked(entry, event, rows)
                continue
            bought = event.goods_return.purchase_number
            lost = [loss for loss in chunk.lost.get(bought, ()) if loss.number <= entry.number]
            yield Checked(entry, event, rows, chunk.purchases.get(bought), lost_by_lot(lost))

    def _check_place(self, entry: EntryRecord) -> None:
        if entry.number != self.at.number + 1:
            raise BadEntry(f"the entry is missing: after {self.at.number} comes {entry.number}")
        if entry.booked_at <= self.at.booked_at:
            raise BadEntry("it is not later than the entry before it")
        if entry.hash_after(self.at.hash) != entry.hash:
            raise BadEntry("its hash does not follow from the entry before it and its own content")


def check_entry(entry: EntryRecord, rows: list[PostingRow], books: int) -> journal_pb2.Event:
    """Check an entry and its postings' rows by themselves, in a ledger of ``books`` books; return its event.

    Raises:
        BadEntry: if they do not say the same.
    """
    try:
        event = event_of(entry, books)
        recorded = postings_of(event, entry.number, entry.member_id)
    except ValueError as error:
        raise BadEntry(f"its payload makes no sense: {error}") from error
    if rows != recorded:
        raise BadEntry(f"its {len(rows)} postings differ from the {len(recorded)} that it records")
    check_settlement(event, entry.kind, rows)
    check_usage(event, entry.kind)
    if entry.kind == PURCHASE:
        check_spending(event)
    return event


async def _chunk_with_context(
    conn: asyncpg.Connection, book: int, entries: Sequence[EntryRecord], postings: Mapping[int, list[PostingRow]]
) -> _Chunk:
    given_back = lots_given_back(posting for each in postings.values() for posting in each)
    purchases: dict[int, journal_pb2.Event] = {}
    wanted = {number for entry in entries if entry.kind == RETURN for number in _purchase_of(entry)}
    for (_, number), stored in (await read_payloads(conn, [(book, number) for number in wanted])).items():
        try:
            purchases[number] = journal_pb2.Event.FromString(stored.event)
        except DecodeError:
            continue  # it is named where it stands
    members = {number: e.member_id for e in entries if e.kind == RETURN and e.member_id for number in _purchase_of(e)}
    lost = await read_lost(conn, book, members)
    return _Chunk(entries, postings, await read_lot_terms(conn, book, given_back), purchases, lost)


def _purchase_of(entry: EntryRecord) -> list[int]:
    """Return the number of the purchase that a return names, if it is one before it."""
    try:
        number = journal_pb2.Event.FromString(entry.payload).goods_return.purchase_number
    except DecodeError:
        return []
    return [number] if 0 < number < entry.number else []


class Recomputation:
    """The caches that follow from entries taken in order, and what the entries told people, held against them."""

    def __init__(
        self,
        book: int,
        terms: dict[tuple[int, int], LotTerms],
        units: Mapping[str, Unit],
        partners: Mapping[str, int],
        *,
        whole: bool = True,
    ) -> None:
        """Begin with empty caches; ``terms`` is kept filled for the entries at hand by whoever reads them.

        ``partners`` are the accounts of partners by their codes. ``whole`` says that all entries of the book will be
        taken, and not only those of some members.
        """
        self.caches = BookCaches(book, terms=terms)
        self.caches.usage.whole = whole
        self._units = units
        self._partners = partners
        self._returns = ReturnChecks()
        self._uses_back = UsageChecks()

    def take(self, checked: Checked) -> None:
        """Take in the next entry.

        Raises:
            BadEntry, JournalError: if it cannot follow the entries before it.
        """
        entry, event, postings, purchase, lost = checked
        self.caches.apply(entry, event, postings)
        check_partners(event, entry.kind, postings, self._partners)
        if entry.kind == RETURN:
            self._returns.check(event, purchase, self._units, lost)
            as_of = min(entry.booked_at, entry.event_at)
            self._uses_back.check(event, purchase or journal_pb2.Event(), as_of)
        if event.settlement.HasField("balance"):
            check_units(event, entry.kind, postings, self._units)
            for balance in (event.settlement.balance, *(each.balance for each in event.settlement.units)):
                self._check_balance(entry, balance)

    def _check_balance(self, entry: EntryRecord, balance: common_pb2.Balance) -> None:
        key = (entry.member_id, unit_of(balance, self._units).number)
        account = self.caches.accounts.get((key[0], key[1])) if key[0] is not None else None
        told = (
            balance.available_points_minor,
            balance.pending_points_minor,
            balance.held_points_minor,
            balance.debt_points_minor,
        )
        have = (0, 0, 0, 0)
        if account is not None:
            have = (account.available_minor, account.pending_minor, account.held_minor, account.debt_minor)
        if told != have:
            raise BadEntry(
                f"it tells a balance of {told} (available, pending, held, debt), and the journal adds up to {have}"
            )
