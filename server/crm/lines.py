"""The lines of receipts in the CRM database.

A receipt has one row, but many lines, so lines are most of the stream's work. Yet the same article at the same price
under the same promotions is sold many times a day: what such lines have in common is worked out once and kept, as
values and as the text that COPY reads. It is found by the message's own bytes, so it may be forgotten, but never
mistaken; that is why events are parsed by `UnreadLines`, which leaves these bytes alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import common_pb2, journal_pb2

from server.crm.copying import text_of
from server.crm.tables import LineRow
from server.crm.text import stored

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

KEPT: Final = 20_000
"""How many articles as sold, and how many outcomes of promotions, are kept: some 20 MB of each."""

Made = TypeVar("Made")

_LINE_NUMBER: Final = b"\x08"
"""How field 1 begins, the line number of both messages."""
_MORE: Final = 0x80
"""Set in each byte of a protobuf integer but the last; the others have seven bits each."""


class _Kept(dict[bytes, Made]):
    """What was made of messages, by their bytes; begun afresh when it is full.

    To drop only what is oldest costs more than to make all of it again now and then.
    """

    def __init__(self, make: Callable[[bytes], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, raw: bytes) -> Made:
        if len(self) >= KEPT:
            self.clear()
        made = self[raw] = self._make(raw)
        return made


class _Sold(NamedTuple):
    """What a line's receipt says of it: the columns from ``sku`` to ``discount_minor``, also as text."""

    line_number: int
    list_amount_minor: int
    discount_minor: int
    values: tuple[Any, ...]
    text: str


class _Outcome(NamedTuple):
    """What the rules made of a line: the columns from ``points_money_minor`` to ``promotions``, also as text."""

    values: tuple[Any, ...]
    text: str


class Line(NamedTuple):
    """A line of a purchase."""

    number: int
    line_number: int
    sold: _Sold
    outcome: _Outcome

    def row(self) -> LineRow:
        """Return the row of ``crm.receipt_line``."""
        return LineRow(self.number, self.line_number, *self.sold.values, *self.outcome.values)

    def text(self, book: int) -> str:
        """Return the same row as COPY reads it, with its end."""
        return f"{book}\t{self.number}\t{self.line_number}\t{self.sold.text}\t{self.outcome.text}\n"


def lines_of(number: int, purchase: journal_pb2.Purchase, *, has_member: bool) -> list[Line]:
    """Return the lines of a purchase that was parsed by `UnreadLines`.

    Without a member nobody earned what the rules would have granted.
    """
    effects = {}
    for raw in cast("list[bytes]", purchase.effects):
        line_number, rest = _split(raw)
        effects[line_number or common_pb2.LineEffects.FromString(rest).line_number] = rest
    outcomes = _OUTCOMES[has_member]
    lines = []
    for raw in cast("list[bytes]", purchase.receipt.lines):
        line_number, rest = _split(raw)
        sold = _SOLD[rest]
        line_number = sold.line_number or line_number
        lines.append(Line(number, line_number, sold, outcomes[effects.get(line_number, b"")]))
    return lines


def _split(raw: bytes) -> tuple[int, bytes]:
    """Split off the line number, which differs between lines that are the same otherwise.

    Everybody writes it first; should it stand elsewhere, this returns 0, and it is in the rest.
    """
    if raw[:1] == _LINE_NUMBER:
        if raw[1] < _MORE:
            return raw[1], raw[2:]
        if raw[2] < _MORE:
            return raw[1] - _MORE | raw[2] << 7, raw[3:]
    return 0, raw


def _sold(raw: bytes) -> _Sold:
    line = common_pb2.ReceiptLine.FromString(raw)
    values = (
        stored(line.sku),
        stored(line.category),
        stored(line.brand),
        [stored(tag) for tag in line.tags],
        line.quantity_milli,
        line.weighed,
        line.list_amount_minor,
        line.discount_minor,
    )
    return _Sold(line.line_number, line.list_amount_minor, line.discount_minor, values, text_of(values))


def _outcome(raw: bytes, *, has_member: bool) -> _Outcome:
    effects = common_pb2.LineEffects.FromString(raw)
    # Written by hand, ten times as fast as a general encoder.
    parts = [f"[{_quoted(part.promotion_id)},{part.amount_minor}]" for part in effects.discounts]
    earned = 0
    for accrual in effects.accruals if has_member else ():
        points_minor, unit, partner = accrual.points_minor, accrual.unit, accrual.partner
        whose = ""
        if unit or partner:
            whose = f",{_quoted(unit) if unit else 'null'},{_quoted(partner) if partner else 'null'}"
        parts.append(f"[{_quoted(accrual.promotion_id)},0,{points_minor},{accrual.base_minor}{whose}]")
        earned += 0 if unit else points_minor
    values = (effects.points_money_minor, earned, f"[{','.join(parts)}]")
    return _Outcome(values, text_of(values))


@lru_cache(KEPT)
def _quoted(text: str) -> str:
    return json.dumps(stored(text), ensure_ascii=False)


_SOLD: Final = _Kept(_sold)
_OUTCOMES: Final = {has_member: _Kept(partial(_outcome, has_member=has_member)) for has_member in (False, True)}


def _unread_lines() -> type[journal_pb2.Event]:
    """Make the class of the same messages in which the lines of purchases are of the type bytes.

    A message in another one is bytes on the wire, so that it can be read as either.
    """
    pool = DescriptorPool()
    added = set()

    def add(described: FileDescriptor) -> None:
        if described.name in added:
            return
        added.add(described.name)
        for imported in described.dependencies:
            add(imported)
        file = FileDescriptorProto()
        described.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if (message.name, field.name) in {("Purchase", "effects"), ("Receipt", "lines")}:
                    field.type = FieldDescriptorProto.TYPE_BYTES
                    field.ClearField("type_name")
        pool.Add(file)

    add(journal_pb2.DESCRIPTOR)
    made = GetMessageClass(pool.FindMessageTypeByName(journal_pb2.Event.DESCRIPTOR.full_name))
    return cast("type[journal_pb2.Event]", made)


UnreadLines: Final = _unread_lines()
"""Events of the journal in which ``purchase.effects`` and ``purchase.receipt.lines`` are lists of bytes."""
