"""A quick look at whether the CRM database agrees with the ledger: counts, sums and chain heads, book by book.

Both databases add up what they have as of the CRM database's cursors; entries never change, so what the ledger books
meanwhile makes no difference. It finds what is missing, extra or doubled, and any figure that changes a sum; which row
it is, and what else differs, is found by ``compare``.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from tallypoint.v1 import journal_pb2

from ledger.entry.books import genesis_hash
from ledger.finance.accounts import ACCOUNT_NAMES
from ledger.reading.books import read_identity
from ledger.reading.journal import read_hashes, read_heads
from ledger.reading.totals import LONG_SECONDS, count_ended_holds, count_entries, sum_postings
from server.crm import source
from server.crm.rows import known_name
from server.crm.store import FOLLOWING, Cursor, check_identity, read_cursors

if TYPE_CHECKING:
    from server.base.database import Connection

SHOWN_HASH_BYTES: Final = 8

_KINDS: Final = {
    int(journal_pb2.ENTRY_KIND_PURCHASE): "receipts",
    int(journal_pb2.ENTRY_KIND_RETURN): "returns",
    int(journal_pb2.ENTRY_KIND_HOLD): "holds",
    int(journal_pb2.ENTRY_KIND_ADJUSTMENT): "adjustments",
    int(journal_pb2.ENTRY_KIND_TRANSFER): "transfers",
    int(journal_pb2.ENTRY_KIND_CLOSE): "closes",
}
"""The kinds of entries that have a row of their own in the CRM database."""

# Count the CRM database's rows.
COUNT_ROWS: Final = """
SELECT book, 'receipts' AS what, count(*) AS rows FROM crm.receipt GROUP BY book
UNION ALL SELECT book, 'returns', count(*) FROM crm.goods_return GROUP BY book
UNION ALL SELECT book, 'holds', count(*) FROM crm.hold GROUP BY book
UNION ALL SELECT book, 'ended holds', count(*) FROM crm.hold_end GROUP BY book
UNION ALL SELECT book, 'adjustments', count(*) FROM crm.adjustment GROUP BY book
UNION ALL SELECT book, 'transfers', count(*) FROM crm.transfer GROUP BY book
UNION ALL SELECT book, 'closes', count(*) FROM crm.close GROUP BY book
"""

# Add up the CRM database's movements, by unit and accounts.
SUM_MOVEMENTS: Final = """
SELECT book, unit, debit, credit, count(*) AS rows, sum(points_minor)::bigint AS points_minor
FROM crm.points_movement GROUP BY book, unit, debit, credit
"""

Figure = int | str
"""A count, a sum of points in the unit's smallest fraction, or a word."""


class Line(NamedTuple):
    """One figure of a book on both sides. ``decimals`` are those of a sum of points; 0 for others."""

    what: str
    ledger: Figure
    crm: Figure
    decimals: int = 0

    @property
    def equal(self) -> bool:
        """Whether both sides agree."""
        return self.ledger == self.crm

    def shown(self, figure: Figure) -> str:
        """Return a figure for people."""
        return figure if isinstance(figure, str) else f"{Decimal(figure).scaleb(-self.decimals):,}"


@dataclass(slots=True)
class BookReconciliation:
    """What both databases say of one book. ``waiting`` entries are in the ledger and not yet applied."""

    book: int
    waiting: int
    lines: list[Line]

    @property
    def equal(self) -> bool:
        """Whether both sides agree."""
        return all(line.equal for line in self.lines)


class Account(NamedTuple):
    """An account of one unit, or one side of it."""

    unit: int
    name: str
    side: str


@dataclass(slots=True)
class _Side:
    """What one database says of one book."""

    state: str = FOLLOWING
    entries: int = 0
    hash: bytes = b""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    points_minor: dict[Account, int] = field(default_factory=lambda: defaultdict(int))

    def move(self, unit: int, debit: str, credit: str, movements: int, points_minor: int) -> None:
        """Take in what moved from one account to another."""
        self.counts["points movements"] += movements
        self.points_minor[Account(unit, debit, "debited")] += points_minor
        self.points_minor[Account(unit, credit, "credited")] += points_minor


