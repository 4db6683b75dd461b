"""Turns refusals and unexpected errors into gRPC statuses with details."""

from __future__ import annotations

import secrets
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tallypoint.v1 import common_pb2 as api

from server.database import CONNECTION_LOST, ledger_unavailable
from server.errors import ERROR_DOMAIN, Refused, duration_of_seconds
from server.logs import describe_error

_log = structlog.get_logger("tallypoint.edge")

DETAILS_KEY: Final = "grpc-status-details-bin"
MAX_VIOLATIONS: Final = 20
"""More would not fit: clients accept 8 KiB of metadata in all."""
MAX_TEXT_LENGTH: Final = 200
MAX_MESSAGE_LENGTH: Final = 500


async def abort(context: Any, refused: Refused) -> NoReturn:  # noqa: ANN401 - the context's type has no useful stub
    """End the call with the refusal's status. Always raises."""
    status = rpc_status(refused)
    await context.abort(refused.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returned")


def rpc_status(refused: Refused) -> status_pb2.Status:
    """Return the refusal as a `google.rpc.Status` with ErrorInfo and, where they apply, BadRequest, RetryInfo and
    LocalizedMessage.
    """
    numeric_code: int = refused.code.value[0]
    status = status_pb2.Status(code=numeric_code, message=_cut(refused.message, MAX_MESSAGE_LENGTH))
    _add(status, error_details_pb2.ErrorInfo(reason=refused.reason_name, domain=ERROR_DOMAIN))
    if refused.violations:
        _add(status, _bad_request(refused))
    if refused.retry_after_seconds is not None:
        delay = duration_of_seconds(refused.retry_after_seconds)
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if refused.cashier_text:
        text = _cut(refused.cashier_text, MAX_TEXT_LENGTH)
        _add(status, error_details_pb2.LocalizedMessage(locale="en", message=text))
    return status


def _bad_request(refused: Refused) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for field, text in refused.violations[:MAX_VIOLATIONS]:
        bad_request.field_violations.add(
            field=_cut(field, MAX_TEXT_LENGTH), description=_cut(text, MAX_TEXT_LENGTH)
        )
    return bad_request


def _add(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


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

