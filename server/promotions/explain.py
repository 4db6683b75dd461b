"""Why each promotion did or did not apply to one receipt.

The receipt is evaluated as usual, and each promotion that had no effect is then questioned by itself, from the outside
in: the members of `Status` are the rungs of that ladder, and the first that fits is the answer. Nothing of this is paid
for by an evaluation that nobody asks about.

Conditions are answered with the amounts as they were when the step of the promotion's main effect began (a discount
before points, points before what else it gives). What a promotion would have given by itself is found by evaluating the
receipt with that promotion alone, its condition left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

from server.promotions.compile import Rules, compile_rules
from server.promotions.conditions import Facts, Moment, count_goods
from server.promotions.criteria import AllOf, AnyOf, Condition, CouponShown, NotThat, OfferMade
from server.promotions.dealing import line_units, set_fits
from server.promotions.deals import gift, set_deal, unit_deal
from server.promotions.evaluate import earn_as_paid, quote, rehearse
from server.promotions.facts import Capped, Effects, MemberFacts, PaidLine, ReceiptFacts, Usage
from server.promotions.formulas import CompiledPromotion
from server.promotions.hints import step_of
from server.promotions.messages import decimal_text, style_of
from server.promotions.model import BASE_ID, FixedPrice, Gift, PercentOff, PriceList, Promotion, SetDeal, UnitDeal
from server.promotions.wording import Asked, ConditionAnswer, answer, goods_text
from server.promotions.work import EARNING, Work


class Status(Enum):
    """What became of a promotion: the first of these that fits. `APPLIED` comes before all others."""

    APPLIED = "applied"
    """It had an effect; limits may have cut it."""
    NOT_VALID_YET = "not_valid_yet"
    """Its first day is still to come."""
    NO_LONGER_VALID = "no_longer_valid"
    """Its last day has passed."""
    NO_GOODS_IN_SCOPE = "no_goods_in_scope"
    """Nothing on the receipt is in its scope."""
    GOODS_EXCLUDED = "goods_excluded"
    """All that is in its scope gets no discount, or earns nothing, by the programme's exclusions."""
    COUPON_NOT_PRESENTED = "coupon_not_presented"
    """Without a coupon its condition can't hold, and none that fits was presented."""
    NO_OFFER = "no_offer"
    """It is for members to whom it was assigned."""
    CONDITION_FAILED = "condition_failed"
    """Its condition did not hold."""
    CONTROL_GROUP = "control_group"
    """All held, but the member belongs to a control group, which gets nothing."""
    CANNOT_EARN = "cannot_earn"
    """It gives points or the like, and the member may not earn, or there is none."""
    DEAL_INCOMPLETE = "deal_incomplete"
    """The goods are too few for one deal or the first step."""
    LIMIT_REACHED = "limit_reached"
    """A limit left nothing."""
    REGISTER_CHARGED_OTHERWISE = "register_charged_otherwise"
    """The rules give its discount, but the register charged another one."""
    LOST_TO = "lost_to"
    """A rival gave the shopper more: of its group, or an exclusive promotion."""
    NOTHING_LEFT = "nothing_left"
    """Earlier promotions or the lowest permitted prices left nothing to take off, or nothing paid to earn on."""
    ROUNDED_TO_NOTHING = "rounded_to_nothing"
    """What it gives is less than half of the smallest unit, or than one step."""


class LineAmounts(NamedTuple):
    """What a promotion gave on one line, in minor units of money and of its points."""

    line_number: int
    discount_minor: int
    points_minor: int


class PromotionAnswer(NamedTuple):
    """One promotion: its status, the same in a sentence, its condition part by part, and what it gave.

    `condition` is None without one, or if the dates or the goods decided. `winner` is the promotion that it lost to
    (`base`: the base percent). `unit` is that of its points, empty for the programme's own. `capped` are the limits
    that cut it.
    """

    promotion_id: str
    name: str
    status: Status
    text: str
    condition: ConditionAnswer | None = None
    winner: str = ""
    lines: tuple[LineAmounts, ...] = ()
    unit: str = ""
    capped: tuple[Capped, ...] = ()


class Explanation(NamedTuple):
    """The effects of a receipt, and what became of each promotion of the programme, in their order."""

    effects: Effects
    promotions: tuple[PromotionAnswer, ...]


def explain(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    usage: Usage | None = None,
    paid: Sequence[PaidLine] | None = None,
) -> Explanation:
    """Say of each promotion why it did or did not apply; with `paid`, as the register charged the receipt.

    Raises ReceiptError as `quote` and `earn_as_paid` do.
    """
    work, planned = rehearse(rules, receipt, member, None, usage)
    effects = planned if paid is None else earn_as_paid(rules, receipt, member, paid, usage)
    case = _Case(rules, work, planned, effects)
    partner = receipt.partner
    return Explanation(
        effects, tuple(case.promotion_answer(rules.compiled(rank, partner)) for rank in range(len(rules.promotions)))
    )


