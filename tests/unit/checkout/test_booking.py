"""A receipt becomes an entry whose bytes are those of a message built the plain way, and an answer made of these."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.counters import serialise_counters
from ledger.entry.keys import content_hash
from ledger.entry.model import Booked, CouponClaim, FoundUnderFence, Purchase, Spendable, Unit
from ledger.entry.model import Counter as LedgerCounter
from server.base.errors import Refused
from server.checkout.context import CommitContext, Shopper, cached_usage, member_facts
from server.checkout.notices import notices_of, unknown_sku_notice
from server.checkout.presented import NOTHING, Presented
from server.checkout.promises import capped_messages
from server.checkout.purchase import commit_command, commit_response
from server.checkout.quote import quote_response
from server.checkout.sale import Sale
from server.edge.moments import moment_of
from server.members.found import Found, MemberRecord, OfferRow
from server.promotions import CouponFact, Effects, PaidLine, Rules, Usage, earn_as_paid, quote
from server.rules.evidence import facts_of, first_difference, receipt_facts, reexplained, without_member
from server.rules.receipt_lines import add_line_effects, lines_of, variance_messages
from server.shop.catalogue import Product
from tests.unit.promotions.builders import ONE_PERCENT, STORE_ZONE, promotions, rules

NOON = datetime(2026, 3, 2, 10, tzinfo=UTC)
BONUS = Unit(1, "bonus", 2)
CATALOGUE = {
    "cake": Product("bakery/cakes", "oven", ("sweet",), "baker"),
    "milk": Product("dairy", "cow", (), ""),
    "wine": Product("drinks/wine", "", ("alcohol", "glass"), "cellar"),
}
COUNTERS = {"visit/ever": LedgerCounter(2, 5_000, 50, None), "use/thrice": LedgerCounter(1, 0, 0, None)}
OLENA = MemberRecord(
    uuid.uuid5(uuid.NAMESPACE_OID, "olena"),
    0,
    common_pb2.MEMBER_STATUS_ACTIVE,
    "O*** K.",
    date(1990, 3, 5),
    "uk",
    datetime(2026, 1, 1, 23, tzinfo=UTC),
    (uuid.uuid5(uuid.NAMESPACE_OID, "an older card's member"),),
    frozenset({"parents", "secret"}),
    (OfferRow("mine", None, None), OfferRow("last-year's", None, date(2025, 12, 31))),
    serialise_counters(COUNTERS),
)
FOUND = Found(OLENA, common_pb2.IDENTIFIER_KIND_CARD)
MEMBER, NOBODY = Shopper(FOUND, FOUND), Shopper()
BLOCKED = Refused(common_pb2.REFUSAL_REASON_CARD_BLOCKED, "the card was reported lost")


class Books:
    """Numbers of units and partners."""

    def unit_named(self, code: str) -> Unit:
        return Unit(2, code, 0)

    def partner_account(self, code: str, own: int) -> int:
        return 1000 + len(code)


def plain() -> checkout_pb2.CommitRequest:
    """A receipt of four lines, of which the catalogue knows three and the register describes one itself."""
    receipt = common_pb2.Receipt(currency_code="UAH", channel="app")
    receipt.event_at.FromDatetime(NOON)
    goods = [("cake", 12_345), ("milk", 3_333), ("wine", 99_999), ("bag", 100)]
    for number, (sku, amount) in enumerate(goods, start=1):
        receipt.lines.add(line_number=number, sku=sku, quantity_milli=1000 * number, list_amount_minor=amount)
    receipt.lines[3].category, receipt.lines[3].brand = "bags", "green"
    receipt.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=115_777, card_bin="516874")
    return checkout_pb2.CommitRequest(
        message_id=str(uuid.UUID(int=1)),
        receipt_key=common_pb2.ReceiptKey(
            store_id="12", terminal_id="3", business_date="2026-03-02", receipt_number=10**12
        ),
        identifier=common_pb2.Identifier(card_number="123"),
        receipt=receipt,
        quoted_programme_version=6,
    )


def described(request: checkout_pb2.CommitRequest) -> None:
    """The register knows goods better than the catalogue does, here and there."""
    request.receipt.lines[0].category = "bakery/own"
    request.receipt.lines[1].tags.extend(["new", "cold"])
    request.receipt.lines[1].supplier = "farm"
    request.receipt.lines[2].brand = "château"
    request.receipt.lines[2].tags.append("red")


def voided(request: checkout_pb2.CommitRequest) -> None:
    request.receipt.lines.add(line_number=5, sku="cake")
    request.receipt.lines.add(line_number=6, sku="milk", quantity_milli=500, weighed=True, list_amount_minor=777)


def unordered(request: checkout_pb2.CommitRequest) -> None:
    for line, number in zip(request.receipt.lines, (40, 7, 100_000, 1), strict=True):
        line.line_number = number


def unknown(request: checkout_pb2.CommitRequest) -> None:
    request.receipt.lines.add(line_number=9, sku="mystery", quantity_milli=1000, list_amount_minor=1)


def charged(request: checkout_pb2.CommitRequest) -> None:
    request.receipt.lines[2].discount_minor = 99_999
    request.receipt.lines[0].discount_minor = 5


def spending(request: checkout_pb2.CommitRequest) -> None:
    request.spend_points_minor = 4_321


def units(request: checkout_pb2.CommitRequest) -> None:
    request.spend_units.add(unit="gift", points_minor=30)
    request.deposits.add(unit="deposit", points_minor=10_000)


def long(request: checkout_pb2.CommitRequest) -> None:
    line = request.receipt.lines[0]
    del request.receipt.lines[:]
    for number in range(1, 301):
        request.receipt.lines.add().CopyFrom(line)
        request.receipt.lines[-1].line_number = number


def nothing(request: checkout_pb2.CommitRequest) -> None:
    """Leave the receipt as it is."""


class Case(NamedTuple):
    """A receipt, the programme and the shopper."""

    programme: str = ""
    change: Callable[[checkout_pb2.CommitRequest], None] = nothing
    shopper: Shopper = MEMBER
    presented: Presented = NOTHING
    partner: str = ""
    groups: frozenset[str] = frozenset()


PRESENTED = Presented(
    ("ONE", "TWO", "GONE"),
    (CouponFact("ONE", "cakes"), CouponFact("TWO", "other")),
    (CouponClaim("ONE", 1), CouponClaim("TWO", 3)),
    {"GONE": common_pb2.REFUSAL_REASON_COUPON_UNKNOWN},
)
TEN = "id: p, name: P, line_discount: {percent: 10}, messages: {receipt: 'Ten off'}"
FURTHER = (
    "units:\n"
    "  - {unit: gift, name: Gifts, precision: 0, pays: 0.10}\n"
    "  - {unit: deposit, name: Deposit, precision: 2, pays: 1.00, sold: true}\n"
)
CASES: Mapping[str, Case] = {
    "plain": Case(),
    "for nobody": Case(promotions(TEN), shopper=NOBODY),
    "promotions and a message": Case(promotions(TEN, "id: q, name: Q, points: {percent: 5}")),
    "goods as the register describes them": Case(promotions(TEN), described),
    "voided lines": Case(promotions(TEN), voided),
    "lines in any order": Case(promotions(TEN), unordered),
    "unknown goods": Case(promotions(TEN), unknown),
    "charged otherwise": Case(promotions(TEN), charged),
    "points spent": Case(promotions(TEN), spending),
    "many lines": Case(promotions(TEN), long),
    "further units": Case(FURTHER + promotions("id: g, name: G, points: {percent: 5, unit: gift}"), units),
    "a partner's store": Case(
        "partners: [{code: fuel, name: Fuel, base_percent: 0.5}]\n", partner="fuel", groups=frozenset({"z", "a"})
    ),
    "an offline receipt whose card is refused": Case(shopper=Shopper(None, FOUND, BLOCKED, booked_without=True)),
    "a card that is refused": Case(shopper=Shopper(None, FOUND, BLOCKED)),
    "offers, segments and a birthday": Case(
        promotions(
            "id: mine, name: P, when: {offer: true}, line_discount: {percent: 10}",
            "id: s, name: S, when: {segments: [parents]}, points: {percent: 1}",
            "id: b, name: B, when: {birthday: {days_before: 7}}, points: {percent: 1}",
        )
    ),
    "coupons": Case(
        promotions("id: c, name: C, when: {coupon: {series: [cakes]}}, line_discount: {percent: 10}"),
        presented=PRESENTED,
    ),
    "a limit": Case(
        promotions("id: thrice, name: P, limits: [{at_most: 2, for: member}], line_discount: {percent: 10}")
    ),
    "a level, a coupon for later and a draw": Case(
        "tiers: {by: visits, levels: [{code: silver, name: Silver, at_least: 3}]}\n"
        + promotions(
            "id: i, name: I, issue_coupon: {series: later, quantity: 2, valid_days: 30}",
            "id: d, name: D, draw: {name: car, entries: 3}",
        )
    ),
}


def context_of(case: Case, request: checkout_pb2.CommitRequest, by: Rules) -> CommitContext:
    lines, missing = lines_of(request.receipt, CATALOGUE)
    facts = receipt_facts(request.receipt, lines, "12", STORE_ZONE, store_groups=case.groups, partner=case.partner)
    return CommitContext(
        rules=by,
        unit=BONUS,
        zone=STORE_ZONE,
        facts=facts,
        member=member_facts(case.shopper.found, facts.local_at),
        notices=unknown_sku_notice(missing),
        shopper=case.shopper,
        presented=case.presented,
        books=Books(),
    )


def planned(command: Purchase) -> Purchase:
    """Return the command as the books make it: those with a plan are made whole by what stands there."""
    if command.plan is None:
        return command
    there = {"bonus": Spendable(10_000), "gift": Spendable(1_000)}
    return command.plan(FoundUnderFence(COUNTERS, {}, {claim.code: 0 for claim in command.claims}, there))


def plainly(request: checkout_pb2.CommitRequest, context: CommitContext, usage: Usage) -> journal_pb2.Purchase:
    """Build what an entry says of receipt, lines and facts message by message, field by field."""
    effects = effects_of(request, context, usage)
    purchase = journal_pb2.Purchase(
        receipt_key=request.receipt_key,
        receipt=request.receipt,
        programme_code="test",
        programme_version=7,
        asked_points_minor=request.spend_points_minor,
        variances=variance_messages(effects),
        notices=[*notices_of(effects.messages), *context.notices],
        time_zone="Europe/Kyiv",
        quoted_programme_version=6,
        partner=context.facts.partner,
        asked_units=request.spend_units,
        deposits=request.deposits,
        checkout_id=request.checkout_id,
    )
    for line in purchase.receipt.lines:
        product = CATALOGUE.get(line.sku)
        if product is not None and line.quantity_milli:
            line.category, line.brand = line.category or product.category, line.brand or product.brand
            line.supplier, line.tags[:] = line.supplier or product.supplier, [*product.tags, *line.tags]
    add_line_effects(purchase.effects, request.receipt, effects)
    if context.found is not None:
        purchase.member_id, purchase.identified_by = str(OLENA.member_id), common_pb2.IDENTIFIER_KIND_CARD
    if context.shopper.refusal is not None:
        purchase.identifier_refused = common_pb2.REFUSAL_REASON_CARD_BLOCKED
    for points in request.spend_units:
        purchase.paid_units_money.add(unit=points.unit, points_minor=10 * points.points_minor)
    facts = context.facts._replace(coupons=context.presented.usable)
    purchase.capped.extend(capped_messages(effects))
    purchase.facts.CopyFrom(facts_of(context.rules, facts, context.member, usage, effects))
    return purchase


def effects_of(request: checkout_pb2.CommitRequest, context: CommitContext, usage: Usage) -> Effects:
    facts = context.facts._replace(coupons=context.presented.usable)
    paid = [PaidLine(line.line_number, line.discount_minor) for line in request.receipt.lines if line.quantity_milli]
    effects = earn_as_paid(context.rules, facts, context.member, paid, usage)
    return effects if context.found else without_member(effects)


def booked_event(case: Case) -> tuple[checkout_pb2.CommitRequest, CommitContext, Purchase]:
    by = rules(ONE_PERCENT + case.programme)
    request = plain()
    case.change(request)
    context = context_of(case, request, by)
    return request, context, planned(commit_command(request, context, books=4).command)


@pytest.mark.parametrize("name", CASES)
def test_an_entry_is_written_as_protobuf_writes_it(name: str) -> None:
    _, _, command = booked_event(CASES[name])
    event = journal_pb2.Event.FromString(command.event)
    assert event.WhichOneof("event") == "purchase"
    assert command.event == event.SerializeToString(), "the same fields in the same order, none of them twice"


NOT_PLAINLY = {"points spent", "further units", "coupons", "a level, a coupon for later and a draw"}
"""Those whose evaluation or record takes more steps than `plainly` repeats."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_PLAINLY])
def test_an_entry_says_what_the_plain_way_writes(name: str) -> None:
    request, context, command = booked_event(CASES[name])
    usage = cached_usage(context.found)
    assert journal_pb2.Event.FromString(command.event).purchase == plainly(request, context, usage)


