"""From a draft to the tills and back, over a real database and through the calls of registers and back office."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from math import sqrt
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from google.protobuf import json_format, struct_pb2
from tallypoint.v1 import checkout_pb2, common_pb2, journal_pb2, member_pb2
from tallypoint.v1 import programme_pb2 as pb
from typer.testing import CliRunner

from ledger.booking.committer import Committer
from ledger.reading.balances import BalanceAt, read_balances
from server import promotions
from server.backoffice.programme_servicer import ProgrammeServicer
from server.base.database import connection
from server.base.errors import Refused
from server.base.gather import Gatherer
from server.checkout.budgets import Budgets
from server.checkout.lookups import LedgerReader
from server.checkout.servicer import BalanceReader, Books, CheckoutServicer
from server.commands.main import app as command
from server.edge.caller import Caller, Role
from server.rights.coupons import CouponReader
from server.rules.book import RulesBook
from server.rules.rollout import Rollout, ShareBy
from server.rules.shadow import Shadows
from server.rules.versions import ProgrammeStore
from server.shop.catalogue import Catalogue
from tests.integration.back_office import BOOKS, NOW, BackOffice, back_office_over, connect_writer

ADMIN = Caller(Role.ADMIN, "anna", "", "", None)
LANE = Caller(Role.TERMINAL, "lane 1", "12", "1", None)
SHOWCASE = (Path(promotions.__file__).parent / "examples" / "showcase.yaml").read_text(encoding="utf-8")
STORES = [f"store-{number}" for number in range(400)]
SHOPPERS = [f"member-{number}|2026-11-22" for number in range(2000)]


def programme(percent: str = "10", *, effective_from: str = "2026-01-01", more: str = "") -> str:
    return f"""\
programme: demo
name: Test programme
effective_from: {effective_from}
currency: UAH
point: {{unit: bonus, precision: 2, pays: 1}}
earning: {{base_percent: 1}}
promotions:
  - {{id: cakes, name: Cakes, scope: {{categories: [bakery]}}, line_discount: {{percent: {percent}}}}}
  - {{id: third, name: Every third visit, when: {{visit: {{every: 3}}}}, points: {{percent: 5}}}}
  - id: few
    name: Two a day
    scope: {{categories: [bakery]}}
    limits: [{{at_most: 2, for: member, each: day}}]
    line_discount: {{amount: 1}}
{more}
"""


class Stores:
    """Every store is in Kyiv and the chain's own."""

    def time_zone(self, store_id: str) -> ZoneInfo:
        return ZoneInfo("Europe/Kyiv")

    def groups(self, store_id: str) -> frozenset[str]:
        return frozenset({"big"})

    def partner(self, store_id: str) -> str:
        return ""


