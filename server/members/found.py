"""What a look-up finds: the member behind what a register read, as plain data."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused


class OfferRow(NamedTuple):
    """A promotion that was assigned to a member, and the store's days on which it counts; None: no first, no last."""

    promotion_id: str
    first: date | None
    last: date | None


class MemberRecord(NamedTuple):
    """What a checkout needs to know of a member; `status` is the API's MemberStatus.

    `merged_from` has the members who were merged into this one: what was booked for them before is this member's too.
    `offers` has those of other days, too. `counters` are what the ledger has cached of the member's counters, as a
    serialised journal_pb2.Counters: those at the moment of the look-up, not what a booking will find.
    """

    member_id: UUID
    book: int
    status: api.MemberStatus
    masked_name: str
    birthday: date | None
    language: str
    registered_at: datetime
    merged_from: tuple[UUID, ...] = ()
    segments: frozenset[str] = frozenset()
    offers: tuple[OfferRow, ...] = ()
    counters: bytes = b""

    @property
    def can_spend(self) -> bool:
        """Whether the member may pay with points."""
        return bool(self.status == api.MEMBER_STATUS_ACTIVE)

    @property
    def all_ids(self) -> tuple[UUID, ...]:
        """The member's own id, and those of all who were merged into this one."""
        return self.member_id, *self.merged_from

    def summary(self) -> api.MemberSummary:
        """Return what a cashier may see of the member."""
        return api.MemberSummary(member_id=str(self.member_id), masked_name=self.masked_name, status=self.status)


class Found(NamedTuple):
    """The member behind an identifier, and by what kind of identifier they were found."""

    member: MemberRecord
    identified_by: api.IdentifierKind


class Lookup(NamedTuple):
    """All that is known of an identifier: whose it is, if anybody's, and why it is refused, if it is.

    Both are set for a blocked member, for a replaced or blocked card, and for the id of a merged member, who is then
    found as the survivor; receipts taken offline need both.
    """

    found: Found | None
    refusal: Refused | None
