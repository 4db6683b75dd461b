"""What an entry keeps of the facts is enough to evaluate its receipt again, bit by bit, and holds no personal data."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from tallypoint.v1 import common_pb2, journal_pb2

from server.promotions import Effects, MemberFacts, Rules, earn_as_paid, quote
from server.promotions.facts import CounterFact, CouponFact, PaidLine, Usage
from server.rules.evidence import (
    facts_of,
    first_difference,
    member_of,
    receipt_facts,
    receipt_of,
    reexplained,
    usage_of,
    without_member,
)
from server.rules.receipt_lines import add_line_effects, lines_of, variance_messages
from tests.unit.promotions.builders import ONE_PERCENT, promotions, rules

ZONE = ZoneInfo("Europe/Kyiv")
MEMBER = MemberFacts(
    "6f1c1f0e-5d0b-4c53-9a9e-0d2a3f7f7c11",
    birthday=date(1990, 3, 5),
    registered_on=date(2026, 1, 1),
    segments=frozenset({"parents", "secret"}),
    offers=frozenset({"mine"}),
    language="uk",
)
COUNTERS: Mapping[str, CounterFact] = {
    "visit/ever": CounterFact(3, 50_000),
    "visit/month/2026-03-01": CounterFact(2, 30_000, until=date(2027, 4, 1)),
    "use/thrice/month/2026-03-01": CounterFact(2),
}
CASES = {
    "nothing in particular": "id: p, name: P, line_discount: {percent: 10}",
    "a birthday": "id: p, name: P, when: {birthday: {days_before: 7}}, line_discount: {percent: 10}",
    "a segment": "id: p, name: P, when: {segments: [parents]}, line_discount: {percent: 10}",
    "an offer": "id: mine, name: P, when: {offer: true}, line_discount: {percent: 10}",
    "the age of the membership": "id: p, name: P, when: {member_days: {below: 90}}, line_discount: {percent: 10}",
    "a visit": "id: p, name: P, when: {visit: {number: 3, each: month}}, line_discount: {percent: 10}",
    "a limit": "id: thrice, name: P, limits: [{at_most: 3, for: member, each: month}], line_discount: {percent: 10}",
    "a coupon": "id: p, name: P, when: {coupon: {series: [cakes]}}, line_discount: {percent: 10}",
    "a store group": "id: p, name: P, when: {store_groups: [big]}, points: {percent: 5}",
    "the tender": "id: p, name: P, when: {paid_by: {tenders: [card], bins: ['516874']}}, points: {percent: 5}",
    "the channel": "id: p, name: P, when: {channels: [delivery]}, points: {percent: 5}",
    "the terminal": "id: p, name: P, when: {terminals: [self_checkout]}, points: {percent: 5}",
    "the supplier": "id: p, name: P, scope: {suppliers: [acme]}, points: {percent: 5}",
}


def register_receipt() -> common_pb2.Receipt:
    receipt = common_pb2.Receipt(
        currency_code="UAH", channel="delivery", terminal_kind=common_pb2.TERMINAL_KIND_SELF_CHECKOUT
    )
    receipt.event_at.FromDatetime(datetime(2026, 3, 2, 10, tzinfo=UTC))
    goods = [("cake", "bakery/cakes", 12_000), ("milk", "dairy", 3_333), ("bag", "", 100)]
    for number, (sku, category, amount) in enumerate(goods, start=1):
        receipt.lines.add(
            line_number=number,
            sku=sku,
            category=category,
            supplier="acme",
            tags=["new"],
            quantity_milli=2000,
            list_amount_minor=amount,
        )
    receipt.lines.add(line_number=4, sku="voided")
    receipt.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=15_000, card_bin="516874")
    return receipt


class _NoCatalogue:
    def get(self, sku: str) -> None:
        return None


def booked(
    by: Rules, member: MemberFacts | None, usage: Usage, *, charged: int | None = None
) -> tuple[journal_pb2.Purchase, Effects]:
    """Return a receipt as the checkout books it; `charged` is the first line's discount if it is not the quoted one."""
    receipt = register_receipt()
    lines, _ = lines_of(receipt, _NoCatalogue())
    facts = receipt_facts(
        receipt, lines, "s1", ZONE, store_groups=frozenset({"big"}), coupons=(CouponFact("C1", "cakes"),)
    )
    quoted = quote(by, facts, member, None, usage)
    for line, given in zip(receipt.lines, quoted.lines, strict=False):
        line.discount_minor = sum(discount.amount_minor for discount in given.discounts)
    if charged is not None:
        receipt.lines[0].discount_minor = charged
    paid = [PaidLine(line.line_number, line.discount_minor) for line in receipt.lines if line.quantity_milli]
    effects = earn_as_paid(by, facts, member, paid, usage)
    effects = effects if member else without_member(effects)
    purchase = journal_pb2.Purchase(
        member_id=member.member_id if member else "",
        receipt=receipt,
        programme_version=by.version,
        time_zone=ZONE.key,
        variances=variance_messages(effects),
        facts=facts_of(by, facts, member, usage, effects),
        withheld=[journal_pb2.Withheld(promotion_id=one.promotion_id, reason=one.reason) for one in effects.withheld],
        notices=[common_pb2.Notice(promotion_id=one.promotion_id, text=one.text) for one in effects.messages],
        capped=[
            common_pb2.Capped(promotion_id=one.promotion_id, wanted=one.wanted, granted=one.granted, limit=one.limit)
            for one in effects.capped
        ],
        coupons=[
            common_pb2.CouponOutcome(code=one.code, used=True, promotion_ids=one.promotion_ids)
            for one in effects.coupons
        ],
    )
    purchase.receipt_key.store_id = "s1"
    add_line_effects(purchase.effects, receipt, effects)
    return journal_pb2.Purchase.FromString(purchase.SerializeToString()), effects