class _Verdict(NamedTuple):
    status: Status
    text: str
    winner: str = ""


class _Case:
    """One receipt and what the rules made of it."""

    def __init__(self, rules: Rules, work: Work, planned: Effects, effects: Effects) -> None:
        """Take the evaluation as quoted with its state, and the effects that count."""
        self._rules = rules
        self._work = work
        self._planned = planned
        self._effects = effects
        self._style = style_of(rules.programme)
        self._withheld = {withheld.promotion_id for withheld in effects.withheld}

    def promotion_answer(self, owner: CompiledPromotion) -> PromotionAnswer:
        """Question one promotion."""
        promotion = owner.promotion
        verdict = self._by_dates(promotion) or self._by_goods(owner)
        condition = None
        if verdict is None and owner.condition is not None:
            condition = answer(owner.condition, self._asked_of(owner))
        lines, unit = self._amounts(owner.id)
        if lines or self._gave_more(owner):
            verdict = _Verdict(Status.APPLIED, self._applied_text(owner))
        verdict = verdict or self._by_condition(owner, condition) or self._by_outcome(owner)
        capped = tuple(cut for cut in self._effects.capped if cut.promotion_id == owner.id)
        return PromotionAnswer(owner.id, promotion.name, *verdict[:2], condition, verdict.winner, lines, unit, capped)

    # --- what it gave ---

    def _amounts(self, promotion_id: str) -> tuple[tuple[LineAmounts, ...], str]:
        """What it gave a line, and the unit of its points."""
        found, unit = [], ""
        for line in self._effects.lines:
            discount = sum(amount for by, amount in line.discounts if by == promotion_id)
            accruals = [accrual for accrual in line.accruals if accrual.promotion_id == promotion_id]
            if discount or accruals:
                points = sum(accrual.points_minor for accrual in accruals)
                found.append(LineAmounts(line.line_number, discount, points))
                unit = accruals[0].unit if accruals else unit
        return tuple(found), unit

    def _gave_more(self, owner: CompiledPromotion) -> bool:
        """Whether it gave something else than discounts and points."""
        if not owner.has_more or owner.id in self._withheld or not self._holds(owner):
            return False
        effects, promotion = self._effects, owner.promotion
        if any(one.promotion_id == owner.id for one in effects.gave):
            return True
        if promotion.tier_points is not None and effects.tier_points_minor:
            return not self._is_capped(owner) and self._effects_alone(owner).tier_points_minor > 0
        return False

    def _holds(self, owner: CompiledPromotion) -> bool:
        if self._by_dates(owner.promotion) or not self._work.goods(owner):
            return False
        return owner.condition is None or answer(owner.condition, self._asked_of(owner, EARNING)).holds

    def _is_capped(self, owner: CompiledPromotion) -> bool:
        return any(cut.promotion_id == owner.id and not cut.granted for cut in self._effects.capped)

    def _applied_text(self, owner: CompiledPromotion) -> str:
        cuts = [
            f"cut to {self._measure(cut, cut.granted)} of {self._measure(cut, cut.wanted)} by its limit: {cut.limit}"
            for cut in self._effects.capped
            if cut.promotion_id == owner.id
        ]
        return "; ".join(["it applied", *cuts])

    def _money(self, minor: int) -> str:
        return decimal_text(minor, self._style.currency_digits)

    def _measure(self, cut: Capped, number: int) -> str:
        digits = {"money": self._style.currency_digits, "points": self._style.point_precision}
        return decimal_text(number, digits.get(cut.measure.value, 0))

    # --- the ladder ---

    def _by_dates(self, promotion: Promotion) -> _Verdict | None:
        day = self._work.receipt.local_at.date()
        if promotion.valid_from is not None and day < promotion.valid_from:
            return _Verdict(Status.NOT_VALID_YET, f"it is valid from {promotion.valid_from}")
        if promotion.valid_until is not None and day > promotion.valid_until:
            return _Verdict(Status.NO_LONGER_VALID, f"it was valid until {promotion.valid_until}")
        return None

    def _by_goods(self, owner: CompiledPromotion) -> _Verdict | None:
        work = self._work
        if not work.goods(owner):
            scopes = owner.scopes or ()
            text = " or ".join(goods_text(scope) for scope in scopes) or "goods"
            return _Verdict(Status.NO_GOODS_IN_SCOPE, f"nothing on the receipt is {text}")
        discounts, earns = _gives_discount(owner), owner.promotion.points is not None
        if owner.has_more or (discounts and work.discountable(owner)) or (earns and work.earning(owner)):
            return None
        what = "get no discount" if discounts else "earn nothing"
        return _Verdict(Status.GOODS_EXCLUDED, f"the goods in its scope {what}: the programme excludes them")

    def _by_condition(self, owner: CompiledPromotion, condition: ConditionAnswer | None) -> _Verdict | None:
        work = self._work
        if condition is not None and not condition.holds and owner.condition is not None:
            facts = work.facts
            if not _may_hold(owner.condition, lambda leaf: _is_presented(leaf, facts)):
                wanted = (leaf for leaf in condition.failures() if leaf.subject == "coupon")
                return _Verdict(Status.COUPON_NOT_PRESENTED, _join(wanted))
            offers = work.member.offers if work.member is not None else frozenset()
            if not _may_hold(owner.condition, lambda leaf: not isinstance(leaf, OfferMade) or owner.id in offers):
                return _Verdict(Status.NO_OFFER, "it was not assigned to the member" if work.member else "no member")
            return _Verdict(Status.CONDITION_FAILED, _join(condition.failures()))
        if owner.id in self._withheld:
            return _Verdict(Status.CONTROL_GROUP, "the member is in a control group, which gets nothing")
        return None

    def _by_outcome(self, owner: CompiledPromotion) -> _Verdict:
        """The condition holds, and yet it gave nothing."""
        discounts, member = _gives_discount(owner), self._work.member
        if not discounts and member is not None and not member.can_earn:
            return _Verdict(Status.CANNOT_EARN, "the member earns nothing now")
        if self._lacks_units(owner):
            return _Verdict(Status.DEAL_INCOMPLETE, "the goods are too few for one deal or the first step")
        alone = self._effects_alone(owner)
        verdict = self._by_limits(owner, alone) or self._by_register(owner)
        if verdict is None and _gave_anything(alone, owner.id):
            verdict = self._by_rivals(owner)
        if verdict is None and self._is_used_up(owner):
            verdict = _Verdict(Status.NOTHING_LEFT, "earlier promotions or the lowest prices left nothing for it")
        return verdict or _Verdict(Status.ROUNDED_TO_NOTHING, "what it gives is less than the smallest unit or step")

    def _by_limits(self, owner: CompiledPromotion, alone: Effects) -> _Verdict | None:
        for cut in (*self._effects.capped, *alone.capped):
            if cut.promotion_id == owner.id and not cut.granted:
                return _Verdict(Status.LIMIT_REACHED, f"nothing is left of its limit: {cut.limit}")
        return None

    def _by_register(self, owner: CompiledPromotion) -> _Verdict | None:
        """Whether the register charged otherwise the lines that the promotion was meant to reduce."""
        meant = {line.line_number for line in self._planned.lines if any(by == owner.id for by, _ in line.discounts)}
        texts = [
            f"line {number}: the register took {self._money(charged)} off, the rules give {self._money(expected)}"
            for number, expected, charged in self._effects.variances
            if number in meant
        ]
        return _Verdict(Status.REGISTER_CHARGED_OTHERWISE, "; ".join(texts)) if texts else None

    def _by_rivals(self, owner: CompiledPromotion) -> _Verdict | None:
        """The rival that kept it from applying: of its group, or because one of the two is exclusive."""
        discounts, group = _gives_discount(owner), owner.promotion.group
        positions = self._work.discountable(owner) if discounts else self._work.earning(owner)
        for rival in self._givers({self._work.lines[i].line_number for i in positions}, discounts):
            name, text = rival.id, ""
            if group is not None and rival.promotion.group == group:
                if step_of(rival) == step_of(owner) or not discounts:
                    text = f"{name}, of its group {group}, gives more or comes first"
            elif rival.promotion.exclusive:
                text = f"{name} is exclusive and gives more or comes first"
            elif owner.promotion.exclusive:
                text = f"it is exclusive, and what {name} and others give is more or comes first"
            if text:
                return _Verdict(Status.LOST_TO, text, name)
        base_group = self._rules.programme.earning.base_group
        if not discounts and base_group is not None and base_group == group:
            return _Verdict(Status.LOST_TO, f"the base percent, of its group {group}, gives more", BASE_ID)
        return None

    def _givers(self, numbers: set[int], discounts: bool) -> list[CompiledPromotion]:
        """The promotions that give discounts (or points) on these lines, by rank."""
        lines = [line for line in self._planned.lines if line.line_number in numbers]
        if discounts:
            ids = {by for line in lines for by, _ in line.discounts}
        else:
            ids = {accrual.promotion_id for line in lines for accrual in line.accruals}
        ranks = sorted(self._rules.rank_of[i] for i in ids if i in self._rules.rank_of)
        return [self._rules.compiled(rank, self._work.receipt.partner) for rank in ranks]

    def _lacks_units(self, owner: CompiledPromotion) -> bool:
        """Whether the goods would be too few even at list prices and without any limit."""
        work = self._work
        positions, prices = work.discountable(owner), [line.list_amount_minor for line in work.lines]
        if owner.basket is not None and owner.basket.steps is not None:
            steps, lines = owner.basket.steps, [work.lines[i] for i in positions]
            reached = count_goods(steps.what, lines, [prices[i] for i in positions])
            return reached < min(step.at_least for step in steps.steps)
        deal = owner.promotion.deal
        goods = line_units(work, positions, prices)
        if isinstance(deal, UnitDeal):
            return not unit_deal(deal, goods).wanted_deals
        if isinstance(deal, SetDeal):
            free = replace(deal, kind=PercentOff(Fraction(1)))
            return not set_deal(free, goods, set_fits(work, deal)).wanted_deals
        if isinstance(deal, Gift):
            gifts = line_units(work, work.givable(owner), prices)
            return not gift(replace(deal, unit_price_minor=0), gifts, goods).wanted_deals
        return False

    def _effects_alone(self, owner: CompiledPromotion) -> Effects:
        """What the receipt would come to with this promotion alone, were its condition met."""
        work = self._work
        free = replace(owner.promotion, when=None, group=None, exclusive=False, control_share=Fraction(0))
        campaigns = tuple(replace(one, control_share=Fraction(0)) for one in self._rules.programme.campaigns)
        programme = replace(self._rules.programme, promotions=(free,), campaigns=campaigns, control_share=Fraction(0))
        return quote(compile_rules(programme, self._rules.version), work.receipt, work.member, None, work.usage)

    def _is_used_up(self, owner: CompiledPromotion) -> bool:
        """Whether its goods cost the least that they may, or less than its fixed price."""
        work, promotion = self._work, owner.promotion
        if not _gives_discount(owner):
            return not any(work.left[i] for i in work.earning(owner))
        kinds = [getattr(effect, "kind", None) for effect in (promotion.line_discount, promotion.deal)]
        if any(isinstance(kind, FixedPrice | PriceList) for kind in kinds) or isinstance(promotion.deal, Gift):
            return True
        return all(work.left[i] <= work.lines[i].floor_amount_minor for i in work.discountable(owner))

    def _asked_of(self, owner: CompiledPromotion, step: str | None = None) -> Asked:
        """Whom the promotion's condition is asked of: the receipt as it was when a step began."""
        work, step = self._work, step or step_of(owner)
        amounts: Sequence[int] = [line.payable_minor for line in self._effects.lines]
        if step != EARNING:
            amounts = work.moments.get(step, work.left)
        moment = Moment(work.facts, self._rules.programme.tiers, amounts, sum(amounts))
        if owner.gives_for_threshold and step != EARNING:
            moment = work.reach(owner, moment).moment
        positions = work.earning(owner) if step == EARNING else work.discountable(owner)
        return Asked(moment, owner.id, lambda: positions, self._style)


