"""What holds for every programme and every receipt."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from server.promotions import (
    CounterFact,
    CouponShown,
    Gift,
    InStores,
    LimitScope,
    Measure,
    MemberFacts,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptTotal,
    Selector,
    Usage,
    compile_rules,
    earn_as_paid,
    quote,
)
from server.promotions.counter_names import use_key
from tests.unit.promotions.builders import MONDAY, as_quoted, points
from tests.unit.promotions.naive import Naive
from tests.unit.promotions.worlds import COUNTERS, members, programmes, promotions, receipts, usages, wishes

PLAIN = programmes(is_plain=True)
WITH_RIVALS = programmes(is_plain=False)
without_deadline = settings(deadline=None)


@settings(deadline=None, max_examples=300)
@given(PLAIN, receipts, members, usages)
def test_the_index_finds_what_trying_everything_finds(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, usage=usage)
    naive = Naive(programme, receipt, member, usage)
    assert [entry.payable_minor for entry in effects.lines] == naive.left
    assert points(effects) == naive.points
    assert {one.promotion_id for one in effects.withheld} <= naive.withheld


@without_deadline
@given(WITH_RIVALS, receipts, members, wishes, usages)
def test_sums_and_floors(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, wish, usage)
    bought = {line.line_number: line for line in receipt.lines}
    for entry in effects.lines:
        line = bought[entry.line_number]
        taken = sum(discount.amount_minor for discount in entry.discounts)
        assert taken + entry.payable_minor == line.list_amount_minor
        assert entry.payable_minor >= min(line.floor_amount_minor, line.list_amount_minor)
        assert 0 <= entry.points_money_minor <= entry.spendable_minor
        assert all(discount.amount_minor > 0 for discount in entry.discounts)
        assert all(accrual.points_minor > 0 for accrual in entry.accruals)
        kept = entry.payable_minor - entry.points_money_minor
        assert kept >= min(line.floor_amount_minor, line.list_amount_minor)
    assert effects.payable_minor == sum(entry.payable_minor for entry in effects.lines)
    assert effects.payable_minor + effects.discount_minor == sum(line.list_amount_minor for line in receipt.lines)
    assert effects.spent_money_minor == sum(entry.points_money_minor for entry in effects.lines)
    assert effects.spent_points_minor == min(wish or 0, effects.max_spend_points_minor)
    assert effects.accrual_points_minor == sum(
        accrual.points_minor for entry in effects.lines for accrual in entry.accruals if not accrual.unit
    )


@without_deadline
@given(WITH_RIVALS, receipts, members, wishes, usages, st.randoms(use_true_random=False))
def test_order_of_lines_and_promotions_does_not_matter(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    wish: int | None,
    usage: Usage | None,
    random: Random,
) -> None:
    lines, promotions = list(receipt.lines), list(programme.promotions)
    random.shuffle(lines)
    random.shuffle(promotions)
    mixed = dataclasses.replace(programme, promotions=tuple(promotions))
    expected = quote(compile_rules(programme, 1), receipt, member, wish, usage)
    assert quote(compile_rules(mixed, 1), receipt._replace(lines=lines), member, wish, usage) == expected


@without_deadline
@given(WITH_RIVALS, receipts, members, wishes, usages, promotions(is_plain=False))
def test_a_promotion_that_does_not_apply_changes_nothing(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    wish: int | None,
    usage: Usage | None,
    extra: Promotion,
) -> None:
    nowhere = Selector(skus=frozenset({"no-such-sku"}))
    elsewhere = dataclasses.replace(
        extra, id="elsewhere", scope=nowhere, deal=None if isinstance(extra.deal, Gift) else extra.deal
    )
    over = dataclasses.replace(extra, id="over", valid_until=MONDAY - timedelta(days=1))
    out_of_reach = dataclasses.replace(extra, id="unreached", when=ReceiptTotal(at_least_minor=10**9))
    no_right = dataclasses.replace(extra, id="unheld", when=CouponShown(series=frozenset({"other"})))
    other_store = dataclasses.replace(extra, id="away", when=InStores(frozenset({"store-2"})))
    others = (elsewhere, over, out_of_reach, no_right, other_store)
    more = dataclasses.replace(programme, promotions=(*programme.promotions, *others))
    found = [quote(compile_rules(one, 1), receipt, member, wish, usage) for one in (programme, more)]
    without, beside = (  # which visits are counted is a matter of what conditions mention
        one._replace(consulted=frozenset(), counts=tuple(c for c in one.counts if not c.key.startswith("visit/")))
        for one in found
    )
    assert beside == without


@without_deadline
@given(WITH_RIVALS, receipts, members, wishes, usages)
def test_quote_and_commit_agree(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None, usage: Usage | None
) -> None:
    rules = compile_rules(programme, 1)
    quoted = quote(rules, receipt, member, wish, usage)
    assert earn_as_paid(rules, receipt, member, as_quoted(quoted), usage) == quoted


@without_deadline
@given(WITH_RIVALS, receipts, members, usages)
def test_what_was_not_consulted_changes_nothing(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    rules = compile_rules(programme, 1)
    effects = quote(rules, receipt, member, usage=usage)
    counters = usage.member if usage is not None else {}
    shared = usage.shared if usage is not None else {}
    other = Usage(
        {
            key: counters.get(key, CounterFact()) if key in effects.consulted else CounterFact(9, 9, 9)
            for key in COUNTERS
        },
        {key: left for key, left in shared.items() if key in effects.consulted} | {"unknown": 0},
    )
    assert quote(rules, receipt, member, usage=other) == effects


@without_deadline
@given(WITH_RIVALS, receipts, members, usages)
def test_no_limit_is_overshot(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, usage=usage)
    shared = usage.shared if usage is not None else {}
    for use in effects.shared:
        assert 0 < use.amount <= shared.get(use.key, use.at_most)
    assert all(cap.granted < cap.wanted for cap in effects.capped)
    counted = {count.key: count for count in effects.counts}
    before = usage.member if usage is not None else {}
    for promotion in programme.promotions:
        for limit in promotion.limits:
            key = use_key(promotion.id, limit.period, MONDAY)
            if limit.scope is LimitScope.MEMBER and key in counted:
                used, new = before.get(key, CounterFact()), counted[key]
                for measure, old, more in zip(Measure, used[:3], new[1:4], strict=True):
                    assert limit.measure is not measure or not more or old + more <= limit.at_most


@without_deadline
@given(WITH_RIVALS, receipts, members)
def test_the_memory_of_products_changes_no_answer(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None
) -> None:
    rules = compile_rules(programme, 1)
    first = quote(rules, receipt, member)
    for days in range(-20, 20, 3):
        later = receipt._replace(local_at=receipt.local_at + timedelta(days))
        assert quote(rules, later, member) == quote(compile_rules(programme, 1), later, member)
    assert quote(rules, receipt, member) == first
