"""The general ledger's journal in its own accounts: lines of the books under an account map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import NamedTuple

from ledger.finance.checkpoints import Checkpoint
from ledger.finance.general_ledger import VALUED, Journal, Line
from ledger.finance.scope import Programme
from ledger.finance.table import Column, Table, Value
from server.finance.account_map import AccountMap, GlAccount


class Terms(NamedTuple):
    """A point unit and the money in which it is valued."""

    programme_code: str
    unit: str
    unit_decimals: int
    currency: str
    currency_decimals: int

    @classmethod
    def of(cls, programme: Programme) -> Terms:
        """Return those of a programme."""
        unit = programme.unit
        return cls(programme.code, unit.code, unit.precision, programme.currency, programme.currency_digits)


@dataclass(frozen=True, slots=True)
class GlExport:
    """What an export is made of: the lines, those before the first day, and what proves them."""

    terms: Terms
    note: str
    last_day: date
    lines: Sequence[Line]
    before: Sequence[Line] = ()
    checkpoints: Sequence[Checkpoint] = ()


def export_of(journal: Journal, checkpoints: Sequence[Checkpoint] = ()) -> GlExport:
    """Return a journal that was read here as an export."""
    scope = journal.scope
    return GlExport(Terms.of(scope.programme), scope.note(), scope.last_day, journal.lines, journal.before, checkpoints)


class Booking(NamedTuple):
    """Points and money, in minor units, that one account is debited with and another credited."""

    debit: GlAccount
    credit: GlAccount
    points_minor: int
    money_minor: int


class Transaction(NamedTuple):
    """The bookings of one accounting day and kind of event; `close_number` is None while the day is open."""

    day: date
    close_number: int | None
    kind: str
    bookings: tuple[Booking, ...]

    @property
    def document(self) -> str:
        """The number under which the enterprise system files it: the same whenever the day is exported again."""
        return f"{self.day}/{self.kind}"


def transactions(lines: Iterable[Line], account_map: AccountMap) -> list[Transaction]:
    """Return the lines as transactions; what moves within one account of the general ledger is left out."""
    found = []
    for (day, close_number, kind), of_kind in groupby(lines, key=lambda line: (line.day, line.close_number, line.kind)):
        sums: dict[tuple[GlAccount, GlAccount], tuple[int, int]] = {}
        for line in of_kind:
            accounts = (account_map.account(line.debit), account_map.account(line.credit))
            points, money = sums.get(accounts, (0, 0))
            sums[accounts] = (points + line.points_minor, money + line.money_minor)
        bookings = tuple(Booking(*pair, *figures) for pair, figures in sums.items() if pair[0].name != pair[1].name)
        if bookings:
            found.append(Transaction(day, close_number, kind, bookings))
    return found


def journal_table(export: GlExport, account_map: AccountMap) -> Table:
    """Return the journal for import: two rows a booking, debit first; each document is balanced."""
    points, money, currency = export.terms.unit_decimals, export.terms.currency_decimals, export.terms.currency
    columns = (
        Column("day", "Day", "day"),
        Column("document", "Document", "text"),
        Column("close", "Close", "integer"),
        Column("account", "Account", "text"),
        Column("name", "Name", "text"),
        Column("debit_points", "Debit, points", "points", points),
        Column("credit_points", "Credit, points", "points", points),
        Column("debit_money", f"Debit, {currency}", "money", money),
        Column("credit_money", f"Credit, {currency}", "money", money),
    )
    rows: list[tuple[Value, ...]] = []
    for transaction in transactions(export.lines, account_map):
        head = (transaction.day, transaction.document, transaction.close_number)
        for debit, credit, points_minor, money_minor in transaction.bookings:
            rows.append((*head, debit.number, debit.name, points_minor, 0, money_minor, 0))
            rows.append((*head, credit.number, credit.name, 0, points_minor, 0, money_minor))
    return Table("General-ledger journal", columns, tuple(rows), (export.note, VALUED))
