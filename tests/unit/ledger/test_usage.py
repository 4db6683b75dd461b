"""Counters, coupons and shared budgets in one book, one case a line in the words of the till.

`MemoryBook` holds what is decided against what the journal adds up to, and each entry against the checks of `verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.counters import apply_changes, parse_counters, serialise_counters
from ledger.entry.model import (
    Booked,
    BudgetSlice,
    Command,
    Counter,
    CounterChange,
    Declined,
    FoundUnderFence,
    NewCoupon,
    Purchase,
)
from ledger.entry.usage import BudgetExceeded
from tests.support.commands import (
    NOON,
    Line,
    adjust,
    cancel,
    checkout,
    goods_return,
    hold,
    keeping,
    lease_budget,
    member,
    pass_time,
    planned,
    promoted,
    purchase,
    transfer_in,
    transfer_out,
)
from tests.support.memory_book import MemoryBook

ANNA, BO = member("Anna"), member("Bo")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY = NOON.date()
COUPON_USED = int(common_pb2.REFUSAL_REASON_COUPON_USED)
HELD_ELSEWHERE = int(common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE)
HELD, USED = journal_pb2.COUPON_ACTION_HELD, journal_pb2.COUPON_ACTION_USED
RELEASED, REVOKED = journal_pb2.COUPON_ACTION_RELEASED, journal_pb2.COUPON_ACTION_REVOKED
ONCE = {"CAKE": 1}


@pytest.fixture
def book() -> MemoryBook:
    return MemoryBook()


def changes(booked: Booked) -> list[tuple[str, int, int]]:
    """What an entry did to coupons."""
    event = journal_pb2.Event.FromString(booked.event)
    return [(each.code, each.slot, each.action) for each in event.coupon_changes]


def uses(book: MemoryBook) -> dict[tuple[str, int], tuple[int, bool]]:
    """Who has uses of coupons: the entry, and whether it is a hold."""
    found = book.caches.usage.coupons.items()
    return {(slot.code, slot.slot): (use.number, use.held) for slot, use in found}


# --- counters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        pytest.param({}, CounterChange("visit/ever", 1, 500, 5), {"visit/ever": Counter(1, 500, 5)}, id="a new one"),
        pytest.param(
            {"visit/ever": Counter(1, 500, 5)},
            CounterChange("visit/ever", 1, 250),
            {"visit/ever": Counter(2, 750, 5)},
            id="added up",
        ),
        pytest.param(
            {"club/gold": Counter(1, until=TODAY)},
            CounterChange("club/gold", 1, until=TODAY + DAY),
            {"club/gold": Counter(2, until=TODAY + DAY)},
            id="a membership is prolonged",
        ),
        pytest.param(
            {"club/gold": Counter(1, until=TODAY)},
            CounterChange("club/gold", 1),
            {"club/gold": Counter(2, until=TODAY)},
            id="no day leaves the day",
        ),
        pytest.param({"a": Counter(1)}, CounterChange("a", -1), {}, id="nothing left"),
        pytest.param({"a": Counter(1, 5)}, CounterChange("a", -1), {"a": Counter(0, 5)}, id="something left"),
        pytest.param(
            {"a": Counter(1, until=TODAY - DAY), "b": Counter(1, until=TODAY - 2 * DAY)},
            CounterChange("c", 1),
            {"a": Counter(1, until=TODAY - DAY), "c": Counter(1)},
            id="dropped two days after its last",
        ),
    ],
)
def test_counters_add_up(before: Mapping[str, Counter], change: CounterChange, after: Mapping[str, Counter]) -> None:
    assert apply_changes(before, [change], NOON) == after


def test_the_day_of_an_entry_is_in_utc() -> None:
    """An entry of the 14th in Kyiv that is booked on the 13th in UTC keeps counters of the 12th."""
    kept = {"a": Counter(1, until=date(2026, 3, 12)), "b": Counter(1)}
    assert apply_changes(kept, [CounterChange("b", 1)], datetime(2026, 3, 13, 23, tzinfo=UTC)).keys() == {"a", "b"}
    assert apply_changes(kept, [CounterChange("b", 1)], datetime(2026, 3, 14, tzinfo=UTC)).keys() == {"b"}


counters = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.builds(Counter, *[st.integers(-(2**60), 2**60)] * 3, st.none() | st.dates()),
)


@given(counters)
def test_counters_are_kept_as_they_are(some: dict[str, Counter]) -> None:
    row = serialise_counters(some)
    assert parse_counters(row) == some
    assert row == serialise_counters(dict(reversed(some.items())))


def test_a_plan_sees_what_earlier_receipts_of_the_batch_counted(book: MemoryBook) -> None:
    """The third receipt of the month gets something, whichever batch it comes in."""
    seen: list[int] = []

    def visit(bought: Purchase) -> Purchase:
        def plan(found: FoundUnderFence) -> Purchase:
            times = found.counters.get("visit/month", Counter()).times
            seen.append(times)
            return replace(promoted(bought, counts=[CounterChange("visit/month", 1, 1000)]), grants=())

        return planned(bought, plan)

    book.commit([visit(purchase(n, ANNA)) for n in (1, 2)] + [visit(purchase(3, BO))])
    book.book(visit(purchase(4, ANNA)))
    assert seen == [0, 1, 0, 2]
    assert book.caches.usage.counters[ANNA] == {"visit/month": Counter(3, 3000)}


def test_a_resent_receipt_counts_once(book: MemoryBook) -> None:
    bought = promoted(purchase(1, ANNA), counts=[CounterChange("visit/ever", 1, 1000)], coupons=ONCE)
    first = book.book(bought)
    book.commit([bought, bought])
    assert book.head.number == first.number
    assert book.caches.usage.counters[ANNA] == {"visit/ever": Counter(1, 1000)}


def test_counters_of_a_receipt_without_a_member_are_never_asked(book: MemoryBook) -> None:
    plans: list[FoundUnderFence] = []

    def plan(found: FoundUnderFence) -> Purchase:
        plans.append(found)
        return promoted(purchase(1, None), coupons=ONCE)

    book.book(planned(purchase(1, None), plan, coupons=ONCE, budgets=["spring/money"]))
    assert plans == [FoundUnderFence({}, {"spring/money": 0}, {"CAKE": 0})]
    assert uses(book) == {("CAKE", 0): (1, False)}


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        pytest.param([[(1, 1000)]], Counter(1, 2000, 20), id="one of three units"),
        pytest.param([[(1, 1000)], [(1, 1000)]], Counter(1, 1000, 10), id="two of three units"),
        pytest.param([[]], None, id="all at once"),
        pytest.param([[(1, 1000)], [(1, 2000)]], None, id="all, in parts"),
    ],
)
def test_a_return_takes_the_visit_back(
    book: MemoryBook, parts: list[list[tuple[int, int]]], left: Counter | None
) -> None:
    """30.00 for three units earned 0.30 in points.

    The receipt does not say which goods its uses and entries into draws rest on, so they go with the last.
    """
    until = TODAY + 400 * DAY
    counts = [
        CounterChange("visit/ever", 1, 3000, 30),
        CounterChange("visit/month/2026-03-01", 1, 3000, 30, until),
        CounterChange("visit/day/2026-03-12", 1, 3000, 30, TODAY - 2 * DAY),
        CounterChange("use/cake/ever", 1, 500),
        CounterChange("draw/car", 3),
    ]
    bought = book.book(promoted(purchase(1, ANNA, earn=[30], lines=[Line(3000, 3000, 30)]), counts=counts))
    for number, part in enumerate(parts, start=2):
        book.book(goods_return(number, bought, part, terms=book.terms))
    expected = {} if left is None else {"use/cake/ever": Counter(1, 500), "draw/car": Counter(3)}
    if left is not None:
        expected |= {"visit/ever": left, "visit/month/2026-03-01": left._replace(until=until)}
    assert book.caches.usage.counters[ANNA] == expected


def test_what_is_counted_goes_along_when_members_are_merged(book: MemoryBook) -> None:
    long, short = TODAY + 90 * DAY, TODAY + 30 * DAY
    book.book(
        promoted(
            purchase(1, ANNA),
            counts=[
                CounterChange("visit/ever", 2, 500, 5),
                CounterChange("club/gold", 1, until=short),
                CounterChange("club/wine", 1, until=long),
                CounterChange("draw/car", 4),
            ],
        )
    )
    book.book(
        promoted(
            purchase(2, BO),
            counts=[
                CounterChange("visit/ever", 1, 100),
                CounterChange("club/gold", 1, until=long),
                CounterChange("club/wine", 1, until=short),
            ],
        )
    )
    left = journal_pb2.Event.FromString(book.book(transfer_out("t", ANNA, BO, None, counters=True)).event)
    counts = [
        CounterChange(
            each.key,
            -each.times,
            -each.money_minor,
            -each.points_minor,
            date.fromisoformat(each.until) if each.until else None,
        )
        for each in left.counter_changes
    ]
    book.book(transfer_in("t", ANNA, BO, [], counts=counts))
    assert book.caches.usage.counters == {
        ANNA: {},
        BO: {
            "visit/ever": Counter(3, 600, 5),
            "club/gold": Counter(2, until=long),
            "club/wine": Counter(2, until=long),
            "draw/car": Counter(4),
        },
    }


# --- coupons ------------------------------------------------------------------------------------------------------


def lane(number: int, *, who: str = "Anna", coupons: Mapping[str, int] = ONCE, takeover: str = "") -> Command:
    """A hold of a coupon and no points at a lane."""
    key = checkout(f"bag of {who}", str(number))
    held = hold(key, member(who), 0, takeover=takeover, message=f"{who} {number} {sorted(coupons)} {takeover}")
    return keeping(held, coupons)


def buys(number: int, *, who: str = "Anna", at: int | None = None, coupons: Mapping[str, int] = ONCE) -> Purchase:
    """A receipt that uses a coupon, perhaps at a lane that holds it."""
    key = None if at is None else checkout(f"bag of {who}", str(at))
    return promoted(purchase(number, member(who), captures=key), coupons=coupons)


def plain(number: int, *, at: int) -> Purchase:
    """Anna's receipt at a lane, that uses no coupon."""
    return purchase(number, ANNA, captures=checkout("bag of Anna", str(at)))


