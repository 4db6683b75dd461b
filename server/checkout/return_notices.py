"""What a cashier is told of a return: what must be explained to the shopper who brings goods back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Final
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry.accounts import is_taking
from ledger.entry.model import AVAILABLE, EXPIRED
from ledger.entry.reversing import CLUBS
from server.checkout.contradictions import far_dates
from server.checkout.notices import cashier_notice
from server.edge.moments import moment_of
from server.promotions.messages import decimal_text

MONEY_DECIMALS: Final = 2
"""Money is shown with the decimals of a currency that has a hundredth."""


def return_notices(event: journal_pb2.Event) -> Iterable[common_pb2.Notice]:
    """Yield the notices of a return as booked, for the cashier."""
    yield from _points(event)
    goods = event.goods_return
    if goods.kept_back_money_minor:
        money = decimal_text(goods.kept_back_money_minor, MONEY_DECIMALS)
        text = f"{money} is kept back: points that came with these goods are spent and cannot come back."
        yield cashier_notice("MONEY_KEPT_BACK", text)
    if event.semantics:  # returns of earlier releases were not told
        local_at = moment_of(goods.event_at).astimezone(ZoneInfo(goods.time_zone))
        yield from far_dates(goods.receipt_key.business_date, local_at)
    yield from _gifts(goods)
    yield from _memberships(event)
    if goods.HasField("tier_change"):
        now = f"it is {goods.standing.name} now" if goods.standing.name else "there is none now"
        text = f"Without these goods the member does not come to level {goods.tier_change.before}: {now}."
        yield cashier_notice("LEVEL_LOWERED", text)
    if goods.living_member_id:
        text = f"The buyer's membership was merged into that of {goods.living_member_id}: the points go on to that one."
        yield cashier_notice("MEMBER_MERGED", f"{text} Show its balance, not this one's.")


def _gifts(goods: journal_pb2.GoodsReturn) -> Iterable[common_pb2.Notice]:
    """Say what became of coupons that had been given with the goods."""
    if goods.revoked_coupon_codes:
        codes = ", ".join(goods.revoked_coupon_codes)
        yield cashier_notice("COUPONS_REVOKED", f"Given with these goods, and good no more: coupon {codes}.")
    if goods.used_coupon_codes:
        codes = ", ".join(goods.used_coupon_codes)
        yield cashier_notice(
            "COUPONS_USED", f"Given with these goods, and used or kept by a checkout already: coupon {codes}."
        )


def _memberships(event: journal_pb2.Event) -> Iterable[common_pb2.Notice]:
    """Say what became of paid memberships that had been bought with the goods."""
    zone = ZoneInfo(event.goods_return.time_zone or "UTC")
    today = event.goods_return.event_at.ToDatetime(tzinfo=UTC).astimezone(zone).date().isoformat()
    for change in event.counter_changes:
        if not change.key.startswith(CLUBS):
            continue
        club = change.key.removeprefix(CLUBS)
        if change.until and change.until >= today:
            yield cashier_notice("CLUB_SHORTENED", f"The membership of the club {club} lasts until {change.until} now.")
        else:
            yield cashier_notice(
                "CLUB_ENDED", f"The membership of the club {club} that was bought with these goods has ended."
            )


def _points(event: journal_pb2.Event) -> Iterable[common_pb2.Notice]:
    """Say which points are owed, waived, or lapsed as soon as they came back."""
    settlement = event.settlement
    owed = "{} points earned on these goods were spent already: the next points earned make up for them."
    waived = "{} points earned on these goods were spent already and are not taken back."
    lapsed = "{} of the points given back had lapsed since and stay lapsed."
    for code, points_minor, text in (
        ("POINTS_OWED", settlement.clawback_debt_points_minor, owed),
        ("POINTS_WAIVED", settlement.clawback_waived_points_minor, waived),
        ("POINTS_LAPSED", _lapsed_minor(event), lapsed),
    ):
        if points_minor:
            yield cashier_notice(code, text.format(decimal_text(points_minor, settlement.balance.precision)))
    for unit in settlement.units:
        if unit.clawback_debt_points_minor:
            points = decimal_text(unit.clawback_debt_points_minor, unit.balance.precision)
            text = f"{points} {unit.balance.unit} that came with these goods were spent already: they are owed."
            yield cashier_notice("POINTS_OWED", text)


def _lapsed_minor(event: journal_pb2.Event) -> int:
    """Return the points that were given back to lots that have lapsed."""
    given_back = {(p.lot_number, p.lot_ordinal) for p in event.postings if is_taking(p.debit) and p.credit == AVAILABLE}
    lapsed = sum(
        p.points_minor
        for p in event.postings
        if (p.debit, p.credit) == (AVAILABLE, EXPIRED) and (p.lot_number, p.lot_ordinal) in given_back
    )
    return min(lapsed, event.settlement.refund_points_minor)
