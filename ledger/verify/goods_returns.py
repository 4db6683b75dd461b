"""Returns against what was bought: by plain sums, another way than the one by which returns are worked out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from tallypoint.v1 import checkout_pb2, journal_pb2

from ledger.entry import returns
from ledger.entry.accounts import is_partner
from ledger.entry.model import AVAILABLE, DEBT, ISSUED, PENDING, Unit
from ledger.entry.returns import overspent_minor
from ledger.entry.semantics import FIRST
from ledger.verify.report import BadEntry

_OWN: Final = ""
"""Stands for the programme's own point among units."""

_Purse = tuple[str, bool]
"""What a purchase granted of a unit, by its code: for goods, or (True) sold for money."""


@dataclass(slots=True)
class _Points:
    """What became of one purse of a purchase by its returns so far."""

    refund_points_minor: int = 0
    clawback_due_points_minor: int = 0
    clawback_taken_points_minor: int = 0
    clawback_debt_points_minor: int = 0
    clawback_lapsed_points_minor: int = 0
    clawback_kept_back_points_minor: int = 0

    @property
    def waived_minor(self) -> int:
        """What should have been taken back, and was not."""
        met: int = sum(getattr(self, name) for name in _MET)
        return self.clawback_due_points_minor - met


_FIGURES: Final = tuple(_Points.__dataclass_fields__)
_MET: Final = _FIGURES[2:]
"""What may become of points that are to be taken back, waiving aside."""


@dataclass(slots=True)
class _Returned:
    """What became of one purchase by its returns so far.

    ``semantics`` is that of the first return, by which all others split the purchase.
    """

    semantics: int | None = None
    quantities_milli: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    money_minor: int = 0
    kept_back_minor: int = 0
    points: dict[_Purse, _Points] = field(default_factory=lambda: {(_OWN, False): _Points()})


class ReturnChecks:
    """Follows the returns of purchases, in order, each from its first on."""

    def __init__(self) -> None:
        self._returned: dict[int, _Returned] = defaultdict(_Returned)

    def check(
        self,
        event: journal_pb2.Event,
        purchase: journal_pb2.Event | None,
        units: Mapping[str, Unit],
        lost: Mapping[int, int],
    ) -> None:
        """Check the next return, given the payload of the entry that it names as its purchase.

        ``lost`` has what lapsed out of the purchase's lots, or was taken by hand, by the lot's ordinal.

        Raises:
            BadEntry: if it does not belong to that purchase, its sums are wrong, or more comes back than was bought.
        """
        body = event.goods_return
        if purchase is None or not purchase.HasField("purchase"):
            raise BadEntry(f"it returns goods of entry {body.purchase_number}, which is no purchase before it")
        bought = purchase.purchase
        if (bought.receipt_key, bought.member_id) != (body.purchase_key, body.member_id):
            raise BadEntry(f"it returns goods of entry {body.purchase_number}, which is another receipt or member")
        so_far = self._returned[body.purchase_number]
        if so_far.semantics is None:
            so_far.semantics = event.semantics
        if body.so_far.semantics != so_far.semantics:
            raise BadEntry(
                f"it splits the purchase by semantics {body.so_far.semantics}, and the first return by "
                f"{so_far.semantics}"
            )
        for line in body.lines:
            so_far.quantities_milli[line.line_number] += line.quantity_milli
        _check_money(body, so_far)
        _add_lines(event, so_far)
        added = _add_settled(event, units, so_far)
        _check_sums(body.so_far, so_far)
        waived = so_far.points[_OWN, False].waived_minor
        if waived != event.settlement.clawback_waived_points_minor:
            raise BadEntry(
                f"it waives {event.settlement.clawback_waived_points_minor} points, and the sums say {waived}"
            )
        _check_limits(body.so_far, so_far, purchase)
        if event.semantics == FIRST:
            return
        for (code, is_sold), more in added.items():
            unit = units.get(code or event.settlement.balance.unit)
            if unit is not None:
                lots_of = returns.deposit_lots if is_sold else returns.granted_lots
                own = set(lots_of(purchase, body.purchase_number, unit.number))
                _check_lost(event, own, more, so_far.points[code, is_sold], lost)


def _check_money(body: journal_pb2.GoodsReturn, so_far: _Returned) -> None:
    money = sum(line.list_amount_minor - line.discount_minor - line.points_money_minor for line in body.lines)
    kept_back = body.kept_back_money_minor
    if money - kept_back != body.refund_money_minor or not 0 <= kept_back <= money:
        raise BadEntry(f"it gives back {body.refund_money_minor} of money, and its lines {money} less {kept_back}")
    so_far.money_minor += money
    so_far.kept_back_minor += kept_back


