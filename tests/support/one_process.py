"""The whole service in one process, for tests: both ports over real gRPC, a ledger of its own, a clock that can be set.

What `server.process.worker` and `server.process.back_office` put together, with one clock for all. It starts in a few
milliseconds, so that hundreds of histories can have one each.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import grpc
from google.protobuf.descriptor import ServiceDescriptor
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    correction_pb2,
    correction_pb2_grpc,
    finance_pb2,
    finance_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
)

from ledger.booking.committer import Committer
from ledger.booking.opening import open_books
from ledger.reading.balances import BalanceAt, read_balances
from server.backoffice import correction_servicer, finance_servicer, member_servicer, rights_servicer
from server.base.database import connection
from server.base.gather import Gatherer
from server.checkout.budgets import Budgets
from server.checkout.levels import relevel_of
from server.checkout.lookups import LedgerReader
from server.checkout.servicer import BalanceReader, Books, CheckoutServicer
from server.corrections.adjustments import AdjustmentDesk
from server.corrections.leftovers import move_leftovers
from server.corrections.merge import Merger
from server.corrections.transfers import TransferDesk
from server.edge.caller import Identity, Role
from server.edge.handlers import Edge, MethodHandlers, service_handler
from server.members.directory import Directory
from server.members.identifiers import IdentifierReader, KeyedHash
from server.members.profile import ProfileDesk
from server.members.registry import Registry
from server.process.sweeper import Sweeper
from server.rights.audience import AudienceDesk
from server.rights.coupon_desk import CouponDesk
from server.rights.coupons import CouponReader
from server.rights.people import MemberFinder
from server.rights.showing import RightsViewer
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from server.shop.catalogue import Catalogue
from server.shop.stores import StoreRegistry, Stores

BOOKS: Final = 2
STORE, LANE = "kyiv-1", "1"
ZONE: Final = "Europe/Kyiv"
HASHES: Final = KeyedHash(b"a secret for tests, of 32 bytes.")
IDENTIFIERS: Final = IdentifierReader.of_settings(["ean13:2"], "UA")
TERMINAL, OFFICE = ((("authorization", f"Bearer {key}"),) for key in ("terminal", "office"))
_TIMEOUT_SECONDS: Final = 30.0


class _Keys:
    """Two keys: the lane's, and the administrator's."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        if bearer_key == "terminal":
            return Identity(Role.TERMINAL, f"{STORE}/{LANE}", STORE, LANE)
        return Identity(Role.ADMIN, "olena") if bearer_key == "office" else None


@dataclass
class Service:
    """A running service: stubs for its calls, its clock, and what else makes time pass in it."""

    dsn: str
    pool: asyncpg.Pool[asyncpg.Record]
    rules: RulesBook
    now: list[datetime]
    pos: checkout_pb2_grpc.CheckoutServiceAsyncStub
    members: member_pb2_grpc.MemberServiceAsyncStub
    corrections: correction_pb2_grpc.CorrectionServiceAsyncStub
    rights: rights_pb2_grpc.RightsServiceAsyncStub
    finance: finance_pb2_grpc.FinanceServiceAsyncStub

    def clock(self) -> datetime:
        """Tell the time; it stands still until it is moved."""
        return self.now[0]

    def move_clock(self, **duration: float) -> None:
        """Let so much time pass."""
        self.now[0] += timedelta(**duration)

    async def publish(self, text: str) -> None:
        """Put a version of the programme into effect, for both ports at once."""
        await ProgrammeStore(self.pool).publish(text, "", self.clock())
        async with connection(self.pool) as conn:
            await self.rules.load(conn)

    async def call(self, method: str, request: Any) -> Any:
        """Call the lane's port; a refusal raises."""
        return await getattr(self.pos, method)(request, metadata=TERMINAL, timeout=_TIMEOUT_SECONDS)

    async def ask_office(self, stub: str, method: str, request: Any) -> Any:
        """Call the back office; a refusal raises."""
        return await getattr(getattr(self, stub), method)(request, metadata=OFFICE, timeout=_TIMEOUT_SECONDS)

    async def sweep(self) -> None:
        """Book what time has done, and move on what came to members that were merged, as the processes do."""
        await Sweeper(lambda: _writer(self.dsn), asyncio.Event(), self.clock).sweep()
        await move_leftovers(self.pool, BOOKS, self.clock(), lambda now: relevel_of(self.rules.at(now), now.date()))

    async def enrol(self) -> str:
        """Make a member; return their id."""
        request = member_pb2.RegisterMemberRequest(
            message_id=str(uuid.uuid4()),
            member=member_pb2.NewMember(profile=member_pb2.Profile(name="Olena Koval")),
        )
        return str((await self.ask_office("members", "RegisterMember", request)).member.member_id)


