"""Merging members: whatever either could show or had belongs to the survivor, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg
import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, member_pb2

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit
from ledger.entry.books import book_of_member
from ledger.entry.model import Booked, Command
from ledger.reading.balances import BalanceAt, read_balances
from ledger.verify import verify
from server.base.clock import utc_now
from server.base.database import connection
from server.base.errors import Refused
from server.corrections.leftovers import move_leftovers
from server.corrections.merge import Merger
from server.members.found import Found
from server.members.profile import ProfileDesk
from server.members.records import MemberRow
from server.members.registry import AdminMessage
from tests.integration.back_office import BOOKS, HASHES, NOW, OLENA, BackOffice, back_office_over, connect_writer
from tests.support.commands import BONUS, Line, checkout, goods_return, hold, purchase

ANNA = member_pb2.NewMember(
    profile=member_pb2.Profile(name="Anna Koval", language="uk"),
    phone="050 765 43 21",
    card_numbers=["51000002", "51000003"],
    digital_token="wallet:anna",
)


@dataclass
class Merges:
    """A back office that merges, and a worker that books."""

    office: BackOffice
    merger: Merger
    committer: Committer
    receipts: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def merge(self, duplicate: UUID, survivor: UUID, message_id: UUID | None = None) -> MemberRow:
        """Merge with a message of its own."""
        message = AdminMessage(message_id or uuid4(), "MergeMembers", duplicate.bytes + survivor.bytes)
        return await self.merger.merge(message, duplicate, survivor, "registered twice", "Iryna", NOW)

    async def book(self, command: Command) -> Booked:
        """Book a command as a worker does."""
        outcome = await self.committer.submit(command)
        assert isinstance(outcome, Booked), outcome
        return outcome

    async def buy(self, member_id: UUID, earn: int, spend: int = 0) -> Booked:
        """Book a receipt of somebody."""
        line = Line(earned_minor=earn)
        return await self.book(
            purchase(next(self.receipts), member_id, books=BOOKS, earn=[earn], spend=spend or None, lines=[line])
        )

    async def move_leftovers(self) -> int:
        """Move on what came back to merged members."""
        return await move_leftovers(self.office.pool, BOOKS, utc_now())

    async def has(self, member_id: UUID) -> tuple[int, int]:
        """Return what somebody can spend, and owes."""
        async with connection(self.office.pool) as conn:
            found = await read_balances(conn, [(book_of_member(member_id, BOOKS), member_id)], utc_now())
        balances: list[BalanceAt] = found.get(member_id, [])
        return sum(one.available_minor for one in balances), sum(one.debt_minor for one in balances)

    async def row(self, member_id: UUID) -> MemberRow:
        """Return somebody's record."""
        return await self.office.registry.find(api.Identifier(member_id=str(member_id)))

    async def assert_sound(self) -> None:
        """The books verify, and the newest version told of every member is that of the record."""
        async with connection(self.office.pool) as conn:
            problems = [str(report.problem) for report in await verify(conn) if report.problem]
            kind = int(journal_pb2.ENTRY_KIND_MEMBER_CHANGE)
            entries = await conn.fetch("SELECT payload FROM ledger.entry WHERE kind = $1 ORDER BY book, number", kind)
            rows = await conn.fetch("SELECT member_id::text, version FROM server.member")
        assert not problems
        versions = {row["member_id"]: row["version"] for row in rows}
        changes = [journal_pb2.Event.FromString(entry["payload"]).member_change for entry in entries]
        assert {change.member_id: change.version for change in changes} == versions
        assert len(changes) == sum(versions.values())


@asynccontextmanager
async def merges_over(dsn: str) -> AsyncIterator[Merges]:
    async with back_office_over(dsn) as office:
        owner = await asyncpg.connect(dsn)
        await ensure_unit(owner, BONUS.code, BONUS.precision)
        await owner.close()
        committer = Committer(lambda: connect_writer(dsn), BOOKS, utc_now)
        try:
            yield Merges(office, Merger(office.registry, HASHES, BOOKS), committer)
        finally:
            await committer.close()


@pytest.fixture
async def merges(ledger_dsn: str) -> AsyncIterator[Merges]:
    async with merges_over(ledger_dsn) as merges:
        yield merges


@pytest.fixture
async def olena(merges: Merges) -> UUID:
    """The survivor of most tests."""
    return (await merges.office.register(OLENA)).member_id


@pytest.fixture
async def anna(merges: Merges) -> UUID:
    """The duplicate."""
    return (await merges.office.register(ANNA)).member_id


async def reason_of(call: Awaitable[object]) -> str:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.reason_name


