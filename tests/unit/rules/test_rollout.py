"""For whom a version counts: shares are drawn fairly, the same everywhere, and who is in stays in."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rules.rollout import (
    EVERYBODY,
    PLAIN,
    Dated,
    Mode,
    Rollback,
    Rollout,
    ShareBy,
    drawn,
    due,
    in_effect,
    in_force,
    needed_since,
    plan_rollback,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
OFF = Rollout(share_millionths=0)
SHADOW = Rollout(Mode.SHADOW)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def test_the_draw_is_the_same_for_ever() -> None:
    assert [drawn(7, name) for name in ("kyiv-1", "kyiv-2", "")] == [914_668, 68_912, 174_608]
    assert drawn(8, "kyiv-1") != drawn(7, "kyiv-1"), "each version draws anew"


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_a_share_is_what_it_says_within_four_sigma(percent: int) -> None:
    share, number = percent * EVERYBODY // 100, 20_000
    rollout = Rollout(share_millionths=share, share_by=ShareBy.RECEIPTS)
    hits = sum(rollout.counts_for(3, "s", f"member-{n}|2026-11-22") for n in range(number))
    p = percent / 100
    assert abs(hits - number * p) < 4 * sqrt(number * p * (1 - p))


@given(st.integers(1, 99), st.text(max_size=20), st.integers(0, EVERYBODY), st.integers(0, EVERYBODY))
def test_who_is_in_a_share_is_in_every_greater_one(version: int, name: str, one: int, other: int) -> None:
    less, more = sorted((one, other))
    if Rollout(share_millionths=less).counts_for(version, name, ""):
        assert Rollout(share_millionths=more).counts_for(version, name, "")


@pytest.mark.parametrize(
    ("rollout", "store", "shopper", "counts"),
    [
        pytest.param(Rollout(), "", "", True, id="everybody, nobody named"),
        pytest.param(OFF, "s", "m", False, id="switched off"),
        pytest.param(SHADOW, "s", "m", False, id="a shadow decides nothing"),
        pytest.param(Rollout(share_millionths=999_999), "", "m", False, id="a share of stores needs a store"),
        pytest.param(
            Rollout(share_millionths=999_999, share_by=ShareBy.RECEIPTS), "s", "", False, id="one of receipts a shopper"
        ),
        pytest.param(Rollout(share_millionths=999_999), "s", "", True, id="nearly all stores"),
    ],
)
def test_for_whom_a_version_counts(rollout: Rollout, store: str, shopper: str, counts: bool) -> None:
    assert rollout.counts_for(1, store, shopper) is counts


def test_a_receipt_is_judged_by_what_held_at_its_own_time() -> None:
    said = (Rollout(share_millionths=100_000), Rollout(from_at=at(10)), OFF._replace(from_at=at(20)))
    held = [in_force(said, at(hours)).share_millionths for hours in (-1000, 9.99, 10, 19.99, 20, 1000)]
    assert held == [100_000, 100_000, EVERYBODY, EVERYBODY, 0, 0]
    assert in_force((OFF._replace(from_at=at(20)),), at(19)).is_for_all, "before anything was said it counts for all"


# Versions 1 to 3, each from a later hour on; 4 is due at hour 100.
ALL, TEN = (), (Rollout(share_millionths=100_000),)


def versions(*said: tuple[Rollout, ...]) -> list[Dated]:
    return [
        Dated(at(hours), number, one)
        for number, (hours, one) in enumerate(zip((0, 1, 2, 100), said, strict=False), start=1)
    ]


@pytest.mark.parametrize(
    ("said", "to", "expected"),
    [
        pytest.param((ALL, ALL), None, Rollback(1, False, (2,)), id="the version before"),
        pytest.param((ALL, ALL, ALL), None, Rollback(2, False, (3,)), id="only the newest goes"),
        pytest.param((ALL, ALL, TEN), None, Rollback(2, False, (3,)), id="a rollout is ended"),
        pytest.param((ALL, TEN, ALL), None, Rollback(1, False, (3, 2)), id="a rollout before it goes too"),
        pytest.param((ALL, ALL, (OFF,)), None, Rollback(1, False, (2,)), id="one back already: one further"),
        pytest.param((ALL, ALL, (SHADOW,)), None, Rollback(1, False, (2,)), id="a shadow stays a shadow"),
        pytest.param((ALL, ALL, ALL, ALL), None, Rollback(2, False, (3,)), id="what is due later is not touched"),
        pytest.param((ALL, ALL, ALL), 1, Rollback(1, False, (3, 2)), id="to a named version"),
        pytest.param((ALL, (OFF,), ALL), 2, Rollback(2, True, (3,)), id="to one that was switched off"),
        pytest.param((ALL, ALL, ALL, ALL), 4, None, id="to one that is not due"),
        pytest.param((ALL,), None, None, id="nothing before the first"),
        pytest.param(((OFF,), ALL), None, None, id="nothing that counts for all"),
    ],
)
def test_rollback(said: tuple[tuple[Rollout, ...], ...], to: int | None, expected: Rollback | None) -> None:
    plan = plan_rollback(versions(*said), at(50), to)
    assert plan == expected
    if plan is not None:
        after = dict(zip(range(1, 9), said, strict=False))
        for number in plan.switch_off:
            after[number] = (*after[number], OFF._replace(from_at=at(50)))
        if plan.switch_on:
            after[plan.version] = (*after[plan.version], Rollout(from_at=at(50)))
        changed = versions(*after.values())
        assert in_effect(changed, at(50)) == plan.version
        assert in_effect(changed, at(49)) == in_effect(versions(*said), at(49)), "earlier receipts keep their version"


# --- which versions may still be needed -------------------------------------------------------------------------------

TENTH = Rollout(share_millionths=100_000, share_by=ShareBy.RECEIPTS)


def said(rollout: Rollout, hours: float) -> Rollout:
    return rollout._replace(from_at=at(hours))


@pytest.mark.parametrize(
    ("versions", "needed"),
    [
        pytest.param([], set(), id="none"),
        pytest.param([(-9,), (-5,), (-1,)], {3}, id="the newest in effect"),
        pytest.param([(-9,), (-1,), (-5,)], {2}, id="the newest in effect, not the one published last"),
        pytest.param([(-5,), (-5,)], {2}, id="a correction of the same date"),
        pytest.param([(-9,), (-5,), (3,), (9,)], {2, 3, 4}, id="those that start later"),
        pytest.param([(3,), (9,)], {1, 2}, id="none in effect yet"),
        pytest.param([(-9,), (-5,), (-1, TENTH)], {2, 3}, id="a share, and who takes the rest"),
        pytest.param([(-9,), (-5, TENTH), (-1, TENTH)], {1, 2, 3}, id="two shares, and who takes the rest"),
        pytest.param([(-9,), (-5,), (-1, OFF)], {2}, id="one that is off"),
        pytest.param([(-9, SHADOW), (-5,), (-1,)], {1, 3}, id="an old shadow"),
        pytest.param([(-5,), (3, SHADOW)], {1, 2}, id="a shadow that starts later"),
        pytest.param([(-5,), (-1, TENTH, said(PLAIN, -0.5))], {2}, id="a share that has become everybody"),
        pytest.param([(-5,), (-1, TENTH, said(PLAIN, 2))], {1, 2}, id="a share that becomes everybody later"),
        pytest.param([(-5,), (-1, said(OFF, 2))], {1, 2}, id="going back later"),
        pytest.param([(-9,), (-5, OFF), (-1, OFF)], {1}, id="gone back two"),
    ],
)
def test_versions_that_may_still_be_needed(
    versions: list[tuple[float, *tuple[Rollout, ...]]], needed: set[int]
) -> None:
    known = [Dated(at(hours), number, tuple(rollouts)) for number, (hours, *rollouts) in enumerate(versions, start=1)]
    assert needed_since(known, at(0)) == needed


def only_in(version: int) -> str:
    """Return a shopper whom of the shares of five versions this one's alone has."""
    wanted = [number == version for number in range(5)]
    names = map(str, itertools.count())
    return next(one for one in names if [drawn(number, one) < TENTH.share_millionths for number in range(5)] == wanted)


SHOPPERS = ["", *map(only_in, range(5))]

_rollouts = st.sampled_from([PLAIN, OFF, SHADOW, TENTH]).flatmap(
    lambda rollout: st.none().map(lambda _: rollout) | st.integers(-4, 8).map(lambda hours: said(rollout, hours))
)


@given(st.lists(st.tuples(st.integers(-4, 8), st.lists(_rollouts, max_size=2)), max_size=5))
def test_whatever_is_asked_from_a_moment_on_is_needed(histories: list[tuple[int, list[Rollout]]]) -> None:
    versions = [Dated(at(hours), number, tuple(rollouts)) for number, (hours, rollouts) in enumerate(histories)]
    asked = set()
    for half_hours in range(20):
        moment = at(half_hours / 2)
        order = due(versions, moment)
        asked |= {one.version for one in order if in_force(one.rollouts, moment).mode is Mode.SHADOW}
        for shopper in SHOPPERS:
            counting = (one.version for one in order if _counts(one, moment, shopper))
            asked |= set(itertools.islice(counting, 1))
    assert needed_since(versions, at(0)) == asked


def _counts(one: Dated, moment: datetime, shopper: str) -> bool:
    return in_force(one.rollouts, moment).counts_for(one.version, "", shopper)
