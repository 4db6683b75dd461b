"""Reads the details of a refused call, as a client would."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass
class Details:
    """What a status says beyond its code."""

    reason: str = ""
    domain: str = ""
    violations: dict[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None
    cashier_text: str = ""


def details_of(error: grpc.aio.AioRpcError) -> Details:
    """Return the details in the trailing metadata of a failed call."""
    status = status_pb2.Status()
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            status.ParseFromString(value if isinstance(value, bytes) else value.encode())
    assert status.code in (0, error.code().value[0])
    details = Details()
    for packed in status.details:
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(packed.value)
            details.reason, details.domain = info.reason, info.domain
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad_request = error_details_pb2.BadRequest.FromString(packed.value)
            details.violations = {v.field: v.description for v in bad_request.field_violations}
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
            details.retry_seconds = delay.seconds + delay.nanos / 1e9
        elif packed.Is(error_details_pb2.LocalizedMessage.DESCRIPTOR):
            details.cashier_text = error_details_pb2.LocalizedMessage.FromString(packed.value).message
    return details
