"""Points as payment: the most that they may pay of a receipt, and how what they pay is spread over its lines."""

from __future__ import annotations

from collections.abc import Sequence

from server.promotions.arithmetic import MOST_POINTS_MINOR, spread_largest_remainder
from server.promotions.compile import Rules
from server.promotions.facts import MemberFacts
from server.promotions.work import Work

NO_POINTS_PAID: tuple[int, ...] = ()


def spending_limits(work: Work) -> tuple[list[int], int]:
    """What points may pay: the most of each line in minor units of money, and of the receipt in steps."""
    rules = work.rules
    if not takes_points(rules, work.receipt.partner, work.member):
        return [0] * len(work.lines), 0
    respect_floor = rules.programme.spending.respect_price_floor
    limits = []
    payable = 0
    for line, candidates, left in zip(work.lines, work.candidates, work.left, strict=True):
        if candidates.no_spending:
            limits.append(0)
            continue
        payable += left
        limit = left - line[8] if respect_floor else left
        limits.append(limit if limit > 0 else 0)  # noqa: FURB136 -- max() costs as much as all the rest
    return limits, most_steps(rules, work.member, payable, sum(limits), sum(work.left))


def takes_points(rules: Rules, partner: str, member: MemberFacts | None) -> bool:
    """Whether lines may be paid with points in the stores of a partner (empty: the chain's own).

    Who may not spend is told what the lines would allow, wherever it is.
    """
    return not partner or rules.accepts_points(partner) or (member is not None and not member.can_spend)


def most_steps(
    rules: Rules, member: MemberFacts | None, payable_minor: int, limits_minor: int, total_minor: int
) -> int:
    """How many steps of points may pay at most.

    `payable_minor` is what the lines cost that points may pay for, `limits_minor` what they may pay of them at most,
    `total_minor` what all lines cost.
    """
    if member is not None and not member.can_spend:
        return 0
    spending = rules.programme.spending
    numerator, denominator = rules.max_share
    most = min(payable_minor * numerator // denominator, limits_minor)
    if spending.keep_one_minor_unit:
        most = min(most, total_minor - 1)
    return min(max(most, 0) // spending.step_money_minor, MOST_POINTS_MINOR // spending.step_points_minor)


def spread_payment(work: Work, limits: list[int], money_minor: int) -> Sequence[int]:
    """What points pay of each line; nothing: empty."""
    if not money_minor:
        return NO_POINTS_PAID
    return spread_largest_remainder(money_minor, work.left, limits)
