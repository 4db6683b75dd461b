"""The clock of a service under test, which can be stepped back and forth while it runs."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HOOK_DIR: Final = Path(__file__).parent / "stepped_clock"
_ROOT: Final = Path(__file__).parents[2]


class SteppedClock:
    """Steps the clock of every process of a service that was started with `environment`."""

    def __init__(self, file: Path) -> None:
        """Keep the step in this file."""
        file.write_bytes(bytes(8))
        self._file = file

    @property
    def environment(self) -> Mapping[str, str]:
        """What the service needs in its environment."""
        paths = [str(_HOOK_DIR), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths), "ADVERSITY_CLOCK": str(self._file)}

    @contextmanager
    def stepped(self, seconds: float) -> Iterator[None]:
        """Step the clock, and put it right after the block."""
        self._write(seconds)
        try:
            yield
        finally:
            self._write(0)

    def _write(self, seconds: float) -> None:
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:8] = struct.pack("<q", round(seconds * 1000))
