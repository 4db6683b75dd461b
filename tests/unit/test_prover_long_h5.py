"""The proof of a request against protovalidate: it never says yes where that finds a fault, and it does say yes."""

from __future__ import annotations

import uuid
from typing import Any

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from tallypoint.v1 import (
    checkout_pb2,
    correction_pb2,
    finance_pb2,
    ledger_pb2,
    member_pb2,
    programme_pb2,
    reconciliation_pb2,
    rights_pb2,
    store_pb2,
)
from tallypoint.v1 import common_pb2 as api

from server.edge.prover import prover

VALIDATOR = protovalidate.Validator()
NUMBERS = [0, 1, -1, 2, 3, 4, 9, 10, 100_000, 100_001, 10**9, 10**9 + 1, 10**12, 10**12 + 1, 10**15, 10**15 + 1]
LENGTHS = [0, 1, 3, 4, 7, 8, 16, 17, 32, 33, 40, 41, 64, 65, 128, 129, 200, 201]
TEXTS = [
    *("UAH", "UAH\n", "uah", "2026-11-22", "2026-11-22\n", "2026-13-01", "2026-1-1", "٢٠٢٦-11-22", "Ω" * 64, "Ω" * 65),
    *("123456", "12345", "12345678", "123456789", "a b", "\t", "\x7f", "é", "𝔘" * 32, "-", ".", "A_b-9.", "A_b-9.\n"),
    *(str(uuid.UUID(int=7)), str(uuid.UUID(int=2**128 - 1)).upper(), uuid.UUID(int=7).hex, f"{uuid.UUID(int=7)} "),
    *("+380501234567", "Europe/Kyiv", "9" * 40, "\u0085", "a\x00b", "programme", "uk"),
]


def receipt(lines: int = 2) -> api.Receipt:
    """Return a sound receipt."""
    receipt = api.Receipt(currency_code="UAH", channel="delivery", terminal_kind=api.TERMINAL_KIND_LANE)
    receipt.event_at.GetCurrentTime()
    for number in range(1, lines + 1):
        receipt.lines.add(line_number=number, sku="milk", tags=["fresh"], quantity_milli=1000, list_amount_minor=100)
    receipt.tenders.add(kind=api.TENDER_KIND_CARD, amount_minor=100, card_bin="400000")
    return receipt