@dataclass
class Chain:
    """A register and the back office, without their ports, at a clock that stands still until it is moved."""

    office: BackOffice
    till: CheckoutServicer
    desk: ProgrammeServicer
    store: ProgrammeStore
    rules: RulesBook
    shadows: Shadows
    now: list[datetime]
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def publish(self, text: str, rollout: pb.Rollout | None = None) -> pb.ProgrammeVersion:
        response = await self.desk.publish_programme(pb.PublishProgrammeRequest(text=text, rollout=rollout), ADMIN)
        await self.reload()
        return response.version

    async def roll_out(self, version: int, rollout: pb.Rollout) -> pb.ProgrammeVersion:
        response = await self.desk.set_rollout(pb.SetRolloutRequest(version=version, rollout=rollout), ADMIN)
        await self.reload()
        return response.version

    async def reload(self) -> None:
        async with connection(self.office.pool) as conn:
            await self.rules.load(conn)

    def version(self, moment: datetime, store: str = "", shopper: str = "") -> int:
        rules = self.rules.at(moment, store_id=store, shopper=shopper)
        return rules.version if rules else 0

    async def shopper(self) -> common_pb2.Identifier:
        row = await self.office.register(member_pb2.NewMember(profile=member_pb2.Profile(name="Olena Koval")))
        return common_pb2.Identifier(member_id=str(row.member_id))

    async def buy(
        self, shopper: common_pb2.Identifier | None = None, *amounts: int, discount: int | None = None
    ) -> checkout_pb2.CommitRequest:
        """Quote a receipt of bread and cake, and commit it as quoted (or with another discount on its first line)."""
        lines = [
            common_pb2.ReceiptLine(
                line_number=number,
                sku=f"sku-{number}",
                category="bakery" if number == 1 else "dairy",
                quantity_milli=1000,
                list_amount_minor=amount,
            )
            for number, amount in enumerate(amounts or (12_345, 999), start=1)
        ]
        return await self.buy_lines(shopper, lines, discount=discount)

    async def buy_lines(
        self,
        shopper: common_pb2.Identifier | None,
        lines: Sequence[common_pb2.ReceiptLine],
        *,
        coupons: Sequence[str] = (),
        discount: int | None = None,
        spend: int = 0,
    ) -> checkout_pb2.CommitRequest:
        """Quote lines, and commit them as quoted (or with another discount on the first)."""
        receipt = common_pb2.Receipt(currency_code="UAH", lines=lines)
        receipt.event_at.FromDatetime(self.now[0])
        quoted = await self.till.quote(
            checkout_pb2.QuoteRequest(
                identifier=shopper, receipt=receipt, coupon_codes=coupons, spend_points_minor=spend
            ),
            LANE,
        )
        for line, effects in zip(receipt.lines, quoted.lines, strict=True):
            line.discount_minor = sum(part.amount_minor for part in effects.discounts)
        if discount is not None:
            receipt.lines[0].discount_minor = discount
        key = common_pb2.ReceiptKey(
            store_id="12", terminal_id="1", business_date=f"{self.now[0]:%Y-%m-%d}", receipt_number=next(self.numbers)
        )
        request = checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=key,
            identifier=shopper,
            receipt=receipt,
            coupon_codes=coupons,
            spend_points_minor=quoted.spend_points_minor,
        )
        await self.till.commit(request, LANE)
        return request

    async def explain(self, request: checkout_pb2.CommitRequest) -> pb.ExplainReceiptResponse:
        return await self.desk.explain_receipt(pb.ExplainReceiptRequest(receipt_key=request.receipt_key), ADMIN)


@pytest.fixture
async def chain(ledger_dsn: str) -> AsyncIterator[Chain]:
    now = [NOW + timedelta(days=1)]
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(back_office_over(ledger_dsn))

        def connect() -> object:
            return connect_writer(ledger_dsn)

        async def load(
            conn: object, members: Sequence[tuple[int, uuid.UUID]]
        ) -> dict[tuple[int, uuid.UUID], list[BalanceAt]]:
            found = await read_balances(conn, members, now[0])  # type: ignore[arg-type]  # a connection
            return {(book, one): found[one] for book, one in members if one in found}

        balances: BalanceReader = Gatherer("balances", connect, load)  # type: ignore[arg-type]  # as above
        reader = LedgerReader(connect, lambda: now[0])  # type: ignore[arg-type]  # as above
        committer = Committer(connect, BOOKS, lambda: now[0])  # type: ignore[arg-type]  # as above
        coupons = CouponReader(connect, BOOKS)  # type: ignore[arg-type]  # as above
        budgets = Budgets(connect, lambda: now[0])  # type: ignore[arg-type]  # as above
        for closing in (balances, reader, committer, coupons, budgets):
            stack.push_async_callback(closing.close)
        rules, store = RulesBook(), ProgrammeStore(office.pool)
        shadows = Shadows(rules, connect)  # type: ignore[arg-type]  # as above
        stack.push_async_callback(shadows.stop)
        till = CheckoutServicer(
            directory=await stack.enter_async_context(office.directory()),
            books=Books(committer, balances, reader, budgets),
            coupons=coupons,
            rules=rules,
            catalogue=Catalogue(),
            stores=Stores(),
            clock=lambda: now[0],
            shadows=shadows,
        )
        desk = ProgrammeServicer(store, office.pool, rules, lambda: now[0])
        yield Chain(office, till, desk, store, rules, shadows, now)


# --- publishing ------------------------------------------------------------------------------------------------------


