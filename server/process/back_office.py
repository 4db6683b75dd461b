"""The back-office process: members, stores, programmes and the ledger on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import (
    correction_pb2,
    finance_pb2,
    ledger_pb2,
    member_pb2,
    programme_pb2,
    reconciliation_pb2,
    rights_pb2,
    store_pb2,
)

from server.backoffice import (
    correction_servicer,
    finance_servicer,
    ledger_servicer,
    member_servicer,
    programme_servicer,
    reconciliation_servicer,
    rights_servicer,
    store_servicer,
)
from server.base.clock import utc_now
from server.base.reload import Reloader
from server.base.settings import Settings
from server.base.storage import read_books, writer_connect, writer_pool
from server.checkout.levels import relevel_of
from server.corrections.adjustments import AdjustmentDesk
from server.corrections.leftovers import LeftoversMover
from server.corrections.merge import Merger
from server.corrections.transfers import TransferDesk
from server.edge.handlers import service_handler
from server.members.identifiers import IdentifierReader, KeyedHash
from server.members.profile import ProfileDesk
from server.members.registry import Registry
from server.process.child import ChildTask
from server.process.hosting import Port, answer_until, edge_of, tracing_of
from server.rights.audience import AudienceDesk
from server.rights.coupon_desk import CouponDesk
from server.rights.people import MemberFinder
from server.rights.showing import RightsViewer
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from server.shop.catalogue import ProductRegistry
from server.shop.stores import KeyRing, StoreRegistry

if TYPE_CHECKING:
    from server.base.database import Pool

REPORT_TIMEOUT_SECONDS: Final = 1800.0
"""How long a statement of a report may take: years of postings are summed by some."""


async def backoffice_main(task: ChildTask, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer the calls of the back office."""
    settings = task.settings
    async with AsyncExitStack() as stack:
        connect = writer_connect(task.dsns.ledger, "tallypoint back office")
        books = await read_books(connect)
        pool = await stack.enter_async_context(writer_pool(task.dsns.ledger, "tallypoint back office"))
        hashes = KeyedHash(settings.secret_bytes)
        keys, rules = KeyRing(hashes), RulesBook()
        reloader = Reloader(connect, {"stores": (keys.load,), "programme": (rules.load,)})
        stack.push_async_callback(reloader.stop)
        await reloader.start()
        reader = IdentifierReader.of_settings(settings.card_schemes, settings.default_region)
        registry = Registry(pool, reader, hashes, books)
        members = member_servicer.MemberServicer(registry, ProfileDesk(registry, hashes, books), pool, books)
        stores = store_servicer.StoreServicer(StoreRegistry(pool, hashes), ProductRegistry(pool))
        programmes = programme_servicer.ProgrammeServicer(ProgrammeStore(pool), pool, rules)
        rights = _rights(pool, reader, hashes, books, rules)
        ledger = ledger_servicer.LedgerServicer(pool, books)
        reports = await stack.enter_async_context(
            writer_pool(task.dsns.ledger, "tallypoint finance", REPORT_TIMEOUT_SECONDS)
        )
        finance = finance_servicer.FinanceServicer(reports, rules)
        reconciliation = reconciliation_servicer.ReconciliationServicer(pool, ProgrammeStore(pool))
        corrections = _corrections(settings, pool, rules, registry, hashes, books)
        mover = LeftoversMover(pool, books, utc_now, lambda now: relevel_of(rules.at(now), now.date()))
        stack.push_async_callback(mover.stop)
        mover.start()
        tracing = tracing_of(settings, task.name)
        if tracing is not None:
            stack.callback(tracing.close)
        edge = edge_of(settings, keys, tracing=tracing)
        services = [
            (member_pb2.DESCRIPTOR.services_by_name["MemberService"], members, member_servicer.ALLOWED),
            (store_pb2.DESCRIPTOR.services_by_name["StoreService"], stores, store_servicer.ALLOWED),
            (rights_pb2.DESCRIPTOR.services_by_name["RightsService"], rights, rights_servicer.ALLOWED),
            (programme_pb2.DESCRIPTOR.services_by_name["ProgrammeService"], programmes, programme_servicer.ALLOWED),
            (correction_pb2.DESCRIPTOR.services_by_name["CorrectionService"], corrections, correction_servicer.ALLOWED),
            (ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"], ledger, ledger_servicer.ALLOWED),
            (finance_pb2.DESCRIPTOR.services_by_name["FinanceService"], finance, finance_servicer.ALLOWED),
            (
                reconciliation_pb2.DESCRIPTOR.services_by_name["ReconciliationService"],
                reconciliation,
                reconciliation_servicer.ALLOWED,
            ),
        ]
        handlers = [
            (service, service_handler(service, servicer, allowed, edge, batch_methods=member_servicer.BATCH_METHODS))
            for service, servicer, allowed in services
        ]
        await answer_until(stop, Port(task.backoffice_address, settings, edge, handlers), ready)


def _rights(
    pool: Pool, reader: IdentifierReader, hashes: KeyedHash, books: int, rules: RulesBook
) -> rights_servicer.RightsServicer:
    finder = MemberFinder(reader, hashes, books)
    return rights_servicer.RightsServicer(
        CouponDesk(pool, finder, hashes), AudienceDesk(pool, finder), RightsViewer(pool, finder, books), rules
    )


def _corrections(
    settings: Settings, pool: Pool, rules: RulesBook, registry: Registry, hashes: KeyedHash, books: int
) -> correction_servicer.CorrectionServicer:
    adjustments = AdjustmentDesk(
        pool, rules, hashes, books, reasons=settings.adjustment_reasons, limit_points=settings.adjustment_limit_points
    )
    transfers = TransferDesk(pool, rules, books, settings.transfer_reasons)
    return correction_servicer.CorrectionServicer(adjustments, transfers, Merger(registry, hashes, books), pool)
