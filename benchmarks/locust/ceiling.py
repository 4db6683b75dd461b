"""What the generator manages at all: registers that send receipts to an echo server on this machine.

The echo knows no rules and no books; the generator makes the same requests on the same kind of connection and checks
the same answers as in a run. Both share the machine, so this is the least that the generator manages, not the most.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2

_LANES: Final = 16
"""In all processes together; more make no more calls."""
_START_SECONDS: Final = 60.0
_LOG_CHARACTERS: Final = 2000


class CeilingUnknown(Exception):
    """It could not be measured; the message says why."""


class Ceiling(NamedTuple):
    """How many calls a second the generator manages over one kind of connection, and its own latency at that."""

    transport: str
    processes: int
    calls_per_s: float

    def __str__(self) -> str:
        """Say it for the reader of a result."""
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return (
            f"The generator itself manages {self.calls_per_s:,.0f} calls/s ({self.transport}, {processes}, against an "
            "echo on this machine); results near it measure the generator."
        )


def measure(prepared: Path, transports: Sequence[str], processes: int, seconds: float) -> list[Ceiling]:
    """Let as many processes as the run will have send to an echo server, for each transport in turn.

    In a process of its own, for the echo server's processes are no relatives of one in which gevent rules.

    Args:
        prepared: The prepared file, for its baskets.
        transports: "unary", "session", or both.
        processes: How many processes of Locust make the load.
        seconds: For how long.

    Raises:
        CeilingUnknown: it could not be measured.
    """
    command = [sys.executable, "-m", "benchmarks.locust.ceiling", str(prepared), str(processes), str(seconds)]
    limit = (_START_SECONDS + seconds) * len(transports)
    process = subprocess.Popen(  # noqa: S603  - our own command
        [*command, *transports], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, log = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise CeilingUnknown(f"the generator's own ceiling is unknown after {limit:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever of its children is left
    if process.returncode:
        raise CeilingUnknown(f"the generator's own ceiling is unknown:\n{log[-_LOG_CHARACTERS:]}")
    return [Ceiling(*row) for row in json.loads(output)]


def _main(prepared: Path, processes: int, seconds: float, transports: Sequence[str]) -> None:
    """Measure, and print the ceilings as JSON."""
    # Here, since only this process needs the server's parts that the echo is made of.
    from benchmarks.echo_server import echo_server  # noqa: PLC0415  - see above

    with echo_server(1, canned_answer()) as echo:
        found = [
            Ceiling(transport, processes, _drive(prepared, echo.address, transport, processes, seconds))
            for transport in transports
        ]
    sys.stdout.write(json.dumps(found))


def _drive(prepared: Path, address: str, transport: str, processes: int, seconds: float) -> float:
    """Let processes send for so long, all at the same time; return the calls a second of all."""
    lanes = max(1, _LANES // processes)
    command = [sys.executable, "-m", "benchmarks.locust.echo_lanes", str(prepared), address, transport, str(lanes)]
    drivers = [
        subprocess.Popen(  # noqa: S603  - our own command
            [*command, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    try:
        for driver in drivers:
            _line(driver)
        for driver in drivers:
            assert driver.stdin is not None
            driver.stdin.write("go\n")
            driver.stdin.flush()
        return sum(float(_line(driver)) for driver in drivers)
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()


def _line(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    line = driver.stdout.readline()
    if not line:
        raise CeilingUnknown("a process of the generator ended too early")
    return line


def canned_answer() -> bytes:
    """Return a `CommitResponse` of usual size."""
    balance = common_pb2.Balance(unit="points", available_points_minor=1234)
    notices = [common_pb2.Notice(audience=common_pb2.AUDIENCE_RECEIPT, text="You saved 3.00 on a basket of 60")]
    answer = checkout_pb2.CommitResponse(
        entry=common_pb2.EntryRef(book=1, number=1),
        settlement=checkout_pb2.Settlement(accrual_points_minor=34, balance=balance),
        member_id="0c7a4a5e-37c0-5a0e-9b56-3a6a1e0c4f77",
        notices=notices,
    )
    answer.entry.booked_at.GetCurrentTime()
    return answer.SerializeToString()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
