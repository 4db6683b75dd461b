"""Coupons, segments and offers over a real database: loaded in batches, found by tills, moved by merges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2, rights_pb2

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit
from ledger.entry.books import book_of_member
from ledger.entry.model import Booked, Command, CouponClaim, NewCoupon
from server.base.clock import utc_now
from server.base.errors import Refused, reason_name
from server.corrections.merge import Merger
from server.members.found import Found, MemberRecord, OfferRow
from server.members.registry import AdminMessage
from server.rights import audience as audience_module
from server.rights.audience import AudienceDesk
from server.rights.codes import is_own_code
from server.rights.coupon_desk import CouponDesk, Loaded
from server.rights.coupons import MOST_USABLE, CouponReader, CouponRecord
from server.rights.people import MemberFinder, Person
from server.rights.showing import RightsViewer
from tests.integration.back_office import (
    BOOKS,
    HASHES,
    NOW,
    OLENA,
    READER,
    BackOffice,
    back_office_over,
    connect_writer,
)
from tests.support.commands import BONUS, checkout, hold, promoted, purchase

TODAY = NOW.date()
YESTERDAY, TOMORROW = TODAY - timedelta(days=1), TODAY + timedelta(days=1)
ANNA = member_pb2.NewMember(phone="050 765 43 21", card_numbers=["51000002"])
BY_CARD = api.Identifier(card_number="51000001")
BY_PHONE = api.Identifier(phone="050 123 45 67")
BY_TOKEN = api.Identifier(digital_token="wallet:olena")
NOBODY = api.Identifier(card_number="51999999")
ADD, REMOVE, REPLACE = (
    rights_pb2.SEGMENT_ACTION_ADD,
    rights_pb2.SEGMENT_ACTION_REMOVE,
    rights_pb2.SEGMENT_ACTION_REPLACE,
)


def coupon(code: str, member: api.Identifier | None = None, **terms: Any) -> rights_pb2.CouponRow:
    """Return a row of a batch."""
    return rights_pb2.CouponRow(code=code, member=member, **terms)


def reasons(refused: dict[int, Refused] | Any) -> dict[int, str]:
    """Return why rows were refused, by their numbers."""
    return {index: reason_name(refusal.reason) for index, refusal in refused.items()}


@dataclass
class Rights:
    """A back office with all that keeps and reads rights, and a worker that books."""

    office: BackOffice
    coupons: CouponDesk
    audience: AudienceDesk
    viewer: RightsViewer
    reader: CouponReader
    merger: Merger
    committer: Committer

    async def load(self, *rows: rights_pb2.CouponRow, series: str = "spring") -> Loaded:
        """Load coupons of a series."""
        return await self.coupons.load(series, rows)

    async def usable(self, member_id: UUID, day: date = TODAY, merged_from: tuple[UUID, ...] = ()) -> list[str]:
        """Return the codes that a member can use."""
        found = await self.reader.usable_of(book_of_member(member_id, BOOKS), member_id, day, merged_from)
        return [record.code for record in found]

    async def put(
        self, segment: str, action: rights_pb2.SegmentAction, *members: api.Identifier, load_id: str = ""
    ) -> tuple[int, dict[int, str]]:
        """Change a segment; return how many members changed, and why rows were refused."""
        done = await self.audience.put_segment(segment, action, load_id, members)
        return done.members, reasons(done.refused)

    async def finish(self, segment: str, load_id: str) -> int:
        """End a replacement, in as many calls as it takes."""
        removed, last = await self.audience.finish_segment(segment, UUID(load_id), None)
        while last is not None:
            more, last = await self.audience.finish_segment(segment, UUID(load_id), last)
            removed += more
        return removed

    async def offer(
        self, promotion_id: str, member: api.Identifier, first: date | None = None, last: date | None = None
    ) -> tuple[int, dict[int, str]]:
        """Make an offer."""
        row = rights_pb2.OfferAssignment(
            promotion_id=promotion_id,
            member=member,
            valid_from=first.isoformat() if first else "",
            valid_until=last.isoformat() if last else "",
        )
        done = await self.audience.put_offers([row], TODAY)
        return done.members, reasons(done.refused)

    async def record(self, identifier: api.Identifier = BY_CARD) -> MemberRecord:
        """Return what a checkout knows of a member."""
        async with self.office.directory() as directory:
            found = await directory.find(identifier)
        assert isinstance(found, Found), found
        return found.member

    async def book(self, command: Command) -> Booked:
        """Book a command as a worker does."""
        outcome = await self.committer.submit(command)
        assert isinstance(outcome, Booked), outcome
        return outcome

    async def merge(self, duplicate: UUID, survivor: UUID) -> None:
        """Merge two members."""
        message = AdminMessage(uuid4(), "MergeMembers", duplicate.bytes + survivor.bytes)
        await self.merger.merge(message, duplicate, survivor, "registered twice", "Iryna", NOW)


@pytest.fixture
async def rights(ledger_dsn: str) -> AsyncIterator[Rights]:
    async with back_office_over(ledger_dsn) as office:
        owner = await asyncpg.connect(ledger_dsn)
        await ensure_unit(owner, BONUS.code, BONUS.precision)
        await owner.close()
        finder = MemberFinder(READER, HASHES, BOOKS)
        reader = CouponReader(lambda: connect_writer(ledger_dsn), BOOKS)
        committer = Committer(lambda: connect_writer(ledger_dsn), BOOKS, utc_now)
        try:
            yield Rights(
                office,
                CouponDesk(office.pool, finder, HASHES),
                AudienceDesk(office.pool, finder),
                RightsViewer(office.pool, finder, BOOKS),
                reader,
                Merger(office.registry, HASHES, BOOKS),
                committer,
            )
        finally:
            await committer.close()
            await reader.close()


@pytest.fixture
async def olena(rights: Rights) -> UUID:
    return (await rights.office.register(OLENA)).member_id


@pytest.fixture
async def anna(rights: Rights) -> UUID:
    return (await rights.office.register(ANNA)).member_id


# --- coupons ------------------------------------------------------------------------------------------------------


async def test_loaded_coupons_are_found_as_they_may_be_typed(rights: Rights, olena: UUID) -> None:
    loaded = await rights.load(
        coupon("bearer 1"),
        coupon("MINE-1", BY_PHONE, uses=3, valid_from=TODAY.isoformat(), valid_until=TOMORROW.isoformat()),
    )
    assert loaded == (2, 0, {})
    assert await rights.reader.look_up(["Bearer1", " mine-1 ", "unheard", "zero\x00byte"]) == {
        "BEARER1": CouponRecord("BEARER1", "spring", None, 1, None, None, False),
        "MINE-1": CouponRecord("MINE-1", "spring", olena, 3, TODAY, TOMORROW, False),
    }


async def test_same_batch_again_changes_nothing(rights: Rights, olena: UUID) -> None:
    rows = [coupon("A1"), coupon("A2", BY_CARD), coupon("A3", uses=2)]
    assert await rights.load(*rows) == (3, 0, {})
    assert await rights.load(*rows, coupon("A4")) == (1, 3, {})


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        pytest.param(coupon("B1", NOBODY), "NOT_FOUND", "member", id="member is nobody"),
        pytest.param(coupon("B1", api.Identifier(phone="12345")), "PHONE_INVALID", "member.phone", id="no phone"),
        pytest.param(coupon("B1", api.Identifier()), "INVALID_REQUEST", "member.kind", id="member without a name"),
        pytest.param(coupon(""), "INVALID_REQUEST", "code", id="no code"),
        pytest.param(coupon("  "), "INVALID_REQUEST", "code", id="code of spaces"),
        pytest.param(coupon("x\x00y"), "INVALID_REQUEST", "code", id="control character"),
        pytest.param(coupon("good 1"), "INVALID_REQUEST", "code", id="twice in the batch"),
        pytest.param(coupon("B1", uses=1001), "INVALID_REQUEST", "uses", id="too many uses"),
        pytest.param(coupon("B1", valid_until="2026-02-30"), "INVALID_REQUEST", "valid_until", id="no such day"),
        pytest.param(
            coupon("B1", valid_from="2026-02-02", valid_until="2026-02-01"),
            "INVALID_REQUEST",
            "valid_until",
            id="ends before it begins",
        ),
        pytest.param(coupon("TAKEN"), "ALREADY_EXISTS", "code", id="code of another series"),
    ],
)
async def test_bad_row_names_its_field_and_does_not_touch_the_others(
    rights: Rights, row: rights_pb2.CouponRow, reason: str, field: str
) -> None:
    await rights.load(coupon("TAKEN"), series="autumn")
    loaded = await rights.load(coupon("GOOD1"), row, coupon("GOOD2"))
    assert loaded.added == 2
    assert reasons(loaded.refused) == {1: reason}
    assert loaded.refused[1].violations[0][0] == field
    assert set(await rights.reader.look_up(["GOOD1", "GOOD2", "B1"])) == {"GOOD1", "GOOD2"}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(coupon("C1", BY_CARD), id="a member's"),
        pytest.param(coupon("C1", uses=2), id="more uses"),
        pytest.param(coupon("C1", valid_until=TOMORROW.isoformat()), id="other days"),
    ],
)
async def test_coupon_that_was_given_out_stays_what_it_is(
    rights: Rights, olena: UUID, row: rights_pb2.CouponRow
) -> None:
    await rights.load(coupon("C1"))
    before = await rights.reader.look_up(["C1"])
    assert reasons((await rights.load(row)).refused) == {0: "ALREADY_EXISTS"}
    assert await rights.reader.look_up(["C1"]) == before


async def test_two_loads_of_the_same_codes_at_once_store_each_once(rights: Rights) -> None:
    rows = [coupon(f"R{number}") for number in range(500)]
    one, other = await asyncio.gather(rights.load(*rows), rights.load(*reversed(rows)))
    assert one.added + other.added == one.unchanged + other.unchanged == 500
    assert not one.refused
    assert not other.refused


def generation(count: int = 3, **terms: Any) -> rights_pb2.GenerateCouponsRequest:
    """Return a request for codes."""
    return rights_pb2.GenerateCouponsRequest(request_id=str(uuid4()), series="sorry", count=count, **terms)


async def test_generated_coupons_are_stored_and_the_same_when_asked_again(rights: Rights, olena: UUID) -> None:
    request = generation(200, member=BY_CARD, uses=2, valid_until=TOMORROW.isoformat())
    codes = await rights.coupons.generate(UUID(request.request_id), request, "Iryna", NOW)
    assert len(set(codes)) == 200
    assert all(map(is_own_code, codes))
    found = await rights.reader.look_up(codes)
    assert set(found.values()) == {CouponRecord(code, "sorry", olena, 2, None, TOMORROW, False) for code in codes}
    again, at_once = await asyncio.gather(
        *(rights.coupons.generate(UUID(request.request_id), request, "Iryna", NOW) for _ in range(2))
    )
    assert codes == again == at_once
    assert await rights.office.count("server.coupon") == 200
    other = generation()
    assert not set(await rights.coupons.generate(UUID(other.request_id), other, "Iryna", NOW)) & set(codes)


async def test_request_id_of_other_coupons_is_refused(rights: Rights) -> None:
    request = generation()
    await rights.coupons.generate(UUID(request.request_id), request, "Iryna", NOW)
    request.count = 4
    with pytest.raises(Refused) as refused:
        await rights.coupons.generate(UUID(request.request_id), request, "Iryna", NOW)
    assert refused.value.reason_name == "MESSAGE_ID_REUSED"


async def test_codes_that_are_taken_by_chance_are_drawn_anew(rights: Rights) -> None:
    request = generation(5)
    desk = CouponDesk(rights.office.pool, MemberFinder(READER, HASHES, BOOKS), HASHES)
    would_be = desk._codes(UUID(request.request_id), 0, 5)  # what a first attempt draws
    await rights.load(coupon(would_be[2]), series="autumn")
    codes = await desk.generate(UUID(request.request_id), request, "Iryna", NOW)
    assert not set(codes) & set(would_be)
    assert await desk.generate(UUID(request.request_id), request, "Iryna", NOW) == codes


async def test_blocked_codes_and_series_say_so_until_they_are_good_again(rights: Rights) -> None:
    await rights.load(coupon("D1"), coupon("D2"))

    async def blocked() -> list[str]:
        return sorted(code for code, one in (await rights.reader.look_up(["D1", "D2"])).items() if one.blocked)

    changed, refused = await rights.coupons.block(["d1", "D9"], "Iryna", NOW)
    assert (changed, reasons(refused), await blocked()) == (1, {1: "COUPON_UNKNOWN"}, ["D1"])
    assert (await rights.coupons.block(["D1"], "Iryna", NOW))[0] == 0
    assert await rights.coupons.block_series("spring", "Iryna", NOW) == 1
    assert await blocked() == ["D1", "D2"]
    assert await rights.coupons.unblock_series("spring") == 1
    assert (await rights.coupons.unblock(["D1", "D2"]))[0] == 1
    assert await blocked() == []


async def test_code_that_cannot_be_one_is_unknown(rights: Rights) -> None:
    for text in ("zero\x00byte", "  "):
        with pytest.raises(Refused) as refused:
            await rights.viewer.coupon(text)
        assert refused.value.reason_name == "COUPON_UNKNOWN"
        assert reasons((await rights.coupons.block([text], "Iryna", NOW))[1]) == {0: "COUPON_UNKNOWN"}


async def test_mistyped_code_of_ours_is_named_as_such(rights: Rights) -> None:
    request = generation(1)
    [code] = await rights.coupons.generate(UUID(request.request_id), request, "Iryna", NOW)
    mistyped = ("3" if code[0] == "2" else "2") + code[1:]
    with pytest.raises(Refused, match="mistyped"):
        await rights.viewer.coupon(mistyped)


# --- what a member can use ----------------------------------------------------------------------------------------


async def test_member_can_use_own_coupons_of_the_day_those_that_lapse_first(
    rights: Rights, olena: UUID, anna: UUID
) -> None:
    days = {"from": TODAY.isoformat(), "yesterday": YESTERDAY.isoformat(), "tomorrow": TOMORROW.isoformat()}
    await rights.load(
        coupon("LASTING", BY_CARD),
        coupon("ENDING", BY_PHONE, valid_from=days["from"], valid_until=days["from"]),
        coupon("LATER", BY_TOKEN, valid_until=days["tomorrow"]),
        coupon("LAPSED", BY_CARD, valid_until=days["yesterday"]),
        coupon("EARLY", BY_CARD, valid_from=days["tomorrow"]),
        coupon("STOPPED", BY_CARD),
        coupon("BEARER"),
        coupon("ANNAS", api.Identifier(member_id=str(anna))),
    )
    await rights.load(coupon("SERIES", BY_CARD), series="withdrawn")
    await rights.coupons.block(["STOPPED"], "Iryna", NOW)
    await rights.coupons.block_series("withdrawn", "Iryna", NOW)
    olenas, annas = await asyncio.gather(rights.usable(olena), rights.usable(anna))
    assert (olenas, annas) == (["ENDING", "LATER", "LASTING"], ["ANNAS"])
    assert await rights.usable(olena, TOMORROW) == ["LATER", "EARLY", "LASTING"]


async def test_no_more_coupons_are_listed_than_a_till_can_show(rights: Rights, olena: UUID) -> None:
    await rights.load(*(coupon(f"E{number:03}", BY_CARD) for number in range(MOST_USABLE + 5)))
    assert await rights.usable(olena) == [f"E{number:03}" for number in range(MOST_USABLE)]


async def test_uses_count_down_and_the_hotline_sees_by_which_receipt(rights: Rights, olena: UUID) -> None:
    await rights.load(coupon("TWICE", BY_CARD, uses=2), coupon("ONCE", BY_CARD))
    await rights.book(promoted(purchase(1, olena, books=BOOKS), coupons={"TWICE": 2, "ONCE": 1}))
    assert await rights.usable(olena) == ["TWICE"]
    used, open_ = await rights.viewer.coupon("once"), await rights.viewer.coupon("twice")
    assert (used.state, open_.state) == (rights_pb2.COUPON_STATE_USED, rights_pb2.COUPON_STATE_OPEN)
    assert (open_.taken_count, used.taken[0].receipt_key.receipt_number, used.taken[0].held) == (1, 1, False)
    assert used.taken[0].member_id == str(olena)
    await rights.book(promoted(purchase(2, olena, books=BOOKS), coupons={"TWICE": 2}))
    assert await rights.usable(olena) == []
    assert [use.receipt_key.receipt_number for use in (await rights.viewer.coupon("TWICE")).taken] == [1, 2]


async def test_coupon_that_a_checkout_keeps_is_shown_with_its_lane(rights: Rights, olena: UUID) -> None:
    await rights.load(coupon("KEPT", BY_CARD))
    keep = hold(checkout("c1", lane="7"), olena, 0, books=BOOKS)
    await rights.book(replace(keep, claims=(CouponClaim("KEPT", 1),)))
    kept = await rights.viewer.coupon("KEPT")
    assert (kept.state, kept.taken[0].held, kept.taken[0].terminal_id) == (rights_pb2.COUPON_STATE_HELD, True, "7")
    assert await rights.usable(olena) == []


async def test_coupon_of_a_receipt_is_found_like_a_loaded_one(rights: Rights, olena: UUID) -> None:
    issued = NewCoupon("THANKS1", "thanks", TODAY, TOMORROW)
    await rights.book(promoted(purchase(1, olena, books=BOOKS), issued=[issued]))
    assert await rights.reader.look_up(["thanks1"]) == {
        "THANKS1": CouponRecord("THANKS1", "thanks", olena, 1, TODAY, TOMORROW, False)
    }
    assert await rights.usable(olena) == ["THANKS1"]
    assert (await rights.viewer.coupon("THANKS1")).issued
    assert reasons((await rights.load(coupon("THANKS1"))).refused) == {0: "ALREADY_EXISTS"}
    await rights.coupons.block_series("thanks", "Iryna", NOW)
    assert await rights.usable(olena) == []


# --- segments -----------------------------------------------------------------------------------------------------


async def test_segments_are_in_effect_for_the_next_look_up(rights: Rights, olena: UUID, anna: UUID) -> None:
    assert (await rights.record()).segments == frozenset()
    by_id = api.Identifier(member_id=str(anna))
    assert await rights.put("pensioners", ADD, BY_CARD, BY_PHONE, NOBODY, by_id) == (2, {2: "NOT_FOUND"})
    assert await rights.put("vegans", ADD, BY_CARD) == (1, {})
    assert await rights.put("vegans", ADD, BY_CARD) == (0, {})
    assert (await rights.record()).segments == {"pensioners", "vegans"}
    assert (await rights.record(by_id)).segments == {"pensioners"}
    assert await rights.audience.count_segments() == [("pensioners", 2), ("vegans", 1)]
    assert await rights.put("pensioners", REMOVE, BY_TOKEN) == (1, {})
    assert await rights.put("pensioners", REMOVE, BY_TOKEN) == (0, {})
    assert (await rights.record()).segments == {"vegans"}


async def test_replaced_segment_has_old_and_new_members_until_it_is_finished(
    rights: Rights, olena: UUID, anna: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "MEMBERS_PER_FINISH", 2)
    crowd = [await rights.office.register(member_pb2.NewMember(card_numbers=[f"511{n:05}"])) for n in range(9)]
    by_card = [api.Identifier(card_number=row.cards[0].number) for row in crowd]
    by_anna = api.Identifier(member_id=str(anna))
    await rights.put("vip", ADD, BY_CARD, *by_card)
    await rights.put("other", ADD, *by_card)
    load_id = str(uuid4())
    assert await rights.put("vip", REPLACE, by_anna, load_id=load_id) == (1, {})
    assert await rights.put("vip", REPLACE, by_card[4], by_anna, load_id=load_id.upper()) == (0, {})
    assert dict(await rights.audience.count_segments()) == {"vip": 11, "other": 9}
    assert await rights.finish("vip", load_id) == 9
    assert dict(await rights.audience.count_segments()) == {"vip": 2, "other": 9}
    assert await rights.finish("vip", load_id) == 0
    assert (await rights.record(by_anna)).segments == {"vip"}
    assert (await rights.record(by_card[4])).segments == {"vip", "other"}
    assert (await rights.record(by_card[5])).segments == {"other"}


async def test_member_has_no_more_segments_than_a_look_up_should_read(
    rights: Rights, olena: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "MOST_SEGMENTS", 2)
    for segment in ("a", "b"):
        await rights.put(segment, ADD, BY_CARD)
    assert await rights.put("c", ADD, BY_CARD) == (0, {0: "INVALID_REQUEST"})
    assert await rights.put("b", ADD, BY_CARD) == (0, {})
    await rights.put("a", REMOVE, BY_CARD)
    assert await rights.put("c", ADD, BY_CARD) == (1, {})


# --- offers -------------------------------------------------------------------------------------------------------


async def test_offers_are_made_changed_and_taken_away(rights: Rights, olena: UUID) -> None:
    assert await rights.offer("cakes", BY_CARD, TODAY, TOMORROW) == (1, {})
    assert await rights.offer("coffee", BY_PHONE) == (1, {})
    assert await rights.offer("coffee", BY_PHONE) == (0, {})
    assert await rights.offer("tea", NOBODY) == (0, {0: "NOT_FOUND"})
    assert await rights.offer("tea", BY_CARD, TOMORROW, TODAY) == (0, {0: "INVALID_REQUEST"})
    offers = {OfferRow("cakes", TODAY, TOMORROW), OfferRow("coffee", None, None)}
    assert set((await rights.record()).offers) == offers
    assert await rights.offer("cakes", BY_CARD, None, TODAY) == (1, {})
    assert OfferRow("cakes", None, TODAY) in (await rights.record()).offers
    gone = [rights_pb2.OfferAssignment(promotion_id=one, member=BY_CARD) for one in ("cakes", "unheard")]
    assert (await rights.audience.remove_offers(gone)).members == 1
    assert (await rights.record()).offers == (OfferRow("coffee", None, None),)


async def test_offers_that_ended_long_ago_are_forgotten(rights: Rights, olena: UUID) -> None:
    await rights.offer("long-ago", BY_CARD, None, TODAY - timedelta(days=32))
    await rights.offer("lately", BY_CARD, None, TODAY - timedelta(days=31))
    assert await rights.offer("now", BY_CARD) == (1, {})
    assert {offer.promotion_id for offer in (await rights.record()).offers} == {"lately", "now"}


async def test_member_has_no_more_offers_than_a_look_up_should_read(
    rights: Rights, olena: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "MOST_OFFERS", 2)
    rows = [rights_pb2.OfferAssignment(promotion_id=one, member=BY_CARD) for one in ("a", "b", "c", "a")]
    done = await rights.audience.put_offers(rows, TODAY)
    assert (done.members, reasons(done.refused)) == (1, {2: "INVALID_REQUEST"})
    assert reasons((await rights.audience.put_offers(rows[2:], TODAY)).refused) == {0: "INVALID_REQUEST"}


# --- merges -------------------------------------------------------------------------------------------------------


async def test_rights_of_a_merged_member_are_the_survivors(rights: Rights, olena: UUID, anna: UUID) -> None:
    by_anna = api.Identifier(card_number="51000002")
    await rights.load(coupon("ANNAS", by_anna), coupon("OLENAS", BY_CARD))
    await rights.book(promoted(purchase(1, anna, books=BOOKS), issued=[NewCoupon("GIVEN", "thanks", TODAY, None)]))
    await rights.put("vegans", ADD, by_anna, BY_CARD)
    await rights.put("vip", ADD, by_anna)
    await rights.offer("cakes", by_anna, TODAY, TOMORROW)
    await rights.offer("coffee", by_anna, TODAY, TOMORROW)
    await rights.offer("coffee", BY_CARD)
    await rights.merge(anna, olena)
    record = await rights.record(by_anna)
    assert record.member_id == olena
    assert record.segments == {"vegans", "vip"}
    assert set(record.offers) == {OfferRow("cakes", TODAY, TOMORROW), OfferRow("coffee", None, None)}
    assert await rights.usable(olena, merged_from=record.merged_from) == ["ANNAS", "GIVEN", "OLENAS"]
    assert all(one.member_id in record.all_ids for one in (await rights.reader.look_up(["ANNAS", "GIVEN"])).values())
    assert await rights.load(coupon("ANNAS", by_anna)) == (0, 1, {})
    shown = await rights.viewer.of_member(by_anna)
    assert (shown.member_id, [one.code for one in shown.coupons]) == (str(olena), ["ANNAS", "GIVEN", "OLENAS"])
    by_old_id = api.Identifier(member_id=str(anna))
    assert await rights.put("late", ADD, by_old_id) == (1, {})
    assert "late" in (await rights.record()).segments


async def test_merge_and_segment_at_the_same_moment_lose_nothing(rights: Rights, olena: UUID) -> None:
    for number in range(10):
        card = f"512{number:05}"
        other = (await rights.office.register(member_pb2.NewMember(card_numbers=[card]))).member_id
        by_id = api.Identifier(member_id=str(other))
        await asyncio.gather(rights.merge(other, olena), rights.put(f"s{number}", ADD, by_id))
    assert (await rights.record()).segments == {f"s{number}" for number in range(10)}
    assert await rights.office.count("server.member_audience") == 1


async def test_page_of_a_replacement_starts_after_its_member(rights: Rights, olena: UUID, anna: UUID) -> None:
    await rights.put("vip", ADD, BY_CARD, api.Identifier(member_id=str(anna)))
    first, last = sorted(Person(book_of_member(one, BOOKS), one) for one in (olena, anna))
    assert await rights.audience.finish_segment("vip", uuid4(), last) == (0, None)
    assert await rights.audience.finish_segment("vip", uuid4(), first) == (1, None)
