"""Programme files: what is read, and what every fault is told with: line, field and hint."""

from __future__ import annotations

import json
import re
import textwrap
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

import server.promotions
from server.promotions import (
    Clawback,
    FloorRest,
    OfflineAction,
    Programme,
    ProgrammeError,
    json_schema,
    load_programme,
    load_programme_struct,
)
from server.promotions.criteria import AllOf, BirthdayWindow, ReceiptTotal
from server.promotions.kinds import Audience, Period, Rounding
from server.promotions.model import Expiry, FixedPrice, LotTerms, MessageText, Returns
from server.promotions.yaml_text import MAX_BYTES
from tests.unit.promotions.builders import HEAD, POINT, programme, promotions

EXAMPLES = Path(server.promotions.__file__).parent / "examples"


def errors(text: str | bytes) -> list[ProgrammeError]:
    """The errors of a text that has some."""
    loaded = load_programme(text, "p.yaml")
    assert isinstance(loaded, list), "expected errors"
    assert loaded
    return loaded


def said(body: str) -> list[str]:
    """`line:column field message (hint)` of a programme whose 6th line begins the body."""
    return [f"{e.line}:{e.column} {e.field} {e.message} ({e.hint})" for e in errors((HEAD + POINT).lstrip("\n") + body)]


@pytest.mark.parametrize("name", ["demo", "novus"])
def test_examples_load(name: str) -> None:
    loaded = load_programme((EXAMPLES / f"{name}.yaml").read_bytes())
    assert isinstance(loaded, Programme)
    assert loaded.code == name


_GUIDE = (Path(__file__).parents[3] / "docs" / "programme.md").read_text()
_SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", _GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("snippet", _SNIPPETS)
def test_the_guides_examples_load(snippet: str) -> None:
    if snippet.startswith("- id:"):
        snippet = "promotions:\n" + textwrap.indent(snippet, "  ")
    text = snippet if snippet.startswith("programme:") else HEAD + POINT + snippet
    assert isinstance(load_programme(text), Programme)


def test_the_novus_programme() -> None:
    loaded = load_programme((EXAMPLES / "novus.yaml").read_text())
    assert isinstance(loaded, Programme)
    assert loaded.effective_from == date(2026, 1, 1)
    assert loaded.point.money_per_points == 1
    assert loaded.earning.base_share == Fraction(1, 100)
    assert loaded.earning.rounding is Rounding.HALF_UP
    assert loaded.earning.terms == LotTerms(0, Expiry(after_months=12, round_up_to=Period.MONTH))
    assert loaded.offline.replaced_card is OfflineAction.BOOK_FOR_SUCCESSOR
    by_id = {promotion.id: promotion for promotion in loaded.promotions}
    assert by_id["birthday-points"].when == BirthdayWindow(7, 0)
    coffee = by_id["own-brand-coffee"]
    assert coffee.line_discount is not None
    assert coffee.line_discount.kind == FixedPrice(9990)
    assert (coffee.valid_from, coffee.valid_until) == (date(2026, 3, 1), date(2026, 3, 31))
    assert coffee.scope is not None
    assert coffee.scope.match_all
    assert coffee.scope.but_not is not None


def test_text_is_read_by_the_schema_not_by_yaml() -> None:
    loaded = programme(promotions('id: "10", name: no, scope: {skus: [007, 1e3]}, points: {percent: 0.10}'))
    (promotion,) = loaded.promotions
    assert (promotion.id, promotion.name) == ("10", "no")
    assert promotion.scope is not None
    assert promotion.scope.skus == {"007", "1e3"}


def test_characters_escaped_as_json_does() -> None:
    loaded = programme(promotions('id: p, name: "\\ud83c\\udf82", points: {percent: 1}'))
    assert loaded.promotions[0].name == "\N{BIRTHDAY CAKE}"


def test_conditions_and_messages() -> None:
    loaded = programme(
        promotions(
            "id: p, name: P, when: {receipt_total: {at_least: 10.50}, birthday: {days_after: 1}},"
            " line_discount: {percent: 5}, messages: {voice: v, cashier: c}"
        )
    )
    (promotion,) = loaded.promotions
    assert promotion.when == AllOf((ReceiptTotal(1050, None), BirthdayWindow(0, 1)))
    assert promotion.messages == (
        MessageText(Audience.CASHIER, {"": "c"}),
        MessageText(Audience.VOICE, {"": "v"}),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("", Returns(Clawback.DEBT, 0), id="by default: a debt, and lapsed points stay lapsed"),
        pytest.param("returns: {expired_lots: stay_expired}", Returns(Clawback.DEBT, 0), id="the default in words"),
        pytest.param("returns: {clawback: own_lot_only}", Returns(Clawback.OWN_LOT_ONLY, 0), id="own lot only"),
        pytest.param("returns: {expired_lots: {grace_days: 30}}", Returns(Clawback.DEBT, 30), id="30 days of grace"),
    ],
)
def test_what_becomes_of_points_of_returned_goods(body: str, expected: Returns) -> None:
    assert programme(body).returns == expected