CANCEL = cancel(checkout("bag of Anna", "1"), ANNA)


@pytest.mark.parametrize(
    ("ending", "later", "what"),
    [
        pytest.param(buys(1, at=1), 0, [USED], id="captured and used"),
        pytest.param(plain(1, at=1), 0, [RELEASED], id="captured and not used"),
        pytest.param(CANCEL, 0, [RELEASED], id="cancelled"),
        pytest.param(lane(1, coupons={}), 0, [RELEASED], id="replaced by a hold without it"),
        pytest.param(lane(1, takeover="broken"), 0, [RELEASED, HELD], id="replaced by a hold with it"),
        pytest.param(lane(2, takeover="broken"), 0, [RELEASED, HELD], id="taken over"),
        pytest.param(pass_time(ANNA), 1, [RELEASED], id="expired, found by the sweeper"),
        pytest.param(buys(1), 1, [USED], id="expired, and used by a receipt of another checkout"),
        pytest.param(lane(2), 1, [RELEASED, HELD], id="expired, and kept by another checkout"),
        pytest.param(transfer_out("t", ANNA, BO, None), 0, [RELEASED], id="merged"),
        pytest.param(adjust("kind", ANNA, 5), 1, [RELEASED], id="expired, found by a correction"),
    ],
)
@pytest.mark.parametrize("apart", [pytest.param(True, id="apart"), pytest.param(False, id="in one batch")])
def test_a_hold_ends_and_its_coupon_is_used_or_comes_free(
    book: MemoryBook, ending: Command, later: int, what: list[int], apart: bool
) -> None:
    if apart or later:
        book.book(lane(1))
        booked = book.book(ending, NOON + later * HOUR)
    else:
        _, booked = book.commit([lane(1), ending]).verdicts  # type: ignore[assignment]  # it is booked, see below
    assert isinstance(booked, Booked)
    assert changes(booked) == [("CAKE", 0, action) for action in what]
    left = {USED: {("CAKE", 0): (2, False)}, HELD: {("CAKE", 0): (2, True)}, RELEASED: {}}
    assert uses(book) == left[what[-1]]  # type: ignore[index]  # an action is one of these


