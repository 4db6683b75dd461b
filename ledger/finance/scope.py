"""What a report is asked, and what belongs to it: now, or as of a close for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Final, Literal, NamedTuple

import asyncpg

from ledger.entry.model import Unit
from ledger.finance.accounts import account_name
from ledger.finance.point_value import NEWEST, PointValues, read_point_values
from ledger.reading.partners import read_partner_codes

By = Literal["day", "month", "store", "partner", "total"]
Measure = Literal["points", "money"]


class QueryError(ValueError):
    """A query cannot be answered. ``field`` is the field at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Programme(NamedTuple):
    """A programme as finance sees it.

    ``pays`` is the money, in minor units, that one minor unit of points pays: what points are worth as long as nobody
    has recorded another value. ``currency_digits`` are the decimal places of the money.
    """

    code: str
    unit: Unit
    currency: str
    currency_digits: int
    pays: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a report is asked. Days are accounting days, both included; ``as_of`` is a close's number.

    A report that has no use for a field ignores it.
    """

    programme: Programme
    as_of: int | None = None
    from_day: date | None = None
    to_day: date | None = None
    store_id: str | None = None
    by: By = "month"
    measure: Measure = "points"


@dataclass(frozen=True, slots=True)
class Scope:
    """What belongs to a report, and how it is valued.

    These are the entries of earlier periods than ``before_period`` with accounting days up to ``last_day``.
    """

    programme: Programme
    as_of: int | None
    before_period: int
    last_day: date
    values: PointValues
    partners: Mapping[int, str] = field(default_factory=dict)
    """The partners' codes by their accounts."""

    @property
    def parameters(self) -> tuple[int, int, date]:
        """The values of $1, $2 and $3 in ``unit = $1 AND period < $2 AND accounting_day <= $3``."""
        return self.programme.unit.number, self.before_period, self.last_day

    def account_name(self, account: int) -> str:
        """Return the name of an account, such as ``available`` or ``partner:pharmacy``."""
        return account_name(account, self.partners)

    def note(self) -> str:
        """Return the sentence that says what a report is as of."""
        if self.as_of is None:
            return "As of now: figures after the last close still change."
        return f"As of close {self.as_of} (up to {self.last_day})."


class CloseRow(NamedTuple):
    """A row of ``ledger.close``. ``period`` is a ``journal_pb2.ClosePeriod``."""

    unit: int
    close_number: int
    programme_code: str
    period: int
    from_day: date | None
    last_day: date
    closed_at: datetime
    closed_by: str
    currency: str
    currency_digits: int
    point_value_version: int
    default_money_minor: int
    default_points_minor: int


CLOSE_COLUMNS: Final = ", ".join(CloseRow._fields)

# Read one close.
READ_CLOSE: Final = f"SELECT {CLOSE_COLUMNS} FROM ledger.close WHERE unit = $1 AND close_number = $2"  # noqa: S608 - our own columns


async def open_scope(conn: asyncpg.Connection, query: Query) -> Scope:
    """Return what belongs to a report.

    Raises:
        QueryError: there is no such close, or the days are in the wrong order.
    """
    programme = query.programme
    if query.from_day is not None and query.to_day is not None and query.from_day > query.to_day:
        raise QueryError("from_day", f"the first day, {query.from_day}, is after the last one, {query.to_day}")
    if query.as_of is None:
        versions = await read_point_values(conn, programme.unit.number)
        values = PointValues(tuple(versions), programme.pays)
        return Scope(programme, None, NEWEST, query.to_day or date.max, values, await read_partner_codes(conn))
    row = await conn.fetchrow(READ_CLOSE, programme.unit.number, query.as_of)
    if row is None:
        raise QueryError("as_of_close", f"point unit {programme.unit.code!r} has no close {query.as_of}")
    return await scope_of_close(conn, CloseRow(*row), programme.unit, query.to_day)


async def scope_of_close(conn: asyncpg.Connection, close: CloseRow, unit: Unit, to_day: date | None = None) -> Scope:
    """Return what belongs to reports as of a close, with the programme's terms as they were then."""
    pays = Fraction(close.default_money_minor, close.default_points_minor)
    programme = Programme(close.programme_code, unit, close.currency, close.currency_digits, pays)
    versions = await read_point_values(conn, unit.number, close.point_value_version)
    last_day = min(close.last_day, to_day or date.max)
    values, partners = PointValues(tuple(versions), pays), await read_partner_codes(conn)
    return Scope(programme, close.close_number, close.close_number, last_day, values, partners)
