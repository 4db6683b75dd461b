"""Protobuf written by hand where a receipt would take dozens of messages: the bytes that its serialiser would give.

What happens to the lines of a receipt is most of its entry, and protobuf wants an object for every discount and every
accrual: 86 us for ten lines with four parts each. Joined from the bytes of their fields, of which those that come
again are kept, the same takes 18 us; 28 us if only fields were kept, and no discounts and accruals. It may be done
because a message inside another one is its bytes after a tag and a length, and because the parts of a serialised
message may be joined. `tests/unit/checkout/test_wire.py` holds all of it against protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Final, TypeVar

from tallypoint.v1.common_pb2 import AccrualPart, DiscountPart
from tallypoint.v1.common_pb2 import LineEffects as LineMessage

from server.promotions import Effects, LineEffects

_VARINT = 0
_BYTES = 2
_ALL_64_BITS = (1 << 64) - 1
MOST_KEPT: Final = 1 << 14
"""How many values of one field are kept: a few megabytes in all."""

Value = TypeVar("Value", bound=Hashable)


def varint(value: int) -> bytes:
    """Return an integer as protobuf writes it; negative ones in two's complement of 64 bits."""
    value &= _ALL_64_BITS
    written = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def int_field(number: int, value: int) -> bytes:
    """Return an integer (or enum, or bool) field; zero is not written."""
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def text_field(number: int, text: str) -> bytes:
    """Return a string field; an empty one is not written."""
    return message_field(number, text.encode()) if text else b""


def message_field(number: int, message: bytes) -> bytes:
    """Return a field that has a serialised message, be it an empty one."""
    return message_prefix(number, len(message)) + message


def message_prefix(number: int, length_bytes: int) -> bytes:
    """Return what stands before a message of a length."""
    return varint(number << 3 | _BYTES) + varint(length_bytes)


class Kept(dict[Value, bytes]):
    """Bytes by value, written once for each that comes again, as prices and what promotions make of them do.

    A plain dict that begins afresh when it is full: `lru_cache` takes half as long again to keep its order.
    """

    def __init__(self, write: Callable[[Value], bytes]) -> None:
        """Take what writes a value."""
        super().__init__()
        self._write = write

    def __missing__(self, value: Value) -> bytes:
        """Write a value that is new, and keep it."""
        if len(self) >= MOST_KEPT:
            self.clear()
        written = self[value] = self._write(value)
        return written


def kept_ints(number: int) -> Kept[int]:
    """Return an integer field (or enum, or bool) by its value."""
    return Kept(partial(int_field, number))


def kept_texts(number: int) -> Kept[str]:
    """Return a string field by its text."""
    return Kept(partial(text_field, number))


def kept_prefixes(number: int) -> Kept[int]:
    """Return what stands before the messages of a field, by their length."""
    return Kept(partial(message_prefix, number))


_line_number: Final = kept_ints(LineMessage.LINE_NUMBER_FIELD_NUMBER)
_floor_cut: Final = kept_ints(LineMessage.FLOOR_CUT_MINOR_FIELD_NUMBER)
_payable: Final = kept_ints(LineMessage.PAYABLE_MINOR_FIELD_NUMBER)
_spendable: Final = kept_ints(LineMessage.SPENDABLE_MINOR_FIELD_NUMBER)
_points_money: Final = kept_ints(LineMessage.POINTS_MONEY_MINOR_FIELD_NUMBER)
_discount_prefix: Final = kept_prefixes(LineMessage.DISCOUNTS_FIELD_NUMBER)
_discount_promotion: Final = kept_texts(DiscountPart.PROMOTION_ID_FIELD_NUMBER)
_discount_amount: Final = kept_ints(DiscountPart.AMOUNT_MINOR_FIELD_NUMBER)
_accrual_prefix: Final = kept_prefixes(LineMessage.ACCRUALS_FIELD_NUMBER)
_accrual_promotion: Final = kept_texts(AccrualPart.PROMOTION_ID_FIELD_NUMBER)
_accrual_base: Final = kept_ints(AccrualPart.BASE_MINOR_FIELD_NUMBER)
_accrual_points: Final = kept_ints(AccrualPart.POINTS_MINOR_FIELD_NUMBER)
_accrual_unit: Final = kept_texts(AccrualPart.UNIT_FIELD_NUMBER)
_accrual_partner: Final = kept_texts(AccrualPart.PARTNER_FIELD_NUMBER)


def _written_discount(discount: tuple[str, int]) -> bytes:
    promotion_id, amount_minor = discount
    message = _discount_promotion[promotion_id] + _discount_amount[amount_minor]
    return _discount_prefix[len(message)] + message


def _written_accrual(accrual: tuple[str, int, int, str, str]) -> bytes:
    promotion_id, base_minor, points_minor, unit, partner = accrual
    message = _accrual_promotion[promotion_id] + _accrual_base[base_minor] + _accrual_points[points_minor]
    message += _accrual_unit[unit] + _accrual_partner[partner]
    return _accrual_prefix[len(message)] + message


_discount: Final = Kept(_written_discount).__getitem__
_accrual: Final = Kept(_written_accrual).__getitem__


class LinesField:
    """A repeated field of `LineEffects`, of whichever message."""

    def __init__(self, number: int) -> None:
        """Take the field's number."""
        self._prefix = kept_prefixes(number)

    def write(self, line_numbers: list[int], effects: Effects) -> bytes:
        """Return what happens to every line, in the order of ``line_numbers``; a voided one has its number only."""
        written: list[bytes] = []
        for line_number, line in _by_number(line_numbers, effects):
            message = _line_number[line_number]
            if line is not None:
                _, discounts, floor_cut, payable, spendable, points_money, accruals = line
                message = b"".join(
                    (
                        message,
                        *map(_discount, discounts),
                        _floor_cut[floor_cut],
                        _payable[payable],
                        _spendable[spendable],
                        _points_money[points_money],
                        *map(_accrual, accruals),
                    )
                )
            written += self._prefix[len(message)], message
        return b"".join(written)


def _by_number(line_numbers: list[int], effects: Effects) -> Iterable[tuple[int, LineEffects | None]]:
    """Return the effects on each line; those of most receipts stand in the order of its lines already."""
    lines = effects.lines
    if [line[0] for line in lines] == line_numbers:
        return zip(line_numbers, lines, strict=True)
    by_number = {line[0]: line for line in lines}
    return [(number, by_number.get(number)) for number in line_numbers]
