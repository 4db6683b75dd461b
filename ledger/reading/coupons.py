"""Coupons that receipts gave, and who has the uses of coupons, whoever gave them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

TIMEOUT_SECONDS = 5.0


class CouponUse(NamedTuple):
    """One use of a coupon that is taken. ``checkout_key`` names the checkout that keeps it; None if it is used up."""

    slot: int
    checkout_key: bytes | None
    store_id: str
    terminal_id: str
    expires_at: datetime | None


# The uses of coupons that are taken, with the holds that keep them.
READ_COUPON_USES = """
SELECT u.code, u.slot, h.checkout_key, coalesce(h.store_id, ''), coalesce(h.terminal_id, ''), h.expires_at
FROM ledger.coupon_use u LEFT JOIN ledger.hold h ON u.held AND h.book = u.book AND h.number = u.number
WHERE u.code = ANY ($1)
ORDER BY u.code, u.slot
"""

# Which of these codes receipts gave.
READ_ISSUED_CODES = "SELECT code FROM ledger.coupon_issued WHERE code = ANY ($1::text[])"

# Which entries have the uses of a coupon.
READ_USE_PLACES = "SELECT book, number, held FROM ledger.coupon_use WHERE code = $1"

ISSUED_COUPONS = """(
    SELECT book, code, series, member_id, 1::smallint AS uses, valid_from, valid_until FROM ledger.coupon_issued
)"""
"""The coupons that receipts gave, to select from in a statement about coupons; found by code, or by book and member."""


def uses_taken(code: str) -> str:
    """Return the expression for how many uses of a coupon are taken; ``code`` is an expression for its code."""
    return f"(SELECT count(*) FROM ledger.coupon_use u WHERE u.code = {code})"  # noqa: S608 - a name that our own code gives


def is_kept(code: str) -> str:
    """Return the condition that a checkout keeps a use of a coupon; ``code`` is an expression for its code."""
    return f"EXISTS (SELECT FROM ledger.coupon_use u WHERE u.code = {code} AND u.held)"


async def read_issued_codes(conn: asyncpg.Connection, codes: Collection[str]) -> set[str]:
    """Return those of these codes that receipts gave."""
    return {row["code"] for row in await conn.fetch(READ_ISSUED_CODES, list(codes))}


async def read_use_places(conn: asyncpg.Connection, code: str) -> dict[tuple[int, int], bool]:
    """Return which entries have the uses of a coupon, as (book, number), and whether each is only held."""
    return {(row["book"], row["number"]): row["held"] for row in await conn.fetch(READ_USE_PLACES, code)}


async def read_coupon_uses(conn: asyncpg.Connection, codes: Sequence[str]) -> dict[str, list[CouponUse]]:
    """Return the uses that are taken of each of these coupons; none for a coupon of which none is."""
    found: dict[str, list[CouponUse]] = defaultdict(list)
    for code, *use in await conn.fetch(READ_COUPON_USES, codes, timeout=TIMEOUT_SECONDS):
        found[code].append(CouponUse(*use))
    return found
