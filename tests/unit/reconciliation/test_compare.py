"""Which breaks a terminal's day has: one table of cases, and single faults planted into random days."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.reconciliation.compare import MAX_BREAKS_OF_A_KIND
from server.reconciliation.model import (
    Amounts,
    BreakKind,
    LedgerReceipt,
    ReceiptKind,
    RegisterReceipt,
    Rules,
    ZReport,
)
from server.reconciliation.receipt_numbers import Run
from tests.unit.reconciliation.builders import (
    PLACE,
    TOMORROW,
    breaks,
    register,
    report,
    return_,
    sale,
    sales,
    told,
)

NOT_CONSECUTIVE = Rules(numbers_consecutive=False)
DAY = sales(1, 5)
LATE = sale(3, 1003)._replace(booked_at=sale(3).event_at + timedelta(hours=30))
AFTER_CLOSE = sale(3, 1003)._replace(after_close=True)
RESENT = sale(3, 1003)._replace(place=TOMORROW, booked_at=sale(3).event_at + timedelta(hours=12))
"""Receipt 3 of today, sent again under tomorrow's date."""


@pytest.mark.parametrize(
    ("ledger", "z_report", "found"),
    [
        pytest.param(DAY, report(DAY), [], id="the same on both sides"),
        pytest.param([], ZReport(0, None), [], id="a closed lane"),
        pytest.param([], None, [], id="nobody knows anything"),
        pytest.param([*DAY, return_(6)], report([*DAY, return_(6)]), [], id="with a return"),
        pytest.param(
            sales(1, 5, without=[3]),
            report(DAY),
            [
                ("missing 1: 3, receipts 5/4, gross 5570/4456, discounts 555/444, turnover 5015/4012, money 5015/4012, "
                "points_earned 50/40")
            ],
            id="one is missing, the hole names it",
        ),
        pytest.param(
            [], ZReport(2, Run(7, 8), Amounts(turnover_minor=90)), ["missing 2: 7-8, receipts 2/0, turnover 90/0"],
            id="the ledger is empty",
        ),
        pytest.param(
            sales(2, 4), report(DAY)._replace(amounts=Amounts()), ["missing 2: 1 5, receipts 5/3"],
            id="first and last are missing",
        ),
        pytest.param(
            sales(1, 5, without=[2, 4]), report(sales(1, 5, without=[2]))._replace(amounts=Amounts()),
            ["missing 1: , receipts 4/3", "gap 1: 2", "gap 1: 4"],
            id="one is missing, two holes: either",
        ),
        pytest.param(
            sales(1, 5, without=[2, 4]), report(sales(1, 5, without=[2]))._replace(amounts=Amounts(), voids=1),
            ["missing 1: , receipts 4/3"],
            id="one is missing, one is void, two holes: counted, not named",
        ),
        pytest.param(
            sales(1, 5, without=[3]), report(sales(1, 5, without=[3])), ["gap 1: 3"], id="a number that nobody used"
        ),
        pytest.param(
            sales(1, 9, without=[3, 4, 7]), report(sales(1, 9, without=[3, 4, 7])), ["gap 2: 3-4", "gap 1: 7"],
            id="gaps are ranges",
        ),
        pytest.param(
            sales(1, 5, without=[3]), report(sales(1, 5, without=[3]), voids="3"), [], id="a void that is named"
        ),
        pytest.param(
            sales(1, 5, without=[3]), report(sales(1, 5, without=[3]))._replace(voids=1), [], id="a void by count"
        ),
        pytest.param(
            DAY, report(sales(1, 5, without=[3]), voids="3"),
            [("extra 1: 3, receipts 0/1, gross 0/1114, discounts 0/111, turnover 0/1003, money 0/1003, "
             "points_earned 0/10")],
            id="a void that was booked",
        ),
        pytest.param(
            DAY, report(sales(1, 4))._replace(amounts=Amounts(turnover_minor=4010)),
            ["extra 1: 5, receipts 0/1, turnover 0/1005"],
            id="one beyond the last number",
        ),
        pytest.param(
            DAY, ZReport(4, Run(1, 5), Amounts(turnover_minor=4000)),
            ["extra 1: , receipts 4/5, turnover 4000/5015"],
            id="one more than counted",
        ),
        pytest.param(
            [*DAY, sale(9, 50)], ZReport(4, Run(1, 5), Amounts(turnover_minor=4000)),
            ["extra 2: 9, receipts 4/6, turnover 4000/5065"],
            id="one more than counted, and one beyond the last number",
        ),
        pytest.param(
            DAY, report(DAY)._replace(amounts=Amounts(turnover_minor=5000, points_earned_minor=50)),
            ["different 5: , turnover 5000/5015"],
            id="another turnover",
        ),
        pytest.param(
            DAY, report(DAY)._replace(amounts=Amounts(gross_minor=5570, discounts_minor=0, money_minor=1)),
            ["different 5: , discounts 0/555, money 1/5015"],
            id="what the register gives is compared: gross, discounts, money",
        ),
        pytest.param(DAY, ZReport(5, Run(1, 5)), [], id="a register that only counts"),
        pytest.param(
            [sale(1), sale(2)], ZReport(0, None),
            ["extra 2: 1-2, receipts 0/2, turnover 0/2000, points_earned 0/20"],
            id="a lane that says it was closed",
        ),
        pytest.param(
            [*DAY, return_(6)], report(DAY, "1-6", returns=False), [], id="a register that does not count returns"
        ),
        pytest.param(
            DAY, report([*DAY, return_(6)]),
            ["missing 1: 6, returns 1/0, returns_turnover 500/0, returns_money 500/0"],
            id="a return is missing",
        ),
        pytest.param(
            [*sales(1, 4), return_(5)], ZReport(5, Run(1, 5), returns=0),
            ["missing 1: , receipts 5/4", "extra 1: , returns 0/1"],
            id="a sale booked as a return",
        ),
        pytest.param(
            [*DAY, return_(3)], report([*DAY, return_(3)], "1-5"), [], id="an exchange: a sale and a return, one number"
        ),
        pytest.param(
            [*DAY[:2], return_(3), *DAY[3:]], report([*DAY, return_(3)], "1-5"),
            [("missing 1: , receipts 5/4, gross 5570/4456, discounts 555/444, turnover 5015/4012, money 5015/4012, "
             "points_earned 50/40")],
            id="the sold half of an exchange is missing",
        ),
        pytest.param(
            DAY, None, ["no_report 5: 1-5, receipts 0/5, turnover 0/5015, points_earned 0/50"], id="no Z report"
        ),
        pytest.param(
            sales(1, 3, without=[2]), None,
            ["no_report 2: 1 3, receipts 0/2, turnover 0/2004, points_earned 0/20", "gap 1: 2"],
            id="no Z report, and a gap",
        ),
        pytest.param(
            [LATE], report([LATE]), ["late 1: 3, receipts 1/1, turnover 1003/1003, points_earned 10/10"],
            id="booked a day later",
        ),
        pytest.param(
            [AFTER_CLOSE], report([AFTER_CLOSE]),
            ["late 1: 3, receipts 1/1, turnover 1003/1003, points_earned 10/10"],
            id="booked after the close",
        ),
        pytest.param(
            [LATE, sale(4), sale(6)], ZReport(2, Run(3, 5), Amounts(turnover_minor=2003)),
            [
                "gap 1: 5",
                "extra 1: 6, receipts 0/1, turnover 0/1000",
                "late 1: 3, receipts 1/1, turnover 1003/1003, points_earned 10/10",
            ],
            id="three faults at once",
        ),
    ],
)  # fmt: skip
def test_totals_against_the_ledger(ledger: list[LedgerReceipt], z_report: ZReport | None, found: list[str]) -> None:
    assert told(breaks(ledger, z_report)) == found


