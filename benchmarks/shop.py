"""A `tallypoint serve` with goods, members, a programme and terminals, as the benchmarks need it.

Everything is put there through the back-office port, as a chain would do it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import grpc
import grpc.aio
import psutil
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from benchmarks import workload
from benchmarks.harness import narrator, with_children
from benchmarks.workload import Basket, Register, Shopper
from server.postgres import EmbeddedPostgres
from server.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.server_process import RunningServer, running_server

_CALL_TIMEOUT_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 60.0
_DRAIN_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.05
_MEMBERS_PER_CALL: Final = 500

# How many entries there are.
READ_ENTRIES: Final = "SELECT sum(number)::bigint FROM ledger.book_head"

# How many entries the CRM database has.
READ_APPLIED: Final = "SELECT coalesce(sum(number), 0)::bigint FROM crm.cursor"

DURABILITY: Final = ("fsync", "synchronous_commit", "full_page_writes")


class ShopSize(NamedTuple):
    """How much there is of everything."""

    lines: int
    promotions: int
    members: int
    terminals: int


class Shop:
    """A running server, ready for receipts; made by `open_shop`."""

    def __init__(self, server: RunningServer, register: Register, keys: Sequence[str], sample_answer: bytes) -> None:
        self.address = server.pos_address
        self.register = register
        self.keys = keys
        self.sample_answer = sample_answer
        """A serialised `CommitResponse`, as this shop gives them."""
        self._supervisor = psutil.Process(server.process.pid)
        self._postgres = EmbeddedPostgres(server.data_dir / "postgres")

    def processor_parts(self) -> dict[str, Any]:
        """Return the parts of the server whose processor time is of interest."""
        children = self._supervisor.children()
        workers = _listeners(children, int(self.address.rpartition(":")[2]))
        return {
            "workers": lambda: workers,
            "other children": lambda: [each for each in children if each not in workers],
            "postgres": with_children(self._postgres.pid),
        }

    def entries(self) -> int:
        """Return how many entries the ledger has."""
        return asyncio.run(_value(self._postgres.dsn(LEDGER_DATABASE), READ_ENTRIES))

    def wait_for_crm(self) -> float:
        """Wait until the CRM database has every entry; return how many seconds that took.

        Raises:
            TimeoutError: if it takes longer than five minutes.
        """
        began = time.monotonic()
        entries = self.entries()
        while asyncio.run(_value(self._postgres.dsn(CRM_DATABASE), READ_APPLIED)) < entries:
            if time.monotonic() - began > _DRAIN_SECONDS:
                raise TimeoutError("the CRM stream does not catch up")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began

    def database_settings(self) -> dict[str, str]:
        """Return PostgreSQL's version and the settings that make it durable."""
        return asyncio.run(database_settings(self._postgres.dsn(LEDGER_DATABASE)))


@contextmanager
def open_shop(data_dir: Path, size: ShopSize, *arguments: str) -> Iterator[Shop]:
    """Run a server with these further arguments of `tallypoint serve`, and fill it."""
    narrator.print(f"starting tallypoint in {data_dir}")
    with running_server(data_dir, *arguments) as server:
        narrator.print(f"seeding {size.members:,} members, {size.promotions:,} promotions")
        shop = Shop(server, *asyncio.run(_seed(server, size)))
        shop.wait_for_crm()
        yield shop


async def database_settings(dsn: str) -> dict[str, str]:
    """Return the version of a PostgreSQL and the settings that make it durable."""
    conn = await asyncpg.connect(dsn)
    try:
        names = ("server_version", *DURABILITY)
        return {name: str(await conn.fetchval("SELECT current_setting($1)", name)) for name in names}
    finally:
        await conn.close()


def _listeners(processes: Sequence[psutil.Process], port: int) -> list[psutil.Process]:
    return [
        process
        for process in processes
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in process.net_connections("tcp"))
    ]


async def _value(dsn: str, query: str) -> int:
    conn = await asyncpg.connect(dsn)
    try:
        return int(await conn.fetchval(query))
    finally:
        await conn.close()


