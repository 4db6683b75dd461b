"""Levels: reached at once, certain until a date, decided anew when it has passed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions.counter_names import tier_key, visit_key
from server.promotions.counts import Count
from server.promotions.facts import CounterFact
from server.promotions.kinds import Period, TierMeasure
from server.promotions.model import Tier, Tiers
from server.promotions.tiers import Standing, TierChange, standing, standing_changes, window_keys

BASE, SILVER, GOLD = Tier("base", "Base", 0), Tier("silver", "Silver", 100), Tier("gold", "Gold", 300)
LEVELS = (BASE, SILVER, GOLD)
BY_YEAR = Tiers(TierMeasure.SPEND, LEVELS, Period.YEAR)
BY_YEAR_AND_THE_NEXT = Tiers(TierMeasure.SPEND, LEVELS, Period.YEAR, kept_periods=1)
BY_QUARTER = Tiers(TierMeasure.SPEND, LEVELS, Period.QUARTER)
ROLLING = Tiers(TierMeasure.SPEND, LEVELS, months=3)
ROLLING_KEPT = Tiers(TierMeasure.SPEND, LEVELS, months=3, kept_periods=1)
ROLLING_STATUS_YEAR = Tiers(TierMeasure.SPEND, LEVELS, kept_until_end_of=Period.YEAR, kept_periods=1)
VISITS_A_MONTH = Tiers(TierMeasure.VISITS, (Tier("often", "Often", 2),), Period.MONTH)
BY_POINTS = Tiers(TierMeasure.POINTS, LEVELS, Period.HALF_YEAR)

Counters = dict[str, CounterFact]
Receipt = tuple[date, int]
"""A day and the money paid."""


def d(text: str) -> date:
    """A day as `2026-03-01`."""
    return date.fromisoformat(text)


def counts_of(tiers: Tiers, day: date, amount: int) -> list[Count]:
    """What a receipt adds to the counters that the programme looks at."""
    periods = {None, Period.MONTH, *([tiers.period] if tiers.period else [])}
    counts = [Count(visit_key(period, day), times=1, money_minor=amount) for period in periods]
    return [*counts, Count(tier_key(day), points_minor=amount)]


def added(counters: Counters, counts: Iterable[Count]) -> Counters:
    """The counters with these counts booked."""
    result = dict(counters)
    for key, times, money, points, until in counts:
        old = result.get(key, CounterFact())
        result[key] = CounterFact(
            old.times + times, old.money_minor + money, old.points_minor + points, until or old.until
        )
    return result


def shop(tiers: Tiers, receipts: Iterable[Receipt], counters: Counters | None = None) -> Counters:
    """The counters after receipts in the order of their days."""
    result = counters or {}
    for day, amount in sorted(receipts):
        counts = counts_of(tiers, day, amount)
        changes, _ = standing_changes(tiers, result, counts, day)
        result = added(result, [*counts, *changes])
    return result


def receipts(text: str) -> list[Receipt]:
    """`2026-03-01 100, 2026-04-01 20` as receipts."""
    return [(d(day), int(amount)) for day, amount in (item.split() for item in text.split(",") if item)]


@pytest.mark.parametrize(
    ("tiers", "bought", "on", "tier", "good_until"),
    [
        pytest.param(BY_YEAR, "", "2026-05-05", "base", None, id="nothing bought"),
        pytest.param(BY_YEAR, "2026-05-05 99", "2026-05-05", "base", None, id="one minor unit short"),
        pytest.param(BY_YEAR, "2026-05-05 100", "2026-05-05", "silver", "2026-12-31", id="reached at once"),
        pytest.param(BY_YEAR, "2026-02-01 60, 2026-12-31 40", "2026-12-31", "silver", "2026-12-31", id="last day"),
        pytest.param(BY_YEAR, "2026-02-01 60, 2027-01-01 40", "2027-01-01", "base", None, id="a day too late"),
        pytest.param(BY_YEAR, "2026-05-05 300", "2027-01-01", "base", None, id="ends with its year"),
        pytest.param(
            BY_YEAR_AND_THE_NEXT, "2026-05-05 300", "2027-12-31", "gold", "2027-12-31", id="and the next year"
        ),
        pytest.param(
            BY_YEAR_AND_THE_NEXT, "2026-05-05 300", "2028-01-01", "base", None, id="nothing in the year that decides"
        ),
        pytest.param(
            BY_YEAR_AND_THE_NEXT,
            "2026-05-05 300, 2027-06-01 120",
            "2028-01-01",
            "silver",
            "2028-12-31",
            id="gold falls to silver by what the next year gave",
        ),
        pytest.param(
            BY_YEAR_AND_THE_NEXT,
            "2026-05-05 300, 2027-06-01 310",
            "2028-07-01",
            "gold",
            "2028-12-31",
            id="gold reached again",
        ),
        pytest.param(BY_QUARTER, "2026-03-31 100", "2026-03-31", "silver", "2026-03-31", id="quarter's last day"),
        pytest.param(BY_QUARTER, "2026-03-31 100", "2026-04-01", "base", None, id="next quarter"),
        pytest.param(ROLLING, "2026-01-31 100", "2026-03-31", "silver", "2026-03-31", id="three months, the third"),
        pytest.param(ROLLING, "2026-01-31 100", "2026-04-01", "base", None, id="three months, the fourth"),
        pytest.param(ROLLING, "2023-12-31 100", "2024-02-29", "silver", "2024-02-29", id="29 February counts"),
        pytest.param(ROLLING, "2025-11-30 100", "2026-01-31", "silver", "2026-01-31", id="over the turn of the year"),
        pytest.param(ROLLING_KEPT, "2026-01-31 100", "2026-04-30", "silver", "2026-04-30", id="one month longer"),
        pytest.param(ROLLING_KEPT, "2026-01-31 100", "2026-05-01", "base", None, id="and no longer"),
        pytest.param(
            ROLLING_STATUS_YEAR, "2026-05-05 300", "2027-06-01", "gold", "2027-12-31", id="rolling, by status years"
        ),
        pytest.param(
            ROLLING_STATUS_YEAR,
            "2026-05-05 300, 2027-11-01 150",
            "2028-03-01",
            "silver",
            "2028-12-31",
            id="the window on the last day decides",
        ),
        pytest.param(ROLLING_STATUS_YEAR, "2026-05-05 300", "2031-01-01", "base", None, id="several dates have passed"),
        pytest.param(VISITS_A_MONTH, "2026-02-01 1", "2026-02-28", "", None, id="one visit, no level at all"),
        pytest.param(
            VISITS_A_MONTH, "2026-02-01 1, 2026-02-03 1", "2026-02-28", "often", "2026-02-28", id="two visits"
        ),
        pytest.param(BY_POINTS, "2026-06-30 60, 2026-07-01 60", "2026-07-02", "base", None, id="points of two halves"),
        pytest.param(
            BY_POINTS, "2026-01-01 60, 2026-06-30 60", "2026-06-30", "silver", "2026-06-30", id="points of one"
        ),
    ],
)
def test_level_on_a_day(tiers: Tiers, bought: str, on: str, tier: str, good_until: str | None) -> None:
    stands = standing(tiers, shop(tiers, receipts(bought)), d(on))
    assert (stands.tier, stands.good_until) == (tier, d(good_until) if good_until else None)


@pytest.mark.parametrize(
    ("tiers", "bought", "on", "answer"),
    [
        pytest.param(
            BY_YEAR,
            "2026-05-05 40",
            "2026-06-01",
            Standing("base", "Base", None, "silver", "Silver", 60, TierMeasure.SPEND),
            id="60 to silver",
        ),
        pytest.param(
            BY_YEAR,
            "2026-05-05 400",
            "2026-06-01",
            Standing("gold", "Gold", d("2026-12-31"), "", "", 0, TierMeasure.SPEND),
            id="nothing above gold",
        ),
        pytest.param(
            BY_YEAR_AND_THE_NEXT,
            "2026-05-05 100",
            "2027-06-01",
            Standing("silver", "Silver", d("2027-12-31"), "gold", "Gold", 300, TierMeasure.SPEND),
            id="the new year begins from nothing",
        ),
        pytest.param(
            VISITS_A_MONTH,
            "2026-05-05 100",
            "2026-05-06",
            Standing("", "", None, "often", "Often", 1, TierMeasure.VISITS),
            id="one more visit",
        ),
    ],
)
def test_what_is_missing(tiers: Tiers, bought: str, on: str, answer: Standing) -> None:
    assert standing(tiers, shop(tiers, receipts(bought)), d(on)) == answer


def test_a_receipt_writes_down_what_it_reaches() -> None:
    day = d("2026-05-05")
    changes, change = standing_changes(BY_YEAR, {}, counts_of(BY_YEAR, day, 300), day)
    until = d("2026-12-31")
    assert changes == (
        Count("standing/silver", times=1, until=until),
        Count("standing/gold", times=1, until=until),
    )
    assert change == TierChange("base", "gold", "Gold", until)
    reached = shop(BY_YEAR, [(day, 300)])
    assert standing_changes(BY_YEAR, reached, counts_of(BY_YEAR, day, 5), day) == ((), None)


def test_a_level_without_record_is_had_by_whom_the_window_gives_it() -> None:
    """Levels that a programme begins with count what was bought before."""
    counters = {visit_key(Period.YEAR, d("2026-05-05")): CounterFact(3, 350)}
    assert standing(BY_YEAR, counters, d("2026-06-01"))[:3] == ("gold", "Gold", d("2026-12-31"))


def test_a_late_receipt_counts_in_the_period_of_its_day() -> None:
    counters = shop(BY_YEAR_AND_THE_NEXT, receipts("2026-05-05 250"))
    late, on = d("2026-12-30"), d("2027-01-05")
    assert standing(BY_YEAR_AND_THE_NEXT, counters, on).tier == "silver"
    counts = counts_of(BY_YEAR_AND_THE_NEXT, late, 50)
    changes, change = standing_changes(BY_YEAR_AND_THE_NEXT, counters, counts, late)
    assert change == TierChange("silver", "gold", "Gold", d("2027-12-31"))
    assert standing(BY_YEAR_AND_THE_NEXT, added(counters, [*counts, *changes]), on).tier == "gold"


def test_a_return_lowers_a_level_only_on_its_date() -> None:
    counters = shop(BY_YEAR_AND_THE_NEXT, receipts("2026-05-05 300"))
    day = d("2026-06-01")
    counts = counts_of(BY_YEAR_AND_THE_NEXT, day, -300)
    changes, change = standing_changes(BY_YEAR_AND_THE_NEXT, counters, counts, day)
    assert (changes, change) == ((), None)
    after = added(counters, counts)
    assert [standing(BY_YEAR_AND_THE_NEXT, after, d(on)).tier for on in ("2027-12-31", "2028-01-01")] == [
        "gold",
        "base",
    ]


@pytest.mark.parametrize(
    ("tiers", "on", "keys"),
    [
        pytest.param(BY_YEAR, "2026-05-05", ["visit/year/2026-01-01"], id="a year"),
        pytest.param(
            ROLLING,
            "2026-01-31",
            ["visit/month/2026-01-01", "visit/month/2025-12-01", "visit/month/2025-11-01"],
            id="three months",
        ),
        pytest.param(
            Tiers(TierMeasure.POINTS, LEVELS, Period.QUARTER),
            "2026-05-05",
            ["tier/month/2026-06-01", "tier/month/2026-05-01", "tier/month/2026-04-01"],
            id="points of a quarter are kept by month",
        ),
    ],
)
def test_counters_of_a_window(tiers: Tiers, on: str, keys: Sequence[str]) -> None:
    assert list(window_keys(tiers, d(on))) == keys


def test_the_end_of_the_calendar_is_no_accident() -> None:
    forever = Tiers(TierMeasure.SPEND, LEVELS, Period.YEAR, kept_periods=3)
    counters = shop(forever, [(date(9998, 1, 1), 100)])
    assert standing(forever, counters, date.max)[:3] == ("silver", "Silver", date.max)


# --- what always holds ------------------------------------------------------------------------------------

START = d("2023-11-15")
_days = st.integers(0, 900).map(lambda days: START + timedelta(days=days))
_receipts = st.lists(st.tuples(_days, st.integers(0, 250)), max_size=8)
_tiers = st.builds(
    Tiers,
    st.sampled_from(TierMeasure),
    st.sampled_from([LEVELS, (SILVER, GOLD)]),
    st.none() | st.sampled_from([Period.MONTH, Period.QUARTER, Period.HALF_YEAR, Period.YEAR]),
    st.integers(1, 12),
    st.none() | st.sampled_from([Period.MONTH, Period.QUARTER, Period.YEAR]),
    st.integers(0, 3),
)


def _rank(tiers: Tiers, stands: Standing) -> int:
    return [level.code for level in tiers.levels].index(stands.tier) if stands.tier else -1


@given(_tiers, _receipts, _days, _days)
def test_a_sweep_in_between_changes_nothing(tiers: Tiers, bought: list[Receipt], swept_on: date, on: date) -> None:
    plain = shop(tiers, bought)
    before = shop(tiers, [receipt for receipt in bought if receipt[0] < swept_on])
    swept = added(before, standing_changes(tiers, before, (), swept_on)[0])
    swept = shop(tiers, [receipt for receipt in bought if receipt[0] >= swept_on], swept)
    later = max([on, swept_on, *(day for day, _ in bought)])
    assert standing(tiers, swept, later) == standing(tiers, plain, later)


@given(_tiers, _receipts, _receipts, _days)
def test_more_spend_never_lowers_a_level(tiers: Tiers, bought: list[Receipt], more: list[Receipt], on: date) -> None:
    later = max([on, *(day for day, _ in bought + more)])
    less, enough = (standing(tiers, shop(tiers, list_), later) for list_ in (bought, bought + more))
    assert _rank(tiers, enough) >= _rank(tiers, less)


@given(_tiers, _receipts, _days)
def test_missing_is_what_reaches_the_next_level(tiers: Tiers, bought: list[Receipt], on: date) -> None:
    later = max([on, *(day for day, _ in bought)])
    counters = shop(tiers, bought)
    stands = standing(tiers, counters, later)
    if not stands.next_tier:
        assert (stands.tier, stands.missing) == ("gold", 0)
        return
    assert stands.missing > 0
    if tiers.measure is not TierMeasure.VISITS:
        assert standing(tiers, shop(tiers, [(later, stands.missing)], counters), later).tier == stands.next_tier
        short = standing(tiers, shop(tiers, [(later, stands.missing - 1)], counters), later)
        assert (short.tier, short.missing) == (stands.tier, 1)


@given(_tiers, _receipts, _days)
def test_a_certain_level_is_not_lost_before_its_day(tiers: Tiers, bought: list[Receipt], on: date) -> None:
    later = max([on, *(day for day, _ in bought)])
    counters = shop(tiers, bought)
    stands = standing(tiers, counters, later)
    if stands.good_until is not None:
        assert stands.good_until >= later
        assert standing(tiers, counters, stands.good_until).tier == stands.tier
