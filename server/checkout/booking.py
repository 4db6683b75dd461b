"""From a receipt as paid to an entry in the books, and from an entry to the answer that its keys always get."""

from __future__ import annotations

import uuid
from datetime import UTC
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.books import book_of_member, book_of_receipt
from ledger.keys import checkout_key, content_hash, message_key
from ledger.model import Booked, Purchase, Spend, Unit
from ledger.model import Refused as LedgerRefused
from server.checkout.convert import add_line_effects, decimal_text, grants_of, notices_of, variance_messages
from server.checkout.submitting import entry_ref, receipt_key_bytes
from server.errors import Refused
from server.members.directory import Found
from server.promotions import (
    Effects,
    MemberFacts,
    PaidLine,
    ReceiptFacts,
    Rules,
    earn_as_paid,
    lots_to_grant,
)
from server.promotions.arithmetic import spread_largest_remainder


class Shopper(NamedTuple):
    """Whom a receipt is for.

    ``found`` is the member for whom it is booked; ``shown`` is the member behind the identifier, who differs from
    ``found`` when the identifier does not count; ``refusal`` says why it does not. ``booked_without`` means that the
    programme books such a receipt without a member, as it may for those taken offline.
    """

    found: Found | None = None
    shown: Found | None = None
    refusal: Refused | None = None
    booked_without: bool = False


class CommitContext(NamedTuple):
    """What a commit is judged by."""

    rules: Rules
    unit: Unit
    zone: ZoneInfo
    facts: ReceiptFacts
    notices: list[common_pb2.Notice]
    shopper: Shopper

    @property
    def found(self) -> Found | None:
        """The member for whom the receipt is booked."""
        return self.shopper.found

    @property
    def member(self) -> MemberFacts | None:
        """What promotions may know of that member."""
        return member_facts(self.shopper.found)


def member_facts(found: Found | None) -> MemberFacts | None:
    """Return what promotions may know of a member."""
    if found is None:
        return None
    member = found.member
    return MemberFacts(str(member.member_id), member.birthday, can_earn=True, can_spend=member.can_spend)


def ids_of(found: Found) -> tuple[uuid.UUID, ...]:
    """Return the ids under which something may be booked for a member: their own, and those of members merged in."""
    return (found.member.member_id, *found.member.merged_from)


def commit_command(request: checkout_pb2.CommitRequest, context: CommitContext, books: int) -> Purchase:
    """Return what the books are to be told. A checkout's hold is captured with the receipt.

    Raises:
        Refused: if a key is malformed.
        ReceiptError: if the receipt makes no sense.
    """
    key = receipt_key_bytes(request.receipt_key, "receipt_key")
    member_id = context.found.member.member_id if context.found else None
    contents = _content_hashes(request, context.shopper)
    effects = _effects_as_paid(request, context) if context.member else _effects_without_member(request, context)
    lots = lots_to_grant(context.rules, effects, context.facts.local_at.date()) if context.member else ()
    return Purchase(
        book=book_of_member(member_id, books) if member_id else book_of_receipt(key, books),
        message_id=message_key(request.message_id),
        business_key=key,
        content_hash=contents[0],
        event_at=context.facts.local_at.astimezone(UTC),
        member_id=member_id,
        unit=context.unit,
        event=_event(request, context, effects),
        spend=_spend(request, context),
        grants=grants_of(lots, context.zone),
        checkout_key=checkout_of(request) if member_id else None,
        same_contents=contents[1:],
        refusal=_ledger_refusal(context.shopper),
    )


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
    response = checkout_pb2.CommitResponse(
        entry=entry_ref(booked),
        settlement=event.settlement,
        notices=event.purchase.notices,
        member_id=event.purchase.member_id,
    )
    left_out = event.settlement.left_out_points_minor
    if left_out:
        response.notices.append(
            common_pb2.Notice(
                audience=common_pb2.AUDIENCE_CASHIER,
                code="POINTS_LEFT_OUT",
                text=_left_out_text(event.settlement),
            )
        )
    return response


def _left_out_text(settlement: checkout_pb2.Settlement) -> str:
    points = decimal_text(settlement.left_out_points_minor, settlement.balance.precision)
    why = "this member may not spend yet"
    if settlement.left_out_reason == common_pb2.REFUSAL_REASON_POINTS_INSUFFICIENT:
        why = "the balance did not cover them"
    return f"{points} points were not spent: {why}. The receipt is booked; tell the shopper."


