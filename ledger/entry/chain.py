"""The hash chain: every entry's hash covers the entry before it and every column of its own.

The hash of an entry is SHA-256 over: the hash of the entry before (32 bytes); book, number, ``booked_at``,
``event_at`` (microseconds since 1970) and kind as big-endian integers; then member id, message id, business key and
content hash, each with a length byte (zero if absent); then the payload to the end. Nothing can be moved from one
column to the next without changing the hash.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

_FIXED = struct.Struct(">IQqqH")
_BYTES = [bytes((number,)) for number in range(256)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970 of an aware datetime."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def entry_hash(  # noqa: PLR0913 - an entry's columns
    previous_hash: bytes,
    *,
    book: int,
    number: int,
    booked_at: datetime,
    event_at: datetime,
    kind: int,
    member_id: uuid.UUID | None,
    message_id: bytes | None,
    business_key: bytes | None,
    content_hash: bytes,
    payload: bytes,
) -> bytes:
    """Return the 32-byte hash of an entry, given the hash of the entry before it (the genesis hash for number 1)."""
    member = member_id.bytes if member_id is not None else b""
    message = message_id or b""
    key = business_key or b""
    return hashlib.sha256(
        b"".join(
            (
                previous_hash,
                _FIXED.pack(book, number, microseconds(booked_at), microseconds(event_at), kind),
                _BYTES[len(member)],
                member,
                _BYTES[len(message)],
                message,
                _BYTES[len(key)],
                key,
                _BYTES[len(content_hash)],
                content_hash,
                payload,
            )
        )
    ).digest()


class EntryRecord(NamedTuple):
    """An entry as it is stored; see ``ledger.entry`` in the migrations."""

    book: int
    number: int
    booked_at: datetime
    event_at: datetime
    kind: int
    member_id: uuid.UUID | None
    message_id: bytes | None
    business_key: bytes | None
    content_hash: bytes
    payload: bytes
    hash: bytes

    def hash_after(self, previous_hash: bytes) -> bytes:
        """Recompute this entry's hash on top of ``previous_hash``."""
        columns = self._asdict()
        del columns["hash"]
        return entry_hash(previous_hash, **columns)