def _add_lines(event: journal_pb2.Event, so_far: _Returned) -> None:
    """Add the points that come back with the lines of a return, and those that are due."""
    settlement, refunds = event.settlement, defaultdict[str, int](int)
    for line in event.goods_return.lines:
        parts = [(_OWN, line.refund_points_minor, line.clawback_points_minor)]
        parts += [(part.unit, part.refund_points_minor, part.clawback_points_minor) for part in line.units]
        for code, refund, due in parts:
            points = so_far.points.setdefault((code, False), _Points())
            points.refund_points_minor += refund
            points.clawback_due_points_minor += due
            refunds[code] += refund
        for deposit in line.deposits:
            so_far.points.setdefault((deposit.unit, False), _Points())
            points = so_far.points.setdefault((deposit.unit, True), _Points())
            points.clawback_due_points_minor += deposit.points_minor
    for code, told in _told_by_unit(settlement).items():
        if told.refund_points_minor != refunds.pop(code, 0):
            raise BadEntry(f"it gives back {told.refund_points_minor} points, and its lines another number")
    if any(refunds.values()):
        raise BadEntry(f"its lines move points {min(refunds)!r}, and its settlement does not")


def _told_by_unit(
    settlement: checkout_pb2.Settlement,
) -> dict[str, checkout_pb2.Settlement | checkout_pb2.UnitSettlement]:
    told: dict[str, checkout_pb2.Settlement | checkout_pb2.UnitSettlement] = {_OWN: settlement}
    return told | {each.balance.unit: each for each in settlement.units}


def _purses_told(
    told: journal_pb2.ReturnedSoFar,
) -> dict[_Purse, journal_pb2.ReturnedSoFar | journal_pb2.UnitReturnedSoFar]:
    """Return what a return says of all returns, by purse."""
    purses: dict[_Purse, journal_pb2.ReturnedSoFar | journal_pb2.UnitReturnedSoFar] = {(_OWN, False): told}
    purses |= {(each.unit, False): each for each in told.units}
    return purses | {(each.unit, True): each for each in told.deposits}


def _add_settled(event: journal_pb2.Event, units: Mapping[str, Unit], so_far: _Returned) -> dict[_Purse, _Points]:
    """Add what became of what was due, as the return says; return it by purse."""
    told = _purses_told(event.goods_return.so_far)
    added: dict[_Purse, _Points] = {}
    for purse, points in so_far.points.items():
        more = added[purse] = _Points()
        for name in _MET:
            setattr(more, name, getattr(told[purse], name) - getattr(points, name) if purse in told else 0)
            if getattr(more, name) < 0:
                raise BadEntry(f"it says less of {name} than earlier returns did")
            setattr(points, name, getattr(points, name) + getattr(more, name))
    _check_settled(event, units, added)
    return added


def _check_settled(event: journal_pb2.Event, units: Mapping[str, Unit], added: Mapping[_Purse, _Points]) -> None:
    """Hold what became of what was due against the settlement and the postings."""
    told = _told_by_unit(event.settlement)
    strange = {code for (code, _), more in added.items() if code not in told and more != _Points()}
    if strange:
        raise BadEntry(f"it takes back points {min(strange)!r}, and its settlement does not")
    for code, met in told.items():
        unit = units.get(code or event.settlement.balance.unit)
        owed = sum(p.points_minor for p in event.postings if p.debit == DEBT and unit and p.unit == unit.number)
        if event.semantics != FIRST and met.clawback_debt_points_minor != owed:
            raise BadEntry(f"it says that {met.clawback_debt_points_minor} points are owed, and books {owed}")
        figures = (
            met.clawback_points_minor,
            owed,
            met.clawback_lapsed_points_minor,
            met.clawback_kept_back_points_minor,
        )
        for name, expected in zip(_MET, figures, strict=True):
            grown = sum(getattr(more, name) for (of, _), more in added.items() if of == code)
            if grown != expected:
                raise BadEntry(f"it says that {name} grew by {grown}, and it meets {expected}")
    if event.goods_return.kept_back_money_minor and not any(
        more.clawback_kept_back_points_minor for more in added.values()
    ):
        raise BadEntry("it keeps money back for no points")


def _check_sums(told: journal_pb2.ReturnedSoFar, so_far: _Returned) -> None:
    """What a return says of all returns is what they add up to."""
    if {line.line_number: line.quantity_milli for line in told.lines} != so_far.quantities_milli:
        raise BadEntry("the quantities that it says came back so far are not those of all returns")
    by_purse = _purses_told(told)
    if by_purse.keys() != so_far.points.keys():
        raise BadEntry(f"it tells of points {sorted(by_purse)}, and all returns moved points {sorted(so_far.points)}")
    for purse, points in so_far.points.items():
        for name in _FIGURES:
            figure, expected = getattr(by_purse[purse], name), getattr(points, name)
            if figure != expected:
                raise BadEntry(f"it says that {name} is {figure} so far, and all returns say {expected}")


