"""Reading and writing a batch: two round trips, `read_batch_v1` and `write_batch_v1` of `ledger/schema.sql`."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.entry import usage
from ledger.entry.counters import parse_counters, serialise_counters
from ledger.entry.model import (
    Account,
    BookState,
    BudgetSlice,
    Cancel,
    Close,
    Command,
    CouponSlot,
    Decision,
    EndedHold,
    Head,
    Hold,
    HoldPart,
    KeyRecord,
    Lot,
    MemberChange,
    OpenHold,
    Purchase,
    Return,
    SlotUse,
)
from ledger.entry.movement import DamagedCaches
from ledger.reading.journal import lost_by_lot, read_lost

# Read head, keys, balances, lots, holds, returns, counters, coupons and budgets for a batch.
READ_BATCH = "SELECT * FROM ledger.read_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"

# Lock the head, alone in its statement, so that what is read afterwards is the newest.
LOCK_HEAD = "SELECT number FROM ledger.book_head WHERE book = $1 FOR UPDATE"

# Read the head of a book and who was concerned by its entries after one of them: one statement, so one moment.
READ_TAIL = """
SELECT h.number AS head_number, h.hash AS head_hash, h.booked_at AS head_booked_at, e.number, e.kind, e.member_id
FROM ledger.book_head h
LEFT JOIN LATERAL (
    SELECT t.number, t.kind, t.member_id FROM ledger.entry t WHERE t.book = $1 AND t.number > $2
    ORDER BY t.number LIMIT $3
) e ON true
WHERE h.book = $1
ORDER BY e.number
"""

# Append the batch if the head is still the one that was read.
WRITE_BATCH = "SELECT ledger.write_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


async def read_state(
    conn: asyncpg.Connection, book: int, commands: Sequence[Command], now: datetime, timeout_seconds: float
) -> BookState:
    """Read the head of ``book`` and all that its commands concern.

    Raises:
        LookupError: if the ledger has no such book.
    """
    members: set[uuid.UUID] = set()
    spenders: set[uuid.UUID] = set()
    checkouts: list[bytes] = []
    counted: set[uuid.UUID] = set()
    codes: set[str] = set()
    budgets: set[str] = set()
    for command in commands:
        codes.update(usage.codes_concerned(command))
        budgets.update(usage.budgets_concerned(command))
        if command.member_id is None or isinstance(command, (MemberChange, Close)):
            continue
        if usage.is_counted(command):
            counted.add(command.member_id)
        members.add(command.member_id)
        if not isinstance(command, Purchase) or _may_spend(command):
            spenders.add(command.member_id)
        if isinstance(command, (Hold, Cancel)):
            checkouts.append(command.checkout_key)
    returning = [command for command in commands if isinstance(command, Return)]
    row = await conn.fetchrow(
        READ_BATCH,
        book,
        now,
        [command.message_id for command in commands if command.message_id is not None],
        [command.business_key for command in commands if command.business_key is not None],
        list(members),
        list(spenders),
        checkouts,
        [command.purchase_number for command in returning],
        list(counted),
        list(codes),
        list(budgets),
        timeout=timeout_seconds,
    )
    assert row is not None
    if row["head_number"] is None:
        raise LookupError(f"there is no book {book} in this ledger")
    state = BookState(book, Head(row["head_number"], row["head_hash"], row["head_booked_at"]))
    state.messages = _key_records(row, "message_ids", "message")
    state.receipts = _key_records(row, "receipt_keys", "receipt")
    for member, unit, *figures in _columns(
        row, "balance_members", "balance_units", "available", "pending", "held", "debt", "next_changes"
    ):
        state.accounts[(member, unit)] = account = Account(*figures)
        if member in spenders:
            account.lots, account.holds = [], []
    _attach_lots(state, row)
    _attach_holds(state, row)
    _attach_uses(state, row)
    if returning:
        _attach_returns(state, row)
        bought = {command.purchase_number: command.member_id for command in returning if command.member_id}
        lost = await read_lost(conn, book, bought, timeout_seconds)  # after the head: so at least as new
        state.lost = {number: lost_by_lot(losses) for number, losses in lost.items()}
    return state


def _attach_returns(state: BookState, row: asyncpg.Record) -> None:
    """Read what became of purchases by their returns so far."""
    for purchase_number, payload in _columns(row, "returned_purchases", "returned_payloads"):
        state.returned[purchase_number] = journal_pb2.Event.FromString(payload).goods_return.so_far


def _may_spend(command: Purchase) -> bool:
    return command.spend is not None or command.checkout_key is not None or bool(command.further_spends)


def _columns(row: asyncpg.Record, *names: str) -> Iterable[tuple[Any, ...]]:
    """Turn parallel arrays, which are NULL when empty, into rows."""
    return zip(*(row[name] or () for name in names), strict=True)


def _key_records(row: asyncpg.Record, ids: str, prefix: str) -> dict[bytes, KeyRecord]:
    columns = _columns(row, ids, f"{prefix}_hashes", f"{prefix}_books", f"{prefix}_numbers")
    return {key: KeyRecord(content_hash, book, number) for key, content_hash, book, number in columns}


def _account(state: BookState, member: uuid.UUID, unit: int, what: str) -> Account:
    account = state.accounts.get((member, unit))
    if account is None:
        raise DamagedCaches(f"member {member} has {what} and no balance of unit {unit}")
    return account


def _attach_lots(state: BookState, row: asyncpg.Record) -> None:
    columns = _columns(
        row,
        "lot_members",
        "lot_units",
        "lot_numbers",
        "lot_ordinals",
        "lot_granted",
        "lot_remaining",
        "lot_pending",
        "lot_active",
        "lot_expires",
        "lot_held",
    )
    for member, unit, *fields in columns:
        account = _account(state, member, unit, "lots")
        if account.lots is None:
            account.lots, account.holds = [], []
        lot = Lot(*fields)
        lot.cached = True
        account.lots.append(lot)


def _attach_holds(state: BookState, row: asyncpg.Record) -> None:
    """Read open holds, oldest first, with their parts in spending order, and the ended ones of checkouts concerned."""
    parts: dict[int, list[HoldPart]] = defaultdict(list)
    for hold_number, *part in _columns(row, "part_holds", "part_lots", "part_ordinals", "part_points"):
        parts[hold_number].append(HoldPart(*part))
    coupons: dict[int, list[CouponSlot]] = defaultdict(list)
    for hold_number, code, slot in _columns(row, "kept_holds", "kept_codes", "kept_slots"):
        coupons[hold_number].append(CouponSlot(code, slot))
    columns = _columns(
        row,
        "hold_numbers",
        "hold_members",
        "hold_units",
        "hold_checkouts",
        "hold_stores",
        "hold_terminals",
        "hold_points",
        "hold_at",
        "hold_expires",
    )
    for number, member, unit, *fields in columns:
        account = _account(state, member, unit, "holds")
        if account.holds is None:
            account.lots, account.holds = account.lots or [], []
        kept = [tuple(parts[number]), tuple(sorted(coupons[number]))]
        account.holds.append(OpenHold(number, member, unit, *fields, *kept))
    for checkout, *ended in _columns(row, "ended_checkouts", "ended_numbers", "ended_held_at", "ended_how", "ended_by"):
        state.ended_holds[checkout] = EndedHold(*ended)


def _attach_uses(state: BookState, row: asyncpg.Record) -> None:
    """Read what promotions count and use up."""
    for member, counters in _columns(row, "counted_members", "counted_rows"):
        state.counters[member] = parse_counters(counters)
    for code, slot, *use in _columns(row, "use_codes", "use_slots", "use_books", "use_numbers", "use_held"):
        state.coupons.setdefault(code, {})[slot] = SlotUse(*use)
    for key, *figures in _columns(row, "slice_keys", "slice_granted", "slice_used"):
        state.budgets[key] = BudgetSlice(*figures)


async def read_tail(
    conn: asyncpg.Connection, book: int, after_number: int, limit: int, timeout_seconds: float = 10.0
) -> tuple[Head, list[tuple[int, int, uuid.UUID | None]]]:
    """Read the head of a book, and number, kind and member of its entries after one: what other writers appended.

    At most ``limit`` of them, the oldest first; whoever gets fewer than the head's number promises knows that there
    are more.

    Raises:
        LookupError: if the ledger has no such book.
    """
    rows = await conn.fetch(READ_TAIL, book, after_number, limit, timeout=timeout_seconds)
    if not rows:
        raise LookupError(f"there is no book {book} in this ledger")
    head = Head(rows[0]["head_number"], rows[0]["head_hash"], rows[0]["head_booked_at"])
    return head, [(row["number"], row["kind"], row["member_id"]) for row in rows if row["number"] is not None]


async def lock_head(conn: asyncpg.Connection, book: int, timeout_seconds: float) -> None:
    """Take the fence of a book until the transaction ends."""
    await conn.execute(LOCK_HEAD, book, timeout=timeout_seconds)


async def write_decision(
    conn: asyncpg.Connection, read_head: Head, state: BookState, decision: Decision, timeout_seconds: float
) -> bool:
    """Append what was decided; return False, with nothing written, if another writer appended since it was read.

    Raises:
        asyncpg.UniqueViolationError: if a key was booked in another book since it was read; nothing is written.
    """
    written = await conn.fetchval(
        WRITE_BATCH,
        state.book,
        read_head.number,
        read_head.hash,
        decision.entries,
        decision.postings,
        _balances(state, decision),
        *_lots(decision),
        _totals(decision),
        _counters(state, decision),
        _rare_changes(state, decision),
        timeout=timeout_seconds,
    )
    if not written:
        return False
    for lot in decision.lots.values():
        lot.cached = lot.remaining_minor + lot.held_minor > 0
    return True


def _balances(state: BookState, decision: Decision) -> list[tuple[Any, ...]]:
    rows = []
    for key in decision.touched:
        account = state.accounts[key]
        rows.append(
            (
                *key,
                account.available_minor,
                account.pending_minor,
                account.held_minor,
                account.debt_minor,
                account.next_change_at,
            )
        )
    return rows


def _lots(decision: Decision) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the rows of lots that are new, that changed, and of which nothing is left."""
    new: list[tuple[Any, ...]] = []
    changed: list[tuple[Any, ...]] = []
    gone: list[tuple[Any, ...]] = []
    for ((member_id, unit), number, ordinal), lot in decision.lots.items():
        rows = changed if lot.cached else new
        if lot.remaining_minor == 0 and lot.held_minor == 0:
            if not lot.cached:
                continue  # it came and went within the batch
            rows = gone
        rows.append(
            (
                member_id,
                unit,
                number,
                ordinal,
                lot.pending,
                lot.granted_minor,
                lot.remaining_minor,
                lot.held_minor,
                lot.active_at,
                lot.expires_at,
            )
        )
    return new, changed, gone


