"""A POS worker: what the process behind the registers' port is made of, and in which order it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final
from uuid import UUID

import asyncpg
from tallypoint.v1 import checkout_pb2

from ledger.booking.committer import Committer
from ledger.reading.balances import BalanceAt, read_balances
from server.base.clock import utc_now
from server.base.gather import Gatherer
from server.base.reload import Loader, Reloader
from server.base.storage import read_books, writer_connect
from server.checkout.budgets import Budgets
from server.checkout.lookups import LedgerReader
from server.checkout.servicer import BalanceReader, Books, CheckoutServicer
from server.edge.caller import Role
from server.edge.forwarding import Forwarder, owned_books
from server.edge.handlers import service_handler
from server.measuring import metrics
from server.members.directory import Directory
from server.members.identifiers import IdentifierReader, KeyedHash
from server.process.child import ChildTask
from server.process.hosting import Port, answer_until, edge_of, tracing_of
from server.rights.coupons import CouponReader
from server.rules.book import RulesBook
from server.rules.shadow import Shadows
from server.shop.catalogue import Catalogue
from server.shop.stores import KeyRing, Stores

_TERMINALS: Final = frozenset({Role.TERMINAL})


async def pos_worker_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer CheckoutService on the POS port."""
    settings = task.settings
    async with AsyncExitStack() as stack:
        tracing = tracing_of(settings, task.name)
        if tracing is not None:
            stack.callback(tracing.close)
        connect = writer_connect(task.dsns.ledger, "tallypoint worker")
        books = await read_books(connect)
        hashes = KeyedHash(settings.secret_bytes)
        keys, stores, catalogue, rules = KeyRing(hashes), Stores(), Catalogue(), RulesBook()
        identifiers = IdentifierReader.of_settings(settings.card_schemes, settings.default_region)
        number = int(task.name.rpartition("-")[2])
        committer_metrics = metrics.CommitterMetrics(None if tracing is None else tracing.batch)
        owned = owned_books(number, settings.workers, books)
        committer = Committer(connect, books, utc_now, owned=owned, observer=committer_metrics)
        stack.push_async_callback(committer.close)
        directory = Directory(
            connect,
            identifiers,
            hashes,
            books,
            committer.known_number,
            lambda hit: committer_metrics.lookup("member", hit, not hit),
        )
        stack.push_async_callback(directory.close)
        loaders: dict[str, tuple[Loader, ...]] = {
            "stores": (keys.load, stores.load),
            "products": (catalogue.load,),
            "programme": (rules.load,),
            "audience": (directory.forget_all,),
        }
        reloader = Reloader(connect, loaders)
        stack.push_async_callback(reloader.stop)
        await reloader.start()
        balances: BalanceReader = Gatherer("balances", connect, _load_balances)
        stack.push_async_callback(balances.close)
        reader = LedgerReader(connect, utc_now)
        stack.push_async_callback(reader.close)
        coupons = CouponReader(connect, books)
        stack.push_async_callback(coupons.close)
        budgets = Budgets(connect, utc_now)
        stack.push_async_callback(budgets.close)
        shadows = Shadows(rules, connect)
        stack.push_async_callback(shadows.stop)
        shadows.start()
        forwarder = Forwarder(task.sockets, number, settings.workers, committer_metrics)
        stack.push_async_callback(forwarder.stop)
        servicer = CheckoutServicer(
            directory=directory,
            books=Books(committer, balances, reader, budgets, forwarder if settings.workers > 1 else None),
            clock=utc_now,
            coupons=coupons,
            rules=rules,
            catalogue=catalogue,
            stores=stores,
            shadows=shadows,
        )
        await forwarder.start(servicer.commit_for_other)
        edge = edge_of(settings, keys, lambda store_id: min(stores.groups(store_id), default=metrics.NO_GROUP), tracing)
        service = checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]
        handlers = service_handler(service, servicer, _TERMINALS, edge, batch_methods={"CommitBatch"})
        line_socket = task.sockets / f"{task.name}.line"
        port = Port(task.pos_address, settings, edge, [(service, handlers)], line_socket)
        await answer_until(stop, port, ready)


async def _load_balances(
    conn: asyncpg.Connection[asyncpg.Record], members: Sequence[tuple[int, UUID]]
) -> dict[tuple[int, UUID], list[BalanceAt]]:
    found = await read_balances(conn, members, utc_now())
    return {(book, member_id): found[member_id] for book, member_id in members if member_id in found}
