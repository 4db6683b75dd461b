"""A reference that tries every promotion on every piece, in fractions; no groups, no exclusivity.

It goes promotion by promotion in each step and knows no index, no gate and no memory. Pieces that have been treated
alike are a heap, in which every piece has its own price. Only the arithmetic of deals is not its own: that has a
reference beside its tests.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from math import floor

from server.promotions.arithmetic import in_birthday_window
from server.promotions.counter_names import shared_key, use_key, visit_key
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
from server.promotions.effects.club import club_key
from server.promotions.facts import CounterFact, MemberFacts, ReceiptFacts, ReceiptLine, TenderFact, Usage
from server.promotions.kinds import Base, FloorRest, LimitScope, Measure, TenderKind
from server.promotions.model import (
    AmountOff,
    FallsOn,
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

MILLION = 10**6
Without = tuple[Counts[int], Counts[int]]
"""How many pieces of each line don't count, and what they cost."""


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
    return 1 if line.is_weighed else line.quantity_milli // 1000


def each_of(total: int, pieces: int) -> list[int]:
    """The prices of so many pieces that cost this together, the dearer ones first."""
    return [total // pieces + (n < total % pieces) for n in range(pieces)]


class Heap:
    """Pieces that have been treated alike: the lines they stand on, and what all of them cost.

    `rest` is what a quantity has beyond whole pieces, as a part of the whole quantity.
    """

    def __init__(self, first: ReceiptLine, lines: list[int], quantity: Fraction, prices: tuple[int, int, int]) -> None:
        self.first, self.lines, self.quantity = first, lines, quantity
        self.listed, self.floor, self.left = prices

    @property
    def rest(self) -> Fraction:
        return Fraction(0) if self.first.is_weighed else self.quantity - len(self.lines)

    @property
    def begun(self) -> int:
        return len(self.lines) + (self.rest > 0)

    @property
    def room(self) -> int:
        return max(0, self.left - self.floor)

    def whole(self, total: int) -> int:
        return half_up(total * (1 - self.rest / self.quantity))

    def prices(self) -> list[int]:
        return each_of(self.whole(self.left), len(self.lines)) if self.lines else []

    def take_out(self, chosen: list[int], line_count: int | None = None) -> Heap:
        """Make a heap of its own of some pieces, by their place."""
        others = [n for n in range(len(self.lines)) if n not in chosen]
        sums = []
        for total in (self.listed, self.floor, self.left):
            each = each_of(self.whole(total), len(self.lines))
            sums.append(sum(each[n] for n in chosen))
        taken = Heap(self.first, [self.lines[n] for n in chosen], Fraction(len(chosen)), (sums[0], sums[1], sums[2]))
        self.listed, self.floor, self.left = self.listed - sums[0], self.floor - sums[1], self.left - sums[2]
        self.lines = [self.lines[n] for n in others]
        self.quantity -= len(chosen)
        return taken


def heaps_of(lines: list[ReceiptLine]) -> list[Heap]:
    """One heap a line; equal pieces on several lines are one."""
    heaps: list[Heap] = []
    equal: dict[tuple[object, ...], Heap] = {}
    for i, line in enumerate(lines):
        quantity = Fraction(line.quantity_milli, 1000)
        prices = (line.list_amount_minor, line.floor_amount_minor, line.list_amount_minor)
        heap = Heap(line, [i] * max(units_of(line), line.is_weighed), quantity, prices)
        each = Fraction(line.list_amount_minor) / quantity, Fraction(line.floor_amount_minor) / quantity
        key = (*line[1:6], *each)
        if line.is_weighed or heap.rest or any(price.denominator > 1 for price in each):
            heaps.append(heap)
        elif key in equal:
            one = equal[key]
            one.lines += heap.lines
            one.quantity += quantity
            one.listed, one.floor, one.left = one.listed + prices[0], one.floor + prices[1], one.left + prices[2]
        else:
            equal[key] = heap
            heaps.append(heap)
    return heaps


def within(rooms: list[int], weights: list[int], wanted: list[int], spreads: bool) -> list[int]:
    """What price floors permit of a discount over several; perhaps others take what they cut off."""
    if not spreads or all(part <= room for part, room in zip(wanted, rooms, strict=True)):
        return [min(part, room) for part, room in zip(wanted, rooms, strict=True)]
    kept = [0] * len(rooms)
    open_to = [i for i, room in enumerate(rooms) if room and weights[i]]
    left = min(sum(wanted), sum(rooms[i] for i in open_to))
    while True:
        whole = sum(weights[i] for i in open_to)
        full = [i for i in open_to if Fraction(left * weights[i], whole) > rooms[i]]
        if not full:
            break
        for i in full:
            kept[i] = rooms[i]
            left -= rooms[i]
        open_to = [i for i in open_to if i not in full]
    for i, part in zip(open_to, spread(left, [weights[i] for i in open_to]), strict=True):
        kept[i] = part
    return kept


def has_threshold(condition: Condition | None, *, negated: bool = False) -> bool:
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return any(has_threshold(part, negated=negated) for part in parts)
        case NotThat(part):
            return has_threshold(part, negated=not negated)
        case ReceiptTotal(at_least, below) | ScopeTotal(at_least, below):
            return (below if negated else at_least) is not None
        case BasketCount():
            return (condition.below if negated else condition.at_least) is not None
    return False


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
        self.heaps = heaps_of(self.lines)
        self.points = [0] * len(self.lines)
        self.uses: dict[tuple[str, int], int] = {}
        self.applied: set[str] = set()
        self.withheld: set[str] = set()
        self.without: Without = (Counts(), Counts())
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

    @property
    def left(self) -> list[int]:
        """What each line costs; of equal pieces those on the first lines cost least."""
        left = [0] * len(self.lines)
        for heap in self.heaps:
            if not heap.lines:
                left[self.lines.index(heap.first)] += heap.left
                continue
            if len(set(heap.lines)) == 1:
                left[heap.lines[0]] += heap.left
                continue
            for i, price in zip(heap.lines, sorted(heap.prices()), strict=True):
                left[i] += price
        return left

    def paid_units(self, i: int) -> int:
        """The pieces of a line that cost something."""
        found = 0
        for heap in self.heaps:
            prices = heap.prices() if len(set(heap.lines)) == 1 else sorted(heap.prices())
            found += sum(line == i and price > 0 for line, price in zip(heap.lines, prices, strict=True))
        return found

    def heaps_in(self, scope: list[int]) -> list[Heap]:
        goods = {self.lines[i][1:6] for i in scope}
        return [heap for heap in self.heaps if heap.first[1:6] in goods]

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
        """What each tender in money pays: cards first, cash last; points pay nothing unless they are spent."""
        paid = []
        for kind in (TenderKind.CARD, TenderKind.OTHER, TenderKind.CASH):
            for tender in self.receipt.tenders:
                if tender.kind is kind:
                    paid.append((tender, min(tender.amount_minor, due)))
                    due -= paid[-1][1]
        return paid

    def holds(  # noqa: C901, PLR0911 -- one case a condition, as plain as can be
        self, condition: Condition, promotion: Promotion, scope: list[int], start: list[int], *, negated: bool = False
    ) -> bool:
        match condition:
            case AllOf(parts):
                return all(self.holds(part, promotion, scope, start, negated=negated) for part in parts)
            case AnyOf(parts):
                return any(self.holds(part, promotion, scope, start, negated=negated) for part in parts)
            case NotThat(part):
                return not self.holds(part, promotion, scope, start, negated=not negated)
            case ReceiptTotal(at_least, below) | ScopeTotal(at_least, below):
                found = scope if isinstance(condition, ScopeTotal) else list(range(len(start)))
                both = sum(start[i] for i in found), self.towards(found, start)
                return self.is_within(both, at_least, below, negated=negated)
            case BasketCount(what, goods, at_least, below):
                found = scope if goods is None else [i for i, line in enumerate(self.lines) if fits(goods, line)]
                whole = self.count(what, condition.category_levels, found, start)
                less = self.count(what, condition.category_levels, found, start, self.without)
                return self.is_within((whole, less), at_least, below, negated=negated)
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
                until = counters.get(club_key(club), CounterFact()).until
                return until is not None and until >= self.day
            case MemberAge(at_least, below):
                return member.registered_on is not None and self.between(
                    (self.day - member.registered_on).days, at_least, below
                )
            case VisitNumber(period, at_least, below, every):
                number = counters.get(visit_key(period, self.day), CounterFact()).times + 1
                return self.between(number, at_least, below) and (every is None or number % every == 0)
            case SpendSoFar(period, at_least, below):
                return self.between(
                    counters.get(visit_key(period, self.day), CounterFact()).money_minor, at_least, below
                )
            case OfferMade():
                return promotion.id in member.offers
        raise AssertionError(condition)

    @staticmethod
    def between(number: int, at_least: int | None, below: int | None = None) -> bool:
        return (at_least is None or number >= at_least) and (below is None or number < below)

    def is_within(self, both: tuple[int, int], at_least: int | None, below: int | None, *, negated: bool) -> bool:
        """Whether goods are within bounds, with the gifts and without: what must be reached is so without them."""
        whole, less = reversed(both) if negated else both
        return self.between(whole, None, below) and self.between(less, at_least)

    def towards(self, found: list[int], start: list[int]) -> int:
        """What goods come to without what the promotion gives."""
        return sum(start[i] - self.without[1][i] for i in found)

    def count(
        self, what: str, levels: int, found: list[int], start: list[int], without: Without = (Counts(), Counts())
    ) -> int:
        pieces, money = without
        there = [i for i in found if self.lines[i].quantity_milli > 1000 * pieces[i]]
        there = [i for i in there if not (self.lines[i].is_weighed and pieces[i])]
        if what == "amount":
            return sum(start[i] - money[i] for i in found)
        if what == "quantity":
            return sum(units_of(self.lines[i]) - pieces[i] for i in found)
        if what == "weight":
            return sum(self.lines[i].quantity_milli for i in there if self.lines[i].is_weighed)
        return len({tuple(self.lines[i].category.split("/")[: levels or None]) for i in there})

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
                counter = self.usage.member.get(use_key(owner, limit.period, self.day), CounterFact())
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

    def line_step(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        deal, effect = promotion.deal, promotion.line_discount
        if effect is None and (deal is None or isinstance(deal, Steps)):
            return
        most = self.most_given(promotion, scope, start)
        if most is None:
            return
        if effect is not None:
            self.line_discount(promotion, self.heaps_in(scope))
        if scope and deal is not None and not isinstance(deal, Steps):
            self.deal(promotion, deal, scope, most)

    def wanted(self, promotion: Promotion, heap: Heap) -> int:
        effect = promotion.line_discount
        assert effect is not None
        match effect.kind:
            case PercentOff(share):
                return half_up((heap.listed if effect.base is Base.LIST else heap.left) * share)
            case AmountOff(amount_minor):
                return half_up(amount_minor * heap.quantity)
            case FixedPrice(unit_price_minor):
                return max(0, heap.left - half_up(unit_price_minor * heap.quantity))
            case PriceList(prices):
                price = prices.get(heap.first.sku)
                return 0 if price is None else max(0, heap.left - half_up(price * heap.quantity))

    def line_discount(self, promotion: Promotion, heaps: list[Heap]) -> None:
        takers = [heap for heap in heaps if min(self.wanted(promotion, heap), heap.room)]
        units = self.cut(promotion, Measure.COUNT, sum(heap.begun for heap in takers))
        reached: list[Heap] = []
        for heap in takers:
            if 0 < units < heap.begun:
                alike = heap.take_out(list(range(units)))
                self.heaps.insert(self.heaps.index(heap), alike)
                reached.append(alike)
                units = 0
            elif units:
                reached.append(heap)
                units -= heap.begun
        wanted = [self.wanted(promotion, heap) for heap in reached]
        whole = self.cut(promotion, Measure.MONEY, sum(wanted))
        shares = wanted if whole == sum(wanted) else spread(whole, wanted)
        for heap, share in zip(reached, shares, strict=True):
            taken = min(share, heap.room)
            heap.left -= taken
            self.use(promotion, count=heap.begun if taken else 0, money=taken)

    def deal(self, promotion: Promotion, deal: UnitDeal | SetDeal | Gift, scope: list[int], most_given: int) -> None:
        most = self.cut(promotion, Measure.COUNT, 10**6)
        everything = self.scope(Promotion("all", "All"), self.programme.exclusions.no_discount)
        outcome = DealOutcome()
        match deal:
            case UnitDeal():
                outcome = unit_deal(deal, self.units(scope), most)
            case SetDeal(parts):
                fit = [[n for n, heap in enumerate(self.heaps) if fits(p.goods, heap.first)] for p in parts]
                outcome = set_deal(deal, self.units(scope), fit, most)
            case Gift(wanted):
                gifts = [i for i in everything if fits(wanted, self.lines[i])]
                outcome = gift(deal, self.units(gifts), self.units(scope), most, most_given)
        self.carry(promotion, outcome, self.spreads(promotion))

    def units(self, scope: list[int]) -> list[LineUnits]:
        found = self.heaps_in(scope)
        return [LineUnits(n, sum(h.prices()), len(h.lines)) for n, h in enumerate(self.heaps) if h in found and h.lines]

    def carry(self, promotion: Promotion, outcome: DealOutcome, spreads: bool) -> None:
        """Take a deal's discount off the pieces that carry it, which are heaps of their own from then on."""
        counts: dict[int, Counts[int]] = {}
        for n, price, count in outcome.carriers:
            counts.setdefault(n, Counts())[price] += count
        amounts = [amount for _, amount in outcome.discounts]
        whole = self.cut(promotion, Measure.MONEY, sum(amounts))
        amounts = amounts if whole == sum(amounts) else spread(whole, amounts)
        carriers = []
        for n, _ in outcome.discounts:
            heap, chosen = self.heaps[n], list[int]()
            for price, count in counts[n].items():
                chosen += [place for place, one in enumerate(heap.prices()) if one == price][-count:]
            carriers.append((heap, chosen))
        rooms = [(Heap.take_out(copy(heap), chosen)) for heap, chosen in carriers]
        kept = within([one.room for one in rooms], [one.left for one in rooms], amounts, spreads)
        for (heap, chosen), part in zip(carriers, kept, strict=True):
            if part and len(chosen) == heap.begun:
                heap.left -= part
            elif part:
                taken = heap.take_out(chosen)
                taken.left -= part
                self.heaps.insert(self.heaps.index(heap) + 1, taken)
            self.use(promotion, money=part)
        if any(kept):
            self.use(promotion, count=outcome.deals)

    def spreads(self, promotion: Promotion) -> bool:
        kinds: list[object] = []
        match promotion.deal:
            case UnitDeal() | Gift() if promotion.deal.falls_on is FallsOn.UNITS:
                return False
            case UnitDeal(_, _, kind) | SetDeal(_, kind):
                kinds = [kind]
        rest = promotion.floor_rest
        if rest is None and not any(isinstance(kind, PercentOff) for kind in kinds):
            rest = self.programme.floor_rest
        return rest is FloorRest.SPREAD

    def basket_step(self, promotion: Promotion, start: list[int]) -> None:
        scope = self.scope(promotion, self.programme.exclusions.no_discount)
        effect, deal = promotion.basket_discount, promotion.deal
        if effect is None and not isinstance(deal, Steps):
            return
        if not self.applies(promotion, scope, start):
            return
        heaps = self.heaps_in(scope)
        weights = [heap.left for heap in heaps]
        kinds: list[object] = []
        total = 0
        if isinstance(deal, Steps):
            total = steps_discount_minor(deal, self.count(deal.what, 0, scope, self.left), sum(weights))
            kinds = [step.kind for step in deal.steps]
        elif effect is not None:
            base = sum(heap.listed for heap in heaps) if effect.base is Base.LIST else sum(weights)
            kind = effect.kind
            total = half_up(base * kind.share) if isinstance(kind, PercentOff) else kind.amount_minor
            kinds = [kind]
        if not self.once(promotion):
            return
        rest = promotion.floor_rest
        if rest is None and not any(isinstance(kind, PercentOff) for kind in kinds):
            rest = self.programme.floor_rest
        whole = self.cut(promotion, Measure.MONEY, min(total, sum(weights)))
        kept = within([heap.room for heap in heaps], weights, spread(whole, weights), rest is FloorRest.SPREAD)
        for heap, part in zip(heaps, kept, strict=True):
            heap.left -= part
            self.use(promotion, money=part)
        if any(kept) and promotion.id not in self.applied:
            self.use(promotion, count=1)

    # --- gifts and their thresholds ---

    def most_given(self, promotion: Promotion, scope: list[int], start: list[int]) -> int | None:
        """How many pieces may be given so that the threshold is reached without them; None if it is not."""
        pieces = self.pieces_given(promotion, scope, start)
        for given in range(len(pieces), -1, -1):
            self.without = (Counts(i for i, _ in pieces[:given]), Counts[int]())
            for i, price in pieces[:given]:
                self.without[1][i] += price
            holds = self.applies(promotion, scope, start)
            self.without = (Counts(), Counts())
            if holds and (given or not pieces):
                return given or MILLION
            if not isinstance(promotion.deal, Gift):
                break
        return None

    def pieces_given(self, promotion: Promotion, scope: list[int], start: list[int]) -> list[tuple[int, int]]:
        """The pieces that a promotion gives, with their prices, in the order in which it does."""
        deal = promotion.deal
        if not has_threshold(promotion.when):
            return []

        def units(positions: list[int]) -> list[LineUnits]:
            heaps = [Heap(self.lines[i], [i] * units_of(self.lines[i]), *self.sizes(i, start[i])) for i in positions]
            return [LineUnits(h.lines[0], sum(h.prices()), len(h.lines)) for h in heaps if h.lines]

        def priced(found: list[LineUnits]) -> list[tuple[int, int]]:
            return [(one.line, price) for one in found for price in each_of(one.left_minor, one.units)]

        if isinstance(deal, Gift):
            everything = self.scope(Promotion("all", "All"), self.programme.exclusions.no_discount)
            gifts = units([i for i in everything if fits(deal.goods, self.lines[i])])
            given = gift(replace(deal, falls_on=FallsOn.UNITS), gifts, units(scope)).carriers
            most = sum(count for _, _, count in given)
            pieces = [one for one in priced(gifts) if one[1] > deal.unit_price_minor]
            return sorted(pieces, key=lambda one: (one[1], -one[0]))[:most]
        pieces = [one for one in priced(units([i for i in scope if self.is_free(promotion, i)])) if one[1]]
        return pieces[: self.cut(promotion, Measure.COUNT, len(pieces)) if promotion.line_discount else None]

    def is_free(self, promotion: Promotion, i: int) -> bool:
        effect = promotion.line_discount or promotion.basket_discount
        match effect and effect.kind:
            case PriceList(prices):
                return prices.get(self.lines[i].sku) == 0
            case PercentOff(share):
                return share == 1 and promotion.scope is not None
            case FixedPrice(price):
                return price == 0 and promotion.scope is not None
        return False

    def sizes(self, i: int, left: int) -> tuple[Fraction, tuple[int, int, int]]:
        return Fraction(self.lines[i].quantity_milli, 1000), (left, left, left)

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
        granted = []
        for i in scope:
            left = self.left[i]
            match promotion.points.kind:
                case PointsPercent(share):
                    points = half_up(left * share * rate)
                case PointsMultiplier(factor):
                    points = half_up(left * self.share_of_base() * (factor - 1) * rate)
                case PointsFixed(points_minor, per) if per != "receipt":
                    points = points_minor * (1 if per == "line" else self.paid_units(i))
                case PointsPerAmount(points_minor, step_minor, per="line"):
                    points = left // step_minor * points_minor
                case _:
                    return
            granted.append(points if left > 0 else 0)
        self.grant(promotion, scope, granted, granted)

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
        weights = [self.left[i] for i in paid]
        self.grant(promotion, paid, spread(points, weights), weights)

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

    def grant(self, promotion: Promotion, scope: list[int], points: list[int], weights: list[int]) -> None:
        whole = sum(points)
        if not whole or not self.once(promotion):
            return
        cut = self.cut(promotion, Measure.POINTS, whole)
        if not cut:
            return
        parts = points if cut == whole else spread(cut, weights)
        for i, part in zip(scope, parts, strict=True):
            self.points[i] += part
        self.use(promotion, count=0 if promotion.id in self.applied else 1, points=cut)