def share(percent: int, by: pb.RolloutBy = pb.ROLLOUT_BY_STORES) -> pb.Rollout:
    return pb.Rollout(share_millionths=percent * 10_000, by=by)


@pytest.mark.parametrize("by", [pb.ROLLOUT_BY_STORES, pb.ROLLOUT_BY_RECEIPTS], ids=["stores", "receipts"])
async def test_a_version_begins_with_a_share_and_is_widened(chain: Chain, by: pb.RolloutBy) -> None:
    moment = chain.now[0]
    await chain.publish(programme("10"))
    await chain.publish(programme("20"), share(25, by))

    def drawn() -> set[str]:
        if by == pb.ROLLOUT_BY_STORES:
            return {store for store in STORES if chain.version(moment, store, "m|d") == 2}
        return {shopper for shopper in SHOPPERS if chain.version(moment, "s", shopper) == 2}

    first, number = drawn(), len(STORES if by == pb.ROLLOUT_BY_STORES else SHOPPERS)
    assert abs(len(first) - number / 4) < 4 * sqrt(number * 3 / 16), "four standard deviations of a fair draw"
    assert drawn() == first, "the same for whoever asks again"
    other = RulesBook()
    async with connection(chain.office.pool) as conn:
        await other.load(conn)
    chain.rules = other
    assert drawn() == first, "and for another worker"
    assert chain.version(moment) == 1, "who names no store is in no share"
    await chain.roll_out(2, share(50, by))
    assert first < drawn(), "all who had it keep it"
    await chain.roll_out(2, share(100, by))
    assert len(drawn()) == number
    assert chain.version(moment - timedelta(seconds=1), "s", "m") in {1, 2}
    assert chain.version(moment) == 2


async def test_receipts_are_judged_by_the_rollout_of_their_own_time(chain: Chain) -> None:
    start = chain.now[0]
    await chain.publish(programme("10"))
    await chain.publish(programme("20"), share(0))
    chain.now[0] = start + timedelta(hours=1)
    await chain.roll_out(2, share(100))
    later = [chain.version(start + timedelta(hours=hours)) for hours in (-1, 0.99, 1, 2)]
    assert later == [1, 1, 2, 2]


async def test_saying_the_same_again_changes_nothing(chain: Chain) -> None:
    for _ in range(2):
        version = await chain.publish(programme(), share(10))
        assert (version.version, version.rollout.share_millionths) == (1, 100_000)
    for _ in range(2):
        await chain.roll_out(1, share(30))
    response = await chain.desk.get_programme_version(pb.GetProgrammeVersionRequest(), ADMIN)
    said = [(one.share_millionths, one.set_by, one.HasField("from_at")) for one in response.rollouts]
    assert said == [(100_000, "anna", False), (300_000, "anna", True)]
    await chain.publish(programme(), share(100))
    assert len((await chain.desk.get_programme_version(pb.GetProgrammeVersionRequest(), ADMIN)).rollouts) == 3


async def test_a_share_of_nothing_in_particular_is_refused(chain: Chain) -> None:
    await chain.publish(programme())
    with pytest.raises(Refused) as refused:
        await chain.roll_out(1, pb.Rollout(share_millionths=5))
    assert (refused.value.reason_name, refused.value.violations[0][0]) == ("INVALID_REQUEST", "rollout.by")
    with pytest.raises(Refused, match="no version 7"):
        await chain.roll_out(7, share(10))


async def test_a_document_is_published_like_its_text(chain: Chain) -> None:
    document = struct_pb2.Struct()
    data = {"programme": "demo", "name": "Demo", "effective_from": "2026-01-01", "currency": "UAH"}
    point = {"unit": "bonus", "precision": 2, "pays": 1}
    json_format.ParseDict({**data, "point": point, "earning": {"base_percent": 1.5}}, document)
    response = await chain.desk.publish_programme(pb.PublishProgrammeRequest(document=document), ADMIN)
    assert response.version.version == 1
    again = await chain.desk.publish_programme(pb.PublishProgrammeRequest(document=document), ADMIN)
    assert again.unchanged, "a document has one text"
    await chain.reload()
    rules = chain.rules.of_version(1)
    assert rules is not None
    assert rules.programme.earning.base_share.limit_denominator() * 1000 == 15


