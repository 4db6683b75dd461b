"""Whatever a register and the back office may ask for, in any order, over the public API: the books stay sound.

A history is a shop's: goods are bought with points of several units, coupons, deposits and the discounts that the
register likes, held, cancelled, brought back in parts; points are adjusted, moved, merged, and lapse as time passes;
days are closed, and messages are sent again. After each step the books are verified, as far as the step touched them;
after each history from their first entry on; and when a ledger was used for some histories, its caches are written anew
from the journal and found equal.

`tests/stateful/test_shop_histories.py` runs some; `python -m tests.stateful.shop_histories` runs thousands.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import grpc
import typer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from rich.console import Console
from tallypoint.v1 import checkout_pb2, common_pb2, correction_pb2, finance_pb2, journal_pb2, member_pb2, rights_pb2

from server.base.postgres import EmbeddedPostgres
from server.commands.output.progress import progress
from tests.stateful.shop_ledgers import Bench
from tests.stateful.shop_terms import (
    ARTICLES,
    MEMBERS,
    STATUSES,
    Sold,
    checkouts,
    coupon_choices,
    discounts,
    lines,
    office_actions,
    points,
    shoppers,
    unit_codes,
    unit_points,
    who,
)
from tests.support.database import DatabaseFactory
from tests.support.one_process import LANE, STORE
from tests.support.till import answer_of

T = TypeVar("T")

SECONDS_A_MINUTE: Final = 60
STEPS: Final = 20
OUR_FAULTS: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)
"""Statuses that no request may ever get in these histories."""


class Shop(RuleBasedStateMachine):
    """One history of a shop with a few members and one lane; `bench` is set by a subclass.

    No rule has a precondition: what may be drawn next must not depend on how the service answered, since ledgers differ
    and hypothesis takes another set of choices after the same draws for a fault of the test.
    """

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.ledger = self.bench.ledger()
        self.service = self.ledger.service
        self.sent: list[tuple[str, Any, bytes]] = []
        self.sold: list[common_pb2.ReceiptKey] = []
        self.coupons: list[str] = []
        self.steps: list[str] = []
        self.gone = ""
        self.has_held = False

    @initialize(riches=st.lists(st.integers(0, 4000), min_size=MEMBERS, max_size=MEMBERS))
    def open(self, riches: list[int]) -> None:
        """Enrol members, some of whom have points, and load coupons."""
        self.members = [self.bench.run(self.service.enrol()) for _ in range(MEMBERS)]
        for number, rich in enumerate(riches):
            for unit, amount in (("", rich), ("gift", rich // 50), ("card", rich // 3)):
                if amount:
                    self.bench.run(self.service.ask_office(*self._adjustment(number, amount, unit)))
        self.coupons = [f"C{uuid.uuid4().hex[:12].upper()}" for _ in range(4)]
        rows = [
            rights_pb2.CouponRow(code=code, uses=1 + number % 2, valid_until="2026-12-31" if number else "")
            for number, code in enumerate(self.coupons)
        ]
        self._office("rights", "LoadCoupons", rights_pb2.LoadCouponsRequest(series="sorry", coupons=rows))

    # --- the lane --------------------------------------------------------------------------------------------------

    @rule(
        who=shoppers,
        basket=lines,
        spend=points,
        units=unit_points,
        by=discounts,
        checkout=checkouts,
        codes=coupon_choices,
        deposit=st.sampled_from([0, 0, 0, 1000]),
        late_hours=st.sampled_from([0, 0, 30, 80]),
        offline=st.booleans(),
    )
    def buy(
        self,
        who: int | None,
        basket: list[Sold],
        spend: int,
        units: list[tuple[str, int]],
        by: str,
        checkout: str,
        codes: set[int],
        deposit: int,
        late_hours: int,
        offline: bool,
    ) -> None:
        """Pay for goods, with whatever the register sends."""
        request = checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._key(),
            identifier=self._shopper(who),
            receipt=self._receipt(basket, late_hours),
            spend_points_minor=spend,
            spend_units=[common_pb2.UnitPoints(unit=unit, points_minor=asked) for unit, asked in units],
            checkout_id=self._checkout(checkout).checkout_id if checkout else "",
            coupon_codes=self._codes(codes),
            deposits=self._deposits(deposit, basket),
        )
        self._discount(request, by)
        if not offline:
            answer = self._call("Commit", request)
        else:
            batch = self._call("CommitBatch", checkout_pb2.CommitBatchRequest(commits=[request]))
            answer = None
            if batch is not None:
                refusal = batch.results[0].refusal
                assert refusal.reason != common_pb2.REFUSAL_REASON_INTERNAL, refusal
                answer = batch.results[0].committed if batch.results[0].HasField("committed") else None
        if answer is not None:
            self.sold.append(request.receipt_key)
            self.coupons += [one.code for one in answer.issued_coupons]
            settlement = answer.settlement
            for what, happened in (
                ("spent", settlement.spent_points_minor),
                ("left out", settlement.left_out_points_minor),
                ("captured", settlement.captured_points_minor),
                ("of further units", sum(one.spent_points_minor for one in settlement.units)),
                ("coupons", any(one.used for one in answer.coupons)),
            ):
                self.bench.answers[f"Commit, {what}"] += bool(happened)
            assert settlement.spent_points_minor + settlement.left_out_points_minor == spend
            for unit in {unit for unit, _ in units} if who is not None and answer.member_id else ():
                (told,) = [one for one in settlement.units if one.balance.unit == unit]
                asked = sum(each for code, each in units if code == unit)
                assert told.spent_points_minor + told.left_out_points_minor == asked

    @rule(
        who=who,
        basket=lines,
        spend=points,
        checkout=st.sampled_from(["a", "b"]),
        codes=coupon_choices,
        ttl=st.sampled_from([10, 600]),
        takeover=st.booleans(),
    )
    def hold(
        self, who: int, basket: list[Sold], spend: int, checkout: str, codes: set[int], ttl: int, takeover: bool
    ) -> None:
        """Keep points and coupons for a checkout."""
        request = checkout_pb2.HoldRequest(
            message_id=str(uuid.uuid4()),
            checkout_key=self._checkout(checkout),
            identifier=self._shopper(who),
            receipt=self._receipt(basket, 0),
            spend_points_minor=spend,
            ttl_seconds=ttl,
            takeover_reason="they asked for it" if takeover else "",
            coupon_codes=self._codes(codes),
        )
        self._call("Hold", request)
        self.has_held = True

    @rule(who=who, basket=lines, spend=points, units=unit_points, codes=coupon_choices, more=lines, by=discounts)
    def hold_and_pay(
        self,
        who: int,
        basket: list[Sold],
        spend: int,
        units: list[tuple[str, int]],
        codes: set[int],
        more: list[Sold],
        by: str,
    ) -> None:
        """Hold for one basket, and pay another with the hold."""
        checkout = f"c{next(_receipt_numbers)}"
        self.hold(who, basket, spend, checkout, codes, 600, takeover=False)
        self.buy(who, more, spend, units, by, checkout, codes, 0, 0, offline=False)

    @rule(who=who, basket=lines, spend=points, units=unit_points, by=discounts)
    def buy_and_bring_back(
        self, who: int, basket: list[Sold], spend: int, units: list[tuple[str, int]], by: str
    ) -> None:
        """Buy, and bring all of it back."""
        self.buy(who, basket, spend, units, by, "", set(), 0, 0, offline=False)
        if self.sold:
            self.bring_back(len(self.sold) - 1, [])

    @rule(checkout=st.sampled_from(["a", "b"]))
    def cancel(self, checkout: str) -> None:
        """Let go of a checkout."""
        if not self.has_held:
            return
        self.has_held = False
        self._call(
            "Cancel", checkout_pb2.CancelRequest(message_id=str(uuid.uuid4()), checkout_key=self._checkout(checkout))
        )

    @rule(
        which=st.integers(0, 99),
        parts=st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from([1000, 1000, 2000, 333, 500])),
            max_size=2,
            unique_by=lambda part: part[0],
        ),
    )
    def bring_back(self, which: int, parts: list[tuple[int, int]]) -> None:
        """Bring back goods of a purchase: some, or all that is left."""
        if not self.sold:
            return
        request = checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._key(),
            purchase_key=self.sold[which % len(self.sold)],
            lines=[checkout_pb2.ReturnedLine(line_number=line, quantity_milli=milli) for line, milli in parts],
        )
        request.event_at.FromDatetime(self.service.clock())
        self._call("Return", request)

    @rule(which=st.integers(0, 99))
    def send_again(self, which: int) -> None:
        """Send a message again that was answered: the answer is the same."""
        if not self.sent:
            return
        method, request, answer = self.sent[which % len(self.sent)]
        again = self.bench.run(self.service.call(method, request))
        assert _as_stored(again) == answer, self._told(f"{method} {request}sent again is answered {again}")
        self._prove(f"send {method} again")

    # --- the back office -------------------------------------------------------------------------------------------

    @rule(action=office_actions, one=who, other=who, amount=st.sampled_from([1, 20, 700, 5000]), unit=unit_codes)
    def ask_office(self, action: str, one: int, other: int, amount: int, unit: str) -> None:
        """Let the back office do something with one member, or two."""
        if action in {"grant", "take"}:
            self.adjust(one, amount if action == "grant" else -amount, unit)
        elif action == "transfer":
            self.transfer(one, other, amount, unit)
        elif action == "merge":
            self.merge(one, other)
        elif action == "close":
            self.close_day()
        else:
            self.set_status(one, STATUSES[action])

    def adjust(self, who: int, amount: int, unit: str) -> None:
        """Grant or take points by hand."""
        self._office(*self._adjustment(who, amount, unit))

    def _adjustment(self, who: int, amount: int, unit: str) -> tuple[str, str, correction_pb2.RequestAdjustmentRequest]:
        last_day = (self.service.clock() + timedelta(days=4)).date()
        request = correction_pb2.RequestAdjustmentRequest(
            request_id=str(uuid.uuid4()),
            member_id=self.members[who],
            points_minor=amount,
            unit=unit,
            reason_code="goodwill",
            note="because",
            expires_on=str(last_day) if unit and amount > 0 else "",
        )
        return "corrections", "RequestAdjustment", request

    def transfer(self, giver: int, taker: int, amount: int, unit: str) -> None:
        """Move points from one member to another."""
        request = correction_pb2.TransferPointsRequest(
            request_id=str(uuid.uuid4()),
            from_member_id=self.members[giver],
            to_member_id=self.members[taker],
            points_minor=amount,
            unit=unit,
            reason_code="family",
        )
        self._office("corrections", "TransferPoints", request)

    def merge(self, duplicate: int, survivor: int) -> None:
        """Make two members one, and enrol another; the duplicate's id goes on being shown now and then."""
        request = correction_pb2.MergeMembersRequest(
            request_id=str(uuid.uuid4()),
            duplicate_id=self.members[duplicate],
            survivor_id=self.members[survivor],
            reason="the same person",
        )
        if self._office("corrections", "MergeMembers", request) is not None:
            self.gone = self.members[duplicate]
            self.members[duplicate] = self.bench.run(self.service.enrol())

    def set_status(self, who: int, status: common_pb2.MemberStatus) -> None:
        """Let a member earn only, block or free them."""
        request = member_pb2.SetMemberStatusRequest(
            message_id=str(uuid.uuid4()), member_id=self.members[who], status=status, reason="test"
        )
        self._office("members", "SetMemberStatus", request)

    def close_day(self) -> None:
        """Close yesterday."""
        yesterday = self.service.clock().date() - timedelta(days=1)
        request = finance_pb2.CloseBooksRequest(unit="bonus", period=journal_pb2.CLOSE_PERIOD_DAY, day=str(yesterday))
        self._office("finance", "CloseBooks", request)

    # --- time ------------------------------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0.002, 0.2, 1, 13, 26, 80]), sweeps=st.booleans())
    def let_time_pass(self, hours: float, sweeps: bool) -> None:
        """Let time pass, and perhaps book what it did."""
        self.service.move_clock(hours=hours)
        if sweeps:
            self.bench.run(self.service.sweep())
        self._prove(f"{hours} hours pass{', and are swept' if sweeps else ''}")

    def teardown(self) -> None:
        """Verify everything, from the first entry on."""
        found = self.bench.run(self.ledger.prove())
        if found:
            self.bench.forget_ledger()
        assert found == [], self._told()

    # --- what the steps share --------------------------------------------------------------------------------------

    def _call(self, method: str, request: Any) -> Any:
        return self._do(method, request, self.service.call(method, request))

    def _office(self, stub: str, method: str, request: Any) -> Any:
        return self._do(method, request, self.service.ask_office(stub, method, request))

    def _do(self, method: str, request: Any, work: Coroutine[Any, Any, Any]) -> Any:
        """Make a call, which may be refused by name, and verify what it left behind."""
        answer, what = None, ""
        try:
            answer = self.bench.run(work)
            self.bench.answers[method] += 1
            what = str(answer)
        except grpc.aio.AioRpcError as error:
            told = answer_of(error)
            what = f"refused {told.reason}: {told.message}"
            self.bench.answers[f"{method} refused {told.reason}"] += 1
            if told.code in OUR_FAULTS:
                self.bench.forget_ledger()
                raise AssertionError(f"{told}\n{self._told(f'{method} {request}')}") from error
        if answer is not None and method in {"Commit", "Return", "Hold"}:
            self.sent.append((method, request, _as_stored(answer)))
        self._prove(f"{method} {request}-> {what}")
        return answer

    def _prove(self, step: str) -> None:
        self.steps.append(step)
        self.bench.steps += 1
        found = self.bench.run(self.ledger.prove_step())
        if found:
            self.bench.forget_ledger()
        assert found == [], self._told()

    def _told(self, more: str = "") -> str:
        return "\n\n".join(["the history:", *self.steps, more])

    def _shopper(self, who: int | None) -> common_pb2.Identifier | None:
        """Return whom a lane is shown: a member, now and then one who was merged into another, or nobody."""
        if who is None:
            return None
        return common_pb2.Identifier(member_id=self.members[who] if who < MEMBERS else self.gone or self.members[0])

    def _codes(self, chosen: set[int]) -> list[str]:
        return sorted({self.coupons[-1 - number % len(self.coupons)] for number in chosen})

    def _checkout(self, name: str) -> checkout_pb2.CheckoutKey:
        return checkout_pb2.CheckoutKey(store_id=STORE, terminal_id=LANE, checkout_id=f"{name}-{self.ledger.histories}")

    def _key(self) -> common_pb2.ReceiptKey:
        day = self.service.clock().date().isoformat()
        number = next(_receipt_numbers)
        return common_pb2.ReceiptKey(store_id=STORE, terminal_id=LANE, business_date=day, receipt_number=number)

    def _receipt(self, basket: Sequence[Sold], late_hours: int) -> common_pb2.Receipt:
        receipt = common_pb2.Receipt(currency_code="UAH")
        receipt.event_at.FromDatetime(self.service.clock() - timedelta(hours=late_hours))
        for number, line in enumerate(basket, start=1):
            receipt.lines.add(
                line_number=number,
                sku=line.sku,
                category=ARTICLES[line.sku],
                quantity_milli=line.quantity_milli,
                weighed=line.quantity_milli % 1000 != 0,
                list_amount_minor=line.price_minor,
                floor_amount_minor=line.floor_minor,
                tags=["tobacco"] if line.sku == "tobacco" else (),
            )
        return receipt

    @staticmethod
    def _deposits(points_minor: int, basket: Sequence[Sold]) -> list[common_pb2.UnitPoints]:
        """Sell points with the first gift card on the receipt, or with none in particular."""
        if not points_minor:
            return []
        line = next((number for number, each in enumerate(basket, start=1) if each.sku == "gc"), 0)
        return [common_pb2.UnitPoints(unit="card", points_minor=points_minor, line_number=line)]

    def _discount(self, request: checkout_pb2.CommitRequest, by: str) -> None:
        """Give the discounts that a quote promises, or others."""
        if by == "quoted":
            asked = checkout_pb2.QuoteRequest(
                identifier=request.identifier if request.HasField("identifier") else None,
                receipt=request.receipt,
                coupon_codes=request.coupon_codes,
            )
            try:
                quoted = self.bench.run(self.service.call("Quote", asked))
            except grpc.aio.AioRpcError as error:
                assert answer_of(error).code not in OUR_FAULTS, answer_of(error)
                return
            for line, effects in zip(request.receipt.lines, quoted.lines, strict=True):
                line.discount_minor = sum(part.amount_minor for part in effects.discounts)
            return
        shares = {"none": 0, "a tenth": 10, "all": 1}
        for line in request.receipt.lines:
            line.discount_minor = line.list_amount_minor // shares[by] if shares[by] else 0


