"""A register for tests: it speaks to a real server as one would at the till, and knows its back office."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    ledger_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from server.base.storage import LEDGER_DATABASE
from tests.support.crm import eventually
from tests.support.faults import dsn_of
from tests.support.server_process import RunningServer

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)

PROGRAMME = """
programme: corner-shop
name: Corner shop
effective_from: 2026-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1.00}
earning: {base_percent: 1}
spending: {max_share_percent: 100, step_points: 0.01}
exclusions:
  no_earning: {tags: [tobacco]}
  no_discount: {tags: [tobacco]}
  no_points_payment: {tags: [tobacco]}
promotions:
  - id: cheese-10
    name: 10 % off cheese
    scope: {categories: [dairy/cheese]}
    line_discount: {percent: 10}
  - id: basket-500
    name: 50 off a basket of 500
    when: {receipt_total: {at_least: 500.00}}
    basket_discount: {amount: 50.00}
  - id: birthday
    name: Five-fold points around the birthday
    when: {birthday: {days_before: 3, days_after: 3}}
    points: {multiplier: 5}
"""

PRODUCTS = {
    "milk": ("dairy/milk", ()),
    "brie": ("dairy/cheese", ()),
    "bread": ("bakery", ()),
    "cigarettes": ("tobacco", ("tobacco",)),
}

_receipt_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """A refused call: its status code and the details of its status."""

    code: grpc.StatusCode
    reason: str
    message: str
    cashier_text: str = ""
    fields: tuple[str, ...] = ()
    retry_after_seconds: float | None = None


def answer_of(error: grpc.aio.AioRpcError) -> Answer:
    """Read the details that the service attaches to a refusal."""
    reason, text, fields, retry = "", "", (), None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        local, again = error_details_pb2.LocalizedMessage(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            fields = tuple(violation.field for violation in bad.field_violations)
        elif detail.Unpack(local):
            text = local.message
        elif detail.Unpack(again):
            retry = again.retry_delay.ToTimedelta().total_seconds()
    return Answer(error.code(), reason, error.details() or "", text, fields, retry)


def card(number: str) -> common_pb2.Identifier:
    """Name a member by card."""
    return common_pb2.Identifier(card_number=number)


def new_card() -> str:
    """Return a random card number of the default scheme: 13 digits that begin with 2, the last one the check digit."""
    digits = f"2{uuid.uuid4().int % 10**11:011d}"
    total = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


Basket = Sequence[tuple[str, int]]
"""Articles and their list prices in minor units."""


@dataclass
class Till:
    """A register of one store."""

    server: RunningServer
    store_id: str
    terminal_id: str
    key: str
    pos: checkout_pb2_grpc.CheckoutServiceAsyncStub
    members: member_pb2_grpc.MemberServiceAsyncStub
    ledger: ledger_pb2_grpc.LedgerServiceAsyncStub
    cards: list[str] = field(default_factory=list)

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        """The metadata with the terminal's key."""
        return (("authorization", f"Bearer {self.key}"),)

    def office(self, role: str = "admin") -> tuple[tuple[str, str], ...]:
        """The metadata with a back-office key."""
        return (("authorization", f"Bearer {self.server.keys[role]}"),)

    async def enrol(self, **person: object) -> member_pb2.Member:
        """Make a member with a new card."""
        numbers = person.pop("card_numbers", [new_card()])
        birthday = str(person.pop("birthday", ""))
        request = member_pb2.RegisterMemberRequest(
            message_id=str(uuid.uuid4()),
            member=member_pb2.NewMember(
                profile=member_pb2.Profile(name="Olena Koval", birthday=birthday),
                card_numbers=numbers,  # type: ignore[arg-type]  # a list of texts
                **person,  # type: ignore[arg-type]  # the message's own fields
            ),
        )
        return (await self.members.RegisterMember(request, metadata=self.office("crm"))).member

    async def block(self, member: member_pb2.Member) -> None:
        """Block a member."""
        change = member_pb2.SetMemberStatusRequest(
            message_id=str(uuid.uuid4()),
            member_id=member.member_id,
            status=common_pb2.MEMBER_STATUS_BLOCKED,
            reason="fraud",
        )
        await self.members.SetMemberStatus(change, metadata=self.office("crm"))

    def receipt(self, basket: Basket, event_at: datetime = NOON) -> common_pb2.Receipt:
        """Return a receipt of single pieces."""
        receipt = common_pb2.Receipt(currency_code="UAH")
        receipt.event_at.FromDatetime(event_at)
        for number, (sku, amount_minor) in enumerate(basket, start=1):
            receipt.lines.add(line_number=number, sku=sku, quantity_milli=1000, list_amount_minor=amount_minor)
        return receipt

    def commit_request(
        self, basket: Basket, shopper: common_pb2.Identifier | None = None, *, spend: int = 0, event_at: datetime = NOON
    ) -> checkout_pb2.CommitRequest:
        """Return a receipt that was paid in full, with keys of its own."""
        return checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=common_pb2.ReceiptKey(
                store_id=self.store_id,
                terminal_id=self.terminal_id,
                business_date="2026-03-14",
                receipt_number=next(_receipt_numbers),
            ),
            identifier=shopper,
            receipt=self.receipt(basket, event_at),
            spend_points_minor=spend,
        )

    def checkout(self, checkout_id: str = "", terminal_id: str = "") -> checkout_pb2.CheckoutKey:
        """Return the key of a new checkout at this till, or of one with a name."""
        return checkout_pb2.CheckoutKey(
            store_id=self.store_id,
            terminal_id=terminal_id or self.terminal_id,
            checkout_id=checkout_id or f"c{next(_receipt_numbers)}",
        )

    def hold_request(
        self,
        shopper: common_pb2.Identifier,
        spend: int,
        *,
        basket: Basket = (("bread", 100_000),),
        checkout: checkout_pb2.CheckoutKey | None = None,
        takeover: str = "",
    ) -> checkout_pb2.HoldRequest:
        """Return the wish to keep points for a checkout, by default for a receipt on which any points can be spent."""
        return checkout_pb2.HoldRequest(
            message_id=str(uuid.uuid4()),
            checkout_key=checkout or self.checkout(),
            identifier=shopper,
            receipt=self.receipt(basket),
            spend_points_minor=spend,
            takeover_reason=takeover,
        )

    def cancel_request(self, checkout: checkout_pb2.CheckoutKey, reason: str = "") -> checkout_pb2.CancelRequest:
        """Return the wish to let go of what a checkout holds."""
        return checkout_pb2.CancelRequest(message_id=str(uuid.uuid4()), checkout_key=checkout, reason=reason)

    def return_request(
        self, purchase: common_pb2.ReceiptKey, *lines: tuple[int, int], event_at: datetime = NOON
    ) -> checkout_pb2.ReturnRequest:
        """Return the return of (line number, thousandths), or of all that is left, with a receipt key of its own."""
        request = checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=common_pb2.ReceiptKey(
                store_id=self.store_id,
                terminal_id=self.terminal_id,
                business_date="2026-03-15",
                receipt_number=next(_receipt_numbers),
            ),
            purchase_key=purchase,
            lines=[checkout_pb2.ReturnedLine(line_number=n, quantity_milli=quantity) for n, quantity in lines],
        )
        request.event_at.FromDatetime(event_at)
        return request

    async def hold(self, request: checkout_pb2.HoldRequest) -> checkout_pb2.HoldResponse:
        """Hold; a refusal raises."""
        return await self.pos.Hold(request, metadata=self.auth, timeout=10)

    async def cancel(self, request: checkout_pb2.CancelRequest) -> checkout_pb2.CancelResponse:
        """Cancel; a refusal raises."""
        return await self.pos.Cancel(request, metadata=self.auth, timeout=10)

    async def give_back(self, request: checkout_pb2.ReturnRequest) -> checkout_pb2.ReturnResponse:
        """Return goods; a refusal raises."""
        return await self.pos.Return(request, metadata=self.auth, timeout=10)

    async def balance(self, shopper: common_pb2.Identifier) -> common_pb2.Balance:
        """Return what the shopper has of the programme's points, as the till shows it."""
        answer = await self.pos.Identify(checkout_pb2.IdentifyRequest(identifier=shopper), metadata=self.auth)
        return answer.balances[0] if answer.balances else common_pb2.Balance()

    async def commit(self, request: checkout_pb2.CommitRequest) -> checkout_pb2.CommitResponse:
        """Commit; a refusal raises."""
        return await self.pos.Commit(request, metadata=self.auth, timeout=10)

    async def refused(self, request: object, call: str = "Commit", timeout_seconds: float = 10) -> Answer:
        """Make a call that must be refused, and return how."""
        try:
            await getattr(self.pos, call)(request, metadata=self.auth, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            return answer_of(error)
        raise AssertionError(f"{call} was not refused")


@asynccontextmanager
async def open_till(server: RunningServer, store_id: str, key: str) -> AsyncIterator[Till]:
    """Connect the till of a store that `set_up_store` made."""
    async with (
        grpc.aio.insecure_channel(server.pos_address) as pos,
        grpc.aio.insecure_channel(server.backoffice_address) as office,
    ):
        yield Till(
            server,
            store_id,
            "t1",
            key,
            checkout_pb2_grpc.CheckoutServiceStub(pos),
            member_pb2_grpc.MemberServiceStub(office),
            ledger_pb2_grpc.LedgerServiceStub(office),
        )


async def set_up_store(server: RunningServer, store_id: str) -> str:
    """Make a store with a terminal, the programme and the catalogue; return the terminal's key when it works."""
    async with grpc.aio.insecure_channel(server.backoffice_address) as office:
        stores = store_pb2_grpc.StoreServiceStub(office)
        admin = (("authorization", f"Bearer {server.keys['admin']}"),)
        store = store_pb2.Store(store_id=store_id, name=store_id, time_zone="Europe/Kyiv")
        await stores.PutStore(store_pb2.PutStoreRequest(store=store), metadata=admin)
        issued = await stores.IssueTerminalKey(
            store_pb2.IssueTerminalKeyRequest(store_id=store_id, terminal_id="t1"), metadata=admin
        )
        products = [store_pb2.Product(sku=sku, category=c, tags=tags) for sku, (c, tags) in PRODUCTS.items()]
        await stores.PutProducts(store_pb2.PutProductsRequest(products=products), metadata=admin)
        programmes = programme_pb2_grpc.ProgrammeServiceStub(office)
        await programmes.PublishProgramme(programme_pb2.PublishProgrammeRequest(text=PROGRAMME), metadata=admin)
    await until_all_have_read_it(server)
    return issued.key


# What is to be read by every process that keeps it in memory.
READ_VERSIONS = "SELECT topic, version FROM server.config_version"


async def until_all_have_read_it(server: RunningServer) -> None:
    """Wait until every worker and the back office have what stands in the database now, as their log says."""
    conn = await asyncpg.connect(dsn_of(server, LEDGER_DATABASE))
    wanted = {row["topic"]: row["version"] for row in await conn.fetch(READ_VERSIONS)}
    await conn.close()

    async def all_have_read_it() -> bool:
        started: set[str] = set()
        read: dict[tuple[str, str], int] = {}
        for event in list(server.log):
            if event.get("event") == "child_started" and event["child"].startswith(("worker-", "backoffice")):
                started.add(event["child"])
                read = {key: version for key, version in read.items() if key[0] != event["child"]}
            elif event.get("event") == "reloaded":
                read[event["process"], event["topic"]] = event["version"]
        processes = {process for process, _ in read}
        return started == processes and all(version >= wanted[topic] for (_, topic), version in read.items())

    await eventually(all_have_read_it, "every process has read the store, its key, the products and the programme")
