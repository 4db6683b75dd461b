"""What people are told of a broken limit: the field, the fault and the cure, in words, without anybody's data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import (
    checkout_pb2,
    correction_pb2,
    finance_pb2,
    journal_pb2,
    ledger_pb2,
    member_pb2,
    programme_pb2,
    reconciliation_pb2,
    rights_pb2,
    store_pb2,
)
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused
from server.base.scanned_text import visible_text
from server.edge.holdable import HAS_NUL, NO_TIME
from server.edge.validation import check, check_envelope
from server.edge.wording import FORMS, wording

VALIDATOR: Final = protovalidate.Validator()
FILES: Final = [
    module.DESCRIPTOR
    for module in (
        *(api, checkout_pb2, correction_pb2, finance_pb2, journal_pb2, ledger_pb2, member_pb2),
        *(programme_pb2, reconciliation_pb2, rights_pb2, store_pb2),
    )
]
PERSONAL: Final = "§"
"""Stands for somebody's name, phone or card: no text may show it."""


def all_types(descriptors: Any) -> Iterator[Any]:
    """Yield message types, and those that are declared inside them."""
    for descriptor in descriptors:
        yield descriptor
        yield from all_types(descriptor.nested_types)


TYPES: Final = {one.full_name: one for file in FILES for one in all_types(file.message_types_by_name.values())}


def rules_of(field: Any) -> Any:
    """Return the rules written at a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def pattern_of(field: Any) -> str:
    """Return the pattern of a field, or of the items in it."""
    rules = rules_of(field)
    return str(rules.repeated.items.string.pattern if field.is_repeated else rules.string.pattern)


def with_value(field: Any, value: Any) -> Message:
    """Return a message with nothing but one field; with nothing at all if the value is None."""
    message: Message = GetMessageClass(field.containing_type)()
    if value is None:
        pass
    elif not field.is_repeated:
        setattr(message, field.name, value)
    elif field.message_type is None:
        getattr(message, field.name).extend(value)
    else:
        for _ in value:
            getattr(message, field.name).add()
    return message


def odd_values(field: Any) -> list[Any]:
    """Return values that between them break all rules of a field."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        values: list[Any] = [b"", PERSONAL.encode()]
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        values = ["", PERSONAL, PERSONAL * 41, PERSONAL * 1001, PERSONAL * rules_of(field).string.max_bytes]
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        values = [0, 1, 99]
    elif field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}:
        most = 2**31 - 1 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 2**63 - 1
        values = [-most, 0, most]
    else:
        values = [None]
    if field.is_repeated:
        return [[], *([value] for value in values), values[:1] * (rules_of(field).repeated.max_items + 1)]
    return values


def is_of(violation: protovalidate.Violation, field: Any) -> bool:
    """Say whether a violation is of a field itself, or of an item in it."""
    path = violation.proto.field
    return path is not None and [one.field_name for one in path.elements] == [field.name]


def is_our_own_rule(violation: protovalidate.Violation) -> bool:
    """Say whether the proto file itself has the words: it does for rules that are expressions."""
    return violation.proto.rule is not None and violation.proto.rule.elements[0].field_name == "cel"


@pytest.mark.parametrize("name", TYPES)
def test_every_limit_of_the_api_is_told_in_words(name: str) -> None:
    """Whoever adds a rule or a pattern adds its words to server/edge/wording.py."""
    for field in TYPES[name].fields:
        assert pattern_of(field) in {"", *FORMS}, f"{field.full_name}: FORMS has no words for its pattern"
        for value in odd_values(field):
            message = with_value(field, value)
            for violation in VALIDATOR.collect_violations(message):
                if not is_of(violation, field) or is_our_own_rule(violation):
                    continue
                text = wording(violation, message)
                assert text != violation.proto.message, f"{field.full_name}: {violation.proto.rule_id} has no words"
                assert PERSONAL not in text


