"""A failover: half of the lanes connect anew, all at once. Give it to Locust beside the locustfile.

    locust -f benchmarks/locust/locustfile.py,benchmarks/locust/failover.py --users 40 --run-time 2m

With `--kill-worker-pid` it really kills a worker process of a server on this machine at that moment; without, the
server stays as it is and only the lanes' connections are new. Each later third of the run is one more failover.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

RECONNECT_HALF: Final = "tallypoint_reconnect_half"
"""The message that the locustfile's users obey."""
_MOMENTS: Final = (1 / 3, 2 / 3)
_DEFAULT_SECONDS: Final = 60.0
_DEFAULT_SPAWN_RATE: Final = 20.0


class NoWorker(Exception):
    """The process to kill is no worker of the server under test; the message says why."""


def check_worker(pid: int, pos_address: str) -> None:
    """Make sure that a process listens on the server's POS port on this machine.

    Raises:
        NoWorker: it does not, or the server is not on this machine.
    """
    host, _, port = pos_address.rpartition(":")
    if not is_loopback(host):
        raise NoWorker(f"--kill-worker-pid works for a server on this machine, and {pos_address} is not")
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error as error:
        raise NoWorker(f"--kill-worker-pid {pid}: there is no such process, or it is another user's") from error
    if not any(each.status == psutil.CONN_LISTEN and each.laddr.port == int(port) for each in connections):
        raise NoWorker(f"--kill-worker-pid {pid}: this process does not listen on {pos_address}")


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Failover(LoadTestShape):
    """A steady load, with a failover after a third and after two thirds of the run."""

    use_common_options: ClassVar[bool] = True

    def reset_time(self) -> None:
        """Begin anew: Locust calls this when a run starts."""
        self.start_time = time.perf_counter()
        self._moments = list(_MOMENTS)

    def tick(self) -> tuple[int, float] | None:
        """Keep the load, and let the failovers happen in time; None at the end."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        share = (time.perf_counter() - self.start_time) / (options.run_time or _DEFAULT_SECONDS)
        if share >= 1:
            return None
        if self._moments and share >= self._moments[0]:
            self._fail_over(options.kill_worker_pid if len(self._moments) == len(_MOMENTS) else 0)
            self._moments.pop(0)
        return options.num_users or 1, options.spawn_rate or _DEFAULT_SPAWN_RATE

    def _fail_over(self, pid: int) -> None:
        runner: Any = self.runner
        if pid:
            os.kill(pid, signal.SIGKILL)
        runner.send_message(RECONNECT_HALF)


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--kill-worker-pid",
        type=int,
        default=0,
        include_in_web_ui=False,
        help="Kill this process, a worker of the server on this machine, at the first failover.",
    )


def _init(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    options: Any = environment.parsed_options
    if options.kill_worker_pid and not options.worker:
        # Here, since the file with the address is the locustfile's matter.
        from benchmarks.locust.prepared import Prepared  # noqa: PLC0415  - see above

        try:
            check_worker(options.kill_worker_pid, environment.host or Prepared.load(Path(options.prepared)).pos_address)
        except NoWorker as error:
            sys.stderr.write(f"No run. {error}\n")
            sys.exit(2)


_listen_for_options: Any = events.init_command_line_parser.add_listener
_listen_for_options(_add_options)
_listen_for_init: Any = events.init.add_listener
_listen_for_init(_init)