@pytest.mark.parametrize(
    ("ledger", "z_report", "found"),
    [
        pytest.param(sales(1, 9, without=[3, 4]), report(sales(1, 9, without=[3, 4])), [], id="holes mean nothing"),
        pytest.param(
            sales(1, 5, without=[3]), report(DAY)._replace(amounts=Amounts()), ["missing 1: , receipts 5/4"],
            id="a missing receipt is counted, not named",
        ),
    ],
)  # fmt: skip
def test_registers_that_do_not_number_consecutively(
    ledger: list[LedgerReceipt], z_report: ZReport, found: list[str]
) -> None:
    assert told(breaks(ledger, z_report, rules=NOT_CONSECUTIVE)) == found


@pytest.mark.parametrize(
    ("ledger", "receipts", "found"),
    [
        pytest.param(DAY, register(DAY), [], id="the same on both sides"),
        pytest.param(
            sales(1, 9, without=[3, 4, 7]), register(sales(1, 9)),
            [
                ("missing 2: 3-4, receipts 2/0, gross 2229/0, discounts 222/0, turnover 2007/0, money 2007/0, "
                "points_earned 20/0"),
                ("missing 1: 7, receipts 1/0, gross 1118/0, discounts 111/0, turnover 1007/0, money 1007/0, "
                "points_earned 10/0"),
            ],
            id="each missing range is named with what it comes to",
        ),
        pytest.param(
            DAY, [RegisterReceipt(one.number, one.kind, Amounts(turnover_minor=one.amounts.turnover_minor))
                  for one in DAY if one.number != 2],
            ["extra 1: 2, receipts 0/1, turnover 0/1002"],
            id="one that the register does not have",
        ),
        pytest.param(
            DAY, [*register(sales(1, 5, without=[2])), RegisterReceipt(2, ReceiptKind.VOID, Amounts())],
            [("extra 1: 2, receipts 0/1, gross 0/1113, discounts 0/111, turnover 0/1002, money 0/1002, "
             "points_earned 0/10")],
            id="one that the register voided",
        ),
        pytest.param(
            sales(1, 5, without=[2]),
            [*register(sales(1, 5, without=[2])), RegisterReceipt(2, ReceiptKind.VOID, Amounts())], [],
            id="a void leaves no gap",
        ),
        pytest.param(
            DAY, [*register(sales(1, 4)), RegisterReceipt(5, ReceiptKind.SALE, Amounts(turnover_minor=1000))],
            ["different 1: 5, turnover 1000/1005"],
            id="one with another turnover",
        ),
        pytest.param(
            [return_(1)], register([sale(1)]), ["different 1: 1, receipts 1/0, returns 0/1"],
            id="a sale booked as a return",
        ),
        pytest.param([sale(1), return_(1)], register([return_(1), sale(1)]), [], id="an exchange"),
        pytest.param(
            [sale(1)], register([sale(1), return_(1)]),
            ["missing 1: 1, returns 1/0, returns_turnover 500/0, returns_money 500/0, returns_points_earned 10/0"],
            id="the returned half of an exchange is missing",
        ),
        pytest.param(
            [sale(1), return_(1)], [RegisterReceipt(1, ReceiptKind.SALE, Amounts(turnover_minor=7)),
                                    RegisterReceipt(1, ReceiptKind.RETURN, Amounts(turnover_minor=8))],
            ["different 1: 1, turnover 7/1000, returns_turnover 8/500"],
            id="both halves of an exchange differ",
        ),
        pytest.param(
            [sale(1), return_(1)], register([sale(1), sale(1), return_(1)]), ["doubled 1: 1, receipts 3/2"],
            id="the sold half of an exchange twice",
        ),
        pytest.param(
            sales(1, 5, without=[2]), register(sales(1, 5, without=[2])), ["gap 1: 2"], id="a number that nobody used"
        ),
        pytest.param(
            DAY, [*register(DAY), *register([DAY[1]])], ["doubled 1: 2, receipts 2/1"], id="twice in the file"
        ),
        pytest.param([], [], [], id="nothing"),
    ],
)  # fmt: skip
def test_receipt_by_receipt(ledger: list[LedgerReceipt], receipts: list[RegisterReceipt], found: list[str]) -> None:
    assert told(breaks(ledger, None, receipts)) == found


