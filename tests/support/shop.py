"""The load of the tests of adversity: a shop whose lanes sell, hold, take goods back, and send again as registers do.

Everything that is sent and answered is counted in a `Tally`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from tallypoint.v1 import checkout_pb2, correction_pb2, member_pb2

from ledger.entry.keys import message_key
from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.support.calls import REQUESTS, Sent, Stubs, is_booked, key_of, message_of, told_by
from tests.support.crm import eventually
from tests.support.faults import dsn_of
from tests.support.lanes import PATIENCE_SECONDS, Lane, new_message
from tests.support.proof import Proof, prove
from tests.support.server_process import RunningServer
from tests.support.tally import Answer, Operation, Tally
from tests.support.till import Till, answer_of, open_till, set_up_store

LANES: Final = 8
MEMBERS: Final = 12
READ_TIMEOUT_SECONDS: Final = 3.0
"""What lanes are set to; then they send again."""
RETURNABLE: Final = 400
"""The newest purchases, of which some are brought back."""
JOURNAL_CHUNK: Final = 100


class Shop:
    """Lanes that do their errands as fast as they are answered."""

    def __init__(self, till: Till, members: Sequence[member_pb2.Member], read_timeout_seconds: float) -> None:
        """Sell to these members, and to strangers. `open_shop` makes shops."""
        self.tally = Tally()
        self.journal: list[Sent] = []
        """Everything that was answered, as it was sent last."""
        self.till = till
        self.cards = [member.cards[0].card_number for member in members]
        self.member_ids = [member.member_id for member in members]
        self.read_timeout_seconds = read_timeout_seconds
        self.purchases: deque[checkout_pb2.CommitRequest] = deque(maxlen=RETURNABLE)
        """The newest purchases that were answered."""
        self.abandon_when_refused = False
        """The service goes for good: a lane that gets no answer leaves its errand, and the shop."""
        self.receipt_numbers = itertools.count(1)
        self.lanes: list[Lane] = []
        self._closed = False
        self._open_gate = asyncio.Event()
        self._open_gate.set()

    async def sell(self, operations: int) -> None:
        """Wait until this many more operations are acknowledged."""
        wanted = self.tally.acknowledged + operations
        await self._until(lambda: self.tally.acknowledged >= wanted, f"no {operations} more acknowledgements")

    async def go_on(self) -> None:
        """Wait until every lane has finished an errand that it began after this call."""
        wanted = [lane.finished + 2 for lane in self.lanes]
        await self._until(
            lambda: all(lane.finished >= count for lane, count in zip(self.lanes, wanted, strict=True)),
            "not all lanes went on",
        )

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """Let every lane finish its errand, and begin no other before the block ends."""
        self._open_gate.clear()
        await self._until(lambda: all(lane.idle for lane in self.lanes), "not all lanes came to rest")
        try:
            yield
        finally:
            self._open_gate.set()

    def close(self) -> None:
        """Let every lane finish its errand and begin no other."""
        self._closed = True
        self._open_gate.set()

    async def admitted(self) -> bool:
        """Wait while the shop pauses; say whether it is still open."""
        await self._open_gate.wait()
        return not self._closed

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while not condition():
            assert loop.time() < deadline, f"{otherwise} in {PATIENCE_SECONDS} s: {self.tally}"
            await asyncio.sleep(0.005)

    async def send_journal_again(self, stubs: Stubs, operations: int, dice: random.Random) -> int:
        """Send some of all that was answered again; each must get the answer it had. Return how many were sent."""
        chosen = dice.sample(self.journal, min(operations, len(self.journal)))
        for start in range(0, len(chosen), JOURNAL_CHUNK):
            receipts, others = [], []
            for sent in chosen[start : start + JOURNAL_CHUNK]:
                request: Any = REQUESTS[sent.operation].FromString(sent.request)
                if sent.operation in (Operation.PURCHASE, Operation.OFFLINE):
                    request.message_id = new_message(dice)
                    receipts.append((sent, request))
                else:
                    others.append(self._send_message_again(stubs, sent, request))
            await asyncio.gather(*others)
            if receipts:
                await self._send_receipts_again(stubs, receipts)
        return len(chosen)

    async def _send_message_again(self, stubs: Stubs, sent: Sent, request: Any) -> None:
        """Send the same message."""
        call = stubs.calls[sent.operation]
        self.note_sending(sent.operation, request)
        response = await call.send(request, metadata=call.auth, timeout=PATIENCE_SECONDS)
        self.tally.answered(sent.key, *told_by(sent.operation, request, response))

    async def _send_receipts_again(self, stubs: Stubs, receipts: list[tuple[Sent, Any]]) -> None:
        """Send receipts as a register sends its journal."""
        for sent, request in receipts:
            self.note_sending(sent.operation, request)
        batch = checkout_pb2.CommitBatchRequest(commits=[request for _, request in receipts])
        answer = await stubs.batch.send(batch, metadata=stubs.batch.auth, timeout=PATIENCE_SECONDS)
        for (sent, request), result in zip(receipts, answer.results, strict=True):
            assert result.HasField("committed"), result.refusal
            self.tally.answered(sent.key, *told_by(sent.operation, request, result.committed))

    def note_sending(self, operation: Operation, request: Any) -> None:
        """Count a sending."""
        self.tally.sent(key_of(request), message_of(request), operation)

    def note_answer(self, operation: Operation, request: Any, response: Any) -> None:
        """Count an answer that promises something, and keep what it answers for later."""
        if not is_booked(operation, response):
            return
        key = key_of(request)
        self.tally.answered(key, *told_by(operation, request, response))
        self.journal.append(Sent(operation, key, request.SerializeToString()))
        if operation in (Operation.PURCHASE, Operation.OFFLINE):
            self.purchases.append(request)


@asynccontextmanager
async def open_shop(
    server: RunningServer, dice: random.Random, *, read_timeout_seconds: float = READ_TIMEOUT_SECONDS
) -> AsyncIterator[Shop]:
    """Set up a store with members and let its lanes work; at the end every errand begun is settled."""
    key = await set_up_store(server, "shop")
    async with open_till(server, "shop", key) as till:
        members = [await till.enrol() for _ in range(MEMBERS)]
    shop = Shop(till, members, read_timeout_seconds)
    for member in members:
        member_key = message_key(member.member_id)
        shop.tally.sent(member_key, member_key, Operation.ENROLMENT)
        shop.tally.answered(member_key, Answer(member.book, 0, member.member_id.encode()))
    await _until_the_office_knows(shop)
    shop.lanes = [Lane(shop, random.Random(dice.getrandbits(64))) for _ in range(LANES)]
    try:
        async with asyncio.TaskGroup() as group:
            for lane in shop.lanes:
                group.create_task(lane.work())
            yield shop
            shop.close()
    finally:  # shown if the test fails
        print(shop.tally, *(event for event in server.log if event.get("level") == "error"), sep="\n")


async def _until_the_office_knows(shop: Shop) -> None:
    """Wait until the back office has read the programme: it refuses this transfer for another reason then."""
    too_much = correction_pb2.TransferPointsRequest(
        request_id=str(uuid.uuid4()),
        from_member_id=shop.member_ids[0],
        to_member_id=shop.member_ids[1],
        points_minor=10**12,
        reason_code="family",
    )
    async with Stubs.open(shop.till) as stubs:
        call = stubs.calls[Operation.TRANSFER]

        async def refused() -> bool:
            try:
                await call.send(too_much, metadata=call.auth, timeout=PATIENCE_SECONDS)
            except grpc.aio.AioRpcError as error:
                return answer_of(error).reason == "POINTS_INSUFFICIENT"
            raise AssertionError("members were given points that nobody has")

        await eventually(refused, "the back office knows the programme")


async def prove_shop(shop: Shop, server: RunningServer, dice: random.Random, operations: int = 300) -> Proof:
    """Send a part of the journal again, and hold both databases of a server against all answers."""
    async with Stubs.open(dataclasses.replace(shop.till, server=server)) as stubs:
        await shop.send_journal_again(stubs, operations, dice)
    return await prove(dsn_of(server, LEDGER_DATABASE), shop.tally, dsn_of(server, CRM_DATABASE))
