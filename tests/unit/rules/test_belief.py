"""Warnings of what nobody would believe: rates, limits, and rewards that add up on one occasion."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.promotions import Programme, load_programme
from server.promotions.model import Promotion
from server.rules.advice import warnings_of
from server.rules.meeting import may_meet
from server.rules.names import Names, nobody_asks

TODAY = date(2026, 11, 22)


def loaded(promotions: str = "", base: str = "1", more: str = "") -> tuple[Programme, str]:
    text = (
        "programme: demo\nname: Demo\neffective_from: 2026-06-01\ncurrency: UAH\n"
        "point: {unit: bonus, precision: 2, pays: 0.10}\n"
        f"earning: {{base_percent: {base}}}\n{more}" + (f"promotions:\n{promotions}" if promotions else "")
    )
    programme = load_programme(text, "p.yaml")
    assert isinstance(programme, Programme), programme
    return programme, text


def said(
    promotions: str = "", base: str = "1", more: str = "", unknown: set[tuple[Names, str]] | None = None
) -> list[str]:
    programme, text = loaded(promotions, base, more)
    return [str(one) for one in warnings_of(programme, text, "p.yaml", TODAY, unknown or ())]


def one(fields: str, name: str = "a") -> str:
    return f"  - {{id: {name}, name: A, {fields}}}\n"


# --- rates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("line_discount: {percent: 90}", "takes 90 % off the price"),
        ("line_discount: {percent: 89.99}", None),
        ("basket_discount: {percent: 95}", "takes 95 % off the price"),
        ("units: {every: 3, percent: 100}", None),  # every third free
        ("points: {percent: 50}", None),
        ("points: {percent: 51}", "gives 51 % of what is paid back in points"),
        ("points: {multiplier: 20}", None),
        ("points: {multiplier: 100}", "multiplies points by 100: 100 % of what is paid"),
        ("points: {per_amount: {points: 6, step: 1.00}}", "gives 60 % of what is paid back in points"),
        ("points: {per_amount: {points: 4, step: 1.00}}", None),
        ("line_discount: {percent: 5}, limits: [{at_most: 10001, for: receipt}]", "as good as no limit"),
        ("line_discount: {percent: 5}, limits: [{at_most: 10000, for: member}]", None),
        (
            "line_discount: {percent: 5}, limits: [{at_most: 1000000.01, of: money, for: member}]",
            "money for a member is as good as no limit",
        ),
        ("line_discount: {percent: 5}, limits: [{at_most: 99999999, of: money, for: all}]", None),
        ("points: {percent: 5, pending_days: 367}", "points wait 367 days"),
        ("points: {percent: 5, expiry: {on: 2026-11-21}}", "points lapse on 2026-11-21, which is over"),
        ("points: {percent: 5, expiry: {on: 2026-11-22}}", None),
    ],
)
def test_a_promotion_beyond_belief(fields: str, words: str | None) -> None:
    found = said(one(fields))
    assert (found == []) if words is None else (len(found) == 1 and words in found[0]), found


@pytest.mark.parametrize(
    ("base", "more", "words"),
    [
        ("50", "", None),
        ("51", "", "earning.base_percent: gives 51 % of what is paid back in points"),
        ("1", "partners: [{code: p, name: P, base_percent: 75}]\n", "partners[0].base_percent: gives 75 %"),
    ],
)
def test_a_base_rate_beyond_belief(base: str, more: str, words: str | None) -> None:
    found = said(base=base, more=more)
    assert (found == []) if words is None else (len(found) == 1 and words in found[0]), found


# --- rewards that add up ------------------------------------------------------------------------------------------

BELOW_200 = "when: {receipt_total: {below: 200}}"
FORTY, THIRTY = "line_discount: {percent: 40}", "line_discount: {percent: 30}"


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        (FORTY, THIRTY, True),
        (FORTY, "basket_discount: {percent: 30}", True),
        (FORTY, "line_discount: {percent: 29}", False),
        (f"group: g, {FORTY}", f"group: g, {THIRTY}", False),
        (f"exclusive: true, {FORTY}", THIRTY, False),
        (f"scope: {{categories: [dairy]}}, {FORTY}", THIRTY, True),
        (f"scope: {{categories: [dairy]}}, {FORTY}", f"scope: {{categories: [dairy/cheese]}}, {THIRTY}", True),
        (f"scope: {{categories: [dairy]}}, {FORTY}", f"scope: {{categories: [bakery]}}, {THIRTY}", False),
        (f"scope: {{skus: ['1', '2']}}, {FORTY}", f"scope: {{skus: ['2', '3']}}, {THIRTY}", True),
        (f"scope: {{skus: ['1', '2']}}, {FORTY}", f"scope: {{skus: ['3']}}, {THIRTY}", False),
        (f"valid: {{until: 2026-11-30}}, {FORTY}", f"valid: {{from: 2026-11-30}}, {THIRTY}", True),
        (f"valid: {{until: 2026-11-30}}, {FORTY}", f"valid: {{from: 2026-12-01}}, {THIRTY}", False),
        (f"{BELOW_200}, {FORTY}", f"when: {{receipt_total: {{at_least: 200}}}}, {THIRTY}", False),
        (f"{BELOW_200}, {FORTY}", f"when: {{receipt_total: {{at_least: 100}}}}, {THIRTY}", True),
        (f"when: {{stores: [a, b]}}, {FORTY}", f"when: {{stores: [c]}}, {THIRTY}", False),
        (f"when: {{stores: [a, b]}}, {FORTY}", f"when: {{stores: [b]}}, {THIRTY}", True),
        (f"when: {{time: {{weekdays: [mon]}}}}, {FORTY}", f"when: {{time: {{weekdays: [tue]}}}}, {THIRTY}", False),
        (f"when: {{segments: [new]}}, {FORTY}", f"when: {{not: {{segments: [new]}}}}, {THIRTY}", False),
        (f"when: {{coupon: {{codes: [SPRING]}}}}, {FORTY}", THIRTY, True),
    ],
)  # fmt: skip
def test_discounts_that_add_up_on_one_occasion(first: str, second: str, meet: bool) -> None:
    found = said(one(first, "a") + one(second, "b"))
    assert bool(found) == meet, found
    assert not meet or "promotions[1].id: takes 70 % off the same goods together with `a`" in found[0]


def test_three_that_add_up_are_told_of_once() -> None:
    (found,) = said("".join(one("line_discount: {percent: 25}", name) for name in "abc"))
    assert "takes 75 % off the same goods together with `a`, `b`" in found


def test_points_that_add_up_on_one_occasion() -> None:
    (found,) = said(one("points: {percent: 30}", "a") + one("points: {multiplier: 11}", "b"), base="2")
    assert "gives 52 % of what is paid back in points together with `a`" in found
    (found,) = said(one("points: {multiplier: 11}", "a") + one("points: {multiplier: 11}", "b"), base="0.1")
    assert "multiplies points by 21 together with `a`" in found


def test_many_promotions_are_looked_through_at_once() -> None:
    """Hundreds of promotions, each for goods of its own, and some for all: what meets is still found."""
    many = "".join(one(f"scope: {{skus: ['{number}']}}, {FORTY}", f"p{number}") for number in range(300))
    found = said(many + one(f"scope: {{skus: ['7']}}, {THIRTY}", "last"))
    assert [text.split(": ", 2)[1] for text in found] == ["promotions[300].id"], found


SCOPES = st.sampled_from(["", "scope: {categories: [dairy]}, ", "scope: {skus: ['1']}, "])
WHENS = st.sampled_from(
    [
        "",
        "when: {stores: [a]}, ",
        "when: {time: {weekdays: [mon, tue]}}, ",
        "when: {not: {stores: [a]}}, ",
        "group: g, ",
    ]
)


@given(SCOPES, WHENS, SCOPES, WHENS)
def test_meeting_does_not_depend_on_who_is_asked(scope: str, when: str, other_scope: str, other_when: str) -> None:
    def of(fields: str) -> Promotion:
        return loaded(one(f"{fields}{FORTY}"))[0].promotions[0]

    first, second = of(scope + when), of(other_scope + other_when)
    assert may_meet(first, second) == may_meet(second, first)


# --- names --------------------------------------------------------------------------------------------------------

FIVE = "line_discount: {percent: 5}"
ASKING = (
    one(f"when: {{coupon: {{series: [spring]}}}}, {FIVE}", "a")
    + one(f"when: {{offer: true}}, {FIVE}", "mine")
    + one(f"when: {{segments: [sleeping]}}, {FIVE}", "c")
    + one(f"when: {{all: [{{stores: [kyiv-1]}}, {{store_groups: [big]}}]}}, {FIVE}", "d")
)


def test_names_that_nothing_knows() -> None:
    assert said(ASKING) == []
    unknown = {
        (Names.SERIES, "spring"),
        (Names.OFFER, "mine"),
        (Names.SEGMENT, "sleeping"),
        (Names.STORE, "kyiv-1"),
        (Names.GROUP, "big"),
    }
    texts = said(ASKING, unknown=unknown)
    for text, words in zip(
        texts,
        (
            "no coupon of series `spring` was loaded",
            "nobody was made the offer `mine`",
            "nobody is in segment `sleeping`",
            "no store is in group `big`",
            "there is no store `kyiv-1`",
        ),
        strict=True,
    ):
        assert words in text, texts


def test_a_series_that_a_promotion_gives_needs_no_loading() -> None:
    giving = one("issue_coupon: {series: spring, valid_days: 10}", "giver")
    assert said(ASKING + giving, unknown={(Names.SERIES, "spring")}) == []


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (Names.SERIES, "spring", None),
        (Names.SERIES, "sprin", "asks for series `sprin`; did you mean `spring`?"),
        (Names.SEGMENT, "sleeping", None),
        (Names.SEGMENT, "qqqq", "asks for segment `qqqq`"),
        (Names.OFFER, "mine", None),
        (Names.OFFER, "mines", "is called `mines`; did you mean `mine`?"),
        (Names.OFFER, "c", "promotion `c` asks for no offer"),
    ],
)
def test_what_is_loaded_and_nobody_asks_for(kind: Names, name: str, words: str | None) -> None:
    found = nobody_asks(kind, [name, name], [loaded(ASKING)[0]])
    assert (found == []) if words is None else (len(found) == 1 and words in found[0]), found
    assert nobody_asks(kind, [name], []) == [], "before the first programme nothing is said"
