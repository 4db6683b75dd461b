"""Simulations and sums of backtests: parts add up to the whole, and limits hold across them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions import MemberFacts, ReceiptFacts, ReceiptLine, Rules
from server.promotions.facts import CounterFact
from server.rules.backtest.simulation import Case, Simulation
from server.rules.backtest.tally import TOP, Tally
from tests.unit.promotions.builders import ONE_PERCENT, promotions, rules

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
TWICE = "id: twice, name: T, limits: [{at_most: 2, for: member, each: day}], points: {fixed: 5, per: receipt}"
THIRD = "id: third, name: T, when: {visit: {number: 3}}, basket_discount: {percent: 10}"
BUDGET = "id: budget, name: B, limits: [{at_most: 10.00, of: money, for: all}], line_discount: {amount: 3}"


def case(member: str = "", hours: float = 0, amount: int = 1000, **more: object) -> Case:
    line = ReceiptLine(1, "4711", "dairy", "", "", (), 1000, amount)
    receipt = ReceiptFacts("12", START + timedelta(hours=hours), (line,))
    values: dict[str, object] = {"name": f"{member}@{hours}", "currency": "UAH", "receipt": receipt}
    return Case(**values, member=MemberFacts(member) if member else None, **more)  # type: ignore[arg-type]  # by name


def compiled(*items: str) -> Rules:
    return rules(ONE_PERCENT + (promotions(*items) if items else ""))


def test_what_is_counted_is_found_by_the_members_next_receipts() -> None:
    by, simulation = compiled(TWICE), Simulation()
    visits = [("a", 0), ("a", 1), ("b", 2), ("a", 3), ("a", 24)]
    points = [simulation.judge(by, case(member, hours)).accrual_points_minor for member, hours in visits]
    assert [amount - 10 for amount in points] == [500, 500, 500, 0, 500], "two a day each, beside the base percent"


def test_it_begins_with_what_was_counted_before() -> None:
    by, seen = compiled(THIRD), {"visit/ever": CounterFact(1)}
    simulation = Simulation()
    given_off = [simulation.judge(by, case("a", hours, seen=seen)).discount_minor for hours in range(3)]
    assert given_off == [0, 100, 0], "and goes on with its own count, whatever the entries say"


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_shared_limit_never_exceed_it(parts: int) -> None:
    by = compiled(BUDGET)
    total = 0
    for _ in range(parts):
        simulation = Simulation(Fraction(1, parts))
        total += sum(simulation.judge(by, case(hours=hour)).discount_minor for hour in range(10))
    assert total <= 1000
    assert total > 1000 - parts, "and nearly all of it is given"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3000)), max_size=40), st.integers(1, 4))
def test_parts_add_up_to_the_whole(receipts: list[tuple[int, int]], parts: int) -> None:
    live, draft = compiled(TWICE), compiled(TWICE.replace("fixed: 5", "fixed: 7"), THIRD)
    cases = [(n, case(f"m{n}" if n else "", hour, amount)) for hour, (n, amount) in enumerate(receipts)]

    def tally(part: int, of: int) -> Tally:
        sums, before, after = Tally(Fraction(1)), Simulation(), Simulation()
        for one in (one for n, one in cases if n % of == part):
            sums.add(one, before.judge(live, one), after.judge(draft, one))
        return sums

    merged = tally(0, parts)
    for part in range(1, parts):
        merged.merge(tally(part, parts))
    whole = tally(0, 1)
    assert sorted(merged.top) == sorted(whole.top) or len(whole.top) == TOP
    assert replace(merged, top=[]) == replace(whole, top=[])


def test_the_same_rules_differ_in_nothing() -> None:
    by, sums = compiled(TWICE, THIRD, BUDGET), Tally(Fraction(1))
    before, after = Simulation(), Simulation()
    for hour in range(12):
        one = case("ab"[hour % 2], hour)
        sums.add(one, before.judge(by, one), after.judge(by, one))
    assert (sums.receipts, sums.affected, sums.live, sums.top) == (12, 0, sums.draft, [])
    assert sums.live_promotions == sums.draft_promotions


def test_the_greatest_differences_are_kept() -> None:
    live, draft, sums = compiled(), compiled("id: p, name: P, line_discount: {percent: 50}"), Tally(Fraction(1))
    for number in range(3 * TOP):
        one = case("a", number, amount=(number * 7 % 60 + 1) * 100)
        sums.add(one, Simulation().judge(live, one), Simulation().judge(draft, one))
    assert len(sums.top) == TOP
    assert min(one.draft.discount_minor for one in sums.top) == (60 - TOP + 1) * 50
    assert sums.affected == 3 * TOP
    assert (len(sums.members), sums.skus) == (1, {"4711"})
