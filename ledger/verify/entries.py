"""What one entry must be, by itself: its columns, its payload and its postings say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from google.protobuf.message import DecodeError
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry import semantics
from ledger.entry.accounts import own_pair
from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.chain import EntryRecord
from ledger.entry.keys import business_key, return_key
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
    PostingRow,
    Unit,
)
from ledger.verify.report import BadEntry

PURCHASE = int(journal_pb2.ENTRY_KIND_PURCHASE)
MEMBER_CHANGE = int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE)
HOLD = int(journal_pb2.ENTRY_KIND_HOLD)
CANCEL = int(journal_pb2.ENTRY_KIND_CANCEL)
RETURN = int(journal_pb2.ENTRY_KIND_RETURN)
TIME = int(journal_pb2.ENTRY_KIND_TIME)
ADJUSTMENT = int(journal_pb2.ENTRY_KIND_ADJUSTMENT)
TRANSFER = int(journal_pb2.ENTRY_KIND_TRANSFER)
CLOSE = int(journal_pb2.ENTRY_KIND_CLOSE)
BUDGET = int(journal_pb2.ENTRY_KIND_BUDGET)

_KINDS: Mapping[str | None, int] = {
    "purchase": PURCHASE,
    "member_change": MEMBER_CHANGE,
    "hold": HOLD,
    "cancel": CANCEL,
    "goods_return": RETURN,
    "time_passed": TIME,
    "adjustment": ADJUSTMENT,
    "transfer": TRANSFER,
    "close": CLOSE,
    "budget_lease": BUDGET,
}

# What time does to points; it comes first in every entry of a member.
_TIME_MOVES = {(HELD, AVAILABLE), (PENDING, AVAILABLE), (AVAILABLE, EXPIRED), (AVAILABLE, DEBT)}

# The accounts between which each kind of entry may move points, debit first; a partner's stands as the programme's own.
_MOVES: Mapping[int, set[tuple[int, int]]] = {
    PURCHASE: _TIME_MOVES | {(ISSUED, AVAILABLE), (ISSUED, PENDING), (AVAILABLE, REDEEMED), (HELD, REDEEMED)},
    MEMBER_CHANGE: set(),
    HOLD: _TIME_MOVES | {(AVAILABLE, HELD)},
    CANCEL: _TIME_MOVES,
    RETURN: _TIME_MOVES
    | {(REDEEMED, AVAILABLE), (AVAILABLE, ISSUED), (PENDING, ISSUED), (DEBT, ISSUED)}
    | {(ISSUED, ISSUED)},
    TIME: _TIME_MOVES,
    ADJUSTMENT: _TIME_MOVES | {(ADJUSTED, AVAILABLE), (ADJUSTED, PENDING), (AVAILABLE, ADJUSTED)},
    TRANSFER: _TIME_MOVES
    | {(AVAILABLE, CLEARING), (PENDING, CLEARING), (CLEARING, DEBT)}
    | {(CLEARING, AVAILABLE), (CLEARING, PENDING), (DEBT, CLEARING)},
    CLOSE: set(),
    BUDGET: set(),
}

# The fields of a settlement that each kind of entry sets; the others that tell of points moved stay zero.
_TELLS: Mapping[int, set[str]] = {
    PURCHASE: {
        "spent_points_minor",
        "captured_points_minor",
        "accrual_points_minor",
        "pending_points_minor",
        "debt_paid_points_minor",
        "released_points_minor",
    },
    MEMBER_CHANGE: set(),
    HOLD: {"held_points_minor", "released_points_minor"},
    CANCEL: {"released_points_minor"},
    RETURN: {
        "refund_points_minor",
        "clawback_points_minor",
        "clawback_debt_points_minor",
        "released_points_minor",
    },
    TIME: set(),
    ADJUSTMENT: {"debt_paid_points_minor", "released_points_minor"},
    TRANSFER: {"released_points_minor", "debt_paid_points_minor"},
    CLOSE: set(),
    BUDGET: set(),
}

_RECEIPTS = (PURCHASE, RETURN)
"""Kinds that have a receipt of their own; they may be without a member."""

_OF_THE_BOOK = (CLOSE, BUDGET)
"""Kinds that never have a member."""


def event_of(entry: EntryRecord, books: int) -> journal_pb2.Event:
    """Parse an entry's payload and hold its columns against it, in a ledger of ``books`` books.

    Raises:
        BadEntry: if a column does not say what the payload says, or the entry stands in another member's book.
    """
    try:
        event = journal_pb2.Event.FromString(entry.payload)
    except DecodeError as error:
        raise BadEntry("its payload cannot be read") from error
    which = event.WhichOneof("event")
    if which is None or entry.kind != _KINDS.get(which):
        raise BadEntry(f"its kind is {entry.kind}, and its payload is of {which or 'a kind that is not known'}")
    body: Any = getattr(event, which)
    if (str(entry.member_id) if entry.member_id else "") != body.member_id:
        raise BadEntry("its member is not the one in its payload")
    if entry.kind in _OF_THE_BOOK and entry.member_id is not None:
        raise BadEntry("it concerns a book, and has a member")
    if entry.member_id is None and entry.kind not in (*_RECEIPTS, *_OF_THE_BOOK):
        raise BadEntry("it has no member")
    if entry.business_key != _key_of(event, entry.kind):
        raise BadEntry("its key is not that of the receipt in its payload")
    if entry.kind in _RECEIPTS:
        event_at = event.purchase.receipt.event_at if entry.kind == PURCHASE else event.goods_return.event_at
        if entry.event_at != event_at.ToDatetime(tzinfo=UTC):
            raise BadEntry("its time is not that of the receipt in its payload")
    _check_book(entry, event, books)
    return event


def _key_of(event: journal_pb2.Event, kind: int) -> bytes | None:
    """Return the key under which an entry's receipt counts once; the first semantics knew no kinds of keys."""
    if kind == PURCHASE:
        return business_key(event.purchase.receipt_key)
    if kind == RETURN:
        form = business_key if event.semantics == semantics.FIRST else return_key
        return form(event.goods_return.receipt_key)
    return None


