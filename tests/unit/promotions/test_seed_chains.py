"""The rules of four real chains, as their example files state them, by numbers on receipts.

Amounts are in minor units: 100_00 is 100.00. Points of Novus and the pharmacy have two decimals (1_00 is one point),
those of Vkus Mart none.
"""

from __future__ import annotations

from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

import server.promotions
from server.promotions import (
    Effects,
    MemberFacts,
    Programme,
    ReceiptFacts,
    ReceiptLine,
    Rules,
    compile_rules,
    load_programme,
    quote,
)
from server.promotions.counter_names import use_key, visit_key
from server.promotions.effects.club import club_key
from server.promotions.facts import CounterFact, CouponFact, Usage
from server.promotions.kinds import Period
from tests.unit.promotions.builders import discounts, points

EXAMPLES = Path(server.promotions.__file__).parent / "examples"
ZONE = ZoneInfo("Europe/Kyiv")
BIRTHDAY = date(1990, 6, 15)
MEMBER = MemberFacts("m-1", birthday=BIRTHDAY)
IN_CONTROL = MemberFacts("m-8")
"""A member of the control group of Novus' personal offers."""
NOBODY = None
COMMON_DAY = date(2026, 2, 2)


@cache
def rules_of(chain: str) -> Rules:
    """The rules of an example."""
    loaded = load_programme((EXAMPLES / f"{chain}.yaml").read_bytes(), chain)
    assert isinstance(loaded, Programme), "\n".join(map(str, loaded))
    return compile_rules(loaded, 1)


def goods(amount_minor: int, category: str = "grocery/dry", pieces: int = 1, **changes: Any) -> ReceiptLine:
    """A line of so many pieces that costs this in all."""
    plain = ReceiptLine(1, "sku", category, "acme", "", (), pieces * 1000, amount_minor)
    return plain._replace(**changes)


def effects_of(
    chain: str,
    lines: list[ReceiptLine],
    member: MemberFacts | None = MEMBER,
    day: date = COMMON_DAY,
    usage: Usage | None = None,
    spend: int | None = None,
    **facts: Any,
) -> Effects:
    """What a chain's rules make of a receipt at noon."""
    numbered = [entry._replace(line_number=number) for number, entry in enumerate(lines, start=1)]
    receipt = ReceiptFacts("store-1", datetime.combine(day, time(12), ZONE), numbered, **facts)
    return quote(rules_of(chain), receipt, member, spend, usage)


class Case(NamedTuple):
    """A receipt, and the discount and points that every line of it has to get."""

    lines: list[ReceiptLine]
    discounts: list[int]
    points: list[int]
    facts: dict[str, Any] = {}  # noqa: RUF012 - read only


def priced(chain: str, case: Case) -> tuple[list[int], list[int]]:
    """The discount and the points of every line, as the chain's rules give them."""
    found = effects_of(chain, case.lines, **case.facts)
    return discounts(found), points(found)


def on(month: int, day: int, **facts: Any) -> dict[str, Any]:
    return {"day": date(2026, month, day), **facts}


CAKE = "bakery/cakes"
COFFEE = goods(120_00, "grocery/coffee", brand="Novus")
SORRY = {"coupons": [CouponFact("S-1", "sorry")]}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case([goods(100_00), goods(20_158)], [0, 0], [1_00, 2_02]), id="1 % on everything"),
        pytest.param(Case([goods(100_00)], [0], [1_00], {"member": NOBODY}), id="1 % is told without a card"),
        pytest.param(Case([goods(100_00, tags=("tobacco",)), goods(50_00)], [0, 0], [0, 50]), id="nothing on tobacco"),
        pytest.param(
            Case([goods(100_00), goods(200_00, CAKE)], [0, 20_00], [5_00, 9_00], on(6, 8)),
            id="seven days before the birthday: five-fold, cakes 10 % off",
        ),
        pytest.param(
            Case([goods(100_00), goods(200_00, CAKE)], [0, 20_00], [5_00, 9_00], on(6, 15)), id="on the birthday"
        ),
        pytest.param(Case([goods(200_00, CAKE)], [0], [2_00], on(6, 7)), id="eight days before: as always"),
        pytest.param(Case([goods(200_00, CAKE)], [0], [2_00], on(6, 16)), id="the day after: as always"),
        pytest.param(
            Case([goods(200_00, CAKE)], [0], [2_00], on(6, 15, member=NOBODY)),
            id="nobody has a birthday without a card",
        ),
        pytest.param(Case([COFFEE], [20_10], [1_00], on(3, 31)), id="coffee at 99.90 in March"),
        pytest.param(Case([COFFEE._replace(tags=("clearance",))], [0], [1_20], on(3, 31)), id="not on clearance"),
        pytest.param(Case([COFFEE], [0], [1_20], on(4, 1)), id="not in April"),
        pytest.param(
            Case([goods(600_00), goods(400_00)], [30_00, 20_00], [5_70 + 12_00, 3_80 + 8_00], on(3, 2)),
            id="50.00 off 1,000.00 in spring, and 20 bonus on the basket",
        ),
        pytest.param(Case([goods(499_99)], [0], [5_00]), id="no welcome below 500.00"),
        pytest.param(Case([goods(500_00)], [0], [5_00 + 20_00]), id="welcome from 500.00 on"),
        pytest.param(
            Case([goods(200_00), goods(200_00), goods(80_00)], [41_67, 41_66, 16_67], [1_58, 1_58, 63], SORRY),
            id="the hotline's coupon is spread over the receipt",
        ),
        pytest.param(
            Case([goods(80_00), goods(90_00, tags=("tobacco",))], [80_00, 0], [0, 0], SORRY),
            id="the coupon takes off no more than there is",
        ),
    ],
)
def test_novus(case: Case) -> None:
    assert priced("novus", case) == (case.discounts, case.points)


