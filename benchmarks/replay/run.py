"""A replay from beginning to end: seed, send, prove, report."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from rich.console import Console
from tallypoint.v1 import checkout_pb2_grpc

from benchmarks.replay import control, finance, proof
from benchmarks.replay.campaigns import Campaigns, load_campaigns
from benchmarks.replay.client import Counters
from benchmarks.replay.dataset import Dataset, IntColumn, frames, load
from benchmarks.replay.journal import RegisterJournal
from benchmarks.replay.lanes import Answered, Lanes, Plan, Tally
from benchmarks.replay.own_server import Target
from benchmarks.replay.people import CardShape, Person, person
from benchmarks.replay.readiness import Newest, wait_until_seeded
from benchmarks.replay.report import Check, ReplayReport, money
from benchmarks.replay.schedule import Schedule, months_of, schedule
from benchmarks.replay.seed import BackOffice
from server.commands.output.progress import progress

PROGRAMME: Final = Path(__file__).parent / "programme.yaml"
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Options:
    """What to replay and how.

    `month` is YYYY-MM, None for the whole year. Goods of `returns_per_million` of the baskets come back. `resend`
    sends receipts again that were answered in an earlier run; by default that happens only if all of them were.
    After each month the books are closed; without a word about it in `close_months`, if the whole month was replayed.
    With `campaigns`, the data set's own campaigns are added to the programme, every household gets its coupons, and
    those that were really redeemed are presented.
    """

    month: str | None = None
    limit: int | None = None
    lanes: int = 32
    channels: int = 16
    plan: Plan = field(default_factory=Plan)
    returns_per_million: int = 30_000
    close_months: bool | None = None
    campaigns: bool = False
    resend: bool = False
    programme_text: str = PROGRAMME.read_text(encoding="utf-8")
    programme_file: str = PROGRAMME.name
    card_shape: CardShape = CardShape()  # noqa: RUF009  - immutable
    prove: bool = True
    root_certificates: bytes | None = None


@dataclass(frozen=True)
class _Run:
    """What the steps of one replay share."""

    target: Target
    options: Options
    console: Console
    dataset: Dataset
    selection: IntColumn
    schedule: Schedule
    people: dict[int, Person]
    office: BackOffice
    journal: RegisterJournal
    campaigns: Campaigns | None

    @property
    def basket_ids(self) -> list[int]:
        return [int(basket_id) for basket_id in self.dataset.basket_id[self.selection]]

    @property
    def keys(self) -> control.Keys:
        """The business keys of the baskets' receipts."""
        return control.keys_of(self.dataset, self.schedule, self.selection)

    @property
    def closes_months(self) -> bool:
        """Whether months are closed: what is sold on a closed day later is late."""
        wanted = self.options.close_months
        return self.options.limit is None if wanted is None else wanted

    @property
    def title(self) -> str:
        title = self.options.month or "2017"
        return title if self.options.limit is None else f"{title}, the first {len(self.selection):,} baskets"


async def replay(target: Target, options: Options, journal_dir: Path, console: Console) -> ReplayReport:
    """Replay the chosen baskets against a running server.

    Raises:
        DatasetMissing: the data are not installed.
        SeedFailed, CallFailed: the server does not take what the replay needs.
        ValueError: there are no such baskets.
    """
    dataset = load()
    selection = dataset.select(options.month, options.limit)
    # All households become members, whatever is chosen: so the books begin alike in every run on this ledger.
    people = {household: person(household, options.card_shape) for household in dataset.households(dataset.select())}
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(_channel(target.backoffice_address, options, 0))
        office = BackOffice(channel, target.admin_key, Counters())
        campaigns = load_campaigns() if options.campaigns else None
        text = campaigns.programme(options.programme_text) if campaigns else options.programme_text
        version = await office.publish(text, options.programme_file)
        await office.import_members(list(people.values()), console)
        path = journal_dir / f"replay-{await office.ledger_name()}.sqlite"
        journal = await stack.enter_async_context(RegisterJournal(path))
        await office.put_catalogue(dataset.products, journal, console)
        if campaigns is not None:
            await office.load_coupons(campaigns, people, console)
        keys = await office.open_stores(dataset.terminals(selection), journal, console)
        channels = [
            await stack.enter_async_context(_channel(target.pos_address, options, number))
            for number in range(options.channels)
        ]
        stubs = [checkout_pb2_grpc.CheckoutServiceStub(each) for each in channels]
        newest_event = int(dataset.event_seconds[selection[-1]])
        await wait_until_seeded(stubs, Newest(keys, dataset.products[-1].sku, version, newest_event))
        scheduled = schedule(dataset, options.returns_per_million)
        run = _Run(target, options, console, dataset, selection, scheduled, people, office, journal, campaigns)
        return await _send_and_report(run, stubs)