async def test_a_phone_that_came_with_a_merge_can_become_the_first(merges: Merges, olena: UUID, anna: UUID) -> None:
    merged = await merges.merge(anna, olena)
    assert (merged.phone, merged.further_phones) == ("+380501234567", ("+380507654321",))
    request = member_pb2.ChangeMemberRequest(message_id=str(uuid4()), member_id=str(olena), phone="050 765 43 21")
    profiles = ProfileDesk(merges.office.registry, HASHES, BOOKS)
    changed = await profiles.change(AdminMessage.of(request.message_id, request), olena, request, NOW)
    assert (changed.phone, changed.further_phones, changed.name) == ("+380507654321", (), "Olena Koval")
    assert (await merges.office.registry.find(api.Identifier(phone="+380507654321"))).member_id == olena
    assert await reason_of(merges.office.registry.find(api.Identifier(phone="+380501234567"))) == "NOT_FOUND"
    await merges.assert_sound()


def same_book(one: UUID, inside: bool) -> UUID:
    """Return a new id in the same book as somebody's, or in another one."""
    ids = (uuid4() for _ in itertools.count())
    return next(new for new in ids if (book_of_member(new, BOOKS) == book_of_member(one, BOOKS)) == inside)


# --- the record and the identifiers -------------------------------------------------------------------------------


async def test_every_identifier_of_both_leads_to_the_survivor(merges: Merges, olena: UUID, anna: UUID) -> None:
    await merges.merge(anna, olena)
    async with merges.office.directory() as directory:
        for identifier in (
            *(api.Identifier(card_number=number) for number in ("51000001", "51000002", "51000003")),
            *(api.Identifier(phone=phone) for phone in ("+380501234567", "+380507654321")),
            *(api.Identifier(digital_token=token) for token in ("wallet:olena", "wallet:anna")),
        ):
            found = await directory.find(identifier)
            assert isinstance(found, Found), identifier
            assert (found.member.member_id, found.member.all_ids) == (olena, (olena, anna))
    await merges.assert_sound()


async def test_survivor_keeps_what_it_has_and_takes_what_it_lacks(merges: Merges, olena: UUID) -> None:
    bare = (await merges.office.register(member_pb2.NewMember(card_numbers=["51000009"]))).member_id
    survivor = await merges.merge(olena, bare)
    assert (survivor.name, str(survivor.birthday), survivor.phone) == ("Olena Koval", "1990-02-28", "+380501234567")
    assert (survivor.further_phones, survivor.further_tokens) == ((), ())
    assert [card.number for card in survivor.cards] == ["51000009", "51000001"]
    anna = (await merges.office.register(ANNA)).member_id
    survivor = await merges.merge(anna, bare)
    assert (survivor.name, survivor.phone, survivor.version) == ("Olena Koval", "+380501234567", 3)
    assert (survivor.further_phones, survivor.further_tokens) == (("+380507654321",), ("wallet:anna",))
    assert survivor.merged_from == (olena, anna)
    await merges.assert_sound()


async def test_the_merged_row_holds_no_personal_data_any_more(merges: Merges, olena: UUID, anna: UUID) -> None:
    await merges.merge(anna, olena)
    text = await merges.office.pool.fetchval("SELECT m::text FROM server.member m WHERE member_id = $1", anna)
    assert not [word for word in ("Anna", "0507654321", "wallet", "5100000") if word in text], text
    row = await merges.row(anna)
    assert (row.status, row.merged_into, row.version) == (api.MEMBER_STATUS_MERGED, olena, 2)


async def test_replaced_and_blocked_cards_stay_what_they_were(merges: Merges, olena: UUID, anna: UUID) -> None:
    await merges.office.replace_card(await merges.row(anna), "51000002", "51000004")
    await merges.merge(anna, olena)
    async with merges.office.directory() as directory:
        lookup = await directory.look_up(api.Identifier(card_number="51000002"))
    assert lookup.refusal is not None
    assert lookup.refusal.reason_name == "CARD_REPLACED"
    assert lookup.found is not None
    assert lookup.found.member.member_id == olena
    card = next(card for card in (await merges.row(olena)).cards if card.number == "51000002")
    assert card.status == member_pb2.CARD_STATUS_REPLACED
    await merges.office.replace_card(await merges.row(olena), "51000003", "51000005")
    await merges.assert_sound()


async def test_the_id_of_a_merged_member_is_refused_and_says_who_survives(
    merges: Merges, olena: UUID, anna: UUID
) -> None:
    await merges.merge(anna, olena)
    async with merges.office.directory() as directory:
        found, refusal = await directory.look_up(api.Identifier(member_id=str(anna)))
        assert refusal is not None
        assert (refusal.reason_name, str(olena) in refusal.message) == ("MEMBER_MERGED", True)
        assert found is not None
        assert found.member.member_id == olena
        await merges.office.set_status(await merges.row(olena), api.MEMBER_STATUS_BLOCKED)
        found, refusal = await directory.look_up(api.Identifier(member_id=str(anna)))
        assert refusal is not None
        assert refusal.reason_name == "MEMBER_BLOCKED", "the survivor's own state counts"


