"""A timer for open-loop clients: exact to some microseconds, where event loops round to milliseconds.

It is Linux' timerfd, a timer that an event loop watches like a socket; Python has a function for it from 3.13 on.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Final

_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME
_NANOSECONDS_PER_SECOND: Final = 1_000_000_000
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Timerspec(ctypes.Structure):
    """``struct itimerspec``: an interval, which is not used, and the first expiry."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "seconds", "nanoseconds"))


class PreciseTimer:
    """Wakes one coroutine of the running event loop at moments of `time.monotonic_ns`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._file: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "there is no timerfd")
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(self._file, self._expired)

    async def wait_until(self, monotonic_nanoseconds: int) -> None:
        """Return at that moment, or at once if it is over."""
        spec = _Timerspec(0, 0, *divmod(max(1, monotonic_nanoseconds), _NANOSECONDS_PER_SECOND))
        self._waiter = self._loop.create_future()
        if _libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "the timer cannot be set")
        await self._waiter

    def close(self) -> None:
        """Give the timer back."""
        self._loop.remove_reader(self._file)
        os.close(self._file)

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
