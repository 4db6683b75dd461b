"""Forgetting message ids that nobody sends again, and holds that ended long ago. Entries are never forgotten.

The keys of a book are forgotten in the order of its entries, a small piece at a time. So how far it has come is found
in the data itself, by a binary search for the first entry whose key is still there: no index on the date burdens every
entry that is booked, and no state of its own can be wrong. `verify` and `rebuild` rely on that order, too.

Nothing here forgets what promotions count and use up. A member's counters drop what is too old by themselves
(`ledger.entry.counters`); a coupon that was used stays used, and a budget spent, for ever.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

PIECE_ENTRIES = 1000
"""Entries whose keys go in one statement: some ten milliseconds."""

# The first entry from $2 on that has a message id, and whether its key is still there.
PROBE = """
SELECT e.number, EXISTS (SELECT FROM ledger.message_key k WHERE k.message_id = e.message_id) AS kept
FROM ledger.entry e WHERE e.book = $1 AND e.number >= $2 AND e.message_id IS NOT NULL
ORDER BY e.number LIMIT 1
"""

# The message ids of a stretch of entries, as far as they were booked before $4.
READ_OLD = """
SELECT number, message_id FROM ledger.entry
WHERE book = $1 AND number >= $2 AND number < $3 AND booked_at < $4 ORDER BY number
"""

# Forget message ids of one book.
FORGET = """
DELETE FROM ledger.message_key WHERE message_id = ANY ($2) AND book = $1
"""

# Forget some of a book's oldest holds: those that have ended, began before $2, and are older than any open one, so
# that what is left is what came last.
FORGET_HOLDS = """
DELETE FROM ledger.hold h
USING (
    SELECT number, held_at FROM ledger.hold
    WHERE book = $1 AND how IS NOT NULL AND number < ALL (
        SELECT number FROM ledger.hold WHERE book = $1 AND how IS NULL)
    ORDER BY number LIMIT $3
) old
WHERE h.book = $1 AND h.number = old.number AND old.held_at < $2
"""


async def first_kept(conn: asyncpg.Connection, book: int, head_number: int) -> int:
    """Return the number from which on the keys of a book's entries are still there."""
    low, high = 1, head_number + 1
    while low < high:
        middle = (low + high) // 2
        row = await conn.fetchrow(PROBE, book, middle)
        if row is None or row["kept"]:
            high = middle
        else:
            low = row["number"] + 1
    return low


async def forget_message_ids(
    conn: asyncpg.Connection, book: int, first_number: int, before: datetime, piece_entries: int = PIECE_ENTRIES
) -> tuple[int, int | None]:
    """Forget the message ids of one piece of a book: of entries from ``first_number`` on, booked before ``before``.

    ``conn`` has the writer's rights.

    Returns:
        How many were forgotten, and the number with which the next piece begins; None if there is none.
    """
    entries = await conn.fetch(READ_OLD, book, first_number, first_number + piece_entries, before)
    ids = [entry["message_id"] for entry in entries if entry["message_id"] is not None]
    tag = await conn.execute(FORGET, book, ids) if ids else "DELETE 0"
    whole = len(entries) == piece_entries
    return int(tag.split()[1]), first_number + piece_entries if whole else None


async def forget_holds(
    conn: asyncpg.Connection, book: int, before: datetime, piece_rows: int = PIECE_ENTRIES
) -> tuple[int, bool]:
    """Forget one piece of a book's ended holds that began before ``before``.

    ``conn`` has the writer's rights.

    Returns:
        How many were forgotten, and whether there may be more.
    """
    count = int((await conn.execute(FORGET_HOLDS, book, before, piece_rows)).split()[1])
    return count, count == piece_rows
