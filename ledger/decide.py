"""What a batch of commands does to a book: a pure function, the same in production, tests and audit.

The order of checks is part of the contract, one named answer each:

1. the message id was used before: the same content repeats its answer, other content is MESSAGE_ID_REUSED;
2. the receipt key was booked before: the same content repeats its answer, other content is RECEIPT_KEY_REUSED;
3. a command that comes with a refusal, for example because its card was blocked since, gets that;
4. otherwise the command is booked. A paid receipt is never refused for lack of points: what the balance does not
   cover is left out, and the settlement says so.

Inside a purchase, time comes first (points become active or lapse), then spending, then earning, so that a receipt
never spends what it earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.chain import entry_hash
from ledger.model import (
    AVAILABLE,
    DEBT,
    EXPIRED,
    ISSUED,
    PENDING,
    REDEEMED,
    Account,
    AccountKey,
    Booked,
    BookState,
    Command,
    Decision,
    EntryRow,
    Grant,
    Head,
    KeyRecord,
    Lot,
    MemberChange,
    PostingRow,
    Purchase,
    Refused,
    Repeat,
    Settlement,
    Spend,
    Verdict,
)

TICK = timedelta(microseconds=1)
"""The least time between two entries of a book."""


def decide(state: BookState, commands: Sequence[Command], now: datetime) -> Decision:
    """Decide a batch in order, each command seeing what the earlier ones did.

    ``state`` must hold the keys and accounts of all commands; it is taken over and changed. ``now`` is the moment
    of judgement (aware); a clock that stepped back is overruled by the book's own last moment.
    """
    decision = Decision()
    for command in commands:
        verdict: Verdict | None = _known(state, command) or command.refusal
        if verdict is None:
            verdict = _book(state, decision, command, max(now, state.head.booked_at + TICK))
        decision.verdicts.append(verdict)
    return decision


def _known(state: BookState, command: Command) -> Repeat | Refused | None:
    """Answer a command whose keys were used before."""
    if command.message_id is not None and (used := state.messages.get(command.message_id)):
        if _is_same(used, command):
            return Repeat(used.book, used.number)
        return Refused(
            common_pb2.REFUSAL_REASON_MESSAGE_ID_REUSED,
            f"this message id stands for another message, booked as entry {used.number} of book {used.book}; "
            "give every new message an id of its own",
        )
    if command.business_key is not None and (used := state.receipts.get(command.business_key)):
        if _is_same(used, command):
            return Repeat(used.book, used.number)
        return Refused(
            common_pb2.REFUSAL_REASON_RECEIPT_KEY_REUSED,
            f"this receipt is booked as entry {used.number} of book {used.book}, for another member or with other "
            "content; a receipt counts once, so correct it by a return",
        )
    return None


def _is_same(used: KeyRecord, command: Command) -> bool:
    return used.content_hash == command.content_hash or used.content_hash in command.same_contents


def _book(state: BookState, decision: Decision, command: Command, at: datetime) -> Booked:
    """Append the command's entry and move the head."""
    number = state.head.number + 1
    if isinstance(command, Purchase):
        kind, payload = int(journal_pb2.ENTRY_KIND_PURCHASE), _purchase(state, decision, command, number, at)
    else:
        kind, payload = int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE), command.event
    digest = entry_hash(
        state.head.hash,
        book=state.book,
        number=number,
        booked_at=at,
        event_at=command.event_at,
        kind=kind,
        member_id=command.member_id,
        message_id=command.message_id,
        business_key=command.business_key,
        content_hash=command.content_hash,
        payload=payload,
    )
    decision.entries.append(
        EntryRow(
            number,
            at,
            command.event_at,
            kind,
            command.member_id,
            command.message_id,
            command.business_key,
            command.content_hash,
            payload,
            digest,
        )
    )
    state.head = Head(number, digest, at)
    if not isinstance(command, MemberChange):
        record = KeyRecord(command.content_hash, state.book, number)
        state.messages[command.message_id] = record
        state.receipts[command.business_key] = record
    return Booked(state.book, number, at, payload, repeated=False)


def _purchase(state: BookState, decision: Decision, command: Purchase, number: int, at: datetime) -> bytes:
    """Move the points of a purchase; return the entry's payload."""
    settlement = Settlement()
    posting = journal_pb2.Event(settlement=settlement)
    if command.member_id is not None:
        movement = _Movement(state, decision, command, number)
        movement.pass_time(at)
        if command.spend is not None:
            movement.spend(command.spend, settlement)
        for grant in command.grants:
            movement.grant(grant, at, settlement)
        movement.close(settlement)
        posting = journal_pb2.Event(settlement=settlement, postings=movement.messages)
    return command.event + posting.SerializeToString()


