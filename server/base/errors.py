"""Refusals: the business answers that are not a success.

Code anywhere below the edge raises `Refused`, or carries it as a value; only the outermost wrapper of a call
(`server.edge`) turns it into a gRPC status, and only batch results and streams turn it into a `Refusal` message.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from google.protobuf.duration_pb2 import Duration
from tallypoint.v1 import common_pb2 as api

ERROR_DOMAIN: Final = "tallypoint"
_REASON_PREFIX: Final = "REFUSAL_REASON_"
_NANOSECONDS_PER_SECOND: Final = 1_000_000_000


class StatusCode(IntEnum):
    """The status codes of gRPC with which refusals end a call; the numbers are those of `google.rpc.Code`."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


STATUS_CODE_OF_REASON: Final[dict[api.RefusalReason, StatusCode]] = {
    api.REFUSAL_REASON_INVALID_REQUEST: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    api.REFUSAL_REASON_FOREIGN_STORE: StatusCode.PERMISSION_DENIED,
    api.REFUSAL_REASON_ROLE_FORBIDDEN: StatusCode.PERMISSION_DENIED,
    api.REFUSAL_REASON_IDENTIFIER_UNKNOWN: StatusCode.NOT_FOUND,
    api.REFUSAL_REASON_CARD_FOREIGN: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_PHONE_INVALID: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_MEMBER_BLOCKED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CARD_REPLACED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CARD_BLOCKED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_MESSAGE_ID_REUSED: StatusCode.ALREADY_EXISTS,
    api.REFUSAL_REASON_RECEIPT_KEY_REUSED: StatusCode.ALREADY_EXISTS,
    api.REFUSAL_REASON_IDENTIFIER_TAKEN: StatusCode.ALREADY_EXISTS,
    api.REFUSAL_REASON_CURRENCY_FOREIGN: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_NO_PROGRAMME: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_NOT_FOUND: StatusCode.NOT_FOUND,
    api.REFUSAL_REASON_OVERLOADED: StatusCode.RESOURCE_EXHAUSTED,
    api.REFUSAL_REASON_DEADLINE_PASSED: StatusCode.DEADLINE_EXCEEDED,
    api.REFUSAL_REASON_LEDGER_UNAVAILABLE: StatusCode.UNAVAILABLE,
    api.REFUSAL_REASON_INTERNAL: StatusCode.INTERNAL,
    api.REFUSAL_REASON_PROGRAMME_INVALID: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_NOT_YET_AVAILABLE: StatusCode.UNIMPLEMENTED,
    api.REFUSAL_REASON_ALREADY_EXISTS: StatusCode.ALREADY_EXISTS,
    api.REFUSAL_REASON_SPENDING_FORBIDDEN: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_POINTS_INSUFFICIENT: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_HOLD_GONE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_RETURN_EXCEEDS_PURCHASE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_HELD_ELSEWHERE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_PURCHASE_UNKNOWN: StatusCode.NOT_FOUND,
    api.REFUSAL_REASON_APPROVAL_NEEDED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOSE_ORDER: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_MEMBER_MERGED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_UNKNOWN: StatusCode.NOT_FOUND,
    api.REFUSAL_REASON_COUPON_USED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_NOT_VALID: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_FOREIGN: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_HELD_ELSEWHERE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_COUPON_WITHOUT_EFFECT: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_POINTS_STRANDED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOSE_INCOMPLETE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_CLOCK_AHEAD: StatusCode.INVALID_ARGUMENT,
    api.REFUSAL_REASON_SPENDING_ABOVE_SHARE: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_ABOVE_GOODS: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_GOODS_EXCLUDED: StatusCode.FAILED_PRECONDITION,
    api.REFUSAL_REASON_SPENDING_BROKEN_STEP: StatusCode.FAILED_PRECONDITION,
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
    def code(self) -> StatusCode:
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
    refusal = api.Refusal(
        code=error.code,
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
