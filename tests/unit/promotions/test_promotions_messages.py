"""Texts with placeholders in the member's language, and near misses."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions.criteria import (
    AllOf,
    AnyOf,
    BasketCount,
    Condition,
    InStores,
    NotThat,
    ReceiptTotal,
    ScopeTotal,
    Selector,
)
from server.promotions.deals import LineUnits
from server.promotions.facts import Message
from server.promotions.kinds import Audience, TierMeasure
from server.promotions.messages import (
    PLACEHOLDERS,
    MessageFacts,
    Missing,
    Style,
    decimal_text,
    is_near,
    message_values,
    missing_for_condition,
    missing_for_deal,
    missing_for_steps,
    placeholders_in,
    render,
    text_in,
    unknown_placeholders,
    write_messages,
)
from server.promotions.model import (
    AmountOff,
    Gift,
    MessageText,
    NearMiss,
    PercentOff,
    SetDeal,
    SetPart,
    Step,
    Steps,
    UnitDeal,
)
from server.promotions.tiers import Standing

HRYVNIA = Style(currency_digits=2, point_precision=2, language="uk")
SILVER = Standing("silver", "Silver", None, "gold", "Gold", 1250, TierMeasure.SPEND)


# --- templates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "unknown"),
    [
        pytest.param("Thank you", (), (), id="none"),
        pytest.param("{missing} more, {name}, {missing}", ("missing", "name"), (), id="each once"),
        pytest.param("{missed} more", ("missed",), ("missed",), id="misspelt"),
        pytest.param("{points.__class__}", ("points.__class__",), ("points.__class__",), id="attributes"),
        pytest.param("{points!r} {points:>99}", ("points!r", "points:>99"), ("points!r", "points:>99"), id="formats"),
        pytest.param("{0} {}", ("0", ""), ("0", ""), id="positions"),
        pytest.param("{ points }", (" points ",), (" points ",), id="blanks are no part of a name"),
        pytest.param("a { b } {points", (" b ",), (" b ",), id="a lone brace is text"),
    ],
)
def test_placeholders_are_found(text: str, names: tuple[str, ...], unknown: tuple[str, ...]) -> None:
    assert (placeholders_in(text), unknown_placeholders(text)) == (names, unknown)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param("{discount} off", "5.20 off", id="money"),
        pytest.param("{points} points", "40.32 points", id="points"),
        pytest.param("{missing} and {missing_quantity} more", "0.07 and 2 more", id="what is missing"),
        pytest.param("{tier}, {missing_to_tier} to {next_tier}", "Silver, 12.50 to Gold", id="level"),
        pytest.param("{name}: {uses_left} left", "{points}: 3 left", id="a value is not looked at again"),
        pytest.param("100 % {of} {all}", "100 % {of} {all}", id="what is no placeholder stays"),
        pytest.param("%s {0} $name", "%s {0} $name", id="other kinds of templates are text"),
    ],
)
def test_texts_are_written(text: str, written: str) -> None:
    facts = MessageFacts("{points}", 520, 4032, Missing(7, 2), SILVER, 3)
    assert render(text, message_values(HRYVNIA, facts)) == written


def test_points_of_another_unit_have_their_own_decimals() -> None:
    values = message_values(HRYVNIA, MessageFacts(points_minor=40, point_precision=0))
    assert values["points"] == "40"


def test_every_placeholder_has_a_value() -> None:
    assert message_values(HRYVNIA, MessageFacts()).keys() == PLACEHOLDERS.keys()


@pytest.mark.parametrize(
    ("standing", "written"),
    [
        pytest.param(SILVER, "12.50", id="money"),
        pytest.param(SILVER._replace(measure=TierMeasure.VISITS, missing=3), "3", id="visits"),
        pytest.param(SILVER._replace(measure=TierMeasure.POINTS, missing=3), "0.03", id="points"),
        pytest.param(SILVER._replace(next_tier="", missing=0), "", id="highest level"),
        pytest.param(None, "", id="no levels"),
    ],
)
def test_missing_to_the_next_level(standing: Standing | None, written: str) -> None:
    assert message_values(HRYVNIA, MessageFacts(standing=standing))["missing_to_tier"] == written


@pytest.mark.parametrize(
    ("minor", "digits", "text"),
    [
        pytest.param(520, 2, "5.20", id="two digits"),
        pytest.param(5, 2, "0.05", id="less than one"),
        pytest.param(-5, 2, "-0.05", id="below zero by less than one"),
        pytest.param(-1250, 2, "-12.50", id="below zero"),
        pytest.param(-1200, 2, "-12.00", id="below zero, even"),
        pytest.param(-7, 0, "-7", id="below zero, no digits"),
        pytest.param(520, 0, "520", id="no digits"),
        pytest.param(1234, 3, "1.234", id="three digits"),
    ],
)
def test_minor_units_as_text(minor: int, digits: int, text: str) -> None:
    assert decimal_text(minor, digits) == text


@pytest.mark.parametrize(
    ("texts", "language", "text"),
    [
        pytest.param({"": "default"}, "de", "default", id="only a default"),
        pytest.param({"": "default", "de": "deutsch"}, "de", "deutsch", id="its language"),
        pytest.param({"": "default", "de": "deutsch"}, "de-AT", "deutsch", id="primary language"),
        pytest.param({"": "default", "de": "d", "de-AT": "a"}, "de-AT", "a", id="full tag first"),
        pytest.param({"": "default", "de-at": "a"}, "de_AT", "a", id="case and underscore"),
        pytest.param({"": "default", "zh-Hant": "t", "zh": "z"}, "zh-Hant-TW", "t", id="script before language"),
        pytest.param({"": "default", "de": "deutsch"}, "", "default", id="language not known"),
        pytest.param({"": "default", "de": "deutsch"}, "fr", "default", id="another language"),
        pytest.param({"en": "english", "uk": "українська"}, "fr", "українська", id="the programme's language"),
        pytest.param({"en": "english", "de": "deutsch"}, "fr", "english", id="the first of what there is"),
    ],
)
def test_language(texts: Mapping[str, str], language: str, text: str) -> None:
    assert text_in(texts, language, "uk") == text


def test_messages_of_a_promotion() -> None:
    texts = (
        MessageText(Audience.CASHIER, {"": "{name}"}),
        MessageText(Audience.SHOPPER, {"": "Знижка {discount}", "en": "{discount} off"}),
    )
    facts = MessageFacts("Cakes", discount_minor=520)
    assert write_messages(texts, "cakes", "en-GB", HRYVNIA, facts) == [
        Message(Audience.CASHIER, "cakes", "Cakes"),
        Message(Audience.SHOPPER, "cakes", "5.20 off"),
    ]


# --- near misses ------------------------------------------------------------------------------------------

TOTAL_50, SCOPE_20 = ReceiptTotal(at_least_minor=5000), ScopeTotal(at_least_minor=2000)
THREE, FOUR_KINDS = BasketCount("quantity", at_least=3), BasketCount("categories", at_least=4)
HERE, ELSEWHERE = InStores(frozenset(["here"])), InStores(frozenset(["elsewhere"]))
ACTUAL: dict[Condition, int] = {
    TOTAL_50: 4480,
    SCOPE_20: 1990,
    THREE: 2,
    FOUR_KINDS: 2,
    ReceiptTotal(below_minor=4000): 4480,
    BasketCount("weight", at_least=500): 400,
    BasketCount("amount", at_least=500): 400,
}


def holds(condition: Condition) -> bool:
    """Whether a condition of the tables holds: none of those that measure does."""
    if isinstance(condition, AllOf):
        return all(map(holds, condition.parts))
    if isinstance(condition, AnyOf):
        return any(map(holds, condition.parts))
    return condition == HERE or (isinstance(condition, NotThat) and not holds(condition.part))


@pytest.mark.parametrize(
    ("condition", "missing"),
    [
        pytest.param(None, Missing(), id="no condition"),
        pytest.param(TOTAL_50, Missing(520), id="5.20 to a receipt total"),
        pytest.param(SCOPE_20, Missing(10), id="0.10 to a scope total"),
        pytest.param(BasketCount("amount", at_least=500), Missing(100), id="1.00 to goods for an amount"),
        pytest.param(THREE, Missing(quantity=1), id="one unit"),
        pytest.param(FOUR_KINDS, Missing(quantity=2), id="two categories"),
        pytest.param(BasketCount("weight", at_least=500), None, id="weight is not said"),
        pytest.param(ReceiptTotal(below_minor=4000), None, id="too much is no near miss"),
        pytest.param(ELSEWHERE, None, id="another store"),
        pytest.param(AllOf((TOTAL_50, HERE)), Missing(520), id="the rest holds"),
        pytest.param(AllOf((TOTAL_50, ELSEWHERE)), None, id="the rest does not hold"),
        pytest.param(AllOf((TOTAL_50, SCOPE_20)), Missing(520), id="the larger of two amounts"),
        pytest.param(AllOf((TOTAL_50, THREE)), Missing(520, 1), id="both kinds"),
        pytest.param(AnyOf((TOTAL_50, SCOPE_20, ELSEWHERE)), Missing(10), id="the smaller of alternatives"),
        pytest.param(AnyOf((TOTAL_50, HERE)), Missing(), id="an alternative holds"),
        pytest.param(AnyOf((ELSEWHERE,)), None, id="no alternative is near"),
        pytest.param(NotThat(HERE), None, id="not: cannot be bought"),
        pytest.param(AllOf((NotThat(ELSEWHERE), TOTAL_50)), Missing(520), id="not: holds"),
    ],
)
def test_missing_for_a_condition(condition: Condition | None, missing: Missing | None) -> None:
    assert missing_for_condition(condition, holds, ACTUAL.__getitem__) == missing


@pytest.mark.parametrize(
    ("near_miss", "missing", "near"),
    [
        pytest.param(NearMiss((), within_minor=1000), Missing(520), True, id="within the amount"),
        pytest.param(NearMiss((), within_minor=520), Missing(520), True, id="just within"),
        pytest.param(NearMiss((), within_minor=519), Missing(520), False, id="just not"),
        pytest.param(NearMiss((), within_quantity=1), Missing(quantity=1), True, id="one unit"),
        pytest.param(NearMiss((), within_quantity=1), Missing(quantity=2), False, id="two units"),
        pytest.param(NearMiss((), within_quantity=1), Missing(1), False, id="money is not asked for"),
        pytest.param(NearMiss((), 1000, 1), Missing(520, 1), True, id="both are little"),
        pytest.param(NearMiss((), 1000, 1), Missing(520, 2), False, id="one of both is not"),
        pytest.param(NearMiss((), 1000, 1), Missing(), False, id="nothing is missing"),
        pytest.param(NearMiss((), 1000, 1), None, False, id="not to be had for money"),
    ],
)
def test_near(near_miss: NearMiss, missing: Missing | None, near: bool) -> None:
    assert is_near(near_miss, missing) is near


FREE = PercentOff(Fraction(1))
MENU = SetDeal((SetPart(Selector(), 1), SetPart(Selector(), 1)), FREE)


@pytest.mark.parametrize(
    ("deal", "units", "missing"),
    [
        pytest.param(UnitDeal(3, 1, FREE), 2, Missing(quantity=1), id="one more and the third is free"),
        pytest.param(UnitDeal(3, 1, FREE), 0, None, id="none in the basket"),
        pytest.param(UnitDeal(3, 1, FREE, most_deals=1), 3, None, id="no more deals"),
        pytest.param(MENU, 1, Missing(quantity=1), id="the other half of a menu"),
        pytest.param(Gift(Selector(), per_units=3), 5, Missing(quantity=1), id="the gift that was earned"),
        pytest.param(Gift(Selector()), 4, Missing(quantity=1), id="a gift that was not taken"),
    ],
)
def test_missing_for_a_deal(deal: UnitDeal | SetDeal | Gift, units: int, missing: Missing | None) -> None:
    lines = [LineUnits(0, 100 * units, units)] if units else []
    assert missing_for_deal(deal, lines, [{0}, set()]) == missing


@pytest.mark.parametrize(
    ("what", "reached", "missing"),
    [
        pytest.param("amount", 500, Missing(500), id="to the first step"),
        pytest.param("amount", 1000, Missing(1000), id="to the second"),
        pytest.param("quantity", 1999, Missing(quantity=1), id="in units"),
        pytest.param("amount", 2000, None, id="the last is reached"),
        pytest.param("weight", 500, None, id="weight is not said"),
    ],
)
def test_missing_for_steps(what: str, reached: int, missing: Missing | None) -> None:
    assert missing_for_steps(Steps(what, (Step(2000, AmountOff(2)), Step(1000, AmountOff(1)))), reached) == missing


# --- what always holds ------------------------------------------------------------------------------------


@given(st.text(alphabet="{}ab points%$.!:[]0"), st.text(alphabet="{}points"))
def test_a_text_never_fails_and_shows_values_only(text: str, value: str) -> None:
    written = render(text, {"points": value})
    assert written == value.join(text.split("{points}"))
