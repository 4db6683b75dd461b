"""Makes a server ready for the receipts: the programme, members, catalogue, stores and terminals' keys.

Everything goes through the back-office API and may be done again: what is there already stays as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    common_pb2,
    ledger_pb2,
    ledger_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from benchmarks.replay.client import CallFailed, Counters, Patience, bearing, call
from benchmarks.replay.dataset import CURRENCY, TIME_ZONE, Basket, Dataset, IntColumn, Product
from benchmarks.replay.journal import RegisterJournal
from benchmarks.replay.people import REGISTERED_AT, Person
from benchmarks.replay.progress import progress

MEMBERS_PER_CALL: Final = 500
PRODUCTS_PER_CALL: Final = 5_000
CALLS_AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 60.0
_SECONDS_BETWEEN_PROBES: Final = 0.1
_CATALOGUE_FACT: Final = "catalogue_sha256"

Item = TypeVar("Item")


class SeedFailed(Exception):
    """The server did not take what the replay needs; the message says what and why."""


@dataclass(frozen=True)
class BackOffice:
    """The back-office port as an administrator sees it."""

    channel: grpc.aio.Channel
    key: str
    counters: Counters

    async def publish(self, text: str, file_name: str) -> int:
        """Publish a programme file, unless it is the newest version already; return the version."""
        stub = programme_pb2_grpc.ProgrammeServiceStub(self.channel)
        request = programme_pb2.PublishProgrammeRequest(text=text, file_name=file_name)
        publish = bearing(stub.PublishProgramme, self.key, TIMEOUT_SECONDS)
        response = await call(self.counters, publish, "PublishProgramme", request)
        return response.version.version

    async def import_members(self, people: Sequence[Person], console: Console) -> None:
        """Register members; those who are there already stay.

        Raises:
            SeedFailed: the server refused a member.
        """
        stub = member_pb2_grpc.MemberServiceStub(self.channel)
        send = bearing(stub.ImportMembers, self.key, TIMEOUT_SECONDS)
        with progress(console, "Members", len(people), "members") as advance:
            for batch in batches(people, MEMBERS_PER_CALL):
                request = member_pb2.ImportMembersRequest(members=[_new_member(who) for who in batch])
                response = await call(self.counters, send, "ImportMembers", request)
                for who, result in zip(batch, response.results, strict=True):
                    if result.HasField("refusal"):
                        raise SeedFailed(f"the server refused member {who.name}: {result.refusal.message}")
                    if result.member_id != str(who.member_id):
                        raise SeedFailed(
                            f"{who.name} is known to the server as another member, {result.member_id}"
                        )
                advance(len(batch))

    async def ledger_name(self) -> str:
        """A name that only this ledger has: the hash of the first entry of its first book that has any."""
        stub = ledger_pb2_grpc.LedgerServiceStub(self.channel)
        list_books = bearing(stub.ListBooks, self.key, TIMEOUT_SECONDS)
        heads = await call(self.counters, list_books, "ListBooks", ledger_pb2.ListBooksRequest())
        book = next(head.book for head in heads.books if head.number > 0)
        request = ledger_pb2.ListEntriesRequest(book=book, page_size=1)
        list_entries = bearing(stub.ListEntries, self.key, TIMEOUT_SECONDS)
        page = await call(self.counters, list_entries, "ListEntries", request)
        return page.entries[0].hash.hex()[:16]

    async def put_catalogue(
        self, products: Sequence[Product], journal: RegisterJournal, console: Console
    ) -> None:
        """Put the catalogue, unless this very one was put before."""
        digest = sha256(repr(products).encode()).hexdigest()
        if journal.fact(_CATALOGUE_FACT) == digest:
            return
        stub = store_pb2_grpc.StoreServiceStub(self.channel)
        put = bearing(stub.PutProducts, self.key, TIMEOUT_SECONDS)
        with progress(console, "Catalogue", len(products), "articles") as advance:
            for batch in batches(products, PRODUCTS_PER_CALL):
                articles = [store_pb2.Product(**product._asdict()) for product in batch]
                await call(self.counters, put, "PutProducts", store_pb2.PutProductsRequest(products=articles))
                advance(len(batch))
        journal.put_fact(_CATALOGUE_FACT, digest)

    async def open_stores(
        self, terminals: Sequence[tuple[str, str]], journal: RegisterJournal, console: Console
    ) -> None:
        """Make stores and terminals and keep their keys; those with a key in the journal are left out."""
        known = journal.keys()
        missing = [terminal for terminal in terminals if terminal not in known]
        if not missing:
            return
        stub = store_pb2_grpc.StoreServiceStub(self.channel)
        put_store = bearing(stub.PutStore, self.key, TIMEOUT_SECONDS)
        issue_key = bearing(stub.IssueTerminalKey, self.key, TIMEOUT_SECONDS)
        for batch in batches(sorted({store_id for store_id, _ in missing}), CALLS_AT_ONCE):
            stores = (
                store_pb2.Store(store_id=store, name=f"Store {store}", time_zone=TIME_ZONE) for store in batch
            )
            requests = (store_pb2.PutStoreRequest(store=store) for store in stores)
            await asyncio.gather(*(call(self.counters, put_store, "PutStore", each) for each in requests))
        with progress(console, "Terminals", len(missing), "terminals") as advance:
            for some in batches(missing, CALLS_AT_ONCE):
                wanted = (
                    store_pb2.IssueTerminalKeyRequest(store_id=store, terminal_id=name)
                    for store, name in some
                )
                issued = await asyncio.gather(
                    *(call(self.counters, issue_key, "IssueTerminalKey", each) for each in wanted)
                )
                journal.put_keys(
                    (*terminal, answer.key) for terminal, answer in zip(some, issued, strict=True)
                )
                advance(len(some))


async def settle(
    stubs: Iterable[checkout_pb2_grpc.CheckoutServiceAsyncStub],
    journal: RegisterJournal,
    dataset: Dataset,
    selection: IntColumn,
    programme_version: int,
) -> None:
    """Wait until the worker behind every channel works by the new keys, goods and rules.

    Raises:
        SeedFailed: a worker still does not know them after a minute.
    """
    newest = dataset.basket(int(selection[-1]))
    key = journal.keys()[newest.store_id, newest.terminal_id]
    for stub in stubs:
        await _settle_one(stub, key, newest, dataset.products[-1], programme_version)


async def _settle_one(
    stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, key: str, basket: Basket, product: Product, version: int
) -> None:
    receipt = common_pb2.Receipt(
        event_at=Timestamp(seconds=basket.event_seconds),
        currency_code=CURRENCY,
        lines=[
            common_pb2.ReceiptLine(line_number=1, sku=product.sku, quantity_milli=1000, list_amount_minor=100)
        ],
    )
    give_up_at = time.monotonic() + SETTLE_SECONDS
    quote = bearing(stub.Quote, key)
    seen = "nothing"
    while time.monotonic() < give_up_at:
        try:
            answer = await call(
                Counters(),
                quote,
                "Quote",
                checkout_pb2.QuoteRequest(receipt=receipt),
                Patience(SETTLE_SECONDS),
            )
        except CallFailed as error:
            if error.failure.code not in {
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.FAILED_PRECONDITION,
            }:
                raise SeedFailed(f"the server does not quote: {error}") from error
            seen = str(error)
        else:
            unknown = any(notice.code == "UNKNOWN_SKU" for notice in answer.notices)
            if answer.programme_version == version and not unknown:
                return
            seen = (
                f"programme version {answer.programme_version}, article {'unknown' if unknown else 'known'}"
            )
        await asyncio.sleep(_SECONDS_BETWEEN_PROBES)
    raise SeedFailed(
        f"after {SETTLE_SECONDS:.0f} s a worker does not know programme version {version} and the catalogue; "
        f"the last it said was: {seen}"
    )


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _new_member(who: Person) -> member_pb2.NewMember:
    return member_pb2.NewMember(
        member_id=str(who.member_id),
        status=common_pb2.MEMBER_STATUS_ACTIVE,
        profile=member_pb2.Profile(name=who.name, birthday=who.birthday.isoformat(), language="en"),
        phone=who.phone,
        card_numbers=[who.card_number],
        registered_at=Timestamp(seconds=int(REGISTERED_AT.timestamp())),
    )
