"""Commands for the books, with payloads that verification accepts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.keys import business_key, checkout_key, content_hash, return_key
from ledger.entry.model import (
    REDEEMED,
    Adjust,
    Booked,
    Cancel,
    CounterChange,
    CouponClaim,
    FoundUnderFence,
    Grant,
    Hold,
    LeaseBudget,
    LotTerms,
    NewCoupon,
    PassTime,
    Purchase,
    Return,
    Spend,
    TransferIn,
    TransferOut,
    Unit,
    UnitSpend,
)

BONUS = Unit(1, "bonus", 2)
GIFT = Unit(2, "gift", 0)
PHARMACY = 1001
"""The settlement account of the partner "pharmacy"."""
UNITS = {unit.code: unit for unit in (BONUS, GIFT)}
PARTNERS = {"pharmacy": PHARMACY}
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
DEBT_MODE = int(journal_pb2.CLAWBACK_MODE_DEBT)


class Line(NamedTuple):
    """A line to buy: quantity in thousandths, its price, and the points that it earns.

    ``further`` are points of other units, or of partners, as (unit, partner, points), with codes.
    """

    quantity_milli: int = 1000
    amount_minor: int = 1000
    earned_minor: int = 0
    discount_minor: int = 0
    weighed: bool = False
    further: tuple[tuple[str, str, int], ...] = ()


def member(name: int | str) -> uuid.UUID:
    """Return the same id for the same name."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"member {name}")


def receipt_key(receipt_number: int) -> common_pb2.ReceiptKey:
    """Return a key of the one lane there is."""
    return common_pb2.ReceiptKey(
        store_id="1", terminal_id="1", business_date="2026-03-14", receipt_number=receipt_number
    )


def checkout(checkout_id: int | str, lane: str = "1") -> checkout_pb2.CheckoutKey:
    """Return the key of a checkout in progress."""
    return checkout_pb2.CheckoutKey(store_id="1", terminal_id=lane, checkout_id=str(checkout_id))


def _message(name: str) -> bytes:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).bytes


def purchase(
    receipt_number: int,
    shopper: uuid.UUID | None,
    *,
    books: int = 1,
    earn: Sequence[Grant | int] = (),
    spend: Spend | int | None = None,
    message: str = "",
    amount_minor: int = 1000,
    lines: Sequence[Line] = (),
    event_at: datetime = NOON,
    captures: checkout_pb2.CheckoutKey | None = None,
    further_spends: Sequence[tuple[Unit, int]] = (),
    redeemed_account: int = REDEEMED,
) -> Purchase:
    """Return a purchase; plain integers earn never-lapsing points, and spend one for one."""
    key = receipt_key(receipt_number)
    receipt = common_pb2.Receipt(currency_code="UAH")
    receipt.event_at.FromDatetime(event_at)
    body = journal_pb2.Purchase(receipt_key=key, member_id=str(shopper) if shopper else "", receipt=receipt)
    body.partner = next((code for code, account in PARTNERS.items() if account == redeemed_account), "")
    for number, line in enumerate(lines or [Line(amount_minor=amount_minor)], start=1):
        body.receipt.lines.add(
            line_number=number,
            sku=f"sku-{number}",
            quantity_milli=line.quantity_milli,
            list_amount_minor=line.amount_minor,
            discount_minor=line.discount_minor,
            weighed=line.weighed,
        )
        effects = body.effects.add(line_number=number, payable_minor=line.amount_minor - line.discount_minor)
        if line.earned_minor:
            effects.accruals.add(promotion_id="base", base_minor=line.amount_minor, points_minor=line.earned_minor)
        for unit, partner, points_minor in line.further:
            effects.accruals.add(promotion_id="more", points_minor=points_minor, unit=unit, partner=partner)
    keyed = business_key(key)
    return Purchase(
        book=book_of_member(shopper, books) if shopper else book_of_receipt(keyed, books),
        message_id=_message(message or f"message {receipt_number}"),
        business_key=keyed,
        content_hash=content_hash(shopper, body.receipt.SerializeToString(deterministic=True), repr(spend).encode()),
        event_at=event_at,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(purchase=body).SerializeToString(),
        spend=Spend(spend, 1, 1, 1) if isinstance(spend, int) else spend,
        grants=tuple(Grant(points, None, None) if isinstance(points, int) else points for points in earn),
        checkout_key=None if captures is None else checkout_key(captures),
        further_spends=tuple(UnitSpend(unit, Spend(points, 1, 1, 1)) for unit, points in further_spends),
        redeemed_account=redeemed_account,
    )