def test_every_choice_of_the_api_is_told_in_words() -> None:
    """A choice that must be made names what there is to choose from."""
    for descriptor in TYPES.values():
        for choice in descriptor.oneofs:
            if choice.GetOptions().Extensions[validate_pb2.oneof].required:
                with pytest.raises(Refused) as refused:
                    check(GetMessageClass(descriptor)())
                names = ", ".join(field.name for field in choice.fields)
                assert dict(refused.value.violations)[choice.name] == f"is not set: set one of {names}"


def test_no_words_are_left_of_patterns_that_are_gone() -> None:
    """The table has the patterns of the proto files and no others."""
    assert set(FORMS) == {pattern_of(field) for one in TYPES.values() for field in one.fields} - {""}


@pytest.mark.parametrize("name", [name for name, one in TYPES.items() if any(map(pattern_of, one.fields))])
def test_the_examples_are_right(name: str) -> None:
    """Who writes what the example shows is not refused for it."""
    for field in TYPES[name].fields:
        if pattern := pattern_of(field):
            example = FORMS[pattern].example
            message = with_value(field, [example] if field.is_repeated else example)
            assert not [one for one in VALIDATOR.collect_violations(message) if is_of(one, field)], field.full_name


BIRTHDAY: Final = "is not a day of the calendar written as YYYY-MM-DD, such as 2026-05-17 (or leave it empty)"
CODE: Final = "a code of Latin letters, digits, points, underscores and hyphens alone, such as kyiv-12"
A_UUID: Final = "a UUID, such as 0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"
TENDERS: Final = "TENDER_KIND_CASH or TENDER_KIND_CARD or TENDER_KIND_OTHER or TENDER_KIND_POINTS"
UNKNOWN_TENDER: Final = api.Tender.FromString(b"\x08\x63")
"""Of kind 99."""