def _check_limits(told: journal_pb2.ReturnedSoFar, so_far: _Returned, purchase: journal_pb2.Event) -> None:
    """No more comes back than was bought, and exactly what was bought when all of it came back."""
    sold = [line for line in purchase.purchase.receipt.lines if line.quantity_milli]
    quantities = {line.line_number: line.quantity_milli for line in sold}
    for number, quantity_milli in so_far.quantities_milli.items():
        if not 0 < quantity_milli <= quantities.get(number, 0):
            raise BadEntry(
                f"{quantity_milli} thousandths of line {number} came back in all, "
                f"and {quantities.get(number, 0)} were bought"
            )
    goods = sum(line.list_amount_minor - line.discount_minor for line in sold)
    paid = goods - _paid_with_points(purchase, goods, so_far.semantics or 0)
    spent, granted = _bought(purchase)
    limits = [("money", so_far.money_minor, paid)]
    for (code, is_sold), points in so_far.points.items():
        limits += [
            ("points spent", points.refund_points_minor, 0 if is_sold else spent.get(code, 0)),
            ("points granted", points.clawback_due_points_minor, granted.get((code, is_sold), 0)),
            ("points due", points.clawback_due_points_minor - points.waived_minor, points.clawback_due_points_minor),
        ]
        if is_sold and points.waived_minor:
            raise BadEntry(f"it waives {points.waived_minor} of points that were sold")
    for name, returned, limit in limits:
        if not 0 <= returned <= limit:
            raise BadEntry(f"{returned} of {name} came back in all, and there were {limit}")
    complete = so_far.quantities_milli == quantities
    if complete != told.complete:
        raise BadEntry(f"it says that {'nothing' if told.complete else 'something'} is left to return, wrongly")
    if complete:
        _check_whole(so_far, paid, spent)


def _paid_with_points(purchase: journal_pb2.Event, goods_minor: int, semantics: int) -> int:
    """Return the money of the goods that points paid: more than they cost only before spending was judged.

    Returns of the first semantics gave back what points had paid beyond the lines that they were meant for; where they
    did, they are held against what they reversed then.
    """
    settlement = purchase.settlement
    paid = settlement.spent_money_minor + sum(unit.spent_money_minor for unit in settlement.units)
    if purchase.semantics == FIRST and semantics == FIRST and overspent_minor(purchase):
        return returns.points_money_returned(purchase, FIRST)
    return min(paid, goods_minor) if purchase.semantics == FIRST else paid


def _bought(purchase: journal_pb2.Event) -> tuple[dict[str, int], dict[_Purse, int]]:
    """Return the points that a purchase spent by unit, and what it granted by purse."""
    settlement = purchase.settlement
    spent = {unit.balance.unit: unit.spent_points_minor for unit in settlement.units}
    spent[_OWN] = settlement.spent_points_minor
    granted = {(unit.balance.unit, False): unit.accrual_points_minor for unit in settlement.units}
    granted[_OWN, False] = settlement.accrual_points_minor
    sold: dict[str, int] = defaultdict(int)
    for deposit in purchase.purchase.deposits:
        sold[deposit.unit] += deposit.points_minor
    for code, points_minor in sold.items():
        granted[code, True] = points_minor
        granted[code, False] = granted.get((code, False), 0) - points_minor
    return spent, granted


def _check_whole(so_far: _Returned, paid_minor: int, spent_minor: Mapping[str, int]) -> None:
    """All goods came back, so all that was paid for them did."""
    nothing = _Points()
    refunds = {code: so_far.points.get((code, False), nothing).refund_points_minor for code in spent_minor}
    if so_far.money_minor != paid_minor or refunds != spent_minor:
        raise BadEntry(
            f"all goods came back, for {so_far.money_minor} of {paid_minor} money and "
            + ", ".join(f"{refunds[code]} of {spent_minor[code]} points" for code in sorted(spent_minor))
        )


def _check_lost(
    event: journal_pb2.Event,
    own: Collection[tuple[int, int]],
    more: _Points,
    so_far: _Points,
    lost: Mapping[int, int],
) -> None:
    """What is gone is let go, no more and no less, before anything is asked for that is not in the purse's own lots."""
    gone = sum(lost.get(ordinal, 0) for _, ordinal in own)
    let_go = so_far.clawback_lapsed_points_minor
    from_own = sum(
        posting.points_minor
        for posting in event.postings
        if posting.debit in (AVAILABLE, PENDING)
        and (posting.credit == ISSUED or is_partner(posting.credit))
        and (posting.lot_number, posting.lot_ordinal) in own
    )
    elsewhere = more.clawback_taken_points_minor - from_own + so_far.waived_minor
    elsewhere += more.clawback_debt_points_minor + more.clawback_kept_back_points_minor
    if let_go > gone or (elsewhere and let_go != gone):
        raise BadEntry(f"it lets go of {let_go} points in all, and {gone} have lapsed or were taken by hand")
