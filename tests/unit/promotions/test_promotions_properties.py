"""What holds for every programme and every receipt."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta
from fractions import Fraction
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from server.promotions import (
    MemberFacts,
    Programme,
    ReceiptFacts,
    ReceiptLine,
    compile_rules,
    earn_as_paid,
    quote,
)
from server.promotions.model import (
    AmountOff,
    Base,
    BasketDiscount,
    BirthdayWindow,
    Earning,
    Exclusions,
    FixedPrice,
    LineDiscount,
    PercentOff,
    Points,
    PointsFixed,
    PointsMultiplier,
    PointsPercent,
    PointUnit,
    Promotion,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    Spending,
)
from tests.unit.promotions.builders import MONDAY, STORE_ZONE, as_quoted, points
from tests.unit.promotions.naive import Naive

SKUS = ("cake", "milk", "beer", "tea")
CATEGORIES = ("food", "food/sweet", "food/sweet/cakes", "drink", "drink/beer")
BRANDS = ("Acme", "Own")
TAGS = ("alcohol", "local", "fresh")


def _some(names: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names), max_size=2)


_goods = st.builds(Selector, _some(SKUS), _some(CATEGORIES), _some(BRANDS), _some(TAGS), st.booleans())
_tagged = st.builds(Selector, tags=st.frozensets(st.sampled_from(TAGS), min_size=1, max_size=1))
_scopes = st.none() | _goods | st.builds(dataclasses.replace, _goods, but_not=_tagged)
_shares = st.fractions(Fraction(1, 100), 1, max_denominator=1000)
_bases = st.sampled_from(Base)
_off = st.builds(PercentOff, _shares) | st.builds(AmountOff, st.integers(1, 3000))
_line_discounts = st.builds(LineDiscount, _off, _bases) | st.builds(
    LineDiscount, st.builds(FixedPrice, st.integers(0, 900))
)
_points = st.builds(
    Points,
    st.builds(PointsPercent, _shares)
    | st.builds(PointsMultiplier, st.fractions(Fraction(3, 2), 9, max_denominator=10))
    | st.builds(PointsFixed, st.integers(1, 999), st.sampled_from(["unit", "line", "receipt"])),
)
_bound = st.none() | st.integers(1, 6000)
_conditions = (
    st.none()
    | st.builds(ReceiptTotal, _bound, _bound)
    | st.builds(ScopeTotal, _bound, _bound)
    | st.builds(BirthdayWindow, st.integers(0, 7), st.integers(0, 7))
)
_days = st.none() | st.integers(-2, 2).map(lambda days: MONDAY + timedelta(days))


def _promotions(is_plain: bool) -> st.SearchStrategy[Promotion]:
    return st.builds(
        Promotion,
        id=st.text("abcdef", min_size=1, max_size=3),
        name=st.just("P"),
        scope=_scopes,
        valid_from=_days,
        valid_until=_days,
        when=_conditions,
        line_discount=st.none() | _line_discounts,
        basket_discount=st.none() | st.builds(BasketDiscount, _off, _bases),
        points=st.none() | _points,
        priority=st.integers(1, 3),
        group=st.none() if is_plain else st.none() | st.sampled_from(["g", "h"]),
        exclusive=st.just(False) if is_plain else st.booleans(),
    )


def _programmes(is_plain: bool) -> st.SearchStrategy[Programme]:
    return st.builds(
        Programme,
        code=st.just("test"),
        name=st.just("Test"),
        effective_from=st.just(MONDAY),
        currency=st.just("UAH"),
        currency_digits=st.just(2),
        point=st.just(PointUnit("bonus", 2, Fraction(1))),
        earning=st.builds(Earning, _shares),
        spending=st.builds(Spending, _shares, st.just(1), st.just(1), st.booleans()),
        exclusions=st.builds(Exclusions, st.none() | _tagged, st.none() | _tagged, st.none() | _tagged),
        promotions=st.lists(_promotions(is_plain), max_size=6, unique_by=lambda p: p.id).map(tuple),
    )


_lines = st.lists(
    st.builds(
        ReceiptLine,
        st.integers(1, 30),
        st.sampled_from(SKUS),
        st.sampled_from(CATEGORIES),
        st.sampled_from(BRANDS),
        st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple),
        st.sampled_from([1000, 2000, 3000, 350]),
        st.integers(0, 5000),
        st.just(0) | st.integers(0, 2000),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda line: line.line_number,
)
_receipts = st.builds(ReceiptFacts, st.just("store-1"), st.just(datetime(2026, 3, 2, 12, tzinfo=STORE_ZONE)), _lines)
_members = st.none() | st.builds(
    MemberFacts,
    st.just("m"),
    st.none() | st.dates(date(1990, 2, 20), date(1990, 3, 10)),
    st.booleans(),
    st.booleans(),
)
_wishes = st.none() | st.integers(0, 20000)


@given(_programmes(is_plain=True), _receipts, _members)
def test_the_index_finds_what_trying_everything_finds(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member)
    naive = Naive(programme, receipt, member)
    assert [entry.payable_minor for entry in effects.lines] == naive.left
    may_earn = member is None or member.can_earn
    assert points(effects) == (naive.points if may_earn else [0] * len(receipt.lines))


@given(_programmes(is_plain=False), _receipts, _members, _wishes)
def test_sums_and_floors(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None
) -> None:
    effects = quote(compile_rules(programme, 1), receipt, member, wish)
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
    assert effects.accrual_points_minor == sum(points(effects))


@given(_programmes(is_plain=False), _receipts, _members, _wishes, st.randoms(use_true_random=False))
def test_order_of_lines_and_promotions_does_not_matter(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None, random: Random
) -> None:
    lines, promotions = list(receipt.lines), list(programme.promotions)
    random.shuffle(lines)
    random.shuffle(promotions)
    mixed = dataclasses.replace(programme, promotions=tuple(promotions))
    expected = quote(compile_rules(programme, 1), receipt, member, wish)
    assert quote(compile_rules(mixed, 1), receipt._replace(lines=lines), member, wish) == expected


@given(_programmes(is_plain=False), _receipts, _members, _wishes, _promotions(is_plain=False))
def test_a_promotion_that_does_not_apply_changes_nothing(
    programme: Programme,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    wish: int | None,
    extra: Promotion,
) -> None:
    elsewhere = dataclasses.replace(extra, id="elsewhere", scope=Selector(skus=frozenset({"no-such-sku"})))
    over = dataclasses.replace(extra, id="over", valid_until=MONDAY - timedelta(days=1))
    out_of_reach = dataclasses.replace(extra, id="unreached", when=ReceiptTotal(at_least_minor=10**9))
    more = dataclasses.replace(programme, promotions=(*programme.promotions, elsewhere, over, out_of_reach))
    expected = quote(compile_rules(programme, 1), receipt, member, wish)
    assert quote(compile_rules(more, 1), receipt, member, wish) == expected


@given(_programmes(is_plain=False), _receipts, _members, _wishes)
def test_quote_and_commit_agree(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, wish: int | None
) -> None:
    rules = compile_rules(programme, 1)
    quoted = quote(rules, receipt, member, wish)
    assert earn_as_paid(rules, receipt, member, as_quoted(quoted)) == quoted


@given(_programmes(is_plain=False), _receipts, _members)
def test_the_memory_of_products_changes_no_answer(
    programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None
) -> None:
    rules = compile_rules(programme, 1)
    first = quote(rules, receipt, member)
    for days in range(-20, 20):
        later = receipt._replace(local_at=receipt.local_at + timedelta(days))
        assert quote(rules, later, member) == quote(compile_rules(programme, 1), later, member)
    assert quote(rules, receipt, member) == first
