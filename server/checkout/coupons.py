"""Coupons that a shopper presents: which of them count, and what the cashier is told of each.

A coupon is judged in the order of this ladder, one named answer each: known, not blocked and within its dates, of this
member, of which a use is left (COUPON_USED, or COUPON_HELD_ELSEWHERE while another checkout keeps it). What is left is
usable, and the rules say whether it has an effect.
"""

from __future__ import annotations

import uuid
from collections import Counter as Tally
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from tallypoint.v1 import common_pb2

from ledger.entry.model import CouponClaim
from ledger.reading.coupons import CouponUse
from server.checkout.lookups import LedgerReader
from server.checkout.presented import NOTHING, Presented
from server.promotions import CouponFact, Rules
from server.rights.codes import normal_code
from server.rights.coupons import CouponReader, CouponRecord


class CouponLookups(NamedTuple):
    """Where coupons and their uses are found."""

    coupons: CouponReader
    books: LedgerReader


async def present(
    codes: Sequence[str],
    rules: Rules,
    member_ids: Sequence[uuid.UUID],
    day: date,
    lookups: CouponLookups,
    *,
    checkout_key: bytes | None = None,
    with_uses: bool = True,
) -> Presented:
    """Judge the coupons of a request by what is known of them now.

    ``member_ids`` are the ids under which the shopper may own coupons, none without one; ``day`` is the store's.
    A use that ``checkout_key`` itself keeps counts as free for it. Without ``with_uses`` the books are left to say,
    under the fence, whether a use is left.
    """
    shown = {normal_code(code): code for code in codes}
    if not shown:
        return NOTHING
    named = [text for code, text in shown.items() if code not in rules.generic_codes]
    found = await lookups.coupons.look_up(named) if named else {}
    records = {record.code: record for record in found.values()}
    wanted = tuple(dict.fromkeys(found[code].code if code in found else code for code in shown))
    taken = await lookups.books.coupon_uses(list(records)) if records and with_uses else {}
    usable, claims, refused = [], [], {}
    for code in wanted:
        if code in rules.generic_codes:
            usable.append(CouponFact(code))
            continue
        record = records.get(code)
        reason = _reason(record, member_ids, day, taken.get(code, ()), checkout_key)
        if reason or record is None:
            refused[code] = reason
            continue
        usable.append(CouponFact(code, record.series))
        claims.append(CouponClaim(code, record.uses))
    times = Tally(map(normal_code, codes)) if len(codes) > len(wanted) else {}
    repeated = tuple(code for code in shown if times.get(code, 0) > 1)
    return Presented(wanted, tuple(usable), tuple(claims), refused, repeated)


def _reason(
    record: CouponRecord | None,
    member_ids: Sequence[uuid.UUID],
    day: date,
    uses: Sequence[CouponUse],
    checkout_key: bytes | None,
) -> int:
    if record is None:
        return common_pb2.REFUSAL_REASON_COUPON_UNKNOWN
    early = record.valid_from is not None and day < record.valid_from
    if record.blocked or early or (record.valid_until is not None and day > record.valid_until):
        return common_pb2.REFUSAL_REASON_COUPON_NOT_VALID
    if record.member_id is not None and record.member_id not in member_ids:
        return common_pb2.REFUSAL_REASON_COUPON_FOREIGN
    others = [use for use in uses if use.checkout_key is None or use.checkout_key != checkout_key]
    if len(others) < record.uses:
        return 0
    held = any(use.checkout_key is not None for use in others)
    return common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE if held else common_pb2.REFUSAL_REASON_COUPON_USED
