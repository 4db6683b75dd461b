"""Lanes: they do one errand after the other, and send again what gets no answer until it is settled."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
from tallypoint.v1 import checkout_pb2, common_pb2, correction_pb2, member_pb2

from tests.support.calls import REFUSALS, STORED_NOTHING, UNSETTLED, WORTH_SENDING_AGAIN, Stubs, is_booked, key_of
from tests.support.tally import Operation
from tests.support.till import Answer as Refusal
from tests.support.till import answer_of, card, new_card

if TYPE_CHECKING:
    from tests.support.shop import Shop

SCAN_SECONDS: Final = (0.0, 0.03)
"""What a lane needs for the next receipt, so that a machine of two cores has something left for those who recover."""
PATIENCE_SECONDS: Final = 90.0
"""The longest that an errand may need to its answer, and the shop to the next ones: PostgreSQL may recover."""
RESEND_PAUSE_SECONDS: Final = (0.02, 0.2)
MOST_TIMES_LONGER: Final = 4
"""Pauses grow to so many times their length."""
SAME_MESSAGE_SHARE: Final = 0.2
"""Of all sendings of a receipt after the first: as the same message; the others as a new one with the same key."""
OFFLINE_RECEIPTS: Final = (2, 6)
HOLD_TTL_SECONDS: Final = (10, 30)
"""Holds that are left alone expire during the test."""


def new_message(dice: random.Random) -> str:
    """Return a new message id."""
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


class Abandoned(Exception):
    """A lane gave its errand up, because the service goes for good."""


class Lane:
    """One register, or one desk of the back office."""

    def __init__(self, shop: Shop, dice: random.Random) -> None:
        """Work for a shop."""
        self.finished = 0
        self.idle = False
        self._shop = shop
        self._dice = dice
        self._errands: tuple[tuple[Callable[[Stubs], Any], int], ...] = (
            (self._buy, 60),
            (self._send_offline_receipts, 5),
            (self._hold_and_pay, 10),
            (self._hold_and_cancel, 5),
            (self._hold_and_leave, 3),
            (self._bring_back, 10),
            (self._correct, 4),
            (self._give, 3),
            (self._enrol_and_merge, 4),
        )

    async def work(self) -> None:
        """Do errands until the shop closes."""
        errands, weights = zip(*self._errands, strict=True)
        async with Stubs.open(self._shop.till) as stubs:
            while await self._admitted():
                try:
                    await self._dice.choices(errands, weights)[0](stubs)
                except Abandoned:
                    break
                self.finished += 1
                await asyncio.sleep(self._dice.uniform(*SCAN_SECONDS))
        self.idle = True

    async def _admitted(self) -> bool:
        self.idle = True
        admitted = await self._shop.admitted()
        self.idle = False
        return admitted

    # --- errands -----------------------------------------------------------------------------------------------

    async def _buy(self, stubs: Stubs) -> None:
        await self._settle(stubs, Operation.PURCHASE, self._receipt())

    async def _send_offline_receipts(self, stubs: Stubs) -> None:
        """Send a small journal, and what of it got no answer again and again."""
        waiting = [self._receipt() for _ in range(self._dice.randint(*OFFLINE_RECEIPTS))]
        await self._patiently(lambda: self._send_batch(stubs, waiting), lambda: not waiting)

    async def _hold_and_pay(self, stubs: Stubs) -> None:
        hold = self._hold()
        if await self._settle(stubs, Operation.HOLD, hold) is None:
            return
        if self._dice.random() < 0.2:  # the shopper changes their mind: a newer hold takes the place of the first
            hold = self._hold(hold)
            if await self._settle(stubs, Operation.HOLD, hold) is None:
                return
        receipt = self._receipt(hold.identifier.card_number)
        receipt.receipt.CopyFrom(hold.receipt)
        receipt.checkout_id = hold.checkout_key.checkout_id
        receipt.spend_points_minor = self._dice.choice((hold.spend_points_minor, hold.spend_points_minor // 2, 0))
        if self._dice.random() < 0.9:
            await self._settle(stubs, Operation.PURCHASE, receipt)
            return
        both = await asyncio.gather(  # the shopper pays at the moment in which the cashier gives up
            self._settle(stubs, Operation.PURCHASE, receipt),
            self._settle(stubs, Operation.CANCEL, self._cancel(hold)),
            return_exceptions=True,
        )
        for outcome in both:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _hold_and_cancel(self, stubs: Stubs) -> None:
        hold = self._hold()
        if await self._settle(stubs, Operation.HOLD, hold) is None:
            return
        for _ in range(self._dice.choice((1, 1, 2))):
            await self._settle(stubs, Operation.CANCEL, self._cancel(hold))

    async def _hold_and_leave(self, stubs: Stubs) -> None:
        await self._settle(stubs, Operation.HOLD, self._hold())

    async def _bring_back(self, stubs: Stubs) -> None:
        if not self._shop.purchases:
            return
        bought = self._dice.choice(self._shop.purchases)
        request = checkout_pb2.ReturnRequest(
            message_id=new_message(self._dice),
            receipt_key=self._receipt_key(),
            purchase_key=bought.receipt_key,
            event_at=bought.receipt.event_at,
        )
        if self._dice.random() < 0.7:
            for line in self._dice.sample(list(bought.receipt.lines), self._dice.randint(1, len(bought.receipt.lines))):
                request.lines.add(
                    line_number=line.line_number,
                    quantity_milli=self._dice.choice((line.quantity_milli, 1000)),
                )
        await self._settle(stubs, Operation.RETURN, request)

    async def _correct(self, stubs: Stubs) -> None:
        """Grant or take points by hand; above the person's limit of the day a second person approves it."""
        request = correction_pb2.RequestAdjustmentRequest(
            request_id=new_message(self._dice),
            member_id=self._dice.choice(self._shop.member_ids),
            points_minor=self._dice.choice((-1, 1)) * self._dice.randint(1, 300),
            reason_code="goodwill",
            note="the shelf said otherwise",
        )
        response = await self._settle(stubs, Operation.ADJUSTMENT, request)
        if response is not None and not is_booked(Operation.ADJUSTMENT, response):
            approval = correction_pb2.ApproveAdjustmentRequest(request_id=request.request_id, note="agreed")
            await self._settle(stubs, Operation.APPROVAL, approval)

    async def _give(self, stubs: Stubs) -> None:
        giver, taker = self._dice.sample(self._shop.member_ids, 2)
        request = correction_pb2.TransferPointsRequest(
            request_id=new_message(self._dice),
            from_member_id=giver,
            to_member_id=taker,
            points_minor=self._dice.randint(1, 300),
            reason_code="family",
        )
        await self._settle(stubs, Operation.TRANSFER, request)

    async def _enrol_and_merge(self, stubs: Stubs) -> None:
        """Somebody takes a second card and buys with it, before it comes out that they are a member already."""
        card_number = new_card()
        profile = member_pb2.Profile(name="Olena Koval")
        member = member_pb2.NewMember(profile=profile, card_numbers=[card_number])
        request = member_pb2.RegisterMemberRequest(message_id=new_message(self._dice), member=member)
        enrolled = await self._settle(stubs, Operation.ENROLMENT, request)
        for _ in range(self._dice.randint(0, 3)):
            await self._settle(stubs, Operation.PURCHASE, self._receipt(card_number))
        if self._dice.random() < 0.3:
            hold = self._hold()
            hold.identifier.CopyFrom(card(card_number))
            await self._settle(stubs, Operation.HOLD, hold)
        if self._dice.random() < 0.5:
            merge = correction_pb2.MergeMembersRequest(
                request_id=new_message(self._dice),
                duplicate_id=enrolled.member.member_id,
                survivor_id=self._dice.choice(self._shop.member_ids),
                reason="one person with two cards",
            )
            await self._settle(stubs, Operation.MERGE, merge)

    # --- what they send ----------------------------------------------------------------------------------------

    def _receipt_key(self) -> common_pb2.ReceiptKey:
        till = self._shop.till
        return common_pb2.ReceiptKey(
            store_id=till.store_id,
            terminal_id=till.terminal_id,
            business_date="2026-03-14",
            receipt_number=next(self._shop.receipt_numbers),
        )

    def _receipt(self, card_number: str = "") -> checkout_pb2.CommitRequest:
        """Return a receipt of a member, or now and then of a stranger."""
        dice = self._dice
        basket = [(dice.choice(("milk", "bread", "brie")), dice.randint(500, 20000)) for _ in range(dice.randint(1, 5))]
        request = self._shop.till.commit_request(basket)
        request.message_id = new_message(dice)
        request.receipt_key.CopyFrom(self._receipt_key())
        for line in request.receipt.lines:
            line.quantity_milli = 1000 * dice.randint(1, 3)
        if card_number or dice.random() < 0.9:
            request.identifier.CopyFrom(card(card_number or dice.choice(self._shop.cards)))
            request.spend_points_minor = dice.randint(1, 300) if dice.random() < 0.4 else 0
        return request

    def _hold(self, before: checkout_pb2.HoldRequest | None = None) -> checkout_pb2.HoldRequest:
        """Return a new hold, or one that takes the place of another."""
        dice, till = self._dice, self._shop.till
        receipt = self._receipt(before.identifier.card_number if before else dice.choice(self._shop.cards))
        checkout = checkout_pb2.CheckoutKey(
            store_id=till.store_id, terminal_id=till.terminal_id, checkout_id=new_message(dice)
        )
        return checkout_pb2.HoldRequest(
            message_id=new_message(dice),
            checkout_key=before.checkout_key if before else checkout,
            identifier=receipt.identifier,
            receipt=before.receipt if before else receipt.receipt,
            spend_points_minor=dice.randint(1, 300),
            ttl_seconds=dice.randint(*HOLD_TTL_SECONDS),
            takeover_reason="the shopper went to another lane" if dice.random() < 0.1 else "",
        )

    def _cancel(self, hold: checkout_pb2.HoldRequest) -> checkout_pb2.CancelRequest:
        return checkout_pb2.CancelRequest(
            message_id=new_message(self._dice), checkout_key=hold.checkout_key, reason="the shopper left"
        )

    # --- sending -----------------------------------------------------------------------------------------------

    async def _settle(self, stubs: Stubs, operation: Operation, request: Any) -> Any:
        """Send until there is an answer; return it, or None after a refusal by name."""
        outcome: list[Any] = []

        async def send() -> bool:
            settled, response = await self._send(stubs, operation, request)
            outcome.append(response)
            return settled

        await self._patiently(send)
        return outcome[-1]

    async def _patiently(self, send: Callable[[], Any], done: Callable[[], bool] = lambda: False) -> None:
        """Send again and again, with pauses that grow, until it is settled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        for attempt in itertools.count(1):
            if await send() or done():
                return
            if self._shop.abandon_when_refused:
                raise Abandoned
            assert loop.time() < deadline, f"no answer in {PATIENCE_SECONDS} s: {self._shop.tally}"
            await asyncio.sleep(self._dice.uniform(*RESEND_PAUSE_SECONDS) * min(attempt, MOST_TIMES_LONGER))

    async def _send(self, stubs: Stubs, operation: Operation, request: Any) -> tuple[bool, Any]:
        """Send once; return whether that settled it, and the answer."""
        shop, call = self._shop, stubs.calls[operation]
        shop.note_sending(operation, request)
        try:
            response = await call.send(request, metadata=call.auth, timeout=shop.read_timeout_seconds)
        except grpc.aio.AioRpcError as error:
            told = answer_of(error)
            if told.reason in REFUSALS.get(operation, ()):
                shop.tally.refused(key_of(request), told.reason)
                return True, None
            self._note_failure(operation, request, told)
            return False, None
        shop.note_answer(operation, request, response)
        return True, response

    def _note_failure(self, operation: Operation, request: Any, told: Refusal) -> None:
        """Count a sending without an answer; a receipt's next one is mostly a new message."""
        name = told.reason or told.code.name  # without a reason it is gRPC that speaks, and not the service
        self._shop.tally.failed(key_of(request), name, stored_nothing=told.reason in STORED_NOTHING)
        assert told.code in WORTH_SENDING_AGAIN, f"{operation}: {told}"
        if "receipt_key" in request.DESCRIPTOR.fields_by_name and self._dice.random() >= SAME_MESSAGE_SHARE:
            request.message_id = new_message(self._dice)

    async def _send_batch(self, stubs: Stubs, waiting: list[checkout_pb2.CommitRequest]) -> bool:
        """Send receipts taken offline once, and leave in the list what got no answer."""
        shop, sent = self._shop, list(waiting)
        for request in sent:
            shop.note_sending(Operation.OFFLINE, request)
        try:
            answer = await stubs.batch.send(
                checkout_pb2.CommitBatchRequest(commits=sent),
                metadata=stubs.batch.auth,
                timeout=shop.read_timeout_seconds,
            )
        except grpc.aio.AioRpcError as error:
            told = answer_of(error)
            for request in sent:
                self._note_failure(Operation.OFFLINE, request, told)
            return False
        waiting.clear()
        for request, result in zip(sent, answer.results, strict=True):
            if result.HasField("committed"):
                shop.note_answer(Operation.OFFLINE, request, result.committed)
                continue
            reason = common_pb2.RefusalReason.Name(result.refusal.reason).removeprefix("REFUSAL_REASON_")
            assert reason in UNSETTLED, result.refusal
            shop.tally.failed(key_of(request), reason, stored_nothing=reason in STORED_NOTHING)
            waiting.append(request)
        return not waiting
