"""A purchase planned: from what was used before it to the command to be booked. Pure, so that the fence may run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2

from ledger.entry.model import CounterChange, FoundUnderFence, NewCoupon, Purchase
from server.checkout.context import CommitContext, counters_of
from server.checkout.presented import Presented
from server.checkout.record import Record, event_of, with_coupons
from server.checkout.spending import Limits, Payment, as_spender, limit_of, payment_of
from server.promotions import (
    Count,
    CounterFact,
    Effects,
    LotGrant,
    ReceiptFacts,
    SharedUse,
    Standing,
    TierChange,
    Usage,
    lots_to_grant,
    standing,
    standing_changes,
)
from server.promotions.counter_names import counted
from server.promotions.facts import ChargedLine
from server.rules.effects.coupon import issued_coupons
from server.rules.evidence import without_member
from server.rules.grants import grants_of
from server.rules.receipt_lines import judged_lines

EarnAsPaid = Callable[..., Effects]
"""`server.promotions.earn_as_paid`, which checkout times for its metrics."""

_new = tuple.__new__  # builds a named tuple in half the time of calling its class; used for every line


class Commitment(NamedTuple):
    """A command for the books, and what it may use of shared budgets, of which its book needs a part first."""

    command: Purchase
    shared: tuple[SharedUse, ...]


@dataclass(frozen=True, slots=True)
class PurchasePlanner:
    """Makes of a purchase, and of what was used before it, the command as it is to be booked: a pure function.

    It runs once, before the books are asked, for most receipts. Where limits, coupons or levels are concerned, or
    points are to be spent, it runs again under the fence of the book, with what stands there: so no limit is overshot,
    no coupon is used twice, and what is earned follows what points really paid.
    """

    request: checkout_pb2.CommitRequest
    context: CommitContext
    purchase: partial[Purchase]
    key: bytes
    deposits: tuple[LotGrant, ...]
    earn_as_paid: EarnAsPaid

    def commitment(self, usage: Usage) -> Commitment:
        """Return the command: whole, or with ``plan`` if the fence has to be asked."""
        presented = self.context.presented
        effects = self._effects(presented, usage)
        has_tiers = self.context.rules.programme.tiers is not None and self.context.found is not None
        spends = self.context.found is not None and bool(self.request.spend_points_minor or self.request.spend_units)
        if not (effects.consulted or effects.shared or presented.claims or has_tiers or spends):
            return Commitment(self._command(effects, presented, usage), ())
        budget_keys = tuple(dict.fromkeys(use.key for use in effects.shared))
        plan = partial(self._plan, self._limits(presented, effects) if spends else None)
        command = self.purchase(event=b"", claims=presented.claims, budget_keys=budget_keys, plan=plan)
        return Commitment(command, effects.shared)

    def _limits(self, presented: Presented, effects: Effects) -> Limits:
        """Judge what points may pay, from the effects of the receipt with nothing paid with points.

        What the register charged is fixed, so that does not depend on what was used before.
        """
        context, facts = self.context, with_coupons(self.context.facts, presented)
        member, charged = as_spender(context.member), _charged(self.request, facts)
        if member is not context.member:
            effects = self.earn_as_paid(context.rules, facts, member, charged)
        limit, hold = limit_of(context.rules, effects), context.quoted_hold
        if hold is None or hold.rules is context.rules:
            return Limits(limit, None)
        return Limits(limit, limit_of(hold.rules, self.earn_as_paid(hold.rules, facts, member, charged)))

    def _plan(self, limits: Limits | None, found: FoundUnderFence) -> Purchase:
        usage = Usage(counters_of(found.counters), found.budgets, only_shared_known=True)
        presented = self.context.presented.without(found.coupons)
        payment = None if limits is None else payment_of(self.request, self.context, limits, found.points)
        return self._command(self._effects(presented, usage, payment), presented, usage, payment)

    def _effects(self, presented: Presented, usage: Usage, payment: Payment | None = None) -> Effects:
        """Evaluate on the money as paid: what points pay of each line is no money."""
        context, facts = self.context, with_coupons(self.context.facts, presented)
        charged = _charged(self.request, facts)
        if payment is not None and any(payment.lines_minor):
            parts = dict(zip(sorted([line[0] for line in charged]), payment.lines_minor, strict=True))
            charged = [(number, discount, parts[number]) for number, discount, _ in charged]
        effects = self.earn_as_paid(context.rules, facts, context.member, charged, usage)
        return without_member(effects) if context.found is None else effects

    def _command(
        self, effects: Effects, presented: Presented, usage: Usage, payment: Payment | None = None
    ) -> Purchase:
        context = self.context
        before, change, after = _levels(context, effects.counts, usage.member)
        issued = issued_coupons(effects, self.key) if effects.gave and context.found else ()
        lots = lots_to_grant(context.rules, effects, context.day) if context.found else ()
        record = Record(effects, presented, usage, issued, before, change, after, payment)
        purchase = self.purchase
        if payment is not None:
            purchase = partial(purchase, spend=payment.own, further_spends=payment.further)
        return purchase(
            event=event_of(self.request, context, record),
            grants=grants_of((*lots, *self.deposits), context.zone, context.books),
            claims=presented.claims,
            counts=tuple([_new(CounterChange, count) for count in effects.counts]),
            coupons=tuple([claim.code for claim in presented.used_claims(effects)]) if effects.coupons else (),
            budgets=tuple([(use.key, use.amount) for use in effects.shared]),
            issued=tuple([NewCoupon(one.code, one.series, one.valid_from, one.valid_until) for one in issued]),
        )


def _levels(
    context: CommitContext, counts: tuple[Count, ...], before: Mapping[str, CounterFact]
) -> tuple[str, TierChange | None, Standing | None]:
    """Return the member's level before the receipt, whether the receipt raises it, and the level after it."""
    tiers = context.rules.programme.tiers
    if tiers is None or context.found is None:
        return "", None, None
    _, change = standing_changes(tiers, before, counts, context.day)
    after = standing(tiers, counted(before, counts), context.day)
    return standing(tiers, before, context.day).tier, change, after


def _charged(request: checkout_pb2.CommitRequest, facts: ReceiptFacts) -> list[ChargedLine]:
    """Return what the register charged on each line, none of it paid with points."""
    discounts = [line.discount_minor for line in judged_lines(request.receipt, facts)]
    return [(line[0], discount, 0) for line, discount in zip(facts.lines, discounts, strict=True)]
