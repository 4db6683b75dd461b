"""A shop counter without a server or a database: sales and returns as the checkout makes them, booked in memory."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.counters import changes_of, serialise_counters
from ledger.entry.keys import return_key
from ledger.entry.model import Booked, CounterChange, CouponClaim
from ledger.entry.model import Counter as LedgerCounter
from ledger.reading.lookups import BookedReceipt
from server.checkout.context import CommitContext, Shopper, cached_usage, member_facts
from server.checkout.goods_return import ReturnContext, return_command, return_response
from server.checkout.levels import relevel_of
from server.checkout.presented import Presented
from server.checkout.purchase import commit_command
from server.members.found import Found, MemberRecord
from server.promotions import CouponFact, Programme, compile_rules, load_programme, quote
from server.rules.evidence import receipt_facts
from server.rules.receipt_lines import lines_of
from tests.support.commands import (
    BONUS,
    GIFT,
    NOON,
    PARTNERS,
    UNITS,
    lease_budget,
    member,
    transfer_in,
    transfer_out,
)
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
ZONE = ZoneInfo("Europe/Kyiv")
GENERIC = ("SPRING", "AUTUMN")
"""Codes that everybody may use; others are coupons with one use, of the series "single" unless a receipt gave them."""
HEAD = """
programme: counter
name: Counter
effective_from: 2026-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1.00}
"""


class Sold(NamedTuple):
    """A line to be sold: an article, its quantity in thousandths and its list price."""

    sku: str
    quantity_milli: int
    amount_minor: int
    weighed: bool = False


class _Books:
    def unit_named(self, code: str) -> object:
        return UNITS[code]

    def partner_account(self, code: str) -> int:
        return PARTNERS[code]


class Counter:
    """Anna's shop: one programme, one book."""

    def __init__(self, programme: str) -> None:
        loaded = load_programme(HEAD + programme)
        assert isinstance(loaded, Programme), "\n".join(map(str, loaded))
        self.rules = compile_rules(loaded, 1)
        self.book = MemoryBook()
        self._numbers = iter(range(1, 10_000))
        self._leased: dict[str, int] = {}

    @property
    def counters(self) -> dict[str, LedgerCounter]:
        """What is counted for Anna."""
        return self.book.caches.usage.counters.get(ANNA, {})

    def used(self, key: str) -> int:
        """How much of a shared budget is used."""
        return self.book.caches.usage.slices[key].used

    def wait(self, days: int) -> None:
        """Let days pass."""
        self.book.now += timedelta(days=days)

    def sell(
        self,
        *goods: Sold,
        coupons: Sequence[str] = (),
        deposits: Sequence[common_pb2.UnitPoints] = (),
        spend: Sequence[common_pb2.UnitPoints] = (),
        tenders: int = 0,
    ) -> Booked:
        """Sell goods to Anna as the rules say."""
        request = checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._key(),
            receipt=common_pb2.Receipt(currency_code="UAH"),
            identifier=common_pb2.Identifier(member_id=str(ANNA)),
            coupon_codes=coupons,
            deposits=deposits,
            spend_units=spend,
        )
        receipt = request.receipt
        receipt.event_at.FromDatetime(self.book.now)
        if tenders:
            receipt.tenders.add(kind=common_pb2.TENDER_KIND_CASH, amount_minor=tenders)
        for number, line in enumerate(goods, start=1):
            receipt.lines.add(
                line_number=number,
                sku=line.sku,
                category=line.sku.partition("-")[0],
                quantity_milli=line.quantity_milli,
                list_amount_minor=line.amount_minor,
                weighed=line.weighed,
            )
        context = self._context(request)
        facts = context.facts._replace(coupons=context.presented.usable)
        quoted = quote(self.rules, facts, context.member, usage=cached_usage(self._found()))
        for charged, effects in zip(receipt.lines, quoted.lines, strict=True):
            charged.discount_minor = sum(discount.amount_minor for discount in effects.discounts)
        command, shared = commit_command(request, self._context(request), 1)
        for use in shared:
            if use.key not in self._leased:
                self._leased[use.key] = use.at_most
                self.book.book(lease_budget(use.key, use.at_most, leased=use.at_most, budget=use.at_most))
        return self.book.book(command)

    def bring_back(self, bought: Booked, *lines: tuple[int, int], living_id: str = "") -> checkout_pb2.ReturnResponse:
        """Bring goods back."""
        event = journal_pb2.Event.FromString(bought.event)
        request = checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._key(),
            purchase_key=event.purchase.receipt_key,
            lines=[checkout_pb2.ReturnedLine(line_number=n, quantity_milli=quantity) for n, quantity in lines],
        )
        request.event_at.FromDatetime(self.book.now)
        purchase = BookedReceipt(
            0, bought.number, 1, event, bought.event, self.book.terms, units=UNITS, partners=PARTNERS
        )
        context = ReturnContext(return_key(request.receipt_key), purchase, self.rules, BONUS, ZONE, living_id)
        return return_response(self.book.book(return_command(request, context)))

    def merge(self, into: uuid.UUID) -> None:
        """Move what is counted for Anna on to another member, as merging does, and settling after it."""
        name = f"merge {next(self._numbers)}"
        out = transfer_out(name, ANNA, into, None, counters=True)
        left = journal_pb2.Event.FromString(self.book.book(out).event)
        counts = [CounterChange(c.key, -c.times, -c.money_minor, -c.points_minor, c.until) for c in changes_of(left)]
        day = self.book.now.astimezone(ZONE).date()
        arriving = transfer_in(name, ANNA, into, [], counts=counts)
        self.book.book(replace(arriving, relevel=relevel_of(self.rules, day)))

    def _key(self) -> common_pb2.ReceiptKey:
        today = self.book.now.astimezone(ZONE).date().isoformat()
        return common_pb2.ReceiptKey(
            store_id="1", terminal_id="1", business_date=today, receipt_number=next(self._numbers)
        )

    def _found(self) -> Found:
        record = MemberRecord(
            ANNA,
            0,
            common_pb2.MEMBER_STATUS_ACTIVE,
            "A***",
            None,
            "en",
            datetime(2026, 1, 1, tzinfo=UTC),
            (),
            frozenset(),
            (),
            serialise_counters(self.counters),
        )
        return Found(record, common_pb2.IDENTIFIER_KIND_MEMBER_ID)

    def _context(self, request: checkout_pb2.CommitRequest) -> CommitContext:
        lines, _ = lines_of(request.receipt, {})
        facts = receipt_facts(request.receipt, lines, "1", ZONE)
        found, codes = self._found(), tuple(request.coupon_codes)
        issued = self.book.caches.usage.issued
        series = {code: issued[code].series if code in issued else "single" for code in codes if code not in GENERIC}
        presented = Presented(
            codes,
            tuple(CouponFact(code, series.get(code, "")) for code in codes),
            tuple(CouponClaim(code, 1) for code in series),
        )
        return CommitContext(
            rules=self.rules,
            unit=BONUS,
            zone=ZONE,
            facts=facts,
            member=member_facts(found, facts.local_at),
            notices=[],
            shopper=Shopper(found, found),
            presented=presented,
            books=_Books(),  # type: ignore[arg-type]  # the numbers of a ledger without a database
        )


def gift(points_minor: int, line_number: int = 0) -> common_pb2.UnitPoints:
    """Points of a gift card."""
    return common_pb2.UnitPoints(unit=GIFT.code, points_minor=points_minor, line_number=line_number)


__all__ = ["ANNA", "NOON", "Counter", "Sold", "gift"]
