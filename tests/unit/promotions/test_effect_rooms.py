"""One room an effect: each has all of its effect, and nobody else names it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from server.promotions import MemberFacts, effects, quote
from server.promotions.effects.effect import EffectSection, FurtherEffect
from server.promotions.explain import Status, explain
from server.promotions.schema.sections import PromotionSection
from server.rules.effects import ROOMS
from tests.unit.promotions.builders import line, promotions, receipt, rules

PROMOTIONS = Path(inspect.getfile(effects)).parents[1]
SHARED = {"__init__", "effect"}
MODULES = sorted(path.stem for path in (PROMOTIONS / "effects").glob("*.py") if path.stem not in SHARED)

EXAMPLES = {
    "issue_coupon": "issue_coupon: {series: later}",
    "draw": "draw: {name: car}",
    "club": "club: {name: green, days: 30}",
}
"""Each effect as a file may have it."""


def room(name: str) -> ModuleType:
    return importlib.import_module(f"server.promotions.effects.{name}")


def of_base(module: ModuleType, base: type) -> list[Any]:
    """The classes of a base that a module defines itself."""
    found = [each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, base)]
    return [each for each in found if each.__module__ == module.__name__]


def test_the_list_has_every_room() -> None:
    assert sorted(kind.__module__.rpartition(".")[2] for kind in effects.KINDS) == MODULES
    assert list(effects.WORDS.values()) == [*effects.FurtherEffects.__dataclass_fields__], "one order in both classes"
    assert set(effects.WORDS) == set(EXAMPLES)
    assert PromotionSection.model_fields.keys() >= set(effects.WORDS.values())
    assert ROOMS.keys() <= set(effects.KINDS), "messages of an effect that there is not"


@pytest.mark.parametrize("name", MODULES)
def test_a_room_has_all_parts(name: str) -> None:
    module = room(name)
    (section,) = of_base(module, EffectSection)
    (effect,) = of_base(module, FurtherEffect)
    assert section.model_fields, "the file"
    assert section.checked is not EffectSection.checked, "its checks"
    assert not inspect.isabstract(effect), "its application, which compiled promotions hold"
    assert effect.gives.__module__ == module.__name__, "its record is plain data of its own"
    assert "promotion_id" in effect.gives._fields, "explain asks who gave"


@pytest.mark.parametrize("word", EXAMPLES)
def test_an_effect_goes_through_all_parts(word: str) -> None:
    compiled = rules(promotions(f"id: p, name: P, {EXAMPLES[word]}, limits: [{{of: count, for: member, at_most: 1}}]"))
    (effect,) = compiled.promotions[0].further()
    assert compiled.compiled(0).further == (effect,), "found once, when it is compiled"
    asked, member = receipt(line(1, 1000)), MemberFacts("m")
    given = quote(compiled, asked, member)
    (gave,) = given.gave
    assert (type(gave), gave.promotion_id) == (type(effect).gives, "p")
    counts = [*type(effect).counts([gave])]
    assert set(counts) <= set(given.counts)
    assert [one.effects for one in given.given] == [(effect,)], "what a return asks"
    assert explain(compiled, asked, member).promotions[0].status is Status.APPLIED


@pytest.mark.parametrize("word", EXAMPLES)
def test_nothing_is_said_to_have_applied_that_was_not_given(word: str) -> None:
    compiled = rules(promotions(f"id: p, name: P, {EXAMPLES[word]}"))
    free = receipt(line(1, 0))
    assert quote(compiled, free, None).gave == ()
    assert explain(compiled, free, None).promotions[0].status is not Status.APPLIED


# --- nobody else names an effect --------------------------------------------------------------------------

CONDITIONS = {"club", "coupon"}
"""Conditions on clubs and coupons have the same words."""

OTHERS_MAY_NAME = {
    "__init__.py": {"ClubJoin", "CouponIssue", "DrawEntry", "Drawn", "IssuedCoupon"},
    "facts.py": {"Drawn", "IssuedCoupon"},
    "conditions.py": {"club_key", *CONDITIONS},
    "load/conditions.py": CONDITIONS,
    "schema/conditions.py": CONDITIONS,
    "load/context.py": {"clubs_in"},
    "criteria.py": {"club"},
    "wording.py": CONDITIONS,
    "explain.py": {"coupon"},
    "load/together.py": {"coupon"},
}
"""What leaves the package, two names of old for what was given, and conditions."""


def names_in(source: str) -> Iterator[str]:
    """Attributes, fields, keywords, imports and whole texts of a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) | ast.alias(name=name) | ast.Constant(value=str(name)):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def named_elsewhere(place: str, source: str) -> set[str]:
    """What a module of promotions names that belongs into a room."""
    own = {
        name
        for module in map(room, MODULES)
        for name, each in vars(module).items()
        if getattr(each, "__module__", "") == module.__name__
    }
    own |= {*effects.WORDS, *effects.WORDS.values()}
    return {*names_in(source)} & own - OTHERS_MAY_NAME.get(place, set())


def test_no_other_module_names_an_effect() -> None:
    places = {path: path.relative_to(PROMOTIONS).as_posix() for path in PROMOTIONS.rglob("*.py")}
    found = {
        place: names
        for path, place in places.items()
        if not place.startswith("effects/") and (names := named_elsewhere(place, path.read_text(encoding="utf-8")))
    }
    assert not found, "that belongs into a room of server/promotions/effects"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        pytest.param("if promotion.draw is not None: pass", {"draw"}, id="a field"),
        pytest.param("from server.promotions.effects.club import club_key", {"club_key"}, id="an import"),
        pytest.param("EFFECTS = ('points', 'issue_coupon')", {"issue_coupon"}, id="a word of the file"),
        pytest.param("Promotion('p', club=None)", {"club"}, id="a keyword"),
        pytest.param("class Promotion:\n    draw: DrawEntry | None = None", {"draw"}, id="a field of a class"),
        pytest.param("promotion.points", set(), id="points"),
    ],
)
def test_names_are_found(source: str, names: set[str]) -> None:
    assert named_elsewhere("outcome.py", source) == names
