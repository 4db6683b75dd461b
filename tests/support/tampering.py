"""Changing a database as somebody with all rights would: any column, any row, and whole tails, within a transaction."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
from tallypoint.v1 import journal_pb2

from ledger.booking.append import lock_books
from ledger.booking.store import read_state
from ledger.entry.chain import EntryRecord
from ledger.entry.decide import decide
from ledger.entry.model import Command, Decision, EntryRow, PostingRow
from ledger.finance.proof import verify_closes, verify_summary
from ledger.reading.journal import read_entries, read_heads
from ledger.verify import Problem, verify

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Row = dict[str, Any]

# Read the columns of all tables of the ledger.
READ_COLUMNS = """
SELECT table_name::text, column_name::text FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'ledger' AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position
"""

# Read the columns of a table's primary key.
READ_KEY = """
SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indisprimary AND i.indrelid = $1::text::regclass
"""

ELSEWHERE = 99
"""The number of a book that there is not."""


class Change(NamedTuple):
    """What was changed: a row before and after; ``after`` is None for a row that was deleted."""

    table: str
    before: Row
    after: Row | None


@asynccontextmanager
async def tampering(dsn: str) -> AsyncIterator[Connection]:
    """Lend a superuser's connection past all triggers; what is done with it is undone at the end."""
    conn = await asyncpg.connect(dsn)
    transaction = conn.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        await conn.execute("SET LOCAL session_replication_role = replica")
        yield conn
    finally:
        await transaction.rollback()
        await conn.close()


async def problems_of(conn: Connection) -> list[Problem]:
    """Verify everything that can be verified; return what is wrong."""
    try:
        reports = await verify(conn)
    except LookupError as error:
        return [Problem(0, 0, str(error))]
    found = [report.problem for report in reports if report.problem is not None]
    if found:
        return found
    found = await verify_summary(conn)
    for (unit,) in await conn.fetch("SELECT DISTINCT unit FROM ledger.close"):
        found += [Problem(0, 0, text) for text in await verify_closes(conn, unit)]
    return found


async def rows_of(conn: Connection, table: str, condition: str = "true") -> list[Row]:
    """Return a table's rows in an order that does not depend on the past."""
    rows = [dict(row) for row in await conn.fetch(f"SELECT * FROM ledger.{table} WHERE {condition}")]
    return sorted(rows, key=repr)


async def change_column(conn: Connection, table: str, column: str, dice: random.Random) -> Change:
    """Change one column of a random row to another value of its type that the table's constraints let through."""
    rows = await rows_of(conn, table)
    dice.shuffle(rows)
    for row in rows[:50]:
        for value in other_values(column, row[column], dice):
            try:
                async with conn.transaction():
                    await _replace(conn, table, row, {**row, column: value})
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
                continue
            return Change(table, row, {**row, column: value})
    raise AssertionError(f"no row of ledger.{table} lets {column} be changed: the test needs other rows")


def other_values(column: str, value: Any, dice: random.Random) -> Iterator[Any]:
    """Yield other values of the same type; for books first one that there is, then one that there is not."""
    if column == "book":
        yield from ((value + 1) % 4, ELSEWHERE)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + dice.choice((1, 1000)), value - 1, value + 1, value + 1000)
    elif isinstance(value, bytes):
        if not value:
            yield b"x"
            return
        position = dice.randrange(len(value))
        yield value[:position] + bytes((value[position] ^ 1 << dice.randrange(8),)) + value[position + 1 :]
    elif isinstance(value, datetime):
        yield value + timedelta(microseconds=dice.choice((1, 10**9)))
    elif isinstance(value, date):
        yield from (value + timedelta(days=1), value + timedelta(days=31), value.replace(year=value.year + 1))
    elif isinstance(value, uuid.UUID):
        yield uuid.UUID(int=dice.getrandbits(128))
    elif isinstance(value, str):
        yield value + "x"
    else:
        assert value is None, f"a value of type {type(value)} in {column}: say here how to change it"
        yield from _for_null(column)


def _for_null(column: str) -> Iterator[Any]:
    """Yield something for a column that is NULL."""
    if column.endswith("_at"):
        yield datetime.fromisoformat("2026-05-01T00:00:00+00:00")
    elif column.endswith("_id"):
        yield from (uuid.UUID(int=1), bytes(16))
    elif column.endswith(("_day", "_until")):
        yield date(2026, 1, 1)
    elif column.endswith("_key"):
        yield bytes(16)
    else:
        yield 1


