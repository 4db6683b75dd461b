"""What promotions did, as rows of the CRM database: coupons, levels, control groups, draws, further units."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.entry.reversing import DRAWS
from server.crm.tables import CouponEventRow, DrawEntryRow, TierChangeRow, UnitPointsRow, WithheldRow
from server.crm.text import stored
from server.rights.codes import former_code

if TYPE_CHECKING:
    from ledger.entry.chain import EntryRecord

_ACTIONS: Final = {
    int(value): name.removeprefix("COUPON_ACTION_").lower() for name, value in journal_pb2.CouponAction.items() if value
}
ISSUED: Final = "issued"
"""What a coupon event of a new coupon is called."""


def promotion_rows(entry: EntryRecord, event: journal_pb2.Event, kind: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an entry. ``kind`` is its name there.

    Raises:
        KeyError, ValueError: The event says something that this version does not know.
    """
    for told in event.settlement.units:
        yield _unit_points(entry, kind, told)
    if event.coupon_changes or event.purchase.issued_coupons:
        yield from _coupon_events(entry, event, kind)
    purchase = event.purchase
    for body in (purchase, event.goods_return):
        if body.HasField("tier_change"):
            yield _tier_change(entry, body.tier_change)
    moments = (entry.booked_at, entry.event_at, entry.member_id)
    for ordinal, withheld in enumerate(purchase.withheld, start=1):
        yield WithheldRow(entry.number, ordinal, *moments, stored(withheld.promotion_id), stored(withheld.reason))
    for ordinal, drawn in enumerate(purchase.draws, start=1):
        facts = (stored(drawn.draw), drawn.entries, stored(drawn.promotion_id))
        yield DrawEntryRow(entry.number, ordinal, *moments, *facts)
    if event.HasField("goods_return"):
        back = [change for change in event.counter_changes if change.key.startswith(DRAWS) and change.times]
        for ordinal, change in enumerate(back, start=1):
            draw = stored(change.key.removeprefix(DRAWS))
            yield DrawEntryRow(entry.number, ordinal, *moments, draw, change.times, "")


def _unit_points(entry: EntryRecord, kind: str, told: checkout_pb2.UnitSettlement) -> UnitPointsRow:
    return UnitPointsRow(
        number=entry.number,
        points_unit=stored(told.balance.unit),
        points_precision=told.balance.precision,
        booked_at=entry.booked_at,
        member_id=entry.member_id,
        kind=kind,
        earned_minor=told.accrual_points_minor,
        spent_minor=told.spent_points_minor,
        spent_money_minor=told.spent_money_minor,
        left_out_minor=told.left_out_points_minor,
        given_back_minor=told.refund_points_minor,
        taken_back_minor=told.clawback_points_minor,
        balance_after_minor=told.balance.available_points_minor,
        debt_after_minor=told.balance.debt_points_minor,
    )


def _coupon_events(entry: EntryRecord, event: journal_pb2.Event, kind: str) -> Iterator[CouponEventRow]:
    purchase = event.purchase
    # In the form that codes of the oldest entries have as well: rows of an entry never change.
    promotions = {former_code(each.code): each.promotion_ids for each in purchase.coupons}
    series = {former_code(each.code): each.series for each in purchase.facts.coupons}
    facts = (entry.booked_at, entry.member_id, kind)
    for ordinal, change in enumerate(event.coupon_changes, start=1):
        code, used = change.code, change.action == journal_pb2.COUPON_ACTION_USED
        yield CouponEventRow(
            entry.number,
            ordinal,
            *facts,
            stored(code),
            _ACTIONS[change.action],
            change.slot,
            stored(series[code]) if used and code in series else None,
            [stored(each) for each in promotions.get(code, ())] if used else [],
            None,
            None,
        )
    for ordinal, coupon in enumerate(purchase.issued_coupons, start=len(event.coupon_changes) + 1):
        yield CouponEventRow(
            entry.number,
            ordinal,
            *facts,
            stored(coupon.code),
            ISSUED,
            None,
            stored(coupon.series),
            [stored(coupon.promotion_id)],
            _day(coupon.valid_from),
            _day(coupon.valid_until),
        )


def _tier_change(entry: EntryRecord, change: journal_pb2.TierChange) -> TierChangeRow:
    if entry.member_id is None:
        raise ValueError("a level without a member")
    return TierChangeRow(
        entry.number,
        entry.booked_at,
        entry.event_at,
        entry.member_id,
        stored(change.before) or None,
        stored(change.after) or None,
        _day(change.good_until),
    )


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None
