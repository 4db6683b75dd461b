"""What members have at a moment, whether or not anything was booked since their points changed with time.

The caches say what members had after their newest entry. Of an account that has changed with time since then, lots
and holds are read too, and the function that passes time in ``decide`` passes it on a throw-away copy: so a read is
what the next entry would begin with, however late the sweeper is.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ledger.entry.model import Account, AccountKey, HoldPart, Lot, OpenHold, Unit
from ledger.entry.movement import Draft, Movement, spending_order

_NO_ENTRY = 0
"""Stands for the entry that would be booked: no lot and no hold has this number."""


class BalanceAt(NamedTuple):
    """A member's points of one unit, judged at one moment. ``expiring_*`` is what lapses next, if anything does."""

    unit: Unit
    available_minor: int
    pending_minor: int
    held_minor: int
    debt_minor: int
    expiring_minor: int
    expires_at: datetime | None


class AccountAt(NamedTuple):
    """A member's account of one unit, judged at one moment.

    ``lots`` have points left or held and stand in the order in which they will be spent, ``holds`` are open and stand
    in the order in which they began.
    """

    balance: BalanceAt
    lots: list[Lot]
    holds: list[OpenHold]


# The lots of balance b, in the order of model.Lot's fields.
_LOTS = """
SELECT array_agg(ROW(l.number, l.ordinal, l.granted_minor, l.remaining_minor, l.pending, l.active_at, l.expires_at,
                     l.held_minor))
FROM ledger.lot l WHERE l.book = b.book AND l.member_id = b.member_id AND l.unit = b.unit
"""

# The open holds of balance b, in the order of model.OpenHold's fields.
_HOLDS = """
SELECT array_agg(ROW(h.number, h.member_id, h.unit, h.checkout_key, h.store_id, h.terminal_id, h.points_minor,
                     h.held_at, h.expires_at,
                     (SELECT array_agg(ROW(p.lot_number, p.lot_ordinal, p.points_minor) ORDER BY p.ordinal)
                      FROM ledger.hold_part p WHERE p.book = h.book AND p.hold_number = h.number))
                 ORDER BY h.number)
FROM ledger.hold h WHERE h.book = b.book AND h.member_id = b.member_id AND h.unit = b.unit AND h.how IS NULL
"""

# Balances of many members as of $3. Where time has changed nothing since the newest entry, the figures stand, and
# only what lapses next is looked up; where it has, lots and holds come along.
READ_BALANCES = f"""
SELECT b.member_id, b.unit, u.code, u.precision, b.available_minor, b.pending_minor, b.held_minor, b.debt_minor,
       b.next_change_at,
       CASE WHEN b.next_change_at > $3 THEN (
           SELECT ROW(sum(l.remaining_minor)::bigint, l.expires_at)
           FROM ledger.lot l
           WHERE l.book = b.book AND l.member_id = b.member_id AND l.unit = b.unit AND l.expires_at > $3
             AND l.remaining_minor > 0
           GROUP BY l.expires_at ORDER BY l.expires_at LIMIT 1
       ) END AS expiring,
       CASE WHEN b.next_change_at <= $3 THEN ({_LOTS}) END AS lots,
       CASE WHEN b.next_change_at <= $3 THEN ({_HOLDS}) END AS holds
FROM unnest($1::int[], $2::uuid[]) AS wanted (book, member_id)
JOIN ledger.balance b ON b.book = wanted.book AND b.member_id = wanted.member_id
JOIN ledger.unit u ON u.unit = b.unit
ORDER BY b.unit
"""  # noqa: S608 - the two queries above

# One member's balances with all lots and open holds.
READ_ACCOUNTS = f"""
SELECT b.member_id, b.unit, u.code, u.precision, b.available_minor, b.pending_minor, b.held_minor, b.debt_minor,
       b.next_change_at, ({_LOTS}) AS lots, ({_HOLDS}) AS holds
FROM ledger.balance b JOIN ledger.unit u ON u.unit = b.unit
WHERE b.book = $1 AND b.member_id = $2
ORDER BY b.unit
"""  # noqa: S608 - the two queries above

# How many accounts time has changed since their newest entry, book by book.
COUNT_DUE = "SELECT book, count(*) AS accounts FROM ledger.balance WHERE next_change_at <= $1 GROUP BY book"

# A page of one book's members whom time has changed, longest ago first; once for each of their accounts.
READ_DUE = """
SELECT member_id FROM ledger.balance WHERE book = $1 AND next_change_at <= $2 ORDER BY next_change_at LIMIT $3
"""

# What members have in point units, by the units' codes.
SUM_OWNED = """
SELECT u.code, count(*) AS members, sum(b.available_minor + b.pending_minor + b.held_minor)::bigint AS points_minor
FROM ledger.balance b JOIN ledger.unit u USING (unit)
WHERE u.code = ANY ($1) AND b.available_minor + b.pending_minor + b.held_minor > 0
GROUP BY u.code
"""