@pytest.mark.parametrize(("body", "seconds"), [("", 600), ("spending: {hold_ttl_seconds: 90}", 90)])
def test_how_long_holds_last(body: str, seconds: int) -> None:
    assert programme(body).spending.hold_ttl_seconds == seconds


OFF = "line_discount: {percent: 5}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("earnings: {}", "6:1 earnings `earnings` is no field known here (did you mean `earning`?)"),
        pytest.param(
            "earning: {base_precent: 1}",
            "6:11 earning.base_precent `base_precent` is no field known here (did you mean `base_percent`?)",
        ),
        pytest.param(
            "earning: {base_percent: 1%}",
            "6:11 earning.base_percent `1%` is no number like 10 or 2.50 (digits, a point, up to 6 decimals)"
            " (correct the value)",
        ),
        pytest.param(
            "earning: {base_percent: -1}",
            "6:11 earning.base_percent `-1` is no number like 10 or 2.50 (digits, a point, up to 6 decimals)"
            " (correct the value)",
        ),
        pytest.param(
            "earning: {rounding: half-up}",
            "6:11 earning.rounding `half-up` is none of half_up, down, up (did you mean `half_up`?)",
        ),
        pytest.param(
            "earning: {earn_on_points_paid: maybe}",
            "6:11 earning.earn_on_points_paid `maybe` is neither true nor false (correct the value)",
        ),
        pytest.param(
            "earning: {expiry: {on: 2026-02-30}}",
            "6:20 earning.expiry.on `2026-02-30` is no day of the calendar (correct the value)",
        ),
        pytest.param(
            "earning: {expiry: {on: 2026-02-20, after_days: 1}}",
            "6:11 earning.expiry needs either `on`, or `after_months` / `after_days` (give one of them)",
        ),
        pytest.param(
            "earning: 5",
            "6:1 earning has to be a mapping of fields (write `field: value` lines below it: base_percent, base_group,"
            " rounding, rounding_per, earn_on_points_paid, pending_days, expiry)",
        ),
        pytest.param("name: Again", "6:1  `name` stands twice, first in line 2 (keep one of them)"),
        pytest.param(
            "offline: {blocked_member: drop}",
            "6:11 offline.blocked_member `drop` is none of book_without_member, book_for_member, refuse"
            " (use one of these)",
        ),
        pytest.param(
            "spending: {max_share_percent: 101}",
            "6:12 spending.max_share_percent should be less than or equal to 100 (correct the value)",
        ),
        pytest.param(
            "spending: {step_points: 0.005}",
            "6:12 spending.step_points 0.005 has more decimals than a point has (2) (use at most 2 decimals)",
        ),
        pytest.param(
            "spending: {hold_ttl_seconds: 5}",
            "6:12 spending.hold_ttl_seconds should be greater than or equal to 10 (correct the value)",
        ),
        pytest.param(
            "returns: {clawback: never}",
            "6:11 returns.clawback `never` is none of debt, within_balance, own_lot_only, off_the_refund "
            "(use one of these)",
        ),
        pytest.param(
            "returns: {expired_lots: 30}",
            "6:11 returns.expired_lots `30` is neither stay_expired nor {grace_days: N} (correct the value)",
        ),
        pytest.param(
            "returns: {expired_lots: {grace_days: 367}}",
            "6:26 returns.expired_lots.grace_days should be less than or equal to 366 (correct the value)",
        ),
        pytest.param(
            "exclusions: {no_earning: {}}",
            "6:14 exclusions.no_earning names no goods"
            " (leave it out, or give skus, categories, brands, suppliers or tags)",
        ),
        pytest.param("promotions: {}", "6:1 promotions has to be a list (write one `- item` a line below it)"),
        pytest.param("x: &a 1", "6:4  anchors (`&name`) are not supported (write the value out where it is used)"),
        pytest.param("x: !!int 1", "6:4  tags (`!name`) are not supported (remove the tag)"),
        pytest.param("---\nname: x", "6:1  a second document begins here (remove the line `---`)"),
        pytest.param("? [a]\n: b", "6:3  a mapping or list can't be a key (write a plain word)"),
        pytest.param(
            "name: [",
            "6:8  not readable as YAML: while parsing a flow node, expected the node content, but"
            " found '<stream end>' (check indentation, quotes and brackets)",
        ),
    ],
)
def test_faults_of_settings(body: str, expected: str) -> None:
    assert expected in said(body)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param("name: P, " + OFF, "7:5 promotions[0].id is missing (add it)"),
        pytest.param(
            "id: Big Sale, name: P, " + OFF,
            "7:6 promotions[0].id 'Big Sale' does not fit (write small letters, digits, . _ - (at most 64))",
        ),
        pytest.param("id: base, name: P, " + OFF, "7:6 promotions[0].id `base` is reserved (choose another id)"),
        pytest.param(
            "id: p, name: P",
            "7:5 promotions[0] has no effect (add line_discount, basket_discount, units, set,"
            " gift, steps, points, tier_points, issue_coupon, draw or club)",
        ),
        pytest.param(
            "id: p, name: P, line_discount: {percent: 5, amount: 1}",
            "7:22 promotions[0].line_discount has percent and amount"
            " (give exactly one of percent, amount, fixed_price, prices)",
        ),
        pytest.param(
            "id: p, name: P, basket_discount: {base: list}",
            "7:22 promotions[0].basket_discount says nothing (give exactly one of percent, amount)",
        ),
        pytest.param(
            "id: p, name: P, line_discount: {fixed_price: 5, base: list}",
            "7:54 promotions[0].line_discount.base a fixed price has no base (remove it)",
        ),
        pytest.param(
            "id: p, name: P, line_discount: {amount: 0.005}",
            "7:38 promotions[0].line_discount.amount 0.005 has more decimals than UAH has (2) (use at most 2 decimals)",
        ),
        pytest.param(
            "id: p, name: P, line_discount: {percent: 101}",
            "7:38 promotions[0].line_discount.percent should be less than or equal to 100 (correct the value)",
        ),
        pytest.param(
            "id: p, name: P, percent: 10, " + OFF,
            "7:22 promotions[0].percent `percent` is no field known here"
            " (it stands inside `line_discount` or `basket_discount` or `units`)",
        ),
        pytest.param(
            "id: p, name: P, when: {weekdays: [mon], birthday: {}}, " + OFF,
            "7:29 promotions[0].when.weekdays `weekdays` is no field known here (it stands inside `time`)",
        ),
        pytest.param(
            "id: p, name: P, when: {coupon: SALE}, " + OFF,
            "7:29 promotions[0].when.coupon has to be a mapping of fields"
            " (write `field: value` lines below it: series, codes)",
        ),
        pytest.param(
            "id: p, name: P, limits: {at_most: 1, for: all}, " + OFF,
            "7:22 promotions[0].limits has to be a list (write one `- item` a line below it)",
        ),
        pytest.param(
            "id: p, name: P, line_discount: {prices: 5}",
            "7:38 promotions[0].line_discount.prices has to be a mapping"
            " (write `name: value` lines below it, indented)",
        ),
        pytest.param(
            "id: p, name: P, points: {percent: 5, per: unit}",
            "7:43 promotions[0].points.per belongs to `fixed` (remove it)",
        ),
        pytest.param(
            "id: p, name: P, points: {fixed: 5, compound: true}",
            "7:41 promotions[0].points.compound only a multiplier compounds (remove it)",
        ),
        pytest.param(
            "id: p, name: P, points: {multiplier: 1}",
            "7:31 promotions[0].points.multiplier should be greater than 1 (correct the value)",
        ),
        pytest.param(
            "id: p, name: P, valid: {from: 2026-02-01, until: 2026-01-01}, " + OFF,
            "7:48 promotions[0].valid.until 2026-01-01 is before 2026-02-01 (swap the dates)",
        ),
        pytest.param(
            "id: p, name: P, valid: {from: tomorrow}, " + OFF,
            "7:30 promotions[0].valid.from `tomorrow` is no date like 2026-01-31 (correct the value)",
        ),
        pytest.param(
            "id: p, name: P, scope: {skus: [a], brands: [b]}, " + OFF,
            "7:22 promotions[0].scope has skus and brands, but doesn't say how they combine"
            " (add `match: all` (every list has to fit) or `match: any`)",
        ),
        pytest.param(
            "id: p, name: P, scope: {skus: []}, " + OFF,
            "7:30 promotions[0].scope.skus is empty (name something, or leave the field out)",
        ),
        pytest.param(
            "id: p, name: P, scope: {categories: [a//b]}, " + OFF,
            "7:43 promotions[0].scope.categories[0] `a//b` is no category path like grocery/frozen (correct the value)",
        ),
        pytest.param(
            "id: p, name: P, when: {}, " + OFF,
            "7:22 promotions[0].when states no condition (leave it out, or give one)",
        ),
        pytest.param(
            "id: p, name: P, when: {any: [{birthdya: {}}]}, " + OFF,
            "7:36 promotions[0].when.any[0].birthdya `birthdya` is no field known here (did you mean `birthday`?)",
        ),
        pytest.param(
            "id: p, name: P, when: {receipt_total: {at_least: 5, below: 5}}, " + OFF,
            "7:58 promotions[0].when.receipt_total.below is not above at_least (nothing fits; correct one of them)",
        ),
        pytest.param(
            "id: p, name: P, when: {receipt_total: {}}, " + OFF,
            "7:29 promotions[0].when.receipt_total states no bound (give at_least or below)",
        ),
        pytest.param(
            "id: p, name: P, messages: {casier: x}, " + OFF,
            "7:33 promotions[0].messages.casier `casier` is none of cashier, shopper, receipt, voice"
            " (did you mean `cashier`?)",
        ),
        pytest.param(
            "id: p, name: P, group: g, points: {percent: 1}, " + OFF,
            "7:22 promotions[0].group group `g` mixes line discounts (`p`) and points on lines (`p`)"
            " (a group chooses among promotions of one kind: split the group or the promotion)",
        ),
    ],
)
def test_faults_of_a_promotion(item: str, expected: str) -> None:
    assert said(promotions(item)) == [expected]