async def test_further_units_and_partners_get_their_numbers_in_the_books(chain: Chain) -> None:
    await chain.publish(SHOWCASE)
    units = [chain.rules.unit_named(code) for code in ("bonus", "gift", "deposit")]
    assert [(unit.code, unit.precision) for unit in units] == [("bonus", 2), ("gift", 0), ("deposit", 2)]
    assert len({unit.number for unit in units}) == 3
    assert chain.rules.partner_account("fuel", own=11) == 1001
    assert chain.rules.partner_account("nobody", own=11) == 11
    finer = SHOWCASE.replace(
        "unit: gift, name: Gift points, precision: 0", "unit: gift, name: Gift points, precision: 1"
    )
    with pytest.raises(Refused) as refused:
        await chain.publish(finer)
    assert refused.value.violations[0][0] == "units[0].precision"


async def test_check_warns_of_what_is_probably_not_meant(chain: Chain) -> None:
    over = "  - {id: over, name: Over, valid: {until: 2026-02-01}, line_discount: {percent: 5}}"
    checked = await chain.desk.check_programme(pb.CheckProgrammeRequest(text=programme(more=over)), ADMIN)
    assert list(checked.problems) == []
    assert [(one.line, one.field) for one in checked.warnings] == [(15, "promotions[3].valid")]
    wrong = await chain.desk.check_programme(pb.CheckProgrammeRequest(text=programme("lots")), ADMIN)
    assert [problem.field for problem in wrong.problems] == ["promotions[0].line_discount.percent"]


# --- going back ------------------------------------------------------------------------------------------------------


async def test_rollback_lets_the_version_before_count_again(chain: Chain) -> None:
    start = chain.now[0]
    for percent in ("10", "20", "30"):
        await chain.publish(programme(percent))
    await chain.publish(programme("40", effective_from="2027-01-01"))
    chain.now[0] = start + timedelta(hours=6)
    response = await chain.desk.rollback_programme(pb.RollbackProgrammeRequest(), ADMIN)
    await chain.reload()
    assert (response.version.version, list(response.switched_off)) == (2, [3])
    assert [due.version for due in response.due] == [4]
    assert [chain.version(start + timedelta(hours=hours)) for hours in (0, 5.99, 6, 24 * 60)] == [3, 3, 2, 4]
    listed = (await chain.desk.list_programme_versions(pb.ListProgrammeVersionsRequest(), ADMIN)).versions
    assert [one.version for one in listed if one.in_effect] == [2]

    again = await chain.desk.rollback_programme(pb.RollbackProgrammeRequest(), ADMIN)
    assert again.version.version == 1, "one further"
    named = await chain.desk.rollback_programme(pb.RollbackProgrammeRequest(to_version=3), ADMIN)
    assert (named.version.version, list(named.switched_off)) == (3, []), "and forward again"
    await chain.reload()
    assert chain.version(chain.now[0]) == 3


async def test_there_may_be_nothing_to_go_back_to(chain: Chain) -> None:
    await chain.publish(programme())
    with pytest.raises(Refused) as refused:
        await chain.desk.rollback_programme(pb.RollbackProgrammeRequest(), ADMIN)
    assert refused.value.reason_name == "NO_PROGRAMME"
    assert chain.version(chain.now[0]) == 1


# --- shadows ---------------------------------------------------------------------------------------------------------


