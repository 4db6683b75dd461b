"""A `tallypoint serve` with goods, members, a programme and terminals, as the benchmarks need it.

Everything is put there through the back-office port, as a chain would do it.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import grpc
import grpc.aio
import psutil
from prometheus_client.parser import text_string_to_metric_families
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
from ledger.reading.journal import read_entries, read_heads
from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.server_process import RunningServer, running_server

_CALL_TIMEOUT_SECONDS: Final = 60.0
_READY_SECONDS: Final = 60.0
_DRAIN_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.05
_MEMBERS_PER_CALL: Final = 500
_ENTRIES_PER_QUERY: Final = 10_000
_MEBIBYTE: Final = 1024 * 1024

BATCH_ENTRIES: Final = "tallypoint_batch_entries"
"""The server's histogram of batch sizes."""

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
    baskets: int = workload.BASKETS
    """Different baskets, which recur."""


class BatchSizes(NamedTuple):
    """How many batches of which size were committed."""

    up_to: dict[str, int]
    """Batches by the upper bound of their size, each counted once."""
    batches: int
    entries: int

    def since(self, before: BatchSizes) -> BatchSizes:
        """Return what was added to an earlier reading."""
        up_to = {bound: count - before.up_to.get(bound, 0) for bound, count in self.up_to.items()}
        return BatchSizes(up_to, self.batches - before.batches, self.entries - before.entries)

    def summary(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        mean = round(self.entries / self.batches, 1) if self.batches else 0
        return {"mean": mean, "batches": self.batches, "entries": self.entries, "up_to": self.up_to}


class Shop:
    """A running server, ready for receipts; made by `open_shop`."""

    def __init__(self, server: RunningServer, register: Register, keys: Sequence[str], sample_answer: bytes) -> None:
        self.address = server.pos_address
        self.register = register
        self.keys = keys
        self.sample_answer = sample_answer
        """A serialised `CommitResponse`, as this shop gives them."""
        self._metrics_address = server.metrics_address
        self._supervisor = psutil.Process(server.process.pid)
        self._postgres = EmbeddedPostgres(server.data_dir / "postgres")

    def batch_sizes(self) -> BatchSizes:
        """Return the sizes of the batches that the workers have committed since they were started."""
        with urllib.request.urlopen(f"http://{self._metrics_address}/metrics", timeout=_CALL_TIMEOUT_SECONDS) as page:
            return batch_sizes_of(page.read().decode())

    def resident_mebibytes(self) -> dict[str, float]:
        """Return the memory of each part of the server now; PostgreSQL's shared memory counts once a process."""
        return {
            part: sum(_resident_bytes(process) for process in processes()) / _MEBIBYTE
            for part, processes in self.processor_parts().items()
        }

    def heads(self) -> dict[int, int]:
        """Return the number of the newest entry of each book."""
        return asyncio.run(_heads(self._postgres.dsn(LEDGER_DATABASE)))

    def message_ids_after(self, heads: Mapping[int, int]) -> dict[tuple[int, int], bytes | None]:
        """Return the message id of each entry after these heads, by book and number."""
        return asyncio.run(_message_ids(self._postgres.dsn(LEDGER_DATABASE), heads))

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


def batch_sizes_of(exposition: str) -> BatchSizes:
    """Read the histogram of batch sizes from the text of /metrics: batches by the upper bound of their size."""
    up_to: dict[str, int] = {}
    batches = entries = 0
    for family in text_string_to_metric_families(exposition):
        if family.name != BATCH_ENTRIES:
            continue
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                up_to[sample.labels["le"]] = up_to.get(sample.labels["le"], 0) + int(sample.value)
            elif sample.name.endswith("_count"):
                batches += int(sample.value)
            elif sample.name.endswith("_sum"):
                entries += int(sample.value)
    bounds = sorted(up_to, key=float)
    below = [0, *(up_to[bound] for bound in bounds)]
    return BatchSizes(
        {bound: up_to[bound] - less for bound, less in zip(bounds, below, strict=False)}, batches, entries
    )


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


async def _heads(dsn: str) -> dict[int, int]:
    conn = await asyncpg.connect(dsn)
    try:
        return {book: head.number for book, head in (await read_heads(conn)).items()}
    finally:
        await conn.close()


async def _message_ids(dsn: str, heads: Mapping[int, int]) -> dict[tuple[int, int], bytes | None]:
    conn = await asyncpg.connect(dsn)
    found: dict[tuple[int, int], bytes | None] = {}
    try:
        for book, number in heads.items():
            last = number
            while entries := await read_entries(conn, book, last, _ENTRIES_PER_QUERY):
                found |= {(book, entry.number): entry.message_id for entry in entries}
                last = entries[-1].number
    finally:
        await conn.close()
    return found


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
    receipts = workload.receipts(size.lines, datetime.now(UTC), size.baskets)
    async with grpc.aio.insecure_channel(server.pos_address) as channel:
        stub = checkout_pb2_grpc.CheckoutServiceStub(channel)
        quotes = _Quotes(stub, keys[0])
        await quotes.wait_until_ready(receipts[0])
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

    async def wait_until_ready(self, receipt: common_pb2.Receipt) -> None:
        """Wait until the worker behind this connection knows key, goods and programme."""
        give_up_at = time.monotonic() + _READY_SECONDS
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