async def test_a_merged_member_cannot_be_changed(merges: Merges, olena: UUID, anna: UUID) -> None:
    await merges.merge(anna, olena)
    row = await merges.row(anna)
    assert await reason_of(merges.office.set_status(row, api.MEMBER_STATUS_ACTIVE)) == "MEMBER_MERGED"
    assert await reason_of(merges.office.replace_card(row, "", "51000006")) == "MEMBER_MERGED"
    again = member_pb2.NewMember(member_id=str(anna), card_numbers=["51000002"])
    (outcome,) = await merges.office.registry.import_members([again], NOW)
    assert isinstance(outcome, Refused)
    assert (outcome.reason_name, outcome.violations[0][0]) == ("MEMBER_MERGED", "member_id")
    assert await merges.row(anna) == row


# --- what is refused ----------------------------------------------------------------------------------------------


async def test_merges_that_make_no_sense_are_refused_by_name(merges: Merges, olena: UUID, anna: UUID) -> None:
    third = (await merges.office.register(member_pb2.NewMember(card_numbers=["51000009"]))).member_id
    blocked = await merges.office.register(member_pb2.NewMember(card_numbers=["51000008"]))
    await merges.office.set_status(blocked, api.MEMBER_STATUS_BLOCKED)
    await merges.merge(third, olena)
    before = await merges.office.count("ledger.entry")
    for duplicate, survivor, reason in (
        (anna, anna, "INVALID_REQUEST"),
        (uuid4(), olena, "NOT_FOUND"),
        (anna, uuid4(), "NOT_FOUND"),
        (third, olena, "MEMBER_MERGED"),
        (third, anna, "MEMBER_MERGED"),
        (anna, third, "MEMBER_MERGED"),
        (olena, third, "MEMBER_MERGED"),
        (anna, blocked.member_id, "MEMBER_BLOCKED"),
        (blocked.member_id, olena, "MEMBER_BLOCKED"),
    ):
        assert await reason_of(merges.merge(duplicate, survivor)) == reason
    assert await merges.office.count("ledger.entry") == before
    await merges.assert_sound()


async def test_same_message_again_merges_nothing(merges: Merges, olena: UUID, anna: UUID) -> None:
    message_id = uuid4()
    rows = await asyncio.gather(*(merges.merge(anna, olena, message_id) for _ in range(6)))
    assert all(row == rows[0] for row in rows)
    assert await reason_of(merges.merge(olena, anna, message_id)) == "MESSAGE_ID_REUSED"
    await merges.assert_sound()


# --- points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [pytest.param(True, id="within a book"), pytest.param(False, id="across two")])
async def test_points_debt_and_holds_go_to_the_survivor(merges: Merges, anna: UUID, inside: bool) -> None:
    survivor = same_book(anna, inside)
    await merges.office.register(member_pb2.NewMember(member_id=str(survivor)))
    await merges.buy(anna, 500)
    await merges.buy(survivor, 70)
    held = await merges.book(hold(checkout(1), anna, 200, books=BOOKS))
    await merges.merge(anna, survivor)
    assert (await merges.has(anna), await merges.has(survivor)) == ((0, 0), (570, 0))
    how = await merges.office.pool.fetchval("SELECT how FROM ledger.hold WHERE number = $1", held.number)
    assert how == journal_pb2.HOLD_END_KIND_MERGED
    await merges.assert_sound()


async def test_a_chain_of_merges_ends_at_its_last_member(merges: Merges, olena: UUID, anna: UUID) -> None:
    last = (await merges.office.register(member_pb2.NewMember(card_numbers=["51000009"]))).member_id
    await merges.buy(anna, 100)
    await merges.merge(anna, olena)
    await merges.buy(olena, 20)
    survivor = await merges.merge(olena, last)
    assert survivor.merged_from == (olena, anna)
    assert (survivor.phone, survivor.further_phones) == ("+380501234567", ("+380507654321",))
    assert await merges.has(last) == (120, 0)
    async with merges.office.directory() as directory:
        for identifier in (api.Identifier(card_number="51000002"), api.Identifier(phone="+380507654321")):
            answer = await directory.find(identifier)
            assert isinstance(answer, Found)
            assert answer.member.member_id == last
        found, refusal = await directory.look_up(api.Identifier(member_id=str(anna)))
        assert refusal is not None
        assert refusal.reason_name == "MEMBER_MERGED"
        assert found is not None
        assert found.member.member_id == last
    await merges.buy(anna, 3)  # a lane that knew her before both merges
    assert await merges.move_leftovers() == 2, "a step for each merge"
    assert (await merges.has(last), await merges.has(anna), await merges.has(olena)) == ((123, 0), (0, 0), (0, 0))
    await merges.assert_sound()


