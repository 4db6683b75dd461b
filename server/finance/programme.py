"""The programme as finance sees it: its point unit, its money, and what a point pays."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ledger.finance.scope import Programme

if TYPE_CHECKING:
    from server.rules import RulesBook


def programme_of(book: RulesBook, unit: str, at: datetime) -> Programme | None:
    """Return the programme of a point unit at a time, of any unit for an empty code; None if there is none."""
    rules = book.of_unit(unit, at)
    if rules is None:
        return None
    programme = rules.programme
    return Programme(
        programme.code,
        book.unit(rules),
        programme.currency,
        programme.currency_digits,
        programme.point.money_per_points,
    )
