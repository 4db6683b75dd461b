"""A real `tallypoint serve` in a process of its own, and commands beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from server.commands.main import app

START_TIMEOUT_SECONDS = 240


@dataclass
class RunningServer:
    """A running server and what a client needs to talk to it."""

    process: subprocess.Popen[str]
    data_dir: Path
    pos_address: str = ""
    backoffice_address: str = ""
    metrics_address: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    """The development keys by name: secret_key, admin, finance, crm, terminal."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """The log events so far; a line that is not JSON stands as ``{"text": line}``."""

    def __post_init__(self) -> None:
        """Read the log in the background, so that the server never blocks on a full pipe."""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"text": line.rstrip("\n")}
            with self._changed:
                self.log.append(event if isinstance(event, dict) else {"text": line})
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for_event(self, name: str, count: int = 1, timeout_seconds: float = 120, **fields: Any) -> dict[str, Any]:
        """Wait until the log has an event of this name and these fields `count` times, and return the last."""

        def found() -> list[dict[str, Any]]:
            wanted = {"event": name, **fields}.items()
            return [event for event in self.log if wanted <= {k: event.get(k) for k in ("event", *fields)}.items()]

        with self._changed:
            done = self._changed.wait_for(
                lambda: len(found()) >= count or not self._reader.is_alive(), timeout=timeout_seconds
            )
            if not done or len(found()) < count:
                raise AssertionError(f"no event {name!r} {fields} (x{count}); the log:\n{self.log_text()}")
            return found()[count - 1]

    def log_text(self) -> str:
        """The log so far as text."""
        return "\n".join(json.dumps(event) for event in self.log)

    def stop(self, timeout_seconds: float = 120) -> int:
        """Stop by SIGTERM, wait, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            exit_code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(5)
        return exit_code


def run_command(
    *arguments: str, environment: Mapping[str, str], own_process: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `tallypoint` with these variables and none of the caller's TALLYPOINT_*; nobody can be asked anything.

    In this process, because its start takes longer than most commands, unless the process is what a test is about.
    """
    if own_process:
        command = [sys.executable, "-m", "server.commands.main", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYPOINT_")}
        return subprocess.run(
            command,
            env={**clean, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    none: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("TALLYPOINT_"))
    with ThreadPoolExecutor(1) as thread:  # a test's own event loop may be running in this one
        ran = thread.submit(
            CliRunner().invoke, app, arguments, env={**none, **environment}, catch_exceptions=False
        ).result()
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


def start_server(
    data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None, development: bool = True
) -> RunningServer:
    """Start a server without waiting for it; the caller stops it."""
    command: Sequence[str] = (
        *(sys.executable, "-m", "server.commands.main", "serve", f"--data-dir={data_dir}"),
        *("--pos-listen=127.0.0.1:0", "--backoffice-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"),
        *(("--development",) if development else ()),
        *arguments,
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYPOINT_")}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**clean, **(environment or {})},
        start_new_session=True,  # Ctrl-C in pytest reaches the server through our own SIGTERM only
    )
    return RunningServer(process, data_dir)


def wait_until_ready(server: RunningServer) -> RunningServer:
    """Wait for the server's line "ready" and fill in addresses and keys."""
    ready = server.wait_for_event("ready", timeout_seconds=START_TIMEOUT_SECONDS)
    server.pos_address = ready["pos"]
    server.backoffice_address = ready["backoffice"]
    server.metrics_address = ready["metrics"]
    keys = server.data_dir / "development-keys.json"
    server.keys = json.loads(keys.read_text()) if keys.exists() else {}
    return server


@contextmanager
def running_server(
    data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None, development: bool = True
) -> Iterator[RunningServer]:
    """Run a server on free loopback ports, ready to be called; stop it at the end.

    Args:
        data_dir: An empty directory, or the one of an earlier server.
        *arguments: Further arguments of `tallypoint serve`.
        environment: Further environment variables; the caller's own TALLYPOINT_* are not passed on.
        development: Whether the server makes its own secret and keys.
    """
    server = start_server(data_dir, *arguments, environment=environment, development=development)
    try:
        yield wait_until_ready(server)
    finally:
        server.stop()
