"""Turns refusals and unexpected errors into gRPC statuses with details."""

from __future__ import annotations

import functools
import secrets
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tallypoint.v1 import common_pb2 as api

from server.base.database import CONNECTION_LOST, ledger_unavailable
from server.base.errors import ERROR_DOMAIN, Refused, duration_of_seconds
from server.measuring.logs import describe_error

_log = structlog.get_logger("tallypoint.edge")

DETAILS_KEY: Final = "grpc-status-details-bin"
LIVING_MEMBER_KEY: Final = "living_member_id"
"""The key in the metadata of ErrorInfo that names whom to ask for instead of a merged member."""
MAX_METADATA_BYTES: Final = 8 * 1024
"""What clients accept of trailing metadata in all; they drop calls with more. The limits below keep within it,
with the message percent-encoded (three bytes each) and the details in base 64 (a third more)."""
MAX_MESSAGE_BYTES: Final = 400
MAX_TEXT_BYTES: Final = 400
MAX_VIOLATIONS_BYTES: Final = 3400


async def abort(context: Any, refused: Refused) -> NoReturn:  # noqa: ANN401 - the context's type has no useful stub
    """End the call with the refusal's status. Always raises."""
    status = rpc_status(refused)
    await context.abort(
        grpc.StatusCode[refused.code.name], status.message, ((DETAILS_KEY, status.SerializeToString()),)
    )
    raise AssertionError("abort returned")


def rpc_status(refused: Refused) -> status_pb2.Status:
    """Return the refusal as a status with ErrorInfo and, where they apply, BadRequest, RetryInfo, LocalizedMessage."""
    status = status_pb2.Status(code=refused.code, message=_cut(refused.message, MAX_MESSAGE_BYTES))
    status.details.append(_error_info(refused.reason_name, refused.living_member_id))
    if refused.violations:
        status.details.append(_packed(_bad_request(refused)))
    if refused.retry_after_seconds is not None:
        status.details.append(_retry_info(refused.retry_after_seconds))
    if refused.cashier_text:
        text = _cut(refused.cashier_text, MAX_TEXT_BYTES)
        status.details.append(_packed(error_details_pb2.LocalizedMessage(locale="en", message=text)))
    return status


def _bad_request(refused: Refused) -> error_details_pb2.BadRequest:
    """Return as many violations as fit, the first ones."""
    bad_request = error_details_pb2.BadRequest()
    for field, text in refused.violations:
        violation = bad_request.field_violations.add(
            field=_cut(field, MAX_TEXT_BYTES), description=_cut(text, MAX_TEXT_BYTES)
        )
        if bad_request.ByteSize() > MAX_VIOLATIONS_BYTES:
            bad_request.field_violations.remove(violation)
            break
    return bad_request


@functools.lru_cache
def _error_info(reason_name: str, living_member_id: str) -> any_pb2.Any:
    metadata = {LIVING_MEMBER_KEY: living_member_id} if living_member_id else {}
    return _packed(error_details_pb2.ErrorInfo(reason=reason_name, domain=ERROR_DOMAIN, metadata=metadata))


@functools.lru_cache
def _retry_info(retry_after_seconds: float) -> any_pb2.Any:
    return _packed(error_details_pb2.RetryInfo(retry_delay=duration_of_seconds(retry_after_seconds)))


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, length_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= length_bytes:
        return text
    return encoded[: length_bytes - len("…".encode())].decode(errors="ignore") + "…"


def refused_of(error: Exception, method: str) -> Refused:
    """Return the refusal that stands for an error; what we did not expect is logged under an incident id."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, CONNECTION_LOST):
        _log.warning("database_away", method=method, **describe_error(error))
        return ledger_unavailable(error)
    incident = secrets.token_hex(6)
    _log.error("unexpected_error", method=method, incident=incident, **describe_error(error))
    return Refused(
        api.REFUSAL_REASON_INTERNAL,
        f"a mistake of the service, not of the request: report incident {incident}; it is in the service's log",
    )