def test_register_whose_report_is_not_the_sum_of_its_receipts() -> None:
    z_report = report(DAY)._replace(receipts=6, amounts=Amounts(turnover_minor=6000))
    found = breaks(DAY, z_report, register(DAY))
    assert told(found) == ["different 5: , receipts 6/5, turnover 6000/5015"]
    assert found[0].subject == "register"


def tomorrow(first: int, last: int, *, without: Iterable[int] = ()) -> list[LedgerReceipt]:
    """Return the genuine sales of the day after."""
    day = timedelta(days=1)
    return [
        one._replace(place=TOMORROW, event_at=one.event_at + day, booked_at=one.booked_at + day)
        for one in sales(first, last, without=without)
    ]


@pytest.mark.parametrize(
    ("genuine", "has_report", "has_receipts"),
    [
        pytest.param(tomorrow(11, 15), True, False, id="the number is beyond tomorrow's"),
        pytest.param(tomorrow(1, 5, without=[3]), True, False, id="tomorrow's register counts one less"),
        pytest.param(tomorrow(11, 15), True, True, id="tomorrow's receipts do not have it"),
        pytest.param([], False, False, id="tomorrow has no report"),
    ],
)
def test_receipt_sent_again_under_another_date(
    genuine: list[LedgerReceipt], has_report: bool, has_receipts: bool
) -> None:
    z_report = report(genuine) if has_report else None
    receipts = register(genuine) if has_receipts else None
    found = breaks([*genuine, RESENT], z_report, receipts, others=DAY, place=TOMORROW)
    assert told(found) == ["doubled 1: 3, receipts 0/1, turnover 0/1003, points_earned 0/10"]
    assert "terminal T1 on 2026-03-01" in found[0].detail
    assert breaks(DAY, report(DAY), others=[RESENT]) == [], "the genuine one is sound"


