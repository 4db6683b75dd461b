"""A register at work: it makes calls on its connection, times them, checks the answers, and reports each."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

import gevent
from google.protobuf.message import Message
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.locust import checks
from benchmarks.locust.checks import Points, Wanted, WrongAnswer
from benchmarks.locust.lane import Lane, Sold, sent_again
from benchmarks.locust.prepared import Shopper
from benchmarks.locust.wire import WORTH_SENDING_AGAIN, Answer, NoAnswer, Wire

COMMIT_TRIES: Final = 3
"""How often a Commit is sent while the shopper waits."""
_FIRST_WAIT_SECONDS: Final = 0.2
_NANOSECONDS: Final = 1e9


class GivenUp(Exception):
    """The checkout cannot go on: a call failed, which is reported already."""


class Outcome(NamedTuple):
    """One call, as it is reported: `kind` is its name in the tables."""

    kind: str
    nanoseconds: int
    size_bytes: int
    error: Exception | None
    entry: common_pb2.EntryRef | None = None
    """The entry in the books that it made, which no other call may have made."""


class Report(Protocol):
    """Is told of every call."""

    def __call__(self, outcome: Outcome) -> None:
        """Take note."""
        ...


class Shopping(NamedTuple):
    """A basket that was quoted as a whole, ready to be paid."""

    shopper: Shopper | None
    identifier: common_pb2.Identifier | None
    receipt: common_pb2.Receipt
    quote: checkout_pb2.QuoteResponse
    before: Points | None

    @property
    def member_id(self) -> str:
        """The shopper's, or nothing."""
        return self.shopper.member_id if self.shopper else ""


