"""Journals that count or use what they cannot: each lie is named, one case a line."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from tallypoint.v1 import journal_pb2

from ledger.caches.uses import UsageCaches, UsageError
from ledger.entry import semantics
from ledger.entry.chain import EntryRecord
from ledger.entry.model import CouponSlot, OpenHold, PostingRow
from ledger.verify.across import AcrossBooks
from ledger.verify.entries import ADJUSTMENT, BUDGET, CANCEL, HOLD, MEMBER_CHANGE, PURCHASE, RETURN, TRANSFER
from ledger.verify.report import BadEntry
from ledger.verify.uses import UsageChecks, check_partners, check_usage
from tests.support.commands import NOON, PARTNERS, PHARMACY, member

ANNA = member("Anna")
Event = journal_pb2.Event
HELD, USED = journal_pb2.COUPON_ACTION_HELD, journal_pb2.COUPON_ACTION_USED
RELEASED, REVOKED = journal_pb2.COUPON_ACTION_RELEASED, journal_pb2.COUPON_ACTION_REVOKED
CAKE = CouponSlot("CAKE", 0)


def entry(number: int, *, book: int = 0, kind: int = PURCHASE, who: uuid.UUID | None = ANNA) -> EntryRecord:
    return EntryRecord(book, number, NOON, NOON, kind, who, None, None, bytes(32), b"", bytes(32))


def event(*actions: journal_pb2.CouponAction, slot: CouponSlot = CAKE, body: Event | None = None) -> Event:
    """An entry that does these things to a use of a coupon."""
    made = Event(purchase=journal_pb2.Purchase(member_id=str(ANNA))) if body is None else body
    for action in actions:
        made.coupon_changes.add(code=slot.code, slot=slot.slot, action=action)
    return made


def returned(*actions: journal_pb2.CouponAction, of: int, slot: CouponSlot = CAKE) -> Event:
    """The last goods of a purchase come back."""
    so_far = journal_pb2.ReturnedSoFar(complete=True)
    return event(
        *actions, slot=slot, body=Event(goods_return=journal_pb2.GoodsReturn(purchase_number=of, so_far=so_far))
    )


def giving(*codes: str) -> Event:
    made = event()
    for code in codes:
        made.purchase.issued_coupons.add(code=code, series="s", valid_from="2026-03-14")
    return made


def spring(*, leased: int = 0, used: int = 0) -> Event:
    made = Event(budget_lease=journal_pb2.BudgetLease(key="spring", amount=leased)) if leased else event()
    if used:
        made.budget_uses.add(key="spring", amount=used)
    return made


def hold_of(number: int) -> OpenHold:
    return OpenHold(number, ANNA, 1, bytes(16), "1", "1", 0, NOON, NOON, (), (CAKE,))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        pytest.param([event(USED), event(USED)], "which entry 1 has", id="used twice"),
        pytest.param([event(HELD), event(USED)], "which entry 1 has", id="used while another checkout keeps it"),
        pytest.param([event(USED), event(HELD)], "which entry 1 has", id="kept after it was used"),
        pytest.param([event(RELEASED)], "which it does not have", id="let go by nobody"),
        pytest.param([event(USED), event(RELEASED)], "which it does not have", id="let go after it was used"),
        pytest.param([event(USED), returned(RELEASED, of=7)], "does not have", id="given back by another receipt"),
        pytest.param([event(USED), returned(of=1)], "stays used", id="not given back with the last goods"),
        pytest.param([giving("A"), returned(REVOKED, of=1)], "did not give", id="revoked, and never given"),
        pytest.param(
            [giving("CAKE"), giving("B"), returned(REVOKED, of=2)], "did not give", id="revoked for another receipt"
        ),
        pytest.param(
            [giving("CAKE"), event(USED), returned(REVOKED, of=1)], "which entry 2 has", id="revoked after it was used"
        ),
        pytest.param([giving("A"), giving("A")], "given before", id="given twice"),
        pytest.param([spring(leased=5), spring(used=6)], "6 of 5", id="a budget is overdrawn"),
        pytest.param([spring(leased=5), spring(used=3), spring(used=3)], "6 of 5", id="overdrawn by two"),
    ],
)
def test_what_a_book_cannot_have_booked(events: Sequence[Event], words: str) -> None:
    caches = UsageCaches(0)
    for number, each in enumerate(events[:-1], start=1):
        caches.apply(entry(number), each, [])
    with pytest.raises(UsageError, match=words):
        caches.apply(entry(len(events)), events[-1], [])


def test_a_hold_that_ends_keeps_no_coupon() -> None:
    caches = UsageCaches(0)
    caches.apply(entry(1), event(HELD), [])
    with pytest.raises(UsageError, match="ends hold 1, and coupon CAKE stays kept"):
        caches.apply(entry(2), event(), [hold_of(1)])


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        pytest.param(CANCEL, event(USED), "cannot", id="a cancel uses a coupon"),
        pytest.param(PURCHASE, event(HELD), "cannot", id="a receipt keeps one"),
        pytest.param(HOLD, event(REVOKED), "cannot", id="a hold revokes one"),
        pytest.param(MEMBER_CHANGE, event(RELEASED), "cannot", id="a new name lets one go"),
        pytest.param(PURCHASE, event(USED, slot=CouponSlot("CAKE", -1)), "cannot", id="a use before the first"),
        pytest.param(
            ADJUSTMENT,
            Event(counter_changes=[journal_pb2.CounterChange(key="visit/ever", times=1)]),
            "counts",
            id="a correction counts",
        ),
        pytest.param(
            PURCHASE,
            Event(
                purchase=journal_pb2.Purchase(), counter_changes=[journal_pb2.CounterChange(key="visit/ever", times=1)]
            ),
            "counts for a member",
            id="a stranger's receipt counts",
        ),
        pytest.param(RETURN, spring(used=1), "gives nothing back", id="a return uses a budget"),
        pytest.param(PURCHASE, spring(used=-1), "or less", id="a receipt fills a budget"),
        pytest.param(
            BUDGET,
            Event(budget_lease=journal_pb2.BudgetLease(key="spring", amount=5, leased=11, budget=10)),
            "which makes 11 of 10",
            id="more is given than there is",
        ),
        pytest.param(
            BUDGET,
            Event(budget_lease=journal_pb2.BudgetLease(key="spring", leased=5, budget=10)),
            "gives 0",
            id="nothing is given",
        ),
    ],
)
def test_what_an_entry_of_a_kind_cannot_say(kind: int, said: Event, words: str) -> None:
    with pytest.raises(BadEntry, match=words):
        check_usage(said, kind)


def counting(*changes: tuple[str, int, int, int], complete: bool = False, refund: int = 0) -> Event:
    """A receipt, or a return of some money and 5 points, that counts."""
    made = event()
    if refund:
        made = Event(
            goods_return=journal_pb2.GoodsReturn(
                refund_money_minor=refund,
                so_far=journal_pb2.ReturnedSoFar(complete=complete),
                lines=[journal_pb2.LineReturn(clawback_points_minor=5)],
            )
        )
    for key, times, money, points in changes:
        made.counter_changes.add(key=key, times=times, money_minor=money, points_minor=points)
    return made


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(counting(("visit/ever", 0, -200, -5), refund=300), id="other money"),
        pytest.param(counting(("visit/ever", 0, -300, 0), refund=300), id="other points"),
        pytest.param(counting(("visit/ever", -1, -300, -5), refund=300), id="the visit, with a part of the goods"),
        pytest.param(counting(("visit/ever", 0, -300, -5), refund=300, complete=True), id="not the visit, with all"),
        pytest.param(counting(("use/cake/ever", 0, -300, -5), refund=300), id="a use"),
        pytest.param(counting(("visit/day", 0, -300, -5), refund=300), id="another counter"),
    ],
)
def test_a_return_takes_back_what_the_receipt_counted(said: Event) -> None:
    bought = counting(("visit/ever", 1, 900, 9), ("use/cake/ever", 1, 50, 0))
    checks = UsageChecks()
    checks.check(counting(("visit/ever", 0, -300, -5), refund=300), bought, NOON)
    UsageChecks().check(counting(("visit/ever", -1, -300, -5), refund=300, complete=True), bought, NOON)
    with pytest.raises(BadEntry, match="did not put there"):
        checks.check(said, bought, NOON)


def newer(*changes: tuple[str, int, int, int], complete: bool = False, budget: int = 0) -> Event:
    """A return of 300 of money by today's semantics, by which uses come back."""
    made = counting(("visit/ever", -int(complete), -300, -5), *changes, refund=300, complete=complete)
    made.semantics = made.goods_return.so_far.semantics = semantics.CURRENT
    if budget:
        made.budget_uses.add(key="spring", amount=-budget)
    return made


