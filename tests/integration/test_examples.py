"""The examples of the READMEs run as they stand there, against running servers.

Blocks marked ``bash`` and ``python`` are run; those marked ``sh`` are for reading.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import checkout_pb2, store_pb2, store_pb2_grpc

from tests.support.server_process import RunningServer, running_server
from tests.support.till import until_all_have_read_it

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret for the examples of README.md"
NEWS_ARRIVES_SECONDS = 60


def blocks(file: str, language: str) -> list[str]:
    """Return the code blocks of one language."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(block: str, server: RunningServer, folder: Path, more: Mapping[str, str] | None = None) -> str:
    """Run a block of commands with the server's address and data directory as settings; return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address,
        "TALLYPOINT_DATA_DIR": str(server.data_dir),
        **(more or {}),
    }
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, check=False, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working directory beside which the files that the examples name are found."""
    (tmp_path / "server").symlink_to(ROOT / "server")
    return tmp_path


def test_checkout_step_by_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_server(folder / "data") as server:
        for block in blocks("proto/README.md", "bash"):
            run(block, server, folder)
        asyncio.run(until_all_have_read_it(server))  # whoever types what follows gives them the time
        names: dict[str, Any] = {}
        for block in blocks("proto/README.md", "python"):
            code = block.replace("127.0.0.1:7443", server.pos_address).replace(".data/", f"{server.data_dir}/")
            exec(compile(code, "proto/README.md", "exec"), names)  # noqa: S102 - our own examples
        assert names["commit_or_keep"](names["commit"], []).entry == names["booked"].entry
        names["channel"].close()
    assert names["booked"].settlement.accrual_points_minor > 0, "the receipt of the examples earns points"
    assert names["captured"].settlement.captured_points_minor == names["held"].held_points_minor > 0
    assert names["returned"].refund_points_minor > 0
    printed = capsys.readouterr().out
    for word in ("O*** K.", "frozen-10", "identify", "commit", "Nobody is registered"):
        assert word in printed


def wait_until_key_works(server: RunningServer, key: str) -> None:
    """Wait until the back office has heard of a key."""
    give_up_at = time.monotonic() + NEWS_ARRIVES_SECONDS
    with grpc.insecure_channel(server.backoffice_address) as channel:
        stub = store_pb2_grpc.StoreServiceStub(channel)
        while True:
            try:
                stub.ListStores(
                    store_pb2.ListStoresRequest(), timeout=5, metadata=(("authorization", f"Bearer {key}"),)
                )
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)
            else:
                return


def test_a_real_deployment_step_by_step(folder: Path) -> None:
    secret = {"TALLYPOINT_SECRET_KEY": SECRET, "TALLYPOINT_EMBEDDED": "true"}
    first_key, set_up, prove = blocks("README.md", "bash")
    with running_server(folder / "data", development=False, environment=secret) as server:
        run(first_key, server, folder, secret)
        wait_until_key_works(server, (folder / "admin.key").read_text().strip())
        printed = run(set_up, server, folder)
        assert "1 rows: 1 members are new, 0 were there already, 0 were refused" in printed
        assert "is now version 1 of programme" in printed
        assert (folder / "till-1.key").read_text().startswith("tp_")
        printed = run(prove, server, folder, secret)
        assert "Verified: 1 entries" in printed
        assert "CRM equal to ledger" in printed
        admin = {**secret, "TALLYPOINT_ADMIN_KEY": (folder / "admin.key").read_text().strip()}
        run("tallypoint stores revoke-key kyiv-1 till-1 --yes", server, folder, admin)
        run("tallypoint keys revoke head-office --yes", server, folder, admin)


CALLS = re.findall(r"-d '([^']*)' \\?\s*\S+ (tallypoint\.v1\.\w+)/(\w+)", "".join(blocks("proto/README.md", "sh")))


@pytest.mark.parametrize(("body", "service", "method"), CALLS, ids=[f"{call[1]}.{call[2]}" for call in CALLS])
def test_bodies_for_grpcurl_are_messages_of_their_call(body: str, service: str, method: str) -> None:
    assert checkout_pb2.DESCRIPTOR.pool is store_pb2.DESCRIPTOR.pool is Default()
    descriptor = Default().FindServiceByName(service).FindMethodByName(method)
    message = json_format.Parse(body, GetMessageClass(descriptor.input_type)())
    assert message.ByteSize() > 0


def test_there_are_examples_for_grpcurl() -> None:
    assert len(CALLS) >= 4