@pytest.mark.parametrize("name", CASES)
def test_an_entry_is_evaluated_again_bit_by_bit(name: str) -> None:
    _, context, command = booked_event(CASES[name])
    purchase = journal_pb2.Event.FromString(command.event).purchase
    assert first_difference(purchase, reexplained(purchase, context.rules)) is None


@pytest.mark.parametrize("name", CASES)
def test_a_resent_receipt_is_known_by_what_it_says(name: str) -> None:
    case = CASES[name]
    request, _, command = booked_event(case)
    content = (
        request.receipt_key.SerializeToString(deterministic=True),
        request.receipt.SerializeToString(deterministic=True),
        request.spend_points_minor.to_bytes(8, "big"),
        b"",
        b"",
        *(unit.SerializeToString(deterministic=True) for unit in request.spend_units),
        *(b"deposit" + unit.SerializeToString(deterministic=True) for unit in request.deposits),
    )
    ids = () if case.shopper.shown is None else OLENA.all_ids
    hashes = [content_hash(one, *content) for one in ids]
    without = content_hash(None, *content, b"identifier does not count")
    hashes = [without, *hashes] if case.shopper.booked_without else [*hashes, without]
    assert [command.content_hash, *command.same_contents] == hashes


SETTLEMENTS = {
    "nothing left out": checkout_pb2.Settlement(accrual_points_minor=7, balance=common_pb2.Balance(unit="bonus")),
    "points left out": checkout_pb2.Settlement(left_out_points_minor=7, balance=common_pb2.Balance(precision=2)),
    "no member": checkout_pb2.Settlement(),
}


