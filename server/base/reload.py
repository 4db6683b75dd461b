"""Keeping what a worker has in memory up to date: one task that looks for new versions when it hears of one.

Every write of a topic raises its number in `server.config_version` and notifies; the loader of a topic reads what it
needs and replaces what its owner keeps. A change after a quiet second is loaded at once, a burst of changes once a
second. Whoever hears nothing (a connection that passes no notifications on) looks once a second all the same. While the
database is away everything goes on with what it had.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import asyncpg
import structlog

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
Loader = Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[None]]

NEWS_CHANNEL: Final = "tallypoint_config"
"""The channel on which whoever raises a version notifies."""
INTERVAL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 30.0
"""The longest that one look at the database may take, with the reading of a whole catalogue."""

READ_VERSIONS: Final = "SELECT topic, version FROM server.config_version"

_log = structlog.get_logger(__name__)


class Reloader:
    """Runs the loaders of topics whose version has changed, over one connection of its own."""

    def __init__(
        self,
        connect: Connect,
        loaders: Mapping[str, tuple[Loader, ...]],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """Take a function that opens a connection, and the loaders of each topic in `server.config_version`."""
        self._connect = connect
        self._loaders = dict(loaders)
        self._interval_seconds = interval_seconds
        self._loaded: dict[str, int] = {}
        self._conn: asyncpg.Connection[asyncpg.Record] | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._progress = asyncio.Condition()

    async def start(self) -> None:
        """Load everything, then keep it up to date until `stop`. Whatever fails the first time is raised."""
        await self.poll()
        self._task = asyncio.create_task(self._run(), name="reload")

    async def stop(self) -> None:
        """Stop looking, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._disconnect()

    def version(self, topic: str) -> int:
        """Return the version of a topic that is in memory; -1 before the first load."""
        return self._loaded.get(topic, -1)

    async def wait_for(self, topic: str, version: int) -> None:
        """Return when at least this version of a topic is in memory."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.version(topic) >= version)

    async def poll(self) -> bool:
        """Look now, and load what has changed; return whether anything has. Errors are raised."""
        changed = False
        async with self._one_at_a_time, asyncio.timeout(TIMEOUT_SECONDS):
            if self._conn is None or self._conn.is_closed():
                self._conn = await self._connect()
                await self._conn.add_listener(NEWS_CHANNEL, self._hear)
            versions = {record["topic"]: record["version"] for record in await self._conn.fetch(READ_VERSIONS)}
            for topic, loaders in self._loaders.items():
                # The version is read before the content, so the content is at least as new as we say.
                if versions[topic] != self.version(topic):
                    for loader in loaders:
                        await loader(self._conn)
                    await self._note(topic, versions[topic])
                    changed = True
        return changed

    def _hear(self, *_: object) -> None:
        self._news.set()

    async def _note(self, topic: str, version: int) -> None:
        async with self._progress:
            self._loaded[topic] = version
            self._progress.notify_all()
        _log.info("reloaded", topic=topic, version=version)

    async def _run(self) -> None:
        failed = False
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._interval_seconds)
            self._news.clear()
            try:
                changed = await self.poll()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed, and calls go on meanwhile
                if not failed:
                    _log.warning("reload_failed", error=f"{type(error).__name__}: {error}")
                failed = True
                await self._disconnect()
            else:
                failed = False
                if changed:
                    await asyncio.sleep(self._interval_seconds)

    async def _disconnect(self) -> None:
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.terminate()
