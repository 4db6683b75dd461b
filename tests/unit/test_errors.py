"""Refusals: every named reason has its status code, and a refusal reads the same in a batch as in a status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2
from tallypoint.v1 import common_pb2 as api

from server.base.errors import STATUS_CODE_OF_REASON, Refused, StatusCode, reason_name, refusal_message
from server.edge.status import MAX_METADATA_BYTES, rpc_status

PROTO = Path(__file__).parents[2] / "proto/tallypoint/v1/common.proto"


def _promised_codes() -> dict[str, str]:
    """Read from the comments of common.proto which status code each reason promises."""
    text = PROTO.read_text()
    body = text[text.index("enum RefusalReason") :]
    body = body[: body.index("\n}")]
    found = {}
    for comment, name in re.findall(r"((?:  //[^\n]*\n)+)  (REFUSAL_REASON_\w+) =", body):
        codes = re.findall(r"\(([A-Z_]+)\)", comment.replace("\n", " "))
        if codes:
            found[name] = codes[-1]
    return found


def test_every_reason_but_unspecified_has_a_code() -> None:
    """A new reason cannot be forgotten."""
    assert set(STATUS_CODE_OF_REASON) == set(api.RefusalReason.values()) - {api.REFUSAL_REASON_UNSPECIFIED}


@pytest.mark.parametrize(("name", "code"), _promised_codes().items())
def test_codes_are_those_that_the_proto_file_promises(name: str, code: str) -> None:
    """The comment beside the reason is the contract."""
    assert STATUS_CODE_OF_REASON[cast("api.RefusalReason", api.RefusalReason.Value(name))] is StatusCode[code]


@pytest.mark.parametrize("code", StatusCode)
def test_status_codes_are_those_of_grpc(code: StatusCode) -> None:
    assert grpc.StatusCode[code.name].value[0] == code


def test_the_proto_file_promises_a_code_for_every_reason() -> None:
    """Otherwise the test above would prove less than it seems to."""
    assert len(_promised_codes()) == len(STATUS_CODE_OF_REASON)


def test_a_refusal_says_the_same_in_a_batch_as_in_a_status() -> None:
    """Reason, texts, fields and delay arrive both ways."""
    refused = Refused(
        api.REFUSAL_REASON_OVERLOADED,
        "too much",
        cashier_text="Wait a moment.",
        violations=[("receipt.lines[3].sku", "is empty")],
        retry_after_seconds=1.25,
    )
    message = refusal_message(refused)
    status = rpc_status(refused)
    assert message.code == status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert message.message == status.message == "too much"
    assert (message.violations[0].field, message.violations[0].description) == ("receipt.lines[3].sku", "is empty")
    assert (message.retry_after.seconds, message.retry_after.nanos) == (1, 250_000_000)
    info, bad_request, retry, localized = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.LocalizedMessage(),
    )
    for packed, detail in zip(status.details, (info, bad_request, retry, localized), strict=True):
        assert packed.Unpack(detail)
    assert (info.reason, info.domain) == ("OVERLOADED", "tallypoint")
    assert bad_request.field_violations[0].field == "receipt.lines[3].sku"
    assert retry.retry_delay == message.retry_after
    assert localized.message == message.cashier_text == "Wait a moment."


@pytest.mark.parametrize("letter", ["x", "ї", "漢"])
def test_a_status_stays_small_enough_for_a_header(letter: str) -> None:
    """Clients drop calls whose trailing metadata exceed 8 KiB."""
    violations = [(f"receipt.lines[{number}].sku", letter * 1000) for number in range(1000)]
    long = letter * 10_000
    refused = Refused(
        api.REFUSAL_REASON_INVALID_REQUEST, long, violations=violations, cashier_text=long, retry_after_seconds=1
    )
    status = rpc_status(refused)
    bad_request = error_details_pb2.BadRequest.FromString(status.details[1].value)
    assert bad_request.field_violations[0].field == "receipt.lines[0].sku"
    assert len(bad_request.field_violations) > 1
    sent_message_bytes = 3 * len(status.message.encode())
    sent_details_bytes = 4 / 3 * status.ByteSize()
    assert sent_message_bytes + sent_details_bytes < MAX_METADATA_BYTES - 200  # grpc adds some of its own


def test_reason_names_have_no_prefix() -> None:
    """ErrorInfo has its own domain."""
    assert reason_name(api.REFUSAL_REASON_MEMBER_BLOCKED) == "MEMBER_BLOCKED"