@pytest.mark.parametrize(
    ("first", "second", "reason", "words"),
    [
        pytest.param(buys(1), lane(1), COUPON_USED, "coupon CAKE was used", id="used before"),
        pytest.param(buys(1, who="Bo"), lane(1), COUPON_USED, "coupon CAKE was used", id="used by another member"),
        pytest.param(lane(1, who="Bo"), lane(1), HELD_ELSEWHERE, "kept for another checkout", id="another member's"),
        pytest.param(lane(1), lane(2), HELD_ELSEWHERE, "kept for another checkout", id="one's own other lane"),
        pytest.param(
            lane(1, coupons={"CAKE": 1, "TEA": 1}), lane(2, coupons={"BUN": 1, "TEA": 1}), HELD_ELSEWHERE, "TEA", id="2"
        ),
    ],
)
@pytest.mark.parametrize("apart", [pytest.param(True, id="apart"), pytest.param(False, id="in one batch")])
def test_a_hold_without_a_use_left_is_refused(
    book: MemoryBook, first: Command, second: Command, reason: int, words: str, apart: bool
) -> None:
    if apart:
        book.book(first)
        refused = book.refuse(second)
    else:
        _, verdict = book.commit([first, second]).verdicts
        assert isinstance(verdict, Declined)
        refused = verdict
    assert refused.reason == reason
    assert words in refused.message
    assert book.head.number == 1


