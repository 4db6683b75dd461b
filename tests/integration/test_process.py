"""`tallypoint serve` as a real process: start, readiness, drain, restart of the dead, metrics, TLS, refusals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc, common_pb2, store_pb2, store_pb2_grpc

from server.base.postgres import EmbeddedPostgres
from server.base.settings import PREFIX, Settings, StartRefusedError, check_production
from tests.support.certificates import make_certificate
from tests.support.crm import eventually
from tests.support.refusals import details_of
from tests.support.server_process import RunningServer, run_command, running_server, start_server

HEALTHY = health_pb2.HealthCheckResponse.SERVING
SECRET = "a-secret-of-at-least-32-characters-in-all"


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {key}"),)


def unknown_member() -> checkout_pb2.IdentifyRequest:
    """Ask for somebody whom nobody knows."""
    return checkout_pb2.IdentifyRequest(identifier=common_pb2.Identifier(member_id=str(uuid.uuid4())))


async def identify_reason(address: str, key: str, credentials: grpc.ChannelCredentials | None = None) -> str:
    """Identify an unknown member and return the reason of the refusal, which proves the way to the database."""
    channel = (
        grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
    )
    async with channel:
        stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Identify(unknown_member(), metadata=bearer(key), timeout=30, wait_for_ready=True)
    return details_of(caught.value).reason


def metrics_of(server: RunningServer) -> str:
    """Return what Prometheus would read."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def is_gone(pid: int) -> bool:
    """Say whether a process ended; a zombie that nobody reaped has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def postgres_of(server: RunningServer) -> EmbeddedPostgres:
    """Return the server's embedded PostgreSQL, for looking at."""
    return EmbeddedPostgres(server.data_dir / "postgres")


async def test_both_ports_answer_and_are_healthy(tallypoint: RunningServer) -> None:
    """A register and an administrator get through to the database."""
    assert await identify_reason(tallypoint.pos_address, tallypoint.keys["terminal"]) == "IDENTIFIER_UNKNOWN"
    async with grpc.aio.insecure_channel(tallypoint.backoffice_address) as channel:
        stub = store_pb2_grpc.StoreServiceStub(channel)
        stores = await stub.ListStores(store_pb2.ListStoresRequest(), metadata=bearer(tallypoint.keys["admin"]))
        assert tallypoint.keys["store_id"] in [store.store_id for store in stores.stores]
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("MemberService", "StoreService", "ProgrammeService", "LedgerService"):
            request = health_pb2.HealthCheckRequest(service=f"tallypoint.v1.{service}")
            assert (await health.Check(request)).status == HEALTHY


