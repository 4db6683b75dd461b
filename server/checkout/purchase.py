"""From a receipt as paid to an entry in the books, and from an entry to the answer that its keys always get."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Final

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.books import book_of_member, book_of_receipt
from ledger.entry.keys import checkout_key, framed, framed_content_hash, message_key
from ledger.entry.model import REDEEMED, Booked, Declined, Purchase, Spend, UnitSpend
from server.base.errors import invalid_field
from server.checkout import contradictions
from server.checkout.context import CommitContext, Shopper, cached_usage, further_unit, ids_of
from server.checkout.deposits import check_deposit_lines
from server.checkout.evaluation import earn_as_paid
from server.checkout.plan import Commitment, PurchasePlanner
from server.checkout.spending import left_out_notices
from server.checkout.submission import receipt_key_bytes
from server.promotions import (
    LotGrant,
)
from server.promotions.arithmetic import expiry_date
from server.rules.effects import ROOMS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_PER_DAY: Final = 86_400
_WITHOUT: Final = framed(b"identifier does not count")


def commit_command(request: checkout_pb2.CommitRequest, context: CommitContext, books: int) -> Commitment:
    """Return what the books are to be told. A checkout's hold is captured with the receipt.

    Raises:
        Refused: if a key is malformed.
        ReceiptError: if the receipt makes no sense.
    """
    key = receipt_key_bytes(request.receipt_key, "receipt_key")
    member_id = context.found.member.member_id if context.found else None
    contents = _content_hashes(request, context.shopper)
    partner = context.facts.partner
    purchase = partial(
        Purchase,
        book=book_of_member(member_id, books) if member_id else book_of_receipt(key, books),
        message_id=message_key(request.message_id),
        business_key=key,
        content_hash=contents[0],
        event_at=context.facts.local_at.astimezone(UTC),
        member_id=member_id,
        unit=context.unit,
        spend=_spend(request, context),
        further_spends=_further_spends(request, context),
        redeemed_account=context.books.partner_account(partner, REDEEMED) if partner else REDEEMED,
        checkout_key=checkout_of(request) if member_id else None,
        same_contents=contents[1:],
        refusal=_ledger_refusal(context.shopper),
    )
    planner = PurchasePlanner(request, context, purchase, key, _deposits(request, context), earn_as_paid)
    return planner.commitment(cached_usage(context.found))


def _deposits(request: checkout_pb2.CommitRequest, context: CommitContext) -> tuple[LotGrant, ...]:
    """Return the points that the shopper bought.

    Raises:
        Refused: INVALID_REQUEST if the programme does not let registers sell a unit.
    """
    if not request.deposits:
        return ()
    check_deposit_lines(request)
    units = {unit.point.unit: unit for unit in context.rules.programme.units if unit.sold}
    lots = []
    for index, deposit in enumerate(request.deposits):
        unit = units.get(deposit.unit)
        if unit is None:
            sold = ", ".join(units) or "none"
            raise invalid_field(
                f"deposits[{index}].unit", f"{deposit.unit} is not sold here; the programme sells {sold}"
            )
        expires_on = expiry_date(context.day, unit.terms.expiry)
        lots.append(LotGrant(deposit.points_minor, None, expires_on, (), deposit.unit))
    return tuple(lots)


def checkout_of(request: checkout_pb2.CommitRequest) -> bytes | None:
    """Return the key of the checkout whose hold a receipt captures; None if it had none."""
    if not request.checkout_id:
        return None
    key = request.receipt_key
    return checkout_key(
        checkout_pb2.CheckoutKey(store_id=key.store_id, terminal_id=key.terminal_id, checkout_id=request.checkout_id)
    )


def commit_response(booked: Booked) -> checkout_pb2.CommitResponse:
    """Return the answer that an entry stores: the same, byte for byte, whenever it is asked for."""
    event = journal_pb2.Event.FromString(booked.event)
    purchase, settlement = event.purchase, event.settlement
    response = checkout_pb2.CommitResponse(member_id=purchase.member_id)
    _refer_to(response.entry, booked)
    response.settlement.CopyFrom(settlement)
    if purchase.notices:  # asked field by field: to copy empty ones takes as long as all the rest
        response.notices.extend(purchase.notices)
    if purchase.coupons:
        response.coupons.extend(purchase.coupons)
    if purchase.capped:
        response.capped.extend(purchase.capped)
    for room in ROOMS.values():
        room.answer(response, purchase)
    if purchase.HasField("standing"):
        response.standing.CopyFrom(purchase.standing)
    if settlement.left_out_points_minor or purchase.asked_units:
        response.notices.extend(left_out_notices(event))
    if purchase.checkout_id and not captured_hold(event):
        response.notices.append(contradictions.hold_not_used(purchase.checkout_id))
    return response


def captured_hold(event: journal_pb2.Event) -> bool:
    """Say whether a receipt captured the hold of its checkout; the entry ends no other one in this way."""
    return any(end.how == journal_pb2.HOLD_END_KIND_CAPTURED for end in event.hold_ends)


def _refer_to(entry: common_pb2.EntryRef, booked: Booked) -> None:
    """Write where an entry stands; `Timestamp.FromDatetime` alone takes as long as the parsing of the entry."""
    since = booked.booked_at - _EPOCH
    entry.book, entry.number = booked.book, booked.number
    entry.booked_at.seconds = since.days * _SECONDS_PER_DAY + since.seconds
    entry.booked_at.nanos = since.microseconds * 1000


def _content_hashes(request: checkout_pb2.CommitRequest, shopper: Shopper) -> tuple[bytes, ...]:
    """Return the hash of what a resent receipt must repeat, and those under which it may stand in the books.

    The member takes the place of the identifier, so a receipt that showed one may have been booked for the member
    who is behind it, for one who was merged into that member since, or, offline, for nobody. All else but the message
    id is content.
    """
    content = framed(
        request.receipt_key.SerializeToString(deterministic=True),
        request.receipt.SerializeToString(deterministic=True),
        request.spend_points_minor.to_bytes(8, "big"),
        "\n".join(request.coupon_codes).encode(),
        request.checkout_id.encode(),
        *[unit.SerializeToString(deterministic=True) for unit in request.spend_units],
        *[b"deposit" + unit.SerializeToString(deterministic=True) for unit in request.deposits],
    )
    if not request.HasField("identifier"):
        return (framed_content_hash(None, content),)
    without = framed_content_hash(None, content + _WITHOUT)
    shown = shopper.shown if shopper.shown != shopper.found else None
    ids = [one for found in (shopper.found, shown) if found for one in ids_of(found)]
    members = [framed_content_hash(one, content) for one in ids]
    return (without, *members) if shopper.booked_without else (*members, without)


def _ledger_refusal(shopper: Shopper) -> Declined | None:
    if shopper.refusal is None or shopper.booked_without or shopper.found is not None:
        return None
    return Declined(shopper.refusal.reason, shopper.refusal.message)


def _spend(request: checkout_pb2.CommitRequest, context: CommitContext) -> Spend | None:
    """Return the wish to spend points; how many of them are spent is judged under the fence."""
    asked_minor = request.spend_points_minor
    if asked_minor == 0:
        return None
    forbidden = 0 if context.found else int(_nobody_reason(context.shopper))
    return Spend(asked_minor, 1, 0, 1, forbidden)


def _nobody_reason(shopper: Shopper) -> common_pb2.RefusalReason:
    """Return why a receipt is booked without a member."""
    return shopper.refusal.reason if shopper.refusal else common_pb2.REFUSAL_REASON_IDENTIFIER_UNKNOWN


def _further_spends(request: checkout_pb2.CommitRequest, context: CommitContext) -> tuple[UnitSpend, ...]:
    """Return the wish to pay with further units; what of them is spent is judged under the fence.

    Raises:
        Refused: INVALID_REQUEST for a unit that the programme does not have.
    """
    if context.found is None or not request.spend_units:
        return ()
    spends = []
    for index, points in enumerate(request.spend_units):
        if further_unit(context.rules, points.unit) is None:
            known = ", ".join(one.point.unit for one in context.rules.programme.units) or "none"
            raise invalid_field(
                f"spend_units[{index}].unit", f"{points.unit} is no further unit; the programme has {known}"
            )
        spends.append(UnitSpend(context.books.unit_named(points.unit), Spend(points.points_minor, 1, 0, 1)))
    return tuple(spends)
