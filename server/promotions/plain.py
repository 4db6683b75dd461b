"""Receipts on which no promotion competes with another or asks for anything: one look at each line is enough.

Most receipts are like that: every promotion that applies takes its part off or adds its points, one after the other.
The answer is the one that the steps of an evaluation give (a test compares them), in less than half the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import cast

from server.promotions.arithmetic import MOST_POINTS_MINOR
from server.promotions.compile import PlainGoods, Rules
from server.promotions.conditions import Consulting, Facts
from server.promotions.counts import Count
from server.promotions.earning import can_be_kept, stack_points
from server.promotions.facts import (
    AccrualRow,
    ChargedLine,
    DiscountRow,
    Effects,
    LineEffects,
    MemberFacts,
    Message,
    Variance,
)
from server.promotions.line_stacks import stack_formulas
from server.promotions.messages import style_of, write_messages
from server.promotions.model import AS_CHARGED_ID
from server.promotions.outcome import message_facts, visit_counts
from server.promotions.parts import have_equal_pieces
from server.promotions.paying import most_steps, takes_points
from server.promotions.tiers import standing_changes
from server.promotions.work import Query

NO_DISCOUNTS: Sequence[DiscountRow] = ()
NO_ACCRUALS: Sequence[AccrualRow] = ()

_speakers = itemgetter(1)
_discounts = itemgetter(2)
_new = tuple.__new__  # builds a named tuple in half the time of calling its class; used where every line pays


def evaluate_plainly(query: Query, paid: Sequence[ChargedLine] | None = None) -> Effects | None:
    """The effects of a plain receipt, quoted (`paid` None) or as it was charged; None: it has to go through all steps.

    So have receipts that make no sense: the steps know what to say about them.
    """
    goods = _plain_goods(query)
    found = _lines(query, goods, paid) if goods is not None else None
    if goods is None or found is None:
        return None
    rules, receipt, member, usage, live, _, _ = query
    lines, variances, listed, left, payable, spendable, points_money, points = found
    if points > MOST_POINTS_MINOR or (live.has_further_points and not can_be_kept(line[6] for line in lines)):
        return None
    spending = rules.programme.spending
    steps = most_steps(rules, member, payable, spendable, left)
    counts: list[Count] = []
    consulted: frozenset[str] = frozenset()
    if member is not None:
        day = receipt.local_at.date()
        counts = visit_counts(live, day, left - points_money, points) if listed else []
        tiers = rules.programme.tiers
        if tiers is not None:
            facts = Facts(receipt, receipt.lines, member, usage)
            counts += standing_changes(tiers, Consulting(facts), counts, day)[0]
            consulted = frozenset(facts.consulted)
    return Effects(
        rules.version,
        tuple(lines),
        listed - left,
        left,
        steps * spending.step_points_minor,
        steps * spending.step_money_minor,
        -(-points_money * spending.step_points_minor // spending.step_money_minor),
        points_money,
        points,
        _messages(rules, goods, lines, member) if any(map(_speakers, goods)) else (),
        rules.settings,
        tuple(variances),
        tuple(counts),
        consulted=consulted,
    )


def _plain_goods(query: Query) -> list[PlainGoods] | None:
    """What happens to each line's product; None if promotions compete, ask something or look at the whole receipt."""
    rules, receipt, member, _, live, facts, gated = query
    if gated or receipt.coupons or not live.may_be_plain or (facts is not None and facts.consulted):
        return None
    if member is not None and member.offers and not live.offer_ids.isdisjoint(member.offers):
        return None
    known = live.plain
    try:
        goods = [known[line[1:6]] for line in receipt.lines]
    except KeyError:
        goods = [live.plain_goods(line) for line in receipt.lines]
    if None in goods:
        return None
    plain = cast("list[PlainGoods]", goods)
    if any(map(_discounts, plain)) and have_equal_pieces(receipt.lines):
        return None  # they are rounded together
    if rules.programme.tiers is not None and any(map(_speakers, plain)):
        return None  # the texts may name a level
    return plain


