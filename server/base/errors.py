"""Refusals: the business answers that are not a success.

Code anywhere below the edge raises `Refused`, or carries it as a value; only the outermost wrapper of a call
(`server.edge`) turns it into a gRPC status, and only batch results and streams turn it into a `Refusal` message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from tallypoint.v1 import common_pb2 as api

ERROR_DOMAIN: Final = "tallypoint"
_REASON_PREFIX: Final = "REFUSAL_REASON_"
_NANOSECONDS_PER_SECOND: Final = 1_000_000_000

_Code = grpc.StatusCode

STATUS_CODE_OF_REASON: Final[dict[api.RefusalReason, grpc.StatusCode]] = {
    api.REFUSAL_REASON_INVALID_REQUEST: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_UNAUTHENTICATED: _Code.UNAUTHENTICATED,
    api.REFUSAL_REASON_FOREIGN_STORE: _Code.PERMISSION_DENIED,
    api.REFUSAL_REASON_ROLE_FORBIDDEN: _Code.PERMISSION_DENIED,
    api.REFUSAL_REASON_IDENTIFIER_UNKNOWN: _Code.NOT_FOUND,
    api.REFUSAL_REASON_CARD_FOREIGN: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_PHONE_INVALID: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_MEMBER_BLOCKED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CARD_REPLACED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CARD_BLOCKED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_MESSAGE_ID_REUSED: _Code.ALREADY_EXISTS,
    api.REFUSAL_REASON_RECEIPT_KEY_REUSED: _Code.ALREADY_EXISTS,
    api.REFUSAL_REASON_IDENTIFIER_TAKEN: _Code.ALREADY_EXISTS,
    api.REFUSAL_REASON_CURRENCY_FOREIGN: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_NO_PROGRAMME: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_NOT_FOUND: _Code.NOT_FOUND,
    api.REFUSAL_REASON_OVERLOADED: _Code.RESOURCE_EXHAUSTED,
    api.REFUSAL_REASON_DEADLINE_PASSED: _Code.DEADLINE_EXCEEDED,
    api.REFUSAL_REASON_LEDGER_UNAVAILABLE: _Code.UNAVAILABLE,
    api.REFUSAL_REASON_INTERNAL: _Code.INTERNAL,
    api.REFUSAL_REASON_PROGRAMME_INVALID: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_NOT_YET_AVAILABLE: _Code.UNIMPLEMENTED,
    api.REFUSAL_REASON_ALREADY_EXISTS: _Code.ALREADY_EXISTS,
    api.REFUSAL_REASON_SPENDING_FORBIDDEN: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_POINTS_INSUFFICIENT: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_HOLD_GONE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_HELD_ELSEWHERE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_PURCHASE_UNKNOWN: _Code.NOT_FOUND,
    api.REFUSAL_REASON_APPROVAL_NEEDED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOSE_ORDER: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_MEMBER_MERGED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_UNKNOWN: _Code.NOT_FOUND,
    api.REFUSAL_REASON_COUPON_USED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_NOT_VALID: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_FOREIGN: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_HELD_ELSEWHERE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_WITHOUT_EFFECT: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_POINTS_STRANDED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOSE_INCOMPLETE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOCK_AHEAD: _Code.INVALID_ARGUMENT,
    api.REFUSAL_REASON_SPENDING_ABOVE_SHARE: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_ABOVE_GOODS: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_GOODS_EXCLUDED: _Code.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_BROKEN_STEP: _Code.FAILED_PRECONDITION,
}
"""The gRPC status code of each named reason, as the comments of `common.proto` promise them."""


class Refused(Exception):
    """A command that was not carried out, with a named reason. Nothing was stored.

    Args:
        reason: The name that programs act on.
        message: What went wrong and what to do, for the engineer who reads the register's log. It holds no
            personal data: it may be logged.
        cashier_text: What the cashier should do now; empty where a cashier cannot help.
        violations: Pairs of field path (such as ``receipt.lines[3].sku``) and what is wrong with it.
        retry_after_seconds: How long to wait before the same command may be sent again; None when a retry
            cannot help.
        living_member_id: For MEMBER_MERGED, the id of the member to name instead; empty otherwise.
    """

    __slots__ = ("cashier_text", "living_member_id", "message", "reason", "retry_after_seconds", "violations")

    def __init__(
        self,
        reason: api.RefusalReason,
        message: str,
        *,
        cashier_text: str = "",
        violations: Sequence[tuple[str, str]] = (),
        retry_after_seconds: float | None = None,
        living_member_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.cashier_text = cashier_text
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.living_member_id = living_member_id

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code of the reason."""
        return STATUS_CODE_OF_REASON[self.reason]

    @property
    def reason_name(self) -> str:
        """The reason as `google.rpc.ErrorInfo` names it, without the prefix of the enum."""
        return reason_name(self.reason)


def reason_name(reason: api.RefusalReason) -> str:
    """Return the reason's name without its prefix, such as ``MEMBER_BLOCKED``."""
    return api.RefusalReason.Name(reason).removeprefix(_REASON_PREFIX)


def duration_of_seconds(seconds: float) -> Duration:
    """Return a protobuf Duration of a delay in seconds."""
    nanoseconds = round(seconds * _NANOSECONDS_PER_SECOND)
    return Duration(seconds=nanoseconds // _NANOSECONDS_PER_SECOND, nanos=nanoseconds % _NANOSECONDS_PER_SECOND)


def refusal_message(error: Refused) -> api.Refusal:
    """Return the refusal as a message, for batch results and streams."""
    numeric_code: int = error.code.value[0]
    refusal = api.Refusal(
        code=numeric_code,
        reason=error.reason,
        message=error.message,
        cashier_text=error.cashier_text,
        violations=[api.FieldViolation(field=field, description=text) for field, text in error.violations],
        living_member_id=error.living_member_id,
    )
    if error.retry_after_seconds is not None:
        refusal.retry_after.CopyFrom(duration_of_seconds(error.retry_after_seconds))
    return refusal


def refused_of_message(refusal: api.Refusal) -> Refused:
    """Return the refusal that a message tells of; the other way round than `refusal_message`."""
    wait = refusal.retry_after if refusal.HasField("retry_after") else None
    return Refused(
        refusal.reason,
        refusal.message,
        cashier_text=refusal.cashier_text,
        violations=[(each.field, each.description) for each in refusal.violations],
        retry_after_seconds=None if wait is None else wait.seconds + wait.nanos / _NANOSECONDS_PER_SECOND,
        living_member_id=refusal.living_member_id,
    )


def invalid_request(violations: list[tuple[str, str]]) -> Refused:
    """Return the refusal of a request with these (field, what is wrong) pairs."""
    field, text = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    message = f"{field}: {text}{more}" if field else f"{text}{more}"
    return Refused(api.REFUSAL_REASON_INVALID_REQUEST, message, violations=violations)


def invalid_field(field: str, fault: str) -> Refused:
    """Return the refusal of a request with one wrong field."""
    return invalid_request([(field, fault)])