YOURS = MEMBER._replace(offers=frozenset({"your-dairy", "your-fruit"}))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            Case(
                [goods(100_00, "dairy/milk"), goods(100_00, "produce/fruit")],
                [15_00, 0],
                [85, 10_00],
                {"member": YOURS},
            ),
            id="who has the offers gets them",
        ),
        pytest.param(Case([goods(100_00, "dairy/milk")], [0], [1_00]), id="who has none gets nothing"),
        pytest.param(
            Case(
                [goods(100_00, "dairy/milk")],
                [0],
                [1_00],
                {"member": IN_CONTROL._replace(offers=frozenset({"your-dairy"}))},
            ),
            id="who is in the control group gets nothing",
        ),
        pytest.param(
            Case(
                [goods(100_00, "dairy/milk", 5)],
                [6_00],
                [94],
                {
                    "member": YOURS,
                    "usage": Usage({use_key("@personal", Period.WEEK, COMMON_DAY): CounterFact(times=3)}),
                },
            ),
            id="five uses a week: of five pieces, two are left",
        ),
    ],
)
def test_personal_offers_of_novus(case: Case) -> None:
    assert priced("novus", case) == (case.discounts, case.points)


def test_novus_records_who_was_in_the_control_group() -> None:
    member = IN_CONTROL._replace(offers=frozenset({"your-dairy"}))
    withheld = effects_of("novus", [goods(100_00, "dairy/milk")], member).withheld
    assert [(entry.promotion_id, entry.reason) for entry in withheld] == [("your-dairy", "control")]


def test_novus_says_what_is_missing_in_the_members_language() -> None:
    lines, day = [goods(950_00)], date(2026, 3, 2)
    texts = {
        language: [
            message.text for message in effects_of("novus", lines, MEMBER._replace(language=language), day).messages
        ]
        for language in ("uk", "en", "de")
    }
    assert texts == {
        "uk": ["Ще 50.00 - і знижка 50.00"],
        "en": ["50.00 more and you save 50.00"],
        "de": ["Ще 50.00 - і знижка 50.00"],
    }


LISTED = goods(1_000_00, sku="4870001000017")
COFFEE_TO_GO = goods(650_00, sku="coffee-to-go")
SALEM = {"coupons": [CouponFact("SALEM500")]}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case([goods(5_000_00)], [0], [50]), id="1 %, a point is a tenge"),
        pytest.param(Case([goods(1_049_00), goods(1_050_00)], [0, 0], [10, 11]), id="half a point is rounded up"),
        pytest.param(Case([goods(1_000_00)], [0], [10], on(6, 12)), id="three days before the birthday: 1 %"),
        pytest.param(Case([goods(1_000_00)], [0], [140], on(6, 13)), id="two days before: 14 %"),
        pytest.param(Case([goods(1_000_00)], [0], [140], on(6, 15)), id="on the birthday: 14 %"),
        pytest.param(Case([goods(1_000_00)], [0], [10], on(6, 16)), id="the day after: 1 %"),
        pytest.param(Case([LISTED, goods(1_000_00)], [0, 0], [70, 10]), id="7 % on the list"),
        pytest.param(Case([LISTED], [0], [140], on(6, 15)), id="on the birthday 14 % on the list too, not 21 %"),
        pytest.param(Case([goods(9_999_00)], [0], [100]), id="1 % below 10,000"),
        pytest.param(Case([goods(9_000_00), LISTED], [0, 0], [270, 70]), id="3 % from 10,000 on, the list keeps 7 %"),
        pytest.param(
            Case([goods(2_000_00), goods(1_000_00)], [333_33, 166_67], [17, 8], SALEM), id="500 off with the leaflet"
        ),
        pytest.param(Case([goods(2_999_00)], [0], [30], SALEM), id="not below 3,000"),
        pytest.param(
            Case(
                [goods(3_000_00)],
                [0],
                [30],
                {**SALEM, "usage": Usage({use_key("first-500", None, COMMON_DAY): CounterFact(times=1)})},
            ),
            id="once a member",
        ),
        pytest.param(
            Case([COFFEE_TO_GO], [550_00], [1], {"coupons": [CouponFact("K-1", "coffee")]}), id="a coffee for 100"
        ),
        pytest.param(Case([COFFEE_TO_GO], [0], [7]), id="only with the coupon"),
    ],
)
def test_vkus_mart(case: Case) -> None:
    assert priced("vkus-mart", case) == (case.discounts, case.points)