def test_a_promotion_id_stands_once() -> None:
    assert said(promotions("id: p, name: P, " + OFF, "id: p, name: Q, " + OFF)) == [
        "8:6 promotions[1].id promotion `p` is defined twice, first in line 7 (rename one of them)"
    ]


def test_a_multiplier_may_not_compete_with_the_base() -> None:
    body = "earning: {base_percent: 1, base_group: g}\n"
    assert said(body + promotions("id: p, name: P, group: g, points: {multiplier: 2}")) == [
        (
            "8:22 promotions[0].group a multiplier can't compete with the base percent it multiplies"
            " (take it out of the base percent's group)"
        )
    ]


def test_a_step_has_to_pay_whole_minor_units() -> None:
    head = HEAD.lstrip("\n") + "point: {unit: p, precision: 0, pays: 0.005}\nspending: {step_points: 3}\n"
    (error,) = errors(head)
    assert (error.line, error.field) == (6, "spending.step_points")
    assert error.hint == "use a multiple of 2, or leave it out"


def test_all_errors_come_at_once_in_file_order() -> None:
    found = said(
        "earning: {rounding: sideways}\nspending: {step_points: 0.001}\n"
        + promotions("id: p, name: P", "id: q, name: Q, line_discount: {percent: x}", "id: r, name: R, " + OFF)
        + "unknown: 1\nunknown: 2\n"
    )
    assert [entry.split()[0] for entry in found] == ["6:11", "7:12", "9:5", "10:38", "12:1", "13:1"]


