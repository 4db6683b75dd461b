"""Returns: from a request and the purchase as booked to the command that reverses it, and from entries to answers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.keys import content_hash, message_key
from ledger.entry.model import Booked, Return, Unit
from ledger.entry.returns import UNIT_MILLI
from ledger.reading.lookups import BookedReceipt
from server.base.errors import Refused, invalid_field
from server.checkout.levels import relevel_of
from server.checkout.return_notices import return_notices
from server.checkout.submission import balances_of, entry_ref, receipt_key_bytes, return_key_bytes
from server.edge.moments import moment_of
from server.promotions import Clawback, Rules

_CLAWBACKS: Final[Mapping[Clawback, journal_pb2.ClawbackMode]] = {
    Clawback.DEBT: journal_pb2.CLAWBACK_MODE_DEBT,
    Clawback.WITHIN_BALANCE: journal_pb2.CLAWBACK_MODE_WITHIN_BALANCE,
    Clawback.OWN_LOT_ONLY: journal_pb2.CLAWBACK_MODE_OWN_LOT_ONLY,
    Clawback.OFF_THE_REFUND: journal_pb2.CLAWBACK_MODE_OFF_THE_REFUND,
}
_UNKNOWN_TEXT: Final = (
    "This purchase is not booked, so no points can be reversed. Check the receipt's number; if it was taken offline, "
    "let its register send its journal first."
)
_A_RETURN_TEXT: Final = "This is the receipt of a return. Ask for the receipt of the purchase."


class ReturnContext(NamedTuple):
    """What a return is judged by: the purchase as booked, and the rules at the return's own time.

    ``key`` is the one under which the return counts once; ``living_id`` is the member into whom the buyer was merged
    since, empty for none.
    """

    key: bytes
    purchase: BookedReceipt
    rules: Rules
    unit: Unit
    zone: ZoneInfo
    living_id: str = ""


def key_of(request: checkout_pb2.ReturnRequest, under_number: BookedReceipt | None) -> bytes:
    """Return the key under which a return counts once; ``under_number`` is what is booked under the key of a sale.

    Releases up to 0.4 booked returns under that key: one that is sent again is found there.

    Raises:
        Refused: INVALID_REQUEST if its business date is none.
    """
    if under_number is not None and under_number.kind == journal_pb2.ENTRY_KIND_RETURN:
        return receipt_key_bytes(request.receipt_key, "receipt_key")
    return return_key_bytes(request.receipt_key, "receipt_key")


def known_purchase(request: checkout_pb2.ReturnRequest, found: BookedReceipt | None) -> BookedReceipt:
    """Return the purchase that a return names.

    Raises:
        Refused: PURCHASE_UNKNOWN if nothing, or no purchase, is booked under its key; INVALID_REQUEST for a line that
            it does not have or that is named twice, or for a broken unit.
    """
    key = request.purchase_key
    name = f"receipt {key.receipt_number} of {key.business_date}, store {key.store_id}, terminal {key.terminal_id}"
    if found is None:
        raise Refused(common_pb2.REFUSAL_REASON_PURCHASE_UNKNOWN, f"{name} is not booked", cashier_text=_UNKNOWN_TEXT)
    if found.kind != journal_pb2.ENTRY_KIND_PURCHASE:
        raise Refused(
            common_pb2.REFUSAL_REASON_PURCHASE_UNKNOWN,
            f"{name} is a return itself; name the purchase",
            cashier_text=_A_RETURN_TEXT,
        )
    bought = {line.line_number: line for line in found.event.purchase.receipt.lines if line.quantity_milli}
    seen: set[int] = set()
    for index, line in enumerate(request.lines):
        number = line.line_number
        if number not in bought:
            raise invalid_field(f"lines[{index}].line_number", f"the purchase has no line {number}")
        if number in seen:
            raise invalid_field(f"lines[{index}].line_number", f"{number} stands in the return twice")
        if _is_in_units(bought[number]) and line.quantity_milli % UNIT_MILLI:
            raise invalid_field(
                f"lines[{index}].quantity_milli", f"line {number} was sold in whole units of {UNIT_MILLI}"
            )
        seen.add(number)
    return found


def _is_in_units(line: common_pb2.ReceiptLine) -> bool:
    return not line.weighed and line.quantity_milli % UNIT_MILLI == 0


def return_command(request: checkout_pb2.ReturnRequest, context: ReturnContext) -> Return:
    """Return what the books are to be told."""
    purchase, settings = context.purchase, context.rules.programme.returns
    day = moment_of(request.event_at).astimezone(context.zone).date()
    member = purchase.event.purchase.member_id
    record = journal_pb2.GoodsReturn(
        receipt_key=request.receipt_key,
        member_id=member,
        purchase_key=request.purchase_key,
        purchase_number=purchase.number,
        event_at=request.event_at,
        asked=request.lines,
        programme_code=context.rules.programme.code,
        programme_version=context.rules.version,
        clawback=_CLAWBACKS[settings.clawback],
        expired_grace_days=settings.expired_grace_days,
        time_zone=context.zone.key,
        living_member_id=context.living_id,
    )
    return Return(
        book=purchase.book,
        message_id=message_key(request.message_id),
        business_key=context.key,
        content_hash=_return_hash(request),
        event_at=moment_of(request.event_at),
        member_id=uuid.UUID(member) if member else None,
        event=journal_pb2.Event(goods_return=record).SerializeToString(),
        unit=context.unit,
        purchase_number=purchase.number,
        purchase=purchase.payload,
        asked=tuple((line.line_number, line.quantity_milli) for line in request.lines),
        lots=purchase.lots,
        clawback=_CLAWBACKS[settings.clawback],
        expired_grace_days=settings.expired_grace_days,
        units=purchase.units,
        partners=purchase.partners,
        rates=_rates(context.rules),
        day=day,
        is_merged=bool(context.living_id),
        relevel=relevel_of(context.rules, day),
    )


def _rates(rules: Rules) -> dict[str, tuple[int, int]]:
    """Return the money that so many points of each unit pay, by the unit's code, empty for the programme's own."""
    spending = rules.programme.spending
    further = {unit.point.unit: unit.point.money_per_points for unit in rules.programme.units}
    own = (spending.step_money_minor, spending.step_points_minor)
    return {"": own} | {code: (rate.numerator, rate.denominator) for code, rate in further.items()}


def _return_hash(request: checkout_pb2.ReturnRequest) -> bytes:
    """Return the hash of what a resent return must repeat: all but the message id. The purchase has the member."""
    return content_hash(
        None,
        b"return",
        request.receipt_key.SerializeToString(deterministic=True),
        request.purchase_key.SerializeToString(deterministic=True),
        request.event_at.SerializeToString(deterministic=True),
        *(line.SerializeToString(deterministic=True) for line in request.lines),
    )


def return_response(booked: Booked) -> checkout_pb2.ReturnResponse:
    """Return the answer that an entry stores: the same whenever it is asked for."""
    event = journal_pb2.Event.FromString(booked.event)
    goods, settlement = event.goods_return, event.settlement
    response = checkout_pb2.ReturnResponse(
        entry=entry_ref(booked),
        refund_money_minor=goods.refund_money_minor,
        refund_points_minor=settlement.refund_points_minor,
        clawback_points_minor=settlement.clawback_points_minor + settlement.clawback_debt_points_minor,
        debt_points_minor=settlement.clawback_debt_points_minor,
        balances=balances_of(settlement),
        notices=return_notices(event),
        coupon_codes=goods.coupon_codes,
        kept_back_money_minor=goods.kept_back_money_minor,
        member_id=goods.living_member_id or goods.member_id,
        revoked_coupon_codes=goods.revoked_coupon_codes,
    )
    if goods.HasField("standing"):
        response.standing.CopyFrom(goods.standing)
    for line in goods.lines:
        response.lines.add(
            line_number=line.line_number,
            quantity_milli=line.quantity_milli,
            refund_money_minor=line.list_amount_minor - line.discount_minor - line.points_money_minor,
            refund_points_minor=line.refund_points_minor,
            clawback_points_minor=line.clawback_points_minor,
        )
    return response
