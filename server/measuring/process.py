"""What each process uses, for Prometheus: processor, memory, and how late its event loop is."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from server.measuring import metrics
from server.measuring.buffer import BufferedHistogram, flush

LOOK_SECONDS: Final = 0.25
"""How often the event loop is tried."""
USE_EVERY: Final = 8
"""After so many looks processor time and memory are read."""
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def process_measured(name: str) -> AsyncIterator[None]:
    """Measure this process under a name such as ``worker-1`` while the block runs; flush all metrics at its end."""
    pauses = _Pauses()
    gc.callbacks.append(pauses)
    watching = asyncio.create_task(_watch(name, pauses), name="process metrics")
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        gc.callbacks.remove(pauses)
        _Use(name).tell()
        flush()


async def _watch(name: str, pauses: _Pauses) -> None:
    delay, use = BufferedHistogram(metrics.LOOP_DELAY_SECONDS.labels(name)), _Use(name)
    collector = BufferedHistogram(metrics.GC_SECONDS.labels(name))
    loop = asyncio.get_running_loop()
    while True:
        use.tell()
        for _ in range(USE_EVERY):
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            delay.observe(max(0.0, loop.time() - due))
            for seconds in pauses.take():
                collector.observe(seconds)


class _Use:
    """Processor time and memory of this process."""

    told_cpu_seconds = 0.0
    """What the counter has of this process; a counter of all processes of a name goes on after a death."""

    def __init__(self, name: str) -> None:
        self._cpu = metrics.PROCESS_CPU_SECONDS.labels(name)
        self._resident = metrics.PROCESS_RESIDENT_BYTES.labels(name)

    def tell(self) -> None:
        """Write both."""
        used = time.process_time()
        self._cpu.inc(used - _Use.told_cpu_seconds)
        _Use.told_cpu_seconds = used
        with suppress(OSError):  # no such file outside of Linux
            self._resident.set(int(_STATM.read_text().split()[1]) * _PAGE_BYTES)


class _Pauses:
    """Times the garbage collector. It is called in the middle of anything, in any thread, so it only takes notes."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._seconds: list[float] = []

    def __call__(self, phase: str, info: Mapping[str, Any]) -> None:  # noqa: ARG002 - the callback's shape
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self._seconds.append(time.perf_counter() - self._begun)

    def take(self) -> list[float]:
        """Return the pauses since the last time, in seconds."""
        seconds = self._seconds
        if seconds:
            self._seconds = []
        return seconds
