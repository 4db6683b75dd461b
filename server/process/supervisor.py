"""`tallypoint serve`: starts everything, keeps the children alive, and ends everything in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from server.base.postgres import EmbeddedPostgres, PostgresError
from server.base.settings import Settings, StartRefusedError, split_address
from server.base.storage import Dsns, open_databases, writer_connect
from server.measuring import metrics
from server.measuring.directory import remove_old_directories
from server.measuring.logs import configure_logs, describe_error
from server.measuring.process import process_measured
from server.process.child import ChildTask, run_child
from server.process.development import DevelopmentKeys, development_keys, install_development_keys
from server.process.opening import bring_up_to_date, open_hashes

BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 10.0
LIVED_LONG_SECONDS: Final = 10.0
"""A child that lived this long died of something new: it is started again at once."""
KILL_AFTER_SECONDS: Final = 5.0
"""How long a child may take to end beyond its drain timeout."""
POSTGRES_WATCH_SECONDS: Final = 1.0

_spawn: Final = multiprocessing.get_context("spawn")
_log = structlog.get_logger("tallypoint.supervisor")


@dataclass(frozen=True)
class Ports:
    """The addresses that the children listen on, with their real ports."""

    pos: str
    backoffice: str


class KeptChild:
    """One child process that is started again whenever it dies."""

    def __init__(self, main_name: str, task: ChildTask) -> None:
        self.name = task.name
        self.ready = asyncio.Event()
        self._main_name = main_name
        self._task = task
        self._process: BaseProcess | None = None
        self._stopping = asyncio.Event()

    async def keep_alive(self) -> None:
        """Run the child, again and again, until `stop`."""
        delay_seconds = 0.0
        while not self._stopping.is_set():
            born = time.monotonic()
            exit_code, pid = await self._live()
            metrics.forget_process(pid)
            metrics.CHILDREN_READY.labels(self.name).set(0)
            lived_seconds = time.monotonic() - born
            if self._stopping.is_set():
                _log.info("child_ended", child=self.name, pid=pid, exit_code=exit_code)
                return
            delay_seconds = _next_delay(delay_seconds, lived_seconds)
            metrics.CHILD_RESTARTS.labels(self.name).inc()
            _log.error(
                "child_died",
                child=self.name,
                pid=pid,
                exit_code=exit_code,
                lived_seconds=round(lived_seconds, 3),
                restart_in_seconds=delay_seconds,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_seconds)

    def stop(self, *, force: bool = False) -> None:
        """Ask the child to drain and end, or kill it."""
        self._stopping.set()
        if self._process is not None and self._process.is_alive():
            (self._process.kill if force else self._process.terminate)()

    async def _live(self) -> tuple[int | None, int]:
        """Run the child once and return its exit code and process id."""
        ours, theirs = _spawn.Pipe()
        process = self._process = _spawn.Process(
            target=run_child, args=(self._main_name, self._task, theirs), name=self.name, daemon=True
        )
        process.start()
        theirs.close()
        pid = process.pid or 0
        _log.info("child_started", child=self.name, pid=pid)
        if self._stopping.is_set():
            process.terminate()
        loop = asyncio.get_running_loop()
        dead = asyncio.Event()
        loop.add_reader(process.sentinel, dead.set)
        loop.add_reader(ours.fileno(), self._on_message, ours)
        try:
            await dead.wait()
        finally:
            loop.remove_reader(process.sentinel)
            loop.remove_reader(ours.fileno())
            ours.close()
        process.join()
        return process.exitcode, pid

    def _on_message(self, connection: Connection) -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(connection.fileno())
            return
        self.ready.set()
        metrics.CHILDREN_READY.labels(self.name).set(1)
        _log.info("child_ready", child=self.name, pid=self._process.pid if self._process else None)


def _next_delay(delay_seconds: float, lived_seconds: float) -> float:
    """Return how long to wait before the next start: none after a long life, else doubling up to ten seconds."""
    if lived_seconds >= LIVED_LONG_SECONDS:
        return 0.0
    return min(BACKOFF_MAX_SECONDS, max(BACKOFF_FIRST_SECONDS, delay_seconds * 2))


def serve(settings: Settings) -> int:
    """Run the whole service until SIGTERM or SIGINT; return the exit code. The settings passed `check_production`.

    Raises:
        StartRefusedError: The ledger or the machine does not permit it; the message says what to do.
        PostgresError: The embedded database cannot start.
        MigrationError: The database does not fit this version.
    """
    configure_logs("supervisor", settings.log_level, show_error_texts=settings.development)
    signal.signal(signal.SIGTERM, _end_while_starting)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_only_one(settings.data_dir))
        remove_old_directories()
        keys = development_keys(settings)
        settings = settings if keys is None else keys.apply_to(settings)
        _log.info("settings", **settings.masked())
        ports = Ports(
            pos=stack.enter_context(_reserved(settings.pos_listen, "pos_listen")),
            backoffice=stack.enter_context(_reserved(settings.backoffice_listen, "backoffice_listen")),
        )
        endpoint = stack.enter_context(_metrics_endpoint(settings.metrics_listen))
        databases = stack.enter_context(open_databases(settings))
        asyncio.run(_prepare(settings, databases.dsns, keys))
        with asyncio.Runner() as runner:
            runner.run(_measured(_supervise(settings, databases.dsns, databases.embedded, ports, endpoint)))
    _log.info("stopped")
    return 0


def _end_while_starting(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - a signal handler's shape
    """End in order, by the ExitStack, when SIGTERM comes before the children are there."""
    raise SystemExit(128 + number)


async def _prepare(settings: Settings, dsns: Dsns, keys: DevelopmentKeys | None) -> None:
    """Bring the databases up to date and open the ledger, before anything listens."""
    if settings.migrate_on_start:
        applied = await bring_up_to_date(dsns, settings)
        _log.info("migrated", applied=applied)
    hashes = await open_hashes(writer_connect(dsns.ledger, "tallypoint supervisor"), settings)
    if keys is not None:
        await install_development_keys(dsns, keys, hashes)
        _log.warning(
            "development_mode",
            text="DEVELOPMENT MODE: this server made its own secret and access keys; do not use it for real shops",
            keys_file=str(keys.path),
        )


async def _measured(work: Coroutine[Any, Any, None]) -> None:
    async with process_measured("supervisor"):
        await work


async def _supervise(
    settings: Settings, dsns: Dsns, embedded: EmbeddedPostgres | None, ports: Ports, metrics_address: str
) -> None:
    """Keep the children alive until a signal comes, then drain them."""
    folder = tempfile.TemporaryDirectory(prefix="tallypoint-sockets-")
    children = _children(settings, dsns, ports, Path(folder.name))
    signalled = _watch_signals(children)
    lives = [asyncio.create_task(child.keep_alive(), name=child.name) for child in children]
    helpers = [
        asyncio.create_task(_announce(children, settings, ports, metrics_address)),
        asyncio.create_task(_keep_postgres_alive(embedded)),
    ]
    try:
        until_signal = asyncio.create_task(signalled.wait())
        await asyncio.wait((until_signal, *lives), return_when=asyncio.FIRST_COMPLETED)
        for helper in helpers:
            helper.cancel()
        _log.info("draining", timeout_seconds=settings.drain_timeout_seconds)
        for child in children:
            child.stop()
        _, late = await asyncio.wait(lives, timeout=settings.drain_timeout_seconds + KILL_AFTER_SECONDS)
        for task in late:
            _log.error("child_killed", child=task.get_name(), text="it did not end in time")
        for child in children:
            child.stop(force=True)
        await asyncio.gather(*lives)
        # The loop takes its handlers along; another signal must not keep PostgreSQL from being stopped.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    finally:
        for child in children:
            child.stop(force=True)
        folder.cleanup()


def _children(settings: Settings, dsns: Dsns, ports: Ports, sockets: Path) -> list[KeptChild]:
    def child(name: str, main_name: str) -> KeptChild:
        return KeptChild(main_name, ChildTask(name, settings, dsns, ports.pos, ports.backoffice, sockets))

    workers = [
        child(f"worker-{number}", "server.process.worker:pos_worker_main") for number in range(1, settings.workers + 1)
    ]
    sweeper = [child("sweeper", "server.process.sweeper:sweeper_main")] if settings.sweep_interval_seconds else []
    return [
        *workers,
        child("backoffice", "server.process.back_office:backoffice_main"),
        child("crm-stream", "server.process.crm:crm_main"),
        *sweeper,
    ]


def _watch_signals(children: Sequence[KeptChild]) -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets. A Ctrl-C after it kills the children at once."""
    signalled = asyncio.Event()

    def interrupted() -> None:
        if signalled.is_set():
            for child in children:
                child.stop(force=True)
        signalled.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signalled.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    return signalled


