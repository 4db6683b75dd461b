"""Makes a server ready for the receipts: the programme, members, catalogue, stores and terminals' keys.

Everything goes through the back-office API and may be done again: what is there already stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Final, TypeVar

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from tallypoint.v1 import (
    common_pb2,
    ledger_pb2,
    ledger_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from benchmarks.replay.campaigns import Campaigns, CouponOffer
from benchmarks.replay.client import Counters, bearing, call
from benchmarks.replay.dataset import TIME_ZONE, Product
from benchmarks.replay.journal import RegisterJournal
from benchmarks.replay.people import REGISTERED_AT, Person
from server.commands.output.progress import progress

MEMBERS_PER_CALL: Final = 500
PRODUCTS_PER_CALL: Final = 5_000
COUPONS_PER_CALL: Final = 5_000
CALLS_AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 60.0
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
        with progress("Members", len(people), "members", console) as advance:
            for batch in batches(people, MEMBERS_PER_CALL):
                request = member_pb2.ImportMembersRequest(members=[_new_member(who) for who in batch])
                response = await call(self.counters, send, "ImportMembers", request)
                for who, result in zip(batch, response.results, strict=True):
                    if result.HasField("refusal"):
                        raise SeedFailed(f"the server refused member {who.name}: {result.refusal.message}")
                    if result.member_id != str(who.member_id):
                        raise SeedFailed(f"{who.name} is known to the server as another member, {result.member_id}")
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

    async def put_catalogue(self, products: Sequence[Product], journal: RegisterJournal, console: Console) -> None:
        """Put the catalogue, unless this very one was put before."""
        digest = sha256(repr(products).encode()).hexdigest()
        if journal.fact(_CATALOGUE_FACT) == digest:
            return
        stub = store_pb2_grpc.StoreServiceStub(self.channel)
        put = bearing(stub.PutProducts, self.key, TIMEOUT_SECONDS)
        with progress("Catalogue", len(products), "articles", console) as advance:
            for batch in batches(products, PRODUCTS_PER_CALL):
                articles = [store_pb2.Product(**product._asdict()) for product in batch]
                await call(self.counters, put, "PutProducts", store_pb2.PutProductsRequest(products=articles))
                advance(len(batch))
        journal.put_fact(_CATALOGUE_FACT, digest)

    async def load_coupons(self, campaigns: Campaigns, people: Mapping[int, Person], console: Console) -> None:
        """Give every household of a campaign its coupons; those that are there already stay.

        Raises:
            SeedFailed: the server refused a coupon.
        """
        stub = rights_pb2_grpc.RightsServiceStub(self.channel)
        load = bearing(stub.LoadCoupons, self.key, TIMEOUT_SECONDS)
        total = sum(len(coupons) for _, coupons in campaigns.personal_coupons())

        async def send(offer: CouponOffer, coupons: Sequence[tuple[str, int]]) -> int:
            rows = [_coupon_row(offer, code, people[household]) for code, household in coupons]
            request = rights_pb2.LoadCouponsRequest(series=offer.series, coupons=rows)
            response = await call(self.counters, load, "LoadCoupons", request)
            if response.refused:
                refused = response.refused[0].refusal.message
                raise SeedFailed(f"the server refused {len(response.refused)} coupons of {offer.series}: {refused}")
            return len(rows)

        parts = (
            (offer, part)
            for offer, coupons in campaigns.personal_coupons()
            for part in batches(coupons, COUPONS_PER_CALL)
        )
        with progress("Coupons", total, "coupons", console) as advance:
            for group in batches(parts, CALLS_AT_ONCE):
                advance(sum(await asyncio.gather(*(send(offer, part) for offer, part in group))))

    async def open_stores(
        self, terminals: Sequence[tuple[str, str]], journal: RegisterJournal, console: Console
    ) -> list[str]:
        """Make stores and terminals and keep their keys; those with a key in the journal are left out.

        Returns:
            The newest keys: a worker that knows all of these knows all.
        """
        known = journal.keys()
        missing = [terminal for terminal in terminals if terminal not in known]
        newest = list(known.values())[-1:]
        if not missing:
            return newest
        await self._put_stores(sorted({store_id for store_id, _ in missing}))
        with progress("Terminals", len(missing), "terminals", console) as advance:
            for batch in batches(missing, CALLS_AT_ONCE):
                newest = await self._issue_keys(batch)
                journal.put_keys((*terminal, key) for terminal, key in zip(batch, newest, strict=True))
                advance(len(batch))
        return newest

    async def _put_stores(self, store_ids: Sequence[str]) -> None:
        stub = store_pb2_grpc.StoreServiceStub(self.channel)
        put_store = bearing(stub.PutStore, self.key, TIMEOUT_SECONDS)
        for batch in batches(store_ids, CALLS_AT_ONCE):
            stores = (store_pb2.Store(store_id=name, name=f"Store {name}", time_zone=TIME_ZONE) for name in batch)
            requests = (store_pb2.PutStoreRequest(store=store) for store in stores)
            await asyncio.gather(*(call(self.counters, put_store, "PutStore", each) for each in requests))

    async def _issue_keys(self, terminals: Sequence[tuple[str, str]]) -> list[str]:
        stub = store_pb2_grpc.StoreServiceStub(self.channel)
        issue = bearing(stub.IssueTerminalKey, self.key, TIMEOUT_SECONDS)
        requests = (store_pb2.IssueTerminalKeyRequest(store_id=store, terminal_id=name) for store, name in terminals)
        answers = await asyncio.gather(*(call(self.counters, issue, "IssueTerminalKey", each) for each in requests))
        return [answer.key for answer in answers]


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _coupon_row(offer: CouponOffer, code: str, who: Person) -> rights_pb2.CouponRow:
    return rights_pb2.CouponRow(
        code=code,
        member=common_pb2.Identifier(member_id=str(who.member_id)),
        valid_from=offer.first.isoformat(),
        valid_until=offer.last.isoformat(),
    )


def _new_member(who: Person) -> member_pb2.NewMember:
    return member_pb2.NewMember(
        member_id=str(who.member_id),
        status=common_pb2.MEMBER_STATUS_ACTIVE,
        profile=member_pb2.Profile(name=who.name, birthday=who.birthday.isoformat(), language="en"),
        phone=who.phone,
        card_numbers=[who.card_number],
        registered_at=Timestamp(seconds=int(REGISTERED_AT.timestamp())),
    )
