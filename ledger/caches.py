"""What a book's caches must hold, worked out from its journal alone.

This is the second way to every balance: `decide` moves points forward from the caches, this module adds up the
postings from the first entry on. `verify` compares the two and `rebuild` writes this one down.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import journal_pb2

from ledger.journal import EntryRecord
from ledger.model import (
    AVAILABLE,
    DEBT,
    EXPIRED,
    HELD,
    ISSUED,
    PENDING,
    REDEEMED,
    Account,
    AccountKey,
    KeyRecord,
    Lot,
    PostingRow,
)

MEMBER_ACCOUNTS = frozenset({AVAILABLE, PENDING, HELD, DEBT})
_GRANTS = frozenset({(ISSUED, AVAILABLE), (ISSUED, PENDING)})
_USES = frozenset({(AVAILABLE, REDEEMED), (AVAILABLE, EXPIRED), (AVAILABLE, DEBT)})


class JournalError(Exception):
    """An entry's postings cannot be true."""


@dataclass(slots=True)
class BookCaches:
    """The caches of one book as of the entries applied so far, in order."""

    book: int
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    lots: dict[tuple[AccountKey, int, int], Lot] = field(default_factory=dict)
    totals: dict[tuple[date, int, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    receipts: dict[bytes, KeyRecord] = field(default_factory=dict)
    messages: dict[bytes, KeyRecord] = field(default_factory=dict)
    message_days: dict[bytes, date] = field(default_factory=dict)

    def apply(self, entry: EntryRecord, postings: list[PostingRow]) -> None:
        """Take in the next entry.

        Raises:
            JournalError: if a key repeats, or a posting overdraws a lot or makes no sense.
        """
        record = KeyRecord(entry.content_hash, entry.book, entry.number)
        for keys, key, name in (
            (self.receipts, entry.business_key, "receipt key"),
            (self.messages, entry.message_id, "message id"),
        ):
            if key is not None and keys.setdefault(key, record) is not record:
                raise JournalError(f"its {name} was booked by entry {keys[key].number} before")
        day = entry.booked_at.date()
        if entry.message_id is not None:
            self.message_days[entry.message_id] = day
        for posting in postings:
            self._move(posting)
            self.totals[(day, posting.unit, posting.debit)][0] += posting.points_minor
            self.totals[(day, posting.unit, posting.credit)][1] += posting.points_minor

    def _move(self, posting: PostingRow) -> None:
        assert posting.member_id is not None
        key = (posting.member_id, posting.unit)
        account = self.accounts.setdefault(key, Account())
        where = (key, posting.lot_number, posting.lot_ordinal)
        pair = (posting.debit, posting.credit)
        if pair in _GRANTS:
            if (posting.lot_number, posting.lot_ordinal) != (posting.number, posting.ordinal):
                raise JournalError(f"posting {posting.ordinal} grants a lot that another posting names")
            self.lots[where] = Lot(
                posting.number,
                posting.ordinal,
                posting.points_minor,
                posting.points_minor,
                posting.credit == PENDING,
                posting.active_at,
                posting.expires_at,
            )
        else:
            self._use(posting, pair, where)
        for side, points_minor in ((posting.debit, -posting.points_minor), (posting.credit, posting.points_minor)):
            _add(account, side, points_minor, posting)

    def _use(self, posting: PostingRow, pair: tuple[int, int], where: tuple[AccountKey, int, int]) -> None:
        lot = self.lots.get(where)
        if lot is None:
            raise JournalError(f"posting {posting.ordinal} takes from a lot that was never granted or is spent")
        if pair == (PENDING, AVAILABLE):
            if not lot.pending or posting.points_minor != lot.remaining_minor:
                raise JournalError(f"posting {posting.ordinal} activates what is not pending in its lot")
            lot.pending = False
        elif pair in _USES:
            if lot.pending or posting.points_minor > lot.remaining_minor:
                raise JournalError(
                    f"posting {posting.ordinal} takes {posting.points_minor} from a lot that has {lot.remaining_minor}"
                )
            lot.remaining_minor -= posting.points_minor
            if lot.remaining_minor == 0:
                del self.lots[where]
        else:
            raise JournalError(f"posting {posting.ordinal} moves points between accounts {pair[0]} and {pair[1]}")

    def settle(self) -> None:
        """Work out when each account changes next; to be called after the last entry."""
        for account in self.accounts.values():
            account.next_change_at = None
        for (key, _, _), lot in self.lots.items():
            change: datetime | None = lot.active_at if lot.pending else lot.expires_at
            account = self.accounts[key]
            if change is not None and (account.next_change_at is None or change < account.next_change_at):
                account.next_change_at = change


def _add(account: Account, side: int, points_minor: int, posting: PostingRow) -> None:
    if side == AVAILABLE:
        account.available_minor += points_minor
    elif side == PENDING:
        account.pending_minor += points_minor
    elif side == HELD:
        account.held_minor += points_minor
    elif side == DEBT:
        account.debt_minor -= points_minor
    if min(account.available_minor, account.pending_minor, account.held_minor, account.debt_minor) < 0:
        raise JournalError(f"posting {posting.ordinal} leaves the member with less than nothing")


def postings_of(event: journal_pb2.Event, number: int, member_id: uuid.UUID | None) -> list[PostingRow]:
    """Return the postings that an entry's payload records, as the rows that must stand beside it."""
    return [
        PostingRow(
            number,
            ordinal,
            posting.unit,
            posting.debit,
            posting.credit,
            posting.points_minor,
            posting.lot_number or number,
            posting.lot_ordinal,
            member_id,
            _moment(posting.active_at) if posting.HasField("active_at") else None,
            _moment(posting.expires_at) if posting.HasField("expires_at") else None,
        )
        for ordinal, posting in enumerate(event.postings, start=1)
    ]


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