def test_a_point_of_vkus_mart_pays_a_tenge_for_half_the_receipt() -> None:
    found = effects_of("vkus-mart", [goods(1_000_00)], spend=700)
    assert (found.spent_points_minor, found.spent_money_minor) == (500, 500_00)


def test_vkus_mart_gives_a_coffee_coupon_from_5000_on() -> None:
    (issued,) = effects_of("vkus-mart", [goods(5_000_00)]).issued
    assert (issued.series, issued.quantity, issued.valid_from, issued.valid_until) == (
        "coffee",
        1,
        date(2026, 2, 3),
        date(2026, 2, 16),
    )
    assert effects_of("vkus-mart", [goods(4_999_00)]).issued == ()


def of_tier(tier: str, **facts: Any) -> dict[str, Any]:
    return on(4, 6, member=MEMBER._replace(tier=tier), **facts)


IN_CLUB = Usage({club_key("family"): CounterFact(until=date(2026, 12, 31))})
BABY_FOOD = goods(300_00, "baby/food", sku="4823000000013")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            Case([goods(100_00)], [3_00], [1_94], of_tier("start")), id="discount and bonus: 3 % off, 2 % back"
        ),
        pytest.param(Case([goods(100_00)], [5_00], [1_90], of_tier("silver")), id="silver: 5 % off"),
        pytest.param(Case([goods(100_00)], [7_00], [3_72], of_tier("gold")), id="gold: 7 % off, double points"),
        pytest.param(
            Case([goods(100_00, tags=("prescription",)), goods(100_00)], [0, 7_00], [0, 3_72], of_tier("gold")),
            id="nothing on prescriptions",
        ),
        pytest.param(
            Case([goods(600_00)], [18_00], [11_64 + 1_00], of_tier("start")),
            id="a point for every 500.00 to begin with",
        ),
        pytest.param(
            Case([goods(100_00, "vitamins")], [3_00], [1_94 + 4_85], {**of_tier("start"), "day": COMMON_DAY}),
            id="5 % more on vitamins in winter",
        ),
        pytest.param(Case([BABY_FOOD], [51_00], [4_98], of_tier("start", usage=IN_CLUB)), id="the club's price"),
        pytest.param(Case([BABY_FOOD], [9_00], [5_82], of_tier("start")), id="not for others"),
        pytest.param(
            Case([goods(300_00, "baby/diapers", 3)], [50_00 + 9_00], [4_82], of_tier("start", usage=IN_CLUB)),
            id="the club's third pack at half price, and 3 % with the card",
        ),
        pytest.param(
            Case([goods(100_00)], [3_00], [4_85], of_tier("start", partner="optics")), id="5 % back at the optician's"
        ),
        pytest.param(
            Case([goods(100_00, "home-tests")], [3_00], [1_94 + 2_91], of_tier("start")), id="3 % from the lab on tests"
        ),
    ],
)
def test_pharmacy(case: Case) -> None:
    assert priced("pharmacy", case) == (case.discounts, case.points)