_Lines = tuple[list[LineEffects], list[Variance], int, int, int, int, int, int]
"""What happens to the lines, and sums of them in minor units: list prices, what is left after discounts, what is left
of goods that points may pay for, and how much of it they may pay; what points do pay; the programme's own points."""


def _lines(  # noqa: C901 -- a function for every step costs half as much again
    query: Query, goods: Iterable[PlainGoods], paid: Sequence[ChargedLine] | None
) -> _Lines | None:
    """Discount, charge and earn line by line; None if lines or payment don't fit or are out of order."""
    rules, receipt, member, _, _, _, _ = query
    if paid is not None and len(paid) != len(receipt.lines):
        return None
    takes = takes_points(rules, receipt.partner, member)
    respect_floor = rules.programme.spending.respect_price_floor
    earn_on_points_paid = rules.programme.earning.earn_on_points_paid
    can_earn = member is None or member.can_earn
    lines: list[LineEffects] = []
    variances: list[Variance] = []
    listed = total = payable = spendable = paid_by_points = own_points = 0
    previous = -1
    charges: Iterable[ChargedLine | None] = repeat(None) if paid is None else paid
    for line, (no_spending, _, discounts, points), charge in zip(receipt.lines, goods, charges, strict=False):
        number = line[0]
        quantity_milli, list_minor, floor_minor, _ = line[6:]
        if number <= previous or quantity_milli <= 0 or list_minor < 0 or floor_minor < 0:
            return None
        previous = number
        taken, left, cut = NO_DISCOUNTS, list_minor, 0
        if discounts:
            taken, left, cut = stack_formulas(discounts, left, quantity_milli, list_minor, floor_minor)
        points_money = 0
        if charge is not None:
            charged_number, charged_minor, points_money = charge
            if charged_number != number or not 0 <= charged_minor <= list_minor - points_money <= list_minor:
                return None
            if charged_minor != list_minor - left:
                variances.append(Variance(number, list_minor - left, charged_minor))
                taken, left, cut = as_charged(charged_minor), list_minor - charged_minor, 0
            paid_by_points += points_money
        limit = left - floor_minor if respect_floor else left
        if no_spending or not takes:
            limit = 0
        else:
            payable += left
            limit = limit if limit > 0 else 0  # noqa: FURB136 -- max() costs as much as all the rest
            spendable += limit
        base = left if earn_on_points_paid else left - points_money
        earned = stack_points(points, base, line) if points and base > 0 and can_earn else NO_ACCRUALS
        for row in earned:
            if not row[3]:
                own_points += row[2]
        listed += list_minor
        total += left
        lines.append(_new(LineEffects, (number, tuple(taken), cut, left, limit, points_money, tuple(earned))))
    return lines, variances, listed, total, payable, spendable, paid_by_points, own_points


def as_charged(charged_minor: int) -> list[DiscountRow]:
    """The discounts of a line that was charged another than the rules give."""
    return [(AS_CHARGED_ID, charged_minor)] if charged_minor else []


def _messages(
    rules: Rules, goods: Iterable[PlainGoods], lines: Sequence[LineEffects], member: MemberFacts | None
) -> tuple[Message, ...]:
    """Texts of the promotions that had an effect, by rank."""
    ranks = {
        rules.rank_of[row[0]]
        for (_, speakers, _, _), line in zip(goods, lines, strict=True)
        if speakers
        for row in (*line[1], *line[6])
        if row[0] in speakers
    }
    found: list[Message] = []
    language = member.language if member is not None else ""
    for rank in sorted(ranks):
        promotion = rules.promotions[rank]
        said = rules.speakers[promotion.id].fixed(language)
        if said is None:
            facts = message_facts(promotion, lines)
            said = write_messages(promotion.messages, promotion.id, language, style_of(rules.programme), facts)
        found += said
    return tuple(found)
