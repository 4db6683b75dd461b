"""Warnings: what a file may say and its author probably did not mean, each at its place in the file."""

from __future__ import annotations

from datetime import date

import pytest

from server.promotions import Programme, load_programme
from server.rules.advice import warnings_of
from server.rules.names import Names, names_in

TODAY = date(2026, 11, 22)
HEAD = """\
programme: demo
name: Demo
effective_from: 2026-06-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1}
earning: {base_percent: 1}
"""
TEN = "line_discount: {percent: 10}"


def warnings(body: str, unknown: tuple[str, ...] = ()) -> list[str]:
    text = HEAD + body
    programme = load_programme(text, "p.yaml")
    assert isinstance(programme, Programme), programme
    return [str(one) for one in warnings_of(programme, text, "p.yaml", TODAY, {(Names.SKU, sku) for sku in unknown})]


def promotion(fields: str, name: str = "a") -> str:
    return f"  - {{id: {name}, name: A, {fields}}}\n"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param(f"valid: {{until: 2026-05-31}}, {TEN}", "it never applies", id="over before it begins"),
        pytest.param(f"valid: {{until: 2026-10-01}}, {TEN}", "ended on 2026-10-01", id="over by now"),
        pytest.param(f"group: alone, {TEN}", "group `alone` has this one member", id="a group of one"),
        pytest.param(
            f"limits: [{{at_most: 5, for: receipt}}, {{at_most: 3, for: member, each: day}}], {TEN}",
            "5 for a receipt can never be reached: its limit is 3 for a member each day",
            id="a limit above a wider one",
        ),
    ],
)
def test_a_promotion_that_is_probably_not_meant(fields: str, said: str) -> None:
    (warning,) = warnings("promotions:\n" + promotion(fields))
    assert said in warning
    assert warning.startswith("p.yaml:8:"), "the promotion's line"
    assert "promotions[0]" in warning


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(TEN, id="plain"),
        pytest.param(f"valid: {{from: 2026-11-01, until: 2026-11-30}}, {TEN}", id="in its time"),
        pytest.param(
            f"limits: [{{at_most: 1, for: receipt}}, {{at_most: 3, for: member, each: day}}], {TEN}", id="limits"
        ),
        pytest.param(
            f"limits: [{{at_most: 9, for: member, each: month}}, {{at_most: 3, for: member, each: day}}], {TEN}",
            id="limits of two periods",
        ),
    ],
)
def test_a_promotion_that_is_fine(fields: str) -> None:
    assert warnings("promotions:\n" + promotion(fields)) == []


def test_a_group_with_a_rival_is_fine() -> None:
    assert warnings("promotions:\n" + promotion(f"group: g, {TEN}") + promotion(f"group: g, {TEN}", "b")) == []


def test_campaigns() -> None:
    campaign = "campaigns: [{id: spring, name: Spring, limits: [{at_most: 100, of: money, for: all}]}]\npromotions:\n"
    (unused,) = warnings(campaign + promotion(TEN))
    assert "no promotion names campaign `spring`" in unused
    above = promotion(f"campaign: spring, limits: [{{at_most: 200, of: money, for: member}}], {TEN}")
    (warning,) = warnings(campaign + above)
    assert "its campaign's limit" in warning


def test_goods_that_the_catalogue_does_not_have() -> None:
    body = "promotions:\n" + promotion(f"scope: {{skus: ['1', '2', '3']}}, {TEN}")
    assert warnings(body) == []
    (warning,) = warnings(body, ("2",))
    assert "the catalogue does not have 2 (" in warning
    programme = load_programme(HEAD + body)
    assert isinstance(programme, Programme)
    assert [(one.kind, one.name) for one in names_in(programme)] == [(Names.SKU, sku) for sku in "123"]