@pytest.mark.parametrize(
    ("request_", "field", "text"),
    [
        pytest.param(
            member_pb2.NewMember(profile=member_pb2.Profile(birthday="1990-5-1")),
            "profile.birthday",
            BIRTHDAY,
            id="birthday-without-zeros",
        ),
        pytest.param(
            member_pb2.ImportMembersRequest(
                members=[member_pb2.NewMember()] * 3
                + [member_pb2.NewMember(profile=member_pb2.Profile(birthday="17.05.1990"))]
            ),
            "members[3].profile.birthday",
            BIRTHDAY,
            id="birthday-as-people-write-it",
        ),
        pytest.param(
            api.ReceiptKey(store_id="Kyiv 12"), "store_id", f"is not {CODE}", id="store-with-a-blank-in-its-number"
        ),
        pytest.param(api.ReceiptKey(), "store_id", f"is empty: must be {CODE}", id="no-store"),
        pytest.param(
            api.ReceiptKey(store_id="Київ" * 9),
            "store_id",
            f"must have 1 to 32 characters, not 36; is not {CODE}",
            id="store-that-is-wrong-twice",
        ),
        pytest.param(
            api.Receipt(currency_code="грн"),
            "currency_code",
            "is not a currency code of three capital letters, such as UAH",
            id="currency-as-printed",
        ),
        pytest.param(
            finance_pb2.RecordPointValueRequest(from_month="5/2026"),
            "from_month",
            "is not a month written as YYYY-MM, such as 2026-05",
            id="month",
        ),
        pytest.param(
            api.Tender(card_bin="4000 00"),
            "card_bin",
            "is not the first 6 to 8 digits of a payment card, such as 400000 (or leave it empty)",
            id="card-bin-with-a-blank",
        ),
        pytest.param(checkout_pb2.HoldRequest(message_id="7"), "message_id", f"is not {A_UUID}", id="no-uuid"),
        pytest.param(checkout_pb2.HoldRequest(), "message_id", f"is empty: must be {A_UUID}", id="no-message-id"),
        pytest.param(checkout_pb2.HoldRequest(), "receipt", "is missing", id="no-receipt"),
        pytest.param(
            checkout_pb2.HoldRequest(ttl_seconds=5),
            "ttl_seconds",
            "must be 10 to 3,600 seconds, or 0 for the programme's setting",
            id="hold-for-five-seconds",
        ),
        pytest.param(
            checkout_pb2.IdentifyRequest(identifier=api.Identifier()),
            "identifier.kind",
            "is not set: set one of card_number, phone, member_id, digital_token",
            id="nobody-named",
        ),
        pytest.param(
            checkout_pb2.QuoteRequest(spend_points_minor=-5),
            "spend_points_minor",
            "must be 0 to 1,000,000,000,000, not -5",
            id="points-below-zero",
        ),
        pytest.param(
            api.ReceiptLine(sku="4011"),
            "line_number",
            "is 0 or not set: must be 1 to 100,000",
            id="line-without-its-number",
        ),
        pytest.param(
            correction_pb2.RequestAdjustmentRequest(), "points_minor", "must not be 0", id="adjustment-of-nothing"
        ),
        pytest.param(api.Tender(), "kind", f"is not set: must be {TENDERS}", id="tender-of-no-kind"),
        pytest.param(UNKNOWN_TENDER, "kind", f"must be {TENDERS}, not 99", id="tender-of-a-later-version"),
        pytest.param(
            member_pb2.SetCardStatusRequest(status=member_pb2.CARD_STATUS_REPLACED),
            "status",
            "must be CARD_STATUS_ACTIVE or CARD_STATUS_BLOCKED, not 2",
            id="status-that-only-a-replacement-gives",
        ),
        pytest.param(
            checkout_pb2.QuoteRequest(coupon_codes=["x"] * 51),
            "coupon_codes",
            "must have at most 50 items, not 51",
            id="too-many-coupons",
        ),
        pytest.param(api.Receipt(), "lines", "is empty: must have 1 to 2,000 items", id="receipt-without-lines"),
        pytest.param(
            api.Identifier(phone="1" * 41), "phone", "must have 4 to 40 characters, not 41", id="phone-too-long"
        ),
        pytest.param(
            reconciliation_pb2.SourceFile(sha256=b"0" * 64), "sha256", "must have 32 bytes, not 64", id="hash-as-text"
        ),
        pytest.param(programme_pb2.CheckProgrammeRequest(text=""), "text", "is empty", id="empty-programme"),
        pytest.param(
            rights_pb2.BlockCouponsRequest(), "", "Name either codes or a series", id="fault-of-no-single-field"
        ),
    ],
)
def test_a_violation_says_what_is_wrong_and_what_is_right(request_: Message, field: str, text: str) -> None:
    """Once for each field, however many of its rules are broken."""
    with pytest.raises(Refused) as refused:
        check(request_)
    assert [told for name, told in refused.value.violations if name == field] == [text]


REASONS: Final = {
    "adjustment": (correction_pb2.RequestAdjustmentRequest, "note"),
    "rejection": (correction_pb2.RejectAdjustmentRequest, "note"),
    "merge": (correction_pb2.MergeMembersRequest, "reason"),
    "status of a member": (member_pb2.SetMemberStatusRequest, "reason"),
    "break": (reconciliation_pb2.WorkBreakRequest, "note"),
    "take-over": (checkout_pb2.HoldRequest, "takeover_reason"),
}


def faults(request: Message, field: str) -> list[str]:
    """Return what a caller is told of a field."""
    with pytest.raises(Refused) as refused:  # something else is always missing
        check(request)
    return [told for name, told in refused.value.violations if name == field]


@pytest.mark.parametrize(("kind", "field"), REASONS.values(), ids=REASONS)
@pytest.mark.parametrize(
    "nothing",
    [
        "  ",
        "\t\r\n",
        "\u00a0",
        "\u2003",
        "\u2800",
        "\u00ad",
        "\u200b",
        "\u200d",
        "\u202e",
        "\ufeff",
        "\u3164",
        "\ufe0f",
        " \u200b ",
    ],
    ids=ascii,
)
def test_a_reason_that_nobody_can_see_is_none(kind: type[Message], field: str, nothing: str) -> None:
    (told,) = faults(kind(**{field: nothing}), field)
    assert told.startswith("is not a text with characters that can be seen, such as ")


