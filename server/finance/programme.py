"""The programme as finance sees it: its point unit, its money, and what a point pays."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ledger.finance.scope import Programme

if TYPE_CHECKING:
    from server.promotions import Rules
    from server.promotions.model import PointUnit
    from server.rules.book import RulesBook


def programme_of(book: RulesBook, unit: str, at: datetime) -> Programme | None:
    """Return the programme of a point unit at a time, of its own unit for an empty code; None if there is none.

    To finance, each further unit of a programme, such as gift points, is a programme of its own, named
    ``<programme>/<unit>``: it has its own reports, point values and closes.
    """
    rules = book.with_unit(unit, at)
    if rules is None:
        return None
    if unit in {"", rules.programme.point.unit}:
        return _programme(book, rules, rules.programme.code, rules.programme.point)
    (point,) = (each.point for each in rules.programme.units if each.point.unit == unit)
    return _programme(book, rules, f"{rules.programme.code}/{unit}", point)


def _programme(book: RulesBook, rules: Rules, code: str, point: PointUnit) -> Programme:
    programme = rules.programme
    unit = book.unit_named(point.unit)
    return Programme(code, unit, programme.currency, programme.currency_digits, point.money_per_points)
