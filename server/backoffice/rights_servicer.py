"""RightsService: coupons, segments and offers, for marketing and the hotline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final
from uuid import UUID

from tallypoint.v1 import rights_pb2

from server.base.clock import Clock, utc_now
from server.base.errors import Refused
from server.edge.caller import Caller, Role
from server.edge.parts import Part, do_in_parts
from server.members.identifiers import read_member_id
from server.rights.audience import AudienceDesk, Changed
from server.rights.coupon_desk import CouponDesk, Loaded
from server.rights.people import Person
from server.rights.rows import refused_rows
from server.rights.showing import RightsViewer
from server.rules.book import RulesBook
from server.rules.names import Names, nobody_asks

_MARKETING: Final = frozenset({Role.CRM, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "LoadCoupons": _MARKETING,
    "GenerateCoupons": _MARKETING,
    "GetCoupon": _MARKETING,
    "BlockCoupons": _MARKETING,
    "ListMemberRights": _MARKETING,
    "PutSegment": _MARKETING,
    "FinishSegment": _MARKETING,
    "CountSegments": _MARKETING,
    "PutOffers": _MARKETING,
}


class RightsServicer:
    """Answers the calls of RightsService."""

    def __init__(
        self,
        coupons: CouponDesk,
        audience: AudienceDesk,
        viewer: RightsViewer,
        rules: RulesBook,
        clock: Clock = utc_now,
    ) -> None:
        """Take what writes and what shows rights; the rules say who asks for them."""
        self._rules = rules
        self._coupons = coupons
        self._audience = audience
        self._viewer = viewer
        self._clock = clock

    async def load_coupons(
        self, request: rights_pb2.LoadCouponsRequest, caller: Caller
    ) -> rights_pb2.LoadCouponsResponse:
        """Store codes that were made elsewhere."""
        work = partial(self._coupons.load, request.series)
        parts = await do_in_parts(request.coupons, work, "RightsService/LoadCoupons")
        done = [part.outcome for part in parts if isinstance(part.outcome, Loaded)]
        return rights_pb2.LoadCouponsResponse(
            added=sum(one.added for one in done),
            unchanged=sum(one.unchanged for one in done),
            refused=refused_rows(_refused(parts)),
            warnings=self._warnings(Names.SERIES, [request.series]),
        )

    async def generate_coupons(
        self, request: rights_pb2.GenerateCouponsRequest, caller: Caller
    ) -> rights_pb2.GenerateCouponsResponse:
        """Make random codes."""
        request_id = read_member_id(request.request_id, "request_id")
        codes = await self._coupons.generate(request_id, request, caller.name, self._clock())
        return rights_pb2.GenerateCouponsResponse(codes=codes, warnings=self._warnings(Names.SERIES, [request.series]))

    async def get_coupon(self, request: rights_pb2.GetCouponRequest, caller: Caller) -> rights_pb2.GetCouponResponse:
        """Show a coupon and its uses."""
        return rights_pb2.GetCouponResponse(coupon=await self._viewer.coupon(request.code))

    async def block_coupons(
        self, request: rights_pb2.BlockCouponsRequest, caller: Caller
    ) -> rights_pb2.BlockCouponsResponse:
        """Make codes, or a series, worthless or good again."""
        if request.series:
            if request.unblock:
                changed = await self._coupons.unblock_series(request.series)
            else:
                changed = await self._coupons.block_series(request.series, caller.name, self._clock())
            return rights_pb2.BlockCouponsResponse(changed=changed)
        if request.unblock:
            changed, refused = await self._coupons.unblock(request.codes)
        else:
            changed, refused = await self._coupons.block(request.codes, caller.name, self._clock())
        return rights_pb2.BlockCouponsResponse(changed=changed, refused=refused_rows(refused))

    async def list_member_rights(
        self, request: rights_pb2.ListMemberRightsRequest, caller: Caller
    ) -> rights_pb2.ListMemberRightsResponse:
        """Show what a member has."""
        return await self._viewer.of_member(request.identifier)

    async def put_segment(self, request: rights_pb2.PutSegmentRequest, caller: Caller) -> rights_pb2.PutSegmentResponse:
        """Change who is in a segment."""
        taken_out = request.action == rights_pb2.SEGMENT_ACTION_REMOVE
        work = partial(self._audience.put_segment, request.segment, request.action, request.load_id)
        parts = await do_in_parts(request.members, work, "RightsService/PutSegment")
        return rights_pb2.PutSegmentResponse(
            changed=_changed(parts),
            refused=refused_rows(_refused(parts)),
            warnings=[] if taken_out else self._warnings(Names.SEGMENT, [request.segment]),
        )

    async def finish_segment(
        self, request: rights_pb2.FinishSegmentRequest, caller: Caller
    ) -> rights_pb2.FinishSegmentResponse:
        """Take out of a segment whom its replacement did not send."""
        book, _, member_id = request.page_token.partition("/")
        after = Person(int(book), read_member_id(member_id, "page_token")) if book else None
        removed, last = await self._audience.finish_segment(request.segment, UUID(request.load_id), after)
        token = "" if last is None else f"{last.book}/{last.member_id}"
        return rights_pb2.FinishSegmentResponse(removed=removed, next_page_token=token)

    async def count_segments(
        self, request: rights_pb2.CountSegmentsRequest, caller: Caller
    ) -> rights_pb2.CountSegmentsResponse:
        """Count the members of each segment."""
        counts = await self._audience.count_segments()
        return rights_pb2.CountSegmentsResponse(
            segments=[rights_pb2.SegmentCount(segment=segment, members=members) for segment, members in counts]
        )

    async def put_offers(self, request: rights_pb2.PutOffersRequest, caller: Caller) -> rights_pb2.PutOffersResponse:
        """Make members offers, or take them away."""
        today = self._clock().date()
        work = self._audience.remove_offers if request.remove else partial(self._audience.put_offers, today=today)
        parts = await do_in_parts(request.offers, work, "RightsService/PutOffers")
        names = [] if request.remove else [offer.promotion_id for offer in request.offers]
        return rights_pb2.PutOffersResponse(
            changed=_changed(parts),
            refused=refused_rows(_refused(parts)),
            warnings=self._warnings(Names.OFFER, names),
        )

    def _warnings(self, kind: Names, names: Iterable[str]) -> list[str]:
        """Say of what is loaded that no promotion, in effect or to come, asks for it."""
        return nobody_asks(kind, names, [rules.programme for rules in self._rules.from_now_on(self._clock())])


def _changed(parts: Iterable[Part[Changed]]) -> int:
    """Return how many members have something else now."""
    return sum(part.outcome.members for part in parts if isinstance(part.outcome, Changed))


def _refused(parts: Iterable[Part[Loaded] | Part[Changed]]) -> dict[int, Refused]:
    """Return the refusals by the rows of the whole batch."""
    refused: dict[int, Refused] = {}
    for first, outcome in parts:
        if isinstance(outcome, Refused):
            refused[first] = outcome
        else:
            refused.update((first + index, refusal) for index, refusal in outcome.refused.items())
    return refused
