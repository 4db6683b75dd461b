"""What time and the programme's settings do to holds and returns: the calls of a register, under a clock of our own."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2, member_pb2

from ledger.booking.committer import Committer
from ledger.entry.keys import business_key
from ledger.reading.balances import read_balances
from ledger.verify import verify
from server.base.database import connection
from server.base.errors import Refused
from server.base.gather import Gatherer
from server.checkout.budgets import Budgets
from server.checkout.lookups import LedgerReader
from server.checkout.servicer import BalanceReader, Books, CheckoutServicer
from server.edge.caller import Caller, Role
from server.rights.coupons import CouponReader
from server.rules.book import RulesBook
from server.rules.versions import ProgrammeStore
from server.shop.catalogue import Catalogue
from tests.integration.back_office import BOOKS, NOW, BackOffice, back_office_over, connect_writer

START = NOW + timedelta(days=1)
PROGRAMME = """
programme: corner-shop
name: Corner shop
effective_from: {effective_from}
currency: UAH
point: {{unit: bonus, precision: 2, pays: 1.00}}
earning: {{base_percent: 1, expiry: {{after_days: 30}}}}
spending: {{keep_one_minor_unit: false}}
{returns}
"""


class Stores:
    """Every store is in Kyiv, the chain's own, and in no group."""

    def time_zone(self, store_id: str) -> ZoneInfo:
        return ZoneInfo("Europe/Kyiv")

    def groups(self, store_id: str) -> frozenset[str]:
        return frozenset()

    def partner(self, store_id: str) -> str:
        return ""


@dataclass
class Shop:
    """The calls of a register without its port, and a clock that stands still until it is moved."""

    office: BackOffice
    servicer: CheckoutServicer
    rules: RulesBook
    now: list[datetime]
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def after(self, **duration: float) -> None:
        """Move the clock to so long after the start."""
        self.now[0] = START + timedelta(**duration)

    async def publish(self, returns: str = "", effective_from: str = "2026-01-01") -> None:
        """Put a version of the programme into effect."""
        text = PROGRAMME.format(returns=returns, effective_from=effective_from)
        await ProgrammeStore(self.office.pool).publish(text, "", self.now[0])
        async with connection(self.office.pool) as conn:
            await self.rules.load(conn)

    async def shopper(self, points_minor: int = 0) -> common_pb2.Identifier:
        """Register somebody, with points of one lot if asked for."""
        row = await self.office.register(member_pb2.NewMember(profile=member_pb2.Profile(name="Olena Koval")))
        shopper = common_pb2.Identifier(member_id=str(row.member_id))
        if points_minor:
            await self.buy(shopper, points_minor * 100)
        return shopper

    def receipt(self, amount_minor: int) -> common_pb2.Receipt:
        """Return a receipt of one line, of the clock's moment."""
        receipt = common_pb2.Receipt(currency_code="UAH")
        receipt.event_at.FromDatetime(self.now[0])
        receipt.lines.add(
            line_number=1, sku="bread", category="bakery", quantity_milli=1000, list_amount_minor=amount_minor
        )
        return receipt

    def key(self, lane: str = "1") -> common_pb2.ReceiptKey:
        """Return a new receipt key."""
        day = self.now[0].date().isoformat()
        return common_pb2.ReceiptKey(
            store_id="12", terminal_id=lane, business_date=day, receipt_number=next(self.numbers)
        )

    def purchase(
        self, shopper: common_pb2.Identifier, amount_minor: int, spend: int = 0, checkout: str = ""
    ) -> checkout_pb2.CommitRequest:
        """Return a paid receipt."""
        return checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self.key(),
            identifier=shopper,
            receipt=self.receipt(amount_minor),
            spend_points_minor=spend,
            checkout_id=checkout,
        )

    async def buy(
        self, shopper: common_pb2.Identifier, amount_minor: int, spend: int = 0, checkout: str = ""
    ) -> checkout_pb2.CommitResponse:
        """Commit a paid receipt."""
        return await self.servicer.commit_here(self.purchase(shopper, amount_minor, spend, checkout), lane())

    async def hold(
        self, shopper: common_pb2.Identifier, points_minor: int, checkout: str = "c"
    ) -> checkout_pb2.HoldResponse:
        """Keep points for 10 seconds, at lane 1."""
        request = checkout_pb2.HoldRequest(
            message_id=str(uuid.uuid4()),
            checkout_key=checkout_pb2.CheckoutKey(store_id="12", terminal_id="1", checkout_id=checkout),
            identifier=shopper,
            receipt=self.receipt(100_000),
            spend_points_minor=points_minor,
            ttl_seconds=10,
        )
        return await self.servicer.hold(request, lane())

    async def cancel(self, checkout: str = "c") -> checkout_pb2.CancelResponse:
        """Let go of a checkout of lane 1, with a new message."""
        key = checkout_pb2.CheckoutKey(store_id="12", terminal_id="1", checkout_id=checkout)
        request = checkout_pb2.CancelRequest(message_id=str(uuid.uuid4()), checkout_key=key)
        return await self.servicer.cancel(request, lane())

    async def give_back(self, purchase: checkout_pb2.CommitRequest) -> checkout_pb2.ReturnResponse:
        """Return all of a purchase, at the clock's moment."""
        request = checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()), receipt_key=self.key(), purchase_key=purchase.receipt_key
        )
        request.event_at.FromDatetime(self.now[0])
        return await self.servicer.return_(request, lane())

    async def hold_ends(self, book: int) -> list[journal_pb2.HoldEnd]:
        """Return the holds that ended in a book, as its journal tells."""
        rows = await self.office.pool.fetch("SELECT payload FROM ledger.entry WHERE book = $1 ORDER BY number", book)
        return [end for row in rows for end in journal_pb2.Event.FromString(row["payload"]).hold_ends]

    async def seen(self, shopper: common_pb2.Identifier, number: str = "2") -> checkout_pb2.IdentifyResponse:
        """Return what a lane sees of a shopper."""
        return await self.servicer.identify(checkout_pb2.IdentifyRequest(identifier=shopper), lane(number))


