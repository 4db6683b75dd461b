"""Protobuf written by hand is what protobuf writes."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2

from server.promotions import Effects, LineEffects
from server.rules import wire

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
MONEY = st.one_of(st.integers(0, 300), st.integers(0, 10**12), INT64)
NAMES = st.one_of(
    st.sampled_from(["", "base", "sku-1"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
)
DISCOUNTS = st.lists(st.tuples(NAMES, MONEY), max_size=3).map(tuple)
ACCRUALS = st.lists(st.tuples(NAMES, MONEY, MONEY, NAMES, NAMES), max_size=3).map(tuple)
LINES = st.lists(
    st.builds(LineEffects._make, st.tuples(st.integers(0, 100_000), DISCOUNTS, MONEY, MONEY, MONEY, MONEY, ACCRUALS)),
    max_size=4,
    unique_by=lambda line: line.line_number,
)
EFFECTS_FIELD = wire.LinesField(journal_pb2.Purchase.EFFECTS_FIELD_NUMBER)
QUOTE_FIELD = wire.LinesField(checkout_pb2.QuoteResponse.LINES_FIELD_NUMBER)


def effects_of(lines: list[LineEffects]) -> Effects:
    return Effects(1, tuple(sorted(lines)), 0, 0, 0, 0, 0, 0, 0, (), ())


def message_of(number: int, lines: list[LineEffects]) -> common_pb2.LineEffects:
    """Return what the plain way makes of a line, or of a voided one."""
    found = [line for line in lines if line.line_number == number]
    if not found:
        return common_pb2.LineEffects(line_number=number)
    (line,) = found
    return common_pb2.LineEffects(
        line_number=line.line_number,
        discounts=[common_pb2.DiscountPart(promotion_id=p, amount_minor=amount) for p, amount in line[1]],
        floor_cut_minor=line.floor_cut_minor,
        payable_minor=line.payable_minor,
        spendable_minor=line.spendable_minor,
        points_money_minor=line.points_money_minor,
        accruals=[
            common_pb2.AccrualPart(promotion_id=p, base_minor=base, points_minor=points, unit=unit, partner=partner)
            for p, base, points, unit, partner in line[6]
        ],
    )


@settings(max_examples=300)
@given(lines=LINES, voided=st.lists(st.integers(100_001, 100_009), unique=True, max_size=2), chance=st.randoms())
def test_effects_on_lines_are_written_as_protobuf_writes_them(
    lines: list[LineEffects], voided: list[int], chance: object
) -> None:
    numbers = [line.line_number for line in lines] + voided
    chance.shuffle(numbers)  # type: ignore[attr-defined]  # a random.Random
    messages = [message_of(number, lines) for number in numbers]
    entry, quote = journal_pb2.Purchase(effects=messages), checkout_pb2.QuoteResponse(lines=messages)
    assert EFFECTS_FIELD.write(numbers, effects_of(lines)) == entry.SerializeToString()
    assert QUOTE_FIELD.write(numbers, effects_of(lines)) == quote.SerializeToString()


@given(value=INT64)
@example(0)
@example(127)
@example(128)
@example(1 << 21)
@example(-1)
def test_integers_are_written_as_protobuf_writes_them(value: int) -> None:
    expected = common_pb2.DiscountPart(amount_minor=value).SerializeToString()
    assert wire.int_field(common_pb2.DiscountPart.AMOUNT_MINOR_FIELD_NUMBER, value) == expected


def test_no_more_is_kept_than_there_is_room_for() -> None:
    field = wire.LinesField(5)
    for price in range(2 * wire.MOST_KEPT):
        line = LineEffects(1, (), 0, price, 0, 0, ())
        written = journal_pb2.Purchase.FromString(field.write([1], effects_of([line])))
        assert written.effects[0].payable_minor == price
    kept = [value for value in vars(wire).values() if isinstance(value, wire.Kept)]
    assert max(map(len, kept)) <= wire.MOST_KEPT
