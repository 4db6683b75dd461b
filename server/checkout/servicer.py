"""The calls of the POS port. Reading ones answer from memory and gathered look-ups; Commit goes through the books.

Every call looks the same: find the member, turn the receipt into plain data, let the pure evaluator say what it
gives, and (Commit) submit what the register says was paid to the committer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.balances import BalanceAt
from ledger.committer import Committer
from server.checkout.booking import Booking, CommitContext, Shopper, member_facts
from server.checkout.convert import (
    CatalogueLike,
    add_line_effects,
    balance_message,
    coupons_notice,
    invalid,
    lines_of,
    notices_of,
    unknown_sku_notice,
)
from server.checkout.session import Call, serve_session
from server.edge import Caller, check
from server.errors import Refused, refusal_message
from server.gather import Gatherer
from server.members.directory import Directory, Found
from server.promotions import OfflineAction, ReceiptError, ReceiptFacts, Rules, quote
from server.rules import RulesBook

BalanceReader = Gatherer[tuple[int, uuid.UUID], list[BalanceAt]]

T = TypeVar("T")

NO_PROGRAMME_TEXT = "The loyalty programme is not in effect. Sell without the card."

_OFFLINE_CASES: Mapping[common_pb2.RefusalReason, str] = {
    common_pb2.REFUSAL_REASON_IDENTIFIER_UNKNOWN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_FOREIGN: "unknown_identifier",
    common_pb2.REFUSAL_REASON_CARD_CHECK_DIGIT_WRONG: "unknown_identifier",
    common_pb2.REFUSAL_REASON_PHONE_INVALID: "unknown_identifier",
    common_pb2.REFUSAL_REASON_MEMBER_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_BLOCKED: "blocked_member",
    common_pb2.REFUSAL_REASON_CARD_REPLACED: "replaced_card",
}
"""Which setting of the programme decides about a receipt taken offline whose identifier is refused today. A misread
one cannot be scanned again, so it is as good as unknown."""


class StoresLike(Protocol):
    """The stores and their time zones."""

    def time_zone(self, store_id: str) -> ZoneInfo | None:
        """Return a store's time zone; None if there is no such store."""


class Sale(NamedTuple):
    """A receipt with all that is needed to judge it."""

    rules: Rules
    zone: ZoneInfo
    facts: ReceiptFacts
    unknown_skus: list[str]


