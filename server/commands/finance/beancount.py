"""The general ledger as beancount text: what `bean-check` proves, anybody can read.

A positive amount is a debit. Points are a commodity of their own beside the currency, so both must balance. After
every closed month, and at the end, the text asserts balances that were added up another way: the points of the trial
balance, and the money of the liability roll-forward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.finance.general_ledger import Line
from server.finance.account_map import AccountMap, GlAccount
from server.finance.general_ledger import GlExport, Transaction, transactions

ACCOUNT_WIDTH: Final = 44
AMOUNT_WIDTH: Final = 22
IN_LOTS: Final = ("available", "pending")


class Amount(NamedTuple):
    """Minor units of a commodity with so many decimal places; positive is a debit."""

    minor: int
    decimals: int
    commodity: str

    def __str__(self) -> str:
        """Return it as beancount writes it, such as ``-12.50 UAH``."""
        return f"{Decimal(self.minor).scaleb(-self.decimals):f} {self.commodity}"


class Check(NamedTuple):
    """The balance that an account must have at the end of a day."""

    day: date
    account: str
    amount: Amount


class _Commodities(NamedTuple):
    """Points and money of one programme, as amounts."""

    unit: str
    unit_decimals: int
    currency: str
    currency_decimals: int

    def points(self, minor: int) -> Amount:
        return Amount(minor, self.unit_decimals, self.unit)

    def money(self, minor: int) -> Amount:
        return Amount(minor, self.currency_decimals, self.currency)


def beancount_text(export: GlExport, account_map: AccountMap) -> str:
    """Return the general ledger as beancount text, with directives for every checkpoint.

    One that does not begin with the first day begins with a transaction that brings the balances forward.
    """
    terms = export.terms
    commodities = _Commodities(
        account_map.commodity(terms.unit), terms.unit_decimals, terms.currency, terms.currency_decimals
    )
    booked = transactions(export.lines, account_map)
    brought = _balances(export.before, account_map)
    lines = [
        f'option "title" "Loyalty points of {terms.programme_code}"',
        f'option "operating_currency" "{commodities.currency}"',
        f"; {export.note}",
    ]
    first = export.lines[0].day if export.lines else export.last_day
    if booked or brought:
        codes = {code for line in (*export.before, *export.lines) for code in (line.debit, line.credit)}
        accounts = [account_map.account(code) for code in sorted(codes)]
        lines += ["", *_declarations(first, booked, brought, accounts, commodities)]
    if brought:
        lines += ["", f'{first} * "Brought forward"', *_brought(brought, commodities)]
    for transaction in booked:
        lines += ["", *_transaction(transaction, commodities)]
    known = _names(booked) | set(brought)
    held = [
        check for check in _checks(export, account_map, commodities) if check.account in known and check.day >= first
    ]
    if held:
        lines.append("")
    lines += [_assertion(check) for check in held]
    return "\n".join(lines) + "\n"


def _names(booked: Sequence[Transaction]) -> set[str]:
    return {account.name for each in booked for booking in each.bookings for account in (booking.debit, booking.credit)}


def _declarations(
    day: date,
    booked: Sequence[Transaction],
    brought: Mapping[str, tuple[int, int]],
    accounts: Sequence[GlAccount],
    commodities: _Commodities,
) -> list[str]:
    lines = [f"{day} commodity {commodities.unit}", f"{day} commodity {commodities.currency}", ""]
    numbers: dict[str, str] = {}
    for account in accounts:
        numbers.setdefault(account.name, account.number)
    for name in sorted(_names(booked) | set(brought)):
        lines.append(f"{day} open {name:{ACCOUNT_WIDTH}} {commodities.unit},{commodities.currency}")
        if numbers[name]:
            lines.append(f"  number: {_quoted(numbers[name])}")
    return lines


def _transaction(transaction: Transaction, commodities: _Commodities) -> list[str]:
    lines = [f"{transaction.day} * {_quoted(transaction.kind)}", f"  document: {_quoted(transaction.document)}"]
    if transaction.close_number is not None:
        lines.append(f"  close: {transaction.close_number}")
    for debit, credit, points_minor, money_minor in transaction.bookings:
        for amount in (commodities.points(points_minor), commodities.money(money_minor)):
            lines += _legs(debit, credit, amount)
    return lines


def _legs(debit: GlAccount, credit: GlAccount, amount: Amount) -> list[str]:
    if not amount.minor:
        return []
    return [_leg(debit.name, amount), _leg(credit.name, amount._replace(minor=-amount.minor))]


def _assertion(check: Check) -> str:
    """Return the directive for a check: beancount looks at the morning of a day, and would let a cent pass."""
    figure, commodity = str(check.amount).split()
    return f"{check.day + timedelta(days=1)} balance {check.account:{ACCOUNT_WIDTH}} {figure} ~ 0 {commodity}"


def _leg(account: str, amount: Amount) -> str:
    figure, commodity = str(amount).split()
    return f"  {account:{ACCOUNT_WIDTH}} {figure:>{AMOUNT_WIDTH}} {commodity}"


def _brought(balances: Mapping[str, tuple[int, int]], commodities: _Commodities) -> list[str]:
    amounts = [
        (account, amount)
        for account, (points_minor, money_minor) in balances.items()
        for amount in (commodities.points(points_minor), commodities.money(money_minor))
    ]
    return [_leg(account, amount) for account, amount in amounts if amount.minor]


def _balances(lines: Iterable[Line], account_map: AccountMap) -> dict[str, tuple[int, int]]:
    """Return what lines leave on each account, debits less credits, of points and of money; not what is level."""
    points, money = defaultdict[str, int](int), defaultdict[str, int](int)
    for line in lines:
        for code, sign in ((line.debit, 1), (line.credit, -1)):
            name = account_map.account(code).name
            points[name] += sign * line.points_minor
            money[name] += sign * line.money_minor
    return {name: (points[name], money[name]) for name in sorted(points) if points[name] or money[name]}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- what the text asserts ----------------------------------------------------------------------------------------


def _checks(export: GlExport, account_map: AccountMap, commodities: _Commodities) -> list[Check]:
    """Return the balances of the checkpoints, in the accounts of the general ledger."""
    checks: list[Check] = []
    for day, by_account, closing in export.checkpoints:
        points: dict[str, int] = defaultdict(int)
        for name, balance in by_account.items():
            points[account_map.account(name).name] -= balance
        checks += [Check(day, name, commodities.points(minor)) for name, minor in sorted(points.items())]
        own = _balances([line for line in (*export.before, *export.lines) if line.day <= day], account_map)
        checks += [Check(day, name, commodities.money(minor)) for name, minor in _liability(closing, own, account_map)]
    return checks


def _liability(
    closing_minor: int, own: Mapping[str, tuple[int, int]], account_map: AccountMap
) -> list[tuple[str, int]]:
    """Return what the roll-forward says of the account of points in lots, if there is one account for all of them.

    The roll-forward has what members owe taken off already, the general ledger shows it as an asset.
    """
    names = {account_map.account(code).name for code in IN_LOTS}
    if len(names) != 1:
        return []
    name, debt = names.pop(), account_map.account("debt").name
    owed = own[debt][1] if debt != name and debt in own else 0
    return [(name, -closing_minor - owed)]