CARD = api.Identifier(card_number="2000000000008")
RECEIPT_KEY = api.ReceiptKey(store_id="12", terminal_id="1", business_date="2026-11-22", receipt_number=7)
CHECKOUT_KEY = checkout_pb2.CheckoutKey(store_id="12", terminal_id="1", checkout_id="c")
MESSAGE_ID = str(uuid.UUID(int=5))
COMMIT = checkout_pb2.CommitRequest(
    message_id=MESSAGE_ID,
    receipt_key=RECEIPT_KEY,
    identifier=CARD,
    receipt=receipt(),
    spend_points_minor=5,
    coupon_codes=["SPRING-1"],
    spend_units=[api.UnitPoints(unit="gift", points_minor=1)],
)
SOUND: dict[str, Message] = {
    "identify": checkout_pb2.IdentifyRequest(identifier=api.Identifier(phone="+380501234567")),
    "quote": checkout_pb2.QuoteRequest(receipt=receipt(), coupon_codes=["SPRING-1"]),
    "hold": checkout_pb2.HoldRequest(
        message_id=MESSAGE_ID, checkout_key=CHECKOUT_KEY, identifier=CARD, receipt=receipt(), spend_points_minor=5
    ),
    "commit": COMMIT,
    "cancel": checkout_pb2.CancelRequest(message_id=MESSAGE_ID, checkout_key=CHECKOUT_KEY, reason="left"),
    "return": checkout_pb2.ReturnRequest(
        message_id=MESSAGE_ID, receipt_key=RECEIPT_KEY, purchase_key=RECEIPT_KEY, event_at=receipt().event_at
    ),
    "batch": checkout_pb2.CommitBatchRequest(commits=[COMMIT, COMMIT]),
    "session": checkout_pb2.SessionRequest(correlation_id=1, commit=COMMIT, timeout_milliseconds=3000),
}
SERVICES = [
    service
    for module in (
        *(checkout_pb2, correction_pb2, finance_pb2, ledger_pb2, member_pb2, programme_pb2),
        *(reconciliation_pb2, rights_pb2, store_pb2),
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]
REQUESTS = {method.input_type.full_name: method.input_type for service in SERVICES for method in service.methods}
PROOFS = {name: prover(kind) for name, kind in REQUESTS.items()}


def assert_right(message: Message) -> None:
    """Hold the proof against protovalidate."""
    if PROOFS[message.DESCRIPTOR.full_name](message):
        assert not VALIDATOR.collect_violations(message), message


@pytest.mark.parametrize("name", SOUND)
def test_sound_requests_are_proved(name: str) -> None:
    """What registers send takes the fast way."""
    message = SOUND[name]
    assert not VALIDATOR.collect_violations(message)
    assert PROOFS[message.DESCRIPTOR.full_name](message)


def _value(field: FieldDescriptor, draw: Any) -> Any:
    """Draw a value of a plain field, often at a limit."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return draw(st.binary(max_size=70))
        lengths = st.builds(
            lambda letter, length: letter * length, st.sampled_from("a7Z-Ω \n"), st.sampled_from(LENGTHS)
        )
        return draw(st.sampled_from(TEXTS) | lengths | st.text(max_size=70))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return draw(st.floats(allow_nan=False, width=32))
    bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM) else 64
    number = draw(st.sampled_from(NUMBERS) | st.integers(-(2**31), 2**31 - 1))
    if field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        number = abs(number)
    return max(min(number, 2 ** (bits - 1) - 1), -(2 ** (bits - 1)))


def change(message: Message, draw: Any, depth: int = 0) -> None:
    """Change something in a message, or in one inside it."""
    descriptor: Any = message.DESCRIPTOR
    if not descriptor.fields:
        return
    field = draw(st.sampled_from(list(descriptor.fields)))
    if draw(st.integers(0, 5)) == 0:
        message.ClearField(field.name)
    elif field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    elif field.is_repeated:
        values = getattr(message, field.name)
        if field.message_type is None:
            values.extend([_value(field, draw)] * draw(st.sampled_from([1, 2, 16, 50])))
        elif not values or draw(st.booleans()):
            change(values.add(), draw, depth + 1)
        else:
            change(values[draw(st.integers(0, len(values) - 1))], draw, depth + 1)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        if depth < 6:
            change(getattr(message, field.name), draw, depth + 1)
    else:
        setattr(message, field.name, _value(field, draw))


@settings(max_examples=3000, deadline=None)
@given(st.data(), st.sampled_from(sorted(SOUND)))
def test_nothing_is_proved_that_breaks_a_limit(data: st.DataObject, name: str) -> None:
    """Sound requests with a few things changed are those nearest to the limits."""
    message = type(SOUND[name])()
    message.CopyFrom(SOUND[name])
    for _ in range(data.draw(st.integers(1, 3))):
        change(message, data.draw)
    assert_right(message)


@settings(max_examples=3000, deadline=None)
@given(st.data(), st.sampled_from(sorted(REQUESTS)))
def test_nothing_is_proved_of_any_request_that_breaks_a_limit(data: st.DataObject, name: str) -> None:
    """The same for every call of both ports, from nothing."""
    message = GetMessageClass(REQUESTS[name])()
    for _ in range(data.draw(st.integers(0, 8))):
        change(message, data.draw)
    assert_right(message)


def message_with(rule: str, kind: str, value: Any, label: str = "LABEL_OPTIONAL") -> Message:
    """Return a message of a type of its own, whose one field has a rule and a value."""
    package = f"t{uuid.uuid4().hex}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.append("buf/validate/validate.proto")
    field = file.message_type.add(name="M").field.add(name="value", number=1)
    field.label = descriptor_pb2.FieldDescriptorProto.Label.Value(label)
    field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind}")
    rules: Any = validate_pb2.FieldRules()
    text_format.Parse(rule, rules)
    extension: Any = validate_pb2.field
    field.options.Extensions[extension].CopyFrom(rules)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    message = GetMessageClass(pool.FindMessageTypeByName(f"{package}.M"))(value=value)
    assert isinstance(message, Message)
    return message


@pytest.mark.parametrize(
    ("rule", "kind", "sound", "faulty"),
    [
        pytest.param("int64: {gt: 3}", "INT64", [4, 2**62], [3, -5], id="gt"),
        pytest.param("sint32: {gte: -3, lt: 7}", "SINT32", [-3, 6], [-4, 7], id="range"),
        pytest.param("int32: {gt: 10, lt: 5}", "INT32", [], [5, 7, 10], id="range-inside-out"),
        pytest.param("uint32: {in: [1, 5]}", "UINT32", [5], [2], id="in"),
        pytest.param("int32: {not_in: [0, 5]}", "INT32", [1], [0, 5], id="not-in"),
        pytest.param("int32: {const: 4}", "INT32", [], [5], id="const-is-not-known"),
        pytest.param('string: {pattern: "^a|b$"}', "STRING", ["a", "b"], ["c", ""], id="alternatives"),
        pytest.param('string: {pattern: "ab"}', "STRING", [], ["a"], id="pattern-anywhere-is-not-known"),
        pytest.param(r'string: {pattern: "^\\d+$"}', "STRING", [], ["x", "٣"], id="escapes-are-not-known"),
        pytest.param('string: {pattern: "^[^[:cntrl:]]+$"}', "STRING", ["a", "\x85"], ["", "a\n", "\x7f"], id="cntrl"),
        pytest.param("string: {max_bytes: 2}", "STRING", [], ["abc"], id="bytes-are-not-known"),
        pytest.param("string: {email: true}", "STRING", [], ["x"], id="email-is-not-known"),
        pytest.param("required: true", "STRING", [], [""], id="required-text-is-not-known"),
        pytest.param("bytes: {len: 2}", "BYTES", [], [b"a"], id="rules-of-bytes-are-not-known"),
        pytest.param(
            'cel: {id: "x" message: "x" expression: "this > 2"}', "INT32", [], [1], id="expressions-are-not-known"
        ),
    ],
)
def test_single_rules(rule: str, kind: str, sound: list[Any], faulty: list[Any]) -> None:
    """What is sound is proved where the rule is known; what is faulty never is."""
    for value in sound:
        message = message_with(rule, kind, value)
        assert not VALIDATOR.collect_violations(message), value
        assert prover(message.DESCRIPTOR)(message), value
    for value in faulty:
        message = message_with(rule, kind, value)
        assert not prover(message.DESCRIPTOR)(message), value


@pytest.mark.parametrize(
    ("rule", "kind", "sound", "faulty"),
    [
        pytest.param("repeated: {min_items: 1, max_items: 2}", "INT32", [[0], [1, 2]], [[], [1, 2, 3]], id="items"),
        pytest.param("repeated: {items: {int32: {gt: 0}}}", "INT32", [[], [1]], [[1, 0]], id="each"),
        pytest.param("repeated: {unique: true}", "INT32", [[]], [[1, 1]], id="unique-is-not-known"),
    ],
)
def test_rules_of_lists(rule: str, kind: str, sound: list[Any], faulty: list[Any]) -> None:
    """How many, and each of them."""
    for value in sound:
        message = message_with(rule, kind, value, "LABEL_REPEATED")
        assert prover(message.DESCRIPTOR)(message), value
    for value in faulty:
        message = message_with(rule, kind, value, "LABEL_REPEATED")
        assert not prover(message.DESCRIPTOR)(message), value
