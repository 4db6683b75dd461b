"""A reference that tries every promotion on every line, in fractions; no groups, no exclusivity."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from server.promotions.arithmetic import in_birthday_window
from server.promotions.model import (
    AmountOff,
    Base,
    BirthdayWindow,
    FixedPrice,
    MemberFacts,
    PercentOff,
    PointsFixed,
    PointsMultiplier,
    PointsPercent,
    Programme,
    Promotion,
    ReceiptFacts,
    ReceiptLine,
    ReceiptTotal,
    ScopeTotal,
    Selector,
)


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def fits(selector: Selector | None, line: ReceiptLine) -> bool:
    if selector is None:
        return True
    path = line.category.split("/")
    found = [
        bool(wanted & have)
        for wanted, have in (
            (selector.skus, {line.sku}),
            (selector.categories, {"/".join(path[:n]) for n in range(1, len(path) + 1)}),
            (selector.brands, {line.brand}),
            (selector.tags, set(line.tags)),
        )
        if wanted
    ]
    named = (all(found) if selector.match_all else any(found)) if found else True
    return named and (selector.but_not is None or not fits(selector.but_not, line))


def spread(total: int, weights: list[int]) -> list[int]:
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [Fraction(total * weight, whole) for weight in weights]
    parts = [floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (parts[i] - shares[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


class Naive:
    """Prices left and points of each line after all promotions, by line number."""

    def __init__(self, programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None) -> None:
        self.programme, self.member, self.day = programme, member, receipt.local_at.date()
        self.lines = sorted(receipt.lines, key=lambda line: line.line_number)
        self.left = [line.list_amount_minor for line in self.lines]
        self.points = [0] * len(self.lines)
        self.promotions = sorted((p for p in programme.promotions if self.is_live(p)), key=lambda p: (p.priority, p.id))
        for step in (self.line_step, self.basket_step, self.earn_step):
            start = list(self.left)
            for promotion in self.promotions:
                step(promotion, start)
        self.earn_base()

    def is_live(self, promotion: Promotion) -> bool:
        first, last = promotion.valid_from, promotion.valid_until
        return (first is None or first <= self.day) and (last is None or self.day <= last)

    def scope(self, promotion: Promotion, excluded: Selector | None) -> list[int]:
        return [
            i
            for i, line in enumerate(self.lines)
            if fits(promotion.scope, line) and not (excluded and fits(excluded, line))
        ]

    def holds(self, promotion: Promotion, scope: list[int], start: list[int]) -> bool:
        match promotion.when:
            case ReceiptTotal(at_least, below):
                total = sum(start)
            case ScopeTotal(at_least, below):
                total = sum(start[i] for i in scope)
            case BirthdayWindow(before, after):
                born = self.member.birthday if self.member else None
                return born is not None and in_birthday_window(born, self.day, before, after)
            case _:
                return True
        return (at_least is None or total >= at_least) and (below is None or total < below)

    def take(self, i: int, amount: int) -> None:
        self.left[i] -= max(0, min(amount, self.left[i] - self.lines[i].floor_amount_minor))

    def line_step(self, promotion: Promotion, start: list[int]) -> None:
        effect = promotion.line_discount
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        if effect is None or not self.holds(promotion, scope, start):
            return
        for i in scope:
            line = self.lines[i]
            price = line.list_amount_minor if effect.base is Base.LIST else self.left[i]
            units = Fraction(line.quantity_milli, 1000)
            match effect.kind:
                case PercentOff(share):
                    self.take(i, half_up(price * share))
                case AmountOff(amount_minor):
                    self.take(i, half_up(amount_minor * units))
                case FixedPrice(unit_price_minor):
                    self.take(i, max(0, self.left[i] - half_up(unit_price_minor * units)))

    def basket_step(self, promotion: Promotion, start: list[int]) -> None:
        effect = promotion.basket_discount
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        if effect is None or not self.holds(promotion, scope, start):
            return
        weights = [self.left[i] for i in scope]
        base = sum(self.lines[i].list_amount_minor for i in scope) if effect.base is Base.LIST else sum(weights)
        kind = effect.kind
        total = half_up(base * kind.share) if isinstance(kind, PercentOff) else kind.amount_minor
        for i, part in zip(scope, spread(min(total, sum(weights)), weights), strict=True):
            self.take(i, part)

    def grant(self, i: int, rate: Fraction) -> None:
        self.points[i] += half_up(self.left[i] * rate / self.programme.point.money_per_points)

    def earn_base(self) -> None:
        everything = Promotion("base", "base")
        for i in self.scope(everything, self.programme.exclusions.no_earning):
            self.grant(i, self.programme.earning.base_share)

    def earn_step(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_earning)
        if promotion.points is None or not self.holds(promotion, scope, start):
            return
        paid = [i for i in scope if self.left[i] > 0]
        match promotion.points.kind:
            case PointsPercent(share):
                for i in paid:
                    self.grant(i, share)
            case PointsMultiplier(factor):
                for i in paid:
                    self.grant(i, self.programme.earning.base_share * (factor - 1))
            case PointsFixed(points_minor, per="receipt"):
                parts = spread(points_minor, [self.left[i] for i in paid])
                for i, part in zip(paid, parts, strict=True):
                    self.points[i] += part
            case PointsFixed(points_minor, per):
                for i in paid:
                    quantity = self.lines[i].quantity_milli
                    weighed = self.lines[i].is_weighed or quantity % 1000
                    self.points[i] += points_minor * (1 if per == "line" or weighed else quantity // 1000)