def _check_book(entry: EntryRecord, event: journal_pb2.Event, books: int) -> None:
    """An entry stands in its member's book; without a member in that of the receipt, or of the receipt returned."""
    if entry.member_id is not None:
        book = book_of_member(entry.member_id, books)
    elif entry.kind == PURCHASE:
        book = book_of_receipt(business_key(event.purchase.receipt_key), books)
    elif entry.kind == RETURN:
        book = book_of_receipt(business_key(event.goods_return.purchase_key), books)
    else:
        return
    if book != entry.book:
        raise BadEntry(f"it belongs to book {book}")


def check_settlement(event: journal_pb2.Event, kind: int, postings: list[PostingRow]) -> None:
    """Hold what the caller was told against what was posted.

    Raises:
        BadEntry: if they differ, or the kind of entry cannot move points in this way.
    """
    moved, own_lots_paid = _sums_by_accounts(kind, postings)
    captured = sum(end.captured_points_minor for end in event.hold_ends)
    released = sum(end.released_points_minor for end in event.hold_ends)
    if (captured, released) != (moved[HELD, REDEEMED], moved[HELD, AVAILABLE]):
        raise BadEntry("the holds that end with it do not give what its postings take from them")
    if not event.settlement.units:  # else `check_units` tells the units apart
        _check_told(event.settlement, kind, moved, released, own_lots_paid)
    if kind == ADJUSTMENT:
        given = moved[ADJUSTED, AVAILABLE] + moved[ADJUSTED, PENDING] - moved[AVAILABLE, ADJUSTED]
        if given != event.adjustment.points_minor:
            raise BadEntry(f"it adjusts by {event.adjustment.points_minor}, and its postings by {given}")
    if kind == TRANSFER:
        _check_direction(event.transfer, moved)


def _sums_by_accounts(kind: int, postings: list[PostingRow]) -> tuple[Counter[tuple[int, int]], int]:
    """Add postings up by accounts; and what of the entry's own lots paid a debt."""
    moved: Counter[tuple[int, int]] = Counter()
    own_lots_paid = 0
    for posting in postings:
        pair = own_pair(kind, posting.debit, posting.credit)
        if pair not in _MOVES[kind]:
            raise BadEntry(
                f"its posting {posting.ordinal} moves points between accounts {posting.debit} and {posting.credit}"
            )
        moved[pair] += posting.points_minor
        if pair == (AVAILABLE, DEBT) and posting.lot_number == posting.number:
            own_lots_paid += posting.points_minor
    return moved, own_lots_paid