async def test_a_shadow_is_compared_and_never_applied(chain: Chain) -> None:
    await chain.publish(programme("10"))
    shadow = await chain.publish(programme("25"), pb.Rollout(mode=pb.ROLLOUT_MODE_SHADOW))
    shopper = await chain.shopper()
    bought = [await chain.buy(shopper, 10_000), await chain.buy(shopper, 10_000), await chain.buy(None, 4_000)]
    assert [one.receipt.lines[0].discount_minor for one in bought] == [1100, 1100, 400 + 100], "by version 1"
    await chain.till.commit(bought[0], LANE)
    await chain.shadows.flush()
    report = await chain.desk.get_shadow_report(pb.GetShadowReportRequest(version=shadow.version), ADMIN)
    (row,) = report.rows
    assert (row.day, row.store_id, row.receipts, row.differing, row.failed) == ("2026-11-22", "12", 3, 3, 0)
    assert row.live_discount_minor == 1100 + 1100 + 500, "a receipt that is sent again is not compared again"
    assert row.shadow_discount_minor == 2600 + 2600 + 1100
    assert row.live_points_minor - row.shadow_points_minor == 15 + 15, "on what is paid less; nobody earns nothing"

    await chain.buy(shopper, 10_000)
    await chain.shadows.flush()
    await chain.roll_out(shadow.version, share(0))
    await chain.buy(shopper, 10_000)
    await chain.shadows.flush()
    (row,) = (await chain.desk.get_shadow_report(pb.GetShadowReportRequest(version=2), ADMIN)).rows
    assert row.receipts == 4, "sums add up, until it is a shadow no longer"


async def test_sums_of_shadows_wait_for_a_database_that_is_away(chain: Chain) -> None:
    await chain.publish(programme("10"))
    await chain.publish(programme("25"), pb.Rollout(mode=pb.ROLLOUT_MODE_SHADOW))

    async def away() -> None:
        raise OSError("away")

    there = chain.shadows._connect
    chain.shadows._connect = away  # type: ignore[assignment]  # what a lost database does
    await chain.buy(None, 4_000)
    with pytest.raises(OSError, match="away"):
        await chain.shadows.flush()
    chain.shadows._connect = there
    await chain.shadows.flush()
    assert await chain.office.pool.fetchval("SELECT sum(receipts) FROM server.rules_shadow") == 1


# --- explaining ------------------------------------------------------------------------------------------------------


async def test_a_booked_receipt_is_explained_bit_by_bit_whatever_came_later(chain: Chain) -> None:
    await chain.publish(programme("10"))
    shopper = await chain.shopper()
    bought = [await chain.buy(shopper) for _ in range(4)]
    bought += [await chain.buy(None), await chain.buy(shopper, 5000, discount=123)]
    await chain.publish(programme("50"))
    answers = [await chain.explain(one) for one in bought]
    assert [answer.difference for answer in answers] == [""] * len(bought)
    assert {answer.programme_version for answer in answers} == {1}
    verdicts = [{one.promotion_id: one.verdict for one in answer.promotions} for answer in answers]
    assert [one["cakes"] for one in verdicts[:5]] == ["applied"] * 5
    assert [one["third"] for one in verdicts[:3]] == ["condition_failed", "condition_failed", "applied"]
    assert [one["few"] for one in verdicts[:4]] == ["applied", "applied", "limit_reached", "limit_reached"]
    assert verdicts[5]["cakes"] == "register_charged_otherwise"
    place = answers[0].entry
    by_place = pb.ExplainReceiptRequest(entry=pb.EntryPlace(book=place.book, number=place.number))
    assert await chain.desk.explain_receipt(by_place, ADMIN) == answers[0]


GOODS = [
    ("yoghurt", "dairy/yoghurt", 2300, ()),
    ("milk", "dairy/milk", 4150, ()),
    ("cheese", "dairy/cheese", 9999, ()),
    ("bread", "bakery/bread", 2750, ()),
    ("egg-10", "eggs", 6500, ()),
    ("coffee-250", "coffee", 12_990, ()),
    ("spaghetti", "pasta", 3300, ()),
    ("pesto", "sauce", 8750, ()),
    ("bar", "sweets/bars", 1999, ()),
    ("tea", "tea", 7000, ()),
    ("cup-1", "home", 4500, ()),
    ("water", "water", 1490, ()),
    ("drill", "diy", 60_000, ()),
    ("cod", "fish", 15_000, ()),
    ("club-card", "cards", 9900, ()),
    ("4820000000024", "dairy/milk", 2500, ()),
    ("cigarettes", "tobacco", 9000, ("tobacco",)),
]


