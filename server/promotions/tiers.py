"""Levels of members: which one stands on a day, and what a receipt changes. Pure functions of counters and dates.

A level is reached by a receipt after which the window comes to its threshold, and holds from the next receipt on. It is
then certain until the end of `kept_until_end_of`, `kept_periods` periods later. Every receipt that adds to a window at
the threshold moves that day on. When it has passed:

* with `kept_periods` of 1 or more, the window as it was on that last certain day decides whether the level is kept for
  one more period, and again at its end, for as many periods as have gone by;
* with 0, the level is what the window says as each period begins: of a calendar window it ends with the window.

All levels are kept track of on their own, so who loses the highest falls to the next that is still certain. Levels
with a threshold of 0 need no record: everybody has them. A sweeper that writes standings down changes no answer, and
more spend never lowers a level.

Counters are read by `get` only, so a caller can note which were looked at by passing a mapping that writes it down.
Visits and spend are read from `usage.visit_key` (of the window's period, or of months for rolling windows), tier points
from `usage.tier_key`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import NamedTuple

from server.promotions.arithmetic import add_months, end_of_period
from server.promotions.counter_names import MONTHS, counted, first_day, standing_key, tier_key, visit_key
from server.promotions.counts import Count
from server.promotions.facts import CounterFact
from server.promotions.kinds import Period, TierMeasure
from server.promotions.model import Tier, Tiers

ONE_DAY = timedelta(days=1)
_PERIODS_LOOKED_BACK = 13
"""So many periods back counters are kept at the most: a year of months, and the one that runs."""
_NOTHING = CounterFact()


class Standing(NamedTuple):
    """A member's level on a day.

    `tier` and `name` are empty without one, `good_until` is None for a level that everybody has. `missing` is what
    separates the window from the next level: minor units of money, visits, or minor units of points, by `measure`;
    at the highest level `next_tier` is empty and `missing` 0.
    """

    tier: str
    name: str
    good_until: date | None
    next_tier: str
    next_name: str
    missing: int
    measure: TierMeasure


class TierChange(NamedTuple):
    """A receipt raised a member from one level (empty: none) to another, certain until `good_until`."""

    before: str
    after: str
    name: str
    good_until: date


def standing(tiers: Tiers, counters: Mapping[str, CounterFact], day: date) -> Standing:
    """The level as it is on a store-local day, before the day's next receipt, and what is missing to the next."""
    amount = window_amount(tiers, counters, day)
    held: Tier | None = None
    good_until: date | None = None
    following: Tier | None = None
    for level in reversed(tiers.levels):
        until = _certain_until(tiers, counters, level, day)
        if until is None and amount >= level.threshold:
            until = _kept_from(tiers, day)
        if until is not None:
            held, good_until = level, until if level.threshold > 0 else None
            break
        following = level
    return Standing(
        tier=held.code if held else "",
        name=held.name if held else "",
        good_until=good_until,
        next_tier=following.code if following else "",
        next_name=following.name if following else "",
        missing=following.threshold - amount if following else 0,
        measure=tiers.measure,
    )


def standing_changes(
    tiers: Tiers, counters: Mapping[str, CounterFact], counts: Iterable[Count], day: date
) -> tuple[tuple[Count, ...], TierChange | None]:
    """What a receipt adds to the counters of levels, and the level that it raises the member to, if it does.

    `counters` are those before the receipt, `counts` what it adds to them, `day` its store-local day. The counts that
    are returned set `until` of `standing/<tier>`; they also write down what dates that have passed decided.
    """
    added: dict[str, list[Count]] = {}
    for count in counts:
        added.setdefault(count.key, []).append(count)
    more = sum(_measured(tiers, count) for key in window_keys(tiers, day) for count in added.get(key, ()))
    amount = window_amount(tiers, counters, day) + more
    changes: list[Count] = []
    top: Tier | None = None
    top_until = day
    for level in tiers.levels:
        if level.threshold <= 0:
            continue
        until = _certain_until(tiers, counters, level, day)
        if more > 0 and amount >= level.threshold:
            reached_until = _kept_from(tiers, day)
            until = reached_until if until is None else max(until, reached_until)
        if until is None:
            continue
        top, top_until = level, until
        recorded = counters.get(standing_key(level.code), _NOTHING).until
        if recorded != until:
            changes.append(Count(standing_key(level.code), times=1, until=until))
    before = standing(tiers, counters, day).tier
    codes = [level.code for level in tiers.levels]
    if top is None or (before and codes.index(before) >= codes.index(top.code)):
        return tuple(changes), None
    return tuple(changes), TierChange(before, top.code, top.name, top_until)


