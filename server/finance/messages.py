"""Finance's plain data as the API's messages, and reports back from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Final, cast

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import finance_pb2

from ledger.finance.checkpoints import Checkpoint
from ledger.finance.closing import ClosedPeriod
from ledger.finance.general_ledger import Journal, Line, lines_table
from ledger.finance.point_value import PointValue
from ledger.finance.scope import By, Measure, Programme, Query
from ledger.finance.table import Column, Kind, Table, Value
from server.edge.validation import read_optional_day
from server.finance.general_ledger import GlExport, Terms

_BY: Final[Mapping[int, By]] = {
    finance_pb2.REPORT_BY_UNSPECIFIED: "month",
    finance_pb2.REPORT_BY_DAY: "day",
    finance_pb2.REPORT_BY_MONTH: "month",
    finance_pb2.REPORT_BY_STORE: "store",
    finance_pb2.REPORT_BY_PARTNER: "partner",
    finance_pb2.REPORT_BY_TOTAL: "total",
}
_MEASURES: Final[Mapping[int, Measure]] = {
    finance_pb2.REPORT_MEASURE_UNSPECIFIED: "points",
    finance_pb2.REPORT_MEASURE_POINTS: "points",
    finance_pb2.REPORT_MEASURE_MONEY: "money",
}
_READERS: Final[Mapping[str, Callable[[str], Value]]] = {
    "text": str,
    "day": date.fromisoformat,
    "moment": datetime.fromisoformat,
    "integer": int,
    "points": int,
    "money": int,
    "ratio": Fraction,
}
"""How the text of a cell becomes a value, by its column's kind."""


def query_of(message: finance_pb2.ReportQuery, programme: Programme) -> Query:
    """Return what a report is asked.

    Raises:
        Refused: INVALID_REQUEST for a day that is not in the calendar.
    """
    return Query(
        programme=programme,
        as_of=message.as_of_close or None,
        from_day=read_optional_day(message.from_day, "query.from_day"),
        to_day=read_optional_day(message.to_day, "query.to_day"),
        store_id=message.store_id or None,
        by=_BY[message.by],
        measure=_MEASURES[message.measure],
    )


def table_message(table: Table) -> finance_pb2.ReportTable:
    """Return a report as a message."""
    return finance_pb2.ReportTable(
        title=table.title,
        columns=[
            finance_pb2.ReportColumn(name=each.name, title=each.title, kind=each.kind, decimals=each.decimals)
            for each in table.columns
        ],
        rows=[finance_pb2.ReportRow(cells=[_text(value) for value in row]) for row in table.rows],
        notes=table.notes,
    )


def table_of(message: finance_pb2.ReportTable) -> Table:
    """Return the report that a message has."""
    columns = tuple(Column(each.name, each.title, cast("Kind", each.kind), each.decimals) for each in message.columns)
    readers = [_READERS[column.kind] for column in columns]
    rows = tuple(
        tuple(read(cell) if cell else None for read, cell in zip(readers, row.cells, strict=True))
        for row in message.rows
    )
    return Table(message.title, columns, rows, tuple(message.notes))


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


def terms_of(message: finance_pb2.PointTerms) -> Terms:
    """Return the point unit that a message has."""
    return Terms(
        message.programme_code, message.unit, message.unit_decimals, message.currency, message.currency_decimals
    )


def terms_message(terms: Terms) -> finance_pb2.PointTerms:
    """Return a point unit with its money."""
    return finance_pb2.PointTerms(**terms._asdict())


def general_ledger_message(
    journal: Journal, checkpoints: Sequence[Checkpoint] | None
) -> finance_pb2.GeneralLedgerResponse:
    """Return the general ledger, with the lines before its first day if it has checkpoints."""
    scope = journal.scope
    response = finance_pb2.GeneralLedgerResponse(
        table=table_message(lines_table(scope, journal.lines)),
        terms=terms_message(Terms.of(scope.programme)),
        last_day="" if scope.last_day == date.max else scope.last_day.isoformat(),
    )
    if checkpoints is not None:
        response.before.CopyFrom(table_message(lines_table(scope, journal.before)))
        for day, accounts, closing in checkpoints:
            checkpoint = response.checkpoints.add(day=day.isoformat(), closing_money_minor=closing)
            for account, points_minor in accounts.items():
                checkpoint.accounts.add(account=account, points_minor=points_minor)
    return response


def export_of_message(response: finance_pb2.GeneralLedgerResponse) -> GlExport:
    """Return the general ledger that a message has."""
    return GlExport(
        terms_of(response.terms),
        response.table.notes[0],
        date.fromisoformat(response.last_day) if response.last_day else date.max,
        [Line(*row) for row in table_of(response.table).rows],  # type: ignore[arg-type]  # as their columns say
        [Line(*row) for row in table_of(response.before).rows],  # type: ignore[arg-type]  # as above
        [
            Checkpoint(
                date.fromisoformat(each.day),
                {one.account: one.points_minor for one in each.accounts},
                each.closing_money_minor,
            )
            for each in response.checkpoints
        ],
    )


def close_message(closed: ClosedPeriod, unit: str, *, with_totals: bool) -> finance_pb2.PeriodClose:
    """Return a close."""
    row = closed.row
    message = finance_pb2.PeriodClose(
        close_number=row.close_number,
        programme_code=row.programme_code,
        unit=unit,
        period=row.period,  # type: ignore[arg-type]  # an int
        from_day=row.from_day.isoformat() if row.from_day else "",
        last_day=row.last_day.isoformat(),
        closed_by=row.closed_by,
        point_value_version=row.point_value_version,
    )
    message.closed_at.FromDatetime(row.closed_at)
    if closed.frozen is not None:
        message.totals_digest = closed.frozen.digest
        message.totals_entry.CopyFrom(api.EntryRef(book=closed.frozen.book, number=closed.frozen.number))
        message.totals = closed.frozen.text if with_totals else ""
    return message


def point_value_message(value: PointValue) -> finance_pb2.PointValue:
    """Return a version of what points are worth."""
    message = finance_pb2.PointValue(
        version=value.version,
        from_month=f"{value.from_month:%Y-%m}",
        value_money_minor=value.value_money_minor,
        value_points_minor=value.value_points_minor,
        breakage_ppm=value.breakage_ppm,
        recorded_by=value.recorded_by,
    )
    message.recorded_at.FromDatetime(value.recorded_at)
    return message