def basket(random: Random) -> list[common_pb2.ReceiptLine]:
    """Return some goods that the example's promotions look at."""
    lines = []
    for number, (sku, category, price, tags) in enumerate(random.sample(GOODS, random.randint(1, 7)), start=1):
        units = random.choice((1, 1, 2, 3, 7))
        lines.append(
            common_pb2.ReceiptLine(
                line_number=number,
                sku=sku,
                category=category,
                brand="Own",
                tags=tags,
                quantity_milli=1000 * units,
                list_amount_minor=price * units,
            )
        )
    return lines


async def test_receipts_of_the_whole_vocabulary_are_explained_bit_by_bit(chain: Chain) -> None:
    chain.now[0] = datetime(2026, 3, 2, 9, tzinfo=UTC)
    await chain.publish(SHOWCASE)
    random, coupons = Random(11), list[str]()
    shoppers = [await chain.shopper() for _ in range(4)]
    seen: set[str] = set()
    for _ in range(40):
        chain.now[0] += timedelta(hours=random.choice((1, 2, 30)))
        shopper = random.choice((None, *shoppers))
        shown = random.choice(((), ("WELCOME10",), tuple(coupons[-1:])))
        bought = await chain.buy_lines(shopper, basket(random), coupons=shown, spend=random.choice((0, 0, 500)))
        answer = await chain.explain(bought)
        assert answer.difference == "", bought
        async with connection(chain.office.pool) as conn:
            payload = await conn.fetchval(
                "SELECT payload FROM ledger.entry WHERE book = $1 AND number = $2",
                answer.entry.book,
                answer.entry.number,
            )
        purchase = journal_pb2.Event.FromString(payload).purchase
        coupons += [coupon.code for coupon in purchase.issued_coupons]
        seen |= {one.promotion_id for one in answer.promotions if one.verdict == "applied"}
        for what in ("capped", "withheld", "issued_coupons", "draws", "tier_change"):
            value = getattr(purchase, what)
            seen |= {what} if (value.ByteSize() if what == "tier_change" else len(value)) else set()
    assert {"issued_coupons", "draws"} <= seen
    assert len(seen) > 8, "much of what the programme has was there"


async def test_what_was_tampered_with_is_named(chain: Chain) -> None:
    await chain.publish(programme("10"))
    bought = await chain.buy(await chain.shopper())
    place = (await chain.explain(bought)).entry
    async with connection(chain.office.pool) as conn:
        payload = await conn.fetchval(
            "SELECT payload FROM ledger.entry WHERE book = $1 AND number = $2", place.book, place.number
        )
    event = journal_pb2.Event.FromString(payload)
    event.purchase.effects[0].payable_minor += 1
    from server.rules.evidence import first_difference, reexplained

    rules = chain.rules.of_version(1)
    assert rules is not None
    difference = first_difference(event.purchase, reexplained(event.purchase, rules))
    assert difference is not None
    assert difference.startswith("line 1:")


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            pb.ExplainReceiptRequest(
                receipt_key=common_pb2.ReceiptKey(
                    store_id="12", terminal_id="1", business_date="2026-11-22", receipt_number=99
                )
            ),
            id="by key",
        ),
        pytest.param(pb.ExplainReceiptRequest(entry=pb.EntryPlace(book=0, number=9999)), id="by place"),
    ],
)
async def test_what_is_not_booked_is_not_found(chain: Chain, request_: pb.ExplainReceiptRequest) -> None:
    await chain.publish(programme())
    with pytest.raises(Refused) as refused:
        await chain.desk.explain_receipt(request_, ADMIN)
    assert refused.value.reason_name == "NOT_FOUND"


# --- backtests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Booked:
    """What a chain's journal cost."""

    dsn: str
    discount_minor: int
    points_minor: int