def selling(bought: Purchase, sold: Sequence[tuple[int, int]], unit: Unit = GIFT) -> Purchase:
    """Return a purchase of which lines sell points of a further unit; ``sold`` are (line number, points)."""
    event = journal_pb2.Event.FromString(bought.event)
    for line_number, points_minor in sold:
        event.purchase.deposits.add(unit=unit.code, points_minor=points_minor)
        event.purchase.deposit_lines.add(unit=unit.code, points_minor=points_minor, line_number=line_number)
    grants = tuple(Grant(points_minor, None, None, unit=unit) for _, points_minor in sold)
    return replace(bought, event=event.SerializeToString(), grants=bought.grants + grants)


def promoted(
    bought: Purchase,
    *,
    coupons: Mapping[str, int] | None = None,
    counts: Sequence[CounterChange] = (),
    budgets: Mapping[str, int] | None = None,
    issued: Sequence[NewCoupon] = (),
) -> Purchase:
    """Return a purchase with what promotions use and count; ``coupons`` are codes with how many uses each has."""
    event = journal_pb2.Event.FromString(bought.event)
    for coupon in issued:
        event.purchase.issued_coupons.add(
            code=coupon.code,
            series=coupon.series,
            promotion_id="thanks",
            valid_from=coupon.valid_from.isoformat(),
            valid_until=coupon.valid_until.isoformat() if coupon.valid_until else "",
        )
    return replace(
        bought,
        event=event.SerializeToString(),
        claims=tuple(CouponClaim(code, uses) for code, uses in (coupons or {}).items()),
        coupons=tuple(coupons or ()),
        counts=tuple(counts),
        budget_keys=tuple(budgets or ()),
        budgets=tuple((budgets or {}).items()),
        issued=tuple(issued),
    )


def planned(
    bought: Purchase,
    plan: Callable[[FoundUnderFence], Purchase],
    *,
    coupons: Mapping[str, int] | None = None,
    budgets: Sequence[str] = (),
) -> Purchase:
    """Return a purchase that is settled under the fence; ``coupons`` are codes with how many uses each has."""
    claims = tuple(CouponClaim(code, uses) for code, uses in (coupons or {}).items())
    return replace(bought, plan=plan, claims=claims, budget_keys=tuple(budgets))


def keeping(held: Hold, coupons: Mapping[str, int]) -> Hold:
    """Return a hold that keeps coupons, too; they are codes with how many uses each has."""
    event = journal_pb2.Event.FromString(held.event)
    event.hold.coupon_codes.extend(coupons)
    return replace(
        held,
        event=event.SerializeToString(),
        claims=tuple(CouponClaim(code, uses) for code, uses in coupons.items()),
    )


def lease_budget(key: str, amount: int, *, leased: int, budget: int, book: int = 0) -> LeaseBudget:
    """Return a part of a shared budget for a book; ``leased`` is what all books were given with it."""
    event = journal_pb2.Event(
        budget_lease=journal_pb2.BudgetLease(key=key, amount=amount, budget=budget, leased=leased)
    ).SerializeToString()
    return LeaseBudget(
        book=book,
        content_hash=content_hash(None, event),
        event_at=NOON,
        member_id=None,
        event=event,
        key=key,
        amount=amount,
    )