def lane(number: str = "1") -> Caller:
    return Caller(Role.TERMINAL, f"lane {number}", "12", number, None)


@pytest.fixture
async def shop(ledger_dsn: str) -> AsyncIterator[Shop]:
    now = [START]
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(back_office_over(ledger_dsn))

        async def load(conn: object, members: Sequence[tuple[int, uuid.UUID]]) -> dict[object, object]:
            found = await read_balances(conn, members, now[0])  # type: ignore[arg-type]  # a connection
            return {(book, one): found[one] for book, one in members if one in found}

        balances: BalanceReader = Gatherer("balances", lambda: connect_writer(ledger_dsn), load)  # type: ignore[arg-type]  # as above
        stack.push_async_callback(balances.close)
        reader = LedgerReader(lambda: connect_writer(ledger_dsn), lambda: now[0])
        stack.push_async_callback(reader.close)
        committer = Committer(lambda: connect_writer(ledger_dsn), BOOKS, lambda: now[0])
        stack.push_async_callback(committer.close)
        coupons = CouponReader(lambda: connect_writer(ledger_dsn), BOOKS)
        stack.push_async_callback(coupons.close)
        budgets = Budgets(lambda: connect_writer(ledger_dsn), lambda: now[0])
        stack.push_async_callback(budgets.close)
        rules = RulesBook()
        servicer = CheckoutServicer(
            directory=await stack.enter_async_context(office.directory()),
            books=Books(committer, balances, reader, budgets),
            coupons=coupons,
            rules=rules,
            catalogue=Catalogue(),
            stores=Stores(),
            clock=lambda: now[0],
        )
        shop = Shop(office, servicer, rules, now)
        await shop.publish()
        yield shop
        owner = await asyncpg.connect(ledger_dsn)
        assert [report.problem for report in await verify(owner)] == [None] * BOOKS
        await owner.close()


def available(balances: Sequence[common_pb2.Balance]) -> int:
    return balances[0].available_points_minor


