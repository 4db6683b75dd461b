"""Holds: from a request to the command that keeps points or lets them go, and from an entry to the answer."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.books import book_of_member
from ledger.entry.keys import checkout_key, content_hash, message_key
from ledger.entry.model import Booked, Cancel, Declined, Hold, Unit
from ledger.reading.lookups import CheckoutHold
from server.base.errors import Refused
from server.checkout.context import ids_of
from server.checkout.presented import Presented
from server.checkout.sale import Sale
from server.checkout.submission import balances_of, entry_ref
from server.members.found import Found
from server.promotions import Effects

ANOTHER_CARD_REASON = "another card was shown"
"""Why a checkout's hold for one member is released when it holds for another."""


class HoldContext(NamedTuple):
    """What a hold is judged by. ``refusal`` is why the member may not hold, if so; ``effects`` say what is held.

    Of the coupons ``presented``, those that have an effect are kept.
    """

    sale: Sale
    unit: Unit
    found: Found
    refusal: Refused | None
    effects: Effects
    presented: Presented


def spending_refusal(found: Found, points_minor: int) -> Refused | None:
    """Return why a member may not hold points for spending, or None."""
    if found.member.can_spend or points_minor == 0:
        return None
    return Refused(
        common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN,
        "the member may earn but not spend",
        cashier_text="This member may not pay with points yet. Take another payment.",
    )


def hold_command(request: checkout_pb2.HoldRequest, context: HoldContext, books: int) -> Hold:
    """Return what the books are to be told: to keep the points that the programme lets this receipt spend."""
    member_id, programme = context.found.member.member_id, context.sale.rules.programme
    ttl_seconds = request.ttl_seconds or programme.spending.hold_ttl_seconds
    claims = context.presented.used_claims(context.effects)
    record = journal_pb2.Hold(
        member_id=str(member_id),
        checkout_key=request.checkout_key,
        asked_points_minor=context.effects.spent_points_minor,
        ttl_seconds=ttl_seconds,
        takeover_reason=request.takeover_reason,
        coupon_codes=[claim.code for claim in claims],
        programme_code=programme.code,
        programme_version=context.effects.programme_version,
        held_money_minor=context.effects.spent_money_minor,
    )
    refusal = context.refusal
    contents = tuple(_hold_hash(request, one) for one in ids_of(context.found))
    return Hold(
        book=book_of_member(member_id, books),
        message_id=message_key(request.message_id),
        content_hash=contents[0],
        same_contents=contents[1:],
        event_at=context.sale.facts.local_at.astimezone(UTC),
        member_id=member_id,
        event=journal_pb2.Event(hold=record).SerializeToString(),
        refusal=None if refusal is None else Declined(refusal.reason, refusal.message),
        unit=context.unit,
        checkout_key=checkout_key(request.checkout_key),
        store_id=request.checkout_key.store_id,
        terminal_id=request.checkout_key.terminal_id,
        points_minor=context.effects.spent_points_minor,
        ttl_seconds=ttl_seconds,
        takeover=bool(request.takeover_reason),
        claims=claims,
    )


def _hold_hash(request: checkout_pb2.HoldRequest, member_id: uuid.UUID) -> bytes:
    """Return the hash of what a resent hold must repeat: all but the message id.

    The proof is left out too: it is a secret, and so short that it could be guessed from a hash.
    """
    return content_hash(
        member_id,
        b"hold",
        request.checkout_key.SerializeToString(deterministic=True),
        request.receipt.SerializeToString(deterministic=True),
        request.spend_points_minor.to_bytes(8, "big"),
        "\n".join(request.coupon_codes).encode(),
        request.ttl_seconds.to_bytes(4, "big"),
        request.takeover_reason.encode(),
    )


def hold_response(booked: Booked) -> checkout_pb2.HoldResponse:
    """Return the answer that an entry stores; the quote is missing still."""
    event = journal_pb2.Event.FromString(booked.event)
    response = checkout_pb2.HoldResponse(
        held_points_minor=event.settlement.held_points_minor,
        held_money_minor=event.hold.held_money_minor,
        balances=balances_of(event.settlement),
        held_elsewhere=event.hold.held_elsewhere,
        entry=entry_ref(booked),
        held_coupon_codes=event.hold.coupon_codes,
    )
    response.expires_at.FromDatetime(booked.booked_at + timedelta(seconds=event.hold.ttl_seconds))
    return response


def cancel_command(request: checkout_pb2.CancelRequest, hold: CheckoutHold, now: datetime) -> Cancel:
    """Return what the books are to be told: to release a checkout's hold, for the register's reason."""
    content = content_hash(
        None,  # not the member: the same message means the same, even if the checkout holds for another one by now
        b"cancel",
        request.checkout_key.SerializeToString(deterministic=True),
        request.reason.encode(),
    )
    return _cancel(request.checkout_key, hold, now, request.reason, content, message_key(request.message_id))


def release_command(key: checkout_pb2.CheckoutKey, hold: CheckoutHold, now: datetime) -> Cancel:
    """Return what the books are to be told when a checkout that holds for one member shows another card."""
    content = content_hash(hold.member_id, b"release", hold.number.to_bytes(8, "big"))
    return _cancel(key, hold, now, ANOTHER_CARD_REASON, content, None)


def _cancel(
    key: checkout_pb2.CheckoutKey,
    hold: CheckoutHold,
    now: datetime,
    reason: str,
    content: bytes,
    message_id: bytes | None,
) -> Cancel:
    record = journal_pb2.Cancel(member_id=str(hold.member_id), checkout_key=key, reason=reason)
    return Cancel(
        book=hold.book,
        message_id=message_id,
        content_hash=content,
        event_at=now,
        member_id=hold.member_id,
        event=journal_pb2.Event(cancel=record).SerializeToString(),
        unit=hold.unit,
        checkout_key=checkout_key(key),
    )


def cancel_response(booked: Booked, hold_number: int) -> checkout_pb2.CancelResponse:
    """Return what an entry released of a hold, be it the cancel's own or the one that had ended the hold before."""
    event = journal_pb2.Event.FromString(booked.event)
    ends = [end for end in event.hold_ends if end.hold_number == hold_number] or [
        end for end in event.hold_ends if end.how == journal_pb2.HOLD_END_KIND_CANCELLED
    ]
    return checkout_pb2.CancelResponse(
        released_points_minor=sum(end.released_points_minor for end in ends),
        balances=balances_of(event.settlement),
        entry=entry_ref(booked),
    )


def nothing_held(key: checkout_pb2.CheckoutKey) -> Refused:
    """Return the refusal to cancel for a checkout that never held anything."""
    return Refused(
        common_pb2.REFUSAL_REASON_HOLD_GONE,
        f"checkout {key.checkout_id!r} of terminal {key.terminal_id} holds nothing",
        cashier_text="Nothing is held for this checkout.",
    )
