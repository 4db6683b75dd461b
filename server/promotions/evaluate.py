"""Pure evaluation of a receipt: line discounts, basket discounts, rights, points as payment, earning, in this order.

Nothing here reads a clock or keeps state: the same rules, receipt, member and usage give the same effects, whatever
the order of the lines. Within a step promotions go by rank (priority, then id).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from server.promotions.arithmetic import add_days, expiry_date, spread_largest_remainder
from server.promotions.compile import Rules
from server.promotions.discounts import discount_all
from server.promotions.earning import earn, earning_bases
from server.promotions.facts import (
    Discount,
    Effects,
    LotDates,
    LotGrant,
    MemberFacts,
    PaidLine,
    ReceiptError,
    ReceiptFacts,
    Usage,
    Variance,
)
from server.promotions.model import AS_CHARGED_ID, LotTerms
from server.promotions.outcome import Payment, effects_of, give_more
from server.promotions.work import Work

NO_POINTS_PAID: tuple[int, ...] = ()


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
    return rehearse(rules, receipt, member, spend_points_minor, usage)[1]


def rehearse(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    spend_points_minor: int | None = None,
    usage: Usage | None = None,
) -> tuple[Work, Effects]:
    """The same as `quote`, with the state that it went through, for those who ask why."""
    work = Work(rules, receipt, member, usage)
    discount_all(work)
    limits, max_steps = _spending_limits(work)
    spending = rules.programme.spending
    steps = min(max(spend_points_minor or 0, 0) // spending.step_points_minor, max_steps)
    points_money = _spread_payment(work, limits, steps * spending.step_money_minor)
    bases = earning_bases(work, points_money)
    accruals = earn(work, bases)
    more = give_more(work, bases)
    return work, effects_of(work, Payment(limits, max_steps, points_money), accruals, more)


def earn_as_paid(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    paid: Sequence[PaidLine],
    usage: Usage | None = None,
) -> Effects:
    """The effects of a receipt as the register charged it; lines missing from `paid` were charged in full.

    Earning is computed on the money really paid. A line that was charged another discount than the rules
    give carries one discount under AS_CHARGED_ID and is listed in `variances`; what promotions used for it doesn't
    count. Equal to `quote` if the register applied the quote. Raises ReceiptError if the payment doesn't fit the
    receipt.
    """
    work = Work(rules, receipt, member, usage)
    discount_all(work)
    points_money, variances = _charge(work, paid)
    limits, max_steps = _spending_limits(work)
    bases = earning_bases(work, points_money)
    accruals = earn(work, bases)
    more = give_more(work, bases)
    return effects_of(work, Payment(limits, max_steps, points_money), accruals, more, variances)


# --- lots -------------------------------------------------------------------------------------------------


def lot_terms(rules: Rules, on: date, promotion_id: str | None = None) -> LotDates:
    """Dates of a lot granted on a store-local day, by the promotion's own terms or the programme's."""
    return _dates_of(rules.terms.get(promotion_id or "", rules.programme.earning.terms), on)


def _dates_of(terms: LotTerms, on: date) -> LotDates:
    active_from = add_days(on, terms.pending_days) if terms.pending_days else None
    return LotDates(active_from, expiry_date(on, terms.expiry))


def lots_to_grant(rules: Rules, effects: Effects, on: date) -> tuple[LotGrant, ...]:
    """The accruals of a receipt gathered into lots of equal dates, unit and partner, ordered by first appearance."""
    points: dict[tuple[LotDates, str, str], int] = {}
    sources: dict[tuple[LotDates, str, str], list[str]] = {}
    lots: dict[tuple[str, str, str], tuple[LotDates, str, str]] = {}
    dates_of_terms: dict[LotTerms | None, LotDates] = {}
    for line in effects.lines:
        for promotion_id, _, points_minor, unit, partner in line.accruals:
            lot = lots.get((promotion_id, unit, partner))
            if lot is None:
                terms = rules.terms.get(promotion_id)
                if terms not in dates_of_terms:
                    dates_of_terms[terms] = lot_terms(rules, on, promotion_id)
                lot = lots[promotion_id, unit, partner] = dates_of_terms[terms], unit, partner
                points.setdefault(lot, 0)
                sources.setdefault(lot, []).append(promotion_id)
            points[lot] += points_minor
    return tuple(
        LotGrant(amount, dates.active_from, dates.expires_on, tuple(sources[dates, unit, partner]), unit, partner)
        for (dates, unit, partner), amount in points.items()
    )


# --- points as payment ------------------------------------------------------------------------------------


def _spending_limits(work: Work) -> tuple[list[int], int]:
    """What points may pay: the most of each line in minor units of money, and of the receipt in steps."""
    spending = work.rules.programme.spending
    respect_floor = spending.respect_price_floor
    limits = []
    payable = 0
    for line, candidates, left in zip(work.lines, work.candidates, work.left, strict=True):
        if candidates.no_spending:
            limits.append(0)
            continue
        payable += left
        limit = left - line[8] if respect_floor else left
        limits.append(limit if limit > 0 else 0)  # noqa: FURB136 -- max() costs as much as all the rest
    if work.member is not None and not work.member.can_spend:
        return limits, 0
    if work.receipt.partner and not work.rules.accepts_points(work.receipt.partner):
        return [0] * len(limits), 0
    numerator, denominator = work.rules.max_share
    most = min(payable * numerator // denominator, sum(limits))
    if spending.keep_one_minor_unit:
        most = min(most, sum(work.left) - 1)
    return limits, max(most, 0) // spending.step_money_minor


def _spread_payment(work: Work, limits: list[int], money_minor: int) -> Sequence[int]:
    if not money_minor:
        return NO_POINTS_PAID
    return spread_largest_remainder(money_minor, work.left, limits)


def _charge(work: Work, paid: Sequence[PaidLine]) -> tuple[Sequence[int], tuple[Variance, ...]]:
    """Replace the computed discounts by the charged ones; returns points money a line, and variances."""
    by_number = {entry.line_number: entry for entry in paid}
    unknown = by_number.keys() - {line.line_number for line in work.lines}
    if unknown or len(by_number) != len(paid):
        numbers = sorted(unknown) or [entry.line_number for entry in paid]
        raise ReceiptError(f"paid lines {numbers}: each has to name a line of the receipt, once", "paid", numbers[0])
    variances = []
    points_money = []
    for i, line in enumerate(work.lines):
        entry = by_number.get(line.line_number) or PaidLine(line.line_number, 0, 0)
        if min(entry.discount_minor, entry.points_money_minor) < 0 or (
            entry.discount_minor + entry.points_money_minor > line.list_amount_minor
        ):
            raise ReceiptError(
                f"line {line.line_number}: discount_minor and points_money_minor must not be negative, nor"
                f" come to more than the list price of {line.list_amount_minor}",
                "paid",
                line.line_number,
            )
        expected = line.list_amount_minor - work.left[i]
        if expected != entry.discount_minor:
            variances.append(Variance(line.line_number, expected, entry.discount_minor))
            _charge_line(work, i, entry.discount_minor)
        points_money.append(entry.points_money_minor)
    return points_money if any(points_money) else NO_POINTS_PAID, tuple(variances)


def _charge_line(work: Work, i: int, charged_minor: int) -> None:
    """What the register took off a line stands, whatever promotions give: they did not apply to it."""
    work.discounts[i] = [Discount(AS_CHARGED_ID, charged_minor)] if charged_minor else []
    work.cuts[i] = 0
    work.left[i] = work.lines[i].list_amount_minor - charged_minor
    if work.is_metered:
        work.meter.forget(i)