def hold(
    key: checkout_pb2.CheckoutKey,
    shopper: uuid.UUID,
    points_minor: int,
    *,
    books: int = 1,
    ttl_seconds: int = 600,
    takeover: str = "",
    message: str = "",
) -> Hold:
    """Return a hold of points for a checkout."""
    body = journal_pb2.Hold(
        member_id=str(shopper),
        checkout_key=key,
        asked_points_minor=points_minor,
        ttl_seconds=ttl_seconds,
        takeover_reason=takeover,
    )
    return Hold(
        book=book_of_member(shopper, books),
        message_id=_message(message or f"hold {key} {points_minor}"),
        content_hash=content_hash(shopper, body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(hold=body).SerializeToString(),
        checkout_key=checkout_key(key),
        store_id=key.store_id,
        terminal_id=key.terminal_id,
        points_minor=points_minor,
        ttl_seconds=ttl_seconds,
        takeover=bool(takeover),
    )


def cancel(key: checkout_pb2.CheckoutKey, shopper: uuid.UUID, *, books: int = 1, message: str = "") -> Cancel:
    """Return the release of a hold."""
    body = journal_pb2.Cancel(member_id=str(shopper), checkout_key=key)
    return Cancel(
        book=book_of_member(shopper, books),
        message_id=_message(message or f"cancel {key}"),
        content_hash=content_hash(shopper, b"cancel", body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(cancel=body).SerializeToString(),
        checkout_key=checkout_key(key),
    )


def goods_return(
    receipt_number: int,
    bought: Booked,
    asked: Sequence[tuple[int, int]] = (),
    *,
    terms: Mapping[tuple[int, int], LotTerms],
    clawback: int = DEBT_MODE,
    grace_days: int = 0,
) -> Return:
    """Return goods of a booked purchase; ``asked`` are (line number, thousandths), empty for all that is left."""
    event = journal_pb2.Event.FromString(bought.event)
    shopper = uuid.UUID(event.purchase.member_id) if event.purchase.member_id else None
    key = receipt_key(receipt_number)
    body = journal_pb2.GoodsReturn(
        receipt_key=key,
        member_id=event.purchase.member_id,
        purchase_key=event.purchase.receipt_key,
        purchase_number=bought.number,
        asked=[checkout_pb2.ReturnedLine(line_number=line, quantity_milli=quantity) for line, quantity in asked],
        clawback=clawback,  # type: ignore[arg-type]  # an int
        expired_grace_days=grace_days,
    )
    body.event_at.FromDatetime(NOON)
    return Return(
        book=bought.book,
        message_id=_message(f"return {receipt_number}"),
        business_key=return_key(key),
        content_hash=content_hash(shopper, body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(goods_return=body).SerializeToString(),
        purchase_number=bought.number,
        purchase=bought.event,
        asked=tuple(asked),
        lots=terms,
        clawback=clawback,
        expired_grace_days=grace_days,
        units=UNITS,
        partners=PARTNERS,
        rates={"": (1, 1)} | dict.fromkeys(UNITS, (1, 1)),
    )


def pass_time(shopper: uuid.UUID, *, books: int = 1) -> PassTime:
    """Return what the sweeper asks for."""
    return PassTime(
        book=book_of_member(shopper, books),
        content_hash=content_hash(shopper, b"time"),
        event_at=NOON,
        member_id=shopper,
        event=journal_pb2.Event(time_passed=journal_pb2.TimePassed(member_id=str(shopper))).SerializeToString(),
    )


def adjust(name: str, shopper: uuid.UUID, points: Grant | int, *, books: int = 1) -> Adjust:
    """Return a correction by hand; a negative number takes points."""
    grant = points if isinstance(points, Grant) else Grant(points, None, None) if points > 0 else None
    points_minor = points.points_minor if isinstance(points, Grant) else points
    body = journal_pb2.Adjustment(
        member_id=str(shopper), points_minor=points_minor, reason_code="goodwill", requested_by="Olena", request_id=name
    )
    return Adjust(
        book=book_of_member(shopper, books),
        message_id=_message(f"adjust {name}"),
        content_hash=content_hash(shopper, body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=shopper,
        unit=BONUS,
        event=journal_pb2.Event(adjustment=body).SerializeToString(),
        grant=grant,
        deduct_points_minor=0 if grant else -points_minor,
    )


def transfer_out(
    name: str,
    giver: uuid.UUID,
    taker: uuid.UUID,
    points_minor: int | None,
    *,
    books: int = 1,
    counters: bool = False,
) -> TransferOut:
    """Return the side of a transfer that points leave; None sends everything."""
    body = journal_pb2.Transfer(
        member_id=str(giver), other_member_id=str(taker), transfer_id=name, reason_code="merge", outgoing=True
    )
    return TransferOut(
        book=book_of_member(giver, books),
        message_id=_message(f"transfer out {name}"),
        content_hash=content_hash(giver, body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=giver,
        unit=BONUS,
        event=journal_pb2.Event(transfer=body).SerializeToString(),
        points_minor=points_minor,
        counters=counters,
    )


def transfer_in(
    name: str,
    giver: uuid.UUID,
    taker: uuid.UUID,
    grants: Sequence[Grant],
    debt_minor: int = 0,
    *,
    books: int = 1,
    counts: Sequence[CounterChange] = (),
) -> TransferIn:
    """Return the side of a transfer that points come to."""
    body = journal_pb2.Transfer(member_id=str(taker), other_member_id=str(giver), transfer_id=name, reason_code="merge")
    return TransferIn(
        book=book_of_member(taker, books),
        message_id=_message(f"transfer in {name}"),
        content_hash=content_hash(taker, body.SerializeToString(deterministic=True)),
        event_at=NOON,
        member_id=taker,
        unit=BONUS,
        event=journal_pb2.Event(transfer=body).SerializeToString(),
        grants=tuple(grants),
        debt_minor=debt_minor,
        counts=tuple(counts),
    )
