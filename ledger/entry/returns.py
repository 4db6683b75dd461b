"""What a return of goods reverses: computed from what was stored when they were bought, never by running rules again.

Every amount of a line (its list price, its discount, what points paid, the points spent and each promotion's points)
is a function of how much of the line has come back in all. A return reverses the difference between that function
after it and before it. So the parts of a line sum to the whole, and the order of returns does not matter.

* A line of whole units is split over its units by largest remainder, earlier units first: 1.00 of three units is
  0.34 + 0.33 + 0.33.
* A weighed or measured line is split in proportion to quantity by cumulative largest remainder: what has come back
  and what has not are the two parts, ties to what has come back; that is rounding the cumulated part half up.

Points of several units are told apart by their codes, the programme's own by an empty one. What points paid of a line
is money of all units together, and each unit's points are spread over the lines as that money is: so of every line the
units come back in the proportion in which they paid in all. Points that were bought (deposits, gift cards) are taken
back with the line that sold them; which one that is stands in the purchase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from ledger.entry.accounts import is_granting, is_taking
from ledger.entry.model import MEMBER_ACCOUNTS, REDEEMED, Declined
from ledger.entry.semantics import CURRENT, FIRST

UNIT_MILLI = 1000
"""A whole unit, in thousandths."""


OWN = ""
"""Stands for the programme's own point among units, and for the programme itself among partners."""


class PlannedPoints(NamedTuple):
    """The points of one unit that a return reverses; ``partners`` has what of the latter partners had granted."""

    refund_minor: int
    clawback_minor: int
    partners: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ReturnPlan:
    """What a return reverses. Money and points in minor units; ``lines`` in the order of line numbers."""

    lines: tuple[journal_pb2.LineReturn, ...]
    so_far: tuple[checkout_pb2.ReturnedLine, ...]
    """What has come back with this return, over all returns."""
    complete: bool
    partners: Mapping[tuple[str, str], int]
    """The points to take back that partners had granted, by unit and partner."""

    @property
    def money_minor(self) -> int:
        """The money that was paid for what comes back."""
        return sum(line.list_amount_minor - line.discount_minor - line.points_money_minor for line in self.lines)

    @property
    def refund_points_minor(self) -> int:
        """The programme's own points to give back."""
        return sum(line.refund_points_minor for line in self.lines)

    @property
    def clawback_points_minor(self) -> int:
        """The programme's own points to take back."""
        return sum(line.clawback_points_minor for line in self.lines)

    def points(self) -> dict[str, PlannedPoints]:
        """Return what moves by unit, the programme's own first and always there, others in the order of codes."""
        refunds, clawbacks = Counter({OWN: self.refund_points_minor}), Counter({OWN: self.clawback_points_minor})
        for line in self.lines:
            for part in line.units:
                refunds[part.unit] += part.refund_points_minor
                clawbacks[part.unit] += part.clawback_points_minor
        return {
            unit: PlannedPoints(refunds[unit], clawbacks[unit], self._partners_of(unit))
            for unit in sorted(refunds | clawbacks | {OWN: 1})
        }

    def deposits(self) -> dict[str, int]:
        """Return the points to take back that the goods had sold, by unit."""
        sold = Counter[str]()
        for line in self.lines:
            for deposit in line.deposits:
                sold[deposit.unit] += deposit.points_minor
        return sold

    def _partners_of(self, unit: str) -> dict[str, int]:
        return {partner: points for (of, partner), points in self.partners.items() if of == unit and points}


class _Accrual(NamedTuple):
    """Points of one promotion; ``unit`` and ``partner`` are codes."""

    unit: str
    partner: str
    points_minor: int