@pytest.mark.parametrize(("kind", "field"), REASONS.values(), ids=REASONS)
@pytest.mark.parametrize(
    "reason",
    ["x", "?", "7", "👍", "❤\ufe0f", " з чеком\nз пошти ", "می\u200cخواهم", "कि", "\u202eabc", "補", "€"],
    ids=ascii,
)
def test_a_reason_may_be_of_any_script(kind: type[Message], field: str, reason: str) -> None:
    assert not faults(kind(**{field: reason}), field)


def test_only_a_take_over_needs_a_reason() -> None:
    assert not faults(checkout_pb2.HoldRequest(takeover_reason=""), "takeover_reason")
    for kind, field in set(REASONS.values()) - {REASONS["take-over"]}:
        assert faults(kind(), field)


def test_every_character_without_a_shape_is_known_to_the_pattern() -> None:
    """The pattern of the API refuses all that leaves nothing of a text as people see it."""
    wire = (chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    unseen = [one for one in wire if not visible_text(one)]
    assert len(unseen) > 60
    for one in unseen:
        assert faults(correction_pb2.RejectAdjustmentRequest(note=one), "note"), ascii(one)


@pytest.mark.parametrize(
    ("request_", "field", "text"),
    [
        pytest.param(api.Receipt(currency_code="UAH\x00"), "currency_code", HAS_NUL, id="text"),
        pytest.param(
            api.Receipt(lines=[api.ReceiptLine(), api.ReceiptLine(tags=["a", "\x00"])]),
            "lines[1].tags[1]",
            HAS_NUL,
            id="text in a list in a list",
        ),
        pytest.param(store_pb2.GetProductRequest(sku="\x00"), "sku", HAS_NUL, id="text of a back-office call"),
        pytest.param(
            programme_pb2.CheckProgrammeRequest(document={"a": {"b": ["x", "\x00"]}}),
            "document.fields['a'].struct_value.fields['b'].list_value.values[1].string_value",
            HAS_NUL,
            id="text deep in a document",
        ),
        pytest.param(
            programme_pb2.CheckProgrammeRequest(document={"\x00": 1}), "document.fields['\\x00']", HAS_NUL, id="its key"
        ),
        pytest.param(
            member_pb2.NewMember(registered_at=Timestamp(seconds=2**63 - 1)),
            "registered_at",
            NO_TIME,
            id="milliseconds",
        ),
        pytest.param(
            correction_pb2.ListAdjustmentsRequest(requested_from=Timestamp(nanos=-1)),
            "requested_from",
            NO_TIME,
            id="nanos",
        ),
    ],
)
def test_what_no_field_can_hold_is_named(request_: Message, field: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        check(request_)
    assert refused.value.violations == ((field, text),)


def test_items_of_their_own_are_no_fault_of_their_envelope() -> None:
    check(rights_pb2.LoadCouponsRequest(series="spring", coupons=[rights_pb2.CouponRow(code="\x00")]))
    check_envelope(member_pb2.ImportMembersRequest(members=[member_pb2.NewMember(phone="\x00")]))


def test_the_message_of_a_refusal_begins_with_its_first_violation() -> None:
    """The register's log shows what is wrong without a look at the details."""
    with pytest.raises(Refused) as refused:
        check(api.Receipt(currency_code="грн"))
    (first, text), *more = refused.value.violations
    assert refused.value.message == f"{first}: {text} (and {len(more)} more)"


def test_an_envelope_is_told_of_in_the_same_words() -> None:
    """And its items are not told of."""
    batch = checkout_pb2.CommitBatchRequest(commits=[checkout_pb2.CommitRequest()] * 501)
    with pytest.raises(Refused) as refused:
        check_envelope(batch)
    assert refused.value.violations == (("commits", "must have 1 to 500 items, not 501"),)
