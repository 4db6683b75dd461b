"""Points that one member gives to another."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from tallypoint.v1 import common_pb2 as api

from ledger.booking.transfer import TransferOrder, Transferred, transfer_points, was_transferred
from ledger.entry.model import Declined
from server.base.database import in_transaction
from server.base.errors import Refused
from server.corrections.common import check_reason, unit_of
from server.members.records import MemberRow, lock_present
from server.rules.book import RulesBook

if TYPE_CHECKING:
    from server.base.database import Connection, Pool


class Gift(NamedTuple):
    """What is to be moved. `unit` may be empty; `by` is the name of a back-office key."""

    request_id: UUID
    sender: UUID
    receiver: UUID
    points_minor: int
    unit: str
    reason_code: str
    by: str


class TransferDesk:
    """Moves points between members. All times are given, all refusals named."""

    def __init__(self, pool: Pool, rules: RulesBook, books: int, reasons: tuple[str, ...]) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool
        self._rules = rules
        self._books = books
        self._reasons = reasons

    async def transfer(self, gift: Gift, now: datetime) -> Transferred:
        """Move points; the same request again moves nothing and has the same answer.

        Raises:
            Refused: NOT_FOUND, MEMBER_MERGED or MEMBER_BLOCKED of either side, SPENDING_FORBIDDEN of the sender,
                POINTS_INSUFFICIENT, INVALID_REQUEST, MESSAGE_ID_REUSED.
        """
        check_reason(gift.reason_code, self._reasons, "transfer_reasons")
        if gift.sender == gift.receiver:
            raise Refused(
                api.REFUSAL_REASON_INVALID_REQUEST,
                "a member cannot give points to themselves",
                violations=[("to_member_id", "must be another member than from_member_id")],
            )
        order = TransferOrder(gift.request_id, gift.sender, gift.receiver, gift.reason_code, gift.by)

        async def work(conn: Connection) -> Transferred:
            unit = await unit_of(conn, self._rules, gift.unit, now)
            if not await was_transferred(conn, gift.request_id):  # what is done stays done, whatever became of them
                await self._lock_members(conn, gift)
            moved = await transfer_points(conn, self._books, order, unit, gift.points_minor, now)
            if isinstance(moved, Declined):
                raise Refused(moved.reason, moved.message)
            return moved

        return await in_transaction(self._pool, work)

    async def _lock_members(self, conn: Connection, gift: Gift) -> None:
        fields = {gift.sender: "from_member_id", gift.receiver: "to_member_id"}
        rows = {one: await lock_present(conn, one, self._books, fields[one]) for one in sorted(fields)}
        for one, row in rows.items():
            _check_status(row, fields[one], may_only_earn=one == gift.receiver)


def _check_status(row: MemberRow, field: str, *, may_only_earn: bool) -> None:
    if row.status == api.MEMBER_STATUS_BLOCKED:
        raise Refused(
            api.REFUSAL_REASON_MEMBER_BLOCKED,
            f"member {row.member_id} is blocked",
            violations=[(field, "is blocked")],
        )
    if row.status == api.MEMBER_STATUS_EARN_ONLY and not may_only_earn:
        raise Refused(
            api.REFUSAL_REASON_SPENDING_FORBIDDEN,
            f"member {row.member_id} may earn but not spend, and so not give",
            violations=[(field, "may earn but not spend")],
        )