async def _writer(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})


@asynccontextmanager
async def running_service(dsn: str, programme: str, start: datetime) -> AsyncIterator[Service]:
    """Open the books of a fresh ledger and serve over it, with a programme in effect and a store in Kyiv."""
    owner = await asyncpg.connect(dsn)
    await open_books(owner, BOOKS)
    await owner.close()
    async with AsyncExitStack() as stack:
        settings = {"role": "tallypoint_writer"}
        pool = await stack.enter_async_context(
            asyncpg.create_pool(dsn, min_size=1, max_size=8, server_settings=settings)
        )
        await StoreRegistry(pool, HASHES).put_store(STORE, "Kyiv 1", ZONE)
        rules, now = RulesBook(), [start]
        edge = Edge(_Keys(), max_concurrent_calls=1000, default_timeout_seconds=_TIMEOUT_SECONDS)
        checkout = await _checkout(stack, pool, dsn, rules, now)
        services = [_handlers(checkout_pb2, "CheckoutService", checkout, frozenset({Role.TERMINAL}), edge)]
        services += _back_office(pool, rules, now, edge)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((MethodHandlers.join(*services),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        service = Service(
            dsn,
            pool,
            rules,
            now,
            checkout_pb2_grpc.CheckoutServiceStub(channel),
            member_pb2_grpc.MemberServiceStub(channel),
            correction_pb2_grpc.CorrectionServiceStub(channel),
            rights_pb2_grpc.RightsServiceStub(channel),
            finance_pb2_grpc.FinanceServiceStub(channel),
        )
        await service.publish(programme)
        yield service


async def _checkout(
    stack: AsyncExitStack, pool: asyncpg.Pool[asyncpg.Record], dsn: str, rules: RulesBook, now: list[datetime]
) -> CheckoutServicer:
    def clock() -> datetime:
        return now[0]

    def connect() -> Any:
        return _writer(dsn)

    async def load(conn: Any, members: Sequence[tuple[int, uuid.UUID]]) -> dict[Any, list[BalanceAt]]:
        found = await read_balances(conn, members, now[0])
        return {(book, one): found[one] for book, one in members if one in found}

    balances: BalanceReader = Gatherer("balances", connect, load)
    reader, budgets, coupons = LedgerReader(connect, clock), Budgets(connect, clock), CouponReader(connect, BOOKS)
    committer = Committer(connect, BOOKS, clock, owned=frozenset(range(BOOKS)))
    directory = Directory(connect, IDENTIFIERS, HASHES, BOOKS, committer.known_number)
    for each in (balances, reader, budgets, coupons, directory, committer):
        stack.push_async_callback(each.close)
    stores = Stores()
    async with connection(pool) as conn:
        await stores.load(conn)
    return CheckoutServicer(
        directory=directory,
        books=Books(committer, balances, reader, budgets),
        coupons=coupons,
        rules=rules,
        catalogue=Catalogue(),
        stores=stores,
        clock=clock,
    )


def _back_office(
    pool: asyncpg.Pool[asyncpg.Record], rules: RulesBook, now: list[datetime], edge: Edge
) -> list[MethodHandlers]:
    def clock() -> datetime:
        return now[0]

    registry, finder = Registry(pool, IDENTIFIERS, HASHES, BOOKS), MemberFinder(IDENTIFIERS, HASHES, BOOKS)
    adjustments = AdjustmentDesk(pool, rules, HASHES, BOOKS, reasons=("goodwill",), limit_points=10**6)
    corrections = correction_servicer.CorrectionServicer(
        adjustments, TransferDesk(pool, rules, BOOKS, ("family",)), Merger(registry, HASHES, BOOKS), pool, clock
    )
    rights = rights_servicer.RightsServicer(
        CouponDesk(pool, finder, HASHES), AudienceDesk(pool, finder), RightsViewer(pool, finder, BOOKS), rules, clock
    )
    profiles = ProfileDesk(registry, HASHES, BOOKS)
    members = member_servicer.MemberServicer(registry, profiles, pool, BOOKS, clock)
    finance = finance_servicer.FinanceServicer(pool, rules, clock)
    return [
        _handlers(member_pb2, "MemberService", members, member_servicer.ALLOWED, edge),
        _handlers(correction_pb2, "CorrectionService", corrections, correction_servicer.ALLOWED, edge),
        _handlers(rights_pb2, "RightsService", rights, rights_servicer.ALLOWED, edge),
        _handlers(finance_pb2, "FinanceService", finance, finance_servicer.ALLOWED, edge),
    ]


def _handlers(module: Any, name: str, servicer: object, allowed: Any, edge: Edge) -> MethodHandlers:
    service: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]
    return service_handler(service, servicer, allowed, edge, batch_methods={"CommitBatch", "ImportMembers"})
