"""What an entry says of a purchase, as bytes: the fields of `journal_pb2.Purchase` in the order of their numbers.

What every receipt has is joined from written fields, of which those that come again are kept; what few have is left to
messages with only those fields set. One message for all of it took 160 us a receipt of ten lines, this takes 45.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2
from tallypoint.v1.journal_pb2 import Purchase

from server.checkout.context import CommitContext
from server.checkout.deposits import deposit_lines
from server.checkout.notices import notices_of
from server.checkout.presented import Presented
from server.checkout.promises import (
    capped_messages,
    coupon_notices,
    given_messages,
    standing_message,
)
from server.checkout.spending import Payment
from server.promotions import Effects, ReceiptFacts, Standing, TierChange, Usage
from server.rules.effects import ROOMS
from server.rules.effects.coupon import Issued, issued_messages
from server.rules.evidence import written_facts
from server.rules.receipt_lines import judged_lines, line_numbers, variance_messages
from server.rules.wire import LinesField, kept_ints, kept_prefixes, kept_texts, text_field

_PURCHASE: Final = kept_prefixes(journal_pb2.Event.PURCHASE_FIELD_NUMBER)
_RECEIPT_KEY: Final = kept_prefixes(Purchase.RECEIPT_KEY_FIELD_NUMBER)
_MEMBER_ID: Final = kept_prefixes(Purchase.MEMBER_ID_FIELD_NUMBER)
_IDENTIFIED_BY: Final = kept_ints(Purchase.IDENTIFIED_BY_FIELD_NUMBER)
_RECEIPT: Final = kept_prefixes(Purchase.RECEIPT_FIELD_NUMBER)
_EFFECTS: Final = LinesField(Purchase.EFFECTS_FIELD_NUMBER)
_PROGRAMME_CODE: Final = kept_texts(Purchase.PROGRAMME_CODE_FIELD_NUMBER)
_PROGRAMME_VERSION: Final = kept_ints(Purchase.PROGRAMME_VERSION_FIELD_NUMBER)
_ASKED_POINTS: Final = kept_ints(Purchase.ASKED_POINTS_MINOR_FIELD_NUMBER)
_TIME_ZONE: Final = kept_texts(Purchase.TIME_ZONE_FIELD_NUMBER)
_QUOTED_VERSION: Final = kept_ints(Purchase.QUOTED_PROGRAMME_VERSION_FIELD_NUMBER)
_FACTS: Final = kept_prefixes(Purchase.FACTS_FIELD_NUMBER)


class Record(NamedTuple):
    """What the journal is to remember of a purchase beside the request."""

    effects: Effects
    presented: Presented
    usage: Usage
    issued: tuple[Issued, ...]
    tier_before: str
    tier_change: TierChange | None
    standing: Standing | None
    payment: Payment | None = None


def event_of(request: checkout_pb2.CommitRequest, context: CommitContext, record: Record) -> bytes:
    """Return the serialised `journal_pb2.Event` of a purchase, without what the books add to it."""
    effects, seen = record.effects, with_coupons(context.facts, record.presented)
    outcomes = record.presented.outcomes(effects) if record.presented.codes else []
    facts = written_facts(context.rules, seen, context.member, record.usage, effects, record.tier_before)
    purchase = b"".join(
        (
            *_bought(request, context),
            _EFFECTS.write(line_numbers(request.receipt, context.facts), effects),
            _PROGRAMME_CODE[context.rules.programme.code],
            _PROGRAMME_VERSION[effects.programme_version],
            _ASKED_POINTS[request.spend_points_minor],
            _variances_and_notices(context, effects, outcomes),
            _TIME_ZONE[context.zone.key],
            _coupons_presented(context, record),
            _QUOTED_VERSION[request.quoted_programme_version],
            _FACTS[len(facts)],
            facts,
            _rights(context, record, outcomes),
            _paid_with_points(request, context, record),
            text_field(Purchase.CHECKOUT_ID_FIELD_NUMBER, request.checkout_id),
        )
    )
    return _PURCHASE[len(purchase)] + purchase


def with_coupons(facts: ReceiptFacts, presented: Presented) -> ReceiptFacts:
    """Return a receipt with the coupons that count."""
    return facts._replace(coupons=presented.usable) if presented.usable != facts.coupons else facts


def _bought(request: checkout_pb2.CommitRequest, context: CommitContext) -> tuple[bytes, ...]:
    """Write what was bought, and by whom."""
    key = request.receipt_key.SerializeToString()
    receipt = common_pb2.Receipt()
    receipt.CopyFrom(request.receipt)
    _complete_lines(receipt, context.facts)
    bought = receipt.SerializeToString()
    found = context.found
    if found is None:
        return _RECEIPT_KEY[len(key)], key, _RECEIPT[len(bought)], bought
    member_id = str(found.member.member_id).encode()
    by = _IDENTIFIED_BY[found.identified_by]
    return _RECEIPT_KEY[len(key)], key, _MEMBER_ID[len(member_id)], member_id, by, _RECEIPT[len(bought)], bought


def _complete_lines(receipt: common_pb2.Receipt, facts: ReceiptFacts) -> None:
    """Write down what the catalogue knew, so that the receipt can be explained when the catalogue has changed."""
    for line, seen in zip(judged_lines(receipt, facts), facts.lines, strict=True):
        if seen.category:  # the line's own, if it has one: to set it again is cheaper than to look
            line.category = seen.category
        if seen.brand:
            line.brand = seen.brand
        if seen.supplier:
            line.supplier = seen.supplier
        if seen.tags and len(seen.tags) > len(line.tags):
            line.tags[:] = seen.tags


def _variances_and_notices(context: CommitContext, effects: Effects, outcomes: list[common_pb2.CouponOutcome]) -> bytes:
    """Write on which lines the register charged otherwise, and what was said."""
    if not (effects.variances or effects.messages or context.notices or outcomes):
        return b""
    return Purchase(
        variances=variance_messages(effects),
        notices=[*notices_of(effects.messages), *context.notices, *coupon_notices(outcomes)],
    ).SerializeToString()


def _coupons_presented(context: CommitContext, record: Record) -> bytes:
    """Write which coupons were presented, and why a card did not count."""
    refusal = context.shopper.refusal
    if refusal is None and not record.presented.codes:
        return b""
    return Purchase(
        coupon_codes=record.presented.codes, identifier_refused=refusal.reason if refusal else None
    ).SerializeToString()


def _rights(context: CommitContext, record: Record, outcomes: list[common_pb2.CouponOutcome]) -> bytes:
    """Write what came of coupons, limits, gifts and levels, and for which partner."""
    effects, change, after, partner = record.effects, record.tier_change, record.standing, context.facts.partner
    if not (effects.withheld or effects.capped or outcomes or record.issued or effects.given or after or partner):
        return b""
    purchase = Purchase(
        withheld=[journal_pb2.Withheld(promotion_id=one.promotion_id, reason=one.reason) for one in effects.withheld],
        capped=capped_messages(effects),
        coupons=outcomes,
        issued_coupons=issued_messages(record.issued),
        given=given_messages(effects),
        partner=partner,
    )
    if effects.gave:
        for room in ROOMS.values():
            room.record(purchase, effects)
    if change is not None:
        purchase.tier_change.before, purchase.tier_change.after = change.before, change.after
        purchase.tier_change.good_until = change.good_until.isoformat()
    if after is not None:
        purchase.standing.CopyFrom(standing_message(after))
    return purchase.SerializeToString()


def _paid_with_points(request: checkout_pb2.CommitRequest, context: CommitContext, record: Record) -> bytes:
    """Write which points of further units the shopper bought or paid with, and what points were allowed to pay."""
    payment = record.payment
    if not (request.spend_units or request.deposits or payment):
        return b""
    return Purchase(
        asked_units=request.spend_units,
        deposits=request.deposits,
        paid_units_money=payment.units_money() if payment else (),
        spending_limit=payment.limit.message() if payment else None,
        deposit_lines=deposit_lines(request, context.rules, record.effects) if request.deposits else (),
    ).SerializeToString()
