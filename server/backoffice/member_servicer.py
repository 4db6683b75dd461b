"""MemberService: who is a member, for the CRM and for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tallypoint.v1 import member_pb2

from ledger.reading.balances import read_balances
from server.base.clock import Clock, utc_now
from server.base.database import connection
from server.base.errors import Refused, refusal_message
from server.checkout.balances import balance_message
from server.edge.caller import Caller, Role
from server.edge.status import refused_of
from server.edge.validation import check
from server.members.identifiers import read_member_id
from server.members.profile import ProfileDesk
from server.members.records import MemberRow, living_id
from server.members.registry import IMPORT, AdminMessage, Placed, Registry

if TYPE_CHECKING:
    from server.base.database import Pool

_MEMBER_KEEPERS: Final = frozenset({Role.CRM, Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "RegisterMember": _MEMBER_KEEPERS,
    "GetMember": _MEMBER_KEEPERS,
    "SetMemberStatus": _MEMBER_KEEPERS,
    "ReplaceCard": _MEMBER_KEEPERS,
    "SetCardStatus": _MEMBER_KEEPERS,
    "ChangeMember": _MEMBER_KEEPERS,
    "ImportMembers": _MEMBER_KEEPERS,
}
BATCH_METHODS: Final = frozenset({"ImportMembers"})
"""Calls whose items are checked one by one, so that a bad row does not touch the others."""


class MemberServicer:
    """Answers the calls of MemberService."""

    def __init__(
        self, registry: Registry, profiles: ProfileDesk, pool: Pool, books: int, clock: Clock = utc_now
    ) -> None:
        """Take what changes members, a pool for reading balances, and the ledger's number of books."""
        self._registry = registry
        self._profiles = profiles
        self._pool = pool
        self._books = books
        self._clock = clock

    async def register_member(
        self, request: member_pb2.RegisterMemberRequest, caller: Caller
    ) -> member_pb2.RegisterMemberResponse:
        """Make a member."""
        message = AdminMessage.of(request.message_id, request)
        row = await self._registry.register(message, request.member, self._clock())
        return member_pb2.RegisterMemberResponse(member=await self._identifier_shown(row))

    async def get_member(self, request: member_pb2.GetMemberRequest, caller: Caller) -> member_pb2.GetMemberResponse:
        """Find a member by any identifier."""
        row = await self._registry.find(request.identifier)
        return member_pb2.GetMemberResponse(member=await self._identifier_shown(row))

    async def set_member_status(
        self, request: member_pb2.SetMemberStatusRequest, caller: Caller
    ) -> member_pb2.SetMemberStatusResponse:
        """Change what a member may do."""
        message = AdminMessage.of(request.message_id, request)
        member_id = read_member_id(request.member_id, "member_id")
        row = await self._registry.set_status(message, member_id, request.status, request.reason, self._clock())
        return member_pb2.SetMemberStatusResponse(member=await self._identifier_shown(row))

    async def replace_card(
        self, request: member_pb2.ReplaceCardRequest, caller: Caller
    ) -> member_pb2.ReplaceCardResponse:
        """Give a member a new card."""
        message = AdminMessage.of(request.message_id, request)
        member_id = read_member_id(request.member_id, "member_id")
        row = await self._registry.replace_card(
            message, member_id, request.old_card_number, request.new_card_number, self._clock()
        )
        return member_pb2.ReplaceCardResponse(member=await self._identifier_shown(row))

    async def set_card_status(
        self, request: member_pb2.SetCardStatusRequest, caller: Caller
    ) -> member_pb2.SetCardStatusResponse:
        """Block a card, or make it count again."""
        message = AdminMessage.of(request.message_id, request)
        member_id = read_member_id(request.member_id, "member_id")
        row = await self._registry.set_card_status(
            message, member_id, request.card_number, request.status, self._clock()
        )
        return member_pb2.SetCardStatusResponse(member=await self._identifier_shown(row))

    async def change_member(
        self, request: member_pb2.ChangeMemberRequest, caller: Caller
    ) -> member_pb2.ChangeMemberResponse:
        """Change name, birthday, language or phone."""
        message = AdminMessage.of(request.message_id, request)
        member_id = read_member_id(request.member_id, "member_id")
        row = await self._profiles.change(message, member_id, request, self._clock())
        return member_pb2.ChangeMemberResponse(member=await self._identifier_shown(row))

    async def import_members(
        self, request: member_pb2.ImportMembersRequest, caller: Caller
    ) -> member_pb2.ImportMembersResponse:
        """Register many members, each row by itself."""
        outcomes: dict[int, Placed | Refused] = {}
        for index, person in enumerate(request.members):
            try:
                check(person)
            except Exception as error:  # noqa: BLE001 - the row is refused, and the others go on
                outcomes[index] = refused_of(error, IMPORT)
        sound = [index for index in range(len(request.members)) if index not in outcomes]
        people = [request.members[index] for index in sound]
        outcomes.update(zip(sound, await self._registry.import_members(people, self._clock()), strict=True))
        return member_pb2.ImportMembersResponse(
            results=[_result(outcomes[index]) for index in range(len(request.members))]
        )

    async def _identifier_shown(self, row: MemberRow) -> member_pb2.Member:
        """Return a record with its balances; a merged one names the member who lives on."""
        async with connection(self._pool) as conn:
            found = await read_balances(conn, [(row.book, row.member_id)], self._clock())
            living = await living_id(conn, row.merged_into, self._books) if row.merged_into else None
        balances = [balance_message(balance) for balance in found.get(row.member_id, ())]
        return replace(row, merged_into=living).message(balances)


def _result(outcome: Placed | Refused) -> member_pb2.ImportMemberResult:
    if isinstance(outcome, Refused):
        return member_pb2.ImportMemberResult(refusal=refusal_message(outcome))
    return member_pb2.ImportMemberResult(member_id=str(outcome.member_id), already_there=outcome.already_there)