async def reconcile(ledger_conn: Connection, crm_conn: Connection) -> list[BookReconciliation]:
    """Compare counts, sums and chain heads of every book as of the CRM database's cursors.

    Raises:
        ForeignLedgerError: The CRM database follows another ledger.
    """
    async with crm_conn.transaction(isolation="repeatable_read", readonly=True):
        identity = await read_identity(ledger_conn)
        cursors = await read_cursors(crm_conn)
        check_identity(cursors, identity)
        theirs = await _crm_sides(crm_conn, cursors)
    # Read after the cursors, so the ledger has all that they have.
    async with ledger_conn.transaction(isolation="repeatable_read", readonly=True):
        heads, names = await read_heads(ledger_conn), await source.read_names(ledger_conn)
        positions = {book: cursors[book].number if book in cursors else 0 for book in heads}
        ours = await _ledger_sides(ledger_conn, identity.ledger_id, positions, names.partners)
        units = {row.unit: (row.code, row.points_precision) for row in names.units}
    return [
        BookReconciliation(
            book,
            max(0, heads[book].number - positions[book]) if book in heads else 0,
            _lines(ours.get(book, _Side()), theirs.get(book, _Side()), units),
        )
        for book in sorted(heads.keys() | theirs.keys())
    ]


async def _ledger_sides(
    conn: Connection, ledger_id: uuid.UUID, positions: Mapping[int, int], partners: Mapping[int, str]
) -> dict[int, _Side]:
    sides = {book: _Side(hash=b"" if number else genesis_hash(ledger_id, book)) for book, number in positions.items()}
    for book, digest in (await read_hashes(conn, positions)).items():
        sides[book].hash = digest
    for book, kind, entries in await count_entries(conn, positions):
        sides[book].entries += entries
        if kind in _KINDS:
            sides[book].counts[_KINDS[kind]] = entries
    for book, holds in (await count_ended_holds(conn, positions)).items():
        sides[book].counts["ended holds"] = holds
    for book, unit, debit, credit, *sums in await sum_postings(conn, positions):
        sides[book].move(unit, known_name(debit, partners), known_name(credit, partners), *sums)
    return sides


async def _crm_sides(conn: Connection, cursors: Mapping[int, Cursor]) -> dict[int, _Side]:
    sides: dict[int, _Side] = defaultdict(_Side)
    for book, cursor in cursors.items():
        sides[book] = _Side(cursor.state, cursor.number, cursor.hash)
    for row in await conn.fetch(COUNT_ROWS, timeout=LONG_SECONDS):
        sides[row["book"]].counts[row["what"]] = row["rows"]
    for book, *moved in await conn.fetch(SUM_MOVEMENTS, timeout=LONG_SECONDS):
        sides[book].move(*moved)
    return sides


def _lines(ledger: _Side, crm: _Side, units: Mapping[int, tuple[str, int]]) -> list[Line]:
    lines = [
        Line("stream", ledger.state, crm.state),
        Line("entries", ledger.entries, crm.entries),
        Line("hash at the cursor", _shown_hash(ledger.hash), _shown_hash(crm.hash)),
    ]
    lines += [
        Line(what, ledger.counts[what], crm.counts[what])
        for what in (*_KINDS.values(), "ended holds", "points movements")
        if what in ledger.counts or what in crm.counts
    ]
    for account in _in_order(ledger.points_minor.keys() | crm.points_minor.keys()):
        code, precision = units.get(account.unit, (f"unit {account.unit}", 0))
        sums = ledger.points_minor[account], crm.points_minor[account]
        lines.append(Line(f"{code} {account.name}, {account.side}", *sums, decimals=precision))
    return lines


def _in_order(accounts: Iterable[Account]) -> list[Account]:
    """Return accounts as the journal counts them, debits first; unknown ones last."""
    places = {name: number for number, name in ACCOUNT_NAMES.items()}
    return sorted(accounts, key=lambda a: (a.unit, places.get(a.name, len(places) * 10), a.name, a.side == "credited"))


def _shown_hash(digest: bytes) -> str:
    return digest[:SHOWN_HASH_BYTES].hex() or "none"
