"""The examples of proto/README.md run as they stand there, against a running server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import checkout_pb2, store_pb2

from tests.support.server_process import RunningServer, running_server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "proto" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("examples")) as server:
        yield server


def run_commands(server: RunningServer, folder: Path) -> None:
    """Run the commands of the README with the server's address and data directory as settings."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address,
        "TALLYPOINT_DATA_DIR": str(server.data_dir),
    }
    (folder / "server").symlink_to(ROOT / "server")
    for block in blocks("bash"):
        subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=True, cwd=folder, env=environment)


def test_examples_run(server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_commands(server, tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        code = block.replace("127.0.0.1:7443", server.pos_address).replace(".data/", f"{server.data_dir}/")
        exec(compile(code, "proto/README.md", "exec"), names)  # noqa: S102 - our own examples
    assert names["booked"].settlement.accrual_points_minor > 0, "the receipt of the examples earns points"
    assert names["commit_or_keep"](names["commit"], []).entry == names["booked"].entry
    names["channel"].close()
    printed = capsys.readouterr().out
    for word in ("O*** K.", "frozen-10", "identify", "commit", "Nobody is registered"):
        assert word in printed


CALLS = re.findall(r"-d '([^']*)' \\?\s*\S+ (tallypoint\.v1\.\w+)/(\w+)", "".join(blocks("sh")))


@pytest.mark.parametrize(("body", "service", "method"), CALLS, ids=[f"{call[1]}.{call[2]}" for call in CALLS])
def test_bodies_for_grpcurl_are_messages_of_their_call(body: str, service: str, method: str) -> None:
    assert checkout_pb2.DESCRIPTOR.pool is store_pb2.DESCRIPTOR.pool is Default()
    descriptor = Default().FindServiceByName(service).FindMethodByName(method)
    message = json_format.Parse(body, GetMessageClass(descriptor.input_type)())
    assert message.ByteSize() > 0