class _Movement:
    """The points that one entry moves for one member and unit."""

    def __init__(self, state: BookState, decision: Decision, command: Purchase, number: int) -> None:
        assert command.member_id is not None
        self.member_id = command.member_id
        self.unit = command.unit
        self.key: AccountKey = (command.member_id, command.unit.number)
        self.account = state.accounts.setdefault(self.key, Account(lots=[]))
        self.decision = decision
        self.number = number
        self.messages: list[journal_pb2.Posting] = []

    def post(self, debit: int, credit: int, points_minor: int, lot: Lot, *, grant: bool = False) -> None:
        """Add a posting and change the account accordingly."""
        ordinal = len(self.messages) + 1
        active_at, expires_at = (lot.active_at, lot.expires_at) if grant else (None, None)
        self.decision.postings.append(
            PostingRow(
                self.number,
                ordinal,
                self.unit.number,
                debit,
                credit,
                points_minor,
                lot.number,
                lot.ordinal,
                self.member_id,
                active_at,
                expires_at,
            )
        )
        self.messages.append(
            journal_pb2.Posting(
                unit=self.unit.number,
                debit=debit,  # type: ignore[arg-type]  # enum values are ints on the hot path
                credit=credit,  # type: ignore[arg-type]  # the same
                points_minor=points_minor,
                lot_number=0 if lot.number == self.number else lot.number,
                lot_ordinal=lot.ordinal,
                active_at=_timestamp(active_at),
                expires_at=_timestamp(expires_at),
            )
        )
        self._add(debit, -points_minor)
        self._add(credit, points_minor)
        self.decision.lots[(self.key, lot.number, lot.ordinal)] = lot

    def _add(self, account: int, points_minor: int) -> None:
        if account == AVAILABLE:
            self.account.available_minor += points_minor
        elif account == PENDING:
            self.account.pending_minor += points_minor
        elif account == DEBT:
            self.account.debt_minor -= points_minor

    def pass_time(self, at: datetime) -> None:
        """Activate and lapse lots whose moment has come. The sweeper does the same for members who do not buy."""
        if self.account.next_change_at is None or self.account.next_change_at > at:
            return
        assert self.account.lots is not None, "lots that are due must be read with the batch"
        for lot in list(self.account.lots):
            if lot.pending and lot.active_at is not None and lot.active_at <= at:
                lot.pending = False
                self.post(PENDING, AVAILABLE, lot.remaining_minor, lot)
            if not lot.pending and lot.expires_at is not None and lot.expires_at <= at:
                self._lapse(lot)
                self.account.lots.remove(lot)

    def _lapse(self, lot: Lot) -> None:
        lapsed, lot.remaining_minor = lot.remaining_minor, 0
        self.post(AVAILABLE, EXPIRED, lapsed, lot)

    def spend(self, spend: Spend, settlement: Settlement) -> None:
        """Spend from the lots that lapse soonest, never-lapsing ones last, older first among equals."""
        wanted = 0 if spend.forbidden else min(spend.points_minor, self.account.available_minor)
        wanted -= wanted % spend.step_minor
        settlement.spent_points_minor = wanted
        settlement.spent_money_minor = wanted * spend.rate_money_minor // spend.rate_points_minor
        if wanted < spend.points_minor:
            settlement.left_out_points_minor = spend.points_minor - wanted
            settlement.left_out_reason = spend.forbidden or common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT  # type: ignore[assignment]  # an int
        if wanted == 0:
            return
        assert self.account.lots is not None, "a spender's lots must be read with the batch"
        for lot in sorted(self.account.lots, key=_spending_order):
            if wanted == 0:
                break
            if lot.pending:
                continue
            taken = min(wanted, lot.remaining_minor)
            lot.remaining_minor -= taken
            wanted -= taken
            self.post(AVAILABLE, REDEEMED, taken, lot)
            if lot.remaining_minor == 0:
                self.account.lots.remove(lot)
        assert wanted == 0, f"the lots of member {self.member_id} hold less than the balance: rebuild the caches"

    def grant(self, grant: Grant, at: datetime, settlement: Settlement) -> None:
        """Open a lot. If it is active, it pays the member's debt first; if it has lapsed already, it lapses at once."""
        pending = grant.active_at is not None and grant.active_at > at
        lot = Lot(
            self.number,
            len(self.messages) + 1,
            grant.points_minor,
            grant.points_minor,
            pending,
            grant.active_at,
            grant.expires_at,
        )
        self.post(ISSUED, PENDING if pending else AVAILABLE, grant.points_minor, lot, grant=True)
        settlement.accrual_points_minor += grant.points_minor
        if pending:
            settlement.pending_points_minor += grant.points_minor
        elif lot.expires_at is not None and lot.expires_at <= at:  # a receipt that arrives long after its sale
            self._lapse(lot)
        elif self.account.debt_minor > 0:
            paid = min(self.account.debt_minor, lot.remaining_minor)
            lot.remaining_minor -= paid
            settlement.debt_paid_points_minor += paid
            self.post(AVAILABLE, DEBT, paid, lot)
        if lot.remaining_minor > 0:
            if self.account.lots is not None:
                self.account.lots.append(lot)
            self._notice_change(lot)

    def _notice_change(self, lot: Lot) -> None:
        change = lot.active_at if lot.pending else lot.expires_at
        earliest = self.account.next_change_at
        if change is not None and (earliest is None or change < earliest):
            self.account.next_change_at = change

    def close(self, settlement: Settlement) -> None:
        """Write down the balance after the entry."""
        account = self.account
        if self.messages:
            self.decision.touched.add(self.key)
            if account.lots is not None:
                account.next_change_at = None
                for lot in account.lots:
                    self._notice_change(lot)
        settlement.balance.unit = self.unit.code
        settlement.balance.precision = self.unit.precision
        settlement.balance.available_points_minor = account.available_minor
        settlement.balance.pending_points_minor = account.pending_minor
        settlement.balance.held_points_minor = account.held_minor
        settlement.balance.debt_points_minor = account.debt_minor


def _spending_order(lot: Lot) -> tuple[bool, datetime | None, int, int]:
    # Never-lapsing lots compare True and are last; among them the None is never compared, since numbers differ
    # only after equal second parts, and None == None.
    return lot.expires_at is None, lot.expires_at, lot.number, lot.ordinal


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