@pytest.mark.parametrize("member", [MEMBER, None], ids=["a member", "nobody"])
@pytest.mark.parametrize("case", CASES)
def test_a_booked_receipt_is_evaluated_again_bit_by_bit(case: str, member: MemberFacts | None) -> None:
    by = rules(ONE_PERCENT + promotions(CASES[case]))
    purchase, effects = booked(by, member, Usage(COUNTERS if member else {}))
    if member is not None:
        applied = {discount.promotion_id for line in effects.lines for discount in line.discounts}
        applied |= {accrual.promotion_id for line in effects.lines for accrual in line.accruals}
        assert applied & {"p", "mine", "thrice"}, "the case is one in which the promotion applies"
    again = reexplained(purchase, by)
    assert again.lines == effects.lines
    assert first_difference(purchase, again) is None


def test_what_the_register_charged_otherwise_is_evaluated_as_charged() -> None:
    by = rules(ONE_PERCENT + promotions(CASES["nothing in particular"]))
    purchase, effects = booked(by, MEMBER, Usage(), charged=7)
    assert effects.variances
    assert first_difference(purchase, reexplained(purchase, by)) is None


def test_no_more_is_kept_than_the_rules_asked_for() -> None:
    by = rules(ONE_PERCENT + promotions(CASES["a birthday"], CASES["a segment"].replace("id: p", "id: q")))
    purchase, _ = booked(by, MEMBER, Usage(COUNTERS))
    assert list(purchase.facts.segments) == ["parents"], "of two"
    assert list(purchase.facts.birthday_windows) == ["7:0"]
    assert not purchase.facts.counters, "nobody asked for visits"
    assert b"1990" not in purchase.SerializeToString()


def test_facts_read_back_are_those_written() -> None:
    by = rules(ONE_PERCENT + promotions(CASES["a visit"], CASES["an offer"]))
    purchase, _ = booked(by, MEMBER, Usage(COUNTERS, {"spring/money": 700}))
    member, receipt = member_of(purchase), receipt_of(purchase)
    assert member is not None
    assert (member.offers, member.age_days, member.language, member.can_earn) == (frozenset({"mine"}), 60, "uk", True)
    assert usage_of(purchase).member == {"visit/month/2026-03-01": COUNTERS["visit/month/2026-03-01"]}
    assert (receipt.store_id, receipt.store_groups, receipt.channel) == ("s1", frozenset({"big"}), "delivery")
    assert receipt.local_at == datetime(2026, 3, 2, 12, tzinfo=ZONE)
    assert [line.sku for line in receipt.lines] == ["cake", "milk", "bag"], "voided lines take no part"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda p: setattr(p.effects[0], "payable_minor", 1), "line 1", id="a line"),
        pytest.param(lambda p: p.effects.pop(), "number of lines", id="a line less"),
        pytest.param(lambda p: p.withheld.add(promotion_id="x", reason="control"), "withheld", id="withheld"),
        pytest.param(lambda p: p.notices.add(promotion_id="x", text="hello"), "messages", id="a message"),
        pytest.param(lambda p: p.draws.add(draw="car", entries=1), "draws", id="a draw"),
        pytest.param(lambda p: p.issued_coupons.add(code="c", series="s"), "coupons issued", id="a coupon"),
        pytest.param(lambda p: setattr(p, "programme_version", 3), "booked by version 3", id="the version"),
    ],
)
def test_the_first_difference_is_named(change: object, named: str) -> None:
    by = rules(ONE_PERCENT + promotions(CASES["nothing in particular"]))
    purchase, _ = booked(by, MEMBER, Usage())
    change(purchase)  # type: ignore[operator]  # a function of the table
    difference = first_difference(purchase, reexplained(purchase, by))
    assert difference is not None
    assert named in difference
