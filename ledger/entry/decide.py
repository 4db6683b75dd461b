"""What a batch of commands does to a book: a pure function, the same in production, tests and audit.

The order of checks is part of the contract, one named answer each:

1. the message id was used before: the same content repeats its answer, other content is MESSAGE_ID_REUSED;
2. the receipt key was booked before: the same content repeats its answer, other content is RECEIPT_KEY_REUSED;
3. a command that comes with a refusal, for example because its card was blocked since, gets that;
4. the command's own ladder, below: a hold wants points that are there, a return goods that were bought. A paid
   receipt is never refused for lack of points: what the balance does not cover is left out, and the settlement says
   so;
5. otherwise the command is booked. A purchase with a plan is made whole first: what limits leave, and which coupons can
   be used, depends on what stands in the books at that moment.

Inside an entry, time comes first (holds expire, points become active or lapse), then spending, then earning, so that
a receipt never spends what it earns, and a hold is captured or expired, never both: the moment of the batch decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry import goods_return, purchase, semantics, usage
from ledger.entry.accounts import LOST
from ledger.entry.chain import entry_hash
from ledger.entry.model import (
    ADJUSTED,
    CLEARING,
    HELD,
    MAX_OPEN_HOLDS,
    Account,
    AccountKey,
    Adjust,
    Booked,
    BookState,
    Cancel,
    Close,
    Command,
    Decision,
    Declined,
    EndedHold,
    EntryRow,
    Head,
    Hold,
    KeyRecord,
    LeaseBudget,
    MemberChange,
    OpenHold,
    PassTime,
    Purchase,
    Repeat,
    Return,
    Settlement,
    TransferIn,
    TransferOut,
    Unchanged,
    Verdict,
)
from ledger.entry.movement import END_CAPTURED, Draft, Movement, open_hold, spending_order, trial, write_balance

TICK = timedelta(microseconds=1)
"""The least time between two entries of a book."""

CHECKOUT_ID_LIFE = timedelta(days=1)
"""A register's name for a checkout is unique for so long; a hold that comes late for one that was paid is refused."""

END_CANCELLED = int(journal_pb2.HOLD_END_KIND_CANCELLED)
END_REPLACED = int(journal_pb2.HOLD_END_KIND_REPLACED)
END_TAKEN_OVER = int(journal_pb2.HOLD_END_KIND_TAKEN_OVER)
END_MERGED = int(journal_pb2.HOLD_END_KIND_MERGED)


def decide(state: BookState, commands: Sequence[Command], now: datetime) -> Decision:
    """Decide a batch in order, each command seeing what the earlier ones did.

    ``state`` must hold the keys and accounts of all commands; it is taken over and changed. ``now`` is the moment
    of judgement (aware); a clock that stepped back is overruled by the book's own last moment.
    """
    decision = Decision()
    for command in commands:
        verdict: Verdict | None = _answer_by_key(state, command) or command.refusal
        if verdict is None:
            verdict = _book(state, decision, command, max(now, state.head.booked_at + TICK))
        decision.verdicts.append(verdict)
    return decision


def _answer_by_key(state: BookState, command: Command) -> Repeat | Declined | None:
    """Answer a command whose keys were used before."""
    if command.message_id is not None and (used := state.messages.get(command.message_id)):
        if _is_same(used, command):
            return Repeat(used.book, used.number)
        return Declined(
            common_pb2.REFUSAL_REASON_MESSAGE_ID_REUSED,
            f"this message id stands for another message, booked as entry {used.number} of book {used.book}; "
            "give every new message an id of its own",
        )
    if command.business_key is not None and (used := state.receipts.get(command.business_key)):
        if _is_same(used, command):
            return Repeat(used.book, used.number)
        return Declined(
            common_pb2.REFUSAL_REASON_RECEIPT_KEY_REUSED,
            f"this receipt is booked as entry {used.number} of book {used.book}, for another member or with other "
            "content; a receipt counts once, so correct it by a return",
        )
    return None