class Register:
    """Serves the shoppers of one lane, one after the other. Whatever fails raises `GivenUp`."""

    def __init__(self, wire: Wire, lane: Lane, report: Report, scan_seconds: float = 0.0) -> None:
        self._wire = wire
        self._report = report
        self._scan_seconds = scan_seconds
        self.lane = lane
        self.paused_nanoseconds = 0
        """How long it has waited on purpose, for goods being scanned."""

    def connect(self) -> None:
        """Connect, or connect anew."""
        begun = time.perf_counter_ns()
        error: NoAnswer | None = None
        try:
            self._wire.connect()
        except NoAnswer as none:
            error = none
        self._report(Outcome("Connect", time.perf_counter_ns() - begun, 0, error))
        if error is not None:
            raise GivenUp

    def connect_if_possible(self) -> None:
        """Connect; what goes wrong is reported, and tried again by the next call."""
        with suppress(GivenUp):
            self.connect()

    def close(self) -> None:
        """Hang up."""
        self._wire.close()

    # --- shopping ---

    def scan(self, shopper: Shopper | None, coupon: str = "") -> Shopping:
        """Identify the shopper, if one has a card, and quote the basket while it grows."""
        identifier = self.lane.identifier(shopper) if shopper else None
        if shopper is not None and identifier is not None:
            self._identify(shopper, identifier)
        receipt = self.lane.basket()
        quote = checkout_pb2.QuoteResponse()
        for stage in self.lane.growing(receipt):
            self._pause()
            quote = self._quote(Shopping(shopper, identifier, stage, quote, self.lane.known(shopper)), 0, coupon)
        return Shopping(shopper, identifier, receipt, quote, self.lane.known(shopper))

    def with_points(self, shopping: Shopping) -> Shopping:
        """Quote the whole basket again, with all points that can be spent on it."""
        points_minor = shopping.quote.max_spend_points_minor
        return shopping._replace(quote=self._quote(shopping, points_minor, ""))

    def hold(self, shopping: Shopping) -> tuple[Shopping, checkout_pb2.CheckoutKey]:
        """Keep the points of the quote; return the basket with the balance after it, and the checkout."""
        request = checkout_pb2.HoldRequest(
            message_id=str(uuid.uuid4()),
            checkout_key=self.lane.checkout_key(),
            identifier=shopping.identifier,
            receipt=shopping.receipt,
            spend_points_minor=shopping.quote.spend_points_minor,
            coupon_codes=[coupon.code for coupon in shopping.quote.coupons if coupon.used],
        )

        def check(answer: Answer) -> None:
            checks.check_held(answer.message, shopping.quote, shopping.before)

        held: checkout_pb2.HoldResponse = self._call("Hold", "Hold", request, check, shopping.shopper).message
        self.lane.forget(shopping.shopper)  # until it is paid or cancelled, time may end it
        points = Points.first(held.balances)
        is_alone = points.held == shopping.quote.spend_points_minor  # a run that was broken off may have left a hold
        return shopping._replace(before=points if is_alone else None), request.checkout_key

    def cancel(self, shopping: Shopping, checkout: checkout_pb2.CheckoutKey) -> Shopping:
        """Let go of what is held; return the basket as one that is paid in money."""
        held = shopping.before
        free = None if held is None else held._replace(available=held.available + held.held, held=0)
        request = checkout_pb2.CancelRequest(
            message_id=str(uuid.uuid4()), checkout_key=checkout, reason="the shopper pays in money"
        )

        def check(answer: Answer) -> None:
            checks.check_cancelled(answer.message, shopping.quote.spend_points_minor, free)

        self._call("Cancel", "Cancel", request, check, shopping.shopper)
        if free is not None:
            self.lane.learn(shopping.shopper, free)
        shopping = shopping._replace(before=free)
        return shopping._replace(quote=self._quote(shopping, 0, ""))

    def pay(self, shopping: Shopping, checkout: checkout_pb2.CheckoutKey | None = None) -> None:
        """Book the basket as quoted, capturing the checkout's hold if there is one."""
        request = self.lane.commit(shopping.identifier, shopping.receipt, shopping.quote)
        if checkout is not None:
            request.checkout_id = checkout.checkout_id
        wanted = Wanted(shopping.member_id, shopping.quote, shopping.before, is_held=checkout is not None)

        def check(answer: Answer) -> None:
            checks.check_committed(answer.message, request, wanted)

        answer = self._commit(request, check, shopping.shopper)
        self.lane.learn(shopping.shopper, Points.of(answer.message.settlement.balance))
        self.lane.keep(request, answer.raw, shopping.shopper)

    # --- afterwards ---

    def resend(self, sold: Sold) -> None:
        """Send a receipt again, in a new message or in the very same one: the answer must be the very same."""
        request = sent_again(sold.request) if self.lane.chance.random() < 1 / 2 else sold.request
        self._call("Commit again", "Commit", request, lambda answer: checks.check_same(sold.answer, answer.raw))

    def give_back(self, sold: Sold) -> None:
        """Take goods back: one line, or all that is left. What is back already must be refused."""
        lines = self.lane.goods_back(sold)
        if not lines:
            everything = [(line.line_number, line.quantity_milli) for line in sold.request.receipt.lines]
            request = self.lane.return_of(sold, everything)
            self._refused("Return refused", "Return", request, "RETURN_EXCEEDS_PURCHASE")
            return
        is_last = len(lines) == len(sold.quantities_milli)
        left = sold.left

        def check(answer: Answer) -> None:
            nonlocal left
            before = self.lane.known(sold.shopper)
            left = checks.check_returned(answer.message, lines, sold.left, before, is_last=is_last)

        request = self.lane.return_of(sold, lines)
        answer = self._call("Return", "Return", request, check, sold.shopper)
        sold.left = left
        for line, _ in lines:
            del sold.quantities_milli[line]
        self.lane.learn(sold.shopper, Points.first(answer.message.balances))

    def show_unknown_card(self) -> None:
        """Show a card that nobody has."""
        request = checkout_pb2.IdentifyRequest(identifier=self.lane.unknown_card())
        self._refused("Identify refused", "Identify", request, "IDENTIFIER_UNKNOWN")

    # --- calls ---

    def _identify(self, shopper: Shopper, identifier: common_pb2.Identifier) -> None:
        before = self.lane.known(shopper)

        def check(answer: Answer) -> None:
            checks.check_identified(answer.message, shopper.member_id, before)

        request = checkout_pb2.IdentifyRequest(identifier=identifier)
        answer = self._call("Identify", "Identify", request, check, shopper)
        self.lane.learn(shopper, Points.first(answer.message.balances))

    def _quote(self, shopping: Shopping, points_minor: int, coupon: str) -> checkout_pb2.QuoteResponse:
        request = checkout_pb2.QuoteRequest(
            identifier=shopping.identifier,
            receipt=shopping.receipt,
            spend_points_minor=points_minor,
            coupon_codes=[coupon] if coupon else [],
        )

        def check(answer: Answer) -> None:
            checks.check_quoted(answer.message, shopping.receipt, shopping.member_id, shopping.before)

        answer = self._call("Quote", "Quote", request, check, shopping.shopper)
        quote: checkout_pb2.QuoteResponse = answer.message
        return quote

    def _commit(
        self, request: checkout_pb2.CommitRequest, check: Callable[[Answer], None], shopper: Shopper | None
    ) -> Answer:
        """Send a receipt until it is booked, a few times, each in a message of its own."""
        wait_seconds = _FIRST_WAIT_SECONDS
        for tries_left in reversed(range(COMMIT_TRIES)):
            try:
                return self._call("Commit", "Commit", request, check, shopper)
            except GivenUp as given_up:
                error = given_up.__cause__
                if not tries_left or not isinstance(error, NoAnswer) or error.code not in WORTH_SENDING_AGAIN:
                    raise
                gevent.sleep(error.retry_after_seconds or wait_seconds)
            wait_seconds *= 2
            request = sent_again(request)
        raise AssertionError("the last try returns or raises")

    def _call(
        self,
        kind: str,
        method: str,
        request: Message,
        check: Callable[[Answer], None],
        shopper: Shopper | None = None,
    ) -> Answer:
        """Call, time, check, report; if anything is wrong, forget what was known of the shopper."""
        begun = time.perf_counter_ns()
        answer: Answer | None = None
        error: NoAnswer | WrongAnswer | None = None
        try:
            answer = self._wire.call(method, request)
        except NoAnswer as none:
            error = none
        nanoseconds = time.perf_counter_ns() - begun
        entry = None
        if answer is not None:
            try:
                check(answer)
                entry = getattr(answer.message, "entry", None) if kind != "Commit again" else None
            except WrongAnswer as wrong:
                error = wrong.to(self._whereabouts(request, answer.message, shopper))
        self._report(Outcome(kind, nanoseconds, len(answer.raw) if answer else 0, error, entry))
        if answer is None or error is not None:
            self.lane.forget(shopper)
            raise GivenUp from error
        return answer

    def _refused(self, kind: str, method: str, request: Message, reason: str) -> None:
        """Make a call that must be refused for this reason: any other outcome is a failure."""
        begun = time.perf_counter_ns()
        error: Exception | None = None
        try:
            answer = self._wire.call(method, request)
            wrong = WrongAnswer("not refused", f"{method} was answered; it should be refused {reason}")
            error = wrong.to(self._whereabouts(request, answer.message))
        except NoAnswer as none:
            if none.reason != reason:
                error = none
        self._report(Outcome(kind, time.perf_counter_ns() - begun, 0, error))
        if error is not None:
            raise GivenUp from error

    def _whereabouts(self, request: Any, answer: Any, shopper: Shopper | None = None) -> str:  # noqa: ANN401 - messages
        """Say which call it was: what there is of terminal, receipt, entry in the books, and member."""
        words = [f"store {self.lane.terminal.store_id}, terminal {self.lane.terminal.terminal_id}"]
        key = getattr(request, "receipt_key", None)
        if key is not None:
            words.append(f"receipt {key.receipt_number} of {key.business_date}")
        entry = getattr(answer, "entry", None)
        if entry is not None and entry.number:
            words.append(f"entry {entry.number} of book {entry.book}")
        if shopper is not None:
            words.append(f"member {shopper.member_id}")
        return ", ".join(words)

    def _pause(self) -> None:
        """Wait while goods are scanned."""
        if self._scan_seconds:
            seconds = self.lane.chance.expovariate(1 / self._scan_seconds)
            gevent.sleep(seconds)
            self.paused_nanoseconds += int(seconds * _NANOSECONDS)
