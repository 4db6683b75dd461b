"""A small file system for PostgreSQL's write-ahead log, so that it can be full for a while."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from server.base.postgres import EmbeddedPostgres

SIZE_MEGABYTES: Final = 192
SERVER_SETTINGS: Final = {"max_wal_size": "96MB", "min_wal_size": "32MB", "wal_recycle": "off"}
"""A log that fits the small disk, and keeps no files for later in which it could go on when the disk is full."""


class SmallDisk:
    """A mounted file system in memory, with nothing on it but the log and, at times, ballast."""

    def __init__(self, mount_point: Path) -> None:
        """Use what is mounted here; `mounted` mounts it."""
        self.mount_point = mount_point
        self._ballast = mount_point / "ballast"

    def fill(self) -> None:
        """Leave no room at all."""
        stat = os.statvfs(self.mount_point)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize)

    def free(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def take_log_of(self, postgres: EmbeddedPostgres) -> None:
        """Move the log of a server that does not run onto this disk."""
        log, owner = postgres.data_dir / "pg_wal", postgres.data_dir.stat()
        moved = self.mount_point / "pg_wal"
        shutil.copytree(log, moved)
        for path in (moved, *moved.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        moved.chmod(0o700)
        shutil.rmtree(log)
        log.symlink_to(moved)


@contextmanager
def mounted(mount_point: Path) -> Iterator[SmallDisk | str]:
    """Mount a small disk; yields the reason instead if this machine does not permit it."""
    mount_point.mkdir()
    options = f"size={SIZE_MEGABYTES}m,mode=0755"
    command = ["mount", "-t", "tmpfs", "-o", options, "tallypoint-adversity", str(mount_point)]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = finished.stderr.strip() if finished.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        yield f"a small disk cannot be mounted here: {reason}"
        return
    try:
        yield SmallDisk(mount_point)
    finally:
        unmount = ["umount", "--lazy", str(mount_point)]  # lazily: a dying process may still have a file open
        subprocess.run(unmount, check=True)