@pytest.mark.parametrize("settlement", SETTLEMENTS.values(), ids=SETTLEMENTS.keys())
@pytest.mark.parametrize("name", CASES)
def test_an_answer_says_what_the_entry_stores(name: str, settlement: checkout_pb2.Settlement) -> None:
    _, _, command = booked_event(CASES[name])
    made = journal_pb2.Event(settlement=settlement, postings=[journal_pb2.Posting(unit=1, points_minor=5)])
    booked_at = datetime(2026, 3, 2, 10, 0, 1, 234_567, tzinfo=UTC)
    booked = Booked(3, 10**10, booked_at, command.event + made.SerializeToString(), repeated=False)
    purchase = journal_pb2.Event.FromString(command.event).purchase
    expected = checkout_pb2.CommitResponse(
        entry=common_pb2.EntryRef(book=3, number=10**10),
        settlement=settlement,
        notices=purchase.notices,
        member_id=purchase.member_id,
        coupons=purchase.coupons,
        issued_coupons=purchase.issued_coupons,
        capped=purchase.capped,
        draws=purchase.draws,
    )
    expected.entry.booked_at.FromDatetime(booked_at)
    if purchase.HasField("standing"):
        expected.standing.CopyFrom(purchase.standing)
    response = commit_response(booked)
    if settlement.left_out_points_minor and purchase.member_id:
        left_out = response.notices.pop()
        assert (left_out.code, left_out.text[:20]) == ("POINTS_LEFT_OUT", "0.07 points were not")
    assert response.SerializeToString() == expected.SerializeToString()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="the first"),
        pytest.param(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), id="before the epoch"),
        pytest.param(datetime(2026, 3, 2, 10, 0, 0, 1, tzinfo=UTC), id="a microsecond"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), id="the last"),
    ],
)
def test_a_moment_is_read_as_protobuf_reads_it(moment: datetime) -> None:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    assert moment_of(timestamp) == timestamp.ToDatetime(tzinfo=UTC) == moment


@pytest.mark.parametrize("timestamp", [Timestamp(seconds=1 << 40), Timestamp(nanos=-1), Timestamp(nanos=10**9)])
def test_a_moment_outside_of_the_calendar_is_none(timestamp: Timestamp) -> None:
    with pytest.raises(ValueError, match="Timestamp is not valid"):
        moment_of(timestamp)


def test_a_quote_promises_a_member_what_the_entry_will_say() -> None:
    request, context, command = booked_event(CASES["a level, a coupon for later and a draw"])
    purchase = journal_pb2.Event.FromString(command.event).purchase
    sale = Sale(context.rules, context.zone, context.facts, [])
    effects = quote(context.rules, context.facts, context.member)
    told = quote_response(request.receipt, sale, effects, context.found, [], 0, context.presented)
    assert list(told.draws) == list(purchase.draws) != []
    for coupon in purchase.issued_coupons:
        coupon.code = ""  # it has none before it is booked
    assert list(told.issued_coupons) == list(purchase.issued_coupons) != []
    nobody = quote_response(request.receipt, sale, effects, None, [], 0, context.presented)
    assert (len(nobody.draws), len(nobody.issued_coupons)) == (0, 0)
