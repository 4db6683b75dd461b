"""Why each promotion did or did not apply to a receipt, as messages of the API."""

from __future__ import annotations

from collections.abc import Sequence

from tallypoint.v1 import programme_pb2 as pb

from server.promotions import MemberFacts, PaidLine, ReceiptFacts, Rules
from server.promotions.explain import PromotionAnswer, explain
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