def check_units(event: journal_pb2.Event, kind: int, postings: list[PostingRow], units: Mapping[str, Unit]) -> None:
    """Hold what the caller was told of several units against what was posted of each.

    Raises:
        BadEntry: if they differ, or a unit is told twice.
    """
    settlement = event.settlement
    codes = [settlement.balance.unit, *(told.balance.unit for told in settlement.units)]
    if len(set(codes)) < len(codes) or (settlement.units and kind not in _RECEIPTS):
        raise BadEntry(f"it tells of points {', '.join(map(repr, codes))}, which it cannot")
    numbers = {code: unit_of(balance, units).number for code, balance in zip(codes, _balances(settlement), strict=True)}
    strange = {posting.unit for posting in postings} - set(numbers.values())
    if strange:
        raise BadEntry(f"its balance is in points {codes[0]!r}, and its postings are not")
    if not settlement.units:
        return
    released = sum(end.released_points_minor for end in event.hold_ends)
    moved, own_lots_paid = _sums_by_accounts(kind, [each for each in postings if each.unit == numbers[codes[0]]])
    _check_told(settlement, kind, moved, released, own_lots_paid)
    for told in settlement.units:
        moved, _ = _sums_by_accounts(kind, [each for each in postings if each.unit == numbers[told.balance.unit]])
        posted = _posted(moved)
        for name in ("spent_points_minor", "accrual_points_minor", "refund_points_minor", "clawback_points_minor"):
            expected = posted[name] if name in _TELLS[kind] else 0
            if getattr(told, name) != expected:
                raise BadEntry(
                    f"its settlement of points {told.balance.unit!r} says {name} {getattr(told, name)}, "
                    f"and its postings say {expected}"
                )


def _balances(settlement: checkout_pb2.Settlement) -> list[common_pb2.Balance]:
    return [settlement.balance, *(told.balance for told in settlement.units)]


def _posted(moved: Mapping[tuple[int, int], int]) -> dict[str, int]:
    """Return what postings say of the figures that are told of every unit."""
    return {
        "spent_points_minor": moved[AVAILABLE, REDEEMED] + moved[HELD, REDEEMED],
        "accrual_points_minor": moved[ISSUED, AVAILABLE] + moved[ISSUED, PENDING],
        "refund_points_minor": moved[REDEEMED, AVAILABLE],
        "clawback_points_minor": moved[AVAILABLE, ISSUED] + moved[PENDING, ISSUED],
    }


def _check_told(
    settlement: checkout_pb2.Settlement,
    kind: int,
    moved: Mapping[tuple[int, int], int],
    released: int,
    own_lots_paid: int,
) -> None:
    """Hold each field of a settlement against the postings."""
    debt_paid = own_lots_paid
    if kind == TRANSFER:  # a debt that comes along may be paid from lots that the member had before
        debt_paid = min(max(settlement.debt_paid_points_minor, own_lots_paid), moved[AVAILABLE, DEBT])
    posted = _posted(moved) | {
        "captured_points_minor": moved[HELD, REDEEMED],
        "pending_points_minor": moved[ISSUED, PENDING],
        "debt_paid_points_minor": debt_paid,
        "held_points_minor": moved[AVAILABLE, HELD],
        "released_points_minor": released,
        "clawback_debt_points_minor": moved[DEBT, ISSUED],
    }
    for name, points_minor in posted.items():
        told, expected = getattr(settlement, name), points_minor if name in _TELLS[kind] else 0
        if told != expected:
            raise BadEntry(f"its settlement says {name} {told}, and its postings say {expected}")


def _check_direction(transfer: journal_pb2.Transfer, moved: Mapping[tuple[int, int], int]) -> None:
    into = moved[CLEARING, AVAILABLE] + moved[CLEARING, PENDING] + moved[DEBT, CLEARING]
    out = moved[AVAILABLE, CLEARING] + moved[PENDING, CLEARING] + moved[CLEARING, DEBT]
    if into if transfer.outgoing else out:
        raise BadEntry("it is one side of a transfer, and its postings are of the other side")


def unit_of(balance: common_pb2.Balance, units: Mapping[str, Unit]) -> Unit:
    """Hold the unit in which a balance was told against the table of units; return the unit.

    Raises:
        BadEntry: if there is no such unit, or it has other decimals.
    """
    unit = units.get(balance.unit)
    if unit is None or unit.precision != balance.precision:
        known = "does not have it" if unit is None else f"gives it {unit.precision}"
        raise BadEntry(
            f"its balance is in points {balance.unit!r} with {balance.precision} decimals; the table of units {known}"
        )
    return unit