async def _announce(children: Sequence[KeptChild], settings: Settings, ports: Ports, metrics_address: str) -> None:
    """Log `ready` once, when every child has been ready for the first time."""
    for child in children:
        await child.ready.wait()
    _log.info(
        "ready",
        pos=ports.pos,
        backoffice=ports.backoffice,
        metrics=metrics_address,
        tls=settings.tls_cert is not None,
        workers=settings.workers,
        pid=os.getpid(),
    )


async def _keep_postgres_alive(embedded: EmbeddedPostgres | None) -> None:
    """Start the embedded PostgreSQL again if it dies."""
    while embedded is not None:
        await asyncio.sleep(POSTGRES_WATCH_SECONDS)
        if embedded.pid is not None:
            continue
        _log.error("postgres_died", data_dir=str(embedded.data_dir))
        try:
            await asyncio.to_thread(embedded.ensure_running)
        except PostgresError as error:
            _log.error("postgres_restart_failed", **describe_error(error))
        else:
            _log.info("postgres_restarted", pid=embedded.pid)


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory, so that no second server uses its metrics files and ports by mistake."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StartRefusedError(
                f"another 'tallypoint serve' (process {file.read().strip() or 'unknown'}) already uses the data "
                f"directory {data_dir.resolve()}: stop it, or give another --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _reserved(address: str, setting: str) -> Iterator[str]:
    """Make sure that nobody else listens on an address, keep it for the children, and yield it with its real port.

    With SO_REUSEPORT a second server could listen on the same port unnoticed and take half of the calls, so the
    first bind goes without it.
    """
    host, port = split_address(address)
    family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(trial, target, address, setting)
    with socket.socket(family, kind) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(holder, target, address, setting)
        shown_host = f"[{host}]" if ":" in host else host
        yield f"{shown_host}:{holder.getsockname()[1]}"


def _bind(sock: socket.socket, target: object, address: str, setting: str) -> None:
    try:
        sock.bind(target)  # type: ignore[arg-type]  # getaddrinfo's own address, of whatever family
    except OSError as error:
        raise StartRefusedError(_cannot_listen(address, setting, error)) from error


def _cannot_listen(address: str, setting: str, error: OSError) -> str:
    option = f"--{setting.replace('_', '-')}"
    if error.errno == errno.EADDRINUSE:
        why = "another process already listens there: stop it, or choose another address"
    else:
        why = f"{error.strerror}: choose another address"
    return f"cannot listen on {address} ({setting}): {why} with {option}"


@contextlib.contextmanager
def _metrics_endpoint(address: str) -> Iterator[str]:
    host, port = split_address(address)
    try:
        endpoint = metrics.MetricsEndpoint(host, port)
    except OSError as error:
        raise StartRefusedError(_cannot_listen(address, "metrics_listen", error)) from error
    try:
        yield f"{host}:{endpoint.port}"
    finally:
        endpoint.close()