def _is_same(used: KeyRecord, command: Command) -> bool:
    return used.content_hash == command.content_hash or used.content_hash in command.same_contents


def _book(state: BookState, decision: Decision, command: Command, at: datetime) -> Verdict:
    """Let the command make its entry; append it and move the head."""
    draft = Draft(state.head.number + 1, at, decision.lots)
    command = usage.planned(state, command, draft)
    kind, move = _HANDLERS[type(command)]
    made = move(state, command, draft)
    if not isinstance(made, journal_pb2.Event):
        return made
    usage.apply_usage(state, decision, command, draft, made)
    if draft.ended:
        made.hold_ends.extend(end for _, end in draft.ended)
        if made.HasField("settlement"):
            made.settlement.released_points_minor = sum(end.released_points_minor for _, end in draft.ended)
    if made is not draft.event:
        made.postings.extend(draft.event.postings)
    made.semantics = semantics.CURRENT
    payload = command.event + made.SerializeToString()
    digest = entry_hash(
        state.head.hash,
        book=state.book,
        number=draft.number,
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
            draft.number,
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
    _accept(state, decision, draft)
    state.head = Head(draft.number, digest, at)
    record = KeyRecord(command.content_hash, state.book, draft.number)
    if command.message_id is not None:
        state.messages[command.message_id] = record
    if command.business_key is not None:
        state.receipts[command.business_key] = record
    return Booked(state.book, draft.number, at, payload, repeated=False)


def _accept(state: BookState, decision: Decision, draft: Draft) -> None:
    """Make what an entry moved part of the batch."""
    decision.postings += draft.postings
    decision.lots.update(draft.lots)
    if state.lost:
        _note_lost(state, draft)
    state.accounts.update(draft.touched)
    decision.touched.update(draft.touched)
    if draft.began is not None:
        decision.holds.append(draft.began)
    for hold, end in draft.ended:
        ended = EndedHold(hold.number, hold.held_at, int(end.how), draft.number)
        decision.ended.append(ended)
        state.ended_holds[hold.checkout_key] = ended
    if draft.returned is not None:
        purchase_number, so_far = draft.returned
        state.returned[purchase_number] = so_far
        decision.returns[purchase_number] = draft.number


def _note_lost(state: BookState, draft: Draft) -> None:
    """Note what an entry lets lapse of purchases that come back later in the batch."""
    for posting in draft.postings:
        if posting.credit in LOST and posting.lot_number in state.lost:
            lost = state.lost[posting.lot_number]
            lost[posting.lot_ordinal] = lost.get(posting.lot_ordinal, 0) + posting.points_minor


# --- purchases ----------------------------------------------------------------------------------------------------


def _purchase(state: BookState, command: Purchase, draft: Draft) -> journal_pb2.Event:
    """Book a paid receipt; it is never refused."""
    settlement = draft.event.settlement
    settlement.SetInParent()
    if command.member_id is None:
        purchase.leave_out(command, settlement)
    else:
        purchase.apply_purchase(state, command, command.member_id, draft, settlement)
    return draft.event


# --- holds --------------------------------------------------------------------------------------------------------


def _hold(state: BookState, command: Hold, draft: Draft) -> journal_pb2.Event | Declined:
    ended = state.ended_holds.get(command.checkout_key)
    if ended is not None and ended.how == END_CAPTURED and draft.at - ended.held_at < CHECKOUT_ID_LIFE:
        return Declined(
            common_pb2.REFUSAL_REASON_HOLD_GONE,
            f"this checkout was paid with entry {ended.ended_number} of book {state.book}; begin a new one",
        )
    movement = trial(state, draft, (command.member_id, command.unit.number))
    account = movement.account
    for hold in list(account.holds or ()):
        if hold.checkout_key == command.checkout_key:
            movement.end_hold(hold, END_REPLACED)
        elif command.takeover:
            movement.end_hold(hold, END_TAKEN_OVER)
    others = list(account.holds or ())
    if command.points_minor > account.available_minor or len(others) >= MAX_OPEN_HOLDS:
        return _hold_refused(command, account, others, draft.at)
    coupons = usage.claim_for_hold(state, command, draft)
    if isinstance(coupons, Declined):
        return coupons
    parts = movement.spend(command.points_minor, HELD)
    movement.begin_hold(
        OpenHold(
            draft.number,
            command.member_id,
            command.unit.number,
            command.checkout_key,
            command.store_id,
            command.terminal_id,
            command.points_minor,
            draft.at,
            draft.at + timedelta(seconds=command.ttl_seconds),
            parts,
            coupons,
        )
    )
    movement.close()
    event = journal_pb2.Event(
        hold=journal_pb2.Hold(
            unit=command.unit.number, held_elsewhere=[held_elsewhere(hold, draft.at) for hold in others]
        ),
        settlement=Settlement(held_points_minor=command.points_minor),
    )
    write_balance(event.settlement, command.unit, account)
    return event


def _hold_refused(command: Hold, account: Account, others: list[OpenHold], at: datetime) -> Declined:
    if command.points_minor > account.available_minor + account.held_minor or not others:
        return Declined(
            common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT,
            f"the balance has {account.available_minor} points (in minor units) that can be spent, "
            f"and {command.points_minor} are to be held",
        )
    places = ", ".join(
        f"store {hold.store_id}, lane {hold.terminal_id}, {int((at - hold.held_at).total_seconds())} s ago"
        for hold in others
    )
    return Declined(
        common_pb2.REFUSAL_REASON_HELD_ELSEWHERE,
        f"the points are held at {places}; take them over with a reason, or cancel there",
    )


def held_elsewhere(hold: OpenHold, at: datetime) -> checkout_pb2.HeldElsewhere:
    """Return what another lane is told of a hold."""
    return checkout_pb2.HeldElsewhere(
        store_id=hold.store_id,
        terminal_id=hold.terminal_id,
        points_minor=hold.points_minor,
        age_seconds=max(0, int((at - hold.held_at).total_seconds())),
    )


def _cancel(state: BookState, command: Cancel, draft: Draft) -> journal_pb2.Event | Declined | Repeat:
    key = (command.member_id, command.unit.number)
    account = state.accounts.get(key)
    if account is not None and open_hold(account, command.checkout_key) is not None:
        return _cancel_open(state, command, draft, key)
    ended = state.ended_holds.get(command.checkout_key)
    if ended is None:
        return Declined(common_pb2.REFUSAL_REASON_HOLD_GONE, "nothing is held for this checkout")
    if ended.how == END_CAPTURED:
        return Declined(
            common_pb2.REFUSAL_REASON_HOLD_GONE,
            f"this checkout was paid with entry {ended.ended_number} of book {state.book}; goods come back by a return",
        )
    return Repeat(state.book, ended.ended_number)


def _cancel_open(state: BookState, command: Cancel, draft: Draft, key: AccountKey) -> journal_pb2.Event:
    """Release a hold; if its time was over, passing time has released it already."""
    movement = trial(state, draft, key)
    hold = open_hold(movement.account, command.checkout_key)
    if hold is not None:
        movement.end_hold(hold, END_CANCELLED)
    movement.close()
    event = journal_pb2.Event(settlement=Settlement())
    write_balance(event.settlement, command.unit, movement.account)
    return event


# --- returns ------------------------------------------------------------------------------------------------------


def _return(state: BookState, command: Return, draft: Draft) -> journal_pb2.Event | Declined:
    """Bring goods back: points go back to the lots they came from, what was earned is taken back."""
    purchase = journal_pb2.Event.FromString(command.purchase)
    return goods_return.apply_return(state, command, draft, purchase)


# --- time, corrections, the rest ----------------------------------------------------------------------------------


def _pass_time(state: BookState, command: PassTime, draft: Draft) -> journal_pb2.Event | Unchanged:
    for key in [each for each in state.accounts if each[0] == command.member_id]:
        movement = Movement(draft, key, state.accounts[key])
        movement.pass_time()
        if movement.account.next_change_at is not None and movement.account.next_change_at <= draft.at:
            movement.close()
    return Unchanged() if draft.is_empty else journal_pb2.Event()


def _adjust(state: BookState, command: Adjust, draft: Draft) -> journal_pb2.Event | Declined:
    movement = trial(state, draft, (command.member_id, command.unit.number))
    settlement = Settlement()
    if command.deduct_points_minor > movement.account.available_minor:
        return _too_few(movement.account, command.deduct_points_minor)
    movement.spend(command.deduct_points_minor, ADJUSTED)
    if command.grant is not None:
        settlement.debt_paid_points_minor = movement.grant(command.grant, ADJUSTED)
    movement.close()
    write_balance(settlement, command.unit, movement.account)
    return journal_pb2.Event(settlement=settlement)


def _too_few(account: Account, wanted_minor: int) -> Declined:
    return Declined(
        common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT,
        f"the balance has {account.available_minor} points (in minor units) that can be spent, not {wanted_minor}",
    )


def _transfer_out(state: BookState, command: TransferOut, draft: Draft) -> journal_pb2.Event | Declined:
    movement = trial(state, draft, (command.member_id, command.unit.number))
    account = movement.account
    if command.points_minor is not None:
        if command.points_minor > account.available_minor:
            return _too_few(account, command.points_minor)
        movement.spend(command.points_minor, CLEARING)
    else:
        for hold in list(account.holds or ()):
            movement.end_hold(hold, END_MERGED)
        for lot in spending_order(account.lots or ()):
            movement.take(lot, lot.remaining_minor, CLEARING)
        if account.debt_minor:
            movement.forgive(account.debt_minor, CLEARING)
    movement.close()
    event = journal_pb2.Event(settlement=Settlement())
    write_balance(event.settlement, command.unit, account)
    return event


def _transfer_in(state: BookState, command: TransferIn, draft: Draft) -> journal_pb2.Event:
    movement = trial(state, draft, (command.member_id, command.unit.number))
    settlement = Settlement()
    if command.debt_minor:
        movement.owe(command.debt_minor, CLEARING)
        settlement.debt_paid_points_minor += movement.pay_debt()
    for grant in command.grants:
        settlement.debt_paid_points_minor += movement.grant(grant, CLEARING)
    movement.close()
    write_balance(settlement, command.unit, movement.account)
    return journal_pb2.Event(settlement=settlement)


def _no_points(*_: object) -> journal_pb2.Event:
    return journal_pb2.Event()


_Made = journal_pb2.Event | Declined | Repeat | Unchanged
_HANDLERS: dict[type[Command], tuple[int, Callable[[BookState, Any, Draft], _Made]]] = {
    Purchase: (int(journal_pb2.ENTRY_KIND_PURCHASE), _purchase),
    MemberChange: (int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE), _no_points),
    Hold: (int(journal_pb2.ENTRY_KIND_HOLD), _hold),
    Cancel: (int(journal_pb2.ENTRY_KIND_CANCEL), _cancel),
    Return: (int(journal_pb2.ENTRY_KIND_RETURN), _return),
    PassTime: (int(journal_pb2.ENTRY_KIND_TIME), _pass_time),
    Adjust: (int(journal_pb2.ENTRY_KIND_ADJUSTMENT), _adjust),
    TransferOut: (int(journal_pb2.ENTRY_KIND_TRANSFER), _transfer_out),
    TransferIn: (int(journal_pb2.ENTRY_KIND_TRANSFER), _transfer_in),
    Close: (int(journal_pb2.ENTRY_KIND_CLOSE), _no_points),
    LeaseBudget: (int(journal_pb2.ENTRY_KIND_BUDGET), _no_points),
}
