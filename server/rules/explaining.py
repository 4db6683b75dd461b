"""Why each promotion did or did not apply to a receipt, as messages of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tallypoint.v1 import journal_pb2
from tallypoint.v1 import programme_pb2 as pb

from server.promotions import MemberFacts, PaidLine, ReceiptFacts, Rules
from server.promotions.explain import PromotionAnswer, Status, explain
from server.promotions.facts import Usage
from server.promotions.wording import ConditionAnswer


def promotion_explanations(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    usage: Usage | None,
    paid: Sequence[PaidLine] | None = None,
) -> list[pb.PromotionExplanation]:
    """Say what became of each promotion, in the order in which promotions are looked at; `paid` as in `earn_as_paid`.

    Raises:
        ReceiptError: the receipt makes no sense.
    """
    return [_promotion(one) for one in explain(rules, receipt, member, usage, paid).promotions]


TODAY_ONLY: Final = "today_only"
"""The verdict on a promotion that gave nothing on an old receipt, and would give something by today's semantics."""


def as_booked(today: pb.PromotionExplanation, purchase: journal_pb2.Purchase) -> pb.PromotionExplanation:
    """Return what became of a promotion on a receipt of older semantics: what it gave as stored, not as of today."""
    applied = Status.APPLIED.value
    booked = pb.PromotionExplanation()
    booked.CopyFrom(today)
    booked.discount_minor = booked.points_minor = 0
    del booked.line_numbers[:]
    for line in purchase.effects:
        money = sum(part.amount_minor for part in line.discounts if part.promotion_id == today.promotion_id)
        points = sum(part.points_minor for part in line.accruals if part.promotion_id == today.promotion_id)
        booked.discount_minor += money
        booked.points_minor += points
        if money or points:
            booked.line_numbers.append(line.line_number)
    if booked.line_numbers and today.verdict != applied:
        booked.verdict, booked.reason = applied, f"as booked; today: {today.reason}"
    elif today.verdict == applied and today.line_numbers and not booked.line_numbers:
        booked.verdict, booked.reason = TODAY_ONLY, f"gave nothing as booked; today: {today.reason}"
    return booked


def _promotion(answer: PromotionAnswer) -> pb.PromotionExplanation:
    message = pb.PromotionExplanation(
        promotion_id=answer.promotion_id,
        name=answer.name,
        verdict=answer.status.value,
        reason=answer.text,
        discount_minor=sum(line.discount_minor for line in answer.lines),
        points_minor=sum(line.points_minor for line in answer.lines),
        unit=answer.unit,
        line_numbers=[line.line_number for line in answer.lines],
    )
    if answer.condition is not None:
        message.condition.CopyFrom(_condition(answer.condition))
    return message


def _condition(answer: ConditionAnswer) -> pb.ConditionExplanation:
    parts = [_condition(part) for part in answer.parts]
    return pb.ConditionExplanation(text=answer.text, holds=answer.holds, found=answer.found, parts=parts)
