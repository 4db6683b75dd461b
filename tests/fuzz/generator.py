"""Requests made from the descriptors of the API: most of them nearly right, so that they get deep."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2, member_pb2, programme_pb2, reconciliation_pb2, store_pb2

from tests.fuzz.pools import (
    EVIL_NANOS,
    EVIL_NUMBERS,
    EVIL_SECONDS,
    EVIL_TEXTS,
    KINDS,
    Known,
    moment_seconds,
    new_uuid,
)
from tests.fuzz.programmes import a_document, a_text

TAMENESS: Final = ((0.0, 45), (0.02, 35), (0.1, 15), (0.5, 5))
"""How probable a value at the edge of what is possible is, and of how many requests in a hundred."""
DAMAGED: Final = 0.03
"""The share of requests of which some bytes are changed after they were serialised."""
BAD_UTF8: Final = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")
LONG_LISTS: Final = (500, 501, 2000, 2001, 5000, 5001)
DEPTH: Final = 12
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
_UUID_FIELDS: Final = frozenset(("message_id", "request_id", "load_id"))


class _Field(NamedTuple):
    """A field, its rules, the choice that it belongs to (empty: none), and whether a sound message has it."""

    field: FieldDescriptor
    rules: Any
    choice: str
    must_be_set: bool


class _Plan(NamedTuple):
    """How a type of message is made: reading its descriptor anew would take most of the time."""

    kind: type[Message]
    choices: dict[str, list[str]]
    fields: list[_Field]


_plans: dict[str, _Plan] = {}


def _plan(descriptor: Any) -> _Plan:
    fields = []
    for field in descriptor.fields:
        rules: Any = field.GetOptions().Extensions[validate_pb2.field]
        must = rules.required or rules.string.min_len or rules.string.uuid or rules.string.pattern.startswith("^[")
        must = must or rules.repeated.min_items or (not rules.HasField("string") and not field.is_repeated)
        choice = field.containing_oneof
        fields.append(_Field(field, rules, "" if choice is None else choice.name, bool(must)))
    choices = {one.name: [field.name for field in one.fields] for one in descriptor.oneofs}
    made = _plans[descriptor.full_name] = _Plan(GetMessageClass(descriptor), choices, fields)
    return made


class Generator:
    """Makes requests. The same dice make the same requests as long as the same is known."""

    def __init__(self, dice: random.Random, known: Known) -> None:
        self._dice = dice
        self._known = known
        self._evil = 0.0
        self._mend: Mapping[type[Message], Callable[[Any], None]] = {
            common_pb2.Receipt: self._mend_receipt,
            common_pb2.ReceiptKey: self._mend_receipt_key,
            checkout_pb2.ReturnRequest: self._mend_return,
            checkout_pb2.SessionRequest: self._mend_session,
            checkout_pb2.HoldRequest: self._mend_hold,
            common_pb2.UnitPoints: self._mend_unit,
            reconciliation_pb2.SourceFile: self._mend_file,
            member_pb2.NewMember: self._mend_member,
            store_pb2.PutStoreRequest: self._mend_store,
            programme_pb2.CheckProgrammeRequest: self._mend_programme,
            programme_pb2.PublishProgrammeRequest: self._mend_programme,
        }

    def message(self, descriptor: Any) -> Message:
        """Return a request of a type."""
        chances, weights = zip(*TAMENESS, strict=True)
        self._evil = self._dice.choices(chances, weights)[0]
        return self._message(descriptor, 0)

    def raw(self, descriptor: Any) -> bytes:
        """Return a request of a type, serialised, and sometimes damaged."""
        raw = self.message(descriptor).SerializeToString()
        return self._damaged(raw) if self._dice.random() < DAMAGED else raw

    def _damaged(self, raw: bytes) -> bytes:
        dice, data = self._dice, bytearray(raw)
        for _ in range(dice.choice((1, 1, 2, 8))):
            at = dice.randrange(len(data) + 1)
            what = dice.randrange(4)
            if what == 0:
                data[at:at] = dice.choice(BAD_UTF8)
            elif what == 1:
                del data[at : at + dice.choice((1, 2, 16))]
            elif what == 2:
                data[at : at + 1] = dice.randbytes(1)
            else:
                data[at:at] = data[: dice.randrange(40)]
        return bytes(data)

    def _is_evil(self) -> bool:
        return self._dice.random() < self._evil

    def _message(self, descriptor: Any, depth: int) -> Message:
        if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
            return self._timestamp()
        plan = _plans.get(descriptor.full_name) or _plan(descriptor)
        message = plan.kind()
        if isinstance(message, Struct):
            message.update(a_document(self._dice))
            return message
        chosen = {name: self._dice.choice(fields) for name, fields in plan.choices.items()}
        for field, rules, choice, must_be_set in plan.fields:
            is_wanted = chosen[choice] == field.name if choice else self._is_wanted(must_be_set)
            if is_wanted and (field.message_type is None or depth < DEPTH):
                self._fill(message, field, rules, depth)
        mend = self._mend.get(type(message))
        if mend is not None and not self._is_evil():
            mend(message)
        return message

    def _is_wanted(self, must_be_set: bool) -> bool:
        return not self._is_evil() and (must_be_set or self._dice.random() < 0.5)

    def _fill(self, message: Message, field: FieldDescriptor, rules: Any, depth: int) -> None:
        if not field.is_repeated:
            if field.message_type is not None:
                getattr(message, field.name).CopyFrom(self._message(field.message_type, depth + 1))
            else:
                setattr(message, field.name, self._scalar(field, rules))
            return
        values = getattr(message, field.name)
        count = self._count(rules.repeated)
        if field.message_type is None:
            values.extend(self._scalar(field, rules.repeated.items) for _ in range(count))
            return
        made = [self._message(field.message_type, depth + 1) for _ in range(min(count, 6))]
        for index in range(count):
            values.add().CopyFrom(made[index % len(made)])

    def _count(self, limits: Any) -> int:
        if self._is_evil():
            return self._dice.choice(LONG_LISTS) if self._dice.random() < 0.02 else self._dice.choice((0, 1, 51, 65))
        least: int = limits.min_items
        return max(least, self._dice.choice((0, 1, 1, 2, 3, 5)))

    def _scalar(self, field: FieldDescriptor, rules: Any) -> Any:
        dice = self._dice
        if field.enum_type is not None:
            numbers = [value.number for value in field.enum_type.values]
            return (
                dice.choice((*numbers, 99, -1, _INT32_MAX)) if self._is_evil() else dice.choice(numbers[1:] or numbers)
            )
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field, rules.string)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return dice.randbytes(dice.choice((0, 1, 32, 33, 400)) if self._is_evil() else 32)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return dice.random() < 0.3
        assert field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64), field.full_name
        is_int32 = field.type == FieldDescriptor.TYPE_INT32
        return self._number(rules.int32 if is_int32 else rules.int64, _INT32_MAX if is_int32 else _INT64_MAX)

    def _number(self, limits: Any, most: int) -> int:
        dice = self._dice
        low_rule, high_rule = limits.WhichOneof("greater_than"), limits.WhichOneof("less_than")
        low: int = getattr(limits, low_rule) + (low_rule == "gt") if low_rule else 0
        high: int = getattr(limits, high_rule) - (high_rule == "lt") if high_rule else most
        if self._is_evil():
            edges = (low, low - 1, high, high + 1, *EVIL_NUMBERS)
            return min(max(dice.choice(edges), -most - 1), most)
        if dice.random() < 0.03:
            return dice.choice((low, high))
        usual = dice.choice((0, 1, 2, 5, 10, 50, 100, 300, 1000, 2500, 12_000, 100_000))
        return min(max(low, usual), high)

    def _text(self, field: FieldDescriptor, limits: Any) -> str:
        dice = self._dice
        if self._is_evil():
            evil = dice.choice(EVIL_TEXTS)
            known = self._known.pick(KINDS.get(field.name, field.name), dice)
            return evil if known is None or dice.random() < 0.5 else dice.choice((known + evil, evil + known))
        if field.name in _UUID_FIELDS:
            made = self._known.pick("request_id", dice) if dice.random() < 0.15 else None
            made = made or new_uuid(dice)
            self._known.learn("request_id", made)
            return made
        if field.name == "text":
            return a_text(dice)
        known = self._known.pick(KINDS.get(field.name, field.name), dice)
        if known is not None:
            return known
        least: int = limits.min_len
        return "a" * max(least, dice.choice((0, 1, 8)))

    def _timestamp(self) -> Timestamp:
        if self._is_evil():
            return Timestamp(seconds=self._dice.choice(EVIL_SECONDS), nanos=self._dice.choice((0, *EVIL_NANOS)))
        return Timestamp(seconds=moment_seconds(self._dice), nanos=self._dice.choice((0, 0, 1, 999_999_999)))

    # --- what makes a message one that a shop would send -------------------------------------------------------------

    def _mend_receipt(self, receipt: common_pb2.Receipt) -> None:
        for number, line in enumerate(receipt.lines, start=1):
            line.line_number = number
            line.quantity_milli = line.quantity_milli or 1000
            line.floor_amount_minor = min(line.floor_amount_minor, line.list_amount_minor)
            if self._dice.random() < 0.8:
                line.discount_minor = min(line.discount_minor, line.list_amount_minor // 10)
        if self._dice.random() < 0.7:
            del receipt.tenders[:]
            due = sum(line.list_amount_minor - line.discount_minor for line in receipt.lines)
            receipt.tenders.add(kind=common_pb2.TENDER_KIND_CASH, amount_minor=max(0, min(due, 10**12)))

    def _mend_receipt_key(self, key: common_pb2.ReceiptKey) -> None:
        key.receipt_number = self._dice.choice((1, 2, 3, self._dice.randint(1, 10**6), self._dice.randint(1, 10**15)))

    def _mend_return(self, request: checkout_pb2.ReturnRequest) -> None:
        if self._known.receipt_keys:
            request.purchase_key.CopyFrom(self._dice.choice(self._known.receipt_keys))
        if self._dice.random() < 0.4:
            del request.lines[:]
        for line in request.lines:
            line.line_number = self._dice.choice((1, 1, 2, 3))

    def _mend_hold(self, request: checkout_pb2.HoldRequest) -> None:
        request.ttl_seconds = self._dice.choice((0, 10, 60, 3600))
        request.spend_points_minor = min(request.spend_points_minor, 500)

    def _mend_unit(self, points: common_pb2.UnitPoints) -> None:
        points.unit = self._dice.choice(("gift", "deposit", "deposit"))

    def _mend_session(self, request: checkout_pb2.SessionRequest) -> None:
        request.timeout_milliseconds = 0

    def _mend_file(self, file: reconciliation_pb2.SourceFile) -> None:
        file.part = file.parts = 1

    def _mend_member(self, member: member_pb2.NewMember) -> None:
        if self._dice.random() < 0.8:
            member.ClearField("member_id")
        member.profile.birthday = self._dice.choice(("", "1990-05-17", "2000-02-29", "1905-01-01"))

    def _mend_store(self, request: store_pb2.PutStoreRequest) -> None:
        """Most of the shop stays as it is."""
        if self._dice.random() < 0.9:
            request.store.store_id = f"new-{self._dice.randrange(20)}"

    def _mend_programme(self, request: Any) -> None:
        """Most programmes are published for few receipts, so that those of the others are judged as before."""
        if isinstance(request, programme_pb2.PublishProgrammeRequest) and self._dice.random() < 0.8:
            request.rollout.mode = self._dice.choice(
                (programme_pb2.ROLLOUT_MODE_SHADOW, programme_pb2.ROLLOUT_MODE_LIVE)
            )
            request.rollout.share_millionths = self._dice.choice((1, 1000, 100_000))
            request.rollout.by = programme_pb2.ROLLOUT_BY_RECEIPTS
            request.rollout.ClearField("from_at")
