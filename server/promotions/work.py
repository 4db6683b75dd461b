"""The state of one evaluation: what each line costs by now, who took what off, and which conditions hold."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from server.promotions.arithmetic import UNIT_MILLI
from server.promotions.compile import Candidates, LiveSet, Rules
from server.promotions.conditions import Facts, Moment, check, coupons_behind
from server.promotions.facts import DiscountRow, MemberFacts, ReceiptError, ReceiptFacts, ReceiptLine, Usage
from server.promotions.formulas import BASE_RANK, CompiledPromotion
from server.promotions.gifts import Reach, reach
from server.promotions.kinds import Measure
from server.promotions.limits import Meter, is_in_control
from server.promotions.model import Gift
from server.promotions.parts import Part, Turn, gathered, part_of
from server.promotions.stacking import Ranked

LINES, BASKET, RIGHTS, RIGHTS_BASKET, EARNING = "lines", "basket", "rights", "rights_basket", "earning"
"""The steps of an evaluation, in their order; payment with points comes before earning."""

ALL_GOODS = -2
"""Stands for the rank of any promotion for all goods: they share their lines."""

_by_number = itemgetter(0)
_sku = itemgetter(1)


class Query(NamedTuple):
    """A receipt to be judged, the promotions live on its day, and those for all goods that it may satisfy (`gated`).

    `facts` are None if nobody has asked for them yet.
    """

    rules: Rules
    receipt: ReceiptFacts
    member: MemberFacts | None
    usage: Usage | None
    live: LiveSet
    facts: Facts | None
    gated: Sequence[CompiledPromotion]


def query_of(rules: Rules, receipt: ReceiptFacts, member: MemberFacts | None, usage: Usage | None) -> Query:
    """Find the promotions for all goods that are within reach; ReceiptError for a receipt without a time zone."""
    if receipt.local_at.tzinfo is None:
        raise ReceiptError("local_at has no time zone; give the store's", "local_at")
    live = rules.live_on(receipt.local_at.date(), receipt.partner)
    if live.is_gateless:
        return Query(rules, receipt, member, usage, live, None, ())
    lines = sorted(receipt.lines, key=_by_number)
    facts = Facts(receipt, lines, member, usage)
    return Query(rules, receipt, member, usage, live, facts, live.gated(facts, sum([line[7] for line in lines])))


class Work:
    """One evaluation in progress: parallel columns, one entry a line, in the order of line numbers.

    While discounts are applied, equal pieces on several lines are `gathered` into a part that stands at the first of
    them; the others are `followers`. Once a deal or a limit may treat units differently, `parts` take the place of all
    lines. `put_together` brings the columns up to date. `free_units` are those of a line that cost nothing,
    if some do; `units_used` are the units of limits that
    a promotion used on a line, `givable_units` how many units a gift may give (by rank; missing: any number).

    `gated` are promotions for all goods that the receipt may satisfy, `rights` those that its coupons and offers may
    help to. `moments` has the receipt as it stood when each step began, for those who ask why. `coupons` are the codes
    because of which rights hold, by rank. `is_in_control` says that the member gets no promotion at all.
    """

    __slots__ = (
        "_by_rank",
        "_facts",
        "_meter",
        "_positions",
        "_steps",
        "candidates",
        "coupons",
        "cuts",
        "discounts",
        "followers",
        "free_units",
        "gated",
        "gathered",
        "givable_units",
        "is_in_control",
        "left",
        "lines",
        "live",
        "locked",
        "member",
        "moments",
        "parts",
        "receipt",
        "rights",
        "rules",
        "units_used",
        "usage",
        "withheld",
    )

    def __init__(self, query: Query) -> None:
        """Look up what may happen to each line; ReceiptError for lines that make no sense."""
        rules, receipt, member, self.usage, self.live, self._facts, self.gated = query
        self.rules, self.receipt, self.member = rules, receipt, member
        self.lines = sorted(receipt.lines, key=_by_number)
        memory, find = self.live.memory, self.live.find
        self.candidates: list[Candidates] = []
        previous = None
        for line in self.lines:
            number = line[0]
            quantity_milli, list_minor, floor_minor, _ = line[6:]
            if number == previous or quantity_milli <= 0 or list_minor < 0 or floor_minor < 0:
                raise _unfit_line(line)
            previous = number
            self.candidates.append(memory.get(line[1:6]) or find(line))
        self.left = [line[7] for line in self.lines]
        self.discounts: list[Sequence[DiscountRow]] = [()] * len(self.lines)
        self.cuts = [0] * len(self.lines)
        self.locked: set[int] = set()
        self.parts: list[Part] = []
        self.gathered: dict[int, Part] = {}
        self.followers: set[int] = set()
        self.units_used: dict[tuple[int, str], int] = {}
        self.free_units: dict[int, int] = {}
        self.givable_units: dict[int, int] = {}
        self._by_rank: dict[int, list[int]] | None = None
        self._meter: Meter | None = None
        self._positions: dict[tuple[int, str], list[int]] = {}
        self.withheld: set[int] = set()
        self.moments: dict[str, list[int]] = {}
        self._steps: dict[str, Step] = {}
        self.coupons: dict[int, set[str]] = {}
        share = rules.programme.control_share
        self.is_in_control = (
            bool(share) and member is not None and is_in_control(member.member_id, rules.programme.code, share)
        )
        self.rights = self._find_rights()

    def _find_rights(self) -> Sequence[CompiledPromotion]:
        """Promotions that coupons and offers may help to, by rank."""
        receipt, member = self.receipt, self.member
        found: dict[int, CompiledPromotion] = {}
        if receipt.coupons or (member is not None and member.offers):
            found = {right.rank: right for right in self.live.rights(self.facts)}
        if self.live.has_free_rights:
            found.update((right.rank, right) for one in self.candidates for right in one.rights)
            found.update((right.rank, right) for right in self.gated if right.is_right)
        return [found[rank] for rank in sorted(found)] if found else ()

    @property
    def facts(self) -> Facts:
        """What conditions may know; made when the first asks."""
        if self._facts is None:
            self._facts = Facts(self.receipt, self.lines, self.member, self.usage)
        return self._facts

    @property
    def meter(self) -> Meter:
        """What limits leave; made when the first limited promotion comes."""
        if self._meter is None:
            self._meter = Meter(self.facts)
        return self._meter

    @meter.setter
    def meter(self, kept: Meter) -> None:
        self._meter = kept

    @property
    def is_metered(self) -> bool:
        """Whether a limit was looked at."""
        return self._meter is not None

    @property
    def consulted(self) -> frozenset[str]:
        """Counters and shared limits that were looked at."""
        return frozenset(self._facts.consulted) if self._facts is not None else frozenset()

    # --- the lines of a promotion ---

    def goods(self, owner: CompiledPromotion) -> list[int]:
        """Positions of the lines in the promotion's scope, excluded or not."""
        return self._positions_of(owner, "goods")

    def discountable(self, owner: CompiledPromotion) -> list[int]:
        """Positions of the lines in scope that may get discounts."""
        return self._positions_of(owner, "discount")

    def givable(self, owner: CompiledPromotion) -> list[int]:
        """Positions of the lines that the gift of a promotion may be taken from."""
        deal = owner.promotion.deal
        if not isinstance(deal, Gift):
            return []
        return [i for i in self.facts.selected(deal.goods) if not self.candidates[i].no_discount]

    def reach(self, owner: CompiledPromotion, moment: Moment) -> Reach:
        """A moment as the threshold of a promotion sees it: without what it gives."""
        most = self.meter.left(owner.limits, Measure.COUNT) if owner.limits else None
        return reach(owner.promotion, moment, self.discountable(owner), self.givable(owner), most)

    def earning(self, owner: CompiledPromotion) -> list[int]:
        """Positions of the lines in scope that may earn."""
        return self._positions_of(owner, "earning")

    def _positions_of(self, owner: CompiledPromotion, why: str) -> list[int]:
        key = (owner.rank if owner.scopes is not None else ALL_GOODS, why)
        found = self._positions.get(key)
        if found is None:
            candidates = self.candidates
            if owner.scopes is None:
                found = list(range(len(candidates)))
            elif owner.is_indexed:
                found = self._lines_by_rank().get(owner.rank, [])
            else:
                found = [i for i, line in enumerate(self.lines) if owner.covers(line)]
            if why == "discount":
                found = [i for i in found if not candidates[i].no_discount]
            elif why == "earning":
                found = [i for i in found if not candidates[i].no_earning]
            self._positions[key] = found
        return found

    def _lines_by_rank(self) -> dict[int, list[int]]:
        """Positions of the lines that the product index found for each promotion."""
        if self._by_rank is None:
            self._by_rank = {}
            for i, candidates in enumerate(self.candidates):
                for rank in candidates.ranks:
                    self._by_rank.setdefault(rank, []).append(i)
        return self._by_rank

    # --- lines and parts of them ---

    def gather(self) -> None:
        """Find equal pieces that stand on several lines: from now on they are a part, which stands at the first."""
        if len(set(map(_sku, self.lines))) < len(self.lines):
            self.gathered = gathered(self.lines)
            self.followers = {i for part in self.gathered.values() for i, _ in part.spans[1:]}

    def take_apart(self) -> None:
        """From now on discounts are applied to parts of all lines."""
        if self.parts:
            return
        columns = zip(self.lines, self.left, self.discounts, self.cuts, strict=True)
        self.parts = [
            self.gathered[i] if i in self.gathered else part_of(i, line, left, taken, cut, is_locked=i in self.locked)
            for i, (line, left, taken, cut) in enumerate(columns)
            if i not in self.followers
        ]

    def go_on(self) -> None:
        """A further step applies discounts: what promotions of those before it took is locked from now on."""
        self.parts = [part.for_next_step() for part in self.parts]
        self.gathered = {i: part.for_next_step() for i, part in self.gathered.items()}

    def put_together(self) -> None:
        """Bring the columns up to date with the parts; what follows goes by lines."""
        taken: dict[int, dict[tuple[Turn, str], int]] = {}
        for part in self.parts or [one for one in self.gathered.values() if one.taken or one.cut_minor]:
            for i, piece in part.by_line():
                if i in taken:
                    self.left[i] += piece.left_minor
                    self.cuts[i] += piece.cut_minor
                else:
                    self.left[i], self.cuts[i], taken[i] = piece.left_minor, piece.cut_minor, {}
                if piece.left_minor < piece.units:
                    self.free_units[i] = self.free_units.get(i, 0) + piece.units - piece.left_minor
                rows = taken[i]
                for turn, promotion_id, amount, uses in piece.taken:
                    rows[turn, promotion_id] = rows.get((turn, promotion_id), 0) + amount
                    if uses:
                        key = i, promotion_id
                        self.units_used[key] = self.units_used.get(key, 0) + uses
        for i, rows in taken.items():
            self.discounts[i] = [(row[1], rows[row]) for row in sorted(rows) if rows[row]]
        self.parts, self.gathered = [], {}

    def earning_lines(self) -> Sequence[ReceiptLine]:
        """The lines without units that cost nothing, which earn nothing."""
        if not self.free_units:
            return self.lines
        return [
            line if line.is_weighed else line._replace(quantity_milli=line.quantity_milli - UNIT_MILLI * free)
            for line, free in ((line, self.free_units.get(i, 0)) for i, line in enumerate(self.lines))
        ]

    def _amounts(self) -> list[int]:
        """What each line costs."""
        if self.parts:
            left = [0] * len(self.lines)
            for part in self.parts:
                for i, amount in part.left_by_line():
                    left[i] += amount
            return left
        left = list(self.left)
        for part in self.gathered.values():
            for i, amount in part.left_by_line():
                left[i] = amount
        return left

    # --- steps ---

    def begin(self, name: str) -> None:
        """Keep what the lines cost as a step begins."""
        self.moments[name] = self._amounts()

    def step(self, name: str) -> Step:
        """A step that has begun; made when the first condition is asked."""
        step = self._steps.get(name)
        if step is None:
            step = self._steps[name] = Step(self, self.moments[name], name == EARNING)
        return step


