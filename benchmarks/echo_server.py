"""The baseline: servers that answer every commit with the same canned message.

The messages, the number of processes, the port shared by SO_REUSEPORT, the event loop, the gRPC settings and the
single generic handler are those of `tallypoint serve`; authentication, validation, rules, books and database are not
there.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import psutil
import uvloop
from tallypoint.v1 import checkout_pb2

from benchmarks.load import COMMIT, SESSION
from server.base.settings import Settings
from server.edge.handlers import MethodHandlers
from server.process.hosting import server_options

_spawn: Final = multiprocessing.get_context("spawn")
START_TIMEOUT_SECONDS: Final = 60.0


class EchoServer(NamedTuple):
    """A running baseline."""

    address: str
    pids: tuple[int, ...]

    def processes(self) -> list[psutil.Process]:
        """Return its processes."""
        return [psutil.Process(pid) for pid in self.pids]


@contextmanager
def echo_server(workers: int, answer: bytes) -> Iterator[EchoServer]:
    """Run a baseline that gives this serialised `CommitResponse` to everybody; end it afterwards."""
    processes = []
    with socket.socket() as holder:  # keeps the port, without listening, until all workers are there
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        try:
            for number in range(workers):
                ours, theirs = _spawn.Pipe()
                process = _spawn.Process(
                    target=_run_worker, args=(theirs, address, answer), name=f"echo-{number}", daemon=True
                )
                process.start()
                theirs.close()
                processes.append((process, ours))
            for _, ours in processes:
                if not ours.poll(START_TIMEOUT_SECONDS):
                    raise TimeoutError("the echo server did not start")
                ours.recv()
            yield EchoServer(address, tuple(process.pid or 0 for process, _ in processes))
        finally:
            for process, ours in processes:
                ours.close()
                process.terminate()
                process.join(10)


def _run_worker(parent: Connection, address: str, answer: bytes) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parent, address, checkout_pb2.CommitResponse.FromString(answer)))


async def _serve(parent: Connection, address: str, answer: checkout_pb2.CommitResponse) -> None:
    async def commit(request: checkout_pb2.CommitRequest, context: Any) -> checkout_pb2.CommitResponse:  # noqa: ANN401, ARG001 - grpc's shape
        return answer

    async def session(
        requests: AsyncIterator[checkout_pb2.SessionRequest],
        context: Any,  # noqa: ANN401, ARG001  - gRPC's own shape
    ) -> AsyncIterator[checkout_pb2.SessionResponse]:
        async for request in requests:
            yield checkout_pb2.SessionResponse(correlation_id=request.correlation_id, commit=answer)

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        COMMIT: grpc.unary_unary_rpc_method_handler(
            commit, checkout_pb2.CommitRequest.FromString, checkout_pb2.CommitResponse.SerializeToString
        ),
        SESSION: grpc.stream_stream_rpc_method_handler(
            session, checkout_pb2.SessionRequest.FromString, checkout_pb2.SessionResponse.SerializeToString
        ),
    }
    server = grpc.aio.server(options=server_options(Settings()))
    server.add_generic_rpc_handlers((MethodHandlers(handlers),))
    server.add_insecure_port(address)
    await server.start()
    gc.collect()
    gc.freeze()
    parent.send("ready")
    await server.wait_for_termination()
