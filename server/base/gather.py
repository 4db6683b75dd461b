"""Look-ups that travel together: those that arrive while a query is in flight share the next one.

There is no timer: a lone look-up goes at once, and under load the queries grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import asyncpg
from tallypoint.v1 import common_pb2

from server.base.database import CONNECTION_LOST, ledger_unavailable
from server.base.errors import Refused

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Connect = Callable[[], Awaitable[Connection]]

MAX_QUERY_LOOKUPS: Final = 500
"""The most look-ups of one query; more wait for the next."""
MAX_WAITING: Final = 10_000
"""The most look-ups that wait; above this, callers are told to come again."""
QUERY_TIMEOUT_SECONDS: Final = 2.5
"""Registers wait 3 s for an answer: a query that takes longer helps nobody."""

# Look-ups go by keys, whatever the keys: planning each query anew takes longer than running it, compiling it as well,
# and no plan may read whole tables, not even one that was made while they were empty.
USE_ONE_PLAN: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Waiting(NamedTuple, Generic[K, V]):
    key: K
    answer: asyncio.Future[V | None]


class Gatherer(Generic[K, V]):
    """Reads values by key over one connection of its own, which is opened when needed and again when lost."""

    def __init__(
        self, name: str, connect: Connect, load: Callable[[Connection, Sequence[K]], Awaitable[Mapping[K, V]]]
    ) -> None:
        """Take a function that opens a connection, and one that reads many keys by one query."""
        self._name = name
        self._connect = connect
        self._load = load
        self._conn: Connection | None = None
        self._waiting: list[_Waiting[K, V]] = []
        self._worker: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Return the value of a key, or None if there is none.

        Raises:
            Refused: LEDGER_UNAVAILABLE if the database cannot be reached, OVERLOADED if too many look-ups wait.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise Refused(
                common_pb2.REFUSAL_REASON_OVERLOADED,
                f"{MAX_WAITING} look-ups of {self._name} wait already; send the call again",
                retry_after_seconds=1.0,
            )
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(key, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=self._name)
        return await answer

    async def close(self) -> None:
        """Answer what waits, then close the connection."""
        if self._worker is not None:
            await self._worker
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_QUERY_LOOKUPS], self._waiting[MAX_QUERY_LOOKUPS:]
                await self._answer(batch)
        finally:
            self._worker = None

    async def _answer(self, batch: Sequence[_Waiting[K, V]]) -> None:
        failure: Exception | None = None
        found: Mapping[K, V] = {}
        try:
            found = await self._query(list({waiting.key for waiting in batch}))
        except CONNECTION_LOST as error:
            failure = ledger_unavailable(error)
        except Exception as error:  # noqa: BLE001 - a defect of ours: those who wait must hear of it
            failure = error
        for waiting in batch:
            if waiting.answer.done():  # the caller went away
                continue
            if failure is not None:
                waiting.answer.set_exception(failure)
            else:
                waiting.answer.set_result(found.get(waiting.key))

    async def _query(self, keys: Sequence[K]) -> Mapping[K, V]:
        """Run one query. A connection that was lost since the last one is opened anew, once."""
        was_open = self._conn is not None and not self._conn.is_closed()
        try:
            return await self._query_once(keys)
        except CONNECTION_LOST as error:
            self._drop_connection()
            if not was_open or isinstance(error, TimeoutError):
                raise
        try:
            return await self._query_once(keys)
        except CONNECTION_LOST:
            self._drop_connection()
            raise

    async def _query_once(self, keys: Sequence[K]) -> Mapping[K, V]:
        if self._conn is None or self._conn.is_closed():
            self._conn = await asyncio.wait_for(self._open(), QUERY_TIMEOUT_SECONDS)
        return await asyncio.wait_for(self._load(self._conn, keys), QUERY_TIMEOUT_SECONDS)

    async def _open(self) -> Connection:
        conn = await self._connect()
        await conn.execute(USE_ONE_PLAN)
        return conn

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None