async def _seed(server: RunningServer, size: ShopSize) -> tuple[Register, list[str], bytes]:
    admin = _bearing(server.keys["admin"])
    shoppers = [Shopper.number(number) for number in range(size.members)]
    async with grpc.aio.insecure_channel(server.backoffice_address) as channel:
        keys = await _put_goods_and_terminals(channel, admin, size)
        members = member_pb2_grpc.MemberServiceStub(channel)
        for start in range(0, len(shoppers), _MEMBERS_PER_CALL):
            some = shoppers[start : start + _MEMBERS_PER_CALL]
            import_ = member_pb2.ImportMembersRequest(members=[shopper.registration() for shopper in some])
            imported = await members.ImportMembers(import_, metadata=admin, timeout=_CALL_TIMEOUT_SECONDS)
            refused = [result.refusal.message for result in imported.results if result.HasField("refusal")]
            if refused:
                raise RuntimeError(f"the server refused members: {refused[0]}")
    event_at = datetime.now(UTC)
    receipts = workload.receipts(size.lines, event_at)
    async with grpc.aio.insecure_channel(server.pos_address) as channel:
        stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
        quotes = _Quotes(stub, keys[0])
        await quotes.settle(receipts[0])
        plain = [await quotes.paid(receipt, 0) for receipt in receipts]
        spending = [await quotes.paid(receipt, workload.SPENT_POINTS_MINOR) for receipt in receipts]
        register = Register(plain, spending, shoppers)
        request, _ = next(register.ring_up(1))
        answer = await stub.Commit(
            checkout_pb2.CommitRequest.FromString(request), metadata=_bearing(keys[0]), timeout=_CALL_TIMEOUT_SECONDS
        )
    return register, keys, answer.SerializeToString()


async def _put_goods_and_terminals(
    channel: grpc.aio.Channel, admin: tuple[tuple[str, str], ...], size: ShopSize
) -> list[str]:
    """Put catalogue, programme, store and terminals; return the terminals' keys."""
    stores = store_pb2_grpc.StoreServiceStub(channel)
    programmes = programme_pb2_grpc.ProgrammeServiceStub(channel)
    how: dict[str, Any] = {"metadata": admin, "timeout": _CALL_TIMEOUT_SECONDS}
    await stores.PutProducts(store_pb2.PutProductsRequest(products=workload.articles(size.promotions)), **how)
    text = workload.programme_text(size.promotions)
    await programmes.PublishProgramme(programme_pb2.PublishProgrammeRequest(text=text, file_name="bench.yaml"), **how)
    store = store_pb2.Store(store_id=workload.STORE_ID, name="Benchmark", time_zone=workload.TIME_ZONE)
    await stores.PutStore(store_pb2.PutStoreRequest(store=store), **how)
    keys = []
    for number in range(size.terminals):
        request = store_pb2.IssueTerminalKeyRequest(store_id=workload.STORE_ID, terminal_id=f"lane-{number}")
        keys.append((await stores.IssueTerminalKey(request, **how)).key)
    return keys


def _bearing(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


class _Quotes:
    """Asks what receipts give."""

    def __init__(self, stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, key: str) -> None:
        self._quote = stub.Quote
        self._metadata = _bearing(key)

    async def settle(self, receipt: common_pb2.Receipt) -> None:
        """Wait until the worker behind this connection knows key, goods and programme."""
        give_up_at = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                answer = await self._ask(receipt, 0)
            except grpc.aio.AioRpcError as error:
                if time.monotonic() > give_up_at:
                    raise RuntimeError(f"the server does not quote: {error.details()}") from error
            else:
                if all(notice.code != "UNKNOWN_SKU" for notice in answer.notices):
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def paid(self, receipt: common_pb2.Receipt, spend_points_minor: int) -> Basket:
        """Return a basket paid as quoted."""
        return workload.as_paid(receipt, await self._ask(receipt, spend_points_minor))

    async def _ask(self, receipt: common_pb2.Receipt, spend_points_minor: int) -> checkout_pb2.QuoteResponse:
        request = checkout_pb2.QuoteRequest(receipt=receipt, spend_points_minor=spend_points_minor)
        return await self._quote(request, metadata=self._metadata, timeout=_CALL_TIMEOUT_SECONDS)
