"""Whoever asks by the id of a member who was merged away is told which record lives on, at the end of all merges."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tallypoint.v1 import (
    checkout_pb2,
    common_pb2,
    correction_pb2,
    correction_pb2_grpc,
    finance_pb2,
    finance_pb2_grpc,
    ledger_pb2,
    member_pb2,
    rights_pb2,
    rights_pb2_grpc,
)

from tests.support.till import Till, card


@dataclass
class Office:
    """A till, the desks of its back office, and a member who was merged into a second one, and that one into a third.

    ``bought`` is a receipt that the first one paid before.
    """

    till: Till
    corrections: correction_pb2_grpc.CorrectionServiceAsyncStub
    finance: finance_pb2_grpc.FinanceServiceAsyncStub
    rights: rights_pb2_grpc.RightsServiceAsyncStub
    first: member_pb2.Member
    living: member_pb2.Member
    bought: checkout_pb2.CommitRequest

    async def call(self, stub: Any, name: str, request: Any) -> Any:
        """Make a call of the back office."""
        return await getattr(stub, name)(request, metadata=self.till.office(), timeout=10)


def new_id() -> str:
    return str(uuid.uuid4())


def merging(duplicate: member_pb2.Member, survivor: member_pb2.Member) -> correction_pb2.MergeMembersRequest:
    return correction_pb2.MergeMembersRequest(
        request_id=new_id(),
        duplicate_id=duplicate.member_id,
        survivor_id=survivor.member_id,
        reason="registered twice",
    )


@pytest.fixture
async def office(till: Till) -> AsyncIterator[Office]:
    people = [await till.enrol() for _ in range(3)]
    bought = till.commit_request([("bread", 10_000)], card(people[0].cards[0].card_number))
    await till.commit(bought)
    async with grpc.aio.insecure_channel(till.server.backoffice_address) as channel:
        corrections = correction_pb2_grpc.CorrectionServiceStub(channel)
        finance, rights = finance_pb2_grpc.FinanceServiceStub(channel), rights_pb2_grpc.RightsServiceStub(channel)
        office = Office(till, corrections, finance, rights, people[0], people[2], bought)
        for duplicate, survivor in itertools.pairwise(people):
            await office.call(corrections, "MergeMembers", merging(duplicate, survivor))
        yield office


async def living_named(call: Any) -> str:
    """The living member whom a refusal names, for programs and for people alike."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(caught.value)
    assert any(detail.Unpack(info) for detail in status.details), "every refusal has an ErrorInfo"
    assert info.reason == "MEMBER_MERGED"
    living: str = info.metadata["living_member_id"]
    assert living in str(caught.value.details())
    return living


async def test_every_change_by_the_old_id_is_refused_and_names_the_living_member(office: Office) -> None:
    dead, living, till = office.first.member_id, office.living.member_id, office.till
    status = common_pb2.MEMBER_STATUS_BLOCKED
    number = office.first.cards[0].card_number
    changes: list[tuple[Any, str, dict[str, Any], Any]] = [
        (till.members, "SetMemberStatus", {"status": status, "reason": "fraud"}, member_pb2.SetMemberStatusRequest),
        (till.members, "ReplaceCard", {"new_card_number": number}, member_pb2.ReplaceCardRequest),
        (till.members, "SetCardStatus", {"card_number": number, "status": 3}, member_pb2.SetCardStatusRequest),
    ]
    for stub, name, fields, request in changes:
        assert await living_named(office.call(stub, name, request(message_id=new_id(), member_id=dead, **fields))) == (
            living
        ), name
    new = member_pb2.NewMember(member_id=dead)
    assert await living_named(office.call(till.members, "RegisterMember", _registering(new))) == living
    imported = await office.call(till.members, "ImportMembers", member_pb2.ImportMembersRequest(members=[new]))
    assert imported.results[0].refusal.living_member_id == living
    adjust = correction_pb2.RequestAdjustmentRequest(
        request_id=new_id(), member_id=dead, points_minor=1, reason_code="goodwill", note="sorry"
    )
    assert await living_named(office.call(office.corrections, "RequestAdjustment", adjust)) == living
    for ends in ({"from_member_id": dead, "to_member_id": living}, {"from_member_id": living, "to_member_id": dead}):
        moved = correction_pb2.TransferPointsRequest(request_id=new_id(), points_minor=1, reason_code="family", **ends)
        assert await living_named(office.call(office.corrections, "TransferPoints", moved)) == living
    merge = merging(office.first, office.living)
    assert await living_named(office.call(office.corrections, "MergeMembers", merge)) == living


def _registering(new: member_pb2.NewMember) -> member_pb2.RegisterMemberRequest:
    return member_pb2.RegisterMemberRequest(message_id=new_id(), member=new)


