"""How the operations of registers and of the back office are sent, and what their answers promise."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import Message
from tallypoint.v1 import (
    checkout_pb2,
    checkout_pb2_grpc,
    correction_pb2,
    correction_pb2_grpc,
    journal_pb2,
    member_pb2,
    member_pb2_grpc,
)

from ledger.entry.keys import business_key, message_key, return_key
from tests.support.tally import Answer, Operation, figures_of
from tests.support.till import Till

WORTH_SENDING_AGAIN: Final = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,  # gRPC says so to a call that arrives in the moment in which a process stops
    )
)
STORED_NOTHING: Final = frozenset(("OVERLOADED", "DEADLINE_PASSED"))
UNSETTLED: Final = frozenset(("OVERLOADED", "DEADLINE_PASSED", "LEDGER_UNAVAILABLE"))
"""Why a receipt of a batch may have no answer yet."""
REFUSALS: Final = {
    Operation.HOLD: frozenset(("POINTS_INSUFFICIENT", "HELD_ELSEWHERE", "HOLD_GONE")),
    Operation.CANCEL: frozenset(("HOLD_GONE",)),
    Operation.RETURN: frozenset(("RETURN_EXCEEDS_PURCHASE",)),
    Operation.ADJUSTMENT: frozenset(("POINTS_INSUFFICIENT",)),
    Operation.APPROVAL: frozenset(("POINTS_INSUFFICIENT",)),
    Operation.TRANSFER: frozenset(("POINTS_INSUFFICIENT",)),
}
"""What may be refused by name in the ordinary course of business."""
REQUESTS: Final[dict[Operation, type[Message]]] = {
    Operation.PURCHASE: checkout_pb2.CommitRequest,
    Operation.OFFLINE: checkout_pb2.CommitRequest,
    Operation.HOLD: checkout_pb2.HoldRequest,
    Operation.CANCEL: checkout_pb2.CancelRequest,
    Operation.RETURN: checkout_pb2.ReturnRequest,
    Operation.ADJUSTMENT: correction_pb2.RequestAdjustmentRequest,
    Operation.APPROVAL: correction_pb2.ApproveAdjustmentRequest,
    Operation.TRANSFER: correction_pb2.TransferPointsRequest,
    Operation.MERGE: correction_pb2.MergeMembersRequest,
    Operation.ENROLMENT: member_pb2.RegisterMemberRequest,
}
_CHANNEL_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection a lane, so that the kernel spreads them over the workers
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Sent(NamedTuple):
    """What was answered, to be sent again one day: the operation, its key, and the request's bytes."""

    operation: Operation
    key: bytes
    request: bytes


class Call(NamedTuple):
    """How an operation is sent."""

    send: Callable[..., Any]
    auth: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Stubs:
    """A lane's connections to both ports, by operation."""

    calls: dict[Operation, Call]
    batch: Call

    @classmethod
    @asynccontextmanager
    async def open(cls, till: Till) -> AsyncIterator[Stubs]:
        """Connect."""
        async with (
            grpc.aio.insecure_channel(till.server.pos_address, options=_CHANNEL_OPTIONS) as pos_channel,
            grpc.aio.insecure_channel(till.server.backoffice_address, options=_CHANNEL_OPTIONS) as office_channel,
        ):
            pos = checkout_pb2_grpc.CheckoutServiceStub(pos_channel)
            members = member_pb2_grpc.MemberServiceStub(office_channel)
            corrections = correction_pb2_grpc.CorrectionServiceStub(office_channel)
            yield cls(
                {
                    Operation.PURCHASE: Call(pos.Commit, till.auth),
                    Operation.OFFLINE: Call(pos.Commit, till.auth),
                    Operation.HOLD: Call(pos.Hold, till.auth),
                    Operation.CANCEL: Call(pos.Cancel, till.auth),
                    Operation.RETURN: Call(pos.Return, till.auth),
                    Operation.ADJUSTMENT: Call(corrections.RequestAdjustment, till.office("crm")),
                    Operation.APPROVAL: Call(corrections.ApproveAdjustment, till.office("finance")),
                    Operation.TRANSFER: Call(corrections.TransferPoints, till.office("finance")),
                    Operation.MERGE: Call(corrections.MergeMembers, till.office("crm")),
                    Operation.ENROLMENT: Call(members.RegisterMember, till.office("crm")),
                },
                Call(pos.CommitBatch, till.auth),
            )


def message_of(request: Any) -> bytes:
    """Return the id of a message, as bytes."""
    return message_key(request.request_id if "request_id" in request.DESCRIPTOR.fields_by_name else request.message_id)


def key_of(request: Any) -> bytes:
    """Return the key under which an operation counts once: its receipt's, or its message's."""
    fields = request.DESCRIPTOR.fields_by_name
    if "purchase_key" in fields:
        return return_key(request.receipt_key)
    if "receipt_key" in fields:
        return business_key(request.receipt_key)
    return message_of(request)


def is_booked(operation: Operation, response: Any) -> bool:
    """Say whether an answer promises that something is in the books: an adjustment may wait for a second person."""
    if operation is Operation.ADJUSTMENT:
        return bool(response.adjustment.state == correction_pb2.ADJUSTMENT_STATE_BOOKED)
    return True


def told_by(operation: Operation, request: Any, response: Any) -> tuple[Answer, bytes]:
    """Return what an answer says of the books, and the hash of what must be repeated word for word."""
    if operation is Operation.ENROLMENT:  # the balances are those of the moment, in this answer and the next
        return Answer(response.member.book, 0, response.member.member_id.encode()), b""
    if operation is Operation.MERGE:
        merged = f"{request.duplicate_id} {response.survivor.member_id}"
        return Answer(response.survivor.book, 0, merged.encode()), b""
    words = type(response)()
    words.CopyFrom(response)
    entry, figures = _told(operation, response)
    if operation is Operation.HOLD:
        words.ClearField("quote")  # computed anew
    reply = hashlib.sha256(words.SerializeToString(deterministic=True)).digest()
    return Answer(entry.book, entry.number, figures), reply


def _told(operation: Operation, response: Any) -> tuple[Any, bytes]:
    """Return the entry that an answer names, and its figures as `figures_of` gives them for the entry itself."""
    if operation in (Operation.ADJUSTMENT, Operation.APPROVAL):
        return response.adjustment.entry, str(response.adjustment.points_minor).encode()
    if operation is Operation.TRANSFER:
        return response.moved.out_entry, str(response.moved.available_points_minor).encode()
    if operation is Operation.CANCEL:
        return response.entry, str(response.released_points_minor).encode()
    settlement, kind = checkout_pb2.Settlement(), journal_pb2.ENTRY_KIND_PURCHASE
    if operation is Operation.HOLD:
        kind, settlement.held_points_minor = journal_pb2.ENTRY_KIND_HOLD, response.held_points_minor
    elif operation is Operation.RETURN:
        kind = journal_pb2.ENTRY_KIND_RETURN
        settlement.refund_points_minor = response.refund_points_minor
        settlement.clawback_points_minor = response.clawback_points_minor - response.debt_points_minor
        settlement.clawback_debt_points_minor = response.debt_points_minor
    else:
        settlement = response.settlement
    return response.entry, figures_of(kind, journal_pb2.Event(settlement=settlement))