async def _send_and_report(run: _Run, stubs: Sequence[checkout_pb2_grpc.CheckoutServiceAsyncStub]) -> ReplayReport:
    plan = _plan(run)
    coupons = run.campaigns.presented() if run.campaigns else {}
    lanes = Lanes(run.dataset, run.people, run.journal, stubs, plan, run.schedule, coupons)
    gc.freeze()  # the data set stays: looking for garbage in it would take time from every call
    entries_before = await control.entry_count(run.office)
    closes = finance.Closes()
    seconds = 0.0
    with progress("Baskets", len(run.selection), "baskets", run.console) as advance:
        for month, selection in months_of(run.dataset, run.selection):
            started = time.perf_counter()
            await lanes.run(selection, run.options.lanes, lambda: advance(1))
            seconds += time.perf_counter() - started
            if run.closes_months:
                await finance.close_month(run.office, month, closes)
    entries_after = await control.entry_count(run.office)
    return await _report(run, lanes, closes, entries_after - entries_before, seconds)


def _plan(run: _Run) -> Plan:
    """Resend if asked to or if everything was answered before; otherwise go on where the last run stopped."""
    plan = run.options.plan
    answered = run.journal.answered().intersection(run.basket_ids)
    if run.options.resend or len(answered) == len(run.selection):
        plan = Plan(plan.redemption_per_million, Answered.RESEND, plan.new_message_ids, plan.patience)
    if answered:
        verb = "sending them again" if plan.answered is Answered.RESEND else "going on after them"
        run.console.print(f"{len(answered):,} of {len(run.selection):,} baskets were answered before: {verb}.")
    return plan


async def _report(run: _Run, lanes: Lanes, closes: finance.Closes, new_entries: int, seconds: float) -> ReplayReport:
    transactions, _ = frames()
    expected = control.from_data_set(
        transactions, run.basket_ids, lambda household: str(run.people[household].member_id)
    )
    points = await control.point_totals(run.office)
    report = ReplayReport(
        title=run.title,
        tally=lanes.tally,
        counters=lanes.counters,
        bought=control.summed(expected),
        members=len(expected),
        stores=len({store for store, _ in run.dataset.terminals(run.selection)}),
        points=points,
        new_entries=new_entries,
        closes=closes.made,
        seconds=seconds,
        checks=_resend_checks(lanes.tally, new_entries, closes.made * (len(await control.heads(run.office)) + 1)),
    )
    if run.options.prove:
        report.checks += await _ledger_checks(run, report, expected)
        months = [month for month, _ in months_of(run.dataset, run.selection)]
        printed = finance.z_reports(transactions, run.dataset, run.schedule, run.selection, run.journal)
        if not lanes.tally.failed:
            report.checks.append(await finance.reconcile(run.office, printed, months, run.console))
        report.checks += await _database_checks(run, report, expected)
    return report


def _resend_checks(tally: Tally, new_entries: int, close_entries: int) -> list[Check]:
    """Every new receipt, return, hold and cancel is one entry, and each close a mark in every book and its totals."""
    fresh = tally.receipts + tally.returns - tally.resent - tally.returns_resent - tally.unsettled
    fresh += tally.holds + tally.cancels + close_entries
    again = tally.resent + tally.returns_resent
    detail = f"{fresh:,} new events, {again:,} repeated, {new_entries:,} new entries"
    if tally.unsettled:
        detail += f" ({tally.unsettled:,} were interrupted before)"
    checks = [
        Check(
            "every new event is one entry, a repeated one none",
            fresh <= new_entries <= fresh + tally.unsettled,
            detail,
        )
    ]
    if again:
        different = tally.different_answers
        detail = f"{len(different):,} differ: {different[:3]}" if different else f"all {again:,}"
        checks.append(Check("a repeated event gets the same answer", not different, detail))
    return checks