def _totals(decision: Decision) -> list[tuple[Any, ...]]:
    """Add up the postings by UTC day, unit and account."""
    days = {entry.number: entry.booked_at.date() for entry in decision.entries}
    sums: dict[tuple[date, int, int], list[int]] = defaultdict(lambda: [0, 0])
    for posting in decision.postings:
        day = days[posting.number]
        sums[(day, posting.unit, posting.debit)][0] += posting.points_minor
        sums[(day, posting.unit, posting.credit)][1] += posting.points_minor
    return [(*key, *pair) for key, pair in sums.items()]


def _counters(state: BookState, decision: Decision) -> list[tuple[uuid.UUID, bytes]]:
    return [(member, serialise_counters(state.counters[member])) for member in decision.counted]


def _rare_changes(state: BookState, decision: Decision) -> str | None:
    """Return what few batches change in the caches, as the JSON that ``write_more`` and ``write_uses`` read."""
    more: dict[str, Any] = {}
    if decision.holds or decision.ended or decision.returns:
        more |= _holds_and_returns(decision)
    if decision.slots or decision.issued or decision.slices:
        more["uses"] = _uses(state, decision)
    return json.dumps(more) if more else None


def _holds_and_returns(decision: Decision) -> dict[str, Any]:
    ended = {hold.number for hold in decision.ended}
    return {
        "holds": [
            {
                "number": hold.number,
                "member_id": str(hold.member_id),
                "unit": hold.unit,
                "checkout_key": hold.checkout_key.hex(),
                "store_id": hold.store_id,
                "terminal_id": hold.terminal_id,
                "points_minor": hold.points_minor,
                "held_at": hold.held_at.isoformat(),
                "expires_at": hold.expires_at.isoformat(),
            }
            for hold in decision.holds
        ],
        "parts": [
            {
                "hold_number": hold.number,
                "lot_number": part.lot_number,
                "lot_ordinal": part.lot_ordinal,
                "points_minor": part.points_minor,
                "ordinal": ordinal,
            }
            for hold in decision.holds
            if hold.number not in ended
            for ordinal, part in enumerate(hold.parts, start=1)
        ],
        "ended": [
            {"number": hold.number, "how": hold.how, "ended_number": hold.ended_number} for hold in decision.ended
        ],
        "returns": [{"purchase_number": purchase, "last_number": last} for purchase, last in decision.returns.items()],
    }


def _uses(state: BookState, decision: Decision) -> dict[str, Any]:
    ended = {hold.number for hold in decision.ended}
    return {
        "ended": [{"number": number} for number in ended],
        "kept": [
            {"hold_number": hold.number, "code": slot.code, "slot": slot.slot}
            for hold in decision.holds
            if hold.number not in ended
            for slot in hold.coupons
        ],
        "given_up": [slot._asdict() for slot in decision.given_up],
        "taken": [
            {"code": slot.code, "slot": slot.slot, "number": use.number, "held": use.held}
            for slot, use in decision.slots.items()
            if use is not None
        ],
        "issued": [
            {
                "code": coupon.code,
                "number": number,
                "member_id": str(member),
                "series": coupon.series,
                "valid_from": coupon.valid_from.isoformat(),
                "valid_until": coupon.valid_until.isoformat() if coupon.valid_until else None,
            }
            for number, member, coupon in decision.issued
        ],
        "slices": [{"key": key, **state.budgets[key]._asdict()} for key in decision.slices],
    }
