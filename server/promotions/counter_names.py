"""Keys of counters and shared limits: what is counted under which name. Pure text and dates.

A member's counters (one row a member in the books) are named

* `visit/<period>/<first day>` and `visit/ever`: receipts, money paid, points earned;
* `tier/month/<first day>`: tier points;
* `use/<owner>/<period>/<first day>` and `use/<owner>/ever`: how often a promotion applied, money taken off, points
  granted; the owner is the promotion's id, or `@` and the campaign's;
* those of further effects, as their rooms in `effects` say: `draw/<draw>`, `club/<club>`;
* `standing/<tier>`: the level that a member has, whose `until` is the last day on which it is certain.

Limits that members share (of a store, or of all) are named
`shared/<owner>/<measure>[/store/<store id>][/<period>/<first day>]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from server.promotions.arithmetic import add_days, end_of_period
from server.promotions.counts import Count
from server.promotions.facts import CounterFact
from server.promotions.kinds import LimitScope, Period
from server.promotions.model import Limit

KEPT_DAYS = 400
"""For how long after its period a counter is kept: rolling windows of 12 months look back at it, returns too."""

KEPT_DAYS_SHORT = 35
"""The same for days and weeks, of which there are many."""

SHARED_PREFIX = "shared/"
"""How the names of limits begin that members share; no member's counter begins so."""

MONTHS = {Period.MONTH: 1, Period.QUARTER: 3, Period.HALF_YEAR: 6, Period.YEAR: 12}


def first_day(day: date, period: Period) -> date:
    """The first day of the period that `day` lies in; weeks begin on Monday."""
    if period is Period.DAY:
        return day
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    months = MONTHS[period]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def period_key(prefix: str, period: Period | None, day: date) -> str:
    """`prefix` with the period that `day` lies in; None means for ever."""
    return f"{prefix}/ever" if period is None else f"{prefix}/{period.value}/{first_day(day, period)}"


def visit_key(period: Period | None, day: date) -> str:
    """The counter of receipts and money paid in a period."""
    return period_key("visit", period, day)


def tier_key(day: date) -> str:
    """The counter of tier points in a month."""
    return period_key("tier", Period.MONTH, day)


def use_key(owner: str, period: Period | None, day: date) -> str:
    """The counter of a member's uses of a promotion or campaign."""
    return period_key(f"use/{owner}", period, day)


def shared_key(owner: str, limit: Limit, store_id: str, day: date) -> str:
    """The name of a limit of a store or of all, in the period that `day` lies in."""
    key = f"{SHARED_PREFIX}{owner}/{limit.measure.value}"
    if limit.scope is LimitScope.STORE:
        key += f"/store/{store_id}"
    return key if limit.period is None else period_key(key, limit.period, day)


def standing_key(tier: str) -> str:
    """The counter that a level stands in."""
    return f"standing/{tier}"


def kept_until(period: Period | None, day: date) -> date | None:
    """The day until which a counter of a period is worth keeping; None: for ever."""
    if period is None:
        return None
    return add_days(end_of_period(day, period), KEPT_DAYS if period in MONTHS else KEPT_DAYS_SHORT)


def counted(counters: Mapping[str, CounterFact], counts: Iterable[Count]) -> dict[str, CounterFact]:
    """The counters after a receipt has added its counts."""
    after = dict(counters)
    for key, times, money_minor, points_minor, until in counts:
        before = after.get(key, CounterFact())
        after[key] = CounterFact(
            before.times + times,
            before.money_minor + money_minor,
            before.points_minor + points_minor,
            until or before.until,
        )
    return after