def is_open_to(rule: Ranked, part: Part) -> bool:
    """Whether units may get one more discount: nobody has them to himself, and who wants that finds them bare."""
    return not (part.is_locked or (rule.exclusive and part.was_reduced))


class Step:
    """Answers conditions for one step, with the amounts as they were when the step began."""

    __slots__ = ("_answers", "_is_earning", "_work", "moment")

    def __init__(self, work: Work, amounts: Sequence[int], is_earning: bool) -> None:
        """Take what the lines cost when the step began."""
        self.moment = Moment(work.facts, work.rules.programme.tiers, amounts, sum(amounts))
        self._work = work
        self._is_earning = is_earning
        self._answers: dict[int, bool] = {}

    def positions(self, owner: CompiledPromotion) -> list[int]:
        """The lines that a promotion may work on in this step."""
        return self._work.earning(owner) if self._is_earning else self._work.discountable(owner)

    def holds(self, owner: CompiledPromotion) -> bool:
        """Whether a promotion's condition holds and no control group keeps it back; looked up once a step."""
        if not owner.is_conditional and not self._work.is_in_control:
            return True
        answer = self._answers.get(owner.rank)
        if answer is None:
            answer = self._answers[owner.rank] = self._decide(owner)
        return answer

    def satisfies(self, owner: CompiledPromotion) -> bool:
        """Whether the condition alone holds."""
        condition = owner.condition
        return condition is None or check(condition, self.moment_for(owner), owner.id, lambda: self.positions(owner))

    def moment_for(self, owner: CompiledPromotion) -> Moment:
        """The moment as a promotion's condition sees it: its threshold does not see what it gives."""
        if not owner.gives_for_threshold or self._is_earning:
            return self.moment
        found = self._work.reach(owner, self.moment)
        if found.units is not None:
            self._work.givable_units[owner.rank] = found.units
        return found.moment

    def _decide(self, owner: CompiledPromotion) -> bool:
        if owner.rank == BASE_RANK:
            return True
        if not self.satisfies(owner):
            return False
        if self.is_withheld(owner):
            if self.positions(owner):
                self._work.withheld.add(owner.rank)
            return False
        if owner.is_right and owner.condition is not None and self._work.receipt.coupons:
            codes = coupons_behind(owner.condition, self.moment_for(owner), owner.id, lambda: self.positions(owner))
            self._work.coupons.setdefault(owner.rank, set()).update(codes)
        return True

    def is_withheld(self, owner: CompiledPromotion) -> bool:
        """Whether the member is in a control group of the promotion."""
        if self._work.is_in_control:
            return True
        member = self._work.member
        return member is not None and any(is_in_control(member.member_id, *control) for control in owner.controls)


def _unfit_line(line: ReceiptLine) -> ReceiptError:
    for field, value, least in (
        ("quantity_milli", line.quantity_milli, 1),
        ("list_amount_minor", line.list_amount_minor, 0),
        ("floor_amount_minor", line.floor_amount_minor, 0),
    ):
        if value < least:
            text = f"line {line.line_number}: {field} is {value}, must be at least {least}"
            return ReceiptError(text, field, line.line_number)
    text = f"line_number {line.line_number} stands twice on the receipt; number the lines uniquely"
    return ReceiptError(text, "line_number", line.line_number)