class CheckoutServicer:
    """CheckoutService; see checkout.proto for what each call promises."""

    def __init__(
        self,
        *,
        directory: Directory,
        balances: BalanceReader,
        committer: Committer,
        rules: RulesBook,
        catalogue: CatalogueLike,
        stores: StoresLike,
    ) -> None:
        """Take the parts that a worker shares among its calls."""
        self._directory = directory
        self._balances = balances
        self._rules = rules
        self._catalogue = catalogue
        self._stores = stores
        self._booking = Booking(committer)

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
        return response

    async def quote(self, request: checkout_pb2.QuoteRequest, caller: Caller) -> checkout_pb2.QuoteResponse:
        """Say what a receipt would give."""
        sale = self._sale(request.receipt, caller.store_id)
        found: Found | None = None
        balances: list[BalanceAt] = []
        if request.HasField("identifier"):
            found = await self._member(request.identifier)
            balances = await self._balances_of(found)
        available = _available(balances, sale.rules)
        wanted = request.spend_points_minor if found is None else min(request.spend_points_minor, available)
        effects = _evaluated(lambda: quote(sale.rules, sale.facts, member_facts(found), wanted))
        spending = sale.rules.programme.spending
        most_points = effects.max_spend_points_minor
        if found is not None:
            most_points = min(most_points, available - available % spending.step_points_minor)
        response = checkout_pb2.QuoteResponse(
            member=found.member.summary() if found else None,
            discount_minor=effects.discount_minor,
            payable_minor=effects.payable_minor,
            max_spend_points_minor=most_points,
            max_spend_money_minor=most_points // spending.step_points_minor * spending.step_money_minor,
            spend_points_minor=effects.spent_points_minor,
            spend_money_minor=effects.spent_money_minor,
            accrual_points_minor=effects.accrual_points_minor,
            balances=[balance_message(balance) for balance in balances],
            notices=[*notices_of(effects.messages), *_shortcomings(sale, request.coupon_codes)],
            programme_code=sale.rules.programme.code,
            programme_version=effects.programme_version,
            settings=[common_pb2.NamedSetting(name=name, value=value) for name, value in effects.settings],
        )
        add_line_effects(response.lines, request.receipt, effects)
        return response

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
            shopper = await self._shopper_offline(request)
            return checkout_pb2.CommitResult(committed=await self._commit(request, caller, shopper))
        except Refused as refused:
            return checkout_pb2.CommitResult(refusal=refusal_message(refused))

    async def _commit(
        self, request: checkout_pb2.CommitRequest, caller: Caller, shopper: Shopper
    ) -> checkout_pb2.CommitResponse:
        _check_store(request.receipt_key.store_id, caller)
        sale = self._sale(request.receipt, request.receipt_key.store_id)
        context = CommitContext(
            rules=sale.rules,
            unit=self._rules.unit(sale.rules),
            zone=sale.zone,
            facts=sale.facts,
            notices=_shortcomings(sale, request.coupon_codes),
            shopper=shopper,
        )
        command = _evaluated(lambda: self._booking.command(request, context))
        return await self._booking.book(command, caller.deadline, shopper.refusal)

    async def hold(self, request: checkout_pb2.HoldRequest, caller: Caller) -> checkout_pb2.HoldResponse:
        """Answer that holds come with a later release."""
        raise _not_yet("Hold", "commit without a hold: points are spent as far as the balance covers them")

    async def cancel(self, request: checkout_pb2.CancelRequest, caller: Caller) -> checkout_pb2.CancelResponse:
        """Answer that holds come with a later release."""
        raise _not_yet("Cancel", "there are no holds to cancel")

    async def return_(self, request: checkout_pb2.ReturnRequest, caller: Caller) -> checkout_pb2.ReturnResponse:
        """Answer that returns come with a later release."""
        raise _not_yet("Return", "keep the return in the register's journal and send it again later")

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

    async def _shopper(self, request: checkout_pb2.CommitRequest) -> Shopper:
        """Find whom a receipt is for. One whose card was blocked or replaced since may still repeat its answer."""
        if not request.HasField("identifier"):
            return Shopper()
        found, refusal = await self._directory.look_up(request.identifier)
        if refusal is None:
            return Shopper(found, found)
        if found is None:
            raise refusal
        return Shopper(None, found, refusal)

    async def _shopper_offline(self, request: checkout_pb2.CommitRequest) -> Shopper:
        """Find whom a receipt taken offline is for; the programme says what becomes of refused identifiers."""
        if not request.HasField("identifier"):
            return Shopper()
        found, refusal = await self._directory.look_up(request.identifier)
        if refusal is None:
            return Shopper(found, found)
        case = _OFFLINE_CASES.get(refusal.reason)
        rules = self._rules.at(_moment(request.receipt.event_at))
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

    def _sale(self, receipt: common_pb2.Receipt, store_id: str) -> Sale:
        """Judge by the rules at the receipt's time, in the store's time zone."""
        zone = self._stores.time_zone(store_id)
        if zone is None:
            raise Refused(
                common_pb2.REFUSAL_REASON_NOT_FOUND,
                f"there is no store {store_id!r}; register it in the back office first",
                violations=[("receipt_key.store_id", "no such store")],
            )
        moment = _moment(receipt.event_at)
        rules = self._rules.at(moment)
        if rules is None:
            raise Refused(
                common_pb2.REFUSAL_REASON_NO_PROGRAMME,
                f"no version of the programme is in effect at {moment.isoformat()}; publish one",
                cashier_text=NO_PROGRAMME_TEXT,
            )
        if receipt.currency_code != rules.programme.currency:
            raise Refused(
                common_pb2.REFUSAL_REASON_CURRENCY_FOREIGN,
                f"the receipt is in {receipt.currency_code}, the programme in {rules.programme.currency}",
                violations=[("receipt.currency_code", f"must be {rules.programme.currency}")],
            )
        lines, unknown = lines_of(receipt, self._catalogue)
        return Sale(rules, zone, ReceiptFacts(store_id, moment.astimezone(zone), lines), unknown)


def _shortcomings(sale: Sale, coupon_codes: Sequence[str]) -> list[common_pb2.Notice]:
    """Return notices about what the rules could not take into account."""
    return [*unknown_sku_notice(sale.unknown_skus), *coupons_notice(coupon_codes)]


def _check_store(store_id: str, caller: Caller) -> None:
    if store_id != caller.store_id:
        raise Refused(
            common_pb2.REFUSAL_REASON_FOREIGN_STORE,
            f"terminal {caller.name} belongs to store {caller.store_id}, the receipt to store {store_id}",
            cashier_text="This register is set up for another store. Call the administrator.",
            violations=[("receipt_key.store_id", f"must be {caller.store_id}")],
        )


def _available(balances: list[BalanceAt], rules: Rules) -> int:
    """Return what the member can spend of the programme's unit."""
    for balance in balances:
        if balance.unit.code == rules.programme.point.unit:
            return balance.available_minor
    return 0


def _evaluated(evaluate: Callable[[], T]) -> T:
    """Run the evaluator; a receipt that makes no sense is the caller's mistake."""
    try:
        return evaluate()
    except ReceiptError as error:
        raise invalid(f"receipt.{error.field}", str(error)) from error


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _not_yet(call: str, instead: str) -> Refused:
    return Refused(
        common_pb2.REFUSAL_REASON_NOT_YET_AVAILABLE,
        f"{call} comes with a later release; until then {instead}",
    )