CAKES, SPRING = ("use/cake/ever", -2, -50, 0), 30


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param([newer(("use/cake/ever", -3, 0, 0))], "did not put there", id="more uses than there were"),
        pytest.param([newer(("use/cake/ever", 0, -51, 0))], "did not put there", id="more of their money"),
        pytest.param([newer(("use/cake/ever", 1, 0, 0))], "did not put there", id="a use more"),
        pytest.param([newer(("use/tea/ever", -1, 0, 0))], "did not put there", id="a use of something else"),
        pytest.param([newer(("club/green", -1, 0, 0))], "did not put there", id="a club that it did not give"),
        pytest.param([newer(CAKES), newer(CAKES)], "did not put there", id="the same uses twice"),
        pytest.param([newer(budget=SPRING + 1)], "gives back more of budget", id="more of a budget than was used"),
        pytest.param([newer(budget=20), newer(budget=20)], "gives back more of budget", id="a budget's use twice"),
        pytest.param([newer(complete=True, budget=SPRING)], "stays in counter use/cake/ever", id="uses stay"),
        pytest.param([newer(CAKES, complete=True)], "30 of budget spring stay used", id="a budget stays used"),
    ],
)
def test_a_return_takes_back_what_the_receipt_used(said: list[Event], words: str) -> None:
    bought = counting(("visit/ever", 1, 900, 9), ("use/cake/ever", 2, 50, 0))
    bought.budget_uses.add(key="spring", amount=SPRING)
    sound = UsageChecks()
    sound.check(newer(("use/cake/ever", -1, -20, 0), budget=10), bought, NOON)
    sound.check(newer(("use/cake/ever", -1, -30, 0), budget=20, complete=True), bought, NOON)
    checks = UsageChecks()
    with pytest.raises(BadEntry, match=words):  # noqa: PT012 - the last of them
        for one in said:
            checks.check(one, bought, NOON)


