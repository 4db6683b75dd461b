"""What members have, kept as simply as can be: lots in a list, holds in a dict, judged at a moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

FOREVER = timedelta(days=100_000)


@dataclass
class ModelLot:
    """A grant. ``sale`` is the receipt that earned it; ``order`` its place among all grants.

    ``lost`` are the points that lapsed out of it or were taken out of it by hand.
    """

    order: int
    left: int
    active: datetime
    lapses: datetime
    sale: int = 0
    lost: int = 0

    def lapse(self) -> int:
        """Lose all that is left; return how much."""
        points, self.left = self.left, 0
        self.lost += points
        return points


@dataclass
class ModelSale:
    """A receipt: its units (points paid, points earned, money paid), which are back, and the lots that it spent."""

    units: list[list[tuple[int, int, int]]]
    back: list[int]
    spent: list[tuple[ModelLot, int]]
    coupon: str = ""
    off: int = 0
    """What a promotion gave of the member's limit and of the shared budget: it comes back with the last goods."""
    refunded: int = 0
    let_go: int = 0
    """Points due that nobody owes, for they were lost out of the receipt's own lots."""

    @property
    def complete(self) -> bool:
        """All of it is back."""
        return self.back == [len(units) for units in self.units]


@dataclass
class ModelMember:
    """One member. ``totals`` counts points by what became of them, ``counted`` visits, money paid and points earned.

    ``kept`` are the coupons of holds, ``given`` what a promotion with a limit gave.
    """

    lots: list[ModelLot] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    counted: list[int] = field(default_factory=lambda: [0, 0, 0])
    given: int = 0
    holds: dict[str, tuple[datetime, list[tuple[ModelLot, int]]]] = field(default_factory=dict)
    debt: int = 0
    totals: Counter[str] = field(default_factory=Counter)

    def usable(self, now: datetime) -> list[ModelLot]:
        """Lots that can be spent, in spending order."""
        lots = [lot for lot in self.lots if lot.left and lot.active <= now < lot.lapses]
        return sorted(lots, key=lambda lot: (lot.lapses, lot.order))

    def have(self, now: datetime) -> int:
        return sum(lot.left for lot in self.usable(now))

    def held(self) -> int:
        return sum(points for _, parts in self.holds.values() for _, points in parts)

    def pass_time(self, now: datetime) -> None:
        """Whatever is due happens, moment by moment."""
        moments = {until for until, _ in self.holds.values()}
        moments |= {moment for lot in self.lots if lot.left for moment in (lot.active, lot.lapses)}
        for moment in sorted(each for each in moments if each <= now):
            self.pass_moment(moment)

    def pass_moment(self, now: datetime) -> None:
        for key in [key for key, (until, _) in self.holds.items() if until <= now]:
            self.release(key, now)
        for lot in self.lots:
            if lot.left and lot.active <= now and lot.lapses <= now:
                self.totals["expired"] += lot.lapse()
        for lot in self.usable(now):
            self.pay_debt(lot)

    def pay_debt(self, lot: ModelLot) -> None:
        paid = min(self.debt, lot.left)
        lot.left -= paid
        self.debt -= paid

    def put(self, lot: ModelLot, points: int, now: datetime) -> None:
        """Points come (back) to a lot."""
        lot.left += points
        if lot.active > now:
            return
        if lot.lapses <= now:
            self.totals["expired"] += lot.lapse()
        self.pay_debt(lot)

    def take(self, wanted: int, now: datetime) -> list[tuple[ModelLot, int]]:
        parts = []
        for lot in self.usable(now):
            part = min(wanted, lot.left)
            lot.left -= part
            wanted -= part
            if part:
                parts.append((lot, part))
        return parts

    def release(self, key: str, now: datetime, keep: int = 0) -> list[tuple[ModelLot, int]]:
        """End a hold; the first ``keep`` points of it are spent. Return the parts spent."""
        spent = []
        self.kept.pop(key, None)
        for lot, points in self.holds.pop(key)[1]:
            part = min(keep, points)
            keep -= part
            if part:
                spent.append((lot, part))
            self.put(lot, points - part, now)
        return spent

    def grant(self, lot: ModelLot, now: datetime) -> None:
        self.lots.append(lot)
        points, lot.left = lot.left, 0
        self.put(lot, points, now)

    def give_back(self, sale: ModelSale, number: int, lines: list[int], now: datetime) -> None:
        """Bring back so many more units of each line."""
        refund = due = 0
        for line, units in enumerate(lines):
            for paid, earned, money in sale.units[line][sale.back[line] : sale.back[line] + units]:
                refund += paid
                due += earned
                self.counted[1] -= money
            sale.back[line] += units
        self.counted[0] -= sale.complete
        self.counted[2] -= due
        self.totals["refunded"] += refund
        at = 0
        for lot, points in reversed(sale.spent):
            first, last = max(at, sale.refunded), min(at + points, sale.refunded + refund)
            if last > first:
                self.put(lot, last - first, now)
            at += points
        sale.refunded += refund
        if sale.complete:
            self.given -= sale.off
        self.take_back(sale, number, due, now)

    def take_back(self, sale: ModelSale, number: int, due: int, now: datetime) -> None:
        """Take points out of the receipt's own lots, let go what was lost there, take others, and owe the rest."""
        touched = [lot for lot, _ in reversed(sale.spent)]
        own = sorted((lot for lot in self.lots if lot.sale == number), key=lambda lot: (lot.lapses, lot.order))
        others = [lot for lot in self.usable(now) if lot not in own and lot not in touched]
        missing = due - self.drain(own, due)
        gone = min(missing, sum(lot.lost for lot in own) - sale.let_go)
        sale.let_go += gone
        missing -= gone
        self.debt += missing - self.drain([*others, *touched], missing)
        self.totals["clawed back"] += due - gone

    @staticmethod
    def drain(lots: list[ModelLot], wanted: int) -> int:
        """Take points out of lots, one after the other; return how many there were."""
        taken = 0
        for lot in lots:
            part = min(wanted - taken, lot.left)
            lot.left -= part
            taken += part
        return taken


def split(amount: int, units: int) -> list[int]:
    """Split an amount over equal units, the larger parts first."""
    return [amount // units + (index < amount % units) for index in range(units)]
