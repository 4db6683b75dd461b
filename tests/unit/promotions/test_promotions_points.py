"""Earning, paying with points, and booking a receipt as it was paid."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from server.promotions import (
    LotDates,
    LotGrant,
    MemberFacts,
    PaidLine,
    ReceiptError,
    ReceiptFacts,
    Variance,
    earn_as_paid,
    lot_terms,
    lots_to_grant,
    quote,
)
from tests.unit.promotions.builders import (
    A20,
    HEAD,
    MONDAY,
    ONE_PERCENT,
    SHOPPER,
    as_quoted,
    line,
    points,
    points_money,
    promotions,
    receipt,
    rules,
)

BIRTHDAY = date(2026, 6, 15)


def test_each_accrual_is_rounded_once_then_summed() -> None:
    effects = quote(rules(ONE_PERCENT), receipt(201580, 201580), SHOPPER)
    assert points(effects) == [2016, 2016]
    assert effects.accrual_points_minor == 4032


@pytest.mark.parametrize(
    ("earning", "amount", "granted"),
    [
        pytest.param("base_percent: 1", 250, 3, id="2.5 half up"),
        pytest.param("base_percent: 1, rounding: down", 299, 2, id="down"),
        pytest.param("base_percent: 1, rounding: up", 201, 3, id="up"),
        pytest.param("base_percent: 0.5", 10000, 50, id="half a percent"),
        pytest.param("base_percent: 0", 10000, 0, id="no base"),
        pytest.param("base_percent: 1", 49, 0, id="rounds to nothing"),
    ],
)
def test_base_percent(earning: str, amount: int, granted: int) -> None:
    assert quote(rules(f"earning: {{{earning}}}\n"), receipt(amount), SHOPPER).accrual_points_minor == granted


@pytest.mark.parametrize(
    ("point", "currency", "amount", "granted"),
    [
        pytest.param("precision: 2, pays: 1.00", "UAH", 10000, 100, id="1.00 point pays 1.00"),
        pytest.param("precision: 0, pays: 0.01", "USD", 10000, 100, id="100 points pay 1.00"),
        pytest.param("precision: 0, pays: 1", "JPY", 10000, 100, id="a currency without decimals"),
        pytest.param("precision: 0, pays: 0.5", "UAH", 10000, 2, id="a point pays 0.50"),
    ],
)
def test_percents_are_of_value(point: str, currency: str, amount: int, granted: int) -> None:
    head = HEAD.replace("UAH", currency) + f"point: {{unit: p, {point}}}\n"
    assert quote(rules(ONE_PERCENT, head), receipt(amount), SHOPPER).accrual_points_minor == granted


TIMES5 = "id: five, name: F, points: {multiplier: 5}"
TIMES2 = "id: two, name: T, points: {multiplier: 2}"


@pytest.mark.parametrize(
    ("items", "granted"),
    [
        pytest.param((TIMES5,), {"base": 100, "five": 400}, id="five-fold"),
        pytest.param((TIMES5, TIMES2), {"base": 100, "five": 400, "two": 100}, id="multiply the base only"),
        pytest.param(
            (TIMES5, "id: two, name: T, points: {multiplier: 2, compound: true}"),
            {"base": 100, "five": 400, "two": 500},
            id="compound",
        ),
        pytest.param(
            (TIMES5 + ", priority: 200", "id: two, name: T, points: {multiplier: 2, compound: true}"),
            {"base": 100, "two": 100, "five": 400},
            id="compound comes first, five multiplies the base",
        ),
        pytest.param(
            ("id: p, name: P, points: {percent: 4}", TIMES2),
            {"base": 100, "p": 400, "two": 100},
            id="percent",
        ),
        pytest.param((TIMES5 + ", group: g", TIMES2 + ", group: g"), {"base": 100, "five": 400}, id="group"),
        pytest.param((TIMES5 + ", exclusive: true", TIMES2), {"base": 100, "five": 400}, id="exclusive"),
        pytest.param(
            (TIMES5, "id: two, name: T, exclusive: true, points: {multiplier: 2}"),
            {"base": 100, "five": 400},
            id="the others give more than the exclusive one",
        ),
        pytest.param(("id: p, name: P, points: {fixed: 3, per: line}",), {"base": 100, "p": 300}, id="per line"),
        pytest.param(("id: p, name: P, points: {fixed: 3, per: unit}",), {"base": 100, "p": 600}, id="per unit"),
        pytest.param(("id: p, name: P, points: {fixed: 3}",), {"base": 100, "p": 300}, id="once a receipt"),
        pytest.param(
            ("id: p, name: P, points: {fixed: 3}, group: g", "id: q, name: Q, points: {fixed: 5}, group: g"),
            {"base": 100, "q": 500},
            id="best of a group once a receipt",
        ),
        pytest.param(
            ("id: p, name: P, points: {fixed: 3}", "id: q, name: Q, points: {fixed: 5}, exclusive: true"),
            {"base": 100, "q": 500},
            id="exclusive once a receipt",
        ),
    ],
)
def test_points_on_a_line(items: tuple[str, ...], granted: dict[str, int]) -> None:
    compiled = rules(ONE_PERCENT + promotions(*items))
    effects = quote(compiled, receipt(line(1, 10000, quantity_milli=2000)), SHOPPER)
    assert {a.promotion_id: a.points_minor for a in effects.lines[0].accruals} == granted


@pytest.mark.parametrize(
    ("percent", "granted"),
    [
        pytest.param("14", {"cash": 1400}, id="cashback beats the base"),
        pytest.param("0.5", {"base": 100}, id="the base beats a poor one"),
    ],
)
def test_cashback_instead_of_the_base(percent: str, granted: dict[str, int]) -> None:
    compiled = rules(
        "earning: {base_percent: 1, base_group: g}\n"
        + promotions(f"id: cash, name: C, group: g, points: {{percent: {percent}}}")
    )
    effects = quote(compiled, receipt(10000), SHOPPER)
    assert {a.promotion_id: a.points_minor for a in effects.lines[0].accruals} == granted


def test_points_once_a_receipt_are_spread_over_what_was_paid() -> None:
    compiled = rules(promotions("id: p, name: P, when: {receipt_total: {at_least: 300.00}}, points: {fixed: 1}"))
    assert points(quote(compiled, receipt(10000, 10000, 10000), SHOPPER)) == [34, 33, 33]
    assert points(quote(compiled, receipt(10000, 10000, 9999), SHOPPER)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("member", "on", "granted"),
    [
        pytest.param(SHOPPER, BIRTHDAY, 500, id="in the window"),
        pytest.param(SHOPPER, MONDAY, 100, id="outside"),
        pytest.param(MemberFacts("m"), BIRTHDAY, 100, id="birthday unknown"),
        pytest.param(None, BIRTHDAY, 100, id="no member: what one would get, birthday aside"),
        pytest.param(MemberFacts("m", SHOPPER.birthday, can_earn=False), BIRTHDAY, 0, id="may not earn"),
    ],
)
def test_birthday_week(member: MemberFacts | None, on: date, granted: int) -> None:
    compiled = rules(
        ONE_PERCENT + promotions("id: p, name: P, when: {birthday: {days_before: 7}}, points: {multiplier: 5}")
    )
    assert quote(compiled, receipt(10000, on=on), member).accrual_points_minor == granted


def test_the_stores_calendar_decides_the_day() -> None:
    compiled = rules(promotions("id: p, name: P, when: {birthday: {}}, points: {fixed: 1}"))
    late = datetime.fromisoformat("2026-06-15T23:59:59+03:00")
    for local_at, granted in ((late, 100), (late.replace(day=16, hour=0), 0)):
        effects = quote(compiled, ReceiptFacts("s", local_at, [line(1, 1000)]), SHOPPER)
        assert effects.accrual_points_minor == granted


def test_three_separate_exclusions() -> None:
    compiled = rules(
        ONE_PERCENT
        + "exclusions:\n  no_earning: {tags: [e]}\n  no_discount: {skus: [d]}\n"
        + "  no_points_payment: {categories: [p]}\n"
        + promotions(A20, "id: f, name: F, points: {fixed: 1}")
    )
    lines = (line(1, 10000, tags=("e",)), line(2, 10000, sku="d"), line(3, 10000, category="p/q"))
    effects = quote(compiled, receipt(*lines), SHOPPER, 6000)
    assert [entry.payable_minor for entry in effects.lines] == [8000, 10000, 8000]
    assert points_money(effects) == [2667, 3333, 0]
    assert [entry.spendable_minor for entry in effects.lines] == [8000, 10000, 0]
    assert [bool(entry.accruals) for entry in effects.lines] == [False, True, True]
    assert sum(points(effects)) == 100 + 67 + 80


@pytest.mark.parametrize(
    ("spending", "amounts", "wish", "spent", "most"),
    [
        pytest.param("", (10000,), 2500, 2500, 9999, id="any amount up to the most"),
        pytest.param("", (10000,), 99999, 9999, 9999, id="one minor unit stays"),
        pytest.param("keep_one_minor_unit: false", (10000,), 99999, 10000, 10000, id="unless switched off"),
        pytest.param("max_share_percent: 30", (10001,), 99999, 3000, 3000, id="share, rounded down"),
        pytest.param("step_points: 5", (10000,), 1234, 1000, 9500, id="whole steps"),
        pytest.param("", (1,), 10, 0, 0, id="a receipt of one minor unit"),
        pytest.param("", (), 10, 0, 0, id="an empty receipt"),
        pytest.param("", (10000,), None, 0, 9999, id="no wish"),
        pytest.param("max_share_percent: 0", (10000,), 10, 0, 0, id="no payment with points"),
    ],
)
def test_spending(spending: str, amounts: tuple[int, ...], wish: int | None, spent: int, most: int) -> None:
    effects = quote(rules(f"spending: {{{spending}}}\n"), receipt(*amounts), SHOPPER, wish)
    assert (effects.spent_points_minor, effects.spent_money_minor) == (spent, spent)
    assert (effects.max_spend_points_minor, effects.max_spend_money_minor) == (most, most)
    assert sum(points_money(effects)) == spent


def test_a_member_who_may_not_spend() -> None:
    effects = quote(rules(), receipt(10000), MemberFacts("m", can_spend=False), 100)
    assert (effects.spent_points_minor, effects.max_spend_points_minor) == (0, 0)


def test_the_rate_of_the_programme() -> None:
    head = HEAD + "point: {unit: p, precision: 0, pays: 0.01}\n"
    effects = quote(rules("spending: {step_points: 10}\n", head), receipt(1000), SHOPPER, 255)
    assert (effects.spent_points_minor, effects.spent_money_minor) == (250, 250)
    head = HEAD + "point: {unit: p, precision: 0, pays: 0.005}\n"
    effects = quote(rules("", head), receipt(1000), SHOPPER, 255)
    assert (effects.spent_points_minor, effects.spent_money_minor) == (254, 127)


def test_payment_is_spread_and_kept_above_the_floor() -> None:
    lines = (line(1, 10000, floor_amount_minor=9500), line(2, 10000))
    assert points_money(quote(rules(), receipt(*lines), SHOPPER, 2000)) == [500, 1500]
    free = rules("spending: {respect_price_floor: false}\n")
    assert points_money(quote(free, receipt(*lines), SHOPPER, 2000)) == [1000, 1000]


@pytest.mark.parametrize(("setting", "granted"), [("false", 75), ("true", 100)])
def test_earning_on_the_part_paid_with_points(setting: str, granted: int) -> None:
    compiled = rules(f"earning: {{base_percent: 1, earn_on_points_paid: {setting}}}\n")
    assert quote(compiled, receipt(10000), SHOPPER, 2500).accrual_points_minor == granted


def test_the_answer_carries_version_and_settings() -> None:
    effects = quote(rules("earning: {base_percent: 1.5}\n"), receipt(100), None)
    assert effects.programme_version == 7
    settings = dict(effects.settings)
    assert settings["base_percent"] == "1.5"
    assert settings["earn_on_points_paid"] == "false"
    assert settings["keep_one_minor_unit"] == "true"


# --- as paid ----------------------------------------------------------------------------------------------


def test_a_receipt_is_booked_as_paid_and_the_difference_reported() -> None:
    compiled = rules(ONE_PERCENT + promotions(A20))
    paid = [PaidLine(1, 3000), PaidLine(2, 2000, 1000)]
    effects = earn_as_paid(compiled, receipt(10000, 10000, 10000), SHOPPER, paid)
    assert [entry.payable_minor for entry in effects.lines] == [7000, 8000, 10000]
    assert points(effects) == [70, 70, 100]
    assert effects.variances == (Variance(1, 2000, 3000), Variance(3, 2000, 0))
    assert [d.promotion_id for entry in effects.lines for d in entry.discounts] == ["as_charged", "a"]
    assert (effects.spent_points_minor, effects.spent_money_minor) == (1000, 1000)


def test_a_register_that_applies_the_quote_has_no_variance() -> None:
    compiled = rules(ONE_PERCENT + promotions(A20, "id: b, name: B, basket_discount: {amount: 7}"))
    quoted = quote(compiled, receipt(10000, 3333), SHOPPER, 1234)
    assert earn_as_paid(compiled, receipt(10000, 3333), SHOPPER, as_quoted(quoted)) == quoted


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        pytest.param([PaidLine(9, 0)], "paid", id="a line that is not there"),
        pytest.param([PaidLine(1, 0), PaidLine(1, 0)], "paid", id="a line twice"),
        pytest.param([PaidLine(1, -1)], "paid", id="a negative discount"),
        pytest.param([PaidLine(1, 600, 600)], "paid", id="more than the price"),
    ],
)
def test_a_payment_that_does_not_fit(bad: list[PaidLine], field: str) -> None:
    with pytest.raises(ReceiptError) as caught:
        earn_as_paid(rules(), receipt(1000), SHOPPER, bad)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        pytest.param([line(1, -1)], "list_amount_minor", id="a negative price"),
        pytest.param([line(1, 1, floor_amount_minor=-1)], "floor_amount_minor", id="a negative floor"),
        pytest.param([line(1, 1, quantity_milli=0)], "quantity_milli", id="no quantity"),
        pytest.param([line(1, 1), line(1, 1)], "line_number", id="a number twice"),
    ],
)
def test_a_receipt_that_makes_no_sense(bad: list[object], field: str) -> None:
    with pytest.raises(ReceiptError) as caught:
        quote(rules(), receipt(*bad), SHOPPER)  # type: ignore[arg-type]  # the table is of mixed lines
    assert caught.value.field == field
    assert caught.value.line_number == 1


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ReceiptError, match="time zone"):
        quote(rules(), ReceiptFacts("s", datetime(2026, 1, 1), []), None)


# --- lots -------------------------------------------------------------------------------------------------


def test_lots_by_their_dates() -> None:
    compiled = rules(
        "earning: {base_percent: 1, pending_days: 14, expiry: {after_months: 1, round_up_to: month}}\n"
        + promotions(
            TIMES5,
            "id: gift, name: G, points: {fixed: 20, expiry: {after_days: 14}}",
            "id: slow, name: S, points: {fixed: 1, pending_days: 3}",
        )
    )
    day = date(2026, 1, 31)
    assert lot_terms(compiled, day) == LotDates(date(2026, 2, 14), date(2026, 2, 28))
    effects = quote(compiled, receipt(10000, 10000, on=day), SHOPPER)
    assert lots_to_grant(compiled, effects, day) == (
        LotGrant(1000, date(2026, 2, 14), date(2026, 2, 28), ("base", "five")),
        LotGrant(2000, None, date(2026, 2, 14), ("gift",)),
        LotGrant(100, date(2026, 2, 3), None, ("slow",)),
    )


def test_points_that_never_expire_are_there_at_once() -> None:
    assert lot_terms(rules(), MONDAY) == LotDates(None, None)