def test_an_error_prints_like_a_compilers() -> None:
    (error,) = errors("[]")
    assert str(error) == "p.yaml:1:1: the file has to be a mapping of fields (begin with `programme: a-code`)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('name: "\\ud800"', "half a character", id="half a character"),
        pytest.param("", "the file has to be a mapping of fields", id="nothing"),
        pytest.param("# only a comment", "the file has to be a mapping of fields", id="a comment"),
        pytest.param(b"name: \xff", "not UTF-8 text", id="not UTF-8"),
        pytest.param("name: \x00", "not readable as YAML", id="a zero byte"),
        pytest.param("a: " + "[" * 100_000, "nested deeper than", id="deep nesting"),
        pytest.param("a: " + "{a: " * 100_000, "nested deeper than", id="deep mappings"),
        pytest.param(" " * (MAX_BYTES + 1), "the file has more than", id="too big"),
        pytest.param("é" * (MAX_BYTES // 2 + 1), "the file has more than", id="too big in bytes"),
        pytest.param("a: &a [*a, *a]", "anchors", id="a bomb"),
        pytest.param('a: "\\UFFFFFFFF"', "not readable as YAML", id="an impossible character"),
        pytest.param("%YAML 99999999999999.1\n---\na: 1", "", id="a wild directive"),
    ],
)
def test_hostile_text(text: str | bytes, message: str) -> None:
    assert any(message in error.message for error in errors(text))


def test_the_schema_is_json_and_knows_the_fields_by_their_names_in_the_file() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert {"programme", "point", "promotions"} <= set(schema["properties"])
    assert {"from", "until"} == set(schema["$defs"]["DatesSection"]["properties"])


@pytest.mark.parametrize(
    ("semantics", "rest"), [(0, FloorRest.LOST), (1, FloorRest.SPREAD)], ids=["published long ago", "published now"]
)
def test_what_the_file_leaves_out_means_what_it_meant_when_it_was_published(semantics: int, rest: FloorRest) -> None:
    head = {"programme": "shop", "name": "Shop", "effective_from": "2026-01-01", "currency": "UAH"}
    data = {**head, "point": {"unit": "bonus", "pays": 1}}
    loaded = [
        load_programme(json.dumps(data), semantics=semantics),
        load_programme_struct(data, semantics=semantics),
        load_programme(HEAD + POINT, semantics=semantics),
    ]
    assert [one.floor_rest for one in loaded if isinstance(one, Programme)] == [rest] * 3
