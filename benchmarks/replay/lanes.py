"""The lanes: many checkouts at once, each member's in the order of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import grpc
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc

from benchmarks.replay import checkout
from benchmarks.replay.client import CallFailed, Counters, Failure, Patience, bearing, call
from benchmarks.replay.dataset import Basket, Dataset, IntColumn
from benchmarks.replay.journal import RegisterJournal, StoredReceipt
from benchmarks.replay.people import Person
from benchmarks.replay.schedule import GoodsBack, Schedule, Spending, spending_of

MAX_KEPT_PROBLEMS: Final = 20
"""How many failures are kept word for word; all are counted."""


class Answered(Enum):
    """What to do with a receipt that was answered in an earlier run."""

    SKIP = "skip"
    RESEND = "resend"


@dataclass(frozen=True)
class Plan:
    """How receipts are sent.

    `redemption_per_million` of the baskets are paid with points. `new_message_ids` sends stored receipts as
    registers do, in new messages.
    """

    redemption_per_million: int = 100_000
    answered: Answered = Answered.SKIP
    new_message_ids: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass
class Tally:
    """What the lanes have done so far in this run; money and points in minor units, as the answers say."""

    receipts: int = 0
    lines: int = 0
    skipped: int = 0
    resent: int = 0
    """Receipts sent again that were answered before."""
    unsettled: int = 0
    """Receipts sent again of which no answer had come, so that nobody knows whether they were booked."""
    spending_receipts: int = 0
    discount_minor: int = 0
    spent_points_minor: int = 0
    left_out_points_minor: int = 0
    accrual_points_minor: int = 0
    holds: int = 0
    """Holds placed in this run."""
    cancels: int = 0
    captured_points_minor: int = 0
    returns: int = 0
    """Receipts of goods that came back."""
    returns_skipped: int = 0
    returns_resent: int = 0
    refund_money_minor: int = 0
    refund_points_minor: int = 0
    clawback_points_minor: int = 0
    """Points taken back, those that became a debt among them."""
    debt_points_minor: int = 0
    different_answers: list[int] = field(default_factory=list)
    """Baskets whose receipt, sent again, was answered otherwise than at first."""
    failed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Baskets that are through, in whatever way."""
        return self.receipts + self.skipped + len(self.failed)


