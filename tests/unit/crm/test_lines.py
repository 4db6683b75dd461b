"""Lines of receipts: what the CRM database is told of them, as values and as text."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2, journal_pb2

from server.crm.copying import text_of
from server.crm.lines import UnreadLines, lines_of
from server.crm.tables import LineRow

MILK = common_pb2.ReceiptLine(
    sku="milk", category="grocery/dairy", brand="Cow", quantity_milli=1500, weighed=True, list_amount_minor=900
)


def milk(**more: Any) -> common_pb2.ReceiptLine:
    """Return a line of milk with some more fields."""
    line = common_pb2.ReceiptLine(**more)
    line.MergeFrom(MILK)
    return line


def purchase_of(*lines: common_pb2.ReceiptLine, effects: list[common_pb2.LineEffects]) -> journal_pb2.Purchase:
    """Return a purchase as the stream reads it from the journal."""
    purchase = journal_pb2.Purchase(receipt=common_pb2.Receipt(lines=lines), effects=effects)
    return UnreadLines.FromString(journal_pb2.Event(purchase=purchase).SerializeToString()).purchase


def test_a_line_is_what_was_sold_and_what_promotions_made_of_it() -> None:
    """Lines and effects find each other by number, in whatever order they stand."""
    effects = [
        common_pb2.LineEffects(line_number=300, points_money_minor=5),
        common_pb2.LineEffects(
            line_number=2,
            discounts=[common_pb2.DiscountPart(promotion_id='spring "sale"', amount_minor=100)],
            accruals=[
                common_pb2.AccrualPart(promotion_id="base", base_minor=800, points_minor=8),
                common_pb2.AccrualPart(promotion_id="drug", base_minor=800, points_minor=3, partner="pharmacy"),
                common_pb2.AccrualPart(promotion_id="gift", base_minor=1, points_minor=4, unit="gift"),
            ],
        ),
    ]
    purchase = purchase_of(
        milk(line_number=2, discount_minor=100, tags=["fresh"]),
        milk(line_number=300),
        common_pb2.ReceiptLine(line_number=70_000, sku="bread"),
        effects=effects,
    )
    parts = '[["spring \\"sale\\"",100],["base",0,8,800],["drug",0,3,800,null,"pharmacy"],["gift",0,4,1,"gift",null]]'
    assert [line.row() for line in lines_of(7, purchase, has_member=True)] == [
        LineRow(7, 2, "milk", "grocery/dairy", "Cow", ["fresh"], 1500, True, 900, 100, 0, 8 + 3, parts),
        LineRow(7, 300, "milk", "grocery/dairy", "Cow", [], 1500, True, 900, 0, 5, 0, "[]"),
        LineRow(7, 70_000, "bread", "", "", [], 0, False, 0, 0, 0, 0, "[]"),
    ]


def test_without_a_member_nobody_earns() -> None:
    effects = common_pb2.LineEffects(
        line_number=1,
        discounts=[common_pb2.DiscountPart(promotion_id="spring", amount_minor=100)],
        accruals=[common_pb2.AccrualPart(promotion_id="base", base_minor=800, points_minor=8)],
    )
    purchase = purchase_of(common_pb2.ReceiptLine(line_number=1, sku="milk"), effects=[effects])
    (line,) = lines_of(1, purchase, has_member=False)
    assert (line.row().points_earned_minor, line.row().promotions) == (0, '[["spring",100]]')


def _number_last(line_number: int, rest: bytes) -> bytes:
    return rest + common_pb2.ReceiptLine(line_number=line_number).SerializeToString()


@pytest.mark.parametrize("before", [0, 1, 300], ids=lambda number: f"{number}-first")
@pytest.mark.parametrize("line_number", [2, 127, 128, 1999, 16_384, 100_000])
def test_a_line_number_may_stand_anywhere_in_its_message(line_number: int, before: int) -> None:
    """A register may write fields in any order, even twice; the last one counts, as protobuf has it."""
    first = common_pb2.ReceiptLine(line_number=before).SerializeToString()
    rest = common_pb2.ReceiptLine(sku="milk", list_amount_minor=900).SerializeToString()
    line = first + _number_last(line_number, rest)
    effects = _number_last(line_number, common_pb2.LineEffects(points_money_minor=3).SerializeToString())
    purchase = journal_pb2.Purchase(
        receipt=common_pb2.Receipt(lines=[common_pb2.ReceiptLine.FromString(line)]),
        effects=[common_pb2.LineEffects.FromString(effects)],
    )
    parsed = UnreadLines.FromString(journal_pb2.Event(purchase=purchase).SerializeToString()).purchase
    as_sent = UnreadLines().purchase
    cast("list[bytes]", as_sent.receipt.lines).append(line)
    cast("list[bytes]", as_sent.effects).append(effects)
    for each in (parsed, as_sent):
        assert lines_of(1, each, has_member=True)[0].row()[:3] == (1, line_number, "milk")
        assert lines_of(1, each, has_member=True)[0].row().points_money_minor == 3


def test_a_line_that_is_no_message_cannot_be_read() -> None:
    """The stream counts these as what an entry must not say."""
    purchase = UnreadLines().purchase
    cast("list[bytes]", purchase.receipt.lines).append(b"\x08")
    with pytest.raises(LookupError):
        lines_of(1, purchase, has_member=True)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
amounts = st.integers(0, 10**12)
parts = st.builds(common_pb2.DiscountPart, promotion_id=texts, amount_minor=amounts)
accruals = st.builds(
    common_pb2.AccrualPart, promotion_id=texts, base_minor=amounts, points_minor=amounts, unit=texts, partner=texts
)
effects_of_lines = st.builds(
    common_pb2.LineEffects,
    line_number=st.integers(0, 20),
    points_money_minor=amounts,
    discounts=st.lists(parts, max_size=3),
    accruals=st.lists(accruals, max_size=3),
)
receipt_lines = st.builds(
    common_pb2.ReceiptLine,
    line_number=st.integers(0, 20),
    sku=texts,
    category=texts,
    brand=texts,
    tags=st.lists(texts, max_size=3),
    quantity_milli=amounts,
    weighed=st.booleans(),
    list_amount_minor=amounts,
    discount_minor=amounts,
)


@given(st.lists(receipt_lines, max_size=4), st.lists(effects_of_lines, max_size=4), st.booleans())
def test_text_and_values_are_the_same_row(
    lines: list[common_pb2.ReceiptLine], effects: list[common_pb2.LineEffects], has_member: bool
) -> None:
    """Whatever is kept of earlier lines, the text that is copied is that of the row that is compared."""
    made = lines_of(5, purchase_of(*lines, effects=effects), has_member=has_member)
    assert [line.line_number for line in made] == [line.line_number for line in lines]
    assert [line.row().quantity_milli for line in made] == [line.quantity_milli for line in lines]
    for line in made:
        assert line.text(3) == f"3\t{text_of(line.row())}\n"
        assert isinstance(json.loads(line.row().promotions), list)
