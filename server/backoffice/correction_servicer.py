"""CorrectionService: adjustments by hand, transfers and merges, for people who put things right."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2

from ledger.booking.transfer import Transferred
from ledger.entry.chain import microseconds
from ledger.entry.model import Booked
from ledger.reading.balances import read_balances
from server.base.clock import Clock, utc_now
from server.base.database import connection
from server.base.errors import invalid_request
from server.checkout.balances import balance_message
from server.corrections.adjustments import Adjustment, AdjustmentDesk, AdjustmentOrder, Filter
from server.corrections.merge import Merger
from server.corrections.transfers import Gift, TransferDesk
from server.edge.caller import Caller, Role
from server.edge.validation import read_optional_day
from server.members.identifiers import read_member_id
from server.members.registry import AdminMessage

if TYPE_CHECKING:
    from server.base.database import Pool

DEFAULT_PAGE_SIZE: Final = 100
_ALL: Final = frozenset({Role.CRM, Role.FINANCE, Role.ADMIN})
_FINANCE: Final = frozenset({Role.FINANCE, Role.ADMIN})
_MEMBER_KEEPERS: Final = frozenset({Role.CRM, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "RequestAdjustment": _ALL,
    "ApproveAdjustment": _FINANCE,
    "RejectAdjustment": _FINANCE,
    "ListAdjustments": _ALL,
    "TransferPoints": _FINANCE,
    "MergeMembers": _MEMBER_KEEPERS,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CorrectionServicer:
    """Answers the calls of CorrectionService."""

    def __init__(
        self,
        adjustments: AdjustmentDesk,
        transfers: TransferDesk,
        merger: Merger,
        pool: Pool,
        clock: Clock = utc_now,
    ) -> None:
        """Take what does the work, and a pool for reading balances."""
        self._adjustments = adjustments
        self._transfers = transfers
        self._merger = merger
        self._pool = pool
        self._clock = clock

    async def request_adjustment(
        self, request: correction_pb2.RequestAdjustmentRequest, caller: Caller
    ) -> correction_pb2.RequestAdjustmentResponse:
        """Book an adjustment, or keep it for a second person."""
        order = AdjustmentOrder(
            read_member_id(request.member_id, "member_id"),
            request.points_minor,
            request.unit,
            request.reason_code,
            request.note,
            read_optional_day(request.expires_on, "expires_on"),
        )
        message = AdminMessage.of(request.request_id, request)
        adjustment = await self._adjustments.request(message, order, caller.name, self._clock())
        return correction_pb2.RequestAdjustmentResponse(adjustment=_message(adjustment))

    async def approve_adjustment(
        self, request: correction_pb2.ApproveAdjustmentRequest, caller: Caller
    ) -> correction_pb2.ApproveAdjustmentResponse:
        """Book an adjustment that waits."""
        request_id = read_member_id(request.request_id, "request_id")
        adjustment = await self._adjustments.approve(request_id, caller.name, request.note, self._clock())
        return correction_pb2.ApproveAdjustmentResponse(adjustment=_message(adjustment))

    async def reject_adjustment(
        self, request: correction_pb2.RejectAdjustmentRequest, caller: Caller
    ) -> correction_pb2.RejectAdjustmentResponse:
        """End an adjustment that waits."""
        request_id = read_member_id(request.request_id, "request_id")
        adjustment = await self._adjustments.reject(request_id, caller.name, request.note, self._clock())
        return correction_pb2.RejectAdjustmentResponse(adjustment=_message(adjustment))

    async def list_adjustments(
        self, request: correction_pb2.ListAdjustmentsRequest, caller: Caller
    ) -> correction_pb2.ListAdjustmentsResponse:
        """Show a page of adjustments."""
        chosen = Filter(
            state=request.state or None,
            member_id=read_member_id(request.member_id, "member_id") if request.member_id else None,
            requested_from=_moment(request.requested_from) if request.HasField("requested_from") else None,
            requested_before=_moment(request.requested_before) if request.HasField("requested_before") else None,
            after=_place(request.page_token) if request.page_token else None,
        )
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = await self._adjustments.list(chosen, size + 1)
        page = found[:size]
        return correction_pb2.ListAdjustmentsResponse(
            adjustments=[_message(adjustment) for adjustment in page],
            next_page_token=_token(page[-1]) if len(found) > size else "",
        )

    async def transfer_points(
        self, request: correction_pb2.TransferPointsRequest, caller: Caller
    ) -> correction_pb2.TransferPointsResponse:
        """Move points from one member to another."""
        gift = Gift(
            request_id=read_member_id(request.request_id, "request_id"),
            sender=read_member_id(request.from_member_id, "from_member_id"),
            receiver=read_member_id(request.to_member_id, "to_member_id"),
            points_minor=request.points_minor,
            unit=request.unit,
            reason_code=request.reason_code,
            by=caller.name,
        )
        moved = await self._transfers.transfer(gift, self._clock())
        return correction_pb2.TransferPointsResponse(moved=_points_moved(moved))

    async def merge_members(
        self, request: correction_pb2.MergeMembersRequest, caller: Caller
    ) -> correction_pb2.MergeMembersResponse:
        """Merge a duplicate into a survivor."""
        message = AdminMessage.of(request.request_id, request)
        duplicate = read_member_id(request.duplicate_id, "duplicate_id")
        survivor = read_member_id(request.survivor_id, "survivor_id")
        now = self._clock()
        row = await self._merger.merge(message, duplicate, survivor, request.reason, caller.name, now)
        async with connection(self._pool) as conn:
            balances = await read_balances(conn, [(row.book, row.member_id)], now)
        shown = [balance_message(balance) for balance in balances.get(row.member_id, ())]
        return correction_pb2.MergeMembersResponse(survivor=row.message(shown))


def _message(adjustment: Adjustment) -> correction_pb2.ManualAdjustment:
    message = correction_pb2.ManualAdjustment(
        request_id=str(adjustment.request_id),
        member_id=str(adjustment.member_id),
        unit=adjustment.unit.code,
        precision=adjustment.unit.precision,
        points_minor=adjustment.points_minor,
        reason_code=adjustment.reason_code,
        note=adjustment.note,
        expires_on=adjustment.expires_on.isoformat() if adjustment.expires_on else "",
        state=adjustment.state,
        requested_by=adjustment.requested_by,
        limit_points_minor=adjustment.limit_points_minor,
        used_points_minor=adjustment.used_points_minor,
        decided_by=adjustment.decided_by,
        decision_note=adjustment.decision_note,
    )
    message.requested_at.FromDatetime(adjustment.requested_at)
    if adjustment.decided_at is not None:
        message.decided_at.FromDatetime(adjustment.decided_at)
    if adjustment.entry_number is not None and adjustment.booked_at is not None:
        message.entry.book, message.entry.number = adjustment.book, adjustment.entry_number
        message.entry.booked_at.FromDatetime(adjustment.booked_at)
    return message


def _points_moved(moved: Transferred) -> correction_pb2.PointsMoved:
    return correction_pb2.PointsMoved(
        unit=moved.unit.code,
        precision=moved.unit.precision,
        available_points_minor=moved.available_minor,
        pending_points_minor=moved.pending_minor,
        debt_points_minor=moved.debt_minor,
        out_entry=_entry(moved.left),
        in_entry=_entry(moved.arrived) if moved.arrived else None,
    )


def _entry(booked: Booked) -> api.EntryRef:
    ref = api.EntryRef(book=booked.book, number=booked.number)
    ref.booked_at.FromDatetime(booked.booked_at)
    return ref


def _moment(timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except ValueError:
        raise invalid_request([("requested_from", "is not a time between the years 1 and 9999")]) from None


def _token(adjustment: Adjustment) -> str:
    return f"{microseconds(adjustment.requested_at)}.{adjustment.request_id.hex}"


def _place(token: str) -> tuple[datetime, UUID]:
    """Read what `_token` wrote."""
    moment, _, request_id = token.partition(".")
    try:
        return _EPOCH + timedelta(microseconds=int(moment)), UUID(request_id)
    except (ValueError, OverflowError):
        raise invalid_request([("page_token", "is not a token that ListAdjustments gave")]) from None
