"""Corrections as people and registers see them: a running server, gRPC, the till, and our own commands."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from subprocess import CompletedProcess
from typing import Any
from uuid import uuid4

import grpc
import pytest
from rich.console import Console
from tallypoint.v1 import (
    checkout_pb2,
    common_pb2,
    correction_pb2,
    correction_pb2_grpc,
    ledger_pb2,
    member_pb2,
)

from server.base.clock import utc_now
from server.base.storage import LEDGER_DATABASE, read_books, writer_connect, writer_pool
from server.commands.corrections import show_adjustments
from server.corrections.leftovers import move_leftovers
from tests.support.faults import dsn_of
from tests.support.server_process import RunningServer, run_command
from tests.support.till import Answer, Till, answer_of, card, new_card, open_till, set_up_store

STORE = "corrections"
_keys: dict[str, str] = {}


@pytest.fixture
async def till(tallypoint: RunningServer) -> AsyncIterator[Till]:
    """A register of a store that knows the programme."""
    if STORE not in _keys:
        _keys[STORE] = await set_up_store(tallypoint, STORE)
    async with open_till(tallypoint, STORE, _keys[STORE]) as till:
        yield till


class Office:
    """People of the back office, by the role of their key."""

    def __init__(self, till: Till, channel: grpc.aio.Channel) -> None:
        self.till = till
        self.stub: correction_pb2_grpc.CorrectionServiceAsyncStub = correction_pb2_grpc.CorrectionServiceStub(channel)

    async def ask(self, call: str, request: object, role: str = "admin") -> Any:
        """Make a call with the key of a role."""
        return await getattr(self.stub, call)(request, metadata=self.till.office(role), timeout=20)

    async def refused(self, call: str, request: object, role: str = "admin") -> Answer:
        """Make a call that must be refused, and return how."""
        try:
            await self.ask(call, request, role)
        except grpc.aio.AioRpcError as error:
            return answer_of(error)
        raise AssertionError(f"{call} was not refused")

    async def adjust(self, member: member_pb2.Member, points_minor: int, role: str = "admin", **more: Any) -> Any:
        """Request an adjustment of somebody's points."""
        request = adjustment(member.member_id, points_minor, **more)
        return (await self.ask("RequestAdjustment", request, role)).adjustment

    async def merge(self, duplicate: member_pb2.Member, survivor: member_pb2.Member) -> member_pb2.Member:
        """Merge two members."""
        request = correction_pb2.MergeMembersRequest(
            request_id=str(uuid4()),
            duplicate_id=duplicate.member_id,
            survivor_id=survivor.member_id,
            reason="registered twice",
        )
        merged: member_pb2.Member = (await self.ask("MergeMembers", request, "crm")).survivor
        return merged


@pytest.fixture
async def office(till: Till) -> AsyncIterator[Office]:
    async with grpc.aio.insecure_channel(till.server.backoffice_address) as channel:
        office = Office(till, channel)
        await _until_it_knows_the_programme(office)
        yield office


async def _until_it_knows_the_programme(office: Office) -> None:
    """Wait until the back office has read the programme, which it looks for once a second."""
    async with asyncio.timeout(20):
        while (await office.refused("RequestAdjustment", adjustment(str(uuid4()), 1))).reason != "NOT_FOUND":
            pass


def adjustment(member_id: str, points_minor: int, **more: Any) -> correction_pb2.RequestAdjustmentRequest:
    """Return a request that is sound but for what `more` says."""
    fields: dict[str, Any] = {"request_id": str(uuid4()), "reason_code": "goodwill", "note": "it rained", **more}
    return correction_pb2.RequestAdjustmentRequest(member_id=member_id, points_minor=points_minor, **fields)


async def spendable(till: Till, number: str) -> int:
    """Return what the shopper with a card can spend, as the till shows it."""
    request = checkout_pb2.IdentifyRequest(identifier=card(number))
    shown = await till.pos.Identify(request, metadata=till.auth, timeout=10)
    return sum(balance.available_points_minor for balance in shown.balances)


# --- adjustments and transfers ------------------------------------------------------------------------------------


async def test_goodwill_points_pay_at_the_till(till: Till, office: Office) -> None:
    olena = await till.enrol()
    booked = await office.adjust(olena, 25_00, "crm")
    assert (booked.state, booked.requested_by) == (correction_pb2.ADJUSTMENT_STATE_BOOKED, "development-crm")
    number = olena.cards[0].card_number
    assert await spendable(till, number) == 25_00
    paid = await till.commit(till.commit_request([("milk", 3000)], card(number), spend=20_00))
    assert paid.settlement.spent_points_minor == 20_00
    account = ledger_pb2.GetAccountRequest(member_id=olena.member_id, newest_entries=10)
    entries = (await till.ledger.GetAccount(account, metadata=till.office())).entries
    assert [(entry.event.adjustment.reason_code, entry.ref) for entry in entries if entry.kind == 7] == [
        ("goodwill", booked.entry)
    ]


