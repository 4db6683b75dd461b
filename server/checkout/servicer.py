"""The calls of the POS port. Reading ones answer from memory and gathered look-ups; Commit goes through the books.

Every call looks the same: find the member, turn the receipt into plain data, let the pure evaluator say what it
gives, and (Commit) submit what the register says was paid to the committer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence

from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.balances import BalanceAt
from ledger.committer import Committer
from ledger.keys import checkout_key
from ledger.model import Booked, Hold
from server.checkout.booking import (
    CommitContext,
    Shopper,
    checkout_of,
    commit_command,
    commit_response,
    member_facts,
)
from server.checkout.convert import CatalogueLike, balance_message
from server.checkout.holding import (
    HoldContext,
    cancel_command,
    cancel_response,
    hold_command,
    hold_response,
    nothing_held,
    release_command,
    spending_refusal,
)
from server.checkout.quoting import (
    TAKE_OVER_TEXT,
    available_of,
    held_elsewhere,
    held_elsewhere_notice,
    held_elsewhere_text,
    of_other_checkouts,
    of_other_lanes,
    quote_response,
)
from server.checkout.reading import LedgerReader
from server.checkout.returning import ReturnContext, known_purchase, return_command, return_response
from server.checkout.sale import Judge, StoresLike, evaluated, moment_of
from server.checkout.session import Call, serve_session
from server.checkout.submitting import receipt_key_bytes, submit
from server.clock import Clock
from server.edge import Caller, check
from server.errors import Refused, refusal_message
from server.gather import Gatherer
from server.members.directory import Directory, Found
from server.promotions import OfflineAction, quote
from server.rules import RulesBook

BalanceReader = Gatherer[tuple[int, uuid.UUID], list[BalanceAt]]

_OFFLINE_CASES: Mapping[common_pb2.RefusalReason, str] = {
    common_pb2.REFUSAL_REASON_IDENTIFIER_UNKNOWN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_FOREIGN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG: "unknown_identifier",
    common_pb2.REFUSAL_REASON_PHONE_INVALID: "unknown_identifier",
    common_pb2.REFUSAL_REASON_MEMBER_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_REPLACED: "replaced_card",
    common_pb2.REFUSAL_REASON_MEMBER_MERGED: "merged_member",
}
"""Which setting of the programme decides about a receipt taken offline whose identifier is refused today. A misread
one cannot be scanned again, so it is as good as unknown."""


class CheckoutServicer:
    """CheckoutService; see checkout.proto for what each call promises."""

    def __init__(
        self,
        *,
        directory: Directory,
        balances: BalanceReader,
        reader: LedgerReader,
        committer: Committer,
        rules: RulesBook,
        catalogue: CatalogueLike,
        stores: StoresLike,
        clock: Clock,
    ) -> None:
        """Take the parts that a worker shares among its calls."""
        self._directory = directory
        self._balances = balances
        self._reader = reader
        self._committer = committer
        self._rules = rules
        self._judge = Judge(rules, catalogue, stores)
        self._clock = clock

    # --- reading -----------------------------------------------------------------------------------------------

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Find the member behind an identifier."""
        found = await self._member(request.identifier)
        balances = await self._balances_of(found)
        response = checkout_pb2.IdentifyResponse(
            member=found.member.summary(), balances=[balance_message(balance) for balance in balances]
        )
        if not found.member.can_spend:
            response.notices.append(
                common_pb2.Notice(
                    audience=common_pb2.AUDIENCE_CASHIER,
                    code="EARN_ONLY",
                    text="This member earns points but cannot spend them yet.",
                )
            )
        await self._show_held_elsewhere(response, found, balances, caller)
        return response

    async def quote(self, request: checkout_pb2.QuoteRequest, caller: Caller) -> checkout_pb2.QuoteResponse:
        """Say what a receipt would give."""
        sale = self._judge.sale(request.receipt, caller.store_id)
        found: Found | None = None
        balances: list[BalanceAt] = []
        if request.HasField("identifier"):
            found = await self._member(request.identifier)
            balances = await self._balances_of(found)
        available = available_of(balances, sale.rules)
        wanted = request.spend_points_minor if found is None else min(request.spend_points_minor, available)
        effects = evaluated(lambda: quote(sale.rules, sale.facts, member_facts(found), wanted))
        messages = [balance_message(balance) for balance in balances]
        response = quote_response(request.receipt, sale, effects, found, messages, available, request.coupon_codes)
        if found is not None:
            await self._show_held_elsewhere(response, found, balances, caller)
        return response

    async def _show_held_elsewhere(
        self,
        response: checkout_pb2.IdentifyResponse | checkout_pb2.QuoteResponse,
        found: Found,
        balances: Sequence[BalanceAt],
        caller: Caller,
    ) -> None:
        """Say which other lanes hold points of the member; it costs a query only if anybody holds any."""
        holding = next((balance for balance in balances if balance.held_minor), None)
        if holding is None:
            return
        holds = await self._reader.open_holds(found.member.book, found.member.member_id)
        elsewhere = held_elsewhere(of_other_lanes(holds, caller.store_id, caller.terminal_id), self._clock())
        response.held_elsewhere.extend(elsewhere)
        response.notices.extend(held_elsewhere_notice(elsewhere, holding.unit.precision))

    # --- writing -----------------------------------------------------------------------------------------------

    async def commit(self, request: checkout_pb2.CommitRequest, caller: Caller) -> checkout_pb2.CommitResponse:
        """Book a receipt as paid."""
        return await self._commit(request, caller, await self._shopper(request))

    async def commit_batch(
        self, request: checkout_pb2.CommitBatchRequest, caller: Caller
    ) -> checkout_pb2.CommitBatchResponse:
        """Book receipts that were taken offline, each with its own result."""
        results = await asyncio.gather(*(self._commit_offline(commit, caller) for commit in request.commits))
        return checkout_pb2.CommitBatchResponse(results=results)

    async def _commit_offline(self, request: checkout_pb2.CommitRequest, caller: Caller) -> checkout_pb2.CommitResult:
        try:
            check(request)
            shopper = await self._shopper(request, offline=True)
            return checkout_pb2.CommitResult(committed=await self._commit(request, caller, shopper))
        except Refused as refused:
            return checkout_pb2.CommitResult(refusal=refusal_message(refused))

    async def _commit(
        self, request: checkout_pb2.CommitRequest, caller: Caller, shopper: Shopper
    ) -> checkout_pb2.CommitResponse:
        _check_store(request.receipt_key.store_id, caller, "receipt_key")
        sale = self._judge.sale(request.receipt, request.receipt_key.store_id)
        context = CommitContext(
            rules=sale.rules,
            unit=self._rules.unit(sale.rules),
            zone=sale.zone,
            facts=sale.facts,
            notices=sale.shortcomings(request.coupon_codes),
            shopper=shopper,
        )
        command = evaluated(lambda: commit_command(request, context, self._committer.books))
        return commit_response(await submit(self._committer, command, caller.deadline, shopper.refusal))

    async def hold(self, request: checkout_pb2.HoldRequest, caller: Caller) -> checkout_pb2.HoldResponse:
        """Keep points for a checkout."""
        _check_store(request.checkout_key.store_id, caller, "checkout_key")
        sale = self._judge.sale(request.receipt, request.checkout_key.store_id, "checkout_key")
        found, refusal = await self._directory.look_up(request.identifier)
        if found is None:
            assert refusal is not None, "a look-up finds a member or says why not"
            raise refusal
        facts = member_facts(found)
        effects = evaluated(lambda: quote(sale.rules, sale.facts, facts, request.spend_points_minor))
        refusal = refusal or spending_refusal(found, request.spend_points_minor)
        context = HoldContext(sale, self._rules.unit(sale.rules), found, refusal, effects)
        command = hold_command(request, context, self._committer.books)
        if refusal is None:
            await self._release_for_another_card(request, command, caller)
        try:
            booked = await submit(self._committer, command, caller.deadline, refusal)
        except Refused as refused:
            if refused.reason == common_pb2.REFUSAL_REASON_HELD_ELSEWHERE:
                raise await self._say_where(refused, command) from refused
            raise
        return self._hold_response(request, context, booked)

    async def _release_for_another_card(self, request: checkout_pb2.HoldRequest, command: Hold, caller: Caller) -> None:
        """Let go of what the checkout holds for another member: its books cannot see that this hold replaces it."""
        before = await self._reader.checkout_hold(command.checkout_key)
        if before is None or before.member_id == command.member_id or not before.is_open(self._clock()):
            return
        assert command.message_id is not None, "a hold has a message id"
        if await self._reader.is_message_booked(command.message_id):
            return  # this hold was booked before, and another one came after it
        release = release_command(request.checkout_key, before, self._clock())
        try:
            await submit(self._committer, release, caller.deadline)
        except Refused as refused:
            if refused.reason != common_pb2.REFUSAL_REASON_HOLD_GONE:
                raise

    async def _say_where(self, refused: Refused, command: Hold) -> Refused:
        """Tell the cashier which lanes hold the points."""
        holds = await self._reader.open_holds(command.book, command.member_id)
        elsewhere = held_elsewhere(of_other_checkouts(holds, command.checkout_key), self._clock())
        if not elsewhere:
            return refused
        where = held_elsewhere_text(elsewhere, command.unit.precision)
        return Refused(refused.reason, refused.message, cashier_text=f"{where} {TAKE_OVER_TEXT}")

    def _hold_response(
        self, request: checkout_pb2.HoldRequest, context: HoldContext, booked: Booked
    ) -> checkout_pb2.HoldResponse:
        response = hold_response(booked)
        (balance,) = response.balances
        quoted = quote_response(
            request.receipt,
            context.sale,
            context.effects,
            context.found,
            response.balances,
            balance.available_points_minor + response.held_points_minor,
            request.coupon_codes,
        )
        quoted.held_elsewhere.extend(response.held_elsewhere)
        quoted.notices.extend(held_elsewhere_notice(response.held_elsewhere, balance.precision))
        response.quote.CopyFrom(quoted)
        return response

    async def cancel(self, request: checkout_pb2.CancelRequest, caller: Caller) -> checkout_pb2.CancelResponse:
        """Release what a checkout holds."""
        _check_store(request.checkout_key.store_id, caller, "checkout_key")
        hold = await self._reader.checkout_hold(checkout_key(request.checkout_key))
        if hold is None:
            raise nothing_held(request.checkout_key)
        command = cancel_command(request, hold, self._clock())
        return cancel_response(await submit(self._committer, command, caller.deadline), hold.number)

    async def return_(self, request: checkout_pb2.ReturnRequest, caller: Caller) -> checkout_pb2.ReturnResponse:
        """Reverse a purchase, or some of its lines."""
        _check_store(request.receipt_key.store_id, caller, "receipt_key")
        zone = self._judge.zone(request.receipt_key.store_id)
        rules = self._judge.rules_at(moment_of(request.event_at))
        found = await self._reader.receipt(receipt_key_bytes(request.purchase_key, "purchase_key"))
        purchase = known_purchase(request, found)
        unit_code = purchase.event.settlement.balance.unit  # empty for a purchase without a member, which has no points
        unit = self._rules.unit_named(unit_code) if unit_code else self._rules.unit(rules)
        command = return_command(request, ReturnContext(purchase, rules, unit, zone))
        return return_response(await submit(self._committer, command, caller.deadline))

    def session(
        self, requests: AsyncIterator[checkout_pb2.SessionRequest], caller: Caller
    ) -> AsyncIterator[checkout_pb2.SessionResponse]:
        """Serve many calls over one stream."""
        calls: dict[str, Call] = {
            "identify": self.identify,
            "quote": self.quote,
            "hold": self.hold,
            "commit": self.commit,
            "cancel": self.cancel,
            "return": self.return_,
        }
        return serve_session(requests, caller, calls)

    # --- what the calls share ----------------------------------------------------------------------------------

    async def _member(self, identifier: common_pb2.Identifier) -> Found:
        answer = await self._directory.find(identifier)
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def _shopper(self, request: checkout_pb2.CommitRequest, *, offline: bool = False) -> Shopper:
        """Find whom a receipt is for, whatever became of the card meanwhile.

        One whose card is refused now may still repeat its answer, and is booked if the checkout holds points: what a
        hold has settled is not refused after payment. Otherwise, for receipts taken offline, the programme decides.
        """
        if not request.HasField("identifier"):
            return Shopper()
        found, refusal = await self._directory.look_up(request.identifier)
        if refusal is None:
            return Shopper(found, found)
        if refusal.retry_after_seconds is not None:  # nothing is known about the card
            raise refusal
        checkout = checkout_of(request)
        if checkout is not None:
            holder, is_open = await self._holder(checkout, found)
            if is_open:
                return Shopper(holder, found or holder)
            found = found or holder
        if offline:
            return self._shopper_offline(request, found, refusal)
        if found is None:
            raise refusal
        return Shopper(None, found, refusal)

    async def _holder(self, checkout: bytes, shown: Found | None) -> tuple[Found | None, bool]:
        """Return the member for whom a checkout holds or held points, and whether it still does."""
        hold = await self._reader.checkout_hold(checkout)
        if hold is None:
            return None, False
        if shown is not None and shown.member.member_id == hold.member_id:
            return shown, hold.is_open(self._clock())
        holder, refusal = await self._directory.look_up(common_pb2.Identifier(member_id=str(hold.member_id)))
        if holder is None and refusal is not None and refusal.retry_after_seconds is not None:
            raise refusal
        return holder, holder is not None and hold.is_open(self._clock())

    def _shopper_offline(self, request: checkout_pb2.CommitRequest, found: Found | None, refusal: Refused) -> Shopper:
        """Let the programme say what becomes of a receipt taken offline whose identifier is refused."""
        case = _OFFLINE_CASES.get(refusal.reason)
        rules = self._rules.at(moment_of(request.receipt.event_at))
        if case is None or rules is None:
            raise refusal
        action: OfflineAction = getattr(rules.programme.offline, case)
        if action is OfflineAction.BOOK_WITHOUT_MEMBER:
            return Shopper(None, found, refusal, booked_without=True)
        if found is None:
            raise refusal
        return Shopper(None, found, refusal) if action is OfflineAction.REFUSE else Shopper(found, found)

    async def _balances_of(self, found: Found) -> list[BalanceAt]:
        return await self._balances.get((found.member.book, found.member.member_id)) or []


def _check_store(store_id: str, caller: Caller, key: str) -> None:
    if store_id != caller.store_id:
        raise Refused(
            common_pb2.REFUSAL_REASON_FOREIGN_STORE,
            f"terminal {caller.name} belongs to store {caller.store_id}, the request to store {store_id}",
            cashier_text="This register is set up for another store. Call the administrator.",
            violations=[(f"{key}.store_id", f"must be {caller.store_id}")],
        )
