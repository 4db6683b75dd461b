"""What our commands say where no back office answers: the address, why, and what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from server.commands import client
from server.commands.main import app
from tests.support.certificates import make_certificate

LOOPBACK = "127.0.0.1"


@pytest.fixture
def open_until_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def nothing(stack: ExitStack, folder: Path) -> str:
    """A port that is taken and on which nobody listens."""
    taken = stack.enter_context(socket.socket())
    taken.bind((LOOPBACK, 0))
    return f"{LOOPBACK}:{taken.getsockname()[1]}"


def silence(stack: ExitStack, folder: Path) -> str:
    """A port that takes connections and says nothing."""
    port = stack.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1]
    return f"{LOOPBACK}:{port}"


def tls(stack: ExitStack, folder: Path) -> str:
    """A service that takes TLS only, with a certificate that nobody else knows."""
    (folder / "theirs").mkdir()
    theirs = make_certificate(folder / "theirs", "localhost")
    service = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(theirs.key_path.read_bytes(), theirs.cert_path.read_bytes())])
    port = service.add_secure_port(f"{LOOPBACK}:0", credentials)
    service.start()
    stack.callback(service.stop, None)
    return f"localhost:{port}"


def plain(stack: ExitStack, folder: Path) -> str:
    """A service that has no TLS."""
    service = grpc.server(ThreadPoolExecutor(1))
    port = service.add_insecure_port(f"{LOOPBACK}:0")
    service.start()
    stack.callback(service.stop, None)
    return f"localhost:{port}"


@pytest.mark.parametrize(
    ("there", "uses_tls", "cause"),
    [
        pytest.param(nothing, False, "nothing listens there", id="not running"),
        pytest.param(silence, False, "no answer in time", id="silent"),
        pytest.param(lambda *_: "the office:7444", False, "there is no such host", id="no such host"),
        pytest.param(tls, False, "it breaks connections off", id="TLS there, none here"),
        pytest.param(tls, True, "TLS fails", id="another authority"),
        pytest.param(plain, True, "TLS fails", id="TLS here, none there"),
    ],
)
def test_a_back_office_that_cannot_be_reached_is_told_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_until_the_end: ExitStack,
    there: Callable[[ExitStack, Path], str],
    uses_tls: bool,
    cause: str,
) -> None:
    config = client.SERVICE_CONFIG.replace('"0.5s"', '"0.01s"').replace('"5s"', '"0.01s"')
    monkeypatch.setattr(client, "SERVICE_CONFIG", config)
    monkeypatch.setattr(client.BackOfficeClient.call, "__defaults__", (0.5 if there is silence else 30.0,))
    address = there(open_until_the_end, tmp_path)
    words = ["stores", "list", "--key", "tp_any", "--address", address, "--data-dir", str(tmp_path)]
    if uses_tls:
        words += ["--tls-ca", str(make_certificate(tmp_path, "localhost").cert_path)]
    bare: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("TALLYPOINT_", "http_proxy"))}
    done = CliRunner().invoke(app, words, env=bare)
    said = " ".join(done.output.split())
    assert done.exit_code == 2, said
    assert f"the back office at {address} cannot be reached: {cause}" in said
    assert said.endswith("look whether it runs, and at --address (TALLYPOINT_ADMIN_ADDRESS)")
    assert "last error" not in said
