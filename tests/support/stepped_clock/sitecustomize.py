"""Loaded by Python itself in every process of a service under test: lets its clock be stepped from outside.

The folder of this file stands on PYTHONPATH of such a service, and nowhere else. `tests.support.clock` writes the
file in which the step stands.
"""

from __future__ import annotations

import mmap
import os
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path


def _step(path: str) -> None:
    import server.base.clock

    with Path(path).open("rb") as file:
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    def stepped_now() -> datetime:
        (step_milliseconds,) = struct.unpack("<q", shared[:8])
        # This is the clock of the processes under test: the machine's own, and what the test steps it by.
        return datetime.now(UTC) + timedelta(milliseconds=step_milliseconds)

    server.base.clock.utc_now = stepped_now


if os.environ.get("ADVERSITY_CLOCK"):
    _step(os.environ["ADVERSITY_CLOCK"])