async def test_the_ports_have_only_their_own_services(tallypoint: RunningServer) -> None:
    """The hot port stays small, and a terminal cannot reach the back office."""
    async with grpc.aio.insecure_channel(tallypoint.pos_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store_pb2_grpc.StoreServiceStub(channel).ListStores(
                store_pb2.ListStoresRequest(), metadata=bearer(tallypoint.keys["admin"])
            )
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with grpc.aio.insecure_channel(tallypoint.backoffice_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store_pb2_grpc.StoreServiceStub(channel).ListStores(
                store_pb2.ListStoresRequest(), metadata=bearer(tallypoint.keys["terminal"])
            )
        assert details_of(caught.value).reason == "ROLE_FORBIDDEN"


async def test_metrics_count_calls_of_all_processes(tmp_path: Path) -> None:
    """What every worker did stands on one page."""
    with running_server(tmp_path, "--workers=2") as server:

        async def all_are_counted() -> bool:
            wanted = 'tallypoint_call_seconds_count{code="NOT_FOUND",method="CheckoutService/Identify",'
            lines = [line for line in metrics_of(server).splitlines() if line.startswith(wanted)]
            return sum(float(line.split()[-1]) for line in lines) == 8

        for _ in range(8):  # eight connections: the kernel spreads them over the workers
            await identify_reason(server.pos_address, server.keys["terminal"])
        await eventually(all_are_counted, "every worker has written its numbers")
        assert 'tallypoint_children_ready{child="worker-1"} 1.0' in metrics_of(server)


def test_logs_are_json_with_secrets_masked(tallypoint: RunningServer) -> None:
    """Every line is an event, and no key stands in any of them."""
    assert all("event" in event for event in tallypoint.log), tallypoint.log_text()
    settings = tallypoint.wait_for_event("settings")
    assert settings["secret_key"] == "**********"
    assert not any(tallypoint.keys[name] in tallypoint.log_text() for name in ("secret_key", "admin", "terminal"))


def test_development_keys_are_kept_for_their_owner_only(tallypoint: RunningServer) -> None:
    """And the log says loudly that they exist."""
    path = tallypoint.data_dir / "development-keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(tallypoint.keys) == {"secret_key", "admin", "finance", "crm", "terminal", "store_id", "terminal_id"}
    assert "DEVELOPMENT MODE" in tallypoint.wait_for_event("development_mode", level="warning")["text"]


async def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    """Calls go on, and the metrics say that it happened."""
    with running_server(tmp_path, "--workers=1") as server:
        killed = server.wait_for_event("child_started", child="worker-1")["pid"]
        os.kill(killed, signal.SIGKILL)
        died = server.wait_for_event("child_died", child="worker-1")
        assert (died["pid"], died["exit_code"]) == (killed, -signal.SIGKILL)
        reborn = server.wait_for_event("child_ready", count=2, child="worker-1")["pid"]
        assert reborn != killed
        assert await identify_reason(server.pos_address, server.keys["terminal"]) == "IDENTIFIER_UNKNOWN"
        assert 'tallypoint_child_restarts_total{child="worker-1"} 1.0' in metrics_of(server)


async def test_a_killed_postgres_is_started_again(tmp_path: Path) -> None:
    """The embedded database is a child like any other."""
    with running_server(tmp_path, "--workers=1") as server:
        pid = postgres_of(server).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.wait_for_event("postgres_restarted")
        assert postgres_of(server).pid not in (None, pid)
        assert await identify_reason(server.pos_address, server.keys["terminal"]) == "IDENTIFIER_UNKNOWN"


async def test_sigterm_drains_and_a_second_start_finds_everything(tmp_path: Path) -> None:
    """Idle sessions end in order, the exit code is 0, nothing is left running, and keys and data stay."""
    with running_server(tmp_path, "--workers=2") as server:
        async with grpc.aio.insecure_channel(server.pos_address) as channel:
            session: Any = checkout_pb2_grpc.CheckoutServiceStub(channel).Session(
                metadata=bearer(server.keys["terminal"])
            )
            request = checkout_pb2.SessionRequest(correlation_id=7, identify=unknown_member())
            await session.write(request)
            answer = await session.read()
            assert (answer.correlation_id, answer.WhichOneof("answer")) == (7, "refusal")
            server.process.send_signal(signal.SIGTERM)
            assert await session.read() is grpc.aio.EOF
            assert await session.code() is grpc.StatusCode.OK
        assert await asyncio.to_thread(server.stop) == 0
        pids = [event["pid"] for event in server.log if event["event"] == "child_started"]
        assert len(pids) == 5
        assert all(is_gone(pid) for pid in pids)
        assert postgres_of(server).pid is None
        assert [event for event in server.log if event["event"] == "child_ended" and event["exit_code"]] == []
    with running_server(tmp_path, "--workers=1") as again:
        assert again.keys == server.keys
        assert again.wait_for_event("migrated")["applied"] == []
        assert await identify_reason(again.pos_address, again.keys["terminal"]) == "IDENTIFIER_UNKNOWN"


async def test_a_supervisor_that_is_killed_takes_its_children_along(tmp_path: Path) -> None:
    """And the next start takes over the database that was left running."""
    with running_server(tmp_path, "--workers=1") as server:
        pids = [event["pid"] for event in server.log if event["event"] == "child_started"]
        postgres_pid = postgres_of(server).pid
        server.process.kill()
        server.process.wait()
        await asyncio.to_thread(_wait_until, lambda: all(is_gone(pid) for pid in pids))
        assert postgres_of(server).pid == postgres_pid
    with running_server(tmp_path, "--workers=1") as again:
        assert await identify_reason(again.pos_address, again.keys["terminal"]) == "IDENTIFIER_UNKNOWN"
    assert postgres_of(again).pid is None


def _wait_until(done: Callable[[], bool], timeout_seconds: float = 120) -> None:
    end = time.monotonic() + timeout_seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


async def test_production_with_tls(tmp_path: Path) -> None:
    """With a secret and certificates it listens, encrypted, and makes no keys of its own."""
    authority = make_certificate(tmp_path, "authority")
    server_certificate = make_certificate(tmp_path, "server", authority)
    environment = {
        "TALLYPOINT_SECRET_KEY": SECRET,
        "TALLYPOINT_EMBEDDED": "true",
        "TALLYPOINT_TLS_CERT": str(server_certificate.cert_path),
        "TALLYPOINT_TLS_KEY": str(server_certificate.key_path),
    }
    data_dir = tmp_path / "data"
    with running_server(data_dir, "--workers=1", environment=environment, development=False) as server:
        assert server.keys == {}
        credentials = grpc.ssl_channel_credentials(authority.cert_pem)
        assert await identify_reason(server.pos_address, "tp_nobody", credentials) == "UNAUTHENTICATED"
        async with grpc.aio.insecure_channel(server.pos_address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert SECRET not in server.log_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        pytest.param([], {}, "no secret: set TALLYPOINT_SECRET_KEY", id="no-secret"),
        pytest.param([], {"TALLYPOINT_SECRET_KEY": "short"}, "at least 32 characters", id="short-secret"),
        pytest.param(
            ["--pos-listen=0.0.0.0:0"],
            {"TALLYPOINT_SECRET_KEY": SECRET},
            "pos_listen is 0.0.0.0:0, which other machines can reach, and there is no certificate",
            id="open-port-without-tls",
        ),
        pytest.param(
            ["--tls-cert=/nowhere/cert.pem", "--tls-key=/nowhere/key.pem"],
            {"TALLYPOINT_SECRET_KEY": SECRET},
            "/nowhere/cert.pem: there is no such file",
            id="no-certificate-file",
        ),
        pytest.param(
            [], {"TALLYPOINT_SECRET_KEY": SECRET}, "set TALLYPOINT_LEDGER_DSN and TALLYPOINT_CRM_DSN", id="neither-dsn"
        ),
        pytest.param(
            [],
            {"TALLYPOINT_SECRET_KEY": SECRET, "TALLYPOINT_LEDGER_DSN": "postgresql://nobody:hidden@127.0.0.1:1/none"},
            "no database: set TALLYPOINT_CRM_DSN to",
            id="one-dsn-of-two",
        ),
        pytest.param(
            [],
            {"TALLYPOINT_LEDGER_DSN": "nobody:hidden@127.0.0.1:1/none"},
            "ledger_dsn (TALLYPOINT_LEDGER_DSN): must be postgresql://user:password@host/database",
            id="no-dsn",
        ),
        pytest.param([], {f"{PREFIX}LEDGER_DNS": "x"}, "did you mean TALLYPOINT_LEDGER_DSN?", id="misspelt-variable"),
        pytest.param(["--pos-listen=here"], {}, "pos_listen (TALLYPOINT_POS_LISTEN)", id="bad-address"),
        pytest.param([], {"TALLYPOINT_WORKERS": "many"}, "workers (TALLYPOINT_WORKERS)", id="bad-number"),
        pytest.param(
            [],
            {
                "TALLYPOINT_SECRET_KEY": SECRET,
                "TALLYPOINT_LEDGER_DSN": "postgresql://nobody:hidden@127.0.0.1:1/none",
                "TALLYPOINT_CRM_DSN": "postgresql://nobody:hidden@127.0.0.1:1/none",
            },
            "A database cannot be reached",
            id="no-database",
        ),
    ],
)
def test_unsafe_or_wrong_settings_are_refused_by_name(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    """Exit code 2, one message that says what to set, no traceback, no password."""
    server = start_server(tmp_path, *arguments, environment=environment, development=False)
    exit_code = server.process.wait(120)
    server.stop()
    text = " ".join(str(event.get("text", "")) for event in server.log)
    assert words in text
    assert exit_code == 2
    assert "Traceback" not in text
    assert "hidden" not in server.log_text()
    assert not (tmp_path / "postgres").exists(), "no empty ledger was started"


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    """Even if that one would share it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = start_server(tmp_path, f"--pos-listen={address}")
        exit_code = server.process.wait(120)
        server.stop()
    assert exit_code == 2
    assert f"cannot listen on {address} (pos_listen): another process already listens there" in server.log_text()


def test_two_servers_do_not_share_a_data_directory(tallypoint: RunningServer) -> None:
    """The second one says who has it, and harms nothing."""
    server = start_server(tallypoint.data_dir)
    exit_code = server.process.wait(120)
    server.stop()
    assert exit_code == 2
    assert f"another 'tallypoint serve' (process {tallypoint.process.pid})" in server.log_text()
    assert "tallypoint_children_ready" in metrics_of(tallypoint)


def test_settings_are_shown_with_secrets_masked(tmp_path: Path) -> None:
    """`tallypoint settings` is safe to paste into a ticket."""
    environment = {
        "TALLYPOINT_SECRET_KEY": SECRET,
        "TALLYPOINT_LEDGER_DSN": "postgresql://u:hunter2@db/ledger",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "COLUMNS": "250",
    }
    command = [sys.executable, "-m", "server.commands.main", "settings"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "TALLYPOINT_LEDGER_DSN" in shown
    assert "postgresql://u:********@db/ledger" in shown
    assert SECRET not in shown
    assert "hunter2" not in shown


def test_commands_show_a_certificate_where_the_server_asks_for_one(tmp_path: Path) -> None:
    """The setting tls_client_ca holds for the back office too."""
    authority = make_certificate(tmp_path, "authority")
    own, office = (make_certificate(tmp_path, name, authority) for name in ("server", "office"))
    environment = {
        "TALLYPOINT_SECRET_KEY": SECRET,
        "TALLYPOINT_EMBEDDED": "true",
        "TALLYPOINT_TLS_CERT": str(own.cert_path),
        "TALLYPOINT_TLS_KEY": str(own.key_path),
        "TALLYPOINT_TLS_CLIENT_CA": str(authority.cert_path),
    }
    with running_server(tmp_path / "data", "--workers=1", environment=environment, development=False) as server:
        reach = {
            "TALLYPOINT_ADMIN_ADDRESS": server.backoffice_address,
            "TALLYPOINT_ADMIN_KEY": "tp_nobody",
            "TALLYPOINT_ADMIN_TLS_CA": str(authority.cert_path),
        }
        certificate = {"TALLYPOINT_ADMIN_TLS_CERT": str(office.cert_path)}
        private_key = {"TALLYPOINT_ADMIN_TLS_KEY": str(office.key_path)}
        for shown, words in (
            (certificate | private_key, "UNAUTHENTICATED"),
            ({}, "UNAVAILABLE"),
            (certificate, "belong together"),
            (certificate | {"TALLYPOINT_ADMIN_TLS_KEY": str(tmp_path / "none")}, "cannot be read"),
        ):
            done = run_command("stores", "list", environment=reach | shown)
            assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_names_of_settings_are_whole_on_a_narrow_terminal() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "COLUMNS": "80"}
    command = [sys.executable, "-m", "server.commands.main", "settings"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "…" not in shown
    assert "TALLYPOINT_ADJUSTMENT_LIMIT_POINTS" in shown


def test_a_certificate_and_a_key_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """With exit code 2 and both names, not by each child again and again."""
    mine, other = make_certificate(tmp_path, "mine"), make_certificate(tmp_path, "other")
    right = Settings(secret_key=SecretStr(SECRET), embedded=True, tls_cert=mine.cert_path, tls_key=mine.key_path)
    check_production(right)
    with pytest.raises(StartRefusedError, match=f"{mine.cert_path} and the key {other.key_path}"):
        check_production(right.model_copy(update={"tls_key": other.key_path}))


def test_migrate_beside_a_running_server_changes_nothing(tallypoint: RunningServer) -> None:
    """Commands may use the embedded database while the server runs, and leave it running."""
    command = [
        sys.executable,
        "-m",
        "server.commands.main",
        "migrate",
        "--embedded",
        f"--data-dir={tallypoint.data_dir}",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "The databases are up to date.\n"
    assert postgres_of(tallypoint).pid is not None
    assert json.loads((tallypoint.data_dir / "development-keys.json").read_text()) == tallypoint.keys
