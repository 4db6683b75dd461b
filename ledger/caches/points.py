"""What a book's caches must hold, worked out from its journal alone.

This is the second way to every balance: `decide` moves points forward from the caches, this module adds up the
postings from the first entry on. `verify` compares the two and `rebuild` writes this one down.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import journal_pb2

from ledger.caches.uses import UsageCaches, UsageError, slots_kept
from ledger.entry.accounts import is_taking, own_pair
from ledger.entry.chain import EntryRecord
from ledger.entry.keys import checkout_key
from ledger.entry.model import (
    ADJUSTED,
    AVAILABLE,
    CLEARING,
    DEBT,
    EXPIRED,
    HELD,
    ISSUED,
    PENDING,
    REDEEMED,
    Account,
    AccountKey,
    EndedHold,
    HoldPart,
    KeyRecord,
    Lot,
    LotTerms,
    OpenHold,
    PostingRow,
)

_OPENING = frozenset({ISSUED, ADJUSTED, CLEARING, REDEEMED})
"""Programme accounts from which a lot can be opened."""

_WITHOUT_LOT = frozenset({(DEBT, ISSUED), (DEBT, CLEARING), (CLEARING, DEBT), (ISSUED, ISSUED)})
"""Debts made and forgiven, and partners made good: no lot is concerned."""

_TAKINGS = frozenset(
    {(AVAILABLE, account) for account in (REDEEMED, EXPIRED, DEBT, ADJUSTED, CLEARING, ISSUED)}
    | {(PENDING, CLEARING), (PENDING, ISSUED)}
)
"""Points that leave a lot for good."""


class JournalError(Exception):
    """An entry's postings cannot be true."""


