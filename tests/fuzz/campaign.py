"""Calls every method of a running service with whatever the generator makes, and judges the answers."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import (
    checkout_pb2,
    common_pb2,
    correction_pb2,
    finance_pb2,
    ledger_pb2,
    member_pb2,
    programme_pb2,
    reconciliation_pb2,
    rights_pb2,
    store_pb2,
)

from tests.fuzz.generator import Generator
from tests.fuzz.pools import Known
from tests.support.server_process import RunningServer

FAULTS: Final = frozenset((grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE))
"""What no request may be answered. UNAVAILABLE is what a mistake looks like that is taken for a lost database."""
LANES: Final = 24
"""Calls under way at once, half of them on streams of the POS port."""
IN_A_STREAM: Final = 400
"""Requests that a stream carries before it is opened anew."""
UNDER_WAY: Final = 16
TIMEOUT_SECONDS: Final = 60
SHARE_ON_STREAMS: Final = 0.6
REPEATED: Final = 300
ATTEMPTS: Final = 5
WEIGHTS: Final = {
    "Reconcile": 0.1,
    "PublishProgramme": 0.1,
    "RollbackProgramme": 0.05,
    "CheckProgramme": 0.3,
    "SetRollout": 0.1,
    "CloseBooks": 0.1,
    "CountSegments": 0.2,
    "GetShadowReport": 0.3,
    "ListProgrammeVersions": 0.05,
    "MergeMembers": 0.05,
    "SetMemberStatus": 0.1,
    "SetCardStatus": 0.2,
    "RevokeTerminalKey": 0.1,
    "Commit": 3,
    "Hold": 2,
    "Return": 2,
    "CommitBatch": 2,
}
"""How often a method is called, where not once: those that take long, or take away what others need, less."""
_ERROR: Final = re.compile(r"('error_type'.*?\])")
_INCIDENT: Final = re.compile(r"incident ([0-9a-f]+)")
_OFFICE: Final = (
    *(correction_pb2, finance_pb2, ledger_pb2, member_pb2, programme_pb2, reconciliation_pb2, rights_pb2, store_pb2),
)
_ROLE_OF_SERVICE: Final = {
    **dict.fromkeys(("FinanceService", "LedgerService", "ReconciliationService", "CorrectionService"), "finance"),
    **dict.fromkeys(("MemberService", "RightsService"), "crm"),
}


class Fault(NamedTuple):
    """An answer that no request may get: the method, what was answered, the request, and what the log says of it."""

    method: str
    answer: str
    request: bytes
    logged: str

    def kind(self) -> str:
        """Return what faults of one cause share."""
        error = _ERROR.search(self.logged)
        return f"{self.method}: {error[1] if error else self.answer[:120]}"


@dataclass
class Report:
    """What a campaign found."""

    seed: int
    calls: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    by_method: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def count(self, method: str, code: str) -> None:
        """Count an answer."""
        self.calls += 1
        self.codes[code] += 1
        self.by_method.setdefault(method, Counter())[code] += 1


class Method(NamedTuple):
    """A method of the API, how often it is called, with which keys and over which port."""

    name: str
    path: str
    request: Any
    request_class: type[Message]
    answer: type[Message]
    keys: tuple[str, ...]
    on_pos: bool
    weight: float


class Campaign:
    """Calls until enough calls were made, or the time is over."""

    def __init__(
        self, server: RunningServer, known: Known, terminal_key: str, seed: int, calls: int, seconds: float = math.inf
    ) -> None:
        self._server = server
        self._known = known
        self._dice = random.Random(seed)
        self._generator = Generator(self._dice, known)
        self._terminal = (("authorization", f"Bearer {terminal_key}"),)
        self._weights = [method.weight for method in METHODS]
        self._left = calls
        self._ends_at = time.monotonic() + seconds
        self.report = Report(seed)
        self._unavailable: list[tuple[str, bytes]] = []
        self._advance: Callable[[int], None] = lambda _: None

    async def run(self, advance: Callable[[int], None]) -> Report:
        """Make all calls; `advance` is told of them."""
        self._advance = advance
        async with (
            grpc.aio.insecure_channel(self._server.pos_address) as pos,
            grpc.aio.insecure_channel(self._server.backoffice_address) as office,
        ):
            streaming = round(LANES * SHARE_ON_STREAMS)
            lanes = [self._stream_lane(pos) for _ in range(streaming)]
            lanes += [self._unary_lane(pos, office) for _ in range(LANES - streaming)]
            await asyncio.gather(*lanes)
            await self._repeat(pos, office)
        return self.report

    async def _repeat(self, pos: grpc.aio.Channel, office: grpc.aio.Channel) -> None:
        """Make calls again that found the database away: a busy machine may be, and a mistake is away for ever."""
        by_name = {method.name: method for method in METHODS}
        for name, raw in self._dice.sample(self._unavailable, min(REPEATED, len(self._unavailable))):
            method, request = _unary(by_name, name, raw)
            call: Any = (pos if method.on_pos else office).unary_unary(method.path)
            key = self._key(method)
            for attempt in range(ATTEMPTS):
                try:
                    await call(request, metadata=key, timeout=TIMEOUT_SECONDS)
                except grpc.aio.AioRpcError as error:
                    if error.code() == grpc.StatusCode.UNAVAILABLE and attempt + 1 < ATTEMPTS:
                        await asyncio.sleep(1)
                        continue
                    if error.code() in FAULTS:
                        self._fault(name, error.code(), error.details() or "", raw)
                break

    def _key(self, method: Method) -> tuple[tuple[str, str], ...]:
        role = self._dice.choice(method.keys)
        return self._terminal if method.on_pos else (("authorization", f"Bearer {self._server.keys[role]}"),)

    def _take(self) -> bool:
        if time.monotonic() >= self._ends_at:
            self._left = 0
        self._left -= 1
        return self._left >= 0

    # --- one call after the other ----------------------------------------------------------------------------------

    async def _unary_lane(self, pos: grpc.aio.Channel, office: grpc.aio.Channel) -> None:
        while self._take():
            method = self._dice.choices(METHODS, self._weights)[0]
            raw = self._generator.raw(method.request)
            call: Any = (pos if method.on_pos else office).unary_unary(method.path)
            try:
                answer = await call(raw, metadata=self._key(method), timeout=TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._judge(method.name, error.code(), error.details() or "", raw)
            else:
                self._judge_answer(method.name, method.answer.FromString(answer), raw)

    # --- many on a stream ------------------------------------------------------------------------------------------

    async def _stream_lane(self, pos: grpc.aio.Channel) -> None:
        call: Any = pos.stream_stream("/tallypoint.v1.CheckoutService/Session")
        while self._left > 0:
            stream = call(metadata=self._terminal)
            under_way: dict[int, bytes] = {}
            try:
                await self._converse(stream, under_way)
            except grpc.aio.AioRpcError as error:
                for raw in under_way.values():
                    self._judge("Session", error.code(), error.details() or "", raw)

    async def _converse(self, stream: Any, under_way: dict[int, bytes]) -> None:
        """Send requests as answers come, until the stream has carried enough."""
        sent = 0
        while sent < IN_A_STREAM or under_way:
            while sent < IN_A_STREAM and len(under_way) < UNDER_WAY and self._take():
                sent += 1
                request = self._generator.message(checkout_pb2.SessionRequest.DESCRIPTOR)
                request.correlation_id = sent  # type: ignore[attr-defined]  # a SessionRequest
                under_way[sent] = request.SerializeToString()
                await stream.write(under_way[sent])
            if not under_way:
                break
            raw = await stream.read()
            if raw is grpc.aio.EOF:
                raise AssertionError(f"the stream ended with {len(under_way)} calls under way")
            answer = checkout_pb2.SessionResponse.FromString(raw)
            self._judge_answer("Session", answer, under_way.pop(answer.correlation_id))
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge_answer(self, method: str, answer: Message, raw: bytes) -> None:
        refusals = list(_refusals(answer))
        if not refusals or method != "Session":
            self._judge(method, grpc.StatusCode.OK, "", raw)
        for refusal in refusals:
            code = _CODES[refusal.code]
            if method == "Session":
                self._judge(method, code, refusal.message, raw)
            elif code == grpc.StatusCode.UNAVAILABLE:
                self._unavailable.append((method, raw))
            elif code in FAULTS:
                self._fault(f"{method} item", code, refusal.message, raw)
        if not refusals:
            self._known.learn_from(answer)
            if method in ("Commit", "Session"):
                self._learn_key(method, raw)

    def _judge(self, method: str, code: grpc.StatusCode, text: str, raw: bytes) -> None:
        self.report.count(method, code.name)
        self._advance(1)
        if code == grpc.StatusCode.UNAVAILABLE:
            self._unavailable.append((method, raw))
        elif code in FAULTS:
            self._fault(method, code, text, raw)

    def _fault(self, method: str, code: grpc.StatusCode, text: str, raw: bytes) -> None:
        self.report.faults.append(Fault(method, f"{code.name}: {text}", raw, self._logged(text)))

    def _logged(self, text: str) -> str:
        """Return what the service logged of an incident."""
        found = _INCIDENT.search(text)
        events = [event for event in list(self._server.log) if found and event.get("incident") == found[1]]
        return "\n".join(str(event) for event in events)

    def _learn_key(self, method: str, raw: bytes) -> None:
        if method == "Commit":
            self._known.receipt_keys.append(checkout_pb2.CommitRequest.FromString(raw).receipt_key)
        else:
            request = checkout_pb2.SessionRequest.FromString(raw)
            if request.WhichOneof("call") == "commit":
                self._known.receipt_keys.append(request.commit.receipt_key)


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _methods() -> Iterator[Method]:
    for module in (checkout_pb2, *_OFFICE):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if method.client_streaming:
                    continue
                role = _ROLE_OF_SERVICE.get(service.name, "admin")
                yield Method(
                    method.name,
                    f"/{service.full_name}/{method.name}",
                    method.input_type,
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                    (role, role, "admin", "crm"),
                    on_pos=module is checkout_pb2,
                    weight=WEIGHTS.get(method.name, 1.0),
                )


METHODS: Final = list(_methods())


def _unary(by_name: Mapping[str, Method], name: str, raw: bytes) -> tuple[Method, bytes]:
    """Return the method and the request of a call, also of one on a stream."""
    if name != "Session":
        return by_name[name], raw
    request = checkout_pb2.SessionRequest.FromString(raw)
    call = request.WhichOneof("call") or "identify"
    return by_name[call.capitalize()], getattr(request, call).SerializeToString()


def _refusals(answer: Message) -> Iterator[common_pb2.Refusal]:
    """Yield the refusals of items of a batch, or of a call on a stream."""
    if isinstance(answer, checkout_pb2.SessionResponse):
        if answer.WhichOneof("answer") == "refusal":
            yield answer.refusal
    elif isinstance(answer, checkout_pb2.CommitBatchResponse | member_pb2.ImportMembersResponse):
        yield from (one.refusal for one in answer.results if one.WhichOneof("outcome") == "refusal")
    elif "refused" in answer.DESCRIPTOR.fields_by_name:
        yield from (row.refusal for row in answer.refused)  # type: ignore[attr-defined]  # all of them are rows
