"""The embedded PostgreSQL where a killed one left something behind."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from server.base import postgres
from server.base.postgres import EmbeddedPostgres


def test_a_process_that_ends_before_it_is_killed_does_not_hinder_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backends end by themselves when their postmaster is killed, at any moment after it was seen that they live."""
    data_dir, program = tmp_path / "data", tmp_path / "postgres"
    data_dir.mkdir()
    sleep = shutil.which("sleep")
    assert sleep is not None
    program.symlink_to(sleep)
    backend = subprocess.Popen([sleep, "600"], executable=program, cwd=data_dir)
    wait = psutil.wait_procs

    def wait_until_it_lives_no_more(
        processes: Iterable[psutil.Process], timeout: float
    ) -> tuple[list[psutil.Process], list[psutil.Process]]:
        gone, alive = wait(processes, timeout)
        seen.append([process.pid for process in alive])
        backend.kill()
        backend.wait()
        return gone, alive

    seen: list[list[int]] = []
    monkeypatch.setattr(postgres, "ORPHAN_TIMEOUT_SECONDS", 0)
    monkeypatch.setattr(psutil, "wait_procs", wait_until_it_lives_no_more)
    server = EmbeddedPostgres(data_dir)
    try:
        server.start()
        assert server.pid is not None
    finally:
        server.stop()
        backend.kill()
    assert seen == [[backend.pid], []]