# --- holds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        pytest.param(4, "4 s", id="a moment ago"),
        pytest.param(119, "119 s", id="two minutes ago, almost"),
        pytest.param(150, "2 min", id="minutes ago"),
    ],
)
async def test_a_cashier_reads_how_long_points_are_held(shop: Shop, seconds: int, told: str) -> None:
    shopper = await shop.shopper(400)
    request = checkout_pb2.HoldRequest(
        message_id=str(uuid.uuid4()),
        checkout_key=checkout_pb2.CheckoutKey(store_id="12", terminal_id="3", checkout_id="c"),
        identifier=shopper,
        receipt=shop.receipt(100_000),
        spend_points_minor=150,
    )
    await shop.servicer.hold(request, lane("3"))
    shop.after(seconds=seconds + 0.5)
    (notice,) = (await shop.seen(shopper)).notices
    assert notice.text == f"Held at store 12, lane 3, {told} ago: 1.50 points."


async def test_a_hold_lapses_by_itself(shop: Shop) -> None:
    shopper = await shop.shopper(400)
    await shop.hold(shopper, 300)
    shop.after(seconds=9.9)
    before = await shop.seen(shopper)
    assert (available(before.balances), before.held_elsewhere[0].points_minor) == (100, 300)
    shop.after(seconds=11)
    after = await shop.seen(shopper)
    assert (available(after.balances), list(after.held_elsewhere)) == (400, [])


@pytest.mark.parametrize(
    ("seconds", "captured"), [pytest.param(9.9, 300, id="in time"), pytest.param(11, 0, id="too late")]
)
async def test_a_hold_is_captured_or_lapses_never_both(shop: Shop, seconds: float, captured: int) -> None:
    shopper = await shop.shopper(400)
    await shop.hold(shopper, 300)
    shop.after(seconds=seconds)
    settlement = (await shop.buy(shopper, 300, 300, "c")).settlement
    assert settlement.captured_points_minor == captured
    assert settlement.spent_points_minor == 300, "what lapsed is there to be spent"
    assert (settlement.balance.available_points_minor, settlement.balance.held_points_minor) == (100, 0)


async def test_what_lapsed_and_was_spent_elsewhere_is_left_out(shop: Shop) -> None:
    shopper = await shop.shopper(400)
    await shop.hold(shopper, 300)
    shop.after(seconds=11)
    await shop.buy(shopper, 350, 350)
    settlement = (await shop.buy(shopper, 300, 300, "c")).settlement
    assert (settlement.spent_points_minor, settlement.left_out_points_minor) == (50, 250)


async def test_a_lapsed_hold_settles_nothing_for_a_blocked_member(shop: Shop) -> None:
    shopper = await shop.shopper(400)
    await shop.hold(shopper, 300)
    row = await shop.office.registry.find(shopper)
    await shop.office.set_status(row, common_pb2.MEMBER_STATUS_BLOCKED)
    shop.after(seconds=11)
    with pytest.raises(Refused) as refused:
        await shop.buy(shopper, 300, 300, "c")
    assert refused.value.reason_name == "MEMBER_BLOCKED"


@pytest.mark.parametrize("seen_first", [False, True], ids=["found by the cancel", "found by a purchase before"])
async def test_cancelling_a_lapsed_hold_tells_what_its_lapse_released(shop: Shop, seen_first: bool) -> None:
    shopper = await shop.shopper(400)
    await shop.hold(shopper, 300)
    shop.after(seconds=11)
    ended = (await shop.buy(shopper, 100)).entry if seen_first else None
    first = await shop.cancel()
    assert first.released_points_minor == 300
    assert ended in (None, first.entry)
    shop.after(seconds=12)
    await shop.buy(shopper, 10_000)
    assert await shop.cancel() == first, "another message gets the same answer"


