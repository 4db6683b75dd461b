"""A service that is harmed, killed and started again, always on the same ports and the same data."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from server.base.postgres import EmbeddedPostgres
from tests.support.faults import postgres_of
from tests.support.server_process import RunningServer, start_server, wait_until_ready
from tests.support.small_disk import SERVER_SETTINGS, SmallDisk

WORKERS = 2
SHUTDOWN_SECONDS = 30.0


class Service:
    """One `tallypoint serve` after the other."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        """Run in this directory, which `prepare` has made."""
        self.earlier_logs: list[list[dict[str, Any]]] = []
        self._data_dir = data_dir
        self._environment = environment
        self._server: RunningServer | None = None
        self._ports: tuple[str, ...] = ()

    @property
    def server(self) -> RunningServer:
        """The one that runs, or ran last."""
        assert self._server is not None, "the service was not started"
        return self._server

    @property
    def log(self) -> list[dict[str, Any]]:
        """What all of them logged."""
        return [event for log in (*self.earlier_logs, self.server.log) for event in log]

    def start(self) -> RunningServer:
        """Start it, on the ports of the one before, and return it when it is ready."""
        if self._server is not None:
            self.earlier_logs.append(self._server.log)
        arguments = (f"--workers={WORKERS}", *self._ports)
        self._server = server = start_server(self._data_dir, *arguments, environment=self._environment)
        wait_until_ready(server)
        self._ports = (
            f"--pos-listen={server.pos_address}",
            f"--backoffice-listen={server.backoffice_address}",
            f"--metrics-listen={server.metrics_address}",
        )
        return server

    def stop(self) -> None:
        """Stop it in order."""
        assert self.server.stop(SHUTDOWN_SECONDS) == 0, self.server.log_text()

    def end(self) -> None:
        """Leave nothing behind, whatever was under way."""
        self.server.stop(SHUTDOWN_SECONDS)
        pid = postgres_of(self.server).pid
        if pid is not None:  # nobody was there to stop it
            postmaster = psutil.Process(pid)
            postmaster.send_signal(signal.SIGQUIT)
            psutil.wait_procs([postmaster], timeout=SHUTDOWN_SECONDS)

    def kill(self) -> None:
        """Kill the supervisor and all its children; PostgreSQL runs on without them."""
        supervisor = psutil.Process(self.server.process.pid)
        victims = [supervisor, *supervisor.children(recursive=True)]
        for process in victims:
            process.kill()
        self.server.process.wait(SHUTDOWN_SECONDS)
        psutil.wait_procs(victims, timeout=SHUTDOWN_SECONDS)


def prepare(data_dir: Path, disk: SmallDisk | None) -> None:
    """Make the embedded PostgreSQL of a service, with its write-ahead log on the small disk if there is one."""
    postgres = EmbeddedPostgres(data_dir / "postgres")
    postgres.start()
    try:
        for name, value in SERVER_SETTINGS.items():
            postgres.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    finally:
        postgres.stop()
    if disk is not None:
        disk.take_log_of(postgres)