def test_another_member_s_hold_whose_time_is_over_keeps_its_coupon_until_its_end_is_booked(book: MemoryBook) -> None:
    book.book(lane(1, who="Bo"))
    assert book.refuse(lane(1), NOON + HOUR).reason == HELD_ELSEWHERE
    book.book(pass_time(BO))
    book.book(lane(1))


def test_of_two_receipts_in_a_batch_the_first_gets_the_coupon(book: MemoryBook) -> None:
    seen: list[int] = []

    def with_coupon(bought: Purchase) -> Purchase:
        def plan(found: FoundUnderFence) -> Purchase:
            seen.append(found.coupons["CAKE"])
            return bought if found.coupons["CAKE"] else replace(bought, coupons=("CAKE",))

        bought = replace(bought, claims=buys(0).claims)
        return planned(bought, plan, coupons=ONCE)

    book.commit([with_coupon(purchase(1, ANNA)), with_coupon(purchase(2, BO)), lane(1, who="Bo")])
    assert seen == [0, COUPON_USED]
    assert uses(book) == {("CAKE", 0): (1, False)}


def test_a_plan_is_told_of_its_own_hold_and_of_those_that_end(book: MemoryBook) -> None:
    """Its checkout's coupon counts as free, one's other lane's does not, unless its time is over."""
    told: list[Mapping[str, int]] = []

    def asking(number: int) -> Purchase:
        bought = plain(number, at=1)

        def plan(found: FoundUnderFence) -> Purchase:
            told.append(found.coupons)
            return bought

        return planned(bought, plan, coupons={"CAKE": 1, "TEA": 1})

    book.book(lane(1))
    book.book(lane(2, coupons={"TEA": 1}))
    book.book(asking(1))
    book.book(asking(2), NOON + HOUR)
    assert told == [{"CAKE": 0, "TEA": HELD_ELSEWHERE}, {"CAKE": 0, "TEA": 0}]


def test_a_coupon_with_three_uses_is_used_three_times(book: MemoryBook) -> None:
    thrice = {"TEA": 3}
    book.commit([buys(1, coupons=thrice), lane(1, coupons=thrice), buys(2, who="Bo", coupons=thrice)])
    assert {number for _, number in uses(book)} == {0, 1, 2}
    assert book.refuse(lane(2, coupons=thrice)).reason == HELD_ELSEWHERE
    book.book(buys(3, at=1, coupons=thrice))
    assert book.refuse(lane(2, coupons=thrice)).reason == COUPON_USED


def test_fewer_uses_than_were_used_already_are_none(book: MemoryBook) -> None:
    book.commit([buys(n, coupons={"TEA": 3}) for n in (1, 2)])
    assert book.refuse(lane(1, coupons={"TEA": 0})).reason == COUPON_USED


