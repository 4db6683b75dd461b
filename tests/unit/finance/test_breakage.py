"""Breakage: flows by issue month, revenue in proportion to redemption, and the estimate that is proposed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import journal_pb2

from ledger.entry.model import ADJUSTED, AVAILABLE, CLEARING, DEBT, EXPIRED, ISSUED, PENDING, REDEEMED
from ledger.finance.accounts import movement_of
from ledger.finance.breakage import Proposal, at_grant, propose, recognise
from ledger.finance.issue_month import Flow, Moved, add_up
from ledger.finance.point_value import PointValue, PointValues

JANUARY, MARCH = date(2026, 1, 1), date(2026, 3, 1)
ACCOUNTS = [AVAILABLE, PENDING, DEBT, ISSUED, REDEEMED, EXPIRED, ADJUSTED, CLEARING, 1001]
KINDS = [int(journal_pb2.ENTRY_KIND_PURCHASE), int(journal_pb2.ENTRY_KIND_RETURN)]


def version(number: int, money: int, breakage: int, recorded: str, from_month: date = JANUARY) -> PointValue:
    """A point pays `money` hundredths; `breakage` is in per cent."""
    at = datetime.fromisoformat(recorded).replace(tzinfo=UTC)
    return PointValue(number, from_month, money, 100, breakage * 10_000, at, "olena")


def terms(*versions: PointValue) -> PointValues:
    return PointValues(versions, Fraction(1, 10))


def moved(issued: int, redeemed: int = 0, expired: int = 0, debt_paid: int = 0, adjusted: int = 0) -> Moved:
    flows: dict[Flow, int] = {"issued": issued, "redeemed": -redeemed, "expired": -expired}
    found = Moved()
    found.flows.update({**flows, "debt_paid": -debt_paid, "adjusted": adjusted})
    return found


@pytest.mark.parametrize(
    ("points", "values", "allocated", "recognised"),
    [
        pytest.param(moved(1000), terms(version(1, 100, 5, "2026-01-01")), 950, 0, id="nothing used yet"),
        pytest.param(
            moved(10_000, redeemed=4500), terms(version(1, 100, 5, "2026-01-01")), 9500, 4500, id="4,500 of 9,500"
        ),
        pytest.param(
            moved(10_000, redeemed=8500),
            terms(version(1, 100, 5, "2026-01-01"), version(2, 100, 3, "2027-01-01")),
            9500,
            Fraction(9500 * 8500, 9700),
            id="a new estimate catches up, what was allocated stays",
        ),
        pytest.param(moved(1000), terms(), 100, 0, id="no estimate: what the programme pays"),
        pytest.param(
            moved(1000, redeemed=200, expired=800), terms(version(1, 100, 50, "2026-01-01")), 500, 500, id="all gone"
        ),
        pytest.param(moved(1000, expired=1000), terms(), 100, 100, id="all lapsed"),
        pytest.param(
            moved(1000, redeemed=100, expired=700),
            terms(version(1, 100, 0, "2026-01-01")),
            1000,
            Fraction(1000 * 100, 300),
            id="no more can be used than is left",
        ),
        pytest.param(
            moved(1000, redeemed=950), terms(version(1, 100, 10, "2026-01-01")), 900, 900, id="more used than expected"
        ),
        pytest.param(
            moved(1000, debt_paid=250, redeemed=200),
            terms(version(1, 100, 10, "2026-01-01")),
            900,
            450,
            id="points that paid a debt are used",
        ),
        pytest.param(
            moved(900, adjusted=100, redeemed=450), terms(version(1, 100, 10, "2026-01-01")), 900, 450, id="goodwill"
        ),
        pytest.param(moved(1000), terms(version(1, 100, 100, "2026-01-01")), 0, 0, id="nobody will ever spend"),
        pytest.param(moved(0), terms(), 0, 0, id="nothing granted"),
    ],
)
def test_revenue_of_an_issue_month(
    points: Moved, values: PointValues, allocated: Fraction, recognised: Fraction
) -> None:
    assert recognise(JANUARY, points, values) == (allocated, recognised)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], (Fraction(1, 10), Fraction(0)), id="none: what the programme pays"),
        pytest.param(
            [version(1, 9, 10, "2026-01-31")], (Fraction(9, 100), Fraction(1, 10)), id="recorded in the month"
        ),
        pytest.param(
            [version(1, 9, 10, "2026-01-31"), version(2, 8, 20, "2026-02-01")],
            (Fraction(9, 100), Fraction(1, 10)),
            id="a later estimate allocates nothing again",
        ),
        pytest.param(
            [version(1, 9, 10, "2025-06-01"), version(2, 8, 20, "2026-01-02")],
            (Fraction(8, 100), Fraction(1, 5)),
            id="the newest in time",
        ),
        pytest.param(
            [version(1, 9, 10, "2026-04-01"), version(2, 8, 20, "2026-05-01")],
            (Fraction(9, 100), Fraction(1, 10)),
            id="none in time: the first",
        ),
        pytest.param(
            [version(1, 9, 10, "2025-06-01", MARCH)], (Fraction(1, 10), Fraction(0)), id="one for later months only"
        ),
    ],
)
def test_what_was_expected_at_grant(values: list[PointValue], expected: tuple[Fraction, Fraction]) -> None:
    assert at_grant(terms(*values), JANUARY) == expected


@pytest.mark.parametrize(
    ("lots", "proposal"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({JANUARY: moved(1000, redeemed=500)}, None, id="half is left"),
        pytest.param(
            {JANUARY: moved(1000, redeemed=900, expired=90), MARCH: moved(1000)},
            Proposal(Fraction(9, 100), (JANUARY,)),
            id="one in a hundred is left",
        ),
        pytest.param(
            {JANUARY: moved(1000, expired=1000), MARCH: moved(3000, redeemed=3000)},
            Proposal(Fraction(1, 4), (JANUARY, MARCH)),
            id="months count by their points",
        ),
        pytest.param(
            {date(2025, month, 1): moved(10, expired=10) for month in range(1, 13)} | {JANUARY: moved(1000, 1000)},
            Proposal(Fraction(110, 1110), (*(date(2025, month, 1) for month in range(2, 13)), JANUARY)),
            id="the newest year of them",
        ),
    ],
)
def test_an_estimate_is_proposed_from_mature_months(lots: dict[date, Moved], proposal: Proposal | None) -> None:
    assert propose(lots) == proposal


@given(
    st.lists(
        st.tuples(
            st.sampled_from([JANUARY, MARCH]),
            st.sampled_from(KINDS),
            *([st.sampled_from(ACCOUNTS)] * 2),
            st.integers(1, 10_000),
        ).filter(lambda row: row[2] != row[3])
    )
)
def test_lots_and_debts_together_are_the_liability(rows: list[tuple[date, int, int, int, int]]) -> None:
    found = add_up(rows)
    liability = 0
    for _, kind, debit, credit, points in rows:
        effect = movement_of(debit, credit, kind)
        liability += effect[1] * points if effect else 0
    lots = sum(month.outstanding_minor for month in found.lots.values())
    assert lots + found.owed.outstanding_minor == liability
    assert sum(found.owed_by_month.values()) == found.owed.outstanding_minor