@pytest.mark.parametrize(
    ("times", "until"), [pytest.param(1, "", id="one more"), pytest.param(0, "2027-01-01", id="a later day")]
)
def test_a_return_raises_no_membership(times: int, until: str) -> None:
    caches = UsageCaches(0)
    bought = event()
    bought.counter_changes.add(key="club/green", times=1, until="2026-12-31")
    caches.apply(entry(1), bought, ())
    back = returned(of=1)
    back.counter_changes.add(key="club/green", times=times, until=until)
    with pytest.raises(UsageError, match="raises club/green"):
        caches.apply(entry(2, kind=RETURN), back, ())


# --- over all books -----------------------------------------------------------------------------------------------


def problems(*entries: tuple[int, int, Event]) -> list[tuple[int, int]]:
    """What all books show of entries, given as book, kind and event: the book and number of each problem."""
    across = AcrossBooks(from_start=True)
    for book in (0, 1):
        across.begin(book)
    for number, (book, kind, said) in enumerate(entries, start=1):
        across.take(entry(number, book=book, kind=kind), said, [])
    return [(problem.book, problem.number) for problem in across.problems()]


def lease(amount: int, leased: int) -> Event:
    return Event(budget_lease=journal_pb2.BudgetLease(key="spring", amount=amount, leased=leased, budget=100))


