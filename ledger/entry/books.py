"""Books: which one a member or a receipt belongs to, and the hash before the first entry.

A book is a gap-free, hash-chained sequence of entries. The number of books is fixed when a ledger is opened, since
it decides where every member's entries stand.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime

MAX_BOOKS = 4096
"""The most books a ledger may have; a member is placed by the first 32 bits of a hash, so this stays fair."""

BEFORE_ALL_ENTRIES = datetime(1970, 1, 1, tzinfo=UTC)
"""The ``booked_at`` of an empty book's head: any entry is later."""


def book_of_member(member_id: uuid.UUID, books: int) -> int:
    """Return the book of a member: the first 32 bits of SHA-256 of the id's 16 bytes, modulo ``books``."""
    return int.from_bytes(hashlib.sha256(member_id.bytes).digest()[:4], "big") % books


def book_of_receipt(business_key: bytes, books: int) -> int:
    """Return the book of a receipt without a member: its key's last 32 bits, which are a hash's, modulo ``books``."""
    return int.from_bytes(business_key[-4:], "big") % books


def genesis_hash(ledger_id: uuid.UUID, book: int) -> bytes:
    """Return the hash before a book's first entry; it differs between any two ledgers and any two books."""
    return hashlib.sha256(b"tallypoint genesis" + ledger_id.bytes + book.to_bytes(4, "big")).digest()