async def test_above_the_limit_two_people_are_needed(till: Till, office: Office) -> None:
    olena = await till.enrol()
    waiting = await office.adjust(olena, 5000_00, "finance")
    assert (waiting.state, waiting.limit_points_minor) == (correction_pb2.ADJUSTMENT_STATE_WAITING, 1000_00)
    approval = correction_pb2.ApproveAdjustmentRequest(request_id=waiting.request_id)
    assert (await office.refused("ApproveAdjustment", approval, "finance")).reason == "APPROVAL_NEEDED"
    assert (await office.refused("ApproveAdjustment", approval, "crm")).reason == "ROLE_FORBIDDEN"
    assert await spendable(till, olena.cards[0].card_number) == 0
    approved = (await office.ask("ApproveAdjustment", approval, "admin")).adjustment
    assert (approved.state, approved.decided_by) == (correction_pb2.ADJUSTMENT_STATE_BOOKED, "development-admin")
    assert await spendable(till, olena.cards[0].card_number) == 5000_00


async def test_the_list_comes_in_pages(till: Till, office: Office) -> None:
    olena = await till.enrol()
    made = [(await office.adjust(olena, 5000_00 + number)).request_id for number in range(5)]
    request = correction_pb2.ListAdjustmentsRequest(member_id=olena.member_id, page_size=2)
    pages: list[list[str]] = []
    while not pages or request.page_token:
        page = await office.ask("ListAdjustments", request, "crm")
        pages.append([one.request_id for one in page.adjustments])
        request.page_token = page.next_page_token
    assert pages == [made[:2], made[2:4], made[4:]]
    rejection = correction_pb2.RejectAdjustmentRequest(request_id=made[0], note="no proof")
    assert (await office.ask("RejectAdjustment", rejection)).adjustment.decision_note == "no proof"
    request = correction_pb2.ListAdjustmentsRequest(
        member_id=olena.member_id, state=correction_pb2.ADJUSTMENT_STATE_REJECTED
    )
    assert [one.request_id for one in (await office.ask("ListAdjustments", request)).adjustments] == made[:1]


