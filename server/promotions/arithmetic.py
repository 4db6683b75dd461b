"""Exact arithmetic and calendar rules of promotions: integers and dates only, no float, no clock."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from server.promotions.kinds import Period

if TYPE_CHECKING:  # the model has effects, and they count
    from server.promotions.model import Expiry

MONTHS_PER_YEAR = 12
MONTHS_IN_PERIOD = {Period.MONTH: 1, Period.QUARTER: 3, Period.HALF_YEAR: 6, Period.YEAR: 12}
UNIT_MILLI = 1000
"""One piece, kilogram or litre, in the thousandths that quantities are counted in."""
MOST_POINTS_MINOR = 10**15
"""The most that one receipt gives or spends of a unit, in its smallest fraction: sums of thousands fit 64 bits."""
_LEAP_DAY = (2, 29)


def half_up_div(numerator: int, denominator: int) -> int:
    """Divide and round to the nearest integer, halves up (2.5 gives 3); `denominator` is positive."""
    return (2 * numerator + denominator) // (2 * denominator)


def spread_largest_remainder(total: int, weights: Sequence[int], limits: Sequence[int] | None = None) -> list[int]:
    """Split `total` in proportion to `weights` by largest remainder, ties to the earlier position.

    With `limits` no part exceeds its limit; what a limit turns away goes to the others, again in
    proportion. The parts sum to `total`, or to what the limits permit if that is less. A weight of zero
    takes nothing. All arguments are non-negative.

    >>> spread_largest_remainder(10000, [20000, 20000, 10000])
    [4000, 4000, 2000]
    """
    parts = [0] * len(weights)
    if limits is None:
        _spread_freely(total, weights, range(len(weights)), parts)
        return parts
    active = [i for i, weight in enumerate(weights) if weight > 0 and limits[i] > 0]
    left = min(total, sum(limits[i] for i in active))
    while True:
        weight_sum = sum(weights[i] for i in active)
        full = {i for i in active if left * weights[i] > limits[i] * weight_sum}
        if not full:
            break
        for i in full:
            parts[i] = limits[i]
            left -= limits[i]
        active = [i for i in active if i not in full]
    _spread_freely(left, weights, active, parts)
    return parts


def _spread_freely(total: int, weights: Sequence[int], active: Sequence[int], parts: list[int]) -> None:
    weight_sum = sum(weights[i] for i in active)
    if total <= 0 or weight_sum <= 0:
        return
    remainders = []
    left = total
    for i in active:
        parts[i], remainder = divmod(total * weights[i], weight_sum)
        left -= parts[i]
        remainders.append((-remainder, i))
    if left:
        remainders.sort()
        for _, i in remainders[:left]:
            parts[i] += 1


def counted_units(quantity_milli: int, is_weighed: bool) -> int:
    """Units of a line for counting: its whole pieces (a part of a piece counts for nothing); a weighed line is one."""
    return 1 if is_weighed else quantity_milli // UNIT_MILLI


def add_months(day: date, months: int) -> date:
    """The same day `months` later, or the last day of that month: 31 January + 1 is 28 (29) February."""
    year, month0 = divmod(day.year * MONTHS_PER_YEAR + day.month - 1 + months, MONTHS_PER_YEAR)
    if year > date.max.year:
        return date.max
    return date(year, month0 + 1, min(day.day, calendar.monthrange(year, month0 + 1)[1]))


def end_of_period(day: date, period: Period) -> date:
    """The last day of the period that `day` lies in; weeks end on Sunday."""
    if period is Period.DAY:
        return day
    if period is Period.WEEK:
        return add_days(day, 6 - day.weekday())
    months = MONTHS_IN_PERIOD[period]
    last_month = (day.month - 1) // months * months + months
    return date(day.year, last_month, calendar.monthrange(day.year, last_month)[1])


def add_days(day: date, days: int) -> date:
    """The day `days` later, held at the calendar's last day instead of overflowing."""
    return day + timedelta(days=min(days, (date.max - day).days))


def expiry_date(granted_on: date, rule: Expiry | None) -> date | None:
    """The last day on which points granted on `granted_on` are good; None if they never expire."""
    if rule is None:
        return None
    if rule.on is not None:
        return rule.on
    last = add_days(add_months(granted_on, rule.after_months), rule.after_days)
    return last if rule.round_up_to is None else end_of_period(last, rule.round_up_to)


def anniversary(birthday: date, year: int) -> date:
    """The birthday as kept in `year`: 29 February is kept on 28 February in common years."""
    if (birthday.month, birthday.day) == _LEAP_DAY and not calendar.isleap(year):
        return birthday.replace(year, day=28)
    return birthday.replace(year)


def in_birthday_window(birthday: date, on: date, days_before: int, days_after: int) -> bool:
    """Whether `on` lies within the days before and after a birthday, across the turn of the year too."""
    first_year, last_year = max(on.year - 1, date.min.year), min(on.year + 1, date.max.year)
    return any(
        -days_before <= (on - anniversary(birthday, year)).days <= days_after
        for year in range(first_year, last_year + 1)
    )
