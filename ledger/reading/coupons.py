"""Who has the uses of coupons: what a till asks before it lets one count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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


async def read_coupon_uses(conn: asyncpg.Connection, codes: Sequence[str]) -> dict[str, list[CouponUse]]:
    """Return the uses that are taken of each of these coupons; none for a coupon of which none is."""
    found: dict[str, list[CouponUse]] = defaultdict(list)
    for code, *use in await conn.fetch(READ_COUPON_USES, codes, timeout=TIMEOUT_SECONDS):
        found[code].append(CouponUse(*use))
    return found
