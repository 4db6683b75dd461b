"""The calls of the POS port. Reading ones answer from memory and gathered look-ups; Commit goes through the books.

Every call looks the same: find the member, turn the receipt into plain data, let the evaluator say what it
gives, and (Commit) submit what the register says was paid to the committer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2

from ledger.booking.committer import Committer, MemberChanged
from ledger.booking.owned import NEVER_READ
from ledger.entry.books import book_of_receipt
from ledger.entry.keys import checkout_key
from ledger.entry.model import Booked, Hold
from ledger.reading.balances import BalanceAt
from ledger.reading.lookups import BookedReceipt, CheckoutHold
from server.base.clock import Clock
from server.base.errors import Refused, refusal_message
from server.base.gather import Gatherer
from server.checkout import contradictions
from server.checkout.balances import balance_message
from server.checkout.budgets import Budgets
from server.checkout.context import CommitContext, QuotedHold, Shopper, cached_usage, ids_of, member_facts
from server.checkout.coupons import CouponLookups, present
from server.checkout.evaluation import earn_as_paid, quote
from server.checkout.further import further_payment
from server.checkout.goods_return import (
    ReturnContext,
    key_of,
    known_purchase,
    return_command,
    return_response,
)
from server.checkout.hold import (
    HoldContext,
    cancel_command,
    cancel_response,
    hold_command,
    hold_response,
    nothing_held,
    release_command,
    spending_refusal,
)
from server.checkout.lookups import LedgerReader
from server.checkout.notices import cashier_notice
from server.checkout.offline import offline_action
from server.checkout.presented import Presented
from server.checkout.promises import standing_message
from server.checkout.purchase import checkout_of, commit_command, commit_response
from server.checkout.quote import (
    TAKE_OVER_TEXT,
    available_of,
    held_elsewhere,
    held_elsewhere_notice,
    held_elsewhere_text,
    of_other_checkouts,
    of_other_lanes,
    quote_response,
)
from server.checkout.sale import Judge, Sale, StoresLike, evaluated, shopper_of
from server.checkout.session import Call, serve_session
from server.checkout.submission import receipt_key_bytes, return_key_bytes, submit, turn
from server.edge.caller import Caller
from server.edge.clocks import business_date_refusal, clock_refusal
from server.edge.moments import moment_of
from server.edge.status import refused_of
from server.edge.stream import Stream
from server.edge.validation import check
from server.measuring.metrics import CallMeter
from server.members.directory import Directory
from server.members.found import Found
from server.promotions import Effects, OfflineAction, PaidLine, Rules, standing
from server.rights.coupons import CouponReader
from server.rules.book import RulesBook
from server.rules.grants import end_of_day
from server.rules.receipt_lines import CatalogueLike
from server.rules.shadow import Shadows

_BATCH: Final = CallMeter("CheckoutService/CommitBatch")
"""Counts the refusals of its items; the calls themselves are counted at the edge."""

BalanceReader = Gatherer[tuple[int, uuid.UUID], list[BalanceAt]]


class Owners(Protocol):
    """The other workers, each of whom owns some books; see `server.edge.forwarding`."""

    async def ask(self, book: int, caller: Caller) -> bytes | None:
        """Let a book's owner do the caller's call; None if it is to be done here."""


class Books(NamedTuple):
    """The ways to the books: commands, balances, rare look-ups, parts of shared budgets, and other workers' books.

    Without ``owners`` every receipt is booked here.
    """

    committer: Committer
    balances: BalanceReader
    reader: LedgerReader
    budgets: Budgets
    owners: Owners | None = None


class CheckoutServicer:
    """CheckoutService; see checkout.proto for what each call promises."""

    def __init__(
        self,
        *,
        directory: Directory,
        books: Books,
        coupons: CouponReader,
        rules: RulesBook,
        catalogue: CatalogueLike,
        stores: StoresLike,
        clock: Clock,
        shadows: Shadows | None = None,
    ) -> None:
        """Take the parts that a worker shares among its calls; without `shadows` none are compared."""
        self._directory = directory
        self._committer, self._balances, self._reader, self._budgets, self._owners = books
        self._coupons = coupons
        self._lookups = CouponLookups(coupons, books.reader)
        self._rules = rules
        self._judge = Judge(rules, catalogue, stores)
        self._clock = clock
        self._shadows = shadows

    # --- reading -----------------------------------------------------------------------------------------------

    async def identify(self, request: checkout_pb2.IdentifyRequest, caller: Caller) -> checkout_pb2.IdentifyResponse:
        """Find the member behind an identifier."""
        found = await self._member(request.identifier)
        balances = await self._balances_of(found)
        response = checkout_pb2.IdentifyResponse(
            member=found.member.summary(), balances=[balance_message(balance) for balance in balances]
        )
        self._check_clock(request.event_at, "event_at")
        moment = moment_of(request.event_at) if request.HasField("event_at") else self._clock()
        local_at = moment.astimezone(self._judge.zone(caller.store_id, "caller"))
        shopper = shopper_of(found, caller.store_id, caller.terminal_id, local_at)
        rules = self._rules.at(local_at, store_id=caller.store_id, shopper=shopper)
        if rules is not None:
            await self._show_rights(response, rules, found, local_at)
        if not found.member.can_spend:
            response.notices.append(cashier_notice("EARN_ONLY", "This member earns points but cannot spend them yet."))
        await self._show_held_elsewhere(response, found, balances, caller)
        return response

    async def _show_rights(
        self, response: checkout_pb2.IdentifyResponse, rules: Rules, found: Found, local_at: datetime
    ) -> None:
        """Say which level, offers and coupons the member has; coupons cost a query only if the rules know any."""
        _show_standing(response.member, rules, found, local_at.date())
        facts = member_facts(found, local_at)
        assert facts is not None, "there is a member"
        last_days = {offer.promotion_id: offer.last for offer in found.member.offers}
        for promotion_id in sorted(facts.offers & rules.offer_ids):
            last, promotion = last_days[promotion_id], rules.promotion(promotion_id)
            response.offers.add(
                promotion_id=promotion_id,
                title=promotion.name if promotion else "",
                valid_until=last.isoformat() if last else "",
            )
        if not rules.asks_for_coupons:
            return
        for coupon in await self._coupons.usable_of(
            found.member.book, found.member.member_id, local_at.date(), found.member.merged_from
        ):
            title = rules.coupon_titles(coupon.series)
            if not title:  # no promotion asks for it
                continue
            usable = response.coupons.add(code=coupon.code, title=title)
            assert local_at.tzinfo is not None, "it is the store's"
            end = None if coupon.valid_until is None else end_of_day(coupon.valid_until, local_at.tzinfo)
            if end is not None:
                usable.expires_at.FromDatetime(end)

    async def quote(self, request: checkout_pb2.QuoteRequest, caller: Caller) -> checkout_pb2.QuoteResponse:
        """Say what a receipt would give."""
        self._check_clock(request.receipt.event_at, "receipt.event_at")
        found: Found | None = None
        balances: list[BalanceAt] = []
        if request.HasField("identifier"):
            found = await self._member(request.identifier)
            balances = await self._balances_of(found)
        sale = self._judge.sale(request.receipt, caller.store_id, terminal_id=caller.terminal_id, found=found)
        presented = await self._present(request.coupon_codes, sale, found)
        available = available_of(balances, sale.rules)
        wanted = request.spend_points_minor if found is None else min(request.spend_points_minor, available)
        effects = await self._quoted(sale, presented, found, wanted)
        spent_units: list[common_pb2.UnitPoints] = []
        if request.spend_units:
            known = (balances if found.member.can_spend else []) if found else None
            spent_units, paid = further_payment(request.spend_units, sale.rules, effects, known)
            effects = self._paid_with_units(sale, presented, found, effects, paid)
        messages = [balance_message(balance) for balance in balances]
        response = quote_response(request.receipt, sale, effects, found, messages, available, presented)
        response.spend_units.extend(spent_units)
        if found is not None:
            _show_standing(response.member, sale.rules, found, sale.facts.local_at.date())
            await self._show_held_elsewhere(response, found, balances, caller)
        return response

    async def _quoted(self, sale: Sale, presented: Presented, found: Found | None, wanted: int) -> Effects:
        """Evaluate with what was counted so far; what is left of shared budgets is asked only if one is touched."""
        facts = sale.facts._replace(coupons=presented.usable)
        member, usage = member_facts(found, facts.local_at), cached_usage(found)
        effects = evaluated(lambda: quote(sale.rules, facts, member, wanted, usage))
        if effects.shared:
            usage = usage._replace(shared=await self._budgets.left(effects.shared))
            effects = evaluated(lambda: quote(sale.rules, facts, member, wanted, usage))
        return effects

    @staticmethod
    def _paid_with_units(
        sale: Sale, presented: Presented, found: Found | None, quoted: Effects, paid: Sequence[PaidLine]
    ) -> Effects:
        """Evaluate again with what further units pay, on which nothing is earned."""
        facts = sale.facts._replace(coupons=presented.usable)
        member, usage = member_facts(found, facts.local_at), cached_usage(found)
        effects = evaluated(lambda: earn_as_paid(sale.rules, facts, member, paid, usage))
        return effects._replace(
            spent_points_minor=quoted.spent_points_minor, spent_money_minor=quoted.spent_money_minor
        )

    async def _present(
        self, codes: Sequence[str], sale: Sale, found: Found | None, *, with_uses: bool = True
    ) -> Presented:
        """Judge the coupons of a request; without ``with_uses`` the books say, under the fence, if a use is left."""
        ids = ids_of(found) if found else ()
        return await present(codes, sale.rules, ids, sale.facts.local_at.date(), self._lookups, with_uses=with_uses)

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

    async def commit(self, request: checkout_pb2.CommitRequest, caller: Caller) -> checkout_pb2.CommitResponse | bytes:
        """Book a receipt as paid: by the owner of its book, or here. An owner's answer is passed on as it came."""
        book = await self._book_of(request)
        if book is not None:
            answer = None if self._owners is None else await self._owners.ask(book, caller)
            if answer is not None:
                caller.timeline.mark("forwarded")
                return answer
            await self._turn(book, caller)
        return await self.commit_here(request, caller)

    async def commit_for_other(self, book: int, raw: bytes, caller: Caller) -> bytes:
        """Book a receipt that another worker was sent, and has checked."""
        await self._turn(book, caller)
        request = checkout_pb2.CommitRequest.FromString(raw)
        return (await self.commit_here(request, caller)).SerializeToString()

    async def _turn(self, book: int, caller: Caller) -> None:
        """Wait for the next batch of a book before anything is made for it."""
        await turn(self._committer, book, caller.deadline)
        caller.timeline.mark("waited")

    async def commit_here(self, request: checkout_pb2.CommitRequest, caller: Caller) -> checkout_pb2.CommitResponse:
        """Book a receipt as paid, with the member's record as it was looked up before if that still holds."""
        known = self._directory.followed(request.identifier)
        if known is not None:
            try:
                shopper = Shopper(known.lookup.found, known.lookup.found)
                return await self._commit_checkout(request, caller, shopper, known.as_of)
            except MemberChanged:
                pass  # look it up again
        return await self._commit_checkout(request, caller, await self._shopper(request))

    async def _commit_checkout(
        self, request: checkout_pb2.CommitRequest, caller: Caller, shopper: Shopper, as_of: int = NEVER_READ
    ) -> checkout_pb2.CommitResponse:
        """Book a receipt; what its checkout holds for another card than the one shown is let go of."""
        response = await self._commit(request, caller, shopper, as_of)
        if any(notice.code == contradictions.HOLD_NOT_USED for notice in response.notices):
            key = request.receipt_key
            checkout = checkout_pb2.CheckoutKey(
                store_id=key.store_id, terminal_id=key.terminal_id, checkout_id=request.checkout_id
            )
            with suppress(Refused):  # the receipt is booked, and the hold lapses by itself
                await self._release(checkout, await self._reader.checkout_hold(checkout_key(checkout)), caller)
        return response

    async def _book_of(self, request: checkout_pb2.CommitRequest) -> int | None:
        """Return the book that a receipt belongs to, if that can be said without doing the whole call."""
        if not request.HasField("identifier"):
            return book_of_receipt(receipt_key_bytes(request.receipt_key, "receipt_key"), self._committer.books)
        known = self._directory.remembered(request.identifier)
        lookup = await self._directory.look_up(request.identifier) if known is None else known.lookup
        return None if lookup.found is None else lookup.found.member.book

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
        except Exception as error:  # noqa: BLE001 - the outermost wrapper of an item; the others go on
            refused = refused_of(error, _BATCH.method)
            _BATCH.refuse(refused.reason_name)
            return checkout_pb2.CommitResult(refusal=refusal_message(refused))

    async def _commit(
        self, request: checkout_pb2.CommitRequest, caller: Caller, shopper: Shopper, as_of: int = NEVER_READ
    ) -> checkout_pb2.CommitResponse:
        _check_store(request.receipt_key.store_id, caller, "receipt_key")
        await self._check_clocks(request.receipt_key, request.receipt.event_at, "receipt.event_at")
        caller.timeline.mark("member")
        key, found = request.receipt_key, shopper.found
        sale = self._judge.sale(request.receipt, key.store_id, terminal_id=key.terminal_id, found=found)
        presented = await self._present(request.coupon_codes, sale, found, with_uses=False)
        told = contradictions.of_commit(request, sale, presented, is_member=found is not None)
        context = CommitContext(
            rules=sale.rules,
            unit=self._rules.unit(sale.rules),
            zone=sale.zone,
            facts=sale.facts,
            member=member_facts(found, sale.facts.local_at),
            notices=[*sale.shortcomings(), *told],
            shopper=shopper,
            presented=presented,
            books=self._rules,
            quoted_hold=await self._quoted_hold(request, found) if request.checkout_id else None,
        )
        command, shared = evaluated(lambda: commit_command(request, context, self._committer.books))
        if shared:
            await self._budgets.ensure(command.book, shared)
        caller.timeline.mark("judged")
        booked = await submit(
            self._committer, command, caller.deadline, shopper.refusal, as_of=as_of, marks=caller.timeline
        )
        if self._shadows is not None and not booked.repeated:
            facts = context.facts._replace(coupons=context.presented.usable)
            usage = cached_usage(found)
            self._shadows.compare(sale.rules, facts, context.member, usage, request.spend_points_minor)
        response = commit_response(booked)
        if response.notices and not booked.repeated:
            contradictions.count(response.notices)
        return response

    async def _quoted_hold(self, request: checkout_pb2.CommitRequest, found: Found | None) -> QuotedHold | None:
        """Return the hold that a receipt captures, and the rules that quoted it, if the receipt wants to spend."""
        checkout = checkout_of(request)
        if checkout is None or found is None or not (request.spend_points_minor or request.spend_units):
            return None
        hold = await self._reader.checkout_hold(checkout)
        rules = None if hold is None or hold.how is not None else self._rules.of_version(hold.programme_version)
        return None if hold is None or rules is None else QuotedHold(hold.number, rules)

    async def hold(self, request: checkout_pb2.HoldRequest, caller: Caller) -> checkout_pb2.HoldResponse:
        """Keep points for a checkout."""
        _check_store(request.checkout_key.store_id, caller, "checkout_key")
        self._check_clock(request.receipt.event_at, "receipt.event_at")
        key = request.checkout_key
        found, refusal = await self._directory.look_up(request.identifier)
        if found is None:
            assert refusal is not None, "a look-up finds a member or says why not"
            raise refusal
        sale = self._judge.sale(request.receipt, key.store_id, "checkout_key", terminal_id=key.terminal_id, found=found)
        presented = await self._present(request.coupon_codes, sale, found, with_uses=False)
        effects = await self._quoted(sale, presented, found, request.spend_points_minor)
        refusal = refusal or spending_refusal(found, request.spend_points_minor) or presented.refusal()
        context = HoldContext(sale, self._rules.unit(sale.rules), found, refusal, effects, presented)
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
        await self._release(request.checkout_key, before, caller)

    async def _release(self, key: checkout_pb2.CheckoutKey, hold: CheckoutHold | None, caller: Caller) -> None:
        """Let go of a hold, if it is open still."""
        if hold is None or not hold.is_open(self._clock()):
            return
        try:
            await submit(self._committer, release_command(key, hold, self._clock()), caller.deadline)
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
        balance = response.balances[0]
        quoted = quote_response(
            request.receipt,
            context.sale,
            context.effects,
            context.found,
            response.balances,
            balance.available_points_minor + response.held_points_minor,
            context.presented,
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
        await self._check_clocks(request.receipt_key, request.event_at, "event_at")
        zone = self._judge.zone(request.receipt_key.store_id)
        rules = self._judge.rules_at(moment_of(request.event_at).astimezone(zone))
        number_key = receipt_key_bytes(request.receipt_key, "receipt_key")
        found, under_number = await asyncio.gather(self._bought(request.purchase_key), self._reader.receipt(number_key))
        purchase = known_purchase(request, found)
        unit_code = purchase.event.settlement.balance.unit  # empty for a purchase without a member, which has no points
        unit = self._rules.unit_named(unit_code) if unit_code else self._rules.unit(rules)
        living_id = await self._merged_into(purchase.event.purchase.member_id)
        context = ReturnContext(key_of(request, under_number), purchase, rules, unit, zone, living_id)
        return return_response(await submit(self._committer, return_command(request, context), caller.deadline))

    async def _merged_into(self, member_id: str) -> str:
        """Return the id of the member into whom somebody was merged, at the end of all merges; empty for none."""
        if not member_id:
            return ""
        found, _ = await self._directory.look_up(common_pb2.Identifier(member_id=member_id))
        return "" if found is None or str(found.member.member_id) == member_id else str(found.member.member_id)

    async def _bought(self, key: common_pb2.ReceiptKey) -> BookedReceipt | None:
        """Return the sale under a key; if there is none, the return, so that it can be said that it is one."""
        found = await self._reader.receipt(receipt_key_bytes(key, "purchase_key"))
        return found or await self._reader.receipt(return_key_bytes(key, "purchase_key"))

    async def session(self, stream: Stream, caller: Caller) -> None:
        """Serve many calls over one stream."""
        calls: dict[str, Call] = {
            "identify": self.identify,
            "quote": self.quote,
            "hold": self.hold,
            "commit": self.commit,
            "cancel": self.cancel,
            "return": self.return_,
        }
        await serve_session(stream, caller, calls)

    # --- what the calls share ----------------------------------------------------------------------------------

    async def _member(self, identifier: common_pb2.Identifier) -> Found:
        answer = await self._directory.find(identifier)
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def _shopper(self, request: checkout_pb2.CommitRequest, *, offline: bool = False) -> Shopper:
        """Find whom a receipt is for, whatever became of the card meanwhile.

        One whose card is refused now may still repeat its answer, and is booked if the checkout holds points: what a
        hold has kept is not refused after payment. Otherwise, for receipts taken offline, the programme decides.
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
        zone = self._judge.zone(request.receipt_key.store_id)
        rules = self._rules.at(moment_of(request.receipt.event_at).astimezone(zone))
        action = None if rules is None else offline_action(refusal.reason, rules.programme)
        if action is None:
            raise refusal
        if action is OfflineAction.BOOK_WITHOUT_MEMBER:
            return Shopper(None, found, refusal, booked_without=True)
        if found is None:
            raise refusal
        return Shopper(None, found, refusal) if action is OfflineAction.REFUSE else Shopper(found, found)

    def _check_clock(self, event_at: Timestamp, field: str) -> None:
        refusal = clock_refusal(event_at, field, self._clock())
        if refusal is not None:
            raise refusal

    async def _check_clocks(self, key: common_pb2.ReceiptKey, event_at: Timestamp, field: str) -> None:
        """Refuse a receipt of a clock that is wrong, unless it is booked already: the same key has the same answer."""
        now = self._clock()
        refusal = clock_refusal(event_at, field, now) or business_date_refusal(key, "receipt_key", now)
        if refusal is not None and await self._reader.receipt(receipt_key_bytes(key, "receipt_key")) is None:
            raise refusal

    async def _balances_of(self, found: Found) -> list[BalanceAt]:
        return await self._balances.get((found.member.book, found.member.member_id)) or []


def _show_standing(summary: common_pb2.MemberSummary, rules: Rules, found: Found, day: date) -> None:
    """Say which level a member has, and what is missing to the next."""
    if rules.programme.tiers is None:
        return
    summary.standing.CopyFrom(standing_message(standing(rules.programme.tiers, cached_usage(found).member, day)))
    summary.tier = summary.standing.tier


def _check_store(store_id: str, caller: Caller, key: str) -> None:
    if store_id != caller.store_id:
        raise Refused(
            common_pb2.REFUSAL_REASON_FOREIGN_STORE,
            f"terminal {caller.name} belongs to store {caller.store_id}, the request to store {store_id}",
            cashier_text="This register is set up for another store. Call the administrator.",
            violations=[(f"{key}.store_id", f"must be {caller.store_id}")],
        )