def lowered(
    tiers: Tiers, before: Mapping[str, CounterFact], after: Mapping[str, CounterFact], day: date
) -> tuple[tuple[Count, ...], TierChange | None]:
    """What becomes of levels when a return has taken something out of the window.

    `before` and `after` are the counters without and with what the return takes, `day` its store-local day. A level
    that the window had brought, and would not have brought without what came back, is certain only as long as the
    newest period makes it in which the window still came to the threshold; without one it is gone. Levels that the
    window had not brought stay as they are. The counts that are returned move `until` of `standing/<tier>` back, or
    drop it.
    """
    changes = []
    for level in tiers.levels:
        key = standing_key(level.code)
        record = before.get(key, _NOTHING)
        if level.threshold <= 0 or record.until is None or record.until < day:
            continue
        kept = _brought_until(tiers, after, level, record.until, day)
        if kept == record.until or _brought_until(tiers, before, level, record.until, day) != record.until:
            continue
        changes.append(Count(key, -record.times, until=day - ONE_DAY) if kept is None else Count(key, until=kept))
    if not changes:
        return (), None
    was, now = standing(tiers, before, day), standing(tiers, counted(after, changes), day)
    if was.tier == now.tier:
        return tuple(changes), None
    return tuple(changes), TierChange(was.tier, now.tier, now.name, now.good_until or day)


def _brought_until(
    tiers: Tiers, counters: Mapping[str, CounterFact], level: Tier, most: date, today: date
) -> date | None:
    """The last certain day, up to `most`, that windows up to today make of a level by counters; None for none."""
    period = _kept_period(tiers)
    last = most
    for _ in range(tiers.kept_periods):
        last = first_day(last, period) - ONE_DAY
    for _ in range(_PERIODS_LOOKED_BACK):
        days = _windows(tiers, first_day(last, period), min(last, today))
        if any(window_amount(tiers, counters, day) >= level.threshold for day in days):
            return _kept_from(tiers, last)
        last = first_day(last, period) - ONE_DAY
    return None


def _windows(tiers: Tiers, first: date, last: date) -> Iterator[date]:
    """Days between two, newest first, one for each window that there was: of months, or of the window's own period."""
    step = tiers.period if tiers.period in (Period.DAY, Period.WEEK) else Period.MONTH
    day = last
    while day >= first:
        yield day
        day = first_day(day, step) - ONE_DAY


def window_keys(tiers: Tiers, day: date) -> Iterator[str]:
    """The counters that the window on a day adds up."""
    if tiers.measure is not TierMeasure.POINTS and tiers.period is not None:
        yield visit_key(tiers.period, day)
        return
    months = tiers.months if tiers.period is None else MONTHS.get(tiers.period, 1)
    last = first_day(day, Period.MONTH)
    if tiers.period is not None:
        last = add_months(first_day(day, tiers.period), months - 1) if tiers.period in MONTHS else last
    for back in range(months):
        month = add_months(last, -back)
        yield tier_key(month) if tiers.measure is TierMeasure.POINTS else visit_key(Period.MONTH, month)


def window_amount(tiers: Tiers, counters: Mapping[str, CounterFact], day: date) -> int:
    """What the window on a day comes to, in the unit of the measure."""
    return sum(_measured(tiers, counters.get(key, _NOTHING)) for key in window_keys(tiers, day))


def _measured(tiers: Tiers, counter: CounterFact | Count) -> int:
    if tiers.measure is TierMeasure.SPEND:
        return counter.money_minor
    return counter.times if tiers.measure is TierMeasure.VISITS else counter.points_minor


def _certain_until(tiers: Tiers, counters: Mapping[str, CounterFact], level: Tier, day: date) -> date | None:
    """The last certain day of a level that is held on `day` by what was written down; None if it is not held."""
    if level.threshold <= 0:
        return date.max
    until = counters.get(standing_key(level.code), _NOTHING).until
    while until is not None and until < day:
        begins = until + ONE_DAY
        decides = until if tiers.kept_periods else begins
        kept = window_amount(tiers, counters, decides) >= level.threshold
        until = end_of_period(begins, _kept_period(tiers)) if kept else None
    return until


def _kept_period(tiers: Tiers) -> Period:
    return tiers.kept_until_end_of or tiers.period or Period.MONTH


def _kept_from(tiers: Tiers, day: date) -> date:
    """The last day on which a level is certain that was reached on `day`."""
    period = _kept_period(tiers)
    last = end_of_period(day, period)
    for _ in range(tiers.kept_periods):
        last = end_of_period(min(last, date.max - ONE_DAY) + ONE_DAY, period)
    return last
