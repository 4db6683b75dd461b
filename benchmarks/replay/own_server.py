"""A `tallypoint serve` of the replay's own: development mode, embedded database, free loopback ports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_TIMEOUT_SECONDS: Final = 120.0
STOP_TIMEOUT_SECONDS: Final = 60.0
_LOG_TAIL_LINES: Final = 15


class ServerFailed(Exception):
    """The server did not start; the message has the end of its log."""


@dataclass(frozen=True)
class Target:
    """A running server as a replay sees it. `data_dir` is known if its databases can be opened from here."""

    pos_address: str
    backoffice_address: str
    admin_key: str
    data_dir: Path | None = None


@contextmanager
def own_server(data_dir: Path) -> Iterator[Target]:
    """Run a server in a data directory, new or used; stop it at the end.

    Raises:
        ServerFailed: it did not become ready in two minutes.
    """
    log_path = data_dir / "replay" / "server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "server.commands.main", "serve", "--development", f"--data-dir={data_dir}"),
        *("--pos-listen=127.0.0.1:0", "--backoffice-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"),
    ]
    process = subprocess.Popen(  # noqa: S603  - our own command
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the server through us, after the lanes have stopped
    )
    log = _Log(process, log_path)
    try:
        ready = log.wait_until_ready()
        keys = json.loads((data_dir / "development-keys.json").read_text())
        yield Target(ready["pos"], ready["backoffice"], keys["admin"], data_dir)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.join()


class _Log:
    """Copies the server's log to a file and waits for the line that says "ready"."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self._process = process
        self._path = path
        self._tail: deque[str] = deque(maxlen=_LOG_TAIL_LINES)
        self._ready: Mapping[str, str] | None = None
        self._ready_or_over = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="server-log", daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> Mapping[str, str]:
        self._ready_or_over.wait(START_TIMEOUT_SECONDS)
        if self._ready is None:
            end = "\n".join(self._tail)
            raise ServerFailed(f"tallypoint serve did not start; its log is {self._path} and ends:\n{end}")
        return self._ready

    def join(self) -> None:
        self._thread.join(STOP_TIMEOUT_SECONDS)

    def _copy(self) -> None:
        assert self._process.stdout is not None
        with self._path.open("a", encoding="utf-8") as file:
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                self._tail.append(line.rstrip("\n"))
                if self._ready is None and '"ready"' in line:
                    self._ready = _ready_event(line)
                    if self._ready is not None:
                        self._ready_or_over.set()
        self._ready_or_over.set()


def _ready_event(line: str) -> Mapping[str, str] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.get("event") == "ready" else None