@pytest.mark.parametrize(
    ("spent_minor", "discount_minor"),
    [
        pytest.param(0, 3_00, id="start"),
        pytest.param(2_999_99, 3_00, id="not yet silver"),
        pytest.param(3_000_00, 5_00, id="silver"),
        pytest.param(8_000_00, 7_00, id="gold"),
    ],
)
def test_the_pharmacys_discount_grows_with_what_was_spent(spent_minor: int, discount_minor: int) -> None:
    day = date(2026, 4, 6)
    months = {date(2026, month, 1): 0 for month in (1, 2, 3)} | {date(2025, 5, 1): spent_minor // 2}
    months[date(2026, 3, 1)] = spent_minor - spent_minor // 2
    spent = {visit_key(Period.MONTH, month): CounterFact(1, money) for month, money in months.items()}
    reached = effects_of("pharmacy", [goods(100_00)], MEMBER, day, Usage(spent))
    assert discounts(reached) == [discount_minor]


def test_who_pays_for_points_at_the_pharmacy() -> None:
    (line,) = effects_of("pharmacy", [goods(100_00, "home-tests")], **of_tier("start")).lines
    assert {(entry.promotion_id, entry.partner) for entry in line.accruals} == {("base", ""), ("lab-tests", "lab")}
    (line,) = effects_of("pharmacy", [goods(100_00)], **of_tier("start", partner="optics")).lines
    assert {entry.partner for entry in line.accruals} == {"optics"}


@pytest.mark.parametrize(("partner", "most"), [("", 29_00), ("optics", 29_00), ("lab", 0)])
def test_where_points_of_the_pharmacy_pay(partner: str, most: int) -> None:
    assert effects_of("pharmacy", [goods(100_00)], **of_tier("start", partner=partner)).max_spend_points_minor == most


OIL = goods(320_00, "oil", sku="oil-5l")
HORECA: dict[str, Any] = {"member": MEMBER._replace(segments=frozenset({"horeca"}))}
TRADERS: dict[str, Any] = {"member": MEMBER._replace(segments=frozenset({"traders"}))}
OFFICES: dict[str, Any] = {"member": MEMBER._replace(segments=frozenset({"offices"}))}


def voucher(series: str, **facts: Any) -> dict[str, Any]:
    return {"coupons": [CouponFact("V-1", series)], **facts}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case([OIL], [31_00], [0], HORECA), id="oil for hotels and restaurants"),
        pytest.param(Case([OIL], [0], [0], TRADERS), id="not for traders"),
        pytest.param(Case([goods(1_000_00, "drinks/water", 20)], [40_00], [0], TRADERS), id="4 % from 20 drinks on"),
        pytest.param(Case([goods(950_00, "drinks/water", 19)], [0], [0], TRADERS), id="not for 19"),
        pytest.param(Case([goods(400_00, "office/paper", 4)], [0], [0], OFFICES), id="paper: nothing for 4"),
        pytest.param(Case([goods(500_00, "office/paper", 5)], [25_00], [0], OFFICES), id="5 % for 5"),
        pytest.param(Case([goods(1_000_00, "office/paper", 10)], [80_00], [0], OFFICES), id="8 % for 10"),
        pytest.param(Case([goods(1_499_99)], [0], [0], voucher("voucher-sum")), id="the voucher wants 1,500.00"),
        pytest.param(
            Case([goods(1_000_00), goods(500_00)], [66_67, 33_33], [0, 0], voucher("voucher-sum")), id="100.00 off"
        ),
        pytest.param(Case([goods(3_000_00)], [250_00], [0], voucher("voucher-sum")), id="250.00 off from 3,000.00 on"),
        pytest.param(
            Case([goods(900_00, "household", 9), goods(1)], [0, 0], [0, 0], voucher("voucher-items")),
            id="nine items are too few",
        ),
        pytest.param(
            Case([goods(1_000_00, "household", 10), goods(1)], [150_00, 0], [0, 0], voucher("voucher-items")),
            id="15 % off ten items",
        ),
        pytest.param(
            Case(
                [goods(500_00, "drinks/wine", 5), goods(80_00, "drinks/wine")],
                [0, 80_00],
                [0, 0],
                voucher("voucher-six"),
            ),
            id="of six bottles the cheapest is free",
        ),
        pytest.param(Case([goods(3_000_00)], [0], [0]), id="nothing without a voucher"),
        pytest.param(
            Case(
                [goods(3_000_00)],
                [60_00],
                [0],
                voucher("voucher-sum", usage=Usage(shared={"shared/@autumn-vouchers/money": 60_00})),
            ),
            id="what is left of the campaign's budget",
        ),
    ],
)
def test_metro(case: Case) -> None:
    assert priced("metro", case) == (case.discounts, case.points)


def test_metro_says_which_voucher_was_used_and_what_the_budget_cut() -> None:
    usage = Usage(shared={"shared/@autumn-vouchers/money": 60_00})
    found = effects_of("metro", [goods(3_000_00)], usage=usage, **voucher("voucher-sum"))
    assert [(use.code, use.promotion_ids) for use in found.coupons] == [("V-1", ("voucher-sum",))]
    assert [(cap.promotion_id, cap.wanted, cap.granted) for cap in found.capped] == [("voucher-sum", 250_00, 60_00)]


def test_metro_tells_offices_what_is_missing_to_the_next_step() -> None:
    messages = effects_of("metro", [goods(800_00, "office/paper", 8)], **OFFICES).messages
    assert "Ще 2 - і знижка більша" in [message.text for message in messages]


@pytest.mark.parametrize(
    ("member", "series"), [(HORECA["member"], ["voucher-sum"]), (MEMBER, [])], ids=["of a cluster", "of none"]
)
def test_metro_gives_clusters_a_voucher_from_5000_on(member: MemberFacts, series: list[str]) -> None:
    assert [issued.series for issued in effects_of("metro", [goods(5_000_00)], member).issued] == series
