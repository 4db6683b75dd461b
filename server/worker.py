"""What each child process does: which parts it is made of, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
from tallypoint.v1 import checkout_pb2, ledger_pb2, member_pb2, programme_pb2, store_pb2

from ledger.balances import read_balances
from ledger.books import read_book_count
from ledger.committer import Committer
from server import metrics
from server.backoffice import ledger_servicer, member_servicer, programme_servicer, store_servicer
from server.backoffice.clock import utc_now
from server.catalogue import Catalogue, ProductRegistry
from server.checkout.servicer import BalanceReader, CheckoutServicer
from server.child import ChildTask
from server.edge import Edge, Role, service_handler
from server.gather import Gatherer
from server.hosting import Port
from server.members.directory import Directory
from server.members.identifiers import IdentifierReader, KeyedHash
from server.members.registry import Registry
from server.reload import Reloader
from server.rules import ProgrammeStore, RulesBook
from server.settings import Settings
from server.stores import KeyRing, StoreRegistry, Stores

CONNECT_TIMEOUT_SECONDS: Final = 5.0
COMMAND_TIMEOUT_SECONDS: Final = 30.0
POOL_SIZE: Final = 10
_TERMINALS: Final = frozenset({Role.TERMINAL})

Connect = Callable[[], Coroutine[Any, Any, "asyncpg.Connection[asyncpg.Record]"]]


def writer_connect(dsn: str) -> Connect:
    """Return a function that opens a connection with the writer's rights."""
    return functools.partial(
        asyncpg.connect,
        dsn,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings={"role": "tallypoint_writer", "application_name": "tallypoint"},
    )


async def pos_worker_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer CheckoutService on the POS port."""
    settings = task.settings
    async with AsyncExitStack() as stack:
        connect = writer_connect(task.dsns.ledger)
        books = await _book_count(connect)
        hashes = KeyedHash(settings.secret_bytes)
        keys, stores, catalogue, rules = KeyRing(hashes), Stores(), Catalogue(), RulesBook()
        loaders = {"stores": (keys.load, stores.load), "products": (catalogue.load,), "programme": (rules.load,)}
        await _started(stack, Reloader(connect, loaders))
        reader = IdentifierReader.of_settings(settings.card_schemes, settings.default_region)
        directory = Directory(connect, reader, hashes, books)
        stack.push_async_callback(directory.close)
        balances: BalanceReader = Gatherer("balances", connect, _load_balances)
        stack.push_async_callback(balances.close)
        committer = Committer(connect, books, utc_now, observer=_CommitterMetrics())
        stack.push_async_callback(committer.close)
        servicer = CheckoutServicer(
            directory=directory,
            balances=balances,
            committer=committer,
            rules=rules,
            catalogue=catalogue,
            stores=stores,
            clock=utc_now,
        )
        edge = _edge(settings, keys)
        service = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
        handlers = service_handler(service, servicer, _TERMINALS, edge, batch_methods={"CommitBatch"})
        await _answer(Port(task.pos_address, settings, edge, [(service, handlers)]), ready, stop)


async def backoffice_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer members', stores', programmes' and the ledger's calls on the back-office port."""
    settings = task.settings
    async with AsyncExitStack() as stack:
        connect = writer_connect(task.dsns.ledger)
        books = await _book_count(connect)
        pool = await stack.enter_async_context(_pool(task.dsns.ledger))
        hashes = KeyedHash(settings.secret_bytes)
        keys = KeyRing(hashes)
        await _started(stack, Reloader(connect, {"stores": (keys.load,)}))
        reader = IdentifierReader.of_settings(settings.card_schemes, settings.default_region)
        members = member_servicer.MemberServicer(Registry(pool, reader, hashes, books), pool)
        stores = store_servicer.StoreServicer(StoreRegistry(pool, hashes), ProductRegistry(pool))
        programmes = programme_servicer.ProgrammeServicer(ProgrammeStore(pool))
        ledger = ledger_servicer.LedgerServicer(pool, books)
        edge = _edge(settings, keys)
        services = [
            (member_pb2.DESCRIPTOR.services_by_name["MemberService"], members, member_servicer.ALLOWED),
            (store_pb2.DESCRIPTOR.services_by_name["StoreService"], stores, store_servicer.ALLOWED),
            (programme_pb2.DESCRIPTOR.services_by_name["ProgrammeService"], programmes, programme_servicer.ALLOWED),
            (ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"], ledger, ledger_servicer.ALLOWED),
        ]
        handlers = [
            (service, service_handler(service, servicer, allowed, edge, batch_methods=member_servicer.BATCH_METHODS))
            for service, servicer, allowed in services
        ]
        await _answer(Port(task.backoffice_address, settings, edge, handlers), ready, stop)


async def crm_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Stream the ledger into the CRM database. It is ready at once: a database that is away only makes it late."""
    from server.crm import streamer

    ready()
    await streamer.run(task.dsns.ledger, task.dsns.crm, stop)


class _CommitterMetrics:
    """Tells Prometheus what the committer does."""

    def batch(self, book: int, commands: int, seconds: float) -> None:  # noqa: ARG002 - a label a book is too many
        """Count a committed batch."""
        metrics.BATCH_ENTRIES.observe(commands)
        metrics.BATCH_SECONDS.observe(seconds)

    def retry(self, reason: str) -> None:
        """Count a batch that runs again."""
        metrics.BATCH_RETRIES.labels(reason).inc()


async def _answer(port: Port, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer calls until the process must end, then drain. What the calls use is closed after it, by the caller."""
    await port.start()
    ready()
    await stop.wait()
    await port.drain()


def _edge(settings: Settings, keys: KeyRing) -> Edge:
    return Edge(
        keys,
        max_concurrent_calls=settings.max_concurrent_calls,
        default_timeout_seconds=settings.default_timeout_seconds,
    )


async def _book_count(connect: Connect) -> int:
    conn = await connect()
    try:
        return await read_book_count(conn)
    finally:
        await conn.close()


async def _started(stack: AsyncExitStack, reloader: Reloader) -> None:
    stack.push_async_callback(reloader.stop)
    await reloader.start()


async def _load_balances(conn: Any, members: Any) -> dict[tuple[int, Any], Any]:  # noqa: ANN401
    found = await read_balances(conn, members, utc_now())
    return {(book, member_id): found[member_id] for book, member_id in members if member_id in found}


@asynccontextmanager
async def _pool(dsn: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=POOL_SIZE,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        server_settings={"role": "tallypoint_writer", "application_name": "tallypoint-backoffice"},
    ) as pool:
        yield pool
