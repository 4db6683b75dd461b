"""A reference that tries every promotion on every line, in fractions; no groups, no exclusivity.

It goes promotion by promotion in each step and knows no index, no gate and no memory. Only the arithmetic of deals is
not its own: that has a reference beside its tests.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from math import floor

from server.promotions.arithmetic import in_birthday_window
from server.promotions.criteria import (
    AllOf,
    AnyOf,
    AtTerminals,
    BasketCount,
    BirthdayWindow,
    Condition,
    CouponShown,
    InClub,
    InSegments,
    InStores,
    InTiers,
    MemberAge,
    NotThat,
    OfferMade,
    OnChannels,
    PaidBy,
    ReceiptTotal,
    ScopeTotal,
    Selector,
    SpendSoFar,
    TimeWindow,
    VisitNumber,
)
from server.promotions.deals import DealOutcome, LineUnits, gift, set_deal, steps_discount_minor, unit_deal
from server.promotions.facts import Counter, MemberFacts, ReceiptFacts, ReceiptLine, TenderFact, Usage
from server.promotions.kinds import Base, LimitScope, Measure, TenderKind
from server.promotions.model import (
    AmountOff,
    FixedPrice,
    Gift,
    Limit,
    PercentOff,
    PointsFixed,
    PointsMultiplier,
    PointsPerAmount,
    PointsPercent,
    PointsSteps,
    PriceList,
    Programme,
    Promotion,
    SetDeal,
    Steps,
    UnitDeal,
)
from server.promotions.usage import club_key, shared_key, use_key, visit_key

MILLION = 10**6


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
            (selector.suppliers, {line.supplier}),
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


def units_of(line: ReceiptLine) -> int:
    whole = line.quantity_milli % 1000 == 0 and not line.is_weighed
    return line.quantity_milli // 1000 if whole else 1


def has_right(condition: Condition | None) -> bool:
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return any(has_right(part) for part in parts)
    return isinstance(condition, CouponShown | OfferMade)


class Naive:
    """Prices left and points of each line after all promotions, and what was used of limits."""

    def __init__(
        self, programme: Programme, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None = None
    ) -> None:
        self.programme, self.receipt, self.member = programme, receipt, member
        self.usage = usage or Usage()
        self.day = receipt.local_at.date()
        self.lines = sorted(receipt.lines, key=lambda line: line.line_number)
        self.left = [line.list_amount_minor for line in self.lines]
        self.points = [0] * len(self.lines)
        self.uses: dict[tuple[str, int], int] = {}
        self.applied: set[str] = set()
        self.withheld: set[str] = set()
        self.promotions = sorted((p for p in programme.promotions if self.is_live(p)), key=lambda p: (p.priority, p.id))
        rights = [p for p in self.promotions if has_right(p.when)]
        others = [p for p in self.promotions if not has_right(p.when)]
        for promotions, step in (
            (others, self.line_step),
            (others, self.basket_step),
            (rights, self.line_step),
            (rights, self.basket_step),
        ):
            self.run(promotions, step)
        if member is None or member.can_earn:
            self.run(self.promotions, self.earn_lines)
            self.run(self.promotions, self.earn_receipt)
            self.earn_base()

    def run(self, promotions: list[Promotion], step: Callable[[Promotion, list[int]], None]) -> None:
        start = list(self.left)
        for promotion in promotions:
            step(promotion, start)

    def is_live(self, promotion: Promotion) -> bool:
        first, last = promotion.valid_from, promotion.valid_until
        return (first is None or first <= self.day) and (last is None or self.day <= last)

    def is_goods(self, promotion: Promotion, line: ReceiptLine) -> bool:
        effect = promotion.line_discount
        if promotion.scope is None and effect is not None and isinstance(effect.kind, PriceList):
            return line.sku in effect.kind.unit_prices_minor
        if promotion.scope is None and isinstance(promotion.deal, SetDeal):
            return any(fits(part.goods, line) for part in promotion.deal.parts)
        return fits(promotion.scope, line)

    def scope(self, promotion: Promotion, excluded: Selector | None) -> list[int]:
        return [
            i
            for i, line in enumerate(self.lines)
            if self.is_goods(promotion, line) and not (excluded and fits(excluded, line))
        ]

    # --- conditions and control groups ---

    def applies(self, promotion: Promotion, scope: list[int], start: list[int]) -> bool:
        if promotion.when is not None and not self.holds(promotion.when, promotion, scope, start):
            return False
        salts = [(self.programme.code, self.programme.control_share), (promotion.id, promotion.control_share)]
        salts += [(f"@{c.id}", c.control_share) for c in self.programme.campaigns if c.id == promotion.campaign]
        if self.member is not None:
            for salt, share in salts:
                number = int.from_bytes(sha256(f"{salt}|{self.member.member_id}".encode()).digest()[:8], "big")
                if number % MILLION < share * MILLION:
                    if scope:
                        self.withheld.add(promotion.id)
                    return False
        return True

    def tendered(self, due: int) -> list[tuple[TenderFact, int]]:
        """What each tender in money pays, those that give no change first; points pay nothing unless they are spent."""
        paid = []
        for is_cash in (False, True):
            for tender in self.receipt.tenders:
                if tender.kind is not TenderKind.POINTS and (tender.kind is TenderKind.CASH) == is_cash:
                    paid.append((tender, min(tender.amount_minor, due)))
                    due -= paid[-1][1]
        return paid

    def holds(  # noqa: C901, PLR0911 -- one case a condition, as plain as can be
        self, condition: Condition, promotion: Promotion, scope: list[int], start: list[int]
    ) -> bool:
        match condition:
            case AllOf(parts):
                return all(self.holds(part, promotion, scope, start) for part in parts)
            case AnyOf(parts):
                return any(self.holds(part, promotion, scope, start) for part in parts)
            case NotThat(part):
                return not self.holds(part, promotion, scope, start)
            case ReceiptTotal(at_least, below):
                return self.between(sum(start), at_least, below)
            case ScopeTotal(at_least, below):
                return self.between(sum(start[i] for i in scope), at_least, below)
            case BasketCount(what, goods, at_least, below):
                found = scope if goods is None else [i for i, line in enumerate(self.lines) if fits(goods, line)]
                return self.between(self.count(what, condition.category_levels, found, start), at_least, below)
            case PaidBy(kinds, prefixes, at_least):
                paid = sum(
                    amount
                    for t, amount in self.tendered(sum(start))
                    if t.kind in kinds and (not prefixes or any(t.card_bin.startswith(p) for p in prefixes))
                )
                return paid >= (1 if at_least is None else at_least)
            case CouponShown(series, codes):
                return any(c.series in series or c.code in codes for c in self.receipt.coupons)
            case InStores(stores, groups):
                return self.receipt.store_id in stores or bool(groups & self.receipt.store_groups)
            case OnChannels(channels):
                return self.receipt.channel in channels
            case AtTerminals(kinds):
                return self.receipt.terminal_kind in kinds
            case TimeWindow():
                return self.in_window(condition)
        return self.member is not None and self.member_holds(condition, promotion, self.member)

    def member_holds(  # noqa: PLR0911 -- one case a condition
        self, condition: Condition, promotion: Promotion, member: MemberFacts
    ) -> bool:
        counters = self.usage.member
        match condition:
            case BirthdayWindow(before, after):
                return member.birthday is not None and in_birthday_window(member.birthday, self.day, before, after)
            case InTiers(tiers):
                return (member.tier or "") in tiers
            case InSegments(segments):
                return bool(segments & member.segments)
            case InClub(club):
                until = counters.get(club_key(club), Counter()).until
                return until is not None and until >= self.day
            case MemberAge(at_least, below):
                return member.registered_on is not None and self.between(
                    (self.day - member.registered_on).days, at_least, below
                )
            case VisitNumber(period, at_least, below, every):
                number = counters.get(visit_key(period, self.day), Counter()).times + 1
                return self.between(number, at_least, below) and (every is None or number % every == 0)
            case SpendSoFar(period, at_least, below):
                return self.between(counters.get(visit_key(period, self.day), Counter()).money_minor, at_least, below)
            case OfferMade():
                return promotion.id in member.offers
        raise AssertionError(condition)

    @staticmethod
    def between(number: int, at_least: int | None, below: int | None) -> bool:
        return (at_least is None or number >= at_least) and (below is None or number < below)

    def count(self, what: str, levels: int, found: list[int], start: list[int]) -> int:
        lines = [self.lines[i] for i in found]
        if what == "amount":
            return sum(start[i] for i in found)
        if what == "quantity":
            return sum(map(units_of, lines))
        if what == "weight":
            return sum(line.quantity_milli for line in lines if line.is_weighed)
        return len({tuple(line.category.split("/")[: levels or None]) for line in lines})

    def in_window(self, window: TimeWindow) -> bool:
        moment = self.receipt.local_at.replace(tzinfo=None)
        for day in (self.day, self.day - timedelta(days=1)):
            if window.weekdays and day.weekday() not in window.weekdays:
                continue
            if (window.first and day < window.first) or (window.last and day > window.last):
                continue
            midnight = moment.replace(year=day.year, month=day.month, day=day.day, hour=0, minute=0)
            over = 1440 if window.until_minute <= window.from_minute else 0
            begin = midnight + timedelta(minutes=window.from_minute)
            if begin <= moment < midnight + timedelta(minutes=window.until_minute + over):
                return True
        return False

    # --- limits ---

    def limits(self, promotion: Promotion, measure: Measure) -> list[tuple[str, Limit]]:
        found = [(promotion.id, limit) for limit in promotion.limits]
        for campaign in self.programme.campaigns:
            if campaign.id == promotion.campaign:
                found += [(f"@{campaign.id}", limit) for limit in campaign.limits]
        return [(owner, limit) for owner, limit in found if limit.measure is measure]

    def cut(self, promotion: Promotion, measure: Measure, wanted: int) -> int:
        for owner, limit in self.limits(promotion, measure):
            before = 0
            if limit.scope is LimitScope.MEMBER and self.member is not None:
                counter = self.usage.member.get(use_key(owner, limit.period, self.day), Counter())
                numbers = {Measure.COUNT: counter.times, Measure.MONEY: counter.money_minor}
                before = numbers.get(measure, counter.points_minor)
            elif limit.scope in (LimitScope.STORE, LimitScope.ALL):
                key = shared_key(owner, limit, self.receipt.store_id, self.day)
                before = limit.at_most - self.usage.shared.get(key, limit.at_most)
            used = self.uses.get((owner, id(limit)), 0)
            wanted = max(0, min(wanted, limit.at_most - before - used))
        return wanted

    def use(self, promotion: Promotion, **amounts: int) -> None:
        if amounts.get("count"):
            self.applied.add(promotion.id)
        for measure in Measure:
            for owner, limit in self.limits(promotion, measure):
                key = (owner, id(limit))
                self.uses[key] = self.uses.get(key, 0) + amounts.get(measure.value, 0)

    def once(self, promotion: Promotion) -> bool:
        return promotion.id in self.applied or self.cut(promotion, Measure.COUNT, 1) == 1

    # --- discounts ---

    def take(self, promotion: Promotion, i: int, amount: int) -> int:
        amount = self.cut(promotion, Measure.MONEY, amount)
        amount = max(0, min(amount, self.left[i] - self.lines[i].floor_amount_minor))
        self.left[i] -= amount
        return amount

    def line_step(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        deal, effect = promotion.deal, promotion.line_discount
        if effect is None and (deal is None or isinstance(deal, Steps)):
            return
        if not self.applies(promotion, scope, start):
            return
        if effect is not None:
            for i in scope:
                self.line_discount(promotion, i)
        if scope and deal is not None and not isinstance(deal, Steps):
            self.deal(promotion, deal, scope)

    def line_discount(self, promotion: Promotion, i: int) -> None:
        effect, line = promotion.line_discount, self.lines[i]
        assert effect is not None
        amount = 0
        units = units_of(line)
        some = self.cut(promotion, Measure.COUNT, units)
        if not some:
            return
        part = Fraction(some, units)
        price = (line.list_amount_minor if effect.base is Base.LIST else self.left[i]) * part
        quantity = Fraction(line.quantity_milli, 1000) * part
        match effect.kind:
            case PercentOff(share):
                amount = half_up(price * share)
            case AmountOff(amount_minor):
                amount = half_up(amount_minor * quantity)
            case FixedPrice(unit_price_minor):
                amount = max(0, half_up(self.left[i] * part) - half_up(unit_price_minor * quantity))
            case PriceList(prices) if line.sku not in prices:
                return
            case PriceList(prices):
                amount = max(0, half_up(self.left[i] * part) - half_up(prices[line.sku] * quantity))
        taken = self.take(promotion, i, amount)
        self.use(promotion, count=some if taken else 0, money=taken)

    def deal(self, promotion: Promotion, deal: UnitDeal | SetDeal | Gift, scope: list[int]) -> None:
        most = self.cut(promotion, Measure.COUNT, 10**6)
        goods = [LineUnits(i, self.left[i], units_of(self.lines[i])) for i in scope]
        everything = self.scope(Promotion("all", "All"), self.programme.exclusions.no_discount)
        outcome = DealOutcome()
        match deal:
            case UnitDeal():
                outcome = unit_deal(deal, goods, most)
            case SetDeal(parts):
                outcome = set_deal(
                    deal,
                    goods,
                    [[i for i, line in enumerate(self.lines) if fits(p.goods, line)] for p in parts],
                    most,
                )
            case Gift(wanted):
                gifts = [i for i in everything if fits(wanted, self.lines[i])]
                units = [LineUnits(i, self.left[i], units_of(self.lines[i])) for i in gifts]
                outcome = gift(deal, units, goods, most)
        taken = 0
        for i, amount in outcome.discounts:
            part = self.take(promotion, i, amount)
            self.use(promotion, money=part)
            taken += part
        if taken:
            self.use(promotion, count=outcome.deals)

    def basket_step(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        effect, deal = promotion.basket_discount, promotion.deal
        if effect is None and not isinstance(deal, Steps):
            return
        if not self.applies(promotion, scope, start):
            return
        weights = [self.left[i] for i in scope]
        total = 0
        if isinstance(deal, Steps):
            total = steps_discount_minor(deal, self.count(deal.what, 0, scope, self.left), sum(weights))
        elif effect is not None:
            base = sum(self.lines[i].list_amount_minor for i in scope) if effect.base is Base.LIST else sum(weights)
            kind = effect.kind
            total = half_up(base * kind.share) if isinstance(kind, PercentOff) else kind.amount_minor
        if not self.once(promotion):
            return
        taken = 0
        for i, wanted in zip(scope, spread(min(total, sum(weights)), weights), strict=True):
            part = self.take(promotion, i, min(wanted, max(0, self.left[i] - self.lines[i].floor_amount_minor)))
            self.use(promotion, money=part)
            taken += part
        if taken and promotion.id not in self.applied:
            self.use(promotion, count=1)

    # --- points ---

    def share_of_base(self) -> Fraction:
        if not self.receipt.partner:
            return self.programme.earning.base_share
        shares = {partner.code: partner.base_share for partner in self.programme.partners}
        return shares.get(self.receipt.partner) or Fraction(0)

    def rate(self, unit: str | None) -> Fraction:
        units = {further.point.unit: further.point for further in self.programme.units}
        return 1 / units.get(unit or "", self.programme.point).money_per_points

    def earn_base(self) -> None:
        everything = Promotion("base", "base")
        for i in self.scope(everything, self.programme.exclusions.no_earning):
            self.points[i] += half_up(self.left[i] * self.share_of_base() * self.rate(None))

    def earn_lines(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_earning)
        if promotion.points is None or not self.applies(promotion, scope, start):
            return
        rate = self.rate(promotion.points.unit)
        for i in scope:
            left = self.left[i]
            match promotion.points.kind:
                case PointsPercent(share):
                    points = half_up(left * share * rate)
                case PointsMultiplier(factor):
                    points = half_up(left * self.share_of_base() * (factor - 1) * rate)
                case PointsFixed(points_minor, per) if per != "receipt":
                    points = points_minor * (1 if per == "line" else units_of(self.lines[i]))
                case PointsPerAmount(points_minor, step_minor, per="line"):
                    points = left // step_minor * points_minor
                case _:
                    return
            if left > 0:
                self.grant(promotion, i, points)

    def earn_receipt(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_earning)
        if promotion.points is None or not self.applies(promotion, scope, start):
            return
        paid = [i for i in scope if self.left[i] > 0]
        total = sum(self.left[i] for i in paid)
        match promotion.points.kind:
            case PointsFixed(points, per="receipt"):
                pass
            case PointsPerAmount(points_minor, step_minor, per="receipt"):
                points = total // step_minor * points_minor
            case PointsSteps():
                points = self.steps(promotion.points.kind, total, self.rate(promotion.points.unit))
            case _:
                return
        for i, part in zip(paid, spread(points, [self.left[i] for i in paid]), strict=True):
            self.grant(promotion, i, part)

    @staticmethod
    def steps(kind: PointsSteps, total: int, rate: Fraction) -> int:
        exact = Fraction(0)
        for step in sorted(kind.steps, key=lambda one: one.at_least_minor):
            above = [one.at_least_minor for one in kind.steps if one.at_least_minor > step.at_least_minor]
            if step.at_least_minor > total:
                continue
            if kind.marginal:
                exact += step.points_minor + step.share * rate * (min([total, *above]) - step.at_least_minor)
            else:
                exact = step.points_minor + step.share * rate * total
        return half_up(exact)

    def grant(self, promotion: Promotion, i: int, points: int) -> None:
        if not points or not self.once(promotion):
            return
        points = self.cut(promotion, Measure.POINTS, points)
        if points:
            self.points[i] += points
            self.use(promotion, count=0 if promotion.id in self.applied else 1, points=points)
