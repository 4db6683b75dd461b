"""The tables of a book's caches: which rows each must hold, given what the journal adds up to.

`verify` compares the tables with these rows, `rebuild` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from ledger.caches.points import BookCaches
from ledger.entry.counters import serialise_counters

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CacheTable:
    """A table of schema ``ledger`` whose rows follow from the journal, a book at a time.

    ``key`` and ``values`` name its columns, ``book`` aside. ``rows`` yields what a book must have, in that order of
    columns. ``prunable`` rows, which have a column ``number``, are forgotten in the order of their entries when nobody
    can ask for them any more.
    """

    name: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    rows: Callable[[BookCaches], Iterator[Row]]
    prunable: Callable[[Row], bool] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but ``book``."""
        return self.key + self.values

    async def read(self, conn: asyncpg.Connection, book: int, condition: str = "true", *arguments: object) -> list[Row]:
        """Return the rows of a book for which an SQL condition is true; its arguments count from ``$2``."""
        query = f"SELECT {', '.join(self.columns)} FROM ledger.{self.name} WHERE book = $1 AND {condition}"  # noqa: S608 - our own names
        return [tuple(row) for row in await conn.fetch(query, book, *arguments)]

    def not_pruned(self, expected: Iterable[Row], actual: Collection[Row]) -> list[Row]:
        """Return the expected rows without the prunable ones older than all that are there."""
        if self.prunable is None:
            return list(expected)
        position = self.columns.index("number")
        oldest = min((row[position] for row in actual if self.prunable(row)), default=None)
        return [row for row in expected if not self.prunable(row) or (oldest is not None and row[position] >= oldest)]

    def difference(self, expected: Iterable[Row], actual: Iterable[Row]) -> str | None:
        """Say what is wrong with the first row, in the order of keys, that is not as expected; None if all are."""
        width = len(self.key)
        found = {row[:width]: row for row in actual}
        wanted = {row[:width]: row for row in self.not_pruned(expected, found.values())}
        if wanted == found:
            return None
        for key in sorted(wanted.keys() | found.keys(), key=_sortable):
            want, have = wanted.get(key), found.get(key)
            if want == have:
                continue
            place = f"{self.name} {'/'.join(map(_row_in_words, key))}"
            if want is None or have is None:
                return f"{place} is {'missing' if have is None else 'there, and the journal knows nothing of it'}"
            parts = [
                f"{column} is {_row_in_words(b)}, and the journal says {_row_in_words(a)}"
                for column, a, b in zip(self.columns, want, have, strict=True)
                if a != b
            ]
            return f"{place}: {'; '.join(parts)}"
        return None


def _sortable(key: Row) -> tuple[str, ...]:
    return tuple(f"{part:020}" if isinstance(part, int) else str(part) for part in key)


def _row_in_words(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _balances(caches: BookCaches) -> Iterator[Row]:
    for key, account in caches.accounts.items():
        yield (
            *key,
            account.available_minor,
            account.pending_minor,
            account.held_minor,
            account.debt_minor,
            account.next_change_at,
        )


def _lots(caches: BookCaches) -> Iterator[Row]:
    for (key, _, _), lot in caches.lots.items():
        yield (
            *key,
            lot.number,
            lot.ordinal,
            lot.pending,
            lot.granted_minor,
            lot.remaining_minor,
            lot.held_minor,
            lot.active_at,
            lot.expires_at,
        )


def _holds(caches: BookCaches) -> Iterator[Row]:
    kept = [(hold, None, None) for hold in caches.holds.values()]
    over = [(hold, ended.how, ended.ended_number) for hold, ended in caches.ended_holds.values()]
    for hold, how, ended_number in [*kept, *over]:
        yield (
            hold.number,
            hold.member_id,
            hold.unit,
            hold.checkout_key,
            hold.store_id,
            hold.terminal_id,
            hold.points_minor,
            hold.held_at,
            hold.expires_at,
            how,
            ended_number,
        )


_HOW = 9


def _hold_parts(caches: BookCaches) -> Iterator[Row]:
    for hold in caches.holds.values():
        for ordinal, part in enumerate(hold.parts, start=1):
            yield (hold.number, part.lot_number, part.lot_ordinal, part.points_minor, ordinal)


def _hold_coupons(caches: BookCaches) -> Iterator[Row]:
    for hold in caches.holds.values():
        for slot in hold.coupons:
            yield (hold.number, *slot)


CACHE_TABLES = (
    CacheTable(
        "balance",
        ("member_id", "unit"),
        ("available_minor", "pending_minor", "held_minor", "debt_minor", "next_change_at"),
        _balances,
    ),
    CacheTable(
        "lot",
        ("member_id", "unit", "number", "ordinal"),
        ("pending", "granted_minor", "remaining_minor", "held_minor", "active_at", "expires_at"),
        _lots,
    ),
    CacheTable(
        "hold",
        ("number",),
        (
            *("member_id", "unit", "checkout_key", "store_id", "terminal_id"),
            *("points_minor", "held_at", "expires_at", "how", "ended_number"),
        ),
        _holds,
        prunable=lambda row: row[_HOW] is not None,
    ),
    CacheTable("hold_coupon", ("hold_number", "code", "slot"), (), _hold_coupons),
    CacheTable("hold_part", ("hold_number", "lot_number", "lot_ordinal"), ("points_minor", "ordinal"), _hold_parts),
    CacheTable("purchase_return", ("purchase_number",), ("last_number",), lambda caches: iter(caches.returns.items())),
    CacheTable(
        "account_total",
        ("booked_on", "unit", "account"),
        ("debit_minor", "credit_minor"),
        lambda caches: ((*key, *pair) for key, pair in caches.totals.items()),
    ),
    CacheTable(
        "receipt_key",
        ("business_key",),
        ("content_hash", "number"),
        lambda caches: ((key, record.content_hash, record.number) for key, record in caches.receipts.items()),
    ),
    CacheTable(
        "message_key",
        ("message_id",),
        ("content_hash", "number", "booked_on"),
        lambda caches: (
            (key, record.content_hash, record.number, caches.message_days[key])
            for key, record in caches.messages.items()
        ),
        prunable=lambda _row: True,
    ),
    CacheTable(
        "member_counters",
        ("member_id",),
        ("counters",),
        lambda caches: (
            (member_id, serialise_counters(counters)) for member_id, counters in caches.usage.counters.items()
        ),
    ),
    CacheTable(
        "coupon_use",
        ("code", "slot"),
        ("number", "held"),
        lambda caches: ((*slot, use.number, use.held) for slot, use in caches.usage.coupons.items()),
    ),
    CacheTable(
        "coupon_issued",
        ("code",),
        ("number", "member_id", "series", "valid_from", "valid_until"),
        lambda caches: ((code, *issued) for code, issued in caches.usage.issued.items()),
    ),
    CacheTable(
        "budget_slice",
        ("key",),
        ("granted", "used"),
        lambda caches: ((key, *part) for key, part in caches.usage.slices.items()),
    ),
)
"""All caches of a book. Keys of receipts and messages, and coupons, are keyed over all books; the others by book first.

Beside them stands `ledger.budget`, which sums `budget_slice` up over all books.
"""

BY_NAME: Mapping[str, CacheTable] = {table.name: table for table in CACHE_TABLES}
