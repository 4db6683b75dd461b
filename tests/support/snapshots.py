"""A bank-style reader: it adds up all accounts of all books in one snapshot, while load and faults go on.

Whatever happens, every committed state is balanced: what one account gave another one took, in the postings, in the
totals by day, and in what members have. A reader that ever sees anything else has seen points appear or vanish.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import asyncpg

from ledger.entry.model import AVAILABLE, CLEARING, DEBT, HELD, PENDING

PAUSE_SHARE: Final = 6
"""The reader rests so many times as long as it read, so that it takes little from those whom it watches."""
MIN_PAUSE_SECONDS: Final = 0.1
READ_TIMEOUT_SECONDS: Final = 30.0

LOST: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection may end with while faults go on."""

# Add up every account of every book from the postings, both sides of each.
READ_POSTED = """
SELECT unit, account, sum(points_minor)::bigint AS points_minor FROM ledger.posting_side GROUP BY unit, account
"""

# Add up every account of every book from the totals by day.
READ_TOTALLED = """
SELECT unit, account, sum(credit_minor - debit_minor)::bigint AS points_minor
FROM ledger.account_total GROUP BY unit, account
"""

# Add up what all members have, and count those who have less than nothing of anything.
READ_OWNED = """
SELECT unit, sum(available_minor)::bigint AS available, sum(pending_minor)::bigint AS pending,
       sum(held_minor)::bigint AS held, sum(debt_minor)::bigint AS debt,
       count(*) FILTER (WHERE least(available_minor, pending_minor, held_minor, debt_minor) < 0) AS negative
FROM ledger.balance GROUP BY unit
"""

# Add up what is left of all lots.
READ_LOTS = """
SELECT unit, coalesce(sum(remaining_minor) FILTER (WHERE NOT pending), 0)::bigint AS available,
       coalesce(sum(remaining_minor) FILTER (WHERE pending), 0)::bigint AS pending, sum(held_minor)::bigint AS held
FROM ledger.lot GROUP BY unit
"""

# Add up what open holds keep.
READ_HOLDS = "SELECT unit, sum(points_minor)::bigint AS held FROM ledger.hold WHERE how IS NULL GROUP BY unit"

# Compare the numbers of the books' heads with the entries that are there.
READ_HEADS = "SELECT sum(number)::bigint AS heads, (SELECT count(*) FROM ledger.entry) AS entries FROM ledger.book_head"

Accounts = dict[tuple[int, int], int]
"""Points by unit and account; what an account took is positive."""


class Snapshot(NamedTuple):
    """All accounts of all books at one moment, each from where it is kept."""

    entries: int
    heads: int
    posted: Accounts
    totalled: Accounts
    owned: Accounts
    lots: Accounts
    held: Accounts
    negative: int

    def problems(self) -> list[str]:
        """Say what does not add up; nothing in a sound ledger."""
        found = []
        if self.heads != self.entries:
            found.append(f"the heads count {self.heads} entries, and there are {self.entries}")
        if self.posted != self.totalled:
            found.append(f"postings add up to {self.posted}, the totals by day to {self.totalled}")
        for unit in {unit for unit, _ in self.posted}:
            whole = sum(points for (other, _), points in self.totalled.items() if other == unit)
            if whole != 0:
                found.append(f"all accounts of unit {unit} sum to {whole}")
            if self.posted.get((unit, CLEARING), 0) != 0:
                found.append(f"the clearing account of unit {unit} is at {self.posted[(unit, CLEARING)]}")
        of_members = {key: points for key, points in self.posted.items() if key[1] in (AVAILABLE, PENDING, HELD, DEBT)}
        for name, cache, accounts in (
            ("balances", self.owned, (AVAILABLE, PENDING, HELD, DEBT)),
            ("lots", self.lots, (AVAILABLE, PENDING, HELD)),
            ("open holds", self.held, (HELD,)),
        ):
            told = {key: points for key, points in of_members.items() if key[1] in accounts and points}
            if {key: points for key, points in cache.items() if points} != told:
                found.append(f"{name} add up to {cache}, the postings to {told}")
        if self.negative:
            found.append(f"{self.negative} members have less than nothing")
        return found


async def read_snapshot(conn: asyncpg.Connection[asyncpg.Record]) -> Snapshot:
    """Read everything in one transaction that sees one moment."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        posted = await conn.fetch(READ_POSTED)
        totalled = await conn.fetch(READ_TOTALLED)
        owned = await conn.fetch(READ_OWNED)
        lots = await conn.fetch(READ_LOTS)
        holds = await conn.fetch(READ_HOLDS)
        heads = await conn.fetchrow(READ_HEADS)
    assert heads is not None
    return Snapshot(
        entries=heads["entries"],
        heads=heads["heads"],
        posted={(row["unit"], row["account"]): row["points_minor"] for row in posted},
        totalled={(row["unit"], row["account"]): row["points_minor"] for row in totalled},
        owned={
            (row["unit"], account): row[name]
            for row in owned
            for name, account in (("available", AVAILABLE), ("pending", PENDING), ("held", HELD))
        }
        | {(row["unit"], DEBT): -row["debt"] for row in owned},
        lots={
            (row["unit"], account): row[name]
            for row in lots
            for name, account in (("available", AVAILABLE), ("pending", PENDING), ("held", HELD))
        },
        held={(row["unit"], HELD): row["held"] for row in holds},
        negative=sum(row["negative"] for row in owned),
    )


@dataclass
class BankReader:
    """Reads snapshots until it is stopped, through whatever happens to the database."""

    ledger_dsn: str
    snapshots: int = 0
    moments: int = 0
    """Snapshots that saw other entries than the one before."""
    interrupted: int = 0
    """Snapshots that a fault kept from being read."""

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            AssertionError: A snapshot does not add up.
        """
        loop = asyncio.get_running_loop()
        conn: asyncpg.Connection[asyncpg.Record] | None = None
        entries = -1
        try:
            while True:
                began = loop.time()
                try:
                    conn = conn or await asyncpg.connect(
                        self.ledger_dsn, timeout=READ_TIMEOUT_SECONDS, command_timeout=READ_TIMEOUT_SECONDS
                    )
                    snapshot = await read_snapshot(conn)
                except LOST:
                    self.interrupted += 1
                    if conn is not None:
                        conn.terminate()
                    conn = None
                else:
                    problems = snapshot.problems()
                    assert not problems, f"after {snapshot.entries} entries: {problems}"
                    self.snapshots += 1
                    self.moments += snapshot.entries != entries
                    entries = snapshot.entries
                await asyncio.sleep(max(MIN_PAUSE_SECONDS, PAUSE_SHARE * (loop.time() - began)))
        finally:
            if conn is not None:
                conn.terminate()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read during the block; what it finds wrong ends the block and is raised."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.run(), name="bank reader")
            yield
            task.cancel()
