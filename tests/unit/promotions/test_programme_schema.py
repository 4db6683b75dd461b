"""The published JSON Schema: up to date, describes every field, and agrees with the loader on the examples."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import server.promotions
from server.promotions import Programme, json_schema, json_schema_text, load_programme

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((Path(server.promotions.__file__).parent / "examples").glob("*.yaml"))
SCHEMA = json_schema()

TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
IGNORED = {"description", "default", "$schema", "$defs", "title", "format"}
"""Keywords that decide nothing."""


def _numbers(rule: str, limit: Any, value: Any) -> bool:
    if not TYPES["number"](value):
        return True
    kept: dict[str, bool] = {
        "minimum": value >= limit,
        "maximum": value <= limit,
        "exclusiveMinimum": value > limit,
    }
    return kept[rule]


def faults(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """What an editor would underline: the part of JSON Schema's draft 7 that ours is written in."""
    for rule, wanted in schema.items():
        if rule in IGNORED:
            continue
        if rule == "$ref":
            yield from faults(value, SCHEMA["$defs"][wanted.removeprefix("#/$defs/")], at)
        elif rule == "anyOf":
            if all(list(faults(value, choice, at)) for choice in wanted):
                yield f"{at}: fits none of the choices"
        elif not _fits(rule, wanted, value):
            yield f"{at}: {value!r:.60} against {rule} {wanted!r:.60}"
    if isinstance(value, dict):
        yield from _faults_of_fields(value, schema, at)
    if isinstance(value, list) and "items" in schema:
        for number, entry in enumerate(value):
            yield from faults(entry, schema["items"], f"{at}[{number}]")


def _fits(rule: str, wanted: Any, value: Any) -> bool:
    checks: dict[str, Callable[[], bool]] = {
        "type": lambda: any(TYPES[kind](value) for kind in ([wanted] if isinstance(wanted, str) else wanted)),
        "enum": lambda: value in wanted,
        "const": lambda: bool(value == wanted),
        "pattern": lambda: not isinstance(value, str) or re.search(wanted, value) is not None,
        "minLength": lambda: not isinstance(value, str) or len(value) >= wanted,
        "maxLength": lambda: not isinstance(value, str) or len(value) <= wanted,
        "minItems": lambda: not isinstance(value, list) or len(value) >= wanted,
        "maxItems": lambda: not isinstance(value, list) or len(value) <= wanted,
        "minProperties": lambda: not isinstance(value, dict) or len(value) >= wanted,
        "maxProperties": lambda: not isinstance(value, dict) or len(value) <= wanted,
        "required": lambda: not isinstance(value, dict) or set(wanted) <= set(value),
        "propertyNames": lambda: not isinstance(value, dict) or not any(list(faults(name, wanted)) for name in value),
        "properties": lambda: True,
        "additionalProperties": lambda: True,
        "items": lambda: True,
    }
    if rule in {"minimum", "maximum", "exclusiveMinimum"}:
        return _numbers(rule, wanted, value)
    return checks[rule]()


