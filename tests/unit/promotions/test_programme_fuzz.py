"""Any text and any data: errors that say where, what and what to do, or a programme that works. Never a crash."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import server.promotions
from server.promotions import (
    MemberFacts,
    Programme,
    ProgrammeError,
    ReceiptFacts,
    ReceiptLine,
    compile_rules,
    json_schema,
    load_programme,
    load_programme_struct,
    quote,
)
from server.promotions.facts import CouponFact, TenderFact
from server.promotions.kinds import TenderKind, TerminalKind
from server.promotions.load.plain_data import MAX_VALUES
from server.promotions.yaml_text import MAX_BYTES
from tests.unit.promotions.builders import HEAD, POINT

EXAMPLES = sorted((Path(server.promotions.__file__).parent / "examples").glob("*.yaml"))
SHOWCASE = next(path for path in EXAMPLES if path.stem == "showcase").read_text()
SCHEMA = json_schema()
LINES = [
    ReceiptLine(1, "a", "dairy/milk", "Own", "farm", ("local",), 3000, 90_00),
    ReceiptLine(2, "b", "bakery", "", "", (), 1500, 12_34, 5_00, is_weighed=True),
]
RECEIPT = ReceiptFacts(
    "store-1",
    datetime.combine(date(2026, 3, 2), time(12), ZoneInfo("Europe/Kyiv")),
    LINES,
    frozenset({"city"}),
    "app",
    TerminalKind.LANE,
    (TenderFact(TenderKind.CARD, 102_34, "516875"),),
    (CouponFact("A"), CouponFact("S-1", "a")),
)
MEMBER = MemberFacts("m-1", date(1990, 3, 2), registered_on=date(2026, 1, 1), segments=frozenset({"a"}))


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def works_or_is_explained(loaded: Programme | list[ProgrammeError]) -> bool:
    """Say whether a programme prices a receipt, or errors say where, what and what to do."""
    if isinstance(loaded, Programme):
        effects = quote(compile_rules(loaded, 1), RECEIPT, MEMBER)
        return 0 <= effects.discount_minor <= sum(line.list_amount_minor for line in LINES)
    return bool(loaded) and all(e.line >= 1 and e.column >= 1 and e.message and e.hint for e in loaded)


# --- text -------------------------------------------------------------------------------------------------

_yamlish = st.text(st.sampled_from("ab:-[]{}?!&*#|>'\"%@, \n\t0129.~\\é"), max_size=60)


@FUZZ
@given(st.text(max_size=80) | _yamlish | _yamlish.map(lambda tail: HEAD + POINT + tail) | st.binary(max_size=60))
def test_random_text(text: str | bytes) -> None:
    assert works_or_is_explained(load_programme(text))


PIECES = re.split(r"(?<=\n)(?=  - |\w)", SHOWCASE)
"""The showcase by sections and promotions, small enough to be read a hundred times."""


@settings(FUZZ, max_examples=60)
@given(st.sampled_from(PIECES), st.data())
def test_mutated_files(piece: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(piece)))
    length = data.draw(st.integers(0, 40))
    mutated = piece[:start] + data.draw(_yamlish) + piece[start + length :]
    promotions = "promotions:\n" if mutated.startswith(" ") else ""
    assert works_or_is_explained(load_programme(HEAD + POINT + promotions + mutated))


WORDS = sorted(set(re.findall(r"[\w.-]+", SHOWCASE)))


@settings(FUZZ, max_examples=60)
@given(st.sampled_from(PIECES), st.data())
def test_swapped_words(piece: str, data: st.DataObject) -> None:
    found = list(re.finditer(r"[\w.-]+", piece))
    if not found:
        return
    old = data.draw(st.sampled_from(found))
    mutated = piece[: old.start()] + data.draw(st.sampled_from(WORDS)) + piece[old.end() :]
    promotions = "promotions:\n" if mutated.startswith(" ") else ""
    assert works_or_is_explained(load_programme(HEAD + POINT + promotions + mutated))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('name: "\\ud800"', "half a character", id="half a character"),
        pytest.param("", "the file has to be a mapping of fields", id="nothing"),
        pytest.param("# only a comment", "the file has to be a mapping of fields", id="a comment"),
        pytest.param(b"name: \xff", "not UTF-8 text", id="not UTF-8"),
        pytest.param("name: \x00", "not readable as YAML", id="a zero byte"),
        pytest.param('name: "\\0"', "has a character that can't be printed (U+0000)", id="an escaped zero"),
        pytest.param('name: "a\\u2028b"', "has a character that can't be printed (U+2028)", id="an odd line end"),
        pytest.param("a: " + "[" * 100_000, "nested deeper than", id="deep lists"),
        pytest.param("a: " + "{a: " * 100_000, "nested deeper than", id="deep mappings"),
        pytest.param('{"a": ' * 100_000, "nested deeper than", id="deep JSON"),
        pytest.param(
            "a:\n" + "".join(" " * 2 * n + "- a:\n" for n in range(200)), "nested deeper than", id="deep block"
        ),
        pytest.param(" " * (MAX_BYTES + 1), "the file has more than", id="too big"),
        pytest.param("é" * (MAX_BYTES // 2 + 1), "the file has more than", id="too big in bytes"),
        pytest.param('{"a": "' + "é" * (MAX_BYTES // 2) + '"}', "the file has more than", id="too big as JSON"),
        pytest.param("a: &a [*a, *a]", "anchors", id="a bomb"),
        pytest.param("a: &a x\nb: &b [*a, *a]\nc: [*b, *b]", "aliases", id="a bomb of aliases"),
        pytest.param("<<: {a: 1}", "`<<` is no field", id="a merge key"),
        pytest.param('a: "\\UFFFFFFFF"', "not readable as YAML", id="an impossible character"),
        pytest.param("%YAML 99999999999999.1\n---\na: 1", "", id="a wild directive"),
        pytest.param("a: !!python/object:os.system x", "tags", id="an object"),
        pytest.param("priority: " + "9" * 100_000, "`priority` is no field", id="a long number elsewhere"),
        pytest.param("control_percent: " + "9" * 100_000, "is no number like 10", id="a long number"),
        pytest.param("control_percent: 1e999999999", "is no number like 10", id="an exponent"),
        pytest.param("control_percent: ٣", "is no number like 10", id="other digits"),
        pytest.param("control_percent: .inf", "is no number like 10", id="infinity"),
        pytest.param('{"control_percent": NaN}', "is no number like 10", id="not a number"),
        pytest.param("\n".join(f"f{n}: 1" for n in range(5000)), "is no field known here", id="thousands of fields"),
        pytest.param(
            "exclusions: {no_earning: {skus: [" + "[]," * 5000 + "]}}", "is no text", id="thousands of faults"
        ),
    ],
)
def test_hostile_text(text: str | bytes, message: str) -> None:
    loaded = load_programme(text)
    assert isinstance(loaded, list)
    assert len(loaded) <= 500
    assert any(message in error.message for error in loaded)
    assert all(len(error.message) + len(error.hint) + len(error.field) < 1000 for error in loaded)


# --- data -------------------------------------------------------------------------------------------------

_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_CODES = st.sampled_from(["a", "b", "none", "p-1"])
_NUMBERS = st.sampled_from(["1", "2", "3", "5", "0.5", "10", "99.99", "1000", 4, 7.5])
_PATTERNED = {
    "date": st.dates(date(2025, 1, 1), date(2027, 12, 31)).map(str),
    "clock": st.sampled_from(["00:00", "09:30", "17:00", "24:00"]),
    "currency": st.sampled_from(["UAH", "JPY", "KWD"]),
    "language": st.sampled_from(["uk", "en"]),
    "digits": st.sampled_from(["5168", "4"]),
}
_KINDS = {
    "^[0-9]{4}-": "date",
    "^(([01][0-9]": "clock",
    "^([A-Z]{3})$": "currency",
    "^([a-z]{2,3}": "language",
    "^([0-9]{1,8})$": "digits",
}


def _scalar(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kinds = schema.get("type", "string")
    if "number" in kinds and "string" in kinds and "pattern" in schema and "[0-9]{1,15}" in schema["pattern"]:
        return _NUMBERS
    if "integer" in kinds and "minimum" in schema:
        least = int(schema["minimum"])
        return st.integers(least, min(least + 12, int(schema["maximum"]))) | st.just(schema["maximum"])
    for beginning, kind in _KINDS.items():
        if schema.get("pattern", "").startswith(beginning):
            return _PATTERNED[kind]
    return _CODES | st.just("{missing} {name}") if schema.get("maxLength") == 1000 else _CODES


def _fitting(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a schema by themselves, or seldom junk."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema:
        return st.one_of(*(_fitting(choice, depth) for choice in schema["anyOf"]))
    if schema.get("type") == "array":
        items = st.deferred(lambda: _fitting(schema["items"], depth + 1))
        return st.lists(items, min_size=1, max_size=2)
    if schema.get("type") == "object":
        return st.deferred(lambda: _object(schema, depth))
    return _scalar(schema)


DEEP = 6
UNLUCKY = 57
ALTERNATIVES = {
    *("percent", "amount", "fixed_price", "prices", "price", "multiplier", "fixed", "per_amount", "points"),
    *(
        "line_discount",
        "basket_discount",
        "units",
        "set",
        "gift",
        "steps",
        "tier_points",
        "issue_coupon",
        "draw",
        "club",
    ),
    *("skus", "categories", "brands", "suppliers", "tags", "quantity", "weight", "number", "every"),
}
"""Fields of which one is wanted wherever several are known; most files with two or none have a fault."""


@st.composite
def _object(draw: st.DrawFn, schema: dict[str, Any], depth: int) -> dict[str, Any]:
    fields = schema.get("properties", {})
    if not fields:
        names = schema.get("propertyNames", {})
        keys = _fitting(names) if "pattern" in names or "$ref" in names else _CODES
        return draw(st.dictionaries(keys, _fitting(schema["additionalProperties"], depth + 1), min_size=1, max_size=2))
    required = schema.get("required", [])
    nested = {"all", "any", "not"} if depth > DEEP else set()
    alternatives = sorted(ALTERNATIVES & set(fields) - set(required))
    optional = sorted(set(fields) - set(required) - set(alternatives) - nested)
    chosen = [*required, *draw(st.lists(st.sampled_from(optional), max_size=2) if optional else st.just([]))]
    if alternatives:
        chosen.append(draw(st.sampled_from(alternatives)))
    if "when" in optional and draw(st.booleans()):
        chosen.append("when")
    if len(chosen) == 0:
        chosen.append(draw(st.sampled_from(optional)))
    made = {name: draw(_fitting(fields[name], depth + 1)) for name in chosen}
    if draw(st.integers(0, 99)) == UNLUCKY:
        made[draw(st.sampled_from([*fields, "junk"]))] = draw(_junk)
    return made


_PROMOTION = _fitting(SCHEMA["$defs"]["PromotionSection"])
_SETTINGS = _fitting(
    {"type": "object", "properties": {k: v for k, v in SCHEMA["properties"].items() if k != "promotions"}}
)
_DEFINED = {
    "programme": "x",
    "name": "X",
    "effective_from": "2026-01-01",
    "currency": "UAH",
    "language": "uk",
    "point": {"unit": "bonus", "pays": 1},
    "units": [{"unit": "a", "name": "A", "pays": 1}],
    "partners": [{"code": "a", "name": "A"}],
    "campaigns": [{"id": "a", "name": "A"}],
    "tiers": {
        "by": "visits",
        "levels": [{"code": "a", "name": "A", "at_least": 0}, {"code": "b", "name": "B", "at_least": 2}],
    },
}
_CLUB = {"id": "sold", "name": "Sold", "club": {"name": "a", "days": 30}}


@settings(FUZZ, max_examples=120)
@given(_PROMOTION)
def test_promotions_of_any_shape(promotion: dict[str, Any]) -> None:
    assert works_or_is_explained(load_programme_struct({**_DEFINED, "promotions": [promotion, _CLUB]}))


@settings(FUZZ, max_examples=50)
@given(_SETTINGS, st.lists(_PROMOTION, max_size=2))
def test_files_of_any_shape(sections: dict[str, Any], promotions: list[Any]) -> None:
    whole = {**_DEFINED, **sections, "promotions": promotions}
    of_data = load_programme_struct(whole)
    assert works_or_is_explained(of_data)
    of_text = load_programme(json.dumps(whole))
    if isinstance(of_data, Programme):
        assert of_text == of_data
    else:
        assert isinstance(of_text, list)


@settings(FUZZ, max_examples=50)
@given(st.dictionaries(st.sampled_from([*SCHEMA["properties"], "junk"]), _junk))
def test_junk_in_any_field(sections: dict[str, object]) -> None:
    assert works_or_is_explained(load_programme(json.dumps({**_DEFINED, **sections})))
    assert works_or_is_explained(load_programme_struct({**_DEFINED, **sections}))


# --- the same as JSON and protobuf ------------------------------------------------------------------------


def _as_data(text: str) -> Any:
    from tests.unit.promotions.test_programme_schema import as_editors_read

    return as_editors_read(text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_programme_is_the_same_as_yaml_json_and_protobuf(path: Path) -> None:
    of_yaml = load_programme(path.read_bytes())
    data = _as_data(path.read_text())
    struct = Struct()
    struct.update(data)
    assert isinstance(of_yaml, Programme)
    assert load_programme(json.dumps(data)) == of_yaml
    assert load_programme(json.dumps(data, indent="\t", ensure_ascii=False).encode()) == of_yaml
    assert load_programme_struct(data) == of_yaml
    assert load_programme_struct(struct) == of_yaml


def test_json_errors_have_lines() -> None:
    text = '{\n\t"programme": "x",\n\t"name": "X",\n\t"earning": {"base_precent": 1}\n}'
    loaded = load_programme(text, "p.json")
    assert isinstance(loaded, list)
    assert [str(error) for error in loaded if error.line > 1] == [
        "p.json:4:14: earning.base_precent: `base_precent` is no field known here (did you mean `base_percent`?)"
    ]


def test_a_key_that_stands_twice_in_json() -> None:
    loaded = load_programme('{"name": "X",\n "name": "Y"}')
    assert isinstance(loaded, list)
    assert (2, "`name` stands twice, first in line 1") in [(error.line, error.message) for error in loaded]


def test_errors_of_data_name_the_field() -> None:
    loaded = load_programme_struct({**_DEFINED, "control_percent": 101.5, "promotions": [{"id": "p"}]}, "request")
    assert isinstance(loaded, list)
    assert [str(error) for error in loaded] == [
        "request:1:1: control_percent: should be less than or equal to 100 (correct the value)",
        "request:1:1: promotions[0].name: is missing (add it)",
    ]


def test_a_tenth_is_a_tenth() -> None:
    loaded = load_programme_struct({**_DEFINED, "control_percent": 0.1})
    assert isinstance(loaded, Programme)
    assert loaded.control_share * 1000 == 1


class _Odd:
    """No value of a programme."""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param([], "the file has to be a mapping of fields", id="a list"),
        pytest.param({1: 2}, "the key 1 is no text", id="a key that is no text"),
        pytest.param({"name": _Odd()}, "_Odd is no value of a programme", id="an object"),
        pytest.param({"name": b"x"}, "bytes is no value of a programme", id="bytes"),
        pytest.param({"name": "\ud800"}, "has a character that can't be printed (U+D800)", id="half a character"),
        pytest.param({"control_percent": float("nan")}, "is no number like 10", id="not a number"),
        pytest.param({"control_percent": float("-inf")}, "is no number like 10", id="minus infinity"),
        pytest.param({"control_percent": 10**5000}, "is no number like 10", id="a number of 5,000 digits"),
        pytest.param({"control_percent": 1e300}, "is no number like 10", id="a big double"),
    ],
)
def test_odd_data(data: Any, message: str) -> None:
    loaded = load_programme_struct(data)
    assert isinstance(loaded, list)
    assert any(message in error.message for error in loaded)


def test_data_that_holds_itself() -> None:
    deep: list[Any] = []
    deep.append(deep)
    wide: list[Any] = []
    wide.extend([wide, wide])
    for value in (deep, wide):
        loaded = load_programme_struct({**_DEFINED, "promotions": value})
        assert isinstance(loaded, list)
        assert "nested deeper than" in loaded[0].message


def test_data_of_too_many_values() -> None:
    loaded = load_programme_struct({"promotions": [None] * (MAX_VALUES + 1)})
    assert isinstance(loaded, list)
    assert loaded[0].message == f"has more than {MAX_VALUES} values"
