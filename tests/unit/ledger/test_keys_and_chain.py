"""Keys meet only where they should, and the chain covers every column."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2

from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.chain import entry_hash, microseconds
from ledger.entry.keys import business_key, content_hash

COLUMNS: dict[str, Any] = {
    "book": 3,
    "number": 7,
    "booked_at": datetime(2026, 3, 14, tzinfo=UTC),
    "event_at": datetime(2026, 3, 13, tzinfo=UTC),
    "kind": 1,
    "member_id": uuid.UUID(int=5),
    "message_id": bytes(range(16)),
    "business_key": bytes(range(16, 32)),
    "content_hash": bytes(32),
    "payload": b"milk",
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("book", 4),
        ("number", 8),
        ("booked_at", COLUMNS["booked_at"] + timedelta(microseconds=1)),
        ("event_at", COLUMNS["event_at"] + timedelta(microseconds=1)),
        ("kind", 2),
        ("member_id", None),
        ("message_id", None),
        ("business_key", None),
        ("content_hash", bytes(31) + b"\1"),
        ("payload", b"milK"),
    ],
)
def test_the_chain_covers_every_column(column: str, value: object) -> None:
    assert entry_hash(bytes(32), **COLUMNS) != entry_hash(bytes(32), **(COLUMNS | {column: value}))


def test_the_chain_covers_the_entry_before() -> None:
    assert entry_hash(bytes(32), **COLUMNS) != entry_hash(b"\1" + bytes(31), **COLUMNS)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_microseconds_are_exact(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(aware)) == aware


@dataclass(frozen=True)
class Key:
    """A receipt key as plain data."""

    store_id: str = "12"
    terminal_id: str = "3"
    business_date: str = "2026-03-14"
    receipt_number: int = 5

    def bytes(self) -> bytes:
        return business_key(common_pb2.ReceiptKey(**self.__dict__))


@pytest.mark.parametrize(
    "other",
    [
        Key(store_id="1", terminal_id="23"),
        Key(store_id="123", terminal_id=""),
        Key(business_date="2026-03-15"),
        Key(receipt_number=6),
        Key(terminal_id="31", receipt_number=5),
    ],
)
def test_two_receipts_never_share_a_key(other: Key) -> None:
    assert Key().bytes() != other.bytes()
    assert len(other.bytes()) == 16


def test_a_days_keys_are_neighbours() -> None:
    assert Key().bytes()[:2] == Key(store_id="99", receipt_number=77).bytes()[:2]


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01", "not a day"])
def test_a_date_outside_the_calendar_is_refused(day: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Key(business_date=day).bytes()


def test_content_parts_do_not_run_into_each_other() -> None:
    assert content_hash(None, b"ab", b"c") != content_hash(None, b"a", b"bc")
    assert content_hash(None, b"a") != content_hash(uuid.UUID(int=1), b"a")


@given(st.uuids(), st.integers(1, 4096))
def test_a_member_has_one_book(member_id: uuid.UUID, books: int) -> None:
    assert 0 <= book_of_member(member_id, books) < books
    assert 0 <= book_of_receipt(member_id.bytes, books) < books
