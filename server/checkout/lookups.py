"""Look-ups in the books that only some calls make: holds, checkouts, booked receipts. They share one connection."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ledger.reading.coupons import CouponUse, read_coupon_uses
from ledger.reading.lookups import (
    BookedReceipt,
    CheckoutHold,
    HeldPoints,
    read_checkout_holds,
    read_open_holds,
    read_receipts,
    read_used_messages,
)
from server.base.clock import Clock
from server.base.gather import Gatherer

if TYPE_CHECKING:
    from server.base.database import Connection
    from server.base.gather import Connect

_HOLDS: Final = "holds"
_CHECKOUT: Final = "checkout"
_RECEIPT: Final = "receipt"
_MESSAGE: Final = "message"
_COUPON: Final = "coupon"

_Key = tuple[str, Any]
"""What is asked, and for what: a member's place, a checkout's or receipt's key, a message id."""


class LedgerReader:
    """Reads the books for the calls of one process; what is asked at the same time travels in one round of queries.

    Every method raises Refused LEDGER_UNAVAILABLE or OVERLOADED, as ``Gatherer.get`` does.
    """

    def __init__(self, connect: Connect, clock: Clock) -> None:
        """Take a function that opens a connection, and the clock by which holds expire. Nothing is opened yet."""
        self._clock = clock
        self._lookups: Gatherer[_Key, Any] = Gatherer("ledger look-ups", connect, self._load)

    async def close(self) -> None:
        """Answer what waits, then close the connection."""
        await self._lookups.close()

    async def open_holds(self, book: int, member_id: uuid.UUID) -> Sequence[HeldPoints]:
        """Return what checkouts hold of a member's points now."""
        return await self._lookups.get((_HOLDS, (book, member_id))) or ()

    async def checkout_hold(self, checkout_key: bytes) -> CheckoutHold | None:
        """Return a checkout's newest hold, open or over; None if it never had one."""
        hold: CheckoutHold | None = await self._lookups.get((_CHECKOUT, checkout_key))
        return hold

    async def receipt(self, business_key: bytes) -> BookedReceipt | None:
        """Return the entry of a receipt; None if it is not booked."""
        receipt: BookedReceipt | None = await self._lookups.get((_RECEIPT, business_key))
        return receipt

    async def is_message_booked(self, message_id: bytes) -> bool:
        """Say whether something is booked under a message id."""
        return bool(await self._lookups.get((_MESSAGE, message_id)))

    async def coupon_uses(self, codes: Sequence[str]) -> dict[str, list[CouponUse]]:
        """Return the uses that are taken of coupons; none for a coupon of which none is."""
        found = await asyncio.gather(*(self._lookups.get((_COUPON, code)) for code in codes))
        return {code: uses for code, uses in zip(codes, found, strict=True) if uses}

    async def _load(self, conn: Connection, keys: Sequence[_Key]) -> dict[_Key, Any]:
        asked: dict[str, list[Any]] = defaultdict(list)
        for kind, key in keys:
            asked[kind].append(key)
        found: dict[_Key, Any] = {}
        if members := asked[_HOLDS]:
            holds = await read_open_holds(conn, members, self._clock())
            found |= {(_HOLDS, key): value for key, value in holds.items()}
        if checkouts := asked[_CHECKOUT]:
            found |= {(_CHECKOUT, key): value for key, value in (await read_checkout_holds(conn, checkouts)).items()}
        if receipts := asked[_RECEIPT]:
            found |= {(_RECEIPT, key): value for key, value in (await read_receipts(conn, receipts)).items()}
        if codes := asked[_COUPON]:
            found |= {(_COUPON, code): uses for code, uses in (await read_coupon_uses(conn, codes)).items()}
        if messages := asked[_MESSAGE]:
            found |= {(_MESSAGE, key): True for key in await read_used_messages(conn, messages)}
        return found