@pytest.mark.parametrize("seconds", [9.9, 11], ids=["in time", "too late"])
@pytest.mark.parametrize("cancel_first", [False, True], ids=["commit before cancel", "cancel before commit"])
async def test_commit_cancel_and_lapse_at_once(shop: Shop, seconds: float, cancel_first: bool) -> None:
    shopper = await shop.shopper(300)
    held = await shop.hold(shopper, 300)
    shop.after(seconds=seconds)
    calls = [shop.buy(shopper, 300, 300, "c"), shop.cancel()]
    answers = await asyncio.gather(*(calls[::-1] if cancel_first else calls), return_exceptions=True)
    (booked,) = [answer for answer in answers if isinstance(answer, checkout_pb2.CommitResponse)]
    assert booked.settlement.spent_points_minor == 300
    (end,) = [end for end in await shop.hold_ends(held.entry.book) if end.hold_number == held.entry.number]
    assert end.captured_points_minor == booked.settlement.captured_points_minor
    assert end.captured_points_minor + end.released_points_minor == 300
    assert (end.how == journal_pb2.HOLD_END_KIND_EXPIRED) == (seconds > 10)
    refused = [answer.reason_name for answer in answers if isinstance(answer, Refused)]
    assert refused == (["HOLD_GONE"] if end.how == journal_pb2.HOLD_END_KIND_CAPTURED else [])


# --- returns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "left", "notices"),
    [
        pytest.param("", 0, ["POINTS_LAPSED"], id="they stay lapsed"),
        pytest.param("returns: {expired_lots: {grace_days: 7}}", 300, [], id="a week of grace"),
    ],
)
async def test_points_that_lapsed_meanwhile(shop: Shop, returns: str, left: int, notices: list[str]) -> None:
    await shop.publish(returns)
    shopper = await shop.shopper(300)
    purchase = shop.purchase(shopper, 300, spend=300)
    await shop.servicer.commit(purchase, lane())
    shop.after(days=40)
    answer = await shop.give_back(purchase)
    assert (answer.refund_points_minor, available(answer.balances)) == (300, left)
    assert [notice.code for notice in answer.notices] == notices
    seen = (await shop.seen(shopper)).balances[0].expiring_next
    assert seen.points_minor == left
    if left:
        assert seen.expires_at.ToDatetime(tzinfo=UTC) - shop.now[0] >= timedelta(days=7)


@pytest.mark.parametrize(
    ("mode", "debt", "left", "notices"),
    [
        pytest.param("debt", 50, 0, ["POINTS_OWED"], id="from all points, then a debt"),
        pytest.param("within_balance", 0, 0, ["POINTS_WAIVED"], id="from all points, then waived"),
        pytest.param("own_lot_only", 0, 100, ["POINTS_WAIVED"], id="from its own points, then waived"),
    ],
)
async def test_earned_points_that_were_spent(shop: Shop, mode: str, debt: int, left: int, notices: list[str]) -> None:
    await shop.publish(f"returns: {{clawback: {mode}}}")
    shopper = await shop.shopper()
    purchase = shop.purchase(shopper, 20_000)
    await shop.servicer.commit(purchase, lane())
    await shop.buy(shopper, 150, 150)
    await shop.buy(shopper, 10_000)
    answer = await shop.give_back(purchase)
    owing = answer.balances[0].debt_points_minor
    assert (answer.debt_points_minor, owing, available(answer.balances)) == (debt, debt, left)
    assert [notice.code for notice in answer.notices] == notices
    if mode == "own_lot_only":
        assert answer.notices[0].text.startswith("1.50 points")
    else:
        assert answer.notices[0].text.startswith("0.50 points")


async def test_the_version_in_effect_at_the_return_counts(shop: Shop) -> None:
    await shop.publish("returns: {clawback: own_lot_only}", "2026-12-01")
    shopper = await shop.shopper()
    purchases = [shop.purchase(shopper, 10_000) for _ in range(2)]
    for purchase in purchases:
        await shop.servicer.commit(purchase, lane())
    await shop.buy(shopper, 200, 200)
    early = await shop.give_back(purchases[0])
    shop.after(days=20)
    late = await shop.give_back(purchases[1])
    assert (early.debt_points_minor, late.debt_points_minor) == (100, 0)
    assert late.balances[0].debt_points_minor == 100, "the first return's"