class Lanes:
    """Sends baskets through the public API of a running server."""

    def __init__(
        self,
        dataset: Dataset,
        people: Mapping[int, Person],
        journal: RegisterJournal,
        stubs: Sequence[checkout_pb2_grpc.CheckoutServiceAsyncStub],
        plan: Plan,
        schedule: Schedule,
        coupons: Mapping[int, Sequence[str]],
    ) -> None:
        """Take the baskets, each household's member, the registers' journal and one stub for each channel.

        ``coupons`` are presented at checkouts, by basket id.
        """
        self._dataset = dataset
        self._coupons = coupons
        self._schedule = schedule
        self._people = people
        self._journal = journal
        self._stubs = stubs
        self._plan = plan
        self._keys = journal.keys()
        self.tally = Tally()
        self.counters = Counters()

    async def run(self, selection: IntColumn, lanes: int, on_done: Callable[[], None]) -> None:
        """Send the selected baskets over so many lanes; `on_done` is called after each basket.

        A refused basket is counted and the lane goes on.
        """
        async with asyncio.TaskGroup() as group:
            for number, baskets in enumerate(self._dataset.lanes(selection, lanes)):
                stub = self._stubs[number % len(self._stubs)]
                group.create_task(self._lane(stub, baskets, on_done))

    async def _lane(
        self,
        stub: checkout_pb2_grpc.CheckoutServiceAsyncStub,
        baskets: IntColumn,
        on_done: Callable[[], None],
    ) -> None:
        for index in baskets.tolist():
            basket_id = int(self._dataset.basket_id[index])
            stored = self._journal.find(basket_id)
            try:
                if (back := self._schedule.before.get(index)) is not None:
                    await self._bring_back(stub, back)
                await self._one_receipt(stub, index, basket_id, stored)
                if (back := self._schedule.after.get(index)) is not None:
                    await self._bring_back(stub, back)
            except CallFailed as error:
                self.tally.failed.append(basket_id)
                if len(self.tally.problems) < MAX_KEPT_PROBLEMS:
                    self.tally.problems.append(f"basket {basket_id}: {error}")
            on_done()

    async def _one_receipt(
        self,
        stub: checkout_pb2_grpc.CheckoutServiceAsyncStub,
        index: int,
        basket_id: int,
        stored: StoredReceipt | None,
    ) -> None:
        if stored is None:
            number = int(self._schedule.receipt_number[index])
            request = await self._print_receipt(stub, self._dataset.basket(index), number)
        elif stored.answer_sha256 is not None and self._plan.answered is Answered.SKIP:
            self.tally.skipped += 1
            return
        else:
            request = checkout_pb2.CommitRequest.FromString(stored.request)
            if self._plan.new_message_ids:
                request = checkout.with_new_message_id(request)
        response = await self._commit(stub, request)
        self._note(basket_id, request, response, stored)

    async def _print_receipt(
        self, stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, basket: Basket, receipt_number: int
    ) -> checkout_pb2.CommitRequest:
        """Identify, quote, perhaps hold, and keep the receipt that comes of it in the journal, before it is sent."""
        who = self._people[basket.household_id]
        key = self._keys[basket.store_id, basket.terminal_id]
        patience = self._plan.patience
        identify = checkout.identify_request(basket, who)
        identified = await call(self.counters, bearing(stub.Identify, key), "Identify", identify, patience)
        if identified.member.member_id != str(who.member_id):
            raise CallFailed("Identify", _wrong_member(identified.member.member_id, who))
        coupons = self._coupons.get(basket.basket_id, ())
        question = checkout.quote_request(basket, who, coupons)
        quote = await call(self.counters, bearing(stub.Quote, key), "Quote", question, patience)
        spends = checkout.wants_to_spend(basket, self._plan.redemption_per_million)
        spending = spending_of(basket.basket_id) if spends and quote.max_spend_points_minor else None
        if spending not in {None, Spending.UNHELD}:
            held_coupons = checkout.usable_coupons(quote)
            await self._hold(stub, basket, who, quote.max_spend_points_minor, held_coupons)
        if spending is Spending.CHANGED_MIND:
            cancel = checkout.cancel_request(basket)
            await call(self.counters, bearing(stub.Cancel, key), "Cancel", cancel, patience)
            self.tally.cancels += 1
        request = checkout.commit_request(basket, who, quote, receipt_number, spending, coupons)
        await self._journal.put_receipt(basket.basket_id, request.SerializeToString())
        return request

    async def _hold(
        self,
        stub: checkout_pb2_grpc.CheckoutServiceAsyncStub,
        basket: Basket,
        who: Person,
        points_minor: int,
        coupons: Sequence[str],
    ) -> None:
        key = self._keys[basket.store_id, basket.terminal_id]
        hold = checkout.hold_request(basket, who, points_minor, coupons)
        held = await call(self.counters, bearing(stub.Hold, key), "Hold", hold, self._plan.patience)
        self.tally.holds += 1
        if held.held_points_minor != points_minor:
            message = f"{points_minor} points were to be held, {held.held_points_minor} are"
            raise CallFailed("Hold", Failure(grpc.StatusCode.OK, "WRONG_HOLD", message, None))

    async def _bring_back(self, stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, back: GoodsBack) -> None:
        """Return goods that were bought before; those of a failed receipt stay where they are."""
        basket_id = int(self._dataset.basket_id[back.basket])
        stored = self._journal.find_return(basket_id)
        if stored is not None and stored.answer_sha256 is not None and self._plan.answered is Answered.SKIP:
            self.tally.returns_skipped += 1
            return
        if stored is not None:
            request = checkout_pb2.ReturnRequest.FromString(stored.request)
        else:
            bought = self._journal.find(basket_id)
            if bought is None or basket_id in self.tally.failed:
                return
            request = checkout.return_request(
                checkout_pb2.CommitRequest.FromString(bought.request),
                self._dataset.basket(back.till),
                back.receipt_number,
                back.event_seconds,
                back.lines,
            )
            await self._journal.put_return(basket_id, request.SerializeToString())
        key = self._keys[request.receipt_key.store_id, request.receipt_key.terminal_id]
        response = await call(self.counters, bearing(stub.Return, key), "Return", request, self._plan.patience)
        self._note_return(basket_id, response, stored)

    def _note_return(self, basket_id: int, response: checkout_pb2.ReturnResponse, stored: StoredReceipt | None) -> None:
        digest = checkout.answer_digest(response)
        if stored is None or stored.answer_sha256 is None:
            self._journal.put_return_answer(basket_id, digest)
        elif stored.answer_sha256 != digest:
            self.tally.different_answers.append(basket_id)
        self.tally.returns += 1
        self.tally.returns_resent += stored is not None and stored.answer_sha256 is not None
        self.tally.unsettled += stored is not None and stored.answer_sha256 is None
        self.tally.refund_money_minor += response.refund_money_minor
        self.tally.refund_points_minor += response.refund_points_minor
        self.tally.clawback_points_minor += response.clawback_points_minor
        self.tally.debt_points_minor += response.debt_points_minor

    async def _commit(
        self, stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, request: checkout_pb2.CommitRequest
    ) -> checkout_pb2.CommitResponse:
        key = self._keys[request.receipt_key.store_id, request.receipt_key.terminal_id]
        return await call(self.counters, bearing(stub.Commit, key), "Commit", request, self._plan.patience)

    def _note(
        self,
        basket_id: int,
        request: checkout_pb2.CommitRequest,
        response: checkout_pb2.CommitResponse,
        stored: StoredReceipt | None,
    ) -> None:
        """Count an answer and keep its digest, or compare it with the one that was kept."""
        digest = checkout.answer_digest(response)
        if stored is None or stored.answer_sha256 is None:
            self._journal.put_answer(basket_id, digest)
        elif stored.answer_sha256 != digest:
            self.tally.different_answers.append(basket_id)
        settlement = response.settlement
        self.tally.receipts += 1
        self.tally.resent += stored is not None and stored.answer_sha256 is not None
        self.tally.unsettled += stored is not None and stored.answer_sha256 is None
        self.tally.lines += len(request.receipt.lines)
        self.tally.spending_receipts += settlement.spent_points_minor > 0
        self.tally.discount_minor += sum(line.discount_minor for line in request.receipt.lines)
        self.tally.spent_points_minor += settlement.spent_points_minor
        self.tally.left_out_points_minor += settlement.left_out_points_minor
        self.tally.accrual_points_minor += settlement.accrual_points_minor
        self.tally.captured_points_minor += settlement.captured_points_minor


def _wrong_member(member_id: str, who: Person) -> Failure:
    message = f"the identifier of {who.name} ({who.member_id}) leads to member {member_id or '(none)'}"
    return Failure(grpc.StatusCode.OK, "WRONG_MEMBER", message, None)
