"""What every child process of the supervisor does: announce itself, wait for the end, run one event loop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import structlog

from server.base.settings import Settings
from server.base.storage import Dsns
from server.measuring.logs import configure_logs, describe_error

READY: Final = "ready"
GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Calls under way keep some ten thousand objects alive, and hardly any of them is garbage that only a collection finds:
with Python's own 700 young objects are looked at again and again (128 against 103 µs a command in a simulation)."""


@dataclass(frozen=True)
class ChildTask:
    """What a child is told at its birth; it crosses the process boundary by pickle."""

    name: str
    settings: Settings
    dsns: Dsns
    pos_address: str
    backoffice_address: str
    sockets: Path
    """A folder for sockets between the workers."""


ChildMain = Callable[[ChildTask, Callable[[], None], asyncio.Event], Awaitable[None]]
"""A child's work: its task, a function to call when it is ready, an event that is set when it must end."""


def run_child(main_name: str, task: ChildTask, supervisor: Connection) -> None:
    """Run a child until SIGTERM, or until the supervisor is gone. The entry point of the process.

    Args:
        main_name: Module and name of a `ChildMain`, such as ``server.process.worker:pos_worker_main``;
            a name, so that a process loads its own parts and nobody else's.
        task: What it is told.
        supervisor: The pipe on which it says that it is ready; its end is the supervisor's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    configure_logs(task.name, task.settings.log_level, show_error_texts=task.settings.development)
    log = structlog.get_logger("tallypoint.child")
    loop_factory = None
    if task.settings.event_loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_run(_load(main_name), task, supervisor))
    except Exception as error:  # noqa: BLE001 - the last line of defence: log it as an event and die
        log.error("child_failed", **describe_error(error))  # noqa: TRY400 - describe_error has the place
        raise SystemExit(1) from None


def _load(main_name: str) -> ChildMain:
    module, _, name = main_name.partition(":")
    main: ChildMain = getattr(importlib.import_module(module), name)
    return main


async def _run(main: ChildMain, task: ChildTask, supervisor: Connection) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def supervisor_is_gone() -> None:
        loop.remove_reader(supervisor.fileno())
        stop.set()

    loop.add_reader(supervisor.fileno(), supervisor_is_gone)

    def ready() -> None:
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the process: never look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        supervisor.send(READY)

    from server.measuring.process import process_measured  # the environment that metrics read is set by now

    async with process_measured(task.name):
        await main(task, ready, stop)
    # The loop takes its handler along when it closes; a second SIGTERM must not kill what is as good as over.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