async def test_a_return_after_the_merge_reaches_the_survivor(merges: Merges, olena: UUID, anna: UUID) -> None:
    bought = await merges.buy(anna, 500)
    await merges.merge(anna, olena)
    await merges.buy(olena, 30)
    await merges.book(goods_return(1000, bought, terms={}))
    assert (await merges.has(anna))[1] == 500, "the points that it had earned are gone from here"
    assert await merges.move_leftovers() == 1
    assert (await merges.has(anna), await merges.has(olena)) == ((0, 0), (30, 0))
    assert await merges.move_leftovers() == 0
    await merges.assert_sound()


FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON ledger.entry FOR EACH ROW
WHEN (NEW.member_id = '{survivor}' AND NEW.kind = {kind}) EXECUTE FUNCTION fail();
"""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(journal_pb2.ENTRY_KIND_TRANSFER, id="as points arrive"),
        pytest.param(journal_pb2.ENTRY_KIND_MEMBER_CHANGE, id="as the last entry is written"),
    ],
)
async def test_a_merge_that_fails_at_its_end_has_done_nothing(
    merges: Merges, olena: UUID, anna: UUID, kind: int, ledger_dsn: str
) -> None:
    await merges.buy(anna, 100)
    before = (await merges.row(anna), await merges.row(olena), await merges.office.count("ledger.entry"))
    owner = await asyncpg.connect(ledger_dsn)
    await owner.execute(FAIL.format(survivor=olena, kind=kind))
    with pytest.raises(asyncpg.RaiseError, match="the disk is full"):
        await merges.merge(anna, olena)
    assert (await merges.row(anna), await merges.row(olena), await merges.office.count("ledger.entry")) == before
    await merges.assert_sound()
    await owner.execute("DROP TRIGGER fail ON ledger.entry")
    await owner.close()
    await merges.merge(anna, olena)
    assert await merges.has(olena) == (100, 0)
    await merges.assert_sound()


# --- races --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_what_the_duplicate_buys_at_that_moment_is_not_lost(
    merges: Merges, olena: UUID, anna: UUID, seed: int
) -> None:
    """Lanes find the member by card and book a moment later, while the back office merges."""
    dice = random.Random(seed)
    merged = asyncio.Event()
    cards = ["51000001", "51000002", "51000003"]
    earned: list[int] = []
    spent: list[int] = []

    async with merges.office.directory() as directory:

        async def lane() -> None:
            after = 0
            while after < 4:
                after += merged.is_set()
                found = await directory.find(api.Identifier(card_number=dice.choice(cards)))
                assert isinstance(found, Found)
                points = dice.randint(1, 50)
                booked = await merges.buy(found.member.member_id, points, spend=dice.choice([0, 5, 40]))
                settlement = journal_pb2.Event.FromString(booked.event).settlement
                earned.append(settlement.accrual_points_minor)
                spent.append(settlement.spent_points_minor)

        async def merge() -> None:
            while len(earned) < 10 + 5 * seed:
                await asyncio.sleep(0)
            await merges.merge(anna, olena)
            merged.set()

        await asyncio.gather(*(lane() for _ in range(6)), merge())
    await merges.move_leftovers()
    assert (await merges.has(anna), await merges.has(olena)) == ((0, 0), (sum(earned) - sum(spent), 0))
    await merges.assert_sound()


async def test_merges_in_a_circle_end_without_deadlock_and_with_one_survivor(merges: Merges) -> None:
    people = [
        (await merges.office.register(member_pb2.NewMember(card_numbers=[f"5100001{number}"]))).member_id
        for number in range(5)
    ]
    for member_id in people:
        await merges.buy(member_id, 10)
    circle = [merges.merge(one, people[(place + 1) % 5]) for place, one in enumerate(people)]
    outcomes = await asyncio.gather(*circle, return_exceptions=True)
    refused = [outcome for outcome in outcomes if not isinstance(outcome, MemberRow)]
    assert {outcome.reason_name for outcome in refused if isinstance(outcome, Refused)} == {"MEMBER_MERGED"}, refused
    rows = {member_id: await merges.row(member_id) for member_id in people}
    survivors = {one for one, row in rows.items() if row.merged_into is None}
    assert len(survivors) == len(refused)
    for one in survivors:
        assert await merges.has(one) == (10 * (1 + len(rows[one].merged_from)), 0)
    assert sum(len(rows[one].cards) for one in survivors) == 5
    await merges.assert_sound()