async def delete_row(conn: Connection, table: str, dice: random.Random) -> Change:
    """Delete a random row, of those that pruning would not take."""
    rows = await rows_of(conn, table, "how IS NULL" if table == "hold" else "true")
    if table == "message_key":
        oldest = {row["book"]: 0 for row in rows}
        for row in sorted(rows, key=lambda row: -row["number"]):
            oldest[row["book"]] = row["number"]
        rows = [row for row in rows if row["number"] > oldest[row["book"]]]
    row = dice.choice(rows)
    await _delete(conn, table, row)
    return Change(table, row, None)


async def swap_rows(conn: Connection, table: str, dice: random.Random) -> tuple[Change, Change]:
    """Swap what two random rows, of one book where it has two, say beyond their keys."""
    key = {name for (name,) in await conn.fetch(READ_KEY, f"ledger.{table}")} | {"book"}
    rows = await rows_of(conn, table)
    dice.shuffle(rows)
    for one in rows:
        for other in rows:
            differ = {name: other[name] for name in one.keys() - key} != {name: one[name] for name in one.keys() - key}
            if differ and (one.get("book") == other.get("book") or key == {"book"}):
                first = {name: one[name] if name in key else other[name] for name in one}
                second = {name: other[name] if name in key else one[name] for name in one}
                await _delete(conn, table, one)
                await _replace(conn, table, other, second)
                await _insert(conn, table, first)
                return Change(table, one, first), Change(table, other, second)
    raise AssertionError(f"ledger.{table} has no two rows that differ: the test needs other rows")


async def _replace(conn: Connection, table: str, before: Row, after: Row) -> None:
    await _delete(conn, table, before)
    await _insert(conn, table, after)


async def _delete(conn: Connection, table: str, row: Row) -> None:
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM ${n}" for n, name in enumerate(row, start=1))
    assert await conn.execute(f"DELETE FROM ledger.{table} WHERE {same}", *row.values()) == "DELETE 1"


async def _insert(conn: Connection, table: str, row: Row) -> None:
    values = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await conn.execute(f"INSERT INTO ledger.{table} ({', '.join(row)}) VALUES ({values})", *row.values())


# --- whole tails --------------------------------------------------------------------------------------------------


async def cut_tail(conn: Connection, book: int, last_number: int) -> None:
    """Take away all entries after one, with their postings, and rewind the head, as if they had never been."""
    await conn.execute("DELETE FROM ledger.entry WHERE book = $1 AND number > $2", book, last_number)
    await conn.execute("DELETE FROM ledger.posting WHERE book = $1 AND number > $2", book, last_number)
    await _set_head(conn, book)


async def forge_from(conn: Connection, book: int, number: int, changes: Mapping[str, Any]) -> None:
    """Change columns of an entry, and write its hash and those of all after it anew, so that the chain is right."""
    previous = await conn.fetchval("SELECT hash FROM ledger.entry WHERE book = $1 AND number = $2", book, number - 1)
    assert previous is not None, "forge from the second entry on"
    for entry in await read_entries(conn, book, number - 1, 10**6):
        forged: EntryRecord = entry._replace(**changes) if entry.number == number else entry
        previous = forged.hash_after(previous)
        await _delete(conn, "entry", entry._asdict())
        await _insert(conn, "entry", forged._replace(hash=previous)._asdict())
    await _set_head(conn, book)


async def _set_head(conn: Connection, book: int) -> None:
    """Let the head tell of the last entry that there is."""
    await conn.execute(
        "UPDATE ledger.book_head h SET number = e.number, hash = e.hash, booked_at = e.booked_at "
        "FROM (SELECT * FROM ledger.entry WHERE book = $1 ORDER BY number DESC LIMIT 1) e WHERE h.book = $1",
        book,
    )


async def append_without_caches(conn: Connection, command: Command, now: datetime) -> Decision:
    """Append what the ledger itself would append for a command, but tell the caches nothing."""
    await lock_books(conn, [command.book])
    decision = decide(await read_state(conn, command.book, [command], now, 10.0), [command], now)
    assert decision.entries, decision.verdicts
    for entry in decision.entries:
        await _insert(conn, "entry", {"book": command.book, **dict(zip(EntryRow._fields, entry, strict=True))})
    for posting in decision.postings:
        await _insert(conn, "posting", {"book": command.book, **dict(zip(PostingRow._fields, posting, strict=True))})
    await _set_head(conn, command.book)
    return decision


async def last_numbers(conn: Connection) -> dict[int, int]:
    """Return each book's last entry."""
    return {book: head.number for book, head in (await read_heads(conn)).items()}


def with_event(payload: bytes, change: Any) -> bytes:
    """Return a payload in which ``change`` changed the event."""
    event = journal_pb2.Event.FromString(payload)
    change(event)
    return event.SerializeToString()
