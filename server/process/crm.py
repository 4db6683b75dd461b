"""The CRM stream's process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.base.clock import utc_now
from server.base.storage import writer_connect
from server.crm import streamer
from server.measuring.ledger import watch_ledger
from server.process.child import ChildTask


async def crm_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Stream the ledger into the CRM database. It is ready at once: a database that is away only makes it late."""
    ready()
    connect = writer_connect(task.dsns.ledger, "tallypoint metrics")
    async with asyncio.TaskGroup() as group:
        group.create_task(watch_ledger(connect, stop, utc_now), name="ledger metrics")
        await streamer.run(task.dsns.ledger, task.dsns.crm, stop)
