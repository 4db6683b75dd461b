"""The register's own journal: what was sent, kept so that it can be sent again word for word.

A register that lost its connection must repeat the very receipt that it printed, although a new quote may say
something else by then. So a receipt is on disk here before it is sent, and a whole journal can be sent twice.
The file is SQLite; writes of all lanes are grouped, one transaction for all that came in while the last one
was written.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

_SCHEMA = """
CREATE TABLE IF NOT EXISTS terminal_key (
    store_id    TEXT NOT NULL,
    terminal_id TEXT NOT NULL,
    key         TEXT NOT NULL,
    PRIMARY KEY (store_id, terminal_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipt (
    basket_id     INTEGER PRIMARY KEY,
    request       BLOB NOT NULL,
    answer_sha256 BLOB
);
CREATE TABLE IF NOT EXISTS goods_return (
    basket_id     INTEGER PRIMARY KEY,
    request       BLOB NOT NULL,
    answer_sha256 BLOB
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_PUT_RECEIPT = "INSERT INTO receipt (basket_id, request) VALUES (?, ?) ON CONFLICT DO NOTHING"
_PUT_ANSWER = "UPDATE receipt SET answer_sha256 = ? WHERE basket_id = ?"
_FIND_RECEIPT = "SELECT request, answer_sha256 FROM receipt WHERE basket_id = ?"
_PUT_RETURN = "INSERT INTO goods_return (basket_id, request) VALUES (?, ?) ON CONFLICT DO NOTHING"
_PUT_RETURN_ANSWER = "UPDATE goods_return SET answer_sha256 = ? WHERE basket_id = ?"
_FIND_RETURN = "SELECT request, answer_sha256 FROM goods_return WHERE basket_id = ?"
_PUT_KEY = "INSERT OR REPLACE INTO terminal_key (store_id, terminal_id, key) VALUES (?, ?, ?)"
_PUT_FACT = "INSERT INTO fact (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


class StoredReceipt(NamedTuple):
    """A receipt as sent: the serialised CommitRequest, and the SHA-256 of its answer once there was one.

    Or a return: the serialised ReturnRequest.
    """

    request: bytes
    answer_sha256: bytes | None


@dataclass
class _Pending:
    receipts: list[tuple[int, bytes]] = field(default_factory=list)
    answers: list[tuple[bytes, int]] = field(default_factory=list)
    returns: list[tuple[int, bytes]] = field(default_factory=list)
    return_answers: list[tuple[bytes, int]] = field(default_factory=list)
    written: asyncio.Future[None] | None = None

    def __bool__(self) -> bool:
        return bool(self.receipts or self.answers or self.returns or self.return_answers)


class RegisterJournal:
    """The journal of all registers of one replay, in one file; use as an async context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it, folders included."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._reader = _connect(path)
        self._reader.executescript(_SCHEMA)
        self._writer = _connect(path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="register-journal")
        self._pending = _Pending()
        self._flushing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Nothing to do: the file is open already."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Write what is left and close the file."""
        while self._pending or self._flushing is not None:
            await self._schedule()
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()

    def find(self, basket_id: int) -> StoredReceipt | None:
        """The receipt of a basket, if it was ever sent; reads one row, in some 10 µs."""
        row = self._reader.execute(_FIND_RECEIPT, (basket_id,)).fetchone()
        return None if row is None else StoredReceipt(*row)

    def counts(self) -> tuple[int, int]:
        """How many receipts are stored, and how many of them were answered."""
        stored, answered = self._reader.execute("SELECT count(*), count(answer_sha256) FROM receipt").fetchone()
        return stored, answered

    def answered(self) -> set[int]:
        """The baskets that were answered."""
        rows = self._reader.execute("SELECT basket_id FROM receipt WHERE answer_sha256 IS NOT NULL")
        return {basket_id for (basket_id,) in rows}

    async def put_receipt(self, basket_id: int, request: bytes) -> None:
        """Keep a request; it is in the file when this returns. A receipt that is there stays as it is."""
        self._pending.receipts.append((basket_id, request))
        await asyncio.shield(self._schedule())  # a lane that is cancelled must not cancel what all lanes wait for

    def put_answer(self, basket_id: int, answer_sha256: bytes) -> None:
        """Keep an answer's hash with the next group written: if it is lost, the receipt is sent again."""
        self._pending.answers.append((answer_sha256, basket_id))

    def find_return(self, basket_id: int) -> StoredReceipt | None:
        """The return of a basket's goods, if it was ever sent."""
        row = self._reader.execute(_FIND_RETURN, (basket_id,)).fetchone()
        return None if row is None else StoredReceipt(*row)

    async def put_return(self, basket_id: int, request: bytes) -> None:
        """Keep the request of a return; it is in the file when this returns. One that is there stays as it is."""
        self._pending.returns.append((basket_id, request))
        await asyncio.shield(self._schedule())

    def put_return_answer(self, basket_id: int, answer_sha256: bytes) -> None:
        """Keep the answer's hash of a return with the next group written."""
        self._pending.return_answers.append((answer_sha256, basket_id))

    def keys(self) -> dict[tuple[str, str], str]:
        """The terminals' keys by store and terminal."""
        rows = self._reader.execute("SELECT store_id, terminal_id, key FROM terminal_key")
        return {(store_id, terminal_id): key for store_id, terminal_id, key in rows}

    def put_keys(self, keys: Iterable[tuple[str, str, str]]) -> None:
        """Keep terminals' keys (store, terminal, key): a server shows a key once."""
        with self._writer:
            self._writer.executemany(_PUT_KEY, keys)

    def fact(self, name: str) -> str | None:
        """A remembered fact about the replay, or None."""
        row = self._reader.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put_fact(self, name: str, value: str) -> None:
        """Remember a fact about the replay."""
        with self._writer:
            self._writer.execute(_PUT_FACT, (name, value))

    def _schedule(self) -> asyncio.Future[None]:
        """Have what is pending written; the future is done when it is in the file."""
        if self._pending.written is None:
            self._pending.written = asyncio.get_running_loop().create_future()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return self._pending.written

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending.written is not None:
            batch, self._pending = self._pending, _Pending()
            assert batch.written is not None
            try:
                await loop.run_in_executor(self._thread, self._write, batch)
            except sqlite3.Error as error:
                batch.written.set_exception(error)
            else:
                batch.written.set_result(None)
        self._flushing = None

    def _write(self, batch: _Pending) -> None:
        with self._writer:
            self._writer.executemany(_PUT_RECEIPT, batch.receipts)
            self._writer.executemany(_PUT_ANSWER, batch.answers)
            self._writer.executemany(_PUT_RETURN, batch.returns)
            self._writer.executemany(_PUT_RETURN_ANSWER, batch.return_answers)


def _connect(path: Path) -> sqlite3.Connection:
    # The writer's connection is used by its one thread and, before and after, by the thread that made it.
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