@pytest.fixture
async def booked(chain: Chain) -> Booked:
    """Book receipts of several members and of nobody by one version."""
    await chain.publish(programme("10"))
    shoppers = [await chain.shopper() for _ in range(5)]
    for day in range(3):
        chain.now[0] += timedelta(days=day > 0)
        for number, shopper in enumerate((*shoppers, None, *shoppers)):
            await chain.buy(shopper, 1_000 * (number + 1) + 7 * day, 999)
    discount = points = 0
    async with connection(chain.office.pool) as conn:
        for (payload,) in await conn.fetch("SELECT payload FROM ledger.entry WHERE kind = 1"):
            for line in journal_pb2.Event.FromString(payload).purchase.effects:
                discount += sum(part.amount_minor for part in line.discounts)
                points += sum(part.points_minor for part in line.accruals)
    return Booked(chain.office.dsn, discount, points)


def backtest(dsn: str, file: Path, *options: str) -> dict[str, object]:
    args = ["rules", "backtest", str(file), "--dsn", dsn, "--json", *options]
    done = CliRunner().invoke(command, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def test_a_draft_that_is_the_live_version_costs_what_was_booked(booked: Booked, tmp_path: Path) -> None:
    file = tmp_path / "draft.yaml"
    file.write_text(programme("10"))
    for against, processes in (("live", "1"), ("booked", "1"), ("1", "1"), ("live", "2")):
        answer = await in_thread(backtest, booked.dsn, file, "--processes", processes, "--against", against)
        cost = answer["cost"]
        assert isinstance(cost, dict)
        assert cost["booked"] == cost["live"] == cost["draft"]
        assert (cost["draft"]["discount_minor"], cost["draft"]["points_minor"]) == (
            booked.discount_minor,
            booked.points_minor,
        )
        assert (answer["receipts"], answer["receipts_with_member"], answer["left_out"]) == (33, 30, {})
        assert answer["affected"] == {"receipts": 0, "members": 0, "skus": 0}


async def test_what_a_draft_would_have_cost(booked: Booked, tmp_path: Path) -> None:
    file, rows = tmp_path / "draft.yaml", tmp_path / "rows.csv"
    file.write_text(programme("30"))
    answer = await in_thread(backtest, booked.dsn, file, "--processes", "1", "--output", str(rows))
    assert answer["affected"] == {"receipts": 33, "members": 5, "skus": 1}
    promotions = answer["promotions"]
    assert isinstance(promotions, dict)
    cakes, few = promotions["cakes"], promotions["few"]
    assert cakes["draft"]["receipts"] == cakes["live"]["receipts"] == 33
    assert (
        2 * cakes["live"]["discount_minor"]
        < cakes["draft"]["discount_minor"]
        <= 3 * cakes["live"]["discount_minor"] + 33
    )
    assert few["live"] == few["draft"], "two a day for each member, as before"
    header, *lines = rows.read_text().splitlines()
    assert header.startswith("promotion_id,live_receipts,live_discount,live_points,draft_receipts")
    assert {line.split(",")[0] for line in lines} == {"base", "cakes", "few", "third"}


async def test_promotions_of_another_time_apply_if_asked_to(booked: Booked, tmp_path: Path) -> None:
    file = tmp_path / "draft.yaml"
    later = "  - {id: later, name: Later, valid: {from: 2027-01-01, until: 2027-01-31}, line_discount: {percent: 50}}"
    file.write_text(programme("10", more=later))
    as_dated = await in_thread(backtest, booked.dsn, file, "--processes", "1")
    assert as_dated["affected"] == {"receipts": 0, "members": 0, "skus": 0}
    days = ("--from", "2026-11-23", "--to", "2026-11-23")
    undated = await in_thread(backtest, booked.dsn, file, "--undated", "--processes", "1", *days)
    assert undated["affected"] == {"receipts": 11, "members": 5, "skus": 2}


async def in_thread(call: object, *args: object) -> dict[str, object]:
    """Run a command that has an event loop of its own."""
    import asyncio

    answer: dict[str, object] = await asyncio.to_thread(call, *args)  # type: ignore[arg-type]  # a function
    return answer


def test_the_shopper_of_a_day_is_drawn_once() -> None:
    rollout = Rollout(share_millionths=500_000, share_by=ShareBy.RECEIPTS)
    day = date(2026, 11, 22)
    assert len({rollout.counts_for(1, store, f"m|{day}") for store in ("a", "b")}) == 1
    assert datetime(2026, 11, 22, tzinfo=UTC).date() == day