def _content_hashes(request: checkout_pb2.CommitRequest, shopper: Shopper) -> tuple[bytes, ...]:
    """Return the hash of what a resent receipt must repeat, and those under which it may stand in the books.

    The member takes the place of the identifier, so a receipt that showed one may have been booked for the member
    who is behind it, for one who was merged into that member since, or, offline, for nobody. All else but the message
    id is content.
    """
    content = (
        request.receipt_key.SerializeToString(deterministic=True),
        request.receipt.SerializeToString(deterministic=True),
        request.spend_points_minor.to_bytes(8, "big"),
        "\n".join(request.coupon_codes).encode(),
        request.checkout_id.encode(),
    )
    if not request.HasField("identifier"):
        return (content_hash(None, *content),)
    without = content_hash(None, *content, b"identifier does not count")
    ids = (one for found in (shopper.found, shopper.shown) if found for one in ids_of(found))
    members = [content_hash(one, *content) for one in ids]
    return (without, *members) if shopper.booked_without else (*members, without)


def _ledger_refusal(shopper: Shopper) -> LedgerRefused | None:
    if shopper.refusal is None or shopper.booked_without or shopper.found is not None:
        return None
    return LedgerRefused(shopper.refusal.reason, shopper.refusal.message)


def _effects_as_paid(request: checkout_pb2.CommitRequest, context: CommitContext) -> Effects:
    """Evaluate on the money as paid: the points spent are spread over the lines as a discount is."""
    discounts = [(line.line_number, line.discount_minor) for line in request.receipt.lines if line.quantity_milli]
    rules, facts, member = context.rules, context.facts, context.member
    effects = earn_as_paid(rules, facts, member, [PaidLine(number, discount) for number, discount in discounts])
    money_minor = _money_of_points(request.spend_points_minor, rules)
    if money_minor == 0:
        return effects
    payable = [line.payable_minor for line in effects.lines]
    limits = [line.spendable_minor for line in effects.lines]
    parts = spread_largest_remainder(min(money_minor, sum(limits)), payable, limits)
    paid_with_points = {line.line_number: part for line, part in zip(effects.lines, parts, strict=True)}
    paid = [PaidLine(number, discount, paid_with_points[number]) for number, discount in discounts]
    return earn_as_paid(rules, facts, member, paid)


def _effects_without_member(request: checkout_pb2.CommitRequest, context: CommitContext) -> Effects:
    """Evaluate for the discounts and variances only: nobody is there to earn."""
    paid = [PaidLine(line.line_number, line.discount_minor) for line in request.receipt.lines if line.quantity_milli]
    effects = earn_as_paid(context.rules, context.facts, None, paid)
    lines = tuple(line._replace(accruals=()) for line in effects.lines)
    return effects._replace(lines=lines, accrual_points_minor=0)


def _money_of_points(points_minor: int, rules: Rules) -> int:
    spending = rules.programme.spending
    return points_minor * spending.step_money_minor // spending.step_points_minor


def _spend(request: checkout_pb2.CommitRequest, context: CommitContext) -> Spend | None:
    if context.found is None or request.spend_points_minor == 0:
        return None
    spending = context.rules.programme.spending
    forbidden = 0 if context.found.member.can_spend else int(common_pb2.REFUSAL_REASON_SPENDING_FORBIDDEN)
    return Spend(
        points_minor=request.spend_points_minor,
        step_minor=spending.step_points_minor,
        rate_money_minor=spending.step_money_minor,
        rate_points_minor=spending.step_points_minor,
        forbidden=forbidden,
    )


def _event(request: checkout_pb2.CommitRequest, context: CommitContext, effects: Effects) -> bytes:
    """Return the journal's record of a purchase, without what the books add to it."""
    event = journal_pb2.Event()
    purchase, shopper = event.purchase, context.shopper
    purchase.receipt_key.CopyFrom(request.receipt_key)
    if shopper.found is not None:
        purchase.member_id = str(shopper.found.member.member_id)
        purchase.identified_by = shopper.found.identified_by
    if shopper.refusal is not None:
        purchase.identifier_refused = shopper.refusal.reason
    purchase.receipt.CopyFrom(request.receipt)
    _complete_lines(purchase.receipt, context.facts)
    add_line_effects(purchase.effects, request.receipt, effects)
    purchase.programme_code = context.rules.programme.code
    purchase.programme_version = effects.programme_version
    purchase.asked_points_minor = request.spend_points_minor
    purchase.variances.extend(variance_messages(effects))
    purchase.notices.extend((*notices_of(effects.messages), *context.notices))
    purchase.time_zone = context.zone.key
    purchase.coupon_codes.extend(request.coupon_codes)
    purchase.quoted_programme_version = request.quoted_programme_version
    return event.SerializeToString()


def _complete_lines(receipt: common_pb2.Receipt, facts: ReceiptFacts) -> None:
    """Write down what the catalogue knew, so that the receipt can be explained when the catalogue has changed."""
    judged = {line.line_number: line for line in facts.lines}
    for line in receipt.lines:
        seen = judged.get(line.line_number)
        if seen is None:
            continue
        if not line.category and seen.category:
            line.category = seen.category
        if not line.brand and seen.brand:
            line.brand = seen.brand
        if len(seen.tags) > len(line.tags):
            line.tags[:] = seen.tags
