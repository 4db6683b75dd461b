"""What was mended since an old receipt was booked, where today's rules would give something else on it. Pure.

Which kind it was follows from the promotions that differ: a gift, a limit, a deal over several units. Where that
leaves several, or none, all that may be are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tallypoint.v1 import common_pb2, journal_pb2

from ledger.entry import semantics
from ledger.entry.returns import UNIT_MILLI, overspent_minor, points_money_of
from ledger.entry.semantics import Area, Mended
from server.promotions import Effects, Gift, LineEffects, Measure, PaidBy, Programme, Promotion, Rules
from server.promotions.walk import leaves_of
from server.rules.evidence import first_difference, reexplained


class Judgement(NamedTuple):
    """How an entry compares with what today's rules give: in what it differs, and what was mended since, if anything.

    A difference without kinds is a fault.
    """

    difference: str
    kinds: tuple[Mended, ...] = ()


def judged(event: journal_pb2.Event, rules: Rules) -> Judgement:
    """Evaluate a receipt's entry again, and say whether a difference was mended since the entry was judged."""
    effects = reexplained(event.purchase, rules)
    difference = first_difference(event.purchase, effects) or ""
    since = semantics.mended_since(event.semantics, Area.PRICES, Area.POINTS)
    if not since:
        return Judgement(difference)
    paid, likely = (
        _payment(event, effects),
        set(_likely(event.purchase, effects, rules.programme)) if difference else set(),
    )
    kinds = tuple(kind for kind in since if kind in likely)
    if difference and not kinds and not paid.kinds:
        kinds = since
    return Judgement(difference or paid.difference, (*kinds, *paid.kinds))


def _payment(event: journal_pb2.Event, effects: Effects) -> Judgement:
    """Say whether points paid something else than the entry's lines say, or more than its goods and rules allowed."""
    purchase, settlement = event.purchase, event.settlement
    told_minor = sum(line.points_money_minor for line in purchase.effects)
    paid_minor, over_minor = points_money_of(settlement), overspent_minor(event)
    if over_minor:
        difference = (
            f"points paid {paid_minor} where the goods allowed {paid_minor - over_minor} (minor units of money)"
        )
        return Judgement(difference, (semantics.SPENDING_AT_THE_FENCE,))
    most, spent = effects.max_spend_points_minor, settlement.spent_points_minor
    # What a hold has promised by another version is not judged by this one.
    if spent > most and purchase.quoted_programme_version in {0, purchase.programme_version}:
        difference = f"{spent} points were spent where the programme allowed {most} (minor units of points)"
        return Judgement(difference, (semantics.SPENDING_AT_THE_FENCE,))
    if paid_minor < told_minor:
        difference = f"points paid {paid_minor}, and it earns as if they had paid {told_minor} (minor units of money)"
        return Judgement(difference, (semantics.REAL_PAYMENT_EARNS,))
    return Judgement("")


def _likely(purchase: journal_pb2.Purchase, effects: Effects, programme: Programme) -> Iterator[Mended]:
    if not (effects.payable_minor or effects.discount_minor):
        yield semantics.NO_VISIT
    if _points(purchase.effects) != _points(effects.lines) and any(map(_asks_for_tenders, programme.promotions)):
        yield semantics.CHANGE_IS_NOT_PAID
    stored, computed = _discounts(purchase.effects), _computed_discounts(effects.lines)
    differing = {key[1] for key in stored.keys() | computed.keys() if stored[key] != computed[key]}
    for promotion in programme.promotions:
        if promotion.id in differing:
            yield from _kinds_of(promotion, programme, purchase.receipt.lines)


def _kinds_of(promotion: Promotion, programme: Programme, lines: Iterable[common_pb2.ReceiptLine]) -> Iterator[Mended]:
    """Yield what may have changed of one promotion's discounts."""
    campaigns = {one.id: one.limits for one in programme.campaigns}
    measures = {limit.measure for limit in (*promotion.limits, *campaigns.get(promotion.campaign or "", ()))}
    pieces = [line.quantity_milli for line in lines if not line.weighed]
    if _asks_for_tenders(promotion):
        yield semantics.CHANGE_IS_NOT_PAID
    if isinstance(promotion.deal, Gift):
        yield semantics.GIFT_OWN_THRESHOLD
    if any(quantity % UNIT_MILLI for quantity in pieces):
        yield semantics.PARTS_OF_A_PIECE
    if promotion.basket_discount is not None and Measure.MONEY in measures:
        yield semantics.CAPS_AS_A_WHOLE
    elif promotion.basket_discount is not None and any(line.floor_amount_minor for line in lines):
        yield semantics.FLOOR_REST_SPREAD
    if promotion.line_discount is not None and Measure.COUNT in measures:
        yield semantics.LIMITS_BY_UNIT
    elif (promotion.deal or promotion.line_discount) and any(quantity > UNIT_MILLI for quantity in pieces):
        yield semantics.UNITS_APART


def _asks_for_tenders(promotion: Promotion) -> bool:
    return any(isinstance(leaf, PaidBy) for leaf in leaves_of(promotion.when))


def _points(lines: Iterable[common_pb2.LineEffects | LineEffects]) -> set[tuple[int, str, int]]:
    """Return what each promotion grants on each line, as stored or as computed."""
    return {(line.line_number, part.promotion_id, part.points_minor) for line in lines for part in line.accruals}


def _discounts(lines: Iterable[common_pb2.LineEffects]) -> Counter[tuple[int, str]]:
    """Return what each promotion takes off each line, as stored."""
    found: Counter[tuple[int, str]] = Counter()
    for line in lines:
        for part in line.discounts:
            found[line.line_number, part.promotion_id] += part.amount_minor
    return found


def _computed_discounts(lines: Iterable[LineEffects]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for line in lines:
        for promotion_id, amount_minor in line.discounts:
            found[line.line_number, promotion_id] += amount_minor
    return found


def as_booked(purchase: journal_pb2.Purchase, effects: Effects) -> Effects:
    """Return effects with the discounts and points that an entry stores in the place of those computed."""
    stored = {line.line_number: line for line in purchase.effects}
    lines = tuple(_line_as_booked(stored[line.line_number], line) for line in effects.lines)
    return effects._replace(
        lines=lines,
        discount_minor=sum(part.amount_minor for line in lines for part in line.discounts),
        payable_minor=sum(line.payable_minor for line in lines),
        accrual_points_minor=sum(part.points_minor for line in lines for part in line.accruals if not part.unit),
    )


def _line_as_booked(stored: common_pb2.LineEffects, line: LineEffects) -> LineEffects:
    return line._replace(
        discounts=tuple((part.promotion_id, part.amount_minor) for part in stored.discounts),
        payable_minor=stored.payable_minor,
        accruals=tuple(
            (part.promotion_id, part.base_minor, part.points_minor, part.unit, part.partner) for part in stored.accruals
        ),
    )