class Owned(NamedTuple):
    """How many members have points of a unit, and how many they have together, pending and held ones too."""

    members: int
    points_minor: int


def has_points(member: str) -> str:
    """Return the condition that somebody has or owes points of any unit, for a statement about members.

    ``member`` is the name of a row there that has a member's ``book`` and ``member_id``.
    """
    return f"""EXISTS (
        SELECT FROM ledger.balance b WHERE b.book = {member}.book AND b.member_id = {member}.member_id
          AND (b.available_minor > 0 OR b.pending_minor > 0 OR b.held_minor > 0 OR b.debt_minor > 0))"""


async def count_due(conn: asyncpg.Connection, at: datetime) -> dict[int, int]:
    """Return how many accounts time has changed since their newest entry, by book; books without are missing."""
    return {row["book"]: row["accounts"] for row in await conn.fetch(COUNT_DUE, at)}


async def read_due_members(conn: asyncpg.Connection, book: int, at: datetime, limit: int) -> list[uuid.UUID]:
    """Return the members behind up to ``limit`` accounts of a book that time has changed, longest ago first."""
    return list(dict.fromkeys(row["member_id"] for row in await conn.fetch(READ_DUE, book, at, limit)))


async def sum_owned(conn: asyncpg.Connection, units: Collection[str]) -> dict[str, Owned]:
    """Return what members have of point units, by the units' codes; units of which nobody has any are missing.

    All balances are read: about a second for some million members.
    """
    rows = await conn.fetch(SUM_OWNED, sorted(units))
    return {row["code"]: Owned(row["members"], row["points_minor"]) for row in rows}


async def read_balances(
    conn: asyncpg.Connection, members: Sequence[tuple[int, uuid.UUID]], at: datetime, timeout_seconds: float = 5.0
) -> dict[uuid.UUID, list[BalanceAt]]:
    """Return the balances of members, given as (book, member id), judged at ``at``; none for those without entries."""
    books = [book for book, _ in members]
    ids = [member_id for _, member_id in members]
    found: dict[uuid.UUID, list[BalanceAt]] = defaultdict(list)
    for row in await conn.fetch(READ_BALANCES, books, ids, at, timeout=timeout_seconds):
        unit = Unit(row["unit"], row["code"], row["precision"])
        account = _account(row)
        if account.next_change_at is not None and account.next_change_at <= at:
            pass_time((row["member_id"], unit.number), account, at)
            expiring = next_to_lapse(account.lots or (), at)
        else:
            expiring = row["expiring"] or (0, None)
        found[row["member_id"]].append(_balance(unit, account, *expiring))
    return found


async def read_accounts(
    conn: asyncpg.Connection, book: int, member_id: uuid.UUID, at: datetime, timeout_seconds: float = 5.0
) -> list[AccountAt]:
    """Return a member's accounts with lots and open holds, judged at ``at``; none for a member without entries."""
    accounts = []
    for row in await conn.fetch(READ_ACCOUNTS, book, member_id, timeout=timeout_seconds):
        unit = Unit(row["unit"], row["code"], row["precision"])
        account = _account(row)
        pass_time((member_id, unit.number), account, at)
        lots = spending_order(account.lots or ())
        balance = _balance(unit, account, *next_to_lapse(lots, at))
        accounts.append(AccountAt(balance, lots, account.holds or []))
    return accounts


def pass_time(key: AccountKey, account: Account, at: datetime) -> None:
    """Change an account, with its lots and holds, to what it is at a moment; nothing is booked."""
    movement = Movement(Draft(_NO_ENTRY, at, {}), key, account)
    movement.pass_time()
    movement.close()


def next_to_lapse(lots: Iterable[Lot], at: datetime) -> tuple[int, datetime | None]:
    """Return how many points lapse next after a moment, and when; what checkouts hold is not among them."""
    points_minor: dict[datetime, int] = defaultdict(int)
    for lot in lots:
        if lot.expires_at is not None and lot.expires_at > at and lot.remaining_minor > 0:
            points_minor[lot.expires_at] += lot.remaining_minor
    if not points_minor:
        return 0, None
    first = min(points_minor)
    return points_minor[first], first


def _account(row: asyncpg.Record) -> Account:
    return Account(
        row["available_minor"],
        row["pending_minor"],
        row["held_minor"],
        row["debt_minor"],
        row["next_change_at"],
        [Lot(*lot) for lot in row["lots"] or ()],
        [_open_hold(hold) for hold in row["holds"] or ()],
    )


def _open_hold(columns: tuple[Any, ...]) -> OpenHold:
    *fields, parts = columns
    fields.append(tuple(HoldPart(*part) for part in parts or ()))
    return OpenHold(*fields)


def _balance(unit: Unit, account: Account, expiring_minor: int, expires_at: datetime | None) -> BalanceAt:
    return BalanceAt(
        unit,
        account.available_minor,
        account.pending_minor,
        account.held_minor,
        account.debt_minor,
        expiring_minor,
        expires_at,
    )
