"""Members' counters as the cache has them: for a look-up of members, and for whoever asks which members have some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

import asyncpg

from ledger.entry.counters import parse_counters
from ledger.entry.model import Counter

# The counters of members who have one of these, as it stands in the message: a length and the name.
READ_COUNTERS = """
SELECT counters FROM ledger.member_counters
WHERE EXISTS (SELECT FROM unnest($1::bytea[]) AS wanted (key) WHERE position(key IN counters) > 0)
"""


def counters_of(member: str, name: str) -> str:
    """Return the join that adds a member's counters to a statement about members, as ``<name>.counters``.

    It is null where there are none, and otherwise what ``entry.counters.parse_counters`` reads. ``member`` is the name
    of a row in the statement that has a member's ``book`` and ``member_id``.
    """
    return (
        f"LEFT JOIN ledger.member_counters {name}"
        f" ON {name}.book = {member}.book AND {name}.member_id = {member}.member_id"
    )


def has_counters(member: str) -> str:
    """Return the condition that something is counted for somebody, for a statement about members.

    ``member`` is the name of a row there that has a member's ``book`` and ``member_id``.
    """
    return f"""EXISTS (
        SELECT FROM ledger.member_counters c WHERE c.book = {member}.book AND c.member_id = {member}.member_id
          AND length(c.counters) > 0)"""


async def counters_with_any(conn: asyncpg.Connection, keys: Collection[str]) -> AsyncIterator[Mapping[str, Counter]]:
    """Yield the counters of each member who may have one of these; all rows are read. ``conn`` is in a transaction."""
    wanted = [bytes([len(key.encode())]) + key.encode() for key in keys]
    async for row in conn.cursor(READ_COUNTERS, wanted):
        yield parse_counters(row["counters"])