@pytest.mark.parametrize(
    ("other", "rules"),
    [
        pytest.param(RESENT._replace(amounts=Amounts(1, 1, 1, 1, 1, 1, 1)), Rules(), id="other content"),
        pytest.param(RESENT._replace(number=4), Rules(), id="another number"),
        pytest.param(RESENT._replace(event_at=RESENT.event_at + timedelta(hours=1)), Rules(), id="an hour later"),
        pytest.param(RESENT, Rules(doubled_within=None), id="the store does not look for doubles"),
    ],
)
def test_what_is_no_double(other: LedgerReceipt, rules: Rules) -> None:
    found = breaks([other], report(sales(11, 15))._replace(receipts=0), others=DAY, rules=rules, place=TOMORROW)
    assert BreakKind.DOUBLED not in {one.kind for one in found}


def test_register_that_counts_both_has_no_double() -> None:
    found = breaks([RESENT], report([RESENT])._replace(window=Run(3, 3)), others=DAY, place=TOMORROW)
    assert found == []


def test_wrong_number_is_pointed_out() -> None:
    ledger = [*sales(1, 5, without=[3]), sale(3, 1003)._replace(number=33)]
    missing, extra = breaks(ledger, report(DAY))
    assert (missing.detail, extra.detail) == (
        "perhaps booked under the wrong number: 33",
        "perhaps the wrong number for 3",
    )


def test_many_breaks_of_a_kind_become_one() -> None:
    booked = [sale(number) for number in range(1, 1000, 2)]
    found = breaks(booked, report(booked))
    assert [(one.kind, one.receipt_count, one.subject) for one in found] == [(BreakKind.GAP, 499, "")]
    few = [sale(number) for number in range(1, 2 * MAX_BREAKS_OF_A_KIND + 2, 2)]
    assert len(breaks(few, report(few))) == MAX_BREAKS_OF_A_KIND


def test_breaks_have_ids_of_their_own() -> None:
    found = breaks([LATE, sale(4), sale(6)], ZReport(2, Run(3, 9), Amounts(turnover_minor=7)))
    assert len({one.break_id for one in found}) == len(found) > 2
    again = breaks([LATE, sale(4), sale(6)], ZReport(2, Run(3, 9), Amounts(turnover_minor=8)))
    assert [one.break_id for one in again] == [one.break_id for one in found], "an id does not hang on amounts"


# --- planted faults ----------------------------------------------------------------------------------------


@st.composite
def days(draw: st.DrawFn) -> dict[str, Any]:
    """Return a sound day: the ledger's receipts, the Z report and the register's receipts that belong to it."""
    first = draw(st.integers(1, 1000))
    booked: list[LedgerReceipt] = []
    voids: list[int] = []
    for number in range(first, first + draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["sale"] * 6 + ["return", "void"]))
        if kind == "void":
            voids.append(number)
            continue
        turnover = draw(st.integers(100, 10**6))
        one = sale(number, turnover, earned=draw(st.integers(1, 500)), spent=draw(st.integers(0, 100)))
        booked.append(one._replace(kind=ReceiptKind.RETURN) if kind == "return" else one)
    voids_text = " ".join(map(str, voids))
    by_receipt = draw(st.booleans())
    own = [*register(booked), *(RegisterReceipt(number, ReceiptKind.VOID, Amounts()) for number in voids)]
    return {
        "ledger": booked,
        "z_report": report(booked, voids=voids_text),
        "receipts": own if by_receipt else None,
        "rules": draw(st.sampled_from([Rules(), NOT_CONSECUTIVE])),
    }


def kinds(day: dict[str, Any], ledger: list[LedgerReceipt], **more: Any) -> list[tuple[str, str]]:
    """Return kind and numbers of each break."""
    return [(one.kind.name, " ".join(map(str, one.numbers))) for one in breaks(**{**day, "ledger": ledger, **more})]


def names(day: dict[str, Any], number: int) -> str:
    """Return a missing number as far as the register's data can name it."""
    return str(number) if day["receipts"] is not None or day["rules"].numbers_consecutive else ""