# --- merged members --------------------------------------------------------------------------------------------------

# Merge one member's record into another's, as far as registers can tell.
MERGE = "UPDATE server.member SET merged_into = $2, status = $3 WHERE member_id = $1"
MERGE_FROM = "UPDATE server.member SET merged_from = ARRAY[$1::uuid] WHERE member_id = $2"


async def test_what_was_booked_before_a_merge_keeps_its_answer(shop: Shop) -> None:
    shopper, survivor = await shop.shopper(400), await shop.shopper(100)
    purchase = shop.purchase(shopper, 5000)
    first = await shop.servicer.commit(purchase, lane())
    gone, kept = uuid.UUID(shopper.member_id), uuid.UUID(survivor.member_id)
    await shop.office.pool.execute(MERGE, gone, kept, int(common_pb2.MEMBER_STATUS_MERGED))
    await shop.office.pool.execute(MERGE_FROM, gone, kept)
    assert await shop.servicer.commit(purchase, lane()) == first
    purchase.identifier.member_id = str(kept)
    purchase.message_id = str(uuid.uuid4())
    assert await shop.servicer.commit(purchase, lane()) == first, "a card leads to the survivor now"

    new = shop.purchase(shopper, 5000)
    with pytest.raises(Refused) as refused:
        await shop.servicer.commit(new, lane())
    assert refused.value.reason_name == "MEMBER_MERGED"
    journal = checkout_pb2.CommitBatchRequest(commits=[new])
    (result,) = (await shop.servicer.commit_batch(journal, lane())).results
    assert result.committed.member_id == str(kept), "offline, the successor gets it, as the programme says"


async def test_the_journal_tells_how_a_hold_ended(shop: Shop) -> None:
    shopper = await shop.shopper(400)
    held = await shop.hold(shopper, 300)
    shop.after(seconds=11)
    await shop.buy(shopper, 100)
    (end,) = await shop.hold_ends(held.entry.book)
    assert (end.how, end.released_points_minor) == (journal_pb2.HOLD_END_KIND_EXPIRED, 300)


async def test_a_receipt_that_fails_as_nobody_foresaw_does_not_touch_the_others_of_its_batch(
    shop: Shop, ledger_dsn: str
) -> None:
    """Whatever the database has against it: here a rule that the service does not know."""
    await shop.publish()
    shopper = await shop.shopper()
    batch = [shop.purchase(shopper, 1000) for _ in range(5)]
    owner = await asyncpg.connect(ledger_dsn)
    guilty = business_key(batch[2].receipt_key).hex()
    await owner.execute(f"ALTER TABLE ledger.entry ADD CONSTRAINT unforeseen CHECK (business_key <> '\\x{guilty}')")
    await owner.close()
    answer = await shop.servicer.commit_batch(checkout_pb2.CommitBatchRequest(commits=batch), lane())
    outcomes = [result.WhichOneof("outcome") for result in answer.results]
    assert outcomes == ["committed", "committed", "refusal", "committed", "committed"]
    refusal = answer.results[2].refusal
    assert refusal.reason == common_pb2.REFUSAL_REASON_INTERNAL
    assert "report incident" in refusal.message


async def test_what_was_booked_ahead_of_the_clock_keeps_its_answer(shop: Shop) -> None:
    """Releases before did not look: a register that sends it again is told the same, and a new one is refused."""
    await shop.publish()
    shopper = await shop.shopper()
    shop.after(days=5)
    booked = shop.purchase(shopper, 1000)
    first = await shop.servicer.commit_here(booked, lane())
    shop.after(days=1)
    booked.message_id = str(uuid.uuid4())
    assert await shop.servicer.commit_here(booked, lane()) == first
    shop.after(days=5)
    ahead = shop.purchase(shopper, 1000)
    shop.after(days=1)
    with pytest.raises(Refused) as refused:
        await shop.servicer.commit_here(ahead, lane())
    assert refused.value.reason_name == "CLOCK_AHEAD"