def moved(*, outgoing: bool, times: int) -> Event:
    """A side of a transfer of no points."""
    sides = [str(ANNA), str(member("Bo"))]
    here, there = sides if outgoing else sides[::-1]
    return Event(
        transfer=journal_pb2.Transfer(member_id=here, other_member_id=there, transfer_id="t", outgoing=outgoing),
        counter_changes=[journal_pb2.CounterChange(key="visit/ever", times=times)] if times else [],
    )


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        pytest.param([(0, BUDGET, lease(5, 5)), (1, BUDGET, lease(7, 12))], [], id="parts on top of each other"),
        pytest.param([(1, BUDGET, lease(7, 12)), (0, BUDGET, lease(5, 5))], [], id="whichever book is read first"),
        pytest.param([(0, BUDGET, lease(5, 5)), (1, BUDGET, lease(7, 7))], [(1, 2)], id="the same part given twice"),
        pytest.param([(0, BUDGET, lease(5, 9))], [(0, 1)], id="a part that is missing"),
        pytest.param([(0, PURCHASE, event(USED)), (1, PURCHASE, event(USED))], [(0, 1), (1, 2)], id="used in 2 books"),
        pytest.param(
            [(0, HOLD, event(HELD)), (0, CANCEL, event(RELEASED)), (1, PURCHASE, event(USED))], [], id="let go before"
        ),
        pytest.param(
            [(0, TRANSFER, moved(outgoing=True, times=-3)), (1, TRANSFER, moved(outgoing=False, times=3))],
            [],
            id="counters moved",
        ),
        pytest.param(
            [(0, TRANSFER, moved(outgoing=True, times=-3)), (1, TRANSFER, moved(outgoing=False, times=4))],
            [(0, 1), (1, 2)],
            id="more arrived than left",
        ),
        pytest.param([(0, TRANSFER, moved(outgoing=True, times=-3))], [(0, 1)], id="counters that never arrived"),
        pytest.param([(0, TRANSFER, moved(outgoing=True, times=0))], [], id="nothing moved"),
    ],
)
def test_what_only_all_books_show(entries: Sequence[tuple[int, int, Event]], found: list[tuple[int, int]]) -> None:
    assert problems(*entries) == found


@pytest.mark.parametrize(
    ("named", "store_of", "debit", "credit", "fits"),
    [
        pytest.param("pharmacy", "", PHARMACY, 1, True, id="granted by the partner named"),
        pytest.param("", "", PHARMACY, 1, False, id="granted by a partner that is not named"),
        pytest.param("cinema", "", PHARMACY, 1, False, id="granted by another partner"),
        pytest.param("", "pharmacy", 1, PHARMACY, True, id="paid in the partner's store"),
        pytest.param("pharmacy", "", 1, PHARMACY, False, id="paid in a store of the chain's own"),
    ],
)
def test_a_partner_s_account_is_that_of_the_partner_named(
    named: str, store_of: str, debit: int, credit: int, fits: bool
) -> None:
    said = event()
    said.purchase.partner = store_of
    said.purchase.effects.add().accruals.add(partner=named)
    posted = [PostingRow(1, 1, 1, debit, credit, 5, 1, 1, ANNA, None, None, None)]
    if fits:
        check_partners(said, PURCHASE, posted, PARTNERS)
        return
    with pytest.raises(BadEntry, match="not those of the partners"):
        check_partners(said, PURCHASE, posted, PARTNERS)