@pytest.mark.parametrize(
    ("parts", "free"),
    [
        pytest.param([[]], True, id="all at once"),
        pytest.param([[(1, 1000)]], False, id="a part"),
        pytest.param([[(1, 1000)], [(1, 1000)]], True, id="all, in parts"),
    ],
)
def test_a_coupon_comes_back_with_the_last_goods(
    book: MemoryBook, parts: list[list[tuple[int, int]]], free: bool
) -> None:
    bought = book.book(promoted(purchase(1, ANNA, lines=[Line(2000, 2000)]), coupons=ONCE))
    returned = [book.book(goods_return(n, bought, part, terms=book.terms)) for n, part in enumerate(parts, start=2)]
    assert changes(returned[-1]) == ([("CAKE", 0, RELEASED)] if free else [])
    if free:
        book.book(buys(9, who="Bo"))
    else:
        assert book.refuse(lane(1)).reason == COUPON_USED


THANKS = NewCoupon("THANKS-1", "thanks", TODAY, TODAY + 14 * DAY)
GIVEN = {"THANKS-1": 1}


def test_a_receipt_gives_coupons_for_later_ones(book: MemoryBook) -> None:
    forever = NewCoupon("THANKS-2", "thanks", TODAY, None)
    book.book(promoted(purchase(1, ANNA), issued=[THANKS, forever]))
    assert book.caches.usage.issued == {
        "THANKS-1": (1, ANNA, "thanks", TODAY, TODAY + 14 * DAY),
        "THANKS-2": (1, ANNA, "thanks", TODAY, None),
    }


@pytest.mark.parametrize(
    ("meanwhile", "revoked"),
    [
        pytest.param([], True, id="not used"),
        pytest.param([buys(2, coupons=GIVEN)], False, id="used"),
        pytest.param([lane(1, coupons=GIVEN)], False, id="at a lane that holds it"),
        pytest.param([lane(1, coupons=GIVEN), CANCEL], True, id="held and let go"),
    ],
)
def test_a_coupon_is_revoked_when_the_goods_come_back_that_gave_it(
    book: MemoryBook, meanwhile: list[Command], revoked: bool
) -> None:
    bought = book.book(promoted(purchase(1, ANNA), issued=[THANKS]))
    for command in meanwhile:
        book.book(command)
    returned = book.book(goods_return(9, bought, terms=book.terms))
    assert changes(returned) == [("THANKS-1", 0 if revoked else 1, REVOKED)]
    if revoked:
        assert book.refuse(lane(2, coupons=GIVEN)).reason == COUPON_USED


def test_a_coupon_that_a_lane_lets_go_after_its_goods_came_back_counts_nowhere(book: MemoryBook) -> None:
    bought = book.book(promoted(purchase(1, ANNA), issued=[THANKS]))
    book.book(lane(1, coupons=GIVEN))
    book.book(goods_return(9, bought, terms=book.terms))
    book.book(CANCEL)
    assert book.refuse(lane(2, coupons=GIVEN)).reason == COUPON_USED


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_budget_is_used_as_far_as_the_book_was_given_of_it(book: MemoryBook) -> None:
    left: list[int] = []

    def spending(bought: Purchase) -> Purchase:
        def plan(found: FoundUnderFence) -> Purchase:
            left.append(found.budgets["spring/money"])
            return promoted(bought, budgets={"spring/money": min(40, left[-1])})

        return planned(bought, plan, budgets=["spring/money"])

    lease = lease_budget("spring/money", 70, leased=70, budget=100)
    book.commit([spending(purchase(1, ANNA)), lease, spending(purchase(2, ANNA)), spending(purchase(3, None))])
    book.book(spending(purchase(4, BO)))
    book.book(lease_budget("spring/money", 30, leased=100, budget=100))
    book.book(spending(purchase(5, BO)))
    assert left == [0, 70, 30, 0, 30]
    assert book.caches.usage.slices == {"spring/money": BudgetSlice(100, 100)}


def test_a_plan_that_uses_more_than_it_was_told_is_a_mistake(book: MemoryBook) -> None:
    book.book(lease_budget("spring/money", 10, leased=10, budget=10))
    with pytest.raises(BudgetExceeded, match="11 of budget 'spring/money'"):
        book.book(promoted(purchase(1, ANNA), budgets={"spring/money": 11}))
    assert book.head.number == 1


def test_a_plan_cannot_make_another_receipt(book: MemoryBook) -> None:
    with pytest.raises(AssertionError, match="whose receipt it is"):
        book.book(planned(purchase(1, ANNA), lambda _: purchase(1, BO)))