class Goods(NamedTuple):
    """How much of a line was sold, and whether in whole units."""

    quantity_milli: int
    in_units: bool

    def part(self, amount_minor: int, returned_milli: int) -> int:
        """Return the part of an amount that belongs to so much of the line."""
        if self.in_units:
            share, rest = divmod(amount_minor, self.quantity_milli // UNIT_MILLI)
            units = returned_milli // UNIT_MILLI
            return share * units + min(rest, units)
        return (2 * amount_minor * returned_milli + self.quantity_milli) // (2 * self.quantity_milli)


def goods_of(purchase: journal_pb2.Purchase) -> dict[int, Goods]:
    """Return what a purchase sold, by line number."""
    return {
        line.line_number: Goods(line.quantity_milli, not line.weighed and line.quantity_milli % UNIT_MILLI == 0)
        for line in purchase.receipt.lines
        if line.quantity_milli
    }


class _Line(NamedTuple):
    """A line as it was paid. ``spent_minor`` has the points spent by unit, the programme's own always.

    ``accruals`` has each promotion's points, rounded apart as they were granted, ``deposits`` the points sold by unit.
    """

    goods: Goods
    list_amount_minor: int
    discount_minor: int
    points_money_minor: int
    spent_minor: Mapping[str, int]
    accruals: tuple[_Accrual, ...]
    deposits: Mapping[str, int]

    def reversed_between(
        self, number: int, before_milli: int, after_milli: int, partners: Counter[tuple[str, str]]
    ) -> journal_pb2.LineReturn:
        """Return what comes back between two states of the line; add to ``partners`` what they had granted of it."""

        def delta(amount_minor: int) -> int:
            return self.goods.part(amount_minor, after_milli) - self.goods.part(amount_minor, before_milli)

        # What was paid in money, paid with points and taken off are split apart, and the list price is their sum: so
        # none of them is ever negative.
        paid = delta(self.list_amount_minor - self.discount_minor - self.points_money_minor)
        discount, points_money = delta(self.discount_minor), delta(self.points_money_minor)
        refunds = {unit: delta(points) for unit, points in self.spent_minor.items()}
        clawbacks = Counter[str]()
        for accrual in self.accruals:
            points = delta(accrual.points_minor)
            clawbacks[accrual.unit] += points
            if accrual.partner:
                partners[accrual.unit, accrual.partner] += points
        return journal_pb2.LineReturn(
            line_number=number,
            quantity_milli=after_milli - before_milli,
            list_amount_minor=paid + points_money + discount,
            discount_minor=discount,
            points_money_minor=points_money,
            refund_points_minor=refunds[OWN],
            clawback_points_minor=clawbacks[OWN],
            units=[
                journal_pb2.UnitReturn(
                    unit=unit, refund_points_minor=refunds.get(unit, 0), clawback_points_minor=clawbacks[unit]
                )
                for unit in sorted({*refunds, *clawbacks} - {OWN})
                if refunds.get(unit) or clawbacks[unit]
            ],
            deposits=[
                common_pb2.UnitPoints(unit=unit, points_minor=points, line_number=number)
                for unit, sold in sorted(self.deposits.items())
                if (points := delta(sold))
            ],
        )


def plan_return(
    event: journal_pb2.Event,
    returned: Mapping[int, int],
    asked: Sequence[tuple[int, int]],
    semantics: int = CURRENT,
) -> ReturnPlan | Declined:
    """Return what bringing back ``asked`` reverses of a purchase's event.

    ``returned`` has the thousandths that came back before, by line number; ``asked`` are pairs of line number and
    thousandths, or empty for all that is left. ``semantics`` is that of the purchase's first return.
    """
    lines = _paid_lines(event, semantics)
    wanted = _wanted(lines, returned, asked)
    if isinstance(wanted, Declined):
        return wanted
    so_far = dict(returned)
    reversals, partners = [], Counter[tuple[str, str]]()
    for number in sorted(wanted):
        before = returned.get(number, 0)
        so_far[number] = before + wanted[number]
        reversals.append(lines[number].reversed_between(number, before, so_far[number], partners))
    return ReturnPlan(
        tuple(reversals),
        tuple(checkout_pb2.ReturnedLine(line_number=n, quantity_milli=so_far[n]) for n in sorted(so_far)),
        complete=all(so_far.get(number, 0) == line.goods.quantity_milli for number, line in lines.items()),
        partners=partners,
    )


def _wanted(
    lines: Mapping[int, _Line], returned: Mapping[int, int], asked: Sequence[tuple[int, int]]
) -> dict[int, int] | Declined:
    """Return the thousandths to bring back by line number, or why that cannot be."""
    left = {number: line.goods.quantity_milli - returned.get(number, 0) for number, line in lines.items()}
    if not asked:
        wanted = {number: quantity for number, quantity in left.items() if quantity}
        return wanted or _exceeds("all of this purchase has come back already")
    wanted = {}
    for number, quantity_milli in asked:
        line = lines.get(number)
        if line is None:
            return _invalid(f"the purchase has no line {number}")
        if number in wanted:
            return _invalid(f"line {number} is named twice")
        if line.goods.in_units and quantity_milli % UNIT_MILLI:
            return _invalid(f"line {number} was sold in whole units, and {quantity_milli} thousandths are to come back")
        if quantity_milli > left[number]:
            return _exceeds(
                f"of line {number} {left[number]} thousandths of {line.goods.quantity_milli} can still come back, "
                f"not {quantity_milli}"
            )
        wanted[number] = quantity_milli
    return wanted


def _exceeds(what: str) -> Declined:
    return Declined(common_pb2.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE, what)


def _invalid(what: str) -> Declined:
    return Declined(common_pb2.REFUSAL_REASON_INVALID_REQUEST, what)


def _paid_lines(event: journal_pb2.Event, semantics: int) -> dict[int, _Line]:
    """Return the lines of a purchase that can come back, with what points really paid of each."""
    purchase, settlement = event.purchase, event.settlement
    effects = {each.line_number: each for each in purchase.effects}
    sold = [line for line in purchase.receipt.lines if line.quantity_milli]
    net = [line.list_amount_minor - line.discount_minor for line in sold]
    planned = [effects[line.line_number].points_money_minor if line.line_number in effects else 0 for line in sold]
    weights = next((each for each in (planned, net) if any(each)), [1] * len(sold))
    # Before spending was judged under the fence, less was spent than planned if the balance did not cover it, and more
    # than a line or all the goods cost if the register asked for it.
    money = [min(part, most) for part, most in zip(spread(points_money_of(settlement), weights), net, strict=True)]
    if semantics != FIRST:
        money = _with_rest(money, points_money_of(settlement), net)
    spent = {OWN: spread(settlement.spent_points_minor, weights)}
    for unit in settlement.units:
        if unit.spent_points_minor:
            spent[unit.balance.unit] = spread(unit.spent_points_minor, weights)
    has_member = bool(purchase.member_id)
    deposits = sold_points(event) if has_member else {}
    goods = goods_of(purchase)
    return {
        line.line_number: _Line(
            goods[line.line_number],
            line.list_amount_minor,
            line.discount_minor,
            money[index],
            {unit: parts[index] for unit, parts in spent.items()},
            tuple(_Accrual(each.unit, each.partner, each.points_minor) for each in effects[line.line_number].accruals)
            if has_member and line.line_number in effects
            else (),
            deposits.get(line.line_number, {}),
        )
        for index, line in enumerate(sold)
    }


def _with_rest(parts: Sequence[int], total: int, limits: Sequence[int]) -> list[int]:
    """Give what limits cut off parts of a total to those that have room, so that no money comes back that points paid.

    The first semantics did not, and gave such money back.
    """
    rooms = [limit - part for part, limit in zip(parts, limits, strict=True)]
    rest = min(total - sum(parts), sum(rooms))
    if rest <= 0:
        return list(parts)
    return [part + more for part, more in zip(parts, spread(rest, rooms), strict=True)]


def points_money_returned(event: journal_pb2.Event, semantics: int) -> int:
    """Return the money paid with points that returning all of a purchase reverses, in returns of some semantics."""
    return sum(line.points_money_minor for line in _paid_lines(event, semantics).values())


def sold_points(event: journal_pb2.Event) -> dict[int, dict[str, int]]:
    """Return the points that the lines of a purchase sold, by line number and unit.

    Purchases of the first semantics do not say which line it was: the lines that points cannot pay, as gift cards
    cannot, or else all, in proportion to what they cost.
    """
    purchase = event.purchase
    sold: dict[int, dict[str, int]] = {}
    deposits: Iterable[common_pb2.UnitPoints] = purchase.deposit_lines
    if event.semantics == FIRST and purchase.deposits:
        lines = [each for each in purchase.effects if each.payable_minor and not each.spendable_minor]
        lines = lines or [each for each in purchase.effects if each.payable_minor] or list(purchase.effects)
        weights = [each.payable_minor or 1 for each in lines]
        deposits = [
            common_pb2.UnitPoints(unit=deposit.unit, points_minor=part, line_number=line.line_number)
            for deposit in purchase.deposits
            for line, part in zip(lines, spread(deposit.points_minor, weights), strict=True)
        ]
    for each in deposits:
        of_line = sold.setdefault(each.line_number, {})
        of_line[each.unit] = of_line.get(each.unit, 0) + each.points_minor
    return sold


def points_money_of(settlement: checkout_pb2.Settlement) -> int:
    """Return the money that points of all units paid."""
    return settlement.spent_money_minor + sum(unit.spent_money_minor for unit in settlement.units)


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """Split an amount in proportion to weights, not all zero, by largest remainder, ties to the earlier.

    The parts sum to the amount. Without weights at all there are no parts.
    """
    total = sum(weights)
    if total == 0:
        return []
    parts = [amount * weight // total for weight in weights]
    remainders = [(-(amount * weight % total), index) for index, weight in enumerate(weights)]
    for _, index in sorted(remainders)[: amount - sum(parts)]:
        parts[index] += 1
    return parts


class LotPart(NamedTuple):
    """Points of one lot, and the account that took them."""

    number: int
    ordinal: int
    points_minor: int
    account: int = REDEEMED


def spent_lots(event: journal_pb2.Event, unit: int) -> list[LotPart]:
    """Return the lots from which a purchase spent points of a unit, in the order in which a return gives them back.

    That is the reverse of the order of spending: the points that live longest come back first.
    """
    return [
        LotPart(posting.lot_number, posting.lot_ordinal, posting.points_minor, posting.credit)
        for posting in reversed(event.postings)
        if posting.unit == unit and is_taking(posting.credit)
    ]


def granted_lots(event: journal_pb2.Event, number: int, unit: int) -> list[tuple[int, int]]:
    """Return the lots of a unit that a purchase, booked as entry ``number``, granted for goods."""
    return _lots(event, number, unit, sold=False)


def deposit_lots(event: journal_pb2.Event, number: int, unit: int) -> list[tuple[int, int]]:
    """Return the lots of a unit that a purchase, booked as entry ``number``, sold."""
    return _lots(event, number, unit, sold=True)


def _lots(event: journal_pb2.Event, number: int, unit: int, *, sold: bool) -> list[tuple[int, int]]:
    granted = [
        (ordinal, posting.unit)
        for ordinal, posting in enumerate(event.postings, start=1)
        if is_granting(posting.debit) and posting.credit in MEMBER_ACCOUNTS
    ]
    first_sold = len(granted) - len(event.purchase.deposits)  # what is sold is granted last
    chosen = granted[first_sold:] if sold else granted[:first_sold]
    return [(number, ordinal) for ordinal, of in chosen if of == unit]


def next_parts(parts: Sequence[LotPart], skip_minor: int, points_minor: int) -> list[LotPart]:
    """Return the parts of a sequence that lie after ``skip_minor`` points, up to ``points_minor`` in all."""
    chosen: list[LotPart] = []
    for part in parts:
        skipped = min(skip_minor, part.points_minor)
        skip_minor -= skipped
        taken = min(points_minor, part.points_minor - skipped)
        points_minor -= taken
        if taken:
            chosen.append(part._replace(points_minor=taken))
    return chosen


def overspent_minor(event: journal_pb2.Event) -> int:
    """Return the money by which points paid more of an old purchase than its goods allowed; zero for all others.

    An entry of the first semantics does not say what share of a receipt points might pay: that is not looked at.
    """
    paid_minor = points_money_of(event.settlement) if event.semantics == FIRST else 0
    return max(0, paid_minor - sum(line.spendable_minor for line in event.purchase.effects)) if paid_minor else 0
