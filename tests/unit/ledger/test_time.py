"""It makes no difference when, or whether, a sweeper came."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entry.model import Grant
from tests.support.commands import NOON, Line, adjust, checkout, goods_return, hold, member, pass_time, purchase
from tests.support.memory_book import MemoryBook

ANNA = member("Anna")
DAYS = 12
day = st.integers(0, DAYS)


def days(count: int) -> timedelta:
    return timedelta(days=count)


def state_after(
    grants: list[tuple[int, int, int]], held: list[tuple[int, int]], owed: int, sweeps: list[int]
) -> tuple[object, ...]:
    """Anna owes points, has lots that become active and lapse, and holds; time passes with some sweeps."""
    book = MemoryBook()
    for index, (points, active, lapses) in enumerate(grants):
        terms = Grant(points, NOON + days(active) if active else None, NOON + days(lapses))
        book.book(adjust(f"lot {index}", ANNA, terms))
    available = book.account("Anna").available_minor
    for index, (points, until) in enumerate(held):
        if 0 < points <= book.account("Anna").available_minor and until:
            book.book(hold(checkout(index), ANNA, points, ttl_seconds=until * 86_400))
    if owed:
        sold = book.book(purchase(1, ANNA, lines=[Line(earned_minor=owed)], earn=[owed]))
        book.book(purchase(2, ANNA, spend=owed + available))
        book.book(goods_return(3, sold, terms=book.terms))
    for each in sorted(sweeps):
        book.commit([pass_time(ANNA)], NOON + days(each))
    book.commit([pass_time(ANNA)], NOON + days(DAYS + 1))
    account = book.account("Anna")
    lots = [(lot.number, lot.ordinal, lot.remaining_minor, lot.held_minor) for lot in book.lots("Anna")]
    return account.available_minor, account.pending_minor, account.held_minor, account.debt_minor, lots


def test_points_that_became_active_and_lapsed_unseen_have_paid_a_debt() -> None:
    grants = [(50, 1, 5)]
    assert state_after(grants, [], 100, []) == (0, 0, 0, 50, [])


@given(
    grants=st.lists(st.tuples(st.integers(1, 90), day, st.integers(1, DAYS + 5)), max_size=5),
    held=st.lists(st.tuples(st.integers(0, 60), day), max_size=3),
    owed=st.integers(0, 200),
    sweeps=st.lists(day, max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_sweeps_change_nothing(
    grants: list[tuple[int, int, int]], held: list[tuple[int, int]], owed: int, sweeps: list[int]
) -> None:
    assert state_after(grants, held, owed, sweeps) == state_after(grants, held, owed, [])