def _points_checks(points: control.PointTotals, books: control.Books) -> list[Check]:
    """The programme's totals come of postings; the receipts' answers must have said the same."""
    rest = points.issued - points.redeemed - points.expired
    sums = f"{points.issued:,} - {points.redeemed:,} - {points.expired:,} = {points.outstanding:,}"
    earned = books.accrual_points_minor - books.clawback_points_minor
    spent = books.spent_points_minor - books.refund_points_minor
    answered = (
        f"earned {books.accrual_points_minor:,} less {books.clawback_points_minor:,} taken back, "
        f"spent {books.spent_points_minor:,} less {books.refund_points_minor:,} given back"
    )
    same = (points.issued, points.redeemed) == (earned, spent)
    return [
        Check("points: earned - spent - expired = outstanding", rest == points.outstanding, sums),
        Check("points: programme's totals = receipts' answers", same, answered),
    ]


async def _database_checks(run: _Run, report: ReplayReport, expected: dict[str, control.Bought]) -> list[Check]:
    with proof.databases(run.target.data_dir) as dsns:
        if dsns is None:
            return [Check(name, None, proof.NOT_FROM_HERE) for name in ("ledger verified", "CRM equals ledger")]
        checks = await proof.prove(dsns, run.keys, expected, run.console)
        return checks + await finance.prove_reports(dsns.ledger, report.points.outstanding)


async def _ledger_checks(run: _Run, report: ReplayReport, expected: dict[str, control.Bought]) -> list[Check]:
    """Compare the data set's control totals with the ledger's entries."""
    entries = await control.entry_count(run.office)
    with progress("Reading the ledger", entries, "entries", run.console) as advance:
        books = await control.from_ledger(run.office, run.keys, advance)
    if run.campaigns is not None:
        selected = set(run.basket_ids)
        redeemed = [one for one in run.campaigns.redemptions if one.basket_id in selected]
        report.coupons = control.CouponTotals(len(redeemed), books.coupons, books.coupon_discount_minor)
    booked, wrong = control.summed(books.bought), control.differences(expected, books.bought)
    total = f"{booked.receipts:,} receipts, {booked.lines:,} lines, {money(booked.turnover_minor)}"
    checks = [
        Check("ledger = data set, member by member", not wrong, "; ".join(wrong) or total),
        Check("no receipt is booked twice", not books.twice, f"{len(books.twice):,} of {booked.receipts:,} are"),
        Check("rules at commit = rules at quote", books.variances == 0, f"{books.variances:,} lines differ"),
        *_points_checks(report.points, books),
    ]
    tally = report.tally
    if tally.returns_skipped == 0 and not tally.failed:
        ours = (tally.refund_money_minor, tally.refund_points_minor, tally.clawback_points_minor)
        theirs = (books.refund_money_minor, books.refund_points_minor, books.clawback_points_minor)
        detail = f"{books.returns:,} returns, {money(books.refund_money_minor)} given back"
        checks.append(Check("returns booked = returns answered", ours == theirs, detail))
    if tally.skipped == 0 and not tally.failed:
        same = tally.discount_minor == books.discount_minor
        detail = f"{money(books.discount_minor)} booked, {money(tally.discount_minor)} given at the registers"
        checks.append(Check("discounts booked = discounts given", same, detail))
    return checks


@asynccontextmanager
async def _channel(address: str, options: Options, number: int) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own: equal channels would share one otherwise."""
    arguments = [
        ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ("grpc.max_send_message_length", _MAX_ANSWER_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        ("tallypoint.channel_number", number),
    ]
    if options.root_certificates is None:
        channel = grpc.aio.insecure_channel(address, arguments)
    else:
        credentials = grpc.ssl_channel_credentials(options.root_certificates)
        channel = grpc.aio.secure_channel(address, credentials, arguments)
    async with channel:
        yield channel
