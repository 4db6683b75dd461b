"""The shop that is called: two stores, members with cards, goods, coupons, segments and offers."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from typing import Final

import grpc
from tallypoint.v1 import (
    common_pb2,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    rights_pb2,
    rights_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from tests.fuzz.pools import Known, days_around
from tests.fuzz.programmes import showcase
from tests.support.server_process import RunningServer
from tests.support.till import new_card, until_all_have_read_it

STORES: Final = ("kyiv-1", "kyiv-2")
TERMINALS: Final = ("1", "2")
OUR_TERMINAL: Final = "till"
"""The terminal that calls: no request names it, so that its key is not taken away."""
MEMBERS: Final = 24
SERIES: Final = "come-again"
_GOODS: Final = {
    "milk-1": ("dairy/milk", "Own"),
    "brie": ("dairy/cheese", "Own"),
    "yoghurt": ("dairy/yoghurt", "Own"),
    "bar": ("sweets/bars", ""),
    "bread": ("bakery/bread", "Own"),
    "egg-10": ("eggs", ""),
    "wine": ("wine", ""),
    "tea": ("tea", ""),
    "cup-1": ("home/cups", ""),
    "fish": ("fish", ""),
    "coffee-250": ("coffee", ""),
    "club-card": ("services", ""),
    "tobacco": ("tobacco", ""),
    "screws": ("diy", ""),
    "water": ("water", ""),
    "4820000000024": ("grocery", ""),
}


async def open_shop(server: RunningServer, dice: random.Random) -> tuple[Known, str]:
    """Set up the shop; return what is known of it, and the key of a terminal of its first store."""
    admin = (("authorization", f"Bearer {server.keys['admin']}"),)
    async with grpc.aio.insecure_channel(server.backoffice_address) as office:
        stores = store_pb2_grpc.StoreServiceStub(office)
        for store_id in STORES:
            store = store_pb2.Store(store_id=store_id, name=store_id, time_zone="Europe/Kyiv", groups=["city"])
            await stores.PutStore(store_pb2.PutStoreRequest(store=store), metadata=admin)
        terminal = store_pb2.IssueTerminalKeyRequest(store_id=STORES[0], terminal_id=OUR_TERMINAL)
        key = (await stores.IssueTerminalKey(terminal, metadata=admin)).key
        goods = [store_pb2.Product(sku=sku, category=one, brand=brand) for sku, (one, brand) in _GOODS.items()]
        goods[-4].tags.append("tobacco")
        await stores.PutProducts(store_pb2.PutProductsRequest(products=goods), metadata=admin)
        await programme_pb2_grpc.ProgrammeServiceStub(office).PublishProgramme(
            programme_pb2.PublishProgrammeRequest(text=showcase(), file_name="showcase.yaml"), metadata=admin
        )
        members = await _enrol(office, dice, admin)
        codes = await _give_rights(office, members, admin)
    await until_all_have_read_it(server)
    return Known(_values(members, codes)), key


async def _enrol(
    office: grpc.aio.Channel, dice: random.Random, admin: tuple[tuple[str, str], ...]
) -> list[member_pb2.Member]:
    service = member_pb2_grpc.MemberServiceStub(office)
    members = []
    for number in range(MEMBERS):
        person = member_pb2.NewMember(
            phone=f"+38050{dice.randrange(10**7):07d}",
            card_numbers=[new_card()],
            digital_token=f"token-{uuid.uuid4().hex}",
            profile=member_pb2.Profile(name="Olena Koval", birthday=f"1990-{number % 12 + 1:02d}-17", language="uk"),
        )
        request = member_pb2.RegisterMemberRequest(message_id=str(uuid.uuid4()), member=person)
        members.append((await service.RegisterMember(request, metadata=admin)).member)
    return members


async def _give_rights(
    office: grpc.aio.Channel, members: list[member_pb2.Member], admin: tuple[tuple[str, str], ...]
) -> list[str]:
    rights = rights_pb2_grpc.RightsServiceStub(office)
    identifiers = [common_pb2.Identifier(member_id=one.member_id) for one in members]
    made = rights_pb2.GenerateCouponsRequest(request_id=str(uuid.uuid4()), series=SERIES, count=200, uses=3)
    codes = list((await rights.GenerateCoupons(made, metadata=admin)).codes)
    segment = rights_pb2.PutSegmentRequest(
        segment="sleeping", action=rights_pb2.SEGMENT_ACTION_ADD, members=identifiers[::2]
    )
    await rights.PutSegment(segment, metadata=admin)
    offers = [rights_pb2.OfferAssignment(promotion_id="your-coffee", member=one) for one in identifiers]
    await rights.PutOffers(rights_pb2.PutOffersRequest(offers=offers), metadata=admin)
    return codes


def _values(members: list[member_pb2.Member], codes: list[str]) -> dict[str, list[str]]:
    """Return what fields may name, by the names of the fields."""
    days = days_around(datetime.now(UTC))
    return {
        "store_id": [STORES[0]] * 29 + [STORES[1]],
        "terminal_id": list(TERMINALS),
        "member_id": [one.member_id for one in members],
        "card_number": [one.cards[0].card_number for one in members],
        "phone": [one.phone for one in members],
        "digital_token": ["token-unknown-1"],
        "coupon_code": [*codes, "WELCOME10", "UNKNOWN"],
        "day": days,
        "from_month": [day[:7] for day in days],
        "sku": [*_GOODS, "unknown"],
        "category": ["", "", *(one for one, _ in _GOODS.values())],
        "brand": ["", "", "Own", "Lotto"],
        "supplier": ["", "", "roastery", "state-lottery"],
        "tags": ["clearance", "local", "soap"],
        "currency_code": ["UAH"],
        "channel": ["", "app", "delivery"],
        "card_bin": ["", "516875", "414900"],
        "unit": ["", "bonus", "gift", "deposit"],
        "series": [SERIES, "spring"],
        "segment": ["sleeping", "parents"],
        "promotion_id": ["your-coffee", "cheese-week"],
        "reason_code": ["goodwill", "complaint", "family", "gift"],
        "time_zone": ["Europe/Kyiv", "UTC", "Pacific/Kiritimati", "America/Los_Angeles"],
        "language": ["uk", "en"],
        "group": ["city", "village"],
        "partner": ["", "fuel"],
        "checkout_id": [f"c{number}" for number in range(40)],
        "file_name": ["showcase.yaml", ""],
        "page_token": [""],
        "name": ["Olena Koval", "z.csv"],
        "note": ["seen"],
        "reason": ["asked for"],
        "takeover_reason": ["", "the other lane broke down"],
        "birthday": ["", "1990-05-17"],
        "break_id": ["3f9a04c1"],
        "page_size": [""],
    }