_receipt_numbers = itertools.count(1)


def _as_stored(answer: Any) -> bytes:
    """Return the part of an answer that is the same for ever: a hold's quote is of its own moment."""
    kept = type(answer)()
    kept.CopyFrom(answer)
    if isinstance(kept, checkout_pb2.HoldResponse):
        kept.ClearField("quote")
    serialised: bytes = kept.SerializeToString(deterministic=True)
    return serialised


def run_histories(
    databases: DatabaseFactory,
    histories: int,
    *,
    steps: int = STEPS,
    tell: Callable[[int], None] = lambda _histories: None,
) -> Bench:
    """Run histories of a shop; an AssertionError tells the first history that went wrong, step by step.

    It is not made shorter: that takes many more histories, each of which may end otherwise, as ids are random.
    """
    bench = Bench(databases, tell)
    machine = type("Histories", (Shop,), {"bench": bench})
    chosen = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=[Phase.generate],
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        bench.close()
    return bench


@contextmanager
def own_databases() -> Iterator[DatabaseFactory]:
    """Start a PostgreSQL for histories."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="histories-", ignore_cleanup_errors=True))
        postgres = EmbeddedPostgres(Path(folder) / "postgres", {"shared_buffers": "128MB", "fsync": "off"})
        postgres.start()
        stack.callback(postgres.stop)
        factory = DatabaseFactory(postgres)
        stack.callback(factory.close)
        yield factory


def main(
    histories: Annotated[int, typer.Option(min=1, help="How many histories.")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="The most steps of a history.")] = STEPS,
) -> None:
    """Let shops do whatever they may over the public API, and verify the books after each step."""
    began = time.monotonic()
    console = Console(stderr=True)
    with own_databases() as databases, progress("histories", histories, "histories", console) as tell:
        bench = run_histories(databases, histories, steps=steps, tell=tell)
    for name, count in sorted(bench.answers.items()):
        print(f"{count:8,}  {name}")
    minutes = (time.monotonic() - began) / SECONDS_A_MINUTE
    print(f"{bench.histories:,} histories, {bench.steps:,} steps, each verified: no problem, {minutes:.1f} minutes")


if __name__ == "__main__":
    typer.run(main)
