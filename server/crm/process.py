"""The CRM stream's process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.child import ChildTask
from server.crm import streamer


async def crm_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Stream the ledger into the CRM database. It is ready at once: a database that is away only makes it late."""
    ready()
    await streamer.run(task.dsns.ledger, task.dsns.crm, stop)
