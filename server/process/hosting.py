"""One gRPC port of one process: credentials, health, reflection, draining."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from server.base.settings import Settings, StartRefusedError
from server.edge.caller import Authenticator
from server.edge.handlers import Edge, MethodHandlers
from server.edge.line import METHOD, Line
from server.measuring.buffer import BufferedHistogram
from server.measuring.metrics import LINE_SECONDS

if TYPE_CHECKING:
    from server.measuring.tracing import Tracing

MAX_PENDING_CALLS: Final = 2_000
"""Calls of one process that may wait to be taken: of more than these gRPC answers some with CANCELLED by itself."""
MAX_PENDING_SECONDS: Final = 1
"""Who waits longer to be taken is answered by gRPC with CANCELLED, which costs next to nothing. Else, at three times
saturation, calls were taken so late that goodput fell to a quarter. To take all and refuse most by name, as soon as the
line was half a second long, gave 0.6 of saturation; this gives 1.0."""
KEEPALIVE_MILLISECONDS: Final = 30_000
"""A register whose cable was pulled is noticed within a minute."""
AGE_GRACE_SECONDS: Final = 30
"""How much longer than its streams, which end by themselves, a connection that is too old may last."""


class Port:
    """A gRPC server on one address, shared with other processes by SO_REUSEPORT.

    Args:
        address: host:port; for port 0, `number` is the one that was taken.
        settings: TLS files and limits.
        edge: What the calls share; it is drained with the port.
        services: The services with their handlers.
        line_socket: Named like the process; there it stands in its own line, see `server.edge.line`. None: it does not.
    """

    def __init__(
        self,
        address: str,
        settings: Settings,
        edge: Edge,
        services: Sequence[tuple[ServiceDescriptor, MethodHandlers]],
        line_socket: Path | None = None,
    ) -> None:
        self._edge = edge
        self._grace_seconds = settings.drain_timeout_seconds
        self._health = health_aio.HealthServicer()
        self._names = [service.full_name for service, _ in services]
        self._server = grpc.aio.server(options=server_options(settings))
        standard = _standard_handlers(self._health, self._names)
        handlers = MethodHandlers.join(standard, *(handlers for _, handlers in services))
        self._server.add_generic_rpc_handlers((handlers,))
        self._line: Line | None = None
        if line_socket is not None:
            tell = BufferedHistogram(LINE_SECONDS.labels(line_socket.stem)).observe
            self._line = Line(f"unix:{line_socket}", tell)
            handlers.handlers[METHOD] = self._line.handler()
            self._server.add_insecure_port(self._line.address)
        credentials = _credentials(settings)
        if credentials is None:
            self.number = self._server.add_insecure_port(address)
        else:
            self.number = self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Answer calls, and say SERVING."""
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        if self._line is not None:
            self._line.start()

    async def drain(self) -> None:
        """Say NOT_SERVING, let the calls under way finish, and stop; what takes too long is cancelled."""
        if self._line is not None:
            await self._line.stop()
        await self._health.enter_graceful_shutdown()
        self._edge.drain()
        await self._server.stop(self._grace_seconds)


def edge_of(
    settings: Settings,
    authenticator: Authenticator,
    group_of: Callable[[str], str] | None = None,
    tracing: Tracing | None = None,
) -> Edge:
    """Return what the calls of a process share, by the settings; ``group_of`` says by which group a store counts."""
    return Edge(
        authenticator,
        max_concurrent_calls=settings.max_concurrent_calls,
        default_timeout_seconds=settings.default_timeout_seconds,
        group_of=group_of,
        slow_call_milliseconds=settings.slow_call_milliseconds,
        stream_age_seconds=settings.connection_age_seconds,
        tracing=tracing,
    )


def tracing_of(settings: Settings, process: str) -> Tracing | None:
    """Return the tracing of a process, by the settings; None if it is off, and nothing of it is loaded.

    Raises:
        StartRefusedError: It is on, and OpenTelemetry is not installed.
    """
    if settings.trace_endpoint is None:
        return None
    try:
        module = importlib.import_module("server.measuring.tracing")
    except ImportError as error:
        raise StartRefusedError(
            "trace_endpoint is set, but OpenTelemetry is not installed: pip install 'tallypoint[tracing]'"
        ) from error
    tracing: Tracing = module.open_tracing(settings.trace_endpoint, settings.trace_share, process)
    return tracing


async def answer_until(stop: asyncio.Event, port: Port, ready: Callable[[], None]) -> None:
    """Answer calls until the event, then drain. What the calls use is closed after it, by the caller."""
    await port.start()
    ready()
    await stop.wait()
    await port.drain()


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options for a port of ours.

    A connection stays with the worker that took it. So that lanes spread over the workers, also over one that was
    started again, each connection ends after a while: gRPC tells the client to open a new one for its next call, and
    `Edge` ends each stream in order at the same age.
    """
    age_milliseconds = settings.connection_age_seconds * 1000
    aging = [
        ("grpc.max_connection_age_ms", age_milliseconds),
        ("grpc.max_connection_age_grace_ms", age_milliseconds + AGE_GRACE_SECONDS * 1000),
    ]
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        ("grpc.server_max_unrequested_time_in_server", MAX_PENDING_SECONDS),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MILLISECONDS // 3),
        *(aging if age_milliseconds else []),
    ]


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    client_ca = None if settings.tls_client_ca is None else settings.tls_client_ca.read_bytes()
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


class _Collector:
    """Stands in for a server, to take the handlers that generated code registers."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore them: the same methods come registered."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's methods."""
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


def _standard_handlers(health: health_aio.HealthServicer, service_names: Sequence[str]) -> MethodHandlers:
    """Return health and reflection. Registered in the usual way, their methods would slow down every call."""
    collector: Any = _Collector()
    health_pb2_grpc.add_HealthServicer_to_server(health, collector)
    names = (
        *service_names,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name,
    )
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection_aio.ReflectionServicer(names), collector)
    return MethodHandlers(collector.handlers)