@given(days())
def test_a_sound_day_has_no_break(day: dict[str, Any]) -> None:
    assert breaks(**day) == []


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_a_dropped_receipt_is_missing(day: dict[str, Any], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(day["ledger"]))
    ledger = [one for one in day["ledger"] if one is not victim]
    assert kinds(day, ledger) == [("MISSING", names(day, victim.number))]


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_a_changed_amount_is_different(day: dict[str, Any], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(day["ledger"]))
    field = data.draw(st.sampled_from(["turnover_minor", "money_minor"]))
    changed = victim._replace(amounts=victim.amounts._replace(**{field: getattr(victim.amounts, field) + 1}))
    ledger = [changed if one is victim else one for one in day["ledger"]]
    assert kinds(day, ledger) == [("DIFFERENT", "" if day["receipts"] is None else str(victim.number))]


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_changed_points_are_different(day: dict[str, Any], data: st.DataObject) -> None:
    sold = [one for one in day["ledger"] if one.kind is ReceiptKind.SALE]
    if not sold:
        return
    victim = data.draw(st.sampled_from(sold))
    field = data.draw(st.sampled_from(["points_earned_minor", "points_spent_minor"]))
    changed = victim._replace(amounts=victim.amounts._replace(**{field: getattr(victim.amounts, field) + 1}))
    ledger = [changed if one is victim else one for one in day["ledger"]]
    assert kinds(day, ledger) == [("DIFFERENT", "" if day["receipts"] is None else str(victim.number))]


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_a_shifted_number_is_missing_here_and_extra_there(day: dict[str, Any], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(day["ledger"]))
    shifted = victim._replace(number=day["z_report"].window.last + data.draw(st.integers(1, 100)))
    ledger = [shifted if one is victim else one for one in day["ledger"]]
    assert kinds(day, ledger) == [("MISSING", names(day, victim.number)), ("EXTRA", str(shifted.number))]


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_a_late_receipt_is_late(day: dict[str, Any], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(day["ledger"]))
    late = data.draw(
        st.sampled_from(
            [victim._replace(booked_at=victim.event_at + timedelta(hours=25)), victim._replace(after_close=True)]
        )
    )
    ledger = [late if one is victim else one for one in day["ledger"]]
    assert kinds(day, ledger) == [("LATE", str(victim.number))]


@given(days().filter(lambda day: day["ledger"]), st.data())
def test_a_receipt_sent_again_is_doubled(day: dict[str, Any], data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(day["ledger"]))
    used = {one.number for one in day["ledger"]}
    yesterday = TOMORROW._replace(business_date=PLACE.business_date - timedelta(days=1))
    number = data.draw(st.integers(1, 1100).filter(lambda number: number not in used))
    copy = original._replace(number=number, booked_at=original.booked_at + timedelta(hours=3))
    source = copy._replace(place=yesterday, booked_at=original.booked_at)
    assert kinds(day, [*day["ledger"], copy], others=[source]) == [("DOUBLED", str(number))]


@given(days().filter(lambda day: day["ledger"]))
def test_without_a_report_the_day_says_so(day: dict[str, Any]) -> None:
    lone = {**day, "rules": NOT_CONSECUTIVE, "z_report": None, "receipts": None}
    assert [kind for kind, _ in kinds(lone, day["ledger"])] == ["NO_REPORT"]


@given(days().filter(lambda day: len(day["ledger"]) > 3), st.data())
def test_with_single_receipts_every_fault_of_many_is_named(day: dict[str, Any], data: st.DataObject) -> None:
    booked = day["ledger"]
    own = [one for one in day["receipts"] or register(booked) if one.kind is not ReceiptKind.VOID]
    dropped, changed, late, extra = data.draw(st.permutations(booked).map(lambda shuffled: shuffled[:4]))
    turnover = changed.amounts._replace(turnover_minor=(changed.amounts.turnover_minor or 0) + 1)
    ledger = [one for one in booked if one not in (dropped, changed, late)]
    ledger += [changed._replace(amounts=turnover), late._replace(after_close=True)]
    receipts = [one for one in own if one.number != extra.number]
    found = breaks(ledger, None, receipts, rules=NOT_CONSECUTIVE)
    assert sorted((one.kind.name, " ".join(map(str, one.numbers))) for one in found) == [
        ("DIFFERENT", str(changed.number)),
        ("EXTRA", str(extra.number)),
        ("LATE", str(late.number)),
        ("MISSING", str(dropped.number)),
    ]
