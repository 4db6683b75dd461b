"""The back-office process: members, stores, programmes and the ledger on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from tallypoint.v1 import ledger_pb2, member_pb2, programme_pb2, store_pb2

from server.backoffice import ledger_servicer, member_servicer, programme_servicer, store_servicer
from server.catalogue import ProductRegistry
from server.child import ChildTask
from server.edge import service_handler
from server.hosting import Port, answer_until, edge_of
from server.members.identifiers import IdentifierReader, KeyedHash
from server.members.registry import Registry
from server.reload import Reloader
from server.rules import ProgrammeStore
from server.storage import read_books, writer_connect, writer_pool
from server.stores import KeyRing, StoreRegistry


async def backoffice_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer the calls of the back office."""
    settings = task.settings
    async with AsyncExitStack() as stack:
        connect = writer_connect(task.dsns.ledger, "tallypoint back office")
        books = await read_books(connect)
        pool = await stack.enter_async_context(writer_pool(task.dsns.ledger, "tallypoint back office"))
        hashes = KeyedHash(settings.secret_bytes)
        keys = KeyRing(hashes)
        reloader = Reloader(connect, {"stores": (keys.load,)})
        stack.push_async_callback(reloader.stop)
        await reloader.start()
        reader = IdentifierReader.of_settings(settings.card_schemes, settings.default_region)
        members = member_servicer.MemberServicer(Registry(pool, reader, hashes, books), pool)
        stores = store_servicer.StoreServicer(StoreRegistry(pool, hashes), ProductRegistry(pool))
        programmes = programme_servicer.ProgrammeServicer(ProgrammeStore(pool))
        ledger = ledger_servicer.LedgerServicer(pool, books)
        edge = edge_of(settings, keys)
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
        await answer_until(stop, Port(task.backoffice_address, settings, edge, handlers), ready)