@dataclass(slots=True)
class BookCaches:
    """The caches of one book as of the entries applied so far, in order.

    ``terms`` has what was fixed for lots to which returns give points back; whoever applies such entries puts it
    there first (see ``lots_given_back``), so that not every lot that ever was has to be remembered.
    """

    book: int
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    lots: dict[tuple[AccountKey, int, int], Lot] = field(default_factory=dict)
    holds: dict[int, OpenHold] = field(default_factory=dict)
    ended_holds: dict[int, tuple[OpenHold, EndedHold]] = field(default_factory=dict)
    returns: dict[int, int] = field(default_factory=dict)
    totals: dict[tuple[date, int, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    receipts: dict[bytes, KeyRecord] = field(default_factory=dict)
    messages: dict[bytes, KeyRecord] = field(default_factory=dict)
    message_days: dict[bytes, date] = field(default_factory=dict)
    terms: dict[tuple[int, int], LotTerms] = field(default_factory=dict)
    usage: UsageCaches = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing counted and nothing used."""
        self.usage = UsageCaches(self.book)

    def apply(self, entry: EntryRecord, event: journal_pb2.Event, postings: list[PostingRow]) -> None:
        """Take in the next entry, given its parsed payload and its postings.

        Raises:
            JournalError: if a key repeats, a posting overdraws a lot or makes no sense, or a hold ends otherwise than
                it began.
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
            self._move(posting, own_pair(entry.kind, posting.debit, posting.credit))
            self.totals[(day, posting.unit, posting.debit)][0] += posting.points_minor
            self.totals[(day, posting.unit, posting.credit)][1] += posting.points_minor
        which = event.WhichOneof("event")
        if which == "hold" or event.hold_ends or any(HELD in (row.debit, row.credit) for row in postings):
            self._hold(entry, event, postings)
        if which == "goods_return":
            self.returns[event.goods_return.purchase_number] = entry.number
        try:
            self.usage.apply(entry, event, [self.ended_holds[end.hold_number][0] for end in event.hold_ends])
        except UsageError as error:
            raise JournalError(str(error)) from error

    def _move(self, posting: PostingRow, pair: tuple[int, int]) -> None:
        """Move points; ``pair`` are the accounts with the programme's own in a partner's place."""
        assert posting.member_id is not None
        key = (posting.member_id, posting.unit)
        account = self.accounts.setdefault(key, Account())
        where = (key, posting.lot_number, posting.lot_ordinal)
        is_own = (posting.lot_number, posting.lot_ordinal) == (posting.number, posting.ordinal)
        if pair in _WITHOUT_LOT:
            if not is_own:
                raise JournalError(f"posting {posting.ordinal} names a lot that a debt does not concern")
        elif is_own:
            self._open(posting, pair, where)
        else:
            self._use(posting, pair, where)
        for side, points_minor in ((posting.debit, -posting.points_minor), (posting.credit, posting.points_minor)):
            _add(account, side, points_minor, posting)

    def _open(self, posting: PostingRow, pair: tuple[int, int], where: tuple[AccountKey, int, int]) -> None:
        if pair[0] not in _OPENING or pair[1] not in {AVAILABLE, PENDING}:
            raise JournalError(f"posting {posting.ordinal} opens a lot from account {posting.debit}")
        self.lots[where] = Lot(
            posting.number,
            posting.ordinal,
            posting.points_minor,
            posting.points_minor,
            posting.credit == PENDING,
            posting.active_at,
            posting.expires_at,
        )

    def _use(self, posting: PostingRow, pair: tuple[int, int], where: tuple[AccountKey, int, int]) -> None:
        lot = self.lots.get(where)
        if lot is None and pair == (REDEEMED, AVAILABLE):
            lot = self.lots[where] = self._emptied(posting)
        if lot is None:
            raise JournalError(f"posting {posting.ordinal} moves points of a lot that was never granted or is spent")
        if pair == (PENDING, AVAILABLE):
            if not lot.pending or posting.points_minor != lot.remaining_minor:
                raise JournalError(f"posting {posting.ordinal} activates what is not pending in its lot")
            lot.pending = False
            return
        left, held = _LOT_CHANGES.get(pair, (0, 0))
        if (left, held) == (0, 0) or lot.pending != (posting.debit == PENDING):
            raise JournalError(f"posting {posting.ordinal} moves points between accounts {pair[0]} and {pair[1]}")
        lot.remaining_minor += left * posting.points_minor
        lot.held_minor += held * posting.points_minor
        if lot.remaining_minor < 0 or lot.held_minor < 0:
            raise JournalError(f"posting {posting.ordinal} takes {posting.points_minor} from a lot that has fewer")
        if lot.remaining_minor + lot.held_minor > lot.granted_minor:
            raise JournalError(f"posting {posting.ordinal} fills a lot with more than it was granted")
        if lot.remaining_minor == 0 and lot.held_minor == 0:
            del self.lots[where]

    def _emptied(self, posting: PostingRow) -> Lot:
        terms = self.terms.get((posting.lot_number, posting.lot_ordinal))
        if terms is None:
            raise JournalError(f"posting {posting.ordinal} gives points back to a lot that was never granted")
        return Lot(
            posting.lot_number,
            posting.lot_ordinal,
            terms.granted_minor,
            0,
            pending=False,
            active_at=terms.active_at,
            expires_at=terms.expires_at,
        )

    def _hold(self, entry: EntryRecord, event: journal_pb2.Event, postings: list[PostingRow]) -> None:
        """Follow holds: what ends was open, and moves exactly what it kept."""
        moved: dict[tuple[int, int], int] = defaultdict(int)
        for posting in postings:
            if posting.debit == HELD:
                moved[(posting.lot_number, posting.lot_ordinal)] += posting.points_minor
        for end in event.hold_ends:
            hold = self.holds.pop(end.hold_number, None)
            if hold is None or hold.member_id != entry.member_id:
                raise JournalError(f"it ends hold {end.hold_number}, which is not open")
            if end.captured_points_minor + end.released_points_minor != hold.points_minor:
                raise JournalError(f"it ends hold {end.hold_number} with other points than it kept")
            for part in hold.parts:
                moved[(part.lot_number, part.lot_ordinal)] -= part.points_minor
            ended = EndedHold(hold.number, hold.held_at, int(end.how), entry.number)
            self.ended_holds[hold.number] = (hold, ended)
        if any(moved.values()):
            raise JournalError("it moves other held points than those of the holds that it ends")
        parts = [p for p in postings if p.credit == HELD]
        if event.WhichOneof("event") == "hold":
            self._begin(entry, event, parts)
        elif parts:
            raise JournalError("it holds points without being a hold")

    def _begin(self, entry: EntryRecord, event: journal_pb2.Event, parts: list[PostingRow]) -> None:
        assert entry.member_id is not None
        body, points_minor = event.hold, sum(part.points_minor for part in parts)
        if points_minor != body.asked_points_minor or points_minor != event.settlement.held_points_minor:
            raise JournalError("it holds other points than it says")
        self.accounts.setdefault((entry.member_id, body.unit), Account())  # it may keep coupons, and no points
        self.holds[entry.number] = OpenHold(
            entry.number,
            entry.member_id,
            body.unit,
            checkout_key(body.checkout_key),
            body.checkout_key.store_id,
            body.checkout_key.terminal_id,
            points_minor,
            entry.booked_at,
            entry.booked_at + timedelta(seconds=body.ttl_seconds),
            tuple(HoldPart(part.lot_number, part.lot_ordinal, part.points_minor) for part in parts),
            slots_kept(event),
        )

    def find_next_changes(self) -> None:
        """Work out when each account changes next; to be called after the last entry."""
        for account in self.accounts.values():
            account.next_change_at = None
        for (key, _, _), lot in self.lots.items():
            if lot.remaining_minor > 0:
                _notice(self.accounts[key], lot.active_at if lot.pending else lot.expires_at)
        for hold in self.holds.values():
            _notice(self.accounts.setdefault((hold.member_id, hold.unit), Account()), hold.expires_at)


def _notice(account: Account, change: datetime | None) -> None:
    if change is not None and (account.next_change_at is None or change < account.next_change_at):
        account.next_change_at = change


_LOT_CHANGES = {
    **dict.fromkeys(_TAKINGS, (-1, 0)),
    (AVAILABLE, HELD): (-1, 1),
    (HELD, AVAILABLE): (1, -1),
    (HELD, REDEEMED): (0, -1),
    (REDEEMED, AVAILABLE): (1, 0),
}
"""What a posting between two accounts changes in its lot: what is left, and what is held."""


def lots_given_back(postings: Iterable[PostingRow]) -> set[tuple[int, int]]:
    """Return the lots to which postings give points back, whose terms ``BookCaches.terms`` must have."""
    return {
        (posting.lot_number, posting.lot_ordinal)
        for posting in postings
        if is_taking(posting.debit) and posting.credit == AVAILABLE and posting.lot_number != posting.number
    }


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
            _moment(posting.issued_at) if posting.HasField("issued_at") else None,
        )
        for ordinal, posting in enumerate(event.postings, start=1)
    ]


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
