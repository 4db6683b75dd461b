"""When a call was where: the log of slow calls says it, and traces show it.

A step's name says what was over at its mark: ``admitted``, ``parsed``, ``forwarded`` (answered by the book's owner),
``waited`` (for the book's turn), ``member`` (found), ``judged``, ``queued``, ``read``, ``decided``, ``written``,
``answered``.
"""

from __future__ import annotations

import marshal
import struct
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from server.measuring.metrics import SLOW_CALLS

MAX_LOGGED_PER_SECOND: Final = 10
"""A slow database makes every call slow: the log tells of some, and counts the others."""
_LENGTH: Final = struct.Struct("!H")
_now: Final = time.perf_counter
_log = structlog.get_logger("tallypoint.slow")


class Terminal(Protocol):
    """Where a call came from, for whoever looks at it; both are empty outside of terminals."""

    @property
    def store_id(self) -> str:
        """The store."""

    @property
    def terminal_id(self) -> str:
        """The register or kiosk in it."""


class Trace(Protocol):
    """The trace of a call that is traced; see `server.measuring.tracing`."""

    def end(self, code: str, caller: Terminal | None, timeline: Timeline) -> None:
        """End it."""

    def header(self) -> str:
        """Return the ``traceparent`` for whoever goes on with the call."""


class Timeline:
    """The steps of one call, each with its end in seconds of `time.perf_counter`; a mark costs 0.2 µs."""

    __slots__ = ("begun", "steps", "trace")

    def __init__(self) -> None:
        """Begin now."""
        self.begun = _now()
        self.steps: list[tuple[str, float]] = []
        self.trace: Trace | None = None

    def mark(self, step: str) -> None:
        """Note that a step is over now."""
        self.steps.append((step, _now()))

    def mark_at(self, step: str, at: float) -> None:
        """Note that a step was over at a moment of `time.perf_counter`, such as a batch's."""
        self.steps.append((step, at))

    def packed(self) -> bytes:
        """Return the steps for another process of this machine: its clock of durations is the same."""
        steps = marshal.dumps(self.steps)
        return _LENGTH.pack(len(steps)) + steps

    def take_packed(self, data: bytes) -> bytes:
        """Add the steps of another process from the beginning of ``data``, and return what follows them."""
        (length,) = _LENGTH.unpack_from(data)
        end = _LENGTH.size + length
        self.steps += marshal.loads(data[_LENGTH.size : end])  # noqa: S302 - a worker of ours wrote it
        return data[end:]

    def breakdown_milliseconds(self) -> dict[str, float]:
        """Return how long each step took, in the order of their ends; a step that came twice is the sum of both."""
        parts: dict[str, float] = {}
        before = self.begun
        for step, at in sorted(self.steps, key=lambda pair: pair[1]):
            parts[step] = round(parts.get(step, 0.0) + (at - before) * 1000, 3)
            before = at
        return parts


class Untimed(Timeline):
    """For callers without a call, as in tests and commands: keeps nothing."""

    __slots__ = ()

    def mark(self, step: str) -> None:
        """Forget it."""

    def mark_at(self, step: str, at: float) -> None:
        """Forget it."""

    def take_packed(self, data: bytes) -> bytes:
        """Forget them."""
        return Timeline().take_packed(data)


UNTIMED: Final = Untimed()


class SlowCalls:
    """Logs what took long, with where the time went; nothing of what the call was about.

    Args:
        milliseconds: From which duration on a call is slow; 0 means that none is.
        clock: Seconds that only go forward.
    """

    def __init__(self, milliseconds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.from_seconds = milliseconds / 1000 if milliseconds else float("inf")
        self._clock = clock
        self._second = 0
        self._logged = 0
        self._suppressed = 0

    def tell(self, method: str, code: str, seconds: float, caller: Terminal | None, timeline: Timeline) -> None:
        """Log a call that was slow, unless there were many in this second."""
        SLOW_CALLS.labels(method).inc()
        second = int(self._clock())
        if second != self._second:
            self._second, self._logged = second, 0
        if self._logged >= MAX_LOGGED_PER_SECOND:
            self._suppressed += 1
            return
        self._logged += 1
        suppressed, self._suppressed = self._suppressed, 0
        facts: Mapping[str, object] = {"suppressed_before": suppressed} if suppressed else {}
        _log.warning(
            "slow_call",
            method=method,
            code=code,
            seconds=round(seconds, 4),
            store=caller.store_id if caller is not None else "",
            terminal=caller.terminal_id if caller is not None else "",
            milliseconds=timeline.breakdown_milliseconds(),
            **facts,
        )
