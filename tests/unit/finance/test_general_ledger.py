"""The lines of the general ledger: money that adds up to the liability, and closed days that never change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import journal_pb2

from ledger.entry.model import AVAILABLE, DEBT, EXPIRED, ISSUED, PENDING, REDEEMED
from ledger.finance.accounts import ACCOUNT_NAMES, movement_of
from ledger.finance.general_ledger import REVALUATION, DaySum, Line, Period, book
from ledger.finance.point_value import PointValue, PointValues
from ledger.finance.rounding import half_up
from server.finance.account_map import load_account_map
from server.finance.general_ledger import transactions

PURCHASE = int(journal_pb2.ENTRY_KIND_PURCHASE)
RETURN = int(journal_pb2.ENTRY_KIND_RETURN)
PHARMACY = 1001
TIME = int(journal_pb2.ENTRY_KIND_TIME)
MARCH = date(2026, 3, 1)
PAIRS = [
    *((PURCHASE, ISSUED, AVAILABLE), (PURCHASE, ISSUED, PENDING), (PURCHASE, AVAILABLE, REDEEMED)),
    *((PURCHASE, AVAILABLE, DEBT), (RETURN, AVAILABLE, ISSUED), (RETURN, DEBT, ISSUED)),
    *((RETURN, REDEEMED, AVAILABLE), (TIME, AVAILABLE, EXPIRED), (TIME, PENDING, AVAILABLE)),
    *((PURCHASE, PHARMACY, AVAILABLE), (PURCHASE, AVAILABLE, PHARMACY), (RETURN, AVAILABLE, PHARMACY)),
    *((RETURN, PHARMACY, AVAILABLE), (RETURN, DEBT, PHARMACY), (RETURN, ISSUED, PHARMACY)),
]


def value(version: int, money: int, breakage_ppm: int = 0, from_month: date = MARCH) -> PointValue:
    return PointValue(version, from_month, money, 100, breakage_ppm, datetime(2026, 3, 1, tzinfo=UTC), "olena")


def values(*versions: PointValue) -> PointValues:
    return PointValues(versions, Fraction(1))


def day(number: int) -> date:
    return MARCH + timedelta(days=number)


def as_text(lines: list[Line]) -> list[str]:
    return [f"{x.day:%d} {x.close_number} {x.kind}: " + " ".join(map(str, x[3:])) for x in lines]


def test_money_is_rounded_so_that_lines_add_up() -> None:
    third = values(value(1, 33))
    sums = [DaySum(day(n), PURCHASE, ISSUED, AVAILABLE, MARCH, 2) for n in range(4)]
    lines = list(book(sums, [Period(None, date.max, third)]))
    assert [line.money_minor for line in lines] == [1, 0, 1, 1]  # 0.66, 1.32, 1.98, 2.64


def test_a_new_value_revalues_what_is_outstanding_from_the_next_period_on() -> None:
    old, new = values(value(1, 100)), values(value(1, 100), value(2, 90, 100_000))
    sums = [
        DaySum(day(0), PURCHASE, ISSUED, AVAILABLE, MARCH, 1000),
        DaySum(day(0), PURCHASE, AVAILABLE, REDEEMED, MARCH, 400),
        DaySum(day(1), PURCHASE, ISSUED, AVAILABLE, MARCH, 100),
    ]
    closed = list(book(sums[:2], [Period(1, day(0), old)]))
    lines = list(book(sums, [Period(1, day(0), old), Period(None, date.max, new)]))
    assert lines[:2] == closed
    assert as_text(lines) == [
        "01 1 purchase: issued available 1000 1000",
        "01 1 purchase: available redeemed 400 400",
        "02 None revaluation: available revalued 0 114",  # 600 points at 1.00 become 486 at 0.81
        "02 None purchase: issued available 100 81",
    ]


def test_a_month_closed_after_its_last_day_revalues_on_that_day() -> None:
    old, new = values(value(1, 100)), values(value(1, 100), value(2, 110))
    sums = [DaySum(day(0), PURCHASE, ISSUED, AVAILABLE, MARCH, 10)]
    lines = list(book(sums, [Period(1, day(0), old), Period(2, day(0), new)]))
    assert as_text(lines)[1:] == ["01 2 revaluation: revalued available 0 1"]


def test_values_that_change_nothing_outstanding_are_not_booked() -> None:
    later = values(value(1, 100, from_month=date(2026, 4, 1)))
    sums = [DaySum(day(0), PURCHASE, ISSUED, AVAILABLE, MARCH, 10)]
    lines = list(book(sums, [Period(1, day(0), values()), Period(None, date.max, later)]))
    assert [line.kind for line in lines] == ["purchase"]


def test_within_one_account_of_the_general_ledger_nothing_is_booked() -> None:
    moves = [(PURCHASE, PENDING, AVAILABLE, 5), (PURCHASE, AVAILABLE, REDEEMED, 5), (PURCHASE, ISSUED, PENDING, 7)]
    sums = [DaySum(day(0), kind, debit, credit, MARCH, points) for kind, debit, credit, points in moves]
    found = transactions(book(sums, [Period(3, day(0), values())]), load_account_map())
    assert [(each.document, each.close_number) for each in found] == [("2026-03-01/purchase", 3)]
    assert [(b.debit.name, b.credit.name, b.points_minor, b.money_minor) for b in found[0].bookings] == [
        ("Liabilities:Loyalty:Points", "Income:Loyalty:Redeemed", 5, 5),
        ("Income:Loyalty:Deferred", "Liabilities:Loyalty:Points", 7, 7),
    ]


histories = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(PAIRS), st.integers(0, 2), st.integers(1, 10_000)),
    max_size=60,
    unique_by=lambda each: each[:3],
)
versions = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 1_000_000), st.integers(3, 5)), max_size=4)


@given(histories, versions)
def test_lines_add_up_to_the_liability_at_every_close(
    history: list[tuple[int, tuple[int, int, int], int, int]], recorded: list[tuple[int, int, int]]
) -> None:
    """A version is recorded in each period of two days; whatever it says, debits and credits stay level."""
    months = [date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1)]
    known = [value(n, money, ppm, date(2026, month, 1)) for n, (money, ppm, month) in enumerate(recorded, start=1)]
    sums = sorted(DaySum(day(at), *pair, months[month], points) for at, pair, month, points in history)
    periods = [Period(n + 1, day(2 * n + 1), values(*known[:n])) for n in range(5)]
    lines = list(book(sums, periods, {PHARMACY: "pharmacy"}))
    assert all(line.money_minor >= 0 and line.points_minor >= 0 for line in lines)
    assert [line.day for line in lines] == sorted(line.day for line in lines)
    for count, period in enumerate(periods, start=1):
        taken = [line for line in lines if line.close_number is not None and line.close_number <= count]
        before = [each for each in sums if each.day <= period.last_day]
        assert taken == list(book(before, periods[:count], {PHARMACY: "pharmacy"}))
        assert liability(taken) == expected(before, period.values)


def liability(lines: list[Line]) -> tuple[int, int]:
    """Return points and money of all member accounts together."""
    members = {ACCOUNT_NAMES[account] for account in (AVAILABLE, PENDING, DEBT)}
    signs = [(line.credit in members) - (line.debit in members) for line in lines]
    points = sum(sign * line.points_minor for sign, line in zip(signs, lines, strict=True))
    money = sum(sign * line.money_minor for sign, line in zip(signs, lines, strict=True))
    assert all(sign or line.kind != REVALUATION for sign, line in zip(signs, lines, strict=True))
    return points, money


def expected(sums: list[DaySum], terms: PointValues) -> tuple[int, int]:
    """Return points and money as the roll-forward closes: each movement's sum rounded once."""
    exact: dict[str, Fraction] = {}
    points = 0
    for each in sums:
        moved = movement_of(each.debit, each.credit, each.kind)
        if moved is not None:
            points += moved[1] * each.points_minor
            worth = moved[1] * each.points_minor * terms.allocated(each.issue_month)
            exact[moved[0]] = exact.get(moved[0], Fraction(0)) + worth
    return points, sum(half_up(each) for each in exact.values())