def _faults_of_fields(value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in known:
            yield from faults(inner, known[name], f"{at}.{name}")
        elif others is False:
            yield f"{at}.{name}: unknown"
        elif isinstance(others, dict):
            yield from faults(inner, others, f"{at}.{name}")


def as_editors_read(text: str) -> Any:
    """YAML with its own types; dates as text, as JSON has none."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return value.isoformat() if isinstance(value, date) else value

    return plain(YAML(typ="safe", pure=True).load(io.StringIO(text)))


def test_the_published_schema_is_the_loaders() -> None:
    published = (ROOT / "docs" / "programme.schema.json").read_text()
    assert published == json_schema_text(), "run: python -m server.promotions.schema > docs/programme.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_what_the_schema_says(path: Path) -> None:
    assert list(faults(as_editors_read(path.read_text()), SCHEMA)) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        pytest.param(("currency",), "hryvnia", id="a pattern"),
        pytest.param(("currency",), None, id="a type"),
        pytest.param(("spending", "max_share_percent"), 101, id="a maximum"),
        pytest.param(("spending", "max_share_percent"), "1 %", id="a number as text"),
        pytest.param(("earning", "rounding"), "sideways", id="one of several words"),
        pytest.param(("earning", "rouding"), "up", id="a misspelt field"),
        pytest.param(("promotions", 0, "valid", "from"), "tomorrow", id="a date"),
        pytest.param(("promotions", 0, "messages", "casher"), "x", id="an audience"),
        pytest.param(("promotions", 0, "messages", "cashier"), {"English": "x"}, id="a language"),
        pytest.param(("promotions", 0, "scope", "skus"), [], id="an empty list"),
        pytest.param(("promotions", 0, "when"), {"time": {"from": "25:00"}}, id="a time of day"),
        pytest.param(("returns", "expired_lots"), "sometimes", id="a word or a section"),
    ],
)
def test_the_schema_and_the_loader_refuse(where: tuple[str | int, ...], value: object) -> None:
    whole = as_editors_read(EXAMPLES[-1].with_name("showcase.yaml").read_text())
    changed = copy.deepcopy(whole)
    inner = changed
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    assert list(faults(changed, SCHEMA))
    assert isinstance(load_programme(json.dumps(changed)), list)


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "programme", schema
    yield from ((name, inner) for name, inner in schema["$defs"].items() if "properties" in inner)


@pytest.mark.parametrize(("name", "section"), list(_sections(SCHEMA)), ids=[name for name, _ in _sections(SCHEMA)])
def test_every_field_says_what_it_is_for(name: str, section: dict[str, Any]) -> None:
    assert section["description"]
    silent = [
        field for field, inner in section["properties"].items() if not (inner.get("description") or "$ref" in inner)
    ]
    assert silent == [], f"fields of {name} without a word"


def _used(value: Any, schema: dict[str, Any], used: set[tuple[str, str]], name: str = "programme") -> None:
    """Note which fields of which section a file uses."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = SCHEMA["$defs"][name]
    for choice in schema.get("anyOf", ()):
        _used(value, choice, used, name)
    if isinstance(value, list) and "items" in schema:
        for entry in value:
            _used(entry, schema["items"], used, name)
    if isinstance(value, dict):
        for field, inner in value.items():
            if field in schema.get("properties", {}):
                used.add((name, field))
                _used(inner, schema["properties"][field], used, name)


GOODS = frozenset(SCHEMA["$defs"]["ScopeSection"]["properties"])
"""Goods are named in the same words wherever they are named."""
INSTEAD = {("WindowSection", "each")}
"""What can't stand beside something else that the showcase has."""


def _in_one_place(fields: set[tuple[str, str]]) -> set[tuple[str, str]]:
    same = {"TierPointsSection": "PointsSection"}
    return {("goods" if field in GOODS else same.get(name, name), field) for name, field in fields}


def test_the_showcase_shows_every_field() -> None:
    used: set[tuple[str, str]] = set()
    _used(as_editors_read(EXAMPLES[-1].with_name("showcase.yaml").read_text()), SCHEMA, used)
    every = {(name, field) for name, section in _sections(SCHEMA) for field in section["properties"]}
    assert sorted(_in_one_place(every) - _in_one_place(used) - INSTEAD) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_guide_names_every_field_of_the_examples(path: Path) -> None:
    guide = (ROOT / "docs" / "programme.md").read_text()
    used: set[tuple[str, str]] = set()
    _used(as_editors_read(path.read_text()), SCHEMA, used)
    assert [field for _, field in sorted(used) if not re.search(rf"`{field}[`:]|{field}:", guide)] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads(path: Path) -> None:
    loaded = load_programme(path.read_bytes(), str(path))
    assert isinstance(loaded, Programme), "\n".join(map(str, loaded))
    assert loaded.code == path.stem