async def test_points_given_to_a_relative_keep_their_value(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    await office.adjust(olena, 30_00)
    gift = correction_pb2.TransferPointsRequest(
        request_id=str(uuid4()),
        from_member_id=olena.member_id,
        to_member_id=anna.member_id,
        points_minor=12_00,
        reason_code="family",
    )
    first, again = [(await office.ask("TransferPoints", gift, "finance")).moved for _ in range(2)]
    assert first == again
    assert first.available_points_minor == 12_00
    assert await spendable(till, olena.cards[0].card_number) == 18_00
    assert await spendable(till, anna.cards[0].card_number) == 12_00
    gift.request_id, gift.points_minor = str(uuid4()), 18_01
    assert (await office.refused("TransferPoints", gift)).reason == "POINTS_INSUFFICIENT"
    gift.points_minor = 1
    await till.block(anna)
    answer = await office.refused("TransferPoints", gift)
    assert (answer.reason, answer.fields) == ("MEMBER_BLOCKED", ("to_member_id",))


@pytest.mark.parametrize(
    ("points", "more", "field"),
    [
        pytest.param(0, {}, "points_minor", id="no points"),
        pytest.param(1, {"note": ""}, "note", id="nothing to tell the auditor"),
        pytest.param(1, {"request_id": "7"}, "request_id", id="id is no UUID"),
        pytest.param(1, {"expires_on": "31.12.2026"}, "expires_on", id="day in another form"),
        pytest.param(1, {"expires_on": "2027-02-30"}, "expires_on", id="day that does not exist"),
        pytest.param(1, {"reason_code": "because"}, "reason_code", id="reason that is not listed"),
    ],
)
async def test_bad_request_names_its_field(office: Office, points: int, more: dict[str, Any], field: str) -> None:
    answer = await office.refused("RequestAdjustment", adjustment(str(uuid4()), points, **more))
    assert (answer.reason, answer.fields) == ("INVALID_REQUEST", (field,))


@pytest.mark.parametrize(
    ("role", "reachable"),
    [
        pytest.param("admin", "request approve reject list transfer merge", id="admin"),
        pytest.param("finance", "request approve reject list transfer", id="finance"),
        pytest.param("crm", "request list merge", id="crm"),
        pytest.param("terminal", "", id="terminal"),
    ],
)
async def test_role_reaches_its_own_calls_only(office: Office, role: str, reachable: str) -> None:
    calls: dict[str, Callable[[], Awaitable[Answer]]] = {
        "request": lambda: office.refused("RequestAdjustment", correction_pb2.RequestAdjustmentRequest(), role),
        "approve": lambda: office.refused("ApproveAdjustment", correction_pb2.ApproveAdjustmentRequest(), role),
        "reject": lambda: office.refused("RejectAdjustment", correction_pb2.RejectAdjustmentRequest(), role),
        "list": lambda: office.refused("ListAdjustments", correction_pb2.ListAdjustmentsRequest(page_size=-1), role),
        "transfer": lambda: office.refused("TransferPoints", correction_pb2.TransferPointsRequest(), role),
        "merge": lambda: office.refused("MergeMembers", correction_pb2.MergeMembersRequest(), role),
    }
    reasons = {name: (await call()).reason for name, call in calls.items()}
    assert set(reasons.values()) <= {"INVALID_REQUEST", "ROLE_FORBIDDEN"}
    assert [name for name, reason in reasons.items() if reason == "INVALID_REQUEST"] == reachable.split()


# --- merged members at the till -----------------------------------------------------------------------------------


async def test_both_cards_work_at_the_till_after_a_merge(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    numbers = [olena.cards[0].card_number, anna.cards[0].card_number]
    await office.adjust(anna, 40_00)
    await office.adjust(olena, 2_00)
    survivor = await office.merge(anna, olena)
    assert [one.card_number for one in survivor.cards] == numbers
    assert [balance.available_points_minor for balance in survivor.balances] == [42_00]
    assert [await spendable(till, number) for number in numbers] == [42_00, 42_00]
    paid = await till.commit(till.commit_request([("milk", 5000)], card(numbers[1]), spend=41_00))
    assert (paid.member_id, paid.settlement.spent_points_minor) == (olena.member_id, 41_00)
    by_id = till.commit_request([("milk", 5000)], common_pb2.Identifier(member_id=anna.member_id))
    answer = await till.refused(by_id)
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MEMBER_MERGED")
    assert answer.cashier_text


async def test_a_receipt_sent_again_after_the_merge_has_its_old_answer(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    by_card = till.commit_request([("milk", 5000)], card(anna.cards[0].card_number))
    by_id = till.commit_request([("milk", 5000)], common_pb2.Identifier(member_id=anna.member_id))
    first = [await till.commit(request) for request in (by_card, by_id)]
    await office.merge(anna, olena)
    for request in (by_card, by_id):
        request.message_id = str(uuid4())
    assert [await till.commit(request) for request in (by_card, by_id)] == first
    assert first[0].member_id == anna.member_id
    assert await spendable(till, olena.cards[0].card_number) == 2 * first[0].settlement.accrual_points_minor


async def test_receipts_taken_offline_are_booked_for_the_survivor(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    offline = [
        till.commit_request([("milk", 5000)], identifier)
        for identifier in (card(anna.cards[0].card_number), common_pb2.Identifier(member_id=anna.member_id))
    ]
    await office.merge(anna, olena)
    batch = checkout_pb2.CommitBatchRequest(commits=offline)
    for _ in range(2):  # the second time they are repeats
        answer = await till.pos.CommitBatch(batch, metadata=till.auth, timeout=20)
        assert [result.committed.member_id for result in answer.results] == [olena.member_id] * 2, answer
    assert await spendable(till, olena.cards[0].card_number) == 2 * 50


async def test_a_checkout_that_held_the_duplicates_points_is_paid_by_the_survivor(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    await office.adjust(anna, 40_00)
    shopper = card(anna.cards[0].card_number)
    hold = till.hold_request(shopper, 30_00)
    await till.hold(hold)
    await office.merge(anna, olena)
    commit = till.commit_request([("milk", 5000)], shopper, spend=30_00)
    commit.checkout_id = hold.checkout_key.checkout_id
    paid = await till.commit(commit)
    assert (paid.member_id, paid.settlement.spent_points_minor) == (olena.member_id, 30_00)
    assert paid.settlement.balance.held_points_minor == 0


async def test_a_return_after_the_merge_is_settled_with_the_survivor(till: Till, office: Office) -> None:
    olena, anna = await till.enrol(), await till.enrol()
    await office.adjust(anna, 40_00)
    bought = till.commit_request([("milk", 5000), ("bread", 2000)], card(anna.cards[0].card_number), spend=40_00)
    earned = (await till.commit(bought)).settlement.accrual_points_minor
    await office.merge(anna, olena)
    assert await spendable(till, olena.cards[0].card_number) == earned
    returned = await till.give_back(till.return_request(bought.receipt_key))
    assert returned.entry.number
    async with writer_pool(dsn_of(till.server, LEDGER_DATABASE), "test") as pool:
        books = await read_books(writer_connect(dsn_of(till.server, LEDGER_DATABASE), "test"))
        await move_leftovers(pool, books, utc_now())
    assert await spendable(till, olena.cards[0].card_number) == 40_00, "what was spent is back, what was earned is gone"
    account = ledger_pb2.GetAccountRequest(member_id=anna.member_id)
    (balance,) = (await till.ledger.GetAccount(account, metadata=till.office())).balances
    assert (balance.available_points_minor, balance.debt_points_minor) == (0, 0)


# --- commands -----------------------------------------------------------------------------------------------------


def run(
    server: RunningServer, *arguments: str, role: str = "admin", own_process: bool = False
) -> CompletedProcess[str]:
    """Run `tallypoint` with the key of a role."""
    environment = {
        "TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address,
        "TALLYPOINT_ADMIN_KEY": server.keys[role],
        "COLUMNS": "250",
    }
    return run_command(*arguments, environment=environment, own_process=own_process)


def test_the_list_can_be_read_and_copied_from_at_80_columns() -> None:
    asked_at, note = datetime(2026, 3, 1, 9, tzinfo=UTC), "cold soup at the delicatessen, promised by phone on Monday"
    waits = correction_pb2.ManualAdjustment(
        request_id=str(uuid4()), points_minor=7000_00, precision=2, unit="bonus", reason_code="complaint", note=note,
        state=correction_pb2.ADJUSTMENT_STATE_WAITING, requested_by="anna.koval",
    )  # fmt: skip
    booked = correction_pb2.ManualAdjustment(
        request_id=str(uuid4()), points_minor=-5, unit="miles", reason_code="goodwill", note="[broken] eggs",
        state=correction_pb2.ADJUSTMENT_STATE_BOOKED, requested_by="anna",
        decided_by="boris-of-finance-at-the-head-office", entry=common_pb2.EntryRef(book=3, number=1204),
    )  # fmt: skip
    for one in (waits, booked):
        one.requested_at.FromDatetime(asked_at)
    printed = io.StringIO()
    show_adjustments([waits, booked], asked_at + timedelta(days=3), Console(file=printed, width=80))
    lines = [line.split("  ") for line in printed.getvalue().splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert [waits.request_id, "7,000.00 bonus", "complaint: cold soup"] in cells
    assert [booked.request_id, "-5 miles", "goodwill: [broken]"] in cells
    first = {line[0] for line in cells if line}
    assert {"waiting", "asked 3 d ago by anna.koval"} <= first
    assert {"booked by boris-of-finance-at-the-", "head-office", "entry 1204 of book 3"} <= first


async def test_correction_commands(till: Till, office: Office) -> None:
    server, olena, anna = till.server, await till.enrol(), await till.enrol()
    number = olena.cards[0].card_number
    asked = ("corrections", "request", number, "--reason", "complaint", "--note", "cold soup")
    done = run(server, *asked, "--points", "12.5", own_process=True)
    assert (done.returncode, "12.50 bonus booked with entry" in done.stdout) == (0, True), done.stderr
    done = run(server, *asked, "--points=-2.5")
    assert "-2.50 bonus booked" in done.stdout, done.stderr
    assert await spendable(till, number) == 10_00
    done = run(server, *asked, "--points", "7000")
    assert "7,000.00 bonus wait for a second person" in done.stdout, done.stderr
    request_id = done.stdout.split()[-1]
    refused = run(server, "corrections", "approve", request_id)
    assert (refused.returncode, "APPROVAL_NEEDED" in refused.stderr) == (2, True)
    done = run(server, "corrections", "list", "--state", "waiting", "--member", olena.member_id, role="finance")
    assert (done.returncode, request_id in done.stdout, "7,000.00" in done.stdout) == (0, True, True), done.stderr
    done = run(server, "corrections", "approve", request_id, role="finance")
    assert "7,000.00 bonus booked" in done.stdout, done.stderr
    done = run(server, "corrections", "transfer", number, anna.member_id, "--points", "10", "--reason", "family")
    assert "10.00 bonus moved" in done.stdout, done.stderr
    assert await spendable(till, anna.cards[0].card_number) == 10_00
    done = run(server, *asked, "--points", "1.005")
    assert (done.returncode, "2 decimal places" in done.stderr) == (2, True)


async def test_merge_command(till: Till) -> None:
    olena, anna = await till.enrol(card_numbers=[new_card()]), await till.enrol()
    arguments = ("members", "merge", anna.cards[0].card_number, olena.member_id, "--reason", "registered twice")
    done = run(till.server, *arguments)
    assert (done.returncode, "Nobody can be asked here" in done.stderr) == (2, True)
    done = run(till.server, *arguments, "--yes", role="crm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"is now: {olena.member_id}, O*** K., active, cards: 2")
    done = run(till.server, "members", "merge", anna.member_id, olena.member_id, "--reason", "again", "--yes")
    assert (done.returncode, "MEMBER_MERGED" in done.stderr) == (2, True)