async def test_the_till_is_told_by_the_old_id_and_served_by_the_old_card(office: Office) -> None:
    till, living = office.till, office.living.member_id
    by_id = common_pb2.Identifier(member_id=office.first.member_id)
    basket = [("bread", 10_000)]
    asked = [
        ("Identify", checkout_pb2.IdentifyRequest(identifier=by_id)),
        ("Quote", checkout_pb2.QuoteRequest(identifier=by_id, receipt=till.receipt(basket))),
        ("Hold", till.hold_request(by_id, 1)),
        ("Commit", till.commit_request(basket, by_id)),
    ]
    for name, request in asked:
        assert await living_named(getattr(till.pos, name)(request, metadata=till.auth, timeout=10)) == living, name

    by_card = card(office.first.cards[0].card_number)
    seen = await till.pos.Identify(checkout_pb2.IdentifyRequest(identifier=by_card), metadata=till.auth)
    assert (seen.member.member_id, seen.balances[0].available_points_minor) == (living, 100)
    booked = await till.commit(till.commit_request(basket, by_card))
    assert booked.member_id == living


async def test_what_shows_a_merged_member_names_the_living_one(office: Office) -> None:
    dead, living = office.first.member_id, office.living.member_id
    by_id = common_pb2.Identifier(member_id=dead)
    shown = await office.call(office.till.members, "GetMember", member_pb2.GetMemberRequest(identifier=by_id))
    assert (shown.member.status, shown.member.merged_into) == (common_pb2.MEMBER_STATUS_MERGED, living)
    account = await office.call(office.till.ledger, "GetAccount", ledger_pb2.GetAccountRequest(member_id=dead))
    assert account.merged_into == living
    own = await office.call(office.till.ledger, "GetAccount", ledger_pb2.GetAccountRequest(member_id=living))
    assert own.merged_into == ""
    request = finance_pb2.MemberStatementRequest(member_id=dead)
    statement = await office.call(office.finance, "MemberStatement", request)
    assert any(living in note for note in statement.table.notes)
    rights = await office.call(office.rights, "ListMemberRights", rights_pb2.ListMemberRightsRequest(identifier=by_id))
    assert rights.member_id == living


async def test_a_coupon_of_a_merged_member_is_the_living_ones(office: Office) -> None:
    code = f"M{uuid.uuid4().hex[:10]}".upper()
    people = [await office.till.enrol() for _ in range(2)]
    row = rights_pb2.CouponRow(code=code, member=common_pb2.Identifier(member_id=people[0].member_id))
    load = rights_pb2.LoadCouponsRequest(series="merged", coupons=[row])
    assert (await office.call(office.rights, "LoadCoupons", load)).added == 1
    await office.call(office.corrections, "MergeMembers", merging(*people))
    shown = await office.call(office.rights, "GetCoupon", rights_pb2.GetCouponRequest(code=code))
    assert shown.coupon.member_id == people[1].member_id
    wanted = rights_pb2.ListMemberRightsRequest(identifier=common_pb2.Identifier(member_id=people[1].member_id))
    has = await office.call(office.rights, "ListMemberRights", wanted)
    assert [(one.code, one.member_id) for one in has.coupons] == [(code, people[1].member_id)]


async def test_adjustments_are_listed_by_any_of_the_ids(office: Office) -> None:
    duplicate, survivor = [await office.till.enrol() for _ in range(2)]
    adjust = correction_pb2.RequestAdjustmentRequest(
        request_id=new_id(), member_id=duplicate.member_id, points_minor=1, reason_code="goodwill", note="sorry"
    )
    await office.call(office.corrections, "RequestAdjustment", adjust)
    await office.call(office.corrections, "MergeMembers", merging(duplicate, survivor))
    for member in (duplicate, survivor):
        wanted = correction_pb2.ListAdjustmentsRequest(member_id=member.member_id)
        listed = await office.call(office.corrections, "ListAdjustments", wanted)
        assert [one.request_id for one in listed.adjustments] == [adjust.request_id]


async def test_a_return_of_what_the_merged_member_bought_names_who_has_the_points(office: Office) -> None:
    request = office.till.return_request(office.bought.receipt_key)
    answer = await office.till.give_back(request)
    assert answer.member_id == office.living.member_id
    assert "MEMBER_MERGED" in [notice.code for notice in answer.notices]
    assert await office.till.give_back(request) == answer


async def test_a_repeated_return_is_answered_word_for_word_whoever_was_merged_since(office: Office) -> None:
    """What an answer says of the buyer is what was so when the return was booked, as with all that it says."""
    till = office.till
    buyer, survivor = [await till.enrol() for _ in range(2)]
    bought = till.commit_request([("bread", 10_000), ("milk", 10_000)], card(buyer.cards[0].card_number))
    await till.commit(bought)
    before, after = (till.return_request(bought.receipt_key, (line, 1000)) for line in (1, 2))

    told_before = await till.give_back(before)
    await office.call(office.corrections, "MergeMembers", merging(buyer, survivor))
    told_after = await till.give_back(after)
    await office.call(office.corrections, "MergeMembers", merging(survivor, office.living))

    assert (told_before.member_id, told_after.member_id) == (buyer.member_id, survivor.member_id)
    assert [await till.give_back(request) for request in (before, after)] == [told_before, told_after]
