"""Pure evaluation of a receipt: line discounts, basket discounts, rights, points as payment, earning, in this order.

Nothing here reads a clock or keeps state: the same rules, receipt, member and usage give the same effects, whatever
the order of the lines. Within a step promotions go by rank (priority, then id).
"""

from __future__ import annotations

from collections.abc import Sequence

from server.promotions.compile import Rules
from server.promotions.discounts import discount_all
from server.promotions.earning import earn, earning_bases
from server.promotions.facts import (
    ChargedLine,
    Effects,
    MemberFacts,
    ReceiptError,
    ReceiptFacts,
    Usage,
    Variance,
)
from server.promotions.outcome import Payment, effects_of, give_more
from server.promotions.paying import NO_POINTS_PAID, spending_limits, spread_payment
from server.promotions.plain import as_charged, evaluate_plainly
from server.promotions.tenders import with_points_paid
from server.promotions.work import Query, Work, query_of

_MOST_TRIES = 4
"""How often a quote looks for points and discounts that agree; of some programmes none do."""


def quote(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    spend_points_minor: int | None = None,
    usage: Usage | None = None,
) -> Effects:
    """What would happen at the register; changes nothing.

    `member` None tells what a member would get, promotions that need to know the member left out.
    `spend_points_minor` (None: nothing) is cut to the programme's limit and to whole steps; the balance is
    the caller's to check. `usage` is what was used before (None: nothing). Raises ReceiptError for a receipt that
    makes no sense.
    """
    if spend_points_minor:
        return rehearse(rules, receipt, member, spend_points_minor, usage)[1]
    query = query_of(rules, with_points_paid(receipt, 0), member, usage)
    return evaluate_plainly(query) or _rehearse(query, None)[1]


def rehearse(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    spend_points_minor: int | None = None,
    usage: Usage | None = None,
) -> tuple[Work, Effects]:
    """The same as `quote`, step by step, with the state that it went through, for those who ask why.

    What points can pay is known only after the discounts, and discounts may ask for tenders: so at first all points
    asked for pay, then what they could pay at most, until both agree.
    """
    spending = rules.programme.spending
    money_minor = max(spend_points_minor or 0, 0) // spending.step_points_minor * spending.step_money_minor
    tries_left = _MOST_TRIES
    while True:
        query = query_of(rules, with_points_paid(receipt, money_minor), member, usage)
        work, effects = _rehearse(query, spend_points_minor)
        paid_minor = sum([line.points_money_minor for line in effects.lines])
        tries_left -= 1
        if paid_minor == money_minor or not receipt.tenders or not tries_left:
            return work, effects
        money_minor = paid_minor


def _rehearse(query: Query, spend_points_minor: int | None) -> tuple[Work, Effects]:
    work, rules = Work(query), query.rules
    discount_all(work)
    limits, max_steps = spending_limits(work)
    spending = rules.programme.spending
    steps = min(max(spend_points_minor or 0, 0) // spending.step_points_minor, max_steps)
    points_money = spread_payment(work, limits, steps * spending.step_money_minor)
    bases = earning_bases(work, points_money)
    accruals = earn(work, bases)
    more = give_more(work, bases)
    return work, effects_of(work, Payment(limits, max_steps, points_money), accruals, more)


def earn_as_paid(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    paid: Sequence[ChargedLine],
    usage: Usage | None = None,
) -> Effects:
    """The effects of a receipt as the register charged it; lines missing from `paid` were charged in full.

    `paid` are PaidLines, or plain tuples of the same.
    Earning is computed on the money really paid. A line that was charged another discount than the rules
    give carries one discount under AS_CHARGED_ID and is listed in `variances`; what promotions used for it doesn't
    count. Equal to `quote` if the register applied the quote. Raises ReceiptError if the payment doesn't fit the
    receipt.
    """
    if receipt.tenders:
        receipt = with_points_paid(receipt, sum([line[2] for line in paid]))
    query = query_of(rules, receipt, member, usage)
    return evaluate_plainly(query, paid) or steps_as_paid(query, paid)


def steps_as_paid(query: Query, paid: Sequence[ChargedLine]) -> Effects:
    """The same as `earn_as_paid`, step by step."""
    work = Work(query)
    discount_all(work)
    points_money, variances = _charge(work, paid)
    limits, max_steps = spending_limits(work)
    bases = earning_bases(work, points_money)
    accruals = earn(work, bases)
    more = give_more(work, bases)
    return effects_of(work, Payment(limits, max_steps, points_money), accruals, more, variances)


# --- as charged -------------------------------------------------------------------------------------------


def _charge(work: Work, paid: Sequence[ChargedLine]) -> tuple[Sequence[int], tuple[Variance, ...]]:
    """Replace the computed discounts by the charged ones; returns points money a line, and variances."""
    by_number = {charge[0]: charge for charge in paid}
    unknown = by_number.keys() - {line.line_number for line in work.lines}
    if unknown or len(by_number) != len(paid):
        numbers = sorted(unknown) or [number for number, _, _ in paid]
        raise ReceiptError(f"paid lines {numbers}: each has to name a line of the receipt, once", "paid", numbers[0])
    variances = []
    points_money = []
    for i, line in enumerate(work.lines):
        _, discount_minor, points_money_minor = by_number.get(line.line_number, (0, 0, 0))
        if min(discount_minor, points_money_minor) < 0 or discount_minor + points_money_minor > line.list_amount_minor:
            raise ReceiptError(
                f"line {line.line_number}: discount_minor and points_money_minor must not be negative, nor"
                f" come to more than the list price of {line.list_amount_minor}",
                "paid",
                line.line_number,
            )
        expected = line.list_amount_minor - work.left[i]
        if expected != discount_minor:
            variances.append(Variance(line.line_number, expected, discount_minor))
            _charge_line(work, i, discount_minor)
        points_money.append(points_money_minor)
    return points_money if any(points_money) else NO_POINTS_PAID, tuple(variances)


def _charge_line(work: Work, i: int, charged_minor: int) -> None:
    """What the register took off a line stands, whatever promotions give: they did not apply to it."""
    if work.is_metered:
        # A piece whose share of a discount rounds to nothing uses up its limit all the same.
        taken = dict.fromkeys([user for at, user in work.units_used if at == i], 0)
        for promotion_id, amount in work.discounts[i]:
            taken[promotion_id] = taken.get(promotion_id, 0) + amount
        for promotion_id, amount in taken.items():
            work.meter.forget(promotion_id, work.units_used.pop((i, promotion_id), 0), amount)
    work.discounts[i] = as_charged(charged_minor)
    work.cuts[i] = 0
    work.free_units.pop(i, None)
    work.left[i] = work.lines[i].list_amount_minor - charged_minor