def _gives_discount(owner: CompiledPromotion) -> bool:
    return bool(owner.line or owner.deal or owner.basket)


def _gave_anything(effects: Effects, promotion_id: str) -> bool:
    """Whether a promotion had an effect on lines."""
    return any(
        any(by == promotion_id for by, _ in line.discounts)
        or any(accrual.promotion_id == promotion_id for accrual in line.accruals)
        for line in effects.lines
    )


def _may_hold(condition: Condition, leaf_holds: Callable[[Condition], bool]) -> bool:
    """Whether a condition may hold if all but some leaves do as it needs them to; `leaf_holds` answers those."""
    if isinstance(condition, AllOf):
        return all(_may_hold(part, leaf_holds) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(_may_hold(part, leaf_holds) for part in condition.parts)
    return isinstance(condition, NotThat) or leaf_holds(condition)


def _is_presented(leaf: Condition, facts: Facts) -> bool:
    """Whether the coupon that a leaf asks for was presented; true for leaves that ask for none."""
    if not isinstance(leaf, CouponShown):
        return True
    return not (leaf.series.isdisjoint(facts.series) and leaf.codes.isdisjoint(facts.codes))


def _join(answers: Iterable[ConditionAnswer]) -> str:
    return "; ".join(str(one) for one in answers)
